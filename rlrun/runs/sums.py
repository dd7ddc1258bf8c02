"""A folder's list of hashes, in the form that ``sha256sum`` writes and checks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from rlrun.runs.files import sha256

SUMS = "SHA256SUMS"


def write_sums(folder: Path, previous: Path | None = None, without: Iterable[str] = ()) -> None:
    """Hash every file of a folder.

    :param without: names of files that may change later
    :param previous: a folder of which some files are linked here: their hashes are taken from its list
    """
    known = read_sums(previous) if previous is not None else {}
    lines = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if name in without:
            continue
        linked = previous is not None and name in known and _is_same_file(file, previous / name)
        lines.append(f"{known[name] if linked else sha256(file)}  {name}\n")
    (folder / SUMS).write_text("".join(lines))


def read_sums(folder: Path) -> dict[str, str]:
    """Hashes by file name; empty when there is no such list."""
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except (OSError, ValueError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def damage_of(folder: Path, required: Iterable[str]) -> str:
    """What is wrong with a folder's files; empty when every listed one has its hash.

    :param required: names that the list must hold
    """
    sums = read_sums(folder)
    if not set(required) <= set(sums):
        return f"{SUMS} is missing or not whole"
    for name, expected in sums.items():
        file = folder / name
        if ".." in PurePosixPath(name).parts or Path(name).is_absolute():
            return f"{SUMS} names a file outside the folder"
        if not file.is_file():
            return f"{name} is missing"
        if sha256(file) != expected:
            return f"{name} does not have its hash"
    return ""


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
