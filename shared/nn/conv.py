"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

from shared.nn import functional as F
from shared.nn import init
from shared.nn.module import Module
from shared.nn.parameter import Parameter
from shared.ops.creation import empty
from shared.ops.windows import Sizes, per_dimension
from shared.tensor import Tensor

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What all layers share: numbers per dimension, the parameters and how they start.

    weight (out, in / groups, *kernel_size), transposed (in, out / groups, *kernel_size); bias (out,).
    """

    dimensions = 0
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes,
        padding: str | Sizes,
        dilation: Sizes,
        output_padding: Sizes,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = self._numbers("kernel_size", kernel_size)
        self.stride = self._numbers("stride", stride)
        self.padding = padding if isinstance(padding, str) else self._numbers("padding", padding)
        self.dilation = self._numbers("dilation", dilation)
        self.output_padding = self._numbers("output_padding", output_padding)
        self.groups, self.padding_mode = groups, padding_mode
        self._check()
        channels = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (channels[0], channels[1] // groups, *self.kernel_size)
        self.weight = Parameter(empty(*shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _numbers(self, what: str, value: Sizes) -> tuple[int, ...]:
        return per_dimension(type(self).__name__, what, value, self.dimensions)

    def _check(self) -> None:
        if self.groups <= 0:
            raise ValueError(f"groups must be a positive integer, but got {self.groups}")
        for what, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"{what} must be divisible by groups, but got {channels} and {self.groups}")
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {self.padding!r}, should be one of 'same', 'valid'")
            if self.padding == "same" and set(self.stride) != {1}:
                raise ValueError("padding='same' is not supported for strided convolutions")
        if self.padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {PADDING_MODES}, but got padding_mode={self.padding_mode!r}")

    def reset_parameters(self) -> None:
        """Uniform in ±1/√fan_in, written as in PyTorch: kaiming_uniform_ with slope √5."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = math.prod(self.weight.shape[1:])
            bound = 1 / math.sqrt(fan_in) if fan_in else 0
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        parts = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}",
            f"padding={self.padding}" if self.padding != (0,) * self.dimensions else "",
            f"dilation={self.dilation}" if self.dilation != (1,) * self.dimensions else "",
            f"output_padding={self.output_padding}" if any(self.output_padding) else "",
            f"groups={self.groups}" if self.groups != 1 else "",
            "bias=False" if self.bias is None else "",
            f"padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else "",
        ]
        return ", ".join(part for part in parts if part)


class _ConvNd(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: str | Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation, 0),
            *(groups, bias, padding_mode, device, dtype),
        )

    def _edges(self) -> list[int]:
        """The widths for `F.pad`, the last dimension first."""
        widths: list[int] = []
        for i in reversed(range(self.dimensions)):
            if isinstance(self.padding, str):
                total = self.dilation[i] * (self.kernel_size[i] - 1) if self.padding == "same" else 0
                widths += [total // 2, total - total // 2]
            else:
                widths += [self.padding[i]] * 2
        return widths

    def forward(self, input: Tensor) -> Tensor:
        function = (F.conv1d, F.conv2d, F.conv3d)[self.dimensions - 1]
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._edges(), mode=self.padding_mode), 0
        return function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_ConvNd):
    """A convolution over (N, C, L) or (C, L); see `Conv2d`."""

    dimensions = 1


class Conv2d(_ConvNd):
    """out_channels filters slide over images (N, in_channels, H, W) or (in_channels, H, W): see `F.conv2d`.

    weight (out_channels, in_channels / groups, KH, KW) and bias (out_channels,) start uniform in ±1/√fan_in, where
    fan_in = in_channels / groups · KH · KW. `padding_mode` says what is put around the images: 'zeros', 'reflect',
    'replicate' or 'circular'.

    >>> from shared import nn, ones
    >>> layer = nn.Conv2d(1, 8, kernel_size=3, padding="same")
    >>> tuple(layer.weight.shape), tuple(layer(ones(5, 1, 28, 28)).shape)
    ((8, 1, 3, 3), (5, 8, 28, 28))
    """

    dimensions = 2


class Conv3d(_ConvNd):
    """A convolution over (N, C, D, H, W) or (C, D, H, W); see `Conv2d`."""

    dimensions = 3


class _ConvTransposeNd(_Conv):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding),
            *(groups, bias, padding_mode, device, dtype),
        )

    def _extra(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output padding that gives `output_size`, one of the sizes that the stride rounds to the same input."""
        wanted = tuple(output_size)
        if len(wanted) == self.dimensions + 2 and input.ndim == self.dimensions + 2:
            wanted = wanted[2:]
        if len(wanted) != self.dimensions:
            raise ValueError(
                f"{type(self).__name__}: for {input.ndim}D input, output_size must have {self.dimensions} or "
                f"{self.dimensions + 2} elements (got {len(wanted)})"
            )
        size = tuple(input.shape[-self.dimensions :])
        numbers = (size, self.stride, self.padding, self.dilation, self.kernel_size)
        least = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in zip(*numbers, strict=True))
        most = tuple(n + s - 1 for n, s in zip(least, self.stride, strict=True))
        if any(not a <= n <= b for n, a, b in zip(wanted, least, most, strict=True)):
            raise ValueError(
                f"requested an output size of {wanted}, but valid sizes range from {list(least)} to {list(most)} (for "
                f"an input of {list(size)})"
            )
        return tuple(n - a for n, a in zip(wanted, least, strict=True))

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.dimensions - 1]
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        return function(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)


class ConvTranspose1d(_ConvTransposeNd):
    """A transposed convolution over (N, C, L) or (C, L); see `ConvTranspose2d`."""

    dimensions = 1


class ConvTranspose2d(_ConvTransposeNd):
    """The way back from a `Conv2d` of this weight: see `F.conv_transpose2d`. weight (in, out / groups, KH, KW).

    With a stride several input sizes give the same output size, so the way back has a choice: `output_padding`, or
    `layer(x, output_size=…)`.

    >>> from shared import nn, ones
    >>> tuple(nn.ConvTranspose2d(8, 1, 3, stride=2)(ones(5, 8, 14, 14), output_size=(30, 30)).shape)
    (5, 1, 30, 30)
    """

    dimensions = 2


class ConvTranspose3d(_ConvTransposeNd):
    """A transposed convolution over (N, C, D, H, W) or (C, D, H, W); see `ConvTranspose2d`."""

    dimensions = 3
