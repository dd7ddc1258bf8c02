"""Groups of runs, compared in pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlrun.config.locate import folder_name
from rlrun.errors import UsageError
from rlrun.evidence.scores import Seeds, collect
from rlrun.evidence.statistics import FEW, Comparison, Summary, compare

NARROW = f"An interval over fewer than {FEW} seeds is too narrow: it lies between their scores."
_MOST_GROUPS = 25  # that are compared each with each


@dataclass(frozen=True)
class Compared:
    """What groups reached, and which differ.

    :ivar groups: those with a score
    :ivar warnings: what is missing
    """

    groups: tuple[Seeds, ...]
    summaries: dict[str, Summary]
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """All verdicts, a sentence each."""
        return " ".join(pair.verdict for pair in self.comparisons)

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``rlrun compare --json``."""
        groups = {
            group.name: {
                **asdict(self.summaries[group.name]),
                "runs": [{"run": str(run.path), "seed": run.seed, "score": run.score} for run in group.runs],
            }
            for group in self.groups
        }
        pairs = [pair.as_dict() for pair in self.comparisons]
        return {"groups": groups, "comparisons": pairs, "verdict": self.verdict, "warnings": list(self.warnings)}


def compare_groups(selected: Sequence[str], root: Path) -> Compared:
    """Compare what a command line means; see :func:`rlrun.evidence.scores.collect`.

    :raises UsageError: when nothing has a score
    """
    return compare_scored(collect(selected, root))


def compare_scored(groups: Sequence[Seeds]) -> Compared:
    """Compare groups by the scores that their runs have.

    :raises UsageError: when nothing has a score
    """
    warnings = [
        f"{run.path} has no score yet, so it does not count." for group in groups for run in group.without_score
    ]
    warnings += [
        f"{group.name}: {len(group.repeated)} runs repeat a seed of another one, so they do not count."
        for group in groups
        if group.repeated
    ]
    scored = [group for group in groups if group.scores]
    if not scored:
        raise UsageError("None of these runs has been evaluated at its end.", "`rlrun resume` finishes a run.")
    if len({len(group.scores) for group in scored}) > 1:
        warnings.append("The groups have different numbers of seeds.")
    if any(1 < len(group.scores) < FEW for group in scored):
        warnings.append(NARROW)
    by_env = _by_env(scored)
    for unit, alike in itertools.product(("timesteps", "episodes"), by_env.values()):
        found = [run.config.get(f"total_{unit}") for group in alike for run in group.runs]
        budgets = sorted({budget for budget in found if budget is not None})
        if len(budgets) > 1:
            warnings.append(f"The budgets differ: {', '.join(f'{n:,}' for n in budgets)} {unit}.")
    if len(by_env) > 1:
        warnings.append("Returns on different envs cannot be compared, so only groups on the same one are.")
    unknown = [group.name for group in by_env.get("", ())]
    if len(unknown) > 1:
        warnings.append(f"The env of {' and '.join(unknown)} is not recorded; it is taken to be the same one.")
    for env, alike in by_env.items():
        if len(alike) > _MOST_GROUPS:
            what = f"{len(alike)} groups{f' on {alike[0].env}' if env else ''}"
            warnings.append(f"{what} are too many to compare each with each: no verdict. Name {_MOST_GROUPS} or fewer.")
    return Compared(
        groups=tuple(scored),
        summaries={group.name: Summary.of(group.scores) for group in scored},
        comparisons=tuple(
            # Corrected for the number of comparisons in an env.
            compare(a.name, a.scores, b.name, b.scores, math.comb(len(alike), 2))
            for alike in by_env.values()
            if len(alike) <= _MOST_GROUPS
            for a, b in itertools.combinations(alike, 2)
        ),
        warnings=tuple(warnings),
    )


def _by_env(groups: Sequence[Seeds]) -> dict[str, list[Seeds]]:
    """Groups by their env's id, as it is in the name of a folder: RL Zoo's have ``ALE-Pong-v5``."""
    found: dict[str, list[Seeds]] = {}
    for group in groups:
        found.setdefault(folder_name(group.env), []).append(group)
    return found
