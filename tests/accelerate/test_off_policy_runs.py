"""Runs against a plain Stable-Baselines3 script: the same bits with ``accelerate: off``, nearly so with ``auto``."""

from __future__ import annotations

import copy
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparing import assert_same, final_state, killed_and_resumed
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env

import rlrun
from rlrun.config.loading import Override
from rlrun.envs.seeding import Stream, draw_seeds
from rlrun.run import Run

pytestmark = pytest.mark.usefixtures("one_thread")

ONE_CHECKPOINT = {"checkpoint.every": 0, "evaluation.every": 0, "evaluation.episodes": 0, "trackers": [], "threads": 1}
SMALL = {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [32, 32]}}
WARM = {"learning_starts": 100, "batch_size": 32, "buffer_size": 5000}
CASES: dict[str, tuple[Any, str, int, int, dict[str, Any]]] = {
    "dqn": (DQN, "CartPole-v1", 1, 600, SMALL | WARM | {"target_update_interval": 50}),
    "tqc": (TQC, "Pendulum-v1", 1, 300, SMALL | WARM),
    "qrdqn": (QRDQN, "CartPole-v1", 2, 400, SMALL | WARM | {"gradient_steps": 2}),
    "sac": (SAC, "Pendulum-v1", 1, 300, SMALL | WARM | {"learning_rate": "lin_1e-3"}),
    "td3": (TD3, "Pendulum-v1", 1, 300, SMALL | WARM | {"action_noise": {"normal": {"sigma": 0.1}}}),
}


def config_of(name: str, accelerate: str) -> dict[str, Any]:
    _, env_id, n_envs, timesteps, hyperparameters = CASES[name]
    return {
        "algo": name,
        "env": {"id": env_id, "n_envs": n_envs},
        "total_timesteps": timesteps,
        "hyperparameters": hyperparameters,
        "accelerate": accelerate,
    }


def run_of(name: str, accelerate: str, folder: Path) -> Run:
    return rlrun.train(config_of(name, accelerate), overrides=ONE_CHECKPOINT, run_dir=folder, progress=False)


def script(name: str) -> Any:
    """What a user of SB3 would write, over envs of the same recipe and with the same seeds."""
    cls, _, _, timesteps, hyperparameters = CASES[name]
    plan = rlrun.check(config_of(name, "off"), overrides=[Override(k, v, "") for k, v in ONE_CHECKPOINT.items()])
    seed, space_seed = draw_seeds(plan.config.seed, Stream.LEARNER, 2, 0)
    venv, _ = plan.recipe.make_training_vec()
    seed_everything(seed)
    model = cls(env=venv, device="cpu", **copy.deepcopy(hyperparameters))  # SB3 writes into policy_kwargs
    seed_everything(seed)
    model.action_space.seed(space_seed)
    model.learn(timesteps)
    venv.close()
    return model


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def trained(run: Run) -> dict[str, Any]:
    state = final_state(run)
    return {name.removeprefix("model.policy."): value for name, value in state.items() if "model.policy." in name}


@pytest.mark.parametrize("name", ["dqn", "tqc"])
def test_without_acceleration_the_weights_are_those_of_a_plain_script(name: str, tmp_path: Path):
    ours, theirs = trained(run_of(name, "off", tmp_path)), script(name).policy.state_dict()
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value.numpy(), err_msg=key)


@pytest.mark.parametrize("name", ["dqn", "tqc"])
def test_with_acceleration_the_first_updates_of_a_run_are_those_of_a_plain_script(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The same random numbers are drawn in the same order: until rounding has grown, so are actions and transitions.
    cls, env_id, n_envs, _, hyperparameters = CASES[name]
    short = (cls, env_id, n_envs, WARM["learning_starts"] + 20, hyperparameters)
    monkeypatch.setitem(CASES, name, short)
    ours, theirs = trained(run_of(name, "auto", tmp_path)), script(name).policy.state_dict()
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value.numpy(), rtol=1e-2, atol=1e-3, err_msg=key)
    assert any(not np.array_equal(ours[key], value.numpy()) for key, value in theirs.items())


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_killed_and_resumed_ends_with_the_same_bytes(
    name: str, normalize: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def train(folder: Path) -> Run:
        overrides = ONE_CHECKPOINT | {"checkpoint.every": 80, "normalize": normalize}
        config = config_of(name, "auto")
        return rlrun.train(config, overrides=overrides, run_dir=folder, name="run", progress=False)

    undisturbed = train(tmp_path / "undisturbed")
    assert "accelerate auto" in undisturbed.description()["notes"]
    assert_same(undisturbed, killed_and_resumed(train, tmp_path / "killed", 210, monkeypatch))


@pytest.mark.parametrize("name", CASES)
def test_a_saved_model_names_nothing_of_rlrun_and_goes_on_in_plain_sb3(name: str, tmp_path: Path):
    run = run_of(name, "auto", tmp_path)
    path = run.directory.checkpoint_path(run.directory.pointer("final") or 0) / "model.zip"
    with zipfile.ZipFile(path) as archive:
        assert not [member for member in archive.namelist() if b"rlrun" in archive.read(member)]
    cls, env_id = CASES[name][:2]
    model = cls.load(path, env=make_vec_env(env_id, CASES[name][2]), device="cpu")
    assert model.num_timesteps >= CASES[name][3]
    model.learn(150, reset_num_timesteps=True)
