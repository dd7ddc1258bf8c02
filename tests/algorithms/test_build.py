"""The model is the SB3 class with the config's keywords, and nothing that cannot be built gets far."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from rlrun.algorithms.build import build_model
from rlrun.algorithms.registry import algorithms
from rlrun.config.schema import Config
from rlrun.errors import ConfigError, UsageError


@pytest.fixture
def cartpole() -> Iterator[VecEnv]:
    venv = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 2)
    yield venv
    venv.close()


@pytest.fixture
def pendulum() -> Iterator[VecEnv]:
    venv = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    yield venv
    venv.close()


def config(algo: str, **hyperparameters: Any) -> Config:
    return Config.model_validate(
        {
            "algo": algo,
            "env": {"id": "-"},
            "total_timesteps": 1,
            "device": "cpu",
            "hyperparameters": {"policy": "MlpPolicy", **hyperparameters},
        }
    )


POLICIES = {"recurrent_ppo": {"policy": "MlpLstmPolicy"}, "q_learning": {"policy": "TablePolicy"}}
ENVS = {"q_learning": "FrozenLake-v1", "reinforce": "CartPole-v1"}


@pytest.mark.parametrize("algo", list(algorithms()))
def test_every_algorithm_of_the_table_builds_its_own_class(algo: str, cartpole: VecEnv, pendulum: VecEnv) -> None:
    venv: VecEnv = cartpole if "Discrete" in algorithms()[algo].actions else pendulum
    if algo in ENVS:
        venv = DummyVecEnv([lambda: gym.make(ENVS[algo])])
    settings = config(algo, **POLICIES.get(algo, {}))
    model = build_model(settings, venv)
    cls = DQN if algo == "dqn" else algorithms()[algo].load()  # of SB3, where no option of rlrun's is used
    assert isinstance(model, cls)
    for plain in (
        build_model(settings, venv, for_training=False),
        build_model(settings.model_copy(update={"accelerate": "off"}), venv),
    ):
        assert type(plain) is cls
    assert model.seed is None, "rlrun seeds by itself"
    assert model.device == torch.device("cpu")


class Still(gym.Env[Any, Any]):
    """An env to look at, with any action space."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)

    def __init__(self, action_space: spaces.Space[Any], observations: spaces.Space[Any] | None = None) -> None:
        self.action_space = action_space
        self.observation_space = self.observation_space if observations is None else observations


def _venv(actions: spaces.Space[Any], observations: spaces.Space[Any] | None) -> VecEnv:
    return DummyVecEnv([lambda: Still(actions, observations)])


@pytest.mark.parametrize("algo", list(algorithms()))
def test_the_table_says_which_action_spaces_sb3_accepts(algo: str) -> None:
    observations = spaces.Discrete(3) if algo == "q_learning" else None
    accepted = []
    for space in (
        spaces.Box(-1.0, 1.0, (2,), np.float32),
        spaces.Discrete(3),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(2),
    ):
        with contextlib.suppress(UsageError), contextlib.closing(_venv(space, observations)) as venv:
            build_model(config(algo, **POLICIES.get(algo, {})), venv)
            accepted.append(type(space).__name__)
    assert accepted == list(algorithms()[algo].actions)


def test_keywords_arrive_where_they_belong(cartpole: VecEnv) -> None:
    model: Any = build_model(
        config(
            "a2c",
            n_steps=7,
            learning_rate="lin_1e-3",
            policy_kwargs={
                "net_arch": {"pi": [8], "vf": [16, 4]},
                "activation_fn": "ReLU",
                "optimizer_class": "RMSpropTFLike",
                "optimizer_kwargs": {"eps": 1e-3},
            },
        ),
        cartpole,
    )
    assert (model.n_steps, model.lr_schedule(0.5)) == (7, 5e-4)
    assert [layer.out_features for layer in model.policy.mlp_extractor.policy_net[::2]] == [8]
    assert [layer.out_features for layer in model.policy.mlp_extractor.value_net[::2]] == [16, 4]
    assert isinstance(model.policy.mlp_extractor.policy_net[1], torch.nn.ReLU)
    assert isinstance(model.policy.optimizer, RMSpropTFLike)
    assert model.policy.optimizer.defaults["eps"] == 1e-3


def test_action_noise_has_the_shape_of_the_envs_actions(pendulum: VecEnv) -> None:
    model: Any = build_model(config("sac", action_noise={"normal": {"sigma": 0.3}}, buffer_size=10), pendulum)
    assert model.action_noise().shape == (1,)


@pytest.mark.parametrize(
    "keywords",
    [
        {"buffer_size": 10**12},
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
        {"replay_buffer_class": "NStepReplayBuffer", "replay_buffer_kwargs": {"n_steps": 3}},
    ],
)
def test_a_model_that_only_acts_has_no_replay_buffer_to_speak_of(keywords: dict[str, Any], cartpole: VecEnv) -> None:
    model: Any = build_model(config("dqn", **keywords), cartpole, for_training=False)
    assert model.replay_buffer.buffer_size == 1


def test_the_same_torch_seed_draws_the_same_weights(cartpole: VecEnv) -> None:
    def weights() -> list[torch.Tensor]:
        torch.manual_seed(3)
        return list(build_model(config("ppo"), cartpole).policy.state_dict().values())

    assert all(torch.equal(one, other) for one, other in zip(weights(), weights(), strict=True))


@pytest.mark.parametrize(
    ("algo", "keywords", "reason"),
    [
        ("ppo", {"use_sde": True}, "gSDE"),
        ("ppo", {"batch_size": 1}, "`batch_size` must be greater than 1"),
        ("ppo", {"policy_kwargs": {"net_arch": [-3]}}, "negative dimension"),
        ("dqn", {"optimize_memory_usage": True}, "does not support optimize_memory_usage"),
        ("sac", {}, "only supports"),
    ],
)
def test_what_sb3_or_torch_refuse_is_one_sentence_and_the_users_error(
    algo: str, keywords: dict[str, Any], reason: str, cartpole: VecEnv
) -> None:
    with pytest.raises(UsageError) as raised:
        build_model(config(algo, **keywords), cartpole)
    assert raised.value.message.startswith(f"{algo.upper()} refuses this config: ")
    assert reason in raised.value.message
    assert "\n" not in raised.value.message
    assert raised.value.message.endswith(".")


def test_wrong_hyperparameters_never_reach_sb3(cartpole: VecEnv) -> None:
    with pytest.raises(ConfigError) as raised:
        build_model(config("ppo", n_step=5, gamma=3), cartpole)
    assert [problem.path for problem in raised.value.problems] == ["hyperparameters.n_step", "hyperparameters.gamma"]
