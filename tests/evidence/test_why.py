"""why: each rule sees what it is about, names its number, and keeps quiet about a healthy run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlrun
from rlrun.evidence.why import Finding, why
from rlrun.runs.directory import RunDirectory
from rlrun.runs.files import to_yaml, write_whole

STEPS = np.arange(1_000, 101_000, 1_000)  # of a run of 100,000 timesteps


def run_that_logged(
    path: Path,
    returns: Sequence[float],
    lengths: Sequence[float] | None = None,
    evaluations: dict[int, Sequence[float]] | None = None,
    success: str = "",
    config: dict[str, Any] | None = None,
    **metrics: Sequence[float],
) -> RunDirectory:
    """A run directory with these logs; ``train__loss`` is ``train/loss``."""
    path.mkdir()
    values = {"algo": "ppo", "env": {"id": "CartPole-v1"}, "total_timesteps": 100_000, **(config or {})}
    write_whole(path / "config.yaml", to_yaml(values))
    names = [name.replace("__", "/") for name in metrics]
    rows = zip(STEPS, *metrics.values(), strict=True)
    write_whole(
        path / "metrics.csv", "\n".join([",".join(["timesteps", *names]), *(",".join(map(str, r)) for r in rows)])
    )
    when = np.linspace(100, 100_000, len(returns)).astype(int)
    lines = [
        f"{step},0,{ret},{length},{success}"
        for step, ret, length in zip(when, returns, lengths or [10.0 + i % 7 for i in range(len(returns))], strict=True)
    ]
    write_whole(path / "episodes.csv", "\n".join(["timesteps,env,return,length,success", *lines]))
    lines = [f"{step},{i},0,{ret},1," for step, rets in (evaluations or {}).items() for i, ret in enumerate(rets)]
    write_whole(path / "evaluations.csv", "\n".join(["timesteps,episode,seed,return,length,success", *lines]))
    return RunDirectory(path)


def noisy(start: float, end: float, count: int = 200) -> list[float]:
    """Returns that go from one value to another, with noise."""
    noise = np.random.default_rng(0).normal(0, 1, count)
    return [float(value) for value in np.linspace(start, end, count) + noise]


def evaluations_of(means: Sequence[float]) -> dict[int, list[float]]:
    """Evaluations of ten episodes each."""
    noise = np.random.default_rng(1).normal(0, 1, (len(means), 10))
    return {10_000 * (i + 1): [float(mean + n) for n in noise[i]] for i, mean in enumerate(means)}


DQN: dict[str, Any] = {"algo": "dqn", "hyperparameters": {"learning_starts": 80_000}}
LEARNT, STUCK = noisy(0, 50), noisy(5, 5)
STEADY = np.linspace(-0.69, -0.3, 100)
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "not_finite": ({"returns": LEARNT, "train__loss": [*np.ones(50), *np.full(50, np.inf)]}, 51_000),
    "not_finite nan": ({"returns": LEARNT, "train__loss": [*np.ones(50), *np.full(50, np.nan)]}, 51_000),
    "starts_late": (
        {"returns": LEARNT, "config": {"algo": "dqn", "hyperparameters": {"learning_starts": 80_000}}},
        0.8,
    ),
    "never_successful": ({"returns": STUCK, "success": "0"}, 200),
    "entropy": ({"returns": STUCK, "train__entropy_loss": [*np.linspace(-0.69, -0.01, 40), *np.full(60, -0.01)]}, 0.04),
    "time_limit": ({"returns": STUCK, "lengths": [200.0] * 200}, 1.0),
    "jump": ({"returns": LEARNT, "train__approx_kl": [133.0, *[0.0] * 99]}, 133.0),
    "steps_too_large": ({"returns": LEARNT, "train__approx_kl": [0.3] * 100, "train__clip_fraction": [0.6] * 100}, 0.3),
    "critic_grows": ({"returns": STUCK, "train__value_loss": np.geomspace(1, 1e6, 100)}, 31_000),
    "critic_explains_nothing": ({"returns": STUCK, "train__explained_variance": [-0.5] * 100}, -0.5),
    "never_learnt": ({"returns": STUCK}, 5.0),
    "still_exploring": ({"returns": LEARNT, "config": DQN, "rollout__exploration_rate": np.linspace(1, 0.4, 100)}, 0.4),
    "evaluated_worse": ({"returns": LEARNT, "evaluations": evaluations_of([0, 1, 2, 3])}, 40),
    "forgotten": ({"returns": LEARNT, "evaluations": evaluations_of([0, 20, 45, 50, 49, 5])}, 45),
    "luck": ({"returns": LEARNT, "evaluations": evaluations_of([30, 40, 41, 40, 49, 41, 40, 41, 40])}, 14),
}


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_names_the_number_it_saw_and_what_to_try(rule: str, tmp_path: Path):
    logs, value = CASES[rule]
    config = {"evaluation": {"deterministic": True}, **logs.get("config", {})}
    (finding,) = [
        f for f in why(run_that_logged(tmp_path / "run", **{**logs, "config": config})) if f.rule == rule.split()[0]
    ]
    assert finding.value == pytest.approx(value, rel=0.25)
    assert any(digit.isdigit() for digit in finding.sentence)
    assert finding.advice.startswith("--")


def test_a_run_in_its_beginning_has_not_failed_yet(tmp_path: Path):
    early = {"total_timesteps": 1_000_000, "algo": "dqn"}
    run = run_that_logged(tmp_path / "run", STUCK, config=early, rollout__exploration_rate=np.linspace(1, 0.9, 100))
    assert why(run) == []


def test_exploration_that_never_ends_is_told_from_one_that_ends_late(tmp_path: Path):
    config = {"algo": "dqn", "hyperparameters": {"exploration_final_eps": 0.5}}
    run = run_that_logged(tmp_path / "run", LEARNT, config=config, rollout__exploration_rate=np.linspace(1, 0.5, 100))
    assert [finding.advice for finding in why(run)] == ["--set hyperparameters.exploration_final_eps=0.05"]


def test_hindsight_is_advised_where_there_are_goals(tmp_path: Path):
    goals = {"algo": "sac", "env": {"id": "PandaReach-v3"}, "hyperparameters": {"policy": "MultiInputPolicy"}}
    found = {f.rule: f for f in why(run_that_logged(tmp_path / "goals", STUCK, success="0", config=goals))}
    assert found["never_successful"].advice == "--set hyperparameters.replay_buffer_class=HerReplayBuffer"
    found = {f.rule: f for f in why(run_that_logged(tmp_path / "none", STUCK, success="0"))}
    assert found["never_successful"].advice == "--timesteps 1000000"


def test_a_healthy_run_has_no_finding(tmp_path: Path):
    run = run_that_logged(
        tmp_path / "run",
        LEARNT,
        evaluations=evaluations_of([5, 20, 35, 44, 48, 50, 49, 50, 51, 50]),
        train__entropy_loss=STEADY,
        train__approx_kl=[0.01] * 100,
        train__clip_fraction=[0.1] * 100,
        train__value_loss=np.linspace(10, 100, 100),
        train__explained_variance=[0.8] * 100,
    )
    assert why(run) == []


def test_a_run_that_solved_its_task_early_may_be_sure_of_its_actions(tmp_path: Path):
    solved = [*noisy(0, 50, 40), *[50.0] * 160]
    run = run_that_logged(tmp_path / "run", solved, [500.0] * 200, train__entropy_loss=[-0.69] * 20 + [-0.001] * 80)
    assert why(run) == []


def test_a_run_that_has_just_begun_has_no_finding(tmp_path: Path):
    assert why(run_that_logged(tmp_path / "run", [1.0, 2.0])) == []
    (tmp_path / "run" / "metrics.csv").write_text("")
    (tmp_path / "run" / "episodes.csv").unlink()
    assert why(RunDirectory(tmp_path / "run")) == []


def test_the_advice_can_be_given_to_train(folder: Path):
    for rule, (logs, _) in CASES.items():
        config = {"evaluation": {"deterministic": True}, **logs.get("config", {})}
        found = why(run_that_logged(folder / rule, **{**logs, "config": config}))
        for advice in (f.advice for f in found if f.rule == rule.split()[0] and "--set" in f.advice):
            key, _, value = advice.removeprefix("--set ").partition("=")
            rlrun.check(
                {"algo": "ppo", "env": {"id": "CartPole-v1"}, "total_timesteps": 10, **config},
                overrides=[
                    rlrun.config.loading.Override.parse(f"{key}={value}")  # type: ignore[attr-defined]
                ],
            )


def test_observations_of_very_unlike_scales_are_seen(folder: Path, rlrun_command: Callable[..., Any]):
    (folder / "wide.py").write_text(
        "import gymnasium, numpy\n"
        "class Wide(gymnasium.Env):\n"
        "    observation_space = gymnasium.spaces.Box(-1e6, 1e6, (2,), numpy.float32)\n"
        "    action_space = gymnasium.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        self.t = 0\n"
        "        return self.look(), {}\n"
        "    def look(self):\n"
        "        return (self.np_random.random(2) * [1e-3, 1e4]).astype(numpy.float32)\n"
        "    def step(self, action):\n"
        "        self.t += 1\n"
        "        return self.look(), 1.0, self.t == 5, False, {}\n"
    )
    config = {"algo": "a2c", "env": {"id": "wide:Wide"}, "total_timesteps": 20, "trackers": []}
    run = rlrun.train(config, progress=False)
    said = rlrun_command("why", str(run.path), "--json")
    assert said.code == 0, said.err
    rules = {finding["rule"]: finding for finding in json.loads(said.out)["findings"]}
    assert rules["observations"]["value"] == pytest.approx(1e4, rel=0.1)
    assert "normalize" in rules["observations"]["advice"]
    normalized = rlrun.train({**config, "normalize": True}, progress=False)
    assert rlrun_command("why", str(normalized.path)).out.strip() == "Nothing looks wrong."


def test_why_takes_no_folder_from_a_stranger(folder: Path):
    config = {"algo": "a2c", "env": {"id": "CartPole-v1"}, "total_timesteps": 20, "trackers": []}
    run = rlrun.train(config, progress=False)
    run.directory.update_manifest({"import_paths": [str(folder / "evil")], "signature": "x"})
    why(run.directory, play=True)
    assert str(folder / "evil") not in sys.path


def test_a_finding_is_plain_data():
    assert Finding("luck", 3.5, "It was luck.", "").as_dict() == {
        "rule": "luck",
        "value": 3.5,
        "sentence": "It was luck.",
        "advice": "",
    }
