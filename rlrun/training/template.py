"""A commented config for an env and an algorithm, made from the env's spaces: what ``rlrun init`` writes.

It is a start and not a tuned config: only what the env demands is set, and SB3's defaults stand beside it as comments.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import psutil
from gymnasium import spaces
from pydantic import BaseModel

from rlrun.algorithms.crosschecks import EnvFacts, default_policy, replay_buffer_bytes
from rlrun.algorithms.registry import Algorithm, get_algorithm
from rlrun.config.classes import make_importable
from rlrun.config.loading import Source
from rlrun.config.locate import folder_name
from rlrun.config.schema import CheckpointConfig, Config, EnvConfig, EvaluationConfig
from rlrun.config.signatures import keyword_parameters
from rlrun.config.yaml import parse_yaml
from rlrun.envs.families import family_of
from rlrun.envs.recipe import EnvRecipe, Role, max_episode_steps
from rlrun.errors import UsageError
from rlrun.runs.files import to_yaml
from rlrun.training.json_schema import parameter_docs, plain_default, settable_keywords
from rlrun.training.plan import make_plan, user_folders

_COLUMN, _WIDTH = 34, 118  # where comments begin and lines end
_CHECKPOINTS = 10  # in a run, if episodes are not too long for that
_MOST_MEMORY = 6 * 2**30  # bytes of a replay buffer: Atari's takes 5.3 GiB for 100,000 timesteps
_IMAGE_ROLLOUT = 128  # steps of one env between updates; SB3's defaults are meant for short observations


def config_template(env: str, algo: str, path: Path | None = None) -> str:
    """A config that ``rlrun check`` accepts without a warning.

    :param env: a registered id, ``module:Id-v0`` or ``module:Class``
    :param path: where it will lie, for the command in its head; None: ``configs/<env id>/<algo>.yaml``
    :raises UsageError: when there is no such env or algorithm, or the algorithm cannot act in the env
    """
    algorithm = get_algorithm(algo)
    make_importable(user_folders(None))
    scene = _look(env, algorithm)
    path = path or Path("configs", folder_name(env), f"{algo}.yaml")
    text = "\n".join([*_head(scene, path), *_env(scene), *_training(scene), *_recording(scene)]) + "\n"
    make_plan(Source(parse_yaml(text, str(path)).value))
    return text


@dataclass(frozen=True)
class _Scene:
    """What was found of the env, and what follows from it.

    :ivar section: the wrappers of the env's family, as in the section ``env``
    :ivar observation_space: as the policy sees it
    :ivar episode_steps: the longest episode; None when nothing is known to end it
    """

    env_id: str
    algorithm: Algorithm
    section: dict[str, Any]
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    episode_steps: int | None
    reward_threshold: float | None

    @cached_property
    def keywords(self) -> dict[str, Any]:
        """The keywords that a config may set."""
        return settable_keywords(self.algorithm.load())

    @property
    def n_envs(self) -> int:
        """Several where whole rollouts are learnt from; a replay buffer fills from one."""
        from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

        return 8 if issubclass(self.algorithm.load(), OnPolicyAlgorithm) else 1

    @property
    def leaves(self) -> list[spaces.Space[Any]]:
        """The parts of the observation."""
        space = self.observation_space
        return list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]

    @property
    def has_images(self) -> bool:
        """Whether the policy sees images."""
        from stable_baselines3.common.preprocessing import is_image_space

        return any(is_image_space(leaf) for leaf in self.leaves)

    @property
    def has_goals(self) -> bool:
        """Whether HER can relabel the env's transitions."""
        keys = set(self.observation_space.spaces) if isinstance(self.observation_space, spaces.Dict) else set()
        return keys >= {"observation", "achieved_goal", "desired_goal"} and "replay_buffer_class" in self.keywords

    @property
    def is_normalized(self) -> bool:
        """Continuous control from vectors, without a replay buffer."""
        vectors = all(isinstance(leaf, spaces.Box) for leaf in self.leaves) and not self.has_images
        return vectors and isinstance(self.action_space, spaces.Box) and not self.algorithm.is_off_policy

    @property
    def checkpoint_every(self) -> int:
        """Timesteps: part of the budget, and at least three of the longest episodes in every env."""
        needed = 3 * (self.episode_steps or 0) * self.n_envs
        unit = 10 ** max(0, len(str(needed)) - 1)
        return max(self._usual_budget // _CHECKPOINTS, -(-needed // unit) * unit)

    @property
    def budget(self) -> int:
        """Timesteps of the run."""
        return max(self._usual_budget, self.checkpoint_every * _CHECKPOINTS // 2)

    @property
    def _usual_budget(self) -> int:
        return (100_000 if self.algorithm.is_off_policy else 500_000) * (10 if self.has_images else 1)

    @cached_property
    def buffer_size(self) -> int:
        """Timesteps in the replay buffer: the whole run, or a part that leaves the machine half its free memory."""
        size = min(self.keywords["buffer_size"].default, self.budget)
        most = min(_MOST_MEMORY, psutil.virtual_memory().available // 2)
        while self.buffer_bytes(size) > most and size > 1_000:
            size //= 10
        return size

    def buffer_bytes(self, timesteps: int) -> int:
        """Memory of a replay buffer."""
        facts = EnvFacts(self.observation_space, self.action_space, self.episode_steps, self.n_envs)
        return replay_buffer_bytes(timesteps, {}, facts)


def _look(env_id: str, algorithm: Algorithm) -> _Scene:
    """Build the env, bare and then as its family is usually wrapped, to know its spaces."""
    folders = user_folders(None)
    bare = EnvRecipe(EnvConfig.model_validate({"id": env_id}), None, 0, {}, folders)
    with bare.make(Role.TRAIN, iter(())) as single:
        section = _family_section(env_id, single)
        steps, spec = max_episode_steps(single), single.spec
        # MaskablePPO asks the env which actions are allowed, and SB3 notices only when training begins.
        if "action_masks" in dir(algorithm.load()) and not single.has_wrapper_attr("action_masks"):
            message = f"{algorithm.name} asks the env for allowed actions, and {env_id} has no method action_masks."
            raise UsageError(message, "Write one, or use ppo.")
        found = single.observation_space, single.action_space
    if section:
        wrapped = EnvRecipe(EnvConfig.model_validate({"id": env_id, **section}), None, 0, {}, folders)
        venv, _ = wrapped.make_training_vec()
        venv.close()
        found = venv.observation_space, venv.action_space
    if steps is None and spec is not None and "max_num_frames_per_episode" in spec.kwargs:  # the ALE's own limit
        steps = spec.kwargs["max_num_frames_per_episode"] // 4
    return _Scene(env_id, algorithm, section, *found, steps, spec.reward_threshold if spec else None)


def _family_section(env_id: str, single: gym.Env[Any, Any]) -> dict[str, Any]:
    """Wrappers without which the usual policies learn nothing from the family's observations."""
    family = family_of(env_id.rpartition(":")[2]).name
    if family == "Atari":
        skips_inside = single.spec is not None and single.spec.kwargs.get("frameskip", 1) != 1
        wrapper: Any = {"AtariWrapper": {"frame_skip": 1}} if skips_inside else "AtariWrapper"
        return {"wrappers": [wrapper], "frame_stack": 4}
    return {"wrappers": ["FlatObsWrapper"]} if family == "MiniGrid" else {}
