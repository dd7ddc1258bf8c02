"""The section ``search`` of a config, checked: every name and every end of a range must be one that could train."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from rlrun.algorithms.hyperparameters import resolve
from rlrun.algorithms.registry import Algorithm
from rlrun.algorithms.search_spaces import SEARCH_SPACES
from rlrun.config.loading import Override, Source, apply_overrides, dotted, validate
from rlrun.config.search import Range, full_name, parse_range, ranges
from rlrun.errors import ConfigError, Problem, UsageError

# Parts of `env` that make another task, or that say where it is simulated.
_NOT_SEARCHED = ("env.id", "env.vec", "env.imports", "env.worker_timeout", "env.seed_every_reset")


def check_search(source: Source, algorithm: Algorithm) -> list[Problem]:
    """What is wrong with a config's own search space."""
    written = source.values.get("search")
    if written is None or not isinstance(written, dict):
        return []
    if not written:
        hint = "Name a hyperparameter, or leave the section out for the algorithm's own."
        return [source.problem(("search",), "the search space is empty.", hint)]
    problems, seen = [], dict[str, str]()
    for inner, form in ranges(written):
        if not isinstance(form, Mapping):
            continue  # the schema says it
        path, name, key = ("search", *inner), dotted(inner), full_name(inner)
        twice = next((other for full, other in seen.items() if _overlap(full, key)), None)
        seen.setdefault(key, name)
        if twice is not None:
            problems.append(source.problem(path, f'"{name}" overlaps "{twice}".', "Name each value once."))
        elif any(f"{key}.".startswith(f"{fixed}.") for fixed in _NOT_SEARCHED) or key in ("env", "hyperparameters"):
            hint = "A search may change hyperparameters, normalize, and the env's copies, keywords and wrappers."
            problems.append(source.problem(path, f'"{name}" cannot be searched.', hint))
        else:
            problems += _range_problems(source, algorithm, path, key, form)
    return problems


def _range_problems(source: Source, algorithm: Algorithm, path: tuple[str, ...], key: str, form: Any) -> list[Problem]:
    try:
        searched = parse_range(form)
    except ValueError as error:
        return [source.problem(path, f"{error}.")]
    return _name_problems(source, algorithm, path, key, searched)


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _name_problems(
    source: Source, algorithm: Algorithm, path: tuple[str, ...], key: str, searched: Range
) -> list[Problem]:
    """What the config would say if the value stood in it."""
    for value in searched.samples():
        try:
            trial = with_values(source, {key: value})
        except ConfigError as error:
            first = error.problems[0]
            return [source.problem(path, first.message, first.hint)]
        messages = [(problem.path, problem.message, problem.hint) for problem in validate(trial)[1]]
        hyperparameters = trial.values.get("hyperparameters")
        if isinstance(hyperparameters, dict):
            findings = resolve(algorithm, hyperparameters)[1]
            messages += [(dotted(finding.path), finding.message, finding.hint) for finding in findings]
        for where, message, hint in messages:
            if _overlap(where, key):
                return [source.problem(path, message, hint)]
    return []


def with_values(source: Source, values: Mapping[str, Any]) -> Source:
    """A copy of what the user wrote, with some values replaced.

    :param values: by dotted key
    :raises ConfigError: when a key goes into something that is no section
    """
    changed = Source(copy.deepcopy(source.values), dict(source.places), source.path)
    apply_overrides(changed, [Override(key, copy.deepcopy(value), "the search") for key, value in values.items()])
    return changed


def search_space(source: Source, algorithm: Algorithm) -> dict[str, Range]:
    """What is searched, by the full dotted keys: the config's section, else what its policy takes of the table.

    :raises UsageError: when there is nothing to search
    """
    written = source.values.get("search")
    if written:
        return {full_name(path): parse_range(form) for path, form in ranges(written)}
    table = {full_name((name,)): parse_range(form) for name, form in SEARCH_SPACES.get(algorithm.name, {}).items()}
    path = ("search",)
    space = {key: found for key, found in table.items() if not _name_problems(source, algorithm, path, key, found)}
    if not space:
        message = f"There is no search space for {algorithm.name}."
        raise UsageError(message, "Write one into the config: `search: {learning_rate: {log: [1e-5, 1e-2]}}`.")
    return space
