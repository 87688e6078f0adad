"""Looking up rows of a table, and the gradient of that, in plain array code.

`weight` (num_embeddings, width) is the table, `indices` any shape of integers from 0 to num_embeddings − 1.
"""

from __future__ import annotations

from typing import Any

from shared.arrays.device import xp

Array = Any  # numpy.ndarray or cupy.ndarray


def embedding(weight: Array, indices: Array) -> Array:
    """The rows of the table that `indices` name: (*indices.shape, width).

    It is the product of one-hot rows with `weight`, without their zeros. A new array of weight's dtype.

    >>> import numpy as np
    >>> embedding(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 1, 0]))
    array([[3., 4.],
           [3., 4.],
           [1., 2.]])
    """
    return weight[indices]


def embedding_weight(grad: Array, indices: Array, num_embeddings: int, padding_idx: int | None = None) -> Array:
    """The gradient by the table, (num_embeddings, width): each row is the sum of the gradients where it was used.

    ∂L/∂W = onehot(indices)ᵀ · grad, for `grad` (*indices.shape, width), which stays as it is; the result, of grad's
    dtype, has 0 in rows that were not used (all of them where there are no indices) and in the row `padding_idx`. The
    one-hot matrix itself would be mostly zeros. `module = xp(grad)` is the library of the array, NumPy or CuPy.

    >>> import numpy as np
    >>> embedding_weight(np.array([[1.0], [2.0], [4.0]]), np.array([2, 0, 2]), 3).ravel()
    array([2., 0., 5.])
    """
    module = xp(grad)
    out = module.zeros((num_embeddings, grad.shape[-1]), grad.dtype)
    if grad.size:
        flat = indices.reshape(-1)
        # Sorted by index, the rows that belong together stand beside each other and are summed at a stroke.
        order = module.argsort(flat, kind="stable")  # stable: equal indices are added in their order
        used, starts = module.unique(flat[order], return_index=True)
        out[used] = module.add.reduceat(grad.reshape(flat.size, -1)[order], starts, axis=0)
    if padding_idx is not None:
        out[padding_idx] = 0
    return out
