"""What a matrix shows: a table, verdicts, a report."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlrun import api
from rlrun.console import note
from rlrun.errors import RlrunError
from rlrun.evidence.comparing import Compared, compare_scored
from rlrun.evidence.scores import Seed, Seeds, read_seed
from rlrun.evidence.statistics import Summary
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

    :ivar compared: by env: cells are compared where they play the same one
    :ivar missing: names of the runs that have no score
    :ivar page: the table and the verdicts as Markdown
    :ivar report: the HTML report; None when there is none
    """

    rows: tuple[Row, ...]
    compared: Mapping[str, Compared]
    missing: tuple[str, ...]
    page: Path
    report: Path | None = None

    @property
    def verdicts(self) -> dict[str, list[str]]:
        """A sentence for each pair of cells, by env; what is said of several pairs alike stands once."""
        pairs = {env: [pair.verdict for pair in found.comparisons] for env, found in self.compared.items()}
        return {env: list(dict.fromkeys(verdicts)) for env, verdicts in pairs.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "cells": {row.cell.name: row.as_dict() for row in self.rows},
            "comparisons": {env: [pair.as_dict() for pair in c.comparisons] for env, c in self.compared.items()},
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
    scored = {(row.cell.name, run.seed) for row in rows for run in row.seeds.runs if run.score is not None}
    missing = tuple(f"{cell.name}, seed {seed}" for cell, seed in matrix.runs() if (cell.name, seed) not in scored)
    folder = results_folder(root, matrix.name)
    results = Results(rows, _compared(rows), missing, folder / "results.md")
    results = replace(results, report=_report(groups, rows, root, folder / "report.html"))
    write_whole(results.page, _page(matrix, results, command, failures, _where(groups)))
    write_json(folder / "results.json", {"name": matrix.name, "seeds": list(matrix.seeds), **results.as_dict()})
    return results


def _row(matrix: Matrix, cell: Cell, group: Group | None, root: Path) -> Row:
    if group is None:
        files = {seed: untrained_file(root, matrix.name, cell.name, seed) for seed in matrix.seeds}
        runs = tuple(Seed(file, seed, _stored_score(file)) for seed, file in files.items() if file.is_file())
        manifests: list[dict[str, Any]] = []
    else:
        found = [run for seed in matrix.seeds if (run := group.run(seed)) is not None]
        # Without configs: that budgets differ is the point of a matrix, and no warning.
        runs = tuple(replace(read_seed(run), config={}) for run in found)
        manifests = [run.manifest() for run in found]
    seeds = Seeds(cell.name, runs)
    return Row(
        cell=cell,
        seeds=seeds,
        summary=Summary.of(seeds.scores) if seeds.scores else None,
        timesteps=max((int(manifest.get("timesteps") or 0) for manifest in manifests), default=0),
        seconds=statistics.fmean([float(m.get("seconds") or 0) for m in manifests]) if manifests else 0.0,
    )


def _stored_score(file: Path) -> float | None:
    try:
        return float(json.loads(file.read_text())["result"]["mean_return"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _compared(rows: Sequence[Row]) -> dict[str, Compared]:
    """Cells that play the same env, compared with each other."""
    envs = dict.fromkeys(row.cell.config.env.id for row in rows if row.summary is not None)
    return {
        env: compare_scored([row.seeds for row in rows if row.summary is not None and row.cell.config.env.id == env])
        for env in envs
    }


def _report(groups: Mapping[str, Group], rows: Sequence[Row], root: Path, out: Path) -> Path | None:
    """The HTML report of the cells that are trained."""
    selected = [f"{row.cell.name}={groups[row.cell.name].path}" for row in rows if row.cell.name in groups]
    trained = any(row.summary is not None and row.cell.name in groups for row in rows)
    if not trained:
        return None
    try:
        return api.report(*selected, out=out, run_dir=root)
    except RlrunError as error:
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
