"""YAML 1.2's core rules, with line numbers, and nothing that can run code or blow up.

PyYAML follows YAML 1.1, where ``3e-4`` is a string and ``off`` a boolean. Here the tree of nodes that
PyYAML's parser composes is turned into plain values by the core schema of YAML 1.2
(https://yaml.org/spec/1.2.2/#103-core-schema), with underscores allowed in numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from rlrun.errors import ConfigError, Problem

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 40

KeyPath = tuple[str | int, ...]

_TOO_DEEP = "is nested too deeply."
_CHECK_BRACKETS = "Check the brackets and the indentation."

_INT = re.compile(r"[-+]?[0-9][0-9_]*")
_FLOAT = re.compile(r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOATS = {
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_CONSTANTS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **_SPECIAL_FLOATS,
}
_TAGS = {yaml.ScalarNode: "str", yaml.SequenceNode: "seq", yaml.MappingNode: "map"}
_PLAIN = "plain"


class _Loader(yaml.SafeLoader):
    """Gives scalars without quotes and tag the tag ``plain``, in place of PyYAML's guess by YAML 1.1."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        return _PLAIN if kind is yaml.ScalarNode and implicit[0] else super().resolve(kind, value, implicit)


@dataclass
class Document:
    """A parsed file.

    :ivar value: plain dicts, lists, strings, numbers, booleans and None
    :ivar lines: the line (from 1) of each key path in ``value``
    """

    value: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)


def read_yaml(path: Path) -> Document:
    """Read a YAML file; raises ConfigError with the file's name for whatever is wrong with it."""
    return parse_yaml(_text_of(path), str(path))


def _text_of(path: Path) -> str:
    where = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(
                [
                    Problem(
                        f"is larger than {MAX_BYTES // 1024} KiB, so it is no config.",
                        where=where,
                        hint="Check the path.",
                    )
                ]
            )
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        hint = "Check the path; `rlrun configs` lists the shipped configs."
        raise ConfigError([Problem("there is no such file.", where=where, hint=hint)]) from None
    except IsADirectoryError:
        raise ConfigError(
            [Problem("is a directory, not a config.", where=where, hint="Name a YAML file in it.")]
        ) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem("is not UTF-8 text.", where=where, hint="Save it as UTF-8.")]) from None
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([Problem(f"cannot be read: {reason}.", where=where, hint="Check the path.")]) from None


def parse_yaml(text: str, where: str) -> Document:
    """Parse YAML text.

    :param where: what to call the text in an error, such as its file's name
    :raises ConfigError: with the line, for a syntax error, a tag, a duplicate key, or a bomb
    """
    return _parse(text, _Reader(where))


def _parse(text: str, reader: _Reader) -> Document:
    where = reader.where
    try:
        # compose() builds nodes only: no constructor runs, whatever tags the text holds.
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(error, where)]) from None
    except RecursionError:
        raise ConfigError([Problem(_TOO_DEEP, where=where, hint=_CHECK_BRACKETS)]) from None
    except (yaml.YAMLError, ValueError) as error:
        message = f"is not valid YAML: {_first_line(error)}."
        raise ConfigError([Problem(message, where=where, hint="Take the character out.")]) from None
    return Document(reader.read(node, (), 0) if node is not None else None, reader.lines)


def read_zoo_yaml(path: Path) -> Document:
    """Read a file in the YAML that RL Zoo writes, by hand or when it trains.

    Beside this module's rules it may hold merge keys (``<<: *defaults``), the tags of plain values (``!!float 1e6``),
    YAML 1.1's ``yes`` and ``off``, and the tags under which PyYAML dumps ordered dicts and tuples.

    :raises ConfigError: as :func:`read_yaml`
    """
    return _parse(_text_of(path), _ZooReader(str(path)))


def parse_value(text: str, where: str) -> Any:
    """The value of ``--set key=TEXT``, by the same rules as a file."""
    try:
        return parse_yaml(text, where).value
    except ConfigError as error:  # a line number says nothing here
        raise ConfigError([replace(problem, where=where) for problem in error.problems]) from None


class _Reader:
    """Turns nodes into values, counting what it makes so that aliases cannot multiply without end."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[KeyPath, int] = {}
        self.count = 0

    def read(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.count += 1
        if self.count > MAX_NODES:
            self.fail(line, "holds more values than a config can need.", "Take out the anchors that repeat themselves.")
        if depth > MAX_DEPTH:
            self.fail(line, _TOO_DEEP, _CHECK_BRACKETS)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, line)
        self.check_tag(node, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*path, i), depth + 1) for i, child in enumerate(node.value)]
        return self.mapping(node, path, depth)

    def mapping(self, node: yaml.Node, path: KeyPath, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.scalar(key_node, line) if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self.fail(line, "a key must be a word.", "Put it in quotes.")
            if key == "<<" and key_node.tag == _PLAIN:
                self.merge(result, value_node, line, path, depth)
                continue
            key = key if isinstance(key, str) else key_node.value
            if key in result:
                self.fail(
                    line, f'the key "{key}" stands twice (first in line {self.lines[(*path, key)]}).', "Keep one."
                )
            self.lines[(*path, key)] = line
            result[key] = self.read(value_node, (*path, key), depth + 1)
        return result

    def merge(self, result: dict[str, Any], node: yaml.Node, line: int, path: KeyPath, depth: int) -> None:
        self.fail(line, "merge keys (<<) are not supported.", "Write the values out.")

    def scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        if node.tag == _PLAIN:
            return core_scalar(node.value)
        self.check_tag(node, line)
        return node.value

    def check_tag(self, node: yaml.Node, line: int) -> None:
        if node.tag != f"tag:yaml.org,2002:{_TAGS[type(node)]}":
            hint = "Leave it out: reading a config never runs code."
            self.fail(line, f"the tag {_short_tag(node.tag)} is not allowed.", hint)

    def fail(self, line: int, message: str, hint: str = "") -> None:
        raise ConfigError([Problem(message, where=f"{self.where}:{line}", hint=hint)])


class _ZooReader(_Reader):
    """Also reads what RL Zoo's files hold. Tags are names here: nothing is called."""

    ORDERED_DICT = "tag:yaml.org,2002:python/object/apply:collections.OrderedDict"
    TUPLE = "tag:yaml.org,2002:python/tuple"

    def read(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        value = super().read(node, path, depth)
        if node.tag != self.ORDERED_DICT:
            return value
        pairs = value[0] if isinstance(value, list) and len(value) == 1 else None
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            self.fail(node.start_mark.line + 1, "an ordered dict must be a list of pairs.")
        return {str(key): item for key, item in pairs or ()}

    def mapping(self, node: yaml.Node, path: KeyPath, depth: int) -> dict[str, Any]:
        def is_merge(pair: tuple[yaml.Node, yaml.Node]) -> bool:
            return isinstance(pair[0], yaml.ScalarNode) and pair[0].value == "<<" and pair[0].tag == _PLAIN

        # What a mapping says itself comes before what it merges, wherever the merge key stands.
        node.value = sorted(node.value, key=is_merge)
        return super().mapping(node, path, depth)

    def merge(self, result: dict[str, Any], node: yaml.Node, line: int, path: KeyPath, depth: int) -> None:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self.fail(line, "only mappings can be merged (<<).", "Name an anchor of one.")
            own = {key: self.lines.get((*path, key), 0) for key in result}
            merged = self.read(source, path, depth + 1)
            result.update({key: value for key, value in merged.items() if key not in result})
            self.lines.update({(*path, key): line for key, line in own.items()})

    def scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        if node.tag == _PLAIN:
            return _YAML_1_1.get(node.value.lower(), core_scalar(node.value))
        kind = _SCALAR_TAGS.get(node.tag)
        if kind is None:
            return super().scalar(node, line)
        value = core_scalar(node.value)
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind):
            self.fail(line, f'"{node.value}" is no {_short_tag(node.tag)}.', "Leave the tag out.")
        return value

    def check_tag(self, node: yaml.Node, line: int) -> None:
        if not (isinstance(node, yaml.SequenceNode) and node.tag in (self.ORDERED_DICT, self.TUPLE)):
            super().check_tag(node, line)


_YAML_1_1 = {"yes": True, "on": True, "no": False, "off": False}
_SCALAR_TAGS = {f"tag:yaml.org,2002:{kind.__name__}": kind for kind in (float, int, bool)}


def core_scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema: ``1e6`` is a number, ``off`` and ``1:30`` are strings."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) > 400:
        return text
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if text.startswith(("0x", "0o")):
        try:
            return int(text, 0)
        except ValueError:
            return text
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return text


def _syntax_problem(error: yaml.MarkedYAMLError, where: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = f"{where}:{mark.line + 1}" if mark else where
    if "'\\t'" in (error.problem or ""):
        return Problem("a tab cannot indent YAML.", where=place, hint="Use spaces.")
    reason = error.problem or error.context or "?"
    if reason.startswith("but"):  # the second half of a sentence
        reason = f"{error.context} {reason}"
    return Problem(f"is not valid YAML: {reason}.", where=place, hint="Look at this line and the one above it.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["?"])[0].rstrip(".")


def _short_tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
