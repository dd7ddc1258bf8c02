"""Whether the disk can hold a run's checkpoints is known before the run begins."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

import rlrun
from rlrun import cli

CONFIG: dict[str, Any] = {
    "algo": "dqn",
    "env": {"id": "CartPole-v1"},
    "total_timesteps": 2_000,
    "hyperparameters": {"buffer_size": 1_000, "learning_starts": 100},
    "checkpoint": {"every": 500, "keep": 2},
    "evaluation": {"episodes": 0},
    "trackers": [],
}
Usage = namedtuple("Usage", "total used free")


def test_too_little_room_is_said_with_both_numbers_and_nothing_is_created(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 20_000))
    assert cli.run(["train", "CartPole-v1/dqn", "--run-dir", "a/b"]) == 2
    assert "need up to" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_the_estimate_covers_what_a_run_writes_and_is_not_far_above_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from rlrun.runs import space

    estimates = []
    monkeypatch.setattr(space, "size", lambda number: estimates.append(number) or "")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, -1))
    with pytest.raises(rlrun.errors.UsageError):
        rlrun.train(CONFIG, progress=False)
    monkeypatch.undo()
    run = rlrun.train(CONFIG, progress=False)
    assert run.directory.size() < estimates[0] < 10 * run.directory.size()
