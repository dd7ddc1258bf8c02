"""VecNormalize's statistics as plain arrays: copied out, put back in, and refused where they do not belong."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rlrun.envs.normalization import get_statistics, set_statistics
from rlrun.errors import UsageError


class Noise(gym.Env[Any, Any]):
    """Observations far from zero, of any space."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, space: gym.Space[Any]) -> None:
        self.observation_space = space
        space.seed(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 3.0, False, False, {}


def box(*shape: int) -> gym.spaces.Box:
    return gym.spaces.Box(5, 9, shape, np.float32)


def normalized(space: gym.Space[Any] | None = None, steps: int = 0, **settings: Any) -> VecNormalize:
    venv = VecNormalize(DummyVecEnv([lambda: Noise(space or box(2))]), **settings)
    venv.reset()
    for _ in range(steps):
        venv.step(np.array([0]))
    return venv


def shapes(venv: VecNormalize) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in get_statistics(venv).items()}


RETURN = {"ret.mean": (), "ret.var": (), "ret.count": ()}
NAMED = gym.spaces.Dict(near=box(2), far=box(3, 1))


def test_all_moments_have_a_name() -> None:
    assert shapes(normalized()) == {**RETURN, "obs.mean": (2,), "obs.var": (2,), "obs.count": ()}


def test_without_normalized_observations_only_the_return_has_moments() -> None:
    assert shapes(normalized(norm_obs=False)) == RETURN


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["far"], {"obs.far.mean": (3, 1), "obs.far.var": (3, 1), "obs.far.count": ()}),
        (
            None,
            {
                **{"obs.far.mean": (3, 1), "obs.far.var": (3, 1), "obs.far.count": ()},
                **{"obs.near.mean": (2,), "obs.near.var": (2,), "obs.near.count": ()},
            },
        ),
    ],
)
def test_each_normalized_key_of_a_dict_has_its_moments(keys: list[str] | None, expected: dict[str, Any]) -> None:
    assert shapes(normalized(NAMED, norm_obs_keys=keys)) == {**RETURN, **expected}


def test_moments_are_plain_double_precision_arrays_whatever_was_seen() -> None:
    statistics = get_statistics(normalized(steps=20))
    assert {(type(array), array.dtype) for array in statistics.values()} == {(np.ndarray, np.dtype(np.float64))}
    assert 6 < statistics["obs.mean"].mean() < 8
    assert statistics["obs.count"] == pytest.approx(21, abs=0.01)


def test_a_copy_and_the_original_do_not_change_each_other() -> None:
    venv = normalized(steps=5)
    before = get_statistics(venv)
    kept = {name: array.copy() for name, array in before.items()}
    for _ in range(5):
        venv.step(np.array([0]))
    assert all(np.array_equal(before[name], kept[name]) for name in kept)
    now = get_statistics(venv)
    assert now["obs.count"] > kept["obs.count"]
    now["obs.mean"][:] = -1
    assert get_statistics(venv)["obs.mean"].min() > 0


@pytest.mark.parametrize("space", [box(2), NAMED], ids=["box", "dict"])
def test_moments_put_in_normalize_as_they_did_where_they_came_from(space: gym.Space[Any]) -> None:
    source, target = normalized(space, steps=30), normalized(space)
    set_statistics(target, get_statistics(source))
    seen = space.sample()
    expected, found = source.normalize_obs(seen), target.normalize_obs(seen)
    pairs = [(expected[key], found[key]) for key in expected] if isinstance(seen, dict) else [(expected, found)]
    assert all(np.array_equal(one, other) for one, other in pairs)
    rewards = np.array([3.0])
    assert np.array_equal(source.normalize_reward(rewards), target.normalize_reward(rewards))
    assert not np.array_equal(rewards, target.normalize_reward(rewards))


def test_moments_put_in_go_on_as_if_they_had_never_been_out() -> None:
    source, target = normalized(steps=10), normalized()
    set_statistics(target, get_statistics(source))
    more = np.full((4, 2), 7.5)
    source.obs_rms.update(more)  # type: ignore[union-attr]
    target.obs_rms.update(more)  # type: ignore[union-attr]
    one, other = get_statistics(source), get_statistics(target)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_moments_put_in_are_copied() -> None:
    statistics = get_statistics(normalized(steps=10))
    kept = {name: array.copy() for name, array in statistics.items()}
    venv = normalized()
    set_statistics(venv, statistics)
    for array in statistics.values():
        array += 100
    assert all(np.array_equal(array, kept[name]) for name, array in get_statistics(venv).items())


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({"norm_obs": False}, {}),
        ({}, {"norm_obs": False}),
        ({"space": NAMED}, {}),
        ({"space": NAMED}, {"space": NAMED, "norm_obs_keys": ["near"]}),
    ],
)
def test_moments_of_other_names_are_refused_and_change_nothing(source: dict[str, Any], target: dict[str, Any]) -> None:
    venv = normalized(**target)
    before = get_statistics(venv)
    with pytest.raises(UsageError, match=r"hold .* and this env needs .*another env or another `normalize`"):
        set_statistics(venv, get_statistics(normalized(steps=3, **source)))
    assert all(np.array_equal(array, before[name]) for name, array in get_statistics(venv).items())


def test_moments_of_another_shape_are_refused_and_change_nothing() -> None:
    venv = normalized(box(3))
    with pytest.raises(UsageError, match=r"shape \(2,\) for obs\.\w+, and this env \(3,\)\. They belong to another"):
        set_statistics(venv, get_statistics(normalized(steps=3)))
    assert np.array_equal(get_statistics(venv)["obs.mean"], get_statistics(normalized(box(3)))["obs.mean"])
