"""Normalisation: over a batch, over rows, over groups of channels; shared/arrays/kernels/norm has the formulas.

The Functions hand gradients to the kernels or, where those are Tensors and to be differentiated themselves, to the
formulas; what the moments are, which then has a history too, is computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.arrays.kernels import norm as kernels
from shared.arrays.kernels.norm import reference as formulas
from shared.autograd import Function
from shared.ops.activation import in_float32, require_floating
from shared.ops.arithmetic import pow
from shared.ops.autocast import follows_autocast
from shared.ops.inplace import require_writable
from shared.ops.operands import cast
from shared.ops.pool import avg_pool2d
from shared.ops.shape import pad
from shared.tensor import Tensor


class _Norm(Function):
    """What the kinds share: x, perhaps weight and bias in; as many gradients out."""

    twice = True

    def _wanted(self, *grads: Any) -> tuple:
        return tuple([grad if need else None for grad, need in zip(grads, self.needs, strict=False)])


def _channels(x: Any) -> tuple[int, int, int]:
    """(N, C, L): the shape of (N, C, *size) with its positions in one dimension."""
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


class BatchNorm(_Norm):
    """(x − μ) / √(σ² + ε) · weight + bias, with the moments of each channel of the batch"""

    def __init__(self, eps: float):
        self.eps = eps

    def forward(self, x, weight=None, bias=None):
        """(N, C, *size), (C,) and (C,) → (N, C, *size); the moments (C,) stay in `mean` and `variance`."""
        rows = x.reshape(_channels(x))
        out, self.mean, self.variance = kernels.batch_norm(rows, weight, bias, self.eps)
        self.saved = (x, weight, self.mean, kernels.inverse_std(self.variance, self.eps)) if any(self.needs) else ()
        return out.reshape(x.shape)

    def backward(self, grad):
        x, weight, mean, inv_std = self.saved
        module, rows = kernels, x.reshape(_channels(x))
        if isinstance(grad, Tensor):
            module, (mean, variance) = formulas, formulas.channel_moments(rows)
            inv_std = formulas.inverse_std(variance, self.eps)
        to_x, *others = module.batch_norm_input(grad.reshape(rows.shape), rows, mean, inv_std, weight)
        return self._wanted(to_x.reshape(x.shape), *others)


class NormalizeChannels(_Norm):
    """(x − μ) / √(σ² + ε) · weight + bias, with moments that are given"""

    def __init__(self, mean: Any, variance: Any, eps: float):
        self.mean, self.variance, self.eps = mean, variance, eps

    def forward(self, x, weight=None, bias=None):
        mean, variance = (a.astype(x.dtype) for a in (self.mean, self.variance))  # copies: training may change them
        rows = x.reshape(_channels(x))
        out = kernels.normalize_channels(rows, mean, variance, weight, bias, self.eps)
        self.saved = (x, weight, mean, kernels.inverse_std(variance, self.eps)) if any(self.needs) else ()
        return out.reshape(x.shape)

    def backward(self, grad):
        x, weight, mean, inv_std = self.saved
        module = formulas if isinstance(grad, Tensor) else kernels
        rows = x.reshape(_channels(x))
        to_x, *others = module.normalize_channels_input(grad.reshape(rows.shape), rows, mean, inv_std, weight)
        return self._wanted(to_x.reshape(x.shape), *others)


class GroupNorm(_Norm):
    """(x − μ) / √(σ² + ε) · weight + bias, with the moments of some channels of each image"""

    def __init__(self, groups: int, eps: float):
        self.groups, self.eps = groups, eps

    def forward(self, x, weight=None, bias=None):
        """(N, C, *size), (C,) and (C,) → (N, C, *size); the moments (N · groups, 1) stay in `mean`, `variance`."""
        rows = x.reshape(_channels(x))
        out, self.mean, self.variance = kernels.group_norm(rows, self.groups, weight, bias, self.eps)
        self.saved = (x, weight, self.mean, kernels.inverse_std(self.variance, self.eps)) if any(self.needs) else ()
        return out.reshape(x.shape)

    def backward(self, grad):
        x, weight, mean, inv_std = self.saved
        module, rows = kernels, x.reshape(_channels(x))
        if isinstance(grad, Tensor):
            groups = rows.shape[0] * self.groups, rows.shape[1] // self.groups * rows.shape[2]
            module, (mean, variance) = formulas, formulas.row_moments(x.reshape(groups))
            inv_std = formulas.inverse_std(variance, self.eps)
        to_x, *others = module.group_norm_input(grad.reshape(rows.shape), rows, self.groups, mean, inv_std, weight)
        return self._wanted(to_x.reshape(x.shape), *others)


class LayerNorm(_Norm):
    """(x − μ) / √(σ² + ε) · weight + bias, with the moments of each row of `width` elements"""

    def __init__(self, width: int, eps: float):
        self.width, self.eps = width, eps

    def forward(self, x, weight=None, bias=None):
        weight_row, bias_row = (None if a is None else a.reshape(self.width) for a in (weight, bias))
        out, mean, inv_std = kernels.layer_norm(x.reshape(-1, self.width), weight_row, bias_row, self.eps)
        self.saved = (x, weight, mean, inv_std) if any(self.needs) else ()
        return out.reshape(x.shape)

    def backward(self, grad):
        x, weight, mean, inv_std = self.saved
        module, rows = kernels, x.reshape(-1, self.width)
        if isinstance(grad, Tensor):
            module, (mean, variance) = formulas, formulas.row_moments(rows)
            inv_std = formulas.inverse_std(variance, self.eps)
        weight_row = None if weight is None else weight.reshape(self.width)
        to_x, *others = module.layer_norm_input(grad.reshape(rows.shape), rows, mean, inv_std, weight_row)
        if weight is not None:
            others = [other.reshape(weight.shape) for other in others]
        return self._wanted(to_x.reshape(x.shape), *others)


class RMSNorm(_Norm):
    """x / √(mean of x² + ε) · weight, for each row of `width` elements"""

    def __init__(self, width: int, eps: float):
        self.width, self.eps = width, eps

    def forward(self, x, weight=None):
        weight_row = None if weight is None else weight.reshape(self.width)
        out, inv_rms = kernels.rms_norm(x.reshape(-1, self.width), weight_row, self.eps)
        self.saved = (x, weight, inv_rms) if any(self.needs) else ()
        return out.reshape(x.shape)

    def backward(self, grad):
        x, weight, inv_rms = self.saved
        module, rows = kernels, x.reshape(-1, self.width)
        if isinstance(grad, Tensor):
            module = formulas
            inv_rms = formulas.inverse_std((rows * rows).mean(axis=1, keepdims=True), self.eps)
        weight_row = None if weight is None else weight.reshape(self.width)
        to_x, to_weight = module.rms_norm_input(grad.reshape(rows.shape), rows, inv_rms, weight_row)
        if weight is not None:
            to_weight = to_weight.reshape(weight.shape)
        return self._wanted(to_x.reshape(x.shape), to_weight)


# ---------------------------------------------------------------- checks


def _require_dtypes(name: str, input: Tensor, *others: Tensor | None) -> None:
    """The others have the input's dtype; beside float16 or bfloat16 they may be float32 too."""
    for other in others:
        if other is None or other.array.dtype == input.array.dtype:
            continue
        if input.array.dtype.itemsize < 4 and other.array.dtype == dtypes.float32:
            continue
        raise RuntimeError(
            f"{name}: mixed dtypes: expected weight, bias and running statistics of the input's dtype "
            f"{input.array.dtype.name}, but got {other.array.dtype.name}"
        )


def _require_size(name: str, channels: int, **vectors: Tensor | None) -> None:
    for what, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != (channels,):
            raise RuntimeError(f"{name}: {what} should contain {channels} elements not {vector.numel()}")


def _require_several(size: Sequence[int]) -> None:
    """A mean of one value is that value, and the result 0 whatever it was."""
    if math.prod(size) == size[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(size)}")


def _applied(function: Function, input: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """`function` of what is given, float16 and bfloat16 in float32; a bias without a weight has weights of 1."""
    if weight is None and bias is not None:
        weight = Tensor(xp(bias.array).ones_like(bias.array))
    return in_float32(function, *[x for x in (input, weight, bias) if x is not None])


def _of_nothing(input: Tensor, weight: Tensor | None, bias: Tensor | None, dims: int) -> Tensor:
    """An input without elements, with parameters of `dims` dimensions after their own: gradients of 0 reach them."""
    weight, bias = (None if v is None else v.reshape(*v.shape, *[1] * dims) for v in (weight, bias))
    return cast(formulas.scale_and_shift(input, weight, bias), input.array.dtype)


def _update(running: Tensor, batch: Any, momentum: float) -> None:
    require_writable(running)
    kernels.update_running(running.array, batch, momentum)
    running._version[0] += 1


# ---------------------------------------------------------------- the public functions


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(variance + eps) · weight + bias, channel by channel of input (N, C) or (N, C, *size).

    With `training` the mean and the biased variance are those of the channel over images and positions, and
    `running_mean`, `running_var` (C,), if given, move towards them in place: running ← (1 − momentum) · running +
    momentum · batch, with the unbiased variance. Otherwise the running ones are used. weight and bias (C,) may be None.
    Errors: ValueError for one value per channel in training, RuntimeError naming a size that does not fit.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015, algorithms 1 and 2.

    >>> import shared
    >>> from shared.nn import functional as F
    >>> x, mean, var = shared.tensor([[-1.], [5.], [1.], [3.]]), shared.zeros(1), shared.ones(1)
    >>> F.batch_norm(x, mean, var, training=True).flatten(), mean, var
    (tensor([-1.3416,  1.3416, -0.4472,  0.4472]), tensor([0.2000]), tensor([1.5667]))
    """
    name = "batch_norm"
    require_floating(name, input)
    if input.ndim < 2:
        raise RuntimeError(f"{name}: expected an input of at least 2 dimensions, but got size {list(input.shape)}")
    if training:
        _require_several(input.shape)
        if eps <= 0:
            raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    if (running_mean is None) != (running_var is None) and training:
        raise ValueError("running_mean and running_var must either both be None or neither be None")
    for what, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        if statistic is None and not training:
            raise RuntimeError(f"{what} must be defined in evaluation mode")
    _require_size(name, input.shape[1], running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    _require_dtypes(name, input, running_mean, running_var, weight, bias)
    if not input.numel():
        return _of_nothing(input, weight, bias, input.ndim - 2)
    if not training:
        assert running_mean is not None and running_var is not None
        return _applied(NormalizeChannels(running_mean.array, running_var.array, eps), input, weight, bias)
    function = BatchNorm(eps)
    out = _applied(function, input, weight, bias)
    if running_mean is not None and running_var is not None:
        _update(running_mean, function.mean, momentum)
        _update(running_var, kernels.unbiased(function.variance, input.numel() // input.shape[1]), momentum)
    return out


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`batch_norm` with moments of each image's channel by itself: input (N, C, *size), vectors (C,).

    The running statistics move towards the mean over images of these moments; without `use_input_stats` they are used.

    Source: Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016.
    """
    name = "instance_norm"
    require_floating(name, input)
    if use_input_stats and math.prod(input.shape[2:]) == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {list(input.shape)}")
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")
    if not use_input_stats and running_mean is None:
        raise RuntimeError("Expected running_mean and running_var to be defined when use_input_stats is false")
    n, channels, length = _channels(input)
    _require_size(name, channels, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    _require_dtypes(name, input, running_mean, running_var, weight, bias)
    if not input.numel():
        return _of_nothing(input, weight, bias, input.ndim - 2)
    if not use_input_stats:
        assert running_mean is not None and running_var is not None
        return _applied(NormalizeChannels(running_mean.array, running_var.array, eps), input, weight, bias)
    function = GroupNorm(channels, eps)
    out = _applied(function, input, weight, bias)
    if running_mean is not None and running_var is not None:
        mean, variance = (a.reshape(n, channels).mean(axis=0) for a in (function.mean, function.variance))
        _update(running_mean, mean, momentum)
        _update(running_var, kernels.unbiased(variance, length), momentum)
    return out


@follows_autocast
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x − mean) / √(variance + eps) · weight + bias, the moments over C / num_groups channels of one image.

    input (N, C, *size), weight and bias (C,) or None. Training and evaluation are alike. Errors: RuntimeError where
    num_groups does not divide C or a size does not fit.

    Source: Wu and He, "Group Normalization", 2018.

    >>> import shared
    >>> from shared.nn import functional as F
    >>> F.group_norm(shared.tensor([[[1., 3.], [2., 4.], [10., 10.], [14., 14.]]]), 2)[0]
    tensor([[-1.3416,  0.4472],
            [-0.4472,  1.3416],
            [-1.0000, -1.0000],
            [ 1.0000,  1.0000]])
    """
    name = "group_norm"
    require_floating(name, input)
    if input.ndim < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {input.ndim}")
    channels = input.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise RuntimeError(
            f"Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(input.shape)} and num_groups={num_groups}"
        )
    _require_several((input.shape[0] * channels // num_groups, num_groups, *input.shape[2:]))
    for what, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and tuple(vector.shape) != (channels,):
            raise RuntimeError(
                f"Expected {what} to be a vector of size equal to the number of channels in input, but got {what} of "
                f"shape {list(vector.shape)} and input of shape {list(input.shape)}"
            )
    _require_dtypes(name, input, weight, bias)
    if not input.numel():
        return _of_nothing(input, weight, bias, input.ndim - 2)
    return _applied(GroupNorm(num_groups, eps), input, weight, bias)


def _row_width(
    name: str, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None
) -> int:
    """The product of `normalized_shape`, after all checks."""
    require_floating(name, input)
    if not isinstance(normalized_shape, tuple | list):
        kind = type(normalized_shape).__name__
        raise TypeError(f"{name}(): argument 'normalized_shape' must be tuple of ints, not {kind}")
    shape = tuple(normalized_shape)
    if not shape:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got "
            "normalized_shape = []"
        )
    for what, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and tuple(parameter.shape) != shape:
            raise RuntimeError(
                f"Expected {what} to be of same shape as normalized_shape, but got {what} of shape "
                f"{list(parameter.shape)} and normalized_shape = {list(shape)}"
            )
    if tuple(input.shape[-len(shape) :]) != shape:
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape [*, {', '.join(map(str, shape))}], but "
            f"got input of size{list(input.shape)}"
        )
    _require_dtypes(name, input, weight, bias)
    return math.prod(shape)


@follows_autocast
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(variance + eps) · weight + bias, the moments over the last dimensions, `normalized_shape`.

    input (*, *normalized_shape), weight and bias of normalized_shape or None; the variance is biased. Errors:
    RuntimeError naming the shapes where they do not fit.

    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, section 3.

    >>> import shared
    >>> from shared.nn import functional as F
    >>> F.layer_norm(shared.tensor([[-1., 5., 1., 3.], [0., 0., 1., 0.]]), (4,))
    tensor([[-1.3416,  1.3416, -0.4472,  0.4472],
            [-0.5773, -0.5773,  1.7320, -0.5773]])
    """
    width = _row_width("layer_norm", input, normalized_shape, weight, bias)
    if not input.numel():
        return _of_nothing(input, weight, bias, 0)
    return _applied(LayerNorm(width, eps), input, weight, bias)


@follows_autocast
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / √(mean of x² + eps) · weight, the mean over the last dimensions, `normalized_shape`.

    input (*, *normalized_shape), weight of normalized_shape or None. eps: by default the distance from 1 to the next
    number, float32's for float16 and bfloat16, which are computed in float32.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.

    >>> import shared
    >>> shared.nn.functional.rms_norm(shared.tensor([1., -7.]), (2,))
    tensor([ 0.2000, -1.4000])
    """
    width = _row_width("rms_norm", input, normalized_shape, weight, None)
    if not input.numel():
        return _of_nothing(input, weight, None, 0)
    if eps is None:
        eps = float(np.finfo(np.float64 if input.array.dtype == dtypes.float64 else np.float32).eps)
    return _applied(RMSNorm(width, eps), input, weight, None)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha · mean of x² over `size` neighbouring channels)^beta; input (N, C, *size), beyond the ends 0.

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet Classification", 2012, section 3.3, where alpha is not divided
    by the number of channels.
    """
    if input.ndim < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {input.ndim} dimensions)")
    if not input.numel():
        return input
    n, channels, length = _channels(input)
    square = pad((input * input).reshape(n, 1, channels, length), (0, 0, size // 2, (size - 1) // 2))
    mean = avg_pool2d(square, (size, 1), stride=1).reshape(tuple(input.shape))
    return input / pow(mean * alpha + k, beta)
