"""From a list of samples to one batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shared.arrays.device import xp
from shared.ops import stack
from shared.tensor import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """One batch from a list of samples of the same structure.

    Tensors and arrays (*): Tensor (B, *). int: int64 Tensor (B,); float: float64, bool: bool. str and bytes
    stay as they are. dict: a dict of batches; namedtuple: a namedtuple of batches; tuple: a list of batches;
    list: a list of batches.

    >>> images, labels = default_collate([(np.zeros(3), 0), (np.ones(3), 1)])
    >>> images.shape, labels.tolist()
    (Size([2, 3]), [0, 1])
    """
    first = batch[0]
    if isinstance(first, Tensor | np.ndarray):
        return _stack(batch)
    if isinstance(first, np.generic):
        return _from_numbers(np.array(batch), first)
    if isinstance(first, float):
        return Tensor(np.array(batch, dtype=np.float64))
    if isinstance(first, int):
        return Tensor(np.array(batch, dtype=bool if isinstance(first, bool) else np.int64))
    if isinstance(first, str | bytes):
        return batch
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
    """Samples of equal shape along a new first dimension."""
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
    if isinstance(first, np.ndarray):
        return Tensor(np.stack(samples))
    if any(sample.requires_grad for sample in samples):
        return stack(samples)
    return Tensor(xp(first.array).stack([sample.array for sample in samples]))  # no graph to record: one copy


def _from_numbers(values: np.ndarray, first: np.generic) -> Any:
    if values.dtype.kind in "SUO":
        raise TypeError(f"default_collate: a {type(first).__name__} cannot become a tensor")
    return Tensor(values)


def _like(example: Any, values: Any) -> Any:
    """`values` in a container of the kind of `example`; a plain dict or list where that fails."""
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
