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
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as check_with_gymnasium
from stable_baselines3.common.env_checker import check_env as check_with_sb3
from stable_baselines3.common.preprocessing import is_image_space

from rlrun.config.schema import EnvConfig
from rlrun.envs.families import c_output_discarded, family_of
from rlrun.envs.recipe import EnvRecipe, Role, max_episode_steps
from rlrun.envs.seeding import Stream, endless_seeds
from rlrun.errors import RlrunError, UsageError

_STEPS, _SECONDS = 2_000, 2.0  # of random play, whichever comes first
_REPEATED_STEPS, _RESET_EVERY = 200, 40  # of the comparison of fresh envs
_PATIENCE = 60.0  # seconds for a fresh process, most of which it spends importing
_WIDEST, _MOST_UNLIKE = 10.0, 100.0  # spans of observations that a network takes without normalization
_ACTIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
# Complaints of the two checkers that a check of ours judges, or that no algorithm minds.
_SAID_ELSEWHERE = re.compile(r"symmetric and normalized|Box observation space m\w+ value is -?infinity")

Verdict = tuple[str, str]  # result and detail
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Finding:
    """What one check found.

    :ivar result: ``ok``, ``warning``, ``failed`` or ``skipped``
    """

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
    recipe = EnvRecipe(env, None, 0, {}, import_paths)
    findings = [_finding("builds", _builds, recipe, let_through=UsageError)]
    findings += [_finding(name, check, recipe) for name, check in _OF_ENVS.items()]
    play = _RandomPlay()
    findings.append(_finding("speed", partial(_speed, play), recipe))
    if findings[-1].result == "failed":
        findings += [Finding(name, "skipped", "The env cannot be played.") for name in _OF_PLAY]
    else:
        findings += [_finding(name, check, play) for name, check in _OF_PLAY.items()]
    return EnvReport(env.id, tuple(findings))


def _finding(
    name: str,
    check: Callable[[Subject], Verdict],
    subject: Subject,
    let_through: type[Exception] | tuple[()] = (),
) -> Finding:
    silent = io.StringIO()
    try:
        with (
            c_output_discarded(),
            contextlib.redirect_stdout(silent),
            contextlib.redirect_stderr(silent),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            return Finding(name, *check(subject))
    except let_through:
        raise
    except Exception as error:  # the env's code may raise anything; it is the user's to mend
        return Finding(name, "failed", _sentence(error))


def _sentence(error: Exception) -> str:
    """What was raised, and where in the user's own code."""
    if isinstance(error, RlrunError):
        return str(error)
    said = _one_line(str(error))
    what = said if isinstance(error, AssertionError) and said else f"{type(error).__name__}: {said}".rstrip(": ")
    not_theirs = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]), "<")
    places = [
        f" ({Path(frame.filename).name}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(not_theirs) and "site-packages" not in frame.filename
    ]
    return what + (places[-1] if places else "")


def _one_line(text: str, longest: int = 300) -> str:
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m|\bWARN: ", "", text).split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _fresh(recipe: EnvRecipe) -> gym.Env[Any, Any]:
    """A new env, with the seeds of a run's first training env."""
    return recipe.make(Role.TRAIN, endless_seeds(recipe.seed, Stream.TRAIN_ENVS, 0, 0))


def _builds(recipe: EnvRecipe) -> Verdict:
    with _fresh(recipe) as env:
        return "ok", f"Observations {_described(env.observation_space)}; actions {_described(env.action_space)}."


def _described(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{key}: {_described(leaf)}' for key, leaf in space.items())})"
    return f"Box{space.shape} {space.dtype}" if isinstance(space, spaces.Box) else _one_line(str(space), 60)


def _satisfies_gymnasium(recipe: EnvRecipe) -> Verdict:
    with _fresh(recipe) as env:
        bare: gym.Env[Any, Any] = env.unwrapped
        made_by = {"entry_point": type(bare), "kwargs": dict(recipe.env.kwargs)}
        bare.spec = copy.copy(bare.spec) if bare.spec else EnvSpec("Unregistered-v0", **made_by)
        # Its test of repeatability asks of a used env what nothing here relies on; `repeatable` asks more of fresh ones.
        bare.spec.nondeterministic = True
        return _complaints(partial(check_with_gymnasium, bare, skip_render_check=True))


class _AsTrained(gym.Wrapper[Any, Any, Any, Any]):
    """Hides the bare env from SB3's checker, which would hold it against the wrapped env's spaces."""

    @property
    def unwrapped(self) -> gym.Env[Any, Any]:
        return self


def _satisfies_sb3(recipe: EnvRecipe) -> Verdict:
    with _fresh(recipe) as env:
        return _complaints(partial(check_with_sb3, _AsTrained(env) if recipe.env.wrappers else env.unwrapped))


def _complaints(check: Callable[[], None]) -> Verdict:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check()
    said = dict.fromkeys(
        _one_line(str(warning.message)).rstrip(".")
        for warning in caught
        if not issubclass(warning.category, DeprecationWarning | PendingDeprecationWarning | FutureWarning)
    )
    kept = [text for text in said if not _SAID_ELSEWHERE.search(text)]
    return ("warning", f"{'. '.join(kept)}.") if kept else ("ok", "No complaints.")


def _works_in_a_process(recipe: EnvRecipe) -> Verdict:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_play_in_worker, args=(theirs, recipe), daemon=True)
    process.start()
    theirs.close()
    try:
        problem = ours.recv()[0] if ours.poll(_PATIENCE) else f"It was not ready after {_PATIENCE:.0f} seconds."
    except EOFError:
        process.join()
        problem = f"The process ended with exit code {process.exitcode}."
    finally:
        process.kill()
        process.join()
        ours.close()
    if problem:
        return "failed", _not_registered(recipe.env) if "there is no env" in problem else problem
    return "ok", "A worker can build it, and send what its steps return."


def _play_in_worker(connection: Connection, recipe: EnvRecipe) -> None:
    """Send ("", what some steps returned), or (what is wrong, None)."""
    try:
        with _fresh(recipe) as env:
            env.action_space.seed(0)
            connection.send(("", [env.reset(), env.step(env.action_space.sample())]))
    except Exception as error:
        connection.send((_sentence(error), None))


def _not_registered(env: EnvConfig) -> str:
    """The module that a worker must import, as far as the registry of this process tells."""
    spec = gym.registry.get(env.id.rpartition(":")[2])
    entry = spec.entry_point if spec else None
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "__main__")
    where = "a module of its own" if module == "__main__" else f"perhaps `env.imports: [{module.partition('.')[0]}]`"
    return f"{env.id} is registered in this process only: name what registers it in `env.imports`, {where}."


def _renders(recipe: EnvRecipe) -> Verdict:
    with _fresh(recipe) as env:
        modes = ", ".join(env.metadata.get("render_modes") or ()) or "none"
    try:
        with recipe.make(Role.VIDEO, iter((0,))) as env:
            env.action_space.seed(0)
            env.reset()
            env.step(env.action_space.sample())
            frame: Any = env.render()
    except Exception as error:
        return "warning", f"No video: {_sentence(error).rstrip('.')}. Its render modes: {modes}."
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        return "warning", f"No video: `rgb_array` gives {type(frame).__name__}, no image. Its render modes: {modes}."
    if not np.ptp(frame, axis=(0, 1)).any():
        return "warning", "The video would be blank: its frame has a single colour."
    return "ok", f"Frames of {frame.shape[1]} x {frame.shape[0]} pixels."


def _acts(recipe: EnvRecipe) -> Verdict:
    with _fresh(recipe) as env:
        space = env.action_space
    if not isinstance(space, _ACTIONS):
        return "failed", f"No algorithm of SB3's acts in {_described(space)}: flatten it in a wrapper."
    if not isinstance(space, spaces.Box):
        return "ok", f"{_described(space)}."
    if not space.is_bounded():
        return "failed", "Some bounds are infinite: no algorithm knows how far to go. Give the Box finite ones."
    if np.all(space.low == -1) and np.all(space.high == 1):
        return "ok", "Within [-1, 1]."
    advice = "`env.wrappers: [{RescaleAction: {min_action: -1, max_action: 1}}]`"
    return "warning", f"From {space.low.min():g} to {space.high.max():g}; PPO and A2C explore around [-1, 1]: {advice}."


_Trace = list[tuple[Any, ...]]  # what each reset (one value) and each step (four) gave


def _trace(env: gym.Env[Any, Any], actions: list[Any], seed: int | None = None) -> _Trace:
    """Play the actions, with a reset now and then.

    :param seed: for the first reset, instead of the env's own
    """
    trace: _Trace = []
    for number, action in enumerate(actions):
        if number % _RESET_EVERY == 0 or any(trace[-1][2:]):
            trace.append((copy.deepcopy(env.reset(seed=None if trace else seed)[0]),))
        trace.append(copy.deepcopy(env.step(action)[:4]))
    return trace


def _first_difference(one: _Trace, other: _Trace) -> int | None:
    for index, pair in enumerate(zip(one, other, strict=False)):
        try:
            np.testing.assert_equal(*pair)
        except AssertionError:
            return index
    return None


def _some_actions(env: gym.Env[Any, Any], count: int) -> list[Any]:
    env.action_space.seed(0)
    return [env.action_space.sample() for _ in range(count)]


def _where_it_differs(recipe: EnvRecipe) -> str:
    """Where two fresh envs with the same seeds and actions part; empty when they do not."""
    with _fresh(recipe) as one, _fresh(recipe) as other:
        actions = _some_actions(one, _REPEATED_STEPS)
        trace = _trace(one, actions)
        index = _first_difference(trace, _trace(other, actions))
    if index is None:
        return ""
    resets = sum(len(entry) == 1 for entry in trace[: index + 1])
    return f"reset {resets}" if len(trace[index]) == 1 else f"step {index + 1 - resets} (after reset {resets})"


def _repeats(recipe: EnvRecipe) -> Verdict:
    chosen = recipe.env.seed_every_reset
    every = family_of(recipe.env.id).seed_every_reset if chosen is None else chosen
    where = _where_it_differs(recipe)
    if not where:
        how = " when every reset is seeded, as it is" if every else ""
        return "ok", f"Two fresh envs with the same seeds play the same {_REPEATED_STEPS} steps{how}."
    found = f"Two fresh envs with the same seeds differ from {where} on"
    cured = replace(recipe, env=recipe.env.model_copy(update={"seed_every_reset": True}))
    if not every and not _where_it_differs(cured):
        return "failed", f"{found}, and not when every reset is seeded: set `env.seed_every_reset: true`."
    return "failed", f"{found}: all its random numbers must come from `self.np_random`, seeded in `reset`."


def _resets_fully(recipe: EnvRecipe) -> Verdict:
    with _fresh(recipe) as env:
        actions = _some_actions(env, _RESET_EVERY)
        fresh = _trace(env, actions)
        used = _trace(env, actions, seed=next(endless_seeds(recipe.seed, Stream.TRAIN_ENVS, 0, 0)))
    episode = next((index for index, entry in enumerate(fresh) if index and len(entry) == 1), len(fresh))
    if _first_difference(fresh[:episode], used[:episode]) is None:
        return "ok", "A used env after a seeded reset equals a fresh one."
    return "ok", "A used env after a seeded reset is not quite a fresh one; rlrun builds envs anew where that matters."


@dataclass
class _RandomPlay:
    """What some episodes of random actions showed."""

    rewards: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)  # of the episodes that ended
    time_limit: int | None = None
    bounds: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # lowest and highest, by key; no images
    not_finite: str = ""

    def run(self, env: gym.Env[Any, Any]) -> Iterator[tuple[str, float]]:
        """Play, telling the seconds of each call."""
        env.action_space.seed(0)
        self.time_limit = max_episode_steps(env)
        end, done, steps = time.perf_counter() + _SECONDS, True, 0
        while len(self.rewards) < _STEPS and time.perf_counter() < end:
            action, before = env.action_space.sample(), time.perf_counter()
            if done:
                observation, done, steps = env.reset()[0], False, 0
                yield "reset", time.perf_counter() - before
            else:
                observation, reward, terminated, truncated, _ = env.step(action)
                yield "step", time.perf_counter() - before
                done, steps = bool(terminated or truncated), steps + 1
                self.rewards.append(float(reward))
                self.lengths += [steps] * done
                self._must_be_finite("the reward", np.asarray(reward, dtype=float))
            self._observe(env.observation_space, observation)

    def _observe(self, space: spaces.Space[Any], observation: Any) -> None:
        for key, leaf in space.items() if isinstance(space, spaces.Dict) else (("", space),):
            if isinstance(leaf, spaces.Box) and not is_image_space(leaf):
                values = np.asarray(observation[key] if key else observation, dtype=float)
                self._must_be_finite("observation", values, key)
                low, high = self.bounds.get(key, (values, values))
                self.bounds[key] = np.fmin(low, values), np.fmax(high, values)

    def _must_be_finite(self, what: str, values: np.ndarray, key: str = "") -> None:
        wrong = np.argwhere(~np.isfinite(values))
        if len(wrong) and not self.not_finite:
            place = f"{what} {_component(key, wrong[0])}" if values.ndim else what
            self.not_finite = f"After {len(self.rewards)} random steps {place} is {values[tuple(wrong[0])]}."


def _component(key: str, index: Any) -> str:
    numbers = ", ".join(str(int(number)) for number in index)
    return f"component {numbers}{f' of {key}' if key else ''}"


def _speed(play: _RandomPlay, recipe: EnvRecipe) -> Verdict:
    seconds: dict[str, list[float]] = {"reset": [], "step": []}
    with _fresh(recipe) as env:
        for call, taken in play.run(env):
            seconds[call].append(taken)
    step, reset = float(np.mean(seconds["step"])), float(np.mean(seconds["reset"]))
    return "ok", f"{step * 1e6:,.0f} µs a step, {1 / step:,.0f} steps/s in one env; {reset * 1e3:,.2g} ms a reset."


def _is_finite(play: _RandomPlay) -> Verdict:
    return ("failed", play.not_finite) if play.not_finite else ("ok", f"In {len(play.rewards):,} random steps.")


def _is_scaled(play: _RandomPlay) -> Verdict:
    spans = {key: high - low for key, (low, high) in play.bounds.items()}
    moving = [
        (float(span[tuple(index)]), _component(key, index))
        for key, span in spans.items()
        for index in np.argwhere(span)
    ]
    if play.not_finite or not moving:
        return "skipped", "Nothing to measure: no component that is a number changes."
    widest, narrowest = max(moving), min(moving)
    found = f"{widest[1]} spans {widest[0]:.2g}"
    if narrowest[0] < widest[0]:
        found += f", {narrowest[1]} {narrowest[0]:.2g}"
    if widest[0] > _WIDEST or widest[0] > _MOST_UNLIKE * narrowest[0]:
        return "warning", f"Use `normalize: true`: {found}."
    return "ok", f"{found[0].upper()}{found[1:]}."


def _rewards(play: _RandomPlay) -> Verdict:
    low, high = min(play.rewards), max(play.rewards)
    return (
        "ok",
        f"Always {low:g}." if low == high else f"From {low:.4g} to {high:.4g}, {np.mean(play.rewards):.4g} on average.",
    )


def _episodes_end(play: _RandomPlay) -> Verdict:
    limit = f"At most {play.time_limit:,} steps" if play.time_limit else ""
    if play.lengths:
        ended = f"random ones end after {min(play.lengths):,} to {max(play.lengths):,} steps"
        return "ok", f"{limit}; {ended}." if limit else f"{ended.capitalize()}; there is no time limit."
    if limit:
        return "ok", f"{limit}; none ended in {len(play.rewards):,} random ones."
    advice = "`env.wrappers: [{TimeLimit: {max_episode_steps: 1000}}]`"
    return "warning", f"No episode ended in {len(play.rewards):,} random steps: set a limit, {advice}."


_OF_ENVS: dict[str, Callable[[EnvRecipe], Verdict]] = {
    "gymnasium": _satisfies_gymnasium,
    "sb3": _satisfies_sb3,
    "process": _works_in_a_process,
    "renders": _renders,
    "actions": _acts,
    "repeatable": _repeats,
    "reset": _resets_fully,
}
_OF_PLAY: dict[str, Callable[[_RandomPlay], Verdict]] = {
    "finite": _is_finite,
    "observations": _is_scaled,
    "rewards": _rewards,
    "episodes": _episodes_end,
}
