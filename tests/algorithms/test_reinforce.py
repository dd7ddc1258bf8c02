"""REINFORCE against returns and gradients computed by hand, and as an SB3 algorithm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlrun.algorithms import reinforce
from rlrun.algorithms.reinforce import REINFORCE, FastREINFORCE, discounted_returns, standardised

pytestmark = pytest.mark.usefixtures("one_thread")

LINEAR = {"net_arch": [], "ortho_init": False, "optimizer_class": torch.optim.SGD}


class Arms(gym.Env[np.ndarray, int]):
    """One step: arm 1 pays, arm 0 does not."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.ones(2, dtype=np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.ones(2, dtype=np.float32), float(action), True, False, {}


def agent(env: Any = "CartPole-v1", cls: type[REINFORCE] = REINFORCE, **kwargs: Any) -> REINFORCE:
    kwargs = {"policy_kwargs": {"net_arch": [8]}, "seed": 0, "device": "cpu", **kwargs}
    return cls("MlpPolicy", env, **kwargs)


def test_the_reward_to_go_is_the_discounted_sum_of_what_comes():
    assert discounted_returns(np.array([1.0, 2.0, 3.0]), 0.5).tolist() == [2.75, 3.5, 3.0]
    assert discounted_returns(np.array([1.0, 1.0, 1.0]), 1.0).tolist() == [3.0, 2.0, 1.0]


def test_standardised_returns_have_mean_0_and_deviation_1():
    # mean 2, variance (1 + 0 + 1) / 3
    assert standardised(np.array([3.0, 2.0, 1.0])) == pytest.approx(np.array([1.5**0.5, 0.0, -(1.5**0.5)]), abs=1e-6)
    assert standardised(np.array([5.0])).tolist() == [0.0]
    assert standardised(np.array([5.0, 5.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"standardize": False}, [3.0, 2.0, 1.0]),
        ({"standardize": False, "returns": "episode"}, [3.0, 3.0, 3.0]),
        ({"standardize": False, "baseline": True}, [1.0, 0.5, 0.0]),
        ({"standardize": True}, [1.5**0.5, 0.0, -(1.5**0.5)]),
        ({"standardize": True, "baseline": True}, [1.5**0.5, 0.0, -(1.5**0.5)]),
    ],
)
def test_steps_are_weighted_as_the_settings_say(settings: dict[str, Any], expected: list[float]):
    weights = agent(**settings).weights(np.array([3.0, 2.0, 1.0]), np.array([2.0, 1.5, 1.0]))
    assert weights == pytest.approx(np.array(expected), abs=1e-5)


def test_the_update_follows_the_gradient_of_a_softmax_computed_by_hand():
    """Logits are W s + b, so d -log p(a) G / d b = (p - onehot(a)) G, and the weights' gradient is that times s."""
    model = agent(policy_kwargs=LINEAR, learning_rate=0.1, gamma=1.0, standardize=False)
    layer: Any = model.policy.action_net
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([0.0, np.log(3.0)]))  # probabilities 1/4 and 3/4
    model.set_logger(model_logger())
    model._begin_episode()
    states = np.array([[[1.0, 0.0, 0.0, 0.0]], [[0.0, 2.0, 0.0, 0.0]]], dtype=np.float32)
    model._learn_from_step(states[0], np.array([0]), 1.0, None, False)  # return 3
    model._learn_from_step(states[1], np.array([1]), 2.0, None, True)  # return 2
    model._learn_from_episode()
    first, second = np.array([0.25 - 1, 0.75]) * 3, np.array([0.25, 0.75 - 1]) * 2
    bias = np.array([0.0, np.log(3.0)]) - 0.1 * (first + second)
    weight = -0.1 * (np.outer(first, states[0, 0]) + np.outer(second, states[1, 0]))
    assert layer.bias.detach().numpy() == pytest.approx(bias, abs=1e-6)
    assert layer.weight.detach().numpy() == pytest.approx(weight, abs=1e-6)


def model_logger() -> Any:
    from stable_baselines3.common.logger import Logger

    return Logger(None, [])


@pytest.mark.parametrize("baseline", [False, True])
def test_a_linear_baseline_is_taken_off_and_moves_towards_the_return_by_hand(baseline: bool):
    model = agent(policy_kwargs=LINEAR, learning_rate=0.1, gamma=1.0, baseline=baseline, vf_coef=0.5, standardize=False)
    actor: Any = model.policy.action_net
    critic: Any = model.policy.value_net
    with torch.no_grad():
        for parameter in (*actor.parameters(), critic.weight):
            parameter.zero_()  # both actions with 1/2
        critic.bias.fill_(1.0)
    model.set_logger(model_logger())
    model._begin_episode()
    zeros = np.zeros((1, 4), dtype=np.float32)
    model._learn_from_step(zeros, np.array([0]), 1.0, None, False)  # return 3, advantage 2
    model._learn_from_step(zeros, np.array([1]), 2.0, None, True)  # return 2, advantage 1
    model._learn_from_episode()
    first, second = (2.0, 1.0) if baseline else (3.0, 2.0)
    # d -log p(a) G / d b = (p - onehot(a)) G
    assert actor.bias.tolist() == pytest.approx([0.1 * (first - second) / 2, -0.1 * (first - second) / 2])
    # d (mean of (V - G)^2) / d V's bias = 2 * mean(V - G) = 2 * (-2 - 1) / 2 = -3, of which vf_coef is half
    assert critic.bias.item() == pytest.approx(1 + 0.1 * 0.5 * 3 if baseline else 1.0)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_acting_in_numpy_follows_torch(env: str):
    plain, fast = (agent(env, cls).learn(total_episodes=3) for cls in (REINFORCE, FastREINFORCE))
    assert isinstance(fast, FastREINFORCE)
    assert fast.fast is not None
    assert plain.num_timesteps == fast.num_timesteps
    for one, other in zip(plain.policy.parameters(), fast.policy.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_an_episode_of_one_step_weighs_no_more_than_the_steps_of_others():
    model = agent(standardize=True)
    assert model.weights(np.array([-100.0]), np.zeros(1)) == [-1.0]
    assert model.weights(np.array([0.5]), np.zeros(1)) == [0.5]
    assert model.weights(np.array([-200.0, -100.0]), np.zeros(2)) == pytest.approx([-1.0, 1.0])


def test_a_long_episode_is_learnt_from_in_parts(monkeypatch: pytest.MonkeyPatch):
    whole = agent(baseline=True).learn(total_episodes=2)
    monkeypatch.setattr(reinforce, "_BYTES_AT_A_TIME", 3 * 16)  # three observations of four numbers
    parts = agent(baseline=True).learn(total_episodes=2)
    for one, other in zip(whole.policy.parameters(), parts.policy.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("standardize", [False, True])
def test_the_better_of_two_arms_is_learnt(standardize: bool):
    model = agent(Arms(), cls=FastREINFORCE, standardize=standardize)
    model.learn(total_episodes=200, log_interval=None)
    returns = [info["r"] for info in model.ep_info_buffer or ()]
    assert np.mean(returns[-50:]) > 0.9


def test_a_saved_agent_is_loaded_as_it_was_and_learns_on(tmp_path: Path):
    model = agent(cls=FastREINFORCE).learn(total_episodes=3)
    model.save(tmp_path / "model.zip")
    loaded = REINFORCE.load(tmp_path / "model.zip", env=gym.make("CartPole-v1"), device="cpu")
    observations = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert np.array_equal(*(m.predict(observations, deterministic=True)[0] for m in (model, loaded)))
    steps = loaded.policy.optimizer.state_dict()["state"][0]["step"]  # type: ignore[union-attr]
    assert (int(steps), loaded._episode_num, loaded._n_updates) == (3, 3, 3)
    loaded.learn(total_episodes=2, reset_num_timesteps=False)
    assert loaded._episode_num == 5


def test_sb3s_progress_bar_is_for_timesteps():
    with pytest.raises(ValueError, match="leave progress_bar out"):
        agent().learn(total_episodes=2, progress_bar=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"returns": "episode"}, "leaves nothing of the return of a whole episode"),
        ({"returns": "all"}, "returns is reward_to_go or episode, not 'all'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        agent(**settings)
