"""Does an exported graph do what the agent does? Both are given the same observations, and compared."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm

from rlrun.envs.seeding import Stream, draw_seeds, generators_preserved, seed_global_generators
from rlrun.errors import RlrunError
from rlrun.evaluation.evaluate import takes_action_masks
from rlrun.publish.actor import ACTION, MASKS, START, STATES, Actor, Preparation
from rlrun.runs.load import Agent

ENVS, OBSERVATIONS = 8, 1_000
_TOLERANCE = 1e-4  # of a continuous action, in parts of its range where that is wider than 1
_TIE = 1e-5  # between the scores of two discrete actions, in parts of the score where that is larger than 1

Graph = Callable[[dict[str, np.ndarray]], list[np.ndarray]]  # inputs by name -> outputs in their order


@dataclass(frozen=True)
class Parity:
    """How far a graph is from its agent.

    :ivar observations: how many were compared
    :ivar largest_difference: between two numbers of the outputs, absolute
    :ivar differing_actions: of a discrete kind, each between two that are as good as equal; None for a Box
    """

    observations: int
    largest_difference: float
    differing_actions: int | None

    def __str__(self) -> str:
        found = f"{self.observations:,} observations"
        if self.differing_actions is None:
            return f"{found}, largest difference to SB3 {self.largest_difference:.2g}"
        return f"{found}, {self.differing_actions} actions differ from SB3's"


def measure(agent: Agent, actor: Actor, preparation: Preparation, graph: Graph) -> Parity:
    """Play the agent's env, half of the time with random actions, and compare every action.

    :raises RlrunError: when the graph does something else than the agent
    """
    seed = draw_seeds(agent.config.seed, Stream.POLICY, 1)[0]
    with generators_preserved(), torch.no_grad():
        seed_global_generators(seed)
        return _Comparison(agent.model, actor, preparation, graph).play(seed)


class _Comparison:
    def __init__(self, model: BaseAlgorithm, actor: Actor, preparation: Preparation, graph: Graph) -> None:
        self._model, self._actor, self._graph = model, actor, graph
        self._prepare, self._raw = preparation, preparation.raw
        self._discrete = not isinstance(model.action_space, spaces.Box)
        self._largest, self._differing = 0.0, 0
        self._state: Any = None

    def play(self, seed: int) -> Parity:
        space = deepcopy(self._raw.action_space)
        space.seed(seed)
        observation: Any = self._raw.reset()
        starts, compared, masked = np.ones(ENVS, dtype=bool), 0, takes_action_masks(self._model)
        while compared < OBSERVATIONS:
            actions = self._step(observation, starts, masked)
            compared += ENVS
            if not masked and (compared // ENVS) % 2:
                actions = np.stack([space.sample() for _ in range(ENVS)])
            observation, _, starts, _ = self._raw.step(actions)
        return Parity(compared, self._largest, self._differing if self._discrete else None)

    def _step(self, observation: Any, starts: np.ndarray, masked: bool) -> np.ndarray:
        """Compare one observation of each env; what SB3 does."""
        masks = {"action_masks": np.stack(self._raw.env_method("action_masks"))} if masked else {}
        inputs = self._inputs(observation, starts, masks.get("action_masks"))
        prepared, before = self._prepare(observation), self._state
        actions, self._state = self._model.predict(
            prepared, state=before, episode_start=starts, deterministic=True, **masks
        )
        expected = [actions, *(self._state or ())]
        for start, stop in ((0, 1), (1, ENVS)):  # two sizes of a batch: it must not matter
            parts = {port.name: port.part(inputs[port.name], start, stop) for port in self._actor.inputs}
            outputs = dict(zip((port.name for port in self._actor.outputs), self._graph(parts), strict=True))
            for port, values in zip(self._actor.outputs, expected, strict=True):
                wanted = port.part(values, start, stop)
                if port.name == ACTION and self._discrete:
                    rows = _rows(prepared, start, stop)
                    allowed = None if masks == {} else masks["action_masks"][start:stop]
                    self._compare_choices(outputs[port.name], wanted, rows, allowed)
                else:
                    self._compare_numbers(outputs[port.name], wanted, port.name == ACTION)
        return actions

    def _inputs(self, observation: Any, starts: np.ndarray, masks: np.ndarray | None) -> dict[str, np.ndarray]:
        """All of the graph's inputs, by name."""
        ports = self._actor.inputs
        parts = [observation[key] for key in self._actor.keys] if isinstance(observation, dict) else [observation]
        found = {port.name: np.asarray(part) for port, part in zip(ports, parts, strict=False)}
        if masks is not None:
            found[MASKS] = masks.astype(bool)
        for index, port in enumerate(port for port in ports if port.name in STATES):
            zeros = np.zeros([ENVS if length == "batch" else int(length) for length in port.shape], np.float32)
            found[port.name] = zeros if self._state is None else self._state[index]
        return {**found, START: starts}

    def _compare_numbers(self, got: np.ndarray, wanted: np.ndarray, is_action: bool) -> None:
        scale = np.maximum(1.0, np.abs(wanted))
        if is_action:
            space: Any = self._model.action_space
            bounds = np.maximum(np.abs(space.low), np.abs(space.high))
            scale = np.maximum(scale, np.where(np.isfinite(bounds), bounds, 1.0))
        same = got.shape == wanted.shape and got.dtype == wanted.dtype
        difference = np.abs(got.astype(float) - wanted) if same else np.array(np.inf)
        self._largest = max(self._largest, float(difference.max()))
        if not (difference <= _TOLERANCE * scale).all():  # NaN is no match either
            raise _refused(f"an action or state is off by {difference.max():.3g}")

    def _compare_choices(self, got: np.ndarray, wanted: np.ndarray, observation: Any, masks: Any) -> None:
        if got.shape != wanted.shape:
            raise _refused(f"its actions have shape {got.shape}, not {wanted.shape}")
        rows = np.flatnonzero((got != wanted).reshape(len(got), -1).any(axis=1))
        if not len(rows):
            return
        scores = _scores(self._model, observation, masks)
        for row in rows:
            ours, theirs = (np.ravel(np.asarray(actions[row])).astype(int) for actions in (got, wanted))
            if scores is None or not _are_ties([score[row] for score in scores], ours, theirs):
                raise _refused(f"where SB3 chooses {theirs.tolist()} it chooses {ours.tolist()}")
        self._differing += len(rows)
        self._largest = max(self._largest, float(np.abs(got.astype(float) - wanted).max()))


def _rows(observation: Any, start: int, stop: int) -> Any:
    if isinstance(observation, dict):
        return {key: values[start:stop] for key, values in observation.items()}
    return observation[start:stop]


def _are_ties(scores: list[np.ndarray], ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the one choice is as good as the other, in every dimension of the action."""
    pairs = [(score[a], score[b]) for score, a, b in zip(scores, ours, theirs, strict=True)]
    return all(abs(a - b) <= _TIE * max(1.0, abs(b)) for a, b in pairs)


def _scores(model: BaseAlgorithm, observation: Any, masks: Any) -> list[np.ndarray] | None:
    """What discrete actions are chosen by: for each dimension (batch, choices); None where that is not known."""
    policy: Any = model.policy
    tensor, _ = policy.obs_to_tensor(observation)
    if isinstance(model, QRDQN):
        return [policy.quantile_net(tensor).mean(dim=1).numpy()]
    if isinstance(model, DQN):
        return [policy.q_net(tensor).numpy()]
    if isinstance(model, ARS):
        return [policy.action_net(policy.extract_features(tensor, policy.features_extractor)).numpy()]
    try:
        found = policy.get_distribution(tensor, *(() if masks is None else (masks,)))
    except (AttributeError, TypeError):  # a recurrent policy, or one of the user's own
        return None
    chosen = getattr(found, "distributions", None) or getattr(found, "distribution", None)
    chosen = chosen if isinstance(chosen, list | tuple) else [chosen]
    if isinstance(model.action_space, spaces.MultiBinary) and masks is None:
        (bernoulli,) = chosen  # each bit has one number: the logit of a 1
        logits = bernoulli.logits.numpy()
        return [np.stack([np.zeros_like(column), column], axis=1) for column in logits.T]
    return [distribution.logits.numpy() for distribution in chosen]


def _refused(what: str) -> RlrunError:
    message = f"The graph does not do what the agent does: {what}."
    return RlrunError(
        message, "Nothing was written; a policy class that acts on plain tensor operations can be exported."
    )
