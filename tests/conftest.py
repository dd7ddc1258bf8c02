"""What several test modules share: an empty current folder, and the command line inside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, serving

from rlrun.cli import run


@dataclass(frozen=True)
class Outcome:
    """What one command line left on the terminal."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True, scope="session")
def own_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's key and settings lie in a folder of the tests; so do the folders that plain SB3 makes for its logs."""
    settings = tmp_path_factory.getbasetemp() / "settings"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(settings))
        patch.setenv("SB3_LOGDIR", str(tmp_path_factory.getbasetemp() / "sb3"))
        yield settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; what is made importable meanwhile is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For networks so small that several threads mostly wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rlrun_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs ``rlrun ARGUMENTS`` in this process, in the empty folder."""

    def command(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run(arguments)
        written = capsys.readouterr()
        return Outcome(code, written.out, written.err)

    return command


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A small Hub on this machine, to which the real client speaks."""
    import huggingface_hub.constants  # here: it logs to what stderr is when it is imported

    with serving() as running:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for module in ("constants", "hf_api", "file_download", "_commit_api", "lfs"):
            target = f"huggingface_hub.{module}.ENDPOINT"
            monkeypatch.setattr(target, running.url, raising=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            running.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "cache"))
        yield running
