"""Sprint 04's milestones on convolution. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

import shared
from course.oracles import check, check_formula_runs, doing, require
from shared.arrays.kernels.conv.reference import col2im, conv_bias, conv_input, conv_weight, im2col
from shared.arrays.kernels.windows import Windows
from shared.nn import functional as F

X = np.array([[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 1, 1, 1.0]])  # the little one
K = np.array([[-1, 2, -1.0]] * 3)  # looks for an upright bar
E = np.array([[1, 2, 3], [4, 5, 6.0]])  # every turn and mirroring of it shows
FLAT = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
ALL = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
GAPS = {"stride": (3, 3), "padding": (0, 0), "dilation": (1, 1)}
AT_ONCE = "stride (2, 1), padding (1, 2) and dilation (1, 2)"
ONES = "as many as windows.count has entries"
MIXED = "that mixes images and filters, .reshape(O, N, …).swapaxes(0, 1) does not"
DEALT = "channels and filters dealt out to the groups in turn: a group has neighbours"
WINDOWS_LAST = "a reshape that takes the windows to come first: in the view they are last, as (N, C · K, L) wants them"
ANY = {
    "broadcast": f"(O,) biases get axes of 1 to stand beside (N, O, *count), {ONES}.",
    "": "windows.kernel_size and windows.count have a number per dimension, one to three: use them whole.",
}


def counts(size, kernel, stride, padding, dilation) -> tuple[int, ...]:
    """How many windows fit in each dimension."""
    numbers = zip(size, kernel, stride, padding, dilation, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in numbers)


def windows_of(size, kernel, stride, padding, dilation) -> Windows:
    return Windows(kernel, counts(size, kernel, stride, padding, dilation), stride, padding, dilation)


def products(x, weight, stride, padding, dilation, groups=1) -> Iterator[tuple[tuple, tuple, tuple]]:
    """Where each product of a convolution stands: in the result, in the weight, in x. Those on padding are left out."""
    images, _, *size = x.shape
    outputs, inputs, *kernel = weight.shape
    for k in np.ndindex(*kernel):
        for image, o, c in product(range(images), range(outputs), range(inputs)):
            channel = o // (outputs // groups) * inputs + c
            for window in np.ndindex(*counts(size, kernel, stride, padding, dilation)):
                numbers = zip(window, stride, k, dilation, padding, strict=True)
                place = tuple(w * s + e * d - p for w, s, e, d, p in numbers)
                if all(0 <= i < n for i, n in zip(place, size, strict=True)):
                    yield (image, o, *window), (o, c, *k), (image, channel, *place)


def by_loops(x, weight, stride, padding, dilation, groups=1) -> np.ndarray:
    """The convolution, product by product."""
    out = np.zeros((len(x), len(weight), *counts(x.shape[2:], weight.shape[2:], stride, padding, dilation)))
    for to, k, at in products(x, weight, stride, padding, dilation, groups):
        out[to] += weight[k] * x[at]
    return out


def gradients_by_loops(x, weight, grad, stride, padding, dilation, groups=1) -> dict[str, np.ndarray]:
    """The gradients of Σ grad · conv(x, weight) by x and by weight, and wrong ones by x: overwritten, mean, turned."""
    found = {name: np.zeros(x.shape) for name in ("x", "turned", "uses")} | {"weight": np.zeros(weight.shape)}
    columns: dict[tuple, np.ndarray] = {}  # what each place of the filter gives to x
    for to, k, at in products(x, weight, stride, padding, dilation, groups):
        found["x"][at] += weight[k] * grad[to]
        found["weight"][k] += x[at] * grad[to]
        other = tuple(n - 1 - i for i, n in zip(k[2:], weight.shape[2:], strict=True))
        found["turned"][at] += weight[(*k[:2], *other)] * grad[to]
        found["uses"][at] += groups / len(weight)
        columns.setdefault(k[2:], np.full(x.shape, np.nan))
        columns[k[2:]][at] = np.nan_to_num(columns[k[2:]][at]) + weight[k] * grad[to]
    found["overwritten"] = np.zeros(x.shape)
    for column in columns.values():
        found["overwritten"] = np.where(np.isnan(column), found["overwritten"], column)
    found["mean"] = found["x"] / np.maximum(found["uses"], 1)
    return found


def single(values: object) -> shared.Tensor:
    """A float32 tensor of these numbers."""
    return shared.tensor(np.array(values, dtype=np.float32))


def convolve(x: shared.Tensor, *args, **options) -> shared.Tensor:
    """conv1d, conv2d or conv3d, as x (N, C, *size) says."""
    return {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.ndim](x, *args, **options)


def images_mixed(right: np.ndarray) -> np.ndarray:
    """What (N, O, *count) becomes if it is computed as (O, N · L), and reshaped where axes have to be moved."""
    return right.swapaxes(0, 1).reshape(right.shape)


def leaf(values: object) -> shared.Tensor:
    """The same, collecting a gradient."""
    return single(values).requires_grad_()


# ------------------------------------------------------------------------ forward


def check_columns() -> None:
    """`im2col`, on the little one and on two images of two channels with everything at once."""
    rows = [
        *([0, 0, 0, 1], [0, 1, 1, 1], [1, 0, 1, 0]),
        *([0, 1, 0, 0], [1, 1, 0, 1], [1, 0, 1, 0]),
        *([0, 0, 0, 1], [0, 1, 1, 1], [1, 0, 1, 1]),
    ]
    right = np.array([rows], dtype=float)
    assert np.array_equal(right[0], [[X[i + a, j + b] for i in (0, 1) for j in (0, 1)] for a, b in np.ndindex(3, 3)])
    pieces = {(i, j): X[i : i + 3, j : j + 3] for i in range(2) for j in range(2)}
    with doing("im2col of the little one, windows of 3 × 3", {"reshape": "One column per window: (1, 9, 4)."}):
        found = im2col(X[None, None], windows_of((4, 4), (3, 3), **FLAT))
    check(
        "im2col of the little one, whose four windows of 3 × 3 are four columns of nine",
        found,
        right,
        {
            "one row per window: each window is a column": right.swapaxes(1, 2),
            "the windows counted down the image instead of along its rows": right[:, :, [0, 2, 1, 3]],
            "the elements of a window counted down its columns instead of along its rows": np.stack(
                [piece.T.ravel() for piece in pieces.values()], axis=1
            )[None],
            "windows turned by 180°": right[:, ::-1],
            "a reshape that takes windows for rows: (windows, elements) has to be transposed": np.stack(
                list(pieces.values())
            ).reshape(1, 9, 4),
            WINDOWS_LAST: right.reshape(1, 4, 9).swapaxes(1, 2),
        },
    )
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 2, 4, 5)), (2, 3)
    # A filter that is 1 at one place and 0 elsewhere takes one row of the columns out.
    pick = np.eye(12).reshape(12, 2, *kernel)
    right = by_loops(x, pick, **ALL).reshape(2, 12, -1)
    before = x.copy()
    with doing(
        f"im2col of two images of two channels, {AT_ONCE}",
        {
            "size 360 into": "Every number is there. Each image has C · K rows, those of all its channels.",
            "reshape": "The result is (N, C · K, L) = (2, 12, 15), the windows over x with its padding.",
            "broadcast": "There are 3 × 5 windows: some of them go over the edges, and need windows.padded(x) first.",
        },
    ):
        found = im2col(x, windows_of((4, 5), kernel, **ALL))
    require((x == before).all(), "im2col changed x, which it only reads")
    check(
        f"im2col of two images of two channels, {AT_ONCE}",
        found,
        right,
        {
            "the channels counted last, row k · C + c: it is c · K + k": right.reshape(2, 2, 6, -1)
            .swapaxes(1, 2)
            .reshape(2, 12, -1),
            "one row per window: each window is a column": right.swapaxes(1, 2),
            WINDOWS_LAST: right.reshape(2, 15, 12).swapaxes(1, 2),
            "the first image only": right[:1],
            "all images side by side: each has a matrix of its own": right.swapaxes(0, 1).reshape(12, -1),
        },
    )


def check_little_one() -> None:
    """The results that notes 01 and 02 compute, and a filter that shows which way it lies."""
    little = single(X[None, None])
    with doing("the convolution of the little one with the bar filter"):
        out = check_formula_runs("conv", "conv", lambda: F.conv2d(little, single(K[None, None])))
    check(
        "the bar filter on the little one",
        out.tolist(),
        [[[[-1, 5], [1, 3]]]],
        {
            "the filter transposed, which looks for a lying bar": by_loops(X[None, None], K.T[None, None], **FLAT),
            "a mean over the window instead of a sum": np.array([[[[-1, 5], [1, 3]]]]) / 9,
            "the wrong sign": [[[[1, -5], [-1, -3]]]],
            "the sum of each window, without its weights": [[[[4, 4], [5, 6]]]],
        },
    )
    with doing("the convolution of the little one with the filter (1 2 3 / 4 5 6)"):
        out = F.conv2d(little, single(E[None, None]))
    check(
        "the filter (1 2 3 / 4 5 6) on the little one",
        out.tolist(),
        [[[[14, 11], [11, 8], [14, 17]]]],
        {
            "a filter turned by 180°, the convolution of mathematics: here no filter is turned": by_loops(
                X[None, None], E[None, None, ::-1, ::-1], **FLAT
            ),
            "the rows of the filter exchanged": by_loops(X[None, None], E[None, None, ::-1], **FLAT),
            "the columns of the filter exchanged": by_loops(X[None, None], E[None, None, :, ::-1], **FLAT),
        },
    )
    with doing("a convolution in one dimension", ANY):
        line = F.conv1d(single([[[1.0, 2, 4, 8]]]), single([[[1.0, -1]], [[1, 1]]]), single([10.0, 20]))
    right, bias = np.array([[[-1.0, -2, -4], [3, 6, 12]]]), np.array([10.0, 20])
    check(
        "the filters (1, −1) and (1, 1), with the biases 10 and 20, on 1, 2, 4, 8",
        line.tolist(),
        right + bias[:, None],
        {
            "no bias": right,
            "filters turned": right * [[[-1], [1]]] + bias[:, None],
            f"a bias of shape (O, 1, 1) in every case: {ONES}": right + bias[:, None, None],
        },
    )


def test_a_convolution_is_the_sum_of_each_window_times_its_weights():
    check_columns()
    check_little_one()
    rng = np.random.default_rng(1)
    x, weight, bias = rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(5, 3, 3, 3)), rng.normal(size=5)
    right, column = by_loops(x, weight, **FLAT), bias[:, None, None]
    with doing(
        "two images of three channels with five filters and a bias",
        {"broadcast": f"(O,) biases get axes of 1 to stand beside (N, O, *count), {ONES}."},
    ):
        out = F.conv2d(*(single(a) for a in (x, weight, bias)))
    check(
        "two images of three channels with five filters and a bias",
        out.tolist(),
        right + column,
        {
            "no bias": right,
            "a bias that is subtracted": right - column,
            "a mean over the channels instead of the sum": right / 3 + column,
            "a bias that counts once for every channel": right + 3 * column,
            "the bias of the first filter for all": right + bias[0],
            "weights reshaped to (C · K, O): reshape transposes nothing, (O, C · K) and .T does": by_loops(
                x, weight.reshape(27, 5).T.reshape(weight.shape), **FLAT
            )
            + column,
            "the first image twice": np.stack([right[0]] * 2) + column,
            f"a product (O, N · L) reshaped to (N, O, H, W): {MIXED}": images_mixed(right) + column,
            f"a product (O, N · L), with its bias, reshaped to (N, O, H, W): {MIXED}": images_mixed(right + column),
        },
    )
    x, weight = rng.normal(size=(2, 4, 5, 6)), rng.normal(size=(6, 2, 2, 3))
    with doing(
        "a convolution in two groups",
        {"": "With groups the filters are cut into as many parts, and each part sees its own C / groups channels."},
    ):
        out = F.conv2d(single(x), single(weight), **ALL, groups=2)
    check(
        f"four channels and six filters in two groups, {AT_ONCE}",
        out.tolist(),
        by_loops(x, weight, **ALL, groups=2),
        {
            "channels dealt out to the groups in turn: a group has neighbouring channels": by_loops(
                x[:, [0, 2, 1, 3]], weight, **ALL, groups=2
            ),
            "filters dealt out to the groups in turn: a group has neighbouring filters": by_loops(
                x, weight[[0, 2, 4, 1, 3, 5]], **ALL, groups=2
            )[:, [0, 3, 1, 4, 2, 5]],
            DEALT: (dealt := by_loops(x[:, [0, 2, 1, 3]], weight[[0, 2, 4, 1, 3, 5]], **ALL, groups=2)),
            f"{DEALT}, in the result too": dealt[:, [0, 3, 1, 4, 2, 5]],
            "groups that see each other's channels": by_loops(x[:, [2, 3, 0, 1]], weight, **ALL, groups=2),
            "the first group's channels for both groups": by_loops(x[:, [0, 1, 0, 1]], weight, **ALL, groups=2),
        },
    )
    x, weight = rng.normal(size=(1, 2, 3, 4, 3)), rng.normal(size=(2, 2, 2, 2, 2))
    with doing("a convolution in three dimensions, with a bias", ANY):
        out = F.conv3d(single(x), single(weight), single(bias[:2]), padding=1)
    right = by_loops(x, weight, (1,) * 3, (1,) * 3, (1,) * 3)
    check(
        "a convolution in three dimensions, with a bias",
        out.tolist(),
        right + bias[:2, None, None, None],
        {"no bias": right},
    )
    out = F.conv2d(single(X[None, None]), single(K[None, None]))
    require(
        out.dtype == shared.float32,
        f"the convolution of float32 images is {out.dtype}: an array made without a dtype is float64, and so is "
        "everything that is computed with it",
    )


# ------------------------------------------------------------------------ backward

HINTS = {
    "unpack": "windows.kernel_size and windows.count have a number per dimension, one to three: use them whole.",
    "bounds for array of dim": "There are one to three axes of windows: say which axes stay, not which ones go.",
    "matmul": "By x: Wᵀ G, (C · K, O) times (O, L). By the weight: G Xᵀ, (O, L) times (L, C · K).",
    "shape": "Each gradient has the shape of what it belongs to.",
    "size": "Each gradient has the shape of what it belongs to.",
    "broadcast": "Each gradient has the shape of what it belongs to.",
}
ADD_UP = "one window over the other: where windows overlap, what they give adds up"
NO_MEAN = "a mean where windows overlap: it is a sum"
TURNED = (
    "filters turned by 180°: the weights were met the wrong way round (scattering, with col2im: do not turn; "
    "gathering, with a convolution: turn)"
)
BATCH = "a reshape to N · L columns without moving the images' axis first: it mixes images and rows"


def check_scattering() -> None:
    """`col2im` on columns of ones, and as the transpose of `im2col`."""
    with doing("col2im of four columns of nine ones", {"reshape": "(N, C · K, L) columns make (N, C, *size)."}):
        found = col2im(np.ones((1, 9, 4)), (4, 4), windows_of((4, 4), (3, 3), **FLAT))
    check(
        "col2im of ones: in how many of the four windows each pixel lies",
        found,
        np.outer([1, 2, 2, 1], [1, 2, 2, 1])[None, None],
        {f"{ADD_UP} (or a mean of them)": np.ones((1, 1, 4, 4))},
    )
    small = col2im(np.ones((1, 9, 4), dtype=np.float32), (4, 4), windows_of((4, 4), (3, 3), **FLAT))
    require(small.dtype == np.float32, f"col2im of float32 columns is {small.dtype}: zeros without a dtype are float64")
    whole = np.outer([1, 2, 3, 3, 2, 1], [1, 2, 3, 3, 2, 1])[None, None]
    around = {**FLAT, "padding": (1, 1)}
    with doing("col2im with a padding of 1", {"broadcast": "The windows go over the edges: add up in a padded array."}):
        found = col2im(np.ones((1, 9, 16)), (4, 4), windows_of((4, 4), (3, 3), **around))
    check(
        "col2im of ones with a padding of 1: what fell on padding is lost",
        found,
        whole[..., 1:5, 1:5],
        {
            "padding that is not cut off": whole,
            "the upper left part instead of the middle": whole[..., :4, :4],
            f"{ADD_UP} (or a mean of them)": np.ones((1, 1, 4, 4)),
        },
    )
    rng = np.random.default_rng(2)
    for what, size, kernel, options in (
        ("a stride of 3 that leaves gaps and a rest", (9, 7), (2, 2), GAPS),
        (AT_ONCE, (4, 5), (2, 3), ALL),
    ):
        windows = windows_of(size, kernel, **options)
        columns = rng.normal(size=(2, 3 * windows.elements, windows.positions))
        pixels = np.eye(int(np.prod(size))).reshape(-1, 1, *size)  # each by itself
        where = by_loops(pixels, np.eye(windows.elements).reshape(-1, 1, *kernel), **options).reshape(len(pixels), -1)
        right = (columns.reshape(6, -1) @ where.T).reshape(2, 3, *size)
        exchanged = columns.reshape(2, -1, 3, windows.positions).swapaxes(1, 2).reshape(6, -1) @ where.T
        with doing(f"col2im with {what}", {"": "The result has the input's size, with what no window reaches."}):
            found = col2im(columns, size, windows)
        check(
            f"col2im with {what}",
            found,
            right,
            {
                "channels counted last: row c · K + k is element k of channel c": exchanged.reshape(right.shape),
                "a rest at the end that is cut off: no window reaches it, so its gradient is 0": right[
                    (..., *(slice(r) for r in windows.reach))
                ],
            },
        )


def check_gradients(what: str, x, weight, grad, options) -> None:
    """All three, against the loops, in as many dimensions as x has."""
    axes = tuple(range(2, x.ndim))
    x, weight, bias = leaf(x), leaf(weight), leaf(np.zeros(len(weight)))
    with doing(f"the convolution: {what}"):
        out = convolve(x, weight, bias, **options)
    for name in ("conv_input", "conv_weight", "conv_bias"):
        x.grad = weight.grad = bias.grad = None
        with doing(f"the backward pass of a convolution: {what}", HINTS):
            check_formula_runs("conv", name, lambda: out.backward(single(grad), retain_graph=True))
    arrays = x.detach().numpy(), weight.detach().numpy()
    found = gradients_by_loops(*arrays, grad, **options)
    alone = [gradients_by_loops(arrays[0][[i]], arrays[1], grad[[i]], **options)["weight"] for i in (0, -1)]
    images, positions = len(grad), grad[0, 0].size
    check(
        f"the gradient by the bias, the sum of G: {what}",
        bias.grad.tolist(),
        grad.sum((0, *axes)),
        {
            "a mean over the windows: it is a sum": grad.mean(axes).sum(0),
            "a mean over the images: it is a sum": grad.sum(axes).mean(0),
            "a mean over images and windows: it is a sum": grad.mean((0, *axes)),
            "the first image only": grad[:1].sum((0, *axes)),
            "the last image only": grad[-1:].sum((0, *axes)),
            "the first window only": grad.reshape(*grad.shape[:2], -1)[..., 0].sum(0),
        },
    )
    check(
        f"the gradient by the filters, the window under each entry of G times the entry, summed: {what}",
        weight.grad.tolist(),
        found["weight"],
        {
            "the first image only": alone[0],
            "the last image only: each image adds its part": alone[1],
            "a mean over the images: it is a sum": found["weight"] / images,
            "a mean over the windows: it is a sum": found["weight"] / positions,
            "a mean over images and windows: it is a sum": found["weight"] / positions / images,
            "a gradient turned by 180°": np.flip(found["weight"], axes),
            "a gradient with rows and columns exchanged": found["weight"].swapaxes(-1, -2),
            **mixed_batches(arrays[0], grad, weight.shape, **options),
        },
    )
    check(
        f"the gradient by the images, the filter times each entry of G, added up where windows overlap: {what}",
        x.grad.tolist(),
        found["x"],
        {
            ADD_UP: found["overwritten"],
            NO_MEAN: found["mean"],
            TURNED: found["turned"],
        },
    )


def mixed_batches(x, grad, shape, stride, padding, dilation, groups=1) -> dict[str, np.ndarray]:
    """The gradient by the weight as one product of all images, with the batch reshaped into it, of one group."""
    if groups > 1 or len(x) == 1:
        return {}
    rows = int(np.prod(shape[1:]))
    columns = by_loops(x, np.eye(rows).reshape(rows, *shape[1:]), stride, padding, dilation).reshape(len(x), rows, -1)
    grad = grad.reshape(len(x), shape[0], -1)
    right, wrong = ([a.swapaxes(0, 1).reshape(a.shape[1], -1), a.reshape(a.shape[1], -1)] for a in (grad, columns))
    return {
        f"{BATCH} ({what})": (g @ c.T).reshape(shape)
        for what, g, c in (
            ("in the gradient", right[1], wrong[0]),
            ("in the columns", right[0], wrong[1]),
            ("in the gradient and in the columns", right[1], wrong[1]),
        )
    }


def check_bias() -> None:
    """`conv_bias` by itself: the engine would forgive a dimension too many."""
    grad = np.arange(24.0).reshape(2, 3, 2, 2)
    with doing("conv_bias"):
        found = conv_bias(grad)
    check(
        "conv_bias, the sum of G over images and windows",
        found,
        grad.sum((0, 2, 3)),
        {
            "a sum for each image: they add up too": grad.sum((2, 3)),
            "the sum over everything": grad.sum(),
            "sums that keep their dimensions": grad.sum((0, 2, 3), keepdims=True),
            "a sum over the filters": grad.sum((1, 2, 3)),
            "a mean over the windows: it is a sum": grad.mean((2, 3)).sum(0),
            "a mean over images and windows: it is a sum": grad.mean((0, 2, 3)),
        },
    )
    for shape in ((2, 3, 4), (2, 3, 2, 2, 2)):
        grad = np.arange(float(np.prod(shape))).reshape(shape)
        with doing(f"conv_bias of a gradient {shape}", HINTS):
            found = conv_bias(grad)
        check(
            f"conv_bias, the sum of a gradient {shape} over images and windows",
            found,
            grad.sum((0, *range(2, grad.ndim))),
        )


def test_the_three_gradients_of_a_convolution_match_the_hand_computation():
    check_scattering()
    check_bias()
    little, bar, grad = X[None, None], K[None, None], np.array([[[[1, 0], [2, -1.0]]]])
    found = gradients_by_loops(little, bar, grad, **FLAT)  # the oracle itself, against what was computed by hand
    assert found["x"].tolist() == [[[[-1, 2, -1, 0], [-3, 7, -5, 1], [-3, 7, -5, 1], [-2, 5, -4, 1]]]]
    assert found["weight"].tolist() == [[[[-1, 1, 3], [0, 0, 3], [-1, 1, 2]]]]
    check_gradients("the little one, the bar filter, G = (1 0 / 2 −1)", little, bar, grad, FLAT)
    grad = np.array([[[[1, -2], [0.5, 3], [-1, 4.0]]]])
    check_gradients("the little one and the filter (1 2 3 / 4 5 6)", little, E[None, None], grad, FLAT)
    rng = np.random.default_rng(3)
    for what, image, filters, options in (
        ("three images of two channels, four filters", (3, 2, 4, 4), (4, 2, 3, 3), FLAT),
        (f"four channels, six filters, two groups, {AT_ONCE}", (2, 4, 5, 6), (6, 2, 2, 3), {**ALL, "groups": 2}),
        ("a stride of 3 that leaves gaps and a rest", (2, 1, 9, 7), (2, 1, 2, 2), GAPS),
        ("one dimension", (2, 2, 7), (3, 2, 3), {"stride": (2,), "padding": (1,), "dilation": (1,)}),
        ("three dimensions", (1, 2, 3, 2, 4), (2, 2, 2, 1, 3), {name: v[:1] * 3 for name, v in FLAT.items()}),
    ):
        shape = counts(image[2:], filters[2:], *(options[name] for name in FLAT))
        grad = rng.normal(size=(image[0], filters[0], *shape))
        check_gradients(what, rng.normal(size=image), rng.normal(size=filters), grad, options)
    check_dtypes()


def check_dtypes() -> None:
    """All four keep float32: the engine would cast a gradient that is float64 without a word."""
    windows = windows_of((4, 4), (3, 3), **FLAT)
    x, weight, grad = (np.ones(shape, np.float32) for shape in ((1, 1, 4, 4), (2, 1, 3, 3), (1, 2, 2, 2)))
    for name, found in (
        ("conv_input", conv_input(grad, weight, (4, 4), windows, 1)),
        ("conv_weight", conv_weight(grad, x, windows, 1)),
        ("conv_bias", conv_bias(grad)),
    ):
        require(
            found.dtype == np.float32,
            f"{name} of float32 arrays is {found.dtype}: an array made without a dtype is float64, and so is "
            "everything that is added to it",
        )
