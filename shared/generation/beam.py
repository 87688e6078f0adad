"""Beam search: several texts are continued at once, and of all their continuations the likeliest are kept.

    best = beam_search(model, tokenizer.encode("To be"), num_beams=4, max_new_tokens=20)[0]
    tokenizer.decode(best.ids)

Nothing is drawn. The beams and their scores are those of `transformers`' generate with num_beams, do_sample=False and
its other settings as they are (early_stopping=False).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.generation.cache import GenerationCache, new_caches
from shared.generation.config import GenerationConfig, is_int, is_number, process
from shared.generation.decoding import context, device_of, one_prompt, read
from shared.nn import functional as F
from shared.ops import tensor
from shared.tensor import Tensor


@dataclass(frozen=True)
class Beam:
    """A text that was begun: its new `ids`, with the stop token if there is one; the sum `log_prob` of their ln p after
    the config's processors; and `score`, that sum over length ** length_penalty, by which finished texts are compared.
    """

    ids: list[int]
    log_prob: float
    score: float


def beam_search(
    model: Any,
    prompt: Tensor | Sequence[int],
    num_beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
    stop_tokens: int | Iterable[int] = (),
    num_return: int = 1,
    config: GenerationConfig | None = None,
) -> list[Beam]:
    """The `num_return` best continuations of prompt, ids (T,) or (1, T), that a search with `num_beams` finds.

    Each step scores all continuations of the running texts by one token. The best of them go on, `num_beams` texts that
    did not end. A text among the `num_beams` best that ends, with one of `stop_tokens` or the config's, or because it
    has `max_new_tokens`, is put aside; `num_beams` of those are kept, by `score`. The search is over when they are
    complete and the best running text, scored at its present length, is no better than the worst of them: with a
    length_penalty above 0 a longer text could still have been, which is why this is a rule of thumb.

    Of `config` the penalties, `no_repeat_ngram_size`, `logit_bias` and `stop_tokens` count. They work on ln p, and the
    result is not normalised again, as in `transformers`; so a repetition penalty is another than on logits. ValueError
    for what only a draw can use (temperature, top_k, top_p, min_p), for stop strings, which need a tokenizer, for
    num_return > num_beams, numbers that are no ints of at least 1, a length_penalty that is not finite, logits that are
    NaN, and a prompt that is empty or longer than block_size. Where the context is full, the last block_size // 2
    tokens of each text are read anew, as `stream` does. There may be fewer results than `num_return` if there are no
    more texts.

    >>> import shared
    >>> from shared.models import GPT, GPTConfig
    >>> beams = beam_search(GPT(GPTConfig.preset("toy")), [1, 2], num_beams=3, max_new_tokens=4, num_return=2)
    >>> len(beams), len(beams[0].ids), beams[0].score >= beams[1].score
    (2, 4, True)
    """
    for name, value in (("num_beams", num_beams), ("max_new_tokens", max_new_tokens), ("num_return", num_return)):
        if not is_int(value, 1):
            raise ValueError(f"beam_search: expected {name} to be an int of at least 1, but got {value!r}")
    if not is_number(length_penalty):
        raise ValueError(f"beam_search: expected length_penalty to be a finite number, but got {length_penalty!r}")
    if num_return > num_beams:
        raise ValueError(f"beam_search: {num_beams} beams cannot give num_return={num_return} texts")
    config = _without_draws(config or GenerationConfig())
    given = (stop_tokens,) if isinstance(stop_tokens, int) else tuple(stop_tokens)
    ends = {*replace(config, stop_tokens=given).stop_tokens, *config.stop_tokens}
    start = one_prompt(prompt, model.config.block_size)
    finished: list[Beam] = []
    running, rows, caches = [Beam([], 0.0, 0.0)], [0], new_caches(model)
    for length in range(1, max_new_tokens + 1):
        log_probs = _log_probs(model, start, running, rows, caches, config)
        if log_probs.isnan().any():
            raise ValueError(f"beam_search: the model's scores have NaN, for new token number {length}")
        candidates, rows = _candidates(running, log_probs, max(2, 1 + len(ends)) * num_beams, length_penalty)
        if not candidates:  # the processors forbid every token
            return best([*finished, *running], num_return)
        ended = [beam.ids[-1] in ends or length == max_new_tokens for beam in candidates]
        aside, going = sort_out(ended, num_beams)
        finished = best([*finished, *[candidates[i] for i in aside]], num_beams)
        running, rows = [candidates[i] for i in going], [rows[i] for i in going]
        if not running or is_over(finished, running[0], num_beams):
            break
    return finished[:num_return]


def extend_beams(scores: Tensor, log_probs: Tensor, num_beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """One step: the best continuations of n running texts by one token, best first.

    `scores` (n,) are the texts' sums of ln p so far, and `log_probs` (n, V) those of each token that may follow. Of the
    n · V sums the `num_beams` largest are chosen: in whose row each was found (int64), which token it is (int64), and
    the sum. A sum of −inf, of a token that is forbidden, is never chosen; there may be fewer than `num_beams` others.

    >>> import shared
    >>> log_probs = shared.tensor([[0.5, 0.4, 0.1], [0.9, 0.05, 0.05]]).log()
    >>> rows, tokens, scores = extend_beams(shared.tensor([0.6, 0.4]).log(), log_probs, 3)
    >>> rows.tolist(), tokens.tolist(), [round(x, 2) for x in scores.exp().tolist()]
    ([1, 0, 0], [0, 0, 1], [0.36, 0.3, 0.24])
    """
    sums = scores.unsqueeze(1) + log_probs  # (n, V)
    scores, places = sums.flatten().topk(min(num_beams, sums.numel()))
    allowed = scores > float("-inf")
    vocab_size = log_probs.shape[1]
    return (places // vocab_size)[allowed], (places % vocab_size)[allowed], scores[allowed]


def length_normalised(log_prob: float, length: int, penalty: float) -> float:
    """log_prob / length ** penalty: what texts of several lengths are compared by.

    A sum of ln p only falls with each token, so without it (penalty 0) the shortest text wins; with 1 it is the mean of
    ln p, and above 1 long texts are favoured: the name "penalty" is the field's, and misleading. `length` counts the
    new tokens, the stop token too. Source: Wu et al., "Google's neural machine translation system", 2016, equation 14,
    for the idea; the formula is that of `transformers`.

    >>> length_normalised(-6.0, 3, 1.0), length_normalised(-6.0, 3, 0.0)
    (-2.0, -6.0)
    """
    return log_prob / length**penalty


def sort_out(ended: Sequence[bool], num_beams: int) -> tuple[list[int], list[int]]:
    """Which of the candidates, best first, are put aside, and which go on; `ended` says of each whether it is complete.

    Their numbers, in order. Only one of the first `num_beams` is put aside, if it ended: a text that ends further down
    is worse than as many that go on. The first `num_beams` that did not end go on.

    >>> sort_out([False, True, False, True], num_beams=2)
    ([1], [0, 2])
    """
    aside = [i for i, done in enumerate(ended[:num_beams]) if done]
    going = [i for i, done in enumerate(ended) if not done]
    return aside, going[:num_beams]


def best(beams: Sequence[Beam], number: int) -> list[Beam]:
    """The `number` beams with the highest scores, best first; of equal ones those that came first."""
    return sorted(beams, key=lambda beam: beam.score, reverse=True)[:number]


def is_over(finished: Sequence[Beam], running: Beam, num_beams: int) -> bool:
    """Whether `num_beams` texts are finished, and the best running text has no higher score than the last of them."""
    return len(finished) == num_beams and running.score <= finished[-1].score


def _log_probs(
    model: Any,
    start: list[int],
    running: list[Beam],
    rows: list[int],
    caches: list[GenerationCache],
    config: GenerationConfig,
) -> Tensor:
    """ln p (n, V) of what follows each of the running texts, after the config's processors.

    The logits that `read` gives are made ln p, in float32, and `process` works on those, with the whole texts (`start`
    and what is new) and their new tokens. Before the first step the caches are empty, and the prompt is read. Later
    they hold the texts of the step before, without their last tokens: running text i continues that in row `rows[i]`,
    so the caches `select` these rows, and the last token of each text is read. Where they hold block_size tokens, new
    ones take their places in the list `caches`, and what `context` gives is read. What is read lies on the model's
    device (`device_of`), and so do the rows.
    """
    new = [beam.ids for beam in running]
    seen = [[*start, *ids] for ids in new]
    device, past = device_of(model), len(caches[0])
    if past == model.config.block_size:
        caches[:] = new_caches(model)
        ids = context(seen, past, first=False)
    else:
        ids = [text[-1:] for text in seen] if past else seen
        for cache in caches:
            cache.select(tensor(rows, device=device))
    logits = read(model, tensor(ids, device=device), caches)
    return process(F.log_softmax(logits.float(), dim=-1), seen, new, config)


def _candidates(
    running: list[Beam], log_probs: Tensor, number: int, length_penalty: float
) -> tuple[list[Beam], list[int]]:
    """The best continuations by one token, best first, and for each the number of the running text it continues."""
    sums = tensor([beam.log_prob for beam in running], dtype=log_probs.dtype, device=log_probs.device)
    rows, tokens, scores = (x.tolist() for x in extend_beams(sums, log_probs, number))
    texts = [[*running[row].ids, token] for row, token in zip(rows, tokens, strict=True)]
    made = zip(texts, scores, strict=True)
    return [Beam(ids, x, length_normalised(x, len(ids), length_penalty)) for ids, x in made], rows


def _without_draws(config: GenerationConfig) -> GenerationConfig:
    """The config for `process`, at temperature 0; ValueError that names what beam search has no use for."""
    names = [name for name in ("top_k", "top_p", "min_p") if getattr(config, name) is not None]
    names += ["temperature"] if config.temperature not in (0, 1) else []
    names += ["stop_strings"] if config.stop_strings else []
    if names:
        raise ValueError(f"beam_search draws nothing and knows no strings: leave out {', '.join(names)}")
    return replace(config, temperature=0.0)
