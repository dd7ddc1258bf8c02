"""Runs that go on: after an interruption, to a new budget, with changes; and what is refused."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import assert_same
from conftest import Outcome

import rlrun
from rlrun.errors import Interrupted, UsageError
from rlrun.run import Run
from rlrun.runs.archive import read_tensors
from rlrun.runs.checkpoint import read_checkpoint
from rlrun.training import boundary
from rlrun.training.boundary import Boundary

pytestmark = pytest.mark.usefixtures("folder")
Command = Callable[..., Outcome]


def config(timesteps: int = 512, **sections: Any) -> dict[str, Any]:
    """A quick PPO on CartPole: a rollout is 64 timesteps, a checkpoint 128."""
    return {
        "algo": "ppo",
        "env": {"id": "CartPole-v1", "n_envs": 2},
        "normalize": True,
        "total_timesteps": timesteps,
        "hyperparameters": {"n_steps": 32, "batch_size": 64, "n_epochs": 1},
        "evaluation": {"every": 128, "episodes": 2},
        "checkpoint": {"every": 128},
        "trackers": [],
        **sections,
    }


def train(name: str = "run", timesteps: int = 512, **sections: Any) -> Run:
    return rlrun.train(config(timesteps, **sections), name=name, progress=False)


def found(name: str = "run") -> Run:
    return rlrun.open_run(name)


@contextlib.contextmanager
def at_step(timesteps: int, act: Callable[[], Any]) -> Iterator[None]:
    """Does something at each step from so many timesteps on."""
    step = Boundary._on_step

    def on_step(self: Boundary) -> bool:
        if self.model.num_timesteps >= timesteps:
            act()
        return step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Boundary, "_on_step", on_step)
        yield


def state(run: Run) -> dict[str, Any]:
    """The state of the newest checkpoint."""
    return run.directory.checkpoint_state(run.directory.checkpoint_steps()[-1])


def interrupted_at(timesteps: int, where: str, name: str = "run", **sections: Any) -> Run:
    """A run that got SIGTERM at its first step, or inside its first evaluation, at or after so many timesteps."""
    step, play = Boundary._on_step, boundary.evaluate

    def on_step(self: Boundary) -> bool:
        if where == "step" and self.model.num_timesteps >= timesteps:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    def evaluate(model: Any, *arguments: Any, **options: Any) -> Any:
        if where == "evaluation" and model.num_timesteps >= timesteps:
            os.kill(os.getpid(), signal.SIGTERM)
        return play(model, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Boundary, "_on_step", on_step)
        patch.setattr(boundary, "evaluate", evaluate)
        with pytest.raises(Interrupted):
            train(name, **sections)
    return found(name)


def weights(run: Run) -> dict[str, Any]:
    final = run.directory.pointer("final")
    return {
        key: value.numpy()
        for key, value in read_tensors(run.directory.checkpoint_path(final or 0) / "model.zip")["policy"].items()
    }


def contents(run: rlrun.Run) -> dict[Path, bytes]:
    """Every file of a run."""
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


# -- interrupted runs


def test_an_interruption_saves_an_unscheduled_checkpoint_and_resuming_adds_one_cut():
    run = interrupted_at(350, "step")
    assert run.status == "interrupted"
    newest = run.directory.checkpoint_steps()[-1]
    assert newest == 320  # the start of the rollout, of which nothing was learnt yet
    assert run.summary()["unscheduled"] == [newest]
    assert run.summary()["resume"] == "approximate"
    assert "unscheduled" in run.description()["checkpoints"]
    assert "--exact" in run.description()["resume"]
    resumed = run.resume(progress=False)
    assert resumed.status == "finished"
    assert resumed.summary()["extra_cuts"] == [newest]
    assert f"restarted at {newest} timesteps" in resumed.description()["resume"]


def test_exact_goes_back_to_the_last_scheduled_checkpoint_and_says_how_much_is_redone(rlrun_command: Command):
    undisturbed = train("undisturbed")
    interrupted_at(350, "step")
    outcome = rlrun_command("resume", "run", "--exact")
    assert outcome.code == 0
    assert "Going back to 256 timesteps; 64 timesteps are trained again." in outcome.err
    assert_same(undisturbed, found())
    assert found().summary()["resume"] == "exact"


def test_an_interruption_soon_after_a_checkpoint_costs_nothing():
    """The rollout that is played again begins where the checkpoint is."""
    undisturbed = train("undisturbed")
    run = interrupted_at(300, "step")
    assert (run.directory.checkpoint_steps()[-1], run.summary()["unscheduled"]) == (256, [])
    assert_same(undisturbed, run.resume(progress=False))
    assert run.summary()["resume"] == "exact"


def test_off_policy_an_interruption_between_boundaries_is_none():
    """At 130 timesteps a checkpoint would be due, if it were a boundary."""
    dqn = {"learning_starts": 50, "buffer_size": 400, "train_freq": 100}
    changes = {"algo": "dqn", "env": {"id": "CartPole-v1"}, "hyperparameters": dqn, "checkpoint": {"every": 110}}
    run = interrupted_at(130, "step", **changes, evaluation={"every": 110, "episodes": 2})
    assert run.directory.checkpoint_steps() == [130]
    resumed = run.resume(progress=False)
    assert resumed.summary()["extra_cuts"] == [130]
    assert resumed.summary()["resume"] == "approximate"
    with (run.path / "evaluations.csv").open(newline="") as stream:
        assert "130" not in {row["timesteps"] for row in csv.DictReader(stream)}


def test_a_run_that_is_interrupted_again_and_again_learns_as_often():
    changes = {"hyperparameters": {"n_steps": 64, "batch_size": 64, "n_epochs": 1}, "checkpoint": {"every": 0}}
    undisturbed = train("undisturbed", **changes)
    run = interrupted_at(50, "step", **changes)
    for timesteps in (150, 290, 350, 450):
        with at_step(timesteps, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(Interrupted):
            run.resume(progress=False)
    run.resume(progress=False)
    assert state(run)["learner"]["_n_updates"] == state(undisturbed)["learner"]["_n_updates"] == 4


def test_an_interrupted_iteration_of_random_search_begins_anew():
    run = interrupted_at(150, "step", algo="ars", hyperparameters={"n_delta": 2}, checkpoint={"every": 0})
    assert state(run)["session"]["visited"] == state(run)["timesteps"] < 150
    assert run.resume(progress=False).status == "finished"


@pytest.mark.parametrize("where", ["step", "evaluation"])
def test_with_the_default_trackers_an_interrupted_run_goes_on(where: str):
    """TensorBoard's writer of SB3 wants to know of every value what it is kept out of."""
    run = interrupted_at(300, where, trackers=["tensorboard"], log_every=256)
    assert run.resume(progress=False).status == "finished"


def test_exact_without_a_scheduled_checkpoint_says_that_everything_is_trained_again(rlrun_command: Command):
    run = interrupted_at(70, "step")
    done = run.manifest["timesteps"]
    assert done == 64
    outcome = rlrun_command("resume", "run", "--exact")
    assert outcome.code == 0
    assert "Going back to the beginning, because no checkpoint was scheduled before" in outcome.err
    assert f"{done} timesteps are trained again." in outcome.err


def test_resuming_says_from_where(rlrun_command: Command):
    interrupted_at(350, "step")
    outcome = rlrun_command("resume", "run")
    assert "Going on from 320 timesteps, where an interruption saved it" in outcome.err


def test_the_best_of_a_checkpoint_is_there_as_long_as_the_checkpoint(monkeypatch: pytest.MonkeyPatch):
    """A better one came after the checkpoint; a run that goes back to the checkpoint has the older best again."""
    scores = iter([10.0, 5.0, 20.0, 1.0])
    play = boundary.evaluate

    def evaluate(*arguments: Any, **options: Any) -> Any:
        found = play(*arguments, **options)
        return dataclasses.replace(found, returns=[next(scores)] * len(found.returns))

    class Killed(BaseException):
        pass

    def dies(self: Boundary) -> bool:
        if self.model.num_timesteps > 200:
            raise Killed
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundary, "evaluate", evaluate)
        patch.setattr(Boundary, "_on_step", dies)
        with pytest.raises(Killed):
            train(evaluation={"every": 64, "episodes": 1}, checkpoint={"every": 128, "keep": 1})
    run = found()
    assert run.directory.pointer("best") == 192
    assert run.directory.checkpoint_steps() == [64, 128, 192]
    run.directory.update_manifest({"status": "running"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundary, "evaluate", evaluate)
        scores = iter([1.0] * 10)
        assert run.resume(progress=False).directory.pointer("best") == 64


def test_without_a_best_checkpoint_none_is_made_up():
    run = train(timesteps=64)
    (run.path / "best").unlink()
    (run.path / "results.json").unlink(missing_ok=True)
    assert run.end_results()["best"] is None
    assert run.description()["best model"] == ""


@pytest.mark.parametrize(
    "change", [{"buffer_size": 900}, {"policy_kwargs": {"net_arch": [8]}}, {"replay_buffer_class": "NStepReplayBuffer"}]
)
def test_what_a_checkpoint_remembers_cannot_change_its_shape(change: dict[str, Any]):
    dqn = {"learning_starts": 50, "buffer_size": 100, "policy_kwargs": {"net_arch": [4]}}
    run = rlrun.train(
        {**config(300), "algo": "dqn", "env": {"id": "CartPole-v1"}, "hyperparameters": dqn}, name="dqn", progress=False
    )
    before = (run.path / "config.yaml").read_bytes()
    ((key, value),) = change.items()
    with pytest.raises(UsageError, match=f"hyperparameters.{key}.* cannot be changed in the middle of a run"):
        run.resume(timesteps=400, overrides={f"hyperparameters.{key}": value}, progress=False)
    assert (run.path / "config.yaml").read_bytes() == before
    assert run.directory.pointer("final") == 300


def test_priorities_keep_the_exponent_that_they_were_raised_with():
    dqn = {"learning_starts": 50, "buffer_size": 100, "prioritized_replay": True}
    cartpole = {"algo": "dqn", "env": {"id": "CartPole-v1"}, "hyperparameters": dqn, "normalize": None}
    run = rlrun.train({**config(200), **cartpole}, name="dqn", progress=False)
    with pytest.raises(UsageError, match="cannot be changed in the middle of a run"):
        run.resume(timesteps=300, overrides={"hyperparameters.prioritized_replay_alpha": 0.9}, progress=False)


def test_a_smaller_budget_within_a_falling_learning_rate_is_learnt_to_its_end():
    falling = {**config()["hyperparameters"], "learning_rate": "lin_1e-3"}
    run = interrupted_at(200, "step", hyperparameters=falling)
    assert run.resume(timesteps=384, progress=False).status == "finished"
    assert found().directory.pointer("final") == 384


def test_a_resume_that_cannot_begin_leaves_the_run_as_it_was(monkeypatch: pytest.MonkeyPatch, rlrun_command: Command):
    run = train()
    before = contents(run)
    monkeypatch.setattr("rlrun.training.train.build_model", lambda *_: (_ for _ in ()).throw(UsageError("no")))
    outcome = rlrun_command("resume", "run", "--timesteps", "1024")
    assert (outcome.code, outcome.out) == (2, "")
    assert "error: no" in outcome.err
    assert "Going on" not in outcome.err
    assert contents(run) == before


OWN = """
import gymnasium as gym, numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import FlattenExtractor

class Walk(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    def __init__(self): self.goal = np.random.uniform(-1, 1)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 10
        return np.full(2, self.goal, np.float32), {}
    def step(self, action):
        self.left -= 1
        return np.full(2, self.goal, np.float32), float(action), self.left == 0, False, {}

class Features(FlattenExtractor): pass

class Ending(BaseCallback):
    def _on_step(self): return True
    def _on_training_end(self):
        with open("ended", "a") as stream: stream.write("x")
"""


def own_config(vec: str) -> dict[str, Any]:
    policy = {"features_extractor_class": "own_things:Features"}
    return config(
        env={"id": "own_things:Walk", "n_envs": 2, "vec": vec},
        hyperparameters={"n_steps": 32, "batch_size": 64, "n_epochs": 1, "policy_kwargs": policy},
        callbacks=[{"class": "own_things:Ending"}],
    )


@pytest.mark.parametrize("vec", ["serial", "workers"])
def test_a_run_with_own_code_is_resumed_by_a_fresh_process_from_elsewhere(vec: str):
    Path("own_things.py").write_text(OWN)
    Path("c.yaml").write_text(json.dumps(own_config(vec)))
    Path("elsewhere").mkdir()

    def rlrun_in(folder: str, *arguments: str) -> None:
        code = "import sys; from rlrun.cli import main; main()"  # no current folder on the path, as a console script
        done = subprocess.run(
            [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", code, *arguments],
            **{"cwd": folder, "capture_output": True, "text": True, "check": False},
        )
        assert done.returncode == 0, done.stderr

    rlrun_in(".", "train", "c.yaml", "--name", "run")
    rlrun_in("elsewhere", "resume", str(found().path), "--timesteps", "640")
    assert found().directory.pointer("final") == 640


@pytest.mark.parametrize("vec", ["serial", "workers"])
def test_an_env_that_draws_while_it_is_built_is_repeated_too(vec: str):
    Path("own_things.py").write_text(OWN)
    runs = [rlrun.train(own_config(vec), name=name, progress=False) for name in ("one", "two")]
    assert_same(*runs)


def test_a_run_in_workers_that_is_interrupted_and_resumed_ends_as_the_serial_one():
    serial = train("serial", env={"id": "CartPole-v1", "n_envs": 3, "vec": "serial"})
    workers = {"env": {"id": "CartPole-v1", "n_envs": 3, "vec": "workers"}}
    run = interrupted_at(400, "step", **workers)
    assert run.summary()["unscheduled"] == []
    assert_same(serial, run.resume(progress=False))
    assert run.summary()["resume"] == "exact"


def test_where_envs_are_stepped_is_noted_anew_by_a_session_that_goes_on():
    run = interrupted_at(300, "step")
    earlier = run.summary()["notes"]
    notes = run.resume(progress=False).summary()["notes"]
    assert [note.partition(" ")[0] for note in notes] == [note.partition(" ")[0] for note in earlier]
    assert notes[-1].startswith("envs serial: ")


@pytest.mark.parametrize("end", ["early stop", "budget", "max_time"])
def test_the_users_callbacks_are_told_of_every_end(end: str):
    Path("own_things.py").write_text(OWN)
    more: dict[str, Any] = {"early_stop": {"mean_return": -1.0, "window": 1}} if end == "early stop" else {}
    more |= {"max_time": 0.3, "total_timesteps": 10**6} if end == "max_time" else {}
    rlrun.train({**own_config("serial"), **more}, name="run", progress=False)
    assert Path("ended").read_text() == "x"


def test_a_run_in_progress_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(boundary, "_TELL_EVERY", 0.0)
    told: list[int] = []
    step = Boundary._on_step

    def on_step(self: Boundary) -> bool:
        told.append(self.run.manifest()["timesteps"])
        return step(self)

    monkeypatch.setattr(Boundary, "_on_step", on_step)
    train(checkpoint={"every": 0})
    assert set(told) == set(range(0, 512, 64))


@pytest.mark.parametrize("timesteps", [256, 512])
def test_an_interrupted_evaluation_is_made_up_for_and_the_run_ends_as_if_left_alone(timesteps: int):
    """The boundary goes on where it was left: evaluate, save, and only then cut."""
    undisturbed = train("undisturbed")
    run = interrupted_at(timesteps, "evaluation")
    assert run.directory.checkpoint_steps()[-1] == timesteps
    assert run.directory.pointer("final") is None
    resumed = run.resume(progress=False)
    assert_same(undisturbed, resumed)
    assert resumed.summary()["extra_cuts"] == []
    assert resumed.directory.pointer("final") == 512
    assert resumed.directory.pointer("best") == undisturbed.directory.pointer("best")


def test_max_time_is_looked_at_during_evaluations():
    run = train(max_time=0.001)
    assert run.status == "paused"
    assert run.manifest["stopped_by"] == "max_time"


def test_resuming_keeps_the_max_time_of_the_config_unless_another_is_given():
    run = train(timesteps=6400, max_time=0.2)
    assert run.resume(progress=False).status == "paused"
    assert run.resume(max_time=600, progress=False).status == "finished"


@pytest.mark.parametrize("moment", ["before the pointers", "before the end is noted"])
def test_a_run_that_died_after_its_last_checkpoint_only_notes_its_end(moment: str):
    undisturbed = train("undisturbed")
    run = train()
    run.directory.update_manifest({"status": "running"})
    if moment == "before the pointers":
        for name in ("final", "best", "latest"):
            (run.path / name).unlink(missing_ok=True)
    assert run.status == "killed"
    resumed = run.resume(progress=False)
    assert resumed.manifest["ended_by"] == "budget"
    assert_same(undisturbed, resumed)
    assert [resumed.directory.pointer(name) for name in ("final", "latest")] == [512, 512]
    assert resumed.directory.pointer("best") == undisturbed.directory.pointer("best")


def test_a_run_that_stopped_early_and_died_before_noting_it_does_not_train_on():
    settings = {"early_stop": {"mean_return": 5, "window": 5}}
    run = train(**settings)
    done = run.manifest["timesteps"]
    assert done < 512
    run.directory.update_manifest({"status": "running"})
    resumed = run.resume(progress=False)
    assert resumed.manifest["timesteps"] == done
    assert "reached 5" in resumed.manifest["ended_by"]


def test_what_a_dead_run_left_after_its_checkpoint_is_forgotten():
    run = interrupted_at(300, "step")
    later = run.directory.checkpoint_path(320)
    later.mkdir()
    (run.path / "best").write_text("checkpoints/320\n")
    (run.path / ".half.tmp").write_text("half")
    resumed = run.resume(exact=True, progress=False)
    assert not (resumed.path / ".half.tmp").exists()
    assert resumed.directory.pointer("best") in resumed.directory.checkpoint_steps()


def test_without_exactness_the_envs_run_on_at_checkpoints():
    exact, running_on = train("exact"), train("running-on", checkpoint={"every": 128, "exact": False})
    assert not all(np.array_equal(value, weights(running_on)[key]) for key, value in weights(exact).items())
    assert running_on.summary()["resume"] == "approximate"
    assert "checkpoint.exact is false" in running_on.description()["resume"]
    unspaced = train("unspaced", checkpoint={"every": 0})
    assert all(np.array_equal(value, weights(running_on)[key]) for key, value in weights(unspaced).items())


def test_a_damaged_checkpoint_is_passed_over_with_a_warning_and_named_when_there_is_no_other(rlrun_command: Command):
    run = interrupted_at(300, "step")
    newest = run.directory.checkpoint_steps()[-1]
    (run.directory.checkpoint_path(newest) / "model.zip").write_bytes(b"")
    outcome = rlrun_command("resume", "run", "--max-time", "1h")
    assert outcome.code == 0
    assert f"The checkpoint at {newest} timesteps is damaged" in outcome.err
    broken = interrupted_at(300, "step", "broken")
    for steps in broken.directory.checkpoint_steps():
        (broken.directory.checkpoint_path(steps) / "state.json").unlink()
    outcome = rlrun_command("resume", "broken")
    assert outcome.code == 2
    assert "has no whole checkpoint" in outcome.err
    assert "state.json is missing" in outcome.err


def test_two_processes_do_not_train_one_run(rlrun_command: Command):
    from rlrun.runs.lock import locked

    run = interrupted_at(300, "step")
    with locked(run.path):
        for command in (("resume", "run"), ("prune", "run"), ("prune", "run", "--delete", "--yes")):
            outcome = rlrun_command(*command)
            assert outcome.code == 2
            assert f"process {os.getpid()} on" in outcome.err
        assert rlrun_command("resume", "run", "--steal").code == 0


def test_another_machine_or_version_is_said_and_training_goes_on(rlrun_command: Command):
    run = interrupted_at(300, "step")
    versions, hardware = run.manifest["versions"], run.manifest["hardware"]
    run.directory.update_manifest(
        {"versions": {**versions, "torch": "1.0"}, "hardware": {**hardware, "cpu": "abacus", "cores": 99}}
    )
    outcome = rlrun_command("resume", "run")
    assert outcome.code == 0
    assert "torch 1.0, now" in outcome.err
    assert "cpu abacus, now" in outcome.err
    assert "cores 99, now" in outcome.err
    assert len(found().manifest["resumed"][0]["differences"]) == 3


# -- new budgets and changes


def learning_rates(run: Run) -> list[float]:
    with (run.path / "metrics.csv").open(newline="") as stream:
        return [float(row["train/learning_rate"]) for row in csv.DictReader(stream) if row["train/learning_rate"]]


def test_a_finished_run_goes_on_to_a_new_total_as_one_history():
    sections = {"hyperparameters": {**config()["hyperparameters"], "learning_rate": {"linear": [1e-3, 1e-4]}}}
    run = train(log_every=64, **sections)
    before = learning_rates(run)
    resumed = run.resume(timesteps=768, progress=False)
    assert resumed.status == "finished"
    assert resumed.manifest["timesteps"] == 768
    assert rlrun.open_run("run").config.total_timesteps == 768
    after = learning_rates(resumed)
    assert after[: len(before)] == before
    assert len(after) == 12
    assert after[-3:] == [pytest.approx(1e-4)] * 3  # the schedule keeps its end value
    assert resumed.summary()["extra_cuts"] == [512]
    with (resumed.path / "evaluations.csv").open(newline="") as stream:
        assert sorted({int(row["timesteps"]) for row in csv.DictReader(stream)}) == [128, 256, 384, 512, 640, 768]
    assert resumed.manifest["resumed"][0]["changes"] == {"total_timesteps": 768, "schedule_timesteps": 512}


def test_an_extended_run_that_is_killed_goes_on_as_exactly():
    undisturbed = train("undisturbed").resume(timesteps=1024, progress=False)
    run = train()

    def dies(self: Boundary) -> bool:
        if self.model.num_timesteps > 900:
            raise MemoryError
        return step(self)

    step = Boundary._on_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Boundary, "_on_step", dies)
        with pytest.raises(rlrun.errors.RlrunError):
            run.resume(timesteps=1024, progress=False)
    assert_same(undisturbed, run.resume(progress=False))


def test_an_extended_run_that_dies_before_its_next_checkpoint_still_goes_on():
    undisturbed = train("undisturbed").resume(timesteps=640, progress=False)
    run = train()

    def dies(self: Boundary) -> bool:
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Boundary, "_on_step", dies)
        with pytest.raises(rlrun.errors.RlrunError):
            run.resume(timesteps=640, progress=False)
    assert_same(undisturbed, run.resume(progress=False))


def test_a_learning_rate_that_ended_at_zero_needs_a_new_one(rlrun_command: Command):
    train(hyperparameters={**config()["hyperparameters"], "learning_rate": "lin_1e-3"})
    outcome = rlrun_command("resume", "run", "--timesteps", "640")
    assert outcome.code == 2
    assert "--set hyperparameters.learning_rate=" in outcome.err
    assert found().status == "finished"
    assert found().config.total_timesteps == 512
    outcome = rlrun_command("resume", "run", "--timesteps", "640", "--set", "hyperparameters.learning_rate=1e-4")
    assert outcome.code == 0, outcome.err
    assert learning_rates(found())[-1] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--timesteps", "100"), "has 512 timesteps already"),
        (("--timesteps", "640", "--set", "env.id=Acrobot-v1"), "cannot be changed in the middle of a run"),
        (("--timesteps", "640", "--set", "seed=3"), "cannot be changed in the middle of a run"),
        (("--timesteps", "640", "--set", "hyperparameters.n_step=3"), 'Did you mean "n_steps"?'),
        (("--timesteps", "640", "--set", "hyperparameters.policy_kwargs={net_arch: [4]}"), "would no longer fit"),
    ],
)
def test_changes_that_do_not_fit_leave_the_run_as_it_was(
    arguments: tuple[str, ...], message: str, rlrun_command: Command
):
    run = train()
    before = contents(run)
    outcome = rlrun_command("resume", "run", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Going on" not in outcome.err
    assert contents(run) == before


def test_a_run_that_stopped_early_goes_on_only_without_its_reason(rlrun_command: Command):
    run = train(early_stop={"mean_return": 5, "window": 5})
    outcome = rlrun_command("resume", "run", "--timesteps", "640")
    assert outcome.code == 2
    assert "--set early_stop=null" in outcome.err
    assert "Going on" not in outcome.err
    assert run.status == "finished"
    assert rlrun_command("resume", "run", "--timesteps", "640", "--set", "early_stop=null").code == 0
    assert found().manifest["timesteps"] == 640


def test_a_finished_run_without_a_new_total_is_left_alone(rlrun_command: Command):
    run = train()
    stamp = (run.path / "manifest.json").stat().st_mtime_ns
    outcome = rlrun_command("resume", "run", "--timesteps", "512", "--json")
    assert outcome.code == 0
    assert "nothing to resume" in outcome.err
    assert json.loads(outcome.out)["timesteps"] == 512
    assert (run.path / "config.yaml").exists()
    assert (run.path / "manifest.json").stat().st_mtime_ns >= stamp


def test_changes_of_a_finished_run_without_a_new_total_are_refused(rlrun_command: Command):
    run = train()
    before = contents(run)
    outcome = rlrun_command("resume", "run", "--set", "max_time=1h")
    assert outcome.code == 2
    assert "nothing that max_time would change" in outcome.err
    assert "--timesteps N" in outcome.err
    assert contents(run) == before


def test_exact_does_not_throw_away_what_a_smaller_budget_has_no_room_for(rlrun_command: Command):
    run = interrupted_at(350, "step")
    done = max(run.directory.checkpoint_steps())
    outcome = rlrun_command("resume", "run", "--exact", "--timesteps", str(done - 32))
    assert outcome.code == 2
    assert f"has {done} timesteps already" in outcome.err
    assert max(run.directory.checkpoint_steps()) == done


# -- what a run keeps of what happened


def test_the_manifest_counts_timesteps_and_seconds_at_every_checkpoint():
    seen: list[tuple[int, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        cut = Boundary.cut

        def noting(self: Boundary, timesteps: int) -> None:
            seen.append((self.run.manifest()["timesteps"], self.run.manifest()["seconds"]))
            cut(self, timesteps)

        patch.setattr(Boundary, "cut", noting)
        run = train()
    assert [timesteps for timesteps, _ in seen] == [128, 256, 384]
    assert 0 < seen[0][1] < seen[1][1] < seen[2][1] <= run.manifest["seconds"]


def test_a_checkpoint_names_the_best_of_its_moment():
    run = train()
    for steps in run.directory.checkpoint_steps():
        session = read_checkpoint(run.directory, steps).state["session"]
        assert session["best_timesteps"] <= steps


def test_a_parent_without_statistics_does_not_start_a_run_that_normalizes():
    parent = train("parent", normalize=False)
    with pytest.raises(UsageError, match="only one side normalizes"):
        rlrun.train(config(), name="child", overrides={"init_from": str(parent.path)}, progress=False)
    assert not Path("runs/CartPole-v1/ppo/child").exists()


def test_a_run_starts_from_another_by_its_name():
    train("parent")
    child = rlrun.train(config(128), name="child", overrides={"init_from": "parent"}, progress=False)
    assert child.manifest["parent"]["path"].endswith("timesteps")
    latest = rlrun.train(config(128), name="second", overrides={"init_from": "latest"}, progress=False)
    assert "child" in latest.manifest["parent"]["path"]
