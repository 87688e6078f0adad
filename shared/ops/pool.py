"""Pooling: the largest element or the mean of every window, channel by channel."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.arrays.kernels import pool as kernels
from shared.arrays.kernels.windows import Windows
from shared.autograd import Function
from shared.ops.activation import in_float32
from shared.ops.autocast import follows_autocast
from shared.ops.windows import Sizes, batched, join, per_dimension, slide
from shared.tensor import Tensor

# ---------------------------------------------------------------- maxima


class MaxPool(Function):
    """The largest element of each window"""

    twice = True

    def __init__(self, windows: Windows):
        self.windows = windows

    def forward(self, x):
        """(N, C, *size) → (N, C, *count); `self.saved` has the places of the maxima in each channel, (N, C, *count)."""
        out, places = kernels.max_pool(x, self.windows)
        self.size, self.saved = x.shape[2:], (places,)
        return out

    def backward(self, grad):
        """Each window's gradient goes to the place of its maximum; where windows share one, gradients add up."""
        (places,) = self.saved
        if isinstance(grad, Tensor):
            return MaxPoolInput(places.array, self.size, self.windows)(grad)
        return kernels.max_pool_input(grad, places, self.size, self.windows)


class MaxPoolInput(Function):
    """The gradient of `MaxPool`, as an operation of its own"""

    twice = True

    def __init__(self, places: Any, size: tuple[int, ...], windows: Windows):
        self.places, self.size, self.windows = places, size, windows

    def forward(self, grad):
        return kernels.max_pool_input(grad, self.places, self.size, self.windows)

    def backward(self, grad):
        take = AtPlaces(self.places, self.size, self.windows)
        return take(grad) if isinstance(grad, Tensor) else take.forward(grad)


class AtPlaces(Function):
    """The elements at given places of each channel"""

    twice = True

    def __init__(self, places: Any, size: tuple[int, ...], windows: Windows):
        self.places, self.size, self.windows = places, size, windows

    def forward(self, x):
        rows = (*x.shape[:2], math.prod(self.size))
        places = self.places.reshape(*x.shape[:2], self.windows.positions)
        return xp(x).take_along_axis(x.reshape(rows), places, axis=2).reshape(self.places.shape)

    def backward(self, grad):
        if isinstance(grad, Tensor):
            return MaxPoolInput(self.places, self.size, self.windows)(grad)
        return kernels.max_pool_input(grad, self.places, self.size, self.windows)


# ---------------------------------------------------------------- means


class AvgPool(Function):
    """The sum of each window over its divisor"""

    twice = True

    def __init__(self, windows: Windows, divisor: Any):
        self.windows, self.divisor = windows, divisor

    def forward(self, x):
        """(N, C, *size) → (N, C, *count)."""
        self.size = x.shape[2:]
        return kernels.avg_pool(x, self.windows, self.divisor)

    def backward(self, grad):
        if isinstance(grad, Tensor):
            return AvgPoolInput(self.size, self.windows, self.divisor)(grad)
        return kernels.avg_pool_input(grad, self.size, self.windows, self.divisor)


class AvgPoolInput(Function):
    """The gradient of `AvgPool`, as an operation of its own"""

    twice = True

    def __init__(self, size: tuple[int, ...], windows: Windows, divisor: Any):
        self.size, self.windows, self.divisor = size, windows, divisor

    def forward(self, grad):
        return kernels.avg_pool_input(grad, self.size, self.windows, self.divisor)

    def backward(self, grad):
        if isinstance(grad, Tensor):
            return AvgPool(self.windows, self.divisor)(grad)
        return kernels.avg_pool(grad, self.windows, self.divisor)


@functools.lru_cache(maxsize=64)
def divisors(size: tuple[int, ...], windows: Windows, count_include_pad: bool) -> np.ndarray:
    """How many elements each window has, (*count): with the padding, or without. Beyond the padding there are none.

    >>> divisors((4,), Windows((2,), (3,), (2,), (1,), (1,)), count_include_pad=False)
    array([1., 2., 1.])
    """
    whole = np.ones(())
    for n, k, o, s, p in zip(size, windows.kernel_size, windows.count, windows.stride, windows.padding, strict=True):
        starts = np.arange(o) * s - p
        ends = np.minimum(starts + k, n + p)
        lengths = ends - starts if count_include_pad else np.minimum(ends, n) - np.maximum(starts, 0)
        whole = whole[..., None] * lengths
    return whole


# ---------------------------------------------------------------- checks


def _windows(
    name: str, x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Windows:
    """The windows, after the checks; x is (N, C, *size)."""
    count, size = x.ndim - 2, tuple(x.shape[2:])
    stride = kernel_size if stride is None or (hasattr(stride, "__len__") and not len(stride)) else stride
    given = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    numbers = {what: per_dimension(name, what, value, count) for what, value in given.items()}
    for what in ("kernel_size", "stride", "dilation"):
        if min(numbers[what]) <= 0:
            raise RuntimeError(f"{name}: {what} should be greater than zero, but got {numbers[what]}")
    for k, p, d in zip(numbers["kernel_size"], numbers["padding"], numbers["dilation"], strict=True):
        if p < 0:
            raise RuntimeError(f"{name}: pad must be non-negative, but got pad: {p}")
        if p > ((k - 1) * d + 1) // 2:
            raise RuntimeError(
                f"{name}: pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k} and "
                f"dilation={d}"
            )
    if 0 in x.shape[1:]:
        raise RuntimeError(
            f"{name}: Expected {count + 1}D or {count + 2}D (batch mode) tensor with optional 0 dim batch size for "
            f"input, but got: {list(x.shape)}"
        )
    windows = slide(size, **numbers, ceil_mode=ceil_mode)
    if min(windows.count) < 1:
        raise RuntimeError(
            f"{name}: Given input size: ({join(tuple(x.shape[1:]))}). Calculated output size: "
            f"({join((x.shape[1], *windows.count))}). Output size is too small"
        )
    return windows


def largest(
    name: str,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    """Max pooling of any number of dimensions, by name."""
    x, whole = batched(name, input, int(name[-2]))
    if x.array.dtype == dtypes.bool_:
        raise NotImplementedError(f'"{name}" not implemented for bool')
    function = MaxPool(_windows(name, x, kernel_size, stride, padding, dilation, ceil_mode))
    out = function(x)
    if not return_indices:
        return out if whole else out.squeeze(0)
    indices = Tensor(function.saved[0].astype(dtypes.int64))
    return (out, indices) if whole else (out.squeeze(0), indices.squeeze(0))


def averaged(
    name: str,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean pooling of any number of dimensions, by name."""
    x, whole = batched(name, input, int(name[-2]))
    require_floating(name, x)
    if name == "avg_pool3d":
        _require_room_for_a_window(name, tuple(x.shape[2:]), per_dimension(name, "kernel_size", kernel_size, 3))
    if divisor_override == 0:
        raise RuntimeError(f"{name}: divisor must be not zero")
    windows = _windows(name, x, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override is None:
        divisor = divisors(tuple(x.shape[2:]), windows, count_include_pad)
    else:
        divisor = np.full(windows.count, divisor_override)
    dtype = x.array.dtype if x.array.dtype.itemsize >= 4 else dtypes.float32
    out = in_float32(AvgPool(windows, xp(x.array).asarray(divisor.astype(dtype))), x)
    return out if whole else out.squeeze(0)


def _require_room_for_a_window(name: str, size: tuple[int, ...], kernel_size: tuple[int, ...]) -> None:
    """Raises where the input, without padding, is smaller than a window: PyTorch wants this in three dimensions."""
    if any(n < k for n, k in zip(size, kernel_size, strict=True)):
        raise RuntimeError(f"{name}: input image {join(size)} smaller than kernel size {join(kernel_size)}")


def require_floating(name: str, input: Tensor) -> None:
    if not dtypes.is_floating(input.array.dtype):
        raise NotImplementedError(f'"{name}" not implemented for {input.array.dtype.name}')


# ---------------------------------------------------------------- the public functions


def max_pool1d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool2d` over one dimension: input (N, C, L) or (C, L).

    >>> import shared
    >>> shared.nn.functional.max_pool1d(shared.tensor([[[1., 5., 2., 4.]]]), 2)
    tensor([[[5., 4.]]])
    """
    return largest("max_pool1d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of every window: input (N, C, H, W) or (C, H, W) → (N, C, H', W') or (C, H', W').

    H' = ⌊(H + 2 · padding − dilation · (KH − 1) − 1) / stride⌋ + 1, rounded up with `ceil_mode`; `stride` is the
    window's size if None. Padding counts as −∞. With `return_indices` also the place of each maximum, H · W flattened
    (int64). The gradient goes to the first of equal maxima. NaN is larger than all.

    >>> import shared
    >>> shared.nn.functional.max_pool2d(shared.arange(16.).reshape(1, 4, 4), 2)
    tensor([[[ 5.,  7.],
             [13., 15.]]])
    """
    return largest("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@follows_autocast
def max_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool2d` over three dimensions: input (N, C, D, H, W) or (C, D, H, W)."""
    return largest("max_pool3d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """`avg_pool2d` over one dimension: input (N, C, L) or (C, L).

    >>> import shared
    >>> shared.nn.functional.avg_pool1d(shared.tensor([[[1., 5., 2., 4.]]]), 2)
    tensor([[[3., 3.]]])
    """
    return averaged("avg_pool1d", input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of every window: input (N, C, H, W) or (C, H, W); sizes as in `max_pool2d`.

    Padding counts as 0, and in the number of elements unless `count_include_pad` is False; `divisor_override` stands
    for that number.

    >>> import shared
    >>> shared.nn.functional.avg_pool2d(shared.arange(16.).reshape(1, 4, 4), 2)
    tensor([[[ 2.5000,  4.5000],
             [10.5000, 12.5000]]])
    """
    return averaged("avg_pool2d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@follows_autocast
def avg_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """`avg_pool2d` over three dimensions: input (N, C, D, H, W) or (C, D, H, W)."""
    return averaged("avg_pool3d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
