"""Dropout compiled by Numba: mask and result in one pass, the same bits as the formulas in reference.py."""

from __future__ import annotations

import math

import numba
import numpy as np

from shared.arrays.kernels.dropout import reference
from shared.arrays.kernels.threads import match_blas, share

__all__ = ["dropout", "dropout_input", "warm_up"]

# NaN and infinities keep their meaning (see optim/cpu.py).
FASTMATH = {"contract", "nsz", "arcp"}

_threads = match_blas()
PARALLEL_FROM = 1 << 20  # a call takes 0.14 ms or more then, and to start threads 0.04 ms

u4 = np.uint32
_FIRST, _SECOND, _THIRD = u4(reference.FIRST), u4(reference.SECOND), u4(reference.THIRD)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _dropout_piece(x, out, mask, first, second, threshold, scale):
    """`first` is the lower half of the seed plus the place of x[0], `second` the upper half."""
    zero = x.dtype.type(0)
    for i in range(x.size):
        # Numba takes sums and products of 32 bits for 64 bits wide: each is cut back
        h = u4(u4(i) + first)
        h = u4((h ^ (h >> u4(17))) * _FIRST)
        h = u4((h ^ (h >> u4(11))) + second)
        h = u4((h ^ (h >> u4(15))) * _SECOND)
        h = u4((h ^ (h >> u4(14))) * _THIRD)
        h = h ^ (h >> u4(15))
        stays = (h >> u4(8)) >= threshold
        mask[i] = stays
        out[i] = x[i] * (scale if stays else zero)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _dropout_input_piece(grad, mask, out, scale):
    zero = grad.dtype.type(0)
    for i in range(grad.size):
        out[i] = grad[i] * (scale if mask[i] else zero)


def _tasks(size):
    return _threads if size >= PARALLEL_FROM else 1


def _scale(p, dtype):
    return dtype.type(1 / (1 - p) if p < 1 else 0)


def dropout(x, p, mask_shape, seed):
    """`reference.dropout` for a mask of the shape of x."""
    out, mask = np.empty(x.shape, x.dtype), np.empty(mask_shape, np.bool_)
    flat = x.reshape(-1), out.reshape(-1), mask.reshape(-1)
    threshold = u4(math.ceil(float(np.float32(p)) * 2**24))  # of the 24 bits a number in [0, 1) is made of
    rest = u4(seed >> 32), threshold, _scale(p, x.dtype)

    def work(_, a, b):
        _dropout_piece(*[array[a:b] for array in flat], u4((seed + a) & 0xFFFFFFFF), *rest)

    share(work, x.size, _tasks(x.size))
    return out, mask


def dropout_input(grad, p, mask):
    """`reference.dropout_input` for a mask of the shape of grad."""
    out = np.empty(grad.shape, grad.dtype)
    flat, scale = (grad.reshape(-1), mask.reshape(-1), out.reshape(-1)), _scale(p, grad.dtype)

    def work(_, a, b):
        _dropout_input_piece(*[array[a:b] for array in flat], scale)

    share(work, grad.size, _tasks(grad.size))
    return out


def warm_up() -> None:
    """Compiles each kernel for both dtypes, or loads it from the cache."""
    for dtype in (np.float32, np.float64):
        x = np.zeros(1, dtype)
        _, mask = dropout(x, 0.5, x.shape, 0)
        dropout_input(x, 0.5, mask)
