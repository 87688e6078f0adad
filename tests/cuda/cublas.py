"""cuBLAS's batched matrix product, written as its documentation says it, for the stand-in of CuPy."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np

HANDLE = 17
CUBLAS_OP_N, CUBLAS_OP_T = 0, 1
CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_64F = 68, 77, 70
CUBLAS_GEMM_DEFAULT = -1

TYPES = {0: np.dtype("float32"), 1: np.dtype("float64"), 2: np.dtype("float16"), 14: np.dtype(ml_dtypes.bfloat16)}
calls: list[tuple] = []  # (m, n, k, batch, compute type) of every product


def _memory(address: int, kind: int, elements: int) -> np.ndarray:
    dtype = TYPES[kind]
    bytes_of = (ctypes.c_ubyte * (elements * dtype.itemsize)).from_address(address)
    return np.frombuffer(bytes_of, dtype)


def _matrices(address: int, kind: int, rows: int, columns: int, leading: int, stride: int, batch: int) -> np.ndarray:
    """(batch, rows, columns), a view of column-major matrices in memory."""
    assert leading >= max(1, rows), f"leading dimension {leading} of {rows} rows"
    memory = _memory(address, kind, (batch - 1) * stride + (columns - 1) * leading + rows)
    size = memory.itemsize
    strides = (stride * size, size, leading * size)
    return np.lib.stride_tricks.as_strided(memory, (batch, rows, columns), strides)


def gemmStridedBatchedEx(
    handle: int,
    transa: int,
    transb: int,
    m: int,
    n: int,
    k: int,
    alpha: int,
    A: int,
    Atype: int,
    lda: int,
    strideA: int,
    B: int,
    Btype: int,
    ldb: int,
    strideB: int,
    beta: int,
    C: int,
    Ctype: int,
    ldc: int,
    strideC: int,
    batchCount: int,
    computeType: int,
    algo: int,
) -> None:
    """C ← α op(A) op(B) + β C for every matrix of the batch, all column-major."""
    assert handle == HANDLE and algo == CUBLAS_GEMM_DEFAULT and Atype == Btype == Ctype
    numbers: Any = (m, n, k, lda, ldb, ldc, batchCount)
    assert all(type(v) is int and 0 < v < 2**31 for v in numbers), numbers
    assert (computeType == CUBLAS_COMPUTE_64F) == (Atype == 1), "float64 and nothing else is summed in float64"
    scalar = ctypes.c_double if Atype == 1 else ctypes.c_float
    a_times, c_times = (scalar.from_address(p).value for p in (alpha, beta))
    a = _matrices(A, Atype, *((k, m) if transa else (m, k)), lda, strideA, batchCount)
    b = _matrices(B, Btype, *((n, k) if transb else (k, n)), ldb, strideB, batchCount)
    c = _matrices(C, Ctype, m, n, ldc, strideC, batchCount)
    sums = np.float64 if Atype == 1 else np.float32
    a, b = (x.swapaxes(1, 2) if t else x for x, t in ((a, transa), (b, transb)))
    product = a_times * (a.astype(sums) @ b.astype(sums))
    c[...] = product if c_times == 0 else product + c_times * c.astype(sums)
    calls.append((m, n, k, batchCount, computeType))
