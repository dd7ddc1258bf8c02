"""Where logged numbers go besides metrics.csv: one table of trackers, each an SB3 ``KVWriter``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, TensorBoardOutputFormat

from rlrun.config.loading import Source
from rlrun.config.schema import Config
from rlrun.errors import Problem, UsageError, did_you_mean


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of the run.

    :ivar folder: the run directory
    :ivar config: the resolved config as plain values
    """

    folder: Path
    name: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Tracker:
    """One row of the table.

    :ivar module: what must be installed
    :ivar extra: the extra of rlrun that installs it
    :ivar open: starts tracking; takes the run and the user's keyword arguments
    """

    module: str
    extra: str
    open: Callable[[TrackedRun, dict[str, Any]], KVWriter]


def _scalars(values: Mapping[str, Any], excluded: Mapping[str, Any], kind: str) -> dict[str, float]:
    """The plain numbers among logged values that are not excluded from a kind of output."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float | np.number) and kind not in (excluded.get(key) or ())
    }


class _Wandb(KVWriter):
    """Weights & Biases (https://docs.wandb.ai)."""

    def __init__(self, run: TrackedRun, kwargs: dict[str, Any]) -> None:
        import wandb

        settings = {"project": "rlrun", "name": run.name, "dir": str(run.folder), "config": dict(run.config), **kwargs}
        self._run: Any = wandb.init(**settings)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self._run.log(_scalars(key_values, key_excluded, "wandb"), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow(KVWriter):
    """MLflow (https://mlflow.org). Keyword arguments: ``tracking_uri``, ``experiment``, and those of ``start_run``."""

    def __init__(self, run: TrackedRun, kwargs: dict[str, Any]) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        settings = dict(kwargs)
        if "tracking_uri" in settings:
            mlflow.set_tracking_uri(settings.pop("tracking_uri"))
        mlflow.set_experiment(settings.pop("experiment", "rlrun"))
        mlflow.start_run(**{"run_name": run.name, **settings})
        mlflow.log_params({key: str(value)[:500] for key, value in _flat(run.config).items()})

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self._mlflow.log_metrics(_scalars(key_values, key_excluded, "mlflow"), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class _Trackio(KVWriter):
    """trackio, Hugging Face's local-first tracker (https://github.com/gradio-app/trackio)."""

    def __init__(self, run: TrackedRun, kwargs: dict[str, Any]) -> None:
        import trackio

        self._trackio: Any = trackio
        trackio.init(**{"project": "rlrun", "name": run.name, "config": dict(run.config), **kwargs})

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self._trackio.log(_scalars(key_values, key_excluded, "trackio"), step=step)

    def close(self) -> None:
        self._trackio.finish()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def _tensorboard(run: TrackedRun, kwargs: dict[str, Any]) -> KVWriter:
    return TensorBoardOutputFormat(str(run.folder / "tensorboard"))


_TABLE = {
    "tensorboard": Tracker("tensorboard", "", _tensorboard),
    "wandb": Tracker("wandb", "wandb", _Wandb),
    "mlflow": Tracker("mlflow", "mlflow", _Mlflow),
    "trackio": Tracker("trackio", "trackio", _Trackio),
}


def trackers() -> dict[str, Tracker]:
    """The table and the trackers of plug-ins (entry points ``rlrun.trackers``, each a Tracker)."""
    return {**{point.name: point.load() for point in entry_points(group="rlrun.trackers")}, **_TABLE}


def check_trackers(source: Source, config: Config) -> list[Problem]:
    """Unknown trackers, and those whose package is not installed."""
    known = trackers()
    problems = []
    for index, tracker in enumerate(config.trackers):
        path = ("trackers", index)
        if tracker.name not in known:
            hint = did_you_mean(tracker.name, known) or f"Known: {', '.join(known)}."
            problems.append(source.problem(path, f'there is no tracker "{tracker.name}".', hint))
        elif tracker.name == "tensorboard" and tracker.kwargs:
            problems.append(source.problem(path, "tensorboard takes no keyword arguments.", "Leave them out."))
        elif importlib.util.find_spec(known[tracker.name].module) is None:
            extra = known[tracker.name].extra
            message = f"the package of the tracker {tracker.name} is not installed."
            problem = source.problem(path, message, f"Install it: pip install 'rlrun[{extra}]'")
            problems.append(replace(problem, is_missing_package=True))
    return problems


def open_trackers(config: Config, run: TrackedRun) -> list[KVWriter]:
    """Start every tracker of a config.

    :raises UsageError: with the tracker's own words when it cannot start
    """
    known = trackers()
    writers = []
    for tracker in config.trackers:
        try:
            writers.append(known[tracker.name].open(run, dict(tracker.kwargs)))
        except UsageError:
            raise
        except Exception as error:  # trackers raise errors of their own many kinds
            hint = "Mend its settings or leave it out of `trackers`."
            raise UsageError(f"The tracker {tracker.name} could not start: {error}", hint) from error
    return writers
