"""Sprint 04's milestones on batch normalisation. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import shared
from course.oracles import check, check_formula_runs, differences, doing, require
from shared import nn
from shared.arrays.kernels.norm.reference import channel_moments, normalize_channels, unbiased
from shared.nn import functional as F

SEEN = np.array([-1, 5, 1, 3.0])  # what the bar filter sees in the little one: mean 2, variance 5
TWO = np.array([[[-1, 5], [0, 1]], [[1, 3], [2, 3.0]]])  # two images, two channels, two places: any axis fits
SUMS = {
    "broadcast": "Mean and variance are one number per channel, (C,); per_channel() lets them stand beside (N, C, L).",
    "does not fit": "The gradients are (N, C, L) by x, and (C,) by weight and bias.",
    "expected 3": "Three gradients are returned: by x, by weight and by bias.",
    "NoneType": "weight and bias may be None, which stands for 1 and 0; per_channel(None) is None.",
}
TENSORS = {
    "": "x may be a Tensor, where a gradient is to be differentiated itself: use operators, and methods that arrays "
    "and Tensors share (x.mean(axis=…), x.sum(axis=…)), and no functions of NumPy.",
}


def single(values: object) -> shared.Tensor:
    """A float32 tensor of these numbers."""
    return shared.tensor(np.array(values, dtype=np.float32))


def leaf(values: object) -> shared.Tensor:
    """The same, collecting a gradient."""
    return single(values).requires_grad_()


# ------------------------------------------------------------------------ forward


def check_moments() -> None:
    """Mean and variance of two channels."""
    with doing("channel_moments of two images with two channels"):
        mean, variance = channel_moments(TWO)
    check(
        "the mean of each channel over images and places",
        mean,
        [2, 1.5],
        {
            "the mean of each image, axes (1, 2): a channel's is over images and places, axes (0, 2)": TWO.mean((1, 2)),
            "the mean at each place, axes (0, 1)": TWO.mean((0, 1)),
            "one mean for all channels": TWO.mean(),
            "a mean over the images only: places belong to it too": TWO.mean(0),
            "a mean over the places only: images belong to it too": TWO.mean(2),
            "a sum": TWO.sum((0, 2)),
            "a dimension that is kept": [[[2], [1.5]]],
        },
    )
    check(
        "the biased variance of each channel",
        variance,
        [5, 1.25],
        {
            "the unbiased variance, over n − 1: inside the network it is over n": [5 * 4 / 3, 1.25 * 4 / 3],
            "the standard deviation": np.sqrt([5, 1.25]),
            "the mean square: the mean has to be subtracted first": (TWO**2).mean((0, 2)),
            "the sum of the squared deviations": [20, 5],
            "the mean distance from the mean: deviations are squared": [2, 1],
            "the variance of each image": TWO.var((1, 2)),
            "the variance at each place": TWO.var((0, 1)),
            "a dimension that is kept": [[[5], [1.25]]],
        },
    )
    shifted = channel_moments(np.float32(TWO + 4096))
    check(
        "the variance where the mean is 4,000 times as large, in float32",
        shifted[1],
        [5, 1.25],
        {
            "mean of squares minus square of the mean, in which all digits cancel: subtract the mean first": (
                np.square(np.float32(TWO + 4096)).mean((0, 2)) - np.float32(TWO + 4096).mean((0, 2)) ** 2
            )
        },
        tolerance=1e-3,
    )
    require(shifted[0].dtype == np.float32, f"the moments of float32 are {shifted[0].dtype}")
    check("the unbiased variance for a biased one of 6, over 4 values", unbiased(np.array([6.0]), 4), [8], UNBIASED)


def check_tensors() -> None:
    """The same two functions on Tensors, as a gradient of a gradient needs them."""
    x = leaf(TWO)
    with doing("channel_moments of a Tensor", TENSORS):
        mean, variance = channel_moments(x)
        moments = mean.tolist(), variance.tolist()
    check("the mean of each channel of a Tensor", moments[0], [2, 1.5])
    check(
        "the biased variance of each channel of a Tensor",
        moments[1],
        [5, 1.25],
        {
            "`.var` of a Tensor, which is the unbiased one, over n − 1, where an array's is over n: take the mean of "
            "the squared deviations": [5 * 4 / 3, 1.25 * 4 / 3]
        },
    )
    with doing("normalize_channels of a Tensor", TENSORS):
        out = normalize_channels(x, mean, variance, single([3, -2]), single([10, 20]), 1e-5)
        values = out.tolist()
    normal = (TWO - np.array([[2], [1.5]])) / np.sqrt(np.array([[5], [1.25]]))
    check("normalize_channels of a Tensor", values, normal * [[3], [-2]] + [[10], [20]], tolerance=1e-3)
    for name, value in (("mean", mean), ("variance", variance), ("result", out)):
        require(
            value.requires_grad,
            f"x is a Tensor that collects a gradient, and its {name} has lost the graph: no array may be made of it",
        )


def refused(what: str, call: Callable[[], object], why: str) -> None:
    """Fail with `why` unless `call` raises a ValueError."""
    try:
        with doing(what):
            call()
        found = False
    except AssertionError as error:
        found = " ends in ValueError: " in str(error)
        if not found:
            raise
    require(found, f"{what} should be refused with a ValueError: {why}")


UNBIASED = {
    "the factor upside down: n − 1 is less than n, so the estimate grows": [4.5],
    "no change": [6],
    "a factor n + 1": [6 * 4 / 5],
    "a division by n − 1, where only the divisor changes: times n, over n − 1": [2],
}


def check_values() -> None:
    """What comes out, with a large ε and with weight and bias."""
    x, deviation = single(SEEN.reshape(1, 1, 2, 2)), (SEEN - 2).reshape(1, 1, 2, 2)
    with doing("batch norm of −1, 5, 1, 3", SUMS):
        out = check_formula_runs("norm", "channel_moments", lambda: F.batch_norm(x, None, None, training=True))
    mistakes = {
        "the unbiased variance": deviation / np.sqrt(20 / 3),
        "a division by the variance: it is by its root": deviation / 5,
        "a mean that is not subtracted": SEEN.reshape(1, 1, 2, 2) / np.sqrt(5),
        "a product with the root: it is divided by it": deviation * np.sqrt(5),
        "no division": deviation,
        "no change at all": SEEN.reshape(1, 1, 2, 2),
    }
    check("batch norm of −1, 5, 1, 3", out.tolist(), deviation / np.sqrt(5), mistakes)
    with doing("batch norm with eps = 4"):
        out = F.batch_norm(x, None, None, training=True, eps=4.0)
    check(
        "batch norm of −1, 5, 1, 3 with eps = 4, that is (x − 2) / √(5 + 4)",
        out.tolist(),
        deviation / 3,
        {
            "ε outside the root, √σ² + ε: it belongs to the variance": deviation / (np.sqrt(5) + 4),
            "no ε": deviation / np.sqrt(5),
            "ε squared": deviation / np.sqrt(5 + 16),
            "ε subtracted": deviation,
            "ε inside the root and outside": deviation / 7,
            "the unbiased variance": deviation / np.sqrt(20 / 3 + 4),
        },
    )
    weight, bias = np.array([3, -2.0]), np.array([10, 20.0])
    normal = (TWO - np.array([[2], [1.5]])) / np.sqrt(np.array([[5], [1.25]]) + 1e-5)
    with doing("batch norm with weight and bias", SUMS):
        out = F.batch_norm(*(single(a) for a in (TWO, np.zeros(2), np.ones(2), weight, bias)), training=True)
    w, b = weight[:, None], bias[:, None]
    check(
        "batch norm of two channels with weight (3, −2) and bias (10, 20)",
        out.tolist(),
        w * normal + b,
        {
            "no bias": w * normal,
            "no weight": normal + b,
            "neither weight nor bias": normal,
            "a mean for each place instead of each channel: per_channel() turns (C,) into (C, 1)": w
            * (TWO - [2, 1.5])
            / np.sqrt(np.array([[5], [1.25]]) + 1e-5)
            + b,
            "the bias added before the weight multiplies: w · x̂ + b, not w · (x̂ + b)": w * (normal + b),
            "a weight for each place instead of each channel": weight * normal + bias,
            "a weight for each image instead of each channel": weight[:, None, None] * normal + bias[:, None, None],
        },
        tolerance=1e-3,
    )
    out = F.batch_norm(single(TWO), None, None, training=True)
    require(out.dtype == shared.float32, f"batch norm of float32 is {out.dtype}: what widens it?")


def layer_of(momentum: float | None = 0.1, **options) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(1, momentum=momentum, **options)


def check_memory() -> nn.BatchNorm1d:
    """What two batches leave behind in the running statistics."""
    layer, x = layer_of(), single(SEEN[:, None])
    mean, variance = layer.running_mean, layer.running_var
    with doing("a batch norm layer in training"):
        layer(x)
    check(
        "running_mean after one batch of mean 2, with momentum 0.1",
        mean.tolist(),
        [0.2],
        {
            "momentum the wrong way round: here it is the share of the new, not of the old": [1.8],
            "nothing changed in place: `running = …` makes a new array": [0],
            "the last batch alone": [2],
            "a bias correction as Adam's": [2 / 0.9],
        },
        tolerance=1e-5,
    )
    check(
        "running_var after one batch: 0.9 · 1 + 0.1 · 20/3",
        variance.tolist(),
        [0.9 + 2 / 3],
        {
            "the biased variance: what is remembered is the estimate for all data, over n − 1": [0.9 + 0.5],
            "momentum the wrong way round": [0.1 + 0.9 * 20 / 3],
            "the factor (n − 1) / n instead of n / (n − 1)": [0.9 + 0.1 * 5 * 3 / 4],
            "a variance that is added whole": [1 + 2 / 3],
            "the standard deviation": [0.9 + 0.1 * np.sqrt(20 / 3)],
            "nothing changed in place": [1],
        },
        tolerance=1e-5,
    )
    layer(x * 2)  # mean 4, unbiased variance 80/3
    check(
        "running_mean after a second batch of mean 4",
        mean.tolist(),
        [0.9 * 0.2 + 0.4],
        {"old ones that never fade: running ← running + momentum · batch": [0.6], "the last batch": [0.4]},
        tolerance=1e-5,
    )
    check("running_var after the second batch", variance.tolist(), [0.9 * (0.9 + 2 / 3) + 8 / 3], tolerance=1e-5)
    count = layer.num_batches_tracked.item()
    require(count == 2, f"num_batches_tracked is {count} after two batches in training")
    require(
        not (layer.running_mean.requires_grad or layer.running_var.requires_grad),
        "the running statistics have become part of the graph: they are buffers, and move under no_grad()",
    )
    return layer


def check_evaluation(layer: nn.BatchNorm1d) -> None:
    """That evaluation uses the memory and leaves it alone."""
    before = [layer.running_mean.item(), layer.running_var.item(), layer.num_batches_tracked.item()]
    layer.eval()
    with doing("a batch norm layer in evaluation"):
        out = layer(single(SEEN[:, None]))
    after = [layer.running_mean.item(), layer.running_var.item(), layer.num_batches_tracked.item()]
    require(
        before == after,
        f"evaluation changed the running statistics, mean, variance and count, from {np.round(before, 4).tolist()} to "
        f"{np.round(after, 4).tolist()}: the test data leak into the model, batch by batch",
    )
    mean, variance = before[:2]
    deviation = (SEEN - 2)[:, None]
    check(
        f"−1, 5, 1, 3 in evaluation, with running mean {mean:.4f} and variance {variance:.4f}",
        out.tolist(),
        (SEEN[:, None] - mean) / np.sqrt(variance + 1e-5),
        {
            "the batch's own moments: in evaluation each example counts by itself": deviation / np.sqrt(5 + 1e-5),
            "the running mean with the batch's variance": (SEEN[:, None] - mean) / np.sqrt(5 + 1e-5),
            "the batch's mean with the running variance": deviation / np.sqrt(variance + 1e-5),
            "a division by the variance": (SEEN[:, None] - mean) / (variance + 1e-5),
        },
        tolerance=1e-5,
    )
    with doing("a batch of one in evaluation"):
        alone = layer(single(SEEN[:1, None]))
    check("the first of them alone in evaluation", alone.tolist(), out[:1].tolist(), tolerance=1e-6)
    layer.train()
    refused(
        "a batch of one value per channel, in training,",
        lambda: layer(single([[1.0]])),
        "F.batch_norm does it, where it is told to take the batch's moments",
    )
    refused(
        "an input of four dimensions for BatchNorm1d",
        lambda: layer(shared.zeros(2, 1, 2, 2)),
        "forward begins with self._check_input_dim(input)",
    )


def check_options() -> None:
    """momentum=None, and no statistics at all."""
    layer = layer_of(momentum=None)
    for factor in (1.0, 2.0, 4.5):
        with doing("a batch norm layer with momentum=None"):
            layer(single(SEEN[:, None] * factor))
    check(
        "running_mean with momentum=None after batches of mean 2, 4 and 9",
        layer.running_mean.tolist(),
        [5],
        {
            "a momentum of 0, or one that is a Tensor, by which `running *= …` makes a new Tensor: None stands for "
            "1 / num_batches_tracked.item(), a number": [0],
            "a momentum of 0.1": [0.9 * 0.9 * 0.2 + 0.9 * 0.4 + 0.9],
            "the last batch alone": [9],
            "a count that begins too late, 1 / (num_batches_tracked + 1)": [15 / 4],
        },
        tolerance=1e-5,
    )
    layer = layer_of(momentum=0.0)
    layer(single(SEEN[:, None]))
    state = layer.running_mean.item(), layer.running_var.item()
    require(
        state == (0, 1),
        f"momentum=0 moved the running mean and variance to {state}, and nothing new should come in. 0 taken for None, "
        "as `momentum or …` does? Ask `is None`",
    )
    layer = layer_of(track_running_stats=False).eval()
    with doing("a layer with track_running_stats=False in evaluation", {"running_mean": "It has none: use the batch."}):
        out = layer(single(SEEN[:, None]))
    check("without statistics, in evaluation", out.tolist(), (SEEN - 2)[:, None] / np.sqrt(5 + 1e-5))
    layer = layer_of()
    layer.track_running_stats = False  # after construction: the buffers are there, and stay as they are
    with doing("a layer whose track_running_stats was set to False after construction"):
        layer(single(SEEN[:, None]))
    state = layer.running_mean.item(), layer.num_batches_tracked.item()
    require(state == (0, 0), f"track_running_stats was set to False, and yet training moved mean and count to {state}")


def test_batch_norm_uses_the_batch_in_training_and_its_memory_in_evaluation():
    check_moments()
    check_values()
    check_tensors()
    check_evaluation(check_memory())
    check_options()
    rng = np.random.default_rng(0)
    x = single(rng.normal(3, 5, size=(8, 3, 4, 5)))
    before = x.tolist()
    with doing("a BatchNorm2d layer on (8, 3, 4, 5)"):
        out = nn.BatchNorm2d(3)(x).detach().numpy()
    require(x.tolist() == before, "batch norm changed its input, which it only reads")
    check("the mean of each channel of the result", out.mean((0, 2, 3)), [0, 0, 0])
    check("the variance of each channel of the result", out.var((0, 2, 3)), [1, 1, 1], tolerance=1e-3)


# ------------------------------------------------------------------------ backward


def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Batch norm of (N, C, L) in NumPy."""
    mean, variance = x.mean((0, 2), keepdims=True), x.var((0, 2), keepdims=True)
    return weight[:, None] * (x - mean) / np.sqrt(variance + eps) + bias[:, None]


def formula(x, grad, weight, eps, by_mean=1.0, by_variance=1.0, n=None, weighted=True) -> np.ndarray:
    """The gradient by x; the factors of the two sums, n and the weight may be wrong."""
    mean, variance = x.mean((0, 2), keepdims=True), x.var((0, 2), keepdims=True)
    scale = 1 / np.sqrt(variance + eps)
    normal, g = (x - mean) * scale, grad * (weight[:, None] if weighted else 1)
    n = n or x.shape[0] * x.shape[2]
    sums = by_mean * g.sum((0, 2), keepdims=True) + by_variance * normal * (g * normal).sum((0, 2), keepdims=True)
    return scale * (g - sums / n)


CONSTANTS = "mean and variance taken for constants, as in evaluation: in training every x moves both"
MEAN, VARIANCE = "the way through the mean left out", "the way through the variance left out"


def check_by_hand() -> None:
    """One gradient of 12 at the first of the four numbers; with eps = 4 all results are thirds."""
    x = leaf(SEEN[:, None])
    out = F.batch_norm(x, None, None, training=True, eps=4.0)
    grad = np.array([12, 0, 0, 0.0])[:, None]
    with doing("the backward pass of batch norm", SUMS):
        check_formula_runs("norm", "batch_norm_input", lambda: out.backward(single(grad)))
    check(
        "the gradient of batch norm for −1, 5, 1, 3 with eps = 4 and G = (12, 0, 0, 0)",
        x.grad.tolist(),
        np.array([2, 0, -4 / 3, -2 / 3])[:, None],
        {
            CONSTANTS: grad / 3,
            MEAN: np.array([3, 1, -1 / 3, 1 / 3])[:, None],
            VARIANCE: np.array([3, -1, -1, -1])[:, None],
            "no division by √(σ² + ε)": np.array([6, 0, -4, -2])[:, None],
            "a division by σ² + ε instead of its root": np.array([2, 0, -4 / 3, -2 / 3])[:, None] / 3,
            "a product with √(σ² + ε)": np.array([2, 0, -4 / 3, -2 / 3])[:, None] * 9,
            "the sums instead of the means: both are over n": np.array([12 - 12 - 12, 0, -12 - 4, -12 + 4])[:, None]
            / 3,
        },
    )
    check("its sum: adding the same to all x changes nothing", x.grad.sum().item(), 0, tolerance=1e-5)


def example() -> tuple:
    """Three images, two channels, four places: x, G, weight, bias and ε."""
    rng = np.random.default_rng(1)
    values, grad = rng.normal(1, 2, size=(3, 2, 4)), rng.normal(size=(3, 2, 4))
    return values, grad, np.array([1.5, -0.5]), np.array([0.3, 2.0]), 0.5


def check_sums() -> None:
    """The gradients by weight and bias, which are sums over a channel."""
    values, grad, weight, bias, eps = example()
    x, w, b = leaf(values), leaf(weight), leaf(bias)
    out = F.batch_norm(x, None, None, w, b, training=True, eps=eps)
    with doing("the backward pass of batch norm with weight and bias", SUMS):
        out.backward(single(grad))
    normal = forward(values, np.ones(2), np.zeros(2), eps)
    check(
        "the gradient by the weight, Σ G · x̂",
        w.grad.tolist(),
        (grad * normal).sum((0, 2)),
        {
            "x instead of x̂": (grad * values).sum((0, 2)),
            "the result instead of x̂": (grad * forward(values, weight, bias, eps)).sum((0, 2)),
            "the deviations, not divided": (grad * (values - values.mean((0, 2), keepdims=True))).sum((0, 2)),
            "a mean instead of a sum": (grad * normal).mean((0, 2)),
            "a factor of the weight": weight * (grad * normal).sum((0, 2)),
            "the gradient of the bias": grad.sum((0, 2)),
        },
    )
    check(
        "the gradient by the bias, Σ G",
        b.grad.tolist(),
        grad.sum((0, 2)),
        {"a mean instead of a sum": grad.mean((0, 2)), "a factor of the weight": weight * grad.sum((0, 2))},
    )


def check_channels() -> None:
    """The gradient by x with weight and bias, against finite differences, and its own gradient."""
    values, grad, weight, bias, eps = example()
    x, w, b = leaf(values), leaf(weight), leaf(bias)
    F.batch_norm(x, None, None, w, b, training=True, eps=eps).backward(single(grad))
    right = differences(lambda a: (grad * forward(a, weight, bias, eps)).sum(), values)
    arguments = values, grad, weight, eps
    unweighted = "no weight: the gradient by x̂ is weight · G"
    wrong = {
        CONSTANTS: {"by_mean": 0, "by_variance": 0},
        MEAN: {"by_mean": 0},
        VARIANCE: {"by_variance": 0},
        "a mean over the images only: n is N · L": {"n": 3},
        "a mean over the places only: n is N · L": {"n": 4},
        "n − 1 in place of n: inside, the variance is the biased one": {"n": 11},
        "the sums instead of the means": {"n": 1},
        "the sign of the way through the variance turned": {"by_variance": -1},
        "the sign of the way through the mean turned": {"by_mean": -1},
        "the way through the variance counted twice": {"by_variance": 2},
    }
    check(
        "the gradient by x of two channels with weights, against finite differences, which stand in the place of the "
        "numbers by hand",
        x.grad.tolist(),
        right,
        {
            unweighted: formula(*arguments, weighted=False),
            "the weight squared": formula(values, grad, weight**2, eps),
            **{name: formula(*arguments, **options) for name, options in wrong.items()},
            **{
                f"two things, {name}; and {unweighted}": formula(*arguments, **options, weighted=False)
                for name, options in wrong.items()
            },
            "the weight on G and not on the sums": formula(*arguments, by_mean=0, by_variance=0)
            - formula(*arguments, by_mean=0, by_variance=0, weighted=False)
            + formula(*arguments, weighted=False),
        },
    )
    # The gradient of a gradient: of Σ (∂L/∂x)².
    x, w = leaf(values), leaf(weight)
    out = F.batch_norm(x, None, None, w, None, training=True, eps=eps)
    with doing(
        "a gradient of the gradient", {"": "grad may be a Tensor: use operators and methods that arrays share."}
    ):
        (to_x,) = shared.autograd.grad(out, [x], single(grad), create_graph=True)
        (second,) = shared.autograd.grad((to_x**2).sum(), [x])
    right = differences(lambda a: (formula(a, grad, weight, eps) ** 2).sum(), values)
    check(
        "the gradient by x of Σ (∂L/∂x)², against finite differences, which stand in the place of the numbers by hand",
        second.tolist(),
        right,
    )


def check_constants() -> None:
    """In evaluation, where the moments are constants."""
    rng = np.random.default_rng(2)
    values, grad, weight = rng.normal(1, 2, size=(3, 2, 4)), rng.normal(size=(3, 2, 4)), np.array([1.5, -0.5])
    mean, variance = np.array([0.5, -1.0]), np.array([4.0, 0.25])
    x, w, b = leaf(values), leaf(weight), leaf([0, 0])
    out = F.batch_norm(x, single(mean), single(variance), w, b, training=False, eps=0.5)
    with doing("the backward pass of batch norm in evaluation", SUMS):
        out.backward(single(grad))
    scale = 1 / np.sqrt(variance + 0.5)[:, None]
    normal, direct = (values - mean[:, None]) * scale, grad * weight[:, None] * scale
    sums = direct.mean((0, 2), keepdims=True) + normal * (direct * normal).mean((0, 2), keepdims=True)
    check(
        "the gradient by x in evaluation, weight · G / √(σ² + ε)",
        x.grad.tolist(),
        direct,
        {
            "the gradient of training: here mean and variance are constants, which no x moves": direct - sums,
            "no weight": grad * scale,
            "no division by √(σ² + ε)": grad * weight[:, None],
        },
    )
    check("the gradient by the weight in evaluation, Σ G · x̂", w.grad.tolist(), (grad * normal).sum((0, 2)))
    check("the gradient by the bias in evaluation, Σ G", b.grad.tolist(), grad.sum((0, 2)))


def test_the_gradient_of_batch_norm_passes_through_mean_and_variance():
    check_sums()
    check_by_hand()
    check_channels()
    check_constants()
