"""The CSV files of a run: appended row by row, cut back to a checkpoint on resume, never restarted."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, Logger

from rlrun.evaluation.statistics import Evaluation
from rlrun.runs.directory import whole_number
from rlrun.runs.files import os_errors_in_words, write_whole

_STEP = "timesteps"


class CsvFile:
    """One CSV file whose first column is ``timesteps``.

    :param columns: the other columns; more may be added later
    :param keep_until: drop rows after this many timesteps, and torn ones: they are the work of a run that died
    """

    def __init__(self, path: Path, columns: Sequence[str] = (), keep_until: int | None = None) -> None:
        self.path = path
        self._columns = [_STEP, *columns]
        if path.exists() and keep_until is not None:
            self._cut_back(keep_until)
        if not path.exists():
            write_whole(path, _line(self._columns))
        self._stream = path.open("a", newline="", encoding="utf-8")

    def _cut_back(self, keep_until: int) -> None:
        rows = _whole_rows(self.path)
        if not rows or not rows[0] or rows[0][0] != _STEP:
            self.path.unlink()
            return
        self._columns = rows[0]
        kept = [
            row
            for row in rows[1:]
            if len(row) == len(rows[0]) and (steps := whole_number(row[0])) is not None and steps <= keep_until
        ]
        write_whole(self.path, "".join(map(_line, [self._columns, *kept])))

    def add(self, timesteps: int, values: Mapping[str, Any]) -> None:
        """Append one row; a column not seen before is added to the whole file."""
        new = [name for name in values if name not in self._columns]
        if new:
            self._widen(new)
        row = {_STEP: timesteps, **values}
        with os_errors_in_words(f"writing {self.path.name}"):
            self._stream.write(_line([row.get(name, "") for name in self._columns]))

    def _widen(self, new: list[str]) -> None:
        self.flush()
        rows = _whole_rows(self.path)[1:]
        columns = [*self._columns, *new]
        write_whole(self.path, "".join(map(_line, [columns, *(row + [""] * len(new) for row in rows)])))
        self._columns = columns
        self._stream.close()
        self._stream = self.path.open("a", newline="", encoding="utf-8")

    def flush(self, to_disk: bool = False) -> None:
        """Hand rows to the system; ``to_disk`` waits until they are on it."""
        with os_errors_in_words(f"writing {self.path.name}"):
            self._stream.flush()
            if to_disk:
                os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Write out what is left and close."""
        with os_errors_in_words(f"writing {self.path.name}"):
            self._stream.close()


def _whole_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file of which a process that died may have left the last one torn, anywhere in it."""
    text = path.read_bytes().decode("utf-8", errors="replace")
    try:
        return list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))  # the rest is torn
    except csv.Error:
        return []


def _line(values: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([v.item() if hasattr(v, "item") else v for v in values])
    return text.getvalue()


class RunFiles:
    """metrics.csv, evaluations.csv and episodes.csv of a run.

    :param keep_until: when resuming, the checkpoint's timesteps
    """

    def __init__(self, folder: Path, keep_until: int | None = None) -> None:
        self.metrics = CsvFile(folder / "metrics.csv", (), keep_until)
        self.evaluations = CsvFile(
            folder / "evaluations.csv", ("episode", "seed", "return", "length", "success"), keep_until
        )
        self.episodes = CsvFile(folder / "episodes.csv", ("env", "return", "length", "success"), keep_until)

    def add_evaluation(self, timesteps: int, evaluation: Evaluation) -> None:
        """One row for each episode."""
        for index, (seed, ret, length) in enumerate(
            zip(evaluation.seeds, evaluation.returns, evaluation.lengths, strict=True)
        ):
            success = "" if evaluation.successes is None else int(evaluation.successes[index])
            row = {"episode": index, "seed": seed, "return": ret, "length": length, "success": success}
            self.evaluations.add(timesteps, row)
        self.evaluations.flush()

    def flush(self) -> None:
        """Put everything on the disk, as a checkpoint wants it."""
        for file in (self.metrics, self.evaluations, self.episodes):
            file.flush(to_disk=True)

    def close(self) -> None:
        """Close all three."""
        with contextlib.ExitStack() as stack:
            for file in (self.metrics, self.evaluations, self.episodes):
                stack.callback(file.close)


class MetricsWriter(KVWriter):
    """SB3's logger writes its rows to metrics.csv through this."""

    def __init__(self, file: CsvFile) -> None:
        self._file = file

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """One row; values that are no numbers (figures, histograms) stay out."""
        numbers = {k: v for k, v in key_values.items() if isinstance(v, int | float | np.number | str)}
        numbers.pop("time/total_timesteps", None)  # the first column has it
        self._file.add(step, numbers)
        self._file.flush()

    def close(self) -> None:
        """The file is closed with the run's other files."""


def pending_values(logger: Logger) -> dict[str, list[Any]]:
    """What was logged since the last row, by name: a value, of how many it is the mean, what it is kept out of."""
    excluded = logger.name_to_excluded
    return {
        name: [value.item() if isinstance(value, np.generic) else value, logger.name_to_count[name], excluded.get(name)]
        for name, value in logger.name_to_value.items()
        if isinstance(value, int | float | np.number)
    }


def set_pending_values(logger: Logger, values: Mapping[str, Sequence[Any]]) -> None:
    """Let a logger go on with what was logged before a checkpoint."""
    for name, (value, count, excluded) in values.items():
        logger.name_to_value[name], logger.name_to_count[name] = value, int(count)
        logger.name_to_excluded[name] = tuple(excluded or ())
