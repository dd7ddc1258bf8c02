"""Is an env correct, repeatable, fast, renderable? Each question is asked of fresh envs, built as training builds them.

One check that fails stops no other, and whatever an env raises, warns or prints becomes a sentence of the report.
"""

from __future__ import annotations

import contextlib
import copy
import io
import multiprocessing
import re
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as check_with_gymnasium
from stable_baselines3.common.env_checker import check_env as check_with_sb3

from rlrun.config.schema import EnvConfig
from rlrun.envs.families import c_output_discarded, family_of
from rlrun.envs.random_play import Env, RandomPlay, Verdict, fresh_env
from rlrun.envs.recipe import EnvRecipe, Role
from rlrun.errors import RlrunError, UsageError
from rlrun.spaces import leaves_of

_COMPARED_STEPS, _RESET_EVERY = 200, 40  # of two envs that should be alike
_PATIENCE = 60.0  # seconds for a fresh process, most of which it spends importing
# What the two checkers complain of although another check judges it better, no algorithm minds, or (the reward) two
# floats need only differ in their last bit.
_SAID_ELSEWHERE = re.compile(
    r"symmetric and normalized|Box observation space m\w+ value is -?infinity|reward was not computed with"
)

_OTHERS = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)  # that SB3 reads and acts in, besides Box


@dataclass(frozen=True)
class Finding:
    """What one check found; the result is ``ok``, ``warning``, ``failed`` or ``skipped``."""

    name: str
    result: str
    detail: str


@dataclass(frozen=True)
class EnvReport:
    """What all checks found of one env."""

    env: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Nothing failed."""
        return all(finding.result != "failed" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"env": self.env, "passed": self.passed, "findings": [asdict(finding) for finding in self.findings]}


def check_env(env: EnvConfig, import_paths: tuple[str, ...]) -> EnvReport:
    """Check an env in every way that training relies on.

    :param import_paths: the user's folders, importable in every process that builds the env
    :raises UsageError: when it cannot be built at all
    """
    recipe, play = EnvRecipe(env, None, 0, {}, import_paths), RandomPlay()
    builds = _finding("builds", partial(_builds, recipe))
    of_env = (_gymnasium, _sb3, _process, _renders, _actions, _repeatable, _reset, play.speed)
    found = _findings({check.__name__.strip("_"): partial(check, recipe) for check in of_env}, after=builds)
    of_play = (play.finite, play.observations, play.rewards, play.episodes)
    found += _findings({check.__name__: check for check in of_play}, after=found[-1])
    return EnvReport(env.id, (builds, *found))


def _findings(checks: Mapping[str, Callable[[], Verdict]], after: Finding) -> list[Finding]:
    if after.result in ("failed", "skipped"):
        return [Finding(name, "skipped", f"See {after.name}.") for name in checks]
    return [_finding(name, check) for name, check in checks.items()]


def _finding(name: str, check: Callable[[], Verdict]) -> Finding:
    with c_output_discarded(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Finding(name, *check())
        except Exception as error:  # the env's code may raise anything; it is the user's to mend
            if name == "builds" and isinstance(error, UsageError):
                raise
            return Finding(name, "failed", _sentence(error))


def _sentence(error: Exception) -> str:
    """What was raised, and where in the user's own code."""
    if isinstance(error, RlrunError):
        return _one_line(str(error))
    said = _one_line(str(error)).rstrip(".")
    what = said if said and isinstance(error, AssertionError) else f"{type(error).__name__}: {said}".rstrip(": ")
    not_theirs = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]), "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(not_theirs) and "site-packages" not in frame.filename:
            return f"{what} ({Path(frame.filename).name}, line {frame.lineno})."
    return f"{what}."


def _one_line(text: str) -> str:
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m|WARN: ", "", text).split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def _builds(recipe: EnvRecipe) -> Verdict:
    with fresh_env(recipe) as env:
        return "ok", f"Observations {_described(env.observation_space)}; actions {_described(env.action_space)}."


def _described(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{key}: {_described(leaf)}' for key, leaf in space.items())})"
    if isinstance(space, spaces.Box):
        return f"Box{space.shape} {space.dtype}"
    return str(space) if isinstance(space, _OTHERS) else type(space).__name__


def _gymnasium(recipe: EnvRecipe) -> Verdict:
    with fresh_env(recipe) as env:
        bare: Env = env.unwrapped
        bare.spec = copy.copy(bare.spec) or EnvSpec("Unregistered-v0")
        bare.spec.nondeterministic = True  # it would compare used envs; `repeatable` compares fresh ones
        return _complaints(partial(check_with_gymnasium, bare, skip_render_check=True, skip_close_check=True))


class _AsTrained(gym.Wrapper[Any, Any, Any, Any]):
    """Hides from SB3's checker the bare env, whose goals it would seek in what the wrappers make of them."""

    @property
    def unwrapped(self) -> Env:
        return self


def _sb3(recipe: EnvRecipe) -> Verdict:
    with fresh_env(recipe) as env:
        for leaf in leaves_of(env.observation_space).values():
            if not isinstance(leaf, (spaces.Box, *_OTHERS)):
                advice = "wrap it (`env.wrappers`), for instance in FlattenObservation, or FlatObsWrapper for MiniGrid"
                return "failed", f"No policy of SB3's reads {_described(leaf)}: {advice}."
        return _complaints(partial(_check_with_sb3, env))


def _check_with_sb3(env: Env) -> None:
    check_with_sb3(_AsTrained(env))
    if isinstance(env.observation_space, spaces.Dict) and hasattr(env.unwrapped, "compute_reward"):
        try:
            check_with_sb3(env.unwrapped, warn=False)
        except Exception as error:
            warnings.warn(f"HER may not work: {error}", stacklevel=2)


def _complaints(check: Callable[[], None]) -> Verdict:
    of_others = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check()
    said = [_one_line(str(w.message)).rstrip(".") for w in caught or () if not issubclass(w.category, of_others)]
    kept = [f"{text}." for text in dict.fromkeys(said) if not _SAID_ELSEWHERE.search(text)]
    return ("warning", " ".join(kept)) if kept else ("ok", "No complaints.")


def _process(recipe: EnvRecipe) -> Verdict:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_play_in_worker, args=(theirs, recipe), daemon=True)
    process.start()
    theirs.close()
    try:
        problem = ours.recv()[0] if ours.poll(_PATIENCE) else f"A fresh process was not ready in {_PATIENCE:.0f} s."
    except EOFError:
        problem = "A fresh process died of it."
    finally:
        process.kill()
        process.join()
    if "there is no env" in problem:
        origin = gym.spec(recipe.env.id.rpartition(":")[2]).entry_point
        problem += f" (Only this process has it registered, as {origin}.)"
    return ("failed", problem) if problem else ("ok", "A worker can build it and send what its steps return.")


def _play_in_worker(connection: Connection, recipe: EnvRecipe) -> None:
    """Send ("", what a reset and a step returned), or (what is wrong,)."""
    try:
        with fresh_env(recipe) as env:
            connection.send(("", env.reset(), env.step(env.action_space.sample())))
    except Exception as error:
        connection.send((_sentence(error),))


def _renders(recipe: EnvRecipe) -> Verdict:
    with fresh_env(recipe) as env:
        modes = f"Its render modes: {', '.join(env.metadata.get('render_modes') or ()) or 'none'}."
    try:
        with contextlib.closing(recipe.make(Role.VIDEO, iter((0,)))) as env:
            env.reset()
            env.step(env.action_space.sample())
            frame: Any = env.render()
    except Exception as error:
        if "takes no `render_mode`" in str(error):
            return "warning", f"No video can be made of it: its constructor takes no `render_mode`. {modes}"
        return "warning", f"No video: {_sentence(error).rstrip('.')}. {modes}"
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        return "warning", f"No video: `rgb_array` gives {type(frame).__name__} and no image. {modes}"
    if not np.ptp(frame, axis=(0, 1)).any():
        return "warning", "The video would be blank: a frame has one colour only."
    return "ok", f"Frames of {frame.shape[1]} x {frame.shape[0]} pixels."


def _actions(recipe: EnvRecipe) -> Verdict:
    with fresh_env(recipe) as env:
        space, what = env.action_space, _described(env.action_space)
    if isinstance(space, _OTHERS):
        return "ok", f"{what}."
    if not isinstance(space, spaces.Box):
        return "failed", f"No algorithm of SB3's acts in {what}: flatten it in a wrapper."
    if not space.is_bounded():
        return "failed", "Some bounds are infinite, so no algorithm knows how far to go: give the Box finite ones."
    if np.all(space.low == -1) and np.all(space.high == 1):
        return "ok", f"{what} within [-1, 1]."
    advice = "`env.wrappers: [{RescaleAction: {min_action: -1, max_action: 1}}]`"
    return "warning", f"From {space.low.min():g} to {space.high.max():g}; PPO and A2C explore around [-1, 1]: {advice}."


def _played(env: Env, seed: int | None = None) -> Iterator[tuple[str, Any]]:
    """What each reset and step gives when the same random actions are taken every time.

    :param seed: of one reset, which begins the only episode; None: the env's own, and resets now and then
    """
    actions = copy.deepcopy(env.action_space)  # which the envs of one class may share
    actions.seed(0)
    resets, ended = 0, True
    for number in range(1, _COMPARED_STEPS + 1):
        if ended or number % _RESET_EVERY == 0:
            if resets and seed is not None:
                return
            resets += 1
            yield f"reset {resets}", copy.deepcopy(env.reset(seed=seed)[0])
        *outcome, _ = env.step(actions.sample())
        yield f"step {number}", copy.deepcopy(outcome)
        ended = any(outcome[2:])


def _parting(one: Iterator[tuple[str, Any]], other: Iterator[tuple[str, Any]]) -> str:
    """The reset or step from which on two envs differ; empty when they do not."""
    for (where, mine), (_, theirs) in zip(one, other, strict=False):
        try:
            np.testing.assert_equal(mine, theirs)
        except AssertionError:
            return where
    return ""


def _repeatable(recipe: EnvRecipe) -> Verdict:
    chosen = recipe.env.seed_every_reset
    every = family_of(recipe.env.id).seed_every_reset if chosen is None else chosen
    with fresh_env(recipe) as one, fresh_env(recipe) as other:
        where = _parting(_played(one), _played(other))
    if not where:
        how = ", every reset seeded" if every else ""
        return "ok", f"Two fresh envs with the same seeds play the same {_COMPARED_STEPS} steps{how}."
    found = f"Two fresh envs with the same seeds differ from {where} on"
    cured = replace(recipe, env=recipe.env.model_copy(update={"seed_every_reset": True}))
    with fresh_env(cured) as one, fresh_env(cured) as other:
        if not every and not _parting(_played(one), _played(other)):
            return "failed", f"{found}, but not when every reset is seeded: set `env.seed_every_reset: true`."
    return "failed", f"{found}: all its random numbers must come from `self.np_random`, seeded in `reset`."


def _reset(recipe: EnvRecipe) -> Verdict:
    with fresh_env(recipe) as used, fresh_env(recipe) as fresh:
        list(_played(used))
        where = _parting(_played(used, seed=0), _played(fresh, seed=0))
    if not where:
        return "ok", "A used env after a seeded reset equals a fresh one."
    return "ok", "A used env after a seeded reset is not quite a fresh one; rlrun builds envs anew where that matters."
