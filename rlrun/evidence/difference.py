"""What differs between two runs: config, versions, hardware, git."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlrun.config.loading import dotted, leaves
from rlrun.errors import shown
from rlrun.runs.directory import RunDirectory

# Of the hardware, what may change the bytes of a run or its time.
_HARDWARE = ("cpu", "cores", "gpu", "memory", "system")


@dataclass(frozen=True)
class Difference:
    """Values that two runs do not share.

    :ivar sections: ``config``, ``versions``, ``hardware``, ``git``; in each, by key, the first run's value and the
        second's
    """

    first: str
    second: str
    sections: Mapping[str, Mapping[str, tuple[Any, Any]]]

    @property
    def verdict(self) -> str:
        """The first thing to know, in a sentence."""
        config = self.sections["config"]
        others = [key for key in config if key != "seed"]
        if others:
            more = f", and in {len(others) - 1} more settings" if len(others) > 1 else ""
            values = " and ".join(shown(value) for value in config[others[0]])
            return f"They differ in {others[0]} ({values}){more}."
        elsewhere = [name for name, values in self.sections.items() if values and name != "config"]
        if elsewhere:
            what = "their seed and in their" if "seed" in config else "their"
            return f"They differ in {what} {', '.join(elsewhere)}, and have the same config otherwise."
        return "They differ in their seed only." if config else "Nothing that is recorded differs."

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``rlrun diff --json``."""
        sections = {name: {key: list(pair) for key, pair in values.items()} for name, values in self.sections.items()}
        return {"first": self.first, "second": self.second, "verdict": self.verdict, **sections}


def difference(first: RunDirectory, second: RunDirectory) -> Difference:
    """What differs between two runs."""
    configs = [
        {
            dotted(path): value
            for path, value in leaves(run.config().model_dump(by_alias=True, mode="json", exclude={"search"}))
        }
        for run in (first, second)
    ]
    one, other = first.manifest(), second.manifest()
    hardware = [{key: (m.get("hardware") or {}).get(key) for key in _HARDWARE} for m in (one, other)]
    sections = {
        "config": _unequal(configs[0], configs[1]),
        "versions": _unequal(one.get("versions") or {}, other.get("versions") or {}),
        "hardware": _unequal(hardware[0], hardware[1]),
        "git": _unequal(one.get("git") or {}, other.get("git") or {}),
    }
    return Difference(str(first.path), str(second.path), sections)


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (one.get(key), other.get(key)) for key in {**one, **other} if one.get(key) != other.get(key)}
