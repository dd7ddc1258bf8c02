"""TD3 (Fujimoto et al. 2018) and DDPG (Lillicrap et al. 2016) with SB3's update in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import DDPG, TD3
from stable_baselines3.td3 import policies as td3_policies

from rlrun.accelerate.batches import Batch
from rlrun.accelerate.critics import Critics, squared_errors
from rlrun.accelerate.flat import Array
from rlrun.accelerate.mlp import Mlp
from rlrun.accelerate.off_policy import ContinuousActions, Learner, Target, Trained


class DeterministicLearner(Learner):
    """TD3's actor and critics, and the targets of both.

    :param model: TD3 or DDPG
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model.policy, model.actor, model.replay_buffer)
        self.model = model
        self.actor = Trained(list(model.actor.parameters()), model.actor.optimizer)
        self.critic = Trained(list(model.critic.parameters()), model.critic.optimizer)
        self.actor_target = Target(model.actor_target, self.actor.flat)
        self.critic_target = Target(model.critic_target, self.critic.flat)
        self.policy_net = Mlp(model.actor.mu, self.actor.flat)
        self.target_policy_net = Mlp(model.actor_target.mu, self.actor_target.flat)
        self.critics = Critics(model.critic.q_networks, self.critic.flat)
        self.target_critics = Critics(model.critic_target.q_networks, self.critic_target.flat)

    def parts(self) -> list[Any]:
        """See Learner."""
        return [self.actor, self.critic, self.actor_target.flat, self.critic_target.flat]

    def step_critics(self, batch: Batch) -> float:
        """One step along the gradient of the critics' loss.

        :return: the loss before
        """
        model = self.model
        noise = torch.empty(batch.actions.shape).normal_(0, model.target_policy_noise).numpy()
        np.clip(noise, -model.target_noise_clip, model.target_noise_clip, out=noise)
        next_actions = np.clip(self.target_policy_net.forward(batch.next_observations) + noise, -1, 1)
        following = self.target_critics.forward(batch.next_observations, next_actions)[:, :, 0].min(axis=1)
        targets = batch.rewards + (1 - batch.dones) * np.float32(model.gamma) * following
        values = self.critics.forward(batch.observations, batch.actions)
        loss, gradient = squared_errors(values, targets)
        self.critics.backward(gradient)
        self.critic.optimizer.step()
        return loss

    def step_actor(self, batch: Batch) -> float:
        """One step up the first critic's value; the targets follow.

        :return: the loss before
        """
        actions = self.policy_net.forward(batch.observations)
        values = self.critics.forward(batch.observations, actions, first_only=True)
        slopes = np.full(values.shape, -1 / values.size, dtype=np.float32)
        self.policy_net.backward(self.critics.by_actions(slopes))
        self.actor.optimizer.step()
        self.critic_target.follow(self.model.tau)
        self.actor_target.follow(self.model.tau)
        return -float(values.mean())


class Deterministic(ContinuousActions):
    """The faster form of TD3 and DDPG, which SB3 derives from it."""

    fast: DeterministicLearner | None
    policies = (td3_policies.MlpPolicy, td3_policies.MultiInputPolicy)

    def networks(self) -> tuple[list[Any], list[Any]]:
        """See OffPolicy."""
        model: Any = self
        networks = [model.actor, model.actor_target, model.critic, model.critic_target]
        return networks, [model.actor.optimizer, model.critic.optimizer]

    def build_fast(self) -> DeterministicLearner:
        """See Accelerated."""
        return DeterministicLearner(self)

    def squashed_actions(self, observations: Any) -> Array:
        """See ContinuousActions."""
        fast: Any = self.fast
        actions: Array = fast.policy_net.forward(fast.features(observations))
        return actions

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """See TD3."""
        model: Any = self
        if self.fast is None:
            super().train(gradient_steps, batch_size)  # type: ignore[misc]
            return
        fast = self.ready()
        model._update_learning_rate([model.actor.optimizer, model.critic.optimizer])
        actor_losses, critic_losses = [], []
        with np.errstate(all="ignore"):
            for _ in range(gradient_steps):
                model._n_updates += 1
                batch = fast.sampler(batch_size, model._vec_normalize_env)
                critic_losses.append(fast.step_critics(batch))
                if model._n_updates % model.policy_delay == 0:
                    actor_losses.append(fast.step_actor(batch))
        model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
        if actor_losses:
            model.logger.record("train/actor_loss", np.mean(actor_losses))
        model.logger.record("train/critic_loss", np.mean(critic_losses))


class FastTD3(Deterministic, TD3):
    """TD3 with its faster form."""


class FastDDPG(Deterministic, DDPG):
    """DDPG with its faster form."""
