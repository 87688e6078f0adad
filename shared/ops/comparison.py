"""Comparisons and logic: boolean results, no gradient."""

from __future__ import annotations

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.ops.operands import Operand, as_operand, pair, promote, raw
from shared.tensor import Tensor


def compare(symbol: str, input: Operand, other: Operand) -> Tensor:
    """`input symbol other` element by element, a boolean tensor. symbol: one of == != < <= > >=."""
    a, b = [raw(x) for x in pair(input, other)]
    try:
        if symbol == "==":
            return Tensor(xp(a).equal(a, b))
        if symbol == "!=":
            return Tensor(xp(a).not_equal(a, b))
        if symbol == "<":
            return Tensor(a < b)
        if symbol == "<=":
            return Tensor(a <= b)
        return Tensor(a > b if symbol == ">" else a >= b)
    except ValueError as error:
        raise RuntimeError(
            f"{symbol}: shapes {getattr(a, 'shape', ())} and {getattr(b, 'shape', ())} cannot be broadcast together"
        ) from error


def eq(input: Tensor, other: Operand) -> Tensor:
    """input == other, element by element."""
    return compare("==", input, other)


def ne(input: Tensor, other: Operand) -> Tensor:
    """input != other, element by element."""
    return compare("!=", input, other)


def lt(input: Tensor, other: Operand) -> Tensor:
    """input < other, element by element."""
    return compare("<", input, other)


def le(input: Tensor, other: Operand) -> Tensor:
    """input <= other, element by element."""
    return compare("<=", input, other)


def gt(input: Tensor, other: Operand) -> Tensor:
    """input > other, element by element."""
    return compare(">", input, other)


def ge(input: Tensor, other: Operand) -> Tensor:
    """input >= other, element by element."""
    return compare(">=", input, other)


def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """True where both are nonzero."""
    return Tensor(xp(input.array).logical_and(input.array, raw(as_operand(other))))


def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """True where either is nonzero."""
    return Tensor(xp(input.array).logical_or(input.array, raw(as_operand(other))))


def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """True where exactly one is nonzero."""
    return Tensor(xp(input.array).logical_xor(input.array, raw(as_operand(other))))


def logical_not(input: Tensor) -> Tensor:
    """True where the element is zero."""
    return Tensor(xp(input.array).logical_not(input.array))


def bitwise(symbol: str, input: Operand, other: Operand) -> Tensor:
    """`input symbol other` on integers or booleans. symbol: one of & | ^."""
    a, b = [raw(x) for x in promote(input, other)]
    if dtypes.is_floating(dtypes.result_type(a, b)):
        raise RuntimeError(f"{symbol}: expected integer or bool tensors, but got floating ones")
    return Tensor(a & b if symbol == "&" else a | b if symbol == "|" else a ^ b)


def bitwise_not(input: Tensor) -> Tensor:
    """The complement of each bit; for booleans, not."""
    if dtypes.is_floating(input.array.dtype):
        raise RuntimeError(f"~: expected an integer or bool tensor, but got {input.array.dtype.name}")
    return Tensor(~input.array)


def isnan(input: Tensor) -> Tensor:
    """True where the element is NaN."""
    return Tensor(input.array != input.array)


def isinf(input: Tensor) -> Tensor:
    """True where the element is +inf or −inf."""
    return Tensor(xp(input.array).isinf(input.array))


def isfinite(input: Tensor) -> Tensor:
    """True where the element is neither infinite nor NaN."""
    return Tensor(xp(input.array).isfinite(input.array))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """True where |input − other| <= atol + rtol · |other|."""
    return Tensor(xp(input.array).isclose(input.array, other.array, rtol, atol, equal_nan))


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """True where all elements are close in the sense of `isclose`."""
    return bool(xp(input.array).allclose(input.array, other.array, rtol, atol, equal_nan))


def equal(input: Tensor, other: Tensor) -> bool:
    """True where shapes and all elements are the same."""
    return bool(xp(input.array).array_equal(input.array, other.array))
