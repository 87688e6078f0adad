"""Sliding windows: where they lie over an input, and a view of all of them. Convolution and pooling begin here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.arrays.device import xp


@dataclass(frozen=True)
class Windows:
    """Windows over an array (N, C, *size); each tuple has one number per spatial dimension.

    Element k of window o is the input's element o · stride + k · dilation − padding. Where that is below 0 or past
    the end there is padding: its width before the first element is `padding`, after the last as much as is reached.

    >>> Windows(kernel_size=(3,), count=(4,), stride=(2,), padding=(1,), dilation=(1,)).reach
    (9,)
    """

    kernel_size: tuple[int, ...]
    count: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """How many elements there are from the first one of the first window to the last one of the last window."""
        return tuple(
            (o - 1) * s + (k - 1) * d + 1
            for k, o, s, d in zip(self.kernel_size, self.count, self.stride, self.dilation, strict=True)
        )

    @property
    def elements(self) -> int:
        """The number of elements of one window."""
        return math.prod(self.kernel_size)

    @property
    def positions(self) -> int:
        """The number of windows."""
        return math.prod(self.count)

    def padded(self, x: Any, value: Any = 0) -> Any:
        """x (N, C, *size) with `value` around it: as much as `padding` says before it, after it what `reach` needs.

        Where the windows leave elements over at the end these stay, and no `value` comes behind them. The result has
        the dtype of x; without any padding x itself may be returned.

        >>> x = np.arange(1.0, 5.0).reshape(1, 1, 4)
        >>> Windows(kernel_size=(3,), count=(3,), stride=(2,), padding=(1,), dilation=(1,)).padded(x)[0]
        array([[0., 1., 2., 3., 4., 0., 0.]])
        """
        high = [max(0, r - p - n) for r, p, n in zip(self.reach, self.padding, x.shape[2:], strict=True)]
        widths = [(0, 0), (0, 0), *zip(self.padding, high, strict=True)]
        return xp(x).pad(x, widths, constant_values=value) if any(map(any, widths)) else x

    def over(self, padded: Any) -> Any:
        """The windows over what `padded` gave: a view (N, C, *kernel_size, *count) that copies nothing.

        Raises ValueError where the array is smaller than `reach`: the view would show memory that is not its own.

        >>> x = np.arange(6.0).reshape(1, 1, 6)
        >>> Windows((2,), (3,), (2,), (0,), (1,)).over(x)[0, 0]       # two rows: first and second elements
        array([[0., 2., 4.],
               [1., 3., 5.]])
        """
        if any(n < r for n, r in zip(padded.shape[2:], self.reach, strict=True)):
            raise ValueError(
                f"the windows reach over {self.reach} elements and this array has only {padded.shape[2:]}: "
                "windows.padded(x) first"
            )
        steps = padded.strides[2:]
        return xp(padded).lib.stride_tricks.as_strided(
            padded,
            (*padded.shape[:2], *self.kernel_size, *self.count),
            (
                *padded.strides[:2],
                *[d * step for d, step in zip(self.dilation, steps, strict=True)],
                *[s * step for s, step in zip(self.stride, steps, strict=True)],
            ),
        )

    def offsets(self) -> Any:
        """The indices of a window's elements, one after the other: (0, 0), (0, 1), …"""
        return np.ndindex(*self.kernel_size)

    def where(self, offset: tuple[int, ...]) -> tuple:
        """The index of the element `offset` of every window in a padded array (N, C, *…), which gives (N, C, *count).

        It is made of slices, so that the indexed part is a view and can be changed in place.

        >>> padded, windows = np.arange(6.0).reshape(1, 1, 6), Windows((2,), (3,), (2,), (0,), (1,))
        >>> padded[windows.where((0,))], padded[windows.where((1,))]        # first elements, second elements
        (array([[[0., 2., 4.]]]), array([[[1., 3., 5.]]]))
        """
        starts = [k * d for k, d in zip(offset, self.dilation, strict=True)]
        return (
            ...,
            *[slice(a, a + (o - 1) * s + 1, s) for a, o, s in zip(starts, self.count, self.stride, strict=True)],
        )

    def without_padding(self, padded: Any, size: tuple[int, ...]) -> Any:
        """The part of a padded array that is no padding, (N, C, *size)."""
        return padded[(..., *[slice(p, p + n) for p, n in zip(self.padding, size, strict=True)])]

    def padded_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The sizes that `padded` gives an input of `size`."""
        return tuple(p + max(n, r - p) for p, n, r in zip(self.padding, size, self.reach, strict=True))

    @property
    def in_three_dimensions(self) -> tuple[int, ...]:
        """All numbers in one tuple of 15, missing dimensions put in front: what the compiled kernels take."""
        fill = 3 - len(self.kernel_size)
        ones, zeros = (1,) * fill, (0,) * fill
        return (
            *(*ones, *self.kernel_size),
            *(*ones, *self.count),
            *(*ones, *self.stride),
            *(*zeros, *self.padding),
            *(*ones, *self.dilation),
        )
