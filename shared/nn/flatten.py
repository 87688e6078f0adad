"""Layers that change the shape only."""

from __future__ import annotations

from collections.abc import Sequence

from shared.nn.module import Module
from shared.tensor import Tensor


class Flatten(Module):
    """(N, C, H, W) → (N, C·H·W): joins the dimensions from start_dim to end_dim."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """The opposite of Flatten: dimension `dim` becomes `unflattened_size`.

    >>> from shared import nn, zeros
    >>> tuple(nn.Unflatten(1, (2, 3))(zeros(5, 6)).shape)
    (5, 2, 3)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        super().__init__()
        if not isinstance(dim, int):
            raise TypeError(f"Unflatten expects dim to be an int, but got {type(dim).__name__}")
        if not isinstance(unflattened_size, tuple | list) or not all(isinstance(n, int) for n in unflattened_size):
            raise TypeError(f"unflattened_size must be a tuple of ints, but found {unflattened_size!r}")
        self.dim, self.unflattened_size = dim, unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
