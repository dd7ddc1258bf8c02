"""Milliseconds per update and per step, plain Stable-Baselines3 against accelerated: `python benchmarks/updates.py`.

Both models of a config take turns in one process, so that whatever else runs on the machine slows both. The figure is
the fastest of the rounds.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from rlrun import api
from rlrun.algorithms.build import build_model
from rlrun.config.loading import Override

CONFIGS = [
    *("CartPole-v1/ppo", "LunarLander-v3/ppo", "CartPole-v1/a2c", "Pendulum-v1/ppo"),
    *("CartPole-v1/dqn", "LunarLander-v3/dqn", "Pendulum-v1/tqc", "PandaReach-v3/tqc"),
]
_WARM_UP, _STEPS, _UPDATES = 1_000, 200, 20  # off-policy: timesteps before, timesteps and updates timed in a round


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", default=CONFIGS)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'config':<26} {'update, ms':>20} {'ratio':>6} {'step, us':>20} {'ratio':>6}   (off, auto)")
    for name in arguments.configs:
        models = {choice: model_of(name, choice) for choice in ("off", "auto")}
        updates = {choice: float("inf") for choice in models}
        steps = dict(updates)
        for _ in range(arguments.rounds):
            for choice, model in models.items():
                steps[choice] = min(steps[choice], time_of_a_step(model))
                updates[choice] = min(updates[choice], time_of_an_update(model))
        print(f"{name:<26} {columns(updates, 1e3)} {columns(steps, 1e6)}")


def columns(seconds: dict[str, float], unit: float) -> str:
    """Both figures and their ratio."""
    off, auto = seconds["off"] * unit, seconds["auto"] * unit
    return f"{off:>10.3f}{auto:>10.3f} {off / auto:>6.2f}"


def model_of(name: str, accelerate: str) -> Any:
    """A model about to learn."""
    plan = api.check(name, overrides=[Override("accelerate", accelerate, "")])
    torch.set_num_threads(plan.config.threads or 1)
    venv, _ = plan.recipe.make_training_vec()
    model: Any = build_model(plan.config, venv)
    model.set_logger(Logger(None, []))
    if isinstance(model, OffPolicyAlgorithm):
        starts, model.learning_starts = model.learning_starts, 10**9
        model.learn(_WARM_UP)
        model.learning_starts = starts
    model._setup_learn(10**9, None, reset_num_timesteps=False)
    return model


class Nothing(BaseCallback):
    """Reads as little as rlrun's own callback."""

    reads_transitions_only = True

    def _on_step(self) -> bool:
        return True


def time_of_a_step(model: Any) -> float:
    """Seconds per timestep of a rollout, env included."""
    callback = CallbackList([Nothing()])
    callback.init_callback(model)
    callback.on_training_start({}, {})
    began = time.perf_counter()
    if isinstance(model, OffPolicyAlgorithm):
        every = TrainFreq(_STEPS, TrainFrequencyUnit.STEP)
        model.collect_rollouts(model.env, callback, every, model.replay_buffer, model.action_noise)
        return (time.perf_counter() - began) / (_STEPS * model.n_envs)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return (time.perf_counter() - began) / (model.n_steps * model.n_envs)


def time_of_an_update(model: Any) -> float:
    """Seconds per step of the optimiser."""
    if isinstance(model, OffPolicyAlgorithm):
        began = time.perf_counter()
        model.train(gradient_steps=_UPDATES, batch_size=model.batch_size)
        return (time.perf_counter() - began) / _UPDATES
    samples = model.n_steps * model.n_envs
    updates = getattr(model, "n_epochs", 1) * -(-samples // getattr(model, "batch_size", samples))
    began = time.perf_counter()
    model.train()
    return (time.perf_counter() - began) / updates


if __name__ == "__main__":
    main()
