"""The command line: quick to answer, one report on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import rlrun
from rlrun import console
from rlrun.cli import run
from rlrun.cli.flags import whole
from rlrun.config.locate import shipped_configs
from rlrun.errors import RlrunError
from rlrun.words import duration, size

SCRIPT = Path(sysconfig.get_path("scripts"), "rlrun")
HEAVY = ("torch", "stable_baselines3", "sb3_contrib", "gymnasium", "numpy", "yaml", "rich")
COMMANDS = (
    *("train", "resume", "eval", "check", "configs", "init", "schema"),
    *("check-env", "runs", "show", "inspect", "trust", "prune", "export", "doctor", "bench", "smoke", "import-zoo"),
    *("video", "watch", "package", "push", "pull", "verify", "compare", "plot", "diff"),
    *("report", "why", "matrix", "tune"),
)
PLAIN = """\
algo: ppo
env: {id: CartPole-v1, n_envs: 2}
total_timesteps: 20_000
hyperparameters: {n_steps: 64}
"""


def process(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help"), ("--version",), ()])
def test_help_imports_nothing_heavy(arguments: Sequence[str]) -> None:
    code = (
        "import sys; from rlrun.cli import run; code = run(sys.argv[1:]); "
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    finished = process(sys.executable, "-c", code, *arguments)
    assert finished.stdout.splitlines()[-1] == "0 []", finished.stderr


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed")
def test_help_takes_less_than_four_tenths_of_a_second_of_the_processor() -> None:
    """Time of the processor and not of the clock, so that a busy machine fails nobody."""

    def seconds() -> float:
        before = os.times()
        assert process(SCRIPT, "--help").returncode == 0
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(5)) < 0.4


def test_help_names_every_command(rlrun_command: Callable[..., Any]) -> None:
    outcome = rlrun_command("--help")
    assert outcome.code == 0
    listed = re.findall(r"^  ([a-z-]+)  ", outcome.out.partition("Commands:")[2], re.MULTILINE)
    assert set(listed) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_one_sentence_for_each_option(
    command: str, rlrun_command: Callable[..., Any]
) -> None:
    outcome = rlrun_command(command, "-h")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"Usage: rlrun {command} ")
    options = outcome.out.partition("Options:")[2]
    described = re.findall(r"^  -[\w, -]+(?: <?[\w|=]+>?)?\s{2,}\S", options, re.MULTILINE)
    assert described, options


def test_bare_rlrun_prints_the_help(rlrun_command: Callable[..., Any]) -> None:
    bare, asked = rlrun_command(), rlrun_command("--help")
    assert bare == asked
    assert bare.out.startswith("Usage: rlrun ")


def test_python_m_rlrun_is_the_same_program() -> None:
    finished = process(sys.executable, "-m", "rlrun", "--version")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"rlrun {rlrun.__version__}\n", "")
    bare = process(sys.executable, "-m", "rlrun")
    assert bare.returncode == 0
    assert bare.stdout.startswith("Usage: rlrun ")
    wrong = process(sys.executable, "-m", "rlrun", "trian")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Did you mean 'train'?" in wrong.stderr


def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    command = f"{sys.executable} -m rlrun schema | head -1; echo ${{PIPESTATUS[0]}}"
    finished = process("bash", "-c", command)
    assert (finished.stdout, finished.stderr) == ("{\n1\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("arguments", ["configs", "configs --json", "--help", "--version"])
def test_a_report_that_cannot_be_written_is_an_error_in_one_sentence(arguments: str) -> None:
    finished = process("bash", "-c", f"{sys.executable} -m rlrun {arguments} > /dev/full")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.splitlines() == [
        "error: The report could not be written to stdout: No space left on device.",
        "       Send it somewhere else.",
    ]


@pytest.mark.parametrize("arguments", ["show x", "--help"])
def test_a_closed_stdout_is_an_error_in_one_sentence(arguments: str) -> None:
    finished = process("bash", "-c", f"{sys.executable} -m rlrun {arguments} >&-")
    assert finished.returncode == 1
    assert finished.stderr.splitlines() == [
        "error: stdout is closed, so no report can be written.",
        "       Send it to a file, or to /dev/null.",
    ]


def test_a_closed_stderr_is_no_error() -> None:
    finished = process("bash", "-c", f"{sys.executable} -m rlrun --version 2>&-")
    assert (finished.returncode, finished.stdout) == (0, f"rlrun {rlrun.__version__}\n")
    assert process("bash", "-c", f"{sys.executable} -m rlrun configs nothing-like-it 2>&-").returncode == 2


def test_check_says_in_one_line_that_all_is_well(rlrun_command: Callable[..., Any]) -> None:
    Path("c.yaml").write_text(PLAIN)
    outcome = rlrun_command("check", "c.yaml")
    assert (outcome.code, outcome.out, outcome.err) == (0, "c.yaml: ppo on CartPole-v1, no errors\n", "")
    assert os.listdir() == ["c.yaml"]


def test_a_config_with_warnings_only_is_accepted_and_the_warnings_go_to_stderr(
    rlrun_command: Callable[..., Any],
) -> None:
    Path("c.yaml").write_text(PLAIN.replace("64", "50") + "checkpoint: {every: 100}\n")
    outcome = rlrun_command("check", "c.yaml")
    assert outcome.code == 0
    assert outcome.out == "c.yaml: ppo on CartPole-v1, no errors\n"
    batch, spacing = outcome.err.splitlines()
    assert batch.startswith("warning: c.yaml:4: hyperparameters.batch_size: batch_size 64 does not divide a rollout")
    assert batch.endswith("50 does.")
    assert spacing.startswith("warning: c.yaml:5: checkpoint.every: a checkpoint every 100 timesteps")
    assert spacing.endswith("3,000 or more leaves room for three episodes in each env.")
    as_json = rlrun_command("check", "c.yaml", "--json")
    assert [f"warning: {text}" for text in json.loads(as_json.out)["warnings"]] == [batch, spacing]
    assert as_json.err == ""


def explained(out: str) -> dict[str, tuple[str, str]]:
    """``{key: (value, from)}`` of the table that ``check --explain`` prints."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if line.strip()]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def test_explain_names_the_line_the_flag_or_the_default_of_every_value(rlrun_command: Callable[..., Any]) -> None:
    Path("c.yaml").write_text(PLAIN + "normalize: true\n")
    overrides = ("hyperparameters.n_steps=32", "evaluation.seeds=[1, 2]", "env.frame_stack=null")
    outcome = rlrun_command("check", "c.yaml", "--explain", *(part for pair in overrides for part in ("--set", pair)))
    assert outcome.code == 0
    values = explained(outcome.out)
    assert values["algo"] == ("'ppo'", "c.yaml:1")
    assert values["env.n_envs"] == ("2", "c.yaml:2")
    assert values["hyperparameters.n_steps"] == ("32", "--set hyperparameters.n_steps=32")
    assert values["evaluation.seeds"] == ("[1, 2]", "--set evaluation.seeds=[1, 2]")
    assert values["env.frame_stack"] == ("null", "--set env.frame_stack=null")
    assert values["evaluation.episodes"] == ("20", "default")
    assert values["normalize.clip_obs"] == ("10.0", "c.yaml:5")
    assert values["evaluation.every"] == ("2000", "derived")
    assert values["device"] == ("'cpu'", "derived")
    assert values["hyperparameters.policy"] == ("'MlpPolicy'", "derived")


def test_check_json_is_one_document_with_every_resolved_value(rlrun_command: Callable[..., Any]) -> None:
    Path("c.yaml").write_text(PLAIN)
    outcome = rlrun_command("check", "c.yaml", "--json", "--set", "seed=7")
    document = json.loads(outcome.out)
    assert set(document) == {"config", "warnings", "notes"}
    assert document["config"]["seed"] == 7
    assert document["config"]["hyperparameters"] == {"policy": "MlpPolicy", "n_steps": 64}
    assert document["config"]["checkpoint"] == {"every": 4000, "keep": 3, "exact": True}
    assert document["warnings"] == []
    assert document["notes"][0].startswith("device cpu: ")


def test_check_without_the_env_needs_no_env_package(
    rlrun_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "panda_gym", None)
    Path("c.yaml").write_text("algo: sac\nenv: {id: PandaReach-v3}\ntotal_timesteps: 10_000\n")
    assert rlrun_command("check", "c.yaml").code == 2
    assert rlrun_command("check", "c.yaml", "--no-env").code == 0


def test_check_all_counts_the_configs_of_the_folder_and_exits_2_when_one_is_wrong(
    rlrun_command: Callable[..., Any],
) -> None:
    folder = Path("configs/CartPole-v1")
    folder.mkdir(parents=True)
    (folder / "good.yaml").write_text(PLAIN)
    right = rlrun_command("check", "--all")
    assert (right.code, right.out) == (0, "1 configs checked, 0 with errors\n")
    (folder / "wrong.yaml").write_text(PLAIN.replace("ppo", "pp0"))
    wrong = rlrun_command("check", "--all")
    assert (wrong.code, wrong.out) == (2, "2 configs checked, 1 with errors\n")
    assert "CartPole-v1/wrong:" in wrong.err
    assert 'Did you mean "ppo"?' in wrong.err


def test_check_all_counts_a_config_that_only_lacks_a_package_as_skipped(
    rlrun_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "panda_gym", None)
    folder = Path("configs/PandaReach-v3")
    folder.mkdir(parents=True)
    (folder / "ppo.yaml").write_text(PLAIN)
    (folder / "sac.yaml").write_text("algo: sac\nenv: {id: PandaReach-v3}\ntotal_timesteps: 10_000\n")
    skipped = rlrun_command("check", "--all")
    assert (skipped.code, skipped.out) == (0, "2 configs checked, 0 with errors, 1 skipped: package missing\n")
    assert skipped.err.startswith("PandaReach-v3/sac: skipped: ")
    (folder / "sac.yaml").write_text("algo: sac\nenv: {id: PandaReach-v3}\ntotal_timesteps: 10_000\nseed: -1\n")
    wrong = rlrun_command("check", "--all")
    assert (wrong.code, wrong.out) == (2, "2 configs checked, 1 with errors\n")


@pytest.mark.parametrize(("text", "number"), [("1e3", 1000), ("1_000", 1000), ("1000", 1000), ("2.0", 2), ("-5", -5)])
def test_a_whole_number_may_be_written_as_in_a_config(text: str, number: int) -> None:
    assert whole(text) == number


def test_timesteps_may_be_written_as_in_a_config(
    rlrun_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(rlrun, "train", lambda *_, **settings: given.append(settings["timesteps"]), raising=False)
    monkeypatch.setattr("rlrun.cli.training._report_training", lambda *_: None)
    assert rlrun_command("train", "CartPole-v1/ppo", "--timesteps", "1e3").code == 0
    assert rlrun_command("train", "CartPole-v1/ppo").code == 0
    assert given == [1000, None]


@pytest.mark.parametrize(
    "arguments",
    [
        ("CartPole-v1/ppo",),
        ("--config", "CartPole-v1/ppo"),
        ("-c", "CartPole-v1/ppo"),
        ("--algo", "ppo", "--env", "CartPole-v1"),
        (str(shipped_configs()["CartPole-v1/ppo"]),),
    ],
)
def test_a_shipped_config_is_found_by_any_of_its_names(
    arguments: Sequence[str], rlrun_command: Callable[..., Any]
) -> None:
    outcome = rlrun_command("check", *arguments)
    assert outcome.code == 0
    assert outcome.out == f"{shipped_configs()['CartPole-v1/ppo']}: ppo on CartPole-v1, no errors\n"


def test_configs_lists_the_shipped_ones_with_what_they_are(rlrun_command: Callable[..., Any]) -> None:
    everything = rlrun_command("configs").out
    assert [name for name in shipped_configs() if name not in everything] == []
    filtered = rlrun_command("configs", "PONG").out
    assert "ALE-Pong-v5/dqn" in filtered
    assert "DQN plays Pong from pixels" in filtered
    assert "CartPole" not in filtered
    assert json.loads(rlrun_command("configs", "cartpole-v1/p", "--json").out) == {
        "CartPole-v1/ppo": str(shipped_configs()["CartPole-v1/ppo"])
    }


def test_init_writes_a_config_once_and_never_over_another(rlrun_command: Callable[..., Any]) -> None:
    first = rlrun_command("init", "--env", "CartPole-v1", "--algo", "ppo")
    assert (first.code, first.out) == (0, "configs/CartPole-v1/ppo.yaml\n")
    written = Path("configs/CartPole-v1/ppo.yaml").read_bytes()
    second = rlrun_command("init", "--env", "CartPole-v1", "--algo", "ppo")
    assert second.code == 2
    assert "is there already." in second.err
    assert "Choose another file with --out." in second.err
    assert Path("configs/CartPole-v1/ppo.yaml").read_bytes() == written
    elsewhere = rlrun_command("init", "--env", "CartPole-v1", "--algo", "ppo", "--out", "mine/own.yaml")
    assert elsewhere.code == 0
    assert Path("mine/own.yaml").exists()


def test_a_fresh_network_is_scored_and_the_bar_decides_the_exit_code(rlrun_command: Callable[..., Any]) -> None:
    Path("c.yaml").write_text(PLAIN)
    asked = ("eval", "c.yaml", "--untrained", "--episodes", "2", "--set", "env.kwargs.sutton_barto_reward=true")
    outcome = rlrun_command(*asked, "--json", "--fail-under", "-1")
    score = json.loads(outcome.out)
    assert outcome.code == 0
    assert list(score) == [
        *("run", "checkpoint", "timesteps", "episodes", "deterministic", "seed"),
        *("mean_return", "std_return", "ci95", "mean_length", "success_rate", "cut", "returns"),
    ]
    assert (score["run"], score["checkpoint"], score["timesteps"], score["episodes"]) == ("c.yaml", "untrained", 0, 2)
    assert set(score["returns"]) <= {0.0, -1.0}
    below = rlrun_command(*asked, "--fail-under", "0.5")
    assert below.code == 1
    assert below.err.endswith("is below 0.5.\n")
    assert os.listdir() == ["c.yaml"]


def test_there_are_no_runs_in_an_empty_folder(rlrun_command: Callable[..., Any]) -> None:
    assert rlrun_command("runs").out == "There are no runs in runs.\n"
    assert json.loads(rlrun_command("runs", "--json").out) == []


def test_a_folder_without_runs_has_none_and_what_is_no_folder_is_an_error(rlrun_command: Callable[..., Any]) -> None:
    Path("empty").mkdir()
    assert rlrun_command("runs", "--run-dir", "empty").out == "There are no runs in empty.\n"
    Path("file").touch()
    for name, what in (("nope", "nope is not there"), ("file", "file is no folder")):
        outcome = rlrun_command("runs", "--run-dir", name)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(f"error: {what}, so it holds no runs.\n")
    Path("runs").touch()
    assert rlrun_command("runs").code == 2


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RlrunError("It broke.", "Mend it."), 1, ["error: It broke.", "       Mend it."]),
        (
            KeyError("lost\nkey"),
            1,
            [
                "error: KeyError: 'lost\\nkey'",
                "       This is a bug in rlrun or in a package under it; --debug shows the traceback.",
            ],
        ),
        (KeyboardInterrupt(), 130, ["Interrupted."]),
        (BrokenPipeError(), 1, []),
    ],
)
def test_what_goes_wrong_while_running_is_said_without_a_traceback(
    error: BaseException,
    code: int,
    said: list[str],
    rlrun_command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rlrun, "configs", failing(error), raising=False)
    outcome = rlrun_command("configs")
    assert (outcome.code, outcome.out, outcome.err.splitlines()) == (code, "", said)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(place: int, folder: Path) -> None:
    arguments = ["configs", "nothing-like-it"]
    arguments.insert(place, "--debug")
    with pytest.raises(RlrunError, match="nothing-like-it"):
        run(arguments)


def test_numbers_that_json_does_not_know_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"a": [float("nan"), 1.5], "b": float("inf"), "c": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": None, "c": "x"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3600, "1 h 00 min"),
        (13_800, "3 h 50 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"), [(999, "999 B"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (3e12, "3,000.0 GB")]
)
def test_sizes_in_words(number: float, words: str) -> None:
    assert size(number) == words


def test_an_interrupted_final_evaluation_names_the_command_that_makes_it(
    rlrun_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    Path("c.yaml").write_text(PLAIN)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rlrun.run.Run.evaluate", interrupted)
        outcome = rlrun_command("train", "c.yaml", "--timesteps", "128", "--name", "one")
    assert outcome.code == 130
    assert "Interrupted while the agent was evaluated; it is trained, and saved in" in outcome.err
    assert outcome.err.rstrip().endswith("runs/CartPole-v1/ppo/one")
    assert rlrun_command("resume", "one").code == 0
    assert Path("runs/CartPole-v1/ppo/one/results.json").exists()


def test_init_says_where_it_cannot_write(rlrun_command: Callable[..., Any]):
    Path("configs").touch()
    outcome = rlrun_command("init", "--env", "CartPole-v1", "--algo", "ppo")
    assert outcome.code == 2, outcome.err
    assert "while making the config's folder" in outcome.err
