"""What looks wrong with a run: rules over what it logged, each with the number that it saw and a setting to try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rlrun.config.schema import Config
from rlrun.errors import RlrunError
from rlrun.evidence.scores import read_columns, read_table
from rlrun.runs.directory import RunDirectory
from rlrun.runs.trust import trusted_import_paths
from rlrun.words import number

_FEW = 20  # episodes below which nothing can be said of a trend
_EARLY, _DONE = 0.3, 0.95  # parts of the budget
_P_VALUE = 0.01
_SIGMAS = 3.0
_WITH_REPLAY = ("dqn", "ddpg", "sac", "td3", "tqc")
_HINDSIGHT = "--set hyperparameters.replay_buffer_class=HerReplayBuffer"
_JUMP = 1.0  # a KL divergence; healthy runs stay below 0.2
_WIDEST, _MOST_UNLIKE = 100.0, 1_000.0  # spans of observations that a network can take as they are


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong.

    :ivar rule: its name
    :ivar value: the number it rests on
    :ivar sentence: what was seen
    :ivar advice: what to try, as options of ``rlrun train``; may be empty
    """

    rule: str
    value: float
    sentence: str
    advice: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"rule": self.rule, "value": self.value, "sentence": self.sentence, "advice": self.advice}


@dataclass(frozen=True)
class Logs:
    """What a run logged.

    :ivar metrics: columns of metrics.csv, NaN where a row has nothing, infinite where it has no finite number
    """

    path: Path
    config: Config
    metrics: dict[str, np.ndarray]

    @classmethod
    def read(cls, run: RunDirectory) -> Logs:
        """The logs of a run.

        :raises ConfigError: when its config is damaged
        """
        return cls(run.path, run.config(), read_table(run.path / "metrics.csv"))

    @cached_property
    def episodes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Timesteps, returns and lengths of the training episodes."""
        found = read_columns(self.path / "episodes.csv", "timesteps", "return", "length")
        return (found[0], found[1], found[2]) if found is not None else (np.empty(0), np.empty(0), np.empty(0))

    @cached_property
    def evaluations(self) -> list[tuple[float, np.ndarray]]:
        """Timesteps of each evaluation in training, and its episodes' returns."""
        found = read_columns(self.path / "evaluations.csv", "timesteps", "return")
        return [] if found is None else [(step, found[1][found[0] == step]) for step in np.unique(found[0]).tolist()]

    def logged(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Timesteps and values of one metric; empty when it was never logged."""
        values = self.metrics.get(name, np.empty(0))
        steps = self.metrics.get("timesteps", np.empty(0))
        there = np.isfinite(values)
        return steps[there] if len(values) else values, values[there]

    @cached_property
    def progress(self) -> float:
        """The part of the budget that is done."""
        if self.config.budget_unit == "episodes":
            return len(self.episodes[0]) / self.config.budget
        steps = self.metrics.get("timesteps", np.empty(0))
        done = max([*steps[-1:].tolist(), *self.episodes[0][-1:].tolist()], default=0.0)
        return float(done / self.config.budget)

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns of the first and of the last tenth of the training episodes (at least ten); empty for few."""
        returns = self.episodes[1]
        if len(returns) < _FEW:
            return np.empty(0), np.empty(0)
        count = max(10, len(returns) // 10)
        return returns[:count], returns[-count:]

    @cached_property
    def has_improved(self) -> bool | None:
        """Whether the last training episodes return more than the first; None when it is too early to tell."""
        first, last = self.ends
        if not len(first) or self.progress < _EARLY:
            return None
        if np.all(np.concatenate([first, last]) == first[0]):
            return False
        from scipy.stats import mannwhitneyu

        return bool(mannwhitneyu(last, first, alternative="greater").pvalue < _P_VALUE)

    def hyperparameter(self, name: str, otherwise: float) -> float:
        """A number of the config; ``otherwise`` where it is left to SB3 or is a schedule."""
        value = self.config.hyperparameters.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def why(run: RunDirectory, *, play: bool = False) -> list[Finding]:
    """What looks wrong with a run, the likeliest cause first; empty for a healthy one.

    :param play: build its env too, to see the scale of its observations
    """
    logs = Logs.read(run)
    found = [finding for rule in _RULES if (finding := rule(logs)) is not None]
    if play and (finding := _observations(logs, run)) is not None:
        found.insert(0, finding)
    return found


# -- rules


def _not_a_number(logs: Logs) -> Finding | None:
    for name, values in logs.metrics.items():
        if name.startswith("train/") and np.isinf(values).any():
            step = logs.metrics["timesteps"][np.isinf(values)][0]
            said = f"{name} was not finite at {step:,.0f} timesteps."
            return Finding("not_finite", float(step), said, _slower(logs))
    return None


def _entropy(logs: Logs) -> Finding | None:
    """Discrete actions only: the entropy of a Gaussian has no zero."""
    steps, losses = logs.logged("train/entropy_loss")
    if len(losses) < 5 or "train/std" in logs.metrics or losses[0] >= 0:
        return None
    share = losses / losses[0]
    low = np.flatnonzero(share < 0.05)
    if not len(low) or steps[low[0]] > 0.5 * (logs.config.total_timesteps or steps[-1]):
        return None
    at = float(steps[low[0]])
    when, returns, _ = logs.episodes
    before = returns[when <= at][-100:]
    has_fallen = len(before) > 0 and len(logs.ends[1]) > 0 and logs.ends[1].mean() < before.mean() - before.std()
    if logs.has_improved is not False and not has_fallen:
        return None
    said = f"The entropy of the actions fell to {share[low[0]]:.0%} of its first value by {at:,.0f} timesteps"
    more = max(0.01, 3 * logs.hyperparameter("ent_coef", 0.0))
    return Finding("entropy", float(share[low[0]]), f"{said}, before much was learnt.", _set("ent_coef", more))


def _time_limit(logs: Logs) -> Finding | None:
    lengths = logs.episodes[2][-100:]
    if len(lengths) < _FEW or logs.has_improved is not False:
        return None
    longest = logs.episodes[2].max()
    share = float(np.mean(lengths == longest))
    if share < 0.95 or longest == 1:
        return None
    said = f"{share:.0%} of the last {len(lengths)} episodes end after {longest:,.0f} steps, by the time limit"
    return Finding("time_limit", share, f"{said}, and return no more than the first ones.", _explore(logs))


def _never_learnt(logs: Logs) -> Finding | None:
    if logs.has_improved is not False:
        return None
    first, last = (number(float(returns.mean())) for returns in logs.ends)
    said = f"The last training episodes return {last} on average and the first ones {first}: nothing was learnt."
    return Finding("never_learnt", float(logs.ends[1].mean()), said, _longer(logs))


def _never_successful(logs: Logs) -> Finding | None:
    found = read_columns(logs.path / "episodes.csv", "timesteps", "success")
    if found is None or len(found[1]) < 100 or found[1].any() or logs.progress < _EARLY:
        return None
    said = f"None of {len(found[1]):,} training episodes was a success."
    settings = logs.config.hyperparameters
    has_goals = settings.get("policy") == "MultiInputPolicy" and logs.config.algo in (
        "dqn",
        "ddpg",
        "sac",
        "td3",
        "tqc",
    )
    if has_goals and "replay_buffer_class" not in settings:
        return Finding("never_successful", float(len(found[1])), said, _HINDSIGHT)
    return Finding("never_successful", float(len(found[1])), said, _longer(logs))


def _luck(logs: Logs) -> Finding | None:
    """The best evaluation against the two before and the two after it."""
    means = np.array([returns.mean() for _, returns in logs.evaluations])
    if len(means) < 8:
        return None
    best = int(means.argmax())
    around = [i for i in range(best - 2, best + 3) if i != best and 0 <= i < len(means)]
    if len(around) < 4:
        return None
    errors = [logs.evaluations[i][1].std() / max(1, len(logs.evaluations[i][1])) ** 0.5 for i in (best, *around)]
    sigma = max(float(means[around].std(ddof=1)), float(np.mean(errors)))
    above = (means[best] - means[around].max()) / sigma if sigma else 0.0
    if above < _SIGMAS:
        return None
    step = logs.evaluations[best][0]
    said = f"The best evaluation, {number(means[best])} at {step:,.0f} timesteps, is {above:.1f} sigma above those"
    episodes = 5 * logs.config.evaluation.episodes
    return Finding(
        "luck",
        float(above),
        f"{said} around it: likely luck and no better agent.",
        f"--set evaluation.episodes={episodes}",
    )


def _forgotten(logs: Logs) -> Finding | None:
    means = np.array([returns.mean() for _, returns in logs.evaluations])
    if len(means) < 4:
        return None
    best, last = int(means.argmax()), logs.evaluations[-1][1]
    lost, gained = means[best] - means[-1], means[best] - means[0]
    error = np.hypot(*(returns.std() / len(returns) ** 0.5 for returns in (logs.evaluations[best][1], last)))
    if gained <= 0 or lost < 0.5 * gained or lost < _SIGMAS * max(error, 1e-12):
        return None
    step = logs.evaluations[best][0]
    said = f"The last evaluation is {number(means[-1])}, and {number(means[best])} was reached at {step:,.0f} timesteps"
    return Finding("forgotten", float(lost), f"{said}: what was learnt was lost again.", _slower(logs))


def _jump(logs: Logs) -> Finding | None:
    steps, kl = logs.logged("train/approx_kl")
    if not len(kl) or kl.max() <= _JUMP:
        return None
    worst = int(kl.argmax())
    said = f"An update at {steps[worst]:,.0f} changed the policy altogether: a KL divergence of {kl[worst]:.3g}."
    return Finding("jump", float(kl[worst]), said, _slower(logs))


def _steps_too_large(logs: Logs) -> Finding | None:
    kl, clipped = (logs.logged(f"train/{name}")[1] for name in ("approx_kl", "clip_fraction"))
    if len(kl) < 5:
        return None
    typical = float(np.median(kl[len(kl) // 2 :]))
    share = float(np.median(clipped[len(clipped) // 2 :])) if len(clipped) else 0.0
    if typical < 0.1 and share < 0.5:
        return None
    said = f"Policy updates are large: a KL divergence of {typical:.2g}, with {share:.0%} of the samples clipped."
    return Finding("steps_too_large", typical, said, _set("target_kl", 0.03))


def _critic_grows(logs: Logs) -> Finding | None:
    for name in ("train/value_loss", "train/critic_loss", "train/loss"):
        losses = logs.logged(name)[1]
        losses = losses[np.isfinite(losses)]
        if len(losses) < 12 or (name == "train/loss" and "train/value_loss" in logs.metrics):
            continue
        early, late = (float(np.median(np.abs(part))) for part in np.array_split(losses, 4)[::3])
        if logs.has_improved is False and early > 0 and late > 1_000 * early:
            said = f"{name} grew {late / early:,.0f} times, from {early:.3g} to {late:.3g}."
            return Finding("critic_grows", late / early, said, "--set normalize.norm_reward=true")
    return None


def _critic_explains_nothing(logs: Logs) -> Finding | None:
    values = logs.logged("train/explained_variance")[1]
    values = values[len(values) // 2 :]
    if len(values) < 5 or logs.has_improved is not False or np.median(values) > 0:
        return None
    typical = float(np.median(values))
    said = f"The value function explains nothing of the returns: an explained variance of {typical:.2f}."
    return Finding("critic_explains_nothing", typical, said, "--set normalize=true")


def _still_exploring(logs: Logs) -> Finding | None:
    rates = logs.logged("rollout/exploration_rate")[1]
    if not len(rates) or rates[-1] <= 0.2 or logs.progress < _DONE:
        return None
    said = f"{rates[-1]:.0%} of the actions are still random at the end."
    never_ends = logs.hyperparameter("exploration_final_eps", 0.0) > 0.2
    advice = _set("exploration_final_eps", 0.05) if never_ends else _set("exploration_fraction", 0.2)
    if logs.config.algo == "q_learning":
        advice = _longer(logs)
    return Finding("still_exploring", float(rates[-1]), said, advice)


def _starts_late(logs: Logs) -> Finding | None:
    starts, budget = logs.hyperparameter("learning_starts", 0.0), logs.config.budget
    if starts < 0.5 * budget:
        return None
    said = f"Learning starts after {starts:,.0f} of {budget:,} timesteps."
    return Finding("starts_late", starts / budget, said, _set("learning_starts", budget // 20))


def _evaluated_worse(logs: Logs) -> Finding | None:
    """The agent that takes its most likely action against the one that was trained."""
    if not logs.evaluations or not len(logs.ends[1]) or not logs.config.evaluation.deterministic:
        return None
    first, trained = logs.ends
    evaluated = logs.evaluations[-1][1]
    gained, lost = trained.mean() - first.mean(), trained.mean() - evaluated.mean()
    error = np.hypot(trained.std() / len(trained) ** 0.5, evaluated.std() / len(evaluated) ** 0.5)
    if gained <= 0 or lost < 0.5 * gained or lost < _SIGMAS * max(error, 1e-12):
        return None
    said = f"Training episodes return {number(trained.mean())} at the end and evaluations {number(evaluated.mean())}"
    return Finding(
        "evaluated_worse",
        float(lost),
        f"{said}: the most likely action does worse than one that is drawn.",
        "--set evaluation.deterministic=false",
    )


_RULES: tuple[Callable[[Logs], Finding | None], ...] = (
    _not_a_number,
    _starts_late,
    _never_successful,
    _jump,
    _entropy,
    _time_limit,
    _steps_too_large,
    _critic_grows,
    _critic_explains_nothing,
    _never_learnt,
    _still_exploring,
    _evaluated_worse,
    _forgotten,
    _luck,
)


def _observations(logs: Logs, run: RunDirectory) -> Finding | None:
    """Whether the components of the observations are of one size, where nothing makes them so."""
    if logs.config.normalize is not None and logs.config.normalize.norm_obs:
        return None
    from rlrun.config.classes import make_importable
    from rlrun.envs.random_play import RandomPlay
    from rlrun.envs.recipe import EnvRecipe

    play = RandomPlay()
    try:
        paths = trusted_import_paths(run, logs.config, trust=False, say=lambda words: None)
        make_importable(paths)
        play.speed(EnvRecipe.from_config(logs.config, tuple(paths)))
    except RlrunError:  # the env is gone, or nothing of it is to be imported without being asked for
        return None
    spans = [span for span, _ in play.spans() if span > 0 and np.isfinite(span)]
    if not spans or (max(spans) <= _WIDEST and max(spans) <= _MOST_UNLIKE * min(spans)):
        return None
    said = f"Observations span from {min(spans):.2g} to {max(spans):.2g}, by their component, and are not normalized."
    return Finding("observations", max(spans), said, "--set normalize.norm_obs=true --set normalize.norm_reward=false")


# -- advice


def _set(name: str, value: float) -> str:
    return f"--set hyperparameters.{name}={value:g}"


def _slower(logs: Logs) -> str:
    rate = logs.hyperparameter("learning_rate", 0.0)
    return _set("learning_rate", rate / 3) if rate else "--set hyperparameters.learning_rate=lin_1e-4"


def _explore(logs: Logs) -> str:
    """Options that make a kind of algorithm try more."""
    algo = logs.config.algo
    if algo in ("dqn", "qrdqn"):
        return _set("exploration_fraction", 0.5)
    if algo in ("a2c", "ppo", "recurrent_ppo", "maskable_ppo"):
        return _set("ent_coef", max(0.01, 3 * logs.hyperparameter("ent_coef", 0.0)))
    return _longer(logs)


def _longer(logs: Logs) -> str:
    """Options for ten times the budget."""
    budget = 10 * logs.config.budget
    return f"--timesteps {budget}" if logs.config.budget_unit == "timesteps" else f"--set total_episodes={budget}"
