"""What an env draws, as frames of a video: checked, large enough to see, of even size, with figures on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from rlrun.errors import RlrunError

_LARGE_ENOUGH = 400  # pixels of the longer side; smaller frames are enlarged
_MARGIN = 8  # pixels around the figures


@dataclass(frozen=True)
class Figures:
    """What may be written on a frame.

    :ivar episode: from 1
    :ivar step: of the episode, as the agent counts; 0 after the reset
    :ivar total: undiscounted sum of the episode's rewards so far
    """

    episode: int
    step: int
    total: float

    def __str__(self) -> str:
        return f"episode {self.episode}  step {self.step}  return {self.total:.2f}"


def checked(picture: Any, env_id: str) -> np.ndarray:
    """What ``render()`` returned, as an array of bytes (height, width, 3).

    :raises RlrunError: when it is no image
    """
    hint = "Its `render` must return an array (height, width, 3) of bytes for the render mode `rgb_array`."
    if not isinstance(picture, np.ndarray):
        raise RlrunError(f"{env_id} draws no image: its `render` returned {type(picture).__name__}.", hint)
    frame = np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture
    if frame.ndim != 3 or frame.shape[2] not in (3, 4) or 0 in frame.shape or frame.dtype != np.uint8:
        found = f"an array of {picture.dtype} in the shape {picture.shape}"
        raise RlrunError(f"{env_id} draws no image: its `render` returned {found}.", hint)
    return frame[:, :, :3]


def is_flat(frame: np.ndarray, tolerance: int = 0) -> bool:
    """Whether a frame has one colour only, but for ``tolerance`` of 255 levels."""
    return bool(np.ptp(frame.reshape(-1, 3), axis=0).max() <= tolerance)


def as_filmed(frame: np.ndarray) -> np.ndarray:
    """A frame enlarged by a whole factor until it can be seen, its height and width even as H.264 wants them."""
    factor = -(-_LARGE_ENOUGH // max(frame.shape[:2]))
    large = frame.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else frame
    height, width = large.shape[:2]
    return np.pad(large, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def with_figures(frame: np.ndarray, figures: Figures) -> np.ndarray:
    """A copy of a frame with its figures in the upper left corner, white on a dark ground."""
    canvas, text, font = np.ascontiguousarray(frame).copy(), str(figures), cv2.FONT_HERSHEY_SIMPLEX
    width = cv2.getTextSize(text, font, 1.0, 1)[0][0]
    scale = min(0.6, (frame.shape[1] - 2 * _MARGIN) / width)
    (width, height), below = cv2.getTextSize(text, font, scale, 1)
    canvas[: height + below + 2 * _MARGIN, : width + 2 * _MARGIN] //= 4
    cv2.putText(canvas, text, (_MARGIN, _MARGIN + height), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas
