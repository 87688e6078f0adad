"""Schedules made of schedules: one after the other, all at once, and the usual one, warm-up and a cosine."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from shared.optim.lr_scheduler.base import LRScheduler, set_rate
from shared.optim.lr_scheduler.cosine import CosineAnnealingLR
from shared.optim.lr_scheduler.factors import LinearLR
from shared.optim.lr_scheduler.plateau import ReduceLROnPlateau
from shared.optim.optimizer import Optimizer


class _Combined(LRScheduler):
    """Holds `_schedulers`, whose states are part of its own."""

    _schedulers: Sequence[LRScheduler]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, with the states of the schedules."""
        return super().state_dict() | {"_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where the schedule that returned `state_dict` was; load the optimizer's state as well."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for scheduler, saved in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(saved)

    def _check(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer) -> None:
        name = type(self).__name__
        for i, scheduler in enumerate(schedulers):
            if not hasattr(scheduler, "optimizer"):
                raise TypeError(f"{name} at index {i} should have `optimizer` as its attribute.")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"{name} does not support `ReduceLROnPlateau` scheduler as it requires additional kwargs to be "
                    f"specified when calling `step`, but got one at index {i} in the given schedulers sequence."
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"{name} expects all schedulers to belong to the same optimizer, but got scheduler "
                    f"{type(scheduler).__name__} at index {i} with another one"
                )


class SequentialLR(_Combined):
    """One schedule after the other: `schedulers[i + 1]` takes over, from its own beginning, at step `milestones[i]`.

    >>> import shared
    >>> from shared.optim.lr_scheduler import ConstantLR, ExponentialLR, rates
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0)
    >>> parts = [ConstantLR(optimizer, factor=0.1, total_iters=99), ExponentialLR(optimizer, gamma=0.5)]
    >>> rates(SequentialLR(optimizer, parts, milestones=[2]), 5)
    [0.1, 0.1, 1.0, 0.5, 0.25]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int], last_epoch: int = -1
    ):
        if len(schedulers) < 1:
            raise ValueError(f"{type(self).__name__} expects at least one scheduler, but got no scheduler.")
        self._check(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"Sequential Schedulers expects number of schedulers provided to be one more than the number of "
                f"milestone points, but got number of schedulers {len(schedulers)} and the number of milestones to "
                f"be equal to {len(milestones)}"
            )
        self._schedulers = schedulers
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        self.optimizer = optimizer
        self._start_over()

    def _start_over(self) -> None:
        """Takes back the first step that every schedule made when it was created, and makes the first one's again."""
        for group in self.optimizer.param_groups:
            set_rate(group, group["initial_lr"])
        self.recursive_undo()
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def recursive_undo(self, sched: LRScheduler | None = None) -> None:
        """Moves a schedule, or those it is made of, one epoch back."""
        sched = self if sched is None else sched
        if hasattr(sched, "_schedulers"):
            for part in sched._schedulers:
                self.recursive_undo(part)
        elif hasattr(sched, "last_epoch"):
            sched.last_epoch -= 1

    def step(self) -> None:  # type: ignore[override]
        """Sets the next learning rate, by the schedule whose turn it is."""
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[turn]
        if turn > 0 and self._milestones[turn - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Combined):
    """Steps all `schedulers` of one optimizer together: their factors multiply.

    >>> import shared
    >>> from shared.optim.lr_scheduler import ConstantLR, ExponentialLR, rates
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0)
    >>> parts = [ConstantLR(optimizer, factor=0.1, total_iters=2), ExponentialLR(optimizer, gamma=0.5)]
    >>> rates(ChainedScheduler(parts), 4)
    [0.1, 0.05, 0.25, 0.125]
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        if len(schedulers) < 1:
            raise ValueError(
                f"{type(self).__name__} expects at least one scheduler to be chained, but got no scheduler."
            )
        optimizer = optimizer or getattr(schedulers[0], "optimizer", None)
        self._check(schedulers, optimizer)
        self._schedulers = schedulers
        self.optimizer = optimizer
        self._last_lr = self._current()

    def step(self) -> None:  # type: ignore[override]
        """Sets the next learning rate, by every schedule in turn."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._current()


def warmup_cosine(
    optimizer: Optimizer, warmup_steps: int, total_steps: int, *, eta_min: float = 0.0, last_epoch: int = -1
) -> LRScheduler:
    """Linear warm-up to the optimizer's rate in `warmup_steps` steps, then a cosine down to `eta_min` at `total_steps`.

    The composition PyTorch's users write: a `SequentialLR` of `LinearLR` and `CosineAnnealingLR`. The rate rises by
    lr / (warmup_steps + 1) with every step, beginning with that, never with zero; step `warmup_steps` has the whole
    of it. Without a warm-up there is the cosine alone. Raises ValueError unless 0 <= warmup_steps < total_steps.
    Source of the shape: Loshchilov and Hutter, "SGDR", 2017, equation 5, after the warm-up of Goyal et al.,
    "Accurate, large minibatch SGD", 2017, section 2.2.

    >>> import shared
    >>> from shared.optim.lr_scheduler import rates
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0)
    >>> rates(warmup_cosine(optimizer, warmup_steps=3, total_steps=7), 8)
    [0.25, 0.5, 0.75, 1.0, 0.853553, 0.5, 0.146447, 0.0]
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_cosine expects 0 <= warmup_steps < total_steps, but got {warmup_steps=} and {total_steps=}"
        )
    if warmup_steps == 0:
        return CosineAnnealingLR(optimizer, total_steps, eta_min, last_epoch)
    warmup = LinearLR(optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps, last_epoch=last_epoch)
    cosine = CosineAnnealingLR(optimizer, total_steps - warmup_steps, eta_min, last_epoch)
    return SequentialLR(optimizer, [warmup, cosine], [warmup_steps], last_epoch)
