"""Data types: NumPy dtype instances under PyTorch's names, the default dtype, and PyTorch's promotion."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

float64 = double = np.dtype("float64")
float32 = np.dtype("float32")
float16 = half = np.dtype("float16")
bfloat16 = np.dtype(ml_dtypes.bfloat16)
int64 = long = np.dtype("int64")
int32 = np.dtype("int32")
int16 = short = np.dtype("int16")
int8 = np.dtype("int8")
uint8 = np.dtype("uint8")
bool_ = np.dtype("bool")

ALL = (float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8, bool_)
FLOATING = frozenset((float64, float32, float16, bfloat16))
_NAMES = {dtype.name: dtype for dtype in ALL} | {
    "double": double,
    "half": half,
    "long": long,
    "int": int32,
    "short": short,
    "bool": bool_,
}

_default = float32


def get_default_dtype() -> np.dtype:
    """The dtype that Python floats become; float32 unless changed."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Sets the dtype that Python floats become; must be a floating dtype."""
    global _default
    dtype = as_dtype(dtype)
    if dtype not in FLOATING:
        raise TypeError(f"the default dtype must be a floating dtype, but got {dtype.name}")
    _default = dtype


def as_dtype(dtype: Any) -> np.dtype:
    """The supported dtype that `dtype` (a dtype, a NumPy type, a Python type or a name) stands for.

    >>> as_dtype("bfloat16") == bfloat16, as_dtype(float).name
    (True, 'float64')
    """
    found = _NAMES.get(dtype) if isinstance(dtype, str) else None
    if found is None:
        try:
            found = np.dtype(dtype)
        except TypeError:
            found = None
    if found is None or dtype is None or found not in ALL:  # NumPy takes None for float64
        names = ", ".join(d.name for d in ALL)
        raise TypeError(f"unknown dtype {dtype!r}; expected one of {names}")
    return found


def is_floating(dtype: np.dtype) -> bool:
    """True for float64, float32, float16 and bfloat16."""
    return dtype in FLOATING


def category(dtype: np.dtype) -> int:
    """0 for bool, 1 for integers, 2 for floating dtypes."""
    return 2 if dtype in FLOATING else 0 if dtype == bool_ else 1


def promote_types(a: np.dtype, b: np.dtype) -> np.dtype:
    """The dtype of an operation between arrays of dtypes `a` and `b`, by PyTorch's lattice.

    >>> promote_types(int64, float32).name, promote_types(float16, bfloat16).name
    ('float32', 'float32')
    """
    if a == b:
        return a
    if category(a) != category(b):
        return a if category(a) > category(b) else b
    if {a, b} == {float16, bfloat16}:
        return float32
    return np.promote_types(a, b)


def of_scalar(value: Any) -> np.dtype:
    """The dtype a Python number becomes in a tensor of its own."""
    return bool_ if isinstance(value, (bool, np.bool_)) else int64 if isinstance(value, (int, np.integer)) else _default


def result_type(*operands: Any) -> np.dtype:
    """The dtype of an operation between raw arrays and Python numbers, by PyTorch's rules.

    Arrays with dimensions outrank zero-dimensional ones, which outrank Python numbers; a lower rank
    changes the dtype only when its category (bool, integer, floating) is higher.
    Source: PyTorch documentation, "Tensor Attributes", type promotion.
    """
    ranks: list[np.dtype | None] = [None, None, None]  # with dimensions, zero-dimensional, Python numbers
    for x in operands:
        ndim = getattr(x, "ndim", None)
        rank = 2 if ndim is None else 0 if ndim else 1
        dtype = of_scalar(x) if ndim is None else x.dtype
        seen = ranks[rank]
        ranks[rank] = dtype if seen is None else promote_types(seen, dtype)
    result = None
    for dtype in ranks:
        if dtype is not None and (result is None or category(dtype) > category(result)):
            result = dtype
    assert result is not None, "result_type needs at least one operand"
    return result
