"""The run directory: claimed by one process only, whole or not there, and found again by what people type."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rlrun.config.loading import read_source, validate
from rlrun.config.schema import Config
from rlrun.errors import ConfigError, RlrunError, UsageError
from rlrun.runs.directory import RunDirectory, checked_name, delete_run, find_run, iterate_runs, run_folder


def config(env_id: str = "CartPole-v1", algo: str = "ppo", **more: Any) -> Config:
    found, problems = validate(read_source({"algo": algo, "env": {"id": env_id}, "total_timesteps": 100, **more}))
    assert found is not None, problems
    return found


def with_checkpoints(root: Path, *steps: int, **pointers: int) -> RunDirectory:
    run = RunDirectory.create(root, config())
    for step in steps:
        run.checkpoint_path(step).mkdir()
    for name, step in pointers.items():
        run.point(name, step)
    return run


def names(folder: Path) -> list[str]:
    """Everything below a folder, hidden things too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_a_new_run_lies_below_its_env_and_algorithm_with_config_and_manifest(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, config(seed=7), manifest={"status": "running", "created_unix": 5.0})
    assert re.fullmatch(r"\d{8}-\d{6}-s7", run.name)
    assert run.path == (tmp_path / "CartPole-v1" / "ppo" / run.name).resolve()
    assert names(run.path) == ["checkpoints", "config.yaml", "manifest.json"]
    assert run.config() == config(seed=7)
    assert run.manifest() == {"schema_version": 1, "status": "running", "created_unix": 5.0}
    assert names(tmp_path / "CartPole-v1" / "ppo") == [run.name, *(f"{run.name}/{name}" for name in names(run.path))]


@pytest.mark.parametrize(
    ("env_id", "folder"),
    [("ALE/Pong-v5", "ALE-Pong-v5"), ("my_envs:Maze", "my_envs-Maze"), ("../../evil-v0", "..-..-evil-v0")],
)
def test_an_env_id_of_any_form_is_one_folder(env_id: str, folder: str, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, config(env_id))
    assert run.path.parent.parent == tmp_path.resolve() / folder
    assert run.path.parent == run_folder(tmp_path, config(env_id)).resolve()


def test_a_run_has_the_same_path_from_wherever_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory.create(Path("runs"), config(), "mine")
    assert run.path.is_absolute()
    assert RunDirectory.open(Path("runs/CartPole-v1/ppo/mine")) == run
    assert find_run("mine", Path("runs")) == run


def test_runs_that_begin_in_the_same_second_get_directories_of_their_own(tmp_path: Path) -> None:
    made: list[RunDirectory] = []
    start = threading.Barrier(12)

    def create(number: int) -> None:
        start.wait()
        made.append(RunDirectory.create(tmp_path, config(), manifest={"number": number}))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.path for run in made}) == 12
    assert {run.manifest()["number"] for run in made} == set(range(12))
    assert all(re.fullmatch(r"\d{8}-\d{6}-s0(-\d+)?", run.name) for run in made)
    assert any(re.search(r"-s0-\d+$", run.name) for run in made)
    assert sorted(os.listdir(tmp_path / "CartPole-v1" / "ppo")) == sorted(run.name for run in made)


def test_only_one_of_several_gets_a_name(tmp_path: Path) -> None:
    outcomes: list[object] = []
    start = threading.Barrier(8)

    def create(number: int) -> None:
        start.wait()
        try:
            outcomes.append(RunDirectory.create(tmp_path, config(), "mine", {"number": number}))
        except UsageError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(refused) == 7
    assert all("is there already. Choose another --name; `rlrun resume` goes on with it." in text for text in refused)
    assert os.listdir(tmp_path / "CartPole-v1" / "ppo") == ["mine"]


def test_a_run_of_a_name_that_is_taken_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, config(seed=1), "mine")
    with pytest.raises(UsageError, match="is there already"):
        RunDirectory.create(tmp_path, config(seed=2), "mine")
    assert run.config().seed == 1
    assert os.listdir(run.path.parent) == ["mine"]


def test_a_file_of_the_name_is_in_the_way_too(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, config())
    folder.mkdir(parents=True)
    (folder / "mine").write_text("precious")
    with pytest.raises(UsageError, match="is there already"):
        RunDirectory.create(tmp_path, config(), "mine")
    assert (folder / "mine").read_text() == "precious"
    assert os.listdir(folder) == ["mine"]


def test_the_same_name_is_free_for_another_env_or_algorithm(tmp_path: Path) -> None:
    made = [RunDirectory.create(tmp_path, c, "mine") for c in (config(), config(algo="a2c"), config("Acrobot-v1"))]
    assert len({run.path for run in made}) == 3


@pytest.mark.parametrize("name", ["mine", "lr_1e-4", "_", "a.b", "007", "A" * 100])
def test_what_can_be_typed_everywhere_can_be_a_name(name: str, tmp_path: Path) -> None:
    assert checked_name(name) == name
    run = RunDirectory.create(tmp_path, config(), name)
    assert run.name == name
    assert find_run(name, tmp_path) == run


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", ".hidden", "-rf", "a/b", "../x", "a b", "a\n", "é", "a:b", "a\\b", "*"),
        *("best", "final", "latest"),
    ],
)
def test_what_cannot_be_typed_everywhere_is_refused_and_nothing_is_made(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be the name of a run\. Use letters, digits") as raised:
        RunDirectory.create(tmp_path, config(), name)
    assert raised.value.message.startswith(f'"{name}" cannot')
    assert names(tmp_path) == []


@pytest.mark.parametrize(("error", "raised"), [(errno.ENOSPC, RlrunError), (None, KeyboardInterrupt)])
def test_a_run_that_cannot_be_furnished_is_not_there_at_all(
    error: int | None, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    fsync = os.fsync

    def fail_later(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 1:
            raise KeyboardInterrupt if error is None else OSError(error, os.strerror(error))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_later)
    with pytest.raises(raised):
        RunDirectory.create(tmp_path, config(), "mine")
    assert [name for name in names(tmp_path) if name not in ("CartPole-v1", "CartPole-v1/ppo")] == []
    assert list(iterate_runs(tmp_path)) == []


def test_a_place_where_no_run_can_be_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"A part of the path is a file while making the run directory at"):
        RunDirectory.create(tmp_path / "file", config())


def test_a_folder_without_a_config_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a run directory: it has no config\.yaml"):
        RunDirectory.open(tmp_path)
    with pytest.raises(UsageError, match="is not a run directory"):
        RunDirectory.open(tmp_path / "missing")


def test_a_damaged_config_is_a_config_error_that_names_the_file(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, config())
    (run.path / "config.yaml").write_text("algo: ppo\nenv: {id: CartPole-v1}\ntotal_timesteps: many\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:3: total_timesteps: "):
        run.config()


@pytest.mark.parametrize("content", [None, b"", b'{"status": "runn', b"[1, 2]", b"\xff\xfe\x00", b"null"])
def test_a_manifest_that_is_torn_or_missing_is_empty_and_can_be_written_again(
    content: bytes | None, tmp_path: Path
) -> None:
    run = RunDirectory.create(tmp_path, config())
    path = run.path / "manifest.json"
    path.unlink() if content is None else path.write_bytes(content)
    assert run.manifest() == {}
    run.update_manifest({"status": "paused"})
    assert run.manifest() == {"schema_version": 1, "status": "paused"}


def test_updating_the_manifest_keeps_what_is_not_changed(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, config(), manifest={"status": "running", "host": {"name": "é"}})
    run.update_manifest({"status": "finished", "timesteps": 100})
    assert json.loads((run.path / "manifest.json").read_text()) == {
        "schema_version": 1,
        "status": "finished",
        "host": {"name": "é"},
        "timesteps": 100,
    }
    assert names(run.path) == ["checkpoints", "config.yaml", "manifest.json"]


def test_checkpoints_are_listed_by_number_and_unfinished_ones_are_none(tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path, 1000, 200, 64)
    for other in (".300.abc.tmp", "notes", "-5", "1e3"):
        (run.path / "checkpoints" / other).mkdir()
    assert run.checkpoint_steps() == [64, 200, 1000]
    (run.path / "checkpoints").rename(run.path / "gone")
    assert run.checkpoint_steps() == []


@pytest.mark.parametrize(
    ("content", "state"), [(b'{"timesteps": 64}', {"timesteps": 64}), (None, {}), (b'{"timest', {}), (b"[]", {})]
)
def test_a_checkpoint_says_of_itself_what_can_be_read(
    content: bytes | None, state: dict[str, Any], tmp_path: Path
) -> None:
    run = with_checkpoints(tmp_path, 64)
    if content is not None:
        (run.checkpoint_path(64) / "state.json").write_bytes(content)
    assert run.checkpoint_state(64) == state
    assert run.checkpoint_state(128) == {}


def test_a_pointer_names_a_checkpoint_until_it_names_another(tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path, 64, 128)
    assert run.pointer("best") is None
    run.point("best", 64)
    assert run.pointer("best") == 64
    run.point("best", 128)
    assert run.pointer("best") == 128
    assert run.path / (run.path / "best").read_text().strip() == run.checkpoint_path(128)
    assert run.pointer("final") is None


@pytest.mark.parametrize("content", ["", "\n", "checkpoints/", "checkpoints/x", "64 128", "checkpoints/-1"])
def test_a_torn_pointer_is_none(content: str, tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path, 64)
    (run.path / "best").write_text(content)
    assert run.pointer("best") is None
    assert run.choose_checkpoint() == ("64", 64)


@pytest.mark.parametrize(
    ("pointers", "expected"),
    [
        ({"best": 64, "final": 128, "latest": 256}, ("best", 64)),
        ({"final": 128, "latest": 256}, ("final", 128)),
        ({"latest": 128}, ("latest", 128)),
        ({}, ("256", 256)),
        ({"best": 999, "final": 128}, ("final", 128)),
        ({"best": 999, "final": 999, "latest": 999}, ("256", 256)),
    ],
)
def test_unless_one_is_named_the_best_checkpoint_there_is_is_taken(
    pointers: dict[str, int], expected: tuple[str, int], tmp_path: Path
) -> None:
    assert with_checkpoints(tmp_path, 64, 128, 256, **pointers).choose_checkpoint() == expected


@pytest.mark.parametrize(
    ("which", "expected"),
    [("best", 64), ("final", 128), ("latest", 256), ("64", 64), ("128", 128), ("1_000_000", 1_000_000), ("0064", 64)],
)
def test_a_checkpoint_is_named_by_its_pointer_or_number(which: str, expected: int, tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path, 64, 128, 256, 1_000_000, best=64, final=128, latest=256)
    assert run.choose_checkpoint(which) == (which, expected)


@pytest.mark.parametrize("pointers", [{}, {"latest": 999}])
def test_latest_is_the_newest_one_there_is(pointers: dict[str, int], tmp_path: Path) -> None:
    assert with_checkpoints(tmp_path, 64, 128, **pointers).choose_checkpoint("latest") == ("latest", 128)


@pytest.mark.parametrize(
    ("which", "hint"),
    [
        ("final", ""),
        ("bset", 'Did you mean "best"?'),
        ("100", "There are: best, 64, 128."),
        ("-64", "There are: best, 64, 128."),
        ("64.0", "There are: best, 64, 128."),
        ("", "There are: best, 64, 128."),
    ],
)
def test_a_checkpoint_that_is_not_there_is_answered_with_those_that_are(which: str, hint: str, tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path, 64, 128, best=64)
    with pytest.raises(UsageError) as raised:
        run.choose_checkpoint(which)
    assert raised.value.message == f'The run {run.name} has no checkpoint "{which}".'
    assert raised.value.hint.startswith(hint)


def test_a_pointer_to_a_checkpoint_that_was_removed_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='has no checkpoint "best"'):
        with_checkpoints(tmp_path, 64, best=32).choose_checkpoint("best")


@pytest.mark.parametrize("which", [None, "best", "64"])
def test_a_run_without_checkpoints_says_so(which: str | None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no checkpoint yet\. Let it train longer"):
        with_checkpoints(tmp_path, best=64).choose_checkpoint(which)


def test_the_size_counts_a_file_with_several_names_once(tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path, 64, 128)
    before = run.size()
    (run.checkpoint_path(64) / "rows").write_bytes(bytes(5000))
    assert run.size() == before + 5000
    os.link(run.checkpoint_path(64) / "rows", run.checkpoint_path(128) / "rows")
    assert run.size() == before + 5000


def some_runs(root: Path) -> dict[str, RunDirectory]:
    made = {
        "first": RunDirectory.create(root, config(), "first", {"created_unix": 300}),
        "second": RunDirectory.create(root, config(), "second", {"created_unix": 100}),
        "first-again": RunDirectory.create(root, config(algo="a2c"), "first-again", {"created_unix": 200}),
    }
    (root / "CartPole-v1" / "ppo" / ".half.tmp").mkdir()
    (root / "CartPole-v1" / "ppo" / ".half.tmp" / "config.yaml").write_text("")
    (root / "CartPole-v1" / "ppo" / "no-run").mkdir()
    (root / "notes.txt").write_text("")
    return made


def test_every_run_is_listed_and_nothing_else(tmp_path: Path) -> None:
    made = some_runs(tmp_path)
    assert list(iterate_runs(tmp_path)) == [made["first-again"], made["first"], made["second"]]
    assert list(iterate_runs(tmp_path / "missing")) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("first", "first"),
        ("ppo/first", "first"),
        ("CartPole-v1/ppo/second", "second"),
        ("seco", "second"),
        ("a2c", "first-again"),
        ("again", "first-again"),
        ("latest", "first"),
    ],
)
def test_a_run_is_found_by_its_name_or_a_part_of_it(text: str, name: str, tmp_path: Path) -> None:
    made = some_runs(tmp_path)
    assert find_run(text, tmp_path) == made[name]


def test_a_run_is_found_by_its_folder_or_config_wherever_it_is(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "there", config(), "mine")
    for text in (str(run.path), f"{run.path}/", str(run.path / "config.yaml")):
        assert find_run(text, tmp_path / "elsewhere") == run


def test_the_latest_run_without_a_manifest_is_dated_by_its_config(tmp_path: Path) -> None:
    made = some_runs(tmp_path)
    (made["second"].path / "manifest.json").unlink()
    assert find_run("latest", tmp_path) == made["second"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("third", r'There is no run "third" in .*\. `rlrun runs` lists them; --run-dir says where to look\.'),
        ("irst/", 'There is no run "irst/"'),
        ("fir", '"fir" fits 2 runs: CartPole-v1/a2c/first-again, CartPole-v1/ppo/first. Write more of it.'),
        ("CartPole", '"CartPole" fits 3 runs'),
        (".half", 'There is no run ".half"'),
    ],
)
def test_none_or_several_runs_are_a_usage_error(text: str, message: str, tmp_path: Path) -> None:
    some_runs(tmp_path)
    with pytest.raises(UsageError, match=message):
        find_run(text, tmp_path)


def test_of_many_runs_that_fit_five_are_named(tmp_path: Path) -> None:
    for number in range(7):
        RunDirectory.create(tmp_path, config(), f"job{number}")
    with pytest.raises(UsageError, match=r'"job" fits 7 runs: (\S+job\d, ){4}\S+job\d and 2 more\. Write more'):
        find_run("job", tmp_path)


def test_a_groups_name_is_not_taken_for_a_runs(tmp_path: Path) -> None:
    for seed in range(2):
        run = RunDirectory.create(tmp_path, config(), f"s{seed}", group="many")
        (run.path.parent / "group.json").touch()
    with pytest.raises(UsageError, match=r'"many" is a group of runs\. Name one of them, such as \S+many/s\d'):
        find_run("many", tmp_path)


def test_without_any_run_latest_says_how_to_train_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There are no runs in .*\. Train one: rlrun train"):
        find_run("latest", tmp_path)


def test_deleting_a_run_removes_it_and_the_empty_folders_above_but_not_the_root(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    one, other = (RunDirectory.create(root, config(), name) for name in ("one", "other"))
    third = RunDirectory.create(root, config(algo="a2c"), "third")
    delete_run(one)
    assert list(iterate_runs(root)) == [third, other]
    delete_run(other)
    assert os.listdir(root / "CartPole-v1") == ["a2c"]
    delete_run(third)
    assert os.listdir(root) == []


def test_deleting_what_is_gone_is_said_in_words(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, config(), "mine")
    delete_run(run)
    with pytest.raises(RlrunError, match="while removing"):
        delete_run(run)


def test_runs_can_be_created_while_others_are_deleted(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(15):
                delete_run(RunDirectory.create(tmp_path, config(), f"{name}{number}"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(iterate_runs(tmp_path)) == []


def test_runs_are_read_without_torch() -> None:
    code = "import sys; import rlrun.runs.directory; print(sorted({'torch', 'gymnasium'} & set(sys.modules)))"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert listed.stdout == "[]\n"
