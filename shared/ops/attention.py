"""Scaled dot-product attention: as one operation, or in parts where the weights are wanted."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from shared.arrays import dtypes, random
from shared.arrays.device import device_of, xp
from shared.arrays.kernels import attention as kernels
from shared.autograd import Function, is_grad_enabled
from shared.ops import elementwise, join, shape
from shared.ops.activation import in_float32, natively, require_floating, require_tensor
from shared.ops.autocast import follows_autocast
from shared.ops.dropout import dropout
from shared.ops.operands import cast
from shared.ops.softmax import softmax
from shared.tensor import Tensor


class _Attention(Function):
    """softmax(q kᵀ · scale + mask) · v; what backward needs of the weights is one number per query"""

    twice = True

    def __init__(self, diagonal: int | None, scale: float, p: float):
        self.diagonal, self.scale, self.p, self.seed = diagonal, scale, float(p), 0

    def attend(self, q, k, v, mask):
        """(out, logs) of `reference.attention_forward`, with a seed of its own."""
        if self.p:
            self.seed = random.default_generator(device_of(q)).draw_seed()
        return kernels.attention_forward(q, k, v, mask, self.diagonal, self.scale, self.p, self.seed)

    def gradients(self, q, k, v, out, logs, grad, mask, into=None):
        """The gradients by q, k and v, arrays."""
        rest = mask, self.diagonal, self.scale, self.p, self.seed
        return kernels.attention_backward(q, k, v, out, logs, grad, *rest, into)

    def gradients_of_tensors(self, q, k, v, grad, mask):
        """The same by the formula, of Tensors: the weights once more, as they depend on q and k."""
        masks = kernels.reference.all_masks(q.array, k.array, None if mask is None else mask.array, self.diagonal)
        heads, group = k.shape[1], q.shape[1] // k.shape[1]
        if group > 1:
            k, v = (shape.repeat_interleave(x, group, dim=1) for x in (k, v))
        factors = kernels.reference.dropout_factors(q.array, k.array, self.p, self.seed)
        factors = None if factors is None else Tensor(factors)
        weights = attention_weights(q, k, None if masks is None else Tensor(masks), self.scale)
        to_q, to_k, to_v = kernels.reference.attention_gradient(q, k, v, weights, grad, self.scale, factors)
        if group > 1:
            to_k, to_v = (x.reshape(len(x), heads, group, *x.shape[2:]).sum(dim=2) for x in (to_k, to_v))
        return to_q, to_k, to_v


class Attention(_Attention):
    """Of q (B, H, L, E), k (B, G, S, E), v (B, G, S, F), perhaps a mask that broadcasts to (B, H, L, S)"""

    def forward(self, q, k, v, mask=None):
        out, logs = self.attend(q, k, v, mask)
        self.saved = (q, k, v, out, logs, mask)
        return out

    def backward(self, grad):
        q, k, v, out, logs, mask = self.saved
        if isinstance(grad, Tensor):
            found = self.gradients_of_tensors(q, k, v, grad, mask)
        else:
            found = self.gradients(q, k, v, out, logs, grad, mask)
        return (*found, None)[: len(self.needs)]


class PackedAttention(_Attention):
    """Of queries, keys and values side by side in one array (B, L, 3 · H · E)"""

    def __init__(self, num_heads: int, diagonal: int | None, scale: float, p: float):
        super().__init__(diagonal, scale, p)
        self.num_heads = num_heads

    def parts(self, packed):
        """Views (B, H, L, E) of queries, keys and values; of a Tensor as well."""
        batch, length, width = packed.shape
        heads = packed.reshape(batch, length, 3, self.num_heads, width // (3 * self.num_heads))
        return [heads[:, :, i].swapaxes(1, 2) for i in range(3)]

    def forward(self, packed, mask=None):
        batch, length, width = packed.shape
        out, logs = self.attend(*self.parts(packed), mask)
        out = out.swapaxes(1, 2).reshape(batch, length, width // 3)
        self.saved = (packed, out, logs, mask)
        return out

    def backward(self, grad):
        packed, out, logs, mask = self.saved
        out, grad = (self.heads(x) for x in (out, grad))
        if isinstance(grad, Tensor):
            found = self.gradients_of_tensors(*self.parts(packed), grad, mask)
            to_packed = join.cat([x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1) for x in found], 2)
        else:
            to_packed = xp(packed).empty(packed.shape, packed.dtype)
            self.gradients(*self.parts(packed), out, logs, grad, mask, tuple(self.parts(to_packed)))
        return (to_packed, None)[: len(self.needs)]

    def heads(self, x):
        """(B, L, H · E) → (B, H, L, E)."""
        batch, length, width = x.shape
        return x.reshape(batch, length, self.num_heads, width // self.num_heads).swapaxes(1, 2)


# ---------------------------------------------------------------- in parts


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(q kᵀ · scale) over the keys that `mask` lets through, (…, L, S); 0 for a query that sees none."""
    scores = q @ k.mT * scale
    if mask is not None:
        if mask.array.dtype == bool:
            scores = elementwise.where(mask, scores, -math.inf)
        else:
            scores = scores + cast(mask, scores.array.dtype)
    alive = (scores.array != -math.inf).any(axis=-1, keepdims=True)
    if scores.shape[-1] and not bool(alive.all()):
        living = Tensor(alive)
        return softmax(elementwise.where(living, scores, 0.0), -1) * cast(living, scores.array.dtype)
    return softmax(scores, -1)


def attention_with_weights(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, diagonal: int | None, scale: float, p: float
) -> tuple[Tensor, Tensor]:
    """(out, weights) of `attention`, all in operations of their own: (…, L, F) and, after dropout, (…, L, S)."""
    if diagonal is not None:
        ahead = Tensor(kernels.reference.look_ahead(q.shape[-2], k.shape[-2], diagonal, q.array))
        if mask is None:
            mask = ahead
        elif mask.array.dtype == bool:
            mask = mask & ahead
        else:
            mask = elementwise.where(ahead, mask, -math.inf)
    weights = attention_weights(q, k, mask, scale)
    weights = dropout(weights, p)
    return weights @ v, weights


# ---------------------------------------------------------------- front doors


@follows_autocast
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    diagonal: int | None = None,
    scale: float | None = None,
    p: float = 0.0,
) -> Tensor:
    """Attention of q (B, H, L, E), k (B, G, S, E), v (B, G, S, F) → (B, H, L, F), G dividing H.

    `mask` is boolean (True: may attend) or added to the scores, and broadcasts to (B, H, L, S). With a `diagonal`,
    query r sees the keys up to r + diagonal, and of these what the mask lets through. `scale` is 1/√E unless given;
    weights are dropped with probability `p`.
    """
    scale = default_scale(q) if scale is None else scale
    if mask is not None and mask.requires_grad and is_grad_enabled():
        if q.shape[1] != k.shape[1]:
            k, v = (shape.repeat_interleave(x, q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        return attention_with_weights(q, k, v, mask, diagonal, scale, p)[0]
    masks = [] if mask is None else [_for_scores(mask, q)]
    return _computed(
        lambda q, k, v: Attention(diagonal, scale, p)(q, k, v, *masks), max(q.shape[3], v.shape[3]), q, k, v
    )


@follows_autocast
def packed_attention(
    packed: Tensor,
    num_heads: int,
    mask: Tensor | None = None,
    diagonal: int | None = None,
    scale: float | None = None,
    p: float = 0.0,
) -> Tensor:
    """Self-attention of (B, L, 3 · d), each row a query, key and value of d numbers, cut into heads → (B, L, d).

    The heads are read, and their gradients written, where they lie. The other arguments are those of `attention`.
    """
    width = packed.shape[2] // (3 * num_heads)
    scale = default_scale(packed.array[..., :width]) if scale is None else scale
    masks = [] if mask is None else [_for_scores(mask, packed)]
    return _computed(lambda packed: PackedAttention(num_heads, diagonal, scale, p)(packed, *masks), width, packed)


def _computed(function: Callable[..., Tensor], width: int, *inputs: Tensor) -> Tensor:
    """`function` of heads of `width`; those of float16 and bfloat16 that no kernel takes go through float32."""
    if width > kernels.WIDEST:
        return in_float32(function, *inputs)
    return natively("attention", function, *inputs)


def _for_scores(mask: Tensor, q: Tensor) -> Tensor:
    """A mask that is added, in the dtype that the scores are computed in."""
    if mask.array.dtype == bool:
        return mask
    return cast(mask, dtypes.float32 if q.array.dtype.itemsize < 4 else q.array.dtype)


def default_scale(q: Tensor) -> float:
    """What the scores are multiplied with unless told otherwise: 1/√E for queries (…, E), of which only E counts.

    It keeps the variance of the scores at 1 where the components of queries and keys have variance 1. For E = 0, where
    every score is 0, it is 1. The result is a Python number, which widens no dtype; q may be an array as well.

    >>> import shared
    >>> default_scale(shared.zeros(2, 8, 5, 16))
    0.25
    """
    return max(q.shape[-1], 1) ** -0.5


@follows_autocast
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query keyᵀ · scale) value: for each query the average of the values, weighted by the keys' likeness.

    query (…, L, E), key (…, S, E), value (…, S, F) → (…, L, F); leading dimensions broadcast. `attn_mask` broadcasts to
    (…, L, S): boolean, True where a query may attend to a key, or floating, added to the scores. `is_causal` lets
    query i see the keys 0 … i, and goes without `attn_mask`. A query that may see no key gets 0, and finite gradients.
    `scale` is 1/√E unless given. With `enable_gqa` the third-last sizes may differ: each head of keys and values serves
    several heads of queries, one after the other. `dropout_p` is applied always: pass 0 in evaluation.
    Errors: RuntimeError for shapes and dtypes that do not fit together.
    Source: Vaswani et al., "Attention is all you need", 2017, section 3.2.1.

    >>> import shared
    >>> value = shared.tensor([[1.0], [3.0]])
    >>> shared.nn.functional.scaled_dot_product_attention(shared.zeros(2, 4), shared.ones(2, 4), value, is_causal=True)
    tensor([[1.],
            [2.]])
    """
    name = "scaled_dot_product_attention"
    _check(name, query, key, value, attn_mask, dropout_p, is_causal)
    lead, key_lead = _leading(name, query, key, value, enable_gqa)
    scale = default_scale(query) if scale is None else float(scale)
    q = _four_dimensional(query, lead)
    k, v = (_four_dimensional(x, key_lead) for x in (key, value))
    mask = None if attn_mask is None else _mask(name, attn_mask, (*lead, query.shape[-2], key.shape[-2]))
    out = attention(q, k, v, mask, 0 if is_causal else None, scale, dropout_p)
    return out if len(lead) == 2 else out.reshape(*lead, query.shape[-2], value.shape[-1])


def _check(
    name: str, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, is_causal: bool
) -> None:
    for role, x in (("query", query), ("key", key), ("value", value)):
        require_tensor(name, role, x)
    require_floating(name, query)
    if not 0 <= dropout_p <= 1:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")
    shapes = [tuple(x.shape) for x in (query, key, value)]
    if min(map(len, shapes)) < 2:
        raise RuntimeError(f"{name}: expected query, key and value with at least 2 dimensions, but got {shapes}")
    if len({x.array.dtype for x in (query, key, value)}) > 1:
        found = ", ".join(x.array.dtype.name for x in (query, key, value))
        raise RuntimeError(f"{name}: expected query, key and value to have the same dtype, but got {found}")
    if shapes[0][-1] != shapes[1][-1] or shapes[1][-2] != shapes[2][-2]:
        raise RuntimeError(
            f"{name}: query (…, L, E), key (…, S, E) and value (…, S, F) are expected, but got {shapes[0]}, "
            f"{shapes[1]} and {shapes[2]}"
        )
    if mask is None:
        return
    require_tensor(name, "attn_mask", mask)
    if is_causal:
        raise RuntimeError(f"{name}: Explicit attn_mask should not be set when is_causal=True")
    if mask.array.dtype not in (np.dtype(bool), dtypes.float32, query.array.dtype):
        raise RuntimeError(
            f"{name}: Expected attn_mask dtype to be bool or float or to match query dtype "
            f"({query.array.dtype.name}), but got {mask.array.dtype.name}"
        )


def _leading(name: str, query: Tensor, key: Tensor, value: Tensor, grouped: bool) -> tuple[tuple, tuple]:
    """The leading dimensions of queries, and of keys and values, after broadcasting."""
    shapes = [tuple(x.shape) for x in (query, key, value)]
    own = 3 if grouped else 2  # dimensions that do not broadcast
    try:
        if min(map(len, shapes)) < own:
            raise ValueError
        batch = np.broadcast_shapes(*[s[:-own] for s in shapes])
    except ValueError:
        raise RuntimeError(
            f"{name}: the leading dimensions of query {shapes[0]}, key {shapes[1]} and value {shapes[2]} do not "
            f"broadcast" + (", or there is none for the heads" if grouped else "")
        ) from None
    if not grouped:
        return batch, batch
    heads, key_heads, value_heads = (s[-3] for s in shapes)
    if key_heads != value_heads or not key_heads or heads % key_heads:
        raise RuntimeError(
            f"{name}: Number of heads in key and value must divide the number of heads in query, and be the same, "
            f"but there are {heads}, {key_heads} and {value_heads} in query, key and value"
        )
    return (*batch, heads), (*batch, key_heads)


def _four_dimensional(x: Tensor, lead: tuple[int, ...]) -> Tensor:
    """x with the leading dimensions `lead`, as (B, H, n, width); one leading dimension is H, with B = 1."""
    if tuple(x.shape[:-2]) != lead:
        x = x.expand(*lead, *x.shape[-2:])
    if len(lead) == 2:
        return x
    if len(lead) < 2:
        return x.reshape(1, *(lead or (1,)), *x.shape[-2:])
    return x.reshape(math.prod(lead[:-1]), *x.shape[-3:])


def _mask(name: str, mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask that broadcasts to `shape` (…, L, S), so that it broadcasts to (B, H, L, S)."""
    sizes = tuple(mask.shape)
    try:
        fits = np.broadcast_shapes(sizes, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise RuntimeError(f"{name}: an attn_mask of shape {sizes} does not broadcast to the scores' {shape}")
    if len(sizes) <= 2 or len(shape) <= 4:
        return mask
    return mask.expand(*shape).reshape(math.prod(shape[:-3]), *shape[-3:])
