"""Seeds side by side: one process for each, one thread each; what fails is told, and the others go on.

``python -m rlrun.seeds GROUP SEED`` is such a process.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from rlrun import api
from rlrun.config.loading import Override, read_source
from rlrun.console import print_error, seeds_reporter
from rlrun.errors import Interrupted, RlrunError, UsageError
from rlrun.machine import usable_cores
from rlrun.processes import end_with_parent
from rlrun.run import Run, as_overrides
from rlrun.runs.directory import run_folder
from rlrun.runs.groups import Group, create_group, read_group
from rlrun.runs.summary import last_evaluation

_POLL = 0.2  # seconds


@dataclass
class SeedState:
    """One line of the table.

    :ivar state: ``waiting``, ``running``, ``finished``, ``interrupted``, or why it failed
    :ivar mean_return: of the newest evaluation
    """

    seed: int
    state: str = "waiting"
    timesteps: int = 0
    mean_return: float | None = None


class SeedsReporter(Protocol):
    """Receives the states of all seeds. Every method returns at once."""

    def started(self, group: Path, states: Sequence[SeedState], jobs: int) -> None:
        """Training begins, or goes on."""

    def changed(self, states: Sequence[SeedState], total_timesteps: int | None) -> None:
        """Called several times a second.

        :param total_timesteps: the budget of each; None where it is counted in episodes
        """

    def stopped(self) -> None:
        """All processes have ended."""


@dataclass
class Outcome:
    """How training a group ended.

    :ivar failures: why, by seed
    """

    group: Group
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def runs(self) -> list[Run]:
        """The runs there are, by seed."""
        return [Run(directory) for directory in self.group.runs()]

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``rlrun train --seeds --json``."""
        summaries = [run.training_summary() for run in self.runs if run.status == "finished"]
        return {
            "group": str(self.group.path),
            "runs": summaries,
            "failures": {str(k): v for k, v in self.failures.items()},
        }


def train_seeds(
    config: api.ConfigLike,
    seeds: Sequence[int],
    *,
    jobs: int | None = None,
    timesteps: int | None = None,
    overrides: Mapping[str, Any] | Sequence[Override] = (),
    run_dir: str | Path = api.RUNS,
    name: str | None = None,
    resume: bool = False,
    progress: bool | SeedsReporter = True,
) -> Outcome:
    """Train one agent for each seed, side by side.

    :param jobs: processes at a time; None: the cores that this process may use
    :param name: of the group's folder; None: a UTC stamp and ``-group``
    :param resume: with ``name``: finish that group if it is there
    :return: the group, finished as far as it could be
    :raises ConfigError: with every problem, before anything is created
    """
    wanted = list(dict.fromkeys(seeds))
    if not wanted:
        raise UsageError("There are no seeds to train.", "For instance: --seeds 0-9")
    given = [*as_overrides(overrides), Override("seed", wanted[0], "--seeds")]
    given += [Override("total_timesteps", timesteps, "--timesteps")] if timesteps is not None else []
    plan = api.check(config, overrides=given)
    if plan.source.place(("threads",)) is None:
        plan_config = plan.config.model_copy(update={"threads": 1})
    else:
        plan_config = plan.config
    if resume and name is not None:
        place = run_folder(Path(run_dir), plan_config) / name
        if place.is_dir():
            return resume_group(read_group(place), jobs=jobs, progress=progress)
    group = create_group(Path(run_dir), plan_config, wanted, plan.import_paths, name)
    return resume_group(group, jobs=jobs, progress=progress)


def resume_group(group: Group, *, jobs: int | None = None, progress: bool | SeedsReporter = True) -> Outcome:
    """Train what is missing of a group.

    :raises UsageError: when it is not this user's own and a run has not begun
    :raises Interrupted: on Ctrl-C or SIGTERM; every run has saved its state
    """
    missing = [seed for seed in group.seeds if group.run(seed) is None]
    if missing and not group.is_own:
        message = f"The group {group.name} is not known to be yours, and seed {missing[0]} has not begun."
        raise UsageError(message, "Train its config as a group of your own.")
    states = {seed: _state_of(group, seed) for seed in group.seeds}
    todo = [seed for seed, state in states.items() if state.state != "finished"]
    reporter = progress if not isinstance(progress, bool) else seeds_reporter(silent=not progress)
    outcome = Outcome(group)
    reporter.started(group.path, list(states.values()), jobs or usable_cores())
    try:
        _Pool(group, states, outcome, reporter).run(todo, jobs or usable_cores())
    finally:
        reporter.stopped()
    return outcome


class _Pool:
    """Processes of a group's seeds."""

    def __init__(self, group: Group, states: dict[int, SeedState], outcome: Outcome, reporter: SeedsReporter) -> None:
        self._group, self._states, self._outcome, self._reporter = group, states, outcome, reporter
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._received: int | None = None

    def run(self, todo: Sequence[int], jobs: int) -> None:
        """Train seeds, ``jobs`` at a time."""
        waiting = list(todo)
        with self._signals():
            while waiting or self._running:
                while waiting and len(self._running) < jobs and self._received is None:
                    seed = waiting.pop(0)
                    self._running[seed] = self._start(seed)
                    self._states[seed].state = "running"
                if self._received is not None:
                    waiting = []
                self._look()
                time.sleep(_POLL)
        if self._received is not None:
            again = f"Go on with: rlrun resume {self._group.path}"
            message = f"Interrupted; the state of every run is saved in {self._group.path}."
            raise Interrupted(message, again, 128 + self._received)

    def _start(self, seed: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rlrun.seeds", str(self._group.path), str(seed)]
        with _log(self._group, seed).open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _look(self) -> None:
        for seed, process in list(self._running.items()):
            code = process.poll()
            state = self._states[seed] = _state_of(self._group, seed)
            if code is None:
                state.state = "running"
                continue
            del self._running[seed]
            if code and self._received is None:
                state.state = self._outcome.failures[seed] = _reason(_log(self._group, seed), code)
        budget = self._group.values.get("total_timesteps")
        states = [self._states[seed] for seed in self._group.seeds]
        self._reporter.changed(states, None if budget is None else int(budget))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Hand Ctrl-C and SIGTERM on, so that every run saves its state; a second Ctrl-C ends them at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            how = signal.SIGKILL if self._received == number == signal.SIGINT else number
            self._received = self._received or number
            for process in self._running.values():
                process.send_signal(how)

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            for process in self._running.values():
                process.kill()


def _state_of(group: Group, seed: int) -> SeedState:
    directory = group.run(seed)
    if directory is None:
        return SeedState(seed)
    manifest, run = directory.manifest(), Run(directory)
    evaluation = last_evaluation(directory.path)
    mean = manifest.get("mean_return", evaluation["mean_return"] if evaluation else None)
    return SeedState(seed, run.status, int(manifest.get("timesteps") or 0), mean)


def _log(group: Group, seed: int) -> Path:
    """Where a process's output goes."""
    folder = group.path / "logs"
    folder.mkdir(exist_ok=True)
    return folder / f"s{seed}.txt"


def _reason(log: Path, code: int) -> str:
    """Why a process ended, in a sentence."""
    if code == -signal.SIGKILL:
        return "killed by the system, perhaps for memory"
    if code < 0:
        return f"killed by signal {-code}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("error: ")]
    return lines[-1].removeprefix("error: ") if lines else f"ended with exit code {code}; see {log}"


# -- the process of one seed


def train_one(group: Group, seed: int) -> Run:
    """Train one run of a group, or go on with it."""
    from rlrun.training.plan import make_plan
    from rlrun.training.progress import Silent
    from rlrun.training.train import start

    began = time.monotonic()
    existing = group.run(seed)
    if existing is not None:
        run = Run(existing).resume(progress=False, began=began)
    else:
        source = read_source({**group.values, "seed": seed})
        plan = make_plan(source, import_paths=group.import_paths)
        # <root>/<env>/<algo>/<group>
        root = group.path.parent.parent.parent
        run = Run(start(plan, root, f"s{seed}", Silent(), began, group.name))
    if run.status == "finished":
        run.end_results()
    return run


def main(arguments: Sequence[str]) -> int:
    """``python -m rlrun.seeds GROUP SEED``."""
    end_with_parent()
    try:
        train_one(read_group(Path(arguments[0])), int(arguments[1]))
    except RlrunError as error:
        print_error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
