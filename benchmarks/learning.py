"""Do accelerated runs learn what plain SB3 learns? Ten seeds of each, on five tasks: intervals, a test, and a figure.

    python benchmarks/learning.py [--only Pendulum] [--jobs 2] [--run-dir runs-learning] [--write]

Trains with ``accelerate: auto`` and ``off``, everything else the same, and compares final evaluations. Runs that are
there are not trained again. Exits with 1 when a two-sided permutation test over the seeds rejects at 5 %, or where the
intervals do not overlap. ``--write`` puts table and figure into docs/performance.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from page import write_into_page

import rlrun
from rlrun.evidence.comparing import Compared
from rlrun.evidence.curves import draw_on, group_curve

FIGURE = Path(__file__).parent.parent / "docs" / "images" / "learning.png"
ROWS = (("CartPole-v1/ppo", 50_000), ("LunarLander-v3/ppo", 200_000), ("Pendulum-v1/tqc", 5_000))
ROWS += (("PandaReach-v3/tqc", 5_000), ("PandaReachDense-v3/a2c", 40_000))
SEEDS, POINTS, EPISODES = range(10), 10, 10
CHOICES = ("off", "auto")


def train(config: str, timesteps: int, choice: str, runs: Path, jobs: int | None) -> Path:
    """A group of seeds; what is there is gone on from.

    :return: its folder
    """
    settings = {
        "accelerate": choice,
        "evaluation.every": timesteps // POINTS,
        "evaluation.episodes": EPISODES,
        "checkpoint.every": 0,
        "trackers": [],
    }
    place: dict[str, Any] = {"run_dir": runs, "name": choice, "resume": True}
    trained = rlrun.train_seeds(config, SEEDS, jobs=jobs, timesteps=timesteps, overrides=settings, **place)
    if trained.failures:
        sys.exit(f"{config} {choice}: {trained.failures}")
    return trained.group.path


def cells(config: str, timesteps: int, compared: Compared) -> tuple[str, ...]:
    """A line of the table."""
    plain, ours = (compared.summaries[choice] for choice in CHOICES)
    (pair,) = compared.comparisons
    shown = [f"{s.iqm:.1f} [{s.interval[0]:.1f}, {s.interval[1]:.1f}]" for s in (plain, ours) if s.interval]
    return f"`{config}`", f"{timesteps:,}", *shown, f"{pair.p_value:.2f}", str(ours.seeds)


def are_equal(compared: Compared) -> bool:
    """Whether nothing speaks for a difference."""
    low, high = zip(*(compared.summaries[choice].interval or (0.0, 0.0) for choice in CHOICES), strict=True)
    return compared.comparisons[0].p_value >= 0.05 and max(low) <= min(high)


def main() -> None:
    """Train, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, help="runs at a time")
    parser.add_argument("--run-dir", type=Path, default=Path("runs-learning"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    rows = [row for row in ROWS if given.only in row[0]]
    figure = Figure(figsize=(10, 3.6 * -(-len(rows) // 2)), layout="constrained")
    FigureCanvasAgg(figure)
    lines, equal = [], True
    for index, (config, timesteps) in enumerate(rows):
        folders = {choice: train(config, timesteps, choice, given.run_dir, given.jobs) for choice in CHOICES}
        compared = rlrun.compare(*(f"{choice}={folder}" for choice, folder in folders.items()))
        equal = equal and are_equal(compared)
        lines.append(cells(config, timesteps, compared))
        axes = figure.add_subplot(-(-len(rows) // 2), 2, index + 1)
        draw_on(axes, [curve for g in compared.groups if (curve := group_curve(g, "evaluation"))], "mean return")
        axes.set_title(config)
    head = ("config", "timesteps", "plain SB3", "accelerated", "p", "seeds")
    text = "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])
    print(text)
    if given.write:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=110)
        write_into_page("learning", text)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
