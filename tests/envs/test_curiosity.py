"""Curiosity: what is added to rewards, when it is learnt, and what a checkpoint keeps of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from comparing import assert_same, final_state, killed_and_resumed, rows
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

import rlrun
from rlrun.algorithms.build import build_model
from rlrun.config.loading import read_source
from rlrun.config.schema import CuriosityConfig
from rlrun.envs.curiosity import Curiosity, NextState, Observations, _codes, find_curiosity
from rlrun.envs.recipe import EnvRecipe, Role
from rlrun.errors import ConfigError, UsageError
from rlrun.runs.load import read_parent, start_from
from rlrun.training.plan import make_plan

pytestmark = pytest.mark.usefixtures("one_thread")


class Line(gym.Env):
    """Observation: how many steps were taken; an episode has five, and each is worth -1."""

    def __init__(self, observation: Any = None, action: Any = None) -> None:
        self.observation_space = observation or spaces.Box(-1, 100, (2,), np.float32)
        self.action_space = action or spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._observe(), -1.0, self.steps == 5, False, {}

    def _observe(self) -> Any:
        if isinstance(self.observation_space, spaces.Box) and self.observation_space.shape == (2,):
            return np.array([self.steps, 1], dtype=np.float32)
        self.observation_space.seed(self.steps)
        return self.observation_space.sample()


class Told(gym.Env):
    """Shows the observations that it is told, an episode after the other; the last one of each ends it."""

    def __init__(self, episodes: Any, space: Any = None) -> None:
        self.observation_space, self.action_space = space or spaces.Box(-9, 9, (1,), np.float32), spaces.Discrete(2)
        self.episodes = iter(episodes)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.left = list(next(self.episodes))
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        return self._observe(), -1.0, not self.left, False, {}

    def _observe(self) -> Any:
        shown = self.left.pop(0)
        return np.array([shown], np.float32) if isinstance(shown, float | int) else shown


def curious(n_envs: int = 2, observation: Any = None, action: Any = None, **settings: Any) -> Curiosity:
    return around([lambda: Line(observation, action)] * n_envs, **settings)


def around(envs: Any, **settings: Any) -> Curiosity:
    found = Curiosity(DummyVecEnv(envs), CuriosityConfig(**{"gamma": 0.5, **settings}), seed=3)  # sums of two steps
    found.reset()
    return found


def found_new(venv: Curiosity) -> list[list[bool]]:
    """Of each env, which of the steps since the last rollout brought an observation that is new in its episode."""
    return np.transpose([step.is_new for step in venv._steps]).tolist()


def play(venv: Curiosity, steps: int) -> np.ndarray:
    """Rewards, (steps, n_envs), of actions that do not depend on anything."""
    return np.stack(
        [venv.step(np.array([venv.action_space.sample() for _ in range(venv.num_envs)]))[1] for _ in range(steps)]
    )


def let_errors_be(venv: Curiosity, monkeypatch: pytest.MonkeyPatch, observed: Any, learnt_from: float) -> None:
    """Errors of steps as they are taken, and of batches just before they are learnt from; nothing is learnt.

    :param observed: a number for all steps, or one for each call
    """
    each = iter(observed) if isinstance(observed, list) else itertools.repeat(observed)
    monkeypatch.setattr(venv, "_errors", lambda before, actions, after: np.full(len(actions), next(each)))

    def losses(*_: Any) -> tuple[Any, torch.Tensor]:
        return sum(weights.sum() * 0 for weights in venv.model.parameters()) + learnt_from, torch.tensor(learnt_from)

    monkeypatch.setattr(venv.model, "losses", losses)


def test_rewards_are_the_envs_own_until_a_rollout_was_learnt_from() -> None:
    venv = curious()
    assert (play(venv, 8) == -1).all()
    venv.learn()
    assert (play(venv, 8) != -1).all()


def test_what_is_usual_is_taken_off_and_the_rest_weighted_and_divided_by_the_size_of_its_discounted_sums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    venv = curious(n_envs=1, weight=0.5, gamma=0.5)
    let_errors_be(venv, monkeypatch, [4.0, 2.0], 1.5)
    play(venv, 2)
    logged = venv.learn()  # 1 and -1 are left of 4 and 2, without their mean; the sums: 1; 0.5 * 1 - 1 = -0.5
    assert (logged["intrinsic_reward"], logged["prediction_error"]) == (0, 3)
    assert venv.usual == pytest.approx(1.5)
    assert venv.square == pytest.approx((1 + 0.25) / 2)
    let_errors_be(venv, monkeypatch, 3.0, 2.25)
    bonus = 0.5 * (3 - 1.5) / np.sqrt(0.625)
    assert play(venv, 1)[0, 0] == pytest.approx(-1 + bonus, abs=1e-6)
    assert venv.learn()["intrinsic_reward"] == pytest.approx(
        bonus
    )  # the sum goes on: 0.5 * -0.5 + (3 - 1.5); and it is one of three steps
    assert venv._returns == pytest.approx([1.25])
    assert venv.square == pytest.approx((2 * 0.625 + 1.25**2) / 3)
    usual = (2 * 1.5 + 3) / 3  # when it was played
    assert venv.usual == pytest.approx((2 * usual + 2.25) / 3)


def test_steps_count_alike_until_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    venv = curious(n_envs=2, gamma=0.75)  # four steps until the first bonus
    let_errors_be(venv, monkeypatch, 5.0, 5.0)
    play(venv, 3)
    venv.learn()
    let_errors_be(venv, monkeypatch, 1.0, 1.0)
    play(venv, 1)
    venv.learn()
    assert venv.usual == pytest.approx((3 * 5 + 1) / 4)
    let_errors_be(venv, monkeypatch, 2.0, 2.0)
    for _ in range(30):
        play(venv, 100)
        venv.learn()
    let_errors_be(venv, monkeypatch, 4.0, 4.0)
    play(venv, 50)
    venv.learn()  # 100 of some 200 timesteps, played and learnt from
    assert venv.usual == pytest.approx(2 + 2 * (1 - np.exp(-1)), abs=1e-3)


@pytest.mark.parametrize("steps", [5, 64])
@pytest.mark.parametrize("kind", ["rnd", "icm"])
def test_the_bonus_of_random_play_is_about_0(kind: Any, steps: int) -> None:
    venv = curious(n_envs=4, kind=kind, batch_size=32, weight=1.0, gamma=0.9, observation=spaces.MultiBinary(20))
    bonuses = []
    for _ in range(2_560 // steps):
        bonuses.append(play(venv, steps).mean() + 1)
        venv.learn()
    assert abs(np.mean(bonuses[len(bonuses) // 2 :])) < 0.01


def test_an_env_that_shows_nothing_new_pays_nothing() -> None:
    venv = curious(n_envs=1, observation=spaces.Box(1.0, 1.0, (3,)))
    for _ in range(3):
        play(venv, 10)
        venv.learn()
    assert np.abs(play(venv, 10) + 1).max() < 0.1  # of the weight


def test_what_is_new_beyond_all_measure_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    venv = curious(n_envs=1, weight=2.0)
    play(venv, 10)
    venv.learn()
    let_errors_be(venv, monkeypatch, 1e9, 1e9)
    assert play(venv, 1)[0, 0] == -1 + 2 * 5


def test_a_longer_episode_is_not_paid_for_where_all_steps_are_equally_new(monkeypatch: pytest.MonkeyPatch) -> None:
    venv = curious(n_envs=1, gamma=0.5)
    let_errors_be(venv, monkeypatch, 0.75, 0.75)
    play(venv, 10)
    venv.learn()
    assert play(venv, 10) == pytest.approx(-1.0)


def test_nothing_changes_while_a_rollout_is_played() -> None:
    venv = curious()
    play(venv, 8)
    venv.learn()
    before = {name: array.copy() for name, array in venv.get_state().items()}
    venv.reset()
    venv.action_space.seed(0)
    first = play(venv, 7)
    venv._steps.clear()  # as if they were to be played again
    venv.reset()
    venv.action_space.seed(0)
    assert np.array_equal(play(venv, 7), first)
    assert all(np.array_equal(before[name], array) for name, array in venv.get_state().items())
    venv._steps.clear()
    assert venv.learn() == {}


def test_what_was_seen_often_is_less_surprising_than_what_is_new() -> None:
    venv = curious(batch_size=16)
    losses = []
    for _ in range(150):
        play(venv, 20)
        losses.append(venv.learn()["loss"])
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    here, action = np.array([[2.0, 1.0]], dtype=np.float32), np.array([1])
    known = venv._errors(here, action, np.array([[3.0, 1.0]], dtype=np.float32))
    new = venv._errors(here, action, np.array([[3.0, 90.0]], dtype=np.float32))
    assert new > 3 * known


def test_the_last_observation_of_an_episode_counts_and_not_the_next_ones_first() -> None:
    venv = curious(n_envs=1, kind="icm")
    play(venv, 6)
    before, after = ([float(step[index][0, 0]) for step in venv._steps] for index in (0, 2))
    assert before == [0, 1, 2, 3, 4, 0]
    assert after == [1, 2, 3, 4, 5, 1]


def test_an_episodic_bonus_is_for_what_is_new_in_its_episode_and_old_observations_pay_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    venv = around([lambda: Told([[0, 1, 0, 2, 1, 0, 1]] * 2)], episodic=True, weight=0.5)
    let_errors_be(venv, monkeypatch, 4.0, 3.0)
    play(venv, 2)
    logged = venv.learn()  # 4 and 0 count; the sums: 4; 0.5 * 4
    assert (logged["intrinsic_reward"], logged["prediction_error"]) == (0, 4)
    assert venv.square == pytest.approx((16 + 4) / 2)
    new, *old = play(venv, 3)[:, 0]
    assert new == pytest.approx(-1 + 0.5 * 4 / np.sqrt(10), abs=1e-6)
    assert old == [-1, -1]
    venv.reset()
    assert play(venv, 1)[0, 0] == new


def test_each_env_has_an_episode_of_its_own_whose_last_observation_belongs_to_it() -> None:
    first = Told([[0, 1, 0, 2], [0, 2, 0.0, 1], [0, 0]])
    second = Told([[1, 1, 2], [0, 1, 2, -0.0, 0], [0, 0]])
    venv = around([lambda: first, lambda: second], episodic=True)
    play(venv, 6)
    assert found_new(venv) == [[True, False, True, True, False, True], [False, True, True, True, False, False]]


@pytest.mark.parametrize(
    ("space", "one", "other"),
    [
        (spaces.Discrete(7), np.int64(3), np.int64(4)),
        (spaces.MultiBinary(2), np.array([0, 1], np.int8), np.array([1, 0], np.int8)),
        (
            spaces.Box(0, 255, (1, 36, 36), np.uint8),
            np.zeros((1, 36, 36), np.uint8),
            np.eye(36, dtype=np.uint8)[None],
        ),
        (
            spaces.Dict({"here": spaces.Box(0, 1, (2,)), "there": spaces.Discrete(3)}),
            {"here": np.ones(2, np.float32), "there": 1},
            {"here": np.ones(2, np.float32), "there": 2},
        ),
    ],
    ids=["discrete", "multi-binary", "image", "dict"],
)
def test_observations_of_every_space_are_told_apart_by_all_their_numbers(space: Any, one: Any, other: Any) -> None:
    venv = around([lambda: Told([[one, one, other, one, other]] * 2, space)], episodic=True)
    play(venv, 3)
    assert found_new(venv) == [[False, True, False]]


def test_the_target_of_distillation_is_never_trained() -> None:
    venv = curious()
    before = [parameter.clone() for parameter in venv.model.target.parameters()]  # type: ignore[union-attr]
    play(venv, 20)
    venv.learn()
    assert all(map(torch.equal, before, venv.model.target.parameters()))  # type: ignore[union-attr]


def test_icm_trains_its_features_to_tell_the_action_and_not_to_be_predictable() -> None:
    torch.manual_seed(0)
    observations = Observations(spaces.Box(-1, 1, (3,), np.float32))
    model = NextState(observations, spaces.Discrete(4))
    before, after = (observations(np.random.default_rng(i).normal(size=(8, 3)).astype(np.float32)) for i in (0, 1))
    actions = torch.arange(8) % 4
    model.losses(before, actions, after)[0].backward()
    together = [parameter.grad.clone() for parameter in model.encoder.parameters() if parameter.grad is not None]
    model.zero_grad()
    guesses = model.inverse(torch.cat([model.encoder(before), model.encoder(after)], dim=1))
    torch.nn.functional.cross_entropy(guesses, actions).backward()
    alone = [parameter.grad for parameter in model.encoder.parameters()]
    assert all(torch.allclose(one, other) for one, other in zip(together, alone, strict=True) if other is not None)


IMAGE = spaces.Box(0, 255, (1, 40, 40), np.uint8)


def test_rollouts_that_are_shorter_than_a_discounted_sum_give_no_moments_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    venv = curious(n_envs=1, gamma=0.9, weight=1.0)
    let_errors_be(venv, monkeypatch, [1.0, 3.0] * 200, 2.0)
    bonuses = []
    for _ in range(40):
        bonuses.append(play(venv, 2)[-1, 0] + 1)
        venv.learn()
    assert bonuses[:5] == [0] * 5  # ten steps
    # 1 above what is usual, and 1 below, in turn: the sums go to 1 / (1 + 0.9) and its negative.
    assert all(1.5 < bonus < 2.0 for bonus in bonuses[5:])


def test_choices_count_from_0_as_policies_give_them_and_numbers_are_scaled_to_their_bounds() -> None:
    venv = curious(action=spaces.Discrete(3, start=5), kind="icm")
    for action in (0, 2, 1):
        venv.step(np.array([action, action]))
    assert np.isfinite(venv.learn()["loss"])
    wide = spaces.Box(np.array([-1000.0, 0.0], np.float32), np.array([1000.0, 0.02], np.float32))
    assert torch.allclose(_codes(wide, torch.tensor([[500.0, 0.02], [9999.0, 0.0]])), torch.tensor([[0.5, 1], [1, -1]]))


@pytest.mark.parametrize("kind", ["rnd", "icm"])
@pytest.mark.parametrize(
    "observation",
    [
        spaces.Discrete(7),
        spaces.MultiDiscrete([3, 2]),
        spaces.MultiBinary(4),
        IMAGE,
        spaces.Dict({"image": IMAGE, "small": spaces.Box(0, 255, (3, 7, 7), np.uint8), "goal": spaces.Discrete(3)}),
    ],
    ids=["discrete", "multi-discrete", "multi-binary", "image", "dict"],
)
@pytest.mark.parametrize(
    "action",
    [spaces.Discrete(3), spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(2)],
    ids=["discrete", "box", "multi-discrete", "multi-binary"],
)
def test_every_space_that_policies_read_is_understood_and_kept(kind: str, observation: Any, action: Any) -> None:
    venv = curious(observation=observation, action=action, kind=kind, episodic=True)
    play(venv, 6)
    assert np.isfinite(venv.learn()["loss"])
    assert np.isfinite(play(venv, 2)).all()
    venv.learn()
    other = curious(observation=observation, action=action, kind=kind, episodic=True)
    other.set_state(venv.get_state())
    for one in (venv, other):
        one.reset()
        one.action_space.seed(0)
        np.random.seed(0)
        play(one, 6)
        one.learn()
    kept, restored = venv.get_state(), other.get_state()
    assert kept.keys() == restored.keys()
    assert all(np.array_equal(kept[name], restored[name]) for name in kept)


@pytest.mark.parametrize("settings", [{"kind": "icm"}, {"episodic": True}], ids=["kind", "episodic"])
def test_curiosity_of_another_kind_is_not_alike(settings: Any) -> None:
    state = curious().get_state()
    assert curious().is_alike(state)
    assert not curious(**settings).is_alike(state)
    del state["episodic"]  # as before there was the choice
    assert curious().is_alike(state)
    assert not curious(**settings).is_alike(state)


def test_the_state_of_another_env_is_refused() -> None:
    venv = curious()
    with pytest.raises(UsageError, match="does not fit this config"):
        venv.set_state(curious(observation=spaces.Discrete(4)).get_state())
    with pytest.raises(UsageError, match="does not fit this config"):
        venv.set_state(curious(kind="icm").get_state())


# -- in a run


def config(**more: Any) -> dict[str, Any]:
    return {
        "algo": "ppo",
        "env": {"id": "MountainCar-v0", "n_envs": 2},
        "normalize": True,
        "curiosity": {"kind": "rnd", "weight": 1.0},
        "total_timesteps": 1600,
        "hyperparameters": {"n_steps": 100, "batch_size": 100, "n_epochs": 2},
        "checkpoint": {"every": 400},
        "evaluation": {"every": 800, "episodes": 2},
        "trackers": [],
        "threads": 1,
        **more,
    }


@pytest.mark.parametrize("kind", ["rnd", "icm"])
def test_a_killed_run_goes_on_exactly_and_returns_are_the_envs_own(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(folder: Path) -> Any:
        settings = config(curiosity={"kind": kind, "weight": 1.0})
        return rlrun.train(settings, run_dir=folder, name="run", progress=False)

    undisturbed = train(tmp_path / "undisturbed")
    assert_same(undisturbed, killed_and_resumed(train, tmp_path / "killed", 1100, monkeypatch))
    for name in ("episodes.csv", "evaluations.csv"):
        assert all(float(row["return"]) == -float(row["length"]) for row in rows(undisturbed, name))
    errors, bonuses = (
        [float(row[name]) for row in rows(undisturbed, "metrics.csv") if row.get(name)]
        for name in ("curiosity/prediction_error", "curiosity/intrinsic_reward")
    )
    assert min(errors) > 0
    assert any(bonuses)


def test_a_killed_run_with_an_episodic_bonus_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"id": "FrozenLake-v1", "n_envs": 2}
    settings = config(env=env, normalize=False, curiosity={"kind": "icm", "episodic": True, "gamma": 0.9})

    def train(folder: Path) -> Any:
        return rlrun.train(settings, run_dir=folder, name="run", progress=False)

    undisturbed = train(tmp_path / "undisturbed")
    assert_same(undisturbed, killed_and_resumed(train, tmp_path / "killed", 1100, monkeypatch))


def test_a_run_from_another_ones_weights_begins_with_its_curiosity(tmp_path: Path) -> None:
    parent = rlrun.train(config(), run_dir=tmp_path, name="parent", progress=False)
    settings = config(init_from=str(parent.path), env={"id": "MountainCar-v0", "n_envs": 3})
    plan = make_plan(read_source({**settings, "total_timesteps": 600}))
    venv, _ = plan.recipe.make_training_vec()
    model = build_model(plan.config, venv)
    start_from(model, kept := read_parent(parent.path))
    found = find_curiosity(model.env)
    assert found is not None
    assert kept.curiosity is not None
    assert found.get_state()["usual"] == kept.curiosity["usual"] > 0
    assert found.get_state()["returns"].shape == (3,)
    child = rlrun.train({**settings, "total_timesteps": 600}, run_dir=tmp_path, name="child", progress=False)
    assert child.status == "finished"
    begun = rlrun.train({**settings, "curiosity": {"kind": "icm"}}, run_dir=tmp_path, name="other", progress=False)
    assert begun.status == "finished", "of another kind it begins anew"
    assert read_parent(parent.directory.checkpoint_path(1600) / "model.zip").curiosity is not None
    with (parent.path / "config.yaml").open("a") as file:
        file.write("of_a_later_version: 1\n")
    assert (read_parent(parent.path).algo, kept.algo) == (None, "ppo")


def test_it_changes_what_is_learnt(tmp_path: Path) -> None:
    weights = []
    for index, curiosity in enumerate((None, {"kind": "rnd", "weight": 1.0})):
        run = rlrun.train(config(curiosity=curiosity), run_dir=tmp_path / str(index), name="run", progress=False)
        weights.append(final_state(run)["model.policy.action_net.weight"])
    assert not np.array_equal(*weights)


def test_it_is_for_on_policy_algorithms(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dqn has no rollouts of a fixed length, from which curiosity learns"):
        rlrun.train(config(algo="dqn", hyperparameters={}), run_dir=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_evaluation_is_without_it() -> None:
    plan = make_plan(read_source(config(normalize=None)))
    recipe: EnvRecipe = plan.recipe
    training, _ = recipe.make_training_vec()
    evaluation = recipe.make_vec(Role.EVAL, [[1]])
    try:
        assert find_curiosity(training) is not None
        assert find_curiosity(evaluation) is None
    finally:
        training.close()
        evaluation.close()
