"""One step of all envs as arrays in memory that processes share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env.util import obs_space_info

_ALIGNMENT = 64  # bytes: two processes never write to one cache line of the same array's end
_WIDEST = 8  # bytes of one number of an action, whatever type the caller gives it


class StepMemory:
    """The arrays through which worker processes are told what to do and answer.

    The memory has no name in the file system, so nothing of it is left when its processes end, however they end.

    :param context: allocates the memory; None: ``block`` is another process's
    :ivar observations: by key of the space, None where it has no keys: (n_envs, \\*shape) of the space's type
    :ivar rewards: (n_envs,) float32
    :ivar dones: (n_envs,) bool
    """

    def __init__(
        self,
        n_envs: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        context: BaseContext | None = None,
        block: Any = None,
    ) -> None:
        self._description = n_envs, observation_space, action_space
        keys, shapes, dtypes = obs_space_info(observation_space)
        self._actions_size = n_envs * _WIDEST * math.prod(action_space.shape or ())
        wanted = [((n_envs, *shapes[key]), np.dtype(dtypes[key])) for key in keys]
        wanted += [((n_envs,), np.dtype(np.float32)), ((n_envs,), np.dtype(bool))]
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in wanted]
        *starts, self._actions_at = _starts(sizes)
        self.block = block if context is None else context.RawArray("b", max(1, self._actions_at + self._actions_size))
        arrays = [self._array(start, *what) for start, what in zip(starts, wanted, strict=True)]
        self.observations: dict[Any, np.ndarray] = dict(zip(keys, arrays, strict=False))
        self.rewards, self.dones = arrays[-2:]

    def __reduce__(self) -> Any:
        """The same memory in another process."""
        return StepMemory, (*self._description, None, self.block)

    def actions(self, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """The memory of the actions, as the caller of ``step`` gives them.

        :param shape: (n_envs, \\*shape of the space)
        """
        return self._array(self._actions_at, shape, dtype)

    def holds(self, actions: Any) -> bool:
        """Whether actions have room in the memory: arrays of numbers have, one row for each env."""
        is_array = isinstance(actions, np.ndarray) and not actions.dtype.hasobject
        return is_array and len(actions) == self._description[0] and actions.nbytes <= self._actions_size

    def _array(self, start: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        count = math.prod(shape)
        if not count:
            return np.zeros(shape, dtype)
        return np.frombuffer(self.block, dtype, count, start).reshape(shape)


def _starts(sizes: list[int]) -> Iterator[int]:
    """Where each of some arrays begins, and where the last ends, in bytes."""
    start = 0
    for size in sizes:
        yield start
        start += math.ceil(size / _ALIGNMENT) * _ALIGNMENT
    yield start
