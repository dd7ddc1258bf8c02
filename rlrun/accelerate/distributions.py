"""SB3's action distributions as sums over arrays: sample, log-probability, entropy, and their gradients.

Each works on what the policy network returns for a batch, ``outputs`` of shape (batch, n): logits or means. Arrays that
they return are overwritten by the next call for a batch of the same size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from stable_baselines3.common import distributions as sb3

from rlrun.accelerate.flat import Array, FlatParameters


class Distribution:
    """One kind of action distribution.

    :ivar parameters: its own, besides the network's outputs
    """

    def sample(self, outputs: Array) -> Array:
        """Actions in the shape in which SB3 hands them to ``env.step``.

        Drawn as torch.distributions draws them, so that after the same seed they are SB3's.
        """
        raise NotImplementedError

    def evaluate(self, outputs: Array, actions: Array) -> tuple[Array, Array]:
        """Log-probabilities of actions, and entropies.

        :param outputs: (batch, n)
        :param actions: (batch, action size), as the rollout buffer holds them
        :return: (batch,) and (batch,)
        """
        raise NotImplementedError

    def gradient(self, log_prob_gradient: Array, entropy_gradient: float) -> Array:
        """Gradient of a loss with respect to the outputs last evaluated; those of own parameters are written.

        :param log_prob_gradient: of the loss with respect to each log-probability, (batch,)
        :param entropy_gradient: of the loss with respect to the entropy of every sample
        :return: (batch, n)
        """
        raise NotImplementedError


class Categorical(Distribution):
    """One choice among n (Discrete): outputs are logits."""

    def __init__(self) -> None:
        self._by_batch: dict[int, tuple[Array, ...]] = {}

    def sample(self, outputs: Array) -> Array:
        """See Distribution; shape (batch,)."""
        probs = np.exp(outputs - np.maximum.reduce(outputs, axis=1, keepdims=True))
        np.divide(probs, np.add.reduce(probs, axis=1, keepdims=True), out=probs)
        return torch.multinomial(torch.from_numpy(probs), 1, True).numpy()[:, 0]

    def evaluate(self, outputs: Array, actions: Array) -> tuple[Array, Array]:
        """See Distribution."""
        batch, n = outputs.shape
        if batch not in self._by_batch:
            # By action first, so that sums over actions add long rows.
            arrays = [np.empty((n, batch), dtype=np.float32) for _ in range(3)]
            self._by_batch[batch] = (*arrays, np.empty(batch, dtype=np.float32), np.arange(batch))
        log_probs, probs, products, row, indices = self._by_batch[batch]
        np.maximum.reduce(outputs, axis=1, out=row)
        np.subtract(outputs.T, row, out=log_probs)
        np.exp(log_probs, out=probs)
        np.add.reduce(probs, axis=0, out=row)
        np.divide(probs, row, out=probs)
        np.log(row, out=row)
        np.subtract(log_probs, row, out=log_probs)
        np.multiply(probs, log_probs, out=products)
        entropy = np.add.reduce(products, axis=0)
        np.negative(entropy, out=entropy)
        chosen = actions.reshape(batch).astype(np.intp) * batch + indices
        self._last = log_probs, probs, products, entropy, chosen
        return log_probs.reshape(-1)[chosen], entropy

    def gradient(self, log_prob_gradient: Array, entropy_gradient: float) -> Array:
        """d log p(a) / d logits is onehot(a) - p, and d H / d logits is -p (log p + H)."""
        log_probs, probs, products, entropy, chosen = self._last
        result = log_probs  # no longer needed
        if entropy_gradient:
            np.multiply(probs, entropy, out=log_probs)
            np.add(log_probs, products, out=result)
            np.multiply(result, -entropy_gradient, out=result)
            np.multiply(probs, log_prob_gradient, out=probs)
            np.subtract(result, probs, out=result)
        else:
            np.multiply(probs, log_prob_gradient, out=result)
            np.negative(result, out=result)
        result.reshape(-1)[chosen] += log_prob_gradient
        return result.T


class MultiCategorical(Distribution):
    """Several independent choices (MultiDiscrete): outputs are the logits of one after the other."""

    def __init__(self, sizes: list[int]) -> None:
        ends = np.cumsum(sizes)
        self._slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self._parts = [Categorical() for _ in sizes]

    def sample(self, outputs: Array) -> Array:
        """See Distribution; shape (batch, choices)."""
        return np.stack(
            [part.sample(outputs[:, cut]) for part, cut in zip(self._parts, self._slices, strict=True)], axis=1
        )

    def evaluate(self, outputs: Array, actions: Array) -> tuple[Array, Array]:
        """See Distribution."""
        pairs = [
            part.evaluate(outputs[:, cut], actions[:, index])
            for index, (part, cut) in enumerate(zip(self._parts, self._slices, strict=True))
        ]
        log_prob, entropy = pairs[0]
        for other_log_prob, other_entropy in pairs[1:]:
            log_prob, entropy = log_prob + other_log_prob, entropy + other_entropy
        return log_prob, entropy

    def gradient(self, log_prob_gradient: Array, entropy_gradient: float) -> Array:
        """See Distribution."""
        return np.concatenate([part.gradient(log_prob_gradient, entropy_gradient) for part in self._parts], axis=1)


class Bernoulli(Distribution):
    """Independent switches (MultiBinary): outputs are logits."""

    def sample(self, outputs: Array) -> Array:
        """See Distribution; shape (batch, n)."""
        return torch.bernoulli(torch.from_numpy(_sigmoid(outputs))).numpy()

    def evaluate(self, outputs: Array, actions: Array) -> tuple[Array, Array]:
        """log p(a) = a z - softplus(z), and H = softplus(z) - z sigmoid(z)."""
        softplus = np.logaddexp(outputs, np.float32(0))
        probs = _sigmoid(outputs)
        self._last = outputs, probs, actions
        log_prob = np.add.reduce(actions * outputs - softplus, axis=1)
        return log_prob, np.add.reduce(softplus - outputs * probs, axis=1)

    def gradient(self, log_prob_gradient: Array, entropy_gradient: float) -> Array:
        """d log p(a) / dz is a - s, and dH / dz is -z s (1 - s), where s is the sigmoid of z."""
        outputs, probs, actions = self._last
        result = (actions - probs) * log_prob_gradient[:, None]
        if entropy_gradient:
            result -= entropy_gradient * outputs * probs * (1 - probs)
        return np.asarray(result, dtype=np.float32)


class DiagGaussian(Distribution):
    """Independent normals (Box): outputs are means; the logarithms of the deviations are a parameter.

    :param log_std: (n,)
    """

    _HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)

    def __init__(self, log_std: torch.nn.Parameter, flat: FlatParameters) -> None:
        self._log_std, self._gradient = flat.view(log_std)

    def sample(self, outputs: Array) -> Array:
        """See Distribution; shape (batch, n)."""
        noise = torch.empty(outputs.shape).normal_().numpy()
        np.multiply(noise, np.exp(self._log_std), out=noise)
        return np.add(noise, outputs, out=noise)

    def evaluate(self, outputs: Array, actions: Array) -> tuple[Array, Array]:
        """See Distribution."""
        deviation = np.exp(self._log_std)
        scaled = (actions - outputs) / deviation
        squares = scaled * scaled
        constant = float(np.add.reduce(self._log_std)) + len(deviation) * self._HALF_LOG_TWO_PI
        self._last = deviation, scaled, squares
        log_prob = np.add.reduce(squares, axis=1)
        np.multiply(log_prob, -0.5, out=log_prob)
        np.subtract(log_prob, constant, out=log_prob)
        return log_prob, np.full(len(outputs), constant + 0.5 * len(deviation), dtype=np.float32)

    def gradient(self, log_prob_gradient: Array, entropy_gradient: float) -> Array:
        """d log p / d mean is (a - m) / s², d log p / d log s is (a - m)² / s² - 1, and dH / d log s is 1."""
        deviation, scaled, squares = self._last
        np.subtract(squares, 1, out=squares)
        np.dot(log_prob_gradient, squares, out=self._gradient)
        np.add(self._gradient, entropy_gradient * len(scaled), out=self._gradient)
        np.divide(scaled, deviation, out=scaled)
        np.multiply(scaled, log_prob_gradient[:, None], out=scaled)
        return scaled


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-np.maximum(z, -88)))


def why_not(distribution: sb3.Distribution) -> str:
    """Why a distribution of SB3's has no form here; empty when it has one."""
    known = (
        sb3.CategoricalDistribution,
        sb3.MultiCategoricalDistribution,
        sb3.BernoulliDistribution,
        sb3.DiagGaussianDistribution,
    )
    return "" if type(distribution) in known else f"actions come from {type(distribution).__name__}"


def of_policy(policy: Any, flat: FlatParameters) -> Distribution:
    """The form of an actor-critic policy's distribution, which :func:`why_not` has nothing against."""
    distribution = policy.action_dist
    if isinstance(distribution, sb3.CategoricalDistribution):
        return Categorical()
    if isinstance(distribution, sb3.MultiCategoricalDistribution):
        return MultiCategorical([int(n) for n in distribution.action_dims])
    if isinstance(distribution, sb3.BernoulliDistribution):
        return Bernoulli()
    return DiagGaussian(policy.log_std, flat)
