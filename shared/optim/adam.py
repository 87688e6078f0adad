"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.arrays.kernels import optim as kernel
from shared.optim.optimizer import (
    Optimizer,
    changed,
    check_lr,
    check_not_negative,
    next_step,
    state_array,
    step_counter,
)
from shared.tensor import Tensor


class Adam(Optimizer):
    """Running means of the gradient and of its square give each coordinate a step size of its own.

    `weight_decay` is an L2 penalty here; AdamW decouples it. `amsgrad` divides by the largest mean square so far.
    Source: Kingma and Ba, "Adam", 2015, algorithm 1; amsgrad: Reddi, Kale and Kumar, "On the convergence of Adam
    and beyond", 2018, algorithm 2; the formulas as computed are in `shared/arrays/kernels/optim/reference.py`.
    `foreach`, `capturable`, `differentiable` and `fused` are there for PyTorch's signature.

    >>> import shared
    >>> w = shared.tensor([4.0, -0.001], requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1)
    >>> (w**2).sum().backward(); optimizer.step()
    >>> w                                       # the first step has the same length everywhere
    tensor([3.9000, 0.0990], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):
        check_lr(lr)
        check_not_negative("epsilon value", eps)
        for i, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
        check_not_negative("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        options = _numbers(group) | {"step": next_step(state)}
        exp_avg = state_array(state, "exp_avg", param)
        exp_avg_sq = state_array(state, "exp_avg_sq", param)
        if group["amsgrad"]:
            largest = state_array(state, "max_exp_avg_sq", param)
            kernel.amsgrad(param.array, grad.array, exp_avg, exp_avg_sq, largest, **options)
        else:
            kernel.adam(param.array, grad.array, exp_avg, exp_avg_sq, **options)
        changed(param)

    def update_all(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """`update` for all parameters, with one call of the kernel."""
        if group["amsgrad"] or type(self).update is not Adam.update:
            super().update_all(params, group)
            return
        states = [self.state[param] for param in params]
        kernel.adam_all(
            [param.array for param in params],
            [param.grad.array for param in params],
            [state_array(state, "exp_avg", param) for state, param in zip(states, params, strict=True)],
            [state_array(state, "exp_avg_sq", param) for state, param in zip(states, params, strict=True)],
            [step_counter(state) for state in states],
            maximize=group["maximize"],
            **_numbers(group),
        )
        changed(*params)


def _numbers(group: dict[str, Any]) -> dict[str, Any]:
    """A group's options as the kernels take them."""
    beta1, beta2 = group["betas"]
    return {
        "lr": float(group["lr"]),
        "beta1": beta1,
        "beta2": beta2,
        "eps": group["eps"],
        "weight_decay": group["weight_decay"],
        "decoupled": group["decoupled_weight_decay"],
    }


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters directly instead of entering the gradient.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.

    >>> import shared
    >>> w = shared.tensor([1.0], requires_grad=True)
    >>> w.grad = shared.zeros(1)
    >>> AdamW([w], lr=0.1, weight_decay=0.5).step()
    >>> w                                       # no gradient, yet 1 − 0.1 · 0.5
    tensor([0.9500], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True  # whatever file the state came from
