"""Scaled dot-product attention and its gradient, the scores in blocks; the formulas are in reference.py."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from shared.arrays.kernels import select
from shared.arrays.kernels.attention import reference

__all__ = ["WIDEST", "attention_backward", "attention_forward"]

WIDEST = 256  # heads that the GPU's kernels serve


def _in_rows(x: Any) -> Any:
    """x (B, H, n, width) if its rows are contiguous and do not overlap, as BLAS wants them, else a copy.

    Heads that are columns of one projection stay where they are.
    """
    row, element = x.strides[2:]
    apart = row % x.itemsize == 0 and row >= x.shape[3] * x.itemsize
    aligned = x.strides[0] % x.itemsize == 0 and x.strides[1] % x.itemsize == 0
    return x if element == x.itemsize and apart and aligned else x.copy("C")


def _kernels(q: Any, k: Any, v: Any) -> ModuleType:
    """The module that serves. Its choice looks at dtype and device; of the layout `_in_rows` has taken care.

    ValueError for shapes that do not fit together, which compiled kernels would not notice.
    """
    heads, key_heads = q.shape[1], k.shape[1]
    if q.shape[::3] != k.shape[::3] or k.shape[:3] != v.shape[:3] or heads % max(key_heads, 1):
        raise ValueError(f"attention: q {q.shape}, k {k.shape} and v {v.shape} do not fit together")
    if not (q.size and k.size and v.size):
        return reference
    return select("attention", q[:0], k[:0], v[:0])


def attention_forward(
    q: Any, k: Any, v: Any, mask: Any, diagonal: int | None, scale: float, p: float, seed: int
) -> tuple[Any, Any]:
    """`reference.attention_forward`; the result lies in memory as q does."""
    q, k, v = _in_rows(q), _in_rows(k), _in_rows(v)
    return _kernels(q, k, v).attention_forward(q, k, v, mask, diagonal, scale, p, seed)


def attention_backward(
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    logs: Any,
    grad: Any,
    mask: Any,
    diagonal: int | None,
    scale: float,
    p: float,
    seed: int,
    into: tuple[Any, Any, Any] | None = None,
) -> tuple[Any, Any, Any]:
    """`reference.attention_backward`, written to `into` (arrays of the shapes of q, k and v) where it is given."""
    q, k, v, out, grad = (_in_rows(x) for x in (q, k, v, out, grad))
    kernels = _kernels(q, k, v)
    if kernels is not reference and into is not None and all(_in_rows(x) is x for x in into):
        return kernels.attention_backward(q, k, v, out, logs, grad, mask, diagonal, scale, p, seed, into)
    found = kernels.attention_backward(q, k, v, out, logs, grad, mask, diagonal, scale, p, seed)
    if into is None:
        return found
    for target, gradient in zip(into, found, strict=True):
        target[...] = gradient
    return into
