"""Steps/s of an env's copies: in one process, in SB3's SubprocVecEnv, and in rlrun's processes.

    python benchmarks/vectorisation.py PandaReachDense-v3 [--n-envs 4] [--rounds 9] [--seconds 1] [--processes 2 4]

All modes are started, and then measured in turn, some rounds of a second each: an idle mode costs nothing. Printed are
the median and the range of timesteps/s, the median of each round's ratio to serial, and the seconds that it took to
start. Actions are random and drawn before. ``--wrappers AtariWrapper`` wraps as in a config.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from rlrun.config.schema import EnvConfig
from rlrun.envs.recipe import EnvRecipe
from rlrun.envs.vectorisation import measure
from rlrun.envs.workers import start_workers
from rlrun.machine import usable_cores

_DRAWN = 64  # different actions of each env


class Mode:
    """Envs that were started somewhere.

    :ivar seconds: that the start took, the first reset included
    :ivar rates: timesteps/s of each round
    """

    def __init__(self, make: Callable[[], VecEnv]) -> None:
        began = time.perf_counter()
        self.venv = make()
        self.venv.reset()
        self.seconds = time.perf_counter() - began
        self.rates: list[float] = []
        space = self.venv.action_space
        space.seed(0)
        self._actions = itertools.cycle(
            [np.stack([space.sample() for _ in range(self.venv.num_envs)]) for _ in range(_DRAWN)]
        )

    def measure(self, seconds: float) -> None:
        """Step for so long."""
        steps, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            self.venv.step(next(self._actions))
            steps += 1
        self.rates.append(steps * self.venv.num_envs / (time.perf_counter() - began))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env_id")
    parser.add_argument("--n-envs", type=int, default=4)
    parser.add_argument("--wrappers", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--processes", type=int, nargs="*", default=[usable_cores()], help="numbers of processes")
    given = parser.parse_args()
    env = EnvConfig.model_validate({"id": given.env_id, "n_envs": given.n_envs, "wrappers": given.wrappers})
    recipe = EnvRecipe(env, None, 0, {}, ())
    modes = {name: Mode(make) for name, make in _modes(recipe, given.processes).items()}
    for _ in range(given.rounds):
        for mode in modes.values():
            mode.measure(given.seconds)
    step = measure(recipe).seconds * 1e6
    print(f"{given.env_id}, {given.n_envs} envs, {usable_cores()} cores; a step takes {step:,.0f} µs")
    serial = modes["serial"].rates
    for name, mode in modes.items():
        ratio = statistics.median(one / other for one, other in zip(mode.rates, serial, strict=True))
        rate = f"{statistics.median(mode.rates):>9,.0f}  ({min(mode.rates):,.0f} to {max(mode.rates):,.0f})"
        print(f"  {name:<14} {rate}  {ratio:.2f}x  start {mode.seconds:.1f} s")
        mode.venv.close()


def _modes(recipe: EnvRecipe, processes: list[int]) -> dict[str, Callable[[], VecEnv]]:
    makers = [recipe.maker(index) for index in range(recipe.env.n_envs)]
    modes: dict[str, Callable[[], VecEnv]] = {
        "serial": lambda: DummyVecEnv(makers),
        "SubprocVecEnv": lambda: SubprocVecEnv(makers),
    }
    for number in processes:
        modes[f"{number} processes"] = partial(start_workers, makers, recipe.example, 300.0, number)
    return modes


if __name__ == "__main__":
    main()
