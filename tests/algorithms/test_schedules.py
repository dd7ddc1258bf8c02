"""A schedule is a value as a function of the progress that remains, from 1 to 0."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from rlrun.algorithms.schedules import is_schedule_form, parse_schedule


@pytest.mark.parametrize("value", ["const_3e-4", "const_0.0003", {"constant": 3e-4}, {"constant": [3e-4]}])
def test_a_constant_stays(value: Any) -> None:
    schedule = parse_schedule(value)
    assert [schedule(progress) for progress in (1.0, 0.5, 0.0)] == [3e-4, 3e-4, 3e-4]


@pytest.mark.parametrize("value", ["lin_1e-3", "lin_0.001", {"linear": [1e-3, 0]}, {"linear": [0.001, 0.0]}])
def test_a_line_falls_to_zero(value: Any) -> None:
    schedule = parse_schedule(value)
    assert [schedule(progress) for progress in (1.0, 0.5, 0.0)] == pytest.approx([1e-3, 5e-4, 0.0])


def test_a_line_goes_from_its_first_number_to_its_second() -> None:
    schedule = parse_schedule({"linear": [1, 3]})
    assert [schedule(progress) for progress in (1.0, 0.75, 0.0)] == pytest.approx([1.0, 1.5, 3.0])


@pytest.mark.parametrize(
    "value",
    [
        *("cosnt_3e-4", "linear_1e-3", "lin", "lin_", "lin_x", "const_", "auto_0.1", "1e-3", "", "LIN_1e-3"),
        *("const_nan", "lin_inf", "lin_1e999"),
        *({}, {"linear": [1e-3]}, {"linear": 1e-3}, {"linear": [1, 2, 3]}, {"constant": [1, 2]}, {"constant": "1"}),
        *({"liner": [1, 0]}, {"linear": [1, 0], "constant": 1}, {"constant": True}, {"linear": ["1", 0]}),
        *({"constant": float("nan")}, {"linear": [float("inf"), 0]}, {"linear": None}),
    ],
)
def test_anything_else_is_no_schedule_and_is_told_the_forms(value: Any) -> None:
    assert is_schedule_form(value)
    with pytest.raises(ValueError, match="a schedule is lin_1e-3, const_3e-4,"):
        parse_schedule(value)


@pytest.mark.parametrize("value", [1e-3, 1, None, True, [1e-3, 0]])
def test_a_plain_value_is_not_written_as_a_schedule(value: Any) -> None:
    assert not is_schedule_form(value)


@pytest.mark.parametrize("value", ["lin_1e-3", "const_3e-4"])
def test_a_saved_schedule_refers_to_nothing_of_rlruns(value: str) -> None:
    assert b"rlrun" not in pickle.dumps(parse_schedule(value))
