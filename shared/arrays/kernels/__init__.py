"""Fused kernels by family. In each folder: `reference.py`, the formula in plain array code; `cpu.py`, its Numba twin.

Numba is imported, and a kernel compiled or loaded from its cache on disk, when it is first called. The environment
variable SHARED_KERNELS=reference keeps to the formulas; so do a machine without Numba, and a family whose formulas
the learner writes in a workspace (`shared.overlay`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import pkgutil
from types import ModuleType
from typing import Any

import numpy as np

from shared.overlay import learners_file

FAMILIES = tuple(sorted(room.name for room in pkgutil.iter_modules(__path__) if room.ispkg))


@functools.cache
def _compiled(family: str) -> ModuleType | None:
    """The family's Numba kernels, or None where they cannot be used."""
    if os.environ.get("SHARED_KERNELS") == "reference" or importlib.util.find_spec("numba") is None:
        return None
    if learners_file(f"shared.arrays.kernels.{family}.reference"):
        return None
    return importlib.import_module(f"shared.arrays.kernels.{family}.cpu")


def select(family: str, *arrays: Any) -> ModuleType:
    """The module that serves `arrays`: Numba's for contiguous float32 or float64 on the CPU, else the formulas."""
    first = arrays[0].dtype
    if first.kind == "f" and first.itemsize >= 4:
        if all(type(a) is np.ndarray and a.dtype is first and a.flags.c_contiguous for a in arrays):
            kernels = _compiled(family)
            if kernels is not None:
                return kernels
    return importlib.import_module(f"shared.arrays.kernels.{family}.reference")


def in_rows(x: Any) -> Any:
    """`x` in row-major memory, as the compiled kernels want it; copied only where it is not."""
    return x if x.flags.c_contiguous else x.copy("C")


def warm_up() -> None:
    """Compiles every kernel for float32 and float64, or loads it from the cache on disk."""
    for family in FAMILIES:
        kernels = _compiled(family)
        if kernels is not None:
            kernels.warm_up()
