"""The settings of a generation: what is refused and how, what is switched off, the order, and the choice."""

import math
from dataclasses import FrozenInstanceError, asdict, fields, replace

import numpy as np
import pytest

import shared
from shared.generation import processors
from shared.generation.config import RULES, GenerationConfig, choose, process
from shared.models.gpt import next_token
from tests.generation.samples import random_logits, rows_of

GOOD = {
    "max_new_tokens": (0, 1, 10**6),
    "temperature": (0, 0.0, 1, 0.01, 100.0),
    "top_k": (None, 1, 10**6),
    "top_p": (None, 1, 1.0, 1e-9),
    "min_p": (None, 0, 0.0, 1, 0.05),
    "repetition_penalty": (1, 0.5, 1.3),
    "presence_penalty": (0, -2, 2.5),
    "frequency_penalty": (0, -2, 2.5),
    "no_repeat_ngram_size": (0, 1, 3),
    "logit_bias": ({}, {0: 1}, {5: -math.inf, 7: -1.5}),
    "seed": (None, 0, -1, 2**70),
}
BAD = {
    "max_new_tokens": (-1, 1.0, True, "8", None, math.inf),
    "temperature": (-0.1, math.nan, math.inf, 10**400, True, "1", None),
    "top_k": (0, -1, 2.0, True, "5"),
    "top_p": (0, 0.0, 1.1, -0.5, math.nan, True, "0.9"),
    "min_p": (-0.1, 1.01, math.nan, True, "0"),
    "repetition_penalty": (0, -1.0, math.nan, math.inf, True, None),
    "presence_penalty": (math.nan, math.inf, -math.inf, True, None, "0"),
    "frequency_penalty": (math.nan, math.inf, -math.inf, True, None, "0"),
    "no_repeat_ngram_size": (-1, 2.0, True, None),
    "logit_bias": (
        {-1: 0.0},
        {1.0: 0.0},
        {True: 1.0},
        {1: math.nan},
        {1: math.inf},
        {1: "2"},
        {1: None},
        [(1, 2.0)],
        None,
    ),
    "stop_tokens": (-1, (1, -1), 1.5, (1.0,), True, (True,), "50256", ("a",), None, (None,)),
    "stop_strings": ("", ("a", ""), 1, ("a", 1), None, b"a"),
    "seed": (1.0, True, "0"),
}


def test_every_field_has_a_rule():
    assert [f.name for f in fields(GenerationConfig)] == list(RULES) and set(BAD) == set(RULES)


@pytest.mark.parametrize("field, value", [(field, value) for field in GOOD for value in GOOD[field]])
def test_good_values_are_kept(field, value):
    assert getattr(GenerationConfig(**{field: value}), field) == value


@pytest.mark.parametrize("field, value", [(field, value) for field in BAD for value in BAD[field]])
def test_bad_values_are_named_with_field_and_what_was_expected(field, value):
    with pytest.raises(ValueError) as caught:
        GenerationConfig(**{field: value})
    assert str(caught.value) == f"GenerationConfig: {field} should be {RULES[field][0]}, but got {value!r}"


def test_what_ends_a_text_becomes_a_tuple():
    config = GenerationConfig(stop_tokens=0, stop_strings="end")
    assert config.stop_tokens == (0,) and config.stop_strings == ("end",)
    config = GenerationConfig(stop_tokens=[3, 4], stop_strings=["a", "b"])
    assert config.stop_tokens == (3, 4) and config.stop_strings == ("a", "b")
    assert sorted(GenerationConfig(stop_tokens={3, 4}).stop_tokens) == [3, 4]


def test_a_config_is_a_value():
    config = GenerationConfig(top_p=0.9, logit_bias={1: 2.0}, stop_strings="a")
    assert replace(config) == config and hash(replace(config)) == hash(config) and config != GenerationConfig()
    assert replace(config, top_k=5).top_k == 5 and replace(config, top_k=5).top_p == 0.9
    assert GenerationConfig(**asdict(config)) == config
    with pytest.raises(FrozenInstanceError):
        config.top_p = 0.5
    with pytest.raises(ValueError, match="GenerationConfig: top_k should be"):
        replace(config, top_k=0)


def test_a_config_does_not_follow_the_objects_it_was_made_of():
    biases, stops = {1: 2.0}, [3]
    config = GenerationConfig(logit_bias=biases, stop_tokens=stops)
    biases[2], stops[0] = 1.0, 9
    assert config.logit_bias == {1: 2.0} and config.stop_tokens == (3,)


# ---------------------------------------------------------------- process

ON = {  # each setting with the function it stands for
    "logit_bias": ({3: 2.0, 5: -math.inf}, lambda x, seen, new, v: processors.logit_bias(x, v)),
    "repetition_penalty": (1.7, lambda x, seen, new, v: processors.repetition_penalty(x, seen, v)),
    "presence_penalty": (0.8, lambda x, seen, new, v: processors.presence_penalty(x, new, v)),
    "frequency_penalty": (0.6, lambda x, seen, new, v: processors.frequency_penalty(x, new, v)),
    "no_repeat_ngram_size": (2, lambda x, seen, new, v: processors.no_repeat_ngrams(x, seen, v)),
    "temperature": (0.7, lambda x, seen, new, v: processors.temperature(x, v)),
    "top_k": (9, lambda x, seen, new, v: processors.top_k(x, v)),
    "top_p": (0.8, lambda x, seen, new, v: processors.top_p(x, v)),
    "min_p": (0.2, lambda x, seen, new, v: processors.min_p(x, v)),
}


def given():
    logits = random_logits(4, 12, seed=3, spread=1.5)
    seen, new = rows_of(4, 12, 12, seed=4), rows_of(4, 6, 12, seed=5)
    return logits, [a + b for a, b in zip(seen, new, strict=True)], new


@pytest.mark.parametrize("field", ON)
def test_a_setting_alone_is_its_function(field):
    (logits, seen, new), (value, function) = given(), ON[field]
    expected = function(logits, seen, new, value)
    assert expected.tolist() != logits.tolist(), "the example would not show it"
    assert process(logits, seen, new, GenerationConfig(**{field: value})).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [shared.bfloat16, shared.float16])
def test_in_16_bits_small_penalties_and_temperatures_are_not_rounded_away(dtype):
    logits = shared.tensor([[20.0, 20.0, 24.0]]).to(dtype)
    changed = process(logits, [[0]], [[0]], GenerationConfig(presence_penalty=0.001)).tolist()[0]
    assert changed == pytest.approx([19.999, 20.0, 24.0], abs=1e-5)
    changed = process(logits, [[0]], [[0]], GenerationConfig(temperature=0.999)).tolist()[0]
    assert changed == pytest.approx([20 / 0.999] * 2 + [24 / 0.999], rel=1e-6)
    assert process(logits, [[]], [[]], GenerationConfig()).dtype == shared.float32
    assert process(logits.double(), [[]], [[]], GenerationConfig()).dtype == shared.float64


def test_all_together_come_in_the_documented_order():
    logits, seen, new = given()
    config = GenerationConfig(**{field: value for field, (value, _) in ON.items()})
    expected = logits
    for value, function in ON.values():
        expected = function(expected, seen, new, value)
    assert process(logits, seen, new, config).tolist() == expected.tolist()


ORDER_MATTERS = [
    ("logit_bias", "repetition_penalty"),
    ("repetition_penalty", "presence_penalty"),
    ("repetition_penalty", "frequency_penalty"),
    ("frequency_penalty", "temperature"),
    ("no_repeat_ngram_size", "top_k"),
    ("no_repeat_ngram_size", "top_p"),
    ("temperature", "top_p"),
    ("temperature", "min_p"),
    ("top_k", "top_p"),
    ("top_p", "min_p"),
]


@pytest.mark.parametrize("first, second", ORDER_MATTERS)
def test_where_the_order_matters_it_is_the_documented_one(first, second):
    for seed in range(200):
        logits = random_logits(2, 12, seed=seed, spread=1.5)
        seen, new = rows_of(2, 12, 12, seed=seed), rows_of(2, 6, 12, seed=seed + 1)
        config = GenerationConfig(**{field: ON[field][0] for field in (first, second)})
        results = []
        for order in ((first, second), (second, first)):
            out = logits
            for field in order:
                out = ON[field][1](out, seen, new, ON[field][0])
            results.append(out.numpy())
        found = process(logits, seen, new, config).numpy()
        np.testing.assert_array_equal(found, results[0])
        if not np.allclose(*results, equal_nan=True):
            return
    pytest.fail(f"no example tells whether {first} comes before {second}")


def test_what_is_switched_off_leaves_the_logits_as_they_are():
    logits, seen, new = given()
    for config in (GenerationConfig(), GenerationConfig(temperature=0), GenerationConfig(top_p=1, min_p=0, top_k=99)):
        assert process(logits, seen, new, config).tolist() == logits.tolist()


def test_at_temperature_0_penalties_hold_and_samplers_are_left_out():
    logits, seen, new = given()
    config = GenerationConfig(**{field: value for field, (value, _) in ON.items()} | {"temperature": 0})
    expected = logits
    for field in list(ON)[:5]:
        expected = ON[field][1](expected, seen, new, ON[field][0])
    assert process(logits, seen, new, config).tolist() == expected.tolist()


def test_processing_changes_no_input():
    logits, seen, new = given()
    before = logits.tolist(), [list(r) for r in seen], [list(r) for r in new]
    process(logits, seen, new, GenerationConfig(**{field: value for field, (value, _) in ON.items()}))
    assert (logits.tolist(), seen, new) == before


# ---------------------------------------------------------------- choose


def test_at_temperature_0_the_likeliest_is_chosen_without_a_draw():
    generator = shared.Generator().manual_seed(0)
    state = generator.get_state()
    logits = shared.tensor([[0.0, 3.0, 1.0], [-math.inf, -5.0, -math.inf], [2.0, 2.0, 1.0]])
    assert choose(logits, GenerationConfig(temperature=0), generator) == [1, 1, 0]
    assert (generator.get_state() == state).all()


def test_a_draw_is_that_of_sprint_9():
    logits, config = random_logits(5, 30, seed=1), GenerationConfig(temperature=0.8, top_k=7)
    for seed in range(20):
        drawn = choose(process(logits, [[]] * 5, [[]] * 5, config), config, shared.Generator().manual_seed(seed))
        expected = next_token(logits, 0.8, 7, shared.Generator().manual_seed(seed))
        assert drawn == expected[:, 0].tolist() and all(type(token) is int for token in drawn)


def test_a_seed_repeats_the_draws_and_rows_draw_for_themselves():
    logits, config = shared.zeros(8, 1000), GenerationConfig()
    draws = [choose(logits, config, shared.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2] and len(set(draws[0])) == 8
    shared.manual_seed(5)
    first = choose(logits, config)
    shared.manual_seed(5)
    assert choose(logits, config) == first


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize(
    "wrong, message",
    [
        (-math.inf, "no token is left in row 1: all have the score -inf"),
        (math.nan, "the largest score of row 1 is nan"),
        (math.inf, "the largest score of row 1 is inf"),
    ],
)
def test_a_row_without_a_choice_is_named(temperature, wrong, message):
    logits = shared.tensor([[0.0, 1.0, 2.0], [wrong] * 3, [-math.inf, 0.0, -math.inf]])
    with pytest.raises(ValueError, match=message):
        choose(logits, GenerationConfig(temperature=temperature))


def test_one_nan_among_numbers_is_no_choice():
    with pytest.raises(ValueError, match="the largest score of row 0 is nan"):
        choose(shared.tensor([[0.0, math.nan, 1.0]]), GenerationConfig(temperature=0))


def test_when_bias_and_ngrams_together_forbid_all_the_row_is_named():
    config = GenerationConfig(no_repeat_ngram_size=1, logit_bias={2: -math.inf}, top_k=2, top_p=0.5, min_p=0.1)
    logits = process(shared.zeros(2, 3), [[0], [0, 1]], [[], []], config)
    assert logits.tolist() == [[-math.inf, 0.0, -math.inf], [-math.inf] * 3]
    with pytest.raises(ValueError, match="no token is left in row 1"):
        choose(logits, config)
