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
        configs,
        evaluate,
        evaluate_file,
        init,
        inspect,
        list_runs,
        open_run,
        package,
        prune,
        pull,
        push,
        resume,
        schema,
        train,
        trust,
        verify,
    )
    from rlrun.run import Run
    from rlrun.smoketest import smoke

__all__ = [
    "Run",
    "check",
    "check_env",
    "configs",
    "evaluate",
    "evaluate_file",
    "init",
    "inspect",
    "list_runs",
    "open_run",
    "package",
    "prune",
    "pull",
    "push",
    "resume",
    "schema",
    "smoke",
    "train",
    "trust",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rlrun' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("rlrun.smoketest" if name == "smoke" else "rlrun.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
