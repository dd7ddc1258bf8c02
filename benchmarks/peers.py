"""Time ``rlrun train`` against ``python -m rl_zoo3.train``: the same settings, in turn, several pairs.

``make bench`` installs the peer in a venv of its own and runs this. Evaluation and checkpoints are off on both sides,
and each has its own default threads. What is timed is the wall clock of the whole command.

    python benchmarks/peers.py --peer .bench/bin/python --pairs 5 [--only ppo/CartPole-v1] [--write]
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from page import write_into_page

HERE = Path(__file__).parent
ROWS = (
    ("ppo", "CartPole-v1", "100k timesteps", 2.0),
    ("ppo", "LunarLander-v3", "200k timesteps", 2.5),
    ("a2c", "PandaReachDense-v3", "4 envs, normalized, 40k timesteps", 1.6),
    ("dqn", "LunarLander-v3", "50k timesteps", 2.0),
    ("tqc", "Pendulum-v1", "SB3's defaults, 5k timesteps", 2.2),
    ("tqc", "PandaReach-v3", "HER, batch 256, 3k timesteps", 2.2),
    ("dqn", "SpaceInvadersNoFrameskip-v4", "20k timesteps, learning from 2k", 1.5),
    ("ppo", "PongNoFrameskip-v4", "8 envs, 40k timesteps", 1.4),
)
PACKAGES = {"Panda": "panda_gym", "NoFrameskip": "ale_py"}


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds of each pair."""

    name: str
    what: str
    target: float
    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as long the peer takes, pair by pair."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        low, middle, high = min(self.ratios), statistics.median(self.ratios), max(self.ratios)
        seconds = f"{statistics.median(self.ours):.1f} s", f"{statistics.median(self.theirs):.1f} s"
        spread = f"{middle:.2f}x ({low:.2f} to {high:.2f})"
        return f"`{self.name}`, {self.what}", *seconds, spread, f"{self.target:g}x", str(len(self.ours))


def seconds(command: list[str], folder: Path) -> float:
    """Wall clock of a command."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - began


def ours(algo: str, env: str) -> list[str]:
    """The command of rlrun."""
    off = ["evaluation.every=0", "evaluation.episodes=0", "checkpoint.every=0", "trackers=[]"]
    settings = [part for setting in off for part in ("--set", setting)]
    zoo = ["--config", str(HERE / "peers" / f"{algo}.yml"), "--env", env]
    return [sys.executable, "-m", "rlrun", "train", *zoo, *settings]


def theirs(python: str, algo: str, env: str) -> list[str]:
    """The command of RL Zoo."""
    command = [python, "-m", "rl_zoo3.train", "--algo", algo, "--env", env, "--eval-freq", "-1", "--seed", "0"]
    packages = [module for part, module in PACKAGES.items() if part in env]
    command += ["-conf", str(HERE / "peers" / f"{algo}.yml"), "-f", "logs"]
    return command + (["--gym-packages", *packages] if packages else [])


def measure(algo: str, env: str, what: str, target: float, peer: str, pairs: int) -> Row:
    """Run the pairs; who goes first changes from pair to pair."""
    row = Row(f"{algo} {env}", what, target, [], [])
    for pair in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            sides = [(row.ours, ours(algo, env)), (row.theirs, theirs(peer, algo, env))]
            for times, command in sides if pair % 2 == 0 else reversed(sides):
                times.append(seconds(command, Path(folder)))
        print(f"{row.name}: {row.ours[-1]:.1f} s against {row.theirs[-1]:.1f} s", file=sys.stderr, flush=True)
    return row


def table(rows: list[Row], peer: str) -> str:
    """The rows and where they come from, in Markdown."""
    names = ("rl_zoo3", "stable_baselines3", "torch")
    versions = f"import {', '.join(names)}; print({', '.join(f'{name}.__version__' for name in names)})"
    found = subprocess.run([peer, "-c", versions], capture_output=True, text=True, check=True).stdout.split()[-3:]
    cpu = next((line.partition(":")[2].strip() for line in cpu_lines() if line.startswith("model name")), "")
    head = ("work", "rlrun", "RL Zoo", "ratio: median (least to most)", "at least", "pairs")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row.cells())} |" for row in rows)]
    date = datetime.date.today().isoformat()
    where = f"{cpu or platform.processor()}, {len(os.sched_getaffinity(0))} cores, {date}; "
    where += "rl_zoo3 {}, stable-baselines3 {}, torch {}.".format(*found)
    return "\n".join([*lines, "", where])


def cpu_lines() -> list[str]:
    """What Linux says of the processor."""
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def main() -> None:
    """Measure, print, and with --write put the table into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="python of a venv with rl_zoo3")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default="", help="such as ppo/CartPole-v1")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    given = parser.parse_args()
    peer = str(Path(given.peer).absolute())
    chosen = [row for row in ROWS if given.only in f"{row[0]}/{row[1]}"]
    rows = [measure(*row, peer, given.pairs) for row in chosen]
    text = table(rows, peer)
    print(text)
    if given.write:
        write_into_page("peers", text)


if __name__ == "__main__":
    main()
