"""Cyclical learning rates: up and down between two bounds, again and again."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

from shared.optim.lr_scheduler.base import set_rate
from shared.optim.lr_scheduler.momentum import MomentumCycle, per_group, require_momentum
from shared.optim.optimizer import Optimizer

# What the height of a cycle is multiplied by: of the cycle's number, from 1, or of the step's, from 0.
_MODES: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "triangular": ("cycle", lambda gamma, cycle: 1.0),
    "triangular2": ("cycle", lambda gamma, cycle: 1 / (2.0 ** (cycle - 1))),
    "exp_range": ("iterations", lambda gamma, step: gamma**step),
}


class CyclicLR(MomentumCycle):
    """The rate climbs from `base_lr` to `max_lr` in `step_size_up` steps and falls back in `step_size_down`, forever.

    `mode` is "triangular", "triangular2" (each cycle half as high as the one before) or "exp_range" (the height times
    gamma^step); a `scale_fn` of one's own takes their place, a function of the cycle's number or, with
    `scale_mode="iterations"`, of the step's. With `cycle_momentum`, SGD's momentum or Adam's first beta moves the
    other way, from `max_momentum` to `base_momentum` and back. `step` after every batch.
    Source: Smith, "Cyclical learning rates for training neural networks", 2017, section 3.

    >>> import shared
    >>> from shared.optim.lr_scheduler import rates
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    >>> rates(CyclicLR(optimizer, base_lr=0.1, max_lr=0.5, step_size_up=2, mode="triangular2"), 8)
    [0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3, 0.2]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        base_lrs = per_group("base_lr", optimizer, base_lr)
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                set_rate(group, lr)
        self.max_lrs = per_group("max_lr", optimizer, max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        if mode not in _MODES and scale_fn is None:
            raise ValueError("mode is invalid and scale_fn is None")
        self.mode, self.gamma = mode, gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else _MODES[mode][0]
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            require_momentum(optimizer)
            self.base_momentums = per_group("base_momentum", optimizer, base_momentum)
            self.max_momentums = per_group("max_momentum", optimizer, max_momentum)
            self._start_momentum(self.base_momentums, self.max_momentums, last_epoch)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """What the height of the cycle is multiplied by, at the number of a cycle or of a step."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        return _MODES[self.mode][1](self.gamma, x)

    def get_lr(self) -> list[float]:
        self._warn_if_outside_step()
        cycle, height = self._place()
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            bounds = zip(self.base_momentums, self.max_momentums, strict=True)
            for group, (low, high) in zip(self.optimizer.param_groups, bounds, strict=True):
                self._set_momentum(group, high - (high - low) * height * scale)
        return [low + (high - low) * height * scale for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def _place(self) -> tuple[int, float]:
        """The number of the cycle that the step `self.last_epoch` is in, from 1, and the height there, 0 to 1."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        share = 1.0 + self.last_epoch / self.total_size - cycle
        if share <= self.step_ratio:
            return cycle, share / self.step_ratio
        return cycle, (share - 1) / (self.step_ratio - 1)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of a `scale_fn` the attributes of a callable object, not a function."""
        function = self._scale_fn_custom
        saved = None if function is None or isinstance(function, types.FunctionType) else dict(function.__dict__)
        return super().state_dict() | {"_scale_fn_custom": saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the schedule; a `scale_fn` that is a function is the one given at construction."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_scale_fn_custom"})
        if state_dict["_scale_fn_custom"] is not None:
            self._scale_fn_custom.__dict__.update(state_dict["_scale_fn_custom"])
