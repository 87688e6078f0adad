"""Convolution in one, two and three dimensions, and the transposed convolution, its gradient.

Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II A; Dumoulin and
Visin, "A guide to convolution arithmetic for deep learning", 2016.
"""

from __future__ import annotations

from typing import Any

from shared.arrays import dtypes
from shared.arrays.kernels import conv as kernels
from shared.arrays.kernels.windows import Windows
from shared.autograd import Function
from shared.ops.activation import in_float32, require_tensor
from shared.ops.autocast import follows_autocast
from shared.ops.windows import Sizes, batched, join, per_dimension, slide
from shared.tensor import Tensor

# Three operations, each made of the other two when it is differentiated: with G a gradient of conv(x, W), the number
# Σ G · conv(x, W) has the derivative conv by G, conv_input by x and conv_weight by W (see kernels/conv/reference.py).
# The functions below take arrays or, where a gradient of the gradient is asked for, Tensors.


def _conv(x: Any, weight: Any, windows: Windows, groups: int) -> Any:
    if isinstance(x, Tensor):
        return Conv(windows, groups)(x, weight)
    return kernels.conv(x, weight, None, windows, groups)


def _conv_input(grad: Any, weight: Any, size: tuple[int, ...], windows: Windows, groups: int) -> Any:
    if isinstance(grad, Tensor):
        return ConvInput(size, windows, groups)(grad, weight)
    return kernels.conv_input(grad, weight, size, windows, groups)


def _conv_weight(grad: Any, x: Any, windows: Windows, groups: int) -> Any:
    if isinstance(grad, Tensor):
        return ConvWeight(windows, groups)(grad, x)
    return kernels.conv_weight(grad, x, windows, groups)


def _conv_bias(grad: Any) -> Any:
    return grad.sum(axis=(0, *range(2, grad.ndim))) if isinstance(grad, Tensor) else kernels.conv_bias(grad)


class Conv(Function):
    """x ⋆ W + b: in every window the sum of its elements, each times its weight"""

    twice = True

    def __init__(self, windows: Windows, groups: int):
        self.windows, self.groups = windows, groups

    def forward(self, x, weight, bias=None):
        """(N, C, *size), (O, C / groups, *kernel_size) and (O,) or None → (N, O, *count)."""
        self.saved = (x if self.needs[1] else None, weight if self.needs[0] else None)
        self.size = x.shape[2:]
        return kernels.conv(x, weight, bias, self.windows, self.groups)

    def backward(self, grad):
        """The gradients by x, weight and bias, from grad (N, O, *count); None for one that is not needed."""
        x, weight = self.saved
        to_x = _conv_input(grad, weight, self.size, self.windows, self.groups) if self.needs[0] else None
        to_weight = _conv_weight(grad, x, self.windows, self.groups) if self.needs[1] else None
        to_bias = _conv_bias(grad) if self.needs[2:] == [True] else None
        return (to_x, to_weight, to_bias)[: len(self.needs)]


class ConvInput(Function):
    """The gradient of a convolution by its input, as an operation of its own: the transposed convolution"""

    twice = True

    def __init__(self, size: tuple[int, ...], windows: Windows, groups: int):
        self.size, self.windows, self.groups = size, windows, groups

    def forward(self, grad, weight, bias=None):
        """(N, O, *count), (O, C / groups, *kernel_size) and (C,) or None → (N, C, *size)."""
        self.saved = (grad if self.needs[1] else None, weight if self.needs[0] else None)
        out = kernels.conv_input(grad, weight, self.size, self.windows, self.groups)
        return out if bias is None else out + bias.reshape(-1, *[1] * len(self.size))

    def backward(self, grad):
        """The gradients by what forward was given, from grad (N, C, *size)."""
        x, weight = self.saved
        to_x = _conv(grad, weight, self.windows, self.groups) if self.needs[0] else None
        to_weight = _conv_weight(x, grad, self.windows, self.groups) if self.needs[1] else None
        to_bias = _conv_bias(grad) if self.needs[2:] == [True] else None
        return (to_x, to_weight, to_bias)[: len(self.needs)]


class ConvWeight(Function):
    """The gradient of a convolution by its weight, as an operation of its own"""

    twice = True

    def __init__(self, windows: Windows, groups: int):
        self.windows, self.groups = windows, groups

    def forward(self, grad, x):
        self.saved = (grad if self.needs[1] else None, x if self.needs[0] else None)
        self.size = x.shape[2:]
        return kernels.conv_weight(grad, x, self.windows, self.groups)

    def backward(self, weight):
        grad, x = self.saved
        to_grad = _conv(x, weight, self.windows, self.groups) if self.needs[0] else None
        to_x = _conv_input(grad, weight, self.size, self.windows, self.groups) if self.needs[1] else None
        return to_grad, to_x


# ---------------------------------------------------------------- checks


def _check_operands(name: str, input: Tensor, weight: Tensor, bias: Tensor | None, outputs: int) -> None:
    if len({x.array.dtype for x in (input, weight, bias) if x is not None}) > 1:
        given = ", ".join(f"{x.array.dtype.name}" for x in (input, weight, bias) if x is not None)
        raise RuntimeError(f"{name}: expected input, weight and bias to have the same dtype, but got {given}")
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise RuntimeError(
            f"{name}: Given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with {outputs} "
            f"elements, but got bias of size {list(bias.shape)} instead"
        )


def _check_numbers(
    name: str, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> None:
    if min(stride) <= 0:
        raise RuntimeError(f"{name}: non-positive stride is not supported, but got {list(stride)}")
    if min(padding) < 0:
        raise RuntimeError(f"{name}: negative padding is not supported, but got {list(padding)}")
    if min(dilation) <= 0:
        raise RuntimeError(f"{name}: dilation should be greater than zero, but got {list(dilation)}")
    if groups <= 0:
        raise RuntimeError(f"{name}: non-positive groups is not supported, but got {groups}")


def _check_weight(name: str, weight: Tensor, count: int, groups: int) -> None:
    require_tensor(name, "weight", weight)
    if weight.ndim != count + 2:
        raise RuntimeError(
            f"{name}: expected a weight of {count + 2} dimensions, but got weight of size {list(weight.shape)}"
        )
    if len(weight) < groups or len(weight) % groups:
        raise RuntimeError(
            f"{name}: Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got "
            f"weight of size {list(weight.shape)} instead"
        )


def _same_padding(
    name: str, size: tuple[int, ...], kernel_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Windows:
    """As many windows as elements; where the padding is odd, the end gets one more."""
    if set(stride) != {1}:
        raise RuntimeError(f"{name}: padding='same' is not supported for strided convolutions")
    padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel_size, dilation, strict=True))
    return Windows(kernel_size, size, stride, padding, dilation)


def _windows(
    name: str,
    size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Windows:
    count = len(size)
    stride, dilation = (per_dimension(name, w, v, count) for w, v in (("stride", stride), ("dilation", dilation)))
    if isinstance(padding, str):
        _check_numbers(name, stride, (0,), dilation, groups)
        if padding == "same":
            return _same_padding(name, size, kernel_size, stride, dilation)
        if padding != "valid":
            raise RuntimeError(f"{name}: Invalid padding string: '{padding}', expected 'same' or 'valid'")
        padding = 0
    padding = per_dimension(name, "padding", padding, count)
    _check_numbers(name, stride, padding, dilation, groups)
    windows = slide(size, kernel_size, stride, padding, dilation)
    if min(windows.count) < 1:
        padded = tuple(n + 2 * p for n, p in zip(size, padding, strict=True))
        reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True))
        raise RuntimeError(
            f"{name}: Calculated padded input size per channel: ({join(padded)}). Kernel size: ({join(reach)}). "
            f"Kernel size can't be greater than actual input size"
        )
    return windows


def _computed(function: Function, *operands: Tensor | None) -> Tensor:
    """`function` of the operands that are given; float16 and bfloat16 go through float32."""
    given = [x for x in operands if x is not None]
    return in_float32(function, *given) if dtypes.is_floating(given[0].array.dtype) else function(*given)


def _convolve(
    name: str, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    count = int(name[-2])  # the spatial dimensions
    _check_weight(name, weight, count, max(groups, 1))
    x, whole = batched(name, input, count)
    channels, size = weight.shape[1] * groups, tuple(x.shape[2:])
    windows = _windows(name, size, tuple(weight.shape[2:]), stride, padding, dilation, groups)
    if x.shape[1] != channels:
        raise RuntimeError(
            f"{name}: Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to "
            f"have {channels} channels, but got {x.shape[1]} channels instead"
        )
    if 0 in size:
        raise RuntimeError(
            f"{name}: Only zero batch or zero channel inputs are supported, but got input shape: {list(input.shape)}"
        )
    _check_operands(name, x, weight, bias, len(weight))
    out = _computed(Conv(windows, groups), x, weight, bias)
    return out if whole else out.squeeze(0)


def _output_size(
    name: str,
    size: tuple[int, ...],
    windows: Windows,
    output_padding: tuple[int, ...],
) -> tuple[int, ...]:
    """The sizes that a convolution with these windows would have been given."""
    for extra, s, d in zip(output_padding, windows.stride, windows.dilation, strict=True):
        if not 0 <= extra < max(s, d):
            raise RuntimeError(
                f"{name}: output padding must be smaller than either stride or dilation, but got output_padding="
                f"{list(output_padding)}, stride={list(windows.stride)}, dilation={list(windows.dilation)}"
            )
    whole = tuple(
        reach - 2 * p + extra for reach, p, extra in zip(windows.reach, windows.padding, output_padding, strict=True)
    )
    if min(whole) < 1:
        raise RuntimeError(
            f"{name}: Given input size per channel: ({join(size)}). Calculated output size per channel: "
            f"({join(whole)}). Output size is too small"
        )
    return whole


def _convolve_transposed(
    name: str,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    count = int(name[-2])
    _check_weight(name, weight, count, max(groups, 1))
    x, whole = batched(name, input, count)
    given = (("stride", stride), ("padding", padding), ("output_padding", output_padding), ("dilation", dilation))
    stride, padding, output_padding, dilation = (per_dimension(name, what, v, count) for what, v in given)
    _check_numbers(name, stride, padding, dilation, groups)
    if x.shape[1] != len(weight):
        raise RuntimeError(
            f"{name}: Given transposed=1, weight of size {list(weight.shape)}, expected input{list(input.shape)} to "
            f"have {len(weight)} channels, but got {x.shape[1]} channels instead"
        )
    _check_operands(name, x, weight, bias, weight.shape[1] * groups)
    size = tuple(x.shape[2:])
    windows = Windows(tuple(weight.shape[2:]), size, stride, padding, dilation)
    out_size = _output_size(name, size, windows, output_padding)
    out = _computed(ConvInput(out_size, windows, groups), x, weight, bias)
    return out if whole else out.squeeze(0)


# ---------------------------------------------------------------- the public functions


@follows_autocast
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: str | Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` over one dimension: input (N, C, L) or (C, L), weight (O, C / groups, K) → (N, O, L') or (O, L').

    >>> import shared
    >>> from shared.nn import functional as F
    >>> F.conv1d(shared.tensor([[[1., 2., 4., 8.]]]), shared.tensor([[[-1., 1.]]]))      # differences
    tensor([[[1., 2., 4.]]])
    """
    return _convolve("conv1d", input, weight, bias, stride, padding, dilation, groups)


@follows_autocast
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: str | Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """A filter slides over images: in each window the sum of its elements, each times its weight, plus the bias.

    input (N, C, H, W) or (C, H, W), weight (O, C / groups, KH, KW), bias (O,) → (N, O, H', W') or (O, H', W'), with
    H' = ⌊(H + 2 · padding − dilation · (KH − 1) − 1) / stride⌋ + 1. `stride`, `padding` and `dilation` are a number, or
    one per dimension. padding 'valid' is none, 'same' as much as keeps the size (stride 1 only). With `groups` the
    channels are cut into equal parts that do not see each other. Strictly, a cross-correlation: nothing is flipped.
    Errors: RuntimeError naming the shapes where they do not fit.

    >>> import shared
    >>> from shared.nn import functional as F
    >>> F.conv2d(shared.ones(1, 1, 3, 3), shared.ones(1, 1, 3, 3), padding="same")
    tensor([[[[4., 6., 4.],
              [6., 9., 6.],
              [4., 6., 4.]]]])
    """
    return _convolve("conv2d", input, weight, bias, stride, padding, dilation, groups)


@follows_autocast
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: str | Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` over three dimensions: input (N, C, D, H, W) or (C, D, H, W), weight (O, C / groups, KD, KH, KW)."""
    return _convolve("conv3d", input, weight, bias, stride, padding, dilation, groups)


@follows_autocast
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """`conv_transpose2d` over one dimension: input (N, C, L) or (C, L), weight (C, O / groups, K)."""
    return _convolve_transposed(
        "conv_transpose1d", input, weight, bias, stride, padding, output_padding, groups, dilation
    )


@follows_autocast
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """Each element of the input lays the filter, times itself, into the output; where filters overlap they add up.

    input (N, C, H, W) or (C, H, W), weight (C, O / groups, KH, KW), bias (O,) → (N, O, H', W'), with
    H' = (H − 1) · stride − 2 · padding + dilation · (KH − 1) + output_padding + 1. It is the gradient by the input of
    a `conv2d` with this weight; `output_padding` says which of the sizes that `conv2d` rounds off is meant.

    >>> import shared
    >>> from shared.nn import functional as F
    >>> F.conv_transpose2d(shared.tensor([[[[1., 2.]]]]), shared.ones(1, 1, 1, 2), stride=(1, 2))
    tensor([[[[1., 1., 2., 2.]]]])
    """
    return _convolve_transposed(
        "conv_transpose2d", input, weight, bias, stride, padding, output_padding, groups, dilation
    )


@follows_autocast
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """`conv_transpose2d` over three dimensions: input (N, C, D, H, W), weight (C, O / groups, KD, KH, KW)."""
    return _convolve_transposed(
        "conv_transpose3d", input, weight, bias, stride, padding, output_padding, groups, dilation
    )
