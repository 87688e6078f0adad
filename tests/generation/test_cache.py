"""GenerationCache: room by blocks, forgetting, choosing rows; and `GPT.extend`, which gives what the model gives."""

import itertools

import numpy as np
import pytest

import shared
from shared.generation import GenerationCache, new_caches, pad_left
from shared.models import GPT, GPTConfig
from shared.testing import assert_close

SIZES = GPTConfig(vocab_size=11, block_size=24, n_layer=2, n_head=2, n_embd=8, dropout=0.3)
WAYS = {
    "learned": {},
    "sinusoidal": {"positions": "sinusoidal"},
    "untied, no biases": {"tie_weights": False, "bias": False},
}


def model_of(**changes):
    """A GPT whose positions and norms matter: weights drawn large, in eval mode."""
    shared.manual_seed(0)
    model = GPT(GPTConfig(**{**SIZES.__dict__, **changes}))
    with shared.no_grad():
        for parameter in model.parameters():
            parameter.add_(shared.randn(*parameter.shape) * 0.3)
    return model.eval()


def drawn(*shape, seed=0, high=11):
    return shared.tensor(np.random.default_rng(seed).integers(0, high, shape))


def pair(length, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(shared.tensor(rng.normal(size=(batch, 3, length, 4)).astype("float32")) for _ in range(2))


@pytest.mark.parametrize("block", [1, 3, 64])
def test_keys_and_values_come_back_in_order_however_they_were_added(block):
    cache, (keys, values) = GenerationCache(block=block), pair(10)
    for a, b in itertools.pairwise([0, 4, 5, 6, 9, 10]):
        found = cache.update(keys[:, :, a:b], values[:, :, a:b])
        assert len(cache) == b
        assert_close(found[0], keys[:, :, :b], rtol=0, atol=0)
        assert_close(found[1], values[:, :, :b], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("length", "max_len", "room"), [(1, None, 4), (4, None, 4), (5, None, 8), (9, 10, 10), (3, 10, 4), (10, 10, 10)]
)
def test_room_is_made_in_blocks_and_never_beyond_the_longest_text(length, max_len, room):
    cache = GenerationCache(max_len, block=4)
    cache.update(*pair(length))
    assert cache.nbytes == 2 * 2 * 3 * room * 4 * 4  # arrays, rows, heads, room, width, bytes


def test_an_empty_cache_has_no_room():
    assert GenerationCache().nbytes == 0 and len(GenerationCache()) == 0


def test_new_tokens_of_a_block_are_written_where_there_is_room():
    cache, (keys, values) = GenerationCache(block=8), pair(8)
    cache.update(keys[:, :, :3], values[:, :, :3])
    room = cache._rooms[0]
    cache.update(keys[:, :, 3:8], values[:, :, 3:8])
    assert cache._rooms[0] is room


def test_what_was_cropped_is_forgotten_and_written_over():
    cache, (keys, values) = GenerationCache(block=4), pair(9)
    cache.update(keys, values)
    cache.crop(6)
    other = pair(2, seed=1)
    found = cache.update(*other)
    assert len(cache) == 8
    assert_close(found[0], shared.cat([keys[:, :, :6], other[0]], 2), rtol=0, atol=0)
    assert_close(found[1], shared.cat([values[:, :, :6], other[1]], 2), rtol=0, atol=0)
    for length in (-1, 9):
        with pytest.raises(ValueError, match=f"there are 8 tokens, {length} cannot be kept"):
            cache.crop(length)


def test_cropping_to_nothing_and_an_empty_cache():
    cache = GenerationCache()
    cache.crop(0)
    cache.update(*pair(3))
    cache.crop(0)
    assert len(cache) == 0
    keys, values = pair(2, seed=1)
    assert_close(cache.update(keys, values)[0], keys, rtol=0, atol=0)


def test_chosen_rows_go_on_by_themselves():
    cache, (keys, values) = GenerationCache(block=4), pair(3)
    cache.update(keys, values)
    rows = shared.tensor([1, 0, 1])
    cache.select(rows)
    more = pair(2, batch=3, seed=1)
    found = cache.update(*more)
    assert_close(found[0], shared.cat([keys[rows], more[0]], 2), rtol=0, atol=0)
    assert_close(found[1], shared.cat([values[rows], more[1]], 2), rtol=0, atol=0)
    GenerationCache().select(rows)  # nothing to choose from: still empty


def test_gradients_are_refused_and_wrong_sizes_named():
    keys, values = pair(3)
    keys.requires_grad = True
    with pytest.raises(RuntimeError, match="generate under shared.no_grad"):
        GenerationCache().update(keys, values)
    with pytest.raises(ValueError, match="block"):
        GenerationCache(block=0)
    cache = GenerationCache(max_len=4)
    with shared.no_grad():
        cache.update(keys, values)
        with pytest.raises(RuntimeError, match="more than max_len=4"):
            cache.update(*pair(2))
    assert len(cache) == 3


# ---------------------------------------------------------------- GPT.extend


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cuts", [[24], [1] * 24, [5, 1, 1, 9, 8]])
def test_cached_logits_are_those_of_the_whole_text(way, cuts):
    model, ids = model_of(**WAYS[way]), drawn(3, 24)
    caches, start = new_caches(model, block=7), 0
    with shared.no_grad():
        whole = model(ids)
        for length in cuts:
            logits = model.extend(ids[:, start : start + length], caches, logits_to_keep=length)
            start += length
            assert tuple(logits.shape) == (3, length, 11) and len(caches[0]) == start
            assert_close(logits, whole[:, start - length : start], rtol=1e-5, atol=1e-5)


def test_only_the_last_tokens_are_scored():
    model, ids = model_of(), drawn(2, 6)
    with shared.no_grad():
        whole = model(ids)
        assert_close(model.extend(ids, new_caches(model)), whole[:, -1:], rtol=1e-5, atol=1e-5)
        assert_close(model.extend(ids, new_caches(model), logits_to_keep=3), whole[:, -3:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [0, -1, 7])
def test_as_many_scores_as_asked_for_or_an_error(number):
    caches = new_caches(model_of())
    with shared.no_grad(), pytest.raises(ValueError, match=f"expected 1 ≤ logits_to_keep ≤ 6, but got {number}"):
        model_of().extend(drawn(2, 6), caches, logits_to_keep=number)
    assert len(caches[0]) == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_shorter_text_in_a_batch_is_read_as_if_it_were_alone(way):
    model, texts = model_of(**WAYS[way]), [[1, 2, 3, 4, 5], [6, 7], [8]]
    more = [[9, 1, 2], [3, 4, 5], [6, 7, 8]]
    ids, padding = pad_left(texts)
    caches = new_caches(model, block=3)
    with shared.no_grad():
        batched = [model.extend(ids, caches, padding)]
        batched += [model.extend(shared.tensor([row[i : i + 1] for row in more]), caches, padding) for i in range(3)]
        for row, (text, rest) in enumerate(zip(texts, more, strict=True)):
            alone = model(shared.tensor([text + rest]))[0]
            for i, logits in enumerate(batched):
                assert_close(logits[row, 0], alone[len(text) - 1 + i], rtol=1e-5, atol=1e-5)


def test_a_text_beyond_the_context_is_an_error():
    model = model_of()
    caches = new_caches(model)
    with shared.no_grad():
        model.extend(drawn(2, 20), caches)
        for padding in (None, shared.tensor([0, 2])):
            with pytest.raises(RuntimeError, match="positions 20 … 24"):
                model.extend(drawn(2, 5), caches, padding)
    assert len(caches[0]) == 20
