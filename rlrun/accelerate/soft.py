"""SAC (Haarnoja et al. 2018) and TQC (Kuznetsov et al. 2020) with SB3's update in NumPy.

The actor's step needs the gradient of the critics' value by the action only: no gradients of critic parameters are
found there.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from sb3_contrib import TQC
from sb3_contrib.tqc import policies as tqc_policies
from stable_baselines3 import SAC
from stable_baselines3.sac import policies as sac_policies

from rlrun.accelerate.batches import Batch
from rlrun.accelerate.critics import Critics, squared_errors
from rlrun.accelerate.flat import Array
from rlrun.accelerate.mlp import Mlp
from rlrun.accelerate.off_policy import ContinuousActions, Learner, Target, Trained
from rlrun.accelerate.quantiles import QuantileHuber

_LOG_STD_MIN, _LOG_STD_MAX = -20, 2  # SB3's
_SQUASH_EPSILON = 1e-6  # of SquashedDiagGaussianDistribution
_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class SquashedGaussian:
    """One forward pass of the actor over a batch: a = tanh(u), u = mean + std * noise.

    :param actor: of SAC or TQC
    :param trained: its parameters
    """

    def __init__(self, actor: Any, trained: Trained) -> None:
        self._latent = Mlp(actor.latent_pi, trained.flat)
        self._mean, self._log_std = Mlp(actor.mu, trained.flat), Mlp(actor.log_std, trained.flat)

    def actions(self, features: Array) -> Array:
        """Actions drawn with torch's global generator, (batch, actions); what :meth:`backward` needs is kept.

        :raises ValueError: when training has diverged, which SB3's distributions refuse too
        """
        latent = self._latent.forward(features)
        self.mean = self._mean.forward(latent)
        log_std = self._log_std.forward(latent)
        self.is_free = (log_std >= _LOG_STD_MIN) & (log_std <= _LOG_STD_MAX)
        self.log_std = np.clip(log_std, _LOG_STD_MIN, _LOG_STD_MAX)
        self.std = np.exp(self.log_std)
        if np.isnan(self.mean).any() or np.isnan(self.std).any():
            raise ValueError("training diverged: the outputs of the policy are no longer numbers")
        self.noise = torch.randn(self.mean.shape).numpy()
        self.unsquashed: Array = self.mean + self.noise * self.std
        # torch's tanh: close to a bound the last bit of tanh(u) decides how probable it is.
        self.squashed: Array = torch.from_numpy(self.unsquashed).tanh().numpy()
        return self.squashed

    def log_prob(self) -> Array:
        """Of the actions that were drawn last, (batch,)."""
        self.z = (self.unsquashed - self.mean) / self.std  # the noise, but for rounding
        self.slope = 1 - self.squashed * self.squashed
        gaussian = -0.5 * self.z * self.z - self.log_std - np.float32(_HALF_LOG_2_PI)
        total: Array = (gaussian - np.log(self.slope + np.float32(_SQUASH_EPSILON))).sum(axis=1)
        return total

    def backward(self, action_gradient: Array, log_prob_gradient: float) -> None:
        """Write the parameters' gradients of a loss.

        :param action_gradient: of the loss by each action, (batch, actions), log-probabilities left aside
        :param log_prob_gradient: of the loss by every log-probability
        """
        a, z, alpha = self.squashed, self.z, np.float32(log_prob_gradient)
        correction = 2 * a * self.slope / (self.slope + np.float32(_SQUASH_EPSILON))
        # The Gaussian's own density does not change with its mean, since u moves along.
        by_u = action_gradient * self.slope + alpha * correction
        by_log_std = by_u * self.std * self.noise + alpha * (z * z - 1 - z * self.noise)
        by_log_std *= self.is_free
        through_mean = cast(Array, self._mean.backward(by_u, inputs=True))
        through_log_std = cast(Array, self._log_std.backward(by_log_std, inputs=True))
        self._latent.backward(through_mean + through_log_std)


class EntropyCoefficient:
    """The weight of the entropy, fixed or learned by its logarithm.

    :param model: SAC or TQC
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        optimizer = model.ent_coef_optimizer
        self._trained = None if optimizer is None else Trained([model.log_ent_coef], optimizer)

    def bind(self) -> None:
        """See Trained."""
        if self._trained is not None:
            self._trained.bind()

    def update(self, log_prob: Array) -> tuple[float, float | None]:
        """One step towards the target entropy.

        :return: the coefficient before, and the loss; None when it is fixed
        """
        if self._trained is None:
            return float(self._model.ent_coef_tensor), None
        log_value = self._trained.flat.values[0]
        excess = float(np.mean(log_prob + np.float32(self._model.target_entropy)))
        value = float(np.exp(log_value))
        self._trained.flat.gradients[0] = -excess
        self._trained.optimizer.step()
        return value, -float(log_value) * excess


class SoftLearner(Learner):
    """SAC's actor, twin critics and their target.

    :param model: SAC or TQC
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model.policy, model.actor, model.replay_buffer)
        self.model = model
        self.actor = Trained(list(model.actor.parameters()), model.actor.optimizer)
        self.critic = Trained(list(model.critic.parameters()), model.critic.optimizer)
        self.target = Target(model.critic_target, self.critic.flat)
        self.policy_now = SquashedGaussian(model.actor, self.actor)
        self.policy_next = SquashedGaussian(model.actor, self.actor)
        self.critics = Critics(model.critic.q_networks, self.critic.flat)
        self.target_critics = Critics(model.critic_target.q_networks, self.target.flat)
        self.entropy = EntropyCoefficient(model)

    def parts(self) -> list[Any]:
        """See Learner."""
        return [self.actor, self.critic, self.target.flat, self.entropy]

    def update(self, batch: Batch) -> tuple[float, float | None, float, float]:
        """One step of the entropy coefficient, the critics and the actor.

        :return: coefficient before, its loss, the critics' loss, the actor's loss
        """
        n = len(batch.rewards)
        actions = self.policy_now.actions(batch.observations)
        log_prob = self.policy_now.log_prob()
        coefficient, entropy_loss = self.entropy.update(log_prob)

        next_actions = self.policy_next.actions(batch.next_observations)
        next_log_prob = self.policy_next.log_prob()
        following = self.target_critics.forward(batch.next_observations, next_actions)
        bonus = np.float32(coefficient) * next_log_prob
        keep = (1 - batch.dones) * np.float32(self.model.gamma)
        critic_loss = self.step_critics(batch, following, bonus, keep)

        values = self.critics.forward(batch.observations, actions)
        value, slopes = self.value(values)
        actor_loss = float(np.mean(np.float32(coefficient) * log_prob - value))
        self.policy_now.backward(self.critics.by_actions(slopes), coefficient / n)
        self.actor.optimizer.step()
        return coefficient, entropy_loss, critic_loss, actor_loss

    def step_critics(self, batch: Batch, following: Array, bonus: Array, keep: Array) -> float:
        """One step along the gradient of the critics' loss.

        :param following: what the target critics say of the next state, (batch, critics, out)
        :param bonus: to be subtracted for the entropy, (batch,)
        :param keep: the discount; 0 where the episode ended, (batch,)
        :return: the loss before
        """
        targets = batch.rewards + keep * (following[:, :, 0].min(axis=1) - bonus)
        values = self.critics.forward(batch.observations, batch.actions)
        loss, gradient = squared_errors(values, targets)
        self.critics.backward(0.5 * gradient)
        self.critic.optimizer.step()
        return 0.5 * loss

    def value(self, values: Array) -> tuple[Array, Array]:
        """The smaller of the critics' values.

        :param values: (batch, critics, 1)
        :return: (batch,), and the gradient of minus its mean, (batch, critics, 1)
        """
        least = values[:, :, 0].argmin(axis=1)
        rows = np.arange(len(values))
        slopes = np.zeros_like(values)
        slopes[rows, least, 0] = -1 / len(values)
        return values[rows, least, 0], slopes


class TruncatedLearner(SoftLearner):
    """TQC: critics of quantiles, of which the targets' largest are dropped."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        critic = model.critic
        self._kept = critic.quantiles_total - model.top_quantiles_to_drop_per_net * critic.n_critics
        self._huber: dict[int, QuantileHuber] = {}

    def step_critics(self, batch: Batch, following: Array, bonus: Array, keep: Array) -> float:
        """See SoftLearner; the targets are the smallest quantiles of all critics together."""
        n, critics, quantiles = following.shape
        pooled = np.sort(following.reshape(n, -1), axis=1)[:, : self._kept]
        targets = batch.rewards[:, None] + keep[:, None] * (pooled - bonus[:, None])
        values = self.critics.forward(batch.observations, batch.actions)
        if n not in self._huber:
            self._huber[n] = QuantileHuber(n, quantiles, critics, self._kept)
        loss, gradient = self._huber[n](values.reshape(n, -1), targets)
        self.critics.backward(gradient.reshape(values.shape))
        self.critic.optimizer.step()
        return loss

    def value(self, values: Array) -> tuple[Array, Array]:
        """The mean of all quantiles; see SoftLearner."""
        each = -1 / values.size
        return values.mean(axis=2).mean(axis=1), np.full(values.shape, each, dtype=np.float32)


class SoftActorCritic(ContinuousActions):
    """What SAC and TQC share: they differ in their learner."""

    fast: SoftLearner | None

    def networks(self) -> tuple[list[Any], list[Any]]:
        """See OffPolicy."""
        model: Any = self
        return [model.actor, model.critic, model.critic_target], [model.actor.optimizer, model.critic.optimizer]

    def squashed_actions(self, observations: Any) -> Array:
        """See ContinuousActions."""
        fast: Any = self.fast
        actions: Array = fast.policy_now.actions(fast.features(observations))
        return actions

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """See SAC."""
        model: Any = self
        if self.fast is None:
            super().train(gradient_steps, batch_size)  # type: ignore[misc]
            return
        fast = self.ready()
        learned = [] if model.ent_coef_optimizer is None else [model.ent_coef_optimizer]
        model._update_learning_rate([model.actor.optimizer, model.critic.optimizer, *learned])
        seen = []
        with np.errstate(all="ignore"):
            for step in range(gradient_steps):
                seen.append(fast.update(fast.sampler(batch_size, model._vec_normalize_env)))
                if step % model.target_update_interval == 0:
                    fast.target.follow(model.tau)
        model._n_updates += gradient_steps
        coefficients, entropy_losses, critic_losses, actor_losses = zip(*seen, strict=True)
        record = model.logger.record
        record("train/n_updates", model._n_updates, exclude="tensorboard")
        record("train/ent_coef", np.mean(coefficients))
        record("train/actor_loss", np.mean(actor_losses))
        record("train/critic_loss", np.mean(critic_losses))
        if learned:
            record("train/ent_coef_loss", np.mean(entropy_losses))


class FastSAC(SoftActorCritic, SAC):
    """SAC with its faster form."""

    policies = (sac_policies.MlpPolicy, sac_policies.MultiInputPolicy)

    def build_fast(self) -> SoftLearner:
        """See Accelerated."""
        return SoftLearner(self)


class FastTQC(SoftActorCritic, TQC):
    """TQC with its faster form."""

    policies = (tqc_policies.MlpPolicy, tqc_policies.MultiInputPolicy)

    def build_fast(self) -> TruncatedLearner:
        """See Accelerated."""
        return TruncatedLearner(self)
