"""Beam search: the texts and scores of `transformers`, of a search without caches, and of trying out everything."""

import importlib.util
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

import shared
from shared.autograd import is_grad_enabled
from shared.generation import Beam, GenerationConfig, beam_search, extend_beams, generate, length_normalised
from shared.generation.beam import best, is_over, sort_out
from shared.models import config_to_hugging_face, to_hugging_face
from tests.generation.tables import TINY, Table, Uncached, sharp

needs_transformers = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="compares with transformers on PyTorch, which are not both installed",
)


def same(found, wanted):
    """The same texts in the same order; sums and scores as close as float32 allows."""
    assert [beam.ids for beam in found] == [list(ids) for ids, _ in wanted]
    np.testing.assert_allclose([beam.score for beam in found], [score for _, score in wanted], rtol=1e-6, atol=5e-6)


def consistent(beams, length_penalty):
    assert beams == sorted(beams, key=lambda beam: -beam.score), "best first"
    for beam in beams:
        assert beam.score == length_normalised(beam.log_prob, len(beam.ids), length_penalty)


# ---------------------------------------------------------------- one step


def test_the_best_continuations_of_all_rows_are_chosen():
    log_probs = np.log([[0.1, 0.6, 0.3], [0.2, 0.7, 0.1]])
    scores = np.log([0.5, 0.4])
    rows, tokens, sums = extend_beams(shared.tensor(scores), shared.tensor(log_probs), 4)
    wanted = sorted(((scores[r] + log_probs[r, t], r, t) for r in range(2) for t in range(3)), reverse=True)[:4]
    assert list(zip(rows.tolist(), tokens.tolist(), strict=True)) == [(r, t) for _, r, t in wanted]
    assert (rows.dtype, tokens.dtype) == (shared.int64, shared.int64)
    np.testing.assert_allclose(sums.tolist(), [x for x, _, _ in wanted], rtol=1e-12)


def test_one_row_gives_several_beams_and_another_none():
    rows, tokens, _ = extend_beams(shared.tensor([0.0, -50.0]), shared.tensor([[-1.0, -2.0], [-0.1, -3.0]]), 2)
    assert (rows.tolist(), tokens.tolist()) == ([0, 0], [0, 1])


def test_what_is_forbidden_is_not_chosen_and_there_may_be_less_than_asked_for():
    log_probs = shared.tensor([[-math.inf, -1.0, -2.0]])
    rows, tokens, sums = extend_beams(shared.tensor([-0.5]), log_probs, 8)
    assert (rows.tolist(), tokens.tolist(), sums.tolist()) == ([0, 0], [1, 2], [-1.5, -2.5])
    none = extend_beams(shared.tensor([0.0]), shared.full((1, 3), -math.inf), 2)
    assert [x.tolist() for x in none] == [[], [], []]


@pytest.mark.parametrize(
    "penalty, wanted", [(0.0, -6.0), (1.0, -2.0), (2.0, -2 / 3), (-1.0, -18.0), (0.5, -6 / 3**0.5)]
)
def test_a_score_is_the_sum_over_a_power_of_the_length(penalty, wanted):
    assert length_normalised(-6.0, 3, penalty) == pytest.approx(wanted)


def test_a_text_that_ends_is_put_aside_only_if_it_is_among_the_best():
    assert sort_out([True, False, False, True, False], 3) == ([0], [1, 2, 4])
    assert sort_out([True, True, True, True], 2) == ([0, 1], [])
    assert sort_out([False, False, True], 2) == ([], [0, 1])


def test_the_search_is_over_when_nothing_that_runs_is_better():
    finished = [Beam([1], -1.0, -1.0), Beam([2], -2.0, -2.0)]
    assert not is_over(finished, Beam([3], -1.5, -1.5), 2)
    assert is_over(finished, Beam([3], -2.0, -2.0), 2)
    assert not is_over(finished[:1], Beam([3], -9.0, -9.0), 2), "one place is free"
    assert best([*finished[::-1], Beam([3], -2.0, -2.0)], 2) == [finished[0], finished[1]]


# ---------------------------------------------------------------- the whole search


def slow_search(expected, num_beams, steps, length_penalty=1.0, ends=()):
    """The rule as it is written, on Python lists: `expected(ids)` is ln p of what follows. → [(ids, score)]"""
    running, finished = [((), 0.0)], []
    for length in range(1, steps + 1):
        candidates = [
            ((*ids, token), total + x)
            for ids, total in running
            for token, x in enumerate(expected(ids))
            if x > -math.inf
        ]
        candidates.sort(key=lambda candidate: -candidate[1])
        ended = [length == steps or ids[-1] in ends for ids, _ in candidates]
        for (ids, total), end in list(zip(candidates, ended, strict=True))[:num_beams]:
            if end:
                finished.append((ids, total / length**length_penalty))
        finished = sorted(finished, key=lambda beam: -beam[1])[:num_beams]
        running = [beam for beam, end in zip(candidates, ended, strict=True) if not end][:num_beams]
        if not running:
            break
        if len(finished) == num_beams and running[0][1] / length**length_penalty <= finished[-1][1]:
            break
    return finished


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5, -1.0])
@pytest.mark.parametrize("num_beams, ends", [(1, ()), (2, (4,)), (3, ()), (4, (3, 7)), (5, (0, 2, 5, 9)), (8, (1,))])
def test_texts_and_scores_are_those_of_a_search_without_caches(num_beams, ends, length_penalty):
    for seed in range(3):
        model, prompt = sharp(seed=seed), [3, 1, 4]
        wanted = slow_search(Uncached(model, prompt), num_beams, 9, length_penalty, ends)
        found = beam_search(model, prompt, num_beams, 9, length_penalty, ends, num_beams)
        same(found, wanted)
        consistent(found, length_penalty)


def test_texts_end_with_a_stop_token_or_at_the_greatest_length():
    lengths = set()
    for seed in (0, 1, 2):
        for beam in beam_search(sharp(seed=seed), [3, 1, 4], 4, 9, 1.0, (0, 3, 7, 9), 4):
            assert beam.ids[-1] in (0, 3, 7, 9) or len(beam.ids) == 9
            assert not {0, 3, 7, 9} & set(beam.ids[:-1]), "nothing comes after a stop token"
            lengths.add(len(beam.ids))
    assert {1, 9} < lengths, "texts of several lengths were compared"


@pytest.mark.parametrize("block_size, prompt_length", [(8, 1), (8, 5), (8, 8), (7, 3), (1, 1)])
def test_where_the_context_is_full_the_last_half_is_read_anew(block_size, prompt_length):
    model = sharp(replace(TINY, block_size=block_size))
    prompt = list(range(prompt_length))
    wanted = slow_search(Uncached(model, prompt), 3, 20)
    assert len(wanted[0][0]) == 20, "far beyond the context"
    same(beam_search(model, prompt, 3, 20, num_return=3), wanted)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("ends", [(), (2,)])
def test_with_as_many_beams_as_texts_the_best_of_all_texts_is_found(ends, length_penalty):
    steps = 4
    for seed in range(5):
        table = Table(vocab_size=3, seed=seed)
        scores = {}
        for ids in itertools.product(range(3), repeat=steps):
            last = next((i for i, token in enumerate(ids) if token in ends), steps - 1)
            ids = ids[: last + 1]
            log_prob = sum(math.log(table.after([0, *ids[:i]])[token]) for i, token in enumerate(ids))
            scores[ids] = log_prob / len(ids) ** length_penalty
        wanted = sorted(scores.items(), key=lambda pair: -pair[1])
        found = beam_search(table, [0], 3**steps, steps, length_penalty, ends, num_return=3**steps)
        same(found, wanted)


SETTINGS = [
    {},
    {"frequency_penalty": 0.7, "logit_bias": {5: 3.0}},
    {"no_repeat_ngram_size": 2, "presence_penalty": 0.4},
]


@pytest.mark.parametrize("ends", [(), (8,), (2, 6, 8)])
@pytest.mark.parametrize("settings", SETTINGS)
def test_one_beam_is_the_greedy_text(settings, ends):
    """Not so with a repetition penalty: of ln p it makes something else than of logits."""
    lengths = set()
    for seed in range(6):
        config = GenerationConfig(temperature=0, max_new_tokens=12, stop_tokens=ends, **settings)
        (beam,) = beam_search(sharp(seed=seed), [1, 2], 1, 12, config=config)
        assert [beam.ids] == generate(sharp(seed=seed), [[1, 2]], config)
        lengths.add(len(beam.ids))
    assert len(lengths) > 1 if ends else lengths == {12}


def test_a_beam_finds_what_greed_misses():
    """The likeliest first token, p = 0.5, is followed by nothing better than 0.4; the other, 0.4, surely by a 0."""
    table = Table(vocab_size=3)
    p = np.full((4, 4, 3), 1 / 3)
    p[:, 2] = 0.5, 0.4, 0.1
    p[:, 0], p[:, 1] = (0.4, 0.3, 0.3), (0.9, 0.05, 0.05)
    with shared.no_grad():
        table.logits.copy_(shared.tensor(np.log(p), dtype=shared.float32))
    (greedy,) = beam_search(table, [2], 1, 2)
    (found,) = beam_search(table, [2], 2, 2)
    assert (greedy.ids, found.ids) == ([0, 0], [1, 0])
    assert math.exp(greedy.log_prob) == pytest.approx(0.2) and math.exp(found.log_prob) == pytest.approx(0.36)
    assert found.score == pytest.approx(math.log(0.36) / 2)


# ---------------------------------------------------------------- a small vocabulary, and none


def test_where_there_are_fewer_texts_than_beams_each_comes_once():
    found = beam_search(Table(vocab_size=2, seed=3), [1], 16, 3, num_return=16)
    assert sorted(beam.ids for beam in found) == [list(ids) for ids in itertools.product(range(2), repeat=3)]
    assert math.fsum(math.exp(beam.log_prob) for beam in found) == pytest.approx(1, abs=1e-5)
    (only,) = beam_search(Table(vocab_size=1), [0], 4, 5, num_return=4)
    assert (only.ids, only.log_prob) == ([0] * 5, 0.0)


def test_texts_end_where_no_token_may_follow():
    config = GenerationConfig(no_repeat_ngram_size=1)
    found = beam_search(Table(vocab_size=4), [0], 10, 8, num_return=10, config=config)
    assert sorted(beam.ids for beam in found) == [list(ids) for ids in itertools.permutations([1, 2, 3])]
    everything = GenerationConfig(logit_bias=dict.fromkeys(range(4), -math.inf))
    assert beam_search(Table(vocab_size=4), [0], 2, 8, config=everything) == [Beam([], 0.0, 0.0)]


# ---------------------------------------------------------------- settings, errors, state


def test_stop_tokens_of_the_config_count_too():
    model = sharp(seed=1)
    wanted = beam_search(model, [3, 1, 4], 4, 9, 1.0, (3, 7), 4)
    assert beam_search(model, [3, 1, 4], 4, 9, 1.0, (7,), 4, GenerationConfig(stop_tokens=(3,))) == wanted


def test_one_stop_token_may_be_given_as_it_is_and_several_in_any_collection():
    model, wanted = sharp(seed=1), beam_search(sharp(seed=1), [3, 1, 4], 4, 9, 1.0, (3,), 4)
    assert beam_search(model, [3, 1, 4], 4, 9, 1.0, 3, 4) == wanted
    assert beam_search(model, [3, 1, 4], 4, 9, 1.0, range(3, 4), 4) == wanted


def test_logits_that_are_no_numbers_are_an_error():
    broken = sharp()
    with shared.no_grad():
        broken.norm.bias.fill_(math.nan)
    with pytest.raises(ValueError, match="beam_search: the model's scores have NaN"):
        beam_search(broken, [1, 2], 2, 4)


def test_a_prompt_is_a_list_or_a_tensor_of_one_row():
    model = sharp()
    wanted = beam_search(model, [3, 1], 2, 4)
    assert beam_search(model, shared.tensor([3, 1]), 2, 4) == wanted
    assert beam_search(model, shared.tensor([[3, 1]]), 2, 4) == wanted
    assert beam_search(model, [[3, 1]], 2, 4) == wanted
    with pytest.raises(ValueError, match="one prompt of ids, but got 2"):
        beam_search(model, [[3, 1], [1, 2]], 2, 4)
    with pytest.raises(ValueError, match=r"one prompt .*\(2, 2\)"):
        beam_search(model, shared.tensor([[3, 1], [1, 2]]), 2, 4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_beams": 0}, "num_beams to be an int of at least 1, but got 0"),
        ({"num_beams": 2.5}, "num_beams to be an int of at least 1, but got 2.5"),
        ({"max_new_tokens": 0}, "max_new_tokens to be an int of at least 1, but got 0"),
        ({"max_new_tokens": math.inf}, "max_new_tokens to be an int of at least 1, but got inf"),
        ({"num_return": 0}, "num_return to be an int of at least 1, but got 0"),
        ({"num_return": True}, "num_return to be an int of at least 1, but got True"),
        ({"length_penalty": math.nan}, "length_penalty to be a finite number, but got nan"),
        ({"length_penalty": -math.inf}, "length_penalty to be a finite number, but got -inf"),
        ({"length_penalty": "1"}, "length_penalty to be a finite number, but got '1'"),
        ({"stop_tokens": (3, -1)}, r"stop_tokens should be ids of at least 0, but got \(3, -1\)"),
        ({"stop_tokens": [1.5]}, r"stop_tokens should be ids of at least 0, but got \(1.5,\)"),
        ({"num_return": 3}, "2 beams cannot give num_return=3"),
        ({"prompt": []}, "empty"),
        ({"prompt": [1] * 33}, "33 tokens, but the model reads at most 32"),
        ({"config": GenerationConfig(temperature=0.5, top_k=3)}, "leave out top_k, temperature"),
        ({"config": GenerationConfig(top_p=0.5, min_p=0.1)}, "leave out top_p, min_p"),
        ({"config": GenerationConfig(stop_strings="end")}, "leave out stop_strings"),
    ],
)
def test_what_makes_no_sense_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        beam_search(sharp(), **({"prompt": [1, 2], "num_beams": 2, "max_new_tokens": 3} | arguments))


def test_the_model_is_in_eval_mode_meanwhile_and_then_as_before():
    model = sharp(replace(TINY, dropout=0.5)).train()
    wanted = beam_search(sharp(), [1, 2], 3, 6, num_return=3)
    assert beam_search(model, [1, 2], 3, 6, num_return=3) == wanted
    assert model.training and is_grad_enabled() and all(p.grad is None for p in model.parameters())


# ---------------------------------------------------------------- transformers


def their_model(model, **settings):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    theirs = GPT2LMHeadModel(GPT2Config(**config_to_hugging_face(model.config) | ids)).eval()
    state = to_hugging_face(model.state_dict(), model.config)
    theirs.load_state_dict({name: torch.from_numpy(x.numpy()) for name, x in state.items()})
    return theirs


def their_beams(theirs, prompt, ends, num_return, **settings):
    """[(new ids up to the first stop token, score)]"""
    import torch

    out = theirs.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        num_return_sequences=num_return,
        eos_token_id=list(ends) or None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    found = []
    for ids, score in zip(out.sequences.tolist(), out.sequences_scores.tolist(), strict=True):
        new = ids[len(prompt) :]
        last = next((i for i, token in enumerate(new) if token in ends), len(new) - 1)
        found.append((new[: last + 1], score))
    return found


SEARCHES = [  # num_beams, num_return, length_penalty, stop tokens
    (2, 2, 1.0, ()),
    (4, 4, 1.0, (3,)),
    (4, 2, 0.0, (3, 7)),
    (3, 3, 2.0, (1, 5, 9, 11)),
    (5, 5, -1.0, (2,)),
    (6, 6, 0.6, (8, 10)),
]
PENALTIES = [
    ({}, {}),
    ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
    ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
    ({"logit_bias": {4: 2.5, 6: -3.0}}, {"sequence_bias": {(4,): 2.5, (6,): -3.0}}),
]


@needs_transformers
@pytest.mark.parametrize("ours, theirs", PENALTIES, ids=["plain", "repetition", "ngrams", "bias"])
def test_beams_and_scores_are_those_of_transformers(ours, theirs):
    early, late = 0, 0
    for seed in range(3):
        model = sharp(seed=seed)
        other = their_model(model)
        for num_beams, num_return, length_penalty, ends in SEARCHES:
            prompt = list(range(1, 3 + seed))
            settings = {"num_beams": num_beams, "length_penalty": length_penalty, "max_new_tokens": 10, **theirs}
            wanted = their_beams(other, prompt, ends, num_return, **settings)
            config = GenerationConfig(**ours)
            found = beam_search(model, prompt, num_beams, 10, length_penalty, ends, num_return, config)
            same(found, wanted)
            early += sum(len(ids) < 10 for ids, _ in wanted)
            late += sum(len(ids) == 10 for ids, _ in wanted)
    assert early > 10 and late > 10, "both kinds of ends are compared"
