"""Runs that go on: after an interruption, to a new budget, with changes; and what is refused."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
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


# -- interrupted runs


def test_an_interruption_saves_an_unscheduled_checkpoint_and_resuming_adds_one_cut():
    run = interrupted_at(300, "step")
    assert run.status == "interrupted"
    newest = run.directory.checkpoint_steps()[-1]
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
    run = interrupted_at(300, "step")
    done = run.manifest["timesteps"]
    outcome = rlrun_command("resume", "run", "--exact")
    assert outcome.code == 0
    assert f"Going back to 256 timesteps; {done - 256} are trained again." in outcome.err
    assert_same(undisturbed, found())
    assert found().summary()["resume"] == "exact"


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
        (("--timesteps", "640", "--set", "hyperparameters.policy_kwargs={net_arch: [4]}"), "do not fit"),
    ],
)
def test_changes_that_do_not_fit_leave_the_run_as_it_was(
    arguments: tuple[str, ...], message: str, rlrun_command: Command
):
    run = train()
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    outcome = rlrun_command("resume", "run", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before


def test_a_run_that_stopped_early_goes_on_only_without_its_reason(rlrun_command: Command):
    run = train(early_stop={"mean_return": 5, "window": 5})
    outcome = rlrun_command("resume", "run", "--timesteps", "640")
    assert outcome.code == 2
    assert "--set early_stop=null" in outcome.err
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
