"""Agents that rlrun did not train: evaluate them, and see what they hold before anything of them is run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlrun.config.loading import Override, read_source
from rlrun.config.locate import find_config
from rlrun.errors import UsageError
from rlrun.run import Result, evaluate_agent
from rlrun.runs.directory import CONFIG, RunDirectory, find_run

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rlrun.runs.foreign import ForeignAgent
    from rlrun.runs.load import Agent
    from rlrun.training.plan import Plan


def evaluate_file(
    path: Path,
    *,
    algo: str | None = None,
    env: str | None = None,
    config: str | Path | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    overrides: Sequence[Override] = (),
    trust: bool = False,
    say: Callable[[str], None],
) -> Result:
    """Score an agent that rlrun did not train.

    :param path: an SB3 zip, a folder in the Hub's layout, or a log folder of RL Zoo
    :param algo: where the files do not say it
    :param env: the env's id, where the files do not say it
    :param config: a config that says all of it, and more
    :param trust: run code that the files name
    :param say: told what is run on trust
    :raises UsageError: when something is missing, does not fit, or needs trust
    """
    agent = _load(path, algo, env, config, overrides, trust, say)
    return evaluate_agent(agent, str(path), agent.checkpoint or "", episodes, seed)


def _load(
    path: Path,
    algo: str | None,
    env: str | None,
    config: str | Path | None,
    overrides: Sequence[Override],
    trust: bool,
    say: Callable[[str], None],
) -> Agent:
    from rlrun.runs.archive import read_tensors
    from rlrun.runs.foreign import find_agent
    from rlrun.runs.learner import set_tensors
    from rlrun.runs.load import Agent, build_to_act
    from rlrun.training.plan import make_plan

    found = find_agent(path, algo)
    unread: Sequence[str] = ()
    if config is None:
        unread = found.unread
        plan = plan_of(found, str(path), algo, env, overrides, trust, say)
    elif algo or env:
        raise UsageError("--config says which algorithm and env, and one of them is given besides.", "Leave it out.")
    else:
        plan = make_plan(read_source(find_config(config), overrides))
    statistics = found.statistics()
    if (statistics is None) != (plan.config.normalize is None):
        side = "there are no statistics beside the model" if statistics is None else "the config does not normalize"
        hint = "Put vec_normalize.pkl beside the zip." if statistics is None else "Give the config its `normalize`."
        raise UsageError(f"{found.model_path} does not fit: {side}.", hint)
    if unread:
        model = _load_in_sb3(found, plan.config.algo)
    else:
        model = build_to_act(plan.config, plan.recipe, statistics)
        set_tensors(model, read_tensors(found.model_path, model.device), only_policy=True)
    return Agent(plan.config, model, plan.recipe, statistics, found.model_path.name, found.timesteps)


def plan_of(
    found: ForeignAgent,
    where: str,
    algo: str | None,
    env: str | None,
    overrides: Sequence[Override] = (),
    trust: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """The checked config of an agent, from what its files say.

    :param where: how to call them in an error
    :raises UsageError: when something is missing, or only code that they name could make it whole
    """
    from rlrun.training.plan import make_plan

    if found.lacks_statistics:
        message = f"{where} was trained with normalization, and there are no statistics beside it."
        raise UsageError(message, "Put vec_normalize.pkl there; if only rewards were normalized, give --config.")
    if found.may_lack_statistics:
        say(f"warning: {where} does not say whether it was trained with normalization; no statistics are beside it.")
    values = _config_values(where, found, algo, env)
    _require_trust(where, found.unread, values, trust, say)
    # A folder with someone else's files may be the current one: code is looked for there only if the user names it.
    names_code = trust or ":" in str(env or "")
    return make_plan(read_source(values, overrides), import_paths=None if names_code else ())


def _config_values(path: str, found: ForeignAgent, algo: str | None, env: str | None) -> dict[str, Any]:
    missing = [flag for flag, value in (("--algo", algo or found.algo), ("--env", env or found.env)) if not value]
    if missing:
        message = f"Nothing in {path} says what {' and '.join(missing)} should be."
        raise UsageError(message, "Give it, or --config with everything.")
    section = {**found.config.get("env", {}), "id": env or found.env}
    return {**found.config, "algo": algo or found.algo, "env": section, "total_timesteps": max(1, found.timesteps)}


def _require_trust(
    path: str, unread: Sequence[str], values: Mapping[str, Any], trust: bool, say: Callable[[str], None]
) -> None:
    """Refuse what only code that the files name could make whole."""
    wrappers = values.get("env", {}).get("wrappers", ())
    names = [*unread, *(name for wrapper in wrappers for name in _names_of(wrapper) if ":" in name)]
    if not names:
        return
    if not trust:
        message = f"{path} needs code that it names itself: {', '.join(names)}."
        raise UsageError(message, "Give --config with what you know of it, or, if you trust its author, --trust.")
    say(f"Trusted for this once; imported: {', '.join(names)}.")


def _names_of(wrapper: Any) -> list[str]:
    return [str(name) for name in wrapper] if isinstance(wrapper, Mapping) else [str(wrapper)]


def _load_in_sb3(found: ForeignAgent, algo: str) -> BaseAlgorithm:
    """By SB3's own loader, which unpickles: the user trusts the file."""
    from rlrun.algorithms.registry import get_algorithm

    try:
        return get_algorithm(algo).load().load(found.model_path, device="cpu")
    except Exception as error:  # whatever the pickled code raises
        raise UsageError(f"SB3 cannot load {found.model_path}: {type(error).__name__}: {error}.") from error


def inspect(path: Path, run_dir: Path) -> dict[str, Any]:
    """What a model, folder, run or pickle holds, and whether loading it would need trust. Nothing of it is run.

    :raises UsageError: when it is none of these
    """
    if path.suffix == ".pkl" and path.is_file():
        return _inspect_pickle(path)
    if (path.is_dir() and not (path / CONFIG).exists()) or (path.is_file() and path.name != CONFIG):
        return _inspect_model(path)
    return _inspect_run(find_run(str(path), run_dir))


def _inspect_pickle(path: Path) -> dict[str, Any]:
    from rlrun.runs.pickles import is_known, names_in_pickle

    names = names_in_pickle(path.read_bytes())
    unknown = [name for name in names if not is_known(name)]
    return {"path": str(path), "kind": "pickle", "names": names, "needs_trust": unknown}


def _inspect_model(path: Path) -> dict[str, Any]:
    from rlrun.runs.archive import read_data, read_tensors
    from rlrun.runs.foreign import find_agent
    from rlrun.runs.pickles import ForbiddenName, names_in_pickle

    found = find_agent(path)
    tensors, refused = {}, []
    try:
        tensors = read_tensors(found.model_path)
    except ForbiddenName as error:
        refused = [error.name]
    data = read_data(found.model_path)
    wrappers = found.config.get("env", {}).get("wrappers", ())
    with zipfile.ZipFile(found.model_path) as archive:
        members = {member.filename: member.file_size for member in archive.infolist()}
    return {
        "path": str(found.model_path),
        "kind": "SB3 model",
        "algo": found.algo,
        "env": found.env,
        "timesteps": found.timesteps,
        "hyperparameters": found.config.get("hyperparameters"),
        "normalization": "missing" if found.lacks_statistics else str(found.statistics_path or "") or None,
        "parameters": sum(value.numel() for value in tensors["policy"].values()) if tensors else None,
        "members": members,
        "pickles": {name: names_in_pickle(value) for name, value in data.items() if isinstance(value, bytes)},
        "needs_trust": [*refused, *found.unread, *(n for w in wrappers for n in _names_of(w) if ":" in n)],
    }


def _inspect_run(run: RunDirectory) -> dict[str, Any]:
    from rlrun.runs.checkpoint import damage
    from rlrun.runs.trust import is_own, named_code

    config, own = run.config(), is_own(run)
    names = named_code(config)
    checkpoints = {str(steps): damage(run.checkpoint_path(steps)) or "whole" for steps in run.checkpoint_steps()}
    return {
        "path": str(run.path),
        "kind": "run",
        "algo": config.algo,
        "env": config.env.id,
        "checkpoints": checkpoints,
        "own": own,
        "names": names,
        "needs_trust": [] if own else names,
    }
