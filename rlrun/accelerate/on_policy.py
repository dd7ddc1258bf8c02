"""PPO and A2C with rollouts and updates in NumPy.

What SB3 computes is computed here too: the same losses, clipped in the same way, over the same minibatches, and the
same logged values. Random numbers are drawn from the same generators in the same order. Only sums are rounded in
another order, so a run follows that of plain SB3 until a rounding error decides an action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from rlrun.accelerate import actor_critic
from rlrun.accelerate.actor_critic import ActorCritic
from rlrun.accelerate.choose import Accelerated
from rlrun.accelerate.flat import Array
from rlrun.accelerate.optimizers import clip_gradient_norm
from rlrun.accelerate.threads import set_numpy_threads

_CHUNK = 512  # observations whose values are computed together; more would leave the cache


class OnPolicy(Accelerated):
    """The rollout, and the parts of an update that PPO and A2C share."""

    fast: ActorCritic | None

    def why_plain(self) -> str:
        """See Accelerated."""
        model: Any = self
        if model.device.type != "cpu":
            return f"the device is {model.device}"
        if type(model.rollout_buffer) not in (RolloutBuffer, DictRolloutBuffer):
            return f"the rollout buffer is a {type(model.rollout_buffer).__name__}"
        return actor_critic.why_not(model.policy)

    def build_fast(self) -> ActorCritic:
        """See Accelerated."""
        model: Any = self
        set_numpy_threads(torch.get_num_threads())
        return ActorCritic(model.policy)

    def how_fast(self) -> str:
        """See Accelerated."""
        return "rollouts and updates in NumPy, with gradients derived by hand"

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """See OnPolicyAlgorithm. Linear layers and activations know no training mode, so it is not switched."""
        model: Any = self
        if self.fast is None:
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)  # type: ignore[misc]
        rollout_buffer.reset()
        callback.on_rollout_start()
        self.fast.bind()
        _require_finite(self.fast.flat.values, "the policy's parameters")
        return _Rollout(model, self.fast, env, callback, rollout_buffer, n_rollout_steps).collect()

    def train(self) -> None:
        """See PPO and A2C."""
        model: Any = self
        if self.fast is None:
            super().train()  # type: ignore[misc]
            return
        model._update_learning_rate(model.policy.optimizer)
        self.fast.bind()
        with np.errstate(all="ignore"):
            self._train(self.fast)

    def _train(self, fast: ActorCritic) -> None:
        """Learn from the rollout, and log as SB3 does."""
        raise NotImplementedError

    def _update(self, log_prob_gradient: Array, value_gradient: Array, n: int) -> None:
        """One step of the optimiser, along the gradients of the batch that was evaluated last.

        :param log_prob_gradient: of the summed losses, (batch,), to be divided by ``n``, as is the next
        :param value_gradient: (batch,)
        """
        model: Any = self
        fast = model.fast
        np.divide(log_prob_gradient, n, out=log_prob_gradient)
        fast.policy_net.backward(fast.distribution.gradient(log_prob_gradient, -model.ent_coef / n))
        np.multiply(value_gradient, 2 * model.vf_coef / n, out=value_gradient)
        fast.value_net.backward(value_gradient[:, None])
        clip_gradient_norm(fast.flat.gradients, model.max_grad_norm)
        fast.optimizer.step()

    def _log_std(self) -> None:
        model: Any = self
        if hasattr(model.policy, "log_std"):
            model.logger.record("train/std", torch.exp(model.policy.log_std).mean().item())


class FastPPO(OnPolicy, PPO):
    """PPO (Schulman et al. 2017) with SB3's update in NumPy."""

    def _train(self, fast: ActorCritic) -> None:
        remaining = self._current_progress_remaining
        clip_range = self.clip_range(remaining)  # type: ignore[operator]
        clip_range_vf = None if self.clip_range_vf is None else self.clip_range_vf(remaining)  # type: ignore[operator]
        samples = Samples.of_buffer(self.rollout_buffer, fast.features)
        losses: list[_Losses] = []
        kls: list[float] = []
        goes_on = True
        for epoch in range(self.n_epochs):
            kls = []
            for batch in samples.minibatches(self.batch_size):
                loss = self._evaluate(fast, batch, clip_range, clip_range_vf)
                losses.append(loss)
                kls.append(loss.approx_kl)
                if self.target_kl is not None and loss.approx_kl > 1.5 * self.target_kl:
                    goes_on = False
                    if self.verbose >= 1:
                        print(f"Early stopping at step {epoch} due to reaching max kl: {loss.approx_kl:.2f}")
                    break
                self._update(loss.log_prob_gradient, loss.value_gradient, len(batch.returns))
            self._n_updates += 1
            if not goes_on:
                break
        self._log(losses, kls, clip_range, clip_range_vf, samples)

    def _evaluate(self, fast: ActorCritic, batch: Samples, clip_range: float, clip_range_vf: float | None) -> _Losses:
        """The losses of a minibatch and their gradients, not yet divided by its size."""
        n = len(batch.returns)
        ones = np.ones(n, dtype=np.float32)
        log_prob, entropy = fast.distribution.evaluate(fast.policy_net.forward(batch.features), batch.actions)
        values = fast.value_net.forward(batch.features)[:, 0]
        advantages = batch.advantages
        if self.normalize_advantage and n > 1:
            advantages = _normalized(advantages, ones)

        log_ratio = log_prob - batch.log_probs
        ratio = np.exp(log_ratio)
        beyond = ratio - 1
        approx_kl = float(np.dot(ones, beyond - log_ratio)) / n
        clipped_by = np.abs(beyond, out=beyond) > clip_range
        surrogate = advantages * ratio
        clipped = np.minimum(np.maximum(ratio, 1 - clip_range), 1 + clip_range)
        np.multiply(advantages, clipped, out=clipped)
        objective = np.minimum(surrogate, clipped)
        # Where the clipped term is the smaller one it is constant; else d ratio / d log p is the ratio.
        gradient = -surrogate * (surrogate <= clipped)

        if clip_range_vf is None:
            errors = values - batch.returns
            value_gradient = errors
        else:
            change = values - batch.values
            predicted = batch.values + np.minimum(np.maximum(change, -clip_range_vf), clip_range_vf)
            errors = predicted - batch.returns
            value_gradient = errors * (np.abs(change) <= clip_range_vf)
        return _Losses(
            policy=-float(np.dot(ones, objective)) / n,
            value=float(np.dot(errors, errors)) / n,
            entropy=-float(np.dot(ones, entropy)) / n,
            approx_kl=approx_kl,
            clip_fraction=int(np.count_nonzero(clipped_by)) / n,
            log_prob_gradient=gradient,
            value_gradient=value_gradient,
        )

    def _log(
        self, losses: list[_Losses], kls: list[float], clip_range: float, clip_range_vf: float | None, samples: Samples
    ) -> None:
        last = losses[-1]
        record = self.logger.record
        record("train/entropy_loss", np.mean([loss.entropy for loss in losses]))
        record("train/policy_gradient_loss", np.mean([loss.policy for loss in losses]))
        record("train/value_loss", np.mean([loss.value for loss in losses]))
        record("train/approx_kl", np.mean(kls))
        record("train/clip_fraction", np.mean([loss.clip_fraction for loss in losses]))
        record("train/loss", last.policy + self.ent_coef * last.entropy + self.vf_coef * last.value)
        record("train/explained_variance", _explained_variance(samples.values, samples.returns))
        self._log_std()
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("train/clip_range", clip_range)
        if clip_range_vf is not None:
            record("train/clip_range_vf", clip_range_vf)


class FastA2C(OnPolicy, A2C):
    """A2C (Mnih et al. 2016) with SB3's update in NumPy."""

    def _train(self, fast: ActorCritic) -> None:
        samples = Samples.of_buffer(self.rollout_buffer, fast.features)
        (batch,) = samples.minibatches(None)
        n = len(batch.returns)
        ones = np.ones(n, dtype=np.float32)
        log_prob, entropy = fast.distribution.evaluate(fast.policy_net.forward(batch.features), batch.actions)
        errors = fast.value_net.forward(batch.features)[:, 0] - batch.returns
        advantages = batch.advantages
        if self.normalize_advantage:
            advantages = _normalized(advantages, ones)
        policy_loss = -float(np.dot(advantages, log_prob)) / n
        value_loss = float(np.dot(errors, errors)) / n
        entropy_loss = -float(np.dot(ones, entropy)) / n
        self._update(-advantages, errors, n)
        self._n_updates += 1
        record = self.logger.record
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("train/explained_variance", _explained_variance(samples.values, samples.returns))
        record("train/entropy_loss", entropy_loss)
        record("train/policy_loss", policy_loss)
        record("train/value_loss", value_loss)
        self._log_std()


def _normalized(advantages: Array, ones: Array) -> Array:
    """Advantages with mean zero and standard deviation one, a new array, (batch,)."""
    n = len(advantages)
    advantages = advantages - np.dot(ones, advantages) / np.float32(n)
    advantages /= np.sqrt(np.dot(advantages, advantages) / np.float32(n - 1)) + np.float32(1e-8)
    return advantages


@dataclass
class _Losses:
    """Of one minibatch: means, and gradients of the sums."""

    policy: float
    value: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    log_prob_gradient: Array  # (batch,)
    value_gradient: Array  # (batch,); without the factor 2 of the square


@dataclass
class Samples:
    """A rollout's transitions, or some of them, one a row.

    :ivar features: (n, features)
    :ivar actions: (n, action size)
    :ivar scalars: (4, n): values, log-probabilities, advantages, returns
    """

    features: Array
    actions: Array
    scalars: Array

    def __post_init__(self) -> None:
        self.values, self.log_probs, self.advantages, self.returns = self.scalars

    @classmethod
    def of_buffer(cls, buffer: RolloutBuffer, features: Callable[[Any, int], Array]) -> Samples:
        """A full rollout buffer in SB3's order: one env after the other."""
        n = buffer.buffer_size * buffer.n_envs
        columns = (buffer.values, buffer.log_probs, buffer.advantages, buffer.returns)
        return cls(
            features(buffer.observations, 2).swapaxes(0, 1).reshape(n, -1),
            buffer.actions.swapaxes(0, 1).reshape(n, -1).astype(np.float32),
            np.stack([column.T.reshape(n) for column in columns]),
        )

    def minibatches(self, size: int | None) -> Iterator[Samples]:
        """All samples once, in the random order in which SB3 would deal them.

        :param size: None: all in one batch
        """
        n = len(self.features)
        order = np.random.permutation(n)
        features, actions = self.features.take(order, axis=0), self.actions.take(order, axis=0)
        scalars = self.scalars.take(order, axis=1)
        for start in range(0, n, size or n):
            part = slice(start, start + (size or n))
            yield Samples(features[part], actions[part], scalars[:, part])


@dataclass
class _Rollout:
    """One call of ``collect_rollouts``."""

    model: Any
    fast: ActorCritic
    env: VecEnv
    callback: BaseCallback
    buffer: RolloutBuffer
    n_steps: int

    def collect(self) -> bool:
        """Play; False when a callback ended training.

        Weights stay as they are meanwhile, so values and log-probabilities are computed for all steps together, after
        the last one; callbacks of the user's, which may look at them, get their own.
        """
        model, fast, env, buffer = self.model, self.fast, self.env, self.buffer
        shows_all = not _reads_transitions_only(self.callback)
        shown: dict[str, Any] = {"self": model, "env": env, "callback": self.callback, "rollout_buffer": buffer}
        shown["n_rollout_steps"] = self.n_steps
        is_box = isinstance(model.action_space, spaces.Box)
        low, high = (model.action_space.low, model.action_space.high) if is_box else (np.empty(0), np.empty(0))
        actions_shape = (env.num_envs, buffer.action_dim)
        outputs: list[Array] = []
        for step in range(self.n_steps):
            obs = model._last_obs
            output = fast.policy_net.forward(fast.features(obs))
            outputs.append(output.copy())
            actions = fast.distribution.sample(output)
            clipped = np.minimum(np.maximum(actions, low), high) if is_box else actions
            new_obs, rewards, dones, infos = env.step(clipped)
            model.num_timesteps += env.num_envs
            shown.update(n_steps=step, actions=actions, clipped_actions=clipped)
            shown.update(new_obs=new_obs, rewards=rewards, dones=dones, infos=infos)
            if shows_all:
                shown.update(self._evaluated(obs, output, actions.reshape(actions_shape)))
            self.callback.update_locals(shown)
            if not self.callback.on_step():
                return False
            model._update_info_buffer(infos, dones)
            if dones.any():
                self._bootstrap(rewards, dones, infos)
            self._store(step, obs, actions.reshape(actions_shape), rewards)
            model._last_obs, model._last_episode_starts = new_obs, dones
        self._finish(np.stack(outputs), new_obs, dones)
        shown.update(n_steps=self.n_steps)
        self.callback.update_locals(shown)
        self.callback.on_rollout_end()
        return True

    def _evaluated(self, obs: Any, output: Array, actions: Array) -> dict[str, Any]:
        """What SB3's policy would have returned, for callbacks."""
        values = self.fast.value_net.forward(self.fast.features(obs))
        log_prob, _ = self.fast.distribution.evaluate(output, actions)
        return {
            "obs_tensor": obs_as_tensor(obs, self.model.device),
            "values": torch.from_numpy(values.copy()),
            "log_probs": torch.from_numpy(log_prob.copy()),
        }

    def _bootstrap(self, rewards: Array, dones: Array, infos: list[dict[str, Any]]) -> None:
        """Add the value of the state in which a time limit ended an episode (Pardo et al. 2018)."""
        for index in np.flatnonzero(dones):
            last = infos[index].get("terminal_observation")
            if last is not None and infos[index].get("TimeLimit.truncated", False):
                batch = {key: part[None] for key, part in last.items()} if isinstance(last, dict) else last[None]
                rewards[index] += self.model.gamma * self.fast.value_net.forward(self.fast.features(batch))[0, 0]

    def _store(self, step: int, obs: Any, actions: Array, rewards: Array) -> None:
        buffer: Any = self.buffer
        if isinstance(obs, dict):
            for key, part in obs.items():
                buffer.observations[key][step] = part
        else:
            buffer.observations[step] = obs
        buffer.actions[step] = actions
        buffer.rewards[step] = rewards
        buffer.episode_starts[step] = self.model._last_episode_starts
        buffer.pos = step + 1

    def _finish(self, outputs: Array, last_obs: Any, last_dones: Array) -> None:
        """Values, log-probabilities, advantages and returns of the whole rollout."""
        buffer, fast = self.buffer, self.fast
        _require_finite(outputs, "the outputs of the policy")
        buffer.full = True
        n = outputs.shape[0] * outputs.shape[1]
        features = fast.features(buffer.observations, 2).reshape(n, -1)
        flat_outputs, actions = outputs.reshape(n, -1), buffer.actions.reshape(n, -1)
        values, log_probs = buffer.values.reshape(n), buffer.log_probs.reshape(n)
        for start in range(0, n, _CHUNK):
            part = slice(start, start + _CHUNK)
            values[part] = fast.value_net.forward(features[part])[:, 0]
            log_probs[part] = fast.distribution.evaluate(flat_outputs[part], actions[part])[0]
        last_values = fast.value_net.forward(fast.features(last_obs))[:, 0]
        compute_advantages(buffer, last_values, last_dones)


def compute_advantages(buffer: RolloutBuffer, last_values: Array, last_dones: Array) -> None:
    """``RolloutBuffer.compute_returns_and_advantage`` (Schulman et al. 2016), most of it for all steps at once.

    :param last_values: of the observations after the last step, (n_envs,)
    :param last_dones: whether the last step ended an episode, (n_envs,)
    """
    next_values = np.concatenate([buffer.values[1:], last_values[None]])
    goes_on = 1 - np.concatenate([buffer.episode_starts[1:], last_dones[None].astype(np.float32)])
    deltas = buffer.rewards + buffer.gamma * next_values * goes_on - buffer.values
    factors = buffer.gamma * buffer.gae_lambda * goes_on
    advantage = np.zeros_like(last_values)
    for step in reversed(range(len(deltas))):
        advantage = np.add(deltas[step], factors[step] * advantage, out=buffer.advantages[step])
    buffer.returns = buffer.advantages + buffer.values


def _require_finite(values: Array, what: str) -> None:
    """Stop where SB3 stops, whose distributions refuse parameters that are no numbers.

    :raises ValueError: when one of the values is infinite or not a number
    """
    if not np.isfinite(values).all():
        raise ValueError(f"training diverged: {what} are no longer finite numbers")


def _explained_variance(predicted: Array, actual: Array) -> float:
    """SB3's ``explained_variance``: 1 - Var(actual - predicted) / Var(actual); both (n,)."""
    variance = _variance(actual)
    return float("nan") if variance == 0 else 1 - _variance(actual - predicted) / variance


def _variance(values: Array) -> float:
    deviations = values - np.add.reduce(values) / np.float32(len(values))
    return float(np.dot(deviations, deviations)) / len(values)


def _reads_transitions_only(callback: BaseCallback) -> bool:
    """Whether a callback needs neither values nor log-probabilities of each step."""
    if isinstance(callback, CallbackList):
        return all(_reads_transitions_only(part) for part in callback.callbacks)
    return bool(getattr(callback, "reads_transitions_only", False))
