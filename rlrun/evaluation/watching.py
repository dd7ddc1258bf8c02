"""Show an agent in a window, at the env's own speed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rlrun.envs.normalization import Statistics
from rlrun.envs.recipe import EnvRecipe, Role
from rlrun.errors import RlrunError, UsageError
from rlrun.evaluation.evaluate import acting, steps_of
from rlrun.evaluation.filming import cannot_draw, frames_per_second, has_display


def require_display() -> None:
    """Raise UsageError where no window can be opened."""
    if not has_display():
        raise UsageError("There is no display here, so no window can be opened.", "`rlrun video` films the agent.")


def watch(
    model: BaseAlgorithm,
    recipe: EnvRecipe,
    statistics: Statistics | None,
    seeds: Sequence[int],
    *,
    deterministic: bool,
    told: Callable[[float, int], None],
) -> None:
    """Play an episode for each seed in a window, until it is closed.

    :param told: called with the return and length of every episode that ended
    :raises UsageError: when there is no display, or the env cannot draw itself
    """
    require_display()
    try:
        with acting(model, recipe, Role.WATCH, [seeds], statistics) as venv:
            _play(model, venv, len(seeds), deterministic, told)
    except RlrunError:
        raise
    except Exception as error:  # an env's window may raise anything
        if not _says_that_it_was_closed(error):
            raise cannot_draw(recipe.env.id, error) from error


def _play(
    model: BaseAlgorithm, venv: VecEnv, episodes: int, deterministic: bool, told: Callable[[float, int], None]
) -> None:
    pause = 1 / frames_per_second(venv.get_attr("metadata")[0])
    total, steps, last = 0.0, 0, time.monotonic()
    for rewards, ended, infos in steps_of(model, venv, deterministic):
        total, steps = total + float(rewards[0]), steps + 1
        # Most envs wait by themselves; PyBullet's do not.
        time.sleep(max(0.0, last + pause - time.monotonic()))
        last = time.monotonic()
        if ended[0]:
            record = infos[0].get("episode", {"r": total, "l": steps})
            told(float(record["r"]), int(record["l"]))
            episodes, total, steps = episodes - 1, 0.0, 0
        if episodes == 0 or _was_closed():
            return


def _was_closed() -> bool:
    """Whether somebody has closed the window; Gymnasium's own envs do not look."""
    pygame: Any = sys.modules.get("pygame")
    return bool(pygame and pygame.display.get_init() and pygame.event.peek(pygame.QUIT))


def _says_that_it_was_closed(error: Exception) -> bool:
    return type(error).__module__ == "pybullet" and "connected" in str(error).lower()
