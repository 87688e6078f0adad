"""What the schedules share that move the momentum against the rate."""

from __future__ import annotations

from typing import Any

from shared.optim.lr_scheduler.base import LRScheduler
from shared.optim.optimizer import Optimizer


class MomentumCycle(LRScheduler):
    """A schedule that sets SGD's momentum, or Adam's first beta, as well."""

    def _start_momentum(self, base: list[float], highest: list[float], last_epoch: int) -> None:
        """Sets each group's momentum to its highest value, and writes both values into the group."""
        self.use_beta1 = "betas" in self.optimizer.defaults
        if last_epoch == -1:
            for group, high, low in zip(self.optimizer.param_groups, highest, base, strict=True):
                self._set_momentum(group, high)
                group["max_momentum"], group["base_momentum"] = high, low

    def _set_momentum(self, group: dict[str, Any], value: float) -> None:
        if self.use_beta1:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value


def require_momentum(optimizer: Optimizer) -> None:
    """Raises where an optimizer has no momentum that could be moved."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option enabled")


def per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """One value per parameter group, from one for all or a list."""
    if not isinstance(value, (list, tuple)):
        return [value] * len(optimizer.param_groups)
    if len(value) != len(optimizer.param_groups):
        raise ValueError(
            f"{name} must have the same length as optimizer.param_groups. "
            f"{name} has {len(value)} values, param_groups has {len(optimizer.param_groups)}."
        )
    return list(value)
