"""Training and evaluation: an epoch of steps, a pass without gradients, and the two in turn.

`loader` gives (inputs, targets) batches; `loss_fn(outputs, targets)` is a mean over the batch; `metrics` are
functions of the same two arguments, by name, whose values are means over the batch as well.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from shared.autograd import no_grad
from shared.nn import Module
from shared.optim import Optimizer
from shared.optim.lr_scheduler import ReduceLROnPlateau
from shared.tensor import Tensor
from shared.training.callback import Callback
from shared.training.checkpoints import find_checkpoint, prepare
from shared.training.history import History
from shared.training.resume import load_checkpoint, save_checkpoint

Metrics = Mapping[str, Callable[[Tensor, Tensor], Any]]


def fit(
    model: Module,
    train_loader: Iterable,
    val_loader: Iterable | None = None,
    *,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    epochs: int,
    metrics: Metrics | None = None,
    scheduler: Any = None,
    schedule_by: str = "epoch",
    callbacks: Sequence[Callback] = (),
    resume: str | os.PathLike | None = None,
    progress: bool = True,
) -> History:
    """Trains for `epochs` passes over `train_loader`, looking at `val_loader` after each; returns the history.

    `scheduler.step()` is called once per epoch, or after every batch with `schedule_by="batch"`; ReduceLROnPlateau
    gets the validation loss, or the training loss where there is no `val_loader`. `callbacks` look on after every
    epoch (`EarlyStopping`, `TensorBoard`). With `progress`, a bar shows the latest numbers.

    `resume` is a folder for checkpoints, one after every epoch, of which the last two stay and the one of smallest
    validation loss. Where there is one already, training continues from the last, up to `epochs` in all, with the
    losses of a run that was never interrupted: see `save_checkpoint`, whose `step` is here the number of epochs done.

    >>> import shared
    >>> _ = shared.manual_seed(0)
    >>> x = shared.linspace(-1, 1, 8).reshape(8, 1)
    >>> model = shared.nn.Linear(1, 1)
    >>> history = fit(model, [(x, 3 * x)], loss_fn=shared.nn.MSELoss(), epochs=100, progress=False,
    ...               optimizer=shared.optim.SGD(model.parameters(), lr=0.5))
    >>> len(history["train_loss"]), history["train_loss"][-1] < 1e-6
    (100, True)
    """
    _check_schedule(scheduler, schedule_by)
    history, done = History(), 0
    loaders = [loader for loader in (train_loader, val_loader) if loader is not None]
    extras = {"scheduler": scheduler, "history": history, "data": loaders, "callbacks": callbacks}
    if resume is not None and find_checkpoint(resume) is not None:
        done = load_checkpoint(resume, model, optimizer, **extras)
    if resume is not None:
        prepare(os.fspath(resume))  # a folder that cannot be written is seen before the first epoch, not after it
    with _Progress(train_loader, epochs, progress, done) as bar:

        def after_batch() -> None:
            if scheduler is not None and schedule_by == "batch":
                scheduler.step()
            bar.advance()

        for epoch in range(done + 1, epochs + 1):
            if any(callback.stop for callback in callbacks):
                break
            rate = float(optimizer.param_groups[0]["lr"])  # a schedule may change it during the epoch
            train = train_one_epoch(
                model, train_loader, loss_fn, optimizer, metrics, epoch=epoch, after_batch=after_batch
            )
            val = evaluate(model, val_loader, loss_fn, metrics) if val_loader is not None else {}
            history.add(train, val, lr=rate)
            if scheduler is not None and schedule_by == "epoch":
                _step(scheduler, history)
            for callback in callbacks:
                callback.after_epoch(model, history)
            if resume is not None:
                save_checkpoint(resume, model, optimizer, epoch, value=val.get("loss"), **extras)
            bar.show(epoch, history)
    for callback in callbacks:
        callback.after_training(model, history)
    return history


def train_one_epoch(
    model: Module,
    loader: Iterable,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    metrics: Metrics | None = None,
    *,
    epoch: int = 1,
    after_batch: Callable[[], None] | None = None,
) -> dict[str, float]:
    """One optimizer step per batch, in train mode; returns the mean loss and metrics over all examples.

    Each batch of `loader` goes through the model once, on the model's device (`to_device_of`), and each step uses
    the gradient of its own batch alone, whatever was in `.grad` before. The means are of each batch before its step,
    while the model changes: `RunningMeans` of what `measure` returns for it, each batch with its `batch_size`. A
    loss that is not finite raises FloatingPointError, before it reaches the parameters: `check_finite`, with the
    batch's number, counted from 1, and `epoch`. `after_batch`, if given, is called at the end of each batch, after
    its step. A loader without a batch is a ValueError, which `RunningMeans` raises.

    >>> import shared
    >>> model = shared.nn.Linear(1, 1, bias=False)
    >>> _ = shared.nn.init.zeros_(model.weight)
    >>> optimizer = shared.optim.SGD(model.parameters(), lr=0.5)
    >>> batch = (shared.tensor([[1.0]]), shared.tensor([[2.0]]))
    >>> train_one_epoch(model, [batch, batch], shared.nn.MSELoss(), optimizer)      # w is 0, then 2: (4 + 0) / 2
    {'loss': 2.0}
    """
    model.train()
    means = RunningMeans()
    for batch, (inputs, targets) in enumerate(loader, start=1):
        inputs, targets = to_device_of(model, inputs, targets)
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = loss_fn(outputs, targets)
        check_finite(loss, epoch, batch)
        loss.backward()
        optimizer.step()
        means.add(batch_size(targets), measure(loss, outputs, targets, metrics))
        if after_batch is not None:
            after_batch()
    return means.result()


def evaluate(
    model: Module,
    loader: Iterable,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    metrics: Metrics | None = None,
) -> dict[str, float]:
    """The mean loss and metrics over all examples, in eval mode and without recording; changes nothing.

    Each batch of `loader` goes through the model once, on the model's device (`to_device_of`); the means over
    examples are those of `RunningMeans`, from what `measure` returns for each batch and its `batch_size`; without
    a batch, a ValueError. The model is afterwards in the mode, train or eval, in which it came.

    >>> import shared
    >>> model, x = shared.nn.Identity(), shared.tensor([[2.0], [4.0]])
    >>> evaluate(model, [(x, x + 1), (x[:1], x[:1])], shared.nn.MSELoss())      # (2 · 1 + 1 · 0) / 3
    {'loss': 0.6666666666666666}
    """
    was_training = model.training
    model.eval()
    means = RunningMeans()
    with no_grad():
        for inputs, targets in loader:
            inputs, targets = to_device_of(model, inputs, targets)
            outputs = model(inputs)
            loss = loss_fn(outputs, targets)
            means.add(batch_size(targets), measure(loss, outputs, targets, metrics))
    model.train(was_training)
    return means.result()


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The share of rows whose largest output is at the target's class.

    `outputs` are logits or probabilities (batch, classes, …), `targets` class numbers (batch, …).

    >>> import shared
    >>> accuracy(shared.tensor([[2.0, 1.0], [0.0, 3.0]]), shared.tensor([0, 0]))
    0.5
    """
    if outputs.ndim < 2 or tuple(targets.shape) != (outputs.shape[0], *outputs.shape[2:]):
        raise ValueError(
            f"accuracy expects outputs (batch, classes, …) and targets (batch, …) of class numbers, but got shapes "
            f"{tuple(outputs.shape)} and {tuple(targets.shape)}"
        )
    return (outputs.argmax(dim=1) == targets).float().mean().item()


# ---------------------------------------------------------------- helpers


class RunningMeans:
    """Means over examples, from means over batches: each counts as often as its batch has examples.

    >>> means = RunningMeans()
    >>> means.add(4, {"loss": 1.0}); means.add(2, {"loss": 4.0}); means.result()
    {'loss': 2.0}
    """

    def __init__(self) -> None:
        self.examples = 0
        self.sums: dict[str, float] = {}

    def add(self, examples: int, means: Mapping[str, float]) -> None:
        self.examples += examples
        for name, value in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + examples * value

    def result(self) -> dict[str, float]:
        if self.examples == 0:
            raise ValueError(
                "the loader gave no batch: is its dataset empty, smaller than a batch with drop_last=True, or an "
                "iterator that was used up?"
            )
        return {name: total / self.examples for name, total in self.sums.items()}


def measure(loss: Tensor, outputs: Tensor, targets: Tensor, metrics: Metrics | None) -> dict[str, float]:
    """The loss and every metric of one batch, as Python numbers."""
    detached = outputs.detach() if isinstance(outputs, Tensor) else outputs
    values = {name: float(metric(detached, targets)) for name, metric in (metrics or {}).items()}
    return {"loss": loss.item(), **values}


def batch_size(targets: Any) -> int:
    """How many examples a batch has; its targets may be a tuple or list of tensors, one for each output."""
    return len(targets[0] if isinstance(targets, (tuple, list)) else targets)


def to_device_of(model: Module, *batch: Any) -> list[Any]:
    """The batch's Tensors on the device of the model's parameters."""
    first = next(iter(model.parameters()), None)
    return [x.to(first.device) if first is not None and isinstance(x, Tensor) else x for x in batch]


def check_finite(loss: Tensor, epoch: int, batch: int) -> None:
    """Raises where the loss is NaN or infinite: a step from there would ruin every parameter."""
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the loss is {value} in epoch {epoch}, batch {batch}. Lower the learning rate, clip the gradients, or "
            f"look for NaN in this batch; shared.autograd.detect_anomaly() names the op that makes one"
        )


def _check_schedule(scheduler: Any, schedule_by: str) -> None:
    """Raises where `fit` could not step a schedule in the way that is asked for."""
    if schedule_by not in ("epoch", "batch"):
        raise ValueError(f"schedule_by should be 'epoch' or 'batch', but got {schedule_by!r}")
    if isinstance(scheduler, ReduceLROnPlateau) and (scheduler.mode != "min" or schedule_by == "batch"):
        raise ValueError("fit gives ReduceLROnPlateau the loss of each epoch: use mode='min' and schedule_by='epoch'")


def _step(scheduler: Any, history: History) -> None:
    """Steps a schedule after an epoch, with the epoch's loss where it asks for one."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(history["val_loss" if "val_loss" in history else "train_loss"][-1])
    else:
        scheduler.step()


class _Progress:
    """A tqdm bar over all batches of all epochs, or nothing."""

    def __init__(self, loader: Iterable, epochs: int, shown: bool, done: int):
        self.bar = None
        if shown:
            from tqdm import tqdm

            batches = len(loader) if hasattr(loader, "__len__") else None
            total, before = (batches * epochs, batches * done) if batches is not None else (None, 0)
            self.bar, self.epochs = tqdm(total=total, initial=before, unit="batch", mininterval=0.5), epochs

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.update()

    def show(self, epoch: int, history: History) -> None:
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.bar.set_postfix_str(history.last())
