"""Samplers and penalties: by hand, what must hold for any logits, errors. Draws: test_sampler_statistics.py."""

import math

import numpy as np
import pytest

import shared
from shared.generation.processors import (
    frequency_penalty,
    logit_bias,
    min_p,
    no_repeat_ngrams,
    presence_penalty,
    repetition_penalty,
    temperature,
    token_counts,
    top_k,
    top_p,
)
from tests.generation.samples import random_logits, rows_of

NONE = -math.inf
# Each function with a setting that does something, as a function of logits and B rows of ids.
EACH = {
    "temperature": lambda x, rows: temperature(x, 0.7),
    "top_k": lambda x, rows: top_k(x, 3),
    "top_p": lambda x, rows: top_p(x, 0.6),
    "min_p": lambda x, rows: min_p(x, 0.3),
    "repetition_penalty": lambda x, rows: repetition_penalty(x, rows, 1.4),
    "presence_penalty": lambda x, rows: presence_penalty(x, rows, 0.6),
    "frequency_penalty": lambda x, rows: frequency_penalty(x, rows, 0.6),
    "no_repeat_ngrams": lambda x, rows: no_repeat_ngrams(x, rows, 2),
    "logit_bias": lambda x, rows: logit_bias(x, {0: 2.0, 3: NONE}),
}
SAMPLERS = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
every = pytest.mark.parametrize("name", EACH)


def logits_with(*probabilities):
    """Logits of which softmax makes these probabilities, up to rounding; 0 is −inf."""
    with np.errstate(divide="ignore"):
        return shared.tensor(np.log(np.array([probabilities])), dtype=shared.float32)


def kept(logits):
    """For each row the ids that may be drawn."""
    return [set(np.flatnonzero(row > NONE).tolist()) for row in logits.numpy()]


# ---------------------------------------------------------------- by hand


def test_temperature_divides():
    assert temperature(shared.tensor([[4.0, -2.0, NONE]]), 2.0).tolist() == [[2.0, -1.0, NONE]]
    # softmax([ln 4, ln 1] / 0.5) = softmax([ln 16, ln 1]): 16 to 1, not 4 to 1
    cold = shared.softmax(temperature(logits_with(0.8, 0.2), 0.5), dim=-1)
    assert cold.tolist() == [pytest.approx([16 / 17, 1 / 17])]


def test_top_k_keeps_the_k_largest_and_ties_with_the_last_of_them():
    logits = shared.tensor([[1.0, 5.0, 3.0, 3.0, -1.0], [0.0, 0.0, 0.0, 0.0, 0.0], [9.0, NONE, NONE, NONE, 2.0]])
    assert kept(top_k(logits, 1)) == [{1}, {0, 1, 2, 3, 4}, {0}]
    assert kept(top_k(logits, 2)) == [{1, 2, 3}, {0, 1, 2, 3, 4}, {0, 4}]
    assert kept(top_k(logits, 4)) == [{0, 1, 2, 3}, {0, 1, 2, 3, 4}, {0, 4}]
    for k in (5, 6, 10**9):
        assert top_k(logits, k).tolist() == logits.tolist()


@pytest.mark.parametrize(
    "p, expected",
    [
        (1e-9, {2}),
        (0.35, {2}),
        (0.45, {2, 0}),
        (0.65, {2, 0}),
        (0.75, {2, 0, 3}),
        (0.92, {2, 0, 3, 1}),
        (1.0, {2, 0, 3, 1, 4}),
    ],
)
def test_top_p_keeps_the_token_with_which_the_sum_reaches_p(p, expected):
    # falling: 0.4 (2), 0.3 (0), 0.2 (3), 0.06 (1), 0.04 (4); sums 0.4, 0.7, 0.9, 0.96, 1
    assert kept(top_p(logits_with(0.3, 0.06, 0.4, 0.2, 0.04), p)) == [expected]


def test_top_p_stops_where_the_sum_is_p_exactly():
    # powers of 2 have no rounding: 1/2 reaches 0.5, and 1/2 + 1/4 reaches 0.75
    logits = shared.tensor([[math.log(2), 0.0, 0.0]])
    assert shared.softmax(logits, dim=-1).tolist() == [[0.5, 0.25, 0.25]]
    assert kept(top_p(logits, 0.5)) == [{0}] and kept(top_p(logits, 0.75)) == [{0, 1}]


def test_top_p_keeps_the_lower_ids_of_what_ties_at_its_edge():
    logits = shared.zeros(1, 1000)
    assert kept(top_p(logits, 0.1005)) == [set(range(101))]
    logits[0, 600] = 1.0  # e in 999 + e
    assert kept(top_p(logits, 0.1)) == [{600, *range(98)}]


def test_the_likeliest_is_in_the_nucleus_even_where_softmax_cannot_tell():
    assert kept(top_p(shared.tensor([[0.0, 1e-12, -1e-12]]), 0.2)) == [{1}]


def test_each_row_has_its_own_nucleus():
    logits = shared.cat([logits_with(0.97, 0.01, 0.01, 0.01), logits_with(0.2, 0.3, 0.24, 0.26)])
    assert kept(top_p(logits, 0.5)) == [{0}, {1, 3}]
    assert kept(min_p(logits, 0.75)) == [{0}, {1, 2, 3}]


def test_min_p_compares_with_the_likeliest():
    logits = logits_with(0.4, 0.2, 0.1, 0.3)
    assert kept(min_p(logits, 0.2)) == [{0, 1, 2, 3}]  # at least 0.08
    assert kept(min_p(logits, 0.3)) == [{0, 1, 3}]  # at least 0.12
    assert kept(min_p(logits, 0.6)) == [{0, 3}] and kept(min_p(logits, 0.9)) == [{0}]
    assert kept(min_p(shared.tensor([[2.0, 2.0, 1.0]]), 1.0)) == [{0, 1}]


def test_counts_are_of_each_row():
    counts = token_counts([[3, 3, 0], [], [1]], shared.zeros(3, 4))
    assert counts.tolist() == [[1, 0, 0, 2], [0] * 4, [0, 1, 0, 0]] and counts.dtype == shared.float32


def test_repetition_penalty_makes_positive_and_negative_scores_less_likely():
    logits = shared.tensor([[3.0, -3.0, 0.0, 3.0, NONE], [3.0, -3.0, 1.0, 3.0, 1.0]])
    out = repetition_penalty(logits, [[0, 1, 2, 1, 1, 4], []], 1.5)
    assert out.tolist() == [[2.0, -4.5, 0.0, 3.0, NONE], [3.0, -3.0, 1.0, 3.0, 1.0]]


def test_presence_counts_once_and_frequency_each_time():
    logits, new = shared.tensor([[1.0, 1.0, 1.0, NONE], [1.0, 1.0, 1.0, 1.0]]), [[0, 2, 2, 2, 3], []]
    assert presence_penalty(logits, new, 0.5).tolist() == [[0.5, 1.0, 0.5, NONE], [1.0] * 4]
    assert frequency_penalty(logits, new, 0.5).tolist() == [[0.5, 1.0, -0.5, NONE], [1.0] * 4]
    assert presence_penalty(logits, new, -0.5).tolist()[0] == [1.5, 1.0, 1.5, NONE]
    assert frequency_penalty(logits, new, -0.5).tolist()[0] == [1.5, 1.0, 2.5, NONE]


def test_ngrams_that_would_occur_again_are_forbidden():
    logits = shared.zeros(1, 5)
    allowed = lambda seen, n: kept(no_repeat_ngrams(logits, [seen], n))[0]  # noqa: E731
    assert allowed([1, 2, 3, 1, 2], 3) == {0, 1, 2, 4}  # 1 2 was followed by 3
    assert allowed([1, 2, 3, 1, 2, 4, 1, 2], 3) == {0, 1, 2}  # and by 4
    assert allowed([1, 2, 3, 1], 2) == {0, 1, 3, 4} and allowed([1, 2, 3, 1], 1) == {0, 4}
    assert allowed([1, 1], 2) == {0, 2, 3, 4}  # 1 1 is there already, the last 1 its end
    assert allowed([1, 1], 3) == {0, 1, 2, 3, 4} and allowed([1, 1, 1], 3) == {0, 2, 3, 4}
    for short in ([], [1], [1, 2]):
        assert allowed(short, 3) == {0, 1, 2, 3, 4} == allowed(short, 9)


def test_ngrams_are_each_row_s_own():
    out = no_repeat_ngrams(shared.zeros(3, 3), [[0, 1, 0], [0, 2, 0], []], 2)
    assert kept(out) == [{0, 2}, {0, 1}, {0, 1, 2}]


def test_biases_are_added_in_every_row():
    out = logit_bias(shared.tensor([[1.0, 2.0, 3.0], [0.0, NONE, 0.0]]), {1: 0.5, 2: -4})
    assert out.tolist() == [[1.0, 2.5, -1.0], [0.0, NONE, -4.0]]
    odds = shared.softmax(logit_bias(shared.zeros(1, 3), {0: math.log(2)}), dim=-1)
    assert odds.tolist() == [pytest.approx([0.5, 0.25, 0.25])]


# ---------------------------------------------------------------- for all of them


@every
@pytest.mark.parametrize("dtype", [shared.float64, shared.float32, shared.float16, shared.bfloat16])
def test_shape_dtype_and_input_stay(name, dtype):
    logits, rows = random_logits(4, 9, dtype=dtype), rows_of(4, 30, 9)
    before = logits.numpy().copy()
    out = EACH[name](logits, rows)
    assert out.dtype == dtype and tuple(out.shape) == (4, 9) and out is not logits
    np.testing.assert_array_equal(logits.numpy(), before)
    assert not np.array_equal(out.numpy(), before), "the example would not show it"
    out.fill_(0.0)
    np.testing.assert_array_equal(logits.numpy(), before)


@every
def test_rows_do_not_see_each_other(name):
    logits, rows = random_logits(5, 400, spread=2.0), rows_of(5, 30, 400)
    together = EACH[name](logits, rows).tolist()
    assert together == [EACH[name](logits[i : i + 1], [rows[i]]).tolist()[0] for i in range(5)]


@every
def test_what_is_forbidden_stays_so_and_nothing_becomes_nan(name):
    logits = random_logits(3, 300)
    logits[0, ::2], logits[1], logits[2, 1:] = NONE, NONE, NONE
    out = EACH[name](logits, rows_of(3, 20, 300)).numpy()
    assert not np.isnan(out).any() and (out[logits.numpy() == NONE] == NONE).all()


@every
@pytest.mark.parametrize(
    "logits", [shared.zeros(5), shared.zeros(1, 2, 5), shared.zeros(2, 5).long()], ids=["V", "BTV", "int"]
)
def test_logits_of_another_shape_or_kind_are_refused(name, logits):
    shape = ", ".join(str(n) for n in logits.shape)
    with pytest.raises(
        ValueError, match=rf"{name}: expected floating logits \(B, V\), but got shape \({shape},?\) of "
    ):
        EACH[name](logits, [[]] * len(logits))


WITH_ROWS = [name for name in EACH if "penalty" in name or "ngrams" in name]


@pytest.mark.parametrize("name", WITH_ROWS)
def test_rows_of_ids_must_fit_the_logits(name):
    with pytest.raises(ValueError, match=f"{name}: logits have 2 rows, but there are ids for 3"):
        EACH[name](shared.zeros(2, 5), [[1], [1], [1]])
    for wrong in (5, -1):
        with pytest.raises(ValueError, match=f"{name}: row 1 has the id {wrong}, but there are 5 tokens"):
            EACH[name](shared.zeros(2, 5), [[0], [1, wrong, 0]])


def test_biases_of_no_token_are_refused():
    for wrong in (5, -1):
        with pytest.raises(ValueError, match=f"logit_bias: .* the id {wrong}, but there are 5 tokens"):
            logit_bias(shared.zeros(2, 5), {0: 1.0, wrong: 1.0})
    assert logit_bias(shared.ones(2, 5), {}).tolist() == [[1.0] * 5] * 2


@pytest.mark.parametrize(
    "call, message",
    [(lambda x, v=v: temperature(x, v), f"temperature: expected a finite t > 0, but got {v}") for v in (0, -1.0, math.nan, math.inf)]
    + [(lambda x, v=v: top_k(x, v), f"top_k: expected k ≥ 1, but got {v}") for v in (0, -3)]
    + [(lambda x, v=v: top_p(x, v), f"top_p: expected 0 < p ≤ 1, but got {v}") for v in (0, -0.1, 1.5, math.nan)]
    + [(lambda x, v=v: min_p(x, v), f"min_p: expected 0 ≤ p ≤ 1, but got {v}") for v in (-0.1, 1.5, math.nan)]
    + [(lambda x, v=v: repetition_penalty(x, [[1]], v), f"finite penalty > 0, but got {v}") for v in (0, -1.0, math.nan, math.inf)]
    + [(lambda x, v=v: no_repeat_ngrams(x, [[1]], v), f"no_repeat_ngrams: expected n ≥ 1, but got {v}") for v in (0, -2)]
    + [(lambda x, v=v: presence_penalty(x, [[1]], v), f"presence_penalty: expected a finite penalty, but got {v}") for v in (math.nan, math.inf, -math.inf)]
    + [(lambda x, v=v: frequency_penalty(x, [[1]], v), f"frequency_penalty: expected a finite penalty, but got {v}") for v in (math.nan, math.inf, -math.inf)]
    + [(lambda x, v=v: logit_bias(x, {1: v}), f"logit_bias: expected finite numbers or -inf, but got {v} for the id 1") for v in (math.nan, math.inf)],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(shared.zeros(1, 3))


def test_settings_that_change_nothing_give_the_same_logits():
    logits, rows = random_logits(4, 30), rows_of(4, 20, 30)
    logits[1, :15] = NONE
    same = [
        temperature(logits, 1.0), top_k(logits, 30), top_p(logits, 1.0), min_p(logits, 0.0), logit_bias(logits, {}),
        repetition_penalty(logits, rows, 1.0), presence_penalty(logits, rows, 0.0), frequency_penalty(logits, rows, 0.0),
        repetition_penalty(logits, [[]] * 4, 3.0), presence_penalty(logits, [[]] * 4, 3.0),
        frequency_penalty(logits, [[]] * 4, 3.0), no_repeat_ngrams(logits, rows, 21),
    ]  # fmt: skip
    for out in same:
        assert out.tolist() == logits.tolist()


# ---------------------------------------------------------------- properties, of any logits

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
# ties are likely, differences small and large, and some tokens forbidden
scores = st.one_of(st.integers(-3, 3).map(float), st.floats(-30, 30, width=32), st.just(NONE))


@st.composite
def any_logits(draw):
    rows, vocab = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    values = [draw(st.lists(scores, min_size=vocab, max_size=vocab)) for _ in range(rows)]
    for row in values:
        if max(row) == NONE:
            row[draw(st.integers(0, vocab - 1))] = 0.0
    return shared.tensor(values)


settings = st.sampled_from(["top_k", "top_p", "min_p"]).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.integers(1, 14) if name == "top_k" else st.floats(0.01, 1.0),
        st.integers(1, 14) if name == "top_k" else st.floats(0.01, 1.0),
    )
)


@hypothesis.given(any_logits(), settings)
def test_a_sampler_keeps_the_likeliest_token_and_the_odds_of_what_it_keeps(logits, setting):
    name, value, _ = setting
    out = SAMPLERS[name](logits, value)
    x, y = logits.numpy(), out.numpy()
    best = x.argmax(axis=1)
    assert (y[np.arange(len(x)), best] == x.max(axis=1)).all() and (y.argmax(axis=1) == best).all()
    assert ((y == x) | (y == NONE)).all()  # equal differences of logits are equal ratios of probabilities
    for row, ids in enumerate(kept(out)):
        others = [i for i in range(x.shape[1]) if i not in ids]
        assert not others or x[row, sorted(ids)].min() >= x[row, others].max()  # none is likelier than what stays


@hypothesis.given(any_logits(), settings)
def test_more_is_kept_with_a_larger_k_and_p_and_a_smaller_min_p(logits, setting):
    name, *values = setting
    few, many = sorted(values, reverse=name == "min_p")
    for small, large in zip(kept(SAMPLERS[name](logits, few)), kept(SAMPLERS[name](logits, many)), strict=True):
        assert small <= large


@hypothesis.given(any_logits(), st.floats(0.01, 0.999))
def test_the_nucleus_reaches_p_and_no_token_of_it_can_be_missed(logits, p):
    probabilities = shared.softmax(logits.double(), dim=-1).numpy()
    for row, ids in enumerate(kept(top_p(logits, p))):
        inside = probabilities[row, sorted(ids)]
        assert inside.sum() >= p - 1e-6 and inside.sum() - inside.min() < p + 1e-6


@hypothesis.given(any_logits(), st.integers(1, 14))
def test_top_k_keeps_k_or_what_ties_and_twice_is_once(logits, k):
    out = top_k(logits, k)
    assert top_k(out, k).tolist() == out.tolist()
    for row, ids in zip(logits.tolist(), kept(out), strict=True):
        possible = sum(score > NONE for score in row)
        assert len(ids) >= min(k, possible)
        assert len([i for i in ids if row[i] > min(row[i] for i in ids)]) < k


@hypothesis.given(any_logits(), st.floats(0.05, 20.0))
def test_temperature_is_a_power_of_the_probabilities(logits, t):
    powers = shared.softmax(logits.double(), dim=-1).numpy() ** (1 / t)
    found = shared.softmax(temperature(logits, t).double(), dim=-1).numpy()
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)


@hypothesis.given(st.data(), any_logits(), st.floats(1.0, 5.0))
def test_penalties_above_1_never_help_and_touch_only_what_was_seen(data, logits, penalty):
    x = logits.numpy()
    rows = [data.draw(st.lists(st.integers(0, x.shape[1] - 1), max_size=8)) for _ in x]
    for out in (
        repetition_penalty(logits, rows, penalty),
        presence_penalty(logits, rows, penalty),
        frequency_penalty(logits, rows, penalty),
    ):
        y = out.numpy()
        assert (y <= x).all()
        for row, ids in enumerate(rows):
            others = [i for i in range(x.shape[1]) if i not in ids]
            assert (y[row, others] == x[row, others]).all()


@hypothesis.given(st.lists(st.integers(0, 3), max_size=14), st.integers(1, 5))
def test_exactly_the_tokens_that_would_repeat_a_group_are_forbidden(ids, n):
    groups = {tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)}
    expected = {token for token in range(4) if tuple([*ids, token][-n:]) not in groups}
    assert kept(no_repeat_ngrams(shared.zeros(1, 4), [ids], n)) == [expected]


def test_samplers_of_a_large_vocabulary_keep_what_a_full_sort_keeps():
    for spread in (0.0, 0.5, 3.0, 10.0):
        logits = random_logits(2, 20_000, spread=spread)
        p = shared.softmax(logits, dim=-1).numpy().astype("float64")
        for share in (0.1, 0.5, 0.9, 0.999):
            for row, ids in enumerate(kept(top_p(logits, share))):
                order = np.argsort(-p[row], kind="stable")
                count = int((np.cumsum(p[row][order]) - p[row][order] < share).sum())
                assert ids == set(order[:count].tolist())
