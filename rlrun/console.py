"""The only place that prints: progress, tables, and errors with their hints.

Reports for people and JSON for programs go to stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rlrun.errors import ConfigError, Interrupted, RlrunError
from rlrun.words import duration, number

# Where reports go; None: wherever sys.stdout is when they are written.
_reports: TextIO | None = None


_MANY_ROWS = 100  # of a table


class _Stdout(io.FileIO):
    """Says in a sentence that it cannot be written to, and takes everything from then on."""

    def write(self, data: Any) -> int:
        """See io.FileIO."""
        try:
            return super().write(data)
        except OSError as error:
            # What is still in buffers is written when the process ends, and would fail once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            message = f"The report could not be written to stdout: {error.strerror}."
            raise RlrunError(message, "Send it somewhere else.") from None


def keep_stdout_for_reports(alone: bool = True) -> None:
    """Give stdout to this module: what libraries print, in Python or in C, goes to stderr.

    PyBullet prints a banner from C at import; with ``--json`` stdout must hold one document.

    :param alone: False: other modules keep it too, as the help needs
    :raises RlrunError: when it is closed
    """
    global _reports
    if sys.stdout is None:
        raise RlrunError("stdout is closed, so no report can be written.", "Send it to a file, or to /dev/null.")
    sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):  # no file descriptors, as under some test runners
        stream = io.BufferedWriter(_Stdout(os.dup(1), "w"))
        _reports = io.TextIOWrapper(stream, "utf-8", "replace", line_buffering=stream.isatty())
        if alone:
            os.dup2(2, 1)
        sys.stdout = sys.stderr if alone else _reports


def _out() -> TextIO:
    return _reports if _reports is not None else sys.stdout


def finish() -> None:
    """Write reports out, at the end of the process; whoever was to read them may be gone.

    :raises RlrunError: when they cannot be written, as on a full disk
    """
    with contextlib.suppress(BrokenPipeError):
        _out().flush()
        if _reports is not None and _reports is not sys.stdout:
            _reports.close()  # what an env's checker told Python to warn of would be named last of all


def print_json(value: Any) -> None:
    """Exactly one JSON document on stdout; numbers that JSON does not know become null."""
    _out().write(json.dumps(_finite(value), indent=2) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _printable(text: str) -> str:
    """Without control characters: what other people's files say must not steer the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def say(text: str = "") -> None:
    """A line of a report."""
    _out().write(_printable(text) + "\n")


def note(text: str) -> None:
    """A line beside the report."""
    if sys.stderr is None:  # as it is when its file descriptor is closed
        return
    try:
        sys.stderr.write(_printable(text) + "\n")
    except BrokenPipeError:  # whoever was to read it is gone, which is no reason to stop training
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def print_error(error: RlrunError) -> None:
    """What is wrong, and what to do about it; for a config every problem on a line of its own."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            note(f"error: {problem}")
        if len(error.problems) > 1:
            note(f"{len(error.problems)} problems; nothing was created.")
        return
    note(error.message if isinstance(error, Interrupted) else f"error: {error.message}")
    if error.hint:
        note(f"       {error.hint}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A plain table; numbers to the right. Wide enough for its content when stdout is no terminal."""
    if len(rows) > _MANY_ROWS:
        _print_long_table(columns, rows)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or row[index] == "" for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    Console(file=_out(), highlight=False, markup=False, width=None if _out().isatty() else 200).print(table)


def _cell(value: Any) -> str:
    return "" if value is None else _printable(value) if isinstance(value, str) else f"{value:,}"


def _print_long_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """The same without folding: rich takes half a millisecond a row."""
    lines = [list(map(_cell, row)) for row in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *lines, strict=True)]
    numeric = [all(isinstance(row[index], int | float | None) for row in rows) for index in range(len(columns))]
    for line in [columns, ["-" * width for width in widths], *lines]:
        cells = [
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, numeric, strict=True)
        ]
        say(" " + "   ".join(cells).rstrip())


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values in two columns."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if value not in (None, ""):
            say(f"{name:<{width}}  {value}")


class LineReporter:
    """Progress as plain lines on stderr, for logs: a line whenever a tenth of the budget is done."""

    def __init__(self) -> None:
        self._total, self._before, self._began, self._unit = 1, 0, time.monotonic(), "timesteps"
        self._next = 0

    def started(self, run: Path, budget: int, done: int, notes: tuple[str, ...], unit: str = "timesteps") -> None:
        """See rlrun.training.progress.Reporter."""
        self._total, self._before, self._began, self._unit = budget, done, time.monotonic(), unit
        self._next = done + max(1, budget // 10)
        if notes:
            note("; ".join(notes))
        note(f"training for {budget:,} {unit} in {run}")

    def progressed(self, done: int, mean_return: float | None) -> None:
        """See rlrun.training.progress.Reporter."""
        if done < self._next:
            return
        self._next = done + max(1, self._total // 10)
        speed = (done - self._before) / max(time.monotonic() - self._began, 1e-9)
        left = duration(max(0, self._total - done) / max(speed, 1e-9))
        text = f"{done:,}/{self._total:,} {self._unit}, {speed:,.0f}/s, {left} left"
        note(text if mean_return is None else f"{text}, training return {number(mean_return)}")

    def evaluated(self, timesteps: int, evaluation: Any, is_best: bool) -> None:
        """See rlrun.training.progress.Reporter."""
        text = f"evaluation at {timesteps:,}: {number(evaluation.mean_return)} ± {number(evaluation.std_return)}"
        note(text + (" (best so far)" if is_best else ""))

    def said(self, message: str) -> None:
        """See rlrun.training.progress.Reporter."""
        note(message)

    def stopped(self) -> None:
        """See rlrun.training.progress.Reporter."""


class BarReporter:
    """Progress as a bar on a terminal's stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[speed]:,.0f}/s"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("return {task.fields[training]}, evaluated {task.fields[evaluated]}"),
            console=self._console,
        )
        self._task: Any = None
        self._before, self._began = 0, time.monotonic()

    def started(self, run: Path, budget: int, done: int, notes: tuple[str, ...], unit: str = "timesteps") -> None:
        """See rlrun.training.progress.Reporter."""
        self._before, self._began = done, time.monotonic()
        if notes:
            self._console.print("; ".join(notes), markup=False)
        self._console.print(f"training for {budget:,} {unit} in {run}", markup=False, soft_wrap=True)
        self._task = self._bar.add_task("", total=budget, completed=done, speed=0.0, training="-", evaluated="-")
        self._bar.start()

    def progressed(self, done: int, mean_return: float | None) -> None:
        """See rlrun.training.progress.Reporter."""
        speed = (done - self._before) / max(time.monotonic() - self._began, 1e-9)
        shown = "-" if mean_return is None else number(mean_return)
        self._bar.update(self._task, completed=done, speed=speed, training=shown)

    def evaluated(self, timesteps: int, evaluation: Any, is_best: bool) -> None:
        """See rlrun.training.progress.Reporter."""
        self._bar.update(self._task, evaluated=number(evaluation.mean_return))

    def said(self, message: str) -> None:
        """See rlrun.training.progress.Reporter."""
        self._console.print(_printable(message), markup=False, soft_wrap=True)

    def stopped(self) -> None:
        """See rlrun.training.progress.Reporter."""
        self._bar.stop()


def terminal_reporter() -> BarReporter | LineReporter:
    """A bar where stderr is a terminal, plain lines elsewhere."""
    return BarReporter() if sys.stderr.isatty() else LineReporter()


class SeedsLines:
    """Progress of several runs as plain lines on stderr: one whenever a run's state changes."""

    def __init__(self) -> None:
        self._before: dict[str, str] = {}

    def started(self, place: Path, states: Sequence[Any], jobs: int | None) -> None:
        """See rlrun.seeds.SeedsReporter."""
        note(_beginning(place, states, jobs))
        self._before = {state.name: state.state for state in states}

    def changed(self, states: Sequence[Any]) -> None:
        """See rlrun.seeds.SeedsReporter."""
        for state in states:
            if state.state != self._before.get(state.name):
                self._before[state.name] = state.state
                shown = "" if state.mean_return is None else f", return {number(state.mean_return)}"
                share = "" if state.total_timesteps is None else f"/{state.total_timesteps:,}"
                note(f"{state.name}: {state.state} ({state.timesteps:,}{share} timesteps{shown})")

    def stopped(self) -> None:
        """See rlrun.seeds.SeedsReporter."""


def _beginning(place: Path, states: Sequence[Any], jobs: int | None) -> str:
    runs = "1 run" if len(states) == 1 else f"{len(states)} runs"
    finished = sum(state.state == "finished" for state in states)
    if finished == len(states):
        return f"{runs} finished already, in {place}"
    done = f" ({finished} finished already)" if finished else ""
    return f"training {runs}{done}{'' if jobs is None else f', {jobs} at a time'}, in {place}"


class SeedsTable:
    """Progress of several runs as a live table on a terminal's stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4)

    def started(self, place: Path, states: Sequence[Any], jobs: int | None) -> None:
        """See rlrun.seeds.SeedsReporter."""
        self._console.print(_beginning(place, states, jobs), markup=False, soft_wrap=True)
        self._live.start()

    def changed(self, states: Sequence[Any]) -> None:
        """See rlrun.seeds.SeedsReporter."""
        from rich import box
        from rich.table import Table

        table = Table("run", "timesteps", "return", "state", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in table.columns[1:3]:
            column.justify = "right"
        for state in states:
            shown = "-" if state.mean_return is None else number(state.mean_return)
            share = f"{state.timesteps:,}"
            if state.total_timesteps is not None:
                share += f" ({min(1.0, state.timesteps / state.total_timesteps):.0%})"
            table.add_row(_printable(state.name), share, shown, _printable(state.state))
        self._live.update(table)

    def stopped(self) -> None:
        """See rlrun.seeds.SeedsReporter."""
        self._live.stop()


class _SilentSeeds(SeedsLines):
    def started(self, place: Path, states: Sequence[Any], jobs: int | None) -> None:
        """Nothing."""

    def changed(self, states: Sequence[Any]) -> None:
        """Nothing."""


def seeds_reporter(silent: bool = False) -> SeedsLines | SeedsTable:
    """A live table where stderr is a terminal, plain lines elsewhere."""
    if silent:
        return _SilentSeeds()
    return SeedsTable() if sys.stderr.isatty() else SeedsLines()


class StudyLines:
    """A study's progress as lines on stderr, one whenever a trial ends."""

    def started(self, study: Path, total: int, jobs: int) -> None:
        """See rlrun.tuning.study.StudyReporter."""
        note(f"{total} trials, {jobs} at a time, in {study}")

    def trial(self, progress: Any) -> None:
        """See rlrun.tuning.study.StudyReporter."""
        what = progress.state if progress.value is None else number(progress.value)
        text = f"{progress.ended}/{progress.total}  trial {progress.number}: {what}"
        if progress.best is not None:
            text += f" (best {number(progress.best[0])}, trial {progress.best[1]})"
        values = ", ".join(f"{name}={value}" for name, value in progress.values.items())
        note(f"{text}  {values}".rstrip())

    def said(self, message: str) -> None:
        """See rlrun.tuning.study.StudyReporter."""
        note(message)


class _SilentStudy(StudyLines):
    def started(self, study: Path, total: int, jobs: int) -> None:
        """Nothing."""

    def trial(self, progress: Any) -> None:
        """Nothing."""

    def said(self, message: str) -> None:
        """Nothing."""


def study_reporter(silent: bool = False) -> StudyLines:
    """Lines, or nothing."""
    return _SilentStudy() if silent else StudyLines()
