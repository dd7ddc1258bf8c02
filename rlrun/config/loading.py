"""From a YAML file and overrides to a checked ``Config``, remembering where each value came from.

Precedence: file < ``--set a.b=c``. Other flags are sugar for ``--set``; naming one key twice is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rlrun.config.schema import BUDGETS, NO_BUDGET, Config, EnvConfig, budget_error
from rlrun.config.yaml import KeyPath, parse_value, read_yaml
from rlrun.errors import ConfigError, Problem, UsageError, did_you_mean, shown

NO_ENV = "-"  # stands for an env id that is not given


@dataclass(frozen=True)
class Override:
    """One value that replaces the file's.

    :ivar key: a dotted path, such as ``hyperparameters.learning_rate``
    :ivar flag: how the user spelled it, for errors and provenance
    """

    key: str
    value: Any
    flag: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """From ``key=value``, the value read as YAML."""
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f'--set takes key=value, not "{text}".', "For instance --set hyperparameters.gamma=0.99")
        return cls(key.strip(), parse_value(value, f"--set {text}"), f"--set {text}")


@dataclass(frozen=True)
class Source:
    """What the user wrote, before any default.

    :ivar values: the file's mapping with the overrides applied
    :ivar places: for each key path written by the user, its file and line, or its flag
    :ivar path: the file; None for a mapping given from Python
    """

    values: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)
    path: Path | None = None

    def place(self, path: KeyPath) -> str:
        """Where a key was written, else one of those in it, else the nearest key above it."""
        if path and path not in self.places:
            path = next((key for key in self.places if key[: len(path)] == path), path)
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, str(self.path) if self.path else "")

    def problem(self, path: KeyPath, message: str, hint: str = "") -> Problem:
        """A problem at a key path, with its file and line."""
        return Problem(message, dotted(path), self.place(path), hint)


def dotted(path: Iterable[str | int]) -> str:
    """``("env", "wrappers", 0)`` as ``env.wrappers.0``."""
    return ".".join(str(part) for part in path)


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every value of nested mappings with its key path; an empty mapping is a value."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def read_source(config: Path | Mapping[str, Any], overrides: Iterable[Override] = ()) -> Source:
    """Read a file (or take a mapping) and apply the overrides.

    :raises ConfigError: when the file cannot be read, is no mapping, or an override does not fit
    """
    if isinstance(config, Path):
        document = read_yaml(config)
        values, where = document.value, str(config)
        places = {path: f"{where}:{line}" for path, line in document.lines.items() if path}
    else:
        values, where, places = _copied(config), "", {}
    if values is None:
        raise ConfigError([Problem("is empty.", where=where, hint="`rlrun init` writes a config to start from.")])
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else "a single value"
        raise ConfigError([Problem(f"holds {kind} at the top, not keys.", where=where, hint="Begin with `algo: ppo`.")])
    source = Source(values, places, config if isinstance(config, Path) else None)
    apply_overrides(source, list(overrides))
    return source


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def apply_overrides(source: Source, overrides: list[Override]) -> None:
    """Replace values of what was read; a budget in one unit replaces one in the other.

    :raises ConfigError: when an override does not fit
    """
    problems = []
    seen: dict[str, str] = {}
    if sum(override.key in BUDGETS and override.value is not None for override in overrides) == 1:
        for budget in BUDGETS:
            source.values.pop(budget, None)
    for override in overrides:
        twice = next((flag for key, flag in seen.items() if _overlap(key, override.key)), None)
        if twice is not None:
            message = f'"{override.key}" is named twice: {twice} and {override.flag}.'
            problems.append(Problem(message, where=override.flag, hint="Name it once."))
            continue
        seen[override.key] = override.flag
        path = tuple(override.key.split("."))
        if "" in path:
            message = f'"{override.key}" is no key: there is nothing before or after one of its dots.'
            problems.append(Problem(message, where=override.flag, hint="Write it like hyperparameters.gamma."))
            continue
        target: Any = source.values
        for part in path[:-1]:
            if target.get(part) is None or isinstance(target.get(part), bool):
                target[part] = {}
            target = target[part]
            if not isinstance(target, dict):
                message = f'"{override.key}" goes into "{part}", which is not a section.'
                problems.append(Problem(message, where=override.flag, hint="Set the whole value instead."))
                break
        else:
            target[path[-1]] = override.value
            for known in [known for known in source.places if known[: len(path)] == path]:
                del source.places[known]
            source.places[path] = override.flag
    if problems:
        raise ConfigError(problems)


def _overlap(one: str, other: str) -> bool:
    """Whether two dotted keys are the same, or one is a section that holds the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def validate(source: Source) -> tuple[Config | None, list[Problem]]:
    """Check the sections against the schema.

    :return: the config, or None and every problem found
    """
    try:
        return Config.model_validate(source.values), []
    except ValidationError as error:
        return None, [*problems_of(source, error), *_budget(source)]


def problems_of(source: Source, error: ValidationError, model: type[BaseModel] = Config) -> list[Problem]:
    """What pydantic finds wrong, in the user's own spelling, with the places in the file.

    :param model: that the whole source was checked against
    """
    # pydantic looks at the whole config only once each of its parts is right: validate does so in any case.
    details = [detail for detail in error.errors(include_url=False) if detail["loc"] or model is not Config]
    return [_problem(source, detail, model) for detail in details]


def _budget(source: Source) -> list[Problem]:
    found = budget_error(source.values)
    if not found:
        return []
    if found == NO_BUDGET:
        return [source.problem((), f"{found}.", "For instance `total_timesteps: 100_000`.")]
    return [source.problem(("total_timesteps",), f"{found}.", "Leave one out.")]


def sound_part(source: Source) -> Config:
    """A config without whatever the schema objects to, so that all the rest can be checked as well.

    :return: the whole config if nothing is wrong; what must be given and is not is "", NO_ENV or 1
    """
    written = source.values.get("env")
    env = _sound(EnvConfig, written if isinstance(written, dict) else {}, {"id": NO_ENV})
    values = _right(Config, {**source.values, "env": env}, {"algo": ""})
    if budget_error(values):
        values = {key: value for key, value in values.items() if key not in BUDGETS} | {BUDGETS[0]: 1}
    return Config.model_validate({"algo": "", **values})


def _sound(model: type[BaseModel], values: Mapping[str, Any], least: Mapping[str, Any]) -> Any:
    return model.model_validate({**least, **_right(model, values, least)})


def _right(model: type[BaseModel], values: Mapping[str, Any], least: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a model has nothing against."""
    try:
        model.model_validate({**least, **values})
    except ValidationError as error:
        wrong = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
        return {key: value for key, value in values.items() if key not in wrong}
    return dict(values)


def _problem(source: Source, detail: Any, model: type[BaseModel]) -> Problem:
    """pydantic's error in the user's own spelling."""
    location: KeyPath = tuple(part for part in detail["loc"] if not str(part).startswith(("function-", "[key]")))
    kind, value, context, hint = detail["type"], detail["input"], detail.get("ctx", {}), ""
    if kind == "extra_forbidden":
        return _unknown_key(source, location, model)
    if kind == "missing":
        path = location[:-1]
        return source.problem(path, f'"{dotted(location)}" is missing.', _EXAMPLES.get(dotted(location), ""))
    if kind == "value_error":
        message = f"{context['error']}."
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        message = f"must be a section (keys and values), not {shown(value)}."
        hint = _EXAMPLES.get(dotted(location), "")
    elif kind == "literal_error":
        message = f"must be {context['expected']}, not {shown(value)}."
        hint = _VALUE_HABITS.get(str(value), "")
    else:
        text = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        message = f"must be {_KINDS.get(kind, text)}, not {shown(value)}."
    return source.problem(location, message[0].upper() + message[1:] if not location else message, hint)


_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "too_short": "a list with something in it",
    "string_too_short": "a name",
}
_EXAMPLES = {
    "algo": "For instance `algo: ppo`.",
    "curiosity": "For instance `curiosity: {kind: rnd}`, or --set curiosity.kind=rnd; null: none.",
    "early_stop": "For instance `early_stop: {mean_return: 475}`.",
    "env": "For instance `env: {id: CartPole-v1}`.",
    "env.id": "For instance `id: CartPole-v1`.",
    "evaluation": "For instance `evaluation: {every: 10_000, episodes: 20}`.",
    "checkpoint": "For instance `checkpoint: {every: 10_000, keep: 3}`.",
    "hyperparameters": "For instance `hyperparameters: {learning_rate: 0.0003}`.",
}


def _unknown_key(source: Source, location: KeyPath, model: type[BaseModel]) -> Problem:
    key = str(location[-1])
    section = model_at(location[:-1], model)
    choices = [field.alias or name for name, field in section.model_fields.items()] if section else []
    hint = (_HABITS.get(key, "") if model is Config else "") or did_you_mean(key, choices)
    inside = f' in "{dotted(location[:-1])}"' if len(location) > 1 else ""
    return source.problem(location, f'there is no key "{key}"{inside}.', hint or f"Keys here: {', '.join(choices)}.")


_HABITS = {
    "n_timesteps": "rlrun calls it `total_timesteps`.",
    "n_envs": "It belongs in the section `env`: `env: {n_envs: 4}`.",
    "env_id": "rlrun writes `env: {id: ...}`.",
    "frame_stack": "It belongs in the section `env`.",
    "env_wrapper": "rlrun writes `env: {wrappers: [...]}`.",
    "env_kwargs": "rlrun writes `env: {kwargs: {...}}`.",
    "cells": "This is a matrix: `rlrun matrix FILE` trains it.",
    "callback": "rlrun writes `callbacks: [{class: my_module:MyCallback}]`.",
    "eval_freq": "rlrun writes `evaluation: {every: N}`, in timesteps.",
    "save_freq": "rlrun writes `checkpoint: {every: N}`, in timesteps.",
}

_VALUE_HABITS = {
    **dict.fromkeys(("dummy", "DummyVecEnv"), 'rlrun calls it "serial".'),
    **dict.fromkeys(("subproc", "SubprocVecEnv"), 'rlrun calls it "workers".'),
}


def model_at(path: KeyPath, root: type[BaseModel] = Config) -> type[BaseModel] | None:
    """The model of a section, by its key path below the root's model; None where there is none."""
    model, parts = root, [part for part in path if not isinstance(part, int)]
    while parts:
        part = parts.pop(0)
        field_info = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        inner = _model_in(field_info.annotation) if field_info else None
        if field_info is None or inner is None:
            return None
        if getattr(field_info.annotation, "__origin__", None) is dict and parts:
            parts.pop(0)  # the name of one of several sections of a kind
        model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(_model_in, getattr(annotation, "__args__", ())) if m), None)
