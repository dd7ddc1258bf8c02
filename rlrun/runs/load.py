"""From a run directory or an SB3 zip to an agent that can act. Nothing that is read is unpickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from rlrun.algorithms.build import build_model
from rlrun.config.classes import make_importable
from rlrun.config.schema import Config
from rlrun.envs.curiosity import find_curiosity
from rlrun.envs.normalization import Statistics, get_statistics, set_statistics
from rlrun.envs.recipe import EnvRecipe, Role, find_normalizer
from rlrun.envs.seeding import generators_preserved, seed_global_generators
from rlrun.errors import RlrunError, UsageError
from rlrun.runs.archive import read_tensors
from rlrun.runs.checkpoint import first_whole, read_checkpoint, require_statistics
from rlrun.runs.directory import CONFIG, RunDirectory, run_of_checkpoint
from rlrun.runs.foreign import find_agent
from rlrun.runs.learner import set_tensors
from rlrun.runs.trust import trusted_import_paths


@dataclass(frozen=True)
class Agent:
    """A policy with everything it needs to act: its env's recipe and its normalization statistics.

    :ivar checkpoint: which one it is, for people; None for an untrained one
    """

    config: Config
    model: BaseAlgorithm
    recipe: EnvRecipe
    statistics: Statistics | None
    checkpoint: str | None
    timesteps: int


def load_agent(
    run: RunDirectory,
    which: str | None = None,
    config: Config | None = None,
    *,
    trust: bool = False,
    say: Callable[[str], None],
) -> Agent:
    """The agent of one checkpoint.

    :param which: ``best``, ``final``, ``latest``, a number of timesteps, or None for the first that there is
    :param config: the run's config with changes that concern evaluation only
    :param trust: import what the config names, though the run is not known to be this user's
    :param say: told what is imported on trust
    """
    if which is None:
        name, checkpoint = first_whole(run, say)
    else:
        name, timesteps = run.choose_checkpoint(which)
        checkpoint = read_checkpoint(run, timesteps)
    config = config or run.config()
    require_statistics(checkpoint, config.normalize is not None)
    recipe = EnvRecipe.from_config(config, trusted_import_paths(run, config, trust, say))
    model = build_to_act(config, recipe, checkpoint.statistics)
    set_tensors(model, read_tensors(checkpoint.model_path, model.device), only_policy=True)
    return Agent(config, model, recipe, checkpoint.statistics, name, checkpoint.timesteps)


def untrained_agent(config: Config, recipe: EnvRecipe) -> Agent:
    """A fresh network, its weights drawn from the run's seed, with statistics that change nothing."""
    statistics = None
    if config.normalize is not None:
        venv, _ = recipe.make_training_vec()
        normalizer = find_normalizer(venv)
        statistics = get_statistics(normalizer) if normalizer is not None else None
        venv.close()
    return Agent(config, build_to_act(config, recipe, statistics), recipe, statistics, None, 0)


def build_to_act(config: Config, recipe: EnvRecipe, statistics: Statistics | None) -> BaseAlgorithm:
    """A model that only has to act: fresh weights, and no replay buffer."""
    make_importable(recipe.import_paths)
    torch.set_num_threads(config.threads or 1)  # as in training: a small network is slower on more
    venv = recipe.make_vec(Role.EVAL, [()], statistics)
    try:
        with generators_preserved():
            seed_global_generators(config.seed)
            return build_model(config, venv, device=_device(config), for_training=False)
    finally:
        venv.close()


def _device(config: Config) -> str:
    return config.device if config.device == "cpu" or torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Parent:
    """What a new run starts from.

    :ivar label: how the manifest names it
    :ivar algo: registry name; None where nothing says it
    :ivar statistics: normalization statistics beside the model; None where there are none
    :ivar curiosity: what its intrinsic reward came from; None where it had none
    """

    model_path: Path
    label: str
    algo: str | None
    statistics: Statistics | None
    curiosity: Mapping[str, np.ndarray] | None = None


def read_parent(path: Path) -> Parent:
    """The model that ``--init`` means.

    :param path: a run directory, a path into one, or an SB3 zip
    :raises UsageError: when it is none of them
    """
    if (path / CONFIG).is_file():
        run = RunDirectory.open(path)
        place = run, run.choose_checkpoint()[1]
    elif (found := run_of_checkpoint(path)) is not None:
        place = found
    elif path.is_file():
        agent = find_agent(path)
        return Parent(path, str(path), agent.algo, agent.statistics())
    else:
        raise UsageError(f"{path} is neither a run directory nor an SB3 zip.", "Name one with --init.")
    checkpoint = read_checkpoint(*place)
    label = f"{path} at {checkpoint.timesteps:,} timesteps"
    return Parent(checkpoint.model_path, label, _algo_of(place[0]), checkpoint.statistics, checkpoint.curiosity())


def _algo_of(run: RunDirectory) -> str | None:
    try:
        return run.config().algo
    except RlrunError:  # another version's
        return None


def start_from(model: BaseAlgorithm, parent: Parent) -> None:
    """Give a fresh model another one's weights, and its env the statistics and the curiosity that belong to them.

    :raises UsageError: when the two do not fit
    """
    try:
        set_tensors(model, read_tensors(parent.model_path, model.device), only_policy=True)
    except UsageError as error:
        kind = f" ({parent.algo})" if parent.algo else ""
        raise UsageError(f"{parent.label}{kind}: {error.message}", error.hint) from None
    normalizer = find_normalizer(model.env)
    if (normalizer is None) != (parent.statistics is None):
        one, other = ("this config does", "it was not trained so")
        if normalizer is None:
            one, other = ("its agent was trained so", "this config does not")
        message = f"{parent.label} does not fit: only one side normalizes ({one}, {other})."
        raise UsageError(message, "Set `normalize` as it was for the weights.")
    if normalizer is not None and parent.statistics is not None:
        set_statistics(normalizer, parent.statistics)
    curiosity = find_curiosity(model.env)
    if curiosity is not None and parent.curiosity is not None and curiosity.is_alike(parent.curiosity):
        curiosity.set_state({**parent.curiosity, "returns": np.zeros(curiosity.num_envs)})
