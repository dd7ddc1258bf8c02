"""One process at a time trains a run: a file says which, and a heartbeat says that it still does.

Only what every file system has is used: exclusive creation, renaming, modification times. A holder on this machine is
alive while its process is; one on another machine while its file was touched within :data:`STALE_AFTER` seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from rlrun.errors import RlrunError, UsageError
from rlrun.runs.files import os_errors_in_words

FILE = "lock"
STALE_AFTER = 300.0
_HEARTBEAT = 30.0
_TORN = 5.0


@dataclass(frozen=True)
class Holder:
    """The process that trains a run.

    :ivar started: seconds since the epoch; tells a process from a later one with the same number
    :ivar token: of this one claim
    :ivar namespace: of the process numbers: two containers on one host may have the same ones
    """

    host: str
    pid: int
    started: float
    token: str
    namespace: str = ""

    @classmethod
    def this_process(cls) -> Holder:
        """A new claim by this process."""
        started = psutil.Process().create_time()
        return cls(socket.gethostname(), os.getpid(), started, secrets.token_hex(8), _namespace())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_alive(self, touched: float) -> bool:
        """Whether it still trains.

        :param touched: when its file was last touched, in seconds since the epoch
        """
        if self.host != socket.gethostname() or self.namespace not in ("", _namespace()):
            return time.time() - touched < STALE_AFTER
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1.0
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:  # someone else's process: it is there
            return True


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # only Linux has them
        return ""


def holder_of(folder: Path) -> Holder | None:
    """The live process that trains the run in a folder; None when there is none."""
    holder, touched = _read(folder / FILE)
    return holder if holder is not None and holder.is_alive(touched) else None


class RunLock:
    """Held while training; see :func:`locked`.

    :ivar lost_to: the process that stole the run meanwhile; None while it is still this one's
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.me = Holder.this_process()
        self.lost_to: Holder | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="rlrun lock", daemon=True)

    def claim(self, steal: bool) -> None:
        """Write the file.

        :raises UsageError: when another process is alive and ``steal`` is not given
        """
        while not self._create():
            holder, touched = _read(self.path)
            if holder is None and time.time() - touched < _TORN:  # it is being written at this moment
                time.sleep(0.05)
                continue
            if holder is not None and holder.is_alive(touched) and not steal:
                message = f"The run {self.path.parent.name} is being trained by {holder}."
                raise UsageError(message, "Wait for it or stop it; `rlrun resume --steal` takes the run from it.")
            self._put_aside(holder)
        self._thread.start()

    def _create(self) -> bool:
        with os_errors_in_words("claiming the run"):
            try:
                descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            with os.fdopen(descriptor, "w") as stream:
                json.dump(asdict(self.me), stream)
        return True

    def _put_aside(self, stale: Holder | None) -> None:
        """Remove a dead process's file, unless a third process was faster and the file is its."""
        aside = self.path.with_name(f".{FILE}.{self.me.token}.tmp")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            if _read(aside)[0] != stale:
                aside.rename(self.path)
                return
            aside.unlink()

    def _beat(self) -> None:
        while not self._released.wait(_HEARTBEAT):
            self.check()

    def check(self) -> None:
        """Touch the file, or note who has taken the run."""
        holder, _ = _read(self.path)
        if holder is not None and holder.token != self.me.token:
            self.lost_to = holder
            return
        with contextlib.suppress(OSError):  # a file server that is away for a moment; the next beat tries again
            os.utime(self.path)

    def require(self) -> None:
        """Raise RlrunError when another process has taken the run: two must not write into it."""
        if self.lost_to is not None:
            raise RlrunError(f"The run was taken over by {self.lost_to}.", "This process has stopped training it.")

    def release(self) -> None:
        """Stop the heartbeat and remove the file, if it is still this process's."""
        self._released.set()
        with contextlib.suppress(OSError):
            if _read(self.path)[0] == self.me:
                self.path.unlink()


@contextlib.contextmanager
def locked(folder: Path, steal: bool = False) -> Iterator[RunLock]:
    """Hold a run.

    :param steal: take it from a process that holds it
    :raises UsageError: when another live process holds it
    """
    lock = RunLock(folder)
    lock.claim(steal)
    try:
        yield lock
    finally:
        lock.release()


def _read(path: Path) -> tuple[Holder | None, float]:
    """Who wrote a lock file, and when it was last touched: (None, 0) without one, (None, time) for a torn one."""
    touched = 0.0
    try:
        touched = path.stat().st_mtime
        return Holder(**json.loads(path.read_text())), touched
    except (OSError, ValueError, TypeError):
        return None, touched
