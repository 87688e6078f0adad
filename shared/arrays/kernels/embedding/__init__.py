"""Looking up rows of a table and the gradient of that; the formulas are in reference.py."""

from __future__ import annotations

from typing import Any

from shared.arrays.kernels import in_rows, select

__all__ = ["embedding", "embedding_weight"]


def embedding(weight: Any, indices: Any) -> Any:
    """`reference.embedding`: (*indices.shape, width). The indices must be in range, which nobody checks here."""
    return select("embedding", weight).embedding(weight, indices)


def embedding_weight(grad: Any, indices: Any, num_embeddings: int, padding_idx: int | None = None) -> Any:
    """`reference.embedding_weight`: (num_embeddings, width)."""
    grad = in_rows(grad)
    return select("embedding", grad).embedding_weight(grad, in_rows(indices), num_embeddings, padding_idx)
