"""Everything that can be wrong is found here, all at once, before anything is created."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.vec_env import VecEnv

from rlrun.algorithms.build import build_model
from rlrun.algorithms.crosschecks import EnvFacts, check_spaces, cross_check, default_policy
from rlrun.algorithms.hyperparameters import Finding, resolve
from rlrun.algorithms.registry import Algorithm, get_algorithm
from rlrun.config.classes import load_class, make_importable
from rlrun.config.loading import NO_ENV, Source, dotted, leaves, sound_part, validate
from rlrun.config.locate import shipped_folder
from rlrun.config.schema import Config, EnvConfig
from rlrun.config.signatures import keyword_parameters
from rlrun.config.yaml import KeyPath
from rlrun.envs.recipe import EnvRecipe, Role, max_episode_steps
from rlrun.envs.seeding import generators_preserved
from rlrun.errors import ConfigError, MissingPackage, Problem, UsageError, shown
from rlrun.evaluation.evaluate import is_deterministic
from rlrun.runs.provenance import usable_cores
from rlrun.training.trackers import check_trackers


@dataclass(frozen=True)
class Plan:
    """A config that will train.

    :ivar config: every value resolved
    :ivar source: what the user wrote
    :ivar import_paths: folders of the user's that are importable
    :ivar warnings: what is allowed but looks wrong
    :ivar notes: what was decided for the user, and why
    :ivar facts: what the probe of the env found; None when it was not built
    """

    config: Config
    source: Source
    algorithm: Algorithm
    import_paths: tuple[str, ...]
    warnings: tuple[Problem, ...]
    notes: tuple[str, ...]
    facts: EnvFacts | None = None

    @property
    def recipe(self) -> EnvRecipe:
        """How every env of this run is built."""
        return EnvRecipe.from_config(self.config, self.import_paths)

    def explained(self) -> list[tuple[str, str, str]]:
        """Every resolved value as (key, value, where it came from)."""
        return [
            (dotted(path), shown(value), self._origin(path))
            for path, value in leaves(self.config.model_dump(by_alias=True))
        ]

    def _origin(self, path: KeyPath) -> str:
        if _is_written(self.source.values, path):
            return self.source.place(path) or "given"
        default = dict(leaves(_defaults())).get(path)
        return "default" if _value_at(self.config.model_dump(by_alias=True), path) == default else "derived"


def make_plan(source: Source, probe_env: bool = True) -> Plan:
    """Check a config in full.

    :param probe_env: build the env once, to check against its spaces; without, the resolved config may be incomplete
    :raises ConfigError: with every problem found
    """
    import_paths = user_folders(source.path)
    make_importable(import_paths)
    problems = validate(source)[1]
    env_is_sound = not any(problem.path.partition(".")[0] == "env" for problem in problems)
    config = sound_part(source)  # the whole config, unless it has problems
    algorithm, found = _algorithm(source)
    problems += found
    facts, venv, found = _probe(source, config, import_paths) if probe_env else (None, None, [])
    problems += found
    facts = facts if env_is_sound else None
    problems += [*_callbacks(source, config), *check_trackers(source, config)]
    problems += [*_device(source, config), *_files(source, config)]
    warnings: list[Problem] = []
    if algorithm is not None:
        problems = [_as_hyperparameter(problem, algorithm) for problem in problems]
        config, errors, warnings = _check_keywords(source, config, algorithm, facts)
        problems += errors
        if venv is not None and facts is not None and not problems:
            problems += _trial(source, config, algorithm, venv, facts.n_envs)
    if problems or algorithm is None:
        raise ConfigError(sorted(problems, key=_order(source)))
    resolved, notes = _resolved(config, algorithm)
    return Plan(resolved, source, algorithm, import_paths, tuple(warnings), tuple(notes), facts)


def _check_keywords(
    source: Source, config: Config, algorithm: Algorithm, facts: EnvFacts | None
) -> tuple[Config, list[Problem], list[Problem]]:
    """The hyperparameters by themselves and, when they are sound, together with the env.

    :return: the config with a policy, errors, and warnings
    """
    _, findings = resolve(algorithm, config.hyperparameters)
    if facts is None:
        return config, _as_problems(source, findings), []
    if findings or not isinstance(source.values.get("hyperparameters", {}), dict):
        return config, _as_problems(source, [*findings, *check_spaces(algorithm, facts)]), []
    config = _with_policy(config, algorithm, facts)
    errors, warnings = cross_check(algorithm, config.hyperparameters, facts)
    spacing = _spacing(source, _resolved(config, algorithm)[0], facts)
    return config, _as_problems(source, errors), [*_as_problems(source, warnings), *spacing]


def _trial(source: Source, config: Config, algorithm: Algorithm, venv: VecEnv, n_envs: int) -> list[Problem]:
    """Build the model and throw it away: some things only the constructors of SB3 and of the user find wrong."""
    keywords = dict(config.hyperparameters)
    if algorithm.is_off_policy:
        keywords["buffer_size"] = 1
    elif "n_steps" in keyword_parameters(algorithm.load()):  # the probe has one env: keep the size of a rollout
        keywords["n_steps"] = n_envs * keywords.get("n_steps", keyword_parameters(algorithm.load())["n_steps"].default)
    try:
        with generators_preserved():
            build_model(config.model_copy(update={"hyperparameters": keywords}), venv, device="cpu")
    except UsageError as error:
        return [source.problem(("hyperparameters",), error.message, error.hint)]
    return []


def _as_hyperparameter(problem: Problem, algorithm: Algorithm) -> Problem:
    """Say of an unknown key at the top that it is a keyword of the algorithm, if it is one."""
    if problem.path in Config.model_fields or problem.path not in keyword_parameters(algorithm.load()):
        return problem
    return replace(problem, hint=f'Did you mean "hyperparameters.{problem.path}"?')


def user_folders(config_path: Path | None) -> tuple[str, ...]:
    """The folders whose modules a config may name: the current one and the config's own."""
    folders = [Path.cwd()]
    if config_path is not None and shipped_folder() not in config_path.resolve().parents:
        folders.append(config_path.resolve().parent)
    return tuple(dict.fromkeys(str(folder) for folder in folders))


def _order(source: Source) -> Any:
    lines = {dotted_path: index for index, dotted_path in enumerate(source.places.values())}
    return lambda problem: lines.get(problem.where, -1)


def _as_problems(source: Source, findings: Iterable[Finding]) -> list[Problem]:
    return [source.problem(f.path, f.message, f.hint) for f in findings]


def _algorithm(source: Source) -> tuple[Algorithm | None, list[Problem]]:
    name = source.values.get("algo")
    if not isinstance(name, str):
        return None, []  # the schema says what is wrong with it
    try:
        algorithm = get_algorithm(name)
        algorithm.load()
    except UsageError as error:
        return None, [source.problem(("algo",), error.message, error.hint)]
    except (ImportError, AttributeError) as error:
        return None, [source.problem(("algo",), f"the class of {name} cannot be imported ({error}).")]
    return algorithm, []


def _probe(
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
        problems = _atari_frame_skip(source, env, single)
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
    return EnvFacts(venv.observation_space, venv.action_space, steps, env.n_envs, masks), venv, problems


def _env_path(config: Config, error: UsageError) -> KeyPath:
    """The key that most likely caused an env not to be built."""
    for index, name in enumerate(config.env.imports):
        if f'"{name}"' in error.message:
            return ("env", "imports", index)
    for index, wrapper in enumerate(config.env.wrappers):
        module, _, name = wrapper.name.rpartition(":")
        if name in error.message or (module and f'"{module}"' in error.message):
            return ("env", "wrappers", index)
    return ("env", "kwargs") if "keyword" in error.message else ("env", "id")


def _atari_frame_skip(source: Source, env: EnvConfig, single: gym.Env[Any, Any]) -> list[Problem]:
    """ALE/*-v5 skip frames inside; AtariWrapper would skip again."""
    inside = single.spec.kwargs.get("frameskip", 1) if single.spec else 1
    problems = []
    for index, wrapper in enumerate(env.wrappers):
        if wrapper.name == "AtariWrapper" and inside != 1 and wrapper.kwargs.get("frame_skip", 4) != 1:
            message = f"AtariWrapper would skip frames again: {env.id} already skips {inside}."
            hint = "Write {AtariWrapper: {frame_skip: 1}}, or env.kwargs: {frameskip: 1}."
            problems.append(source.problem(("env", "wrappers", index), message, hint))
    return problems


def _callbacks(source: Source, config: Config) -> list[Problem]:
    from stable_baselines3.common.callbacks import BaseCallback

    problems = []
    for index, callback in enumerate(config.callbacks):
        path = ("callbacks", index)
        try:
            cls = load_class(callback.cls, BaseCallback, what="callback")
        except UsageError as error:
            problems.append(source.problem(path, error.message, error.hint))
            continue
        known = keyword_parameters(cls)
        for name in callback.kwargs:
            if name not in known:
                problems.append(source.problem((*path, "kwargs", name), f'{callback.cls} has no keyword "{name}".'))
    return problems


def _device(source: Source, config: Config) -> list[Problem]:
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        message = f"{config.device} was asked for, and torch finds no usable GPU."
        return [source.problem(("device",), message, "Use device: cpu, or install a torch build with CUDA.")]
    return []


def _files(source: Source, config: Config) -> list[Problem]:
    if config.init_from is not None and not Path(config.init_from).exists():
        return [
            source.problem(
                ("init_from",), f"there is nothing at {config.init_from}.", "Name a run directory or an SB3 zip."
            )
        ]
    return []


def _spacing(source: Source, config: Config, facts: EnvFacts) -> list[Problem]:
    """Warn when checkpoints, which restart the envs, come too often for the episodes."""
    every, steps = config.checkpoint.every or 0, facts.max_episode_steps
    if not every or steps is None or every >= config.total_timesteps:
        return []
    needed = 3 * steps * facts.n_envs
    if every >= needed:
        return []
    message = f"a checkpoint every {every:,} timesteps restarts the envs before long episodes end."
    return [
        source.problem(
            ("checkpoint", "every"), message, f"{needed:,} or more leaves room for three episodes in each env."
        )
    ]


def _with_policy(config: Config, algorithm: Algorithm, facts: EnvFacts) -> Config:
    if "policy" in config.hyperparameters:
        return config
    policy = default_policy(algorithm, facts.observation_space)
    return config.model_copy(update={"hyperparameters": {"policy": policy, **config.hyperparameters}})


def _resolved(config: Config, algorithm: Algorithm) -> tuple[Config, list[str]]:
    """Fill in every null whose value follows from the rest, and say what was chosen for a reason."""
    budget = config.total_timesteps
    small = not algorithm.is_off_policy and "Cnn" not in str(config.hyperparameters.get("policy", ""))
    device, why = _choose_device(config, small)
    changes: dict[str, Any] = {
        "device": device,
        "threads": config.threads or (1 if small else min(8, usable_cores())),
        "log_every": max(1, budget // 200) if config.log_every is None else config.log_every,
    }
    if config.normalize is not None and config.normalize.gamma is None:
        gamma = _gamma(config, algorithm)
        changes["normalize"] = config.normalize.model_copy(update={"gamma": gamma})
    evaluation, checkpoint = config.evaluation, config.checkpoint
    changes["evaluation"] = evaluation.model_copy(
        update={
            "every": max(1, budget // 10) if evaluation.every is None else evaluation.every,
            "deterministic": is_deterministic(config),
        }
    )
    if checkpoint.every is None:
        changes["checkpoint"] = checkpoint.model_copy(update={"every": max(1, budget // 5)})
    if config.init_from is not None:
        changes["init_from"] = os.path.abspath(config.init_from)
    return config.model_copy(update=changes), [why, f"seed {config.seed}"]


def _gamma(config: Config, algorithm: Algorithm) -> float:
    gamma = config.hyperparameters.get("gamma")
    if gamma is None:
        parameter = keyword_parameters(algorithm.load()).get("gamma")
        gamma = parameter.default if parameter is not None else 0.99
    return float(gamma)


def _choose_device(config: Config, small: bool) -> tuple[str, str]:
    if config.device != "auto":
        return config.device, f"device {config.device}: as the config says"
    if small:
        return "cpu", "device cpu: a small on-policy network is faster there than on a GPU"
    if torch.cuda.is_available():
        return "cuda", "device cuda: a GPU was found"
    return "cpu", "device cpu: no GPU was found"


def _defaults() -> dict[str, Any]:
    """A config in which only what must be given is given; sections that are off by default are there with theirs."""
    return sound_part(Source({"normalize": True, "early_stop": {"patience": 1}})).model_dump(by_alias=True)


def _is_written(values: Any, path: KeyPath) -> bool:
    for part in path:
        if not isinstance(values, dict):
            return True  # `normalize: true` stands for the whole section
        if part not in values:
            return False
        values = values[part]
    return True


def _value_at(values: Any, path: KeyPath) -> Any:
    for part in path:
        values = values[part]
    return values
