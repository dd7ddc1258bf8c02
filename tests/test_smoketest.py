from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

import rlrun
from rlrun import cli
from rlrun.errors import UsageError

GOOD = "algo: {algo}\nenv: {{id: CartPole-v1, n_envs: 2}}\ntotal_timesteps: 1_000_000\n"
SLEEPING_ENV = """
import time
import gymnasium as gym

class Sleeper(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        time.sleep(60)
"""
RANDOM_ENV = """
import os
import numpy as np
import gymnasium as gym

class Moody(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (1,))
    action_space = gym.spaces.Discrete(2)

    def observe(self):
        return np.array([os.urandom(1)[0]], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action):
        return self.observe(), 1.0, bool(os.urandom(1)[0] < 30), False, {}
"""


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)


def write(path: str, text: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_configs_of_the_current_folder_are_tried_when_none_is_named_and_nothing_is_left_behind(capsys):
    write("configs/CartPole-v1/ppo.yaml", GOOD.format(algo="ppo"))
    write("configs/CartPole-v1/dqn.yaml", GOOD.format(algo="dqn"))
    assert cli.run(["smoke", "--json", "--jobs", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(case["config"], case["result"], case["detail"]) for case in report["cases"]] == [
        ("CartPole-v1/dqn", "passed", ""),
        ("CartPole-v1/ppo", "passed", ""),
    ]
    assert sorted(path.name for path in Path().iterdir()) == ["configs", "temporary"]
    assert not list(Path("temporary").iterdir())


def test_a_wrong_config_fails_with_its_error_and_exit_code_1(capsys):
    write("wrong.yaml", GOOD.format(algo="sac"))
    assert cli.run(["smoke", "wrong.yaml"]) == 1
    out = capsys.readouterr().out
    assert "0 passed, 1 failed, 0 skipped" in out
    assert "continuous" in out or "Discrete" in out


def test_a_missing_optional_package_is_a_skip_and_with_strict_a_failure():
    text = GOOD.format(algo="ppo") + "trackers: [mlflow]\n"
    write("tracked.yaml", text)
    if importlib.util.find_spec("mlflow") is not None:
        pytest.skip("mlflow is installed here")
    report = rlrun.smoke(["tracked.yaml"])
    assert report.passed
    assert report.verdict() == "0 passed, 0 failed, 1 skipped"
    assert "rlrun[mlflow]" in report.cases[0].detail
    strict = rlrun.smoke(["tracked.yaml"], strict=True)
    assert not strict.passed
    assert strict.verdict() == "0 passed, 1 failed, 0 skipped"


def test_an_env_that_hangs_is_ended_after_the_timeout():
    write("sleeping.py", SLEEPING_ENV)
    write("sleeping.yaml", "algo: ppo\nenv: {id: 'sleeping:Sleeper'}\ntotal_timesteps: 1000\n")
    report = rlrun.smoke(["sleeping.yaml"], timeout=8)
    assert report.cases[0].result == "failed"
    assert "not done after 8 s" in report.cases[0].detail
    assert report.cases[0].seconds < 20


def test_an_env_that_does_not_repeat_passes_and_is_told_so():
    write("moody.py", RANDOM_ENV)
    write("moody.yaml", "algo: ppo\nenv: {id: 'moody:Moody'}\ntotal_timesteps: 1000\n")
    case = rlrun.smoke(["moody.yaml"]).cases[0]
    assert case.result == "passed"
    assert "resume is not exact" in case.detail


def test_a_junit_report_counts_what_the_table_counts(tmp_path: Path):
    write("good.yaml", GOOD.format(algo="a2c"))
    write("wrong.yaml", "algo: a2c\n")
    rlrun.smoke(["good.yaml", "wrong.yaml"], junit=tmp_path / "report.xml")
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    failure = suite.find("testcase[@name='wrong.yaml']/failure")
    assert failure is not None
    assert '"env" is missing' in failure.get("message", "")


def test_a_name_that_is_no_config_is_an_error_at_once():
    with pytest.raises(UsageError, match="no config file"):
        rlrun.smoke(["CartPole-v1/pp0"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_shipped_config_passes():
    report = rlrun.smoke()
    assert report.passed, report.rows()
    assert all(case.detail == "" for case in report.cases if case.result == "passed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_child_and_no_folder(number: int, code: int, folder: Path):
    (folder / "sleeping_env.py").write_text("import time\ntime.sleep(300)\n")
    (folder / "sleeping.yaml").write_text("algo: ppo\nenv: {id: 'sleeping_env:Env'}\ntotal_timesteps: 100\n")
    (folder / "tmp").mkdir()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are deaf to it
    command = [sys.executable, "-m", "rlrun", "smoke", "sleeping.yaml"]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(folder / "tmp")}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (children := psutil.Process(process.pid).children()) or not list((folder / "tmp").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) == code
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert list((folder / "tmp").iterdir()) == []
