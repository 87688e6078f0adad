"""Softmax, log-softmax, the cross-entropy of logits, and their gradients; the formulas are in reference.py."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from shared.arrays.kernels import in_rows, select
from shared.arrays.kernels.softmax import reference

__all__ = [
    "cross_entropy",
    "cross_entropy_gradient",
    "log_softmax",
    "log_softmax_gradient",
    "softmax",
    "softmax_gradient",
]


def _prepared(dim: int, *arrays: Any) -> tuple[ModuleType, tuple[Any, ...]]:
    """Who computes, and on what: the compiled kernels want rows along the last dimension, and at least one element."""
    first = arrays[0]
    if dim not in (-1, first.ndim - 1) or not first.size:
        return reference, arrays
    arrays = tuple([in_rows(a) for a in arrays])
    return select("softmax", *arrays), arrays


def softmax(x: Any, dim: int) -> Any:
    """`reference.softmax`, in the shape of x."""
    kernels, (x,) = _prepared(dim, x)
    return kernels.softmax(x, dim)


def softmax_gradient(y: Any, grad: Any, dim: int) -> Any:
    """`reference.softmax_gradient`, of arrays."""
    kernels, (y, grad) = _prepared(dim, y, grad)
    return kernels.softmax_gradient(y, grad, dim)


def log_softmax(x: Any, dim: int) -> Any:
    """`reference.log_softmax`, in the shape of x."""
    kernels, (x,) = _prepared(dim, x)
    return kernels.log_softmax(x, dim)


def log_softmax_gradient(y: Any, grad: Any, dim: int) -> Any:
    """`reference.log_softmax_gradient`, of arrays."""
    kernels, (y, grad) = _prepared(dim, y, grad)
    return kernels.log_softmax_gradient(y, grad, dim)


def cross_entropy(logits: Any, target: Any) -> Any:
    """`reference.cross_entropy`: the loss of each row, (N,)."""
    kernels, (logits,) = _prepared(1, logits)
    return kernels.cross_entropy(logits, in_rows(target))


def cross_entropy_gradient(logits: Any, target: Any, grad: Any) -> Any:
    """`reference.cross_entropy_gradient`: (N, C)."""
    kernels, (logits,) = _prepared(1, logits)
    return kernels.cross_entropy_gradient(logits, in_rows(target), grad)
