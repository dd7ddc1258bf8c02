"""Which keyword arguments an env takes: for the hint to one that it does not."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from rlrun.config.classes import is_class_path, load_class
from rlrun.config.signatures import keyword_parameters
from rlrun.errors import did_you_mean

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def keyword_hint(env_id: str, keyword: str) -> str:
    """The keyword that was most likely meant, or else all that there are.

    :param env_id: a registered id, ``module:Id-v0`` or ``module:Class``, imported before
    """
    try:
        known = _keywords_of(env_id)
    except Exception:  # the error is another one, and what is not found here only leaves its hint shorter
        known = []
    if not known:
        return "Look at `env.kwargs` (and `evaluation.env_kwargs`)."
    return did_you_mean(keyword, known) or f"It takes: {', '.join(known)}."


def _keywords_of(env_id: str) -> list[str]:
    make: Any
    if is_class_path(env_id):
        make = load_class(env_id, gym.Env)
    else:
        make = gym.spec(env_id.rpartition(":")[2]).entry_point
        make = load_env_creator(make) if isinstance(make, str) else make
    if isinstance(make, type):
        return list(keyword_parameters(make))
    return [name for name, parameter in inspect.signature(make).parameters.items() if parameter.kind in _NAMED]
