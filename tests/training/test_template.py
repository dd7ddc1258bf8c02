"""`rlrun init` writes a config that fits the env, and that `rlrun check` accepts without a warning."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlrun.algorithms.hyperparameters import resolve
from rlrun.algorithms.registry import get_algorithm
from rlrun.config.loading import read_source
from rlrun.config.yaml import parse_yaml
from rlrun.errors import UsageError
from rlrun.training.plan import Plan, make_plan
from rlrun.training.template import config_template

PAIRS = [
    ("CartPole-v1", "ppo"),
    ("CartPole-v1", "dqn"),
    ("CartPole-v1", "a2c"),
    ("CartPole-v1", "ars"),
    ("Pendulum-v1", "ppo"),
    ("Pendulum-v1", "sac"),
    ("ALE/Pong-v5", "ppo"),
    ("ALE/Pong-v5", "dqn"),
    ("PandaReach-v3", "tqc"),
]
OWN_ENV = '''
import gymnasium as gym
import numpy as np


class Corridor(gym.Env):
    """Walk to the right end."""

    observation_space = gym.spaces.Box(0, 9, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return np.array([0], np.float32), {}

    def step(self, action):
        self.place = min(9, max(0, self.place + 2 * int(action) - 1))
        return np.array([self.place], np.float32), 0.0, self.place == 9, False, {}


class Pair(Corridor):
    observation_space = gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.Discrete(4)))


class Chat(Corridor):
    observation_space = gym.spaces.Dict({"heard": gym.spaces.Sequence(gym.spaces.Discrete(3))})
'''


def values_of(text: str) -> dict[str, Any]:
    values = parse_yaml(text, "template").value
    assert isinstance(values, dict)
    return values


def plan_of(text: str, folder: Path) -> Plan:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return make_plan(read_source(path))


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of envs in the current folder."""
    name = f"envs_of_{re.sub('[^a-z]', '_', tmp_path.name)}"
    (tmp_path / f"{name}.py").write_text(OWN_ENV)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize(("env", "algo"), PAIRS)
def test_a_template_passes_the_check_without_warnings(env: str, algo: str, tmp_path: Path) -> None:
    if env.startswith("Panda"):
        pytest.importorskip("panda_gym")
    plan = plan_of(config_template(env, algo), tmp_path)
    assert plan.warnings == ()
    assert (plan.config.env.id, plan.config.algo) == (env, algo)


def test_the_first_lines_say_what_the_config_is_and_how_to_train_it() -> None:
    first, second = config_template("CartPole-v1", "ppo").splitlines()[:2]
    assert first.startswith("# PPO on CartPole-v1")
    assert second.endswith("rlrun train --config configs/CartPole-v1/ppo.yaml")
    elsewhere = config_template("CartPole-v1", "ppo", Path("my/own.yaml"))
    assert "rlrun train --config my/own.yaml" in elsewhere


def test_continuous_control_on_policy_is_normalized_and_the_reason_stands_there() -> None:
    text = config_template("Pendulum-v1", "ppo")
    assert values_of(text)["normalize"] is True
    assert "the env's own units" in text
    assert "normalize" not in values_of(config_template("CartPole-v1", "ppo"))
    assert "normalize" not in values_of(config_template("Pendulum-v1", "sac"))


def test_atari_gets_its_wrappers_and_never_skips_frames_twice() -> None:
    env = values_of(config_template("ALE/Pong-v5", "ppo"))["env"]
    assert env["wrappers"] == [{"AtariWrapper": {"frame_skip": 1}}]
    assert env["frame_stack"] == 4
    old = values_of(config_template("PongNoFrameskip-v4", "ppo"))["env"]
    assert old["wrappers"] == ["AtariWrapper"]


def test_a_replay_buffer_of_images_is_made_to_fit_into_memory() -> None:
    hyperparameters = values_of(config_template("ALE/Pong-v5", "dqn"))["hyperparameters"]
    assert hyperparameters["policy"] == "CnnPolicy"
    assert hyperparameters["buffer_size"] <= 100_000


def test_a_goal_env_gets_hindsight_replay_when_the_algorithm_has_a_replay_buffer() -> None:
    pytest.importorskip("panda_gym")
    hyperparameters = values_of(config_template("PandaReach-v3", "tqc"))["hyperparameters"]
    assert hyperparameters["policy"] == "MultiInputPolicy"
    assert hyperparameters["replay_buffer_class"] == "HerReplayBuffer"


@pytest.mark.parametrize(("env", "algo"), PAIRS[:6])
def test_checkpoints_leave_room_for_three_episodes_in_every_env(env: str, algo: str) -> None:
    values = values_of(config_template(env, algo))
    longest = {"CartPole-v1": 500, "Pendulum-v1": 200}[env]
    assert values["checkpoint"]["every"] >= 3 * longest * values["env"]["n_envs"]
    assert values["checkpoint"]["every"] < values["total_timesteps"]


@pytest.mark.parametrize(("algo", "steps"), [("ppo", 512), ("trpo", 512), ("a2c", None), ("recurrent_ppo", None)])
def test_a_rollout_is_small_against_the_budget_and_the_reason_stands_there(algo: str, steps: int | None) -> None:
    text = config_template("CartPole-v1", algo)
    values = values_of(text)
    assert values["hyperparameters"].get("n_steps") == steps
    if steps is not None:
        assert steps * values["env"]["n_envs"] <= values["total_timesteps"] / 100
        assert "a rollout is 512 x 8 = 4,096 timesteps; SB3's 2,048 would make 16,384." in text


@pytest.mark.parametrize("algo", ["ppo", "dqn", "a2c", "ars", "qrdqn", "trpo", "recurrent_ppo"])
def test_the_defaults_in_comments_are_sb3s_and_valid_when_uncommented(algo: str) -> None:
    text = config_template("CartPole-v1", algo)
    section = text.partition("\nhyperparameters:")[2].partition("\nevaluation:")[0]
    commented = re.findall(r"^  # (\w+: .*)$", section, re.MULTILINE)
    values = values_of("\n".join(commented))
    assert "learning_rate" in values
    kwargs, findings = resolve(get_algorithm(algo), values)
    assert findings == []
    assert kwargs.keys() == values.keys()


def test_an_env_class_in_the_current_folder_gets_a_config(own_module: str, tmp_path: Path) -> None:
    text = config_template(f"{own_module}:Corridor", "dqn")
    assert plan_of(text, tmp_path).warnings == ()
    assert "TimeLimit" in text, "an env without a time limit is told how to get one"


def test_observations_that_no_policy_reads_are_flattened_or_refused(own_module: str, tmp_path: Path) -> None:
    text = config_template(f"{own_module}:Pair", "ppo")
    assert values_of(text)["env"]["wrappers"] == ["FlattenObservation"]
    assert plan_of(text, tmp_path).warnings == ()
    with pytest.raises(UsageError, match="no policy"):
        config_template(f"{own_module}:Chat", "ppo")


@pytest.mark.parametrize(
    ("env", "algo", "message"),
    [
        ("Pendulum-v1", "dqn", "dqn cannot act in a continuous action space"),
        ("CartPole-v1", "sac", "sac cannot act in a Discrete action space"),
        ("CartPole-v1", "maskable_ppo", "which actions are allowed"),
        ("CartPool-v1", "ppo", 'Did you mean "CartPole-v1"'),
        ("CartPole-v1", "pop", 'Did you mean "ppo"'),
    ],
)
def test_an_impossible_pair_is_refused_with_the_reason(env: str, algo: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config_template(env, algo)
