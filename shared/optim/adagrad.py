"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.arrays.kernels import optim as kernel
from shared.optim.optimizer import Optimizer, changed, check_lr, check_not_negative, next_step, state_array
from shared.tensor import Tensor


class Adagrad(Optimizer):
    """Divides each gradient by the root of the sum of all its squares so far: steps only ever shrink.

    Source: Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", 2011, figure 1. `foreach`, `differentiable` and `fused` are there for PyTorch's signature.

    >>> import shared
    >>> w = shared.tensor([4.0], requires_grad=True)
    >>> optimizer = Adagrad([w], lr=1.0)
    >>> for _ in range(2):
    ...     optimizer.zero_grad(); (w**2).sum().backward(); optimizer.step()
    >>> w                                       # 4 − 8/8 = 3, then 3 − 6/√(8² + 6²)
    tensor([2.4000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        check_lr(lr)
        check_not_negative("lr_decay value", lr_decay)
        check_not_negative("weight_decay value", weight_decay)
        check_not_negative("initial_accumulator_value value", initial_accumulator_value)
        check_not_negative("epsilon value", eps)
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        kernel.adagrad(
            param.array,
            grad.array,
            state_array(state, "sum", param, fill=group["initial_accumulator_value"]),
            lr=float(group["lr"]),
            lr_decay=group["lr_decay"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            step=next_step(state),
        )
        changed(param)
