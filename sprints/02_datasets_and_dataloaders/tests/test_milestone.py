"""Sprint 02's milestones. A test names a behaviour; its message says what was seen and what it looks like."""

from __future__ import annotations

import itertools
import math
import os
import random
import re
import sys
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shared
from shared.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    RunningStatistics,
    Subset,
    TensorDataset,
    channel_statistics,
    default_collate,
    random_split,
    transforms,
    warp,
)
from shared.data.loader import WorkerIterator
from shared.data.worker import seed_worker

SEVEN = np.array([[0, 255, 255, 255], [0, 0, 0, 255], [0, 0, 255, 0], [0, 0, 255, 0]], dtype=np.uint8)


def likeness(found: np.ndarray, mistakes: dict[str, np.ndarray], rtol: float = 1e-5) -> str:
    """What `found` looks like: the first of the known mistakes, {what it is: what it gives}, that gives the same."""
    for what, wrong in mistakes.items():
        if np.shape(found) == np.shape(wrong) and np.allclose(found, wrong, rtol=rtol, atol=1e-9):
            return f"your numbers match {what}"
    return "your numbers match none of the usual mistakes"


def refused(call: Callable[[], Any], kind: type[Exception], words: str, why: str) -> None:
    """Fails unless `call` raises `kind` with a message in which the pattern `words` is found."""
    try:
        result = call()
    except NotImplementedError:
        raise  # a RuntimeError too, but an exercise that is not written yet
    except kind as error:
        assert re.search(words, str(error)), f"{why}: the {kind.__name__} has to speak of {words!r}, but says: {error}"
    except Exception as error:
        pytest.fail(f"{why}: that is a {kind.__name__}, but {type(error).__name__} was raised: {error}")
    else:
        pytest.fail(f"{why}: that is a {kind.__name__}, but it gave {result!r}")


class Numbers(Dataset):
    """Example i is the number i; counts how often each was asked for."""

    def __init__(self, length: int):
        self.asked = [0] * length

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, index: int) -> int:
        self.asked[index] += 1
        return index


class AtOnce(Numbers):
    """The same numbers, with a way to get several at once; notes the lists it was asked for."""

    def __init__(self, length: int):
        super().__init__(length)
        self.lists: list[list[int]] = []

    def __getitems__(self, indices: list[int]) -> list[int]:
        self.lists.append(list(indices))
        return list(indices)


def epoch(loader) -> list[list[int]]:
    """The batches of one pass, as lists."""
    batches = []
    for batch in loader:
        batches.append(np.asarray(batch).tolist())
        if len(batches) > 100:
            pytest.fail(f"the pass over a few examples goes on after 100 batches: does it begin anew? {batches[:3]} …")
    return batches


# ------------------------------------------------------------------------------------------ batches and order


def test_an_epoch_visits_every_example_exactly_once():
    shared.manual_seed(0)
    for length, batch_size, shuffle in [(6, 4, False), (6, 4, True), (7, 1, True), (5, 8, False)]:
        case = f"{length} examples in batches of {batch_size}, shuffle={shuffle}"
        dataset = Numbers(length)
        batches = epoch(DataLoader(dataset, batch_size=batch_size, shuffle=shuffle))
        seen = list(itertools.chain(*batches))
        missing, repeated = sorted(set(range(length)) - set(seen)), sorted({i for i in seen if seen.count(i) > 1})
        assert not (missing and repeated), (
            f"{case}: {missing} never came and {repeated} came more than once: are indices drawn with replacement?"
        )
        assert not missing, f"{case}: {missing} never came, the batches are {batches}: is the short last batch lost?"
        assert not repeated, f"{case}: {repeated} came more than once: does a batch start where the last one began?"
        assert dataset.asked == [1] * length, f"{case}: __getitem__ was called {dataset.asked} times, not once each"
        if not shuffle:
            assert seen == list(range(length)), f"{case}: the order is 0, 1, 2, …, but it was {seen}"

    single = epoch(DataLoader(Numbers(3), batch_size=None))
    assert single == [0, 1, 2], f"batch_size=None hands over 0, 1, 2 one by one and not in lists, but got {single}"
    dataset = AtOnce(5)
    assert epoch(DataLoader(dataset, batch_size=4)) == [[0, 1, 2, 3], [4]]
    assert dataset.lists == [[0, 1, 2, 3], [4]], (
        f"a dataset with __getitems__ is asked once for each batch, for the whole list, but it was asked for "
        f"{dataset.lists} at once, and one by one {sum(dataset.asked)} times"
    )


def endless() -> Iterator[int]:
    """0, 1, 2, … up to where it is plain that nobody will stop asking."""
    yield from range(1000)
    pytest.fail("1,000 indices were taken before the first batch of 3 was given: is the whole order read at first?")


def test_the_short_last_batch_is_kept_or_dropped_as_asked():
    for length, size, drop_last, expected in [
        (6, 4, False, [4, 2]),
        (6, 4, True, [4]),
        (8, 4, False, [4, 4]),
        (8, 4, True, [4, 4]),
        (3, 4, False, [3]),
        (3, 4, True, []),
    ]:
        loader = DataLoader(Numbers(length), batch_size=size, drop_last=drop_last)
        sizes = [len(batch) for batch in epoch(loader)]
        case = f"{length} examples in batches of {size}, drop_last={drop_last}"
        why = ""
        if drop_last and sum(sizes) > sum(expected):
            why = "; the short batch was kept although it was to be dropped"
        elif 0 in sizes:
            why = "; an empty batch came where no examples were left"
        elif not drop_last and sum(sizes) < length:
            why = "; the short batch was dropped although it was to be kept"
        assert sizes == expected, f"{case}: the batches have sizes {sizes}, expected {expected}{why}"
        rule = "⌊N/B⌋ when dropping, else ⌈N/B⌉"
        assert len(loader) == len(expected), f"{case}: len(loader) is {len(loader)}, expected {len(expected)} ({rule})"

    lists = list(BatchSampler(range(5), 2, False))
    assert lists == [[0, 1], [2, 3], [4]], (
        f"range(5) in lists of 2 is [0, 1], [2, 3], [4], but all of them kept are {lists}: is one list emptied and "
        "filled again? Whoever kept the first batch then finds the last one in it"
    )
    assert next(iter(BatchSampler(endless(), 3, False))) == [0, 1, 2], "the first batch of 0, 1, 2, … is [0, 1, 2]"


def test_shuffles_repeat_with_the_seed_and_differ_between_epochs():
    def orders(seed: int, epochs: int = 3) -> list[list[int]]:
        shared.manual_seed(seed)
        loader = DataLoader(Numbers(50), batch_size=8, shuffle=True)
        return [list(itertools.chain(*epoch(loader))) for _ in range(epochs)]

    first, again, other = orders(0), orders(0), orders(1)
    assert first[0] != list(range(50)), "shuffle=True left the examples in their stored order"
    assert first[0] != first[1] != first[2], (
        "two epochs had the same order: is a generator seeded, or the order drawn, once and for all?"
    )
    assert first == again, "manual_seed(0) twice gave two different orders: the sampler draws from another generator"
    assert first[0] != other[0], "manual_seed(0) and manual_seed(1) gave the same order: the seed has no effect"
    one, two = (list(RandomSampler(range(50), generator=shared.Generator().manual_seed(5))) for _ in range(2))
    assert one == two, "two samplers with generators of one seed differ: the given generator is not used"
    # Each example comes first equally often: 2,000 shuffles of 5, five places, 4 standard deviations of room.
    loader = DataLoader(Numbers(5), batch_size=5, shuffle=True)
    firsts = np.bincount([epoch(loader)[0][0] for _ in range(2000)], minlength=5)
    room = 4 * math.sqrt(2000 * 0.2 * 0.8)
    assert (abs(firsts - 400) < room).all(), (
        f"over 2,000 shuffles of five, 0–4 came first {firsts.tolist()} times; 400 ± {room:.0f} is expected"
    )

    counts = np.bincount(list(RandomSampler(range(6), num_samples=15)), minlength=6)
    assert sorted(counts) == [2, 2, 2, 3, 3, 3], (
        f"num_samples=15 of 6 is two whole permutations and half of a third, but 0–5 came {counts.tolist()} times"
    )
    drawn = list(RandomSampler(range(50), replacement=True, num_samples=200))
    assert len(drawn) == 200, f"num_samples=200 gave {len(drawn)} indices"
    assert sorted(np.bincount(drawn, minlength=50)) != [4] * 50, (
        "with replacement=True every index came equally often: each is drawn independently of the others"
    )


def test_a_batch_has_the_structure_of_an_example():
    examples = [
        {
            "image": np.full((1, 4, 4), i, dtype=np.float32),
            "box": (i, 0.5 * i),
            "name": f"n{i}",
            "byte": np.uint8(i),
            "good": i == 1,
        }
        for i in range(3)
    ]
    try:
        batch = default_collate(examples)
    except RecursionError:
        pytest.fail(
            "the recursion never ends: a string is a sequence of strings of one character, each of which is a "
            "sequence of one string. Strings must be recognised before sequences are taken apart"
        )
    assert isinstance(batch, dict), f"a batch of dicts is a dict, but got {type(batch).__name__}"
    assert sorted(batch) == sorted(examples[0]), f"the keys of an example are kept, but got {sorted(batch)}"
    shape = tuple(batch["image"].shape)
    why = {
        (3, 4, 4): ": that is joined along an axis which was there, so that examples run into each other",
        (1, 4, 4, 3): ": the new axis came last, but a batch counts its examples along the first",
    }
    assert shape == (3, 1, 4, 4), (
        f"three images (1, 4, 4) stack along a new first axis to (3, 1, 4, 4), not {shape}{why.get(shape, '')}"
    )
    assert np.asarray(batch["image"])[:, 0, 0, 0].tolist() == [0, 1, 2], "image i of the batch is not example i's"
    assert len(batch["box"]) == 2, (
        f"three pairs became {len(batch['box'])} parts: a batch of pairs is a pair of batches, so the firsts have to "
        "be separated from the seconds"
    )
    integers, floats = batch["box"]
    for name, part, dtype, why in [
        ("image", batch["image"], "float32", "an array keeps its dtype"),
        ("int", integers, "int64", "an int of Python's becomes int64, so that it can count and be an index"),
        ("float", floats, "float64", "a float of Python's is 64 bits wide and keeps them"),
        ("uint8", batch["byte"], "uint8", "a NumPy number keeps its dtype"),
        ("bool", batch["good"], "bool", "True is an int too (isinstance(True, int)): ask for bool before int"),
    ]:
        found = np.asarray(part).dtype.name
        assert found == dtype, f"a batch of {name}s became {found}, expected {dtype}: {why}"
    assert np.asarray(integers).tolist() == [0, 1, 2] and np.asarray(floats).tolist() == [0.0, 0.5, 1.0]
    assert np.asarray(batch["good"]).tolist() == [False, True, False]
    assert batch["name"] == ["n0", "n1", "n2"], f"strings do not stack; they stay a list, but got {batch['name']}"

    images, labels = next(iter(DataLoader([(SEVEN, 1), (SEVEN, 0)], batch_size=2)))
    assert isinstance(images, shared.Tensor) and isinstance(labels, shared.Tensor), "a batch consists of Tensors"
    assert tuple(images.shape) == (2, 4, 4) and tuple(labels.shape) == (2,)
    tensors = default_collate([shared.ones(2, requires_grad=True), shared.zeros(2)])
    assert tuple(tensors.shape) == (2, 2) and tensors.requires_grad, "Tensors stack too, and gradients flow through"
    assert tensors.tolist() == [[1, 1], [0, 0]], f"Tensors of ones and of zeros became {tensors.tolist()}"
    mixed = default_collate([1, 2.5])
    assert mixed.tolist() == [1, 2.5], (
        f"1 and 2.5 became {mixed.tolist()}: 2.5 was cut to what the first one's dtype is"
    )
    assert mixed.dtype == shared.float64, f"an int and a float together are float64, but became {mixed.dtype}"

    pair = default_collate([Pair(np.zeros(2), "a"), Pair(np.ones(2), "b")])
    assert isinstance(pair, Pair), (
        f"a batch of namedtuples is one too, so that batch.image still works, but it became a {type(pair).__name__}: "
        "what puts the columns into a container of the sample's own kind?"
    )
    assert tuple(pair.image.shape) == (2, 2) and list(pair.name) == ["a", "b"], f"image and name became {pair}"
    word = default_collate([np.str_("a"), np.str_("b")])
    assert list(word) == ["a", "b"], f"np.str_ is a str too, and strings stay a list, but got {word!r}"
    refused(
        lambda: default_collate([np.zeros(2), np.zeros(3)]),
        RuntimeError,
        r"equal size.*\[2\].*\[3\]",
        "shapes (2,) and (3,) do not stack",
    )
    refused(
        lambda: default_collate([(1, 2), (3, 4, 5)]), RuntimeError, "equal size", "a pair and a triple do not stack"
    )
    refused(
        lambda: default_collate([np.array(["a"]), np.array(["b"])]),
        TypeError,
        "<U1",
        "an array of strings cannot become a Tensor, which _check_stackable would have said",
    )
    for unknown in (None, {1, 2}):
        refused(
            lambda unknown=unknown: default_collate([unknown, unknown]),
            TypeError,
            type(unknown).__name__,
            f"nothing is known about collating samples like {unknown}, and what is no batch fails much later",
        )


Pair = namedtuple("Pair", "image name")


class Part(list):
    """A list that notes which places it was asked for."""

    def __init__(self, letters: str):
        super().__init__(letters)
        self.asked: list[int] = []

    def __getitem__(self, index):
        self.asked.append(index)
        return super().__getitem__(index)


def test_composed_datasets_map_their_indices():
    parts = letters, more = Part("abcdef"), Part("WXYZ")
    both = ConcatDataset(parts)
    assert len(both) == 10, f"6 and 4 examples one after the other are 10, not {len(both)}"
    for i in range(10):
        for part in parts:
            part.asked.clear()
        which, place = (0, i) if i < 6 else (1, i - 6)
        try:
            found = both[i]
        except IndexError:
            found = "an IndexError"
        asked = [(number, n) for number, part in enumerate(parts) for n in part.asked]
        why = ""
        if which == 1 and (1, i) in asked:
            why = f": the second part begins at index 6, so its place for index {i} is {i} − 6, not {i}"
        elif which == 1 and any(number == 0 for number, _ in asked):
            why = f": the first part has six examples, 0–5, so index {i} belongs to the second part"
        assert found == "abcdefWXYZ"[i], (
            f"index {i} is place {place} of part {which}, {parts[which][place]!r}, but it gave {found!r} and asked "
            f"{' and '.join(f'part {number} for place {n}' for number, n in asked) or 'no part'}{why}"
        )
    assert both[-1] == "Z", (
        f"index −1 is the last example of all, 'Z', not {both[-1]!r}, which is the first part's last"
    )
    with pytest.raises(IndexError):
        both[10]  # without IndexError `for x in both` never ends
    picked = [Subset(both, [9, 6, 5])[i] for i in range(3)]
    assert picked != ["a", "b", "c"], "Subset(d, [9, 6, 5]) gave d[0], d[1], d[2]: its list of indices is not used"
    assert picked == ["Z", "W", "f"], f"Subset(d, [9, 6, 5]) is d[9], d[6], d[5], but got {picked}"
    rows = Subset(np.arange(10) * 10, [9, 6, 5])[[2, 0]]
    assert list(rows) == [50, 90], f"a list of numbers, [2, 0], asks the dataset once, for [5, 9], but gave {rows}"
    images, labels = np.arange(12).reshape(3, 2, 2), np.array([7, 8, 9])
    x, y = TensorDataset(images, labels)[1]
    assert x.tolist() == [[4, 5], [6, 7]] and y == 8, "TensorDataset pairs row i of every tensor"
    with pytest.raises(ValueError, match="[Ss]ize mismatch"):
        TensorDataset(images, labels[:2])

    def split(seed: int) -> list[list[int]]:
        shared.manual_seed(seed)
        return [[part[i] for i in range(len(part))] for part in random_split(range(100), [70, 30])]

    sizes = [len(part) for part in split(0)]
    assert sizes == [70, 30], f"parts of 70 and 30 have the sizes {sizes}"
    first, second = (set(part) for part in split(0))
    assert (len(first), len(second)) == (70, 30), "an example comes twice in one part"
    assert not first & second, (
        f"{len(first & second)} examples lie in both parts: what is tested was trained on. Was each part drawn by "
        "itself?"
    )
    assert first | second == set(range(100)), "some examples lie in neither part"
    assert first != set(range(70)), "the first 70 went to the first part: the split is a slice, not random"
    assert split(0) == split(0), "manual_seed(0) twice gave two splits: the permutation comes from another generator"
    assert split(0) != split(1), "manual_seed(0) and manual_seed(1) gave the same split: the seed has no effect"
    given = (random_split(range(9), [5, 4], generator=shared.Generator().manual_seed(3)) for _ in range(2))
    assert len({str([list(part.indices) for part in parts]) for parts in given}) == 1, "generator= is not used"
    assert [len(p) for p in random_split(range(10), [0.75, 0.25])] == [8, 2], (
        "7.5 and 2.5 round down, the rest goes first"
    )
    with pytest.raises(ValueError):
        random_split(range(10), [5, 4])


# ------------------------------------------------------------------------------------------ transforms


def test_transforms_agree_with_the_hand_computed_seven():
    image = transforms.ToTensor()(SEVEN)
    assert tuple(image.shape) == (1, 4, 4), f"(4, 4) bytes become (1, 4, 4): channels come first; got {image.shape}"
    assert np.asarray(image).dtype == np.float32, f"ToTensor gives float32, not {np.asarray(image).dtype}"
    largest = float(np.asarray(image).max())
    why = "divide by 256 and white is never reached" if largest == 255 / 256 else "divide by 255"
    assert largest == 1.0, f"byte 255 becomes 1.0, but got {largest:g}: {why}"
    grey = np.asarray(transforms.ToTensor()(np.full((4, 4), 153, dtype=np.uint8)))
    np.testing.assert_allclose(grey, 0.6, rtol=1e-6, err_msg="byte 153 becomes 153/255 = 0.6")
    stored = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    colour = transforms.ToTensor()(stored)
    assert tuple(colour.shape) == (3, 2, 4), f"(H, W, C) = (2, 4, 3) becomes (C, H, W) = (3, 2, 4), not {colour.shape}"
    found = np.asarray(colour)[1, 0] * 255
    why = likeness(
        np.asarray(colour),
        {"a reshape: it keeps the order in memory and mixes the channels": stored.reshape(3, 2, 4) / 255},
    )
    np.testing.assert_allclose(
        found, [1, 4, 7, 10], rtol=1e-5, err_msg=f"channel 1 of row 0 is every third byte; {why}"
    )
    floats = transforms.ToTensor()(np.full((2, 2), 7.0))
    assert np.asarray(floats).tolist() == [[[7.0, 7.0], [7.0, 7.0]]], "only bytes are scaled; other dtypes stay"

    mean, std = 26.6 / 96, math.sqrt(23.96 / 96 - (26.6 / 96) ** 2)  # the six strokes of notes/03
    normalised = np.asarray(transforms.Normalize((mean,), (std,))(image))
    assert normalised.dtype == np.float32, f"float32 stays float32, but Normalize gave {normalised.dtype}"
    assert np.asarray(image).max() == 1.0, "Normalize changed its input; without inplace=True it returns a new array"
    pixels = np.asarray(image)
    why = likeness(
        normalised,
        {
            "a division by the variance": (pixels - mean) / std**2,
            "a mean subtracted after the division": pixels / std - mean,
            "a mean that was added": (pixels + mean) / std,
            "a product with the deviation": (pixels - mean) * std,
        },
    )
    np.testing.assert_allclose(
        normalised[pixels == 0], -0.66654, atol=1e-5, err_msg=f"paper is (0 − 0.27708)/0.41570; {why}"
    )
    np.testing.assert_allclose(
        normalised[pixels == 1], 1.73903, atol=1e-5, err_msg=f"ink is (1 − 0.27708)/0.41570; {why}"
    )
    channels = shared.from_numpy(np.ones((2, 3, 2, 3), dtype=np.float32))  # C = W = 3: both axes would broadcast
    try:
        scaled = np.asarray(transforms.Normalize((1, 0, -1), (1, 2, 4))(channels))
    except ValueError as error:
        pytest.fail(
            f"three means on an image of three channels do not broadcast ({error}): they need the shape (C, 1, 1)"
        )
    expected = np.broadcast_to(np.reshape([0, 0.5, 0.5], (3, 1, 1)), (2, 3, 2, 3))
    why = likeness(
        scaled, {"means laid along the width, not along the channels": np.broadcast_to([0, 0.5, 0.5], (2, 3, 2, 3))}
    )
    np.testing.assert_allclose(scaled, expected, err_msg=f"each channel has its own mean and std; {why}")
    changed = transforms.Normalize((1,), (2,), inplace=True)(channels)
    assert changed is channels and not np.asarray(channels).any(), "inplace=True changes the image that it is given"

    steps = [lambda x: x + 1, lambda x: x * 10]
    found = transforms.Compose(steps)(2)
    why = (
        "21 is f(g(x))" if found == 21 else f"{found} looks as if a transform did not get what the one before returned"
    )
    assert found == 30, f"Compose([f, g])(x) is g(f(x)): (2 + 1) · 10 = 30; {why}"


def slow_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Two passes over everything, channel by channel, with math.fsum."""
    means, stds = [], []
    for channel in range(images.shape[1]):
        values = images[:, channel].ravel().tolist()
        mean = math.fsum(values) / len(values)
        means.append(mean)
        stds.append(math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values)))
    return means, stds


def wrong_stds(images: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """What the usual mistakes make of the standard deviation of `images`, in batches of `size`."""
    groups = [images[i : i + size].astype(np.float64) for i in range(0, len(images), size)]
    axes, n = (0, 2, 3), images[:, 0].size
    counts = np.array([g[:, 0].size for g in groups])
    inside = sum(g.var(axis=axes) * c for g, c in zip(groups, counts, strict=True))
    # The count changed before M: δ² n n_B / n with one n, or δ² n n_B / (n + n_B); the first merge is with nothing.
    one, other = (inside + counts[0] * groups[0].mean(axis=axes) ** 2 / share for share in (1, 2))
    late, mean, count = inside.copy(), groups[0].mean(axis=axes), counts[0]
    for g, c in zip(groups[1:], counts[1:], strict=True):  # δ from the mean that has moved already
        delta = g.mean(axis=axes) - mean
        moved, new = mean + delta * c / (count + c), count + c
        one, other = one + delta**2 * c, other + delta**2 * new * c / (new + c)
        late += (g.mean(axis=axes) - moved) ** 2 * count * c / (count + c)
        mean, count = moved, new
    squares = images.astype(np.float64).var(axis=axes) * n
    return {
        "a count that was changed before M used it: n_A is how much there was before": np.sqrt(one / n),
        "a count that was changed before M used it, twice: n_A is how much there was before": np.sqrt(other / n),
        "the spread inside the batches alone: the distance of their means, δ² n_A n_B / n, is missing": np.sqrt(
            inside / n
        ),
        "a mean of the batches' own deviations": np.mean([g.std(axis=axes) for g in groups], axis=0),
        "a δ that was taken after the mean had moved": np.sqrt(late / n),
        "a division by n − 1, where n is meant": np.sqrt(squares / (n - 1)),
        "the variance, without its root": squares / n,
        "the sum of squares, not divided by n": np.sqrt(squares),
    }


def test_streaming_statistics_equal_two_passes():
    rng = np.random.default_rng(0)
    images = (rng.standard_normal((23, 2, 5, 5)) * [[[1.0]], [[3.0]]] + 40).astype(np.float32)
    images += np.arange(23, dtype=np.float32)[:, None, None, None] / 8  # so that the batches' means differ
    mean, std = slow_statistics(images)
    loader = DataLoader([(image, 0) for image in images], batch_size=4)  # five batches of 4, one of 3
    try:
        found_mean, found_std = channel_statistics(loader)
    except ValueError as error:
        pytest.fail(f"five batches of 4 and one of 3 images with 2 channels raised ValueError: {error}")
    assert np.shape(found_mean) == (2,), f"two channels have two means, but got {found_mean}"
    batch_means = np.array([images[i : i + 4].astype(np.float64).mean(axis=(0, 2, 3)) for i in range(0, 23, 4)])
    halves = np.zeros(2)
    for one in batch_means:
        halves = (halves + one) / 2
    why = likeness(
        np.array(found_mean),
        {
            "a mean of batch means that counts the batch of 3 like those of 4": batch_means.mean(axis=0),
            "a mean that moves half of the way to each batch's: weigh by how much each side has seen": halves,
            "the last batch's mean": batch_means[-1],
        },
        rtol=1e-7,
    )
    np.testing.assert_allclose(found_mean, mean, rtol=1e-7, err_msg=f"mean per channel; {why}")
    statistics = RunningStatistics()
    statistics.update(images)
    assert statistics.count == images[:, 0].size, (
        f"count is how many values a channel has, 23 · 5 · 5 = {images[:, 0].size}, not {statistics.count}: divided by "
        "the number of images the deviation comes out too large"
    )
    for name, value in (("mean", statistics.mean), ("squares", statistics.squares)):
        found = np.asarray(value)
        assert found.shape == (2,), f"{name} has one number for each of two channels, but its shape is {found.shape}"
        assert found.dtype == np.float64, f"{name} is kept in float64, not in {found.dtype}, which has seven digits"
    why = likeness(np.array(found_std), wrong_stds(images, 4))
    np.testing.assert_allclose(found_std, std, rtol=1e-6, err_msg=f"std per channel; {why}")

    far = 4 * rng.standard_normal((6, 1, 8)) + 1e8  # float64, 25 million deviations from zero
    statistics = RunningStatistics()
    for start in (0, 4):
        statistics.update(far[start : start + 4])
    with np.errstate(invalid="ignore"):
        found = float(np.asarray(statistics.std)[0])
    why = "Σx² − n·mean² is the difference of two huge, nearly equal numbers; subtract the mean before you square"
    cast = far.astype(np.float32).astype(np.float64)
    if math.isclose(found, cast.std(), rel_tol=1e-5):
        why = "that is what float32 leaves of them, whose neighbours lie 8 apart there; keep the values in float64"
    assert math.isclose(found, (far - far.mean()).std(), rel_tol=1e-6), (
        f"at 10⁸ the deviation came out as {found:g} instead of {(far - far.mean()).std():g}: {why}"
    )

    one, two, none = RunningStatistics(), RunningStatistics(), RunningStatistics()
    one.update(images[:7]), two.update(images[7:])
    one.merge(none), none.merge(two)
    one.merge(none)
    np.testing.assert_allclose(one.std, std, rtol=1e-6, err_msg="merging two parts must equal seeing all of it")
    assert one.count == images[:, 0].size, f"merging adds the counts to {images[:, 0].size}, but it is {one.count}"
    np.testing.assert_allclose(
        two.mean, images[7:].astype(np.float64).mean(axis=(0, 2, 3)), rtol=1e-9, err_msg="merge changed `other`"
    )
    nothing_yet(images)


def nothing_yet(images: np.ndarray) -> None:
    """Batches without values, and statistics before the first batch."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found = RunningStatistics().std
        except ZeroDivisionError:
            pytest.fail("std before the first batch is NaN: count is 0 then, and nothing can be divided by it")
        assert np.isnan(found).all(), f"std before the first batch is NaN, not {found}: nothing is known yet"
        empty = RunningStatistics()
        try:
            empty.merge(RunningStatistics())
        except ZeroDivisionError:
            pytest.fail("merging two empty ones divided by n_A + n_B = 0: where the other has seen nothing, all stays")
        assert empty.count == 0 and not np.isnan(empty.mean).any(), "merging two empty ones has to leave it empty"
        statistics = RunningStatistics()
        for part in (images[:0], images, images[:0]):  # 0 images, 23, 0
            try:
                statistics.update(part)
            except Exception as error:
                pytest.fail(f"a batch of {len(part)} images raised {type(error).__name__}: {error}")
    assert statistics.count == images[:, 0].size and not np.isnan(statistics.mean).any(), (
        f"a batch without images made the mean {statistics.mean} and the count {statistics.count}: the mean of no "
        "values is 0/0, NaN, and whatever meets a NaN becomes one. Such a batch changes nothing"
    )
    np.testing.assert_allclose(statistics.std, slow_statistics(images)[1], rtol=1e-6, err_msg="with empty batches")


def rotate_by_hand(
    image: np.ndarray,
    degrees: float,
    bilinear: bool,
    *,
    middle: float = 1,
    closest: Callable[[float], int] = round,
    whole: Callable[[np.ndarray], np.ndarray] = np.rint,
    clamp: bool = False,
    swapped: str = "",
    transposed: bool = False,
    crossed: bool = False,
    from_corner: bool = False,
    not_moved_back: bool = False,
    beyond: bool = False,
) -> np.ndarray:
    """The slow oracle: for each pixel of the result, where it comes from, and what is there; and its wrong variants."""
    height, width = image.shape
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_w, half_h = (width - middle) / 2, (height - middle) / 2
    before_w, before_h = (0, 0) if from_corner else (half_w, half_h)
    back_w, back_h = (0, 0) if not_moved_back else (half_w, half_h)

    def at(row: int, column: int) -> float:
        if clamp or (beyond and row <= height and column <= width and min(row, column) >= 0):
            row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
        return float(image[row, column]) if 0 <= row < height and 0 <= column < width else 0.0

    result = np.zeros((height, width))
    for row, column in np.ndindex(height, width):
        u, v = (row - before_w, column - before_h) if crossed else (column - before_w, row - before_h)
        x, y = round(u * c - v * s + back_w, 9), round(u * s + v * c + back_h, 9)
        if transposed:
            x, y = y, x
        if not bilinear:
            result[row, column] = at(closest(y), closest(x))
            continue
        left, top = math.floor(x), math.floor(y)
        right, down = x - left, y - top
        right, down = 1 - right if "x" in swapped else right, 1 - down if "y" in swapped else down
        for r, weight_r in ((top, 1 - down), (top + 1, down)):
            for q, weight_q in ((left, 1 - right), (left + 1, right)):
                result[row, column] += weight_r * weight_q * at(r, q)
    return whole(result)


def wrong_rotations(image: np.ndarray, degrees: float, bilinear: bool) -> dict[str, np.ndarray]:
    """What the usual mistakes make of a rotation, by what they are."""

    def turned(angle: float = degrees, **mistake) -> np.ndarray:
        return rotate_by_hand(image, angle, bilinear, **mistake)

    return {
        "a turn clockwise: positive angles go counter-clockwise": turned(-degrees),
        "an angle in degrees that was handed to cos and sin as radians": turned(math.degrees(degrees)),
        "a turn about (W/2, H/2): pixel centres lie at 0 … W − 1, and their middle is (W − 1)/2": turned(middle=0),
        "rows and columns exchanged where the image is read": turned(transposed=True),
        "x and y exchanged at the start: np.indices gives the rows, y, first": turned(crossed=True),
        "places counted from the corner: take (n − 1)/2 off rows and columns before the matrix": turned(
            from_corner=True
        ),
        "places that were not moved back: after the matrix they count from the middle, indices from the corner": turned(
            not_moved_back=True
        ),
        "a row H and a column W taken for the image's: the last ones are H − 1 and W − 1": turned(beyond=True),
        "a border smeared outward: a place outside of the image has the value `fill`": turned(clamp=True),
        "an index rounded down: 2.7 is nearer to 3 than to 2": turned(closest=math.floor),
        "an index cut off (astype(int)): 2.7 is nearer to 3 than to 2, and −0.7 nearer to −1": turned(closest=int),
        "weights exchanged: the nearer a neighbour is, the more it weighs": turned(swapped="xy"),
        "weights exchanged in x: the nearer a neighbour is, the more it weighs": turned(swapped="x"),
        "weights exchanged in y: the nearer a neighbour is, the more it weighs": turned(swapped="y"),
        "numbers cut off where bytes are made: 218.548 is nearest to 219, but astype(np.uint8) makes it 218": turned(
            whole=np.floor
        ),
    }


def linear(degrees: float, sign: int = 1) -> np.ndarray:
    """The 2×2 part of the inverse rotation; `sign` −1 is that of the forward one."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -sign * s], [sign * s, c]])


def check_the_matrix() -> None:
    """inverse_rotation_matrix by itself, about the middle and about another place."""
    matrix = np.asarray(warp.inverse_rotation_matrix(30.0))
    assert matrix.shape == (2, 3), f"the matrix takes (x, y, 1) to (x, y): its shape is (2, 3), not {matrix.shape}"
    radians = math.degrees(30)  # what an angle of 30 radians is in degrees
    why = likeness(
        matrix[:, :2],
        {
            "a turn clockwise: positive angles go counter-clockwise": linear(-30),
            "an angle in degrees that was handed to cos and sin as radians": linear(radians),
            "an angle in degrees that was handed to cos and sin as radians, and a turn clockwise": linear(-radians),
            "cos and sin exchanged": linear(30)[::-1] * [[1], [-1]],
        },
    )
    same = np.allclose(matrix[:, :2], linear(30), rtol=0, atol=1e-9)
    assert same, f"the 2×2 part for 30° is {linear(30).round(4).tolist()}, not {matrix[:, :2].round(4).tolist()}; {why}"
    assert np.allclose(matrix[:, 2], 0, atol=1e-9), (
        f"the last column for a turn about the middle is 0, but got {matrix[:, 2].tolist()}: coordinates count from "
        "the image's middle already (note 04, The matrix in centred coordinates)"
    )
    turn, center = linear(90), np.array([1.0, 0.0])
    matrix = np.asarray(warp.inverse_rotation_matrix(90.0, (1, 0)))
    why = likeness(
        matrix[:, 2],
        {
            "a center that is not used": np.zeros(2),
            "a center with the wrong sign: the last column is c − L·c": turn @ center - center,
            "the center itself, though L moves it too: the last column is c − L·c": center,
            "−L·c: moved to the center, but not back": -turn @ center,
            "c − L·c with the L of the forward turn": center - turn.T @ center,
        },
    )
    place = (matrix @ [1, 0, 1]).round(4).tolist()
    assert np.allclose(matrix[:, 2], center - turn @ center, atol=1e-9), (
        f"a quarter turn about (1, 0) leaves (1, 0) where it is, but the matrix takes it to {place}; {why}"
    )


def check_pictures() -> None:
    """The seven, by four angles, read in both ways."""
    uneven = np.arange(7, 247, 8, dtype=np.uint8).reshape(5, 6)  # no two pixels alike: it tells mistakes apart
    for degrees, mode in itertools.product((30, 90, -75, 180), ("nearest", "bilinear")):
        turn, bilinear = transforms.RandomRotation((degrees, degrees), mode), mode == "bilinear"
        try:
            turned = turn(SEVEN)
        except IndexError as error:
            pytest.fail(f"the seven turned by {degrees}°, {mode}: a place outside of the image was read ({error})")
        assert turned.dtype == np.uint8, f"{degrees}°, {mode}: bytes stay bytes, but got {turned.dtype}"
        assert turned.shape == (4, 4), f"{degrees}°, {mode}: (4, 4) stays (4, 4), but got {turned.shape}"
        expected = rotate_by_hand(SEVEN, degrees, bilinear)
        away = abs(turned - expected)
        if away.max() <= 1 and away.sum() <= 1:  # a byte of room, for a half that rounds either way
            continue
        place = np.unravel_index(away.argmax() if away.max() <= 1 else (away > 1).argmax(), away.shape)
        found = np.concatenate([turned.ravel(), np.ravel(turn(uneven))])
        mistakes = [wrong_rotations(image, degrees, bilinear) for image in (SEVEN, uneven)]
        why = likeness(found, {what: np.concatenate([m[what].ravel() for m in mistakes]) for what in mistakes[0]})
        pytest.fail(
            f"the seven turned by {degrees}°, {mode}: pixel {tuple(map(int, place))} is {turned[place]}, by hand "
            f"{expected[place]:.0f}; {why}\nexpected\n{expected.astype(int)}\nbut got\n{turned}"
        )
    # Between two pixels, twelve decimals to either side of the middle, which a rounding error could do.
    row = np.array([[10, 20, 30, 40]], dtype=np.uint8)
    sides = [warp.warp(row, np.array([[1, 0, shift], [0, 1, 0]]), (1, 3)).tolist() for shift in (-1e-12, 1e-12)]
    assert sides[0] == sides[1], (
        f"nearest, halfway between two pixels: 10⁻¹² to the left gave {sides[0]}, as much to the right {sides[1]}: a "
        "rounding error chooses the pixel. Round the places to nine decimals first"
    )


def test_a_rotation_reads_where_the_inverse_map_points():
    left = [[255, 255, 0, 0], [255, 0, 255, 255], [255, 0, 0, 0], [0, 0, 0, 0]]
    assert np.rot90(SEVEN).tolist() == left
    check_the_matrix()
    check_pictures()
    floats = transforms.ToTensor()(SEVEN)
    turned = transforms.RandomRotation((90, 90))(floats)
    assert tuple(turned.shape) == (1, 4, 4), f"a Tensor (C, H, W) keeps its layout, but got {tuple(turned.shape)}"
    np.testing.assert_allclose(np.asarray(turned)[0] * 255, left, err_msg="a Tensor turns as its bytes do")
    turned = transforms.RandomRotation((30, 30), "bilinear")(floats)
    assert np.asarray(turned).dtype == np.float32, f"float32 stays float32, but got {np.asarray(turned).dtype}"
    expected = rotate_by_hand(np.asarray(floats)[0], 30, True, whole=np.asarray)
    wrong = {"a mean that was rounded: only integer dtypes have to be, 0.43 is a good grey": np.rint(expected)}
    why = likeness(np.asarray(turned)[0], wrong)
    np.testing.assert_allclose(np.asarray(turned)[0], expected, atol=1e-6, err_msg=f"a float seven by 30°; {why}")
    colours = np.stack([SEVEN, SEVEN.T, 255 - SEVEN], axis=-1)
    turned = transforms.RandomRotation((90, 90))(colours)
    assert np.array_equal(turned, np.rot90(colours)), (
        "each of the three colours of (H, W, 3) turns as a grey image does"
    )
    wide = np.arange(1, 9, dtype=np.uint8).reshape(2, 4)
    turned = transforms.RandomRotation((90, 90), expand=True, fill=9)(wide)
    assert turned.tolist() == np.rot90(wide).tolist(), f"expand=True turns (2, 4) into (4, 2), but got\n{turned}"
    for mode in ("nearest", "bilinear"):  # about the upper left corner of pixel (0, 0)
        turned = transforms.RandomRotation((180, 180), mode, center=(0, 0), fill=9)(wide)
        assert turned.tolist() == [[9] * 4] * 2, (
            f"turned by 180° about its corner, {mode}, all of the image leaves and 9, the fill, is left; got\n{turned}"
        )


def test_augmentation_varies_in_training_and_is_absent_in_evaluation():
    shared.manual_seed(0)
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    augment = transforms.Compose(
        [transforms.RandomRotation(30), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    training = shared.data.datasets.ImageDataset(image[None], np.array([0]), ["a"], transform=augment)
    evaluation = shared.data.datasets.ImageDataset(image[None], np.array([0]), ["a"], transform=transforms.ToTensor())

    def views(dataset, epochs: int = 20) -> list[bytes]:
        loader = DataLoader(dataset, batch_size=1)
        return [np.asarray(images).tobytes() for _ in range(epochs) for images, _ in loader]

    trained = views(training)
    assert len(set(trained)) > 10, (
        f"20 epochs showed {len(set(trained))} different versions: is the draw made only once?"
    )
    assert len(set(views(evaluation))) == 1, "evaluation showed several versions of one image: augmentation is on"
    assert np.array_equal(training.images[0], np.arange(64).reshape(8, 8)), "the transform wrote into the dataset"
    shared.manual_seed(0)
    assert views(training) == trained, "the same seed gave other versions: a transform draws from another generator"

    mirrored = np.asarray(transforms.RandomHorizontalFlip(p=1)(image))
    assert not np.array_equal(mirrored, image[::-1]), "p=1 turned the image upside down; left and right are the columns"
    assert not np.array_equal(mirrored, image), "p=1 left the image as it was: is the comparison the wrong way round?"
    assert np.array_equal(mirrored, image[:, ::-1]), f"p=1 mirrors left and right, but gave\n{mirrored}"
    flip = transforms.RandomHorizontalFlip(p=0.25)
    flipped = sum(flip(image)[0, 0] == 7 for _ in range(2000))
    room = 4 * math.sqrt(2000 * 0.25 * 0.75)
    why = "is the draw made once and kept?" if flipped in (0, 2000) else "is 0.25 the probability that it happens?"
    assert abs(flipped - 500) < room, f"p=0.25 flipped {flipped} of 2,000; 500 ± {room:.0f} is expected: {why}"

    windows = [np.asarray(transforms.RandomCrop((4, 6))(image)) for _ in range(1000)]
    assert {w.shape for w in windows} == {(4, 6)}, f"size=(4, 6) is 4 rows and 6 columns, but got {windows[0].shape}"
    corners = [(int(w[0, 0]) // 8, int(w[0, 0]) % 8) for w in windows]
    tops, lefts = (set(values) for values in zip(*corners, strict=True))
    assert (max(tops), max(lefts)) == (4, 2), (
        f"windows of 4×6 in 8×8 began at row {max(tops)} and column {max(lefts)} at most; the last places are 4 and 2, "
        "where the window touches the border: the upper bound of integers() is not drawn itself"
    )
    assert len(set(corners)) == 15, (
        f"5 rows and 3 columns to begin at make 15 places, but only {sorted(set(corners))} came in 1,000 draws: row "
        "and column are drawn apart from each other"
    )
    assert np.array_equal(windows[0], image[corners[0][0] :, corners[0][1] :][:4, :6]), "a window is cut out unchanged"

    def draws() -> list[bytes]:
        shared.manual_seed(2)
        return [np.asarray(t(image)).tobytes() for t in [transforms.RandomCrop(4), flip] for _ in range(20)]

    assert draws() == draws(), "manual_seed(2) twice gave other crops or flips: they draw from another generator"


# ------------------------------------------------------------------------------------------ workers


@pytest.fixture
def tagged(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # worker processes get this sys.path too
    from worker_dataset import Tagged

    yield Tagged(23)
    sys.modules.pop("worker_dataset", None)


class Rehearsal:
    """Stands in for the pool of workers, without processes: one side of a conversation that is the same every time.

    `answer(worker, index)` is what a worker says to a task, ("done", batch) or ("end", None); `next_one(tasks)`
    chooses the task that is answered next, from the unanswered ones (number, worker), the oldest first.
    """

    oldest, closed = 0, False

    def __init__(self, places: int, answer: Callable, next_one: Callable):
        self.places, self.answer, self.next_one = places, answer, next_one
        self.given: list[tuple[int, Any]] = []  # (worker, index) of every task
        self.unanswered: list[tuple[int, int]] = []
        self.ended: set[int] = set()

    def begin_epoch(self, seed: int) -> None:
        """Nothing to seed."""

    def close(self) -> None:
        self.closed = True

    def submit(self, worker: int, index: Any) -> int:
        if worker in self.ended:
            pytest.fail(
                f"worker {worker} got a task after its stream had ended: it has no room then, and one without room is "
                "passed over. With real processes such a pass never ends"
            )
        number = len(self.given)
        self.given.append((worker, index))
        self.unanswered.append((number, worker))
        load = sum(w == worker for _, w in self.unanswered)
        if load > self.places:
            pytest.fail(
                f"worker {worker} has {load} tasks under way, but room for {self.places}: count its room down with "
                "each task, and pass it over while it has none"
            )
        return number

    def receive(self, timeout: float | None) -> tuple[int, str, Any]:
        if not self.unanswered:
            pytest.fail(
                "the loader waits for another result, but all that were asked for have arrived: with real processes "
                "it would wait for ever. Does _arrived see that the result is there?"
            )
        number, worker = self.next_one(self.unanswered)
        self.unanswered.remove((number, worker))
        kind, value = self.answer(*self.given[number])
        if kind == "end":
            self.ended.add(worker)
        return number, kind, value


class TwoStreams(IterableDataset):
    """0–5, the even ones from worker 0, the odd ones from worker 1, one list for each."""

    def __init__(self):
        self.streams = [iter(range(worker, 6, 2)) for worker in (0, 1)]

    def answer(self, worker: int, index: list) -> tuple[str, list[int] | None]:
        batch = list(itertools.islice(self.streams[worker], len(index)))
        return ("done", batch) if batch else ("end", None)


def rehearse(loader: DataLoader, answer: Callable, next_one: Callable) -> tuple[list, Rehearsal, WorkerIterator]:
    """What one pass over the loader hands out, at most 20 batches, with a pool that answers as said."""
    pool = Rehearsal(loader.prefetch_factor, answer, next_one)
    try:
        iterator = WorkerIterator(loader, pool)
        return list(itertools.islice(iterator, 20)), pool, iterator
    except KeyError as error:
        pytest.fail(f"task {error} was to be handed out, but its result has not arrived, or was handed out before")


def check_who_gets_what() -> None:
    """_submit and _arrived in three conversations in which nothing depends on timing, and without room."""
    options: dict[str, Any] = {"batch_size": None, "num_workers": 2}
    echo = lambda worker, index: ("done", index)  # noqa: E731
    batches, first, iterator = rehearse(DataLoader(Numbers(8), **options), echo, lambda tasks: tasks[-1])
    assert sorted(batches) == list(range(8)), (
        f"eight tasks, 0–7, gave {batches}: was an index taken that no worker got, or a worker not given its next task?"
    )
    assert batches == list(range(8)), (
        f"tasks 0–7 were answered newest first, and their results came in the order {batches}: results were handed out "
        "as they arrived, not as they were asked for"
    )
    workers = [worker for worker, _ in first.given]
    assert workers == [0, 1] * 4, (
        f"the workers did not take turns: tasks 0–7 belong to 0, 1, 0, 1, …, but they went to {workers}"
    )

    stream = TwoStreams()
    batches, *_ = rehearse(DataLoader(stream, batch_size=2, num_workers=2), stream.answer, lambda tasks: tasks[0])
    assert batches == [[0, 2], [1, 3], [4], [5]], (
        f"two workers that stream 0, 2, 4 and 1, 3, 5 in batches of 2 give [0, 2], [1, 3], [4], [5], but got {batches}"
    )

    slow = lambda tasks: next((task for task in tasks if task[1] == 1), tasks[0])  # noqa: E731  worker 0 is the last
    batches, *_ = rehearse(DataLoader(Numbers(8), in_order=False, **options), echo, slow)
    assert batches != list(range(8)), (
        "in_order=False hands out what has arrived, but 1, which had arrived, waited until slow worker 0 had brought 0"
    )
    assert batches == [1, 3, 4, 5, 6, 7, 0, 2], (
        f"in_order=False, worker 0 slow with 0 and 2: the other's results come as they arrive, 1, 3, 4, 5, 6, 7, then "
        f"0 and 2, but they came in the order {batches}"
    )

    iterator.indices, iterator.turn, iterator.room[:] = iter("ab"), 0, [0, 0]
    iterator._submit()
    assert len(first.given) == 8, "no worker had room, and still one got a task"
    left = list(iterator.indices)
    assert left == ["a", "b"], f"no worker had room, and still an index was taken, which is lost: {left} are left"
    iterator.indices, iterator.turn, iterator.room[:] = iter("ab"), 0, [0, 1]
    iterator._submit()
    assert first.given[8:] == [(1, "a")], (
        f"with room for worker 1 alone, worker 0 is passed over: 1 gets 'a', but (worker, index) was {first.given[8:]}"
    )


def check_seeding() -> None:
    """seed_worker in this process, whose generators are put back."""
    states = random.getstate(), np.random.get_state(), shared.get_rng_state()
    try:
        seed = seed_worker(1000, worker_id=1)
        draws = random.random(), np.random.random(), shared.rand(1).item()
        expected = random.Random(1001).random(), np.random.RandomState(1001).random()
        shared.manual_seed(1001)
        expected += (shared.rand(1).item(),)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        shared.set_rng_state(states[2])
    assert seed == 1001, f"seed_worker(1000, worker_id=1) returns 1001, which get_worker_info().seed says, not {seed!r}"
    for name, found, wanted in zip(("Python's", "NumPy's", "the framework's"), draws, expected, strict=True):
        assert found == wanted, (
            f"worker 1 in an epoch with seed 1000 draws from {name} generator as after the seed 1001"
        )


def test_workers_deliver_what_one_process_delivers(tagged):
    check_who_gets_what()
    generators = ("the framework's", "NumPy's", "Python's")

    def passes(num_workers: int) -> list[tuple[list, list[set[int]], np.ndarray]]:
        """Of each pass: its batches, which processes made them, and the random numbers (example, generator)."""
        loader = DataLoader(
            tagged,
            batch_size=4,
            shuffle=True,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            timeout=25,
        )
        result = []
        for seed in (3, 4, 3):
            shared.manual_seed(seed)  # for each epoch, since without workers the examples draw from it too
            batches = [[np.asarray(leaf) for leaf in batch] for batch in loader]
            assert len(batches) == 6, (
                f"23 examples in batches of 4 are 6 batches, but with num_workers={num_workers} there came "
                f"{len(batches)}: was an index taken that no worker got, or a worker not given its next task?"
            )
            found = [(images.tolist(), labels.tolist()) for images, labels, _, _ in batches]
            made_by = [set(pids.tolist()) for _, _, pids, _ in batches]
            result.append((found, made_by, np.concatenate([draws for *_, draws in batches])))
        return result

    alone, together = passes(0), passes(2)
    for number, ((expected, _, _), (found, made_by, draws)) in enumerate(zip(alone, together, strict=True), 1):
        processes = set().union(*made_by)
        assert os.getpid() not in processes, "with num_workers=2 the examples were still made in the main process"
        assert sorted(found) == sorted(expected), f"epoch {number}: workers made other batches than one process does"
        came = [expected.index(batch) for batch in found]
        assert found == expected, (
            f"epoch {number}: batches 0–{len(came) - 1} came in the order {came}: results were handed out as they "
            "arrived, not as they were asked for"
        )
        assert len(processes) == 2, f"two workers were asked for, {len(processes)} did the work"
        assert all(a == b for a, b in zip(made_by, made_by[2:], strict=False)), (
            f"epoch {number}: the workers did not take turns: batch k and batch k + 2 belong to one worker, but the "
            f"batches came from {[sorted(processes).index(min(p)) for p in made_by]}: who is asked depends on timing"
        )
        for column, name in enumerate(generators):
            repeated = len(draws) - len(set(draws[:, column]))
            assert not repeated, (
                f"epoch {number}: from {name} generator {repeated} of {len(draws)} examples got a random number that "
                "another one had: both workers draw the same stream, so each needs a seed of its own (notes/05, Seeds)"
            )
    (_, _, first), (_, _, second), (_, _, third) = together
    for column, name in enumerate(generators):
        assert set(first[:, column]).isdisjoint(second[:, column]), (
            f"the second epoch drew numbers of the first from {name} generator: each epoch has a seed of its own, "
            "which the workers have to use"
        )
        assert np.array_equal(first[:, column], third[:, column]), (
            f"manual_seed(3) gave the workers other numbers the second time from {name} generator: is it seeded?"
        )
    check_seeding()
