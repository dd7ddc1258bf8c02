"""PPO and A2C accelerated: the same updates, the same rollouts, the same saved models as plain SB3."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from rlrun.accelerate.choose import accelerated, described

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-5

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
OBSERVATIONS = {
    "vector": VECTOR,
    "matrix of doubles": spaces.Box(-1, 1, (2, 3), np.float64),
    "dict": spaces.Dict({"b": spaces.Box(-1, 1, (2, 2)), "a": VECTOR}),
}
ACTIONS = {
    "categorical": spaces.Discrete(4),
    "gaussian": spaces.Box(-0.5, 0.5, (3,), np.float32),
    "gaussian of doubles": spaces.Box(-0.5, 0.5, (1,), np.float64),
    "multi-categorical": spaces.MultiDiscrete([3, 2]),
    "bernoulli": spaces.MultiBinary(3),
}


class RandomEnv(gym.Env[Any, Any]):
    """Random observations; rewards that depend on the action; some episodes end, some are cut short."""

    def __init__(
        self, observation_space: spaces.Space[Any] = VECTOR, action_space: Any = ACTIONS["categorical"]
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = float(np.sum(action)) + float(self.np_random.normal())
        ended = bool(self.np_random.random() < 0.1)
        return self.observation_space.sample(), reward, ended, self.steps >= 7, {}


class Recording(Logger):
    """Keeps what is recorded."""

    def __init__(self) -> None:
        super().__init__(None, [])
        self.seen: dict[str, Any] = {}

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        self.seen[key] = value


def build(
    cls: type, is_fast: bool, observation: Any = VECTOR, action: Any = ACTIONS["categorical"], **kwargs: Any
) -> Any:
    """A model of four envs, with weights that do not depend on whether it is accelerated."""
    envs = DummyVecEnv([lambda: RandomEnv(observation, action)] * 4)
    envs.seed(0)
    policy = "MultiInputPolicy" if isinstance(observation, spaces.Dict) else "MlpPolicy"
    defaults = {"n_steps": 32, "policy_kwargs": {"net_arch": [32, 16]}, "learning_rate": 1e-2}
    model = (accelerated(cls) if is_fast else cls)(policy, envs, seed=1, device="cpu", **{**defaults, **kwargs})
    assert bool(getattr(model, "fast", None)) == is_fast, getattr(model, "acceleration", "")
    return model


def pair(cls: type, **kwargs: Any) -> tuple[Any, Any]:
    """A plain and an accelerated model with the same weights, and in their buffers the same rollout of older ones."""
    plain, fast = build(cls, False, **kwargs), build(cls, True, **kwargs)
    plain.learn(1)  # a first update, so that moments are not those of the beginning
    fast.set_parameters(plain.get_parameters())
    fast._n_updates, fast._current_progress_remaining = plain._n_updates, plain._current_progress_remaining
    models = (plain, fast)
    for model in models:
        model.set_logger(Recording())
    plain.collect_rollouts(plain.env, NoCallback(plain), plain.rollout_buffer, plain.n_steps)
    with torch.no_grad():  # the policy moves away from the one that acted, so that ratios are clipped
        torch.manual_seed(2)
        for parameter in plain.policy.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
    fast.set_parameters(plain.get_parameters())
    for name, value in vars(plain.rollout_buffer).items():
        setattr(fast.rollout_buffer, name, value)
    return models


class NoCallback(BaseCallback):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.init_callback(model)
        self.locals = {}

    def _on_step(self) -> bool:
        return True


def change(before: dict[str, torch.Tensor], model: Any) -> np.ndarray:
    after = model.policy.state_dict()
    return torch.cat([(after[name].double() - before[name].double()).flatten() for name in before]).numpy()


def assert_same_update(plain: Any, fast: Any) -> None:
    """One call of ``train`` changes the weights, and logs, the same."""
    before = {name: value.clone() for name, value in plain.policy.state_dict().items()}
    changes = []
    for model in (fast, plain):  # plain SB3 rearranges the buffer that they share
        np.random.seed(3)
        model.train()
        changes.append(change(before, model))
    ours, theirs = changes
    weights = np.concatenate([value.flatten().numpy() for value in plain.policy.state_dict().values()])
    assert np.abs(theirs).max() > 1e-4
    assert np.linalg.norm(ours - theirs) <= TOLERANCE * np.linalg.norm(weights)
    assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs)
    assert fast.logger.seen.keys() == plain.logger.seen.keys()
    for name, value in plain.logger.seen.items():
        assert fast.logger.seen[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6), name


ONE_STEP = {"n_epochs": 1, "batch_size": 128}


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("cls", [PPO, A2C])
def test_one_update_is_sb3s_for_every_space(cls: type, action: str, observation: str) -> None:
    options = ONE_STEP if cls is PPO else {}
    spaces_ = {"observation": OBSERVATIONS[observation], "action": ACTIONS[action]}
    assert_same_update(*pair(cls, **spaces_, ent_coef=0.1, **options))


@pytest.mark.parametrize("action", ["categorical", "gaussian"])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.SiLU, nn.GELU])
@pytest.mark.parametrize("cls", [PPO, A2C])
def test_one_update_is_sb3s_for_every_activation(cls: type, activation: type[nn.Module], action: str) -> None:
    options = ONE_STEP if cls is PPO else {}
    policy = {"activation_fn": activation, "net_arch": {"pi": [16], "vf": [32, 32, 8]}}
    assert_same_update(*pair(cls, action=ACTIONS[action], policy_kwargs=policy, **options))


NAMES = ("clip_range_vf", "normalize_advantage", "ent_coef", "max_grad_norm")
OPTIONS = [
    dict(zip(NAMES, values, strict=True))
    for values in itertools.product([None, 0.05], [True, False], [0.0, 0.1], [0.5, 1e9])
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("action", ["categorical", "gaussian"])
def test_one_ppo_update_is_sb3s_for_every_option(action: str, options: dict[str, Any]) -> None:
    models = pair(PPO, action=ACTIONS[action], clip_range=0.05, vf_coef=0.7, **ONE_STEP, **options)
    assert_same_update(*models)
    assert models[0].logger.seen["train/clip_fraction"] > 0.04


@pytest.mark.parametrize("options", [{"use_rms_prop": False}, {"normalize_advantage": True}, {"ent_coef": 0.1}])
def test_one_a2c_update_is_sb3s_for_every_option(options: dict[str, Any]) -> None:
    assert_same_update(*pair(A2C, action=ACTIONS["gaussian"], **options))


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, RMSpropTFLike])
def test_one_update_is_sb3s_for_every_optimiser(optimizer: type) -> None:
    assert_same_update(*pair(PPO, policy_kwargs={"optimizer_class": optimizer}, **ONE_STEP))


@pytest.mark.parametrize("net_arch", [[], {"pi": [], "vf": [8]}])
def test_networks_without_hidden_layers(net_arch: Any) -> None:
    assert_same_update(*pair(PPO, policy_kwargs={"net_arch": net_arch}, **ONE_STEP))


@pytest.mark.parametrize("batch_size", [32, 48])
def test_several_epochs_of_minibatches_stay_close(batch_size: int) -> None:
    """48 leaves a smaller last minibatch. Rounding errors grow from step to step, so the tolerance is wider."""
    plain, fast = pair(PPO, n_epochs=3, batch_size=batch_size, learning_rate=1e-3)
    assert_same_update(plain, fast)


def test_target_kl_ends_an_update_where_sb3_ends_it() -> None:
    plain, fast = pair(PPO, n_epochs=5, batch_size=32, learning_rate=1e-2, target_kl=0.01)
    assert_same_update(plain, fast)
    assert plain._n_updates < 5 + 5


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("cls", [PPO, A2C])
def test_after_the_same_seed_a_rollout_is_sb3s(cls: type, action: str, observation: str) -> None:
    """The same actions, so the same transitions; several rollouts and updates one after the other."""
    rollouts = []
    for is_fast in (False, True):
        model = build(cls, is_fast, OBSERVATIONS[observation], ACTIONS[action], n_steps=40, learning_rate=1e-4)
        keep = KeepRollouts()
        model.learn(3 * 160, keep)
        rollouts.append(keep.found)
    assert len(rollouts[0]) == 3 * 7
    for theirs, ours in zip(*rollouts, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


class KeepRollouts(BaseCallback):
    names = ("actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[np.ndarray] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.found += [getattr(self.model.rollout_buffer, name).copy() for name in self.names]


class Checks(BaseCallback):
    """Looks at every step at what SB3 would give to a callback."""

    names = "obs_tensor actions clipped_actions values log_probs new_obs rewards dones infos rollout_buffer env self"

    def _on_step(self) -> bool:
        found = self.locals
        assert set(self.names.split()) <= found.keys()
        with torch.no_grad():
            policy = self.model.policy
            actions = torch.as_tensor(found["actions"]).float()
            values, log_probs, _ = policy.evaluate_actions(found["obs_tensor"], actions)
        assert values.shape == found["values"].shape
        torch.testing.assert_close(found["values"], values, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found["log_probs"], log_probs, rtol=1e-4, atol=1e-5)
        return True


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("cls", [PPO, A2C])
def test_a_rollouts_values_and_advantages_are_sb3s(cls: type, action: str, observation: str) -> None:
    """Given the same transitions, time limits among them."""
    model = build(cls, True, OBSERVATIONS[observation], ACTIONS[action], n_steps=40)
    bootstrapped = []
    value_net = model.policy.predict_values

    class Watching(Checks):
        def _on_step(self) -> bool:
            for index, info in enumerate(self.locals["infos"]):
                if info["TimeLimit.truncated"]:
                    with torch.no_grad():
                        last = model.policy.obs_to_tensor(info["terminal_observation"])[0]
                        bonus = model.gamma * float(value_net(last))
                    position = (self.locals["n_steps"], index)
                    bootstrapped.append((position, float(self.locals["rewards"][index]) + bonus))
            return super()._on_step()

    callback = Watching()
    model._setup_learn(1, callback)
    callback.init_callback(model)
    callback.locals = {}
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    buffer = model.rollout_buffer
    assert bootstrapped
    for position, reward in bootstrapped:
        assert buffer.rewards[position] == pytest.approx(reward, rel=1e-5, abs=1e-5)
    with torch.no_grad():
        for step in range(model.n_steps):
            whole = buffer.observations
            obs = {k: v[step] for k, v in whole.items()} if observation == "dict" else whole[step]
            actions = torch.as_tensor(buffer.actions[step].reshape(4, *ACTIONS[action].shape)).float()
            values, log_probs, _ = model.policy.evaluate_actions(model.policy.obs_to_tensor(obs)[0], actions)
            np.testing.assert_allclose(buffer.values[step], values.numpy()[:, 0], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(buffer.log_probs[step], log_probs.numpy(), rtol=1e-4, atol=1e-5)
        last_values = value_net(model.policy.obs_to_tensor(model._last_obs)[0])
    advantages, returns = buffer.advantages.copy(), buffer.returns.copy()
    buffer.compute_returns_and_advantage(last_values, model._last_episode_starts)
    np.testing.assert_allclose(advantages, buffer.advantages, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(returns, buffer.returns, rtol=1e-5, atol=1e-5)


def test_a_callback_that_says_stop_ends_training() -> None:
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.num_timesteps < 20

    model = build(PPO, True)
    model.learn(1000, Stop())
    assert model.num_timesteps == 20


@pytest.mark.parametrize("cls", [PPO, A2C])
def test_a_saved_model_is_plain_sb3_and_goes_on_there(cls: type, tmp_path: Path) -> None:
    model = build(cls, True, action=ACTIONS["gaussian"])
    model.learn(256)
    model.save(tmp_path / "model.zip")
    plain = cls.load(tmp_path / "model.zip", env=model.env, device="cpu")
    assert type(plain) is cls
    assert not set(vars(plain)) & {"fast", "acceleration"}
    for name, value in model.policy.state_dict().items():
        assert torch.equal(plain.policy.state_dict()[name], value)
    ours, theirs = (m.policy.optimizer.state_dict() for m in (model, plain))
    assert ours["param_groups"] == theirs["param_groups"]
    for index, entries in ours["state"].items():
        for name, value in entries.items():
            assert torch.equal(theirs["state"][index][name], value)
    plain.learn(256, reset_num_timesteps=False)
    assert plain.num_timesteps > model.num_timesteps


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"use_sde": True, "action": ACTIONS["gaussian"]}, "gSDE"),
        ({"policy_kwargs": {"activation_fn": nn.Softplus}}, "Softplus"),
        ({"policy_kwargs": {"optimizer_class": torch.optim.SGD}}, "SGD"),
        ({"observation": spaces.Discrete(5)}, "vectors"),
        ({"policy_kwargs": {"share_features_extractor": False}}, ""),
    ],
)
def test_what_cannot_be_accelerated_trains_as_plain_sb3_and_says_why(kwargs: dict[str, Any], reason: str) -> None:
    action = kwargs.pop("action", ACTIONS["categorical"])
    envs = DummyVecEnv([lambda: RandomEnv(kwargs.pop("observation", VECTOR), action)])
    model: Any = accelerated(PPO)("MlpPolicy", envs, n_steps=8, batch_size=8, **kwargs)
    assert reason in described(model, "auto")
    assert ("accelerate off" in described(model, "auto")) == bool(reason)
    model.learn(16)
    assert model.num_timesteps == 16


@pytest.mark.parametrize("action", ["categorical", "gaussian"])
def test_training_that_diverges_ends_with_an_error_as_in_sb3(action: str) -> None:
    for is_fast in (False, True):
        model = build(PPO, is_fast, action=ACTIONS[action])
        with torch.no_grad():
            model.policy.action_net.weight[0, 0] = float("nan")
        with pytest.raises(ValueError, match=r"Expected parameter|training diverged"):
            model.learn(64)
