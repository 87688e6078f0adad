"""Triangles and diagonals of matrices."""

from __future__ import annotations

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops import index, reduce
from shared.ops.autocast import follows_autocast
from shared.ops.operands import normalize_dim
from shared.ops.shape import movedim
from shared.tensor import Tensor


class Tri(Function):
    """The lower or upper triangle of the last two dimensions, zeros elsewhere"""

    twice = True

    def __init__(self, function: str, diagonal: int):
        self.function, self.diagonal = function, diagonal

    def forward(self, x):
        return getattr(xp(x), self.function)(x, self.diagonal)

    def backward(self, grad):
        if isinstance(grad, Tensor):
            return Tri(self.function, self.diagonal)(grad)
        return getattr(xp(grad), self.function)(grad, self.diagonal)

    @property
    def name(self) -> str:
        return self.function.capitalize()


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions, up to `diagonal` above the main one; zeros elsewhere."""
    _require_matrix("tril", input)
    return Tri("tril", diagonal)(input)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions, from `diagonal` above the main one; zeros elsewhere."""
    _require_matrix("triu", input)
    return Tri("triu", diagonal)(input)


def _require_matrix(name: str, input: Tensor) -> None:
    if input.array.ndim < 2:
        raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions, but it has {input.array.ndim}")


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The elements whose places along dim1 and dim2 differ by `offset`, as the last dimension; copied."""
    _require_matrix("diagonal", input)
    dim1, dim2 = normalize_dim(dim1, input.array.ndim), normalize_dim(dim2, input.array.ndim)
    if dim1 == dim2:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    moved = movedim(input, (dim1, dim2), (-2, -1))
    n, m = moved.array.shape[-2:]
    length = max(min(n + min(offset, 0), m - max(offset, 0)), 0)
    places = xp(input.array).arange(length, dtype=dtypes.int64)
    return index.getitem(moved, (..., Tensor(places + max(-offset, 0)), Tensor(places + max(offset, 0))))


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A vector as the diagonal of a square matrix of zeros; of a matrix, its diagonal."""
    if input.array.ndim == 2:
        return _diagonal_of_matrix(input, diagonal)
    if input.array.ndim != 1:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.array.ndim}D")
    n = len(input.array) + abs(diagonal)
    places = xp(input.array).arange(len(input.array), dtype=dtypes.int64)
    where = (places + max(-diagonal, 0), places + max(diagonal, 0))
    return index.PutItem((n, n), where, False)(input)


_diagonal_of_matrix = diagonal  # under a name that diag's parameter does not hide


@follows_autocast
def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if input.array.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.array.ndim}")
    return reduce.sum(diagonal(input))
