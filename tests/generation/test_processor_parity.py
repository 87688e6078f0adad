"""The same logits through transformers' processors and through ours: one by one, and all in its order."""

import math
import os

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here is to be downloaded
torch = pytest.importorskip("torch", reason="compares with transformers, which needs PyTorch")
transformers = pytest.importorskip("transformers", reason="compares with transformers")
from transformers.generation import logits_process as theirs  # noqa: E402

import shared  # noqa: E402
from shared.generation import processors as ours  # noqa: E402
from shared.generation.config import GenerationConfig, process  # noqa: E402
from tests.generation.samples import random_logits, rows_of  # noqa: E402

NONE = -math.inf
V = 61  # a prime: no p is a number of equally likely tokens exactly, where rounding decides


def hard_logits():
    """Many kinds of rows: flat and peaked, ties, forbidden tokens, numbers near float32's limits."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(0, spread, V) for spread in (0.01, 0.5, 2, 8, 50)]
    rows += [np.round(rng.normal(0, spread, V)) for spread in (1, 3)]  # ties
    rows += [np.zeros(V), np.full(V, -1e4), np.where(np.arange(V) == 7, 1e4, -1e4), np.linspace(-3e38, 3e38, V)]
    rows += [np.where(rng.random(V) < share, NONE, rng.normal(0, 2, V)) for share in (0.3, 0.9)]
    rows += [np.where(np.arange(V) == 3, -5.0, NONE), rng.normal(0, 2, V) * 1e-30]
    return shared.tensor(np.stack(rows), dtype=shared.float32)


LOGITS = hard_logits()


def run(processor, logits, ids=None):
    """What a processor of transformers makes of logits (B, V), as an array; ids (B, T)."""
    ids = torch.zeros(len(logits), 0, dtype=torch.long) if ids is None else torch.tensor(ids, dtype=torch.long)
    return processor(ids, torch.tensor(logits.numpy().copy())).numpy()


def assert_equal(found, expected):
    """The same tokens forbidden, and the other scores the same to a rounding."""
    found = found.numpy()
    np.testing.assert_array_equal(found == NONE, expected == NONE)
    np.testing.assert_allclose(found, expected, rtol=3e-7)


@pytest.mark.parametrize("t", [0.01, 0.5, 0.7, 1.0, 1.3, 10.0])
def test_temperature(t):
    assert_equal(ours.temperature(LOGITS, t), run(theirs.TemperatureLogitsWarper(t), LOGITS))


@pytest.mark.parametrize("k", [1, 2, 5, 40, V - 1, V, 1000])
def test_top_k(k):
    assert_equal(ours.top_k(LOGITS, k), run(theirs.TopKLogitsWarper(k), LOGITS))


@pytest.mark.parametrize("p", [0.001, 0.05, 0.3, 0.5, 0.77, 0.9, 0.95, 0.99, 0.9999])
def test_top_p(p):
    """Among equal scores at the edge of the nucleus, which of them stay is open: as many, and the same above."""
    found, expected = ours.top_p(LOGITS, p).numpy(), run(theirs.TopPLogitsWarper(p), LOGITS)
    for x, a, b in zip(LOGITS.numpy(), found, expected, strict=True):
        assert sorted(a) == sorted(b)
        edge = a[a > NONE].min()
        np.testing.assert_array_equal(np.where(x > edge, a, 0), np.where(x > edge, b, 0))
        assert (a[x > edge] == x[x > edge]).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("spread", [0.5, 3.0, 6.0])
def test_top_p_of_a_large_vocabulary(p, spread):
    """Sums of many small numbers are rounded differently: what differs may be worth no more than that rounding."""
    logits = random_logits(2, 50257, spread=spread)
    found, expected = ours.top_p(logits, p).numpy(), run(theirs.TopPLogitsWarper(p), logits)
    probabilities = shared.softmax(logits.double(), dim=-1).numpy()
    for row in range(2):
        differ = (found[row] == NONE) != (expected[row] == NONE)
        assert probabilities[row][differ].sum() < 2e-6


@pytest.mark.parametrize("p", [0.0, 0.001, 0.05, 0.1, 0.3, 0.9, 1.0])
def test_min_p(p):
    assert_equal(ours.min_p(LOGITS, p), run(theirs.MinPLogitsWarper(p), LOGITS))


def same_length(longest=40, seed=1):
    return np.random.default_rng(seed).integers(0, V, (len(LOGITS), longest)).tolist()


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.2, 5.0])
def test_repetition_penalty(penalty):
    seen = same_length()
    expected = run(theirs.RepetitionPenaltyLogitsProcessor(penalty), LOGITS, seen)
    assert_equal(ours.repetition_penalty(LOGITS, seen, penalty), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 20, 41])
def test_no_repeat_ngrams(n):
    seen = [[i % 4 for i in row] for row in same_length()]  # of four tokens, so that groups repeat
    expected = run(theirs.NoRepeatNGramLogitsProcessor(n), LOGITS, seen)
    found = ours.no_repeat_ngrams(LOGITS, seen, n)
    assert_equal(found, expected)
    assert (n > 4) == (found.tolist() == LOGITS.tolist())


def test_rows_of_unequal_length_are_as_each_alone():
    logits, seen = random_logits(6, 30), rows_of(6, 40, 5)[:5] + [[1]]
    found = [ours.repetition_penalty(logits, seen, 1.3), ours.no_repeat_ngrams(logits, seen, 2)]
    for row, ids in enumerate(seen):
        for out, processor in zip(
            found, (theirs.RepetitionPenaltyLogitsProcessor(1.3), theirs.NoRepeatNGramLogitsProcessor(2)), strict=True
        ):
            assert_equal(out[row : row + 1], run(processor, logits[row : row + 1], [ids]))


def test_logit_bias():
    biases = {0: 1.5, 7: -3.25, 60: NONE}
    expected = run(theirs.SequenceBiasLogitsProcessor({(i,): b for i, b in biases.items()}), LOGITS, same_length())
    assert_equal(ours.logit_bias(LOGITS, biases), expected)


def test_presence_and_frequency_by_openai_s_formula():
    """mu[j] − c[j] · alpha_frequency − float(c[j] > 0) · alpha_presence; transformers has neither."""
    new = rows_of(len(LOGITS), 30, V)
    found = ours.presence_penalty(ours.frequency_penalty(LOGITS, new, 0.3), new, 0.7).numpy()
    mu = LOGITS.numpy().astype("float64")
    for row, ids in enumerate(new):
        for j in range(V):
            c = ids.count(j)
            expected = mu[row, j] - c * 0.3 - float(c > 0) * 0.7
            assert found[row, j] == pytest.approx(expected, rel=1e-6, abs=1e-6)


# ---------------------------------------------------------------- all of them, in the order of transformers

SETTINGS = {
    "logit_bias": {3: 1.0, 8: NONE},
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "temperature": 0.8,
    "top_k": 12,
    "top_p": 0.85,
    "min_p": 0.1,
}
WITHOUT = [*SETTINGS, None]


@pytest.fixture(scope="module")
def model():
    config = transformers.GPT2Config(vocab_size=30, n_positions=8, n_embd=4, n_layer=1, n_head=1)
    return transformers.GPT2LMHeadModel(config)


@pytest.mark.parametrize("left_out", WITHOUT)
@pytest.mark.parametrize("temperature", [0, 0.8])
def test_the_order_is_that_of_generate(model, left_out, temperature):
    settings = {k: v for k, v in SETTINGS.items() if k != left_out}
    if temperature == 0:
        settings["temperature"] = 0
    mine = GenerationConfig(**settings)
    biases = settings.pop("logit_bias", None)
    greedy = settings.get("temperature") == 0
    if greedy:
        settings = {k: v for k, v in settings.items() if k in ("repetition_penalty", "no_repeat_ngram_size")}
    given = transformers.GenerationConfig(
        do_sample=not greedy, sequence_bias=biases and {(i,): b for i, b in biases.items()}, **settings
    )
    if "top_k" not in settings:
        given.top_k = None  # where a default of 50 is meant
    seen = np.random.default_rng(0).integers(0, 6, (4, 20)).tolist()
    chain = model._get_logits_processor(generation_config=given, input_ids_seq_length=20, device="cpu")
    for seed in range(10):
        logits = random_logits(4, 30, seed=seed, spread=2.0)
        found = process(logits, seen, [[]] * 4, mine)
        assert_equal(found, run(chain, logits, seen))
        assert (found.numpy() == NONE).any() and (found.numpy() > NONE).any()
