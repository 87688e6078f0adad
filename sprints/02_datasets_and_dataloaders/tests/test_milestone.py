"""Sprint 02's milestones. A test names a behaviour; its message says what was seen and what it looks like."""

from __future__ import annotations

import itertools
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import shared
from shared.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    RunningStatistics,
    Subset,
    TensorDataset,
    channel_statistics,
    default_collate,
    random_split,
    transforms,
)

SEVEN = np.array([[0, 255, 255, 255], [0, 0, 0, 255], [0, 0, 255, 0], [0, 0, 255, 0]], dtype=np.uint8)


class Numbers(Dataset):
    """Example i is the number i; counts how often each was asked for."""

    def __init__(self, length: int):
        self.asked = [0] * length

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, index: int) -> int:
        self.asked[index] += 1
        return index


def epoch(loader) -> list[list[int]]:
    return [np.asarray(batch).tolist() for batch in loader]


# ------------------------------------------------------------------------------------------ batches and order


@pytest.mark.parametrize("length, batch_size, shuffle", [(6, 4, False), (6, 4, True), (7, 1, True), (5, 8, False)])
def test_an_epoch_visits_every_example_exactly_once(length, batch_size, shuffle):
    dataset = Numbers(length)
    batches = epoch(DataLoader(dataset, batch_size=batch_size, shuffle=shuffle))
    seen = list(itertools.chain(*batches))
    missing, repeated = sorted(set(range(length)) - set(seen)), sorted({i for i in seen if seen.count(i) > 1})
    why = "are indices drawn with replacement?" if repeated else "is the short last batch lost?"
    assert not missing, f"examples {missing} of {length} never came, {repeated or 'none'} came twice: {why}"
    assert not repeated, f"examples {repeated} came more than once: does a batch start where the last one began?"
    assert dataset.asked == [1] * length, f"__getitem__ was called {dataset.asked} times per example, not once each"
    if not shuffle:
        assert seen == list(range(length)), f"without shuffle the order is 0, 1, 2, …, but it was {seen}"


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
        assert sizes == expected, f"{case}: the batches have sizes {sizes}, expected {expected}"
        rule = "⌊N/B⌋ when dropping, else ⌈N/B⌉"
        assert len(loader) == len(expected), f"{case}: len(loader) is {len(loader)}, expected {len(expected)} ({rule})"


def test_shuffles_repeat_with_the_seed_and_differ_between_epochs():
    def orders(seed: int, epochs: int = 3) -> list[list[int]]:
        shared.manual_seed(seed)
        loader = DataLoader(Numbers(50), batch_size=8, shuffle=True)
        return [list(itertools.chain(*epoch(loader))) for _ in range(epochs)]

    first, again, other = orders(0), orders(0), orders(1)
    assert first[0] != list(range(50)), "shuffle=True left the examples in their stored order"
    assert first == again, "manual_seed(0) twice gave two different orders: the sampler draws from another generator"
    assert first[0] != other[0], "manual_seed(0) and manual_seed(1) gave the same order: the seed has no effect"
    assert first[0] != first[1] != first[2], "two epochs had the same order: the generator is seeded inside the loop"
    # Each example comes first equally often: 2,000 shuffles of 5, five places, 4 standard deviations of room.
    loader = DataLoader(Numbers(5), batch_size=5, shuffle=True)
    firsts = np.bincount([epoch(loader)[0][0] for _ in range(2000)], minlength=5)
    room = 4 * math.sqrt(2000 * 0.2 * 0.8)
    assert (abs(firsts - 400) < room).all(), (
        f"over 2,000 shuffles of five, 0–4 came first {firsts.tolist()} times; 400 ± {room:.0f} is expected"
    )


def test_a_batch_has_the_structure_of_an_example():
    examples = [
        {
            "image": np.full((1, 4, 4), i, dtype=np.float32),
            "box": (i, 0.5 * i),
            "name": f"n{i}",
            "byte": np.uint8(i),
        }
        for i in range(3)
    ]
    batch = default_collate(examples)
    assert sorted(batch) == ["box", "byte", "image", "name"], f"a batch of dicts is a dict, but got {type(batch)}"
    shape = tuple(batch["image"].shape)
    assert shape == (3, 1, 4, 4), f"three images (1, 4, 4) stack along a new first axis to (3, 1, 4, 4), not {shape}"
    assert np.asarray(batch["image"])[:, 0, 0, 0].tolist() == [0, 1, 2], "image i of the batch is not example i's"
    integers, floats = batch["box"]
    found = [np.asarray(leaf).dtype.name for leaf in (batch["image"], integers, floats, batch["byte"])]
    expected = ["float32", "int64", "float64", "uint8"]
    assert found == expected, f"dtypes of image, int, float, uint8 leaves: {found}, expected {expected}"
    assert np.asarray(integers).tolist() == [0, 1, 2] and np.asarray(floats).tolist() == [0.0, 0.5, 1.0]
    assert batch["name"] == ["n0", "n1", "n2"], f"strings do not stack; they stay a list, but got {batch['name']}"

    images, labels = next(iter(DataLoader([(SEVEN, 1), (SEVEN, 0)], batch_size=2)))
    assert isinstance(images, shared.Tensor) and isinstance(labels, shared.Tensor), "a batch consists of Tensors"
    assert tuple(images.shape) == (2, 4, 4) and tuple(labels.shape) == (2,)
    with pytest.raises(RuntimeError, match=r"equal size.*\[2\].*\[3\]"):
        default_collate([np.zeros(2), np.zeros(3)])


def test_composed_datasets_map_their_indices():
    letters, more = list("abcdef"), list("WXYZ")
    both = ConcatDataset([letters, more])
    assert len(both) == 10, f"6 and 4 examples one after the other are 10, not {len(both)}"
    spelt = ""
    for i in range(10):
        try:
            spelt += both[i]
        except IndexError as error:
            pytest.fail(
                f"index {i} of 10 raised IndexError ({error}): after {spelt!r}, which part, and which place in it?"
            )
    assert spelt == "abcdefWXYZ", f"the two lists one after the other spell 'abcdefWXYZ', not {spelt!r}"
    assert both[6] == "W" and both[5] == "f", "index 6 is the first of the second part: its place is 6 − 6, not 6"
    assert both[-1] == "Z", "index −1 is the last example of the last part"
    with pytest.raises(IndexError):
        both[10]  # without IndexError `for x in both` never ends
    picked = [Subset(both, [9, 6, 5])[i] for i in range(3)]
    assert picked == ["Z", "W", "f"], f"Subset(d, [9, 6, 5]) is d[9], d[6], d[5], but got {picked}"
    images, labels = np.arange(12).reshape(3, 2, 2), np.array([7, 8, 9])
    x, y = TensorDataset(images, labels)[1]
    assert x.tolist() == [[4, 5], [6, 7]] and y == 8, "TensorDataset pairs row i of every tensor"
    with pytest.raises(ValueError, match="[Ss]ize mismatch"):
        TensorDataset(images, labels[:2])

    shared.manual_seed(0)
    parts = random_split(range(100), [70, 30])
    first, second = (set(part[i] for i in range(len(part))) for part in parts)
    assert (len(first), len(second)) == (70, 30), f"sizes are {len(first)} and {len(second)}: examples come twice"
    assert not first & second, f"{len(first & second)} examples lie in both parts: what is tested was trained on"
    assert first | second == set(range(100)), "some examples lie in neither part"
    assert first != set(range(70)), "the first 70 went to the first part: the split is a slice, not random"
    assert [len(p) for p in random_split(range(10), [0.75, 0.25])] == [8, 2], (
        "7.5 and 2.5 round down, the rest goes first"
    )


# ------------------------------------------------------------------------------------------ transforms


def test_transforms_agree_with_the_hand_computed_seven():
    image = transforms.ToTensor()(SEVEN)
    assert tuple(image.shape) == (1, 4, 4), f"(4, 4) bytes become (1, 4, 4): channels come first; got {image.shape}"
    assert np.asarray(image).dtype == np.float32, f"ToTensor gives float32, not {np.asarray(image).dtype}"
    assert np.asarray(image).max() == 1.0, "byte 255 becomes 1.0: divide by 255"
    grey = np.asarray(transforms.ToTensor()(np.full((4, 4), 153, dtype=np.uint8)))
    np.testing.assert_allclose(grey, 0.6, rtol=1e-6, err_msg="byte 153 becomes 153/255 = 0.6")
    colour = transforms.ToTensor()(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    assert tuple(colour.shape) == (3, 2, 4), f"(H, W, C) = (2, 4, 3) becomes (C, H, W) = (3, 2, 4), not {colour.shape}"
    np.testing.assert_allclose(np.asarray(colour)[1, 0] * 255, [1, 4, 7, 10], rtol=1e-5, err_msg="channel 1 of row 0")

    mean, std = 26.6 / 96, math.sqrt(23.96 / 96 - (26.6 / 96) ** 2)  # the six strokes of notes/03
    normalised = np.asarray(transforms.Normalize((mean,), (std,))(image))
    ink = np.asarray(image) == 1
    np.testing.assert_allclose(normalised[~ink], -0.66654, atol=1e-5, err_msg="paper is (0 − 0.27708)/0.41570")
    np.testing.assert_allclose(normalised[ink], 1.73903, atol=1e-5, err_msg="ink is (1 − 0.27708)/0.41570")
    assert np.asarray(image).max() == 1.0, "Normalize changed its input; without inplace=True it returns a new array"
    channels = shared.from_numpy(np.ones((2, 3, 1, 2), dtype=np.float32))
    scaled = np.asarray(transforms.Normalize((1, 0, -1), (1, 2, 4))(channels))[1, :, 0, 0]
    np.testing.assert_allclose(scaled, [0, 0.5, 0.5], err_msg="each channel has its own mean and std")

    steps = [lambda x: x + 1, lambda x: x * 10]
    assert transforms.Compose(steps)(2) == 30, "Compose([f, g])(x) is g(f(x)): (2 + 1) · 10 = 30; 21 is f(g(x))"


def slow_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Two passes over everything, channel by channel, with math.fsum."""
    means, stds = [], []
    for channel in range(images.shape[1]):
        values = images[:, channel].ravel().tolist()
        mean = math.fsum(values) / len(values)
        means.append(mean)
        stds.append(math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values)))
    return means, stds


@pytest.mark.parametrize("offset", [0.0, 4096.0])
def test_streaming_statistics_equal_two_passes(offset):
    rng = np.random.default_rng(0)
    images = (rng.standard_normal((23, 2, 5, 5)) * [[[1.0]], [[3.0]]] + offset).astype(np.float32)
    mean, std = slow_statistics(images)
    loader = DataLoader([(image, 0) for image in images], batch_size=4)  # five batches of 4, one of 3
    found_mean, found_std = channel_statistics(loader)
    np.testing.assert_allclose(
        found_mean,
        mean,
        rtol=1e-6,
        err_msg="mean per channel: are the batches of 4 and of 3 weighted by their size?",
    )
    batch_stds = np.mean([images[i : i + 4].std(axis=(0, 2, 3)) for i in range(0, 23, 4)], axis=0)
    np.testing.assert_allclose(
        found_std,
        std,
        rtol=1e-5,
        err_msg=f"std per channel, offset {offset:g}: averaging the batches' stds would give {batch_stds}; "
        "√(Σx²/n − mean²) in float32 loses its digits far from zero; divide by n, not by n − 1",
    )
    one, two = RunningStatistics(), RunningStatistics()
    one.update(images[:7]), two.update(images[7:])
    one.merge(two)
    np.testing.assert_allclose(one.std, std, rtol=1e-5, err_msg="merging two parts must equal seeing all of it")
    assert one.count == images[:, 0].size, f"count is values per channel, {images[:, 0].size}, not {one.count}"


def rotate_by_hand(image: np.ndarray, degrees: float, bilinear: bool) -> np.ndarray:
    """The slow oracle: for each pixel of the result, where it comes from, and what is there."""
    height, width = image.shape
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def at(row: int, column: int) -> float:
        return float(image[row, column]) if 0 <= row < height and 0 <= column < width else 0.0

    result = np.zeros((height, width))
    for row, column in np.ndindex(height, width):
        u, v = column - (width - 1) / 2, row - (height - 1) / 2
        x, y = u * c - v * s + (width - 1) / 2, u * s + v * c + (height - 1) / 2
        if bilinear:
            left, top = math.floor(x), math.floor(y)
            for r, weight_r in ((top, 1 - (y - top)), (top + 1, y - top)):
                for q, weight_q in ((left, 1 - (x - left)), (left + 1, x - left)):
                    result[row, column] += weight_r * weight_q * at(r, q)
        else:
            result[row, column] = at(round(y), round(x))
    return result


def test_a_rotation_reads_where_the_inverse_map_points():
    turned = transforms.RandomRotation((90, 90))(SEVEN)
    left = [[255, 255, 0, 0], [255, 0, 255, 255], [255, 0, 0, 0], [0, 0, 0, 0]]
    assert turned.tolist() != np.rot90(SEVEN, -1).tolist(), "90° turned clockwise: positive angles go counter-clockwise"
    assert turned.tolist() == left, f"the seven turned left by 90° is\n{np.array(left)}\nbut got\n{turned}"
    assert turned.dtype == np.uint8, f"bytes stay bytes, but got {turned.dtype}"
    for degrees in (30, -75, 180):
        for mode in ("nearest", "bilinear"):
            found = transforms.RandomRotation((degrees, degrees), mode)(SEVEN).astype(float)
            expected = rotate_by_hand(SEVEN, degrees, mode == "bilinear")
            wrong = np.argwhere(abs(found - expected) > 0.51)  # bytes are rounded
            assert not len(wrong), (
                f"{degrees}°, {mode}: pixel {wrong[0].tolist()} is {found[tuple(wrong[0])]:.0f}, by hand "
                f"{expected[tuple(wrong[0])]:.1f}. The centre is ((W−1)/2, (H−1)/2) = (1.5, 1.5); outside is 0; a "
                "neighbour weighs the more the nearer it is, and bytes are rounded, not cut off."
            )
    tensor = transforms.RandomRotation((90, 90))(transforms.ToTensor()(SEVEN))
    assert tuple(tensor.shape) == (1, 4, 4), f"a Tensor (C, H, W) keeps its layout, but got {tuple(tensor.shape)}"
    np.testing.assert_allclose(np.asarray(tensor)[0] * 255, left, err_msg="a Tensor turns as its bytes do")


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

    assert transforms.RandomHorizontalFlip(p=1)(image).tolist() == image[:, ::-1].tolist(), (
        "left and right, not top and bottom"
    )
    flip = transforms.RandomHorizontalFlip(p=0.25)
    flipped = sum(flip(image)[0, 0] == 7 for _ in range(2000))
    room = 4 * math.sqrt(2000 * 0.25 * 0.75)
    assert abs(flipped - 500) < room, f"p=0.25 flipped {flipped} of 2,000; 500 ± {room:.0f} is expected"
    corners = {int(transforms.RandomCrop(4)(image)[0, 0]) for _ in range(500)}
    assert corners == {8 * r + c for r in range(5) for c in range(5)}, (
        f"a 4×4 window in 8×8 has 25 places, corners (0–4, 0–4); {len(corners)} of them came in 500 draws"
    )


# ------------------------------------------------------------------------------------------ workers


@pytest.fixture
def tagged(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # worker processes get this sys.path too
    from worker_dataset import Tagged

    yield Tagged(23)
    sys.modules.pop("worker_dataset", None)


def test_workers_deliver_what_one_process_delivers(tagged):
    def passes(num_workers: int) -> list[tuple[list, set[int], list[float]]]:
        loader = DataLoader(
            tagged,
            batch_size=4,
            shuffle=True,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            timeout=25,
        )
        result = []
        for seed in (3, 4):
            shared.manual_seed(seed)  # for each epoch, since without workers the examples draw from it too
            batches = [tuple(np.asarray(leaf).tolist() for leaf in batch) for batch in loader]
            pids = {pid for *_, processes, _ in batches for pid in processes}
            draws = list(itertools.chain(*(batch[3] for batch in batches)))
            result.append(([batch[:2] for batch in batches], pids, draws))
        return result

    alone, together = passes(0), passes(2)
    for number, ((expected, _, _), (found, pids, draws)) in enumerate(zip(alone, together, strict=True), 1):
        assert os.getpid() not in pids, "with num_workers=2 the examples were still made in the main process"
        assert len(pids) == 2, f"two workers were asked for, {len(pids)} did the work"
        assert len(found) == len(expected), (
            f"epoch {number}: {len(found)} batches from workers, {len(expected)} without"
        )
        order = [batch[1] for batch in found]
        assert found == expected, (
            f"epoch {number}: workers' batches differ from those made in-process. Labels came as {order}; if "
            "only their order differs, results were handed out as they arrived, not as they were asked for."
        )
        repeated = len(draws) - len(set(draws))
        assert not repeated, (
            f"epoch {number}: {repeated} of {len(draws)} examples got a random number that another one had: both "
            "workers draw the same stream, so each needs a seed of its own (notes/05, Seeds)"
        )
    assert set(together[0][2]).isdisjoint(together[1][2]), (
        "the second epoch drew numbers of the first: each epoch draws the workers' seed anew, from the main process"
    )
