"""Processes on the machines of a Ray cluster (https://docs.ray.io): each is a Ray task that asks for what it needs.

Where a machine sees the run folder, on a shared file system, a process works in it. Where it does not, the process gets
a copy in a temporary folder, and what it writes comes back with every checkpoint and at its end. When a machine is
lost, its tasks are started again elsewhere and go on from what there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlrun.config.loading import Source, read_source
from rlrun.config.schema import Config
from rlrun.console import note
from rlrun.errors import ConfigError, MissingPackage, RlrunError, UsageError, did_you_mean, install_hint
from rlrun.pool import Machines, Needs, Process, Task, ThisMachine, reason_of
from rlrun.runs.directory import CHECKPOINTS
from rlrun.runs.files import rename_into_place, write_whole
from rlrun.runs.lock import FILE as LOCK
from rlrun.runs.lock import RunLock
from rlrun.training.plan import Plan, make_plan

PLACES = ("ray",)
# Of a process that trains a small network: Python, torch, SB3 and an env.
_PROCESS_BYTES = 1_000_000_000
_MOST_LOSSES = 5
_POLL, _LOOK = 0.2, 2.0  # seconds between looks at the process, and at its folder
_MOST_CALLS = 100_000  # of waiting tasks at a time
_TO_ANSWER = 10.0  # seconds
_TO_SAVE = 110.0  # seconds that an interrupted run may take to save its state
# Ray sets the first to a task's cores; with another number of threads a run may end with other bits.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def machines_of(on: str | None, address: str | None = None) -> Iterator[Machines]:
    """What ``--on`` and ``--address`` mean.

    :param on: ``ray``; None: this machine
    :raises UsageError: for anything else
    :raises MissingPackage: without the extra ``ray``
    """
    if on is None:
        if address is not None:
            raise UsageError("--address is of a Ray cluster, and --on ray is missing.", "Add --on ray.")
        yield ThisMachine()
        return
    if on not in PLACES:
        raise UsageError(f'"{on}" is no place to train.', did_you_mean(on, PLACES) or "There is: --on ray")
    cluster = RayCluster(address)
    try:
        yield cluster
    finally:
        cluster.close()


def plan_for(source: Source, elsewhere: bool) -> Plan:
    """The plan of a config that is trained here, or on machines of a cluster, so that a GPU need not be here.

    :raises ConfigError: with every problem
    """
    device = source.values.get("device")
    if not (elsewhere and isinstance(device, str) and device.startswith("cuda")):
        return make_plan(source)
    if device != "cuda":
        problem = source.problem(("device",), f"{device} is a GPU of this machine.", "Write cuda: Ray says which.")
        raise ConfigError([problem])
    plan = make_plan(replace(source, values={**source.values, "device": "cpu"}))
    return replace(plan, source=source, config=plan.config.model_copy(update={"device": device}))


def needs_of_config(config: Config, import_paths: Sequence[str], build_env: bool = True) -> Needs:
    """What a run takes of a machine: its threads, a GPU where it uses one, and memory.

    :param build_env: to know how much memory a full replay buffer or rollout takes
    """
    memory = _PROCESS_BYTES + (_experience_bytes(config, import_paths) if build_env else 0)
    return Needs(config.threads or 1, int(config.device.startswith("cuda")), memory)


def _experience_bytes(config: Config, import_paths: Sequence[str]) -> int:
    from rlrun.algorithms.crosschecks import experience_bytes

    values = config.model_copy(update={"device": "cpu"}).model_dump(by_alias=True)
    plan = make_plan(read_source(values), import_paths=import_paths)
    return experience_bytes(plan.algorithm, plan.config.hyperparameters, plan.facts) if plan.facts else 0


class RayCluster:
    """The machines of a Ray cluster.

    :param address: ``host:port``; None: ``$RAY_ADDRESS``, else the cluster that this machine belongs to, else a cluster
        of this machine alone
    :param fetch: True: let processes work in temporary folders even where they see the run folder
    :raises RlrunError: when no cluster answers
    """

    def __init__(self, address: str | None = None, fetch: bool = False) -> None:
        self.at_a_time: int | None = None
        self.fetches = fetch
        self.ray = _imported(address)
        self._warned: set[Needs] = set()
        self._is_mine = not self.ray.is_initialized()
        if self._is_mine:
            _connect(self.ray, address)
        self._desk: Any = None

    def start(self, task: Task) -> Process:
        """See :class:`rlrun.pool.Machines`."""
        self.warn_if_nothing_fits(task.name, task.needs)
        if self._desk is None:
            here = self.ray.get_runtime_context().get_node_id()
            place = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
            actor = self.ray.remote(num_cpus=0, max_concurrency=_MOST_CALLS, scheduling_strategy=place)(_Desk)
            self._desk = actor.remote()
        return _RayProcess(self.ray, task, self._desk, self.fetches)

    def room_for(self, needs: Needs) -> int:
        """How many processes fit at a time, as of now; at least one."""
        total = self.ray.cluster_resources()
        wanted = {"CPU": needs.cores, "GPU": needs.gpus, "memory": needs.memory}
        return max(1, min(int(total.get(name, 0) // number) for name, number in wanted.items() if number))

    def close(self) -> None:
        """Leave the cluster; no more tasks come."""
        if self._desk is not None:
            with contextlib.suppress(Exception):  # Ray may be gone
                self.ray.kill(self._desk)
        if self._is_mine:
            self.ray.shutdown()

    def warn_if_nothing_fits(self, name: str, needs: Needs) -> None:
        """Say it once: a cluster may be about to grow."""
        wanted = {"CPU": needs.cores, "GPU": needs.gpus, "memory": needs.memory}
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        fits = any(all(node.get(name, 0) >= number for name, number in wanted.items()) for node in nodes)
        if not fits and needs not in self._warned:
            self._warned.add(needs)
            asked = f"{needs.cores} cores, {needs.gpus} GPUs and {needs.memory / 1e9:.1f} GB"
            note(f"warning: no machine of the cluster has {asked} as of now, so {name} waits for one.")


def _imported(address: str | None) -> Any:
    """Ray's module.

    :raises MissingPackage: when it is not installed
    """
    if address is not None and address.startswith("ray://"):
        hint = "Start rlrun on a machine of the cluster, as `ray job submit -- rlrun ...` does."
        raise UsageError("rlrun does not speak Ray's client protocol (ray://).", hint)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingPackage("--on ray needs Ray, which is not installed.", install_hint("ray")) from None
    return ray


def _require_address(address: str) -> None:
    """Ray itself waits for minutes where nothing answers.

    :raises UsageError: when an address is none, or nothing listens there
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 65_536):
        raise UsageError(f'"{address}" is no address of a Ray cluster.', "It is HOST:PORT, such as 10.0.0.1:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _TO_ANSWER).close()
    except OSError as error:
        message = f"No Ray cluster answers at {address}: {error.strerror or error}."
        raise UsageError(message, "`ray status` says whether one runs.") from None


def _connect(ray: Any, address: str | None) -> None:
    named = address or os.environ.get("RAY_ADDRESS")
    if named and named not in ("auto", "local"):
        _require_address(named)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"at {address}" if address else "here"
        reason = " ".join(str(error).split())[:200]
        raise RlrunError(f"No Ray cluster answers {where}: {reason}", "`ray status` says whether one runs.") from None


@dataclass(frozen=True)
class _Job:
    """What a machine needs to know of a task.

    :ivar key: of this one start of the task
    :ivar mark: a file in the task's folder; whoever sees it sees the folder
    :ivar desk: has the folder's files for those who do not see it, and says when to stop
    """

    task: Task
    key: str
    mark: str
    desk: Any
    variables: Mapping[str, str]
    working_folder: str
    was_lost: bool


@dataclass(frozen=True)
class News:
    """What a machine tells of a task.

    :ivar code: the exit code, at the end
    :ivar files: contents by their paths in the task's folder
    :ivar gone: what is there no more
    :ivar wants_files: it does not see the folder, and waits for what is in it
    """

    code: int | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    wants_files: bool = False


class _Desk:
    """An actor beside the process that started the tasks, which has something for each of them.

    It tells them when to stop: Ray's own way, to cancel a task, would lose what the task still has to tell. And it has
    the files of their folders, which are read when a task asks for them: not before it runs, and not where the folder
    is shared.
    """

    def __init__(self) -> None:
        self._signals: dict[str, asyncio.Future[int]] = defaultdict(_future)
        self._files: dict[str, asyncio.Future[list[Any]]] = defaultdict(_future)

    async def ask(self, key: str, number: int) -> None:
        """Send a task a signal; 0: it has ended without one."""
        if not self._signals[key].done():
            self._signals[key].set_result(number)
        if not self._files[key].done():
            self._files[key].set_result([])

    async def wanted(self, key: str) -> int:
        """The signal that a task gets, once it gets one."""
        return await self._signals[key]

    async def lay_down(self, key: str, files: list[Any]) -> None:
        """Give a task its files.

        :param files: a reference to them, in a list so that Ray leaves them where they are
        """
        if not self._files[key].done():
            self._files[key].set_result(files)

    async def files(self, key: str) -> list[Any]:
        """What was laid down for a task, once it is; empty when the task is to stop."""
        found = await self._files[key]
        self._files[key] = _future()
        self._files[key].set_result([])  # so that Ray may forget them
        return found


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


# -- here


class _RayProcess:
    """A Ray task, started again when its machine is lost."""

    def __init__(self, ray: Any, task: Task, desk: Any, fetch: bool) -> None:
        self._ray, self._task, self._desk, self._fetch = ray, task, desk, fetch
        self._losses = 0
        self._code: int | None = None
        self._reason = ""
        self._wanted: int | None = None
        self._told: float | None = None  # the moment of time.monotonic at which it was told to stop
        self._is_cancelled = False
        self._mark = Path()
        self._locks: list[RunLock] = []
        self.has_begun = False
        self._try()

    def _try(self) -> None:
        try:
            self._submit()
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            self._end(1, f"the Ray cluster takes no task ({type(error).__name__})")
        except OSError as error:
            self._end(1, f"it could not be sent to a machine ({error})")

    def _submit(self) -> None:
        task, needs = self._task, self._task.needs
        self.has_begun = False
        task.folder.mkdir(parents=True, exist_ok=True)
        self._mark = task.folder / f".{secrets.token_hex(8)}.tmp"
        mark = "" if self._fetch else self._mark.name
        self._mark.touch()
        job = _Job(task, self._mark.name, mark, self._desk, variables_of_threads(), os.getcwd(), self._losses > 0)
        asked: dict[str, Any] = {"num_cpus": needs.cores, "num_gpus": needs.gpus, "memory": needs.memory or None}
        remote = self._ray.remote(**asked, max_retries=0, num_returns="streaming", scheduling_strategy="SPREAD")(_work)
        self._stream = remote.options(name=f"rlrun {task.name}").remote(job)

    def poll(self) -> int | None:
        """See :class:`rlrun.pool.Process`."""
        if self._code is None:
            self._hand_signal_on()
        if self._code is None:
            try:
                self._listen()
            except self._ray.exceptions.TaskCancelledError:
                self._end(128 + (self._wanted or signal.SIGTERM), "cancelled")
            except self._ray.exceptions.RayTaskError as error:
                self._end(1, " ".join(str(error.cause or error).split())[-300:])
            except (self._ray.exceptions.RayError, StopIteration) as error:
                self._lose(error)
            except (OSError, RlrunError) as error:  # such as a full disk: the other runs need not end with this one
                self._cancel()
                self._end(1, str(error))
        return self._code

    def _listen(self) -> None:
        while self._code is None and self._stream.next_ready():
            news = self._ray.get(next(self._stream))
            self.has_begun = True
            if news.wants_files:
                self._hold()
                self._desk.lay_down.remote(self._mark.name, [self._ray.put(_contents(self._task))])
            install(self._task, news)
            if news.code is not None:
                self._end(news.code, reason_of(news.code, self._task.log) if news.code else "")
        if self._code is None and self._stream.is_finished():  # the last word was lost
            raise StopIteration

    def _lose(self, error: BaseException) -> None:
        """The machine or the worker is gone."""
        self._clear()
        self._losses += 1
        if self._wanted is not None:
            self._end(128 + self._wanted, "interrupted")
        elif self._losses > _MOST_LOSSES:
            self._end(1, f"its process was lost {self._losses} times, the last time with {type(error).__name__}")
        else:
            note(f"{self._task.name}: its machine was lost ({type(error).__name__}); it goes on elsewhere")
            self._try()

    def _end(self, code: int, reason: str) -> None:
        self._clear()
        self._code, self._reason = code, reason

    def _hold(self) -> None:
        """Keep other processes of this machine from the runs that are trained in a copy elsewhere."""
        for place in (self._task.folder / part for part in self._task.parts):
            place.mkdir(parents=True, exist_ok=True)
            lock = RunLock(place)
            lock.claim(steal=False)
            self._locks.append(lock)

    def _clear(self) -> None:
        self._mark.unlink(missing_ok=True)
        for lock in self._locks:
            lock.release()
            with contextlib.suppress(OSError):  # it holds a run by now
                lock.path.parent.rmdir()
        self._locks = []
        with contextlib.suppress(Exception):  # Ray may be gone
            self._desk.ask.remote(self._mark.name, 0)  # nobody waits for this key any more

    def _hand_signal_on(self) -> None:
        if self._wanted is None or self._is_cancelled:
            return
        if self._wanted == signal.SIGKILL:
            self._end(-signal.SIGKILL, "killed")
            self._cancel()
            return
        if self._told is None and self.has_begun:
            self._told = time.monotonic()
            self._desk.ask.remote(self._mark.name, self._wanted)
        elif self._told is None or time.monotonic() - self._told > _TO_SAVE:
            self._is_cancelled = True
            self._ray.cancel(self._stream, force=self._told is not None)

    def _cancel(self) -> None:
        with contextlib.suppress(Exception):  # Ray may be gone
            self._ray.cancel(self._stream, force=True)

    def reason(self) -> str:
        """See :class:`rlrun.pool.Process`."""
        return self._reason

    def send_signal(self, number: int) -> None:
        """See :class:`rlrun.pool.Process`; called in a signal handler, in which Ray must not be."""
        self._wanted = number

    def kill(self) -> None:
        """See :class:`rlrun.pool.Process`; the next look does it, as it hands a signal on."""
        self._wanted = signal.SIGKILL


def install(task: Task, news: News) -> None:
    """Write what came back; a checkpoint appears whole."""
    allowed = (*task.parts, _log_part(task))
    for name in (*news.files, *news.gone):
        if ".." in Path(name).parts or not any(name == part or name.startswith(f"{part}/") for part in allowed):
            raise RlrunError(f"A machine sent {name}, which is no part of {task.name}.", "Nothing of it was written.")
    checkpoints: dict[Path, dict[Path, bytes]] = {}
    for name, content in news.files.items():
        parts = Path(name).parts
        if CHECKPOINTS in parts[:-2]:
            below = parts.index(CHECKPOINTS) + 2
            checkpoints.setdefault(task.folder.joinpath(*parts[:below]), {})[Path(*parts[below:])] = content
        else:
            (task.folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(task.folder / name, content)
    for folder, files in checkpoints.items():
        made = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
        made.mkdir(parents=True)
        for inner, content in files.items():
            (made / inner).parent.mkdir(parents=True, exist_ok=True)
            write_whole(made / inner, content)
        _keep_the_rest(folder, made, {task.folder / name for name in news.gone})
        rename_into_place(made, folder)
    for name in news.gone:
        (task.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds something else
            (task.folder / name).parent.rmdir()


def _keep_the_rest(folder: Path, made: Path, gone: set[Path]) -> None:
    """Give a new checkpoint the files of the old one that have not changed."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        target = made / path.relative_to(folder)
        if path.is_file() and path not in gone and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)


# -- on both sides


def variables_of_threads() -> dict[str, str]:
    """The environment variables of this process that say how many threads there are."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, but for the variables of threads.

    :param variables: what :func:`variables_of_threads` said where the run was started
    """
    return {**{name: value for name, value in os.environ.items() if name not in _VARIABLES}, **variables}


def _log_part(task: Task) -> str:
    return task.log.relative_to(task.folder).as_posix()


def _contents(task: Task) -> dict[str, bytes]:
    """What a process needs to find in its folder: the files there, and the task's parts."""
    own = [path for path in task.folder.iterdir() if path.is_file() and path.suffix != ".tmp" and path.name != LOCK]
    return {**{path.name: path.read_bytes() for path in own}, **Courier(task.folder, task.parts).news().files}


class Courier:
    """Knows which files of a folder have changed since the last time.

    :param parts: of the folder that count
    """

    def __init__(self, folder: Path, parts: tuple[str, ...]) -> None:
        self._folder, self._parts = folder, parts
        self._sent: dict[str, tuple[int, int]] = {}

    def note(self) -> None:
        """Take what there is for sent."""
        self._sent = {name: stamp for name, _, stamp in self._listed()}

    def news(self, code: int | None = None) -> News:
        """Changed files. Checkpoints are read first: the CSV files then hold at least what belongs to them."""
        files: dict[str, bytes] = {}
        now: dict[str, tuple[int, int]] = {}
        for name, path, stamp in sorted(self._listed(), key=lambda item: CHECKPOINTS not in item[1].parts):
            now[name] = stamp
            if self._sent.get(name) != stamp:
                try:
                    files[name] = path.read_bytes()
                except FileNotFoundError:  # pruned at this moment
                    del now[name]
        gone = tuple(name for name in self._sent if name not in now)
        self._sent = now
        return News(code, files, gone)

    def checkpoints(self) -> set[str]:
        """The checkpoints that there are."""
        folders = [folder for part in self._parts for folder in self._folder.glob(f"{part}/{CHECKPOINTS}/[!.]*")]
        return {str(folder) for folder in folders}

    def _listed(self) -> Iterator[tuple[str, Path, tuple[int, int]]]:
        for part in self._parts:
            top = self._folder / part
            for path in [top] if top.is_file() else sorted(_files_below(top)):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    yield path.relative_to(self._folder).as_posix(), path, (status.st_mtime_ns, status.st_size)


def _files_below(folder: Path) -> Iterator[Path]:
    """Files that are no lock and nothing half-written; a folder that is pruned meanwhile is passed over."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if name != LOCK and not name.startswith("."))


# -- on the machine


def _work(job: _Job) -> Iterator[News]:
    """The Ray task: run the process, and send what it writes if nobody else sees it."""
    task = job.task
    if job.mark and (task.folder / job.mark).exists():
        yield from _run(job, task, ship=False)
        return
    yield News(wants_files=True)
    with tempfile.TemporaryDirectory(prefix="rlrun-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch, *task.folder.parts[-3:])
        if not _lay_out(job, folder):  # it is to stop before it has begun
            yield News(128 + _awaited(job.desk.wanted.remote(job.key)))
            return
        yield from _run(job, replace(task, folder=folder, log=folder / _log_part(task)), ship=True)


def _lay_out(job: _Job, folder: Path) -> bool:
    """Write the files that the task was given; False when there are none."""
    for reference in _awaited(job.desk.files.remote(job.key)):
        for name, content in _awaited(reference).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return True
    return False


def _awaited(reference: Any) -> Any:
    """What ``ray.get`` gives, which would free this task's cores for others while it waits."""
    return reference.future().result()


def _run(job: _Job, task: Task, ship: bool) -> Iterator[News]:
    courier = Courier(task.folder, (*task.parts, _log_part(task)))
    courier.note()
    process = _started(job, task)
    known, looked = courier.checkpoints(), time.monotonic()
    stop = job.desk.wanted.remote(job.key).future()
    is_told = False
    try:
        yield News()
        while process.poll() is None:
            time.sleep(_POLL)
            if not is_told and stop.done() and stop.exception() is None:
                is_told = True
                process.send_signal(stop.result())
            if ship and time.monotonic() - looked > _LOOK:
                looked = time.monotonic()
                if (now := courier.checkpoints()) != known:
                    known = now
                    yield courier.news()
    except KeyboardInterrupt:  # Ray cancels a task that has just begun
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TO_SAVE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    yield courier.news(process.returncode) if ship else News(process.returncode)


def _started(job: _Job, task: Task) -> subprocess.Popen[bytes]:
    arguments = (*task.arguments, *(task.after_loss if job.was_lost else ()))
    folder = job.working_folder if os.path.isdir(job.working_folder) else None
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", task.module, str(task.folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment(job.variables),
            start_new_session=True,
        )
