"""Watching a training in TensorBoard: its numbers, weights, gradients and pictures, written by tensorboardX."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from shared.nn import Module
from shared.tensor import Tensor
from shared.training.callback import Callback
from shared.training.history import History


class TensorBoard(Callback):
    """Writes what happens during `fit` to `log_dir`; `tensorboard --logdir <its parent>` shows it, runs side by side.

    After every epoch: all numbers of the history ("loss/train" and "loss/val" land in one group) and, with
    `histograms`, the distribution of every parameter and of its gradient in the last batch. `hparams` are the run's
    hyper-parameters (numbers, strings, booleans), listed beside its results. A training that is resumed, or started
    again, in the same folder takes the place of the earlier numbers from its first epoch on.

    `scalar`, `histogram` and `images` write more; `writer` is the tensorboardX.SummaryWriter itself, with
    `add_figure`, `add_text` and all the rest.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        *,
        hparams: Mapping[str, bool | str | float | int] | None = None,
        histograms: bool = True,
    ):
        self.log_dir, self.histograms = os.fspath(log_dir), histograms
        self.hparams = dict(hparams or {})
        self._writer: Any = None
        self._hparams_written = False
        _import_tensorboardx()  # a missing package is better known before the training than after its first epoch

    @property
    def writer(self) -> Any:
        """The SummaryWriter, made at its first use."""
        return self._writer or self._open(None)

    def _open(self, purge_step: int | None) -> Any:
        suffix = f".{time.time_ns()}"  # without it, two files begun in one second have the same name
        options = {"purge_step": purge_step, "filename_suffix": suffix}
        self._writer = _import_tensorboardx().SummaryWriter(self.log_dir, **options)
        _write_at_once(self._writer.file_writer.event_writer)
        return self._writer

    def scalar(self, tag: str, value: float, step: int) -> None:
        """One number, as a point of the curve `tag`."""
        self.writer.add_scalar(tag, float(value), step)

    def histogram(self, tag: str, values: Any, step: int) -> None:
        """The distribution of an array's or Tensor's finite values; nothing where it has none."""
        values = _array(values)
        values = values[np.isfinite(values)]
        if values.size:
            self.writer.add_histogram(tag, values, step)

    def images(self, tag: str, images: Any, step: int) -> None:
        """One image (channels, height, width) or a grid of them; 1 or 3 channels, 0…1 or uint8."""
        images = _array(images)
        if images.ndim not in (3, 4) or images.shape[-3] not in (1, 3):
            raise ValueError(f"images should have shape (N, C, H, W) or (C, H, W), C = 1 or 3, but got {images.shape}")
        if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 1):
            raise ValueError(
                f"images should have values from 0 to 1, or be uint8, but got {images.min():.3g}…{images.max():.3g}: "
                f"undo the normalisation first"
            )
        self.writer.add_images(tag, images if images.ndim == 4 else images[None], step)

    def after_epoch(self, model: Module, history: History) -> None:
        step = history.epochs
        if self._writer is None:
            self._open(purge_step=step)
        numbers = {_tag(name): values[-1] for name, values in history.items()}
        if self.hparams and not self._hparams_written:
            self._write_hparams(numbers)
        self.numbers(step, numbers)
        if self.histograms:
            for tag, values in _weights_and_gradients(model):
                self.histogram(tag, values, step)
        self._writer.flush()

    def numbers(self, step: int, numbers: Mapping[str, float], flush: bool = False) -> None:
        """Points of several curves at one step; from the first step written on they replace an earlier run's."""
        if self._writer is None:
            self._open(purge_step=step)
        for tag, value in numbers.items():
            self.scalar(tag, value, step)
        if flush:
            self.flush()

    def flush(self) -> None:
        """Hands what was written to the file, where a process that is killed loses none of it."""
        if self._writer is not None:
            self._writer.flush()

    def _write_hparams(self, numbers: Mapping[str, float]) -> None:
        """The run's hyper-parameters, and which of its curves are results, as the HParams page reads them.

        Into this run's own file: `SummaryWriter.add_hparams` would make a run of its own for them.
        """
        from tensorboardX.summary import hparams

        results = sorted((tag for tag in numbers if "/" in tag), key=lambda tag: not tag.endswith("/val"))
        for summary in hparams(self.hparams, dict.fromkeys(results, 0.0)):
            self._writer.file_writer.add_summary(summary)
        self._hparams_written = True

    def after_training(self, model: Module, history: History) -> None:
        self.flush()

    def close(self) -> None:
        """Writes what is left; a later use starts another file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _import_tensorboardx() -> Any:
    try:
        import tensorboardX
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "writing for TensorBoard needs tensorboardX, and looking at it tensorboard: "
            "pip install tensorboardX tensorboard"
        ) from error
    return tensorboardX


def _write_at_once(events: Any) -> None:
    """Leave out the queue and the thread of tensorboardX's event writer, whose `flush` does not wait for them.

    What `flush` is called after would otherwise reach the disk some time later, or, in a killed training, never.
    """
    events._worker.stop()  # returns when everything in the queue is in the file
    events.add_event = events._ev_writer.write_event


def _tag(name: str) -> str:
    """`train_loss` → `loss/train`, so that both splits are in one group; `lr` stays."""
    split, _, quantity = name.partition("_")
    return f"{quantity}/{split}" if split in ("train", "val") and quantity else name


def _weights_and_gradients(model: Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        yield f"parameters/{name}", parameter
        if parameter.grad is not None:
            yield f"gradients/{name}", parameter.grad


def _array(values: Any) -> np.ndarray:
    """A Tensor, on whatever device, or array as a NumPy array that the writer knows."""
    array = values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)
    return array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else array
