"""A group: runs of one config with different seeds, side by side in one folder.

``group.json`` says which seeds were asked for, with the config they share; each run is a run directory like any other.
"""

from __future__ import annotations

import datetime
import hmac
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.config.schema import Config
from rlrun.errors import UsageError
from rlrun.runs.directory import CONFIG, GROUP, RunDirectory, checked_name, run_folder
from rlrun.runs.files import os_errors_in_words, write_json
from rlrun.runs.trust import signature_of


@dataclass(frozen=True)
class Group:
    """A group on disk.

    :ivar values: the resolved config that the runs share, as plain values
    :ivar import_paths: the user's folders that it may import from
    """

    path: Path
    seeds: tuple[int, ...]
    values: Mapping[str, Any]
    import_paths: tuple[str, ...]
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


def create_group(
    root: Path, config: Config, seeds: Sequence[int], import_paths: Sequence[str], name: str | None = None
) -> Group:
    """Claim a new group below ``root``.

    :param name: the last part of the path; None: a UTC stamp and ``-group``
    :raises UsageError: when the named group is there already, or the name is none
    """
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
    stem = f"{stamp}-group" if name is None else checked_name(name)
    values = config.model_dump(by_alias=True, mode="json", exclude={"seed"})
    content = {"seeds": list(seeds), "import_paths": list(import_paths), "config": values}
    with os_errors_in_words("making the group", UsageError):
        for attempt in itertools.count(1):
            path = run_folder(root, config) / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                if name is not None:
                    raise UsageError(f"The group {path} is there already.", "`rlrun resume` finishes it.") from None
        write_json(path / GROUP, {**content, "signature": signature_of(_as_signed(content))})
    return read_group(path)


def _as_signed(content: Mapping[str, Any]) -> bytes:
    return json.dumps([content["seeds"], content["import_paths"], content["config"]], sort_keys=True).encode()


def is_group(path: Path) -> bool:
    """Whether a folder holds a group."""
    return (path / GROUP).is_file()


def read_group(path: Path) -> Group:
    """The group in a folder.

    :raises UsageError: when it is none, or damaged
    """
    try:
        content = json.loads((path / GROUP).read_text())
        seeds = tuple(seed for seed in content["seeds"] if isinstance(seed, int))
        paths = tuple(str(folder) for folder in content["import_paths"])
        signed = signature_of(_as_signed(content))
        own = signed is not None and hmac.compare_digest(signed, str(content.get("signature")))
        return Group(path.resolve(), seeds, dict(content["config"]), paths if own else (), own)
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
