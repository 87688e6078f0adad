"""Operations on one operand, element by element, and choices between two: exponentials, rounding, where, maximum."""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

from shared.arrays import dtypes
from shared.arrays.device import special, xp
from shared.arrays.kernels import activation as kernels
from shared.autograd import Function
from shared.ops import arithmetic
from shared.ops.autocast import follows_autocast
from shared.ops.operands import Operand, as_floating, promote
from shared.tensor import Tensor

TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)


def math_of_tensors(x: Any) -> ModuleType | None:
    """This module, where `exp`, `erf`, `where` … of Tensors are, if `x` is one, else None: what the kernels ask for."""
    return sys.modules[__name__] if isinstance(x, Tensor) else None


class Neg(Function):
    """−x"""

    twice = True

    def forward(self, x):
        return -x

    def backward(self, grad):
        return -grad


class Abs(Function):
    """|x|; the slope at 0 is taken as 0"""

    twice = True

    def forward(self, x):
        self.saved = (x,)
        return abs(x)

    def backward(self, grad):
        (x,) = self.saved
        return grad * (sign(x) if isinstance(x, Tensor) else _sign(x))


def _sign(x: Any) -> Any:
    """The sign of an array, 0 for NaN (where NumPy's is NaN)."""
    module = xp(x)
    return module.where(x != x, 0, module.sign(x)).astype(x.dtype, copy=False)


class Exp(Function):
    """eˣ"""

    twice = True

    def forward(self, x):
        """eˣ of an array, of module `xp(x)`, NumPy or CuPy. Keeps in the tuple `self.saved` what backward needs."""
        out = xp(x).exp(x)
        self.saved = (out,) if self.needs[0] else ()
        return out

    def backward(self, grad):
        """The gradient for x, from `grad`, that of eˣ, in the same shape; written in operators, as Mul's is."""
        (out,) = self.saved
        return grad * out


class Log(Function):
    """log x"""

    twice = True

    def forward(self, x):
        """The natural logarithm of an array. Keeps in the tuple `self.saved` what backward needs."""
        self.saved = (x,)
        return xp(x).log(x)

    def backward(self, grad):
        """The gradient for x, from `grad`, that of log x, in the same shape; written in operators, as Mul's is."""
        (x,) = self.saved
        return grad / x


class Log1p(Function):
    """log(1 + x), accurate near 0"""

    twice = True

    def forward(self, x):
        self.saved = (x,)
        return xp(x).log1p(x)

    def backward(self, grad):
        (x,) = self.saved
        return grad / (x + 1)


class Expm1(Function):
    """eˣ − 1, accurate near 0"""

    twice = True

    def forward(self, x):
        out = xp(x).expm1(x)
        self.saved = (out,)
        return out

    def backward(self, grad):
        (out,) = self.saved
        return grad * (out + 1)


class Sqrt(Function):
    """√x"""

    twice = True

    def forward(self, x):
        out = xp(x).sqrt(x)
        self.saved = (out,)
        return out

    def backward(self, grad):
        (out,) = self.saved
        return grad / (2 * out)


class Rsqrt(Function):
    """1/√x"""

    twice = True

    def forward(self, x):
        out = 1 / xp(x).sqrt(x)
        self.saved = (out,)
        return out

    def backward(self, grad):
        (out,) = self.saved
        return grad * out * out * out * -0.5


class Sin(Function):
    """sin x, x in radians"""

    twice = True

    def forward(self, x):
        self.saved = (x,)
        return xp(x).sin(x)

    def backward(self, grad):
        (x,) = self.saved
        return grad * (x.cos() if isinstance(x, Tensor) else xp(x).cos(x))


class Cos(Function):
    """cos x, x in radians"""

    twice = True

    def forward(self, x):
        self.saved = (x,)
        return xp(x).cos(x)

    def backward(self, grad):
        (x,) = self.saved
        return -grad * (x.sin() if isinstance(x, Tensor) else xp(x).sin(x))


class Tanh(Function):
    """tanh x"""

    twice = True

    def forward(self, x):
        """tanh x of an array, of module `xp(x)`, NumPy or CuPy. Keeps in the tuple `self.saved` what backward needs."""
        out = xp(x).tanh(x)
        self.saved = (out,)
        return out

    def backward(self, grad):
        """The gradient for x, from `grad`, that of tanh x, in the same shape; written in operators, as Mul's is."""
        (out,) = self.saved
        return grad * (1 - out * out)


class Sigmoid(Function):
    """1 / (1 + e⁻ˣ)"""

    twice = True

    def forward(self, x):
        out = kernels.sigmoid(x)
        self.saved = (out,)
        return out

    def backward(self, grad):
        (out,) = self.saved
        return kernels.sigmoid_input(grad, out, math_of_tensors(grad))


class Erf(Function):
    """The error function, 2/√π ∫₀ˣ e^(−t²) dt"""

    twice = True

    def forward(self, x):
        self.saved = (x,)
        wide = x if x.dtype in (dtypes.float32, dtypes.float64) else x.astype(dtypes.float32)
        return special(x).erf(wide).astype(x.dtype)

    def backward(self, grad):
        (x,) = self.saved
        density = exp(-x * x) if isinstance(x, Tensor) else xp(x).exp(-x * x)
        return grad * density * TWO_OVER_SQRT_PI


class Step(Function):
    """A function with slope 0 wherever it has one: sign, floor, ceil, round, trunc"""

    twice = True

    def __init__(self, function: str, *args: Any):
        self.function, self.args = function, args

    def forward(self, x):
        if self.function == "sign":
            return _sign(x) if x.dtype != dtypes.bool_ else x.copy()
        wide = x.astype(dtypes.float32) if x.dtype in (dtypes.float16, dtypes.bfloat16) else x
        return getattr(xp(x), self.function)(wide, *self.args).astype(x.dtype, copy=False)

    def backward(self, grad):
        return grad * 0

    @property
    def name(self) -> str:
        return self.function.capitalize()


class Clamp(Function):
    """min(max(x, low), high); the gradient passes where the value was inside"""

    twice = True

    def forward(self, x, low, high):
        self.saved = (x, low, high)
        out = x
        if low is not None:
            out = xp(x).maximum(out, low)
        if high is not None:
            out = xp(x).minimum(out, high)
        return out.copy() if out is x else out

    def backward(self, grad):
        x, low, high = self.saved
        choose = where if isinstance(grad, Tensor) else xp(grad).where
        above_low = x >= low if low is not None else x == x  # all but NaN, whose gradient is 0
        below_high = x <= high if high is not None else x == x
        to_x = choose(above_low & below_high, grad, 0) if self.needs[0] else None
        to_low = choose((x < low) & (high is None or low < high), grad, 0) if self.needs[1] else None
        to_high = choose((x > high) | (low is not None and low > high), grad, 0) if self.needs[2] else None
        return to_x, to_low, to_high


def neg(input: Tensor) -> Tensor:
    """−input."""
    if input.array.dtype == dtypes.bool_:
        raise RuntimeError("neg: negation of a bool tensor is not supported; use ~ or logical_not()")
    return Neg()(input)


def abs_(input: Tensor) -> Tensor:
    """|input|."""
    return Abs()(input)


@follows_autocast
def exp(input: Tensor) -> Tensor:
    """e to the power of each element."""
    return Exp()(as_floating(input))


@follows_autocast
def log(input: Tensor) -> Tensor:
    """The natural logarithm; −inf at 0, NaN below."""
    return Log()(as_floating(input))


@follows_autocast
def log2(input: Tensor) -> Tensor:
    """The logarithm to base 2."""
    return arithmetic.mul(log(input), 1 / math.log(2))


@follows_autocast
def log10(input: Tensor) -> Tensor:
    """The logarithm to base 10."""
    return arithmetic.mul(log(input), 1 / math.log(10))


@follows_autocast
def log1p(input: Tensor) -> Tensor:
    """log(1 + input), accurate for small input."""
    return Log1p()(as_floating(input))


@follows_autocast
def expm1(input: Tensor) -> Tensor:
    """exp(input) − 1, accurate for small input."""
    return Expm1()(as_floating(input))


def sqrt(input: Tensor) -> Tensor:
    """The square root; NaN below 0."""
    return Sqrt()(as_floating(input))


@follows_autocast
def rsqrt(input: Tensor) -> Tensor:
    """1 / √input."""
    return Rsqrt()(as_floating(input))


def square(input: Tensor) -> Tensor:
    """input²."""
    return arithmetic.pow(input, 2)


@follows_autocast
def reciprocal(input: Tensor) -> Tensor:
    """1 / input."""
    return arithmetic.div(1.0, input)


def sin(input: Tensor) -> Tensor:
    """The sine of an angle in radians."""
    return Sin()(as_floating(input))


def cos(input: Tensor) -> Tensor:
    """The cosine of an angle in radians."""
    return Cos()(as_floating(input))


@follows_autocast
def tan(input: Tensor) -> Tensor:
    """The tangent of an angle in radians."""
    return arithmetic.div(sin(input), cos(input))


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return Tanh()(as_floating(input))


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^(−input))."""
    return Sigmoid()(as_floating(input))


def erf(input: Tensor) -> Tensor:
    """The error function."""
    return Erf()(as_floating(input))


def sign(input: Tensor) -> Tensor:
    """−1, 0 or 1."""
    return Step("sign")(input)


def floor(input: Tensor) -> Tensor:
    """The largest integer not above each element."""
    return Step("floor")(input)


def ceil(input: Tensor) -> Tensor:
    """The smallest integer not below each element."""
    return Step("ceil")(input)


def round_(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest number with `decimals` places, halves to even."""
    return Step("round", decimals)(input)


def trunc(input: Tensor) -> Tensor:
    """Each element without its fraction."""
    return Step("trunc")(input)


def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """Each element limited to [min, max]; numbers or tensors, one of them may be None."""
    if min is None and max is None:
        raise RuntimeError("clamp: At least one of 'min' or 'max' must not be None")
    given = [x for x in (input, min, max) if x is not None]
    promoted = iter(promote(*given))
    return Clamp()(*[None if x is None else next(promoted) for x in (input, min, max)])


# ---------------------------------------------------------------- choosing


class Where(Function):
    """a where the condition holds, b elsewhere"""

    twice = True

    def forward(self, condition, a, b):
        self.saved = (condition,)
        return xp(condition).where(condition, a, b)

    def backward(self, grad):
        # Choosing again, not multiplying by 0 and 1: where the gradient is infinite, 0 · inf would be NaN.
        (condition,) = self.saved
        choose = where if isinstance(grad, Tensor) else xp(grad).where
        to_a = choose(condition, grad, 0) if self.needs[1] else None
        return None, to_a, choose(condition, 0, grad) if self.needs[2] else None


class Extremum(Function):
    """The larger (or smaller) of two elements; a tie gives each half of the gradient"""

    def __init__(self, function: str):
        self.function = function

    def forward(self, a, b):
        self.saved = (a, b)
        return getattr(xp(a), self.function)(a, b)

    def backward(self, grad):
        a, b = self.saved
        if self.function == "minimum":
            a, b = b, a
        where = xp(grad).where
        half = where(a == b, grad * 0.5, grad)
        return where(a < b, 0, half), where(a > b, 0, half)

    @property
    def name(self) -> str:
        return self.function.capitalize()


def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Any:
    """input where condition is True, other elsewhere, broadcast. With a condition alone: its nonzero indices."""
    if not isinstance(condition, Tensor) or condition.array.dtype != dtypes.bool_:
        found = condition.array.dtype.name if isinstance(condition, Tensor) else type(condition).__name__
        raise RuntimeError(f"where expected condition to be a boolean tensor, but got {found}")
    if input is None and other is None:
        return tuple(Tensor(indices) for indices in xp(condition.array).nonzero(condition.array))
    a, b = promote(input, other)
    return Where()(condition, a, b)


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of the two, element by element; NaN where either is NaN."""
    return Extremum("maximum")(*promote(input, other))


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of the two, element by element; NaN where either is NaN."""
    return Extremum("minimum")(*promote(input, other))
