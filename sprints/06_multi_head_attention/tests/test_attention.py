"""Sprint 06's milestones on scores, weights and averages. A wrong answer that is a known mistake is named."""

from __future__ import annotations

import math

import numpy as np

import shared
from course.oracles import check, check_formula_runs, doing, require
from shared import nn
from shared.arrays.kernels.attention.reference import (
    attention,
    attention_gradient,
    attention_scores,
    attention_weights,
)
from shared.nn import functional as F
from shared.ops.attention import default_scale

# What the words of "the dog bit the man" look for, are found by, and hand over:
Q = np.array([[1, 0, 1, 0], [0, 2, 0, 2], [2, 0, 2, 0], [1, 0, 1, 0], [0, 2, 0, 2.0]])
K = np.array([[0, 1, 0, -1], [2, 0, 1, 0], [0, 2, 0, 1], [0, 1, 0, -1], [2, 0, -1, 0.0]])
V = np.array([[0, 0, 0, 3], [2, 0, 1, 0], [0, 3, 0, 0], [0, 0, 0, 3], [2, 0, -1, 0.0]])
SCORES = np.array([[0, 1.5, 0, 0, 0.5], [0, 0, 3, 0, 0], [0, 3, 0, 0, 1], [0, 1.5, 0, 0, 0.5], [0, 0, 3, 0, 0]])
BIT = 2

SHAPES = {
    "matmul": "q (…, L, E) meets k with its last two axes exchanged, (…, E, S); the weights (…, L, S) meet v.",
    "broadcast": "The scores are (…, L, S); a number per query, as a row's maximum or sum, keeps its axis: (…, L, 1). "
    "With leading axes .T turns all of them around; swapaxes(-1, -2), or .mT, exchanges the last two.",
    "axes": "There may be any number of leading axes: exchange the last two by name, swapaxes(-1, -2).",
    "expected 2": "attention returns two arrays: the result and the weights.",
    "NoneType": "Is there a function without a return? attention returns two arrays: the result and the weights.",
}


def single(values: object) -> shared.Tensor:
    """A float32 tensor of these numbers."""
    return shared.tensor(np.array(values, dtype=np.float32))


def leaf(values: object) -> shared.Tensor:
    """The same, collecting a gradient."""
    return single(values).requires_grad_()


def softmax(scores: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    """By the formula of the note, in float64."""
    with np.errstate(all="ignore"):
        powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
        return powers / powers.sum(axis=axis, keepdims=True)


# ------------------------------------------------------------------------ scores, weights, result


def check_scores() -> None:
    """`attention_scores`, without and with masks."""
    with doing("attention_scores of five queries and five keys", SHAPES):
        found = attention_scores(Q, K, None, 0.5)
    check(
        "attention_scores of “the dog bit the man”, q · k / 2",
        found,
        SCORES,
        {
            "no scale": SCORES * 2,
            "a division by the scale: it is 1/√d already": SCORES * 4,
            "1/d in place of 1/√d, or the scale twice": SCORES / 2,
            "the scale's root": SCORES * 2 * math.sqrt(0.5),
            "scores of keys by queries: a row belongs to a query, a column to a key": SCORES.T,
            "the queries among themselves": Q @ Q.T / 2,
            "the keys among themselves": K @ K.T / 2,
        },
    )
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 6, 5))
    right = np.einsum("bhle,bhse->bhls", q, k) * 0.3
    with doing("attention_scores of q (2, 3, 4, 5) and k (2, 3, 6, 5)", SHAPES):
        found = attention_scores(q, k, None, 0.3)
    check(
        "scores with two leading axes and a scale of 0.3",
        found,
        right,
        {
            "a scale of your own, 1/√E: it is an argument": right / 0.3 / math.sqrt(5),
            "a scale of your own, 1/E: it is an argument": right / 0.3 / 5,
            "the number of queries in the scale": right / 0.3 / math.sqrt(4),
            "the number of keys in the scale": right / 0.3 / math.sqrt(6),
            "no scale": right / 0.3,
        },
    )
    check_masked_scores(q, k, right)
    small = attention_scores(q.astype("float32"), k.astype("float32"), None, np.float64(0.3))
    require(
        small.dtype == np.float32,
        f"scores of float32 are {small.dtype}: a NumPy number as scale widens them, q.dtype.type(scale) does not",
    )


def check_masked_scores(q: np.ndarray, k: np.ndarray, free: np.ndarray) -> None:
    """A boolean mask and one of numbers."""
    mask = np.random.default_rng(1).random((4, 6)) > 0.4
    mask[1] = False
    with doing("attention_scores with a boolean mask (4, 6)", SHAPES):
        found = attention_scores(q, k, mask, 0.3)
    check(
        "scores under a boolean mask, −inf where it is False",
        found,
        np.where(mask, free, -np.inf),
        {
            "a mask the wrong way round: True means that a query may see the key": np.where(mask, -np.inf, free),
            "a score of 0 in place of −inf: e⁰ is 1, so that what is hidden gets weight": np.where(mask, free, 0),
            "a mask that is added, as 0 and 1": free + mask,
            "a mask that is not looked at": free,
            **{
                f"a large negative number, {size:g}, in place of −inf: where all is hidden the weights are equal, "
                "not 0": np.where(mask, free, size)
                for size in (-1e4, -1e9, -1e10, -1e20, -1e30, np.finfo(np.float64).min, np.finfo(np.float32).min)
            },
            **{
                f"a large negative number, {size:g}, that is added: −inf leaves nothing of the score": np.where(
                    mask, free, free + size
                )
                for size in (-1e4, -1e9)
            },
        },
    )
    added = np.random.default_rng(2).normal(size=(2, 1, 4, 6))
    with doing("attention_scores with a mask of numbers (2, 1, 4, 6)", SHAPES):
        found = attention_scores(q, k, added, 0.3)
    check(
        "scores with a mask of numbers, which is added",
        found,
        free + added,
        {
            "a mask scaled along with the scores: it is added after the scale": free + 0.3 * added,
            "a mask of numbers taken for a boolean one, whatever is not 0 being True": free,
            "a product with the mask": free * added,
            "−inf where the mask is not above 0": np.where(added > 0, free, -np.inf),
        },
    )
    with doing("attention_scores of float32 with a mask of float64", SHAPES):
        found = attention_scores(q.astype("float32"), k.astype("float32"), added, 0.3)
    require(
        found.dtype == np.float32,
        f"attention_scores of float32 with a mask of float64 has {found.dtype}: the mask widens what it is added to. "
        "The result has the dtype of q: mask.astype(q.dtype)",
    )


def check_weights() -> None:
    """`attention_weights` of numbers that one can compute."""
    scores = np.log(np.array([[1, 2, 5], [3, 3, 2.0]]))
    powers = np.exp(scores)
    with doing("attention_weights of two rows", SHAPES):
        found = attention_weights(scores)
    require((np.exp(scores) == powers).all(), "attention_weights has changed the scores that it was given")
    check(
        "attention_weights of the scores ln 1, ln 2, ln 5 and ln 3, ln 3, ln 2",
        found,
        [[0.125, 0.25, 0.625], [0.375, 0.375, 0.25]],
        {
            "a softmax along axis −2: the weights of one query add up to 1, not those of one key": powers
            / powers.sum(0),
            "a softmax over everything": powers / powers.sum(),
            "exp without the division by the sum": powers,
            "the row's maximum subtracted, and no division by the sum": powers / powers.max(1, keepdims=True),
            "the scores divided by their sum, without exp": scores / scores.sum(1, keepdims=True),
            "a sigmoid of each score": powers / (1 + powers),
            "the logarithm of the weights": np.log(powers / powers.sum(1, keepdims=True)),
        },
    )
    cube = np.random.default_rng(3).normal(size=(3, 3, 3, 3))
    with doing("attention_weights (3, 3, 3, 3)", SHAPES):
        found = attention_weights(cube)
    check(
        "attention_weights of random scores (3, 3, 3, 3)",
        found,
        softmax(cube),
        {
            f"a softmax along axis {axis}: the keys are the last one": softmax(cube, axis)
            for axis in (0, 1, 2, (2, 3), (0, 1, 2, 3))
        },
    )
    check_large()
    small = attention_weights(np.float32(scores))
    require(small.dtype == np.float32, f"the weights of float32 scores are {small.dtype}")


def check_large() -> None:
    """Scores that exp cannot take, and rows far apart."""
    with np.errstate(all="ignore"), doing("attention_weights of scores near 1000"):
        found = attention_weights(np.array([[1000, 1000 + math.log(3)], [-1000, -1000 + math.log(3)]]))
    require(
        np.isfinite(found).all(),
        f"the weights of scores near ±1000 are {found.tolist()}. exp(1000) is infinite and exp(−1000) is 0: subtract "
        "each row's own largest score first, which changes no weight",
    )
    check(
        "attention_weights of two scores that differ by ln 3, near 1000 and near −1000",
        found,
        [[0.25, 0.75], [0.25, 0.75]],
        {
            "the largest score of all subtracted from every row: each row needs its own": [[0.25, 0.75], [0, 0]],
            "scores cut off at a bound": [[0.5, 0.5], [0.5, 0.5]],
        },
    )


def check_result() -> None:
    """`attention`, with the keys' values."""
    weights = softmax(SCORES)
    with doing("attention of “the dog bit the man”", SHAPES):
        out, found = attention(Q, K, V, None, 0.5)
    e = math.e
    check(
        "the weights with which “bit” looks at “the dog bit the man”: 1, e³, 1, 1, e over their sum",
        np.asarray(found)[BIT],
        np.array([1, e**3, 1, 1, e]) / (3 + e**3 + e),
        {
            "no scale": softmax(SCORES * 2)[BIT],
            "a column of the weights": weights[:, BIT],
            "the result in the place of the weights: (out, weights) are returned": (weights @ V)[BIT],
            "1 for the best key and 0 for all others: the lookup that did not become soft": np.eye(5)[
                SCORES[BIT].argmax()
            ],
        },
    )
    check(
        "attention: what the words take from each other",
        out,
        weights @ V,
        {
            "k and v exchanged: scores are made with the keys, what is averaged are the values": weights @ K,
            "the keys in place of the values": weights @ K,
            "likeness to the values: it is the keys that are compared": softmax(Q @ V.T / 2) @ V,
            "the weights transposed: a row of weights belongs to a query": weights.T @ V,
            "the value of the best key alone: the lookup that did not become soft": V[SCORES.argmax(1)],
            "the mean of the values": np.tile(V.mean(0), (5, 1)),
            "scores without the softmax": SCORES @ V,
            "no scale": softmax(SCORES * 2) @ V,
        },
    )
    require(
        out.shape == (5, 4) and abs(out[BIT, 0] - 2 * (e**3 + e) / (3 + e**3 + e)) < 1e-9,
        "“bit” takes 2 (e³ + e) / (3 + e³ + e) of being a noun",
    )
    check_masked_result()
    with doing("F.scaled_dot_product_attention", SHAPES):
        once = check_formula_runs(
            "attention", "attention", lambda: F.scaled_dot_product_attention(single(Q), single(K), single(V))
        )
    check("F.scaled_dot_product_attention of the sentence", once.tolist(), weights @ V)


def check_masked_result() -> None:
    """A mask that is not symmetric, and other sizes for keys and values than for queries."""
    ahead = np.tril(np.ones((5, 5), bool))
    free = softmax(SCORES)
    hidden = softmax(np.where(ahead, SCORES, -np.inf))
    with np.errstate(all="ignore"), doing("attention under a look-ahead mask", SHAPES):
        out, weights = attention(Q, K, V, ahead, 0.5)
    check(
        "attention: the weights under a look-ahead mask",
        weights,
        hidden,
        {
            "a mask applied after the softmax: what is left of a row no longer adds up to 1": free * ahead,
            "a mask transposed: rows are queries": softmax(np.where(ahead.T, SCORES, -np.inf)),
            "a mask the wrong way round": np.nan_to_num(softmax(np.where(ahead, -np.inf, SCORES))),
            "a mask that is not looked at": free,
            "a score of 0 in place of −inf": softmax(np.where(ahead, SCORES, 0)),
        },
    )
    check(
        "attention: the result under a look-ahead mask",
        out,
        hidden @ V,
        {
            "a mask applied after the softmax": (free * ahead) @ V,
            "a mask for the weights that are returned only": free @ V,
        },
    )
    rng = np.random.default_rng(4)
    q, k, v = (rng.normal(size=s) for s in ((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2)))
    with doing("attention of 4 queries (E = 5), 6 keys and values (F = 2), heads and batch in front", SHAPES):
        out, weights = attention(q, k, v, None, 0.3)
    right = softmax(np.einsum("bhle,bhse->bhls", q, k) * 0.3)
    check("its weights (2, 3, 4, 6)", weights, right)
    check("its result (2, 3, 4, 2)", out, np.einsum("bhls,bhsf->bhlf", right, v))


def test_bit_finds_who_bit_with_the_weights_computed_by_hand():
    check_scores()
    check_weights()
    check_result()


# ------------------------------------------------------------------------ the scale


def check_scale_itself() -> None:
    """`default_scale` at several widths."""
    for width, length in ((4, 3), (64, 5), (1, 7)):
        q = shared.zeros(2, 6, length, width)
        with doing(f"default_scale of queries {tuple(q.shape)}"):
            found = default_scale(q)
        check(
            f"the scale for queries {tuple(q.shape)}, 1/√{width}",
            found,
            width**-0.5,
            {
                "1/d in place of 1/√d": 1 / width,
                "√d: the scores are multiplied with the scale": width**0.5,
                "no scale": 1,
                "the number of tokens under the root, not the width of a head": length**-0.5,
                "the number of heads under the root": 6**-0.5,
                "the width of all heads together under the root: each head has its own scores": (6 * width) ** -0.5,
            },
            tolerance=1e-9,
        )
    with doing("default_scale of queries without any width"):
        found = default_scale(shared.zeros(2, 3, 0))
    require(found == 1, f"the scale for a width of 0 is {found}: every score is 0, and the scale 1")
    found = default_scale(shared.zeros(2, 4))
    require(
        isinstance(found, float) and not isinstance(found, np.floating),
        f"default_scale returns a {type(found).__name__}: a Python number keeps float32 scores as they are",
    )


def check_scale_used() -> None:
    """That the operation and the module take it, per head."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1, 3, 8)) * 2
    q, k, v = (rng.normal(size=(8, 8)) for _ in range(3))
    module = nn.MultiHeadAttention(8, 2, bias=False)
    with shared.no_grad():
        module.in_proj.weight.copy_(single(np.concatenate([q, k, v])))
        module.out_proj.weight.copy_(single(np.eye(8)))
    parts = [(x[0] @ w.T).reshape(3, 2, 4).swapaxes(0, 1) for w in (q, k, v)]

    def by(scale: float) -> np.ndarray:
        return (softmax(parts[0] @ parts[1].mT * scale) @ parts[2]).swapaxes(0, 1).reshape(1, 3, 8)

    mistakes = {"1/√8, with the width of both heads: each has 4 numbers": by(8**-0.5), "no scale": by(1)}
    mistakes |= {"1/d in place of 1/√d": by(1 / 4)}
    for name, call in (
        ("MultiHeadAttention", lambda: module(single(x))),
        ("MultiHeadAttention, its weights wanted", lambda: module(single(x), need_weights=True)[0]),
        ("MultiHeadAttention to another sequence", lambda: module(single(x), single(x))),
    ):
        with doing(name):
            found = call()
        check(f"{name}, two heads of width 4: the scale is 1/√4", found.tolist(), by(0.5), mistakes, tolerance=1e-3)


def check_variance() -> None:
    """What the scale is for, measured on random queries and keys."""
    rng = np.random.default_rng(6)
    for width in (4, 64, 1024):
        q, k = (rng.normal(size=(60, width)) for _ in range(2))
        with doing(f"scores of random queries and keys of width {width}"):
            scores = attention_scores(q, k, None, default_scale(single(q)))
            largest = attention_weights(scores).max(axis=-1).mean()
        variance = scores.var()
        require(
            0.8 < variance < 1.25,
            f"queries and keys of {width} numbers with variance 1 have scores of variance {variance:.4g}, and 1 is "
            "expected"
            + (": that is d, without a scale" if abs(variance / width - 1) < 0.25 else "")
            + (": that is 1/d, scaled by d in place of √d" if abs(variance * width - 1) < 0.25 else ""),
        )
        require(
            largest < 0.3,
            f"at width {width} the largest of 60 weights is {largest:.2f} on average: the softmax is saturated, and "
            "most queries of a saturated softmax learn almost nothing",
        )
        plain = attention_weights(attention_scores(q, k, None, 1.0)).max(axis=-1).mean()
        require(
            plain > 0.6 or width < 64,
            f"at width {width} and with scale 1 the largest of 60 weights is {plain:.2f} on average, and more than "
            "0.6 is expected: the scale is an argument, and a softmax without it is saturated",
        )


def test_the_scale_keeps_the_variance_of_the_scores_at_every_width():
    check_scale_itself()
    check_variance()
    check_scale_used()


# ------------------------------------------------------------------------ nothing to see


GRADIENTS = {
    "matmul": "dq is (…, L, E), dk (…, S, E), dv (…, S, F): the shapes say which product it is, of what, and what "
    "is transposed.",
    "broadcast": "Σ over the keys keeps its axis, (…, L, 1), to stand beside the weights (…, L, S): keepdims=True.",
    "axes": "There may be any number of leading axes: .mT exchanges the last two.",
    "expected 3": "Three gradients are returned: by q, by k and by v.",
}


def check_gradient_shapes() -> None:
    """`attention_gradient` where nothing is hidden: what fails here has nothing to do with masks."""
    rng = np.random.default_rng(8)
    q, k, v, grad = (rng.normal(size=s) for s in ((4, 3), (5, 3), (5, 2), (4, 2)))
    weights = softmax(q @ k.T)
    with doing("attention_gradient of 4 queries (E = 3), 5 keys and their values (F = 2)", GRADIENTS):
        to_q, to_k, to_v = attention_gradient(q, k, v, weights, grad, 1.0)
    for name, found, like in (("q", to_q, q), ("k", to_k, k), ("v", to_v, v)):
        require(
            np.shape(found) == like.shape,
            f"attention_gradient: the gradient by {name} has shape {np.shape(found)}, but {like.shape} is expected, "
            f"that of {name}",
        )


def test_a_query_that_may_see_nothing_gets_zero_and_finite_gradients():
    with np.errstate(all="ignore"), doing("attention_weights of a row of nothing but −inf"):
        found = attention_weights(np.array([[0, 0, -np.inf], [-np.inf, -np.inf, -np.inf]]))
    nan = (
        "NaN: −inf − (−inf) is NaN, and so is 0 / 0. Subtract 0 where the row's maximum is −inf, and divide by 1 where "
    )
    nan += "the sum is 0"
    require(not np.isnan(found).any(), f"the weights of a query that may see nothing are {nan}")
    check(
        "the weights of two queries, of which one sees two keys and the other none",
        found,
        [[0.5, 0.5, 0], [0, 0, 0]],
        {
            "equal weights where nothing may be seen: it attends to what is hidden": [[0.5, 0.5, 0], [1 / 3] * 3],
            "a number above 0 added to every sum": [[0.5, 0.5, 0], [0, 0, 0]],
        },
        tolerance=1e-6,
    )
    check_gradient_shapes()
    rng = np.random.default_rng(7)
    mask = np.ones((4, 5), bool)
    mask[2] = False
    mask[0, 3:] = False
    blind = [2]
    for what, given in (("boolean", mask), ("added", np.where(mask, np.float32(0), np.float32(-np.inf)))):
        q, k, v = (leaf(rng.normal(size=s)) for s in ((4, 3), (5, 3), (5, 3)))
        with np.errstate(all="ignore"), doing(f"attention with a {what} mask of which row 2 hides everything"):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=shared.tensor(given))
            (out * single(rng.normal(size=(4, 3)))).sum().backward()
        require(
            np.isfinite(out.numpy(force=True)).all(), f"with a {what} mask that hides a row of keys, the result has NaN"
        )
        require(
            (out.numpy(force=True)[blind] == 0).all(),
            f"a query that may see nothing gets {out.tolist()[2]}: nothing is 0, not the mean of what is hidden",
        )
        grads = {name: x.grad.numpy() for name, x in (("queries", q), ("keys", k), ("values", v))}
        for name, grad in grads.items():
            require(
                np.isfinite(grad).all(),
                f"the gradient by the {name} has NaN: one query that sees nothing spoils a whole training",
            )
        require((grads["queries"][blind] == 0).all(), "a query that sees nothing gets no gradient")
        require((grads["queries"][[0, 1, 3]] != 0).any(axis=1).all(), "the other queries do get a gradient")
