"""The optimizers' updates on the GPU: one launch for as many as 64 parameters. Formulas in reference.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.arrays.device import xp
from shared.arrays.kernels.launch import THREADS, Kernels

__all__ = ["adam", "adam_all", "scale_all", "sgd", "sgd_all", "squares"]

Array = Any  # cupy.ndarray
Arrays = Sequence[Array]

MANY = 64  # parameters in one launch: their addresses have to fit into the 4 KB of a kernel's arguments
BLOCKS = 1024  # for each parameter at most

# A block works on one parameter, and so do the blocks that are a multiple of `many` further on.
kernels = Kernels(r"""
struct Many {
    T* columns[4][64];  // of every parameter: itself, its gradient, its state
    long long sizes[64];
    double numbers[2][64];
    long long many;
};

struct Part {
    int which;
    long long first, step, size;
    __device__ Part(const Many& all) {
        which = blockIdx.x % all.many;
        first = (long long)(blockIdx.x / all.many) * blockDim.x + threadIdx.x;
        step = (long long)(gridDim.x / all.many) * blockDim.x;
        size = all.sizes[which];
    }
};

extern "C" __global__ void adam(const __grid_constant__ Many all, double b1, double b2, double epsilon, double keep,
                                double penalty, double sign) {
    const Part part(all);
    T *param = all.columns[0][part.which], *gradient = all.columns[1][part.which];
    T *exp_avg = all.columns[2][part.which], *exp_avg_sq = all.columns[3][part.which];
    const A rate = all.numbers[0][part.which], root_correction = all.numbers[1][part.which];
    const A beta1 = b1, beta2 = b2, fresh1 = 1 - beta1, fresh2 = 1 - beta2, eps = epsilon;
    for (long long i = part.first; i < part.size; i += part.step) {
        A p = param[i];
        A g = (A)sign * (A)gradient[i] + (A)penalty * p;
        A m = beta1 * (A)exp_avg[i] + fresh1 * g;
        A v = beta2 * (A)exp_avg_sq[i] + fresh2 * g * g;
        exp_avg[i] = T(m);
        exp_avg_sq[i] = T(v);
        param[i] = T(p * (A)keep - rate * m / (sqrt(v) * root_correction + eps));
    }
}

extern "C" __global__ void sgd(const __grid_constant__ Many all, double rate, double momentum, double fresh,
                               double penalty, double sign, long long nesterov) {
    const Part part(all);
    T *param = all.columns[0][part.which], *gradient = all.columns[1][part.which];
    T* velocity = all.columns[2][part.which];
    const A mu = momentum;
    for (long long i = part.first; i < part.size; i += part.step) {
        A p = param[i];
        A g = (A)sign * (A)gradient[i] + (A)penalty * p;
        if (velocity) {
            A b = mu * (A)velocity[i] + (A)fresh * g;
            velocity[i] = T(b);
            g = nesterov ? g + mu * b : b;
        }
        param[i] = T(p - (A)rate * g);
    }
}

extern "C" __global__ void scale(const __grid_constant__ Many all, const double* factor) {
    const Part part(all);
    T* x = all.columns[0][part.which];
    for (long long i = part.first; i < part.size; i += part.step) x[i] = T((A)x[i] * (A)*factor);
}

// The blocks of a parameter leave one number each: sums[parameter · blocks of it + block].
extern "C" __global__ void squares(const __grid_constant__ Many all, double* sums) {
    __shared__ double parts[THREADS];
    const Part part(all);
    const T* x = all.columns[0][part.which];
    double total = 0;
    for (long long i = part.first; i < part.size; i += part.step) total += (double)(A)x[i] * (double)(A)x[i];
    total = row_tree<Add>(total, THREADS, parts);
    if (threadIdx.x == 0) sums[part.which * (gridDim.x / all.many) + blockIdx.x / all.many] = total;
}
""")

_MANY = np.dtype(
    [("columns", np.uint64, (4, MANY)), ("sizes", np.int64, MANY), ("numbers", float, (2, MANY)), ("many", np.int64)]
)


def _table(columns: Sequence[Arrays], numbers: Sequence[Sequence[float]] = ()) -> np.ndarray:
    """The struct `Many` of some parameters."""
    table = np.zeros(1, _MANY)
    many = len(columns[0])
    for row, column in enumerate(columns):
        table["columns"][0, row, :many] = [a.data.ptr for a in column]
    for row, values in enumerate(numbers):
        table["numbers"][0, row, :many] = values
    table["sizes"][0, :many] = [a.size for a in columns[0]]
    table["many"] = many
    return table


def _blocks(arrays: Arrays) -> int:
    """How many blocks each parameter gets: a thread of the largest one takes at least four elements."""
    return max(1, min(-(-max(a.size for a in arrays) // (4 * THREADS)), BLOCKS))


def _launch(name: str, columns: Sequence[Arrays], numbers: Sequence[Sequence[float]], *arguments: Any) -> None:
    """Starts a kernel for every 64 parameters."""
    for i in range(0, len(columns[0]), MANY):
        some = [column[i : i + MANY] for column in columns]
        table = _table(some, [values[i : i + MANY] for values in numbers])
        kernels.blocks(len(some[0]) * _blocks(some[0]), name, some[0][0], table, *arguments)


def adam_all(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    steps: Sequence[np.ndarray],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    maximize: bool = False,
) -> None:
    """`reference.adam` for every parameter; counts each one's step in `steps`, NumPy's arrays of one number."""
    for step in steps:
        step += 1
    _adam(
        (params, grads, exp_avgs, exp_avg_sqs),
        [int(step) for step in steps],
        *(lr, beta1, beta2, eps, weight_decay, decoupled, maximize),
    )


def _adam(
    columns: Sequence[Arrays],
    steps: Sequence[int],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    maximize: bool,
) -> None:
    numbers = ([lr / (1 - beta1**step) for step in steps], [1 / math.sqrt(1 - beta2**step) for step in steps])
    keep, penalty = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    options = (beta1, beta2, eps, keep, penalty, -1.0 if maximize else 1.0)
    _launch("adam", columns, numbers, *map(float, options))


def adam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
) -> None:
    """`reference.adam` in one launch."""
    columns = ([param], [grad], [exp_avg], [exp_avg_sq])
    _adam(columns, [step], lr, beta1, beta2, eps, weight_decay, decoupled, False)


def sgd_all(
    params: Arrays,
    grads: Arrays,
    bufs: Arrays | None,
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool = False,
) -> None:
    """`reference.sgd` for every parameter; `bufs` is None without momentum."""
    columns = (params, grads) if bufs is None else (params, grads, bufs)
    options = (lr, momentum, 1 - dampening, weight_decay, -1.0 if maximize else 1.0)
    _launch("sgd", columns, (), *map(float, options), int(nesterov))


def sgd(
    param: Array,
    grad: Array,
    buf: Array | None,
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """`reference.sgd` in one launch."""
    bufs = None if buf is None else [buf]
    options = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
    sgd_all([param], [grad], bufs, lr=lr, **options)


def squares(arrays: Arrays) -> Array:
    """`reference.squares`: two launches for every 64 arrays."""
    module, sums = xp(arrays[0]), []
    for i in range(0, len(arrays), MANY):
        some = arrays[i : i + MANY]
        parts = module.empty((len(some), _blocks(some)), "float64")
        kernels.blocks(parts.size, "squares", some[0], _table([some]), parts)
        sums.append(parts.sum(axis=1))
    return sums[0] if len(sums) == 1 else module.concatenate(sums)


def scale_all(arrays: Arrays, factor: Any) -> None:
    """`reference.scale_all`; the factor may be a number or an array of one on the GPU, which is not waited for."""
    _launch("scale", [arrays], (), xp(arrays[0]).asarray(factor, "float64"))
