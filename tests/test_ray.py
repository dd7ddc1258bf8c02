"""Runs on the machines of a Ray cluster end as they would here, also when a machine is lost."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from comparing import assert_same

import rlrun
from rlrun.cluster import Courier, News, RayCluster, _contents, install, machines_of
from rlrun.console import SeedsLines
from rlrun.errors import ConfigError, Interrupted, MissingPackage, RlrunError, UsageError
from rlrun.pool import Needs, Pool, Process, Task, ThisMachine
from rlrun.runs.groups import Group, create_group, find_group
from rlrun.runs.trust import is_own
from rlrun.seeds import Member, needs_of, shared_config, train_members

pytestmark = pytest.mark.usefixtures("folder")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
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


def test_without_ray_one_sentence_says_how_to_get_it(
    rlrun_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = rlrun_command("train", written(), "--seeds", "0-1", "--on", "ray")
    assert outcome.code == 2
    assert "--on ray needs Ray, which is not installed." in outcome.err
    assert "pip install 'rlrun[ray]'" in outcome.err
    assert not Path("runs").exists()
    with pytest.raises(MissingPackage), machines_of("ray"):
        pass


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--on", "rya"), 'Did you mean "ray"?'),
        (("--address", "somewhere:6379"), "Add --on ray."),
        (("--on", "ray", "--address", "ray://head:10001"), "ray job submit"),
    ],
)
def test_what_is_no_place_is_said_before_anything_is_created(
    flags: tuple[str, ...], words: str, rlrun_command: Callable[..., Any]
):
    outcome = rlrun_command("train", written(), "--seeds", "0", *flags)
    assert (outcome.code, words in outcome.err) == (2, True), outcome.err
    assert not Path("runs").exists()


def test_one_run_alone_is_trained_here(rlrun_command: Callable[..., Any]):
    outcome = rlrun_command("train", written(), "--on", "ray")
    assert (outcome.code, "Add --seeds" in outcome.err) == (2, True)


def test_this_machine_has_room_for_a_process_on_each_core():
    with machines_of(None) as machines:
        assert isinstance(machines, ThisMachine)
        assert machines.at_a_time is not None


def task_in(folder: Path) -> Task:
    (folder / "s0" / "checkpoints" / "100").mkdir(parents=True)
    (folder / "logs").mkdir()
    (folder / "group.json").write_text("{}")
    (folder / "s0" / "manifest.json").write_text("{}")
    (folder / "s0" / "lock").write_text("held")
    (folder / "s0" / "checkpoints" / "100" / "model.zip").write_bytes(b"weights")
    (folder / "s0" / "checkpoints" / ".200.tmp").mkdir()
    (folder / "s0" / "checkpoints" / ".200.tmp" / "model.zip").write_bytes(b"half")
    return Task("seed 0", "rlrun.seeds", folder, ("0",), folder / "logs" / "s0.txt", ("s0",))


def test_a_run_travels_without_its_lock_and_without_what_is_half_written(folder: Path):
    assert sorted(_contents(task_in(folder / "g"))) == [
        "group.json",
        "s0/checkpoints/100/model.zip",
        "s0/manifest.json",
    ]


def test_only_what_has_changed_comes_back_and_what_is_gone_goes(folder: Path):
    there, here = task_in(folder / "there"), task_in(folder / "here")
    courier = Courier(there.folder, (*there.parts, "logs/s0.txt"))
    courier.note()
    before = courier.checkpoints()
    new = there.folder / "s0" / "checkpoints" / "300"
    new.mkdir()
    (new / "model.zip").write_bytes(b"better")
    (there.folder / "s0" / "checkpoints" / "100" / "model.zip").unlink()
    (there.folder / "s0" / "checkpoints" / "100").rmdir()
    (there.folder / "logs" / "s0.txt").write_text("said")
    assert courier.checkpoints() != before
    news = courier.news()
    assert list(news.files) == ["s0/checkpoints/300/model.zip", "logs/s0.txt"]
    assert news.gone == ("s0/checkpoints/100/model.zip",)
    assert courier.news() == News()
    install(here, news)
    assert (here.folder / "s0" / "checkpoints" / "300" / "model.zip").read_bytes() == b"better"
    assert not (here.folder / "s0" / "checkpoints" / "100").exists()
    assert here.log.read_text() == "said"


def test_a_checkpoint_that_comes_back_has_its_replay_buffer_and_keeps_what_has_not_changed(folder: Path):
    there, here = task_in(folder / "there"), task_in(folder / "here")
    place = there.folder / "s0" / "checkpoints" / "300"
    (place / "replay_buffer").mkdir(parents=True)
    for name in ("model.zip", "state.json", "replay_buffer/0-0-9.npy"):
        (place / name).write_bytes(name.encode())
    courier = Courier(there.folder, there.parts)
    install(here, courier.news())
    arrived = here.folder / "s0" / "checkpoints" / "300"
    assert {path.relative_to(arrived).as_posix() for path in arrived.rglob("*") if path.is_file()} == {
        "model.zip",
        "state.json",
        "replay_buffer/0-0-9.npy",
    }
    shutil.rmtree(place / "replay_buffer")  # as when it is kept to be evaluated only
    (place / "state.json").write_bytes(b"smaller")
    install(here, courier.news())
    assert (arrived / "model.zip").read_bytes() == b"model.zip"
    assert (arrived / "state.json").read_bytes() == b"smaller"
    assert not (arrived / "replay_buffer").exists()


@pytest.mark.parametrize("name", ["group.json", "s1/manifest.json", "s0/../../x", "/etc/x", "s00/x"])
def test_a_machine_writes_nothing_but_its_own_run(name: str, folder: Path):
    task = task_in(folder / "g")
    with pytest.raises(RlrunError, match="no part of"):
        install(task, News(files={name: b""}))
    with pytest.raises(RlrunError, match="no part of"):
        install(task, News(gone=(name,)))


def group_of(config: Mapping[str, Any], name: str, seeds: Sequence[int] = (0, 1)) -> Group:
    return create_group(Path("runs"), shared_config(rlrun.api.load_source(config)), seeds, name)


def test_a_run_asks_for_its_threads_and_for_the_memory_of_its_replay_buffer():
    config = {"algo": "dqn", "env": {"id": "CartPole-v1"}, "total_timesteps": 100, "threads": 3}
    group = group_of({**config, "hyperparameters": {"buffer_size": 10_000_000}}, "g")
    needs = needs_of(group)
    assert (needs.cores, needs.gpus) == (3, 0)
    assert 1.3e9 < needs.memory < 2e9
    assert Member(group, 0, "seed 0").task(needs).arguments == ("0", "--trust")
    assert Member(group, 0, "seed 0").task(None).arguments == ("0",)


def test_a_gpu_that_only_the_cluster_has_is_asked_for():
    config = {"algo": "ppo", "env": {"id": "CartPole-v1"}, "total_timesteps": 100, "device": "cuda"}
    resolved = shared_config(rlrun.api.load_source(config), elsewhere=True).config
    assert (resolved.device, resolved.threads) == ("cuda", 1)
    with pytest.raises(ConfigError, match="Ray says which"):
        shared_config(rlrun.api.load_source({**config, "device": "cuda:1"}), elsewhere=True)


class _Fake:
    """A process that ends with a code after some looks."""

    has_begun = True

    def __init__(self, code: int, looks: int = 1) -> None:
        self.code, self.looks, self.signals = code, looks, list[int]()

    def poll(self) -> int | None:
        self.looks -= 1
        return self.code if self.looks < 0 else None

    def reason(self) -> str:
        return f"ended with {self.code}"

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        self.signals.append(9)


class _Machines:
    at_a_time = 2

    def __init__(self) -> None:
        self.most = 0

    def start(self, task: Task) -> Process:
        return _Fake(int(task.arguments[0]))


def test_a_pool_runs_a_few_at_a_time_and_tells_what_failed(folder: Path):
    counts: list[int] = []
    tasks = [Task(str(i), "m", folder, (str(i % 2),), folder / "log") for i in range(4)]
    failures = Pool(_Machines()).run(tasks, lambda running, failed: counts.append(len(running)))
    assert failures == {"1": "ended with 1", "3": "ended with 1"}
    assert max(counts) == 2
    assert Needs() == tasks[0].needs


class _Slow(_Machines):
    """A signal comes while a process is started."""

    def __init__(self) -> None:
        super().__init__()
        self.process = _Fake(0, looks=2)

    def start(self, task: Task) -> Process:
        os.kill(os.getpid(), signal.SIGTERM)
        return self.process


class _Unsaved(_Machines):
    """A signal comes, and one of two processes has not saved its state."""

    def start(self, task: Task) -> Process:
        if task.name == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return _Fake(143 if task.name == "0" else 1, looks=2)


def test_after_a_signal_it_is_told_who_saved_nothing(folder: Path):
    pool = Pool(_Unsaved())
    with pytest.raises(Interrupted):
        pool.run([Task(str(i), "m", folder, (), folder / "log") for i in range(2)], lambda running, failed: None)
    assert pool.failures == {"1": "ended with 1"}


def test_a_folder_that_is_pruned_while_it_is_listed_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch):
    for number in (100, 200):
        place = folder / f"s0/checkpoints/{number}"
        place.mkdir(parents=True)
        (place / "model.zip").write_bytes(b"x")
    walk = os.walk

    def prunes(top: Path) -> Iterator[Any]:
        for found in walk(top):
            yield found
            shutil.rmtree(folder / "s0/checkpoints/100", ignore_errors=True)

    monkeypatch.setattr(os, "walk", prunes)
    assert list(Courier(folder, ("s0",)).news().files) == ["s0/checkpoints/200/model.zip"]


def test_a_signal_that_comes_while_a_process_is_started_reaches_it(folder: Path):
    machines = _Slow()
    with pytest.raises(Interrupted):
        Pool(machines).run([Task("one", "m", folder, (), folder / "log")], lambda running, failed: None)
    assert machines.process.signals == [signal.SIGTERM]


# -- on real clusters


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A head without cores and three nodes with two each, on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(3):
        cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class _KillsANode(SeedsLines):
    """Kills a node as soon as every run that has begun has a checkpoint."""

    def __init__(self, cluster: Any, place: Path) -> None:
        super().__init__()
        self._cluster, self._place = cluster, place
        self.killed_at: dict[str, int] = {}

    def changed(self, states: Sequence[Any]) -> None:
        super().changed(states)
        running = [state for state in states if state.state == "running"]
        folders = [self._place / f"s{state.name.split()[-1]}" / "checkpoints" for state in running]
        if not self.killed_at and len(running) >= 5 and all(any(folder.glob("[!.]*")) for folder in folders):
            self.killed_at = {state.name: state.timesteps for state in running}
            self._cluster.remove_node(sorted(self._cluster.worker_nodes, key=str)[0], allow_graceful=False)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fetch", [False, True], ids=["a shared file system", "folders of their own"])
def test_twelve_runs_on_three_nodes_of_which_one_is_killed_end_as_they_would_here(
    fetch: bool, nodes: Any, capsys: pytest.CaptureFixture[str]
):
    text = CONFIG.replace("400", "60_000").replace("every: 200", "every: 20_000") + "checkpoint: {every: 5_000}\n"
    here = rlrun.train_seeds(written(text), range(12), name="here", progress=False)
    assert here.failures == {}
    there = group_of(here.group.values, "there", range(12))
    members = [Member(there, seed, f"seed {seed}") for seed in range(12)]
    killer = _KillsANode(nodes, there.path)
    failures = train_members(members, there.path, "", RayCluster(fetch=fetch), progress=killer)
    assert failures == {}
    assert killer.killed_at
    said = capsys.readouterr().err
    assert "its machine was lost" in said, said
    runs = [rlrun.open_run(f"there/s{seed}") for seed in range(12)]
    resumed = [run for run in runs if run.manifest.get("resumed")]
    assert resumed, "no run went on from a checkpoint"
    for seed, run in enumerate(runs):
        assert_same(rlrun.open_run(f"here/s{seed}"), run)
        assert is_own(run.directory)
        assert json.loads((run.path / "results.json").read_text())["final"]["run"] == str(run.path)


@needs_ray
@pytest.mark.slow
def test_an_interruption_saves_the_runs_of_a_cluster(rlrun_command: Callable[..., Any]):
    command = [sys.executable, "-m", "rlrun", "train", written(), "--seeds", "0-1", "--name", "g", "--on", "ray"]
    process = subprocess.Popen([*command, "--timesteps", "1000000"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(Path("runs").glob("*/*/g/s*/episodes.csv"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert [rlrun.open_run(f"g/s{seed}").status for seed in (0, 1)] == ["interrupted", "interrupted"]
    assert find_group("g", Path("runs")) is not None


@needs_ray
@pytest.mark.slow
def test_a_matrix_and_what_is_missing_of_a_group_are_trained_on_a_cluster_too(rlrun_command: Callable[..., Any]):
    matrix = {
        "name": "m",
        "seeds": "0-1",
        "cells": {"short": written(), "fresh": {"config": "c.yaml", "untrained": True}},
    }
    Path("m.yaml").write_text(json.dumps(matrix))
    outcome = rlrun_command("matrix", "m.yaml", "--on", "ray", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert [len(cell["runs"]) for cell in found["cells"].values()] == [2, 2]
    assert found["missing"] == []
    shutil.rmtree(rlrun.open_run("m.short/s1").path)
    assert rlrun_command("resume", "m.short", "--on", "ray").code == 0
    assert rlrun.open_run("m.short/s1").status == "finished"


class _Interrupts(SeedsLines):
    """Sends this process SIGTERM when a run has saved a checkpoint."""

    def changed(self, states: Sequence[Any]) -> None:
        super().changed(states)
        if all(state.timesteps for state in states):
            os.kill(os.getpid(), signal.SIGTERM)


@needs_ray
@pytest.mark.slow
def test_what_an_interrupted_run_saved_in_a_folder_of_its_own_comes_back():
    config = {"algo": "a2c", "env": {"id": "CartPole-v1"}, "total_timesteps": 2_000_000, "trackers": []}
    group = group_of({**config, "checkpoint": {"every": 5_000}}, "g", [0])
    members = [Member(group, 0, "seed 0")]
    cluster = RayCluster(fetch=True)
    with pytest.raises(Interrupted, match="is saved") as raised:
        train_members(members, group.path, "again", cluster, progress=_Interrupts())
    cluster.close()
    assert raised.value.exit_code == 143
    run = rlrun.open_run("g/s0")
    assert run.status == "interrupted"
    assert run.summary()["unscheduled"], "what was saved at the end has not come back"


class _KillsANodeOfAStudy:
    """Kills a node after some trials, and remembers what was said."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.ended, self.words = 0, list[str]()

    def started(self, study: Path, total: int, jobs: int) -> None:
        self.words.append(f"{jobs} at a time")

    def trial(self, progress: Any) -> None:
        self.ended += 1
        self.words.append(f"trial {progress.number}: {progress.state}")
        if self.ended == 3:
            self._cluster.remove_node(sorted(self._cluster.worker_nodes, key=str)[0], allow_graceful=False)

    def said(self, message: str) -> None:
        self.words.append(message)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fetch", [False, True], ids=["a shared file system", "folders of their own"])
def test_a_study_on_three_nodes_of_which_one_is_killed_tries_again_what_was_lost(
    fetch: bool, nodes: Any, monkeypatch: pytest.MonkeyPatch
):
    @contextlib.contextmanager
    def machines(on: str, address: str | None) -> Iterator[RayCluster]:
        yield RayCluster(address, fetch=fetch)

    monkeypatch.setattr("rlrun.tuning.study.machines_of", machines)
    text = CONFIG.replace("400", "10_000").replace("every: 200", "every: 5_000")
    text += "search: {learning_rate: {log: [1e-5, 1e-2]}}\n"
    told = _KillsANodeOfAStudy(nodes)
    tuned = rlrun.tune(
        written(text), trials=10, retest=1, retest_seeds=2, pruner="none", on="ray", name="s", progress=told
    )
    assert told.words[0] == "6 at a time"
    assert any("its machine was lost" in words for words in told.words), told.words
    states = [row["state"] for row in csv.DictReader((tuned.path / "trials.csv").open(newline=""))]
    assert states.count("complete") == 10, told.words
    for folder in (tuned.path / "trials").iterdir():
        assert not list(folder.glob("*/checkpoints/*"))
    again = [rlrun.open_run(path.parent) for path in (tuned.path / "retest").glob("*/*/manifest.json")]
    assert len(again) == 4
    assert all(run.status == "finished" and is_own(run.directory) for run in again)
    (defaults, *_) = sorted((tuned.path / "retest" / "defaults").iterdir())
    here = rlrun.train(defaults / "config.yaml", run_dir="here", name="run", progress=False)
    assert_same(here, rlrun.open_run(defaults))


TELLS = """
import os, pathlib, sys
names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
pathlib.Path(sys.argv[1], "part", sys.argv[2]).write_text(",".join(os.environ.get(name, "unset") for name in names))
"""


@needs_ray
@pytest.mark.slow
def test_any_process_can_be_sent_with_the_gpu_and_the_threads_that_it_asks_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    import ray

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (folder / "tells.py").write_text(TELLS)
    (folder / "a" / "b" / "c" / "part").mkdir(parents=True)
    place = folder / "a" / "b" / "c"
    tasks = [
        Task(f"task {gpus}", "tells", place, (f"{gpus}.txt",), place / "logs" / f"{gpus}.txt", ("part",), (), needs)
        for gpus in (0, 1)
        for needs in [Needs(cores=2, gpus=gpus, memory=10**8)]
    ]
    ray.init(num_cpus=2, num_gpus=1, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        with machines_of("ray") as machines:
            assert Pool(machines).run(tasks, lambda running, failures: None) == {}
    finally:
        ray.shutdown()
    assert (place / "part" / "1.txt").read_text() == "0,unset"
    assert (place / "part" / "0.txt").read_text().split(",")[1] == "unset"
    assert [path.name for path in place.iterdir() if path.suffix == ".tmp"] == []


def test_an_address_at_which_nothing_answers_is_an_error_in_a_sentence():
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="No Ray cluster answers"), machines_of("ray", "127.0.0.1:1"):
        pass
    for address in ("not a place", "host:", ":6379", "host:99999999"):
        with pytest.raises(UsageError, match="is no address"), machines_of("ray", address):
            pass
