"""Dropout in plain array code, and the random numbers its masks are drawn from.

The numbers are not the next ones of a stream but a function of a seed and of each element's place, so that any part
of a mask can be computed apart from the others, by any number of threads, and comes out the same everywhere.
"""

from __future__ import annotations

import math
from typing import Any

from shared.arrays.device import xp

Array = Any  # numpy.ndarray or cupy.ndarray

FIRST, SECOND, THIRD = 0xED5AD4BB, 0xAC4C1B51, 0x31848BAB


def uniform(seed: int, shape: tuple[int, ...], like: Array) -> Array:
    """Numbers in [0, 1), float32, an array of `shape` on the device of the array `like`: of `seed` (64 bits) alone.

    The place i of an element (counted modulo 2³²) and the two halves of the seed are mixed until every bit of the
    result depends on every bit of them: odd factors carry low bits up, shifts bring high ones down. The 24 upper bits
    make the number, a multiple of 2⁻²⁴. Source: Wellons, "Hash function prospector", 2018, `triple32`.

    >>> import numpy as np
    >>> uniform(0, (2, 2), np.zeros(1)).shape, (uniform(1, (9999,), np.zeros(1)) < 0.25).mean().round(2)
    ((2, 2), np.float64(0.25))
    """
    module = xp(like)
    word = module.uint32
    h = module.arange(math.prod(shape), dtype=word) + word(seed & 0xFFFFFFFF)
    h = (h ^ (h >> word(17))) * word(FIRST)
    h = (h ^ (h >> word(11))) + word(seed >> 32)
    h = (h ^ (h >> word(15))) * word(SECOND)
    h = (h ^ (h >> word(14))) * word(THIRD)
    h = h ^ (h >> word(15))
    return ((h >> word(8)) * module.float32(2**-24)).astype(module.float32).reshape(shape)


def dropout(x: Array, p: float, mask_shape: tuple[int, ...], seed: int) -> tuple[Array, Array]:
    """(x · mask / (1 − p), mask) for an array x: the result in the dtype of x, and the mask, bool.

    The mask has the shape `mask_shape`, which broadcasts to that of x. Each of its elements is False with probability
    p, 0 < p ≤ 1, and True elsewhere: where the number that `uniform` gives it is p or more. For p = 1 all of the
    result is 0. The array x itself is not changed.

    >>> import numpy as np
    >>> out, mask = dropout(np.ones((2, 3)), 0.75, (2, 3), seed=2); out
    array([[0., 4., 0.],
           [0., 4., 0.]])
    """
    mask = uniform(seed, mask_shape, x) >= p
    return dropout_input(x, p, mask), mask


def dropout_input(grad: Array, p: float, mask: Array) -> Array:
    """The gradient by x, from `grad`, the one by the result, of its shape and dtype.

    Each element comes times what its element of x was times. `grad` and `mask` are arrays, or both Tensors where a
    gradient of the gradient is asked for; a product serves both.

    >>> import numpy as np
    >>> dropout_input(np.array([3.0, 3.0]), 0.25, np.array([True, False]))
    array([4., 0.])
    """
    return grad * (mask * grad.dtype.type(1 / (1 - p) if p < 1 else 0))
