"""Skip-gram: which pairs, how words are kept and drawn, the loss and its gradient, and that training finds use."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared import optim
from shared.testing import assert_close, gradcheck
from shared.text import (
    NegativeSampler,
    SkipGram,
    keep_probability,
    negative_sampling_loss,
    noise_probabilities,
    skip_gram_pairs,
    subsample,
)

# ---------------------------------------------------------------- pairs


def pairs_one_by_one(ids, window):
    """The definition, place by place."""
    return Counter(
        (ids[i], ids[j]) for i in range(len(ids)) for j in range(len(ids)) if i != j and abs(i - j) <= window
    )


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 15))
def test_pairs_are_all_places_within_the_window(ids, window):
    centers, contexts = skip_gram_pairs(ids, window)
    assert centers.dtype == contexts.dtype == shared.int64 and centers.shape == contexts.shape
    assert Counter(zip(centers.tolist(), contexts.tolist(), strict=True)) == pairs_one_by_one(ids, window)


def test_pairs_of_tensors_and_arrays_are_those_of_lists():
    expected = [sorted(zip(*(x.tolist() for x in skip_gram_pairs([3, 1, 2], 2)), strict=True))]
    for ids in (shared.tensor([3, 1, 2]), np.array([3, 1, 2], dtype=np.int32)):
        centers, contexts = skip_gram_pairs(ids, 2)
        assert sorted(zip(centers.tolist(), contexts.tolist(), strict=True)) == expected[0]


@pytest.mark.parametrize("ids", [[[1, 2]], [1.0, 2.0]])
def test_what_is_no_row_of_ids_is_refused(ids):
    with pytest.raises(ValueError, match="skip_gram_pairs: expected a row of integer ids"):
        skip_gram_pairs(np.array(ids), 2)


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="expected a window of at least 1, but got 0"):
        skip_gram_pairs([1, 2], 0)


# ---------------------------------------------------------------- frequent words, and words drawn at random


def test_frequent_words_are_kept_with_the_root_of_threshold_over_share():
    counts = np.array([64, 16, 4, 0, 16])  # shares 0.64, 0.16, 0.04, 0, 0.16
    assert_close(keep_probability(counts, 0.04), shared.tensor([0.25, 0.5, 1.0, 1.0, 0.5]))
    assert keep_probability(counts, 1.0).tolist() == [1.0] * 5


def test_subsampling_keeps_the_order_and_the_wanted_share():
    ids = np.tile([0, 0, 0, 1], 5000)  # shares 3/4 and 1/4
    kept = subsample(ids, 0.12, shared.Generator().manual_seed(3)).numpy()
    for word, share in ((0, 0.75), (1, 0.25)):
        expected = math.sqrt(0.12 / share)
        n = 20000 * share
        assert abs((kept == word).sum() / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
    everything = np.arange(50)  # all rare: nothing is dropped, nothing moves
    assert subsample(everything, 0.5).tolist() == everything.tolist()


def test_random_words_are_drawn_with_counts_to_the_power():
    counts = [81, 16, 0, 1]
    weights = np.array([27.0, 8.0, 0.0, 1.0])  # 81^¾, 16^¾, 1
    sampler = NegativeSampler(counts, generator=shared.Generator().manual_seed(0))
    assert_close(sampler.probabilities, shared.tensor(weights / weights.sum()))
    drawn = sampler((400, 50))
    assert drawn.shape == (400, 50) and drawn.dtype == shared.int64
    share = np.bincount(drawn.numpy().ravel(), minlength=4) / 20000
    p = weights / weights.sum()
    assert share[2] == 0
    assert (abs(share - p) <= 4 * np.sqrt(p * (1 - p) / 20000)).all(), f"drawn {share}, expected {p}"


def test_power_0_draws_each_word_that_occurs_alike_and_power_1_by_count():
    counts = shared.tensor([6, 0, 2])
    assert noise_probabilities(counts, 0).tolist() == [0.5, 0.0, 0.5]
    assert noise_probabilities(counts, 1).tolist() == [0.75, 0.0, 0.25]


def test_draws_follow_the_seed():
    def draw():
        shared.manual_seed(7)
        return NegativeSampler([1, 2, 3])((20,)).tolist()

    assert draw() == draw()
    same = [NegativeSampler([1, 2, 3], generator=shared.Generator().manual_seed(1))((9,)).tolist() for _ in range(2)]
    assert same[0] == same[1]


@pytest.mark.parametrize("counts", [[], [0, 0], [1, -1], [[1, 2]]])
def test_counts_that_are_no_counts_are_refused(counts):
    with pytest.raises(ValueError, match="NegativeSampler: expected one count of at least 0 for each word"):
        NegativeSampler(np.array(counts))


# ---------------------------------------------------------------- the loss


def loss_pair_by_pair(centers, candidates):
    """Formula 4 of Mikolov et al., number by number."""
    total = 0.0
    for center, (context, *others) in zip(centers, candidates, strict=True):
        total += math.log1p(math.exp(-float(context @ center)))
        total += sum(math.log1p(math.exp(float(other @ center))) for other in others)
    return total / len(centers)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 5), st.integers(0, 100))
def test_the_loss_is_the_formula(pairs, negatives, width, seed):
    rng = np.random.default_rng(seed)
    centers, candidates = rng.normal(size=(pairs, width)), rng.normal(size=(pairs, 1 + negatives, width))
    loss = negative_sampling_loss(shared.tensor(centers), shared.tensor(candidates))
    assert math.isclose(loss.item(), loss_pair_by_pair(centers, candidates), rel_tol=1e-12)


def test_the_gradient_agrees_with_finite_differences():
    shared.manual_seed(0)
    centers = shared.randn(3, 4, dtype=shared.float64, requires_grad=True)
    candidates = shared.randn(3, 1 + 2, 4, dtype=shared.float64, requires_grad=True)
    assert gradcheck(lambda a, b: negative_sampling_loss(a, b) * 3, (centers, candidates))


def test_the_gradient_by_hand():
    center = shared.tensor([[1.0, 2.0]], requires_grad=True)
    candidates = shared.tensor([[[0.0, 0.0], [2.0, -1.0]]], requires_grad=True)  # both scores 0: σ = ½
    loss = negative_sampling_loss(center, candidates)
    loss.backward()
    assert_close(loss, shared.tensor(2 * math.log(2)))
    assert_close(center.grad, shared.tensor([[1.0, -0.5]]))  # (½ − 1) · (0, 0) + ½ · (2, −1)
    assert_close(candidates.grad, shared.tensor([[[-0.5, -1.0], [0.5, 1.0]]]))


def test_the_loss_and_gradient_stay_finite_for_scores_far_from_0():
    for sign in (1, -1):
        center = shared.full((1, 1), 1000.0, requires_grad=True)
        candidates = shared.tensor([[[sign * 1.0], [sign * 1.0]]], requires_grad=True)
        loss = negative_sampling_loss(center, candidates)
        loss.backward()
        assert loss.item() == 1000.0
        assert center.grad.item() == 1.0 * (sign > 0) + 1.0 * (sign < 0)
        assert np.isfinite(candidates.grad.numpy()).all()


def test_the_loss_is_binary_cross_entropy_of_the_scores():
    shared.manual_seed(1)
    centers, candidates = shared.randn(6, 5), shared.randn(6, 4, 5)
    scores = (candidates * centers[:, None]).sum(dim=2)
    labels = shared.zeros(6, 4)
    labels[:, 0] = 1.0
    whole = shared.nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="sum") / 6
    assert_close(negative_sampling_loss(centers, candidates), whole)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 3), (3, 4, 3)), ((2, 3), (2, 4, 5)), ((3,), (2, 4, 3))])
def test_shapes_that_do_not_fit_are_named(shapes):
    with pytest.raises(RuntimeError, match=r"expected centers \(B, D\) and candidates \(B, 1 \+ K, D\), but got"):
        negative_sampling_loss(*(shared.zeros(*shape) for shape in shapes))


# ---------------------------------------------------------------- the model


def test_the_first_loss_is_that_of_guessing():
    model = SkipGram(10, 4)
    loss = model(shared.tensor([1, 2]), shared.tensor([3, 4]), shared.tensor([[5, 6, 7], [8, 9, 0]]))
    assert_close(loss, shared.tensor(4 * math.log(2)))
    assert float(abs(model.center.weight).max().item()) <= 0.5 / 4
    assert float(abs(model.context.weight).max().item()) == 0


def test_only_words_that_took_part_get_a_gradient():
    shared.manual_seed(0)
    model = SkipGram(8, 4)
    with shared.no_grad():
        model.context.weight.normal_()
    model(shared.tensor([1, 1]), shared.tensor([2, 3]), shared.tensor([[5], [5]])).backward()
    moved = [set(np.flatnonzero(abs(p.grad.numpy()).sum(1))) for p in (model.center.weight, model.context.weight)]
    assert moved == [{1}, {2, 3, 5}]


def test_training_puts_words_of_like_use_together():
    """Words a0 … a3 stand before x and y only, b0 … b3 before u and v only: so all a should point one way."""
    rng = np.random.default_rng(0)
    a, b = np.arange(4), np.arange(4, 8)
    text = []
    for _ in range(600):
        text += [rng.choice(a), 8 + rng.integers(2)] if rng.random() < 0.5 else [rng.choice(b), 10 + rng.integers(2)]
    ids = shared.tensor(text)
    shared.manual_seed(0)
    pairs = [(text[i], text[i + 1]) for i in range(0, len(text), 2)]
    centers, contexts = (shared.tensor(list(side)) for side in zip(*pairs, strict=True))
    noise = NegativeSampler(shared.bincount(ids, minlength=12))
    model = SkipGram(12, 8)
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(centers, contexts, noise((len(centers), 3)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    unit = model.center.weight.detach().numpy()[:8]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert losses[-1] < 0.75 * losses[0]
    assert min(cosines[:4, :4].min(), cosines[4:, 4:].min()) > cosines[:4, 4:].max() + 0.3
