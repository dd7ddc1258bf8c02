"""What a class's signature says: its keywords, and whether a plain value fits an annotation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Optional, Union

import pytest

from rlrun.config.signatures import accepts_schedule, allows_none, convert, expected_class, keyword_parameters

Schedule = Callable[[float], float]


class Base:
    def __init__(self, env: Any, gamma: float = 0.9, *, tau: float = 0.1) -> None: ...


class Middle(Base):
    def __init__(self, env: Any, n_steps: int = 5, gamma: float = 0.99, **kwargs: Any) -> None: ...


class Silent(Middle):
    pass


class Closed(Middle):
    def __init__(self, env: Any, only: int = 1) -> None: ...


class Positional(Base):
    def __init__(self, hidden: int, /, *more: int, shown: int = 1) -> None: ...


def test_keywords_are_followed_through_kwargs_to_the_base_classes() -> None:
    assert set(keyword_parameters(Middle)) == {"env", "n_steps", "gamma", "tau"}
    assert keyword_parameters(Middle)["gamma"].default == 0.99, "the subclass's own default"


def test_a_class_without_an_init_has_its_base_classs_keywords() -> None:
    assert keyword_parameters(Silent) == keyword_parameters(Middle)


def test_a_class_without_kwargs_takes_only_what_it_names() -> None:
    assert set(keyword_parameters(Closed)) == {"env", "only"}
    assert set(keyword_parameters(Positional)) == {"shown"}


@pytest.mark.parametrize(
    ("value", "annotation", "converted"),
    [
        (5, int, 5),
        (1e6, int, 1_000_000),
        (0.5, float, 0.5),
        (1, float, 1.0),
        (True, bool, True),
        ("a", str, "a"),
        (None, Optional[int], None),  # noqa: UP045
        (None, int | None, None),
        (3.0, int | None, 3),
        (3, float | str, 3.0),
        ("auto", Union[str, float], "auto"),  # noqa: UP007
        ([1, "episode"], tuple[int, str], (1, "episode")),
        ([1, "episode"], int | tuple[int, str], (1, "episode")),
        ([1e1, 2], list[int], [10, 2]),
        ([1, "x"], list, [1, "x"]),
        ({"pi": [64.0]}, dict[str, list[int]], {"pi": [64]}),
        ({"a": 1}, dict, {"a": 1}),
        ([64], list[int] | dict[str, list[int]] | None, [64]),
        ("anything", Any, "anything"),
        ("anything", inspect.Parameter.empty, "anything"),
        (object, "a string", object),
    ],
)
def test_a_value_that_fits_is_converted(value: Any, annotation: Any, converted: Any) -> None:
    found = convert(value, annotation)
    assert found == converted
    assert type(found) is type(converted)


@pytest.mark.parametrize(
    ("value", "annotation", "wanted"),
    [
        (1.5, int, "a whole number"),
        (True, int, "a whole number"),
        ("5", int, "a whole number"),
        (True, float, "a number"),
        (None, float, "a number"),
        (1, bool, "true or false"),
        ("yes", bool, "true or false"),
        (3, str, "a string"),
        ("x", int | None, "a whole number or null"),
        ([1, 2, 3], tuple[int, str], "a list of a whole number and a string"),
        (["a", "b"], tuple[int, str], "a list of a whole number and a string"),
        ("x", float | Schedule, "a number or a schedule"),
        ([True], list[int], "a list of whole numbers"),
        (["x"], list[int] | dict[str, list[int]], "a list of whole numbers or a section of lists of whole numbers"),
        ({"pi": 64}, dict[str, list[int]], "a section of lists of whole numbers"),
        (3, list, "a list"),
        (3, dict[str, Any], "a section"),
        ("x", inspect.Parameter, "Parameter"),
    ],
)
def test_a_value_that_does_not_fit_is_told_what_was_wanted(value: Any, annotation: Any, wanted: str) -> None:
    with pytest.raises(TypeError) as raised:
        convert(value, annotation)
    assert str(raised.value) == wanted


@pytest.mark.parametrize("annotation", [Schedule, float | Schedule, Union[float, Schedule], None | Schedule])  # noqa: UP007
def test_a_schedule_is_accepted_where_a_callable_is_annotated(annotation: Any) -> None:
    assert accepts_schedule(annotation)


@pytest.mark.parametrize("annotation", [float, str | float, list[int], type[Base], Any, "Schedule"])
def test_a_schedule_is_accepted_nowhere_else(annotation: Any) -> None:
    assert not accepts_schedule(annotation)


def test_the_class_that_a_slot_expects_is_read_from_the_annotation() -> None:
    assert expected_class(type[Base]) is Base
    assert expected_class(type[Base] | None) is Base
    assert expected_class(Optional[type[Base]]) is Base  # noqa: UP045
    assert expected_class(Base) is None
    assert expected_class(int | str) is None
    assert allows_none(type[Base] | None)
    assert not allows_none(type[Base])
