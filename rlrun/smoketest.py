"""Every config through check, train, save, load, resume, evaluate and package in seconds: for CI pipelines.

Each config runs in a process of its own, in a temporary folder that is removed, with its budget cut down. What is
left as it is: the env and its wrappers, the algorithm, the policy, the normalization.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rlrun import api
from rlrun.config import locate
from rlrun.config.loading import Override
from rlrun.config.signatures import keyword_parameters
from rlrun.errors import ConfigError, RlrunError, UsageError
from rlrun.processes import sigterm_raises
from rlrun.run import Run
from rlrun.runs.files import write_whole

_MAX_ENVS = 4
_RESULT = "result.json"


@dataclass(frozen=True)
class Case:
    """One config.

    :ivar result: ``passed``, ``failed`` or ``skipped``
    :ivar detail: what failed, or why it was skipped
    """

    config: str
    result: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class SmokeReport:
    """All configs, in the order they were named."""

    cases: tuple[Case, ...]

    @property
    def passed(self) -> bool:
        """Whether none failed."""
        return all(case.result != "failed" for case in self.cases)

    def verdict(self) -> str:
        """``21 passed, 0 failed, 1 skipped``."""
        counts = {kind: sum(case.result == kind for case in self.cases) for kind in ("passed", "failed", "skipped")}
        return ", ".join(f"{number} {kind}" for kind, number in counts.items())

    def rows(self) -> list[tuple[str, str, float, str]]:
        """For a table."""
        return [(case.config, case.result, round(case.seconds, 1), case.detail) for case in self.cases]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"passed": self.passed, "cases": [asdict(case) for case in self.cases]}

    def junit(self) -> str:
        """JUnit's XML, as CI systems read it."""
        kinds = {"failed": "failure", "skipped": "skipped"}
        suite = ElementTree.Element("testsuite", name="rlrun smoke", tests=str(len(self.cases)))
        for kind, element in (("failed", "failures"), ("skipped", "skipped")):
            suite.set(element, str(sum(case.result == kind for case in self.cases)))
        for case in self.cases:
            node = ElementTree.SubElement(suite, "testcase", name=case.config, time=f"{case.seconds:.3f}")
            if case.result in kinds:
                ElementTree.SubElement(node, kinds[case.result], message=case.detail)
        ElementTree.indent(suite)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def smoke(
    configs: Sequence[str] = (),
    *,
    strict: bool = False,
    timeout: float = 120.0,
    jobs: int = 1,
    junit: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> SmokeReport:
    """Try configs.

    :param configs: paths or names; none: ``./configs``, else the shipped ones
    :param strict: a missing optional package is a failure, not a skip
    :param timeout: seconds for each
    :param jobs: how many at the same time
    :param junit: where to write a JUnit report
    :param progress: told a line when a config is done
    :raises UsageError: when a name is none of a config
    """
    paths = _paths(configs)
    children = _Children()

    def try_one(item: tuple[str, Path]) -> Case:
        case = _in_own_process(item[0], item[1], timeout, children)
        if strict and case.result == "skipped":
            case = replace(case, result="failed")
        if progress is not None:
            progress(
                f"{case.result:8}{case.config} ({case.seconds:.1f} s)" + (f": {case.detail}" if case.detail else "")
            )
        return case

    with sigterm_raises(), ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            report = SmokeReport(tuple(pool.map(try_one, paths.items())))
        except BaseException:  # Ctrl-C or SIGTERM: leave no child and no folder behind
            pool.shutdown(wait=False, cancel_futures=True)
            children.kill()
            raise
    if junit is not None:
        write_whole(junit, report.junit())
    return report


class _Children:
    """Processes that must not be left behind, also those that are started at the moment when all are killed."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._is_over = False

    def add(self, process: subprocess.Popen[bytes]) -> None:
        """One more."""
        self._processes.add(process)
        if self._is_over:
            _kill_group(process)

    def discard(self, process: subprocess.Popen[bytes]) -> None:
        """It has ended."""
        self._processes.discard(process)

    def kill(self) -> None:
        """End all, and whatever is added later."""
        self._is_over = True
        for process in list(self._processes):
            _kill_group(process)


def _paths(configs: Sequence[str]) -> dict[str, Path]:
    if not configs:
        return locate.all_configs()
    found: dict[str, Path] = {}
    for text in configs:
        folder = Path(text)
        if folder.is_dir():
            inside = {str(path): path for path in sorted(folder.rglob("*.yaml"))}
            if not inside:
                raise UsageError(f"There is no config (*.yaml) in {text}.")
            found |= inside
        else:
            found[text] = locate.find_config(text)
    return found


def _in_own_process(name: str, path: Path, timeout: float, children: _Children) -> Case:
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="rlrun-smoke-"))
    command = [sys.executable, "-m", "rlrun.smoketest", str(path), str(folder)]
    try:
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "TMPDIR": str(folder)},  # what libraries leave behind goes with the folder
            )
            children.add(process)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                return Case(name, "failed", f"not done after {timeout:g} s", time.monotonic() - began)
            finally:
                children.discard(process)
                _kill_group(process)
        seconds = time.monotonic() - began
        try:
            result = json.loads((folder / _RESULT).read_text())
        except (OSError, ValueError):
            lines = (folder / "output").read_text(errors="replace").strip().splitlines()
            last = lines[-1] if lines else "no output"
            return Case(name, "failed", f"the process died (exit code {process.returncode}): {last}", seconds)
        return Case(name, result["result"], result["detail"], seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a child and whatever workers it started."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    else:
        process.kill()
    process.wait()


def try_config(path: Path, folder: Path) -> Case:
    """Take one config through every stage, in this process.

    :param folder: for the run; it stays
    """
    stage = "check"
    try:
        plan = api.check(path)
        cut = _cut_down(plan)
        stage = "train"
        run = api.train(path, overrides=cut, run_dir=folder, name="smoke", progress=False)
        stage = "load in plain SB3"
        weights = _load_in_sb3(run, plan)
        stage = "resume"
        exact = _resume(run, plan, weights)
        stage = "evaluate"
        run.evaluate(1)
        stage = "package"
        api.package(run, episodes=1, video=False)
    except ConfigError as error:
        missing = all(problem.is_missing_package for problem in error.problems)
        return Case(str(path), "skipped" if missing else "failed", f"{stage}: {error.problems[0]}")
    except RlrunError as error:
        return Case(str(path), "failed", f"{stage}: {error}")
    except Exception as error:  # the user's env may raise anything at any stage
        return Case(str(path), "failed", f"{stage}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return Case(str(path), "passed", "" if exact else "resume is not exact: the env or the policy does not repeat")


def _cut_down(plan: Any) -> list[Override]:
    """Overrides that make a config train in seconds and still learn, save, and cut once on the way."""
    config, hyper = plan.config, plan.config.hyperparameters
    n_envs = min(config.env.n_envs, _MAX_ENVS)
    cls = plan.algorithm.load()
    cut: dict[str, Any] = {
        "env.n_envs": n_envs,
        "trackers": [],
        "init_from": None,
        "max_time": None,
        "early_stop": None,
    }
    cut |= {"evaluation.every": 0, "evaluation.episodes": 1, "evaluation.seeds": None, "threads": 1}
    if plan.algorithm.is_episodic:
        cut |= {"total_timesteps": None, "total_episodes": 20, "checkpoint.every": None, "log_every": None}
        return [Override(key, value, "smoke") for key, value in cut.items()]
    if plan.algorithm.is_off_policy:
        # Hindsight goals need one whole episode in each env before learning starts.
        uses_her = hyper.get("replay_buffer_class") == "HerReplayBuffer"
        start = (plan.facts.max_episode_steps or 100) * n_envs if uses_her else 32
        budget = 2 * (start + 64)
        cut |= {"hyperparameters.learning_starts": start, "hyperparameters.batch_size": 16}
        cut |= {"hyperparameters.buffer_size": 2 * budget}
    elif "n_steps" in keyword_parameters(cls):
        steps = min(int(hyper.get("n_steps", 16)), 16)
        budget = 4 * steps * n_envs
        cut["hyperparameters.n_steps"] = steps
        for name, value in (("batch_size", steps * n_envs), ("n_epochs", 1)):
            if name in keyword_parameters(cls):
                cut[f"hyperparameters.{name}"] = value
    else:  # evolutionary: budgets are counted in episodes
        cut |= {"hyperparameters.n_delta": 1, "hyperparameters.n_top": 1}
        budget = 400
    cut |= {"total_timesteps": budget, "checkpoint.every": budget // 2, "log_every": budget // 2}
    return [Override(key, value, "smoke") for key, value in cut.items()]


def _load_in_sb3(run: Run, plan: Any) -> Any:
    """What users without rlrun do with the checkpoint."""
    folder = run.directory.checkpoint_path(run.directory.pointer("final") or 0)
    # SB3 wants an env for models with hindsight goals; one copy in this process is enough.
    venv = plan.recipe.single().make_training_vec()[0]
    try:
        model = plan.algorithm.load().load(folder / "model.zip", env=venv, device="cpu")
        model.predict(model.observation_space.sample())
        return model.get_parameters()["policy"]
    finally:
        venv.close()


def _resume(run: Run, plan: Any, expected: Any) -> bool:
    """Forget the end of the run, resume from its middle, and compare the weights."""
    directory = run.directory
    final = directory.pointer("final")
    shutil.rmtree(directory.checkpoint_path(final or 0))
    directory.update_manifest({"status": "running"})
    run.resume(progress=False)
    actual = _load_in_sb3(run, plan)
    return directory.pointer("final") == final and all(bool((actual[key] == expected[key]).all()) for key in expected)


def main(arguments: Sequence[str]) -> None:
    """``python -m rlrun.smoketest CONFIG FOLDER``: one config, its result in the folder."""
    path, folder = map(Path, arguments)
    case = try_config(path, folder)
    write_whole(folder / _RESULT, json.dumps(asdict(case)))


if __name__ == "__main__":
    main(sys.argv[1:])
