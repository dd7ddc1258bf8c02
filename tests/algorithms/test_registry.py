"""The table of algorithms is literal; everything else about them is read off their classes."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
from stable_baselines3.common.base_class import BaseAlgorithm

from rlrun.algorithms import registry
from rlrun.algorithms.registry import algorithms, get_algorithm, near_algorithm
from rlrun.errors import UsageError

OFF_POLICY = {"dqn", "sac", "td3", "ddpg", "tqc", "qrdqn", "crossq"}
ON_POLICY = {"a2c", "ppo", "trpo", "ars", "recurrent_ppo", "maskable_ppo"}
EPISODIC = {"q_learning", "reinforce"}


def test_the_table_holds_every_algorithm_that_is_promised() -> None:
    assert set(algorithms()) == OFF_POLICY | ON_POLICY | EPISODIC


@pytest.mark.parametrize("name", sorted(OFF_POLICY | ON_POLICY | EPISODIC))
def test_every_row_is_an_sb3_class_that_learns_as_its_kind_does(name: str) -> None:
    algorithm = get_algorithm(name)
    assert algorithm.name == name
    assert issubclass(algorithm.load(), BaseAlgorithm)
    assert algorithm.is_off_policy == (name in OFF_POLICY)
    assert algorithm.is_episodic == (name in EPISODIC)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pp0", 'Did you mean "ppo"?'),
        ("PPO", 'Did you mean "ppo"?'),
        ("maskableppo", 'Did you mean "maskable_ppo"?'),
        ("alphazero", "Known: a2c, ppo, dqn, sac, td3,"),
    ],
)
def test_an_unknown_algorithm_gets_the_nearest_or_the_list(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f'there is no algorithm "{name}"') as raised:
        get_algorithm(name)
    assert raised.value.hint.startswith(hint)


@pytest.mark.parametrize(("name", "near"), [("pp0", "ppo"), ("SAC", "sac"), ("alphazero", None)])
def test_the_algorithm_that_was_most_likely_meant(name: str, near: str | None) -> None:
    found = near_algorithm(name)
    assert (found and found.name) == near


def test_an_algorithm_that_cannot_be_imported_is_not_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("alphazeros", "no_such_module:R", "rlrun.algorithms")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert near_algorithm("alphazero") is None


def test_a_plug_in_adds_an_algorithm_and_cannot_replace_one(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("mine", "stable_baselines3:A2C", "rlrun.algorithms"),
        EntryPoint("ppo", "stable_baselines3:A2C", "rlrun.algorithms"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "rlrun.algorithms" else [])
    assert get_algorithm("mine").load().__name__ == "A2C"
    assert get_algorithm("ppo").load().__name__ == "PPO"
