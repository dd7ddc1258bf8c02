"""``rlrun bench``: what is measured, what wins, and what is said of ways that fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparing import needs_panda
from stable_baselines3 import A2C, DQN

import rlrun
from rlrun import benchmark
from rlrun.benchmark import BenchReport, Way
from rlrun.errors import RlrunError
from rlrun.training.stopwatch import Stopwatch

CARTPOLE = {
    "algo": "dqn",
    "env": {"id": "CartPole-v1"},
    "total_timesteps": 2000,
    "hyperparameters": {"learning_starts": 100},
    "evaluation": {"every": 500, "episodes": 1},
    "early_stop": {"mean_return": 5},
}


def stages(*wanted: list[dict[str, Any]]) -> Callable[[Any], Any]:
    return lambda plan: iter(wanted)


def test_each_way_is_trained_and_what_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = stages([{"accelerate": "off"}, {"env.vec": "nowhere"}], [{"threads": 1}])
    monkeypatch.setattr(benchmark, "_stages", wanted)
    said: list[str] = []
    report = rlrun.bench(CARTPOLE, seconds=1, progress=said.append)
    first, plain, failed, last = report.ways
    assert first.settings == {}
    assert first.options == ""
    assert plain.settings == {"accelerate": "off"}
    assert first.speed is not None
    assert plain.speed is not None
    assert failed.speed is None
    assert "nowhere" in failed.detail
    assert last.settings["threads"] == 1
    assert [line.split(":")[0] for line in said][:2] == ["the config as it is", "--set accelerate=off"]
    values = report.as_dict()
    assert values["ways"][0]["ratio"] == 1
    assert values["ways"][2]["timesteps_per_second"] is None
    json.dumps(values)


def test_a_config_that_cannot_be_trained_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_stages", stages())
    monkeypatch.setattr(benchmark, "_measured", lambda *_: Way({}, None, "the env exploded"))
    with pytest.raises(RlrunError, match=r"cannot be trained here: the env exploded"):
        rlrun.bench(CARTPOLE)


def test_the_best_of_each_stage_is_kept_and_noise_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"": 100, "a": 150, "b": 120, "ac": 154, "ad": 300}
    seen: list[dict[str, Any]] = []

    def measured(plan: Any, settings: dict[str, Any], seconds: float) -> Way:
        seen.append(settings)
        return Way(settings, speeds["".join(settings)])

    monkeypatch.setattr(benchmark, "_measured", measured)
    monkeypatch.setattr(benchmark, "_stages", stages([{"a": 1}, {"b": 1}], [{"c": 1}]))
    assert rlrun.bench(CARTPOLE).fastest.options == "--set a=1"
    assert seen[-1] == {"a": 1, "c": 1}
    monkeypatch.setattr(benchmark, "_stages", stages([{"a": 1}, {"b": 1}], [{"c": 1}, {"d": 1}]))
    report = rlrun.bench(CARTPOLE)
    assert report.fastest.options == "--set a=1 --set d=1"
    assert report.as_dict()["set"] == "--set a=1 --set d=1"


def test_nothing_that_fails_wins() -> None:
    assert BenchReport((Way({}, 10.0), Way({"a": 1}, None, "no"))).fastest.settings == {}


def test_what_is_tried_fits_the_config_and_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "usable_cores", lambda: 4)
    tried = [stage for stage in benchmark._stages(rlrun.check(CARTPOLE)) if stage]
    assert tried == [[{"accelerate": "off"}], [{"threads": 2}, {"threads": 4}]]
    pixels = "ALE-Pong-v5/ppo"
    tried = [stage for stage in benchmark._stages(rlrun.check(pixels)) if stage]
    assert tried[0] == [{"accelerate": "off"}, {"accelerate": "bfloat16"}]
    assert tried[1] == [{"env.vec": "serial"}, {"env.vec": "workers"}]
    assert tried[2] == [{"threads": 1}, {"threads": 4}]


def test_what_is_timed_is_learning_and_not_exploring() -> None:
    hyper = {"learning_starts": 5e4, "buffer_size": 200_000}
    config = {**CARTPOLE, "total_timesteps": 100_000, "hyperparameters": hyper}
    short = benchmark._shortened(rlrun.check(config), 2.0, "result.json")
    assert short["hyperparameters"]["learning_starts"] == 1000
    assert short["hyperparameters"]["exploration_fraction"] * short["total_timesteps"] == 1000
    assert short["evaluation"]["every"] == short["evaluation"]["episodes"] == short["checkpoint"]["every"] == 0


@needs_panda
def test_hindsight_waits_for_the_first_episodes() -> None:
    overrides = {"env.n_envs": 32, "hyperparameters.learning_starts": 2000}
    plan = rlrun.check("PandaReach-v3/tqc", overrides=overrides)
    assert benchmark._shortened(plan, 2.0, "result.json")["hyperparameters"]["learning_starts"] == 1600


@pytest.mark.parametrize("cls", [A2C, DQN])
def test_the_stopwatch_counts_whole_rounds_after_learning_began(
    cls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("rlrun.training.stopwatch.time.monotonic", lambda: next(clock))
    settings = {"learning_starts": 12} if cls is DQN else {"n_steps": 4}
    model = cls("MlpPolicy", "CartPole-v1", seed=0, **settings)
    model.learn(5000, callback=Stopwatch(3.0, str(tmp_path / "result.json")))
    timed = json.loads((tmp_path / "result.json").read_text())
    assert timed == {"timesteps": 12, "seconds": 3}
    assert model.num_timesteps < 60


def test_a_round_that_takes_as_long_as_is_to_be_timed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("rlrun.training.stopwatch.time.monotonic", lambda: next(clock))
    A2C("MlpPolicy", "CartPole-v1", n_steps=4).learn(100, callback=Stopwatch(3.0, str(tmp_path / "result.json")))
    assert json.loads((tmp_path / "result.json").read_text()) == {"timesteps": 4, "seconds": 10}


def test_a_way_that_takes_forever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_PATIENCE", 1.0)
    way = benchmark._measured(rlrun.check(CARTPOLE), {}, 0.1)
    assert (way.speed, way.detail) == (None, "it takes longer than 1 s")


def test_the_command_prints_a_table_and_the_settings_that_win(
    rlrun_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        benchmark, "_measured", lambda plan, settings, seconds: Way(settings, 10.0 + 90 * len(settings))
    )
    outcome = rlrun_command("bench", "CartPole-v1/dqn")
    assert outcome.code == 0
    assert "the config as it is" in outcome.out
    assert "Fastest: --set accelerate=off" in outcome.out
    values = json.loads(rlrun_command("bench", "CartPole-v1/dqn", "--json").out)
    assert values["fastest"]["accelerate"] == "off"
    assert rlrun_command("bench", "NoSuch-v1/ppo").code == 2
