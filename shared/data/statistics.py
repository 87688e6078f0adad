"""Mean and standard deviation per channel, in one pass over batches that never lie in memory together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


class RunningStatistics:
    """Statistics per channel of batches (B, C, *) that come by one after the other.

    Keeps `count`, `mean` (C,) and `squares` (C,), the sum of squared deviations from the mean, in float64.
    Two of them merge by T. Chan, G. Golub, R. LeVeque, "Updating Formulae …" (1979), equation 1.5.

    >>> statistics = RunningStatistics()
    >>> for batch in (np.array([[1.0], [2.0]]), np.array([[6.0]])):
    ...     statistics.update(batch)
    >>> statistics.mean.tolist(), statistics.squares.tolist()
    ([3.0], [14.0])
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def update(self, batch: Any) -> None:
        """Take in a batch (B, C, *), array or Tensor.

        Makes a RunningStatistics of the batch alone and merges it: `count` is how many values each channel
        has there (an int), `mean` and `squares` are float64 (C,). `_per_channel(batch)` gives the values as a
        float64 array (C, count). A batch without values (0 images) changes nothing.
        """
        values = _per_channel(batch)
        if values.shape[1] == 0:
            return
        part = RunningStatistics()
        part.count, part.mean = values.shape[1], values.mean(axis=1)
        part.squares = ((values - part.mean[:, None]) ** 2).sum(axis=1)
        self.merge(part)

    def merge(self, other: RunningStatistics) -> None:
        """Take in what another one has seen, as if its batches had come here; `other` stays as it is.

        An empty one (count 0, with mean and squares 0.0) may stand on either side, or on both.
        """
        if other.count == 0:
            return
        count = self.count + other.count
        delta = other.mean - self.mean
        self.mean = self.mean + delta * (other.count / count)
        self.squares = self.squares + other.squares + delta**2 * (self.count * other.count / count)
        self.count = count

    @property
    def std(self) -> Any:
        """The standard deviation (C,) of all values, the squares divided by `count`; NaN before the first batch."""
        return np.sqrt(self.squares / self.count) if self.count else np.nan


def _per_channel(batch: Any) -> np.ndarray:
    """The values of a batch (B, C, *) as a float64 array (C, count); ValueError where there is no channel axis."""
    values = np.asarray(batch)
    if values.ndim < 2:
        raise ValueError(f"a batch has the shape (B, C, ...), but got {values.shape}")
    return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).astype(np.float64)


def channel_statistics(batches: Iterable[Any]) -> tuple[list[float], list[float]]:
    """(mean, std), one number per channel, ready for `Normalize`.

    A batch is images (B, C, H, W), or a pair (images, labels). Hand it a
    loader over the training split: what is computed from other images is a leak.

    >>> channel_statistics([np.array([[1.0], [3.0]]), np.array([[1.0], [3.0]])])
    ([2.0], [1.0])
    """
    statistics = RunningStatistics()
    for batch in batches:
        statistics.update(batch[0] if isinstance(batch, tuple | list) else batch)
    if statistics.count == 0:
        raise ValueError("channel_statistics got no batch: is the dataset empty, or the iterator used up?")
    return statistics.mean.tolist(), statistics.std.tolist()
