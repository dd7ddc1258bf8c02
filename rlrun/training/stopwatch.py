"""A callback that times training once it learns, and ends it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlrun.runs.files import write_whole

_WARM_UP = 1.0  # seconds


class Stopwatch(BaseCallback):
    """Counts whole rounds of acting and learning, so that each is in the count with its share.

    The first rounds are left out: until learning has begun, and a second has gone by. But where one round takes as long
    as is to be timed, that one counts.

    :param seconds: to be timed at least
    :param result: a file, which gets ``{"timesteps": ..., "seconds": ...}``
    """

    reads_transitions_only = True  # see rlrun.accelerate.on_policy

    def __init__(self, seconds: float, result: str) -> None:
        super().__init__()
        self._seconds, self._result = seconds, result
        self._from: tuple[float, int] | None = None
        self._is_warm = self._is_done = False

    def _on_rollout_start(self) -> None:
        now, timesteps = time.monotonic(), self.num_timesteps
        if self._from is None:
            self._from = now, timesteps
            return
        then, before = self._from
        is_long = isinstance(self.model, OnPolicyAlgorithm) and now - then >= self._seconds
        if not self._is_warm and not is_long:
            self._is_warm = now - then > _WARM_UP and timesteps > getattr(self.model, "learning_starts", 0)
            self._from = (now, timesteps) if self._is_warm else self._from
        elif now - then >= self._seconds and not self._is_done:
            self._is_done = True
            write_whole(Path(self._result), json.dumps({"timesteps": timesteps - before, "seconds": now - then}))

    def _on_step(self) -> bool:
        return not self._is_done
