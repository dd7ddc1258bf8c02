"""Env families: which one an id belongs to, what importing it needs, and what is said of an id that is not there."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from comparing import needs_panda

from rlrun.config.schema import EnvConfig
from rlrun.envs import families
from rlrun.envs.families import Family, c_output_discarded, check_registered, family_of, import_family
from rlrun.envs.recipe import EnvRecipe, Role
from rlrun.errors import MissingPackage, UsageError


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a package that offers families; uninstalls it afterwards."""

    def offer(**points: str) -> None:
        installed = tmp_path / "offering-1.0.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"{name} = {value}\n" for name, value in points.items()]
        (installed / "entry_points.txt").write_text(f"[rlrun.envs]\n{''.join(lines)}", encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    def forget() -> None:
        for remembered in vars(families).values():
            if hasattr(remembered, "cache_clear"):
                remembered.cache_clear()

    yield offer
    monkeypatch.undo()
    forget()


GRIDS = Family("grids", r"Grid\d+-v0", "grid_envs")
GREEDY = Family("greedy", r".*")


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("CartPole-v1", "classic control"),
        ("MountainCarContinuous-v0", "classic control"),
        ("LunarLander-v3", "Box2D"),
        ("BipedalWalkerHardcore-v3", "Box2D"),
        ("FrozenLake8x8-v1", "toy text"),
        ("PandaPickAndPlaceJointsDense-v3", "Panda"),
        ("ALE/Pong-v5", "Atari"),
        ("SpaceInvadersNoFrameskip-v4", "Atari"),
        ("HalfCheetahBulletEnv-v0", "PyBullet"),
        ("HalfCheetah-v5", "MuJoCo"),
        ("InvertedDoublePendulum-v5", "MuJoCo"),
        ("MiniGrid-DoorKey-5x5-v0", "MiniGrid"),
        ("BabyAI-GoToRedBall-v0", "MiniGrid"),
        ("Mine-v0", "user's own"),
        ("MyCartPole-v1", "user's own"),
        ("CartPole-v1-mine", "user's own"),
        ("CartPole", "user's own"),
    ],
)
def test_an_id_belongs_to_the_family_whose_pattern_it_matches_as_a_whole(env_id: str, name: str) -> None:
    assert family_of(env_id).name == name


def test_panda_needs_every_reset_seeded_and_no_other_family_does() -> None:
    assert family_of("PandaReach-v3").seed_every_reset
    others = ["CartPole-v1", "LunarLander-v3", "Taxi-v3", "ALE/Pong-v5", "AntBulletEnv-v0", "Ant-v5", "Mine-v0"]
    assert not any(family_of(env_id).seed_every_reset for env_id in others)


@pytest.mark.parametrize(
    ("env_id", "deterministic"),
    [
        ("CartPole-v1", True),
        ("PandaReach-v3", True),
        ("Mine-v0", True),
        ("ALE/Pong-v5", False),
        ("PongNoFrameskip-v4", False),
        ("MiniGrid-Empty-5x5-v0", False),
    ],
)
def test_a_family_says_how_its_agents_are_usually_evaluated(env_id: str, deterministic: bool) -> None:
    assert family_of(env_id).deterministic_evaluation is deterministic


def test_a_plug_ins_family_counts_before_the_users_own_and_after_the_table(plug_ins: Callable[..., None]) -> None:
    plug_ins(grids=f"{__name__}:GRIDS", greedy=f"{__name__}:GREEDY")
    assert family_of("Grid3-v0") is GRIDS
    assert family_of("Mine-v0") is GREEDY
    assert family_of("CartPole-v1").name == "classic control"


def test_a_broken_plug_in_is_named_and_does_not_hinder_the_families_of_the_table(plug_ins: Callable[..., None]) -> None:
    plug_ins(broken="no_such_module:FAMILY")
    assert family_of("CartPole-v1").name == "classic control"
    with pytest.raises(UsageError, match=r'the plug-in "broken" \(no_such_module:FAMILY\) cannot be loaded'):
        family_of("Mine-v0")


@pytest.mark.parametrize(
    ("env_id", "module", "hint"),
    [
        ("PandaReach-v3", "panda_gym", "rlrun[panda]"),
        ("AntBulletEnv-v0", "pybullet_envs_gymnasium", "rlrun[bullet]"),
        ("Ant-v5", "mujoco", "rlrun[mujoco]"),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "rlrun[minigrid]"),
        ("LunarLander-v3", "Box2D", "its plain install brings it"),
        ("ALE/Pong-v5", "ale_py", "its plain install brings it"),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_get_it(
    env_id: str, module: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage) as raised:
        import_family(env_id)
    assert raised.value.message.startswith(f"{env_id} needs the module {module}, which cannot be imported (")
    assert hint in raised.value.hint


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Taxi-v3", "Mine-v0"])
def test_a_family_that_gymnasium_has_imports_nothing(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", pytest.fail)
    assert import_family(env_id) == family_of(env_id)


@pytest.mark.parametrize("env_id", ["PandaReach-v3", "MiniGrid-Empty-5x5-v0", "ALE/Pong-v5", "LunarLander-v3"])
def test_importing_a_family_registers_its_envs(env_id: str) -> None:
    pytest.importorskip(family_of(env_id).module or "")
    import_family(env_id)
    check_registered(env_id)


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        (None, "gymnasium.envs.classic_control", "classic control"),
        (None, "gymnasium.envs.box2d", "Box2D"),
        (None, "gymnasium.envs.toy_text", "toy text"),
        (None, "gymnasium.envs.mujoco", "MuJoCo"),
        ("panda_gym", "panda_gym", "Panda"),
        ("pybullet_envs_gymnasium", "pybullet_envs_gymnasium", "PyBullet"),
        ("minigrid", "minigrid", "MiniGrid"),
    ],
)
def test_every_id_that_a_package_registers_belongs_to_its_family(module: str | None, source: str, name: str) -> None:
    if module:
        with c_output_discarded():
            pytest.importorskip(module)
    ids = [spec.id for spec in gym.registry.values() if str(spec.entry_point).startswith(source)]
    assert ids
    assert [env_id for env_id in ids if family_of(env_id).name != name] == []


@pytest.mark.parametrize(
    ("env_id", "message", "hint"),
    [
        (
            "LunarLander-v2",
            "LunarLander-v2 was removed from its package; its successor is LunarLander-v3.",
            "Use id: LunarLander-v3",
        ),
        ("Pendulum-v0", "Pendulum-v0 was removed from its package; its successor is Pendulum-v1.", "Use id: Pendulum"),
        ("CartPole-v9", "there is no CartPole-v9; the newest version is CartPole-v1.", "Use id: CartPole-v1"),
        ("Cartpole-v1", 'there is no env "Cartpole-v1".', 'Did you mean "CartPole-v1"?'),
        ("MountainCarr-v0", 'there is no env "MountainCarr-v0".', 'Did you mean "MountainCar-v0"?'),
        ("Qqqqqqqqqq", 'there is no env "Qqqqqqqqqq".', "A module that registers it goes into `env.imports`"),
        ("", 'there is no env "".', "A module that registers it goes into `env.imports`"),
    ],
)
def test_an_id_that_is_not_there_is_answered_with_the_one_to_use(env_id: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_registered(env_id)
    assert raised.value.message == message
    assert raised.value.hint.startswith(hint)


def test_the_newest_version_is_the_one_of_the_greatest_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "registry", dict(gym.registry))
    for version in (9, 10, 2):
        monkeypatch.setitem(gym.registry, f"Grid-v{version}", gym.envs.registration.EnvSpec(f"Grid-v{version}"))
    with pytest.raises(UsageError, match=r"there is no Grid-v11; the newest version is Grid-v10\."):
        check_registered("Grid-v11")
    with pytest.raises(UsageError, match=r"Grid-v3 was removed from its package; its successor is Grid-v10\."):
        check_registered("Grid-v3")


def test_what_c_code_prints_is_thrown_away_and_what_comes_later_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with c_output_discarded():
        os.write(1, b"a banner\n")
        os.write(2, b"a warning\n")
        ctypes.CDLL(None).printf(b"from C's own buffer\n")
    ctypes.CDLL(None).fflush(None)
    print("after")
    os.write(2, b"an error\n")
    assert capfd.readouterr() == ("before\nafter\n", "an error\n")


def test_nothing_is_thrown_away_unless_asked(capfd: pytest.CaptureFixture[str]) -> None:
    with c_output_discarded(False):
        os.write(1, b"a banner\n")
    assert capfd.readouterr().out == "a banner\n"


def test_output_comes_back_after_an_error_and_no_file_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    free = os.dup(1)
    os.close(free)
    with pytest.raises(KeyError), c_output_discarded():
        raise KeyError
    os.write(1, b"here again\n")
    assert capfd.readouterr().out == "here again\n"
    assert os.dup(1) == free
    os.close(free)


@pytest.mark.parametrize(
    ("old", "successor"),
    [("Hopper-v2", "Hopper-v5"), ("Ant-v3", "Ant-v5")],
)
def test_ids_that_their_packages_only_keep_to_refuse_them_name_their_successor(old: str, successor: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_registered(old)
    assert successor in caught.value.message


@needs_panda
def test_an_arm_that_touches_the_table_meets_contacts_in_a_fixed_order() -> None:
    def play(env: gym.Env) -> np.ndarray:
        seen = [env.reset(seed=1)[0]["observation"]]
        seen += [
            env.step(np.array([x, y, -1], dtype=np.float32))[0]["observation"] for x in (-1, 1) for y in (-1, 0, 1) * 5
        ]
        env.close()
        return np.array(seen)

    recipe = EnvRecipe(EnvConfig(id="PandaReach-v3"), None, 0, {}, ())
    import_family("PandaReach-v3")
    ordered = gym.make("PandaReach-v3")
    ordered.unwrapped.sim.physics_client.setPhysicsEngineParameter(deterministicOverlappingPairs=1)
    expected = play(ordered)
    assert not np.array_equal(play(gym.make("PandaReach-v3")), expected)
    np.testing.assert_array_equal(play(recipe.make(Role.EVAL, iter([1]))), expected)
