"""Pixelcopter's rules against numbers computed by hand."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import rlrun
from rlrun.envs.pixelcopter import Pixelcopter

STEP = 0.64  # pixels a frame: 0.0004 * 48 a millisecond, at 30 frames a second


def started() -> Pixelcopter:
    env = Pixelcopter("rgb_array")
    env.reset(seed=0)
    env.tunnel = [[x, 24] for x in range(2, 202, 4)]
    env.blocks = [[60.0, 40.0]]
    return env


def test_the_env_keeps_gymnasiums_rules():
    check_env(gym.make("Pixelcopter-v0", render_mode="rgb_array").unwrapped)


def test_falling_and_climbing_change_the_velocity_and_drag_slows_it():
    env = started()
    seen, reward, ended, _, _ = env.step(0)
    velocity = 0.99 * 0.09 * STEP
    # y, velocity, distances to floor and ceiling, to the block, and the block's y
    expected = [24 + velocity, velocity, 12 - velocity, 12 + velocity, 60 - STEP - 16, 40, 49]
    assert seen == pytest.approx(np.array(expected), abs=1e-4)
    assert (reward, ended) == (0.0, False)
    seen = env.step(1)[0]
    assert seen[1] == pytest.approx(0.99 * (velocity - 0.875 * STEP), abs=1e-5)


def test_a_section_of_the_tunnel_that_leaves_the_screen_gives_1():
    env = started()
    env.tunnel[0][0] = -4 + 0.9 * STEP
    assert env.step(0)[1] == 1.0


def test_a_passed_block_gives_1_and_the_next_one_comes():
    env = started()
    env.blocks = [[16 + 0.9 * STEP, 40.0]]
    seen, reward, *_ = env.step(0)
    assert reward == 1.0
    assert len(env.blocks) == 2
    assert 48 - 16 <= seen[4] <= 72 - 16


@pytest.mark.parametrize(
    ("y", "block"),
    [(24.0, [17.0, 24.0]), (5.0, [60.0, 40.0]), (43.0, [60.0, 40.0]), (36.0, [60.0, 40.0]), (14.0, [60.0, 40.0])],
    ids=["block", "too high", "too low", "floor", "ceiling"],
)
def test_a_crash_costs_5_and_ends_the_episode(y: float, block: list[float]):
    env = started()
    env.y, env.blocks = y, [block, [60.0, 40.0]]
    _, reward, ended, truncated, _ = env.step(0)
    assert (reward, ended, truncated) == (-5.0, True, False)


def layout(seed: int) -> list[list[float]]:
    env = Pixelcopter()
    env.reset(seed=seed)
    return env.blocks + env.tunnel


def test_the_same_seed_gives_the_same_tunnel_and_another_one_another():
    assert layout(5) == layout(5) != layout(6)


def test_blocks_come_in_the_middle_half_of_the_height_as_in_ple():
    # There: randint(0.25 height, 0.75 height) for y and randint(width, 1.5 width) for x.
    blocks = np.array([layout(seed)[0] for seed in range(1_000)], dtype=int)
    assert set(blocks[:, 0]) == set(range(48, 72))
    assert set(blocks[:, 1]) == set(range(12, 36))


def test_the_tunnel_waves_around_the_middle_of_the_screen():
    middles = np.array([y for seed in range(100) for _, y in layout(seed)[1:]])
    assert (middles.min(), middles.max()) == (18, 29)  # 24 - 6 to 24 + 6, cut to whole pixels
    assert abs(middles.mean() - 24) < 0.7


def test_a_copter_that_keeps_to_the_middle_flies_far():
    env = gym.make("Pixelcopter-v0")
    seen, _ = env.reset(seed=1)
    total, ended = 0.0, False
    for _ in range(300):
        target = seen[2] - seen[3]  # below the middle of the tunnel: climb
        seen, reward, ended, _, _ = env.step(int(target + 10 * -seen[1] < 0))
        total += float(reward)
        if ended:
            break
    assert total > 0


def test_a_frame_shows_copter_tunnel_and_block():
    env = started()
    frame = env.render()
    assert frame is not None
    assert (frame.shape, frame.dtype) == ((384, 384, 3), np.uint8)
    assert frame[24 * 8, 16 * 8].tolist() == [255, 255, 255]
    assert frame[0, 0].tolist() == [120, 240, 80]
    assert frame[24 * 8, 30 * 8].tolist() == [0, 0, 0]


def test_rlrun_knows_the_family():
    assert rlrun.check_env("Pixelcopter-v0").passed
