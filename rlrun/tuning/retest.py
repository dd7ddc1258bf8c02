"""The re-test: the best trials and the config itself, trained again on seeds that the search never saw.

The luckiest of many trials is not the best one: its value is the largest of many noisy numbers. Fresh seeds have no
such luck in them, and the config's own values on the same seeds say what the search was worth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlrun.runs.directory import CONFIG, RunDirectory
from rlrun.runs.summary import final_result
from rlrun.runs.trust import is_own, sign
from rlrun.tuning.pool import Pool, Worker
from rlrun.tuning.storage import ATTEMPTS
from rlrun.tuning.subject import Subject

DEFAULTS = "defaults"  # the config as it is
_POLL, _BUSY = 0.2, 2.0  # seconds


@dataclass
class Candidate:
    """A config that is tested again.

    :ivar trial: the trial's number; None for the config itself
    :ivar scores: mean return of the final agent, by seed
    :ivar failures: why not, by seed
    """

    name: str
    trial: int | None
    values: Mapping[str, Any]
    scores: dict[int, float] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean over seeds; the worst there is for one that failed on a seed."""
        return sum(self.scores.values()) / len(self.scores) if self.scores and not self.failures else float("-inf")


@dataclass
class _Task:
    candidate: Candidate
    seed: int
    attempt: int = 1
    was_lost: bool = False  # with its machine, which cannot give the run back
    not_before: float = 0.0


class Retest:
    """Trains candidates on seeds.

    :param told: of every run that ends: the candidate, the seed, and how it went in words
    """

    def __init__(self, subject: Subject, pool: Pool, told: Callable[[Candidate, int, str], None]) -> None:
        self._subject, self._pool, self._told = subject, pool, told
        self._waiting: list[_Task] = []

    def run(self, candidates: Sequence[Candidate], seeds: Sequence[int]) -> None:
        """Fill in the scores; stops early when a signal came."""
        # Seed by seed, so that every candidate has some where the rest is cut short.
        self._waiting = [_Task(c, seed) for seed in seeds for c in candidates if not self._is_known(c, seed)]
        while self._pool.busy() or (self._waiting and self._pool.received is None):
            self._begin()
            if (heard := self._pool.receive(_POLL)) is not None:
                self._hear(*heard)

    def _is_known(self, candidate: Candidate, seed: int) -> bool:
        """Whether an earlier session has trained it."""
        place = self._subject.folder / "retest" / candidate.name / f"s{seed}"
        final = final_result(RunDirectory(place)) if (place / CONFIG).is_file() else None
        if final is None:
            return False
        candidate.scores[seed] = float(final["mean_return"])
        return True

    def _begin(self) -> None:
        while self._pool.received is None:
            now = time.monotonic()
            task = next((task for task in self._waiting if task.not_before <= now), None)
            if task is None or len(self._pool.busy()) >= self._pool.jobs:
                return
            worker = self._pool.idle()
            if worker is None:
                return
            self._waiting.remove(task)
            worker.task = task
            config = self._subject.retest_config(task.candidate.values, task.seed)
            told = self._subject.task("retest", config, f"retest/{task.candidate.name}", f"s{task.seed}")
            worker.tell({**told, "lost": task.was_lost})

    def _hear(self, worker: Worker, message: dict[str, Any] | None) -> None:
        task: _Task | None = worker.task
        worker.task = None
        if task is None or (message is not None and "interrupted" in message):
            return
        if message is None:
            task.was_lost = worker.companion.was_lost
            self._was_killed(task, worker.why_gone())
        elif "busy" in message:
            task.not_before = time.monotonic() + _BUSY
            self._waiting.append(task)
        elif "done" in message:
            task.candidate.scores[task.seed] = float(message["done"])
            self._take_in(task)
            self._told(task.candidate, task.seed, f"{message['done']:.2f}")
        else:
            self._fail(task, str(message.get("failed", "its worker said nothing")))

    def _take_in(self, task: _Task) -> None:
        """Make a run that another machine signed one of this one."""
        run = RunDirectory(self._subject.folder / "retest" / task.candidate.name / f"s{task.seed}")
        if not is_own(run):
            sign(run)

    def _was_killed(self, task: _Task, reason: str) -> None:
        if self._pool.received is not None:
            return
        if task.attempt >= ATTEMPTS:
            self._fail(task, f"{reason}, {ATTEMPTS} times")
            return
        self._told(task.candidate, task.seed, f"{reason}; it goes on from its last checkpoint")
        task.attempt += 1
        self._waiting.append(task)

    def _fail(self, task: _Task, reason: str) -> None:
        task.candidate.failures[task.seed] = reason
        self._told(task.candidate, task.seed, f"failed: {reason}")
