"""From a config's ``hyperparameters`` to keyword arguments, checked against the real signatures.

Nothing about SB3's keywords is restated: names, types and defaults are read from the class. The same walk checks
nested keywords: ``x_kwargs`` against the class in ``x_class`` (or ``x``), whatever ``x`` is.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlrun.algorithms.registry import Algorithm, algorithms
from rlrun.algorithms.schedules import is_schedule_form, parse_schedule
from rlrun.config.classes import load_class
from rlrun.config.signatures import accepts_schedule, allows_none, convert, expected_class, keyword_parameters
from rlrun.config.yaml import KeyPath, core_scalar
from rlrun.errors import UsageError, did_you_mean, shown

# Keywords that rlrun passes itself, and where the user sets them instead.
SET_ELSEWHERE = {
    "env": "Use the section `env`.",
    "seed": "Use the top-level key `seed`.",
    "device": "Use the top-level key `device`.",
    "verbose": "rlrun prints progress itself.",
    "tensorboard_log": "Use the top-level key `trackers`.",
    "_init_setup_model": "rlrun needs the model set up.",
    "observation_space": "The env gives it.",
    "action_space": "The env gives it.",
    "lr_schedule": "Use `hyperparameters.learning_rate`.",
    "lr": "Use `hyperparameters.learning_rate`.",
    "params": "The policy gives them.",
}
# What the algorithm passes on to the nested class by itself.
PASSED_ON = {
    "policy": {"use_sde"},
    "replay_buffer": {"buffer_size", "device", "n_envs", "optimize_memory_usage"},
    "rollout_buffer": {"buffer_size", "device", "n_envs", "gamma", "gae_lambda"},
}
BOUNDS = {
    "gamma": (0, 1),
    "gae_lambda": (0, 1),
    "tau": (0, 1),
    "exploration_fraction": (0, 1),
    "exploration_initial_eps": (0, 1),
    "exploration_final_eps": (0, 1),
    **dict.fromkeys(
        ("n_steps", "batch_size", "n_epochs", "buffer_size", "n_delta", "stats_window_size"), (1, math.inf)
    ),
    **dict.fromkeys(("target_update_interval", "policy_delay", "n_sampled_goal", "train_freq"), (1, math.inf)),
    **dict.fromkeys(("n_eval_episodes", "n_quantiles", "n_critics"), (1, math.inf)),
    **dict.fromkeys(("learning_rate", "learning_starts", "clip_range", "max_grad_norm", "sigma"), (0, math.inf)),
    **dict.fromkeys(("exploration_decay", "vf_coef"), (0, math.inf)),
    "gradient_steps": (-1, math.inf),
    "prioritized_replay_alpha": (0, math.inf),
    "prioritized_replay_eps": (1e-12, math.inf),
    "prioritized_replay_beta0": (0, 1),
    "prioritized_replay_beta_iters": (1, math.inf),
    **dict.fromkeys(("target_policy_noise", "target_noise_clip", "target_kl", "cg_damping"), (0, math.inf)),
}
ACTIVATIONS = (
    *("ReLU", "Tanh", "ELU", "GELU", "SELU", "SiLU", "Mish", "LeakyReLU"),
    *("Sigmoid", "Softplus", "Softsign", "Hardtanh", "Identity"),
)
OPTIMIZERS = ("Adam", "AdamW", "SGD", "RMSprop", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta")
# SAC's and its kin's words in place of a number, as in `auto_0.1`.
_AUTO = {"ent_coef": r"auto(_\d|$)", "target_entropy": r"auto$"}
CHOICES = {
    "goal_selection_strategy": ("future", "final", "episode"),
    "returns": ("reward_to_go", "episode"),
}


@dataclass(frozen=True)
class Finding:
    """Something wrong with one keyword; ``path`` begins at the config's top."""

    path: KeyPath
    message: str
    hint: str = ""


@dataclass
class _Walk:
    """One pass over the keywords: collects findings instead of stopping at the first."""

    action_space: Any = None
    findings: list[Finding] = field(default_factory=list)

    def fail(self, path: KeyPath, message: str, hint: str = "") -> None:
        self.findings.append(Finding(path, message, hint))


def resolve(
    algorithm: Algorithm, hyperparameters: Mapping[str, Any], action_space: Any = None
) -> tuple[dict[str, Any], list[Finding]]:
    """The keyword arguments for the algorithm's class.

    :param action_space: the env's; action noise needs its shape, and without it gets none
    :return: the keyword arguments, and every problem found; with any, the arguments are not complete
    """
    walk = _Walk(action_space)
    cls = algorithm.load()
    kwargs = _keywords(walk, cls, hyperparameters, ("hyperparameters",), passed_on=set(), algorithm=algorithm)
    return kwargs, walk.findings


def _keywords(
    walk: _Walk,
    cls: type,
    given: Mapping[str, Any],
    path: KeyPath,
    passed_on: set[str],
    algorithm: Algorithm | None = None,
) -> dict[str, Any]:
    parameters = keyword_parameters(cls)
    result: dict[str, Any] = {}
    for name, value in given.items():
        here = (*path, name)
        if name in passed_on or (name in SET_ELSEWHERE and name in parameters):
            walk.fail(
                here, f'"{name}" is not set here.', SET_ELSEWHERE.get(name, "The algorithm passes it on by itself.")
            )
        elif name not in parameters:
            walk.fail(here, f'{cls.__name__} has no keyword "{name}".', _unknown_hint(name, parameters, algorithm))
        elif name == "policy" and algorithm is not None:
            result[name] = _policy(walk, cls, value, here)
        elif name == "action_noise":
            result[name] = _action_noise(walk, value, here)
        elif not name.endswith("_kwargs"):
            result[name] = _value(walk, parameters[name], value, here)
    for name in [name for name in given if name.endswith("_kwargs") and name in parameters]:
        result[name] = _nested(walk, cls, parameters, name, given, result, (*path, name))
    return result


def _unknown_hint(name: str, parameters: Mapping[str, Any], algorithm: Algorithm | None) -> str:
    own = [parameter for parameter in parameters if parameter not in SET_ELSEWHERE]
    if algorithm is None:
        return did_you_mean(name, own) or f"It takes: {', '.join(own) or 'none'}."
    owners = [a.name for a in algorithms().values() if a.name != algorithm.name and _has_keyword(a, name)]
    if owners:
        return f"It is a keyword of {', '.join(owners)}."
    return did_you_mean(name, own) or "`rlrun schema` lists the keywords."


def _has_keyword(algorithm: Algorithm, name: str) -> bool:
    try:
        return name in keyword_parameters(algorithm.load())
    except ImportError:  # a plug-in whose package is broken has no say here
        return False


def policy_class(cls: Any, value: Any) -> type:
    """The policy class behind an alias (``MlpPolicy``) or ``module:Class``.

    :raises UsageError: when there is none
    """
    from stable_baselines3.common.policies import BasePolicy

    if not isinstance(value, str):
        raise UsageError(f"the policy must be a name, not {shown(value)}.", f"Known: {', '.join(cls.policy_aliases)}.")
    return load_class(value, BasePolicy, cls.policy_aliases, "policy")


def _policy(walk: _Walk, cls: Any, value: Any, path: KeyPath) -> Any:
    try:
        found = policy_class(cls, value)
    except UsageError as error:
        walk.fail(path, error.message, error.hint)
        return None
    # SB3 compares the alias itself in its own checks, so an alias stays one.
    return value if value in cls.policy_aliases else found


def _nested(
    walk: _Walk,
    cls: Any,
    parameters: Mapping[str, inspect.Parameter],
    name: str,
    given: Mapping[str, Any],
    resolved: Mapping[str, Any],
    path: KeyPath,
) -> Any:
    value = given[name]
    if value is None:
        return None
    if not isinstance(value, dict):
        walk.fail(path, f"must be a section (keys and values), not {value!r}.")
        return None
    stem = name.removesuffix("_kwargs")
    slot = f"{stem}_class" if f"{stem}_class" in parameters else stem
    target = resolved.get(slot) or (None if slot in given else _default_class(cls, parameters.get(slot)))
    if isinstance(target, str):
        target = cls.policy_aliases[target]
    if not isinstance(target, type):
        return dict(value)  # the class itself was wrong, which is already said
    return _keywords(walk, target, value, path, PASSED_ON.get(stem, set()))


def _default_class(cls: Any, parameter: inspect.Parameter | None) -> Any:
    if parameter is None:
        return None
    if parameter.name == "policy":
        return next(iter(cls.policy_aliases.values()))
    if isinstance(parameter.default, type):
        return parameter.default
    return expected_class(parameter.annotation)


def _value(walk: _Walk, parameter: inspect.Parameter, value: Any, path: KeyPath) -> Any:
    annotation = parameter.annotation
    if expected := expected_class(annotation):
        if value is None and allows_none(annotation):
            return None
        return _class_value(walk, expected, value, path)
    if accepts_schedule(annotation) and is_schedule_form(value):
        try:
            schedule = parse_schedule(value)
        except ValueError as error:
            walk.fail(path, f"{shown(value)} is not a schedule: {error}.", _schedule_hint(value))
            return None
        _check_range(walk, parameter.name, min(schedule(1.0), schedule(0.0)), path)
        return schedule
    try:
        converted = convert(value, annotation)
    except TypeError as error:
        walk.fail(path, f"must be {error}, not {shown(value)}.")
        return None
    _check_range(walk, parameter.name, converted, path)
    return converted


def _schedule_hint(value: Any) -> str:
    prefix = value.partition("_")[0] if isinstance(value, str) else ""
    if isinstance(value, str) and isinstance(core_scalar(value), int | float):
        return "Write the number without quotes."
    return "" if prefix in ("lin", "const") else did_you_mean(prefix, ("lin", "const")).replace('"?', '_..."?')


def _check_range(walk: _Walk, name: str, value: Any, path: KeyPath) -> None:
    """Whether a value of the right type is one that SB3 can work with."""
    if name in CHOICES and value not in CHOICES[name]:
        walk.fail(
            path,
            f"must be one of {', '.join(CHOICES[name])}, not {shown(value)}.",
            did_you_mean(value, CHOICES[name]),
        )
    if name in _AUTO and isinstance(value, str) and not re.match(_AUTO[name], value):
        walk.fail(path, f"must be a number or auto, not {shown(value)}.")
    if name == "train_freq" and isinstance(value, tuple):
        value, unit = value
        if unit not in ("step", "episode"):
            hint = did_you_mean(unit, ("step", "episode")) or "For instance [1, episode]."
            walk.fail(path, f"counts in step or episode, not {shown(unit)}.", hint)
    if isinstance(value, float) and math.isnan(value):
        walk.fail(path, "must be a number, not nan.")
    elif name in BOUNDS and isinstance(value, int | float) and not isinstance(value, bool):
        low, high = BOUNDS[name]
        if not low <= value <= high:
            limits = f"between {low} and {high}" if high < math.inf else f"at least {low}"
            walk.fail(path, f"must be {limits}, not {value}.")


def _class_value(walk: _Walk, expected: type, value: Any, path: KeyPath) -> Any:
    if not isinstance(value, str):
        walk.fail(path, f"must be the name of a class, not {shown(value)}.")
        return None
    try:
        return load_class(value, expected, allowed_classes(expected), f"{expected.__name__}")
    except UsageError as error:
        walk.fail(path, error.message, error.hint)
        return None


def allowed_classes(expected: type) -> dict[str, type]:
    """The names that a slot for subclasses of ``expected`` takes without a module path."""
    import torch
    from stable_baselines3.common import buffers, torch_layers
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
    from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

    by_slot: dict[type, list[type]] = {
        torch.nn.Module: [getattr(torch.nn, name) for name in ACTIVATIONS],
        torch.optim.Optimizer: [*(getattr(torch.optim, name) for name in OPTIMIZERS), RMSpropTFLike],
        torch_layers.BaseFeaturesExtractor: [
            torch_layers.NatureCNN,
            torch_layers.FlattenExtractor,
            torch_layers.CombinedExtractor,
        ],
        buffers.ReplayBuffer: [
            buffers.ReplayBuffer,
            buffers.DictReplayBuffer,
            buffers.NStepReplayBuffer,
            HerReplayBuffer,
        ],
        buffers.RolloutBuffer: [buffers.RolloutBuffer, buffers.DictRolloutBuffer],
    }
    return {cls.__name__: cls for cls in by_slot.get(expected, ())}


def noise_kinds() -> dict[str, type]:
    """Action noise by the name a config uses."""
    from stable_baselines3.common import noise

    return {"normal": noise.NormalActionNoise, "ornstein_uhlenbeck": noise.OrnsteinUhlenbeckActionNoise}


def noise_keywords(kind: type) -> list[str]:
    """The numbers that a kind of action noise takes."""
    return [name for name in keyword_parameters(kind) if name not in ("initial_noise", "dtype")]


def _action_noise(walk: _Walk, value: Any, path: KeyPath) -> Any:
    """``{normal: {sigma: 0.1}}`` or ``{ornstein_uhlenbeck: {sigma: 0.1, theta: 0.15}}``."""
    import numpy as np

    kinds = noise_kinds()
    if value is None:
        return None
    if not (isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), dict)):
        walk.fail(path, f"must be like {{normal: {{sigma: 0.1}}}}, not {shown(value)}.", f"Kinds: {', '.join(kinds)}.")
        return None
    ((kind, given),) = value.items()
    if kind not in kinds:
        hint = did_you_mean(kind, kinds) or f"Kinds: {', '.join(kinds)}."
        walk.fail(path, f'there is no action noise "{kind}".', hint)
        return None
    settings = {"mean": 0.0, **given}
    allowed = noise_keywords(kinds[kind])
    before = len(walk.findings)
    for name, number in settings.items():
        if name not in allowed:
            walk.fail((*path, kind, name), f'the noise has no keyword "{name}".', did_you_mean(name, allowed))
        elif not isinstance(number, int | float) or isinstance(number, bool):
            walk.fail((*path, kind, name), f"must be a number, not {shown(number)}.")
        else:
            _check_range(walk, name, number, (*path, kind, name))
    if "sigma" not in given:
        walk.fail((*path, kind), "needs sigma, the standard deviation, in actions scaled to [-1, 1].")
    shape = getattr(walk.action_space, "shape", None)
    if len(walk.findings) > before or not shape:
        return None
    arrays = {name: settings[name] * np.ones(shape, dtype=np.float32) for name in ("mean", "sigma")}
    return kinds[kind](**{**settings, **arrays})
