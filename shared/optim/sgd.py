"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.arrays.kernels import optim as kernel
from shared.optim.optimizer import Optimizer, changed, check_lr, check_not_negative, state_array
from shared.tensor import Tensor


class SGD(Optimizer):
    """Gradient descent, optionally with momentum (Nesterov's too), dampening and weight decay (an L2 penalty).

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013,
    equations 1–4; the formula as computed is at `shared.arrays.kernels.optim.reference.sgd`.
    `foreach`, `fused` and `differentiable` are there for PyTorch's signature.

    >>> import shared
    >>> w = shared.tensor([4.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     optimizer.zero_grad(); (w**2).sum().backward(); optimizer.step()
    >>> w                                       # 4 − 0.8 = 3.2, then 3.2 − 0.1 · (0.9 · 8 + 6.4)
    tensor([1.8400], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        check_lr(lr)
        check_not_negative("momentum value", momentum)
        check_not_negative("weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        momentum, dampening, buf = group["momentum"], group["dampening"], None
        if momentum:
            if state.get("momentum_buffer") is None:
                dampening = 0  # the velocity starts as the whole first gradient
            buf = state_array(state, "momentum_buffer", param)
        kernel.sgd(
            param.array,
            grad.array,
            buf,
            lr=float(group["lr"]),
            momentum=momentum,
            dampening=dampening,
            weight_decay=group["weight_decay"],
            nesterov=group["nesterov"],
        )
        changed(param)
