"""Sprint 06's milestones on masks. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import shared
from course.oracles import check, check_formula_runs, doing, require
from shared import nn
from shared.arrays.kernels.attention.reference import all_masks, look_ahead
from shared.nn import functional as F
from shared.nn.masks import (
    additive_mask,
    combined_mask,
    length_mask,
    look_ahead_mask,
    may_attend,
    padding_mask,
)

SQUARE = np.tri(4, dtype=bool)
SHAPES = {
    "broadcast": "Masks meet as (B, H, L, S): those of keys are (B, 1, 1, S), those of queries and keys (L, S).",
    "unsqueeze": "tokens and lengths are Tensors: `_for_keys` gives their mask its two new dimensions.",
    "'&'": "Masks are joined by &, which takes Tensors of booleans; join what is there with what comes next.",
    "'NoneType'": "A mask may be None, and then restricts nothing; all of them may be.",
    "'bool'": "A comparison of Tensors is a Tensor; a Python bool has no shape.",
    "'array'": "masks are Tensors: Tensor(array) makes one.",
}


def refused(what: str, call: Callable[[], object], kind: type[Exception], why: str) -> None:
    """Fail with `why` unless `call` raises a `kind`."""
    try:
        call()
    except NotImplementedError:
        raise
    except kind:
        return
    except Exception as error:
        require(False, f"{what} ends in {type(error).__name__}: {error}. A {kind.__name__} is expected: {why}")
    require(False, f"{what} should be refused with a {kind.__name__}: {why}")


def boolean(what: str, mask: object) -> np.ndarray:
    """The values of a mask, which has to be a Tensor of booleans."""
    require(isinstance(mask, shared.Tensor), f"{what} is a {type(mask).__name__}: a Tensor is expected")
    require(
        mask.dtype == np.dtype(bool),
        f"{what} has dtype {mask.dtype}: booleans are expected; numbers would be taken for a mask that is added",
    )
    return mask.numpy()


# ------------------------------------------------------------------------ one convention


def check_padding() -> None:
    """`padding_mask` and `length_mask`."""
    tokens = np.array([[5, 7, 0], [4, 0, 0], [0, 3, 2]])
    with doing("padding_mask of tokens (3, 3)", SHAPES):
        found = boolean("padding_mask", padding_mask(shared.tensor(tokens)))
    right = tokens != 0
    keys = right[:, None, None, :]
    check(
        "padding_mask of three sentences, (3, 1, 1, 3): True for each key that is no padding",
        found,
        keys,
        {
            "a mask the wrong way round: True means that a query may see the key": ~keys,
            "(B, 1, S, 1), which hides queries: padding must not be looked at; what it looks at itself is nobody's "
            "concern": right[:, None, :, None],
            "(B, S), which meets the scores (B, H, L, S) as queries by keys: two 1s come between": right,
            "(B, 1, S), which takes the batch for the heads": right[:, None],
            "(B, S, 1, 1)": right[:, :, None, None],
            "queries and keys both: a row of padding then sees nothing": (right[:, None, :, None] & keys),
        },
    )
    with doing("padding_mask with padding_idx = 7", SHAPES):
        found = boolean("padding_mask", padding_mask(shared.tensor(tokens), 7))
    check(
        "padding_mask with padding_idx = 7",
        found,
        (tokens != 7)[:, None, None],
        {
            "a padding_idx that is not looked at": keys,
            "all numbers above padding_idx: it is one number": (tokens > 7)[:, None, None],
            "a mask the wrong way round": (tokens == 7)[:, None, None],
        },
    )
    lengths = np.array([2, 0, 4, 1])
    with doing("length_mask of four lengths", SHAPES):
        found = boolean("length_mask", length_mask(shared.tensor(lengths), 4))
    places = np.arange(4)
    check(
        "length_mask of the lengths 2, 0, 4 and 1, size 4: (4, 1, 1, 4)",
        found,
        (places < lengths[:, None])[:, None, None],
        {
            "one key too many: of n keys the last one is number n − 1": (places <= lengths[:, None])[:, None, None],
            "one key too few": (places < lengths[:, None] - 1)[:, None, None],
            "a mask the wrong way round": (places >= lengths[:, None])[:, None, None],
            "places and lengths exchanged: a column for each key": (places[:, None] < lengths)[:, None, None],
            "(B, size) without the two dimensions of 1": places < lengths[:, None],
        },
    )
    with doing("length_mask with lengths below its size", SHAPES):
        found = boolean("length_mask", length_mask(shared.tensor([1, 2]), 5))
    check(
        "length_mask of the lengths 1 and 2, size 5",
        found,
        (np.arange(5) < [[1], [2]])[:, None, None],
        {"the longest length in place of `size`": (np.arange(2) < [[1], [2]])[:, None, None]},
    )
    why = "_for_keys, which knows what is expected, raises it"
    refused("padding_mask of tokens (3,)", lambda: padding_mask(shared.tensor([1, 2, 0])), RuntimeError, why)
    refused("length_mask of lengths (2, 1)", lambda: length_mask(shared.tensor([[1], [2]]), 3), RuntimeError, why)


def check_look_ahead() -> None:
    """`look_ahead_mask`, without and with a past."""
    with doing("look_ahead_mask(4)", SHAPES):
        found = boolean("look_ahead_mask", look_ahead_mask(4))
    check(
        "look_ahead_mask(4): query i sees the keys 0 … i",
        found,
        SQUARE,
        {
            "a mask off by one: a token sees itself": np.tri(4, k=-1, dtype=bool),
            "a mask off by one: a token sees the next one, which it is to predict": np.tri(4, k=1, dtype=bool),
            "a mask transposed: a row is a query": SQUARE.T,
            "a mask the wrong way round: True means that a query may see the key": ~SQUARE,
            "a mask that lets each token see itself only": np.eye(4, dtype=bool),
        },
    )
    with doing("look_ahead_mask(3, past=2)", SHAPES):
        found = boolean("look_ahead_mask", look_ahead_mask(3, 2))
    wide = np.arange(5) <= np.arange(2, 5)[:, None]
    check(
        "look_ahead_mask(3, past=2): three queries behind two keys, (3, 5)",
        found,
        wide,
        {
            "queries counted from 0: the first of them stands behind the past": np.arange(5) <= np.arange(3)[:, None],
            "a past that is not looked at": np.tri(3, dtype=bool),
            "a past that is left out of the keys": np.ones((3, 3)),
            "keys of the past behind the others: they come first": np.hstack([np.tri(3), np.ones((3, 2))]),
            "a past that nobody sees": np.hstack([np.zeros((3, 2)), np.tri(3)]),
            "queries of the past too: only the new ones ask": np.tri(5, dtype=bool),
            "a mask transposed": wide.T,
            "one key too few: a token sees itself": np.arange(5) < np.arange(2, 5)[:, None],
        },
    )


def check_combined() -> None:
    """`combined_mask` and `additive_mask`."""
    padding = np.array([[1, 1, 0], [1, 0, 1]], dtype=bool)[:, None, None]
    ahead, free = np.tri(3, dtype=bool), np.array([1, 1, 1], dtype=bool)
    given = [shared.tensor(a) for a in (padding, ahead, free)]
    with doing("combined_mask of padding, nothing and look-ahead", SHAPES):
        found = combined_mask(given[0], None, given[1], given[2])
        values = boolean("combined_mask", found)
    check(
        "padding and look-ahead together, (2, 1, 3, 3)",
        values,
        padding & ahead,
        {
            "“or” in place of “and”: a key is seen where every mask lets it through": padding | ahead | free,
            "the first mask only": padding,
            "the last mask only": free,
            "masks added up": padding ^ ahead,
        },
    )
    with doing("combined_mask of one mask, and of none", SHAPES):
        one, none = combined_mask(None, given[1]), [combined_mask(), combined_mask(None, None)]
    check("combined_mask of one mask", boolean("combined_mask", one), ahead)
    require(none == [None, None], f"combined_mask of nothing but None is {none[1]}: None, which restricts nothing")
    refused(
        "combined_mask of a mask of numbers",
        lambda: combined_mask(given[1], shared.zeros(3, 3)),
        TypeError,
        "“and” has no meaning for numbers, or for a mask that is added",
    )
    refused("combined_mask of 0 and 1", lambda: combined_mask(shared.ones(3, 3).long()), TypeError, "they are numbers")
    with doing("additive_mask", SHAPES):
        added = additive_mask(given[1])
        as_double = additive_mask(given[1], shared.float64)
    require(
        not np.isnan(added.tolist()).any(),
        "additive_mask has NaN: 0 · ∞ is NaN, so no product with −inf makes this mask. Choose between 0 and "
        "−inf, by where",
    )
    check(
        "additive_mask of a look-ahead mask: 0 where True, −inf where False",
        added.tolist(),
        np.where(ahead, 0, -np.inf),
        {
            "a mask the wrong way round": np.where(ahead, -np.inf, 0),
            "ones where a query may see: 0 changes no score": np.where(ahead, 1, -np.inf),
            "0 and 1: it is added, so what is hidden needs −inf": ahead.astype(float),
            "a large negative number in place of −inf": np.where(ahead, 0, -1e9),
        },
    )
    dtypes = added.dtype, as_double.dtype
    require(
        dtypes == (shared.float32, shared.float64),
        f"additive_mask has dtype {dtypes[0]}, and {dtypes[1]} where float64 is asked for",
    )


def check_properties() -> None:
    """What masks are for: over random sizes, what is masked can be anything."""
    rng = np.random.default_rng(0)
    for _ in range(25):
        batch, heads, size = (int(rng.integers(1, n)) for n in (4, 3, 7))
        lengths = rng.integers(1, size + 1, batch)
        q, k, v = (rng.normal(size=(batch, heads, size, 4)) for _ in range(3))
        place = int(rng.integers(0, size))
        tokens = np.where(np.arange(size) < lengths[:, None], 1 + rng.integers(0, 9, (batch, size)), 0)
        with doing(f"masks for {batch} sentences of {size} tokens", SHAPES):
            ahead = look_ahead_mask(size)
            padding = padding_mask(shared.tensor(tokens))
            same = length_mask(shared.tensor(lengths), size)
            both = combined_mask(padding, ahead)
        check("padding_mask of tokens, and length_mask of their numbers", padding.tolist(), same.tolist())

        def attend(mask: shared.Tensor, k: np.ndarray, v: np.ndarray) -> np.ndarray:
            return F.scaled_dot_product_attention(*map(shared.from_numpy, (q, k, v)), attn_mask=mask).numpy()  # noqa: B023

        later = np.arange(size) > place
        padded = np.arange(size) >= lengths[:, None]
        for what, mask, hidden, protected in (
            (
                f"Key and value of the tokens after number {place} have changed, and with them what that token or one "
                "before it gets: a look-ahead mask lets nothing of the future through",
                ahead,
                np.broadcast_to(later, (batch, size)),
                np.broadcast_to(~later, (batch, size)),
            ),
            ("Key and value of padding have changed, and with them what a query gets", padding, padded, padded | True),
            (
                "Key and value of padding have changed, and with them what a query under both masks gets",
                both,
                padded,
                padded | True,
            ),
        ):
            other = [np.where(hidden[:, None, :, None], rng.normal(size=a.shape) * 9, a) for a in (k, v)]
            with doing("attention under these masks", SHAPES):
                change = np.abs(attend(mask, *other) - attend(mask, k, v)).max(axis=(1, 3))
            require((change[protected] < 1e-9).all(), what)
        for row, n in enumerate(lengths):
            short = F.scaled_dot_product_attention(
                *(shared.from_numpy(np.ascontiguousarray(a[row : row + 1, :, :n])) for a in (q, k, v)), is_causal=True
            ).numpy()
            check(
                "a padded sentence in a batch, under both masks, against the sentence by itself",
                attend(both, k, v)[row : row + 1, :, :n],
                short,
            )


def test_neither_later_tokens_nor_padding_change_what_a_mask_protects():
    check_padding()
    check_look_ahead()
    check_combined()
    check_properties()


# ------------------------------------------------------------------------ the front door


def check_diagonal() -> None:
    """`look_ahead` and `all_masks`, on arrays."""
    like = np.zeros(1)
    for queries, keys, diagonal in ((3, 3, 0), (2, 5, 3), (4, 3, -1), (3, 2, 0)):
        with doing(f"look_ahead({queries}, {keys}, {diagonal}, like)"):
            found = look_ahead(queries, keys, diagonal, like)
        right = np.tri(queries, keys, diagonal, dtype=bool)
        require(
            isinstance(found, np.ndarray) and found.dtype == bool,
            f"look_ahead returns a {type(found).__name__} of {getattr(found, 'dtype', '?')}: an array of booleans",
        )
        check(
            f"look_ahead({queries}, {keys}, {diagonal}): query r sees the keys up to r + {diagonal}",
            found,
            right,
            {
                "a mask off by one: the key r + diagonal itself is seen": np.tri(queries, keys, diagonal - 1),
                "a mask off by one: one key too many": np.tri(queries, keys, diagonal + 1),
                "a mask transposed: rows are queries": np.tri(keys, queries, diagonal).T,
                "a mask the wrong way round": ~right,
                "a diagonal that is not looked at": np.tri(queries, keys),
                "a diagonal that is subtracted": np.tri(queries, keys, -diagonal),
                "a diagonal that ends in the last corner, whatever is asked for": np.tri(queries, keys, keys - queries),
            },
        )
    q, k = np.zeros((2, 1, 3, 4), np.float32), np.zeros((2, 1, 5, 4), np.float32)
    rng = np.random.default_rng(1)
    ahead = np.tri(3, 5, 2, dtype=bool)
    mask, added = rng.random((2, 1, 3, 5)) > 0.5, rng.normal(size=(3, 5)).astype(np.float32)
    with doing("all_masks without a mask, or without a diagonal, or without either"):
        neither, alone, only = all_masks(q, k, None, None), all_masks(q, k, mask, None), all_masks(q, k, None, 2)
    require(neither is None, "all_masks without mask and diagonal is not None: nothing is restricted")
    check("all_masks of a mask without a diagonal", alone, mask)
    check(
        "all_masks of a diagonal without a mask",
        only,
        ahead,
        {
            "numbers of queries and keys exchanged": np.tri(5, 3, 2),
            "the last two sizes of q in place of the numbers of queries and keys": np.tri(3, 4, 2),
        },
    )
    with doing("all_masks of a mask and a diagonal"):
        both, numbers = all_masks(q, k, mask, 2), all_masks(q, k, added, 2)
    check(
        "all_masks of a boolean mask and a diagonal",
        both,
        mask & ahead,
        {"“or” in place of “and”": mask | ahead, "the mask only": mask, "the diagonal only": ahead},
    )
    require(both.dtype == bool, f"all_masks makes {both.dtype} of a boolean mask: it stays boolean")
    check(
        "all_masks of a mask of numbers and a diagonal: −inf after it",
        numbers,
        np.where(ahead, added, -np.inf),
        {
            "0 in place of −inf": np.where(ahead, added, 0),
            "the mask only": added,
            "a mask of numbers taken for booleans": (added != 0) & ahead,
            "the diagonal added as 0 and 1": added + ahead,
            "−inf where the diagonal lets see": np.where(ahead, -np.inf, added),
            "a large negative number in place of −inf": np.where(ahead, added, -1e9),
        },
    )
    wide = all_masks(q.astype("float64"), k.astype("float64"), added, 2)
    for what, dtype in (("float32", numbers.dtype), ("float64", wide.dtype)):
        require(
            dtype == np.float32,
            f"all_masks makes {dtype} of a float32 mask, for q of {what}: a mask of numbers keeps its own dtype, and "
            "so must the −inf be of that",
        )
    with doing("all_masks with the diagonal 0"):
        zero = all_masks(q, k, None, 0), all_masks(q, k, mask, 0)
    require(
        zero[0] is not None and (np.shape(zero[1]) != mask.shape or (np.asarray(zero[1]) != mask).any()),
        "all_masks takes the diagonal 0 for none: 0 is a diagonal as any other, under which query 0 sees key 0 alone, "
        "and None is none. Ask `is None`",
    )
    check("all_masks of the diagonal 0 without a mask", zero[0], np.tri(3, 5))
    check("all_masks of a boolean mask and the diagonal 0", zero[1], mask & np.tri(3, 5, dtype=bool))


def check_other_convention() -> None:
    """`may_attend`, and the module that calls it."""
    padding, later = np.array([[0, 0, 1]], dtype=bool), ~np.tri(3, dtype=bool)
    given = [shared.tensor(a) for a in (padding, later)]
    added = np.array([[0.5, 0, 2], [0, 1, 0], [0, 0, -1]])
    hints = {"'~'": "~ turns booleans around; numbers are added as they are.", **SHAPES}
    with doing("may_attend of two boolean masks, True: hide", hints):
        found = boolean("may_attend of boolean masks", may_attend(*given))
    check(
        "two masks of PyTorch's convention as one of ours",
        found,
        ~padding & ~later,
        {
            "masks that are not turned around: there True means hide, here it means see": padding & later,
            "“or” in place of “and”, or masks joined by “and” first and turned around afterwards: what one hides is "
            "hidden": ~(padding & later),
            "joined by “or” and not turned around": padding | later,
            "the first mask only": np.broadcast_to(~padding, (3, 3)),
            "the last mask only": ~later,
            "only one of the masks turned around": ~padding & later,
            "only the other one turned around": padding & ~later,
        },
    )
    with doing("may_attend of one mask", hints):
        check("one mask of PyTorch's convention", boolean("may_attend", may_attend(given[1])), ~later)
    with doing("may_attend of no masks", {"": "Without any it is None, which restricts nothing."}):
        nothing = may_attend()
    require(nothing is None, f"may_attend of no masks is {nothing}: None restricts nothing")
    with doing("may_attend of a mask of numbers and a boolean one, True: hide", hints):
        found = may_attend(shared.tensor(added), given[0])
    require(
        found.dtype != np.dtype(bool),
        "may_attend makes booleans of a mask of numbers: they are added to the scores, and so must the result be",
    )
    check(
        "a mask of numbers and a boolean one, True: hide",
        found.tolist(),
        np.where(padding, -np.inf, added),
        {
            "a boolean mask that is not turned around": np.where(padding, added, -np.inf),
            "a boolean mask added as 0 and 1": added + padding,
            "a mask of numbers whose sign is turned: numbers are added in both conventions": np.where(
                padding, -np.inf, -added
            ),
            "the mask of numbers only": added,
            "the boolean mask only": np.broadcast_to(np.where(padding, -np.inf, 0), (3, 3)),
        },
    )
    with doing("may_attend of two masks of numbers", hints):
        check(
            "two masks of numbers, added up", may_attend(shared.tensor(added), shared.tensor(added)).tolist(), 2 * added
        )


def check_doors() -> None:
    """Three ways to ask for the same, on modules with the same weights."""
    shared.manual_seed(0)
    ours, theirs = nn.MultiHeadAttention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    with shared.no_grad():
        theirs.in_proj_weight.copy_(ours.in_proj.weight)
        theirs.in_proj_bias.copy_(ours.in_proj.bias)
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x = shared.randn(2, 4, 8)
    lengths = np.array([4, 2])
    see = (np.arange(4) < lengths[:, None])[:, None, None] & SQUARE
    with doing("nn.MultiHeadAttention under a mask of padding and future"):
        right = ours(x, mask=shared.tensor(see)).tolist()
    hide_keys, hide_later = shared.tensor(np.arange(4) >= lengths[:, None]), shared.tensor(~SQUARE)
    with doing("nn.MultiheadAttention under PyTorch's masks, True: hide"):
        booleans = theirs(x, x, x, key_padding_mask=hide_keys, attn_mask=hide_later)[0].tolist()
        ahead = shared.tensor(np.where(SQUARE, 0, -np.inf).astype(np.float32))
        numbers = theirs(x, x, x, key_padding_mask=hide_keys, attn_mask=ahead)[0].tolist()
    inverted = ours(x, mask=shared.tensor(~see)).tolist()
    wrong = {"the masks the wrong way round": inverted}
    check("nn.MultiheadAttention with True: hide, against nn.MultiHeadAttention with True: see", booleans, right, wrong)
    check("nn.MultiheadAttention with one mask of numbers", numbers, right, wrong)
    with doing("is_causal=True with a mask of padding"):
        keys = shared.tensor(see[:, :, -1:])
        causal = ours(x, mask=keys, is_causal=True)
    free = ours(x, mask=keys).tolist()
    check(
        "nn.MultiHeadAttention with a mask of padding and is_causal=True",
        causal.tolist(),
        right,
        {"is_causal that is not looked at": free},
    )
    q, k, v = (shared.randn(1, 2, 3, 4) for _ in range(3))
    with doing("F.scaled_dot_product_attention with is_causal=True"):
        check_formula_runs("attention", "all_masks", lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))


def test_every_convention_arrives_as_one_mask_at_the_front_door():
    check_diagonal()
    check_other_convention()
    check_doors()
