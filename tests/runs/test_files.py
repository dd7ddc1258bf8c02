"""Files are written whole or not at all, and what the system refuses is said in words."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rlrun.errors import RlrunError, UsageError
from rlrun.runs.files import os_errors_in_words, rename_into_place, sha256, sync_folder, write_json, write_whole


def entries(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, with its content."""
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def fails(error: BaseException) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("content", ["text\n", "", "é\r\n", b"\x00\xff", b""])
def test_what_is_written_is_there_byte_by_byte_and_nothing_else(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(tmp_path) == ["file"]


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "old and long")
    write_whole(tmp_path / "file", "new")
    assert entries(tmp_path) == {"file": "new"}


def test_content_is_on_the_disk_before_the_name_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, order = tmp_path / "file", []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        order.append(("synced", os.fstat(descriptor).st_size, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    write_whole(path, "12345")
    assert order[0] == ("synced", 5, False)


@pytest.mark.parametrize("step", ["fsync", "replace", "rename"])
@pytest.mark.parametrize(
    ("error", "raised"), [(full_disk(), RlrunError), (KeyboardInterrupt(), KeyboardInterrupt), (KeyError(), KeyError)]
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    step: str, error: BaseException, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    with monkeypatch.context() as patch:
        if step == "fsync":
            patch.setattr(os, "fsync", fails(error))
        else:
            patch.setattr(Path, "rename", fails(error))
            patch.setattr(Path, "replace", fails(error))
        with pytest.raises(raised):
            write_whole(path, "new")
    assert entries(tmp_path) == {"file": "old"}


def test_a_full_disk_is_said_in_words_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fails(full_disk()))
    with pytest.raises(RlrunError) as raised:
        write_whole(tmp_path / "config.yaml", "algo: ppo")
    assert raised.value.message == f"The disk is full while writing {tmp_path / 'config.yaml'}."
    assert "rlrun prune" in raised.value.hint
    assert os.listdir(tmp_path) == []


def test_writing_below_a_file_or_nowhere_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RlrunError, match=r"A part of the path is a file while writing .*x"):
        write_whole(tmp_path / "file" / "x", "")
    with pytest.raises(RlrunError, match=r"No such file or directory while writing .*x"):
        write_whole(tmp_path / "nowhere" / "x", "")


def test_a_reader_sees_the_old_content_or_the_new(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", {letter * 200_000 for letter in "ab"}
    write_whole(path, "a" * 200_000)
    done = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for letter in "ba" * 10:
        write_whole(path, letter * 200_000)
    done.set()
    reader.join()
    assert seen
    assert seen <= contents


def test_writers_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    contents = [letter * 50_000 for letter in "abcdefgh"]
    writers = [threading.Thread(target=write_whole, args=(tmp_path / "file", content)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    (name,) = os.listdir(tmp_path)
    assert (tmp_path / name).read_text() in contents


def test_json_is_read_back_as_it_was(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": {"é": "\n"}, "inf": math.inf}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == value
    assert list(json.loads(text)) == ["b", "a", "inf"]
    assert text.endswith("}\n")


def test_what_json_cannot_say_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert entries(tmp_path) == {"x.json": "1\n"}


def folder_with(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_text(content)
    return path


def test_a_finished_folder_gets_its_name(tmp_path: Path) -> None:
    rename_into_place(folder_with(tmp_path / ".new.tmp", a="1"), tmp_path / "final")
    assert entries(tmp_path) == {"final/a": "1"}
    assert os.listdir(tmp_path) == ["final"]


def test_a_finished_folder_replaces_the_one_that_is_there_as_a_whole(tmp_path: Path) -> None:
    folder_with(tmp_path / "final", a="old", b="old")
    rename_into_place(folder_with(tmp_path / ".new.tmp", a="new"), tmp_path / "final")
    assert entries(tmp_path) == {"final/a": "new"}
    assert os.listdir(tmp_path) == ["final"]


def test_a_folder_that_cannot_get_its_name_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(RlrunError, match=r"while writing 64"):
        rename_into_place(tmp_path / "missing", tmp_path / "64")


def test_syncing_a_folder_never_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync_folder(tmp_path)
    sync_folder(tmp_path / "missing")
    monkeypatch.setattr(os, "fsync", fails(OSError(errno.EINVAL, "not for folders")))
    sync_folder(tmp_path)


def test_syncing_folders_keeps_no_file_open(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    free = os.open(tmp_path, os.O_RDONLY)
    os.close(free)
    sync_folder(tmp_path)
    again = os.open(tmp_path, os.O_RDONLY)
    os.close(again)
    assert again == free


@pytest.mark.parametrize("size", [0, 1, 5, (1 << 20) - 1, (1 << 21) + 3])
def test_the_digest_is_the_one_that_sha256sum_prints(size: int, tmp_path: Path) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_the_digest_is_the_same_on_a_python_without_file_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"0123456789" * 300_000
    (tmp_path / "file").write_bytes(data)
    monkeypatch.delattr(hashlib, "file_digest", raising=False)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("number", "reason", "hint"),
    [
        (errno.ENOSPC, "The disk is full", "rlrun prune"),
        (errno.EDQUOT, "The disk quota is used up", "rlrun prune"),
        (errno.EROFS, "The file system is read-only", "--run-dir"),
        (errno.EACCES, "Permission was denied", "--run-dir"),
        (errno.EPERM, "Permission was denied", "--run-dir"),
        (errno.EFBIG, "The file would be larger than this process may write", "ulimit -f"),
        (errno.ENOTDIR, "A part of the path is a file", "--run-dir"),
        (errno.EIO, os.strerror(errno.EIO), ""),
    ],
)
def test_what_the_system_refuses_is_said_in_words(number: int, reason: str, hint: str) -> None:
    cause = OSError(number, os.strerror(number), "/a/place")
    with pytest.raises(RlrunError) as raised, os_errors_in_words("saving"):
        raise cause
    assert raised.value.message == f"{reason} while saving at /a/place."
    assert hint in raised.value.hint
    assert bool(hint) == bool(raised.value.hint)
    assert raised.value.__cause__ is cause


def test_an_error_without_number_or_place_is_said_too() -> None:
    with pytest.raises(RlrunError, match=r"^strange while saving\.$"), os_errors_in_words("saving"):
        raise OSError("strange")


def test_the_kind_of_the_error_can_be_chosen_and_other_errors_pass() -> None:
    with pytest.raises(UsageError), os_errors_in_words("saving", UsageError):
        raise full_disk()
    with pytest.raises(KeyError), os_errors_in_words("saving"):
        raise KeyError
