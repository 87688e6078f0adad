"""Pooling and its gradients; the formulas are in reference.py."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from shared.arrays.kernels import in_rows, select
from shared.arrays.kernels.pool import reference
from shared.arrays.kernels.windows import Windows

__all__ = ["avg_pool", "avg_pool_input", "max_pool", "max_pool_input"]


def _kernels(*arrays: Any) -> ModuleType:
    return select("pool", *arrays) if all(a.size for a in arrays) else reference


def max_pool(x: Any, windows: Windows) -> tuple[Any, Any]:
    """`reference.max_pool`: the maxima (N, C, *count) and their places, int32."""
    x = in_rows(x)
    return _kernels(x).max_pool(x, windows)


def max_pool_input(grad: Any, places: Any, size: tuple[int, ...], windows: Windows) -> Any:
    """`reference.max_pool_input`: (N, C, *size)."""
    grad, places = in_rows(grad), in_rows(places)
    return _kernels(grad).max_pool_input(grad, places, size, windows)


def avg_pool(x: Any, windows: Windows, divisor: Any) -> Any:
    """`reference.avg_pool`: (N, C, *count)."""
    x = in_rows(x)
    return _kernels(x, divisor).avg_pool(x, windows, divisor)


def avg_pool_input(grad: Any, size: tuple[int, ...], windows: Windows, divisor: Any) -> Any:
    """`reference.avg_pool_input`: (N, C, *size)."""
    grad = in_rows(grad)
    return _kernels(grad, divisor).avg_pool_input(grad, size, windows, divisor)
