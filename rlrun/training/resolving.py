"""Values that a config leaves open, filled in from the rest of it."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.preprocessing import is_image_space

from rlrun.algorithms.crosschecks import EnvFacts, with_defaults
from rlrun.algorithms.registry import Algorithm
from rlrun.config.schema import CHECKPOINTS, EVALUATIONS, LOG_ROWS, Config
from rlrun.evaluation.evaluate import is_deterministic
from rlrun.spaces import leaves_of

# Convolutions give other bits on another number of threads, so the number follows from the config and not the machine.
# More than there are cores are far slower; two are there nearly everywhere.
_MANY_THREADS = 2
_LARGE_BATCH = 1_024


def resolved(config: Config, algorithm: Algorithm, facts: EnvFacts | None = None) -> tuple[Config, list[str]]:
    """Fill in every null whose value follows from the rest, and say what was chosen for a reason."""
    images = _sees_images(config, facts)
    device, why = _choose_device(config, _why_no_gpu(algorithm, images))
    many = images or int(config.hyperparameters.get("batch_size") or 0) >= _LARGE_BATCH
    changes: dict[str, Any] = {
        "device": device,
        "threads": config.threads or (_MANY_THREADS if many else 1),
        "log_every": _spacing(config, config.log_every, LOG_ROWS),
    }
    if config.normalize is not None and config.normalize.gamma is None:
        gamma = _gamma(config, algorithm)
        changes["normalize"] = config.normalize.model_copy(update={"gamma": gamma})
    evaluation, checkpoint = config.evaluation, config.checkpoint
    changes["evaluation"] = evaluation.model_copy(
        update={
            "every": _spacing(config, evaluation.every, EVALUATIONS),
            "deterministic": is_deterministic(config),
        }
    )
    every = _spacing(config, checkpoint.every, CHECKPOINTS)
    changes["checkpoint"] = checkpoint.model_copy(update={"every": every})
    return config.model_copy(update=changes), [why, f"seed {config.seed}"]


def _spacing(config: Config, every: int | None, times: int) -> int | None:
    """Timesteps between two of something; None stays None where the budget is episodes of unknown length."""
    if every is not None or config.total_timesteps is None:
        return every
    return max(1, config.total_timesteps // times)


def _sees_images(config: Config, facts: EnvFacts | None) -> bool:
    if facts is None:
        return "Cnn" in str(config.hyperparameters.get("policy", ""))
    return any(is_image_space(leaf) for leaf in leaves_of(facts.observation_space).values())


def _gamma(config: Config, algorithm: Algorithm) -> float:
    gamma = with_defaults(algorithm, config.hyperparameters).get("gamma")
    return 0.99 if gamma is None else float(gamma)


def _why_no_gpu(algorithm: Algorithm, images: bool) -> str:
    """Why a GPU would not help; empty where it may."""
    if algorithm.is_off_policy or images:
        return ""
    is_table = bool(algorithm.observations)
    return "a table needs no GPU" if is_table else "a small on-policy network is faster there than on a GPU"


def _choose_device(config: Config, why_no_gpu: str) -> tuple[str, str]:
    if config.device != "auto":
        return config.device, f"device {config.device}: as the config says"
    if why_no_gpu:
        return "cpu", f"device cpu: {why_no_gpu}"
    if torch.cuda.is_available():
        return "cuda", "device cuda: a GPU was found"
    return "cpu", "device cpu: no GPU was found"
