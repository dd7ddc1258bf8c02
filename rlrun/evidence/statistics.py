"""Scores of several training seeds: intervals, and whether two groups differ. All of it is SciPy's.

The unit is the training seed. After Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice"
(https://arxiv.org/abs/2108.13264): interquartile mean, bootstrap over seeds, probability of improvement.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

FEW = 5  # seeds, below which a percentile bootstrap's interval is too narrow
_RESAMPLES = 9_999
_LEVEL, _POWER = 0.05, 0.8
_MOST_SEEDS = 1_000
Interval = tuple[float, float]


def interquartile_mean(scores: np.ndarray, axis: int = -1) -> Any:
    """Mean of the middle half of the scores."""
    from scipy.stats import trim_mean

    return trim_mean(scores, 0.25, axis=axis)


@dataclass(frozen=True)
class Summary:
    """What N seeds reached.

    :ivar interval: 95 % bootstrap interval of the interquartile mean over seeds; None for one seed
    """

    seeds: int
    mean: float
    median: float
    iqm: float
    interval: Interval | None

    @classmethod
    def of(cls, scores: Sequence[float]) -> Summary:
        """Summarize the scores of seeds."""
        data = np.asarray(scores, dtype=np.float64)
        interval = _bootstrapped((data,), interquartile_mean) if len(data) > 1 else None
        return cls(len(data), float(data.mean()), float(np.median(data)), float(interquartile_mean(data)), interval)


@dataclass(frozen=True)
class Comparison:
    """Two groups of seeds.

    :ivar difference: mean of the second group minus mean of the first
    :ivar interval: 95 % bootstrap interval of the difference, which is wider where several are made; None where a group
        has one seed
    :ivar p_value: of a permutation test of the difference (two-sided, corrected for the number of comparisons)
    :ivar improvement: probability that a seed of the second group does better than one of the first (ties count half)
    :ivar seeds_needed: about how many seeds a group would need to show a difference as large as the one seen, with a
        probability of 80 %; None when none was seen, or more than 1,000 would be
    """

    first: str
    second: str
    seeds: tuple[int, int]
    difference: float
    interval: Interval | None
    p_value: float
    improvement: float
    seeds_needed: int | None
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compare(first: str, one: Sequence[float], second: str, other: Sequence[float], comparisons: int = 1) -> Comparison:
    """Compare two groups of seeds.

    The test permutes seeds between the groups (scipy.stats.permutation_test), so that it calls equal groups different
    in no more than 5 % of all cases, whatever the scores are distributed like.

    :param first: the name of the first group, whose scores are ``one``
    :param comparisons: how many are made in all; the p-value is multiplied by it, and the interval's share of misses is
        divided by it (Bonferroni)
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    difference = float(b.mean() - a.mean())
    p_value = min(1.0, _p_value(a, b, comparisons) * comparisons)
    needed = _seeds_needed(a, b, comparisons)
    return Comparison(
        first=first,
        second=second,
        seeds=(len(a), len(b)),
        difference=difference,
        interval=_bootstrapped((b, a), _difference, comparisons) if min(len(a), len(b)) > 1 else None,
        p_value=p_value,
        improvement=_probability_of_improvement(a, b),
        seeds_needed=needed,
        verdict=_verdict(first, second, a, b, p_value, needed, comparisons),
    )


def _difference(b: np.ndarray, a: np.ndarray, axis: int = -1) -> Any:
    return np.mean(b, axis=axis) - np.mean(a, axis=axis)


def _p_value(a: np.ndarray, b: np.ndarray, comparisons: int) -> float:
    from scipy.stats import permutation_test

    if np.all(np.concatenate([a, b]) == a[0]) or min(len(a), len(b)) < 2:
        return 1.0
    rng = np.random.default_rng(0)
    # The smallest p-value of so many permutations must be able to survive its correction.
    draws = max(_RESAMPLES, 400 * comparisons)
    result = permutation_test((b, a), _difference, vectorized=True, n_resamples=draws, batch=_RESAMPLES + 1, rng=rng)
    return float(result.pvalue)


def _probability_of_improvement(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(b, a).statistic / (len(a) * len(b)))


def _bootstrapped(data: tuple[np.ndarray, ...], statistic: Callable[..., Any], comparisons: int = 1) -> Interval:
    """95 % percentile bootstrap interval, one of so many; seeds are resampled within their group."""
    from scipy.stats import bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores that are all the same
        rng = np.random.default_rng(0)
        how = {"n_resamples": _RESAMPLES, "method": "percentile", "vectorized": True, "rng": rng}
        found = bootstrap(data, statistic, confidence_level=1 - _LEVEL / comparisons, **how)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _seeds_needed(a: np.ndarray, b: np.ndarray, comparisons: int) -> int | None:
    """Seeds a group for a two-sample t-test at 5 %, corrected, to find the difference that was seen: power 80 %."""
    from scipy.stats import nct, t

    if min(len(a), len(b)) < 2:
        return None
    spread = math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
    effect = abs(float(b.mean() - a.mean())) / spread if spread else math.inf
    if effect == 0 or not math.isfinite(effect):
        return None
    sizes = np.arange(2, _MOST_SEEDS + 1)
    freedom, shift = 2 * sizes - 2, effect * np.sqrt(sizes / 2)
    power = nct.sf(t.isf(_LEVEL / comparisons / 2, freedom), freedom, shift)
    enough = sizes[power >= _POWER]
    return int(enough[0]) if len(enough) else None


def _fewest_seeds(comparisons: int) -> int:
    """Seeds a group below which no permutation test can find anything."""
    return next(n for n in itertools.count(2) if 2 / math.comb(2 * n, n) * comparisons <= _LEVEL)


def _verdict(
    first: str, second: str, a: np.ndarray, b: np.ndarray, p_value: float, needed: int | None, comparisons: int
) -> str:
    seeds = f"{len(a)} and {len(b)} seeds" if len(b) > 1 else f"{len(a)} and 1 seed"
    p = f"p = {p_value:.2g}" + (f", corrected for {comparisons} comparisons" if comparisons > 1 else "")
    if p_value <= _LEVEL:
        better, worse = (second, first) if b.mean() > a.mean() else (first, second)
        return f"{better} is better than {worse} ({seeds}, {p})."
    if np.all(np.concatenate([a, b]) == a[0]):
        return f"No difference: every seed of {first} and {second} has the same score."
    fewest = _fewest_seeds(comparisons)
    smallest = 2 / math.comb(len(a) + len(b), len(a)) * comparisons
    if min(len(a), len(b)) < 2 or smallest > _LEVEL:
        pair = f"between {first} and {second}"
        return f"No difference {pair} can be shown with {seeds}: at least {fewest} of each are needed for that."
    text = f"No difference between {first} and {second} can be shown with {seeds} ({p})"
    if needed is None:
        return f"{text}; more than {_MOST_SEEDS:,} would be needed for one as small as this."
    return f"{text}; about {max(needed, len(a) + 1, len(b) + 1)} of each would be needed for one as large as seen."
