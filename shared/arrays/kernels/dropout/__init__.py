"""Dropout and its gradient, the mask drawn on the way; the formulas are in reference.py."""

from __future__ import annotations

from typing import Any

from shared.arrays.kernels import in_rows, select
from shared.arrays.kernels.dropout import reference

__all__ = ["dropout", "dropout_input"]


def dropout(x: Any, p: float, mask_shape: tuple[int, ...], seed: int) -> tuple[Any, Any]:
    """`reference.dropout`."""
    x = in_rows(x)
    return (select("dropout", x) if mask_shape == x.shape else reference).dropout(x, p, mask_shape, seed)


def dropout_input(grad: Any, p: float, mask: Any) -> Any:
    """`reference.dropout_input`; Tensors are served by the formula."""
    if hasattr(grad, "flags"):
        grad = in_rows(grad)
    return (select("dropout", grad) if mask.shape == grad.shape else reference).dropout_input(grad, p, mask)
