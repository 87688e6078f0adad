"""The optimizers' updates compiled by Numba: one pass over parameter, gradient and state. Formulas in reference.py."""

from __future__ import annotations

import math

import numba
import numpy as np

from shared.arrays.kernels.threads import CHUNK, PARALLEL_FROM, match_blas

__all__ = ["adam", "sgd", "warm_up"]

# Products are contracted into sums and signed zeros ignored, but NaN and infinities keep their meaning. "reassoc"
# would not: LLVM turns β·m + (1 − β)·g into g + β·(m − g), which is NaN for infinite g. (Stated in this file, since
# Numba's cache on disk notices only changes of the file that holds the kernel.)
FASTMATH = {"contract", "nsz", "arcp"}

_threads = match_blas()


# In each loop every element is loaded once and stored at the end: LLVM cannot know that the arrays do not overlap, and
# a load after a store would keep it from using vectors (0.89 ns per element instead of 0.31).


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True)
def _adam_piece(p, g, m, v, step_size, beta1, beta2, root_correction, eps, decay, penalty):
    fresh1, fresh2 = p.dtype.type(1) - beta1, p.dtype.type(1) - beta2
    for i in range(p.size):
        old = p[i]
        grad = g[i] + penalty * old
        mean = beta1 * m[i] + fresh1 * grad
        square = beta2 * v[i] + fresh2 * grad * grad
        m[i] = mean
        v[i] = square
        p[i] = old * decay - step_size * mean / (np.sqrt(square) * root_correction + eps)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, parallel=True)
def _adam_parallel(p, g, m, v, step_size, beta1, beta2, root_correction, eps, decay, penalty):
    for c in numba.prange((p.size + CHUNK - 1) // CHUNK):
        a, b = c * CHUNK, min((c + 1) * CHUNK, p.size)
        _adam_piece(p[a:b], g[a:b], m[a:b], v[a:b], step_size, beta1, beta2, root_correction, eps, decay, penalty)


def adam(param, grad, exp_avg, exp_avg_sq, *, lr, beta1, beta2, eps, weight_decay, decoupled, step):
    """`reference.adam` in one pass."""
    number = param.dtype.type
    arguments = (
        param.reshape(-1),
        grad.reshape(-1),
        exp_avg.reshape(-1),
        exp_avg_sq.reshape(-1),
        number(lr / (1 - beta1**step)),
        number(beta1),
        number(beta2),
        number(1 / math.sqrt(1 - beta2**step)),
        number(eps),
        number(1 - lr * weight_decay if decoupled else 1),
        number(0 if decoupled else weight_decay),
    )
    (_adam_parallel if _threads > 1 and param.size >= PARALLEL_FROM else _adam_piece)(*arguments)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True)
def _sgd_piece(p, g, buf, lr, momentum, fresh, penalty, nesterov):
    for i in range(p.size):
        old = p[i]
        grad = g[i] + penalty * old
        velocity = momentum * buf[i] + fresh * grad
        buf[i] = velocity
        p[i] = old - lr * (grad + momentum * velocity if nesterov else velocity)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, parallel=True)
def _sgd_parallel(p, g, buf, lr, momentum, fresh, penalty, nesterov):
    for c in numba.prange((p.size + CHUNK - 1) // CHUNK):
        a, b = c * CHUNK, min((c + 1) * CHUNK, p.size)
        _sgd_piece(p[a:b], g[a:b], buf[a:b], lr, momentum, fresh, penalty, nesterov)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True)
def _plain_sgd_piece(p, g, lr, decay):
    for i in range(p.size):
        p[i] = p[i] * decay - lr * g[i]


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, parallel=True)
def _plain_sgd_parallel(p, g, lr, decay):
    for c in numba.prange((p.size + CHUNK - 1) // CHUNK):
        a, b = c * CHUNK, min((c + 1) * CHUNK, p.size)
        _plain_sgd_piece(p[a:b], g[a:b], lr, decay)


def sgd(param, grad, buf, *, lr, momentum, dampening, weight_decay, nesterov):
    """`reference.sgd` in one pass."""
    number = param.dtype.type
    parallel = _threads > 1 and param.size >= PARALLEL_FROM
    flat = (param.reshape(-1), grad.reshape(-1))
    if buf is None:
        (_plain_sgd_parallel if parallel else _plain_sgd_piece)(*flat, number(lr), number(1 - lr * weight_decay))
        return
    options = (number(lr), number(momentum), number(1 - dampening), number(weight_decay), bool(nesterov))
    (_sgd_parallel if parallel else _sgd_piece)(*flat, buf.reshape(-1), *options)


def warm_up() -> None:
    """Compiles each kernel for both dtypes, or loads it from the cache."""
    for dtype in (np.float32, np.float64):
        for size in (1, PARALLEL_FROM):
            p, g, m, v = (np.zeros(size, dtype) for _ in range(4))
            adam(p, g, m, v, lr=0.0, beta1=0.9, beta2=0.9, eps=1.0, weight_decay=0.0, decoupled=True, step=1)
            sgd(p, g, m, lr=0.0, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False)
            sgd(p, g, None, lr=0.0, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False)
