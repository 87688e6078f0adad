"""The one-cycle policy: the rate up and far down again in one training, the momentum the other way."""

from __future__ import annotations

import math
from typing import Any

from shared.optim.lr_scheduler.momentum import MomentumCycle, per_group, require_momentum
from shared.optim.optimizer import Optimizer


class OneCycleLR(MomentumCycle):
    """One rise to `max_lr` and one long fall, over a whole training; `step` after every batch.

    It begins at `max_lr / div_factor`, takes the share `pct_start` of the steps to rise, and ends at
    `max_lr / div_factor / final_div_factor`. The length is `total_steps`, or `epochs` times `steps_per_epoch`. With
    `cycle_momentum`, SGD's momentum or Adam's first beta falls from `max_momentum` to `base_momentum` meanwhile
    and rises back. `three_phase` first falls as steeply as it rose, then to the end. Source: Smith and Topin,
    "Super-convergence: very fast training of neural networks using large learning rates", 2018, which has three
    phases; two are the default, as in PyTorch.

    >>> import shared
    >>> from shared.optim.lr_scheduler import rates
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    >>> schedule = OneCycleLR(optimizer, max_lr=1.0, total_steps=6, pct_start=0.5, anneal_strategy="linear")
    >>> optimizer.param_groups[0]["momentum"]
    0.95
    >>> rates(schedule, 6)
    [0.04, 0.52, 1.0, 0.666668, 0.333336, 4e-06]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        self.total_steps = _length(total_steps, epochs, steps_per_epoch)
        if pct_start < 0 or pct_start > 1 or not isinstance(pct_start, float):
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        self._schedule_phases = _phases(self.total_steps, pct_start, three_phase)
        self._anneal_func_type = anneal_strategy
        max_lrs = per_group("max_lr", optimizer, max_lr)
        if last_epoch == -1:
            for group, highest in zip(optimizer.param_groups, max_lrs, strict=True):
                group["initial_lr"] = highest / div_factor
                group["max_lr"] = highest
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            require_momentum(optimizer)
            momenta = per_group("max_momentum", optimizer, max_momentum)
            self._start_momentum(per_group("base_momentum", optimizer, base_momentum), momenta, last_epoch)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        self._warn_if_outside_step()
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"Tried to step {self.last_epoch} times. The specified number of total steps is {self.total_steps}"
            )
        phase, share = self._phase()
        anneal, rates = _ANNEAL[self._anneal_func_type], []
        for group in self.optimizer.param_groups:
            rates.append(anneal(group[phase["start_lr"]], group[phase["end_lr"]], share))
            if self.cycle_momentum:
                momentum = anneal(group[phase["start_momentum"]], group[phase["end_momentum"]], share)
                self._set_momentum(group, momentum)
        return rates

    def _phase(self) -> tuple[dict[str, Any], float]:
        """The phase that the step `self.last_epoch` is in, and the share of it that has passed, 0 to 1.

        `self._schedule_phases` has them in order. The first begins at step 0, each other where the one before it
        ends: at its "end_step", the step at which its share is 1. Beyond the last end, where the `step` after the
        last batch leads, the last phase goes on: its share is above 1 there, and need not be cut off, for no step is
        taken at that rate. A first phase that ends at step 0 has no shares: ZeroDivisionError, as in PyTorch.
        """
        start = 0.0
        for phase in self._schedule_phases:
            if self.last_epoch <= phase["end_step"] or phase is self._schedule_phases[-1]:
                break
            start = phase["end_step"]
        return phase, (self.last_epoch - start) / (phase["end_step"] - start)


def along_cosine(start: float, end: float, share: float) -> float:
    """From `start`, where `share` is 0, to `end`, where it is 1: half a period of a cosine, level at both ends.

    >>> [round(along_cosine(1.0, 0.0, share), 4) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [1.0, 0.8536, 0.5, 0.1464, 0.0]
    """
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def _linear(start: float, end: float, share: float) -> float:
    return (end - start) * share + start


_ANNEAL = {"cos": along_cosine, "linear": _linear}


def _length(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    """The number of steps, however it was given."""
    if total_steps is None and (epochs is None or steps_per_epoch is None):
        raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    given = {"total_steps": total_steps} if total_steps is not None else {"epochs": epochs}
    if total_steps is None:
        given["steps_per_epoch"] = steps_per_epoch
    for name, value in given.items():
        if value <= 0 or not isinstance(value, int):
            raise ValueError(f"Expected positive integer {name}, but got {value}")
    return math.prod(given.values())


def _phases(steps: int, pct_start: float, three_phase: bool) -> list[dict[str, Any]]:
    """Where each phase ends and between which of a group's values it goes, in PyTorch's layout."""
    rise = _phase(float(pct_start * steps) - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum")
    if not three_phase:
        return [rise, _phase(steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
    return [
        rise,
        _phase(float(2 * pct_start * steps) - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
        _phase(steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
    ]


def _phase(end_step: float, start_lr: str, end_lr: str, start_momentum: str, end_momentum: str) -> dict[str, Any]:
    return {
        "end_step": end_step,
        "start_lr": start_lr,
        "end_lr": end_lr,
        "start_momentum": start_momentum,
        "end_momentum": end_momentum,
    }
