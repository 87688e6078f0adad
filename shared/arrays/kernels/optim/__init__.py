"""The optimizers' updates, in place: one parameter, or all of a group at once; the formulas are in reference.py."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from shared.arrays.kernels import in_rows, select
from shared.arrays.kernels.optim import reference
from shared.arrays.kernels.optim.reference import adadelta, adagrad, amsgrad, rmsprop

__all__ = [
    "adadelta",
    "adagrad",
    "adam",
    "adam_all",
    "amsgrad",
    "rmsprop",
    "scale_all",
    "sgd",
    "sgd_all",
    "squares",
]

Arrays = Sequence[Any]


def _kernels(written: Sequence[Arrays], *read: Arrays) -> ModuleType:
    """The module that can work through all of these in one call; `reference` where none can.

    The kernels see addresses and nothing else. So it is here that shapes must agree and memory may be written to; and
    an array listed twice would be changed by two threads at the same time.
    """
    first, columns = written[0], [*written, *read]
    if not first or len(set(map(id, first))) < len(first):
        return reference
    if not all(a.shape == b.shape for column in columns[1:] for a, b in zip(first, column, strict=True)):
        return reference
    if not all(getattr(a.flags, "writeable", True) for column in written for a in column):
        return reference
    return select("optim", *[a for column in columns for a in column])


_STRIP = 128  # rows that are copied at a time: a matrix of 3,072 × 768 takes 3 ms, and 10 ms in one go


def _transposed(matrix: Any) -> Any:
    """matrix.T in rows; where they have to be copied, in strips that stay in the processor's cache."""
    if type(matrix) is not np.ndarray or matrix.T.flags.c_contiguous:
        return in_rows(matrix.T)
    rows = np.empty(matrix.shape[::-1], matrix.dtype)
    for i in range(0, len(matrix), _STRIP):
        rows[:, i : i + _STRIP] = matrix[i : i + _STRIP].T
    return rows


def _by_columns(a: Any) -> bool:
    return a.ndim == 2 and a.flags.f_contiguous and not a.flags.c_contiguous


def _one_by_one(update: Callable, params: Arrays, grads: Arrays, *states: Arrays, **options: Any) -> bool:
    """`update` for one parameter after the other, where matrices among them lie by columns; False where none does.

    A matrix that is a transposed view of a file lies so. Turned over it lies by rows, and its state with it; a gradient
    that lies otherwise is copied, one at a time, so that no second set of all gradients is in memory.
    """
    if not any(_by_columns(param) for param in params):
        return False
    for param, grad, *state in zip(params, grads, *states, strict=True):
        if _by_columns(param):
            param, grad, state = param.T, _transposed(grad), [a.T for a in state]
        update([param], [grad], *[[a] for a in state], **options)
    return True


def adam(param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, **options: Any) -> None:
    """One step of Adam or AdamW; options as in `reference.adam`."""
    _kernels(([param], [exp_avg], [exp_avg_sq]), [grad]).adam(param, grad, exp_avg, exp_avg_sq, **options)


def sgd(param: Any, grad: Any, buf: Any, **options: Any) -> None:
    """One step of gradient descent, with momentum where `buf` is given; options as in `reference.sgd`."""
    written = ([param],) if buf is None else ([param], [buf])
    _kernels(written, [grad]).sgd(param, grad, buf, **options)


# ---------------------------------------------------------------- many parameters at once


def adam_all(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    steps: Arrays,
    *,
    maximize: bool = False,
    **options: Any,
) -> None:
    """`adam` for each parameter; `steps`, arrays of one number, count each one's steps and are counted up first."""
    grads = [in_rows(grad) for grad in grads]
    module = _kernels((params, exp_avgs, exp_avg_sqs), grads)
    state = (exp_avgs, exp_avg_sqs, steps)
    if module is reference and _one_by_one(adam_all, params, grads, *state, maximize=maximize, **options):
        return
    if module is not reference and all(type(s) is np.ndarray and s.dtype == np.float32 for s in steps):
        module.adam_all(params, grads, exp_avgs, exp_avg_sqs, steps, maximize=maximize, **options)
        return
    for param, grad, exp_avg, exp_avg_sq, step in zip(params, grads, exp_avgs, exp_avg_sqs, steps, strict=True):
        step += 1
        adam(param, -grad if maximize else grad, exp_avg, exp_avg_sq, step=int(step), **options)


def sgd_all(params: Arrays, grads: Arrays, bufs: Arrays | None, *, maximize: bool = False, **options: Any) -> None:
    """`sgd` for each parameter; `bufs` is None where there is no momentum."""
    grads = [in_rows(grad) for grad in grads]
    module = _kernels((params,) if bufs is None else (params, bufs), grads)
    state = () if bufs is None else (bufs,)
    update = functools.partial(sgd_all, bufs=None) if bufs is None else sgd_all
    if module is reference and _one_by_one(update, params, grads, *state, maximize=maximize, **options):
        return
    if module is not reference:
        module.sgd_all(params, grads, bufs, maximize=maximize, **options)
        return
    for param, grad, buf in zip(params, grads, bufs or [None] * len(params), strict=True):
        sgd(param, -grad if maximize else grad, buf, **options)


def squares(arrays: Arrays) -> Any:
    """`reference.squares`: the sum of the squares of each array, float64 (n,)."""
    arrays = [in_rows(a) for a in arrays]
    return select("optim", *arrays).squares(arrays)


def scale_all(arrays: Arrays, factor: Any) -> None:
    """`reference.scale_all`: every array times the number `factor`, in place."""
    _kernels((arrays,)).scale_all(arrays, factor)
