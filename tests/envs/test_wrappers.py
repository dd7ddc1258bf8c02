"""Wrappers by name: each is there, keywords are checked and converted, and training's own ones are marked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RescaleAction, ResizeObservation, TimeLimit
from stable_baselines3.common.atari_wrappers import AtariWrapper, WarpFrame

from rlrun.envs.wrappers import KNOWN, check_kwargs, wrapper_class
from rlrun.errors import UsageError


class Everything(gym.Wrapper[Any, Any, Any, Any]):
    """Takes a value of every kind."""

    def __init__(
        self,
        env: gym.Env[Any, Any],
        count: int = 1,
        rate: float = 0.0,
        switch: bool = False,
        word: str = "",
        pair: tuple[int, int] = (1, 2),
        bound: np.ndarray | None = None,
        *,
        anything: Any = None,
        unannotated=None,  # type: ignore[no-untyped-def]
    ) -> None:
        super().__init__(env)


class Derived(Everything):
    def __init__(self, env: gym.Env[Any, Any], own: int = 0, **others: Any) -> None:
        super().__init__(env, **others)


class Plain(gym.Wrapper[Any, Any, Any, Any]):
    pass


@pytest.mark.parametrize("name", list(KNOWN))
def test_every_listed_wrapper_is_there(name: str) -> None:
    if KNOWN[name].module.startswith("minigrid"):
        pytest.importorskip("minigrid")
    cls = wrapper_class(name)
    assert cls.__name__ == name
    assert issubclass(cls, gym.Wrapper)


@pytest.mark.parametrize("name", list(KNOWN))
def test_what_is_set_outside_training_are_keywords_of_the_wrapper(name: str) -> None:
    if settings := KNOWN[name].outside_training:
        assert check_kwargs(wrapper_class(name), settings) == settings


def test_what_only_training_wants_is_off_outside_it() -> None:
    assert KNOWN["AtariWrapper"].outside_training == {"terminal_on_life_loss": False, "clip_reward": False}
    assert {name for name, known in KNOWN.items() if known.training_only} == {"EpisodicLifeEnv", "ClipRewardEnv"}
    assert {name for name, known in KNOWN.items() if known.inside_monitor} == {"TimeLimit"}


def test_an_own_wrapper_is_named_by_its_class_path() -> None:
    assert wrapper_class(f"{__name__}:Everything") is Everything
    assert wrapper_class("gymnasium.wrappers:TimeLimit") is TimeLimit


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TimeLimt", 'there is no wrapper "TimeLimt". Did you mean "TimeLimit"?'),
        ("timelimit", 'there is no wrapper "timelimit". Did you mean "TimeLimit"?'),
        ("Qqqqqqqq", 'there is no wrapper "Qqqqqqqq". Write your own as `module:Class`.'),
        ("gymnasium.wrappers.TimeLimit", 'there is no wrapper "gymnasium.wrappers.TimeLimit". '),
        ("no_such_module:Mine", 'the module "no_such_module" was not found. '),
        ("gymnasium.wrappers:TimeLimt", 'the module "gymnasium.wrappers" has no "TimeLimt". Did you mean "TimeLimit"?'),
        ("os:system", '"os:system" is not a subclass of Wrapper. '),
        ("os.path:join()", 'there is no wrapper "os.path:join()". '),
        ("gymnasium:Env", '"gymnasium:Env" is not a subclass of Wrapper. '),
        ("", 'there is no wrapper "". '),
    ],
)
def test_a_name_of_no_wrapper_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        wrapper_class(name)
    assert str(raised.value).startswith(message)


def test_a_name_that_is_no_class_path_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hasty.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError):
        wrapper_class("hasty.Mine")
    with pytest.raises(UsageError):
        wrapper_class("hasty:Mine()")


def test_a_wrapper_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minigrid.wrappers", None)
    with pytest.raises(UsageError, match=r'the wrapper "ImgObsWrapper" cannot be imported .* Install its package\.'):
        wrapper_class("ImgObsWrapper")


@pytest.mark.parametrize(
    ("cls", "given", "expected"),
    [
        (TimeLimit, {"max_episode_steps": 1e3}, {"max_episode_steps": 1000}),
        (AtariWrapper, {"frame_skip": 4, "clip_reward": True}, {"frame_skip": 4, "clip_reward": True}),
        (ResizeObservation, {"shape": [84, 84]}, {"shape": (84, 84)}),
        (Everything, {"rate": 1}, {"rate": 1.0}),
        (Everything, {"pair": [3.0, 4]}, {"pair": (3, 4)}),
        (Everything, {"bound": None}, {"bound": None}),
        (Everything, {"anything": [1e3, "x"], "unannotated": 1e3}, {"anything": [1e3, "x"], "unannotated": 1e3}),
        (Derived, {"own": 2.0, "count": 5.0}, {"own": 2, "count": 5}),
        (Plain, {}, {}),
    ],
)
def test_keywords_are_converted_to_what_the_wrapper_wants(cls: type, given: Any, expected: Any) -> None:
    found = check_kwargs(cls, given)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(("cls", "keyword"), [(RescaleAction, "min_action"), (Everything, "bound")])
def test_a_list_for_an_array_becomes_one(cls: type, keyword: str) -> None:
    found = check_kwargs(cls, {keyword: [-1.0, 2.0]})[keyword]
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [-1.0, 2.0]


@pytest.mark.parametrize(
    ("cls", "given", "message"),
    [
        (
            TimeLimit,
            {"max_episode_stps": 5},
            'TimeLimit has no keyword "max_episode_stps". Did you mean "max_episode_steps"?',
        ),
        (WarpFrame, {"qqqq": 5}, 'WarpFrame has no keyword "qqqq". It takes: width, height.'),
        (Plain, {"qqqq": 5}, 'Plain has no keyword "qqqq". It takes: none.'),
        (TimeLimit, {"env": 5}, 'TimeLimit has no keyword "env". It takes: max_episode_steps.'),
        (Derived, {"others": 5}, 'Derived has no keyword "others". '),
        (TimeLimit, {"max_episode_steps": "many"}, "TimeLimit's max_episode_steps must be a whole number, not 'many'."),
        (TimeLimit, {"max_episode_steps": 2.5}, "TimeLimit's max_episode_steps must be a whole number, not 2.5."),
        (TimeLimit, {"max_episode_steps": None}, "TimeLimit's max_episode_steps must be a whole number, not null."),
        (Everything, {"count": True}, "Everything's count must be a whole number, not true."),
        (Everything, {"rate": "fast"}, "Everything's rate must be a number, not 'fast'."),
        (Everything, {"switch": 1}, "Everything's switch must be true or false, not 1."),
        (Everything, {"word": 5}, "Everything's word must be a string, not 5."),
        (Everything, {"pair": [1, 2, 3]}, "Everything's pair must be a list of a whole number and a whole number, "),
    ],
)
def test_a_keyword_that_does_not_fit_is_refused(cls: type, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_kwargs(cls, given)
    assert str(raised.value).startswith(message)
