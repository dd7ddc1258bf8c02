"""Play N episodes with an agent, each with a reset seed of its own.

The same seeds and the same ``n_envs`` repeat an evaluation to the last digit. Another ``n_envs`` gives the same
episodes only where actions are deterministic and the env keeps nothing across resets: copies share one stream of
random actions, and physics engines carry a little over from one episode to the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rlrun.config.schema import Config
from rlrun.envs.families import family_of
from rlrun.envs.normalization import Statistics
from rlrun.envs.recipe import EnvRecipe, Role, fixed_seeds, max_episode_steps
from rlrun.envs.seeding import Stream, draw_seeds, generators_preserved, seed_global_generators
from rlrun.errors import UsageError
from rlrun.evaluation.statistics import Evaluation

_MAX_ENVS = 8
_LONGEST_EPISODE = 100_000  # agent's steps, where the env sets no limit
_CUT = "rlrun_episode_cut"
_FREE = "Leave it out, or write --set evaluation.seeds=null"


def is_deterministic(config: Config) -> bool:
    """Whether the policy's most likely action is taken: the config's word, else what is usual for the env's family."""
    chosen = config.evaluation.deterministic
    return family_of(config.env.id.rpartition(":")[2]).deterministic_evaluation if chosen is None else chosen


def training_seeds(config: Config) -> list[int]:
    """The reset seed of each episode of an evaluation during training, the same at each: always drawn ones.

    They choose the best checkpoint, so those that it is scored on afterwards are others.
    """
    return draw_seeds(config.seed, Stream.EVALUATION_IN_TRAINING, config.evaluation.episodes)


def episode_seeds(config: Config, episodes: int | None = None, seed: int | None = None) -> list[int]:
    """The reset seed of each evaluation episode: the config's fixed list, else drawn ones.

    :param episodes: how many; None: the fixed list's length, else the config's number
    :param seed: instead of the run's own
    :raises UsageError: when a fixed list is shorter than ``episodes``, or a seed is given besides
    """
    fixed = config.evaluation.seeds
    if fixed is not None:
        if seed is not None:
            raise UsageError(
                "The episodes' seeds are fixed by evaluation.seeds, so --seed would change nothing.", _FREE
            )
        if episodes is not None and episodes > len(fixed):
            message = f"evaluation.seeds has {len(fixed)} seeds, and {episodes} episodes were asked for."
            raise UsageError(message, f"To play the same episodes twice proves nothing. {_FREE}")
        return list(fixed[:episodes])
    return draw_seeds(config.seed if seed is None else seed, Stream.EVALUATION, episodes or config.evaluation.episodes)


def evaluate(
    model: BaseAlgorithm,
    recipe: EnvRecipe,
    statistics: Statistics | None,
    seeds: Sequence[int],
    *,
    deterministic: bool,
    n_envs: int | None = None,
    should_stop: Callable[[], None] | None = None,
) -> Evaluation:
    """Play one episode for each seed, in env copies that take turns.

    Episodes are dealt to the copies beforehand. Taking whichever end first would favour short episodes.

    :param statistics: normalization statistics, frozen while evaluating
    :param should_stop: called at every step; may raise
    :return: the episodes in the order of ``seeds``
    """
    width = min(len(seeds), n_envs or _MAX_ENVS)
    with acting(model, recipe, Role.EVAL, fixed_seeds(seeds, width), statistics, _limited) as venv:
        return _play(model, venv, seeds, deterministic, should_stop)


class _Limit(gym.wrappers.TimeLimit[Any, Any]):
    """Ends an episode at last, and says so in the info: a greedy agent may go in circles for ever."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See TimeLimit."""
        observation, reward, terminated, truncated, info = super().step(action)
        if truncated and not terminated and self._elapsed_steps == self._max_episode_steps:
            info = {**info, _CUT: True}
        return observation, reward, terminated, truncated, info


def _limited(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return env if max_episode_steps(env) is not None else _Limit(env, _LONGEST_EPISODE)


@contextlib.contextmanager
def acting(
    model: BaseAlgorithm,
    recipe: EnvRecipe,
    role: Role,
    seeds: Sequence[Sequence[int]],
    statistics: Statistics | None,
    around: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = None,
) -> Iterator[VecEnv]:
    """Env copies for a model to act in; whatever it draws there, its training goes on as if it had not.

    :param seeds: for each copy, the seeds of its resets
    :param around: the outermost wrapper of each copy
    """
    with generators_preserved(), _final_exploration(model), _own_action_space(model):
        policy_seed, space_seed = draw_seeds(seeds[0][0], Stream.POLICY, 2)
        seed_global_generators(policy_seed)  # some envs draw from them while they are built
        venv = recipe.make_vec(role, seeds, statistics, around)
        try:
            seed_global_generators(policy_seed)
            if getattr(model, "action_space", None) is not None:
                model.action_space.seed(space_seed)
            yield venv
        finally:
            venv.close()


@contextlib.contextmanager
def _own_action_space(model: BaseAlgorithm) -> Iterator[None]:
    """Let exploring draw from a copy of the model's action space: training's own goes on undisturbed."""
    space = getattr(model, "action_space", None)
    if space is None:
        yield
        return
    model.action_space = deepcopy(space)
    try:
        yield
    finally:
        model.action_space = space


@contextlib.contextmanager
def _final_exploration(model: BaseAlgorithm) -> Iterator[None]:
    """Let an epsilon-greedy agent that acts stochastically explore as at the end of training, not as at this moment."""
    agent: Any = model
    if not hasattr(agent, "exploration_rate"):
        yield
        return
    now, agent.exploration_rate = agent.exploration_rate, agent.exploration_final_eps
    try:
        yield
    finally:
        agent.exploration_rate = now


def _play(
    model: BaseAlgorithm,
    venv: VecEnv,
    seeds: Sequence[int],
    deterministic: bool,
    should_stop: Callable[[], None] | None,
) -> Evaluation:
    width = venv.num_envs
    cut = 0
    episodes: list[tuple[float, int, Any] | None] = [None] * len(seeds)
    playing = list(range(width))  # the episode each copy plays now
    sums, steps = np.zeros(width), np.zeros(width, dtype=int)
    for rewards, ended, infos in steps_of(model, venv, deterministic, should_stop):
        sums += rewards
        steps += 1
        for copy in np.flatnonzero(ended):
            # The Monitor inside the wrappers knows the env's own return. A wrapper outside it may end an episode
            # that the Monitor does not see end.
            record = infos[copy].get("episode", {"r": sums[copy], "l": steps[copy]})
            if playing[copy] < len(episodes):
                episodes[playing[copy]] = (float(record["r"]), int(record["l"]), infos[copy].get("is_success"))
                cut += infos[copy].get(_CUT, False)
            playing[copy] += width
            sums[copy], steps[copy] = 0.0, 0
        if all(episode is not None for episode in episodes):
            break
    played = [episode for episode in episodes if episode is not None]
    says_success = all(success is not None for _, _, success in played)
    return Evaluation(
        returns=tuple(r for r, _, _ in played),
        lengths=tuple(length for _, length, _ in played),
        successes=tuple(bool(s) for _, _, s in played) if says_success else None,
        seeds=tuple(seeds),
        deterministic=deterministic,
        cut=cut,
    )


def about_cuts(evaluation: Evaluation) -> str:
    """A warning where episodes did not end by themselves; empty where all did."""
    if not evaluation.cut:
        return ""
    return (
        f"warning: {evaluation.cut} of {len(evaluation.seeds)} episodes were ended after {_LONGEST_EPISODE:,} steps, "
        "since the env has no time limit. `env.wrappers: [{TimeLimit: {max_episode_steps: 1000}}]` in the config sets "
        "one."
    )


def steps_of(
    model: BaseAlgorithm, venv: VecEnv, deterministic: bool, should_stop: Callable[[], None] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]]:
    """Reset the envs and act in them without end.

    :param should_stop: called before every step; may raise
    :return: for every step the rewards, which copies ended an episode by it, and the infos
    """
    observations: Any = venv.reset()
    states: Any = None
    starts = np.ones(venv.num_envs, dtype=bool)
    masked = takes_action_masks(model)
    while True:
        if should_stop is not None:
            should_stop()
        extra = {"action_masks": np.stack(venv.env_method("action_masks"))} if masked else {}
        actions, states = model.predict(
            observations, state=states, episode_start=starts, deterministic=deterministic, **extra
        )
        observations, rewards, starts, infos = venv.step(actions)
        yield rewards, starts, infos


def takes_action_masks(model: BaseAlgorithm) -> bool:
    """Whether the model's ``predict`` wants the env's action masks."""
    from sb3_contrib import MaskablePPO

    return isinstance(model, MaskablePPO)
