"""The JSON Schema accepts what rlrun accepts, and refuses what an editor can know to be wrong."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rlrun.algorithms.hyperparameters import resolve
from rlrun.algorithms.registry import algorithms, get_algorithm
from rlrun.config.loading import read_source, validate
from rlrun.config.locate import shipped_configs
from rlrun.config.yaml import read_yaml
from rlrun.training.json_schema import config_schema, parameter_docs

SHIPPED = Path(__file__).parents[2] / "configs" / "schema.json"
PLAIN: dict[str, Any] = {"algo": "ppo", "env": {"id": "CartPole-v1"}, "total_timesteps": 1000}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return config_schema()


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def config(changes: dict[str, Any]) -> dict[str, Any]:
    """The plain config with some dotted keys set."""
    values = deepcopy(PLAIN)
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return values


def is_accepted(values: dict[str, Any]) -> bool:
    """Whether rlrun itself finds nothing wrong with keys and values."""
    checked, _ = validate(read_source(values))
    if checked is None or checked.algo not in algorithms():
        return False
    return not resolve(get_algorithm(checked.algo), checked.hyperparameters)[1]


def without_sb3s_words(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without what another version of SB3 may say in other words."""

    def stripped(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: stripped(item) for key, item in node.items() if not isinstance(item, str) or key != "description"
            }
        return [stripped(item) for item in node] if isinstance(node, list) else node

    return {**stripped(schema), "$comment": ""}


def test_configs_schema_json_is_the_schema_of_the_day(schema: dict[str, Any]) -> None:
    shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))
    of_the_day = json.loads(json.dumps(schema))
    if shipped.get("$comment") != of_the_day["$comment"]:  # another version of SB3 wrote it
        shipped, of_the_day = without_sb3s_words(shipped), without_sb3s_words(of_the_day)
    assert shipped == of_the_day, "Write it anew: rlrun schema > configs/schema.json"


@pytest.mark.parametrize("path", shipped_configs().values(), ids=list(shipped_configs()))
def test_every_shipped_config_is_valid_and_names_the_schema(
    path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    assert [error.message for error in validator.iter_errors(read_yaml(path).value)] == []
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    named = first_line.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == SHIPPED


@pytest.mark.parametrize(
    "changes",
    [
        {"total_timesteps": 1e6},
        {"normalize": True},
        {"normalize": False},
        {"normalize": None},
        {"normalize": {"norm_reward": False, "gamma": 0.9}},
        {"max_time": "3h50m"},
        {"max_time": "90"},
        {"max_time": 5.5},
        {"trackers": ["wandb", {"wandb": {"project": "mine"}}, {"name": "mlflow"}]},
        {"trackers": []},
        {
            "env.wrappers": [
                "AtariWrapper",
                {"AtariWrapper": {"frame_skip": 1}},
                {"AtariWrapper": None},
                "my.own:Wrapper",
            ]
        },
        {"env.wrappers": [{"name": "TimeLimit", "kwargs": {"max_episode_steps": 5}}, {"my.own:Wrapper": {"x": 1}}]},
        {"early_stop": {"patience": 3}},
        {"callbacks": [{"class": "my.own:Callback", "kwargs": {"x": 1}}]},
        {"evaluation": {"seeds": [1, 2], "every": 0}},
        {"hyperparameters": {"learning_rate": "lin_1e-3", "clip_range": "const_.2", "gamma": 1}},
        {"hyperparameters": {"learning_rate": {"linear": [1e-3, 0]}, "clip_range": {"constant": 0.1}}},
        {"hyperparameters": {"clip_range_vf": None, "n_steps": 1e3, "target_kl": 0.1}},
        {"hyperparameters": {"policy_kwargs": {"net_arch": {"pi": [64], "vf": [64]}, "activation_fn": "ReLU"}}},
        {"hyperparameters": {"policy_kwargs": {"net_arch": [64, 64], "optimizer_class": "RMSpropTFLike"}}},
        {"algo": "sac", "hyperparameters": {"ent_coef": "auto_0.1", "train_freq": [1, "episode"]}},
        {"algo": "sac", "hyperparameters": {"action_noise": {"normal": {"sigma": 0.1}}, "ent_coef": 0.1}},
        {"algo": "td3", "hyperparameters": {"action_noise": {"ornstein_uhlenbeck": {"sigma": 0.1, "theta": 0.2}}}},
        {"algo": "dqn", "hyperparameters": {"train_freq": 4, "replay_buffer_class": "NStepReplayBuffer"}},
        {
            "algo": "ddpg",
            "hyperparameters": {
                "replay_buffer_class": "HerReplayBuffer",
                "replay_buffer_kwargs": {"n_sampled_goal": 4, "goal_selection_strategy": "final"},
            },
        },
    ],
)
def test_what_rlrun_accepts_is_valid(changes: dict[str, Any], validator: jsonschema.Draft202012Validator) -> None:
    values = config(changes)
    assert [error.message for error in validator.iter_errors(values)] == []
    assert is_accepted(values) or "my.own" in str(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"algo": "pop"},
        {"total_timesteps": 0},
        {"total_timesteps": "100"},
        {"total_timesteps": 1.5},
        {"seed": 2**31},
        {"seed": True},
        {"n_envs": 4},
        {"env.n_env": 4},
        {"env.vec": "threads"},
        {"env.wrappers": ["AtariWraper"]},
        {"env.wrappers": [{"AtariWrapper": {}, "TimeLimit": {}}]},
        {"env.wrappers": [{"AtariWrapper": 1}]},
        {"normalize": {"norm_observations": True}},
        {"normalize": "yes"},
        {"trackers": ["tensorbord"]},
        {"max_time": "3 hours"},
        {"max_time": ""},
        {"early_stop": {"window": 10}},
        {"checkpoint": {"every": -1}},
        {"callbacks": [{"kwargs": {}}]},
        {"hyperparameters": {"learning_rat": 1e-3}},
        {"hyperparameters": {"learning_rate": "linear_1e-3"}},
        {"hyperparameters": {"learning_rate": {"linear": [1e-3]}}},
        {"hyperparameters": {"learning_rate": {"linear": [1e-3, 0], "constant": 1}}},
        {"hyperparameters": {"learning_rate": -1}},
        {"hyperparameters": {"ent_coef": "lin_0.1"}},
        {"hyperparameters": {"gamma": 2}},
        {"hyperparameters": {"batch_size": 0}},
        {"hyperparameters": {"n_steps": 1.5}},
        {"hyperparameters": {"use_sde": "true"}},
        {"hyperparameters": {"seed": 1}},
        {"hyperparameters": {"policy": "MlpLstmPolicy"}},
        {"hyperparameters": {"policy": None}},
        {"hyperparameters": {"policy_kwargs": {"activation_fn": "Relu"}}},
        {"hyperparameters": {"policy_kwargs": {"activation_fn": 3}}},
        {"hyperparameters": {"buffer_size": 1000}},
        {"algo": "sac", "hyperparameters": {"train_freq": [1, "episode", 2]}},
        {"algo": "sac", "hyperparameters": {"action_noise": {"normal": {}}}},
        {"algo": "sac", "hyperparameters": {"action_noise": "normal"}},
        {"algo": "sac", "hyperparameters": {"action_noise": {"uniform": {"sigma": 1}}}},
        {"algo": "sac", "hyperparameters": {"replay_buffer_kwargs": {"goal_selection_strategy": "next"}}},
    ],
)
def test_what_rlrun_refuses_is_invalid(changes: dict[str, Any], validator: jsonschema.Draft202012Validator) -> None:
    values = config(changes)
    assert not validator.is_valid(values)
    # rlrun looks wrappers and trackers up later, when it has checked the keys.
    assert not is_accepted(values) or {"env.wrappers", "trackers"} & changes.keys()


@pytest.mark.parametrize("key", ["total_timesteps", "evaluation.every", "log_every", "hyperparameters.n_steps"])
def test_a_whole_number_with_underscores_is_valid_where_an_editor_reads_a_string(
    key: str, validator: jsonschema.Draft202012Validator
) -> None:
    assert validator.is_valid(config({key: "100_000"}))
    assert not validator.is_valid(config({key: "many"}))


@pytest.mark.parametrize("name", list(algorithms()))
def test_every_default_of_an_algorithm_is_valid(name: str, schema: dict[str, Any]) -> None:
    keywords = schema["$defs"][f"{name}_hyperparameters"]["properties"]
    defaults = {keyword: values["default"] for keyword, values in keywords.items() if "default" in values}
    assert "learning_rate" in defaults
    jsonschema.Draft202012Validator(schema).validate(config({"algo": name, "hyperparameters": defaults}))
    if "policy_kwargs" not in keywords:  # a table has none
        return
    nested = keywords["policy_kwargs"]["properties"]
    defaults = {keyword: values["default"] for keyword, values in nested.items() if "default" in values}
    values = config({"algo": name, "hyperparameters": {"policy_kwargs": defaults}})
    jsonschema.Draft202012Validator(schema).validate(values)


def test_descriptions_come_from_sb3s_docstrings_and_from_base_classes() -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.policies import MultiInputActorCriticPolicy

    from rlrun.algorithms.ars import ARS

    assert parameter_docs(PPO)["gamma"] == "Discount factor"
    assert "\n" not in parameter_docs(PPO)["n_steps"]
    assert "perturbations" in parameter_docs(ARS)["n_delta"]
    assert "net_arch" in parameter_docs(MultiInputActorCriticPolicy)


def test_an_editor_is_told_what_every_key_of_rlruns_own_means(schema: dict[str, Any]) -> None:
    sections = [
        name for name in schema["$defs"] if name.endswith("Config") and name not in ("WrapperConfig", "TrackerConfig")
    ]
    for properties in (schema["properties"], *(schema["$defs"][name]["properties"] for name in sections)):
        assert [name for name, values in properties.items() if not {"description", "$ref"} & values.keys()] == []
