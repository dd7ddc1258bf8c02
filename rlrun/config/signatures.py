"""What a class's signature says: its keywords, and whether a plain value fits an annotation."""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
import types
import typing
from typing import Any

from rlrun.config.schema import whole_number


def keyword_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The keywords a class takes, through ``**kwargs`` up to the base classes that name them."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(_signature(vars(base)["__init__"]).parameters.values())[1:]
        variadic = any(p.kind is p.VAR_KEYWORD for p in parameters)
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        if not variadic:
            break
    return found


def _signature(function: Any) -> inspect.Signature:
    """With annotations as types where the module wrote them as strings, if their names can be found."""
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # names that exist for type checkers only; evaluating may raise anything
        return inspect.signature(function)


def convert(value: Any, annotation: Any) -> Any:
    """A plain value as its annotation wants it: ``1e6`` for an int becomes one, a list for a tuple too.

    :raises TypeError: with the words for what was wanted
    """
    if annotation in (Any, inspect.Parameter.empty) or isinstance(annotation, str):
        return value
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _convert_to_one_of(value, arguments)
    if annotation is type(None) and value is None:
        return None
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if isinstance(value, int) else value
    if annotation is int and isinstance(whole_number(value), int) and not isinstance(value, bool):
        return whole_number(value)
    if annotation in (bool, str) and isinstance(value, annotation):
        return value
    with contextlib.suppress(TypeError):  # of an item; what is wanted is said of the whole value
        if origin is tuple and isinstance(value, list | tuple) and len(value) == len(arguments):
            return tuple(convert(item, wanted) for item, wanted in zip(value, arguments, strict=True))
        if (origin or annotation) is list and isinstance(value, list):
            return [convert(item, arguments[0]) for item in value] if arguments else value
        if (origin or annotation) is dict and isinstance(value, dict):
            return {key: convert(item, arguments[1]) for key, item in value.items()} if arguments else value
    raise TypeError(_words(annotation))


def _convert_to_one_of(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        try:
            return convert(value, option)
        except TypeError:
            continue
    raise TypeError(" or ".join(dict.fromkeys(_words(option) for option in options)))


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
_WORDS_FOR_MANY = {int: "whole numbers", float: "numbers", str: "strings", list[int]: "lists of whole numbers"}


def _words(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin = typing.get_origin(annotation)
    if accepts_schedule(annotation):
        return "a schedule"
    if origin is tuple:
        return "a list of " + " and ".join(_words(a) for a in typing.get_args(annotation))
    kind = {list: "a list", dict: "a section"}.get(origin or annotation)
    if kind is None:
        return str(getattr(annotation, "__name__", annotation))
    items = _WORDS_FOR_MANY.get(typing.get_args(annotation)[-1]) if origin else None
    return f"{kind} of {items}" if items else kind


def accepts_schedule(annotation: Any) -> bool:
    """Whether an annotation is ``Schedule`` (a callable), alone or in a union."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = typing.get_args(annotation) if is_union else (annotation,)
    callables = (collections.abc.Callable, typing.Callable)
    return any(option in callables or typing.get_origin(option) in callables for option in options)


def expected_class(annotation: Any) -> Any:
    """``X`` where the annotation is ``type[X]``, alone or in a union."""
    for option in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(option) is type:
            return typing.get_args(option)[0]
    return None


def allows_none(annotation: Any) -> bool:
    """Whether an annotation is a union with None."""
    return type(None) in typing.get_args(annotation)
