"""Does curiosity lead PPO to the goal of MiniGrid's DoorKey-8x8 sooner? Seeds with it and without, and a test.

    python benchmarks/curiosity.py [--seeds 0-23] [--jobs 2] [--run-dir runs-curiosity]

An agent is there when its last 50 training episodes return 0.9 on average, with which its training ends; one that never
is counts with the whole budget. Runs that are there are not trained again.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rlrun
from rlrun.config.schema import parse_seeds
from rlrun.evidence.statistics import compare

CONFIG, BUDGET = "MiniGrid-DoorKey-8x8-v0/ppo-icm", 1_000_000
EPISODES, ENOUGH = 50, 0.9
COMMON = {
    "total_timesteps": BUDGET,
    "early_stop": {"mean_return": ENOUGH, "window": EPISODES},
    "evaluation.episodes": 0,
    "threads": 1,
}
SIDES: dict[str, dict[str, Any]] = {"icm": {}, "none": {"curiosity": None}}


def train(side: str, seeds: Sequence[int], jobs: int | None, runs: Path) -> list[rlrun.Run]:
    """The runs of one side, by seed; a group that is there is gone on with."""
    place: dict[str, Any] = {"run_dir": runs, "name": side, "resume": True}
    trained = rlrun.train_seeds(CONFIG, seeds, jobs=jobs, overrides={**COMMON, **SIDES[side]}, **place)
    if trained.failures:
        sys.exit(f"{side}: {trained.failures}")
    return [run for run in trained.runs if run.config.seed in seeds]


def timesteps_until_there(run: rlrun.Run) -> int:
    """When an agent was there; the budget if it never was."""
    last: deque[float] = deque(maxlen=EPISODES)
    with (run.path / "episodes.csv").open() as file:
        for row in csv.DictReader(file):
            last.append(float(row["return"]))
            if len(last) == EPISODES and sum(last) >= EPISODES * ENOUGH:
                return min(int(row["timesteps"]), BUDGET)
    return BUDGET


def main() -> None:
    """Train, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-23")
    parser.add_argument("--jobs", type=int, help="runs at a time")
    parser.add_argument("--run-dir", type=Path, default=Path("runs-curiosity"))
    given = parser.parse_args()
    times = dict[str, list[int]]()
    for side in SIDES:
        runs = train(side, parse_seeds(given.seeds), given.jobs, given.run_dir)
        times[side] = [timesteps_until_there(run) for run in runs]
        shown = ", ".join("never" if time == BUDGET else f"{time / 1000:.0f}k" for time in times[side])
        print(f"{side}: there after {shown}", flush=True)
    found = compare("none", times["none"], "icm", times["icm"])
    change = f"{found.difference:+.4g} with ICM, 95 % interval {found.interval}"
    print(f"timesteps until there: {change}, p = {found.p_value:.2g}")


if __name__ == "__main__":
    main()
