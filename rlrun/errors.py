"""What rlrun raises: every error is one sentence that names what is wrong and one that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


class RlrunError(Exception):
    """Something failed while running (exit code 1).

    :param message: one sentence that names what is wrong
    :param hint: one sentence that says what to do about it
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(RlrunError):
    """What the user gave is wrong (exit code 2); nothing was created."""

    exit_code = 2


class MissingPackage(UsageError):
    """An optional package is not installed."""


class Interrupted(RlrunError):
    """Ctrl-C or SIGTERM ended the work (exit code 130 or 143); the state is saved."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 130) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config.

    :ivar path: the YAML path of the value, such as ``env.n_envs``; empty for the whole file
    :ivar where: the file and line, or the flag, that the value came from
    :ivar is_missing_package: only an optional package is lacking
    """

    message: str
    path: str = ""
    where: str = ""
    hint: str = ""
    is_missing_package: bool = False

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.path) if part)
        return " ".join(part for part in (f"{place}: {self.message}" if place else self.message, self.hint) if part)


class ConfigError(UsageError):
    """A config has problems; all of them are listed.

    :param problems: at least one problem
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @property
    def is_missing_package(self) -> bool:
        """Whether only optional packages are lacking."""
        return all(problem.is_missing_package for problem in self.problems)


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that is most like a misspelt word; None when none is close."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``Did you mean "x"?`` for the closest choice, or the empty string when none is close."""
    close = closest(word, choices)
    return f'Did you mean "{close}"?' if close is not None else ""


def install_hint(extra: str) -> str:
    """How to get an optional package, from a clone and from the package index.

    :param extra: the extra of rlrun that brings it; empty when the plain install does
    """
    if not extra:
        return "Install rlrun again: its plain install brings it."
    return f"Install rlrun's extra \"{extra}\": pip install '.[{extra}]' in a clone, or pip install 'rlrun[{extra}]'."


def shown(value: Any) -> str:
    """A value as the user would write it in YAML, shortened."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
