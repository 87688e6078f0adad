"""What operations take: Tensors and Python numbers, brought to a common dtype by PyTorch's rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.arrays import dtypes
from shared.autograd import Function
from shared.tensor import Tensor

Operand = Any  # a Tensor or a Python number


def raw(x: Operand) -> Any:
    """The array of a Tensor; a number as it is."""
    return x.array if isinstance(x, Tensor) else x


def as_operand(x: Any) -> Any:
    """A Tensor or a Python number, as an operation takes it."""
    if isinstance(x, (Tensor, float, int)):
        return x
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, np.ndarray):
        return Tensor(x)
    raise TypeError(f"expected a Tensor or a number, but got {type(x).__name__}")


def promote(*operands: Operand, floating: bool = False) -> list[Operand]:
    """The operands in their common dtype by PyTorch's rules; Python numbers stay as they are.

    `floating` makes integers the default dtype, as division and exponentials do.
    """
    operands = [x if isinstance(x, Tensor) else as_operand(x) for x in operands]
    arrays = [x.array if isinstance(x, Tensor) else x for x in operands]
    target = dtypes.result_type(*arrays)
    if floating and not dtypes.is_floating(target):
        target = dtypes.get_default_dtype()
    if target == dtypes.bfloat16:  # beside which NumPy would take a Python float for a float32
        operands = [x if isinstance(x, Tensor) else target.type(x) for x in operands]
    promoted = [(x if x.array.dtype == target else cast(x, target)) if isinstance(x, Tensor) else x for x in operands]
    if not any(isinstance(x, Tensor) for x in promoted):
        promoted[0] = Tensor(np.asarray(promoted[0], dtype=target))
    return promoted


def pair(a: Operand, b: Operand, floating: bool = False) -> Sequence[Operand]:
    """`promote` for two operands, quick where there is nothing to do."""
    if isinstance(a, Tensor) and a.array.dtype.kind == "f":
        if isinstance(b, Tensor):
            if b.array.dtype is a.array.dtype:
                return a, b
        elif type(b) is float or type(b) is int:
            return a, b
    return promote(a, b, floating=floating)


def as_floating(x: Tensor) -> Tensor:
    """`x`, or its cast to the default dtype where it holds integers or booleans."""
    return x if dtypes.is_floating(x.array.dtype) else cast(x, dtypes.get_default_dtype())


class Cast(Function):
    """The same numbers in another dtype; the engine casts the gradient back."""

    twice = True

    def __init__(self, dtype: np.dtype):
        self.target = dtype

    def forward(self, x):
        return x.astype(self.target)

    def backward(self, grad):
        return grad


def cast(x: Tensor, dtype: Any, copy: bool = False) -> Tensor:
    """`x` in `dtype`; `x` itself where it already is (unless `copy`). Integer results carry no gradient."""
    dtype = dtypes.as_dtype(dtype)
    if x.array.dtype == dtype and not copy:
        return x
    if not dtypes.is_floating(dtype):
        return Tensor(x.array.astype(dtype))
    return Cast(dtype)(x)


class Clone(Function):
    """A copy that passes its gradient on."""

    twice = True

    def forward(self, x):
        return x.copy()

    def backward(self, grad):
        return grad


def clone(x: Tensor) -> Tensor:
    """A copy of `x` in memory of its own; differentiable."""
    return Clone()(x)


def normalize_dim(dim: int, ndim: int) -> int:
    """`dim` counted from the front; a zero-dimensional tensor accepts 0 and −1, as in PyTorch."""
    limit = max(ndim, 1)
    if not isinstance(dim, int) or not -limit <= dim < limit:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], but got {dim!r})"
        )
    return dim % limit


def sizes_of(args: tuple) -> tuple[int, ...]:
    """A shape given as `f(2, 3)` or as `f((2, 3))`."""
    if len(args) == 1 and not isinstance(args[0], int) and hasattr(args[0], "__iter__"):
        args = tuple(args[0])
    return tuple(int(n) for n in args)
