"""Datasets: something with a length and an index, or something to iterate over."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from shared.arrays.random import Generator, default_generator

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """A map from indices to samples. A subclass writes `__getitem__(index)` and, for most uses, `__len__()`.

    It may add `__getitems__(indices)`, which returns a list of samples at once where that is faster.

    >>> class Squares(Dataset):
    ...     def __len__(self): return 5
    ...     def __getitem__(self, index): return index**2
    >>> Squares()[3]
    9
    """

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__} must write __getitem__(self, index)")

    def __add__(self, other: Dataset) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """Samples that come one after the other, such as lines of a stream. A subclass writes `__iter__()`.

    With several workers each has its own copy: share the work out by `get_worker_info()`, or samples come twice.

    >>> class Countdown(IterableDataset):
    ...     def __iter__(self): return iter([3, 2, 1])
    >>> list(Countdown())
    [3, 2, 1]
    """

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must write __iter__(self)")


class TensorDataset(Dataset[tuple]):
    """Tensors of equal first dimension; sample `i` is the tuple of their rows `i`.

    >>> import numpy as np
    >>> x, y = TensorDataset(np.eye(3), np.arange(3))[1]
    >>> int(y)
    1
    """

    def __init__(self, *tensors: Any):
        sizes = [len(tensor) for tensor in tensors]
        if len(set(sizes)) > 1:
            raise ValueError(f"Size mismatch between tensors: their first dimensions are {sizes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class Subset(Dataset[T]):
    """The samples of `dataset` at `indices`, in that order.

    >>> list(Subset("abcde", [4, 0]))
    ['e', 'a']
    """

    def __init__(self, dataset: Any, indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T:
        """Sample number `index` of the subset, which is number `self.indices[index]` of `self.dataset`.

        `index` may be negative, as in a list; IndexError where the subset has no such sample. For a list of
        numbers, asks `self.dataset` once, for the list of their places there.
        """
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[T]:
        chosen = [self.indices[i] for i in indices]
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(chosen)
        return [self.dataset[i] for i in chosen]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[T]):
    """Datasets one after the other.

    >>> ConcatDataset(["abc", "de"])[3]
    'd'
    """

    def __init__(self, datasets: Iterable[Any]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("datasets should not be an empty iterable")
        for dataset in self.datasets:
            if isinstance(dataset, IterableDataset):
                raise ValueError("ConcatDataset does not support IterableDataset: it has no indices")
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T:
        """Sample number `index`, counted through all of `self.datasets` in turn; −1 is the last one.

        `self.cumulative_sizes[k]` is how many samples the datasets 0 … k have together. IndexError where
        `index` is the total length or more (`for x in d` ends by it), ValueError where it is below minus that.
        """
        if index < 0:
            if -index > len(self):
                raise ValueError(f"index {index} is out of range for {len(self)} samples")
            index += len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        if which == len(self.datasets):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        before = self.cumulative_sizes[which - 1] if which > 0 else 0
        return self.datasets[which][index - before]


def random_split(dataset: Any, lengths: Sequence[int | float], generator: Generator | None = None) -> list[Subset]:
    """Splits `dataset` at random into disjoint subsets of the given lengths, or fractions that sum to 1.

    Returns one `Subset` of `dataset` for each length; together they hold every sample once. The order is
    drawn from `(generator or default_generator()).rng`, a NumPy generator. Fractions become lengths by
    `_lengths_from_fractions`: what rounding them down leaves over goes one sample each to the first subsets.
    ValueError where lengths do not sum to `len(dataset)`.

    >>> [len(part) for part in random_split(range(10), [0.75, 0.25])]
    [8, 2]
    """
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        lengths = _lengths_from_fractions(len(dataset), lengths)
    if sum(lengths) != len(dataset):
        raise ValueError(
            "Sum of input lengths does not equal the length of the input dataset! "
            f"{list(lengths)} sum to {sum(lengths)}, the dataset has {len(dataset)}."
        )
    rng = (generator or default_generator()).rng
    indices = rng.permutation(len(dataset)).tolist()
    ends = itertools.accumulate(int(n) for n in lengths)
    return [Subset(dataset, indices[end - int(n) : end]) for end, n in zip(ends, lengths, strict=True)]


def _lengths_from_fractions(total: int, fractions: Sequence[float]) -> list[int]:
    """The lengths of the parts of `total` samples: rounded down, the rest goes one each to the first parts."""
    for i, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ValueError(f"Fraction at index {i} is not between 0 and 1: {fraction}")
    lengths = [math.floor(total * fraction) for fraction in fractions]
    for i in range(total - sum(lengths)):
        lengths[i % len(lengths)] += 1
    for i, length in enumerate(lengths):
        if length == 0:
            warnings.warn(f"Length of split at index {i} is 0. This might result in an empty dataset.", stacklevel=3)
    return lengths
