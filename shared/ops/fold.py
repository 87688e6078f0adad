"""Windows as columns and back: what a convolution does before and after its matrix product."""

from __future__ import annotations

from typing import Any

from shared.arrays.kernels import conv as kernels
from shared.arrays.kernels.windows import Windows
from shared.autograd import Function
from shared.ops.activation import require_tensor
from shared.ops.windows import Sizes, batched, per_dimension, slide
from shared.tensor import Tensor


class Unfold(Function):
    """Each window a column"""

    twice = True

    def __init__(self, windows: Windows):
        self.windows = windows

    def forward(self, x):
        self.size = x.shape[2:]
        return kernels.im2col(x, self.windows)

    def backward(self, grad):
        if isinstance(grad, Tensor):
            return Fold(self.size, self.windows)(grad)
        return kernels.col2im(grad, self.size, self.windows)


class Fold(Function):
    """Columns added up where their windows lie"""

    twice = True

    def __init__(self, size: tuple[int, ...], windows: Windows):
        self.size, self.windows = size, windows

    def forward(self, columns):
        return kernels.col2im(columns, self.size, self.windows)

    def backward(self, grad):
        return Unfold(self.windows)(grad) if isinstance(grad, Tensor) else kernels.im2col(grad, self.windows)


def _windows(name: str, size: tuple[int, ...], kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Windows:
    given = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    numbers = {what: per_dimension(name, what, value, 2) for what, value in given.items()}
    for what, values in numbers.items():
        if min(values) < (what != "padding"):
            least = "non-negative" if what == "padding" else "greater than zero"
            raise RuntimeError(f"{name}: {what} should be {least}, but got {values}")
    windows = slide(size, **numbers)
    if min(windows.count) < 1:
        text = ", ".join(f"{what}={values}" for what, values in numbers.items())
        raise RuntimeError(
            f"{name}: Given input with spatial size {size}, {text}, calculated shape of the array of sliding blocks as "
            f"{windows.count}, but its components must be at least one."
        )
    return windows


def unfold(input: Tensor, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Tensor:
    """Every window as a column: input (N, C, H, W) or (C, H, W) → (N, C · KH · KW, L) or (C · KH · KW, L).

    >>> import shared
    >>> shared.nn.functional.unfold(shared.arange(6.).reshape(1, 2, 3), (1, 2))
    tensor([[0., 1., 3., 4.],
            [1., 2., 4., 5.]])
    """
    x, whole = batched("unfold", input, 2)
    windows = _windows("unfold", tuple(x.shape[2:]), kernel_size, dilation, padding, stride)
    out = Unfold(windows)(x)
    return out if whole else out.squeeze(0)


def fold(
    input: Tensor,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Tensor:
    """Columns added up where `unfold` takes them from: input (N, C · KH · KW, L) or (C · KH · KW, L) → (N, C, H, W).

    >>> import shared
    >>> shared.nn.functional.fold(shared.ones(2, 4), (2, 3), (1, 2))       # in how many windows is each element?
    tensor([[[1., 2., 1.],
             [1., 2., 1.]]])
    """
    require_tensor("fold", "input", input)
    if input.ndim not in (2, 3):
        raise RuntimeError(
            f"fold: Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions "
            f"for input, but got: {list(input.shape)}"
        )
    size = per_dimension("fold", "output_size", output_size, 2)
    windows = _windows("fold", size, kernel_size, dilation, padding, stride)
    x = input if input.ndim == 3 else input.unsqueeze(0)
    if x.shape[1] % windows.elements:
        raise RuntimeError(
            f"fold: Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
            f"input.size(1)={x.shape[1]} and kernel_size={windows.kernel_size}."
        )
    if x.shape[2] != windows.positions:
        raise RuntimeError(
            f"fold: Given output_size={size}, kernel_size={windows.kernel_size}, dilation={windows.dilation}, "
            f"padding={windows.padding}, stride={windows.stride}, expected size of input's dimension 2 to match the "
            f"calculated number of sliding blocks {windows.count[0]} * {windows.count[1]} = {windows.positions}, but "
            f"got input.size(2)={x.shape[2]}."
        )
    out = Fold(size, windows)(x)
    return out if input.ndim == 3 else out.squeeze(0)
