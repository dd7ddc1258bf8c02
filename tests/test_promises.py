"""The promises of docs/architecture.md, each on real envs.

The same seed gives the same weights, an interrupted run equals an uninterrupted one, a checkpoint is one thing that
plain SB3 can load, and every role's env comes from one recipe.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from comparing import assert_same, final_state, killed_and_resumed, needs_panda
from stable_baselines3.common.base_class import BaseAlgorithm

import rlrun
from rlrun.config.classes import load_class
from rlrun.errors import RlrunError, UsageError
from rlrun.run import Run
from rlrun.runs.checkpoint import read_checkpoint, remove_leftovers

slow = pytest.mark.slow

WARM_UP = {"learning_starts": 200, "batch_size": 64}
NOISY = {**WARM_UP, "action_noise": {"ornstein_uhlenbeck": {"sigma": 0.1}}}


def own(algo: str, env: str, budget: int, hyper: dict[str, Any], n_envs: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "algo": algo,
        "env": {"id": env, "n_envs": n_envs},
        "total_timesteps": budget,
        "hyperparameters": hyper,
        **more,
    }


def shipped(name: str, budget: int, **hyper: Any) -> tuple[str, dict[str, Any]]:
    return name, {"total_timesteps": budget, **{f"hyperparameters.{key}": value for key, value in hyper.items()}}


ALL_OPTIONS = {"double_q": True, "dueling": True, "prioritized_replay": True, "n_steps": 3}
ROLLOUT = {"n_steps": 100, "batch_size": 100, "n_epochs": 2}
CASES: dict[str, Any] = {
    "a2c CartPole": shipped("CartPole-v1/a2c", 4000),
    "ppo CartPole": shipped("CartPole-v1/ppo", 6000),
    "dqn CartPole": shipped("CartPole-v1/dqn", 2000, learning_starts=200),
    "recurrent_ppo": (own("recurrent_ppo", "Pendulum-v1", 1000, ROLLOUT, 2, normalize=True), {}),
    "q_learning": (own("q_learning", "FrozenLake-v1", 2000, {}), {}),
    "reinforce": (own("reinforce", "Pendulum-v1", 4000, {"standardize": False}, normalize=True), {}),
    "dqn with all options": (own("dqn", "CartPole-v1", 1500, {**ALL_OPTIONS, "learning_starts": 200}, 2), {}),
    "ars": (own("ars", "CartPole-v1", 2000, {"n_delta": 4}, normalize=True), {}),
    "td3 noise": (own("td3", "Pendulum-v1", 800, NOISY, 2), {}),
    "a2c PandaReachDense": shipped("PandaReachDense-v3/a2c", 1200),
    "tqc her PandaReach": shipped("PandaReach-v3/tqc", 500, **WARM_UP),
}
SLOW_CASES: dict[str, Any] = {
    "ppo LunarLander": shipped("LunarLander-v3/ppo", 20000, n_steps=128),
    "dqn LunarLander": shipped("LunarLander-v3/dqn", 3000, learning_starts=200),
    "dqn n-step": shipped("CartPole-v1/dqn", 3000, learning_starts=200, n_steps=3),
    "sac gSDE": shipped("MountainCarContinuous-v0/sac", 1200, learning_starts=200),
    "ppo gSDE": shipped("Pendulum-v1/ppo", 16000),
    "trpo": (own("trpo", "Pendulum-v1", 1200, {"n_steps": 100, "batch_size": 100}, 2, normalize=True), {}),
    "qrdqn": (own("qrdqn", "CartPole-v1", 1500, {"learning_starts": 200}, 4), {}),
    "ddpg": (own("ddpg", "Pendulum-v1", 700, WARM_UP), {}),
    "crossq": (own("crossq", "Pendulum-v1", 500, WARM_UP), {}),
    "tqc PandaReachDense": shipped("PandaReachDense-v3/tqc", 600, **WARM_UP),
    "dqn SpaceInvaders": shipped("SpaceInvadersNoFrameskip-v4/dqn", 1500, learning_starts=200, buffer_size=1000),
}


def params() -> Iterator[Any]:
    for table, marks in ((CASES, []), (SLOW_CASES, [slow])):
        for name, case in table.items():
            yield pytest.param(*case, id=name, marks=[*marks, *([needs_panda] if "Panda" in name else [])])


def settings(config: Any, overrides: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    budget = overrides.get("total_timesteps") or config["total_timesteps"]
    spacing = {"checkpoint.every": budget // 4, "evaluation.every": budget // 2, "evaluation.episodes": 2}
    return budget, {**overrides, **spacing, "trackers": [], "threads": 1}


def train(config: Any, overrides: dict[str, Any], folder: Path) -> Run:
    return rlrun.train(config, overrides=settings(config, overrides)[1], run_dir=folder, name="run", progress=False)


@pytest.mark.parametrize(("config", "overrides"), list(params()))
def test_the_same_seed_and_a_killed_and_resumed_run_give_the_same_bytes(
    config: Any, overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    undisturbed = train(config, overrides, tmp_path / "undisturbed")
    budget = settings(config, overrides)[0]
    resumed = killed_and_resumed(
        lambda folder: train(config, overrides, folder), tmp_path / "killed", int(budget * 0.7), monkeypatch
    )
    assert resumed.status == "finished"
    assert_same(undisturbed, resumed)
    again = train(config, overrides, tmp_path / "again")
    assert_same(undisturbed, again)


def test_another_seed_gives_other_weights(tmp_path: Path):
    one = train("CartPole-v1/a2c", {"total_timesteps": 400}, tmp_path / "0")
    other = train("CartPole-v1/a2c", {"total_timesteps": 400, "seed": 1}, tmp_path / "1")
    first, second = final_state(one), final_state(other)
    assert not np.array_equal(first["model.policy.action_net.weight"], second["model.policy.action_net.weight"])


# -- real processes


def start_process(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rlrun", "train", "CartPole-v1/ppo", "--run-dir", str(folder), "--name", "run"]
    return subprocess.Popen(
        [*command, "--set", "checkpoint.every=5000", "--set", "trackers=[]", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], object], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_a_run_killed_with_signal_9_and_resumed_equals_the_undisturbed_one(tmp_path: Path):
    overrides = {"checkpoint.every": 5000, "trackers": [], "total_timesteps": 20000}
    undisturbed = rlrun.train(
        "CartPole-v1/ppo", overrides=overrides, run_dir=tmp_path / "a", name="run", progress=False
    )
    process = start_process(tmp_path / "b", "--timesteps", "20000")
    path = tmp_path / "b" / "CartPole-v1" / "ppo" / "run"
    wait_for(lambda: (path / "latest").exists())
    process.kill()
    process.communicate()
    resumed = rlrun.open_run(path)
    assert resumed.status == "killed"
    assert_same(undisturbed, resumed.resume(progress=False))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_save_a_checkpoint_and_the_run_goes_on_from_it(number: int, code: int, tmp_path: Path):
    process = start_process(tmp_path, "--timesteps", "30000")
    path = tmp_path / "CartPole-v1" / "ppo" / "run"
    wait_for(lambda: (path / "latest").exists())
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the state is saved" in stderr
    assert "Traceback" not in stderr
    run = rlrun.open_run(path)
    assert run.status == "interrupted"
    newest = run.directory.checkpoint_steps()[-1]
    assert read_checkpoint(run.directory, newest).timesteps == run.manifest["timesteps"]
    assert run.resume(progress=False).manifest["timesteps"] >= 30_000


def test_two_runs_started_in_the_same_second_get_two_directories(tmp_path: Path):
    command = [sys.executable, "-m", "rlrun", "train", "CartPole-v1/a2c", "--timesteps", "100"]
    command += ["--run-dir", str(tmp_path), "--set", "evaluation.episodes=0"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("CartPole-v1/a2c/*/final"))) == 2


# -- one bundle


@pytest.fixture(scope="module")
def normalized_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = own("ppo", "Pendulum-v1", 2000, {"n_steps": 250, "batch_size": 250, "learning_rate": "lin_1e-3"}, 2)
    overrides = {"normalize": True, "checkpoint.every": 500, "evaluation.every": 500, "evaluation.episodes": 2}
    return rlrun.train(config, overrides=overrides, run_dir=tmp_path_factory.mktemp("runs"), progress=False)


def whole_and(normalized_run: Run, folder: Path) -> Run:
    """A copy that may be damaged, and is still this user's own."""
    path = folder / "copy"
    shutil.copytree(normalized_run.path, path)
    return rlrun.open_run(path)


@pytest.mark.parametrize("how", ["gone", "cut", "without statistics"])
def test_a_damaged_best_is_passed_over_with_a_warning(
    how: str, normalized_run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
):
    run = whole_and(normalized_run, folder)
    (run.path / "best").write_text("checkpoints/500\n")
    best = run.directory.checkpoint_path(500)
    if how == "gone":
        shutil.rmtree(best, ignore_errors=True)
    else:
        (best / ("model.zip" if how == "cut" else "vec_normalize.npz")).unlink(missing_ok=True)
    result = run.evaluate(1)
    assert result.checkpoint == "final"
    assert "warning: the checkpoint at 500 timesteps is damaged" in capsys.readouterr().err
    with pytest.raises(UsageError):
        run.evaluate(1, checkpoint="500")


def test_when_no_checkpoint_is_whole_all_that_was_found_is_listed(normalized_run: Run, folder: Path):
    run = whole_and(normalized_run, folder)
    for steps in run.directory.checkpoint_steps():
        (run.directory.checkpoint_path(steps) / "model.zip").write_bytes(b"")
    with pytest.raises(UsageError, match=r"has no whole checkpoint: at .*model.zip does not have its hash; at "):
        run.evaluate(1)
    with pytest.raises(UsageError, match="The run has no whole checkpoint"):
        run.evaluate(1, checkpoint="final")


def test_a_normalized_agents_zip_is_not_evaluated_without_its_statistics(
    normalized_run: Run, rlrun_command: Callable[..., Any]
):
    model = normalized_run.directory.checkpoint_path(2000) / "model.zip"
    shutil.copyfile(model, "agent.zip")
    outcome = rlrun_command("eval", "agent.zip", "--env", "Pendulum-v1")
    assert (outcome.code, "was trained with normalization" in outcome.err) == (2, True)
    assert "missing" in rlrun_command("inspect", "agent.zip").out
    shutil.copyfile(model.with_name("vec_normalize.pkl"), "vec_normalize.pkl")
    arguments = ("--env", "Pendulum-v1", "--episodes", "2", "--seed", "3", "--json")
    beside = json.loads(rlrun_command("eval", "agent.zip", *arguments).out)
    assert beside["returns"] == normalized_run.evaluate(2, checkpoint=2000, seed=3).as_dict()["returns"]


LEARNT = {"learning_starts": 20, "buffer_size": 100, "batch_size": 8}
ZIPS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dqn": ("stable_baselines3:DQN", "CartPole-v1", LEARNT),
    "sac": ("stable_baselines3:SAC", "Pendulum-v1", LEARNT),
    "td3": ("stable_baselines3:TD3", "Pendulum-v1", LEARNT),
    "tqc": ("sb3_contrib:TQC", "Pendulum-v1", LEARNT),
    "qrdqn": ("sb3_contrib:QRDQN", "CartPole-v1", LEARNT),
    "a2c": ("stable_baselines3:A2C", "CartPole-v1", {}),
    "dueling": ("rlrun.algorithms.dqn:DQN", "CartPole-v1", {**LEARNT, "dueling": True, "prioritized_replay": True}),
    "reinforce": ("rlrun.algorithms.reinforce:REINFORCE", "CartPole-v1", {}),
    "q_learning": ("rlrun.algorithms.q_learning:QLearning", "FrozenLake-v1", {}),
}


@pytest.mark.parametrize("name", ZIPS)
def test_a_zip_that_sb3_saved_after_learning_is_evaluated_as_it_is(
    name: str, folder: Path, rlrun_command: Callable[..., Any]
):
    place, env, settings = ZIPS[name]
    cls = load_class(place, BaseAlgorithm, what="algorithm")
    policy = "TablePolicy" if name == "q_learning" else "MlpPolicy"
    cls(policy, gym.make(env), device="cpu", **settings).learn(60).save(folder / "agent.zip")  # type: ignore[call-arg]
    outcome = rlrun_command("eval", "agent.zip", "--env", env, "--episodes", "2", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["episodes"] == 2
    is_off_policy = settings.keys() >= LEARNT.keys()
    assert ("does not say whether it was trained with normalization" in outcome.err) is is_off_policy


@pytest.mark.parametrize("file", ["", "model.zip"])
def test_a_path_into_a_run_is_the_runs_checkpoint(file: str, normalized_run: Run, rlrun_command: Callable[..., Any]):
    path = normalized_run.directory.checkpoint_path(2000) / file
    found = json.loads(rlrun_command("eval", str(path), "--episodes", "1", "--json").out)
    assert (found["run"], found["checkpoint"]) == (str(normalized_run.path), "2000")


def test_a_zip_that_is_not_there_is_said(rlrun_command: Callable[..., Any]):
    outcome = rlrun_command("eval", "nothere.zip", "--env", "CartPole-v1", "--algo", "ppo")
    assert (outcome.code, "There is no file nothere.zip" in outcome.err) == (2, True)


def test_a_checkpoint_that_was_about_to_be_replaced_is_given_back(normalized_run: Run, folder: Path):
    """The process died between two renames."""
    run = whole_and(normalized_run, folder)
    path = run.directory.checkpoint_path(2000)
    path.rename(path.with_name(".2000.abcd.old"))
    path.with_name(".2000.efgh.tmp").mkdir()
    remove_leftovers(run.directory)
    assert run.evaluate(1, checkpoint=2000).timesteps == 2000
    assert not list(path.parent.glob(".*"))


def test_a_checkpoint_loads_in_plain_sb3_where_rlrun_cannot_be_imported(normalized_run: Run):
    folder = normalized_run.directory.checkpoint_path(normalized_run.directory.pointer("final") or 0)
    for name in ("model.zip", "vec_normalize.pkl"):
        assert b"rlrun" not in (folder / name).read_bytes()
    code = """
        import sys
        sys.modules["rlrun"] = None
        import gymnasium as gym
        from stable_baselines3 import PPO
        from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
        venv = VecNormalize.load("vec_normalize.pkl", DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
        model = PPO.load("model.zip", env=venv)
        print(model.num_timesteps, venv.obs_rms.count > 2000, model.predict(venv.reset())[0].shape)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["2000", "True", "(1,", "1)"], done.stderr


def test_the_best_checkpoint_is_kept_with_the_statistics_of_its_moment(normalized_run: Run):
    directory = normalized_run.directory
    steps = directory.checkpoint_steps()
    counts = {s: float((read_checkpoint(directory, s).statistics or {})["obs.count"]) for s in steps}
    assert directory.pointer("best") in steps
    assert [counts[s] for s in steps] == sorted(counts.values())
    assert len(set(counts.values())) == len(steps)


@pytest.mark.parametrize("name", ["model.zip", "state.json", "vec_normalize.npz"])
@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "missing"])
def test_a_damaged_checkpoint_is_named_and_not_used(name: str, how: str, normalized_run: Run, tmp_path: Path):
    shutil.copytree(normalized_run.path, tmp_path / "run")
    run = rlrun.open_run(tmp_path / "run")
    file = run.directory.checkpoint_path(2000) / name
    data = file.read_bytes()
    damaged = {"flipped": data[:50] + bytes([data[50] ^ 1]) + data[51:], "cut": data[:-20], "empty": b""}
    file.unlink()
    if how != "missing":
        file.write_bytes(damaged[how])
    with pytest.raises(RlrunError, match=name):
        run.evaluate(1, checkpoint="final")
    run.directory.update_manifest({"status": "running"})
    resumed = run.resume(progress=False)
    assert resumed.manifest["timesteps"] == 2000
    assert_same(normalized_run, resumed)


# -- one recipe


@pytest.mark.parametrize(("action", "expected"), [(0, -1.0), (None, 0.0)])
def test_env_kwargs_reach_the_evaluation_env(action: int | None, expected: float):
    """With sutton_barto_reward a fallen pole returns -1, and a full episode 0."""
    from rlrun.envs.recipe import EnvRecipe
    from rlrun.evaluation.evaluate import evaluate
    from rlrun.training.plan import make_plan

    overrides = [rlrun.api.Override("env.kwargs.sutton_barto_reward", True, "test")]
    plan = make_plan(rlrun.api.load_source("CartPole-v1/ppo", overrides))
    recipe = EnvRecipe.from_config(plan.config)

    class Hand:
        """Pushes under the pole, or always to the left."""

        def predict(self, observations: np.ndarray, **_: Any) -> tuple[np.ndarray, None]:
            lean = 3 * observations[:, 2] + observations[:, 3] + 0.1 * observations[:, 0] + 0.3 * observations[:, 1]
            return ((lean > 0).astype(int) if action is None else np.full(len(observations), action)), None

    played = evaluate(Hand(), recipe, None, [1, 2, 3], deterministic=True)  # type: ignore[arg-type]
    assert set(played.returns) == {expected}
    assert (min(played.lengths) == 500) == (action is None)


OWN_MODULE = """
import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor


class Corridor(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length=10):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def step(self, action):
        self.steps += 1
        return self.observe(), 1.0, self.steps >= self.length, False, {}


class Features(BaseFeaturesExtractor):
    def __init__(self, observation_space, width=8):
        super().__init__(observation_space, width)
        self.net = torch.nn.Linear(3, width)

    def forward(self, observations):
        return self.net(observations)
"""


def test_an_env_and_an_extractor_of_the_user_train_in_workers_and_are_evaluated_from_another_folder(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "corridor_module.py").write_text(OWN_MODULE)
    (tmp_path / "mine" / "own.yaml").write_text(
        "algo: ppo\n"
        "env: {id: 'corridor_module:Corridor', n_envs: 4, vec: workers, kwargs: {length: 7}}\n"
        "total_timesteps: 128\n"
        "hyperparameters:\n"
        "  n_steps: 32\n  batch_size: 64\n"
        "  policy_kwargs: {features_extractor_class: 'corridor_module:Features',"
        " features_extractor_kwargs: {width: 4}}\n"
        "checkpoint: {every: 64}\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options: dict[str, Any] = {"capture_output": True, "text": True, "env": environment, "check": False}
    command = [str(Path(sys.executable).with_name("rlrun"))]
    trained = subprocess.run([*command, "train", "own.yaml", "--name", "x"], cwd=tmp_path / "mine", **options)
    assert trained.returncode == 0, trained.stderr
    (tmp_path / "elsewhere").mkdir()
    run = next((tmp_path / "mine" / "runs").glob("*/*/x"))
    evaluated = subprocess.run(
        [*command, "eval", str(run), "--episodes", "3", "--json"], cwd=tmp_path / "elsewhere", **options
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert '"mean_return": 7.0' in evaluated.stdout
