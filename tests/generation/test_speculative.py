"""Speculative decoding: the large model's distribution whatever the draft proposes, and caches that hold the text.

The statistical tests have fixed seeds: a right implementation passes every time. With another seed it would be refused
with a probability of FALSE_ALARM a test.
"""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

import shared
from shared.arrays.random import Generator
from shared.autograd import is_grad_enabled
from shared.generation import (
    GenerationConfig,
    Speculation,
    accept,
    acceptance_probability,
    expected_tokens,
    generate,
    process,
    residual,
    speculate,
    speculative_stream,
)
from shared.generation.speculative import Reader, probabilities, propose, until_stop
from tests.generation.tables import TINY, Table, Uncached, sharp

FALSE_ALARM = 1e-4
GREEDY = GenerationConfig(temperature=0, max_new_tokens=25)


def assert_drawn_from(counts, p, what):
    """Pearson's chi-squared test of counts {outcome: number} against p {outcome: probability}."""
    total = sum(counts.values())
    assert not set(counts) - {outcome for outcome, x in p.items() if x > 0}, f"{what}: the impossible was drawn"
    expected = {outcome: x * total for outcome, x in p.items() if x > 0}
    common = [outcome for outcome, x in expected.items() if x >= 5]  # the rare ones are one class together
    rare = total - sum(expected[outcome] for outcome in common)
    statistic = sum((counts[outcome] - expected[outcome]) ** 2 / expected[outcome] for outcome in common)
    if rare > 1e-9:
        statistic += (total - sum(counts[outcome] for outcome in common) - rare) ** 2 / rare
    degrees = len(common) - (rare <= 1e-9)
    limit = chi2.ppf(1 - FALSE_ALARM, degrees)
    assert statistic < limit, (
        f"{what}: chi-squared {statistic:.1f} with {degrees} degrees of freedom, limit {limit:.1f}"
    )


def a_distribution(size, seed, spread=1.5):
    return np.exp(spread * np.random.default_rng(seed).normal(size=size))


def rows(*arrays):
    return shared.tensor(np.stack([a / a.sum() for a in arrays]), dtype=shared.float32)


# ---------------------------------------------------------------- acceptance, alone


@pytest.mark.parametrize("draft", ["another", "the same", "few tokens", "uniform"])
def test_the_token_that_comes_out_has_the_models_distribution(draft):
    p = a_distribution(6, 0)
    q = {"another": a_distribution(6, 1), "the same": p, "few tokens": np.array([0, 1, 1, 0, 0, 0.0]), "uniform": p**0}
    p, q = rows(p, a_distribution(6, 2)), rows(q[draft])
    generator, counts = Generator().manual_seed(0), Counter()
    proposals = shared.multinomial(q[0], 6000, replacement=True, generator=generator).tolist()
    for token in proposals:
        accepted, following = accept(p, [q[0]], [token], generator)
        counts[token if accepted else following] += 1
    assert_drawn_from(counts, dict(enumerate(p[0].tolist())), f"first token, draft: {draft}")


def test_what_follows_accepted_tokens_has_the_distribution_of_its_place():
    """Two proposals: all pairs of tokens, those of which the first was accepted; and the third, if both were."""
    p, q = rows(*(a_distribution(4, i) for i in range(3))), rows(a_distribution(4, 7), a_distribution(4, 8))
    generator, pairs, thirds = Generator().manual_seed(1), Counter(), Counter()
    for _ in range(5000):
        proposed = shared.multinomial(q, 1, generator=generator)[:, 0].tolist()
        accepted, following = accept(p, list(q), proposed, generator)
        text = [*proposed[:accepted], following]
        if len(text) > 1:
            pairs[text[1]] += 1
        if len(text) > 2:
            thirds[text[2]] += 1
    assert min(sum(pairs.values()), sum(thirds.values())) > 1000
    assert_drawn_from(pairs, dict(enumerate(p[1].tolist())), "second token")
    assert_drawn_from(thirds, dict(enumerate(p[2].tolist())), "the token after all proposals")


def test_a_proposal_is_accepted_as_often_as_the_formula_says():
    p, q = rows(a_distribution(8, 3, 0.8), a_distribution(8, 4)), rows(a_distribution(8, 5, 0.8))
    wanted = acceptance_probability(p[0], q[0]).item()
    assert wanted == pytest.approx(1 - np.abs(p[0].numpy() - q[0].numpy()).sum() / 2)
    generator, n = Generator().manual_seed(2), 8000
    proposals = shared.multinomial(q[0], n, replacement=True, generator=generator).tolist()
    found = sum(accept(p, [q[0]], [token], generator)[0] for token in proposals) / n
    limit = 3.9 * math.sqrt(wanted * (1 - wanted) / n)  # 3.9 standard deviations: one false alarm in ten thousand
    assert 0.2 < wanted < 0.8 and abs(found - wanted) < limit, (found, wanted)


def test_without_proposals_the_token_is_the_models():
    p, generator = rows(a_distribution(5, 6)), Generator().manual_seed(3)
    found = [accept(p, [], [], generator) for _ in range(3000)]
    assert {accepted for accepted, _ in found} == {0}
    assert_drawn_from(Counter(token for _, token in found), dict(enumerate(p[0].tolist())), "no proposal")


def test_certain_cases_need_no_luck():
    one = shared.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    half = shared.tensor([0.5, 0.5, 0.0])
    for seed in range(20):
        generator = Generator().manual_seed(seed)
        assert accept(one, [half, one[1]], [1, 2], generator) == (2, 0), "p ≥ q: all are accepted"
        assert accept(one, [half, one[1]], [0, 2], generator) == (0, 1), "p = 0: refused, and what p has"
        assert accept(one, [one[0], half], [1, 0], generator) == (1, 2), "the second is refused"


def test_the_rest_is_what_the_draft_has_too_little_of():
    p, q = shared.tensor([0.5, 0.3, 0.2, 0.0]), shared.tensor([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(residual(p, q).tolist(), [0.8, 0.2, 0.0, 0.0], rtol=1e-6)
    assert residual(p, p).tolist() == p.tolist()


def test_acceptance_of_many_rows_and_expected_tokens():
    p, q = rows(a_distribution(5, 1), a_distribution(5, 2)), rows(a_distribution(5, 3), a_distribution(5, 2))
    wanted = [np.minimum(p[0].numpy(), q[0].numpy()).sum(), 1.0]
    np.testing.assert_allclose(acceptance_probability(p, q).tolist(), wanted, rtol=1e-6)
    for a in (0.0, 0.3, 0.9):
        assert expected_tokens(a, 5) == pytest.approx((1 - a**6) / (1 - a))
    assert expected_tokens(1.0, 5) == 6 and expected_tokens(0.7, 0) == 1
    for acceptance, lookahead in ((1.5, 3), (-0.1, 3), (math.nan, 3), (0.5, -1)):
        with pytest.raises(ValueError, match=f"but got {acceptance} and {lookahead}"):
            expected_tokens(acceptance, lookahead)


# ---------------------------------------------------------------- texts


def drawn_from(table, text, prompt_length, config):
    """What `stream` draws from after a text: the softmax of the processed logits."""
    logits = shared.tensor([table.scores(text)], dtype=shared.float32)
    return shared.softmax(process(logits, [text], [text[prompt_length:]], config), dim=-1)[0].tolist()


def text_probabilities(table, text, length, config, prompt_length=None):
    """{new tokens: probability} of all continuations of that length, from the table alone."""
    prompt_length = len(text) if prompt_length is None else prompt_length
    found = {(): 1.0}
    for _ in range(length):
        longer = {}
        for ids, probability in found.items():
            for token, p in enumerate(drawn_from(table, [*text, *ids], prompt_length, config)):
                longer[*ids, token] = probability * p
        found = longer
    return found


CONFIGS = {
    "warm, top-k": GenerationConfig(temperature=1.7, top_k=3),
    "nucleus": GenerationConfig(temperature=0.8, top_p=0.8),
    "min-p": GenerationConfig(min_p=0.2),
    "penalties": GenerationConfig(repetition_penalty=1.8, frequency_penalty=0.9, presence_penalty=0.5),
    "no pair twice": GenerationConfig(no_repeat_ngram_size=2, logit_bias={1: 1.0}),
}


def check_texts(config, length, lookahead, runs):
    """All texts of `length` tokens of four, and a draft that expects other ones than the model."""
    table, draft, prompt = Table(seed=0), Table(seed=1), [0, 3, 0, 0]
    config = replace(config, max_new_tokens=length)
    generator, counts, proposed, accepted = Generator().manual_seed(5), Counter(), 0, 0
    for _ in range(runs):
        result = speculate(table, draft, prompt, config, lookahead, generator)
        counts[tuple(result.ids)] += 1
        proposed, accepted = proposed + result.proposed, accepted + result.accepted
    assert 0.1 < accepted / proposed < 0.9, "some proposals were refused and some not"
    assert_drawn_from(counts, text_probabilities(table, prompt, length, config), "texts")


@pytest.mark.parametrize("lookahead", [1, 2, 5])
def test_texts_have_the_large_models_distribution(lookahead):
    check_texts(GenerationConfig(), 3, lookahead, 1000)


@pytest.mark.parametrize("name", CONFIGS)
def test_texts_have_the_distribution_of_the_settings(name):
    """Of two tokens the second depends on the first, where there are penalties, before that is even accepted."""
    check_texts(CONFIGS[name], 2, 2, 600)


def test_the_draft_alone_has_quite_another_distribution():
    """So the test above can fail."""
    config = GenerationConfig(max_new_tokens=3)
    wrong = Counter(tuple(generate(Table(seed=1), [[0, 3, 0]], replace(config, seed=i))[0]) for i in range(300))
    with pytest.raises(AssertionError, match="chi-squared"):
        assert_drawn_from(wrong, text_probabilities(Table(seed=0), [0, 3, 0], 3, config), "draft")


@pytest.mark.parametrize("lookahead", [1, 3, 8])
@pytest.mark.parametrize("draft", ["itself", "another", "smaller context"])
def test_at_temperature_0_the_text_is_the_greedy_one(draft, lookahead):
    """Beyond the context of 16 tokens too, with penalties, and with a stop token."""
    for seed in range(2):
        model = sharp(replace(TINY, block_size=16), seed)
        small = {"itself": model, "another": sharp(replace(TINY, n_layer=1), seed + 10)}.get(
            draft, sharp(replace(TINY, block_size=5), seed)
        )
        for config in (GREEDY, replace(GREEDY, frequency_penalty=0.8), replace(GREEDY, stop_tokens=(7, 8))):
            result = speculate(model, small, [1, 2, 3], config, lookahead)
            assert [result.ids] == generate(model, [[1, 2, 3]], config)
            if draft == "itself" and not config.stop_tokens:
                assert result.accepted == result.proposed > 0


def test_a_draft_that_is_right_saves_passes_and_one_that_is_wrong_saves_none():
    model = sharp()
    for lookahead in (1, 4):
        right = speculate(model, model, [1, 2], GREEDY, lookahead)
        assert right.rounds == math.ceil(25 / (lookahead + 1)) and right.acceptance_rate == 1

    class Wrong(Reader):
        def next_logits(self, text):
            return -Reader.next_logits(self, text)

    wrong = speculate(model, Wrong(model), [1, 2], GREEDY, 4)
    assert (wrong.rounds, wrong.accepted, wrong.tokens_per_round) == (25, 0, 1)
    assert Speculation([], 0, 0, 0).acceptance_rate == Speculation([], 0, 0, 0).tokens_per_round == 0


def test_the_number_of_tokens_in_a_round_is_what_the_formula_says():
    """With distributions that are the same everywhere, each proposal is accepted with the same probability."""
    table, draft = Table(vocab_size=5, block_size=2048), Table(vocab_size=5, block_size=2048)
    for model, seed in ((table, 3), (draft, 4)):
        with shared.no_grad():
            model.logits.copy_(shared.tensor(a_distribution(5, seed, 0.6)).log().float().expand(6, 6, 5))
    acceptance = acceptance_probability(shared.tensor(table.after([0])), shared.tensor(draft.after([0]))).item()
    generator = Generator().manual_seed(6)
    result = speculate(table, draft, [0], GenerationConfig(max_new_tokens=1000), 3, generator)
    assert 0.3 < acceptance < 0.9
    assert result.tokens_per_round == pytest.approx(expected_tokens(acceptance, 3), rel=0.1)


# ---------------------------------------------------------------- rounds


def test_a_text_ends_with_a_stop_token_within_a_run_that_was_accepted():
    """Each token of a text as the stop token, with a draft of which everything is accepted, eight at a time."""
    model, cut = sharp(seed=1), 0
    (whole,) = generate(model, [[1, 2]], GREEDY)
    for stop in set(whole):
        wanted = whole[: whole.index(stop) + 1]
        found = list(speculative_stream(model, model, [1, 2], replace(GREEDY, stop_tokens=(stop,)), lookahead=8))
        assert [token for r in found for token in r.tokens] == wanted
        assert len(found) == math.ceil(len(wanted) / 9), "the round with the stop token is the last"
        cut += len(found[-1].tokens) <= found[-1].accepted
    assert cut > 1, "there were stop tokens before the end of a run"
    assert until_stop([4, 2, 5, 2], (2, 9)) == [4, 2] and until_stop([4], (2,)) == [4]


@pytest.mark.parametrize("draft", ["itself", "another"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_would_follow_a_stop_token_is_not_looked_at(draft, temperature):
    """No token twice, and the fourth of four is the stop token: behind it nothing could be drawn."""
    (order,) = generate(Table(), [[0]], replace(GREEDY, max_new_tokens=3, no_repeat_ngram_size=1))
    config = GenerationConfig(5, temperature, no_repeat_ngram_size=1, stop_tokens=(order[-1],), seed=0)
    bias = {order[-1]: -9.0} if temperature else {}
    config = replace(config, logit_bias=bias)
    small = Table() if draft == "itself" else Table(seed=1)
    for lookahead in (1, 2, 3, 6):
        found = list(speculative_stream(Table(), small, [0], config, lookahead))
        ids = [token for r in found for token in r.tokens]
        assert sorted(ids) == [1, 2, 3] and ids[-1] == order[-1]
        assert temperature or ids == order
        assert all(r.proposed <= 3 for r in found), "nothing is proposed behind the end"


def test_never_more_tokens_than_asked_for():
    model = sharp()
    for number, lookahead in itertools.product((0, 1, 2, 7), (1, 3, 9)):
        config = GenerationConfig(max_new_tokens=number)
        found = list(speculative_stream(model, sharp(seed=3), [1], config, lookahead))
        assert sum(len(r.tokens) for r in found) == number
        assert all(1 <= len(r.tokens) == r.accepted + 1 for r in found)


class Watched:
    """A model that notes of each pass how much was cached, what ids the caches should hold after it, and the logits."""

    def __init__(self, model):
        self.model, self.held, self.passes = model, [], []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def extend(self, ids, caches, padding=None, logits_to_keep=1):
        past = len(caches[0])
        self.held = self.held[:past] + ids[0].tolist()
        logits = self.model.extend(ids, caches, padding, logits_to_keep)
        self.passes.append((past, self.held, logits[0].numpy()))
        return logits

    def check(self):
        """The logits of all passes are, within 1e-5, those that the model gives without a cache."""
        for _, held, logits in self.passes:
            with shared.no_grad():
                wanted = self.model(shared.tensor([held]))[0, -len(logits) :].numpy()
            np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5)
        self.passes.clear()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("lookahead", [1, 3, 6])
def test_in_each_round_the_caches_hold_the_text_and_nothing_else(lookahead, temperature):
    large = Watched(sharp(replace(TINY, block_size=16)))
    small = Watched(sharp(replace(TINY, block_size=12, n_layer=1), 1))
    config = GenerationConfig(temperature=temperature, max_new_tokens=40, seed=0)
    text, outcomes, expected = [1, 2, 3], Counter(), Uncached(large.model, [1, 2, 3])
    for r in speculative_stream(large, small, text, config, lookahead):
        visible = expected.visible(text)
        ((past, held, logits),) = large.passes  # one pass a round
        proposed = held[len(visible) :]
        assert held == visible + proposed and (len(proposed), len(logits)) == (r.proposed, r.proposed + 1)
        assert past in (0, len(visible) - 1), "no token is read twice but where the context was full"
        assert len(small.passes) == r.proposed
        for i, (past, held, _) in enumerate(small.passes):  # the draft reads what was accepted, then its own proposals
            assert [*text, *proposed[:i]][-len(held) :] == held
            assert past in (0, len(held) - 1) or (i == 0 and past == len(held) - 2)
        large.check()
        small.check()
        outcomes["all" if r.accepted == r.proposed else "some" if r.accepted else "none"] += 1
        text = text + r.tokens
    assert len(text) == 43 and len(outcomes) > 1, outcomes


def test_a_reader_reads_only_what_is_new():
    model = sharp(replace(TINY, block_size=8))
    reader, text = Reader(model), [1, 2, 3, 4, 5, 6]
    assert tuple(reader.read(text, 3).shape) == (3, 13) and reader.held == 6
    reader.crop(4)
    assert reader.held == 4 and reader.make_room([*text[:4], 9]) == 3
    reader.crop(7)
    assert reader.held == 4, "more than is there is no demand to read it"
    longer = [*text[:4], 9, 9, 9, 9, 7]
    found = reader.next_logits(longer)  # 9 tokens: the last four are read anew
    assert (reader.start, reader.held) == (5, 9)
    with shared.no_grad():
        np.testing.assert_allclose(found[0].numpy(), model(shared.tensor([longer[5:]]))[0, -1].numpy(), atol=1e-5)
    reader.crop(5)
    assert reader.held == reader.start == 1, "all that it has read is wrong"


# ---------------------------------------------------------------- other drafts, settings, errors


class LastTokens:
    """A draft that is no network: it expects what followed the last token when it came before in the same text."""

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def next_logits(self, text):
        logits = np.zeros((1, self.vocab_size), np.float32)
        for before, after in itertools.pairwise(text):
            if before == text[-1]:
                logits[0, after] += 2.0
        return shared.from_numpy(logits)

    def crop(self, length):
        pass


def test_a_draft_needs_no_network():
    model, config = sharp(seed=2), replace(GREEDY, max_new_tokens=24)
    result = speculate(model, LastTokens(13), [1, 2, 3], config, 3)
    assert [result.ids] == generate(model, [[1, 2, 3]], config)
    assert result.accepted > 3 and result.rounds < 24
    table, generator = Table(seed=2), Generator().manual_seed(7)
    config = GenerationConfig(max_new_tokens=2)
    counts = Counter(tuple(speculate(table, LastTokens(4), [1], config, 2, generator).ids) for _ in range(800))
    assert_drawn_from(counts, text_probabilities(table, [1], 2, config), "a draft without a network")


def test_a_draft_can_be_used_for_one_text_after_the_other():
    model, draft = sharp(seed=2), Reader(sharp(replace(TINY, n_layer=1), 1))
    for prompt in ([1, 2, 3, 4, 5, 6, 7], [3, 1], [3, 1, 4, 1, 5]):
        fresh = speculate(model, Reader(draft.model), prompt, GREEDY, 3)
        assert speculate(model, draft, prompt, GREEDY, 3) == fresh
        assert [fresh.ids] == generate(model, [prompt], GREEDY)


def test_proposals_are_drawn_from_the_rows_that_come_with_them():
    """The q of `accept` must be what the tokens were drawn from, settings and all, each after those before it."""
    draft, config = Table(seed=3), GenerationConfig(temperature=0.7, top_k=3, frequency_penalty=1.0)
    counts, generator = Counter(), Generator().manual_seed(8)
    for _ in range(600):
        proposed, q = propose(Reader(draft), [2, 0], 1, 2, config, generator)
        counts[tuple(proposed)] += 1
    assert_drawn_from(counts, text_probabilities(draft, [2, 0], 2, config, prompt_length=1), "proposals")
    wanted = [drawn_from(draft, [2, 0], 1, config), drawn_from(draft, [2, 0, proposed[0]], 1, config)]
    np.testing.assert_allclose([row.tolist() for row in q], wanted, atol=1e-6)


def test_probabilities_of_many_places():
    logits = shared.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    seen = [[1], [1, 1], [1, 1, 2]]
    config = GenerationConfig(frequency_penalty=2.0)
    found = probabilities(logits, seen, 1, config)
    wanted = shared.softmax(shared.tensor([[1.0, 3.0, 2.0], [1.0, 1.0, 2.0], [1.0, 1.0, 0.0]]), dim=-1)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6)
    greedy = probabilities(logits, seen, 1, replace(config, temperature=0))
    assert greedy.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    nothing = probabilities(shared.full((1, 3), -math.inf), [[1]], 1, config)
    assert nothing.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_every_token_is_forbidden_it_is_an_error_as_without_a_draft(temperature):
    config = GenerationConfig(temperature=temperature, no_repeat_ngram_size=1, max_new_tokens=5, seed=1)
    with pytest.raises(ValueError, match="no token is left"):
        generate(Table(), [[0]], config)
    rounds = speculative_stream(Table(), Table(seed=1), [0], config, 3)
    found = []
    with pytest.raises(ValueError, match="no token is left"):
        found.extend(token for r in rounds for token in r.tokens)
    assert sorted(speculate(Table(), Table(seed=1), [0], replace(config, max_new_tokens=3)).ids) == [1, 2, 3]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("which", ["model", "draft"])
def test_logits_that_are_no_numbers_are_an_error_as_without_a_draft(which, temperature):
    broken, config = sharp(seed=1), replace(GREEDY, temperature=temperature)
    with shared.no_grad():
        broken.norm.bias.fill_(math.nan)
    with pytest.raises(ValueError, match="the largest score of row 0 is nan"):
        generate(broken, [[1]], config)
    models = (broken, sharp()) if which == "model" else (sharp(), broken)
    with pytest.raises(ValueError, match="the largest score of row 0 is nan"):
        speculate(*models, [1], config)


def test_a_seed_or_a_generator_makes_it_repeatable():
    model, draft = sharp(), sharp(seed=1)
    config = GenerationConfig(max_new_tokens=20, seed=4)
    first, again, other = (speculate(model, draft, [1], replace(config, seed=seed)) for seed in (4, 4, 5))
    assert first == again and first.ids != other.ids
    drawn = [speculate(model, draft, [1], config, generator=Generator().manual_seed(9)).ids for _ in range(2)]
    assert drawn[0] == drawn[1] != first.ids


def test_what_makes_no_sense_is_an_error_at_once():
    model = sharp()
    for arguments, message in [
        ((model, sharp(replace(TINY, vocab_size=12)), [1]), "the draft has 12 tokens and the model 13"),
        ((model, LastTokens(14), [1]), "the draft has 14 tokens and the model 13"),
        ((model, model, [1], None, 0), "lookahead to be an int of at least 1, but got 0"),
        ((model, model, [1], None, 2.5), "lookahead to be an int of at least 1, but got 2.5"),
        ((model, model, [1], None, True), "lookahead to be an int of at least 1, but got True"),
        ((model, model, []), "empty"),
        ((model, model, [1] * 33), "33 tokens, but the model reads at most 32"),
    ]:
        with pytest.raises(ValueError, match=message):
            speculative_stream(*arguments)


def test_the_models_are_in_eval_mode_meanwhile_and_then_as_before():
    model, draft = sharp(replace(TINY, dropout=0.5)).train(), sharp(replace(TINY, dropout=0.5), 1).train()
    found = speculate(model, draft, shared.tensor([[1, 2]]), GREEDY)
    assert [found.ids] == generate(sharp(), [[1, 2]], GREEDY)
    assert model.training and draft.training and is_grad_enabled()
