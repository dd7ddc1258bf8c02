"""What SB3 notices late or never: keywords against each other, against the env, and against the machine."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, DictRolloutBuffer, ReplayBuffer, RolloutBuffer

from rlrun.algorithms import crosschecks
from rlrun.algorithms.crosschecks import (
    EnvFacts,
    check_spaces,
    cross_check,
    default_policy,
    replay_buffer_bytes,
    rollout_bytes,
)
from rlrun.algorithms.registry import get_algorithm
from rlrun.config.loading import dotted

VECTOR = spaces.Box(-1.0, 1.0, (4,), np.float32)
IMAGE = spaces.Box(0, 255, (4, 84, 84), np.uint8)
GOAL = spaces.Dict({"observation": VECTOR, "achieved_goal": VECTOR, "desired_goal": VECTOR})
PARTS = spaces.Dict({"near": VECTOR, "far": VECTOR})
DISCRETE = spaces.Discrete(2)
CONTINUOUS = spaces.Box(-1.0, 1.0, (3,), np.float32)


def facts(
    observations: spaces.Space[Any] = VECTOR,
    actions: spaces.Space[Any] = DISCRETE,
    steps: int | None = None,
    n_envs: int = 1,
    masks: bool = False,
) -> EnvFacts:
    return EnvFacts(observations, actions, steps, n_envs, masks)


def errors_of(algo: str, env: EnvFacts, **hyperparameters: Any) -> list[str]:
    """Errors as ``path: message hint``; warnings there must be none."""
    errors, warnings = cross_check(get_algorithm(algo), hyperparameters, env)
    assert warnings == []
    return [f"{dotted(f.path)}: {f.message} {f.hint}".strip() for f in errors]


@pytest.mark.parametrize(
    ("algo", "env"),
    [
        ("ppo", facts()),
        ("ppo", facts(actions=CONTINUOUS)),
        ("dqn", facts()),
        ("sac", facts(actions=CONTINUOUS)),
        ("maskable_ppo", facts(masks=True)),
        ("a2c", facts(n_envs=16)),
        ("trpo", facts()),
        ("recurrent_ppo", facts(n_envs=2)),
    ],
)
def test_defaults_on_an_env_that_fits_are_no_error(algo: str, env: EnvFacts) -> None:
    assert errors_of(algo, env, policy=default_policy(get_algorithm(algo), env.observation_space)) == []


@pytest.mark.parametrize(
    ("algo", "actions", "said"),
    [
        ("dqn", CONTINUOUS, "dqn cannot act in a continuous action space"),
        ("qrdqn", CONTINUOUS, "qrdqn cannot act in a continuous action space"),
        ("sac", DISCRETE, "sac cannot act in a Discrete action space (Discrete(2)). For Discrete actions: ppo, dqn or"),
        (
            "q_learning",
            spaces.MultiBinary(2),
            "q_learning cannot act in a MultiBinary action space (MultiBinary(2)). For MultiBinary actions: ppo or",
        ),
        ("tqc", spaces.MultiDiscrete([2, 3]), "tqc cannot act in a MultiDiscrete action space"),
        ("ars", spaces.MultiBinary(2), "ars cannot act in a MultiBinary action space"),
        ("ppo", spaces.Dict({}), "ppo cannot act in a Dict action space"),
    ],
)
def test_an_action_space_that_the_algorithm_cannot_use_is_an_error(
    algo: str, actions: spaces.Space[Any], said: str
) -> None:
    (found,) = (
        f"{dotted(f.path)}: {f.message} {f.hint}"
        for f in check_spaces(get_algorithm(algo), facts(spaces.Discrete(3), actions))
    )
    assert found.startswith(f"algo: {said}")


def test_a_table_refuses_other_observations_once() -> None:
    (found,) = errors_of("q_learning", facts(PARTS), policy="TablePolicy")
    assert found.startswith("algo: q_learning reads Discrete observations only")


def test_an_agent_that_would_never_learn_is_refused() -> None:
    (found,) = errors_of("dqn", facts(), gradient_steps=0)
    assert found.startswith("hyperparameters.gradient_steps: with 0 nothing is ever learnt.")
    assert errors_of("dqn", facts(), gradient_steps=-1) == []


def test_masks_are_asked_for_only_by_the_algorithm_that_needs_them() -> None:
    (found,) = errors_of("maskable_ppo", facts())
    assert found.startswith("algo: maskable_ppo needs an env that says which actions are allowed.")
    assert found.endswith("or use ppo.")


@pytest.mark.parametrize("space", [spaces.Tuple([VECTOR]), spaces.Text(5), spaces.Dict({"said": spaces.Text(5)})])
def test_observations_that_no_policy_reads_are_an_error(space: spaces.Space[Any]) -> None:
    found = errors_of("ppo", facts(space))
    assert any("SB3 cannot read observations of kind" in text and "FlattenObservation" in text for text in found)


@pytest.mark.parametrize(
    ("algo", "policy", "space", "said"),
    [
        ("ppo", "CnnPolicy", VECTOR, 'CnnPolicy reads images, and this env gives Box of shape (4,). Use "MlpPolicy".'),
        (
            "ppo",
            "MlpPolicy",
            PARTS,
            'MlpPolicy cannot read a Dict observation, and this env gives a Dict of far, near. Use "MultiInputPolicy".',
        ),
        ("sac", "CnnPolicy", GOAL, "CnnPolicy cannot read a Dict observation"),
        (
            "ppo",
            "MultiInputPolicy",
            VECTOR,
            'MultiInputPolicy reads Dict observations, and this env gives Box of shape (4,). Use "MlpPolicy".',
        ),
        ("recurrent_ppo", "MlpLstmPolicy", PARTS, 'Use "MultiInputLstmPolicy".'),
        ("ars", "MlpPolicy", PARTS, "ars has no policy for this env; ppo, sac and dqn have one."),
    ],
)
def test_a_policy_that_cannot_read_the_observations_is_an_error(
    algo: str, policy: str, space: spaces.Space[Any], said: str
) -> None:
    actions = DISCRETE if "Discrete" in get_algorithm(algo).actions else CONTINUOUS
    (found,) = errors_of(algo, facts(space, actions), policy=policy, **({"buffer_size": 9} if algo == "sac" else {}))
    assert found.startswith("hyperparameters.policy: ")
    assert said in found


def test_a_policy_of_the_users_own_reads_what_it_likes() -> None:
    assert errors_of("ppo", facts(PARTS), policy="my_nets:MlpPolicy") == []


@pytest.mark.parametrize(
    ("algo", "space", "policy"),
    [
        ("ppo", VECTOR, "MlpPolicy"),
        ("ppo", IMAGE, "CnnPolicy"),
        ("ppo", PARTS, "MultiInputPolicy"),
        ("ppo", spaces.Discrete(16), "MlpPolicy"),
        ("recurrent_ppo", VECTOR, "MlpLstmPolicy"),
        ("recurrent_ppo", IMAGE, "CnnLstmPolicy"),
        ("ars", VECTOR, "MlpPolicy"),
    ],
)
def test_the_default_policy_suits_the_observations(algo: str, space: spaces.Space[Any], policy: str) -> None:
    found = default_policy(get_algorithm(algo), space)
    assert found in get_algorithm(algo).load().policy_aliases
    assert found == policy


@pytest.mark.parametrize(
    ("algo", "net_arch", "said"),
    [
        ("ppo", {"pi": [8], "qf": [8]}, 'ppo has no network "qf". Its parts are pi and vf.'),
        ("sac", {"pi": [8], "qf": [8], "vf": [8]}, 'sac has no network "vf". Its parts are pi and qf.'),
    ],
)
def test_a_network_that_sb3_would_pass_over_in_silence_is_an_error(algo: str, net_arch: Any, said: str) -> None:
    env = facts(actions=CONTINUOUS)
    (found,) = errors_of(algo, env, policy="MlpPolicy", policy_kwargs={"net_arch": net_arch})
    assert found.endswith(said)
    assert errors_of(algo, env, policy="my_nets:Policy", policy_kwargs={"net_arch": net_arch}) == []


def test_her_needs_a_goal_env() -> None:
    (found,) = errors_of(
        "sac", facts(PARTS, CONTINUOUS), policy="MultiInputPolicy", replay_buffer_class="HerReplayBuffer"
    )
    assert "HerReplayBuffer needs a goal env, with observation, achieved_goal and desired_goal." in found


@pytest.mark.parametrize(
    ("starts", "steps", "n_envs", "is_wrong"),
    [
        (100, 50, 1, False),
        (100, None, 1, False),
        (48, 50, 1, True),
        (49, 50, 1, False),
        (100, 50, 4, True),
        (196, 50, 4, False),
        (1e2, 50, 4, True),
    ],
)
def test_her_learns_only_after_an_episode_can_have_ended(
    starts: float, steps: int | None, n_envs: int, is_wrong: bool
) -> None:
    found = errors_of(
        "tqc",
        facts(GOAL, CONTINUOUS, steps, n_envs),
        policy="MultiInputPolicy",
        replay_buffer_class="HerReplayBuffer",
        learning_starts=starts,
    )
    assert bool(found) == is_wrong
    if is_wrong:
        assert f"learning would start after {int(starts)} timesteps" in found[0]
        assert found[0].endswith(f"Set it to at least {(steps or 0) * n_envs}.")


def test_infos_that_a_checkpoint_cannot_hold_are_refused() -> None:
    (found,) = errors_of(
        "sac",
        facts(GOAL, CONTINUOUS),
        policy="MultiInputPolicy",
        replay_buffer_class="HerReplayBuffer",
        replay_buffer_kwargs={"copy_info_dict": True},
    )
    assert found.startswith("hyperparameters.replay_buffer_kwargs.copy_info_dict: ")


@pytest.mark.parametrize(
    ("n_steps", "n_envs", "batch", "error", "warning"),
    [
        (32, 8, 256, "", ""),
        (32, 8, 64, "", ""),
        (16, 1, 64, "batch_size 64 is larger than a whole rollout (n_steps x n_envs = 16 x 1 = 16).", ""),
        (1e1, 2, 64, "batch_size 64 is larger than a whole rollout (n_steps x n_envs = 10 x 2 = 20).", ""),
        (100, 1, 64, "", "batch_size 64 does not divide a rollout (n_steps x n_envs = 100 x 1 = 100)"),
        (1, 1, 1, "a rollout of one timestep cannot have its advantages normalized.", ""),
    ],
)
def test_minibatches_are_measured_against_the_rollout(
    n_steps: float, n_envs: int, batch: int, error: str, warning: str
) -> None:
    keywords = {"n_steps": n_steps, "batch_size": batch}
    errors, warnings = cross_check(get_algorithm("ppo"), keywords, facts(n_envs=n_envs))
    assert [error in finding.message for finding in errors] == [True] * bool(error)
    assert [warning in finding.message for finding in warnings] == [True] * bool(warning)


def test_the_hint_for_a_minibatch_is_the_nearest_size_that_divides() -> None:
    _, (warning,) = cross_check(get_algorithm("ppo"), {"n_steps": 100, "batch_size": 64}, facts(n_envs=3))
    assert warning.hint == "60 does."


def test_the_n_steps_of_an_off_policy_algorithm_are_no_rollout() -> None:
    assert errors_of("dqn", facts(), n_steps=3, batch_size=32) == []


@pytest.mark.parametrize(
    ("n_envs", "train_freq", "is_wrong"), [(1, [1, "episode"], 0), (2, [1, "episode"], 1), (2, 4, 0)]
)
def test_training_after_whole_episodes_needs_one_env(n_envs: int, train_freq: Any, is_wrong: int) -> None:
    found = errors_of("sac", facts(actions=CONTINUOUS, n_envs=n_envs), train_freq=train_freq)
    assert [text.startswith("hyperparameters.train_freq: ") for text in found] == [True] * is_wrong


def test_a_replay_buffer_that_cannot_fit_is_an_error_with_both_numbers_and_what_would_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Memory:
        available = 2 * 2**30

    monkeypatch.setattr(crosschecks.psutil, "virtual_memory", lambda: Memory)
    (found,) = errors_of("dqn", facts(IMAGE), policy="CnnPolicy", buffer_size=1e5)
    assert found.startswith(
        "hyperparameters.buffer_size: a replay buffer of 100,000 timesteps needs 5.3 GiB, and 2.0 GiB is free."
    )
    fitting = re.search(r"About ([\d,]+) would fit\.", found)
    assert fitting is not None
    assert errors_of("dqn", facts(IMAGE), policy="CnnPolicy", buffer_size=int(fitting[1].replace(",", ""))) == []


def test_a_rollout_that_cannot_fit_is_an_error_with_both_numbers_and_what_would_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Memory:
        available = 2 * 2**30

    monkeypatch.setattr(crosschecks.psutil, "virtual_memory", lambda: Memory)
    (found,) = errors_of("ppo", facts(IMAGE, n_envs=10), policy="CnnPolicy", n_steps=1e4)
    assert found.startswith(
        "hyperparameters.n_steps: a rollout of n_steps x n_envs = 100,000 timesteps needs 2.6 GiB, and 2.0 GiB is free."
    )
    fitting = re.search(r"About ([\d,]+) would fit\.", found)
    assert fitting is not None
    steps = int(fitting[1].replace(",", ""))
    assert 6_000 < steps < 8_000
    assert errors_of("a2c", facts(IMAGE, n_envs=10), policy="CnnPolicy", n_steps=steps) == []


@pytest.mark.parametrize("n_steps", [1e12, 10**12 + 1, 10**30 + 1])
def test_a_rollout_beyond_all_memory_is_one_error_said_at_once(n_steps: float) -> None:
    (found,) = errors_of("ppo", facts(), n_steps=n_steps)
    assert found.startswith("hyperparameters.n_steps: a rollout of ")


@pytest.mark.parametrize("observations", [VECTOR, IMAGE, spaces.Discrete(5), GOAL], ids=str)
@pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS], ids=str)
def test_the_bytes_of_a_rollout_are_those_that_sb3_takes(
    observations: spaces.Space[Any], actions: spaces.Space[Any]
) -> None:
    cls: Any = DictRolloutBuffer if isinstance(observations, spaces.Dict) else RolloutBuffer
    buffer = cls(50, observations, actions, n_envs=2)
    names = ("observations", "actions", "rewards", "returns", "episode_starts", "values", "log_probs", "advantages")
    arrays = [getattr(buffer, name) for name in names]
    taken = sum(sum(p.nbytes for p in a.values()) if isinstance(a, dict) else a.nbytes for a in arrays)
    assert rollout_bytes(100, facts(observations, actions)) == taken


@pytest.mark.parametrize(
    ("observations", "optimized"),
    [(VECTOR, False), (VECTOR, True), (IMAGE, False), (IMAGE, True), (spaces.Discrete(5), False), (GOAL, False)],
    ids=str,
)
@pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS], ids=str)
def test_the_bytes_of_a_replay_buffer_are_those_that_sb3_takes(
    observations: spaces.Space[Any], actions: spaces.Space[Any], optimized: bool
) -> None:
    cls: Any = DictReplayBuffer if isinstance(observations, spaces.Dict) else ReplayBuffer
    buffer = cls(100, observations, actions, optimize_memory_usage=optimized, handle_timeout_termination=not optimized)
    arrays = [getattr(buffer, name, None) for name in ("observations", "next_observations", "actions", "rewards")]
    arrays += [buffer.dones, buffer.timeouts]
    taken = sum(
        sum(part.nbytes for part in array.values()) if isinstance(array, dict) else array.nbytes
        for array in arrays
        if array is not None
    )
    values = {"optimize_memory_usage": optimized}
    assert replay_buffer_bytes(100, values, facts(observations, actions)) == taken
