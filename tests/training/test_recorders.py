"""The CSV files of a run: rows are appended, cut back to a checkpoint on resume, and columns may come later."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.logger import Logger

from rlrun.errors import RlrunError
from rlrun.evaluation.statistics import Evaluation
from rlrun.training.recorders import CsvFile, MetricsWriter, RunFiles, pending_values, set_pending_values


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.csv"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def written(path: Path, *steps: int, columns: tuple[str, ...] = ("a",)) -> None:
    file = CsvFile(path, columns)
    for step in steps:
        file.add(step, dict.fromkeys(columns, step * 10))
    file.close()


def steps_kept(path: Path, keep_until: int) -> list[str]:
    CsvFile(path, ("a",), keep_until).close()
    return [row["timesteps"] for row in rows(path)]


def test_a_new_file_has_its_header_at_once(path: Path) -> None:
    file = CsvFile(path, ("a", "b"))
    assert path.read_text() == "timesteps,a,b\n"
    file.close()


def test_rows_come_in_order_and_what_is_not_given_is_empty(path: Path) -> None:
    file = CsvFile(path, ("a", "b"))
    file.add(64, {"b": 2.5, "a": 1})
    file.add(128, {"b": "word"})
    file.close()
    assert path.read_text() == "timesteps,a,b\n64,1,2.5\n128,,word\n"


def test_numpys_numbers_are_written_as_plain_ones(path: Path) -> None:
    file = CsvFile(path, ("a", "b", "c"))
    file.add(1, {"a": np.float64(0.1), "b": np.int64(3), "c": np.bool_(True)})
    file.close()
    assert path.read_text().splitlines()[1] == "1,0.1,3,True"


@pytest.mark.parametrize("value", [0.1, 1e-300, 1 / 3, 1e22, -0.0, float("inf")])
def test_a_number_is_read_back_as_it_was(value: float, path: Path) -> None:
    file = CsvFile(path, ("a",))
    file.add(1, {"a": value})
    file.close()
    assert float(rows(path)[0]["a"]) == value


@pytest.mark.parametrize("text", ["a,b", 'say "x"', "two\nlines", "é", " "])
def test_text_of_any_kind_is_read_back_as_it_was(text: str, path: Path) -> None:
    file = CsvFile(path, ("a",))
    file.add(1, {"a": text})
    file.add(2, {"new, column": text})
    file.close()
    CsvFile(path, (), keep_until=1).close()
    assert rows(path) == [{"timesteps": "1", "a": text, "new, column": ""}]


def test_a_new_column_is_added_to_the_whole_file(path: Path) -> None:
    file = CsvFile(path, ("a",))
    file.add(1, {"a": 10})
    file.add(2, {"a": 20, "b": 21, "c": 22})
    file.add(3, {"d": 33, "a": 30})
    file.add(4, {"b": 41})
    file.close()
    assert path.read_text().splitlines() == ["timesteps,a,b,c,d", "1,10,,,", "2,20,21,22,", "3,30,,,33", "4,,41,,"]


def test_flushed_rows_can_be_read_while_the_file_is_open(path: Path) -> None:
    file = CsvFile(path, ("a",))
    for to_disk in (False, True):
        file.add(1, {"a": 1})
        file.flush(to_disk)
        assert path.read_text().endswith("1,1\n")
    assert len(rows(path)) == 2
    file.close()


def test_rows_after_the_checkpoint_are_dropped_and_rows_at_it_stay(path: Path) -> None:
    written(path, 0, 64, 128, 128, 129, 256)
    assert steps_kept(path, 128) == ["0", "64", "128", "128"]


def test_nothing_is_dropped_when_the_checkpoint_is_the_last_row(path: Path) -> None:
    written(path, 64, 128)
    before = path.read_bytes()
    CsvFile(path, ("a",), 128).close()
    assert path.read_bytes() == before


def test_cutting_back_to_the_beginning_leaves_the_header(path: Path) -> None:
    written(path, 64, 128)
    CsvFile(path, ("a",), 0).close()
    assert path.read_text() == "timesteps,a\n"


def test_rows_are_compared_as_numbers_and_not_as_text(path: Path) -> None:
    written(path, 9, 10, 100, 1000)
    assert steps_kept(path, 100) == ["9", "10", "100"]


@pytest.mark.parametrize(
    "torn",
    ["12", "128,1", "128,1,", "128,1,2,3,4", ",1,2,", "-5,1,2,", "x,1,2,", "1.5,1,2,", '64,"', "\n", "\0\0\0\0\n"],
)
def test_torn_rows_are_dropped_and_the_next_row_is_whole(torn: str, path: Path) -> None:
    written(path, 64, columns=("a", "b", "c"))
    with path.open("a", newline="") as stream:
        stream.write(torn)
    file = CsvFile(path, ("a", "b", "c"), keep_until=100)
    file.add(128, {"a": 1, "b": 2, "c": 3})
    file.close()
    assert path.read_text() == "timesteps,a,b,c\n64,640,640,640\n128,1,2,3\n"


def test_columns_that_came_later_are_known_after_cutting_back(path: Path) -> None:
    written(path, 64, columns=("a", "later"))
    file = CsvFile(path, ("a",), keep_until=64)
    file.add(128, {"later": 2, "a": 1})
    file.close()
    assert path.read_text().splitlines() == ["timesteps,a,later", "64,640,640", "128,1,2"]


@pytest.mark.parametrize("content", ["", "\n", "time,a\n64,1\n", "\0\0\0\0", "timeste"])
def test_a_file_without_its_header_begins_anew(content: str, path: Path) -> None:
    path.write_text(content)
    file = CsvFile(path, ("a",), keep_until=64)
    file.add(128, {"a": 1})
    file.close()
    assert path.read_text() == "timesteps,a\n128,1\n"


def test_a_file_that_is_missing_on_resume_begins_anew(path: Path) -> None:
    CsvFile(path, ("a",), keep_until=64).close()
    assert path.read_text() == "timesteps,a\n"


def test_cutting_back_and_widening_leave_nothing_beside_the_file(path: Path) -> None:
    written(path, 64, 128)
    file = CsvFile(path, ("a",), keep_until=64)
    file.add(128, {"b": 1})
    file.close()
    assert os.listdir(path.parent) == ["x.csv"]


def test_a_resumed_file_equals_one_left_alone(tmp_path: Path) -> None:
    def write(path: Path, steps: range, keep_until: int | None) -> None:
        file = CsvFile(path, ("a",), keep_until)
        for step in steps:
            file.add(step, {"a": step / 3} if step < 6 else {"a": step / 3, "late": step})
        file.close()

    write(tmp_path / "alone.csv", range(10), None)
    write(tmp_path / "killed.csv", range(8), None)
    write(tmp_path / "killed.csv", range(5, 10), 4)
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_a_full_disk_is_said_in_words(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = CsvFile(path, ("a",))
    file.add(1, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RlrunError, match=r"The disk is full while writing x\.csv\."):
            file.flush(to_disk=True)
    file.close()
    assert len(rows(path)) == 1


def test_a_disk_that_is_full_while_widening_leaves_the_rows_as_they_were(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = CsvFile(path, ("a",))
    file.add(1, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RlrunError, match=r"The disk is full"):
            file.add(2, {"b": 2})
    file.close()
    assert path.read_text() == "timesteps,a\n1,1\n"
    assert os.listdir(path.parent) == ["x.csv"]


def evaluation(successes: tuple[bool, ...] | None) -> Evaluation:
    return Evaluation((1.5, -2.0), (10, 20), successes, (111, 222), True)


def test_a_run_has_three_files_with_their_columns(tmp_path: Path) -> None:
    RunFiles(tmp_path).close()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "metrics.csv": "timesteps\n",
        "evaluations.csv": "timesteps,episode,seed,return,length,success\n",
        "episodes.csv": "timesteps,env,return,length,success\n",
    }


@pytest.mark.parametrize(("successes", "shown"), [(None, ["", ""]), ((True, False), ["1", "0"])])
def test_an_evaluation_is_one_row_an_episode_and_readable_at_once(
    successes: tuple[bool, ...] | None, shown: list[str], tmp_path: Path
) -> None:
    files = RunFiles(tmp_path)
    files.add_evaluation(64, evaluation(successes))
    found = rows(tmp_path / "evaluations.csv")
    files.close()
    assert [list(row.values()) for row in found] == [
        ["64", "0", "111", "1.5", "10", shown[0]],
        ["64", "1", "222", "-2.0", "20", shown[1]],
    ]


def test_all_three_files_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    for step in (64, 128, 192):
        files.metrics.add(step, {"loss": 1})
        files.add_evaluation(step, evaluation(None))
        files.episodes.add(step, {"env": 0, "return": 1, "length": 1, "success": ""})
    files.close()
    RunFiles(tmp_path, keep_until=128).close()
    kept = {p.name: {row["timesteps"] for row in rows(p)} for p in tmp_path.iterdir()}
    assert sorted(kept) == ["episodes.csv", "evaluations.csv", "metrics.csv"]
    assert all(steps == {"64", "128"} for steps in kept.values())


def test_flushing_puts_all_three_files_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, synced = RunFiles(tmp_path), []
    fsync = os.fsync
    for file in (files.metrics, files.evaluations, files.episodes):
        file.add(64, {})

    def noting(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    files.flush()
    assert sorted(synced) == sorted(p.stat().st_ino for p in tmp_path.iterdir())
    assert [len(rows(p)) for p in tmp_path.iterdir()] == [1, 1, 1]
    files.close()


def logger_into(path: Path) -> tuple[Logger, CsvFile]:
    file = CsvFile(path)
    return Logger(None, [MetricsWriter(file)]), file


def test_what_sb3_logs_is_a_row_that_can_be_read_at_once(path: Path) -> None:
    logger, file = logger_into(path)
    logger.record("train/loss", 0.5)
    logger.record("rollout/ep_rew_mean", np.float32(0.25))
    logger.record("time/total_timesteps", 64)
    logger.record("note", "word")
    logger.dump(64)
    assert rows(path) == [{"timesteps": "64", "train/loss": "0.5", "rollout/ep_rew_mean": "0.25", "note": "word"}]
    file.close()


def test_what_is_no_number_stays_out_of_the_metrics(path: Path) -> None:
    logger, file = logger_into(path)
    logger.record("picture", np.zeros((2, 2)), exclude="stdout")
    logger.record("list", [1, 2])
    logger.record("loss", 1)
    logger.dump(64)
    file.close()
    assert rows(path) == [{"timesteps": "64", "loss": "1"}]


def test_closing_the_logger_leaves_the_file_open_for_the_run(path: Path) -> None:
    logger, file = logger_into(path)
    logger.record("a", 1)
    logger.dump(1)
    logger.close()
    file.add(2, {"a": 2})
    file.close()
    assert [row["a"] for row in rows(path)] == ["1", "2"]


def test_what_was_logged_before_a_checkpoint_is_in_the_next_row_after_it(tmp_path: Path) -> None:
    def log(logger: Logger, values: list[float]) -> None:
        for value in values:
            logger.record_mean("mean", value)

    alone, file = logger_into(tmp_path / "alone.csv")
    log(alone, [1.0, 2.0, 6.0])
    alone.record("last", 3)
    alone.dump(64)
    file.close()
    before, unused = logger_into(tmp_path / "before.csv")
    unused.close()
    log(before, [1.0, 2.0])
    before.record("last", 3)
    after, file = logger_into(tmp_path / "after.csv")
    set_pending_values(after, pending_values(before))
    log(after, [6.0])
    after.dump(64)
    file.close()
    (row,), (expected,) = rows(tmp_path / "after.csv"), rows(tmp_path / "alone.csv")
    assert {name: float(value) for name, value in row.items()} == {n: float(v) for n, v in expected.items()}
    assert float(row["mean"]) == 3.0


def test_pending_values_are_plain_and_leave_out_what_is_no_number() -> None:
    logger = Logger(None, [])
    logger.record_mean("mean", np.float32(0.5))
    logger.record("last", np.int64(3))
    logger.record("word", "x")
    logger.record("picture", np.zeros(2))
    found = pending_values(logger)
    assert {name: values[:2] for name, values in found.items()} == {"mean": [0.5, 1], "last": [3.0, 0]}
    assert json.loads(json.dumps(found)).keys() == found.keys()
    assert isinstance(found["last"][0], int)  # "3" in a row, and not "3.0"
    assert pending_values(Logger(None, [])) == {}
