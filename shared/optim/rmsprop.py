"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.arrays.kernels import optim as kernel
from shared.optim.optimizer import Optimizer, changed, check_lr, check_not_negative, next_step, state_array
from shared.tensor import Tensor


class RMSprop(Optimizer):
    """Divides each gradient by the root of a running mean of its square; `centered` subtracts the mean first.

    Source: Tieleman and Hinton, "Neural networks for machine learning", lecture 6e, 2012; centred: Graves,
    "Generating sequences with recurrent neural networks", 2013, equations 38–45.
    `capturable`, `foreach` and `differentiable` are there for PyTorch's signature.

    >>> import shared
    >>> w = shared.tensor([4.0], requires_grad=True)
    >>> (w**2).sum().backward(); RMSprop([w], lr=0.01).step()
    >>> w                                       # √0.01 · 8 = 0.8: the step is 0.01 · 8 / 0.8
    tensor([3.9000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        check_lr(lr)
        check_not_negative("epsilon value", eps)
        check_not_negative("momentum value", momentum)
        check_not_negative("weight_decay value", weight_decay)
        check_not_negative("alpha value", alpha)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        next_step(state)  # unused by the formula; PyTorch's state has it
        kernel.rmsprop(
            param.array,
            grad.array,
            state_array(state, "square_avg", param),
            state_array(state, "grad_avg", param) if group["centered"] else None,
            state_array(state, "momentum_buffer", param) if group["momentum"] else None,
            lr=float(group["lr"]),
            alpha=group["alpha"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
        )
        changed(param)
