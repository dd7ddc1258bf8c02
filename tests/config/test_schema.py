"""The config's sections: frozen, strict about types, closed to unknown keys, and with a few short forms."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rlrun.config import schema
from rlrun.config.schema import Config, Section, parse_duration, whole_number

LEAST: dict[str, Any] = {"algo": "ppo", "env": {"id": "CartPole-v1"}, "total_timesteps": 1000}
SECTIONS = [found for found in vars(schema).values() if isinstance(found, type) and issubclass(found, Section)]


def config(**changes: Any) -> Config:
    return Config.model_validate({**LEAST, **changes})


def test_the_least_config_is_an_algorithm_an_env_and_a_budget() -> None:
    least = config()
    assert (least.algo, least.env.id, least.total_timesteps) == ("ppo", "CartPole-v1", 1000)
    assert (least.seed, least.env.n_envs, least.normalize, least.hyperparameters) == (0, 1, None, {})
    assert [tracker.name for tracker in least.trackers] == ["tensorboard"]


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config().env.n_envs = 3  # type: ignore[misc]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_section_is_closed_and_every_field_is_described(section: type[BaseModel]) -> None:
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["frozen"] is True
    assert section.model_config["strict"] is True
    undescribed = [name for name, field in section.model_fields.items() if not field.description]
    sections = [name for name in undescribed if "Config" in str(section.model_fields[name].annotation)]
    assert undescribed == sections, "a field that is no section says what it is, in which unit"


@pytest.mark.parametrize(("written", "meant"), [(1e6, 1_000_000), (5.0, 5), (7, 7)])
def test_a_whole_float_is_a_whole_number(written: float, meant: int) -> None:
    budget = config(total_timesteps=written).total_timesteps
    assert (budget, type(budget)) == (meant, int)


@pytest.mark.parametrize("value", [1.5, "5", None, True, [5], float("nan"), float("inf")])
def test_what_is_no_whole_number_is_left_as_it_is(value: Any) -> None:
    assert whole_number(value) is value


@pytest.mark.parametrize("field", ["clip_obs", "gamma", "epsilon"])
def test_a_whole_number_is_taken_where_any_number_is_meant(field: str) -> None:
    normalize = config(normalize={field: 1}).normalize
    assert type(getattr(normalize, field)) is float


@pytest.mark.parametrize(
    ("written", "meant"),
    [(True, schema.NormalizeConfig()), (False, None), (None, None), ({}, schema.NormalizeConfig())],
)
def test_normalize_is_a_switch_or_a_section(written: Any, meant: Any) -> None:
    assert config(normalize=written).normalize == meant


@pytest.mark.parametrize(
    ("written", "name", "kwargs"),
    [
        ("AtariWrapper", "AtariWrapper", {}),
        ("my.wrappers:Foo", "my.wrappers:Foo", {}),
        ({"TimeLimit": {"max_episode_steps": 5}}, "TimeLimit", {"max_episode_steps": 5}),
        ({"TimeLimit": None}, "TimeLimit", {}),
        ({"name": "TimeLimit", "kwargs": {"max_episode_steps": 5}}, "TimeLimit", {"max_episode_steps": 5}),
        ({"name": "TimeLimit"}, "TimeLimit", {}),
    ],
)
def test_wrappers_and_trackers_have_short_forms(written: Any, name: str, kwargs: dict[str, Any]) -> None:
    read = config(env={"id": "X", "wrappers": [written]}, trackers=[written])
    assert [(wrapper.name, wrapper.kwargs) for wrapper in read.env.wrappers] == [(name, kwargs)]
    assert [(tracker.name, tracker.kwargs) for tracker in read.trackers] == [(name, kwargs)]


def test_a_config_read_back_from_its_own_values_is_the_same() -> None:
    first = config(
        normalize=True,
        env={"id": "X", "wrappers": ["A", {"B": {"c": 1}}]},
        callbacks=[{"class": "m:C", "kwargs": {"a": 1}}],
        early_stop={"patience": 3},
        max_time="1h",
    )
    assert Config.model_validate(first.model_dump(by_alias=True)) == first


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("90", 90), ("5m", 300), ("3h50m", 13_800), ("1d12h", 129_600), ("1h1s", 3601), (" 2h ", 7200)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert config(max_time=text).max_time == seconds


@pytest.mark.parametrize("text", ["", "soon", "3x", "h", "50m3h", "-5s", "1.5h", "3 h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match='a duration such as "3h50m"'):
        parse_duration(text)


@pytest.mark.parametrize("seconds", [0, -1, "0s", True, float("inf")])
def test_a_time_limit_is_positive_and_finite(seconds: Any) -> None:
    with pytest.raises(ValidationError):
        config(max_time=seconds)


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:1", "xpu:0"])
def test_devices_that_torch_knows_are_taken(device: str) -> None:
    assert config(device=device).device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:a", "CPU", "cpu:0", ""])
def test_devices_that_torch_does_not_know_are_refused(device: str) -> None:
    with pytest.raises(ValidationError, match="cuda:N"):
        config(device=device)


def test_early_stop_needs_a_reason() -> None:
    with pytest.raises(ValidationError, match="needs mean_return or patience"):
        config(early_stop={})
    assert config(early_stop={"mean_return": 0}).early_stop.mean_return == 0.0  # type: ignore[union-attr]
    assert config(early_stop={"patience": 3}).early_stop.patience == 3  # type: ignore[union-attr]
