"""Looking up rows of a table and the gradient of that, compiled by Numba. Formulas in reference.py."""

from __future__ import annotations

import numba
import numpy as np

from shared.arrays.kernels.threads import PARALLEL_FROM, match_blas, share

__all__ = ["embedding", "embedding_weight", "warm_up"]

_threads = match_blas()


def embedding(weight, indices):
    """`reference.embedding`. NumPy copies whole rows; where it need not look at the indices, in fewer steps."""
    return weight.take(indices, axis=0, mode="clip")


# Threads share the columns: whatever their number, the rows of one index are added in the order of the indices.


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _add_rows_piece(grad, indices, padding_idx, out, first, last):
    for t in range(indices.size):
        if indices[t] != padding_idx:
            row, more = out[indices[t], first:last], grad[t, first:last]
            for j in range(row.size):
                row[j] += more[j]


def embedding_weight(grad, indices, num_embeddings, padding_idx=None):
    """`reference.embedding_weight` in one pass over `grad`."""
    flat = indices.reshape(-1).astype(np.int64, copy=False)
    rows = grad.reshape(flat.size, grad.shape[-1])
    out = np.zeros((num_embeddings, rows.shape[1]), grad.dtype)
    skipped = -1 if padding_idx is None else padding_idx

    def piece(task: int, first: int, last: int) -> None:
        _add_rows_piece(rows, flat, skipped, out, first, last)

    share(piece, rows.shape[1], min(_threads, rows.shape[1]) if rows.size >= PARALLEL_FROM else 1)
    return out


def warm_up() -> None:
    """Compiles the kernel for both dtypes, or loads it from the cache."""
    for dtype in (np.float32, np.float64):
        embedding_weight(np.zeros((1, 1), dtype), np.zeros(1, np.int64), 1)
