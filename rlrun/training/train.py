"""A training session: from a plan to a run directory, or from a run directory's newest checkpoint to its end."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlrun.algorithms.build import build_model
from rlrun.config.classes import load_class
from rlrun.config.schema import Config
from rlrun.envs.normalization import set_statistics
from rlrun.envs.recipe import EnvRecipe, RestartableVecEnv, find_normalizer
from rlrun.errors import Interrupted, RlrunError, UsageError
from rlrun.runs.checkpoint import Checkpoint, newest_resumable, remove_leftovers
from rlrun.runs.directory import RunDirectory
from rlrun.runs.files import sha256
from rlrun.runs.learner import read_tensors, set_learner_state, set_tensors
from rlrun.runs.load import checkpoint_of, load_parent_statistics
from rlrun.runs.provenance import command_line, git_state, hardware, versions
from rlrun.runs.replay import load_replay_buffer
from rlrun.training.boundary import Boundary, seed_learner
from rlrun.training.interruption import Signals, StopRequested
from rlrun.training.plan import Plan
from rlrun.training.progress import Reporter
from rlrun.training.recorders import MetricsWriter, RunFiles
from rlrun.training.trackers import TrackedRun, open_trackers


@dataclass
class _Session:
    """What one process needs to train: the model, its envs, the user's callbacks."""

    config: Config
    recipe: EnvRecipe
    model: BaseAlgorithm
    envs: RestartableVecEnv
    callbacks: list[BaseCallback]


def start(plan: Plan, root: Path, name: str | None, reporter: Reporter) -> RunDirectory:
    """Train from the beginning.

    :param root: where run directories are made
    :return: the run, finished
    :raises UsageError: before anything was created
    :raises RlrunError: when training failed; the run directory stays
    :raises Interrupted: on Ctrl-C or SIGTERM; the state is saved
    """
    with _session(plan.config, plan.recipe) as session:
        parent = _initialise(session, plan.config)
        run = RunDirectory.create(root, plan.config, name)
        _describe(run, plan, parent)
        for warning in plan.warnings:
            reporter.said(f"Warning: {warning}")
        _train(session, run, reporter, plan.notes, None)
    return run


def resume(run: RunDirectory, reporter: Reporter, max_time: float | None = None) -> RunDirectory:
    """Go on from a run's newest whole checkpoint to its budget.

    :param max_time: seconds after which to stop cleanly this time
    :return: the run, finished; at once if it was already
    """
    config, manifest = run.config(), run.manifest()
    if manifest.get("status") == "finished":
        reporter.said(f"The run {run.name} is finished; there is nothing to resume.")
        return run
    _refuse_second_process(run, manifest)
    config = config.model_copy(update={"max_time": max_time})
    checkpoint, passed_over = newest_resumable(run)
    for sentence in passed_over:
        reporter.said(f"Warning: {sentence} An older one is used.")
    if checkpoint is None and passed_over:
        raise RlrunError(f"The run {run.name} has no whole checkpoint. {' '.join(passed_over)}", "Train it anew.")
    remove_leftovers(run)
    recipe = EnvRecipe.from_config(config, manifest.get("import_paths", ()))
    with _session(config, recipe) as session:
        if checkpoint is None:
            _initialise(session, config)
            reporter.said(f"The run {run.name} has no checkpoint yet, so it starts from the beginning.")
        else:
            _restore(session, checkpoint)
        _train(session, run, reporter, (), checkpoint)
    return run


def _refuse_second_process(run: RunDirectory, manifest: Mapping[str, Any]) -> None:
    """Raise UsageError when the process that trains this run is alive on this machine."""
    process = manifest.get("process")
    if not process or process["host"] != socket.gethostname():
        return
    with contextlib.suppress(psutil.Error):
        if psutil.Process(process["pid"]).create_time() == process["started"]:
            message = f"The run {run.name} is being trained by process {process['pid']} on {process['host']}."
            raise UsageError(message, "Wait for it, or stop it with Ctrl-C (or kill) and resume then.")


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


@contextlib.contextmanager
def _session(config: Config, recipe: EnvRecipe) -> Iterator[_Session]:
    torch.set_num_threads(config.threads or 1)
    venv, envs = recipe.make_training_vec()
    try:
        seed_learner(config, 0, venv.action_space)
        model = build_model(config, venv)
        seed_learner(config, 0, model.action_space)  # model.action_space is the one that SB3 samples from
        callbacks = [_user_callback(c.cls, c.kwargs) for c in config.callbacks]
        yield _Session(config, recipe, model, envs, callbacks)
    finally:
        with contextlib.suppress(EOFError, OSError):  # workers that died cannot be told to close
            venv.close()


def _user_callback(name: str, kwargs: Mapping[str, Any]) -> BaseCallback:
    cls = load_class(name, BaseCallback, what="callback")
    try:
        return cls(**kwargs)
    except Exception as error:  # the user's constructor may raise anything
        raise UsageError(f"The callback {name} could not be built: {type(error).__name__}: {error}") from error


def _initialise(session: _Session, config: Config) -> dict[str, Any] | None:
    """Load the weights and statistics of ``init_from``.

    :return: what the manifest says of the parent
    """
    if config.init_from is None:
        return None
    path, label = checkpoint_of(Path(config.init_from))
    set_tensors(session.model, read_tensors(path, session.model.device), only_policy=True)
    normalizer = find_normalizer(session.model.env) if session.model.env is not None else None
    statistics = load_parent_statistics(path)
    if normalizer is not None and statistics is not None:
        set_statistics(normalizer, statistics)
    return {"path": label, "sha256": sha256(path)}


def _restore(session: _Session, checkpoint: Checkpoint) -> None:
    model = session.model
    set_tensors(model, read_tensors(checkpoint.model_path, model.device))
    set_learner_state(model, checkpoint.state["learner"])
    buffer = checkpoint.state.get("replay_buffer")
    if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None and buffer:
        load_replay_buffer(model.replay_buffer, checkpoint.replay_path, buffer)


def _train(
    session: _Session,
    run: RunDirectory,
    reporter: Reporter,
    notes: tuple[str, ...],
    checkpoint: Checkpoint | None,
) -> None:
    config, model = session.config, session.model
    done_before = checkpoint.timesteps if checkpoint else 0
    files = RunFiles(run.path, keep_until=done_before)
    writers = _open_writers(config, run, files)
    model.set_logger(Logger(str(run.path), writers))
    signals, began = Signals(), time.monotonic()
    boundary = Boundary(config, run, session.recipe, session.envs, files, reporter, signals, checkpoint)
    seconds_before = float(run.manifest().get("seconds") or 0.0) if checkpoint else 0.0

    def finish(status: str, **more: Any) -> None:
        seconds = seconds_before + time.monotonic() - began
        run.update_manifest(
            {"status": status, "timesteps": model.num_timesteps, "seconds": round(seconds, 3), "process": None, **more}
        )

    run.update_manifest({"status": "running", "process": _this_process()})
    reporter.started(run.path, config.total_timesteps, done_before, notes)
    with signals.handled():
        try:
            stop = _learn(model, boundary, session.callbacks, config.total_timesteps - done_before, checkpoint is None)
            if stop is None or stop.reason == "early_stop":
                ended = stop
                stop = _end(boundary)
            else:
                ended = None
            if stop is None:
                stop = ended
                finish("finished", ended_by=stop.detail if stop else "budget")
            else:
                boundary.save(scheduled=False)
                finish("interrupted" if stop.reason == "interrupted" else "paused", stopped_by=stop.reason)
        except (Exception, KeyboardInterrupt) as error:
            finish("failed", error="".join(traceback.format_exception_only(error)).strip())
            raise _in_words(error, run) from error
        finally:
            reporter.stopped()
            model.logger.close()
            files.close()
    if stop is not None and stop.reason == "interrupted":
        message = f"Interrupted at {model.num_timesteps:,} timesteps; the state is saved in {run.path}."
        raise Interrupted(message, f"Go on with: rlrun resume {run.path}", signals.exit_code)
    if stop is not None:
        reason = (
            stop.detail
            or f"max_time is used up at {model.num_timesteps:,} timesteps; go on with: rlrun resume {run.path}"
        )
        reporter.said(f"Stopped: {reason}.")


def _open_writers(config: Config, run: RunDirectory, files: RunFiles) -> list[KVWriter]:
    tracked = TrackedRun(run.path, run.name, config.model_dump(by_alias=True, mode="json"))
    try:
        return [MetricsWriter(files.metrics), *open_trackers(config, tracked)]
    except UsageError as error:
        files.close()
        run.update_manifest({"status": "failed", "error": error.message})
        raise RlrunError(error.message, error.hint) from error


def _learn(
    model: BaseAlgorithm, boundary: Boundary, callbacks: list[BaseCallback], timesteps: int, from_start: bool
) -> StopRequested | None:
    """Run SB3's ``learn``; what ended it before the budget, or None."""
    try:
        # log_interval=None: rows are written at boundaries, counted in timesteps.
        model.learn(
            timesteps,
            callback=[boundary, *callbacks],
            log_interval=None,  # type: ignore[arg-type]
            reset_num_timesteps=from_start,
        )
    except StopRequested as stop:
        return stop
    if model.num_timesteps < model._total_timesteps:
        return StopRequested("early_stop", "a callback ended training")
    return None


def _end(boundary: Boundary) -> StopRequested | None:
    """Last evaluation and final checkpoint; what interrupted them, or None."""
    try:
        boundary.visit(at_end=True)
    except StopRequested as stop:
        return stop
    return None


def _in_words(error: BaseException, run: RunDirectory) -> RlrunError:
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(
            f"Interrupted twice; the last checkpoint in {run.path} is kept.", "Go on with `rlrun resume`."
        )
    if isinstance(error, RlrunError):
        return RlrunError(error.message, error.hint)
    if isinstance(error, EOFError | ConnectionError):
        hint = f"What it said stands above; with env.vec=serial it can be debugged here. The run is in {run.path}."
        return RlrunError("Training failed: a worker process with envs died.", hint)
    reason = " ".join(str(error).split())[:500]
    hint = f"The run is in {run.path}; --debug shows the traceback."
    return RlrunError(f"Training failed: {type(error).__name__}: {reason}", hint)


def _describe(run: RunDirectory, plan: Plan, parent: dict[str, Any] | None) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    run.update_manifest(
        {
            "status": "created",
            "created": now.isoformat(timespec="seconds"),
            "created_unix": now.timestamp(),
            "algo": plan.config.algo,
            "env": plan.config.env.id,
            "seed": plan.config.seed,
            "timesteps": 0,
            "seconds": 0.0,
            "command": command_line(),
            "config_file": str(plan.source.path.resolve()) if plan.source.path else None,
            "import_paths": list(plan.import_paths),
            "parent": parent,
            "notes": list(plan.notes),
            "versions": versions(),
            "hardware": hardware(),
            "git": git_state(Path.cwd()),
        }
    )
