"""The one recipe: the only place where an env is built and wrapped, whatever it is for.

The order, from the inside out::

    gymnasium.make(id, **kwargs)  (with its TimeLimit; a TimeLimit in `wrappers` goes here too)
    Recorder                      SB3's Monitor: the env's own return and length, before any wrapper changes them
    env.wrappers                  in the order of the config
    SeededResets                  gives each reset its seed
    SerialVecEnv or WorkersVecEnv (inside a RestartableVecEnv when training)
    VecFrameStack                 env.frame_stack
    VecTransposeImage             images to channels first, as torch wants them
    Curiosity                     curiosity; when training
    VecNormalize                  normalize; frozen, and rewards left alone, outside training
"""

from __future__ import annotations

import enum
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)

from rlrun.config.classes import import_module, is_class_path, load_class, make_importable
from rlrun.config.schema import Config, CuriosityConfig, EnvConfig, NormalizeConfig
from rlrun.envs.families import c_output_discarded, check_registered, import_family
from rlrun.envs.keywords import keyword_hint
from rlrun.envs.normalization import Statistics, set_statistics
from rlrun.envs.normalizer import Normalizer
from rlrun.envs.recording import RecordedVecEnv, Recorder
from rlrun.envs.seeding import (
    SeededResets,
    Stream,
    draw_seeds,
    endless_seeds,
    generators_preserved,
    seed_global_generators,
)
from rlrun.envs.serial import SerialVecEnv
from rlrun.envs.workers import start_workers
from rlrun.envs.wrappers import KNOWN, check_kwargs, wrapper_class
from rlrun.errors import RlrunError, UsageError
from rlrun.spaces import leaves_of


class Role(enum.Enum):
    """What an env is for."""

    TRAIN = "train"
    EVAL = "eval"
    VIDEO = "video"
    WATCH = "watch"


# Roles in which the env draws itself, and its `render_mode` for them.
_RENDER_MODES = {Role.VIDEO: "rgb_array", Role.WATCH: "human"}
_UNSEEN = {Role.VIDEO: "it cannot be filmed", Role.WATCH: "it cannot be watched"}
_HOW_TO_DRAW = (
    "Let its constructor take `render_mode`, and its `render` return an image (height, width, 3) for `rgb_array`."
)


@dataclass(frozen=True)
class EnvRecipe:
    """All that is needed to build the env of any role, picklable so that workers can build it too.

    :ivar normalize: VecNormalize's settings, gamma included; None when off
    :ivar eval_kwargs: override ``env.kwargs`` outside training
    :ivar import_paths: the user's folders, importable in every process that builds the env
    """

    env: EnvConfig
    normalize: NormalizeConfig | None
    seed: int
    eval_kwargs: dict[str, Any]
    import_paths: tuple[str, ...]
    curiosity: CuriosityConfig | None = None

    @classmethod
    def from_config(cls, config: Config, import_paths: Sequence[str] = ()) -> EnvRecipe:
        """The recipe that a resolved config describes."""
        overridden = config.evaluation.env_kwargs
        return cls(config.env, config.normalize, config.seed, overridden, tuple(import_paths), config.curiosity)

    def single(self) -> EnvRecipe:
        """The same with one env copy, in this process."""
        return replace(self, env=self.env.model_copy(update={"n_envs": 1, "vec": "serial"}))

    def with_vec(self, vec: Literal["serial", "workers"]) -> EnvRecipe:
        """The same envs, stepped elsewhere."""
        return replace(self, env=self.env.model_copy(update={"vec": vec}))

    def make(self, role: Role, seeds: Iterator[int]) -> gym.Env[Any, Any]:
        """One wrapped env.

        :param seeds: for its resets; outside training every reset takes one
        :raises UsageError: for an unknown id, a missing package, or keyword arguments that do not fit
        """
        make_importable(self.import_paths)
        env, seed_every_reset = self._make_bare(role)
        wrappers = [w for w in self.env.wrappers if role is Role.TRAIN or not self._is_training_only(w.name)]
        inside = [w for w in wrappers if w.name in KNOWN and KNOWN[w.name].inside_monitor]
        for wrapper in inside:
            env = self._wrap(env, role, wrapper.name, wrapper.kwargs)
        env = Recorder(env)
        for wrapper in [w for w in wrappers if w not in inside]:
            env = self._wrap(env, role, wrapper.name, wrapper.kwargs)
        return SeededResets(env, seeds, every=seed_every_reset or role is not Role.TRAIN)

    def make_vec(
        self,
        role: Role,
        seeds: Sequence[Iterator[int] | Sequence[int]],
        statistics: Statistics | None = None,
        around: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = None,
    ) -> VecEnv:
        """A vectorised and wrapped env for evaluation or video, in this process.

        :param seeds: for each env copy, the seeds of its resets
        :param statistics: normalization statistics; needed when the config normalizes
        :param around: the outermost wrapper of each copy
        """

        def make(own_seeds: Iterator[int]) -> gym.Env[Any, Any]:
            env = self.make(role, own_seeds)
            return env if around is None else around(env)

        base = SerialVecEnv([partial(make, iter(s)) for s in seeds])
        venv = self._wrap_vec(RecordedVecEnv(base), role)
        normalizer = find_normalizer(venv)
        if normalizer is not None:
            if statistics is None:
                raise RlrunError("This agent needs its normalization statistics, and there are none.")
            set_statistics(normalizer, statistics)
        return venv

    def make_training_vec(self, n_processes: int | None = None) -> tuple[VecEnv, RestartableVecEnv]:
        """The training envs, and the part of them that can be restarted.

        ``env.vec: auto`` is decided before (:mod:`rlrun.envs.vectorisation`); undecided it is serial.

        :param n_processes: that step envs, this one included, if there are workers; None: as many as cores
        :return: the outermost VecEnv, ``env.n_envs`` wide, and its innermost wrapper
        """
        makers = [self.maker(index) for index in range(self.env.n_envs)]
        if self.env.vec == "workers":
            base: VecEnv = start_workers(makers, self.example, self.env.worker_timeout, n_processes)
        else:
            base = SerialVecEnv(makers)
        restartable = RestartableVecEnv(base)
        return self._wrap_vec(restartable, Role.TRAIN), restartable

    def maker(self, index: int) -> Callable[[], gym.Env[Any, Any]]:
        """Builds the training env of one number, which may be rebuilt in its place."""
        return partial(Rebuildable, partial(_make_training_env, self, index))

    def example(self) -> gym.Env[Any, Any]:
        """A training env to look at; building it changes nothing that is drawn elsewhere."""
        with generators_preserved():
            return _make_training_env(self, 0, 0)

    def _wrap_vec(self, venv: VecEnv, role: Role) -> VecEnv:
        if self.env.frame_stack:
            venv = VecFrameStack(venv, self.env.frame_stack)
        if _needs_transpose(venv.observation_space):
            venv = VecTransposeImage(venv)
        if self.curiosity is not None and role is Role.TRAIN:
            from rlrun.envs.curiosity import Curiosity  # imports torch's layers

            venv = Curiosity(venv, self.curiosity, self.seed)
        if self.normalize is None:
            return venv
        settings = self.normalize.model_dump(exclude_none=True)
        if role is not Role.TRAIN:
            settings |= {"training": False, "norm_reward": False}
        return Normalizer(venv, **settings)

    def _make_bare(self, role: Role) -> tuple[gym.Env[Any, Any], bool]:
        """The env as its author made it, and whether every one of its resets must be seeded."""
        kwargs = self.env.kwargs if role is Role.TRAIN else {**self.env.kwargs, **self.eval_kwargs}
        if role in _RENDER_MODES:
            kwargs = {**kwargs, "render_mode": _RENDER_MODES[role]}
        for module in self.env.imports:
            import_module(module)
        env_id = self.env.id
        if is_class_path(env_id):
            cls = load_class(env_id, gym.Env, what="env")
            return _constructed(env_id, partial(cls, **kwargs), role), bool(self.env.seed_every_reset)
        module, _, name = env_id.rpartition(":")
        if module:
            import_module(module)
        family = import_family(name)
        check_registered(name)
        with c_output_discarded(family.prints):
            env = _constructed(env_id, partial(gym.make, name, **kwargs), role)
        if family.prepare is not None:
            family.prepare(env)
        if family.prints:
            env = _QuietResets(env)
        chosen = self.env.seed_every_reset
        return env, family.seed_every_reset if chosen is None else chosen

    @staticmethod
    def _is_training_only(name: str) -> bool:
        return name in KNOWN and KNOWN[name].training_only

    @staticmethod
    def _wrap(env: gym.Env[Any, Any], role: Role, name: str, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        cls = wrapper_class(name)
        overridden = KNOWN[name].outside_training if name in KNOWN and role is not Role.TRAIN else {}
        settings = {**check_kwargs(cls, kwargs), **overridden}
        return _constructed(name, partial(cls, env, **settings))


class _QuietResets(gym.Wrapper[Any, Any, Any, Any]):
    """PyBullet starts at the first reset, and prints from C."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """See gymnasium.Env."""
        with c_output_discarded():
            return self.env.reset(**kwargs)


class Rebuildable(gym.Wrapper[Any, Any, Any, Any]):
    """An env that is thrown away and built anew in its place, and in its process: starting a worker takes seconds.

    :param make: builds it from the number of timesteps at which it starts
    """

    def __init__(self, make: Callable[[int], gym.Env[Any, Any]]) -> None:
        self._make = make
        super().__init__(make(0))

    def rebuild(self, timesteps: int) -> None:
        """Close the env and build a fresh one. Reset it next."""
        self.env.close()
        self.env = self._make(timesteps)


class RestartableVecEnv(RecordedVecEnv):
    """Envs that can be thrown away and built anew while everything wrapped around them stays."""

    def restart(self, timesteps: int) -> None:
        """Build fresh envs, whose resets are seeded by ``timesteps``. Reset them next."""
        self.venv.env_method("rebuild", timesteps)


def _make_training_env(recipe: EnvRecipe, index: int, cut: int) -> gym.Env[Any, Any]:
    # Some envs draw from the global generators while they are built. In a worker nobody else seeds them either.
    seed_global_generators(draw_seeds(recipe.seed, Stream.TRAIN_ENVS, 1, cut, index, 0)[0])
    return recipe.make(Role.TRAIN, endless_seeds(recipe.seed, Stream.TRAIN_ENVS, cut, index))


def find_normalizer(venv: VecEnv | None) -> VecNormalize | None:
    """The VecNormalize around an env, if there is one. It is the outermost wrapper."""
    return venv if isinstance(venv, VecNormalize) else None


def max_episode_steps(env: gym.Env[Any, Any]) -> int | None:
    """The time limit of a wrapped env, in its own steps; None when it has none."""
    limits = []
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, gym.wrappers.TimeLimit):
            limits.append(layer._max_episode_steps)
        layer = layer.env
    return min(limits, default=None)


def _needs_transpose(space: spaces.Space[Any]) -> bool:
    leaves = leaves_of(space).values()
    return any(is_image_space(leaf) and not is_image_space_channels_first(leaf) for leaf in leaves)  # type: ignore[arg-type]


def _constructed(name: str, make: partial[Any], role: Role = Role.TRAIN) -> Any:
    """Build an env or wrapper; what its code raises is reported in one sentence.

    :param role: of an env; a wrapper has none
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return make()
    except TypeError as error:
        keyword = str(error).rpartition("argument ")[2].strip("'").split("'")[0]
        takes_nothing = "takes no arguments" in str(error)
        if role in _RENDER_MODES and (keyword == "render_mode" or (takes_nothing and len(make.keywords) == 1)):
            raise UsageError(f"{name} takes no `render_mode`, so {_UNSEEN[role]}.", _HOW_TO_DRAW) from None
        if "unexpected keyword argument" in str(error):
            raise UsageError(f'{name} has no keyword "{keyword}".', keyword_hint(name, keyword)) from None
        if takes_nothing:
            raise UsageError(f"{name} takes no keyword arguments.", "Leave `env.kwargs` out.") from None
        raise UsageError(f"{name} could not be built: {error}") from error
    except RlrunError:
        raise
    except Exception as error:  # an env's constructor may raise anything; it is the user's to mend
        raise UsageError(f"{name} could not be built: {type(error).__name__}: {error}") from error


def fixed_seeds(seeds: Sequence[int], n_envs: int) -> list[list[int]]:
    """Episode seeds dealt to env copies in turn: copy k plays episodes k, k + n_envs, ..."""
    return [list(itertools.islice(seeds, index, None, n_envs)) for index in range(n_envs)]
