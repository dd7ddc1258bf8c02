"""Env ids and wrappers as RL Baselines3 Zoo writes them, and what they are here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rlrun.envs.families import family_of
from rlrun.envs.wrappers import KNOWN

_MUJOCO = "HalfCheetah|Hopper|HumanoidStandup|InvertedDoublePendulum|InvertedPendulum|Pusher|Reacher|Swimmer|Walker2d"
# Removed ids whose successor is the same task: pattern, successor, what is different.
_SUCCESSORS = (
    (rf"({_MUJOCO})-v[123]", r"\1-v4", "on today's MuJoCo"),
    (r"(Panda\w+)-v[12]", r"\1-v3", "for Gymnasium"),
    (r"(LunarLander(?:Continuous)?)-v[12]", r"\1-v3", "with a mended reset of the wind, which is off"),
    (r"(Pendulum)-v0", r"\1-v1", "with simpler equations"),
)
# RL Zoo registers these envs itself, without the entries of the observation that are velocities.
_VELOCITIES = {
    "CartPole": [1, 3],
    "MountainCar": [1],
    "MountainCarContinuous": [1],
    "Pendulum": [2],
    "LunarLander": [2, 3, 5],
    "LunarLanderContinuous": [2, 3, 5],
}
_RENAMED = {
    "YAMLCompatResizeObservation": "ResizeObservation",
    "GrayScaleObservation": "GrayscaleObservation",
}
_SAME_PACKAGE = {"gym": "gymnasium", "gym_minigrid": "minigrid"}
# RL Zoo's own wrappers that rlrun has under the same name or another.
_ZOO_MODULES = ("rl_zoo3.wrappers", "utils.wrappers")
_FROM_ZOO = ("FrameSkip", "ResizeObservation", "TimeFeatureWrapper")
_SKIPPING = {"AtariWrapper": "frame_skip", "MaxAndSkipEnv": "skip"}


@dataclass(frozen=True)
class ZooEnv:
    """An env of RL Zoo's, as a config writes it.

    :ivar name: RL Zoo's id, or its successor's
    :ivar id: of the env that is made
    :ivar wrappers: that make it the env of that name
    :ivar note: what is not as RL Zoo's id says; empty when all is
    """

    name: str
    id: str
    wrappers: tuple[Any, ...] = ()
    note: str = ""


def zoo_env(env_id: str) -> ZooEnv:
    """What an id of RL Zoo's is here."""
    base, no_velocity, version = env_id.rpartition("NoVel-v")
    if no_velocity and base in _VELOCITIES:
        plain, note = _current(f"{base}-v{version}")
        name = plain.replace("-v", "NoVel-v")
        masked = f"RL Zoo's {env_id} is {plain} without its velocities: MaskObservation sets them to zero."
        return ZooEnv(name, plain, ({"MaskObservation": {"indices": _VELOCITIES[base]}},), f"{masked} {note}".strip())
    current, note = _current(env_id)
    return ZooEnv(current, current, (), note)


def _current(env_id: str) -> tuple[str, str]:
    for pattern, successor, how in _SUCCESSORS:
        if re.fullmatch(pattern, env_id):
            current = re.sub(pattern, successor, env_id)
            return current, f"RL Zoo says {env_id}, which is gone; {current} is the same task {how}."
    return env_id, ""


def is_atari(env_id: str) -> bool:
    """Whether RL Zoo's section ``atari`` is for this env."""
    return family_of(env_id).name == "Atari"


def zoo_wrapper(entry: Any, env_id: str = "") -> Any:
    """``package.module.Class``, alone or as ``{package.module.Class: {keyword: value}}``, as a config writes it.

    :param env_id: of the env that is wrapped; ALE's own skip frames already
    """
    if isinstance(entry, dict) and len(entry) == 1:
        ((path, kwargs),) = entry.items()
        name, given = _wrapper_name(str(path)), dict(kwargs) if isinstance(kwargs, dict) else {}
    else:
        name, given = _wrapper_name(str(entry)), {}
    if name == "rl_zoo3.wrappers:MaskVelocityWrapper" and (base := env_id.partition("-v")[0]) in _VELOCITIES:
        name, given = "MaskObservation", {"indices": _VELOCITIES[base]}
    if env_id.startswith("ALE/") and name in _SKIPPING:
        given = {_SKIPPING[name]: 1, **given}
    return {name: given} if given else name


def _wrapper_name(path: str) -> str:
    module, _, name = path.rpartition(".")
    name = _RENAMED.get(name, name)
    if module in _ZOO_MODULES:
        return name if name in _FROM_ZOO else f"rl_zoo3.wrappers:{name}"
    package = module.partition(".")[0]
    package = _SAME_PACKAGE.get(package, package)
    if name in KNOWN and KNOWN[name].module.partition(".")[0] == package:
        return name
    return f"{module}:{name}"
