"""Workers: started when first needed, replaced when they are killed, told to stop in order."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from rlrun.companions import Companion
from rlrun.processes import handling

MODULE = "rlrun.tuning.worker"
_GRACE = 60.0  # seconds that a worker may take to stop


class Worker:
    """One process, and what it is doing.

    :ivar task: what the study remembers of its task; None while it has none
    """

    def __init__(self, companion: Companion, said: queue.Queue[tuple[Worker, dict[str, Any] | None]]) -> None:
        self.task: Any = None
        self.companion = companion
        self._said = said
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for answer in self.companion.answers():
                self._said.put((self, answer))
        finally:
            self._said.put((self, None))

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a task, or the answer to a question; a worker that is gone is noticed elsewhere."""
        self.companion.tell(message)

    def why_gone(self) -> str:
        """Why the process ended, in words."""
        return self.companion.why_gone()


class Pool:
    """Up to ``jobs`` workers.

    :param start: starts one
    :ivar received: the signal that asked this process to stop, or None
    """

    def __init__(self, jobs: int, start: Callable[[], Companion]) -> None:
        self.jobs, self._start = jobs, start
        self.received: int | None = None
        self._to_hand_on: list[int] = []
        self._workers: list[Worker] = []
        self._said: queue.Queue[tuple[Worker, dict[str, Any] | None]] = queue.Queue()

    def idle(self) -> Worker | None:
        """A worker without a task, started if there may be one more; None when all are busy."""
        found = next((worker for worker in self._workers if worker.task is None), None)
        if found is None and len(self._workers) < self.jobs:
            found = Worker(self._start(), self._said)
            self._workers.append(found)
        return found

    def busy(self) -> list[Worker]:
        """Workers with a task."""
        return [worker for worker in self._workers if worker.task is not None]

    def receive(self, timeout: float) -> tuple[Worker, dict[str, Any] | None] | None:
        """What a worker said next; None of a worker that is gone; nothing within the time is None too."""
        while self._to_hand_on:  # not by the handler itself: a cluster must not be talked to from there
            number = self._to_hand_on.pop(0)
            for worker in self._workers:
                if number == signal.SIGKILL:
                    worker.companion.end(0.0)
                else:
                    worker.companion.send_signal(number)
        self._make_room()
        try:
            worker, message = self._said.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None and worker in self._workers:
            self._workers.remove(worker)
        return worker, message

    def _make_room(self) -> None:
        """Let workers that have nothing to do end, where others wait for a machine to become free."""
        if all(worker.companion.has_begun for worker in self.busy()):
            return
        for worker in [worker for worker in self._workers if worker.task is None]:
            self._workers.remove(worker)
            worker.companion.no_more()
            worker.companion.end(_GRACE)

    def close(self) -> None:
        """Let the workers end; those that do not are killed."""
        for worker in self._workers:
            worker.companion.no_more()
        until = time.monotonic() + (_GRACE if not self.busy() else 0.0)
        for worker in self._workers:
            worker.companion.end(max(0.0, until - time.monotonic()))
        self._workers = []

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Hand Ctrl-C and SIGTERM on; a second Ctrl-C ends the workers at once."""

        def note(number: int, frame: FrameType | None) -> None:
            self._to_hand_on.append(signal.SIGKILL if self.received == number == signal.SIGINT else number)
            self.received = self.received or number

        with handling(note):
            yield
