"""The search: trials until there are enough of them, or no time is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlrun.tuning.pool import Pool, Worker
from rlrun.tuning.spaces import distribution, short_name
from rlrun.tuning.storage import SCORES, SECONDS, SEEDS, VALUES, Ledger, best_first
from rlrun.tuning.subject import Subject

if TYPE_CHECKING:
    from optuna.trial import Trial

_POLL = 0.2  # seconds
_LOOK = 2.0


@dataclass(frozen=True)
class Progress:
    """What is told when a trial ends.

    :ivar state: ``complete``, ``pruned``, ``failed: why``, ``killed, tried again``
    :ivar values: by their short names
    :ivar ended: trials that have, of those that count
    :ivar best: mean return and number of the best trial
    """

    number: int
    state: str
    value: float | None
    values: dict[str, Any]
    ended: int
    total: int
    best: tuple[float, int] | None


@dataclass
class _Running:
    """A trial that a worker trains, one seed after another."""

    trial: Trial
    values: dict[str, Any]
    seeds: list[int]
    scores: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)


class Search:
    """Runs trials.

    :param total: trials in all, those of earlier sessions and of other processes included
    :param until: a moment of ``time.monotonic`` after which no trial begins; None: no limit
    :param told: of every trial that ends
    """

    def __init__(
        self,
        subject: Subject,
        ledger: Ledger,
        pool: Pool,
        total: int,
        seeds_per_trial: int,
        until: float | None,
        told: Callable[[Progress], None],
    ) -> None:
        self._subject, self._ledger, self._pool, self._told = subject, ledger, pool, told
        self._total, self._seeds, self._until = total, seeds_per_trial, until
        self._space = {key: distribution(searched) for key, searched in subject.space.items()}
        self._looked = -_LOOK

    def run(self) -> None:
        """Go on until the trials are there, the time is up, or a signal came."""
        while True:
            self._look()
            while self._may_begin() and (worker := self._pool.idle()) is not None:
                self._begin(worker)
            if not self._pool.busy() and (self._is_stopped() or not self._others_run()):
                return
            if (heard := self._pool.receive(_POLL)) is not None:
                self._hear(*heard)

    def _is_stopped(self) -> bool:
        is_late = self._until is not None and time.monotonic() > self._until
        return is_late or self._pool.received is not None

    def _may_begin(self) -> bool:
        if self._is_stopped() or len(self._pool.busy()) >= self._pool.jobs:
            return False
        return sum(trial.state.name != "WAITING" for trial in self._ledger.counting()) < self._total

    def _others_run(self) -> bool:
        """Whether a trial of another process may still fail, or turn out the best."""
        return self._may_begin() or any(trial.state.name == "RUNNING" for trial in self._ledger.counting())

    def _look(self) -> None:
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        for number in self._ledger.look():
            self._tell(number, "killed, tried again", None, {})

    def _begin(self, worker: Worker) -> None:
        trial = self._ledger.begin(self._total, self._space)
        if trial is None:
            return
        values = self._subject.completed(trial.params)
        seeds = self._subject.trial_seeds(trial.number, self._seeds)
        trial.set_user_attr(VALUES, values)
        trial.set_user_attr(SEEDS, seeds)
        worker.task = _Running(trial, values, seeds)
        self._send(worker)

    def _send(self, worker: Worker) -> None:
        running: _Running = worker.task
        seed = running.seeds[len(running.scores)]
        config = self._subject.trial_config(running.values, seed)
        worker.tell(self._subject.task("trial", config, f"trials/{running.trial.number}", f"s{seed}"))

    def _hear(self, worker: Worker, message: dict[str, Any] | None) -> None:
        running: _Running | None = worker.task
        if running is None:
            return
        if message is not None and "evaluated" in message:
            worker.tell({"stop": self._is_hopeless(running, message)})
        elif message is not None and "done" in message:
            running.scores.append(message["done"])
            if len(running.scores) < len(running.seeds):
                self._send(worker)
            else:
                self._end(worker, message)
        else:
            self._end(worker, message)

    def _is_hopeless(self, running: _Running, message: dict[str, Any]) -> bool:
        """Report the mean over seeds: the last evaluations of those before, and this one."""
        scores = [*running.scores, message["value"]]
        step = self._subject.step(len(running.scores), message["evaluated"])
        is_last = step >= self._subject.steps_per_seed * len(running.seeds)
        return self._ledger.is_hopeless(running.trial, sum(scores) / len(scores), step) and not is_last

    def _end(self, worker: Worker, message: dict[str, Any] | None) -> None:
        running: _Running = worker.task
        worker.task = None
        trial, scores, ledger = running.trial, running.scores, self._ledger
        if (message is None and self._pool.received is not None) or (message is not None and "interrupted" in message):
            ledger.give_back(trial)
            return
        value, state = None, "pruned"
        if message is None:
            reason = worker.why_gone()
            again = ledger.was_killed(trial, reason)
            state = f"{reason}, tried again" if again else f"failed: {reason}"
        else:
            facts = {SCORES: scores, SECONDS: round(time.monotonic() - running.began, 1)}
            mean = sum(scores) / len(scores) if scores else math.nan
            if "done" in message and math.isfinite(mean):
                value, state = mean, "complete"
                is_mine = ledger.complete(trial, mean, facts)
            elif "pruned" in message:
                is_mine = ledger.prune(trial, facts)
            else:
                unknown = f"its mean return is {mean}" if "done" in message else "its worker said nothing"
                reason = str(message.get("failed", unknown))
                state = f"failed: {reason}"
                is_mine = ledger.fail(trial, reason, facts)
            if not is_mine:
                value, state = None, "taken for dead by another process, tried again"
        self._tell(trial.number, state, value, running.values)

    def _tell(self, number: int, state: str, value: float | None, values: dict[str, Any]) -> None:
        counting = self._ledger.counting()
        best = best_first(counting)[:1]
        self._told(
            Progress(
                number=number,
                state=state,
                value=value,
                values={short_name(key): item for key, item in values.items()},
                ended=sum(trial.state.is_finished() for trial in counting),
                total=self._total,
                best=(best[0].value or 0.0, best[0].number) if best else None,
            )
        )
