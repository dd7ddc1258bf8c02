"""Before a run goes on: from which checkpoint, with what config, and what is no longer as it was."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlrun.algorithms.schedules import is_schedule_form, parse_schedule
from rlrun.config.loading import Override, dotted, leaves, read_source
from rlrun.config.schema import Config, whole_number
from rlrun.errors import UsageError, shown
from rlrun.runs.checkpoint import Checkpoint, forget_after, newest_resumable, remove_leftovers
from rlrun.runs.directory import CONFIG, RunDirectory
from rlrun.runs.files import to_yaml, write_whole
from rlrun.runs.provenance import hardware, versions
from rlrun.runs.trust import is_own, sign
from rlrun.training.boundary import BUDGET, done_by
from rlrun.training.plan import make_plan

# What may change in the middle of a run; anything else would be another agent in another env.
_CHANGEABLE = (
    *("hyperparameters", "evaluation", "checkpoint", "video", "early_stop", "trackers", "log_every"),
    *("env.vec", "env.worker_timeout"),
)
# The agent and what it remembers: a checkpoint's weights and replay buffer fit no others.
_FIXED = (
    *("policy", "policy_kwargs", "use_sde", "buffer_size", "replay_buffer_class", "replay_buffer_kwargs"),
    *("optimize_memory_usage", "dueling", "prioritized_replay", "prioritized_replay_alpha", "prioritized_replay_eps"),
)
_EPISODES = "total_episodes"  # in an override
_ANY_TIME = ("threads", "device", "max_time")


@dataclass(frozen=True)
class Wishes:
    """How a run is to go on, where that differs from its config.

    :ivar total_timesteps: a new budget, what was trained before included; one of episodes is an override
    :ivar max_time: seconds after which to stop cleanly
    :ivar exact: go back to the last scheduled checkpoint, if an interruption saved a newer one
    :ivar steal: take the run from a process that holds it
    :ivar overrides: changes of the config from here on
    :ivar trust: import what the config names, though the run is not known to be this user's
    """

    total_timesteps: int | None = None
    max_time: float | None = None
    exact: bool = False
    steal: bool = False
    overrides: tuple[Override, ...] = ()
    trust: bool = False

    def new_total(self, config: Config) -> int | None:
        """The new budget in the unit of the run's, if there is one.

        :raises UsageError: when it is in the other unit, or no number
        """
        episodes = next((override.value for override in self.overrides if override.key == _EPISODES), None)
        if config.budget_unit == "timesteps":
            if episodes is not None:
                raise _other_unit(config)
            return self.total_timesteps
        if self.total_timesteps is not None:
            raise _other_unit(config)
        if episodes is not None and (isinstance(episodes, bool) or not isinstance(whole_number(episodes), int)):
            raise UsageError(f"total_episodes must be a whole number, not {shown(episodes)}.")
        return whole_number(episodes)

    def extend(self, run: RunDirectory) -> bool:
        """Whether a finished run gets a larger budget.

        :raises UsageError: when the new one is used up already, or other changes have none to be for
        """
        config, manifest = run.config(), run.manifest()
        total = self.new_total(config)
        if total is None:
            if self.overrides:
                change = self.overrides[0].key
                message = f"The run {run.name} is finished, so there is nothing that {change} would change."
                raise UsageError(message, f"Train it further: {_budget_flag(config)}")
            return False
        done = done_by(config, run.pointer("final") or manifest.get("timesteps") or 0, manifest.get("episodes") or 0)
        _require_more(run, config, total, done)
        return total > done


@dataclass(frozen=True)
class Continuation:
    """How a run goes on; nothing of the run has been changed for it yet.

    :ivar config: from here on
    :ivar checkpoint: to go on from; None: from the beginning
    :ivar where: in words
    """

    run: RunDirectory
    before: Config
    config: Config
    checkpoint: Checkpoint | None
    is_reopened: bool
    where: str

    def begin(self, say: Callable[[str], None]) -> None:
        """Make the run what it was at the checkpoint, and write down what changes."""
        run, checkpoint = self.run, self.checkpoint
        say(self.where)
        if self.is_reopened and checkpoint is not None:
            run.update_manifest({"reopened_at": checkpoint.timesteps})
        remove_leftovers(run)
        forget_after(run, checkpoint)
        changes = _differences(self.before, self.config)
        if changes:
            was_own = is_own(run)
            write_whole(run.path / CONFIG, to_yaml(self.config.model_dump(by_alias=True)))
            if was_own:
                sign(run)
        _note(run, checkpoint, changes, say)


def prepare(run: RunDirectory, wishes: Wishes, import_paths: Sequence[str], say: Callable[[str], None]) -> Continuation:
    """Find out from where and with what config a run goes on.

    :param import_paths: folders that it may import from
    :raises UsageError: when it cannot
    """
    before = run.config()
    has_new_total = wishes.new_total(before) is not None
    checkpoint = _choose(run, wishes, say)
    at = checkpoint.timesteps if checkpoint else 0
    where = _where(run, wishes, checkpoint)  # of the checkpoint as it lies there, not as it is reopened
    config = _changed(run, before, wishes, checkpoint, import_paths)
    # A process may have died between reopening a finished run and its next checkpoint.
    reopens = has_new_total or run.manifest().get("reopened_at") == at
    has_more = config.budget > _done(before, checkpoint)
    is_reopened = checkpoint is not None and bool(checkpoint.state["session"]["ended_by"]) and has_more and reopens
    if checkpoint is not None and is_reopened:
        checkpoint = _reopened(run, checkpoint, config)
    return Continuation(run, before, config, checkpoint, is_reopened, where)


def _done(config: Config, checkpoint: Checkpoint | None) -> int:
    """How much of the budget a checkpoint has behind it."""
    if checkpoint is None:
        return 0
    return done_by(config, checkpoint.timesteps, checkpoint.state["learner"].get("_episode_num", 0))


def _require_more(run: RunDirectory, config: Config, total: int, done: int) -> None:
    if total < done:
        message = f"The run {run.name} has {done:,} {config.budget_unit} already, more than {total:,}."
        raise UsageError(message, f"Give the new total: {_budget_flag(config)}")


def _other_unit(config: Config) -> UsageError:
    message = f"The budget of this run is counted in {config.budget_unit}."
    return UsageError(message, f"Give the new total: {_budget_flag(config)}")


def _budget_flag(config: Config) -> str:
    return "--timesteps N" if config.budget_unit == "timesteps" else "--set total_episodes=N"


def _choose(run: RunDirectory, wishes: Wishes, say: Callable[[str], None]) -> Checkpoint | None:
    checkpoint, passed_over = newest_resumable(run, only_scheduled=wishes.exact)
    for sentence in passed_over:
        say(f"warning: {sentence} An older one is used.")
    if checkpoint is None and passed_over:
        raise UsageError(f"The run {run.name} has no whole checkpoint. {' '.join(passed_over)}", "Train it anew.")
    return checkpoint


def _where(run: RunDirectory, wishes: Wishes, checkpoint: Checkpoint | None) -> str:
    """From where a run goes on, in words."""
    done, newest = checkpoint.timesteps if checkpoint else 0, max(run.checkpoint_steps(), default=0)
    if wishes.exact and newest > done:
        where = f"{done:,} timesteps" if checkpoint else "the beginning, because no checkpoint was scheduled before"
        return f"Going back to {where}; {newest - done:,} timesteps are trained again."
    if checkpoint is None:
        return f"The run {run.name} has no checkpoint yet, so it starts from the beginning."
    if not checkpoint.state["scheduled"]:
        return f"Going on from {done:,} timesteps, where an interruption saved it: the envs are restarted there."
    return f"Going on from {done:,} timesteps."


def _changed(
    run: RunDirectory, config: Config, wishes: Wishes, checkpoint: Checkpoint | None, import_paths: Sequence[str]
) -> Config:
    """The run's config with what the user wants changed, checked in full."""
    overrides = tuple(override for override in wishes.overrides if override.key != _EPISODES)
    for override in overrides:
        if any(f"{override.key}.".startswith(f"hyperparameters.{name}.") for name in _FIXED):
            raise _other_agent(override.key)
        if not any(f"{override.key}.".startswith(f"{key}.") for key in (*_CHANGEABLE, *_ANY_TIME)):
            message = f'"{override.key}" cannot be changed in the middle of a run.'
            can = ", ".join((*_CHANGEABLE, *_ANY_TIME))
            raise UsageError(message, f"What can: {can}; and the budget: {_budget_flag(config)}")
    if overrides:
        # What the run started from may be gone by now. What it goes on from must fit the changes.
        weights = str(checkpoint.model_path) if checkpoint else None
        given = [*overrides, Override("init_from", weights, "")]
        planned = make_plan(read_source(run.path / CONFIG, given), import_paths=import_paths).config
        _require_same_agent(config, planned)
        config = planned.model_copy(update={"init_from": config.init_from})
    total = wishes.new_total(config)
    if total is None or total == config.budget:
        return config
    newest = newest_resumable(run, only_scheduled=False)[0] if wishes.exact else checkpoint
    _require_more(run, config, total, _done(config, newest))
    if total > config.horizon:
        _require_learning(config)
    unit = config.budget_unit
    return config.model_copy(update={f"total_{unit}": total, f"schedule_{unit}": config.horizon})


def _require_same_agent(before: Config, now: Config) -> None:
    for name in _FIXED:
        if before.hyperparameters.get(name) != now.hyperparameters.get(name):
            raise _other_agent(f"hyperparameters.{name}")


def _other_agent(key: str) -> UsageError:
    message = f'"{key}" cannot be changed in the middle of a run: its checkpoints would no longer fit.'
    return UsageError(message, "For a new run from these weights: rlrun train --init RUN")


def _require_learning(config: Config) -> None:
    rate = config.hyperparameters.get("learning_rate")
    if rate is not None and is_schedule_form(rate) and parse_schedule(rate)(0.0) == 0:
        when = f"{config.horizon:,} {config.budget_unit}"
        message = f"The learning rate falls to 0 at {when}, so nothing would be learnt after that."
        raise UsageError(message, "Give it a value for the rest: --set hyperparameters.learning_rate=1e-4")


def _reopened(run: RunDirectory, checkpoint: Checkpoint, config: Config) -> Checkpoint:
    """The final checkpoint of a run that goes on after all."""
    session = checkpoint.state["session"]
    if config.early_stop is not None and session["ended_by"] != BUDGET:
        message = f"The run {run.name} ended because {session['ended_by']}."
        raise UsageError(message, "To go on all the same: --set early_stop=null")
    return replace(checkpoint, state={**checkpoint.state, "scheduled": False, "session": {**session, "ended_by": ""}})


def _differences(before: Config, now: Config) -> dict[str, Any]:
    old, new = (dict(leaves(config.model_dump(by_alias=True))) for config in (before, now))
    return {dotted(path): new.get(path) for path in {**old, **new} if old.get(path) != new.get(path)}


def _note(
    run: RunDirectory, checkpoint: Checkpoint | None, changes: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Write into the manifest from where the run goes on, and what is no longer as it was."""
    manifest = run.manifest()
    now = {**versions(), **{key: value for key, value in hardware().items() if key not in ("host", "memory")}}
    then = {**manifest.get("versions", {}), **manifest.get("hardware", {})}
    other = [f"{key} {then[key]}, now {value}" for key, value in now.items() if key in then and then[key] != value]
    if other and checkpoint is not None:
        say(f"warning: not what the run began with ({'; '.join(other)}): it may no longer end with the same bytes.")
    entry = {
        "at": checkpoint.timesteps if checkpoint else 0,
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "scheduled": bool(checkpoint.state["scheduled"]) if checkpoint else True,
        "differences": other,
        "changes": dict(changes),
    }
    run.update_manifest({"resumed": [*manifest.get("resumed", ()), entry], "ended_by": None, "stopped_by": None})
