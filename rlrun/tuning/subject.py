"""What a study is about: a config, what of it is searched, and the configs that come of it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.config.loading import read_source
from rlrun.config.schema import Config
from rlrun.config.search import Range
from rlrun.envs.seeding import Stream, draw_seeds, endless_seeds
from rlrun.errors import UsageError
from rlrun.run import validated
from rlrun.training.plan import Plan
from rlrun.training.searching import with_values
from rlrun.tuning.spaces import repairs

_EVALUATIONS = 4  # of a trial, where the config does not say
_OF_MACHINES = ("threads", "env.n_envs", "hyperparameters.n_steps", "hyperparameters.buffer_size")
_TRIALS, _RETEST, _SAMPLER = 0, 1, 2  # keys of the seeds' stream


@dataclass(frozen=True)
class Subject:
    """A config and its search space.

    :ivar root: where run directories are
    :ivar folder: the study's, below ``<root>/<env>/<algo>``
    :ivar space: by dotted key
    """

    plan: Plan
    root: Path
    folder: Path
    space: Mapping[str, Range]

    @property
    def evaluate_every(self) -> int:
        """Timesteps between the evaluations of a trial; 0: only at its end.

        What the config says, but so that there are two at least; else a quarter of the budget.
        """
        total = self.plan.config.budget
        given = (self.plan.source.values.get("evaluation") or {}).get("every")
        if given is None:
            return max(1, total // _EVALUATIONS)
        return min(int(given), max(1, total // 2))

    @property
    def steps_per_seed(self) -> int:
        """How many evaluations a seed of a trial reports."""
        every = self.evaluate_every
        return max(1, self.plan.config.budget // every) if every else 1

    def step(self, seed_index: int, timesteps: int) -> int:
        """The pruner's count of evaluations: those of the seeds before, and of this one."""
        last, total = self.steps_per_seed, self.plan.config.budget
        within = last if timesteps >= total or not self.evaluate_every else timesteps // self.evaluate_every
        return seed_index * last + min(last, within)

    def task(self, kind: str, config: Mapping[str, Any], group: str, name: str) -> dict[str, Any]:
        """What a worker is told.

        :param kind: ``trial`` or ``retest``
        :param group: folders below the study's, in which the run is made
        """
        return {
            "kind": kind,
            "config": config,
            "import_paths": list(self.plan.import_paths),
            "root": str(self.root),
            "place": self.folder.parent.relative_to(self.root).as_posix(),
            "group": f"{self.folder.name}/{group}",
            "name": name,
        }

    def completed(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The config's values for what a sampler drew, made into a combination that can train.

        :param drawn: by dotted key
        """
        values = {key: self.space[key].value(number) for key, number in drawn.items()}
        return {**values, **repairs(self.plan.algorithm, values, self.config(values))}

    def values_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The same for what a storage says was drawn, which others may have written.

        :raises UsageError: when nothing of the kind can have been drawn
        """
        try:
            return self.completed({key: params[key] for key in self.space})
        except (KeyError, ValueError, TypeError, StopIteration) as error:
            message = f"A trial of the study {self.folder.name} has values that its search space lacks ({error!r})."
            raise UsageError(message, "Choose another --name.") from None

    def config(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The config as the user wrote it, with some values replaced: it trains as it is."""
        config = with_values(self.plan.source, values).values
        config.pop("search", None)
        if config.get("init_from") is not None:
            config["init_from"] = self.plan.config.init_from
        return config

    def largest(self) -> Config:
        """The config of the trial that takes most of a machine."""
        numbers = {key: self.space[key].samples() for key in _OF_MACHINES if key in self.space}
        values = {key: max(found) for key, found in numbers.items() if all(isinstance(n, int) for n in found)}
        return validated(read_source(self.config(values))) if values else self.plan.config

    def retest_config(self, values: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The same for one seed, with no trackers, on one thread."""
        config = self.config(values)
        threads = 1 if config.get("threads") is None else config["threads"]
        return {**config, "seed": seed, "trackers": [], "threads": threads, "max_time": None}

    def trial_config(self, values: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The same for a trial: nothing is saved, filmed or logged on the way."""
        config = self.retest_config(values, seed)
        evaluation = {**copy.deepcopy(config.get("evaluation") or {}), "every": self.evaluate_every}
        return {**config, "evaluation": evaluation, "checkpoint": {"every": 0}, "video": {"every": 0}, "log_every": 0}

    def trial_seeds(self, number: int, count: int) -> list[int]:
        """The run seeds of a trial: odd numbers."""
        drawn = draw_seeds(self.plan.config.seed, Stream.TUNING, count, _TRIALS, number)
        return [seed | 1 for seed in drawn]

    def retest_seeds(self, count: int) -> list[int]:
        """The run seeds of the re-test: even numbers, so that no trial can have had one of them."""
        drawn = endless_seeds(self.plan.config.seed, Stream.TUNING, _RETEST)
        even = dict.fromkeys(seed & ~1 for seed in itertools.islice(drawn, 2 * count + 8))
        return list(even)[:count]

    def sampler_seed(self, trials: int, session: int) -> int:
        """The seed of a sampler that begins when there are so many trials.

        :param session: how many processes have taken part before, so that those that join at once draw others
        """
        key = (_SAMPLER, trials, session) if session else (_SAMPLER, trials)
        return draw_seeds(self.plan.config.seed, Stream.TUNING, 1, *key)[0]

    def shared_settings(self, seeds_per_trial: int) -> dict[str, Any]:
        """What everyone who joins the study must agree on, as plain values."""
        config = self.trial_config({}, self.plan.config.seed)
        space = {key: [r.form, list(r.choices) or [r.low, r.high]] for key, r in self.space.items()}
        return {"config": config, "search": space, "seeds_per_trial": seeds_per_trial}
