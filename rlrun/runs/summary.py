"""What is known of a run on disk, as plain values; torch is not needed for it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from rlrun.runs.directory import POINTERS, RunDirectory
from rlrun.runs.lock import holder_of

RESULTS = "results.json"


def status_of(run: RunDirectory) -> str:
    """``finished``, ``running``, ``interrupted``, ``paused``, ``failed``, or ``killed``: its process is gone."""
    status = str(run.manifest().get("status", "unknown"))
    return "killed" if status in ("created", "running") and holder_of(run.path) is None else status


def summarize(run: RunDirectory) -> dict[str, Any]:
    """What ``rlrun show`` prints, as plain values."""
    manifest, config = run.manifest(), run.config()
    pointers = {name: run.pointer(name) for name in POINTERS}
    return {
        "run": str(run.path),
        "status": status_of(run),
        "algo": config.algo,
        "env": config.env.id,
        "seed": config.seed,
        "timesteps": manifest.get("timesteps"),
        "total_timesteps": config.total_timesteps,
        "episodes": manifest.get("episodes"),
        "total_episodes": config.total_episodes,
        "seconds": manifest.get("seconds"),
        "created": manifest.get("created"),
        "ended_by": manifest.get("ended_by") or manifest.get("stopped_by"),
        "error": manifest.get("error"),
        "notes": manifest.get("notes"),
        "parent": manifest.get("parent"),
        "checkpoints": run.checkpoint_steps(),
        **pointers,
        **_exactness(run),
        "last_evaluation": last_evaluation(run.path),
        "results": stored_results(run),
        "bytes": run.size(),
        "versions": manifest.get("versions"),
        "hardware": manifest.get("hardware"),
        "git": manifest.get("git"),
        "command": manifest.get("command"),
    }


def _exactness(run: RunDirectory) -> dict[str, Any]:
    """Whether the run ends, or ended, with the bytes of one that nobody interrupted."""
    steps = run.checkpoint_steps()
    states = {number: run.checkpoint_state(number) for number in steps}
    unscheduled = [number for number, state in states.items() if state.get("scheduled") is False]
    resumable = [number for number, state in states.items() if state.get("resumable")]
    cuts = list(run.manifest().get("extra_cuts") or ())
    goes_on_inexactly = status_of(run) != "finished" and resumable[-1:] == unscheduled[-1:] != []
    exact = run.config().checkpoint.exact and not cuts and not goes_on_inexactly
    return {"unscheduled": unscheduled, "extra_cuts": cuts, "resume": "exact" if exact else "approximate"}


def listing(run: RunDirectory) -> dict[str, Any]:
    """One row of ``rlrun runs``, from the manifest alone."""
    manifest = run.manifest()
    seconds, config_file = manifest.get("seconds"), manifest.get("config_file")
    return {
        "run": run.label,
        "config": Path(config_file).stem if config_file else None,  # two of them may train the same algorithm
        "status": status_of(run),
        "seed": manifest.get("seed"),
        "timesteps": manifest.get("timesteps"),
        "seconds": None if seconds is None else round(seconds, 1),
        "return": manifest.get("mean_return"),
    }


def stored_results(run: RunDirectory) -> dict[str, Any] | None:
    """The evaluations that were made at the run's end; None before."""
    try:
        found = json.loads((run.path / RESULTS).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def final_result(run: RunDirectory) -> dict[str, Any] | None:
    """The evaluation of a finished run's final agent; None before, and while the run is trained for longer."""
    final = (stored_results(run) or {}).get("final")
    if not isinstance(final, dict) or not isinstance(final.get("mean_return"), int | float):
        return None
    is_of_the_end = status_of(run) == "finished" and final.get("timesteps") == run.pointer("final")
    return final if is_of_the_end else None


def last_evaluation(path: Path) -> dict[str, Any] | None:
    """The newest evaluation of a run during training, read from evaluations.csv."""
    try:
        with (path / "evaluations.csv").open(newline="", encoding="utf-8") as stream:
            rows = [found for row in csv.DictReader(stream) if (found := _evaluated(row)) is not None]
    except (OSError, ValueError):
        return None
    last = [value for timesteps, value in rows if timesteps == rows[-1][0]]
    if not last:
        return None
    return {"timesteps": rows[-1][0], "mean_return": sum(last) / len(last), "episodes": len(last)}


def _evaluated(row: dict[str, Any]) -> tuple[int, float] | None:
    """Timesteps and return of a row; None for one that was torn by a full disk or a lost machine."""
    try:
        return int(row["timesteps"]), float(row["return"])
    except (ValueError, KeyError, TypeError):
        return None
