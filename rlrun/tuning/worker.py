"""A process that trains what the study's process tells it to, one task after another.

``python -m rlrun.tuning.worker`` reads a task a line from stdin and writes what happens to stdout, as JSON:
``{"evaluated": at, "value": mean}`` is answered with ``{"stop": false}``; a task ends with ``done``, ``pruned``,
``failed`` or ``interrupted``.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from rlrun.config.loading import read_source
from rlrun.errors import Interrupted, RlrunError, UsageError
from rlrun.evaluation.statistics import Evaluation
from rlrun.processes import end_with_parent
from rlrun.run import Run
from rlrun.runs.directory import CHECKPOINTS, MAY_DIFFER, RunDirectory, run_folder
from rlrun.runs.lock import holder_of
from rlrun.runs.trust import is_own
from rlrun.training.plan import Plan, make_plan
from rlrun.training.progress import Silent
from rlrun.training.train import start
from rlrun.training.trial import TrialBoundary

Answer = dict[str, Any]
# What is kept of a trial: its config, its manifest and its evaluations.
_NOT_KEPT = ("episodes.csv", "metrics.csv")


class _Pruned(BaseException):
    """Ends training from inside an evaluation. Not an Exception, so that nothing takes it for an error."""


class _Asks(Silent):
    """Tells the study's process of each evaluation, which may say that this is enough."""

    def __init__(self, ask: Callable[[Answer], Mapping[str, Any]]) -> None:
        self._ask = ask
        self.last = math.nan

    def evaluated(self, timesteps: int, evaluation: Evaluation, is_best: bool) -> None:
        """See Reporter."""
        self.last = evaluation.mean_return
        if not math.isfinite(self.last):
            raise RlrunError(f"the evaluation at {timesteps:,} timesteps gave no finite return")
        if self._ask({"evaluated": timesteps, "value": self.last}).get("stop"):
            raise _Pruned


def train_trial(task: Mapping[str, Any], ask: Callable[[Answer], Mapping[str, Any]]) -> Answer:
    """Train one seed of a trial; nothing is kept of it but its numbers.

    :param task: ``config`` as plain values, ``import_paths``, ``root``, ``group``, ``name``
    :param ask: told of each evaluation
    """
    plan = make_plan(read_source(task["config"]), import_paths=task["import_paths"])
    asks = _Asks(ask)
    place = run_folder(Path(task["root"]), plan.config) / task["group"] / task["name"]
    try:
        run = start(plan, Path(task["root"]), task["name"], asks, time.monotonic(), task["group"], TrialBoundary)
        return {"done": asks.last, "timesteps": run.manifest().get("timesteps")}
    except _Pruned:
        RunDirectory(place.resolve()).update_manifest({"status": "pruned"})
        return {"pruned": True}
    finally:
        shutil.rmtree(place / CHECKPOINTS, ignore_errors=True)
        for name in _NOT_KEPT:
            (place / name).unlink(missing_ok=True)


def train_again(task: Mapping[str, Any]) -> Answer:
    """Train one seed of a re-test, as an ordinary run; go on with it if it is there.

    :return: the mean return of its final agent on episodes of its own
    """
    plan = make_plan(read_source(task["config"]), import_paths=task["import_paths"])
    place = run_folder(Path(task["root"]), plan.config) / task["group"] / task["name"]
    try:
        if place.is_dir():
            _require_same(RunDirectory.open(place), plan)
            lost = bool(task.get("lost"))
            run = Run(RunDirectory.open(place)).resume(progress=False, trust=True, exact=lost, steal=lost)
        else:
            run = Run(start(plan, Path(task["root"]), task["name"], Silent(), time.monotonic(), task["group"]))
    except UsageError:
        if holder_of(place) is None:
            raise
        return {"busy": True}  # another process of the study trains it
    final = run.end_results()["final"]
    if final is None or not math.isfinite(final["mean_return"]):
        return {"failed": "its evaluation gave no finite return"}
    return {"done": final["mean_return"], "run": str(run.path)}


def _require_same(run: RunDirectory, plan: Plan) -> None:
    """A run that is there already is gone on with, and trusted, where it is what the study would have trained.

    :raises UsageError: when it is another one, which somebody else may have put there
    """
    paths = tuple(run.manifest().get("import_paths") or ())
    both = (run.config(), plan.config)
    before, now = (config.model_dump(by_alias=True, mode="json", exclude=set(MAY_DIFFER)) for config in both)
    if before != now or not (is_own(run) or paths == plan.import_paths):
        raise UsageError(f"{run.path} is there already, and trains something else.", "Move it away.")


def perform(task: Mapping[str, Any], ask: Callable[[Answer], Mapping[str, Any]]) -> Answer:
    """Do a task; whatever goes wrong in it is its answer."""
    try:
        return train_trial(task, ask) if task["kind"] == "trial" else train_again(task)
    except Interrupted:
        return {"interrupted": True}
    except UsageError as error:
        return {"failed": _in_a_line(error.message)}
    except RlrunError as error:
        return {"failed": _in_a_line(error.message.removeprefix("Training failed: "))}
    except Exception as error:  # of the env, the user's classes, SB3, torch: the study goes on
        return {"failed": _in_a_line(f"{type(error).__name__}: {error}")}


def _in_a_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _own_stdout() -> TextIO:
    """The stream to the study's process; what libraries print goes to stderr, which is the log."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return stream


def main() -> int:
    """Do the tasks that come, until there are no more."""
    end_with_parent()
    out = _own_stdout()

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted("Interrupted.", exit_code=128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)

    def tell(answer: Answer) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    def ask(question: Answer) -> Mapping[str, Any]:
        tell(question)
        line = sys.stdin.readline()
        if not line:  # the study's process is gone
            raise Interrupted("The study's process is gone.")
        return dict(json.loads(line))

    try:
        for line in sys.stdin:
            tell(perform(json.loads(line), ask))
    except (Interrupted, BrokenPipeError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
