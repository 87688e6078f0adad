"""Activation functions and their gradients, in plain array code, element by element.

`x` is the input, `out` the result, `grad` the gradient by the result. The gradients are written in operators: where a
gradient of the gradient is asked for, they are given Tensors, and `math`, the module that has `exp`, `erf`, `where` …
for those; for arrays it is None.
"""

from __future__ import annotations

import math as numbers
from typing import Any

from shared.arrays.device import special, xp

Array = Any  # numpy.ndarray or cupy.ndarray; in the gradients also Tensor

SQRT_2 = numbers.sqrt(2)
SQRT_2_OVER_PI = numbers.sqrt(2 / numbers.pi)
INV_SQRT_2_PI = 1 / numbers.sqrt(2 * numbers.pi)
CUBIC = 0.044715  # GPT-2's


def relu(x: Array) -> Array:
    """max(x, 0)

    >>> import numpy as np
    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return xp(x).maximum(x, 0)


def relu_input(grad: Array, out: Array, math: Any = None) -> Array:
    """The gradient by x: `grad` where max(x, 0), which is `out`, is above 0 or NaN; the slope at 0 is taken as 0."""
    return (math or xp(grad)).where(out <= 0, 0, grad)


def sigmoid(x: Array) -> Array:
    """σ(x) = 1 / (1 + e⁻ˣ), for negative x as eˣ / (1 + eˣ): no power of e overflows, and small results stay exact.

    >>> import numpy as np
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    e = xp(x).exp(-abs(x))
    return xp(x).where(x >= 0, e.dtype.type(1), e) / (1 + e)


def sigmoid_input(grad: Array, out: Array, math: Any = None) -> Array:
    """The gradient by x: σ′ = σ (1 − σ), and `out` is σ(x)."""
    return grad * out * (1 - out)


def silu(x: Array) -> Array:
    """x · σ(x), also called Swish"""
    return x * sigmoid(x)


def silu_input(grad: Array, x: Array, math: Any = None) -> Array:
    """The gradient by x: σ + x σ (1 − σ)."""
    s = _sigmoid(x, math)
    return grad * s * (1 + x * (1 - s))


def gelu(x: Array) -> Array:
    """x · Φ(x), where Φ is the normal distribution function"""
    return x * _normal_cdf(x, None)


def gelu_input(grad: Array, x: Array, math: Any = None) -> Array:
    """The gradient by x: Φ + x φ, φ(x) = e^(−x²/2) / √(2π) being the normal distribution's density."""
    density = (math or xp(x)).exp(x * x * -0.5) * INV_SQRT_2_PI
    return grad * (_normal_cdf(x, math) + x * density)


def _normal_cdf(x: Array, math: Any) -> Array:
    return 0.5 * (1 + (math or special(x)).erf(x / SQRT_2))


def gelu_tanh(x: Array) -> Array:
    """x/2 · (1 + tanh u) = x · σ(2u) with u = √(2/π) · (x + 0.044715 x³), GPT-2's approximation of GELU"""
    return x * sigmoid(2 * SQRT_2_OVER_PI * (x + CUBIC * (x * x * x)))


def gelu_tanh_input(grad: Array, x: Array, math: Any = None) -> Array:
    """The gradient by x: σ + x σ (1 − σ) · 2u′ with σ = σ(2u)."""
    squared = x * x
    s = _sigmoid(2 * SQRT_2_OVER_PI * x * (1 + CUBIC * squared), math)
    slope = 2 * SQRT_2_OVER_PI * (1 + 3 * CUBIC * squared)
    return grad * (s + x * s * (1 - s) * slope)


def _sigmoid(x: Array, math: Any) -> Array:
    return math.sigmoid(x) if math else sigmoid(x)
