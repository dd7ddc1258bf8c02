"""Processes that one talks with in lines of JSON, here or on the machines of a Ray cluster.

A companion reads tasks from its stdin and writes answers to its stdout. On a machine that does not see the folder that
a task names, it works in a temporary one, and the files of a run come back with its answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from rlrun.cluster import Courier, News, RayCluster, environment, install, variables_of_threads
from rlrun.errors import RlrunError
from rlrun.pool import Needs, Task
from rlrun.processes import why_killed

Message = Mapping[str, Any]
_ANSWERS_TO_A_TASK = ("done", "pruned", "failed", "interrupted", "busy")


class Companion(Protocol):
    """A process that was started.

    :ivar has_begun: whether it runs already: a machine of a cluster may have to become free first
    :ivar was_lost: whether it is gone because its machine is
    """

    has_begun: bool
    was_lost: bool

    def tell(self, message: Message) -> None:
        """Send a line; one that is gone is noticed elsewhere."""

    def answers(self) -> Iterator[dict[str, Any]]:
        """What it says, until it is gone; waits."""

    def no_more(self) -> None:
        """Let it end after what it is doing."""

    def send_signal(self, number: int) -> None:
        """SIGINT and SIGTERM: give up what it is doing, and end. Not to be called in a signal handler."""

    def end(self, seconds: float) -> None:
        """Wait until it has ended; kill it when it has not within so many seconds."""

    def why_gone(self) -> str:
        """Why it is gone, in words."""


class LocalCompanion:
    """A process of this machine.

    :param module: ``python -m MODULE``
    :param log: where its stderr goes
    """

    has_begun = True
    was_lost = False

    def __init__(self, module: str, log: Path) -> None:
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                start_new_session=True,
            )
        self._stdin: Any = self._process.stdin
        self._stdout: Any = self._process.stdout

    def tell(self, message: Message) -> None:
        """See Companion."""
        with contextlib.suppress(OSError):
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()

    def answers(self) -> Iterator[dict[str, Any]]:
        """See Companion."""
        for line in self._stdout:
            with contextlib.suppress(ValueError):  # a line that a killed process left torn
                yield json.loads(line)
        self._process.wait()

    def no_more(self) -> None:
        """See Companion."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def send_signal(self, number: int) -> None:
        """See Companion."""
        self._process.send_signal(number)

    def end(self, seconds: float) -> None:
        """See Companion."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def why_gone(self) -> str:
        """See Companion."""
        return _why_ended(self._process.returncode)


def _why_ended(code: int) -> str:
    return why_killed(code) if code < 0 else f"its process ended with exit code {code}"


# -- on a cluster


def _part(message: Message) -> str:
    """The run of a task, below its root."""
    return "/".join(str(message[key]) for key in ("place", "group", "name"))


class RayCompanion:
    """A process beside a Ray actor, on whichever machine has room.

    :param folder: a folder below ``root`` that is there already; whoever sees it sees all of ``root``
    :param root: what tasks call ``root``
    """

    def __init__(self, cluster: RayCluster, module: str, folder: Path, root: Path, needs: Needs) -> None:
        self._ray, self._root = cluster.ray, root
        self._mark = folder / f".{secrets.token_hex(8)}.tmp"
        self._mark.touch()
        self._why = "its machine was lost"
        self.has_begun, self.was_lost = False, False
        self._sees = False  # whether the machine sees the run folder, once it has said so
        asked: dict[str, Any] = {"num_cpus": needs.cores, "num_gpus": needs.gpus, "memory": needs.memory or None}
        actor = self._ray.remote(**asked, max_concurrency=4, max_restarts=0, scheduling_strategy="SPREAD")(_Host)
        mark = "" if cluster.fetches else str(self._mark)
        self._actor = actor.remote(module, mark, os.getcwd(), variables_of_threads())

    def tell(self, message: Message) -> None:
        """See Companion."""
        is_task = "root" in message and not self._sees
        files = [self._ray.put(Courier(self._root, (_part(message),)).news().files)] if is_task else []
        # An answer to a call whose actor is gone is not waited for.
        self._actor.tell.remote(dict(message), files)

    def answers(self) -> Iterator[dict[str, Any]]:
        """See Companion."""
        try:
            for reference in self._actor.hear.options(num_returns="streaming").remote():
                answer, news, code = self._ray.get(reference)
                if news is not None:
                    install(self._task_of(news[0]), news[1])
                if code is not None:
                    self._why = _why_ended(code)
                elif "sees" in answer:
                    self.has_begun, self._sees = True, answer["sees"]
                else:
                    yield answer
        except self._ray.exceptions.RayError as error:
            self.was_lost, self._why = True, f"its machine was lost ({type(error).__name__})"
        except (OSError, RlrunError) as error:  # what came back could not be written
            self._why = f"what it sent could not be kept ({error})"
        finally:
            self._mark.unlink(missing_ok=True)

    def _task_of(self, message: Message) -> Task:
        """What of the run folder a task is about."""
        part = _part(message)
        return Task(str(message["name"]), "", self._root, (), self._root / part / "log.txt", (part,))

    def no_more(self) -> None:
        """See Companion."""
        with contextlib.suppress(Exception):  # Ray may be gone
            self._actor.no_more.remote()

    def send_signal(self, number: int) -> None:
        """See Companion."""
        with contextlib.suppress(Exception):  # Ray may be gone
            if self.has_begun:
                self._actor.send_signal.remote(number)
            else:  # it waits for a machine, and would wait with the signal
                self._ray.kill(self._actor)

    def end(self, seconds: float) -> None:
        """See Companion."""
        if self.has_begun:
            with contextlib.suppress(Exception):  # Ray may be gone, and so may the actor
                self._ray.get(self._actor.wait.remote(seconds), timeout=seconds + 5)
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor)
        self._mark.unlink(missing_ok=True)

    def why_gone(self) -> str:
        """See Companion."""
        return self._why


class _Host:
    """The Ray actor: starts the process, and hands on what is said.

    :param mark: a file; whoever sees it sees the run folder
    """

    def __init__(self, module: str, mark: str, working_folder: str, variables: Mapping[str, str]) -> None:
        sees = bool(mark) and Path(mark).exists()
        self._scratch = None if sees else tempfile.TemporaryDirectory(prefix="rlrun-", ignore_cleanup_errors=True)
        self._task: dict[str, Any] = {}
        self._courier: Courier | None = None
        self._checkpoints: set[str] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=working_folder if os.path.isdir(working_folder) else None,
            env=environment(variables),
            start_new_session=True,
        )
        self._stdin: Any = self._process.stdin
        self._stdout: Any = self._process.stdout

    def tell(self, message: dict[str, Any], files: list[Any]) -> None:
        """Hand a line on; before a task, lay out the files of its run.

        :param files: of a task, a reference to them, in a list so that Ray sends them only to those who ask
        """
        try:
            if "root" in message and self._scratch is not None:
                message = self._laid_out(message, files, Path(self._scratch.name))
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()
        except Exception:  # nobody waits for this call: that the process is gone is what is noticed
            self._process.kill()

    def _laid_out(self, message: dict[str, Any], files: list[Any], root: Path) -> dict[str, Any]:
        """The task in a folder of this machine, in which nothing is left of the task before."""
        import ray

        for left in root.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        self._task = message
        for name, content in ray.get(files[0]).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self._courier = Courier(root, (_part(message),))
        self._courier.note()
        self._checkpoints = self._courier.checkpoints()
        return {**message, "root": str(root)}

    def hear(self) -> Iterator[tuple[dict[str, Any], tuple[dict[str, Any], News] | None, int | None]]:
        """Answers, each with the news of its task's run where nobody else sees it; the exit code at the end.

        The first says that the process runs, and whether it sees the run folder.
        """
        yield {"sees": self._scratch is None}, None, None
        for line in self._stdout:
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            yield answer, self._news(answer), None
        code = self._process.wait()
        self._clean_up()
        yield {}, None, code

    def _clean_up(self) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()

    def _news(self, answer: Mapping[str, Any]) -> tuple[dict[str, Any], News] | None:
        if self._courier is None:
            return None
        is_over, now = any(key in answer for key in _ANSWERS_TO_A_TASK), self._courier.checkpoints()
        if not is_over and now == self._checkpoints:
            return None
        self._checkpoints = now
        return self._task, self._courier.news()

    def no_more(self) -> None:
        """See Companion."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def send_signal(self, number: int) -> None:
        """See Companion."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, seconds: float) -> None:
        """Until the process has ended, and no longer than this."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._clean_up()
