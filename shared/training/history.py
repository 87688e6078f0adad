"""What happened during training, epoch by epoch, and a plot of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLOURS = {"train": "#0072B2", "val": "#D55E00"}  # from Okabe and Ito's palette


class History(dict):
    """One list per measured quantity, with one number per epoch: `history["train_loss"]`, `history["val_accuracy"]`.

    >>> history = History()
    >>> history.add({"loss": 2.0}, {"loss": 2.5}, lr=0.1)
    >>> history.add({"loss": 1.0}, {"loss": 2.0}, lr=0.1)
    >>> history
    {'train_loss': [2.0, 1.0], 'val_loss': [2.5, 2.0], 'lr': [0.1, 0.1]}
    >>> history.last()
    'train_loss 1, val_loss 2'
    """

    def add(self, train: Mapping[str, float], val: Mapping[str, float], lr: float) -> None:
        """Appends the numbers of one epoch."""
        row = {f"train_{k}": v for k, v in train.items()} | {f"val_{k}": v for k, v in val.items()} | {"lr": lr}
        for name, value in row.items():
            self.setdefault(name, []).append(value)

    @property
    def epochs(self) -> int:
        """How many epochs it has."""
        return len(self.get("lr", ()))

    def last(self) -> str:
        """The latest numbers in one line."""
        return ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.items() if name != "lr")

    def plot(self, title: str = "Training") -> Any:
        """A matplotlib Figure with one panel for the loss and one per metric, over epochs.

        A notebook shows it as the last value of a cell; `figure.savefig(path)` writes it.
        """
        from matplotlib.figure import Figure  # not pyplot, which would show it a second time
        from matplotlib.ticker import MaxNLocator

        if not self:
            raise ValueError("the history is empty: fit() fills it")
        quantities = list(dict.fromkeys(name.partition("_")[2] for name in self if name != "lr"))
        figure = Figure(figsize=(5 * len(quantities), 3.6), layout="constrained")
        axes = figure.subplots(1, len(quantities), squeeze=False)
        for axis, quantity in zip(axes[0], quantities, strict=True):
            self._panel(axis, quantity)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle(title)
        return figure

    def _panel(self, axis: Any, quantity: str) -> None:
        for split, label in (("train", "training"), ("val", "validation")):
            values = self.get(f"{split}_{quantity}")
            if values:
                epochs = range(1, len(values) + 1)
                marker = "o" if len(values) < 30 else None
                axis.plot(epochs, values, label=label, color=_COLOURS[split], marker=marker, markersize=4)
        axis.set_xlabel("epoch")
        axis.set_ylabel(quantity)
        axis.grid(alpha=0.3)
        axis.legend()
