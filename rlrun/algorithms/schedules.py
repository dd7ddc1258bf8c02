"""Schedules: a value as a function of ``progress_remaining``, which goes from 1 to 0.

``lin_1e-3`` and ``{linear: [1e-3, 0]}`` fall in a line; ``const_3e-4`` and ``{constant: 3e-4}`` stay. They are made
of SB3's own classes, so that a saved model refers to nothing of rlrun's.
"""

from __future__ import annotations

import math
from typing import Any


def is_schedule_form(value: Any) -> bool:
    """Whether a value is written as a schedule (rightly or not), rather than as a plain number."""
    return isinstance(value, str | dict)


def parse_schedule(value: Any) -> Any:
    """The callable that a config's schedule stands for.

    :raises ValueError: when it is no schedule
    """
    from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule

    kind, numbers = _parts(value)
    if kind == "linear":
        return LinearSchedule(numbers[0], numbers[1], 1.0)
    return ConstantSchedule(numbers[0])


def _parts(value: Any) -> tuple[str, list[float]]:
    if isinstance(value, dict) and len(value) == 1:
        ((kind, given),) = value.items()
        numbers = given if isinstance(given, list) else [given]
        wanted = {"linear": 2, "constant": 1}.get(kind)
        if wanted == len(numbers) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
            return kind, [_finite(n) for n in numbers]
    elif isinstance(value, str):
        prefix, _, number = value.partition("_")
        if prefix in ("lin", "const"):
            try:
                parsed = _finite(number)
            except ValueError:
                raise ValueError(_FORMS) from None
            return ("linear", [parsed, 0.0]) if prefix == "lin" else ("constant", [parsed])
    raise ValueError(_FORMS)


def _finite(number: str | float) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(_FORMS)
    return float(number)


_FORMS = "a schedule is lin_1e-3, const_3e-4, {linear: [1e-3, 0]} or {constant: 3e-4}"
