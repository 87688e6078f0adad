"""What convolution and pooling check and work out alike: sizes per dimension, and where windows lie."""

from __future__ import annotations

from typing import Any

from shared.arrays.kernels.windows import Windows
from shared.ops.activation import require_tensor
from shared.tensor import Tensor

Sizes = int | tuple[int, ...]


def per_dimension(name: str, what: str, value: Any, count: int) -> tuple[int, ...]:
    """`value` for each of `count` spatial dimensions: an int, or a sequence of 1 or `count` of them.

    >>> per_dimension("conv2d", "stride", 2, 2), per_dimension("conv2d", "stride", (2, 1), 2)
    ((2, 2), (2, 1))
    """
    values = tuple(value) if hasattr(value, "__iter__") else (value,)
    if len(values) not in (1, count):
        raise RuntimeError(
            f"{name}: expected {what} to be a single integer value or a list of {count} values to match the "
            f"{count} spatial dimensions, but got {what}={list(values)}"
        )
    for v in values:
        if not hasattr(v, "__index__") or isinstance(v, bool):
            raise TypeError(f"{name}(): argument '{what}' must be int or tuple of ints, but got {value!r}")
    return tuple(v.__index__() for v in values) * (count if len(values) == 1 else 1)


def batched(name: str, input: Tensor, count: int) -> tuple[Tensor, bool]:
    """Input (N, C, *size), or (C, *size) made a batch of one; and whether it was one already."""
    require_tensor(name, "input", input)
    if input.ndim not in (count + 1, count + 2):
        raise RuntimeError(
            f"{name}: Expected {count + 1}D (unbatched) or {count + 2}D (batched) input to {name}, but got input of "
            f"size: {list(input.shape)}"
        )
    whole = input.ndim == count + 2
    return (input if whole else input.unsqueeze(0)), whole


def slide(
    size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool = False,
) -> Windows:
    """All windows that fit: ⌊(size + 2 · padding − dilation · (kernel_size − 1) − 1) / stride⌋ + 1 per dimension.

    `ceil_mode` rounds up: a last window may go past the end, if it begins before it, that is, on the padding in
    front or on the input, and not on the padding behind. Where nothing fits the count is 0 or less; it is always
    rounded down, −1/2 to −1, not towards 0. `count` is a tuple, as everything that was given.
    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, relationship 6.

    >>> slide((28, 28), (5, 5), (2, 2), (0, 0), (1, 1)).count
    (12, 12)
    >>> slide((5,), (2,), (2,), (0,), (1,)).count       # windows at 0 and 2; element 4 is left over
    (2,)
    >>> slide((5,), (2,), (2,), (0,), (1,), ceil_mode=True).count       # a third at 4, half of it past the end
    (3,)
    >>> slide((5,), (2,), (3,), (1,), (1,), ceil_mode=True).count       # a third, at 6 − 1, would begin on the padding
    (2,)
    """
    count = []
    for n, k, s, p, d in zip(size, kernel_size, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        windows = (room + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (windows - 1) * s >= n + p:
            windows -= 1
        count.append(windows)
    return Windows(kernel_size, tuple(count), stride, padding, dilation)


def join(sizes: tuple[int, ...]) -> str:
    """(2, 3) as '2 x 3', for messages."""
    return " x ".join(map(str, sizes))
