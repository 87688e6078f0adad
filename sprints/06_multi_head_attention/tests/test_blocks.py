"""Sprint 06's milestone on attention in blocks. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

import math
import tracemalloc
from functools import partial

import numpy as np

import shared
from course import oracles
from course.oracles import doing, require
from shared.arrays.kernels.attention.reference import attention_in_blocks, take_block
from shared.nn import functional as F

check = partial(oracles.check, source="expected")  # and "by hand" where it was
SHAPES = {
    "broadcast": "largest and total are (…, L, 1), values (…, L, F), the block's scores (…, L, K): what is summed over "
    "the keys keeps its axis.",
    "matmul": "The block's weights (…, L, K) meet the block's v (…, K, F).",
    "expected 3": "take_block returns three arrays: largest, total and values.",
    "expected 2": "attention_in_blocks returns two arrays: out and logs.",
    "output array is read-only": "No argument may be changed.",
}


def at_once(q, k, v, scale, diagonal=None) -> tuple[np.ndarray, np.ndarray]:
    """(out, logs) from all scores."""
    scores = q @ k.mT * scale
    if diagonal is not None:
        scores = np.where(np.tri(q.shape[-2], k.shape[-2], diagonal, dtype=bool), scores, -np.inf)
    largest = scores.max(axis=-1, keepdims=True)
    powers = np.exp(scores - np.where(largest == -np.inf, 0, largest))
    total = powers.sum(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        logs = np.where(total == 0, np.inf, np.log(total) + largest)[..., 0]
        return np.nan_to_num(powers / total) @ v, logs


# ------------------------------------------------------------------------ one block


def check_step() -> None:
    """`take_block`: two keys are known, two more come, one of which is liked more than all before."""
    old, new = np.log(np.array([[1, 2.0], [8, 4]])), np.log(np.array([[4, 1.0], [2, 6]]))
    known, coming = np.array([[1, 0], [2, 10.0]]), np.array([[3, 20.0], [4, 30]])
    largest = old.max(axis=1, keepdims=True)
    powers = np.exp(old - largest)
    total, values = powers.sum(axis=1, keepdims=True), powers @ known
    higher = np.log([[4], [8]])
    given = [largest, total, values, new, coming]
    for array in given:
        array.flags.writeable = False
    with doing("take_block", SHAPES):
        found = take_block(*given)
        m, s, a = found
    before, fresh = np.exp(largest - higher), np.exp(new - higher)
    check(
        "the largest score after the block: ln 4 for the one query, ln 8 still for the other",
        m,
        higher,
        {
            "the largest of the block alone": np.log([[4], [6]]),
            "the largest of before, which the block has overtaken": largest,
            "the largest of all queries: each has its own": np.log([[6], [8]]),
            "the largest of all queries, before and after: each has its own": np.log([[8], [8]]),
            "dimensions that are not kept": np.log([4, 8]),
            "the sum of the two": largest + new.max(1, keepdims=True),
        },
        source="by hand",
    )

    def mistakes(x: np.ndarray, part) -> dict[str, np.ndarray]:
        wrong = np.exp(new - new.max(axis=1, keepdims=True))
        return {
            "an old sum that is not rescaled: it was made with the old maximum": x + part(fresh),
            "an old sum rescaled the wrong way: a larger maximum makes it smaller": x / before + part(fresh),
            "a block with its own maximum: both parts take the new one": x * before + part(wrong),
            "a block with its own maximum, and an old sum that is not rescaled": x + part(wrong),
            "the old maximum in the block": x * before + part(np.exp(new - largest)),
            "the old maximum throughout: exp of a score far above it overflows": x + part(np.exp(new - largest)),
            "the block alone: what was there before is lost": part(fresh),
            "what was there before alone": x * before,
            "scores without any maximum": x + part(np.exp(new)),
            "the factor on the block in place of the old sum": x + part(fresh) * before,
            "the factor on both": (x + part(fresh)) * before,
        }

    check(
        "the sum of exp(score − m) after the block",
        s,
        total * before + fresh.sum(axis=1, keepdims=True),
        mistakes(total, lambda w: w.sum(axis=1, keepdims=True)),
    )
    check(
        "the sum of exp(score − m) · v after the block",
        a,
        values * before + fresh @ coming,
        {
            **mistakes(values, lambda w: w @ coming),
            "a division by the sum in every block: it comes once, at the end": (values * before + fresh @ coming)
            / (total * before + fresh.sum(axis=1, keepdims=True)),
            "the block's weights divided by their own sum": values * before
            + fresh / fresh.sum(axis=1, keepdims=True) @ coming,
        },
    )


def check_edges() -> None:
    """A first block, rows of nothing but −inf, scores far apart."""
    inf = math.inf
    start = np.full((3, 1), -inf), np.zeros((3, 1)), np.zeros((3, 2))
    scores = np.array([[0, math.log(3)], [-inf, -inf], [-inf, 2]])
    v = np.array([[1, 2], [3, 4.0]])
    with np.errstate(all="ignore"), doing("take_block, the first block", SHAPES):
        largest, total, values = take_block(*start, scores, v)
    require(
        not np.isnan(np.hstack([largest, total, values])).any(),
        "take_block makes NaN of a first block, or of one in which a query sees nothing: −inf − (−inf) is NaN. Where "
        "the new maximum is still −inf subtract 0 instead",
    )
    check("the largest scores after a first block", largest, [[math.log(3)], [-inf], [2]], source="by hand")
    check("the sums after a first block", total, [[4 / 3], [0], [1]], source="by hand")
    right = [[10 / 3, 14 / 3], [0, 0], [3, 4]]
    check("the sums of values after a first block", values, right, source="by hand")
    with np.errstate(all="ignore"), doing("take_block, after a block in which a query saw nothing", SHAPES):
        again = take_block(largest, total, values, np.array([[-inf, -inf], [-inf, 0], [1002, 1002]]), v)
    require(
        np.isfinite(np.hstack(again)).all(),
        f"take_block ends in {np.hstack(again).tolist()} where a block shows nothing, or scores too large for exp",
    )
    check(
        "the three sums of values after a second block",
        again[2],
        [[10 / 3, 14 / 3], [3, 4], [4, 6]],
        {"scores near 1000 that were cut off": [[10 / 3, 14 / 3], [3, 4], [3, 4]]},
        source="by hand",
    )
    small = take_block(*(a.astype(np.float32) for a in (*start, scores, v)))
    found = [a.dtype.name for a in small]
    require(found == ["float32"] * 3, f"take_block makes {found} of float32")


# ------------------------------------------------------------------------ all blocks


def check_all() -> None:
    """`attention_in_blocks` against attention at once."""
    rng = np.random.default_rng(0)
    for lead, queries, keys, sizes, diagonals in (
        ((), 5, 5, (2,), (None,)),
        ((2, 3), 7, 9, (3, 1, 4, 7, 50), (None, 0, 2, -2, 30)),
        ((1,), 8, 3, (2, 4), (None, 0, -5)),
    ):
        q, k, v = (rng.normal(size=(*lead, *s)) * 2 for s in ((queries, 4), (keys, 4), (keys, 3)))
        for size in sizes:
            for diagonal in diagonals:
                what = f"attention in blocks of {size}, {queries} queries and {keys} keys" + (
                    "" if diagonal is None else f", diagonal {diagonal}"
                )
                check_one(what, q, k, v, size, diagonal)
    low = np.full((3, 1), -50.0), np.linspace(40, 41, 5)[:, None], rng.normal(size=(5, 2))
    with np.errstate(all="ignore"), doing("attention in blocks where every score is near −1,000", SHAPES):
        found = attention_in_blocks(*low, 0.5, 2)[0]
    check(
        "attention in blocks where every score is near −1,000",
        np.nan_to_num(found),
        at_once(*low, 0.5)[0],
        {"a maximum that begins at 0: all exponentials are 0 then. It begins at −inf": np.zeros((3, 2))},
    )
    q, k, v = (rng.normal(size=(6, 4)).astype(np.float32) for _ in range(3))
    before = [a.copy() for a in (q, k, v)]
    found = attention_in_blocks(q, k, v, 0.5, 4, 0)
    require(all(a.dtype == np.float32 for a in found), f"out and logs of float32 are {[a.dtype.name for a in found]}")
    require(
        all((a == b).all() for a, b in zip((q, k, v), before, strict=True)), "attention_in_blocks changed q, k or v"
    )
    once = F.scaled_dot_product_attention(*map(shared.from_numpy, (q, k, v)), is_causal=True)
    check("attention in blocks, and F.scaled_dot_product_attention", found[0], once.tolist())


def check_one(what: str, q, k, v, size: int, diagonal: int | None) -> None:
    with np.errstate(all="ignore"), doing(what, SHAPES):
        out, logs = attention_in_blocks(q, k, v, 0.5, size, diagonal)
    right = at_once(q, k, v, 0.5, diagonal)
    keys, queries = k.shape[-2], q.shape[-2]
    whole = keys // size * size
    free = at_once(q, k, v, 0.5)
    scores = q @ k.mT * 0.5
    places, ends = np.arange(keys), np.arange(queries) // size * size
    if diagonal is not None:
        scores = np.where(np.tri(queries, keys, diagonal, dtype=bool), scores, -np.inf)
    highest = scores.max(axis=-1)
    shifts = np.where(np.isinf(right[1]), 0, right[1] - highest)
    values = {
        "values that were not divided by the sum, once all blocks have passed": right[0] * np.exp(shifts)[..., None],
        "a diagonal that is not looked at": free[0],
        "no scale": at_once(q, k, v, 1, diagonal)[0],
        "values that were not divided by the sum at the end": right[0]
        * np.exp(np.where(right[1] == np.inf, 0, right[1]))[..., None],
    }
    blocks = [slice(i, i + size) for i in range(0, keys, size)]
    parts = [at_once(q, k[..., b, :], v[..., b, :], 0.5)[0] for b in blocks]
    if diagonal is None:
        values |= {"the last block of keys alone": parts[-1], "the first block of keys alone": parts[0]}
        values["the mean of the blocks' results: a block counts by its sum of exp"] = sum(parts) / len(parts)
        values["the blocks' results added up"] = sum(parts)
        if 0 < whole < keys:
            values["a rest of keys that fills no block left out"] = at_once(
                q, k[..., :whole, :], v[..., :whole, :], 0.5
            )[0]
    else:
        for name, d in (
            ("a diagonal off by one: query r sees key r + diagonal itself", diagonal - 1),
            ("a diagonal off by one: one key too many", diagonal + 1),
        ):
            values[name] = at_once(q, k, v, 0.5, d)[0]
        values["a diagonal taken for 0: query r sees the keys up to r + diagonal"] = at_once(q, k, v, 0.5, 0)[0]
        ahead = np.tri(queries, keys, diagonal, dtype=bool)
        last = np.minimum(ends + size, queries)[:, None] + diagonal
        values["keys that end where a block's queries end: the diagonal moves that, too"] = under(
            ahead & (places < last - diagonal), q, k, v
        )
        values["a diagonal that is counted from the first key of each block: subtract the block's place"] = under(
            (places % size <= np.arange(queries)[:, None] + diagonal) & (places < last), q, k, v
        )
        values["keys that end with what a block's first query sees: its last one sees more"] = under(
            ahead & (places <= ends[:, None] + diagonal), q, k, v
        )
        rows = [slice(i, i + size) for i in range(0, queries, size)]
        values["a diagonal that is counted from the first query of each block: add the block's place"] = np.concatenate(
            [at_once(q[..., r, :], k, v, 0.5, diagonal)[0] for r in rows], axis=-2
        )
    rest = queries // size * size
    if 0 < rest < queries:
        values["a rest of queries that fills no block left out"] = np.concatenate(
            [right[0][..., :rest, :], 0 * right[0][..., rest:, :]], axis=-2
        )
    require(
        not np.isnan(out).any(),
        f"{what} gives NaN: a query that sees no key has the sum 0, and 0 / 0 is NaN; its result is 0",
    )
    check(f"{what}: the result", out, right[0], {n: x for n, x in values.items() if not same(x, right[0])})
    logs_of = {
        "−inf for a query that sees no key: +inf, so that exp(score − logs) is 0": np.where(
            right[1] == np.inf, -np.inf, right[1]
        ),
        "0 for a query that sees no key: +inf, so that exp(score − logs) is 0": np.where(
            right[1] == np.inf, 0, right[1]
        ),
        "the sum in place of its logarithm": np.exp(right[1]),
        "a dimension that is kept: one number per query, (…, L)": right[1][..., None],
        "the logarithms without the diagonal": free[1],
    }
    if diagonal is None:
        logs_of["the largest score without the logarithm of the sum"] = highest
        logs_of["the logarithm of the sum without the largest score"] = right[1] - highest
    logs_of = {n: x for n, x in logs_of.items() if not same(x, right[1])}
    check(f"{what}: the logarithms of the sums", logs, right[1], logs_of)


def under(mask: np.ndarray, q, k, v) -> np.ndarray:
    """The result with a scale of 0.5 under any mask."""
    powers = np.where(mask, np.exp(q @ k.mT * 0.5), 0)
    with np.errstate(all="ignore"):
        return np.nan_to_num(powers / powers.sum(axis=-1, keepdims=True)) @ v


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b)


# ------------------------------------------------------------------------ what it is for


def check_memory() -> None:
    """That no matrix of all weights is made."""
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(1024, 8)).astype(np.float32) for _ in range(3))
    peaks = {}
    for size in (64, 1024):
        tracemalloc.start()
        with doing("attention in blocks of 64, of 1,024 queries and keys"):
            attention_in_blocks(q, k, v, 0.35, size)
        peaks[size] = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    require(
        peaks[64] < 0.3,
        f"1,024 queries and keys in blocks of 64 took {peaks[64]:.1f} MiB at the peak, and all weights at once are 4 "
        f"MiB (in one block it is {peaks[1024]:.1f} MiB): less than 0.3 is asked for. Slice before you multiply: no "
        "array (L, S), nor (size, S), nor (L, size)",
    )


def check_skipped() -> None:
    """That what lies above the diagonal is not looked at, block by block."""
    rng = np.random.default_rng(2)
    q, k, v = (rng.normal(size=(24, 4)) for _ in range(3))
    right = at_once(q, k, v, 0.5, 0)[0]
    k[-1] = v[-1] = math.nan
    with np.errstate(all="ignore"), doing("attention in blocks of 8 on the diagonal"):
        out = attention_in_blocks(q, k, v, 0.5, 8, 0)[0]
    require(
        not np.isnan(out[:16]).any(),
        "the last of 24 keys is NaN, and it has reached queries of the first two blocks of 8, which may not see it: "
        "blocks above the diagonal are to be left out, not computed and hidden",
    )
    check("the first two blocks of queries", out[:16], right[:16])


def test_attention_in_blocks_is_attention_at_once_without_its_weights():
    check_step()
    check_edges()
    check_all()
    check_memory()
    check_skipped()
