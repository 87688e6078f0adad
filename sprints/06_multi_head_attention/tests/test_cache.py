"""Sprint 06's milestone on the cache of keys and values. A wrong answer that is a known mistake is named."""

from __future__ import annotations

from functools import partial

import numpy as np

import shared
from course import oracles
from course.oracles import doing, refusal, require
from shared import nn

check = partial(oracles.check, source="expected")
SHAPES = {
    "izes of tensors": "Keys are (B, H, tokens, E): what is new comes behind along dimension 2.",
    "concatenate": "Keys are (B, H, tokens, E): what is new comes behind along dimension 2.",
    "broadcast": "The room is (B, H, room, E), and the new tokens stand in it at past … total − 1.",
    "'NoneType'": "keys and values are None as long as the cache is empty.",
    "unpack": "update returns two Tensors, the keys and the values of all tokens.",
    "expected 2": "update returns two Tensors, the keys and the values of all tokens.",
}


def tensors(values: np.ndarray) -> shared.Tensor:
    return shared.tensor(values.astype(np.float32))


def pieces(lengths: list[int], seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Keys and values (2, 3, n, 2) for each of the lengths."""
    rng = np.random.default_rng(seed)
    return [tuple(rng.normal(size=(2, 3, n, 2)) for _ in range(2)) for n in lengths]


def check_pair(what: str, found, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """That `found` are keys and values of all `parts`, one after the other."""
    for place, (name, other) in enumerate((("keys", "values"), ("values", "keys"))):
        own = [part[place] for part in parts]
        right, array = np.concatenate(own, axis=2), np.asarray(found[place].tolist())
        mistakes = {
            "the new tokens in front of the old: they come behind": np.concatenate(own[-1:] + own[:-1], axis=2),
            "the newest first, all the way: they come behind": np.concatenate(own[::-1], axis=2),
            "the new ones alone: the result is of all tokens": own[-1],
            "the old ones alone: the new ones belong to it": np.concatenate(own[:-1] or own, axis=2),
            f"{other} in place of {name}": np.concatenate([part[1 - place] for part in parts], axis=2),
        }
        if len({a.shape[2] for a in own}) == 1:
            mistakes["tokens added behind the width"] = np.concatenate(own, axis=3)
            mistakes["tokens added as further sentences"] = np.concatenate(own, axis=0)
            mistakes["tokens added as further heads"] = np.concatenate(own, axis=1)
        if not any(close(array, value) for value in mistakes.values()):
            new, past = own[-1], right.shape[2] - own[-1].shape[2]
            behind, over = close(array[:, :, past:], new), close(array[:, :, : new.shape[2]], new)
            require(
                behind or not over,
                f"{what}: the {name} of the new tokens stand over the first ones: they come behind the old",
            )
            require(
                not behind or close(array[:, :, :past], right[:, :, :past]),
                f"{what}: the new {name} are right, and the old ones are not: lost when a larger room was made, or "
                "missing in a room that was kept",
            )
        check(f"{what}: the {name}", array, right, mistakes)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, atol=1e-5)


def check_cache(max_len: int | None) -> None:
    """`KVCache` by itself, without gradients."""
    cache, parts = nn.KVCache(max_len), pieces([1, 1, 3, 1, 5, 1])
    kind = "nn.KVCache()" if max_len is None else f"nn.KVCache(max_len={max_len})"
    kept = []
    with shared.no_grad():
        for i, (keys, values) in enumerate(parts):
            what = f"{kind} after {i + 1} updates"
            with doing(what, SHAPES):
                found = cache.update(tensors(keys), tensors(values))
                require(isinstance(found, tuple) and len(found) == 2, f"{what}: update returns no pair of Tensors")
                sizes = [tuple(x.shape) for x in found]
            total = sum(p[0].shape[2] for p in parts[: i + 1])
            require(
                sizes[0][:2] != (2, 3) or sizes[0][2] <= total,
                f"{what} returns keys {sizes[0]} of {total} tokens: the whole room, and only what is filled counts",
            )
            check_pair(what, found, parts[: i + 1])
            dtypes = [x.array.dtype.name for x in found]
            require(
                dtypes == ["float32"] * 2,
                f"{what} returns {dtypes} of float32: the room has another dtype than the new tokens (empty makes "
                "float64 where none is given)",
            )
            require(
                cache.keys is not None and cache.values is not None and len(cache) == total,
                f"{what} has the length {len(cache)}, not {total}: what is returned is kept as keys and values",
            )
            check(f"{what}: cache.keys", cache.keys.tolist(), found[0].tolist())
            check(f"{what}: cache.values", cache.values.tolist(), found[1].tolist())
            kept.append(found)
    check_pair(f"what {kind} returned at the third update, when more have come", kept[2], parts[:3])


def check_copies() -> None:
    """How often the tokens of before are copied."""
    token = tensors(np.ones((1, 2, 1, 4)))
    for what, cache, most in (
        ("nn.KVCache(max_len=200)", nn.KVCache(200), 0),
        ("nn.KVCache()", nn.KVCache(), 9),
    ):
        moves, before = 0, None
        with shared.no_grad(), doing(f"{what}, 200 tokens one by one", SHAPES):
            for _ in range(200):
                keys, _values = cache.update(token, token)
                moves += before is not None and not np.shares_memory(keys.numpy(), before.numpy())
                before = keys
        require(
            moves <= most,
            f"{what}, 200 tokens one by one: all that was there before was copied to another place {moves} times, "
            f"and at most {most} times is asked for. "
            + (
                "The room is to double when it is full"
                if most
                else "Old and new are concatenated for each token, and the work grows with the square of the length"
                if moves > 190
                else "The room is to be max_len at once"
            ),
        )


def check_gradients() -> None:
    """With gradients old and new are concatenated, and the way back leads to all of them."""
    parts = pieces([2, 1, 1], seed=1)
    for what, needs in (
        ("all", (True, True, True)),
        ("the first alone", (True, False, False)),
        ("the last alone", (False, False, True)),
    ):
        leaves = [tuple(tensors(a).requires_grad_(need) for a in part) for part, need in zip(parts, needs, strict=True)]
        cache = nn.KVCache()
        with doing("nn.KVCache where gradients are asked for", SHAPES):
            for keys, values in leaves:
                found = cache.update(keys, values)
        check_pair(f"nn.KVCache where gradients are asked for, by {what} of three pieces", found, parts)
        require(
            all(x.requires_grad for x in found),
            f"gradients are asked for by {what} of three, and what the cache returns has lost its graph: to write "
            "into a room loses it, to concatenate does not",
        )
        (found[0] * 2 + found[1] * 3).sum().backward()
        for i, ((keys, values), need) in enumerate(zip(leaves, needs, strict=True)):
            if need:
                require(
                    keys.grad is not None and values.grad is not None, f"no gradient comes back to piece {i} of three"
                )
                check(f"the gradient by the keys of piece {i}", keys.grad.tolist(), np.full(keys.shape, 2.0))
                check(f"the gradient by the values of piece {i}", values.grad.tolist(), np.full(values.shape, 3.0))
    parts = pieces([2, 1, 1, 1, 1], seed=2)
    cache = nn.KVCache(8)
    for i, (keys, values) in enumerate(parts):
        given = [tensors(a).requires_grad_(i == 2) for a in (keys, values)]
        with shared.set_grad_enabled(i == 2), doing("nn.KVCache, once with gradients among updates without", SHAPES):
            found = cache.update(*given)
        what = f"nn.KVCache with updates without gradients, one with, and again without: after {i + 1}"
        stale = "a room that was kept while tokens were concatenated: they are missing in it. Give it up then"
        right = np.concatenate([part[0] for part in parts[: i + 1]], axis=2)
        shape = found[0].shape == right.shape
        if i > 2 and shape and not np.allclose(found[0].tolist(), right, atol=1e-5):
            require(False, f"{what}: the keys are wrong: {stale}")
        check_pair(what, found, parts[: i + 1])
        require(
            found[0].requires_grad == (i == 2),
            f"{what}: under no_grad nothing is to be recorded" if i != 2 else f"{what}: the graph is lost",
        )


def check_refusals() -> None:
    """What does not fit is refused before anything has changed."""
    cache = nn.KVCache(4)
    with shared.no_grad(), doing("nn.KVCache(4) with three tokens", SHAPES):
        cache.update(*(tensors(a) for a in pieces([3])[0]))
    rng = np.random.default_rng(3)
    for what, sizes in (
        ("another number of heads", ((2, 2, 1, 2), (2, 2, 1, 2))),
        ("two keys and one value", ((2, 3, 1, 2), (2, 3, 0, 2))),
        ("more tokens than max_len", ((2, 3, 2, 2), (2, 3, 2, 2))),
    ):
        given = [tensors(rng.normal(size=s)) for s in sizes]
        with shared.no_grad(), doing(f"nn.KVCache: {what}"):
            told = refusal(lambda: cache.update(*given))  # noqa: B023
        require(
            "KVCache: " in told,
            f"{what}: a RuntimeError is expected, which self._check raises, but the text is {told!r}",
        )
        require(len(cache) == 3, f"{what}: refused, but the cache has {len(cache)} tokens now: check before you write")


def check_module() -> None:
    """Multi-head attention with a cache against the whole sequence at once."""
    shared.manual_seed(0)
    module = nn.MultiHeadAttention(8, 2).eval()
    x = shared.randn(2, 7, 8)
    with shared.no_grad():
        whole = module(x, is_causal=True).numpy()
        alone = np.concatenate([module(x[:, i : i + 1], is_causal=True).numpy() for i in range(7)], axis=1)
        free = module(x).numpy()
        for what, sizes in (
            ("token by token", [1] * 7),
            ("a beginning of four, then token by token", [4, 1, 1, 1]),
            ("in pieces of 3, 2 and 2", [3, 2, 2]),
        ):
            for kind, cache in (("nn.KVCache()", nn.KVCache()), ("nn.KVCache(max_len=7)", nn.KVCache(7))):
                parts, at = [], 0
                for size in sizes:
                    with doing(f"multi-head attention with {kind}, {what}", SHAPES):
                        parts.append(module(x[:, at : at + size], is_causal=True, cache=cache).numpy())
                    at += size
                found = np.concatenate(parts, axis=1)
                check(
                    f"multi-head attention with {kind}, {what}, against the whole sequence at once",
                    found,
                    whole,
                    {
                        "a cache that is not asked: each piece sees itself alone": alone
                        if sizes == [1] * 7
                        else free[:0],
                        "a diagonal that begins at the first key: with a cache the new queries stand behind all old "
                        "keys, so it is (all keys − queries)": first_keys(module, x, sizes),
                        "no causality within a piece: a token sees those behind it": whole_pieces(module, x, sizes),
                        "keys and values exchanged in the cache": exchanged(module, x, sizes),
                    },
                )
        with doing("multi-head attention with a cache, its weights wanted", SHAPES):
            cache = nn.KVCache()
            module(x[:, :5], is_causal=True, cache=cache)
            out, weights = module(x[:, 5:], is_causal=True, cache=cache, need_weights=True)
        check("the last two tokens with a cache, weights wanted", out.tolist(), whole[:, 5:])
        require(
            tuple(weights.shape) == (2, 2, 2, 7),
            f"the weights of two new tokens after five have shape {tuple(weights.shape)}, and (2, 2, 2, 7) is expected",
        )


def masked(module, x, sizes, mask_of, swap: bool = False) -> np.ndarray:
    """All pieces at once: queries of each piece under the mask that `mask_of` makes of (first query, size, keys)."""
    rows, at = [], 0
    for size in sizes:
        rows.append(np.pad(mask_of(at, size, at + size), ((0, 0), (0, x.shape[1] - at - size))))
        at += size
    if swap:
        q, k, v = (module.split_heads(part) for part in module.in_proj(x).chunk(3, 2))
        out, _ = module.attend(q, v, k, shared.tensor(np.concatenate(rows)), None, False)
        return module.out_proj(out).numpy()
    return module(x, mask=shared.tensor(np.concatenate(rows))).numpy()


def first_keys(module, x, sizes) -> np.ndarray:
    return masked(module, x, sizes, lambda first, size, keys: np.tri(size, keys, dtype=bool))


def whole_pieces(module, x, sizes) -> np.ndarray:
    return masked(module, x, sizes, lambda first, size, keys: np.ones((size, keys), bool))


def exchanged(module, x, sizes) -> np.ndarray:
    return masked(module, x, sizes, lambda first, size, keys: np.tri(size, keys, first, dtype=bool), swap=True)


def test_token_by_token_with_a_cache_is_the_whole_sequence_at_once():
    for max_len in (None, 12):
        check_cache(max_len)
    check_module()
    check_copies()
    check_gradients()
    check_refusals()
