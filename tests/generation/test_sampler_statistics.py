"""What is drawn, counted: the chi-squared test against probabilities that are computed by another way.

Seeds are fixed, so a test gives the same on each run; its threshold would let one of a million right samplers fail.
"""

import math

import numpy as np
import pytest
from scipy import stats

import shared
from shared.generation.config import GenerationConfig, choose, process
from tests.generation.samples import random_logits

FALSE_ALARM = 1e-6
DRAWS = 20_000
LOGITS = random_logits(1, 15, seed=8, spread=0.9)


def expected_probabilities(logits, config):
    """Token by token, without a tensor: temperature, then top-k, top-p, min-p, each renormalised."""
    weights = {i: math.exp(x / config.temperature) for i, x in enumerate(logits)}
    if config.top_k is not None:
        least = sorted(weights.values(), reverse=True)[min(config.top_k, len(weights)) - 1]
        weights = {i: w for i, w in weights.items() if w >= least}
    if config.top_p is not None:
        total, reached, nucleus = sum(weights.values()), 0.0, {}
        for i, w in sorted(weights.items(), key=lambda item: -item[1]):
            nucleus[i] = w
            reached += w / total
            if reached >= config.top_p:
                break
        weights = nucleus
    if config.min_p is not None:
        weights = {i: w for i, w in weights.items() if w >= config.min_p * max(weights.values())}
    return np.array([weights.get(i, 0.0) for i in range(len(logits))]) / sum(weights.values())


def fit(counts, probabilities):
    """How probable counts at least as uneven are, if the probabilities are right; 0 for a token that cannot be drawn."""
    possible = probabilities > 0
    if counts[~possible].any():
        return 0.0
    if possible.sum() == 1:
        return 1.0
    return stats.chisquare(counts[possible], counts.sum() * probabilities[possible]).pvalue


def counts_of(config, seed=0, logits=LOGITS):
    rows = process(logits, [[]], [[]], config).expand(DRAWS, -1)
    return np.bincount(choose(rows, config, shared.Generator().manual_seed(seed)), minlength=logits.shape[1])


CONFIGS = [
    GenerationConfig(),
    GenerationConfig(temperature=0.5),
    GenerationConfig(temperature=2.0),
    GenerationConfig(top_k=1),
    GenerationConfig(top_k=4),
    GenerationConfig(top_p=0.3),
    GenerationConfig(top_p=0.9),
    GenerationConfig(min_p=0.1),
    GenerationConfig(min_p=0.5),
    GenerationConfig(temperature=0.7, top_k=6),
    GenerationConfig(temperature=1.5, top_p=0.8),
    GenerationConfig(temperature=1.5, min_p=0.2),
    GenerationConfig(top_k=6, top_p=0.8),
    GenerationConfig(top_p=0.9, min_p=0.2),
    GenerationConfig(temperature=1.2, top_k=8, top_p=0.9, min_p=0.05),
]


def label(config):
    return " ".join(
        f"{name}={getattr(config, name)}"
        for name in ("temperature", "top_k", "top_p", "min_p")
        if getattr(config, name) != getattr(GenerationConfig(), name)
    )


@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_what_is_drawn_has_the_renormalised_distribution(config):
    probabilities = expected_probabilities(LOGITS.tolist()[0], config)
    assert (DRAWS * probabilities[probabilities > 0]).min() >= 5, "too few draws of some token for the test"
    found = fit(counts_of(config), probabilities)
    assert found > FALSE_ALARM, f"{label(config)}: counts this far off come once in {1 / max(found, 1e-300):.0f} times"


def test_the_test_tells_these_distributions_apart():
    """Each of the configs' counts fits its own probabilities only: so the tests above can fail."""
    expected = [expected_probabilities(LOGITS.tolist()[0], config) for config in CONFIGS]
    for i, config in enumerate(CONFIGS):
        counts = counts_of(config, seed=1)
        for j, probabilities in enumerate(expected):
            if not np.allclose(expected[i], probabilities, atol=1e-9):
                assert fit(counts, probabilities) < FALSE_ALARM, f"drawn: {label(config)}, but fits {label(CONFIGS[j])}"


def without_the_crossing_token(logits, p):
    out = process(logits, [[]], [[]], GenerationConfig(top_p=p))
    least = min(x for x in out.tolist()[0] if x > -math.inf)
    return out.masked_fill(out == least, -math.inf)


CLASSIC_BUGS = {
    "nucleus without the token that crosses p": (
        GenerationConfig(top_p=0.9),
        lambda x: without_the_crossing_token(x, 0.9),
    ),
    "temperature after softmax": (GenerationConfig(temperature=0.5), lambda x: (shared.softmax(x, dim=-1) / 0.5).log()),
    "temperature multiplied": (GenerationConfig(temperature=0.5), lambda x: x * 0.5),
    "top-p before the temperature": (
        GenerationConfig(temperature=2.0, top_p=0.6),
        lambda x: process(x, [[]], [[]], GenerationConfig(top_p=0.6)) / 2.0,
    ),
    "min-p as an absolute bound": (
        GenerationConfig(min_p=0.1),
        lambda x: x.masked_fill(shared.softmax(x, dim=-1) < 0.1, -math.inf),
    ),
}


@pytest.mark.parametrize("name", CLASSIC_BUGS)
def test_classic_bugs_would_be_noticed(name):
    config, wrong = CLASSIC_BUGS[name]
    drawn = choose(wrong(LOGITS).expand(DRAWS, -1), config, shared.Generator().manual_seed(0))
    counts = np.bincount(drawn, minlength=LOGITS.shape[1])
    assert fit(counts, expected_probabilities(LOGITS.tolist()[0], config)) < FALSE_ALARM


def test_one_draw_after_another_is_as_good_as_many_rows():
    config = GenerationConfig(temperature=0.9, top_k=5)
    logits, generator = process(LOGITS, [[]], [[]], config), shared.Generator().manual_seed(3)
    counts = np.bincount([choose(logits, config, generator)[0] for _ in range(4000)], minlength=LOGITS.shape[1])
    assert fit(counts, expected_probabilities(LOGITS.tolist()[0], config)) > FALSE_ALARM


def test_neighbouring_draws_are_independent():
    config, generator = GenerationConfig(), shared.Generator().manual_seed(4)
    logits = LOGITS[:, :4]
    drawn = np.array(choose(logits.expand(DRAWS, -1), config, generator))
    pairs = np.bincount(4 * drawn[:-1:2] + drawn[1::2], minlength=16)
    p = expected_probabilities(logits.tolist()[0], config)
    assert fit(pairs, np.outer(p, p).reshape(-1)) > FALSE_ALARM


def test_a_penalised_token_is_drawn_as_its_new_score_says():
    config = GenerationConfig(repetition_penalty=1.5, presence_penalty=0.4, frequency_penalty=0.3, logit_bias={1: 1.0})
    seen, new = [[0, 0, 1, 2, 3]], [[2, 2, 3]]
    scores = LOGITS.tolist()[0]
    scores[1] += 1.0
    for i in {0, 1, 2, 3}:
        scores[i] = scores[i] / 1.5 if scores[i] > 0 else scores[i] * 1.5
    scores[2] -= 2 * 0.3 + 0.4
    scores[3] -= 0.3 + 0.4
    drawn = choose(process(LOGITS, seen, new, config).expand(DRAWS, -1), config, shared.Generator().manual_seed(5))
    probabilities = expected_probabilities(scores, GenerationConfig())
    assert fit(np.bincount(drawn, minlength=15), probabilities) > FALSE_ALARM
    assert fit(np.bincount(drawn, minlength=15), expected_probabilities(LOGITS.tolist()[0], config)) < FALSE_ALARM
