"""Sprint 10's milestones on the loop: what the model reads of each text, when a text ends, and what a reader gets of "
"it.

A known mistake is named in the message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from witness import CONTEXT, Witness, check_counts, seeded, softmax

import shared
from course.oracles import doing, require
from shared.generation import GenerationConfig, generate, pad_left, stream
from shared.generation.decoding import context
from shared.generation.text import TextStream, overlap
from shared.text import ByteLevelBPE, CharVocabulary

GREEDY = GenerationConfig(max_new_tokens=5, temperature=0.0)
HALF = CONTEXT // 2
HINTS = {
    "positions end at": "Where the caches hold block_size tokens, the last half of each text is read into empty "
    "caches.",
    "number of dimensions": "What is read next is a column, (B, 1): one new token for each text.",
    "not enough values": "What is read next is a column, (B, 1): one new token for each text.",
    "tuple index out of range": "What is read next is a column, (B, 1): one new token for each text.",
    "inhomogeneous": "Texts of unequal lengths become a table by fillers on the left.",
    "cannot be kept": "Caches that are full are replaced by new ones.",
    "expected keys": "All texts are read on, also those that are finished: a column of new tokens, (B, 1), keeps the "
    "rows.",
    "zip()": "Each step has a token or None for each text.",
    "argument 2 is": "Each step has a token or None for each text.",
    "ids for": "`seen` and `new` have a list for each text.",
    "not iterable": "`tokens` is a list, with an id or None for each text; a loop that hands out steps has `yield` in "
    "it.",
    "unexpected keyword": "Step(tokens, logits) is what is yielded.",
    "list.remove": "A text that is finished stays in the batch.",
}


# ------------------------------------------------------------------------ by hand


def visible(
    prompts: list[list[int]], steps: int, choose: Any, block_size: int = CONTEXT
) -> tuple[list[list[int]], list[list[tuple[int, ...]]]]:
    """By the policy: the texts with `steps` more tokens, and what is seen of each before each of them."""
    texts, begins = [list(p) for p in prompts], [0] * len(prompts)
    full, saw = max(map(len, prompts)), []
    for step in range(steps):
        if full > block_size:
            begins = [max(0, len(text) - block_size // 2) for text in texts]
            full = max(len(text) - begin for text, begin in zip(texts, begins, strict=True))
        seen = [tuple(text[begin:]) for text, begin in zip(texts, begins, strict=True)]
        saw.append(seen)
        for row, (text, part) in enumerate(zip(texts, seen, strict=True)):
            text.append(choose(row, step, part))
        full += 1
    return [text[-steps:] for text in texts], saw


def described(found: tuple[int, ...], wanted: tuple[int, ...], others: list[tuple[int, ...]], full: bool) -> str:
    """What is wrong with what the model saw of a text."""
    if found[: len(found) - len(wanted)] == (0,) * (len(found) - len(wanted)) and found[-len(wanted) :] == wanted:
        return "fillers are part of its text: is `padding` handed to read?"
    if len(wanted) > 1 and len(found) > len(wanted) and found[: len(wanted) - 1] == wanted[:-1]:
        return "what is in the caches was read again: after the first pass only the new token is read"
    if found == wanted[: len(found)] and not (len(found) == 1 and found == wanted[-1:]):
        return "the newest tokens are missing"
    if found and found == wanted[-len(found) :]:
        return (
            "the last token alone: are the caches new for every token?"
            if len(found) == 1 and len(wanted) > 1 and not full
            else "only its end: when the context is full, the last block_size // 2 tokens are read anew, and before "
            "that everything is kept"
            if not full
            else "fewer tokens than the last block_size // 2"
        )
    if len(found) > len(wanted) and found[-len(wanted) :] == wanted:
        return "more than the last block_size // 2 tokens" if full else "something stands in front of its text"
    if found in others:
        return "that is another text of the batch: rows are mixed"
    if len(found) > 1 and found[-1] == found[-2] and found[:-1] == wanted[: len(found) - 1]:
        return "its last token was read twice"
    if wanted[: len(wanted) // 2] and len(found) >= 2 * len(wanted) - 1 and found[-len(wanted) :] == wanted:
        return "the caches still hold what was there before: they are new where the text is read anew"
    if tuple(x for x in found if x) == tuple(x for x in wanted if x):
        return "fillers are part of its text: is `padding` handed to read?"
    return "the caches and ids together are its text"


def streamed(what: str, model: Witness, prompts: Any, config: GenerationConfig, **options: Any) -> list[Any]:
    with doing(what, HINTS):
        steps = stream(model, prompts, config, **options)
        require(steps is not None, f"{what} is None: the loop hands out a Step after each token with `yield`")
        steps = list(steps)
    for step in steps:
        require(
            hasattr(step, "tokens") and hasattr(step, "logits"),
            f"{what} yields a {type(step).__name__}: a Step(tokens, logits) for each token is expected",
        )
        require(
            isinstance(step.tokens, list) and len(step.tokens) == len(prompts),
            f"{what}: a step's tokens are {step.tokens!r}, where a list of {len(prompts)}, one for each text, is "
            "expected",
        )
    return steps


def check_texts(what: str, prompts: list[list[int]], count: int, block_size: int = CONTEXT) -> None:
    """The likeliest tokens after some prompts, and what the model saw for each of them."""
    model = Witness(block_size=block_size)
    expected, saw = visible(prompts, count, lambda row, step, part: int(model.scores(part).argmax()), block_size)
    before = [list(p) for p in prompts]
    steps = streamed(what, model, prompts, replace(GREEDY, max_new_tokens=count))
    require(prompts == before, f"{what} changes the prompts that it was given")
    for k, (found, wanted) in enumerate(zip(model.saw, saw, strict=False)):
        for row, (a, b) in enumerate(zip(found, wanted, strict=False)):
            if a != b:
                others = [text for other, text in enumerate(wanted) if other != row]
                anew = len(b) < len(prompts[row]) + k
                early = len(a) < len(b) and a == b[-len(a) :] and len(a) == block_size // 2
                pytest.fail(
                    f"{what}: for the token {k + 1} of text {row} the model sees {list(a)}, where {list(b)} is "
                    "expected: "
                    + ("its context is not full yet" if early and not anew else described(a, b, others, anew)),
                    pytrace=False,
                )
    require(
        len(model.saw) == count,
        f"{what} takes {len(model.saw)} passes of the model for {count} tokens"
        + (": what was read after the last token is of no use" if len(model.saw) == count + 1 else ""),
    )
    require(len(steps) == count, f"{what} yields {len(steps)} steps, where max_new_tokens is {count}")
    tokens = [list(row) for row in zip(*[step.tokens for step in steps], strict=True)]
    if tokens != expected:
        least = visible(prompts, count, lambda row, step, part: int(model.scores(part).argmin()), block_size)[0]
        pytest.fail(
            f"{what}: the texts go on with {tokens}, where {expected} is expected"
            + (": those are the least likely tokens" if tokens == least else ""),
            pytrace=False,
        )
    for step, seen in zip(steps, saw, strict=True):
        scores = np.stack([model.scores(part) for part in seen])
        found = None if step.logits is None else step.logits.numpy()
        require(
            found is not None and found.shape == scores.shape and np.allclose(found, scores, atol=1e-5),
            f"{what}: a step's logits are not what the model gave at that token, (B, V)",
        )
    require(not any(training for training, _ in model.modes), f"{what}: the model is in train mode: `read` does that")


def check_settings() -> None:
    """Processors get the text with the prompt and the new tokens, and the logits handed out are those from before."""
    model, prompts = Witness(seed=1, scale=0.3), [[1, 2, 3], [7]]
    config = replace(GREEDY, max_new_tokens=8, presence_penalty=5.0, logit_bias={4: 1.5})
    texts = [list(p) for p in prompts]

    def choose(row: int, step: int, part: tuple[int, ...]) -> int:
        scores = model.scores(part).copy()
        scores[4] += 1.5
        for token in set(texts[row][len(prompts[row]) :]):
            scores[token] -= 5
        texts[row].append(int(scores.argmax()))
        return texts[row][-1]

    written: list[tuple[int, int]] = []

    def together(row: int, step: int, part: tuple[int, ...]) -> int:
        """As `choose`, where the tokens of all texts are in one list."""
        scores = model.scores(part).copy()
        scores[4] += 1.5
        scores[list({token for at, token in written if at < step})] -= 5
        written.append((step, int(scores.argmax())))
        return written[-1][1]

    expected, saw = visible(prompts, 8, choose)
    what = "stream with a presence penalty and a bias"
    steps = streamed(what, model, prompts, config)
    tokens = [list(row) for row in zip(*[step.tokens for step in steps], strict=True)]
    bare = visible(prompts, 8, lambda row, step, part: int(model.scores(part).argmax()))[0]
    require(
        tokens == expected,
        f"{what}: {tokens}, where {expected} is expected"
        + (
            ": process is left out"
            if tokens == bare
            else ": `new` is one list for all texts, where each has its own; [[]] * n is one list n times"
            if tokens == visible(prompts, 8, together)[0]
            else ": process(logits, seen, new, config) is given the new tokens"
        ),
    )
    require(
        np.allclose(steps[0].logits.numpy(), [model.scores(part) for part in saw[0]], atol=1e-5),
        f"{what}: the logits of a step are those after process; the model's own are asked for",
    )
    model, config = Witness(seed=2, scale=0.3), replace(GREEDY, max_new_tokens=6, no_repeat_ngram_size=1)
    for prompt, new in zip(prompts, generated("generate without a token twice", model, prompts, config), strict=True):
        text = [*prompt, *new]
        require(
            len(set(text)) == len(text),
            f"with no_repeat_ngram_size=1 a text is {text}: `seen` is the prompt and all new tokens, for each text",
        )
    model, config = Witness(seed=3), replace(GREEDY, max_new_tokens=7)
    expected = visible(prompts, 7, lambda row, step, part: int(model.scores(part).argmax()))[0]
    require(
        generated("generate", model, prompts, config) == expected,
        "generate gives other tokens than the steps of stream",
    )


def generated(what: str, model: Any, prompts: Any, config: GenerationConfig, **options: Any) -> list[list[int]]:
    with doing(what, HINTS):
        return generate(model, prompts, config, **options)


def check_stops() -> None:
    prompts = [[1, 2, 3], [7], [5, 5]]
    model = Witness(seed=4)
    free = visible(prompts, 7, lambda row, step, part: int(model.scores(part).argmax()))[0]
    stop = free[1][2]
    others = [row for row in range(3) if row != 1 and stop not in free[row]]
    cut = [row[: row.index(stop) + 1] if stop in row else row for row in free]
    model = Witness(seed=4)
    what = f"stream with stop_tokens=({stop},)"
    steps = streamed(what, model, prompts, replace(GREEDY, max_new_tokens=7, stop_tokens=(stop,)))
    columns = [[step.tokens[row] for step in steps] for row in range(3)]
    require(columns[1] != free[1], f"{what}: a text goes on after the token {stop}: {columns[1]}")
    require(stop in columns[1], f"{what}: text 1 is {columns[1]}: the stop token itself is handed out too, then None")
    for row in others:
        require(
            columns[row][: len(cut[row])] == cut[row],
            f"{what}: text {row}, in which it does not occur, is {columns[row]}, where {cut[row]} is expected: a text "
            "that is finished neither ends nor changes the others",
        )
    for row in range(3):
        rest = columns[row][len(cut[row]) :]
        require(
            columns[row][: len(cut[row])] == cut[row],
            f"{what}: text {row} is {columns[row]}, where {cut[row]} is expected",
        )
        require(
            all(token is None for token in rest),
            f"{what}: text {row} is {columns[row]}: after its stop token None is handed out",
        )
    first = Witness(seed=4)
    alone = streamed(what, first, [prompts[1]], replace(GREEDY, max_new_tokens=7, stop_tokens=(stop,)))
    require(
        len(alone) == len(cut[1]) == len(first.saw),
        f"{what}: a single text that ends with its token {len(cut[1])} takes {len(alone)} steps and {len(first.saw)} "
        "passes: where all are finished there is nothing more to do",
    )
    inside = replace(GREEDY, max_new_tokens=3, stop_tokens=(prompts[0][1],))
    if prompts[0][1] not in free[0][:3]:
        found = generated("a stop token in the prompt", Witness(seed=4), [prompts[0]], inside)
        require(
            found == [free[0][:3]],
            f"a prompt with the stop token in it is continued by {found}: only new tokens end a text",
        )
    require(
        streamed("stream with max_new_tokens=0", Witness(), [[1]], replace(GREEDY, max_new_tokens=0)) == [],
        "with max_new_tokens=0 something is written",
    )


def check_draws() -> None:
    model = Witness(vocab_size=5, seed=5, scale=0.7)
    rows = 700
    config = GenerationConfig(max_new_tokens=2, seed=0)
    found = np.array(generated("generate", model, [[1, 2]] * rows, config))
    p = softmax(model.scores((1, 2)))
    then = np.stack([softmax(model.scores((1, 2, token))) for token in range(5)])
    check_counts(
        "the first tokens that stream draws",
        found[:, 0],
        p,
        {"the likeliest each time": np.eye(5)[p.argmax()]},
        "five tokens",
    )
    check_counts(
        "the second tokens that stream draws",
        found[:, 1],
        p @ then,
        {"the first token's distribution: the new token is read before the next is drawn": p},
        "five tokens",
    )
    model, config = Witness(seed=6), GenerationConfig(max_new_tokens=12, seed=1)
    prompts = [[1, 2, 3], [7]]
    state = np.asarray(shared.get_rng_state()).tolist()
    first, again, other = (
        generated("generate with a seed", model, prompts, replace(config, seed=s)) for s in (1, 1, 2)
    )
    require(
        first == again and first != other and np.asarray(shared.get_rng_state()).tolist() == state,
        "two generations with one seed differ, or the default generator was drawn from: `generator` goes to choose",
    )
    own = [generated("generate", model, prompts, replace(config, seed=None), generator=seeded(3)) for _ in range(2)]
    require(own[0] == own[1], "a generator that is given is not the one that is drawn from: it goes to choose")


def check_lazy() -> None:
    model = Witness()
    with doing("stream", HINTS):
        steps = stream(model, [[1, 2]], GREEDY)
        require(
            len(model.saw) == 0, "stream reads before anybody has asked for a token: a loop with `yield` in it waits"
        )
        next(iter(steps))
    require(
        len(model.saw) == 1,
        f"before the first token is handed out the model has been asked {len(model.saw)} times: `yield` hands out "
        "each step as soon as it is there, which is what makes a text appear while it is written",
    )


def check_context_and_fillers() -> None:
    texts = [list(range(10)), [3, 4], list(range(7))]
    for block_size, half in ((8, 4), (9, 4), (2, 1), (1, 1)):
        for first in (True, False):
            what = f"context of {texts}, block_size={block_size}, first={first}"
            with doing(what, HINTS):
                found = context(texts, block_size, first)
            expected = texts if first else [text[-half:] for text in texts]
            mistakes = {
                "the last block_size tokens, which leave no room for the next": [t[-block_size:] for t in texts],
                "the first half: the last tokens are what comes before the next": [t[:half] for t in texts],
                **(
                    {"text[-0:], which is everything: half of 1 is 0, and one token at least is read": texts}
                    if half * 2 > block_size
                    else {}
                ),
                "all of it: only at first": texts,
                "half of each text: half of the context": [t[len(t) // 2 :] for t in texts],
                "everything but the last half": [t[:-half] for t in texts],
                "one token fewer": [t[-half + 1 :] for t in texts],
                "one token more": [t[-half - 1 :] for t in texts],
                "half a context where everything is to be read: that is for later": [t[-half:] for t in texts],
            }
            names = [name for name, value in mistakes.items() if value == found]
            looks = f"\nThat is what one gets from: {names[0]}." if names and found != expected else ""
            require(found == expected, f"{what} is {found}, where {expected} is expected{looks}")
    for given in ([[5, 6, 7], [8], [9, 1]], [[1], [2, 3]], [[1, 2], [3, 4]], [[4]]):
        what = f"pad_left({given})"
        with doing(what, HINTS):
            found = pad_left(given)
        require(isinstance(found, tuple) and len(found) == 2, f"{what} is {found!r}: a pair (ids, padding) is expected")
        ids, padding = found
        longest = max(map(len, given))
        right = [[0] * (longest - len(text)) + text for text in given]
        require(
            isinstance(ids, shared.Tensor) and ids.dtype == shared.int64,
            f"{what}: ids are {ids.dtype if isinstance(ids, shared.Tensor) else type(ids).__name__}, an int64 Tensor "
            "is expected",
        )
        behind = [text + [0] * (longest - len(text)) for text in given]
        cutoff = [text[-min(map(len, given)) :] for text in given]
        looks = (
            "\nThat is what one gets from: fillers on the right: the next token would stand behind them."
            if ids.tolist() == behind
            else "\nThat is what one gets from: long texts cut down to the shortest: short ones are filled up."
            if ids.tolist() == cutoff
            else ""
        )
        require(ids.tolist() == right, f"{what} has ids {ids.tolist()}, where {right} is expected{looks}")
        fillers = [longest - len(text) for text in given]
        if not any(fillers):
            require(padding is None, f"{what} has padding {padding}: None where there are no fillers")
            continue
        require(padding is not None, f"{what} has no padding, where fillers are: {fillers} is expected")
        counts = padding.tolist() if isinstance(padding, shared.Tensor) else padding
        require(
            isinstance(padding, shared.Tensor) and counts == fillers,
            f"{what} has padding {counts}, where {fillers} is expected, an int64 Tensor of the number of fillers in "
            f"each row" + (": those are the lengths of the texts" if counts == [len(text) for text in given] else ""),
        )


def test_each_text_goes_on_from_what_is_visible_of_it_until_it_ends():
    check_context_and_fillers()
    check_texts("one prompt of three tokens", [[1, 2, 3]], 5, block_size=64)
    check_texts("prompts of 4, 1 and 2 tokens", [[1, 2, 3, 4], [7], [8, 9]], 4)
    check_texts("20 tokens, more than a context of 8", [[1, 2, 3]], 20)
    check_texts("a prompt as long as the context", [list(range(1, 9))], 3)
    check_texts("prompts of 3 and 6 tokens, and 13 more in a context of 8", [[1, 2, 3], [4, 5, 6, 7, 8, 9]], 13)
    check_lazy()
    check_settings()
    check_stops()
    check_draws()


# ------------------------------------------------------------------------ text

LETTERS = CharVocabulary.from_text("ab.!")
BYTES = ByteLevelBPE([])  # every token one byte


class Pieces:
    """A tokenizer whose tokens are whole pieces of text."""

    def __init__(self, *pieces: str):
        self.pieces = pieces

    def decode(self, ids: list[int], skip_specials: bool = True) -> str:
        return "".join(self.pieces[i] for i in ids)


def check_overlap() -> None:
    cases = [("the end, th", "the"), ("the end", "the"), ("a..", "..!"), ("aab", "aabaabc"), ("aaa", "aa"), ("", "x")]
    cases += [("ab", "b"), ("x", "x"), ("abab", "ababc"), ("ba", "ab"), ("xa", "abc"), ("ab", "abcdef")]
    found = []
    for text, stop in cases:
        with doing(f"overlap({text!r}, {stop!r})", HINTS):
            found.append(overlap(text, stop))
    right = [max(beginnings(text, stop), default=0) for text, stop in cases]
    for (text, stop), n, expected in zip(cases, found, right, strict=True):
        if n == expected:
            continue
        names = [name for name, rule in OVERLAPS.items() if found == [rule(*case) for case in cases]]
        names += [name for name, rule in OVERLAPS.items() if n == rule(text, stop)]
        looks = f"\nThat is what one gets from: {names[0]}." if names else ""
        pytest.fail(f"overlap({text!r}, {stop!r}) is {n}, where {expected} is expected{looks}", pytrace=False)


def beginnings(text: str, stop: str, whole: int = 0) -> list[int]:
    """How long the beginnings of `stop` are, shorter than all of it, with which the text ends."""
    return [n for n in range(1, len(stop) + whole) if n <= len(text) and text[-n:] == stop[:n]]


def longest(stop: str, fits: Callable[[int], bool]) -> int:
    return next((n for n in range(len(stop) - 1, 0, -1) if fits(n)), 0)


OVERLAPS: dict[str, Callable[[str, str], int]] = {
    "the shortest end with which the stop string begins: the longest has to be kept back": lambda text, stop: min(
        beginnings(text, stop), default=0
    ),
    "all of the stop string counted: only a beginning that is not yet complete": lambda text, stop: max(
        beginnings(text, stop, 1), default=0
    ),
    "a beginning of the stop string anywhere in the text: at its end": lambda text, stop: longest(
        stop, lambda n: n <= len(text) and stop[:n] in text
    ),
    "an end of the stop string: its beginning is looked for": lambda text, stop: longest(
        stop, lambda n: n <= len(text) and text.endswith(stop[-n:])
    ),
    "the beginning of the text: its end is looked at": lambda text, stop: longest(
        stop, lambda n: n <= len(text) and text.startswith(stop[:n])
    ),
    "as much as any stop string could need: only what begins this one": lambda text, stop: len(stop) - 1,
    "no overlap where there is one": lambda text, stop: 0,
}


def written(tokenizer: Any, ids: list[int], stops: tuple[str, ...], what: str) -> tuple[list[str], str, bool]:
    text = TextStream(tokenizer, stops)
    with doing(what, HINTS):
        pieces = [text.add(i) for i in ids]
        rest = text.end()
    for piece in [*pieces, rest]:
        require(
            isinstance(piece, str), f"{what}: a piece is {piece!r}, where a text is expected: is a `return` missing?"
        )
    return pieces, rest, text.stopped


def expected_pieces(parts: list[str], stops: tuple[str, ...]) -> tuple[list[str], str, bool]:
    """By the definition: character by character what is complete, cut before the stop string that is complete first."""
    text, given, pieces = "", 0, []
    for part in parts:
        ends = []
        for n in range(len(text) + 1, len(text) + len(part) + 1):
            now = (text + part)[:n]
            ends += [n - len(stop) for stop in stops if now.endswith(stop) and n - len(stop) >= 0]
            if ends:
                break
        text += part
        if ends:
            place = max(given, min(ends))
            pieces.append(text[given:place])
            return pieces + [""] * (len(parts) - len(pieces)), "", True
        held = max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        place = max(given, len(text) - held)
        pieces.append(text[given:place])
        given = place
    return pieces, text[given:], False


def check_released(tokenizer: Any, parts: list[str], ids: list[int], stops: tuple[str, ...]) -> None:
    what = f"TextStream with stop_strings={stops} of the tokens {parts}"
    pieces, rest, stopped = written(tokenizer, ids, stops, what)
    right, last, stops_there = expected_pieces(parts, stops)
    if (pieces, rest, stopped) == (right, last, stops_there):
        return
    whole, wanted, text = "".join(pieces) + rest, "".join(right) + last, "".join(parts)
    early = [
        k
        for k in range(1, len(parts) + 1)
        if len("".join(pieces[:k])) > len("".join(right[:k]))
        and text.startswith("".join(pieces[:k]))
        and not any(stop in "".join(parts[:k]) for stop in stops)
    ]
    if early:
        looks = "what may become a stop string is handed out at once: it is kept back"
    elif whole == wanted and pieces == right:
        looks = f"the text is right, but `stopped` is {stopped}: it says whether a stop string was found"
    elif whole == wanted:
        looks = "the text is right, but it comes later than it could"
    elif stops_there and whole.startswith(wanted) and any(whole == wanted + stop for stop in stops):
        looks = "the stop string is part of the text, which ends before it"
    elif stops_there and len(whole) > len(wanted) and text.startswith(whole) and len(whole) < len(text):
        looks = "the text ends at another stop string: the one that is complete first counts"
    elif stops_there and whole == text:
        looks = "the text goes on as if there were no stop string"
    elif stops_there and whole.startswith(wanted):
        looks = "text after the stop string is handed out: once stopped, nothing is"
    elif stops_there and stopped and len(whole) < len(wanted) and wanted.startswith(whole):
        looks = "the text ends at another stop string: the one that is complete first counts"
    elif len(whole) < len(wanted) and wanted.startswith(whole):
        looks = "the end of the text is missing: what was kept back is handed out in the end"
    elif len(whole) < len(wanted):
        looks = "a part of the text is missing"
    elif len(whole) > len(wanted):
        looks = "a part of the text is handed out twice: `given` says how many characters were"
    else:
        looks = "other characters"
    pytest.fail(
        f"{what} gives the pieces {pieces} and in the end {rest!r}, where {right} and {last!r} are expected: {looks}",
        pytrace=False,
    )


def check_half_characters() -> None:
    text = "né → 日本 🙂!"
    ids = BYTES.encode(text)
    what = f"TextStream of {text!r}, a byte at a time"
    pieces, rest, _ = written(BYTES, ids, (), what)
    require(all("\ufffd" not in piece for piece in pieces), f"{what}: a piece has half a character in it: {pieces}")
    require("".join(pieces) + rest == text, f"{what} gives {''.join(pieces) + rest!r}: {pieces}")
    require(pieces[0] == "n" and pieces[1] == "", f"{what}: the pieces are {pieces}; each comes when it is complete")


def test_a_text_comes_in_whole_characters_and_ends_before_a_stop_string():
    check_overlap()
    for text, stops in (
        ("ab.!a", ()),
        ("ab..!a", ("..!",)),
        ("a...b", ("..!",)),
        ("ab.a.", (".!",)),
        ("a.b!ab", ("!a", ".b!")),
        ("aab", ("ab",)),
        ("ab!b!!", ("!!",)),
        ("!ab", ("!",)),
        ("aaab.ab", ("ab.!", "b.a!")),
    ):
        check_released(LETTERS, list(text), LETTERS.encode(text), stops)
    pieces = ["the dog", " bit", " the", " man.", " End"]
    for stops in (
        (" the",),
        ("bit the",),
        ("man. X", "t"),
        ("n.",),
        ("the man", "dog bit"),
        ("e d", "dog"),
        ("he dog", "e "),
        (),
    ):
        check_released(Pieces(*pieces), pieces, list(range(5)), stops)
    check_half_characters()
    rng = np.random.default_rng(0)
    for _ in range(60):
        parts = ["".join(rng.choice(list("ab."), rng.integers(1, 4))) for _ in range(6)]
        stops = tuple({"".join(rng.choice(list("ab."), rng.integers(2, 5))) for _ in range(rng.integers(0, 3))})
        if ambiguous("".join(parts), stops):
            continue
        check_released(Pieces(*parts), parts, list(range(6)), stops)


def ambiguous(text: str, stops: tuple[str, ...]) -> bool:
    """True where two stop strings end at one place, so that which of them counts is not said."""
    return any(sum(text[:n].endswith(stop) for stop in stops) > 1 for n in range(len(text) + 1))
