"""One process trains a run; who it is, whether it lives, and how the run is taken from it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlrun.errors import RlrunError, UsageError
from rlrun.runs import lock as module
from rlrun.runs.lock import FILE, STALE_AFTER, Holder, RunLock, holder_of, locked


def write(folder: Path, age: float = 0.0, **changes: Any) -> None:
    """The lock of another process."""
    values = {"host": "elsewhere", "pid": 1, "started": 1.0, "token": "theirs", **changes}
    (folder / FILE).write_text(json.dumps(values))
    touched = time.time() - age
    os.utime(folder / FILE, (touched, touched))


def here(**changes: Any) -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time(), **changes}


def test_a_run_is_held_and_then_free_again(tmp_path: Path):
    with locked(tmp_path) as lock:
        assert holder_of(tmp_path) == lock.me
    assert holder_of(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_refused_with_the_host_and_number_of_the_first(tmp_path: Path):
    write(tmp_path, **here())
    with pytest.raises(UsageError) as caught, locked(tmp_path):
        pass
    assert f"process {os.getpid()} on {socket.gethostname()}" in caught.value.message
    assert "--steal" in caught.value.hint
    assert json.loads((tmp_path / FILE).read_text())["token"] == "theirs"


@pytest.mark.parametrize(
    "changes",
    [{"started": 1.0}, {"pid": 2**22 + 1}],
    ids=["a later process with the same number", "no such process"],
)
def test_a_dead_process_of_this_machine_holds_nothing(changes: dict[str, Any], tmp_path: Path):
    write(tmp_path, **here(**changes))
    assert holder_of(tmp_path) is None
    with locked(tmp_path) as lock:
        assert holder_of(tmp_path) == lock.me


def test_a_process_number_says_nothing_in_another_container(tmp_path: Path):
    """Containers on one host may share its name, and each has a process 1."""
    write(tmp_path, **here(pid=2**22 + 1, namespace="pid:[1]"))
    assert holder_of(tmp_path) is not None
    write(tmp_path, age=400, **here(namespace="pid:[1]"))
    assert holder_of(tmp_path) is None


def test_a_holder_on_another_machine_goes_stale_after_five_minutes(tmp_path: Path):
    assert STALE_AFTER == 300
    write(tmp_path, age=240)
    with pytest.raises(UsageError, match="on elsewhere"), locked(tmp_path):
        pass
    write(tmp_path, age=301)
    with locked(tmp_path) as lock:
        assert holder_of(tmp_path) == lock.me


def test_a_stolen_run_is_noticed_and_left_to_the_thief(tmp_path: Path):
    with locked(tmp_path) as first:
        first.require()
        with locked(tmp_path, steal=True) as thief:
            first.check()
            with pytest.raises(RlrunError, match="taken over by process"):
                first.require()
            first.release()
            assert holder_of(tmp_path) == thief.me


def test_the_heartbeat_keeps_the_file_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_HEARTBEAT", 0.05)
    with locked(tmp_path):
        os.utime(tmp_path / FILE, (1, 1))
        deadline = time.monotonic() + 20
        while (tmp_path / FILE).stat().st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_torn_lock_file_is_nobodys_after_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_TORN", 0.2)
    (tmp_path / FILE).write_text('{"host": "elsew')
    with locked(tmp_path) as lock:
        assert holder_of(tmp_path) == lock.me


def test_a_lock_taken_by_a_third_process_meanwhile_is_put_back(tmp_path: Path):
    write(tmp_path)
    lock = RunLock(tmp_path)
    lock._put_aside(Holder("elsewhere", 1, 1.0, "an older one"))
    assert json.loads((tmp_path / FILE).read_text())["token"] == "theirs"


RACER = """
import sys, time
from pathlib import Path
from rlrun.errors import UsageError
from rlrun.runs.lock import locked
try:
    with locked(Path(sys.argv[1])):
        time.sleep(2)
        print("held")
except UsageError:
    print("refused")
"""


def test_of_processes_that_come_at_once_one_holds_the_run(tmp_path: Path):
    write(tmp_path, **here(pid=2**22 + 1))
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = sorted(racer.communicate(timeout=60)[0].strip() for racer in racers)
    assert said == ["held", "refused", "refused", "refused"]
