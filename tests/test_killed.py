"""Training that is killed with signal 9 at any moment, and resumed, ends as if it had been left alone."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from comparing import assert_same, needs_panda

import rlrun
from rlrun.run import Run

# Counts the calls of what a moment is named after, and ends the process at the chosen one.
DRIVER = """
import importlib, json, os, signal, sys
import rlrun

moments, config, overrides, folder, fatal, number = json.loads(sys.argv[1])
counts = dict.fromkeys(moments, 0)

def watch(moment, target):
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    function = getattr(owner, name)

    def counted(*arguments, **options):
        counts[moment] += 1
        if moment == fatal and counts[moment] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    setattr(owner, name, counted)

for moment, target in moments.items():
    watch(moment, target)
rlrun.train(config, overrides=overrides, run_dir=folder, name="run", progress=False)
print(json.dumps(counts))
"""
MOMENTS = {
    "at a step": "rlrun.training.boundary:Boundary._on_step",
    "inside a checkpoint's write": "rlrun.runs.checkpoint:write_sums",
    "inside an evaluation": "rlrun.evaluation.evaluate:_play",
    "between two files": "os:fsync",
    "between a checkpoint and its pointer": "rlrun.runs.directory:RunDirectory.point",
}
SMALL = {"trackers": [], "threads": 1, "evaluation.episodes": 2}
WARM_UP = {"hyperparameters.learning_starts": 100, "hyperparameters.batch_size": 32}


def spaced(budget: int) -> dict[str, Any]:
    return {**SMALL, "total_timesteps": budget, "checkpoint.every": budget // 4, "evaluation.every": budget // 3}


RECURRENT = {
    "algo": "recurrent_ppo",
    "env": {"id": "CartPole-v1", "n_envs": 2},
    "normalize": True,
    "total_timesteps": 1,
    "hyperparameters": {"n_steps": 64, "batch_size": 64, "n_epochs": 1},
}
CURIOUS = {
    "algo": "a2c",
    "env": {"id": "MountainCar-v0", "n_envs": 2},
    "normalize": True,
    "curiosity": {"kind": "icm"},
    "total_timesteps": 1,
}
FAMILY = {f"hyperparameters.{name}": True for name in ("double_q", "dueling", "prioritized_replay")}
SAC = {"algo": "sac", "env": {"id": "Pendulum-v1"}, "total_timesteps": 1, "hyperparameters": {}}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a2c CartPole": ("CartPole-v1/a2c", spaced(2000)),
    "ppo LunarLander": ("LunarLander-v3/ppo", {**spaced(8000), "hyperparameters.n_steps": 64}),
    "dqn CartPole": ("CartPole-v1/dqn", {**spaced(1500), "hyperparameters.learning_starts": 100}),
    "sac Pendulum": (SAC, {**spaced(500), **WARM_UP}),
    "recurrent_ppo CartPole": (RECURRENT, spaced(1200)),
    "tqc her PandaReach": ("PandaReach-v3/tqc", {**spaced(450), **WARM_UP}),
    "dqn family CartPole": (
        "CartPole-v1/dqn",
        {**spaced(1500), **WARM_UP, **FAMILY, "env.n_envs": 2, "hyperparameters.n_steps": 3},
    ),
    "a2c icm MountainCar": (CURIOUS, spaced(2000)),
    "q_learning FrozenLake": (
        "FrozenLake-v1/q_learning",
        {**SMALL, "total_episodes": 300, "checkpoint.every": 500, "evaluation.every": 700},
    ),
    "dqn SpaceInvaders": (
        "SpaceInvadersNoFrameskip-v4/dqn",
        {**spaced(900), **WARM_UP, "hyperparameters.buffer_size": 500, "evaluation.episodes": 1},
    ),
}


def drive(case: str, folder: Path, fatal: str = "", number: int = 0) -> subprocess.CompletedProcess[str]:
    config, overrides = CASES[case]
    arguments = json.dumps([MOMENTS, config, overrides, str(folder), fatal, number])
    return subprocess.run(
        [sys.executable, "-c", DRIVER, arguments], capture_output=True, text=True, check=False, timeout=280
    )


def run_in(folder: Path) -> Run:
    (path,) = folder.glob("*/*/run")
    return rlrun.open_run(path)


def kill_and_compare(case: str, moments: list[str], folder: Path) -> None:
    undisturbed = drive(case, folder / "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    counts = json.loads(undisturbed.stdout.splitlines()[-1])
    chance = random.Random(case)
    for attempt, moment in enumerate(moments):
        number = chance.randint(1, counts[moment])
        place = folder / f"killed-{attempt}"
        killed = drive(case, place, moment, number)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if not list(place.glob("*/*/run")):  # before there was a run, there is nothing to resume
            continue
        run = run_in(place)
        assert run.status == "killed"
        resumed = run.resume(progress=False)
        assert resumed.status == "finished", (moment, number)
        assert_same(run_in(folder / "undisturbed"), resumed)
        assert resumed.summary()["resume"] == "exact", (moment, number)
        assert not list(run.path.rglob("*.tmp")), (moment, number)


@pytest.mark.parametrize(
    ("case", "moments"),
    [("a2c CartPole", ["inside a checkpoint's write", "between two files"]), ("dqn CartPole", ["at a step"])],
)
def test_a_run_killed_at_a_random_moment_and_resumed_equals_the_undisturbed_one(
    case: str, moments: list[str], tmp_path: Path
):
    kill_and_compare(case, moments, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", [pytest.param(case, marks=[needs_panda] if "Panda" in case else []) for case in CASES])
def test_runs_killed_at_every_kind_of_moment_and_resumed_equal_the_undisturbed_one(case: str, tmp_path: Path):
    kill_and_compare(case, list(MOMENTS), tmp_path)
