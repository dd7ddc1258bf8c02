"""A replay buffer of stacked frames that stores every frame once.

SB3's stores an observation of four frames and the next one, eight frames a transition, of which seven are also in its
neighbours. Here a row has the newest frame of its observation; stacks and next observations are put together when they
are sampled. What is sampled has the bits of SB3's ReplayBuffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecTransposeImage

_SMALL = spaces.Box(0, 255, (1,), np.uint8)
_NOT_STACKED = "the observations are not stacked by VecFrameStack, so their frames cannot be stored once"


class FrameBuffer(ReplayBuffer):
    """ReplayBuffer for images that VecFrameStack has stacked, channels first.

    A stack begins with black frames after each reset. ``age`` says how many frames before a row's own belong to its
    episode; the others are black. The frame after a row's is the next row's, but for the last row of an episode and
    the last one that was added.

    :param stack: frames of an observation
    :ivar frames: (rows, n_envs, \\*frame), the newest of each row's observation
    :ivar age: (rows, n_envs), at most ``stack - 1``
    :ivar ended: (rows, n_envs); 1 where the row's next frame is among ``ends``
    :ivar ends: next frames, by row and env
    """

    def __init__(self, *args: Any, stack: int, **kwargs: Any) -> None:
        buffer_size, observation_space, *others = args
        # What SB3 allocates is wanted, but for the observations.
        super().__init__(buffer_size, _SMALL, *others, **kwargs)
        self.observation_space, self.obs_shape = observation_space, observation_space.shape
        del self.observations, self.next_observations
        self.stack = stack
        channels, *size = observation_space.shape
        self._depth = channels // stack
        shape = (self.n_envs, self._depth, *size)
        self.frames = np.zeros((self.buffer_size, *shape), dtype=observation_space.dtype)
        self.age = np.zeros((self.buffer_size, self.n_envs), dtype=np.uint8)
        self.ended = np.zeros((self.buffer_size, self.n_envs), dtype=np.uint8)
        self.ends: dict[tuple[int, int], np.ndarray] = {}
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
        """See ReplayBuffer.

        :raises ValueError: when an observation is no stack of the frames that came before
        """
        row, before = self.pos, (self.pos - 1) % self.buffer_size
        newest = obs[:, -self._depth :]
        if not np.array_equal(next_obs[:, : -self._depth], obs[:, self._depth :]):
            raise ValueError(_NOT_STACKED)
        if self.full:
            self.older[:-1] = self.older[1:]
            self.older[-1] = self.frames[row]
        for env in range(self.n_envs):
            self.ends.pop((row, env), None)
            if self._expected is not None and np.array_equal(obs[env], self._expected[env]):
                self.age[row, env] = min(self.age[before, env] + 1, self.stack - 1)
                continue
            if obs[env, : -self._depth].any():
                raise ValueError(_NOT_STACKED)
            self.age[row, env] = 0
            if row or self.full:
                self.ends[before, env] = self.following[env].copy()
                self.ended[before, env] = 1
        self.frames[row], self.ended[row] = newest, 0
        self.following[...] = next_obs[:, -self._depth :]
        self._expected = np.array(next_obs)
        self.actions[row] = action.reshape((self.n_envs, self.action_dim))
        self.rewards[row], self.dones[row] = reward, done
        if self.handle_timeout_termination:
            self.timeouts[row] = [info.get("TimeLimit.truncated", False) for info in infos]
        self.pos = (row + 1) % self.buffer_size
        self.full = self.full or self.pos == 0

    def cut(self) -> None:
        """The envs are built anew: what is added next goes on from nothing."""
        self._expected = None

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        envs = np.random.randint(0, high=self.n_envs, size=(len(batch_inds),))  # as SB3 draws
        frames = self._frames_around(batch_inds, envs)
        depth = self._depth
        data = (
            self._normalize_obs(frames[:, :-depth], env),
            self.actions[batch_inds, envs, :],
            self._normalize_obs(frames[:, depth:], env),
            (self.dones[batch_inds, envs] * (1 - self.timeouts[batch_inds, envs])).reshape(-1, 1),
            self._normalize_reward(self.rewards[batch_inds, envs].reshape(-1, 1), env),
        )
        return ReplayBufferSamples(*tuple(map(self.to_torch, data)))

    def _frames_around(self, rows: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """An observation's frames and the one after them, (batch, (stack + 1) * depth, height, width)."""
        back = np.arange(self.stack - 1, -2, -1)  # rows back from the observation's own; -1: the next
        found = self.frames[(rows[:, None] - back) % self.buffer_size, envs[:, None]]
        if self.full:
            since = (rows - self.pos) % self.buffer_size  # rows that are older
            for sample in np.flatnonzero(since < self.stack - 1):
                for missing in range(self.stack - 1 - since[sample]):
                    found[sample, missing] = self.older[since[sample] + missing, envs[sample]]
        found[back > self.age[rows, envs][:, None]] = 0
        last = (self.pos - 1) % self.buffer_size
        for sample in np.flatnonzero((rows == last) | (self.ended[rows, envs] == 1)):
            row, env = int(rows[sample]), int(envs[sample])
            found[sample, -1] = self.ends[row, env] if self.ended[row, env] else self.following[env]
        return found.reshape(len(rows), -1, *self.frames.shape[3:])

    # -- what a checkpoint holds besides the rows

    def besides(self) -> dict[str, np.ndarray]:
        """The frames that are in no row."""
        places = np.array(list(self.ends), dtype=np.int64).reshape(-1, 2)
        frames = np.array(list(self.ends.values()), dtype=self.frames.dtype).reshape(-1, *self.frames.shape[2:])
        return {"older": self.older, "following": self.following, "end_places": places, "end_frames": frames}

    def put_besides(self, arrays: dict[str, np.ndarray]) -> None:
        """Take what :meth:`besides` gave, at the start of a run that goes on.

        :raises ValueError: when shapes differ
        """
        for name, target in (("older", self.older), ("following", self.following)):
            if arrays[name].shape != target.shape:
                raise ValueError(f"{name} has shape {arrays[name].shape}")
            target[...] = arrays[name]
        places, frames = arrays["end_places"].tolist(), arrays["end_frames"]
        if frames.shape[1:] != self.frames.shape[2:]:
            raise ValueError(f"frames have shape {frames.shape[1:]}")
        self.ends = {(row, env): frame for (row, env), frame in zip(places, frames, strict=True)}
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
    if settings.get("n_steps", 1) != 1:
        return "returns are of several steps"
    return ""
