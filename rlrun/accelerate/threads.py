"""How many threads NumPy's matrix products use. torch's number is another library's, so it does not count for them."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_SETTERS = ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads64_")


def set_numpy_threads(threads: int) -> None:
    """Let matrix products run on this many threads, where NumPy came as a wheel with its own OpenBLAS.

    Two processes on the same cores whose products each wait for both cores take several times as long.
    """
    setter = _setter()
    if setter is not None:
        setter(threads)


@cache
def _setter() -> Any:
    folder = Path(np.__file__).parent
    for path in [*folder.parent.glob("numpy.libs/*openblas*"), *folder.glob(".dylibs/*openblas*")]:
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for name in _SETTERS:
            if hasattr(library, name):
                return getattr(library, name)
    return None
