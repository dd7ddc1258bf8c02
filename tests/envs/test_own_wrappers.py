"""rlrun's own wrappers: frames are skipped and summed up, entries are hidden."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rlrun.envs.own_wrappers import FrameSkip, MaskObservation


class Counter(gym.Env[Any, Any]):
    """Counts its steps and ends at the fifth."""

    observation_space = spaces.Box(-10, 10, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.ones(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.full(3, self.steps, np.float32), float(self.steps), self.steps == 5, False, {"step": self.steps}


def test_skipped_frames_add_up_and_end_with_the_episode() -> None:
    env = FrameSkip(Counter(), skip=3)
    env.reset()
    observation, reward, terminated, truncated, info = env.step(0)
    assert (observation[0], reward, terminated, truncated, info) == (3.0, 6.0, False, False, {"step": 3})
    observation, reward, terminated, _, info = env.step(0)
    assert (observation[0], reward, terminated, info) == (5.0, 9.0, True, {"step": 5})


def test_masked_entries_are_zero_at_reset_and_at_each_step() -> None:
    env = MaskObservation(Counter(), [0, 2])
    assert env.reset()[0].tolist() == [0.0, 1.0, 0.0]
    observation = env.step(0)[0]
    assert observation.tolist() == [0.0, 1.0, 0.0]
    assert observation.dtype == np.float32
    assert env.observation_space == Counter.observation_space


@pytest.mark.parametrize("indices", [[3], [-1]])
def test_an_entry_that_is_not_there_is_refused(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="between 0 and 2"):
        MaskObservation(Counter(), indices)


def test_only_vectors_have_entries_to_mask_and_a_skip_is_positive() -> None:
    with pytest.raises(ValueError, match="vectors"):
        MaskObservation(gym.make("FrozenLake-v1"), [0])
    with pytest.raises(ValueError, match="1 or more"):
        FrameSkip(Counter(), skip=0)
