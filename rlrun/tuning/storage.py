"""The study on disk: opened, shared by processes and machines, cleared of trials whose process is gone.

Optuna's journal file has no heartbeat, so each trial says which process looks after it (the holder of
:mod:`rlrun.runs.lock`) and that one changes a number now and then. A trial that was killed is set aside and its
values are put in line again: it does not count, so the study ends with as many trials as were asked for.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlrun.config.loading import dotted, leaves
from rlrun.errors import UsageError, shown
from rlrun.runs.lock import Holder

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.storages.journal import BaseJournalBackend
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "journal.log"
ATTEMPTS = 3  # of a trial whose process is killed: its values may be what kills it
_BEAT = 60.0  # seconds
# Names of what rlrun keeps with a study or a trial.
_SETTINGS, _HOLDER, _BEATS = "rlrun:settings", "rlrun:holder", "rlrun:beats"
_SESSION = "rlrun:session"
_ATTEMPTS_TO_OPEN = 5
_TO_BE_MADE = 5.0  # seconds that another process may take between making a study and saying what it is
_GONE, _ATTEMPT = "rlrun:gone", "rlrun:attempt"
VALUES, REASON, SEEDS, SCORES, SECONDS = "values", "reason", "seeds", "scores", "seconds"


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's own notes: rlrun says what is worth saying."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def is_address(text: str) -> bool:
    """Whether a storage is a database's address rather than a file."""
    return "://" in text


def shown_storage(text: str) -> str:
    """A storage without the password that an address may hold."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", text)


def open_storage(text: str) -> BaseStorage:
    """A journal file, or the database at an address.

    :raises UsageError: when it cannot be opened
    """
    from optuna.storages import JournalStorage

    try:
        return _open_database(text) if is_address(text) else JournalStorage(_journal(text))
    except Exception as error:  # SQLAlchemy, its drivers and broken files raise errors of many kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        hint = "Name a journal file, or an address such as sqlite:///study.db."
        raise UsageError(f"The storage {shown_storage(text)} cannot be opened: {reason.rstrip('.')}.", hint) from error


def _open_database(address: str) -> BaseStorage:
    """Its tables are made by whoever comes first; another one, who comes at the same moment, finds them there."""
    from optuna.storages import RDBStorage

    for attempt in range(_ATTEMPTS_TO_OPEN):
        try:
            return RDBStorage(address)
        except Exception as error:  # of SQLAlchemy or its drivers
            is_race = any(word in str(error) for word in ("already exists", "locked", "UNIQUE constraint"))
            if not is_race or attempt == _ATTEMPTS_TO_OPEN - 1:
                raise
            time.sleep(1.0)
    raise AssertionError("unreachable")


def _journal(path: str) -> BaseJournalBackend:
    """Optuna's journal file, in which a line that was torn by a full disk or a kill is cut off before the next one."""
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock

    lock = JournalFileOpenLock(path) if os.name == "nt" else JournalFileSymlinkLock(path)

    class Journal(JournalFileBackend):
        """Writes with the lock held, like its parent, which cannot be called with it."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
            with _held(lock), open(path, "ab") as file:
                _cut_torn_line(Path(path))
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())

    found = Journal(path, lock_obj=lock)
    if not _ends_well(Path(path)):  # or it is being written
        with _held(lock):
            _cut_torn_line(Path(path))
    return found


@contextmanager
def _held(lock: Any) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _cut_torn_line(path: Path) -> None:
    if not _ends_well(path):
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def _ends_well(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return True
        stream.seek(-1, os.SEEK_END)
        return stream.read() == b"\n"


def join(study: Study) -> int:
    """Say that this process takes part.

    :return: how many did so before
    """
    own = f"{_SESSION} {time.time_ns():020} {secrets.token_hex(4)}"
    study.set_user_attr(own, True)
    return sorted(key for key in study.user_attrs if key.startswith(_SESSION)).index(own)


def open_study(storage: str, name: str, settings: Mapping[str, Any], resume: bool) -> Study:
    """A study of a storage, made if it is not there.

    :param settings: plain values that everyone who joins must share
    :param resume: join a study that is there
    :raises UsageError: when there is one and ``resume`` is not given, or it is of another config
    """
    import optuna

    opened = open_storage(storage)
    try:
        study = optuna.create_study(storage=opened, study_name=name, direction="maximize")
        study.set_user_attr(_SETTINGS, dict(settings))
    except optuna.exceptions.DuplicatedStudyError:
        if not resume:
            message = f"There is a study {name} in {shown_storage(storage)} already."
            raise UsageError(message, "Choose another --name; --resume goes on with it.") from None
        study = optuna.load_study(study_name=name, storage=opened)
        until = time.monotonic() + _TO_BE_MADE
        while _SETTINGS not in study.user_attrs and time.monotonic() < until:
            time.sleep(0.1)
    if _SETTINGS not in study.user_attrs:
        message = f"The study {name} in {shown_storage(storage)} does not say what it searches."
        raise UsageError(message, "Choose another --name.")
    _require_same(study.user_attrs[_SETTINGS], settings, name)
    return study


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    old, new = ({dotted(path): value for path, value in leaves(settings)} for settings in (before, now))
    changed = next((key for key in {**old, **new} if old.get(key) != new.get(key)), None)
    if changed is not None:
        values = f"{shown(old.get(changed))}, not {shown(new.get(changed))}"
        message = f"The study {name} has another {changed.removeprefix('config.')}: {values}."
        raise UsageError(message, "Go on with the study's own settings, or choose another --name.")


class Ledger:
    """Who looks after which trial, and how many count."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._me = Holder.this_process()
        self._mine: dict[int, Trial] = {}
        self._seen: dict[int, tuple[int, float]] = {}  # of others: the beats, and when they last changed
        self._beats, self._last = 0, time.monotonic()

    def counting(self) -> list[FrozenTrial]:
        """Trials that count, by number: not those that were killed, interrupted, or one too many."""
        return [t for t in self.study.get_trials(deepcopy=False) if _GONE not in t.user_attrs]

    def begin(self, total: int, space: Mapping[str, BaseDistribution]) -> Trial | None:
        """A new trial, its values drawn; None when another process was faster and there are enough."""
        trial = self.study.ask(dict(space))
        trial.set_user_attr(_HOLDER, asdict(self._me))
        self._mine[trial.number] = trial
        if sum(other.number < trial.number for other in self.counting()) >= total:
            self._set_aside(trial._trial_id, "one too many")
            del self._mine[trial.number]
            return None
        return trial

    def is_hopeless(self, trial: Trial, value: float, step: int) -> bool:
        """Report an evaluation.

        :return: whether the trial is to stop: the pruner says so, or others have taken this process for dead
        """
        with self._while_mine(trial):
            trial.report(value, step)
            return bool(trial.should_prune())  # NumPy's, at times
        return True

    def complete(self, trial: Trial, value: float, facts: Mapping[str, Any]) -> bool:
        """A trial is done.

        :param value: finite
        :return: False when others have taken this process for dead, and try the values again
        """
        return self._end(trial, "COMPLETE", facts, value)

    def prune(self, trial: Trial, facts: Mapping[str, Any]) -> bool:
        """A trial was stopped early; see :meth:`complete`."""
        return self._end(trial, "PRUNED", facts)

    def fail(self, trial: Trial, reason: str, facts: Mapping[str, Any]) -> bool:
        """A trial failed for good; see :meth:`complete`."""
        return self._end(trial, "FAIL", {**facts, REASON: reason})

    def _end(self, trial: Trial, state: str, facts: Mapping[str, Any], value: float | None = None) -> bool:
        from optuna.trial import TrialState

        self._mine.pop(trial.number, None)
        with self._while_mine(trial):
            for name, fact in facts.items():
                trial.set_user_attr(name, fact)
            try:
                self.study.tell(trial, value, state=TrialState[state])
            except ValueError:  # it was ended elsewhere between the two lines
                return False
            return True
        return False

    @contextmanager
    def _while_mine(self, trial: Trial) -> Iterator[None]:
        """Leave off when the trial has ended elsewhere: a process that slept for long is taken for dead."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            yield
        except UpdateFinishedTrialError:
            self._mine.pop(trial.number, None)

    def give_back(self, trial: Trial) -> None:
        """An interruption: the same values are tried when the study goes on."""
        self._mine.pop(trial.number, None)
        self._again(self._frozen(trial.number), "interrupted")

    def was_killed(self, trial: Trial, why: str) -> bool:
        """The process of a trial was killed.

        :return: whether its values are tried again
        """
        frozen = self._frozen(trial.number)
        if int(frozen.user_attrs.get(_ATTEMPT, 1)) >= ATTEMPTS:
            self.fail(trial, f"{why}, {ATTEMPTS} times", {})
            return False
        self._mine.pop(trial.number, None)
        self._again(frozen, "killed")
        return True

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _again(self, frozen: FrozenTrial, why: str) -> None:
        if self._set_aside(frozen._trial_id, why):
            attempt = int(frozen.user_attrs.get(_ATTEMPT, 1)) + (why == "killed")
            params = frozen.params or frozen.system_attrs.get("fixed_params", {})
            if params:
                self.study.enqueue_trial(params, user_attrs={_ATTEMPT: attempt})

    def _set_aside(self, trial_id: int, why: str) -> bool:
        """Let a trial not count; False when another process was faster."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        storage = self.study._storage
        try:
            storage.set_trial_user_attr(trial_id, _GONE, why)
            return storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False

    def look(self) -> list[int]:
        """Say that this process is alive, and set aside the trials of those that are not.

        :return: the numbers of these trials
        """
        from optuna.trial import TrialState

        if time.monotonic() - self._last > _BEAT:
            self._beats, self._last = self._beats + 1, time.monotonic()
            for mine in list(self._mine.values()):
                with self._while_mine(mine):
                    mine.set_user_attr(_BEATS, self._beats)
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        dead = [trial for trial in running if trial.number not in self._mine and not self._is_alive(trial)]
        for trial in dead:
            self._again(trial, "killed")
        return [trial.number for trial in dead]

    def _is_alive(self, trial: FrozenTrial) -> bool:
        beats = int(trial.user_attrs.get(_BEATS, 0))
        if self._seen.get(trial.number, (None, 0.0))[0] != beats:
            self._seen[trial.number] = beats, time.time()
        touched = self._seen[trial.number][1]
        try:
            holder = Holder(**trial.user_attrs[_HOLDER])
        except (KeyError, TypeError):  # killed between the two lines of `begin`
            holder = Holder("", 0, 0.0, "")
        return holder.is_alive(touched)


def best_first(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that were completed, the best first; among equals the one whose evaluations on the way were better."""
    from optuna.trial import TrialState

    done = [t for t in trials if t.state is TrialState.COMPLETE and t.value is not None]

    def rank(trial: FrozenTrial) -> tuple[float, float, int]:
        on_the_way = list(trial.intermediate_values.values())
        return -(trial.value or 0.0), -sum(on_the_way) / max(1, len(on_the_way)), trial.number

    return sorted(done, key=rank)
