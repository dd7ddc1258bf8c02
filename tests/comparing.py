"""Whether two runs ended with the same bytes."""

from __future__ import annotations

import csv
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from rlrun.run import Run
from rlrun.runs.archive import read_tensors
from rlrun.runs.checkpoint import read_checkpoint

needs_panda = pytest.mark.skipif(importlib.util.find_spec("panda_gym") is None, reason="panda-gym is not installed")


def final_state(run: Run) -> dict[str, Any]:
    """Tensors and statistics of the final checkpoint, flat."""
    steps = run.directory.pointer("final")
    assert steps is not None
    checkpoint = read_checkpoint(run.directory, steps)
    found: dict[str, Any] = {f"statistics.{name}": value for name, value in (checkpoint.statistics or {}).items()}

    def collect(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key in value:
                collect(value[key], f"{name}.{key}")
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                collect(item, f"{name}.{index}")
        else:
            found[name] = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)

    collect(read_tensors(checkpoint.model_path), "model")
    return found


def assert_same(one: Run, other: Run) -> None:
    first, second = final_state(one), final_state(other)
    assert first.keys() == second.keys()
    differing = [name for name in first if not np.array_equal(first[name], second[name])]
    assert differing == []
    for name in ("metrics.csv", "evaluations.csv", "episodes.csv"):
        assert rows(one, name) == rows(other, name), name


def rows(run: Run, name: str) -> list[dict[str, str]]:
    """A CSV file of a run without what a clock measured."""
    with (run.path / name).open(newline="") as stream:
        return [
            {column: value for column, value in row.items() if not column.startswith("time/")}
            for row in csv.DictReader(stream)
        ]
