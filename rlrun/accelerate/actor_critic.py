"""SB3's actor-critic MLP policy as two lists of matrices and a distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from torch import nn

from rlrun.accelerate import distributions, mlp, optimizers
from rlrun.accelerate.flat import Array, FlatParameters


def why_not(policy: Any) -> str:
    """Why a policy cannot be computed here; empty when it can."""
    if type(policy) not in (ActorCriticPolicy, MultiInputActorCriticPolicy):
        return f"the policy is {type(policy).__name__}"
    if policy.use_sde:
        return "the policy explores with gSDE"
    extractors = {type(policy.pi_features_extractor), type(policy.vf_features_extractor)}
    if not extractors <= {FlattenExtractor, CombinedExtractor}:
        return f"the features extractor is a {type(policy.pi_features_extractor).__name__}"
    space = policy.observation_space
    parts = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
    if not all(isinstance(part, spaces.Box) and not is_image_space(part) for part in parts):
        return "not all observations are vectors"
    extractor = policy.mlp_extractor
    networks = (extractor.policy_net, extractor.value_net, policy.action_net, policy.value_net)
    reasons = [mlp.why_not(network) for network in networks]
    reasons += [distributions.why_not(policy.action_dist), optimizers.why_not(policy.optimizer)]
    return next((reason for reason in reasons if reason), "")


class ActorCritic:
    """A policy that :func:`why_not` has nothing against: its parameters in one vector, and what is computed of them.

    :ivar flat: all parameters, in the order of the policy's optimiser
    :ivar policy_net: observations to what the distribution takes
    :ivar value_net: observations to values
    """

    def __init__(self, policy: Any) -> None:
        self.flat = FlatParameters(list(policy.parameters()))
        self.optimizer = optimizers.flat_optimizer(policy.optimizer, self.flat)
        extractor = policy.mlp_extractor
        self.policy_net = mlp.Mlp(nn.Sequential(extractor.policy_net, policy.action_net), self.flat)
        self.value_net = mlp.Mlp(nn.Sequential(extractor.value_net, policy.value_net), self.flat)
        self.distribution = distributions.of_policy(policy, self.flat)
        space = policy.observation_space
        self._keys = list(space.spaces) if isinstance(space, spaces.Dict) else None

    def bind(self) -> None:
        """Take over parameters and optimiser state that were loaded since."""
        if not self.flat.is_bound():
            self.flat.bind()
        if not self.optimizer.is_bound():
            self.optimizer.bind()

    def features(self, observations: Any, leading: int = 1) -> Array:
        """Observations as float32 vectors; those of a Dict one after the other, as CombinedExtractor does.

        :param observations: an array, or a dict of arrays, with ``leading`` axes before those of the space
        :return: the leading axes and one of features
        """
        if self._keys is None:
            return _flattened(observations, leading)
        return np.concatenate([_flattened(observations[key], leading) for key in self._keys], axis=-1)


def _flattened(array: Any, leading: int) -> Array:
    return np.asarray(array, dtype=np.float32).reshape(*array.shape[:leading], -1)
