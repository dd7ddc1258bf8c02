"""The checkpoint bundle: one directory with everything of one moment, and a list of hashes.

Weights cannot be mixed up with another moment's statistics, because there is no way to name one without the other.
The bundle is written beside its place and renamed, so it is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlrun.algorithms.q_learning import QLearning
from rlrun.envs.curiosity import find_curiosity
from rlrun.envs.normalization import Statistics, get_statistics
from rlrun.envs.recipe import find_normalizer
from rlrun.errors import UsageError
from rlrun.runs.archive import read_statistics
from rlrun.runs.directory import CHECKPOINTS, POINTERS, STATE, RunDirectory
from rlrun.runs.files import os_errors_in_words, rename_into_place, sync_folder
from rlrun.runs.learner import get_learner_state
from rlrun.runs.replay import FOLDER as REPLAY_FOLDER
from rlrun.runs.replay import save_replay_buffer
from rlrun.runs.sums import SUMS, damage_of, write_sums

MODEL, PICKLED_STATISTICS, STATISTICS = "model.zip", "vec_normalize.pkl", "vec_normalize.npz"
TABLE = "q_table.npy"  # what a tabular agent learnt, as an array that NumPy reads: (states, actions)
CURIOSITY = "curiosity.npz"  # what the intrinsic reward comes from
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A whole bundle, its hashes verified.

    :ivar state: ``format``, ``timesteps``, ``resumable``, ``scheduled``, ``learner``, ``session``, ``replay_buffer``
    :ivar statistics: normalization statistics; None when the config does not normalize
    """

    path: Path
    timesteps: int
    state: Mapping[str, Any]
    statistics: Statistics | None

    @property
    def model_path(self) -> Path:
        """The plain SB3 zip."""
        return self.path / MODEL

    def curiosity(self) -> dict[str, np.ndarray] | None:
        """What the intrinsic reward comes from; None when the config had none."""
        return read_statistics(self.path / CURIOSITY) if (self.path / CURIOSITY).is_file() else None

    @property
    def replay_path(self) -> Path:
        """The folder of the replay buffer's files."""
        return self.path / REPLAY_FOLDER


def write_checkpoint(
    run: RunDirectory,
    model: BaseAlgorithm,
    session: Mapping[str, Any],
    *,
    resumable: bool,
    scheduled: bool,
    previous: int | None = None,
) -> int:
    """Write a bundle of this moment.

    :param session: what the training session itself must remember; plain JSON
    :param resumable: with the replay buffer, so that training can go on from it
    :param scheduled: at a checkpoint of the config's spacing, not at an interruption
    :param previous: timesteps of the run's previous resumable checkpoint
    :return: its timesteps
    """
    timesteps = model.num_timesteps
    final = run.checkpoint_path(timesteps)
    temporary = final.with_name(f".{timesteps}.{secrets.token_hex(4)}.tmp")
    with os_errors_in_words("writing a checkpoint"):
        try:
            temporary.mkdir()
            state: dict[str, Any] = {"format": FORMAT, "timesteps": timesteps}
            state |= {"resumable": resumable, "scheduled": scheduled}
            state |= {"learner": get_learner_state(model), "session": dict(session)}
            model.save(temporary / MODEL)
            if isinstance(model, QLearning):
                np.save(temporary / TABLE, model.table)
            normalizer = find_normalizer(model.env)
            if normalizer is not None:
                normalizer.save(str(temporary / PICKLED_STATISTICS))
                np.savez(temporary / STATISTICS, **get_statistics(normalizer))  # type: ignore[arg-type]
            curiosity = find_curiosity(model.env)
            if curiosity is not None:
                np.savez(temporary / CURIOSITY, **curiosity.get_state())  # type: ignore[arg-type]
            if resumable and isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
                before = run.checkpoint_path(previous) / REPLAY_FOLDER if previous is not None else None
                added = (timesteps - (previous or 0)) // model.n_envs + 1
                state["replay_buffer"] = save_replay_buffer(
                    model.replay_buffer, temporary / REPLAY_FOLDER, before, added
                )
            (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n")
            write_sums(temporary, run.checkpoint_path(previous) if previous is not None else None)
            _flush(temporary)
            rename_into_place(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return timesteps


def read_checkpoint(run: RunDirectory, timesteps: int) -> Checkpoint:
    """A bundle, after its hashes are verified.

    :raises UsageError: when a file is missing or damaged
    """
    path = run.checkpoint_path(timesteps)
    problem = damage(path)
    if problem:
        whole = [steps for steps in run.checkpoint_steps() if not damage(run.checkpoint_path(steps))]
        others = ", ".join(map(str, whole))
        hint = f"Name another with --checkpoint: {others}." if others else "The run has no whole checkpoint."
        raise UsageError(f"The checkpoint {path} is damaged: {problem}.", hint)
    return _read_whole(path, timesteps)


def _read_whole(path: Path, timesteps: int) -> Checkpoint:
    statistics = read_statistics(path / STATISTICS) if (path / STATISTICS).exists() else None
    return Checkpoint(path, timesteps, _read_state(path), statistics)


def first_whole(run: RunDirectory, say: Callable[[str], None]) -> tuple[str, Checkpoint]:
    """The best checkpoint, else the final, else the newest one that is whole.

    :param say: told of each that had to be passed over
    :return: its name for people, and it
    :raises UsageError: when none is whole
    """
    named = [(name, steps) for name in POINTERS if (steps := run.pointer(name)) is not None]
    newest = [(str(steps), steps) for steps in reversed(run.checkpoint_steps())]
    tried: dict[int, str] = {}
    for name, steps in [*named, *newest]:
        if steps in tried:
            continue
        tried[steps] = damage(run.checkpoint_path(steps))
        if not tried[steps]:
            for other, problem in tried.items():
                if problem:
                    say(f"warning: the checkpoint at {other:,} timesteps is damaged ({problem}); another is used.")
            return name, _read_whole(run.checkpoint_path(steps), steps)
    run.choose_checkpoint()  # says it where there has been none yet
    found = "; ".join(f"at {steps:,} timesteps, {problem}" for steps, problem in tried.items())
    raise UsageError(f"The run {run.name} has no whole checkpoint: {found}.", "Train it anew.")


def _read_state(path: Path) -> dict[str, Any]:
    """state.json of a bundle whose hashes are right; someone else may have written both."""
    try:
        state = json.loads((path / STATE).read_text())
        if state["format"] != FORMAT:
            raise ValueError(f"its format is {state['format']}, and this version of rlrun knows {FORMAT}")
        _require_kinds(state, {"timesteps": int, "resumable": bool, "learner": dict, "session": dict})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path / STATE} is not what rlrun writes ({error}).", "Use another checkpoint.") from None
    return dict(state)


_SESSION = {"window": list, "visited": int, "seconds": int | float, "ended_by": str, "logged": dict}


def _require_kinds(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    for key, kind in kinds.items():
        if not isinstance(values[key], kind):
            raise TypeError(f"{key} is {type(values[key]).__name__}")


def newest_resumable(run: RunDirectory, only_scheduled: bool = False) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint that training can go on from.

    :param only_scheduled: leave out those that an interruption saved
    :return: it, or None; and a sentence for each one that had to be passed over
    """
    passed_over = []
    for timesteps in reversed(run.checkpoint_steps()):
        path = run.checkpoint_path(timesteps)
        problem = damage(path)
        if problem:
            passed_over.append(f"The checkpoint at {timesteps:,} timesteps is damaged ({problem}).")
            continue
        checkpoint = _read_whole(path, timesteps)
        if checkpoint.state["resumable"] and (checkpoint.state["scheduled"] or not only_scheduled):
            try:
                _require_kinds(checkpoint.state["session"], _SESSION)
            except (KeyError, TypeError) as error:
                message = f"{path / STATE} does not say all that training needs to go on ({error})."
                raise UsageError(message, "It can be evaluated; for a new run from its weights: --init") from None
            return checkpoint, passed_over
    return None, passed_over


def damage(path: Path) -> str:
    """What is wrong with a bundle's files; empty when every one has its hash."""
    return damage_of(path, required=(MODEL, STATE))


def prune_checkpoints(run: RunDirectory, keep: int) -> None:
    """Delete all but the best and the final checkpoint and the ``keep`` newest that training can go on from."""
    steps = run.checkpoint_steps()
    newest = [timesteps for timesteps in steps if is_resumable(run, timesteps)][-keep:]
    # A run that goes on from one of them has that one's best again.
    bests = {run.checkpoint_state(timesteps).get("session", {}).get("best_timesteps") for timesteps in newest}
    for timesteps in steps:
        if timesteps in newest:
            continue
        if timesteps in (*bests, run.pointer("best"), run.pointer("final")):
            shrink_to_evaluation(run, timesteps)
        else:
            shutil.rmtree(run.checkpoint_path(timesteps), ignore_errors=True)


def is_resumable(run: RunDirectory, timesteps: int) -> bool:
    """Whether training can go on from a checkpoint, or it is kept to be evaluated only."""
    return bool(run.checkpoint_state(timesteps).get("resumable"))


def forget_after(run: RunDirectory, checkpoint: Checkpoint | None) -> None:
    """Make a run what it was when a checkpoint was written: later ones go, and pointers name none of them.

    :param checkpoint: None: what it was at its start
    """
    timesteps = checkpoint.timesteps if checkpoint else -1
    for later in [steps for steps in run.checkpoint_steps() if steps > timesteps]:
        shutil.rmtree(run.checkpoint_path(later), ignore_errors=True)
    session = checkpoint.state["session"] if checkpoint else {}
    kept = {"latest": timesteps, "best": session.get("best_timesteps")}
    kept["final"] = timesteps if session.get("ended_by") else None
    for name, steps in kept.items():
        if steps in run.checkpoint_steps():
            run.point(name, steps)
        else:
            (run.path / name).unlink(missing_ok=True)


def shrink_to_evaluation(run: RunDirectory, timesteps: int) -> None:
    """Drop the replay buffer of a checkpoint that is kept only to be evaluated."""
    path = run.checkpoint_path(timesteps)
    if not (path / REPLAY_FOLDER).is_dir():
        return
    temporary = path.with_name(f".{timesteps}.{secrets.token_hex(4)}.tmp")
    with os_errors_in_words("making a checkpoint smaller"):
        try:
            shutil.copytree(path, temporary, ignore=shutil.ignore_patterns(REPLAY_FOLDER, SUMS))
            state = json.loads((temporary / STATE).read_text())
            state["resumable"] = False
            state.pop("replay_buffer", None)
            (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n")
            write_sums(temporary, None)
            _flush(temporary)
            rename_into_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(run: RunDirectory) -> None:
    """Delete what a killed process was writing, and give back a checkpoint that it was about to replace."""
    for aside in (run.path / CHECKPOINTS).glob(".*.old"):
        final = run.checkpoint_path(int(aside.name.split(".")[1]))
        if not final.exists():
            aside.rename(final)
    for entry in [*run.path.glob(".*.tmp"), *(run.path / CHECKPOINTS).glob(".*")]:
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def require_statistics(checkpoint: Checkpoint, normalizes: bool) -> None:
    """Refuse a normalized agent without its statistics.

    :raises UsageError: when they are missing
    """
    if normalizes and checkpoint.statistics is None:
        raise UsageError(f"The checkpoint {checkpoint.path} lacks the normalization statistics its agent needs.")


def _flush(folder: Path) -> None:
    """Force files and folders to the disk before the rename that makes them count."""
    for file in folder.rglob("*"):
        if file.is_dir():
            sync_folder(file)
        elif file.stat().st_nlink == 1:
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    sync_folder(folder)
