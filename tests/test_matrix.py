"""Configs x seeds from one file: nothing twice, what fails told, a table in the end; also as an array on a cluster."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from comparing import assert_same

import rlrun
from rlrun.config.locate import find_matrix, shipped_matrices
from rlrun.errors import ConfigError, UsageError
from rlrun.evidence.comparing import compare_scored
from rlrun.evidence.scores import Seed, Seeds
from rlrun.evidence.statistics import Summary
from rlrun.matrices.results import COLUMNS, Results, Row, markdown
from rlrun.matrices.schema import read_matrix
from rlrun.runs.groups import ensure_group

pytestmark = pytest.mark.usefixtures("folder")
CONFIG = """
algo: a2c
env: {id: "own_env:Fragile", n_envs: 2}
total_timesteps: 400
evaluation: {every: 0, episodes: 2}
checkpoint: {every: 100}
trackers: []
"""
MATRIX = """
name: small
seeds: 0-1
set: {hyperparameters.gamma: 0.9}
cells:
  short: {config: c.yaml, set: {total_timesteps: 200}}
  fresh: {config: c.yaml, untrained: true}
  long:
    config: c.yaml
    set: {hyperparameters.gamma: 0.95}
"""
OWN = """
import os, pathlib, signal
from gymnasium.envs.classic_control import CartPoleEnv

class Fragile(CartPoleEnv):
    steps = 0
    def step(self, action):
        Fragile.steps += 1
        victim = pathlib.Path("victim")
        if Fragile.steps == 250 and victim.exists() and "/".join(os.sys.argv).endswith(victim.read_text()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)
"""


def written(matrix: str = MATRIX, config: str = CONFIG) -> str:
    Path("own_env.py").write_text(OWN)
    Path("c.yaml").write_text(config)
    Path("m.yaml").write_text(matrix)
    return "m.yaml"


def test_every_error_comes_at_once_with_its_line_and_nothing_is_created(rlrun_command: Callable[..., Any]):
    text = """
name: small
seeds: 0-1
set: {total_timestep: 100}
cells:
  one:
    config: c.yaml
    set:
      hyperparameters.gama: 0.9
  two: Pendulum-v1/pp0
  three: c.yaml
"""
    outcome = rlrun_command("matrix", written(text))
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        'error: m.yaml:4: cells.one: total_timestep: there is no key "total_timestep". Did you mean "total_timesteps"?',
        'error: m.yaml:9: cells.one: hyperparameters.gama: A2C has no keyword "gama". Did you mean "gamma"?',
        'error: m.yaml:10: cells.two.config: There is no config file and no shipped config "Pendulum-v1/pp0". '
        'Did you mean "Pendulum-v1/ppo"?',
        "3 problems; nothing was created.",
    ]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("name: a.b\nseeds: 5\ncells: {x y: c.yaml}", ["1: name", "2: seeds", "3: cells.x y"]),
        ("name: a\nseeds: []\ncells: {}", ["2: seeds", "3: cells"]),
        ("name: a\nseeds: 0-1\nset: {seed: 1}\ncells: {x: {confg: c}}", ["3: set", 'Did you mean "config"?']),
        ("name: a\nseeds: 3-1\ncells: [x]", ['"3-1" is no range of seeds', "3: cells: must be a section"]),
        ("cells: {x: {config: c.yaml, untrained: 1}}", ['"name" is missing', '"seeds" is missing', "true or false"]),
    ],
)
def test_what_is_no_matrix_is_said(text: str, problems: list[str]):
    with pytest.raises(ConfigError) as raised:
        read_matrix(written(text))
    for words in problems:
        assert words in str(raised.value)


@pytest.mark.parametrize(("text", "seeds"), [("0-3,7", (0, 1, 2, 3, 7)), ("[4, 2, 4]", (4, 2)), ("'3'", (3,))])
def test_seeds_are_a_range_or_a_list(text: str, seeds: tuple[int, ...]):
    assert read_matrix(written(MATRIX.replace("0-1", text))).seeds == seeds


def test_a_cells_own_values_come_after_those_of_all_cells_and_runs_are_counted_by_cell():
    matrix = read_matrix(written())
    assert [cell.config.hyperparameters["gamma"] for cell in matrix.cells] == [0.9, 0.9, 0.95]
    assert [cell.config.total_timesteps for cell in matrix.cells] == [200, 400, 400]
    counted = [(cell.name, seed) for cell, seed in matrix.runs()]
    assert counted == [(name, seed) for name in ("short", "fresh", "long") for seed in (0, 1)]


def test_a_config_is_found_beside_the_matrix_too(monkeypatch: pytest.MonkeyPatch, folder: Path):
    written()
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert len(read_matrix("../m.yaml").cells) == 3


def test_a_failed_run_is_told_the_others_finish_and_again_trains_what_is_missing(rlrun_command: Callable[..., Any]):
    alone = rlrun.train(written() and "c.yaml", seed=1, overrides={"hyperparameters.gamma": 0.95}, progress=False)
    Path("victim").write_text("small.long/1")
    first = rlrun_command("matrix", "m.yaml", "--json")
    assert first.code == 1
    found = json.loads(first.out)
    assert found["failures"] == {"long, seed 1": "killed by the system, perhaps for memory"}
    assert found["missing"] == ["long, seed 1"]
    assert [len(found["cells"][name]["runs"]) for name in ("short", "fresh", "long")] == [2, 2, 2]
    assert "long, seed 1: killed by the system" in Path("runs/matrix/small/results.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*.zip")}
    Path("victim").unlink()

    only = rlrun_command("matrix", "m.yaml", "--only", "5")
    assert only.code == 0, only.err
    run = rlrun.open_run("small.long/s1")
    assert only.out.strip() == str(run.path)
    assert run.manifest["resumed"], "it began anew"
    assert_same(alone, run)

    again = rlrun_command("matrix", "m.yaml")
    assert again.code == 0, again.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "4 runs finished already" in again.err
    page = Path("runs/matrix/small/results.md").read_text()
    assert f"| {' | '.join(COLUMNS)} |" in page
    assert "| fresh | a2c on own_env:Fragile | untrained | 2 |" in page
    assert "| short | a2c on own_env:Fragile | 200 | 2 |" in page
    assert "fewer than 5 seeds is too narrow" in page
    report = Path("runs/matrix/small/report.html").read_text()
    assert all(f"<td>{name}</td>" in report for name in ("short", "fresh", "long"))
    stored = json.loads(Path("runs/matrix/small/results.json").read_text())
    assert stored["missing"] == []
    assert stored["cells"]["long"]["runs"][1]["score"] == run.end_results()["final"]["mean_return"]
    assert stored["verdicts"]["own_env:Fragile"]

    Path("m.yaml").write_text(MATRIX.replace("0.95", "0.96"))
    other = rlrun_command("matrix", "m.yaml")
    assert other.code == 2
    assert "has another config: hyperparameters.gamma is 0.95, not 0.96" in other.err


def test_a_run_that_is_none_is_said(rlrun_command: Callable[..., Any]):
    outcome = rlrun_command("matrix", written(), "--only", "6")
    assert (outcome.code, "the matrix has 6, counted from 0" in outcome.err) == (2, True)
    assert not Path("runs").exists()


def test_tasks_of_an_array_that_begin_together_make_one_group_and_more_seeds_are_added():
    cell = read_matrix(written()).cells[0]

    def make(_: int) -> Any:
        return ensure_group(Path("runs"), cell.shared, [0, 1], "small.short")

    with ThreadPoolExecutor(8) as threads:
        groups = list(threads.map(make, range(16)))
    assert all(group == groups[0] and group.is_own for group in groups)
    assert [path.name for path in groups[0].path.parent.iterdir()] == ["small.short"]
    more = ensure_group(Path("runs"), cell.shared, [1, 2], "small.short")
    assert (more.seeds, more.is_own) == ((0, 1, 2), True)


def test_a_group_of_someone_elses_is_not_gone_on_with():
    cell = read_matrix(written()).cells[0]
    group = ensure_group(Path("runs"), cell.shared, [0], "small.short")
    content = json.loads((group.path / "group.json").read_text())
    (group.path / "group.json").write_text(json.dumps({**content, "signature": "x"}))
    with pytest.raises(UsageError, match="not known to be yours"):
        ensure_group(Path("runs"), cell.shared, [0], "small.short")


def row(name: str, env: str, scores: list[float], **changes: Any) -> Row:
    cell = next(cell for cell in read_matrix("tuning-matters").cells if cell.config.env.id == env)
    seeds = Seeds(name, tuple(Seed(Path(name, str(i)), i, score, {"env.id": env}) for i, score in enumerate(scores)))
    return Row(cell, seeds, Summary.of(scores) if scores else None, **{"timesteps": 1000, "seconds": 61.0, **changes})


def test_only_cells_that_play_the_same_env_are_compared():
    low, high = [1.0, 2.0, 3.0, 4.0, 5.0], [11.0, 12.0, 13.0, 14.0, 15.0]
    rows = [
        row("a", "CartPole-v1", low),
        row("b", "Pendulum-v1", low),
        row("c", "CartPole-v1", high),
        row("d", "CartPole-v1", []),
    ]
    results = Results(tuple(rows), compare_scored([row.seeds for row in rows]), (), Path("results.md"))
    assert [pair.first + pair.second for pair in results.compared.comparisons] == ["ac"]
    ((env, (verdict,)),) = results.verdicts.items()
    assert (env, "c is better than a" in verdict) == ("CartPole-v1", True)


def test_the_table_says_what_is_unknown_by_saying_nothing():
    _, _, one, none = markdown([row("a", "CartPole-v1", [3.0]), row("b", "CartPole-v1", [])])
    assert one.endswith("| 1,000 | 1 | 3.00 | 3.00 | 1 min 01 s |")
    assert none.endswith("| 1,000 | 0 |  |  | 1 min 01 s |")


# -- the shipped one


def test_the_shipped_matrices_are_found_by_name_and_are_no_configs(rlrun_command: Callable[..., Any]):
    assert find_matrix("tuning-matters") == shipped_matrices()["tuning-matters"]
    assert "tuning-matters" not in rlrun_command("configs").out
    outcome = rlrun_command("matrix", "tuning-maters")
    assert (outcome.code, 'Did you mean "tuning-matters"?' in outcome.err) == (2, True)


def test_the_shipped_matrix_has_the_settings_of_the_course():
    matrix = read_matrix("tuning-matters")
    cells = {cell.name: cell.config for cell in matrix.cells}
    assert len(matrix.runs()) == 35
    assert [cell.name for cell in matrix.cells if cell.is_untrained] == ["a2c-untrained"]
    assert [cells[name].total_timesteps for name in ("ppo-4k", "ppo-40k", "ppo-tuned")] == [4_000, 40_000, 50_000]
    assert cells["ppo-tuned"].hyperparameters["use_sde"]
    for name in ("a2c-default", "a2c-by-hand", "a2c-tuned"):
        assert (cells[name].total_timesteps, cells[name].evaluation.episodes) == (20_000, 50)
    assert cells["a2c-default"].hyperparameters == {"policy": "MlpPolicy"}
    by_hand, tuned = cells["a2c-by-hand"].hyperparameters, cells["a2c-tuned"].hyperparameters
    assert (by_hand["n_steps"], by_hand["learning_rate"], by_hand["gamma"]) == (5, 7e-4, 0.99)
    assert (tuned["n_steps"], tuned["learning_rate"], tuned["gamma"]) == (256, 0.00734, 0.9928)


def test_a_matrix_that_is_trained_as_a_config_is_told_from_one(rlrun_command: Callable[..., Any]):
    outcome = rlrun_command("check", written(), "--no-env")
    assert outcome.code == 2
    assert "This is a matrix: `rlrun matrix FILE` trains it." in outcome.err


# -- SLURM


def slurm_script(rlrun_command: Callable[..., Any]) -> Path:
    outcome = rlrun_command("matrix", written(), "--print-slurm", "--run-dir", "my runs")
    assert (outcome.code, outcome.err) == (0, "")
    Path("job.sh").write_text(outcome.out)
    assert not Path("my runs").exists()
    return Path("job.sh")


def test_the_slurm_script_asks_for_a_task_for_each_run(rlrun_command: Callable[..., Any]):
    text = slurm_script(rlrun_command).read_text()
    asked = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"array=0-5", "requeue", "signal=B:TERM@120", "cpus-per-task=1", "open-mode=append"} <= set(asked)
    assert "rlrun matrix m.yaml --run-dir 'my runs' --only \"$SLURM_ARRAY_TASK_ID\"" in text
    assert rlrun_command("matrix", "m.yaml", "--print-slurm", "--only", "1").code == 2


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_slurm_script(rlrun_command: Callable[..., Any]):
    checked = subprocess.run(["shellcheck", slurm_script(rlrun_command)], capture_output=True, text=True, check=False)
    assert checked.stdout == ""


@pytest.mark.parametrize(("answer", "requeued"), [(143, True), (1, False), (0, False)])
def test_the_slurm_script_hands_the_signal_on_and_queues_itself_again_if_the_state_is_saved(
    answer: int, requeued: bool, rlrun_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    script = slurm_script(rlrun_command)
    tools = Path("bin")
    tools.mkdir()
    (tools / "rlrun").write_text(f"#!/bin/bash\ntrap 'exit {answer}' TERM\necho \"$@\" > began\nsleep 60 & wait\n")
    (tools / "scontrol").write_text('#!/bin/bash\necho "$@" > requeued\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools.resolve()), prepend=":")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    process = subprocess.Popen(["bash", script])
    deadline = time.monotonic() + 30
    while not Path("began").exists() or not Path("began").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == answer
    assert Path("began").read_text() == "matrix m.yaml --run-dir my runs --only 4\n"
    assert Path("requeued").exists() is requeued
    if requeued:
        assert Path("requeued").read_text() == "requeue 77_4\n"


def test_the_slurm_script_ends_as_the_run_does(rlrun_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    script = slurm_script(rlrun_command)
    Path("bin").mkdir()
    Path("bin/rlrun").write_text("#!/bin/bash\nexit 3\n")
    Path("bin/rlrun").chmod(0o755)
    monkeypatch.setenv("PATH", str(Path("bin").resolve()), prepend=":")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    assert subprocess.run(["bash", script], check=False).returncode == 3
