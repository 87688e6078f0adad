"""Rows of a table and the gradient of that on the GPU; no atomic additions, so equal runs have equal sums.

Formulas in reference.py.
"""

from __future__ import annotations

from typing import Any

from shared.arrays.device import xp
from shared.arrays.kernels.launch import Kernels

__all__ = ["embedding", "embedding_weight"]

Array = Any  # cupy.ndarray

kernels = Kernels(r"""
extern "C" __global__ void look_up(const T* weight, const long long* indices, T* out, long long width,
                                   long long size) {
    for (I i = first(); i < size; i += step()) out[i] = weight[indices[i / width] * width + i % width];
}

// Uses of the table sorted by row: `order` names them, `sorted` the rows. A thread takes one column of the first use of
// a row and adds up all uses of it, in their order.
extern "C" __global__ void add_uses(const T* grad, const long long* order, const long long* sorted, T* out,
                                    long long padding, long long uses, long long width, long long size) {
    for (I i = first(); i < size; i += step()) {
        const I column = i % width;
        I use = i / width;
        const long long row = sorted[use];
        if (row == padding || (use > 0 && sorted[use - 1] == row)) continue;
        A total = 0;
        for (; use < uses && sorted[use] == row; use++) total += (A)grad[order[use] * width + column];
        out[row * width + column] = T(total);
    }
}
""")


def embedding(weight: Array, indices: Array) -> Array:
    """`reference.embedding` in one launch."""
    module, width = xp(weight), weight.shape[1]
    out = module.empty((*indices.shape, width), weight.dtype)
    if out.size:
        rows = module.ascontiguousarray(indices.astype("int64", copy=False))
        kernels.over(out.size, "look_up", out, weight, rows, out, width)
    return out


def embedding_weight(grad: Array, indices: Array, num_embeddings: int, padding_idx: int | None = None) -> Array:
    """`reference.embedding_weight`: the uses sorted by CuPy, then one launch."""
    module, width = xp(grad), grad.shape[-1]
    out = module.zeros((num_embeddings, width), grad.dtype)
    if grad.size:
        rows = indices.reshape(-1).astype("int64", copy=False)
        order = module.argsort(rows, kind="stable")
        padding = -1 if padding_idx is None else padding_idx % num_embeddings
        arguments = (grad, order, rows[order], out, padding, rows.size, width)
        kernels.over(grad.size, "add_uses", grad, *arguments)
    return out
