"""Agents that rlrun did not train: an SB3 zip, a folder in the Hub's layout, a log folder of RL Zoo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.algorithms.registry import Algorithm, algorithms, get_algorithm
from rlrun.config.signatures import keyword_parameters
from rlrun.config.yaml import read_zoo_yaml
from rlrun.envs.normalization import Statistics
from rlrun.envs.wrappers import KNOWN
from rlrun.errors import UsageError
from rlrun.runs.archive import read_data, read_pickled_normalizer, read_statistics
from rlrun.runs.pickles import ForbiddenName, Name, names_in_pickle, read_pickle

_STATISTICS = ("vec_normalize.npz", "vec_normalize.pkl", "vecnormalize.pkl")
# What tells an algorithm by an attribute or by a part of its policy's name; the first that fits.
_SIGNS = (
    ("q_learning", "TablePolicy"),
    ("reinforce", "standardize"),
    ("recurrent_ppo", "Recurrent"),
    ("maskable_ppo", "Maskable"),
    ("crossq", "crossq"),
    ("tqc", "top_quantiles_to_drop_per_net"),
    ("qrdqn", "QRDQN"),
    ("dqn", "exploration_fraction"),
    ("td3", "target_policy_noise"),
    ("sac", "target_entropy"),
    ("trpo", "cg_max_steps"),
    ("ars", "delta_std"),
    ("ppo", "clip_range"),
    ("a2c", "gae_lambda"),
)


@dataclass(frozen=True)
class ForeignAgent:
    """What lies there, and what it says of itself.

    :ivar algo: registry name; None where nothing says it
    :ivar env: the env's id; None where nothing says it
    :ivar config: sections of a config that follow from the files; ``hyperparameters`` only as far as acting needs them
    :ivar lacks_statistics: it was trained normalized, and the statistics are not there
    :ivar may_lack_statistics: the statistics are not there, and the file does not say whether there were any
    :ivar unread: names that pickles ask for which acting needs, and which are not read without trust
    """

    model_path: Path
    statistics_path: Path | None
    algo: str | None
    env: str | None
    timesteps: int
    config: dict[str, Any]
    lacks_statistics: bool
    may_lack_statistics: bool
    unread: tuple[str, ...]

    def statistics(self) -> Statistics | None:
        """The normalization statistics; None when there are none."""
        if self.statistics_path is None:
            return None
        if self.statistics_path.suffix == ".npz":
            return read_statistics(self.statistics_path)
        return read_pickled_normalizer(self.statistics_path)[0]


def is_foreign(path: Path) -> bool:
    """Whether a path is an SB3 zip, or a folder that holds one and is no run directory."""
    return (path.is_file() and path.suffix == ".zip") or (
        path.is_dir() and not (path / "config.yaml").exists() and bool(_zips(path))
    )


def find_agent(path: Path, algo: str | None = None) -> ForeignAgent:
    """Read what an agent's files say, without running any of it.

    :param algo: instead of what they say
    :raises UsageError: when there is no model, or what acting needs is only there as a pickle that must not be read
    """
    model = path if path.is_file() else _model_in(path)
    data = read_data(model)
    zoo = _zoo_settings(model)
    words = _words_of_name(model)
    name = algo or zoo.get("algo") or words[0] or _algorithm_by_signs(data)
    config: dict[str, Any] = dict(zoo.get("config", {}))
    unread: list[str] = []
    if name is not None:
        config["hyperparameters"], unread = _hyperparameters(get_algorithm(name), data, model)
    statistics = _statistics_of(model)
    if statistics is not None:
        pickled = statistics.with_suffix(".pkl")
        if pickled.exists():
            config["normalize"] = read_pickled_normalizer(pickled)[1]
        else:
            config["normalize"] = True
    timesteps = data.get("num_timesteps")
    # On-policy algorithms keep this observation under VecNormalize only; off-policy ones always do.
    has_original = statistics is None and data.get("_last_original_obs") is not None
    is_off_policy = "learning_starts" in data
    return ForeignAgent(
        model_path=model,
        statistics_path=statistics,
        algo=name,
        env=zoo.get("env") or words[1],
        timesteps=timesteps if isinstance(timesteps, int) else 0,
        config=config,
        lacks_statistics=has_original and not is_off_policy,
        may_lack_statistics=has_original and is_off_policy,
        unread=tuple(unread),
    )


def _zips(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.zip") if path.name != "train_eval_metrics.zip")


def _model_in(folder: Path) -> Path:
    zips = _zips(folder)
    likely = [path for path in zips if _words_of_name(path)[0] is not None]  # <algo>-<env>.zip, as on the Hub
    likely = likely or [path for path in zips if (folder / path.stem).is_dir()]  # <env>.zip beside <env>/, as RL Zoo
    likely = likely or zips
    if not likely:
        raise UsageError(f"There is no SB3 model (*.zip) in {folder}.", "Name the zip itself.")
    if len(likely) > 1:
        names = ", ".join(path.name for path in likely)
        raise UsageError(f"There are several models in {folder}: {names}.", "Name the one you mean.")
    return likely[0]


def _words_of_name(model: Path) -> tuple[str | None, str | None]:
    """Algorithm and env of a file named ``ppo-CartPole-v1.zip``."""
    algo, dash, env = model.stem.partition("-")
    if dash and algo.lower() in algorithms() and re.search(r"-v\d+$", env):
        return algo.lower(), env
    return None, None


def _statistics_of(model: Path) -> Path | None:
    places = (model.parent, model.with_suffix(""))
    files = [place / name for place in places for name in _STATISTICS]
    return next((file for file in files if file.is_file()), None)


def _algorithm_by_signs(data: Mapping[str, Any]) -> str | None:
    policy = ".".join(names_in_pickle(data["policy_class"])) if isinstance(data.get("policy_class"), bytes) else ""
    return next((algo for algo, sign in _SIGNS if sign in data or sign in policy), None)


def _hyperparameters(algorithm: Algorithm, data: Mapping[str, Any], model: Path) -> tuple[dict[str, Any], list[str]]:
    """What the network is made with, and names that would have to be imported for the rest of it.

    Schedules, buffers and the like are not needed to act, so they are not read.
    """
    kwargs: Any = data.get("policy_kwargs") or {}
    unread: list[str] = []
    if isinstance(kwargs, bytes):
        try:
            kwargs = read_pickle(kwargs, f"policy_kwargs in {model}")
        except ForbiddenName as error:
            kwargs = {}
            unread.append(error.name)
    if not isinstance(kwargs, dict):
        raise UsageError(f"policy_kwargs in {model} is no dict.", "Use another file.")
    known = keyword_parameters(algorithm.load())
    found: dict[str, Any] = {}
    if "policy_kwargs" in known:  # to which SB3 adds use_sde itself
        found["policy_kwargs"] = {key: _plain(v) for key, v in kwargs.items() if key != "use_sde"}
    pickled = data.get("policy_class")
    names = names_in_pickle(pickled) if isinstance(pickled, bytes) else []
    classes = algorithm.load().policy_aliases
    if "dueling" in known and data.get("dueling") is True:
        from rlrun.algorithms.dqn import DUELING

        found["dueling"] = True
        classes = {alias: DUELING[cls] for alias, cls in classes.items()}
    aliases = {f"{cls.__module__}.{cls.__qualname__}": alias for alias, cls in classes.items()}
    policy = next((aliases[name] for name in names if name in aliases), None)
    if policy is not None:
        found["policy"] = policy
    elif names and names[0].startswith(("stable_baselines3.", "sb3_contrib.")):
        message = f"{model} holds a {names[0].rpartition('.')[2]}, which is no policy of {algorithm.name}."
        raise UsageError(message, "Say with --algo which algorithm trained it.")
    else:
        unread += names
    if data.get("use_sde") is True:
        found["use_sde"] = True
    return found, unread


def _plain(value: Any) -> Any:
    if isinstance(value, Name):
        return value.name.rpartition(".")[2]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


# -- RL Zoo's logs: <algo>/<env>_<n>/<env>.zip, with args.yml and config.yml in <env>/


def _zoo_settings(model: Path) -> dict[str, Any]:
    folders = [folder for folder in (model.with_suffix(""), model.parent) if (folder / "args.yml").is_file()]
    folders += [f for f in model.parent.glob("*") if f.is_dir() and (f / "args.yml").is_file()]
    if not folders:
        return {}
    arguments, settings = (_mapping(folders[0] / name) for name in ("args.yml", "config.yml"))
    env: dict[str, Any] = {}
    if isinstance(arguments.get("env_kwargs"), dict):
        env["kwargs"] = arguments["env_kwargs"]
    if isinstance(settings.get("frame_stack"), int):
        env["frame_stack"] = settings["frame_stack"]
    if settings.get("env_wrapper"):
        env["wrappers"] = [_wrapper(entry) for entry in _listed(settings["env_wrapper"])]
    found = {"algo": arguments.get("algo"), "env": arguments.get("env"), "config": {"env": env} if env else {}}
    if _is_atari(str(found["env"])) and "wrappers" not in env:
        found["config"] = {"env": {**env, "wrappers": ["AtariWrapper"]}}
    return found


def _mapping(path: Path) -> dict[str, Any]:
    value = read_zoo_yaml(path).value if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _wrapper(entry: Any) -> Any:
    """``package.module.Class``, alone or with keyword arguments, as a config writes it."""
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, kwargs),) = entry.items()
        return {_wrapper(name): kwargs}
    module, _, name = str(entry).rpartition(".")
    return name if name in KNOWN and KNOWN[name].module.startswith(module.split(".")[0]) else f"{module}:{name}"


def _is_atari(env: str) -> bool:
    return "NoFrameskip" in env
