"""Dropout: zeros at random places while training; the formulas are in `shared.arrays.kernels.dropout.reference`."""

from __future__ import annotations

from typing import Any

from shared.arrays import random
from shared.arrays.device import device_of
from shared.arrays.kernels import dropout as kernels
from shared.autograd import Function
from shared.ops.activation import require_tensor
from shared.ops.inplace import assign
from shared.tensor import Tensor


class Dropout(Function):
    """x · mask / (1 − p): each element of the mask is 0 with probability p, else 1"""

    twice = True

    def __init__(self, p: float, mask_shape: tuple[int, ...]):
        self.p, self.mask_shape = float(p), mask_shape

    def forward(self, x):
        seed = random.default_generator(device_of(x)).draw_seed()
        out, mask = kernels.dropout(x, self.p, self.mask_shape, seed)
        self.saved = (mask,)
        return out

    def backward(self, grad):
        (mask,) = self.saved
        return kernels.dropout_input(grad, self.p, mask)


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element becomes 0 with probability `p`, else input / (1 − p); input itself if not training.

    Source: Srivastava et al., "Dropout", JMLR 15 (2014).

    >>> import shared
    >>> _ = shared.manual_seed(0)
    >>> sorted(set(shared.nn.functional.dropout(shared.ones(100), 0.75).tolist()))
    [0.0, 4.0]
    """
    _check(p)
    require_tensor("dropout", "input", input)
    return _dropped(input, p, training, inplace, tuple(input.shape))


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels become 0: input (C, L) or (N, C, L)."""
    return _channels("dropout1d", 1, input, p, training, inplace)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels become 0: input (C, H, W) or (N, C, H, W)."""
    return _channels("dropout2d", 2, input, p, training, inplace)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels become 0: input (C, D, H, W) or (N, C, D, H, W)."""
    return _channels("dropout3d", 3, input, p, training, inplace)


def _channels(name: str, spatial: int, input: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    _check(p)
    if input.ndim not in (spatial + 1, spatial + 2):
        raise RuntimeError(
            f"{name}: Expected {spatial + 1}D or {spatial + 2}D input, but received a {input.ndim}D input "
            "of shape "
            f"{tuple(input.shape)}"
        )
    return _dropped(input, p, training, inplace, tuple(input.shape[:-spatial]) + (1,) * spatial)


def _dropped(input: Tensor, p: float, training: bool, inplace: bool, mask_shape: tuple[int, ...]) -> Any:
    if not training or p == 0:
        return input
    result = Dropout(p, mask_shape)(input)
    return assign(input, result) if inplace else result
