"""Whether two runs ended with the same bytes."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlrun
from rlrun.errors import RlrunError
from rlrun.run import Run
from rlrun.runs.archive import read_tensors
from rlrun.runs.checkpoint import read_checkpoint
from rlrun.training.boundary import Boundary

needs_panda = pytest.mark.skipif(importlib.util.find_spec("panda_gym") is None, reason="panda-gym is not installed")


def final_state(run: Run) -> dict[str, Any]:
    """Tensors and statistics of the final checkpoint, flat; curiosity, priorities and tables too."""
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
    collect(checkpoint.curiosity(), "curiosity")
    for file in (*checkpoint.path.glob("*.npy"), *checkpoint.replay_path.glob("besides*.npy")):
        found[file.name] = np.load(file, allow_pickle=False)
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


class Killed(Exception):
    """Stands for a process that dies: nothing is saved when it comes."""


def killed_and_resumed(
    train: Callable[[Path], Run], folder: Path, timesteps: int, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """A run that died after some timesteps and was resumed.

    :param train: into a folder
    """
    unharmed: Callable[[Boundary], bool] = Boundary._on_step

    def on_step(self: Boundary) -> bool:
        if self.model.num_timesteps > timesteps:
            raise Killed
        return unharmed(self)

    with monkeypatch.context() as patch:
        patch.setattr(Boundary, "_on_step", on_step)
        with pytest.raises(RlrunError, match="Killed"):
            train(folder)
    (manifest,) = folder.glob("**/manifest.json")
    killed = rlrun.open_run(manifest.parent)
    assert (killed.status, killed.directory.pointer("final")) == ("failed", None)
    return killed.resume(progress=False)


def train_on_pixels(folder: Path, **settings: Any) -> Run:
    """A short run of DQN on Space Invaders."""
    hyper = {"learning_starts": 100, "buffer_size": 200, "batch_size": 8, "train_freq": 8}
    config = {
        "algo": "dqn",
        "env": {"id": "SpaceInvadersNoFrameskip-v4", "n_envs": 1, "wrappers": ["AtariWrapper"], "frame_stack": 4},
        "total_timesteps": 400,
        "hyperparameters": {"policy": "CnnPolicy", **hyper},
        "evaluation": {"episodes": 0, "every": 0},
        "checkpoint": {"every": 120},
        "trackers": [],
        "threads": 1,
        **settings,
    }
    return rlrun.train(config, run_dir=folder, name="run", progress=False)
