"""Envs in processes of their own, and what goes wrong where they are built."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.vec_env import SubprocVecEnv

from rlrun.errors import RlrunError, UsageError

Make = Callable[[], gym.Env[Any, Any]]


_GRACE = 30  # seconds that a worker lives on after SIGTERM


class _Unbuilt(gym.Wrapper[Any, Any, Any, Any]):
    """Stands in a worker for an env that could not be built, and keeps the reason for the parent process."""

    def __init__(self, error: RlrunError) -> None:
        super().__init__(gym.Env())
        self.observation_space = self.action_space = spaces.Discrete(1)
        self.reason = error.message, error.hint


def start_workers(makers: Sequence[Make]) -> SubprocVecEnv:
    """One process for each env.

    :raises UsageError: in the words of the first worker that could not build its env
    """
    before = set(multiprocessing.active_children())
    try:
        venv = SubprocVecEnv([partial(_built, make) for make in makers])
        unbuilt = venv.env_is_wrapped(_Unbuilt)
    except (EOFError, ConnectionError):
        for sibling in set(multiprocessing.active_children()) - before:
            sibling.kill()
        hint = "`rlrun check-env` tries it; env.vec: serial does without workers."
        raise RlrunError("A worker process died while it built its env.", hint) from None
    if any(unbuilt):
        message, hint = venv.get_attr("reason", unbuilt.index(True))[0]
        venv.close()
        raise UsageError(f"In a worker process, {message}", hint)
    return venv


def _built(make: Make) -> gym.Env[Any, Any]:
    # Signals to the whole group are for the parent, which closes its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _outlive_the_parent_shortly)
    try:
        return make()
    except RlrunError as error:
        return _Unbuilt(error)


def _outlive_the_parent_shortly(number: int, frame: FrameType | None) -> None:
    """Leave the parent time to save and to close its workers, and end anyway if it does not."""
    if hasattr(signal, "alarm"):
        signal.alarm(_GRACE)
