"""What a user can do from Python: the functions behind the commands."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from rlrun.config import locate
from rlrun.config.loading import Override, Source, apply_overrides, dotted, leaves, read_source
from rlrun.config.zoo import is_zoo_file
from rlrun.console import note
from rlrun.errors import UsageError, shown
from rlrun.run import Result, Run, as_overrides, evaluate_agent, reporter_for, validated
from rlrun.runs.directory import (
    CONFIG,
    MAY_DIFFER,
    RunDirectory,
    checked_name,
    delete_run,
    find_run,
    iterate_runs,
    run_folder,
)
from rlrun.runs.files import os_errors_in_words, write_whole

if TYPE_CHECKING:
    from rlrun.config.schema import Config
    from rlrun.envs.check import EnvReport
    from rlrun.evidence.comparing import Compared
    from rlrun.evidence.curves import GroupCurve
    from rlrun.evidence.difference import Difference
    from rlrun.evidence.scores import Seed
    from rlrun.evidence.why import Finding
    from rlrun.hub.publishing import Verdict
    from rlrun.publish.package import Package
    from rlrun.runs.groups import Group
    from rlrun.training.plan import Plan
    from rlrun.training.progress import Reporter
    from rlrun.training.zoo import ZooEntry

ConfigLike = Union[str, Path, Mapping[str, Any], "ZooEntry"]
RUNS = "runs"


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

    :param config: a path, the name of a shipped config, a mapping, or a :class:`ZooEntry` of a file in RL Zoo's format
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
    began = time.monotonic()
    if resume and name is None:
        raise UsageError("--resume needs --name: the run to start or continue.", "Or `rlrun resume RUN`.")
    from rlrun.training.train import start

    given = [*as_overrides(overrides)]
    given += [Override("seed", seed, "--seed")] if seed is not None else []
    given += [Override("total_timesteps", timesteps, "--timesteps")] if timesteps is not None else []
    if name is not None:
        checked_name(name)
    plan = _plan(config, given, run_dir=Path(run_dir))
    if resume and name is not None:
        existing = run_folder(Path(run_dir), plan.config) / name
        if (existing / CONFIG).exists():
            return _continue(Run(RunDirectory.open(existing)), plan.config, progress, began)
    return Run(start(plan, Path(run_dir), name, reporter_for(progress), began))


def _continue(run: Run, config: Config, progress: bool | Reporter, began: float) -> Run:
    """Resume a named run, if it is the run that the config describes."""
    before, now = (
        {dotted(path): value for path, value in leaves(c.model_dump(by_alias=True, exclude=set(MAY_DIFFER)))}
        for c in (run.config, config)
    )
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        key = changed[0]
        message = (
            f"The run {run.path} has another config: {key} is {shown(before.get(key))}, not {shown(now.get(key))}."
        )
        raise UsageError(message, "Resume it with its own config, or choose another --name.")
    # Whoever gives the very config trusts what it names.
    return run.resume(max_time=config.max_time, progress=progress, began=began, trust=True)


def resume(
    run: str | Path | Run,
    *,
    timesteps: int | None = None,
    max_time: float | None = None,
    exact: bool = False,
    steal: bool = False,
    overrides: Mapping[str, Any] | Sequence[Override] = (),
    trust: bool = False,
    run_dir: str | Path = RUNS,
    progress: bool | Reporter = True,
) -> Run:
    """Continue a run to its budget, or to a new one; see :meth:`Run.resume`."""
    return open_run(run, run_dir=run_dir).resume(
        timesteps=timesteps,
        max_time=max_time,
        exact=exact,
        steal=steal,
        overrides=overrides,
        trust=trust,
        progress=progress,
    )


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

    plan = _plan(config, as_overrides(overrides))
    agent = untrained_agent(plan.config, plan.recipe)
    return evaluate_agent(agent, str(plan.source.path or ""), "untrained", episodes, seed)


def evaluate_file(
    path: str | Path,
    *,
    algo: str | None = None,
    env: str | None = None,
    config: str | Path | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | Sequence[Override] = (),
    trust: bool = False,
) -> Result:
    """Score an agent that rlrun did not train; see :func:`rlrun.outside.evaluate_file`."""
    from rlrun import outside

    return outside.evaluate_file(
        Path(path),
        algo=algo,
        env=env,
        config=config,
        episodes=episodes,
        seed=seed,
        overrides=as_overrides(overrides),
        trust=trust,
        say=note,
    )


def inspect(path: str | Path, *, run_dir: str | Path = RUNS) -> dict[str, Any]:
    """What a model, folder, run or pickle holds, and whether loading it would need trust. Nothing of it is run."""
    from rlrun import outside

    return outside.inspect(Path(path), Path(run_dir))


def trust(run: str | Path | Run, *, run_dir: str | Path = RUNS) -> list[str]:
    """Say that a run of someone else's may import what its config names.

    :return: what it names
    """
    from rlrun.runs.trust import trust as sign_anyway

    return sign_anyway(open_run(run, run_dir=run_dir).directory)


def package(
    run: str | Path | Run,
    *,
    out: str | Path | None = None,
    repo: str | None = None,
    checkpoint: str | int | None = None,
    episodes: int = 100,
    logs: bool = False,
    video: bool = True,
    run_dir: str | Path = RUNS,
    trust: bool = False,
) -> Package:
    """Make the folder that :func:`push` would push; see :func:`rlrun.hub.publishing.package`."""
    from rlrun.hub import publishing

    found = open_run(run, run_dir=run_dir)
    place = Path(out) if out is not None else None
    return publishing.package(
        found, place, repo=repo, checkpoint=checkpoint, episodes=episodes, logs=logs, video=video, trust=trust
    )


def push(
    run: str | Path | Run,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    checkpoint: str | int | None = None,
    episodes: int = 100,
    logs: bool = False,
    video: bool = True,
    run_dir: str | Path = RUNS,
    trust: bool = False,
) -> tuple[Package, str]:
    """Package a run and put it on the Hugging Face Hub, in one commit.

    :param run: or the folder of a package, which is pushed as it is
    :param repo: ``user/name``; made if it is not there
    :return: the package, and the commit's address
    :raises UsageError: without a token that may write; before anything is made
    :raises RlrunError: when it fails; the repository is as before, and the package stays
    """
    from rlrun.hub import publishing
    from rlrun.publish.package import is_package

    if not isinstance(run, Run) and is_package(Path(run)):
        return publishing.push_package(Path(run), repo, private=private, revision=revision)
    return publishing.push(
        open_run(run, run_dir=run_dir),
        repo,
        private=private,
        revision=revision,
        checkpoint=checkpoint,
        episodes=episodes,
        logs=logs,
        video=video,
        trust=trust,
    )


def pull(
    repo: str,
    *,
    revision: str | None = None,
    name: str | None = None,
    env: str | None = None,
    algo: str | None = None,
    run_dir: str | Path = RUNS,
) -> Run:
    """Make a run directory of a repository on the Hub; nothing of it is run.

    :param name: of the run; None: a UTC stamp
    :param env: the env's id, where the repository does not say it or names one that is gone
    """
    from rlrun.hub import publishing

    return publishing.pull(repo, revision, Path(run_dir), name, env, algo)


def verify(
    place: str | Path,
    *,
    revision: str | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    env: str | None = None,
    algo: str | None = None,
) -> Verdict:
    """Does the card's score hold? Fetch, evaluate on seeds of our own, compare.

    :param place: ``user/name``, or a local package
    """
    from rlrun.hub import publishing

    return publishing.verify(str(place), revision, episodes, seed, env, algo)


def check(config: ConfigLike, *, overrides: Mapping[str, Any] | Sequence[Override] = (), env: bool = True) -> Plan:
    """Check a config in full, without training.

    :param env: build the env once, to check against its spaces
    :raises ConfigError: with every problem
    """
    return _plan(config, as_overrides(overrides), probe_env=env)


def configs(containing: str = "") -> dict[str, Path]:
    """The shipped configs, by name: rlrun's own, and RL Zoo's where the filter begins with ``zoo`` or fits no other."""
    word = containing.lower()
    own = {name: path for name, path in locate.shipped_configs().items() if word in name.lower()}
    if own or not word:
        return own
    part = word.removeprefix("zoo").lstrip("/")
    return {name: path for name, path in locate.zoo_configs().items() if part in name[len(locate.ZOO) :].lower()}


def list_runs(run_dir: str | Path = RUNS) -> list[Run]:
    """All runs below a folder."""
    return [Run(directory) for directory in iterate_runs(Path(run_dir))]


def prune(run: str | Path | Run, *, run_dir: str | Path = RUNS, everything: bool = False) -> int:
    """Make room: keep the best and final checkpoints of a finished run, without replay buffers.

    :param everything: delete the whole run instead
    :return: bytes freed
    """
    from rlrun.runs.checkpoint import prune_checkpoints, remove_leftovers, shrink_to_evaluation
    from rlrun.runs.lock import locked

    directory = open_run(run, run_dir=run_dir).directory
    before = directory.size()
    with locked(directory.path):
        if everything:
            delete_run(directory)
            return before
        remove_leftovers(directory)
        prune_checkpoints(directory, keep=1)
        if directory.manifest().get("status") == "finished":
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
    with os_errors_in_words("making the config's folder", UsageError, "--out"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text, UsageError, "--out")
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
    return check_one(validated(source).env, user_folders(None))


def schema() -> dict[str, Any]:
    """The JSON Schema of configs, for editors."""
    from rlrun.training.json_schema import config_schema

    return config_schema()


def load_source(config: ConfigLike, overrides: Iterable[Override] = ()) -> Source:
    """Read a config, given in any of the ways one can give it, with overrides applied."""
    if isinstance(config, Mapping):
        return read_source(config, overrides)
    if isinstance(config, str | Path):
        path = locate.find_config(config)
        if is_zoo_file(path):
            raise UsageError(f"{path} is in RL Zoo's format, with a section for each env.", "Say which: --env ID")
        return read_source(path, overrides)
    source = config.source()
    apply_overrides(source, list(overrides))
    return source


def _plan(
    config: ConfigLike, overrides: Iterable[Override], probe_env: bool = True, run_dir: Path = Path(RUNS)
) -> Plan:
    from rlrun.training.plan import make_plan

    return make_plan(load_source(config, overrides), probe_env, run_dir)


def compare(*selected: str | Path, episodes: int | None = None, run_dir: str | Path = RUNS) -> Compared:
    """Scores of groups of runs, and whether they differ.

    :param selected: runs, groups, folders, RL Zoo's log folders, Monitor files, or ``name=PATTERN``
    :param episodes: that every agent plays anew, all of them the same ones; None: the scores that are stored, each from
        episodes of its run's own seed
    """
    from rlrun.evidence.comparing import compare_scored
    from rlrun.evidence.scores import collect

    groups = collect([str(text) for text in selected], Path(run_dir))
    if episodes is not None:
        groups = [replace(group, runs=tuple(_scored_anew(run, episodes) for run in group.runs)) for group in groups]
    return compare_scored(groups)


def _scored_anew(run: Seed, episodes: int) -> Seed:
    """The score of a run's final agent on the episodes of seed 0; a log's stays what it is."""
    if run.score is None or not (run.path / CONFIG).is_file():
        return run
    result = Run(RunDirectory(run.path)).evaluate(episodes, seed=0, checkpoint="final")
    return replace(run, score=result.evaluation.mean_return)


def plot(
    *selected: str | Path,
    out: str | Path = "curves.png",
    what: str = "evaluation",
    x: str = "timesteps",
    run_dir: str | Path = RUNS,
) -> list[GroupCurve]:
    """Draw learning curves of groups of runs, with 95 % intervals over seeds.

    :param selected: as for :func:`compare`
    :param out: a PNG, SVG or PDF
    :param what: ``evaluation``, ``training`` or ``success``
    :param x: ``timesteps`` or ``hours``
    """
    from rlrun.evidence.curves import draw
    from rlrun.evidence.scores import collect

    return draw(collect([str(text) for text in selected], Path(run_dir)), Path(out), what, x)


def diff(first: str | Path | Run, second: str | Path | Run, *, run_dir: str | Path = RUNS) -> Difference:
    """What differs between two runs: config, versions, hardware, git."""
    from rlrun.evidence.difference import difference

    return difference(open_run(first, run_dir=run_dir).directory, open_run(second, run_dir=run_dir).directory)


def report(*selected: str | Path, out: str | Path = "report.html", run_dir: str | Path = RUNS) -> Path:
    """Write one HTML file about runs and groups that opens without a network.

    :param selected: as for :func:`compare`
    :return: the file
    """
    from rlrun.evidence.report import write_report

    return write_report([str(text) for text in selected], Path(run_dir), Path(out))


def why(run: str | Path | Run, *, run_dir: str | Path = RUNS) -> list[Finding]:
    """What looks wrong with a run, by rules over what it logged; its env is built and played at random too.

    :return: findings, the likeliest cause first; empty for a healthy run
    """
    from rlrun.evidence.why import why as look

    return look(open_run(run, run_dir=run_dir).directory, play=True)


def evaluate_group(
    group: str | Path | Group,
    *,
    checkpoint: str | int | None = "final",
    episodes: int | None = None,
    seed: int | None = None,
    deterministic: bool | None = None,
    overrides: Mapping[str, Any] | None = None,
    run_dir: str | Path = RUNS,
    trust: bool = False,
) -> dict[str, Any]:
    """Evaluate every run of a group on the same episodes, and summarize over training seeds.

    :param checkpoint: of each run; None: the final one
    :param seed: of the episodes; None: the group's first seed
    :raises UsageError: when there is no such group, or it has no run
    """
    from rlrun.evidence.statistics import Summary
    from rlrun.runs.groups import Group, find_group

    found = group if isinstance(group, Group) else find_group(str(group), Path(run_dir))
    runs = [Run(directory) for directory in found.runs()] if found is not None else []
    if found is None or not runs:
        raise UsageError(f"{group} is no group with runs.", "`rlrun train C --seeds 0-4` makes one.")
    chosen = found.seeds[0] if seed is None else seed
    settings: dict[str, Any] = {
        "checkpoint": checkpoint or "final",
        "deterministic": deterministic,
        "overrides": overrides,
    }
    values = []
    for run in runs:
        if settings["checkpoint"] == "final" and run.status != "finished":
            note(f"warning: {run.directory.label} is {run.status}, so it has no final agent and does not count.")
            continue
        result = run.evaluate(episodes, seed=chosen, trust=trust, **settings)
        values.append({"training_seed": run.config.seed, **result.as_dict()})
    if not values:
        raise UsageError(f"No run of {found.name} has finished.", f"`rlrun resume {found.name}` finishes them.")
    summary = Summary.of([value["mean_return"] for value in values])
    spread = {"mean": summary.mean, "median": summary.median, "iqm": summary.iqm, "ci95": summary.interval}
    return {"group": str(found.path), "checkpoint": settings["checkpoint"], **spread, "runs": values}
