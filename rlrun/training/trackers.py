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
from torch.utils.tensorboard.writer import SummaryWriter

from rlrun.config.classes import load_plug_in
from rlrun.config.loading import Source
from rlrun.config.schema import Config
from rlrun.errors import Problem, UsageError, did_you_mean, install_hint


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of the run.

    :ivar folder: the run directory
    :ivar config: the resolved config as plain values
    :ivar id: never that of another run; by it a resumed run is found again
    :ivar resumed_at: timesteps after which this session repeats or goes on; None at a run's start
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    id: str
    resumed_at: int | None = None


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

        settings = {"project": "rlrun", "name": run.name, "dir": str(run.folder), "config": dict(run.config)}
        settings |= {"id": run.id, "resume": "allow", **kwargs}
        self._run: Any = wandb.init(**settings)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self._run.log(_scalars(key_values, key_excluded, "wandb"), step=step)

    def close(self) -> None:
        self._run.finish()


_TAG = "rlrun.id"


class _Mlflow(KVWriter):
    """MLflow (https://mlflow.org). Keyword arguments: ``tracking_uri``, ``experiment``, and those of ``start_run``."""

    def __init__(self, run: TrackedRun, kwargs: dict[str, Any]) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        settings = dict(kwargs)
        if "tracking_uri" in settings:
            mlflow.set_tracking_uri(settings.pop("tracking_uri"))
        mlflow.set_experiment(settings.pop("experiment", "rlrun"))
        known = mlflow.search_runs(filter_string=f"tags.`{_TAG}` = '{run.id}'", output_format="list")
        if known:
            mlflow.start_run(run_id=known[0].info.run_id)
            return
        mlflow.start_run(**{"run_name": run.name, **settings})
        mlflow.set_tag(_TAG, run.id)
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
        settings = {"project": "rlrun", "name": run.name, "config": dict(run.config), "resume": "allow"}
        trackio.init(**{**settings, **kwargs})

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
    folder = str(run.folder / "tensorboard")
    output = TensorBoardOutputFormat(folder)
    if run.resumed_at is not None:
        output.writer.close()
        # TensorBoard then leaves out what an earlier session wrote after this moment.
        output.writer = SummaryWriter(folder, purge_step=run.resumed_at + 1)
    return output


_TABLE = {
    "tensorboard": Tracker("tensorboard", "", _tensorboard),
    "wandb": Tracker("wandb", "wandb", _Wandb),
    "mlflow": Tracker("mlflow", "mlflow", _Mlflow),
    "trackio": Tracker("trackio", "trackio", _Trackio),
}


def tracker_names() -> list[str]:
    """Names of the table's trackers and of plug-ins' (entry points ``rlrun.trackers``, each a Tracker)."""
    return [*_TABLE, *entry_points(group="rlrun.trackers").names]


def _tracker(name: str) -> Tracker:
    if name in _TABLE:
        return _TABLE[name]
    (point, *_) = entry_points(group="rlrun.trackers", name=name)
    return load_plug_in(point)


def check_trackers(source: Source, config: Config) -> list[Problem]:
    """Unknown trackers, and those whose package is not installed."""
    known = tracker_names()
    problems = []
    for index, tracker in enumerate(config.trackers):
        path = ("trackers", index)
        if tracker.name not in known:
            hint = did_you_mean(tracker.name, known) or f"Known: {', '.join(known)}."
            problems.append(source.problem(path, f'there is no tracker "{tracker.name}".', hint))
            continue
        if tracker.name == "tensorboard" and tracker.kwargs:
            problems.append(source.problem(path, "tensorboard takes no keyword arguments.", "Leave them out."))
        try:
            row = _tracker(tracker.name)
        except UsageError as error:
            problems.append(source.problem(path, error.message, error.hint))
            continue
        if importlib.util.find_spec(row.module.partition(".")[0]) is None:
            message = f"the package of the tracker {tracker.name} is not installed."
            problem = source.problem(path, message, install_hint(row.extra))
            problems.append(replace(problem, is_missing_package=True))
    return problems


def open_trackers(config: Config, run: TrackedRun) -> list[KVWriter]:
    """Start every tracker of a config.

    :raises UsageError: with the tracker's own words when it cannot start
    """
    writers = []
    for tracker in config.trackers:
        try:
            writers.append(_tracker(tracker.name).open(run, dict(tracker.kwargs)))
        except UsageError:
            raise
        except Exception as error:  # trackers raise errors of their own many kinds
            hint = "Mend its settings or leave it out of `trackers`."
            raise UsageError(f"The tracker {tracker.name} could not start: {error}", hint) from error
    return writers
