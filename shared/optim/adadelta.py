"""Adadelta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.arrays.kernels import optim as kernel
from shared.optim.optimizer import Optimizer, changed, check_lr, check_not_negative, next_step, state_array
from shared.tensor import Tensor


class Adadelta(Optimizer):
    """Scales each step by the root mean square of earlier steps over that of the gradients: it finds its own length.

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.
    `foreach`, `capturable` and `differentiable` are there for PyTorch's signature.

    >>> import shared
    >>> w = shared.tensor([4.0], requires_grad=True)
    >>> (w**2).sum().backward(); Adadelta([w], rho=0.75, eps=1.0).step()
    >>> w                                       # √1 / √(0.25 · 8² + 1) · 8 = 8 / √17
    tensor([2.0597], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        check_lr(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        check_not_negative("epsilon value", eps)
        check_not_negative("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        next_step(state)  # unused by the formula; PyTorch's state has it
        kernel.adadelta(
            param.array,
            grad.array,
            state_array(state, "square_avg", param),
            state_array(state, "acc_delta", param),
            lr=float(group["lr"]),
            rho=group["rho"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
        )
        changed(param)
