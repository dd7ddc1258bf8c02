"""Normalizer against SB3's VecNormalize: the same bits of everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rlrun.envs.normalization import get_statistics, set_statistics
from rlrun.envs.normalizer import Normalizer


def box(*shape: int, dtype: type = np.float32) -> spaces.Box:
    return spaces.Box(-9, 9, shape, dtype)


class Noise(gym.Env):
    """Random observations of a space, and episodes of seven steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return self._draw(), {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        return self._draw(), float(self.np_random.normal(3, 40)), self._steps == 7, False, {}

    def _draw(self) -> Any:
        def draw(space: Any) -> Any:
            if isinstance(space, spaces.Discrete):
                return int(self.np_random.integers(space.n))
            return (self.np_random.normal(2, 8, space.shape)).astype(space.dtype)

        space = self.observation_space
        return {key: draw(part) for key, part in space.items()} if isinstance(space, spaces.Dict) else draw(space)


ARM = {"observation": box(6), "achieved": box(3), "desired": box(3)}
CASES = {
    "vector": (box(5), 4, {}),
    "one number, many envs": (box(1), 16, {}),
    "matrix": (box(2, 3), 3, {}),
    "arm": (spaces.Dict(ARM), 4, {}),
    "arm, many envs": (spaces.Dict(ARM), 16, {}),
    "arm, one env": (spaces.Dict(ARM), 1, {}),
    "arm, one number, many envs": (spaces.Dict({**ARM, "angle": box(1)}), 16, {}),
    "two types": (spaces.Dict({**ARM, "far": box(4, dtype=np.float64)}), 4, {}),
    "whole numbers": (spaces.Dict({"a": box(2, dtype=np.int64), "b": box(3, dtype=np.int64)}), 4, {}),
    "half precision": (box(4, dtype=np.float16), 4, {}),
    "some keys": (spaces.Dict({**ARM, "token": spaces.Discrete(4)}), 4, {"norm_obs_keys": ["desired", "observation"]}),
    "a picture besides": (spaces.Dict({**ARM, "map": box(2, 2)}), 4, {}),
    "rewards alone": (spaces.Dict(ARM), 4, {"norm_obs": False}),
    "observations alone": (spaces.Dict(ARM), 4, {"norm_reward": False}),
    "clipped": (spaces.Dict(ARM), 4, {"clip_obs": 0.5, "clip_reward": 0.1, "epsilon": 0.3, "gamma": 0.9}),
}


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for part, counterpart in zip(one, other, strict=True):
            assert_equal(part, counterpart)
    else:
        assert getattr(one, "dtype", None) == getattr(other, "dtype", None)
        np.testing.assert_array_equal(one, other)


def pair(case: str) -> tuple[Normalizer, VecNormalize]:
    space, n_envs, settings = CASES[case]
    both = [cls(DummyVecEnv([lambda: Noise(space)] * n_envs), **settings) for cls in (Normalizer, VecNormalize)]
    for venv in both:
        venv.seed(3)
    return both[0], both[1]


def play(ours: Normalizer, theirs: VecNormalize, steps: int) -> None:
    assert_equal(ours.reset(), theirs.reset())
    for _ in range(steps):
        actions = np.zeros(ours.num_envs, dtype=np.int64)
        assert_equal(ours.step(actions), theirs.step(actions))
        assert_equal(ours.get_original_obs(), theirs.get_original_obs())
        assert_equal(ours.get_original_reward(), theirs.get_original_reward())
        assert_equal(get_statistics(ours), get_statistics(theirs))


@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_those_of_vec_normalize(case: str) -> None:
    ours, theirs = pair(case)
    play(ours, theirs, 20)
    ours.training = theirs.training = False
    play(ours, theirs, 3)


@pytest.mark.parametrize("case", ["vector", "arm"])
def test_statistics_that_are_put_in_are_gone_on_from(case: str) -> None:
    ours, theirs = pair(case)
    play(ours, theirs, 10)
    for venv in (ours, theirs):
        set_statistics(venv, {name: array * 2 for name, array in get_statistics(venv).items()})
    play(ours, theirs, 10)


def test_keys_of_different_counts_keep_their_own() -> None:
    ours, theirs = pair("arm")
    play(ours, theirs, 2)
    for venv in (ours, theirs):
        set_statistics(venv, get_statistics(venv) | {"obs.desired.count": np.array(50.0)})
    play(ours, theirs, 10)


@pytest.mark.parametrize("case", ["vector", "arm", "rewards alone"])
def test_what_is_saved_is_a_plain_vec_normalize(case: str, tmp_path: Path) -> None:
    ours, theirs = pair(case)
    play(ours, theirs, 10)
    ours.save(str(tmp_path / "ours.pkl"))
    theirs.save(str(tmp_path / "theirs.pkl"))
    assert b"rlrun" not in (tmp_path / "ours.pkl").read_bytes()
    loaded = VecNormalize.load(str(tmp_path / "ours.pkl"), ours.venv)
    assert type(loaded) is VecNormalize
    assert vars(loaded).keys() == vars(VecNormalize.load(str(tmp_path / "theirs.pkl"), theirs.venv)).keys()
    assert_equal(get_statistics(loaded), get_statistics(theirs))
