"""Matrix products on raw arrays: BLAS on the CPU, cuBLAS on the GPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shared.arrays import cublas, dtypes, threads
from shared.arrays.device import xp
from shared.arrays.kernels import linear

# From here on the rows are summed by a product with ones: faster from 64 rows on (512 columns: 3.5 µs to 4.7), at most
# 1 µs slower below. A lower or higher bound rounds differently, and with it every committed training result.
_ROWS_BY_PRODUCT = 8
_SHARED_FROM = 1 << 20  # multiplications in a stack of products; below, threads cost more than they save
_LARGE = 1 << 18  # numbers in a weight that no cache holds: a product with few rows is as fast as it can be read
_BOUND_BY_MEMORY = 8  # rows up to which a kernel that reads it in order is faster than BLAS; see kernels/linear/cpu.py
_FEW_ROWS = 128  # up to here OpenBLAS multiplies W Xᵀ faster than X Wᵀ (64×784 by 512×784: 80 GFLOP/s, not 70)


def matmul(a: Any, b: Any) -> Any:
    """a @ b over the last two dimensions, leading ones broadcast. Transposed views go to BLAS without a copy.

    float16 and bfloat16, for which the CPU has no BLAS, are multiplied in float32 and rounded once at the end.
    """
    if xp(a) is not np:
        return cublas.matmul(a, b)
    if a.dtype in (dtypes.float16, dtypes.bfloat16):
        return matmul(a.astype(dtypes.float32), b.astype(dtypes.float32)).astype(a.dtype)
    if a.ndim > 2 or b.ndim > 2:
        return _stack(a, b)
    return np.matmul(a, b)


def _stack(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The products of two stacks of matrices, or of a stack and a matrix.

    BLAS would start its threads anew in every product of the stack: two threads took two to four times the processor
    time of one. So threads share the stack instead, each with products of its own; one matrix on the right
    makes a single product of the whole stack.
    """
    if b.ndim == 2 and a.flags.c_contiguous:
        rows = math.prod(a.shape[:-1])
        return np.matmul(a.reshape(rows, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    longest = max(lead, default=0)
    tasks = 1
    if longest > 1 and math.prod(lead) * a.shape[-2] * a.shape[-1] * b.shape[-1] >= _SHARED_FROM:
        tasks = min(longest, threads.blas_threads())
    if tasks == 1:
        return np.matmul(a, b)
    out = np.empty((*lead, a.shape[-2], b.shape[-1]), np.result_type(a, b))
    axis = lead.index(longest)
    a, b = (np.moveaxis(np.broadcast_to(m, lead + m.shape[-2:]), axis, 0) for m in (a, b))
    products = np.moveaxis(out, axis, 0)
    threads.share(lambda _, i, j: np.matmul(a[i:j], b[i:j], out=products[i:j]), longest, tasks, blas=True)
    return out


def matmul_transposed(x: Any, weight: Any) -> Any:
    """x @ weight.T for matrices (n, k) and (m, k), row-major."""
    if xp(x) is np and 0 < len(x) <= _BOUND_BY_MEMORY and weight.size >= _LARGE and _in_order(x, weight):
        return linear.few_rows(x, weight)
    if xp(x) is np and len(x) <= _FEW_ROWS and len(x) < len(weight) and not weight.flags.f_contiguous:
        return np.ascontiguousarray(matmul(weight, x.T).T)
    return matmul(x, weight.T)


def _in_order(x: np.ndarray, weight: np.ndarray) -> bool:
    """Whether the kernel can read the weight from its first number to the last, by rows or by columns."""
    return (
        x.dtype == weight.dtype
        and x.dtype in (dtypes.float32, dtypes.float64)
        and (weight.flags.c_contiguous or weight.flags.f_contiguous)
    )


def column_sums(a: Any) -> Any:
    """The sum of the rows of a matrix (n, m) → (m,)."""
    if a.dtype in (dtypes.float32, dtypes.float64) and len(a) >= _ROWS_BY_PRODUCT:
        return xp(a).ones(len(a), a.dtype) @ a
    return _sum(a, axis=0)


def row_sums(a: Any) -> Any:
    """The sum of each row of a matrix (n, m) → (n,); as a product, three times faster on rows of some hundred."""
    if a.dtype in (dtypes.float32, dtypes.float64):
        return a @ xp(a).ones(a.shape[1], a.dtype)
    return _sum(a, axis=1)


def _sum(a: Any, axis: int) -> Any:
    """The sum along `axis`; float16 and bfloat16 are added up in float32, lest small numbers be lost."""
    if a.dtype in (dtypes.float16, dtypes.bfloat16):
        return a.sum(axis=axis, dtype=dtypes.float32).astype(a.dtype)
    return a.sum(axis=axis)
