"""The JSON Schema of configs, from which editors complete and check them.

rlrun's own sections come from the pydantic models; ``hyperparameters`` come from the signatures and docstrings of
SB3's classes. Whatever rlrun accepts is valid here. The reverse holds as far as a schema can say it: `rlrun check`
knows more.
"""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from rlrun.algorithms.hyperparameters import (
    BOUNDS,
    CHOICES,
    PASSED_ON,
    SET_ELSEWHERE,
    allowed_classes,
    noise_keywords,
    noise_kinds,
)
from rlrun.algorithms.registry import Algorithm, algorithms
from rlrun.config.schema import BUDGETS, Config
from rlrun.config.search import FORMS
from rlrun.config.signatures import accepts_schedule, expected_class, keyword_parameters
from rlrun.envs.wrappers import KNOWN
from rlrun.training.trackers import tracker_names

Schema = dict[str, Any]

_CLASS_PATH = {"$ref": "#/$defs/class_path"}
_KWARGS = {"$ref": "#/$defs/kwargs"}
_SCHEDULE = {"$ref": "#/$defs/schedule"}
_DURATION = r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s?)?$"
# rlrun reads 100_000 as a number; to an editor that follows YAML 1.2 to the letter it is a string.
_UNDERSCORED = "^[0-9]+_[0-9_]*$"
# pydantic leaves these as they are where a validator comes before them.
_BOUND_WORDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
_PARAM = re.compile(r"^:param (\w+):(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_ENDS = {
    "type": "array",
    "items": {"type": ["number", "string"], "pattern": _UNDERSCORED},
    "minItems": 2,
    "maxItems": 2,
}
_DEFINITIONS: Schema = {
    "class_path": {
        "description": "`package.module:Name`",
        "type": "string",
        "pattern": r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$",
    },
    "kwargs": {"description": "Keyword arguments.", "type": ["object", "null"]},
    "schedule": {
        "description": "`lin_1e-3` (falls to 0), `const_3e-4`, `{linear: [1e-3, 0]}` or `{constant: 3e-4}`",
        "type": ["string", "object"],
        "pattern": r"^(lin|const)_[-+]?([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$",
        "properties": {
            "linear": {**_NUMBERS, "minItems": 2, "maxItems": 2},
            "constant": {**_NUMBERS, "type": ["number", "array"], "minItems": 1, "maxItems": 1},
        },
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    },
}
_DEFINITIONS["search_range"] = {
    "description": "`{log: [1e-5, 1e-2]}`, `{choice: [8, 16]}` or a section of such ranges.",
    "anyOf": [
        *(
            {
                "type": "object",
                "properties": {form: {"type": "array", "minItems": 1} if form == "choice" else _ENDS},
                "required": [form],
                "additionalProperties": False,
            }
            for form in FORMS
        ),
        {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"not": {"enum": list(FORMS)}},
            "additionalProperties": {"$ref": "#/$defs/search_range"},
        },
    ],
}


def config_schema() -> Schema:
    """The schema of a whole config (https://json-schema.org/draft/2020-12/schema)."""
    import sb3_contrib
    import stable_baselines3

    schema: Schema = _adapted(Config.model_json_schema(by_alias=True))
    properties, definitions = schema["properties"], schema["$defs"]
    definitions |= _DEFINITIONS
    known = algorithms()
    properties["algo"]["enum"] = list(known)
    properties["normalize"]["anyOf"].append({"type": "boolean"})
    properties["max_time"]["anyOf"].append({"type": "string", "pattern": _DURATION, "minLength": 1})
    properties["search"]["anyOf"][0]["additionalProperties"] = {"$ref": "#/$defs/search_range"}
    definitions["EarlyStopConfig"]["anyOf"] = [{"required": ["mean_return"]}, {"required": ["patience"]}]
    wrapper = {"anyOf": [{"enum": list(KNOWN)}, _CLASS_PATH]}
    _add_short_forms(definitions, "WrapperConfig", wrapper, list(KNOWN))
    definitions["EnvConfig"]["properties"]["wrappers"]["items"] = {"$ref": "#/$defs/wrapper"}
    _add_short_forms(definitions, "TrackerConfig", {"enum": tracker_names()}, tracker_names())
    properties["trackers"]["items"] = {"$ref": "#/$defs/tracker"}
    choices = []
    for name, algorithm in known.items():
        try:
            definitions[f"{name}_hyperparameters"] = hyperparameters_schema(algorithm)
        except ImportError:  # a plug-in whose package is broken: its keywords are not checked here
            continue
        then = {"properties": {"hyperparameters": {"$ref": f"#/$defs/{name}_hyperparameters"}}}
        choices.append({"if": {"properties": {"algo": {"const": name}}, "required": ["algo"]}, "then": then})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"Written by `rlrun schema` with stable_baselines3 {stable_baselines3.__version__} "
        f"and sb3_contrib {sb3_contrib.__version__}.",
        "title": "rlrun config",
        **schema,
        "anyOf": [{"required": [key]} for key in BUDGETS],
        "allOf": choices,
    }


def hyperparameters_schema(algorithm: Algorithm) -> Schema:
    """The keyword arguments of an algorithm's class."""
    cls: Any = algorithm.load()
    first_line = (inspect.cleandoc(cls.__doc__ or "").splitlines() or [""])[0]
    return {
        "type": "object",
        "description": f"Keyword arguments of {cls.__name__}. {_clean(first_line)}".strip(),
        "properties": _keywords(cls, set()),
        "additionalProperties": False,
    }


def settable_keywords(cls: type, passed_on: Iterable[str] = ()) -> dict[str, inspect.Parameter]:
    """The keywords of a class that a config may hold: not those that rlrun or the algorithm passes itself."""
    excluded = {*SET_ELSEWHERE, *passed_on}
    return {name: p for name, p in keyword_parameters(cls).items() if name not in excluded}


def parameter_docs(cls: type) -> dict[str, str]:
    """What the ``:param x:`` lines say of each keyword, in the class's docstring or in a base class's."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        for doc in (base.__doc__, getattr(vars(base).get("__init__"), "__doc__", None)):
            for name, text in _PARAM.findall(inspect.cleandoc(doc or "")):
                if cleaned := _clean(text):
                    found.setdefault(name, cleaned)
    return found


def plain_default(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """The default as a config would hold it, in a tuple; an empty tuple when a config cannot hold it."""
    default = parameter.default
    expected = expected_class(parameter.annotation)
    if isinstance(default, type) and expected is not None and default.__name__ in allowed_classes(expected):
        return (default.__name__,)
    return (default,) if default is None or isinstance(default, bool | int | float | str) else ()


def _adapted(node: Any) -> Any:
    """pydantic's schema without titles, with JSON Schema's bounds, and with numbers as YAML writes them."""
    if isinstance(node, list):
        return [_adapted(item) for item in node]
    if isinstance(node, str):
        return node.replace("``", "`")
    if not isinstance(node, dict):
        return node
    result = {}
    for key, value in node.items():
        if key == "title" and isinstance(value, str):
            continue
        is_bound = key in _BOUND_WORDS and isinstance(value, int | float)
        result[_BOUND_WORDS[key] if is_bound else key] = _adapted(value)
    if result.get("type") in ("integer", "number"):
        result |= _number(result["type"])
    return result


def _number(kind: str) -> Schema:
    return {"type": [kind, "string"], "pattern": _UNDERSCORED}


def _add_short_forms(definitions: Schema, full: str, name: Schema, known: Sequence[str]) -> None:
    """Define ``Name`` and ``{Name: {keyword: value}}`` beside the full form ``{name: Name, kwargs: {...}}``."""
    section = definitions[full]
    section["properties"]["name"] = {**section["properties"]["name"], **name}
    one_key = {
        "type": "object",
        "properties": dict.fromkeys(known, _KWARGS),
        "additionalProperties": _KWARGS,
        "propertyNames": name,
        "minProperties": 1,
        "maxProperties": 1,
    }
    forms = [name, one_key, {"$ref": f"#/$defs/{full}"}]
    definitions[full.removesuffix("Config").lower()] = {"description": section["description"], "anyOf": forms}


def _keywords(cls: Any, passed_on: set[str], nested: bool = True) -> Schema:
    docs = parameter_docs(cls)
    parameters = settable_keywords(cls, passed_on)
    result = {}
    for name, parameter in parameters.items():
        if nested and name.endswith("_kwargs"):
            values = _nested(cls, parameters, name.removesuffix("_kwargs"))
        else:
            values = _values(cls, parameter)
        described = {"description": docs[name]} if name in docs else {}
        default = plain_default(parameter)
        result[name] = {**described, **values, **({"default": default[0]} if default else {})}
    return result


def _nested(cls: Any, parameters: dict[str, inspect.Parameter], stem: str) -> Schema:
    """``x_kwargs``: the keywords of every class that ``x_class`` (or ``x``) names; a user's own class may have more."""
    if stem == "policy":
        targets = list(cls.policy_aliases.values())
    elif f"{stem}_class" in parameters:
        targets = list(allowed_classes(expected_class(parameters[f"{stem}_class"].annotation)).values())
    else:
        targets = []
    known: Schema = {}
    for target in targets:
        known = {**_keywords(target, PASSED_ON.get(stem, set()), nested=False), **known}
    return {"type": ["object", "null"], "properties": known}


def _values(cls: Any, parameter: inspect.Parameter) -> Schema:
    """What one keyword may be."""
    name, annotation = parameter.name, parameter.annotation
    if name == "policy":
        return {"anyOf": [{"enum": list(cls.policy_aliases)}, _CLASS_PATH]}
    if name == "action_noise":
        return {"anyOf": [{"type": "null"}, *(_noise(kind, cls) for kind, cls in noise_kinds().items())]}
    if name in CHOICES:
        return {"enum": list(CHOICES[name])}
    options = [option for option in [annotated(annotation)] if option is not None]
    if accepts_schedule(annotation):
        options.append(_SCHEDULE)
    result = _one_of(options) or {}
    low, high = BOUNDS.get(name, (-math.inf, math.inf))
    bounds = {"minimum": low, "maximum": high}
    return {**result, **{word: bound for word, bound in bounds.items() if math.isfinite(bound)}}


def annotated(annotation: Any) -> Schema | None:
    """The schema of an annotation; None when no plain value fits it."""
    if annotation in (Any, inspect.Parameter.empty) or isinstance(annotation, str):
        return {}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _one_of([option for option in map(annotated, arguments) if option is not None])
    if origin is type:
        return _class_name(arguments[0])
    if origin is tuple:
        items = [annotated(argument) or {} for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if (origin or annotation) is list:
        return {"type": "array", **({"items": annotated(arguments[0]) or {}} if arguments else {})}
    if (origin or annotation) is dict:
        values = annotated(arguments[1]) if arguments else None
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    return _PLAIN.get(annotation)


def _one_of(options: Sequence[Schema]) -> Schema | None:
    """Any of several schemas; those that are only types become one."""
    plain = [option for option in options if option.keys() <= {"type", "pattern"}]
    kinds = list(dict.fromkeys(kind for option in plain for kind in _listed(option["type"])))
    merged: Schema = {"type": kinds if len(kinds) > 1 else kinds[0]} if kinds else {}
    if merged and _PLAIN[str] not in plain and any("pattern" in option for option in plain):
        merged["pattern"] = _UNDERSCORED
    others = [part for option in options if option not in plain for part in option.get("anyOf", [option])]
    found = [*others, *([merged] if merged else [])]
    return {"anyOf": found} if len(found) > 1 else found[0] if found else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


_PLAIN: dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: _number("integer"),
    float: _number("number"),
    str: {"type": "string"},
    type(None): {"type": "null"},
}


def _class_name(expected: Any) -> Schema:
    return {"anyOf": [{"enum": list(allowed_classes(expected))}, _CLASS_PATH]}


def _noise(kind: str, cls: type) -> Schema:
    docs = parameter_docs(cls)
    properties = {name: {"type": "number", "description": docs.get(name, "")} for name in noise_keywords(cls)}
    settings = {"type": "object", "properties": properties, "required": ["sigma"], "additionalProperties": False}
    return {"type": "object", "properties": {kind: settings}, "required": [kind], "additionalProperties": False}


def _clean(text: str) -> str:
    """A docstring's text on one line, without Sphinx's markup."""
    text = re.sub(r"\s*See :ref:`\w+`\.?", "", text)
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").split())
