"""Train what is missing of a matrix: across its cells side by side, nothing twice."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlrun import api
from rlrun.cluster import machines_of
from rlrun.errors import RlrunError, UsageError
from rlrun.matrices.results import Results, write_results
from rlrun.matrices.schema import Cell, Matrix, read_matrix
from rlrun.matrices.slurm import slurm_script
from rlrun.matrices.whereabouts import group_name, results_folder, untrained_file
from rlrun.run import Run, evaluate_agent
from rlrun.runs.files import os_errors_in_words, write_json
from rlrun.runs.groups import Group, ensure_group, existing_group
from rlrun.seeds import Member, SeedsReporter, train_members


@dataclass
class MatrixOutcome:
    """How training a matrix ended.

    :ivar failures: why, by the run's name
    :ivar results: None after ``only``
    :ivar runs: those that were trained, in their order
    :ivar paths: of these, and of the scores of those that are not trained
    """

    matrix: Matrix
    failures: dict[str, str] = field(default_factory=dict)
    results: Results | None = None
    runs: list[Run] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``rlrun matrix --json``."""
        head = {"name": self.matrix.name, "matrix": self.matrix.written, "seeds": list(self.matrix.seeds)}
        runs = [run.training_summary() for run in self.runs] if self.results is None else []
        found = self.results.as_dict() if self.results else {"runs": runs}
        return {**head, **found, "failures": self.failures}


def train_matrix(
    file: str | Path,
    *,
    jobs: int | None = None,
    only: int | None = None,
    on: str | None = None,
    address: str | None = None,
    run_dir: str | Path = api.RUNS,
    progress: bool | SeedsReporter = True,
) -> MatrixOutcome:
    """Train configs x seeds, write a table of what they reached, and say which differ.

    What is there already is not trained again, and what has begun goes on.

    :param file: a path, or the name of a shipped matrix
    :param jobs: processes at a time; None: the cores that this process may use, or all that a cluster has room for
    :param only: train this run alone, counted from 0 over cells and seeds, and write no table
    :param on: see :func:`rlrun.train_seeds`
    :return: the results, as far as runs have finished
    :raises ConfigError: with every problem, before anything is created
    :raises Interrupted: on Ctrl-C or SIGTERM; every run has saved its state
    """
    root = Path(run_dir)
    with machines_of(on, address) as machines:
        matrix = read_matrix(file, elsewhere=on is not None)
        chosen = matrix.runs() if only is None else [_nth(matrix, only)]
        groups = _groups(matrix, root, [cell for cell, _ in chosen])
        members = [Member(groups[cell.name], seed, _name(cell, seed)) for cell, seed in chosen if cell.name in groups]
        again = _command(matrix, root, only)
        place = results_folder(root, matrix.name)
        failures = train_members(members, place, again, machines, jobs, progress) if members else {}
    for cell, seed in chosen:
        if cell.is_untrained:
            failures.update(_evaluate_untrained(matrix, cell, seed, root))
    if only is None:
        return MatrixOutcome(matrix, failures, write_results(matrix, groups, root, again, failures))
    directories = [directory for member in members if (directory := member.group.run(member.seed)) is not None]
    runs = [Run(directory) for directory in directories]
    untrained = [untrained_file(root, matrix.name, cell.name, seed) for cell, seed in chosen if cell.is_untrained]
    paths = [*(run.path for run in runs), *(file for file in untrained if file.is_file())]
    return MatrixOutcome(matrix, failures, runs=runs, paths=paths)


def matrix_slurm(file: str | Path, *, run_dir: str | Path = api.RUNS) -> str:
    """A script for SLURM's ``sbatch`` that trains a matrix, a task of an array for each run.

    :param file: a path, or the name of a shipped matrix
    :raises ConfigError: with every problem of the matrix
    """
    matrix = read_matrix(file, elsewhere=True)
    return slurm_script(matrix, Path(run_dir), _command(matrix, Path(run_dir), None))


def _nth(matrix: Matrix, index: int) -> tuple[Cell, int]:
    runs = matrix.runs()
    if not 0 <= index < len(runs):
        raise UsageError(f"There is no run {index}: the matrix has {len(runs)}, counted from 0.", "See --only.")
    return runs[index]


def _name(cell: Cell, seed: int) -> str:
    return f"{cell.name}, seed {seed}"


def _command(matrix: Matrix, root: Path, only: int | None) -> str:
    where = "" if str(root) == api.RUNS else f" --run-dir {shlex.quote(str(root))}"
    return f"rlrun matrix {shlex.quote(matrix.written)}{where}" + ("" if only is None else f" --only {only}")


def _groups(matrix: Matrix, root: Path, cells: Sequence[Cell]) -> dict[str, Group]:
    """The groups of the cells that are trained, by cell: all are looked at before the first is made."""
    trained = list({cell.name: cell for cell in cells if not cell.is_untrained}.values())
    for cell in trained:
        existing_group(root, cell.config, group_name(matrix.name, cell.name))
    with os_errors_in_words("making the folder of the results", UsageError):
        results_folder(root, matrix.name).mkdir(parents=True, exist_ok=True)
    return {
        cell.name: ensure_group(root, cell.shared, matrix.seeds, group_name(matrix.name, cell.name)) for cell in trained
    }


def _evaluate_untrained(matrix: Matrix, cell: Cell, seed: int, root: Path) -> dict[str, str]:
    """Score the fresh network of a seed, in this process: it takes no longer than a process takes to start.

    :return: why it failed, by the run's name; empty when it did not
    """
    from rlrun.envs.recipe import EnvRecipe
    from rlrun.runs.load import untrained_agent

    config = cell.config.model_copy(update={"seed": seed})
    values = config.model_dump(by_alias=True, mode="json")
    file = untrained_file(root, matrix.name, cell.name, seed)
    if _is_of(file, values):
        return {}
    try:
        agent = untrained_agent(config, EnvRecipe.from_config(config, cell.shared.import_paths))
        result = evaluate_agent(agent, cell.written, "untrained", None, None)
    except RlrunError as error:
        return {_name(cell, seed): str(error)}
    except Exception as error:  # the user's env may raise anything
        return {_name(cell, seed): f"{type(error).__name__}: {error}"}
    with os_errors_in_words(f"writing {file}"):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"config": values, "result": result.as_dict()})
    return {}


def _is_of(file: Path, values: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(file.read_text())["config"] == values)
    except (OSError, ValueError, KeyError, TypeError):
        return False
