"""Normalisation compiled by Numba, row by row, a row staying in the cache between its passes. Formulas in reference.py.

Means and sums over a row are made in the dtype of the elements by as many lanes as a vector has, sums over rows in
float64. Variances are sums of squared deviations from the mean that was found before: two passes, no cancellation.
"""

from __future__ import annotations

import numba
import numpy as np

from shared.arrays.kernels.threads import PARALLEL_FROM, match_blas, share

__all__ = [
    "batch_norm",
    "batch_norm_input",
    "group_norm",
    "group_norm_input",
    "layer_norm",
    "layer_norm_input",
    "normalize_channels",
    "normalize_channels_input",
    "rms_norm",
    "rms_norm_input",
    "warm_up",
]

# NaN and infinities keep their meaning (see optim/cpu.py). In a pure sum they do so in any order, which vectors need.
# Without "arcp", which would make 1 / √v an estimate with a correction: NaN where v is infinite.
FASTMATH = {"contract", "nsz"}
ANY_ORDER = {"contract", "nsz", "reassoc"}
ROWS_TOGETHER = 64  # so many rows are summed in their own dtype before they are added to float64

_threads = match_blas()

# Rows are indexed, not cut out, and short loops stand where they are used: a row handed to a function is counted by its
# array, atomically, and a call of many arguments takes as long as a hundred elements.


# ---------------------------------------------------------------- sums over one row


@numba.njit(fastmath=ANY_ORDER, error_model="numpy", cache=True, nogil=True)
def _sum(x, r):
    total = x.dtype.type(0)
    for i in range(x.shape[1]):
        total += x[r, i]
    return total


@numba.njit(fastmath=ANY_ORDER, error_model="numpy", cache=True, nogil=True)
def _sum_of_squares(x, r, centre):
    """Σ (x − centre)²"""
    total = x.dtype.type(0)
    for i in range(x.shape[1]):
        total += (x[r, i] - centre) * (x[r, i] - centre)
    return total


@numba.njit(fastmath=ANY_ORDER, error_model="numpy", cache=True, nogil=True)
def _sums_with(grad, x, r, centre):
    """Σ grad and Σ grad · (x − centre)"""
    total, product = x.dtype.type(0), x.dtype.type(0)
    for i in range(x.shape[1]):
        total += grad[r, i]
        product += grad[r, i] * (x[r, i] - centre)
    return total, product


@numba.njit(fastmath=ANY_ORDER, error_model="numpy", cache=True, nogil=True)
def _sums_and_products(grad, weight, x, r, mean, inv_std, to_weight, to_bias):
    """Σ grad · weight and Σ grad · weight · x̂; and to_weight += grad · x̂, to_bias += grad, element by element."""
    total, product = x.dtype.type(0), x.dtype.type(0)
    for i in range(x.shape[1]):
        g, normalized = grad[r, i], (x[r, i] - mean) * inv_std
        total += g * weight[i]
        product += g * weight[i] * normalized
        scale, shift = to_weight[i] + g * normalized, to_bias[i] + g
        to_weight[i] = scale
        to_bias[i] = shift
    return total, product


# ---------------------------------------------------------------- rows with moments of their own: layer and RMS norm


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _layer_norm_piece(x, weight, bias, eps, centred, out, means, inv_stds):
    """x (R, D) → out (R, D), means and inv_stds (R,); not `centred`, the mean is taken as 0: RMS norm."""
    one, zero, count = x.dtype.type(1), x.dtype.type(0), x.dtype.type(x.shape[1])
    for r in range(len(x)):
        mean = _sum(x, r) / count if centred else zero
        inv_std = one / np.sqrt(_sum_of_squares(x, r, mean) / count + eps)
        for i in range(x.shape[1]):
            out[r, i] = (x[r, i] - mean) * inv_std * weight[i] + bias[i]
        means[r] = mean
        inv_stds[r] = inv_std


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _empty_into(part, total):
    """total += part, which is 0 then"""
    for i in range(total.size):
        total[i] += part[i]
    part[:] = 0


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _layer_norm_input_piece(grad, x, weight, means, inv_stds, centred, out, to_weight, to_bias):
    """grad and x (R, D) → out (R, D); to_weight and to_bias (D,), float64, are added to."""
    zero, count = x.dtype.type(0), x.dtype.type(x.shape[1])
    weight_part, bias_part = np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
    for r in range(len(x)):
        mean, inv_std = means[r], inv_stds[r]
        total, product = _sums_and_products(grad, weight, x, r, mean, inv_std, weight_part, bias_part)
        level = total / count if centred else zero
        tilt = product / count * inv_std
        for i in range(x.shape[1]):
            out[r, i] = (grad[r, i] * weight[i] - level - (x[r, i] - mean) * tilt) * inv_std
        if r % ROWS_TOGETHER == ROWS_TOGETHER - 1:
            _empty_into(weight_part, to_weight)
            _empty_into(bias_part, to_bias)
    _empty_into(weight_part, to_weight)
    _empty_into(bias_part, to_bias)


# ---------------------------------------------------------------- rows with given numbers: batch and group norm

# A row is one channel of one image. What belongs to several of them is put together by NumPy, in float64.


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _row_moments_piece(x, means, squares):
    """x (R, L) → the means and the sums of squared deviations from them (R,), float64."""
    count = x.dtype.type(x.shape[1])
    for r in range(len(x)):
        mean = _sum(x, r) / count
        means[r] = mean
        squares[r] = _sum_of_squares(x, r, mean)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _affine_piece(x, centres, scales, shifts, out):
    """(x − centre) · scale + shift, row by row: x (R, L) and three times (R,) → out (R, L)."""
    for r in range(len(x)):
        centre, scale, shift = centres[r], scales[r], shifts[r]
        for i in range(x.shape[1]):
            out[r, i] = (x[r, i] - centre) * scale + shift


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _row_sums_piece(grad, x, centres, totals, products):
    """Σ grad and Σ grad · (x − centre), row by row: (R, L), (R, L) and (R,) → (R,) and (R,), float64."""
    for r in range(len(x)):
        totals[r], products[r] = _sums_with(grad, x, r, centres[r])


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _combine_piece(grad, x, centres, slopes, levels, tilts, out):
    """slope · grad − level − (x − centre) · tilt, row by row."""
    for r in range(len(x)):
        centre, slope, level, tilt = centres[r], slopes[r], levels[r], tilts[r]
        for i in range(x.shape[1]):
            out[r, i] = slope * grad[r, i] - level - (x[r, i] - centre) * tilt


# ---------------------------------------------------------------- all rows, among threads


def _share(piece, *arrays):
    """piece(*arrays), every array cut along the rows, on as many threads as the first one is large enough for."""
    rows = len(arrays[0])
    tasks = min(_threads, rows) if arrays[0].size >= PARALLEL_FROM else 1
    share(lambda _, a, b: piece(*[array[a:b] for array in arrays]), rows, tasks)


def layer_norm(x, weight, bias, eps):
    """`reference.layer_norm`, each row once."""
    return _layer_norm(x, weight, bias, eps, True)


def rms_norm(x, weight, eps):
    """`reference.rms_norm`, each row once."""
    out, _, inv_rms = _layer_norm(x, weight, None, eps, False)
    return out, inv_rms


def _layer_norm(x, weight, bias, eps, centred):
    rows, width = x.shape
    weight = np.ones(width, x.dtype) if weight is None else weight
    bias = np.zeros(width, x.dtype) if bias is None else bias
    out, means, inv_stds = np.empty_like(x), np.empty((rows, 1), x.dtype), np.empty((rows, 1), x.dtype)
    eps = x.dtype.type(eps)
    _share(
        lambda x, out, means, inv_stds: _layer_norm_piece(x, weight, bias, eps, centred, out, means, inv_stds),
        *(x, out, means.reshape(rows), inv_stds.reshape(rows)),
    )
    return out, means, inv_stds


def layer_norm_input(grad, x, mean, inv_std, weight):
    """`reference.layer_norm_input`, each row once."""
    return _layer_norm_input(grad, x, mean, inv_std, weight, True)


def rms_norm_input(grad, x, inv_rms, weight):
    """`reference.rms_norm_input`, each row once."""
    return _layer_norm_input(grad, x, np.zeros_like(inv_rms), inv_rms, weight, False)[:2]


def _layer_norm_input(grad, x, mean, inv_std, weight, centred):
    rows, width = x.shape
    weight = np.ones(width, x.dtype) if weight is None else weight
    mean, inv_std, out = mean.reshape(rows), inv_std.reshape(rows), np.empty_like(x)
    tasks = min(_threads, rows) if x.size >= PARALLEL_FROM else 1
    sums = np.zeros((tasks, 2, width))

    def piece(task, a, b):
        numbers = (weight, mean[a:b], inv_std[a:b], centred)
        _layer_norm_input_piece(grad[a:b], x[a:b], *numbers, out[a:b], *sums[task])

    share(piece, rows, tasks)
    to_weight, to_bias = sums.sum(axis=0).astype(x.dtype)
    return out, to_weight, to_bias


def _for_rows(values, x):
    """Numbers per channel, or per channel of each image, for each row of (N · C, L), in the dtype of x."""
    return np.broadcast_to(np.asarray(values, x.dtype), x.shape[:2]).reshape(x.shape[0] * x.shape[1])


def _rows(x):
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


def _channel_rows_moments(x):
    """The moments of the rows of x (N, C, L): the means and the sums of squared deviations (N, C), float64."""
    n, channels, _ = x.shape
    means, squares = np.empty((n, channels)), np.empty((n, channels))
    _share(_row_moments_piece, _rows(x), means.reshape(n * channels), squares.reshape(n * channels))
    return means, squares


def _pooled(means, squares, count, axis):
    """The mean and variance of several sets of `count` values together, from their own (Chan et al., 1983)."""
    mean = means.mean(axis=axis, keepdims=True)
    total = squares.sum(axis=axis) + count * ((means - mean) ** 2).sum(axis=axis)
    return mean.squeeze(axis), total / (count * means.shape[axis])


def _normalized(x, mean, variance, weight, bias, eps):
    """x (N, C, L) with moments and parameters of (C,) or (N, C)."""
    scale = (variance.astype(np.float64) + eps) ** -0.5
    scale = scale if weight is None else scale * weight
    out = np.empty_like(x)
    numbers = [_for_rows(v, x) for v in (mean, scale, 0 if bias is None else bias)]
    _share(_affine_piece, _rows(x), *numbers, _rows(out))
    return out


def normalize_channels(x, mean, variance, weight, bias, eps):
    """`reference.normalize_channels` in one pass."""
    return _normalized(x, mean, variance, weight, bias, eps)


def batch_norm(x, weight, bias, eps):
    """`reference.batch_norm`: the moments of every row in one pass, the result in another."""
    mean, variance = _pooled(*_channel_rows_moments(x), x.shape[2], 0)
    mean, variance = mean.astype(x.dtype), variance.astype(x.dtype)
    return _normalized(x, mean, variance, weight, bias, eps), mean, variance


def group_norm(x, groups, weight, bias, eps):
    """`reference.group_norm`, as `batch_norm`."""
    n, channels, length = x.shape
    moments = [m.reshape(n * groups, channels // groups) for m in _channel_rows_moments(x)]
    mean, variance = (m.astype(x.dtype)[:, None] for m in _pooled(*moments, length, 1))
    shared = [np.repeat(m, channels // groups).reshape(n, channels) for m in (mean, variance)]
    return _normalized(x, *shared, weight, bias, eps), mean, variance


def _sums_by_row(grad, x, mean):
    """Σ grad and Σ grad · (x − mean) for every row of (N, C, L): (N, C) and (N, C), float64."""
    n, channels, _ = x.shape
    totals, products = np.empty((n, channels)), np.empty((n, channels))
    sums = (totals.reshape(n * channels), products.reshape(n * channels))
    _share(_row_sums_piece, _rows(grad), _rows(x), _for_rows(mean, x), *sums)
    return totals, products


def _combined(grad, x, mean, slope, level, tilt):
    """slope · grad − level − (x − mean) · tilt, with numbers of (C,) or (N, C)."""
    out = np.empty_like(x)
    numbers = [_for_rows(v, x) for v in (mean, slope, level, tilt)]
    _share(_combine_piece, _rows(grad), _rows(x), *numbers, _rows(out))
    return out


def batch_norm_input(grad, x, mean, inv_std, weight):
    """`reference.batch_norm_input`: the sums over every row in one pass, the result in another."""
    totals, products = _sums_by_row(grad, x, mean)
    count, inv_std = x.shape[0] * x.shape[2], inv_std.astype(np.float64)
    to_bias, to_weight = totals.sum(axis=0), products.sum(axis=0) * inv_std
    slope = inv_std if weight is None else weight * inv_std
    to_x = _combined(grad, x, mean, slope, slope * to_bias / count, slope * inv_std * to_weight / count)
    return to_x, to_weight.astype(x.dtype), to_bias.astype(x.dtype)


def normalize_channels_input(grad, x, mean, inv_std, weight):
    """`reference.normalize_channels_input`."""
    totals, products = _sums_by_row(grad, x, mean)
    slope = inv_std if weight is None else weight * inv_std
    to_x = np.empty_like(x)
    _share(_affine_piece, _rows(grad), *[_for_rows(v, x) for v in (0, slope, 0)], _rows(to_x))
    return to_x, (products.sum(axis=0) * inv_std).astype(x.dtype), totals.sum(axis=0).astype(x.dtype)


def group_norm_input(grad, x, groups, mean, inv_std, weight):
    """`reference.group_norm_input`, as `batch_norm_input`."""
    n, channels, length = x.shape
    mean, inv_std = (np.repeat(m.astype(np.float64), channels // groups).reshape(n, channels) for m in (mean, inv_std))
    totals, products = _sums_by_row(grad, x, mean)
    products = products * inv_std

    def shares(sums):
        """The mean over a group's values of the gradient by x̂, or of that times x̂; for each row."""
        weighted = (sums if weight is None else sums * weight).reshape(n * groups, channels // groups)
        return np.repeat(weighted.sum(axis=1) / (weighted.shape[1] * length), channels // groups).reshape(n, channels)

    slope = inv_std if weight is None else weight * inv_std
    to_x = _combined(grad, x, mean, slope, inv_std * shares(totals), inv_std * inv_std * shares(products))
    return to_x, products.sum(axis=0).astype(x.dtype), totals.sum(axis=0).astype(x.dtype)


def warm_up() -> None:
    """Compiles each kernel for both dtypes, or loads it from the cache."""
    wide = np.zeros(1)
    for dtype in (np.float32, np.float64):
        x, row = np.zeros((1, 1), dtype), np.zeros(1, dtype)
        _layer_norm_piece(x, row, row, dtype(1), True, x, row, row)
        _layer_norm_input_piece(x, x, row, row, row, True, x, wide, wide)
        _row_moments_piece(x, wide, wide)
        _affine_piece(x, row, row, row, x)
        _row_sums_piece(x, x, row, wide, wide)
        _combine_piece(x, x, row, row, row, row, x)
