"""Film an agent: the same env, actions, masks and normalization as in an evaluation, a frame for every step."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm

from rlrun.envs.families import family_of
from rlrun.envs.normalization import Statistics
from rlrun.envs.recipe import EnvRecipe, Role
from rlrun.envs.recording import Recorder
from rlrun.errors import RlrunError, UsageError
from rlrun.evaluation.encoding import Encoder, check_film, ffmpeg, write_gif, written_whole
from rlrun.evaluation.evaluate import acting, steps_of
from rlrun.evaluation.pictures import Figures, as_filmed, checked, is_flat, with_figures

FOLDER = "videos"  # of a run directory
_FASTEST_FPS = 240
_USUAL_FPS = 30.0  # of an env that does not say
_LONG_ENOUGH, _MANY_EPISODES = 5.0, 10  # seconds of a film whose episodes were not counted, and the most of these


@dataclass(frozen=True)
class Filming:
    """How to film.

    :ivar episodes: how many; None: as many as fill 5 seconds, at most 10
    :ivar length: the agent's steps in all after which to end, also in the middle of an episode
    :ivar fps: frames a second; None: the env's ``render_fps``, else 30
    :ivar gif: write a GIF too, beside the MP4
    :ivar overlay: draw episode, step and return on the frames
    """

    episodes: int | None = None
    length: int = 10_000
    fps: float | None = None
    gif: bool = False
    overlay: bool = False

    @property
    def most_episodes(self) -> int:
        """How many there are at most."""
        return _MANY_EPISODES if self.episodes is None else self.episodes

    def __post_init__(self) -> None:
        for name in ("episodes", "length", "fps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name} must be above 0, not {value}.", f"Give another, or leave {name} out.")
        if self.fps is not None and self.fps > _FASTEST_FPS:
            raise UsageError(f"fps must be at most {_FASTEST_FPS}, not {self.fps:g}.", "No screen shows more.")


@dataclass(frozen=True)
class Film:
    """What was filmed.

    :ivar gif: the GIF beside the MP4, if one was asked for
    :ivar width: of the frames in pixels, like ``height``
    :ivar returns: of the whole episodes, like ``lengths``, which are in the env's own steps
    :ivar is_cut: the last episode goes on after the film
    """

    path: Path
    gif: Path | None
    frames: int
    fps: float
    width: int
    height: int
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    is_cut: bool


def film(
    model: BaseAlgorithm,
    recipe: EnvRecipe,
    statistics: Statistics | None,
    seeds: Sequence[int],
    path: Path,
    settings: Filming,
    *,
    deterministic: bool,
    should_stop: Callable[[], None] | None = None,
) -> Film:
    """Write a video of an agent, whole or not at all, and decode it again to be sure.

    :param seeds: of the episodes' resets
    :param path: of the MP4
    :param should_stop: called before every step; may raise
    :raises UsageError: when the env cannot be filmed at all
    :raises RlrunError: when filming or encoding fails, or the video is not what was filmed
    """
    ffmpeg()
    with written_whole(path) as temporary, drawing_in_memory():
        reel = _Reel(recipe.env.id, temporary(".mp4"), settings)
        try:
            with acting(model, recipe, Role.VIDEO, [seeds], statistics, partial(_Camera, reel=reel)) as venv:
                for _ in steps_of(model, venv, deterministic, should_stop):
                    if reel.is_full:
                        break
            encoder = reel.finish()
        finally:
            reel.close()
        check_film(encoder.path, encoder.size, encoder.frames)
        if settings.gif:
            write_gif(encoder.path, temporary(".gif"), encoder.fps)
            check_film(temporary(".gif"), encoder.size, None)
    return Film(
        path=path,
        gif=path.with_suffix(".gif") if settings.gif else None,
        frames=encoder.frames,
        fps=encoder.fps,
        width=encoder.size[1],
        height=encoder.size[0],
        returns=tuple(total for total, _ in reel.episodes),
        lengths=tuple(length for _, length in reel.episodes),
        is_cut=reel.is_within_episode,
    )


class _Reel:
    """Takes pictures until enough was filmed.

    :param path: of the MP4
    :ivar episodes: return and length of each whole one
    :ivar is_within_episode: the last picture is not the last of its episode
    """

    def __init__(self, env_id: str, path: Path, settings: Filming) -> None:
        self._env_id, self._path, self._settings = env_id, path, settings
        self._encoder: Encoder | None = None
        self._is_flat = True
        self._steps = 0
        self._has_enough = False
        self.episodes: list[tuple[float, int]] = []
        self.is_within_episode = False

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be filmed."""
        return self._has_enough or self._steps >= self._settings.length

    def begin_episode(self, picture: Any, fps: float) -> None:
        """Take the picture after a reset."""
        self._take(picture, Figures(len(self.episodes) + 1, 0, 0.0), fps)

    def step(self, picture: Any, step: int, total: float, fps: float) -> None:
        """Take the picture after a step.

        :param total: the episode's return so far
        """
        self._take(picture, Figures(len(self.episodes) + 1, step, total), fps)
        self._steps += 1
        self.is_within_episode = True

    def end_episode(self, total: float, length: int) -> None:
        """Note how the episode ended."""
        self.episodes.append((total, length))
        self.is_within_episode = False
        self._has_enough = len(self.episodes) == self._settings.most_episodes
        if self._settings.episodes is None and self._encoder is not None:
            self._has_enough |= self._encoder.frames / self._encoder.fps >= _LONG_ENOUGH

    def _take(self, picture: Any, figures: Figures, fps: float) -> None:
        frame = checked(picture, self._env_id)
        self._is_flat = self._is_flat and is_flat(frame)
        frame = as_filmed(frame)
        if self._encoder is None:
            self._encoder = Encoder(self._path, frame.shape[:2], self._settings.fps or fps)
        self._encoder.add(with_figures(frame, figures) if self._settings.overlay else frame)

    def finish(self) -> Encoder:
        """Wait until the file is whole.

        :raises RlrunError: when nothing could be seen on it
        """
        if self._is_flat or self._encoder is None:
            message = f"{self._env_id} drew nothing but one flat colour."
            raise RlrunError(message, "Look at the env's `render`; no video was written.")
        self._encoder.finish()
        return self._encoder

    def close(self) -> None:
        """End ffmpeg, wherever it is."""
        if self._encoder is not None:
            self._encoder.close()


class _Camera(gym.Wrapper[Any, Any, Any, Any]):
    """Has the env draw itself after each reset and step: the VecEnv around it would show no episode's last frame."""

    def __init__(self, env: gym.Env[Any, Any], reel: _Reel) -> None:
        super().__init__(env)
        self._reel, self._recorder, self._step = reel, _recorder(env), 0
        self._fps = frames_per_second(env.metadata)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset, and begin an episode of the film unless it is full."""
        result = self.env.reset(**kwargs)
        self._step = 0
        if not self._reel.is_full:
            self._reel.begin_episode(self._picture(), self._fps)
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and film what came of it."""
        result = self.env.step(action)
        self._step += 1
        rewards = self._recorder.rewards
        self._reel.step(self._picture(), self._step, sum(rewards), self._fps)
        if result[2] or result[3]:
            self._reel.end_episode(round(sum(rewards), 6), len(rewards))
        return result

    def _picture(self) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.env.render()
        except Exception as error:  # an env's render may raise anything
            name = self.env.spec.id if self.env.spec else type(self.env.unwrapped).__name__
            raise cannot_draw(name, error) from error


def cannot_draw(env_id: str, error: Exception) -> RlrunError:
    """The sentence for an env that fails to draw itself, and what its family needs for it."""
    said = " ".join(str(error).split())[:200].rstrip(".")
    hint = family_of(env_id).drawing or "Look at the env's `render`."
    return RlrunError(f"{env_id} cannot draw itself: {type(error).__name__}: {said}.", hint)


def _recorder(env: gym.Env[Any, Any]) -> Recorder:
    """The part of an env that knows its own rewards, before any wrapper changes them."""
    layer: Any = env
    while not isinstance(layer, Recorder):
        layer = layer.env
    return layer


def frames_per_second(metadata: Mapping[str, Any]) -> float:
    """How many frames a second an env draws, by its metadata."""
    fps = metadata.get("render_fps")
    return float(fps) if isinstance(fps, int | float) and fps > 0 else _USUAL_FPS


def has_display() -> bool:
    """Whether a window can be opened."""
    return not sys.platform.startswith("linux") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))


@contextlib.contextmanager
def drawing_in_memory() -> Iterator[None]:
    """Let SDL draw without a screen, and MuJoCo without a display; what the user has set stays as it is."""
    settings = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    if "mujoco" in sys.modules and not has_display():
        found = [name for name in ("EGL", "OSMesa") if ctypes.util.find_library(name)]
        settings |= {"MUJOCO_GL": found[0].lower()} if found else {}
    ours = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
