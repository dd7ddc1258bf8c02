from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO

import rlrun
from rlrun import cli
from rlrun.errors import RlrunError
from rlrun.run import Run
from rlrun.runs.archive import read_tensors
from rlrun.runs.checkpoint import newest_resumable, read_checkpoint


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def train(timesteps: int = 256, name: str | None = None, **overrides: Any) -> Run:
    """A quick PPO on CartPole; ``a__b`` stands for ``a.b``."""
    config = {
        "algo": "ppo",
        "env": {"id": "CartPole-v1", "n_envs": 2},
        "total_timesteps": timesteps,
        "hyperparameters": {"n_steps": 32, "batch_size": 64, "n_epochs": 1},
        "evaluation": {"every": 0, "episodes": 2},
        "trackers": [],
    }
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    return rlrun.train(config, overrides=given, name=name, progress=False)


def rows(run: Run, file: str) -> list[dict[str, str]]:
    with (run.path / file).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_training_ends_when_the_mean_return_of_the_window_is_reached():
    run = train(4096, early_stop={"mean_return": 5, "window": 10})
    assert run.status == "finished"
    assert run.manifest["timesteps"] < 4096
    assert "reached 5" in run.manifest["ended_by"]
    assert run.directory.pointer("final") == run.manifest["timesteps"]
    last = [float(row["return"]) for row in rows(run, "episodes.csv")][-10:]
    assert np.mean(last) >= 5


def test_training_ends_when_evaluations_bring_no_new_best():
    run = train(8192, early_stop={"patience": 2}, evaluation__every=64, hyperparameters__learning_rate=0.0)
    assert run.manifest["timesteps"] == 64 * 3
    assert run.manifest["ended_by"] == "2 evaluations in a row brought no new best"
    assert run.directory.pointer("best") == 64


def test_max_time_pauses_a_run_and_resume_ends_it():
    run = train(1_000_000, name="slow", max_time=3)
    assert run.status == "paused"
    assert run.directory.pointer("final") is None
    assert 0 < run.manifest["timesteps"] < 1_000_000
    again = run.resume(max_time=3, progress=False)
    assert again.status == "paused"
    assert again.manifest["timesteps"] > 64


def test_a_named_run_is_started_continued_and_left_alone_by_the_same_line(capsys: pytest.CaptureFixture[str]):
    line = ["train", "CartPole-v1/ppo", "--timesteps", "512", "--name", "job", "--resume", "--json"]
    line += ["--set", "evaluation.episodes=1", "--set", "checkpoint.every=256"]
    assert cli.run(line) == 0
    first = json.loads(capsys.readouterr().out)
    assert list(first) == [
        "run",
        "algo",
        "env",
        "seed",
        "timesteps",
        "seconds",
        "timesteps_per_second",
        "final",
        "best",
    ]
    assert cli.run(line) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == first
    assert "nothing to resume" in shown.err
    assert cli.run([*line, "--seed", "1"]) == 2
    assert "seed is 0, not 1" in capsys.readouterr().err
    run = rlrun.open_run(first["run"])
    run.directory.update_manifest({"status": "running"})
    (run.path / "final").unlink()
    assert cli.run(line) == 0
    assert json.loads(capsys.readouterr().out)["final"]["returns"] == first["final"]["returns"]


def test_a_new_run_starts_from_the_weights_and_statistics_of_another():
    parent = train(normalize=True)
    child = train(64, normalize=True, init_from=str(parent.path), hyperparameters__learning_rate=0.0)
    assert child.manifest["parent"]["path"].startswith(str(parent.path))
    assert len(child.manifest["parent"]["sha256"]) == 64
    before, after = (
        read_tensors(r.directory.checkpoint_path(s) / "model.zip") for r, s in ((parent, 256), (child, 64))
    )
    weights = "mlp_extractor.policy_net.0.weight"
    assert np.array_equal(before["policy"][weights], after["policy"][weights])
    counts = [
        float((read_checkpoint(r.directory, s).statistics or {})["obs.count"]) for r, s in ((parent, 256), (child, 64))
    ]
    assert counts[1] == counts[0] + 64 + 2


def test_a_new_run_starts_from_a_plain_sb3_zip(tmp_path: Path):
    model = PPO("MlpPolicy", "CartPole-v1", device="cpu")
    model.save(tmp_path / "plain.zip")
    child = train(64, init_from=str(tmp_path / "plain.zip"), hyperparameters__learning_rate=0.0)
    after = read_tensors(child.directory.checkpoint_path(64) / "model.zip")["policy"]
    assert all(np.array_equal(value, after[key]) for key, value in model.policy.state_dict().items())


def test_weights_of_another_shape_are_refused_and_nothing_is_created(tmp_path: Path):
    PPO("MlpPolicy", "Pendulum-v1", device="cpu").save(tmp_path / "other.zip")
    with pytest.raises(RlrunError, match="do not fit"):
        train(init_from=str(tmp_path / "other.zip"))
    assert not (tmp_path / "runs").exists()


def test_only_the_newest_checkpoints_the_best_and_the_final_one_are_kept():
    run = train(640, checkpoint={"every": 64, "keep": 2}, evaluation__every=128, hyperparameters__learning_rate=0.0)
    steps = run.directory.checkpoint_steps()
    assert steps == sorted({run.directory.pointer("best"), 576, 640})
    assert run.directory.pointer("latest") == 640


def test_checkpoints_kept_only_for_evaluation_push_out_none_that_training_can_go_on_from():
    """Every evaluation is a new best one, and comes far more often than a checkpoint."""
    config: dict[str, Any] = {
        "algo": "ppo",
        "env": {"id": "CartPole-v1", "n_envs": 2},
        "total_timesteps": 4096,
        "hyperparameters": {"n_steps": 32, "batch_size": 64, "n_epochs": 1},
        "evaluation": {"every": 64, "episodes": 1},
        "checkpoint": {"every": 512, "keep": 1},
        "trackers": [],
    }
    evaluate = "rlrun.training.boundary.Boundary._evaluate"
    save = "rlrun.training.boundary.write_checkpoint"
    from rlrun.training import boundary

    def dies(run: Any, model: Any, *arguments: Any, **options: Any) -> int:
        if model.num_timesteps > 900:
            raise KeyboardInterrupt
        return write(run, model, *arguments, **options)

    write = boundary.write_checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, lambda self, now: True)
        patch.setattr(save, dies)
        with pytest.raises(RlrunError):
            rlrun.train(config, name="improving", progress=False)
    run = rlrun.open_run(next(Path("runs").glob("*/*/improving")))
    assert run.directory.checkpoint_steps() == [512, run.directory.pointer("best")]
    assert newest_resumable(run.directory)[0].timesteps == 512  # type: ignore[union-attr]


CALLBACK = """
from stable_baselines3.common.callbacks import BaseCallback

class StopAt(BaseCallback):
    def __init__(self, timesteps):
        super().__init__()
        self.timesteps = timesteps

    def _on_step(self):
        return self.num_timesteps < self.timesteps
"""


def test_a_callback_of_the_user_may_end_training(tmp_path: Path):
    (tmp_path / "own_callbacks.py").write_text(CALLBACK)
    run = train(4096, callbacks=[{"class": "own_callbacks:StopAt", "kwargs": {"timesteps": 100}}])
    assert run.status == "finished"
    assert run.manifest["timesteps"] == 100
    assert run.manifest["ended_by"] == "a callback ended training"


FALLING = """
import gymnasium as gym
import numpy as np

class Falls(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps > 50:
            raise OSError("the robot fell over")
        return np.zeros(1, np.float32), 0.0, False, False, {}
"""


@pytest.mark.parametrize("vec", ["serial", "workers"])
def test_an_env_that_breaks_ends_the_run_with_one_sentence(
    vec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "falling.py").write_text(FALLING)
    (tmp_path / "falling.yaml").write_text(
        f"algo: ppo\nenv: {{id: 'falling:Falls', n_envs: 2, vec: {vec}}}\n"
        "total_timesteps: 1000\nhyperparameters: {n_steps: 16, batch_size: 32}\n"
    )
    assert cli.run(["train", "falling.yaml", "--name", "x"]) == 1
    shown = capsys.readouterr().err
    assert "error: Training failed" in shown
    assert "Traceback" not in shown
    run = rlrun.open_run(next((tmp_path / "runs").glob("*/*/x")))
    assert run.status == "failed"


def test_metrics_have_a_row_at_each_log_point_with_sb3s_names():
    run = train(256, log_every=128, checkpoint__every=0)
    found = rows(run, "metrics.csv")
    assert [row["timesteps"] for row in found] == ["128", "256"]
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "train/loss", "train/approx_kl", "time/fps"} <= set(found[0])
    assert float(found[-1]["rollout/ep_rew_mean"]) == pytest.approx(
        np.mean([float(row["return"]) for row in rows(run, "episodes.csv")]), rel=1e-6
    )


def test_tensorboard_files_appear_by_default():
    run = rlrun.train("CartPole-v1/ppo", timesteps=256, overrides={"evaluation.episodes": 0}, progress=False)
    assert list((run.path / "tensorboard").glob("events.out.tfevents.*"))


FAKES = {
    "wandb": "LOG = []\ndef init(**settings):\n    LOG.append(('init', settings))\n    return Run()\n"
    "class Run:\n    def log(self, values, step): LOG.append((step, values))\n"
    "    def finish(self): LOG.append('end')\n",
    "trackio": "LOG = []\ndef init(**settings): LOG.append(('init', settings))\n"
    "def log(values, step): LOG.append((step, values))\ndef finish(): LOG.append('end')\n",
    "mlflow": "LOG = []\ndef set_tracking_uri(uri): LOG.append(uri)\ndef set_experiment(name): LOG.append(name)\n"
    "def search_runs(**_): return []\ndef set_tag(name, value): pass\n"
    "def start_run(**settings): LOG.append(('init', settings))\ndef log_params(values): LOG.append(values)\n"
    "def log_metrics(values, step): LOG.append((step, values))\ndef end_run(): LOG.append('end')\n",
}


@pytest.mark.parametrize("name", FAKES)
def test_a_tracker_is_told_the_run_its_numbers_and_its_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "fakes").mkdir()
    (tmp_path / "fakes" / f"{name}.py").write_text(FAKES[name])
    monkeypatch.syspath_prepend(str(tmp_path / "fakes"))
    monkeypatch.delitem(sys.modules, name, raising=False)
    run = train(128, name="tracked", trackers=[{name: {"tags": ["a"]} if name != "mlflow" else {"experiment": "e"}}])
    log = sys.modules[name].LOG  # type: ignore[attr-defined]
    settings = next(entry[1] for entry in log if isinstance(entry, tuple) and entry[0] == "init")
    assert "tracked" in settings.values()
    numbers = next(entry[1] for entry in log if isinstance(entry, tuple) and entry[0] == 128)
    assert numbers["rollout/ep_rew_mean"] == float(rows(run, "metrics.csv")[-1]["rollout/ep_rew_mean"])
    assert log[-1] == "end"
    sys.modules.pop(name)


def test_a_full_disk_is_one_sentence_and_the_run_says_that_it_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    import errno

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stable_baselines3.PPO.save", full)
    assert cli.run(["train", "CartPole-v1/ppo", "--timesteps", "256", "--name", "x"]) == 1
    shown = capsys.readouterr().err
    assert "The disk is full while writing a checkpoint" in shown
    assert "Traceback" not in shown
    run = rlrun.open_run(tmp_path / "runs" / "CartPole-v1" / "ppo" / "x")
    assert run.status == "failed"
    assert run.directory.checkpoint_steps() == []
    assert not list((run.path / "checkpoints").iterdir())


def test_pruning_keeps_what_can_be_evaluated_and_delete_removes_all(capsys: pytest.CaptureFixture[str]):
    run = train(640, checkpoint={"every": 64, "keep": 5})
    assert cli.run(["prune", str(run.path)]) == 0
    assert run.directory.checkpoint_steps() == [640]
    assert run.evaluate(1).checkpoint == "best"
    assert cli.run(["prune", str(run.path), "--delete", "--yes"]) == 0
    assert not run.path.exists()
    assert not Path("runs/CartPole-v1").exists()
    assert "freed" in capsys.readouterr().out


def test_a_run_shows_itself_in_a_notebook_and_in_the_shell(capsys: pytest.CaptureFixture[str]):
    run = train()
    html = run._repr_html_()
    assert "<th>status</th><td>finished" in html
    assert f"<td>{run.directory.checkpoint_path(256) / 'model.zip'}</td>" in html
    assert "final model" not in html, "nobody evaluated it yet"
    results = run.end_results()
    assert "<th>final model</th><td>" in run._repr_html_()
    assert "over 2 episodes, 95 % interval" in run.description()["best model"]
    assert repr(run.evaluate(2)).startswith(f"Result(mean_return={results['final']['mean_return']:.6g}, std_return=")
    assert "finished" in repr(run)
    assert cli.run(["runs", "--json"]) == 0
    assert [row["timesteps"] for row in json.loads(capsys.readouterr().out)] == [256]
    assert cli.run(["show", "latest", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["final"] == 256
    assert shown["versions"]["stable-baselines3"]


def test_the_resolved_config_of_a_run_repeats_it():
    first = rlrun.train(
        "CartPole-v1/a2c", timesteps=400, overrides={"evaluation.every": 200, "normalize": True}, progress=False
    )
    second = rlrun.train(first.path / "config.yaml", progress=False)
    tensors = [read_tensors(r.directory.checkpoint_path(400) / "model.zip")["policy"] for r in (first, second)]
    assert all(np.array_equal(value, tensors[1][key]) for key, value in tensors[0].items())
    assert (first.path / "config.yaml").read_text() == (second.path / "config.yaml").read_text()


def test_the_fail_under_of_an_evaluation_is_its_exit_code(capsys: pytest.CaptureFixture[str]):
    run = train()
    assert cli.run(["eval", str(run.path), "--episodes", "5", "--fail-under", "1"]) == 0
    assert cli.run(["eval", str(run.path), "--episodes", "5", "--fail-under", "501"]) == 1
    assert "is below 501" in capsys.readouterr().err
    assert cli.run(["eval", str(run.path), "--json", "--episodes", "3", "--seed", "4", "--stochastic"]) == 0
    result = json.loads(capsys.readouterr().out)
    wanted = "run checkpoint timesteps episodes deterministic seed mean_return std_return ci95 mean_length success_rate"
    assert list(result) == [*wanted.split(), "cut", "returns"]
    assert (result["seed"], result["episodes"], result["deterministic"]) == (4, 3, False)
