"""One literal table of algorithms; whatever else is known about them is derived from their classes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from rlrun.errors import UsageError, closest, did_you_mean

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


@dataclass(frozen=True)
class Algorithm:
    """One row of the table.

    :ivar name: what a config's ``algo`` says
    :ivar target: ``module:Class``, imported when first needed
    :ivar actions: names of the Gymnasium action spaces the class accepts
    :ivar observations: and of the observation spaces; empty where SB3's policies read them
    """

    name: str
    target: str
    actions: tuple[str, ...]
    observations: tuple[str, ...] = ()

    def load(self) -> type[BaseAlgorithm]:
        """The SB3 class. Imports torch."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)

    @property
    def is_off_policy(self) -> bool:
        """Whether it learns from a replay buffer."""
        from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

        return issubclass(self.load(), OffPolicyAlgorithm)

    @property
    def is_on_policy(self) -> bool:
        """Whether it learns from rollouts of its newest policy."""
        from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

        return issubclass(self.load(), OnPolicyAlgorithm)

    @property
    def is_episodic(self) -> bool:
        """Whether it plays one episode after the other, so that its budget may be counted in episodes."""
        from rlrun.algorithms.episodic import EpisodicAlgorithm

        try:
            return issubclass(self.load(), EpisodicAlgorithm)
        except (ImportError, AttributeError):  # a plug-in whose package is broken
            return False


_ANY = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")

_TABLE = (
    Algorithm("a2c", "stable_baselines3:A2C", _ANY),
    Algorithm("ppo", "stable_baselines3:PPO", _ANY),
    Algorithm("dqn", "rlrun.algorithms.dqn:DQN", ("Discrete",)),
    Algorithm("sac", "stable_baselines3:SAC", ("Box",)),
    Algorithm("td3", "stable_baselines3:TD3", ("Box",)),
    Algorithm("ddpg", "stable_baselines3:DDPG", ("Box",)),
    Algorithm("tqc", "sb3_contrib:TQC", ("Box",)),
    Algorithm("qrdqn", "sb3_contrib:QRDQN", ("Discrete",)),
    Algorithm("trpo", "sb3_contrib:TRPO", _ANY),
    Algorithm("ars", "rlrun.algorithms.ars:ARS", ("Box", "Discrete")),
    Algorithm("recurrent_ppo", "sb3_contrib:RecurrentPPO", _ANY),
    Algorithm("maskable_ppo", "sb3_contrib:MaskablePPO", ("Discrete", "MultiDiscrete", "MultiBinary")),
    Algorithm("crossq", "sb3_contrib:CrossQ", ("Box",)),
    Algorithm("q_learning", "rlrun.algorithms.q_learning:QLearning", ("Discrete",), ("Discrete",)),
    Algorithm("reinforce", "rlrun.algorithms.reinforce:REINFORCE", _ANY),
)


def algorithms() -> dict[str, Algorithm]:
    """Every algorithm by name: the table's, and those that plug-ins register under ``rlrun.algorithms``."""
    table = {algorithm.name: algorithm for algorithm in _TABLE}
    for point in entry_points(group="rlrun.algorithms"):
        table.setdefault(point.name, Algorithm(point.name, point.value, _ANY))
    return table


def near_algorithm(name: str) -> Algorithm | None:
    """The row that a misspelt name most likely means; None when none is close, or its class cannot be imported."""
    known = algorithms()
    near = closest(name, known)
    if near is None:
        return None
    try:
        known[near].load()
    except (ImportError, AttributeError):
        return None
    return known[near]


def get_algorithm(name: str) -> Algorithm:
    """The row for a name.

    :raises UsageError: for an unknown one
    """
    known = algorithms()
    if name not in known:
        hint = did_you_mean(name, known) or f"Known: {', '.join(known)}."
        raise UsageError(f'there is no algorithm "{name}".', hint)
    return known[name]
