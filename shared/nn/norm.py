"""Normalisation layers."""

from __future__ import annotations

import warnings
from typing import Any

from shared.arrays import dtypes
from shared.autograd import no_grad
from shared.nn import functional as F
from shared.nn import init
from shared.nn.module import Module
from shared.nn.parameter import Parameter
from shared.ops.creation import empty, ones, zeros
from shared.tensor import Tensor


class _ChannelNorm(Module):
    """What batch norm and instance norm share: weight, bias and running statistics, one number per channel each."""

    dimensions: tuple[int, ...] = ()  # of the inputs that are accepted

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        device: Any,
        dtype: Any,
        bias: bool,
    ):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            parameter = Parameter(empty(num_features, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, parameter)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, device=device, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", ones(num_features, device=device, dtype=dtype) if tracked else None)
        count = zeros((), device=device, dtype=dtypes.int64) if tracked else None
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forgets all batches: mean 0, variance 1."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """weight 1, bias 0, statistics forgotten."""
        self.reset_running_stats()
        if self.affine:
            init.ones_(self.weight)
            if self.bias is not None:
                init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self.dimensions:
            wanted = " or ".join(f"{n}D" for n in self.dimensions)
            raise ValueError(f"expected {wanted} input (got {input.ndim}D input)")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """A state without `num_batches_tracked`, which older layers did not have, leaves it as it is."""
        if self.num_batches_tracked is not None:
            state_dict.setdefault(f"{prefix}num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_ChannelNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        """`F.batch_norm` of the input, by the batch's moments in training and by the running ones in evaluation.

        Where the statistics are tracked, a call in training counts in `num_batches_tracked`, under `no_grad`, and
        moves them by `momentum`; for None (and only for None: 0 is a momentum) by 1 / num_batches_tracked as a number,
        which makes them the mean over all batches. A layer without statistics takes the batch's moments in evaluation
        too. `track_running_stats` may be changed after construction: set to False, the buffers stay, are used in
        evaluation, and no longer move or count. An input with a wrong number of dimensions is a ValueError:
        `_check_input_dim`.
        """
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        updating = self.training and self.track_running_stats
        if updating and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the mean of all batches so far
                momentum = 1.0 / self.num_batches_tracked.item()
        with_batch = self.training or self.running_mean is None
        mean, var = (self.running_mean, self.running_var) if updating or not with_batch else (None, None)
        return F.batch_norm(input, mean, var, self.weight, self.bias, with_batch, momentum, self.eps)


class BatchNorm1d(_BatchNorm):
    """`BatchNorm2d` of (N, C) or (N, C, L)."""

    dimensions = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Every channel of (N, C, H, W) with mean 0 and variance 1, then times weight (C,) plus bias (C,).

    In training by the moments of the batch, which move the buffers `running_mean` and `running_var` by `momentum`, or
    for None to their mean over all batches; in evaluation by these buffers. Without `track_running_stats` always by
    the batch's. See `F.batch_norm`.

    >>> from shared import arange, nn
    >>> layer = nn.BatchNorm2d(3)
    >>> layer(arange(12.).reshape(2, 3, 1, 2)).detach()[:, 0], layer.running_mean
    (tensor([[[-1.1508, -0.8220]],
    <BLANKLINE>
            [[ 0.8220,  1.1508]]]), tensor([0.3500, 0.5500, 0.7500]))
    """

    dimensions = (4,)


class BatchNorm3d(_BatchNorm):
    """`BatchNorm2d` of (N, C, D, H, W)."""

    dimensions = (5,)


class _InstanceNorm(_ChannelNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        batched = input.ndim == self.dimensions[-1]
        if input.shape[batched] != self.num_features:
            if self.affine:
                raise ValueError(
                    f"expected input's size at dim={int(batched)} to match num_features ({self.num_features}), but "
                    f"got: {input.shape[batched]}."
                )
            warnings.warn(
                f"input's size at dim={int(batched)} does not match num_features. You can silence this warning by not "
                "passing in num_features, which is not used because affine=False",
                stacklevel=2,
            )
        out = F.instance_norm(
            input if batched else input.unsqueeze(0),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return out if batched else out.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """`InstanceNorm2d` of (N, C, L) or (C, L)."""

    dimensions = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Every channel of every image of (N, C, H, W) or (C, H, W) with mean 0 and variance 1; see `F.instance_norm`."""

    dimensions = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """`InstanceNorm2d` of (N, C, D, H, W) or (C, D, H, W)."""

    dimensions = (4, 5)


class GroupNorm(Module):
    """Channels of (N, C, *) in groups of C / num_groups, each with mean 0 and variance 1 within an image.

    Then times weight (C,) plus bias (C,), unless `affine` is off. See `F.group_norm`.

    >>> from shared import nn, ones
    >>> tuple(nn.GroupNorm(2, 6)(ones(4, 6, 5, 5)).shape)
    (4, 6, 5, 5)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            parameter = Parameter(empty(num_channels, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class _RowNorm(Module):
    """What layer norm and RMS norm share: rows are the last dimensions, the parameters have their shape."""

    def __init__(self, normalized_shape: Any, eps: float | None, elementwise_affine: bool, device: Any, dtype: Any):
        super().__init__()
        given = (normalized_shape,) if hasattr(normalized_shape, "__index__") else normalized_shape
        self.normalized_shape = tuple(given)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        weight = Parameter(empty(self.normalized_shape, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", weight)

    def reset_parameters(self) -> None:
        """weight 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LayerNorm(_RowNorm):
    """The last dimensions with mean 0 and variance 1, then times weight plus bias, both of `normalized_shape`.

    See `F.layer_norm`.

    >>> from shared import nn, tensor
    >>> nn.LayerNorm(4)(tensor([-1., 5., 1., 3.])).detach()
    tensor([-1.3416,  1.3416, -0.4472,  0.4472])
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)
        wanted = elementwise_affine and bias
        parameter = Parameter(empty(self.normalized_shape, device=device, dtype=dtype)) if wanted else None
        self.register_parameter("bias", parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1, bias 0."""
        super().reset_parameters()
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bias={self.bias is not None}"


class RMSNorm(_RowNorm):
    """The last dimensions divided by the root of their mean square, then times weight of `normalized_shape`.

    See `F.rms_norm`, also for `eps`.

    >>> from shared import nn, tensor
    >>> nn.RMSNorm(2)(tensor([1., -7.])).detach()
    tensor([ 0.2000, -1.4000])
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)


class LocalResponseNorm(Module):
    """Every element divided by a root of the squares in `size` neighbouring channels; see `F.local_response_norm`."""

    def __init__(self, size: int, alpha: float = 0.0001, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
