"""What SB3 notices late or never: keywords that contradict each other, the env, or the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from gymnasium import spaces

from rlrun.algorithms.hyperparameters import Finding
from rlrun.algorithms.registry import Algorithm, get_algorithm
from rlrun.config.schema import whole_number
from rlrun.config.signatures import keyword_parameters
from rlrun.spaces import leaves_of


@dataclass(frozen=True)
class EnvFacts:
    """What a probe of the env found.

    :ivar observation_space: as the policy sees it: wrapped, stacked, channels first
    :ivar has_action_masks: whether the env has the method ``action_masks`` that MaskablePPO calls
    :ivar max_episode_steps: the time limit in steps of one env; None when there is none
    :ivar stack: frames of an observation, where a replay buffer may store each once; None elsewhere
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    max_episode_steps: int | None
    n_envs: int
    has_action_masks: bool = False
    stack: int | None = None


def default_policy(algorithm: Algorithm, observation_space: spaces.Space[Any]) -> str:
    """The alias that suits the observations: MultiInput for Dict, Cnn for images, else the first (Mlp).

    SB3's convolutions need images of 36 x 36; smaller ones are flattened.
    """
    from stable_baselines3.common.preprocessing import is_image_space

    aliases = list(algorithm.load().policy_aliases)
    kind = "Mlp"
    if isinstance(observation_space, spaces.Dict):
        kind = "MultiInput"
    elif is_image_space(observation_space) and min(sorted(observation_space.shape or (0,))[1:]) >= 36:
        kind = "Cnn"
    return next((alias for alias in aliases if alias.startswith(kind)), aliases[0])


def cross_check(
    algorithm: Algorithm, hyperparameters: Mapping[str, Any], facts: EnvFacts
) -> tuple[list[Finding], list[Finding]]:
    """Errors and warnings that only keywords and env together show."""
    values = with_defaults(algorithm, hyperparameters)
    memory = _memory(algorithm, values, facts)
    errors = [
        *check_spaces(algorithm, facts),
        *_policy_fits(algorithm, values, facts),
        *_net_arch(algorithm, values),
        *_no_updates(values),
        *_episodic_training(values, facts),
        *_her(values, facts),
        *_prioritized_replay(hyperparameters, facts),
        *_without_effect(hyperparameters, values),
        *memory,
    ]
    minibatch_errors, warnings = ([], []) if memory else _minibatches(values, facts)
    return errors + minibatch_errors, [*warnings, *_cuts_taken_for_ends(values)]


def check_spaces(algorithm: Algorithm, facts: EnvFacts) -> list[Finding]:
    """Errors that the env shows whatever the hyperparameters are."""
    return [
        *_action_space(algorithm, facts),
        *_action_masks(algorithm, facts),
        *_observation_space(algorithm, facts),
        *_one_env(algorithm, facts),
    ]


def with_defaults(algorithm: Algorithm, given: Mapping[str, Any]) -> dict[str, Any]:
    """An algorithm's keywords as they are given, else by their defaults."""
    parameters = keyword_parameters(algorithm.load())
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    return {name: whole_number(value) for name, value in {**defaults, **given}.items()}


def _action_space(algorithm: Algorithm, facts: EnvFacts) -> list[Finding]:
    kind = type(facts.action_space).__name__
    if kind in algorithm.actions:
        return _counted_from_0(facts.action_space, "actions")
    words = "continuous" if kind == "Box" else kind
    able = [name for name in ("ppo", "sac", "tqc", "dqn", "a2c") if kind in get_algorithm(name).actions][:3]
    hint = f"For {words} actions: {', '.join(able[:-1])} or {able[-1]}." if able else ""
    return [Finding(("algo",), f"{algorithm.name} cannot act in a {words} action space ({facts.action_space}).", hint)]


def _counted_from_0(space: spaces.Space[Any], what: str) -> list[Finding]:
    if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete) or not np.any(space.start):
        return []
    message = f"SB3 counts {what} from 0, and this env counts them from {space.start} ({space})."
    hint = "Name a wrapper of your own that shifts them: `wrappers: [my_module:Shifted]`."
    return [Finding(("env", "wrappers"), message, hint)]


def _action_masks(algorithm: Algorithm, facts: EnvFacts) -> list[Finding]:
    from sb3_contrib import MaskablePPO

    if facts.has_action_masks or not issubclass(algorithm.load(), MaskablePPO):
        return []
    hint = "Give the env a method action_masks() -> array of bool, wrap it in ActionMasker, or use ppo."
    return [Finding(("algo",), f"{algorithm.name} needs an env that says which actions are allowed.", hint)]


# Observation spaces that SB3's policies read, alone or in a Dict.
READABLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def _one_env(algorithm: Algorithm, facts: EnvFacts) -> list[Finding]:
    if not algorithm.is_episodic or facts.n_envs == 1:
        return []
    message = f"{algorithm.name} plays one episode after the other, in one env copy, and there are {facts.n_envs}."
    hint = "Set env.n_envs: 1; `rlrun train --seeds 0-3` trains several agents side by side."
    return [Finding(("env", "n_envs"), message, hint)]


def _observation_space(algorithm: Algorithm, facts: EnvFacts) -> list[Finding]:
    space = facts.observation_space
    if algorithm.observations and type(space).__name__ not in algorithm.observations:
        kinds, given = " or ".join(algorithm.observations), _in_words(space)
        message = f"{algorithm.name} reads {kinds} observations only, and this env gives {given}."
        hint = "For other observations: ppo or dqn; or a wrapper that makes them Discrete, in env.wrappers."
        return [Finding(("algo",), message, hint)]
    leaves = leaves_of(space).values()
    unreadable = [leaf for leaf in leaves if not isinstance(leaf, READABLE)]
    if not unreadable:
        return [finding for leaf in leaves for finding in _counted_from_0(leaf, "observations")]
    message = f"SB3 cannot read observations of kind {type(unreadable[0]).__name__}."
    return [Finding(("env", "wrappers"), message, "Flatten them: `wrappers: [FlattenObservation]`.")]


def _policy_fits(algorithm: Algorithm, values: Mapping[str, Any], facts: EnvFacts) -> list[Finding]:
    from stable_baselines3.common.preprocessing import is_image_space

    policy, space = values.get("policy"), facts.observation_space
    path = ("hyperparameters", "policy")
    if not isinstance(policy, str) or ":" in policy or algorithm.observations:
        return []
    is_dict = isinstance(space, spaces.Dict)
    wanted = ""
    if is_dict and not policy.startswith("MultiInput"):
        wanted, reads = (
            policy.replace("Mlp", "MultiInput").replace("Cnn", "MultiInput"),
            "cannot read a Dict observation",
        )
    elif not is_dict and policy.startswith("MultiInput"):
        wanted, reads = policy.replace("MultiInput", "Mlp"), "reads Dict observations"
    elif policy.startswith("Cnn") and not is_image_space(space):
        wanted, reads = policy.replace("Cnn", "Mlp"), "reads images"
    if not wanted:
        return []
    exists = wanted in algorithm.load().policy_aliases
    hint = f'Use "{wanted}".' if exists else f"{algorithm.name} has no policy for this env; ppo, sac and dqn have one."
    return [Finding(path, f"{policy} {reads}, and this env gives {_in_words(space)}.", hint)]


def _in_words(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Dict):
        return f"a Dict of {', '.join(space.spaces)}"
    return f"{type(space).__name__} of shape {space.shape}" if space.shape else str(space)


def _net_arch(algorithm: Algorithm, values: Mapping[str, Any]) -> list[Finding]:
    """SB3 passes over the parts it does not know in silence."""
    net_arch = (values.get("policy_kwargs") or {}).get("net_arch")
    if not isinstance(net_arch, dict) or ":" in str(values.get("policy")):
        return []
    parts = ("pi", "qf") if algorithm.is_off_policy else ("pi", "vf")
    path = ("hyperparameters", "policy_kwargs", "net_arch")
    hint = f"Its parts are {' and '.join(parts)}."
    unknown = [name for name in net_arch if name not in parts]
    return [Finding((*path, name), f'{algorithm.name} has no network "{name}".', hint) for name in unknown]


def _no_updates(values: Mapping[str, Any]) -> list[Finding]:
    if values.get("gradient_steps") != 0:
        return []
    hint = "Give the updates after each train_freq; -1: as many as timesteps were collected."
    return [Finding(("hyperparameters", "gradient_steps"), "with 0 nothing is ever learnt.", hint)]


def _episodic_training(values: Mapping[str, Any], facts: EnvFacts) -> list[Finding]:
    train_freq = values.get("train_freq")
    if not isinstance(train_freq, list) or "episode" not in train_freq or facts.n_envs == 1:
        return []
    message = f"training after whole episodes needs one env, and there are {facts.n_envs}."
    return [Finding(("hyperparameters", "train_freq"), message, "Set env.n_envs: 1, or train_freq: [N, step].")]


def _her(values: Mapping[str, Any], facts: EnvFacts) -> list[Finding]:
    if values.get("replay_buffer_class") != "HerReplayBuffer":
        return []
    space, keys = facts.observation_space, {"observation", "achieved_goal", "desired_goal"}
    if not (isinstance(space, spaces.Dict) and keys <= set(space.spaces)):
        message = "HerReplayBuffer needs a goal env, with observation, achieved_goal and desired_goal."
        return [Finding(("hyperparameters", "replay_buffer_class"), message, "Leave it out for this env.")]
    if (values.get("replay_buffer_kwargs") or {}).get("copy_info_dict"):
        message = "copy_info_dict: true cannot be kept in a checkpoint."
        return [Finding(("hyperparameters", "replay_buffer_kwargs", "copy_info_dict"), message, "Leave it out.")]
    steps = (facts.max_episode_steps or 0) * facts.n_envs
    # SB3 trains once num_timesteps exceeds learning_starts, and counts in strides of n_envs.
    if int(values["learning_starts"]) + facts.n_envs < steps:
        message = (
            f"learning would start after {values['learning_starts']} timesteps, but the first episodes "
            f"may end only after {steps}, and HerReplayBuffer cannot sample before."
        )
        return [Finding(("hyperparameters", "learning_starts"), message, f"Set it to at least {steps}.")]
    return []


def _minibatches(values: Mapping[str, Any], facts: EnvFacts) -> tuple[list[Finding], list[Finding]]:
    """Rollouts against minibatches, for algorithms that have both."""
    if "buffer_size" in values or not isinstance(values.get("n_steps"), int):
        return [], []
    rollout = values["n_steps"] * facts.n_envs
    batch = values.get("batch_size")
    if rollout == 1 and values.get("normalize_advantage"):
        message = "a rollout of one timestep cannot have its advantages normalized."
        return [
            Finding(("hyperparameters", "n_steps"), message, "Raise n_steps, or set normalize_advantage: false.")
        ], []
    if not isinstance(batch, int):
        return [], []
    path = ("hyperparameters", "batch_size")
    product = f"n_steps x n_envs = {values['n_steps']} x {facts.n_envs} = {rollout}"
    if batch > rollout:
        return [Finding(path, f"batch_size {batch} is larger than a whole rollout ({product}).", "Lower it.")], []
    if rollout % batch:
        message = f"batch_size {batch} does not divide a rollout ({product}): the last minibatch is smaller."
        return [], [Finding(path, message, f"{_nearest_divisor(rollout, batch)} does.")]
    return [], []


def _nearest_divisor(number: int, near: int) -> int:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return min(small + [number // d for d in reversed(small)], key=lambda d: abs(d - near))


def _memory(algorithm: Algorithm, values: Mapping[str, Any], facts: EnvFacts) -> list[Finding]:
    """What is kept of the env's steps must fit: a replay buffer, or a rollout."""
    name = "buffer_size" if algorithm.is_off_policy else "n_steps"
    if not isinstance(values.get(name), int | float):
        return []
    size = int(values[name])
    if algorithm.is_off_policy:
        rows, needed = size, replay_buffer_bytes(size, values, facts)
        what = f"a replay buffer of {rows:,} timesteps"
    else:
        rows = size * facts.n_envs
        needed = rollout_bytes(rows, facts)
        what = f"a rollout of n_steps x n_envs = {rows:,} timesteps"
    available = _available_memory()
    if needed <= available:
        return []
    message = f"{what} needs {_gib(needed)}, and {_gib(available)} is free."
    return [Finding(("hyperparameters", name), message, f"About {int(size * available * 0.8 / needed):,} would fit.")]


def _prioritized_replay(given: Mapping[str, Any], facts: EnvFacts) -> list[Finding]:
    from rlrun.algorithms import prioritized

    if given.get("prioritized_replay") is not True:
        return []
    reason = prioritized.why_not(facts.observation_space, given)
    return [Finding(("hyperparameters", "prioritized_replay"), f"{reason}.")] if reason else []


# Keywords that do nothing unless another one, which is off by default, is switched on.
_SWITCHES = {
    **dict.fromkeys(
        (f"prioritized_replay_{name}" for name in ("alpha", "beta0", "beta_iters", "eps")), "prioritized_replay"
    ),
    "vf_coef": "baseline",
}


def _without_effect(given: Mapping[str, Any], values: Mapping[str, Any]) -> list[Finding]:
    findings = []
    for name, switch in _SWITCHES.items():
        # One that is switched off in so many words may be switched on again.
        if name in given and switch in values and switch not in given:
            hint = f"Set hyperparameters.{switch}: true, or leave it out."
            findings.append(Finding(("hyperparameters", name), f"{name} does nothing without {switch}.", hint))
    return findings


def _cuts_taken_for_ends(values: Mapping[str, Any]) -> list[Finding]:
    """A replay buffer that knows no time-outs takes a checkpoint's cut for the end of the episode."""
    if (values.get("replay_buffer_kwargs") or {}).get("handle_timeout_termination", True):
        return []
    message = "without handle_timeout_termination, an episode that a checkpoint cuts is learnt as one that ended."
    path = ("hyperparameters", "replay_buffer_kwargs", "handle_timeout_termination")
    return [Finding(path, message, "Leave it out, with optimize_memory_usage, or save less often (checkpoint.every).")]


def experience_bytes(algorithm: Algorithm, hyperparameters: Mapping[str, Any], facts: EnvFacts) -> int:
    """Bytes of what is kept of the env's steps: a replay buffer, or a rollout; 0 where that is not known."""
    values = with_defaults(algorithm, hyperparameters)
    size = values.get("buffer_size" if algorithm.is_off_policy else "n_steps")
    if not isinstance(size, int | float):
        return 0
    if algorithm.is_off_policy:
        return replay_buffer_bytes(int(size), values, facts)
    return rollout_bytes(int(size) * facts.n_envs, facts)


def replay_buffer_bytes(buffer_size: int, values: Mapping[str, Any], facts: EnvFacts) -> int:
    """Bytes of the replay buffer: observations, actions, and three scalars.

    SB3's has observations twice, unless optimize_memory_usage; one that stores frames once has one frame of each.
    """
    from rlrun.accelerate import frames  # imports torch

    observation, action = _step_bytes(facts)
    if not frames.why_not(facts.observation_space, facts.stack, values):
        return buffer_size * (observation // (facts.stack or 1) + action + 14)
    copies = 1 if values.get("optimize_memory_usage") else 2
    return buffer_size * (observation * copies + action + 12)


def rollout_bytes(timesteps: int, facts: EnvFacts) -> int:
    """Bytes of SB3's rollout buffer: observations, actions, and six scalars; those of its kin hold more."""
    return timesteps * (sum(_step_bytes(facts)) + 24)


def _step_bytes(facts: EnvFacts) -> tuple[int, int]:
    """Bytes of one observation and of one action."""
    leaves = leaves_of(facts.observation_space).values()
    observation = sum(int(np.prod(space.shape or (1,))) * np.dtype(space.dtype).itemsize for space in leaves)
    return observation, int(np.prod(facts.action_space.shape or (1,))) * np.dtype(facts.action_space.dtype).itemsize


def _available_memory() -> int:
    """Bytes that this process may still take, in a container too."""
    available = int(psutil.virtual_memory().available)
    cgroup = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((cgroup / f"memory.{name}").read_text()) for name in ("max", "current"))
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        cache = int(statistics["inactive_file"])  # counts as used, and is given back at need
    except (OSError, ValueError, KeyError):  # no limit, or no cgroup
        return available
    return min(available, max(0, limit - used + cache))


def _gib(number: float) -> str:
    return f"{number / 2**30:,.1f} GiB"
