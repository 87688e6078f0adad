"""Arithmetic on two operands, with broadcasting: + − · / powers and remainders."""

from __future__ import annotations

from typing import Any

import numpy as np

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops.operands import Operand, cast, pair, promote, raw
from shared.tensor import Tensor


class Add(Function):
    """a + b"""

    twice = True

    def forward(self, a, b):
        return a + b

    def backward(self, grad):
        return grad, grad


class Sub(Function):
    """a − b"""

    twice = True

    def forward(self, a, b):
        return a - b

    def backward(self, grad):
        return grad, -grad if self.needs[1] else None


class Mul(Function):
    """a · b"""

    twice = True

    def forward(self, a, b):
        self.saved = (a if self.needs[1] else None, b if self.needs[0] else None)
        return a * b

    def backward(self, grad):
        a, b = self.saved
        return grad * b if self.needs[0] else None, grad * a if self.needs[1] else None


class Div(Function):
    """a / b"""

    twice = True

    def forward(self, a, b):
        self.saved = (a if self.needs[1] else None, b)
        return a / b

    def backward(self, grad):
        a, b = self.saved
        return grad / b if self.needs[0] else None, -grad * a / (b * b) if self.needs[1] else None


class Pow(Function):
    """a to the power b, both arrays or one a number"""

    twice = True

    def forward(self, a, b):
        out = a * a * a if type(b) in (int, float) and b == 3 else a**b  # power() is slow where it need not be
        self.saved = (a, b, out if self.needs[1] else None)
        return out

    def backward(self, grad):
        a, b, out = self.saved
        to_a = to_b = None
        if self.needs[0]:
            # b·a^(b−1); the exponent is clipped where b = 0, whose slope is 0 even at a = 0
            if type(b) in (int, float):
                to_a = grad * 0 if b == 0 else grad * b * a ** (b - 1)
            else:
                is_zero = b == 0
                to_a = grad * b * a ** (b - 1 + is_zero * 1)
        if self.needs[1]:
            # a^b·log a, and 0 at a = 0 (where the limit from b > 0 is 0)
            is_zero = (a == 0) * 1
            base = a + is_zero
            to_b = grad * out * (base.log() if isinstance(base, Tensor) else xp(base).log(base))
        return to_a, to_b


class Remainder(Function):
    """a − b·⌊a/b⌋: the sign follows b, as in Python"""

    def forward(self, a, b):
        self.saved = (a, b)
        return a % b

    def backward(self, grad):
        a, b = self.saved
        return grad, -grad * xp(grad).floor(a / b) if self.needs[1] else None


class Atan2(Function):
    """The angle of the point (x, y) = (b, a)"""

    twice = True

    def forward(self, a, b):
        self.saved = (a, b)
        return xp(a).arctan2(a, b)

    def backward(self, grad):
        a, b = self.saved
        scaled = grad / (a * a + b * b)
        return scaled * b, -scaled * a


def add(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:
    """input + alpha · other, broadcast.

    >>> import shared
    >>> shared.add(shared.ones(2, 1), shared.tensor([1., 2.]))
    tensor([[2., 3.],
            [2., 3.]])
    """
    a, b = pair(input, other if alpha == 1 else mul(other, alpha))
    return Add()(a, b)


def sub(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:
    """input − alpha · other, broadcast."""
    a, b = pair(input, other if alpha == 1 else mul(other, alpha))
    if dtypes.bool_ in [x.array.dtype if isinstance(x, Tensor) else dtypes.of_scalar(x) for x in (a, b)]:
        if dtypes.result_type(*[x.array if isinstance(x, Tensor) else x for x in (a, b)]) == dtypes.bool_:
            raise RuntimeError("sub: subtraction of bool tensors is not supported; use logical_xor (^) or ~")
    return Sub()(a, b)


def mul(input: Operand, other: Operand) -> Tensor:
    """input · other, element by element, broadcast."""
    a, b = pair(input, other)
    return Mul()(a, b)


def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other, broadcast; integers divide to the default dtype. rounding_mode: None, 'trunc' or 'floor'."""
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode not in (None, "trunc"):
        raise RuntimeError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found {rounding_mode!r}")
    a, b = pair(input, other, floating=True)
    out = Div()(a, b)
    if rounding_mode is None:
        return out
    target = dtypes.result_type(*[x.array if isinstance(x, Tensor) else x for x in promote(input, other)])
    return cast(Tensor(xp(out.array).trunc(out.array)), target)


def floor_divide(input: Operand, other: Operand) -> Tensor:
    """⌊input / other⌋ in the operands' common dtype; no gradient."""
    a, b = [x.array if isinstance(x, Tensor) else x for x in pair(input, other)]
    if dtypes.category(dtypes.result_type(a, b)) < 2 and xp(b).any(b == 0):
        raise RuntimeError("floor_divide: ZeroDivisionError")
    return Tensor(a // b)


def remainder(input: Operand, other: Operand) -> Tensor:
    """input modulo other, with the sign of other (Python's %)."""
    a, b = pair(input, other)
    return Remainder()(a, b)


def pow(input: Operand, exponent: Operand) -> Tensor:
    """input to the power exponent, broadcast; one of them may be a number.

    >>> import shared
    >>> shared.pow(shared.tensor([1., 2., 3.]), 2)
    tensor([1., 4., 9.])
    """
    a, b = pair(input, exponent)
    if isinstance(a, Tensor) and not dtypes.is_floating(a.array.dtype) and xp(a.array).any(raw(b) < 0):
        raise RuntimeError("pow: Integers to negative integer powers are not allowed.")
    return Pow()(a, b)


def atan2(input: Operand, other: Operand) -> Tensor:
    """The angle (radians) of the point whose ordinate is `input` and whose abscissa is `other`."""
    a, b = promote(input, other, floating=True)
    return Atan2()(a, b)
