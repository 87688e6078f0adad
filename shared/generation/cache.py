"""The keys and values that generation keeps: one cache for each block of a model."""

from __future__ import annotations

from typing import Any

from shared import nn
from shared.arrays.device import xp
from shared.autograd import is_grad_enabled
from shared.tensor import Tensor

BLOCK = 64  # tokens that room is made for at once


class GenerationCache(nn.KVCache):
    """A `KVCache` whose room grows by blocks, that can forget its last tokens, and whose rows can be chosen anew.

    Room is made for `block` tokens at a time, and for no more than `max_len`, if that is given: a short answer of a
    model with a large context takes little memory. Each block more copies what is there to a larger place. It is for
    keys and values without gradients: RuntimeError for others.

    >>> import shared
    >>> cache = GenerationCache(block=64)
    >>> keys, values = cache.update(shared.ones(1, 2, 3, 4), shared.ones(1, 2, 3, 4))
    >>> len(cache), cache.nbytes  # 2 arrays · 1 row · 2 heads · 64 tokens · 4 numbers · 4 bytes
    (3, 4096)
    """

    def __init__(self, max_len: int | None = None, block: int = BLOCK) -> None:
        if block < 1:
            raise ValueError(f"GenerationCache: expected block ≥ 1, but got {block}")
        super().__init__(max_len)
        self.block = block

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values (B, H, new, E) of new tokens; returns those of all, (B, H, past + new, E)."""
        if is_grad_enabled() and (keys.requires_grad or values.requires_grad):
            raise RuntimeError("GenerationCache: gradients are recorded; generate under shared.no_grad()")
        return super().update(keys, values)

    def _room(self, old: Tensor | None, new: Tensor, total: int) -> Any:
        """A new array (B, H, room, E) of the library and dtype of `new`, with the old tokens, if any, in front.

        Room for `total` tokens, rounded up to whole blocks of `self.block`; no more than `self.max_len`, if that is
        given. What stands behind the old tokens does not matter: `update` writes there.
        """
        batch, heads, _, width = new.shape
        room = -(-total // self.block) * self.block
        room = room if self.max_len is None else min(room, self.max_len)
        made = xp(new.array).empty((batch, heads, room, width), new.array.dtype)
        if old is not None:
            made[:, :, : old.shape[2]] = old.array
        return made

    def crop(self, length: int) -> None:
        """Forgets all tokens after the first `length`; their room stays. ValueError below 0 and above len(self).

        `self.keys` and `self.values`, (B, H, len(self), E) or None, say what is remembered; what lies behind that in
        the rooms is written over by the next `update`.
        """
        if not 0 <= length <= len(self):
            raise ValueError(f"GenerationCache: there are {len(self)} tokens, {length} cannot be kept")
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[:, :, :length], self.values[:, :, :length]

    def select(self, rows: Tensor) -> None:
        """Keeps the rows whose numbers are in `rows`, int64 (new B,), in that order; a row may be there twice.

        For beams, of which the best go on in several ways, and for batches of which some texts are finished.
        `self._rooms` are the arrays of keys and of values, (B, H, room, E), that the next `update` writes into;
        `self.keys` and `self.values` are Tensors of their first len(self) tokens. An empty cache stays empty.
        """
        length = len(self)
        if self._rooms:
            self._rooms = [room[rows.array] for room in self._rooms]
            self.keys, self.values = (Tensor(room[:, :, :length]) for room in self._rooms)

    @property
    def nbytes(self) -> int:
        """Bytes of the room, used or not."""
        return sum(room.nbytes for room in self._rooms)


def new_caches(model: Any, block: int = BLOCK) -> list[GenerationCache]:
    """Empty caches for a model: one for each of `model.blocks`, none longer than its config's block_size."""
    return [GenerationCache(model.config.block_size, block) for _ in model.blocks]
