"""Env wrappers that configs name and neither Gymnasium nor Stable-Baselines3 has."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class FrameSkip(gym.Wrapper[Any, Any, Any, Any]):
    """Takes each action several times, adds up the rewards, and shows the last observation.

    :param skip: steps of the env in one step of the agent
    """

    def __init__(self, env: gym.Env[Any, Any], skip: int = 4) -> None:
        super().__init__(env)
        if skip < 1:
            raise ValueError(f"skip must be 1 or more, not {skip}")
        self._skip = skip

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step of the agent; it ends early with the episode."""
        total = 0.0
        for _ in range(self._skip):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class MaskObservation(gym.ObservationWrapper[Any, Any, Any]):
    """Shows some entries of a vector of observations as zero, velocities for instance, so that memory is needed.

    :param indices: of the entries
    """

    def __init__(self, env: gym.Env[Any, Any], indices: list[int]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"observations must be vectors, not {space}")
        if not all(0 <= index < space.shape[0] for index in indices):
            raise ValueError(f"indices must be between 0 and {space.shape[0] - 1}, not {indices}")
        self._seen = np.ones(space.shape, space.dtype)
        self._seen[indices] = 0

    def observation(self, observation: Any) -> Any:
        """The observation with its masked entries at zero."""
        return observation * self._seen
