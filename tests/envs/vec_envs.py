"""Envs of many kinds for the tests of vectorisation. Workers import this module."""

from __future__ import annotations

import copy
import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Kind(gym.Env[Any, Any]):
    """Random observations, episodes of random length, odd infos.

    :param kind: of the spaces
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    OBSERVATIONS: dict[str, Any] = {  # noqa: RUF012
        "dict": spaces.Dict(
            {
                "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
                "vector": spaces.Box(-1, 1, (3,), np.float64),
                "digit": spaces.Discrete(5, start=2),
            }
        ),
        "tuple": spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Discrete(3))),
        "discrete": spaces.Discrete(7),
        "multidiscrete": spaces.MultiDiscrete([3, 4, 5]),
        "multibinary": spaces.MultiBinary(6),
        "image": spaces.Box(0, 255, (12, 12, 1), np.uint8),
        "half": spaces.Box(-1, 1, (2, 3), np.float16),
    }
    ACTIONS: dict[str, Any] = {  # noqa: RUF012
        "dict": spaces.Box(-1, 1, (2,), np.float64),
        "tuple": spaces.Discrete(3, start=-1),
        "multidiscrete": spaces.MultiDiscrete([2, 3]),
        "multibinary": spaces.MultiBinary(4),
        "image": spaces.Box(-1, 1, (2, 2)),
    }

    def __init__(self, kind: str = "discrete", render_mode: str | None = None) -> None:
        self.observation_space = copy.deepcopy(self.OBSERVATIONS[kind])  # the copies of an env share nothing
        self.action_space = copy.deepcopy(self.ACTIONS.get(kind, spaces.Discrete(4)))
        self.render_mode = render_mode
        self.label, self.steps, self.kept = "none", 0, []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.steps = 0
        return self.observation_space.sample(), {"options": options, "first": self.np_random.random()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.kept.append(action)  # an env may keep what it is given
        chance = self.np_random.random()
        info = {"success": {"is": chance > 0.5}, "steps": self.steps, "seen": [repr(a) for a in self.kept[-3:]]}
        reward = np.float64(chance) / 3 + float(np.sum(action))
        return self.observation_space.sample(), reward, chance < 0.1, chance > 0.9, info if chance > 0.3 else {}

    def action_masks(self) -> np.ndarray:
        return np.arange(4) != self.steps % 4

    def relabel(self, label: str, shout: bool = False) -> str:
        self.label = label.upper() if shout else label
        return self.label

    def render(self) -> np.ndarray:
        return np.full((4, 4, 3), self.steps, np.uint8)

    def complain(self) -> None:
        raise LookupError("nobody listens")


class Restless(Kind):
    """Draws from the global generators while it is stepped."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, random.random(), *rest


class Slow(Kind):
    """A step takes 20 ms."""

    def step(self, action: Any) -> Any:
        time.sleep(0.02)
        return super().step(action)


class OddError(Exception):
    """Cannot be built anew from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


CLOSED: list[str] = []


class Fragile(Kind):
    """Something happens at its third step, if that is in a worker.

    :param what: happens
    :param where: a folder in which each env leaves the id of its process
    """

    def __init__(self, what: str = "", where: str = "") -> None:
        super().__init__()
        self.what, self.total = what, 0
        self.is_in_worker = multiprocessing.parent_process() is not None
        if what == "unbuildable" and self.is_in_worker:
            raise RuntimeError("cannot be built in a worker")
        if where:
            Path(where, str(os.getpid())).touch()

    def close(self) -> None:
        CLOSED.append(self.what)

    def step(self, action: Any) -> Any:
        self.total += 1
        if self.total == 3 and (self.what in ("", "raises", "interrupted") or self.is_in_worker):
            self.happen()
        return super().step(action)

    def happen(self) -> None:
        if self.what == "dies":
            os._exit(7)
        if self.what == "crashes":
            import ctypes

            ctypes.string_at(0)
        if self.what == "leaves":
            raise SystemExit(3)
        if self.what == "interrupted" and not self.is_in_worker:
            raise KeyboardInterrupt
        if self.what == "raises":
            raise OSError("the robot fell over")
        if self.what == "raises oddly":
            raise OddError(1, 2)
        while self.what == "hangs":
            pass
