"""Convolution on the GPU: the windows as columns in memory, and cuBLAS. Formulas in reference.py.

All images come into one product where it can be said to cuBLAS; the columns of more than `MOST_BYTES` are made and
multiplied a part of the images at a time.
"""

from __future__ import annotations

from typing import Any

from shared.arrays import cublas
from shared.arrays.device import xp
from shared.arrays.kernels.launch import Kernels, geometry
from shared.arrays.kernels.windows import Windows

__all__ = ["conv", "conv_input", "conv_weight"]

Array = Any  # cupy.ndarray

MOST_BYTES = 1 << 28

kernels = Kernels(r"""
// x (N, C, *size) → element k of window l of channel c of image n at n · image_step + (c · K + k) · row_step + l.
// A thread takes a window of one channel: those beside it read and write beside it.
extern "C" __global__ void to_columns(const T* x, T* columns, long long channels, long long image_step,
                                      long long row_step, const __grid_constant__ Geometry g, long long size) {
    const int windows = g.count[0] * g.count[1] * g.count[2], elements = g.kernel[0] * g.kernel[1] * g.kernel[2];
    for (I i = first(); i < size; i += step()) {
        const I plane = i / windows;
        int l = i % windows, begin[3];
        T* to = columns + plane / channels * image_step + plane % channels * elements * row_step + l;
        for (int d = 2; d >= 0; d--) {
            begin[d] = l % g.count[d] * g.stride[d] - g.padding[d];
            l /= g.count[d];
        }
        const T* from = x + (long long)plane * g.size[0] * g.size[1] * g.size[2];
        for (int a = 0; a < g.kernel[0]; a++)
            for (int b = 0; b < g.kernel[1]; b++)
                for (int c = 0; c < g.kernel[2]; c++, to += row_step) {
                    const int z = begin[0] + a * g.dilation[0], y = begin[1] + b * g.dilation[1];
                    const int w = begin[2] + c * g.dilation[2];
                    const bool inside = z >= 0 && z < g.size[0] && y >= 0 && y < g.size[1] && w >= 0 && w < g.size[2];
                    *to = inside ? from[((long long)z * g.size[1] + y) * g.size[2] + w] : T(0);
                }
    }
}

// The way back, from columns (N, C · K, L): a thread takes one element of x and adds up what saw it, in one order.
extern "C" __global__ void from_columns(const T* columns, T* x, const __grid_constant__ Geometry g, long long size) {
    const I windows = (I)g.count[0] * g.count[1] * g.count[2];
    for (I i = first(); i < size; i += step()) {
        I plane = i;
        int at[3];
        for (int d = 2; d >= 0; d--) {
            at[d] = plane % g.size[d];
            plane /= g.size[d];
        }
        A total = 0;
        const T* row = columns + (long long)plane * g.kernel[0] * g.kernel[1] * g.kernel[2] * windows;
        for (int a = 0; a < g.kernel[0]; a++)
            for (int b = 0; b < g.kernel[1]; b++)
                for (int c = 0; c < g.kernel[2]; c++, row += windows) {
                    const int o[3] = {seen_by(g, 0, at[0], a), seen_by(g, 1, at[1], b), seen_by(g, 2, at[2], c)};
                    if (o[0] >= 0 && o[1] >= 0 && o[2] >= 0)
                        total += (A)row[((long long)o[0] * g.count[1] + o[1]) * g.count[2] + o[2]];
                }
        x[i] = T(total);
    }
}
""")


def _images(total: int, rows: int, windows: Windows, like: Array) -> int:
    """How many images' columns, of `rows` rows each, fit into MOST_BYTES; at least one."""
    return max(1, min(total, MOST_BYTES // (rows * windows.positions * like.itemsize)))


def _columns(x: Array, windows: Windows, images_inside: bool) -> Array:
    """The windows of x (N, C, *size) as columns (N, C · K, L), or with all images in a row, (C · K, N, L)."""
    n, channels, length = len(x), x.shape[1], windows.positions
    rows = channels * windows.elements
    columns = xp(x).empty((rows, n, length) if images_inside else (n, rows, length), x.dtype)
    image_step, row_step = (length, n * length) if images_inside else (rows * length, length)
    shape = geometry(windows, x.shape[2:])
    kernels.over(n * channels * length, "to_columns", columns, x, columns, channels, image_step, row_step, shape)
    return columns


def conv(x: Array, weight: Array, bias: Array | None, windows: Windows, groups: int) -> Array:
    """`reference.conv`."""
    n, outputs, length = len(x), len(weight), windows.positions
    out = xp(x).empty((n, groups, outputs // groups, length), x.dtype)
    filters = weight.reshape(groups, outputs // groups, weight.shape[1] * windows.elements)
    together = _images(n, x.shape[1] * windows.elements, windows, x)
    for i in range(0, n, together):
        columns = _columns(x[i : i + together], windows, False)
        columns = columns.reshape(len(columns), groups, filters.shape[2], length)
        cublas.matmul(filters, columns, out=out[i : i + together])
    out = out.reshape(n, outputs, *windows.count)
    if bias is not None:
        out += bias.reshape(-1, *[1] * len(windows.count))
    return out


def conv_input(grad: Array, weight: Array, size: tuple[int, ...], windows: Windows, groups: int) -> Array:
    """`reference.conv_input`."""
    n, outputs, channels = len(grad), grad.shape[1], weight.shape[1] * groups
    out = xp(grad).empty((n, channels, *size), grad.dtype)
    filters = weight.reshape(groups, outputs // groups, weight.shape[1] * windows.elements).swapaxes(1, 2)
    grad = grad.reshape(n, groups, outputs // groups, windows.positions)
    together = _images(n, channels * windows.elements, windows, grad)
    for i in range(0, n, together):
        columns, part = cublas.matmul(filters, grad[i : i + together]), out[i : i + together]
        kernels.over(part.size, "from_columns", columns, columns, part, geometry(windows, size))
    return out


def conv_weight(grad: Array, x: Array, windows: Windows, groups: int) -> Array:
    """`reference.conv_weight`."""
    n, channels, outputs = len(x), x.shape[1] // groups, grad.shape[1]
    grad = grad.reshape(n, groups, outputs // groups, windows.positions)
    total = None
    together = _images(n, x.shape[1] * windows.elements, windows, x)
    for i in range(0, n, together):
        columns = _columns(x[i : i + together], windows, True)
        columns = columns.reshape(groups, channels * windows.elements, columns.shape[1] * windows.positions)
        rows = xp(grad).ascontiguousarray(grad[i : i + together].transpose(1, 2, 0, 3))
        product = cublas.matmul(rows.reshape(groups, outputs // groups, columns.shape[2]), columns.swapaxes(1, 2))
        total = product if total is None else total + product
    return total.reshape(outputs, channels, *windows.kernel_size)
