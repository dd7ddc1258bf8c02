"""VecNormalize with the same results in fewer steps.

SB3 takes some thirty NumPy calls a key of a Dict observation and step, in which an arm's policy spends longer than in
its network. Here the keys lie side by side as columns of one array, and one pass does for all of them.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

_PAIRWISE = 8  # so many numbers in one column are not summed one after the other, as those of several columns are


class Normalizer(VecNormalize):
    """SB3's VecNormalize, bit for bit, and saved as one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._columns = self._find_columns()
        self._joint = RunningMeanStd()  # of all keys; theirs are views of it
        self._views: list[np.ndarray] = []

    def step_wait(self) -> Any:
        """See VecNormalize."""
        seen, rewards, dones, infos = self.venv.step_wait()
        self.old_obs, self.old_reward = seen, rewards  # type: ignore[assignment]
        observations = self._seen(seen)
        if self.training:
            self.returns = self.returns * self.gamma + rewards
            update(self.ret_rms, self.returns)
        rewards = self.normalize_reward(rewards)
        for index in dones.nonzero()[0]:
            if "terminal_observation" in infos[index]:
                infos[index]["terminal_observation"] = self.normalize_obs(infos[index]["terminal_observation"])
        self.returns[dones] = 0
        return observations, rewards, dones, infos

    def reset(self) -> Any:
        """See VecNormalize."""
        observations: Any = self.venv.reset()
        self.old_obs = observations
        self.returns = np.zeros(self.num_envs)
        return self._seen(observations)

    def normalize_obs(self, obs: Any) -> Any:
        """See VecNormalize."""
        if not self.norm_obs:
            return {key: copy(part) for key, part in obs.items()} if isinstance(obs, dict) else copy(obs)
        rms: Any = self.obs_rms
        if not isinstance(obs, dict):
            return self._normalize_obs(obs, rms).astype(np.float32)
        return {
            key: self._normalize_obs(part, rms[key]).astype(np.float32) if key in rms else copy(part)
            for key, part in obs.items()
        }

    def save(self, save_path: str) -> None:
        """Write a VecNormalize that is read where there is no rlrun."""
        plain = VecNormalize.__new__(VecNormalize)
        plain.__dict__.update({name: value for name, value in vars(self).items() if name not in _OWN})
        plain.save(save_path)

    def _normalize_obs(self, obs: np.ndarray, obs_rms: RunningMeanStd) -> np.ndarray:
        scaled = (obs - obs_rms.mean) / np.sqrt(obs_rms.var + self.epsilon)
        clipped: np.ndarray = np.minimum(np.maximum(scaled, -self.clip_obs), self.clip_obs)
        return clipped

    def _seen(self, observations: Any) -> Any:
        """Normalized observations, after the statistics took them in."""
        if not self.norm_obs:
            return self.normalize_obs(observations)
        rms: Any = self.obs_rms
        if self._columns and len({moments.count for moments in rms.values()}) == 1:
            return self._seen_at_once(observations, rms)
        if self.training:
            if isinstance(observations, dict):
                for key in rms:
                    update(rms[key], observations[key])
            else:
                update(rms, observations)
        return self.normalize_obs(observations)

    def _seen_at_once(self, observations: dict[str, np.ndarray], rms: dict[str, RunningMeanStd]) -> Any:
        joint, now = self._joint, [part for moments in rms.values() for part in (moments.mean, moments.var)]
        if len(now) != len(self._views) or any(one is not other for one, other in zip(now, self._views, strict=True)):
            joint.mean, joint.var = np.concatenate(now[::2]), np.concatenate(now[1::2])  # others were put in
            joint.count = next(iter(rms.values())).count
        rows = np.concatenate([observations[key] for key in rms], axis=1)
        if self.training:
            update(joint, rows)
            self._views = []
            for key, columns in self._columns.items():
                rms[key].mean, rms[key].var, rms[key].count = joint.mean[columns], joint.var[columns], joint.count
                self._views += [rms[key].mean, rms[key].var]
        normalized = self._normalize_obs(rows, joint).astype(np.float32)
        return {
            key: np.ascontiguousarray(normalized[:, self._columns[key]]) if key in rms else copy(part)
            for key, part in observations.items()
        }

    def _find_columns(self) -> dict[str, slice]:
        """Where each key's numbers would lie among all; nothing when they cannot be worked on together."""
        rms: Any = self.obs_rms if self.norm_obs else None
        if not isinstance(rms, dict) or len(rms) < 2:
            return {}
        spaces: Any = self.observation_space
        widths = [moments.mean.shape for moments in rms.values()]
        kinds = {spaces[key].dtype for key in rms}
        if len(kinds) > 1 or any(len(width) != 1 for width in widths):
            return {}
        if self.num_envs >= _PAIRWISE and any(width[0] == 1 for width in widths):
            return {}
        ends = np.cumsum([width[0] for width in widths]).tolist()
        return {key: slice(end - width[0], end) for key, width, end in zip(rms, widths, ends, strict=True)}


_OWN = ("_columns", "_joint", "_views")


def update(moments: RunningMeanStd, batch: np.ndarray) -> None:
    """``RunningMeanStd.update`` (Chan et al. 1983) in SB3's order of operations, so with its bits.

    :param batch: (n, ...)
    """
    if batch.dtype == np.float16:  # summed in float32
        moments.update(batch)
        return
    n = len(batch)
    mean = np.true_divide(np.add.reduce(batch, axis=0), n)
    deviations = batch - mean
    np.multiply(deviations, deviations, out=deviations)
    variance = np.true_divide(np.add.reduce(deviations, axis=0), n)
    count, total = moments.count, moments.count + n
    delta = mean - moments.mean
    moments.mean = moments.mean + delta * n / total
    moments.var = (moments.var * count + variance * n + np.square(delta) * count * n / total) / total
    moments.count = total
