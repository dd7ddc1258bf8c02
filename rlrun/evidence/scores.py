"""Scores and learning curves of runs, from what lies on the disk; also of RL Zoo's and Monitor's logs."""

from __future__ import annotations

import csv
import glob
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlrun.config.loading import dotted, leaves
from rlrun.config.locate import folder_name
from rlrun.config.schema import Config
from rlrun.config.yaml import read_zoo_yaml
from rlrun.errors import RlrunError, UsageError
from rlrun.runs.directory import CONFIG, MAY_DIFFER, RunDirectory, find_run, is_group
from rlrun.runs.groups import Group, find_group, read_group
from rlrun.runs.summary import final_result

ZOO_EVALUATIONS = "evaluations.npz"
TRIALS = "trials"  # a folder of a study
MUCH_LONGER = 1.05  # of two trainings: the last rollout may go beyond a budget
_LAST = 100  # episodes of a Monitor file that count as its score
_UNALIKE = ("seed", *MAY_DIFFER)  # within a group


@dataclass(frozen=True)
class Curve:
    """A learning curve of one seed.

    :ivar x: ascending timesteps, (points,)
    :ivar values: (points,)
    """

    x: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Seed:
    """One training run, wherever it comes from.

    :ivar score: mean return of its final agent's evaluation; None while there is none
    :ivar config: its resolved config without what may differ within a group; of a log, its env and name
    :ivar timesteps: that it was to train for, or that a log has; None where its budget is of episodes
    :ivar is_of_training: the score is not an evaluation's, but of the last episodes of training
    """

    path: Path
    seed: int | None
    score: float | None
    config: dict[str, Any] = field(default_factory=dict)
    timesteps: int | None = None
    is_of_training: bool = False

    @property
    def has_score(self) -> bool:
        """Whether there is one, and it is a number."""
        return self.score is not None and math.isfinite(self.score)


@dataclass(frozen=True)
class Seeds:
    """Runs that differ in their seed only, under one name."""

    name: str
    runs: tuple[Seed, ...]
    repeated: tuple[Seed, ...] = ()  # runs of a config and seed that another one has, which do not count

    @property
    def env(self) -> str:
        """The env's id; empty where it is not known."""
        return str(self.runs[0].config.get("env.id", "")) if self.runs else ""

    @property
    def scores(self) -> list[float]:
        """The scores there are."""
        return [run.score for run in self.runs if run.score is not None and run.has_score]

    @property
    def without_score(self) -> list[Seed]:
        """Runs that have no score yet, or one that is no number."""
        return [run for run in self.runs if not run.has_score]


def collect(selected: Sequence[str], root: Path) -> list[Seeds]:
    """The groups that a command line means.

    ``name=PATTERN`` is a group of that name. Everything else is put together by config: runs that differ in nothing but
    their seed are a group, wherever they lie.

    :param selected: runs, groups, folders with runs, RL Zoo's log folders, Monitor files, or patterns of them
    :param root: where runs are looked for by name
    :raises UsageError: when something is none of these, or a named group has runs on several envs
    """
    named: dict[str, list[Seed]] = {}
    loose: list[Seed] = []
    for text in selected:
        name, equals, pattern = text.partition("=")
        if equals and name and not Path(text).exists():
            named.setdefault(name, []).extend(_found(pattern, root))
        else:
            loose += _found(text, root)
    for name, runs in named.items():
        envs = sorted({str(run.config["env.id"]) for run in runs if "env.id" in run.config})
        if len({folder_name(env) for env in envs}) > 1:
            message = f"{name} has runs on {' and on '.join(envs)}, whose returns are not of one kind."
            raise UsageError(message, "Name a group for each env.")
    return [_distinct(name, _once(runs)) for name, runs in named.items()] + _by_config(_once(loose))


def _distinct(name: str, runs: Sequence[Seed]) -> Seeds:
    """A group in which each config and seed counts once: the same training again is no new evidence."""
    kept: dict[Any, Seed] = {}
    for index, run in enumerate(runs):
        is_known = run.seed is not None and run.config
        key = (run.seed, json.dumps(run.config, sort_keys=True, default=str)) if is_known else index
        if key not in kept or (kept[key].score is None and run.score is not None):
            kept[key] = run
    chosen = tuple(kept.values())
    return Seeds(name, chosen, tuple(run for run in runs if run not in chosen))


def _once(runs: Sequence[Seed]) -> tuple[Seed, ...]:
    return tuple({run.path.resolve(): run for run in runs}.values())


def _found(pattern: str, root: Path) -> list[Seed]:
    paths = [pattern]
    if glob.has_magic(pattern):  # a folder of runs may hold files of other kinds too
        paths = [path for path in sorted(glob.glob(pattern)) if os.path.isdir(path) or path.endswith("monitor.csv")]
    if not paths:
        raise UsageError(f"Nothing fits {pattern}.", "`rlrun runs` lists the runs.")
    return [seed for path in paths for seed in _read(path, root)]


def _read(text: str, root: Path) -> list[Seed]:
    path = Path(text)
    if path.is_file() and path.name.endswith("monitor.csv"):
        return [_monitor_seed(path)]
    if path.is_dir():
        if is_group(path):
            return _members(read_group(path))
        if (path / CONFIG).is_file():
            return [read_seed(RunDirectory.open(path))]
        if (path / ZOO_EVALUATIONS).is_file() or list(path.glob("*.monitor.csv")):
            return [_zoo_seed(path)]
        inside = [read_seed(run) for run in _runs_below(path)]
        logs = {file.parent for pattern in (ZOO_EVALUATIONS, "*.monitor.csv") for file in path.rglob(pattern)}
        if inside or logs:
            return inside or [_zoo_seed(folder) for folder in sorted(logs)]
        raise UsageError(f"There are no runs in {text}.", "Name a run, a group, or a folder with them.")
    group = find_group(text, root)
    return _members(group) if group is not None else [read_seed(find_run(text, root))]


def _members(group: Group) -> list[Seed]:
    """The runs of a group, those too that have not begun."""
    values = _by_key(group.values)
    return [
        Seed(group.path / f"s{seed}", seed, None, values, group.values.get("total_timesteps"))
        if (run := group.run(seed)) is None
        else read_seed(run)
        for seed in group.seeds
    ]


def _runs_below(folder: Path) -> list[RunDirectory]:
    """Every run in a folder, however deep; the trials of a study are none."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != TRIALS)
        if CONFIG in files:
            found.append(RunDirectory(Path(place).resolve()))
            folders.clear()
    return found


def read_seed(run: RunDirectory) -> Seed:
    """A run of rlrun's; its score is the one of its end."""
    config = run.config()
    final = final_result(run)
    score = None if final is None else float(final["mean_return"])
    return Seed(run.path, config.seed, score, comparable(config), config.total_timesteps)


def comparable(config: Config) -> dict[str, Any]:
    """A resolved config by dotted keys, without what may differ within a group."""
    return _by_key(config.model_dump(by_alias=True, mode="json"))


def _by_key(values: Mapping[str, Any]) -> dict[str, Any]:
    return {dotted(path): value for path, value in leaves(values) if path[0] not in _UNALIKE}


def _zoo_seed(folder: Path) -> Seed:
    """A log folder of RL Zoo's, or any with Monitor files: the last evaluation, else the last training episodes."""
    files = sorted(folder.glob("*.monitor.csv"))
    seed, config = _log_settings(folder, files)
    if not (folder / ZOO_EVALUATIONS).is_file():
        return _of_training(folder, files, config, seed)
    timesteps, results = _zoo_evaluations(folder)
    score, last = (float(results[-1].mean()), int(timesteps[-1])) if len(results) else (None, None)
    return Seed(folder, seed, score, config, last)


def _zoo_evaluations(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Timesteps, (evaluations,), and returns, (evaluations, episodes), of RL Zoo's ``evaluations.npz``.

    :raises UsageError: when it cannot be read
    """
    file = folder / ZOO_EVALUATIONS
    try:
        with np.load(file, allow_pickle=False) as archive:
            timesteps, results = (np.asarray(archive[name], dtype=np.float64) for name in ("timesteps", "results"))
        if results.ndim != 2 or len(timesteps) != len(results):
            raise ValueError(f"its arrays have the shapes {timesteps.shape} and {results.shape}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file} cannot be read ({error}).", "Leave it out.") from None
    return timesteps, results


def _log_settings(folder: Path, files: Sequence[Path]) -> tuple[int | None, dict[str, Any]]:
    """The seed of a log, and what is known of it: ``logs/ppo/CartPole-v1_3`` belongs to ``logs/ppo/CartPole-v1``.

    RL Zoo numbers its trainings of an env, whatever their settings, and writes these into a folder of the env's name.
    """
    resolved = folder.resolve()
    name, _, number = resolved.name.rpartition("_")
    is_numbered = bool(name) and number.isdigit()
    found: dict[str, Any] = {"log": str(resolved.with_name(name) if is_numbered else resolved)}
    envs = [env for file in files if (env := _monitor_env(file))]
    if not envs and is_numbered and re.search(r"-v\d+$", name):
        envs = [name]
    if envs:
        found["env.id"] = envs[0]
    settings = (_zoo_yaml(file) for file in sorted(folder.glob("*/config.yml")))
    found.update({f"hyperparameters.{key}": value for written in settings for key, value in written.items()})
    seeds = [_zoo_yaml(file).get("seed") for file in sorted(folder.glob("*/args.yml"))]
    return next((seed for seed in seeds if isinstance(seed, int) and seed >= 0), None), found


def _zoo_yaml(file: Path) -> dict[str, Any]:
    try:
        found = read_zoo_yaml(file).value
    except (RlrunError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _monitor_seed(file: Path) -> Seed:
    files = _files_of_run(file)
    seed, config = _log_settings(file.parent, files)
    return _of_training(files[0], files, config, seed if len(files) > 1 or file.name.startswith("0.") else None)


def _files_of_run(file: Path) -> list[Path]:
    """A Monitor file; ``0.monitor.csv``, ``1.monitor.csv`` and so on are of one run's envs."""
    if not file.name.partition(".")[0].isdigit():
        return [file]
    return sorted(other for other in file.parent.glob("*.monitor.csv") if other.name.partition(".")[0].isdigit())


def _of_training(path: Path, files: Sequence[Path], config: dict[str, Any], seed: int | None) -> Seed:
    """A run of which only training episodes are known: the mean of the last ones, over all of its envs."""
    rows = _episodes_in(files)
    if not rows:
        return Seed(path, seed, None, config)
    score = float(np.mean([value for _, value in rows][-_LAST:]))
    return Seed(path, seed, score, config, rows[-1][0], is_of_training=True)


def _monitor_env(file: Path) -> str | None:
    """The env's id from a Monitor file's first line, ``#{"t_start": ..., "env_id": "CartPole-v1"}``."""
    try:
        with file.open(encoding="utf-8") as stream:
            found = json.loads(stream.readline().removeprefix("#"))["env_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) and found not in ("", "None") else None


def _episodes_in(files: Sequence[Path]) -> list[tuple[int, float]]:
    """Timesteps of a run at which each episode ended, and its return, from the Monitor files of its envs.

    Each file counts the steps of its own env.
    """
    return sorted((steps * len(files), value) for file in files for steps, value in _monitor_rows(file))


def _monitor_rows(file: Path) -> list[tuple[int, float]]:
    """Timesteps at which each episode ended, and its return, of a Monitor CSV; a torn last row is passed over."""
    rows, steps = [], 0
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            if not stream.readline().startswith("#"):
                stream.seek(0)
            written = list(csv.DictReader(stream))
        for number, row in enumerate(written, 1):
            try:
                steps += int(float(row["l"]))
                rows.append((steps, float(row["r"])))
            except (ValueError, TypeError):
                if number < len(written):
                    raise
    except (OSError, ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
        raise UsageError(f"{file} is no Monitor file ({error}).", "Leave it out.") from None
    return rows


def _by_config(runs: Sequence[Seed]) -> list[Seeds]:
    alike: dict[str, list[Seed]] = {}
    for run in runs:
        alike.setdefault(json.dumps(run.config, sort_keys=True, default=str), []).append(run)
    groups = list(alike.values())
    names = _names([group[0] for group in groups])
    return [_distinct(name, group) for name, group in zip(names, groups, strict=True)]


def _names(firsts: Sequence[Seed]) -> list[str]:
    """Algorithm and env, and where that is not enough the settings that differ."""
    alike: dict[str, list[Seed]] = {}
    for first in firsts:
        alike.setdefault(_name(first), []).append(first)
    keys = {name: _telling(twins) for name, twins in alike.items()}
    return [_name_with(first, keys[_name(first)]) for first in firsts]


def _telling(twins: Sequence[Seed]) -> list[str]:
    """Settings that tell runs of one name apart: three of those that differ, and more where those do not."""
    found = {key for twin in twins for key in twin.config}
    keys = sorted(key for key in found if len({_shown(twin, key) for twin in twins}) > 1)
    tell = (n for n in range(3, len(keys)) if len({_name_with(twin, keys[:n]) for twin in twins}) == len(twins))
    return keys[: next(tell, len(keys))]


def _name_with(run: Seed, keys: Sequence[str]) -> str:
    return f"{_name(run)} {', '.join(_shown(run, key) for key in keys)}".strip()


def _shown(run: Seed, key: str) -> str:
    return f"{key}={run.config.get(key, 'default')}"


def _name(run: Seed) -> str:
    if "algo" in run.config:
        return f"{run.config['algo']} on {run.config['env.id']}"
    return "/".join(Path(str(run.config["log"])).parts[-2:]) if "log" in run.config else run.path.name


def read_curve(run: Seed, what: str) -> Curve | None:
    """The learning curve of a run.

    :param what: ``evaluation``, ``training`` (means of up to 100 episodes) or ``success``
    :return: None when nothing of the kind was recorded
    """
    if (run.path / ZOO_EVALUATIONS).is_file() and what == "evaluation":
        steps, values = _zoo_evaluations(run.path)
        return Curve(steps, values.mean(axis=1)) if len(steps) else None
    if what == "training":
        return _training_curve(run.path)
    return _mean_by_timesteps(run.path / "evaluations.csv", "return" if what == "evaluation" else "success")


def read_clock(path: Path) -> Curve | None:
    """Hours of training that a run took, by timesteps; a resumed run's clock goes on where it was.

    :return: None when it kept no clock, which counts whole seconds, or was over in the first one
    """
    found = read_columns(path / "metrics.csv", "timesteps", "time/time_elapsed")
    if found is None:
        return None
    steps, seconds = found
    if not seconds.any():
        return None
    before = np.where(np.diff(seconds) < 0, seconds[:-1], 0.0)
    seconds = seconds + np.append(0.0, np.cumsum(before))
    return Curve(np.append(0.0, steps), np.append(0.0, seconds) / 3600)


def read_columns(file: Path, *names: str) -> list[np.ndarray] | None:
    """Columns of a CSV file as numbers; rows without one of them are left out.

    :return: None when the file, a column or every row is missing
    """
    import pandas

    try:
        table = pandas.read_csv(file, usecols=list(names), on_bad_lines="skip", low_memory=False)
    except (OSError, ValueError):  # pandas' own errors are ValueErrors
        return None
    numbers = table.apply(pandas.to_numeric, errors="coerce").dropna()
    return [numbers[name].to_numpy(dtype=np.float64) for name in names] if len(numbers) else None


def read_table(file: Path) -> dict[str, np.ndarray]:
    """All columns of a CSV file as numbers: NaN where a cell is empty or no number, and infinite where it says ``nan``.

    :return: empty when the file cannot be read
    """
    import pandas

    try:
        table = pandas.read_csv(file, on_bad_lines="skip", dtype=str, keep_default_na=False, na_values=[""])
    except (OSError, ValueError):
        return {}
    numbers = table.replace({"nan": "inf", "NaN": "inf"}).apply(pandas.to_numeric, errors="coerce")
    return {str(name): numbers[name].to_numpy(dtype=np.float64) for name in numbers}


def _mean_by_timesteps(file: Path, column: str) -> Curve | None:
    found = read_columns(file, "timesteps", column)
    if found is None:
        return None
    steps, where = np.unique(found[0], return_inverse=True)
    return Curve(steps, np.bincount(where, weights=found[1]) / np.bincount(where))


def _training_curve(path: Path) -> Curve | None:
    is_monitor = path.name.endswith("monitor.csv")
    if is_monitor or not (path / "episodes.csv").is_file():
        files = _files_of_run(path) if is_monitor else sorted(path.glob("*.monitor.csv"))
        rows = _episodes_in(files)
        found = list(np.asarray(rows, dtype=np.float64).T) if rows else None
    else:
        found = read_columns(path / "episodes.csv", "timesteps", "return")
    if found is None:
        return None
    import pandas

    window = min(_LAST, max(1, len(found[1]) // 5))
    means = pandas.Series(found[1]).rolling(window).mean().to_numpy()
    return Curve(found[0][window - 1 :], means[window - 1 :])
