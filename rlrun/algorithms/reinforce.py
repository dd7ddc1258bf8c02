"""REINFORCE: the Monte-Carlo policy gradient."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import explained_variance, obs_as_tensor

from rlrun.accelerate import actor_critic
from rlrun.accelerate.actor_critic import ActorCritic
from rlrun.accelerate.choose import Accelerated
from rlrun.algorithms.episodic import EpisodicAlgorithm

_BYTES_AT_A_TIME = 2**24  # of observations


def discounted_returns(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """The reward to go of each step: ``G_t = r_t + gamma * G_(t+1)``.

    :param rewards: of one episode, (steps,)
    :return: (steps,), in double precision
    """
    returns = np.zeros(len(rewards))
    following = 0.0
    for step in range(len(rewards) - 1, -1, -1):
        returns[step] = following = rewards[step] + gamma * following
    return returns


def standardised(values: np.ndarray) -> np.ndarray:
    """Values with mean 0 and standard deviation 1 (divisor n); all 0 where they do not differ."""
    return (values - values.mean()) / (values.std() + np.finfo(np.float32).eps)


class REINFORCE(EpisodicAlgorithm):
    """REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696): one step of the optimiser after each episode.

    The loss is the sum over the episode's steps of ``-log p(a_t | s_t) * G_t``. An episode that a time limit cuts
    counts as one that ended.

    :param policy: ``MlpPolicy``, ``CnnPolicy``
    :param learning_rate: of the policy's optimiser (Adam unless ``policy_kwargs`` say otherwise)
    :param gamma: discount of later rewards
    :param returns: what weights a step: ``reward_to_go``, the discounted rewards from this step on, or ``episode``,
        those of the whole episode
    :param standardize: give the weights of an episode's steps mean 0 and standard deviation 1; an episode of one step
        keeps its own, cut at 1
    :param baseline: subtract the prediction of a value network, which is fitted to the rewards to go
    :param vf_coef: weight of the value network's loss, the mean squared error
    :param stats_window_size: episodes over which logged returns are averaged
    :param policy_kwargs: keyword arguments of the policy, such as ``net_arch``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ActorCriticPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
    }

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-2,
        gamma: float = 0.99,
        returns: str = "reward_to_go",
        standardize: bool = True,
        baseline: bool = False,
        vf_coef: float = 0.5,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            policy_kwargs=policy_kwargs,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=False,
            seed=seed,
            stats_window_size=stats_window_size,
        )
        if returns not in ("reward_to_go", "episode"):
            raise ValueError(f"returns is reward_to_go or episode, not {returns!r}")
        if returns == "episode" and standardize and not baseline:
            raise ValueError("standardize leaves nothing of the return of a whole episode, which all its steps share")
        self.gamma, self.returns, self.standardize = gamma, returns, standardize
        self.baseline, self.vf_coef = baseline, vf_coef
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs)
        self.policy = policy.to(self.device)

    def _begin_episode(self) -> None:
        self._seen: list[np.ndarray] = []
        self._done: list[np.ndarray] = []
        self._rewards: list[float] = []
        self.policy.set_training_mode(False)

    def _act(self, observations: np.ndarray) -> np.ndarray:
        policy: Any = self.policy
        with torch.no_grad():
            distribution = policy.get_distribution(obs_as_tensor(observations, self.device))
            return distribution.get_actions().cpu().numpy()

    def _as_env_takes_it(self, actions: np.ndarray) -> np.ndarray:
        space = self.action_space
        return np.clip(actions, space.low, space.high) if isinstance(space, spaces.Box) else actions

    def _learn_from_step(
        self, observations: np.ndarray, actions: np.ndarray, reward: float, following: Any, is_terminal: bool
    ) -> None:
        self._seen.append(observations)
        self._done.append(actions)
        self._rewards.append(reward)

    def _learn_from_episode(self) -> None:
        policy: Any = self.policy
        policy.set_training_mode(True)
        self._update_learning_rate(policy.optimizer)
        observations: Any = obs_as_tensor(np.concatenate(self._seen), self.device)
        actions: Any = obs_as_tensor(np.concatenate(self._done), self.device)
        to_go = discounted_returns(np.asarray(self._rewards), self.gamma)
        # The loss is a sum over steps. The graph of a long episode of images would not fit into memory.
        rows = max(1, _BYTES_AT_A_TIME // self._seen[0].nbytes)
        parts = [slice(start, start + rows) for start in range(0, len(to_go), rows)]
        predicted = np.zeros(len(to_go))
        if self.baseline:
            with torch.no_grad():
                predictions = [policy.predict_values(observations[part]).flatten() for part in parts]
            predicted = torch.cat(predictions).cpu().numpy()
        weights = torch.as_tensor(self.weights(to_go, predicted), dtype=torch.float32, device=self.device)
        targets = torch.as_tensor(to_go, dtype=torch.float32, device=self.device)
        policy_loss = value_loss = 0.0
        policy.optimizer.zero_grad()
        for part in parts:
            values, log_probs, _ = policy.evaluate_actions(observations[part], actions[part])
            loss = of_policy = -(weights[part] * log_probs).sum()
            policy_loss += of_policy.item()
            if self.baseline:
                of_values = (values.flatten() - targets[part]).square().sum() / len(to_go)
                value_loss += of_values.item()
                loss = of_policy + self.vf_coef * of_values
            loss.backward()
        policy.optimizer.step()
        self._n_updates += 1
        if self.baseline:
            self.logger.record("train/value_loss", value_loss)
            self.logger.record("train/explained_variance", explained_variance(predicted, to_go))
        self.logger.record("train/policy_gradient_loss", policy_loss)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def weights(self, to_go: np.ndarray, values: np.ndarray) -> np.ndarray:
        """What the log-probability of each step's action is multiplied by.

        :param to_go: the discounted rewards from each step on, (steps,)
        :param values: the baseline's predictions of them, (steps,)
        """
        weights = np.full(len(to_go), to_go[0]) if self.returns == "episode" else to_go
        if self.baseline:
            weights = weights - values
        if not self.standardize:
            return weights
        # Of a single weight nothing would be left, and from episodes of one step nothing be learnt.
        return standardised(weights) if len(weights) > 1 else np.clip(weights, -1.0, 1.0)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_seen", "_done", "_rewards"]  # of the episode that is played

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []


class FastREINFORCE(Accelerated, REINFORCE):
    """REINFORCE that computes the policy's network in NumPy while it acts, a row at a time; it learns in torch.

    Random numbers are drawn as torch draws them. Only sums are rounded in another order.
    """

    fast: ActorCritic | None

    def why_plain(self) -> str:
        """See Accelerated."""
        return f"the device is {self.device}" if self.device.type != "cpu" else actor_critic.why_not(self.policy)

    def build_fast(self) -> ActorCritic:
        """See Accelerated."""
        return ActorCritic(self.policy)

    def how_fast(self) -> str:
        """See Accelerated."""
        return "actions in NumPy"

    def _begin_episode(self) -> None:
        super()._begin_episode()
        if self.fast is not None:
            self.fast.flat.bind()

    def _act(self, observations: np.ndarray) -> np.ndarray:
        if self.fast is None:
            return super()._act(observations)
        return self.fast.distribution.sample(self.fast.policy_net.forward(self.fast.features(observations)))
