"""Finding a learning rate by trying many, each for one update."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

from shared.arrays.random import get_states, set_states
from shared.nn import Module
from shared.optim import Optimizer
from shared.tensor import Tensor


def find_learning_rate(
    model: Module,
    loss_of_batch: Callable[[], Tensor],
    optimizer: Optimizer,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    stop_at: float = 4.0,
) -> tuple[list[float], list[float]]:
    """(rates, losses) of `steps` updates whose learning rate rises from `lowest` to `highest` by the same factor each.

    `loss_of_batch()` gives the loss of the next batch, a scalar Tensor with its graph; losses[i] is the one before the
    update with rates[i]. Ends early where a loss is not finite, which is left out, or above `stop_at` times the lowest
    so far, which is kept. Model, its gradients and mode, optimizer and the default generators are afterwards as they
    were, also after an error (`_remembered` and `_restore` see to it); meanwhile the model is in train mode. Batches
    that `loss_of_batch` drew from a generator of its own are gone. ValueError unless 0 < lowest < highest and
    steps ≥ 2.
    Source: Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3.

    >>> import shared
    >>> w = shared.nn.Linear(1, 1, bias=False)
    >>> _ = shared.nn.init.constant_(w.weight, 4.0)
    >>> x, optimizer = shared.ones(1, 1), shared.optim.SGD(w.parameters(), lr=0.1)
    >>> sweep = {"lowest": 0.01, "highest": 100, "steps": 5}
    >>> rates, losses = find_learning_rate(w, lambda: w(x).square().mean(), optimizer, **sweep)
    >>> [round(rate, 6) for rate in rates], [round(loss, 2) for loss in losses]
    ([0.01, 0.1, 1.0, 10.0, 100.0], [16.0, 15.37, 9.83, 9.83, 3550.25])
    >>> w.weight.item(), optimizer.param_groups[0]["lr"]
    (4.0, 0.1)
    """
    if not 0 < lowest < highest or steps < 2:
        raise ValueError(
            f"find_learning_rate: expected 0 < lowest < highest and at least 2 steps, but got {lowest=}, {highest=} "
            f"and {steps=}"
        )
    before = _remembered(model, optimizer)
    rates: list[float] = []
    losses: list[float] = []
    try:
        model.train()
        for i in range(steps):
            rate = lowest * (highest / lowest) ** (i / (steps - 1))
            loss = one_update(optimizer, loss_of_batch, rate)
            if not math.isfinite(loss):
                break
            rates.append(rate)
            losses.append(loss)
            if loss > stop_at * min(losses):
                break
    finally:
        _restore(model, optimizer, before)
    return rates, losses


def one_update(optimizer: Optimizer, loss_of_batch: Callable[[], Tensor], rate: float) -> float:
    """An update by the gradient of `loss_of_batch()` alone, at the given rate in every group; returns the loss before.

    >>> import shared
    >>> w = shared.tensor(4.0, requires_grad=True)
    >>> one_update(shared.optim.SGD([w], lr=1.0), lambda: w * w, rate=0.25), w.item()
    (16.0, 2.0)
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss = loss_of_batch()
    loss.backward()
    optimizer.step()
    return loss.item()


def _remembered(model: Module, optimizer: Optimizer) -> tuple:
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None  # so that zero_grad finds nothing to clear: the Tensors are kept for later
    states = deepcopy(dict(model.state_dict())), deepcopy(optimizer.state_dict())
    modes = [(module, module.training) for module in model.modules()]
    return *states, gradients, modes, get_states()


def _restore(model: Module, optimizer: Optimizer, before: tuple) -> None:
    weights, state, gradients, modes, random = before
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    for parameter, gradient in gradients:
        parameter.grad = gradient
    for module, training in modes:
        module.training = training
    set_states(random)
