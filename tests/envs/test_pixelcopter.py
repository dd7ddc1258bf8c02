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
    expected = [24 + velocity, velocity, 12 - velocity, 12 + velocity, 60 - STEP - 16.8, 40, 49]
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
    env.blocks = [[16.8 + 0.9 * STEP, 40.0]]
    seen, reward, *_ = env.step(0)
    assert reward == 1.0
    assert len(env.blocks) == 2
    assert 48 - 16.8 <= seen[4] <= 72 - 16.8


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


def test_the_same_seed_gives_the_same_tunnel():
    one, other = (Pixelcopter().reset(seed=5)[0] for _ in range(2))
    assert np.array_equal(one, other)


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
