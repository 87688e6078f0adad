"""Sprint 10's milestones on the cache: the logits of the whole text, in pieces and in batches; room; forgetting.

A known mistake is named in the message.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from witness import check_refused

import shared
from course.oracles import doing, require
from shared.generation import GenerationCache, new_caches
from shared.models.gpt import GPT, GPTConfig
from shared.nn import functional as F

SIZES = {"vocab_size": 11, "block_size": 12, "n_layer": 2, "n_head": 2, "n_embd": 8}
HINTS = {
    "positions": "The first of `ids` stands after the len(caches[0]) tokens that are cached: that is its position.",
    "index out of range": "A position is a row of the table: from 0 to block_size − 1, also those of fillers (clamp).",
    "is out of": "A position is a row of the table: from 0 to block_size − 1, also those of fillers (clamp).",
    "out of bounds": "A position is a row of the table: from 0 to block_size − 1, also those of fillers (clamp).",
    "negative": "A position is a row of the table: from 0 to block_size − 1, also those of fillers (clamp).",
    "input array": "There is less room than tokens: round up to whole blocks.",
    "could not be broadcast": "The mask is (B, 1, 1, past + T): rows of the batch, and all tokens that can be looked "
    "at, cached ones too.",
    "mask": "The mask is (B, 1, 1, past + T): rows of the batch, and all tokens that can be looked at, cached ones "
    "too.",
    "zip": "There is one cache for each block.",
    "no attribute 'array'": "Rooms are arrays and `rows` a Tensor: room[rows.array] takes those rows.",
    "item assignment": "A room is an array, and is returned.",
    "cannot be broadcast together": "The mask is (B, 1, 1, past + T): rows, heads, new tokens, all tokens, cached "
    "ones too.",
    "not subscriptable": "An empty cache has no keys and values yet: None stays None.",
}
ROOM = {
    "broadcast": "There is less room than tokens, or for another number of rows: round up to whole blocks of tokens.",
    "NoneType": "A room is an array, and is returned.",
}


def model_of(positions: str = "learned") -> GPT:
    """A GPT whose positions and norms matter: weights drawn large, in eval mode."""
    shared.manual_seed(0)
    model = GPT(GPTConfig(**SIZES, dropout=0.3, positions=positions))
    with shared.no_grad():
        for parameter in model.parameters():
            parameter.add_(shared.randn(*parameter.shape) * 0.4)
    return model.eval()


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 11, shape)


def by_hand(
    model: GPT, ids: np.ndarray, places: Any = None, hidden: Any = None, normed: bool = True, positions: bool = True
) -> np.ndarray:
    """The logits (B, T, V) of whole texts without a cache; tokens at `places` (B, T), and `hidden` (B, T) fillers,
    or (B, T, T), from each token.
    """
    with shared.no_grad():
        x = model.token_embedding(shared.tensor(ids))
        places = np.broadcast_to(np.arange(ids.shape[1]), ids.shape) if places is None else places
        if positions:
            x = x + F.embedding(shared.tensor(np.clip(places, 0, 11)), model.positions.table())
        hidden = None if hidden is None else np.asarray(hidden)
        hidden = hidden[:, None] if hidden is not None and hidden.ndim == 2 else hidden  # (B, T or 1, T)
        mask = None if hidden is None else shared.tensor(~hidden[:, None])
        for block in model.blocks:
            x = block(x, mask)
        return model.lm_head(model.norm(x) if normed else x).numpy()


def near(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and np.allclose(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def told(found: np.ndarray, mistakes: dict[str, np.ndarray]) -> str:
    names = [name for name, value in mistakes.items() if near(found, value)]
    return f"\nThat is what one gets from: {names[0]}." if names else ""


def extended(what: str, model: GPT, ids: np.ndarray, caches: Any, padding: Any = None, keep: int = 1) -> np.ndarray:
    with shared.no_grad(), doing(what, HINTS):
        logits = model.extend(shared.tensor(ids), caches, padding, keep)
    require(logits is not None, f"{what} is None: is a `return` missing?")
    require(isinstance(logits, shared.Tensor), f"{what} is a {type(logits).__name__}, where a Tensor is expected")
    shape, wanted = tuple(logits.shape), (len(ids), keep, 11)
    looks = {
        (len(ids), ids.shape[1], 11): ": all places are scored, where the last are asked for; x[:, -logits_to_keep:]",
        (len(ids), 11): ": one dimension too few, the last places are a slice, not an index",
        (len(ids), keep, 8): ": vectors, not yet scores; lm_head is left out",
    }.get(shape, "")
    require(shape == wanted, f"{what} has shape {shape}, where {wanted} is expected{looks}")
    return logits.numpy()


def check_pieces(cuts: list[int], positions: str = "learned") -> None:
    """A text in pieces: each gives the logits that the whole text has there."""
    model, ids = model_of(positions), drawn(3, sum(cuts))
    caches, start, passes = new_caches(model, block=5), 0, len(cuts)
    whole = by_hand(model, ids)
    pieces = np.concatenate([np.arange(n) for n in cuts])
    starts = np.concatenate([[0], np.cumsum(cuts)])
    first = np.concatenate([np.full(n, s) for n, s in zip(cuts, starts, strict=False)])
    behind = np.concatenate([np.arange(n) + max(0, s - 1) for n, s in zip(cuts, starts, strict=False)])
    ahead = np.concatenate([np.arange(n) + s + (s > 0) for n, s in zip(cuts, starts, strict=False)])
    numbered = np.concatenate([np.arange(n) + i for i, n in enumerate(cuts)])
    for k, length in enumerate(cuts):
        what = f"extend by {length} of {sum(cuts)} tokens after {start}, pass {k + 1} of {passes}"
        kept = None if caches[0].keys is None else caches[0].keys.numpy().copy()
        found = extended(what, model, ids[:, start : start + length], caches, keep=length)
        require(
            len(caches[0]) == start + length,
            f"{what}: the first cache holds {len(caches[0])} tokens, where {start + length} are expected"
            + (": is it handed to the block? block(x, mask, cache=cache)" if len(caches[0]) == start else "")
            + (": all blocks write into it, each has its own" if len(caches[0]) == start + 2 * length else ""),
        )
        require(
            all(len(cache) == start + length for cache in caches),
            f"{what}: the caches hold {[len(cache) for cache in caches]} tokens: each block has its own",
        )
        end = start + length
        if not near(found, whole[:, start:end]):
            require(
                kept is None or np.array_equal(kept, caches[0].keys.numpy()[:, :, :start], equal_nan=True),
                f"{what}: the keys that were in the first cache are other ones afterwards: the array that "
                "GenerationCache._room makes has the old tokens in front",
            )
            full, n = ids[:, :end], sum(cuts)
            rows = (3, n)

            def at(
                places: np.ndarray, end: int = end, start: int = start, rows: Any = rows, full: Any = full
            ) -> np.ndarray:
                return by_hand(model, full, np.broadcast_to(places, rows)[:, :end])[:, start:end]

            mistakes = {
                "positions that begin at 0 in each piece: they go on after the len(caches[0]) tokens that are "
                "cached": at(pieces),
                "a position one too small: the first new token stands at len(caches[0]), counted from 0": at(behind),
                "a position one too large: the first new token stands at len(caches[0]), counted from 0": at(ahead),
                "one position for all tokens of a piece": at(first),
                "the number of passes for a position": at(numbered),
                "no positions at all": by_hand(model, full, positions=False)[:, start:end],
                "the norm in front of the head left out": by_hand(model, full, normed=False)[:, start:end],
                "the new tokens alone: what is cached is looked at too": by_hand(
                    model, ids[:, start:end], np.broadcast_to(np.arange(start, end), (3, length))
                ),
                "a text without what is cached, at positions from 0": by_hand(model, ids[:, start:end]),
                "the places in the opposite order": whole[:, start:end][:, ::-1],
            }
            difference = np.abs(found - whole[:, start:end]).max()
            pytest.fail(
                f"{what} gives other logits than the whole text has at these places, by up to "
                f"{difference:.2g}{told(found, mistakes)}",
                pytrace=False,
            )
        start = end


def check_last() -> None:
    model, ids = model_of(), drawn(2, 6)
    whole = by_hand(model, ids)
    for keep in (1, 3):
        what = f"extend by 6 tokens with logits_to_keep={keep}"
        found = extended(what, model, ids, new_caches(model), keep=keep)
        require(
            near(found, whole[:, -keep:]),
            f"{what} is not the scores of the last {keep}"
            + told(found, {"the first places: the last ones are asked for": whole[:, :keep]}),
        )


def check_padding(positions: str) -> None:
    """Texts of 5, 2 and 1 tokens, with fillers on the left, and three more tokens each."""
    model, fillers = model_of(positions), np.array([0, 3, 4])
    ids = drawn(3, 8, seed=1)
    hidden = np.arange(8) < fillers[:, None]
    padding = shared.tensor(fillers)
    places = np.arange(8) - fillers[:, None]
    caches, start = new_caches(model, block=3), 0
    for end in (5, 6, 7, 8):
        what = f"extend with padding {fillers.tolist()} by {end - start} tokens after {start}"
        found = extended(what, model, ids[:, start:end], caches, padding)[:, 0]
        expected = np.stack([by_hand(model, row[None, n:end])[0, -1] for row, n in zip(ids, fillers, strict=True)])
        if not near(found, expected):

            def of(places: Any = places, hidden: Any = hidden, end: int = end) -> np.ndarray:
                return by_hand(model, ids[:, :end], places[:, :end], None if hidden is None else hidden[:, :end])[:, -1]

            in_order = np.broadcast_to(np.arange(8), ids.shape)
            passes = np.where(in_order < 5, places, in_order)
            mistakes = {
                "positions that count the fillers: a row's first token is at 0": of(in_order),
                "fillers that are looked at: a mask hides the first `padding` tokens of each row": of(hidden=None),
                "padding left out: fillers are looked at and counted": of(in_order, None),
                "positions that count the fillers from the second pass on": of(passes),
                "fillers hidden in the first pass alone: they are in the caches for good": by_hand(
                    model,
                    ids[:, :end],
                    places[:, :end],
                    (hidden[:, None, :] & (np.arange(8)[None, :, None] < 5))[:, :end, :end],
                )[:, -1],
                "one filler too few hidden": of(hidden=np.arange(8) < fillers[:, None] - 1),
                "one token too many hidden": of(hidden=np.arange(8) < fillers[:, None] + 1),
                "positions that are one too large": of(places + 1),
                "positions that are one too small": of(np.maximum(places - 1, 0)),
                "fillers added to the positions, where they are subtracted": of(in_order + fillers[:, None]),
                "fillers on the right hidden: they stand on the left": of(
                    hidden=np.arange(8) >= end - fillers[:, None]
                ),
                "the mask the wrong way round: True is where one may look": of(hidden=~hidden),
                "positions from 0 in each pass": of(np.where(in_order < 5, places, 0)),
            }
            row = int(np.argmax(np.abs(found - expected).max(-1)))
            pytest.fail(
                f"{what}: row {row}, whose text has {end - fillers[row]} tokens, has other logits than "
                f"alone{told(found, mistakes)}",
                pytrace=False,
            )
        start = end


def check_too_long() -> None:
    model = model_of()
    for padding in (None, shared.tensor([0, 2])):
        caches = new_caches(model)
        extended("extend by 10 tokens", model, drawn(2, 10), caches, padding)
        try:
            with shared.no_grad():
                model.extend(shared.tensor(drawn(2, 3)), caches, padding)
        except NotImplementedError:
            raise
        except RuntimeError:
            pass
        except Exception as error:
            pytest.fail(f"extend beyond block_size ends in {type(error).__name__}: {error}; RuntimeError is expected")
        else:
            pytest.fail(
                "extend by 3 tokens after 10, where block_size is "
                f"12{', with padding' if padding is not None else ''}, goes on: a RuntimeError is expected, also "
                "where a row's own positions would still fit",
                pytrace=False,
            )
        require(
            len(caches[0]) == 10,
            f"extend beyond block_size raises, but leaves {len(caches[0])} tokens in the first cache, not 10: check "
            "first",
        )


def check_modes() -> None:
    model = model_of().train()
    ids = drawn(1, 6)
    padding = shared.tensor([0])
    for pad, name in ((None, ""), (padding, " with padding")):
        a, b = (extended("extend in train mode", model, ids, new_caches(model), pad) for _ in range(2))
        require(
            model.training and not near(a, b),
            f"extend{name} drops nothing out in train mode, or leaves it: the mode is the caller's to choose",
        )
    model.positions.dropout = shared.nn.Dropout(1 - 1e-9)
    for block in model.blocks:
        block.eval()
    for pad, name in ((None, ""), (padding, " with padding")):
        found = extended("extend in train mode", model, ids, new_caches(model), pad)
        require(
            np.abs(found - found.mean()).max() < 1e3 and near(found, nothing(model, ids)),
            f"extend{name} does not drop out what the embedding and the positions make: positions(x, start), or its "
            "dropout, does that",
        )


def nothing(model: GPT, ids: np.ndarray) -> np.ndarray:
    """The last logits where all of the embedding's vectors are dropped out."""
    with shared.no_grad():
        x = model.token_embedding(shared.tensor(ids)) * 0.0
        for block in model.blocks:
            x = block(x)
        return model.lm_head(model.norm(x[:, -1:])).numpy()


def test_a_cached_text_has_the_logits_of_the_whole_text():
    for cuts in ([6], [4, 1, 1, 4, 2], [1] * 6):
        check_pieces(cuts)
    check_pieces([3, 1, 2], "sinusoidal")
    check_last()
    check_padding("learned")
    check_padding("sinusoidal")
    check_too_long()
    check_modes()


# ------------------------------------------------------------------------ room


def pair(length: int, batch: int = 2, seed: int = 0) -> tuple[shared.Tensor, shared.Tensor]:
    rng = np.random.default_rng(seed)
    return tuple(shared.tensor(rng.normal(size=(batch, 3, length, 4)).astype("float32")) for _ in range(2))


def update(what: str, cache: GenerationCache, keys: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    with doing(what, ROOM):
        found = cache.update(keys, values)
    return found[0].numpy(), found[1].numpy()


ROOMS: dict[str, Callable[[int, int | None], int]] = {
    "room for the tokens alone, so that each new one copies all: whole blocks": lambda n, most: n,
    "all of max_len at once: a short answer needs little": lambda n, most: most or -(-n // 4) * 4,
    "a block too many: where the tokens fill their blocks, no other is needed": lambda n, most: min(
        (n // 4 + 1) * 4, most or 99
    ),
    "a block too few: what does not fill a block needs one too, so round up": lambda n, most: n // 4 * 4,
    "a block beside the tokens: whole blocks that hold them": lambda n, most: min(n + 4, most or 99),
    "more than max_len, which no text can fill": lambda n, most: -(-n // 4) * 4,
    "twice the tokens: whole blocks are asked for": lambda n, most: min(2 * n, most or 99),
    "blocks of 64, whatever self.block says": lambda n, most: min(-(-n // 64) * 64, most or 99),
    "the number of blocks in place of their tokens": lambda n, most: -(-n // 4),
}


def check_room() -> None:
    number = 2 * 2 * 3 * 4 * 4  # arrays, rows, heads, width, bytes: what a token takes
    found, settings = (
        [],
        [(1, None, 4), (4, None, 4), (5, None, 8), (9, 10, 10), (3, 10, 4), (10, 10, 10), (8, None, 8)],
    )
    for length, max_len, _ in settings:
        cache = GenerationCache(max_len, block=4)
        update(named(length, max_len), cache, *pair(length))
        found.append(cache.nbytes // number)
    for made, (length, max_len, room) in zip(found, settings, strict=True):
        if made == room:
            continue
        names = [name for name, rule in ROOMS.items() if found == [rule(n, most) for n, most, _ in settings]]
        names += [name for name, rule in ROOMS.items() if made == rule(length, max_len)]
        pytest.fail(
            f"{named(length, max_len)}: there is room for {made}, where {room} is expected"
            + (f"\nThat is what one gets from: {names[0]}." if names else ": whole blocks, and no more than max_len"),
            pytrace=False,
        )


def named(length: int, max_len: int | None) -> str:
    return f"room for {length} tokens by blocks of 4" + (f", max_len={max_len}" if max_len else "")


def check_growth(block: int) -> None:
    cache, (keys, values) = GenerationCache(block=block), pair(10)
    rooms = set()
    for a, b in itertools.pairwise([0, 4, 5, 6, 9, 10]):
        what = f"tokens {a} to {b - 1} in blocks of {block}"
        found = update(what, cache, keys[:, :, a:b], values[:, :, a:b])
        for name, given, wanted in zip(("keys", "values"), found, (keys, values), strict=True):
            require(
                given.shape == (2, 3, b, 4) and np.array_equal(given, wanted.numpy()[:, :, :b]),
                f"{what}: the {name} are not those of all {b} tokens, in order: a new room begins with the old tokens",
            )
        rooms.add(id(cache._rooms[0]))
    require(len(rooms) <= -(-10 // block), f"in blocks of {block} ten tokens have been moved {len(rooms)} times")


def check_crop() -> None:
    cache, (keys, values) = GenerationCache(block=4), pair(9)
    update("nine tokens", cache, keys, values)
    before = cache.nbytes
    with doing("crop(6) of nine tokens", HINTS):
        cache.crop(6)
    looks = {9: ": nothing is forgotten", 3: ": `length` says how many stay, not how many go"}.get(len(cache), "")
    require(len(cache) == 6, f"after crop(6) of nine tokens the cache holds {len(cache)}, where 6 are expected{looks}")
    for name, given, wanted in (("keys", cache.keys, keys), ("values", cache.values, values)):
        require(
            given is not None and given.shape[2] == 6,
            f"after crop(6) the {name} have shape {None if given is None else tuple(given.shape)}: keys and values "
            "are both cut",
        )
        require(
            np.array_equal(given.numpy(), wanted.numpy()[:, :, :6]),
            f"after crop(6) the {name} are "
            + (
                "the last six: the first stay" if np.array_equal(given.numpy(), wanted.numpy()[:, :, -6:]) else "others"
            ),
        )
    other = pair(2, seed=1)
    found = update("two tokens after crop(6)", cache, *other)
    for name, given, wanted, new in zip(("keys", "values"), found, (keys, values), other, strict=True):
        expected = np.concatenate([wanted.numpy()[:, :, :6], new.numpy()], 2)
        require(
            given.shape == expected.shape and np.array_equal(given, expected),
            f"two tokens after crop(6): the {name} have shape {given.shape}, and should be the six that stayed and "
            "the two new ones",
        )
    require(cache.nbytes == before, f"crop changed the room from {before} to {cache.nbytes} bytes: it stays")
    for length in (-1, 9):
        check_refused(f"crop({length}) of eight tokens", lambda n=length: cache.crop(n))
    require(len(cache) == 8, f"a crop that is refused leaves {len(cache)} tokens, where 8 were")
    empty = GenerationCache()
    with doing("crop(0) of an empty cache", HINTS):
        empty.crop(0)
    require(len(empty) == 0, "an empty cache holds something after crop(0)")
    with doing("crop(0) of eight tokens", HINTS):
        cache.crop(0)
    require(len(cache) == 0, f"after crop(0) the cache holds {len(cache)} tokens")
    keys, values = pair(2, seed=2)
    found = update("two tokens after crop(0)", cache, keys, values)
    require(np.array_equal(found[0], keys.numpy()), "after crop(0) and two tokens the keys are not those two")


def check_select() -> None:
    for order in ([1, 0], [1, 0, 1], [1], [0, 0]):
        cache, (keys, values) = GenerationCache(block=4), pair(3)
        update("three tokens", cache, keys, values)
        rows = shared.tensor(order)
        with doing(f"select({order}) of two rows", HINTS):
            cache.select(rows)
        picked = [x.numpy()[order] for x in (keys, values)]
        for name, given, wanted, old in zip(
            ("keys", "values"), (cache.keys, cache.values), picked, (keys, values), strict=True
        ):
            found = None if given is None else given.numpy()
            if found is None or not np.array_equal(found, wanted):
                looks = {
                    "the rows as they were": old.numpy(),
                    "sorted rows": old.numpy()[sorted(order)],
                    "every row once": old.numpy()[sorted(set(order))],
                    "the rows that are not named": old.numpy()[[i for i in range(2) if i not in order]],
                }
                marks = [text for text, value in looks.items() if found is not None and np.array_equal(value, found)]
                pytest.fail(
                    f"after select({order}) the {name} are not those of rows {order}, in that order"
                    + (f"\nThat is what one gets from: {marks[0]}." if marks else ""),
                    pytrace=False,
                )
        require(len(cache) == 3, f"after select({order}) the cache holds {len(cache)} tokens, where 3 were")
        for step in range(2):
            more = pair(1, batch=len(order), seed=1 + step)
            found = update(f"a token after select({order})", cache, *more)
            picked = [np.concatenate([old, new.numpy()], 2) for old, new in zip(picked, more, strict=True)]
            for name, given, wanted in zip(("keys", "values"), found, picked, strict=True):
                require(
                    given.shape == wanted.shape and np.array_equal(given, wanted),
                    f"a token after select({order}): the {name} of the rows before are other ones: new tokens are "
                    "written into the rooms, so their rows are chosen too, and a row that is there twice is copied",
                )
    with doing("select of an empty cache", HINTS):
        GenerationCache().select(shared.tensor([0]))


def test_room_grows_by_blocks_and_tokens_and_rows_can_be_let_go():
    check_room()
    for block in (4, 1, 64):
        check_growth(block)
    check_crop()
    check_select()
