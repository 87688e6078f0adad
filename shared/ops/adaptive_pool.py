"""Pooling into as many windows as wanted, and the way back from maxima to their places."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.ops.activation import require_tensor
from shared.ops.autocast import follows_autocast
from shared.ops.creation import zeros
from shared.ops.index import scatter
from shared.ops.join import narrow, stack
from shared.ops.pool import averaged, largest, require_floating
from shared.ops.reduce import mean
from shared.ops.windows import Sizes, batched, join, per_dimension
from shared.tensor import Tensor


def windows_of(size: int, count: int) -> list[tuple[int, int]]:
    """Where `count` windows of nearly equal size begin and end that cover `size` elements; neighbours may overlap.

    >>> windows_of(5, 3)
    [(0, 2), (1, 4), (3, 5)]
    """
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _check(name: str, input: Tensor, output_size: Any) -> tuple[Tensor, bool, tuple[int, ...]]:
    """Input as (N, C, *size), whether it was that, and the output's sizes."""
    count = int(name[-2])
    x, whole = batched(name, input, count)
    if 0 in x.shape[1:]:
        raise RuntimeError(
            f"{name}: Expected input to have non-zero size for non-batch dimensions, but got input of size: "
            f"{list(input.shape)}"
        )
    sizes = tuple(output_size) if hasattr(output_size, "__iter__") else (output_size,) * count
    if len(sizes) != count:
        raise RuntimeError(f"{name}: output_size must be {count} numbers, but got {output_size}")
    sizes = tuple(n if m is None else int(m) for m, n in zip(sizes, x.shape[2:], strict=True))
    if min(sizes) < 0:
        raise RuntimeError(f"{name}: elements of output_size must be greater than or equal to 0 but received {sizes}")
    return x, whole, sizes


# ---------------------------------------------------------------- means


def _adaptive_means(name: str, input: Tensor, output_size: Any) -> Tensor:
    require_tensor(name, "input", input)
    require_floating(name, input)
    x, whole, sizes = _check(name, input, output_size)
    if set(sizes) == {1}:
        out = mean(x, tuple(range(2, x.ndim)), keepdim=True)
    elif all(m and n % m == 0 for m, n in zip(sizes, x.shape[2:], strict=True)):
        kernel = tuple(n // m for m, n in zip(sizes, x.shape[2:], strict=True))
        out = averaged(f"avg_pool{len(sizes)}d", x, kernel, None, 0, False, True)
    else:
        out = functools.reduce(lambda y, dim: _means_along(y, dim, sizes[dim - 2]), range(2, x.ndim), x)
    return out if whole else out.squeeze(0)


def _means_along(x: Tensor, dim: int, size: int) -> Tensor:
    """The means of `size` windows along one dimension; those of several dimensions are means of means."""
    if size == 0:
        return narrow(x, dim, 0, 0)
    return stack([mean(narrow(x, dim, a, b - a), dim) for a, b in windows_of(x.shape[dim], size)], dim)


def adaptive_avg_pool1d(input: Tensor, output_size: Sizes) -> Tensor:
    """Means over windows chosen so that `output_size` of them cover the input: (N, C, L) or (C, L).

    >>> import shared
    >>> shared.nn.functional.adaptive_avg_pool1d(shared.tensor([[[1., 5., 2., 4., 6.]]]), 2)
    tensor([[[2.6667, 4.0000]]])
    """
    return _adaptive_means("adaptive_avg_pool1d", input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """`adaptive_avg_pool1d` over two dimensions, (N, C, H, W) or (C, H, W); None in `output_size` keeps a size."""
    return _adaptive_means("adaptive_avg_pool2d", input, output_size)


@follows_autocast
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """`adaptive_avg_pool2d` over three dimensions, (N, C, D, H, W) or (C, D, H, W)."""
    return _adaptive_means("adaptive_avg_pool3d", input, output_size)


# ---------------------------------------------------------------- maxima


def _adaptive_maxima(name: str, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    x, whole, sizes = _check(name, input, output_size)
    if 0 in sizes:
        out = zeros(*x.shape[:2], *sizes, dtype=x.dtype, device=x.device)
        indices = zeros(*out.shape, dtype=dtypes.int64, device=x.device)
    else:
        # Windows of one dimension side by side, the shorter ones made as long by repeating their last element.
        places = [_side_by_side(n, m) for m, n in zip(sizes, x.shape[2:], strict=True)]
        grid = np.ix_(*[place.reshape(-1) for place in places])
        if any(place.size != n for place, n in zip(places, x.shape[2:], strict=True)):
            spread = x[(slice(None), slice(None), *[Tensor(xp(x.array).asarray(part)) for part in grid])]
        else:
            spread = x  # the windows do not overlap
        out, chosen = largest(
            f"max_pool{len(sizes)}d", spread, tuple(p.shape[1] for p in places), None, 0, 1, False, True
        )
        flat = np.ravel_multi_index(tuple(np.broadcast_arrays(*grid)), tuple(x.shape[2:])).reshape(-1)
        indices = Tensor(xp(x.array).asarray(flat)[chosen.array])
    out, indices = (out, indices) if whole else (out.squeeze(0), indices.squeeze(0))
    return (out, indices) if return_indices else out


def _side_by_side(size: int, count: int) -> np.ndarray:
    """The elements of each window, (count, length of the longest).

    >>> _side_by_side(5, 3)
    array([[0, 1, 1],
           [1, 2, 3],
           [3, 4, 4]])
    """
    windows = windows_of(size, count)
    steps = np.arange(max(b - a for a, b in windows))
    return np.stack([np.minimum(a + steps, b - 1) for a, b in windows])


def adaptive_max_pool1d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """The largest elements of windows chosen so that `output_size` of them cover the input: (N, C, L) or (C, L).

    >>> import shared
    >>> shared.nn.functional.adaptive_max_pool1d(shared.tensor([[[1., 5., 2., 4., 6.]]]), 2)
    tensor([[[5., 6.]]])
    """
    return _adaptive_maxima("adaptive_max_pool1d", input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool1d` over two dimensions, (N, C, H, W) or (C, H, W); None in `output_size` keeps a size.

    With `return_indices` also the place of each maximum, H · W flattened (int64).
    """
    return _adaptive_maxima("adaptive_max_pool2d", input, output_size, return_indices)


@follows_autocast
def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool2d` over three dimensions, (N, C, D, H, W) or (C, D, H, W)."""
    return _adaptive_maxima("adaptive_max_pool3d", input, output_size, return_indices)


# ---------------------------------------------------------------- from maxima back to their places


def _unpool_size(
    input: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any, name: str
) -> tuple[int, ...]:
    """The size that pooling came from: the smallest one, or `output_size`, if that gives as many windows."""
    count = int(name[-2])
    kernel = per_dimension(name, "kernel_size", kernel_size, count)
    strides = kernel if stride is None else per_dimension(name, "stride", stride, count)
    pads = per_dimension(name, "padding", padding, count)
    smallest = [(n - 1) * s + k - 2 * p for n, k, s, p in zip(input.shape[-count:], kernel, strides, pads, strict=True)]
    if output_size is None:
        return tuple(smallest)
    wanted = tuple(output_size)[2:] if len(output_size) == count + 2 else tuple(output_size)
    if len(wanted) != count:
        raise ValueError(
            f"output_size should be a sequence containing {count} or {count + 2} elements, but it has a length of "
            f"'{len(output_size)}'"
        )
    for d, (n, least, s) in enumerate(zip(wanted, smallest, strides, strict=True)):
        if not least - s < n < least + s:
            raise ValueError(f'invalid output_size "{wanted}" (dim {d} must be between {least - s} and {least + s})')
    return wanted


def _unpooled(
    name: str, input: Tensor, indices: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Tensor:
    require_tensor(name, "indices", indices)
    x, whole = batched(name, input, int(name[-2]))
    if indices.array.dtype != dtypes.int64:
        raise RuntimeError(f"{name}: elements in indices should be type int64 but got: {indices.array.dtype.name}")
    if indices.shape != input.shape:
        raise RuntimeError(
            f"{name}: Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) but got "
            f"indices tensor with shape: {list(indices.shape)}"
        )
    size = _unpool_size(input, kernel_size, stride, padding, output_size, name)
    rows = (*x.shape[:2], math.prod(x.shape[2:]))
    empty = zeros(*x.shape[:2], math.prod(size), dtype=x.dtype, device=x.device)
    wrong = indices.array[(indices.array < 0) | (indices.array >= empty.shape[2])]
    if wrong.size:
        raise RuntimeError(
            f"{name}: Found an invalid max index: {int(wrong[0])} (output volumes are of size {join(size)})"
        )
    out = scatter(empty, 2, indices.reshape(*rows), x.reshape(*rows)).reshape(*x.shape[:2], *size)
    return out if whole else out.squeeze(0)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Any = None,
) -> Tensor:
    """`max_unpool2d` over one dimension: (N, C, L) or (C, L).

    >>> import shared
    >>> from shared.nn import functional as F
    >>> out, indices = F.max_pool1d(shared.tensor([[[1., 5., 2., 4.]]]), 2, return_indices=True)
    >>> F.max_unpool1d(out, indices, 2)
    tensor([[[0., 5., 0., 4.]]])
    """
    return _unpooled("max_unpool1d", input, indices, kernel_size, stride, padding, output_size)


@follows_autocast
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Any = None,
) -> Tensor:
    """Puts maxima (N, C, H, W) or (C, H, W) back where `max_pool2d(…, return_indices=True)` found them; 0 elsewhere.

    The size is the smallest that `max_pool2d` with the same arguments would give these maxima from, or `output_size`.
    Where two share a place, the later one counts.
    """
    return _unpooled("max_unpool2d", input, indices, kernel_size, stride, padding, output_size)


@follows_autocast
def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Any = None,
) -> Tensor:
    """`max_unpool2d` over three dimensions: (N, C, D, H, W) or (C, D, H, W)."""
    return _unpooled("max_unpool3d", input, indices, kernel_size, stride, padding, output_size)
