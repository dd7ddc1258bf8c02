"""Updates of the off-policy algorithms: what SB3 computes from the same state, batch and noise, up to rounding."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN, TQC
from sb3_contrib.common.utils import quantile_huber_loss
from stable_baselines3 import DDPG, DQN, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rlrun.accelerate.choose import accelerated
from rlrun.accelerate.quantiles import QuantileHuber

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"net_arch": [32, 24]}


class Play(gym.Env):
    """Observations of every kind that is claimed; rewards that depend on both observation and action.

    :param actions: 0: a Box, else that many discrete ones
    """

    def __init__(self, actions: int = 0, with_dict: bool = False, length: int = 9) -> None:
        box = spaces.Box(-5, 5, (3,), np.float32)
        goals = {"achieved_goal": box, "desired_goal": box, "observation": spaces.Box(-5, 5, (2, 2), np.float64)}
        self.observation_space = spaces.Dict(goals) if with_dict else box
        low, high = np.array([-2, -1], dtype=np.float32), np.array([1, 3], dtype=np.float32)
        self.action_space = spaces.Discrete(actions) if actions else spaces.Box(low, high)
        self._length, self._draw = length, np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._draw = np.random.default_rng(seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        observation = self._observe()
        reward = float(np.sum(action)) + float(self._draw.normal())
        return observation, reward, bool(self._draw.random() < 0.05), self._steps >= self._length, {}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return -np.linalg.norm(achieved - desired, axis=-1)

    def _observe(self) -> Any:
        if not isinstance(self.observation_space, spaces.Dict):
            return self._draw.normal(size=3).astype(np.float32)
        return {
            key: self._draw.normal(size=part.shape).astype(part.dtype)  # type: ignore[arg-type]
            for key, part in self.observation_space.spaces.items()
        }


def make(cls: Any, env: Any, fast: bool, **kwargs: Any) -> Any:
    """A model with weights drawn from seed 0 and an empty logger."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"buffer_size": 500, "learning_starts": 0, "batch_size": 64, "policy_kwargs": SMALL}
    settings |= {"policy": "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"}
    settings = copy.deepcopy(settings | kwargs)  # SB3 writes into policy_kwargs
    model = (accelerated(cls) if fast else cls)(env=env, **{"device": "cpu", **settings})
    model.set_logger(Logger(None, []))
    return model


def vec(n_envs: int = 1, normalize: bool = False, **kwargs: Any) -> Any:
    """Copies of Play behind SB3's vector env."""
    venv: Any = DummyVecEnv([lambda: Play(**kwargs)] * n_envs)
    venv.seed(0)
    return VecNormalize(venv) if normalize else venv


def pair(cls: Any, env_kwargs: dict[str, Any] | None = None, warm: int = 5, **kwargs: Any) -> tuple[Any, Any]:
    """SB3's model and the faster one, both in the state that SB3 reaches after some updates.

    :param warm: updates made by SB3 before the comparison, so that the optimisers have their moments
    """
    models = []
    for fast in (False, True):
        model = make(cls, vec(**(env_kwargs or {})), fast, **kwargs)
        _fill(model)
        models.append(model)
    plain, fast_model = models
    assert fast_model.fast is not None, fast_model.acceleration
    for _ in range(warm):
        update(plain, 1, seed=1)
    copy_state(plain, fast_model)
    return plain, fast_model


def _fill(model: Any) -> None:
    """Put random play into the replay buffer."""
    np.random.seed(0)
    model.action_space.seed(0)
    start = model.learning_starts
    model.learning_starts = 10**9
    model.learn(120)
    model.learning_starts = start
    if isinstance(model._vec_normalize_env, VecNormalize):
        model._vec_normalize_env.training = False


def copy_state(source: Any, target: Any) -> None:
    """Networks, optimisers, variables and counters."""
    tensors = copy.deepcopy(source.get_parameters())  # torch would share them
    target.set_parameters(tensors, exact_match=True)
    for name in source._get_torch_save_params()[1]:
        getattr(target, name).data = getattr(source, name).data.clone()
    target._n_updates = source._n_updates


def update(model: Any, steps: int, seed: int = 2) -> dict[str, float]:
    """Some updates with fixed random numbers.

    :return: what was logged
    """
    np.random.seed(seed)
    torch.manual_seed(seed)
    model.train(gradient_steps=steps, batch_size=model.batch_size)
    return {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}


def differences(plain: Any, fast: Any) -> dict[str, float]:
    """The largest difference of each network, relative to its largest value."""
    found = {}
    ours, theirs = fast.policy.state_dict(), plain.policy.state_dict()
    for part in {name.split(".")[0] for name in theirs}:
        names = [name for name in theirs if name.startswith(part)]
        largest = max(float(theirs[name].abs().max()) for name in names)
        found[part] = max(float((ours[name] - theirs[name]).abs().max()) for name in names) / largest
    return found


def assert_equal_updates(plain: Any, fast: Any) -> None:
    """One update, then twenty more, as the issue asks."""
    for steps, bound in ((1, 1e-5), (19, 1e-4)):
        expected, logged = update(plain, steps), update(fast, steps)
        assert max(differences(plain, fast).values()) <= bound
        assert logged == pytest.approx(expected, rel=10 * bound, abs=10 * bound)
    assert fast._n_updates == plain._n_updates


DISCRETE = {"actions": 4}
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "dqn": (DQN, DISCRETE, {}),
    "dqn clipped": (DQN, DISCRETE, {"max_grad_norm": 0.01}),
    "dqn dict": (DQN, DISCRETE | {"with_dict": True}, {}),
    "dqn many envs": (DQN, DISCRETE | {"n_envs": 3}, {"tau": 0.01, "target_update_interval": 2}),
    "dqn normalized": (DQN, DISCRETE | {"normalize": True}, {}),
    "dqn small memory": (
        DQN,
        DISCRETE,
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
    "dqn full memory": (
        DQN,
        DISCRETE,
        {
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
            "buffer_size": 70,
        },
    ),
    "dqn rmsprop": (DQN, DISCRETE, {"policy_kwargs": {**SMALL, "optimizer_class": torch.optim.RMSprop}}),
    "dqn linear": (DQN, DISCRETE, {"policy_kwargs": {"net_arch": []}}),
    "dqn schedule": (DQN, DISCRETE, {"learning_rate": lambda remaining: 1e-3 * remaining + 1e-4}),
    "qrdqn": (QRDQN, DISCRETE, {"policy_kwargs": {**SMALL, "n_quantiles": 20}}),
    "qrdqn clipped": (QRDQN, DISCRETE, {"policy_kwargs": {**SMALL, "n_quantiles": 7}, "max_grad_norm": 0.1}),
    "qrdqn dict": (QRDQN, DISCRETE | {"with_dict": True}, {"policy_kwargs": {**SMALL, "n_quantiles": 7}}),
    "sac": (SAC, {}, {}),
    "sac fixed entropy": (SAC, {}, {"ent_coef": 0.2}),
    "sac started entropy": (SAC, {}, {"ent_coef": "auto_0.1", "target_entropy": -1.5, "target_update_interval": 2}),
    "sac dict": (SAC, {"with_dict": True}, {}),
    "sac three critics": (SAC, {}, {"policy_kwargs": {**SMALL, "n_critics": 3}}),
    "tqc": (TQC, {}, {}),
    "tqc fixed entropy": (TQC, {}, {"ent_coef": 0.05, "top_quantiles_to_drop_per_net": 0}),
    "tqc quantiles": (TQC, {}, {"policy_kwargs": {**SMALL, "n_critics": 3, "n_quantiles": 7}}),
    "tqc dict": (TQC, {"with_dict": True}, {}),
    "tqc shared extractor": (TQC, {}, {"policy_kwargs": {**SMALL, "share_features_extractor": True}}),
    "tqc adamw": (TQC, {}, {"policy_kwargs": {**SMALL, "optimizer_class": torch.optim.AdamW}}),
    "tqc nets": (TQC, {}, {"policy_kwargs": {"net_arch": {"pi": [16], "qf": [24, 8, 16]}}}),
    "tqc normalized": (TQC, {"normalize": True, "n_envs": 2}, {}),
    "tqc her": (TQC, {"with_dict": True}, {"replay_buffer_class": HerReplayBuffer}),
    "tqc her normalized": (TQC, {"with_dict": True, "normalize": True}, {"replay_buffer_class": HerReplayBuffer}),
    "td3": (TD3, {}, {}),
    "td3 dict": (TD3, {"with_dict": True}, {"policy_delay": 1, "target_noise_clip": 0.1}),
    "ddpg": (DDPG, {}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_updates_equal_those_of_sb3(name: str) -> None:
    cls, env, kwargs = CASES[name]
    assert_equal_updates(*pair(cls, env, **kwargs))


@pytest.mark.parametrize("mean", [3.0, 7.0, 30.0])
@pytest.mark.parametrize("cls", [SAC, TQC])
def test_updates_equal_those_of_sb3_where_actions_are_at_their_bounds(cls: Any, mean: float) -> None:
    plain, fast = pair(cls)
    with torch.no_grad():
        plain.actor.mu.bias[:] = mean  # tanh(30) is 1
        plain.actor.log_std.bias[:] = -7
    copy_state(plain, fast)
    assert_equal_updates(plain, fast)


@pytest.mark.parametrize("activation", ["Tanh", "ReLU", "LeakyReLU", "ELU", "Sigmoid", "SiLU", "GELU"])
@pytest.mark.parametrize("cls", [DQN, TQC])
def test_updates_equal_those_of_sb3_with_every_activation(cls: Any, activation: str) -> None:
    kwargs = {"policy_kwargs": {**SMALL, "activation_fn": getattr(torch.nn, activation)}}
    assert_equal_updates(*pair(cls, DISCRETE if cls is DQN else {}, **kwargs))


@pytest.mark.parametrize("cls", [DQN, QRDQN, SAC, TQC, TD3])
def test_the_first_update_of_all_equals_sb3s(cls: Any) -> None:
    discrete = cls in (DQN, QRDQN)
    plain, fast = pair(cls, DISCRETE if discrete else {}, warm=0)
    update(plain, 1)
    update(fast, 1)
    # Adam's first step is the gradient's sign: where that is lost in rounding, so is the step.
    names = [name for name in plain.policy.state_dict() if "target" not in name]
    far = [
        ((fast.policy.state_dict()[name] - plain.policy.state_dict()[name]).abs() > 1e-5).float().mean()
        for name in names
    ]
    assert float(torch.stack(far).mean()) < 1e-3


def test_the_quantile_huber_loss_is_sb3s() -> None:
    draw = torch.Generator().manual_seed(0)
    current = (torch.randn(33, 2, 25, generator=draw) * 3 + 50).requires_grad_()
    targets = torch.randn(33, 46, generator=draw) * 3 + 50
    expected = quantile_huber_loss(current, targets[:, None], sum_over_quantiles=False)
    expected.backward()
    loss, gradient = QuantileHuber(33, 25, 2, 46)(current.detach().numpy().reshape(33, -1), targets.numpy())
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    largest = float(current.grad.abs().max())  # type: ignore[union-attr]
    np.testing.assert_allclose(gradient, current.grad.numpy().reshape(33, -1), atol=1e-5 * largest)  # type: ignore


_KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "plain": (DQN, DISCRETE, {"buffer_size": 70}),
    "many envs": (DQN, DISCRETE | {"n_envs": 3}, {}),
    "dict": (SAC, {"with_dict": True, "n_envs": 2, "normalize": True}, {}),
    "her": (SAC, {"with_dict": True}, {"replay_buffer_class": HerReplayBuffer}),
    "her full": (SAC, {"with_dict": True}, {"replay_buffer_class": HerReplayBuffer, "buffer_size": 47}),
    "her many envs": (SAC, {"with_dict": True, "n_envs": 3}, {"replay_buffer_class": HerReplayBuffer}),
    "her many envs, full": (
        SAC,
        {"with_dict": True, "n_envs": 2},
        {"replay_buffer_class": HerReplayBuffer, "buffer_size": 60},
    ),
    "her with infos": (
        SAC,
        {"with_dict": True},
        {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"copy_info_dict": True}},
    ),
    "her final": (
        SAC,
        {"with_dict": True},
        {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"goal_selection_strategy": "final"}},
    ),
}


@pytest.mark.parametrize("name", _KINDS)
def test_batches_are_those_of_sb3_bit_for_bit(name: str) -> None:
    cls, env, kwargs = _KINDS[name]
    model = make(cls, vec(**env), True, **kwargs)
    _fill(model)
    for seed in range(30):
        np.random.seed(seed)
        ours = model.fast.sampler(32, model._vec_normalize_env)
        after = np.random.random()
        np.random.seed(seed)
        theirs = model.replay_buffer.sample(32, model._vec_normalize_env)
        assert np.random.random() == after
        features = model.fast.features
        for array, tensors in ((ours.observations, theirs.observations), (ours.next_observations, theirs[2])):
            parts = {key: part.numpy() for key, part in tensors.items()} if isinstance(tensors, dict) else tensors
            np.testing.assert_array_equal(array, features(parts if isinstance(parts, dict) else parts.numpy()))
        np.testing.assert_array_equal(ours.actions, theirs.actions.numpy())
        np.testing.assert_array_equal(ours.rewards, theirs.rewards.numpy()[:, 0])
        np.testing.assert_array_equal(ours.dones, theirs.dones.numpy()[:, 0])
        model.learning_starts = 10**9
        model.learn(7, reset_num_timesteps=False)  # the valid transitions change


@pytest.mark.parametrize("cls", [DQN, QRDQN, SAC, TQC, TD3])
@pytest.mark.parametrize("with_dict", [False, True])
def test_exploring_actions_are_those_of_sb3(cls: Any, with_dict: bool) -> None:
    env = {"n_envs": 2, "with_dict": with_dict} | (DISCRETE if cls in (DQN, QRDQN) else {})
    noise = {} if cls in (DQN, QRDQN) else {"action_noise": NormalActionNoise(np.zeros(2), np.full(2, 0.1))}
    plain, fast = pair(cls, env, warm=2, **noise)
    for model in (plain, fast):
        model.exploration_rate = 0.3
    for seed in range(20):
        chosen = []
        for model in (plain, fast):
            np.random.seed(seed)
            torch.manual_seed(seed)
            model.action_space.seed(seed)
            model._last_obs = vec(**env).reset()
            chosen.append(model._sample_action(0, model.action_noise, 2))
        for ours, theirs in zip(chosen[1], chosen[0], strict=True):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


REFUSED: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "gsde": (SAC, {}, {"use_sde": True}, "gSDE"),
    "n-step": (DQN, DISCRETE, {"n_steps": 3}, "NStepReplayBuffer"),
    "optimizer": (TQC, {}, {"policy_kwargs": {"optimizer_class": torch.optim.SGD}}, "SGD"),
    "activation": (DQN, DISCRETE, {"policy_kwargs": {"activation_fn": torch.nn.Softplus}}, "Softplus"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_covered_trains_as_plain_sb3_and_says_so(name: str) -> None:
    cls, env, kwargs, word = REFUSED[name]
    plain, fast = (make(cls, vec(**env), faster, **kwargs) for faster in (False, True))
    assert fast.fast is None
    assert word in fast.acceleration
    for model in (plain, fast):
        _fill(model)
        update(model, 2)
    for ours, theirs in zip(fast.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("cls", [DQN, QRDQN, SAC, TQC, TD3, DDPG])
def test_a_saved_model_goes_on_in_plain_sb3(cls: Any, tmp_path: Any) -> None:
    _, fast = pair(cls, DISCRETE if cls in (DQN, QRDQN) else {})
    update(fast, 3)
    fast.save(tmp_path / "model.zip")
    loaded: BaseAlgorithm = cls.load(tmp_path / "model.zip", device="cpu")
    assert type(loaded) is cls
    loaded.set_logger(Logger(None, []))
    loaded.replay_buffer = fast.replay_buffer  # type: ignore[attr-defined]
    assert max(differences(loaded, fast).values()) == 0
    update(loaded, 1, seed=5)
    update(fast, 1, seed=5)
    assert max(differences(loaded, fast).values()) <= 1e-5


@pytest.mark.parametrize("tau", [1.0, 0.3])
@pytest.mark.parametrize("cls", [DQN, QRDQN])
def test_the_target_follows_as_in_sb3(cls: Any, tau: float) -> None:
    plain, fast = pair(cls, DISCRETE | {"n_envs": 2}, tau=tau, target_update_interval=6)
    for _ in range(7):
        for model in (plain, fast):
            model._on_step()
        assert max(differences(plain, fast).values()) <= (0 if tau == 1 else 1e-6)
    assert (fast._n_calls, fast.exploration_rate) == (plain._n_calls, plain.exploration_rate)
    for key, value in fast.policy.state_dict().items():
        if "target" in key and tau == 1:
            assert torch.equal(value, fast.policy.state_dict()[key.replace("_target", "")])


@pytest.mark.parametrize("cls", [SAC, TQC])
def test_a_diverged_policy_is_an_error_as_in_sb3(cls: Any) -> None:
    for model in pair(cls):
        with torch.no_grad():
            model.actor.mu.weight[0, 0] = torch.nan
        with pytest.raises(ValueError, match=r"diverged|invalid values"):
            update(model, 1)
        with pytest.raises(ValueError, match=r"diverged|invalid values"):
            model._sample_action(0, None, 1)


@pytest.mark.parametrize("cls", [DQN, TQC])
def test_a_replaced_buffer_and_loaded_parameters_are_taken_over(cls: Any, tmp_path: Any) -> None:
    plain, fast = pair(cls, DISCRETE if cls is DQN else {})
    update(fast, 5, seed=9)
    copy_state(plain, fast)
    for model in (plain, fast):
        model.save_replay_buffer(tmp_path / "buffer.pkl")
        model.load_replay_buffer(tmp_path / "buffer.pkl")
    assert_equal_updates(plain, fast)
