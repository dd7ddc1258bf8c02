"""RL Zoo's YAML is read with its merge keys and tags, and the Python in its strings is never run."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlrun.config.yaml import read_zoo_yaml
from rlrun.config.zoo import is_zoo_file, parse_literal, read_zoo_file
from rlrun.errors import ConfigError, UsageError

NAMES = {"nn.ReLU": "ReLU", "RMSpropTFLike": "RMSpropTFLike"}


def read(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "ppo.yml"
    path.write_text(text)
    return read_zoo_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dict()", {}),
        ("dict(a=1, b=-2.5, c='x', d=None, e=True)", {"a": 1, "b": -2.5, "c": "x", "d": None, "e": True}),
        ("dict(net_arch=[256, 256], activation_fn=nn.ReLU)", {"net_arch": [256, 256], "activation_fn": "ReLU"}),
        ("dict(\n  net_arch=dict(pi=[64], vf=(32, 32)),\n)", {"net_arch": {"pi": [64], "vf": [32, 32]}}),
        ("dict(optimizer_class=RMSpropTFLike)", {"optimizer_class": "RMSpropTFLike"}),
        ("{'norm_obs': True, \"norm_reward\": False}", {"norm_obs": True, "norm_reward": False}),
        ("  [1e-5, +3]  ", [1e-5, 3]),
        ("tuple([1, 2])", [1, 2]),
        ("list()", []),
        ("dict({'a': 1})", {"a": 1}),
        ("'word'", "word"),
    ],
)
def test_python_literals_are_read_as_plain_values(text: str, value: Any) -> None:
    assert parse_literal(text, NAMES) == value


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("dict(a=__import__('os').system('touch x'))", "__import__('os').system"),
        ("__import__('os').system('touch x')", "__import__('os').system"),
        ("eval('1')", "eval"),
        ("open('x', 'w')", "open"),
        ("(lambda: 1)()", "lambda"),
        ("[x for x in (1,)]", "for x in"),
        ("nn.Sequential", "nn.Sequential"),
        ("nn.ReLU()", "nn.ReLU"),
        ("nn.ReLU.__class__", "nn.ReLU.__class__"),
        ("().__class__.__bases__", "__bases__"),
        ("9**9**9", "9 ** 9 ** 9"),
        ("1 + 1", "1 + 1"),
        ("f'{x}'", "f'{x}'"),
        ("(x := 1)", "x := 1"),
        ("-'a'", "-'a'"),
        ("-True", "-True"),
        ("b'x'", "b'x'"),
        ("1j", "1j"),
        ("...", "..."),
        ("{1, 2}", "{1, 2}"),
        ("[*(1, 2)]", "*(1, 2)"),
        ("dict(**{'a': 1})", "a key"),
        ("{**{}}", "a key"),
        ("{1: 2}", "a key"),
        ("dict([('a', 1)])", "dict([('a', 1)])"),
        ("dict({'a': 1}, b=2)", "dict({'a': 1}, b=2)"),
        ("list(1)", "list(1)"),
        ("a = 1", "not a Python expression"),
        ("import os", "not a Python expression"),
        ("", "not a Python expression"),
        ("dict(a=1", "not a Python expression"),
        ("'\0'", "not a Python expression"),
        ("[" * 30 + "]" * 30, "nested too deeply"),
        ("-" * 3_000 + "1", "it is n"),  # nested too deeply, or no expression, as Python has it
        ("(" * 3_000 + ")" * 3_000, "longer than"),
        ("'" + "x" * 5_000 + "'", "longer than"),
    ],
)
def test_anything_else_is_named_and_not_run(text: str, word: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(word)):
        parse_literal(text, NAMES)
    assert list(folder.iterdir()) == []


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(value=PLAIN)
def test_what_python_writes_is_read_back(value: Any) -> None:
    text = repr(value)
    if len(text) <= 4_000:
        assert parse_literal(text, {}) == value


@settings(max_examples=300)
@given(text=st.text(max_size=80) | st.text(alphabet="dictlsup()[]{}*=,:.'\"_-+1 e\\\n\tn", max_size=60))
def test_any_text_is_a_plain_value_or_an_error_in_words(text: str) -> None:
    try:
        value = parse_literal(text, NAMES)
    except ValueError:
        pass
    else:
        assert value is None or isinstance(value, dict | list | str | int | float | bool)
        if not any(name in text for name in (*NAMES, "dict", "list", "tuple")) and "(" not in text:
            assert value == listed(ast.literal_eval(text.strip()))


def listed(value: Any) -> Any:
    """Lists in place of tuples, which YAML does not have."""
    if isinstance(value, list | tuple):
        return [listed(item) for item in value]
    return {key: listed(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_merge_keys_take_what_the_mapping_does_not_say_itself(tmp_path: Path) -> None:
    document = read(
        tmp_path,
        "A-v0: &a {n_timesteps: 1, policy: P, gamma: 0.9}\n"
        "B-v0: &b\n  gamma: 0.5\n  <<: *a\n"
        "C-v0:\n  <<: [*b, *a]\n  n_timesteps: 3\n",
    )
    assert document.value["B-v0"] == {"n_timesteps": 1, "policy": "P", "gamma": 0.5}
    assert document.value["C-v0"] == {"n_timesteps": 3, "policy": "P", "gamma": 0.5}
    assert document.lines[("B-v0", "gamma")] == 3
    assert document.lines[("B-v0", "policy")] == 1
    assert document.lines[("C-v0", "n_timesteps")] == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!!float 1e6", 1e6),
        ("!!float 300", 300.0),
        ("!!int 5", 5),
        ("!!str 5", "5"),
        ("!!bool true", True),
        ("3e-4", 3e-4),
        (".0", 0.0),
        ("1_000_000", 1_000_000),
        ("True", True),
        ("yes", True),
        ("Off", False),
        ("'yes'", "yes"),
        ("lin_0.001", "lin_0.001"),
        ("!!python/tuple [1, episode]", [1, "episode"]),
    ],
)
def test_values_are_read_as_rl_zoo_means_them(text: str, value: Any, tmp_path: Path) -> None:
    found = read(tmp_path, f"a: {text}\n").value["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: !!float x\n", ":2"),
        ("a: !!int 1.5\n", ":1"),
        ("a: !!python/object/apply:os.system [ls]\n", ":1"),
        ("a: !!python/name:os.system\n", ":1"),
        ("a:\n  <<: 3\n", ":2"),
        ("a:\n  <<: [3]\n", ":2"),
        ("a: 1\na: 2\n", ":2"),
        ("a: &a\n  <<: *a\n", ""),
    ],
)
def test_what_is_wrong_in_the_yaml_is_told_with_its_line(text: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path / 'ppo.yml'}{place}")


def test_merges_that_multiply_are_stopped(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: [1, 1, 1, 1, 1, 1, 1, 1, 1]}"]
    lines += [f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}, r: *a{i - 1}}}" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="more values than a config can need"):
        read(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CartPole-v1: {n_timesteps: 1}\n", True),
        ("default: {policy: P}\natari: {frame_stack: 4}\n", True),
        ("algo: ppo\nenv: {id: X}\n", False),
        ("env: {id: X}\n", False),
        ("[1]\n", False),
        ("", False),
        ("{", False),
    ],
)
def test_a_file_in_rl_zoos_format_is_known_by_its_shape(text: str, expected: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    assert is_zoo_file(path) is expected


def test_what_is_no_file_of_rl_zoos_is_said_so(tmp_path: Path) -> None:
    assert not is_zoo_file(tmp_path)
    assert not is_zoo_file(tmp_path / "nothere.yml")
    own = tmp_path / "own.yaml"
    own.write_text("algo: ppo\n")
    with pytest.raises(UsageError, match="not in RL Zoo's format") as raised:
        read_zoo_file(own)
    assert "rlrun train --config" in raised.value.hint
    with pytest.raises(ConfigError, match="no such file"):
        read_zoo_file(tmp_path / "nothere.yml")
