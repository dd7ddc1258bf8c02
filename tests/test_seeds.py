"""Groups: seeds trained side by side, what fails told, the others finished; and finished later."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from comparing import assert_same

import rlrun
from rlrun.api import load_source
from rlrun.cli.flags import seeds_of
from rlrun.errors import UsageError
from rlrun.runs.groups import ensure_group, read_group
from rlrun.seeds import shared_config

pytestmark = pytest.mark.usefixtures("folder")
CONFIG = """
algo: a2c
env: {id: CartPole-v1, n_envs: 2}
total_timesteps: 400
evaluation: {every: 200, episodes: 2}
trackers: []
"""


def written(text: str = CONFIG) -> str:
    Path("c.yaml").write_text(text)
    return "c.yaml"


@pytest.mark.parametrize(("text", "found"), [("0-2", [0, 1, 2]), ("3", [3]), ("0-1,7, 1", [0, 1, 7]), ("5-5", [5])])
def test_seeds_are_written_as_ranges_and_numbers(text: str, found: list[int]):
    assert seeds_of(text) == found


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1-", "0-99999", "1.5"])
def test_what_is_no_seeds_is_said(text: str):
    with pytest.raises(UsageError, match="seeds"):
        seeds_of(text)


def test_a_group_is_runs_like_any_other_and_each_is_what_it_would_be_alone(rlrun_command: Callable[..., Any]):
    outcome = rlrun_command("train", written(), "--seeds", "0-2", "--jobs", "2", "--name", "g", "--json")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert [run["seed"] for run in report["runs"]] == [0, 1, 2]
    assert all(run["final"]["episodes"] == 2 for run in report["runs"])
    alone = rlrun.train("c.yaml", seed=1, name="alone", progress=False)
    assert_same(alone, rlrun.open_run("g/s1"))
    assert {row["run"]: row["config"] for row in json.loads(rlrun_command("runs", "--json").out)} == {
        "CartPole-v1/a2c/alone": "c",
        **{f"CartPole-v1/a2c/g/s{seed}": "c" for seed in range(3)},
    }
    again = rlrun_command("train", "c.yaml", "--seeds", "0-2", "--name", "g")
    assert (again.code, "is there already" in again.err) == (2, True)
    assert rlrun_command("train", "c.yaml", "--seeds", "0-2", "--name", "g", "--resume").code == 0


def test_a_run_of_a_group_has_one_thread_unless_the_config_says_otherwise():
    config = {"algo": "ppo", "env": {"id": "CartPole-v1"}, "total_timesteps": 2048}
    large = {**config, "hyperparameters": {"batch_size": 1024}}
    assert rlrun.check(large).config.threads == 2
    for values, threads in ((large, 1), ({**large, "threads": 3}, 3)):
        assert shared_config(load_source(values)).config.threads == threads


def test_errors_come_before_anything_is_created(rlrun_command: Callable[..., Any]):
    for arguments in (("--set", "n_step=3"), ("--seed", "1"), ("--name", "a/b")):
        outcome = rlrun_command("train", written(), "--seeds", "0-1", *arguments)
        assert outcome.code == 2, arguments
    assert rlrun_command("train", "c.yaml", "--jobs", "2").code == 2
    assert not Path("runs").exists()


OWN = """
import os, pathlib, signal
from gymnasium.envs.classic_control import CartPoleEnv

class Fragile(CartPoleEnv):
    steps = 0
    def step(self, action):
        Fragile.steps += 1
        victim = pathlib.Path("victim")
        if Fragile.steps == 250 and victim.exists() and victim.read_text() == os.sys.argv[-1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)
"""


def test_one_that_is_killed_is_told_the_others_finish_and_resume_trains_what_is_missing(
    rlrun_command: Callable[..., Any],
):
    Path("own_env.py").write_text(OWN)
    text = CONFIG.replace("CartPole-v1", "own_env:Fragile") + "checkpoint: {every: 100}\n"
    assert rlrun_command("train", written(text), "--seeds", "0-2", "--name", "undisturbed").code == 0
    Path("victim").write_text("1")
    outcome = rlrun_command("train", "c.yaml", "--seeds", "0-2", "--name", "g", "--json")
    assert outcome.code == 1
    assert "seed 1 failed: killed by the system, perhaps for memory" in outcome.err
    assert [run["seed"] for run in json.loads(outcome.out)["runs"]] == [0, 2]
    Path("victim").unlink()
    resumed = rlrun_command("resume", "g", "--jobs", "1")
    assert resumed.code == 0, resumed.err
    for seed in range(3):
        assert_same(rlrun.open_run(f"undisturbed/s{seed}"), rlrun.open_run(f"g/s{seed}"))


def test_a_run_that_was_killed_while_its_final_agent_was_evaluated_gets_its_score(rlrun_command: Callable[..., Any]):
    assert rlrun_command("train", written(), "--seeds", "0-1", "--name", "g").code == 0
    group = read_group(Path("runs/CartPole-v1/a2c/g"))
    before = (group.path / "s1/results.json").read_text()
    (group.path / "s1/results.json").unlink()
    resumed = rlrun_command("resume", "g")
    assert "training 2 runs (1 finished already)" in resumed.err
    assert (group.path / "s1/results.json").read_text() == before
    assert "2 runs finished already" in rlrun_command("resume", "g").err


def test_seeds_that_are_added_to_a_group_train_alone(rlrun_command: Callable[..., Any]):
    assert rlrun_command("train", written(), "--seeds", "0", "--name", "g").code == 0
    shutil.rmtree("runs/CartPole-v1/a2c/g/s0")
    outcome = rlrun_command("train", "c.yaml", "--seeds", "1-2", "--name", "g", "--resume")
    assert outcome.code == 0, outcome.err
    group = read_group(Path("runs/CartPole-v1/a2c/g"))
    assert (group.seeds, [run.name for run in group.runs()]) == ((0, 1, 2), ["s1", "s2"])
    assert not list(group.path.glob("*lock*"))


def test_two_that_add_seeds_at_once_lose_none():
    shared = shared_config(load_source(written(), []))
    ensure_group(Path("runs"), shared, [0], "g")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: ensure_group(Path("runs"), shared, [seed], "g"), range(1, 9)))
    assert set(read_group(Path("runs/CartPole-v1/a2c/g")).seeds) == set(range(9))


def test_a_run_of_a_group_names_a_command_that_goes_on_with_it(rlrun_command: Callable[..., Any]):
    assert rlrun_command("train", written(), "--seeds", "0", "--name", "g").code == 0
    assert rlrun.open_run("g/s0").manifest["command"] == ["rlrun", "resume", "g"]


def test_a_number_of_jobs_below_one_is_refused():
    with pytest.raises(UsageError, match="must be 1 or more"):
        rlrun.train_seeds(written(), seeds=[0], jobs=-1, progress=False)


def test_a_seed_that_cannot_be_trained_says_why(rlrun_command: Callable[..., Any]):
    Path("own_env.py").write_text(OWN)
    assert rlrun_command("train", written(CONFIG.replace("CartPole-v1", "own_env:Fragile")), "--seeds", "0").code == 0
    group = next(Path("runs").glob("*/*/*-group"))
    Path("own_env.py").write_text("raise RuntimeError('broken meanwhile')")
    shutil.rmtree(group / "s0")
    outcome = rlrun_command("resume", str(group))
    assert outcome.code == 1
    assert "broken meanwhile" in outcome.err


def test_someone_elses_group_trains_nothing_that_it_names(rlrun_command: Callable[..., Any]):
    assert rlrun_command("train", written(), "--seeds", "0", "--name", "g").code == 0
    place = next(Path("runs").glob("*/*/g"))
    content = json.loads((place / "group.json").read_text())
    content["import_paths"] = ["/elsewhere"]
    content["seeds"] = [0, 1]
    (place / "group.json").write_text(json.dumps(content))
    group = read_group(place)
    assert (group.is_own, group.import_paths) == (False, ())
    outcome = rlrun_command("resume", "g")
    assert (outcome.code, "is not known to be yours" in outcome.err) == (2, True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_every_run_and_leaves_no_process(number: int, code: int):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are deaf to it
    command = [sys.executable, "-m", "rlrun", "train", written(), "--seeds", "0-1", "--name", "g"]
    command += ["--timesteps", "1000000", "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while len(list(Path("runs").glob("*/*/g/s*/episodes.csv"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, said = process.communicate(timeout=90)
    assert process.returncode == code, said
    assert "rlrun resume" in said
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert [rlrun.open_run(f"g/s{seed}").status for seed in (0, 1)] == ["interrupted", "interrupted"]


def test_children_end_when_their_parent_is_killed():
    command = [sys.executable, "-m", "rlrun", "train", written(), "--seeds", "0", "--name", "g"]
    process = subprocess.Popen([*command, "--timesteps", "1000000"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not list(Path("runs").glob("*/*/g/s0/episodes.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
