"""Every command and every piece of code in the documents works as it stands there; only budgets are cut."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from stable_baselines3 import PPO

from rlrun import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNNING = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
# Not run here: they install. `make install` does the same, and everything else runs in what it made.
INSTALLING = ("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt .",)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    lines = "\n".join(blocks(text, "bash")).splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.strip()]


def run(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    words = shlex.split(command.removeprefix(".venv/bin/"))
    assert words[0] == "rlrun"
    words = words[1:]
    if words[0] == "train" and "--timesteps" in words:
        position = words.index("--timesteps")
        del words[position : position + 2]
    if any(word.startswith("total_episodes=") for word in words):
        words = [word.partition("=")[0] + "=20" if word.startswith("total_episodes=") else word for word in words]
    elif words[0] == "train":
        words += ["--timesteps", "2048", "--set", "evaluation.every=1024", "--set", "checkpoint.every=1024"]
    if words[0] == "tune":
        words[words.index("--trials") + 1] = "2"
        words += ["--timesteps", "256", "--retest", "1", "--retest-seeds", "2"]
    if words[0] == "resume" and "--timesteps" in words:
        words[words.index("--timesteps") + 1] = "4096"
    code = cli.run(words)
    shown = capsys.readouterr()
    assert code == 0, f"{command}\n{shown.err}"
    assert "error" not in shown.err
    return shown.out


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds what the README lets its reader write."""
    code = [block for block in blocks(README, "python") if "class Walk" in block]
    (tmp_path / "my_env.py").write_text(code[0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_shows_both_make_commands_first_and_make_knows_them():
    first_screen = "\n".join(README.splitlines()[:12])
    for target in ("train", "test"):
        assert f"make {target} " in first_screen
        shown = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert shown.stdout


def test_every_command_of_the_readme_runs(workplace: Path, capsys: pytest.CaptureFixture[str]):
    ran = []
    for command in commands(README):
        if command.startswith("make ") or command in INSTALLING:
            continue
        out = run(command, capsys)
        assert out.strip(), f"{command} printed nothing"
        ran.append(command)
    assert len(ran) >= 12
    assert (workplace / "walk.yaml").exists()
    assert list(workplace.glob("runs/CartPole-v1/ppo/*-s1/best"))


def test_the_config_in_the_readme_trains(workplace: Path, capsys: pytest.CaptureFixture[str]):
    (workplace / "walk.yaml").write_text(blocks(README, "yaml")[0])
    run("rlrun train walk.yaml", capsys)
    assert list(workplace.glob("runs/my_env-Walk/ppo/*/final"))


def test_the_python_of_the_readme_runs(workplace: Path, capsys: pytest.CaptureFixture[str]):
    code = next(block for block in blocks(README, "python") if "rlrun.train(" in block)
    names: dict[str, object] = {}
    exec(code.replace("seed=1", "seed=1, timesteps=512, progress=False").replace("episodes=100", "episodes=2"), names)
    assert float(capsys.readouterr().out) > 0
    assert names["model"].num_timesteps == 0  # type: ignore[attr-defined]


def test_the_commands_of_the_running_guide_run(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (workplace / "my.yaml").write_text("algo: ppo\nenv: {id: CartPole-v1}\ntotal_timesteps: 2048\n")
    log = workplace / "logs" / "ppo" / "CartPole-v1_1"
    (log / "CartPole-v1").mkdir(parents=True)
    ordered = "!!python/object/apply:collections.OrderedDict\n- "
    (log / "CartPole-v1" / "args.yml").write_text(f"{ordered}- - algo\n    - ppo\n  - - env\n    - CartPole-v1\n")
    PPO("MlpPolicy", "CartPole-v1").save(workplace / "model.zip")
    shutil.copy(workplace / "model.zip", log / "CartPole-v1.zip")
    for command in commands(RUNNING):
        text = command.replace("$SLURM_ARRAY_TASK_ID", "3").replace(" RUN", " job-3")
        text = text.replace("gravity=-5", "sutton_barto_reward=true").replace("--fail-under 475", "--fail-under 0")
        run(text.replace("sutton_barto_reward=true", "sutton_barto_reward=false"), capsys)
