"""What `fit` calls after every epoch."""

from __future__ import annotations

from typing import Any

from shared.nn import Module
from shared.training.history import History


class Callback:
    """Base class of what looks on during training: `fit(..., callbacks=[...])`. A subclass writes what it needs.

    A callback ends the training by setting `self.stop = True`. What it has to remember when a training is
    resumed goes through `state_dict` and `load_state_dict`.

    >>> class Until(Callback):
    ...     def after_epoch(self, model, history):
    ...         self.stop = history["train_loss"][-1] < 0.5
    """

    stop = False

    def after_epoch(self, model: Module, history: History) -> None:
        """Called when the epoch's numbers are in `history`."""

    def after_training(self, model: Module, history: History) -> None:
        """Called once, after the last epoch."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
