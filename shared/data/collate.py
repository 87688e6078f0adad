"""From a list of samples to one batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shared.arrays.device import xp  # xp(array): NumPy, or CuPy for an array on a GPU
from shared.ops import stack
from shared.tensor import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """One batch from a list of B samples of the same structure; the first sample's type decides.

    Tensors and arrays (*): Tensor (B, *), by `_stack`. str and bytes: the list as it is. Numbers, Python's and
    NumPy's (np.generic): Tensor (B,), by `_numbers`. A Mapping: a dict with a batch for each key. A tuple, list
    or other Sequence of length n: a list of n batches, the k-th made of the k-th elements; RuntimeError with
    the words "equal size" where the samples differ in length. Such a dict or list goes through
    `_like(first, values)`, which puts it into a container of the first sample's own kind (a namedtuple, say).
    Anything else, None for one: TypeError that names its type.

    >>> images, labels = default_collate([(np.zeros(3), 0), (np.ones(3), 1)])
    >>> images.shape, labels.tolist()
    (Size([2, 3]), [0, 1])
    """
    first = batch[0]
    if isinstance(first, Tensor | np.ndarray):
        return _stack(batch)
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, np.generic | float | int):
        return _numbers(batch)
    if isinstance(first, Mapping):
        return _like(first, {key: default_collate([sample[key] for sample in batch]) for key in first})
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return _like(first, columns)
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {type(first)}. Give the DataLoader a collate_fn."
    )


def default_convert(sample: Any) -> Any:
    """One sample, not batched (`batch_size=None`): arrays in it become Tensors, the rest stays.

    >>> default_convert({"x": np.arange(2), "name": "a"})["name"]
    'a'
    """
    if isinstance(sample, np.ndarray | np.generic) and sample.dtype.kind not in "SUO":
        return Tensor(np.asarray(sample))
    if isinstance(sample, Mapping):
        return _like(sample, {key: default_convert(value) for key, value in sample.items()})
    if isinstance(sample, Sequence) and not isinstance(sample, str | bytes | Tensor | np.ndarray):
        return _like(sample, [default_convert(value) for value in sample])
    return sample


def _stack(samples: Sequence[Any]) -> Tensor:
    """Arrays, or Tensors, of equal shape (*) as one Tensor (B, *) of their dtype; gradients flow through it.

    Call `_check_stackable(samples)` first: it raises where shapes differ, or where an array holds no numbers.
    """
    _check_stackable(samples)
    first = samples[0]
    if isinstance(first, np.ndarray):
        return Tensor(np.stack(samples))
    if any(sample.requires_grad for sample in samples):
        return stack(samples)
    return Tensor(xp(first.array).stack([sample.array for sample in samples]))  # no graph to record: one copy


def _check_stackable(samples: Sequence[Any]) -> None:
    """TypeError for arrays of strings or objects, RuntimeError for samples of different shapes."""
    first = samples[0]
    if isinstance(first, np.ndarray) and first.dtype.kind in "SUO":
        raise TypeError(f"default_collate: an array of {first.dtype} cannot become a tensor")
    for i, sample in enumerate(samples):
        if sample.shape != first.shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first.shape)} at entry 0 and "
                f"{list(sample.shape)} at entry {i}. Bring the samples to one size in a transform, or pad "
                f"them in a collate_fn."
            )


def _numbers(batch: Sequence[Any]) -> Tensor:
    """Numbers as a Tensor (B,) of the dtype that holds them all.

    Python's bool, int and float become bool, int64 and float64, and [1, 2.5] float64; NumPy's keep their dtype.
    """
    values = np.array(batch)
    if values.dtype.kind == "O":  # an int beyond 64 bits
        raise TypeError(f"default_collate: no dtype holds these numbers: {list(batch)}")
    return Tensor(values)


def _like(example: Any, values: Any) -> Any:
    """`values`, a list or dict, in a container of the kind of `example`; as they are where that fails."""
    if type(example) in (dict, list, tuple):
        return values
    try:
        if hasattr(example, "_fields"):
            return type(example)(*values)
        if isinstance(example, Mapping) and hasattr(example, "update"):
            clone = copy.copy(example)
            clone.update(values)
            return clone
        return type(example)(values)
    except TypeError:
        return values
