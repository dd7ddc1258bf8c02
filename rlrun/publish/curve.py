"""The learning curve of a run as a picture."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from rlrun.runs.directory import RunDirectory

_STRETCHES = 50


def evaluation_means(run: RunDirectory) -> dict[int, list[float]]:
    """Returns of the evaluations during training, by timesteps; empty when there were none."""
    found: dict[int, list[float]] = defaultdict(list)
    try:
        with (run.path / "evaluations.csv").open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                found[int(row["timesteps"])].append(float(row["return"]))
    except (OSError, ValueError, KeyError):
        return {}
    return dict(found)


def _training_returns(run: RunDirectory) -> dict[int, list[float]]:
    """Returns of training episodes, put together in up to 50 stretches by the timesteps at their ends."""
    try:
        with (run.path / "episodes.csv").open(newline="", encoding="utf-8") as stream:
            rows = [(int(row["timesteps"]), float(row["return"])) for row in csv.DictReader(stream)]
    except (OSError, ValueError, KeyError):
        return {}
    size = max(1, -(-len(rows) // _STRETCHES))
    stretches = (rows[start : start + size] for start in range(0, len(rows), size))
    return {stretch[-1][0]: [value for _, value in stretch] for stretch in stretches}


def draw_curve(run: RunDirectory, out: Path) -> bool:
    """Draw mean return (and its standard deviation over episodes) against timesteps into a PNG.

    :return: whether there was anything to draw
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    evaluations = evaluation_means(run)
    what = "evaluation return (mean and std over episodes)"
    if len(evaluations) < 2:
        evaluations, what = _training_returns(run), "training return (mean and std over episodes)"
    if len(evaluations) < 2:
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    steps = sorted(evaluations)
    means = [sum(evaluations[s]) / len(evaluations[s]) for s in steps]
    deviations = [
        (sum((value - mean) ** 2 for value in evaluations[s]) / len(evaluations[s])) ** 0.5
        for s, mean in zip(steps, means, strict=True)
    ]
    axes.plot(steps, means, marker="o", markersize=3)
    low, high = ([m + sign * d for m, d in zip(means, deviations, strict=True)] for sign in (-1, 1))
    axes.fill_between(steps, low, high, alpha=0.2, linewidth=0)
    axes.set_xlabel("timesteps")
    axes.set_ylabel(what)
    axes.set_title(f"{run.config().algo} on {run.config().env.id}")
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=120)
    return True
