"""Speculative decoding: a small model proposes some tokens, the large one checks them all at once.

    result = speculate(model, draft, prompt, GenerationConfig(max_new_tokens=100), lookahead=4)
    result.ids, result.acceptance_rate

At batch 1 a pass over four tokens takes much less than four times as long as one over a single token (1.5 times, for
GPT-2's sizes on one thread), because the weights have to be read once in both cases.
What comes out has exactly the distribution of the large model alone, however bad the draft is: it decides only about
the time. Sources: Leviathan, Kalman and Matias, "Fast inference from transformers via speculative decoding", 2023;
Chen et al., "Accelerating large language model decoding with speculative sampling", 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shared.arrays.random import Generator
from shared.generation.cache import new_caches
from shared.generation.config import GenerationConfig, is_int, process
from shared.generation.decoding import device_of, generator_of, one_prompt, read_last
from shared.nn import functional as F
from shared.ops import cat, multinomial, rand, tensor
from shared.tensor import Tensor


class Draft(Protocol):
    """What can propose tokens. A GPT becomes one by itself (`Reader`); a table of n-grams needs no more than this."""

    vocab_size: int

    def next_logits(self, text: Sequence[int]) -> Tensor:
        """The logits (1, V) of what follows a text, prompt and all; any that are known to be new tokens are at its end.

        From call to call the text grows at its end, unless `crop` was called.
        """

    def crop(self, length: int) -> None:
        """Of the text only the first `length` tokens are certain: the next one may go on differently from there."""


@dataclass(frozen=True)
class Round:
    """What one pass of the large model brought: new tokens, how many were `proposed`, and how many `accepted`.

    The tokens are those that were accepted and one more; fewer, if a stop token is among them.
    """

    tokens: list[int]
    proposed: int
    accepted: int


@dataclass(frozen=True)
class Speculation:
    """A text and how it came about: new `ids`, and the sums over all rounds; each round is a pass of the large model.

    >>> result = Speculation([5, 3, 1, 2], proposed=4, accepted=3, rounds=1)
    >>> result.acceptance_rate, result.tokens_per_round
    (0.75, 4.0)
    """

    ids: list[int]
    proposed: int
    accepted: int
    rounds: int

    @property
    def acceptance_rate(self) -> float:
        """The share of the proposals that was accepted; after the first refusal of a round all others are lost."""
        return self.accepted / self.proposed if self.proposed else 0.0

    @property
    def tokens_per_round(self) -> float:
        return len(self.ids) / self.rounds if self.rounds else 0.0


def speculate(
    model: Any,
    draft: Any,
    prompt: Tensor | Sequence[int],
    config: GenerationConfig | None = None,
    lookahead: int = 4,
    generator: Generator | None = None,
) -> Speculation:
    """All that `speculative_stream` yields, put together.

    >>> import shared
    >>> from shared.models import GPT, GPTConfig
    >>> large, small = GPT(GPTConfig.preset("toy")), GPT(GPTConfig.preset("toy", n_layer=1))
    >>> result = speculate(large, small, [1, 2, 3], GenerationConfig(max_new_tokens=10))
    >>> len(result.ids), 2 <= result.rounds <= 10
    (10, True)
    """
    rounds = list(speculative_stream(model, draft, prompt, config, lookahead, generator))
    ids = [token for r in rounds for token in r.tokens]
    return Speculation(ids, sum(r.proposed for r in rounds), sum(r.accepted for r in rounds), len(rounds))


def speculative_stream(
    model: Any,
    draft: Any,
    prompt: Tensor | Sequence[int],
    config: GenerationConfig | None = None,
    lookahead: int = 4,
    generator: Generator | None = None,
) -> Iterator[Round]:
    """Continues prompt, ids (T,) or (1, T), with a `model` whose next tokens `draft` guesses, `lookahead` at a time.

    The draft is a model with the same vocabulary, or a `Draft`. The settings of the config hold as in `stream` (so stop
    strings are for `TextStream`), for the model's probabilities and the draft's; penalties look at the text with the
    tokens proposed so far, so that each position has the very distribution it has in `stream`. Where the context is
    full, the last block_size // 2 tokens are read anew at the same places as there, and no proposal reaches beyond
    them; the draft's own context has its own such places. At temperature 0 the tokens are those of `stream`, unless two
    are equally good up to the seventh digit: the logits of several tokens at once are rounded otherwise than those of
    one.

    Draws come from `generator`, as for `stream`, but not the same ones. ValueError for two vocabularies, a lookahead
    that is no int of at least 1, and a prompt that is empty or longer than the model's block_size.
    """
    if not is_int(lookahead, 1):
        raise ValueError(f"speculative_stream: expected lookahead to be an int of at least 1, but got {lookahead!r}")
    target, config = Reader(model), config or GenerationConfig()
    draft = draft if hasattr(draft, "next_logits") else Reader(draft)
    if draft.vocab_size != target.vocab_size:
        raise ValueError(
            f"speculative_stream: the draft has {draft.vocab_size} tokens and the model {target.vocab_size}; they need "
            "the same vocabulary"
        )
    text = one_prompt(prompt, target.block_size)
    return _rounds(target, draft, text, config, lookahead, generator_of(model, config, generator))


def _rounds(
    target: Reader, draft: Draft, text: list[int], config: GenerationConfig, lookahead: int, generator: Any
) -> Iterator[Round]:
    """The loop of `speculative_stream`; `text` is the prompt's ids, and grows."""
    start = len(text)
    draft.crop(0)  # it may have read another text before
    while (left := config.max_new_tokens - (len(text) - start)) > 0:
        number = min(lookahead, left - 1, target.make_room(text))  # the model adds a token of its own
        proposed, q = propose(draft, text, start, number, config, generator)
        proposed = until_stop(proposed, config.stop_tokens)
        logits = target.read([*text, *proposed], len(proposed) + 1)
        p = probabilities(logits, prefixes(text, proposed), start, config)
        if proposed and proposed[-1] in config.stop_tokens:  # what follows is cut off, and may be nothing at all
            p = cat([p[:-1], p[-2:-1]])
        accepted, token = accept(p, q[: len(proposed)], proposed, generator)
        tokens = until_stop([*proposed[:accepted], token], config.stop_tokens)
        text = [*text, *tokens]
        for reader in (target, draft):
            reader.crop(len(text) - 1)  # the last token was read by neither
        yield Round(tokens, len(proposed), accepted)
        if tokens[-1] in config.stop_tokens:
            return


def propose(
    draft: Draft, text: list[int], start: int, number: int, config: GenerationConfig, generator: Any = None
) -> tuple[list[int], list[Tensor]]:
    """`number` tokens that the draft draws one after the other, and for each the probabilities (V,) it was drawn from.

    Fewer, if the config forbids every token that could be next.

    What follows the text is drawn from `probabilities` of the draft's `next_logits`, then what follows the text with
    that token, and so on. The first `start` tokens of the text are the prompt.
    """
    proposed: list[int] = []
    rows: list[Tensor] = []
    for _ in range(number):
        seen = [*text, *proposed]
        q = probabilities(draft.next_logits(seen), [seen], start, config)[0]  # (V,)
        if not q.any():
            break
        proposed.append(draw(q, generator))
        rows.append(q)
    return proposed, rows


def probabilities(logits: Tensor, seen: list[list[int]], start: int, config: GenerationConfig) -> Tensor:
    """The probabilities (n, V) by which tokens are drawn from logits (n, V): softmax after the config's processors.

    Row i is for what follows `seen[i]`, of which the first `start` tokens are the prompt. At temperature 0 the
    likeliest token has all the probability. Where every token is forbidden (−inf) all are 0. ValueError where the
    largest score of a row is NaN or inf, as in `choose`.
    """
    logits = process(logits.float(), seen, [ids[start:] for ids in seen], config)
    for row, largest in enumerate(logits.amax(-1).tolist()):
        if not largest < math.inf:
            raise ValueError(f"probabilities: the largest score of row {row} is {largest}")
    if config.temperature == 0:
        p = F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
    else:
        p = F.softmax(logits, dim=-1)
    return p.masked_fill(logits == -math.inf, 0.0)


def accept(p: Tensor, q: Sequence[Tensor], proposed: Sequence[int], generator: Any = None) -> tuple[int, int]:
    """How many of the k proposed tokens are kept, and the token that follows them.

    p (k + 1, V) are the model's probabilities at each of the k places and at the one after them; `q`, k rows (V,), are
    those that the proposed tokens were drawn from. One after the other, token x of row i is accepted with probability
    min(1, p[i, x] / q[i, x]). At the first refusal the token is drawn from `residual` of the two rows instead; where
    none is refused, one more from the last row of p. Each token that is returned thus has the distribution p.
    Source: Leviathan et al., 2023, algorithm 1.

    >>> import shared
    >>> p, q = shared.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), [shared.tensor([0.5, 0.5, 0.0])]
    >>> accept(p, q, [1]), accept(p, q, [0])
    ((1, 2), (0, 1))
    """
    draws = rand(len(proposed), generator=generator, device=p.device).tolist()
    for i, token in enumerate(proposed):
        if draws[i] * q[i][token].item() >= p[i, token].item():
            return i, draw(residual(p[i], q[i]), generator)
    return len(proposed), draw(p[-1], generator)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """What p (V,) has more than q (V,), as a distribution: max(p − q, 0) over its sum.

    A token that the draft proposes too rarely has to come from elsewhere: with probability min(p, q) it is proposed and
    accepted, and this is the rest. Where p and q are equal nothing is left, and p is returned; a refusal can then only
    come from rounding.

    >>> import shared
    >>> residual(shared.tensor([0.5, 0.25, 0.25]), shared.tensor([0.0, 0.25, 0.75])).tolist()
    [1.0, 0.0, 0.0]
    """
    rest = (p - q).clamp(min=0)
    total = rest.sum()
    return rest / total if total.item() > 0 else p


def acceptance_probability(p: Tensor, q: Tensor) -> Tensor:
    """Σ min(p, q) over the last dimension: the chance that a token drawn from q is accepted where p is wanted.

    It is 1 minus the distance of the two, half of Σ |p − q|. Source: Leviathan et al., 2023, theorem 3.5.

    >>> import shared
    >>> acceptance_probability(shared.tensor([0.5, 0.5, 0.0]), shared.tensor([0.25, 0.25, 0.5])).item()
    0.5
    """
    return p.minimum(q).sum(dim=-1)


def expected_tokens(acceptance: float, lookahead: int) -> float:
    """How many tokens a round brings on average, if each proposal is accepted with the same probability.

    1 + a + a² + … + a^lookahead: the token that is always there, and those of which all before were accepted.
    ValueError unless 0 ≤ a ≤ 1 (but for rounding) and lookahead ≥ 0. Source: Leviathan et al., 2023, equation 1.

    >>> expected_tokens(0.5, 3), expected_tokens(1.0, 3)
    (1.875, 4.0)
    """
    if not (0 <= acceptance <= 1 + 1e-6 and lookahead >= 0):
        raise ValueError(
            f"expected_tokens: expected 0 ≤ acceptance ≤ 1 and lookahead ≥ 0, but got {acceptance} and {lookahead}"
        )
    return float(sum(acceptance**i for i in range(lookahead + 1)))


def draw(probabilities: Tensor, generator: Any = None) -> int:
    """A token, drawn with the probabilities (V,); ValueError where all are 0."""
    if not probabilities.any():
        raise ValueError("no token is left: all have the score -inf; forbid fewer of them")
    return int(multinomial(probabilities, 1, replacement=True, generator=generator).item())


def prefixes(text: list[int], proposed: list[int]) -> list[list[int]]:
    """The text before each place of the proposed tokens, and after them all.

    >>> prefixes([7], [1, 2])
    [[7], [7, 1], [7, 1, 2]]
    """
    return [[*text, *proposed[:i]] for i in range(len(proposed) + 1)]


def until_stop(tokens: list[int], stop_tokens: Sequence[int]) -> list[int]:
    """The tokens up to the first that is a stop token, which is still among them."""
    for i, token in enumerate(tokens):
        if token in stop_tokens:
            return tokens[: i + 1]
    return tokens


class Reader:
    """A model that reads a text, and keeps what it has read: of a text that has grown only the new tokens.

    The caches hold `text[start:]` up to some token; `start` is 0 until the context was full for the first time.

    >>> import shared
    >>> from shared.models import GPT, GPTConfig
    >>> reader = Reader(GPT(GPTConfig.preset("toy")))
    >>> tuple(reader.read([1, 2, 3], scores=2).shape), reader.held
    ((2, 65), 3)
    >>> reader.crop(1), reader.held, tuple(reader.next_logits([1, 5]).shape), reader.held
    (None, 1, (1, 65), 2)
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.vocab_size: int = model.config.vocab_size
        self.block_size: int = model.config.block_size
        self.start = 0
        self.caches = new_caches(model)

    @property
    def held(self) -> int:
        """Up to where the text was read, counted from its first token."""
        return self.start + len(self.caches[0])

    def make_room(self, text: Sequence[int]) -> int:
        """How many tokens after the text can be read too. If the text cannot: its last half will be read anew."""
        if len(text) - self.start > self.block_size:
            self._restart(len(text))
        return self.block_size - (len(text) - self.start)

    def read(self, text: Sequence[int], scores: int) -> Tensor:
        """The logits (scores, V) after each of the last tokens of the text; all tokens are in the caches then."""
        self.make_room(text)
        ids = tensor([list(text[self.held :])], device=device_of(self.model))
        return read_last(self.model, ids, self.caches, scores)[0]

    def next_logits(self, text: Sequence[int]) -> Tensor:
        """The logits (1, V) of what follows."""
        return self.read(text, 1)

    def crop(self, length: int) -> None:
        """Forgets what was read after the first `length` tokens of the text: it will go on differently from there.

        The caches begin with token `self.start` of the text. Where nothing of what they hold would stay, length ≤
        start, reading begins again half a context before (`_restart`). What was not read cannot be forgotten: a
        `length` above `held` changes nothing.
        """
        if length <= self.start:
            self._restart(length)
        for cache in self.caches:
            cache.crop(min(len(cache), length - self.start))

    def _restart(self, length: int) -> None:
        """Forgets everything; the next text is read from half a context before `length` on."""
        self.start = max(0, length - max(1, self.block_size // 2))
        self.caches = new_caches(self.model)
