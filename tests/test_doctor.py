"""``rlrun doctor`` says what a machine can do, what to do about the rest, and nothing that is secret."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from rlrun import doctor, probes
from rlrun.envs.families import family_of

SECRET = "hf_doNotShowThisToAnyone"
ROOT = Path(__file__).parents[1]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Answers of the probes, instead of processes: by the probe's name and argument."""
    answers: dict[str, dict[str, Any]] = {"learning": {"broken": {}, "gpus": [], "cuda": None, "torch": "2.0+cpu"}}
    monkeypatch.setattr(doctor, "_probe", lambda *words: answers.get(" ".join(words), {"detail": "fine"}))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return answers


def finding(name: str) -> doctor.Finding:
    return next(f for f in doctor.examine().findings if f.name == name)


def test_the_real_thing_shows_no_token(rlrun_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HF_ENDPOINT", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setattr(doctor, "_SECONDS", 60)  # it takes 5 s in all, but not while other tests run
    outcome = rlrun_command("doctor", "--json")
    report = json.loads(outcome.out)
    assert outcome.code == 0, outcome.out
    assert SECRET not in outcome.out + outcome.err
    found = {f["name"]: f for f in report["findings"]}
    assert found["Hub token"]["detail"] == "present in $HF_TOKEN"
    assert found["Hub"]["detail"] == "http://127.0.0.1:9 cannot be reached (the connection is refused)."
    assert found["classic control envs"]["state"] == found["Atari envs"]["state"] == "ok"
    assert {"EGL", "OSMesa", "GLX", "GPU", "git", "disk", "settings", "display", "cores", "memory"} <= set(found)
    for one in report["findings"]:
        assert one["state"] in ("ok", "missing", "warning")
        assert bool(one["advice"]) == (one["state"] != "ok"), one


def test_the_table_for_people_shows_no_token_either(
    rlrun_command: Callable[..., Any], quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, folder: Path
):
    (folder / "token").write_text(SECRET)
    monkeypatch.setenv("HF_HOME", str(folder))
    outcome = rlrun_command("doctor")
    assert outcome.code == 0
    assert SECRET not in outcome.out + outcome.err
    assert f"present in {folder / 'token'}" in outcome.out.replace("\n", "")


def test_no_token_is_absent_with_what_to_do(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, folder: Path):
    monkeypatch.setenv("HF_HOME", str(folder))
    assert finding("Hub token").state == "missing"
    assert "hf auth login" in finding("Hub token").advice
    monkeypatch.setenv("HF_TOKEN", " ")
    assert finding("Hub token").state == "missing", "a blank one is none"


def test_the_exit_code_is_1_only_when_the_plain_install_is_broken(
    rlrun_command: Callable[..., Any], quick: dict[str, Any]
):
    quick["env HopperBulletEnv-v0"] = quick["env InvertedPendulum-v5"] = {"error": "no such module"}
    quick["egl"] = quick["hub"] = {"error": "nothing there"}
    outcome = rlrun_command("doctor", "--json")
    assert outcome.code == 0
    found = {f["name"]: f for f in json.loads(outcome.out)["findings"]}
    assert "rlrun[bullet]" in found["PyBullet envs"]["advice"]
    assert "rlrun[mujoco]" in found["MuJoCo envs"]["advice"]

    quick["learning"] = {**quick["learning"], "broken": {"cv2": "ImportError: libGL.so.1"}}
    outcome = rlrun_command("doctor", "--json")
    assert outcome.code == 1
    assert not json.loads(outcome.out)["works"]
    assert "cv2: ImportError: libGL.so.1" in outcome.out


def test_a_package_that_is_too_old_or_missing_is_named(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "1.0.0" if name == "gymnasium" else real(name))
    assert not doctor.examine().works
    assert finding("gymnasium").detail.startswith("1.0.0, and rlrun needs ")

    def without_scipy(name: str) -> str:
        if name == "scipy":
            raise doctor.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", without_scipy)
    assert (finding("scipy").state, doctor.examine().works) == ("missing", False)


def test_why_there_is_no_gpu_is_said(quick: dict[str, Any]):
    assert "build without CUDA" in finding("GPU").detail
    quick["learning"]["cuda"] = "13.0"
    assert "finds no GPU" in finding("GPU").detail
    quick["learning"]["gpus"] = [{"name": "H200", "memory": 140e9}]
    assert finding("GPU") == doctor.Finding("GPU", "ok", "H200 (140.0 GB), CUDA 13.0")


def test_little_disk_is_a_warning(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 10**9))
    assert finding("disk").state == "warning"
    assert "1.0 GB free" in finding("disk").detail


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_settings_that_cannot_be_written_are_a_warning(
    quick: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    folder.chmod(0o500)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    assert finding("settings").state == "warning"


def test_a_probe_that_crashes_or_hangs_takes_nothing_down(monkeypatch: pytest.MonkeyPatch):
    assert doctor._probe("no-such-probe")["error"]
    monkeypatch.setattr(doctor.sys, "executable", "/nowhere/python")
    assert "no process can be started" in doctor._probe("egl")["error"]
    monkeypatch.setattr(doctor.sys, "executable", shutil.which("false"))
    assert doctor._probe("egl")["error"] == "its process ended with code 1"
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "_SECONDS", 0.01)
    assert "takes longer" in doctor._probe("learning")["error"]


def test_a_machine_that_is_too_busy_is_not_called_broken(quick: dict[str, Any]):
    slow = {"error": "it takes longer than 12 s", "slow": True}
    quick["learning"] = quick["env CartPole-v1"] = slow
    assert doctor.examine().works
    assert (finding("imports").state, finding("classic control envs").state) == ("warning", "warning")


def test_any_answer_of_the_hub_will_do(monkeypatch: pytest.MonkeyPatch):
    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    assert probes.hub() == {"detail": "it answers"}
    server.shutdown()
    server.server_close()
    assert probes.hub() == {"error": "the connection is refused"}
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc/passwd")
    assert "no http address" in probes.hub()["error"]


def test_a_hub_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert probes.hub() == {"error": "no answer in 3 s"}
        assert time.monotonic() - began < 5


@pytest.mark.skipif(sys.platform != "linux", reason="the names of libraries are Linux's")
def test_a_missing_graphics_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(probes.ctypes.util, "find_library", lambda _: "libNoSuchThing.so")
    probes.main("egl")
    assert json.loads(capsys.readouterr().out) == {"error": "libEGL is not installed"}


def test_every_extra_is_looked_at():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    shown_by_envs = {family_of(name).extra for name in doctor._ENVS} - {""}
    assert set(project["optional-dependencies"]) - {"dev"} == shown_by_envs | set(doctor.EXTRAS)
