"""Tabular Q-learning: a value for each state and action, where both are few."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from rlrun.algorithms.episodic import EpisodicAlgorithm


class TablePolicy(BasePolicy):
    """Takes the best action of a table; of several best ones the first.

    :ivar table: values of shape (states, actions) in double precision, zero at first
    """

    table: torch.Tensor

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, lr_schedule: Schedule) -> None:
        super().__init__(observation_space, action_space)
        for what, space in (("observations", observation_space), ("actions", action_space)):
            if not isinstance(space, spaces.Discrete) or space.start != 0:
                raise ValueError(f"a table needs {what} that are numbers from 0 on (Discrete), not {space}")
        shape = (observation_space.n, action_space.n)  # type: ignore[attr-defined]
        self.register_buffer("table", torch.zeros(*map(int, shape), dtype=torch.float64))

    def _predict(self, observation: Any, deterministic: bool = True) -> torch.Tensor:
        """The best action in each of (batch,) states."""
        return self.table[observation.long()].argmax(dim=1)


class QLearning(EpisodicAlgorithm):
    """Q-learning (Watkins and Dayan 1992, https://doi.org/10.1007/BF00992698) with a table.

    After each step, ``Q(s, a) += learning_rate * (r + gamma * max Q(s', .) - Q(s, a))``, where nothing follows a
    terminal state; an episode that a time limit cuts has a following state. Actions are random with probability
    epsilon, else the best of the table: of several best ones any in training, and the first when the agent acts
    deterministically. Epsilon falls from episode to episode: ``final + (initial - final) * exp(-decay * episode)``,
    where the first episode is number 0.

    :param policy: ``TablePolicy``
    :param learning_rate: how far a value moves towards its target: 1 replaces it
    :param gamma: discount of the following state's value
    :param exploration_initial_eps: epsilon of the first episode
    :param exploration_final_eps: epsilon that is approached, and that of a trained agent that acts stochastically
    :param exploration_decay: rate of the fall for each episode
    :param stats_window_size: episodes over which logged returns are averaged
    :param device: ignored: a table is looked up on the CPU
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TablePolicy": TablePolicy}

    def __init__(
        self,
        policy: str | type[TablePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 0.7,
        gamma: float = 0.95,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.05,
        exploration_decay: float = 0.0005,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device="cpu",
            support_multi_env=False,
            seed=seed,
            stats_window_size=stats_window_size,
            supported_action_spaces=(spaces.Discrete,),
        )
        self.gamma = gamma
        self.exploration_initial_eps = exploration_initial_eps
        self.exploration_final_eps = exploration_final_eps
        self.exploration_decay = exploration_decay
        self.exploration_rate = exploration_initial_eps
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        largest = max(self.lr_schedule(1), self.lr_schedule(0))
        if largest > 1:
            raise ValueError(f"a learning rate of {largest:g} goes beyond its target: 1 replaces a value")
        self.set_random_seed(self.seed)
        self.policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule)

    @property
    def table(self) -> np.ndarray:
        """The values, (states, actions); what is written into the array is learnt."""
        policy: Any = self.policy
        return policy.table.numpy()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The best actions; with probability ``exploration_final_eps`` random ones unless ``deterministic``."""
        actions, state = self.policy.predict(observation, state, episode_start, deterministic=True)
        if not deterministic:
            explores = np.random.random(actions.shape) < self.exploration_final_eps
            actions = np.where(explores, np.random.randint(self.table.shape[1], size=actions.shape), actions)
        return actions, state

    def epsilon(self, episode: int) -> float:
        """The probability of a random action in an episode, of which the first has number 0."""
        initial, final = self.exploration_initial_eps, self.exploration_final_eps
        return final + (initial - final) * math.exp(-self.exploration_decay * episode)

    def _begin_episode(self) -> None:
        self.exploration_rate = self.epsilon(self._episode_num)
        self._step_size = self.lr_schedule(self._current_progress_remaining)
        self._values = self.table  # looked up at every step

    def _act(self, observations: np.ndarray) -> np.ndarray:
        if np.random.random() < self.exploration_rate:
            return np.array([self.action_space.sample()])
        row = self._values[observations[0]]
        best = np.flatnonzero(row == row.max())
        # In a table of zeros the first would be taken for ever, and a distant goal never be found.
        return best if len(best) == 1 else np.random.choice(best, size=1)

    def _learn_from_step(
        self, observations: np.ndarray, actions: np.ndarray, reward: float, following: Any, is_terminal: bool
    ) -> None:
        target = reward if is_terminal else reward + self.gamma * self._values[following].max()
        state, action = observations[0], actions[0]
        self._values[state, action] += self._step_size * (target - self._values[state, action])

    def dump_logs(self) -> None:
        """See EpisodicAlgorithm."""
        self.logger.record("rollout/exploration_rate", self.exploration_rate)
        self.logger.record("train/learning_rate", self.lr_schedule(self._current_progress_remaining))
        super().dump_logs()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_values"]  # they are the policy's
