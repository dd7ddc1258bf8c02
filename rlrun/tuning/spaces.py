"""Search spaces as Optuna's distributions, and combinations that cannot train made into ones that can."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlrun.algorithms.crosschecks import with_defaults
from rlrun.algorithms.registry import Algorithm
from rlrun.config.search import Range, label

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_PREFIX = "hyperparameters."


def short_name(key: str) -> str:
    """A dotted key as people know it: ``gamma`` for ``hyperparameters.gamma``."""
    return key.removeprefix(_PREFIX)


def distribution(searched: Range) -> BaseDistribution:
    """What Optuna draws for a range."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if searched.form == "choice":
        return CategoricalDistribution([label(choice) for choice in searched.choices])
    if searched.form in ("int", "power_of_two"):
        return IntDistribution(int(searched.low), int(searched.high))
    return FloatDistribution(searched.low, searched.high, log=searched.form != "uniform")


def grid(space: Mapping[str, Range]) -> dict[str, list[Any]] | None:
    """Every value that each range may have; None when one has no end of them."""
    found: dict[str, list[Any]] = {}
    for key, searched in space.items():
        if searched.form == "choice":
            found[key] = [label(choice) for choice in searched.choices]
        elif searched.form in ("int", "power_of_two"):
            found[key] = list(range(int(searched.low), int(searched.high) + 1))
        else:
            return None
    return found


def repairs(algorithm: Algorithm, values: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What must change in a combination of drawn values for it to train within the budget.

    - ``n_steps`` is halved until a rollout (n_steps x n_envs) is no longer than the budget;
    - ``batch_size`` is lowered to the largest divisor of a rollout;
    - ``n_top`` of ARS is lowered to ``n_delta``.

    :param values: what was drawn, by dotted key
    :param config: the config with these values in it
    :return: changed values by dotted key
    """
    settings = with_defaults(algorithm, config.get("hyperparameters") or {})
    if "buffer_size" in settings:
        return {}
    if "n_delta" in settings:
        top, deltas = settings["n_top"], settings["n_delta"]
        return {f"{_PREFIX}n_top": deltas} if isinstance(top, int) and top > deltas else {}
    if not isinstance(settings.get("n_steps"), int):
        return {}
    n_envs = int(config["env"].get("n_envs") or 1)
    changes: dict[str, Any] = {}
    steps = settings["n_steps"]
    if f"{_PREFIX}n_steps" in values:
        while steps * n_envs > config["total_timesteps"] and steps % 2 == 0:
            steps //= 2
        if steps != settings["n_steps"]:
            changes[f"{_PREFIX}n_steps"] = steps
    batch = settings.get("batch_size")
    if isinstance(batch, int) and (fitting := _largest_divisor(steps * n_envs, batch)) != batch:
        changes[f"{_PREFIX}batch_size"] = fitting
    return changes


def _largest_divisor(number: int, at_most: int) -> int:
    small = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    return max(d for d in [*small, *(number // d for d in small)] if d <= at_most)
