"""What the off-policy algorithms share: acting, batches, target networks.

What SB3 computes is computed here too, in the same order and with the same random numbers: exploration from NumPy's
generator and the action space, noise from torch's. Only the rounding of sums differs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BaseModel, BasePolicy

from rlrun.accelerate import mlp, optimizers
from rlrun.accelerate.batches import Features, ReplaySampler, sampler_for, why_no_features, why_no_sampler
from rlrun.accelerate.choose import Accelerated
from rlrun.accelerate.flat import Array, FlatParameters
from rlrun.accelerate.optimizers import FlatOptimizer, flat_optimizer
from rlrun.accelerate.threads import set_numpy_threads


class Trained:
    """A network that an optimiser trains, with its parameters in one vector.

    :param parameters: of the network
    :param optimizer: of these parameters
    """

    def __init__(self, parameters: list[Any], optimizer: torch.optim.Optimizer) -> None:
        self.flat = FlatParameters(parameters)
        self.optimizer: FlatOptimizer = flat_optimizer(optimizer, self.flat)

    def bind(self) -> None:
        """Take over what was loaded since the last call."""
        self.flat.bind()
        if not self.optimizer.is_bound():
            self.optimizer.bind()


class Target:
    """The slowly following copy of a network.

    :param network: has the parameters of ``source``, in the same order
    """

    def __init__(self, network: BaseModel, source: FlatParameters) -> None:
        self.flat = FlatParameters(list(network.parameters()))
        self._source, self._scratch = source, np.empty_like(source.values)

    def follow(self, tau: float) -> None:
        """Polyak averaging: theta' <- (1 - tau) theta' + tau theta, as ``polyak_update`` does it."""
        np.multiply(self.flat.values, 1 - tau, out=self.flat.values)
        np.multiply(self._source.values, tau, out=self._scratch)
        np.add(self.flat.values, self._scratch, out=self.flat.values)


class Learner:
    """What the faster form of an off-policy algorithm works with; each algorithm has its own kind.

    :param policy: that :func:`why_no_learner` has nothing against
    :param network: whose features extractor stands for all of the policy's
    :param buffer: where batches come from
    """

    def __init__(self, policy: BasePolicy, network: BaseModel, buffer: Any) -> None:
        self.policy = policy
        self.features = Features(policy.observation_space, network.features_extractor)  # type: ignore[arg-type]
        self.sampler: ReplaySampler = sampler_for(buffer, self.features)
        set_numpy_threads(torch.get_num_threads())

    def parts(self) -> list[Any]:
        """Everything that has parameters."""
        raise NotImplementedError

    def bind(self, buffer: Any) -> None:
        """Take over parameters, states and the buffer, where others were put in their place."""
        for part in self.parts():
            part.bind()
        if self.sampler.buffer is not buffer:
            self.sampler = sampler_for(buffer, self.features)


def why_no_learner(policy: BasePolicy, networks: list[Any], trained: list[Any], buffer: Any) -> str:
    """Why a policy's parts cannot be computed here; empty when they can.

    :param networks: each a part with a features extractor
    :param trained: optimisers
    """
    reasons = [
        *(why_no_features(policy.observation_space, network.features_extractor) for network in networks),
        why_no_sampler(buffer),
        *(optimizers.why_not(optimizer) for optimizer in trained),
        *(mlp.why_not(child) for network in networks for name, child in _layers(network)),
    ]
    return next((reason for reason in reasons if reason), "")


def _layers(network: BaseModel) -> list[tuple[str, Any]]:
    return [(name, child) for name, child in network.named_children() if name != "features_extractor"]


class OffPolicy(Accelerated):
    """The parts of the faster form that all algorithms share."""

    policies: tuple[type, ...] = ()  # exact classes whose forward pass is known

    def why_plain(self) -> str:
        """See Accelerated."""
        model: Any = self
        if model.device.type != "cpu":
            return f"the device is {model.device}"
        if type(model.policy) not in self.policies:
            return f"the policy is {type(model.policy).__name__}"
        if model.use_sde:
            return "it explores with gSDE"
        return why_no_learner(model.policy, *self.networks(), model.replay_buffer)

    def networks(self) -> tuple[list[Any], list[Any]]:
        """The policy's networks, and the optimisers of those that are trained."""
        raise NotImplementedError

    def how_fast(self) -> str:
        """See Accelerated."""
        return "updates and exploring actions in NumPy, with gradients derived by hand"

    def explore(self, action_noise: ActionNoise | None, n_envs: int) -> tuple[Array, Array]:
        """Actions for the env, and as the buffer stores them, once learning has begun."""
        raise NotImplementedError

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[Array, Array]:
        """See OffPolicyAlgorithm."""
        model: Any = self
        if self.fast is None or model.num_timesteps < learning_starts:
            return super()._sample_action(learning_starts, action_noise, n_envs)  # type: ignore[misc]
        return self.explore(action_noise, n_envs)

    def ready(self) -> Any:
        """The learner, with what the model holds now."""
        model: Any = self
        model.fast.bind(model.replay_buffer)
        return model.fast


class ContinuousActions(OffPolicy):
    """Acting in a Box, by the actor's actions in [-1, 1]."""

    def squashed_actions(self, observations: Any) -> Array:
        """The actor's exploring actions, (n_envs, actions) in [-1, 1]."""
        raise NotImplementedError

    def explore(self, action_noise: ActionNoise | None, n_envs: int) -> tuple[Array, Array]:
        """See OffPolicy."""
        model: Any = self
        policy = model.policy
        actions = self.squashed_actions(model._last_obs).reshape(-1, *model.action_space.shape)
        # There and back again, as SB3 rounds.
        scaled = policy.scale_action(policy.unscale_action(actions))
        if action_noise is not None:
            scaled = np.clip(scaled + action_noise(), -1, 1)
        return policy.unscale_action(scaled), scaled
