"""What algorithms that think in whole episodes share: one env, a rollout that is an episode, a budget of episodes."""

from __future__ import annotations

import sys
import time
from typing import Any, TypeVar

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import safe_mean

Self = TypeVar("Self", bound="EpisodicAlgorithm")


class EpisodicAlgorithm(BaseAlgorithm):
    """Plays one episode after the other. Between two of them, where callbacks see a rollout begin, the env is reset.

    A subclass says how to act, and what it learns from a step, from an episode, or from both.
    """

    _total_episodes: int | None = None

    def learn(
        self: Self,
        total_timesteps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: int | None = 100,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        total_episodes: int | None = None,
    ) -> Self:
        """Learn until a number of timesteps or of episodes is reached; the last episode is played to its end.

        :param log_interval: episodes between rows of the log; None: none are written
        :param progress_bar: SB3's, which counts timesteps
        :param total_episodes: instead of ``total_timesteps``
        :raises ValueError: unless exactly one of the two is given; for a progress bar of episodes
        """
        if (total_timesteps is None) == (total_episodes is None):
            raise ValueError("Give learn() either total_timesteps or total_episodes.")
        if progress_bar and total_timesteps is None:
            raise ValueError("SB3's progress bar counts timesteps: leave progress_bar out with total_episodes.")
        _, callback = self._setup_learn(total_timesteps or 0, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self._total_episodes = None if total_episodes is None else self._episode_num + total_episodes
        callback.on_training_start(locals(), globals())
        while not self._budget_is_used_up():
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            if not self._play_episode(callback):
                break
            if log_interval is not None and self._episode_num % log_interval == 0:
                self.dump_logs()
        callback.on_training_end()
        return self

    def dump_logs(self) -> None:
        """Write a row of the log, under the names that SB3's algorithms use."""
        seconds = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        if self.ep_info_buffer:
            self.logger.record("rollout/ep_rew_mean", safe_mean([info["r"] for info in self.ep_info_buffer]))
            self.logger.record("rollout/ep_len_mean", safe_mean([info["l"] for info in self.ep_info_buffer]))
        if self.ep_success_buffer:
            self.logger.record("rollout/success_rate", safe_mean(self.ep_success_buffer))
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / seconds))
        self.logger.record("time/episodes", self._episode_num)
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)

    def _play_episode(self, callback: BaseCallback) -> bool:
        """Play one episode, and learn.

        :return: False when a callback ends training
        """
        callback.on_rollout_start()
        env: Any = self.env
        observations: Any = self._last_obs  # of shape (1, ...): one env; on_rollout_start may have reset it
        self._begin_episode()
        done = False
        while not done:
            actions = self._act(observations)
            new_observations, rewards, dones, infos = env.step(self._as_env_takes_it(actions))
            self.num_timesteps += 1
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            done = bool(dones[0])
            is_terminal = done and not infos[0].get("TimeLimit.truncated", False)
            following = infos[0]["terminal_observation"] if done else new_observations[0]
            self._learn_from_step(observations, actions, float(rewards[0]), following, is_terminal)
            observations = self._last_obs = new_observations
        self._update_info_buffer(infos, dones)
        self._episode_num += 1
        callback.on_rollout_end()
        self._learn_from_episode()
        return True

    def _budget_is_used_up(self) -> bool:
        if self._total_episodes is None:
            return self.num_timesteps >= self._total_timesteps
        return self._episode_num >= self._total_episodes

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        if self._total_episodes is None:
            super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        else:
            self._current_progress_remaining = 1.0 - self._episode_num / self._total_episodes

    # -- what a subclass fills in

    def _begin_episode(self) -> None:
        """Prepare for an episode."""

    def _act(self, observations: np.ndarray) -> np.ndarray:
        """Actions of shape (1, ...) for observations of shape (1, ...)."""
        raise NotImplementedError

    def _as_env_takes_it(self, actions: np.ndarray) -> np.ndarray:
        """Actions within the env's bounds."""
        return actions

    def _learn_from_step(
        self, observations: np.ndarray, actions: np.ndarray, reward: float, following: Any, is_terminal: bool
    ) -> None:
        """See one step.

        :param following: the observation after it, without the leading axis
        :param is_terminal: whether the episode ended by it, rather than going on or being cut by a time limit
        """

    def _learn_from_episode(self) -> None:
        """See that the episode is over."""
