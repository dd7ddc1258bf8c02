"""Processes side by side, on this machine or on others: what fails is told, and the others go on."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from rlrun.errors import Interrupted, UsageError
from rlrun.machine import usable_cores
from rlrun.processes import handling, why_killed

_POLL = 0.2  # seconds


@dataclass(frozen=True)
class Needs:
    """What a process takes of a machine.

    :ivar memory: bytes; 0: it is not known
    """

    cores: int = 1
    gpus: int = 0
    memory: int = 0


@dataclass(frozen=True)
class Task:
    """A process of Python to run.

    :ivar name: among the tasks of a pool
    :ivar module: ``python -m MODULE FOLDER ARGUMENTS``
    :ivar folder: all that it reads and writes lies below it; absolute, and at least three folders below a root
    :ivar parts: the paths in the folder that belong to this task, which alone are written
    :ivar after_loss: arguments besides, when an earlier process of this task was lost with its machine
    :ivar log: where its output goes
    """

    name: str
    module: str
    folder: Path
    arguments: tuple[str, ...]
    log: Path
    parts: tuple[str, ...] = ()
    after_loss: tuple[str, ...] = ()
    needs: Needs = field(default_factory=Needs)


class Process(Protocol):
    """A task that was started."""

    @property
    def has_begun(self) -> bool:
        """Whether it runs already: a machine of a cluster may have to become free first."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def reason(self) -> str:
        """Why it failed, in a sentence; called after its end."""

    def send_signal(self, number: int) -> None:
        """SIGINT and SIGTERM: save, and stop."""

    def kill(self) -> None:
        """End it at once, if it still runs; at the latest with the next look at it (:meth:`poll`)."""


class Machines(Protocol):
    """Where processes run.

    :ivar at_a_time: how many there is room for; None: the machines see to that themselves
    """

    at_a_time: int | None

    def start(self, task: Task) -> Process:
        """Start a task, or put it in a queue."""


class ThisMachine:
    """Local processes, as many at a time as there are cores."""

    def __init__(self) -> None:
        self.at_a_time: int | None = usable_cores()

    def start(self, task: Task) -> Process:
        """See :class:`Machines`."""
        return _LocalProcess(task)


class _LocalProcess:
    has_begun = True

    def __init__(self, task: Task) -> None:
        command = [sys.executable, "-m", task.module, str(task.folder), *task.arguments]
        self._log = task.log
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def reason(self) -> str:
        return reason_of(self._process.returncode, self._log)

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()


def reason_of(code: int, log: Path) -> str:
    """Why a process failed, in a sentence.

    :param log: its output
    """
    if code < 0:
        return why_killed(code)
    text = log.read_text(errors="replace") if log.is_file() else ""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    return lines[-1].removeprefix("error: ") if lines else f"ended with exit code {code}; see {log}"


class Pool:
    """Runs tasks side by side.

    :param jobs: how many at a time; None: as many as the machines have room for
    :ivar failures: why tasks failed, by name
    """

    def __init__(self, machines: Machines, jobs: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise UsageError(f"jobs is {jobs}, and must be 1 or more.", "Leave it out, or give a number.")
        self.failures: dict[str, str] = {}
        self._machines, self._jobs = machines, jobs or machines.at_a_time
        self._running: dict[str, Process] = {}
        self._received: int | None = None

    def run(
        self, tasks: Iterable[Task], look: Callable[[Mapping[str, Process], Mapping[str, str]], None]
    ) -> dict[str, str]:
        """Run tasks to their ends.

        :param tasks: each is asked for when there is room for it
        :param look: called several times a second with the processes by name, and why others failed
        :return: why tasks failed, by name
        :raises Interrupted: after Ctrl-C or SIGTERM; every process was told, and has ended
        """
        waiting = iter(tasks)
        with self._signals():
            while self._start_some(waiting):
                look(self._running, self.failures)
                time.sleep(_POLL)
                self.failures.update(self._ended())
            look(self._running, self.failures)
        if self._received is not None:
            raise Interrupted("Interrupted.", exit_code=128 + self._received)
        return self.failures

    def _start_some(self, waiting: Iterator[Task]) -> bool:
        """Start tasks while there is room and nobody has interrupted.

        :return: whether there is anything to wait for
        """
        while self._received is None and (self._jobs is None or len(self._running) < self._jobs):
            task = next(waiting, None)
            if task is None:
                break
            self._running[task.name] = process = self._machines.start(task)
            if self._received is not None:  # a signal came meanwhile, and did not find it
                process.send_signal(self._received)
        return bool(self._running)

    def _ended(self) -> dict[str, str]:
        """Forget the processes that have ended; why, for those that failed, or had no time to save their state."""
        failures = {}
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            is_saved = self._received is not None and code in (128 + signal.SIGINT, 128 + signal.SIGTERM)
            if code and not is_saved:
                failures[name] = process.reason()
        return failures

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Hand Ctrl-C and SIGTERM on, so that every run saves its state; a second Ctrl-C ends them at once."""
        try:
            with handling(self._note):
                yield
        finally:
            for process in self._running.values():
                process.kill()
                process.poll()

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self._received == number == signal.SIGINT
        self._received = self._received or number
        for process in self._running.values():
            if again:
                process.kill()
            else:
                process.send_signal(number)
