"""`rlrun check-env` finds what is wrong with an env, says it in a sentence, and finds nothing wrong with a good one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from rlrun.config.schema import EnvConfig
from rlrun.envs import check, random_play
from rlrun.envs.check import EnvReport, Finding, check_env
from rlrun.errors import UsageError

ENVS = '''
import multiprocessing
import os
import random

import gymnasium as gym
import numpy as np


class Good(gym.Env):
    """Walk to the end; the spaces belong to the class, as in many envs."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = gym.spaces.Box(-4, 4, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def observation(self):
        return self.place.copy()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(-1, 1, 2).astype(np.float32), 0
        return self.observation(), {}

    def step(self, action):
        self.place = np.clip(self.place + 0.1 * np.float32(action[0]), -4, 4)
        self.steps += 1
        return self.observation(), float(self.place[0]), bool(self.place[1] > 2), self.steps >= 30, {}

    def render(self):
        return np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)


class Forgetful(Good):
    """Draws from the system when its reset has no seed, as panda-gym does."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.random.default_rng(seed).uniform(-1, 1, 2).astype(np.float32)
        return self.observation(), {}


class Careless(Good):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place[0] = random.random()
        return self.observation(), {}


class WrongShape(Good):
    def observation(self):
        return np.append(self.place, 0.0)


class WrongType(Good):
    def observation(self):
        return self.place.astype(np.float64)


class Unseen(Good):
    metadata = {"render_modes": ["human", "ansi"]}

    def __init__(self):
        pass


class Plain(Good):
    __init__ = object.__init__


class Blank(Good):
    def render(self):
        return np.full((20, 30, 3), 7, np.uint8)


class NotANumber(Good):
    def observation(self):
        return np.array([self.place[0], np.nan if self.steps == 20 else 0], np.float32)


class InfiniteReward(Good):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float("inf"), *rest


class Unbounded(Good):
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def step(self, action):
        return super().step(np.tanh(action))


class Lopsided(Good):
    action_space = gym.spaces.Box(0, 3, (1,), np.float32)


class PairOfActions(Good):
    action_space = gym.spaces.Tuple((gym.spaces.Box(-1, 1, (1,), np.float32),))

    def step(self, action):
        return super().step(action[0])


class Wide(Good):
    observation_space = gym.spaces.Dict(
        near=gym.spaces.Box(-4, 4, (2,), np.float32),
        far=gym.spaces.Box(-1e6, 1e6, (2, 1), np.float32),
        picture=gym.spaces.Box(0, 255, (40, 40, 3), np.uint8),
    )

    def observation(self):
        picture = np.full((40, 40, 3), self.steps % 256, np.uint8)
        return {"near": self.place.copy(), "far": 1e4 * self.place.reshape(2, 1), "picture": picture}


class Talk(Good):
    observation_space = gym.spaces.Dict(heard=gym.spaces.Text(5), place=Good.observation_space)

    def observation(self):
        return {"heard": "hello", "place": self.place.copy()}


class Endless(Good):
    def step(self, action):
        observation, reward, *_ = super().step(action)
        return observation, reward, False, False, {}


class Broken(Good):
    def step(self, action):
        print("about to break")
        if self.steps == 3:
            raise KeyError("missing")  # the line that must be named
        return super().step(action)


class Reaching(Good):
    """Rewards one goal at a time, where HER relabels many."""

    observation_space = gym.spaces.Dict(
        {key: Good.observation_space for key in ("observation", "achieved_goal", "desired_goal")}
    )

    def observation(self):
        return {key: self.place.copy() for key in self.observation_space}

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, self.compute_reward(observation["achieved_goal"], observation["desired_goal"], {}), *rest

    def compute_reward(self, achieved, desired, info):
        return float(achieved[0] == desired[0])


class Frail(Good):
    """Dies wherever it is not in the process that began."""

    def __init__(self):
        if multiprocessing.parent_process():
            os._exit(3)


class Secretive(Good):
    """Its steps return what cannot leave the process."""

    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {"secret": lambda: 0}
'''
EVERY_CHECK = [
    *("builds", "gymnasium", "sb3", "process", "renders", "actions", "repeatable", "reset"),
    *("speed", "finite", "observations", "rewards", "episodes"),
]
Checked = Callable[..., dict[str, Finding]]


@pytest.fixture(scope="module")
def envs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("envs")
    (folder / "checked_envs.py").write_text(ENVS, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _path_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def findings(envs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Checked:
    """The findings of one of the classes above, by name; without the fresh process, which takes seconds."""

    def _process(recipe: Any) -> tuple[str, str]:
        return "ok", "Not tried."

    def checked(name: str, **settings: Any) -> dict[str, Finding]:
        with monkeypatch.context() as patch:
            patch.setattr(check, "_process", _process)
            env = EnvConfig.model_validate({"id": f"checked_envs:{name}", **settings})
            return {finding.name: finding for finding in check_env(env, (str(envs_folder),)).findings}

    return checked


def troubles(findings: dict[str, Finding]) -> dict[str, str]:
    """What is not ``ok``."""
    return {finding.name: finding.result for finding in findings.values() if finding.result != "ok"}


def test_cartpole_passes_every_check() -> None:
    report = check_env(EnvConfig.model_validate({"id": "CartPole-v1"}), ())
    assert [finding.name for finding in report.findings] == EVERY_CHECK
    assert [finding for finding in report.findings if finding.result != "ok"] == []
    assert report.passed
    details = {finding.name: finding.detail for finding in report.findings}
    assert details["rewards"] == "Always 1."
    assert details["episodes"].startswith("At most 500 steps;")
    assert details["renders"] == "Frames of 600 x 400 pixels."


def test_panda_passes_because_every_one_of_its_resets_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("panda_gym")
    monkeypatch.setattr(random_play, "_STEPS", 200)
    found = {f.name: f for f in check_env(EnvConfig.model_validate({"id": "PandaReachDense-v3"}), ()).findings}
    assert troubles(found) == {}
    assert "every reset seeded" in found["repeatable"].detail
    unseeded = EnvConfig.model_validate({"id": "PandaReachDense-v3", "seed_every_reset": False})
    result, detail = check._repeatable(check.EnvRecipe(unseeded, None, 0, {}, ()))
    assert (result, "`env.seed_every_reset: true`" in detail) == ("failed", True)


def test_an_own_env_that_is_right_passes_every_check(findings: Checked) -> None:
    found = findings("Good")
    assert list(found) == EVERY_CHECK
    assert troubles(found) == {}
    assert found["builds"].detail == "Observations Box(2,) float32; actions Box(1,) float32."
    assert found["episodes"].detail.endswith("there is no time limit.")


def test_the_report_is_plain_json() -> None:
    report = EnvReport("Mine-v0", (Finding("builds", "ok", "Yes."), Finding("finite", "failed", "No.")))
    values = json.loads(json.dumps(report.as_dict()))
    assert values == {
        "env": "Mine-v0",
        "passed": False,
        "findings": [
            {"name": "builds", "result": "ok", "detail": "Yes."},
            {"name": "finite", "result": "failed", "detail": "No."},
        ],
    }


@pytest.mark.parametrize("result", ["ok", "warning", "skipped"])
def test_only_a_failed_check_fails_the_report(result: str) -> None:
    assert EnvReport("Mine-v0", (Finding("builds", result, ""),)).passed


def test_an_env_that_cannot_be_built_is_a_usage_error(envs_folder: Path) -> None:
    with pytest.raises(UsageError, match="there is no env"):
        check_env(EnvConfig.model_validate({"id": "Nowhere-v0"}), ())
    misspelt = EnvConfig.model_validate({"id": "checked_envs:Good", "kwargs": {"render_mod": "human"}})
    with pytest.raises(UsageError, match='has no keyword "render_mod"'):
        check_env(misspelt, (str(envs_folder),))


def test_entropy_at_unseeded_resets_is_found_and_its_cure_named(findings: Checked) -> None:
    found = findings("Forgetful")
    assert found["repeatable"].result == "failed"
    assert "differ from reset 2 on" in found["repeatable"].detail
    assert "set `env.seed_every_reset: true`" in found["repeatable"].detail
    assert findings("Forgetful", seed_every_reset=True)["repeatable"].result == "ok"


def test_random_numbers_from_elsewhere_cannot_be_cured_by_a_setting(findings: Checked) -> None:
    found = findings("Careless")["repeatable"]
    assert found.result == "failed"
    assert "`self.np_random`" in found.detail
    assert "seed_every_reset" not in found.detail


@pytest.mark.parametrize(
    ("name", "what"),
    [("WrongShape", "Expected: (2,), actual shape: (3,)"), ("WrongType", "Expected: float32, actual dtype: float64")],
)
def test_observations_outside_their_space_fail_the_two_checkers(findings: Checked, name: str, what: str) -> None:
    found = findings(name)
    assert found["gymnasium"].result == "failed"
    assert found["sb3"].result == "failed"
    assert what in found["sb3"].detail
    assert found["repeatable"].result == "ok"


def test_an_env_without_rgb_array_is_warned_about_with_the_modes_it_has(findings: Checked) -> None:
    found = findings("Unseen")
    assert troubles(found) == {"renders": "warning"}
    assert found["renders"].detail.endswith("Its render modes: human, ansi.")


@pytest.mark.parametrize("name", ["Unseen", "Plain"])
def test_an_env_whose_constructor_takes_no_render_mode_is_warned_about(findings: Checked, name: str) -> None:
    found = findings(name)
    assert troubles(found) == {"renders": "warning"}
    assert found["renders"].detail.startswith(
        "No video can be made of it: its constructor takes no `render_mode`. Its render modes: "
    )


def test_a_frame_of_one_colour_is_warned_about(findings: Checked) -> None:
    found = findings("Blank")["renders"]
    assert (found.result, "blank" in found.detail) == ("warning", True)


def test_nan_is_found_and_its_component_named(findings: Checked) -> None:
    found = findings("NotANumber")
    assert found["finite"].result == "failed"
    assert found["finite"].detail.endswith("component 1.")
    assert found["repeatable"].result == "ok"


def test_an_infinite_reward_is_found(findings: Checked) -> None:
    assert findings("InfiniteReward")["finite"].detail.endswith("the reward.")


def test_an_action_without_bounds_fails(findings: Checked) -> None:
    found = findings("Unbounded")["actions"]
    assert (found.result, "infinite" in found.detail) == ("failed", True)


def test_the_advice_for_actions_that_are_not_normalized_cures_them(findings: Checked) -> None:
    found = findings("Lopsided")["actions"]
    assert (found.result, found.detail[:12]) == ("warning", "From 0 to 3;")
    assert "{RescaleAction: {min_action: -1, max_action: 1}}" in found.detail
    cured = findings("Lopsided", wrappers=[{"RescaleAction": {"min_action": -1, "max_action": 1}}])
    assert troubles(cured) == {}


def test_actions_that_no_algorithm_takes_fail(findings: Checked) -> None:
    assert findings("PairOfActions")["actions"].result == "failed"


def test_observations_that_no_policy_reads_fail(findings: Checked) -> None:
    found = findings("Talk")["sb3"]
    assert (found.result, "reads Text" in found.detail) == ("failed", True)
    kept = findings("Talk", wrappers=[{"FilterObservation": {"filter_keys": ["place"]}}])
    assert kept["sb3"].result == "ok"


def test_wide_observations_suggest_normalize_and_images_do_not(findings: Checked) -> None:
    found = findings("Wide")["observations"]
    assert found.result == "warning"
    assert "`normalize: true`" in found.detail
    assert "0 of far spans" in found.detail
    assert "picture" not in found.detail


def test_an_endless_env_is_warned_about_and_a_time_limit_cures_it(findings: Checked) -> None:
    found = findings("Endless")["episodes"]
    assert (found.result, "TimeLimit" in found.detail) == ("warning", True)
    cured = findings("Endless", wrappers=[{"TimeLimit": {"max_episode_steps": 40}}])["episodes"]
    assert (cured.result, cured.detail[:17]) == ("ok", "At most 40 steps;")


def test_what_an_env_raises_becomes_a_sentence_and_stops_no_other_check(
    findings: Checked, capfd: pytest.CaptureFixture[str]
) -> None:
    found = findings("Broken")
    line = ENVS.splitlines().index('            raise KeyError("missing")  # the line that must be named') + 1
    assert found["speed"] == Finding("speed", "failed", f"KeyError: 'missing' (checked_envs.py, line {line}).")
    assert found["gymnasium"].result == "ok"  # it takes few steps
    assert found["renders"].result == "ok"
    assert [found[name].result for name in EVERY_CHECK[-4:]] == ["skipped"] * 4
    assert capfd.readouterr() == ("", "")  # not even what the env prints


def test_goals_that_cannot_be_relabelled_are_a_warning_about_her(findings: Checked) -> None:
    found = findings("Reaching")["sb3"]
    assert (found.result, found.detail[:17]) == ("warning", "HER may not work:")
    assert findings("Reaching", wrappers=["FlattenObservation"])["sb3"].result == "ok"


def in_a_process(name: str, folder: Path) -> tuple[str, str]:
    env = EnvConfig.model_validate({"id": name})
    return check._process(check.EnvRecipe(env, None, 0, {}, (str(folder),)))


def test_an_env_registered_in_this_process_only_fails_in_a_fresh_one(envs_folder: Path) -> None:
    sys.path.append(str(envs_folder))
    gym.register("HereOnly-v0", entry_point="checked_envs:Good")
    try:
        result, detail = in_a_process("HereOnly-v0", envs_folder)
    finally:
        del gym.registry["HereOnly-v0"]
    assert result == "failed"
    assert "`env.imports`" in detail
    assert "checked_envs:Good" in detail


def test_a_step_that_cannot_leave_its_process_fails(envs_folder: Path) -> None:
    result, detail = in_a_process("checked_envs:Secretive", envs_folder)
    assert (result, "pickle" in detail) == ("failed", True)


def test_a_fresh_process_that_dies_fails(envs_folder: Path) -> None:
    assert in_a_process("checked_envs:Frail", envs_folder) == ("failed", "A fresh process died of it.")


def test_a_fresh_process_that_hangs_is_killed(envs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_PATIENCE", 0.0)
    assert in_a_process("checked_envs:Good", envs_folder) == ("failed", "A fresh process was not ready in 0 s.")
