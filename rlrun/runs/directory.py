"""The run directory: claimed atomically, read and listed without torch."""

from __future__ import annotations

import datetime
import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.config.loading import read_source, validate
from rlrun.config.locate import folder_name
from rlrun.config.schema import Config
from rlrun.errors import ConfigError, RlrunError, UsageError, did_you_mean
from rlrun.runs.files import os_errors_in_words, to_yaml, write_json, write_whole

MANIFEST, CONFIG, CHECKPOINTS = "manifest.json", "config.yaml", "checkpoints"
POINTERS = ("best", "final", "latest")
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunDirectory:
    """One run on disk.

    :ivar path: absolute
    """

    path: Path

    @classmethod
    def create(cls, root: Path, config: Config, name: str | None = None) -> RunDirectory:
        """Claim a new run directory below ``root``; two processes never get the same one.

        :param name: the last part of the path; None: a UTC stamp and the seed
        :raises UsageError: when the named run is there already
        """
        parent = root / folder_name(config.env.id) / folder_name(config.algo)
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
        stem = folder_name(name) if name else f"{stamp}-s{config.seed}"
        with os_errors_in_words(f"making the run directory in {root}", UsageError):
            parent.mkdir(parents=True, exist_ok=True)
            for attempt in range(1, 1000):
                path = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
                try:
                    path.mkdir()
                except FileExistsError:
                    if name:
                        message = f"The run {path} is there already."
                        raise UsageError(message, "Add --resume to continue it, or choose another --name.") from None
                    continue
                except OSError as error:
                    if error.errno != errno.ENOENT:
                        raise
                    parent.mkdir(parents=True, exist_ok=True)  # pruned by someone between the two calls
                    continue
                return cls._furnished(path.resolve(), config)
        raise RlrunError(f"No free name for a run was found in {parent}.")

    @classmethod
    def _furnished(cls, path: Path, config: Config) -> RunDirectory:
        try:
            (path / CHECKPOINTS).mkdir()
            write_whole(path / CONFIG, to_yaml(config.model_dump(by_alias=True)))
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run.

        :raises UsageError: when the folder is none
        """
        if not (path / CONFIG).is_file():
            raise UsageError(f"{path} is not a run directory: it has no {CONFIG}.", "`rlrun runs` lists the runs.")
        return cls(path.resolve())

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def config(self) -> Config:
        """The resolved config of the run.

        :raises ConfigError: when config.yaml was damaged
        """
        config, problems = validate(read_source(self.path / CONFIG))
        if config is None:
            raise ConfigError(problems)
        return config

    def manifest(self) -> dict[str, Any]:
        """What is known of the run besides its config; empty when it died before it began."""
        try:
            value = json.loads((self.path / MANIFEST).read_text())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def update_manifest(self, changes: Mapping[str, Any]) -> None:
        """Set keys of the manifest; the file is replaced whole."""
        write_json(self.path / MANIFEST, {"schema_version": SCHEMA_VERSION, **self.manifest(), **changes})

    def checkpoint_steps(self) -> list[int]:
        """Timesteps of the checkpoints on disk, ascending."""
        folder = self.path / CHECKPOINTS
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdigit())

    def checkpoint_path(self, timesteps: int) -> Path:
        """The folder of the checkpoint at a number of timesteps."""
        return self.path / CHECKPOINTS / str(timesteps)

    def pointer(self, name: str) -> int | None:
        """Timesteps of the checkpoint that ``best``, ``final`` or ``latest`` names; None when there is none."""
        try:
            text = (self.path / name).read_text().strip()
        except OSError:
            return None
        number = text.rpartition("/")[2]
        return int(number) if number.isdigit() else None

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
        number = self.pointer(which) if which in POINTERS else _whole(which)
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


def _whole(text: str) -> int | None:
    text = text.replace("_", "")
    return int(text) if text.isdigit() else None


def iterate_runs(root: Path) -> Iterator[RunDirectory]:
    """Every run directory below a folder, newest name last."""
    for config in sorted(root.glob(f"*/*/*/{CONFIG}")):
        yield RunDirectory(config.parent.resolve())


def find_run(text: str, root: Path) -> RunDirectory:
    """What RUN means on the command line: a path, ``latest``, or a unique part of a name.

    :param root: where runs are looked for
    :raises UsageError: for none, or more than one
    """
    path = Path(text)
    if path.is_dir():
        return RunDirectory.open(path)
    if path.name == CONFIG and path.is_file():
        return RunDirectory.open(path.parent)
    runs = list(iterate_runs(root))
    if text == "latest":
        if not runs:
            raise UsageError(f"There are no runs in {root}.", "Train one: rlrun train --config CartPole-v1/ppo")
        return max(runs, key=_created)
    matches = [run for run in runs if text in "/".join(run.path.parts[-3:])]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UsageError(
            f'There is no run "{text}" in {root}.', "`rlrun runs` lists them; --run-dir says where to look."
        )
    names = ", ".join("/".join(run.path.parts[-3:]) for run in matches[:5])
    raise UsageError(
        f'"{text}" fits {len(matches)} runs: {names}{", ..." if len(matches) > 5 else ""}.', "Write more of it."
    )


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
