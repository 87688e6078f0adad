"""A product with a large weight for a few rows, in plain array code."""

from __future__ import annotations

from typing import Any

Array = Any  # numpy.ndarray or cupy.ndarray


def few_rows(x: Array, weight: Array) -> Array:
    """x wᵀ for rows x (n, k) and a weight (m, k): (n, m), each number the product of two rows.

    >>> import numpy as np
    >>> few_rows(np.array([[1.0, 2.0]]), np.array([[3.0, 0.0], [0.0, 5.0], [1.0, 1.0]]))
    array([[ 3., 10.,  3.]])
    """
    return x @ weight.T
