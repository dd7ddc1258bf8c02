"""What makes a config fastest on this machine: real training for some seconds, in one way after the other.

Each way runs in a process of its own, in a temporary folder that is removed. Device, acceleration, vectorisation and
threads are tried one at a time, each with the best of those before it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlrun import api
from rlrun.config.loading import Override
from rlrun.config.signatures import keyword_parameters
from rlrun.errors import RlrunError
from rlrun.machine import usable_cores
from rlrun.processes import end_with_parent, sigterm_raises
from rlrun.run import as_overrides
from rlrun.runs.files import write_whole

if TYPE_CHECKING:
    from rlrun.training.plan import Plan

_FASTER = 1.05  # times; less is noise
_STARTING = 8.0  # seconds that are set aside for the start of each process
_LEAST, _MOST = 2.0, 10.0  # seconds of training that are timed
_PATIENCE = 120.0  # seconds after which a way is given up
_ENOUGH = 10**9  # timesteps
_EARLY = 1000  # timesteps: learning begins no later
_JOB, _RESULT = "job.json", "result.json"


@dataclass(frozen=True)
class Way:
    """One way to train a config.

    :ivar settings: that differ from the config's, by key
    :ivar speed: timesteps/s once learning has begun; None where it failed
    :ivar detail: why it failed
    """

    settings: dict[str, Any]
    speed: float | None
    detail: str = ""

    @property
    def options(self) -> str:
        """As ``--set`` options of ``rlrun train``; empty for the config as it is."""
        return " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in self.settings.items())

    @property
    def in_words(self) -> str:
        """One line for people."""
        result = f"{self.speed:,.0f} timesteps/s" if self.speed else f"failed: {self.detail}"
        return f"{self.options or 'the config as it is'}: {result}"


@dataclass(frozen=True)
class BenchReport:
    """All ways, the config as it is first."""

    ways: tuple[Way, ...]

    @property
    def fastest(self) -> Way:
        """The fastest way; the config as it is, where nothing is clearly faster."""
        return _best(self.ways)

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``rlrun bench --json``."""
        first = self.ways[0].speed
        rows = [
            {
                "settings": way.settings,
                "timesteps_per_second": way.speed,
                "ratio": way.speed / first if way.speed and first else None,
                "detail": way.detail,
            }
            for way in self.ways
        ]
        return {"ways": rows, "fastest": self.fastest.settings, "set": self.fastest.options}


def bench(
    config: api.ConfigLike,
    *,
    overrides: Mapping[str, Any] | Sequence[Override] = (),
    seconds: float = 100.0,
    progress: Callable[[str], None] | None = None,
) -> BenchReport:
    """Measure in which way a config trains fastest here.

    :param seconds: about how long it may take altogether; longer where a round of acting and learning takes long
    :param progress: is told each result as it comes, one line each
    :raises ConfigError: with every problem of the config
    :raises RlrunError: when the config as it is cannot be trained
    """
    plan = api.check(config, overrides=as_overrides(overrides))
    began, ways = time.monotonic(), []
    stages = [stage for stage in _stages(plan) if stage]
    left = 1 + sum(map(len, stages))

    def measure(settings: dict[str, Any]) -> None:
        nonlocal left
        share = (seconds - (time.monotonic() - began)) / left - _STARTING
        left -= 1
        ways.append(_measured(plan, settings, min(max(share, _LEAST), _MOST)))
        if progress is not None:
            progress(ways[-1].in_words)

    with sigterm_raises():
        measure({})
        if ways[0].speed is None:
            raise RlrunError(f"This config cannot be trained here: {ways[0].detail}", "Try: rlrun smoke CONFIG")
        for stage in stages:
            before = _best(ways).settings
            for settings in stage:
                measure({**before, **settings})
    return BenchReport(tuple(ways))


def _best(ways: Sequence[Way]) -> Way:
    best = ways[0]
    for way in ways[1:]:
        if way.settings.get("accelerate") == "bfloat16":
            continue  # it changes numbers: measured, and left to the user
        if way.speed is not None and best.speed is not None and way.speed > _FASTER * best.speed:
            best = way
    return best


def _stages(plan: Plan) -> Iterator[list[dict[str, Any]]]:
    """Settings to try instead of the config's, one kind after the other."""
    import torch
    from stable_baselines3.common.preprocessing import is_image_space

    config = plan.config
    has_images = plan.facts is not None and is_image_space(plan.facts.observation_space)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else []
    yield [{"device": device} for device in devices if device != config.device]
    choices = ["auto", "off", *(["bfloat16"] if has_images else [])]
    choices += ["cuda_graphs"] if config.algo in ("dqn", "sac", "tqc") and torch.cuda.is_available() else []
    yield [{"accelerate": choice} for choice in choices if choice != config.accelerate]
    places = ["serial", "workers"] if config.env.n_envs > 1 and usable_cores() > 1 else []
    yield [{"env.vec": place} for place in places if place != config.env.vec]
    cores = usable_cores()
    counts = sorted({1, 2, 4, cores} - {config.threads})
    yield [{"threads": count} for count in counts if count <= cores]


def _measured(plan: Plan, settings: dict[str, Any], seconds: float) -> Way:
    """Train in a process of its own, and time it once it learns."""
    with tempfile.TemporaryDirectory(prefix="rlrun-bench-") as folder:
        result = Path(folder, _RESULT)
        job = {"config": _shortened(plan, seconds, str(result)), "settings": settings}
        Path(folder, _JOB).write_text(json.dumps(job))
        paths = os.pathsep.join([*plan.import_paths, *filter(None, [os.environ.get("PYTHONPATH")])])
        limit = max(_PATIENCE, 3 * seconds)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "rlrun.benchmark", folder],
                env={**os.environ, "PYTHONPATH": paths},
                capture_output=True,
                text=True,
                check=False,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            return Way(settings, None, f"it takes longer than {limit:.0f} s")
        timed = json.loads(result.read_text()) if result.exists() else {}
    if "timesteps" in timed:
        return Way(settings, timed["timesteps"] / timed["seconds"])
    return Way(settings, None, timed.get("error") or f"it ended with exit code {done.returncode}")


def _shortened(plan: Plan, seconds: float, result: str) -> dict[str, Any]:
    """The config with nothing but training in it: it acts as after its exploration, and learns early."""
    config, known = plan.config.model_dump(by_alias=True), keyword_parameters(plan.algorithm.load())
    hyper = dict(config["hyperparameters"])
    if isinstance(hyper.get("learning_starts"), int | float):
        early = _EARLY
        if hyper.get("replay_buffer_class") is not None and plan.facts is not None:  # HER: after the first episodes
            early = max(early, (plan.facts.max_episode_steps or 0) * plan.facts.n_envs)
        hyper["learning_starts"] = min(hyper["learning_starts"], early)
    if "exploration_fraction" in known:
        hyper["exploration_fraction"] = _EARLY / _ENOUGH
    watch = {"class": "rlrun.training.stopwatch:Stopwatch", "kwargs": {"seconds": seconds, "result": result}}
    return {
        **config,
        "total_timesteps": _ENOUGH,
        "total_episodes": None,
        "hyperparameters": hyper,
        "evaluation": {**config["evaluation"], "every": 0, "episodes": 0},
        "checkpoint": {**config["checkpoint"], "every": 0},
        "video": {**config["video"], "every": 0},
        "trackers": [],
        "callbacks": [watch],
        "max_time": None,
        "early_stop": None,
    }


def _main() -> None:
    """One measurement: ``python -m rlrun.benchmark FOLDER``."""
    end_with_parent()
    folder = Path(sys.argv[1])
    job = json.loads((folder / _JOB).read_text())
    try:
        api.train(job["config"], overrides=job["settings"], run_dir=folder, progress=False)
    except RlrunError as error:
        write_whole(folder / _RESULT, json.dumps({"error": error.message}))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    _main()
