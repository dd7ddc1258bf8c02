"""A training session: from a plan to a run directory, or from a run directory's newest checkpoint to its end."""

from __future__ import annotations

import contextlib
import datetime
import secrets
import shlex
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlrun.accelerate.choose import described
from rlrun.algorithms.build import build_model
from rlrun.config.classes import load_class, make_importable
from rlrun.config.schema import Config, TrackerConfig
from rlrun.envs.recipe import EnvRecipe, RestartableVecEnv
from rlrun.envs.vectorisation import ABOUT_ENVS, make_training_envs
from rlrun.errors import Interrupted, RlrunError, UsageError
from rlrun.runs.archive import read_tensors
from rlrun.runs.checkpoint import Checkpoint
from rlrun.runs.directory import RunDirectory
from rlrun.runs.files import sha256
from rlrun.runs.learner import set_learner_state, set_tensors
from rlrun.runs.load import read_parent, start_from
from rlrun.runs.lock import RunLock, locked
from rlrun.runs.provenance import command_line, git_state, hardware, versions
from rlrun.runs.replay import load_replay_buffer
from rlrun.runs.space import require_space
from rlrun.runs.trust import config_folder, is_own, named_code, sign, trusted_import_paths
from rlrun.training.boundary import BUDGET, Boundary, done_by, seed_learner
from rlrun.training.continuing import Wishes, prepare
from rlrun.training.interruption import StopRequested, Stops, TrainingEnded
from rlrun.training.plan import Plan
from rlrun.training.progress import Reporter
from rlrun.training.recorders import MetricsWriter, RunFiles
from rlrun.training.trackers import TrackedRun, open_trackers


@dataclass
class _Session:
    """What one process needs to train: the model, its envs, the user's callbacks.

    :ivar notes: what was decided about the envs, and why
    """

    config: Config
    recipe: EnvRecipe
    model: BaseAlgorithm
    envs: RestartableVecEnv
    callbacks: list[BaseCallback]
    notes: tuple[str, ...]


def start(
    plan: Plan,
    root: Path,
    name: str | None,
    reporter: Reporter,
    began: float,
    group: str = "",
    boundary: type[Boundary] = Boundary,
) -> RunDirectory:
    """Train from the beginning.

    :param root: where run directories are made
    :param began: the moment of ``time.monotonic`` that the config's ``max_time`` counts from
    :param group: the folder of a group of runs, in which it is made
    :param boundary: what happens between two rollouts
    :return: the run, finished
    :raises UsageError: before anything was created
    :raises RlrunError: when training failed; the run directory stays
    :raises Interrupted: on Ctrl-C or SIGTERM; the state is saved
    """
    with _session(plan.config, plan.recipe) as session:
        parent = _initialise(session, plan.config)
        if boundary.saves:
            require_space(root, session.model, plan.config)
        notes = (*plan.notes, described(session.model, plan.config.accelerate), *session.notes)
        run = RunDirectory.create(root, plan.config, name, _description(plan, parent, notes), group)
        if not sign(run) and named_code(plan.config):
            hint = "so what it imports will not be known as yours; XDG_CONFIG_HOME may name another."
            reporter.said(f"warning: no key can be kept in {config_folder()}, {hint}")
        with locked(run.path) as lock:
            for warning in plan.warnings:
                reporter.said(f"warning: {warning}")
            _train(session, run, reporter, lock, notes, None, began, boundary)
    return run


def resume(run: RunDirectory, reporter: Reporter, wishes: Wishes, began: float) -> RunDirectory:
    """Go on from a run's newest whole checkpoint to its budget.

    :param began: the moment of ``time.monotonic`` that ``max_time`` counts from
    :return: the run, finished; at once if it was already
    """
    if run.manifest().get("status") == "finished" and not wishes.extend(run):
        reporter.said(f"The run {run.name} is finished; there is nothing to resume.")
        return run
    import_paths = trusted_import_paths(run, run.config(), wishes.trust, reporter.said)
    make_importable(import_paths)
    is_trusted = wishes.trust or is_own(run)
    with locked(run.path, wishes.steal) as lock:
        continuation = prepare(run, wishes, import_paths, reporter.said)
        checkpoint = continuation.checkpoint
        config = continuation.config.model_copy(update={"max_time": wishes.max_time or continuation.config.max_time})
        if not is_trusted:
            config = _without_trackers(config, reporter)
        recipe = EnvRecipe.from_config(config, import_paths)
        with _session(config, recipe) as session:
            if checkpoint is None:
                _initialise(session, config)
            else:
                _restore(session, checkpoint)
            continuation.begin(reporter.said)
            _note_again(run, session.notes)
            _train(session, run, reporter, lock, session.notes, checkpoint, began)
    return run


def _note_again(run: RunDirectory, notes: tuple[str, ...]) -> None:
    """What was decided about the envs in this session takes the place of what was decided in the last one."""
    earlier = [note for note in run.manifest().get("notes") or () if not note.startswith(ABOUT_ENVS)]
    run.update_manifest({"notes": [*earlier, *notes]})


def _without_trackers(config: Config, reporter: Reporter) -> Config:
    """A foreign run's trackers would write, and talk, to where its author wants."""
    kept = [TrackerConfig(name="tensorboard") for tracker in config.trackers if tracker.name == "tensorboard"]
    dropped = [tracker.name for tracker in config.trackers if tracker.name != "tensorboard"]
    if dropped:
        reporter.said(f"warning: the run is not known to be yours, so nothing is sent to {', '.join(dropped)}.")
    return config.model_copy(update={"trackers": kept[:1]})


@contextlib.contextmanager
def _session(config: Config, recipe: EnvRecipe) -> Iterator[_Session]:
    torch.set_num_threads(config.threads or 1)
    venv, envs, note = make_training_envs(recipe, config.budget, config.threads or 1)
    try:
        seed_learner(config, 0, venv.action_space)
        model = build_model(config, venv)
        seed_learner(config, 0, model.action_space)  # model.action_space is the one that SB3 samples from
        callbacks = [_user_callback(c.cls, c.kwargs) for c in config.callbacks]
        yield _Session(config, recipe, model, envs, callbacks, (note,) if note else ())
    finally:
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
    parent = read_parent(Path(config.init_from))
    start_from(session.model, parent)
    return {"path": parent.label, "sha256": sha256(parent.model_path)}


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
    lock: RunLock,
    notes: tuple[str, ...],
    checkpoint: Checkpoint | None,
    began: float,
    kind: type[Boundary] = Boundary,
) -> None:
    config, model = session.config, session.model
    files = RunFiles(run.path, keep_until=checkpoint.timesteps if checkpoint else 0)
    model.set_logger(Logger(str(run.path), _open_writers(config, run, files, checkpoint)))
    stops = Stops(config.max_time, began, lock)
    boundary = kind(config, run, session.recipe, session.envs, files, reporter, stops, began, checkpoint)

    def finish(status: str, **more: Any) -> None:
        run.update_manifest({"status": status, **boundary.progress(model), **more})

    run.update_manifest({"status": "running"})
    done = done_by(config, model.num_timesteps, model._episode_num)
    reporter.started(run.path, config.budget, done, notes, config.budget_unit)
    stop: StopRequested | None = None
    with stops.handled():
        try:
            if not boundary.is_over:
                budget = 0 if boundary.ended_by else max(0, config.budget - done)
                _learn(model, boundary, session.callbacks, budget, checkpoint is None)
            finish("finished", ended_by=boundary.ended_by)
        except StopRequested as request:
            stop = request
            boundary.save_interrupted()
            finish("interrupted" if stop.reason == "interrupted" else "paused", stopped_by=stop.reason)
            _tell_end(session.callbacks)
        except (Exception, KeyboardInterrupt) as error:
            if lock.lost_to is None:  # else the run is no longer this process's to describe
                finish("failed", error="".join(traceback.format_exception_only(error)).strip())
            raise _in_words(error, run) from error
        finally:
            reporter.stopped()
            model.logger.close()
            files.close()
    again = f"rlrun resume {shlex.quote(str(run.path))}"
    if stop is None:
        if boundary.ended_by != BUDGET:
            reporter.said(f"Stopped: {boundary.ended_by}.")
    elif stop.reason == "interrupted":
        message = f"Interrupted at {model.num_timesteps:,} timesteps; the state is saved in {run.path}."
        raise Interrupted(message, f"Go on with: {again}", stops.exit_code)
    else:
        reporter.said(f"Stopped: max_time is used up at {model.num_timesteps:,} timesteps; go on with: {again}")


def _open_writers(config: Config, run: RunDirectory, files: RunFiles, checkpoint: Checkpoint | None) -> list[KVWriter]:
    values = config.model_dump(by_alias=True, mode="json")
    run_id = str(run.manifest().get("id", run.name))
    tracked = TrackedRun(run.path, run.name, values, run_id, checkpoint.timesteps if checkpoint else None)
    try:
        return [MetricsWriter(files.metrics), *open_trackers(config, tracked)]
    except UsageError as error:
        files.close()
        run.update_manifest({"status": "failed", "error": error.message})
        raise RlrunError(error.message, error.hint) from error


def _learn(
    model: BaseAlgorithm, boundary: Boundary, callbacks: list[BaseCallback], budget: int, from_start: bool
) -> None:
    """Run SB3's ``learn`` and the last boundary.

    :param budget: what is left of it, in its unit
    """
    ended_by = boundary.ended_by or BUDGET
    config = boundary.config
    target = done_by(config, model.num_timesteps, model._episode_num) + budget
    more: Any = {f"total_{config.budget_unit}": budget}
    try:
        # log_interval=None: rows are written at boundaries.
        model.learn(
            callback=[boundary, *callbacks],
            log_interval=None,  # type: ignore[arg-type]
            reset_num_timesteps=from_start,
            **more,
        )
    except TrainingEnded:
        _tell_end(callbacks)
        return
    if done_by(config, model.num_timesteps, model._episode_num) < target:
        ended_by = "a callback ended training"
    boundary.end(ended_by)


def _tell_end(callbacks: list[BaseCallback]) -> None:
    """What SB3 does where ``learn`` is not left by an exception."""
    for callback in callbacks:
        callback.on_training_end()


def _in_words(error: BaseException, run: RunDirectory) -> RlrunError:
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(
            f"Interrupted twice; the last checkpoint in {run.path} is kept.", "Go on with `rlrun resume`."
        )
    if isinstance(error, RlrunError):
        return RlrunError(error.message, error.hint)
    reason = " ".join(str(error).split())[:500]
    hint = f"The run is in {run.path}; --debug shows the traceback."
    return RlrunError(f"Training failed: {type(error).__name__}: {reason}", hint)


def _description(plan: Plan, parent: dict[str, Any] | None, notes: tuple[str, ...]) -> dict[str, Any]:
    """What the manifest says of a run at its start."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "id": secrets.token_hex(8),
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
        "notes": list(notes),
        "versions": versions(),
        "hardware": hardware(),
        "git": git_state(Path.cwd()),
    }
