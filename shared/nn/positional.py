"""Positional encodings: without them attention sees a set of tokens, not a sequence."""

from __future__ import annotations

from typing import Any

from shared.arrays import dtypes
from shared.nn import init
from shared.nn.dropout import Dropout
from shared.nn.module import Module
from shared.nn.parameter import Parameter
from shared.ops.creation import empty
from shared.ops.elementwise import cos, sin
from shared.ops.operands import cast
from shared.ops.rotary import position_angles
from shared.tensor import Tensor


def sinusoidal_encoding(
    length: int, d_model: int, base: float = 10000.0, device: Any = None, dtype: Any = None
) -> Tensor:
    """A vector for each position 0 … length − 1, made of waves from fast to slow: Tensor (length, d_model).

    Number 2k of position p is sin(p ωₖ) and number 2k + 1 is cos(p ωₖ), with ωₖ = base^(−2k/d_model). An odd d_model
    ends with a sine. `shared.ops.rotary.position_angles(length, d_model, base, device)` gives all p ωₖ, float64
    (length, ceil(d_model/2)); the result is rounded once, to `dtype` (None: `dtypes.get_default_dtype()`).
    Source: Vaswani et al., "Attention is all you need", 2017, section 3.5.

    >>> sinusoidal_encoding(2, 4)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    angles = position_angles(length, d_model, base, device)
    encoding = empty(length, d_model, device=device, dtype=angles.dtype)
    encoding[:, 0::2] = sin(angles)
    encoding[:, 1::2] = cos(angles)[:, : d_model // 2]
    return cast(encoding, dtypes.get_default_dtype() if dtype is None else dtype)


class _AddPositions(Module):
    """What both kinds share: x + the rows of a table that belong to its positions, then dropout."""

    def __init__(self, d_model: int, dropout: float, max_len: int, batch_first: bool):
        super().__init__()
        kind = type(self).__name__
        for name, value in (("d_model", d_model), ("max_len", max_len)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{kind}: expected {name} to be an int of at least 1, but got {value!r}")
        self.d_model, self.max_len, self.batch_first = d_model, max_len, batch_first
        self.dropout = Dropout(dropout)

    def table(self) -> Tensor:
        """The vectors of all positions, (max_len, d_model)."""
        raise NotImplementedError(f"{type(self).__name__} must write table(self)")

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x (B, T, d_model), or (T, B, d_model) unless `batch_first`, or (T, d_model), plus the vectors of positions
        start … start + T − 1; then `self.dropout`. A new Tensor of x's shape.

        `self.table()` has the vectors, a row for each position. `start` is for text that continues: the number of
        tokens that came before. RuntimeError where the width is not d_model or the positions go beyond max_len:
        `self._check(x, start)` raises it.
        """
        self._check(x, start)
        length = x.shape[-2] if self.batch_first or x.ndim == 2 else x.shape[0]
        rows = self.table()[start : start + length]
        return self.dropout(x + (rows if self.batch_first or x.ndim == 2 else rows.unsqueeze(1)))

    def _check(self, x: Tensor, start: int) -> None:
        kind, layout = type(self).__name__, "(batch, seq, d_model)" if self.batch_first else "(seq, batch, d_model)"
        if x.ndim not in (2, 3) or x.shape[-1] != self.d_model:
            raise RuntimeError(
                f"{kind}: expected {layout} or (seq, d_model) with d_model={self.d_model}, but got shape "
                f"{tuple(x.shape)}"
            )
        length = x.shape[-2] if self.batch_first or x.ndim == 2 else x.shape[0]
        if start < 0 or start + length > self.max_len:
            raise RuntimeError(
                f"{kind}: positions {start} … {start + length - 1} are asked for, but there are vectors for "
                f"0 … {self.max_len - 1} only. x of shape {tuple(x.shape)} is read as {layout} "
                f"(batch_first={self.batch_first}); give a larger max_len if that is right"
            )

    def extra_repr(self) -> str:
        return f"{self.d_model}, max_len={self.max_len}, batch_first={self.batch_first}"


class PositionalEncoding(_AddPositions):
    """Adds `sinusoidal_encoding` to embedded tokens, then dropout: shapes as for `forward`, nothing to learn.

    As in PyTorch's tutorial "Language Modeling with nn.Transformer and torchtext", the table is a buffer `pe` of shape
    (max_len, 1, d_model) that is part of the state dict, whatever `batch_first` is: a state dict of that module can be
    loaded here. Unlike there, an odd `d_model` is allowed, and (batch, seq, d_model) is the default, since that is how
    a DataLoader and an Embedding give batches. The paper multiplies the embedding by √d_model first; this does not.
    Source: Vaswani et al., "Attention is all you need", 2017, section 3.5.

    >>> import shared
    >>> from shared import nn
    >>> encode = nn.PositionalEncoding(4, dropout=0.0)
    >>> encode(shared.zeros(1, 2, 4))[0, 1]
    tensor([0.8415, 0.5403, 0.0100, 0.9999])
    """

    pe: Tensor

    def __init__(
        self,
        d_model: int,
        dropout: float = 0.1,
        max_len: int = 5000,
        batch_first: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(d_model, dropout, max_len, batch_first)
        self.register_buffer("pe", sinusoidal_encoding(max_len, d_model, device=device, dtype=dtype).unsqueeze(1))

    def table(self) -> Tensor:
        """The vectors of all positions, (max_len, d_model), out of the buffer `self.pe` (max_len, 1, d_model)."""
        return self.pe[:, 0]


class LearnedPositionalEncoding(_AddPositions):
    """Adds a learned vector for each position to embedded tokens, then dropout: shapes as for `forward`.

    `weight` (max_len, d_model) starts normal with standard deviation 0.02. A position that no training text reached
    keeps the vector it started with.
    Source: Radford et al., "Improving language understanding by generative pre-training", 2018, section 4.1.

    >>> import shared
    >>> from shared import nn
    >>> encode = nn.LearnedPositionalEncoding(4, max_len=10)
    >>> tuple(encode(shared.zeros(3, 10, 4)).shape), tuple(encode.weight.shape)
    ((3, 10, 4), (10, 4))
    """

    def __init__(
        self,
        d_model: int,
        dropout: float = 0.1,
        max_len: int = 5000,
        batch_first: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(d_model, dropout, max_len, batch_first)
        self.weight = Parameter(empty(max_len, d_model, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws `self.weight` anew, in place: normal with mean 0 and standard deviation 0.02 (`init` has it)."""
        init.normal_(self.weight, std=0.02)

    def table(self) -> Tensor:
        """The vectors of all positions, (max_len, d_model): the parameter, so that gradients reach it."""
        return self.weight
