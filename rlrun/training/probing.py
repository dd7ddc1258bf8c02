"""The env of a config, built once as training and evaluation will have it: what it shows, and what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from rlrun.accelerate.frames import stack_of
from rlrun.algorithms.crosschecks import EnvFacts
from rlrun.config.loading import NO_ENV, Source
from rlrun.config.schema import Config, EnvConfig
from rlrun.config.yaml import KeyPath
from rlrun.envs.recipe import EnvRecipe, Role, max_episode_steps
from rlrun.errors import MissingPackage, Problem, UsageError, did_you_mean

_SKIPPING = {"AtariWrapper": "frame_skip", "MaxAndSkipEnv": "skip", "MaxAndSkipObservation": "skip"}


def probe(
    source: Source, config: Config, import_paths: tuple[str, ...]
) -> tuple[EnvFacts | None, VecEnv | None, list[Problem]]:
    """Build the env once as training and evaluation will have it, and close it again.

    :return: what it showed, the closed env, and problems; the first two are None when it could not be built
    """
    if config.env.id == NO_ENV:
        return None, None, []  # the schema says what is wrong
    recipe = EnvRecipe.from_config(config, import_paths)
    env = config.env
    try:
        single = recipe.make(Role.TRAIN, iter(()))
    except UsageError as error:
        problem = source.problem(_env_path(config, error), error.message, error.hint)
        return None, None, [replace(problem, is_missing_package=isinstance(error, MissingPackage))]
    with single:
        if problems := _normalization(source, config, single):
            return None, None, problems
        problems = [*_atari_frame_skip(source, env, single), *_statistics_of_their_own(source, env, single)]
        steps = max_episode_steps(single)
        masks = single.has_wrapper_attr("action_masks")
    try:
        # One copy is enough to know the spaces.
        venv, _ = recipe.single().make_training_vec()
        venv.close()
    except ValueError as error:
        return None, None, [*problems, source.problem(("normalize",), " ".join(str(error).split()))]
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        message = f"the env cannot be vectorised: {' '.join(str(error).split())}"
        return None, None, [*problems, source.problem(("env",), message)]
    if config.evaluation.env_kwargs:
        try:
            recipe.make(Role.EVAL, iter(())).close()
        except UsageError as error:
            problems.append(source.problem(("evaluation", "env_kwargs"), error.message))
    stack = stack_of(venv) if config.accelerate != "off" else None
    facts = EnvFacts(venv.observation_space, venv.action_space, steps, env.n_envs, masks, stack)
    return facts, venv, problems


def _normalization(source: Source, config: Config, single: gym.Env[Any, Any]) -> list[Problem]:
    if config.normalize is None:
        return []
    space = single.observation_space
    if config.normalize.norm_obs and not isinstance(space, spaces.Box | spaces.Dict):
        message = f"observations of kind {type(space).__name__} are not numbers to normalize."
        return [source.problem(("normalize",), message, "Leave it out, or set normalize.norm_obs: false.")]
    keys = config.normalize.norm_obs_keys or ()
    known = list(space.spaces) if isinstance(space, spaces.Dict) else []
    path = ("normalize", "norm_obs_keys")
    if keys and not known:
        return [source.problem(path, "the observations have no keys: they are no Dict.", "Leave it out.")]
    return [
        source.problem(
            path, f'the observations have no key "{key}".', did_you_mean(key, known) or f"Keys: {', '.join(known)}."
        )
        for key in keys
        if key not in known
    ]


def _env_path(config: Config, error: UsageError) -> KeyPath:
    """The key that most likely caused an env not to be built."""
    for index, name in enumerate(config.env.imports):
        if f'"{name}"' in error.message:
            return ("env", "imports", index)
    for index, wrapper in enumerate(config.env.wrappers):
        module, _, name = wrapper.name.rpartition(":")
        if name in error.message or (module and f'"{module}"' in error.message):
            return ("env", "wrappers", index)
    for name in config.env.kwargs:
        is_only_one = len(config.env.kwargs) == 1 and "could not be built" in error.message
        if is_only_one or f'has no keyword "{name}"' in error.message or "takes no keyword" in error.message:
            return ("env", "kwargs", name)
    return ("env", "kwargs") if "keyword" in error.message else ("env", "id")


def _statistics_of_their_own(source: Source, env: EnvConfig, single: gym.Env[Any, Any]) -> list[Problem]:
    """Wrappers whose statistics no checkpoint holds, and no evaluation has."""
    layers: list[Any] = [single]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    kinds = (gym.wrappers.NormalizeObservation, gym.wrappers.NormalizeReward)
    found = [type(layer).__name__ for layer in layers if isinstance(layer, kinds)]
    message = "{} keeps statistics that a checkpoint does not hold and an evaluation does not have."
    hint = "Use `normalize: true`, whose statistics are part of every checkpoint."
    return [source.problem(("env", "wrappers"), message.format(name), hint) for name in found]


def _atari_frame_skip(source: Source, env: EnvConfig, single: gym.Env[Any, Any]) -> list[Problem]:
    """ALE/*-v5 skip frames inside; AtariWrapper would skip again."""
    inside = single.spec.kwargs.get("frameskip", 1) if single.spec else 1
    problems = []
    for index, wrapper in enumerate(env.wrappers):
        keyword = _SKIPPING.get(wrapper.name)
        if keyword is not None and inside != 1 and wrapper.kwargs.get(keyword, 4) != 1:
            message = f"{wrapper.name} would skip frames again: {env.id} already skips {inside}."
            hint = f"Write {{{wrapper.name}: {{{keyword}: 1}}}}, or env.kwargs: {{frameskip: 1}}."
            problems.append(source.problem(("env", "wrappers", index), message, hint))
    return problems
