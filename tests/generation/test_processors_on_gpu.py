"""Samplers, penalties, the choice and the measures on the GPU, or on the stand-in of CuPy: as on the CPU."""

import math
from contextlib import nullcontext

import pytest

import shared
from shared.generation.config import GenerationConfig, choose, process
from shared.generation.measures import entropy, log_probability, surprise
from tests.cuda.stand_in import in_place_of_cupy
from tests.generation.samples import random_logits, rows_of
from tests.models.samples import SMALL, model_of

SETTINGS = {
    "logit_bias": {3: 2.0, 5: -math.inf},
    "repetition_penalty": 1.7,
    "presence_penalty": 0.8,
    "frequency_penalty": 0.6,
    "no_repeat_ngram_size": 2,
    "temperature": 0.7,
    "top_k": 9,
    "top_p": 0.8,
    "min_p": 0.2,
}


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cuda(request):
    """The device "cuda", real or not."""
    with in_place_of_cupy() if request.param == "stand-in" else nullcontext():
        yield "cuda"


@pytest.mark.parametrize("names", [[name] for name in SETTINGS] + [list(SETTINGS)], ids=lambda names: names[-1])
def test_logits_are_processed_where_they_are(cuda, names):
    logits, rows = random_logits(3, 300, spread=2.0), rows_of(3, 40, 300)
    config = GenerationConfig(**{name: SETTINGS[name] for name in names})
    found, expected = process(logits.to(cuda), rows, rows, config), process(logits, rows, rows, config)
    assert found.device == cuda and found.dtype == shared.float32
    for a, b in zip(found.cpu().tolist(), expected.tolist(), strict=True):
        assert a == pytest.approx(b, rel=1e-6)


def test_tokens_are_chosen_there(cuda):
    logits = random_logits(3, 300)
    best = choose(logits.to(cuda), GenerationConfig(temperature=0))
    assert best == choose(logits, GenerationConfig(temperature=0)) and type(best[0]) is int
    only = logits.masked_fill(shared.arange(300) != 7, -math.inf).to(cuda)
    assert choose(only, GenerationConfig(), shared.Generator(cuda).manual_seed(0)) == [7, 7, 7]
    with pytest.raises(ValueError, match="no token is left in row 0"):
        choose(only - math.inf, GenerationConfig())


def test_a_model_there_is_measured_with_ids_from_here(cuda):
    model = model_of(SMALL).eval()
    expected = [f(model, [1, 2, 3]) for f in (surprise, entropy)], log_probability(model, [1, 2, 3])
    model.to(cuda)
    found = [f(model, shared.tensor([1, 2, 3])) for f in (surprise, entropy)], log_probability(model, [1, 2, 3])
    assert all(f.device == cuda for f in found[0])
    for a, b in zip(found[0], expected[0], strict=True):
        assert a.cpu().tolist() == pytest.approx(b.tolist(), rel=1e-4)
    assert found[1] == pytest.approx(expected[1], rel=1e-4)
