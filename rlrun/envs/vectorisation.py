"""Where a run's training envs are stepped, when its config leaves that open: ``env.vec: auto``.

What is learnt does not depend on the decision, so it may follow from the machine and from what else runs there.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from rlrun.envs.recipe import EnvRecipe, RestartableVecEnv
from rlrun.envs.seeding import generators_preserved
from rlrun.envs.workers import script_left_alone
from rlrun.errors import RlrunError
from rlrun.machine import usable_cores

ABOUT_ENVS = "envs "  # how each note begins

_STEPS, _SECONDS = 200, 0.2  # of an env, to learn what a step costs; whichever comes first
_WARM_UP = 3  # steps that are not counted
_HAND_OVER = 150e-6  # seconds of one step of all envs that workers add (benchmarks/vectorisation.py)
_SLOWDOWN = 1.2  # of envs that are stepped at the same time
_WORTH_IT = 1.2  # times faster
_START = 5.0  # seconds that workers must save in all: about twice what they take to start


@dataclass(frozen=True)
class StepCost:
    """What some steps with random actions showed.

    :ivar seconds: of one step, its share of resets included
    :ivar draws: whether the env drew from the global generators, which workers do not share
    :ivar others: processes that ran on the machine meanwhile, besides this one
    """

    seconds: float
    draws: bool
    others: int


def make_training_envs(recipe: EnvRecipe, timesteps: int, threads: int = 1) -> tuple[VecEnv, RestartableVecEnv, str]:
    """The training envs where ``env.vec`` says, or where they are fastest.

    :param timesteps: how many are to be trained
    :param threads: of the learner, which hold on to their cores for a while after each of its steps
    :return: as ``EnvRecipe.make_training_vec``, and a note on what was decided and why; empty when there was no choice
    """
    if recipe.env.vec != "auto" or recipe.env.n_envs == 1:
        return *recipe.make_training_vec(), ""
    n_processes, note = _decide(recipe, timesteps, threads - 1)
    if n_processes > 1:
        try:
            with script_left_alone():
                return *recipe.with_vec("workers").make_training_vec(n_processes), note
        except RlrunError as error:
            note = f"envs serial: workers could not be started ({error.message})"
    return *recipe.with_vec("serial").make_training_vec(), note


def _decide(recipe: EnvRecipe, timesteps: int, taken: int) -> tuple[int, str]:
    """The number of processes that step envs, and the note.

    :param taken: cores that the learner has besides its first
    """
    if usable_cores() == 1:
        return 1, "envs serial: this process may use one core"
    if usable_cores() - taken < 2:
        return 1, f"envs serial: the learner's {taken + 1} threads take the cores"
    if multiprocessing.current_process().daemon:
        return 1, "envs serial: this process may not start others"
    try:
        cost = measure(recipe)
    except Exception as error:  # the env's; it will come up again where it can be reported
        return 1, f"envs serial: the cost of a step could not be measured ({type(error).__name__})"
    if cost.draws:
        return 1, "envs serial: the env draws from the global generators, which workers would not share"
    return _weigh(cost, recipe.env.n_envs, timesteps, taken)


def _weigh(cost: StepCost, n_envs: int, timesteps: int, taken: int = 0) -> tuple[int, str]:
    step, cores = f"a step takes {_in_words(cost.seconds)}", min(usable_cores() - taken, n_envs)
    if not _saved(cost.seconds, n_envs, cores):
        return 1, f"envs serial: {step}, too little to hand over"
    processes = min(cores, (os.cpu_count() or 1) - taken - cost.others)
    saved = _saved(cost.seconds, n_envs, processes)
    if not saved:
        return 1, f"envs serial: {step}, but other processes use the cores (env.vec: workers does not mind)"
    if saved * timesteps / n_envs < _START:
        return 1, f"envs serial: {step}, and the run is too short to start workers"
    return processes, f"envs in {processes} processes: {step}"


def _saved(seconds: float, n_envs: int, processes: int) -> float:
    """Seconds that workers save in one step of all envs; 0 where they are not worth it.

    :param seconds: of one step of one env
    """
    if processes < 2:
        return 0.0
    serial = n_envs * seconds
    parallel = math.ceil(n_envs / processes) * seconds * _SLOWDOWN + _HAND_OVER
    return serial - parallel if serial >= _WORTH_IT * parallel else 0.0


def measure(recipe: EnvRecipe) -> StepCost:
    """Step a training env with random actions. Nothing that is drawn elsewhere changes."""
    with generators_preserved():
        env = recipe.example()
        try:
            env.reset()
            env.action_space.seed(0)
            for _ in range(_WARM_UP):
                _step(env)
            before = _generators()
            spent: list[float] = []
            running: list[int] = []
            while len(spent) < _STEPS and sum(spent) < _SECONDS:
                spent.append(_step(env))
                running.append(_running())
            others = max(0, int(statistics.median(running)) - 1)
            return StepCost(sum(spent) / len(spent), _generators() != before, others)
        finally:
            env.close()


def _step(env: gym.Env[Any, Any]) -> float:
    """Seconds of one step, and of the reset where one is due."""
    action = _action(env)
    began = time.perf_counter()
    _, _, terminated, truncated, _ = env.step(action)
    if terminated or truncated:
        env.reset()
    return time.perf_counter() - began


def _action(env: gym.Env[Any, Any]) -> Any:
    """A random action, one that is allowed where the env says which are."""
    if isinstance(env.action_space, gym.spaces.Discrete) and env.has_wrapper_attr("action_masks"):
        masks = np.asarray(env.get_wrapper_attr("action_masks")(), dtype=np.int8)
        return env.action_space.sample(masks)
    return env.action_space.sample()


def _generators() -> tuple[Any, ...]:
    """The states of the global generators."""
    import torch

    return random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().numpy().tobytes()


def _running() -> int:
    """Processes of the machine that run or wait for a core at this moment; 1 where the system does not tell."""
    try:
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 1


def _in_words(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"
