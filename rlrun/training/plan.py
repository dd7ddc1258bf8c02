"""Everything that can be wrong is found here, all at once, before anything is created."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.vec_env import VecEnv

from rlrun.algorithms.build import build_model
from rlrun.algorithms.crosschecks import EnvFacts, check_spaces, cross_check, default_policy, with_defaults
from rlrun.algorithms.hyperparameters import Finding, resolve
from rlrun.algorithms.registry import Algorithm, algorithms, get_algorithm, near_algorithm
from rlrun.config.classes import load_class, make_importable
from rlrun.config.loading import Source, dotted, leaves, sound_part, validate
from rlrun.config.locate import shipped_folder
from rlrun.config.schema import Config
from rlrun.config.signatures import keyword_parameters
from rlrun.config.yaml import KeyPath
from rlrun.envs.recipe import EnvRecipe
from rlrun.envs.seeding import generators_preserved
from rlrun.errors import ConfigError, Problem, RlrunError, UsageError, shown
from rlrun.runs.directory import find_run
from rlrun.runs.load import read_parent, start_from
from rlrun.spaces import leaves_of
from rlrun.training.probing import probe
from rlrun.training.resolving import resolved
from rlrun.training.searching import check_search
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


def make_plan(
    source: Source,
    probe_env: bool = True,
    run_dir: Path = Path("runs"),
    import_paths: Sequence[str] | None = None,
) -> Plan:
    """Check a config in full.

    :param run_dir: where the run that ``init_from`` names is looked for
    :param import_paths: folders to import from; None: the current one and the config's own
    :param probe_env: build the env once, to check against its spaces; without, the resolved config may be incomplete
    :raises ConfigError: with every problem found
    """
    paths = user_folders(source.path) if import_paths is None else tuple(import_paths)
    make_importable(paths)
    problems = validate(source)[1]
    env_is_sound = not any(problem.path.partition(".")[0] == "env" for problem in problems)
    config = sound_part(source)  # the whole config, unless it has problems
    config, found = _with_parent(source, config, run_dir)
    problems += found
    algorithm, unknown = _algorithm(source)
    problems += unknown
    facts, venv, found = probe(source, config, paths) if probe_env else (None, None, [])
    problems += found
    facts = facts if env_is_sound and not unknown else None
    problems += [*_callbacks(source, config), *check_trackers(source, config)]
    problems += [*_device(source, config), *_patience(source, config)]
    warnings: list[Problem] = []
    if algorithm is not None:
        problems = [_as_hyperparameter(problem, algorithm) for problem in problems]
        problems += [*_budget_unit(source, config, algorithm), *_curiosity(source, config, algorithm)]
        config, errors, warnings = _check_keywords(source, config, algorithm, facts)
        problems += [*errors, *check_search(source, algorithm)]
        if facts is not None:
            problems += _normalization(source, config, algorithm, facts)
        if venv is not None and facts is not None and not problems:
            problems += _trial(source, config, algorithm, venv, facts.n_envs)
    if problems or algorithm is None:
        raise ConfigError(sorted(problems, key=_order(source)))
    whole, notes = resolved(config, algorithm, facts)
    return Plan(whole, source, algorithm, paths, tuple(warnings), tuple(notes), facts)


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
    told = _as_problems(source, warnings)
    if not algorithm.is_episodic:
        told += [*_spacing(source, config, facts), *_too_late(source, config, algorithm, facts)]
        told += _always_new(source, config, facts)
    return config, _as_problems(source, errors), told


def _trial(source: Source, config: Config, algorithm: Algorithm, venv: VecEnv, n_envs: int) -> list[Problem]:
    """Build the model and throw it away: some things only the constructors of SB3 and of the user find wrong."""
    keywords = dict(config.hyperparameters)
    if algorithm.is_off_policy:
        keywords["buffer_size"] = 1
    elif "n_steps" in keyword_parameters(algorithm.load()):  # the probe has one env: keep the size of a rollout
        keywords["n_steps"] = n_envs * with_defaults(algorithm, keywords)["n_steps"]
    try:
        with generators_preserved():
            model = build_model(config.model_copy(update={"hyperparameters": keywords}), venv, device="cpu")
    except UsageError as error:
        return [source.problem(("hyperparameters",), error.message, error.hint)]
    if config.init_from is not None:
        try:
            start_from(model, read_parent(Path(config.init_from)))
        except RlrunError as error:
            return [source.problem(("init_from",), error.message, error.hint)]
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
    """The algorithm, or with a problem the one that was most likely meant, whose keywords can be checked already."""
    name = source.values.get("algo")
    if not isinstance(name, str):
        return None, []  # the schema says what is wrong with it
    try:
        algorithm = get_algorithm(name)
        algorithm.load()
    except UsageError as error:
        return near_algorithm(name), [source.problem(("algo",), error.message, error.hint)]
    except (ImportError, AttributeError) as error:
        return None, [source.problem(("algo",), f"the class of {name} cannot be imported ({error}).")]
    return algorithm, []


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


def _with_parent(source: Source, config: Config, run_dir: Path) -> tuple[Config, list[Problem]]:
    """The config with ``init_from``, a path or the name of a run, as an absolute path."""
    if config.init_from is None:
        return config, []
    path = Path(config.init_from)
    try:
        path = path if path.is_file() else find_run(config.init_from, run_dir).path
        read_parent(path)
    except RlrunError as error:
        return config.model_copy(update={"init_from": None}), [
            source.problem(("init_from",), error.message, error.hint or "Name a run or an SB3 zip.")
        ]
    return config.model_copy(update={"init_from": os.path.abspath(path)}), []


def _budget_unit(source: Source, config: Config, algorithm: Algorithm) -> list[Problem]:
    unit, other = ("timesteps", "episodes") if config.total_episodes is None else ("episodes", "timesteps")
    if getattr(config, f"schedule_{other}") is not None:
        message = f"the budget is counted in {unit}, and so are its schedules."
        return [source.problem((f"schedule_{other}",), message, f"Use schedule_{unit}.")]
    if config.total_episodes is None or algorithm.is_episodic:
        return []
    able = ", ".join(row.name for row in algorithms().values() if row.is_episodic)
    message = f"{algorithm.name} learns from timesteps, so its budget is not counted in episodes (that is for {able})."
    return [source.problem(("total_episodes",), message, "Give total_timesteps instead.")]


def _curiosity(source: Source, config: Config, algorithm: Algorithm) -> list[Problem]:
    if config.curiosity is None or algorithm.is_on_policy:
        return []
    message = f"{algorithm.name} has no rollouts of a fixed length, from which curiosity learns."
    return [source.problem(("curiosity",), message, "Use an algorithm that has, such as a2c or ppo, or leave it out.")]


def _normalization(source: Source, config: Config, algorithm: Algorithm, facts: EnvFacts) -> list[Problem]:
    if config.normalize is None or not algorithm.is_off_policy or not isinstance(facts.observation_space, Discrete):
        return []
    message = f"{algorithm.name} fails in SB3 when observations are Discrete and the env is in VecNormalize."
    return [source.problem(("normalize",), message, "Leave it out.")]


def _patience(source: Source, config: Config) -> list[Problem]:
    if config.early_stop is None or config.early_stop.patience is None or config.evaluation.episodes:
        return []
    message = "patience counts evaluations, and evaluation.episodes is 0."
    return [source.problem(("early_stop", "patience"), message, "Leave one of the two out.")]


def _spacing(source: Source, config: Config, facts: EnvFacts) -> list[Problem]:
    """Warn when checkpoints, which restart the envs, were asked for too often for the episodes."""
    every, steps = config.checkpoint.every or 0, facts.max_episode_steps
    if not every or steps is None or every >= config.budget:
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


def _too_late(source: Source, config: Config, algorithm: Algorithm, facts: EnvFacts) -> list[Problem]:
    """Warn of what would begin after the budget's end."""
    problems = []
    values = with_defaults(algorithm, config.hyperparameters)
    starts = values.get("learning_starts", 0)
    if isinstance(starts, int | float) and starts >= config.budget:
        message = f"learning starts after {starts:,} timesteps, and the budget is {config.budget:,}: nothing is learnt."
        hint = "Lower it, or train for longer."
        problems.append(source.problem(("hyperparameters", "learning_starts"), message, hint))
    if config.curiosity is not None and isinstance(values.get("n_steps"), int):
        rollouts = math.ceil(config.curiosity.steps_before_bonus / values["n_steps"])
        first = rollouts * values["n_steps"] * facts.n_envs
        if first >= config.budget:
            message = (
                f"the first bonus comes after whole rollouts of 1 / (1 - gamma) steps of each env, that is {first:,} "
                f"timesteps, and the budget is {config.budget:,}."
            )
            hint = "Lower it or n_steps, or train for longer."
            problems.append(source.problem(("curiosity", "gamma"), message, hint))
    return problems


def _always_new(source: Source, config: Config, facts: EnvFacts) -> list[Problem]:
    """Warn of an episodic bonus for observations that never come again."""
    if config.curiosity is None or not config.curiosity.episodic:
        return []
    parts = leaves_of(facts.observation_space).values()
    if not any(isinstance(part, Box) and np.issubdtype(part.dtype, np.floating) for part in parts):
        return []
    message = (
        "observations are real numbers; where the same one hardly ever comes again, almost every step is paid for."
    )
    hint = "Then leave episodic out, or an agent may put off a goal that ends its episode."
    return [source.problem(("curiosity", "episodic"), message, hint)]


def _with_policy(config: Config, algorithm: Algorithm, facts: EnvFacts) -> Config:
    if "policy" in config.hyperparameters:
        return config
    policy = default_policy(algorithm, facts.observation_space)
    return config.model_copy(update={"hyperparameters": {"policy": policy, **config.hyperparameters}})


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
