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
        options, buf = _numbers(group), None
        if group["momentum"]:
            if state.get("momentum_buffer") is None:
                options["dampening"] = 0  # the velocity starts as the whole first gradient
            buf = state_array(state, "momentum_buffer", param)
        kernel.sgd(param.array, grad.array, buf, **options)
        changed(param)

    def update_all(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """`update` for all parameters, with one call of the kernel."""
        states = [self.state[param] for param in params]
        first = group["momentum"] and any(state.get("momentum_buffer") is None for state in states)
        if first or type(self).update is not SGD.update:
            super().update_all(params, group)
            return
        bufs = None
        if group["momentum"]:
            bufs = [state_array(state, "momentum_buffer", param) for state, param in zip(states, params, strict=True)]
        arrays, grads = [param.array for param in params], [param.grad.array for param in params]
        kernel.sgd_all(arrays, grads, bufs, maximize=group["maximize"], **_numbers(group))
        changed(*params)


def _numbers(group: dict[str, Any]) -> dict[str, Any]:
    """A group's options as the kernels take them."""
    return {
        "lr": float(group["lr"]),
        "momentum": group["momentum"],
        "dampening": group["dampening"],
        "weight_decay": group["weight_decay"],
        "nesterov": group["nesterov"],
    }
