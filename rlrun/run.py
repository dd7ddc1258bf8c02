"""``Run``: a run directory, and everything one does with it."""

from __future__ import annotations

import dataclasses
import html
import shlex
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlrun.config.loading import Override, Source, read_source, validate
from rlrun.console import note, terminal_reporter
from rlrun.errors import ConfigError, Interrupted, Problem, UsageError
from rlrun.runs.directory import RunDirectory
from rlrun.runs.files import write_json
from rlrun.runs.summary import RESULTS, listing, status_of, stored_results, summarize
from rlrun.words import describe_run

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rlrun.config.schema import Config
    from rlrun.evaluation.statistics import Evaluation
    from rlrun.publish.export import Export
    from rlrun.publish.video import Video
    from rlrun.runs.load import Agent
    from rlrun.training.progress import Reporter

# What may be changed when an existing run is evaluated; anything else would be another agent.
_EVALUATION_KEYS = ("env.kwargs", "evaluation")


@dataclasses.dataclass(frozen=True)
class Result:
    """An evaluation and what was evaluated.

    :ivar checkpoint: ``best``, ``final``, ``latest``, a number of timesteps, or ``untrained``
    :ivar seed: the run seed that the episodes' seeds derive from
    """

    run: str
    checkpoint: str
    timesteps: int
    seed: int
    evaluation: Evaluation

    def __repr__(self) -> str:
        played = self.evaluation
        score = (
            f"mean_return={played.mean_return:.6g}, std_return={played.std_return:.6g}, episodes={len(played.returns)}"
        )
        return f"Result({score}, checkpoint={self.checkpoint!r}, run={self.run!r})"

    @property
    def mean_return(self) -> float:
        """Mean undiscounted return over the episodes."""
        return self.evaluation.mean_return

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``rlrun eval --json``."""
        values = self.evaluation.as_dict()
        returns = values.pop("returns")
        place = {"run": self.run, "checkpoint": self.checkpoint, "timesteps": self.timesteps}
        head = {"episodes": values.pop("episodes"), "deterministic": values.pop("deterministic"), "seed": self.seed}
        return {**place, **head, **values, "returns": returns}


class Run:
    """A run directory, and everything one does with it.

    :param directory: where it is
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @cached_property
    def config(self) -> Config:
        """The fully resolved config."""
        return self.directory.config()

    @property
    def manifest(self) -> dict[str, Any]:
        """Status, command, versions, hardware, git state."""
        return self.directory.manifest()

    @property
    def status(self) -> str:
        """``finished``, ``running``, ``interrupted``, ``paused``, ``failed``, or ``killed``: its process is gone."""
        return status_of(self.directory)

    @cached_property
    def model(self) -> BaseAlgorithm:
        """The SB3 model of the best checkpoint (else the final, else the newest), ready to predict.

        Its observations must be normalized as in training: :meth:`evaluate` does that.
        """
        from rlrun.runs.load import load_agent

        return load_agent(self.directory, say=note).model

    def evaluate(
        self,
        episodes: int | None = None,
        *,
        checkpoint: str | int | None = None,
        seed: int | None = None,
        deterministic: bool | None = None,
        overrides: Mapping[str, Any] | None = None,
        trust: bool = False,
    ) -> Result:
        """Play episodes with one checkpoint.

        :param episodes: how many; None: the config's number (20)
        :param checkpoint: ``best``, ``final``, ``latest`` or timesteps; None: the first of these that there is
        :param seed: of the episodes; None: the run's own
        :param deterministic: None: the config's word
        :param overrides: ``{"env.kwargs.x": 1}``: what the evaluation env is given instead
        :param trust: import what the run's config names, though the run is not known to be this user's
        :raises UsageError: for a checkpoint that is not there, or an override that concerns training
        """
        from rlrun.runs.load import load_agent

        config = self._evaluation_config(overrides or {}, deterministic)
        which = None if checkpoint is None else str(checkpoint)
        agent = load_agent(self.directory, which, config, trust=trust, say=note)
        return evaluate_agent(agent, str(self.path), agent.checkpoint or "", episodes, seed)

    def _evaluation_config(self, overrides: Mapping[str, Any], deterministic: bool | None) -> Config:
        if not overrides and deterministic is None:
            return self.config
        for key in overrides:
            if not any(f"{key}.".startswith(f"{allowed}.") for allowed in _EVALUATION_KEYS):
                message = f'"{key}" belongs to the training of the run, so it cannot be set for an evaluation.'
                raise UsageError(message, "Evaluation takes env.kwargs.* and evaluation.*.")
        renamed = {_as_evaluation_key(key): value for key, value in overrides.items()}
        if deterministic is not None:
            renamed["evaluation.deterministic"] = deterministic
        source = read_source(self.path / "config.yaml", [Override(k, v, k) for k, v in renamed.items()])
        return validated(source)

    def resume(
        self,
        *,
        timesteps: int | None = None,
        max_time: float | None = None,
        exact: bool = False,
        steal: bool = False,
        overrides: Mapping[str, Any] | Sequence[Override] = (),
        trust: bool = False,
        progress: bool | Reporter = True,
        began: float | None = None,
    ) -> Run:
        """Continue from the newest checkpoint to the budget; returns at once when the run is finished.

        :param timesteps: a new budget, what was trained before included; schedules keep their end value
        :param max_time: seconds after which to stop cleanly; None: the config's
        :param exact: go back to the last scheduled checkpoint, if an interruption saved a newer one
        :param steal: take the run from a process that holds it
        :param overrides: ``{"hyperparameters.learning_rate": 1e-4}``: changes from here on
        :param trust: import what the run's config names, though the run is not known to be this user's
        :param began: the moment of ``time.monotonic`` that ``max_time`` counts from; None: now
        :raises UsageError: when another process trains the run, or a change does not fit
        """
        began = time.monotonic() if began is None else began
        from rlrun.training.continuing import Wishes
        from rlrun.training.train import resume as resume_training

        wishes = Wishes(timesteps, max_time, exact, steal, tuple(as_overrides(overrides)), trust)
        return Run(resume_training(self.directory, reporter_for(progress), wishes, began))

    def export(
        self, *, checkpoint: str | int | None = None, out: str | Path | None = None, trust: bool = False
    ) -> Export:
        """Write the agent of one checkpoint as an ONNX file: normalization, policy and the action's post-processing.

        Its actions have been compared with SB3's on 1,000 observations before it is written.

        :param checkpoint: ``best``, ``final``, ``latest`` or timesteps; None: the first of these that there is
        :param out: the file; None: ``export/<checkpoint>.onnx`` in the run
        :param trust: import what the run's config names, though the run is not known to be this user's
        :raises MissingPackage: without the extra ``onnx``
        :raises RlrunError: when the policy cannot be written as a graph, or the graph acts differently
        """
        from rlrun.publish.export import export_agent, require_packages
        from rlrun.runs.load import load_agent

        require_packages()
        which = None if checkpoint is None else str(checkpoint)
        config = self.config.model_copy(update={"device": "cpu"})
        agent = load_agent(self.directory, which, config, trust=trust, say=note)
        path = Path(out) if out is not None else self.path / "export" / f"{agent.checkpoint}.onnx"
        return export_agent(agent, path, str(self.path))

    def video(
        self,
        out: str | Path | None = None,
        *,
        checkpoint: str | int | None = None,
        episodes: int | None = None,
        length: int = 10_000,
        fps: float | None = None,
        gif: bool = False,
        overlay: bool = False,
        seed: int | None = None,
        trust: bool = False,
    ) -> Video:
        """Film the agent of one checkpoint; the file is whole, and decoded again to be sure.

        :param out: the MP4; None: in the run's folder ``videos``
        :param checkpoint: ``best``, ``final``, ``latest`` or timesteps; None: the first of these that there is
        :param episodes: how many; None: as many as fill 5 seconds, at most 10
        :param length: the agent's steps in all after which to end, also in the middle of an episode
        :param fps: frames a second; None: the env's ``render_fps``, else 30
        :param gif: write a GIF too, beside the MP4
        :param overlay: draw episode, step and return on the frames
        :param seed: of the episodes; None: the run's own
        :param trust: import what the run's config names, though the run is not known to be this user's
        :raises UsageError: for a checkpoint that is not there, or an env that cannot be filmed
        :raises RlrunError: when drawing or encoding fails; then there is no file
        """
        from rlrun.evaluation.filming import Filming
        from rlrun.publish.video import film_run

        return film_run(
            self.directory,
            self.config,
            None if checkpoint is None else str(checkpoint),
            None if out is None else Path(out),
            Filming(episodes, length, fps, gif, overlay),
            seed,
            trust=trust,
            say=note,
        )

    def watch(
        self,
        *,
        checkpoint: str | int | None = None,
        episodes: int | None = None,
        seed: int | None = None,
        trust: bool = False,
    ) -> list[float]:
        """Show the agent of one checkpoint in a window, until that is closed.

        :param checkpoint: ``best``, ``final``, ``latest`` or timesteps; None: the first of these that there is
        :param episodes: how many; None: without end
        :param seed: of the episodes; None: the run's own
        :param trust: import what the run's config names, though the run is not known to be this user's
        :return: the returns of the episodes that ended
        :raises UsageError: when there is no display, or the env cannot draw itself
        """
        from rlrun.publish.video import watch_run

        which = None if checkpoint is None else str(checkpoint)
        return watch_run(self.directory, self.config, which, episodes, seed, trust=trust, say=note)

    def summary(self) -> dict[str, Any]:
        """What ``rlrun show --json`` prints."""
        return summarize(self.directory)

    def description(self) -> dict[str, str]:
        """The same in words, for people."""
        return describe_run(self.summary())

    def whereabouts(self) -> dict[str, str]:
        """Where the best model is, and the commands for a closer look."""
        pointers = (self.directory.pointer(name) for name in ("best", "final", "latest"))
        models = (self.directory.checkpoint_path(steps) / "model.zip" for steps in pointers if steps is not None)
        found = {"model": str(next((model for model in models if model.exists()), ""))}
        if (self.path / "tensorboard").is_dir():
            found["curves"] = f"tensorboard --logdir {shlex.quote(str(self.path))}"
        return {**found, "again": f"rlrun eval {shlex.quote(str(self.path))}"}

    def listing(self) -> dict[str, Any]:
        """One row of ``rlrun runs``."""
        return listing(self.directory)

    def training_summary(self) -> dict[str, Any]:
        """The JSON of ``rlrun train --json``; evaluates the final and the best checkpoint when the run is finished."""
        manifest = self.manifest
        timesteps, seconds = manifest.get("timesteps") or 0, manifest.get("seconds") or 0.0
        return {
            "run": str(self.path),
            "algo": self.config.algo,
            "env": self.config.env.id,
            "seed": self.config.seed,
            "timesteps": timesteps,
            "seconds": seconds,
            "timesteps_per_second": timesteps / seconds if seconds else 0.0,
            **self.end_results(),
        }

    def end_results(self) -> dict[str, Any]:
        """Evaluations of the final and the best checkpoint, as plain values; None where there is none.

        They are made once and kept in ``results.json``.
        """
        final, best = (self.directory.pointer(name) for name in ("final", "best"))
        if final is None or self.config.evaluation.episodes == 0:
            return {"final": None, "best": None}
        stored = stored_results(self.directory)
        if stored is not None and (stored.get("final") or {}).get("timesteps") == final:
            return stored
        try:
            note("evaluating the final agent")
            at_end = self.evaluate(checkpoint="final").as_dict()
            at_best = {**at_end, "checkpoint": "best"} if best == final else None
            if best is not None and best != final:
                note("evaluating the best agent")
                at_best = self.evaluate(checkpoint="best").as_dict()
        except KeyboardInterrupt:
            message = f"Interrupted while the agent was evaluated; it is trained, and saved in {self.path}."
            raise Interrupted(message, f"Go on with: rlrun resume {shlex.quote(str(self.path))}") from None
        results = {"final": at_end, "best": at_best}
        write_json(self.path / RESULTS, results)
        self.directory.update_manifest({"mean_return": at_end["mean_return"]})
        return results

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, status={self.status!r})"

    def _repr_html_(self) -> str:
        words = {**self.description(), **self.whereabouts()}
        shown = ("status", "what", "timesteps", "time", "checkpoints", "final model", "best model", "run", "model")
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(words[name])}</td></tr>" for name in shown if words[name])
        return f"<table>{rows}</table>"


def evaluate_agent(agent: Agent, run: str, checkpoint: str, episodes: int | None, seed: int | None) -> Result:
    """Play episodes with an agent.

    :param run: where it comes from, for the report
    :param episodes: how many; None: the config's number
    :param seed: of the episodes; None: the config's own
    """
    from rlrun.evaluation.evaluate import about_cuts, episode_seeds
    from rlrun.evaluation.evaluate import evaluate as play

    config = agent.config
    seeds = episode_seeds(config, episodes, seed)
    if not seeds:
        raise ConfigError(
            [Problem("the config evaluates no episodes.", "evaluation.episodes", hint="Use --episodes N.")]
        )
    evaluation = play(
        agent.model,
        agent.recipe,
        agent.statistics,
        seeds,
        deterministic=bool(config.evaluation.deterministic),
        n_envs=config.evaluation.n_envs,
    )
    if cuts := about_cuts(evaluation):
        note(cuts)
    return Result(run, checkpoint, agent.timesteps, config.seed if seed is None else seed, evaluation)


def validated(source: Source) -> Config:
    """The config of a source that needs no checks beyond the schema's.

    :raises ConfigError: with every problem
    """
    config, problems = validate(source)
    if config is None:
        raise ConfigError(problems)
    return config


def as_overrides(given: Mapping[str, Any] | Sequence[Override]) -> list[Override]:
    """What ``overrides=`` means: a mapping from dotted keys, or Overrides."""
    if isinstance(given, Mapping):
        return [Override(key, value, f"overrides[{key!r}]") for key, value in given.items()]
    return list(given)


def reporter_for(progress: bool | Reporter) -> Reporter:
    """What ``progress=`` means: a terminal's reporter, none, or the one that was given."""
    from rlrun.training.progress import Silent

    if isinstance(progress, bool):
        return terminal_reporter() if progress else Silent()
    return progress


def _as_evaluation_key(key: str) -> str:
    prefix = "env.kwargs"
    return f"evaluation.env_kwargs{key.removeprefix(prefix)}" if f"{key}.".startswith(f"{prefix}.") else key
