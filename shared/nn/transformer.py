"""The transformer of PyTorch's `nn`: layers, their stacks, and encoder with decoder.

Masks are read here as PyTorch reads them: in a boolean mask True means that a key may NOT be attended to, a floating
mask is added to the scores. `EncoderBlock`, `MultiHeadAttention` and `scaled_dot_product_attention` take True as "may".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from shared.nn import functional as F
from shared.nn import init
from shared.nn.attention import MultiheadAttention
from shared.nn.container import ModuleList
from shared.nn.dropout import Dropout
from shared.nn.feedforward import activation_function
from shared.nn.linear import Linear
from shared.nn.module import Module
from shared.nn.norm import LayerNorm
from shared.ops.creation import full
from shared.ops.diagonal import triu
from shared.tensor import Tensor


class _Layer(Module):
    """What both layers have: attention, a feed-forward network, and for each of these parts a norm and a dropout."""

    attentions: tuple[str, ...] = ()  # names of the attention parts, in the order in which they are applied
    self_attn: MultiheadAttention
    linear1: Linear
    dropout: Dropout
    linear2: Linear
    norm1: LayerNorm
    norm2: LayerNorm
    dropout1: Dropout
    dropout2: Dropout

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        for name in self.attentions:
            attention = MultiheadAttention(d_model, nhead, dropout, bias=bias, batch_first=batch_first, **place)
            self.add_module(name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **place)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **place)
        self.norm_first = norm_first
        parts = range(1, len(self.attentions) + 2)
        for i in parts:
            self.add_module(f"norm{i}", LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place))
        for i in parts:
            self.add_module(f"dropout{i}", Dropout(dropout))
        self.activation = activation_function(activation)

    def _sa_block(
        self, x: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        """Self-attention, then dropout."""
        return self.dropout1(_attend(self.self_attn, x, x, attn_mask, key_padding_mask, is_causal))

    def _feed_forward(self, x: Tensor) -> Tensor:
        """The network alone: the dropout of what it makes is `_ff_block`'s."""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


def _attend(
    attention: MultiheadAttention,
    x: Tensor,
    memory: Tensor,
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    is_causal: bool,
) -> Tensor:
    """What the positions of x read in `memory`, without the weights."""
    return attention(x, memory, memory, key_padding_mask, False, attn_mask, is_causal=is_causal)[0]


class TransformerEncoderLayer(_Layer):
    """Self-attention, then a feed-forward network, each with a residual connection, dropout and layer norm.

    src (S, N, d_model), with `batch_first` (N, S, d_model), or (S, d_model) → the same shape. The norm comes after the
    sum, x ← norm(x + part(x)), or with `norm_first` before the part, x ← x + part(norm(x)). `activation` is "relu",
    "gelu" or a function of a Tensor. State-dict keys and layouts are PyTorch's.
    Errors: those of `MultiheadAttention` and `Linear`; RuntimeError for an activation of another name.
    Source: Vaswani et al., "Attention is all you need", 2017, section 3.1; for `norm_first` Xiong et al., "On layer
    normalization in the transformer architecture", 2020, figure 1.

    >>> import shared
    >>> from shared import nn
    >>> layer = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16, batch_first=True)
    >>> tuple(layer(shared.ones(3, 5, 8)).shape)
    (3, 5, 8)
    """

    attentions = ("self_attn",)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """The layer's output for `src`; boolean masks are True where a key may not be attended to.

        src_mask (S, S) or (N · nhead, S, S), src_key_padding_mask (N, S), or (S,) for one sequence. `is_causal` is a
        hint that src_mask, which has to be given too, is the causal one and need not be read; beside any other mask it
        is wrong. `src` is not changed.
        """
        x = src
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), src_mask, src_key_padding_mask, is_causal)
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(x + self._sa_block(x, src_mask, src_key_padding_mask, is_causal))
        return self.norm2(x + self._ff_block(x))

    def _ff_block(self, x: Tensor) -> Tensor:
        """The feed-forward network, then dropout."""
        return self.dropout2(self._feed_forward(x))


class TransformerDecoderLayer(_Layer):
    """Masked self-attention, attention to the encoder's output, then a feed-forward network.

    tgt (T, N, d_model) and memory (S, N, d_model), with `batch_first` (N, T, d_model) and (N, S, d_model), or
    (T, d_model) and (S, d_model) → the shape of tgt. Everything else is as in `TransformerEncoderLayer`.

    >>> import shared
    >>> from shared import nn
    >>> layer = nn.TransformerDecoderLayer(d_model=8, nhead=2, dim_feedforward=16, batch_first=True)
    >>> tuple(layer(shared.ones(3, 5, 8), memory=shared.ones(3, 7, 8)).shape)
    (3, 5, 8)
    """

    attentions = ("self_attn", "multihead_attn")
    multihead_attn: MultiheadAttention
    norm3: LayerNorm
    dropout3: Dropout

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """The layer's output for `tgt`; boolean masks are True where a key may not be attended to.

        tgt_mask (T, T) and memory_mask (T, S), or one for each head, (N · nhead, T, …); tgt_key_padding_mask (N, T),
        memory_key_padding_mask (N, S). The two hints say that the mask of that name is the causal one.
        """
        x = tgt
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), tgt_mask, tgt_key_padding_mask, tgt_is_causal)
            x = x + self._mha_block(self.norm2(x), memory, memory_mask, memory_key_padding_mask, memory_is_causal)
            return x + self._ff_block(self.norm3(x))
        x = self.norm1(x + self._sa_block(x, tgt_mask, tgt_key_padding_mask, tgt_is_causal))
        x = self.norm2(x + self._mha_block(x, memory, memory_mask, memory_key_padding_mask, memory_is_causal))
        return self.norm3(x + self._ff_block(x))

    def _mha_block(
        self, x: Tensor, mem: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        """Attention to the encoder's output, then dropout."""
        return self.dropout2(_attend(self.multihead_attn, x, mem, attn_mask, key_padding_mask, is_causal))

    def _ff_block(self, x: Tensor) -> Tensor:
        """The feed-forward network, then dropout."""
        return self.dropout3(self._feed_forward(x))


class TransformerEncoder(Module):
    """`num_layers` copies of `encoder_layer`, one after the other, then `norm` where one is given.

    All copies start with the same weights. `enable_nested_tensor` and `mask_check` are accepted and change nothing:
    padded positions are computed like all others.

    >>> import shared
    >>> from shared import nn
    >>> layer = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16, batch_first=True)
    >>> tuple(nn.TransformerEncoder(layer, num_layers=2)(shared.ones(3, 5, 8)).shape)
    (3, 5, 8)
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ):
        super().__init__()
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers, self.norm = num_layers, norm
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """The last layer's output, normalised by `norm`; masks as in `TransformerEncoderLayer`.

        `is_causal` says whether `mask` is the causal one; for None `_is_causal_mask` looks at it, since a mask may be
        another one.
        """
        is_causal = _is_causal_mask(mask) if is_causal is None else is_causal
        x = src
        for layer in self.layers:
            x = layer(x, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=is_causal)
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(Module):
    """`num_layers` copies of `decoder_layer`, one after the other, then `norm` where one is given.

    All copies start with the same weights; each attends to the same `memory`.

    >>> import shared
    >>> from shared import nn
    >>> layer = nn.TransformerDecoderLayer(d_model=8, nhead=2, dim_feedforward=16, batch_first=True)
    >>> tuple(nn.TransformerDecoder(layer, num_layers=2)(shared.ones(3, 5, 8), shared.ones(3, 7, 8)).shape)
    (3, 5, 8)
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None):
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers, self.norm = num_layers, norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """The last layer's output, normalised by `norm`; masks as in `TransformerDecoderLayer`.

        `tgt_is_causal` says whether `tgt_mask` is the causal one; for None it is looked at.
        """
        x = tgt
        for layer in self.layers:
            x = layer(
                x,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=_is_causal_mask(tgt_mask) if tgt_is_causal is None else tgt_is_causal,
                memory_is_causal=memory_is_causal,
            )
        return x if self.norm is None else self.norm(x)


class Transformer(Module):
    """An encoder that reads `src`, and a decoder that reads `tgt` and what the encoder made of `src`.

    src (S, N, d_model) and tgt (T, N, d_model), with `batch_first` (N, S, d_model) and (N, T, d_model), or (S, d_model)
    and (T, d_model) → the shape of tgt. Embeddings, positions and the layer that gives logits are not part of it.
    Both stacks end with a layer norm; all matrices start Xavier uniform. State-dict keys and layouts are PyTorch's.
    `custom_encoder` and `custom_decoder` take the place of a stack and are called with the same arguments.
    Source: Vaswani et al., "Attention is all you need", 2017.

    >>> import shared
    >>> from shared import nn
    >>> model = nn.Transformer(8, 2, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=16)
    >>> tuple(model(shared.ones(7, 3, 8), shared.ones(5, 3, 8)).shape)
    (5, 3, 8)
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = F.relu,
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        place: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        options = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first)
        if custom_encoder is None:
            norm = LayerNorm(d_model, eps=layer_norm_eps, **place)
            custom_encoder = TransformerEncoder(TransformerEncoderLayer(*options, **place), num_encoder_layers, norm)
        if custom_decoder is None:
            norm = LayerNorm(d_model, eps=layer_norm_eps, **place)
            custom_decoder = TransformerDecoder(TransformerDecoderLayer(*options, **place), num_decoder_layers, norm)
        self.encoder, self.decoder = custom_encoder, custom_decoder
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """All matrices Xavier uniform; vectors stay as their modules set them."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """The decoder's output for `tgt`, given `src`; boolean masks are True where a key may not be attended to.

        src_mask (S, S), tgt_mask (T, T), memory_mask (T, S), or one for each head with N · nhead in front;
        src_key_padding_mask and memory_key_padding_mask (N, S), tgt_key_padding_mask (N, T). A source with padding
        needs its mask twice: as src_key_padding_mask and as memory_key_padding_mask.
        Errors: RuntimeError where src and tgt have different batch sizes, or another width than d_model.
        """
        batch = 0 if self.batch_first else 1
        if src.ndim == 3 and src.shape[batch] != tgt.shape[batch]:
            raise RuntimeError(
                f"the batch number of src and tgt must be equal, but src has shape {tuple(src.shape)} and tgt "
                f"{tuple(tgt.shape)} (batch_first={self.batch_first})"
            )
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise RuntimeError(
                f"the feature number of src and tgt must be equal to d_model={self.d_model}, but src has shape "
                f"{tuple(src.shape)} and tgt {tuple(tgt.shape)}"
            )
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """The causal mask (sz, sz) that is added to scores: 0 up to the diagonal, −inf above it.

        >>> Transformer.generate_square_subsequent_mask(3)
        tensor([[0., -inf, -inf],
                [0., 0., -inf],
                [0., 0., 0.]])
        """
        return triu(full((sz, sz), -math.inf, device=device, dtype=dtype), 1)


def _copies(layer: Module, count: int) -> ModuleList:
    return ModuleList([deepcopy(layer) for _ in range(count)])


def _is_causal_mask(mask: Tensor | None) -> bool:
    """Whether a mask, boolean or added, is that of `generate_square_subsequent_mask`.

    Attention that knows this need not read the mask, and leaves out half of the scores.
    """
    if mask is None or mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        return False
    causal = Transformer.generate_square_subsequent_mask(len(mask), mask.device, mask.dtype)
    return bool((mask.array == causal.array).all())
