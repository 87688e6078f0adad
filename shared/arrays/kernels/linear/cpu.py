"""A product with a large weight for a few rows, compiled by Numba: each number of the weight is read once, in order.

The weight is larger than the caches, so the time is that of reading it. BLAS reads several rows of it at a time, each
in a place of its own, which memory delivers at 14 GB/s; one row after the other comes at 23 (one core of an AMD EPYC,
rows of 768 float32), and up to four rows of x cost little more than one. The weight is (m, k), or the transposed view
of a (k, m) in rows, as models of Hugging Face have it: there BLAS is as fast for one row of x, and not for two.
"""

from __future__ import annotations

import numba
import numpy as np

from shared.arrays.kernels.threads import match_blas, take_turns

__all__ = ["few_rows", "warm_up"]

PIECE = 1 << 19  # numbers of the weight in a piece of work: 0.1 ms, as long as it takes to wake a thread
SHARED_FROM = 1 << 21  # numbers in a weight: below, a second thread came too late (768 × 768: 15 GB/s, alone 20)
BLOCK = 64  # rows of the weight, which stay in the cache for further rows of x
OPTIONS = {
    "fastmath": {"contract", "nsz", "reassoc"},  # vectors need sums in any order; NaN and infinities keep their meaning
    "error_model": "numpy",
    "cache": True,
    "nogil": True,
}
INNER = {**OPTIONS, "no_cpython_wrapper": True}  # for what only kernels call

_threads = match_blas()

# ---------------------------------------------------------------- a weight (m, k): each number a product of two rows


@numba.njit(**INNER)
def _one(x, n, row, out, r):
    a = x.dtype.type(0)
    for i in range(row.size):
        a += x[n, i] * row[i]
    out[n, r] = a


@numba.njit(**INNER)
def _four(x, n, row, out, r):
    """One row of the weight for four rows of x."""
    a = b = c = d = x.dtype.type(0)
    for i in range(row.size):
        w = row[i]
        a += x[n, i] * w
        b += x[n + 1, i] * w
        c += x[n + 2, i] * w
        d += x[n + 3, i] * w
    out[n, r], out[n + 1, r], out[n + 2, r], out[n + 3, r] = a, b, c, d


@numba.njit(**OPTIONS)
def _products_of_rows(x, weight, out, first, last):
    """out[:, first:last] by blocks: the first four rows of x bring it from memory, the others find it in the cache."""
    for start in range(first, last, BLOCK):
        n = 0
        while n < len(x):
            together = 4 if n + 4 <= len(x) else 1
            for r in range(start, min(start + BLOCK, last)):
                if together == 4:
                    _four(x, n, weight[r], out, r)
                else:
                    _one(x, n, weight[r], out, r)
            n += together


# ---------------------------------------------------------------- a weight (k, m): a sum of its rows


@numba.njit(**INNER)
def _add_one(out, a, row):
    for j in range(out.size):
        out[j] += a * row[j]


@numba.njit(**INNER)
def _add_four(out, x, p, q, r, s):
    a, b, c, d = x
    for j in range(out.size):
        out[j] += a * p[j] + b * q[j] + c * r[j] + d * s[j]


@numba.njit(**OPTIONS)
def _sums_of_rows(x, weight, out, first, last):
    """out (n, m) = x[:, first:last] @ weight[first:last], four rows at a time.

    The first row of x brings them from memory, one after the other; the others find them in the cache.
    """
    out[:] = 0
    i = first
    while i + 4 <= last:
        p, q, r, s = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        for k in range(i, i + 4):
            _add_one(out[0], x[0, k], weight[k])
        for n in range(1, len(x)):
            _add_four(out[n], (x[n, i], x[n, i + 1], x[n, i + 2], x[n, i + 3]), p, q, r, s)
        i += 4
    for k in range(i, last):
        for n in range(len(x)):
            _add_one(out[n], x[n, k], weight[k])


def few_rows(x, weight):
    """`reference.few_rows`, by pieces among threads: as many as the weight asks for, so that threads change no bit."""
    pieces, threads = -(-weight.size // PIECE), _threads if weight.size >= SHARED_FROM else 1
    if weight.flags.c_contiguous:
        out = np.empty((len(x), len(weight)), x.dtype)
        take_turns(lambda _, first, last: _products_of_rows(x, weight, out, first, last), len(weight), pieces, threads)
        return out
    rows = weight.T
    parts = np.empty((pieces, len(x), len(weight)), x.dtype)
    take_turns(lambda piece, first, last: _sums_of_rows(x, rows, parts[piece], first, last), len(rows), pieces, threads)
    return parts[0] if pieces == 1 else parts.sum(axis=0)


def warm_up() -> None:
    """Compiles the kernels for both dtypes, or loads them from the cache."""
    for dtype in (np.float32, np.float64):
        weight = np.zeros((2, 3), dtype)
        few_rows(np.zeros((1, 3), dtype), weight)
        few_rows(np.zeros((1, 2), dtype), weight.T)
