"""Convolution in plain array code: windows laid out as columns, and a matrix product.

Throughout, x is (N, C, *size), weight (O, C / groups, *kernel_size), the result (N, O, *count); `windows` says where
the O · count dot products are taken. K is short for the number of a window's elements, L for that of the windows.

The result is linear in x and in weight. With G a gradient of the result, the number Σ G · conv(x, weight) has three
derivatives: by G it is `conv`, by x it is `conv_input`, by weight `conv_weight`. So each is made of the other two
when it is differentiated itself, and `conv_input` is also the transposed convolution. `gemm.matmul` is the matrix
product as `@` has it, of stacks of matrices too.

Source: Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing", 2006,
section 2; Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.
"""

from __future__ import annotations

from typing import Any

from shared.arrays import gemm
from shared.arrays.device import xp
from shared.arrays.kernels.windows import Windows

Array = Any  # numpy.ndarray or cupy.ndarray


def im2col(x: Array, windows: Windows) -> Array:
    """Every window of every image as one column: (N, C, *size) → (N, C · K, L).

    Row c · K + k has element k of channel c, column l window l; elements and windows count in reading order, the last
    dimension fastest. Padding is 0. The result may share memory with x or not; x stays as it is.

    >>> import numpy as np
    >>> im2col(np.arange(4.0).reshape(1, 1, 4), Windows((3,), (2,), (1,), (0,), (1,)))[0]
    array([[0., 1.],
           [1., 2.],
           [2., 3.]])
    """
    n, channels = x.shape[:2]
    view = windows.over(windows.padded(x))
    return view.reshape(n, channels * windows.elements, windows.positions)


def col2im(columns: Array, size: tuple[int, ...], windows: Windows) -> Array:
    """Adds every column where `im2col` took it from: (N, C · K, L) → (N, C, *size); what fell on padding is lost.

    It is the transpose of `im2col`, not its inverse: an element that lies in several windows gets their sum, one
    that lies in none gets 0.

    >>> import numpy as np
    >>> col2im(np.ones((1, 3, 2)), (4,), Windows((3,), (2,), (1,), (0,), (1,)))[0]      # in how many windows?
    array([[1., 2., 2., 1.]])
    """
    n, channels = columns.shape[0], columns.shape[1] // windows.elements
    columns = columns.reshape(n, channels, *windows.kernel_size, *windows.count)
    padded = xp(columns).zeros((n, channels, *windows.padded_size(size)), columns.dtype)
    for offset in windows.offsets():
        padded[windows.where(offset)] += columns[(slice(None), slice(None), *offset)]
    return windows.without_padding(padded, size)


def conv(x: Array, weight: Array, bias: Array | None, windows: Windows, groups: int) -> Array:
    """out[n, o, l] = bias[o] + Σ over c and k of weight[o, c, k] · x[n, c, element k of window l]

    With `groups` > 1 the channels are cut into as many equal parts, in x and in the result, and each part of the
    result sees its part of x alone: weight has C / groups channels.
    """
    n, outputs = len(x), len(weight)
    columns = im2col(x, windows)
    columns = columns.reshape(n, groups, columns.shape[1] // groups, windows.positions)
    filters = weight.reshape(groups, outputs // groups, columns.shape[2])
    out = gemm.matmul(filters, columns).reshape(n, outputs, *windows.count)
    return out if bias is None else out + bias.reshape(-1, *[1] * len(windows.count))


def conv_input(grad: Array, weight: Array, size: tuple[int, ...], windows: Windows, groups: int) -> Array:
    """The gradient of `conv` by x, (N, C, *size), from grad (N, O, *count): Wᵀ G, added up where windows overlap."""
    n, outputs = grad.shape[:2]
    channels = weight.shape[1] * groups
    filters = weight.reshape(groups, outputs // groups, weight.shape[1] * windows.elements)
    grad = grad.reshape(n, groups, outputs // groups, windows.positions)
    columns = gemm.matmul(filters.swapaxes(1, 2), grad)
    return col2im(columns.reshape(n, channels * windows.elements, windows.positions), size, windows)


def conv_weight(grad: Array, x: Array, windows: Windows, groups: int) -> Array:
    """The gradient of `conv` by weight, (O, C / groups, *kernel_size), from grad (N, O, *count): Σ over images G Xᵀ.

    X has the windows as columns. All images come into one product per group, as N · L columns.
    """
    n, channels, outputs = len(x), x.shape[1] // groups, grad.shape[1]
    columns = im2col(x, windows).reshape(n, groups, channels * windows.elements, windows.positions)
    grad = grad.reshape(n, groups, outputs // groups, windows.positions)
    columns, grad = (
        a.transpose(1, 2, 0, 3).reshape(groups, a.shape[2], n * windows.positions) for a in (columns, grad)
    )
    product = gemm.matmul(grad, columns.swapaxes(1, 2))
    return product.reshape(outputs, channels, *windows.kernel_size)


def conv_bias(grad: Array) -> Array:
    """The gradient of `conv` by bias, (O,), from grad (N, O, *count): the sum over images and windows.

    >>> import numpy as np
    >>> conv_bias(np.ones((2, 3, 4, 4)))
    array([32., 32., 32.])
    """
    n, outputs = grad.shape[:2]
    rows = grad.reshape(n * outputs, grad.size // max(n * outputs, 1))
    return gemm.row_sums(rows).reshape(n, outputs).sum(axis=0)
