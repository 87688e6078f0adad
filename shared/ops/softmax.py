"""Softmax and log-softmax, each with its own gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from shared.arrays.kernels import softmax as kernels
from shared.autograd import Function
from shared.ops import elementwise
from shared.ops.activation import in_float32, require_floating, require_tensor
from shared.ops.autocast import follows_autocast
from shared.ops.operands import cast
from shared.ops.shape import normalize_dim
from shared.tensor import Tensor


class Softmax(Function):
    """eˣ / Σ eˣ along a dimension; ∂yᵢ/∂xⱼ = yᵢ (δᵢⱼ − yⱼ)"""

    twice = True

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, x):
        out = kernels.softmax(x, self.dim) if x.size else x.copy()
        self.saved = (out,)
        return out

    def backward(self, grad):
        (y,) = self.saved
        if isinstance(grad, Tensor):
            return kernels.reference.softmax_gradient(y, grad, self.dim)
        return kernels.softmax_gradient(y, grad, self.dim)


class LogSoftmax(Function):
    """x − log Σ eˣ along a dimension; ∂yᵢ/∂xⱼ = δᵢⱼ − e^yⱼ"""

    twice = True

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, x):
        out = kernels.log_softmax(x, self.dim) if x.size else x.copy()
        self.saved = (out,)
        return out

    def backward(self, grad):
        (y,) = self.saved
        if isinstance(grad, Tensor):
            return kernels.reference.log_softmax_gradient(y, grad, self.dim, elementwise)
        return kernels.log_softmax_gradient(y, grad, self.dim)


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


@follows_autocast
def softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """exp(input) / Σ exp(input) along `dim`: positive numbers that sum to 1. `dtype` casts the input first.

    A slice of nothing but −inf gives NaN, as in PyTorch.

    >>> import shared
    >>> shared.softmax(shared.tensor([[0., 0.], [1000., -1000.]]), dim=1)
    tensor([[0.5000, 0.5000],
            [1.0000, 0.0000]])
    """
    return _along(Softmax, "softmax", input, dim, dtype)


@follows_autocast
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
