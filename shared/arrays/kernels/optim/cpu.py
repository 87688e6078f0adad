"""The optimizers' updates compiled by Numba, all parameters of a group in one call. Formulas in reference.py.

However many parameters there are, a kernel sees one long row of numbers: `rows` has the address of each parameter, of
its gradient and of its state, `sizes` how many elements they have. Threads share that row piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from shared.arrays.kernels.addresses import addresses, array_at
from shared.arrays.kernels.threads import PARALLEL_FROM, match_blas, share

__all__ = ["adam", "adam_all", "scale_all", "sgd", "sgd_all", "squares", "warm_up"]

# Products are contracted into sums and signed zeros ignored, but NaN and infinities keep their meaning. "reassoc"
# would not: LLVM turns β·m + (1 − β)·g into g + β·(m − g), which is NaN for infinite g. (Stated in this file, since
# Numba's cache on disk notices only changes of the file that holds the kernel.)
FASTMATH = {"contract", "nsz", "arcp"}

_threads = match_blas()
_LIKE = {dtype: np.empty(0, dtype) for dtype in (np.dtype("float32"), np.dtype("float64"))}


def _in_pieces(kernel: Callable, columns: Sequence[Sequence[Any]], *arguments: Any) -> None:
    """Calls kernel(like, rows, sizes, first, last, *arguments) on as many threads as the number of elements deserves.

    Element `first` to `last` of all parameters in a row is what one call works on; `like` only carries the dtype.
    """
    rows = addresses([a for column in columns for a in column]).reshape(len(columns), -1)
    numbers = [a.size for a in columns[0]]
    sizes, total = np.array(numbers, np.int64), sum(numbers)
    like = _LIKE[columns[0][0].dtype]

    def piece(task: int, first: int, last: int) -> None:
        kernel(like, rows, sizes, first, last, *arguments)

    share(piece, total, _threads if total >= PARALLEL_FROM else 1)


@numba.njit(nogil=True, error_model="numpy", cache=True, inline="always")
def _overlap(start, size, first, last):
    """Which elements of a parameter that begins at `start` of the long row lie in first … last."""
    return max(first - start, 0), min(last - start, size)


# In each loop every element is loaded once and stored at the end: LLVM cannot know that the arrays do not overlap, and
# a load after a store would keep it from using vectors (0.89 ns per element instead of 0.31).


@numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy", cache=True)
def _adam_loop(p, g, m, v, step_size, beta1, beta2, root_correction, eps, decay, penalty, sign):
    fresh1, fresh2 = p.dtype.type(1) - beta1, p.dtype.type(1) - beta2
    for i in range(p.size):
        old = p[i]
        grad = sign * g[i] + penalty * old
        mean = beta1 * m[i] + fresh1 * grad
        square = beta2 * v[i] + fresh2 * grad * grad
        m[i] = mean
        v[i] = square
        p[i] = old * decay - step_size * mean / (np.sqrt(square) * root_correction + eps)


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _adam_piece(like, rows, sizes, first, last, steps, lr, beta1, beta2, eps, decay, penalty, sign):
    number, width, start = like.dtype.type, like.itemsize, 0
    for r in range(sizes.size):
        a, b = _overlap(start, sizes[r], first, last)
        if a < b:
            _adam_loop(
                array_at(rows[0, r] + a * width, b - a, like.dtype),
                array_at(rows[1, r] + a * width, b - a, like.dtype),
                array_at(rows[2, r] + a * width, b - a, like.dtype),
                array_at(rows[3, r] + a * width, b - a, like.dtype),
                number(lr / (1 - beta1 ** steps[r])),
                number(beta1),
                number(beta2),
                number(1 / np.sqrt(1 - beta2 ** steps[r])),
                number(eps),
                number(decay),
                number(penalty),
                number(sign),
            )
        start += sizes[r]


def _adam(columns, steps, lr, beta1, beta2, eps, weight_decay, decoupled, maximize):
    decay, penalty = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    options = (lr, beta1, beta2, eps, decay, penalty, -1.0 if maximize else 1.0)
    _in_pieces(_adam_piece, columns, steps, *map(float, options))


def adam(param, grad, exp_avg, exp_avg_sq, *, lr, beta1, beta2, eps, weight_decay, decoupled, step):
    """`reference.adam` in one pass."""
    columns = ([param], [grad], [exp_avg], [exp_avg_sq])
    _adam(columns, np.array([float(step)]), lr, beta1, beta2, eps, weight_decay, decoupled, False)


def adam_all(
    params, grads, exp_avgs, exp_avg_sqs, steps, *, lr, beta1, beta2, eps, weight_decay, decoupled, maximize=False
):
    """`reference.adam` for every parameter, in one pass; counts each one's step in `steps`."""
    counts = np.empty(len(steps))
    _count(addresses(steps), counts)
    columns = (params, grads, exp_avgs, exp_avg_sqs)
    _adam(columns, counts, lr, beta1, beta2, eps, weight_decay, decoupled, maximize)


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _count(counters, counts):
    for r in range(counts.size):
        counter = array_at(counters[r], 1, np.float32)
        counter[0] += np.float32(1)
        counts[r] = counter[0]


@numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy", cache=True)
def _sgd_loop(p, g, buf, lr, momentum, fresh, penalty, nesterov, sign):
    for i in range(p.size):
        old = p[i]
        grad = sign * g[i] + penalty * old
        velocity = momentum * buf[i] + fresh * grad
        buf[i] = velocity
        p[i] = old - lr * (grad + momentum * velocity if nesterov else velocity)


@numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy", cache=True)
def _plain_sgd_loop(p, g, lr, decay):
    for i in range(p.size):
        p[i] = p[i] * decay - lr * g[i]


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _sgd_piece(like, rows, sizes, first, last, lr, momentum, fresh, penalty, nesterov, sign):
    number, width, start = like.dtype.type, like.itemsize, 0
    for r in range(sizes.size):
        a, b = _overlap(start, sizes[r], first, last)
        if a < b:
            p = array_at(rows[0, r] + a * width, b - a, like.dtype)
            g = array_at(rows[1, r] + a * width, b - a, like.dtype)
            if rows.shape[0] == 2:
                _plain_sgd_loop(p, g, number(sign * lr), number(1 - lr * penalty))
            else:
                buf = array_at(rows[2, r] + a * width, b - a, like.dtype)
                numbers = number(lr), number(momentum), number(fresh), number(penalty)
                _sgd_loop(p, g, buf, *numbers, nesterov, number(sign))
        start += sizes[r]


def sgd(param, grad, buf, *, lr, momentum, dampening, weight_decay, nesterov):
    """`reference.sgd` in one pass."""
    options = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
    sgd_all([param], [grad], None if buf is None else [buf], lr=lr, **options)


def sgd_all(params, grads, bufs, *, lr, momentum, dampening, weight_decay, nesterov, maximize=False):
    """`reference.sgd` for every parameter, in one pass; `bufs` is None without momentum."""
    columns = (params, grads) if bufs is None else (params, grads, bufs)
    options = (float(lr), float(momentum), float(1 - dampening), float(weight_decay), bool(nesterov))
    _in_pieces(_sgd_piece, columns, *options, -1.0 if maximize else 1.0)


# ---------------------------------------------------------------- the gradients' norm


@numba.njit(nogil=True, fastmath=FASTMATH | {"reassoc"}, error_model="numpy", cache=True)
def _sum_of_squares(x):
    total = 0.0
    for i in range(x.size):
        value = np.float64(x[i])
        total += value * value
    return total


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _squares_piece(like, rows, sizes, first, last, out):
    for r in range(first, last):
        out[r] = _sum_of_squares(array_at(rows[r], sizes[r], like.dtype))


def squares(arrays):
    """`reference.squares`: the sum of squares of each array, float64 (n,).

    Whole arrays are what threads share here, so that the sums do not depend on how many threads there are.
    """
    sizes, out = np.array([a.size for a in arrays], np.int64), np.empty(len(arrays))
    rows, like = addresses(arrays), _LIKE[arrays[0].dtype]

    def piece(task: int, first: int, last: int) -> None:
        _squares_piece(like, rows, sizes, first, last, out)

    share(piece, len(arrays), _threads if sizes.sum() >= PARALLEL_FROM else 1)
    return out


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _scale_piece(like, rows, sizes, first, last, factor):
    number, start = like.dtype.type(factor), 0
    for r in range(sizes.size):
        a, b = _overlap(start, sizes[r], first, last)
        if a < b:
            x = array_at(rows[0, r] + a * like.itemsize, b - a, like.dtype)
            for i in range(x.size):
                x[i] *= number
        start += sizes[r]


def scale_all(arrays, factor):
    """Multiplies every array by the number `factor`, in place."""
    _in_pieces(_scale_piece, (arrays,), float(factor))


def warm_up() -> None:
    """Compiles each kernel for both dtypes, or loads it from the cache."""
    step = np.zeros((), np.float32)
    for dtype in (np.float32, np.float64):
        p, g, m, v = ([np.zeros(1, dtype)] for _ in range(4))
        options = {"lr": 0.0, "weight_decay": 0.0}
        adam_all(p, g, m, v, [step], beta1=0.9, beta2=0.9, eps=1.0, decoupled=True, **options)
        sgd_all(p, g, m, momentum=0.9, dampening=0.0, nesterov=False, **options)
        sgd_all(p, g, None, momentum=0.0, dampening=0.0, nesterov=False, **options)
        squares(p)
        scale_all(p, 1.0)
