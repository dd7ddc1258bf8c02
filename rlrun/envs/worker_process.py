"""What runs in a worker process: some envs, stepped when the parent process says so.

A message of the parent is ``STEP``, or a pickled ``(command, arguments)`` with a method of :class:`Share`. Each has
one answer: ``NOTHING``, or a pickled :class:`Failure` or value.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import is_wrapped

from rlrun.envs.shared_memory import StepMemory

STEP, NOTHING = b"s", b"n"
Make = Callable[[], gym.Env[Any, Any]]
News = tuple[int, bytes, Any]  # env, its pickled info if it is not the last one's, its reset's info

_GRACE = 30  # seconds that a worker lives on after SIGTERM


def unpickled(message: bytes) -> Any:
    """What the other end of a pipe between two processes of this program wrote. Nothing else may come here: no file."""
    return pickle.loads(message)  # noqa: S301


@dataclass(frozen=True)
class Failure:
    """An exception in a worker.

    :ivar pickled: the exception, where it can be pickled
    :ivar summary: its type and message
    :ivar traceback: as Python prints it
    :ivar error: the exception itself, where it was raised in this process
    """

    pickled: bytes
    summary: str
    traceback: str
    error: Exception | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception for another process."""
        try:
            pickled = pickle.dumps(error)
            unpickled(pickled)  # some exceptions can be written only
        except Exception:
            pickled = b""
        summary = "".join(traceback.format_exception_only(error)).strip()
        return cls(pickled, summary, "".join(traceback.format_exception(error)))


def run(makers: Sequence[Make], first: int, memory: StepMemory, connection: Connection, log: Connection | None) -> None:
    """Build envs and step them until the parent closes its end.

    :param makers: build the envs
    :param first: number of the first of them
    :param log: takes the traceback of a crash, and on SIGUSR1 that of the moment
    """
    _live_with_the_parent()
    if log is not None:
        faulthandler.enable(log.fileno(), all_threads=False)
        faulthandler.register(signal.SIGUSR1, log.fileno(), all_threads=False)
    envs: list[gym.Env[Any, Any]] = []
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            for make in makers:  # one by one, so that those that were built are closed
                envs.append(make())
            answer = NOTHING
        except BaseException as error:
            answer = pickle.dumps(Failure.of(error))
        connection.send_bytes(answer)
        if answer == NOTHING:
            _serve(Share(envs, first, memory), connection)
    for env in envs:
        env.close()


def _serve(share: Share, connection: Connection) -> None:
    while True:
        message = connection.recv_bytes()
        try:
            value = share.do(message)
            answer = NOTHING if value is None else pickle.dumps(value)
        except BaseException as error:  # also sys.exit() in an env
            answer = pickle.dumps(Failure.of(error))
        connection.send_bytes(answer)


class Share:
    """Some of the envs.

    :param first: number of the first one
    """

    def __init__(self, envs: Sequence[gym.Env[Any, Any]], first: int, memory: StepMemory) -> None:
        self._envs, self._memory = dict(enumerate(envs, first)), memory
        self._actions: np.ndarray = np.zeros(0)
        self._told = dict.fromkeys(self._envs, b"")  # the last pickled info that the parent was told

    def do(self, message: bytes) -> Any:
        """Do what a message says; what there is to answer, or None."""
        if message == STEP:
            return self._step_from_memory()
        command, arguments = unpickled(message)
        return getattr(self, command)(*arguments)

    # -- commands

    def lay_out_actions(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        """See StepMemory.actions."""
        self._actions = self._memory.actions(dtype, shape)

    def _step_from_memory(self) -> list[News] | None:
        """Step each env with its action in the shared memory."""
        return self.step({index: self._actions[index].copy() for index in self._envs}) or None

    def step(self, actions: dict[int, Any]) -> list[News]:
        """Step each env, as SB3's DummyVecEnv does, and say what the shared memory does not."""
        return [news for index, env in self._envs.items() if (news := self._step(index, env, actions[index]))]

    def _step(self, index: int, env: gym.Env[Any, Any], action: Any) -> News | None:
        memory, reset_info = self._memory, None
        observation, memory.rewards[index], terminated, truncated, info = env.step(action)
        memory.dones[index] = done = terminated or truncated
        info["TimeLimit.truncated"] = truncated and not terminated
        if done:
            info["terminal_observation"] = observation
            observation, reset_info = env.reset()
        self._show(index, observation)
        pickled = pickle.dumps(info)
        if pickled == self._told[index] and reset_info is None:
            return None
        self._told[index] = pickled
        return index, pickled, reset_info

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> list[Any]:
        """Reset each env.

        :return: their infos
        """
        infos = []
        for index, env in self._envs.items():
            chosen = {"options": options[index]} if options[index] else {}
            observation, info = env.reset(seed=seeds[index], **chosen)
            self._show(index, observation)
            infos.append(info)
        return infos

    def _show(self, index: int, observation: Any) -> None:
        for key, array in self._memory.observations.items():
            array[index] = observation if key is None else observation[key]

    def call(self, indices: Sequence[int], name: str, arguments: Any, keywords: Any) -> list[Any]:
        """Call a method of some envs."""
        return [self._envs[index].get_wrapper_attr(name)(*arguments, **keywords) for index in indices]

    def get(self, indices: Sequence[int], name: str) -> list[Any]:
        """An attribute of some envs."""
        return [self._envs[index].get_wrapper_attr(name) for index in indices]

    def has(self, indices: Sequence[int], name: str) -> list[bool]:
        """Whether some envs have an attribute."""
        return [self._envs[index].has_wrapper_attr(name) for index in indices]

    def set(self, indices: Sequence[int], name: str, value: Any) -> list[None]:
        """Set an attribute of some envs, on their outermost wrapper as DummyVecEnv does."""
        for index in indices:
            setattr(self._envs[index], name, value)
        return [None] * len(indices)

    def wrapped(self, indices: Sequence[int], wrapper: type[gym.Wrapper]) -> list[bool]:
        """Whether some envs have a wrapper."""
        return [is_wrapped(self._envs[index], wrapper) for index in indices]


def _live_with_the_parent() -> None:
    """End when the parent does, whatever an env is doing; until then signals to the whole group are the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _outlive_the_parent_shortly)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    if hasattr(signal, "pthread_sigmask"):  # so that SIGUSR1 finds the main thread
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _outlive_the_parent_shortly(number: int, frame: FrameType | None) -> None:
    """Leave the parent time to save and to close its workers, and end anyway if it does not."""
    if hasattr(signal, "alarm"):
        signal.alarm(_GRACE)
