"""What a matrix shows: a table, verdicts, a report."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlrun.console import note
from rlrun.evidence.comparing import NARROW, Compared, compare_scored
from rlrun.evidence.report import write_page
from rlrun.evidence.scores import Seed, Seeds, comparable, read_seed
from rlrun.evidence.statistics import Comparison, Summary
from rlrun.matrices.schema import Cell, Matrix
from rlrun.matrices.whereabouts import results_folder, untrained_file
from rlrun.runs.directory import RunDirectory
from rlrun.runs.files import write_json, write_whole
from rlrun.runs.groups import Group
from rlrun.words import duration

COLUMNS = ("cell", "trains", "timesteps", "seeds", "mean ± over seeds", "IQM [95 % interval]", "time a seed")
_VERSIONS = ("rlrun", "torch", "stable-baselines3", "sb3-contrib", "gymnasium")


@dataclass(frozen=True)
class Row:
    """What the seeds of a cell reached.

    :ivar summary: over the seeds that have a score; None while none has
    :ivar timesteps: that a seed was trained for, the most of them; 0: untrained
    :ivar seconds: that training a seed took, on average
    """

    cell: Cell
    seeds: Seeds
    summary: Summary | None
    timesteps: int
    seconds: float

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for fewer than two."""
        return statistics.stdev(self.seeds.scores) if len(self.seeds.scores) > 1 else None

    def words(self) -> tuple[str, ...]:
        """A row of the table."""
        trains = f"{self.cell.config.algo} on {self.cell.config.env.id}"
        head = (self.cell.name, trains, f"{self.timesteps:,}" if not self.cell.is_untrained else "untrained")
        took = "" if self.cell.is_untrained else duration(self.seconds)
        if self.summary is None:
            return (*head, "0", "", "", took)
        digits = 1 if abs(self.summary.mean) >= 10 else 2
        spread = "" if self.spread is None else f" ± {self.spread:.{digits}f}"
        span = "" if self.summary.interval is None else " [{:.{d}f}, {:.{d}f}]".format(*self.summary.interval, d=digits)
        return (
            *head,
            str(self.summary.seeds),
            f"{self.summary.mean:.{digits}f}{spread}",
            f"{self.summary.iqm:.{digits}f}{span}",
            took,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        summary = self.summary
        numbers: dict[str, Any] = {}
        if summary:
            numbers = {"mean": summary.mean, "std": self.spread, "median": summary.median}
            numbers |= {"iqm": summary.iqm, "ci95": summary.interval}
        return {
            "config": self.cell.written,
            "algo": self.cell.config.algo,
            "env": self.cell.config.env.id,
            "untrained": self.cell.is_untrained,
            "timesteps": self.timesteps,
            "seconds": self.seconds,
            **numbers,
            "runs": [{"run": str(run.path), "seed": run.seed, "score": run.score} for run in self.seeds.runs],
        }


@dataclass(frozen=True)
class Results:
    """What a matrix shows.

    :ivar compared: cells with each other, where they play the same env; None when none has a score
    :ivar missing: names of the runs that have no score
    :ivar page: the table and the verdicts as Markdown
    :ivar report: the HTML report; None when there is none
    """

    rows: tuple[Row, ...]
    compared: Compared | None
    missing: tuple[str, ...]
    page: Path
    report: Path | None = None

    @property
    def verdicts(self) -> dict[str, list[str]]:
        """A sentence for each pair of cells, by env; what is said of several pairs alike stands once."""
        pairs = self._comparisons.items()
        return {env: list(dict.fromkeys(pair.verdict for pair in found)) for env, found in pairs}

    @property
    def _comparisons(self) -> dict[str, list[Comparison]]:
        envs = {row.seeds.name: row.cell.config.env.id for row in self.rows}
        found: dict[str, list[Comparison]] = {}
        for pair in self.compared.comparisons if self.compared else ():
            found.setdefault(envs[pair.first], []).append(pair)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "cells": {row.cell.name: row.as_dict() for row in self.rows},
            "comparisons": {env: [pair.as_dict() for pair in found] for env, found in self._comparisons.items()},
            "verdicts": self.verdicts,
            "missing": list(self.missing),
            "results": str(self.page),
            "report": None if self.report is None else str(self.report),
        }


def write_results(
    matrix: Matrix, groups: Mapping[str, Group], root: Path, command: str, failures: Mapping[str, str]
) -> Results:
    """Write ``results.md``, ``results.json`` and the report of what has a score.

    :param groups: of the cells that are trained, by cell
    :param command: that trains the matrix
    :param failures: why runs have none, by name
    """
    rows = tuple(_row(matrix, cell, groups.get(cell.name), root) for cell in matrix.cells)
    scored = {(row.cell.name, run.seed) for row in rows for run in row.seeds.runs if run.has_score}
    missing = tuple(f"{cell.name}, seed {seed}" for cell, seed in matrix.runs() if (cell.name, seed) not in scored)
    folder = results_folder(root, matrix.name)
    compared = compare_scored([_by_env_alone(row.seeds) for row in rows]) if any(row.summary for row in rows) else None
    results = Results(rows, compared, missing, folder / "results.md")
    write_whole(results.page, _page(matrix, results, command, failures, _where(groups)))
    results = replace(results, report=_report(rows, folder / "report.html"))
    write_json(folder / "results.json", {"name": matrix.name, "seeds": list(matrix.seeds), **results.as_dict()})
    return results


def _row(matrix: Matrix, cell: Cell, group: Group | None, root: Path) -> Row:
    if group is None:
        files = {seed: untrained_file(root, matrix.name, cell.name, seed) for seed in matrix.seeds}
        config = {key: value for key, value in comparable(cell.config).items() if not key.startswith("total_")}
        runs = tuple(Seed(file, seed, _stored_score(file), config) for seed, file in files.items() if file.is_file())
        manifests: list[dict[str, Any]] = []
    else:
        found = [run for seed in matrix.seeds if (run := group.run(seed)) is not None]
        runs = tuple(map(read_seed, found))
        manifests = [run.manifest() for run in found]
    seeds = Seeds(cell.name, runs)
    return Row(
        cell=cell,
        seeds=seeds,
        summary=Summary.of(seeds.scores) if seeds.scores else None,
        timesteps=max((int(manifest.get("timesteps") or 0) for manifest in manifests), default=0),
        seconds=statistics.fmean([float(m.get("seconds") or 0) for m in manifests]) if manifests else 0.0,
    )


def _by_env_alone(seeds: Seeds) -> Seeds:
    """That budgets differ is the point of a matrix, and no warning."""
    alone = (replace(run, config={"env.id": run.config.get("env.id")}, timesteps=None) for run in seeds.runs)
    return replace(seeds, runs=tuple(alone))


def _stored_score(file: Path) -> float | None:
    try:
        return float(json.loads(file.read_text())["result"]["mean_return"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _report(rows: Sequence[Row], out: Path) -> Path | None:
    """The HTML report; there is none where no cell has anything to show."""
    groups = [row.seeds for row in rows if row.seeds.runs]
    if not any(group.scores for group in groups):
        return None
    try:
        return write_page(groups, out)
    except Exception as error:  # whatever is wrong with a film or a log, the table is there
        note(f"warning: there is no report: {error}")
        return None


def _page(matrix: Matrix, results: Results, command: str, failures: Mapping[str, str], where: str) -> str:
    episodes = sorted({row.cell.config.evaluation.episodes for row in results.rows})
    lines = [f"# {matrix.name}", "", f"`{command}`", "", *markdown(results.rows), ""]
    for env, verdicts in results.verdicts.items():
        if verdicts:
            lines += [f"{env}:", "", *(f"- {verdict}" for verdict in verdicts), ""]
    if results.missing:
        lines += ["Without a score:", ""]
        lines += [f"- {name}" + (f": {failures[name]}" if name in failures else "") for name in results.missing]
        lines += [""]
    lines += [
        f"A seed's score is the mean return of its final agent over {' or '.join(map(str, episodes))} episodes.",
        "± is the standard deviation over training seeds; the interval is of the interquartile mean (IQM), a bootstrap",
        "over seeds. The verdicts come from permutation tests, corrected for the number of comparisons in an env.",
        *([NARROW] if results.compared and NARROW in results.compared.warnings else ()),
    ]
    return "\n".join([*lines, *([where] if where else [])]) + "\n"


def markdown(rows: Sequence[Row]) -> list[str]:
    """The table, a line each."""
    cells = [f"| {' | '.join(text.replace('|', ' ') for text in row.words())} |" for row in rows]
    return [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *cells]


def _where(groups: Mapping[str, Group]) -> str:
    """The machines and versions, from a run's manifest."""
    run: RunDirectory | None = next((run for group in groups.values() for run in group.runs()), None)
    if run is None:
        return ""
    manifest = run.manifest()
    hardware, versions = manifest.get("hardware") or {}, manifest.get("versions") or {}
    packages = ", ".join(f"{name} {versions[name]}" for name in _VERSIONS if name in versions)
    return f"The first run was trained on {hardware.get('cpu')}, {hardware.get('cores')} cores, with {packages}."
