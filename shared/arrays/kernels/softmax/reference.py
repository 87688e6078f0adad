"""Softmax, its logarithm and the cross-entropy of logits, each with its gradient, in plain array code.

Arrays are raw (NumPy's or CuPy's), of one floating dtype and device; no argument is changed.
"""

from __future__ import annotations

from typing import Any

from shared.arrays.device import xp

Array = Any  # numpy.ndarray or cupy.ndarray


def softmax(x: Array, dim: int) -> Array:
    """exp(x) / Σ exp(x) along `dim`; the maximum is taken out first: nothing can overflow.

    >>> import numpy as np
    >>> softmax(np.array([[0.0, 0.0], [1000.0, -1000.0]]), 1)
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    e = xp(x).exp(x - x.max(axis=dim, keepdims=True))
    e /= e.sum(axis=dim, keepdims=True)
    return e


def softmax_gradient(y: Array, grad: Array, dim: int) -> Array:
    """The gradient by x of y = softmax(x), from `grad`, the one by y; Tensors do as well as arrays.

        dx = y · (grad − Σ grad · y)

    since ∂yᵢ/∂xⱼ = yᵢ (δᵢⱼ − yⱼ).

    >>> import numpy as np
    >>> softmax_gradient(np.array([0.75, 0.25]), np.array([1.0, 0.0]), 0)
    array([ 0.1875, -0.1875])
    """
    return y * (grad - (grad * y).sum(axis=dim, keepdims=True))


def log_softmax(x: Array, dim: int) -> Array:
    """x − log Σ exp(x) along `dim` of a raw array: a new array of its shape and dtype, and x stays unchanged.

    Finite for finite x of any size: each row's maximum is taken out first, so that nothing can overflow and the sum
    is 1 or more, and softmax and logarithm are not computed apart, since a probability may round to 0.

    >>> import numpy as np
    >>> log_softmax(np.array([1000.0, 1000.0]), 0).round(4)
    array([-0.6931, -0.6931])
    """
    shifted = x - x.max(axis=dim, keepdims=True)
    total = xp(x).exp(shifted).sum(axis=dim, keepdims=True)
    shifted -= xp(x).log(total)
    return shifted


def log_softmax_gradient(y: Array, grad: Array, dim: int, math: Any = None) -> Array:
    """The gradient by x of y = log_softmax(x), from `grad`, the one by y: dx = grad − exp(y) · Σ grad.

    For Tensors, `math` is where their `exp` is found.
    """
    return grad - (math or xp(y)).exp(y) * grad.sum(axis=dim, keepdims=True)


def cross_entropy(logits: Array, target: Array) -> Array:
    """The loss of each row, −log softmax(logits)[target].

    logits (N, C) and target (N,), class numbers from 0 to C − 1, are raw arrays; returns the losses (N,) in the dtype
    of logits. Finite for finite logits of any size; logits stay unchanged.

    >>> import numpy as np
    >>> cross_entropy(np.array([[2.0, 1.0, 0.0]]), np.array([0])).round(4)
    array([0.4076])
    """
    log_probs = log_softmax(logits, 1)
    rows = xp(logits).arange(len(target))
    return -log_probs[rows, target]


def cross_entropy_gradient(logits: Array, target: Array, grad: Array) -> Array:
    """The gradient of the losses by the logits, (N, C): (softmax(logits) − one-hot target) · grad.

    logits (N, C) and target (N,) are those of `cross_entropy` and stay unchanged, so the result is a new array. grad is
    the gradient by the loss of each row: (N, 1), or one number for all of them. It carries the 1/N of a mean already,
    and whatever else was computed from the losses.

    >>> import numpy as np
    >>> cross_entropy_gradient(np.log(np.array([[0.5, 0.25, 0.25]])), np.array([0]), 1.0)
    array([[-0.5 ,  0.25,  0.25]])
    """
    probs = softmax(logits, 1)
    probs[xp(probs).arange(len(target)), target] -= 1
    probs *= grad
    return probs
