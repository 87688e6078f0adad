"""The blocks of a transformer: attention and a feed-forward network, each in a residual connection with a norm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from shared.nn.attention import MultiHeadAttention
from shared.nn.dropout import Dropout
from shared.nn.feedforward import PositionwiseFeedForward
from shared.nn.module import Module
from shared.nn.norm import LayerNorm
from shared.tensor import Tensor


class _Block(Module):
    """What both blocks share: the residual connection."""

    norm_first: bool
    dropout: Dropout

    def add_and_norm(self, x: Tensor, part: Callable[[Tensor], Tensor], norm: Module) -> Tensor:
        """x plus what `part` makes of it, after `dropout`, with `norm` where `norm_first` puts it.

        Post-norm (`norm_first` is False), as in the paper: the sum of x and what the part made of it is normalised.
        Pre-norm: what goes into the part is normalised, and nothing stands between x and the output. Dropout is for
        what the part made, never for x. `part` and `norm` keep the shape of x, (B, T, d_model).
        Source: Xiong et al., "On layer normalization in the transformer architecture", 2020, figure 1.
        """
        if self.norm_first:
            return x + self.dropout(part(norm(x)))
        return norm(x + self.dropout(part(x)))

    def extra_repr(self) -> str:
        return f"norm_first={self.norm_first}"


class EncoderBlock(_Block):
    """Self-attention, then a feed-forward network, each with `add_and_norm`: x (B, T, d_model) → (B, T, d_model).

    With `norm_first` nothing normalises the sum of all blocks, so that a stack of them ends with a layer norm of its
    own. The same weights give what `nn.TransformerEncoderLayer` gives, but masks are True where a query MAY attend.
    With `is_causal` this is the block of a GPT.
    Errors: those of `MultiHeadAttention` and `PositionwiseFeedForward`.
    Source: Vaswani et al., "Attention is all you need", 2017, section 3.1.

    >>> import shared
    >>> from shared import nn
    >>> block = nn.EncoderBlock(d_model=8, num_heads=2, d_ff=32)
    >>> tuple(block(shared.ones(3, 5, 8)).shape)
    (3, 5, 8)
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        norm_first: bool = False,
        layer_norm_eps: float = 1e-5,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        place: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.norm_first = norm_first
        self.self_attention = MultiHeadAttention(d_model, num_heads, dropout, **place)
        self.feed_forward = PositionwiseFeedForward(d_model, d_ff, dropout, activation, **place)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, **place)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, **place)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, is_causal: bool = False, cache: Any = None) -> Tensor:
        """x (B, T, d_model) → (B, T, d_model), by `self_attention` with `norm1` and `feed_forward` with `norm2`.

        `mask`, `is_causal` and `cache` are those of `MultiHeadAttention`; where a mask and `is_causal` are given, a
        query attends to what both let through. With a cache x has the tokens that follow those in it, one or several.
        """
        attend = partial(self.self_attention, mask=mask, is_causal=is_causal, cache=cache)
        x = self.add_and_norm(x, attend, self.norm1)
        return self.add_and_norm(x, self.feed_forward, self.norm2)


class DecoderBlock(_Block):
    """Causal self-attention, attention to the encoder's output, a feed-forward network, each with `add_and_norm`.

    x (B, T, d_model) and memory (B, S, d_model) → (B, T, d_model). Everything else is as in `EncoderBlock`; the same
    weights give what `nn.TransformerDecoderLayer` gives with a causal mask.

    >>> import shared
    >>> from shared import nn
    >>> block = nn.DecoderBlock(d_model=8, num_heads=2, d_ff=32)
    >>> tuple(block(shared.ones(3, 5, 8), memory=shared.ones(3, 7, 8)).shape)
    (3, 5, 8)
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        norm_first: bool = False,
        layer_norm_eps: float = 1e-5,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        place: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.norm_first = norm_first
        self.self_attention = MultiHeadAttention(d_model, num_heads, dropout, **place)
        self.cross_attention = MultiHeadAttention(d_model, num_heads, dropout, **place)
        self.feed_forward = PositionwiseFeedForward(d_model, d_ff, dropout, activation, **place)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, **place)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, **place)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, **place)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        is_causal: bool = True,
        cache: Any = None,
    ) -> Tensor:
        """`self_attention` with `norm1`, `cross_attention` to memory with `norm2`, `feed_forward` with `norm3`.

        `mask` (T, T) or what broadcasts to (B, heads, T, T) is for the self-attention, together with `is_causal`;
        `memory_mask`, that broadcasts to (B, heads, T, S), says where the tokens of x may attend in memory. memory is
        normalised by whoever made it. `cache` is for the self-attention, as in `EncoderBlock`.
        """
        attend = partial(self.self_attention, mask=mask, is_causal=is_causal, cache=cache)
        x = self.add_and_norm(x, attend, self.norm1)
        x = self.add_and_norm(x, partial(self.cross_attention, key=memory, mask=memory_mask), self.norm2)
        return self.add_and_norm(x, self.feed_forward, self.norm3)
