"""An agent as one torch module: observations as its env gives them go in, actions as its env takes them come out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, VecTransposeImage

from rlrun.evaluation.evaluate import takes_action_masks
from rlrun.runs.load import Agent

BATCH = "batch"
ACTION, MASKS, START, STATES = "action", "action_masks", "episode_start", ("hidden_state", "cell_state")
_NEXT = tuple(f"next_{name}" for name in STATES)
_RESERVED = {ACTION, MASKS, START, *STATES, *_NEXT}


@dataclass(frozen=True)
class Port:
    """One input or output of the graph.

    :ivar dtype: NumPy's name of it
    :ivar shape: lengths, and ``batch`` where any length will do
    :ivar description: what it is, for people
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    description: str

    @property
    def batch_axis(self) -> int:
        """The axis along which a batch is laid out."""
        return self.shape.index(BATCH)

    def part(self, values: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Some rows of a batch."""
        return np.take(values, np.arange(start, stop), axis=self.batch_axis)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Preparation:
    """What happens to an observation between the env and the policy: the outer vec wrappers of the recipe.

    :ivar raw: the env as far as frame stacking; its observations are the graph's inputs
    """

    raw: VecEnv
    transposer: VecTransposeImage | None
    normalizer: VecNormalize | None

    @classmethod
    def of(cls, venv: VecEnv) -> Preparation:
        """Take apart what the recipe wrapped."""
        found: dict[type, VecEnvWrapper] = {}
        for kind in (VecNormalize, VecTransposeImage):
            if isinstance(venv, kind):
                found[kind] = venv
                venv = venv.venv
        transposer: Any = found.get(VecTransposeImage)
        normalizer: Any = found.get(VecNormalize)
        return cls(venv, transposer, normalizer if normalizer is not None and normalizer.norm_obs else None)

    def __call__(self, observation: Any) -> Any:
        """A batch as the env gives it, as the policy sees it."""
        if self.transposer is not None:
            observation = self.transposer.transpose_observations(observation)
        return observation if self.normalizer is None else self.normalizer.normalize_obs(observation)

    def leaves(self) -> dict[str, tuple[spaces.Space[Any], _Leaf]]:
        """The parts of an observation by key (the empty one when it has no parts), and what happens to each."""
        space = self.raw.observation_space
        parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        transposed = set(parts) if self.transposer is not None else set()
        if self.transposer is not None and isinstance(space, spaces.Dict):
            transposed = set(self.transposer.image_space_keys)
        moments: Any = {} if self.normalizer is None else self.normalizer.obs_rms
        moments = moments if isinstance(moments, dict) else {"": moments}
        return {key: (part, _Leaf(key in transposed, self.normalizer, moments.get(key))) for key, part in parts.items()}


class _Leaf(torch.nn.Module):
    """One part of an observation: channels to the front, then normalization.

    The arithmetic is in double precision, as VecNormalize's is: a large mean would cost a float32 its digits.
    """

    def __init__(self, transposed: bool, normalizer: VecNormalize | None, moments: Any) -> None:
        super().__init__()
        self.transposed = transposed
        self.mean: torch.Tensor
        self.deviation: torch.Tensor
        self.clip = normalizer.clip_obs if normalizer is not None and moments is not None else None
        if normalizer is not None and moments is not None:
            self.register_buffer("mean", torch.tensor(moments.mean))
            self.register_buffer("deviation", torch.tensor(np.sqrt(moments.var + normalizer.epsilon)))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.transposed:
            values = values.permute(0, 3, 1, 2)
        if self.clip is None:
            return values
        return torch.clamp((values.double() - self.mean) / self.deviation, -self.clip, self.clip).float()


class Actor(torch.nn.Module):
    """The whole way from observations to deterministic actions, as SB3's ``predict`` goes it.

    :ivar inputs: in the order of ``forward``'s arguments: the observation's parts first
    :ivar outputs: in the order of what it returns
    """

    def __init__(self, model: BaseAlgorithm, preparation: Preparation) -> None:
        super().__init__()
        self.policy: Any = model.policy
        self.policy.set_training_mode(False)
        leaves = preparation.leaves()
        self.keys = list(leaves)
        self.leaves = torch.nn.ModuleList(leaf for _, leaf in leaves.values())
        self.space = model.action_space
        self.low: torch.Tensor
        self.high: torch.Tensor
        if isinstance(self.space, spaces.Box):
            self.register_buffer("low", torch.tensor(self.space.low))
            self.register_buffer("high", torch.tensor(self.space.high))
        self.inputs = [_observation_port(key, space, leaf) for key, (space, leaf) in leaves.items()]
        self.outputs = [_action_port(self.space)]

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts = {key: leaf(values) for key, leaf, values in zip(self.keys, self.leaves, inputs, strict=False)}
        actions, *states = self.act(parts.get("", parts), *inputs[len(parts) :])
        return self._finished(actions), *states

    def act(self, observation: Any, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the policy's network says, and what it hands on to the next step."""
        return (self.policy._predict(observation, deterministic=True),)

    def _finished(self, actions: torch.Tensor) -> torch.Tensor:
        actions = actions.reshape(-1, *(self.space.shape or ()))
        if not isinstance(self.space, spaces.Box):
            return actions
        if self.policy.squash_output:
            return self.low + 0.5 * (actions + 1.0) * (self.high - self.low)
        return torch.minimum(torch.maximum(actions, self.low), self.high)


class MaskedActor(Actor):
    """MaskablePPO: which actions are allowed is an input too."""

    def __init__(self, model: BaseAlgorithm, preparation: Preparation) -> None:
        super().__init__(model, preparation)
        space: Any = self.space
        choices = {"Discrete": "n", "MultiBinary": "n", "MultiDiscrete": "nvec"}[type(space).__name__]
        each = np.asarray(getattr(space, choices))
        count = int(2 * each if isinstance(space, spaces.MultiBinary) else each.sum())
        self.inputs.append(Port(MASKS, "bool", (BATCH, count), "true where an action is allowed"))
        self.outputs = [replace(port, dtype="int64") for port in self.outputs]

    def act(self, observation: Any, *masks: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See Actor."""
        return (self.policy._predict(observation, deterministic=True, action_masks=masks[0]),)


class RecurrentActor(Actor):
    """RecurrentPPO: the LSTM's state goes in and comes out, zeros at first."""

    def __init__(self, model: BaseAlgorithm, preparation: Preparation) -> None:
        super().__init__(model, preparation)
        layers, _, hidden = self.policy.lstm_hidden_state_shape
        shape = (layers, BATCH, hidden)
        self.inputs += [Port(name, "float32", shape, "of the LSTM; zeros at first") for name in STATES]
        self.inputs.append(Port(START, "bool", (BATCH,), "true at an episode's first step: forgets the state"))
        self.outputs += [Port(name, "float32", shape, "goes in at the next step") for name in _NEXT]

    def act(self, observation: Any, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See Actor. One step of what the policy does with a sequence of any length."""
        *states, start = rest
        kept = (~start).float().reshape(1, -1, 1)
        # As the policy's own get_distribution does: past ActorCriticPolicy's version of the method.
        features = BaseModel.extract_features(self.policy, observation, self.policy.pi_features_extractor)
        latent, after = self.policy.lstm_actor(features.unsqueeze(0), tuple(kept * state for state in states))
        latent = self.policy.mlp_extractor.forward_actor(latent.squeeze(0))
        distribution = self.policy._get_action_dist_from_latent(latent)
        return distribution.get_actions(deterministic=True), *after


def make_actor(agent: Agent, preparation: Preparation) -> Actor:
    """The module for an agent, in the form that its algorithm needs."""
    model = agent.model
    if isinstance(model, RecurrentPPO):
        return RecurrentActor(model, preparation)
    return (MaskedActor if takes_action_masks(model) else Actor)(model, preparation)


def _observation_port(key: str, space: spaces.Space[Any], leaf: _Leaf) -> Port:
    name = f"observation_{key}" if key in _RESERVED else key or "observation"
    told = f"the observation{f' {key}' if key else ''} as the env gives it"
    told += ", channels last" if leaf.transposed else ""
    told += "; normalized inside" if leaf.clip is not None else ""
    return Port(name, str(np.dtype(space.dtype)), (BATCH, *(space.shape or ())), told)


def _action_port(space: spaces.Space[Any]) -> Port:
    dtype = str(np.dtype(space.dtype)) if isinstance(space, spaces.Box) else "int64"
    if isinstance(space, spaces.MultiBinary):
        dtype = "float32"  # as SB3's predict returns it
    return Port(ACTION, dtype, (BATCH, *(space.shape or ())), f"the most likely action, in {_in_words(space)}")


def _in_words(space: spaces.Space[Any]) -> str:
    return " ".join(str(space).split())[:200]
