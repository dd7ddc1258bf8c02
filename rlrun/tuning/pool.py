"""Worker processes: started when first needed, replaced when they are killed, told to stop in order."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from rlrun.processes import handling, why_killed

_GRACE = 60.0  # seconds that a worker may take to stop


class Worker:
    """One process, and what it is doing.

    :ivar task: what the study remembers of its task; None while it has none
    """

    def __init__(self, log: Path, said: queue.Queue[tuple[Worker, dict[str, Any] | None]]) -> None:
        self.task: Any = None
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rlrun.tuning.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                start_new_session=True,
            )
        self._stdin: Any = self.process.stdin
        self._stdout: Any = self.process.stdout
        self._said = said
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None  # noqa: S101
        for line in self._stdout:
            with contextlib.suppress(ValueError):  # a line that a killed process left torn
                self._said.put((self, json.loads(line)))
        self.process.wait()
        self._said.put((self, None))

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a task, or the answer to a question; a worker that is gone is noticed elsewhere."""
        with contextlib.suppress(OSError):
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()

    def no_more(self) -> None:
        """Let it end after what it is doing."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def why_gone(self) -> str:
        """Why the process ended, in words."""
        code = self.process.returncode
        return why_killed(code) if code < 0 else f"its process ended with exit code {code}"


class Pool:
    """Up to ``jobs`` workers.

    :param log: where the workers' own output goes
    :ivar received: the signal that asked this process to stop, or None
    """

    def __init__(self, jobs: int, log: Path) -> None:
        self.jobs, self._log = jobs, log
        self.received: int | None = None
        self._workers: list[Worker] = []
        self._said: queue.Queue[tuple[Worker, dict[str, Any] | None]] = queue.Queue()

    def idle(self) -> Worker | None:
        """A worker without a task, started if there may be one more; None when all are busy."""
        found = next((worker for worker in self._workers if worker.task is None), None)
        if found is None and len(self._workers) < self.jobs:
            found = Worker(self._log, self._said)
            self._workers.append(found)
        return found

    def busy(self) -> list[Worker]:
        """Workers with a task."""
        return [worker for worker in self._workers if worker.task is not None]

    def receive(self, timeout: float) -> tuple[Worker, dict[str, Any] | None] | None:
        """What a worker said next; None of a worker that is gone; nothing within the time is None too."""
        try:
            worker, message = self._said.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None and worker in self._workers:
            self._workers.remove(worker)
        return worker, message

    def close(self) -> None:
        """Let the workers end; those that do not are killed."""
        for worker in self._workers:
            worker.no_more()
        until = time.monotonic() + (_GRACE if not self.busy() else 0.0)
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers = []

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Hand Ctrl-C and SIGTERM on; a second Ctrl-C ends the workers at once."""

        def note(number: int, frame: FrameType | None) -> None:
            how = signal.SIGKILL if self.received == number == signal.SIGINT else number
            self.received = self.received or number
            for worker in list(self._workers):
                worker.process.send_signal(how)

        with handling(note):
            yield
