"""Numbers and runs in words, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_evaluation(result: Mapping[str, Any]) -> str:
    """``500.0 ± 0.0 over 20 episodes, 95 % interval [500.0, 500.0]`` of an evaluation's plain values."""
    digits = 1 if abs(result["mean_return"]) >= 10 else 2
    text = f"{result['mean_return']:.{digits}f} ± {result['std_return']:.{digits}f} over {result['episodes']} episodes"
    if result.get("ci95"):
        low, high = result["ci95"]
        text += f", 95 % interval [{low:.{digits}f}, {high:.{digits}f}]"
    if result.get("success_rate") is not None:
        text += f", success rate {result['success_rate']:.2f}"
    return text


def number(value: float) -> str:
    """Two decimals for small numbers, one for others."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """``1 h 02 min`` or ``12 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(number: float) -> str:
    """``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return ""


def describe_run(values: Mapping[str, Any]) -> dict[str, str]:
    """What ``rlrun show`` prints of a run's summary."""
    last = values["last_evaluation"]
    kept = [
        f"{steps:,}"
        + "".join(f" ({name})" for name in ("best", "final") if values[name] == steps)
        + (" (unscheduled)" if steps in values["unscheduled"] else "")
        for steps in values["checkpoints"]
    ]
    words = {
        "run": values["run"],
        "status": values["status"]
        + (f" ({values['ended_by']})" if values["ended_by"] not in (None, values["status"]) else ""),
        "error": values["error"] or "",
        "what": f"{values['algo']} on {values['env']}, seed {values['seed']}",
        **{unit: _done(values, unit) for unit in ("timesteps", "episodes")},
        "started from": str((values["parent"] or {}).get("path", "")),
        "time": duration(values["seconds"] or 0),
        "checkpoints": ", ".join(kept),
        "resume": _exactness_in_words(values),
        "last evaluation": "",
        "final model": "",
        "best model": "",
        "notes": "; ".join(values["notes"] or ()),
        "size": size(values["bytes"]),
        "machine": "{}, {} cores".format(*map(values["hardware"].get, ("cpu", "cores"))) if values["hardware"] else "",
        "versions": ", ".join(f"{name} {v}" for name, v in (values["versions"] or {}).items()),
        "git": _git_words(values["git"]) if values["git"] else "",
        "command": " ".join(values["command"] or ()),
    }
    if last:
        played = f"{last['mean_return']:.2f} over {last['episodes']} episodes"
        words["last evaluation"] = f"{played}, in training at {last['timesteps']:,} timesteps"
    for name, result in (values["results"] or {}).items():
        words[f"{name} model"] = describe_evaluation(result) if result else ""
    return words


def _done(values: Mapping[str, Any], unit: str) -> str:
    """``1,000 of 5,000``, or the number alone where the budget counts something else."""
    done, total = values[unit], values[f"total_{unit}"]
    if total is None:
        return "" if done is None else f"{done:,}"
    return f"{done or 0:,} of {total:,}"


def describe_video(values: Mapping[str, Any]) -> dict[str, str]:
    """What ``rlrun video`` prints of the JSON of a film."""
    seen = [
        f"{total:.2f} in {steps:,} steps" for total, steps in zip(values["returns"], values["lengths"], strict=True)
    ]
    actions = "deterministic" if values["deterministic"] else "stochastic"
    return {
        "file": f"{values['path']} ({size(values['bytes'])})",
        "gif": values["gif"] or "",
        "film": f"{values['frames']:,} frames of {values['width']} x {values['height']} pixels, "
        f"{values['seconds']:.1f} s at {values['fps']:g} frames a second",
        "returns": ", ".join(seen + ["cut within an episode"] * values["cut"]),
        "agent": f"checkpoint {values['checkpoint']}, {values['timesteps']:,} timesteps, "
        f"{actions} actions, seed {values['seed']}",
    }


def _exactness_in_words(values: Mapping[str, Any]) -> str:
    if values["resume"] == "exact":
        return "exact"
    cuts = ", ".join(f"{steps:,}" for steps in values["extra_cuts"])
    if cuts:
        return f"approximate: the envs were also restarted at {cuts} timesteps"
    if values["unscheduled"] and values["status"] != "finished":
        return "approximate: from an unscheduled checkpoint; --exact goes back to the last scheduled one"
    return "approximate: checkpoint.exact is false"


def _git_words(state: Mapping[str, Any]) -> str:
    return str(state.get("commit"))[:12] + (" with uncommitted changes" if state.get("dirty") else "")
