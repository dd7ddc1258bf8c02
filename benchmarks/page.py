"""docs/performance.md, into which benchmarks write what they measured."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def write_into_page(name: str, text: str) -> None:
    """Put a text between the marks of a benchmark.

    :param name: of the benchmark, as its file is called
    """
    begin, end = f"<!-- {name}: written by benchmarks/{name}.py -->", f"<!-- /{name} -->"
    before, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
