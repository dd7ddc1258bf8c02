"""Files in RL Baselines3 Zoo's format as files of configs: what ``rlrun import-zoo`` writes."""

from __future__ import annotations

import importlib.util
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlrun.config.classes import import_module, make_importable
from rlrun.config.loading import Source, sound_part
from rlrun.config.locate import folder_name
from rlrun.config.zoo import ATARI, DEFAULT, ZooFile, read_zoo_file
from rlrun.envs.families import check_registered, import_family
from rlrun.errors import ConfigError, MissingPackage, UsageError
from rlrun.runs.files import os_errors_in_words, write_whole
from rlrun.runs.trust import named_code
from rlrun.training.plan import make_plan, user_folders
from rlrun.training.template import flow
from rlrun.training.zoo import Converted, algorithm_of, convert, section_for

# The games of RL Zoo's benchmark, for which its section `atari` is written out.
GAMES = (
    *("Asteroids", "BeamRider", "Breakout", "Enduro", "MsPacman"),
    *("Pong", "Qbert", "RoadRunner", "Seaquest", "SpaceInvaders"),
)
_SCHEMA = "schema.json"
_WIDTH = 118
_LONG = 60  # characters of the section `env` in one line


@dataclass(frozen=True)
class ZooRow:
    """What became of one section.

    :ivar result: ``converted`` or ``skipped``
    :ivar config: the file that was written; empty when skipped
    :ivar detail: what is not as it was, or why it was skipped
    """

    file: str
    section: str
    algo: str
    result: str
    config: str
    detail: str


@dataclass(frozen=True)
class ZooReport:
    """What became of every section of every file, in their order."""

    rows: tuple[ZooRow, ...]

    def count(self, result: str) -> int:
        """How many sections had this result; one that was written for several envs counts once."""
        return len({(row.file, row.section) for row in self.rows if row.result == result})

    def verdict(self) -> str:
        """``240 sections converted to 285 configs, 43 skipped``."""
        configs = sum(row.result == "converted" for row in self.rows)
        sections, skipped = self.count("converted"), self.count("skipped")
        return f"{sections} section{'s' if sections != 1 else ''} converted to {configs} configs, {skipped} skipped"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "converted": self.count("converted"),
            "skipped": self.count("skipped"),
            "configs": sum(row.result == "converted" for row in self.rows),
            "sections": [asdict(row) for row in self.rows],
        }


def import_zoo(
    files: Sequence[str | Path],
    out: str | Path = "configs",
    *,
    env: str | None = None,
    algo: str | None = None,
    imports: Sequence[str] = (),
) -> ZooReport:
    """Write a config for each section of files in RL Zoo's format.

    A section whose env is not there, or that says what a config cannot, is skipped with the reason.

    :param out: the folder; configs are written to ``<out>/<env id>/<algo>.yaml``
    :param env: for this env only, by the section that RL Zoo would take for it
    :param algo: the algorithm; None: as each file is called, ``ppo.yml``
    :param imports: modules that register envs
    :raises UsageError: when a file is none of RL Zoo's, or a config is there already; then nothing is written
    """
    make_importable(user_folders(None))
    for module in imports:
        import_module(module)
    rows: list[ZooRow] = []
    texts: dict[Path, str] = {}
    for name in files:
        file = read_zoo_file(Path(name))
        for section, env_id in _wanted(file, env):
            row, text = _section(file, section, env_id, Path(out), algo, list(imports))
            if text and Path(row.config) in texts:
                row, text = ZooRow(row.file, section, row.algo, "skipped", "", f"{row.config} is made before."), ""
            texts |= {Path(row.config): text} if text else {}
            rows.append(row)
    there = [path for path in texts if os.path.lexists(path)]
    if there:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise UsageError(f"{there[0]} is there already{more}.", "Choose another folder with --out, or remove it.")
    with os_errors_in_words("writing the configs"):
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)
    return ZooReport(tuple(rows))


def _wanted(file: ZooFile, env: str | None) -> Iterator[tuple[str, str]]:
    """Sections, and the env that each is converted for."""
    if env is not None:
        yield section_for(file, env), env
        return
    for section in file.sections:
        if section == ATARI:
            yield from ((section, f"{game}NoFrameskip-v4") for game in GAMES)
        else:
            yield section, section


def _section(
    file: ZooFile, section: str, env_id: str, out: Path, algo: str | None, imports: list[str]
) -> tuple[ZooRow, str]:
    def skipped(why: str) -> tuple[ZooRow, str]:
        return ZooRow(file.path.name, section, algo or file.path.stem, "skipped", "", why), ""

    if section == DEFAULT == env_id:
        return skipped("It is for envs that the file does not name: say which with --env.")
    try:
        converted = convert(file, section, algorithm_of(file.path, algo), env_id)
        if imports:
            converted.values["env"]["imports"] = imports
        _check(converted)
    except ConfigError as error:
        return skipped(" ".join(f"{problem.path.rpartition('.')[2]}: {problem.message}" for problem in error.problems))
    except UsageError as error:
        return skipped(f"{error.message[0].upper()}{error.message[1:]}")
    path = out / folder_name(converted.env.name) / f"{converted.algo}.yaml"
    row = ZooRow(file.path.name, section, converted.algo, "converted", str(path), " ".join(converted.notes))
    return row, config_text(converted, file, section, path)


def _check(converted: Converted) -> None:
    """Refuse what could not train. Code that the file names is looked for and not imported."""
    env_id = converted.env.id
    source = Source(converted.values, converted.places)
    code = named_code(sound_part(source))
    for name in code:
        package = name.partition(":")[0].partition(".")[0]
        if importlib.util.find_spec(package) is None:
            what = name.replace(":", ".")
            raise UsageError(f"The package {package}, which has {what}, is not installed.", "Install it.")
    if ":" not in env_id:
        try:
            import_family(env_id)
            check_registered(env_id)
        except MissingPackage:
            pass  # an extra that is not installed here may be there where the config is used
    if not code:
        make_plan(source, probe_env=False)


# -- the text of a config


def config_text(converted: Converted, file: ZooFile, section: str, path: Path) -> str:
    """The file of a config, with where it comes from in its head.

    :param path: where it will lie
    """
    lines = [*_schema(path), *_head(converted, file, section)]
    for key, value in converted.values.items():
        room = 0 if key == "hyperparameters" else _LONG if key == "env" else _WIDTH
        lines += _written(key, value, "", room)
    return "\n".join(lines) + "\n"


def _written(key: str, value: Any, indent: str, room: int) -> list[str]:
    """A key and its value in one line, or in one line for each part where that is longer than ``room``."""
    line = f"{indent}{key}: {flow(value)}"
    if not isinstance(value, dict) or not value or len(line) <= room:
        return [line]
    inner = indent + "  "
    return [f"{indent}{key}:", *(part for name in value for part in _written(name, value[name], inner, _WIDTH))]


def _schema(path: Path) -> list[str]:
    """The line that editors complete by, where the schema lies beside the configs."""
    for steps, folder in enumerate(path.parents):
        if (folder / _SCHEMA).is_file() and steps <= 2:
            return [f"# yaml-language-server: $schema={'../' * steps}{_SCHEMA}"]
    return []


def _head(converted: Converted, file: ZooFile, section: str) -> Iterator[str]:
    what = f"{converted.algo} on {converted.env.name}"
    version = _zoo_version(file.path)
    if version:
        yield f"# RL Baselines3 Zoo's settings for {what}; not run by us."
        yield f"# From rl_zoo3 {version}, {file.path.name}, section {section}; written by `rlrun import-zoo`."
    else:
        yield f"# Settings for {what}, in RL Baselines3 Zoo's format before."
        yield f"# From {file.path.name}, section {section}; written by `rlrun import-zoo`."
    for note in converted.notes:
        yield from textwrap.wrap(note, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _zoo_version(path: Path) -> str:
    """The version of RL Zoo that a file ships with; empty when it is the user's own."""
    if path.parent.name != "hyperparams":
        return ""
    root = path.absolute().parent.parent
    for place in (root / "version.txt", root / "rl_zoo3" / "version.txt"):
        if place.is_file():
            return place.read_text(encoding="utf-8").strip()
    return ""
