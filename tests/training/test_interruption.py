"""Reasons to stop: signals are remembered and acted on later, a deadline passes, another process takes the run."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlrun.errors import RlrunError
from rlrun.runs.lock import RunLock, locked
from rlrun.training.interruption import StopRequested, Stops, TrainingEnded

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[RunLock]:
    with locked(tmp_path) as held:
        yield held


@pytest.fixture(autouse=True)
def _handlers_as_they_were() -> Iterator[None]:
    """A failing test must not leave the suite deaf to Ctrl-C."""
    before = {number: signal.getsignal(number) for number in BOTH}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stops(lock: RunLock, max_time: float | None = None, began: float | None = None) -> Stops:
    return Stops(max_time, time.monotonic() if began is None else began, lock)


def steal(lock: RunLock) -> None:
    """What another process with ``--steal`` does, and the heartbeat that notices it."""
    held = json.loads(lock.path.read_text())
    lock.path.write_text(json.dumps({**held, "host": "elsewhere", "pid": 7, "token": "another"}))
    lock.check()


def test_without_a_reason_nothing_is_raised(lock: RunLock) -> None:
    with stops(lock, max_time=1000).handled() as listening:
        listening.check()
    assert listening.received is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_remembered_and_acted_on_at_the_next_check(lock: RunLock, number: int, code: int) -> None:
    went_on = False
    with stops(lock).handled() as listening:
        signal.raise_signal(number)
        went_on = True
        with pytest.raises(StopRequested) as raised:
            listening.check()
    assert went_on
    assert raised.value.reason == "interrupted"
    assert (listening.received, listening.exit_code) == (number, code)


def test_a_signal_is_a_reason_to_stop_at_every_later_check(lock: RunLock) -> None:
    with stops(lock).handled() as listening:
        signal.raise_signal(signal.SIGTERM)
        for _ in range(2):
            with pytest.raises(StopRequested):
                listening.check()
    with pytest.raises(StopRequested):
        listening.check()


def test_a_second_ctrl_c_ends_everything_at_once(lock: RunLock) -> None:
    with stops(lock).handled():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_waits_as_the_first_did(lock: RunLock) -> None:
    with stops(lock).handled() as listening:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert listening.exit_code == 143


def test_the_earlier_handlers_are_back_afterwards_even_after_an_error(lock: RunLock) -> None:
    seen: list[int] = []
    for number in BOTH:
        signal.signal(number, lambda number, _: seen.append(number))
    listening = stops(lock)
    with contextlib.suppress(KeyError), listening.handled():
        raise KeyError
    for number in BOTH:
        signal.raise_signal(number)
    assert seen == list(BOTH)
    assert listening.received is None


def test_elsewhere_than_in_the_main_thread_the_handlers_stay_and_checks_work(lock: RunLock) -> None:
    before = [signal.getsignal(number) for number in BOTH]
    found = []

    def listen() -> None:
        with stops(lock, max_time=0, began=time.monotonic() - 1).handled() as listening:
            found.append([signal.getsignal(number) for number in BOTH])
            try:
                listening.check()
            except StopRequested as stop:
                found.append([stop.reason])

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [before, ["max_time"]]


def test_the_time_is_counted_from_where_the_run_began(lock: RunLock) -> None:
    now = time.monotonic()
    stops(lock, max_time=60, began=now).check()
    stops(lock, max_time=None, began=now - 1e9).check()
    with pytest.raises(StopRequested) as raised:
        stops(lock, max_time=60, began=now - 61).check()
    assert raised.value.reason == "max_time"


def test_a_deadline_passes_while_training(lock: RunLock) -> None:
    listening = stops(lock, max_time=0.05)
    listening.check()
    time.sleep(0.06)
    with pytest.raises(StopRequested, match="max_time"):
        listening.check()


def test_a_signal_goes_before_a_deadline(lock: RunLock) -> None:
    with stops(lock, max_time=0, began=time.monotonic() - 1).handled() as listening:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(StopRequested, match="interrupted"):
            listening.check()


def test_a_run_that_was_taken_over_ends_with_who_took_it(lock: RunLock) -> None:
    listening = stops(lock)
    listening.check_lock()
    steal(lock)
    for check in (listening.check, listening.check_lock):
        with pytest.raises(RlrunError, match=r"The run was taken over by process 7 on elsewhere\."):
            check()


def test_the_ends_of_training_pass_through_code_that_catches_every_exception() -> None:
    for end in (StopRequested("interrupted"), TrainingEnded()):
        assert not isinstance(end, Exception)
