"""What prioritised replay costs: milliseconds of an update of DQN with it and without, in turn.

Both sides are what rlrun trains with, accelerated; beside them plain Stable-Baselines3's DQN, which draws uniformly. A
step's cost of keeping priorities is in an update's (``train_freq: 4``: four new transitions for each).

    python benchmarks/prioritized.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger

from rlrun.algorithms.build import build_model
from rlrun.config.loading import read_source
from rlrun.training.plan import make_plan

CASES = {
    "CartPole-v1, 64 x 64, batch 64, 100,000 transitions": {
        "env": {"id": "CartPole-v1"},
        "hyperparameters": {"batch_size": 64, "buffer_size": 100_000},
    },
    "CartPole-v1, 256 x 256, batch 128, 1,000,000 transitions": {
        "env": {"id": "CartPole-v1"},
        "hyperparameters": {
            "batch_size": 128,
            "buffer_size": 1_000_000,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    },
    "SpaceInvaders, NatureCNN, batch 32, 10,000 transitions": {
        "env": {"id": "SpaceInvadersNoFrameskip-v4", "wrappers": ["AtariWrapper"], "frame_stack": 4},
        "hyperparameters": {"policy": "CnnPolicy", "batch_size": 32, "buffer_size": 10_000},
    },
}
FILLED = 10_000


def side(case: dict[str, Any], prioritized: bool, accelerate: str = "auto") -> Any:
    """A function that does one update, and what four steps add to it."""
    hyper = {**case["hyperparameters"], "prioritized_replay": prioritized}
    config = {"algo": "dqn", "total_timesteps": 1_000_000, "env": case["env"], "hyperparameters": hyper}
    config["accelerate"] = accelerate
    plan = make_plan(read_source(config))
    torch.set_num_threads(1)
    venv, _ = plan.recipe.make_training_vec()
    model: Any = build_model(plan.config, venv)
    model.set_logger(Logger(None, []))
    obs, size = venv.reset(), hyper["batch_size"]
    step: Any = None
    for _ in range(FILLED):
        action = np.array([venv.action_space.sample()])
        following, reward, done, infos = venv.step(action)
        step = (obs, following.copy(), action, reward, done, infos)
        model.replay_buffer.add(*step)
        obs = following

    def update() -> None:
        for _ in range(4):
            model.replay_buffer.add(*step)
        model.train(1, size)

    return update


def milliseconds(update: Any, seconds: float = 2.0) -> float:
    """Of one call."""
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        update()
        count += 1
    return (time.perf_counter() - began) / count * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print("| update of | SB3, uniform | uniform | prioritised | prioritised over uniform: median (least to most) |")
    print("|---|---|---|---|---|")
    for name, case in CASES.items():
        sides = [side(case, False, "off"), side(case, False), side(case, True)]
        for update in sides:
            milliseconds(update, 0.5)
        times = [[milliseconds(update) for update in sides] for _ in range(rounds)]
        ratios = sorted(prioritized / uniform for _, uniform, prioritized in times)
        middle = " | ".join(f"{statistics.median(column):.2f} ms" for column in zip(*times, strict=True))
        spread = f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {name} | {middle} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
