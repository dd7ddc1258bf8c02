"""What goes wrong where a worker builds its env is said in the words of the process that noticed."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest

from rlrun.config.schema import EnvConfig
from rlrun.envs import workers
from rlrun.envs.recipe import EnvRecipe
from rlrun.errors import RlrunError, UsageError

OWN = """
import multiprocessing
import os

import gymnasium as gym

IN_WORKER = multiprocessing.parent_process() is not None


class Good(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)


class Moody(Good):
    def __init__(self):
        if IN_WORKER:
            raise RuntimeError("boo")


class Deadly(Good):
    def __init__(self):
        if IN_WORKER:
            os._exit(3)
"""


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that two envs are in two workers."""
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)


def recipe(name: str, folder: Path) -> EnvRecipe:
    (folder / "worker_envs.py").write_text(OWN)
    env = EnvConfig.model_validate({"id": f"worker_envs:{name}", "n_envs": 2, "vec": "workers"})
    return EnvRecipe(env, None, 0, {}, (str(folder),))


def test_an_env_that_raises_in_a_worker_only_is_named_with_the_exception(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as raised:
        recipe("Moody", folder).make_training_vec()
    assert raised.value.message == "In a worker process, worker_envs:Moody could not be built: RuntimeError: boo"
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_that_dies_is_no_bug_of_rlrun(folder: Path) -> None:
    with pytest.raises(RlrunError, match="A worker process died while it built env 0: it ended with exit code 3"):
        recipe("Deadly", folder).make_training_vec()


def test_workers_whose_envs_were_built_are_left_alone(folder: Path) -> None:
    venv, _ = recipe("Good", folder).make_training_vec()
    assert venv.observation_space == gym.spaces.Box(-1, 1, (1,))
    venv.close()


DRAWS = """
import os

import gymnasium as gym
import numpy as np


class Draws(gym.Env):
    observation_space = gym.spaces.Box(0, 1e9, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.array([np.random.random(), os.getpid()]), {}

    def step(self, action):
        return np.array([np.random.random(), os.getpid()]), 0.0, False, False, {}
"""


def test_workers_live_on_when_their_envs_are_built_anew_and_global_generators_repeat(folder: Path) -> None:
    (folder / "drawing_env.py").write_text(DRAWS)
    env = EnvConfig.model_validate({"id": "drawing_env:Draws", "n_envs": 2, "vec": "workers"})
    venv, restartable = EnvRecipe(env, None, 0, {}, (str(folder),)).make_training_vec()
    try:
        first = venv.reset()
        restartable.restart(100)
        other = venv.reset()
        restartable.restart(0)
        again = venv.reset()
    finally:
        venv.close()
    assert (first[:, 1] == other[:, 1]).all()
    assert first[0, 1] != first[1, 1]
    assert (first == again).all()
    assert (first[:, 0] != other[:, 0]).all()
    assert first[0, 0] != first[1, 0]
