"""What N returns say about an agent."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one evaluation, in the order of their seeds.

    :ivar returns: undiscounted sums of the env's own rewards
    :ivar lengths: steps of the env before frame-skipping wrappers
    :ivar successes: ``is_success`` of each episode's last step; None where the env does not say
    :ivar seeds: the reset seed of each episode
    :ivar cut: how many were ended because they went on and the env sets no limit
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    successes: tuple[bool, ...] | None
    seeds: tuple[int, ...]
    deterministic: bool
    cut: int = 0

    @property
    def mean_return(self) -> float:
        """Mean over episodes."""
        return float(np.mean(self.returns))

    @property
    def std_return(self) -> float:
        """Standard deviation over episodes (of the population, as SB3 reports it)."""
        return float(np.std(self.returns))

    @property
    def success_rate(self) -> float | None:
        """Share of successful episodes; None where the env does not say."""
        return None if self.successes is None else float(np.mean(self.successes))

    def ci95(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of the mean; None for a single episode."""
        return bootstrap_interval(self.returns)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        interval = self.ci95()
        return {
            "episodes": len(self.returns),
            "deterministic": self.deterministic,
            "mean_return": self.mean_return,
            "std_return": self.std_return,
            "ci95": list(interval) if interval else None,
            "mean_length": float(np.mean(self.lengths)),
            "success_rate": self.success_rate,
            "cut": self.cut,
            "returns": list(self.returns),
        }


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean by SciPy's bias-corrected and accelerated bootstrap (Efron 1987), 9,999 resamples.

    The resampling is seeded, so the same values give the same interval.

    :return: its ends; None for fewer than two values
    """
    from scipy.stats import bootstrap

    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2:
        return None
    if np.all(data == data[0]):
        return float(data[0]), float(data[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BCa is undefined for some near-constant data; handled below
        result = bootstrap((data,), np.mean, n_resamples=9_999, method="BCa", rng=np.random.default_rng(0))
        interval = result.confidence_interval
        if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
            plain = bootstrap((data,), np.mean, n_resamples=9_999, method="percentile", rng=np.random.default_rng(0))
            interval = plain.confidence_interval
    return float(interval.low), float(interval.high)
