"""sb3-contrib's ARS with a hook between iterations, where a checkpoint can be taken and training resumed."""

from __future__ import annotations

from typing import Any

import numpy as np
from sb3_contrib import ARS as ContribARS
from stable_baselines3.common.callbacks import BaseCallback


class ARS(ContribARS):
    """Augmented Random Search (Mania et al. 2018, https://arxiv.org/abs/1803.07055), as sb3-contrib has it.

    Three things differ: ``on_rollout_start`` is called before an iteration draws its perturbations and not only after,
    callbacks see ``dones`` and ``infos`` as with every other algorithm, and the schedules' progress is right when
    training resumes in the middle of the budget.
    """

    def _do_one_update(self, callback: BaseCallback, async_eval: Any) -> None:
        callback.on_rollout_start()
        super()._do_one_update(callback, async_eval)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, self._total_timesteps)

    def _trigger_callback(
        self, _locals: dict[str, Any], _globals: dict[str, Any], callback: BaseCallback, n_envs: int
    ) -> None:
        # evaluate_policy calls this once for each env, whose index is i.
        dones = np.zeros(n_envs, dtype=bool)
        dones[_locals["i"]] = _locals["done"]
        callback.update_locals({"dones": dones, "infos": _locals["infos"]})
        super()._trigger_callback(_locals, _globals, callback, n_envs)
