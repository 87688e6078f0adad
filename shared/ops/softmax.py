"""Softmax and log-softmax, each with its own gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops.activation import in_float32, math_of, require_floating, require_tensor
from shared.ops.operands import cast
from shared.ops.shape import normalize_dim
from shared.tensor import Tensor


def _sum(x: Any, dim: int) -> Any:
    return x.sum(dim, keepdim=True) if isinstance(x, Tensor) else x.sum(axis=dim, keepdims=True)


def softmax_formula(x: Any, dim: int) -> Any:
    """exp(x) / Σ exp(x) along `dim` of an array; the maximum is taken out first: nothing can overflow."""
    e = xp(x).exp(x - x.max(axis=dim, keepdims=True))
    e /= e.sum(axis=dim, keepdims=True)
    return e


def log_softmax_formula(x: Any, dim: int) -> Any:
    """x − log Σ exp(x) along `dim` of a raw array: a new array of its shape and dtype, and x stays unchanged.

    Finite for finite x of any size: each row's maximum is taken out first, so that nothing can overflow and the sum
    is 1 or more, and softmax and logarithm are not computed apart, since a probability may round to 0.
    """
    shifted = x - x.max(axis=dim, keepdims=True)
    total = xp(x).exp(shifted).sum(axis=dim, keepdims=True)
    shifted -= xp(x).log(total)
    return shifted


class Softmax(Function):
    """eˣ / Σ eˣ along a dimension; ∂yᵢ/∂xⱼ = yᵢ (δᵢⱼ − yⱼ)"""

    twice = True

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, x):
        out = softmax_formula(x, self.dim) if x.size else x.copy()
        self.saved = (out,)
        return out

    def backward(self, grad):
        (y,) = self.saved
        return y * (grad - _sum(grad * y, self.dim))


class LogSoftmax(Function):
    """x − log Σ eˣ along a dimension; ∂yᵢ/∂xⱼ = δᵢⱼ − e^yⱼ"""

    twice = True

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, x):
        out = log_softmax_formula(x, self.dim) if x.size else x.copy()
        self.saved = (out,)
        return out

    def backward(self, grad):
        (y,) = self.saved
        return grad - math_of(y).exp(y) * _sum(grad, self.dim)


def _softmax_dim(name: str, input: Tensor, dim: int | None) -> int:
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
        warnings.warn(
            f"{name}: Implicit dimension choice for {name} has been deprecated. Change the call to "
            "include dim=X "
            f"as an argument (dim={dim} was taken).",
            stacklevel=3,
        )
    return normalize_dim(dim, input.ndim)


def _along(function: Callable[[int], Function], name: str, input: Tensor, dim: int | None, dtype: Any) -> Tensor:
    if dtype is not None:
        require_tensor(name, "input", input)
        input = cast(input, dtype)
    require_floating(name, input)
    dim = _softmax_dim(name, input, dim)
    if input.ndim == 0:
        return in_float32(function(0), input.reshape(1)).reshape(())
    return in_float32(function(dim), input)


def softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """exp(input) / Σ exp(input) along `dim`: positive numbers that sum to 1. `dtype` casts the input first.

    A slice of nothing but −inf gives NaN, as in PyTorch.

    >>> import shared
    >>> shared.softmax(shared.tensor([[0., 0.], [1000., -1000.]]), dim=1)
    tensor([[0.5000, 0.5000],
            [1.0000, 0.0000]])
    """
    return _along(Softmax, "softmax", input, dim, dtype)


def log_softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """log(softmax(input, dim)), without leaving the logarithm: large differences stay finite.

    >>> import shared
    >>> shared.log_softmax(shared.tensor([0., -10000.]), dim=0).tolist()
    [0.0, -10000.0]
    """
    return _along(LogSoftmax, "log_softmax", input, dim, dtype)


def softmin(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """softmax(−input)."""
    return softmax(-input, dim, dtype=dtype)
