"""Activation functions on the GPU, forward and backward, one launch each. Formulas in reference.py."""

from __future__ import annotations

from typing import Any

from shared.arrays.device import xp
from shared.arrays.kernels.activation.reference import CUBIC, INV_SQRT_2_PI, SQRT_2, SQRT_2_OVER_PI
from shared.arrays.kernels.launch import Kernels

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

Array = Any  # cupy.ndarray

# For each function its value, and its gradient from g, the one by the result, and what backward keeps: x or the result.
_FUNCTIONS = (
    f"""
#define INV_SQRT_2 ((A){SQRT_2**-1!r})
#define INV_SQRT_2_PI ((A){INV_SQRT_2_PI!r})
#define TWICE_SQRT_2_OVER_PI ((A){2 * SQRT_2_OVER_PI!r})
#define CUBIC ((A){CUBIC!r})
"""
    r"""
__device__ inline A relu_of(A x) { return x > 0 || x != x ? x : 0; }
__device__ inline A relu_input_of(A g, A out) { return out <= 0 ? 0 : g; }

__device__ inline A sigmoid_of(A x) {
    A e = exp(-fabs(x));  // no power of e overflows
    return (x >= 0 ? 1 : e) / (1 + e);
}
__device__ inline A sigmoid_input_of(A g, A out) { return g * out * (1 - out); }

__device__ inline A silu_of(A x) { return x * sigmoid_of(x); }
__device__ inline A silu_input_of(A g, A x) {
    A s = sigmoid_of(x);
    return g * s * (1 + x * (1 - s));
}

__device__ inline A normal(A x) { return (A)0.5 * erfc(-x * INV_SQRT_2); }  // exact also where 1 + erf is nearly 0
__device__ inline A gelu_of(A x) { return x * normal(x); }
__device__ inline A gelu_input_of(A g, A x) { return g * (normal(x) + x * (exp(x * x * (A)-0.5) * INV_SQRT_2_PI)); }

__device__ inline A gelu_tanh_of(A x) { return x * sigmoid_of(TWICE_SQRT_2_OVER_PI * (x + CUBIC * (x * x * x))); }
__device__ inline A gelu_tanh_input_of(A g, A x) {
    A squared = x * x, s = sigmoid_of(TWICE_SQRT_2_OVER_PI * x * (1 + CUBIC * squared));
    return g * (s + x * s * (1 - s) * (TWICE_SQRT_2_OVER_PI * (1 + 3 * CUBIC * squared)));
}
"""
)

_PLAIN = r"""
extern "C" __global__ void forward_NAME(const T* x, T* out, long long size) {
    for (I i = first(); i < size; i += step()) out[i] = T(NAME_of((A)x[i]));
}
extern "C" __global__ void backward_NAME(const T* grad, const T* other, T* out, long long size) {
    for (I i = first(); i < size; i += step()) out[i] = T(NAME_input_of((A)grad[i], (A)other[i]));
}
"""
_NAMES = ("relu", "sigmoid", "silu", "gelu", "gelu_tanh")

kernels = Kernels(_FUNCTIONS + "".join(_PLAIN.replace("NAME", name) for name in _NAMES))


def _over(name: str, *arrays: Array) -> Array:
    """A kernel over the elements of its first argument."""
    first = arrays[0]
    out = xp(first).empty(first.shape, first.dtype)
    if first.size:
        kernels.over(first.size, name, first, *arrays, out)
    return out


def relu(x: Array) -> Array:
    """`reference.relu`."""
    return _over("forward_relu", x)


def relu_input(grad: Array, out: Array) -> Array:
    """`reference.relu_input`."""
    return _over("backward_relu", grad, out)


def sigmoid(x: Array) -> Array:
    """`reference.sigmoid`."""
    return _over("forward_sigmoid", x)


def sigmoid_input(grad: Array, out: Array) -> Array:
    """`reference.sigmoid_input`."""
    return _over("backward_sigmoid", grad, out)


def silu(x: Array) -> Array:
    """`reference.silu`."""
    return _over("forward_silu", x)


def silu_input(grad: Array, x: Array) -> Array:
    """`reference.silu_input`."""
    return _over("backward_silu", grad, x)


def gelu(x: Array) -> Array:
    """`reference.gelu`."""
    return _over("forward_gelu", x)


def gelu_input(grad: Array, x: Array) -> Array:
    """`reference.gelu_input`."""
    return _over("backward_gelu", grad, x)


def gelu_tanh(x: Array) -> Array:
    """`reference.gelu_tanh`."""
    return _over("forward_gelu_tanh", x)


def gelu_tanh_input(grad: Array, x: Array) -> Array:
    """`reference.gelu_tanh_input`."""
    return _over("backward_gelu_tanh", grad, x)
