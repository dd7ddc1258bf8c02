"""Learning curves of groups, with intervals over seeds, as pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlrun.errors import UsageError
from rlrun.evidence.scores import MUCH_LONGER, Curve, Seeds, read_clock, read_curve
from rlrun.evidence.statistics import interquartile_mean
from rlrun.runs.files import write_out

# Okabe and Ito's colours, which people with any colour vision tell apart; and a line style each, for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
KINDS = {
    "evaluation": "evaluation return",
    "training": "training return (mean of up to 100 episodes)",
    "success": "success rate",
}
_POINTS = 400
_RESAMPLES = 1_000
_MOST_NUMBERS = 10_000_000  # in memory at a time
FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class GroupCurve:
    """The curve of a group on one grid.

    :ivar x: timesteps, or hours of training, up to where the shortest of its seeds goes, (points,)
    :ivar centre: interquartile mean over seeds; the value itself for one seed
    :ivar low: lower end of the 95 % bootstrap interval over seeds; None for one seed
    :ivar longest: where the longest of its seeds ends
    """

    name: str
    seeds: int
    x: np.ndarray
    centre: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    longest: float

    @property
    def ends_early(self) -> bool:
        """Whether some of its seeds go on for much longer than it is drawn."""
        return bool(self.longest > self.x[-1] * MUCH_LONGER)


def group_curve(group: Seeds, what: str, axis: str = "timesteps") -> GroupCurve | None:
    """The curves of a group's seeds on one grid, read between their points; None when there are none.

    :param axis: ``timesteps``, or ``hours``: how long the seeds took to these timesteps, on average
    """
    found = {run.path: curve for run in group.runs if (curve := read_curve(run, what)) is not None}
    clocks = {path: clock for path in found if axis == "hours" and (clock := read_clock(path)) is not None}
    curves = [found[path] for path in (clocks if axis == "hours" else found)]
    if not curves:
        return None
    begin = max(curve.x[0] for curve in curves)
    end, longest = (choose(curve.x[-1] for curve in curves) for choose in (min, max))
    if end < begin:
        return None
    grid = _grid(curves, begin, end)
    values = np.stack([np.interp(grid, curve.x, curve.values) for curve in curves])
    centre = np.asarray(interquartile_mean(values, axis=0))
    low, high = _interval(values) if len(curves) > 1 else (None, None)
    if axis == "hours":
        grid = np.mean([np.interp(grid, clock.x, clock.values) for clock in clocks.values()], axis=0)
        longest = grid[-1] * longest / end
    return GroupCurve(group.name, len(curves), grid, centre, low, high, float(longest))


def _interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of the interquartile mean over seeds.

    :param values: (seeds, points)
    :return: its lower and upper ends, (points,) each
    """
    chosen = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    blocks = np.array_split(values, math.ceil(values.size * _RESAMPLES / _MOST_NUMBERS), axis=1)
    resampled = [np.asarray(interquartile_mean(block[chosen], axis=1)) for block in blocks if block.size]
    low, high = np.percentile(np.concatenate(resampled, axis=1), (2.5, 97.5), axis=0)
    return low, high


def _grid(curves: Sequence[Curve], begin: float, end: float) -> np.ndarray:
    """The points that the curves have, or as many as can be seen."""
    points = np.unique(np.concatenate([curve.x for curve in curves]))
    points = points[(points >= begin) & (points <= end)]
    return points if len(points) <= _POINTS else np.linspace(begin, end, _POINTS)


def draw(groups: Sequence[Seeds], out: Path, what: str = "evaluation", axis: str = "timesteps") -> list[GroupCurve]:
    """Draw a learning curve for each group.

    :param out: a PNG, SVG or PDF
    :param what: ``evaluation``, ``training`` or ``success``
    :param axis: ``timesteps`` or ``hours``
    :return: a curve of each group; without points where it recorded nothing of the kind
    :raises UsageError: when there is nothing to draw
    """
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"{out} is no name for a picture.", f"Let it end in {', '.join(FORMATS)}.")
    found = [(group, group_curve(group, what, axis)) for group in groups]
    curves = [curve for _, curve in found if curve is not None]
    if not curves and axis == "hours" and any(group_curve(group, what) is not None for group in groups):
        raise UsageError("None of these runs has a clock, or took a second.", "--x timesteps draws them.")
    if not curves:
        hint = "Evaluations need evaluation.every in the config; --what training draws the training episodes."
        raise UsageError(f"None of these runs has a curve of its {KINDS[what]}.", hint)
    _save(curves, KINDS[what], out, axis)
    nothing = np.zeros(0)
    return [curve or GroupCurve(group.name, 0, nothing, nothing, None, None, 0.0) for group, curve in found]


def _save(curves: Sequence[GroupCurve], label: str, out: Path, axis: str) -> None:
    figure, axes = new_figure((8, 4.5))
    draw_on(axes, curves, label, axis)
    save_figure(figure, out)


def new_figure(size: tuple[float, float]) -> tuple[Any, Any]:
    """matplotlib's figure, which needs no display, and its axes.

    :param size: width and height in inches
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def save_figure(figure: Any, out: Path) -> None:
    """Write a figure whole, in the format that the file's name says."""
    content = io.BytesIO()
    figure.savefig(content, format=out.suffix.lower().removeprefix("."), dpi=150)
    write_out(out, content.getvalue())


def draw_on(axes: Any, curves: Sequence[GroupCurve], label: str, x_label: str = "timesteps") -> None:
    """Draw curves on matplotlib's axes.

    :param label: of the y axis
    """
    from matplotlib.ticker import EngFormatter

    for index, curve in enumerate(curves):
        colour, style = COLOURS[index % len(COLOURS)], STYLES[index // len(COLOURS) % len(STYLES)]
        seeds = "1 seed" if curve.seeds == 1 else f"{curve.seeds} seeds"
        marker = "o" if len(curve.x) <= 20 else ""
        axes.plot(
            curve.x,
            curve.centre,
            color=colour,
            linestyle=style,
            marker=marker,
            markersize=3,
            label=f"{curve.name} ({seeds})",
        )
        if curve.low is not None and curve.high is not None and len(curve.x) == 1:
            reach = np.stack([curve.centre - curve.low, curve.high - curve.centre])
            axes.errorbar(curve.x, curve.centre, yerr=reach, color=colour, capsize=4)
        elif curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    if x_label == "timesteps":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(x_label)
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    of_seeds = "interquartile mean, 95 % interval over seeds" if any(curve.seeds > 1 for curve in curves) else None
    axes.legend(title=of_seeds, fontsize="small", title_fontsize="small")
