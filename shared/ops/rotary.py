"""Rotary position embedding: pairs of numbers turned by angles that grow with the position.

Sources: Vaswani et al., "Attention is all you need", 2017, section 3.5 (the frequencies); Su et al., "RoFormer:
Enhanced transformer with rotary position embedding", 2021, section 3.4 (the rotation).
"""

from __future__ import annotations

from typing import Any

from shared.arrays import dtypes
from shared.arrays.device import check_same_device, xp
from shared.autograd import Function
from shared.ops import elementwise
from shared.ops.activation import in_float32, require_floating, require_tensor
from shared.ops.creation import arange
from shared.ops.operands import cast
from shared.tensor import Tensor


def angular_frequencies(dim: int, base: float = 10000.0, device: Any = None) -> Tensor:
    """How far one step of position turns each pair of numbers: ωₖ = base^(−2k/dim), in radians, for k = 0, 1, ….

    A float64 Tensor (ceil(dim/2),) on `device`: from 1 down by equal factors. The last of an even dim is
    base^(2/dim) / base, which comes near 1/base where dim is large. ValueError where dim < 1 or base ≤ 0.
    (`arange(…, dtype=dtypes.float64, device=device)` counts.)

    >>> angular_frequencies(4).tolist()
    [1.0, 0.01]
    """
    if dim < 1 or base <= 0:
        raise ValueError(f"angular_frequencies: expected dim of at least 1 and base above 0, but got {dim=}, {base=}")
    pairs = arange(0, dim, 2, dtype=dtypes.float64, device=device)
    return base ** (-pairs / dim)


def position_angles(positions: int | Tensor, dim: int, base: float = 10000.0, device: Any = None) -> Tensor:
    """position · ωₖ for each position and each pair: float64 (*positions.shape, ceil(dim/2)), in radians.

    `positions`: a Tensor of numbers, on whose device the result is, or an int n for 0, 1, …, n − 1 on `device`; n < 0
    is a ValueError, anything else a TypeError (by `require_tensor`). `angular_frequencies` gives the ωₖ,
    `cast(x, dtypes.float64)` the same numbers in another dtype.

    >>> position_angles(3, 4).tolist()
    [[0.0, 0.0], [1.0, 0.01], [2.0, 0.02]]
    """
    if isinstance(positions, int):
        if positions < 0:
            raise ValueError(f"position_angles: expected a number of positions of at least 0, but got {positions}")
        positions = arange(positions, device=device)
    require_tensor("position_angles", "positions", positions)
    frequencies = angular_frequencies(dim, base, positions.device)
    return cast(positions, dtypes.float64).unsqueeze(-1) * frequencies


def rotary_tables(
    positions: int | Tensor, dim: int, base: float = 10000.0, device: Any = None, dtype: Any = dtypes.float32
) -> tuple[Tensor, Tensor]:
    """The cosines and sines of `position_angles`, for `apply_rotary`: two Tensors (*positions.shape, dim/2).

    `dim`, the size of a head, must be even, else ValueError. The angles are computed in float64 and rounded once, to
    `dtype`: in float32 that of position 100,000 would be off by up to 0.002.

    >>> cos, sin = rotary_tables(5, 8)
    >>> tuple(cos.shape), cos[0].tolist(), sin[0].tolist()
    ((5, 4), [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0])
    """
    if dim % 2:
        raise ValueError(f"rotary_tables: numbers are rotated in pairs, so dim must be even, but got {dim}")
    angles = position_angles(positions, dim, base, device)
    return cast(elementwise.cos(angles), dtype), cast(elementwise.sin(angles), dtype)


def pairs_of(size: int, interleaved: bool) -> tuple[tuple, tuple]:
    """Where the first and the second numbers of all pairs are in the last dimension, of `size`, as two indices.

    Pair k is made of the numbers 2k and 2k + 1 if `interleaved`, else of k and k + size/2. An index begins with `...`,
    so that it fits an array of any number of dimensions.

    >>> list(range(6))[pairs_of(6, interleaved=False)[1][1]], list(range(6))[pairs_of(6, interleaved=True)[1][1]]
    ([3, 4, 5], [1, 3, 5])
    """
    if interleaved:
        return (..., slice(0, None, 2)), (..., slice(1, None, 2))
    return (..., slice(0, size // 2)), (..., slice(size // 2, None))


def rotate(x: Any, cos: Any, sin: Any, interleaved: bool) -> Any:
    """Turns each pair of the array x (…, D) by its angle, of which cos and sin (…, D/2) are given; a new array.

    (a, b) → (a cos − b sin, b cos + a sin), where `pairs_of` says which numbers are a pair; both stay at their places.
    The result has x's shape and dtype (`xp(x).empty(shape, dtype)` is room for it). With −sin it is the
    rotation back.
    """
    first, second = pairs_of(x.shape[-1], interleaved)
    a, b = x[first], x[second]
    out = xp(x).empty(x.shape, x.dtype)
    out[first] = a * cos - b * sin
    out[second] = b * cos + a * sin
    return out


class Rotary(Function):
    """Pairs turned by angles: (a cos − b sin, b cos + a sin); the gradient is turned back"""

    twice = True

    def __init__(self, interleaved: bool):
        self.interleaved = interleaved

    def forward(self, x, cos, sin):
        """Arrays x (…, D), cos and sin (…, D/2) → x with its pairs turned.

        `self.saved` = (x, cos, sin) is for `backward`; x, which only the gradients by cos and sin need, is None unless
        `self.needs[1] or self.needs[2]`.
        """
        self.saved = (x if self.needs[1] or self.needs[2] else None, cos, sin)
        return rotate(x, cos, sin, self.interleaved)

    def backward(self, grad):
        """The gradients by x (…, D), by cos and by sin (…, D/2); None where `self.needs` of it is False.

        By x it is `grad` turned back. Broadcasting of cos and sin is undone by the caller. `grad` is an array, or a
        Tensor where a gradient is differentiated itself: `self.turned(grad, cos, sin)` turns either; else use indices
        and operators, which both have.
        """
        x, cos, sin = self.saved
        by_x = self.turned(grad, cos, -sin) if self.needs[0] else None
        if x is None:
            return by_x, None, None
        first, second = pairs_of(grad.shape[-1], self.interleaved)
        a, b, by_a, by_b = x[first], x[second], grad[first], grad[second]
        by_cos = by_a * a + by_b * b if self.needs[1] else None
        by_sin = by_b * a - by_a * b if self.needs[2] else None
        return by_x, by_cos, by_sin

    def turned(self, x, cos, sin):
        """`rotate` of arrays; of Tensors the same as an operation, which can be differentiated."""
        if isinstance(x, Tensor):
            return Rotary(self.interleaved)(x, cos, sin)
        return rotate(x, cos, sin, self.interleaved)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """The queries or keys x (…, T, D) with each pair of numbers turned by its position's angle; x's shape and dtype.

    `cos` and `sin` are those of `rotary_tables`, (T, D/2), or of any shape that broadcasts to (…, T, D/2): for x laid
    out (B, T, H, D) give `cos[:, None]`, for positions (B, T) and x (B, H, T, D) `cos[:, None]` as well. Which two
    numbers are a pair:

    - `interleaved=False`, "half-split": xₖ and xₖ₊D/₂, as in GPT-NeoX and the Llama of Hugging Face's transformers;
    - `interleaved=True`: x₂ₖ and x₂ₖ₊₁, as in the RoFormer paper, GPT-J and Meta's own Llama.

    Both are the same rotation of differently ordered dimensions; weights made for one are wrong for the other.
    Lengths stay, and q·k after it depends on positions only through their difference. Differentiable, by x through the
    rotation back. Errors: RuntimeError where the shapes do not fit.

    >>> import shared
    >>> cos, sin = rotary_tables(2, 2)
    >>> apply_rotary(shared.tensor([[1., 0.], [1., 0.]]), cos, sin)
    tensor([[1.0000, 0.0000],
            [0.5403, 0.8415]])
    """
    require_floating("apply_rotary", x)
    require_tensor("apply_rotary", "cos", cos)
    require_tensor("apply_rotary", "sin", sin)
    check_same_device("apply_rotary", [x.array, cos.array, sin.array])
    _check_tables(tuple(x.shape), tuple(cos.shape), tuple(sin.shape))
    table_dtype = dtypes.float64 if x.dtype == dtypes.float64 else dtypes.float32
    return in_float32(Rotary(interleaved), x, cast(cos, table_dtype), cast(sin, table_dtype))


def _check_tables(x: tuple[int, ...], cos: tuple[int, ...], sin: tuple[int, ...]) -> None:
    """RuntimeError where cos and sin are not alike, or do not broadcast to x with half of its last dimension."""
    if not x or x[-1] % 2:
        raise RuntimeError(f"apply_rotary: the last dimension of x must be even to be rotated in pairs, but x is {x}")
    pairs = (*x[:-1], x[-1] // 2)
    fits = len(cos) <= len(x) and all(n in (1, m) for n, m in zip(cos[::-1], pairs[::-1], strict=False))
    if cos != sin or not fits or not cos or cos[-1] != pairs[-1]:
        raise RuntimeError(
            f"apply_rotary: for x of shape {x}, cos and sin must broadcast to {pairs}, half the last dimension, but "
            f"got {cos} and {sin}"
        )
