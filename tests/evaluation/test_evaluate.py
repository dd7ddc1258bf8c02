from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy

import rlrun
from rlrun.config.loading import read_source
from rlrun.envs.recipe import EnvRecipe, Role
from rlrun.evaluation.evaluate import episode_seeds, evaluate, training_seeds
from rlrun.evaluation.statistics import bootstrap_interval
from rlrun.training.plan import make_plan


class Lottery(gym.Env[np.ndarray, int]):
    """Half of the episodes are short and pay little: whoever counts the first to end is too pessimistic."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.length, self.steps = (2 if self.np_random.random() < 0.5 else 40), 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        done = self.steps >= self.length
        return np.zeros(1, np.float32), 1.0, done, False, {"is_success": self.length == 40} if done else {}


class Constant:
    def predict(self, observations: np.ndarray, **_: Any) -> tuple[np.ndarray, None]:
        return np.zeros(len(observations), dtype=int), None


class Circle(Lottery):
    """An agent that goes on, goes on for ever."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), -1.0, False, False, {}


def lottery_recipe() -> EnvRecipe:
    source = read_source({"algo": "ppo", "env": {"id": f"{__name__}:Lottery"}, "total_timesteps": 1})
    return make_plan(source, probe_env=False).recipe


def expected_returns(seeds: list[int]) -> list[float]:
    env = Lottery()
    lengths = []
    for seed in seeds:
        env.reset(seed=seed)
        lengths.append(float(env.length))
    return lengths


@pytest.mark.parametrize("n_envs", [1, 3, 8])
def test_short_episodes_are_not_favoured_and_the_number_of_envs_changes_nothing(n_envs: int):
    seeds = list(range(100, 130))
    played = evaluate(Constant(), lottery_recipe(), None, seeds, deterministic=True, n_envs=n_envs)  # type: ignore[arg-type]
    assert list(played.returns) == expected_returns(seeds)
    assert list(played.lengths) == [int(r) for r in expected_returns(seeds)]
    assert played.seeds == tuple(seeds)


def test_success_is_read_from_the_last_info_of_each_episode():
    seeds = list(range(20))
    played = evaluate(Constant(), lottery_recipe(), None, seeds, deterministic=True)  # type: ignore[arg-type]
    assert played.successes == tuple(r == 40.0 for r in expected_returns(seeds))
    assert played.success_rate == np.mean([r == 40.0 for r in expected_returns(seeds)])


def test_evaluating_leaves_the_global_generators_as_they_were():
    import random

    import torch

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    plan = rlrun.check("CartPole-v1/ppo")
    model = PPO("MlpPolicy", "CartPole-v1", device="cpu", seed=None)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    evaluate(model, plan.recipe, None, [1, 2], deterministic=False)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_an_episode_without_end_is_ended_and_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("rlrun.evaluation.evaluate._LONGEST_EPISODE", 30)
    config = {"algo": "ppo", "total_timesteps": 64, "hyperparameters": {"n_steps": 64}, "evaluation": {"episodes": 3}}
    config["env"] = {"id": f"{__name__}:Circle"}
    run = rlrun.train(config, progress=True)
    told = "warning: 3 of 3 episodes were ended after 30 steps, since the env has no time limit."
    assert capsys.readouterr().err.count(told) == 1
    assert run.evaluate().evaluation.lengths == (30, 30, 30)
    assert capsys.readouterr().err.count(told) == 1
    limited = {"wrappers": [{"TimeLimit": {"max_episode_steps": 20}}]}
    result = rlrun.evaluate({**config, "env": {**config["env"], **limited}})
    assert (result.evaluation.lengths, result.evaluation.cut) == ((20, 20, 20), 0)


def test_the_result_agrees_with_sb3s_own_evaluation():
    plan = rlrun.check("CartPole-v1/ppo")
    model = PPO("MlpPolicy", "CartPole-v1", device="cpu", seed=3)
    played = evaluate(model, plan.recipe, None, [5, 6, 7], deterministic=True)
    theirs = []
    for seed in (5, 6, 7):
        venv = plan.recipe.make_vec(Role.EVAL, [[seed]])
        returns, _ = evaluate_policy(model, venv, n_eval_episodes=1, return_episode_rewards=True)
        theirs += returns
    assert list(played.returns) == theirs


def test_streams_of_evaluation_during_and_after_training_are_disjoint():
    config = rlrun.check("CartPole-v1/ppo", env=False, overrides={"evaluation.episodes": 500}).config
    during, after = training_seeds(config), episode_seeds(config)
    assert len(during) == len(after) == 500
    assert not set(during) & set(after)
    assert episode_seeds(config, 500) == after
    assert episode_seeds(config, 500, seed=1) != after


def test_fixed_seeds_score_an_agent_and_do_not_choose_it():
    config = rlrun.check("Taxi-v4/q_learning", env=False).config
    assert (len(episode_seeds(config)), len(training_seeds(config))) == (100, config.evaluation.episodes)
    assert not set(episode_seeds(config)) & set(training_seeds(config))


def test_a_fixed_list_of_seeds_is_played_in_its_order():
    overrides = {"evaluation.seeds": [9, 7, 9]}
    result = rlrun.evaluate("CartPole-v1/ppo", overrides=overrides)
    assert result.evaluation.seeds == (9, 7, 9)
    assert result.evaluation.returns[0] == result.evaluation.returns[2]


def test_the_interval_is_scipys_and_known_cases_are_exact():
    assert bootstrap_interval([500.0] * 20) == (500.0, 500.0)
    assert bootstrap_interval([3.0]) is None
    sample = np.random.default_rng(1).normal(10, 2, 50)
    low, high = bootstrap_interval(list(sample)) or (0.0, 0.0)
    theirs = scipy.stats.bootstrap((sample,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    assert (low, high) == (theirs.low, theirs.high)
    half = 1.96 * sample.std(ddof=1) / np.sqrt(50)
    assert low == pytest.approx(sample.mean() - half, abs=0.15)
    assert high == pytest.approx(sample.mean() + half, abs=0.15)


MASKED = """
import gymnasium as gym
import numpy as np


class OnlyOne(gym.Env):
    '''Any but the one allowed action ends the episode with -100.'''

    observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self):
        self.allowed = int(self.np_random.integers(4))
        return np.zeros(4, np.float32)

    def action_masks(self):
        return np.arange(4) == self.allowed

    def step(self, action):
        if action != self.allowed:
            return self.observe(), -100.0, True, False, {}
        self.steps += 1
        return self.observe(), 1.0, self.steps >= 10, False, {}
"""


def test_action_masks_reach_training_and_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "masked_env.py").write_text(MASKED)
    monkeypatch.chdir(tmp_path)
    config = {
        "algo": "maskable_ppo",
        "env": {"id": "masked_env:OnlyOne", "n_envs": 2},
        "total_timesteps": 128,
        "hyperparameters": {"n_steps": 32, "batch_size": 64},
        "trackers": [],
    }
    run = rlrun.train(config, progress=False)
    rows = (run.path / "episodes.csv").read_text().splitlines()[1:]
    assert rows
    assert {row.split(",")[2] for row in rows} == {"10.0"}
    assert set(run.evaluate(5, deterministic=False).evaluation.returns) == {10.0}


def test_an_epsilon_greedy_agent_explores_in_evaluation_as_at_the_end_of_training():
    plan = rlrun.check("CartPole-v1/dqn")
    model = DQN("MlpPolicy", "CartPole-v1", device="cpu", exploration_final_eps=1.0, buffer_size=10)
    rates = []
    model.exploration_rate = 0.3
    predict = model.predict

    def watched(*args: Any, **kwargs: Any) -> Any:
        rates.append(model.exploration_rate)
        return predict(*args, **kwargs)

    model.predict = watched  # type: ignore[method-assign]
    evaluate(model, plan.recipe, None, [1, 2], deterministic=False)
    assert set(rates) == {1.0}
    assert model.exploration_rate == 0.3
