"""Ctrl-C and SIGTERM: noted when they come, acted on between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequested(BaseException):
    """Ends ``learn()`` from inside, whatever the algorithm does with a callback's answer.

    Not an ``Exception``, so that no library on the way takes it for an error of its own.

    :ivar reason: ``interrupted``, ``max_time`` or ``early_stop``
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.detail = detail


class Signals:
    """Remembers the first SIGINT or SIGTERM; a second SIGINT is a KeyboardInterrupt at once.

    :ivar received: the signal, or None
    """

    def __init__(self) -> None:
        self.received: int | None = None

    @contextlib.contextmanager
    def handled(self) -> Iterator[Signals]:
        """Listen while inside; elsewhere than in the main thread Python gives no signals, so nothing is done there."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def check(self) -> None:
        """Raise StopRequested if a signal came."""
        if self.received is not None:
            raise StopRequested("interrupted")

    @property
    def exit_code(self) -> int:
        """128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.received or signal.SIGINT)
