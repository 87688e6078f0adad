"""The optimizers' updates, one parameter at a time and in place; the formulas are in reference.py."""

from __future__ import annotations

from typing import Any

from shared.arrays.kernels import select
from shared.arrays.kernels.optim.reference import adadelta, adagrad, amsgrad, rmsprop

__all__ = ["adadelta", "adagrad", "adam", "amsgrad", "rmsprop", "sgd"]


def adam(param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, **options: Any) -> None:
    """One step of Adam or AdamW; options as in `reference.adam`."""
    select("optim", param, grad, exp_avg, exp_avg_sq).adam(param, grad, exp_avg, exp_avg_sq, **options)


def sgd(param: Any, grad: Any, buf: Any, **options: Any) -> None:
    """One step of gradient descent, with momentum where `buf` is given; options as in `reference.sgd`."""
    given = (param, grad) if buf is None else (param, grad, buf)
    select("optim", *given).sgd(param, grad, buf, **options)
