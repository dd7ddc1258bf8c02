"""The run directory: claimed atomically, read and listed without torch."""

from __future__ import annotations

import datetime
import errno
import itertools
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.config.loading import read_source, validate
from rlrun.config.locate import folder_name
from rlrun.config.schema import Config
from rlrun.errors import ConfigError, UsageError, did_you_mean
from rlrun.runs.files import os_errors_in_words, to_yaml, write_json, write_whole

MANIFEST, CONFIG, CHECKPOINTS = "manifest.json", "config.yaml", "checkpoints"
STATE = "state.json"  # of a checkpoint
GROUP = "group.json"  # in the folder of a group of runs
POINTERS = ("best", "final", "latest")
SCHEMA_VERSION = 1
# Of a config: a requeued job may get another machine, and another time limit.
MAY_DIFFER = ("max_time", "threads", "device", "search")


@dataclass(frozen=True)
class RunDirectory:
    """One run on disk.

    :ivar path: absolute
    """

    path: Path

    @classmethod
    def create(
        cls,
        root: Path,
        config: Config,
        name: str | None = None,
        manifest: Mapping[str, Any] | None = None,
        group: str = "",
    ) -> RunDirectory:
        """Claim a new run directory below ``root``; two processes never get the same one.

        It appears with its config and manifest in it, or not at all.

        :param name: the last part of the path; None: a UTC stamp and the seed
        :param manifest: what is known of the run at its start
        :param group: the folder of a group of runs, in which it is made
        :raises UsageError: when the named run is there already, or the name is none
        """
        parent = run_folder(root, config) / group
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
        stem = f"{stamp}-s{config.seed}" if name is None else checked_name(name)
        with os_errors_in_words("making the run directory", UsageError):
            made = cls._furnished(parent, config, manifest or {})
            try:
                for attempt in itertools.count(1):
                    path = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
                    if renamed_to_new(made, path):
                        return cls(path.resolve())
                    if name is not None:
                        message = f"The run {path} is there already."
                        raise UsageError(message, "Choose another --name; `rlrun resume` goes on with it.")
            finally:
                shutil.rmtree(made, ignore_errors=True)
        raise AssertionError("unreachable")

    @classmethod
    def _furnished(cls, parent: Path, config: Config, manifest: Mapping[str, Any]) -> Path:
        """A folder with a passing name and everything in it that a run begins with."""
        made = parent / f".{secrets.token_hex(8)}.tmp"
        while True:
            parent.mkdir(parents=True, exist_ok=True)
            try:
                made.mkdir()
                break
            except FileNotFoundError:  # pruned by someone between the two calls
                continue
        try:
            (made / CHECKPOINTS).mkdir()
            write_whole(made / CONFIG, to_yaml(config.model_dump(by_alias=True)))
            write_json(made / MANIFEST, {"schema_version": SCHEMA_VERSION, **manifest})
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        return made

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run.

        :raises UsageError: when the folder is none
        """
        if is_group(path):
            raise _no_single_run(
                path, next((str(run.parent) for run in sorted(path.glob(f"*/{CONFIG}"))), "<group>/s0")
            )
        if not (path / CONFIG).is_file():
            raise UsageError(f"{path} is not a run directory: it has no {CONFIG}.", "`rlrun runs` lists the runs.")
        return cls(path.resolve())

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    @property
    def label(self) -> str:
        """Env, algorithm, group if there is one, and name: what people call it."""
        return "/".join(self.path.parts[-4 if (self.path.parent / GROUP).is_file() else -3 :])

    def config(self) -> Config:
        """The resolved config of the run.

        :raises ConfigError: when config.yaml was damaged
        """
        config, problems = validate(read_source(self.path / CONFIG))
        if config is None:
            raise ConfigError(problems)
        return config

    def manifest(self) -> dict[str, Any]:
        """What is known of the run besides its config; empty when it died before it began.

        It may be someone else's: a value that is not of the kind that rlrun writes is left out.
        """
        found = _read_object(self.path / MANIFEST)
        return {key: value for key, value in found.items() if _is_as_written(key, value)}

    def update_manifest(self, changes: Mapping[str, Any]) -> None:
        """Set keys of the manifest; the file is replaced whole."""
        write_json(self.path / MANIFEST, {"schema_version": SCHEMA_VERSION, **self.manifest(), **changes})

    def checkpoint_steps(self) -> list[int]:
        """Timesteps of the checkpoints on disk, ascending."""
        folder = self.path / CHECKPOINTS
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted(number for name in names if (number := whole_number(name)) is not None)

    def checkpoint_path(self, timesteps: int) -> Path:
        """The folder of the checkpoint at a number of timesteps."""
        return self.path / CHECKPOINTS / str(timesteps)

    def checkpoint_state(self, timesteps: int) -> dict[str, Any]:
        """What a checkpoint says of itself, its hashes not verified; empty when it cannot be read."""
        return _read_object(self.checkpoint_path(timesteps) / STATE)

    def pointer(self, name: str) -> int | None:
        """Timesteps of the checkpoint that ``best``, ``final`` or ``latest`` names; None when there is none."""
        try:
            text = (self.path / name).read_text().strip()
        except (OSError, ValueError):
            return None
        return whole_number(text.rpartition("/")[2])

    def point(self, name: str, timesteps: int) -> None:
        """Make a pointer name a checkpoint."""
        write_whole(self.path / name, f"{CHECKPOINTS}/{timesteps}\n")

    def choose_checkpoint(self, which: str | None = None) -> tuple[str, int]:
        """What ``--checkpoint`` means: ``best``, ``final``, ``latest`` or a number; None: the first that there is.

        :return: its name for people, and its timesteps
        :raises UsageError: when there is no such checkpoint
        """
        steps = self.checkpoint_steps()
        if not steps:
            raise UsageError(
                f"The run {self.path} has no checkpoint yet.", "Let it train longer, or `rlrun resume` it."
            )
        if which is None:
            for name in POINTERS:
                if (number := self.pointer(name)) in steps:
                    return name, number
            return str(steps[-1]), steps[-1]
        number = self.pointer(which) if which in POINTERS else whole_number(which)
        if which == "latest" and number not in steps:
            number = steps[-1]
        if number not in steps:
            found = ", ".join([*(p for p in POINTERS if self.pointer(p) in steps), *map(str, steps)])
            hint = did_you_mean(which, POINTERS) or f"There are: {found}."
            raise UsageError(f'The run {self.name} has no checkpoint "{which}".', hint)
        return which, number

    def size(self) -> int:
        """Bytes on disk, a file with several names counted once."""
        stats = {(s.st_dev, s.st_ino): s.st_size for p in self.path.rglob("*") if p.is_file() for s in [p.stat()]}
        return sum(stats.values())


_TEXTS = ("status", "created", "ended_by", "stopped_by", "error", "signature", "id", "from", "revision")
_NUMBERS = ("seed", "timesteps", "seconds", "mean_return", "created_unix", "reopened_at")
_LISTS = {"notes": str, "command": str, "import_paths": str, "extra_cuts": int, "resumed": dict}
_OBJECTS = ("versions", "hardware", "git", "parent", "process")


def _is_as_written(key: str, value: Any) -> bool:
    if value is None:
        return True
    if key in _TEXTS:
        return isinstance(value, str)
    if key in _NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if key in _LISTS:
        return isinstance(value, list) and all(isinstance(item, _LISTS[key]) for item in value)
    return isinstance(value, dict) if key in _OBJECTS else True


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def run_folder(root: Path, config: Config) -> Path:
    """Where the runs of a config's env and algorithm are."""
    return root / folder_name(config.env.id) / folder_name(config.algo)


def checked_name(name: str) -> str:
    """A run's name, if it can be one.

    :raises UsageError: when it cannot: names are typed again, in other shells and on other systems
    """
    if name in (*POINTERS, "") or folder_name(name) != name or name.startswith((".", "-")):
        hint = (
            "Use letters, digits, `.`, `_` and `-`, with a letter, digit or `_` first, and not best, final or latest."
        )
        raise UsageError(f'"{name}" cannot be the name of a run.', hint)
    return name


def renamed_to_new(folder: Path, path: Path) -> bool:
    """Rename a folder; False when there is something of that name already."""
    if path.exists() and not path.is_dir():
        return False
    try:
        folder.rename(path)  # never replaces a folder that has anything in it
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES) and path.exists():
            return False
        raise
    return True


def whole_number(text: str) -> int | None:
    """The number that digits (with underscores) stand for; None for anything else."""
    digits = text.replace("_", "")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else None


def iterate_runs(root: Path) -> Iterator[RunDirectory]:
    """Every run directory below a folder, those in groups too, newest name last."""
    alone = root.glob(f"[!.]*/[!.]*/[!.]*/{CONFIG}")
    grouped = (
        path for group in root.glob(f"[!.]*/[!.]*/[!.]*/{GROUP}") for path in group.parent.glob(f"[!.]*/{CONFIG}")
    )
    for config in sorted([*alone, *grouped]):
        yield RunDirectory(config.parent.resolve())


def find_run(text: str, root: Path) -> RunDirectory:
    """What RUN means on the command line: a path, ``latest``, or a unique part of a name.

    :param root: where runs are looked for
    :raises UsageError: for none, or more than one
    """
    path = Path(text)
    if os.path.isdir(path):
        return RunDirectory.open(path)
    if path.name == CONFIG and os.path.isfile(path):
        return RunDirectory.open(path.parent)
    runs = list(iterate_runs(root))
    if text == "latest":
        if not runs:
            raise UsageError(f"There are no runs in {root}.", "Train one: rlrun train --config CartPole-v1/ppo")
        return max(runs, key=_created)
    names = {run: run.label for run in runs}
    matches = [run for run in runs if f"/{names[run]}".endswith(f"/{text}")]
    matches = matches or [run for run in runs if text and text in names[run]]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UsageError(
            f'There is no run "{text}" in {root}.', "`rlrun runs` lists them; --run-dir says where to look."
        )
    members = [names[run] for run in runs if run.path.parent.name == Path(text).name]
    if members:
        raise _no_single_run(f'"{text}"', members[0])
    some = ", ".join(names[run] for run in matches[:5])
    more = f" and {len(matches) - 5} more" if len(matches) > 5 else ""
    raise UsageError(f'"{text}" fits {len(matches)} runs: {some}{more}.', "Write more of it.")


def is_group(path: Path) -> bool:
    """Whether a folder holds a group of runs."""
    return (path / GROUP).is_file()


def _no_single_run(what: object, member: str) -> UsageError:
    return UsageError(
        f"{what} is a group of runs.",
        f"Name one of them, such as {member}; `rlrun eval`, `rlrun resume` and `rlrun plot` take the whole group.",
    )


def run_of_checkpoint(path: Path) -> tuple[RunDirectory, int] | None:
    """The run and the timesteps of a checkpoint's folder, or of the model.zip in it; None for any other path."""
    folder = path.resolve().parent if path.name == "model.zip" else path.resolve()
    steps = whole_number(folder.name)
    run = folder.parent.parent
    if steps is None or folder.parent.name != CHECKPOINTS or not (run / CONFIG).is_file():
        return None
    return RunDirectory(run), steps


def _created(run: RunDirectory) -> float:
    created = run.manifest().get("created_unix")
    return float(created) if isinstance(created, int | float) else (run.path / CONFIG).stat().st_mtime


def delete_run(run: RunDirectory) -> None:
    """Remove a run directory and the empty folders above it."""
    with os_errors_in_words(f"removing {run.path}"):
        shutil.rmtree(run.path)
        for parent in list(run.path.parents)[:2]:
            try:
                parent.rmdir()
            except OSError:
                break
