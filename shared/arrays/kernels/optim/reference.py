"""The update of one parameter by each optimizer, in plain array code and in place.

`param`, `grad` and the state arrays (`buf`, `exp_avg`, …) are raw arrays of one shape (which may be (), a single
number), floating dtype and device; everything after `*` is a Python number. `grad` is never written to. In the
formulas p is the parameter, g its gradient, η the learning rate, λ the weight decay and t the step, counted from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.arrays.device import xp

Array = Any  # numpy.ndarray or cupy.ndarray


def sgd(
    param: Array,
    grad: Array,
    buf: Array | None,
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """Gradient descent with momentum, in place; `buf` is the velocity b, None where `momentum` is 0.

    g ← g + λ p
    b ← μ b + (1 − d) g
    p ← p − η b                  or, with Nesterov's look-ahead, p ← p − η (g + μ b)

    λ is `weight_decay`, μ `momentum`, d `dampening`. Without `buf` there is no second line, and p ← p − η g.
    The arrays `param` and `buf` themselves are changed, and `grad` is not. η, which a schedule may change from step
    to step, stays out of b. The first step has b = g: the caller passes zeros as `buf` and no dampening.
    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013,
    equations 1–4, in PyTorch's form, which keeps η out of the velocity.

    >>> import numpy as np
    >>> p = np.array([1.0, 2.0]); sgd(p, np.array([0.5, -1.0]), None, lr=0.1, momentum=0, dampening=0,
    ...                               weight_decay=0, nesterov=False); p
    array([0.95, 2.1 ])
    """
    if weight_decay:
        grad = grad + weight_decay * param
    if buf is not None:
        buf *= momentum
        buf += (1 - dampening) * grad
        grad = grad + momentum * buf if nesterov else buf
    param -= lr * grad


def adam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
) -> None:
    """Adam, and AdamW where the weight decay is `decoupled`; `step` counts from 1.

    p ← p − η λ p                decoupled, or else g ← g + λ p
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − η · m̂ / (√v̂ + ε)     with m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ)

    Source: Kingma and Ba, "Adam", 2015, algorithm 1; Loshchilov and Hutter, "Decoupled weight decay
    regularization", 2019, algorithm 2 (with the decay scaled by η, as PyTorch has it).

    >>> import numpy as np
    >>> p, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> adam(p, np.array([0.25]), m, v, lr=0.1, beta1=0.9, beta2=0.999, eps=0.0, weight_decay=0.0,
    ...      decoupled=False, step=1)
    >>> p.round(12)                              # the first step is the learning rate times the sign
    array([0.9])
    """
    grad = _decay(param, grad, lr, weight_decay, decoupled)
    update_moments(grad, exp_avg, exp_avg_sq, beta1, beta2)
    adam_step(param, exp_avg, exp_avg_sq, lr, beta1, beta2, eps, step)


def amsgrad(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
) -> None:
    """Adam that divides by the largest v seen so far, so that a step size never grows again.

    v_max ← max(v_max, v)
    p ← p − η · m̂ / (√(v_max / (1 − β₂ᵗ)) + ε)

    Source: Reddi, Kale and Kumar, "On the convergence of Adam and beyond", 2018, algorithm 2.
    """
    grad = _decay(param, grad, lr, weight_decay, decoupled)
    update_moments(grad, exp_avg, exp_avg_sq, beta1, beta2)
    max_exp_avg_sq[...] = xp(param).maximum(max_exp_avg_sq, exp_avg_sq)
    adam_step(param, exp_avg, max_exp_avg_sq, lr, beta1, beta2, eps, step)


def _decay(param: Array, grad: Array, lr: float, weight_decay: float, decoupled: bool) -> Array:
    """Shrinks the parameter itself (decoupled), or returns the gradient with the penalty's added."""
    if not weight_decay:
        return grad
    if not decoupled:
        return grad + weight_decay * param
    param *= 1 - lr * weight_decay
    return grad


def update_moments(grad: Array, exp_avg: Array, exp_avg_sq: Array, beta1: float, beta2: float) -> None:
    """m ← β₁ m + (1 − β₁) g and v ← β₂ v + (1 − β₂) g²: the running means of the gradient and of its square.

    m is the array `exp_avg`, v the array `exp_avg_sq`; both are changed in place, and `grad` is not.

    >>> import numpy as np
    >>> m, v = np.array([1.0]), np.array([1.0])
    >>> update_moments(np.array([3.0]), m, v, beta1=0.5, beta2=0.75); m, v
    (array([2.]), array([3.]))
    """
    exp_avg *= beta1
    exp_avg += (1 - beta1) * grad
    exp_avg_sq *= beta2
    square = grad * grad
    square *= 1 - beta2
    exp_avg_sq += square


def adam_step(
    param: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """p ← p − η m̂ / (√v̂ + ε), with m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ); t is `step`, from 1.

    m is the array `exp_avg`, v the array `exp_avg_sq`, both as `update_moments` left them. `param` is changed in
    place, m and v are not: they are the running means that the next step goes on with.

    >>> import numpy as np
    >>> p = np.array([1.0, 1.0])
    >>> adam_step(p, np.array([0.2, -0.5]), np.array([0.04, 0.25]), lr=0.1, beta1=0.0, beta2=0.0, eps=0.0, step=1)
    >>> p                                        # with no memory at all, a step of ±η
    array([0.9, 1.1])
    """
    # Both corrections are applied to numbers, which costs nothing, and not to whole arrays.
    update = xp(param).sqrt(exp_avg_sq)
    update *= 1 / (1 - beta2**step) ** 0.5
    update += eps
    update = exp_avg / update
    update *= lr / (1 - beta1**step)
    param -= update


def rmsprop(
    param: Array,
    grad: Array,
    square_avg: Array,
    grad_avg: Array | None,
    buf: Array | None,
    *,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
) -> None:
    """RMSprop, in place; centred where `grad_avg` is given, with momentum where `buf` is.

    g ← g + λ p
    v ← α v + (1 − α) g²
    a ← α a + (1 − α) g          centred only
    d = √v + ε                   or, centred, √(v − a²) + ε
    p ← p − η g / d              or, with momentum, b ← μ b + g / d and p ← p − η b

    v is the array `square_avg`, a `grad_avg` or None, b `buf` or None, λ `weight_decay`, μ `momentum`. `param` and
    the arrays that are given are changed themselves, and `grad` is not. ε, `eps`, stands outside the root, and η,
    which a schedule may change from step to step, outside b.

    Source: Tieleman and Hinton, "Neural networks for machine learning", lecture 6e, 2012; centred: Graves,
    "Generating sequences with recurrent neural networks", 2013, equations 38–45, with ε outside the root.
    """
    if weight_decay:
        grad = grad + weight_decay * param
    square_avg *= alpha
    square_avg += (1 - alpha) * grad * grad
    scale = square_avg
    if grad_avg is not None:
        grad_avg *= alpha
        grad_avg += (1 - alpha) * grad
        scale = square_avg - grad_avg * grad_avg
    scale = xp(param).sqrt(scale)
    scale += eps
    if buf is None:
        param -= lr * grad / scale
    else:
        buf *= momentum
        buf += grad / scale
        param -= lr * buf


def adagrad(
    param: Array,
    grad: Array,
    sum_sq: Array,
    *,
    lr: float,
    lr_decay: float,
    weight_decay: float,
    eps: float,
    step: int,
) -> None:
    """Adagrad: each coordinate is divided by the root of all its squared gradients so far.

    g ← g + λ p
    s ← s + g²
    p ← p − η / (1 + (t − 1) · decay) · g / (√s + ε)

    Source: Duchi, Hazan and Singer, "Adaptive subgradient methods", 2011, figure 1 (diagonal form).
    """
    if weight_decay:
        grad = grad + weight_decay * param
    sum_sq += grad * grad
    scale = xp(param).sqrt(sum_sq)
    scale += eps
    param -= lr / (1 + (step - 1) * lr_decay) * grad / scale


def adadelta(
    param: Array,
    grad: Array,
    square_avg: Array,
    acc_delta: Array,
    *,
    lr: float,
    rho: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Adadelta: the step has the parameter's units, from a running mean of earlier steps u.

    g ← g + λ p
    v ← ρ v + (1 − ρ) g²
    u = √(δ + ε) / √(v + ε) · g
    δ ← ρ δ + (1 − ρ) u²
    p ← p − η u

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.
    """
    if weight_decay:
        grad = grad + weight_decay * param
    square_avg *= rho
    square_avg += (1 - rho) * grad * grad
    update = xp(param).sqrt((acc_delta + eps) / (square_avg + eps))
    update *= grad
    acc_delta *= rho
    acc_delta += (1 - rho) * update * update
    param -= lr * update


# ---------------------------------------------------------------- the gradients' norm


def squares(arrays: Sequence[Array]) -> Array:
    """The sum of the squares of each array, float64 (n,): in float32, squares from 1e19 on would be infinite.

    >>> import numpy as np
    >>> squares([np.array([3.0, 4.0], "float32"), np.array([[1.0]])])
    array([25.,  1.])
    """
    wide = [a.astype("float64").reshape(-1) for a in arrays]
    return xp(arrays[0]).stack([a @ a for a in wide])


def scale_all(arrays: Sequence[Array], factor: float) -> None:
    """Multiplies every array by the number `factor`, in place.

    >>> import numpy as np
    >>> x = np.array([1.0, 2.0]); scale_all([x], 0.5); x
    array([0.5, 1. ])
    """
    for array in arrays:
        array *= factor
