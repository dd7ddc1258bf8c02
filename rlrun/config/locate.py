"""Where configs are: a path, or the name of one that ships with rlrun."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rlrun.errors import UsageError, did_you_mean

ZOO = "zoo/"  # what the names of RL Zoo's configs begin with
MATRICES = "matrices"  # a folder beside the configs, of files for `rlrun matrix`

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_folder() -> Path:
    """The folder of shipped configs: inside the wheel, or beside the package in a checkout."""
    inside = _PACKAGE / "_configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def folder_name(text: str) -> str:
    """A name that is safe as a folder everywhere: whatever is not ``[A-Za-z0-9._-]`` becomes ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)


def shipped_configs() -> dict[str, Path]:
    """``{"CartPole-v1/ppo": path}`` of every shipped config of rlrun's own, in order."""
    return {name: path for name, path in configs_in(shipped_folder()).items() if not name.startswith(ZOO)}


def zoo_configs() -> dict[str, Path]:
    """``{"zoo/CartPole-v1/ppo": path}`` of the shipped configs with RL Baselines3 Zoo's settings, in order."""
    return {ZOO + name: path for name, path in configs_in(shipped_folder() / ZOO).items()}


def configs_in(folder: Path) -> dict[str, Path]:
    """The configs below a folder by their paths in it, such as ``<env id>/<algo>``; matrices are none."""
    files = _yaml_files(folder)
    return {name: path for name, path in files.items() if not name.startswith(f"{MATRICES}/")}


def shipped_matrices() -> dict[str, Path]:
    """``{"tuning-matters": path}`` of every shipped matrix, in order."""
    return _yaml_files(shipped_folder() / MATRICES)


def find_matrix(name: str | Path) -> Path:
    """The file that ``rlrun matrix NAME`` means: a path first, else a shipped matrix.

    :raises UsageError: when there is neither
    """
    path = Path(name)
    if os.path.isfile(path) or path.suffix in (".yaml", ".yml"):
        return path
    shipped = shipped_matrices()
    if str(name) in shipped:
        return shipped[str(name)]
    hint = did_you_mean(str(name), shipped) or f"Shipped are: {', '.join(shipped)}."
    raise UsageError(f'There is no file and no shipped matrix "{name}".', hint)


def _yaml_files(folder: Path) -> dict[str, Path]:
    files = sorted(path for ending in ("yaml", "yml") for path in folder.rglob(f"*.{ending}"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def all_configs(zoo: bool = False) -> dict[str, Path]:
    """The user's own configs, in ``./configs``; the shipped ones where there is no such folder.

    :param zoo: those in the folder ``zoo`` too
    :raises UsageError: when the folder is there and holds none
    """
    own = Path("configs")
    if not own.is_dir():
        return {**shipped_configs(), **(zoo_configs() if zoo else {})}
    found = {name: path for name, path in configs_in(own).items() if zoo or not name.startswith(ZOO)}
    if not found:
        raise UsageError("There is no config (*.yaml) in ./configs.", "`rlrun init` writes one.")
    return found


def find_config(name: str | Path) -> Path:
    """The file that ``--config NAME`` means: a path first, else a shipped config.

    :raises UsageError: when there is neither
    """
    path = Path(name)
    if os.path.isfile(path / "config.yaml"):  # a run directory
        return path / "config.yaml"
    if os.path.exists(path) or path.suffix in (".yaml", ".yml"):
        return path
    text = str(name)
    shipped = shipped_configs()
    zoo = zoo_configs()
    # "ALE/Pong-v5/ppo" lies in the folder "ALE-Pong-v5".
    start = ZOO if text.startswith(ZOO) else ""
    env_id, _, algo = text.removeprefix(ZOO).rpartition("/")
    key = f"{start}{folder_name(env_id)}/{algo}"
    found = shipped.get(key) or zoo.get(key)
    if found is not None:
        return found
    hint = _in_zoo(key, zoo) or did_you_mean(text, zoo if start else shipped)
    hint = hint or "`rlrun configs` lists the shipped ones."
    raise UsageError(f'There is no config file and no shipped config "{text}".', hint)


def find_by_env(env_id: str, algo: str) -> Path:
    """The shipped config for an env id and an algorithm (``--env CartPole-v1 --algo ppo``)."""
    key = f"{folder_name(env_id)}/{algo}"
    shipped = shipped_configs()
    if key in shipped:
        return shipped[key]
    hint = _in_zoo(key, zoo_configs()) or did_you_mean(key, shipped)
    init = f"Or write your own: `rlrun init --env {env_id} --algo {algo}`."
    raise UsageError(f"There is no shipped config for {algo} on {env_id}.", f"{hint} {init}".strip())


def _in_zoo(key: str, zoo: dict[str, Path]) -> str:
    """Where RL Zoo's settings for what was asked for are; empty when there are none."""
    return f"RL Zoo's settings, not run by us, are {ZOO}{key}." if ZOO + key in zoo else ""


def headline(path: Path) -> str:
    """The first comment of a config that is not for the editor."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.lstrip("# ").strip()
        if line.startswith("#") and text and not text.startswith("yaml-language-server"):
            return text
    return ""
