"""Sprint 07's milestones on layer norm and RMS norm. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

import shared
from course import oracles
from course.oracles import check_formula_runs, differences, doing, require
from shared import nn
from shared.arrays.kernels.norm.reference import layer_norm, layer_norm_input, rms_norm, rms_norm_input, row_moments
from shared.autograd import gradgradcheck
from shared.nn import functional as F

check = partial(oracles.check, source="expected")  # and "by hand" where it was
DOG = np.array([-1, 5, 1, 3.0])  # the dog and what the attention gave it: mean 2, variance 5, mean square 9
ROWS = np.array([[-1, 5, 1, 3], [4, 0, 0, 0], [2, 2, 2, 6], [0, 1, 0, 1.0]])  # four by four: either axis fits
SHAPES = {
    "broadcast": "The moments of a row are (R, 1), so that they stand beside (R, D); weight and bias are (D,).",
    "not enough values": "layer_norm returns three arrays, the result, mean and inv_std; rms_norm two.",
    "NoneType": "weight and bias may be None, which stands for 1 and 0.",
    "axis": "x is (R, D): rows are along axis 1.",
}
TENSORS = {
    "": "The arguments may be Tensors, where a gradient is to be differentiated itself: use operators, and methods "
    "that arrays and Tensors share (x.mean(axis=1, keepdims=True)), and no functions of NumPy.",
}
IN_ANY_CASE = (
    "None stands for a weight of 1; the gradients by weight and bias are returned in any case, and whoever has no use "
    "for them leaves them"
)


def single(values: object) -> shared.Tensor:
    """A float32 tensor of these numbers."""
    return shared.tensor(np.array(values, dtype=np.float32))


def double(values: object) -> shared.Tensor:
    """A float64 tensor of these numbers that collects a gradient."""
    return shared.tensor(np.array(values, dtype=np.float64)).requires_grad_()


def reading(what: str, function: Callable, *given: object, hints: dict[str, str] = SHAPES) -> tuple:
    """What `function` returns for copies of the arrays `given`; fails with `what` if it changes one of them."""
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in given]
    with doing(what, hints):
        found = function(*copies)
    names = function.__code__.co_varnames
    for name, copy, array in zip(names, copies, given, strict=False):
        require(
            not isinstance(array, np.ndarray) or np.array_equal(copy, array),
            f"{what}: {function.__name__} changed its input, `{name}`, which it only reads: `a -= b` and `a *= b` "
            "write into the array that was given, `a = a - b` makes a new one",
        )
    return found


# ------------------------------------------------------------------------ layer norm


def check_moments() -> None:
    mean, variance = reading("row_moments of four rows", row_moments, ROWS)
    check(
        "the mean of each row",
        mean,
        [[2], [1], [3], [0.5]],
        {
            "the mean of each column, as batch norm takes it: here each row, a token, has its own": ROWS.mean(
                0, keepdims=True
            ),
            "the mean of each column, as batch norm takes it; each row, a token, has its own": ROWS.mean(0),
            "one mean for all rows": ROWS.mean(),
            "one mean for all rows, in each": np.full((4, 1), ROWS.mean()),
            "a dimension that is lost: (R,) does not stand beside (R, D)": ROWS.mean(1),
            "a sum": ROWS.sum(1, keepdims=True),
        },
        source="by hand",
    )
    check(
        "the biased variance of each row",
        variance,
        [[5], [3], [3], [0.25]],
        {
            "the unbiased variance, over D − 1: inside the network it is over D": ROWS.var(1, ddof=1, keepdims=True),
            "the standard deviation": ROWS.std(1, keepdims=True),
            "the mean square: the mean has to be subtracted first": (ROWS**2).mean(1, keepdims=True),
            "the sum of the squared deviations": 4 * ROWS.var(1, keepdims=True),
            "the mean distance from the mean: deviations are squared": abs(ROWS - ROWS.mean(1, keepdims=True)).mean(
                1, keepdims=True
            ),
            "the variance of each column": ROWS.var(0, keepdims=True),
            "squared distances from the mean of all rows": ((ROWS - ROWS.mean()) ** 2).mean(1, keepdims=True),
            "a dimension that is lost": ROWS.var(1),
        },
        source="by hand",
    )
    far = np.float32(ROWS + 4096)
    mean, variance = reading("row_moments in float32", row_moments, far)
    check(
        "the variance where the mean is some 4,000 times as large, in float32",
        variance,
        [[5], [3], [3], [0.25]],
        {
            "mean of squares minus square of the mean, in which all digits cancel: subtract the mean first": (
                np.square(far).mean(1, keepdims=True) - far.mean(1, keepdims=True) ** 2
            )
        },
        tolerance=1e-3,
    )
    require(mean.dtype == variance.dtype == np.float32, f"the moments of float32 are {mean.dtype}: what widens them?")
    x = single(ROWS).requires_grad_()
    with doing("row_moments of a Tensor", TENSORS):
        mean, variance = row_moments(x)
        moments = mean.tolist(), variance.tolist()
    check("the mean of each row of a Tensor", moments[0], [[2], [1], [3], [0.5]])
    check(
        "the biased variance of each row of a Tensor",
        moments[1],
        [[5], [3], [3], [0.25]],
        {
            "`.var` of a Tensor, which is the unbiased one, over D − 1, where an array's is over D": ROWS.var(
                1, ddof=1, keepdims=True
            )
        },
    )
    require(
        mean.requires_grad and variance.requires_grad,
        "x is a Tensor that collects a gradient, and its moments have lost the graph: no array may be made of them",
    )


def check_values() -> None:
    deviation = ROWS - ROWS.mean(1, keepdims=True)
    variance = ROWS.var(1, keepdims=True)
    out, mean, inv_std = reading("layer norm of four rows with eps = 4", layer_norm, ROWS, None, None, 4.0)
    columns = (ROWS - ROWS.mean(0)) / np.sqrt(ROWS.var(0) + 4)
    check(
        "layer norm of four rows with eps = 4: (−1, 5, 1, 3) minus 2, over √(5 + 4)",
        out,
        deviation / np.sqrt(variance + 4),
        {
            "ε outside the root, √σ² + ε: it belongs to the variance": deviation / (np.sqrt(variance) + 4),
            "no ε": deviation / np.sqrt(variance),
            "ε squared": deviation / np.sqrt(variance + 16),
            "the unbiased variance": deviation / np.sqrt(ROWS.var(1, ddof=1, keepdims=True) + 4),
            "a division by the variance: it is by its root": deviation / (variance + 4),
            "a product with the root: it is divided by it": deviation * np.sqrt(variance + 4),
            "a mean that is not subtracted": ROWS / np.sqrt(variance + 4),
            "the root of the mean square, as RMS norm has it, after the mean is gone": deviation
            / np.sqrt((ROWS**2).mean(1, keepdims=True) + 4),
            "no division": deviation,
            "columns normalised instead of rows: that is batch norm, and mixes the tokens": columns,
            "all rows normalised together": (ROWS - ROWS.mean()) / np.sqrt(ROWS.var() + 4),
            "no change at all": ROWS,
        },
    )
    check("the means that layer_norm returns", mean, [[2], [1], [3], [0.5]], {"a lost dimension": ROWS.mean(1)})
    check(
        "the inv_std that layer_norm returns, 1 / √(variance + eps)",
        inv_std,
        1 / np.sqrt(variance + 4),
        {
            "the variance: backward wants what deviations are multiplied with": variance,
            "the standard deviation, not its inverse": np.sqrt(variance + 4),
            "no ε in it": 1 / np.sqrt(variance),
            "a lost dimension": 1 / np.sqrt(ROWS.var(1) + 4),
        },
    )
    weight, bias = np.array([3, -2, 1, 0.5]), np.array([10, 20, 30, 40.0])
    normal = deviation / np.sqrt(variance + 1e-5)
    with doing("layer norm with weight and bias", SHAPES):
        x, w, b = (single(a) for a in (ROWS, weight, bias))
        out = check_formula_runs("norm", "layer_norm", lambda: F.layer_norm(x, (4,), w, b))
    check(
        "layer norm with weight (3, −2, 1, ½) and bias (10, 20, 30, 40), which every row has in common",
        out.tolist(),
        normal * weight + bias,
        {
            "no bias": normal * weight,
            "no weight": normal + bias,
            "neither weight nor bias": normal,
            "weight and bias exchanged": normal * bias + weight,
            "the bias added before the weight multiplies: w · x̂ + b, not w · (x̂ + b)": weight * (normal + bias),
            "a weight for each row: (D,) belongs to the columns, and every token has the same": normal * weight[:, None]
            + bias[:, None],
            "weight and bias applied before the normalisation, which takes them away again": (
                lambda y: (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
            )(ROWS * weight + bias),
        },
        tolerance=1e-3,
    )
    require(out.dtype == shared.float32, f"layer norm of float32 is {out.dtype}: what widens it?")


def test_layer_norm_gives_every_row_mean_0_and_variance_1():
    check_moments()
    check_values()
    rng = np.random.default_rng(0)
    x = single(rng.normal(3, 5, size=(2, 5, 6)))
    before = x.tolist()
    with doing("a LayerNorm layer on (2, 5, 6)", SHAPES):
        out = nn.LayerNorm(6)(x).detach().numpy()
    require(x.tolist() == before, "layer norm changed its input, which it only reads")
    check("the mean of each token of the result", out.mean(2), np.zeros((2, 5)))
    check("the variance of each token of the result", out.var(2), np.ones((2, 5)), tolerance=1e-3)
    with doing("one token alone"):
        alone = nn.LayerNorm(6)(x[:1, 2:3]).detach().numpy()
    check("a token alone, and among others", alone[0, 0], out[0, 2], {"other rows in its moments": alone * 0})


# ------------------------------------------------------------------------ its gradient


def formula(
    x, grad, weight, eps, by_mean=1.0, by_std=1.0, n=None, weighted="before", axis=1, scaled=True
) -> np.ndarray:
    """The gradient of layer norm by x; the factors of the two means, their number and the weight may be wrong."""
    scale = 1 / np.sqrt(x.var(1, keepdims=True) + eps)
    normal, n = (x - x.mean(1, keepdims=True)) * scale, n or x.shape[1]
    g = grad * (weight if weighted == "before" else 1)
    along = by_mean * g.sum(1, keepdims=True) + by_std * normal * (g * normal).sum(1, keepdims=True)
    found = (g - along / n) * (scale if scaled else 1)
    return found * weight if weighted == "after" else found


def mistakes(x, grad, weight, eps) -> dict[str, np.ndarray]:
    """What the gradient by x would be by one wrong turn."""
    return {
        "mean and variance taken for constants: every element of x moves both": formula(x, grad, weight, eps, 0, 0),
        "the way through the mean left out": formula(x, grad, weight, eps, 0, 1),
        "the way through the variance left out": formula(x, grad, weight, eps, 1, 0),
        "the two ways back added instead of subtracted": formula(x, grad, weight, eps, -1, -1),
        "sums along the row instead of means": formula(x, grad, weight, eps, n=1),
        "a mean over D − 1": formula(x, grad, weight, eps, n=x.shape[1] - 1),
        "no factor inv_std": formula(x, grad, weight, eps, scaled=False),
        "a factor inv_std too many": formula(x, grad, weight, eps) / np.sqrt(x.var(1, keepdims=True) + eps),
        "a division by inv_std, which is the inverse already: it is a factor": formula(x, grad, weight, eps)
        * (x.var(1, keepdims=True) + eps),
        "means along the columns: each row has its own moments": across(x, grad, weight, eps),
        "no weight: the gradient by x̂ is weight · G": formula(x, grad, np.ones_like(weight), eps),
        "the weight at the end: it has to multiply G before the means are taken": formula(
            x, grad, weight, eps, weighted="after"
        ),
    }


def across(x, grad, weight, eps) -> np.ndarray:
    """The two means over the rows instead of along each."""
    scale, g = 1 / np.sqrt(x.var(1, keepdims=True) + eps), grad * weight
    normal = (x - x.mean(1, keepdims=True)) * scale
    return scale * (g - g.mean(0) - normal * (g * normal).mean(0))


def check_one_row() -> None:
    """One gradient of 12 at the first of the dog's four numbers; with eps = 4 all results are thirds."""
    x, grad = single(DOG[None]).requires_grad_(), np.array([[12.0, 0, 0, 0]])
    with doing("layer norm with eps = 4", SHAPES):
        out = F.layer_norm(x, (4,), eps=4.0)
    with doing("the backward pass of layer norm", SHAPES):
        check_formula_runs("norm", "layer_norm_input", lambda: out.backward(single(grad)))
    wrong = mistakes(DOG[None], grad, np.ones(4), 4.0)
    check(
        "the gradient of layer norm for (−1, 5, 1, 3) with eps = 4 and G = (12, 0, 0, 0)",
        x.grad.tolist(),
        [[2, 0, -4 / 3, -2 / 3]],
        {name: value for name, value in wrong.items() if "weight" not in name},
        source="by hand",
    )
    check("its sum: adding the same to a whole row changes nothing", x.grad.sum().item(), 0, tolerance=1e-5)
    x = double(DOG[None])
    F.layer_norm(x, (4,), eps=0.0).backward(shared.tensor([[0.5, -2.0, 1.0, 3.0]], dtype=shared.float64))
    along = (x.grad.numpy() * (DOG - 2)).sum()
    check("its product with x − 2, for eps = 0: stretching a row changes nothing", along, 0, tolerance=1e-9)


def check_rows() -> None:
    rng = np.random.default_rng(1)
    values, grad, weight, bias, eps = ROWS, rng.normal(size=(4, 4)), np.array([1.5, -0.5, 2, 1]), np.ones(4), 0.5
    mean, inv_std = values.mean(1, keepdims=True), 1 / np.sqrt(values.var(1, keepdims=True) + eps)
    shapes = SHAPES | {"not enough values": "layer_norm_input returns three gradients: by x, by weight and by bias."}
    what = "layer_norm_input of four rows with weights"
    to_x, to_weight, to_bias = reading(what, layer_norm_input, grad, values, mean, inv_std, weight, hints=shapes)
    normal = (values - mean) * inv_std

    def loss(x: np.ndarray) -> float:
        deviation = x - x.mean(1, keepdims=True)
        return float((grad * (weight * deviation / np.sqrt(x.var(1, keepdims=True) + eps) + bias)).sum())

    measured = differences(loss, values)
    what = "the gradient by x that layer_norm_input returns for four rows with weights, beside finite differences"
    check(what, to_x, measured, mistakes(values, grad, weight, eps))
    check(
        "the gradient by weight that layer_norm_input returns",
        to_weight,
        (grad * normal).sum(0),
        {
            "Σ G · x: the weight multiplies x̂, not x": (grad * values).sum(0),
            "a mean over the rows: each use of the weight adds its gradient": (grad * normal).mean(0),
            "one gradient for each row: weight (D,) is what all rows share": grad * normal,
            "a sum along the rows": (grad * normal).sum(1),
            "that of the bias": grad.sum(0),
            "weight once more in it": (grad * weight * normal).sum(0),
        },
    )
    check(
        "the gradient by bias that layer_norm_input returns",
        to_bias,
        grad.sum(0),
        {
            "a mean over the rows": grad.mean(0),
            "the weight in it: the bias is added after the product": (grad * weight).sum(0),
            "a sum along the rows": grad.sum(1),
            "one gradient for each row": grad,
            "that of the weight": (grad * normal).sum(0),
        },
    )
    what = "layer_norm_input without weight"
    without = reading(what, layer_norm_input, grad, values, mean, inv_std, None, hints=shapes)
    check("the gradient by x without weight", without[0], formula(values, grad, np.ones(4), eps))
    require(without[1] is not None, f"{what} returns None as the gradient by weight. {IN_ANY_CASE}")
    check("the gradient by weight where it is None, returned all the same", without[1], (grad * normal).sum(0))
    require(without[2] is not None, f"{what} returns None as the gradient by bias. {IN_ANY_CASE}")
    check("the gradient by bias where the weight is None", without[2], grad.sum(0))


def test_the_gradient_of_layer_norm_passes_through_mean_and_variance():
    check_one_row()
    check_rows()
    with doing("the gradient of layer norm's gradient", TENSORS):
        x, w, b = double(ROWS[:2]), double([1.5, -0.5, 2, 1]), double([0, 1, 2, 3])
        right = gradgradcheck(lambda x, w, b: F.layer_norm(x, (4,), w, b, 0.5), [x, w, b], raise_exception=False)
    require(right, "the gradient of the gradient, by your formulas on Tensors, is not what finite differences give")


# ------------------------------------------------------------------------ RMS norm


def check_rms_values() -> None:
    squares = (ROWS**2).mean(1, keepdims=True)
    out, inv_rms = reading("RMS norm of four rows with eps = 0", rms_norm, ROWS, None, 0.0)
    check(
        "RMS norm of four rows: (−1, 5, 1, 3) has a mean square of 9, so it is divided by 3",
        out,
        ROWS / np.sqrt(squares),
        {
            "layer norm: RMS norm subtracts no mean": (ROWS - ROWS.mean(1, keepdims=True)) / ROWS.std(1, keepdims=True),
            "a division by the standard deviation, which is about the mean": ROWS / ROWS.std(1, keepdims=True),
            "a division by the mean square: it is by its root": ROWS / squares,
            "a division by the length, the root of the sum of squares": ROWS / np.sqrt(4 * squares),
            "a division by the mean of the absolute values": ROWS / abs(ROWS).mean(1, keepdims=True),
            "a division by the mean: (mean of x)² has taken the place of the mean of x²": ROWS
            / abs(ROWS.mean(1, keepdims=True)),
            "columns instead of rows": ROWS / np.sqrt((ROWS**2).mean(0)),
            "one root for all rows": ROWS / np.sqrt(squares.mean()),
            "no change at all": ROWS,
        },
    )
    check(
        "the inv_rms that rms_norm returns",
        inv_rms,
        1 / np.sqrt(squares),
        {"the root itself, not its inverse": np.sqrt(squares), "a lost dimension": 1 / np.sqrt(squares[:, 0])},
    )
    weight = np.array([3, -2, 1, 0.5])
    with doing("RMS norm with a weight and eps = 7", SHAPES):
        x, w = single(ROWS), single(weight)
        out = check_formula_runs("norm", "rms_norm", lambda: F.rms_norm(x, (4,), w, 7.0))
    check(
        "RMS norm with weight (3, −2, 1, ½) and eps = 7",
        out.tolist(),
        weight * ROWS / np.sqrt(squares + 7),
        {
            "no weight": ROWS / np.sqrt(squares + 7),
            "no ε": weight * ROWS / np.sqrt(squares),
            "ε outside the root": weight * ROWS / (np.sqrt(squares) + 7),
            "a weight for each row": weight[:, None] * ROWS / np.sqrt(squares + 7),
        },
    )


def test_rms_norm_divides_by_the_root_mean_square_and_its_gradient_is_right():
    check_rms_values()
    rng = np.random.default_rng(2)
    grad, weight, eps = rng.normal(size=(4, 4)), np.array([1.5, -0.5, 2, 1]), 0.5
    inv_rms = 1 / np.sqrt((ROWS**2).mean(1, keepdims=True) + eps)
    normal, g = ROWS * inv_rms, grad * weight
    shapes = SHAPES | {"not enough values": "rms_norm_input returns two gradients: by x and by weight."}
    given = grad, ROWS, inv_rms, weight
    to_x, to_weight = reading("rms_norm_input of four rows", rms_norm_input, *given, hints=shapes)

    def loss(x: np.ndarray) -> float:
        return float((grad * weight * x / np.sqrt((x**2).mean(1, keepdims=True) + eps)).sum())

    along = normal * (g * normal).mean(1, keepdims=True)
    plain = inv_rms * (grad - normal * (grad * normal).mean(1, keepdims=True))
    check(
        "the gradient by x that rms_norm_input returns, beside finite differences",
        to_x,
        differences(loss, ROWS),
        {
            "the root taken for a constant: every element of x moves it": inv_rms * g,
            "layer norm's gradient: no mean was subtracted, so none comes back": inv_rms
            * (g - g.mean(1, keepdims=True) - along),
            "the way through the root added instead of subtracted": inv_rms * (g + along),
            "a sum along the row instead of a mean": inv_rms * (g - 4 * along),
            "no factor inv_rms": g - along,
            "no weight: the gradient by x̂ is weight · G": plain,
            "the weight at the end: it has to multiply G before the mean is taken": plain * weight,
            "x in place of x̂ = x · inv_rms": inv_rms * (g - ROWS * (g * ROWS).mean(1, keepdims=True)),
            "x in place of x̂ = x · inv_rms in one of the two places": inv_rms
            * (g - ROWS * (g * normal).mean(1, keepdims=True)),
            "a division by inv_rms, which is the inverse already: it is a factor": (g - along) / inv_rms,
        },
    )
    check(
        "the gradient by weight that rms_norm_input returns",
        to_weight,
        (grad * normal).sum(0),
        {
            "Σ G · x: the weight multiplies x̂, not x": (grad * ROWS).sum(0),
            "a mean over the rows": (grad * normal).mean(0),
            "one gradient for each row": grad * normal,
            "a sum along the rows": (grad * normal).sum(1),
            "weight once more in it": (g * normal).sum(0),
        },
    )
    what = "rms_norm_input without weight"
    without = reading(what, rms_norm_input, grad, ROWS, inv_rms, None, hints=shapes)
    check("the gradient of RMS norm by x without weight", without[0], plain)
    require(without[1] is not None, f"{what} returns None as the gradient by weight. {IN_ANY_CASE}")
    check("the gradient of RMS norm by weight where it is None", without[1], (grad * normal).sum(0))
    with doing("the gradient of RMS norm's gradient", TENSORS):
        right = gradgradcheck(
            lambda x, w: F.rms_norm(x, (4,), w, 0.5), [double(ROWS[:2]), double(weight)], raise_exception=False
        )
    require(right, "the gradient of the gradient, by your formulas on Tensors, is not what finite differences give")
