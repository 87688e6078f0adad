"""Activation functions and their gradients, in one pass; the formulas are in reference.py."""

from __future__ import annotations

from typing import Any

from shared.arrays.kernels import in_rows, select
from shared.arrays.kernels.activation import reference

__all__ = [
    "gelu",
    "gelu_input",
    "gelu_tanh",
    "gelu_tanh_input",
    "relu",
    "relu_input",
    "sigmoid",
    "sigmoid_input",
    "silu",
    "silu_input",
]


def _forward(name: str, x: Any) -> Any:
    x = in_rows(x)
    return getattr(select("activation", x), name)(x)


def _backward(name: str, grad: Any, other: Any, math: Any) -> Any:
    if math is not None:  # Tensors: a gradient that is itself to be differentiated
        return getattr(reference, name)(grad, other, math)
    grad, other = in_rows(grad), in_rows(other)
    return getattr(select("activation", grad, other), name)(grad, other)


def relu(x: Any) -> Any:
    """`reference.relu`."""
    return _forward("relu", x)


def relu_input(grad: Any, out: Any, math: Any = None) -> Any:
    """`reference.relu_input`."""
    return _backward("relu_input", grad, out, math)


def sigmoid(x: Any) -> Any:
    """`reference.sigmoid`."""
    return _forward("sigmoid", x)


def sigmoid_input(grad: Any, out: Any, math: Any = None) -> Any:
    """`reference.sigmoid_input`."""
    return _backward("sigmoid_input", grad, out, math)


def silu(x: Any) -> Any:
    """`reference.silu`."""
    return _forward("silu", x)


def silu_input(grad: Any, x: Any, math: Any = None) -> Any:
    """`reference.silu_input`."""
    return _backward("silu_input", grad, x, math)


def gelu(x: Any) -> Any:
    """`reference.gelu`."""
    return _forward("gelu", x)


def gelu_input(grad: Any, x: Any, math: Any = None) -> Any:
    """`reference.gelu_input`."""
    return _backward("gelu_input", grad, x, math)


def gelu_tanh(x: Any) -> Any:
    """`reference.gelu_tanh`."""
    return _forward("gelu_tanh", x)


def gelu_tanh_input(grad: Any, x: Any, math: Any = None) -> Any:
    """`reference.gelu_tanh_input`."""
    return _backward("gelu_tanh_input", grad, x, math)
