"""What this machine can do: every part that rlrun may use is looked at, and what is missing comes with what to do."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from packaging.requirements import Requirement

from rlrun.envs.families import family_of
from rlrun.errors import install_hint
from rlrun.machine import usable_cores
from rlrun.probes import HUB
from rlrun.runs.provenance import cpu_model
from rlrun.runs.trust import config_folder
from rlrun.words import size

OK, MISSING, WARNING = "ok", "missing", "warning"
_SECONDS, _AT_ONCE = 12, 4  # of one probe at most; processes at once
_LITTLE_DISK, _LITTLE_MEMORY = 5e9, 2e9
# One env of each family that needs a package, and whether the plain install brings it on every machine.
_ENVS = {
    "CartPole-v1": True,
    "LunarLander-v3": True,
    "ALE/Pong-v5": True,
    "PandaReach-v3": False,
    "HopperBulletEnv-v0": False,
    "InvertedPendulum-v5": False,
    "MiniGrid-Empty-5x5-v0": False,
}
# Packages of rlrun's extras that no env shows.
EXTRAS = {
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "ray": ("ray",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}
_GL = {
    "egl": ("EGL", "On Debian and Ubuntu: apt install libegl1 libgl1-mesa-dri; then MUJOCO_GL=egl."),
    "osmesa": ("OSMesa", "On Debian and Ubuntu: apt install libosmesa6; then MUJOCO_GL=osmesa."),
    "glx": ("GLX", "It needs a display, as windows do."),
}
_BUSY = "The machine may be busy: try again."
_FOR_GL = "MuJoCo draws with one of EGL, OSMesa and GLX; other envs need none."


@dataclass(frozen=True)
class Finding:
    """One line.

    :ivar state: ``ok``, ``missing`` or ``warning``
    :ivar advice: what to do; empty when nothing needs to be done
    :ivar needed: the plain install does not work without it
    """

    name: str
    state: str
    detail: str
    advice: str = ""
    needed: bool = False


@dataclass(frozen=True)
class Report:
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def works(self) -> bool:
        """Whether everything is there that the plain install needs."""
        return all(finding.state == OK for finding in self.findings if finding.needed)

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``rlrun doctor --json``."""
        return {"works": self.works, "findings": [asdict(finding) for finding in self.findings]}


def examine(run_dir: Path = Path("runs")) -> Report:
    """Look at everything; takes seconds, and changes nothing.

    :param run_dir: where runs would be made
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        learning = pool.submit(_probe, "learning")
        envs = {name: pool.submit(_probe, "env", name) for name in _ENVS}
        others = {name: pool.submit(_probe, name) for name in (*_GL, "hub")}
        here = [*_packages(), *_machine(), *_tools(), *_extras(), _token(), *_places(run_dir)]
        found = [_working(learning), _gpu(learning.result())]
        found += [_env(name, future.result()) for name, future in envs.items()]
        found += [_gl(name, others[name].result()) for name in _GL]
        found.append(_endpoint(others["hub"].result()))
    return Report((*here, *found))


def _probe(*arguments: str) -> dict[str, Any]:
    """What a probe prints; what became of it when it did not come so far."""
    command = [sys.executable, "-m", "rlrun.probes", *arguments]
    with tempfile.TemporaryDirectory() as folder:  # a library that leaves a core or a log leaves it there
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, cwd=folder, check=False)
        except subprocess.TimeoutExpired:
            return {"error": f"it takes longer than {_SECONDS} s", "slow": True}
        except OSError as error:
            return {"error": f"no process can be started ({error.strerror})"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": f"its process ended with code {done.returncode}"}


def _packages() -> list[Finding]:
    found = [Finding("python", OK, f"{platform.python_version()} at {sys.executable}", needed=True)]
    found.append(Finding("rlrun", OK, version("rlrun"), needed=True))
    for line in requires("rlrun") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = requirement.name
        try:
            installed = version(name)
        except PackageNotFoundError:
            found.append(Finding(name, MISSING, "not installed.", install_hint(""), needed=True))
            continue
        fits = requirement.specifier.contains(installed, prereleases=True)
        detail = installed if fits else f"{installed}, and rlrun needs {requirement.specifier}."
        found.append(Finding(name, OK if fits else WARNING, detail, "" if fits else install_hint(""), needed=True))
    return found


def _machine() -> list[Finding]:
    memory = psutil.virtual_memory()
    enough = memory.available > _LITTLE_MEMORY
    detail = f"{size(memory.available)} free of {size(memory.total)}"
    usable, total = usable_cores(), os.cpu_count() or 1
    advice = "" if enough else "A replay buffer of images takes more; end what else is running."
    return [
        Finding("cores", OK, f"{usable} usable of {total}: {cpu_model()}"),
        Finding("memory", OK if enough else WARNING, detail, advice),
    ]


def _tools() -> list[Finding]:
    display = next((name for name in ("WAYLAND_DISPLAY", "DISPLAY") if os.environ.get(name)), None)
    has_display = display is not None or sys.platform in ("win32", "darwin")
    return [
        _bundled_ffmpeg(),
        _tool("ffmpeg of the system", "ffmpeg", "-version", "Not needed: rlrun brings its own."),
        _tool("git", "git", "--version", "Without it a run does not note the state of your code."),
        Finding(
            "display",
            OK if has_display else MISSING,
            (f"${display}" if display else "the desktop") if has_display else "none.",
            "" if has_display else "Only windows need one; training, evaluating and videos do not.",
        ),
    ]


def _bundled_ffmpeg() -> Finding:
    name = "ffmpeg of rlrun"
    try:
        import imageio_ffmpeg

        path = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return Finding(name, MISSING, "imageio-ffmpeg brings none.", install_hint(""), needed=True)
    words = _first_line(path, "-version")
    if words:
        return Finding(name, OK, words, needed=True)
    variable = "IMAGEIO_FFMPEG_EXE"
    advice = f"Unset {variable}, or let it name an ffmpeg." if variable in os.environ else install_hint("")
    return Finding(name, MISSING, f"{path} does not run.", advice, needed=True)


def _tool(name: str, command: str, argument: str, advice: str) -> Finding:
    path = shutil.which(command)
    words = _first_line(path, argument) if path else ""
    return Finding(name, OK, words) if words else Finding(name, MISSING, "not found.", advice)


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    line = next(iter(done.stdout.splitlines()), "")
    return re.sub(r" Copyright.*", "", line) if done.returncode == 0 else ""


def _extras() -> list[Finding]:
    found = []
    for extra, packages in EXTRAS.items():
        for package in packages:
            try:
                found.append(Finding(package, OK, version(package)))
            except PackageNotFoundError:
                found.append(Finding(package, MISSING, "not installed.", install_hint(extra)))
    return found


def _token() -> Finding:
    """Whether there is a token for the Hub; never what it is."""
    name, environment = "Hub token", os.environ
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if environment.get(variable, "").strip():
            return Finding(name, OK, f"present in ${variable}")
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    home = Path(environment.get("HF_HOME") or cache).expanduser()
    path = Path(environment.get("HF_TOKEN_PATH") or home / "token").expanduser()
    try:
        present = bool(path.read_text().strip())
    except (OSError, ValueError):
        present = False
    if present:
        return Finding(name, OK, f"present in {path}")
    return Finding(name, MISSING, "absent.", "To push: `hf auth login`, or set HF_TOKEN.")


def _places(run_dir: Path) -> list[Finding]:
    place = _existing(run_dir)
    free = shutil.disk_usage(place).free
    detail = f"{size(free)} free at {run_dir.absolute()}"
    if not os.access(place, os.W_OK):
        disk = Finding("disk", WARNING, f"{place} cannot be written to.", "Choose another folder with --run-dir.")
    elif free < _LITTLE_DISK:
        disk = Finding("disk", WARNING, f"{detail}.", "`rlrun prune` makes room.")
    else:
        disk = Finding("disk", OK, detail)
    settings = config_folder()
    if os.access(_existing(settings), os.W_OK | os.X_OK):
        return [disk, Finding("settings", OK, f"{settings} can be written to")]
    advice = "Runs are signed with a key in it: set XDG_CONFIG_HOME to a folder that you may write to."
    return [disk, Finding("settings", WARNING, f"{settings} cannot be written to.", advice)]


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next((place for place in (path, *path.parents) if place.exists()), path)


def _working(future: Future[dict[str, Any]]) -> Finding:
    found = future.result()
    broken = found.get("broken", {"the modules": found.get("error")})
    if not broken:
        return Finding("imports", OK, "the plain install's modules can be imported", needed=True)
    detail = "; ".join(f"{name}: {why}" for name, why in broken.items())
    if found.get("slow"):
        return Finding("imports", WARNING, f"{detail}.", _BUSY)
    return Finding("imports", MISSING, f"{detail}.", install_hint(""), needed=True)


def _gpu(found: dict[str, Any]) -> Finding:
    gpus, cuda = found.get("gpus") or [], found.get("cuda")
    if gpus:
        names = ", ".join(f"{gpu['name']} ({size(gpu['memory'])})" for gpu in gpus)
        return Finding("GPU", OK, f"{names}, CUDA {cuda}")
    if found.get("torch") is None:
        return Finding("GPU", MISSING, "torch cannot be asked.", install_hint(""))
    if cuda is None:
        detail = f"torch {found['torch']} is a build without CUDA."
        return Finding("GPU", MISSING, detail, "With an NVIDIA GPU: install the CUDA build from pytorch.org.")
    return Finding("GPU", MISSING, f"torch is built for CUDA {cuda}, and finds no GPU.", "`nvidia-smi` says more.")


def _env(name: str, found: dict[str, Any]) -> Finding:
    family, needed = family_of(name), _ENVS[name]
    if "error" not in found:
        return Finding(f"{family.name} envs", OK, found["detail"], needed=needed)
    detail = f"{found['error'].rstrip('.')}."
    if found.get("slow"):
        return Finding(f"{family.name} envs", WARNING, detail, _BUSY)
    return Finding(f"{family.name} envs", MISSING, detail, install_hint(family.extra), needed=needed)


def _gl(name: str, found: dict[str, Any]) -> Finding:
    label, advice = _GL[name]
    if "error" not in found:
        return Finding(label, OK, found["detail"])
    return Finding(label, MISSING, f"{found['error']}.", f"{_FOR_GL} {advice}")


def _endpoint(found: dict[str, Any]) -> Finding:
    given = urlsplit(os.environ.get("HF_ENDPOINT") or HUB)
    if not given.hostname:
        return Finding("Hub", WARNING, "HF_ENDPOINT is no http address.", "Unset it, or set it to one.")
    port = f":{given.netloc.rpartition(':')[2]}" if re.search(r":\d+$", given.netloc) else ""
    address = f"{given.scheme}://{given.hostname}{port}"  # without what may stand before an @
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Finding("Hub", WARNING, f"{address}: HF_HUB_OFFLINE is set.", "To push and pull, unset it.")
    if "error" not in found:
        return Finding("Hub", OK, f"{address}: {found['detail']}")
    advice = "Training needs no network; to push and pull, see to the network, a proxy, or HF_ENDPOINT."
    return Finding("Hub", WARNING, f"{address} cannot be reached ({found['error']}).", advice)
