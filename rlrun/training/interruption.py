"""Reasons to stop training: signals, a deadline, another process that has taken the run. Acted on between two steps."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

from rlrun.processes import handling
from rlrun.runs.lock import RunLock


class StopRequested(BaseException):
    """Ends ``learn()`` from inside, whatever the algorithm does with a callback's answer; training can go on later.

    Not an ``Exception``, so that no library on the way takes it for an error of its own.

    :ivar reason: ``interrupted`` or ``max_time``
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TrainingEnded(BaseException):
    """Ends ``learn()`` from inside because training is over before its budget."""


class Stops:
    """Looks out for every reason to stop.

    The first SIGINT or SIGTERM is remembered; a second SIGINT is a KeyboardInterrupt at once.

    :param max_time: seconds after ``began`` at which to stop; None: no limit
    :param began: a moment of ``time.monotonic``
    :param lock: of the run
    :ivar received: the signal that came, or None
    """

    def __init__(self, max_time: float | None, began: float, lock: RunLock) -> None:
        self.received: int | None = None
        self._deadline = None if max_time is None else began + max_time
        self._lock = lock

    @contextlib.contextmanager
    def handled(self) -> Iterator[Stops]:
        """Listen while inside."""
        with handling(self._note):
            yield self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number

    def check(self) -> None:
        """Raise if there is a reason to stop.

        :raises StopRequested: a signal came, or the time is used up
        :raises RlrunError: another process has taken the run
        """
        if self.received is not None:
            raise StopRequested("interrupted")
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise StopRequested("max_time")
        self._lock.require()

    def check_lock(self) -> None:
        """Look at the run's lock now, and raise RlrunError when another process has taken the run."""
        self._lock.check()
        self._lock.require()

    @property
    def exit_code(self) -> int:
        """128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.received or signal.SIGINT)
