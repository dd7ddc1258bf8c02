"""What a user can do from Python: the functions behind the commands, and ``Run``."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlrun.config import locate
from rlrun.config.loading import Override, Source, dotted, leaves, read_source
from rlrun.console import describe_evaluation, duration, size, terminal_reporter
from rlrun.errors import ConfigError, Problem, UsageError, shown
from rlrun.runs.directory import RunDirectory, delete_run, find_run, iterate_runs
from rlrun.runs.files import write_json, write_whole

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rlrun.config.schema import Config
    from rlrun.envs.check import EnvReport
    from rlrun.evaluation.statistics import Evaluation
    from rlrun.training.plan import Plan
    from rlrun.training.progress import Reporter

ConfigLike = str | Path | Mapping[str, Any]
RUNS = "runs"
_RESULTS = "results.json"
# What may be changed when an existing run is evaluated; anything else would be another agent.
_EVALUATION_KEYS = ("env.kwargs.", "evaluation.")


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
        """``finished``, ``running``, ``interrupted``, ``paused`` or ``failed``."""
        return str(self.manifest.get("status", "unknown"))

    @cached_property
    def model(self) -> BaseAlgorithm:
        """The SB3 model of the best checkpoint (else the final, else the newest), ready to predict.

        Its observations must be normalized as in training: :meth:`evaluate` does that.
        """
        from rlrun.runs.load import load_agent

        return load_agent(self.directory).model

    def evaluate(
        self,
        episodes: int | None = None,
        *,
        checkpoint: str | int | None = None,
        seed: int | None = None,
        deterministic: bool | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Result:
        """Play episodes with one checkpoint.

        :param episodes: how many; None: the config's number (20)
        :param checkpoint: ``best``, ``final``, ``latest`` or timesteps; None: the first of these that there is
        :param seed: of the episodes; None: the run's own
        :param deterministic: None: the config's word
        :param overrides: ``{"env.kwargs.x": 1}``: what the evaluation env is given instead
        :raises UsageError: for a checkpoint that is not there, or an override that concerns training
        """
        from rlrun.runs.load import load_agent

        config = self._evaluation_config(overrides or {}, deterministic)
        agent = load_agent(self.directory, None if checkpoint is None else str(checkpoint), config)
        return _evaluate(agent, str(self.path), agent.checkpoint or "", episodes, seed)

    def _evaluation_config(self, overrides: Mapping[str, Any], deterministic: bool | None) -> Config:
        if not overrides and deterministic is None:
            return self.config
        for key in overrides:
            if not key.startswith(_EVALUATION_KEYS):
                message = f'"{key}" belongs to the training of the run, so it cannot be set for an evaluation.'
                raise UsageError(message, "Evaluation takes env.kwargs.* and evaluation.*.")
        renamed = {_as_evaluation_key(key): value for key, value in overrides.items()}
        if deterministic is not None:
            renamed["evaluation.deterministic"] = deterministic
        source = read_source(self.path / "config.yaml", [Override(k, v, k) for k, v in renamed.items()])
        return _validated(source)

    def resume(self, *, max_time: float | None = None, progress: bool | Reporter = True) -> Run:
        """Continue from the newest checkpoint to the budget; returns at once when the run is finished."""
        from rlrun.training.train import resume as resume_training

        return Run(resume_training(self.directory, _reporter(progress), max_time))

    def summary(self) -> dict[str, Any]:
        """What ``rlrun show`` prints, as plain values."""
        manifest, config = self.manifest, self.config
        pointers = {name: self.directory.pointer(name) for name in ("best", "final", "latest")}
        return {
            "run": str(self.path),
            "status": self.status,
            "algo": config.algo,
            "env": config.env.id,
            "seed": config.seed,
            "timesteps": manifest.get("timesteps"),
            "total_timesteps": config.total_timesteps,
            "seconds": manifest.get("seconds"),
            "created": manifest.get("created"),
            "ended_by": manifest.get("ended_by") or manifest.get("stopped_by"),
            "error": manifest.get("error"),
            "notes": manifest.get("notes"),
            "parent": manifest.get("parent"),
            "checkpoints": self.directory.checkpoint_steps(),
            **pointers,
            "last_evaluation": last_evaluation(self.path),
            "results": self._stored_results(),
            "bytes": self.directory.size(),
            "versions": manifest.get("versions"),
            "hardware": manifest.get("hardware"),
            "git": manifest.get("git"),
            "command": manifest.get("command"),
        }

    def description(self) -> dict[str, str]:
        """The same in words, for people."""
        values = self.summary()
        done, budget = values["timesteps"] or 0, values["total_timesteps"]
        last = values["last_evaluation"]
        kept = [
            f"{steps:,}" + "".join(f" ({name})" for name in ("best", "final") if values[name] == steps)
            for steps in values["checkpoints"]
        ]
        words = {
            "run": values["run"],
            "status": values["status"] + (f" ({values['ended_by']})" if values["ended_by"] else ""),
            "error": values["error"] or "",
            "what": f"{values['algo']} on {values['env']}, seed {values['seed']}",
            "timesteps": f"{done:,} of {budget:,}",
            "time": duration(values["seconds"] or 0),
            "checkpoints": ", ".join(kept),
            "evaluated": "",
            "final": "",
            "best": "",
            "notes": "; ".join(values["notes"] or ()),
            "size": size(values["bytes"]),
            "machine": "{cpu}, {cores} cores".format(**values["hardware"]) if values["hardware"] else "",
            "versions": ", ".join(f"{name} {v}" for name, v in (values["versions"] or {}).items()),
            "git": "{commit}{dirty}".format(**_git_words(values["git"])) if values["git"] else "",
            "command": " ".join(values["command"] or ()),
        }
        if last:
            words["evaluated"] = f"{last['mean_return']:.2f} over {last['episodes']} episodes at {last['timesteps']:,}"
        for name, result in (values["results"] or {}).items():
            words[name] = describe_evaluation(result)
        return words

    def whereabouts(self) -> dict[str, str]:
        """Where the best model is, and the commands for a closer look."""
        pointers = ((name, self.directory.pointer(name)) for name in ("best", "final", "latest"))
        steps = next((steps for _, steps in pointers if steps is not None), None)
        return {
            "model": str(self.directory.checkpoint_path(steps) / "model.zip") if steps is not None else "",
            "curves": f"tensorboard --logdir {self.path}",
            "again": f"rlrun eval {self.path}",
        }

    def listing(self) -> dict[str, Any]:
        """One row of ``rlrun runs``, from the manifest alone."""
        manifest = self.manifest
        seconds = manifest.get("seconds")
        return {
            "run": "/".join(self.path.parts[-3:]),
            "status": manifest.get("status", "unknown"),
            "seed": manifest.get("seed"),
            "timesteps": manifest.get("timesteps"),
            "seconds": None if seconds is None else round(seconds, 1),
            "return": manifest.get("mean_return"),
        }

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
        stored = self._stored_results()
        if stored is not None and stored["final"]["timesteps"] == final:
            return stored
        at_end = self.evaluate(checkpoint="final").as_dict()
        if best is None:
            best = final
        at_best = {**at_end, "checkpoint": "best"} if best == final else self.evaluate(checkpoint="best").as_dict()
        results = {"final": at_end, "best": at_best}
        write_json(self.path / _RESULTS, results)
        self.directory.update_manifest({"mean_return": at_end["mean_return"]})
        return results

    def _stored_results(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self.path / _RESULTS).read_text()))
        except (OSError, ValueError):
            return None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, status={self.status!r})"

    def _repr_html_(self) -> str:
        shown = ("status", "algo", "env", "seed", "timesteps", "seconds", "checkpoints", "best", "final", "run")
        values = self.summary()
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(str(values[name]))}</td></tr>" for name in shown)
        return f"<table>{rows}</table>"


def train(
    config: ConfigLike,
    *,
    seed: int | None = None,
    timesteps: int | None = None,
    overrides: Mapping[str, Any] | Sequence[Override] = (),
    run_dir: str | Path = RUNS,
    name: str | None = None,
    resume: bool = False,
    progress: bool | Reporter = True,
) -> Run:
    """Train an agent.

    :param config: a path, the name of a shipped config, or a mapping
    :param seed: instead of the config's
    :param timesteps: instead of the config's ``total_timesteps``
    :param overrides: ``{"hyperparameters.gamma": 0.98}``
    :param run_dir: where run directories are made
    :param name: of the run directory; None: a UTC stamp and the seed
    :param resume: with ``name``: continue that run if it is there, and do nothing if it is finished
    :param progress: show a progress bar (or lines); or a Reporter
    :return: the finished run
    :raises ConfigError: with every problem, before anything is created
    """
    if resume and name is None:
        raise UsageError("--resume needs --name: the run to start or continue.", "Or `rlrun resume RUN`.")
    from rlrun.training.train import start

    given = [*_overrides(overrides)]
    given += [Override("seed", seed, "--seed")] if seed is not None else []
    given += [Override("total_timesteps", timesteps, "--timesteps")] if timesteps is not None else []
    plan = _plan(config, given)
    if resume and name is not None:
        existing = Path(run_dir, locate.folder_name(plan.config.env.id), plan.config.algo, locate.folder_name(name))
        if (existing / "config.yaml").exists():
            return _continue(Run(RunDirectory.open(existing)), plan.config, progress)
    return Run(start(plan, Path(run_dir), name, _reporter(progress)))


def _continue(run: Run, config: Config, progress: bool | Reporter) -> Run:
    """Resume a named run, if it is the run that the config describes."""
    before, now = (
        {dotted(path): value for path, value in leaves(c.model_dump(by_alias=True, exclude={"max_time"}))}
        for c in (run.config, config)
    )
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        key = changed[0]
        message = (
            f"The run {run.path} has another config: {key} is {shown(before.get(key))}, not {shown(now.get(key))}."
        )
        raise UsageError(message, "Resume it with its own config, or choose another --name.")
    return run.resume(max_time=config.max_time, progress=progress)


def resume(run: str | Path | Run, *, run_dir: str | Path = RUNS, progress: bool | Reporter = True) -> Run:
    """Continue an interrupted run to its budget."""
    return open_run(run, run_dir=run_dir).resume(progress=progress)


def open_run(run: str | Path | Run, *, run_dir: str | Path = RUNS) -> Run:
    """A run by its path, a unique part of its name, or ``latest``."""
    return run if isinstance(run, Run) else Run(find_run(str(run), Path(run_dir)))


def evaluate(
    config: ConfigLike,
    *,
    episodes: int | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | Sequence[Override] = (),
) -> Result:
    """Score a config's untrained network: the baseline that training must beat.

    For a trained agent use :meth:`Run.evaluate`.
    """
    from rlrun.runs.load import untrained_agent

    plan = _plan(config, _overrides(overrides))
    agent = untrained_agent(plan.config, plan.recipe)
    return _evaluate(agent, str(plan.source.path or ""), "untrained", episodes, seed)


def check(config: ConfigLike, *, overrides: Mapping[str, Any] | Sequence[Override] = (), env: bool = True) -> Plan:
    """Check a config in full, without training.

    :param env: build the env once, to check against its spaces
    :raises ConfigError: with every problem
    """
    return _plan(config, _overrides(overrides), probe_env=env)


def configs(containing: str = "") -> dict[str, Path]:
    """The shipped configs, by name."""
    return {name: path for name, path in locate.shipped_configs().items() if containing.lower() in name.lower()}


def list_runs(run_dir: str | Path = RUNS) -> list[Run]:
    """All runs below a folder."""
    return [Run(directory) for directory in iterate_runs(Path(run_dir))]


def prune(run: str | Path | Run, *, run_dir: str | Path = RUNS, everything: bool = False) -> int:
    """Make room: keep the best and final checkpoints of a finished run, without replay buffers.

    :param everything: delete the whole run instead
    :return: bytes freed
    """
    from rlrun.runs.checkpoint import prune_checkpoints, remove_leftovers, shrink_to_evaluation

    directory = open_run(run, run_dir=run_dir).directory
    status = directory.manifest().get("status")
    if status == "running":
        raise UsageError(f"The run {directory.name} is still training.", "Stop it first (Ctrl-C).")
    before = directory.size()
    if everything:
        delete_run(directory)
        return before
    remove_leftovers(directory)
    if status != "finished":
        prune_checkpoints(directory, keep=1)
        return before - directory.size()
    prune_checkpoints(directory, keep=1)
    for timesteps in directory.checkpoint_steps():
        shrink_to_evaluation(directory, timesteps)
    return before - directory.size()


def init(env: str, algo: str, out: str | Path | None = None) -> Path:
    """Write a commented config for an env and an algorithm, made from the env's spaces.

    :param out: the file; None: ``configs/<env id>/<algo>.yaml``
    :return: the file
    :raises UsageError: when the file is there already, or the two do not fit
    """
    from rlrun.training.template import config_template

    path = Path(out) if out is not None else Path("configs", locate.folder_name(env), f"{algo}.yaml")
    if path.exists():
        raise UsageError(f"{path} is there already.", "Choose another file with --out.")
    text = config_template(env, algo, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    return path


def check_env(env: str, *, overrides: Mapping[str, Any] | None = None) -> EnvReport:
    """Is this env correct, repeatable, fast, renderable?

    :param env: registered id, ``module:Id-v0``, or ``module:Class``
    :param overrides: ``{"env.kwargs.x": 1, "env.imports": ["pkg"]}``
    """
    from rlrun.config.classes import make_importable
    from rlrun.envs.check import check_env as check_one
    from rlrun.training.plan import user_folders

    make_importable(user_folders(None))
    given = [Override(key, value, f"--set {key}") for key, value in (overrides or {}).items()]
    source = read_source({"algo": "ppo", "env": {"id": env}, "total_timesteps": 1}, given)
    return check_one(_validated(source).env, user_folders(None))


def schema() -> dict[str, Any]:
    """The JSON Schema of configs, for editors."""
    from rlrun.training.json_schema import config_schema

    return config_schema()


def last_evaluation(path: Path) -> dict[str, Any] | None:
    """The newest evaluation of a run during training, read from evaluations.csv."""
    import csv

    try:
        with (path / "evaluations.csv").open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("return")]
    except OSError:
        return None
    last = [float(row["return"]) for row in rows if row["timesteps"] == rows[-1]["timesteps"]]
    if not last:
        return None
    return {"timesteps": int(rows[-1]["timesteps"]), "mean_return": sum(last) / len(last), "episodes": len(last)}


def load_source(config: ConfigLike, overrides: Iterable[Override] = ()) -> Source:
    """Read a config, given in any of the ways one can give it, with overrides applied."""
    if isinstance(config, Mapping):
        return read_source(config, overrides)
    return read_source(locate.find_config(config), overrides)


def _plan(config: ConfigLike, overrides: Iterable[Override], probe_env: bool = True) -> Plan:
    from rlrun.training.plan import make_plan

    return make_plan(load_source(config, overrides), probe_env)


def _overrides(given: Mapping[str, Any] | Sequence[Override]) -> list[Override]:
    if isinstance(given, Mapping):
        return [Override(key, value, f"overrides[{key!r}]") for key, value in given.items()]
    return list(given)


def _reporter(progress: bool | Reporter) -> Reporter:
    from rlrun.training.progress import Silent

    if isinstance(progress, bool):
        return terminal_reporter() if progress else Silent()
    return progress


def _as_evaluation_key(key: str) -> str:
    prefix = "env.kwargs."
    return f"evaluation.env_kwargs.{key.removeprefix(prefix)}" if key.startswith(prefix) else key


def _validated(source: Source) -> Config:
    from rlrun.config.loading import validate

    config, problems = validate(source)
    if config is None:
        raise ConfigError(problems)
    return config


def _evaluate(agent: Any, run: str, checkpoint: str, episodes: int | None, seed: int | None) -> Result:
    from rlrun.envs.seeding import Stream
    from rlrun.evaluation.evaluate import episode_seeds
    from rlrun.evaluation.evaluate import evaluate as play

    config = agent.config
    seeds = episode_seeds(config, Stream.EVALUATION, episodes, seed)
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
    return Result(run, checkpoint, agent.timesteps, config.seed if seed is None else seed, evaluation)


def _git_words(state: Mapping[str, Any]) -> dict[str, str]:
    return {"commit": state["commit"][:12], "dirty": " with uncommitted changes" if state["dirty"] else ""}
