"""What a card claims, and whether a measurement agrees with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.config.yaml import parse_yaml
from rlrun.errors import RlrunError, UsageError

_CARD, _RESULTS = "README.md", "results.json"
# A claim is doubted when a difference as large would come by chance less than once in a hundred times.
_LEVEL = 0.01
_MOST_SPREAD = 3.0
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_SCORE = re.compile(rf"({_NUMBER})\s*(?:\+/-|±)\s*({_NUMBER})")


@dataclass(frozen=True)
class Claim:
    """A mean return and its standard deviation over episodes, as a card says them.

    :ivar episodes: over how many; 10, the usual number, where nothing says it
    :ivar env: the env's id in the card; None where it says none
    """

    mean: float
    std: float
    episodes: int
    env: str | None

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.std:.2f} over {self.episodes} episodes"


def read_claim(folder: Path) -> Claim:
    """The claim of a repository: its card's metadata, else its results.json.

    :raises UsageError: when neither says a mean and a deviation
    """
    results = _results(folder)
    card = _card_score(folder)
    score, env = card if card is not None else (_results_score(results), None)
    if score is None:
        raise UsageError("Neither the card nor results.json claims a mean return.", "There is nothing to verify.")
    episodes = results.get("n_eval_episodes")
    return Claim(*score, episodes if isinstance(episodes, int) and episodes > 0 else 10, env)


def _results(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / _RESULTS).read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _results_score(results: dict[str, Any]) -> tuple[float, float] | None:
    values = results.get("mean_reward"), results.get("std_reward")
    if all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return float(values[0]), float(values[1])  # type: ignore[arg-type]
    return None


def _card_score(folder: Path) -> tuple[tuple[float, float], str | None] | None:
    try:
        text = (folder / _CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    if not match:
        return None
    try:
        metadata = parse_yaml(match.group(1), _CARD).value
    except RlrunError:
        return None
    for entry in _dicts(_get(metadata, "model-index")):
        for result in _dicts(entry.get("results")):
            for metric in _dicts(result.get("metrics")):
                found = _SCORE.search(str(metric.get("value")))
                if metric.get("type") == "mean_reward" and found:
                    env = _get(result.get("dataset"), "type")
                    return (float(found[1]), float(found[2])), str(env) if env else None
    return None


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def is_same_task(claimed: str | None, played: str) -> bool:
    """Whether a card is about the env that was played, in any version; ``FrozenLake-v1-4x4`` is ``FrozenLake-v1``."""
    if claimed is None:
        return True
    task = re.sub(r"-v\d+$", "", played.rpartition(":")[2])
    return re.match(rf"{re.escape(task)}(-v\d+.*)?$", claimed.rpartition(":")[2]) is not None


def agrees(claim: Claim, returns: Sequence[float]) -> bool:
    """Whether measured returns and a claim can have the same mean.

    Welch's t-test at 1 % (Welch 1947), from the claim's mean, deviation and number of episodes; the claim of a single
    episode is judged by the measured deviation. A deviation of zero on both sides asks for equal means, to the two
    decimals that a card has. The claim's deviation is its author's word too: more than three times the measured one
    counts as three times, else "400 ± 2000" would agree with anything.
    """
    from scipy.stats import ttest_ind_from_stats

    mean = sum(returns) / len(returns)
    std = math.sqrt(sum((value - mean) ** 2 for value in returns) / max(1, len(returns) - 1))
    if abs(mean - claim.mean) < 0.01:
        return True
    if claim.std == 0 and std == 0:
        return False
    believed = min(claim.std, _MOST_SPREAD * max(std, 0.01 * abs(mean)))
    # A card's deviation is that of the population.
    claimed = believed * math.sqrt(claim.episodes / max(1, claim.episodes - 1))
    test = ttest_ind_from_stats(
        claim.mean, claimed, claim.episodes, mean, std, len(returns), equal_var=claim.episodes == 1
    )
    return bool(test.pvalue >= _LEVEL)
