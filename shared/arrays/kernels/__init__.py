"""Fused kernels by family. In each folder: `reference.py`, the formula in plain array code; `cpu.py`, its Numba twin;
`cuda.py`, its twin on the GPU.

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

from shared.arrays import dtypes
from shared.arrays.device import is_gpu_array
from shared.overlay import learners_file

FAMILIES = tuple(sorted(room.name for room in pkgutil.iter_modules(__path__) if room.ispkg))


def _only_formulas(family: str) -> bool:
    """True where the formulas are asked for, or written by the learner."""
    asked = os.environ.get("SHARED_KERNELS") == "reference"
    return asked or learners_file(f"shared.arrays.kernels.{family}.reference") is not None


@functools.cache
def _compiled(family: str) -> ModuleType | None:
    """The family's Numba kernels, or None where they cannot be used."""
    if importlib.util.find_spec("numba") is None or _only_formulas(family):
        return None
    return importlib.import_module(f"shared.arrays.kernels.{family}.cpu")


@functools.cache
def _cuda(family: str) -> ModuleType | None:
    """The family's CUDA kernels, or None where they cannot be used."""
    name = f"shared.arrays.kernels.{family}.cuda"
    return None if _only_formulas(family) or importlib.util.find_spec(name) is None else importlib.import_module(name)


def select(family: str, *arrays: Any) -> ModuleType:
    """The module that serves `arrays`: compiled kernels for contiguous floating arrays of one dtype, else the formulas.

    Numba's serve float32 and float64, those on the GPU float16 and bfloat16 as well.
    """
    first = arrays[0].dtype
    if first.kind == "f" and first.itemsize >= 4:
        if all(type(a) is np.ndarray and a.dtype is first and a.flags.c_contiguous for a in arrays):
            kernels = _compiled(family)
            if kernels is not None:
                return kernels
    if is_gpu_array(arrays[0]) and first in dtypes.FLOATING:
        if all(is_gpu_array(a) and a.dtype == first and a.flags.c_contiguous for a in arrays):
            kernels = _cuda(family)
            if kernels is not None:
                return kernels
    return importlib.import_module(f"shared.arrays.kernels.{family}.reference")


def serves_halves(family: str) -> bool:
    """True where kernels on the GPU take float16 and bfloat16; what they compute with is float32."""
    return _cuda(family) is not None


def in_rows(x: Any) -> Any:
    """`x` in row-major memory, as the compiled kernels want it; copied only where it is not."""
    return x if x.flags.c_contiguous else x.copy("C")


# Attention calls functions of softmax: two processes that wrote these into Numba's cache could mix their types up.
_TOGETHER = ("attention", "softmax")


def warm_up(processes: int = 1) -> None:
    """Compiles every kernel for float32 and float64, or loads it from the cache on disk; families at the same time."""
    groups = [_TOGETHER, *[(family,) for family in FAMILIES if family not in _TOGETHER]]
    if processes == 1:
        for group in groups:
            _warm_up(group)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_warm_up, groups))


def _warm_up(families: tuple[str, ...]) -> None:
    for family in families:
        kernels = _compiled(family)
        if kernels is not None:
            kernels.warm_up()
