"""Search ranges: what each form gives, and what is no range is said in words."""

from __future__ import annotations

from typing import Any

import pytest

from rlrun.config.search import FORMS, full_name, label, parse_range, ranges


@pytest.mark.parametrize(
    ("written", "drawn", "value"),
    [
        ({"log": [1e-5, 1e-2]}, 0.000123456, 0.0001235),
        ({"uniform": [0, 1]}, 0.25, 0.25),
        ({"int": [1, 5]}, 3, 3),
        ({"power_of_two": [3, 10]}, 8, 256),
        ({"one_minus_log": [1e-4, 0.1]}, 0.0072, 0.9928),
        ({"choice": ["Tanh", "ReLU"]}, "ReLU", "ReLU"),
        ({"choice": [[64], [64, 64]]}, "[64, 64]", [64, 64]),
        ({"choice": [None, {"normal": {"sigma": 0.1}}]}, None, None),
    ],
)
def test_each_form_makes_a_value_of_what_is_drawn(written: Any, drawn: Any, value: Any) -> None:
    found = parse_range(written)
    assert found.value(drawn) == value
    assert found.form in FORMS


def test_a_rounded_value_stays_within_its_range() -> None:
    found = parse_range({"log": [1.23446e-5, 1e-2]})
    assert found.value(1.23446e-5) == 1.23446e-5


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (3, "must be one form"),
        ({}, "must be one form"),
        ({"log": [1, 2], "int": [1, 2]}, "must be one form"),
        ({"lgo": [1, 2]}, 'did you mean "log"'),
        ({"log": [0, 2]}, "above 0"),
        ({"log": [2, 1]}, "a lower end and a higher one"),
        ({"log": [1e-3]}, "two numbers"),
        ({"uniform": [True, 2]}, "two numbers"),
        ({"uniform": [0, float("inf")]}, "a lower end"),
        ({"int": [0.5, 2]}, "whole numbers"),
        ({"power_of_two": [3, 99]}, "exponents"),
        ({"one_minus_log": [0.1, 2]}, "at most 1"),
        ({"choice": []}, "a list of values"),
        ({"choice": "Tanh"}, "a list of values"),
        ({"choice": [[64], [64]]}, "twice"),
    ],
)
def test_what_is_no_range_is_said(written: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_range(written)


def test_names_may_be_dotted_or_sections_and_bare_ones_are_hyperparameters() -> None:
    written = {
        "gamma": {"log": [1, 2]},
        "env": {"n_envs": {"choice": [1, 2]}},
        "normalize.norm_obs": {"choice": [True]},
    }
    assert [full_name(path) for path, _ in ranges(written)] == [
        "hyperparameters.gamma",
        "env.n_envs",
        "normalize.norm_obs",
    ]


def test_lists_and_sections_are_stored_as_text() -> None:
    assert [label(value) for value in (None, 1, "a", [64], {"a": 1})] == [None, 1, "a", "[64]", '{"a": 1}']
