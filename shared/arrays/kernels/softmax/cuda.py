"""Softmax, log-softmax, cross-entropy and their gradients on the GPU, one launch each. Formulas in reference.py.

Rows are read two or three times, which short ones are from the cache; −inf gives exact zeros, a row of −inf NaN.
"""

from __future__ import annotations

from typing import Any

from shared.arrays.device import is_gpu_array, xp
from shared.arrays.kernels.launch import Kernels

__all__ = [
    "cross_entropy",
    "cross_entropy_gradient",
    "log_softmax",
    "log_softmax_gradient",
    "softmax",
    "softmax_gradient",
]

Array = Any  # cupy.ndarray

kernels = Kernels(r"""
// The largest element of a row, and Σ exp(x − largest).
struct Total {
    A largest, sum;
    __device__ Total(const T* x, I n, const Rows& at) {
        largest = -infinity();
        for (I i = at.lane; i < n; i += at.width) largest = Larger::of((A)x[i], largest);
        largest = row_max(largest, at.width);
        sum = 0;
        for (I i = at.lane; i < n; i += at.width) sum += exp((A)x[i] - largest);
        sum = row_sum(sum, at.width);
    }
};

extern "C" __global__ void softmax(const T* x, T* out, long long columns, long long width, long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns), begin = at.row * columns;
        const Total total(x + begin, n, at);
        for (I i = at.lane; i < n; i += at.width) out[begin + i] = T(exp((A)x[begin + i] - total.largest) / total.sum);
    }
}

extern "C" __global__ void log_softmax(const T* x, T* out, long long columns, long long width, long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns), begin = at.row * columns;
        const Total total(x + begin, n, at);
        const A shift = log(total.sum);
        for (I i = at.lane; i < n; i += at.width) out[begin + i] = T((A)x[begin + i] - total.largest - shift);
    }
}

extern "C" __global__ void softmax_gradient(const T* y, const T* grad, T* out, long long columns, long long width,
                                            long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns), begin = at.row * columns;
        A along = 0;
        for (I i = at.lane; i < n; i += at.width) along += (A)grad[begin + i] * (A)y[begin + i];
        along = row_sum(along, at.width);
        for (I i = at.lane; i < n; i += at.width) out[begin + i] = T((A)y[begin + i] * ((A)grad[begin + i] - along));
    }
}

extern "C" __global__ void log_softmax_gradient(const T* y, const T* grad, T* out, long long columns, long long width,
                                                long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns), begin = at.row * columns;
        A sum = 0;
        for (I i = at.lane; i < n; i += at.width) sum += (A)grad[begin + i];
        sum = row_sum(sum, at.width);
        for (I i = at.lane; i < n; i += at.width) out[begin + i] = T((A)grad[begin + i] - exp((A)y[begin + i]) * sum);
    }
}

extern "C" __global__ void cross_entropy(const T* x, const long long* target, T* out, long long columns,
                                         long long width, long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns), begin = at.row * columns;
        const Total total(x + begin, n, at);
        if (n && at.lane == 0) out[at.row] = T(log(total.sum) - ((A)x[begin + target[at.row]] - total.largest));
    }
}

// grad has a number for each row, or one for all: then `each` is 0.
extern "C" __global__ void cross_entropy_gradient(const T* x, const long long* target, const T* grad, T* out,
                                                  long long each, long long columns, long long width, long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns), begin = at.row * columns;
        const Total total(x + begin, n, at);
        if (!n) continue;
        const A factor = grad[at.row * each];
        for (I i = at.lane; i < n; i += at.width) {
            A p = exp((A)x[begin + i] - total.largest) / total.sum;
            out[begin + i] = T((i == target[at.row] ? p - 1 : p) * factor);
        }
    }
}
""")


def _of_rows(name: str, *arrays: Array) -> Array:
    """A kernel whose result has the shape of its arguments."""
    first = arrays[0]
    out, columns = xp(first).empty(first.shape, first.dtype), first.shape[-1]
    kernels.rows(first.size // columns, columns, name, first, *arrays, out)
    return out


def softmax(x: Array, dim: int) -> Array:
    """`reference.softmax` along the last dimension."""
    return _of_rows("softmax", x)


def softmax_gradient(y: Array, grad: Array, dim: int) -> Array:
    """`reference.softmax_gradient` along the last dimension."""
    return _of_rows("softmax_gradient", y, grad)


def log_softmax(x: Array, dim: int) -> Array:
    """`reference.log_softmax` along the last dimension."""
    return _of_rows("log_softmax", x)


def log_softmax_gradient(y: Array, grad: Array, dim: int) -> Array:
    """`reference.log_softmax_gradient` along the last dimension."""
    return _of_rows("log_softmax_gradient", y, grad)


def cross_entropy(logits: Array, target: Array) -> Array:
    """`reference.cross_entropy`."""
    out, (rows, columns) = xp(logits).empty(len(logits), logits.dtype), logits.shape
    kernels.rows(rows, columns, "cross_entropy", logits, logits, target.astype("int64", copy=False), out)
    return out


def cross_entropy_gradient(logits: Array, target: Array, grad: Any) -> Array:
    """`reference.cross_entropy_gradient`."""
    out, (rows, columns) = xp(logits).empty(logits.shape, logits.dtype), logits.shape
    if not is_gpu_array(grad):
        grad = xp(logits).asarray(grad)
    grad = xp(logits).ascontiguousarray(grad.astype(logits.dtype, copy=False).reshape(-1))
    arguments = (logits, target.astype("int64", copy=False), grad, out, int(grad.size > 1))
    kernels.rows(rows, columns, "cross_entropy_gradient", logits, *arguments)
    return out
