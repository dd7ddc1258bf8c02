"""Runs whose budget is counted in episodes: trained, killed, resumed, extended, shown; and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import assert_same, killed_and_resumed
from conftest import Outcome

import rlrun
from rlrun.algorithms.q_learning import QLearning
from rlrun.algorithms.reinforce import REINFORCE
from rlrun.config.loading import read_source
from rlrun.config.locate import shipped_configs
from rlrun.errors import ConfigError, UsageError
from rlrun.publish.card import LEADERBOARD, board_id
from rlrun.run import Run
from rlrun.runs.load import load_agent
from rlrun.training.plan import make_plan

pytestmark = pytest.mark.usefixtures("folder")
Command = Callable[..., Outcome]

LAKE = {"algo": "q_learning", "env": {"id": "FrozenLake-v1", "kwargs": {"is_slippery": False}}}
POLE = {
    "algo": "reinforce",
    "env": {"id": "CartPole-v1"},
    "hyperparameters": {
        "policy_kwargs": {"net_arch": [8]},
        "baseline": True,
        "learning_rate": {"linear": [1e-2, 1e-3]},
    },
}


def config(base: dict[str, Any], episodes: int = 50, **sections: Any) -> dict[str, Any]:
    return {**base, "total_episodes": episodes, "evaluation": {"episodes": 2}, "trackers": [], **sections}


def train(base: dict[str, Any], episodes: int = 50, name: str = "run", **sections: Any) -> Run:
    return rlrun.train(config(base, episodes, **sections), name=name, progress=False)


def column(run: Run, file: str, name: str) -> list[float]:
    with (run.path / file).open(newline="") as stream:
        return [float(row[name]) for row in csv.DictReader(stream) if row.get(name)]


@pytest.mark.parametrize("base", [LAKE, POLE], ids=["q_learning", "reinforce"])
def test_the_same_seed_and_a_killed_and_resumed_run_give_the_same_bytes(
    base: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def trained(place: Path) -> Run:
        return rlrun.train(config(base), run_dir=place, name="run", progress=False)

    undisturbed = trained(folder / "undisturbed")
    assert (undisturbed.manifest["episodes"], len(column(undisturbed, "episodes.csv", "return"))) == (50, 50)
    for share in (0.15, 0.7):  # before the first checkpoint and after some
        at = int(share * undisturbed.manifest["timesteps"])
        resumed = killed_and_resumed(trained, folder / f"{share}", at, monkeypatch)
        assert_same(undisturbed, resumed)
        assert resumed.summary()["resume"] == "exact"


def test_evaluations_checkpoints_and_rows_are_shares_of_the_episodes():
    run = train(LAKE, 100, checkpoint={"keep": 9})
    ends = np.cumsum(column(run, "episodes.csv", "length"))
    tenths, fifths = (ends[every - 1 :: every].astype(int).tolist() for every in (10, 20))
    assert sorted(set(column(run, "evaluations.csv", "timesteps"))) == tenths
    assert set(fifths) <= set(run.directory.checkpoint_steps())
    assert set(run.directory.checkpoint_steps()) <= {*fifths, *tenths}  # the others were best once
    assert len(column(run, "metrics.csv", "timesteps")) == 100
    assert (run.config.evaluation.every, run.config.checkpoint.every, run.config.log_every) == (None, None, None)


def test_a_spacing_that_is_given_counts_timesteps():
    run = train(LAKE, 50, evaluation={"every": 100, "episodes": 1}, checkpoint={"every": 0})
    assert len(set(column(run, "evaluations.csv", "timesteps"))) <= run.manifest["timesteps"] // 100 + 1
    assert run.directory.pointer("final") == run.manifest["timesteps"]


def test_show_tells_both_counts(rlrun_command: Command):
    train(LAKE, 20)
    said = rlrun_command("show", "run").out
    assert "episodes         20 of 20" in said
    shown = json.loads(rlrun_command("show", "run", "--json").out)
    assert (shown["total_timesteps"], shown["total_episodes"], shown["episodes"]) == (None, 20, 20)
    assert "training for 30 episodes in" in rlrun_command("train", *own_config(30)).err


def own_config(episodes: int) -> tuple[str, ...]:
    """A config file for the command line."""
    Path("lake.yaml").write_text(json.dumps(config(LAKE, episodes)))
    return ("lake.yaml",)


def test_a_finished_run_goes_on_to_a_new_total_and_its_schedules_keep_their_end(rlrun_command: Command):
    ended_at = train(POLE, 20).manifest["timesteps"]
    outcome = rlrun_command("resume", "run", "--set", "total_episodes=30")
    assert outcome.code == 0, outcome.err
    resumed = rlrun.open_run("run")
    assert (resumed.manifest["episodes"], resumed.status) == (30, "finished")
    assert resumed.manifest["resumed"][0]["changes"] == {"total_episodes": 30, "schedule_episodes": 20}
    assert column(resumed, "metrics.csv", "train/learning_rate")[-5:] == [pytest.approx(1e-3)] * 5
    assert resumed.summary()["extra_cuts"] == [ended_at]
    assert len(set(column(resumed, "evaluations.csv", "timesteps"))) == 15  # every second episode, as before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "total_episodes=10"), "has 20 episodes already, more than 10"),
        (("--set", "total_episodes=many"), "must be a whole number"),
        (("--timesteps", "5000"), "counted in episodes. Give the new total: --set total_episodes=N"),
    ],
)
def test_a_new_total_that_does_not_fit_is_refused(arguments: tuple[str, ...], message: str, rlrun_command: Command):
    train(LAKE, 20)
    outcome = rlrun_command("resume", "run", *arguments)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
    assert rlrun.open_run("run").config.total_episodes == 20


def test_a_run_of_timesteps_does_not_go_on_for_episodes():
    run = rlrun.train({**config(LAKE), "total_episodes": None, "total_timesteps": 200}, name="run", progress=False)
    with pytest.raises(UsageError, match="counted in timesteps"):
        run.resume(overrides={"total_episodes": 500}, progress=False)
    assert run.resume(timesteps=400, progress=False).manifest["timesteps"] >= 400


def test_training_stops_early_by_its_return():
    run = train(LAKE, 3_000, early_stop={"mean_return": 0.5, "window": 20})
    assert run.manifest["episodes"] < 3_000
    assert "reached 0.5" in run.manifest["ended_by"]


@pytest.mark.parametrize(("base", "cls"), [(LAKE, QLearning), (POLE, REINFORCE)], ids=["q_learning", "reinforce"])
def test_a_checkpoints_zip_loads_with_the_class_and_acts_as_the_run(base: dict[str, Any], cls: Any):
    run = train(base, 20)
    model = cls.load(run.directory.checkpoint_path(run.directory.pointer("final") or 0) / "model.zip", device="cpu")
    agent = load_agent(run.directory, "final", say=print).model
    for _ in range(20):
        observation = model.observation_space.sample()
        assert model.predict(observation, deterministic=True)[0] == agent.predict(observation, deterministic=True)[0]
    assert model._episode_num == 20


def test_the_table_lies_in_every_checkpoint_as_an_array():
    run = train(LAKE, 200)
    for steps in run.directory.checkpoint_steps():
        folder = run.directory.checkpoint_path(steps)
        table = np.load(folder / "q_table.npy", allow_pickle=False)
        assert table.shape == (16, 4)
        assert np.array_equal(table, QLearning.load(folder / "model.zip").table)


LISTED = ("CartPole-v1", "FrozenLake-v1", "Taxi-v4", "MountainCar-v0", "AntBulletEnv-v0", "PandaReachDense-v3")


@pytest.mark.parametrize("config", [name for name in shipped_configs() if name.startswith(LISTED)])
def test_the_leaderboard_of_the_course_lists_the_agents_of_shipped_configs(config: str):
    written = make_plan(read_source(shipped_configs()[config]), probe_env=False).config
    assert board_id(written) in LEADERBOARD


def test_an_agent_with_a_table_is_packaged_with_it(folder: Path):
    run = train(LAKE, 100)
    package = rlrun.package(run, episodes=2, video=False, out=folder / "pack")
    assert np.load(package.path / "q_table.npy").shape == (16, 4)
    card = (package.path / "README.md").read_text()
    assert "from rlrun.algorithms.q_learning import QLearning" in card
    assert "- q-learning" in card
    # As the course names it; LAKE does not slip.
    assert "- FrozenLake-v1-4x4-no_slippery\n- FrozenLake-v1\n" in card.replace("  ", "")
    assert "as FrozenLake-v1-4x4-no_slippery" in package.words


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_timesteps": 100}, "a budget is total_timesteps or total_episodes, and both are given"),
        ({"total_episodes": None}, '"total_timesteps" is missing'),
        (
            {"schedule_timesteps": 100},
            "schedule_timesteps: the budget is counted in episodes, and so are its schedules",
        ),
        ({"total_episodes": 0}, "total_episodes: must be greater than 0, not 0"),
        ({"env": {**LAKE["env"], "n_envs": 4}}, "env.n_envs: q_learning plays one episode after the other"),
        ({"env": {"id": "CartPole-v1"}}, "q_learning reads Discrete observations only"),
        ({"env": {"id": "Pendulum-v1"}}, "q_learning cannot act in a continuous action space"),
        ({"hyperparameters": {"exploration_decay": -1}}, "exploration_decay: must be at least 0"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        rlrun.check({**config(LAKE), **changes})
    assert message in str(caught.value)


def test_a_budget_that_is_set_replaces_one_in_the_other_unit():
    assert rlrun.check(config(LAKE), overrides={"total_timesteps": 50}).config.total_episodes is None
    with pytest.raises(ConfigError, match="ppo learns from timesteps") as caught:
        rlrun.check("CartPole-v1/ppo", overrides={"total_episodes": 100})
    assert "both are given" not in str(caught.value)


def test_algorithms_that_learn_from_timesteps_refuse_a_budget_of_episodes():
    with pytest.raises(ConfigError) as caught:
        rlrun.check({"algo": "ppo", "env": {"id": "CartPole-v1"}, "total_episodes": 100})
    assert "total_episodes: ppo learns from timesteps" in str(caught.value)
    assert "Give total_timesteps instead." in str(caught.value)


def test_all_that_is_wrong_is_said_at_once_with_the_budget():
    with pytest.raises(ConfigError) as caught:
        rlrun.check({"algo": "ppo", "env": {"id": "CartPole-v1", "n_envs": 0}, "seed": -1})
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("more", [(), ("--set", "total_episodes=null")])
def test_timesteps_on_the_command_line_replace_episodes(more: tuple[str, ...], rlrun_command: Command):
    outcome = rlrun_command("train", *own_config(20), "--timesteps", "100", *more)
    assert outcome.code == 0, outcome.err
    assert "timesteps in" in outcome.out + outcome.err


@pytest.mark.parametrize(("algo", "env"), [("q_learning", "FrozenLake-v1"), ("reinforce", "CartPole-v1")])
def test_init_writes_a_config_with_a_budget_of_episodes(algo: str, env: str):
    path = rlrun.init(env, algo)
    plan = rlrun.check(path)
    assert plan.config.total_episodes == 10_000
    assert plan.warnings == ()
