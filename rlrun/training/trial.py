"""A trial of a study: trained and evaluated like any run, and nothing of it is kept but its numbers."""

from __future__ import annotations

import torch

from rlrun.errors import RlrunError
from rlrun.training.boundary import Boundary


class TrialBoundary(Boundary):
    """Evaluates and never saves: what is good is trained again. Weights that are no numbers end the trial."""

    saves = False

    def _keep(self, now: int, pointers: list[str], resumable: bool) -> None:
        """Nothing is kept."""

    def save_interrupted(self) -> None:
        """A trial that is interrupted begins anew."""

    def _evaluate(self, now: int) -> bool:
        if not all(bool(torch.isfinite(weights).all()) for weights in self.model.policy.parameters()):
            raise RlrunError(f"the weights were no longer finite numbers at {now:,} timesteps", "")
        return super()._evaluate(now)
