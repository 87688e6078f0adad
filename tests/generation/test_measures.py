"""Surprise and entropy of a text under a model, and how varied it is: by hand, by formula, and what may not change."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest

import shared
from shared.generation.measures import (
    distinct_n,
    entropy,
    entropy_of_logits,
    log_probability,
    logits_of,
    ngrams,
    repetition,
    surprise,
)
from shared.models import next_token_loss
from shared.testing import assert_close
from tests.models.samples import SMALL, ids_of, model_of


def bigrams(table):
    """A language model that is a table: row i has the probabilities of what follows token i."""
    model = shared.nn.Embedding(len(table), len(table))
    with shared.no_grad():
        model.weight.copy_(shared.tensor(table).log())
    return model


TABLE = [[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.125, 0.125, 0.25, 0.5]]


# ---------------------------------------------------------------- what a model thinks


def test_surprise_is_the_bits_of_each_token_after_the_first():
    assert surprise(bigrams(TABLE), [0, 2, 0, 1, 3, 3]).tolist() == pytest.approx([3, 0, 2, 2, 1], abs=1e-6)


def test_entropy_is_that_of_what_comes_after_each_token():
    bits = entropy(bigrams(TABLE), [0, 1, 2, 3])
    assert bits.tolist() == pytest.approx([1.75, 2, 0, 1.75], abs=1e-6) and bits.dtype == shared.float32


def test_log_probability_sums_what_comes_after_the_start():
    model, text = bigrams(TABLE), [0, 2, 0, 1, 3, 3]
    for start, bits in enumerate([8, 5, 5, 3, 1, 0], start=1):
        assert log_probability(model, text, start) == pytest.approx(-bits * math.log(2), abs=1e-6)
    assert log_probability(model, text) == log_probability(model, text, 1)


def test_of_a_gpt_they_are_the_loss_and_the_formula():
    model, ids = model_of(SMALL), ids_of(10)
    with shared.no_grad():
        logits = model(ids.unsqueeze(0))
    p = shared.softmax(logits[0].double(), dim=-1).numpy()
    assert_close(entropy(model, ids).double(), shared.tensor(-(p * np.log2(p)).sum(-1)), rtol=1e-5, atol=1e-5)
    assert_close(
        surprise(model, ids).double(), shared.tensor(-np.log2(p[np.arange(9), ids[1:].numpy()])), rtol=1e-5, atol=1e-5
    )
    loss = next_token_loss(logits[:, :-1], ids[1:].unsqueeze(0)).item()
    assert surprise(model, ids).mean().item() * math.log(2) == pytest.approx(loss, rel=1e-5)


def test_a_later_token_changes_no_earlier_bits():
    model, ids = model_of(SMALL), ids_of(10).tolist()
    other = [*ids[:-1], (ids[-1] + 1) % 13]
    assert_close(surprise(model, ids)[:-1], surprise(model, other)[:-1])
    assert_close(entropy(model, ids)[:-1], entropy(model, other)[:-1])
    assert surprise(model, ids)[-1].item() != surprise(model, other)[-1].item()


def test_lists_and_tensors_of_any_integers_are_ids():
    model = model_of(SMALL)
    for ids in (shared.tensor([3, 1, 4]), shared.tensor([3, 1, 4], dtype=shared.int32), (3, 1, 4), range(3, 6)):
        assert tuple(surprise(model, ids).shape) == (2,) and tuple(entropy(model, ids).shape) == (3,)
    assert_close(surprise(model, [3, 1, 4]), surprise(model, shared.tensor([3, 1, 4])))


def test_one_token_has_no_surprise_but_an_entropy():
    model = model_of(SMALL)
    assert tuple(surprise(model, [5]).shape) == (0,) and tuple(entropy(model, [5]).shape) == (1,)
    assert log_probability(model, [5]) == 0


@pytest.mark.parametrize("ids", [[], list(range(11)), shared.zeros(1, 3, dtype=shared.int64)], ids=["0", "11", "1x3"])
def test_texts_that_the_model_cannot_read_are_refused(ids):
    for measure in (surprise, entropy):
        with pytest.raises(ValueError, match=r"expected ids \(T,\), 1 ≤ T ≤ 10, but got shape"):
            measure(model_of(SMALL), ids)


@pytest.mark.parametrize("start", [0, -1, 4])
def test_the_start_lies_in_the_text(start):
    with pytest.raises(ValueError, match=f"expected 1 ≤ start ≤ 3, but got {start}"):
        log_probability(model_of(SMALL), [1, 2, 3], start)


@pytest.mark.parametrize("training", [False, True])
def test_measuring_changes_nothing(training):
    model = model_of(replace(SMALL, dropout=0.5))
    model.train(training)
    shared.manual_seed(0)
    state = shared.get_rng_state()
    first, second = surprise(model, ids_of(9)), surprise(model, ids_of(9))
    assert first.tolist() == second.tolist() and not first.requires_grad and not entropy(model, [1]).requires_grad
    assert model.training is training and all(part.training is training for part in model.modules())
    assert (shared.get_rng_state() == state).all() and all(p.grad is None for p in model.parameters())
    with pytest.raises(IndexError):
        surprise(model, [1, 99])
    assert model.training is training


def test_a_model_in_eval_mode_is_read_by_many_threads():
    model, found = model_of(SMALL).eval(), {}
    expected = [surprise(model, ids_of(10, seed=i)).tolist() for i in range(4)]

    def measure(i):
        found[i] = [surprise(model, ids_of(10, seed=i)).tolist() for _ in range(10)]

    threads = [threading.Thread(target=measure, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == [expected[i]] * 10 for i in range(4))


def test_logits_of_returns_the_ids_that_were_read():
    logits, ids = logits_of(model_of(SMALL), [1, 2])
    assert tuple(logits.shape) == (2, 13) and ids.tolist() == [1, 2] and ids.dtype == shared.int64


def test_forbidden_tokens_add_nothing_to_an_entropy():
    logits = shared.tensor([[[0.0, 0.0, -math.inf, 0.0, 0.0], [-math.inf, 7.0, -math.inf, -math.inf, -math.inf]]])
    bits = entropy_of_logits(logits)
    assert bits.tolist() == [[2.0, 0.0]] and not np.signbit(bits.numpy()).any()


def test_entropy_of_extreme_logits_is_finite():
    logits = shared.tensor([[1e4, -1e4, 0.0], [3e38, 3e38, -3e38], [1e-30, 0.0, -1e-30]])
    assert entropy_of_logits(logits).tolist() == pytest.approx([0, 1, math.log2(3)], abs=1e-6)


# ---------------------------------------------------------------- how varied a text is


def test_ngrams_of_ids_words_and_letters():
    assert ngrams([1, 2, 3], 1) == [(1,), (2,), (3,)] and ngrams(shared.tensor([1, 2, 3]), 3) == [(1, 2, 3)]
    assert ngrams("to be".split(), 2) == [("to", "be")] and ngrams("abc", 2) == [("a", "b"), ("b", "c")]
    assert ngrams(iter([1, 2]), 2) == [(1, 2)]


def test_hand_counted_texts():
    # 1 2 1 2 3: the pairs 12 21 12 23, of which 12 comes twice
    assert distinct_n([1, 2, 1, 2, 3], 2) == 0.75 and repetition([1, 2, 1, 2, 3], 2) == 0.25
    assert distinct_n([1, 2, 1, 2, 3], 1) == 0.6 and repetition([1, 2, 1, 2, 3], 1) == 0.4
    assert distinct_n([1, 2, 1, 2, 3], 3) == 1 and repetition([1, 2, 1, 2, 3], 3) == 0
    # overlapping: in 7 7 7 7 the second and the third pair stood there before
    assert repetition([7] * 4, 2) == pytest.approx(2 / 3) and distinct_n([7] * 4, 2) == pytest.approx(1 / 3)
    # a loop of two words, long enough: two bigrams, the rest repeats
    assert repetition(["so", "it"] * 50, 2) == pytest.approx(97 / 99)


@pytest.mark.parametrize("ids", [[0.5, 1.0], [True, False], np.array([1.0, 2.0]), shared.tensor([1.0, 2.0])])
@pytest.mark.parametrize("measure", [surprise, entropy, log_probability])
def test_ids_that_are_no_integers_are_refused(measure, ids):
    with pytest.raises(TypeError, match=r"expected ids that are integers, but got (float32|float64|bool)"):
        measure(bigrams(TABLE), ids)


@pytest.mark.parametrize("dtype", [shared.bfloat16, shared.float16])
def test_a_model_of_16_bits_is_measured_in_32(dtype):
    shared.manual_seed(0)
    model, ids = shared.nn.Embedding(50, 50).to(dtype), list(range(50))
    logits = model.weight.detach().float().numpy().astype(float)
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = -logp[np.arange(49), np.arange(1, 50)] / math.log(2)
    np.testing.assert_allclose(surprise(model, ids).numpy(), wanted, rtol=1e-5)
    np.testing.assert_allclose(entropy(model, ids).numpy(), -(np.exp(logp) * logp).sum(1) / math.log(2), rtol=1e-5)


def test_integers_of_any_kind_are_ids():
    wanted = surprise(bigrams(TABLE), [0, 2, 0, 1]).tolist()
    for kind in ("uint8", "int16", "int32"):
        assert surprise(bigrams(TABLE), np.array([0, 2, 0, 1], kind)).tolist() == wanted


@pytest.mark.parametrize("measure", [distinct_n, repetition, ngrams])
@pytest.mark.parametrize("ids, n", [([], 1), ([1, 2], 3), ([1, 2], 0), ([1, 2], -1)])
def test_a_text_without_such_groups_is_refused(measure, ids, n):
    with pytest.raises(ValueError, match=rf"expected 1 ≤ n ≤ {len(ids)}, the length of the text, but got n={n}"):
        measure(ids, n)


def test_of_random_texts_both_are_what_counting_says():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies

    @hypothesis.given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 4))
    def check(ids, n):
        hypothesis.assume(len(ids) >= n)
        places = range(len(ids) - n + 1)
        old = [i for i in places if any(ids[j : j + n] == ids[i : i + n] for j in range(i))]
        assert repetition(ids, n) == len(old) / len(places)
        assert distinct_n(ids, n) == pytest.approx(1 - repetition(ids, n))
        names = {0: "a", 1: "b", 2: "a b", 3: ""}  # whatever the tokens are called
        assert repetition([names[i] for i in ids], n) == repetition(ids, n)

    check()
