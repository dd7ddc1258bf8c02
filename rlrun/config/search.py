"""What a hyperparameter may be in a search: ``{log: [1e-5, 1e-2]}``, ``{choice: [8, 16]}`` and their kin.

======================================  ================================================================
form                                    what is drawn
======================================  ================================================================
``{uniform: [low, high]}``              a number between the two
``{log: [low, high]}``                  a number, evenly over orders of magnitude
``{int: [low, high]}``                  a whole number
``{power_of_two: [3, 10]}``             8, 16, ..., 1024
``{one_minus_log: [1e-4, 0.1]}``        1 minus a number that is even over orders of magnitude: 0.9 to 0.9999
``{choice: [a, b, ...]}``               one of the values, which may be lists and sections too
======================================  ================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlrun.errors import did_you_mean, shown

FORMS = ("uniform", "log", "int", "power_of_two", "one_minus_log", "choice")
_LARGEST_POWER = 30
_DIGITS = 4  # of a number that is drawn: more would only look precise


@dataclass(frozen=True)
class Range:
    """What one hyperparameter may be.

    :ivar form: one of FORMS
    :ivar low: of what is drawn, before it becomes a value; 0 for a choice
    :ivar choices: the values of a choice
    """

    form: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()

    def value(self, drawn: Any) -> Any:
        """The value that a config gets for what a sampler drew: a number, or a label of a choice."""
        if self.form == "choice":
            return next(choice for choice in self.choices if label(choice) == drawn)
        if self.form == "int":
            return int(drawn)
        if self.form == "power_of_two":
            return 2 ** int(drawn)
        rounded = min(max(float(f"{drawn:.{_DIGITS}g}"), self.low), self.high)
        return round(1 - rounded, 12) if self.form == "one_minus_log" else rounded

    def samples(self) -> list[Any]:
        """Every choice, or the two ends: what must be right for the whole range to be."""
        if self.form == "choice":
            return list(self.choices)
        return [self.value(self.low), self.value(self.high)]


def label(choice: Any) -> Any:
    """A choice as a sampler stores it: lists and sections as text."""
    return choice if choice is None or isinstance(choice, bool | int | float | str) else json.dumps(choice)


def ranges(written: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each range that a section ``search`` writes, with its path: names may be dotted, or sections in sections.

    A range holds a list; a section holds ranges and sections.
    """
    for name, inner in written.items():
        here = (*path, str(name))
        if isinstance(inner, Mapping) and inner and all(isinstance(item, Mapping) for item in inner.values()):
            yield from ranges(inner, here)
        else:
            yield here, inner


def parse_range(written: Any) -> Range:
    """The range that a config writes.

    :raises ValueError: with what is wrong, as a sentence without its end
    """
    if not (isinstance(written, Mapping) and len(written) == 1):
        raise ValueError(f"must be one form with its values, such as {{log: [1e-5, 1e-2]}}, not {shown(written)}")
    ((form, given),) = written.items()
    if form not in FORMS:
        near = did_you_mean(str(form), FORMS).replace("Did", "did") or f"there are {', '.join(FORMS)}"
        raise ValueError(f'there is no form "{form}" ({near})')
    if form == "choice":
        return Range(form, choices=_choices(given))
    low, high = _ends(form, given)
    if form in ("log", "one_minus_log") and low <= 0:
        raise ValueError(f"{form} needs ends above 0, not {shown(given)}")
    if form == "one_minus_log" and high > 1:
        raise ValueError(f"one_minus_log needs ends of at most 1, not {shown(given)}")
    if form == "power_of_two" and not 0 <= low <= high <= _LARGEST_POWER:
        raise ValueError(f"power_of_two takes exponents from 0 to {_LARGEST_POWER}, not {shown(given)}")
    return Range(form, low, high)


def _choices(given: Any) -> tuple[Any, ...]:
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(f"choice needs a list of values, not {shown(given)}")
    labels = [(type(choice), label(choice)) for choice in given]
    if len(set(labels)) < len(labels):
        raise ValueError(f"choice names a value twice: {shown(given)}")
    return tuple(given)


def _ends(form: str, given: Any) -> tuple[float, float]:
    is_pair = isinstance(given, list | tuple) and len(given) == 2
    if not is_pair or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in given):
        raise ValueError(f"{form} needs two numbers, such as [1, 10], not {shown(given)}")
    low, high = given
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        raise ValueError(f"{form} needs a lower end and a higher one, not {shown(given)}")
    if form in ("int", "power_of_two"):
        if low != int(low) or high != int(high):
            raise ValueError(f"{form} needs whole numbers, not {shown(given)}")
        return int(low), int(high)
    return float(low), float(high)


# What a search may change; everything else is a hyperparameter.
_SECTIONS = ("env", "hyperparameters", "normalize")


def full_name(path: tuple[str, ...]) -> str:
    """The dotted key of a config that a name in ``search`` means: ``gamma`` is ``hyperparameters.gamma``."""
    name = ".".join(path)
    return name if name.partition(".")[0] in _SECTIONS else f"hyperparameters.{name}"
