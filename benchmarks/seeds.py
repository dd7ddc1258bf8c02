"""Ten seeds by ``rlrun train --seeds`` against ten bare processes that do the same, as many at a time.

python benchmarks/seeds.py [--config CartPole-v1/ppo] [--timesteps 50000] [--seeds 10] [--pairs 3]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlrun.machine import usable_cores

RLRUN = [sys.executable, "-m", "rlrun", "train"]


def together(config: str, timesteps: int, seeds: int, folder: Path) -> float:
    """Seconds of one command."""
    began = time.monotonic()
    command = [*RLRUN, config, "--seeds", f"0-{seeds - 1}", "--timesteps", str(timesteps)]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return time.monotonic() - began


def apart(config: str, timesteps: int, seeds: int, folder: Path) -> float:
    """Seconds of as many commands as there are seeds, one for each core at a time."""

    def train(seed: int) -> None:
        command = [*RLRUN, config, "--seed", str(seed), "--timesteps", str(timesteps), "--set", "threads=1"]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)

    began = time.monotonic()
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(train, range(seeds)))
    return time.monotonic() - began


def main() -> None:
    """Measure in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="CartPole-v1/ppo")
    parser.add_argument("--timesteps", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args()
    ratios = []
    for _ in range(given.pairs):
        with tempfile.TemporaryDirectory() as folder:
            one, other = (way(given.config, given.timesteps, given.seeds, Path(folder)) for way in (together, apart))
        ratios.append(one / other)
        print(f"--seeds {one:.1f} s, processes of their own {other:.1f} s: {ratios[-1]:.3f}", flush=True)
    print(f"median {statistics.median(ratios):.3f} on {usable_cores()} cores")


if __name__ == "__main__":
    main()
