"""What random actions show of an env: how fast it is, what its observations, rewards and episodes are like."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from rlrun.envs.recipe import EnvRecipe, Role, max_episode_steps
from rlrun.envs.seeding import Stream, endless_seeds
from rlrun.spaces import leaves_of

Env = gym.Env[Any, Any]
Verdict = tuple[str, str]  # result and detail of a check

_STEPS, _SECONDS = 2_000, 2.0  # of random play, whichever comes first
_WIDEST, _MOST_UNLIKE = 10.0, 100.0  # spans of observations that a network takes as they are


@contextlib.contextmanager
def fresh_env(recipe: EnvRecipe) -> Iterator[Env]:
    """A new env with the seeds of a run's first training env; its actions are the same every time."""
    with contextlib.closing(recipe.make(Role.TRAIN, endless_seeds(recipe.seed, Stream.TRAIN_ENVS, 0, 0))) as env:
        env.action_space.seed(0)
        yield env


class RandomPlay:
    """What random actions show in some episodes: ``speed`` plays them, and the others judge one side each."""

    def __init__(self) -> None:
        self.gained: list[float] = []  # the reward of each step
        self.lengths: list[int] = []  # of the episodes that ended
        self.bounds: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of observations, by their key; no images
        self.time_limit: int | None = None

    def speed(self, recipe: EnvRecipe) -> Verdict:
        """Play, and say how long a step takes."""
        seconds, end = 0.0, time.perf_counter() + _SECONDS
        with fresh_env(recipe) as env:
            self._observe(env.observation_space, env.reset()[0])
            while not self.gained or (len(self.gained) < _STEPS and time.perf_counter() < end):
                action, before = env.action_space.sample(), time.perf_counter()
                observation, reward, terminated, truncated, _ = env.step(action)
                seconds += time.perf_counter() - before
                self.gained.append(float(reward))
                self._observe(env.observation_space, observation)
                if terminated or truncated:
                    self._observe(env.observation_space, env.reset()[0])
            self.time_limit, self.lengths = max_episode_steps(env), env.get_wrapper_attr("get_episode_lengths")()
        step = seconds / len(self.gained)
        return "ok", f"{step * 1e6:,.0f} µs a step: {1 / step:,.0f} steps/s of one env."

    def _observe(self, space: spaces.Space[Any], observation: Any) -> None:
        for key, leaf in leaves_of(space).items():
            if isinstance(leaf, spaces.Box) and not is_image_space(leaf):
                values = np.asarray(observation[key] if key else observation, dtype=float)
                low, high = self.bounds.get(key, (values, values))
                self.bounds[key] = np.minimum(low, values), np.maximum(high, values)

    def spans(self) -> list[tuple[float, str]]:
        """How far each component of the observations ranges, and its name; not finite where one was not."""
        return [
            (float(span), f"component {', '.join(map(str, index))}{f' of {key}' if key else ''}")
            for key, (low, high) in self.bounds.items()
            for index, span in np.ndenumerate(high - low)
        ]

    def finite(self) -> Verdict:
        """Whether every number was one."""
        wrong = [name for span, name in self.spans() if not np.isfinite(span)]
        wrong += [] if np.isfinite(self.gained).all() else ["the reward"]
        where = f"{len(self.gained):,} random steps"
        return (
            ("failed", f"NaN or infinite in {where}: {', '.join(wrong[:5])}.") if wrong else ("ok", f"All, in {where}.")
        )

    def observations(self) -> Verdict:
        """Whether a network can take the observations as they are."""
        moving = [(span, name) for span, name in self.spans() if np.isfinite(span) and span > 0]
        if not moving:
            return "skipped", "There is nothing to scale: besides images no finite number changes."
        (widest, wide), (narrowest, narrow) = max(moving), min(moving)
        found = f"{wide} spans {widest:.2g}" + (f", {narrow} {narrowest:.2g}" if narrow != wide else "")
        if widest > _WIDEST or widest > _MOST_UNLIKE * narrowest:
            return "warning", f"`normalize: true` may help: {found}."
        return "ok", f"Fit for a network as they are: {found}."

    def rewards(self) -> Verdict:
        """The range of the rewards."""
        low, high, mean = min(self.gained), max(self.gained), float(np.mean(self.gained))
        return "ok", f"Always {low:g}." if low == high else f"From {low:.4g} to {high:.4g}, {mean:.4g} on average."

    def episodes(self) -> Verdict:
        """How episodes end."""
        ended = f"{len(self.lengths)} ended in {len(self.gained):,} random steps"
        if self.lengths:
            shortest, longest = min(self.lengths), max(self.lengths)
            ended += f", after {shortest:,}" + (f" to {longest:,}" if longest > shortest else "")
        if self.time_limit:
            return "ok", f"At most {self.time_limit:,} steps; {ended}."
        if self.lengths:
            return "ok", f"{ended}; there is no time limit."
        advice = "`env.wrappers: [{TimeLimit: {max_episode_steps: 1000}}]`"
        return "warning", f"{ended}, and there is no time limit: {advice}."
