"""``rlrun.tune``: the search, the re-test, and what they leave."""

from __future__ import annotations

import datetime
import itertools
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlrun import api
from rlrun.cluster import RayCluster, machines_of, needs_of_config, plan_for
from rlrun.companions import Companion, LocalCompanion, RayCompanion
from rlrun.config.loading import Override
from rlrun.console import study_reporter
from rlrun.errors import ConfigError, Interrupted, Problem, UsageError
from rlrun.evidence.statistics import FEW, Comparison, Summary, compare
from rlrun.machine import usable_cores
from rlrun.pool import Machines, Needs
from rlrun.run import as_overrides
from rlrun.runs.directory import checked_name, run_folder
from rlrun.runs.files import os_errors_in_words, write_json
from rlrun.training.searching import search_space
from rlrun.tuning import report
from rlrun.tuning.pool import MODULE, Pool
from rlrun.tuning.retest import DEFAULTS, Candidate, Retest
from rlrun.tuning.samplers import check_names, make_pruner, make_sampler
from rlrun.tuning.spaces import grid, short_name
from rlrun.tuning.storage import (
    JOURNAL,
    VALUES,
    Ledger,
    best_first,
    is_address,
    join,
    open_study,
    quiet,
    shown_storage,
)
from rlrun.tuning.subject import Subject
from rlrun.tuning.trials import Progress, Search
from rlrun.words import number

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


class StudyReporter(Protocol):
    """Receives what happens. Every method returns at once."""

    def started(self, study: Path, total: int, jobs: int) -> None:
        """Trials begin, or go on."""

    def trial(self, progress: Progress) -> None:
        """A trial ended."""

    def said(self, message: str) -> None:
        """Something a person should read."""


@dataclass(frozen=True)
class Settings:
    """How a study is run; what is tuned is the config's.

    :ivar trials: in all, those of earlier sessions and of other processes included
    :ivar seeds_per_trial: training seeds of a trial; its value is their mean
    :ivar retest: how many of the best trials are tested again
    :ivar retest_seeds: on how many fresh seeds
    :ivar timeout: seconds after which no trial begins; None: no limit
    """

    trials: int
    seeds_per_trial: int = 1
    retest: int = 3
    retest_seeds: int = 5
    jobs: int = 1
    sampler: str = "tpe"
    pruner: str = "median"
    timeout: float | None = None

    def check(self) -> None:
        """Raise UsageError for a number that makes no study."""
        least = {"trials": 1, "seeds_per_trial": 1, "retest": 0, "retest_seeds": 1, "jobs": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{flag} is {getattr(self, name)}, and must be {low} or more.", f"For instance {flag} 5."
                )
        if self.timeout is not None and self.timeout <= 0:
            raise UsageError(
                f"--timeout is {self.timeout:g} seconds, and must be longer than that.", "For instance 15m."
            )


@dataclass(frozen=True)
class Tuned:
    """A study that has ended.

    :ivar path: its folder
    :ivar values: what study.json holds
    """

    path: Path
    values: Mapping[str, Any]

    @property
    def best_config(self) -> Path:
        """The config that came out; it trains as it is."""
        return self.path / report.BEST

    @property
    def verdict(self) -> str:
        """How much better than the config's own values it is, in words."""
        return str(self.values["verdict"])

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``rlrun tune --json``."""
        return dict(self.values)


def tune(
    config: api.ConfigLike,
    *,
    trials: int,
    seeds_per_trial: int = 1,
    retest: int = 3,
    retest_seeds: int = 5,
    jobs: int | None = None,
    sampler: str = "tpe",
    pruner: str = "median",
    storage: str | None = None,
    timesteps: int | None = None,
    timeout: float | None = None,
    overrides: Mapping[str, Any] | Sequence[Override] = (),
    run_dir: str | Path = api.RUNS,
    name: str | None = None,
    resume: bool = False,
    on: str | None = None,
    address: str | None = None,
    progress: bool | StudyReporter = True,
) -> Tuned:
    """Search for hyperparameters, and test what was found on seeds that the search never saw.

    :param trials: in all, those of earlier sessions and of other processes included
    :param seeds_per_trial: training seeds of a trial. One by default: twice the seeds are half the trials, and luck is
        what the re-test is for
    :param retest: how many of the best trials are tested again, beside the config's own values; 0: none
    :param retest_seeds: on how many fresh seeds. Five are the fewest on which three trials can be shown to be better
    :param jobs: trainings at a time; None: the cores that this process may use, or what a cluster has room for. With 1
        the same seed gives the same study
    :param storage: a journal file or a database's address; None: ``journal.log`` in the study's folder
    :param timesteps: of each training, instead of the config's ``total_timesteps``
    :param timeout: seconds after which no trial begins; those under way end, and the re-test follows
    :param name: of the study and its folder; None: a UTC stamp and ``-study``
    :param resume: with ``name``: go on with that study, or join it, if it is there
    :param on: ``ray``: trainings run on the machines of a Ray cluster; None: on this one
    :param address: of the Ray cluster; None: the one that this machine belongs to, else one of this machine alone
    :return: the study, whose ``best.yaml`` trains as it is
    :raises ConfigError: with every problem, before anything is created
    :raises RlrunError: when no trial was completed
    :raises Interrupted: on Ctrl-C or SIGTERM; ``resume`` goes on
    """
    settings = Settings(
        trials,
        seeds_per_trial,
        retest,
        retest_seeds,
        1 if jobs is None else jobs,
        sampler,
        pruner,
        timeout,
    )
    settings.check()
    if resume and name is None:
        raise UsageError("--resume needs --name: the study to start or go on with.", "Give the name of its folder.")
    given = [*as_overrides(overrides)]
    given += [Override("total_timesteps", timesteps, "--timesteps")] if timesteps is not None else []
    subject = _subject(config, given, Path(run_dir), None if name is None else checked_name(name), on is not None)
    check_names(sampler, pruner, subject.space)
    if storage is not None and not is_address(storage) and not Path(storage).absolute().parent.is_dir():
        raise UsageError(f"The storage {storage} cannot be made: its folder is not there.", "Make the folder first.")
    reporter = progress if not isinstance(progress, bool) else study_reporter(silent=not progress)
    with machines_of(on, address) as machines, quiet():
        needs = needs_of_config(subject.largest(), subject.plan.import_paths, build_env=on is not None)
        if jobs is None:
            at_a_time = machines.room_for(needs) if isinstance(machines, RayCluster) else usable_cores()
            settings = replace(settings, jobs=at_a_time)
        subject, study, place = _open(subject, settings, storage, resume, is_named=name is not None)
        start = partial(_companion, machines, subject, needs)
        return _Session(subject, study, place, settings, reporter, start).run()


def _companion(machines: Machines, subject: Subject, needs: Needs) -> Companion:
    if isinstance(machines, RayCluster):
        machines.warn_if_nothing_fits("the study", needs)
        return RayCompanion(machines, MODULE, subject.folder, subject.root, needs)
    return LocalCompanion(MODULE, subject.folder / "logs" / "workers.txt")


def _subject(
    config: api.ConfigLike, overrides: list[Override], root: Path, name: str | None, elsewhere: bool
) -> Subject:
    plan = plan_for(api.load_source(config, overrides), elsewhere)
    if plan.config.evaluation.episodes == 0:
        problem = Problem(
            "a study compares evaluations, and there are none.", "evaluation.episodes", hint="Set it to 10."
        )
        raise ConfigError([problem])
    if plan.config.total_timesteps is None:
        message = "a study gives each trial the same number of timesteps, and this budget is of episodes."
        hint = "Tune it with --set total_episodes=null --timesteps N."
        raise ConfigError([Problem(message, "total_episodes", hint=hint)])
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
    folder = run_folder(root, plan.config) / (name or f"{stamp}-study")
    return Subject(plan, root, folder, search_space(plan.source, plan.algorithm))


def _open(
    subject: Subject, settings: Settings, storage: str | None, resume: bool, is_named: bool
) -> tuple[Subject, Study, str]:
    """Claim the study's folder and open the study in its storage; leaves no folder behind when that fails."""
    import optuna

    subject, is_new = _claim(subject, resume, is_named)
    place = storage or str(subject.folder / JOURNAL)
    try:
        with quiet():
            shared = subject.shared_settings(settings.seeds_per_trial)
            study = open_study(place, subject.folder.name, shared, resume)
            count = len(study.get_trials(deepcopy=False))
            seed, steps = subject.sampler_seed(count, join(study)), subject.steps_per_seed * settings.seeds_per_trial
            sampler = make_sampler(settings.sampler, subject.space, settings.trials, seed, settings.jobs > 1)
            study = optuna.load_study(
                study_name=subject.folder.name,
                storage=study._storage,
                sampler=sampler,
                pruner=make_pruner(settings.pruner, steps),
            )
    except BaseException:
        if is_new:
            for left in (*subject.folder.glob(f"{JOURNAL}*"), *subject.folder.glob(f".{JOURNAL}*")):
                left.unlink(missing_ok=True)
            for folder in (subject.folder, *list(subject.folder.parents)[:3]):
                try:
                    folder.rmdir()
                except OSError:
                    break
        raise
    return subject, study, place


def _claim(subject: Subject, resume: bool, is_named: bool) -> tuple[Subject, bool]:
    """Make the study's folder.

    :return: with the folder's absolute path, and whether it is new
    """
    with os_errors_in_words("making the study", UsageError):
        for attempt in itertools.count(1):
            name = subject.folder.name if attempt == 1 else f"{subject.folder.name}-{attempt}"
            folder, is_new = subject.folder.with_name(name), True
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                is_new = False
                if not resume and is_named:
                    message = f"The study {folder} is there already."
                    raise UsageError(message, "Choose another --name; --resume goes on with it.") from None
                if not resume:
                    continue
            root = subject.root.resolve()
            return Subject(subject.plan, root, folder.resolve(), subject.space), is_new
    raise AssertionError("unreachable")


class _Session:
    """One process's part in a study."""

    def __init__(
        self,
        subject: Subject,
        study: Study,
        storage: str,
        settings: Settings,
        reporter: StudyReporter,
        start: Callable[[], Companion],
    ) -> None:
        self._subject, self._study, self._storage = subject, study, storage
        self._settings, self._reporter = settings, reporter
        self._folder, self._start = subject.folder, start
        self._began = time.monotonic()

    def run(self) -> Tuned:
        """Search, test again, report."""
        self._write_study({"state": "running"})
        (self._folder / "logs").mkdir(exist_ok=True)
        pool = Pool(self._settings.jobs, self._start)
        self._reporter.started(self._folder, self._settings.trials, self._settings.jobs)
        try:
            with pool.signals():
                self._search(pool)
                self._require_not_stopped(pool)
                report.require_some(self._counting(), self._folder)
                candidates = self._candidates()
                if self._settings.retest:
                    self._test_again(pool, candidates)
                    self._require_not_stopped(pool)
        finally:
            pool.close()
        return self._report(candidates)

    def _counting(self) -> list[FrozenTrial]:
        return Ledger(self._study).counting()

    def _search(self, pool: Pool) -> None:
        settings, total = self._settings, self._settings.trials
        if settings.sampler == "grid":
            sizes = [len(values) for values in (grid(self._subject.space) or {}).values()]
            cells = 1
            for size in sizes:
                cells *= size
            total = min(total, cells)
        until = None if settings.timeout is None else self._began + settings.timeout
        ledger, seeds = Ledger(self._study), settings.seeds_per_trial
        try:
            Search(self._subject, ledger, pool, total, seeds, until, self._told).run()
        finally:
            self._write_trials()

    def _told(self, progress: Progress) -> None:
        self._write_trials()
        self._reporter.trial(progress)

    def _write_trials(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        report.write_trials(self._folder / report.TRIALS, trials, list(self._subject.space))

    def _require_not_stopped(self, pool: Pool) -> None:
        if pool.received is None:
            return
        message = f"Interrupted; the study is kept in {self._folder}."
        hint = f"Go on with the same command and: --name {shlex.quote(self._folder.name)} --resume"
        raise Interrupted(message, hint, 128 + pool.received)

    def _candidates(self) -> list[Candidate]:
        """The config's own values and the best trials."""
        best = best_first(self._counting())[: max(1, self._settings.retest)]
        found = [Candidate(f"trial-{t.number}", t.number, self._subject.values_of(t.params)) for t in best]
        return [Candidate(DEFAULTS, None, {}), *found]

    def _test_again(self, pool: Pool, candidates: list[Candidate]) -> None:
        seeds = self._subject.retest_seeds(self._settings.retest_seeds)
        best = len(candidates) - 1
        trials = f"the best {best} trials" if best > 1 else "the best trial"
        self._reporter.said(f"training {trials} and the config itself again, on {len(seeds)} seeds each")

        def told(candidate: Candidate, seed: int, words: str) -> None:
            self._reporter.said(f"{candidate.name}, seed {seed}: {words}")

        Retest(self._subject, pool, told).run(candidates, seeds)

    def _report(self, candidates: list[Candidate]) -> Tuned:
        defaults, *trials = candidates
        winner = max(candidates if self._settings.retest else trials, key=lambda candidate: candidate.mean)
        winner = trials[0] if winner.mean == float("-inf") else winner
        comparison = _comparison(defaults, winner, trials)
        verdict = _verdict(candidates, winner, comparison)
        shares = report.importances(self._study, list(self._subject.space))
        everyone, default = self._study.get_trials(deepcopy=False), defaults.mean if defaults.scores else None
        report.write_best(self._folder / report.BEST, self._subject.config(winner.values), self._head(winner, verdict))
        report.draw_history(self._folder / report.HISTORY, everyone, default)
        if shares:
            report.draw_importance(self._folder / report.IMPORTANCE, shares)
        tested = [candidate for candidate in candidates if candidate.scores or candidate.failures]
        values = self._write_study(
            {
                "state": "finished",
                "best_config": str(self._folder / report.BEST),
                "winner": _as_dict(winner),
                "verdict": verdict,
                "comparison": None if comparison is None else comparison.as_dict(),
                "retest": [_as_dict(candidate) for candidate in tested],
                "best_trials": [_trial(t) for t in best_first(self._counting())[:10]],
                "importances": shares,
            }
        )
        return Tuned(self._folder, values)

    def _head(self, winner: Candidate, verdict: str) -> list[str]:
        what = "the config's own values" if winner.trial is None else f"trial {winner.trial}"
        return [
            f"{self._subject.plan.config.algo} on {self._subject.plan.config.env.id}: {what} "
            f"of the study {self._folder.name} ({self._settings.sampler}).",
            *verdict.split("\n"),
        ]

    def _write_study(self, results: Mapping[str, Any]) -> dict[str, Any]:
        counts: dict[str, int] = {}
        for trial in self._study.get_trials(deepcopy=False):
            counts[report.state_of(trial)] = counts.get(report.state_of(trial), 0) + 1
        config, settings = self._subject.plan.config, asdict(self._settings)
        settings.pop("jobs")
        files = {what: str(self._folder / what) for what in (report.TRIALS, report.HISTORY, report.IMPORTANCE)}
        values = {
            "study": str(self._folder),
            "name": self._folder.name,
            "algo": config.algo,
            "env": config.env.id,
            "total_timesteps": config.total_timesteps,
            "seed": config.seed,
            "storage": shown_storage(self._storage),
            "settings": settings,
            "space": {short_name(key): _written(searched) for key, searched in self._subject.space.items()},
            "trials": counts,
            "seconds": round(time.monotonic() - self._began, 1),
            **results,
            "files": {name: path for name, path in files.items() if Path(path).exists()},
        }
        write_json(self._folder / report.STUDY, values)
        return values


def _written(searched: Any) -> dict[str, Any]:
    return {searched.form: list(searched.choices) or [searched.low, searched.high]}


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    values = {short_name(key): value for key, value in trial.user_attrs.get(VALUES, {}).items()}
    return {"number": trial.number, "mean_return": trial.value, "values": values}


def _as_dict(candidate: Candidate) -> dict[str, Any]:
    scores = list(candidate.scores.values())
    return {
        "name": candidate.name,
        "trial": candidate.trial,
        "values": {short_name(key): value for key, value in candidate.values.items()},
        "returns": {str(seed): score for seed, score in candidate.scores.items()},
        "failures": {str(seed): reason for seed, reason in candidate.failures.items()},
        **(asdict(Summary.of(scores)) if scores else {}),
    }


def _comparison(defaults: Candidate, winner: Candidate, trials: Sequence[Candidate]) -> Comparison | None:
    """The config's own values against the winner, or against the best trial where the config itself won.

    None where one of them failed on a seed: those that are left are no fair sample of it.
    """
    other = winner if winner.trial is not None else max(trials, key=lambda candidate: candidate.mean)
    if any(candidate.failures or not candidate.scores for candidate in (defaults, other)):
        return None
    ours, theirs = list(defaults.scores.values()), list(other.scores.values())
    return compare("the config's own values", ours, f"trial {other.trial}", theirs, len(trials))


def _verdict(candidates: Sequence[Candidate], winner: Candidate, comparison: Comparison | None) -> str:
    defaults = candidates[0]
    if not defaults.scores and not defaults.failures:
        return "The best trial was not tested again, so how good it is on other seeds is not known."
    failed = [_failed(candidate) for candidate in candidates if candidate.failures]
    if winner.failures or not winner.scores:
        return f"None can be recommended, since each failed on fresh seeds: {'; '.join(failed)}."
    if winner.trial is None:
        lines = [f"No trial did better than the config's own values on fresh seeds: {number(winner.mean)}."]
    else:
        own = "" if defaults.failures else f", the config's own values {number(defaults.mean)}"
        lines = [f"On fresh seeds trial {winner.trial} reaches {number(winner.mean)}{own}."]
    if failed:
        lines += [f"Not counted, since each run must end well: {'; '.join(failed)}."]
    if comparison is not None:
        # Of fewer seeds it would be too narrow.
        interval = comparison.interval if min(comparison.seeds) >= FEW else None
        lines += [f"Difference {report.describe_span(comparison.difference, interval)}.", comparison.verdict]
    return "\n".join(lines)


def _failed(candidate: Candidate) -> str:
    who = "the config's own values" if candidate.trial is None else f"trial {candidate.trial}"
    return f"{who} failed on {len(candidate.failures)} of {len(candidate.failures) + len(candidate.scores)} seeds"
