"""Search spaces: the table fits every algorithm, a config's own is checked, and what is drawn can train."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rlrun.algorithms.hyperparameters import resolve
from rlrun.algorithms.registry import algorithms, get_algorithm
from rlrun.algorithms.search_spaces import SEARCH_SPACES
from rlrun.config.loading import Source
from rlrun.config.search import parse_range
from rlrun.errors import ConfigError, UsageError
from rlrun.training.searching import search_space
from rlrun.tuning.samplers import PRUNERS, SAMPLERS, check_names, make_pruner, make_sampler
from rlrun.tuning.spaces import distribution, repairs

SPACE = {"hyperparameters.gamma": parse_range({"choice": [0.9, 0.99]})}


def config_of(algo: str, **more: Any) -> dict[str, Any]:
    return {"algo": algo, "env": {"id": "CartPole-v1", "n_envs": 2}, "total_timesteps": 1_000, **more}


@pytest.mark.parametrize("algo", algorithms())
def test_every_algorithm_has_a_space_whose_names_and_values_its_class_takes(algo: str) -> None:
    algorithm = get_algorithm(algo)
    space = search_space(Source(config_of(algo)), algorithm)
    assert len(space) == len(SEARCH_SPACES[algo]) >= 4  # none was left out as unfit
    assert all(distribution(searched) is not None for searched in space.values())
    for key, searched in space.items():
        for value in searched.samples():
            nested: Any = value
            for part in reversed(key.split(".")[1:]):
                nested = {part: nested}
            assert resolve(algorithm, nested)[1] == [], (key, value)


def test_the_table_has_a_row_for_each_algorithm_and_no_other() -> None:
    assert set(SEARCH_SPACES) == {name for name, row in algorithms().items() if ".tests" not in row.target}


OWN_POLICY = """
from stable_baselines3.common.policies import ActorCriticPolicy

class Fixed(ActorCriticPolicy):
    def __init__(self, observation_space, action_space, lr_schedule, use_sde=False):
        super().__init__(observation_space, action_space, lr_schedule)
"""


def test_what_a_users_own_policy_does_not_take_is_left_out_of_the_table(folder: Path) -> None:
    Path("own_policy.py").write_text(OWN_POLICY)
    sys.path.append(str(folder))
    written = {"hyperparameters": {"policy": "own_policy:Fixed"}}
    space = search_space(Source(config_of("a2c", **written)), get_algorithm("a2c"))
    assert "hyperparameters.gamma" in space
    assert not [key for key in space if "policy_kwargs" in key]


@pytest.mark.parametrize(
    ("search", "path", "words"),
    [
        ({}, "search", "the search space is empty"),
        ({"lerning_rate": {"log": [1e-5, 1]}}, "search.lerning_rate", 'Did you mean "learning_rate"?'),
        ({"learning_rate": {"lgo": [1, 2]}}, "search.learning_rate", 'did you mean "log"'),
        ({"gamma": {"uniform": [0, 2]}}, "search.gamma", "between 0 and 1"),
        ({"n_steps": {"uniform": [1, 2.5]}}, "search.n_steps", "whole number"),
        ({"policy_kwargs.activation_fn": {"choice": ["Tanhh"]}}, "search.policy_kwargs.activation_fn", '"Tanh"?'),
        ({"env.id": {"choice": ["Pendulum-v1"]}}, "search.env.id", "cannot be searched"),
        ({"env": {"n_envs": {"choice": [1, "a"]}}}, "search.env.n_envs", "whole number"),
        ({"seed": {"int": [1, 2]}}, "search.seed", "is not set here"),
        ({"gamma": 3}, "search.gamma", "must be a section"),
        ({"env.kwargs": {"choice": [{}]}, "env.kwargs.a": {"int": [1, 2]}}, "search.env.kwargs.a", "overlaps"),
    ],
)
def test_a_space_that_is_wrong_is_said_with_its_path(
    search: Mapping[str, Any], path: str, words: str, folder: Path
) -> None:
    import rlrun

    with pytest.raises(ConfigError) as raised:
        rlrun.check(config_of("a2c", search=search))
    (problem,) = raised.value.problems
    assert problem.path == path
    assert words in f"{problem.message} {problem.hint}"


def test_all_errors_of_a_space_come_at_once(folder: Path) -> None:
    import rlrun

    with pytest.raises(ConfigError) as raised:
        rlrun.check(config_of("a2c", search={"a": {"int": [1, 2]}, "gamma": {"log": [0, 1]}, "b": {"int": [1, 2]}}))
    assert [problem.path for problem in raised.value.problems] == ["search.a", "search.gamma", "search.b"]


@pytest.mark.parametrize(
    ("algo", "n_envs", "drawn", "changed"),
    [
        ("ppo", 2, {"n_steps": 64, "batch_size": 64}, {}),
        ("ppo", 1, {"n_steps": 32, "batch_size": 512}, {"batch_size": 32}),
        ("ppo", 3, {"n_steps": 32, "batch_size": 64}, {"batch_size": 48}),
        ("ppo", 2, {"n_steps": 2048, "batch_size": 64}, {"n_steps": 256}),
        ("ppo", 2, {"n_steps": 8}, {"batch_size": 16}),
        ("a2c", 2, {"n_steps": 1024}, {"n_steps": 256}),
        ("ars", 2, {"n_delta": 4, "n_top": 32}, {"n_top": 4}),
        ("dqn", 2, {"batch_size": 512}, {}),
    ],
)
def test_a_combination_that_could_not_train_is_repaired_always_in_the_same_way(
    algo: str, n_envs: int, drawn: dict[str, Any], changed: dict[str, Any]
) -> None:
    config = config_of(algo, hyperparameters=drawn)
    config["env"]["n_envs"] = n_envs
    values = {f"hyperparameters.{name}": value for name, value in drawn.items()}
    assert repairs(get_algorithm(algo), values, config) == {f"hyperparameters.{k}": v for k, v in changed.items()}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_and_pruner_is_one_of_optunas(name: str) -> None:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    check_names(name, "median", SPACE)
    assert isinstance(make_sampler(name, SPACE, 100, seed=1, parallel=True), BaseSampler)
    assert all(isinstance(make_pruner(pruner, 10), BasePruner) for pruner in PRUNERS)


@pytest.mark.parametrize(
    ("sampler", "pruner", "words"),
    [
        ("tpee", "median", 'Did you mean "tpe"?'),
        ("tpe", "medain", 'Did you mean "median"?'),
        ("x", "none", "Known: tpe"),
    ],
)
def test_unknown_samplers_and_pruners_are_said(sampler: str, pruner: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_names(sampler, pruner, SPACE)
    assert words in str(raised.value)


def test_a_grid_needs_ranges_that_can_be_counted() -> None:
    check_names("grid", "none", {**SPACE, "hyperparameters.n_steps": parse_range({"power_of_two": [3, 5]})})
    with pytest.raises(UsageError, match="has no end of values"):
        check_names("grid", "none", {"hyperparameters.gamma": parse_range({"uniform": [0, 1]})})
