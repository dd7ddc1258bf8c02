"""rlrun trains Stable-Baselines3 agents from YAML, and makes what comes out trustworthy.

>>> import rlrun
>>> run = rlrun.train("CartPole-v1/ppo", seed=1)
>>> run.evaluate().mean_return
500.0

Whatever the command line does, a function here does. They are imported when first used, so that ``import rlrun``
takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rlrun.api import (
        check,
        check_env,
        compare,
        configs,
        diff,
        evaluate,
        evaluate_file,
        evaluate_group,
        init,
        inspect,
        list_runs,
        open_run,
        package,
        plot,
        prune,
        pull,
        push,
        report,
        resume,
        schema,
        train,
        trust,
        verify,
        why,
    )
    from rlrun.benchmark import bench
    from rlrun.matrices.training import matrix_slurm, train_matrix
    from rlrun.run import Run
    from rlrun.seeds import resume_group, train_seeds
    from rlrun.smoketest import smoke
    from rlrun.training.zoo import ZooEntry
    from rlrun.training.zoo_import import import_zoo
    from rlrun.tuning.study import tune

__all__ = [
    "Run",
    "ZooEntry",
    "bench",
    "check",
    "check_env",
    "compare",
    "configs",
    "diff",
    "evaluate",
    "evaluate_file",
    "evaluate_group",
    "import_zoo",
    "init",
    "inspect",
    "list_runs",
    "matrix_slurm",
    "open_run",
    "package",
    "plot",
    "prune",
    "pull",
    "push",
    "report",
    "resume",
    "resume_group",
    "schema",
    "smoke",
    "train",
    "train_matrix",
    "train_seeds",
    "trust",
    "tune",
    "verify",
    "why",
]

_ELSEWHERE = {
    "ZooEntry": "rlrun.training.zoo",
    "bench": "rlrun.benchmark",
    "import_zoo": "rlrun.training.zoo_import",
    "matrix_slurm": "rlrun.matrices.training",
    "resume_group": "rlrun.seeds",
    "smoke": "rlrun.smoketest",
    "train_matrix": "rlrun.matrices.training",
    "train_seeds": "rlrun.seeds",
    "tune": "rlrun.tuning.study",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rlrun' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_ELSEWHERE.get(name, "rlrun.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
