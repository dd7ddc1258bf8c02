"""RL Baselines3 Zoo's files: which file is one, and the Python in its strings, parsed and never evaluated.

A file maps env ids to sections of settings; ``atari`` stands for every Atari env and ``default`` for whatever is not
named. Some settings are strings of Python, such as ``dict(net_arch=[64], activation_fn=nn.ReLU)``.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.config.yaml import KeyPath, read_yaml, read_zoo_yaml
from rlrun.errors import ConfigError, UsageError

ATARI, DEFAULT = "atari", "default"

_MAX_CHARACTERS = 4_000
_MAX_DEPTH = 20
_CONSTANTS = (str, int, float, bool, type(None))
_CALLS = {"dict": dict, "list": list, "tuple": list}


@dataclass(frozen=True)
class ZooFile:
    """A file in RL Zoo's format.

    :ivar sections: what it says for each env id, ``atari`` and ``default``
    :ivar lines: the line of each key path
    """

    path: Path
    sections: Mapping[str, dict[str, Any]]
    lines: Mapping[KeyPath, int]

    def place(self, path: KeyPath) -> str:
        """The file and the line of a key."""
        return f"{self.path}:{self.lines.get(path, 1)}"


def is_zoo_file(path: Path) -> bool:
    """Whether a path is a file in RL Zoo's format; False for one that cannot be read."""
    try:
        return path.is_file() and _is_zoo_mapping(read_zoo_yaml(path).value)
    except (ConfigError, OSError, ValueError):
        return False


def read_zoo_file(path: Path) -> ZooFile:
    """Read a file in RL Zoo's format.

    :raises ConfigError: when it cannot be read
    :raises UsageError: when it is something else
    """
    document = read_zoo_yaml(path)
    if not _is_zoo_mapping(document.value):
        hint = "Its files map env ids to sections with n_timesteps and policy."
        if isinstance(document.value, dict) and "algo" in document.value:
            read_yaml(path)
            hint = f"It looks like one of rlrun's own: rlrun train --config {path}"
        raise UsageError(f"{path} is not in RL Zoo's format.", hint)
    return ZooFile(path, document.value, document.lines)


def _is_zoo_mapping(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(section, dict) for section in value.values())
        and any({"n_timesteps", "policy"} & set(section) for section in value.values())
    )


def parse_literal(text: str, names: Mapping[str, str]) -> Any:
    """The plain value of a Python expression: literals, ``dict(...)``, ``list(...)``, ``tuple(...)``, allowed names.

    The text is parsed to a tree whose nodes are looked at one by one; nothing in it is ever run.

    :param names: what names such as ``nn.ReLU`` stand for
    :return: dicts, lists, strings, numbers, booleans and None
    :raises ValueError: with words for what is not allowed in it
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"it is longer than {_MAX_CHARACTERS:,} characters")
    try:
        return _plain(_tree(text), names, 0)
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deeply") from None


def _tree(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of code that looks wrong: it is not run
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise ValueError("it is not a Python expression") from None


def _plain(node: ast.expr, names: Mapping[str, str], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(node, ast.Constant) and isinstance(node.value, _CONSTANTS):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain(item, names, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict):
        return _mapping([(_key(key), item) for key, item in zip(node.keys, node.values, strict=True)], names, depth)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _plain(node.operand, names, depth + 1)
        if isinstance(number, int | float) and not isinstance(number, bool):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.Call):
        return _call(node, names, depth)
    if isinstance(node, ast.Name | ast.Attribute):
        name = ast.unparse(node)
        if name in names:
            return names[name]
        raise ValueError(f'the name "{_short(name)}" is not allowed in it')
    raise ValueError(f'"{_short(ast.unparse(node))}" is not allowed in it')


def _call(node: ast.Call, names: Mapping[str, str], depth: int) -> Any:
    function = ast.unparse(node.func)
    kind = _CALLS.get(function)
    if kind is None:
        raise ValueError(f'the call of "{_short(function)}" is not allowed in it')
    if kind is dict and not node.args:
        return _mapping([(keyword.arg, keyword.value) for keyword in node.keywords], names, depth)
    if len(node.args) <= 1 and not node.keywords:
        value = _plain(node.args[0], names, depth + 1) if node.args else []
        if isinstance(value, kind):
            return value
    raise ValueError(f'"{_short(ast.unparse(node))}" is not allowed in it')


def _key(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _mapping(pairs: list[tuple[str | None, ast.expr]], names: Mapping[str, str], depth: int) -> dict[str, Any]:
    if any(key is None for key, _ in pairs):
        raise ValueError("a key in it is not a plain string")
    return {str(key): _plain(item, names, depth + 1) for key, item in pairs}


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
