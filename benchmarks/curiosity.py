"""Does curiosity lead PPO to the goal of MiniGrid's DoorKey-8x8 sooner? Seeds with it and without, and a test.

    python benchmarks/curiosity.py [--seeds 0-11] [--jobs 2] [--run-dir runs-curiosity]

An agent is there when 45 of its last 50 training episodes reached the goal; one that never is counts with the whole
budget. Runs that are there are not trained again.
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

CONFIG, BUDGET = "MiniGrid-DoorKey-8x8-v0/ppo-icm", 400_000
SIDES: dict[str, dict[str, Any]] = {"icm": {}, "none": {"curiosity": None}}
EPISODES, ENOUGH = 50, 45


def train(side: str, seeds: Sequence[int], jobs: int | None, runs: Path) -> list[rlrun.Run]:
    """The runs of one side, by seed; a group that is there is gone on with."""
    place: dict[str, Any] = {"run_dir": runs, "name": side, "resume": True}
    trained = rlrun.train_seeds(CONFIG, seeds, jobs=jobs, overrides=SIDES[side], **place)
    if trained.failures:
        sys.exit(f"{side}: {trained.failures}")
    return [run for run in trained.runs if run.config.seed in seeds]


def timesteps_until_there(run: rlrun.Run) -> int:
    """When an agent was there; the budget if it never was."""
    last: deque[bool] = deque(maxlen=EPISODES)
    with (run.path / "episodes.csv").open() as file:
        for row in csv.DictReader(file):
            last.append(float(row["return"]) > 0)
            if sum(last) >= ENOUGH:
                return min(int(row["timesteps"]), BUDGET)
    return BUDGET


def main() -> None:
    """Train, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-11")
    parser.add_argument("--jobs", type=int, help="runs at a time")
    parser.add_argument("--run-dir", type=Path, default=Path("runs-curiosity"))
    given = parser.parse_args()
    times, returns = dict[str, list[int]](), dict[str, list[float]]()
    for side in SIDES:
        runs = train(side, parse_seeds(given.seeds), given.jobs, given.run_dir)
        times[side] = [timesteps_until_there(run) for run in runs]
        returns[side] = [run.evaluate(100, checkpoint="final").evaluation.mean_return for run in runs]
        shown = ", ".join("never" if time == BUDGET else f"{time / 1000:.0f}k" for time in times[side])
        print(f"{side}: there after {shown}")
        print(f"{side}: final agents, 100 episodes: {', '.join(f'{mean:.2f}' for mean in returns[side])}", flush=True)
    for what, values in (("timesteps until there", times), ("final mean return", returns)):
        found = compare("none", values["none"], "icm", values["icm"])
        print(f"{what}: {found.difference:+.4g} with ICM, 95 % interval {found.interval}, p = {found.p_value:.2g}")


if __name__ == "__main__":
    main()
