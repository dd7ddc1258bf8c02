"""Every episode is recorded: also one that a wrapper ends by itself, and none when only a life was lost."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import rlrun

WRAPPERS = """
import gymnasium as gym

class EndsAtFive(gym.Wrapper):
    def reset(self, **kwargs):
        self.steps = 0
        return self.env.reset(**kwargs)

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        return observation, 2 * reward, terminated, truncated or self.steps >= 5, info

class LosesLives(gym.Wrapper):
    over = True

    def reset(self, **kwargs):
        self.steps = 0
        if self.over:
            return self.env.reset(**kwargs)
        observation, _, terminated, truncated, info = self.env.step(0)
        return self.env.reset(**kwargs) if terminated or truncated else (observation, info)

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        self.over = terminated or truncated
        return observation, reward, terminated or self.steps >= 3, truncated, info
"""


def episodes(wrapper: str, algo: str, hyperparameters: dict[str, Any], vec: str = "serial", **more: Any) -> Any:
    Path("my_wrappers.py").write_text(WRAPPERS)
    config = {
        "algo": algo,
        "env": {"id": "CartPole-v1", "n_envs": 2, "vec": vec, "wrappers": [wrapper] if wrapper else []},
        "total_timesteps": 200,
        "hyperparameters": hyperparameters,
        "evaluation": {"episodes": 2, "every": 0},
        "trackers": [],
        **more,
    }
    run = rlrun.train(config, progress=False)
    with (run.path / "episodes.csv").open(newline="") as stream:
        return run, list(csv.DictReader(stream))


PPO = {"n_steps": 20, "batch_size": 20, "n_epochs": 1}


@pytest.mark.parametrize("vec", ["serial", pytest.param("workers", marks=pytest.mark.slow)])
def test_an_episode_that_a_wrapper_ends_is_recorded_with_the_envs_own_return(vec: str, folder: Path):
    run, rows = episodes("my_wrappers:EndsAtFive", "ppo", PPO, vec)
    assert {(row["return"], row["length"]) for row in rows} == {("5.0", "5")}
    assert len(rows) == 40
    assert run.evaluate(3).evaluation.lengths == (5, 5, 5)
    assert run.evaluate(3).mean_return == 5.0


def test_it_counts_for_early_stopping(folder: Path):
    run, _ = episodes("my_wrappers:EndsAtFive", "ppo", PPO, early_stop={"mean_return": 5, "window": 10})
    assert "reached 5" in run.manifest["ended_by"]


def test_a_lost_life_is_no_episode(folder: Path):
    _, rows = episodes("my_wrappers:LosesLives", "ppo", PPO)
    assert rows
    assert all(int(row["length"]) > 3 for row in rows)


def test_random_search_records_its_episodes_and_stops_early(folder: Path):
    run, rows = episodes("", "ars", {"n_delta": 2, "n_top": 1}, early_stop={"mean_return": 5, "window": 4})
    assert len(rows) >= 4
    assert {row["env"] for row in rows} <= {"0", "1"}
    assert "reached 5" in run.manifest["ended_by"]
