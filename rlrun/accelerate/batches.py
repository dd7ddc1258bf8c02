"""Batches from SB3's replay buffers as NumPy arrays, with the same random draws and without a way through torch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from rlrun.accelerate.flat import Array
from rlrun.spaces import leaves_of

Observations = Array | dict[str, Array]


@dataclass
class Batch:
    """Transitions; the observations as the networks take them.

    :ivar observations: (batch, features), and so are ``next_observations``
    :ivar actions: (batch, actions), as the buffer holds them
    :ivar dones: (batch,); 1 where the episode ended, and not by a time limit
    :ivar rewards: (batch,)
    :ivar weights: of the transitions in the loss, (batch,); without them each weighs 1
    :ivar at: where the transitions lie in the buffer, (batch,), row * n_envs + env
    """

    observations: Array
    actions: Array
    next_observations: Array
    dones: Array
    rewards: Array
    at: Array
    weights: Array | None = None


class Features:
    """Observations as one row of numbers: what FlattenExtractor and CombinedExtractor make of vectors.

    :param space: whose observations come in
    :param extractor: that :func:`why_no_features` has nothing against
    """

    def __init__(self, space: spaces.Space, extractor: BaseFeaturesExtractor) -> None:
        self._keys = list(extractor.extractors) if isinstance(extractor, CombinedExtractor) else None

    def __call__(self, observations: Observations) -> Array:
        """(batch, features) of float32."""
        if isinstance(observations, dict):
            rows = [_rows(observations[key]) for key in self._keys or observations]
            return np.concatenate(rows, axis=1) if len(rows) > 1 else rows[0]
        return _rows(observations)


def _rows(array: Array) -> Array:
    return array.reshape(len(array), -1).astype(np.float32, copy=False)


def why_no_features(space: spaces.Space, extractor: BaseFeaturesExtractor) -> str:
    """Why observations are more than rows of numbers; empty when they are just that."""
    if type(extractor) not in (FlattenExtractor, CombinedExtractor):
        return f"the features extractor is {type(extractor).__name__}"
    for part in leaves_of(space).values():
        if not isinstance(part, spaces.Box):
            return f"observations are {type(part).__name__}"
        if is_image_space(part) or is_image_space(part, normalized_image=True):
            return "observations are images"
    return ""


class ReplaySampler:
    """Draws batches from a ReplayBuffer or DictReplayBuffer, as ``ReplayBuffer.sample`` does.

    :param buffer: filled by SB3
    :param features: makes inputs of observations
    """

    def __init__(self, buffer: ReplayBuffer, features: Features) -> None:
        self.buffer, self._features = buffer, features

    def __call__(self, batch_size: int, normalizer: VecNormalize | None) -> Batch:
        """A batch of transitions drawn with NumPy's global generator."""
        buffer = self.buffer
        if buffer.optimize_memory_usage and buffer.full:  # the row at pos has lost its next observation
            rows = (np.random.randint(1, buffer.buffer_size, size=batch_size) + buffer.pos) % buffer.buffer_size
        else:
            rows = np.random.randint(0, buffer.buffer_size if buffer.full else buffer.pos, size=batch_size)
        envs = np.random.randint(0, high=buffer.n_envs, size=batch_size)
        return self.transitions(rows * buffer.n_envs + envs, normalizer)

    def transitions(self, at: Array, normalizer: VecNormalize | None) -> Batch:
        """A batch of the transitions at (batch,) places, row * n_envs + env."""
        buffer = self.buffer
        observations = _take(buffer.observations, at)
        if buffer.optimize_memory_usage:
            next_at = (at + buffer.n_envs) % (buffer.buffer_size * buffer.n_envs)
            following = _take(buffer.observations, next_at)
        else:
            following = _take(buffer.next_observations, at)
        return self._batch(at, observations, following, _take(buffer.rewards, at), normalizer)

    def _batch(
        self, at: Array, observations: Any, following: Any, rewards: Array, normalizer: VecNormalize | None
    ) -> Batch:
        buffer = self.buffer
        if normalizer is not None:
            observations, following = normalizer.normalize_obs(observations), normalizer.normalize_obs(following)
            rewards = normalizer.normalize_reward(rewards).astype(np.float32)
        dones = _take(buffer.dones, at) * (1 - _take(buffer.timeouts, at))
        actions = _take(buffer.actions, at)
        return Batch(self._features(observations), actions, self._features(following), dones, rewards, at)


class HindsightSampler(ReplaySampler):
    """Draws batches from a HerReplayBuffer: a part of the transitions gets a goal that the episode reached later.

    Andrychowicz et al. 2017. SB3 looks for transitions of whole episodes in all of the buffer at every call; which ones
    these are changes only when an episode ends or begins to be overwritten.
    """

    buffer: HerReplayBuffer

    def __init__(self, buffer: HerReplayBuffer, features: Features) -> None:
        super().__init__(buffer, features)
        self._valid, self._valid_for = np.empty(0, dtype=np.int64), b""

    def __call__(self, batch_size: int, normalizer: VecNormalize | None) -> Batch:
        """A batch, its real transitions first."""
        buffer = self.buffer
        valid = self._find_valid()
        if not len(valid):
            buffer.sample(batch_size, normalizer)  # raises SB3's error
        drawn = valid.take(np.random.randint(0, len(valid), size=batch_size))
        n_virtual = int(buffer.her_ratio * batch_size)
        virtual, real = drawn[:n_virtual], drawn[n_virtual:]
        at = np.concatenate([real, virtual])
        observations, following = _take(buffer.observations, at), _take(buffer.next_observations, at)
        rewards = _take(buffer.rewards, at)
        rows, envs = np.divmod(virtual, buffer.n_envs)
        goals = buffer._sample_goals(rows, envs)
        n_real = len(real)
        for part in (observations, following):
            part["desired_goal"][n_real:] = goals
        achieved = following["achieved_goal"][n_real:]
        rewards[n_real:] = self._rewards(achieved, goals, rows, envs)
        return self._batch(at, observations, following, rewards, normalizer)

    def _rewards(self, achieved: Array, goals: Array, rows: Array, envs: Array) -> Array:
        buffer = self.buffer
        infos: Any = [{} for _ in rows]
        if buffer.copy_info_dict:
            infos = copy.deepcopy(buffer.infos[rows, envs])
        venv: Any = buffer.env
        return np.asarray(venv.env_method("compute_reward", achieved, goals, infos, indices=[0])[0])

    def _find_valid(self) -> Array:
        """Positions in (row, env) order of the transitions whose episode is whole."""
        buffer = self.buffer
        # In a ring these lie between the oldest episode that is still whole and the one that is being played.
        envs = range(buffer.n_envs) if buffer.full else ()
        starts = [_first_positive(buffer.ep_length[:, env], buffer.pos) for env in envs]
        state = np.array([buffer.full, *starts, *buffer._current_ep_start]).tobytes()
        if state != self._valid_for:
            filled = buffer.buffer_size if buffer.full else buffer.pos
            self._valid, self._valid_for = np.flatnonzero(buffer.ep_length[:filled] > 0), state
        return self._valid


def _first_positive(lengths: Array, begin: int) -> int:
    """The first index, counted around the ring from ``begin``, with a positive value; -1 when there is none."""
    block = 1024
    for low, high in ((begin, len(lengths)), (0, begin)):
        for start in range(low, high, block):
            found = lengths[start : min(start + block, high)] > 0
            index = int(found.argmax())
            if found[index]:
                return start + index
    return -1


def _take(array: Any, at: Array) -> Any:
    """Rows of a buffer's array, whose first two axes are row and env; of each array in a dict."""
    if isinstance(array, dict):
        return {key: _take(value, at) for key, value in array.items()}
    return array.reshape(-1, *array.shape[2:]).take(at, axis=0)


_SAMPLERS: dict[type, type[ReplaySampler]] = {
    ReplayBuffer: ReplaySampler,
    DictReplayBuffer: ReplaySampler,
    HerReplayBuffer: HindsightSampler,
}


def _sampler_class(buffer: Any) -> type[ReplaySampler] | None:
    """A buffer of rlrun's own names its sampler."""
    return _SAMPLERS.get(type(buffer)) or getattr(buffer, "sampler_class", None)


def why_no_sampler(buffer: ReplayBuffer | None) -> str:
    """Why batches are drawn by SB3 itself; empty when they need not be."""
    return "" if _sampler_class(buffer) else f"the replay buffer is {type(buffer).__name__}"


def sampler_for(buffer: ReplayBuffer, features: Features) -> ReplaySampler:
    """The sampler of a buffer that :func:`why_no_sampler` has nothing against."""
    found: Any = _sampler_class(buffer)
    sampler: ReplaySampler = found(buffer, features)
    return sampler
