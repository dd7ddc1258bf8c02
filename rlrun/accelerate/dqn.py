"""DQN (Mnih et al. 2015) and QR-DQN (Dabney et al. 2018) with SB3's update in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sb3_contrib import QRDQN
from sb3_contrib.qrdqn import policies as qrdqn_policies
from stable_baselines3 import DQN
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.dqn import policies as dqn_policies

from rlrun.accelerate import td_learning
from rlrun.accelerate.batches import Batch
from rlrun.accelerate.convolutions import ChannelsLast
from rlrun.accelerate.flat import Array
from rlrun.accelerate.mlp import Mlp
from rlrun.accelerate.off_policy import Learner, OffPolicy, Target, Trained
from rlrun.accelerate.optimizers import clip_gradient_norm
from rlrun.accelerate.quantiles import QuantileHuber
from rlrun.accelerate.threads import torch_threads


class QLearner(Learner):
    """A network of action values and its target.

    :param model: DQN or QRDQN
    :param network: of the model's policy, and so is ``target``
    """

    def __init__(self, model: Any, network: Any, target: Any) -> None:
        super().__init__(model.policy, network, model.replay_buffer)
        self.trained = Trained(list(network.parameters()), model.policy.optimizer)
        self.target = Target(target, self.trained.flat)
        self.net = Mlp(_sequential(network), self.trained.flat)
        self.target_net = Mlp(_sequential(target), self.target.flat)
        self.n_actions = int(model.action_space.n)
        self.double_q = getattr(model, "double_q", False)
        self.errors: Array = np.empty(0)  # of the last batch, (batch,)
        self._rows: Array = np.arange(0)

    def parts(self) -> list[Any]:
        """See Learner."""
        return [self.trained, self.target.flat]

    def values(self, observations: Any) -> Array:
        """Values of all actions, (batch, actions)."""
        return self.net.forward(self.features(observations))

    def rows(self, batch: Batch) -> Array:
        """0, 1, ... for each transition."""
        if len(self._rows) != len(batch.rewards):
            self._rows = np.arange(len(batch.rewards))
        return self._rows

    def update(self, batch: Batch, gamma: float, max_grad_norm: float | None) -> float:
        """One step along the gradient of the loss.

        :return: the loss before
        """
        loss, gradient = self.loss(batch, gamma)
        self.net.backward(gradient)
        if max_grad_norm is not None:
            clip_gradient_norm(self.trained.flat.gradients, max_grad_norm)
        self.trained.optimizer.step()
        return loss

    def loss(self, batch: Batch, gamma: float) -> tuple[float, Array]:
        """The Huber loss of the temporal-difference errors.

        :return: it, and its gradient with respect to the network's output, (batch, actions)
        """
        rows, actions = self.rows(batch), batch.actions[:, 0]
        following = self.target_net.forward(batch.next_observations)
        if self.double_q:
            following = following[rows, self.net.forward(batch.next_observations).argmax(axis=1)]
        else:
            following = following.max(axis=1)
        targets = batch.rewards + (1 - batch.dones) * np.float32(gamma) * following
        values = self.net.forward(batch.observations)
        self.errors = errors = values[rows, actions] - targets
        slopes = np.clip(errors, -1, 1)
        # e^2 / 2 where |e| < 1, else |e| - 1/2: with c = clip(e), both are c (e - c / 2).
        losses = errors - 0.5 * slopes
        if batch.weights is not None:
            slopes *= batch.weights
        loss = float(np.dot(slopes, losses)) / len(rows)
        gradient = np.zeros_like(values)
        gradient[rows, actions] = slopes / np.float32(len(rows))
        return loss, gradient


class QuantileLearner(QLearner):
    """A network of quantiles of the return; its output is (batch, quantiles * actions)."""

    def __init__(self, model: Any, network: Any, target: Any) -> None:
        super().__init__(model, network, target)
        self.n_quantiles = int(model.n_quantiles)
        self._huber: dict[int, QuantileHuber] = {}

    def values(self, observations: Any) -> Array:
        """See QLearner."""
        return self._of_actions(super().values(observations)).mean(axis=1)

    def loss(self, batch: Batch, gamma: float) -> tuple[float, Array]:
        """The quantile Huber loss, summed over the quantiles and averaged over targets and batch."""
        rows, actions = self.rows(batch), batch.actions[:, 0]
        n = len(rows)
        following = self._of_actions(self.target_net.forward(batch.next_observations))
        best = following.mean(axis=1).argmax(axis=1)
        keep = (1 - batch.dones) * np.float32(gamma)
        targets = batch.rewards[:, None] + keep[:, None] * following[rows, :, best]
        output = self.net.forward(batch.observations)
        quantiles = self._of_actions(output)
        if n not in self._huber:
            self._huber[n] = QuantileHuber(n, self.n_quantiles, 1, self.n_quantiles)
        loss, slopes = self._huber[n](quantiles[rows, :, actions], targets)
        gradient = np.zeros_like(output)
        self._of_actions(gradient)[rows, :, actions] = slopes * np.float32(self.n_quantiles)
        return loss * self.n_quantiles, gradient

    def _of_actions(self, output: Array) -> Array:
        """(batch, quantiles, actions), a view."""
        return output.reshape(-1, self.n_quantiles, self.n_actions)


def _sequential(network: Any) -> Any:
    return network.q_net if hasattr(network, "q_net") else network.quantile_net


class DeepQLearning(OffPolicy):
    """What DQN and QR-DQN share: they differ in their learner."""

    fast: QLearner | None
    image_policies: tuple[type, ...] = ()

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """See DQN."""
        model: Any = self
        if self.fast is None:
            self.train_in_torch(gradient_steps, batch_size)
            return
        fast = self.ready()
        model._update_learning_rate(model.policy.optimizer)
        losses = []
        with np.errstate(all="ignore"):
            for _ in range(gradient_steps):
                batch = fast.sampler(batch_size, model._vec_normalize_env)
                losses.append(fast.update(batch, model.gamma, model.max_grad_norm))
        model._n_updates += gradient_steps
        model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
        model.logger.record("train/loss", np.mean(losses))

    def train_in_torch(self, gradient_steps: int, batch_size: int) -> None:
        """Where NumPy does not."""
        super().train(gradient_steps, batch_size)  # type: ignore[misc]

    def sees_images(self) -> bool:
        """Whether the policy is SB3's own with its NatureCNN, which has nothing that acting would have to switch."""
        model: Any = self
        extractor = self.networks()[0][0].features_extractor
        return type(model.policy) in self.image_policies and isinstance(extractor, ChannelsLast)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[Array, Array]:
        """See OffPolicyAlgorithm."""
        model: Any = self
        if self.fast is None and model.num_timesteps >= learning_starts and self.sees_images():
            return self.explore(action_noise, n_envs)
        return super()._sample_action(learning_starts, action_noise, n_envs)

    def explore(self, action_noise: ActionNoise | None, n_envs: int) -> tuple[Array, Array]:
        """See OffPolicy: epsilon-greedy."""
        model: Any = self
        if np.random.rand() < model.exploration_rate:
            actions = np.array([model.action_space.sample() for _ in range(n_envs)])
        elif self.fast is not None:
            actions = self.fast.values(model._last_obs).argmax(axis=1)
        else:
            # A single image is too little for several threads: waking them takes longer than they save.
            with torch.no_grad(), torch_threads(1 if n_envs == 1 else torch.get_num_threads()):
                actions = self.networks()[0][0]._predict(torch.as_tensor(model._last_obs)).numpy()
        return actions, actions

    def _on_step(self) -> None:
        """See DQN: the target follows, and epsilon falls."""
        model: Any = self
        if self.fast is None:
            super()._on_step()  # type: ignore[misc]
            return
        model._n_calls += 1
        if model._n_calls % max(model.target_update_interval // model.n_envs, 1) == 0:
            self.ready().target.follow(model.tau)
        model.exploration_rate = model.exploration_schedule(model._current_progress_remaining)
        model.logger.record("rollout/exploration_rate", model.exploration_rate)


class FastDQN(DeepQLearning, DQN):
    """DQN with its faster form."""

    policies = (dqn_policies.MlpPolicy, dqn_policies.MultiInputPolicy)
    image_policies: tuple[type, ...] = (dqn_policies.CnnPolicy,)

    def networks(self) -> tuple[list[Any], list[Any]]:
        """See OffPolicy."""
        return [self.q_net, self.q_net_target], [self.policy.optimizer]

    def build_fast(self) -> QLearner:
        """See Accelerated."""
        return QLearner(self, self.q_net, self.q_net_target)

    def train_in_torch(self, gradient_steps: int, batch_size: int) -> None:
        """See DeepQLearning."""
        if not self.sees_images():
            super().train_in_torch(gradient_steps, batch_size)
            return
        buffer: Any = self.replay_buffer

        def one_update(batch_size: int) -> float:
            return td_learning.update(self, buffer.sample(batch_size, env=self._vec_normalize_env))[0]

        td_learning.train(self, gradient_steps, batch_size, one_update)


class FastQRDQN(DeepQLearning, QRDQN):
    """QR-DQN with its faster form."""

    policies = (qrdqn_policies.MlpPolicy, qrdqn_policies.MultiInputPolicy)
    image_policies = (qrdqn_policies.CnnPolicy,)

    def networks(self) -> tuple[list[Any], list[Any]]:
        """See OffPolicy."""
        return [self.quantile_net, self.quantile_net_target], [self.policy.optimizer]

    def build_fast(self) -> QuantileLearner:
        """See Accelerated."""
        return QuantileLearner(self, self.quantile_net, self.quantile_net_target)
