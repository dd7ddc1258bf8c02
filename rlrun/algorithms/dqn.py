"""DQN and its well-known improvements, as options that go together in any combination."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from stable_baselines3 import DQN as PlainDQN
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.dqn import policies
from torch import nn

from rlrun.accelerate import dqn, td_learning
from rlrun.accelerate.batches import Batch
from rlrun.accelerate.frames import FrameBuffer
from rlrun.algorithms import prioritized
from rlrun.algorithms.prioritized import PrioritizedFrameBuffer, PrioritizedReplayBuffer
from rlrun.config.signatures import keyword_parameters

OPTIONS = ("double_q", "dueling", "prioritized_replay")
_BUFFERS = {None: PrioritizedReplayBuffer, FrameBuffer: PrioritizedFrameBuffer}


class Dueling(nn.Module):
    """The value of a state and the advantages of its actions, added (Wang et al. 2016, equation 9).

    :param features_dim: of what comes in
    :param n_actions: of what goes out
    :param net_arch: hidden layers, which each of the two has for itself
    """

    def __init__(self, features_dim: int, n_actions: int, net_arch: list[int], activation_fn: type[nn.Module]) -> None:
        super().__init__()
        self.value = nn.Sequential(*create_mlp(features_dim, 1, net_arch, activation_fn))
        self.advantage = nn.Sequential(*create_mlp(features_dim, n_actions, net_arch, activation_fn))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, features) to (batch, actions)."""
        advantages = self.advantage(features)
        values: torch.Tensor = self.value(features) + advantages - advantages.mean(dim=1, keepdim=True)
        return values


class DuelingQNetwork(policies.QNetwork):
    """SB3's QNetwork with a dueling head."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.q_net = Dueling(self.features_dim, int(self.action_space.n), self.net_arch, self.activation_fn)  # type: ignore[assignment]


class DuelingMlpPolicy(policies.MlpPolicy):
    """DQN's MlpPolicy with dueling networks."""

    def make_q_net(self) -> policies.QNetwork:
        """See DQNPolicy."""
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return DuelingQNetwork(**arguments).to(self.device)


class DuelingCnnPolicy(policies.CnnPolicy):
    """The same for images."""

    make_q_net = DuelingMlpPolicy.make_q_net


class DuelingMultiInputPolicy(policies.MultiInputPolicy):
    """The same for Dict observations."""

    make_q_net = DuelingMlpPolicy.make_q_net


DUELING: dict[type, type] = {
    policies.MlpPolicy: DuelingMlpPolicy,
    policies.CnnPolicy: DuelingCnnPolicy,
    policies.MultiInputPolicy: DuelingMultiInputPolicy,
}


class DQN(PlainDQN):
    """SB3's DQN (Mnih et al. 2015) with Double DQN, dueling networks and prioritised replay.

    A config that uses none of the three is SB3's DQN itself. The names are those of Stable-Baselines 2.

    :param double_q: the online network chooses the next action and the target network values it (van Hasselt et al.
        2016, https://arxiv.org/abs/1509.06461)
    :param dueling: networks that add the value of a state and the advantages of its actions (Wang et al. 2016,
        https://arxiv.org/abs/1511.06581); ``policy_kwargs.net_arch`` are the hidden layers of each of the two
    :param prioritized_replay: draw transitions in proportion to the size of their last error (Schaul et al. 2016,
        https://arxiv.org/abs/1511.05952)
    :param prioritized_replay_alpha: exponent of the priorities; 0 draws uniformly
    :param prioritized_replay_beta0: exponent of the importance weights at the beginning; at the end it is 1
    :param prioritized_replay_beta_iters: timesteps until it is 1; null for the whole training
    :param prioritized_replay_eps: added to the errors, of which at most 1 counts
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = PlainDQN.policy_aliases

    def __init__(
        self,
        *args: Any,
        double_q: bool = False,
        dueling: bool = False,
        prioritized_replay: bool = False,
        prioritized_replay_alpha: float = 0.6,
        prioritized_replay_beta0: float = 0.4,
        prioritized_replay_beta_iters: int | None = None,
        prioritized_replay_eps: float = 0.01,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **{**kwargs, "_init_setup_model": False})
        self.double_q, self.dueling, self.prioritized_replay = double_q, dueling, prioritized_replay
        self.prioritized_replay_alpha, self.prioritized_replay_eps = prioritized_replay_alpha, prioritized_replay_eps
        self.prioritized_replay_beta0 = prioritized_replay_beta0
        self.prioritized_replay_beta_iters = prioritized_replay_beta_iters
        if dueling and self.policy_class not in DUELING.values():
            if self.policy_class not in DUELING:
                raise ValueError(f"dueling needs one of SB3's policies, not {self.policy_class.__name__}")
            self.policy_class = DUELING[self.policy_class]
        if _init_setup_model:
            self._setup_model()

    @classmethod
    def plainest(cls, settings: dict[str, Any]) -> tuple[type[PlainDQN], dict[str, Any]]:
        """The class and the keyword arguments that a config needs: SB3's own where it uses none of the options."""
        if any(settings.get(name) for name in OPTIONS):
            return cls, settings
        known = keyword_parameters(PlainDQN)
        return PlainDQN, {name: value for name, value in settings.items() if name in known}

    def _setup_model(self) -> None:
        if not self.prioritized_replay:
            super()._setup_model()
            return
        wanted, settings = self.replay_buffer_class, self.replay_buffer_kwargs
        named = None if wanted is FrameBuffer else wanted
        reason = prioritized.why_not(
            self.observation_space,
            {"replay_buffer_class": named, "optimize_memory_usage": self.optimize_memory_usage},
        )
        if reason:
            raise ValueError(reason)
        self.replay_buffer_class = _BUFFERS[wanted]  # type: ignore[index]
        self.replay_buffer_kwargs = {
            **settings,
            **{"n_steps": self.n_steps, "gamma": self.gamma},
            **{"alpha": self.prioritized_replay_alpha, "epsilon": self.prioritized_replay_eps},
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`n_steps")  # that it is ignored: not by these buffers
            super()._setup_model()
        # A saved model does not name it: whoever loads one makes the buffer that SB3 would.
        self.replay_buffer_class, self.replay_buffer_kwargs = None, settings

    @property
    def beta(self) -> float:
        """The exponent of the importance weights now."""
        horizon = self.prioritized_replay_beta_iters
        done = self.num_timesteps / horizon if horizon else 1 - self._current_progress_remaining
        return self.prioritized_replay_beta0 + (1 - self.prioritized_replay_beta0) * min(1.0, done)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """See SB3's DQN."""
        self.set_beta()
        td_learning.train(self, gradient_steps, batch_size, self._update)

    def set_beta(self) -> None:
        """Tell the replay buffer the exponent of now."""
        buffer: Any = self.replay_buffer
        if self.prioritized_replay:
            buffer.beta = self.beta
            self.logger.record("train/prioritized_replay_beta", buffer.beta)

    def _update(self, batch_size: int) -> float:
        buffer: Any = self.replay_buffer
        batch = buffer.sample(batch_size, env=self._vec_normalize_env)
        weights = batch.weights if self.prioritized_replay else None
        loss, errors = td_learning.update(self, batch, double_q=self.double_q, weights=weights)
        if self.prioritized_replay:
            buffer.update_priorities(batch.at, errors.cpu().numpy()[:, 0])
        return loss


class PrioritizedLearner(dqn.QLearner):
    """Tells the replay buffer the errors of each batch."""

    def update(self, batch: Batch, gamma: float, max_grad_norm: float | None) -> float:
        """See QLearner."""
        loss = super().update(batch, gamma, max_grad_norm)
        buffer: Any = self.sampler.buffer
        buffer.update_priorities(batch.at, self.errors)
        return loss


class FastDQNWithOptions(dqn.FastDQN, DQN):
    """DQN with its faster form: in NumPy but for images and dueling networks, of which those of images act faster."""

    image_policies = (*dqn.FastDQN.image_policies, DuelingCnnPolicy)

    def build_fast(self) -> dqn.QLearner:
        """See Accelerated."""
        if self.prioritized_replay:
            return PrioritizedLearner(self, self.q_net, self.q_net_target)
        return super().build_fast()

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """See DeepQLearning."""
        self.set_beta()
        super().train(gradient_steps, batch_size)

    def train_in_torch(self, gradient_steps: int, batch_size: int) -> None:
        """See DeepQLearning: with the options, which SB3's DQN does not have."""
        td_learning.train(self, gradient_steps, batch_size, self._update)
