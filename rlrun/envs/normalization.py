"""VecNormalize's statistics as plain arrays: the form in which rlrun keeps and reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from rlrun.errors import UsageError

Statistics = dict[str, np.ndarray]
_MOMENTS = ("mean", "var", "count")


def _moments(normalizer: VecNormalize) -> dict[str, RunningMeanStd]:
    """Each running mean and variance, by a name: ``ret``, ``obs``, or ``obs.<key>`` for a Dict observation."""
    found = {"ret": normalizer.ret_rms}
    if normalizer.norm_obs:
        obs_rms: Any = normalizer.obs_rms
        found |= {f"obs.{key}": rms for key, rms in obs_rms.items()} if isinstance(obs_rms, dict) else {"obs": obs_rms}
    return found


def get_statistics(normalizer: VecNormalize) -> Statistics:
    """A copy of all running moments, float64 arrays by name such as ``obs.mean`` or ``ret.var``."""
    return {
        f"{name}.{part}": np.array(getattr(rms, part), dtype=np.float64)
        for name, rms in _moments(normalizer).items()
        for part in _MOMENTS
    }


def set_statistics(normalizer: VecNormalize, statistics: Mapping[str, np.ndarray]) -> None:
    """Put saved moments into a VecNormalize.

    :raises UsageError: when they are another env's (names or shapes differ)
    """
    expected = get_statistics(normalizer)
    if set(expected) != set(statistics):
        message = f"The normalization statistics hold {sorted(statistics)}, and this env needs {sorted(expected)}."
        raise UsageError(message, "They belong to another env or another `normalize` section.")
    for name, array in statistics.items():
        if array.shape != expected[name].shape:
            shapes = f"{array.shape} for {name}, and this env {expected[name].shape}"
            raise UsageError(f"The normalization statistics have shape {shapes}.", "They belong to another env.")
    for name, rms in _moments(normalizer).items():
        rms.mean = np.array(statistics[f"{name}.mean"])
        rms.var = np.array(statistics[f"{name}.var"])
        rms.count = float(statistics[f"{name}.count"])
