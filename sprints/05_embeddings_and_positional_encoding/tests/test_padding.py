"""Sprint 05's milestones on padding and bucketing. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

import numpy as np

import shared
from course.oracles import check, doing, require
from shared.ops.sequence import PadSequence, pad_sequence
from shared.text import BucketBatchSampler, PadCollate

SENTENCES = [[5, 6, 7], [8], [9, 4]]  # as ids, of the lengths 3, 1 and 2
SHAPES = {
    "broadcast": "Sequence i, (Lᵢ, *), fits where `place(i)` says: Lᵢ steps of the padded array, of the "
    "shape (B, T, *) or (T, B, *). What follows the length in a sequence's shape, first.shape[1:], stays.",
    "out of bounds": "The padded array has as many rows as there are sequences, and as many steps as the longest has.",
    "too many indices": "What follows the length in a sequence's shape, first.shape[1:], stays.",
    "inhomogeneous": "The sequences differ in length: make the padded array first, then write each into its place.",
    "lengths": "`forward` notes self.lengths and self.longest, which `place` reads.",
    "longest": "`forward` notes self.lengths and self.longest, which `place` reads.",
}


def ids() -> list[shared.Tensor]:
    return [shared.tensor(sentence) for sentence in SENTENCES]


def padded(what: str, sequences: list[shared.Tensor], **options) -> shared.Tensor:
    with doing(f"pad_sequence of {what}", SHAPES):
        return pad_sequence(sequences, **options)


def check_values() -> None:
    """Three sentences in one array, in each layout."""
    right = np.array([[5, 6, 7], [8, 0, 0], [9, 4, 0]])
    left = np.array([[5, 6, 7], [0, 0, 8], [0, 9, 4]])
    middle = np.array([[5, 6, 7], [0, 8, 0], [0, 9, 4]])
    out = padded("ids of the lengths 3, 1, 2", ids(), batch_first=True)
    check(
        f"{SENTENCES} filled up with 0, batch_first=True",
        out.tolist(),
        right,
        {
            "filling in front: it belongs behind the end unless padding_side is 'left'": left,
            "filling in front, in part": middle,
            "the sequence repeated, not filled up": [[5, 6, 7], [8, 8, 8], [9, 4, 9]],
            "time and batch exchanged: with batch_first a row is a sequence": right.T,
            "everything cut off at the shortest: nothing is lost by padding": right[:, :1],
            "everything cut off at the second longest": right[:, :2],
            "an array that was never filled": np.zeros((3, 3)),
        },
    )
    require(
        out.dtype == shared.int64,
        f"ids padded are {out.dtype}, but they have to stay int64, or no table can be asked for them: give the new "
        "array the sequences' dtype",
    )
    longer = padded("ids of the lengths 1, 3, 2", [ids()[1], ids()[0], ids()[2]], batch_first=True)
    check(
        "the same with the longest in the middle",
        longer.tolist(),
        right[[1, 0, 2]],
        {"as many steps as the first sequence has, where the longest counts": right[[1, 0, 2], :1]},
    )
    check(
        "the same with a padding_value of −1",
        padded("ids, padding_value=-1", ids(), batch_first=True, padding_value=-1).tolist(),
        [[5, 6, 7], [8, -1, -1], [9, 4, -1]],
        {"zeros, whatever padding_value is": right},
    )
    check(
        "the same with padding_side='left', as generation needs it",
        padded("ids, padding_side='left'", ids(), batch_first=True, padding_side="left").tolist(),
        left,
        {
            "a padding_side that is not looked at": right,
            "sequences turned round": [[7, 6, 5], [0, 0, 8], [0, 4, 9]],
            "sequences that begin one step too early": np.roll(left, -1, axis=1),
        },
    )
    for side, rows in (("right", right), ("left", left)):
        check(
            f"the same with batch_first=False and padding_side={side!r}: (T, B), a column is a sequence",
            padded("ids, batch_first=False", ids(), padding_side=side).tolist(),
            rows.T,
            {"a batch_first that is not looked at": rows, "the other side": (left if side == "right" else right).T},
        )
    for side in ("right", "left"):
        with doing(
            f"pad_sequence with an empty sequence, padding_side={side!r}",
            {"": "A text may be empty, and then nothing is written: a slice from −0 on is everything, not nothing."},
        ):
            out = pad_sequence([ids()[2], ids()[1][:0]], batch_first=True, padding_value=-1, padding_side=side)
        check(f"[[9, 4], []] filled up with −1, padding_side={side!r}", out.tolist(), [[9, 4], [-1, -1]])
    vectors = [shared.tensor(np.arange(2.0 * n).reshape(n, 2).astype("float32")) for n in (2, 3)]
    out = padded("sequences of vectors", vectors, batch_first=True)
    check("sequences of vectors, (2, 2) and (3, 2)", out.tolist(), [[[0, 1], [2, 3], [0, 0]], [[0, 1], [2, 3], [4, 5]]])
    require(out.dtype == shared.float32, f"vectors of float32 become {out.dtype}: give the new array their dtype")


def check_gradients() -> None:
    """Each sequence gets back its own part."""
    for batch_first, side in ((True, "right"), (True, "left"), (False, "right"), (False, "left")):
        named = f"batch_first={batch_first}, padding_side={side!r}"
        # Of three sequences the longest has three steps, so that exchanged axes fit too.
        x = [shared.tensor(np.ones(n, dtype="float32")).requires_grad_() for n in (3, 1, 2)]
        grad = np.arange(1.0, 10.0).reshape(3, 3)  # of the padded array, whatever its axes mean
        out = padded(named, x, batch_first=batch_first, padding_side=side)
        hints = {
            "shape": "Each sequence gets a gradient of its own length: the part of grad where it lies, grad[place].",
            "expected 3": "A tuple with one gradient for each sequence is returned.",
            "iterable": "A tuple with one gradient for each sequence is returned.",
            "lengths": "`forward` notes self.lengths and self.longest, which `place` reads.",
        }
        with doing(f"the backward pass of padding, {named}", hints):
            out.backward(shared.tensor(grad.astype("float32")))
        rows, other = (grad, grad.T) if batch_first else (grad.T, grad)
        for i, (a, length) in enumerate(zip(x, (3, 1, 2), strict=True)):
            require(a.grad is not None, f"sequence {i} gets no gradient, {named}: each has its part of it")
            cut = slice(0, length) if side == "right" else slice(3 - length, 3)
            against = slice(3 - length, 3) if side == "right" else slice(0, length)
            check(
                f"the gradient of sequence {i}, {named}, where the padded array's is {grad.astype(int).tolist()}",
                a.grad.tolist(),
                rows[i, cut],
                {
                    "the gradient at the padding: take what lies where the sequence lay": rows[i, against],
                    "time and batch exchanged in backward": other[i, cut],
                    "the gradient of the first sequence for all": rows[0, cut],
                    "a sum over the batch: no two sequences share a place": rows.sum(0)[cut],
                },
            )
    padding = PadSequence(True, 0.0, "right")
    padding(shared.tensor([1.0, 2.0]).requires_grad_(), shared.tensor([3.0]))
    with doing("the backward pass of padding where only the first of two sequences needs a gradient", hints):
        found = tuple(padding.backward(np.ones((2, 2), dtype="float32")))
    require(
        found[0] is not None and len(found) == 2 and found[1] is None,
        "the gradients of two sequences, of which only the first needs one, are an array and None; here they are "
        f"{', '.join('None' if g is None else 'an array' for g in found)}: self.needs[i] says who needs one",
    )
    x = [shared.tensor(np.array(v, dtype="float32")).requires_grad_() for v in ([2.0, 3.0], [4.0])]
    with doing(
        "the gradient of padding differentiated once more",
        {"": "Then `grad` is a Tensor: use indexing only, which arrays and Tensors both have."},
    ):
        out = pad_sequence(x, batch_first=True)
        first = shared.autograd.grad((out**3).sum(), x, create_graph=True)
        sum((g**2).sum() for g in first).backward()
    check("the gradient of Σ (3x²)² by the sequence (2, 3)", x[0].grad.tolist(), [288, 972], tolerance=1e-2)


def test_sequences_are_filled_up_and_each_gets_its_own_gradient_back():
    check_values()
    check_gradients()
    with doing("PadCollate of sentences with labels", SHAPES):
        tokens, labels = PadCollate(padding_value=0)([(sentence, i) for i, sentence in enumerate(SENTENCES)])
    require(labels.tolist() == [0, 1, 2], "PadCollate mixes up the labels")
    check("the mask of what is real, ids != 0", (tokens != 0).tolist(), [[1, 1, 1], [1, 0, 0], [1, 1, 0]])


# ------------------------------------------------------------------------ bucketing

LENGTHS = np.random.default_rng(0).permutation(np.arange(1, 121))  # 120 examples, no two equally long
SMALL = [3, 9, 4, 8, 1]


def batches(what: str, lengths, *args, **options) -> list[list[int]]:
    with doing(
        f"BucketBatchSampler, {what}",
        {
            "list.remove": "Each batch is a list of indices of examples.",
            "truth value": "self.lengths is an array: self.lengths.tolist() is a list of numbers.",
            "'NoneType' object is not iterable": "`__iter__` yields the batches, or returns an iterator of them.",
            "non-iterator": "`__iter__` yields the batches, or returns an iterator of them: iter(batches), no list.",
        },
    ):
        found = list(BucketBatchSampler(lengths, *args, **options))
    for batch in found:
        require(
            isinstance(batch, list) and all(isinstance(i, (int, np.integer)) for i in batch),
            f"a batch has to be a list of indices, but one is {batch!r}",
        )
    return [[int(i) for i in batch] for batch in found]


def whole(what: str, found: list[list[int]], count: int) -> None:
    """Every example is there once."""
    seen = sorted(i for batch in found for i in batch)
    lost, extra = sorted(set(range(count)) - set(seen)), sorted(set(seen) - set(range(count)))
    require(not extra, f"{what}: {extra[:5]} are no indices of {count} examples; are they lengths?")
    require(len(seen) == len(set(seen)), f"{what}: some examples come twice in one pass")
    require(not lost, f"{what}: {len(lost)} of {count} examples never come, {lost[:5]} among them")


def waste(found: list[list[int]], lengths) -> float:
    """The share of padding in all batches, in per cent."""
    room = sum(len(batch) * max(lengths[i] for i in batch) for batch in found)
    return 100 * (1 - sum(lengths[i] for batch in found for i in batch) / room)


def check_unshuffled() -> None:
    """What follows from the lengths alone."""
    for what, args, right, mistakes in (
        (
            "all in one pool",
            {"pool": 100},
            [[4, 0], [2, 3], [1]],
            {
                "batches in the order of the text: each pool is sorted by length first": [[0, 1], [2, 3], [4]],
                "the longest first: sort by length, the shortest first": [[1, 3], [2, 0], [4]],
                "lengths, where indices of examples are wanted": [[1, 3], [4, 8], [9]],
                "places in the sorted order, where indices of examples are wanted": [[0, 1], [2, 3], [4]],
            },
        ),
        (
            "pools of two batches",
            {"pool": 2},
            [[0, 2], [3, 1], [4]],
            {
                "one pool of everything: a pool has pool · batch_size examples": [[4, 0], [2, 3], [1]],
                "a pool of `pool` examples: it has `pool` batches, pool · batch_size examples": [[0, 1], [2, 3], [4]],
                "batches in the order of the text: each pool is sorted by length first": [[0, 1], [2, 3], [4]],
            },
        ),
        (
            "pools of two batches, drop_last",
            {"pool": 2, "drop_last": True},
            [[0, 2], [3, 1]],
            {
                "a drop_last that is not looked at": [[0, 2], [3, 1], [4]],
                "whole batches dropped: only one that is not full is left out": [[0, 2]],
            },
        ),
    ):
        found = batches(f"{what}, lengths {SMALL}", SMALL, batch_size=2, shuffle=False, **args)
        looks = next((name for name, value in mistakes.items() if value == found), "")
        require(
            found == right,
            f"the batches of 2 of examples with the lengths {SMALL}, shuffle=False, {what}, are {found}, and should be "
            f"{right}" + (f".\nThat is what one gets from: {looks}" if looks else ""),
        )
    found = batches("drop_last where all batches are full", [3, 1, 2, 4], 2, shuffle=False, drop_last=True)
    require(
        found == [[1, 2], [0, 3]],
        f"with drop_last and four examples in batches of 2 both are full, but the batches are {found}: only one that "
        "is not full is left out",
    )


def check_shuffled() -> None:
    """What shuffling has to leave, and what it has to change."""
    shared.manual_seed(0)
    first, second = batches("a pass", LENGTHS, 8, pool=3), batches("a second pass", LENGTHS, 8, pool=3)
    shared.manual_seed(0)
    again = batches("a pass after the same seed", LENGTHS, 8, pool=3)
    whole("a shuffled pass", first, len(LENGTHS))
    require(
        first != second,
        "two passes have the same batches in the same order, though shuffle is True: an epoch is shuffled anew",
    )
    require(first == again, "after manual_seed(0) the batches are others: all randomness comes from self._permuted")
    own = [
        batches("with a generator", LENGTHS, 8, pool=3, generator=shared.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    require(own[0] == own[1] != own[2], "the `generator` that was given does not decide: self._permuted draws from it")
    together = {frozenset(batch) for batch in first}
    require(
        len(together & {frozenset(batch) for batch in second}) < len(first) // 2,
        "the same examples meet in every pass: shuffling the finished batches is not enough, the indices of all "
        "examples are shuffled before they are cut into pools",
    )
    mean = [float(np.mean(LENGTHS[batch])) for batch in batches("one pool", LENGTHS, 8)]
    require(
        mean != sorted(mean) and mean != sorted(mean, reverse=True),
        "the batches come in order of length, the shortest first in every pass: they are shuffled at the end",
    )
    pooled = waste(batches("one pool for all", LENGTHS, 8), LENGTHS)
    random = waste(batches("pools of one batch", LENGTHS, 8, pool=1), LENGTHS)
    require(
        pooled < 9,
        f"with one pool for all {pooled:.0f}% of the batches is padding (measured: 5%), with random batches "
        f"{random:.0f}%: examples of like length have to meet; was the sorted pool shuffled again?",
    )
    require(
        random > 25,
        f"with pool=1 only {random:.0f}% of the batches is padding (measured: 40 to 46%): which examples meet is then "
        "a matter of chance, and here it is not. A pool has pool · batch_size examples",
    )
    shared.manual_seed(0)
    for seed in range(8):  # the small batch is dropped wherever shuffling put it
        found = batches("drop_last", LENGTHS[:20], 8, drop_last=True)
        require(
            [len(batch) for batch in found] == [8, 8],
            f"20 examples in batches of 8 with drop_last are batches of {[len(batch) for batch in found]}, and should "
            f"be [8, 8] (pass {seed}): the batch that is not full is left out, and none that is",
        )


def test_buckets_hold_every_example_once_and_waste_little():
    check_unshuffled()
    for count in (0, 1, 8, 17):
        whole(f"a pass over {count} examples", batches(f"{count} examples", LENGTHS[:count], 8, pool=1), count)
    check_shuffled()
