"""Many arrays for one compiled call: the addresses of their elements, in a table that a kernel reads.

A list of arrays costs Numba longer to unpack than small arrays take to work through, and `a.ctypes.data` costs 1.4 µs
an array. So the kernel is given where the array objects are and looks up for itself where their elements are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# In memory an array begins with the header that every Python object has, and then the address of its elements
# (NumPy's C API, PyArrayObject). Where that should not hold, NumPy is asked, array by array.
_HEADER = object.__basicsize__


def _header_is_followed_by_the_address() -> bool:
    array = np.zeros(1)
    return ctypes.c_void_p.from_address(id(array) + _HEADER).value == array.ctypes.data


_LOOK_UP = _header_is_followed_by_the_address()


@intrinsic
def _pointer(typing_context, address):
    """The address as a pointer, for `numba.carray`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@numba.njit(nogil=True, cache=True)
def array_at(address, size, dtype):
    """The `size` elements of `dtype` that begin at `address`, as an array."""
    return numba.carray(_pointer(np.int64(address)), size, dtype)


@numba.njit(cache=True)
def _look_up(objects, header):
    for i in range(objects.size):
        objects[i] = array_at(objects[i] + header, 1, np.int64)[0]


def addresses(arrays: Sequence[Any]) -> np.ndarray:
    """Where the elements of each array begin, int64 (n,). Keep the arrays for as long as you use it.

    >>> a, b = np.zeros(3), np.zeros((2, 2), np.float32)
    >>> addresses([a, b]).tolist() == [a.ctypes.data, b.ctypes.data]
    True
    """
    if not _LOOK_UP:
        return np.array([a.ctypes.data for a in arrays], np.int64)
    found = np.fromiter(map(id, arrays), np.int64, len(arrays))
    _look_up(found, _HEADER)
    return found
