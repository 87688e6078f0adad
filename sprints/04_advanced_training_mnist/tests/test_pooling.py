"""Sprint 04's milestone on max pooling. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

import math
from itertools import product

import numpy as np

import shared
from course.oracles import check, check_formula_runs, doing, require
from shared.arrays.kernels.pool.reference import max_pool_input
from shared.arrays.kernels.windows import Windows
from shared.nn import functional as F

SEEN = np.array([[-1, 5], [1, 3.0]])  # what the bar filter sees in the little one
FOUR = np.array([[3, 1, -2, 0], [2, 8, -1, -4], [-5, -6, 7, 7], [-3, -9, 6, 7.0]])


def single(values: object) -> shared.Tensor:
    """A float32 tensor of these numbers."""
    return shared.tensor(np.array(values, dtype=np.float32))


def leaf(values: object) -> shared.Tensor:
    """The same, collecting a gradient."""
    return single(values).requires_grad_()


def by_loops(x: np.ndarray, kernel, stride, padding, dilation, count) -> tuple[np.ndarray, np.ndarray]:
    """The maxima (N, C, *count), and the flat place of each, the first of equal ones."""
    n, channels, height, width = x.shape
    best, places = np.full((n, channels, *count), -math.inf), np.full((n, channels, *count), -1)
    for image, channel, i, j in product(range(n), range(channels), *map(range, count)):
        for a, b in np.ndindex(*kernel):
            r, c = i * stride[0] + a * dilation[0] - padding[0], j * stride[1] + b * dilation[1] - padding[1]
            at = (image, channel, i, j)
            if 0 <= r < height and 0 <= c < width and (x[image, channel, r, c] > best[at] or places[at] < 0):
                best[at], places[at] = x[image, channel, r, c], r * width + c
    return best, places


def spread(grad: np.ndarray, places: np.ndarray, shape: tuple[int, ...], keep: str = "sum") -> np.ndarray:
    """Each entry of grad at its place; where several meet their sum, or the first or last of them."""
    out = np.zeros((*shape[:2], math.prod(shape[2:])))
    for at in sorted(np.ndindex(*grad.shape), reverse=keep == "first"):
        to = (*at[:2], places[at])
        out[to] = grad[at] + (out[to] if keep == "sum" else 0)
    return out.reshape(shape)


def all_in_one(grad: np.ndarray, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Each entry of grad at its place in the whole array, as if places did not begin anew in each channel."""
    out = np.zeros(math.prod(shape))
    np.add.at(out, places.ravel(), grad.ravel())
    return out.reshape(shape)


def pooled(x: shared.Tensor, *args, **options) -> shared.Tensor:
    with doing("max pooling", {"reshape": "The maxima are (N, C, *count), one for each window."}):
        return check_formula_runs("pool", "max_pool", lambda: F.max_pool2d(x, *args, **options))


def check_values() -> None:
    """What comes out."""
    out = pooled(single(SEEN[None, None]), 2)
    check(
        "2 × 2 max pooling of what the bar filter sees in the little one",
        out.tolist(),
        [[[[5]]]],
        {"the mean": [[[[2]]]], "the smallest": [[[[-1]]]], "the first": [[[[-1]]]], "the last": [[[[3]]]]},
    )
    out = pooled(single(FOUR[None, None]), 2)
    check(
        f"2 × 2 max pooling of {FOUR.astype(int).tolist()}",
        out.tolist(),
        [[[[8, 0], [-3, 7]]]],
        {
            "the largest in size whatever its sign": [[[[8, -4], [-9, 7]]]],
            "nothing below 0: the search begins at −∞, not at 0": [[[[8, 0], [0, 7]]]],
            "the maximum of each row only": [[[[3, 0], [-5, 7]]]],
            "the means": [[[[3.5, -1.75], [-5.75, 6.75]]]],
        },
    )
    below = -np.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    out = pooled(single(below), 2, padding=1)
    check(
        "2 × 2 max pooling with a padding of 1 where all numbers are negative",
        out.tolist(),
        [[[[-1, -2, -4], [-5, -6, -8], [-13, -14, -16]]]],
        {
            "padding that wins: it is no part of the image, and counts as −∞, not as 0": [
                [[[0, 0, 0], [0, -6, 0], [0, 0, 0]]]
            ]
        },
    )


def check_places() -> None:
    """Where the maxima are."""
    x = single(np.stack([FOUR, FOUR[::-1]])[None])
    with doing("the places of the maxima"):
        _, places = F.max_pool2d(x, 2, return_indices=True)
    right = by_loops(x.numpy(), (2, 2), (2, 2), (0, 0), (1, 1), (2, 2))[1]
    check(
        "the places of the maxima in two channels of 4 × 4: row · 4 + column, in each channel from 0",
        places.tolist(),
        right,
        {
            "the number of the element in its window": right // 4 % 2 * 2 + right % 2,
            "places that go on from one channel to the next": right + np.array([0, 16])[:, None, None],
            "the last of equal maxima: of equal ones the first counts": [[[[5, 3], [12, 15]], [[0, 7], [9, 15]]]],
            "row + column · 4": right % 4 * 4 + right // 4,
        },
    )
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 3, 5, 6)) - 3
    for what, options, count in (
        (
            "windows of 3 × 3 with stride 2 and padding 1",
            {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1)},
            (3, 3),
        ),
        (
            "windows of 3 × 3 with stride 1 and dilation 2",
            {"stride": (1, 1), "padding": (0, 0), "dilation": (2, 2)},
            (1, 2),
        ),
    ):
        with doing(f"max pooling, {what}"):
            out, places = F.max_pool2d(single(values), 3, **options, return_indices=True)
        best, right = by_loops(values, (3, 3), **options, count=count)
        row = options["padding"][0]
        check(f"the maxima, {what}", out.tolist(), best, {"padding that wins: it counts as −∞": np.maximum(best, 0)})
        check(
            f"their places, {what}",
            places.tolist(),
            right,
            {
                "places in the padded image instead of the image": (right // 6 + row) * (6 + 2 * row)
                + right % 6
                + row
            },
        )  # fmt: skip


def check_extremes() -> None:
    """NaN, and a window in which all is −∞."""
    x = FOUR.copy()
    x[0, 1] = math.nan
    out = pooled(single(x[None, None]), 2).numpy()[0, 0]
    require(
        math.isnan(out[0, 0]),
        f"the maximum of 3, NaN, 2, 8 is {out[0, 0]:g}: NaN is larger than all. Comparisons with NaN are False, so "
        "that it never wins by itself; value != value is how one asks",
    )
    require(np.isfinite(out).sum() == 3, f"one NaN spoils the other windows: {out.tolist()}")
    # Of a window's elements the upper left one may be padding, which is −∞ too: its place is -1, or beside the image.
    corner = np.array([[(2 * i - 1) * 4 + 2 * j - 1 for j in range(3)] for i in range(3)])
    low = leaf(np.full((1, 1, 4, 4), -math.inf))
    with doing("max pooling where all is −∞", {"": "Of equal ones the first counts, also where all of them are −∞."}):
        out, places = F.max_pool2d(low, 2, padding=1, return_indices=True)
    largest = out.max().item()
    require(largest == -math.inf, f"the maximum of −∞ and −∞ is −∞, not {largest:g}")
    check(
        "the places of the maxima where all is −∞",
        places.tolist(),
        [[[[0, 1, 3], [4, 5, 7], [12, 13, 15]]]],
        {
            "no place: a window always has a first element of its own": np.full((1, 1, 3, 3), -1),
            "places that start at 0 and stay there, since nothing is larger than −∞": np.zeros((1, 1, 3, 3)),
            f"{PADDED} (place −1)": np.where([[1, 1, 1], [1, 0, 0], [1, 0, 0]], -1, corner)[None, None],
            f"{PADDED} (row and column −1)": corner[None, None],
            f"{PADDED} (its place in the padded image)": np.array(
                [[12 * i + 2 * j for j in range(3)] for i in range(3)]
            )[None, None],
        },
    )
    with doing("its backward pass", {"does not fit": "The result has the size of the image, without padding."}):
        out.sum().backward()


def check_gradients() -> None:
    """Where gradients go."""
    x = leaf(FOUR[None, None])
    grad = np.array([[[[1, 2], [3, 4.0]]]])
    out = pooled(x, 2)
    with doing("the backward pass of max pooling", {"": "max_pool_input returns an array of the image's size."}):
        check_formula_runs("pool", "max_pool_input", lambda: out.backward(single(grad)))
    right = np.zeros((1, 1, 4, 4))
    right[0, 0, [1, 0, 3, 2], [1, 3, 0, 2]] = 1, 2, 3, 4
    block = grad.repeat(2, axis=2).repeat(2, axis=3)
    equal = FOUR == np.array([[8, 0], [-3, 7.0]]).repeat(2, 0).repeat(2, 1)
    check(
        "the gradient of 2 × 2 max pooling: each entry goes to its window's maximum, of equal ones to the first",
        x.grad.tolist(),
        right,
        {
            "every element of a window gets it": block,
            "an equal share for every element, as in average pooling": block / 4,
            "all of the equal maxima get it: only the first does": block * equal,
            "the last of the equal maxima gets it": np.where(right == 4, 0, right)
            + np.pad(np.array([[4.0]]), ((3, 0), (3, 0))),
            "the gradient times the maximum": right * FOUR,
        },
    )
    rng = np.random.default_rng(1)
    for what, values, options, count in (
        ("windows of 3 × 3 that overlap", rng.normal(size=(2, 2, 4, 5)), {"stride": (1, 1), "padding": (0, 0)}, (2, 3)),
        (
            "windows of 3 × 3, stride 2, padding 1",
            rng.normal(size=(2, 2, 5, 6)),
            {"stride": (2, 2), "padding": (1, 1)},
            (3, 3),
        ),
        (
            "windows of 3 × 3, stride 4, with a rest",
            rng.normal(size=(1, 2, 9, 6)),
            {"stride": (4, 4), "padding": (0, 0)},
            (2, 1),
        ),
    ):
        x, places = leaf(values), by_loops(values, (3, 3), **options, dilation=(1, 1), count=count)[1]
        grad = rng.normal(size=places.shape)
        with doing(f"max pooling, {what}"):
            out = F.max_pool2d(x, 3, **options)
        with doing(f"the backward pass of max pooling, {what}", {"": "The result has the size of the image."}):
            out.backward(single(grad))
        check(
            f"the gradient of max pooling, {what}",
            x.grad.tolist(),
            spread(grad, places, values.shape),
            {
                OVER: spread(grad, places, values.shape, "last"),
                AGAIN: spread(grad, places, values.shape, "first"),
                FIRST: all_in_one(grad, places, values.shape),
            },
        )


def test_max_pooling_takes_the_largest_and_sends_the_gradient_there():
    check_values()
    check_places()
    check_extremes()
    check_gradients()
    line = leaf([[[1.0, 5, 2, 4]]])
    with doing("max pooling in one dimension", {"": "windows.offsets() and windows.where() work in any dimension."}):
        out = F.max_pool1d(line, 2, stride=1)
        (out * single([1.0, 10, 100])).sum().backward()
    check("max pooling of 1, 5, 2, 4 in one dimension", out.tolist(), [[[5, 5, 4]]])
    check(
        "its gradient for G = (1, 10, 100)",
        line.grad.tolist(),
        [[[0, 11, 0, 100]]],
        {OVER: [[[0, 10, 0, 100]]], AGAIN: [[[0, 1, 0, 100]]]},
    )
    with doing("max pooling of float32"):
        x = leaf(FOUR[None, None])
        out = F.max_pool2d(x, 2)
        out.sum().backward()
    require(out.dtype == shared.float32, f"max pooling of float32 is {out.dtype}: which array is made without a dtype?")
    back = max_pool_input(
        np.ones((1, 1, 1), "float32"), np.zeros((1, 1, 1), "int32"), (2,), Windows((2,), *[(1,)] * 2, (0,), (1,))
    )
    require(back.dtype == np.float32, f"the gradient of float32 is {back.dtype}: zeros without a dtype are float64")


OVER = "one window over the other: an element that is the maximum of several gets the sum"
AGAIN = f"{OVER} (element after element)"
FIRST = "everything in the first channel of the first image: places begin at 0 in each channel of each image"
PADDED = "padding as the first of equal ones: it is no part of the image, also where all is −∞"
