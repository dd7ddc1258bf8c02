"""From a section of RL Baselines3 Zoo's YAML to a config of rlrun's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlrun.algorithms.crosschecks import with_defaults
from rlrun.algorithms.hyperparameters import ACTIVATIONS, OPTIMIZERS
from rlrun.algorithms.registry import algorithms
from rlrun.config.loading import Source, dotted
from rlrun.config.yaml import KeyPath
from rlrun.config.zoo import ATARI, DEFAULT, ZooFile, parse_literal, read_zoo_file
from rlrun.envs.zoo import ZooEnv, is_atari, zoo_env, zoo_wrapper
from rlrun.errors import ConfigError, Problem, UsageError, did_you_mean, shown

# Where RL Zoo's keys go; every other one is a keyword of the algorithm.
MOVED: dict[str, tuple[str, ...]] = {
    "n_timesteps": ("total_timesteps",),
    "n_envs": ("env", "n_envs"),
    "env_kwargs": ("env", "kwargs"),
    "env_wrapper": ("env", "wrappers"),
    "frame_stack": ("env", "frame_stack"),
    "normalize": ("normalize",),
    "callback": ("callbacks",),
    "noise_type": ("hyperparameters", "action_noise"),
    "eval_freq": ("evaluation", "every"),
    "n_eval_episodes": ("evaluation", "episodes"),
    "n_eval_envs": ("evaluation", "n_envs"),
    "eval_env_kwargs": ("evaluation", "env_kwargs"),
}
# Keys that are left out, and why.
DROPPED = {
    "noise_std": "",  # is in action_noise
    "monitor_kwargs": "rlrun records episodes itself, success included",
    "optimize_memory_usage": "a checkpoint could not say that it cuts an episode short",
}
# Keys that rlrun has nothing for.
REFUSED = {
    "vec_env_wrapper": "rlrun wraps each env by itself (`env.wrappers`) and has no place for a VecEnvWrapper",
}
_LITERALS = ("policy_kwargs", "replay_buffer_kwargs", "replay_buffer_class", "normalize", "env_kwargs")
_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf", "delta_std")
_CLASSES = ("NatureCNN", "FlattenExtractor", "CombinedExtractor", "ReplayBuffer", "DictReplayBuffer", "HerReplayBuffer")
# Names that may stand in RL Zoo's strings of Python, and what a config calls them.
NAMES = {
    **{f"{module}.{name}": name for module in ("nn", "th.nn", "torch.nn") for name in ACTIVATIONS},
    **{f"{module}.{name}": name for module in ("optim", "th.optim", "torch.optim") for name in OPTIMIZERS},
    **{name: name for name in (*_CLASSES, "RMSpropTFLike")},
}
_ENV_ORDER = ("id", "n_envs", "kwargs", "wrappers", "frame_stack")
_ALGORITHMS = {"ppo_lstm": "recurrent_ppo"}
_SCHEDULE = re.compile(r"\w+?_(.+)")


@dataclass(frozen=True)
class ZooEntry:
    """One section of a file in RL Zoo's format, for one env: a config, wherever a config is wanted.

    :ivar env: as RL Zoo calls it, or its successor
    :ivar algo: registry name, or RL Zoo's; None: as the file is called, ``ppo.yml``
    """

    path: Path
    env: str
    algo: str | None = None

    def source(self) -> Source:
        """The config that it stands for.

        :raises UsageError: when there is none
        """
        file = read_zoo_file(self.path)
        converted = convert(file, section_for(file, self.env), algorithm_of(self.path, self.algo), self.env)
        return Source(converted.values, converted.places, self.path)


@dataclass(frozen=True)
class Converted:
    """A section as a config.

    :ivar env: the env, and the name under which RL Zoo has it
    :ivar places: the line of each key in RL Zoo's file
    :ivar notes: sentences on what is not as it was there
    """

    algo: str
    env: ZooEnv
    values: dict[str, Any]
    places: dict[KeyPath, str]
    notes: tuple[str, ...]


def algorithm_of(path: Path, algo: str | None = None) -> str:
    """The algorithm that a file is for.

    :param algo: instead of what the file's name says
    :raises UsageError: when its name does not say it
    """
    name = algo or path.stem
    name = _ALGORITHMS.get(name, name)
    if algo is not None or name in algorithms():
        return name
    if name == "her":
        message = f"{path} is from before HER became a replay buffer, and RL Zoo no longer reads it."
        raise UsageError(message, "tqc.yml has the same envs.")
    raise UsageError(f"The name of {path} does not say for which algorithm it is.", "Say it: --algo ppo")


def section_for(file: ZooFile, env_id: str) -> str:
    """The section that RL Zoo takes for an env: its own, ``atari``, or ``default``.

    :raises UsageError: when there is none
    """
    wanted = zoo_env(env_id).name
    own = [key for key in file.sections if key == env_id] or [
        key for key in file.sections if zoo_env(key).name == wanted
    ]
    if own:
        return own[0]
    if is_atari(env_id) and ATARI in file.sections:
        return ATARI
    if DEFAULT in file.sections:
        return DEFAULT
    hint = did_you_mean(env_id, file.sections) or f"It has: {', '.join(file.sections)}."
    raise UsageError(f"{file.path} has no section for {env_id}.", hint)


def convert(file: ZooFile, section: str, algo: str, env_id: str) -> Converted:
    """One section as a config for one env.

    :raises ConfigError: for what cannot be said in a config, with its line
    """
    conversion = _Conversion(file, section, zoo_env(env_id), algo)
    for key, value in file.sections[section].items():
        conversion.take(key, value)
    return conversion.result()


@dataclass
class _Conversion:
    """One section on its way: each key is put in its place as the config writes it."""

    file: ZooFile
    section: str
    env: ZooEnv
    algo: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # In the order in which a config is written.
        self.values |= {"algo": self.algo, "env": {"id": self.env.id}, "normalize": None, "total_timesteps": None}
        self.values["hyperparameters"] = {}
        self.values["env"] |= {"wrappers": list(self.env.wrappers)} if self.env.wrappers else {}
        self.places[()] = self.file.place((self.section,))
        self.notes += [self.env.note] if self.env.note else []

    def take(self, key: str, value: Any) -> None:
        """Put one key in its place."""
        if key in REFUSED and value is not None:
            raise self.problem(key, f"{REFUSED[key]}.", "Leave it out, or wrap the env itself.")
        if key in DROPPED or key in REFUSED:
            if DROPPED.get(key) and value:
                self.notes.append(f"Left out: {key}, because {DROPPED[key]}.")
            return
        path = MOVED.get(key, ("hyperparameters", key))
        target = self.values
        for part in path[:-1]:
            target = target.setdefault(part, {})
        value = self.converted(key, value)
        if key == "env_wrapper":
            value = [*target.get("wrappers", ()), *value]
        if value in ([], {}) and key in MOVED and key != "normalize":
            return
        target[path[-1]] = value
        self.places[path] = self.file.place((self.section, key))

    def converted(self, key: str, value: Any) -> Any:
        """A value as a config writes it."""
        if key in _LITERALS and isinstance(value, str):
            value = self.literal(key, value)
        if key in _SCHEDULES and isinstance(value, str) and (match := _SCHEDULE.fullmatch(value)):
            return f"lin_{match[1]}"  # RL Zoo takes any word before the number for a line to zero
        if key in ("env_wrapper", "callback"):
            return self.classes(key, value)
        if key == "noise_type":
            return self.noise(value)
        if key == "n_timesteps" and isinstance(value, float) and value.is_integer():
            return int(value)
        if key == "normalize" and value is False:
            return None
        if key == "policy" and isinstance(value, str) and "." in value and ":" not in value:
            return ":".join(value.rsplit(".", 1))
        return value

    def literal(self, key: str, text: str) -> Any:
        """What a string of Python says."""
        if key == "replay_buffer_class" and "." in text:
            return ":".join(text.rsplit(".", 1))
        try:
            return parse_literal(text, NAMES)
        except ValueError as error:
            hint = "Literals, dict(), list(), tuple() and names such as nn.ReLU are; nothing is evaluated."
            raise self.problem(key, f"{shown(text)} cannot be read: {error}.", hint) from None

    def classes(self, key: str, value: Any) -> list[Any]:
        """Wrappers or callbacks: one name or a list, each alone or with its keyword arguments."""
        entries = value if isinstance(value, list) else [] if value is None else [value]
        result: list[Any] = []
        for entry in entries:
            if isinstance(entry, dict) and len(entry) == 1:
                ((name, kwargs),) = entry.items()
            else:
                name, kwargs = entry, None
            if not (isinstance(name, str) and "." in name and (kwargs is None or isinstance(kwargs, dict))):
                hint = "For instance package.module.Class, or {package.module.Class: {keyword: value}}."
                raise self.problem(key, f"must name classes, not {shown(entry)}.", hint)
            if name.endswith(".Monitor"):
                self.notes.append("Left out: Monitor, because rlrun records episodes itself.")
            elif key == "env_wrapper":
                result.append(zoo_wrapper(entry, self.env.id))
            else:
                result.append({"class": ":".join(name.rsplit(".", 1)), **({"kwargs": kwargs} if kwargs else {})})
        return result

    def noise(self, kind: Any) -> Any:
        """Action noise, whose kind and deviation are two keys there."""
        if kind is None:
            return None
        known = {"normal": "normal", "ornstein-uhlenbeck": "ornstein_uhlenbeck"}
        name = next((known[word] for word in known if isinstance(kind, str) and word in kind), None)
        sigma = self.file.sections[self.section].get("noise_std")
        if name is None or sigma is None:
            message = f"is {shown(kind)} with noise_std {shown(sigma)}, which is no action noise."
            raise self.problem("noise_type", message, "For instance normal, with noise_std: 0.1.")
        return {name: {"sigma": sigma}}

    def problem(self, key: str, message: str, hint: str) -> ConfigError:
        """What is wrong with one key, with its line."""
        path = (self.section, key)
        return ConfigError([Problem(message, dotted(path), self.file.place(path), hint)])

    def result(self) -> Converted:
        """The config, once every key was taken."""
        values = {key: value for key, value in self.values.items() if value is not None}
        hyperparameters = values["hyperparameters"]
        values["env"] = {key: values["env"][key] for key in _ENV_ORDER if key in values["env"]}
        if isinstance(values.get("normalize"), Mapping) and not values["normalize"]:
            values["normalize"] = True
        if "policy" in hyperparameters:
            values["hyperparameters"] = {"policy": hyperparameters.pop("policy"), **hyperparameters}
        if values.get("normalize") and values["env"].get("frame_stack"):
            self.note_order(values["normalize"])
        self.limit_batch(values["hyperparameters"], values["env"].get("n_envs", 1))
        return Converted(self.algo, self.env, values, self.places, tuple(self.notes))

    def note_order(self, normalize: Any) -> None:
        """RL Zoo normalizes what rlrun stacks first."""
        if normalize is True or normalize.get("norm_obs", True):
            self.notes.append("RL Zoo normalizes each frame, and rlrun the stack of them.")

    def limit_batch(self, hyperparameters: dict[str, Any], n_envs: int) -> None:
        """SB3 takes the whole rollout for a batch that is larger; rlrun wants it said."""
        row = algorithms().get(self.algo)
        if row is None or row.is_off_policy or "batch_size" not in hyperparameters:
            return
        batch, steps = hyperparameters["batch_size"], with_defaults(row, hyperparameters).get("n_steps")
        if isinstance(batch, int) and isinstance(steps, int) and isinstance(n_envs, int) and batch > steps * n_envs:
            hyperparameters["batch_size"] = steps * n_envs
            self.notes.append(f"RL Zoo says batch_size {batch}; a rollout holds {steps * n_envs}, so SB3 takes that.")
