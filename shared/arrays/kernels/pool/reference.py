"""Pooling in plain array code, element of the window by element: x is (N, C, *size), the result (N, C, *count).

`windows` says where the windows lie. `places` (N, C, *count), int32, has the flat index in its image's channel of each
window's maximum; `divisor` (*count) is what each window's sum is divided by.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.arrays.kernels.conv.reference import col2im
from shared.arrays.kernels.windows import Windows

Array = Any  # numpy.ndarray or cupy.ndarray


def _indices(x: Array, size: tuple[int, ...], windows: Windows) -> Array:
    """The flat index of every element of an image (1, 1, *padded size), −1 on padding."""
    return windows.padded(xp(x).arange(math.prod(size), dtype="int32").reshape(1, 1, *size), -1)


def _lowest(dtype: Any) -> Any:
    """What no element is below: −∞, or an integer type's least number."""
    return -math.inf if dtypes.is_floating(dtype) else np.iinfo(dtype).min


def max_pool(x: Array, windows: Windows) -> tuple[Array, Array]:
    """The largest element of each window, and its place. NaN is larger than all; of equal ones the first counts.

    Of several NaN in a window any may give the place; here it is the last, as in PyTorch.

    >>> import numpy as np
    >>> max_pool(np.array([[[1.0, 5.0, 2.0, 2.0]]]), Windows((2,), (2,), (2,), (0,), (1,)))
    (array([[[5., 2.]]]), array([[[1, 2]]], dtype=int32))
    """
    module = xp(x)
    padded, indices = windows.padded(x, _lowest(x.dtype)), _indices(x, x.shape[2:], windows)
    best = module.full((*x.shape[:2], *windows.count), _lowest(x.dtype), x.dtype)
    places = module.full(best.shape, -1, "int32")
    for offset in windows.offsets():
        value, index = padded[windows.where(offset)], indices[windows.where(offset)]
        better = (value > best) | (value != value) | (places < 0)  # the first one also where all are −∞
        better &= index >= 0
        best = module.where(better, value, best)
        places = module.where(better, index, places)
    return best, places


def max_pool_input(grad: Array, places: Array, size: tuple[int, ...], windows: Windows) -> Array:
    """The gradient of the maxima by x, (N, C, *size): each window's gradient goes to its maximum's place."""
    module, indices = xp(grad), _indices(grad, size, windows)
    padded = module.zeros((*grad.shape[:2], *indices.shape[2:]), grad.dtype)
    for offset in windows.offsets():
        where = windows.where(offset)
        padded[where] += module.where(places == indices[where], grad, 0)
    return windows.without_padding(padded, size)


def avg_pool(x: Array, windows: Windows, divisor: Array) -> Array:
    """The sum of each window, padding counting as 0, divided by its divisor.

    >>> import numpy as np
    >>> avg_pool(np.array([[[1.0, 5.0, 2.0, 4.0]]]), Windows((2,), (2,), (2,), (0,), (1,)), np.array([2.0, 2.0]))
    array([[[3., 3.]]])
    """
    padded = windows.padded(x)
    total = sum(padded[windows.where(offset)] for offset in windows.offsets())
    return total / divisor


def avg_pool_input(grad: Array, size: tuple[int, ...], windows: Windows, divisor: Array) -> Array:
    """The gradient of the means by x, (N, C, *size): each element of a window gets an equal share."""
    n, channels = grad.shape[:2]
    share = (grad / divisor).reshape(n, channels, 1, windows.positions)
    columns = xp(grad).broadcast_to(share, (n, channels, windows.elements, windows.positions))
    return col2im(columns.reshape(n, channels * windows.elements, windows.positions), size, windows)
