"""One HTML file about some runs that opens without a network: outcome, curves, video, settings, how to repeat it.

The page is ``page/report.html``, filled in by Jinja; uPlot (in the same folder) draws the curves in the browser.
"""

from __future__ import annotations

import base64
import datetime
import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlrun.config.loading import NO_ENV, dotted, leaves, read_source, validate
from rlrun.errors import UsageError, shown
from rlrun.evidence.comparing import compare_scored
from rlrun.evidence.curves import COLOURS, KINDS, STYLES, GroupCurve, group_curve
from rlrun.evidence.scores import Seed, Seeds, collect
from rlrun.evidence.statistics import Summary
from rlrun.evidence.why import why
from rlrun.runs.directory import CONFIG, RunDirectory
from rlrun.runs.files import write_out
from rlrun.runs.provenance import versions
from rlrun.runs.summary import final_result, status_of
from rlrun.words import duration, number, size

PAGE = Path(__file__).parent / "page"
_AXES = ("timesteps", "hours")
_BARS = 24
_DASHES = {"-": [], "--": [10, 5], "-.": [10, 4, 2, 4], ":": [2, 3]}
_LARGEST_VIDEO = 20_000_000  # bytes that are put into the page
# Filled in by rlrun where the config leaves them open.
_DERIVED = frozenset(
    {"device", "threads", "log_every", "normalize.gamma", "evaluation.every", "checkpoint.every"}
    | {"evaluation.deterministic"}
)


@dataclass(frozen=True)
class Table:
    """A table of the page.

    :ivar marked: indices of rows that stand out
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    marked: Sequence[int] = ()


def write_report(selected: Sequence[str], root: Path, out: Path) -> Path:
    """Write the page.

    :param selected: runs and groups; see :func:`rlrun.evidence.scores.collect`
    :param root: where runs are looked for by name
    :raises UsageError: when there are none, or the file cannot be written
    """
    return write_page(collect(selected, root), out)


def write_page(groups: Sequence[Seeds], out: Path) -> Path:
    """Write the page about some groups.

    :raises UsageError: when the file cannot be written
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out} is no name for a page.", "Let it end in .html.")
    pages = Environment(loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = pages.get_template("report.html").render(**_contents(groups), **_assets())
    write_out(out, text)
    return out


def _assets() -> dict[str, Any]:
    from markupsafe import Markup

    files = {"css": "report.css", "js": "report.js", "uplot_css": "uPlot.min.css", "uplot_js": "uPlot.iife.min.js"}
    return {name: Markup((PAGE / file).read_text(encoding="utf-8")) for name, file in files.items()}  # noqa: S704


def _contents(groups: Sequence[Seeds]) -> dict[str, Any]:
    compared = compare_scored(groups) if any(group.scores for group in groups) else None
    runs = [RunDirectory(run.path) for group in groups for run in group.runs if (run.path / CONFIG).is_file()]
    charts = _charts(groups)
    now = datetime.datetime.now(datetime.timezone.utc)
    count = sum(len(group.runs) for group in groups)
    return {
        "version": versions()["rlrun"],
        "title": groups[0].name if len(groups) == 1 else f"{len(groups)} groups of runs",
        "subtitle": f"{count} {'run' if count == 1 else 'runs'}, {now:%d %B %Y, %H:%M} UTC",
        "outcome": _outcome(groups, compared),
        "warnings": compared.warnings if compared else [],
        "scores": _scores(compared),
        "charts": charts,
        "axes": [axis for axis in _AXES if any(chart["axes"][axis] for chart in charts)],
        "histograms": _histograms(groups),
        "videos": [video for group in groups if (video := _video(group)) is not None],
        "runs": _runs(groups),
        "findings": [f"{run.label}: {finding.sentence}" for run in runs for finding in why(run)],
        "settings": _settings(groups),
        "configs": [config for group in groups if (config := _whole_config(group)) is not None],
        "machine": _machine(runs),
        "commands": _commands(runs),
    }


def _outcome(groups: Sequence[Seeds], compared: Any) -> list[str]:
    if compared is None:
        return ["No run has been evaluated at its end yet."]
    if compared.comparisons:  # the rest is in the table
        return [pair.verdict for pair in compared.comparisons]
    return [_reached(name, summary) for name, summary in compared.summaries.items()]


def _reached(name: str, summary: Summary) -> str:
    if summary.interval is None:
        return f"{name} reaches a mean return of {number(summary.mean)}, with one seed."
    low, high = map(number, summary.interval)
    reached = f"an interquartile mean return of {number(summary.iqm)} over {summary.seeds} seeds"
    return f"{name} reaches {reached}, 95 % interval [{low}, {high}]."


def _scores(compared: Any) -> Table:
    columns = ("group", "seeds", "mean", "median", "IQM", "95 % interval")
    summaries = compared.summaries.items() if compared else ()
    return Table(
        columns,
        [(name, s.seeds, number(s.mean), number(s.median), number(s.iqm), _span(s.interval)) for name, s in summaries],
    )


def _span(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"[{number(interval[0])}, {number(interval[1])}]"


# -- curves


def _charts(groups: Sequence[Seeds]) -> list[dict[str, Any]]:
    """What the browser draws: a chart for each kind of curve that was recorded, and for each env."""
    envs = list(dict.fromkeys(group.env for group in groups))
    found = []
    for what, env in itertools.product(KINDS, envs):
        of_env = [(index, group) for index, group in enumerate(groups) if group.env == env]
        axes = {
            axis: _aligned([(index, curve) for index, g in of_env if (curve := group_curve(g, what, axis)) is not None])
            for axis in _AXES
        }
        if axes["timesteps"] is not None:
            label = KINDS[what] + (f", {env or 'other logs'}" if len(envs) > 1 else "")
            found.append({"what": f"{what} {env}", "label": label, "axes": axes})
    return found


def _aligned(drawn: Sequence[tuple[int, GroupCurve]]) -> dict[str, Any] | None:
    """The curves over one horizontal axis, as uPlot wants them; null where a curve has nothing.

    :param drawn: the curves, each with the index of its group, which has a colour
    """
    if not drawn:
        return None
    x = np.unique(np.concatenate([curve.x for _, curve in drawn]))
    return {
        "x": _plain(x),
        "groups": [
            {
                "name": f"{curve.name} ({curve.seeds} {'seed' if curve.seeds == 1 else 'seeds'})",
                "colour": _colour(index),
                "dash": _DASHES[STYLES[index // len(COLOURS) % len(STYLES)]],
                "centre": _at(x, curve, curve.centre),
                "low": None if curve.low is None else _at(x, curve, curve.low),
                "high": None if curve.high is None else _at(x, curve, curve.high),
            }
            for index, curve in drawn
        ],
    }


def _colour(index: int) -> str:
    """Black is the text's colour, which is not black on a dark ground."""
    colour = COLOURS[index % len(COLOURS)]
    return "text" if colour == "#000000" else colour


def _at(x: np.ndarray, curve: GroupCurve, values: np.ndarray) -> list[float | None]:
    return _plain(np.interp(x, curve.x, values, left=np.nan, right=np.nan))


def _plain(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, with the digits that a screen can show."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]


# -- episodes and films


def _histograms(groups: Sequence[Seeds]) -> list[dict[str, Any]]:
    returns = [np.asarray([r for run in group.runs for r in _final_returns(run)]) for group in groups]
    found = []
    for index, (group, values) in enumerate(zip(groups, returns, strict=True)):
        if not len(values):
            continue
        together = np.concatenate([v for g, v in zip(groups, returns, strict=True) if g.env == group.env])
        low, high = float(together.min()), float(together.max())
        edges = np.linspace(low, high, _BARS + 1) if high > low else np.array([low - 0.5, low + 0.5])
        colour = _colour(index)
        found.append(
            {
                "name": group.name,
                "episodes": len(values),
                "colour": "var(--text)" if colour == "text" else colour,
                "low": number(low),
                "high": number(high),
                "bars": _bars(np.histogram(values, edges)[0], edges),
            }
        )
    return found


def _bars(counts: np.ndarray, edges: np.ndarray) -> list[dict[str, Any]]:
    """Rectangles in a picture of 320 x 150, whose bottom line is at 122."""
    width = 304 / len(counts)
    return [
        {
            "x": round(8 + index * width, 1),
            "y": round(122 - 110 * count / counts.max(), 1),
            "width": round(width - 1, 1),
            "height": round(110 * count / counts.max(), 1),
            "title": f"{number(edges[index])} to {number(edges[index + 1])}: {count} episodes",
        }
        for index, count in enumerate(counts.tolist())
        if count
    ]


def _final_returns(run: Seed) -> list[float]:
    if not (run.path / CONFIG).is_file():
        return []
    values = (final_result(RunDirectory(run.path)) or {}).get("returns")
    return [float(value) for value in values or () if isinstance(value, int | float) and np.isfinite(value)]


def _video(group: Seeds) -> dict[str, Any] | None:
    """The newest film of a group."""
    films = [film for run in group.runs for film in _films(run.path)]
    if not films:
        return None
    film = max(films, key=lambda path: path.stat().st_mtime)
    found = {"name": f"{group.name}: {film.stem}", "path": str(film), "size": size(film.stat().st_size), "source": ""}
    if film.stat().st_size <= _LARGEST_VIDEO:
        found["source"] = "data:video/mp4;base64," + base64.b64encode(film.read_bytes()).decode()
    return found


def _films(run: Path) -> Iterable[Path]:
    return [*run.glob("videos/*.mp4"), *run.glob("package/*.mp4")] if run.is_dir() else []


# -- what was run, where and how


def _runs(groups: Sequence[Seeds]) -> Table:
    rows = [_run_cells(group, run) for group in groups for run in group.runs]
    return Table(("group", "run", "seed", "state", "timesteps", "time", "score"), rows)


def _run_cells(group: Seeds, run: Seed) -> tuple[Any, ...]:
    score = "-" if run.score is None else number(run.score)
    if not (run.path / CONFIG).is_file():
        length = "-" if run.timesteps is None else f"{run.timesteps:,}"
        return group.name, run.path, "-" if run.seed is None else run.seed, "-", length, "-", score
    directory = RunDirectory(run.path)
    manifest = directory.manifest()
    steps, seconds = manifest.get("timesteps") or 0, manifest.get("seconds") or 0.0
    return group.name, directory.label, run.seed, status_of(directory), f"{steps:,}", duration(seconds), score


def _settings(groups: Sequence[Seeds]) -> Table:
    """What is not the default, a column a group."""
    known = [group for group in groups if group.runs and group.runs[0].config.get("algo")]
    values = [dict(group.runs[0].config) for group in known]
    defaults = [_defaults(v) for v in values]
    keys = list(dict.fromkeys(key for v in values for key in v))
    unequal = [key for key in keys if len({shown(v.get(key)) for v in values}) > 1]
    wanted = [
        key
        for key in keys
        if key in unequal
        or (key not in _DERIVED and any(v.get(key) != d.get(key) for v, d in zip(values, defaults, strict=True)))
    ]
    rows = [(key, *(_value(v[key]) if key in v else "default" for v in values)) for key in wanted]
    marked = [row for row, key in enumerate(wanted) if key in unequal and len(known) > 1]
    return Table(("setting", *(group.name for group in known)), rows, marked)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def _whole_config(group: Seeds) -> dict[str, str] | None:
    """The config.yaml of a group's first run that has one."""
    file = next((run.path / CONFIG for run in group.runs if (run.path / CONFIG).is_file()), None)
    return None if file is None else {"name": group.name, "text": file.read_text(encoding="utf-8", errors="replace")}


def _defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config that says no more than it must."""
    least = {"algo": values["algo"], "env": {"id": values.get("env.id", NO_ENV)}, "total_timesteps": 1}
    config, _ = validate(read_source(least))
    plain = config.model_dump(by_alias=True, mode="json") if config is not None else {}
    found = {dotted(path): value for path, value in leaves(plain)}
    return {key: value for key, value in found.items() if key not in ("algo", "env.id", "total_timesteps")}


def _machine(runs: Sequence[RunDirectory]) -> Table:
    """Hardware and versions; one column where all runs have the same."""
    facts = [_facts(run) for run in runs]
    columns = list({tuple(fact.items()): (run.label, fact) for run, fact in zip(runs, facts, strict=True)}.values())
    keys = list(dict.fromkeys(key for _, fact in columns for key in fact))
    names = ["all runs"] if len(columns) == 1 else [label for label, _ in columns]
    return Table(("", *names), [(key, *(fact.get(key, "-") for _, fact in columns)) for key in keys])


def _facts(run: RunDirectory) -> dict[str, str]:
    manifest = run.manifest()
    hardware, git = manifest.get("hardware") or {}, manifest.get("git") or {}
    memory = hardware.get("memory")
    facts = {
        "processor": f"{hardware.get('cpu', '?')}, {hardware.get('cores', '?')} cores",
        "memory": size(memory) if isinstance(memory, int | float) else "",
        "GPU": str(hardware.get("gpu") or ""),
        "system": str(hardware.get("system", "")),
        "git": f"{str(git.get('commit'))[:12]}{' with uncommitted changes' if git.get('dirty') else ''}" if git else "",
        **{str(name): str(version) for name, version in (manifest.get("versions") or {}).items()},
    }
    return {name: value for name, value in facts.items() if value}


def _commands(runs: Sequence[RunDirectory]) -> list[str]:
    """Commands that train the same again, and look at it more closely."""
    trained = [f"rlrun train --config {shlex.quote(str(run.path / CONFIG))}" for run in runs]
    looked = [f"rlrun eval {shlex.quote(str(run.path))} --episodes 100" for run in runs[:1]]
    return [*trained, *looked]
