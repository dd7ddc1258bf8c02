"""From a repository, or a folder in its layout, to a run directory. Nothing that comes is run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import HfApi, snapshot_download

from rlrun.config.loading import Override, read_source, validate
from rlrun.config.schema import Config
from rlrun.console import note
from rlrun.envs.normalization import Statistics
from rlrun.errors import ConfigError, UsageError
from rlrun.hub.client import hub_errors_in_words, quiet_without_terminal
from rlrun.outside import plan_of
from rlrun.runs.archive import read_data, read_statistics, read_tensors
from rlrun.runs.checkpoint import MODEL, PICKLED_STATISTICS, STATISTICS
from rlrun.runs.directory import CONFIG, MANIFEST, STATE, RunDirectory
from rlrun.runs.files import os_errors_in_words, write_json, write_whole
from rlrun.runs.foreign import ForeignAgent, find_agent
from rlrun.runs.sums import SUMS, damage_of, read_sums, write_sums

_WANTED = ("*.zip", "*.json", "*.yaml", "*.yml", "*.pkl", "*.npz", "*.npy", "*.md", "*.mp4")
_MOST_BYTES = 8 * 2**30


def download(repo: str, revision: str | None) -> tuple[Path, str]:
    """Fetch a repository's files.

    :return: the folder they are in, and the commit
    :raises UsageError: when there is no such repository
    :raises RlrunError: when the Hub cannot be reached
    """
    with hub_errors_in_words(f"fetching {repo}"):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
        size = sum(file.size or 0 for file in info.siblings or ())
        if size > _MOST_BYTES:
            raise UsageError(f"{repo} holds {size / 1e9:.1f} GB, and no more than {_MOST_BYTES / 1e9:.1f} are fetched.")
        names = {file.rfilename for file in info.siblings or ()}
        # A package is verified whole; of other repositories only what is understood is fetched.
        wanted = None if SUMS in names else list(_WANTED)
        with quiet_without_terminal():
            folder = snapshot_download(repo, revision=info.sha, allow_patterns=wanted)
    return Path(folder), str(info.sha)


def adopt(
    folder: Path,
    run_dir: Path,
    name: str | None,
    origin: dict[str, Any],
    *,
    env: str | None = None,
    algo: str | None = None,
) -> RunDirectory:
    """Make a run directory of a package, of a folder in the Hub's layout, or of a log folder of RL Zoo.

    The run is not signed: it is someone else's until it is trusted.

    :param origin: where it came from, for the manifest
    :param env: the env's id, where the files do not say it or name one that is gone
    :raises UsageError: when it is damaged, or needs code of its author's
    """
    if (folder / SUMS).is_file() and (folder / CONFIG).is_file():
        return _from_package(folder, run_dir, name, origin)
    return _from_foreign(folder, run_dir, name, origin, env, algo)


def _from_package(folder: Path, run_dir: Path, name: str | None, origin: dict[str, Any]) -> RunDirectory:
    problem = damage_of(folder, required=(CONFIG, STATE, MANIFEST))
    if problem:
        raise UsageError(f"What came from {origin['from']} is damaged: {problem}.", "Fetch it again.")
    config, problems = validate(read_source(folder / CONFIG))
    if config is None:
        raise ConfigError(problems)
    models = [folder / file for file in read_sums(folder) if file.endswith(".zip") and "/" not in file]
    if len(models) != 1:
        raise UsageError(f"What came from {origin['from']} holds {len(models)} models.", "It is no package of rlrun's.")
    manifest = _read_json(folder / MANIFEST)
    statistics = read_statistics(folder / STATISTICS) if (folder / STATISTICS).exists() else None
    state = {**_read_json(folder / STATE), "resumable": False}
    return _made(run_dir, name, config, models[0], statistics, state, {**manifest, **origin}, folder)


def _from_foreign(
    folder: Path,
    run_dir: Path,
    name: str | None,
    origin: dict[str, Any],
    env: str | None,
    algo: str | None,
) -> RunDirectory:
    found = find_agent(folder, algo)
    plan = plan_of(found, str(origin["from"]), algo, env, _how_it_was_evaluated(folder), say=note)
    state = _state_of(found)
    return _made(run_dir, name, plan.config, found.model_path, found.statistics(), state, origin, folder)


def _how_it_was_evaluated(folder: Path) -> list[Override]:
    """What results.json says of the actions; package_to_hub and rlrun write it."""
    try:
        value = json.loads((folder / "results.json").read_text()).get("is_deterministic")
    except (OSError, ValueError, AttributeError):
        return []
    return [Override("evaluation.deterministic", value, "results.json")] if isinstance(value, bool) else []


def _state_of(found: ForeignAgent) -> dict[str, Any]:
    counted: dict[str, Any] = {"timesteps": found.timesteps, "resumable": False, "scheduled": True}
    return {"format": 1, **counted, "learner": {}, "session": {}}


def _made(
    run_dir: Path,
    name: str | None,
    config: Config,
    model: Path,
    statistics: Statistics | None,
    state: dict[str, Any],
    manifest: dict[str, Any],
    folder: Path,
) -> RunDirectory:
    """The run directory with its one checkpoint."""
    read_tensors(model)  # whatever is wrong with the model is said before anything is created
    read_data(model)
    timesteps = state.get("timesteps") or 0
    if not isinstance(timesteps, int) or not 0 <= timesteps < 10**15:
        raise UsageError("state.json says no number of timesteps.", "Fetch it again.")
    known = {"algo": config.algo, "env": config.env.id, "seed": config.seed, "timesteps": timesteps, "seconds": 0.0}
    run = RunDirectory.create(run_dir, config, name, {**known, **manifest, "status": "finished", "import_paths": []})
    try:
        with os_errors_in_words("writing the run"):
            checkpoint = run.checkpoint_path(timesteps)
            checkpoint.mkdir(parents=True)
            shutil.copyfile(model, checkpoint / MODEL)
            if statistics is not None:
                np.savez(checkpoint / STATISTICS, **statistics)  # type: ignore[arg-type]
            if (folder / PICKLED_STATISTICS).exists():
                shutil.copyfile(folder / PICKLED_STATISTICS, checkpoint / PICKLED_STATISTICS)
            write_json(checkpoint / STATE, state)
            write_sums(checkpoint)
            for pointer in ("best", "final", "latest"):
                run.point(pointer, timesteps)
            for file in ("results.json", "README.md", "replay.mp4"):
                if (folder / file).is_file():
                    (run.path / "hub").mkdir(exist_ok=True)
                    write_whole(run.path / "hub" / file, (folder / file).read_bytes())
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    return run


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.name} cannot be read ({error}).", "Fetch it again.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path.name} holds no object.", "Fetch it again.")
    return value
