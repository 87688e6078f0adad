"""Batches of sequences of different lengths: filled up to one length, and put together so that little is filled up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np

from shared.arrays.random import Generator
from shared.data import RandomSampler, Sampler, default_collate
from shared.ops import as_tensor
from shared.ops.sequence import pad_sequence
from shared.tensor import Tensor


class PadCollate:
    """A `collate_fn` for a DataLoader: like `default_collate`, but sequences may differ in length and are filled up.

    What is a sequence in a sample: a Tensor or array (L, *), or a list of numbers. B of them become a Tensor
    (B, T, *), or (T, B, *) if not `batch_first`, T the largest L; `padding_value` stands after each one's end, or
    before its beginning (`padding_side="left"`). A tuple or a dict holds several fields, each of which is treated by
    itself. Everything else, such as a label, goes through `default_collate`.

    Where padding has an id of its own, as "<pad>" has, the mask of what is real is `batch != padding_value`.

    >>> tokens, labels = PadCollate(padding_value=0)([([5, 6, 7], 1), ([8], 0)])
    >>> tokens.tolist(), labels.tolist()
    ([[5, 6, 7], [8, 0, 0]], [1, 0])
    """

    def __init__(self, padding_value: float = 0, batch_first: bool = True, padding_side: str = "right"):
        if not isinstance(padding_value, Number):
            raise TypeError(
                f"PadCollate: expected a number to fill up with, but got {padding_value!r}. A vocabulary has a pad_id "
                f"where '<pad>' is among its specials"
            )
        if padding_side not in ("left", "right"):
            raise ValueError(f"PadCollate: expected padding_side to be 'left' or 'right', but got {padding_side!r}")
        self.padding_value, self.batch_first, self.padding_side = padding_value, batch_first, padding_side

    def __call__(self, batch: Sequence[Any]) -> Any:
        """One batch of samples that are alike, the first one deciding what they are."""
        first = batch[0]
        if isinstance(first, Mapping):
            return {key: self([sample[key] for sample in batch]) for key in first}
        if isinstance(first, tuple):
            if any(len(sample) != len(first) for sample in batch):
                raise ValueError(
                    f"PadCollate: samples have {sorted({len(s) for s in batch})} fields, expected as many in each"
                )
            fields = [self(field) for field in zip(*batch, strict=True)]
            return type(first)(*fields) if hasattr(first, "_fields") else tuple(fields)
        if is_sequence(first):
            sequences = [self._tensor(sample, i) for i, sample in enumerate(batch)]
            return pad_sequence(sequences, self.batch_first, self.padding_value, self.padding_side)
        return default_collate(batch)

    def _tensor(self, sample: Any, place: int) -> Tensor:
        if not is_sequence(sample):
            raise TypeError(f"PadCollate: expected sequences, as sample 0 is, but sample {place} is {sample!r:.60}")
        return as_tensor(sample, dtype=np.int64) if isinstance(sample, list) and not sample else as_tensor(sample)


def is_sequence(field: Any) -> bool:
    """Whether a field of a sample is something to fill up: a Tensor or array with a dimension, a list of numbers."""
    if isinstance(field, (Tensor, np.ndarray)):
        return field.ndim > 0
    return isinstance(field, list) and all(isinstance(item, (Number, np.generic)) for item in field)


class BucketBatchSampler(Sampler[list[int]]):
    """A `batch_sampler` for a DataLoader: batches of examples of like length, so that little has to be filled up.

    `lengths[i]` is the length of example i. All indices are shuffled and cut into pools of `pool` batches; each pool is
    sorted by length, the shortest first, and cut into batches, and the batches come in random order. So every example
    comes once in a pass, a larger `pool` wastes less padding, and a smaller one makes batches more random (`pool=1`:
    entirely, as far as which examples meet). Each pass draws a new order from `generator` or the default one:
    `manual_seed` fixes it.

    Without `shuffle`, pools are cut from the indices in order, and batches come in order. One batch, the last that was
    cut, may be smaller, and is left out with `drop_last`.

    >>> [sorted(batch) for batch in BucketBatchSampler([3, 9, 4, 8], batch_size=2, shuffle=False)]
    [[0, 2], [1, 3]]
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = False,
        pool: int = 100,
        generator: Generator | None = None,
    ):
        for name, value in (("batch_size", batch_size), ("pool", pool)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"BucketBatchSampler: expected {name} to be an int of at least 1, but got {value!r}")
        self.lengths = np.asarray(lengths)
        if self.lengths.ndim != 1 or (self.lengths.size and self.lengths.dtype.kind not in "iu"):
            raise ValueError(
                f"BucketBatchSampler: expected one integer length per example, but got {self.lengths.dtype} of shape "
                f"{self.lengths.shape}"
            )
        self.batch_size, self.shuffle, self.drop_last, self.pool = batch_size, shuffle, drop_last, pool
        self.generator = generator

    def __iter__(self) -> Iterator[list[int]]:
        """One pass: yields the batches, lists of indices, as the class says.

        `self.lengths` is an array; `self.batch_size`, `self.pool` and `self.drop_last` are what was given.
        `self._permuted(items)` is the list in a new random order, or as it is unless `self.shuffle`: the one source of
        randomness, used for the indices of all examples first and for the finished batches at the end.
        """
        lengths = self.lengths.tolist()
        order = self._permuted(list(range(len(lengths))))
        batches = []
        for start in range(0, len(order), self.pool * self.batch_size):
            chosen = sorted(order[start : start + self.pool * self.batch_size], key=lengths.__getitem__)
            batches += [chosen[i : i + self.batch_size] for i in range(0, len(chosen), self.batch_size)]
        if self.drop_last and batches and len(batches[-1]) < self.batch_size:
            batches.pop()
        yield from self._permuted(batches)

    def _permuted(self, items: list) -> list:
        """The items in random order, if `shuffle`; drawn by a RandomSampler, so from the same stream as theirs."""
        if not self.shuffle or not items:
            return items
        return [items[i] for i in RandomSampler(items, generator=self.generator)]

    def __len__(self) -> int:
        """How many batches a pass has."""
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)
