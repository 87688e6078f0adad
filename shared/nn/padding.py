"""Padding layers: widths are (left, right), then (top, bottom), then (front, back), or one number for all."""

from __future__ import annotations

from shared.nn import functional as F
from shared.nn.module import Module
from shared.ops.windows import Sizes, per_dimension
from shared.tensor import Tensor


class _Pad(Module):
    dimensions = 0
    mode = "constant"

    def __init__(self, padding: Sizes):
        super().__init__()
        self.padding = per_dimension(type(self).__name__, "padding", padding, 2 * self.dimensions)

    def forward(self, input: Tensor) -> Tensor:
        if self.mode != "constant" and input.ndim not in (self.dimensions + 1, self.dimensions + 2):
            raise NotImplementedError(
                f"{type(self).__name__}: expected an input of {self.dimensions + 1} or {self.dimensions + 2} "
                f"dimensions, but got input of size {list(input.shape)}"
            )
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Sizes, value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """`value` at both ends of the last dimension."""

    dimensions = 1


class ConstantPad2d(_ConstantPad):
    """`value` around the last two dimensions."""

    dimensions = 2


class ConstantPad3d(_ConstantPad):
    """`value` around the last three dimensions."""

    dimensions = 3


class ZeroPad1d(_Pad):
    """Zeros at both ends of the last dimension; negative widths cut."""

    dimensions = 1


class ZeroPad2d(_Pad):
    """Zeros around the last two dimensions; negative widths cut.

    >>> from shared import nn, ones
    >>> nn.ZeroPad2d((0, 1, 1, 0))(ones(1, 1, 2))
    tensor([[[0., 0., 0.],
             [1., 1., 0.]]])
    """

    dimensions = 2


class ZeroPad3d(_Pad):
    """Zeros around the last three dimensions; negative widths cut."""

    dimensions = 3


class ReflectionPad1d(_Pad):
    """The last dimension mirrored at its ends, which are not repeated: (N, C, L) or (C, L).

    >>> from shared import nn, tensor
    >>> nn.ReflectionPad1d(2)(tensor([[1., 2., 3.]]))
    tensor([[3., 2., 1., 2., 3., 2., 1.]])
    """

    dimensions, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """Images mirrored at their edges, which are not repeated: (N, C, H, W) or (C, H, W)."""

    dimensions, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """Volumes mirrored at their faces, which are not repeated: (N, C, D, H, W) or (C, D, H, W)."""

    dimensions, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The elements at the ends repeated: (N, C, L) or (C, L)."""

    dimensions, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The elements at the edges repeated: (N, C, H, W) or (C, H, W)."""

    dimensions, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The elements at the faces repeated: (N, C, D, H, W) or (C, D, H, W)."""

    dimensions, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """The last dimension goes on at its other end: (N, C, L) or (C, L)."""

    dimensions, mode = 1, "circular"


class CircularPad2d(_Pad):
    """Images go on at their other edge: (N, C, H, W) or (C, H, W)."""

    dimensions, mode = 2, "circular"


class CircularPad3d(_Pad):
    """Volumes go on at their other face: (N, C, D, H, W) or (C, D, H, W)."""

    dimensions, mode = 3, "circular"
