"""The operations of neural networks as functions; most live in `shared.ops`, with their gradients."""

from __future__ import annotations

from typing import Any

from shared.ops.activation import (
    elu,
    gelu,
    glu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    silu,
    softplus,
    softsign,
)
from shared.ops.adaptive_pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    max_unpool1d,
    max_unpool2d,
    max_unpool3d,
)
from shared.ops.attention import scaled_dot_product_attention
from shared.ops.autocast import follows_autocast
from shared.ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from shared.ops.creation import one_hot
from shared.ops.cross_entropy import cross_entropy, nll_loss
from shared.ops.dropout import dropout, dropout1d, dropout2d, dropout3d
from shared.ops.elementwise import clamp, sigmoid, tanh
from shared.ops.embedding import embedding
from shared.ops.fold import fold, unfold
from shared.ops.interpolate import interpolate, upsample
from shared.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from shared.ops.matmul import einsum, linear
from shared.ops.normalization import batch_norm, group_norm, instance_norm, layer_norm, local_response_norm, rms_norm
from shared.ops.pool import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from shared.ops.reduce import norm
from shared.ops.rotary import apply_rotary, rotary_tables
from shared.ops.shape import pad
from shared.ops.softmax import log_softmax, softmax, softmin
from shared.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "apply_rotary",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "embedding",
    "fold",
    "gelu",
    "glu",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mish",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rotary_tables",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "softsign",
    "tanh",
    "unfold",
    "upsample",
]


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
    """input / max(‖input‖ₚ, eps), the norm taken along `dim`.

    >>> import shared
    >>> shared.nn.functional.normalize(shared.tensor([[3., 4.]]))
    tensor([[0.6000, 0.8000]])
    """
    return input / clamp(norm(input, p, dim, keepdim=True), min=eps)


@follows_autocast
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 · x2 / (max(‖x1‖, eps) · max(‖x2‖, eps)) along `dim`; the inputs broadcast.

    >>> import shared
    >>> shared.nn.functional.cosine_similarity(shared.tensor([1., 0.]), shared.tensor([1., 1.]), dim=0)
    tensor(0.7071)
    """
    lengths = clamp(norm(x1, 2, dim), min=eps) * clamp(norm(x2, 2, dim), min=eps)
    return (x1 * x2).sum(dim) / lengths


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """‖x1 − x2 + eps‖ₚ along the last dimension."""
    return norm(x1 - x2 + eps, p, -1, keepdim=keepdim)


@follows_autocast
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x₁ᵀ W_k x₂ + b_k: inputs (…, i) and (…, j), weight (k, i, j), bias (k,) → (…, k)."""
    expected = (*input1.shape[:-1], weight.shape[1]), (*input1.shape[:-1], weight.shape[2])
    if (tuple(input1.shape), tuple(input2.shape)) != expected:
        raise RuntimeError(
            f"bilinear: inputs of shapes {tuple(input1.shape)} and {tuple(input2.shape)} do not fit weight "
            f"{tuple(weight.shape)}: expected (…, {weight.shape[1]}) and (…, {weight.shape[2]}) with "
            "leading sizes "
            f"that are equal"
        )
    rows = einsum("ni,kij,nj->nk", input1.reshape(-1, weight.shape[1]), weight, input2.reshape(-1, weight.shape[2]))
    out = rows.reshape(*input1.shape[:-1], weight.shape[0])
    return out if bias is None else out + bias
