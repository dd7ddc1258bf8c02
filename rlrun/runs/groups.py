"""A group: runs of one config with different seeds, side by side in one folder.

``group.json`` says which seeds were asked for, with the config they share; each run is a run directory like any other.
"""

from __future__ import annotations

import contextlib
import datetime
import hmac
import itertools
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.config.loading import dotted, leaves
from rlrun.config.schema import Config
from rlrun.errors import UsageError, shown
from rlrun.runs.directory import (
    CONFIG,
    GROUP,
    MAY_DIFFER,
    RunDirectory,
    checked_name,
    is_group,
    renamed_to_new,
    run_folder,
)
from rlrun.runs.files import os_errors_in_words, write_json
from rlrun.runs.lock import RunLock
from rlrun.runs.trust import signature_of

_TO_ADD_SEEDS = 10.0  # seconds


@dataclass(frozen=True)
class Shared:
    """What the runs of a group have in common.

    :ivar config: resolved, with any seed
    :ivar import_paths: the user's folders that it may import from
    :ivar config_file: where it was read; None: it was given from Python
    """

    config: Config
    import_paths: tuple[str, ...]
    config_file: Path | None


@dataclass(frozen=True)
class Group:
    """A group on disk.

    :ivar values: the resolved config that the runs share, as plain values
    :ivar import_paths: see :class:`Shared`, as ``config_file``
    """

    path: Path
    seeds: tuple[int, ...]
    values: Mapping[str, Any]
    import_paths: tuple[str, ...]
    config_file: Path | None
    is_own: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def run(self, seed: int) -> RunDirectory | None:
        """The run of a seed; None before it began."""
        path = self.path / f"s{seed}"
        return RunDirectory(path) if (path / CONFIG).is_file() else None

    def runs(self) -> list[RunDirectory]:
        """The runs there are, by seed."""
        return [run for seed in self.seeds if (run := self.run(seed)) is not None]


def create_group(root: Path, shared: Shared, seeds: Sequence[int], name: str | None = None) -> Group:
    """Claim a new group below ``root``.

    :param name: the last part of the path; None: a UTC stamp and ``-group``
    :raises UsageError: when the named group is there already, or the name is none
    """
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
    stem = f"{stamp}-group" if name is None else checked_name(name)
    parent = run_folder(root, shared.config)
    with os_errors_in_words("making the group", UsageError):
        parent.mkdir(parents=True, exist_ok=True)
        made = parent / f".{secrets.token_hex(8)}.tmp"
        made.mkdir()
        try:
            _write(made, seeds, shared.import_paths, shared.config_file, _shared_values(shared.config))
            for attempt in itertools.count(1):
                path = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
                if renamed_to_new(made, path):
                    return read_group(path)
                if name is not None:
                    raise UsageError(f"The group {path} is there already.", "`rlrun resume` finishes it.")
        finally:
            shutil.rmtree(made, ignore_errors=True)
    raise AssertionError("unreachable")


def _shared_values(config: Config) -> dict[str, Any]:
    return config.model_dump(by_alias=True, mode="json", exclude={"seed"})


def _write(
    path: Path, seeds: Sequence[int], import_paths: Sequence[str], config_file: Path | None, values: Mapping[str, Any]
) -> None:
    content: dict[str, Any] = {"seeds": list(seeds), "import_paths": list(import_paths), "config": dict(values)}
    content["config_file"] = None if config_file is None else str(config_file.resolve())
    write_json(path / GROUP, {**content, "signature": signature_of(_as_signed(content))})


def difference_from(group: Group, config: Config) -> tuple[str, Any, Any] | None:
    """The first value of a config that is another than the group's, but for those that may differ between machines.

    :return: its key, the group's value and the config's; None when there is none
    """
    before, now = (
        {dotted(path): value for path, value in leaves(values) if path[0] not in MAY_DIFFER}
        for values in (group.values, _shared_values(config))
    )
    changed = next((key for key in {**before, **now} if before.get(key) != now.get(key)), None)
    return None if changed is None else (changed, before.get(changed), now.get(changed))


def existing_group(root: Path, config: Config, name: str) -> Group | None:
    """The group of a name, if it is there.

    :raises UsageError: when it has another config, or is not known to be this user's
    """
    path = run_folder(root, config) / checked_name(name)
    if not is_group(path):
        return None
    group = read_group(path)
    changed = difference_from(group, config)
    if changed is not None:
        message = f"The group {path} has another config: {changed[0]} is {shown(changed[1])}, not {shown(changed[2])}."
        raise UsageError(message, "Choose another name, or move that folder away.")
    if not group.is_own:
        raise UsageError(
            f"The group {path} is not known to be yours.", "Choose another name, or move that folder away."
        )
    return group


def ensure_group(root: Path, shared: Shared, seeds: Sequence[int], name: str) -> Group:
    """The group of a name, made if it is not there; another process may do the same at this moment.

    :param seeds: that it should have; those that it lacks are added
    :raises UsageError: see :func:`existing_group`
    """
    group = existing_group(root, shared.config, name)
    if group is None:
        try:
            return create_group(root, shared, seeds, name)
        except UsageError:  # the other process was faster
            group = existing_group(root, shared.config, name)
            if group is None:
                raise
    if all(seed in group.seeds for seed in seeds):
        return group
    with _alone_in(group.path):
        known = read_group(group.path).seeds
        _write(group.path, list(dict.fromkeys([*known, *seeds])), group.import_paths, group.config_file, group.values)
    return read_group(group.path)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait for other processes that add seeds to a group."""
    until = time.monotonic() + _TO_ADD_SEEDS
    while True:
        try:
            lock = RunLock(folder)
            lock.claim(steal=time.monotonic() > until)
            break
        except UsageError:
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()


def _as_signed(content: Mapping[str, Any]) -> bytes:
    return json.dumps([content["seeds"], content["import_paths"], content["config"]], sort_keys=True).encode()


def read_group(path: Path, trust: bool = False) -> Group:
    """The group in a folder.

    :param trust: whoever asks knows that it is this user's, though the key of this machine does not show it
    :raises UsageError: when it is none, or damaged
    """
    try:
        content = json.loads((path / GROUP).read_text())
        seeds = tuple(seed for seed in content["seeds"] if isinstance(seed, int))
        paths = tuple(str(folder) for folder in content["import_paths"])
        signed = signature_of(_as_signed(content))
        own = trust or (signed is not None and hmac.compare_digest(signed, str(content.get("signature"))))
        file = Path(content["config_file"]) if content.get("config_file") else None
        return Group(path.resolve(), seeds, dict(content["config"]), paths if own else (), file, own)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path / GROUP} cannot be read ({error}).", "`rlrun runs` lists the runs.") from None


def find_group(text: str, root: Path) -> Group | None:
    """The group that a path or a unique part of its name means; None when there is none such."""
    path = Path(text)
    if os.path.isdir(path):
        return read_group(path) if is_group(path) else None
    folders = [file.parent for file in sorted(root.glob(f"[!.]*/[!.]*/[!.]*/{GROUP}"))]
    matches = [folder for folder in folders if f"/{folder.as_posix()}".endswith(f"/{text}")]
    return read_group(matches[0]) if len(matches) == 1 else None
