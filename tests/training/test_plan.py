"""A plan is a config that will train: every value resolved, every error found before anything is created."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from rlrun.config.loading import Override, read_source
from rlrun.config.locate import shipped_configs
from rlrun.errors import ConfigError, Problem
from rlrun.training.plan import Plan, make_plan, user_folders

LEAST: dict[str, Any] = {"algo": "ppo", "env": {"id": "CartPole-v1"}, "total_timesteps": 20_000}
OWN = """
import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

made, closed = [], []


class Corridor(gym.Env):
    observation_space = gym.spaces.Box(0, 9, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length=9):
        if length < 1:
            raise RuntimeError("too short")
        made.append(self)

    def close(self):
        closed.append(self)


class Floors(gym.Env):
    observation_space = gym.spaces.Discrete(3, start=5)
    action_space = gym.spaces.Discrete(2, start=1)


class Several(gym.Env):
    observation_space = gym.spaces.Box(0, 9, (1,), np.float32)
    action_space = gym.spaces.MultiDiscrete([2, 2], start=[0, 1])


class Plain(gym.Env):
    pass


class Noisy(BaseCallback):
    def __init__(self, text=""):
        super().__init__()


class Stubborn(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        raise OSError("no weights here")


gym.register("Corridor-v3", entry_point=Corridor)
"""


def plan_of(env: bool = True, /, **changes: Any) -> Plan:
    return make_plan(read_source({**LEAST, **changes}), env)


def problems_of(env: bool = True, /, **changes: Any) -> list[Problem]:
    with pytest.raises(ConfigError) as raised:
        plan_of(env, **changes)
    return raised.value.problems


def problem_of(**changes: Any) -> Problem:
    (problem,) = problems_of(**changes)
    return problem


@pytest.fixture
def own(folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a module of the user's in the current folder."""
    name = "own_" + "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
    (folder / f"{name}.py").write_text(OWN)
    yield name
    gym.registry.pop("Corridor-v3", None)


def test_what_follows_from_the_rest_is_filled_in() -> None:
    config = plan_of(normalize=True).config
    assert (config.device, config.threads, config.log_every) == ("cpu", 1, 100)
    assert (config.evaluation.every, config.evaluation.deterministic, config.checkpoint.every) == (2000, True, 4000)
    assert config.hyperparameters == {"policy": "MlpPolicy"}
    assert config.normalize is not None
    assert config.normalize.gamma == 0.99, "PPO's own default"


def test_what_the_user_wrote_is_kept() -> None:
    config = plan_of(
        normalize={"gamma": 0.5},
        log_every=7,
        threads=2,
        evaluation={"every": 0, "deterministic": False},
        checkpoint={"every": 0},
        hyperparameters={"policy": "stable_baselines3.ppo:MlpPolicy", "n_steps": 64},
    ).config
    assert (config.normalize and config.normalize.gamma, config.log_every, config.threads) == (0.5, 7, 2)
    assert (config.evaluation.every, config.evaluation.deterministic, config.checkpoint.every) == (0, False, 0)
    assert config.hyperparameters == {"policy": "stable_baselines3.ppo:MlpPolicy", "n_steps": 64}


@pytest.mark.parametrize(("written", "meant"), [({"gamma": 0.9}, 0.9), ({"gamma": 1}, 1.0), ({}, 0.99)])
def test_rewards_are_normalized_with_the_discount_of_the_algorithm(written: dict[str, Any], meant: float) -> None:
    normalize = plan_of(normalize=True, hyperparameters=written).config.normalize
    assert normalize is not None
    assert normalize.gamma == meant


@pytest.mark.parametrize(
    ("gpu", "algo", "written", "device"),
    [
        (True, "ppo", "auto", "cpu"),
        (True, "dqn", "auto", "cuda"),
        (True, "ppo", "cuda", "cuda"),
        (False, "dqn", "auto", "cpu"),
        (False, "ppo", "cpu", "cpu"),
    ],
)
def test_the_device_is_chosen_and_the_first_note_says_why(
    gpu: bool, algo: str, written: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    chosen = plan_of(False, algo=algo, device=written)
    assert chosen.config.device == device
    assert chosen.notes[0].startswith(f"device {device}: ")


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    problem = problem_of(device="cuda:0")
    assert (problem.path, problem.message) == ("device", "cuda:0 was asked for, and torch finds no usable GPU.")
    assert problem.hint.startswith("Use device: cpu")


@pytest.mark.parametrize(("env", "deterministic"), [("CartPole-v1", True), ("ALE/Pong-v5", False)])
def test_the_env_decides_how_it_is_usually_evaluated(env: str, deterministic: bool) -> None:
    assert plan_of(False, env={"id": env}).config.evaluation.deterministic is deterministic


def test_a_parent_by_its_relative_path_becomes_absolute_because_runs_move(folder: Path) -> None:
    PPO("MlpPolicy", "CartPole-v1").save("parent.zip")
    assert plan_of(init_from="parent.zip").config.init_from == str(folder / "parent.zip")


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (b"junk", {}, "is not a whole SB3 model"),
        (
            None,
            {"hyperparameters": {"policy_kwargs": {"net_arch": [8]}}},
            'do not fit this config: "mlp_extractor.policy_net.0.weight" has the shape (64, 4) and not (8, 4).',
        ),
        (None, {"normalize": True}, "only one side normalizes"),
        (
            None,
            {"algo": "dqn"},
            "parent.zip (ppo): The saved networks do not fit this config: only the saved networks have a",
        ),
    ],
)
def test_a_parent_that_does_not_fit_is_found_before_training(
    content: bytes | None, changes: dict[str, Any], message: str, folder: Path
) -> None:
    PPO("MlpPolicy", "CartPole-v1").save("parent.zip") if content is None else Path("parent.zip").write_bytes(content)
    problem = problem_of(init_from="parent.zip", **changes)
    assert problem.path == "init_from"
    assert message in problem.message


def test_unknown_keys_of_observations_to_normalize_are_named() -> None:
    assert "have no keys" in problem_of(normalize={"norm_obs_keys": ["observatoin"]}).message


def test_observations_that_are_no_numbers_are_not_normalized() -> None:
    lake = {"env": {"id": "FrozenLake-v1"}, "algo": "a2c"}
    problem = problem_of(**lake, normalize=True)
    assert (problem.path, problem.message) == (
        "normalize",
        "observations of kind Discrete are not numbers to normalize.",
    )
    assert plan_of(**lake, normalize={"norm_obs": False}).config.normalize is not None
    dqn = problem_of(**{**lake, "algo": "dqn"}, normalize={"norm_obs": False})
    assert (dqn.path, "Discrete" in dqn.message) == ("normalize", True)


def test_choices_that_are_not_counted_from_0_are_refused(own: str) -> None:
    problems = problems_of(env={"id": f"{own}:Floors"})
    assert [problem.message for problem in problems] == [
        "SB3 counts actions from 0, and this env counts them from 1 (Discrete(2, start=1)).",
        "SB3 counts observations from 0, and this env counts them from 5 (Discrete(3, start=5)).",
    ]
    assert "my_module:Shifted" in problems[0].hint
    several = problems_of(env={"id": f"{own}:Several"})
    assert ["counts actions from 0" in problem.message for problem in several] == [True]


def test_a_keyword_that_does_nothing_without_another_is_named() -> None:
    reinforce = {"algo": "reinforce", "total_timesteps": None, "total_episodes": 5}
    problem = problem_of(**reinforce, hyperparameters={"vf_coef": 0.3})
    assert (problem.path, problem.message) == ("hyperparameters.vf_coef", "vf_coef does nothing without baseline.")
    assert plan_of(**reinforce, hyperparameters={"vf_coef": 0.3, "baseline": False})
    assert plan_of(hyperparameters={"vf_coef": 0.3})


def test_a_value_of_a_table_does_not_move_beyond_its_target() -> None:
    lake = {"env": {"id": "FrozenLake-v1"}, "algo": "q_learning"}
    assert "beyond its target" in problem_of(**lake, hyperparameters={"learning_rate": 1.5}).message
    assert plan_of(**lake, hyperparameters={"learning_rate": 1.0})


@pytest.mark.parametrize("wrapper", ["AtariWrapper", "MaxAndSkipEnv", "MaxAndSkipObservation"])
def test_skipping_frames_twice_is_refused(wrapper: str) -> None:
    problem = problem_of(env={"id": "ALE/Pong-v5", "wrappers": [wrapper]}, algo="a2c", hyperparameters={})
    assert problem.path == "env.wrappers.0"
    assert "skip frames again" in problem.message


@pytest.mark.parametrize("name", ["NormalizeObservation", "NormalizeReward"])
def test_wrappers_whose_statistics_no_checkpoint_holds_are_refused(name: str) -> None:
    problem = problem_of(env={"id": "CartPole-v1", "wrappers": [f"gymnasium.wrappers:{name}"]})
    assert problem.path == "env.wrappers"
    assert f"{name} keeps statistics that a checkpoint does not hold" in problem.message
    assert "normalize: true" in problem.hint


def test_patience_without_evaluations_is_refused() -> None:
    problem = problem_of(early_stop={"patience": 2}, evaluation={"episodes": 0})
    assert problem.path == "early_stop.patience"


@pytest.mark.parametrize(
    ("changes", "threads"),
    [
        ({}, 1),
        ({"algo": "dqn", "hyperparameters": {}}, 1),
        ({"hyperparameters": {"n_steps": 1024, "batch_size": 1024}}, 2),
        ({"threads": 3}, 3),
    ],
)
def test_the_number_of_threads_follows_from_the_config_and_not_from_the_machine(
    changes: dict[str, Any], threads: int
) -> None:
    assert plan_of(**changes).config.threads == threads


def test_a_resolved_config_resolves_to_itself() -> None:
    first = plan_of(normalize=True, hyperparameters={"learning_rate": "lin_1e-3"}).config
    assert make_plan(read_source(first.model_dump(by_alias=True))).config == first


def test_the_probe_says_what_the_policy_will_see() -> None:
    pong = {"id": "ALE/Pong-v5", "wrappers": [{"AtariWrapper": {"frame_skip": 1}}], "frame_stack": 4, "n_envs": 16}
    facts = plan_of(algo="a2c", env=pong).facts
    assert facts is not None
    assert facts.observation_space.shape == (4, 84, 84)
    assert facts.n_envs == 16
    assert plan_of().facts.max_episode_steps == 500  # type: ignore[union-attr]
    assert plan_of(False).facts is None


def test_every_env_that_was_built_to_look_at_is_closed(own: str) -> None:
    plan_of(env={"id": f"{own}:Corridor", "n_envs": 3}, evaluation={"env_kwargs": {"length": 5}})
    module = __import__(own)
    assert module.made
    assert set(module.closed) == set(module.made)


def test_a_check_leaves_the_random_generators_and_the_folder_as_they_were(folder: Path) -> None:
    def states() -> list[Any]:
        return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]  # type: ignore[index]

    before = states()
    plan_of(algo="dqn", hyperparameters={"buffer_size": 100})
    assert states() == before
    assert os.listdir(folder) == []


def test_classes_in_the_current_folder_and_in_the_configs_own_are_found(folder: Path, own: str) -> None:
    elsewhere = folder / "configs"
    elsewhere.mkdir()
    (elsewhere / f"{own}_too.py").write_text("from gymnasium import Wrapper\nclass Same(Wrapper): pass\n")
    path = elsewhere / "c.yaml"
    path.write_text(
        f"algo: ppo\nenv: {{id: '{own}:Corridor', wrappers: ['{own}_too:Same']}}\ntotal_timesteps: 1000\n"
        f"callbacks: [{{class: '{own}:Noisy', kwargs: {{text: hello}}}}]\n"
    )
    plan = make_plan(read_source(path))
    assert plan.import_paths == (str(folder), str(elsewhere))
    assert plan.recipe.import_paths == plan.import_paths


def test_the_folder_of_a_shipped_config_is_not_importable(folder: Path) -> None:
    assert user_folders(shipped_configs()["CartPole-v1/ppo"]) == (str(folder),)


@pytest.mark.parametrize("form", ["{own}:Corridor", "{own}:Corridor-v3"])
def test_an_env_of_the_users_own_is_named_by_class_or_by_module_and_id(form: str, own: str) -> None:
    facts = plan_of(env={"id": form.format(own=own)}).facts
    assert facts is not None
    assert facts.observation_space.shape == (1,)


def test_an_env_that_its_module_registers_is_found_through_imports(own: str) -> None:
    assert plan_of(env={"id": "Corridor-v3", "imports": [own]}).facts is not None


@pytest.mark.parametrize(
    ("env", "path", "message"),
    [
        ({"id": "CartPole-v1", "wrappers": ["TimeLmit"]}, "env.wrappers.0", 'there is no wrapper "TimeLmit".'),
        (
            {"id": "CartPole-v1", "wrappers": ["FlattenObservation", "no_such_module:W"]},
            "env.wrappers.1",
            'the module "no_such_module" was not found.',
        ),
        (
            {"id": "CartPole-v1", "wrappers": [{"TimeLimit": {"max_episode_steps": "many"}}]},
            "env.wrappers.0",
            "TimeLimit's max_episode_steps must be a whole number, not 'many'.",
        ),
        ({"id": "CartPole-v1", "wrappers": ["TimeLimit"]}, "env.wrappers.0", "TimeLimit could not be built: "),
        (
            {"id": "CartPole-v1", "imports": ["math", "no_such_module"]},
            "env.imports.1",
            'the module "no_such_module" was not found.',
        ),
        ({"id": "CartPole-v1", "imports": [""]}, "env.imports.0", 'importing "" failed'),
        (
            {"id": "CartPole-v1", "kwargs": {"gravity": 3}},
            "env.kwargs.gravity",
            'CartPole-v1 has no keyword "gravity".',
        ),
        ({"id": "no_such_module:Env"}, "env.id", 'the module "no_such_module" was not found.'),
        ({"id": "math:Env"}, "env.id", 'the module "math" has no "Env".'),
        ({"id": "math:Env-v0"}, "env.id", 'there is no env "Env-v0".'),
    ],
)
def test_an_env_that_cannot_be_built_is_told_at_the_key_to_blame(env: Any, path: str, message: str) -> None:
    problem = problem_of(env=env)
    assert problem.path == path
    assert message in problem.message


def test_a_keyword_that_an_env_does_not_take_is_told_at_its_flag_with_those_it_takes(folder: Path, own: str) -> None:
    Path("c.yaml").write_text(f"algo: ppo\nenv: {{id: '{own}:Corridor', kwargs: {{}}}}\ntotal_timesteps: 1000\n")

    def said(pair: str) -> str:
        with pytest.raises(ConfigError) as raised:
            make_plan(read_source(Path("c.yaml"), [Override.parse(pair)]))
        return str(raised.value)

    begin = f"--set env.kwargs.lenght=3: env.kwargs.lenght: {own}:Corridor has no keyword"
    assert said("env.kwargs.lenght=3") == f'{begin} "lenght". Did you mean "length"?'
    assert said("env.kwargs.wind=3").endswith('has no keyword "wind". It takes: length.')
    raised = f"{own}:Corridor could not be built: RuntimeError: too short"
    assert said("env.kwargs.length=0") == f"--set env.kwargs.length=0: env.kwargs.length: {raised}"
    Path("c.yaml").write_text(f"algo: ppo\nenv: {{id: '{own}:Plain'}}\ntotal_timesteps: 1000\n")
    nothing = f"{own}:Plain takes no keyword arguments. Leave `env.kwargs` out."
    assert said("env.kwargs.x=1") == f"--set env.kwargs.x=1: env.kwargs.x: {nothing}"


def test_an_env_that_raises_is_the_users_to_mend(own: str) -> None:
    problem = problem_of(env={"id": f"{own}:Corridor", "kwargs": {"length": 0}})
    assert problem.message == f"{own}:Corridor could not be built: RuntimeError: too short"
    evaluation = problem_of(env={"id": f"{own}:Corridor"}, evaluation={"env_kwargs": {"length": 0}})
    assert evaluation.path == "evaluation.env_kwargs"


def test_a_features_extractor_that_raises_is_told_before_training(own: str) -> None:
    problem = problem_of(hyperparameters={"policy_kwargs": {"features_extractor_class": f"{own}:Stubborn"}})
    assert (problem.path, problem.message) == ("hyperparameters", "PPO refuses this config: no weights here.")


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        (
            {"normalize": {"norm_obs_keys": ["x"]}},
            "normalize.norm_obs_keys",
            "the observations have no keys",
        ),
        ({"callbacks": [{"class": "os:system"}]}, "callbacks.0", '"os:system" is not a subclass of BaseCallback.'),
        ({"trackers": ["tensorbord"]}, "trackers.0", 'there is no tracker "tensorbord".'),
        ({"trackers": [{"tensorboard": {"x": 1}}]}, "trackers.0", "tensorboard takes no keyword arguments."),
        ({"init_from": "nothere"}, "init_from", 'There is no run "nothere" in runs.'),
        ({"algo": "maskable_ppo"}, "algo", "maskable_ppo needs an env that says which actions are allowed."),
        ({"hyperparameters": {"use_sde": True}}, "hyperparameters", "PPO refuses this config: "),
        ({"learning_rate": 1e-3}, "learning_rate", 'there is no key "learning_rate".'),
    ],
)
def test_what_only_the_whole_config_shows_is_told_at_its_key(changes: Any, path: str, message: str) -> None:
    problem = problem_of(**changes)
    assert problem.path == path
    assert problem.message.startswith(message)


def test_a_callbacks_unknown_keyword_is_told(own: str) -> None:
    problem = problem_of(callbacks=[{"class": f"{own}:Noisy", "kwargs": {"txt": 1}}])
    assert (problem.path, problem.message) == ("callbacks.0.kwargs.txt", f'{own}:Noisy has no keyword "txt".')


@pytest.mark.parametrize("key", ["learning_rate", "n_steps", "policy", "policy_kwargs"])
def test_a_keyword_of_the_algorithm_at_the_top_is_sent_to_its_section(key: str) -> None:
    assert problem_of(**{key: 1}).hint == f'Did you mean "hyperparameters.{key}"?'


@pytest.mark.parametrize("key", ["buffer_size", "seeed"])
def test_another_unknown_key_at_the_top_is_not(key: str) -> None:
    assert "hyperparameters." not in problem_of(**{key: 1}).hint


def test_only_a_missing_package_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "panda_gym", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    found = problems_of(algo="sac", env={"id": "PandaReach-v3"}, trackers=["wandb"], seed=-1)
    assert {problem.path: problem.is_missing_package for problem in found} == {
        "seed": False,
        "env.id": True,
        "trackers.0": True,
    }


def test_errors_in_one_section_hide_none_in_another() -> None:
    found = problems_of(
        algo="dqn",
        env={"id": "Pendulum-v1"},
        normalize={"norm_ob": True},
        evaluation={"episodes": -1},
        hyperparameters={"n_epochs": 3},
        callbacks=[{"class": "os:system"}],
        trackers=["tensorbord"],
    )
    assert {problem.path for problem in found} == {
        "algo",
        "normalize.norm_ob",
        "evaluation.episodes",
        "hyperparameters.n_epochs",
        "callbacks.0",
        "trackers.0",
    }


def test_an_error_causes_no_second_one_of_its_own() -> None:
    wrong_wrappers = {"id": "ALE/Pong-v5", "wrappers": [3], "frame_stack": "four"}
    found = problems_of(algo="dqn", env=wrong_wrappers, hyperparameters={"policy": "CnnPolicy"})
    assert {problem.path for problem in found} == {"env.wrappers.0", "env.frame_stack"}
    assert [problem.path for problem in problems_of(hyperparameters=3)] == ["hyperparameters"]
    assert [problem.path for problem in problems_of(algo="pp0")] == ["algo"]


def test_the_keywords_of_a_misspelt_algorithm_are_checked_against_the_one_that_was_meant() -> None:
    found = problems_of(algo="pp0", env={"id": "Pendulum-v1"}, hyperparameters={"n_step": 1, "gamma": 3}, n_epochs=2)
    assert {problem.path: problem.hint for problem in found} == {
        "algo": 'Did you mean "ppo"?',
        "hyperparameters.n_step": 'Did you mean "n_steps"?',
        "hyperparameters.gamma": "",
        "n_epochs": 'Did you mean "hyperparameters.n_epochs"?',
    }
    assert [problem.path for problem in problems_of(algo="dqm", env={"id": "Pendulum-v1"})] == ["algo"]
    assert [problem.path for problem in problems_of(algo="zzz", hyperparameters={"n_step": 1})] == ["algo"]


@pytest.mark.parametrize(
    ("changes", "key", "begins"),
    [
        ({"algo": "dqn", "hyperparameters": {"learning_starts": 1_000}}, "hyperparameters.learning_starts", 1_000),
        ({"curiosity": {"gamma": 0.99}}, "curiosity.gamma", 2_048),  # PPO's rollout
        ({"curiosity": {"gamma": 0.999}, "hyperparameters": {"n_steps": 300}}, "curiosity.gamma", 1_200),
    ],
)
def test_what_would_begin_after_the_end_of_training_is_told(changes: dict[str, Any], key: str, begins: int) -> None:
    def warned(budget: int) -> list[str]:
        return [warning.path for warning in plan_of(**{"algo": "ppo", **changes, "total_timesteps": budget}).warnings]

    assert key in warned(begins)
    assert key not in warned(begins + 1)


@pytest.mark.parametrize(
    ("env", "settings", "warned"),
    [
        ("CartPole-v1", {"episodic": True}, True),
        ("CartPole-v1", {}, False),
        ("FrozenLake-v1", {"episodic": True}, False),
    ],
)
def test_an_episodic_bonus_for_real_numbers_is_warned_of(env: str, settings: dict[str, Any], warned: bool) -> None:
    plan = plan_of(algo="ppo", env={"id": env}, curiosity={"gamma": 0.9, **settings}, total_timesteps=10_000)
    assert ("curiosity.episodic" in [warning.path for warning in plan.warnings]) == warned


def test_warnings_alone_let_a_config_pass() -> None:
    plan = plan_of(hyperparameters={"n_steps": 100}, checkpoint={"every": 500})
    assert [warning.path for warning in plan.warnings] == ["hyperparameters.batch_size", "checkpoint.every"]
    assert all(warning.hint for warning in plan.warnings)


@pytest.mark.parametrize(
    ("every", "n_envs", "warned"), [(1500, 1, False), (1499, 1, True), (1500, 2, True), (0, 9, False)]
)
def test_checkpoints_closer_than_three_episodes_are_warned_of(every: int, n_envs: int, warned: bool) -> None:
    plan = plan_of(env={"id": "CartPole-v1", "n_envs": n_envs}, checkpoint={"every": every})
    assert bool(plan.warnings) == warned


@pytest.mark.parametrize("checkpoint", [None, {}, {"every": None}, {"keep": 1}])
def test_the_default_spacing_of_checkpoints_is_not_warned_of(checkpoint: Any) -> None:
    written = {} if checkpoint is None else {"checkpoint": checkpoint}
    plan = plan_of(env={"id": "CartPole-v1", "n_envs": 8}, **written)
    assert plan.config.checkpoint.every == 4000
    assert plan.warnings == ()


def test_the_origin_of_every_value_is_told(folder: Path) -> None:
    Path("c.yaml").write_text(
        "algo: ppo\nenv: {id: CartPole-v1}\ntotal_timesteps: 20_000\n"
        "normalize:\n  clip_obs: 5\ncheckpoint: {every: 0}\nearly_stop: {patience: 3}\n"
    )
    overrides = [Override.parse("evaluation={episodes: 3}"), Override("seed", 4, "--seed")]
    rows = make_plan(read_source(Path("c.yaml"), overrides)).explained()
    assert len({key for key, _, _ in rows}) == len(rows)
    table = {key: (value, origin) for key, value, origin in rows}
    assert table["total_timesteps"] == ("20000", "c.yaml:3")
    assert table["normalize.clip_obs"] == ("5.0", "c.yaml:5")
    assert table["normalize.norm_obs"] == ("true", "default")
    assert table["normalize.gamma"] == ("0.99", "derived")
    assert table["early_stop.patience"] == ("3", "c.yaml:7")
    assert table["early_stop.window"] == ("100", "default")
    assert table["checkpoint.every"] == ("0", "c.yaml:6")
    assert table["evaluation.episodes"] == ("3", "--set evaluation={episodes: 3}")
    assert table["seed"] == ("4", "--seed")
    assert table["env.n_envs"] == ("1", "default")
    assert table["threads"] == ("1", "derived")


@pytest.mark.parametrize("name", list(shipped_configs()))
def test_every_shipped_config_passes_without_a_warning(name: str, folder: Path) -> None:
    try:
        plan = make_plan(read_source(shipped_configs()[name]))
    except ConfigError as error:
        if all(problem.is_missing_package for problem in error.problems):
            pytest.skip(str(error))
        raise
    assert plan.warnings == ()
    assert plan.facts is not None
    assert os.listdir(folder) == []
