"""Learning-rate schedules: after each `optimizer.step()` (or each epoch), `scheduler.step()` sets the next rate.

All but LambdaLR change the rate they find in the optimizer, as PyTorch's do, so that several schedules of one
optimizer multiply. Source of names and formulas: the documentation of `torch.optim.lr_scheduler`.
"""

from __future__ import annotations

import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from shared.optim.optimizer import Optimizer
from shared.tensor import Tensor

__all__ = ["ConstantLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "StepLR"]


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
                group.setdefault("initial_lr", _number(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming scheduler with "
                    f"last_epoch >= 0. Load the optimizer's state dict first; a new run starts with last_epoch=-1"
                )
        self.base_lrs = [_number(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        optimizer._opt_called = False
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

    def step(self) -> None:
        """Sets the next learning rate in every parameter group; call it after `optimizer.step()`."""
        if self._step_count == 1:
            self._warn_if_optimizer_has_not_stepped()
        self._step_count += 1
        self.last_epoch += 1
        self._get_lr_called_within_step = True
        rates = self.get_lr()
        self._get_lr_called_within_step = False
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
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
        return [_number(group["lr"]) for group in self.optimizer.param_groups]

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


class LambdaLR(LRScheduler):
    """The initial rate times `lr_lambda(epoch)`; one function, or a list with one per parameter group.

    >>> import shared
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0)
    >>> rates(LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch)), 4)
    [1.0, 0.5, 0.333333, 0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | list[Callable[[int], float]],
        last_epoch: int = -1,
    ):
        if isinstance(lr_lambda, (list, tuple)):
            if len(lr_lambda) != len(optimizer.param_groups):
                raise ValueError(f"Expected {len(optimizer.param_groups)} lr_lambdas, but got {len(lr_lambda)}")
            self.lr_lambdas = list(lr_lambda)
        else:
            self.lr_lambdas = [lr_lambda] * len(optimizer.param_groups)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        self._warn_if_outside_step()
        return [base * function(self.last_epoch) for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of `lr_lambdas`, the attributes of callable objects, not functions."""
        saved = [None if isinstance(f, types.FunctionType) else dict(f.__dict__) for f in self.lr_lambdas]
        return super().state_dict() | {"lr_lambdas": saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the schedule; functions are the ones given at construction."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "lr_lambdas"})
        for function, saved in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if saved is not None:
                function.__dict__.update(saved)


class StepLR(LRScheduler):
    """The rate times `gamma` after every `step_size` steps.

    >>> import shared
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0)
    >>> rates(StepLR(optimizer, step_size=2, gamma=0.1), 5)
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        self._warn_if_outside_step()
        if self.last_epoch == 0 or self.last_epoch % self.step_size != 0:
            return self._current()
        return [lr * self.gamma for lr in self._current()]


class MultiStepLR(LRScheduler):
    """The rate times `gamma` at each of the `milestones`, numbers of steps.

    >>> import shared
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0)
    >>> rates(MultiStepLR(optimizer, milestones=[1, 3], gamma=0.1), 5)
    [1.0, 0.1, 0.1, 0.01, 0.01]
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1):
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        self._warn_if_outside_step()
        return [lr * self.gamma ** self.milestones[self.last_epoch] for lr in self._current()]


class ConstantLR(LRScheduler):
    """The rate times `factor` for the first `total_iters` steps, the full rate afterwards.

    >>> import shared
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0)
    >>> rates(ConstantLR(optimizer, factor=0.5, total_iters=2), 4)
    [0.5, 0.5, 1.0, 1.0]
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1):
        if factor > 1.0 or factor < 0:
            raise ValueError("Constant multiplicative factor expected to be between 0 and 1.")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        self._warn_if_outside_step()
        if self.last_epoch == 0:
            return [lr * self.factor for lr in self._current()]
        if self.last_epoch != self.total_iters:
            return self._current()
        return [lr * (1.0 / self.factor) for lr in self._current()]


class LinearLR(LRScheduler):
    """The rate times a factor that goes from `start_factor` to `end_factor` in `total_iters` equal steps.

    >>> import shared
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0)
    >>> rates(LinearLR(optimizer, start_factor=0.25, total_iters=3), 5)
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ):
        if start_factor > 1.0 or start_factor <= 0:
            raise ValueError("Starting multiplicative factor expected to be greater than 0 and less or equal to 1.")
        if end_factor > 1.0 or end_factor < 0:
            raise ValueError("Ending multiplicative factor expected to be between 0 and 1.")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        self._warn_if_outside_step()
        if self.last_epoch == 0:
            return [lr * self.start_factor for lr in self._current()]
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._current()
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return [lr * (1.0 + rise / before) for lr in self._current()]


class ExponentialLR(LRScheduler):
    """The rate times `gamma` after every step.

    >>> import shared
    >>> optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0)
    >>> rates(ExponentialLR(optimizer, gamma=0.5), 4)
    [1.0, 0.5, 0.25, 0.125]
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        self._warn_if_outside_step()
        if self._is_initial:
            return self._current()
        return [lr * self.gamma for lr in self._current()]


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


def _number(lr: float | Tensor) -> float:
    """A learning rate as a Python number; given as a Tensor, it is read."""
    return lr.item() if isinstance(lr, Tensor) else lr
