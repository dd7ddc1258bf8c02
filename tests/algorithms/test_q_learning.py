"""Tabular Q-learning against values computed by hand, and as an SB3 algorithm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy

from rlrun.algorithms.q_learning import QLearning


class Chain(gym.Env[int, int]):
    """States 0, 1, 2: action 1 goes right, action 0 stays. The last state ends the episode with a reward of 1."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.state += int(action)
        return self.state, float(self.state == 2), self.state == 2, False, {}


def lake(**kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make("FrozenLake-v1", is_slippery=False, **kwargs)


def agent(env: Any = None, **kwargs: Any) -> QLearning:
    return QLearning("TablePolicy", env or Chain(), **{"learning_rate": 0.5, "gamma": 0.9, "seed": 0, **kwargs})


def see(model: QLearning, state: int, action: int, reward: float, following: int, is_terminal: bool = False) -> None:
    model._begin_episode()
    model._learn_from_step(np.array([state]), np.array([action]), reward, following, is_terminal)


def test_one_update_is_the_one_computed_by_hand():
    model = agent()
    model.table[0] = [2.0, 4.0]
    model.table[1] = [10.0, 20.0]
    see(model, 0, 1, reward=3.0, following=1)
    # 4 + 0.5 * (3 + 0.9 * 20 - 4) = 12.5
    assert model.table[0].tolist() == [2.0, 12.5]
    assert model.table[1].tolist() == [10.0, 20.0]


def test_nothing_follows_a_terminal_state():
    model = agent()
    model.table[1] = [10.0, 20.0]
    see(model, 0, 1, reward=3.0, following=1, is_terminal=True)
    assert model.table[0, 1] == 1.5  # 0 + 0.5 * (3 - 0)


def test_after_a_time_limit_the_state_still_counts():
    model = agent(gym.wrappers.TimeLimit(Chain(), 1), exploration_initial_eps=0.0, exploration_final_eps=0.0)
    model.table[0] = [0.0, 1.0]  # the best action goes right, and there the limit cuts
    model.table[1] = [0.0, 20.0]
    model.learn(total_episodes=1)
    assert model.table[0, 1] == 1.0 + 0.5 * (0.0 + 0.9 * 20.0 - 1.0)


def test_a_chain_is_learnt_to_the_values_of_bellmans_equation():
    model = agent(learning_rate=1.0).learn(total_episodes=300)
    # Staying in state 0 costs one step more than going: 0.9 * 0.9 and 0.9; in state 1 likewise 0.9 and 1.
    assert model.table == pytest.approx(np.array([[0.81, 0.9], [0.9, 1.0], [0.0, 0.0]]))


def test_epsilon_falls_exponentially_with_the_number_of_the_episode():
    model = agent(exploration_initial_eps=1.0, exploration_final_eps=0.05, exploration_decay=0.0005)
    assert model.epsilon(0) == 1.0
    assert model.epsilon(2_000) == pytest.approx(0.05 + 0.95 * math.exp(-1))
    assert model.epsilon(10**6) == pytest.approx(0.05)
    model.learn(total_episodes=3)
    assert model.exploration_rate == model.epsilon(2)  # of the third episode


def test_among_equal_actions_acting_takes_the_first_and_learning_any():
    model = agent(exploration_initial_eps=0.0, exploration_final_eps=0.0)
    assert model.predict(np.array([0, 1, 2]), deterministic=True)[0].tolist() == [0, 0, 0]
    model._begin_episode()
    assert {int(model._act(np.array([0]))[0]) for _ in range(50)} == {0, 1}
    model.table[0] = [0.0, 1.0]
    assert {int(model._act(np.array([0]))[0]) for _ in range(50)} == {1}


def test_an_agent_that_acts_stochastically_explores_as_at_the_end_of_training():
    model = agent()
    model.table[0] = [1.0, 0.0]
    model.exploration_final_eps = 0.5
    actions = model.predict(np.zeros(4_000, dtype=int))[0]
    assert actions.mean() == pytest.approx(0.25, abs=0.03)  # half of the random ones


def test_the_frozen_lake_is_crossed_on_the_shortest_way():
    model = agent(lake(max_episode_steps=99), learning_rate=0.7, gamma=0.95).learn(total_episodes=1_500)
    returns, lengths = evaluate_policy(model, model.env, 5, return_episode_rewards=True)
    assert (set(returns), set(lengths)) == ({1.0}, {6})


def test_the_same_seed_gives_the_same_table():
    one, other, another = (agent(lake(), seed=seed).learn(total_episodes=500).table for seed in (3, 3, 4))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, another)


def test_a_saved_agent_is_loaded_as_it_was_and_learns_on(tmp_path: Path):
    model = agent().learn(total_episodes=20)
    model.save(tmp_path / "model.zip")
    loaded = QLearning.load(tmp_path / "model.zip", env=Chain())
    assert np.array_equal(loaded.table, model.table)
    assert (loaded.gamma, loaded._episode_num, loaded.num_timesteps) == (0.9, 20, model.num_timesteps)
    assert loaded.predict(np.array(1), deterministic=True)[0] == 1
    loaded.learn(total_episodes=5, reset_num_timesteps=False)
    assert loaded._episode_num == 25
    assert not np.array_equal(loaded.table, model.table)


def test_a_budget_of_timesteps_is_met_at_the_end_of_an_episode():
    model = agent(lake()).learn(100)
    assert 100 <= model.num_timesteps < 200
    assert model._current_progress_remaining > 0


@pytest.mark.parametrize("budget", [{}, {"total_timesteps": 10, "total_episodes": 10}])
def test_learn_takes_either_timesteps_or_episodes(budget: dict[str, int]):
    with pytest.raises(ValueError, match="either total_timesteps or total_episodes"):
        agent().learn(**budget)


def test_a_learning_rate_may_fall_with_the_episodes():
    model = agent(learning_rate=lambda remaining: remaining)
    model.learn(total_episodes=4)
    assert model._step_size == 0.25  # of the last of four episodes


def test_observations_that_are_no_numbers_from_0_on_are_refused():
    with pytest.raises(ValueError, match="needs observations that are numbers from 0 on"):
        QLearning("TablePolicy", gym.make("CartPole-v1"))
