"""Pooling compiled by Numba, plane by plane and row by row. Formulas in reference.py.

A plane is one channel of one image. Everything has three spatial dimensions here; missing ones have size 1.
"""

from __future__ import annotations

import numba
import numpy as np

from shared.arrays.kernels.threads import PARALLEL_FROM, match_blas, share

__all__ = ["avg_pool", "avg_pool_input", "max_pool", "max_pool_input", "warm_up"]

# NaN and infinities keep their meaning (see optim/cpu.py).
FASTMATH = {"contract", "nsz", "arcp"}

_threads = match_blas()


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _inside(first, step, count, size):
    """The k from a to b, b excluded, for which first + k · step, k < count, is one of `size`."""
    if first >= 0 and first + (count - 1) * step < size:
        return 0, count
    return max(0, (step - 1 - first) // step), min(count, (size - 1 - first) // step + 1)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _larger(value, place, best, best_place):
    """The larger of two and its place: NaN is larger than all, of equal ones the old one stays."""
    better = (value > best) | (value != value)
    return value if better else best, place if better else best_place


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _row_of_squares(out, places, upper, lower, place, width):
    """Maxima of 2 × 2 elements with stride 2, from two rows, the first of which begins at `place`."""
    for o in range(out.size):
        at = place + np.int32(2 * o)
        best, best_place = upper[2 * o], at
        best, best_place = _larger(upper[2 * o + 1], at + np.int32(1), best, best_place)
        best, best_place = _larger(lower[2 * o], at + width, best, best_place)
        best, best_place = _larger(lower[2 * o + 1], at + width + np.int32(1), best, best_place)
        out[o] = best
        places[o] = best_place


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _max_pool_piece(x, out, places, windows):
    """x (n, D, H, W) → out and places (n, *count)."""
    kd, kh, kw, od, oh, ow, sd, sh, sw, pd, ph, pw, dd, dh, dw = windows
    planes, depth, height, width = x.shape
    squares = kd == 1 and kh == 2 and kw == 2 and sw == 2 and dh == 1 and dw == 1 and pd + ph + pw == 0
    squares = squares and 2 * ow <= width and (oh - 1) * sh + 2 <= height
    for p in range(planes):
        plane = x[p].reshape(-1)
        for a in range(od):
            front = a * sd - pd
            i0, i1 = _inside(front, dd, kd, depth)
            for b in range(oh):
                top = b * sh - ph
                j0, j1 = _inside(top, dh, kh, height)
                maxima, at = out[p, a, b], places[p, a, b]
                if squares:  # the usual case, which becomes vectors
                    place = np.int32((front * height + top) * width)
                    _row_of_squares(maxima, at, x[p, front, top], x[p, front, top + 1], place, np.int32(width))
                    continue
                for c in range(ow):
                    left = c * sw - pw
                    k0, k1 = _inside(left, dw, kw, width)
                    best, place = x.dtype.type(-np.inf), -1
                    if i0 < i1 and j0 < j1 and k0 < k1:  # else all of the window is padding
                        place = ((front + i0 * dd) * height + top + j0 * dh) * width + left + k0 * dw
                        best = plane[place]
                    for i in range(i0, i1):
                        for j in range(j0, j1):
                            row = ((front + i * dd) * height + top + j * dh) * width + left
                            for k in range(k0, k1):
                                best, place = _larger(plane[row + k * dw], row + k * dw, best, place)
                    maxima[c] = best
                    at[c] = place


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _max_pool_input_piece(grad, places, out):
    """grad and places (n, L) → added to out (n, D · H · W)."""
    for p in range(len(grad)):
        source, at, target = grad[p], places[p], out[p]
        for i in range(source.size):
            if at[i] >= 0:
                target[at[i]] += source[i]


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _add_every(target, target_step, source, source_step, count):
    """target[o · target_step] += source[o · source_step]."""
    for o in range(count):
        target[o * target_step] += source[o * source_step]


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _avg_pool_piece(x, out, windows, divisor):
    """x (n, D, H, W) → out (n, *count)."""
    kd, kh, kw, od, oh, ow, sd, sh, sw, pd, ph, pw, dd, dh, dw = windows
    planes, depth, height, width = x.shape
    for p in range(planes):
        for a in range(od):
            i0, i1 = _inside(a * sd - pd, dd, kd, depth)
            for b in range(oh):
                j0, j1 = _inside(b * sh - ph, dh, kh, height)
                total, parts = out[p, a, b], divisor[a, b]
                total[:] = 0
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        row = x[p, a * sd - pd + i * dd, b * sh - ph + j * dh]
                        for k in range(kw):
                            first, last = _inside(k * dw - pw, sw, ow, width)
                            source = row[first * sw + k * dw - pw :]
                            if sw == 2:  # known to the compiler, the step makes vectors possible
                                _add_every(total[first:], 1, source, 2, last - first)
                            else:
                                _add_every(total[first:], 1, source, sw, last - first)
                for c in range(ow):
                    total[c] /= parts[c]


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _avg_pool_input_piece(grad, out, windows, divisor):
    """grad (n, *count) → added to out (n, D, H, W)."""
    kd, kh, kw, od, oh, ow, sd, sh, sw, pd, ph, pw, dd, dh, dw = windows
    planes, depth, height, width = out.shape
    share = np.empty(ow, grad.dtype)
    for p in range(planes):
        for a in range(od):
            i0, i1 = _inside(a * sd - pd, dd, kd, depth)
            for b in range(oh):
                j0, j1 = _inside(b * sh - ph, dh, kh, height)
                for c in range(ow):
                    share[c] = grad[p, a, b, c] / divisor[a, b, c]
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        row = out[p, a * sd - pd + i * dd, b * sh - ph + j * dh]
                        for k in range(kw):
                            first, last = _inside(k * dw - pw, sw, ow, width)
                            target = row[first * sw + k * dw - pw :]
                            if sw == 2:
                                _add_every(target, 2, share[first:], 1, last - first)
                            else:
                                _add_every(target, sw, share[first:], 1, last - first)


# ---------------------------------------------------------------- all planes, among threads


def _share(piece, size, first, *others):
    """piece(first, *others) on one thread, or on several where there are enough elements; each takes some planes.

    `others` are arrays (planes, …) to be cut like the first one, and what is given to all in tuples.
    """

    def work(_, a, b):
        piece(first[a:b], *[other[a:b] if isinstance(other, np.ndarray) else other[0] for other in others])

    share(work, len(first), min(_threads, len(first)) if size >= PARALLEL_FROM else 1)


def _planes(x):
    """(N, C, *size) → (N · C, D, H, W)."""
    return x.reshape(x.shape[0] * x.shape[1], *(1,) * (5 - x.ndim), *x.shape[2:])


def _divisors(divisor):
    return divisor.reshape(*(1,) * (3 - divisor.ndim), *divisor.shape)


def max_pool(x, windows):
    """`reference.max_pool`."""
    out = np.empty((*x.shape[:2], *windows.count), x.dtype)
    places = np.empty(out.shape, np.int32)
    _share(_max_pool_piece, x.size, _planes(x), _planes(out), _planes(places), (windows.in_three_dimensions,))
    return out, places


def max_pool_input(grad, places, size, windows):
    """`reference.max_pool_input`."""
    out = np.zeros((*grad.shape[:2], *size), grad.dtype)
    planes = grad.shape[0] * grad.shape[1]
    _share(_max_pool_input_piece, out.size, *[a.reshape(planes, a.size // planes) for a in (grad, places, out)])
    return out


def avg_pool(x, windows, divisor):
    """`reference.avg_pool`."""
    out = np.empty((*x.shape[:2], *windows.count), x.dtype)
    numbers, parts = (windows.in_three_dimensions,), (_divisors(divisor),)
    _share(_avg_pool_piece, x.size, _planes(x), _planes(out), numbers, parts)
    return out


def avg_pool_input(grad, size, windows, divisor):
    """`reference.avg_pool_input`."""
    out = np.zeros((*grad.shape[:2], *size), grad.dtype)
    numbers, parts = (windows.in_three_dimensions,), (_divisors(divisor),)
    _share(_avg_pool_input_piece, out.size, _planes(grad), _planes(out), numbers, parts)
    return out


def warm_up() -> None:
    """Compiles each kernel for both dtypes, or loads it from the cache."""
    windows = (1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1)
    places = np.zeros((1, 1, 1, 1), np.int32)
    for dtype in (np.float32, np.float64):
        x, out, divisor = np.zeros((1, 1, 1, 1), dtype), np.zeros((1, 1, 1, 1), dtype), np.ones((1, 1, 1), dtype)
        _max_pool_piece(x, out, places, windows)
        _max_pool_input_piece(x[0, 0], places[0, 0], out[0, 0])
        _avg_pool_piece(x, out, windows, divisor)
        _avg_pool_input_piece(x, out, windows, divisor)
