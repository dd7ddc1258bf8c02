"""What an env and an algorithm suggest for a config, found by building the env once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import psutil
from gymnasium import spaces

from rlrun.algorithms.crosschecks import READABLE, EnvFacts, default_policy, replay_buffer_bytes
from rlrun.algorithms.registry import Algorithm
from rlrun.config.schema import EnvConfig
from rlrun.config.signatures import keyword_parameters
from rlrun.envs.families import family_of
from rlrun.envs.recipe import EnvRecipe, Role, max_episode_steps
from rlrun.errors import UsageError
from rlrun.training.json_schema import settable_keywords
from rlrun.training.plan import user_folders

CHECKPOINTS = 10  # in a run, unless episodes are too long for that
_MOST_MEMORY = 6 * 2**30  # bytes of a replay buffer: Atari's takes 5.3 GiB for 100,000 timesteps
_ROLLOUTS = 100  # in a budget at least: the last one is played to its end, and a shorter budget is still met well
_IMAGE_ROLLOUT = 128  # steps of one env between updates; SB3's defaults are meant for short observations


@dataclass(frozen=True)
class Suggestions:
    """What was found of an env, and what follows from it for an algorithm.

    :ivar wrapping: keys of the section ``env`` without which SB3's policies read nothing useful
    :ivar why_wrapped: the reason, in a sentence
    :ivar observation_space: as the policy sees it
    :ivar episode_steps: the longest episode; None when nothing is known to end it
    :ivar solved_at: the return at which the env counts as solved; None when it does not say
    """

    algorithm: Algorithm
    wrapping: dict[str, Any]
    why_wrapped: str
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    episode_steps: int | None
    solved_at: float | None

    @cached_property
    def keywords(self) -> dict[str, Any]:
        """The parameters that ``hyperparameters`` may set."""
        return settable_keywords(self.algorithm.load())

    @property
    def policy(self) -> str:
        """The alias that suits the observations."""
        return default_policy(self.algorithm, self.observation_space)

    @property
    def n_envs(self) -> int:
        """Several where whole rollouts are learnt from; a replay buffer fills from one."""
        from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

        return 8 if issubclass(self.algorithm.load(), OnPolicyAlgorithm) else 1

    @property
    def has_images(self) -> bool:
        """Whether the policy sees images."""
        from stable_baselines3.common.preprocessing import is_image_space

        return any(is_image_space(leaf) for leaf in _leaves(self.observation_space))

    @property
    def has_goals(self) -> bool:
        """Whether HER can relabel what the algorithm remembers."""
        keys = set(self.observation_space.spaces) if isinstance(self.observation_space, spaces.Dict) else set()
        return keys >= {"observation", "achieved_goal", "desired_goal"} and "replay_buffer_class" in self.keywords

    @property
    def is_normalized(self) -> bool:
        """Continuous control from vectors, without a replay buffer."""
        vectors = all(isinstance(leaf, spaces.Box) for leaf in _leaves(self.observation_space)) and not self.has_images
        return vectors and isinstance(self.action_space, spaces.Box) and not self.algorithm.is_off_policy

    @property
    def checkpoint_every(self) -> int:
        """Timesteps: part of the budget, and at least three of the longest episodes in every env."""
        needed = 3 * (self.episode_steps or 0) * self.n_envs
        unit = 10 ** max(0, len(str(needed)) - 1)
        return max(self._usual_budget // CHECKPOINTS, -(-needed // unit) * unit)

    @property
    def budget(self) -> int:
        """Timesteps of the run."""
        return max(self._usual_budget, self.checkpoint_every * CHECKPOINTS // 2)

    @property
    def _usual_budget(self) -> int:
        return (100_000 if self.algorithm.is_off_policy else 500_000) * (10 if self.has_images else 1)

    @cached_property
    def buffer_size(self) -> int | None:
        """Timesteps in the replay buffer: the whole run, or what fits well into memory; None without one."""
        if "buffer_size" not in self.keywords:
            return None
        size = min(self.keywords["buffer_size"].default, self.budget)
        most = min(_MOST_MEMORY, psutil.virtual_memory().available // 2)
        while self.buffer_bytes(size) > most and size > 1_000:
            size //= 10
        return int(size)

    def buffer_bytes(self, timesteps: int) -> int:
        """Memory of a replay buffer."""
        facts = EnvFacts(self.observation_space, self.action_space, self.episode_steps, self.n_envs, False)
        return replay_buffer_bytes(timesteps, {}, facts)

    def chosen_keywords(self) -> dict[str, tuple[Any, str]]:
        """Keywords that the env demands otherwise than by SB3's default, and why."""
        return {**self._chosen_rollout(), **self._chosen_buffer(), **(self._chosen_her() if self.has_goals else {})}

    def _chosen_rollout(self) -> dict[str, tuple[Any, str]]:
        steps = self.keywords.get("n_steps")
        if steps is None or self.buffer_size is not None:
            return {}
        fitting = self.budget // _ROLLOUTS // self.n_envs
        chosen = _IMAGE_ROLLOUT if self.has_images else 1 << (fitting.bit_length() - 1)  # a power of two
        if steps.default <= chosen:
            return {}
        default = f"SB3's {steps.default:,} would make {steps.default * self.n_envs:,}"
        why = f"Per env: a rollout is {chosen} x {self.n_envs} = {chosen * self.n_envs:,} timesteps; {default}."
        return {"n_steps": (chosen, why)}

    def _chosen_buffer(self) -> dict[str, tuple[Any, str]]:
        if self.buffer_size is None or self.buffer_size >= self.keywords["buffer_size"].default:
            return {}
        default = self.keywords["buffer_size"].default
        memory = f"SB3's {default:,} would take {self.buffer_bytes(default) / 2**30:.1f} GiB."
        return {"buffer_size": (self.buffer_size, "The whole run." if self.buffer_size >= self.budget else memory)}

    def _chosen_her(self) -> dict[str, tuple[Any, str]]:
        from stable_baselines3 import HerReplayBuffer

        why = "Relabels failures with the goals they reached; not for dense rewards."
        names = ("goal_selection_strategy", "n_sampled_goal")
        settings = {name: keyword_parameters(HerReplayBuffer)[name].default for name in names}
        chosen: dict[str, tuple[Any, str]] = {
            "replay_buffer_class": (HerReplayBuffer.__name__, why),
            "replay_buffer_kwargs": (settings, ""),
        }
        first_episodes = (self.episode_steps or 0) * self.n_envs
        if self.keywords["learning_starts"].default < first_episodes:
            chosen["learning_starts"] = first_episodes, "HER samples from finished episodes."
        return chosen


def suggest(env_id: str, algorithm: Algorithm) -> Suggestions:
    """Build the env, bare and then wrapped as it should be, to know its spaces.

    :raises UsageError: when it cannot be built, or no policy can read its observations
    """
    with _recipe(env_id).make(Role.TRAIN, iter(())) as single:
        wrapping, why = _wrapping(env_id, single)
        steps, spec = max_episode_steps(single), single.spec
        found = single.observation_space, single.action_space
    if wrapping:
        with _recipe(env_id, wrapping).make(Role.TRAIN, iter(())) as single:
            found = single.observation_space, single.action_space
        if "frame_stack" in wrapping:
            venv, _ = _recipe(env_id, wrapping).make_training_vec()
            venv.close()
            found = venv.observation_space, venv.action_space
    unreadable = [leaf for leaf in _leaves(found[0]) if not isinstance(leaf, READABLE)]
    if unreadable:
        message = f"{env_id} gives observations that no policy of SB3's can read: {unreadable[0]}."
        raise UsageError(message, "Write a wrapper that makes vectors or images of them.")
    if steps is None and spec is not None and "max_num_frames_per_episode" in spec.kwargs:  # the ALE's own limit
        steps = spec.kwargs["max_num_frames_per_episode"] // 4
    return Suggestions(algorithm, wrapping, why, *found, steps, spec.reward_threshold if spec else None)


def _recipe(env_id: str, wrapping: dict[str, Any] | None = None) -> EnvRecipe:
    env = EnvConfig.model_validate({"id": env_id, **(wrapping or {})})
    return EnvRecipe(env, None, 0, {}, user_folders(None))


def _leaves(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    return list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]


def _wrapping(env_id: str, single: gym.Env[Any, Any]) -> tuple[dict[str, Any], str]:
    family = family_of(env_id.rpartition(":")[2]).name
    if family == "Atari":
        why = "84x84 grey images; a lost life ends a training episode; evaluation has all lives and the real score."
        if single.spec is not None and single.spec.kwargs.get("frameskip", 1) != 1:
            why, settings = f"{why} The env skips frames by itself.", {"AtariWrapper": {"frame_skip": 1}}
            return {"wrappers": [settings], "frame_stack": 4}, why
        return {"wrappers": ["AtariWrapper"], "frame_stack": 4}, why
    if family == "MiniGrid":
        return {"wrappers": ["FlatObsWrapper"]}, "The grid and the mission as one vector."
    if not all(isinstance(leaf, READABLE) for leaf in _leaves(single.observation_space)):
        return {"wrappers": ["FlattenObservation"]}, "SB3's policies read vectors, images and flat dicts only."
    return {}, ""
