"""The flags of the command line: what several commands share, what numbers may look like, and what Zoo's are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlrun.errors import UsageError

if TYPE_CHECKING:
    from rlrun.training.zoo import ZooEntry

# RL Baselines3 Zoo's flags, and what they are here.
ZOO_HABITS = {
    **dict.fromkeys(("-n", "--n-timesteps"), "rlrun calls it --timesteps."),
    **dict.fromkeys(("-f", "--log-folder", "--folder"), "rlrun calls it --run-dir."),
    **dict.fromkeys(
        ("-i", "--trained-agent"), "To continue a run: rlrun resume RUN. To start from its weights: --init RUN."
    ),
    **dict.fromkeys(("-params", "--hyperparams", "-p"), "rlrun writes --set hyperparameters.gamma=0.99"),
    **dict.fromkeys(("-conf", "--conf-file"), "rlrun calls it --config."),
    "--env-kwargs": "rlrun writes --set env.kwargs.x=1",
    "--eval-freq": "rlrun writes --set evaluation.every=N, in timesteps.",
    "--eval-episodes": "rlrun writes --set evaluation.episodes=N.",
    "--n-eval-episodes": "rlrun writes --set evaluation.episodes=N.",
    "--save-freq": "rlrun writes --set checkpoint.every=N, in timesteps.",
    "--n-envs": "rlrun writes --set env.n_envs=N.",
    "--vec-env": "rlrun writes --set env.vec=workers.",
    "--num-threads": "rlrun writes --set threads=N.",
    **dict.fromkeys(("-tb", "--tensorboard-log"), "A run directory has TensorBoard logs by itself."),
    "--track": "rlrun writes --set 'trackers=[wandb]'.",
    "--load-best": "rlrun calls it --checkpoint best.",
    "--exp-id": "rlrun takes a run directory, a unique part of its name, or latest.",
    "--no-render": "rlrun eval does not render.",
    "--optimize": "rlrun tunes with its own command: rlrun tune CONFIG --trials 100",
    "--gym-packages": "rlrun writes --set 'env.imports=[package]'.",
    "--eval-env-kwargs": "rlrun writes --set evaluation.env_kwargs.x=1",
    "--n-eval-envs": "rlrun writes --set evaluation.n_envs=N.",
    "--log-interval": "rlrun writes --set log_every=N, in timesteps.",
    "--save-replay-buffer": "rlrun saves it with every checkpoint.",
    "--load-checkpoint": "rlrun calls it --checkpoint N.",
    "--load-last-checkpoint": "rlrun calls it --checkpoint latest.",
    "--deterministic": "rlrun eval does it where the env's family is evaluated so; --set evaluation.deterministic=true",
    "--stochastic": "rlrun writes --set evaluation.deterministic=false",
    **dict.fromkeys(("-P", "--progress"), "rlrun shows its progress by itself."),
    **dict.fromkeys(("-uuid", "--uuid"), "Every run directory has a name of its own."),
}

ConfigArgument = Annotated[
    str | None, typer.Argument(metavar="CONFIG", help="A YAML file or the name of a shipped config.")
]
ConfigOption = Annotated[str | None, typer.Option("--config", "-c", help="The same, as a flag.")]
AlgoOption = Annotated[str | None, typer.Option(help="With --env: find the shipped config, or in RL Zoo's file.")]
EnvOption = Annotated[str | None, typer.Option(help="With --algo: find the shipped config, or in RL Zoo's file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a value; may be repeated.")
]
SeedOption = Annotated[int | None, typer.Option(help="Sugar for --set seed=N.")]
RUNS = Path("runs")
RunDirOption = Annotated[Path, typer.Option("--run-dir", help="Where run directories are.")]
CheckpointOption = Annotated[str | None, typer.Option(help="best, final, latest, or a number of timesteps.")]
JobsOption = Annotated[int | None, typer.Option(min=1, help="Of a group: seeds at a time; default: the usable cores.")]
OnOption = Annotated[
    str | None, typer.Option("--on", metavar="ray", help="Train on the machines of a Ray cluster; default: this one.")
]
AddressOption = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Of the Ray cluster; default: the one of this machine.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Import the code that it names, though it is not known to be yours.")
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run directory, a unique part of its name, or latest.")
]


def whole(text: str) -> int:
    """A whole number as a config may write it: ``1e3`` and ``1_000`` too."""
    from rlrun.config.schema import whole_number
    from rlrun.config.yaml import core_scalar

    number = whole_number(core_scalar(str(text)))  # a default comes as a number
    if not isinstance(number, int) or isinstance(number, bool):
        raise typer.BadParameter(f"it must be a whole number, not {text!r}")
    return number


def positive(text: str) -> int:
    """The same, from 1 on."""
    if (number := whole(text)) < 1:
        raise typer.BadParameter(f"it must be 1 or more, not {text}")
    return number


def seeds_of(text: str) -> list[int]:
    """Seeds as ranges and numbers: ``0-4,10``."""
    from rlrun.config.schema import parse_seeds

    try:
        return parse_seeds(text)
    except ValueError as error:
        raise UsageError(f"{error}.", "Write ranges and numbers: --seeds 0-4,10") from None


def finite(text: str) -> float:
    """A number, and neither infinite nor none."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise typer.BadParameter(f"it must be a number, not {text!r}")
    return number


def overrides_of(pairs: Sequence[str] | None, **sugar: Any) -> list[Any]:
    """The overrides that ``--set`` and the flags that are sugar for it stand for."""
    from rlrun.config.loading import Override

    flags = {"device": "--device", "init_from": "--init", "max_time": "--max-time"}
    return [
        *(Override.parse(pair) for pair in pairs or ()),
        *(Override(key, value, flags[key]) for key, value in sugar.items() if value is not None),
    ]


def chosen_config(argument: str | None, option: str | None, algo: str | None, env: str | None) -> Path | ZooEntry:
    """The config that a command line means: a file, or a section of one in RL Zoo's format."""
    from rlrun.config.locate import find_by_env, find_config
    from rlrun.config.zoo import is_zoo_file

    given = [text for text in (argument, option) if text is not None]
    if len(given) == 2:
        raise UsageError(f"Two configs are named: {argument} and {option}.", "Name one.")
    if given and (algo or env):
        path = find_config(given[0])
        if env and is_zoo_file(path):
            from rlrun.training.zoo import ZooEntry

            return ZooEntry(path, env, algo)
        if not is_zoo_file(path):
            raise UsageError("--algo and --env find a shipped config, and one is named already.", "Leave them out.")
    if given:
        return find_config(given[0])
    if algo and env:
        return find_by_env(env, algo)
    missing = "--env" if algo else "--algo" if env else "a config"
    raise UsageError(f"{missing} is missing.", "For instance: rlrun train --config CartPole-v1/ppo")
