"""Reading never executes: hostile inputs, each of which would touch a file if anything of it were run."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Outcome
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import rlrun
from rlrun import console
from rlrun.errors import UsageError
from rlrun.run import Run
from rlrun.runs.archive import read_tensors
from rlrun.runs.pickles import COMPUTED, UNREAD, names_in_pickle, read_pickle
from rlrun.runs.sums import write_sums
from rlrun.runs.trust import is_own

Command = Callable[..., Outcome]
PACKAGE = Path(rlrun.__file__).parent


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.place}",)


@pytest.fixture
def touched(folder: Path) -> Path:
    return folder / "touched"


@pytest.fixture
def payload(touched: Path) -> bytes:
    return pickle.dumps(Hostile(touched))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain SB3 model."""
    path = tmp_path_factory.mktemp("model") / "ppo-CartPole-v1.zip"
    PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16, policy_kwargs={"net_arch": [8]}).learn(16).save(path)
    return path


def rewritten(model: Path, target: Path, members: dict[str, bytes | None]) -> Path:
    """A copy of a zip with some members replaced, added or (None) left out."""
    with zipfile.ZipFile(model) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in source.namelist():
            if name not in members:
                copy.writestr(name, source.read(name))
        for name, content in members.items():
            if content is not None:
                copy.writestr(name, content)
    return target


def with_attribute(model: Path, target: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(model) as source:
        data = json.loads(source.read("data"))
    data[name] = {":type:": "x", ":serialized:": base64.b64encode(content).decode()}
    return rewritten(model, target, {"data": json.dumps(data).encode()})


def hostile_tensors(place: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"policy": Hostile(place)}, stream)
    return stream.getvalue()


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err
    assert "bug in rlrun" not in outcome.err
    for word in words:
        assert word in outcome.err


def brief(config: str, timesteps: int) -> Run:
    settings = {"total_timesteps": timesteps, "evaluation.episodes": 0}
    return rlrun.train(config, overrides=settings, name="run", progress=False)


# -- pickles


def opcodes_that_only_the_real_machine_goes_past() -> list[bytes]:
    """Two ways to a call of os.system behind something that a careful reader may stumble over."""
    call = b"cposix\nsystem\n(S'true'\ntR"
    keywords = b"\x80\x04ccollections\nOrderedDict\n)}S'a'\nI1\ns\x92" + b"0" + call + b"."
    additions = b"\x80\x04cbuiltins\nset\n)R(I1\n\x90" + b"0" + call + b"."
    memoized = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x8c\x04true\x85R."
    computed = b"\x80\x04(\x8c\x05posix\x8c\x06system1\x8c\x05posix2\x8c\x06system\x93\x8c\x04true\x85R."
    return [keywords, additions, memoized, computed]


@pytest.mark.parametrize("content", opcodes_that_only_the_real_machine_goes_past())
def test_inspect_names_all_that_a_pickle_asks_for_or_says_that_it_cannot(
    content: bytes, folder: Path, rlrun_command: Command
):
    Path("vec_normalize.pkl").write_bytes(content)
    found = json.loads(rlrun_command("inspect", "vec_normalize.pkl", "--json").out)["needs_trust"]
    assert {"posix.system", COMPUTED} & set(found), found


@pytest.mark.parametrize("content", [b"\x80\x04N", b"\x80\x04N.more", b"", b"\xff", pickle.dumps(1)[:-1]])
def test_a_pickle_that_is_not_whole_needs_trust(content: bytes):
    assert names_in_pickle(content) == [UNREAD]


def test_every_way_to_write_a_name_is_listed():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        listed = names_in_pickle(pickle.dumps([Path("a"), np.arange(3), np.float64], protocol))
        assert {name.rpartition(".")[2] for name in listed} >= {"PosixPath", "float64", "dtype"}, protocol
        assert COMPUTED not in listed


def test_a_few_bytes_that_mean_a_large_tree_are_refused():
    tree: list[Any] = []
    for _ in range(40):
        tree = [tree, tree]
    with pytest.raises(UsageError, match="nested too deeply"):
        read_pickle(pickle.dumps(tree), "it")
    zeros = b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(J\x00\x00\x00\x30cnumpy\ndtype\n"
    zeros += b"(X\x02\x00\x00\x00u1tR(J\x00\x00\x00\x30ttR."
    with pytest.raises(UsageError, match="without a dtype or content"):
        read_pickle(zeros, "it")


# -- SB3 zips


@pytest.mark.parametrize("attribute", ["lr_schedule", "observation_space", "action_space", "ep_info_buffer"])
def test_a_pickle_that_acting_does_not_need_is_not_decoded(
    attribute: str, model: Path, payload: bytes, touched: Path, rlrun_command: Command
):
    hostile = with_attribute(model, touched.with_name("ppo-CartPole-v1.zip"), attribute, payload)
    outcome = rlrun_command("eval", str(hostile), "--episodes", "1", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["episodes"] == 1
    assert not touched.exists()


@pytest.mark.parametrize("attribute", ["policy_class", "policy_kwargs"])
def test_a_pickle_that_acting_needs_is_named_and_refused(
    attribute: str, model: Path, payload: bytes, touched: Path, rlrun_command: Command
):
    hostile = with_attribute(model, touched.with_name("ppo-CartPole-v1.zip"), attribute, payload)
    refused(rlrun_command("eval", str(hostile)), "posix.system", "--trust")
    assert not touched.exists()
    inspected = json.loads(rlrun_command("inspect", str(hostile), "--json").out)
    assert inspected["needs_trust"] == ["posix.system"]
    assert not touched.exists()


@pytest.mark.parametrize("member", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"])
def test_a_pickle_among_the_tensors_is_refused(member: str, model: Path, touched: Path, rlrun_command: Command):
    hostile = rewritten(model, touched.with_name("ppo-CartPole-v1.zip"), {member: hostile_tensors(touched)})
    outcome = rlrun_command("eval", str(hostile))
    refused(outcome, member, "asks for posix.system")
    assert "weights_only" not in outcome.err
    listed = rlrun_command("inspect", str(hostile))
    assert (listed.code, "posix.system" in listed.out) == (0, True)
    refused(rlrun_command("train", "CartPole-v1/ppo", "--init", str(hostile)))
    assert not touched.exists()
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["vec_normalize.pkl", "vecnormalize.pkl"])
def test_hostile_statistics_are_refused(
    name: str, model: Path, payload: bytes, touched: Path, rlrun_command: Command, folder: Path
):
    shutil.copy(model, folder)
    Path(name).write_bytes(payload)
    refused(rlrun_command("eval", model.name), "posix.system")
    refused(rlrun_command("eval", "."), "posix.system")
    assert json.loads(rlrun_command("inspect", name, "--json").out)["needs_trust"] == ["posix.system"]
    assert not touched.exists()


def test_names_that_lead_out_of_a_zip_write_nothing(model: Path, folder: Path, rlrun_command: Command):
    inside = folder / "inside"
    inside.mkdir()
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    hostile = rewritten(model, inside / "ppo-CartPole-v1.zip", {"../outside": b"x", "/tmp/outside-rlrun": b"x"})
    with zipfile.ZipFile(hostile, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    before = sorted(folder.rglob("*"))
    assert rlrun_command("eval", str(hostile), "--episodes", "1").code == 0
    assert sorted(folder.rglob("*")) == before
    assert not Path("/tmp/outside-rlrun").exists()


def zeros(target: Path, model: Path, gigabytes: float) -> Path:
    rewritten(model, target, {"policy.pth": None})
    with (
        zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("policy.pth", "w", force_zip64=True) as stream,
    ):
        for _ in range(int(gigabytes * 64)):
            stream.write(bytes(2**24))
    return target


@pytest.mark.parametrize("gigabytes", [0.25, pytest.param(10, marks=pytest.mark.slow)])
def test_a_zip_bomb_is_not_inflated(gigabytes: float, model: Path, folder: Path, rlrun_command: Command):
    bomb = zeros(folder / "ppo-CartPole-v1.zip", model, gigabytes)
    refused(rlrun_command("eval", str(bomb)), "claims to hold")
    refused(rlrun_command("inspect", str(bomb)), "claims to hold")


def squeezed(tensors: bytes) -> bytes:
    """The same tensors in a zip that is compressed, as torch never does."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(tensors)) as source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in source.namelist():
            copy.writestr(name, source.read(name))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["spread over members", "inside a member"])
def test_a_zip_bomb_hides_nowhere(kind: str, model: Path, folder: Path, rlrun_command: Command):
    bomb = folder / "ppo-CartPole-v1.zip"
    if kind == "spread over members":
        rewritten(model, bomb, {f"{index}.pth": bytes(9 * 2**20) for index in range(30)})
        words = "claims to hold"
    else:
        stream = io.BytesIO()
        torch.save({"zeros": torch.zeros(2**22)}, stream)
        rewritten(model, bomb, {})
        with zipfile.ZipFile(bomb, "a", zipfile.ZIP_STORED) as archive:
            archive.writestr("extra.pth", squeezed(stream.getvalue()))
        words = "is compressed"
    refused(rlrun_command("eval", str(bomb)), words)


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "no zip", "no data", "data is a list"])
def test_a_damaged_zip_is_one_sentence(how: str, model: Path, folder: Path, rlrun_command: Command):
    target = folder / "ppo-CartPole-v1.zip"
    content = model.read_bytes()
    middle = len(content) // 2
    damaged = {
        "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        "cut": content[:middle],
        "empty": b"",
        "no zip": b"PK" + bytes(100),
    }
    if how in damaged:
        target.write_bytes(damaged[how])
    else:
        rewritten(model, target, {"data": None if how == "no data" else b"[1]"})
    refused(rlrun_command("eval", str(target)))


def test_a_model_of_another_env_or_algorithm_does_not_fit(model: Path, rlrun_command: Command):
    refused(rlrun_command("eval", str(model), "--env", "Acrobot-v1"), "do not fit")
    refused(rlrun_command("eval", str(model), "--algo", "dqn"), "is no policy of dqn")
    refused(rlrun_command("eval", str(model), "--algo", "sac"), "is no policy of sac")


def test_statistics_of_another_shape_do_not_fit(model: Path, folder: Path, rlrun_command: Command):
    import gymnasium as gym

    shutil.copy(model, folder)
    normalizer = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    normalizer.save("vec_normalize.pkl")
    refused(rlrun_command("eval", model.name), "statistics have shape")
    os.remove("vec_normalize.pkl")
    outcome = rlrun_command("eval", model.name, "--config", "PandaReachDense-v3/a2c")
    refused(outcome)


# -- runs that came from elsewhere

OWN_MODULE = """
import pathlib
pathlib.Path({touched!r}).touch()
import gymnasium as gym
import numpy as np

class Walk(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {{}}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, False, {{}}
"""


@pytest.fixture
def foreign(folder: Path, touched: Path) -> Run:
    """A run of someone else's that names a module of its own."""
    sys.modules.pop("walk_module", None)
    Path("walk_module.py").write_text(OWN_MODULE.format(touched=str(touched)))
    config = {
        "algo": "ppo",
        "env": {"id": "walk_module:Walk", "n_envs": 2},
        "total_timesteps": 128,
        "hyperparameters": {"n_steps": 32, "batch_size": 32},
        "evaluation": {"episodes": 1},
        "trackers": [],
    }
    run = rlrun.train(config, name="run", progress=False)
    run.directory.update_manifest({"signature": "0" * 64})
    touched.unlink()
    sys.modules.pop("walk_module")
    return run


def test_a_foreign_run_imports_nothing_of_its_own_until_it_is_trusted(
    foreign: Run, touched: Path, rlrun_command: Command
):
    path = str(foreign.path)
    refused(rlrun_command("eval", path), "walk_module:Walk", "rlrun trust")
    refused(rlrun_command("resume", path, "--timesteps", "256"), "walk_module:Walk")
    for command in (("show", path), ("inspect", path), ("runs",)):
        assert rlrun_command(*command).code == 0
    assert not touched.exists()
    once = rlrun_command("eval", path, "--trust")
    assert once.code == 0
    assert "imported: walk_module:Walk" in once.err
    assert touched.exists()
    refused(rlrun_command("eval", path), "rlrun trust")
    told = rlrun_command("trust", path)
    assert "walk_module:Walk" in told.out
    assert rlrun_command("eval", path).code == 0


def test_a_run_whose_config_was_changed_is_not_taken_for_ones_own(folder: Path, rlrun_command: Command):
    run = rlrun.train("CartPole-v1/a2c", timesteps=100, overrides={"evaluation.episodes": 0}, progress=False)
    assert is_own(run.directory)
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("imports: []", "imports: [antigravity_of_someone]"))
    assert not is_own(run.directory)
    refused(rlrun_command("eval", str(run.path), "--episodes", "1"), "antigravity_of_someone")


def test_a_foreign_run_sends_nothing_to_where_its_author_wants(folder: Path, rlrun_command: Command):
    """And a module beside it, with the name of a package that is not installed, is not imported."""
    run = brief("CartPole-v1/a2c", 100)
    config = run.path / "config.yaml"
    text = config.read_text().replace(
        "- name: tensorboard\n  kwargs: {}", "- name: mlflow\n  kwargs: {tracking_uri: /elsewhere}"
    )
    assert "mlflow" in text
    config.write_text(text)
    for place in (run.path, folder):
        (place / "mlflow.py").write_text(f"open({str(folder / 'touched')!r}, 'w')")
    for extra in ((), ("--set", "log_every=50")):
        outcome = rlrun_command("resume", str(run.path), "--timesteps", "200", *extra)
        assert not Path("touched").exists()
        assert outcome.code in (0, 2), outcome.err
    assert "nothing is sent to mlflow" in rlrun_command("resume", str(run.path), "--timesteps", "300").err
    assert not Path("touched").exists()


@pytest.mark.parametrize(
    "odd",
    [{"seconds": "x"}, {"timesteps": "y"}, {"command": [1]}, {"hardware": {"x": 1}}, {"git": {"y": 2}}, {"notes": 3}],
)
def test_a_manifest_of_someone_elses_may_hold_anything(odd: dict[str, Any], folder: Path, rlrun_command: Command):
    run = brief("CartPole-v1/a2c", 20)
    run.directory.update_manifest(odd)
    for command in (("runs",), ("show", "run"), ("inspect", "run"), ("eval", "run", "--episodes", "1")):
        outcome = rlrun_command(*command)
        assert (outcome.code, "bug in rlrun" in outcome.err) == (0, False), outcome.err


def test_what_others_wrote_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]):
    console.say("needs_trust  posix.system\x1b[2K\rno\x9b8m")
    console.note("\x1b]0;title\x07")
    captured = capsys.readouterr()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", captured.out + captured.err)


def test_a_foreign_run_with_a_link_that_leads_elsewhere_is_not_written_to(foreign: Run, rlrun_command: Command):
    victim = foreign.path.parent / "victim"
    victim.write_text("mine")
    (foreign.path / "metrics.csv").unlink()
    (foreign.path / "metrics.csv").symlink_to(victim)
    refused(rlrun_command("resume", str(foreign.path), "--timesteps", "256", "--trust"), "leads elsewhere")
    refused(rlrun_command("trust", str(foreign.path)), "leads elsewhere")
    assert victim.read_text() == "mine"


def test_a_pickle_in_a_replay_buffer_is_not_read(folder: Path, touched: Path, rlrun_command: Command):
    config = {
        "algo": "dqn",
        "env": {"id": "CartPole-v1"},
        "total_timesteps": 300,
        "hyperparameters": {"learning_starts": 50, "buffer_size": 400},
        "evaluation": {"episodes": 0},
        "trackers": [],
    }
    run = rlrun.train(config, name="run", progress=False)
    checkpoint = run.directory.checkpoint_path(300)
    array = next((checkpoint / "replay_buffer").glob("0-*.npy"))
    np.save(array, np.array([Hostile(touched)], dtype=object), allow_pickle=True)
    (checkpoint / "SHA256SUMS").unlink()
    write_sums(checkpoint)
    refused(rlrun_command("resume", "run", "--timesteps", "400"), "does not fit")
    assert not touched.exists()


@pytest.mark.parametrize(
    "text",
    [
        "algo: !!python/object/apply:os.system ['touch touched']\n",
        "algo: ppo\nenv: {id: CartPole-v1}\ntotal_timesteps: 100\n"
        "hyperparameters: {policy_kwargs: \"dict(a=__import__('os').system('touch touched'))\"}\n",
        "algo: ppo\nenv: {id: CartPole-v1}\ntotal_timesteps: 100\nhyperparameters: {policy: 'os:system'}\n",
        "algo: ppo\nenv: {id: CartPole-v1}\ntotal_timesteps: 100\n"
        "hyperparameters: {policy_kwargs: {activation_fn: \"__import__('os').system('touch touched')\"}}\n",
    ],
)
def test_a_config_runs_nothing(text: str, touched: Path, rlrun_command: Command):
    Path("c.yaml").write_text(text)
    refused(rlrun_command("train", "c.yaml"))
    refused(rlrun_command("check", "c.yaml"))
    assert not touched.exists()


def test_rl_zoos_settings_are_read_and_not_run(model: Path, folder: Path, touched: Path, rlrun_command: Command):
    log = folder / "logs" / "ppo" / "CartPole-v1_1"
    settings = log / "CartPole-v1"
    settings.mkdir(parents=True)
    shutil.copy(model, log / "CartPole-v1.zip")
    ordered = "!!python/object/apply:collections.OrderedDict\n- "
    (settings / "args.yml").write_text(f"{ordered}- - algo\n    - ppo\n  - - env\n    - CartPole-v1\n")
    (settings / "config.yml").write_text(f"{ordered}- - n_envs\n    - 8\n  - - policy\n    - MlpPolicy\n")
    outcome = rlrun_command("eval", str(log), "--episodes", "2", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["episodes"] == 2
    (settings / "config.yml").write_text("!!python/object/apply:os.system ['touch touched']\n")
    refused(rlrun_command("eval", str(log)), "tag")
    (settings / "config.yml").write_text(f"{ordered}- - env_wrapper\n    - walk_module.Wrapper\n")
    Path("walk_module.py").write_text(OWN_MODULE.format(touched=str(touched)))
    refused(rlrun_command("eval", str(log)), "walk_module:Wrapper", "--trust")
    assert not touched.exists()


# -- the package itself


def test_nothing_in_the_package_unpickles_or_evaluates():
    forbidden = re.compile(
        r"pickle\.loads?\(|(?<![\w.])eval\(|(?<![\w.])exec\(|UnsafeLoader|FullLoader|yaml\.load\(|allow_pickle=True"
        r"|torch\.load\((?![^\n]*weights_only=True)|joblib|cloudpickle|dill|marshal"
    )
    found = [
        f"{file.name}: {line.strip()}"
        for file in PACKAGE.rglob("*.py")
        for line in file.read_text().splitlines()
        if forbidden.search(line)
    ]
    # The one exception reads a pipe between a process and the workers that it started, never a file.
    assert found == ["worker_process.py: return pickle.loads(message)  # noqa: S301"]


def test_no_secret_of_the_environment_reaches_a_run_or_the_terminal(folder: Path):
    secret = "hf_Secret0123456789Secret0123456789"
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")
    environment = {**os.environ, **dict.fromkeys(names, secret)}
    command = [sys.executable, "-m", "rlrun", "train", "CartPole-v1/a2c", "--timesteps", "200", "--name", "run"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    failed = subprocess.run(
        [*command, "--set", "env.kwargs.x=1", "--debug"], env=environment, capture_output=True, check=False
    )
    assert failed.returncode != 0
    written = [file.read_bytes() for file in Path("runs").rglob("*") if file.is_file()]
    assert len(written) > 10
    shown = [done.stdout, done.stderr, failed.stdout, failed.stderr]
    assert [content for content in [*written, *shown] if secret.encode() in content] == []


def test_own_checkpoints_hold_only_tensors(folder: Path):
    run = rlrun.train("CartPole-v1/a2c", timesteps=100, overrides={"evaluation.episodes": 0}, progress=False)
    tensors = read_tensors(run.directory.checkpoint_path(run.directory.pointer("final") or 0) / "model.zip")
    assert {"policy", "policy.optimizer"} <= set(tensors)
