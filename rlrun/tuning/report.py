"""What a study leaves: ``best.yaml``, ``trials.csv``, ``history.png``, ``importance.png`` and ``study.json``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlrun.errors import RlrunError
from rlrun.evidence.curves import COLOURS, new_figure, save_figure
from rlrun.runs.files import to_yaml, write_whole
from rlrun.tuning.spaces import short_name
from rlrun.tuning.storage import _GONE, REASON, SCORES, SECONDS, SEEDS, VALUES, best_first, quiet
from rlrun.words import number

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

BEST, TRIALS, HISTORY, IMPORTANCE, STUDY = (
    "best.yaml",
    "trials.csv",
    "history.png",
    "importance.png",
    "study.json",
)
_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def state_of(trial: FrozenTrial) -> str:
    """A trial's state in a word; ``killed`` and ``interrupted`` were tried again under another number."""
    return str(trial.user_attrs.get(_GONE) or _STATES[trial.state.name])


def write_trials(path: Path, trials: Sequence[FrozenTrial], names: Sequence[str]) -> None:
    """A line for each trial, with its values by SB3's names.

    :param names: dotted keys of what is searched
    """
    changed = {key for trial in trials for key in trial.user_attrs.get(VALUES, {})}
    keys = [*names, *sorted(changed - set(names))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("number", "state", "mean_return", "seconds", "seeds", "returns", "reason")
    writer.writerow((*head, *map(short_name, keys)))
    for trial in trials:
        known = trial.user_attrs
        values = known.get(VALUES, {})
        last = trial.intermediate_values.get(max(trial.intermediate_values, default=-1))
        mean = trial.value if trial.state.name == "COMPLETE" else last
        facts = (trial.number, state_of(trial), mean, known.get(SECONDS), _list(known.get(SEEDS)))
        row = (*facts, _list(known.get(SCORES)), known.get(REASON), *(values.get(key) for key in keys))
        writer.writerow(["" if cell is None else cell for cell in row])
    write_whole(path, text.getvalue())


def _list(values: Sequence[Any] | None) -> str | None:
    return " ".join(str(value) for value in values) if values else None


def write_best(path: Path, config: Mapping[str, Any], lines: Sequence[str]) -> None:
    """A config that trains as it is.

    :param lines: comments for its head
    """
    write_whole(path, "".join(f"# {line}\n" for line in lines) + to_yaml(dict(config)))


def draw_history(path: Path, trials: Sequence[FrozenTrial], default: float | None) -> None:
    """Mean return by trial, and the best so far.

    :param default: what the config's own values reached in the re-test; None: not tested
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure((8, 4.5))
    done = [trial for trial in trials if state_of(trial) == "complete" and trial.value is not None]
    pruned = [trial for trial in trials if state_of(trial) == "pruned" and trial.intermediate_values]
    failed = [trial.number for trial in trials if state_of(trial) == "failed"]
    axes.scatter([t.number for t in done], [t.value for t in done], s=18, color=COLOURS[0], label="complete")
    if pruned:
        lasts = [t.intermediate_values[max(t.intermediate_values)] for t in pruned]
        axes.scatter([t.number for t in pruned], lasts, s=18, color=COLOURS[4], marker="x", label="pruned")
    if failed:
        floor = axes.get_ylim()[0]
        axes.scatter(failed, [floor] * len(failed), s=18, color=COLOURS[6], marker="|", label="failed")
    best = [max(t.value or 0.0 for t in done[: index + 1]) for index in range(len(done))]
    axes.step([t.number for t in done], best, where="post", color=COLOURS[1], label="best so far")
    if default is not None:
        axes.axhline(default, color=COLOURS[2], linestyle="--", label="the config's own values, re-tested")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel("mean return of the last evaluation")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save_figure(figure, path)


def importances(study: Study, space: Sequence[str]) -> dict[str, float]:
    """How much each hyperparameter matters for being among the best tenth, by PED-ANOVA (arXiv 2304.10255).

    :return: shares by short name, the largest first; empty when the trials are too few, or all alike
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len({trial.value for trial in best_first(study.get_trials(deepcopy=False))}) < 2:
        return {}
    try:
        with quiet():
            found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=list(space))
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {short_name(key): float(share) for key, share in found.items() if share == share}


def draw_importance(path: Path, shares: Mapping[str, float]) -> None:
    """A bar for each hyperparameter."""
    figure, axes = new_figure((8, 1.2 + 0.35 * len(shares)))
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color=COLOURS[0])
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize="small")
    axes.set_xlabel("importance for being among the best trials (PED-ANOVA)")
    axes.margins(x=0.12)
    save_figure(figure, path)


def require_some(trials: Sequence[FrozenTrial], folder: Path) -> None:
    """A study of which no trial was completed has nothing to choose from.

    :raises RlrunError: with the first reason
    """
    if best_first(trials):
        return
    reasons = [str(trial.user_attrs[REASON]) for trial in trials if REASON in trial.user_attrs]
    if not reasons:
        raise RlrunError(
            "No trial was completed.", f"Give it more time or trials; they are listed in {folder / TRIALS}."
        )
    message = f"No trial was completed; the first failed because: {reasons[0].rstrip('.')}."
    raise RlrunError(message, f"All reasons are in {folder / TRIALS}; --resume goes on.")


def describe_span(difference: float, interval: Sequence[float] | None) -> str:
    """``+12.3, 95 % interval [4.5, 20.1]``."""
    sign = "+" if difference >= 0 else "-"
    text = f"{sign}{number(abs(difference))}"
    return text if interval is None else f"{text}, 95 % interval [{number(interval[0])}, {number(interval[1])}]"
