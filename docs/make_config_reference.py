"""Writes docs/config.md, the reference of the config, from the code: `python docs/make_config_reference.py`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rlrun.algorithms import schedules
from rlrun.algorithms.hyperparameters import allowed_classes
from rlrun.algorithms.registry import algorithms
from rlrun.config import loading
from rlrun.config.loading import model_at
from rlrun.config.schema import Config
from rlrun.config.signatures import accepts_schedule, expected_class, keyword_parameters
from rlrun.envs import recipe, seeding
from rlrun.envs.families import _TABLE as FAMILIES
from rlrun.envs.wrappers import KNOWN
from rlrun.training.json_schema import config_schema
from rlrun.training.template import flow
from rlrun.training.trackers import _TABLE as TRACKERS

TARGET = Path(__file__).with_name("config.md")
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "string",
    "boolean": "true or false",
    "null": "null",
    "object": "section",
}
_INTRODUCTION = """\
<!-- Written by `python docs/make_config_reference.py`. Change the code it reads, not this file. -->
# The config

A config is one YAML file that describes one complete run. `rlrun check FILE` finds what is wrong with it.
`rlrun check --explain FILE` prints every value and where it came from. `rlrun init --env ID --algo A` writes one to
start from, and `rlrun schema` prints a JSON Schema, from which editors complete.
"""
_NUMBERS = """\
Values are read by the rules of YAML 1.2, and numbers may hold underscores: `3e-4`, `1e6` and `100_000` are numbers;
`off`, `yes` and `1:30` are strings. `--set` reads values by the same rules: `--set hyperparameters.gamma=0.98`,
`--set 'env.kwargs={is_slippery: false}'`. Unknown keys are errors everywhere. Tags, merge keys and duplicate keys are
errors too: reading a config never runs code.
"""
_HYPERPARAMETERS = """\
These are the keyword arguments of the algorithm's class, with its names, defaults and units. They are checked against
the class's signature. `rlrun schema` lists all of them with SB3's descriptions. Nested keywords are checked likewise:
`policy_kwargs` against the policy, `replay_buffer_kwargs` against `replay_buffer_class`, and so on. Some keywords are
set elsewhere: `env`, `seed`, `device` and `tensorboard_log` have keys of their own.

Action noise is `{normal: {sigma: 0.1}}` or `{ornstein_uhlenbeck: {sigma: 0.1}}`, in actions scaled to [-1, 1].
"""
_CLASSES = """\
A class is named without a module where it stands in one of these lists. Your own class is `package.module:Name`, and
must be a subclass of what the keyword expects. The folder of the config and the current folder are importable.
"""


def render() -> str:
    """The text of docs/config.md."""
    schema = config_schema()
    parts = [
        _INTRODUCTION,
        "## Reading",
        f"{_markdown(_paragraphs(loading)[1])}\n\n{_NUMBERS}",
        "## Keys",
        _fields(schema, Config, schema["properties"], schema["required"]),
        *_sections(schema),
        "### hyperparameters",
        _HYPERPARAMETERS,
        "## Schedules",
        _schedules(),
        "## Classes",
        _CLASSES + "\n" + _table(("keyword", "a subclass of", "names"), _class_slots()),
        "## Wrappers",
        _table(("names", "module", "in evaluation and video", "place"), _wrappers()),
        "## Wrap order",
        _order(),
        "## Seeds and streams",
        _streams(),
        "## Algorithms",
        _table(("algo", "class", "action spaces", "policies", "learns from"), _algorithms()),
        "## Env families",
        _table(("family", "ids", "installed by", "resets seeded", "evaluated with"), _families()),
        "## Trackers",
        _table(("tracker", "package", "installed by", "what it is"), _trackers()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _sections(schema: dict[str, Any]) -> Iterator[str]:
    for name in schema["properties"]:
        model = model_at((name,))
        if model is not None:
            definition = schema["$defs"][model.__name__]
            yield f"### {name}"
            yield _markdown(inspect.cleandoc(model.__doc__ or ""))
            yield _fields(schema, model, definition["properties"], definition.get("required", []))


def _fields(schema: dict[str, Any], model: type[BaseModel], properties: dict[str, Any], required: list[str]) -> str:
    rows = []
    for key, prop in properties.items():
        default = "required" if key in required else f"`{flow(prop['default'])}`"
        if "$ref" in prop:
            default = "required" if key in required else "see below"
        section = model_at((key,)) if model is Config else None
        described = prop.get("description") or inspect.cleandoc((section.__doc__ if section else "") or "")
        rows.append((f"`{key}`", _type(schema, key, prop), default, described))
    return _table(("key", "type", "default", "description"), rows)


def _type(schema: dict[str, Any], key: str, prop: dict[str, Any]) -> str:
    if key == "algo":
        return "one of the [algorithms](#algorithms)"
    if "$ref" in prop:
        target = schema["$defs"][prop["$ref"].rpartition("/")[2]]
        return "section" if target.get("type") == "object" else "name or section"
    if "anyOf" in prop:
        return " or ".join(dict.fromkeys(_type(schema, "", option) for option in prop["anyOf"]))
    if "enum" in prop:
        return " or ".join(f"`{value}`" for value in prop["enum"])
    kinds = prop["type"] if isinstance(prop["type"], list) else [prop["type"]]
    if "array" in kinds:
        return f"list ({_type(schema, '', prop['items'])})"
    # The string beside a number is a number with underscores, for editors that do not know them.
    words = [_KINDS[kind] for kind in kinds if kind != "string" or len(kinds) == 1]
    return " or ".join(words) + _bounds(prop)


def _bounds(prop: dict[str, Any]) -> str:
    words = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}
    found = [f"{word} {prop[key]:,}" for key, word in words.items() if key in prop]
    return f" {' '.join(found)}" if found else ""


def _schedules() -> str:
    rows = []
    for name, algorithm in algorithms().items():
        taking = [k for k, p in keyword_parameters(algorithm.load()).items() if accepts_schedule(p.annotation)]
        rows.append((f"`{name}`", ", ".join(f"`{keyword}`" for keyword in taking)))
    return "\n\n".join(map(_markdown, _paragraphs(schedules))) + "\n\n" + _table(("algo", "keywords"), rows)


def _class_slots() -> list[tuple[str, ...]]:
    slots: dict[str, Any] = {}
    for algorithm in algorithms().values():
        cls: Any = algorithm.load()
        for owner in (cls, *cls.policy_aliases.values()):
            for name, parameter in keyword_parameters(owner).items():
                expected = expected_class(parameter.annotation)
                if expected is not None and name != "policy":
                    slots.setdefault(name, expected)
    return [
        (f"`{name}`", f"`{expected.__name__}`", ", ".join(f"`{known}`" for known in allowed_classes(expected)))
        for name, expected in slots.items()
    ]


def _wrappers() -> list[tuple[str, ...]]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, known in KNOWN.items():
        outside = f"with `{flow(dict(known.outside_training))}`" if known.outside_training else "the same"
        place = "inside the Monitor" if known.inside_monitor else "around the Monitor"
        facts = (f"`{known.module}`", "left out" if known.training_only else outside, place)
        groups.setdefault(facts, []).append(f"`{name}`")
    return [(", ".join(names), *facts) for facts, names in groups.items()]


def _order() -> str:
    introduction, _, block = inspect.cleandoc(recipe.__doc__ or "").partition("::\n\n")
    return f"{_markdown(introduction.strip())}:\n\n```text\n{inspect.cleandoc(block)}\n```"


def _streams() -> str:
    return "\n\n".join(_rst_table(p) if p.startswith("===") else _markdown(p) for p in _paragraphs(seeding))


def _algorithms() -> Iterator[tuple[str, ...]]:
    for name, algorithm in algorithms().items():
        cls: Any = algorithm.load()
        source = "a replay buffer" if algorithm.is_off_policy else "what it has just collected"
        policies = ", ".join(f"`{alias}`" for alias in cls.policy_aliases)
        yield f"`{name}`", f"`{algorithm.target}`", ", ".join(algorithm.actions), policies, source


def _families() -> Iterator[tuple[str, ...]]:
    for family in FAMILIES:
        extra = f"`rlrun[{family.extra}]`" if family.extra else "`rlrun`"
        resets = "every one" if family.seed_every_reset else "the first"
        actions = "the most likely action" if family.deterministic_evaluation else "sampled actions"
        yield family.name, f"`{family.pattern}`", extra, resets, actions


def _trackers() -> Iterator[tuple[str, ...]]:
    for name, tracker in TRACKERS.items():
        extra = f"`rlrun[{tracker.extra}]`" if tracker.extra else "`rlrun`"
        described = inspect.getdoc(tracker.open) or ""
        yield f"`{name}`", f"`{tracker.module}`", extra, _markdown(described.replace("\n", " "))


def _paragraphs(module: Any) -> list[str]:
    return [paragraph.strip("\n") for paragraph in inspect.cleandoc(module.__doc__ or "").split("\n\n")]


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _rst_table(text: str) -> str:
    """A simple table of reStructuredText as one of Markdown."""
    ruler, head, _, *body, _ = text.splitlines()
    spans = [match.span() for match in re.finditer("=+", ruler)]
    rows = [[_markdown(line[begin:end].strip()) for begin, end in spans] for line in (head, *body)]
    return _table(rows[0], rows[1:])


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(_markdown(text).replace("|", "\\|").split())


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
