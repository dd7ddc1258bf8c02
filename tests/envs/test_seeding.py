"""One run seed, separate streams: what one role draws never changes what another sees."""

from __future__ import annotations

import contextlib
import itertools
import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlrun.envs.seeding import (
    MAX_SEED,
    SeededResets,
    Stream,
    draw_seeds,
    endless_seeds,
    generator,
    generators_preserved,
    seed_global_generators,
)


class Diary(gym.Env[int, int]):
    """Writes down the seeds and options that its resets were given."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.seeds: list[int | None] = []
        self.options: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        self.seeds.append(seed)
        self.options.append(options)
        return 0, {}


def taken(count: int, seed: int, stream: Stream, *key: int) -> list[int]:
    return list(itertools.islice(endless_seeds(seed, stream, *key), count))


def global_numbers() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(1))


def test_the_numbers_of_the_streams_never_change() -> None:
    assert {stream.name: stream.value for stream in Stream} == {
        "TRAIN_ENVS": 0,
        "EVALUATION_IN_TRAINING": 1,
        "EVALUATION": 2,
        "LEARNER": 3,
        "POLICY": 4,
        "VIDEO": 5,
        "TUNING": 6,
        "CURIOSITY": 7,
    }


def test_a_seed_means_the_same_numbers_for_ever() -> None:
    assert draw_seeds(0, Stream.EVALUATION, 3) == [1409566256, 1800173581, 993954204]
    assert taken(3, 7, Stream.TRAIN_ENVS, 0, 1) == [2063524825, 1769847956, 952412955]


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_streams_share_no_seed(seed: int) -> None:
    keys: list[tuple[int, ...]] = [(), (0,), (0, 0), (0, 1), (1, 0), (4096, 0)]
    drawn = [draw_seeds(seed, stream, 50, *key) for stream in Stream for key in keys]
    assert len(set(itertools.chain(*drawn))) == 50 * len(Stream) * len(keys)


def test_another_run_seed_gives_other_seeds() -> None:
    assert not set(draw_seeds(0, Stream.EVALUATION, 100)) & set(draw_seeds(1, Stream.EVALUATION, 100))


@pytest.mark.parametrize("count", [0, 1, 20, 37])
def test_the_first_seeds_are_the_same_however_many_are_drawn(count: int) -> None:
    assert draw_seeds(3, Stream.EVALUATION, count) == draw_seeds(3, Stream.EVALUATION, 200)[:count]


def test_drawing_from_one_stream_leaves_the_others_as_they_are() -> None:
    one, other = endless_seeds(3, Stream.TRAIN_ENVS, 0, 0), endless_seeds(3, Stream.TRAIN_ENVS, 0, 1)
    mixed = []
    for _ in range(5):
        mixed.append(next(other))
        generator(3, Stream.LEARNER).random(100)
        next(one), next(one)
    assert mixed == taken(5, 3, Stream.TRAIN_ENVS, 0, 1)


def test_seeds_are_plain_whole_numbers_that_every_generator_takes() -> None:
    seeds = [*draw_seeds(5, Stream.EVALUATION, 1000), *taken(1000, 5, Stream.TRAIN_ENVS, 0, 0)]
    assert {type(seed) for seed in seeds} == {int}
    assert min(seeds) >= 0
    assert max(seeds) < MAX_SEED
    assert len(set(seeds)) > 1900


def test_the_global_generators_are_seeded_all_three() -> None:
    with generators_preserved():
        seed_global_generators(11)
        first = global_numbers()
        global_numbers()
        seed_global_generators(11)
        assert global_numbers() == first
        seed_global_generators(12)
        assert not set(global_numbers()) & set(first)


@pytest.mark.parametrize("seed", [0, MAX_SEED, 2**32 + 5])
def test_any_seed_seeds_the_global_generators(seed: int) -> None:
    with generators_preserved():
        seed_global_generators(seed)
        first = global_numbers()
        seed_global_generators(seed)
        assert global_numbers() == first


def test_what_is_drawn_meanwhile_leaves_the_global_generators_as_they_were() -> None:
    with generators_preserved():
        seed_global_generators(1)
        undisturbed = global_numbers()
        seed_global_generators(1)
        with generators_preserved():
            seed_global_generators(99)
            global_numbers()
        assert global_numbers() == undisturbed


def test_the_global_generators_are_put_back_after_an_error_too() -> None:
    with generators_preserved():
        seed_global_generators(1)
        undisturbed = global_numbers()
        seed_global_generators(1)
        with contextlib.suppress(KeyError), generators_preserved():
            global_numbers()
            raise KeyError
        assert global_numbers() == undisturbed


def test_only_the_first_reset_is_seeded_when_not_every_one_is_to_be() -> None:
    diary = Diary()
    env = SeededResets(diary, iter([10, 11, 12]), every=False)
    for _ in range(3):
        env.reset()
    assert diary.seeds == [10, None, None]


def test_every_reset_is_seeded_until_the_seeds_run_out() -> None:
    diary = Diary()
    env = SeededResets(diary, iter([10, 11, 12]), every=True)
    for _ in range(5):
        env.reset()
    assert diary.seeds == [10, 11, 12, None, None]


def test_a_given_seed_goes_before_the_streams_and_takes_none_from_it() -> None:
    diary = Diary()
    env = SeededResets(diary, iter([10, 11]), every=True)
    env.reset(seed=0)
    env.reset()
    env.reset(seed=5)
    env.reset()
    assert diary.seeds == [0, 10, 5, 11]


def test_a_first_reset_with_a_given_seed_is_the_first() -> None:
    diary = Diary()
    env = SeededResets(diary, iter([10]), every=False)
    env.reset(seed=5)
    env.reset()
    assert diary.seeds == [5, None]


def test_the_options_of_a_reset_arrive() -> None:
    diary = Diary()
    SeededResets(diary, iter([10]), every=True).reset(options={"level": 3})
    assert diary.options == [{"level": 3}]
