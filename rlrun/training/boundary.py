"""What happens between two rollouts: log, evaluate, save, cut. One hook, so that their order is always the same.

At every checkpoint training is saved and then *cut*: the envs are built anew and every generator is seeded again,
from the run's seed and the number of timesteps. The run that goes on and the run that resumes from this checkpoint
make the same cut, so nothing else of the moment has to be saved, and both end with the same weights.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlrun.config.schema import Config
from rlrun.envs.normalization import get_statistics, set_statistics
from rlrun.envs.recipe import EnvRecipe, RestartableVecEnv, find_normalizer
from rlrun.envs.seeding import Stream, draw_seeds, seed_global_generators
from rlrun.evaluation.evaluate import episode_seeds, evaluate
from rlrun.runs.checkpoint import Checkpoint, prune_checkpoints, write_checkpoint
from rlrun.runs.directory import RunDirectory
from rlrun.runs.replay import truncate_at_cut
from rlrun.training.interruption import Signals, StopRequested
from rlrun.training.progress import Reporter
from rlrun.training.recorders import RunFiles


def seed_learner(config: Config, timesteps: int, action_space: Any) -> None:
    """Seed what the learner draws from, for the stretch that begins at ``timesteps``."""
    seed, space_seed = draw_seeds(config.seed, Stream.LEARNER, 2, timesteps)
    seed_global_generators(seed)
    action_space.seed(space_seed)


class Boundary(BaseCallback):
    """Evaluates, saves, cuts and stops a training session.

    :param envs: the part of the training envs that a cut builds anew
    :param resumed_from: the checkpoint that this session continues, already loaded into the model
    """

    def __init__(
        self,
        config: Config,
        run: RunDirectory,
        recipe: EnvRecipe,
        envs: RestartableVecEnv,
        files: RunFiles,
        reporter: Reporter,
        signals: Signals,
        resumed_from: Checkpoint | None = None,
    ) -> None:
        super().__init__()
        self.config, self.run, self.recipe, self.envs = config, run, recipe, envs
        self.files, self.reporter, self.signals = files, reporter, signals
        self._resumed_from = resumed_from
        state = dict(resumed_from.state["session"]) if resumed_from else {}
        self.best_mean_return: float | None = state.get("best_mean_return")
        self._without_improvement: int = state.get("without_improvement", 0)
        window = config.early_stop.window if config.early_stop else 1
        self._window: deque[float] = deque(state.get("window", ()), maxlen=window)
        self._visited = resumed_from.timesteps if resumed_from else 0  # timesteps of the last boundary
        self._resumable: int | None = resumed_from.timesteps if resumed_from else None  # newest such checkpoint
        self._evaluated_at: int | None = None
        self._deadline = time.monotonic() + config.max_time if config.max_time else None

    # -- SB3's hooks

    def _on_step(self) -> bool:
        self.signals.check()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise StopRequested("max_time")
        dones = self.locals.get("dones")
        if dones is not None and dones.any():
            self._record_episodes(dones, self.locals["infos"])
        return True

    def _on_rollout_start(self) -> None:
        if self._resumed_from is not None:
            self._restore_and_cut(self._resumed_from)
            self._resumed_from = None
            return
        self.visit()

    # -- the boundary

    def visit(self, at_end: bool = False) -> None:
        """Do what is due at this many timesteps.

        :param at_end: training is over; evaluate and save whatever the spacing says, and do not cut
        """
        if self._resumed_from is not None:  # the budget was used up already, so no rollout began
            self._restore_statistics(self._resumed_from)
            self._resumed_from = None
        before, now = self._visited, self.model.num_timesteps
        self._visited = now
        settings = self.config
        self.reporter.progressed(now, self._mean_training_return())
        evaluation_due = self._is_evaluation_due(before, now, at_end)
        checkpoint_due = at_end or _is_due(settings.checkpoint.every, before, now)
        is_best = self._evaluate(now) if evaluation_due else False
        # The logger is emptied at every checkpoint, so that no half-collected row needs saving.
        if checkpoint_due or evaluation_due or _is_due(settings.log_every, before, now):
            self.model.dump_logs()
        if checkpoint_due or is_best:
            self.save(scheduled=True, resumable=checkpoint_due)
            for name in [*(["best"] if is_best else []), *(["final"] if at_end else [])]:
                self.run.point(name, now)
            prune_checkpoints(self.run, settings.checkpoint.keep)
        if at_end:
            return
        self._stop_early(evaluation_due)
        if checkpoint_due:
            self.cut(now)

    def _is_evaluation_due(self, before: int, now: int, at_end: bool) -> bool:
        settings = self.config.evaluation
        if not settings.every or not settings.episodes or self._evaluated_at == now:
            return False
        return at_end or _is_due(settings.every, before, now)

    def save(self, scheduled: bool, resumable: bool = True) -> int:
        """Write a checkpoint of this moment and let ``latest`` name it.

        :return: its timesteps
        """
        self.files.flush()
        session = {
            "best_mean_return": self.best_mean_return,
            "without_improvement": self._without_improvement,
            "window": list(self._window),
        }
        previous = self._resumable if self._resumable in self.run.checkpoint_steps() else None
        timesteps = write_checkpoint(
            self.run, self.model, session, resumable=resumable, scheduled=scheduled, previous=previous
        )
        if resumable:
            self._resumable = timesteps
        self.run.point("latest", timesteps)
        return timesteps

    def cut(self, timesteps: int) -> None:
        """Build the envs anew and seed every generator, from the run's seed and ``timesteps``."""
        model: Any = self.model
        if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
            truncate_at_cut(model.replay_buffer)
        self.envs.restart(timesteps)
        seed_learner(self.config, timesteps, model.action_space)
        model._last_obs = model.env.reset()
        model._last_episode_starts = np.ones(model.n_envs, dtype=bool)
        normalizer = find_normalizer(model.env)
        model._last_original_obs = normalizer.get_original_obs() if normalizer is not None else None
        if getattr(model, "action_noise", None) is not None:
            model.action_noise.reset()
        if model.use_sde:
            actor: Any = model.actor if isinstance(model, OffPolicyAlgorithm) else model.policy
            actor.reset_noise(model.n_envs)
        if isinstance(model, RecurrentPPO):
            lstm: Any = model._last_lstm_states
            for state in (*lstm.pi, *lstm.vf):
                torch.zero_(state)

    def _restore_and_cut(self, checkpoint: Checkpoint) -> None:
        self._restore_statistics(checkpoint)
        self.cut(checkpoint.timesteps)

    def _restore_statistics(self, checkpoint: Checkpoint) -> None:
        # learn() has reset the envs by now, which moved the statistics that were loaded.
        normalizer = find_normalizer(self.model.env) if self.model.env is not None else None
        if normalizer is not None and checkpoint.statistics is not None:
            set_statistics(normalizer, checkpoint.statistics)

    # -- parts

    def _record_episodes(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        for index in np.flatnonzero(dones):
            record = infos[index].get("episode")
            if record is None:
                continue  # a lost life ends an episode for the learner, not for the player
            self._window.append(float(record["r"]))
            success = infos[index].get("is_success")
            row = {"env": int(index), "return": record["r"], "length": record["l"]}
            row["success"] = "" if success is None else int(success)
            self.files.episodes.add(self.model.num_timesteps, row)

    def _mean_training_return(self) -> float | None:
        recent = self.model.ep_info_buffer
        return float(np.mean([record["r"] for record in recent])) if recent else None

    def _evaluate(self, now: int) -> bool:
        """Evaluate with the statistics of this moment.

        :return: whether it is the best evaluation so far
        """
        settings = self.config.evaluation
        normalizer = find_normalizer(self.model.env) if self.model.env is not None else None
        evaluation = evaluate(
            self.model,
            self.recipe,
            get_statistics(normalizer) if normalizer is not None else None,
            episode_seeds(self.config, Stream.EVALUATION_IN_TRAINING),
            deterministic=bool(settings.deterministic),
            n_envs=settings.n_envs,
            should_stop=self.signals.check,
        )
        self._evaluated_at = now
        self.files.add_evaluation(now, evaluation)
        self.logger.record("eval/mean_reward", evaluation.mean_return)
        self.logger.record("eval/mean_ep_length", float(np.mean(evaluation.lengths)))
        if evaluation.success_rate is not None:
            self.logger.record("eval/success_rate", evaluation.success_rate)
        is_best = self.best_mean_return is None or evaluation.mean_return > self.best_mean_return
        if is_best:
            self.best_mean_return = evaluation.mean_return
        self._without_improvement = 0 if is_best else self._without_improvement + 1
        self.reporter.evaluated(now, evaluation, is_best)
        return is_best

    def _stop_early(self, evaluated: bool) -> None:
        settings = self.config.early_stop
        if settings is None:
            return
        goal = settings.mean_return
        if goal is not None and len(self._window) == settings.window and np.mean(self._window) >= goal:
            message = (
                f"the mean return of the last {settings.window} episodes, {np.mean(self._window):.1f}, reached {goal:g}"
            )
            raise StopRequested("early_stop", message)
        if evaluated and settings.patience is not None and self._without_improvement >= settings.patience:
            raise StopRequested("early_stop", f"{settings.patience} evaluations in a row brought no new best")


def _is_due(every: int | None, before: int, now: int) -> bool:
    """Whether a multiple of ``every`` was passed since the last boundary."""
    return bool(every) and now // every > before // every  # type: ignore[operator]
