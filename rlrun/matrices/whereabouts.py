"""Where the parts of a matrix lie below the folder of runs."""

from __future__ import annotations

from pathlib import Path

FOLDER = "matrix"


def results_folder(root: Path, matrix: str) -> Path:
    """``runs/matrix/<name>``, of the table and the report."""
    return root / FOLDER / matrix


def group_name(matrix: str, cell: str) -> str:
    """The name of the group of a cell's runs, in ``runs/<env>/<algo>``; neither part has a dot."""
    return f"{matrix}.{cell}"


def untrained_file(root: Path, matrix: str, cell: str, seed: int) -> Path:
    """What the fresh network of a seed scores."""
    return results_folder(root, matrix) / "untrained" / f"{cell}.s{seed}.json"
