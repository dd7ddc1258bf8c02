"""What a result depends on besides its config: versions, hardware, the command, the user's git state."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from rlrun.machine import usable_cores

_PACKAGES = (
    *("rlrun", "torch", "stable-baselines3", "sb3-contrib", "gymnasium", "numpy", "panda-gym", "pybullet", "ale-py"),
    *("Box2D", "pybullet_envs_gymnasium", "mujoco", "minigrid", "opencv-python-headless"),
)


def versions() -> dict[str, str]:
    """Versions of Python, rlrun and the packages that results depend on; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """The machine: system, CPU, usable cores, memory in bytes, GPU."""
    import torch

    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def cpu_model() -> str:
    """The CPU's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and dirtiness of the git checkout around a folder; None outside one, or without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def command_line() -> list[str]:
    """The command as it was given; ``python -m rlrun`` is ``rlrun`` too, and a process of a group is its group's."""
    name = Path(sys.argv[0]).name
    if name == "seeds.py" and len(sys.argv) > 1:  # python -m rlrun.seeds GROUP SEED
        return ["rlrun", "resume", Path(sys.argv[1]).name]
    return ["rlrun" if name == "__main__.py" else name, *sys.argv[1:]]
