"""Steps/s of an env's copies: in one process, in SB3's SubprocVecEnv, and in rlrun's workers.

    python benchmarks/vectorisation.py PandaReachDense-v3 [--n-envs 4] [--seconds 4] [--rounds 3] [--workers 1 2 4]

The modes are measured in turn, several rounds; printed are the median and the range of timesteps/s, and the ratio to
serial. Actions are random and drawn before the clock starts. ``--wrappers AtariWrapper`` wraps as in a config.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from rlrun.config.schema import EnvConfig
from rlrun.envs.recipe import EnvRecipe
from rlrun.envs.workers import start_workers
from rlrun.machine import usable_cores

_DRAWN = 64  # different actions of each env


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env_id")
    parser.add_argument("--n-envs", type=int, default=4)
    parser.add_argument("--wrappers", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[usable_cores()], help="numbers of processes")
    given = parser.parse_args()
    env = EnvConfig.model_validate({"id": given.env_id, "n_envs": given.n_envs, "wrappers": given.wrappers})
    modes = _modes(EnvRecipe(env, None, 0, {}, ()), given.workers)
    rates: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(given.rounds):
        for name, make in modes.items():
            rates[name].append(_rate(make, given.seconds))
    serial = statistics.median(rates["serial"])
    print(f"{given.env_id}, {given.n_envs} envs, {usable_cores()} cores: timesteps/s")
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"  {name:<14} {median:>9,.0f}  ({min(found):,.0f} to {max(found):,.0f})  {median / serial:.2f}x")


def _modes(recipe: EnvRecipe, workers: list[int]) -> dict[str, Callable[[], VecEnv]]:
    makers = [recipe.maker(index) for index in range(recipe.env.n_envs)]
    modes: dict[str, Callable[[], VecEnv]] = {
        "serial": lambda: DummyVecEnv(makers),
        "SubprocVecEnv": lambda: SubprocVecEnv(makers),
    }
    for number in workers:
        modes[f"{number} workers"] = partial(start_workers, makers, recipe.example, 300.0, number)
    return modes


def _rate(make: Callable[[], VecEnv], seconds: float) -> float:
    venv = make()
    try:
        venv.action_space.seed(0)
        actions = [np.stack([venv.action_space.sample() for _ in range(venv.num_envs)]) for _ in range(_DRAWN)]
        venv.reset()
        for action in actions[:8]:
            venv.step(action)
        steps, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            venv.step(actions[steps % _DRAWN])
            steps += 1
        return steps * venv.num_envs / (time.perf_counter() - began)
    finally:
        venv.close()


if __name__ == "__main__":
    main()
