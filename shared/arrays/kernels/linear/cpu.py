"""A product with a large weight for a few rows, compiled by Numba: each number of the weight is read once, in order.

The weight is larger than the caches, so the time is that of reading it. BLAS reads several rows of it at a time, each
in a place of its own, which memory delivers at 14 GB/s; one row after the other comes at 23 (one core of an AMD EPYC,
rows of 768 float32), and up to four rows of x cost no more than one.
"""

from __future__ import annotations

import numba
import numpy as np

from shared.arrays.kernels.threads import match_blas, share

__all__ = ["few_rows", "warm_up"]

SHARED_FROM = 1 << 22  # numbers in the weight: reading them takes 0.7 ms, and to hand half of it to a thread 0.1 ms
FASTMATH = {"contract", "nsz", "reassoc"}  # vectors need sums in any order; NaN and infinities keep their meaning

_threads = match_blas()


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _few_rows_piece(x, weight, out, first, last):
    rows, width = x.shape
    for r in range(first, last):
        n = 0
        while n + 4 <= rows:
            a = b = c = d = x.dtype.type(0)
            for i in range(width):
                w = weight[r, i]
                a += x[n, i] * w
                b += x[n + 1, i] * w
                c += x[n + 2, i] * w
                d += x[n + 3, i] * w
            out[n, r], out[n + 1, r], out[n + 2, r], out[n + 3, r] = a, b, c, d
            n += 4
        while n < rows:
            a = x.dtype.type(0)
            for i in range(width):
                a += x[n, i] * weight[r, i]
            out[n, r] = a
            n += 1


def few_rows(x, weight):
    """`reference.few_rows`, the rows of the weight among threads."""
    out = np.empty((len(x), len(weight)), x.dtype)
    tasks = _threads if weight.size >= SHARED_FROM else 1
    share(lambda _, first, last: _few_rows_piece(x, weight, out, first, last), len(weight), tasks)
    return out


def warm_up() -> None:
    """Compiles the kernel for both dtypes, or loads it from the cache."""
    for dtype in (np.float32, np.float64):
        few_rows(np.zeros((1, 1), dtype), np.zeros((1, 1), dtype))
