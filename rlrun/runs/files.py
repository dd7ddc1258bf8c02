"""Files written whole or not at all: to a temporary name, flushed, renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rlrun.config.yaml import core_scalar
from rlrun.errors import RlrunError, UsageError

_REASONS = {
    errno.ENOSPC: ("The disk is full", "Make room (`rlrun prune` helps); a new run may go elsewhere with --run-dir."),
    errno.EDQUOT: (
        "The disk quota is used up",
        "Make room (`rlrun prune` helps); a new run may go elsewhere with --run-dir.",
    ),
    errno.EROFS: ("The file system is read-only", "Choose another place with --run-dir."),
    errno.EACCES: ("Permission was denied", "Choose a folder you may write to with --run-dir."),
    errno.EPERM: ("Permission was denied", "Choose a folder you may write to with --run-dir."),
    errno.EFBIG: ("The file would be larger than this process may write", "Raise the limit (`ulimit -f`)."),
    errno.ENOTDIR: ("A part of the path is a file", "Choose another folder with --run-dir."),
    errno.EEXIST: ("A part of the path is a file", "Choose another folder with --run-dir."),
}


@contextlib.contextmanager
def os_errors_in_words(doing: str, kind: type[RlrunError] = RlrunError, flag: str = "--run-dir") -> Iterator[None]:
    """Turn an OSError into one sentence and a way out.

    :param kind: the error to raise
    :param flag: the option that says where
    """
    try:
        yield
    except OSError as error:
        reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
        # The name of a temporary file says nothing to anybody.
        is_known = error.filename and not str(error.filename).endswith(".tmp")
        place = f" at {os.path.abspath(error.filename)}" if is_known else ""
        raise kind(f"{reason} while {doing}{place}.", hint.replace("--run-dir", flag)) from error


def write_whole(path: Path, content: str | bytes, kind: type[RlrunError] = RlrunError, flag: str = "--run-dir") -> None:
    """Write a file so that a reader sees the old content or the new, never a part of it.

    :param kind: see :func:`os_errors_in_words`, and so is ``flag``
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with os_errors_in_words(f"writing {path}", kind, flag):
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_out(path: Path, content: str | bytes) -> None:
    """Write a file that the user named with ``--out``, and the folders above it.

    :raises UsageError: when it cannot be
    """
    with os_errors_in_words(f"writing {path}", UsageError, "--out"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content, UsageError, "--out")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def rename_into_place(temporary: Path, final: Path) -> None:
    """Give a finished folder its name, replacing one that is there."""
    aside = final.with_name(f".{final.name}.{secrets.token_hex(4)}.old")
    with os_errors_in_words(f"writing {final.name}"):
        if final.exists():
            final.rename(aside)
        try:
            temporary.rename(final)
        except OSError:
            if aside.exists():
                aside.rename(final)
            raise
        sync_folder(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the system lets one."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(stream)


def _digest(stream: Any) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


class _Dumper(yaml.SafeDumper):
    """Writes YAML that rlrun's own reader reads back as it was."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # "1e6" is a string by YAML 1.1, so PyYAML would leave it bare; by YAML 1.2's rules it needs quotes.
    style = None if core_scalar(value) is value else "'"
    if re.search("[\x85\u2028\u2029]", value):  # line ends to PyYAML, unless they are escaped
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    # By YAML 1.1 "1e-08" is a string and "1.0e-08" a number; by 1.2 both are numbers.
    text = re.sub(r"^(-?\d+)e", r"\1.0e", text)
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(str, _represent_str)
_Dumper.add_representer(float, _represent_float)


def to_yaml(value: Any) -> str:
    """YAML text of plain values, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
