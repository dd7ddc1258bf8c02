"""Every system of the course is evaluated, filmed, published and fetched like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Outcome
from hub_server import Hub

import rlrun

DQN: dict[str, Any] = {"learning_starts": 20, "buffer_size": 500, "policy_kwargs": {"net_arch": [8]}}
SYSTEMS: dict[str, dict[str, Any]] = {
    "q_learning": {"algo": "q_learning", "env": {"id": "FrozenLake-v1"}, "total_episodes": 30},
    "reinforce": {"algo": "reinforce", "env": {"id": "CartPole-v1"}, "total_episodes": 5},
    "pixelcopter": {"algo": "reinforce", "env": {"id": "Pixelcopter-v0"}, "total_episodes": 5},
    "prioritized": {"algo": "dqn", "hyperparameters": {**DQN, "double_q": True, "prioritized_replay": True}},
    "dueling": {"algo": "dqn", "hyperparameters": {**DQN, "dueling": True}},
    "n_steps": {"algo": "dqn", "hyperparameters": {**DQN, "n_steps": 3}},
    "rnd": {"algo": "ppo", "curiosity": {"kind": "rnd"}, "hyperparameters": {"n_steps": 64, "batch_size": 64}},
    "icm": {"algo": "a2c", "curiosity": {"kind": "icm"}, "normalize": True},
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_of_the_course_is_evaluated_filmed_published_and_fetched(
    name: str, hub: Hub, rlrun_command: Callable[..., Outcome]
):
    config = {"env": {"id": "CartPole-v1"}, "evaluation": {"every": 0, "episodes": 2}, "trackers": [], **SYSTEMS[name]}
    if "total_episodes" not in config:
        config["total_timesteps"] = 200
    run = rlrun.train(config, name="run", progress=False)
    film = rlrun_command("video", "run", "--length", "20")
    assert film.code == 0, film.err
    assert list(run.path.glob("videos/*.mp4"))
    pushed = rlrun_command("push", "run", "--repo", "ada/agent", "--no-video", "--episodes", "3")
    assert pushed.code == 0, pushed.err
    card = hub.repositories["ada/agent"].files("main")[1]["README.md"].decode()
    assert f"\n# {run.config.algo.replace('_', '')} on ".lower() in card.lower()
    needs_rlrun = name in ("q_learning", "reinforce", "pixelcopter", "dueling")
    assert ("With plain stable-baselines3" in card) is not needs_rlrun, "to load the zip"
    assert "success rate" not in card, "none of these envs says what success is"
    pulled = rlrun_command("pull", "ada/agent", "--name", "theirs")
    assert pulled.code == 0, pulled.err
    expected = run.evaluate(3, seed=9).evaluation.returns
    assert rlrun.open_run("theirs").evaluate(3, seed=9).evaluation.returns == expected
    verified = rlrun_command("verify", "ada/agent", "--episodes", "10")
    assert verified.code == 0, verified.err + verified.out
