"""Samplers: in which order a dataset's indices come, and how they are cut into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from shared.arrays.random import Generator, default_generator

T = TypeVar("T", covariant=True)


def draw_seed(generator: Generator | None = None) -> int:
    """A seed below 2**63 from `generator` (None: the framework's default, which `manual_seed` fixes)."""
    return int((generator or default_generator()).rng.integers(2**63))


def _own_stream(generator: Generator | None) -> np.random.Generator:
    """The given generator's stream, or a new one seeded by the default generator.

    A new one, because an epoch's order must not depend on what else draws numbers while the epoch runs.
    """
    return generator.rng if generator is not None else Generator().manual_seed(draw_seed()).rng


class Sampler(Generic[T]):
    """An iterable over indices, or lists of them. A subclass writes `__iter__`, and `__len__` if it can."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must write __iter__(self)")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, …

    >>> list(SequentialSampler("abc"))
    [0, 1, 2]
    """

    def __init__(self, data_source: Sized):
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """All indices in random order; with `replacement`, `num_samples` independent draws.

    `num_samples` defaults to the dataset's length; more than that without replacement means several passes.

    >>> sorted(RandomSampler("abc"))
    [0, 1, 2]
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ):
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got replacement={replacement}")
        if num_samples is not None and (not isinstance(num_samples, int) or num_samples < 0):
            raise ValueError(f"num_samples should be a non-negative integer value, but got num_samples={num_samples}")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(self.num_samples, int) or self.num_samples <= 0:
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={self.num_samples}")

    @property
    def num_samples(self) -> int:
        """How many indices one pass gives (read late: a dataset may grow)."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        """Yields `self.num_samples` indices (ints) into `self.data_source`, drawn anew at each call.

        Draws from `_own_stream(self.generator)`, a NumPy generator. With `self.replacement` each index is
        drawn independently of the others. Without it none comes twice before each has come once: more
        samples than the data source holds are one permutation after the other, the last one cut short.
        """
        rng, size, wanted = _own_stream(self.generator), len(self.data_source), self.num_samples
        if self.replacement:
            yield from rng.integers(size, size=wanted).tolist()
            return
        for start in range(0, wanted, size):
            yield from rng.permutation(size)[: wanted - start].tolist()

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices in random order.

    >>> sorted(SubsetRandomSampler([7, 3]))
    [3, 7]
    """

    def __init__(self, indices: Sequence[int], generator: Generator | None = None):
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        for i in _own_stream(self.generator).permutation(len(self.indices)).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """`num_samples` indices, index `i` with probability `weights[i] / sum(weights)`.

    >>> set(WeightedRandomSampler([0.0, 1.0, 0.0], num_samples=5))
    {1}
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ):
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={num_samples}")
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.weights = np.asarray(weights, dtype=np.float64)
        if self.weights.ndim != 1:
            raise ValueError(f"weights should be a 1d sequence but given weights have shape {self.weights.shape}")
        if (self.weights < 0).any() or not np.isfinite(self.weights).all() or self.weights.sum() <= 0:
            raise ValueError("weights should be finite and not negative, with at least one above zero")
        if not replacement and num_samples > np.count_nonzero(self.weights):
            raise ValueError(
                f"cannot draw {num_samples} different indices from {np.count_nonzero(self.weights)} weights above zero"
            )
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        chances = self.weights / self.weights.sum()
        rng = _own_stream(self.generator)
        yield from rng.choice(len(chances), size=self.num_samples, replace=self.replacement, p=chances).tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices from `sampler`; the last one may be shorter, or is dropped.

    >>> list(BatchSampler(range(5), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Sampler[int] | Iterable[int], batch_size: int, drop_last: bool):
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        """Yields a new list of the next `self.batch_size` indices of `self.sampler` at a time.

        A shorter rest at the end is yielded too, unless `self.drop_last`. The sampler may be endless: it is
        asked for no more than the batches yielded so far need.
        """
        batch: list[Any] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        """How many batches `__iter__` yields, from `len(self.sampler)` alone."""
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole if self.drop_last or rest == 0 else whole + 1


class EndlessSampler(Sampler[None]):
    """None for ever: what stands in for indices where an IterableDataset decides itself what comes next."""

    def __iter__(self) -> Iterator[None]:
        while True:
            yield None
