"""Arithmetic on two operands, with broadcasting: + − · / powers and remainders."""

from __future__ import annotations

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops.autocast import follows_autocast
from shared.ops.operands import Operand, as_operand, cast, pair, promote, raw
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
        """a · b, element by element: arrays of shapes that broadcast, one of them perhaps a number.

        Keeps in the tuple `self.saved` what backward needs: of each operand's gradient, that is, where `self.needs`
        (one flag per operand) is True. An operand that is kept for no one should be None there.
        """
        self.saved = (a if self.needs[1] else None, b if self.needs[0] else None)
        return a * b

    def backward(self, grad):
        """(the gradient for a, the gradient for b), None where `self.needs` is False; `grad` is that of the product.

        In the shape of the product: the engine undoes broadcasting. Written in operators, since `grad` and what was
        saved are Tensors when this gradient is itself to be differentiated.
        """
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
            # a^b·log a, and 0 at a = 0 where b is not negative (the limit from b > 0): there log a is taken as log 1
            is_number = type(a) in (int, float)
            base = a if is_number and a != 0 else a + (a == 0) * (b >= 0) * 1
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


class RoundedDiv(Function):
    """a / b without its fraction: the largest integer not above it, or (`trunc`) the nearest towards 0; slope 0"""

    twice = True

    def __init__(self, trunc: bool):
        self.trunc = trunc

    def forward(self, a, b):
        out = a // b
        if not self.trunc:
            return out
        if dtypes.is_floating(out.dtype):
            return xp(out).trunc(a / b).astype(out.dtype, copy=False)
        return out + ((out < 0) & (out * b != a))

    def backward(self, grad):
        return grad * 0, grad * 0


def _times(alpha: float, x: Operand, beside: Operand) -> Operand:
    """alpha · x in the common dtype of the two operands."""
    dtype = dtypes.result_type(raw(as_operand(beside)), raw(as_operand(x)))
    if isinstance(alpha, float) and not dtypes.is_floating(dtype):
        raise RuntimeError("For integral input tensors, argument alpha must not be a floating point number.")
    return cast(mul(x, alpha), dtype) if isinstance(x, Tensor) else x * alpha


def add(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:
    """input + alpha · other, broadcast.

    >>> import shared
    >>> shared.add(shared.ones(2, 1), shared.tensor([1., 2.]))
    tensor([[2., 3.],
            [2., 3.]])
    """
    a, b = pair(input, other if alpha == 1 else _times(alpha, other, input))
    return Add()(a, b)


def sub(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:
    """input − alpha · other, broadcast."""
    a, b = pair(input, other if alpha == 1 else _times(alpha, other, input))
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
    if rounding_mode not in (None, "trunc", "floor"):
        raise RuntimeError(
            f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found {rounding_mode!r}"
        )
    if rounding_mode is not None:
        return _rounded_div(input, other, trunc=rounding_mode == "trunc")
    a, b = pair(input, other, floating=True)
    return Div()(a, b)


def _rounded_div(input: Operand, other: Operand, trunc: bool) -> Tensor:
    a, b = pair(input, other)
    if not dtypes.is_floating(dtypes.result_type(raw(a), raw(b))) and xp(raw(b)).any(raw(b) == 0):
        raise RuntimeError("div with rounding: ZeroDivisionError, an integer is divided by 0")
    return RoundedDiv(trunc)(a, b)


def floor_divide(input: Operand, other: Operand) -> Tensor:
    """⌊input / other⌋ in the operands' common dtype."""
    return _rounded_div(input, other, trunc=False)


def remainder(input: Operand, other: Operand) -> Tensor:
    """input modulo other, with the sign of other (Python's %)."""
    a, b = pair(input, other)
    return Remainder()(a, b)


@follows_autocast
def pow(input: Operand, exponent: Operand) -> Tensor:
    """input to the power exponent, broadcast; one of them may be a number.

    >>> import shared
    >>> shared.pow(shared.tensor([1., 2., 3.]), 2)
    tensor([1., 4., 9.])
    """
    a, b = pair(input, exponent)
    if not dtypes.is_floating(dtypes.result_type(raw(a), raw(b))) and xp(raw(b)).any(raw(b) < 0):
        raise RuntimeError("pow: Integers to negative integer powers are not allowed.")
    return Pow()(a, b)


def atan2(input: Operand, other: Operand) -> Tensor:
    """The angle (radians) of the point whose ordinate is `input` and whose abscissa is `other`."""
    a, b = promote(input, other, floating=True)
    return Atan2()(a, b)
