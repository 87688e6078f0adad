"""Masks of attention, in one convention: True means that a query may attend to a key.

It is that of `F.scaled_dot_product_attention`. `nn.MultiheadAttention` and the layers of `nn.Transformer` take the
other one of PyTorch (True means: hide) at their front doors and turn it around there; nothing else here does.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

from shared.arrays.device import module_for
from shared.ops import elementwise
from shared.tensor import Tensor


def padding_mask(tokens: Tensor, padding_idx: int = 0) -> Tensor:
    """True for every token that is not padding: tokens (B, S) → (B, 1, 1, S), for all heads and queries.

    RuntimeError for tokens of another shape (`_for_keys`, given the mask (B, S), sees to it, and adds dimensions).

    >>> import shared
    >>> padding_mask(shared.tensor([[5, 7, 0], [4, 0, 0]]))[:, 0, 0].tolist()
    [[True, True, False], [True, False, False]]
    """
    return _for_keys("padding_mask", "tokens", tokens != padding_idx)


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """True for the first `lengths[b]` of `size` keys: lengths (B,) → (B, 1, 1, size), on the device of `lengths`.

    RuntimeError for lengths of another shape (`_for_keys` again, which is given the mask (B, size), not the lengths).

    >>> import shared
    >>> length_mask(shared.tensor([2, 1]), 3)[:, 0, 0].tolist()
    [[True, True, False], [True, False, False]]
    """
    places = Tensor(module_for(lengths.device).arange(size))
    return _for_keys("length_mask", "lengths", places < lengths.unsqueeze(-1))


def look_ahead_mask(size: int, past: int = 0, device: Any = None) -> Tensor:
    """True on and below the diagonal, (size, past + size): query i sees the keys up to past + i, none later.

    `past` counts keys before the first query, as in a cache: every query sees them. Without them it restricts as
    `is_causal=True` does, which computes less.

    >>> look_ahead_mask(3).tolist()
    [[True, False, False], [True, True, False], [True, True, True]]
    """
    module = module_for(device)
    return Tensor(module.arange(past + size) <= module.arange(past, past + size)[:, None])


def combined_mask(*masks: Tensor | None) -> Tensor | None:
    """True where every mask has True, broadcast; those that are None restrict nothing, and None of all of them is None.

    TypeError for a mask that is not boolean.

    >>> import shared
    >>> mask = combined_mask(padding_mask(shared.tensor([[5, 7, 0]])), look_ahead_mask(3))
    >>> tuple(mask.shape), mask[0, 0].tolist()
    ((1, 1, 3, 3), [[True, False, False], [True, True, False], [True, True, False]])
    """
    given = [mask for mask in masks if mask is not None]
    for mask in given:
        if mask.array.dtype != bool:
            raise TypeError(f"combined_mask: expected boolean masks, but got {mask.array.dtype.name}")
    return functools.reduce(operator.and_, given) if given else None


def additive_mask(mask: Tensor, dtype: Any = None) -> Tensor:
    """What is added to the scores for a boolean mask: 0 where it is True, −inf where it is False, of its shape.

    The dtype is the default one (float32), or the one given.

    >>> import shared
    >>> additive_mask(shared.tensor([True, False])).tolist()
    [0.0, -inf]
    """
    added = elementwise.where(mask, 0.0, -math.inf)
    return added if dtype is None else added.to(dtype)


def may_attend(*hiding: Tensor) -> Tensor | None:
    """Masks in the convention of `nn.MultiheadAttention`, several or none, as one in that of this module.

    There a boolean mask has True where a key is hidden; one of numbers is added to the scores, as here. If all are
    boolean, so is the result: True where none of them hides. With numbers among them it is what they add together, a
    boolean one −inf where it is True and 0 elsewhere. They are broadcast; without any the result is None.

    >>> import shared
    >>> padding, later = shared.tensor([[False, False, True]]), shared.tensor([[False, True, True], [False] * 3])
    >>> may_attend(padding, later).tolist()
    [[True, False, False], [True, True, False]]
    >>> may_attend(padding, shared.tensor([[0.5, 0.0, 0.0]])).tolist()
    [[0.5, 0.0, -inf]]
    """
    if not hiding:
        return None
    if all(mask.array.dtype == bool for mask in hiding):
        return functools.reduce(operator.and_, [~mask for mask in hiding])
    added = [additive_mask(~mask) if mask.array.dtype == bool else mask for mask in hiding]
    return functools.reduce(operator.add, added)


def _for_keys(name: str, role: str, mask: Tensor) -> Tensor:
    """A mask (B, S) as (B, 1, 1, S); RuntimeError for one of another number of dimensions.

    `name` and `role` ("tokens" or "lengths": what the mask was made of) are for the error's text alone.
    """
    if mask.ndim != 2:
        expected = "(B, S)" if role == "tokens" else "(B,)"
        raise RuntimeError(f"{name}: expected {role} of shape {expected}, but their mask has shape {tuple(mask.shape)}")
    return mask.unsqueeze(1).unsqueeze(1)
