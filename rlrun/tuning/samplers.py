"""Optuna's samplers and pruners by name."""

from __future__ import annotations

import hmac
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlrun.config.search import Range
from rlrun.errors import UsageError, did_you_mean
from rlrun.runs.trust import signature_of
from rlrun.tuning.spaces import grid

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SAMPLERS = ("tpe", "random", "cmaes", "gp", "qmc", "nsgaii", "grid")
PRUNERS = ("median", "percentile", "halving", "hyperband", "none")
_SIGNATURE = 64  # characters
_PRUNER_START = 5  # trials that are never pruned: a median needs some to be one


def check_names(sampler: str, pruner: str, space: Mapping[str, Range]) -> None:
    """Whether there are such a sampler and pruner, and the sampler can search this space.

    :raises UsageError: with the nearest name
    """
    for what, name, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        if name not in known:
            hint = did_you_mean(name, known) or f"Known: {', '.join(known)}."
            raise UsageError(f'There is no {what} "{name}".', hint)
    if sampler == "grid" and grid(space) is None:
        open_ended = next(key for key, searched in space.items() if grid({key: searched}) is None)
        message = f"The sampler grid needs ranges that can be counted, and {open_ended} has no end of values."
        raise UsageError(message, "Write it as a choice, or take another sampler.")


def startup_trials(trials: int) -> int:
    """Trials that are drawn at random before a model is fitted to them: a tenth, from 5 to 25."""
    return min(25, max(5, trials // 10))


def make_sampler(name: str, space: Mapping[str, Range], trials: int, seed: int, parallel: bool) -> BaseSampler:
    """A sampler.

    :param seed: of what it draws
    :param parallel: whether trials are under way while others are drawn
    """
    from optuna import samplers

    first = startup_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns of arguments that may change one day
        if name == "tpe":
            return samplers.TPESampler(n_startup_trials=first, seed=seed, constant_liar=parallel)
        if name == "cmaes":
            if signature_of(b"") is None:
                message = "The sampler cmaes signs what it keeps in its storage, and there is no folder for the key."
                raise UsageError(message, "Take another sampler, such as tpe.")
            return _cmaes_sampler(n_startup_trials=first, seed=seed, warn_independent_sampling=False)
        if name == "gp":
            return samplers.GPSampler(n_startup_trials=first, seed=seed)
        if name == "qmc":
            return samplers.QMCSampler(seed=seed, warn_independent_sampling=False, warn_asynchronous_seeding=False)
        if name == "grid":
            return _grid_sampler(grid(space) or {}, seed)
        return {"random": samplers.RandomSampler, "nsgaii": samplers.NSGAIISampler}[name](seed=seed)


def _cmaes_sampler(**settings: Any) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    class SignedCmaEs(CmaEsSampler):
        """Optuna's keeps its state in the storage as a pickle: here that is signed, and no other is loaded."""

        def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
            return super()._split_optimizer_str(f"{signature_of(optimizer_str.encode())}{optimizer_str}")

        def _concat_optimizer_attrs(self, optimizer_attrs: dict[str, str]) -> str:
            kept = super()._concat_optimizer_attrs(optimizer_attrs)
            signature, optimizer_str = kept[:_SIGNATURE], kept[_SIGNATURE:]
            if not hmac.compare_digest(signature, str(signature_of(optimizer_str.encode()))):
                message = "The sampler cmaes runs what it reads from its storage, and this is not known to be yours."
                raise UsageError(message, "Take another sampler, such as tpe.")
            return optimizer_str

    return SignedCmaEs(**settings)


def _grid_sampler(values: Mapping[str, list[Any]], seed: int) -> BaseSampler:
    from optuna.samplers import GridSampler

    class Grid(GridSampler):
        """Optuna's, which may only stop a study that Optuna itself runs; here the number of trials is limited."""

        def after_trial(self, *arguments: Any, **keywords: Any) -> None:
            """See GridSampler."""

    return Grid(values, seed=seed)


def make_pruner(name: str, steps: int) -> BasePruner:
    """A pruner.

    :param steps: how often a trial reports
    """
    from optuna import pruners

    warm = steps // 3  # what is reported before that says little
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=_PRUNER_START, n_warmup_steps=warm)
    if name == "percentile":
        return pruners.PercentilePruner(25.0, n_startup_trials=_PRUNER_START, n_warmup_steps=warm)
    if name == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=max(1, warm))
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=max(2, steps))
    return pruners.NopPruner()
