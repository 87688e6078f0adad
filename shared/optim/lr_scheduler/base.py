"""What all schedules share: the epoch they are in, the rates they set, saving and loading."""

from __future__ import annotations

import warnings
from typing import Any

from shared.optim.optimizer import Optimizer
from shared.tensor import Tensor


class LRScheduler:
    """Base class of the schedules; a subclass writes `get_lr`, which gives one rate per parameter group.

    `last_epoch=-1` starts a schedule; another value continues one, on an optimizer whose state (with the
    "initial_lr" of each group) was loaded before.

    >>> import shared
    >>> class Halve(LRScheduler):
    ...     def get_lr(self):
    ...         return [lr * 0.5**self.last_epoch for lr in self.base_lrs]
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=0.8)
    >>> scheduler = Halve(optimizer)
    >>> optimizer.step(); scheduler.step(); scheduler.get_last_lr()
    [0.4]
    """

    _is_initial = False
    _get_lr_called_within_step = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", number(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming scheduler with "
                    f"last_epoch >= 0. Load the optimizer's state dict first; a new run starts with last_epoch=-1"
                )
        self.base_lrs = [number(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        if not hasattr(optimizer, "_has_schedule"):  # only steps since the first schedule count, as in PyTorch
            optimizer._has_schedule, optimizer._opt_called = True, False  # type: ignore[attr-defined]
        self._initial_step()

    def _initial_step(self) -> None:
        """Sets the rates of the first epoch."""
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[float]:
        """The rates for `self.last_epoch`, one per parameter group."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr()")

    def get_last_lr(self) -> list[float]:
        """The rates that the last `step` set, one per parameter group."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Sets the next learning rate in every parameter group; call it after `optimizer.step()`.

        `epoch` jumps to that epoch, with a warning: PyTorch deprecates it.
        """
        if self._step_count == 1:
            self._warn_if_optimizer_has_not_stepped()
        self._step_count += 1
        if epoch is not None:
            warn_that_epoch_is_deprecated()
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        self._get_lr_called_within_step = True
        try:
            if epoch is None:
                self.last_epoch += 1
                rates = self.get_lr()
            else:
                self.last_epoch = epoch
                rates = self._get_closed_form_lr()
        finally:
            self._get_lr_called_within_step = False
        self._set_rates(rates)

    def _get_closed_form_lr(self) -> list[float]:
        """The rates for `self.last_epoch` whatever the rates are now, where a schedule has such a formula."""
        return self.get_lr()

    def _set_rates(self, rates: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            set_rate(group, lr)
        self._last_lr = self._current()

    def _warn_if_optimizer_has_not_stepped(self) -> None:
        own_step = type(self.optimizer).step is not Optimizer.step  # one that need not tell us
        if not self.optimizer._opt_called and not own_step:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in the opposite order, "
                "or the first value of the learning rate schedule is skipped.",
                UserWarning,
                stacklevel=3,
            )

    def _current(self) -> list[float]:
        """The rates in the optimizer now."""
        return [number(group["lr"]) for group in self.optimizer.param_groups]

    def _warn_if_outside_step(self) -> None:
        if not self._get_lr_called_within_step:
            warnings.warn(
                "To get the last learning rate computed by the scheduler, please use `get_last_lr()`.",
                UserWarning,
                stacklevel=3,
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where the schedule that returned `state_dict` was; load the optimizer's state as well."""
        self.__dict__.update(state_dict)


def rates(scheduler: LRScheduler, steps: int) -> list[float]:
    """The first group's rate over the next `steps` steps, rounded to six places: for looking at a schedule.

    It runs the schedule and steps the optimizer, whose parameters must have no gradients, so nothing else changes.
    """
    found = []
    for _ in range(steps):
        found.append(round(scheduler.get_last_lr()[0], 6))
        scheduler.optimizer.step()
        scheduler.step()
    return found


def number(lr: float | Tensor) -> float:
    """A learning rate as a Python number; given as a Tensor, it is read."""
    return lr.item() if isinstance(lr, Tensor) else lr


def set_rate(group: dict[str, Any], lr: float) -> None:
    """Writes a learning rate into a parameter group; a Tensor there is changed in place."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def warn_that_epoch_is_deprecated() -> None:
    warnings.warn(
        "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. "
        "Please use `scheduler.step()` to step the scheduler.",
        UserWarning,
        stacklevel=3,
    )
