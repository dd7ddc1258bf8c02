"""A config is named by its path, or by the name of one that ships with rlrun."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlrun.config.locate import (
    all_configs,
    configs_in,
    find_by_env,
    find_config,
    find_matrix,
    folder_name,
    headline,
    shipped_configs,
    shipped_folder,
    shipped_matrices,
    zoo_configs,
)
from rlrun.errors import UsageError


def test_every_file_in_the_shipped_folder_has_a_name_that_finds_it() -> None:
    files = sorted(shipped_folder().rglob("*.yaml"))
    shipped = {**shipped_configs(), **zoo_configs(), **shipped_matrices()}
    assert sorted(shipped.values()) == files
    assert [find_matrix(name) for name in shipped_matrices()] == list(shipped_matrices().values())
    assert shipped_configs()
    assert [find_config(name) for name in shipped_configs()] == list(shipped_configs().values())


def test_an_env_id_with_a_slash_is_found_as_gymnasium_writes_it() -> None:
    path = find_config("ALE-Pong-v5/ppo")
    assert find_config("ALE/Pong-v5/ppo") == path
    assert find_by_env("ALE/Pong-v5", "ppo") == path


def test_a_path_comes_before_a_shipped_name(folder: Path) -> None:
    mine = Path("CartPole-v1/ppo")
    mine.parent.mkdir()
    mine.write_text("algo: ppo\n")
    assert find_config("CartPole-v1/ppo") == mine


@pytest.mark.parametrize("name", ["nothere.yaml", "nothere.yml", "deep/er.yaml", "x" * 300 + ".yaml"])
def test_a_name_that_ends_like_a_file_is_one_whether_or_not_it_is_there(name: str, folder: Path) -> None:
    assert find_config(name) == Path(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CartPole-v1/pp0", 'Did you mean "CartPole-v1/ppo"?'),
        ("cartpole-v1/PPO", 'Did you mean "CartPole-v1/ppo"?'),
        ("qqq", "`rlrun configs` lists the shipped ones."),
        ("x" * 300, "`rlrun configs` lists the shipped ones."),
        ("a\0b", "`rlrun configs` lists the shipped ones."),
    ],
)
def test_an_unknown_name_gets_the_nearest_or_the_list(name: str, hint: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="There is no config file and no shipped config") as raised:
        find_config(name)
    assert raised.value.hint == hint


def test_an_env_and_algorithm_without_a_shipped_config_get_the_command_that_writes_one() -> None:
    with pytest.raises(UsageError, match="There is no shipped config for tqc on MyEnv-v0") as raised:
        find_by_env("MyEnv-v0", "tqc")
    assert raised.value.hint.endswith("`rlrun init --env MyEnv-v0 --algo tqc`.")


@pytest.mark.parametrize(
    ("text", "safe"),
    [("ALE/Pong-v5", "ALE-Pong-v5"), ("my.mod:Env", "my.mod-Env"), ("a b\\c\0é", "a-b-c--"), ("..", "..")],
)
def test_a_folder_name_holds_nothing_that_a_file_system_minds(text: str, safe: str) -> None:
    assert folder_name(text) == safe


def test_the_headline_is_the_first_comment_that_is_not_for_the_editor(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("# yaml-language-server: $schema=x\n#\n# What it is.\n# More.\nalgo: ppo\n")
    assert headline(path) == "What it is."
    path.write_text("algo: ppo\n")
    assert headline(path) == ""


@pytest.mark.parametrize("name", list(shipped_configs()))
def test_every_shipped_config_says_what_it_is(name: str) -> None:
    text = headline(shipped_configs()[name])
    assert text.endswith((".", ")"))
    assert len(text) > 20


def test_configs_in_a_folder_are_named_by_env_and_algorithm(tmp_path: Path) -> None:
    (tmp_path / "Env-v0").mkdir()
    (tmp_path / "Env-v0" / "ppo-fast.yaml").touch()
    (tmp_path / "Env-v0" / "notes.txt").touch()
    (tmp_path / "stray.yaml").touch()
    (tmp_path / "matrices").mkdir()
    (tmp_path / "matrices" / "no-config.yaml").touch()
    (tmp_path / "Env-v0" / "deeper").mkdir()
    (tmp_path / "Env-v0" / "deeper" / "a2c.yml").touch()
    assert configs_in(tmp_path) == {
        "Env-v0/deeper/a2c": tmp_path / "Env-v0" / "deeper" / "a2c.yml",
        "Env-v0/ppo-fast": tmp_path / "Env-v0" / "ppo-fast.yaml",
        "stray": tmp_path / "stray.yaml",
    }


def test_all_configs_are_the_users_own_or_else_the_shipped_ones(folder: Path) -> None:
    assert all_configs() == shipped_configs()
    (folder / "configs").mkdir()
    with pytest.raises(UsageError, match="no config"):
        all_configs()
    (folder / "configs" / "mine.yaml").touch()
    assert list(all_configs()) == ["mine"]
    assert configs_in(folder / "nothing") == {}
