"""Comparisons with known answers: equal groups, groups that differ, too few seeds."""

from __future__ import annotations

import numpy as np
import pytest

from rlrun.evidence.statistics import Summary, compare, interquartile_mean


def test_groups_from_one_distribution_are_called_different_in_no_more_than_five_percent():
    """Two hundred comparisons of five skewed scores each: 500 for most seeds, less for some, as on CartPole."""
    rng = np.random.default_rng(1)

    def scores() -> list[float]:
        return np.where(rng.random(5) < 0.5, 500.0, rng.uniform(100, 500, 5)).tolist()

    different = sum(compare("a", scores(), "b", scores()).p_value <= 0.05 for _ in range(200))
    assert different <= 18  # 10 are expected at most; more than 18 has a probability below 1 %


def test_groups_that_differ_are_called_so():
    rng = np.random.default_rng(2)
    found = [compare("a", rng.normal(100, 10, 5), "b", rng.normal(130, 10, 5)) for _ in range(50)]
    assert sum(pair.p_value <= 0.05 for pair in found) >= 45
    assert all("b is better than a" in pair.verdict for pair in found if pair.p_value <= 0.05)
    worse = compare("a", [130, 131, 129, 133, 128], "b", [100, 103, 99, 98, 104])
    assert worse.verdict.startswith("a is better than b (5 and 5 seeds, p = 0.00")
    assert worse.improvement == 0.0


def test_the_seeds_that_would_be_needed_are_those_of_the_t_test():
    """Cohen 1988, table 2.4.1: 64 in each group for an effect of 0.5 with a power of 80 %, 26 for 0.8."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=40)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    for effect, needed in ((0.5, 64), (0.8, 26)):
        assert compare("a", noise, "b", noise + effect).seeds_needed == needed


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ([500.0] * 5, [500.0] * 5, "every seed of a and b has the same score"),
        ([1.0, 2.0, 3.0], [7.0, 8.0, 9.0], "at least 4 of each are needed"),
        ([1.0], [2.0], "at least 4 of each are needed"),
        ([1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, 4.5], "about "),
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], "more than 1,000 would be needed"),
    ],
)
def test_what_cannot_be_shown_is_said(one: list[float], other: list[float], words: str):
    assert words in compare("a", one, "b", other).verdict


def test_more_comparisons_ask_for_more():
    one, other = [1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]
    alone, among = compare("a", one, "b", other), compare("a", one, "b", other, comparisons=10)
    assert among.p_value == pytest.approx(10 * alone.p_value)
    assert "is better" in alone.verdict
    assert "is better" not in among.verdict


def test_ties_count_half_for_improvement():
    assert compare("a", [1.0, 2.0], "b", [1.0, 2.0]).improvement == 0.5
    assert compare("a", [1.0, 2.0], "b", [2.0, 3.0]).improvement == pytest.approx(3.5 / 4)


def test_the_interquartile_mean_leaves_a_quarter_out_on_each_side():
    scores = np.array([0.0, 10.0, 20.0, 1000.0])
    assert interquartile_mean(scores) == 15.0
    summary = Summary.of(scores)
    assert (summary.mean, summary.median, summary.iqm) == (257.5, 15.0, 15.0)
    assert Summary.of([3.0]).interval is None
    low, high = Summary.of(np.random.default_rng(0).normal(50, 5, 20)).interval or (0, 0)
    assert 47 < low < 50 < high < 53
