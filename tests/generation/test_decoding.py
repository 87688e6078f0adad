"""The loop: the same text as without caches, rows that do not disturb each other, the context limit, the end."""

from dataclasses import replace

import numpy as np
import pytest

import shared
from shared.generation import GenerationConfig, generate, pad_left, stream
from shared.models import GPT, GPTConfig
from shared.testing import assert_close
from tests.generation.tables import Table
from tests.generation.test_cache import drawn, model_of

GREEDY = GenerationConfig(max_new_tokens=9, temperature=0.0)


def continued(model, prompt, count):
    """The likeliest tokens after a prompt, every one from a whole pass over what is there; and the logits."""
    text, found = list(prompt), []
    with shared.no_grad():
        for _ in range(count):
            logits = model(shared.tensor([text]))[0, -1]
            found.append(logits)
            text.append(int(logits.argmax()))
    return text[len(prompt) :], found


def test_greedy_text_is_that_of_a_loop_without_caches():
    model, prompt = model_of(), [1, 2, 3]
    expected, logits = continued(model, prompt, 9)
    steps = list(stream(model, [prompt], GREEDY))
    assert [step.tokens for step in steps] == [[token] for token in expected]
    for step, wanted in zip(steps, logits, strict=True):
        assert tuple(step.logits.shape) == (1, 11) and not step.logits.requires_grad
        assert_close(step.logits[0], wanted, rtol=1e-5, atol=1e-5)
    assert generate(model, [prompt], GREEDY) == [expected]
    assert generate(model, shared.tensor([prompt]), GREEDY) == [expected]


def test_prompts_of_all_lengths_together_are_each_continued_as_alone():
    model = model_of()
    prompts = [[1, 2, 3, 4, 5, 6], [7], [8, 9, 10], [3, 3, 3, 3, 3]]
    assert generate(model, prompts, GREEDY) == [continued(model, prompt, 9)[0] for prompt in prompts]


def test_nothing_is_written_when_nothing_is_asked_for():
    model = model_of()
    assert generate(model, [[1], [2]], replace(GREEDY, max_new_tokens=1)) == [
        continued(model, [1], 1)[0],
        continued(model, [2], 1)[0],
    ]


@pytest.mark.parametrize("lengths", [[3], [24], [3, 10], [1, 24, 11]])
def test_beyond_the_context_the_last_half_is_read_anew(lengths):
    """The policy in its own words: what fits is read whole; when block_size is full, the last half at places from 0."""
    model, block_size = model_of(), 24
    prompts = [drawn(n, seed=n).tolist() for n in lengths]
    found = generate(model, prompts, replace(GREEDY, max_new_tokens=60))
    full = max(lengths)  # tokens in the caches: as many as the longest text has, fillers included
    texts, begins = [list(p) for p in prompts], [0] * len(prompts)
    with shared.no_grad():
        for _ in range(60):
            if full > block_size:
                begins, full = (
                    [max(b, len(t) - block_size // 2) for b, t in zip(begins, texts, strict=True)],
                    block_size // 2,
                )
            for text, begin in zip(texts, begins, strict=True):
                text.append(int(model(shared.tensor([text[begin:]]))[0, -1].argmax()))
            full += 1
    assert found == [text[-60:] for text in texts]


def test_a_stop_token_ends_its_text_and_no_other():
    model, prompts = model_of(), [[1, 2, 3], [7]]
    free = generate(model, prompts, GREEDY)
    stop = free[0][2]
    config = replace(GREEDY, stop_tokens=(stop,))
    cut = [row[: row.index(stop) + 1] if stop in row else row for row in free]
    assert generate(model, prompts, config) == cut and len(cut[0]) <= 3
    steps = list(stream(model, prompts, config))
    assert len(steps) == max(len(row) for row in cut), "it ends when all texts have"
    assert [step.tokens[0] for step in steps] == cut[0] + [None] * (len(steps) - len(cut[0]))


def test_the_same_seed_gives_the_same_text_and_the_default_generator_is_left_alone():
    model, prompts = model_of(), [[1, 2, 3], [7]]
    config = GenerationConfig(max_new_tokens=12, seed=1)
    shared.manual_seed(5)
    state = shared.get_rng_state().tolist()
    first, again = generate(model, prompts, config), generate(model, prompts, config)
    assert first == again and shared.get_rng_state().tolist() == state
    assert generate(model, prompts, replace(config, seed=2)) != first
    own = shared.Generator().manual_seed(1)
    assert generate(model, prompts, replace(config, seed=None), generator=own) == first
    assert generate(model, prompts, config, generator=own) != first, "a generator goes before the seed"
    shared.manual_seed(9)
    drawn_from_default = generate(model, prompts, replace(config, seed=None))
    shared.manual_seed(9)
    assert generate(model, prompts, replace(config, seed=None)) == drawn_from_default


def test_the_drawn_tokens_have_the_models_distribution():
    model, rows = model_of(), 4000
    config = GenerationConfig(max_new_tokens=1, temperature=1.5, seed=0)
    counts = np.bincount(np.ravel(generate(model, [[1, 2]] * rows, config)), minlength=11)
    with shared.no_grad():
        p = shared.softmax(model(shared.tensor([[1, 2]]))[0, -1] / 1.5, dim=-1).numpy()
    chi2 = ((counts - rows * p) ** 2 / (rows * p)).sum()
    assert chi2 < 29.6, f"chi-squared {chi2:.1f}; ten degrees of freedom exceed 29.6 once in a thousand"


def test_the_processors_see_the_text_without_fillers():
    """With a bigram forbidden after it once stood there: no text has one twice, whatever its neighbours' lengths."""
    model, prompts = model_of(), [[0, 0, 0, 1, 2, 3], [0]]
    config = replace(GREEDY, max_new_tokens=14, no_repeat_ngram_size=2)
    together = generate(model, prompts, config)
    for prompt, new in zip(prompts, together, strict=True):
        assert [new] == generate(model, [prompt], config)
        pairs = list(zip([*prompt, *new], [*prompt, *new][1:], strict=False))[len(prompt) - 1 :]
        assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_and_gradients_are_as_before(training):
    model = model_of().train(training)
    assert generate(model, [[1, 2, 3]], GREEDY) == [continued(model_of(), [1, 2, 3], 9)[0]]
    assert model.training is training
    steps = stream(model, [[1, 2, 3]], GREEDY)
    next(steps)
    assert model.training is training and shared.is_grad_enabled(), "between two steps the caller's modes hold"


def test_two_streams_at_once_do_not_mix():
    model = model_of()
    a, b = stream(model, [[1, 2, 3]], GREEDY), stream(model, [[7]], GREEDY)
    found = [(x.tokens[0], y.tokens[0]) for x, y in zip(a, b, strict=True)]
    assert [list(row) for row in zip(*found, strict=True)] == generate(model, [[1, 2, 3], [7]], GREEDY)


def test_prompts_are_not_changed():
    prompts = [[1, 2, 3], [7]]
    generate(model_of(), prompts, GREEDY)
    assert prompts == [[1, 2, 3], [7]]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "at least one prompt"),
        ([[1], []], "prompt 1 is empty"),
        ([[0] * 25], "prompt 0 has 25 tokens, but the model reads at most 24"),
        ([1, 2], "each a list of ids"),
        (["ab"], "each a list of ids"),
        (shared.tensor([1, 2]), r"\(B, T\), but got shape \(2,\)"),
        (shared.zeros(1, 0, dtype=shared.int64), "prompt 0 is empty"),
    ],
)
def test_what_cannot_be_read_is_named_at_once(prompts, message):
    with pytest.raises(ValueError, match=message):
        stream(model_of(), prompts, GREEDY)


def test_fillers_stand_on_the_left():
    ids, padding = pad_left([[5, 6, 7], [8], [9, 1]])
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8], [0, 9, 1]] and padding.tolist() == [0, 2, 1]
    assert pad_left([[1, 2], [3, 4]])[1] is None


def test_a_context_of_one_token_can_be_continued():
    shared.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=5, block_size=1, n_layer=1, n_head=1, n_embd=4)).eval()
    assert len(generate(model, [[1]], replace(GREEDY, max_new_tokens=4))[0]) == 4


def test_a_finished_text_that_has_used_up_its_tokens_does_not_end_the_others():
    """No token twice: the first text ends at once, with one token left to it; the other one has four."""
    table, prompts = Table(vocab_size=6), [[0, 1, 2, 3], [4, 4, 4, 4]]
    config = replace(GREEDY, max_new_tokens=4, stop_tokens=(4,), no_repeat_ngram_size=1, logit_bias={5: -30.0})
    together = generate(table, prompts, config)
    assert together == [generate(table, [prompt], config)[0] for prompt in prompts]
    assert together[0] == [4] and sorted(together[1]) == [0, 1, 2, 3]
