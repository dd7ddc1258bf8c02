"""A replay buffer of stacked frames that stores every frame once.

SB3's stores an observation of four frames and the next one, eight frames a transition, of which seven are also in its
neighbours. Here a row has the newest frame of its observation; stacks and next observations are put together when they
are sampled. What is sampled has the bits of SB3's ReplayBuffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecTransposeImage

from rlrun.accelerate.returns import samples_of

_SMALL = spaces.Box(0, 255, (1,), np.uint8)
_NEXT_ROW, _AMONG_ENDS, _WHOLE = 0, 1, 2  # where a row's next frame is; or its observations are kept whole


class FrameBuffer(ReplayBuffer):
    """ReplayBuffer for images that VecFrameStack has stacked, channels first.

    A stack begins with black frames after each reset. ``age`` says how many frames before a row's own belong to its
    episode; the others are black. The frame after a row's is the next row's, but for the last row of an episode and
    the last one that was added. Observations that are no stack of the frames before them, as where a callback resets
    the envs in the middle of an episode, are kept whole beside the rows.

    :param stack: frames of an observation
    :param n_steps: rewards that are summed, as in SB3's NStepReplayBuffer
    :param gamma: their discount
    :ivar frames: (rows, n_envs, \\*frame), the newest of each row's observation
    :ivar age: (rows, n_envs), at most ``stack - 1``
    :ivar ended: (rows, n_envs); 1 where the row's next frame is among ``ends``, 2 where ``wholes`` has all of it
    :ivar ends: next frames, by row and env
    :ivar wholes: observation and next observation, by row and env
    :ivar channels_last: whether sampled images get this order in memory
    """

    channels_last = False

    def __init__(self, *args: Any, stack: int, n_steps: int = 1, gamma: float = 0.99, **kwargs: Any) -> None:
        buffer_size, observation_space, *others = args
        # What SB3 allocates is wanted, but for the observations.
        super().__init__(buffer_size, _SMALL, *others, **kwargs)
        self.observation_space, self.obs_shape = observation_space, observation_space.shape
        del self.observations, self.next_observations
        self.stack, self.n_steps, self.gamma = stack, n_steps, gamma
        channels, *size = observation_space.shape
        self._depth = channels // stack
        shape = (self.n_envs, self._depth, *size)
        self.frames = np.zeros((self.buffer_size, *shape), dtype=observation_space.dtype)
        self.age = np.zeros((self.buffer_size, self.n_envs), dtype=np.uint8)
        self.ended = np.zeros((self.buffer_size, self.n_envs), dtype=np.uint8)
        self.ends: dict[tuple[int, int], np.ndarray] = {}
        self.wholes: dict[tuple[int, int], np.ndarray] = {}
        self.older = np.zeros((stack - 1, *shape), dtype=observation_space.dtype)  # overwritten last, the oldest first
        self.following = np.zeros(shape, dtype=observation_space.dtype)  # after the row that was added last
        self._expected: np.ndarray | None = None  # the observation that comes next where the episode goes on

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """See ReplayBuffer."""
        row, before = self.pos, (self.pos - 1) % self.buffer_size
        if self.full:
            self.older[:-1] = self.older[1:]
            self.older[-1] = self.frames[row]
        for env in range(self.n_envs):
            self.ends.pop((row, env), None)
            self.wholes.pop((row, env), None)
            goes_on = self._expected is not None and np.array_equal(obs[env], self._expected[env])
            is_chained = goes_on and self.ended[before, env] == _NEXT_ROW
            if not goes_on and (row or self.full) and self.ended[before, env] == _NEXT_ROW:
                self.ends[before, env] = self.following[env].copy()
                self.ended[before, env] = _AMONG_ENDS
            self.age[row, env] = min(self.age[before, env] + 1, self.stack - 1) if is_chained else 0
            self.ended[row, env] = _NEXT_ROW
            begins = not obs[env, : -self._depth].any()
            follows = np.array_equal(next_obs[env, : -self._depth], obs[env, self._depth :])
            if not follows or not (is_chained or begins):
                self.wholes[row, env] = np.stack([obs[env], next_obs[env]])
                self.ended[row, env] = _WHOLE
        self.frames[row] = obs[:, -self._depth :]
        self.following[...] = next_obs[:, -self._depth :]
        self._expected = np.array(next_obs)
        self.actions[row] = action.reshape((self.n_envs, self.action_dim))
        self.rewards[row], self.dones[row] = reward, done
        if self.handle_timeout_termination:
            self.timeouts[row] = [info.get("TimeLimit.truncated", False) for info in infos]
        self.pos = (row + 1) % self.buffer_size
        self.full = self.full or self.pos == 0

    def reset(self) -> None:
        """See ReplayBuffer."""
        super().reset()
        self.ends.clear()
        self.wholes.clear()
        self.cut()

    def cut(self) -> None:
        """The envs are built anew: what is added next goes on from nothing."""
        self._expected = None

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        envs = np.random.randint(0, high=self.n_envs, size=(len(batch_inds),))  # as SB3 draws
        return samples_of(self, batch_inds, envs, env)

    def observations_at(self, rows: np.ndarray, envs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Observations and the next ones, each (batch, stack * depth, height, width)."""
        back = np.arange(self.stack - 1, -2, -1)  # rows back from the observation's own; -1: the next
        found = self.frames[(rows[:, None] - back) % self.buffer_size, envs[:, None]]
        if self.full:
            since = (rows - self.pos) % self.buffer_size  # rows that are older
            for sample in np.flatnonzero(since < self.stack - 1):
                for missing in range(self.stack - 1 - since[sample]):
                    found[sample, missing] = self.older[since[sample] + missing, envs[sample]]
        found[back > self.age[rows, envs][:, None]] = 0
        where, last = self.ended[rows, envs], (self.pos - 1) % self.buffer_size
        for sample in np.flatnonzero((rows == last) | (where == _AMONG_ENDS)):
            place = int(rows[sample]), int(envs[sample])
            found[sample, -1] = self.ends[place] if where[sample] == _AMONG_ENDS else self.following[place[1]]
        frames = found.reshape(len(rows), -1, *self.frames.shape[3:])
        observations, following = frames[:, : -self._depth], frames[:, self._depth :].copy()
        for sample in np.flatnonzero(where == _WHOLE):
            observations[sample], following[sample] = self.wholes[int(rows[sample]), int(envs[sample])]
        return observations, following

    def to_torch(self, array: np.ndarray, copy: bool = True) -> torch.Tensor:
        """See BaseBuffer; what is sampled is a copy already."""
        tensor: torch.Tensor = super().to_torch(array, copy=False)
        is_image = self.channels_last and tensor.dim() == 4
        return tensor.contiguous(memory_format=torch.channels_last) if is_image else tensor

    # -- what a checkpoint holds besides the rows

    def besides(self) -> dict[str, np.ndarray]:
        """The frames that are in no row."""
        found = {"older": self.older, "following": self.following}
        for name, kept in (("ends", self.ends), ("wholes", self.wholes)):
            found[f"{name}_at"] = np.array(list(kept), dtype=np.int64).reshape(-1, 2)
            found[name] = np.array(list(kept.values()), dtype=self.frames.dtype)
        return found

    def put_besides(self, arrays: dict[str, np.ndarray]) -> None:
        """Take what :meth:`besides` gave, at the start of a run that goes on.

        :raises ValueError: when shapes differ
        """
        for name, target in (("older", self.older), ("following", self.following)):
            if arrays[name].shape != target.shape:
                raise ValueError(f"{name} has shape {arrays[name].shape}")
            target[...] = arrays[name]
        for name, shape in (("ends", self.frames.shape[2:]), ("wholes", (2, *self.obs_shape))):
            if len(arrays[name]) and arrays[name].shape[1:] != shape:
                raise ValueError(f"{name} have shape {arrays[name].shape[1:]}")
            kept = zip(arrays[f"{name}_at"].tolist(), arrays[name], strict=True)
            setattr(self, name, {(row, env): frames for (row, env), frames in kept})
        self.cut()


def stack_of(venv: VecEnv) -> int | None:
    """How many frames a VecEnv's observations are stacked of along their first axis; None where they are not.

    VecFrameStack stacks along the last axis, unless it takes the observations for images with channels first;
    VecTransposeImage then puts the channels, and so the frames, first.
    """
    is_transposed = False
    while isinstance(venv, VecEnvWrapper):
        if isinstance(venv, VecFrameStack):
            stacked = venv.stacked_obs
            is_first = isinstance(stacked.observation_space, spaces.Box) and stacked.channels_first != is_transposed
            return stacked.n_stack if is_first else None
        is_transposed = is_transposed or isinstance(venv, VecTransposeImage)
        venv = venv.venv
    return None


def why_not(space: spaces.Space[Any], stack: int | None, settings: Mapping[str, Any]) -> str:
    """Why a config's frames are not stored once; empty when they are.

    :param space: of what the policy sees
    :param stack: what :func:`stack_of` says
    :param settings: the algorithm's keyword arguments
    """
    if not stack or stack < 2:
        return "observations are not stacked along their first axis"
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) != 3:
        return "observations are no images"
    if settings.get("replay_buffer_class") is not None:
        return "the config names another replay buffer"
    if settings.get("optimize_memory_usage"):
        return "optimize_memory_usage"
    return ""
