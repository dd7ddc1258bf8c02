"""Env copies stepped one after the other in this process, as SB3's DummyVecEnv does it, with less copying."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.util import dict_to_obs

_IMMUTABLE = frozenset({bool, int, float, str, type(None), np.bool_, np.float32, np.float64, np.int32, np.int64})


class SerialVecEnv(DummyVecEnv):
    """DummyVecEnv, whose ``deepcopy`` of all infos and observations at every step takes longer than a quick env's step.

    What it returns stays as it is when the envs go on, like DummyVecEnv's: arrays are copied as arrays, and infos
    deeply only where they hold something that could change.
    """

    def step_wait(self) -> Any:
        """See VecEnv."""
        actions, dones, rewards = self.actions, self.buf_dones, self.buf_rews
        for index, env in enumerate(self.envs):
            obs, rewards[index], terminated, truncated, info = env.step(actions[index])
            info["TimeLimit.truncated"] = truncated and not terminated
            dones[index] = done = terminated or truncated
            if done:
                info["terminal_observation"] = obs
                info = deepcopy(info)
                obs, self.reset_infos[index] = env.reset()
            self.buf_infos[index] = info
            self._save_obs(index, obs)
        infos = [_copied(info) for info in self.buf_infos]
        return self._obs_from_buf(), rewards.copy(), dones.copy(), infos

    def _obs_from_buf(self) -> Any:
        return dict_to_obs(self.observation_space, {key: array.copy() for key, array in self.buf_obs.items()})


def _copied(info: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that nothing done to the original changes."""
    if _IMMUTABLE.issuperset(map(type, info.values())):
        return dict(info)
    return deepcopy(dict(info))
