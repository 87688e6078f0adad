"""Convolution and its gradients, and windows as columns; the formulas are in reference.py."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from shared.arrays.kernels import in_rows, select
from shared.arrays.kernels.conv import reference
from shared.arrays.kernels.conv.reference import col2im, conv_bias, im2col
from shared.arrays.kernels.windows import Windows

__all__ = ["col2im", "conv", "conv_bias", "conv_input", "conv_weight", "im2col"]


def _kernels(windows: Windows, *arrays: Any) -> ModuleType:
    """The module that serves; without overlaps (kernels of one element) the columns are the input, no copy of it."""
    pointwise = windows.elements == 1 and not any(windows.padding) and set(windows.stride) == {1}
    if pointwise or not all(a.size for a in arrays):
        return reference
    return select("conv", *arrays)


def conv(x: Any, weight: Any, bias: Any, windows: Windows, groups: int) -> Any:
    """`reference.conv`: (N, O, *count)."""
    x, weight = in_rows(x), in_rows(weight)
    return _kernels(windows, x, weight).conv(x, weight, bias, windows, groups)


def conv_input(grad: Any, weight: Any, size: tuple[int, ...], windows: Windows, groups: int) -> Any:
    """`reference.conv_input`: (N, C, *size)."""
    grad, weight = in_rows(grad), in_rows(weight)
    return _kernels(windows, grad, weight).conv_input(grad, weight, size, windows, groups)


def conv_weight(grad: Any, x: Any, windows: Windows, groups: int) -> Any:
    """`reference.conv_weight`: (O, C / groups, *kernel_size)."""
    grad, x = in_rows(grad), in_rows(x)
    return _kernels(windows, grad, x).conv_weight(grad, x, windows, groups)
