"""Transitions of a replay buffer by row and env, with returns of several steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize


def samples_of(buffer: Any, rows: np.ndarray, envs: np.ndarray, normalizer: VecNormalize | None) -> ReplayBufferSamples:
    """What SB3's ReplayBuffer gives for transitions, and its NStepReplayBuffer where ``buffer.n_steps`` is above 1.

    :param buffer: a ReplayBuffer with ``n_steps`` and ``gamma``
    :param rows: (batch,), and so are ``envs``
    """
    if buffer.n_steps == 1:
        obs, following = _observations(buffer, rows, envs)
        rewards, discounts = buffer._normalize_reward(buffer.rewards[rows, envs], normalizer)[:, None], None
        last = rows
    else:
        last, rewards, discounts = _several_steps(buffer, rows, envs, normalizer)
        obs, following = _observations(buffer, rows, envs)[0], _observations(buffer, last, envs)[1]
    return ReplayBufferSamples(
        buffer.to_torch(buffer._normalize_obs(obs, normalizer)),
        buffer.to_torch(buffer.actions[rows, envs]),
        buffer.to_torch(buffer._normalize_obs(following, normalizer)),
        buffer.to_torch((buffer.dones[last, envs] * (1 - buffer.timeouts[last, envs]))[:, None]),
        buffer.to_torch(rewards),
        None if discounts is None else buffer.to_torch(discounts),
    )


def _observations(buffer: Any, rows: np.ndarray, envs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if hasattr(buffer, "observations_at"):
        found: tuple[np.ndarray, np.ndarray] = buffer.observations_at(rows, envs)
        return found
    return buffer.observations[rows, envs], buffer.next_observations[rows, envs]


def _several_steps(
    buffer: Any, rows: np.ndarray, envs: np.ndarray, normalizer: VecNormalize | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The discounted rewards of up to ``n_steps`` steps, fewer where the episode or the buffer ends before.

    :return: the rows of the last steps, (batch,); the sums, and the discounts of what follows, both (batch, 1)
    """
    steps = np.arange(buffer.n_steps)
    window, columns = (rows[:, None] + steps) % buffer.buffer_size, envs[:, None]
    ends = (buffer.dones[window, columns] != 0) | (buffer.timeouts[window, columns] != 0)
    ends |= window == (buffer.pos - 1) % buffer.buffer_size  # the newest; in a full ring the oldest comes after it
    count = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, buffer.n_steps)
    rewards = buffer._normalize_reward(buffer.rewards[window, columns], normalizer)
    discounted = rewards * buffer.gamma ** steps.astype(np.float32) * (steps < count[:, None])
    discounts = buffer.gamma ** count[:, None].astype(np.float32)
    return (rows + count - 1) % buffer.buffer_size, discounted.sum(axis=1, keepdims=True), discounts
