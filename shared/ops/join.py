"""Joining tensors into one and splitting one into views."""

from __future__ import annotations

from collections.abc import Sequence

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops import index, shape
from shared.ops.operands import cast, normalize_dim
from shared.tensor import Tensor, numpy_names


class Cat(Function):
    """Tensors joined along a dimension"""

    twice = True

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, *arrays):
        self.ends = [0]
        for a in arrays:
            self.ends.append(self.ends[-1] + a.shape[self.dim])
        return xp(arrays[0]).concatenate(arrays, axis=self.dim)

    def backward(self, grad):
        before = (slice(None),) * self.dim
        return tuple(grad[(*before, slice(start, end))] for start, end in zip(self.ends, self.ends[1:], strict=False))


@numpy_names
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors joined along an existing dimension; all other sizes must be the same.

    >>> import shared
    >>> shared.cat([shared.zeros(1, 2), shared.ones(2, 2)]).shape
    Size([3, 2])
    """
    tensors = list(tensors)
    if not tensors:
        raise RuntimeError("cat: expected a non-empty list of Tensors")
    for i, x in enumerate(tensors):
        if not isinstance(x, Tensor):
            raise TypeError(f"cat: expected Tensors, but element {i} is {type(x).__name__}")
        if not x.array.ndim:
            raise RuntimeError(f"zero-dimensional tensor (at position {i}) cannot be concatenated; use stack")
    dim = normalize_dim(dim, max(x.array.ndim for x in tensors))
    kept = [x for x in tensors if x.array.shape != (0,)] or tensors[:1]  # PyTorch lets shape (0,) join anything
    first = kept[0].array.shape
    for i, x in enumerate(kept):
        size = x.array.shape
        if size[:dim] + size[dim + 1 :] != first[:dim] + first[dim + 1 :]:
            raise RuntimeError(
                f"cat: sizes of tensors must match except in dimension {dim}. Expected {list(first)}, but got "
                f"{list(size)} for tensor number {i} in the list"
            )
    target = dtypes.result_type(*[x.array for x in tensors])
    none = (*first[:dim], 0, *first[dim + 1 :])
    return Cat(dim)(*[cast(x if x.array.ndim == len(first) else shape.reshape(x, none), target) for x in tensors])


@numpy_names
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension."""
    tensors = list(tensors)
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    for i, x in enumerate(tensors):
        if x.array.shape != tensors[0].array.shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(tensors[0].array.shape)} at entry 0 and "
                f"{list(x.array.shape)} at entry {i}"
            )
    return cat([shape.unsqueeze(x, dim) for x in tensors], dim)


def split(input: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive pieces along `dim`: of one size (the last may be smaller), or of the given sizes."""
    dim = normalize_dim(dim, input.array.ndim)
    n = input.array.shape[dim]
    if isinstance(split_size_or_sections, int):
        step = split_size_or_sections
        if step <= 0 and n:
            raise RuntimeError(f"split expects split_size be positive, but got split_size={step}")
        sections = [min(step, n - start) for start in range(0, n, step)] if n else [0]
    else:
        sections = list(split_size_or_sections)
        if sum(sections) != n:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension {dim}), "
                f"but got split_sizes={sections}"
            )
    starts = [sum(sections[:i]) for i in range(len(sections))]
    return tuple(narrow(input, dim, start, length) for start, length in zip(starts, sections, strict=True))


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of equal size along `dim`, the last one perhaps smaller."""
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    n = input.array.shape[normalize_dim(dim, input.array.ndim)]
    return split(input, max(-(-n // chunks), 1), dim)


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """The view of `length` elements from `start` along `dim`."""
    dim = normalize_dim(dim, input.array.ndim)
    n = input.array.shape[dim]
    if start < 0:
        start += n
    if not (0 <= start and length >= 0 and start + length <= n):
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return index.getitem(input, (slice(None),) * dim + (slice(start, start + length),))


def select(input: Tensor, dim: int, index_: int) -> Tensor:
    """The view at one position along `dim`, without that dimension."""
    dim = normalize_dim(dim, input.array.ndim)
    return index.getitem(input, (slice(None),) * dim + (int(index_),))


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The views along `dim`, one per position, without that dimension."""
    dim = normalize_dim(dim, input.array.ndim)
    return tuple(select(input, dim, i) for i in range(input.array.shape[dim]))


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors joined end to end, anything else side by side (along dimension 1)."""
    tensors = [x if x.array.ndim else shape.reshape(x, 1) for x in tensors]
    return cat(tensors, 0 if tensors and tensors[0].array.ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors on top of each other (along dimension 0); vectors count as rows."""
    return cat([x if x.array.ndim > 1 else shape.reshape(x, (1, -1)) for x in tensors], 0)
