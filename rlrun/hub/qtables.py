"""The course's Q-tables: ``q-learning.pkl``, a pickled dict with an env id and an array."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlrun.config.schema import EnvConfig
from rlrun.envs.recipe import EnvRecipe
from rlrun.envs.seeding import Stream, draw_seeds
from rlrun.errors import UsageError
from rlrun.evaluation.evaluate import evaluate
from rlrun.evaluation.statistics import Evaluation
from rlrun.publish.card import BOARD_IDS
from rlrun.runs.pickles import read_pickle

FILE = "q-learning.pkl"
_SUCCESSORS = {old: new for new, old in BOARD_IDS.items()}  # Gymnasium took the old ids away


@dataclass(frozen=True)
class QTable:
    """An agent that takes the best action of a table.

    :ivar values: (states, actions)
    """

    env: EnvConfig
    values: np.ndarray

    def predict(self, observations: np.ndarray, **_: Any) -> tuple[np.ndarray, None]:
        """The best action in each state."""
        return np.argmax(self.values[np.asarray(observations, dtype=int)], axis=-1), None

    def evaluate(self, episodes: int, seed: int) -> Evaluation:
        """Play episodes; see :func:`rlrun.evaluation.evaluate.evaluate`."""
        recipe = EnvRecipe(self.env, None, seed, {}, ())
        seeds = draw_seeds(seed, Stream.EVALUATION, episodes)
        agent: Any = self
        return evaluate(agent, recipe, None, seeds, deterministic=True)


def read_qtable(path: Path, named: str | None, env: str | None) -> QTable:
    """Read a table, without running anything of the pickle.

    :param named: the env's id in the card, which also says the map: ``FrozenLake-v1-4x4-no_slippery``
    :param env: the env's id, instead of what the files say
    :raises UsageError: when the file holds no Q-table
    """
    value = read_pickle(path.read_bytes(), str(path))
    table = value.get("qtable") if isinstance(value, dict) else None
    if not isinstance(table, np.ndarray) or table.ndim != 2:
        raise UsageError(f"{path} holds no Q-table.", "The course's files hold a dict with `qtable`, an array.")
    env_id = env or str(value.get("env_id") or named or "")
    if not env_id:
        raise UsageError(f"Nothing says which env {path} is for.", "Give --env.")
    if env is None and ":" in env_id:
        raise UsageError(f"{path} names a module to import: {env_id}.", "If you trust it, give it with --env.")
    kwargs: dict[str, Any] = {}
    if env_id.startswith("FrozenLake"):
        slippery = value.get("slippery")
        is_slippery = slippery if isinstance(slippery, bool) else "no_slippery" not in str(named or "")
        kwargs = {"is_slippery": is_slippery, "map_name": "8x8" if table.shape[0] == 64 else "4x4"}
    config = EnvConfig(id=_SUCCESSORS.get(env_id, env_id), kwargs=kwargs)
    return QTable(config, table)
