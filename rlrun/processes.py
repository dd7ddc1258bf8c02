"""A process and those that it starts."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from rlrun.errors import Interrupted

_WATCH_PARENT = 1.0  # seconds


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Let signals call a function while inside. Only the main thread gets any, so in others nothing is done.

    :param numbers: of the signals; none: SIGINT and SIGTERM
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers or (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


def why_killed(code: int) -> str:
    """Why a process ended whose exit code says that a signal did it, in words.

    :param code: below 0
    """
    if code == -signal.SIGKILL:
        return "killed by the system, perhaps for memory"
    return f"killed by signal {-code}"


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM end what is inside in order, as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted("Stopped by SIGTERM.", exit_code=128 + number)

    with handling(stop, signal.SIGTERM):
        yield


def end_with_parent() -> None:
    """Save and stop when the process that started this one is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_PARENT)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="rlrun parent", daemon=True).start()
