"""Softmax, log-softmax and cross-entropy compiled by Numba, along rows that stay in cache. Formulas in reference.py.

A row is read once from memory: its maximum, the exponentials and their sum find it in the cache. Short rows are taken
in blocks, so that the exponentials, which are most of the work, fill whole vectors.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from shared.arrays.kernels.threads import match_blas, share

__all__ = [
    "cross_entropy",
    "cross_entropy_gradient",
    "log_softmax",
    "log_softmax_gradient",
    "softmax",
    "softmax_gradient",
    "warm_up",
]

# NaN and infinities keep their meaning (see optim/cpu.py).
FASTMATH = {"contract", "nsz", "arcp"}
# Sums may be taken in any order, and so in vectors: only in functions that do nothing else. Where such a function is
# called, the instructions of the caller keep their own rules.
ANY_ORDER = FASTMATH | {"reassoc"}

BLOCK = 2048  # elements of a block of short rows: with what is made of them they fit the first-level cache
LONG = 256  # columns from which a row fills vectors well enough to be taken by itself

_threads = match_blas()
PARALLEL_FROM = 1 << 18  # elements: a call takes some 0.1 ms then, and to start threads 0.04 ms

# ---------------------------------------------------------------- numbers, for each of the two dtypes

# The functions with `_for` in their name choose the constants for a dtype while Numba compiles.


@intrinsic
def _reinterpreted(context, x):
    """The same bits as an integer of the same size, or those of an integer as a floating-point number."""
    pairs = [(types.float32, types.int32), (types.float64, types.int64)]
    other = dict(pairs + [(integer, number) for number, integer in pairs])[x]

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(other))

    return other(x), generate


def _exp(x):
    """exp(x) for x ≤ 0, NaN and −∞: a polynomial, which becomes vectors where `np.exp` does not.

    x = n ln 2 + r with |r| ≤ ln 2 / 2, and exp(x) = 2ⁿ exp(r). ln 2 is cut in two so that n ln 2 is exact (Cody and
    Waite, "Software Manual for the Elementary Functions", 1980, chapter 6). Adding `magic` rounds to a whole number,
    which stands in the lowest bits then; moved to the exponent's place they are 2ⁿ. What is below the smallest normal
    number is 0. Relative error: 8e-8 in float32 (the coefficients are Cephes' expf), 2e-16 in float64 (Taylor's).
    """


@overload(_exp, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _exp_for(x):
    double = x == types.float64
    number, integer = (np.float64, np.int64) if double else (np.float32, np.int32)
    mantissa = 52 if double else 23
    bias, to_exponent = integer(1023 if double else 127), integer(mantissa)
    inverse, magic = number(1 / math.log(2)), number(1.5 * 2.0**mantissa)
    upper, lower = (0.693145751953125, 1.42860682030941723212e-6) if double else (0.693359375, -2.12194440e-4)
    upper, lower, smallest = number(upper), number(lower), number(-708.39 if double else -87.33654)
    cephes = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
    taylor = tuple(1 / math.factorial(k) for k in range(13, 1, -1))
    coefficients = tuple(number(c) for c in (taylor if double else cephes))
    zero, one = number(0), number(1)

    def exp(x):
        rounded = x * inverse + magic
        n = rounded - magic
        r = x - n * upper - n * lower
        p = coefficients[0]
        for c in coefficients[1:]:
            p = p * r + c
        y = p * (r * r) + r + one
        power = integer(integer(_reinterpreted(rounded) + bias) << to_exponent)
        return zero if x < smallest else y * _reinterpreted(power)

    return exp


def _turned(bits):
    """The bits of a number as an integer that is the larger, the larger the number; applied to that, its bits again.

    Maxima of integers become vectors, those of floating-point numbers do not, for the sake of NaN. The bits of positive
    numbers are in order already; those of negative ones are turned around, all but the sign. NaN is beyond infinity,
    and −NaN below −∞.
    """


@overload(_turned)
def _turned_for(bits):
    integer = np.int64 if bits == types.int64 else np.int32
    sign, rest = integer(63 if bits == types.int64 else 31), integer(np.iinfo(integer).max)
    return lambda bits: integer(bits ^ ((bits >> sign) & rest))


# ---------------------------------------------------------------- rows


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _largest(row):
    best = _turned(_reinterpreted(row[0]))
    for i in range(row.size):
        best = max(best, _turned(_reinterpreted(row[i])))
    return _reinterpreted(_turned(best))


@numba.njit(fastmath=ANY_ORDER, error_model="numpy", cache=True, nogil=True)
def _sum(row):
    total = row.dtype.type(0)
    for i in range(row.size):
        total += row[i]
    return total


@numba.njit(fastmath=ANY_ORDER, error_model="numpy", cache=True, nogil=True)
def _sum_of_products(row, other):
    total = row.dtype.type(0)
    for i in range(row.size):
        total += row[i] * other[i]
    return total


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _exponentials(x, out, maxima):
    """out = exp(x − maxima), with the maximum of each row of x (n, C)."""
    long = x.shape[1] >= LONG
    for r in range(len(x)):
        row, target = x[r], out[r]
        largest = _largest(row)
        maxima[r] = largest
        for j in range(row.size):
            shifted = row[j] - largest
            target[j] = _exp(shifted) if long else shifted
    if not long:
        flat = out.reshape(-1)
        for i in range(flat.size):
            flat[i] = _exp(flat[i])


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _softmax_piece(x, out):
    block = max(1, BLOCK // x.shape[1])
    maxima = np.empty(block, x.dtype)
    for first in range(0, len(x), block):
        rows = out[first : first + block]
        _exponentials(x[first : first + block], rows, maxima)
        for r in range(len(rows)):
            row = rows[r]
            scale = x.dtype.type(1) / _sum(row)
            for j in range(row.size):
                row[j] *= scale


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _softmax_gradient_piece(y, grad, out):
    for r in range(len(y)):
        p, g, row = y[r], grad[r], out[r]
        mean = _sum_of_products(p, g)
        for j in range(row.size):
            row[j] = p[j] * (g[j] - mean)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _log_softmax_piece(x, out):
    block = max(1, BLOCK // x.shape[1])
    maxima = np.empty(block, x.dtype)
    for first in range(0, len(x), block):
        rows = out[first : first + block]
        _exponentials(x[first : first + block], rows, maxima)
        for r in range(len(rows)):
            source, row = x[first + r], rows[r]
            largest, log_total = maxima[r], np.log(_sum(row))
            for j in range(row.size):
                row[j] = source[j] - largest - log_total


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _log_softmax_gradient_piece(y, grad, out):
    block = max(1, BLOCK // y.shape[1])
    for first in range(0, len(y), block):
        logs, flat = y[first : first + block].reshape(-1), out[first : first + block].reshape(-1)
        for i in range(flat.size):
            flat[i] = _exp(logs[i])
        for r in range(first, min(first + block, len(y))):
            g, row = grad[r], out[r]
            total = _sum(g)
            for j in range(row.size):
                row[j] = g[j] - row[j] * total


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _cross_entropy_piece(logits, target, out):
    block = max(1, BLOCK // logits.shape[1])
    maxima, exponentials = np.empty(block, logits.dtype), np.empty((block, logits.shape[1]), logits.dtype)
    for first in range(0, len(logits), block):
        rows = logits[first : first + block]
        _exponentials(rows, exponentials[: len(rows)], maxima)
        for r in range(len(rows)):
            shifted = rows[r, target[first + r]] - maxima[r]
            out[first + r] = np.log(_sum(exponentials[r])) - shifted


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _cross_entropy_gradient_piece(logits, target, grad, out):
    block = max(1, BLOCK // logits.shape[1])
    maxima = np.empty(block, logits.dtype)
    for first in range(0, len(logits), block):
        rows = out[first : first + block]
        _exponentials(logits[first : first + block], rows, maxima)
        for r in range(len(rows)):
            row, g = rows[r], grad[first + r]
            scale = g / _sum(row)
            for j in range(row.size):
                row[j] *= scale
            row[target[first + r]] -= g


# ---------------------------------------------------------------- all rows, among threads


def _share(piece, *arrays):
    """piece(*arrays) on one thread, or on several where there are enough elements; each takes some of the rows."""
    rows = len(arrays[0])

    def work(_, first, last):
        piece(*[array[first:last] for array in arrays])

    if _threads > 1 and rows > 1 and arrays[0].size >= PARALLEL_FROM:
        share(work, rows, min(_threads, rows))
    else:
        piece(*arrays)


def _rows(x):
    return x.reshape(-1, x.shape[-1])


def softmax(x, dim):
    """`reference.softmax` along the last dimension."""
    out = np.empty_like(x)
    _share(_softmax_piece, _rows(x), _rows(out))
    return out


def softmax_gradient(y, grad, dim):
    """`reference.softmax_gradient` along the last dimension."""
    out = np.empty_like(y)
    _share(_softmax_gradient_piece, _rows(y), _rows(grad), _rows(out))
    return out


def log_softmax(x, dim):
    """`reference.log_softmax` along the last dimension."""
    out = np.empty_like(x)
    _share(_log_softmax_piece, _rows(x), _rows(out))
    return out


def log_softmax_gradient(y, grad, dim):
    """`reference.log_softmax_gradient` along the last dimension."""
    out = np.empty_like(y)
    _share(_log_softmax_gradient_piece, _rows(y), _rows(grad), _rows(out))
    return out


def cross_entropy(logits, target):
    """`reference.cross_entropy`; nothing of the size of logits is made."""
    out = np.empty(len(logits), logits.dtype)
    _share(_cross_entropy_piece, logits, target, out)
    return out


def cross_entropy_gradient(logits, target, grad):
    """`reference.cross_entropy_gradient`, the softmax once more in the place of the gradient."""
    out, of_rows = np.empty_like(logits), np.empty(len(logits), logits.dtype)
    of_rows[:] = np.reshape(grad, -1)
    _share(_cross_entropy_gradient_piece, logits, target, of_rows, out)
    return out


def warm_up() -> None:
    """Compiles each kernel for both dtypes, or loads it from the cache."""
    target = np.zeros(1, np.int64)
    for dtype in (np.float32, np.float64):
        x = np.zeros((1, 1), dtype)
        softmax_gradient(softmax(x, 1), x, 1)
        log_softmax_gradient(log_softmax(x, 1), x, 1)
        cross_entropy_gradient(x, target, cross_entropy(x, target))
