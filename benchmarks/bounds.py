"""How far is training from its bound, and where does the rest of the time go?

    python benchmarks/bounds.py [--only ppo/CartPole-v1] [--write]

The bound of a row of ``peers.py``: stepping the bare envs in one process, and the
matrix products of acting and learning at the rate that this machine multiplies large matrices of float32, on as many
threads as the config has. The products are counted in plain SB3, which computes some that TQC here leaves out, and
workers step envs on several cores: a run can be faster than its bound then. The profile is of a whole run: seconds
until the first step, stepping envs (waiting for them, with workers), updates, and the rest, most of which is acting.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from page import write_into_page
from peers import HERE, ROWS

import rlrun

QUIET = {"evaluation.every": 0, "evaluation.episodes": 0, "checkpoint.every": 0, "trackers": []}
COUNTED = {"ppo": 2, "a2c": 20, "dqn": 400, "tqc": 60}  # rollouts, or timesteps once learning has begun
STEPPED = 3.0  # seconds of the bare envs


def entry(algo: str, env: str) -> rlrun.ZooEntry:
    """The config of a row."""
    return rlrun.ZooEntry(HERE / "peers" / f"{algo}.yml", env, algo)


def env_seconds(plan: Any) -> float:
    """Seconds a timestep of the bare envs, one after the other, with random actions."""
    venv, _ = plan.recipe.make_training_vec()
    while hasattr(venv, "venv"):  # without normalization and stacking
        venv = venv.venv
    venv.reset()
    actions = [np.stack([venv.action_space.sample() for _ in range(venv.num_envs)]) for _ in range(64)]
    steps, began = 0, time.perf_counter()
    while time.perf_counter() < began + STEPPED:
        venv.step(actions[steps % 64])
        steps += 1
    found = (time.perf_counter() - began) / (steps * venv.num_envs)
    venv.close()
    return found


def operations(algo: str, env: str, plan: Any, folder: str) -> float:
    """Floating-point operations of the matrix products of a whole run, counted in a short one of plain SB3."""
    from torch.utils.flop_counter import FlopCounterMode

    settings, budget = plan.config.hyperparameters, plan.config.total_timesteps
    if algo in ("ppo", "a2c"):
        timesteps, idle = COUNTED[algo] * settings.get("n_steps", 5) * plan.config.env.n_envs, 0
    else:
        idle = min(settings.get("learning_starts", 100), 200)
        timesteps = idle + COUNTED[algo]
    changes = {**QUIET, "accelerate": "off", "total_timesteps": timesteps}
    changes |= {"hyperparameters.learning_starts": idle} if idle else {}
    with FlopCounterMode(display=False) as counter:
        run = rlrun.train(entry(algo, env), overrides=changes, run_dir=folder, progress=False)
    learning = run.manifest["timesteps"] - idle
    return counter.get_total_flops() / learning * (budget - settings.get("learning_starts", 0))


def rate(threads: int) -> float:
    """Floating-point operations a second in products of large matrices."""
    import torch

    torch.set_num_threads(threads)
    matrix = torch.randn(1536, 1536)
    torch.mm(matrix, matrix)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - began)
    return 2 * 1536**3 / sorted(times)[len(times) // 2]


def profile(algo: str, env: str, folder: str) -> dict[str, float]:
    """Seconds of a whole run, by what they went to. In a process of its own: imports count."""
    import psutil

    spent = {"envs": 0.0, "updates": 0.0}
    began = psutil.Process().create_time()
    marks: dict[str, float] = {}

    def timed(cls: Any, method: str, what: str) -> None:
        plain = getattr(cls, method)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            marks.setdefault("learning", time.time())
            start = time.perf_counter()
            found = plain(*args, **kwargs)
            spent[what] += time.perf_counter() - start
            marks["end"] = time.time()
            return found

        setattr(cls, method, wrapped)

    from stable_baselines3 import DQN

    from rlrun.accelerate.choose import accelerated
    from rlrun.algorithms.registry import get_algorithm
    from rlrun.envs.serial import SerialVecEnv
    from rlrun.envs.workers import WorkersVecEnv

    # A config that uses none of rlrun's options for DQN is SB3's.
    timed(accelerated(DQN if algo == "dqn" else get_algorithm(algo).load()), "train", "updates")
    for cls in (SerialVecEnv, WorkersVecEnv):
        timed(cls, "step_wait", "envs")
    run = rlrun.train(entry(algo, env), overrides=QUIET, run_dir=folder, progress=False)
    whole = time.time() - began
    start = marks["learning"] - began
    rest = whole - start - spent["envs"] - spent["updates"]
    return {"whole": whole, "start": start, **spent, "rest": rest, "threads": run.config.threads or 1}


def measured(algo: str, env: str, what: str) -> tuple[str, ...]:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--profile", f"{algo}/{env}", "--folder", folder]
        spent = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        plan = rlrun.check(entry(algo, env))
        stepping = env_seconds(plan) * plan.config.total_timesteps
        products = operations(algo, env, plan, folder) / rate(int(spent["threads"]))
    parts = [f"{spent[name]:.1f}" for name in ("start", "envs", "updates", "rest")]
    bound = stepping + products
    return (
        f"`{algo} {env}`, {what}",
        f"{spent['whole']:.1f} s",
        f"{stepping:.1f} + {products:.1f} s",
        f"{spent['whole'] / bound:.1f}x",
        " + ".join(parts) + " s",
    )


def main() -> None:
    """Measure and print a table; or, for a process of its own, the profile of one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    parser.add_argument("--profile", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.profile:
        print(json.dumps(profile(*given.profile.split("/"), given.folder)))
        return
    head = ("work", "rlrun", "bound: envs + products", "distance", "start + envs + updates + rest")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for algo, env, what, _ in (row for row in ROWS if given.only in f"{row[0]}/{row[1]}"):
        lines.append(f"| {' | '.join(measured(algo, env, what))} |")
        print(lines[-1], flush=True)
    if given.write:
        write_into_page("bounds", "\n".join(lines))


if __name__ == "__main__":
    main()
