"""Sequences of different lengths in one tensor, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.arrays.device import check_same_device, xp
from shared.autograd import Function
from shared.tensor import Tensor


class PadSequence(Function):
    """Sequences side by side, filled up to the longest; each one's gradient is its own part of the whole one's.

    `batch_first`: the result is (B, T, *), else (T, B, *). `padding_value` fills what is left over, which lies behind
    the end of a sequence if `right`, else before its beginning. `forward` notes `lengths`, the Lᵢ, and `longest`, the
    largest of them, T.
    """

    twice = True

    def __init__(self, batch_first: bool, padding_value: float, padding_side: str):
        self.batch_first, self.padding_value, self.right = batch_first, padding_value, padding_side == "right"

    def forward(self, *arrays):
        """B arrays (Lᵢ, *) of one dtype, which stays → a new one (B, T, *), or (T, B, *) unless `self.batch_first`.

        Sequence i lies at `self.place(i)`, and everything else is `self.padding_value`. `self.lengths` and
        `self.longest` are noted here for `place` and `backward`. `xp(arrays[0])` is the library of the arrays, NumPy or
        CuPy.
        """
        self.lengths = [len(a) for a in arrays]
        self.longest = max(self.lengths)
        first, sizes = arrays[0], (len(arrays), self.longest)
        shape = sizes if self.batch_first else sizes[::-1]
        out = xp(first).full((*shape, *first.shape[1:]), self.padding_value, first.dtype)
        for i, a in enumerate(arrays):
            out[self.place(i)] = a
        return out

    def place(self, i: int) -> tuple:
        """Where sequence i lies in the padded array: an index, so that `padded[self.place(i)]` has its Lᵢ steps.

        Lᵢ may be 0. It follows from `self.lengths[i]`, `self.longest`, `self.batch_first` and `self.right`.
        """
        length = self.lengths[i]
        steps = slice(0, length) if self.right else slice(self.longest - length, self.longest)
        return (i, steps) if self.batch_first else (steps, i)

    def backward(self, grad):
        """One gradient for each sequence, a tuple, each of its own length: (Lᵢ, *); None where not `self.needs[i]`.

        `grad`, of the padded shape, is an array, or a Tensor where a gradient is differentiated itself: use indexing
        only, which both can do.
        """
        return tuple(grad[self.place(i)] if needed else None for i, needed in enumerate(self.needs))


def pad_sequence(
    sequences: Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """B sequences (Lᵢ, *) of one dtype → (T, B, *), or (B, T, *) if `batch_first`; T is the largest Lᵢ.

    What a sequence lacks is filled with `padding_value`, after its end or ("left") before its beginning. Errors:
    RuntimeError for no sequences, for shapes that differ in * and for dtypes that differ; TypeError for what is no
    Tensor.

    >>> import shared
    >>> pad_sequence([shared.tensor([5, 6, 7]), shared.tensor([8])], batch_first=True, padding_value=-1)
    tensor([[ 5,  6,  7],
            [ 8, -1, -1]])
    """
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}"
        )
    sequences = list(sequences)
    if not sequences:
        raise RuntimeError("pad_sequence: received an empty list of sequences")
    for i, x in enumerate(sequences):
        _check_sequence(i, x, sequences[0])
    check_same_device("pad_sequence", [x.array for x in sequences])
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    return PadSequence(batch_first, padding_value, padding_side)(*sequences)


def _check_sequence(i: int, x: Any, first: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"pad_sequence: expected Tensor as element {i}, but got {type(x).__name__}")
    if x.ndim == 0:
        raise RuntimeError(f"pad_sequence: element {i} is a single number; a sequence has at least one dimension")
    if x.shape[1:] != first.shape[1:]:
        raise RuntimeError(
            f"pad_sequence: sequences may differ in length only, but element 0 has shape {list(first.shape)} and "
            f"element {i} {list(x.shape)}"
        )
    if x.dtype != first.dtype:
        raise RuntimeError(
            f"pad_sequence: expected sequences of one dtype, but element 0 is {first.dtype.name} and element {i} "
            f"{x.dtype.name}"
        )


def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """The first `lengths[i]` steps of each sequence i: what `pad_sequence` put together, as views.

    `padded_sequences` is (T, B, *), or (B, T, *) if `batch_first`; `lengths` B integers from 0 to T, else ValueError.

    >>> import shared
    >>> [x.tolist() for x in unpad_sequence(shared.tensor([[5, 6], [8, 0]]), [2, 1], batch_first=True)]
    [[5, 6], [8]]
    """
    if padded_sequences.ndim < 2:
        raise ValueError(
            f"unpad_sequence: expected a batch of sequences, 2-D or more, but got {list(padded_sequences.shape)}"
        )
    lengths = [int(n) for n in lengths]
    batch, longest = padded_sequences.shape[:2] if batch_first else padded_sequences.shape[1::-1]
    if len(lengths) != batch or not all(0 <= n <= longest for n in lengths):
        raise ValueError(
            f"unpad_sequence: expected {batch} lengths from 0 to {longest}, as the shape "
            f"{list(padded_sequences.shape)} with batch_first={batch_first} says, but got {lengths}"
        )
    steps = [slice(0, n) for n in lengths]
    return [padded_sequences[(i, s) if batch_first else (s, i)] for i, s in enumerate(steps)]
