"""Env wrappers by name. Each row says where the class is and what differs outside training."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from rlrun.config.classes import load_class
from rlrun.config.signatures import convert, keyword_parameters
from rlrun.errors import UsageError, did_you_mean, shown


@dataclass(frozen=True)
class KnownWrapper:
    """A wrapper that a config names without a module path.

    :ivar module: imported when used
    :ivar outside_training: keyword arguments that evaluation and video override
    :ivar training_only: left out of evaluation and video altogether
    :ivar inside_monitor: applied before episodes are recorded, because it decides where they end
    """

    module: str
    outside_training: Mapping[str, Any] = field(default_factory=dict)
    training_only: bool = False
    inside_monitor: bool = False


_SB3_ATARI = "stable_baselines3.common.atari_wrappers"
KNOWN: dict[str, KnownWrapper] = {
    "AtariWrapper": KnownWrapper(_SB3_ATARI, {"terminal_on_life_loss": False, "clip_reward": False}),
    "NoopResetEnv": KnownWrapper(_SB3_ATARI),
    "FireResetEnv": KnownWrapper(_SB3_ATARI),
    "MaxAndSkipEnv": KnownWrapper(_SB3_ATARI),
    "StickyActionEnv": KnownWrapper(_SB3_ATARI),
    "WarpFrame": KnownWrapper(_SB3_ATARI),
    "EpisodicLifeEnv": KnownWrapper(_SB3_ATARI, training_only=True),
    "ClipRewardEnv": KnownWrapper(_SB3_ATARI, training_only=True),
    "TimeFeatureWrapper": KnownWrapper("sb3_contrib.common.wrappers"),
    "ActionMasker": KnownWrapper("sb3_contrib.common.wrappers"),
    "TimeLimit": KnownWrapper("gymnasium.wrappers", inside_monitor=True),
    **dict.fromkeys(
        (
            "ClipAction",
            "DtypeObservation",
            "FilterObservation",
            "FlattenObservation",
            "GrayscaleObservation",
            "MaxAndSkipObservation",
            "RescaleAction",
            "RescaleObservation",
            "ResizeObservation",
            "StickyAction",
            "TimeAwareObservation",
        ),
        KnownWrapper("gymnasium.wrappers"),
    ),
    **dict.fromkeys(("FrameSkip", "MaskObservation"), KnownWrapper("rlrun.envs.own_wrappers")),
    **dict.fromkeys(
        ("ImgObsWrapper", "FlatObsWrapper", "FullyObsWrapper", "RGBImgObsWrapper", "RGBImgPartialObsWrapper"),
        KnownWrapper("minigrid.wrappers"),
    ),
}


def wrapper_class(name: str) -> type[gym.Wrapper[Any, Any, Any, Any]]:
    """The class for an allow-listed name or ``module:Class``.

    :raises UsageError: when there is none
    """
    if name in KNOWN:
        try:
            return getattr(importlib.import_module(KNOWN[name].module), name)
        except ImportError as error:
            raise UsageError(f'the wrapper "{name}" cannot be imported ({error}).', "Install its package.") from None
    if ":" not in name:
        hint = did_you_mean(name, KNOWN) or "Write your own as `module:Class`."
        raise UsageError(f'there is no wrapper "{name}".', hint)
    return load_class(name, gym.Wrapper, what="wrapper")


def check_kwargs(cls: type, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A wrapper's keyword arguments, converted to its annotations.

    :raises UsageError: for one it does not take, or a value that does not fit
    """
    parameters = {name: p for name, p in keyword_parameters(cls).items() if name != "env"}
    result = {}
    for name, value in kwargs.items():
        if name not in parameters:
            hint = did_you_mean(name, parameters) or f"It takes: {', '.join(parameters) or 'none'}."
            raise UsageError(f'{cls.__name__} has no keyword "{name}".', hint)
        try:
            result[name] = _converted(value, parameters[name])
        except TypeError as error:
            raise UsageError(f"{cls.__name__}'s {name} must be {error}, not {shown(value)}.") from None
    return result


def _converted(value: Any, parameter: inspect.Parameter) -> Any:
    """A value as its annotation wants it; what YAML cannot write is the wrapper's own to check."""
    try:
        return convert(value, parameter.annotation)
    except TypeError as error:
        if any(word in str(error) for word in ("number", "true or false", "a string")):
            raise
        return np.asarray(value) if "ndarray" in str(parameter.annotation) and isinstance(value, list) else value
