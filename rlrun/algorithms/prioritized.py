"""Prioritised experience replay: what was predicted badly is drawn more often."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from rlrun.accelerate.batches import Batch, ReplaySampler
from rlrun.accelerate.frames import FrameBuffer
from rlrun.accelerate.returns import samples_of
from rlrun.algorithms.sum_tree import SumTree

_LARGEST_ERROR = 1.0


class PrioritizedSamples(NamedTuple):
    """ReplayBufferSamples, with what prioritised replay needs to know of them.

    :ivar weights: (batch, 1); see :meth:`Prioritized.draw`
    :ivar at: (batch,), for :meth:`Prioritized.update_priorities`
    """

    observations: torch.Tensor
    actions: torch.Tensor
    next_observations: torch.Tensor
    dones: torch.Tensor
    rewards: torch.Tensor
    discounts: torch.Tensor | None
    weights: torch.Tensor
    at: np.ndarray


class Prioritized:
    """Mixin of a replay buffer: proportional prioritisation (Schaul et al. 2016, https://arxiv.org/abs/1511.05952).

    A transition is drawn with probability ``p^alpha / sum p^alpha``, where p is the size of its last
    temporal-difference error, at most 1, plus ``epsilon``. (The paper's DQN cuts errors at 1, and the Huber loss has no
    larger gradient: without the bound a few large errors are drawn again and again, and values diverge.) A new one has
    the largest p that there was so far. Priorities are those of transitions, not of rows: each env copy has its own.

    :param alpha: 0 draws uniformly
    :param epsilon: added to every error, so that none is never drawn again
    :ivar beta: how far the weights make up for the uneven draws: 0 not at all, 1 wholly
    :ivar priorities: p^alpha, (rows, n_envs)
    """

    def __init__(self, *args: Any, alpha: float = 0.6, epsilon: float = 0.01, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        buffer: Any = self
        self.alpha, self.epsilon, self.beta = alpha, epsilon, 1.0
        self._tree = SumTree(buffer.buffer_size * buffer.n_envs)
        self._largest = 1.0  # p^alpha
        self._new: list[int] = []  # rows whose priority is not in the tree yet

    @property
    def priorities(self) -> np.ndarray:
        """See the class."""
        buffer: Any = self
        self._take_in_new()
        return self._tree.leaves.reshape(buffer.buffer_size, buffer.n_envs)

    def add(self, *args: Any) -> None:
        """See ReplayBuffer."""
        buffer: Any = self
        self._new.append(buffer.pos)
        super().add(*args)  # type: ignore[misc]

    def reset(self) -> None:
        """See ReplayBuffer."""
        super().reset()  # type: ignore[misc]
        self._tree.fill(np.empty(0))
        self._largest, self._new = 1.0, []

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> PrioritizedSamples:
        """A batch drawn with NumPy's global generator."""
        buffer: Any = self
        at, weights = self.draw(batch_size)
        found = samples_of(buffer, *np.divmod(at, buffer.n_envs), env)
        return PrioritizedSamples(*found, weights=buffer.to_torch(weights.astype(np.float32)[:, None]), at=at)

    def draw(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Transitions, one from each of ``batch_size`` equal parts of the sum of priorities.

        :return: their places, row * n_envs + env, and their weights ``(n * P)^-beta`` over the largest of the batch;
            both (batch,)
        """
        buffer: Any = self
        self._take_in_new()
        total = self._tree.total
        at = self._tree.find((np.arange(batch_size) + np.random.random(batch_size)) * (total / batch_size))
        chances = self._tree.leaves[at] / total
        weights = (buffer.size() * buffer.n_envs * chances) ** -self.beta
        return at, weights / weights.max()

    def update_priorities(self, at: np.ndarray, errors: np.ndarray) -> None:
        """Tell how well transitions were predicted now.

        :param at: as :meth:`draw` gave them, (batch,)
        :param errors: of either sign, (batch,)
        :raises ValueError: when training has diverged
        """
        priorities = (np.minimum(np.abs(errors), _LARGEST_ERROR) + self.epsilon) ** self.alpha
        largest = float(priorities.max())
        if math.isnan(largest):
            raise ValueError("training diverged: temporal-difference errors are no longer numbers")
        self._take_in_new()
        self._tree.put(at, priorities)
        self._largest = max(self._largest, largest)

    def _take_in_new(self) -> None:
        if self._new:
            n_envs: int = self.n_envs  # type: ignore[attr-defined]
            self._tree.put((np.array(self._new)[:, None] * n_envs + np.arange(n_envs)).ravel(), self._largest)
            self._new.clear()

    # -- what a checkpoint holds besides the rows

    def besides(self) -> dict[str, np.ndarray]:
        """The priorities."""
        return {"priorities": self.priorities, "largest": np.array([self._largest])}

    def put_besides(self, arrays: dict[str, np.ndarray]) -> None:
        """Take what :meth:`besides` gave, at the start of a run that goes on.

        :raises ValueError: when shapes differ
        """
        if arrays["priorities"].shape != self.priorities.shape:
            raise ValueError(f"priorities have shape {arrays['priorities'].shape}")
        self._tree.fill(arrays["priorities"].ravel())
        self._largest, self._new = float(arrays["largest"][0]), []


class PrioritizedReplayBuffer(Prioritized, ReplayBuffer):  # type: ignore[misc]  # samples have more
    """ReplayBuffer that draws by priority.

    :param n_steps: rewards that are summed before the value of the next observation is taken
    :param gamma: their discount
    """

    def __init__(self, *args: Any, n_steps: int = 1, gamma: float = 0.99, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.n_steps, self.gamma = n_steps, gamma

    @property
    def sampler_class(self) -> type[ReplaySampler] | None:
        """Draws batches for the faster form, which sums no rewards; of this class, not of one derived from it."""
        return PrioritizedSampler if self.n_steps == 1 and type(self) is PrioritizedReplayBuffer else None


class PrioritizedSampler(ReplaySampler):
    """Draws weighted batches as NumPy arrays."""

    buffer: PrioritizedReplayBuffer

    def __call__(self, batch_size: int, normalizer: VecNormalize | None) -> Batch:
        """The same transitions as PrioritizedReplayBuffer.sample."""
        at, weights = self.buffer.draw(batch_size)
        batch = self.transitions(at, normalizer)
        batch.weights = weights.astype(np.float32)
        return batch


class PrioritizedFrameBuffer(Prioritized, FrameBuffer):  # type: ignore[misc]  # samples have more
    """The same for images of which each is stored once."""

    def besides(self) -> dict[str, np.ndarray]:
        """See both."""
        return {**FrameBuffer.besides(self), **Prioritized.besides(self)}

    def put_besides(self, arrays: dict[str, np.ndarray]) -> None:
        """See both."""
        FrameBuffer.put_besides(self, arrays)
        Prioritized.put_besides(self, arrays)


def why_not(observation_space: spaces.Space[Any], settings: Any) -> str:
    """Why transitions cannot be drawn by priority; empty when they can.

    :param settings: keyword arguments of an off-policy algorithm
    """
    if isinstance(observation_space, spaces.Dict):
        return "prioritized_replay is not for Dict observations"
    if settings.get("replay_buffer_class") is not None:
        return "prioritized_replay brings its own replay buffer, so leave replay_buffer_class out"
    if settings.get("optimize_memory_usage"):
        return "prioritized_replay goes without optimize_memory_usage; frames that are stacked are stored once anyway"
    return ""
