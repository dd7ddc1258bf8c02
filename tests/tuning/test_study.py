"""Studies: real ones, small; killed, interrupted, gone on with, and what they leave."""

from __future__ import annotations

import csv
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import rlrun
from rlrun.config.search import parse_range
from rlrun.errors import RlrunError, UsageError
from rlrun.training.plan import make_plan
from rlrun.tuning import samplers
from rlrun.tuning.pool import Pool
from rlrun.tuning.retest import DEFAULTS, Candidate
from rlrun.tuning.samplers import make_sampler
from rlrun.tuning.spaces import distribution
from rlrun.tuning.storage import Ledger, best_first, join, open_storage, open_study, quiet, shown_storage
from rlrun.tuning.study import _comparison, _verdict
from rlrun.tuning.subject import Subject
from rlrun.tuning.worker import perform

pytestmark = pytest.mark.usefixtures("folder")
CONFIG = """
algo: a2c
env: {id: CartPole-v1, n_envs: 2}
total_timesteps: 200
evaluation: {every: 100, episodes: 2}
search:
  learning_rate: {log: [1e-5, 1e-2]}
  n_steps: {power_of_two: [3, 10]}
"""
WITHOUT_SEARCH: dict[str, Any] = {"algo": "a2c", "env": {"id": "CartPole-v1", "n_envs": 2}, "total_timesteps": 200}
SMALL: dict[str, Any] = {"jobs": 1, "retest": 1, "retest_seeds": 2, "name": "s", "progress": False}
PLACE = Path("runs/CartPole-v1/a2c/s")


def written(text: str = CONFIG) -> str:
    Path("c.yaml").write_text(text)
    return "c.yaml"


def rows(place: Path = PLACE) -> list[dict[str, str]]:
    with (place / "trials.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def subject_of(config: dict[str, Any]) -> Subject:
    from rlrun.config.loading import read_source

    plan = make_plan(read_source(config))
    return Subject(plan, Path("runs"), PLACE, {"hyperparameters.gamma": parse_range({"uniform": [0.9, 1.0]})})


def test_a_study_leaves_a_config_that_trains_a_table_pictures_and_a_comparison(
    rlrun_command: Callable[..., Any],
) -> None:
    flags = ("--trials", "3", "--jobs", "1", "--retest", "1", "--retest-seeds", "2", "--name", "s", "--json")
    outcome = rlrun_command("tune", written(), *flags)
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["trials"] == {"complete": 3}
    assert report["retest"][0]["name"] == "defaults"
    assert len(report["retest"]) == 2
    assert report["comparison"]["seeds"] == [2, 2]
    assert len(report["comparison"]["interval"]) == 2
    assert report["verdict"].count("\n") == 2
    assert [row["state"] for row in rows()] == ["complete"] * 3
    assert all(8 <= int(row["n_steps"]) <= 100 for row in rows())  # a rollout fits into the budget
    seen = {int(row["seeds"]) for row in rows()}
    assert seen.isdisjoint(int(seed) for candidate in report["retest"] for seed in candidate["returns"])
    for name in ("history.png", "best.yaml", "study.json"):
        assert (PLACE / name).stat().st_size > 100
    assert not list(PLACE.glob("trials/*/*/checkpoints"))
    assert json.loads((PLACE / "study.json").read_text()) == report
    assert rlrun_command("check", str(PLACE / "best.yaml")).code == 0
    trained = rlrun.train(PLACE / "best.yaml", progress=False)
    assert "search" not in (PLACE / "best.yaml").read_text()
    assert trained.status == "finished"
    # The same seeds go on where they are, and nothing is trained twice.
    more = rlrun_command("tune", "c.yaml", *flags, "--resume", "--trials", "4")
    assert "1/4" not in more.err
    assert json.loads(more.out)["trials"] == {"complete": 4}
    again = rlrun_command("tune", "c.yaml", *flags)
    assert (again.code, "is there already" in again.err) == (2, True)
    other = rlrun_command("tune", "c.yaml", *flags, "--resume", "--set", "hyperparameters.gamma=0.5")
    assert (other.code, "another hyperparameters.gamma" in other.err) == (2, True)


OWN = """
import os, pathlib, signal
from gymnasium.envs.classic_control import CartPoleEnv

class Fragile(CartPoleEnv):
    def __init__(self, kill="", nan=False, **keywords):
        super().__init__(**keywords)
        self.kill, self.nan, self.steps = kill, nan, 0

    def step(self, action):
        self.steps += 1
        victim = pathlib.Path("victim")
        if self.steps == 50 and victim.exists():
            victim.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        observation, reward, *rest = super().step(action)
        if self.nan and self.steps > 50:
            observation = observation * float("nan")
        return observation, reward, *rest
"""


def test_a_killed_worker_is_told_and_its_trial_tried_again() -> None:
    Path("own_env.py").write_text(OWN)
    Path("victim").touch()
    tuned = rlrun.tune(written(CONFIG.replace("CartPole-v1", "own_env:Fragile")), trials=2, **{**SMALL, "retest": 0})
    table = rows(tuned.path)
    assert [row["state"] for row in table] == ["killed", "complete", "complete"]
    assert table[0]["learning_rate"] == table[1]["learning_rate"]
    assert table[0]["seeds"] != table[1]["seeds"]
    assert tuned.values["retest"] == []
    assert "was not tested again" in tuned.verdict


def test_a_trial_that_fails_keeps_its_reason_and_the_study_goes_on() -> None:
    Path("own_env.py").write_text(OWN)
    space = "search:\n  env.kwargs.nan: {choice: [false, true]}\n"
    grid = CONFIG.partition("search:")[0].replace("CartPole-v1", "own_env:Fragile") + space
    tuned = rlrun.tune(written(grid), trials=9, **{**SMALL, "retest": 0, "sampler": "grid"})
    table = {row["env.kwargs.nan"]: row for row in rows(tuned.path)}
    assert {nan: row["state"] for nan, row in table.items()} == {"False": "complete", "True": "failed"}
    assert len(table["True"]["reason"]) > 10
    all_nan = grid.replace("[false, true]", "[true]")
    with pytest.raises(RlrunError, match="No trial was completed; the first failed because"):
        rlrun.tune(written(all_nan), trials=1, **{**SMALL, "name": "t"})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupted_study_leaves_no_process_and_goes_on(number: int, code: int) -> None:
    command = [sys.executable, "-m", "rlrun", "tune", written(), "--trials", "2", "--jobs", "1", "--name", "s"]
    command += ["--timesteps", "20000", "--set", "evaluation.every=0", "--retest", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not list(PLACE.glob("trials/*/*/episodes.csv")):
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("no trial began")
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    message = process.communicate()[1]
    assert process.returncode == code, message
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert code < 0 or "--name s --resume" in message
    finished = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    states = [row["state"] for row in rows()]
    assert states[0] == ("interrupted" if code > 0 else "killed")
    assert states.count("complete") == 2


def test_nothing_is_created_for_wrong_input(rlrun_command: Callable[..., Any]) -> None:
    written()
    wrong = (
        ("--trials", "0"),
        ("--sampler", "tpee"),
        ("--pruner", "medain"),
        ("--retest", "-1"),
        ("--jobs", "0"),
        ("--timeout", "soon"),
        ("--set", "search={}"),
        ("--set", "env.id=CartPoel-v1"),
        ("--set", "evaluation.episodes=0"),
        ("--storage", "nowhere/journal.log"),
        ("--storage", "foo://bar"),
        ("--storage", "c.yaml"),
        ("--name", "a/b"),
        ("--resume",),
    )
    for arguments in wrong:
        outcome = rlrun_command("tune", "c.yaml", "--trials", "2", *arguments)
        assert outcome.code == 2, arguments
        assert outcome.err.count("error:") == 1, outcome.err
        assert [path.name for path in Path().iterdir()] == ["c.yaml"], arguments


def test_seeds_of_trials_and_of_the_retest_never_meet() -> None:
    config = {"algo": "a2c", "env": {"id": "CartPole-v1"}, "total_timesteps": 1_000}
    for seed in range(3):
        subject = subject_of({**config, "seed": seed})
        trials = {s for number in range(200) for s in subject.trial_seeds(number, 3)}
        again = subject.retest_seeds(50)
        assert len(set(again)) == 50
        assert trials.isdisjoint(again)
        assert subject.retest_seeds(10) == again[:10]
        assert all(0 <= s < 2**31 for s in trials | set(again))


def test_a_trial_evaluates_twice_at_least_and_reports_seed_after_seed() -> None:
    config = {"algo": "a2c", "env": {"id": "CartPole-v1"}, "total_timesteps": 1_000, "evaluation": {"every": 5_000}}
    subject = subject_of(config)
    assert (subject.evaluate_every, subject.steps_per_seed) == (500, 2)
    assert [subject.step(seed, at) for seed in (0, 1) for at in (504, 1_008)] == [1, 2, 3, 4]
    assert subject_of({**config, "evaluation": {}}).evaluate_every == 250
    at_end = subject_of({**config, "evaluation": {"every": 0}})
    assert (at_end.steps_per_seed, at_end.step(0, 1_000), at_end.step(1, 1_000)) == (1, 1, 2)


def test_trials_beyond_the_total_do_not_count_whoever_is_faster() -> None:
    with quiet():
        studies = [open_study("journal.log", "s", {"a": 1}, resume=True) for _ in range(2)]
        ledgers = [Ledger(study) for study in studies]
        begun = [ledger.begin(3, {}) for ledger, _ in itertools.product(ledgers, range(3))]
        assert sum(trial is not None for trial in begun) == 3
        assert len(ledgers[0].counting()) == 3
        with pytest.raises(UsageError, match="another a: 1, not 2"):
            open_study("journal.log", "s", {"a": 2}, resume=True)
        with pytest.raises(UsageError, match="already"):
            open_study("journal.log", "s", {"a": 1}, resume=False)


def test_a_journal_whose_writer_was_killed_is_read_without_its_torn_line() -> None:
    with quiet():
        study = open_study("journal.log", "s", {}, resume=False)
        Ledger(study).begin(3, {})
        with Path("journal.log").open("ab") as stream:
            stream.write(b'{"op_code": 4, "work')
        assert len(Ledger(open_study("journal.log", "s", {}, resume=True)).counting()) == 1


def test_values_that_kill_every_process_fail_in_the_end() -> None:
    from optuna.distributions import FloatDistribution

    with quiet():
        ledger = Ledger(open_study("journal.log", "s", {}, resume=False))
        drawn = set()
        for last in (False, False, True):
            trial = ledger.begin(1, {"x": FloatDistribution(0, 1)})
            assert trial is not None
            drawn.add(trial.params["x"])
            assert ledger.was_killed(trial, "killed") is not last
        assert len(drawn) == 1
        (counting,) = ledger.counting()
        assert counting.user_attrs["reason"] == "killed, 3 times"


def test_a_line_that_was_torn_while_others_use_the_journal_is_cut_off_before_the_next_one() -> None:
    with quiet():
        ledger = Ledger(open_study("journal.log", "s", {}, resume=False))
        ledger.begin(9, {})
        with Path("journal.log").open("ab") as stream:
            stream.write(b'{"op_code": 4, "work')
        ledger.begin(9, {})
        assert len(ledger.counting()) == 2
        assert len(Ledger(open_study("journal.log", "s", {}, resume=True)).counting()) == 2


class Executed(Exception):
    """Raised by what a stranger wrote."""


class _Evil:
    def __reduce__(self) -> Any:
        return (exec, ("raise __import__('test_study').Executed",))


CMA_SPACE = {name: parse_range({"uniform": [0.0, 1.0]}) for name in "ab"}


def _asked_by_cmaes(study: Any, count: int) -> None:
    """Draw and complete some trials with a sampler that has just been made."""
    study.sampler = make_sampler("cmaes", CMA_SPACE, 50, seed=0, parallel=False)
    ledger = Ledger(study)
    for _ in range(count):
        trial = ledger.begin(99, {name: distribution(searched) for name, searched in CMA_SPACE.items()})
        assert trial is not None
        ledger.complete(trial, sum(trial.params.values()), {})


@pytest.mark.parametrize("signature", ["", "0" * 64])
def test_cmaes_loads_what_it_kept_in_a_storage_and_nothing_that_a_stranger_put_there(signature: str) -> None:
    with quiet():
        study = open_study("journal.log", "s", {}, resume=False)
        _asked_by_cmaes(study, 30)
        _asked_by_cmaes(study, 3)  # another sampler, which takes the first one's state from the storage
        kept = [t for t in study.get_trials(deepcopy=False) if any("optimizer" in key for key in t.system_attrs)]
        assert len(kept) > 1
        study.sampler = make_sampler("random", CMA_SPACE, 50, seed=0, parallel=False)
        ledger = Ledger(study)
        trial = ledger.begin(99, {name: distribution(searched) for name, searched in CMA_SPACE.items()})
        assert trial is not None
        evil = signature + pickle.dumps(_Evil()).hex()
        study._storage.set_trial_system_attr(trial._trial_id, "cma:optimizer:0", evil)
        ledger.complete(trial, 1.0, {})
        with pytest.raises(UsageError, match="is not known to be yours"):
            _asked_by_cmaes(study, 1)


def test_cmaes_needs_a_key_to_sign_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "signature_of", lambda content: None)
    with pytest.raises(UsageError, match="no folder for the key"):
        make_sampler("cmaes", {"a": parse_range({"uniform": [0.0, 1.0]})}, 50, seed=0, parallel=False)


def test_values_that_a_stranger_wrote_into_a_storage_are_not_taken() -> None:
    subject = subject_of(WITHOUT_SEARCH)
    assert subject.values_of({"hyperparameters.gamma": 0.95, "env.imports": ["evil"]}) == {
        "hyperparameters.gamma": 0.95
    }
    assert subject.values_of({"hyperparameters.gamma": 7.0}) == {"hyperparameters.gamma": 1.0}
    for params in ({}, {"hyperparameters.gamma": "x"}):
        with pytest.raises(UsageError, match="values that its search space lacks"):
            subject.values_of(params)


def test_a_run_that_somebody_put_in_the_place_of_a_retest_is_not_trusted() -> None:
    place = subject_of(WITHOUT_SEARCH).folder / "retest/defaults"
    rlrun.train({**WITHOUT_SEARCH, "seed": 2, "evaluation": {"episodes": 1}}, name="s2", progress=False)
    place.mkdir(parents=True)
    Path("runs/CartPole-v1/a2c/s2").rename(place / "s2")
    task = {
        "config": {**WITHOUT_SEARCH, "seed": 2},
        "import_paths": [],
        "root": "runs",
        "group": "s/retest/defaults",
        "name": "s2",
    }
    told = perform({**task, "config": {**WITHOUT_SEARCH, "seed": 2}, "kind": "retest"}, lambda question: {})
    assert "trains something else" in told["failed"]
    same = {**WITHOUT_SEARCH, "seed": 2, "evaluation": {"episodes": 1}}
    assert "done" in perform({**task, "config": same, "kind": "retest"}, lambda question: {})


def test_among_equal_trials_the_one_that_was_good_earlier_is_the_best() -> None:
    with quiet():
        study = open_study("journal.log", "s", {}, resume=False)
        ledger = Ledger(study)
        for early in (1.0, 5.0, 3.0):
            trial = ledger.begin(9, {})
            assert trial is not None
            trial.report(early, 1)
            ledger.complete(trial, 500.0, {})
        assert [trial.number for trial in best_first(ledger.counting())] == [1, 2, 0]


def test_a_candidate_that_failed_on_a_seed_cannot_win() -> None:
    assert Candidate("a", 1, {}, {1: 500.0}, {2: "nan"}).mean < Candidate("b", 2, {}, {1: 1.0, 2: 1.0}).mean


def test_what_a_process_says_of_a_trial_after_it_was_taken_for_dead_is_passed_over() -> None:
    with quiet():
        study = open_study("journal.log", "s", {}, resume=False)
        asleep, awake = Ledger(study), Ledger(study)
        trials = [trial for _ in range(4) if (trial := asleep.begin(9, {})) is not None]
        for trial in trials:
            awake._again(awake._frozen(trial.number), "killed")
        asleep._last -= 1_000  # time for the next beat
        assert asleep.look() == []
        assert asleep.is_hopeless(trials[0], 1.0, 1), "its worker goes on for nothing"
        assert not asleep.complete(trials[0], 1.0, {"scores": [1.0]})
        assert not asleep.prune(trials[1], {})
        assert not asleep.fail(trials[2], "a reason", {})
        waiting = len(study.get_trials(deepcopy=False))
        asleep.was_killed(trials[3], "a reason")
        assert len(study.get_trials(deepcopy=False)) == waiting, "its values are in line twice"
        assert best_first(asleep.counting()) == []


def candidates(*scores: tuple[Sequence[float], int]) -> list[Candidate]:
    """The config itself and trials, with the scores that they reached and how often they failed."""
    return [
        Candidate(
            DEFAULTS if not number else f"trial-{number}",
            number or None,
            {},
            dict(enumerate(reached)),
            {100 + index: "nan" for index in range(failures)},
        )
        for number, (reached, failures) in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            [([1, 2, 3, 4, 5], 0), ([11, 12, 13, 14, 15], 0)],
            "On fresh seeds trial 1 reaches 13.0, the config's own values 3.00.",
        ),
        ([([1, 2, 3, 4, 5], 0), ([11, 12, 13], 2)], "No trial did better than the config's own values on fresh seeds"),
        ([([1, 2, 3, 4, 5], 0), ([11, 12, 13], 2)], "trial 1 failed on 2 of 5 seeds"),
        ([([1, 2, 3], 2), ([11, 12, 13, 14, 15], 0)], "On fresh seeds trial 1 reaches 13.0.\nNot counted"),
        ([([1, 2, 3], 2), ([11, 12, 13], 2)], "None can be recommended, since each failed on fresh seeds"),
        ([([], 0), ([], 0)], "was not tested again"),
    ],
)
def test_a_verdict_counts_nobody_who_failed_on_a_seed(found: Any, said: str) -> None:
    tested = candidates(*found)
    winner = max(tested, key=lambda candidate: candidate.mean)
    comparison = _comparison(tested[0], winner, tested[1:])
    verdict = _verdict(tested, winner, comparison)
    assert said in verdict
    assert "inf" not in verdict
    has_failures = any(failures or not scores for scores, failures in found)
    assert (comparison is None) == has_failures


def test_no_interval_is_told_of_a_few_seeds() -> None:
    few, enough = candidates(([1, 2], 0), ([3, 5], 0)), candidates(([1, 2, 3, 4, 5], 0), ([3, 5, 6, 7, 8], 0))
    assert "interval" not in _verdict(few, few[1], _comparison(few[0], few[1], few[1:]))
    assert "95 % interval" in _verdict(enough, enough[1], _comparison(enough[0], enough[1], enough[1:]))


def test_the_machine_is_asked_for_what_the_largest_trial_takes() -> None:
    subject = subject_of({**WITHOUT_SEARCH, "hyperparameters": {"n_steps": 5}})
    assert subject.largest().hyperparameters["n_steps"] == 5
    space = {"hyperparameters.n_steps": parse_range({"power_of_two": [3, 6]}), **subject.space}
    assert replace(subject, space=space).largest().hyperparameters["n_steps"] == 64


def test_a_password_in_an_address_is_not_shown() -> None:
    assert shown_storage("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


def test_a_resume_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="--resume needs --name"):
        rlrun.tune(written(), trials=2, resume=True)


class _Companion:
    """Says one thing and fails, or says nothing."""

    has_begun, was_lost = True, False

    def __init__(self, has_begun: bool = True) -> None:
        self.has_begun, self.signals, self.ended = has_begun, list[int](), threading.Event()

    def answers(self) -> Iterator[dict[str, Any]]:
        if self.has_begun:
            yield {"evaluated": 1}
            raise OSError("No space left on device")
        self.ended.wait(10)

    def tell(self, message: Any) -> None:
        pass

    def no_more(self) -> None:
        self.ended.set()

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        self.ended.set()

    def end(self, seconds: float) -> None:
        self.ended.set()

    def why_gone(self) -> str:
        return "it is gone"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_whose_answers_cannot_be_kept_is_gone_and_not_waited_for() -> None:
    pool = Pool(1, _Companion)
    worker = pool.idle()
    assert worker is not None
    worker.task = "a trial"
    assert [pool.receive(5), pool.receive(5)] == [(worker, {"evaluated": 1}), (worker, None)]


def test_a_signal_reaches_workers_and_one_that_waits_for_a_machine_does_not_hold_up_the_end() -> None:
    waiting = _Companion(has_begun=False)
    pool = Pool(2, lambda: waiting)
    worker = pool.idle()
    assert worker is not None
    worker.task = "a trial"
    with pool.signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert pool.receive(5) == (worker, None)
    assert (pool.received, waiting.signals) == (signal.SIGTERM, [signal.SIGTERM])


def test_idle_workers_make_room_for_one_that_waits_for_a_machine() -> None:
    companions = [_Companion(has_begun=False), _Companion(has_begun=False)]
    given = iter(companions)
    pool = Pool(2, lambda: next(given))
    first = pool.idle()
    assert first is not None
    first.task = "a trial"
    second = pool.idle()
    assert second is not None
    pool.receive(0.1)
    assert companions[1].ended.is_set()
    assert not companions[0].ended.is_set()


def test_processes_that_join_a_study_draw_other_trials() -> None:
    with quiet():
        studies = [open_study("journal.log", "s", {"a": 1}, resume=True) for _ in range(2)]
        sessions = [join(study) for study in studies]
    assert sessions == [0, 1]
    subject = subject_of({"algo": "a2c", "env": {"id": "CartPole-v1"}, "total_timesteps": 100})
    assert len({subject.sampler_seed(0, session) for session in range(3)}) == 3


def test_processes_that_begin_a_study_in_a_new_database_at_once_share_it() -> None:
    written()
    command = [sys.executable, "-m", "rlrun", "tune", "c.yaml", "--trials", "4", "--jobs", "1", "--retest", "0"]
    command += ["--storage", "sqlite:///x.db", "--name", "s", "--resume"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    values = [row["learning_rate"] for row in rows()]
    assert len(set(values)) == len(values) >= 4


def test_a_study_that_someone_else_prepared_is_never_signed() -> None:
    import optuna

    with quiet():
        optuna.create_study(storage=open_storage("theirs.log"), study_name="s")
        with pytest.raises(UsageError, match="does not say what it searches"):
            open_study("theirs.log", "s", {"a": 1}, resume=True)
        study = optuna.load_study(study_name="s", storage=open_storage("theirs.log"))
    assert study.user_attrs == {}
