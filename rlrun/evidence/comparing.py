"""Groups of runs, compared in pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlrun.config.locate import folder_name
from rlrun.errors import UsageError
from rlrun.evidence.scores import MUCH_LONGER, Seeds
from rlrun.evidence.statistics import FEW, Comparison, Summary, compare
from rlrun.runs.directory import CONFIG, RunDirectory
from rlrun.runs.summary import status_of

NARROW = f"An interval over fewer than {FEW} seeds is too narrow: it lies between their scores."
_MOST_KEYS = 5  # that are named
_OF_ENV = ("env.kwargs", "env.wrappers", "evaluation.env_kwargs")
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


def compare_scored(groups: Sequence[Seeds]) -> Compared:
    """Compare groups by the scores that their runs have.

    :raises UsageError: when nothing has a score
    """
    warnings = []
    for group in groups:
        warnings += _lacking(group)
        if group.repeated:
            count = "1 run repeats" if len(group.repeated) == 1 else f"{len(group.repeated)} runs repeat"
            warnings.append(f"{group.name}: {count} the seed of another one, and does not count.")
        if differing := _differing(group):
            warnings.append(f"{group.name}: its runs differ in more than their seed: {', '.join(differing)}.")
    scored = [group for group in groups if group.scores]
    if not scored:
        raise UsageError("None of these runs has been evaluated at its end.", "`rlrun resume` finishes a run.")
    if len({len(group.scores) for group in scored}) > 1:
        warnings.append("The groups have different numbers of seeds.")
    if any(1 < len(group.scores) < FEW for group in scored):
        warnings.append(NARROW)
    by_env = _by_env(scored)
    warnings += [
        words for alike in by_env.values() for words in (_unequal_budgets(alike), _unlike_envs(alike)) if words
    ]
    trained = [group.name for group in scored if any(run.is_of_training for run in group.runs)]
    if trained:
        warnings.append(f"The scores of {' and '.join(trained)} are of training episodes, and not of an evaluation.")
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


def _differing(group: Seeds) -> list[str]:
    """Settings in which the runs of a group differ; how long they trained for is said elsewhere."""
    known = [run.config for run in group.runs if "algo" in run.config]
    keys = sorted({key for config in known for key in config} - {"total_timesteps", "total_episodes"})
    return [key for key in keys if len({str(config.get(key)) for config in known}) > 1][:_MOST_KEYS]


def _lacking(group: Seeds) -> list[str]:
    """Runs without a score; where some failed, those that did not are the better ones."""
    runs = group.without_score
    if not runs:
        return []
    more = f" and {len(runs) - _MOST_KEYS} more" if len(runs) > _MOST_KEYS else ""
    names = ", ".join(str(run.path) for run in runs[:_MOST_KEYS]) + more
    found = [f"{names} {'has no score yet and does' if len(runs) == 1 else 'have no score yet and do'} not count."]
    failed = sum((run.path / CONFIG).is_file() and status_of(RunDirectory(run.path)) == "failed" for run in runs)
    if failed:
        found.append(f"{group.name}: {failed} of {len(group.runs)} runs failed, so that the others look too good.")
    return found


def _unlike_envs(alike: Sequence[Seeds]) -> str:
    """What is to be said when groups play one env with other settings; empty when they do not."""
    known = [group.runs[0].config for group in alike if "algo" in group.runs[0].config]
    keys = sorted({key for config in known for key in config if key.startswith(_OF_ENV)})
    keys = [key for key in keys if len({str(config.get(key)) for config in known}) > 1]
    keys = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    return f"The groups differ in {', '.join(keys[:_MOST_KEYS])}: are their returns of one kind?" if keys else ""


def _unequal_budgets(alike: Sequence[Seeds]) -> str:
    """What is to be said when groups on one env were not trained for the same time; empty when they were."""
    runs = [run for group in alike for run in group.runs]
    steps = sorted({run.timesteps for run in runs if run.timesteps is not None})
    episodes = sorted({found for run in runs if (found := run.config.get("total_episodes")) is not None})
    told = []
    for budgets, unit in ((steps, "timesteps"), (episodes, "episodes")):
        if len(budgets) > 1 and budgets[-1] > budgets[0] * MUCH_LONGER:
            told.append(f"{budgets[0]:,} to {budgets[-1]:,} {unit}")
    if steps and episodes:
        told.append("of timesteps here, of episodes there")
    return f"The budgets differ: {'; '.join(told)}." if told else ""
