"""Convolution compiled by Numba: image by image, the columns built in the cache and multiplied there at once.

Formulas in reference.py, which serves for `im2col` and `col2im` by themselves too: NumPy is nearly as fast there.
Everything has three spatial dimensions here; missing ones have size 1. One call of BLAS takes the windows of one
image, or of several where an image has few of them; threads share the images.
"""

from __future__ import annotations

import importlib
import math

import numba
import numpy as np

from shared.arrays.kernels.threads import match_blas, share

__all__ = ["conv", "conv_input", "conv_weight", "warm_up"]

# NaN and infinities keep their meaning (see optim/cpu.py).
FASTMATH = {"contract", "nsz", "arcp"}
ENOUGH_COLUMNS = 128  # images are put together until a product has so many
SMALL_PRODUCT = 10**6  # multiplications that OpenBLAS does without packing: 110 GFLOP/s instead of 85
PARALLEL_FROM = 1 << 20  # multiplications; below, starting threads costs more than it saves

_threads = match_blas()


# ---------------------------------------------------------------- rows

# Loops over whole rows, in functions of their own: LLVM makes vectors of them.


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _copy(target, source):
    for i in range(target.size):
        target[i] = source[i]


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _add(target, source):
    for i in range(target.size):
        target[i] += source[i]


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _inside(size, count, stride, start):
    """The windows from a to b, b excluded, whose element o · stride + start is one of `size`."""
    a = min(count, max(0, (stride - 1 - start) // stride))
    return a, max(a, min(count, (size - 1 - start) // stride + 1))


# ---------------------------------------------------------------- one image and its columns

# A strip has, for one plane of the image and one column of the kernel, the elements that the windows see there, row by
# row. With stride 1 the rows of the kernel see long pieces of it: copying those is faster than row after row.


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _fill_strip(plane, strip, count, stride, down, right):
    """strip[r · count + o] = plane[r + down, o · stride + right], 0 outside the plane."""
    height, width = plane.shape
    a, b = _inside(width, count, stride, right)
    first, last = _inside(height, strip.size // count, 1, down)
    strip[: first * count] = 0
    strip[last * count :] = 0
    if stride == 1 and count == width:  # the rows are one piece of the plane, but for what wraps around
        _copy_shifted(strip, plane.reshape(-1), first * count, last * count, down * width + right)
    else:
        for r in range(first, last):
            row, source = strip[r * count : (r + 1) * count], plane[r + down]
            if stride == 1:
                _copy(row[a:b], source[a + right : b + right])
            else:
                for o in range(a, b):
                    row[o] = source[o * stride + right]
    _clear_ends(strip[first * count : last * count], count, a, b)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _add_strip(plane, strip, count, stride, down, right):
    """The way back: plane[r + down, o · stride + right] += strip[r · count + o]; the strip is used up."""
    height, width = plane.shape
    a, b = _inside(width, count, stride, right)
    first, last = _inside(height, strip.size // count, 1, down)
    if stride == 1 and count == width:
        _clear_ends(strip[first * count : last * count], count, a, b)
        _add_shifted(plane.reshape(-1), strip, first * count, last * count, down * width + right)
        return
    for r in range(first, last):
        row, target = strip[r * count : (r + 1) * count], plane[r + down]
        if stride == 1:
            _add(target[a + right : b + right], row[a:b])
        else:
            for o in range(a, b):
                target[o * stride + right] += row[o]


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _copy_shifted(target, source, first, last, shift):
    """target[i] = source[i + shift] from first to last, as far as the source goes."""
    first, last = max(first, -shift), min(last, source.size - shift)
    if first < last:
        _copy(target[first:last], source[first + shift : last + shift])


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _add_shifted(target, source, first, last, shift):
    """target[i + shift] += source[i] from first to last, as far as the target goes."""
    first, last = max(first, -shift), min(last, target.size - shift)
    if first < last:
        _add(target[first + shift : last + shift], source[first:last])


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _clear_ends(strip, count, a, b):
    """0 before a and from b on in every row of the strip."""
    for start in range(0, strip.size, count):
        for o in range(start, start + a):
            strip[o] = 0
        for o in range(start + b, start + count):
            strip[o] = 0


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _new_strip(x, windows):
    _, kh, _, _, oh, ow, _, sh, _, _, _, _, _, dh, _ = windows
    return np.empty(((oh - 1) * sh + (kh - 1) * dh + 1) * ow, x.dtype)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _to_columns(x, group, channels, columns, first, strip, windows):
    """The windows of one group of channels of an image x (C, D, H, W) as columns[:, first : first + L]."""
    kd, kh, kw, od, oh, ow, sd, sh, sw, pd, ph, pw, dd, dh, dw = windows
    for c in range(channels):
        for i in range(kd):
            for k in range(kw):
                for o in range(od):
                    depth = o * sd + i * dd - pd
                    if 0 <= depth < x.shape[1]:
                        _fill_strip(x[group * channels + c, depth], strip, ow, sw, -ph, k * dw - pw)
                    else:
                        strip[:] = 0
                    for j in range(kh):
                        start = first + o * oh * ow
                        row = columns[((c * kd + i) * kh + j) * kw + k, start : start + oh * ow]
                        if sh == 1:
                            _copy(row, strip[j * dh * ow : (j * dh + oh) * ow])
                        else:
                            for r in range(oh):
                                source = r * sh + j * dh
                                _copy(row[r * ow : (r + 1) * ow], strip[source * ow : (source + 1) * ow])


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _add_columns(x, group, channels, columns, first, strip, windows):
    """The way back: adds columns[:, first : first + L] to an image x where `_to_columns` takes them from."""
    kd, kh, kw, od, oh, ow, sd, sh, sw, pd, ph, pw, dd, dh, dw = windows
    for c in range(channels):
        for i in range(kd):
            for k in range(kw):
                for o in range(od):
                    depth = o * sd + i * dd - pd
                    if not 0 <= depth < x.shape[1]:
                        continue
                    strip[:] = 0
                    for j in range(kh):
                        start = first + o * oh * ow
                        row = columns[((c * kd + i) * kh + j) * kw + k, start : start + oh * ow]
                        if sh == 1:
                            _add(strip[j * dh * ow : (j * dh + oh) * ow], row)
                        else:
                            for r in range(oh):
                                target = r * sh + j * dh
                                _add(strip[target * ow : (target + 1) * ow], row[r * ow : (r + 1) * ow])
                    _add_strip(x[group * channels + c, depth], strip, ow, sw, -ph, k * dw - pw)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _product(a, b, out):
    """a @ b → out, as many rows at a time as make a small product."""
    rows = SMALL_PRODUCT // (b.shape[0] * b.shape[1])
    if rows < 4:
        rows = len(a)
    elif rows > 8:
        rows -= rows % 8
    for i in range(0, len(a), rows):
        np.dot(a[i : i + rows], b, out[i : i + rows])


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _gather(source, target, images):
    """Results (images, O, L) as rows (O, images · L)."""
    length = source.shape[2]
    for i in range(images):
        for o in range(source.shape[1]):
            _copy(target[o, i * length : (i + 1) * length], source[i, o])


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _transpose(source, target, first):
    """A result (O, L) as columns target[first : first + L, :O], in blocks that fit the cache lines."""
    outputs, length = source.shape
    for i in range(0, length, 16):
        for o in range(0, outputs, 16):
            for j in range(i, min(i + 16, length)):
                row = target[first + j]
                for k in range(o, min(o + 16, outputs)):
                    row[k] = source[k, j]


# ---------------------------------------------------------------- some images


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _conv_piece(x, weight, out, windows, together):
    """x (n, C, D, H, W), weight (groups, O / groups, C / groups · K, perhaps with the bias as one more) → out."""
    groups, outputs, rows = weight.shape
    channels, length = x.shape[1] // groups, out.shape[3]
    columns = np.ones((rows, together * length), x.dtype)  # a bias meets ones in the last row
    product = np.empty((outputs, together * length if together > 1 else 0), x.dtype)
    strip = _new_strip(x, windows)
    for n in range(0, len(x), together):
        images = min(together, len(x) - n)
        for g in range(groups):
            for i in range(images):
                _to_columns(x[n + i], g, channels, columns, i * length, strip, windows)
            if together == 1:
                _product(weight[g], columns, out[n, g])
            else:
                _product(weight[g], columns, product)
                for i in range(images):
                    for o in range(outputs):
                        _copy(out[n + i, g, o], product[o, i * length : (i + 1) * length])


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _conv_input_piece(grad, weight, out, windows, together):
    """grad (n, groups, O / groups, L), weight (groups, rows, O / groups) → added to out (n, C, D, H, W)."""
    groups, rows, outputs = weight.shape
    channels, length = out.shape[1] // groups, grad.shape[3]
    columns = np.empty((rows, together * length), grad.dtype)
    packed = np.zeros((outputs, together * length if together > 1 else 0), grad.dtype)
    strip = _new_strip(grad, windows)
    for n in range(0, len(grad), together):
        images = min(together, len(grad) - n)
        for g in range(groups):
            if together == 1:
                _product(weight[g], grad[n, g], columns)
            else:
                _gather(grad[n : n + images, g], packed, images)
                _product(weight[g], packed, columns)
            for i in range(images):
                _add_columns(out[n + i], g, channels, columns, i * length, strip, windows)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _conv_weight_piece(grad, x, out, windows, together):
    """grad (n, groups, O / groups, L), x (n, C, D, H, W) → added to out (groups, rows, O / groups)."""
    groups, rows, outputs = out.shape
    channels, length = x.shape[1] // groups, grad.shape[3]
    few = rows < 128 and together == 1  # then turning the gradient takes longer than it saves
    columns = np.zeros((rows, together * length), x.dtype)
    turned = np.zeros((together * length, outputs), x.dtype)
    product = np.empty((rows, outputs), x.dtype)
    strip = _new_strip(x, windows)
    for n in range(0, len(x), together):
        images = min(together, len(x) - n)
        if images < together:  # what other images left must not be counted again
            columns[:] = 0
            turned[:] = 0
        for g in range(groups):
            for i in range(images):
                _to_columns(x[n + i], g, channels, columns, i * length, strip, windows)
                if not few:
                    _transpose(grad[n + i, g], turned, i * length)
            if few:
                np.dot(columns, grad[n, g].T, product)
            else:
                _product(columns, turned, product)
            _add(out[g].reshape(-1), product.reshape(-1))


# ---------------------------------------------------------------- all images, among threads


def _tasks(images: int, work: int) -> int:
    """How many threads share the images: 1 where that is not worth it."""
    return min(_threads, images) if work >= PARALLEL_FROM else 1


def _share(work, images, tasks):
    """`share` for work that multiplies in SciPy's BLAS, as Numba does: it must be loaded to be told about threads."""
    if tasks > 1:
        importlib.import_module("scipy.linalg.cython_blas")
    share(work, images, tasks, blas=True)


def _together(images: int, tasks: int, length: int) -> int:
    """How many images one product takes."""
    return min(math.ceil(images / tasks), math.ceil(ENOUGH_COLUMNS / length))


def _images(x):
    """(N, C, *size) → (N, C, D, H, W)."""
    return x.reshape(*x.shape[:2], *(1,) * (5 - x.ndim), *x.shape[2:])


def conv(x, weight, bias, windows, groups):
    """`reference.conv`, one product per image or few images; the bias is one more column of the weight."""
    n, outputs, length = len(x), len(weight), windows.positions
    matrix = weight.reshape(outputs, -1)
    if bias is not None:
        matrix = np.concatenate((matrix, bias.astype(weight.dtype, copy=False)[:, None]), axis=1)
    matrix = matrix.reshape(groups, outputs // groups, matrix.shape[1])
    out = np.empty((n, groups, outputs // groups, length), x.dtype)
    tasks = _tasks(n, n * matrix.size * length)
    images, numbers, together = _images(x), windows.in_three_dimensions, _together(n, tasks, length)
    _share(lambda t, a, b: _conv_piece(images[a:b], matrix, out[a:b], numbers, together), n, tasks)
    return out.reshape(n, outputs, *windows.count)


def conv_input(grad, weight, size, windows, groups):
    """`reference.conv_input`, one product per image or few images."""
    n, outputs, length = len(grad), grad.shape[1], windows.positions
    out = np.zeros((n, weight.shape[1] * groups, *size), grad.dtype)
    grad = grad.reshape(n, groups, outputs // groups, length)
    matrix = weight.reshape(groups, outputs // groups, weight.shape[1] * windows.elements)
    matrix = np.ascontiguousarray(matrix.swapaxes(1, 2))
    tasks = _tasks(n, n * matrix.size * length)
    images, numbers, together = _images(out), windows.in_three_dimensions, _together(n, tasks, length)
    _share(lambda t, a, b: _conv_input_piece(grad[a:b], matrix, images[a:b], numbers, together), n, tasks)
    return out


def conv_weight(grad, x, windows, groups):
    """`reference.conv_weight`; each thread has a sum of its own, added up in the end."""
    n, outputs, channels, length = len(x), grad.shape[1], x.shape[1] // groups, windows.positions
    grad = grad.reshape(n, groups, outputs // groups, length)
    tasks = _tasks(n, n * outputs * channels * windows.elements * length)
    out = np.zeros((tasks, groups, channels * windows.elements, outputs // groups), x.dtype)
    images, numbers, together = _images(x), windows.in_three_dimensions, _together(n, tasks, length)
    _share(lambda t, a, b: _conv_weight_piece(grad[a:b], images[a:b], out[t], numbers, together), n, tasks)
    return out.sum(axis=0).swapaxes(1, 2).reshape(outputs, channels, *windows.kernel_size)


def warm_up() -> None:
    """Compiles each kernel for both dtypes, or loads it from the cache."""
    windows = (1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1)
    for dtype in (np.float32, np.float64):
        x, matrix, out = np.zeros((1, 1, 1, 1, 1), dtype), np.zeros((1, 1, 1), dtype), np.zeros((1, 1, 1, 1), dtype)
        _conv_piece(x, matrix, out, windows, 1)
        _conv_input_piece(out, matrix, x, windows, 1)
        _conv_weight_piece(out, x, matrix, windows, 1)
