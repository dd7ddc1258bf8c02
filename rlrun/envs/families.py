"""Env families as data: what must be imported, what must be seeded, how the family is usually evaluated."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import gymnasium as gym

from rlrun.config.classes import load_plug_in
from rlrun.errors import MissingPackage, UsageError, did_you_mean, install_hint


@dataclass(frozen=True)
class Family:
    """One kind of env.

    :ivar pattern: matches the whole env id
    :ivar module: importing it registers the envs; None when Gymnasium has them
    :ivar extra: the extra of rlrun that installs what is needed; empty when the plain install does
    :ivar seed_every_reset: the envs draw fresh entropy at each reset, so each must be seeded
    :ivar prints: its C code writes banners to stdout, which are thrown away
    :ivar deterministic_evaluation: whether agents are usually evaluated by their most likely action
    :ivar drawing: what to do where the envs cannot draw themselves
    :ivar prepare: called with every env that was built, before its first reset
    """

    name: str
    pattern: str
    module: str | None = None
    extra: str = ""
    seed_every_reset: bool = False
    deterministic_evaluation: bool = True
    prints: bool = False
    drawing: str = ""
    prepare: Callable[[gym.Env[Any, Any]], None] | None = None


def _order_contacts(env: gym.Env[Any, Any]) -> None:
    """Have PyBullet solve contacts in a fixed order.

    Otherwise the order follows from addresses in memory. With an arm that touches the table, 2 of 100 runs with the
    same actions then differ in the last digits.
    """
    simulation: Any = getattr(env.unwrapped, "sim", None)
    if hasattr(simulation, "physics_client"):  # an env of another's may be named like these
        simulation.physics_client.setPhysicsEngineParameter(deterministicOverlappingPairs=1)


_TABLE = (
    Family("classic control", r"(CartPole|MountainCar|MountainCarContinuous|Pendulum|Acrobot)-v\d+"),
    Family("Box2D", r"(LunarLander|LunarLanderContinuous|BipedalWalker|BipedalWalkerHardcore|CarRacing)-v\d+", "Box2D"),
    Family("toy text", r"(FrozenLake|FrozenLake8x8|Taxi|CliffWalking|CliffWalkingSlippery|Blackjack)-v\d+"),
    Family("Pixelcopter", r"Pixelcopter-v\d+", "rlrun.envs.pixelcopter"),
    Family(
        "Panda",
        r"Panda\w+-v\d+",
        "panda_gym",
        "panda",
        seed_every_reset=True,
        prints=True,
        prepare=_order_contacts,
    ),
    Family("Atari", r"(ALE/\w+|\w+(NoFrameskip|Deterministic))-v\d+", "ale_py", deterministic_evaluation=False),
    Family("PyBullet", r"\w+BulletEnv-v\d+", "pybullet_envs_gymnasium", "bullet", prints=True),
    Family(
        "MuJoCo",
        r"(Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|InvertedDoublePendulum|InvertedPendulum|Pusher|Reacher"
        r"|Swimmer|Walker2d)-v\d+",
        "mujoco",
        "mujoco",
        drawing="MuJoCo draws with OpenGL: without a display it needs EGL (libegl1) or OSMesa (libosmesa6).",
    ),
    Family("MiniGrid", r"(MiniGrid|BabyAI)-.+-v\d+", "minigrid", "minigrid", deterministic_evaluation=False),
)
_OWN = Family("user's own", r".*")


@functools.cache
def _plug_ins() -> tuple[Family, ...]:
    return tuple(load_plug_in(point) for point in entry_points(group="rlrun.envs"))


def family_of(env_id: str) -> Family:
    """The family an id belongs to: the table's, a plug-in's (entry points ``rlrun.envs``), or the user's own.

    :raises UsageError: when a plug-in is broken and the table has no such family
    """
    return _matching(_TABLE, env_id) or _matching(_plug_ins(), env_id) or _OWN


def _matching(families: Iterable[Family], env_id: str) -> Family | None:
    return next((family for family in families if re.fullmatch(family.pattern, env_id)), None)


@contextlib.contextmanager
def c_output_discarded(discard: bool = True) -> Iterator[None]:
    """Throw away what C code prints meanwhile."""
    if not discard:
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = {number: os.dup(number) for number in (1, 2)}, os.open(os.devnull, os.O_WRONLY)
    try:
        for number in kept:
            os.dup2(nowhere, number)
        yield
    finally:
        _flush_c_output()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def _flush_c_output() -> None:
    """C keeps what it prints in a buffer of its own."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)


def import_family(env_id: str) -> Family:
    """Import what registers an env.

    :raises MissingPackage: when its package is not installed, with the command that installs it
    """
    family = family_of(env_id)
    if family.module:
        try:
            with c_output_discarded(family.prints):
                importlib.import_module(family.module)
        except ImportError as error:
            message = f"{env_id} needs the module {family.module}, which cannot be imported ({error})."
            raise MissingPackage(message, install_hint(family.extra)) from None
    if family.module == "ale_py":
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner for every env
    return family


def check_registered(env_id: str) -> None:
    """Raise UsageError with the successor's name for a removed id, or the nearest name for an unknown one."""
    name, _, version = env_id.rpartition("-v")
    if env_id in gym.registry and not _is_removed(env_id):
        return
    newer = sorted((spec.version or 0, spec.id) for spec in gym.registry.values() if _base(spec.id) == name)
    if version.isdigit() and newer:
        successor = newer[-1][1]
        older = int(version) < newer[-1][0]
        what = f"{env_id} was removed from its package" if older else f"there is no {env_id}"
        raise UsageError(
            f"{what}; {'its successor' if older else 'the newest version'} is {successor}.", f"Use id: {successor}"
        )
    hint = (
        did_you_mean(env_id, gym.registry)
        or "A module that registers it goes into `env.imports`, or as `module:Id-v0`."
    )
    raise UsageError(f'there is no env "{env_id}".', hint)


def _is_removed(env_id: str) -> bool:
    """Gymnasium keeps the ids of MuJoCo's oldest envs, to say that they are gone when they are built."""
    return family_of(env_id).name == "MuJoCo" and re.search(r"-v[23]$", env_id) is not None


def _base(env_id: str) -> str:
    return env_id.rpartition("-v")[0]
