"""A deep-learning framework built from scratch on NumPy and CuPy, with PyTorch's names and semantics.

>>> import shared
>>> x = shared.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
tensor([2., 4., 6.])
"""

from __future__ import annotations

import importlib as _importlib
import math as _math
import warnings as _warnings
from typing import Any as _Any

from shared import overlay as _overlay

_overlay.install()  # first of all: it decides whose modules the imports below find

from shared.arrays import memory as _memory, threads as _threads  # isort: skip

_memory.keep_freed_memory()
_threads.let_blas_threads_sleep()  # NumPy's BLAS reads it when it is loaded

from numpy import dtype

# Infinities and NaN are values here as in PyTorch: NumPy's warnings about them are silenced for this package's
# own arithmetic (the module filter), and go on working for everybody else's.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"shared\.")

from shared.tensor import Size, Tensor  # isort: skip  (ties the knot with ops, see its last lines)
from shared import autograd
from shared.arrays.device import Device as device
from shared.arrays.device import synchronize
from shared.arrays.dtypes import (
    bfloat16,
    double,
    float16,
    float32,
    float64,
    get_default_dtype,
    half,
    int8,
    int16,
    int32,
    int64,
    long,
    promote_types,
    set_default_dtype,
    short,
    uint8,
)
from shared.arrays.dtypes import bool_ as bool
from shared.arrays.dtypes import float32 as float
from shared.arrays.dtypes import int32 as int
from shared.arrays.random import Generator, get_rng_state, initial_seed, manual_seed, set_rng_state
from shared.autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from shared.ops import *
from shared.ops import tensor  # after the module of that name
from shared.printing import set_printoptions

__version__ = "0.1.0"

inf, nan, pi, e = _math.inf, _math.nan, _math.pi, _math.e
_ROOMS = (
    "amp",
    "backends",
    "checkpoint",
    "cuda",
    "data",
    "drawing",
    "models",
    "nn",
    "optim",
    "testing",
    "text",
    "training",
)

_OF_AMP = (
    "autocast",
    "clear_autocast_cache",
    "get_autocast_dtype",
    "is_autocast_cache_enabled",
    "is_autocast_enabled",
)


def is_tensor(obj: object) -> bool:  # type: ignore[valid-type]
    """True for a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:  # type: ignore[valid-type]
    """True for a tensor of a floating dtype."""
    return input.is_floating_point()


def numel(input: Tensor) -> int:  # type: ignore[valid-type]
    """The number of elements."""
    return input.numel()


def __getattr__(name: str) -> _Any:
    """The rooms of the upper floors, opened when first entered: `shared.nn` needs no import of its own."""
    if name in ("save", "load"):
        return getattr(_importlib.import_module("shared.checkpoint"), name)
    if name in ("set_float32_matmul_precision", "get_float32_matmul_precision"):
        return getattr(_importlib.import_module("shared.backends"), name)
    if name in _OF_AMP:
        return getattr(_importlib.import_module("shared.amp"), name)
    if name in _ROOMS:
        return _importlib.import_module(f"shared.{name}")
    raise AttributeError(f"module 'shared' has no attribute {name!r}")
