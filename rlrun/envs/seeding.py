"""One run seed, separate streams: nothing that one role draws can change what another sees.

Each stream is ``numpy.random.SeedSequence(seed, spawn_key=(stream, *key))``, so streams are independent of each
other and of how many numbers are drawn from them.

======================  ============================================================  ==================
stream                  what draws from it                                            key
======================  ============================================================  ==================
TRAIN_ENVS              resets of the training envs                                   cut, env index
                        a worker's own global generators                              cut, env index, 0
EVALUATION_IN_TRAINING  resets of the evaluation envs, the same at every evaluation   none
EVALUATION              resets of ``rlrun eval``'s envs                               none
LEARNER                 torch, NumPy and Python generators, action-space sampling     cut
POLICY                  actions of a stochastic policy while it is evaluated          none
VIDEO                   resets of the envs that are filmed or watched                 none
TUNING                  run seeds of trials and of re-tests, a study's sampler        what for
CURIOSITY               first weights of the networks behind an intrinsic reward      none
======================  ============================================================  ==================

``cut`` is the number of timesteps at which the training envs were last built anew: 0, or a checkpoint's.
"""

from __future__ import annotations

import contextlib
import enum
import random
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np

MAX_SEED = 2**31 - 1


class Stream(enum.IntEnum):
    """Names of the streams; the numbers are part of what a seed means, so they never change."""

    TRAIN_ENVS = 0
    EVALUATION_IN_TRAINING = 1
    EVALUATION = 2
    LEARNER = 3
    POLICY = 4
    VIDEO = 5
    TUNING = 6
    CURIOSITY = 7


def generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """The generator of one stream."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(stream), *key)))


def draw_seeds(seed: int, stream: Stream, count: int, *key: int) -> list[int]:
    """``count`` seeds from a stream, each in [0, 2**31)."""
    return [int(s) for s in generator(seed, stream, *key).integers(MAX_SEED, size=count)]


def endless_seeds(seed: int, stream: Stream, *key: int) -> Iterator[int]:
    """Seeds from a stream, without end."""
    numbers = generator(seed, stream, *key)
    while True:
        yield int(numbers.integers(MAX_SEED))


def seed_global_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators, which SB3 draws from."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def generators_preserved() -> Iterator[None]:
    """Whatever is drawn inside leaves the global generators as they were: evaluating changes nothing that is learnt."""
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


class SeededResets(gym.Wrapper[Any, Any, Any, Any]):
    """Gives resets the seeds of a stream.

    :param seeds: drawn from at each seeded reset; when they run out, resets go unseeded
    :param every: seed every reset, not only the first; for envs that take fresh entropy at each reset
    """

    def __init__(self, env: gym.Env[Any, Any], seeds: Iterator[int], every: bool) -> None:
        super().__init__(env)
        self._seeds = seeds
        self._every = every
        self._is_first = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset with the given seed, else with the stream's."""
        if seed is None and (self._every or self._is_first):
            seed = next(self._seeds, None)
        self._is_first = False
        return self.env.reset(seed=seed, options=options)
