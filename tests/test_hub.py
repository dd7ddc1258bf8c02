"""Publishing and fetching, against a small Hub on this machine and with the real client."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
from conftest import Outcome
from hub_server import TOKEN, Hub

import rlrun
from rlrun.hub.claims import Claim, agrees, is_same_task
from rlrun.run import Run
from rlrun.runs.sums import write_sums

Command = Callable[..., Outcome]


def train(normalize: bool = False) -> Run:
    config: dict[str, Any] = {
        "algo": "a2c",
        "env": {"id": "Pendulum-v1" if normalize else "CartPole-v1", "n_envs": 2},
        "normalize": normalize,
        "total_timesteps": 400,
        "hyperparameters": {},
        "evaluation": {"every": 100, "episodes": 2},
        "trackers": [],
    }
    return rlrun.train(config, name="run", progress=False)


def push(command: Command, *more: str) -> Outcome:
    return command("push", "run", "--repo", "ada/agent", "--no-video", "--episodes", "5", *more)


@pytest.mark.parametrize("normalize", [False, True])
def test_what_was_pushed_is_pulled_and_evaluates_to_the_last_digit(
    normalize: bool, hub: Hub, rlrun_command: Command, tmp_path: Path
):
    run = train(normalize)
    outcome = push(rlrun_command)
    assert outcome.code == 0, (outcome.err, hub.requests)
    assert f"{hub.url}/ada/agent/commit/" in outcome.out
    assert "leaderboard" in outcome.out
    files = hub.repositories["ada/agent"].files("main")[1]
    algo_file = f"a2c-{run.config.env.id}.zip"
    assert {algo_file, "config.json", "results.json", "README.md", "config.yaml", "SHA256SUMS"} <= set(files)
    assert ("vec_normalize.pkl" in files) == normalize
    assert len(hub.repositories["ada/agent"].branches["main"]) == 2  # the first commit, and one with everything
    pulled = rlrun_command("pull", "ada/agent", "--run-dir", "elsewhere", "--name", "theirs")
    assert pulled.code == 0, pulled.err
    theirs = rlrun.open_run("theirs", run_dir="elsewhere")
    expected = run.evaluate(4, seed=9).evaluation.returns
    assert theirs.evaluate(4, seed=9).evaluation.returns == expected
    assert theirs.manifest["from"] == "ada/agent"
    again = rlrun_command("train", str(theirs.path / "config.yaml"), "--name", "again", "--timesteps", "400")
    assert again.code == 0


def test_verify_tells_a_card_that_holds_from_one_that_claims_more(hub: Hub, rlrun_command: Command):
    train()
    assert push(rlrun_command).code == 0
    held = rlrun_command("verify", "ada/agent", "--episodes", "30")
    assert held.code == 0, held.err
    assert held.out.strip().endswith(": consistent")
    files = hub.repositories["ada/agent"].files("main")[1]
    card = files["README.md"].decode()
    found = re.search(r"value: ([\d.]+) \+/- ([\d.]+)", card)
    assert found
    more = f"value: {float(found[1]) + 100:.2f} +/- {found[2]}"
    boasting = {**files, "README.md": card.replace(found[0], more).encode()}
    hub.put("bob/boaster", boasting)
    outcome = rlrun_command("verify", "bob/boaster", "--episodes", "30")
    assert outcome.code == 1
    assert outcome.out.startswith(f"claimed {float(found[1]) + 100:.2f}")
    assert outcome.out.strip().endswith(": NOT consistent")
    hub.put("bob/mistaken", {**files, "README.md": card.replace("CartPole-v1", "LunarLander-v3").encode()})
    outcome = rlrun_command("verify", "bob/mistaken", "--episodes", "30")
    assert outcome.code == 1
    assert "on LunarLander-v3; measured" in outcome.out
    assert outcome.out.strip().endswith("episodes of CartPole-v1: NOT consistent")
    package = Path("runs/CartPole-v1/a2c/run/package")
    local = rlrun_command("verify", str(package), "--json")
    assert local.code == 0
    assert json.loads(local.out)["consistent"] is True


def test_the_card_is_what_the_hub_and_the_leaderboard_read(hub: Hub, rlrun_command: Command):
    from huggingface_hub import ModelCard

    train()
    outcome = rlrun_command("package", "run", "--no-video", "--episodes", "5", "--logs", "--repo", "ada/agent")
    assert outcome.code == 0, outcome.err
    package = Path(outcome.out.splitlines()[-1])
    card = ModelCard.load(package / "README.md")
    assert card.data.library_name == "stable-baselines3"
    (result,) = card.data.eval_results or ()
    assert (result.metric_type, result.dataset_type) == ("mean_reward", "CartPole-v1")
    assert re.fullmatch(r"\d+\.\d\d \+/- \d+\.\d\d", result.metric_value)
    assert result.metric_value in outcome.out
    assert "deep-reinforcement-learning" in (card.data.tags or ())
    results = json.loads((package / "results.json").read_text())
    assert {"mean_reward", "std_reward", "is_deterministic", "n_eval_episodes"} <= set(results)
    assert (package / "logs" / "metrics.csv").exists()
    assert (package / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert os.environ["HOME"] not in (package / "manifest.json").read_text()


@pytest.mark.parametrize("normalize", [False, True])
def test_the_cards_code_runs_where_rlrun_is_not_installed(normalize: bool, hub: Hub, rlrun_command: Command):
    run = train(normalize)
    assert push(rlrun_command).code == 0
    card = hub.repositories["ada/agent"].files("main")[1]["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(run.path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
    }
    blocked = "import sys; sys.modules['rlrun'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    mean = float(done.stdout.strip().strip("()").split(",")[0].replace("np.float64(", "").strip(")"))
    claimed = re.search(r"value: (-?[\d.]+) \+/- ([\d.]+)", card)
    assert claimed
    assert abs(mean - float(claimed[1])) <= 4 * float(claimed[2]) + 5, (mean, claimed[0])  # five episodes each


# -- what may go wrong


def test_without_a_token_nothing_is_made(folder: Path, rlrun_command: Command, monkeypatch: pytest.MonkeyPatch):
    train()
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(folder / "none"))
    outcome = push(rlrun_command)
    assert outcome.code == 2
    assert "hf auth login" in outcome.err
    assert "HF_TOKEN" in outcome.err
    assert not Path("runs/CartPole-v1/a2c/run/package").exists()


def test_a_token_without_the_right_is_told_before_anything_is_made(
    hub: Hub, rlrun_command: Command, monkeypatch: pytest.MonkeyPatch
):
    train()
    hub.role = "read"
    outcome = push(rlrun_command)
    assert (outcome.code, "may only read" in outcome.err) == (2, True), outcome
    hub.role = "write"
    outcome = rlrun_command("push", "run", "--repo", "someone/agent", "--no-video")
    assert (outcome.code, "cannot write to someone" in outcome.err) == (2, True), outcome
    monkeypatch.setenv("HF_TOKEN", "hf_WrongWrongWrongWrong")
    outcome = push(rlrun_command)
    assert (outcome.code, "does not accept the token" in outcome.err) == (2, True), outcome
    assert "hf_Wrong" not in outcome.err + outcome.out
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("failing", "how", "words"),
    [
        ("POST .*/commit/", 403, "no right"),
        ("POST .*/commit/", 409, "conflict"),
        ("POST .*/commit/", (429, {"Retry-After": "7"}), "Wait 7 s"),
        ("PUT /upload/", 500, ""),
        ("POST .*/preupload/", 500, ""),
        ("POST .*/commit/", "cut", "not reached"),
    ],
)
def test_a_failed_push_leaves_the_repository_as_it_was_and_the_package_on_disk(
    failing: str, how: Any, words: str, hub: Hub, rlrun_command: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("time.sleep", lambda _: None)
    train()
    hub.put("ada/agent", {"README.md": b"before"})
    before = hub.repositories["ada/agent"].files("main")
    hub.failures[failing] = how
    outcome = push(rlrun_command)
    assert outcome.code in (1, 2)
    assert words in outcome.err
    assert "rlrun push" in outcome.err
    assert "Traceback" not in outcome.err
    assert TOKEN not in outcome.err + outcome.out
    assert hub.repositories["ada/agent"].files("main") == before
    assert Path("runs/CartPole-v1/a2c/run/package/README.md").exists()
    hub.failures.clear()
    assert push(rlrun_command).code == 0


def test_a_repository_that_a_failed_push_made_is_taken_away_again(
    hub: Hub, rlrun_command: Command, monkeypatch: pytest.MonkeyPatch
):
    train()
    hub.failures["POST .*/commit/"] = 403
    assert push(rlrun_command).code == 2
    assert "ada/agent" not in hub.repositories


def test_a_branch_that_a_failed_push_made_is_taken_away_again(hub: Hub, rlrun_command: Command):
    train()
    hub.put("ada/agent", {"README.md": b"before"})
    hub.failures["POST .*/commit/"] = 403
    assert push(rlrun_command, "--revision", "v2").code == 2
    assert list(hub.repositories["ada/agent"].branches) == ["main"]


def test_a_repository_that_the_token_cannot_see_is_left_alone(hub: Hub, rlrun_command: Command):
    train()
    hub.put("ada/agent", {"README.md": b"before"})
    hub.failures["GET /api/models/ada/agent$"] = (404, {"X-Error-Code": "RepoNotFound"})
    assert push(rlrun_command).code == 1
    assert hub.repositories["ada/agent"].files("main")[1] == {"README.md": b"before"}


def test_a_hub_that_hangs_is_given_up(hub: Hub, rlrun_command: Command, monkeypatch: pytest.MonkeyPatch):
    train()
    monkeypatch.setattr("rlrun.hub.client.PATIENCE", 0.3)
    hub.failures["POST .*/commit/"] = 3.0
    outcome = push(rlrun_command)
    assert (outcome.code, "The Hub was not reached" in outcome.err) == (1, True), outcome.err
    assert "ada/agent" not in hub.repositories


def test_a_public_repository_is_not_private_because_one_asks_for_it(hub: Hub, rlrun_command: Command):
    train()
    hub.put("ada/agent", {"README.md": b"before"})
    outcome = push(rlrun_command, "--private")
    assert (outcome.code, "is there already and is public" in outcome.err) == (2, True)
    assert hub.repositories["ada/agent"].files("main")[1] == {"README.md": b"before"}


def test_the_command_after_a_failed_push_keeps_every_flag(hub: Hub, rlrun_command: Command):
    train()
    hub.failures["POST .*/commit/"] = 403
    outcome = push(rlrun_command, "--private", "--revision", "v2")
    again = re.search(r"again: rlrun (.*)", " ".join(outcome.err.split()))
    assert again, outcome.err
    hub.failures.clear()
    assert rlrun_command(*shlex.split(again[1])).code == 0
    assert hub.repositories["ada/agent"].private
    assert "config.yaml" in hub.repositories["ada/agent"].files("v2")[1]


def test_the_card_of_a_branch_loads_from_the_branch(hub: Hub, rlrun_command: Command):
    train()
    assert push(rlrun_command, "--revision", "v2").code == 0
    card = hub.repositories["ada/agent"].files("v2")[1]["README.md"].decode()
    assert "rlrun pull ada/agent --revision v2" in card
    assert 'hf_hub_download("ada/agent", "a2c-CartPole-v1.zip", revision="v2")' in card


def test_a_list_of_seeds_is_evaluated_whole_and_the_cards_commands_fit_it(hub: Hub, rlrun_command: Command):
    settings = {"algo": "a2c", "env": {"id": "CartPole-v1"}, "total_timesteps": 100, "hyperparameters": {}}
    rlrun.train({**settings, "evaluation": {"seeds": [1, 2, 3]}, "trackers": []}, name="run", progress=False)
    outcome = rlrun_command("package", "run", "--no-video")
    assert outcome.code == 0, outcome.err
    card = Path("runs/CartPole-v1/a2c/run/package/README.md").read_text()
    commands = re.findall(r"^rlrun (eval .*)$", card, re.MULTILINE)
    assert len(commands) == 2
    assert all(rlrun_command(*shlex.split(command)).code == 0 for command in commands)


def test_files_of_ones_own_stay_in_the_repository(hub: Hub, rlrun_command: Command):
    train()
    hub.put("ada/agent", {"data.zip": b"mine", "ppo-Old-v1.zip": b"old"})
    assert push(rlrun_command).code == 0
    files = hub.repositories["ada/agent"].files("main")[1]
    assert (files["data.zip"], "ppo-Old-v1.zip" in files) == (b"mine", False)


def test_stochastic_actions_of_someone_elses_are_kept(hub: Hub, rlrun_command: Command, folder: Path):
    files = hub_layout(folder)
    results = {**json.loads(files["results.json"]), "is_deterministic": False}
    hub.put("bob/ppo", {**files, "results.json": json.dumps(results).encode()})
    assert rlrun_command("pull", "bob/ppo", "--name", "bobs").code == 0
    assert rlrun.open_run("bobs").config.evaluation.deterministic is False


def test_a_card_says_that_training_began_from_other_weights_and_not_where_they_lay(hub: Hub, rlrun_command: Command):
    parent = train()
    rlrun.train(parent.path / "config.yaml", overrides={"init_from": str(parent.path)}, name="child", progress=False)
    assert rlrun_command("package", "child", "--no-video", "--episodes", "5").code == 0
    package = Path("runs/CartPole-v1/a2c/child/package")
    assert "Training began from other weights" in (package / "README.md").read_text()
    for file in ("README.md", "config.yaml", "manifest.json"):
        assert str(parent.path) not in (package / file).read_text()


@pytest.mark.parametrize(
    ("claim", "consistent"),
    [
        ((100.0, 20.0, 10), True),
        ((400.0, 20.0, 10), False),
        ((400.0, 2000.0, 10), False),  # a deviation that would agree with anything
        ((112.0, 20.0, 100), True),
        ((100.0, 0.0, 10), False),
        ((140.0, 0.0, 1), True),
        ((260.0, 5.0, 1), False),
    ],
)
def test_claims_and_measurements(claim: tuple[float, float, int], consistent: bool):
    returns = np.random.default_rng(0).normal(105, 20, 50)
    assert agrees(Claim(*claim, None), returns.tolist()) is consistent


@pytest.mark.parametrize(
    ("claimed", "played", "same"),
    [
        (None, "CartPole-v1", True),
        ("CartPole-v1", "CartPole-v1", True),
        ("LunarLander-v2", "LunarLander-v3", True),
        ("FrozenLake-v1-4x4-no_slippery", "FrozenLake-v1", True),
        ("LunarLander-v3", "CartPole-v1", False),
        ("LunarLanderContinuous-v3", "LunarLander-v3", False),
        ("Walk", "own:Walk", True),
    ],
)
def test_a_card_is_about_the_env_that_is_played(claimed: str | None, played: str, same: bool):
    assert is_same_task(claimed, played) is same


def test_private_and_revision(hub: Hub, rlrun_command: Command, monkeypatch: pytest.MonkeyPatch):
    train()
    assert push(rlrun_command, "--private", "--revision", "v2").code == 0
    repository = hub.repositories["ada/agent"]
    assert repository.private
    assert "config.yaml" in repository.files("v2")[1]
    assert "config.yaml" not in repository.files("main")[1]
    assert rlrun_command("pull", "ada/agent", "--revision", "v2", "--name", "b").code == 0
    missing = rlrun_command("pull", "ada/agent", "--revision", "v3")
    assert (missing.code, "no such repository or revision" in missing.err) == (2, True)


def test_a_statistics_file_of_an_older_push_does_not_stay(hub: Hub, rlrun_command: Command):
    train()
    hub.put("ada/agent", {"vec_normalize.pkl": b"old", "ppo-Old-v1.zip": b"old", "notes.md": b"mine"})
    assert push(rlrun_command).code == 0
    files = hub.repositories["ada/agent"].files("main")[1]
    assert "vec_normalize.pkl" not in files
    assert "ppo-Old-v1.zip" not in files
    assert files["notes.md"] == b"mine"


@pytest.mark.parametrize("repo", ["nobody/nothing", "no-slash", "a/b/c"])
def test_a_repository_that_is_not_there_is_one_sentence(repo: str, hub: Hub, rlrun_command: Command):
    outcome = rlrun_command("pull", repo)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert not Path("runs").exists()


def test_a_card_that_its_author_went_on_writing_is_no_damage(hub: Hub, rlrun_command: Command):
    train()
    assert push(rlrun_command).code == 0
    files = hub.repositories["ada/agent"].files("main")[1]
    hub.put("ada/agent", {**files, "README.md": files["README.md"] + b"\nThanks to my cat.\n"})
    assert rlrun_command("pull", "ada/agent", "--run-dir", "new").code == 0
    assert rlrun_command("verify", "ada/agent").code == 0


def test_a_package_with_words_of_ones_own_is_pushed_as_it_is(hub: Hub, rlrun_command: Command):
    train()
    assert rlrun_command("package", "run", "--no-video", "--episodes", "5").code == 0
    package = Path("runs/CartPole-v1/a2c/run/package")
    card = package / "README.md"
    card.write_text(card.read_text() + "\nThanks to my cat.\n")
    outcome = rlrun_command("push", str(package), "--repo", "ada/agent")
    assert outcome.code == 0, outcome.err
    files = hub.repositories["ada/agent"].files("main")[1]
    assert files["README.md"].endswith(b"Thanks to my cat.\n")
    (package / "config.yaml").write_text("algo: ppo\n")
    refused = rlrun_command("push", str(package), "--repo", "ada/agent")
    assert (refused.code, "config.yaml does not have its hash" in refused.err) == (2, True)
    for flag in ("--episodes", "--checkpoint"):
        assert rlrun_command("push", str(package), "--repo", "ada/agent", flag, "5").code == 2


def test_a_pulled_run_trains_again_by_its_folder(hub: Hub, rlrun_command: Command):
    train()
    assert push(rlrun_command).code == 0
    assert rlrun_command("pull", "ada/agent", "--name", "theirs").code == 0
    outcome = rlrun_command("train", "runs/CartPole-v1/a2c/theirs", "--name", "again", "--timesteps", "100")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("name", ["a2c-CartPole-v1.zip", "config.yaml", "state.json"])
def test_a_damaged_package_is_not_pulled(name: str, hub: Hub, rlrun_command: Command):
    train()
    assert push(rlrun_command).code == 0
    files = hub.repositories["ada/agent"].files("main")[1]
    hub.put("eve/agent", {**files, name: files[name] + b" "})
    outcome = rlrun_command("pull", "eve/agent", "--run-dir", "new")
    assert outcome.code == 2
    assert f"{name} does not have its hash" in outcome.err
    assert not list(Path("new").rglob("config.yaml"))


def test_code_that_a_pulled_run_names_is_not_imported(hub: Hub, rlrun_command: Command, folder: Path):
    train()
    assert push(rlrun_command).code == 0
    package = Path("runs/CartPole-v1/a2c/run/package")
    config = (package / "config.yaml").read_text().replace("imports: []", "imports: [evil_module]")
    (package / "config.yaml").write_text(config)
    (package / "SHA256SUMS").unlink()
    write_sums(package)
    hub.put("eve/agent", {str(f.relative_to(package)): f.read_bytes() for f in package.rglob("*") if f.is_file()})
    Path("evil_module.py").write_text("import pathlib; pathlib.Path('touched').touch()")
    assert rlrun_command("pull", "eve/agent", "--name", "evil").code == 0
    outcome = rlrun_command("eval", "evil")
    assert (outcome.code, "evil_module" in outcome.err) == (2, True)
    assert rlrun_command("verify", "eve/agent").code == 2
    assert not Path("touched").exists()


# -- repositories that others made


def hub_layout(folder: Path) -> dict[str, bytes]:
    """What package_to_hub leaves, as far as it matters."""
    from stable_baselines3 import PPO

    PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}).save(folder / "ppo-CartPole-v1.zip")
    card = """
        ---
        library_name: stable-baselines3
        tags: [CartPole-v1, deep-reinforcement-learning]
        model-index:
        - name: PPO
          results:
          - task: {type: reinforcement-learning, name: reinforcement-learning}
            dataset: {name: CartPole-v1, type: CartPole-v1}
            metrics:
            - {type: mean_reward, value: 400.00 +/- 10.00, name: mean_reward, verified: false}
        ---
        # PPO
    """
    results = {"mean_reward": 400.0, "std_reward": 10.0, "is_deterministic": True, "n_eval_episodes": 10}
    return {
        "ppo-CartPole-v1.zip": (folder / "ppo-CartPole-v1.zip").read_bytes(),
        "README.md": textwrap.dedent(card).strip().encode(),
        "results.json": json.dumps(results).encode(),
    }


def test_a_repository_of_package_to_hub_is_pulled_and_verified(hub: Hub, rlrun_command: Command, folder: Path):
    hub.put("bob/ppo", hub_layout(folder))
    assert rlrun_command("pull", "bob/ppo", "--name", "bobs").code == 0
    assert rlrun.open_run("bobs").config.algo == "ppo"
    outcome = rlrun_command("verify", "bob/ppo", "--json")
    assert outcome.code == 1, outcome.err
    assert json.loads(outcome.out)["claimed"]["mean_return"] == 400.0


def test_that_statistics_may_be_missing_is_told_of_a_pulled_agent_too(hub: Hub, rlrun_command: Command, folder: Path):
    from stable_baselines3 import DQN

    DQN("MlpPolicy", "CartPole-v1", buffer_size=10).learn(1).save(folder / "dqn-CartPole-v1.zip")
    hub.put("bob/dqn", {"dqn-CartPole-v1.zip": (folder / "dqn-CartPole-v1.zip").read_bytes()})
    outcome = rlrun_command("pull", "bob/dqn", "--algo", "dqn", "--env", "CartPole-v1")
    assert (outcome.code, "bob/dqn does not say whether it was trained with norm" in outcome.err) == (0, True)


def test_a_repository_of_rl_zoo_is_pulled_and_verified(hub: Hub, rlrun_command: Command, folder: Path):
    from stable_baselines3 import A2C
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    env = VecNormalize(make_vec_env("Pendulum-v1"), gamma=0.9)
    model = A2C("MlpPolicy", env, n_steps=8).learn(64)
    model.save(folder / "a2c-Pendulum-v1.zip")
    env.save(str(folder / "vec_normalize.pkl"))
    with zipfile.ZipFile(folder / "train_eval_metrics.zip", "w") as archive:
        archive.writestr("0.monitor.csv", "#{}\nr,l,t\n")
    ordered = "!!python/object/apply:collections.OrderedDict\n- "
    arguments = f"{ordered}- - algo\n    - a2c\n  - - env\n    - Pendulum-v1\n"
    settings = f"{ordered}- - n_envs\n    - 1\n  - - normalize\n    - true\n  - - policy\n    - MlpPolicy\n"
    files = {
        "README.md": b"---\nlibrary_name: stable-baselines3\n---\n# A2C",
        "args.yml": arguments.encode(),
        "config.yml": f"{settings}  - - n_timesteps\n    - 64.0\n".encode(),
        "env_kwargs.yml": b"{}\n",
        "results.json": json.dumps({"mean_reward": -1200.0, "std_reward": 300.0, "n_eval_episodes": 10}).encode(),
        "a2c-Pendulum-v1/_stable_baselines3_version": b"2.9.2",
        **{
            name: (folder / name).read_bytes()
            for name in ("a2c-Pendulum-v1.zip", "vec_normalize.pkl", "train_eval_metrics.zip")
        },
    }
    hub.put("sb3/a2c-Pendulum-v1", files)
    pulled = rlrun_command("pull", "sb3/a2c-Pendulum-v1", "--name", "theirs")
    assert pulled.code == 0, pulled.err
    run = rlrun.open_run("theirs")
    assert (run.config.algo, run.config.env.id, run.config.normalize is not None) == ("a2c", "Pendulum-v1", True)
    verdict = rlrun_command("verify", "sb3/a2c-Pendulum-v1", "--json")
    assert verdict.code in (0, 1), verdict.err
    assert json.loads(verdict.out)["claimed"]["mean_return"] == -1200.0


def test_a_q_table_is_verified_without_unpickling_freely(hub: Hub, rlrun_command: Command, folder: Path):
    right, down = 2, 1
    table = np.zeros((16, 4))
    for state in range(16):
        table[state, down if state in (0, 4, 9) else right] = 1.0
    table[[8, 13, 14], right] = 2.0
    card = (
        "---\nmodel-index:\n- name: Q\n  results:\n  - dataset: {type: FrozenLake-v1-4x4-no_slippery}\n"
        "    metrics:\n    - {type: mean_reward, value: 1.00 +/- 0.00}\n---\n"
    )
    saved = {"env_id": "FrozenLake-v1", "max_steps": 99, "qtable": table}
    hub.put("bob/q", {"q-learning.pkl": pickle.dumps(saved), "README.md": card.encode()})
    outcome = rlrun_command("verify", "bob/q")
    assert outcome.code == 0, outcome.err + outcome.out
    theirs = {**saved, "env_id": "evil_module:Evil-v0"}
    Path("evil_module.py").write_text("open('touched', 'w')")
    hub.put("eve/named", {"q-learning.pkl": pickle.dumps(theirs), "README.md": card.encode()})
    outcome = rlrun_command("verify", "eve/named")
    assert (outcome.code, "names a module to import: evil_module:Evil-v0" in outcome.err) == (2, True)
    slippery = {**saved, "slippery": True}
    hub.put("bob/slippery", {"q-learning.pkl": pickle.dumps(slippery), "README.md": card.encode()})
    assert rlrun_command("verify", "bob/slippery").code == 1  # the table says that its ice was slippery
    hostile = b"cposix\nsystem\n(S'touch touched'\ntR."
    hub.put("eve/q", {"q-learning.pkl": hostile, "README.md": card.encode()})
    outcome = rlrun_command("verify", "eve/q")
    assert (outcome.code, "posix.system" in outcome.err) == (2, True)
    assert not Path("touched").exists()
