"""How long `rlrun runs` takes with a thousand run directories, and `rlrun compare` and `plot` with a hundred runs.

    python benchmarks/many_runs.py RUN [--runs 1000] [--compared 100]

RUN is a finished run, of a million timesteps for the figures of docs/performance.md. It is copied under other seeds,
with its curves and logs, but without its checkpoints' files, which none of these commands reads; half of the copies
get another `gamma`, so that there are two groups.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml


def copies(run: Path, root: Path, count: int) -> None:
    """Run directories like one another, but for seed, score and gamma."""
    draw = random.Random(0)
    config = yaml.safe_load((run / "config.yaml").read_text())
    manifest, results = (json.loads((run / f"{name}.json").read_text()) for name in ("manifest", "results"))
    for index in range(count):
        there = root / run.parent.parent.name / run.parent.name / f"copy-{index:04}"
        shutil.copytree(
            run, there, ignore=shutil.ignore_patterns("*.zip", "*.pkl", "*.npy", "tensorboard"), symlinks=True
        )
        hyperparameters = {**config["hyperparameters"], "gamma": 0.99 if index % 2 else 0.98}
        changed = {**config, "seed": index, "hyperparameters": hyperparameters}
        (there / "config.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
        (there / "manifest.json").write_text(json.dumps(manifest))
        for found in filter(None, results.values()):
            found["mean_return"] = draw.gauss(100.0, 10.0)
        (there / "results.json").write_text(json.dumps(results))


def measured(*arguments: str, cwd: str) -> tuple[float, float]:
    """Seconds that a command takes, and its peak of memory in MiB."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "rlrun", *arguments], cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"rlrun {' '.join(arguments)} failed")
    return time.monotonic() - began, _mebibytes(usage)


def _mebibytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--compared", type=int, default=100)
    given: Any = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "runs")
        copies(given.run.resolve(), root, given.runs)
        chosen = [str(path) for path in sorted(root.glob("*/*/*"))[: given.compared]]
        for arguments in (["runs"], ["compare", *chosen], ["plot", *chosen, "--out", "curves.png"]):
            took = [measured(*arguments, cwd=folder) for _ in range(3)]
            seconds, memory = sorted(took)[1]
            count = given.runs if arguments == ["runs"] else given.compared
            print(f"rlrun {arguments[0]:8} {count:5} runs: {seconds:5.2f} s, {memory:5.0f} MiB (median of 3)")


if __name__ == "__main__":
    main()
