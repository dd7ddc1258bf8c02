"""What a learner carries besides its networks: counters, episode statistics, replay buffer.

The networks, targets and optimisers are in ``model.zip``, which SB3 writes and :mod:`rlrun.runs.archive` reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from sb3_contrib import ARS
from stable_baselines3.common.base_class import BaseAlgorithm

from rlrun.errors import UsageError

# Without any one of these a resumed run diverges from one that was left alone.
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate", "old_count")
_EPISODE_STATISTICS = ("ep_info_buffer", "ep_success_buffer")
_VARIABLES = "pytorch_variables"


def get_learner_state(model: BaseAlgorithm) -> dict[str, Any]:
    """Counters and episode statistics, as plain JSON."""
    state: dict[str, Any] = {name: _plain(getattr(model, name)) for name in _COUNTERS if hasattr(model, name)}
    for name in _EPISODE_STATISTICS:
        state[name] = [_plain(item) for item in getattr(model, name) or ()]
    return state


def set_learner_state(model: BaseAlgorithm, state: dict[str, Any]) -> None:
    """Put counters and episode statistics into a fresh model of the same config."""
    for name in _COUNTERS:
        if name in state:
            setattr(model, name, state[name])
    for name in _EPISODE_STATISTICS:
        setattr(model, name, deque(state[name], maxlen=model._stats_window_size))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.item() if hasattr(value, "item") else value


def _difference(ours: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    """The first tensor in which two networks differ: torch names all of them. Empty where they are alike."""
    for name in {**saved, **ours}:
        if name not in ours or name not in saved:
            return f'only {"the saved networks" if name in saved else "its own"} have a "{name}".'
        shapes = [getattr(side[name], "shape", None) for side in (saved, ours)]
        if shapes[0] != shapes[1]:
            return f'"{name}" has the shape {tuple(shapes[0] or ())} and not {tuple(shapes[1] or ())}.'
    return ""


def set_tensors(model: BaseAlgorithm, tensors: dict[str, Any], only_policy: bool = False) -> None:
    """Load networks, optimisers and other variables into a model of the same shape.

    :param only_policy: leave optimisers and other variables as they are
    :raises UsageError: when the networks differ from the model's
    """
    variables = tensors.get(_VARIABLES) or {}
    parameters = {name: value for name, value in tensors.items() if name != _VARIABLES}
    try:
        if only_policy:
            # Strict, as SB3's set_parameters is not when only a part is given.
            model.policy.load_state_dict(parameters["policy"], strict=True)
        else:
            model.set_parameters(parameters, exact_match=True, device=model.device)
            for name, value in variables.items():
                getattr(model, name).data = value.data
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        difference = _difference(model.policy.state_dict(), parameters.get("policy") or {}) if only_policy else ""
        reason = difference or " ".join(str(error).split())[:300]
        raise UsageError(
            f"The saved networks do not fit this config: {reason}", "Use the config they were trained with."
        ) from None
    if isinstance(model, ARS):
        ars: Any = model
        ars.weights = torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
