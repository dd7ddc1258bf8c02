"""What training tells whoever watches: a terminal, a notebook, or nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rlrun.evaluation.statistics import Evaluation


class Reporter(Protocol):
    """Receives what happens. Every method returns at once."""

    def started(self, run: Path, budget: int, done: int, notes: tuple[str, ...], unit: str = "timesteps") -> None:
        """Training begins, or goes on, at ``done`` of ``budget`` timesteps (or episodes: ``unit``)."""

    def progressed(self, done: int, mean_return: float | None) -> None:
        """So much of the budget is done; ``mean_return`` is the mean of the last training episodes."""

    def evaluated(self, timesteps: int, evaluation: Evaluation, is_best: bool) -> None:
        """An evaluation during training ended."""

    def said(self, message: str) -> None:
        """Something a person should read."""

    def stopped(self) -> None:
        """Training is over, however it ended."""


class Silent:
    """Tells nobody."""

    def started(self, run: Path, budget: int, done: int, notes: tuple[str, ...], unit: str = "timesteps") -> None:
        """See Reporter."""

    def progressed(self, done: int, mean_return: float | None) -> None:
        """See Reporter."""

    def evaluated(self, timesteps: int, evaluation: Evaluation, is_best: bool) -> None:
        """See Reporter."""

    def said(self, message: str) -> None:
        """See Reporter."""

    def stopped(self) -> None:
        """See Reporter."""
