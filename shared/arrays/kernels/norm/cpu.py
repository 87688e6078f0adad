"""Normalisation compiled by Numba, row by row, a row staying in the cache between its passes. Formulas in reference.py.

Means and sums over a row are made in the dtype of the elements by as many lanes as a vector has, sums over rows in
float64. Variances are sums of squared deviations from the mean that was found before: two passes, no cancellation.
"""

from __future__ import annotations

import numba
import numpy as np

from shared.arrays.kernels.threads import match_blas, share

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

PARALLEL_FROM = 1 << 19  # elements: a call takes 0.13 ms or more then, and to hand half of it to a thread 0.1 ms

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

# A row is one channel of one image. What belongs to several rows is put together in float64. Numbers come for every row
# or, K of them, for the channels of every image: row r has number r mod K. Pieces go from row `first` to `last`.


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _row_moments_piece(x, first, last, means, squares):
    """x (R, L) → the means and the sums of squared deviations from them (R,), float64."""
    count = x.dtype.type(x.shape[1])
    for r in range(first, last):
        mean = _sum(x, r) / count
        means[r] = mean
        squares[r] = _sum_of_squares(x, r, mean)


@numba.njit(error_model="numpy", cache=True, nogil=True)
def _pool(means, squares, count, step, stride, mean, variance):
    """The moments of several rows of `count` elements together, from theirs (Chan et al., 1983).

    Set k has the rows k · step + j · stride; all sets together all rows.
    """
    members = means.size // mean.size
    for k in range(mean.size):
        total, square = 0.0, 0.0
        for j in range(members):
            total += means[k * step + j * stride]
        centre = total / members
        for j in range(members):
            r = k * step + j * stride
            square += squares[r] + count * (means[r] - centre) * (means[r] - centre)
        mean[k] = centre
        variance[k] = square / (count * members)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _affine_piece(x, first, last, centres, scales, shifts, out):
    """(x − centre) · scale + shift: x (R, L) and three times (K,) → out (R, L)."""
    for r in range(first, last):
        k = r % centres.size
        centre, scale, shift = centres[k], scales[k], shifts[k]
        for i in range(x.shape[1]):
            out[r, i] = (x[r, i] - centre) * scale + shift


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _row_sums_piece(grad, first, last, x, centres, totals, products):
    """Σ grad and Σ grad · (x − centre) of every row: (R, L), (R, L) and (K,) → (R,) and (R,), float64."""
    for r in range(first, last):
        totals[r], products[r] = _sums_with(grad, x, r, centres[r % centres.size])


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _combine_piece(grad, first, last, x, centres, slopes, levels, tilts, out):
    """slope · grad − level − (x − centre) · tilt: (R, L), (R, L) and four times (K,) → out (R, L)."""
    for r in range(first, last):
        k = r % centres.size
        centre, slope, level, tilt = centres[k], slopes[k], levels[k], tilts[k]
        for i in range(x.shape[1]):
            out[r, i] = slope * grad[r, i] - level - (x[r, i] - centre) * tilt


# ---------------------------------------------------------------- columns: batch norm of (N, C)

# Channels lie side by side here, so that vectors hold several of them.


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _column_moments(x, means, variances):
    """x (N, C) → the means and variances of the columns (C,), in the dtype of x."""
    part, total = np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1])
    for r in range(len(x)):
        for i in range(x.shape[1]):
            part[i] += x[r, i]
        if r % ROWS_TOGETHER == ROWS_TOGETHER - 1:
            _empty_into(part, total)
    _empty_into(part, total)
    for i in range(x.shape[1]):
        means[i] = total[i] / len(x)
    total[:] = 0
    for r in range(len(x)):
        for i in range(x.shape[1]):
            part[i] += (x[r, i] - means[i]) * (x[r, i] - means[i])
        if r % ROWS_TOGETHER == ROWS_TOGETHER - 1:
            _empty_into(part, total)
    _empty_into(part, total)
    for i in range(x.shape[1]):
        variances[i] = total[i] / len(x)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _affine_columns(x, centres, scales, shifts, out):
    """(x − centre) · scale + shift: x (N, C) and three times (C,) → out (N, C)."""
    for r in range(len(x)):
        for i in range(x.shape[1]):
            out[r, i] = (x[r, i] - centres[i]) * scales[i] + shifts[i]


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _column_sums(grad, x, centres, totals, products):
    """Σ grad and Σ grad · (x − centre) of every column: (N, C), (N, C) and (C,) → added to (C,) and (C,), float64."""
    total_part, product_part = np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
    for r in range(len(x)):
        for i in range(x.shape[1]):
            total, product = total_part[i] + grad[r, i], product_part[i] + grad[r, i] * (x[r, i] - centres[i])
            total_part[i] = total
            product_part[i] = product
        if r % ROWS_TOGETHER == ROWS_TOGETHER - 1:
            _empty_into(total_part, totals)
            _empty_into(product_part, products)
    _empty_into(total_part, totals)
    _empty_into(product_part, products)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _combine_columns(grad, x, centres, slopes, levels, tilts, out):
    """slope · grad − level − (x − centre) · tilt: (N, C), (N, C) and four times (C,) → out (N, C)."""
    for r in range(len(x)):
        for i in range(x.shape[1]):
            out[r, i] = slopes[i] * grad[r, i] - levels[i] - (x[r, i] - centres[i]) * tilts[i]


# ---------------------------------------------------------------- layer and RMS norm, among threads


def _tasks(x):
    """How many threads share the rows of x: 1 where that is not worth it."""
    return min(_threads, len(x)) if x.size >= PARALLEL_FROM else 1


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
    out, means, inv_stds = np.empty_like(x), np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    numbers = (weight, bias, x.dtype.type(eps), centred)
    share(lambda _, a, b: _layer_norm_piece(x[a:b], *numbers, out[a:b], means[a:b], inv_stds[a:b]), rows, _tasks(x))
    return out, means[:, None], inv_stds[:, None]


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
    tasks = _tasks(x)
    sums = np.zeros((tasks, 2, width))

    def piece(task, a, b):
        numbers = (weight, mean[a:b], inv_std[a:b], centred)
        _layer_norm_input_piece(grad[a:b], x[a:b], *numbers, out[a:b], *sums[task])

    share(piece, rows, tasks)
    to_weight, to_bias = sums.sum(axis=0).astype(x.dtype)
    return out, to_weight, to_bias


# ---------------------------------------------------------------- batch and group norm, among threads

# x is (N, C, L) again. With one position the channels are columns, and one thread is enough.


def _in_columns(x, numbers):
    return x.shape[2] == 1 and len(numbers) == x.shape[1]


def _rows(x):
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


def _for_rows(piece, x, *others):
    """piece(x, first, last, *others), the rows of x among threads."""
    rows = _rows(x)
    share(lambda _, a, b: piece(rows, a, b, *others), len(rows), _tasks(rows))


def _in_dtype(x, *numbers):
    return [np.ascontiguousarray(a, x.dtype) for a in numbers]


def _affine(x, centres, scales, shifts):
    """(x − centre) · scale + shift, with numbers (C,) or (N · C,)."""
    out = np.empty_like(x)
    numbers = _in_dtype(x, centres, scales, shifts)
    if _in_columns(x, centres):
        _affine_columns(x[:, :, 0], *numbers, out[:, :, 0])
    else:
        _for_rows(_affine_piece, x, *numbers, _rows(out))
    return out


def _combined(grad, x, centres, slopes, levels, tilts):
    """slope · grad − level − (x − centre) · tilt, with numbers (C,) or (N · C,)."""
    out = np.empty_like(x)
    numbers = _in_dtype(x, centres, slopes, levels, tilts)
    if _in_columns(x, centres):
        _combine_columns(grad[:, :, 0], x[:, :, 0], *numbers, out[:, :, 0])
    else:
        _for_rows(_combine_piece, grad, _rows(x), *numbers, _rows(out))
    return out


def _moments(x, sets, step, stride):
    """The means and variances of sets of rows, as in `_pool`."""
    means, squares = np.empty(x.shape[0] * x.shape[1]), np.empty(x.shape[0] * x.shape[1])
    _for_rows(_row_moments_piece, x, means, squares)
    mean, variance = np.empty(sets, x.dtype), np.empty(sets, x.dtype)
    _pool(means, squares, x.shape[2], step, stride, mean, variance)
    return mean, variance


def _sums(grad, x, centres):
    """Σ grad and Σ grad · (x − centre) of every row (N · C,), with centres (C,) or (N · C,); float64."""
    totals, products = np.empty(x.shape[0] * x.shape[1]), np.empty(x.shape[0] * x.shape[1])
    _for_rows(_row_sums_piece, grad, _rows(x), centres, totals, products)
    return totals, products


def _channel_sums(grad, x, mean):
    """Σ grad and Σ grad · (x − mean) of every channel (C,), float64."""
    if _in_columns(x, mean):
        sums = np.zeros((2, len(mean)))
        _column_sums(grad[:, :, 0], x[:, :, 0], mean, *sums)
        return sums
    return [sums.reshape(x.shape[:2]).sum(axis=0) for sums in _sums(grad, x, mean)]


def normalize_channels(x, mean, variance, weight, bias, eps):
    """`reference.normalize_channels` in one pass."""
    scale = 1 / np.sqrt(variance.astype(np.float64) + eps)
    scale = scale if weight is None else scale * weight
    return _affine(x, mean, scale, np.zeros_like(mean) if bias is None else bias)


def batch_norm(x, weight, bias, eps):
    """`reference.batch_norm`: the moments in one pass, the result in another."""
    channels = x.shape[1]
    if x.shape[2] == 1:
        mean, variance = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
        _column_moments(x[:, :, 0], mean, variance)
    else:
        mean, variance = _moments(x, channels, 1, channels)
    return normalize_channels(x, mean, variance, weight, bias, eps), mean, variance


def batch_norm_input(grad, x, mean, inv_std, weight):
    """`reference.batch_norm_input`: the sums in one pass, the result in another."""
    to_bias, product = _channel_sums(grad, x, mean)
    count, inv_std = x.shape[0] * x.shape[2], inv_std.astype(np.float64)
    to_weight = product * inv_std
    slope = inv_std if weight is None else weight * inv_std
    to_x = _combined(grad, x, mean, slope, slope * to_bias / count, slope * inv_std * to_weight / count)
    return to_x, *_in_dtype(x, to_weight, to_bias)


def normalize_channels_input(grad, x, mean, inv_std, weight):
    """`reference.normalize_channels_input`."""
    to_bias, product = _channel_sums(grad, x, mean)
    to_x = _affine(grad, np.zeros_like(mean), inv_std if weight is None else weight * inv_std, np.zeros_like(mean))
    return to_x, *_in_dtype(x, product * inv_std, to_bias)


def group_norm(x, groups, weight, bias, eps):
    """`reference.group_norm`: the moments in one pass, the result in another."""
    n, channels, together = x.shape[0], x.shape[1], x.shape[1] // groups
    mean, variance = _moments(x, n * groups, together, 1)
    scale = np.repeat(1 / np.sqrt(variance.astype(np.float64) + eps), together)
    scale = scale if weight is None else scale * np.tile(weight, n)
    shift = np.zeros(n * channels, x.dtype) if bias is None else np.tile(bias, n)
    return _affine(x, np.repeat(mean, together), scale, shift), mean[:, None], variance[:, None]


def group_norm_input(grad, x, groups, mean, inv_std, weight):
    """`reference.group_norm_input`: the sums in one pass, the result in another."""
    n, channels, length = x.shape
    together = channels // groups
    centres, inv_std = np.repeat(mean, together), np.repeat(inv_std.astype(np.float64), together)
    totals, products = _sums(grad, x, centres)
    products *= inv_std
    slopes = np.ones(n * channels) if weight is None else np.tile(weight, n)

    def shares(sums):
        """The mean over a group's values of the gradient by x̂, or of that times x̂, for every row."""
        return np.repeat((sums * slopes).reshape(n * groups, together).mean(axis=1) / length, together)

    to_x = _combined(grad, x, centres, slopes * inv_std, inv_std * shares(totals), inv_std**2 * shares(products))
    return to_x, *[sums.reshape(n, channels).sum(axis=0).astype(x.dtype) for sums in (products, totals)]


def warm_up() -> None:
    """Compiles each kernel for both dtypes, or loads it from the cache."""
    wide = np.zeros(1)
    for dtype in (np.float32, np.float64):
        x, row = np.zeros((1, 1), dtype), np.zeros(1, dtype)
        _layer_norm_piece(x, row, row, dtype(1), True, x, row, row)
        _layer_norm_input_piece(x, x, row, row, row, True, x, wide, wide)
        _row_moments_piece(x, 0, 1, wide, wide)
        _pool(wide, wide, 1, 1, 1, row, row)
        _affine_piece(x, 0, 1, row, row, row, x)
        _row_sums_piece(x, 0, 1, x, row, wide, wide)
        _combine_piece(x, 0, 1, x, row, row, row, row, x)
        _column_moments(x, row, row)
        _affine_columns(x, row, row, row, x)
        _column_sums(x, x, row, wide, wide)
        _combine_columns(x, x, row, row, row, row, x)
