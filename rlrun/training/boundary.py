"""What happens between two rollouts: log, film, evaluate, save, cut. One hook, so that their order is always the same.

At every checkpoint training is saved and then *cut*: the envs are built anew and every generator is seeded again,
from the run's seed and the number of timesteps. The run that goes on and the run that resumes from this checkpoint
make the same cut, so nothing else of the moment has to be saved, and both end with the same weights.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlrun.algorithms.q_learning import QLearning
from rlrun.config.schema import CHECKPOINTS, EVALUATIONS, LOG_ROWS, Config
from rlrun.envs.curiosity import Curiosity, find_curiosity
from rlrun.envs.normalization import Statistics, get_statistics, set_statistics
from rlrun.envs.recipe import EnvRecipe, RestartableVecEnv, find_normalizer
from rlrun.envs.seeding import Stream, draw_seeds, seed_global_generators
from rlrun.evaluation.evaluate import about_cuts, evaluate, training_seeds
from rlrun.runs.checkpoint import Checkpoint, prune_checkpoints, write_checkpoint
from rlrun.runs.directory import RunDirectory
from rlrun.runs.replay import truncate_at_cut
from rlrun.training.interruption import Stops, TrainingEnded
from rlrun.training.progress import Reporter
from rlrun.training.recorders import RunFiles, pending_values, set_pending_values
from rlrun.training.videos import TrainingVideos

BUDGET = "budget"  # why training usually ends
_TELL_EVERY = 10.0  # seconds


def seed_learner(config: Config, timesteps: int, action_space: Any) -> None:
    """Seed what the learner draws from, for the stretch that begins at ``timesteps``."""
    seed, space_seed = draw_seeds(config.seed, Stream.LEARNER, 2, timesteps)
    seed_global_generators(seed)
    action_space.seed(space_seed)


def done_by(config: Config, timesteps: int, episodes: int) -> int:
    """How much of a config's budget that many timesteps and episodes are."""
    return timesteps if config.budget_unit == "timesteps" else episodes


@dataclass(frozen=True)
class _RolloutStart:
    """What a rollout changes while it is played."""

    timesteps: int
    statistics: Statistics | None
    episodes: list[Any]
    successes: list[Any]
    window: list[float]


class Boundary(BaseCallback):
    """Evaluates, saves, cuts and stops a training session.

    :param envs: the part of the training envs that a cut builds anew
    :param began: the moment of ``time.monotonic`` at which this session began
    :param resumed_from: the checkpoint that this session continues, already loaded into the model
    :ivar ended_by: why training is over; empty while it is not
    """

    saves = True
    reads_transitions_only = True  # of the locals of a rollout; says to rlrun.accelerate what it need not compute

    def __init__(
        self,
        config: Config,
        run: RunDirectory,
        recipe: EnvRecipe,
        envs: RestartableVecEnv,
        files: RunFiles,
        reporter: Reporter,
        stops: Stops,
        began: float,
        resumed_from: Checkpoint | None = None,
    ) -> None:
        super().__init__()
        self.config, self.run, self.recipe, self.envs = config, run, recipe, envs
        self.files, self.reporter, self.stops = files, reporter, stops
        self._videos = TrainingVideos(config, run, recipe, reporter, stops)
        self._began, self._resumed_from = began, resumed_from
        self._told = time.monotonic()
        self._resumable = resumed_from.timesteps if resumed_from else None  # newest such checkpoint
        state = resumed_from.state["session"] if resumed_from else {}
        window = config.early_stop.window if config.early_stop else 1
        self._window: deque[float] = deque(state.get("window", ()), maxlen=window)
        self._best_mean_return: float | None = state.get("best_mean_return")
        self._best_timesteps: int | None = state.get("best_timesteps")
        self._without_improvement: int = state.get("without_improvement", 0)
        self._visited: int = state.get("visited", 0)  # timesteps of the last boundary
        self._visited_episodes: int = state.get("visited_episodes", 0)
        self._is_in_boundary: bool = state.get("in_boundary", False)
        self._seconds_before: float = state.get("seconds", 0.0)
        self.ended_by: str = state.get("ended_by", "")
        self._rollout: _RolloutStart | None = None  # while one is played

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training, those of earlier sessions included."""
        return round(self._seconds_before + time.monotonic() - self._began, 3)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do, because the checkpoint that this session continues is the final one."""
        return bool(self.ended_by) and self._resumed_from is not None and self._visited == self._resumed_from.timesteps

    # -- SB3's hooks

    def _on_step(self) -> bool:
        self.stops.check()
        dones = self.locals.get("dones")
        if dones is not None and dones.any():
            self._record_episodes(dones, self.locals["infos"])
        return True

    def _on_rollout_start(self) -> None:
        if self._resumed_from is not None:
            self._go_on(self._resumed_from)
        else:
            self._visit()
        if self.ended_by:
            raise TrainingEnded
        self._rollout = self._where_it_is()

    def _on_rollout_end(self) -> None:
        self._rollout = None

    # -- the boundary

    def end(self, ended_by: str) -> None:
        """Do the last boundary: evaluate and save whatever the spacing says, and let ``final`` name the checkpoint."""
        if self._resumed_from is not None:  # the budget was used up already, so no rollout began
            self._restore(self._resumed_from)
        self.ended_by = ended_by
        self._visit(ended_by)

    def _visit(self, ended_by: str = "") -> bool:
        """Do what is due at this many timesteps.

        :param ended_by: why training is over, if it is
        :return: whether the envs were cut
        """
        now, settings = self.model.num_timesteps, self.config
        self._is_in_boundary = True
        if self._curiosity is not None:
            for name, value in self._curiosity.learn().items():
                self.logger.record(f"curiosity/{name}", value)
        self.reporter.progressed(done_by(settings, now, self.model._episode_num), self._mean_training_return())
        self._say_where_it_is(now)
        ended_by = ended_by or self._goal_reached()
        if self._is_due(settings.video.every):
            self._videos.film(self.model, self._statistics(), now)
        evaluation_due = self._is_evaluation_due(at_end=bool(ended_by))
        is_best = evaluation_due and self._evaluate(now)
        ended_by = ended_by or self._patience_used_up()
        checkpoint_due = bool(ended_by) or self._is_due(settings.checkpoint.every, CHECKPOINTS)
        # The logger is emptied at every checkpoint, so that no half-collected row is lost.
        if checkpoint_due or evaluation_due or self._is_due(settings.log_every, LOG_ROWS):
            self.model.dump_logs()
        self._visited, self._visited_episodes = now, self.model._episode_num
        self._is_in_boundary, self.ended_by = False, ended_by
        if checkpoint_due or is_best:
            self._keep(now, [*(["best"] if is_best else []), *(["final"] if ended_by else [])], checkpoint_due)
        if checkpoint_due and settings.checkpoint.exact and not ended_by:
            self.cut(now)
            return True
        return False

    def _keep(self, now: int, pointers: list[str], resumable: bool) -> None:
        """Write a checkpoint, and let pointers name it."""
        self.save(scheduled=True, resumable=resumable)
        for name in pointers:
            self.run.point(name, now)
        prune_checkpoints(self.run, self.config.checkpoint.keep)

    def _say_where_it_is(self, now: int) -> None:
        """For `rlrun show`, now and then."""
        if time.monotonic() - self._told > _TELL_EVERY:
            self._told = time.monotonic()
            self.stops.check_lock()
            self.run.update_manifest(self.progress(self.model))

    def progress(self, model: BaseAlgorithm) -> dict[str, Any]:
        """What the manifest says of how far training is."""
        episodes = {"episodes": model._episode_num} if self.config.budget_unit == "episodes" else {}
        return {"timesteps": model.num_timesteps, **episodes, "seconds": self.seconds}

    def _is_evaluation_due(self, at_end: bool) -> bool:
        settings = self.config.evaluation
        if not settings.episodes or (at_end and self._visited == self.model.num_timesteps):
            return False
        return at_end or self._is_due(settings.every, EVALUATIONS)

    def _is_due(self, every: int | None, times: int = 1) -> bool:
        """Whether a multiple of ``every`` timesteps was passed since the last boundary.

        :param every: 0: never; None: where the budget is episodes, ``times`` in as many as the config has them
        """
        before, now = self._visited, self.model.num_timesteps
        if every is None:
            every = max(1, self.config.horizon // times)
            before, now = self._visited_episodes, self.model._episode_num
        return every > 0 and now // every > before // every

    def save(self, scheduled: bool, resumable: bool = True) -> int:
        """Write a checkpoint of this moment and let ``latest`` name it.

        :param scheduled: at a boundary, not at an interruption
        :return: its timesteps
        """
        self.stops.check_lock()
        self.files.flush()
        session = {
            "best_mean_return": self._best_mean_return,
            "best_timesteps": self._best_timesteps,
            "without_improvement": self._without_improvement,
            "window": list(self._window),
            "visited": self._visited,
            "visited_episodes": self._visited_episodes,
            "in_boundary": self._is_in_boundary,
            "seconds": self.seconds,
            "ended_by": self.ended_by,
            "logged": pending_values(self.logger),
        }
        previous = self._resumable if self._resumable in self.run.checkpoint_steps() else None
        timesteps = write_checkpoint(
            self.run, self.model, session, resumable=resumable, scheduled=scheduled, previous=previous
        )
        if resumable:
            self._resumable = timesteps
        self.run.point("latest", timesteps)
        self.run.update_manifest(self.progress(self.model))
        return timesteps

    def save_interrupted(self) -> None:
        """Write a checkpoint of an interruption.

        On-policy, nothing is learnt of a rollout until it is whole: the agent is still the one of the rollout's start,
        so the checkpoint is of that moment, and the rollout is played again. Others learn on the way.
        """
        if self._rollout is not None and not isinstance(self.model, OffPolicyAlgorithm | QLearning):
            self._go_back_to(self._rollout)
        now = self.model.num_timesteps
        here = self.run.checkpoint_state(now) if now in self.run.checkpoint_steps() else {}
        if now and not (here.get("resumable") and here.get("scheduled")):
            self.save(scheduled=False)

    def _where_it_is(self) -> _RolloutStart:
        model = self.model
        infos = list(model.ep_info_buffer or ()), list(model.ep_success_buffer or ())
        return _RolloutStart(model.num_timesteps, self._statistics(), *infos, list(self._window))

    def _go_back_to(self, start: _RolloutStart) -> None:
        model: Any = self.model
        model.num_timesteps = start.timesteps
        normalizer = find_normalizer(model.env)
        if normalizer is not None and start.statistics is not None:
            set_statistics(normalizer, start.statistics)
        for buffer, items in (
            (model.ep_info_buffer, start.episodes),
            (model.ep_success_buffer, start.successes),
            (self._window, start.window),
        ):
            buffer.clear()
            buffer.extend(items)

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

    def _go_on(self, checkpoint: Checkpoint) -> None:
        """Begin where the checkpoint was saved: inside the boundary that was interrupted, or after it."""
        now = self.model.num_timesteps
        self._restore(checkpoint)
        if self._is_in_boundary and self._visit():
            return
        if self.ended_by:
            return
        self.cut(now)
        if not (checkpoint.state["scheduled"] and self.config.checkpoint.exact):
            cuts = self.run.manifest().get("extra_cuts") or []
            self.run.update_manifest({"extra_cuts": sorted({*cuts, now})})

    def _restore(self, checkpoint: Checkpoint) -> None:
        # learn() has reset the envs by now, which moved the statistics that were loaded.
        normalizer = find_normalizer(self.model.env)
        if normalizer is not None and checkpoint.statistics is not None:
            set_statistics(normalizer, checkpoint.statistics)
        if self._curiosity is not None:
            self._curiosity.set_state(checkpoint.curiosity() or {})
        set_pending_values(self.logger, checkpoint.state["session"]["logged"])
        self._resumed_from = None

    # -- parts

    @property
    def _curiosity(self) -> Curiosity | None:
        return find_curiosity(self.model.env) if self.config.curiosity is not None else None

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
        evaluation = evaluate(
            self.model,
            self.recipe,
            self._statistics(),
            training_seeds(self.config),
            deterministic=bool(settings.deterministic),
            n_envs=settings.n_envs,
            should_stop=self.stops.check,
        )
        self.files.add_evaluation(now, evaluation)
        self.logger.record("eval/mean_reward", evaluation.mean_return)
        self.logger.record("eval/mean_ep_length", float(np.mean(evaluation.lengths)))
        if evaluation.success_rate is not None:
            self.logger.record("eval/success_rate", evaluation.success_rate)
        is_best = self._best_mean_return is None or evaluation.mean_return > self._best_mean_return
        if is_best:
            self._best_mean_return, self._best_timesteps = evaluation.mean_return, now
        self._without_improvement = 0 if is_best else self._without_improvement + 1
        self.reporter.evaluated(now, evaluation, is_best)
        if cuts := about_cuts(evaluation):
            self.reporter.said(cuts)
        return is_best

    def _statistics(self) -> Statistics | None:
        """The normalization statistics of this moment."""
        normalizer = find_normalizer(self.model.env)
        return get_statistics(normalizer) if normalizer is not None else None

    def _goal_reached(self) -> str:
        """Why the training return ends training; empty when it does not."""
        settings = self.config.early_stop
        if settings is None or settings.mean_return is None or len(self._window) < settings.window:
            return ""
        mean = float(np.mean(self._window))
        if mean < settings.mean_return:
            return ""
        return f"the mean return of the last {settings.window} episodes, {mean:.1f}, reached {settings.mean_return:g}"

    def _patience_used_up(self) -> str:
        """Why the evaluations end training; empty when they do not."""
        patience = self.config.early_stop.patience if self.config.early_stop else None
        if patience is None or self._without_improvement < patience:
            return ""
        return f"{patience} evaluations in a row brought no new best"
