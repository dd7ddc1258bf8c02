"""Every episode of an env is recorded, also one that a wrapper around the recorder ends."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

_CUT_SHORT = "episode_cut_short"


class Recorder(Monitor[Any, Any]):
    """SB3's Monitor, which sees an episode end when the env says so.

    A wrapper around it may end one by itself, and only the next reset shows it. (A lost life ends an episode for the
    learner without a reset of the game; then there is nothing to record.) Such an episode is put into the reset's info.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See Monitor."""
        observation, reward, terminated, truncated, info = super().step(action)
        success = info.get("is_success")
        if isinstance(success, np.ndarray | np.generic):  # as one type, so that means of it are of one type
            info["is_success"] = success.item()
        return observation, reward, terminated, truncated, info

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """See Monitor."""
        rewards = [] if self.needs_reset else self.rewards
        observation, info = super().reset(**kwargs)
        if rewards:
            seconds = round(time.time() - self.t_start, 6)
            info = {**info, _CUT_SHORT: {"r": round(sum(rewards), 6), "l": len(rewards), "t": seconds}}
        return observation, info


class RecordedVecEnv(VecEnvWrapper):
    """Moves the record of an episode that was cut short to where SB3 looks for it: the info of its last step."""

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)

    def reset(self) -> Any:
        """See VecEnv."""
        observations = self.venv.reset()
        self.reset_infos = self.venv.reset_infos
        return observations

    def step_wait(self) -> Any:
        """See VecEnv."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self.reset_infos = self.venv.reset_infos
        if dones.any():
            for index in dones.nonzero()[0]:
                record = self.venv.reset_infos[index].get(_CUT_SHORT)
                if record is not None and "episode" not in infos[index]:
                    infos[index]["episode"] = record
        return observations, rewards, dones, infos
