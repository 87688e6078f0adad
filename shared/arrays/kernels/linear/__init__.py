"""A product with a large weight for a few rows, as generation needs it; the formula is in reference.py."""

from __future__ import annotations

from typing import Any

from shared.arrays.kernels import in_rows, select

__all__ = ["few_rows"]


def few_rows(x: Any, weight: Any) -> Any:
    """`reference.few_rows`: x (n, k) times the transpose of weight (m, k), which lies by rows or by columns."""
    x = in_rows(x)
    return select("linear", x, weight if weight.flags.c_contiguous else weight.T).few_rows(x, weight)
