"""The feed-forward part of a transformer block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.nn import functional as F
from shared.nn.dropout import Dropout
from shared.nn.linear import Linear
from shared.nn.module import Module
from shared.tensor import Tensor


def activation_function(activation: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function that "relu" or "gelu" names; whatever can be called is returned as it is.

    RuntimeError for any other name, TypeError for what is neither a name nor callable.

    >>> activation_function("relu") is F.relu
    True
    """
    if callable(activation):
        return activation
    if not isinstance(activation, str):
        kind = type(activation).__name__
        raise TypeError(f"activation should be 'relu', 'gelu' or a function of a Tensor, but got {kind}")
    if activation not in ("relu", "gelu"):
        raise RuntimeError(f"activation should be relu/gelu, not {activation}")
    return getattr(F, activation)


class PositionwiseFeedForward(Module):
    """FFN(x) = f(x W₁ᵀ + b₁) W₂ᵀ + b₂, with dropout after f: each position for itself, all by the same weights.

    x (…, d_model) → (…, d_model), by way of (…, d_ff); the paper takes d_ff = 4 · d_model. f is `activation`: "relu",
    "gelu" or any function of a Tensor, a module included. `linear1` is the layer to d_ff, `linear2` the one back.
    Errors: RuntimeError where the last size of x is not d_model, or for an activation of another name.
    Source: Vaswani et al., "Attention is all you need", 2017, section 3.3, equation 2.

    >>> import shared
    >>> from shared import nn
    >>> feed_forward = nn.PositionwiseFeedForward(d_model=4, d_ff=16)
    >>> tuple(feed_forward(shared.ones(2, 3, 4)).shape), sum(p.numel() for p in feed_forward.parameters())
    ((2, 3, 4), 148)
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.d_model, self.d_ff = d_model, d_ff
        self.linear1 = Linear(d_model, d_ff, bias=bias, device=device, dtype=dtype)
        self.linear2 = Linear(d_ff, d_model, bias=bias, device=device, dtype=dtype)
        self.activation = activation_function(activation)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_model) → (…, d_model): `linear1`, the activation, `dropout`, `linear2`."""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))
