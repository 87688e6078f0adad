"""Normalisation in plain array code: subtract a mean, divide by a standard deviation, scale and shift.

    x̂ = (x − μ) · inv_std        inv_std = 1 / √(σ² + ε)        out = weight · x̂ + bias

The kinds differ in the elements that share μ and σ². Batch norm: a channel of all images; x is (N, C, L), images,
channels, and positions in one dimension. Layer norm: a row; x is (R, D). Group norm: some channels of one image.
Variances are biased here, the mean square of the deviations. weight and bias may be None: 1 and 0.

The functions are written in operators that arrays and Tensors share, but for `update_running`.

Source: Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1 and section 3; Ba, Kiros and Hinton, "Layer
Normalization", 2016; Wu and He, "Group Normalization", 2018; Zhang and Sennrich, "Root Mean Square Layer
Normalization", 2019.
"""

from __future__ import annotations

from typing import Any

Array = Any  # numpy.ndarray or cupy.ndarray; a Tensor where a gradient is to be differentiated itself


def inverse_std(variance: Array, eps: float) -> Array:
    """1 / √(variance + eps): what deviations are multiplied by; eps keeps it finite where nothing varies."""
    return (variance + eps) ** -0.5


def scale_and_shift(normalized: Array, weight: Array | None, bias: Array | None) -> Array:
    """weight · normalized + bias, in shapes that broadcast; either may be None."""
    scaled = normalized if weight is None else normalized * weight
    return scaled if bias is None else scaled + bias


def per_channel(values: Array | None) -> Array | None:
    """(C,) → (C, 1), so that it stands beside the channels of (N, C, L)."""
    return None if values is None else values[:, None]


# ---------------------------------------------------------------- batch norm


def channel_moments(x: Array) -> tuple[Array, Array]:
    """The mean and the biased variance of every channel, over all images and positions: (N, C, L) → (C,), (C,).

    x may be a Tensor: operators and methods that both have, no functions of NumPy. Mind that a Tensor's own `var` is
    the unbiased one, where an array's is the biased.

    >>> import numpy as np
    >>> channel_moments(np.array([[[-1.0, 5.0], [0.0, 1.0]], [[1.0, 3.0], [2.0, 3.0]]]))
    (array([2. , 1.5]), array([5.  , 1.25]))
    """
    mean = x.mean(axis=(0, 2))
    deviation = x - per_channel(mean)
    return mean, (deviation * deviation).mean(axis=(0, 2))


def normalize_channels(
    x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None, eps: float
) -> Array:
    """weight · (x − mean) / √(variance + eps) + bias for every channel: (N, C, L) and four times (C,) → (N, C, L).

    In training with the moments of the batch, in evaluation with the running ones. `weight` and `bias` may be None, 1
    and 0; all arguments but `eps` may be Tensors: operators, and methods that both have.
    """
    normalized = (x - per_channel(mean)) * per_channel(inverse_std(variance, eps))
    return scale_and_shift(normalized, per_channel(weight), per_channel(bias))


def batch_norm(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """x (N, C, L), normalised by its own moments, scaled and shifted → (out, mean (C,), variance (C,)).

    >>> import numpy as np
    >>> out, mean, variance = batch_norm(np.array([[[-1.0, 5.0]], [[1.0, 3.0]]]), None, None, 0.0)
    >>> out.ravel().round(4), mean, variance
    (array([-1.3416,  1.3416, -0.4472,  0.4472]), array([2.]), array([5.]))
    """
    mean, variance = channel_moments(x)
    return normalize_channels(x, mean, variance, weight, bias, eps), mean, variance


def unbiased(variance: Array, count: int) -> Array:
    """The estimate for all data from the biased variance of `count` values, which is too small on average.

    The biased variance divides the sum of squared deviations by `count`, the unbiased one by one less.

    >>> import numpy as np
    >>> unbiased(np.array([6.0]), 4)        # 24 / 4 and 24 / 3
    array([8.])
    """
    return variance * (count / (count - 1))


def update_running(running: Array, batch: Array, momentum: float) -> None:
    """Moves `running` towards `batch`, in place. `momentum` is the share of the new in the result, as in PyTorch.

    >>> import numpy as np
    >>> running = np.array([0.0])
    >>> update_running(running, np.array([2.0]), 0.1)
    >>> running
    array([0.2])
    """
    running[...] = (1 - momentum) * running + momentum * batch


def batch_norm_input(
    grad: Array, x: Array, mean: Array, inv_std: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """The gradients of `batch_norm` by x, weight and bias, from that of its result: (N, C, L), (C,) and (C,).

    Each element of x moves its own x̂, and through the mean and the variance those of its whole channel. The gradient
    by x is all three ways together.

    - `grad` (N, C, L)
    - `x` (N, C, L) as it was given to `batch_norm`, `mean` its means (C,), `inv_std` 1 / √(variance + eps) (C,)
    - `weight` (C,) or None for 1; the gradients by weight and bias are returned in any case

    All of them may be Tensors, where this gradient is to be differentiated again.
    """
    # With g = weight · grad, the gradient by x̂, and n = N · L the number of values that share a mean,
    #     dx = inv_std / n · (n · g − Σ g − x̂ · Σ (g · x̂)):
    # the first sum because every element moves the mean, the second because it moves the variance. weight is the same
    # for a whole channel, so the sums are weight times the gradients by bias and by weight.
    normalized = (x - per_channel(mean)) * per_channel(inv_std)
    to_weight = (grad * normalized).sum(axis=(0, 2))
    to_bias = grad.sum(axis=(0, 2))
    n = x.shape[0] * x.shape[2]
    centred = grad - per_channel(to_bias / n) - normalized * per_channel(to_weight / n)
    slope = inv_std if weight is None else weight * inv_std
    return centred * per_channel(slope), to_weight, to_bias


def normalize_channels_input(
    grad: Array, x: Array, mean: Array, inv_std: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """The gradients of `normalize_channels` by x, weight and bias, the moments being constants: evaluation.

    Arguments and results as those of `batch_norm_input`, `mean` and `inv_std` now of the running moments.
    """
    normalized = (x - per_channel(mean)) * per_channel(inv_std)
    slope = inv_std if weight is None else weight * inv_std
    return grad * per_channel(slope), (grad * normalized).sum(axis=(0, 2)), grad.sum(axis=(0, 2))


# ---------------------------------------------------------------- rows: layer norm


def row_moments(x: Array) -> tuple[Array, Array]:
    """The mean and the biased variance of every row: (R, D) → (R, 1), (R, 1), in the dtype of x.

    x may be a Tensor: operators and methods that both have, no functions of NumPy. Mind that a Tensor's own `var` is
    the unbiased one, where an array's is the biased.

    >>> import numpy as np
    >>> row_moments(np.array([[-1.0, 5.0, 1.0, 3.0]]))
    (array([[2.]]), array([[5.]]))
    """
    mean = x.mean(axis=1, keepdims=True)
    deviation = x - mean
    return mean, (deviation * deviation).mean(axis=1, keepdims=True)


def layer_norm(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """Every row of x (R, D), normalised by its own moments, scaled and shifted → (out, mean, inv_std).

    out = weight · (x − mean) / √(variance + eps) + bias, (R, D); mean (R, 1); inv_std = 1 / √(variance + eps), (R, 1).
    weight and bias are (D,), the same for every row, or None, which stands for 1 and 0.

    >>> import numpy as np
    >>> out, mean, inv_std = layer_norm(np.array([[-1.0, 5.0, 1.0, 3.0]]), None, None, 0.0)
    >>> out.round(4), mean, 1 / inv_std**2
    (array([[-1.3416,  1.3416, -0.4472,  0.4472]]), array([[2.]]), array([[5.]]))
    """
    mean, variance = row_moments(x)
    inv_std = inverse_std(variance, eps)
    return scale_and_shift((x - mean) * inv_std, weight, bias), mean, inv_std


def normalize_rows_input(to_normalized: Array, normalized: Array, inv_std: Array) -> Array:
    """The gradient by x of x̂ = (x − μ) · inv_std, where each row has its own μ and inv_std, from the gradient by x̂.

    Each element of x moves its own x̂, and through the mean and the standard deviation those of its whole row. The
    gradient by x, of its shape, is all three ways together.

    - `to_normalized` (R, D), the gradient by x̂
    - `normalized` (R, D), x̂ itself
    - `inv_std` (R, 1), 1 / √(variance + eps)

    All of them may be Tensors, where this gradient is to be differentiated again.
    """
    # With g the gradient by x̂: dx = inv_std · (g − mean(g) − x̂ · mean(g · x̂)), means along the row.
    along_mean = to_normalized.mean(axis=1, keepdims=True)
    along_std = (to_normalized * normalized).mean(axis=1, keepdims=True)
    return inv_std * (to_normalized - along_mean - normalized * along_std)


def layer_norm_input(
    grad: Array, x: Array, mean: Array, inv_std: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """The gradients of `layer_norm` by x, weight and bias, from that of its result: (R, D), (D,) and (D,).

    - `grad` (R, D)
    - `x` (R, D) as it was given to `layer_norm`, `mean` and `inv_std` (R, 1) as it returned them
    - `weight` (D,) or None for 1; the gradients by weight and bias are returned in any case

    All of them may be Tensors, where this gradient is to be differentiated again.
    """
    normalized = (x - mean) * inv_std
    to_normalized = grad if weight is None else grad * weight
    to_x = normalize_rows_input(to_normalized, normalized, inv_std)
    return to_x, (grad * normalized).sum(axis=0), grad.sum(axis=0)


def rms_norm(x: Array, weight: Array | None, eps: float) -> tuple[Array, Array]:
    """Every row of x (R, D) divided by the root of its mean square, times weight (D,) → (out, inv_rms).

    Layer norm without the mean, and without a bias: out = weight · x · inv_rms, (R, D), with inv_rms = 1 / √(mean of
    the squares + eps), (R, 1). weight may be None for 1.

    >>> import numpy as np
    >>> rms_norm(np.array([[1.0, -7.0]]), None, 0.0)
    (array([[ 0.2, -1.4]]), array([[0.2]]))
    """
    inv_rms = inverse_std((x * x).mean(axis=1, keepdims=True), eps)
    return scale_and_shift(x * inv_rms, weight, None), inv_rms


def rms_norm_input(grad: Array, x: Array, inv_rms: Array, weight: Array | None) -> tuple[Array, Array]:
    """The gradients of `rms_norm` by x and weight, from that of its result (R, D): (R, D) and (D,).

    `x` (R, D) is what `rms_norm` was given, `inv_rms` (R, 1) what it returned; `weight` is (D,), or None for 1, and yet
    its gradient is returned. All may be Tensors, where this gradient is to be differentiated again.
    """
    # As in `normalize_rows_input`, without the mean: dx = inv_rms · (g − x̂ · mean(g · x̂)).
    normalized = x * inv_rms
    to_normalized = grad if weight is None else grad * weight
    along_rms = (to_normalized * normalized).mean(axis=1, keepdims=True)
    return inv_rms * (to_normalized - normalized * along_rms), (grad * normalized).sum(axis=0)


# ---------------------------------------------------------------- group norm


def group_norm(
    x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """Each image's channels, in `groups` of equal size, normalised together → (out, mean, variance (N · groups, 1)).

    x (N, C, L), weight and bias (C,). One group: all of an image; as many groups as channels: instance norm.
    """
    rows = x.reshape(x.shape[0] * groups, x.shape[1] // groups * x.shape[2])
    mean, variance = row_moments(rows)
    normalized = ((rows - mean) * inverse_std(variance, eps)).reshape(x.shape)
    return scale_and_shift(normalized, per_channel(weight), per_channel(bias)), mean, variance


def group_norm_input(
    grad: Array, x: Array, groups: int, mean: Array, inv_std: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """The gradients of `group_norm` by x, weight and bias, from that of its result: (N, C, L), (C,) and (C,)."""
    rows = x.shape[0] * groups, x.shape[1] // groups * x.shape[2]
    normalized = (x.reshape(rows) - mean) * inv_std
    to_normalized = grad if weight is None else grad * per_channel(weight)
    to_x = normalize_rows_input(to_normalized.reshape(rows), normalized, inv_std)
    to_weight = (grad * normalized.reshape(x.shape)).sum(axis=(0, 2))
    return to_x.reshape(x.shape), to_weight, grad.sum(axis=(0, 2))
