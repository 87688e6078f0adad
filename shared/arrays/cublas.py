"""Matrix products on the GPU: cuBLAS's strided-batched GEMM, any transposition and any batch without a copy.

CuPy's own `matmul` copies transposed operands of a batch and has no fast path for float16 and bfloat16 there.
What cuBLAS is to be told is worked out by `plan`, from shapes and strides alone.

Source: NVIDIA, "cuBLAS library", section 2.8.12, cublasGemmStridedBatchedEx.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.arrays import dtypes
from shared.arrays.device import xp

Array = Any  # cupy.ndarray

# Whether float32 products may round their factors to TF32's 10 bits of mantissa, which tensor cores multiply.
allow_tf32 = False

_MOST_CALLS = 16  # a batch that would need more calls of cuBLAS is copied into one that needs a single call
_LARGEST = 2**31 - 1  # cuBLAS takes sizes as C's int
_SCALARS = {dtype: (np.array(1, dtype), np.array(0, dtype)) for dtype in (np.dtype("float32"), np.dtype("float64"))}


@dataclass(frozen=True)
class Plan:
    """out[i] = A[i] B[i] for matrices A (rows, inner), B (inner, columns); steps and offsets count elements."""

    rows: int
    columns: int
    inner: int
    a_transposed: bool  # stored as (inner, rows), the rows of that `a_leading` elements apart
    a_leading: int
    b_transposed: bool
    b_leading: int
    batch: int
    steps: tuple[int, int, int]  # from one matrix of the batch to the next: in a, in b, in the result
    offsets: tuple[tuple[int, int, int], ...]  # where a, b and the result of every call begin


def orientation(shape: Sequence[int], strides: Sequence[int]) -> tuple[bool, int] | None:
    """Whether a matrix is stored transposed, and its leading dimension; None where BLAS cannot read it.

    BLAS wants the elements of a row, or of a column, one after the other, and the rows not to overlap.

    >>> orientation((3, 4), (4, 1)), orientation((3, 4), (1, 3)), orientation((3, 4), (8, 2))
    ((False, 4), (True, 3), None)
    """
    for transposed in (False, True):
        (rows, columns), (down, right) = (shape, strides) if not transposed else (shape[::-1], strides[::-1])
        leading = down if rows > 1 else columns
        if (right == 1 or columns == 1) and leading >= columns:
            return transposed, leading
    return None


def merged(sizes: Sequence[int], steps: Sequence[tuple[int, ...]]) -> list[tuple[int, tuple[int, ...]]]:
    """Dimensions of a batch joined wherever all arrays allow it, as (size, step in each array), outermost first.

    >>> merged((2, 3, 5), ((15, 30), (5, 10), (1, 1)))      # the last step of the second array does not fit
    [(6, (5, 10)), (5, (1, 1))]
    """
    result: list[tuple[int, tuple[int, ...]]] = []
    for size, step in zip(sizes, steps, strict=True):
        if size == 1:
            continue
        if result and all(outer == size * inner for outer, inner in zip(result[-1][1], step, strict=True)):
            result[-1] = (result[-1][0] * size, step)
        else:
            result.append((size, step))
    return result


def plan(a_shape: Sequence[int], a_strides: Sequence[int], b_shape: Sequence[int], b_strides: Sequence[int]) -> Plan:
    """What to tell cuBLAS about a @ b into a new row-major array; strides count elements, leading sizes broadcast.

    Both matrices must be readable (`orientation`), and nothing empty.

    >>> p = plan((7, 2, 3), (6, 1, 2), (3, 4), (4, 1))      # seven transposed matrices by one and the same
    >>> p.a_transposed, p.a_leading, p.batch, p.steps
    (True, 2, 7, (6, 0, 8))
    """
    in_a, in_b = orientation(a_shape[-2:], a_strides[-2:]), orientation(b_shape[-2:], b_strides[-2:])
    assert in_a is not None and in_b is not None, "matrices whose rows and columns both have gaps"
    (a_transposed, a_leading), (b_transposed, b_leading) = in_a, in_b
    rows, inner, columns = a_shape[-2], a_shape[-1], b_shape[-1]
    lead = np.broadcast_shapes(tuple(a_shape[:-2]), tuple(b_shape[:-2]))
    in_c = [rows * columns * math.prod(lead[i + 1 :]) for i in range(len(lead))]
    steps = zip(_broadcast(a_shape, a_strides, lead), _broadcast(b_shape, b_strides, lead), in_c, strict=True)
    dimensions = merged(lead, list(steps))
    # A stack of row-major matrices by one matrix is one tall matrix by it.
    if len(dimensions) == 1 and not a_transposed and dimensions[0][1][:2] == (rows * a_leading, 0):
        rows *= dimensions.pop()[0]
    largest = max(range(len(dimensions)), key=lambda i: dimensions[i][0], default=None)
    batch, step = (1, (0, 0, 0)) if largest is None else dimensions.pop(largest)
    offsets = tuple(
        (sum(o[0] for o in each), sum(o[1] for o in each), sum(o[2] for o in each))
        for each in itertools.product(*[[tuple(i * s for s in step) for i in range(n)] for n, step in dimensions])
    )
    return Plan(
        rows,
        columns,
        inner,
        a_transposed,
        a_leading,
        b_transposed,
        b_leading,
        batch,
        (step[0], step[1], step[2]),
        offsets,
    )


def _broadcast(shape: Sequence[int], strides: Sequence[int], lead: tuple[int, ...]) -> list[int]:
    """The strides of the leading dimensions after broadcasting to `lead`: 0 where an array is repeated."""
    own = [0 if size == 1 else stride for size, stride in zip(shape[:-2], strides[:-2], strict=True)]
    return [0] * (len(lead) - len(own)) + own


def _readable(x: Array) -> Array:
    """x, copied where BLAS could not read its matrices."""
    return x if orientation(x.shape[-2:], _in_elements(x)[-2:]) else xp(x).ascontiguousarray(x)


def _in_elements(x: Array) -> list[int]:
    return [stride // x.itemsize for stride in x.strides]


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a @ b over the last two dimensions, leading ones broadcast; into `out`, row-major, where it is given.

    float16 and bfloat16 are summed in float32, float32 in float32 (TF32's products if `allow_tf32`).
    """
    module = xp(a)
    if a.dtype not in dtypes.FLOATING or a.dtype != b.dtype or not (a.ndim and b.ndim):
        return module.matmul(a, b, out=out)
    if b.ndim == 1:
        return matmul(a, b[:, None])[..., 0]
    if a.ndim == 1:
        return matmul(a[None, :], b)[..., 0, :]
    if a.shape[-1] != b.shape[-2]:
        return module.matmul(a, b)  # which raises what NumPy raises
    if not a.size * b.size:  # products of nothing, which are 0, or no products
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return module.zeros((*lead, a.shape[-2], b.shape[-1]), a.dtype)
    a, b = _readable(a), _readable(b)
    todo = plan(a.shape, _in_elements(a), b.shape, _in_elements(b))
    if len(todo.offsets) > _MOST_CALLS:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = (module.ascontiguousarray(module.broadcast_to(x, lead + x.shape[-2:])) for x in (a, b))
        todo = plan(a.shape, _in_elements(a), b.shape, _in_elements(b))
    sizes = (todo.rows, todo.columns, todo.inner, todo.a_leading, todo.b_leading, todo.batch)
    if max(sizes) > _LARGEST:
        return module.matmul(a, b, out=out)
    if out is None:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = module.empty((*lead, a.shape[-2], b.shape[-1]), a.dtype)
    _multiply(module, todo, a, b, out)
    return out


def _multiply(module: Any, todo: Plan, a: Array, b: Array, out: Array) -> None:
    """Calls cuBLAS. It counts column by column, where a row-major matrix is its own transpose: outᵀ = Bᵀ Aᵀ."""
    cublas, runtime = module.cuda.cublas, module.cuda.runtime
    double = a.dtype == dtypes.float64
    kind = {
        dtypes.float64: runtime.CUDA_R_64F,
        dtypes.float32: runtime.CUDA_R_32F,
        dtypes.float16: runtime.CUDA_R_16F,
        dtypes.bfloat16: runtime.CUDA_R_16BF,
    }[a.dtype]
    sums = cublas.CUBLAS_COMPUTE_64F if double else cublas.CUBLAS_COMPUTE_32F
    if allow_tf32 and a.dtype == dtypes.float32:
        sums = cublas.CUBLAS_COMPUTE_32F_FAST_TF32
    one, zero = (number.ctypes.data for number in _SCALARS[dtypes.float64 if double else dtypes.float32])
    operations = [cublas.CUBLAS_OP_T if t else cublas.CUBLAS_OP_N for t in (todo.b_transposed, todo.a_transposed)]
    handle, itemsize = module.cuda.get_cublas_handle(), a.itemsize
    for in_a, in_b, in_c in todo.offsets:
        cublas.gemmStridedBatchedEx(
            handle,
            *operations,
            *(todo.columns, todo.rows, todo.inner),
            one,
            *(b.data.ptr + in_b * itemsize, kind, todo.b_leading, todo.steps[1]),
            *(a.data.ptr + in_a * itemsize, kind, todo.a_leading, todo.steps[0]),
            zero,
            *(out.data.ptr + in_c * itemsize, kind, todo.columns, todo.steps[2]),
            todo.batch,
            sums,
            cublas.CUBLAS_GEMM_DEFAULT,
        )
