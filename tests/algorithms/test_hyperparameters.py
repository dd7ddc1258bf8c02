"""Hyperparameters are the SB3 class's own keywords, checked against its signature as deep as they nest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import FlattenExtractor

from rlrun.algorithms.hyperparameters import resolve
from rlrun.algorithms.registry import algorithms, get_algorithm
from rlrun.config.classes import make_importable
from rlrun.config.loading import dotted
from rlrun.config.signatures import keyword_parameters

ACTIONS = spaces.Box(-1.0, 1.0, (2,), np.float32)


def resolved(algo: str, /, **hyperparameters: Any) -> dict[str, Any]:
    """The keyword arguments of hyperparameters in which nothing is wrong."""
    kwargs, findings = resolve(get_algorithm(algo), hyperparameters, ACTIONS)
    assert findings == []
    return kwargs


def findings_of(algo: str, hyperparameters: dict[str, Any]) -> list[str]:
    """What is wrong, as ``path: message hint``."""
    _, findings = resolve(get_algorithm(algo), hyperparameters)
    return [f"{dotted(f.path)}: {f.message} {f.hint}".strip() for f in findings]


def finding_of(algo: str, hyperparameters: dict[str, Any]) -> str:
    """The one thing that is wrong."""
    (finding,) = findings_of(algo, hyperparameters)
    return finding.removeprefix("hyperparameters.")


@pytest.mark.parametrize("algo", list(algorithms()))
def test_no_hyperparameters_are_no_keyword_arguments(algo: str) -> None:
    assert resolved(algo) == {}


def test_plain_values_become_what_the_annotation_says() -> None:
    kwargs = resolved("ppo", n_steps=1e3, gamma=1, normalize_advantage=False, target_kl=None, batch_size=64)
    assert kwargs == {"n_steps": 1000, "gamma": 1.0, "normalize_advantage": False, "target_kl": None, "batch_size": 64}
    assert [type(kwargs[name]) for name in ("n_steps", "gamma")] == [int, float]


def test_schedules_become_callables_only_where_the_signature_says_schedule() -> None:
    kwargs = resolved("ppo", learning_rate="lin_1e-3", clip_range="const_0.2", clip_range_vf={"linear": [0.2, 0.1]})
    assert kwargs["learning_rate"](0.5) == pytest.approx(5e-4)
    assert kwargs["clip_range"](0.5) == 0.2
    assert kwargs["clip_range_vf"](0.0) == pytest.approx(0.1)
    assert resolved("ppo", learning_rate=1e-3) == {"learning_rate": 1e-3}
    assert resolved("sac", ent_coef="auto_0.1") == {"ent_coef": "auto_0.1"}
    assert finding_of("ppo", {"ent_coef": "lin_0.01"}) == "ent_coef: must be a number, not 'lin_0.01'."
    assert finding_of("dqn", {"gamma": "const_0.9"}) == "gamma: must be a number, not 'const_0.9'."


@pytest.mark.parametrize("algo", [name for name in algorithms() if name != "ars"])
def test_every_algorithm_takes_a_schedule_for_its_learning_rate(algo: str) -> None:
    assert resolved(algo, learning_rate="lin_1e-3")["learning_rate"](1.0) == 1e-3


@pytest.mark.parametrize(
    ("algo", "hyperparameters", "finding"),
    [
        ("ppo", {"n_step": 5}, 'n_step: PPO has no keyword "n_step". Did you mean "n_steps"?'),
        (
            "dqn",
            {"n_epochs": 4},
            'n_epochs: DQN has no keyword "n_epochs". It is a keyword of ppo, recurrent_ppo, maskable_ppo.',
        ),
        (
            "ppo",
            {"buffer_size": 4},
            'buffer_size: PPO has no keyword "buffer_size". '
            "It is a keyword of dqn, sac, td3, ddpg, tqc, qrdqn, crossq.",
        ),
        ("a2c", {"qqq": 4}, 'qqq: A2C has no keyword "qqq". `rlrun schema` lists the keywords.'),
        ("ppo", {"seed": 3}, 'seed: "seed" is not set here. Use the top-level key `seed`.'),
        ("ppo", {"device": "cpu"}, 'device: "device" is not set here. Use the top-level key `device`.'),
        ("ppo", {"env": "X"}, 'env: "env" is not set here. Use the section `env`.'),
        ("ppo", {"verbose": 1}, 'verbose: "verbose" is not set here. rlrun prints progress itself.'),
        ("ppo", {"n_steps": "5"}, "n_steps: must be a whole number, not '5'."),
        ("ppo", {"n_steps": 1.5}, "n_steps: must be a whole number, not 1.5."),
        ("ppo", {"n_steps": True}, "n_steps: must be a whole number, not true."),
        ("ppo", {"n_steps": None}, "n_steps: must be a whole number, not null."),
        ("ppo", {"n_steps": 0}, "n_steps: must be at least 1, not 0."),
        ("ppo", {"gamma": 1.5}, "gamma: must be between 0 and 1, not 1.5."),
        ("ppo", {"gamma": True}, "gamma: must be a number, not true."),
        ("ppo", {"vf_coef": float("nan")}, "vf_coef: must be a number, not nan."),
        ("ppo", {"normalize_advantage": 1}, "normalize_advantage: must be true or false, not 1."),
        ("ppo", {"learning_rate": -1}, "learning_rate: must be at least 0, not -1.0."),
        ("ppo", {"learning_rate": "lin_-1"}, "learning_rate: must be at least 0, not -1.0."),
        ("ppo", {"learning_rate": {"linear": [1, -1]}}, "learning_rate: must be at least 0, not -1.0."),
        ("ppo", {"learning_rate": True}, "learning_rate: must be a number or a schedule, not true."),
        ("ppo", {"learning_rate": [1e-3]}, "learning_rate: must be a number or a schedule, not [0.001]."),
        ("td3", {"target_policy_noise": -1}, "target_policy_noise: must be at least 0, not -1.0."),
        ("ars", {"n_eval_episodes": 0}, "n_eval_episodes: must be at least 1, not 0."),
        ("sac", {"ent_coef": "atuo"}, "ent_coef: must be a number or auto, not 'atuo'."),
        ("sac", {"target_entropy": "auto_1"}, "target_entropy: must be a number or auto, not 'auto_1'."),
        (
            "ppo",
            {"policy": 3},
            "policy: the policy must be a name, not 3. Known: MlpPolicy, CnnPolicy, MultiInputPolicy.",
        ),
        ("ppo", {"policy": "MlpPolcy"}, 'policy: there is no policy "MlpPolcy". Did you mean "MlpPolicy"?'),
        (
            "ppo",
            {"policy": "os:system"},
            'policy: "os:system" is not a subclass of BasePolicy. Name a class that is one.',
        ),
        ("ppo", {"policy_kwargs": []}, "policy_kwargs: must be a section (keys and values), not []."),
    ],
)
def test_a_wrong_keyword_or_value_is_told_with_its_path(
    algo: str, hyperparameters: dict[str, Any], finding: str
) -> None:
    assert finding_of(algo, hyperparameters) == finding


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("cosnt_3e-4", 'Did you mean "const_..."?'),
        ("linear_1e-3", 'Did you mean "lin_..."?'),
        ("1e-3", "Write the number without quotes."),
        ("lin_x", "{linear: [1e-3, 0]} or {constant: 3e-4}."),
        ({"liner": [1, 0]}, "{linear: [1e-3, 0]} or {constant: 3e-4}."),
    ],
)
def test_what_is_nearly_a_schedule_is_told_what_it_should_be(value: Any, hint: str) -> None:
    finding = finding_of("ppo", {"learning_rate": value})
    assert "is not a schedule: a schedule is lin_1e-3, const_3e-4," in finding
    assert finding.endswith(hint)


def test_every_finding_is_reported_and_not_only_the_first() -> None:
    found = findings_of("ppo", {"n_step": 5, "gamma": 2, "policy_kwargs": {"net_archs": [], "activation_fn": "Relu"}})
    assert [text.partition(": ")[0].removeprefix("hyperparameters.") for text in found] == [
        "n_step",
        "gamma",
        "policy_kwargs.net_archs",
        "policy_kwargs.activation_fn",
    ]


@pytest.mark.parametrize(
    ("algo", "written", "meant"),
    [
        ("sac", 4, 4),
        ("sac", [1, "episode"], (1, "episode")),
        ("dqn", [4, "step"], (4, "step")),
        ("td3", [1e1, "step"], (10, "step")),
    ],
)
def test_train_freq_is_a_number_or_a_number_with_a_unit(algo: str, written: Any, meant: Any) -> None:
    assert resolved(algo, train_freq=written) == {"train_freq": meant}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([1, "epsode"], "counts in step or episode, not 'epsode'. Did you mean \"episode\"?"),
        ([1, "rollout"], "counts in step or episode, not 'rollout'. For instance [1, episode]."),
        (0, "must be at least 1, not 0."),
        ([0, "step"], "must be at least 1, not 0."),
        ([1], "must be a whole number or a list of a whole number and a string, not [1]."),
        (["episode", 1], "must be a whole number or a list of a whole number and a string, not ['episode', 1]."),
        ("episode", "must be a whole number or a list of a whole number and a string, not 'episode'."),
    ],
)
def test_any_other_train_freq_is_refused(written: Any, said: str) -> None:
    assert finding_of("sac", {"train_freq": written}) == f"train_freq: {said}"


def test_normal_noise_has_the_shape_of_the_actions() -> None:
    noise = resolved("sac", action_noise={"normal": {"sigma": 0.1}})["action_noise"]
    assert isinstance(noise, NormalActionNoise)
    assert noise._mu.tolist() == [0.0, 0.0]
    assert noise._sigma.tolist() == pytest.approx([0.1, 0.1])


def test_ornstein_uhlenbeck_noise_takes_its_own_numbers() -> None:
    written = {"ornstein_uhlenbeck": {"sigma": 1, "mean": 0.5, "theta": 0.2, "dt": 0.01}}
    noise = resolved("td3", action_noise=written)["action_noise"]
    assert isinstance(noise, OrnsteinUhlenbeckActionNoise)
    assert (noise._theta, noise._dt) == (0.2, 0.01)
    assert noise._mu.tolist() == [0.5, 0.5]
    assert noise._sigma.tolist() == [1.0, 1.0]


def test_no_noise_is_no_noise() -> None:
    assert resolved("sac", action_noise=None) == {"action_noise": None}


@pytest.mark.parametrize(
    ("written", "path", "said"),
    [
        ("normal", "", "must be like {normal: {sigma: 0.1}}, not 'normal'."),
        ({"normal": 0.1}, "", "must be like {normal: {sigma: 0.1}}, not {'normal': 0.1}."),
        ({"normal": {"sigma": 1}, "x": {}}, "", "must be like {normal: {sigma: 0.1}}"),
        ({"norml": {"sigma": 0.1}}, "", 'there is no action noise "norml". Did you mean "normal"?'),
        ({"white": {"sigma": 0.1}}, "", 'there is no action noise "white". Kinds: normal, ornstein_uhlenbeck.'),
        ({"normal": {}}, ".normal", "needs sigma, the standard deviation, in actions scaled to [-1, 1]."),
        ({"normal": {"sigma": "high"}}, ".normal.sigma", "must be a number, not 'high'."),
        ({"normal": {"sigma": True}}, ".normal.sigma", "must be a number, not true."),
        ({"normal": {"sigma": -1}}, ".normal.sigma", "must be at least 0, not -1."),
        ({"normal": {"sigma": 1, "theta": 1}}, ".normal.theta", 'the noise has no keyword "theta".'),
        ({"normal": {"sigma": 1, "dtype": 1}}, ".normal.dtype", 'the noise has no keyword "dtype".'),
    ],
)
def test_wrong_noise_is_refused(written: Any, path: str, said: str) -> None:
    assert finding_of("sac", {"action_noise": written}).startswith(f"action_noise{path}: {said}")


def test_policy_kwargs_are_resolved_like_the_outer_ones() -> None:
    kwargs = resolved(
        "ppo",
        policy="MlpPolicy",
        policy_kwargs={
            "net_arch": {"pi": [64.0], "vf": [32, 32]},
            "activation_fn": "ReLU",
            "ortho_init": False,
            "optimizer_class": "RMSpropTFLike",
            "optimizer_kwargs": {"eps": 1e-5},
            "features_extractor_class": "FlattenExtractor",
        },
    )
    assert kwargs["policy"] == "MlpPolicy"
    assert kwargs["policy_kwargs"] == {
        "net_arch": {"pi": [64], "vf": [32, 32]},
        "activation_fn": torch.nn.ReLU,
        "ortho_init": False,
        "optimizer_class": RMSpropTFLike,
        "optimizer_kwargs": {"eps": 1e-5},
        "features_extractor_class": FlattenExtractor,
    }


@pytest.mark.parametrize("algo", ["a2c", "ppo", "dqn", "sac", "td3", "tqc", "qrdqn", "trpo", "recurrent_ppo", "crossq"])
def test_every_algorithm_takes_a_list_of_layers(algo: str) -> None:
    assert resolved(algo, policy_kwargs={"net_arch": [64, 64]}) == {"policy_kwargs": {"net_arch": [64, 64]}}


@pytest.mark.parametrize(
    ("algo", "policy_kwargs", "finding"),
    [
        (
            "ppo",
            {"net_archs": [64]},
            'net_archs: ActorCriticPolicy has no keyword "net_archs". Did you mean "net_arch"?',
        ),
        (
            "ppo",
            {"net_arch": ["a"]},
            "net_arch: must be a list of whole numbers or a section of lists of whole numbers or null, not ['a'].",
        ),
        ("dqn", {"net_arch": {"pi": [64]}}, "net_arch: must be a list of whole numbers or null, not {'pi': [64]}."),
        ("ppo", {"activation_fn": "Relu"}, 'activation_fn: there is no Module "Relu". Did you mean "ReLU"?'),
        ("ppo", {"activation_fn": "nn.ReLU"}, 'activation_fn: there is no Module "nn.ReLU". Did you mean "ReLU"?'),
        ("ppo", {"activation_fn": 3}, "activation_fn: must be the name of a class, not 3."),
        (
            "ppo",
            {"activation_fn": "os:system"},
            'activation_fn: "os:system" is not a subclass of Module. Name a class that is one.',
        ),
        ("ppo", {"optimizer_class": "Adm"}, 'optimizer_class: there is no Optimizer "Adm". Did you mean "Adam"?'),
        (
            "a2c",
            {"optimizer_class": "RMSpropTFLike", "optimizer_kwargs": {"epss": 1e-5}},
            'optimizer_kwargs.epss: RMSpropTFLike has no keyword "epss". Did you mean "eps"?',
        ),
        (
            "ppo",
            {"optimizer_kwargs": {"lr": 1}},
            'optimizer_kwargs.lr: "lr" is not set here. Use `hyperparameters.learning_rate`.',
        ),
        (
            "ppo",
            {"features_extractor_class": "torch.nn:Linear"},
            'features_extractor_class: "torch.nn:Linear" is not a subclass of BaseFeaturesExtractor. '
            "Name a class that is one.",
        ),
        (
            "ppo",
            {"features_extractor_kwargs": {"features_dim": 3}},
            'features_extractor_kwargs.features_dim: FlattenExtractor has no keyword "features_dim". It takes: none.',
        ),
        ("ppo", {"use_sde": True}, 'use_sde: "use_sde" is not set here. The algorithm passes it on by itself.'),
        ("ppo", {"lr_schedule": 1}, 'lr_schedule: "lr_schedule" is not set here. Use `hyperparameters.learning_rate`.'),
        ("ppo", {"optimizer_kwargs": 3}, "optimizer_kwargs: must be a section (keys and values), not 3."),
    ],
)
def test_wrong_policy_kwargs_are_told_with_their_path(algo: str, policy_kwargs: dict[str, Any], finding: str) -> None:
    assert finding_of(algo, {"policy_kwargs": policy_kwargs}) == f"policy_kwargs.{finding}"


def test_the_default_optimizers_keywords_are_known_without_naming_it() -> None:
    assert resolved("ppo", policy_kwargs={"optimizer_kwargs": {"eps": 1e-5}})
    finding = finding_of("ppo", {"policy_kwargs": {"optimizer_kwargs": {"alpha": 0.9}}})
    assert 'Adam has no keyword "alpha". It takes: betas, eps, weight_decay' in finding


def test_the_policy_decides_which_nested_keywords_there_are() -> None:
    assert resolved("ppo", policy="CnnPolicy", policy_kwargs={"features_extractor_kwargs": {"features_dim": 64}})
    assert findings_of(
        "ppo", {"policy": "MlpPolicy", "policy_kwargs": {"features_extractor_kwargs": {"features_dim": 1}}}
    )


def test_the_replay_buffer_and_its_keywords_are_checked_together() -> None:
    kwargs = resolved(
        "sac",
        replay_buffer_class="HerReplayBuffer",
        replay_buffer_kwargs={"goal_selection_strategy": "future", "n_sampled_goal": 4},
    )
    assert kwargs["replay_buffer_class"] is HerReplayBuffer
    assert resolved("dqn", replay_buffer_class="NStepReplayBuffer")["replay_buffer_class"] is NStepReplayBuffer
    assert resolved("dqn", replay_buffer_class=None) == {"replay_buffer_class": None}


@pytest.mark.parametrize(
    ("buffer", "kwargs", "finding"),
    [
        ("HerReplayBufer", {}, 'class: there is no ReplayBuffer "HerReplayBufer". Did you mean "HerReplayBuffer"?'),
        ("NatureCNN", {}, 'class: there is no ReplayBuffer "NatureCNN". Known: DictReplayBuffer, HerReplayBuffer,'),
        ("HerReplayBuffer", {"n_sampled_goals": 4}, "kwargs.n_sampled_goals: HerReplayBuffer has no keyword"),
        ("HerReplayBuffer", {"n_sampled_goal": 0}, "kwargs.n_sampled_goal: must be at least 1, not 0."),
        (
            "HerReplayBuffer",
            {"goal_selection_strategy": "futur"},
            "kwargs.goal_selection_strategy: must be one of future, final, episode, not 'futur'. Did you mean",
        ),
        ("ReplayBuffer", {"buffer_size": 9}, 'kwargs.buffer_size: "buffer_size" is not set here.'),
        ("ReplayBuffer", {"handle_timeout_termination": 1}, "kwargs.handle_timeout_termination: must be true or false"),
    ],
)
def test_a_wrong_replay_buffer_is_refused(buffer: str, kwargs: dict[str, Any], finding: str) -> None:
    written = {"replay_buffer_class": buffer, "replay_buffer_kwargs": kwargs}
    assert finding_of("sac", written).startswith(f"replay_buffer_{finding}")


def test_classes_of_the_users_own_are_taken_with_their_own_keywords(folder: Path) -> None:
    (folder / "own_nets.py").write_text(
        "from stable_baselines3.common.torch_layers import BaseFeaturesExtractor\n"
        "from stable_baselines3.common.policies import ActorCriticPolicy\n"
        "class Cnn(BaseFeaturesExtractor):\n"
        "    def __init__(self, observation_space, width: int = 3): ...\n"
        "class Policy(ActorCriticPolicy):\n"
        "    def __init__(self, *args, bonus: float = 0.0, **kwargs): ...\n"
    )
    make_importable([folder])
    kwargs = resolved(
        "ppo",
        policy="own_nets:Policy",
        policy_kwargs={
            "bonus": 1,
            "ortho_init": False,
            "features_extractor_class": "own_nets:Cnn",
            "features_extractor_kwargs": {"width": 5.0},
        },
    )
    assert kwargs["policy"].__name__ == "Policy"
    assert kwargs["policy_kwargs"]["bonus"] == 1.0
    assert kwargs["policy_kwargs"]["features_extractor_class"].__name__ == "Cnn"
    assert kwargs["policy_kwargs"]["features_extractor_kwargs"] == {"width": 5}
    assert finding_of("ppo", {"policy": "own_nets:Policy", "policy_kwargs": {"bnus": 1}}).endswith('mean "bonus"?')


scalars = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "auto", "lin_1", "a:b", "ReLU"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["normal", "sigma", "linear", "net_arch", "activation_fn", "optimizer_kwargs", "eps", "x"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(list(algorithms())), st.data())
def test_no_value_of_any_keyword_raises(algo: str, data: st.DataObject) -> None:
    keywords = st.sampled_from(list(keyword_parameters(get_algorithm(algo).load())))
    hyperparameters = data.draw(st.dictionaries(keywords, values, max_size=3))
    kwargs, findings = resolve(get_algorithm(algo), hyperparameters, ACTIONS)
    assert set(kwargs) <= set(hyperparameters)
    assert all(finding.path[0] == "hyperparameters" and finding.message for finding in findings)
