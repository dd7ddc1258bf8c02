"""Seeds side by side: one process for each, one thread each; what fails is told, and the others go on.

``python -m rlrun.seeds GROUP SEED`` is such a process.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rlrun import api
from rlrun.cluster import machines_of, needs_of_config, plan_for
from rlrun.config.loading import Override, Source, read_source
from rlrun.console import note, print_error, seeds_reporter
from rlrun.errors import Interrupted, RlrunError, UsageError
from rlrun.pool import Machines, Needs, Pool, Process, Task, ThisMachine
from rlrun.processes import end_with_parent
from rlrun.run import Run, as_overrides, validated
from rlrun.runs.directory import RunDirectory
from rlrun.runs.files import write_json
from rlrun.runs.groups import Group, Shared, create_group, difference_from, ensure_group, read_group
from rlrun.runs.summary import RESULTS, final_result, last_evaluation, status_of, stored_results
from rlrun.runs.trust import is_own, sign

_A_LOOK = 20  # runs whose files are read at a time


@dataclass
class RunState:
    """One line of the table.

    :ivar name: such as ``seed 3``
    :ivar state: ``waiting``, ``running``, ``finished``, ``interrupted``, or why it failed
    :ivar total_timesteps: the budget; None where it is counted in episodes
    :ivar mean_return: of the newest evaluation
    """

    name: str
    total_timesteps: int | None
    state: str = "waiting"
    timesteps: int = 0
    mean_return: float | None = None


class SeedsReporter(Protocol):
    """Receives the states of all runs. Every method returns at once."""

    def started(self, place: Path, states: Sequence[RunState], jobs: int | None) -> None:
        """Training begins, or goes on; ``jobs`` at a time, or as many as a cluster has room for."""

    def changed(self, states: Sequence[RunState]) -> None:
        """Called several times a second."""

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
    on: str | None = None,
    address: str | None = None,
    progress: bool | SeedsReporter = True,
) -> Outcome:
    """Train one agent for each seed, side by side.

    :param jobs: processes at a time; None: the cores that this process may use, or all that a cluster has room for
    :param name: of the group's folder; None: a UTC stamp and ``-group``
    :param resume: with ``name``: finish that group if it is there
    :param on: ``ray``: on the machines of a Ray cluster; None: on this one
    :param address: of the Ray cluster; None: the one that this machine belongs to, else one of this machine alone
    :return: the group, finished as far as it could be
    :raises ConfigError: with every problem, before anything is created
    """
    wanted = list(dict.fromkeys(seeds))
    if not wanted:
        raise UsageError("There are no seeds to train.", "For instance: --seeds 0-9")
    given = [*as_overrides(overrides), Override("seed", wanted[0], "--seeds")]
    given += [Override("total_timesteps", timesteps, "--timesteps")] if timesteps is not None else []
    with machines_of(on, address) as machines:
        shared = shared_config(api.load_source(config, given), elsewhere=on is not None)
        if resume and name is not None:
            group = ensure_group(Path(run_dir), shared, wanted, name)
        else:
            group = create_group(Path(run_dir), shared, wanted, name)
        return _finish(group, wanted, machines, jobs, progress)


def resume_group(
    group: Group,
    *,
    jobs: int | None = None,
    on: str | None = None,
    address: str | None = None,
    progress: bool | SeedsReporter = True,
) -> Outcome:
    """Train what is missing of a group.

    :param on: see :func:`train_seeds`
    :raises UsageError: when it is not this user's own and a run has not begun
    :raises Interrupted: on Ctrl-C or SIGTERM; every run has saved its state
    """
    with machines_of(on, address) as machines:
        return _finish(group, group.seeds, machines, jobs, progress)


def shared_config(source: Source, elsewhere: bool = False) -> Shared:
    """The config that the runs of a group share, checked in full: each has one thread, unless the user says otherwise.

    :param elsewhere: they run on other machines, so that a GPU need not be here
    :raises ConfigError: with every problem
    """
    plan = plan_for(source, elsewhere)
    config = plan.config
    if source.values.get("threads") is None:
        config = config.model_copy(update={"threads": 1})
    return Shared(config, plan.import_paths, source.path)


def _finish(
    group: Group, seeds: Sequence[int], machines: Machines, jobs: int | None, progress: bool | SeedsReporter
) -> Outcome:
    missing = [seed for seed in seeds if group.run(seed) is None]
    if missing and not group.is_own:
        message = f"The group {group.name} is not known to be yours, and seed {missing[0]} has not begun."
        raise UsageError(message, "Train its config as a group of your own.")
    members = [Member(group, seed, f"seed {seed}") for seed in seeds]
    again = f"rlrun resume {shlex.quote(str(group.path))}"
    failures = train_members(members, group.path, again, machines, jobs, progress)
    return Outcome(group, {member.seed: failures[member.name] for member in members if member.name in failures})


@dataclass(frozen=True)
class Member:
    """One run of a group, begun or not.

    :ivar name: in the table
    """

    group: Group
    seed: int
    name: str

    def state(self) -> RunState:
        """How far it is, read from its folder."""
        found = RunState(self.name, self.group.values.get("total_timesteps"))
        directory = self.group.run(self.seed)
        if directory is None:
            return found
        manifest, evaluation = directory.manifest(), last_evaluation(directory.path)
        mean = manifest.get("mean_return", evaluation["mean_return"] if evaluation else None)
        steps = int(manifest.get("timesteps") or 0)
        state = status_of(directory)
        if state == "finished" and self.is_scored and final_result(directory) is None:
            state = "interrupted"  # while its final agent was evaluated
        return replace(found, state=state, timesteps=steps, mean_return=mean)

    @property
    def is_scored(self) -> bool:
        """Whether its final agent is evaluated."""
        return bool((self.group.values.get("evaluation") or {}).get("episodes", 1))

    def task(self, needs: Needs | None) -> Task:
        """The process that trains it.

        :param needs: None: it runs on this machine
        """
        directory = self.group.run(self.seed)
        is_trusted = self.group.is_own and (directory is None or is_own(directory))
        return Task(
            name=self.name,
            module="rlrun.seeds",
            folder=self.group.path,
            arguments=(str(self.seed), *(("--trust",) if needs is not None and is_trusted else ())),
            log=self.group.path / "logs" / f"s{self.seed}.txt",
            parts=(f"s{self.seed}",),
            after_loss=("--lost",),
            needs=needs or Needs(),
        )


def train_members(
    members: Sequence[Member],
    place: Path,
    again: str,
    machines: Machines,
    jobs: int | None = None,
    progress: bool | SeedsReporter = True,
) -> dict[str, str]:
    """Train what is missing of some runs, side by side.

    :param place: where they are, for people
    :param again: the command that goes on with them
    :return: why runs failed, by name
    :raises Interrupted: on Ctrl-C or SIGTERM; every run has saved its state
    """
    states = {member.name: member.state() for member in members}
    todo = [member for member in members if states[member.name].state != "finished"]
    reporter = progress if not isinstance(progress, bool) else seeds_reporter(silent=not progress)
    is_here = isinstance(machines, ThisMachine)
    needs = {} if is_here else {group.path: needs_of(group) for group in {m.group.path: m.group for m in todo}.values()}
    tasks = [member.task(needs.get(member.group.path)) for member in todo]

    turns = itertools.count(0, _A_LOOK)

    def look(running: Mapping[str, Process], failures: Mapping[str, str]) -> None:
        known = ("running",) if running else ("running", "waiting")  # at the end, those too that were over at once
        live = [member for member in todo if member.name in running or states[member.name].state in known]
        if running and len(live) > _A_LOOK:  # a look at a thousand runs would take longer than the time between two
            begin = next(turns) % len(live)
            live = [*live[begin:], *live[:begin]][:_A_LOOK]
        for member in live:
            with contextlib.suppress(RlrunError, OSError, ValueError):  # a file that is being written
                states[member.name] = member.state()
            state = states[member.name]
            if member.name in running:
                state.state = "running" if running[member.name].has_begun else "waiting"
        for name in failures:
            states[name].state = failures[name]
        reporter.changed(list(states.values()))

    reporter.started(place, list(states.values()), jobs or machines.at_a_time)
    pool = Pool(machines, jobs)
    try:
        failures = pool.run(tasks, look)
    except Interrupted as error:
        lost = "; ".join(f"{name}: {why}" for name, why in pool.failures.items())
        saved = f"every run but {len(pool.failures)} ({lost})" if lost else "every run"
        message = f"Interrupted; the state of {saved} is saved in {place}."
        raise Interrupted(message, f"Go on with: {again}", error.exit_code) from None
    finally:
        reporter.stopped()
        if not is_here:
            _take_in(todo)
    return failures


def needs_of(group: Group) -> Needs:
    """What one run of a group takes of a machine: its threads, a GPU where it uses one, and memory.

    The memory is a process's, and a full replay buffer's or rollout's besides; of a group that is not this user's own,
    whose env is not built to find that out, a process's alone.
    """
    config = validated(read_source({**group.values, "seed": 0}))
    return needs_of_config(config, group.import_paths, build_env=group.is_own)


def _take_in(members: Sequence[Member]) -> None:
    """Make runs that began on other machines runs of this one: those carry other keys' signatures, and other paths."""
    for member in members:
        run = member.group.run(member.seed)
        if run is None or not member.group.is_own:
            continue
        try:
            same_paths = tuple(run.manifest().get("import_paths") or ()) == member.group.import_paths
            if not is_own(run) and same_paths and difference_from(member.group, run.config()) is None:
                sign(run)
            results = stored_results(run)
            if results and any(found and found["run"] != str(run.path) for found in results.values()):
                moved = {name: found and {**found, "run": str(run.path)} for name, found in results.items()}
                write_json(run.path / RESULTS, moved)
        except RlrunError as error:
            note(f"warning: {error}")


# -- the process of one seed


def train_one(group: Group, seed: int, trust: bool = False, lost: bool = False) -> Run:
    """Train one run of a group, or go on with it.

    :param trust: it may import what its config names, though the key of this machine does not say so
    :param lost: the machine that trained it is gone: take it over, and go back to its last scheduled checkpoint
    """
    from rlrun.training.plan import make_plan
    from rlrun.training.progress import Silent
    from rlrun.training.train import start

    began = time.monotonic()
    existing: RunDirectory | None = group.run(seed)
    if existing is not None:
        run = Run(existing).resume(progress=False, began=began, trust=trust, exact=lost, steal=lost)
    else:
        source = replace(read_source({**group.values, "seed": seed}), path=group.config_file)
        plan = make_plan(source, import_paths=group.import_paths)
        # <root>/<env>/<algo>/<group>
        root = group.path.parent.parent.parent
        run = Run(start(plan, root, f"s{seed}", Silent(), began, group.name))
    if run.status == "finished":
        run.end_results()
    return run


def main(arguments: Sequence[str]) -> int:
    """``python -m rlrun.seeds GROUP SEED [--trust] [--lost]``."""
    end_with_parent()
    trust, lost = ("--trust" in arguments), ("--lost" in arguments)
    try:
        train_one(read_group(Path(arguments[0]), trust), int(arguments[1]), trust, lost)
    except RlrunError as error:
        print_error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
