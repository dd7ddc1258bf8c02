"""Groups of runs, compared in pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlrun.errors import UsageError
from rlrun.evidence.scores import Seeds, collect
from rlrun.evidence.statistics import Comparison, Summary, compare


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
    sizes = {len(group.scores) for group in scored}
    if len(sizes) > 1:
        warnings.append("The groups have different numbers of seeds.")
    by_env: dict[str, list[Seeds]] = {}
    for group in scored:
        by_env.setdefault(str(group.env), []).append(group)
    for unit, alike in itertools.product(("timesteps", "episodes"), by_env.values()):
        found = [run.config.get(f"total_{unit}") for group in alike for run in group.runs]
        budgets = sorted({budget for budget in found if budget is not None})
        if len(budgets) > 1:
            warnings.append(f"The budgets differ: {', '.join(f'{n:,}' for n in budgets)} {unit}.")
    pairs = [(a, b) for a, b in itertools.combinations(scored, 2) if a.env == b.env]
    if len({group.env for group in scored}) > 1:
        warnings.append("Returns on different envs cannot be compared, so only groups on the same one are.")
    return Compared(
        groups=tuple(scored),
        summaries={group.name: Summary.of(group.scores) for group in scored},
        comparisons=tuple(
            # Corrected for the number of comparisons in an env, as a matrix is.
            compare(a.name, a.scores, b.name, b.scores, math.comb(len(by_env[str(a.env)]), 2))
            for a, b in pairs
        ),
        warnings=tuple(warnings),
    )
