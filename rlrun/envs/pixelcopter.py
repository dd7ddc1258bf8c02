"""Pixelcopter: fly through a tunnel and around blocks. Importing this registers ``Pixelcopter-v0``.

The rules, rewards and numbers are those of the PyGame Learning Environment (``ple/games/pixelcopter.py`` and
``ple/games/base/pygamewrapper.py`` of https://github.com/ntasfi/PyGame-Learning-Environment at 3dbe79d; its page on the
game says -1 for a crash, its code gives -5) for a screen of 48 x 48 pixels at 30 frames a second; the code is this
project's, and needs no window.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

SIZE = 48  # pixels of the screen, both ways; y grows downwards
_STEP = 0.0004 * SIZE * 1000 / 30  # pixels that the tunnel moves in a frame
_CLIMB, _FALL = -0.875 * _STEP, 0.09 * _STEP  # added to the velocity in a frame, in pixels a frame
_DRAG = 0.99
_PLAYER_X, _PLAYER = int(0.35 * SIZE), 2  # its place and its size
_PLAYER_HEIGHT = 0.05 * SIZE  # as the tunnel's top counts it
_WIDTH, _BLOCK_HEIGHT = 4, 9  # of a block; a section of the tunnel is as wide
_HALF_OPENING = 0.25 * SIZE
_HIGHEST, _LOWEST = 0.125 * SIZE, 0.875 * SIZE
_PASSED, _CRASHED = 1.0, -5.0
_SCALE = 8  # pixels of a frame for one of the game
_GREEN, _WHITE = (120, 240, 80), (255, 255, 255)


class Pixelcopter(gym.Env[np.ndarray, Any]):
    """Action 1 climbs and action 0 falls.

    An observation is seven numbers in pixels: the copter's y, its velocity downwards (pixels a frame), its distance to
    the floor and to the ceiling, how far ahead the next block is, and the y of the block's top and bottom (as the
    original counts them: the block's middle, and its height below it).

    A block, or a section of the tunnel that has left the screen, gives 1; a crash gives -5 and ends the episode.

    :param render_mode: ``rgb_array`` or None
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (7,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.render_mode = render_mode
        self.y, self.velocity = SIZE / 2, 0.0
        self.blocks: list[list[float]] = []  # x and y of their middles
        self.tunnel: list[list[float]] = []  # x and y of the middles of its sections, from left to right

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """See gymnasium.Env."""
        super().reset(seed=seed)
        self.y, self.velocity = SIZE / 2, 0.0
        self.blocks, self.tunnel = [], []
        self._add_block()
        self._add_tunnel(0, 4 * SIZE)
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See gymnasium.Env."""
        self.velocity = _DRAG * (self.velocity + (_CLIMB if action == 1 else _FALL))
        self.y += self.velocity
        for thing in (*self.blocks, *self.tunnel):
            thing[0] -= _STEP
        has_crashed = self._has_crashed()
        reward = self._go_on() + (_CRASHED if has_crashed else 0.0)
        return self._observe(), reward, has_crashed, False, {}

    def render(self) -> np.ndarray | None:
        """A frame of (384, 384, 3) bytes."""
        if self.render_mode != "rgb_array":
            return None
        frame = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        for x, y in self.tunnel:
            columns = slice(max(0, int(x) - _WIDTH // 2), max(0, int(x) + _WIDTH // 2))
            frame[: max(0, int(y - _HALF_OPENING)), columns] = _GREEN
            frame[int(y + _HALF_OPENING) :, columns] = _GREEN
        for x, y in self.blocks:
            _fill(frame, x, y, _WIDTH, _BLOCK_HEIGHT, _GREEN)
        _fill(frame, _PLAYER_X, self.y, _PLAYER, _PLAYER, _WHITE)
        return frame.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)

    def _has_crashed(self) -> bool:
        for x, y in self.blocks:
            if _overlap(_PLAYER_X, _PLAYER, x, _WIDTH) and _overlap(self.y, _PLAYER, y, _BLOCK_HEIGHT):
                return True
        for _, y in self._sections_here():
            if self.y - _PLAYER_HEIGHT <= y - _HALF_OPENING or self.y >= y + _HALF_OPENING:
                return True
        return not _HIGHEST <= self.y <= _LOWEST

    def _go_on(self) -> float:
        """Take away what has left the screen and add what comes; the reward for both."""
        reward = 0.0
        if len(self.blocks) == 1 and self.blocks[0][0] <= _PLAYER_X:
            reward += _PASSED
            self._add_block()
        self.blocks = [block for block in self.blocks if block[0] > -_WIDTH]
        left = len(self.tunnel)
        self.tunnel = [section for section in self.tunnel if section[0] > -_WIDTH]
        reward += _PASSED * (left - len(self.tunnel))
        if len(self.tunnel) <= 13:
            self._add_tunnel(SIZE, 5 * SIZE)
        return reward

    def _add_block(self) -> None:
        x = self.np_random.integers(SIZE, SIZE * 3 // 2)
        y = self.np_random.integers(SIZE // 4, SIZE * 3 // 4)
        self.blocks.append([float(x), float(y)])

    def _add_tunnel(self, start: int, end: int) -> None:
        frequency = 4.5 / SIZE + self.np_random.uniform(-0.01, 0.01)
        for x in range(start + _WIDTH // 2, end + _WIDTH // 2, _WIDTH):
            wave = math.sin(frequency * x + self.np_random.uniform(0.0, 0.5))
            self.tunnel.append([x, int(SIZE / 2 + 0.125 * SIZE * wave)])

    def _sections_here(self) -> list[list[float]]:
        """The sections of the tunnel above and below the copter."""
        return [section for section in self.tunnel if _overlap(_PLAYER_X, _PLAYER, section[0], _WIDTH)]

    def _observe(self) -> np.ndarray:
        middle = self._sections_here()[0][1]
        x, y = min(block for block in self.blocks if block[0] > _PLAYER_X)
        to_floor, to_ceiling = middle + _HALF_OPENING - self.y, self.y - (middle - _HALF_OPENING)
        seen = (self.y, self.velocity, to_floor, to_ceiling, x - _PLAYER_X, y, y + _BLOCK_HEIGHT)
        return np.array(seen, dtype=np.float32)


def _overlap(one: float, size: int, other: float, other_size: int) -> bool:
    """Whether two things overlap along an axis, in whole pixels; both are given by their middles."""
    first, second = int(one) - size // 2, int(other) - other_size // 2
    return first < second + other_size and second < first + size


def _fill(frame: np.ndarray, x: float, y: float, width: int, height: int, colour: tuple[int, int, int]) -> None:
    left, top = int(x) - width // 2, int(y) - height // 2
    frame[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = colour


gym.register("Pixelcopter-v0", entry_point=f"{__name__}:Pixelcopter", max_episode_steps=10_000)
