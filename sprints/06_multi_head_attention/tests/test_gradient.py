"""Sprint 06's milestone on the gradient of attention. A wrong answer that is a known mistake is named."""

from __future__ import annotations

import numpy as np

import shared
from course.oracles import check, check_formula_runs, differences, doing, require
from shared.arrays.kernels.attention.reference import attention_gradient
from shared.nn import functional as F

NAMES = ("queries", "keys", "values")
SHAPES = {
    "matmul": "dq is (…, L, E), dk (…, S, E), dv (…, S, F): the shapes say which product it is, of what.",
    "broadcast": "Σ over the keys keeps its axis, (…, L, 1), to stand beside the weights (…, L, S). With leading axes "
    ".T turns all of them around; .mT exchanges the last two.",
    "expected 3": "Three gradients are returned: by q, by k and by v.",
    "axes": "There may be any number of leading axes: .mT exchanges the last two.",
}
TENSORS = {
    "": "Everything may be a Tensor, where a gradient is to be differentiated itself: use operators, .mT and "
    ".sum(axis=…, keepdims=True), which arrays and Tensors share, and no function of NumPy and no array in place."
}


def single(values: object) -> shared.Tensor:
    """A float32 tensor of these numbers."""
    return shared.tensor(np.array(values, dtype=np.float32))


def formula(q, k, v, grad, mask, scale) -> float:
    """Σ grad · attention, whose gradients are asked for, in float64."""
    scores = q @ k.mT * scale
    scores = scores if mask is None else np.where(mask, scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return float((powers / powers.sum(axis=-1, keepdims=True) @ v * grad).sum())


def variants(q, k, v, weights, grad, scale, factors=None) -> tuple[dict[str, np.ndarray], ...]:
    """For queries, keys and values: what known mistakes give."""
    f = 1 if factors is None else factors
    to_w = grad @ v.mT * f
    full = (weights * to_w).sum(axis=-1, keepdims=True)
    right = weights * (to_w - full)
    scores = {
        "": right,
        "a softmax's gradient without its sum: raising one score lowers the other weights": weights * to_w,
        "a sum over the queries, axis −2: the weights of one query add up to 1": weights
        * (to_w - (weights * to_w).sum(axis=-2, keepdims=True)),
        "a sum over everything in place of each query's own": weights
        * (to_w - (weights * to_w).sum((-2, -1), keepdims=True)),
        "Σ dweights without the weights: the mean is weighted by them": weights
        * (to_w - to_w.sum(axis=-1, keepdims=True)),
        "the plain mean of dweights: it is weighted by the weights": weights
        * (to_w - to_w.mean(axis=-1, keepdims=True)),
        "the sum added in place of subtracted": weights * (to_w + full),
        "dweights − Σ that is not multiplied by the weights": to_w - full,
        "the gradient of a sigmoid, weights · (1 − weights): in a softmax every score moves every weight": to_w
        * weights
        * (1 - weights),
        "dweights itself: the softmax is left out": to_w,
    }
    if factors is not None:
        plain = grad @ v.mT
        scores |= {
            "dropout that is forgotten in dweights: what was dropped gives nothing back": weights
            * (plain - (weights * plain).sum(axis=-1, keepdims=True)),
            "dropout's factors on the gradient by the scores: they belong to dweights, before the sum is taken": weights
            * (plain - (weights * plain).sum(axis=-1, keepdims=True))
            * f,
            "weights · factors in the place of the weights everywhere, and dweights without factors: they belong to dv "
            "and to dweights, and the softmax's own gradient takes the weights from before dropout": weights
            * f
            * (plain - (weights * f * plain).sum(axis=-1, keepdims=True)),
            "dropout's factors in the weights of the softmax's gradient": weights
            * f
            * (to_w - (weights * f * to_w).sum(axis=-1, keepdims=True)),
            "dropout's factors twice": weights * (to_w * f - (weights * to_w * f).sum(axis=-1, keepdims=True)),
        }
    by_q = {name: s @ k * scale for name, s in scores.items() if name}
    by_k = {name: s.mT @ q * scale for name, s in scores.items() if name}
    for found, product in ((by_q, right @ k), (by_k, right.mT @ q)):
        found["no scale: the scores were multiplied with it"] = product
        found["the scale twice"] = product * scale**2
        found["a division by the scale"] = product / scale
    by_q["dq and dk exchanged"], by_k["dq and dk exchanged"] = right.mT @ q * scale, right @ k * scale
    if q.shape == k.shape:
        by_q["q in the place of k: the scores' gradient by q is k"] = right @ q * scale
        by_q["a gradient by the scores that is transposed here: it is dk that takes the transposed one"] = (
            right.mT @ k * scale
        )
        by_k["k in the place of q: the scores' gradient by k is q"] = right.mT @ k * scale
        by_k["a gradient by the scores that is not transposed: row s of dk collects column s of dscores"] = (
            right @ q * scale
        )
    w = weights * f
    by_v = {
        "v itself": v,
        "dropout that is forgotten in dv": weights.mT @ grad,
        "the scale in dv: the values never met it": w.mT @ grad * scale,
    }
    if w.shape[-1] == w.shape[-2]:
        by_v["weights that are not transposed: the value of key s collects column s of the weights"] = w @ grad
    return by_q, by_k, by_v


def check_three(what: str, found, expected, mistakes, source: str = "by hand") -> None:
    """dv first: it needs nothing of the others."""
    for i in (2, 0, 1):
        named: dict[str, np.ndarray] = {}
        for name, value in mistakes[i].items():  # where two mistakes give the same, both are named
            twin = next((n for n, v in named.items() if v.shape == value.shape and np.allclose(v, value)), None)
            named[name if twin is None else f"{twin}; or: {name}"] = value if twin is None else named.pop(twin)
        check(f"{what}: the gradient by the {NAMES[i]}", found[i], expected[i], named, source=source)


def check_by_hand() -> None:
    """One query, two keys that it likes alike; then more, whose gradients come from finite differences."""
    q, k, v = np.array([[1, 2.0]]), np.array([[2, 0], [0, 1.0]]), np.array([[2], [4.0]])
    weights, grad = np.array([[0.5, 0.5]]), np.array([[1.0]])
    with doing("attention_gradient of one query and two keys", SHAPES):
        found = attention_gradient(q, k, v, weights, grad, 0.5)
        to_q, to_k, to_v = found
    check_three(
        "one query, weights ½ and ½, values 2 and 4, so that dscores is −½ and ½",
        (to_q, to_k, to_v),
        ([[-0.5, 0.25]], [[-0.25, -0.5], [0.25, 0.5]], [[0.5], [0.5]]),
        variants(q, k, v, weights, grad, 0.5),
    )


def check_sentence() -> None:
    """The note's numbers: what moves the third number that “bit” takes, in “the dog bit the man”."""
    q = np.array([[1, 0, 1, 0], [0, 2, 0, 2], [2, 0, 2, 0], [1, 0, 1, 0], [0, 2, 0, 2.0]])
    k = np.array([[0, 1, 0, -1], [2, 0, 1, 0], [0, 2, 0, 1], [0, 1, 0, -1], [2, 0, -1, 0.0]])
    v = np.array([[0, 0, 0, 3], [2, 0, 1, 0], [0, 3, 0, 0], [0, 0, 0, 3], [2, 0, -1, 0.0]])
    powers = np.exp(q @ k.T / 2)
    weights, grad = powers / powers.sum(axis=1, keepdims=True), np.zeros((5, 4))
    grad[2, 2] = 1
    with doing("attention_gradient of “the dog bit the man”", SHAPES):
        to_q, to_k, to_v = attention_gradient(q, k, v, weights, grad, 0.5)
    wrong = variants(q, k, v, weights, grad, 0.5)
    for name, found, right, place, others in (
        ("queries, the row of “bit”", to_q, [0.078, -0.052, 0.215, 0.013], 2, wrong[0]),
        ("keys, the row of “dog”", to_k, [0.254, 0, 0.254, 0], 1, wrong[1]),
        ("keys, the row of “man”", to_k, [-0.176, 0, -0.176, 0], 4, wrong[1]),
    ):
        mistakes = {what: value[place] for what, value in others.items()}
        check(f"“the dog bit the man”: the gradient by the {name}", found[place], right, mistakes, tolerance=6e-4)
    check(
        "“the dog bit the man”: the gradient by the values",
        to_v[:, 2],
        [0.039, 0.778, 0.039, 0.039, 0.105],
        tolerance=6e-4,
    )


def check_differences() -> None:
    """`attention_gradient` on its own, with leading axes, with hidden keys, with dropout."""
    rng = np.random.default_rng(0)
    for what, shapes, hidden, dropped in (
        ("three queries, three keys", ((3, 3), (3, 3), (3, 3)), False, False),
        (
            "two batches of two heads, four queries, three keys",
            ((2, 2, 4, 5), (2, 2, 3, 5), (2, 2, 3, 2)),
            False,
            False,
        ),
        ("hidden keys", ((4, 2), (3, 2), (3, 2)), True, False),
        ("dropped weights", ((2, 3, 2), (2, 3, 2), (2, 3, 4)), False, True),
    ):
        q, k, v = (rng.normal(size=s) for s in shapes)
        grad = rng.normal(size=(*q.shape[:-1], v.shape[-1]))
        mask = np.tri(4, 3, dtype=bool) if hidden else None
        scores = q @ k.mT * 0.7
        powers = np.exp(scores if mask is None else np.where(mask, scores, -np.inf))
        weights = powers / powers.sum(axis=-1, keepdims=True)
        factors = (rng.random(weights.shape) > 0.4) / 0.6 if dropped else None
        arrays = [q, k, v]

        def loss(i: int, x: np.ndarray) -> float:
            given = [*arrays[:i], x, *arrays[i + 1 :]]  # noqa: B023
            if factors is None:  # noqa: B023
                return formula(*given, grad, mask, 0.7)  # noqa: B023
            s = np.exp(given[0] @ given[1].mT * 0.7)
            return float((s / s.sum(axis=-1, keepdims=True) * factors @ given[2] * grad).sum())  # noqa: B023

        right = [differences(lambda x, i=i: loss(i, x), arrays[i]) for i in range(3)]
        copies = [a.copy() for a in (q, k, v, weights, grad)]
        with doing(f"attention_gradient: {what}", SHAPES):
            to_q, to_k, to_v = attention_gradient(q, k, v, weights, grad, 0.7, factors)
        mistakes = variants(q, k, v, weights, grad, 0.7, factors)
        check_three(what, (to_q, to_k, to_v), right, mistakes, "by finite differences")
        for name, a, b in zip(("q", "k", "v", "weights", "grad"), (q, k, v, weights, grad), copies, strict=True):
            require((a == b).all(), f"attention_gradient has changed {name}, which others still need")


def check_backward() -> None:
    """Through the operation, that is with your formula behind `backward`."""
    rng = np.random.default_rng(1)
    values = [rng.normal(size=s) for s in ((2, 3, 4), (2, 5, 4), (2, 5, 3))]
    grad, mask = rng.normal(size=(2, 3, 3)), rng.random((3, 5)) > 0.3
    q, k, v = (single(a).requires_grad_() for a in values)
    with doing("F.scaled_dot_product_attention and its backward pass", SHAPES):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=shared.tensor(mask))
        check_formula_runs("attention", "attention_gradient", lambda: out.backward(single(grad)))
    for i, x in enumerate((q, k, v)):
        right = differences(lambda a, i=i: formula(*values[:i], a, *values[i + 1 :], grad, mask, 0.5), values[i])
        check(
            f"the gradient by the {NAMES[i]} through F.scaled_dot_product_attention",
            x.grad.tolist(),
            right,
            tolerance=1e-3,
            source="by finite differences",
        )
        require(x.grad.dtype == shared.float32, f"the gradient by the {NAMES[i]} is {x.grad.dtype}: what widens it?")


def check_second() -> None:
    """The gradient of a gradient: the formula on Tensors."""
    rng = np.random.default_rng(2)
    values = [rng.normal(size=s) for s in ((1, 1, 2, 3), (1, 1, 3, 3), (1, 1, 3, 2))]
    grad = rng.normal(size=(1, 1, 2, 2))

    def slopes(q: np.ndarray) -> np.ndarray:
        return differences(lambda a: formula(a, *values[1:], grad, None, 3**-0.5), q)

    q, k, v = (single(a).requires_grad_() for a in values)
    out = F.scaled_dot_product_attention(q, k, v)
    with doing("attention_gradient of Tensors, as a gradient of a gradient needs it", TENSORS):
        (to_q,) = shared.autograd.grad(out, [q], single(grad), create_graph=True)
        (second,) = shared.autograd.grad((to_q**2).sum(), [q])
    check(
        "the gradient by the queries, of Tensors",
        to_q.tolist(),
        slopes(values[0]),
        tolerance=1e-3,
        source="by finite differences",
    )
    step, right = 1e-3, np.zeros_like(values[0])
    for place in np.ndindex(*right.shape):
        move = np.zeros_like(right)
        move[place] = step
        right[place] = ((slopes(values[0] + move) ** 2).sum() - (slopes(values[0] - move) ** 2).sum()) / (2 * step)
    check(
        "the gradient by the queries of Σ dq²",
        second.tolist(),
        right,
        tolerance=2e-3,
        source="by finite differences of finite differences",
    )


def test_the_gradients_of_attention_match_hand_computation_and_finite_differences():
    check_by_hand()
    check_differences()
    check_sentence()
    check_backward()
    check_second()
