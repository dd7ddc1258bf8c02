"""Whether a run's checkpoints will fit on the disk, found out before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlrun.config.schema import Config
from rlrun.errors import UsageError
from rlrun.runs.replay import arrays
from rlrun.words import size

_OPTIMIZER = 3  # Adam keeps two moments beside each weight


def checkpoint_bytes(model: BaseAlgorithm, config: Config) -> int:
    """Bytes that all kept checkpoints of a run take at most, where the file system has hard links.

    Rows of the replay buffer that did not change lie on the disk once, however many checkpoints hold them.
    """
    keep, every = config.checkpoint.keep, config.checkpoint.every or config.budget
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.policy.state_dict().values())
    # Each kept one and its best of then, the best of all, the final, and the one being written.
    total = weights * _OPTIMIZER * (2 * keep + 3)
    if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
        row = sum(array[0].nbytes for _, array in arrays(model.replay_buffer))
        rows = min(model.replay_buffer.buffer_size, -(-config.budget // model.n_envs))
        total += row * (rows + (keep + 1) * min(rows, every // model.n_envs))
    return total


def require_space(root: Path, model: BaseAlgorithm, config: Config) -> None:
    """Refuse to begin what the disk cannot hold.

    :param root: where the run directory will be
    :raises UsageError: with both numbers
    """
    place = root.absolute()
    while not place.exists():
        place = place.parent
    needed, free = checkpoint_bytes(model, config), shutil.disk_usage(place).free
    if needed > free:
        message = f"The checkpoints of this run need up to {size(needed)}, and {size(free)} is free at {place}."
        raise UsageError(message, "Make room, choose another --run-dir, or lower checkpoint.keep or buffer_size.")
