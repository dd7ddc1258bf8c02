"""The folder that would be pushed: what module huggingface_sb3's users expect, and what rlrun needs to trust it."""

from __future__ import annotations

import datetime
import json
import secrets
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.config.loading import read_source, validate
from rlrun.errors import ConfigError, RlrunError, UsageError
from rlrun.evaluation.evaluate import episode_seeds
from rlrun.publish.card import (
    CURVE,
    MODEL_CARD,
    VIDEO,
    CardFacts,
    leaderboard_words,
    mean_reward_of,
    model_card,
    model_file,
)
from rlrun.publish.curve import draw_curve
from rlrun.runs.checkpoint import PICKLED_STATISTICS, STATISTICS, TABLE, Checkpoint, read_checkpoint
from rlrun.runs.directory import CONFIG, MANIFEST, STATE, RunDirectory
from rlrun.runs.files import os_errors_in_words, rename_into_place, to_yaml, write_json
from rlrun.runs.sums import SUMS, damage_of, write_sums

RESULTS, SB3_CONFIG = "results.json", "config.json"
_PUBLIC = ("algo", "env", "seed", "timesteps", "seconds", "created", "ended_by", "versions", "extra_cuts")
_LOGS = ("metrics.csv", "evaluations.csv", "episodes.csv")


@dataclass(frozen=True)
class Package:
    """A folder ready to be pushed.

    :ivar words: of the course's leaderboard
    :ivar warnings: what could not be put in
    """

    path: Path
    mean_reward: str
    words: str
    warnings: tuple[str, ...]


def make_package(
    run: RunDirectory,
    which: str,
    result: Mapping[str, Any],
    out: Path,
    *,
    repo: str | None = None,
    revision: str | None = None,
    logs: bool = False,
    film: Callable[[Path], None] | None = None,
) -> Package:
    """Write the folder, whole.

    :param which: the checkpoint, as ``result`` names it
    :param result: its evaluation, as plain values
    :param out: the folder; one that is there already is replaced if it is a package
    :param repo: ``user/name`` that the card's code will name, and the branch
    :param logs: with the CSV files and TensorBoard's
    :param film: makes the video; whatever it raises leaves the package without one
    :raises UsageError: when ``out`` is something else than a package
    """
    if out.exists() and not (out / SUMS).is_file():
        raise UsageError(f"{out} is there already and is no package.", "Choose another folder with --out.")
    checkpoint = read_checkpoint(run, run.choose_checkpoint(which)[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    warnings: list[str] = []
    with os_errors_in_words(f"writing {out}"):
        try:
            temporary.mkdir()
            facts = _fill(run, checkpoint, result, temporary, (repo, revision), film, warnings)
            if logs:
                _copy_logs(run, temporary)
            (temporary / MODEL_CARD).write_text(model_card(facts), encoding="utf-8")
            write_sums(temporary, without=(MODEL_CARD,))  # its author may go on writing
            rename_into_place(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Package(out, facts.mean_reward, leaderboard_words(facts.config, result), tuple(warnings))


def is_package(path: Path) -> bool:
    """Whether a folder is a package that rlrun made."""
    return all((path / name).is_file() for name in (SUMS, MODEL_CARD, CONFIG, SB3_CONFIG))


def read_package(folder: Path) -> Package:
    """A package that is there already; the card may have been changed by hand.

    :raises UsageError: when anything else of it was
    """
    problem = damage_of(folder, required=(CONFIG, STATE, MANIFEST))
    if problem:
        raise UsageError(f"The package {folder} is not as it was made: {problem}.", "Make it anew: rlrun package RUN")
    config, problems = validate(read_source(folder / CONFIG))
    if config is None:
        raise ConfigError(problems)
    results = json.loads((folder / RESULTS).read_text())
    result = {"mean_return": results["mean_reward"], "std_return": results["std_reward"]}
    return Package(folder.resolve(), mean_reward_of(result), leaderboard_words(config, result), ())


def _fill(
    run: RunDirectory,
    checkpoint: Checkpoint,
    result: Mapping[str, Any],
    folder: Path,
    target: tuple[str | None, str | None],
    film: Callable[[Path], None] | None,
    warnings: list[str],
) -> CardFacts:
    # A package does not say where on the author's disk the run lay, nor what else was in its command.
    own, manifest = run.config(), run.manifest()
    config = own.model_copy(update={"init_from": None})
    shutil.copyfile(checkpoint.model_path, folder / model_file(config))
    for name in (PICKLED_STATISTICS, STATISTICS, TABLE):
        if (checkpoint.path / name).exists():
            shutil.copyfile(checkpoint.path / name, folder / name)
    write_json(folder / STATE, {**checkpoint.state, "resumable": False, "replay_buffer": None})
    seeds = episode_seeds(config, result["episodes"])
    (folder / CONFIG).write_text(to_yaml(config.model_dump(by_alias=True)))
    hardware = {key: (manifest.get("hardware") or {}).get(key) for key in ("system", "cpu", "cores", "gpu")}
    write_json(folder / MANIFEST, {**{key: manifest.get(key) for key in _PUBLIC}, "hardware": hardware})
    write_json(folder / RESULTS, _results(result, seeds))
    write_json(folder / SB3_CONFIG, _attributes(checkpoint.model_path))
    if film is not None:
        try:
            film(folder / VIDEO)
        except Exception as error:  # an env's own drawing may raise anything
            words = error.message if isinstance(error, RlrunError) else f"{type(error).__name__}: {error}"
            warnings.append(f"There is no video: {words}")
    return CardFacts(
        config=config,
        result=result,
        episode_seeds=seeds,
        versions=manifest.get("versions") or {},
        timesteps=checkpoint.timesteps,
        repo=target[0],
        revision=target[1],
        has_parent=own.init_from is not None,
        has_video=(folder / VIDEO).exists(),
        has_curve=draw_curve(run, folder / CURVE),
        has_statistics=(folder / PICKLED_STATISTICS).exists(),
    )


def _results(result: Mapping[str, Any], seeds: list[int]) -> dict[str, Any]:
    """The keys that package_to_hub writes, and rlrun's own beside them."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    known = {
        "mean_reward": result["mean_return"],
        "std_reward": result["std_return"],
        "is_deterministic": result["deterministic"],
        "n_eval_episodes": result["episodes"],
        "eval_datetime": now,
    }
    own = ("seed", "ci95", "mean_length", "success_rate", "returns", "timesteps")
    return {**known, **{key: result[key] for key in own}, "episode_seeds": seeds}


def _attributes(model: Path) -> dict[str, Any]:
    """The model's attributes as SB3 saved them, without what is only there as a pickle."""
    with zipfile.ZipFile(model) as archive:
        data = json.loads(archive.read("data"))
        if "system_info.txt" in archive.namelist():  # SB3 before 1.6 wrote none
            data["system_info"] = archive.read("system_info.txt").decode()
    return {
        name: {key: item for key, item in value.items() if key != ":serialized:"} if isinstance(value, dict) else value
        for name, value in data.items()
    }


def _copy_logs(run: RunDirectory, folder: Path) -> None:
    (folder / "logs").mkdir()
    for name in _LOGS:
        if (run.path / name).exists():
            shutil.copyfile(run.path / name, folder / "logs" / name)
    if (run.path / "tensorboard").is_dir():
        shutil.copytree(run.path / "tensorboard", folder / "logs" / "tensorboard")
