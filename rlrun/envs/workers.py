"""Envs in a few processes, and what goes wrong there.

The parent process steps some envs itself: it has nothing else to do until all have stepped, and to be woken takes it
longer on some systems than a step. Each worker builds and steps several more (:mod:`rlrun.envs.worker_process`).
Actions, observations, rewards and dones lie in shared memory. Infos travel through a pipe, all of them, but only when
they are not what the env's last info was: a callback, HER or a success rate sees what it would see with serial envs.
The same pipe wakes a worker, and tells the parent when one has answered or died.

The trajectories are those of SB3's DummyVecEnv, bit for bit, unless the copies of an env share something. One that
draws from the global generators of Python, NumPy or torch *while it is stepped* shares them with the learner when
serial, and in a worker with the envs there; the same goes for what a module or a class of the env keeps.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import select
import signal
import sys
import time
import types
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices
from stable_baselines3.common.vec_env.util import dict_to_obs

from rlrun.envs.shared_memory import StepMemory
from rlrun.envs.worker_process import NOTHING, STEP, Failure, Make, Share, run, unpickled
from rlrun.errors import RlrunError, UsageError
from rlrun.machine import usable_cores

_PRELOADED = ["rlrun.envs.recipe"]  # imported once, by the server that all workers are forked from
_SLICE = 1.0  # seconds; a time-out counts slices, so that a stopped process (Ctrl-Z) does not count as one that hangs
_LAST_WORDS = 1.0  # seconds for a worker to say where it hangs
_CLOSING = 5.0  # seconds for envs to close
_IN_SERIAL = "With env.vec=serial it can be debugged in one process."


class WorkerTraceback(Exception):
    """Where in a worker it happened: the cause of what is raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Worker:
    """A worker process as its parent sees it.

    :ivar indices: of its envs
    """

    def __init__(
        self, context: BaseContext, makers: Sequence[Make], indices: Sequence[int], memory: StepMemory, timeout: float
    ) -> None:
        self.indices, self._timeout = indices, timeout
        self._connection, its_end = context.Pipe()
        pipe: tuple[Any, Any] = context.Pipe(duplex=False) if hasattr(signal, "SIGUSR1") else (None, None)
        self._log, its_log = pipe
        chosen = [makers[index] for index in indices]
        arguments = (chosen, indices[0], memory, its_end, its_log)
        self._process: BaseProcess = context.Process(target=run, args=arguments, daemon=True)  # type: ignore[attr-defined]
        self._process.start()
        for end in (its_end, its_log):  # the other process has them now
            if end is not None:
                end.close()
        self._poll: Callable[[float], Any] = self._connection.poll
        if hasattr(select, "poll"):  # Connection.poll makes a new one at each call
            poll = select.poll()
            poll.register(self._connection.fileno(), select.POLLIN)
            self._poll = lambda seconds: poll.poll(seconds * 1000)

    def say(self, message: bytes) -> None:
        """Send a message; a worker that is gone is found out by ``hear``."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send_bytes(message)

    def hear(self, doing: str) -> Any:
        """Its answer: a value, None, or a Failure.

        :param doing: what it was asked to do, in words
        :raises RlrunError: it died, or took too long
        """
        left = self._timeout
        while not self._poll(min(left, _SLICE)):
            left -= _SLICE
            if left <= 0:
                raise self._hangs(doing) from WorkerTraceback(self._last_words())
        try:
            answer = self._connection.recv_bytes()
        except (EOFError, OSError):
            raise self._died(doing) from WorkerTraceback(self._log_so_far())
        return None if answer == NOTHING else unpickled(answer)

    def let_go(self) -> None:
        """Tell it that nothing more will be asked of it."""
        self._connection.close()

    def end(self, patience: float) -> None:
        """See that the process is gone.

        :param patience: seconds to let it close its envs
        """
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        if self._log is not None:
            self._log.close()

    def _died(self, doing: str) -> RlrunError:
        self._process.join(_CLOSING)
        code = self._process.exitcode
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        hint = "The machine may have run out of memory." if code == -9 else _IN_SERIAL
        return RlrunError(f"A worker process died while it {doing} {self._whose()}: it {how}.", hint)

    def _hangs(self, doing: str) -> RlrunError:
        limit = f"for {self._timeout:g} s (env.worker_timeout)"
        return RlrunError(f"A worker process has not answered {limit} while it {doing} {self._whose()}.", _IN_SERIAL)

    def _whose(self) -> str:
        first, last = self.indices[0], self.indices[-1]
        return f"env {first}" if first == last else f"envs {first} to {last}"

    def _last_words(self) -> str:
        """The traceback of a worker that hangs."""
        if self._log is None or self._process.pid is None:
            return ""
        with contextlib.suppress(OSError):
            os.kill(self._process.pid, signal.SIGUSR1)
        return self._log_so_far(_LAST_WORDS)

    def _log_so_far(self, seconds: float = 0.0) -> str:
        """What the worker's interpreter wrote when it crashed or was asked where it is; plain text, no messages."""
        text = b""
        with contextlib.suppress(OSError):
            while self._log is not None and self._log.poll(seconds) and (part := os.read(self._log.fileno(), 65_536)):
                text, seconds = text + part, 0.1
        return text.decode(errors="replace")


class Here:
    """The envs that the parent process steps itself, while its workers step theirs.

    :ivar indices: of its envs
    """

    def __init__(self, makers: Sequence[Make], indices: Sequence[int], memory: StepMemory) -> None:
        self.indices = indices
        self._envs: list[gym.Env[Any, Any]] = []
        self._said = b""
        try:
            for index in indices:
                self._envs.append(makers[index]())
        except BaseException:
            self.end(0)
            raise
        self._share = Share(self._envs, indices[0], memory)

    def say(self, message: bytes) -> None:
        """Take a message, to be answered when it is heard: then the workers have theirs."""
        self._said = message

    def hear(self, doing: str) -> Any:
        """See Worker. It takes the time that it takes."""
        try:
            return self._share.do(self._said)
        except Exception as error:
            return replace(Failure.of(error), error=error)

    def let_go(self) -> None:
        """See Worker."""

    def end(self, patience: float) -> None:
        """Close the envs."""
        while self._envs:
            with contextlib.suppress(Exception):  # the others are to be closed too
                self._envs.pop().close()


class WorkersVecEnv(VecEnv):
    """SB3's VecEnv over worker processes. Exceptions of an env are raised here, with the worker's traceback as cause.

    :param makers: build the envs; any but the first call may be in a worker
    :param observation_space: of each env, as is ``action_space``
    :param timeout: seconds that a worker may take for one answer
    :param n_processes: among which the envs are dealt, this one included
    """

    def __init__(
        self,
        makers: Sequence[Make],
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        timeout: float,
        n_processes: int,
    ) -> None:
        context = _context()
        n_envs = len(makers)
        self._memory = StepMemory(n_envs, observation_space, action_space, context)
        self._workers: list[Worker | Here] = []
        self._close = weakref.finalize(self, _end, self._workers)  # also at the interpreter's exit
        self._is_stepping = False
        self._failures: list[Failure] = []
        self._actions: np.ndarray = np.zeros(0)
        self._infos = [pickle.dumps({})] * n_envs
        try:
            *theirs, mine = (part.tolist() for part in np.array_split(range(n_envs), n_processes))
            for indices in theirs:
                self._workers.append(Worker(context, makers, indices, self._memory, timeout))
            self._workers.append(Here(makers, mine, self._memory))  # has the fewest
            self._hear_all(self._workers[:-1], "built")
            super().__init__(n_envs, observation_space, action_space)
        except BaseException:
            self.close()
            raise

    @property
    def n_processes(self) -> int:
        """Number of processes that step envs, this one included."""
        return len(self._workers)

    # -- stepping

    def step_async(self, actions: np.ndarray) -> None:
        """See VecEnv."""
        if self._memory.holds(actions):
            if (actions.dtype, actions.shape) != (self._actions.dtype, self._actions.shape):
                self._ask("lay_out_actions", actions.dtype, actions.shape, doing="prepared")
                self._actions = self._memory.actions(actions.dtype, actions.shape)
            self._actions[...] = actions
            self._say_all(STEP)
        else:  # no array of numbers
            self._say_all(pickle.dumps(("step", (dict(enumerate(actions)),))))
        self._is_stepping = True

    def step_wait(self) -> Any:
        """See VecEnv."""
        self._finish_step()
        failures, self._failures = self._failures, []
        for failure in failures:
            raise _unpacked(failure) from WorkerTraceback(failure.traceback)
        infos = [unpickled(info) for info in self._infos]
        return self._observations(), self._memory.rewards.copy(), self._memory.dones.copy(), infos

    def _finish_step(self) -> None:
        """Hear what the workers have to say of the step that they take."""
        if not self._is_stepping:
            return
        self._is_stepping = False
        for answer in self._answers(self._workers, "stepped"):
            if isinstance(answer, Failure):
                self._failures.append(answer)
                continue
            for index, info, reset_info in answer or ():
                self._infos[index] = info
                if reset_info is not None:
                    self.reset_infos[index] = reset_info

    def reset(self) -> Any:
        """See VecEnv."""
        infos = self._ask("reset", self._seeds, self._options, doing="reset")
        self.reset_infos = [info for part in infos for info in part]
        self._failures = []
        self._reset_seeds()
        self._reset_options()
        return self._observations()

    def _observations(self) -> Any:
        copies = {key: array.copy() for key, array in self._memory.observations.items()}
        return dict_to_obs(self.observation_space, copies)

    # -- everything else

    def close(self) -> None:
        """End the workers."""
        self._close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """See VecEnv."""
        return self._ask_for("get", indices, attr_name)

    def has_attr(self, attr_name: str) -> bool:
        """See VecEnv."""
        return all(self._ask_for("has", None, attr_name))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """See VecEnv."""
        self._ask_for("set", indices, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> Any:
        """See VecEnv."""
        return self._ask_for("call", indices, method_name, method_args, method_kwargs)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """See VecEnv."""
        return self._ask_for("wrapped", indices, wrapper_class)

    def get_images(self) -> Sequence[np.ndarray | None]:
        """See VecEnv."""
        if self.render_mode != "rgb_array":
            warnings.warn(f"The render mode is {self.render_mode}: there are no images.", stacklevel=2)
            return [None] * self.num_envs
        return self.env_method("render")

    def _ask_for(self, command: str, indices: VecEnvIndices, *arguments: Any) -> list[Any]:
        """Ask the workers of some envs.

        :return: one answer for each of ``indices``, in their order
        """
        wanted = list(self._get_indices(indices))
        wanted = [range(self.num_envs)[index] for index in wanted]  # -1 is the last
        asked = [(worker, mine) for worker in self._workers if (mine := [i for i in wanted if i in worker.indices])]
        self._finish_step()
        for worker, mine in asked:
            worker.say(pickle.dumps((command, (mine, *arguments))))
        answers = self._hear_all([worker for worker, _ in asked], "was asked about")
        found: dict[int, Any] = {}
        for (_, mine), part in zip(asked, answers, strict=True):
            found.update(zip(mine, part, strict=True))
        return [found[index] for index in wanted]

    def _ask(self, command: str, *arguments: Any, doing: str) -> list[Any]:
        """Ask every worker."""
        self._finish_step()
        self._say_all(pickle.dumps((command, arguments)))
        return self._hear_all(self._workers, doing)

    def _say_all(self, message: bytes) -> None:
        if not self._close.alive:
            raise RlrunError("The envs were closed.")
        for worker in self._workers:
            worker.say(message)

    def _hear_all(self, workers: Sequence[Worker | Here], doing: str) -> list[Any]:
        """Every answer is heard before the first failure is raised, so that none is taken for another's."""
        answers = self._answers(workers, doing)
        for answer in answers:
            if isinstance(answer, Failure):
                raise _unpacked(answer) from WorkerTraceback(answer.traceback)
        return answers

    def _answers(self, workers: Sequence[Worker | Here], doing: str) -> list[Any]:
        """In the order of the workers; the last, this process, is heard first, to work while the others do."""
        if not workers:
            return []
        *others, last = workers
        try:
            answer = self._hear(last, doing)
        except (
            BaseException
        ):  # Ctrl-C or sys.exit() in this process: nobody is to take the others' answers for later ones
            for worker in others:
                with contextlib.suppress(RlrunError):
                    self._hear(worker, doing)
            raise
        return [*(self._hear(worker, doing) for worker in others), answer]

    def _hear(self, worker: Worker | Here, doing: str) -> Any:
        try:
            return worker.hear(doing)
        except RlrunError:
            for other in self._workers:
                other.end(0)
            self.close()
            raise


def start_workers(
    makers: Sequence[Make], example: Make, timeout: float, n_processes: int | None = None
) -> WorkersVecEnv:
    """Build envs in worker processes and in this one.

    :param example: builds an env of the same spaces in this process; it is closed at once
    :param timeout: seconds that a worker may take for one answer
    :param n_processes: this one included; None: one for each core that this process may use
    :raises UsageError: in the words of the worker that could not build its env
    """
    _boot()
    with contextlib.closing(example()) as env:
        observation_space, action_space = env.observation_space, env.action_space
    n_processes = min(n_processes or usable_cores(), len(makers))
    try:
        return WorkersVecEnv(makers, observation_space, action_space, timeout, n_processes)
    except UsageError as error:
        raise UsageError(f"In a worker process, {error.message}", error.hint) from error


def _context() -> BaseContext:
    """Forkserver where there is one: workers share its imports, so they start in less time and memory."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(_PRELOADED)
    return context


def _boot() -> None:
    """Let the server that forks workers begin its imports."""
    if _context().get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        ensure_running()


@contextlib.contextmanager
def script_left_alone() -> Iterator[None]:
    """Workers that start inside do not import the user's script, which may lack ``if __name__ == "__main__"``."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _unpacked(failure: Failure) -> Exception:
    """The exception of a worker, or its summary where it cannot come here."""
    if failure.error is not None:
        return failure.error
    try:
        error = unpickled(failure.pickled)
    except Exception:  # an empty pickle, or a class that this process does not have
        error = None
    return error if isinstance(error, Exception) else RlrunError(f"In a worker process: {failure.summary}", _IN_SERIAL)


def _end(workers: list[Worker | Here]) -> None:
    for worker in workers:
        worker.let_go()
    deadline = time.monotonic() + _CLOSING
    for worker in workers:
        worker.end(max(0.0, deadline - time.monotonic()))
