"""Stopping when the validation loss no longer falls, with the best weights."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

from shared.nn import Module
from shared.training.callback import Callback
from shared.training.history import History


class EarlyStopping(Callback):
    """Ends the training after `patience` epochs in a row without improvement; the model gets its best weights back.

    `monitor` is a name in the history. An epoch improves where it is lower than the best by more than `min_delta`
    (mode "min"), or higher (mode "max"); NaN never does. The best weights come back after the last epoch, also
    where the patience was not used up; `restore_best=False` keeps the last ones. Source: Goodfellow, Bengio and
    Courville, "Deep learning", 2016, algorithm 7.1.

    In a loop of one's own: `if stopping.step(val_loss, model): break`, and `stopping.restore(model)` behind it.

    >>> import shared
    >>> model, stopping = shared.nn.Linear(1, 1), EarlyStopping(patience=2)
    >>> [stopping.step(loss, model) for loss in (1.0, 0.7, 0.8, 0.75)]
    [False, False, False, True]
    >>> stopping.best, stopping.best_epoch
    (0.7, 2)
    """

    def __init__(
        self,
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str = "min",
        *,
        monitor: str = "val_loss",
        restore_best: bool = True,
    ):
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience should be a number of epochs, at least 1, but got {patience}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta should not be negative, but got {min_delta}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode should be 'min' or 'max', but got {mode!r}")
        self.patience, self.min_delta, self.mode = patience, min_delta, mode
        self.monitor, self.restore_best = monitor, restore_best
        self.best = math.inf if mode == "min" else -math.inf
        self.epoch = self.best_epoch = 0
        self.best_weights: dict[str, Any] | None = None

    @property
    def stop(self) -> bool:  # type: ignore[override]
        """True when the patience is used up: `patience` epochs have come since the best one (epoch 0 before any)."""
        return self.epoch - self.best_epoch >= self.patience

    def step(self, value: float, model: Module) -> bool:
        """Notes the next epoch's `value`, a number or a Tensor with one; returns `stop`.

        `epoch` counts the calls. Where the value `is_better`, it becomes `best` (a float), its epoch `best_epoch`, and
        with `restore_best` a copy of the model's state dict, which training will not change, `best_weights`.
        """
        self.epoch += 1
        if self.is_better(float(value)):
            self.best, self.best_epoch = float(value), self.epoch
            if self.restore_best:
                self.best_weights = deepcopy(dict(model.state_dict()))
        return self.stop

    def is_better(self, value: float) -> bool:
        """Whether `value` improves on `best` by more than `min_delta`, in the direction of `mode`; NaN never does."""
        if self.mode == "min":
            return value < self.best - self.min_delta
        return value > self.best + self.min_delta

    def restore(self, model: Module) -> None:
        """Gives the model the weights, and buffers, of the best epoch; without any the model stays as it is."""
        if self.best_weights is not None:
            model.load_state_dict(self.best_weights)

    def after_epoch(self, model: Module, history: History) -> None:
        if self.monitor not in history:
            raise KeyError(f"EarlyStopping looks at {self.monitor!r}, but the history has {', '.join(history)}")
        self.step(history[self.monitor][-1], model)

    def after_training(self, model: Module, history: History) -> None:
        self.restore(model)

    def state_dict(self) -> dict[str, Any]:
        """What was seen, in a new dictionary: "best", "best_epoch", "epoch", "best_weights".

        Not the settings: the object that resumes has its own, from its constructor.
        """
        return {name: getattr(self, name) for name in ("best", "best_epoch", "epoch", "best_weights")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where the object that returned `state_dict` was."""
        self.__dict__.update(state_dict)
