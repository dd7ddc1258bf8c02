"""Tables: what a person reads, short or long."""

from __future__ import annotations

import pytest

from rlrun.console import print_table


def words_of(rows: int, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The words of each line of a table."""
    print_table(("run", "timesteps", "return"), [(f"run-{i}", 1_000 * i, None if i == 1 else 0.5) for i in range(rows)])
    return [
        line.split() for line in capsys.readouterr().out.splitlines() if line.strip() and not set(line) <= set(" -─")
    ]


def test_a_long_table_says_what_a_short_one_says(capsys: pytest.CaptureFixture[str]) -> None:
    short, long = words_of(3, capsys), words_of(300, capsys)
    assert (
        long[:4]
        == short
        == [
            ["run", "timesteps", "return"],
            ["run-0", "0", "0.5"],
            ["run-1", "1,000"],
            ["run-2", "2,000", "0.5"],
        ]
    )
    assert len(long) == 301


def test_numbers_of_a_long_table_end_in_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("run", "timesteps"), [("a" * (i % 9), 10**i) for i in range(8)] * 20)
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len({len(line) for line in lines}) == 1
