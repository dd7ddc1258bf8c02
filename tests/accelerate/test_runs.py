"""Whole runs: with acceleration the promises hold, and without it they are plain Stable-Baselines3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from comparing import assert_same, killed_and_resumed
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

import rlrun
from rlrun import api
from rlrun.config.loading import Override
from rlrun.envs.recipe import Role
from rlrun.envs.seeding import Stream, draw_seeds, endless_seeds, seed_global_generators
from rlrun.errors import RlrunError
from rlrun.run import Run
from rlrun.runs.archive import read_tensors

pytestmark = pytest.mark.usefixtures("folder", "one_thread")

HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "a2c": {"ent_coef": 0.01},
    "ppo": {"n_steps": 64, "batch_size": 64, "n_epochs": 3, "learning_rate": "lin_1e-3"},
}


def config(algo: str, env: str = "CartPole-v1", **sections: Any) -> dict[str, Any]:
    return {
        "algo": algo,
        "env": {"id": env, "n_envs": 2},
        "total_timesteps": 1024,
        "hyperparameters": {"policy": "MlpPolicy", **HYPERPARAMETERS[algo]},
        "evaluation": {"episodes": 0},
        "checkpoint": {"every": 0},
        "trackers": [],
        **sections,
    }


def weights(run: Run) -> dict[str, torch.Tensor]:
    path = run.directory.checkpoint_path(run.directory.pointer("final") or 0)
    return read_tensors(path / "model.zip")["policy"]


def plain_sb3(values: dict[str, Any], cls: Any) -> Any:
    """The same without rlrun's training, over envs of the same recipe and from the same seeds."""
    torch.set_num_threads(1)
    plan = api.check(values)
    makers = [
        lambda index=index: plan.recipe.make(Role.TRAIN, endless_seeds(0, Stream.TRAIN_ENVS, 0, index))
        for index in range(2)
    ]
    envs = DummyVecEnv(makers)
    learner_seed, space_seed = draw_seeds(0, Stream.LEARNER, 2, 0)
    seed_global_generators(learner_seed)
    keywords = {**values["hyperparameters"], "device": "cpu"}
    if "learning_rate" in keywords:
        keywords["learning_rate"] = lambda remaining: remaining * 1e-3
    model = cls(env=envs, **keywords)
    seed_global_generators(learner_seed)
    model.action_space.seed(space_seed)
    return model.learn(values["total_timesteps"])


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("cls", [A2C, PPO])
def test_switched_off_the_weights_are_those_of_a_plain_script_bit_for_bit(cls: Any, env: str) -> None:
    values = config(cls.__name__.lower(), env, accelerate="off")
    run = rlrun.train(values, progress=False)
    expected = plain_sb3(values, cls).policy.state_dict()
    for name, value in weights(run).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("algo", ["a2c", "ppo"])
def test_the_run_says_whether_it_was_accelerated(algo: str) -> None:
    for choice, clause in (("auto", "accelerate auto: rollouts and updates"), ("off", "accelerate off: as the config")):
        run = rlrun.train(config(algo, accelerate=choice, total_timesteps=128), progress=False)
        assert clause in run.description()["notes"]


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("algo", ["a2c", "ppo"])
def test_killed_and_resumed_ends_with_the_same_bytes(
    algo: str, env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(folder: Path) -> Run:
        values = config(algo, env, normalize=True, checkpoint={"every": 256})
        return rlrun.train(values, run_dir=folder, name="run", progress=False)

    undisturbed = train(tmp_path / "undisturbed")
    assert "accelerate auto" in undisturbed.description()["notes"]
    assert_same(undisturbed, killed_and_resumed(train, tmp_path / "killed", 700, monkeypatch))


class Observer(BaseCallback):
    """Looks at everything and changes nothing."""

    def _on_step(self) -> bool:
        assert torch.isfinite(self.locals["values"]).all()
        assert torch.isfinite(self.locals["log_probs"]).all()
        return True


@pytest.mark.parametrize("algo", ["a2c", "ppo"])
def test_a_callback_that_looks_on_changes_no_bit(algo: str) -> None:
    alone = rlrun.train(config(algo), progress=False)
    observed = rlrun.train(config(algo, callbacks=[{"class": f"{__name__}:Observer"}]), progress=False)
    for name, value in weights(alone).items():
        assert torch.equal(value, weights(observed)[name]), name


@pytest.mark.parametrize("cls", [A2C, PPO])
def test_a_saved_model_names_nothing_of_rlrun_and_loads_in_plain_sb3(cls: Any) -> None:
    run = rlrun.train(config(cls.__name__.lower()), progress=False)
    path = run.directory.checkpoint_path(run.directory.pointer("final") or 0) / "model.zip"
    assert b"rlrun" not in path.read_bytes()
    model = cls.load(path, device="cpu")
    for name, value in weights(run).items():
        assert torch.equal(model.policy.state_dict()[name], value)


def test_a_learning_run_learns() -> None:
    values = config("ppo", total_timesteps=16_384)
    values["env"]["n_envs"] = 8
    values["hyperparameters"] |= {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8}
    run = rlrun.train(values, progress=False)
    assert run.evaluate(10).mean_return > 100


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(RlrunError, match="accelerate"):
        rlrun.check(config("ppo"), overrides=[Override("accelerate", "on", "")])


def test_init_from_starts_from_the_given_weights(folder: Path) -> None:
    first = rlrun.train(config("ppo"), progress=False, name="first")
    second = rlrun.train(config("ppo", total_timesteps=128, init_from=str(first.path)), progress=False)
    assert second.status == "finished"
