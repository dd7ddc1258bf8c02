"""A model from a resolved config and an env."""

from __future__ import annotations

import warnings
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rlrun.accelerate import convolutions, frames, graphs
from rlrun.accelerate.choose import accelerated
from rlrun.accelerate.startup import leave_compiler_out
from rlrun.accelerate.threads import torch_threads
from rlrun.algorithms.dqn import DQN, FastDQNWithOptions
from rlrun.algorithms.hyperparameters import resolve
from rlrun.algorithms.registry import get_algorithm
from rlrun.algorithms.reinforce import REINFORCE, FastREINFORCE
from rlrun.config.loading import dotted
from rlrun.config.schema import Config
from rlrun.errors import ConfigError, Problem, UsageError

# Of rlrun's own algorithms; those of SB3's are in rlrun.accelerate.
_OWN_FASTER_FORMS: dict[type[BaseAlgorithm], type[BaseAlgorithm]] = {REINFORCE: FastREINFORCE, DQN: FastDQNWithOptions}


def build_model(config: Config, venv: VecEnv, *, device: str | None = None, for_training: bool = True) -> BaseAlgorithm:
    """The SB3 model that a config describes, its weights drawn from torch's global generator.

    :param device: instead of the config's
    :param for_training: False leaves out the replay buffer, which takes memory and is not needed to act
    :raises UsageError: when SB3 refuses the combination
    """
    leave_compiler_out()
    algorithm = get_algorithm(config.algo)
    kwargs, findings = resolve(algorithm, config.hyperparameters, venv.action_space)
    if findings:
        raise ConfigError([Problem(f.message, dotted(f.path), hint=f.hint) for f in findings])
    if not for_training and algorithm.is_off_policy:
        kwargs = {name: value for name, value in kwargs.items() if not name.startswith("replay_buffer_")}
        kwargs |= {"buffer_size": venv.num_envs, "optimize_memory_usage": False}
    cls: Any = algorithm.load()
    name = cls.__name__
    if cls is DQN:
        cls, kwargs = cls.plainest(kwargs)
    accelerates = for_training and config.accelerate != "off"
    if accelerates:
        plain, stack = cls, frames.stack_of(venv)
        replays = config.accelerate == "cuda_graphs" and not graphs.why_not(cls, kwargs, device or config.device)
        cls = graphs.graphed(cls) if replays else _OWN_FASTER_FORMS.get(cls, accelerated(cls))
        # A class that is not SB3's own may have its own idea of a buffer.
        is_known = cls is not plain and algorithm.is_off_policy
        if is_known and not frames.why_not(venv.observation_space, stack, kwargs):
            cls = _with_frames_once(cls, stack)
    if for_training and (config.schedule_timesteps or config.schedule_episodes):
        cls = _with_horizon(cls, config.horizon, config.budget_unit)
    try:
        # seed=None: rlrun seeds the generators itself, and SB3 would seed the envs over again.
        with warnings.catch_warnings(), torch_threads(config.threads or 1):
            warnings.simplefilter("ignore", UserWarning)  # `rlrun check` says what is worth saying, once
            model: BaseAlgorithm = cls(env=venv, device=device or config.device, seed=None, **kwargs)
    except Exception as error:  # SB3 asserts, torch raises RuntimeError, and the user's own classes anything
        reason = " ".join(str(error).split()) or type(error).__name__
        if "allocate memory" in reason or isinstance(error, MemoryError):
            reason = "its networks and buffers do not fit in memory"
        raise UsageError(f"{name} refuses this config: {reason.rstrip('.')}.") from error
    if accelerates:
        convolutions.speed_up(model, bfloat16=config.accelerate == "bfloat16")
    return model


def _with_horizon(cls: Any, horizon: int, unit: str) -> Any:
    """The class with schedules that end after so many timesteps or episodes, whatever the budget is.

    A subclass, and not an attribute of the model, because SB3 saves attributes.
    """

    def update(self: Any, num_timesteps: int, total_timesteps: int) -> None:
        done = num_timesteps if unit == "timesteps" else self._episode_num
        self._current_progress_remaining = max(0.0, 1.0 - done / horizon)

    return type(cls.__name__, (cls,), {"_update_current_progress_remaining": update})


def _with_frames_once(cls: Any, stack: int | None) -> Any:
    """The class with a FrameBuffer. A saved model does not name it: whoever loads one makes the buffer SB3 would."""

    def set_up(self: Any) -> None:
        settings, steps = self.replay_buffer_kwargs, {"n_steps": self.n_steps, "gamma": self.gamma}
        self.replay_buffer_class, self.replay_buffer_kwargs = frames.FrameBuffer, {**settings, "stack": stack, **steps}
        cls._setup_model(self)
        self.replay_buffer_class, self.replay_buffer_kwargs = None, settings

    return type(cls.__name__, (cls,), {"_setup_model": set_up})
