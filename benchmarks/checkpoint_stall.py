"""How long training stands still for a checkpoint of DQN on Atari, and what it writes.

    python benchmarks/checkpoint_stall.py [--transitions 100000] [--every 50000] [--folder DIR]

The replay buffer holds random frames. A checkpoint is written when it is full; then ``every`` transitions are replaced,
and another checkpoint is written, three times. Printed: seconds, bytes of the checkpoint, bytes that were new.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from rlrun import api
from rlrun.algorithms.build import build_model
from rlrun.config.loading import Override
from rlrun.runs.checkpoint import write_checkpoint
from rlrun.runs.directory import RunDirectory


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transitions", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    overrides = {"hyperparameters.buffer_size": given.transitions}
    plan = api.check(
        "SpaceInvadersNoFrameskip-v4/dqn", overrides=[Override(key, value, "") for key, value in overrides.items()]
    )
    venv, _ = plan.recipe.make_training_vec()
    model = build_model(plan.config, venv)
    buffer = model.replay_buffer  # type: ignore[attr-defined]
    draw = np.random.default_rng(0)
    for array in (buffer.observations, buffer.next_observations):
        for start in range(0, len(array), 1_000):
            array[start : start + 1_000] = draw.integers(0, 256, array[start : start + 1_000].shape, dtype=np.uint8)
    buffer.full, model.num_timesteps = True, given.transitions
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        run = RunDirectory.create(Path(folder), plan.config)
        previous = None
        print(f"{'timesteps':>10} {'seconds':>8} {'checkpoint':>12} {'newly written':>14}")
        for _ in range(4):
            before = run.size()
            began = time.perf_counter()
            write_checkpoint(run, model, {}, resumable=True, scheduled=True, previous=previous)
            seconds = time.perf_counter() - began
            previous = model.num_timesteps
            path = run.checkpoint_path(previous)
            whole = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            print(f"{previous:>10,} {seconds:>8.1f} {whole / 1e6:>9,.0f} MB {(run.size() - before) / 1e6:>11,.0f} MB")
            buffer.pos = (buffer.pos + given.every) % given.transitions
            model.num_timesteps += given.every
    venv.close()


if __name__ == "__main__":
    main()
