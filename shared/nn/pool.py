"""Pooling layers: no parameters, a smaller image."""

from __future__ import annotations

from typing import Any

from shared.nn import functional as F
from shared.nn.module import Module
from shared.ops.windows import Sizes, per_dimension
from shared.tensor import Tensor


class _MaxPool(Module):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def _options(self) -> tuple:
        numbers = (self.kernel_size, self.stride, self.padding, self.dilation)
        return (*numbers, self.ceil_mode, self.return_indices)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of every window of (N, C, L) or (C, L); see `F.max_pool2d`."""

    def forward(self, input: Tensor) -> Any:
        return F.max_pool1d(input, *self._options())


class MaxPool2d(_MaxPool):
    """The largest element of every window of (N, C, H, W) or (C, H, W); see `F.max_pool2d`.

    >>> from shared import nn, ones
    >>> tuple(nn.MaxPool2d(2)(ones(5, 8, 28, 28)).shape)
    (5, 8, 14, 14)
    """

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(input, *self._options())


class MaxPool3d(_MaxPool):
    """The largest element of every window of (N, C, D, H, W) or (C, D, H, W); see `F.max_pool2d`."""

    def forward(self, input: Tensor) -> Any:
        return F.max_pool3d(input, *self._options())


class AvgPool1d(Module):
    """The mean of every window of (N, C, L) or (C, L); see `F.avg_pool2d`."""

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__()
        self.kernel_size = per_dimension("AvgPool1d", "kernel_size", kernel_size, 1)
        self.stride = per_dimension("AvgPool1d", "stride", kernel_size if stride is None else stride, 1)
        self.padding = per_dimension("AvgPool1d", "padding", padding, 1)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        numbers = (self.kernel_size, self.stride, self.padding)
        return F.avg_pool1d(input, *numbers, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def _options(self) -> tuple:
        numbers = (self.kernel_size, self.stride, self.padding)
        return (*numbers, self.ceil_mode, self.count_include_pad, self.divisor_override)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """The mean of every window of (N, C, H, W) or (C, H, W); see `F.avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(input, *self._options())


class AvgPool3d(_AvgPool):
    """The mean of every window of (N, C, D, H, W) or (C, D, H, W); see `F.avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool3d(input, *self._options())


class _AdaptiveAvgPool(Module):
    def __init__(self, output_size: Any):
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means over as many windows as wanted: (N, C, L) → (N, C, output_size)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means over as many windows as wanted: (N, C, H, W) → (N, C, *output_size); `AdaptiveAvgPool2d(1)`: all.

    >>> from shared import nn, ones
    >>> tuple(nn.AdaptiveAvgPool2d((1, None))(ones(5, 8, 7, 6)).shape)
    (5, 8, 1, 6)
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Means over as many windows as wanted: (N, C, D, H, W) → (N, C, *output_size)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool3d(input, self.output_size)


class _AdaptiveMaxPool(Module):
    def __init__(self, output_size: Any, return_indices: bool = False):
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest elements of as many windows as wanted: (N, C, L) → (N, C, output_size)."""

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest elements of as many windows as wanted: (N, C, H, W) → (N, C, *output_size).

    >>> from shared import nn, ones
    >>> tuple(nn.AdaptiveMaxPool2d((1, None))(ones(5, 8, 7, 6)).shape)
    (5, 8, 1, 6)
    """

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest elements of as many windows as wanted: (N, C, D, H, W) → (N, C, *output_size)."""

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool3d(input, self.output_size, self.return_indices)


class _MaxUnpool(Module):
    dimensions = 0

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0):
        super().__init__()
        name = type(self).__name__
        self.kernel_size = per_dimension(name, "kernel_size", kernel_size, self.dimensions)
        self.stride = per_dimension(name, "stride", kernel_size if stride is None else stride, self.dimensions)
        self.padding = per_dimension(name, "padding", padding, self.dimensions)

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        unpool = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}[self.dimensions]
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Maxima back to where `MaxPool1d(…, return_indices=True)` found them, zeros elsewhere."""

    dimensions = 1


class MaxUnpool2d(_MaxUnpool):
    """Maxima back to where `MaxPool2d(…, return_indices=True)` found them, zeros elsewhere; see `F.max_unpool2d`.

    >>> from shared import arange, nn
    >>> pool, unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    >>> unpool(*pool(arange(8.).reshape(1, 2, 4)))
    tensor([[[0., 0., 0., 0.],
             [0., 5., 0., 7.]]])
    """

    dimensions = 2


class MaxUnpool3d(_MaxUnpool):
    """Maxima back to where `MaxPool3d(…, return_indices=True)` found them, zeros elsewhere."""

    dimensions = 3
