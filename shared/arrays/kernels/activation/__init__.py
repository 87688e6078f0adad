"""Activation functions and their gradients, in one pass; the formulas are in reference.py."""

from __future__ import annotations

from typing import Any

from shared.arrays.kernels import in_rows, select
from shared.arrays.kernels.activation import reference

__all__ = [
    "biased",
    "biased_input",
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


def biased(kind: str, x: Any, bias: Any) -> Any:
    """`reference.biased`."""
    x, bias = in_rows(x), in_rows(bias)
    kernels = select("activation", x, bias) if x.shape[-1:] == bias.shape else reference
    return kernels.biased(kind, x, bias)


def biased_input(kind: str, grad: Any, x: Any, bias: Any, math: Any = None) -> Any:
    """`reference.biased_input`."""
    if math is not None:
        return reference.biased_input(kind, grad, x, bias, math)
    grad, x, bias = in_rows(grad), in_rows(x), in_rows(bias)
    kernels = select("activation", grad, x, bias) if x.shape[-1:] == bias.shape else reference
    return kernels.biased_input(kind, grad, x, bias)
