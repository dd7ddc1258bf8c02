"""Does curiosity lead PPO to the goal of MiniGrid's DoorKey-8x8 sooner? Seeds without it and with four kinds; tests.

    python benchmarks/curiosity.py [--seeds 12-23] [--jobs 2] [--run-dir runs-curiosity]

A run ends when its last 50 training episodes return 0.9 on average; one that never gets so far counts with the whole
budget. Settings were chosen on the seeds 100 to 104. Finished runs are not trained again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rlrun
from rlrun.config.schema import parse_seeds
from rlrun.evidence.statistics import compare

CONFIG, BUDGET = "MiniGrid-DoorKey-8x8-v0/ppo-icm", 1_000_000
COMMON = {
    "total_timesteps": BUDGET,
    "early_stop": {"mean_return": 0.9, "window": 50},
    "evaluation.episodes": 0,
    "threads": 1,
}
SIDES: dict[str, dict[str, Any]] = {
    "none": {"curiosity": None},
    "icm-episodic": {},
    "icm": {"curiosity.episodic": False},
    "rnd-episodic": {"curiosity.kind": "rnd"},
    "untrained-episodic": {"curiosity.kind": "rnd", "curiosity.learning_rate": 1e-12},  # all that is new is as new
}
PAIRS = [
    ("none", "icm-episodic"),
    ("none", "icm"),
    ("icm", "icm-episodic"),
    ("none", "rnd-episodic"),
    ("rnd-episodic", "icm-episodic"),
    ("untrained-episodic", "rnd-episodic"),
]


def train(side: str, seeds: Sequence[int], jobs: int | None, runs: Path) -> list[int]:
    """Timesteps of each seed of a side until it was good; a group that was begun is gone on with."""
    place: dict[str, Any] = {"run_dir": runs, "name": side, "resume": True}
    trained = rlrun.train_seeds(CONFIG, seeds, jobs=jobs, overrides={**COMMON, **SIDES[side]}, **place)
    if trained.failures:
        sys.exit(f"{side}: {trained.failures}")
    return [min(run.manifest["timesteps"], BUDGET) for run in trained.runs if run.config.seed in seeds]


def main() -> None:
    """Train, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="12-23")
    parser.add_argument("--jobs", type=int, help="runs at a time")
    parser.add_argument("--run-dir", type=Path, default=Path("runs-curiosity"))
    given = parser.parse_args()
    times = dict[str, list[int]]()
    for side in SIDES:
        times[side] = train(side, parse_seeds(given.seeds), given.jobs, given.run_dir)
        shown = ", ".join("never" if time == BUDGET else f"{time / 1000:.0f}k" for time in times[side])
        print(f"{side}: {shown}", flush=True)
    print(f"means, with {BUDGET:,} for never; intervals and p-values are corrected for {len(PAIRS)} comparisons:")
    for first, second in PAIRS:
        found = compare(first, times[first], second, times[second], comparisons=len(PAIRS))
        low, high = found.interval or (float("nan"), float("nan"))
        change = f"{found.difference:+,.0f} timesteps [{low:+,.0f}, {high:+,.0f}], p = {found.p_value:.2g}"
        print(f"{first} -> {second}: {change}")


if __name__ == "__main__":
    main()
