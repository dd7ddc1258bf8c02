"""The replay buffer as files: chunks of rows, of which a checkpoint writes only those that changed.

Rows that were written since the previous checkpoint lie in a known window of the ring, so every other chunk is a
hard link to the previous checkpoint's file. Each kept checkpoint is whole, and cheap.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from rlrun.accelerate.frames import FrameBuffer
from rlrun.algorithms.prioritized import Prioritized
from rlrun.errors import UsageError

FOLDER = "replay_buffer"
_CHUNK_BYTES = 32 * 2**20
_WITH_MORE = (FrameBuffer, Prioritized)  # than rows
# Small, and changed behind the writing position when an episode ends: always written in full.
_WHOLE = ("rewards", "dones", "timeouts", "ep_start", "ep_length", "age", "ended")


def save_replay_buffer(buffer: ReplayBuffer, folder: Path, previous: Path | None, added: int) -> dict[str, Any]:
    """Write a buffer's rows into ``folder``.

    :param previous: the same folder of the run's previous checkpoint, whose unchanged chunks are linked
    :param added: at most how many rows were written since that checkpoint
    :return: what :func:`load_replay_buffer` needs besides the files; plain JSON
    """
    folder.mkdir()
    files: list[dict[str, Any]] = []
    rows = buffer.buffer_size if buffer.full else buffer.pos
    dirty = np.zeros(buffer.buffer_size, dtype=bool)
    dirty[np.arange(buffer.pos - min(added, buffer.buffer_size), buffer.pos) % buffer.buffer_size] = True
    for index, (name, array) in enumerate(arrays(buffer)):
        step = max(1, rows if name in _WHOLE else _CHUNK_BYTES // max(1, array[0].nbytes))
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            # Named by number: a key of a Dict observation may hold anything.
            target = folder / f"{index}-{start}-{stop}.npy"
            if name in _WHOLE or dirty[start:stop].any() or not _linked(previous, target):
                np.save(target, array[start:stop])
            files.append({"array": name, "start": start, "stop": stop, "file": target.name})
    state: dict[str, Any] = {"pos": buffer.pos, "full": buffer.full, "rows": rows, "files": files}
    if isinstance(buffer, HerReplayBuffer):
        state["current_ep_start"] = buffer._current_ep_start.tolist()
    if isinstance(buffer, _WITH_MORE):
        for name, array in buffer.besides().items():
            np.save(folder / _besides(name), array)
    return state


def _besides(name: str) -> str:
    return f"besides-{name}.npy"


def arrays(buffer: ReplayBuffer) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays that hold a buffer's rows, by name; the first axis is the row."""
    for name in ("observations", "next_observations", "frames", "actions", *_WHOLE):
        value = getattr(buffer, name, None)
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", array) for key, array in value.items())
        elif isinstance(value, np.ndarray):
            yield name, value


def _linked(previous: Path | None, target: Path) -> bool:
    """Hard-link the previous checkpoint's file; False where there is none, or no hard links."""
    if previous is None:
        return False
    try:
        os.link(previous / target.name, target)
    except OSError:
        return False
    return True


def load_replay_buffer(buffer: ReplayBuffer, folder: Path, state: dict[str, Any]) -> None:
    """Fill a fresh buffer of the same shape from a checkpoint's files.

    :raises UsageError: when the files do not fit the buffer
    """
    targets = dict(arrays(buffer))
    filled = dict.fromkeys(targets, 0)
    try:
        for entry in state["files"]:
            name, start, stop = entry["array"], entry["start"], entry["stop"]
            part = np.load(folder / Path(entry["file"]).name, allow_pickle=False)
            if part.shape != targets[name][start:stop].shape:
                raise ValueError(f"{name} has shape {part.shape}")
            targets[name][start:stop] = part
            filled[name] += stop - start
        if isinstance(buffer, _WITH_MORE):
            parts = {name: np.load(folder / _besides(name), allow_pickle=False) for name in buffer.besides()}
            buffer.put_besides(parts)
    except (OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise UsageError(f"The replay buffer in {folder} does not fit this config: {error}.") from error
    missing = [name for name, rows in filled.items() if rows != state["rows"]]
    if missing:
        raise UsageError(f"The replay buffer in {folder} does not fit this config: it lacks {', '.join(missing)}.")
    if state["full"] and state["rows"] != buffer.buffer_size:
        sizes = f"it holds {state['rows']:,} rows, and buffer_size is {buffer.buffer_size:,}"
        raise UsageError(f"The replay buffer in {folder} does not fit this config: {sizes}.")
    buffer.pos, buffer.full = state["pos"], state["full"]
    if isinstance(buffer, HerReplayBuffer):
        buffer._current_ep_start = np.array(state["current_ep_start"], dtype=np.int64)


def truncate_at_cut(buffer: ReplayBuffer) -> None:
    """Mark the newest transition as cut off by time, where it did not end an episode.

    The envs are about to be built anew. Without the mark, n-step returns and hindsight goals would reach across.
    """
    if buffer.pos == 0 and not buffer.full:
        return
    if isinstance(buffer, FrameBuffer):
        buffer.cut()
    if isinstance(buffer, HerReplayBuffer):
        if (buffer._current_ep_start != buffer.pos).any():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # SB3 warns of the truncation that is meant here
                buffer.truncate_last_trajectory()
        return
    last = (buffer.pos - 1) % buffer.buffer_size
    open_ended = buffer.dones[last] == 0
    if buffer.handle_timeout_termination:
        # A time-out is a done whose value is bootstrapped (ReplayBuffer._get_samples), and ends n-step returns.
        buffer.timeouts[last][open_ended] = 1
    buffer.dones[last][open_ended] = 1
