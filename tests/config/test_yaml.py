"""The YAML reader: YAML 1.2's values, line numbers, and nothing that runs code, blows up or ends in a traceback."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlrun.config.yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, parse_value, parse_yaml, read_yaml
from rlrun.errors import ConfigError
from rlrun.runs.files import to_yaml

quickly = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def problem_of(text: str) -> str:
    """The one problem that a text has."""
    with pytest.raises(ConfigError) as raised:
        parse_yaml(text, "c.yaml")
    (problem,) = raised.value.problems
    assert problem.hint
    return str(problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1e6),
        ("3e-4", 3e-4),
        ("3E-4", 3e-4),
        ("1_000_000", 1_000_000),
        ("1_000.5", 1000.5),
        ("-7", -7),
        ("+7", 7),
        ("007", 7),
        ("0x1F", 31),
        ("0o17", 15),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5e+3", -1500.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_numbers_booleans_and_null_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(f"key: {text}", "c.yaml").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(parse_value(".nan", "--set"))


@pytest.mark.parametrize(
    "text",
    [
        *("off", "on", "yes", "no", "y", "n", "1:30", "2024-01-31", "0b1", "0xZZ", "1e", "e5", "_1", ".", "+"),
        *("lin_1e-3", "const_3e-4", "1.2.3", "=", "nan", "inf", "NULL_", "tRue", "1,000"),
    ],
)
def test_what_yaml_1_2_calls_a_string_stays_one(text: str) -> None:
    assert parse_yaml(f"key: {text}", "c.yaml").value == {"key": text}


@pytest.mark.parametrize("text", ["'1e6'", '"1e6"', "!!str 1e6", "!!str '1e6'", "|-\n  1e6", ">-\n  1e6"])
def test_quotes_and_the_tag_str_make_a_string(text: str) -> None:
    assert parse_yaml(f"key: {text}", "c.yaml").value == {"key": "1e6"}


def test_a_number_of_absurd_length_is_a_string() -> None:
    assert parse_value("9" * 5000, "--set") == "9" * 5000


def test_keys_are_strings_whatever_they_look_like() -> None:
    assert parse_yaml("{1: a, true: b, 1.5: c, off: d}", "c.yaml").value == {
        "1": "a",
        "true": "b",
        "1.5": "c",
        "off": "d",
    }


def test_every_key_path_has_its_line() -> None:
    document = parse_yaml("algo: ppo\n\nenv:\n  id: X\n  wrappers:\n    - A\n    - {B: {c: 1}}\n", "c.yaml")
    assert document.lines == {
        (): 1,
        ("algo",): 1,
        ("env",): 3,
        ("env", "id"): 4,
        ("env", "wrappers"): 5,
        ("env", "wrappers", 0): 6,
        ("env", "wrappers", 1): 7,
        ("env", "wrappers", 1, "B"): 7,
        ("env", "wrappers", 1, "B", "c"): 7,
    }


def test_an_anchor_is_repeated_as_a_value_of_its_own() -> None:
    value = parse_yaml("a: &x {n: 1}\nb: *x\n", "c.yaml").value
    assert value == {"a": {"n": 1}, "b": {"n": 1}}
    assert value["a"] is not value["b"]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfalgo: ppo\n")
    assert read_yaml(path).value == {"algo": "ppo"}


def test_windows_line_ends_are_read() -> None:
    assert parse_yaml("a: 1\r\nb: 2\r\n", "c.yaml").lines[("b",)] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 'c.yaml:3: the key "a" stands twice (first in line 1). Keep one.'),
        ("1: a\n'1': b\n", 'c.yaml:2: the key "1" stands twice (first in line 1). Keep one.'),
        ("s:\n  a: 1\n  a: 2\n", 'c.yaml:3: the key "a" stands twice (first in line 2). Keep one.'),
        ("a:\n\tb: 1\n", "c.yaml:2: a tab cannot indent YAML. Use spaces."),
        ("null: 1\n", "c.yaml:1: a key must be a word. Put it in quotes."),
        ("[a]: 1\n", "c.yaml:1: a key must be a word."),
        ("a: &a {b: 1}\nc: {<<: *a}\n", "c.yaml:2: merge keys (<<) are not supported. Write the values out."),
        ("a: *b\n", "c.yaml:1: is not valid YAML: found undefined alias 'b'."),
        ("a: b: c\n", "c.yaml:1: is not valid YAML: mapping values are not allowed here."),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: is not valid YAML: expected a single document in the stream"),
        ("a: \x01\n", "c.yaml: is not valid YAML: unacceptable character"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, message: str) -> None:
    assert problem_of(text).startswith(message)


@pytest.mark.parametrize(
    "tag",
    [
        *("!!python/object/apply:os.system", "!!python/name:os.system", "!!python/object:os.system", "!!python/tuple"),
        *("!!binary", "!!timestamp", "!!int", "!!set", "!!omap", "!mine", "!<tag:yaml.org,2002:float>"),
    ],
)
@pytest.mark.parametrize("value", ["touch", "'touch'", "[touch]", "{touch: 1}"])
def test_no_tag_is_obeyed(tag: str, value: str) -> None:
    said = problem_of(f"key: {tag} {value}\n")
    assert said.startswith("c.yaml:1: the tag !")
    assert "never runs code" in said


def test_a_tag_of_another_kind_is_refused() -> None:
    assert "the tag !!seq is not allowed" in problem_of("a: !!seq {b: 1}")
    assert "the tag !!map is not allowed" in problem_of("a: !!map [b]")
    assert parse_yaml("a: !!map {b: !!seq [1]}", "c.yaml").value == {"a": {"b": [1]}}


def test_the_number_of_values_is_limited_exactly() -> None:
    def flat(count: int) -> str:
        return "[" + ",".join("x" * (count - 1)) + "]"

    assert len(parse_yaml(flat(MAX_NODES), "c.yaml").value) == MAX_NODES - 1
    assert "holds more values than a config can need" in problem_of(flat(MAX_NODES + 1))


def test_the_depth_is_limited_exactly() -> None:
    def nested(depth: int) -> str:
        return "[" * depth + "]" * depth

    assert parse_yaml(nested(MAX_DEPTH + 1), "c.yaml").value
    assert "is nested too deeply" in problem_of(nested(MAX_DEPTH + 2))


@pytest.mark.parametrize("text", ["[", "{", "- ", "? ", "a: {"])
def test_as_deep_as_a_file_can_be_is_refused_like_any_other_depth(text: str) -> None:
    assert "is nested too deeply" in problem_of((text * MAX_BYTES)[: MAX_BYTES // 16])


def test_an_override_is_read_by_the_same_rules_and_named_without_a_line() -> None:
    assert parse_value("[1e3, off, {a: null}]", "--set x") == [1000.0, "off", {"a": None}]
    with pytest.raises(ConfigError) as raised:
        parse_value("{a: 1, a: 2}", "--set x={a: 1, a: 2}")
    assert raised.value.problems[0].where == "--set x={a: 1, a: 2}"


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | words
    | st.sampled_from(["1e6", "off", "1:30", "null", "~", "<<", "0x1", "!!str", "&a", "*a", "# no", "- x", "a: b", "'"])
)
plain_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)


@quickly
@given(plain_values)
@example({"a": 1e-8, "b": 1e16, "c": -0.0, "d": math.inf, "e": "1e-8", "f": "inf", "<<": "=", "": []})
@example({"long": "word " * 60, "lines": "a\n b\n\nc\n", "tab": "\t", "next": "\x85\u2028\ufeff"})
def test_what_rlrun_writes_it_reads_back(value: Any) -> None:
    assert parse_yaml(to_yaml(value), "c.yaml").value == value


yaml_marks = [
    "&a ",
    "*a",
    "!!",
    "!x ",
    "- ",
    ": ",
    "? ",
    "\n",
    "\n  ",
    "\t",
    "{",
    "}",
    "[",
    "]",
    ",",
    "'",
    '"',
    "|",
    ">",
]
yaml_words = ["#", "%", "---", "...", "<<", "a", "1e6", "null", "~", "@", "`", "\0", "\ufeff", "é", "%YAML 1.1\n"]


@quickly
@given(st.lists(st.sampled_from(yaml_marks + yaml_words), max_size=25).map("".join) | st.text(max_size=60))
def test_no_text_raises_anything_but_a_config_error(text: str) -> None:
    try:
        parse_yaml(text, "c.yaml")
    except ConfigError as error:
        places = [problem.where.partition(":")[0] for problem in error.problems]
    else:
        places = ["c.yaml"]
    assert places == ["c.yaml"]


@quickly
@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_config_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(data)
    try:
        read_yaml(path)
    except ConfigError as error:
        places = [problem.where.partition(":")[0] for problem in error.problems]
    else:
        places = [str(path)]
    assert places == [str(path)]
