"""Sprint 04's milestone on where windows lie. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

import shared
from course.oracles import check, doing, require
from shared.arrays.kernels.windows import Windows
from shared.nn import functional as F
from shared.ops.windows import slide


def starts(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool = False) -> list[int]:
    """Where windows begin, in the padded input, found by trying each place after the other."""
    found, start = [], 0
    while start + d * (k - 1) <= n + 2 * p - 1 or (ceil_mode and found and found[-1] + d * (k - 1) < n + 2 * p - 1):
        if start + d * (k - 1) > n + 2 * p - 1 and start >= n + p:
            break  # it would begin on the padding behind
        found.append(start)
        start += s
    return found


def named(n: int, k: int, s: int, p: int, d: int) -> str:
    """A case, for a message."""
    return f"n={n}, k={k}, s={s}, p={p}, d={d}"


def rounded_up(cases: Sequence[tuple[int, ...]], end: Callable[[int, int], int]) -> list[int]:
    """The counts with ceil_mode, where a last window is left out that begins at end(n, p) or later."""
    counts = [-((d * (k - 1) + 1 - n - 2 * p) // s) + 1 for n, k, s, p, d in cases]
    return [o - ((o - 1) * s >= end(n, p)) for o, (n, _, s, p, _) in zip(counts, cases, strict=True)]


def check_counts() -> None:
    """How many windows fit: against trying, and with each part of the formula wrong or missing."""
    cases = [c for c in product((4, 7, 10), (1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2)) if starts(*c)]
    with doing("the number of windows"):
        found = [slide(*((v,) for v in case)).count for case in cases]
    kind = next((type(count).__name__ for count in found if not isinstance(count, tuple)), None)
    require(kind is None, f"count is a {kind}, but it has to be a tuple, as all else in a Windows: tuple(count)")
    wrong = next((count for count in found if len(count) != 1), None)
    require(wrong is None, f"count has one number for each dimension: in one dimension (3,), but it is {wrong!r}")
    broken = next((count[0] for count in found if count[0] != int(count[0])), None)
    require(broken is None, f"{broken} windows: what is left of a window does not count, so round down, with //")
    formulas = {
        "a dilation that is not looked at: a window reaches over d · (k − 1) + 1 elements": lambda n, k, s, p, d: (
            (n + 2 * p - k) // s + 1
        ),
        "padding on one side only: there is as much in front as behind": lambda n, k, s, p, d: (
            (n + p - d * (k - 1) - 1) // s + 1
        ),
        "no padding": lambda n, k, s, p, d: (n - d * (k - 1) - 1) // s + 1,
        "the + 1 left out: with no room to move there is one window": lambda n, k, s, p, d: (
            (n + 2 * p - d * (k - 1) - 1) // s
        ),
        "one window too many": lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) // s + 2,
        "the − 1 left out: a window of k elements reaches k − 1 beyond its first": lambda n, k, s, p, d: (
            (n + 2 * p - d * (k - 1)) // s + 1
        ),
        "a reach of d · k: between k elements there are k − 1 steps": lambda n, k, s, p, d: (
            (n + 2 * p - d * k) // s + 1
        ),
        "a stride that is not looked at": lambda n, k, s, p, d: n + 2 * p - d * (k - 1),
        "rounding up, where a window that does not fit is left out": lambda n, k, s, p, d: (
            -((d * (k - 1) + 1 - n - 2 * p) // s) + 1
        ),
        "rounding to the nearest, where a window that does not fit is left out": lambda n, k, s, p, d: (
            round((n + 2 * p - d * (k - 1) - 1) / s) + 1
        ),
    }
    check(
        "the numbers of windows for several sizes, kernels, strides, paddings and dilations",
        [count[0] for count in found],
        [len(starts(*case)) for case in cases],
        {what: [formula(*case) for case in cases] for what, formula in formulas.items()},
        labels=[named(*case) for case in cases],
    )
    for case, right in (((28, 5, 1, 0, 1), 24), ((28, 5, 1, 2, 1), 28), ((24, 2, 2, 0, 1), 12), ((4, 3, 1, 1, 1), 4)):
        check(f"the count for n, k, s, p, d = {case}", slide(*((v,) for v in case)).count[0], right)
    two = slide((6, 9), (3, 2), (1, 2), (1, 0), (2, 1))
    require(
        two == Windows((3, 2), (4, 4), (1, 2), (1, 0), (2, 1)),
        f"slide of (6, 9) with kernel (3, 2), stride (1, 2), padding (1, 0) and dilation (2, 1) has count (4, 4) and "
        f"all that was given, but is {two}",
    )
    most = slide((2,), (5,), (1,), (0,), (1,)).count[0]
    require(most <= 0, f"a window of 5 does not fit on 2 elements, so the count is 0 or less, but it is {most}")
    most = slide((2,), (3,), (2,), (0,), (1,)).count[0]
    require(
        most <= 0,
        f"a window of 3 does not fit on 2 elements, whatever the stride, but with stride 2 there are {most}: −1/2 is "
        "rounded towards zero, by int() or round(); // rounds down, to −1",
    )
    cases = [c for c in product((4, 5, 7), (2, 3), (2, 3, 4), (0, 1), (1, 2)) if starts(*c) and 2 * c[3] <= c[1]]
    with doing("the number of windows with ceil_mode"):
        found = [slide(*((v,) for v in case), ceil_mode=True).count[0] for case in cases]
    check(
        "the numbers of windows with ceil_mode",
        found,
        [len(starts(*case, ceil_mode=True)) for case in cases],
        {
            "a ceil_mode that is not looked at": [len(starts(*case)) for case in cases],
            "a last window that begins on the padding behind: it is left out": [
                -((d * (k - 1) + 1 - n - 2 * p) // s) + 1 for n, k, s, p, d in cases
            ],
            "one window more in every case": [len(starts(*case)) + 1 for case in cases],
            "a last window that begins on the padding in front or on the last elements, and is left out because it "
            "begins at n or later, counted from the padding's first place": rounded_up(cases, lambda n, p: n),
            "a last window that is left out only where it begins behind all of the padding: on the padding behind is "
            "too late": rounded_up(cases, lambda n, p: n + 2 * p),
        },
        labels=[named(*case) for case in cases],
    )


def check_padded() -> None:
    """What `padded` puts around an array, and how far it goes behind it."""
    x = np.arange(1.0, 5.0).reshape(1, 1, 4)
    for what, windows, value, right, mistakes in (
        (
            "a padding of 1 around 1, 2, 3, 4, for windows of 3",
            Windows((3,), (4,), (1,), (1,), (1,)),
            0,
            [0, 1, 2, 3, 4, 0],
            {
                "padding in front only": [0, 1, 2, 3, 4],
                "padding behind only": [1, 2, 3, 4, 0],
                "the edge repeated": [1, 1, 2, 3, 4, 4],
                "a mirror at the edge": [2, 1, 2, 3, 4, 3],
                "no padding": [1, 2, 3, 4],
            },
        ),
        (
            "a padding of 2 with the value −1",
            Windows((5,), (4,), (1,), (2,), (1,)),
            -1,
            [-1, -1, 1, 2, 3, 4, -1, -1],
            {"a value that is not looked at: it is 0": [0, 0, 1, 2, 3, 4, 0, 0]},
        ),
        (
            "windows of 3 with stride 2 and padding 1, the third of which goes two places beyond the end",
            Windows((3,), (3,), (2,), (1,), (1,)),
            0,
            [0, 1, 2, 3, 4, 0, 0],
            {"as much behind as in front, where the last window reaches further": [0, 1, 2, 3, 4, 0]},
        ),
        (
            "one window of 2 with stride 5 and padding 1, which leaves three elements over",
            Windows((2,), (1,), (5,), (1,), (1,)),
            0,
            [0, 1, 2, 3, 4],
            {
                "as much behind as in front, though no window reaches it": [0, 1, 2, 3, 4, 0],
                "an input that is cut off after the last window": [0, 1],
            },
        ),
    ):
        with doing(f"padded, {what}", {"negative": "Behind there is no less than nothing: max(0, …)."}):
            found = windows.padded(x, value)
        check(f"{what}: padded", np.asarray(found).ravel(), right, mistakes)
    half = np.array([[[0.5, 1.5]]], dtype=np.float32)
    for value, right in ((0, [0, 0.5, 1.5, 0]), (-1, [-1, 0.5, 1.5, -1])):
        with doing(f"padded, halves with a padding of 1 and the value {value}"):
            found = Windows((3,), (2,), (1,), (1,), (1,)).padded(half, value)
        check(
            f"0.5, 1.5 with a padding of 1 and the value {value}: padded",
            np.asarray(found).ravel(),
            right,
            {"an array made of whole numbers, which cuts off fractions: it takes x's dtype": np.trunc(right)},
        )
        require(
            found.dtype == np.float32,
            f"padded makes {found.dtype} of float32: a new array takes x's dtype, np.full(shape, value, x.dtype)",
        )
    plane = np.arange(1.0, 13.0).reshape(1, 2, 2, 3)
    with doing("padded in two dimensions", {"broadcast": "Images and channels get no padding: (0, 0) for each."}):
        found = Windows((3, 3), (2, 5), (1, 1), (1, 2), (1, 1)).padded(plane)
    right = np.zeros((1, 2, 4, 7))
    right[..., 1:3, 2:5] = plane
    exchanged = np.zeros((1, 2, 6, 5))
    exchanged[..., 2:4, 1:4] = plane
    check(
        "two channels of 2 × 3 with a padding of (1, 2)",
        found,
        right,
        {"height and width exchanged": exchanged},
    )
    require((plane.ravel() == np.arange(1, 13)).all(), "padded changed its input, which it only reads")


def check_where() -> None:
    """The elements that `where` picks: one of every window."""
    x = np.arange(10.0).reshape(1, 1, 10)
    for what, windows, mistakes in (
        ("stride 2", Windows((3,), (4,), (2,), (0,), (1,)), {"a stride that is not looked at": lambda o, k: o + k}),
        (
            "dilation 3",
            Windows((2,), (7,), (1,), (0,), (3,)),
            {"a dilation that is not looked at: neighbours in a window are d apart": lambda o, k: o + k},
        ),
        (
            "stride 3 and dilation 2",
            Windows((3,), (2,), (3,), (0,), (2,)),
            {
                "stride and dilation exchanged": lambda o, k: o * 2 + k * 3,
                "a stride that multiplies the dilation as well": lambda o, k: 3 * (o + 2 * k),
            },
        ),
    ):
        s, d, (k,), (count,) = windows.stride[0], windows.dilation[0], windows.kernel_size, windows.count
        for offset in range(k):
            right = [o * s + offset * d for o in range(count)]
            with doing(f"where(({offset},)) with {what}"):
                index = windows.where((offset,))
                found = x[index]
            require(
                np.shares_memory(found, x),
                "an array indexed by `where` is a copy: made of slices the index gives a view, which `+=` can change",
            )
            wrong = {name: [[[rule(o, offset) for o in range(count)]]] for name, rule in mistakes.items()}
            wrong["one window too many: after the last one a slice has to end"] = [[[*right, right[-1] + s]]]
            wrong["one window too few: the end of a slice is not part of it"] = [[right[:-1]]]
            check(f"element {offset} of each window with {what}", found, [[right]], wrong)
    plane = np.arange(2 * 3 * 7 * 8.0).reshape(2, 3, 7, 8)
    windows = Windows((2, 3), (3, 4), (2, 1), (0, 0), (2, 2))
    for offset in np.ndindex(2, 3):
        rows, columns = [o * 2 + offset[0] * 2 for o in range(3)], [o + offset[1] * 2 for o in range(4)]
        with doing("where in two dimensions", {"": "(..., slice of the rows, slice of the columns)"}):
            found = plane[windows.where(offset)]
        check(
            f"element {offset} of each window in two dimensions, stride (2, 1) and dilation 2",
            found,
            plane[:, :, rows][:, :, :, columns],
        )


def test_windows_lie_where_padding_stride_and_dilation_put_them():
    check_counts()
    check_padded()
    check_where()
    # The whole chain: a filter that is 1 in one place moves the image, padding included.
    image = shared.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    for offset in np.ndindex(3, 3):
        pick = np.zeros((1, 1, 3, 3), dtype=np.float32)
        pick[(0, 0, *offset)] = 1
        around = np.pad(image.numpy()[0, 0], 1)
        with doing("a convolution with padding='same'"):
            found = F.conv2d(image, shared.tensor(pick), padding="same")
        check(
            f"the image seen through place {offset} of a 3 × 3 filter with padding='same'",
            found[0, 0].tolist(),
            around[offset[0] : offset[0] + 4, offset[1] : offset[1] + 4],
        )
    try:
        with doing("a window that does not fit"):
            F.conv2d(image, shared.zeros(1, 1, 5, 5))
        told = ""
    except AssertionError as error:
        told = str(error)
    require("5 x 5" in told, f"a 5 × 5 filter on 4 × 4 pixels must be refused, naming its size: {told or 'it is not'}")
