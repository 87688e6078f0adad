"""Scaled dot-product attention and its gradient in plain array code, the scores as one matrix per head.

Throughout, q is (…, L, E), k (…, S, E), v (…, S, F): L queries, S keys with a value each. A mask is of a shape that
broadcasts to (…, L, S): booleans, True where a query may attend to a key, or numbers that are added to the scores.

Source: Vaswani et al., "Attention is all you need", 2017, section 3.2.1; Dao, Fu, Ermon, Rudra and Ré,
"FlashAttention", 2022, appendix B, for the gradient from the logarithms of the sums.
"""

from __future__ import annotations

import math
from typing import Any

from shared.arrays import gemm
from shared.arrays.device import xp
from shared.arrays.kernels.dropout import reference as drops

Array = Any  # numpy.ndarray or cupy.ndarray


def attention_scores(q: Array, k: Array, mask: Array | None, scale: float) -> Array:
    """q kᵀ · scale, (…, L, S), with the mask applied: −inf where a boolean one is False, else added to the scores.

    The mask is None, or broadcasts to the scores. The result has the dtype of q, whatever the
    mask has; no argument is changed.

    >>> import numpy as np
    >>> q, k = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> attention_scores(q, k, np.array([True, False]), 0.5)
    array([[ 0.5, -inf]])
    """
    scores = gemm.matmul(q, k.swapaxes(-1, -2)) * q.dtype.type(scale)
    if mask is None:
        return scores
    if mask.dtype == bool:
        return xp(q).where(mask, scores, q.dtype.type(-math.inf))
    return scores + mask.astype(q.dtype, copy=False)


def attention_weights(scores: Array) -> Array:
    """exp(scores) / Σ exp(scores) along the last dimension: how much each query takes of each key's value.

    Finite for finite scores of any size. Where a row has nothing but −inf, the query attends to nothing: its weights
    are 0, where a softmax is NaN. `scores` stays as it is.

    >>> import numpy as np
    >>> attention_weights(np.array([[0.0, 0.0, -np.inf], [-np.inf, -np.inf, -np.inf]]))
    array([[0.5, 0.5, 0. ],
           [0. , 0. , 0. ]])
    """
    largest = _largest(scores)
    weights = xp(scores).exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / xp(scores).where(total == 0, total.dtype.type(1), total)


def attention(q: Array, k: Array, v: Array, mask: Array | None, scale: float) -> tuple[Array, Array]:
    """(out, weights): each query's average of the values, (…, L, F), and the weights it is taken with, (…, L, S).

    out = weights · v, with weights = softmax(q kᵀ · scale) over the keys that the mask lets a query see. A query that
    may see none has weights and a result of 0. No argument is changed.

    >>> import numpy as np
    >>> v = np.array([[2.0], [4.0]])
    >>> out, weights = attention(np.zeros((2, 1)), np.ones((2, 1)), v, np.array([[True, False], [True, True]]), 1.0)
    >>> out.tolist(), weights.tolist()
    ([[2.0], [3.0]], [[1.0, 0.0], [0.5, 0.5]])
    """
    weights = attention_weights(attention_scores(q, k, mask, scale))
    return gemm.matmul(weights, v), weights


def attention_gradient(
    q: Array, k: Array, v: Array, weights: Array, grad: Array, scale: float, factors: Array | None = None
) -> tuple[Array, Array, Array]:
    """The gradients by q, k and v, each of its shape, from `grad` (…, L, F), the one by the result of `attention`.

    `weights` are those that `attention` returned: 0 where a mask let nothing through, so that nothing comes back there
    either, and the mask itself is not needed. With `factors`, of their shape, the values were averaged with weights ·
    factors (dropout), after the softmax. Tensors, for which a gradient of the gradient is asked, do as well as arrays:
    they have the operators, `.mT` and `.sum` in common. No argument is changed.

    >>> import numpy as np
    >>> q, k, v = np.array([[1.0, 2.0]]), np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[2.0], [4.0]])
    >>> weights = attention(q, k, v, None, 0.5)[1]
    >>> [x.tolist() for x in attention_gradient(q, k, v, weights, np.array([[1.0]]), 0.5)]
    [[[-0.5, 0.25]], [[-0.25, -0.5], [0.25, 0.5]], [[0.5], [0.5]]]
    """
    # dv = weightsᵀ · grad, dweights = grad · vᵀ, dscores = weights · (dweights − Σ over the keys of weights · dweights)
    # dq = dscores · k · scale, dk = dscoresᵀ · q · scale
    to_v = (weights if factors is None else weights * factors).mT @ grad
    to_weights = grad @ v.mT
    if factors is not None:
        to_weights = to_weights * factors
    to_scores = weights * (to_weights - (weights * to_weights).sum(axis=-1, keepdims=True)) * scale
    return to_scores @ k, to_scores.mT @ q, to_v


# ---------------------------------------------------------------- what the compiled kernels do, in the same terms

# Here everything has four dimensions: q (B, H, L, E), k (B, G, S, E), v (B, G, S, F), where each of the G heads of
# keys serves H / G heads of queries, one after the other. With a `diagonal`, query number r sees the keys up to
# r + diagonal; None does without. `p` is the probability to drop a weight, drawn from `seed` as in dropout.


def look_ahead(queries: int, keys: int, diagonal: int, like: Array) -> Array:
    """Booleans (queries, keys), on the device of the array `like`: True for each key up to query + diagonal.

    Queries and keys are counted from 0; the diagonal may be negative, and then the first queries see nothing.

    >>> import numpy as np
    >>> look_ahead(2, 3, 0, np.zeros(1))
    array([[ True, False, False],
           [ True,  True, False]])
    """
    rows, columns = xp(like).arange(queries), xp(like).arange(keys)
    return columns <= rows[:, None] + diagonal


def all_masks(q: Array, k: Array, mask: Array | None, diagonal: int | None) -> Array | None:
    """The mask, and what the diagonal lets q (…, L, E) see of k (…, S, E), as one mask; None where there is neither.

    Without a diagonal (None; 0 is one) that is the mask as it is, without a mask `look_ahead`. A boolean mask stays
    boolean, True where both are; one of numbers, which are added to the scores, stays so, in its dtype, with −inf after
    the diagonal.
    """
    if diagonal is None:
        return mask
    ahead = look_ahead(q.shape[-2], k.shape[-2], diagonal, q)
    if mask is None:
        return ahead
    return mask & ahead if mask.dtype == bool else xp(q).where(ahead, mask, mask.dtype.type(-math.inf))


def dropout_factors(q: Array, k: Array, p: float, seed: int) -> Array | None:
    """What dropout multiplies the weights (B, H, L, S) with: 0, or 1 / (1 − p); None for p = 0."""
    if not p:
        return None
    kept = drops.uniform(seed, (*q.shape[:-1], k.shape[-2]), q) >= p
    return kept * q.dtype.type(1 / (1 - p) if p < 1 else 0)


def attention_forward(
    q: Array, k: Array, v: Array, mask: Array | None, diagonal: int | None, scale: float, p: float, seed: int
) -> tuple[Array, Array]:
    """(out, logs): the result (B, H, L, F), and the logarithm of each query's Σ exp(scores), (B, H, L).

    The logarithms are all that the way back needs to know about the weights; +inf for a query that sees no key.
    """
    k, v = (_for_each_query_head(x, q) for x in (k, v))
    mask = all_masks(q, k, mask, diagonal)
    out, weights = attention(q, k, v, mask, scale)
    factors = dropout_factors(q, k, p, seed)
    if factors is not None:
        out = gemm.matmul(weights * factors, v)
    return out, log_sums(attention_scores(q, k, mask, scale))


def attention_in_blocks(
    q: Array, k: Array, v: Array, scale: float, size: int, diagonal: int | None = None
) -> tuple[Array, Array]:
    """(out, logs) as `attention_forward` has them, with scores of at most `size` queries and `size` keys at a time.

    q (…, L, E), k (…, S, E), v (…, S, F) with the same leading sizes → out (…, L, F) and logs (…, L), the logarithm of
    each query's Σ exp(scores), in the dtype of q. Neither scores nor weights (…, L, S) exist at any time: `take_block`
    keeps a maximum, a sum and a sum of values per query. Once all its blocks of keys have passed, out = values / total
    and logs = largest + log(total); for a query that sees no key they are 0 and +inf. With a `diagonal`, query r sees
    the keys up to r + diagonal; blocks of keys that no query of a block of queries sees are never looked at.

    Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention",
    2022, algorithm 1.

    >>> import numpy as np
    >>> out, logs = attention_in_blocks(np.zeros((3, 1)), np.ones((3, 1)), np.array([[2.0], [4.0], [9.0]]), 1.0, 2)
    >>> out.tolist(), np.exp(logs).round(6).tolist()
    ([[5.0], [5.0], [5.0]], [3.0, 3.0, 3.0])
    """
    queries, keys = q.shape[-2], k.shape[-2]
    out = xp(q).zeros((*q.shape[:-1], v.shape[-1]), q.dtype)
    logs = xp(q).full(q.shape[:-1], math.inf, q.dtype)
    for first in range(0, queries, size):
        rows = slice(first, min(first + size, queries))
        largest = xp(q).full((*q.shape[:-2], rows.stop - first, 1), -math.inf, q.dtype)
        total, values = xp(q).zeros_like(largest), out[..., rows, :]
        seen = keys if diagonal is None else min(keys, rows.stop + diagonal)
        for start in range(0, seen, size):
            block = slice(start, min(start + size, seen))
            mask = None
            if diagonal is not None:
                mask = look_ahead(rows.stop - first, block.stop - start, first + diagonal - start, q)
            scores = attention_scores(q[..., rows, :], k[..., block, :], mask, scale)
            largest, total, values = take_block(largest, total, values, scores, v[..., block, :])
        alive = total > 0
        total = xp(q).where(alive, total, total.dtype.type(1))
        out[..., rows, :] = values / total
        logs[..., rows] = xp(q).where(alive, largest + xp(q).log(total), q.dtype.type(math.inf))[..., 0]
    return out, logs


def take_block(largest: Array, total: Array, values: Array, scores: Array, v: Array) -> tuple[Array, Array, Array]:
    """What is known of each query's attention, after a further block of keys: (largest, total, values) anew.

        largest (…, L, 1)   the maximum m of all scores so far; −inf before the first, and while all were −inf
        total   (…, L, 1)   Σ exp(score − m) over the keys so far; 0 before the first
        values  (…, L, F)   Σ exp(score − m) · v over the keys so far; 0 before the first

    `scores` (…, L, K) and `v` (…, K, F) are those of the block. Where it raises the maximum from m to m', both sums
    are multiplied by exp(m − m') before the block's part, with m' in it, is added. A row of which all scores so far
    are −inf stays at −inf, 0 and 0, without NaN. No argument is changed.

    >>> import numpy as np
    >>> one = np.array([[1.0]])
    >>> largest, total, values = take_block(0 * one, one, 5 * one, np.array([[np.log(4.0)]]), 10 * one)
    >>> (values / total).tolist()  # weights 1/5 and 4/5, of 5 and 10
    [[9.0]]
    """
    higher = xp(scores).maximum(largest, scores.max(axis=-1, keepdims=True))
    shift = xp(scores).where(higher == -math.inf, scores.dtype.type(0), higher)
    before, weights = xp(scores).exp(largest - shift), xp(scores).exp(scores - shift)
    total = total * before + weights.sum(axis=-1, keepdims=True)
    return higher, total, values * before + gemm.matmul(weights, v)


def attention_backward(
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    logs: Array,
    grad: Array,
    mask: Array | None,
    diagonal: int | None,
    scale: float,
    p: float,
    seed: int,
) -> tuple[Array, Array, Array]:
    """The gradients by q, k and v from `grad`, the one by `out`; out and logs as `attention_forward` returned them."""
    heads = k.shape[1]
    k, v = (_for_each_query_head(x, q) for x in (k, v))
    scores = attention_scores(q, k, all_masks(q, k, mask, diagonal), scale)
    weights = xp(q).exp(scores - logs[..., None])
    factors = dropout_factors(q, k, p, seed)
    to_q, to_k, to_v = attention_gradient(q, k, v, weights, grad, q.dtype.type(scale), factors)
    return to_q, _sum_of_query_heads(to_k, heads), _sum_of_query_heads(to_v, heads)


def log_sums(scores: Array) -> Array:
    """log Σ exp(scores) along the last dimension; +inf for a row of nothing but −inf, so that exp(−inf − it) is 0."""
    largest = _largest(scores)
    total = xp(scores).exp(scores - largest).sum(axis=-1)
    nothing = total == 0
    logs = xp(scores).log(xp(scores).where(nothing, total.dtype.type(1), total)) + largest[..., 0]
    return xp(scores).where(nothing, scores.dtype.type(math.inf), logs)


def _largest(scores: Array) -> Array:
    """The maximum of each row, (…, L, 1); 0 for a row of nothing but −inf, or of nothing."""
    if not scores.shape[-1]:
        return xp(scores).zeros((*scores.shape[:-1], 1), scores.dtype)
    largest = scores.max(axis=-1, keepdims=True)
    return xp(scores).where(largest == -math.inf, scores.dtype.type(0), largest)


def _for_each_query_head(x: Array, q: Array) -> Array:
    """Keys or values (B, G, S, E) once for every head of q: (B, H, S, E)."""
    group = q.shape[1] // max(x.shape[1], 1)
    return x if group <= 1 else x.repeat(group, axis=1)


def _sum_of_query_heads(grad: Array, heads: int) -> Array:
    """The way back: (B, H, S, E) → (B, G, S, E)."""
    batch, query_heads, keys, width = grad.shape
    return grad if heads == query_heads else grad.reshape(batch, heads, -1, keys, width).sum(axis=2)
