"""How many threads matrix products use: torch's, and NumPy's, whose number is another library's."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

_SETTERS = ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads64_")


def set_numpy_threads(threads: int) -> None:
    """Let matrix products run on this many threads, where NumPy came as a wheel with its own OpenBLAS.

    Two processes on the same cores whose products each wait for both cores take several times as long.
    """
    setter = _setter()
    if setter is not None:
        setter(threads)


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use this many threads inside. Factorising a (64, 64) matrix takes it 0.1 ms on one, 100 ms on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
