"""Sprint 10's milestones on what was written before: penalties, and groups of words that may not come twice.

A known mistake is named in the message.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from witness import check_refused, unchanged

import shared
from course.oracles import check, doing, require
from shared.generation.config import GenerationConfig, process
from shared.generation.processors import (
    frequency_penalty,
    no_repeat_ngrams,
    presence_penalty,
    repetition_penalty,
)

# cat 0, man 1, the 2, dog 3, moon 4: "the dog bit the dog" without "bit", and a text that has only begun.
SCORES = np.array([[1.0, 3.0, -1.0, 2.0, 0.0], [-0.5, 1.0, 4.0, 0.5, -2.0]])
ROWS = [[2, 3, 2, 3, 2], [4]]
COUNTS = np.array([[0, 0, 3, 2, 0], [0, 0, 0, 0, 1]])
HINTS = {
    "out of bounds": "`rows` are lists of ids of unequal lengths: token_counts makes a table (B, V) of them.",
    "inhomogeneous": "`rows` are lists of ids of unequal lengths: token_counts makes a table (B, V) of them.",
    "ragged": "`rows` are lists of ids of unequal lengths: token_counts makes a table (B, V) of them.",
    "different lengths": "`rows` are lists of ids of unequal lengths: token_counts makes a table (B, V) of them.",
    "list index": "A text may be shorter than n, or empty: then nothing is forbidden. In a longer one the last group "
    "begins at len(ids) − n.",
    "unhashable": "A list cannot be a key: tuple(…) can.",
    "float": "A mask is a bool Tensor: > 0 makes one of counts.",
}


def applied(what: str, call: Any, logits: np.ndarray, rows: list[list[int]]) -> np.ndarray:
    given, texts = shared.tensor(logits), [list(row) for row in rows]
    with unchanged(what, given), doing(what, HINTS):
        found = call(given, texts)
    require(found is not None, f"{what} is None: is a `return` missing?")
    require(isinstance(found, shared.Tensor), f"{what} is a {type(found).__name__}, where a Tensor is expected")
    require(texts == rows, f"{what} changes the lists of ids that it was given")
    require(
        tuple(found.shape) == logits.shape, f"{what} has shape {tuple(found.shape)}; {logits.shape} is expected, (B, V)"
    )
    require(found.dtype == given.dtype, f"{what} is {found.dtype.name} for logits of {given.dtype.name}")
    return found.numpy()


def check_repetition() -> None:
    seen, positive = COUNTS > 0, SCORES > 0
    for penalty in (2.0, 0.5, 1.0):
        right = np.where(positive, SCORES / penalty, SCORES * penalty)
        times = np.where(positive, SCORES / penalty**COUNTS, SCORES * penalty**COUNTS)
        last = np.zeros_like(seen)
        last[0, 2] = last[1, 4] = True
        check(
            f"repetition_penalty(logits, seen, {penalty:g}) of scores {SCORES.tolist()} after {ROWS}",
            applied("repetition_penalty", lambda x, rows, p=penalty: repetition_penalty(x, rows, p), SCORES, ROWS),
            np.where(seen, right, SCORES),
            {
                "a division of negative scores too, which makes them larger: a token that is unlikely already would "
                "become likelier": np.where(seen, SCORES / penalty, SCORES),
                "a product throughout: positive scores are divided": np.where(seen, SCORES * penalty, SCORES),
                "the two cases exchanged: positive scores are divided, negative ones multiplied": np.where(
                    seen, np.where(positive, SCORES * penalty, SCORES / penalty), SCORES
                ),
                "a penalty for each occurrence: how often a token was seen does not matter": times,
                "a penalty on all tokens: only those in `seen` have one": right,
                "a penalty on what was not seen: the mask is the wrong way round": np.where(seen, SCORES, right),
                "a difference: this penalty is a factor": np.where(seen, SCORES - penalty, SCORES),
                "a penalty on the last token alone: all that was seen counts": np.where(last, right, SCORES),
                "the first row's tokens penalised in all rows": np.where(seen[:1], right, SCORES),
                "what any row has seen penalised in all rows": np.where(seen.any(0), right, SCORES),
                "positive scores alone: what is negative is multiplied": np.where(seen & positive, right, SCORES),
                "negative scores alone: what is positive is divided": np.where(seen & ~positive, right, SCORES),
                "no penalty": SCORES,
                "probabilities penalised: scores are": np.where(seen, softmax(SCORES) / penalty, softmax(SCORES)),
                "what was seen forbidden": np.where(seen, -np.inf, SCORES),
            }
            if penalty != 1
            else {},
            1e-5,
        )
    found = applied(
        "repetition_penalty of texts without a token", lambda x, r: repetition_penalty(x, r, 2.0), SCORES, [[], []]
    )
    check("repetition_penalty of texts without a token", found, SCORES, tolerance=1e-6)
    for penalty in (0.0, -1.0):
        check_refused(
            f"repetition_penalty with {penalty:g}", lambda p=penalty: repetition_penalty(shared.tensor(SCORES), ROWS, p)
        )


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores)
    return powers / powers.sum(-1, keepdims=True)


def check_presence_and_frequency() -> None:
    new = COUNTS > 0
    last = np.zeros_like(new)
    last[0, 2] = last[1, 4] = True
    for penalty in (0.5, -0.5):
        once, often = np.where(new, SCORES - penalty, SCORES), SCORES - penalty * COUNTS
        shares = COUNTS / COUNTS.sum(-1, keepdims=True)
        common = {
            "the wrong sign: a penalty is subtracted": (2 * SCORES - once, 2 * SCORES - often),
            "a penalty on all tokens: only those in `new` have one": (SCORES - penalty,) * 2,
            "a penalty on what is not in `new`: the mask is the wrong way round": (
                np.where(new, SCORES, SCORES - penalty),
            )
            * 2,
            "a factor: this penalty is a difference": (
                np.where(new, SCORES * penalty, SCORES),
                SCORES * np.where(new, penalty, 1.0) ** COUNTS,
            ),
            "a quotient: this penalty is a difference": (
                np.where(new, SCORES / penalty, SCORES),
                SCORES / np.where(new, penalty, 1.0) ** COUNTS,
            ),
            "the first row's tokens penalised in all rows": (
                np.where(new[:1], SCORES - penalty, SCORES),
                SCORES - penalty * COUNTS[:1],
            ),
            "what any row has written penalised in all rows": (
                np.where(new.any(0), SCORES - penalty, SCORES),
                SCORES - penalty * COUNTS.sum(0),
            ),
            "a penalty on the last token alone": (np.where(last, SCORES - penalty, SCORES),) * 2,
            "no penalty": (SCORES, SCORES),
            "positive scores alone: all that were written count": (
                np.where(new & (SCORES > 0), SCORES - penalty, SCORES),
                np.where(SCORES > 0, often, SCORES),
            ),
        }
        for k, (function, right, more) in enumerate(
            (
                (
                    presence_penalty,
                    once,
                    {"a penalty for each occurrence: that is the frequency penalty; presence counts once": often},
                ),
                (
                    frequency_penalty,
                    often,
                    {
                        "a penalty once, however often: that is the presence penalty; this one counts "
                        "occurrences": once,
                        "the share of the text in place of the number of times": SCORES - penalty * shares,
                        "the number of occurrences squared": SCORES - penalty * COUNTS**2,
                        "occurrences after the first: the first counts too": SCORES
                        - penalty * np.maximum(COUNTS - 1, 0),
                        "all occurrences of the text for each of its tokens": SCORES
                        - penalty * new * COUNTS.sum(-1, keepdims=True),
                    },
                ),
            )
        ):
            name = function.__name__
            check(
                f"{name}(logits, new, {penalty:g}) of scores {SCORES.tolist()} after {ROWS}",
                applied(name, lambda x, rows, f=function, p=penalty: f(x, rows, p), SCORES, ROWS),
                right,
                more | {what: pair[k] for what, pair in common.items()},
                1e-5,
            )
    forbidden = np.array([[1.0, -np.inf], [0.0, 2.0]])
    for function in (presence_penalty, frequency_penalty):
        name = function.__name__
        found = applied(name, lambda x, rows, f=function: f(x, rows, 0.5), forbidden, [[], [1]])
        require(
            not np.isnan(found).any(),
            f"{name} makes NaN where a token that did not occur has −inf: 0 · inf is none; a penalty is subtracted "
            "from what occurred",
        )


def check_who_counts() -> None:
    """In `process`: the repetition penalty looks at prompt and new tokens, the other two at the new ones."""
    config = GenerationConfig(temperature=0.0, repetition_penalty=2.0, presence_penalty=0.25, frequency_penalty=0.125)
    with doing("process with three penalties", HINTS):
        found = process(shared.tensor(SCORES), ROWS, [[3, 2], []], config).numpy()
    expected = np.array([[1.0, 3.0, -2.0 - 0.375, 1.0 - 0.375, 0.0], [-0.5, 1.0, 4.0, 0.5, -4.0]])
    check("the scores after process with three penalties, where the last two tokens of row 0 are new", found, expected)


# ------------------------------------------------------------------------ n-grams


def forbidden_by(ids: list[int], n: int, start: int = 0) -> set[int]:
    """By the definition: tokens that would make a group of n which the text has had, from `start` on."""
    groups = {tuple(ids[i : i + n]) for i in range(start, len(ids) - n + 1)}
    end = ids[len(ids) - n + 1 :] if n > 1 else []
    return {token for token in range(6) if len(end) == n - 1 and (*end, token) in groups}


# Texts over six words, the last tokens of which stood there before, once or twice, or never, or overlap.
TEXTS = [
    [0, 2, 1, 0],
    [2, 3, 1, 2, 3, 0, 2, 3],
    [4, 4, 4],
    [5, 1, 5, 1, 5],
    [1, 2],
    [3],
    [],
    [0, 1, 2, 3, 4, 5],
    [1, 1, 2, 1, 1],
]


def mistaken(ids: list[int], n: int) -> dict[str, set[int]]:
    """What would be forbidden by one wrong turn."""
    end = ids[len(ids) - n + 1 :] if n > 1 else []
    places = [i for i in range(len(ids) - n + 2) if ids[i : i + n - 1] == end and i + n - 1 < len(ids)]
    followers = [ids[i + n - 1] for i in places]
    nothing = "nothing forbidden"
    if n == 1:
        nothing += ": the last 0 tokens are none, but ids[-(n - 1) :] is then ids[-0:], the whole text"
    return {
        nothing: set(),
        "groups of n + 1 tokens: the last n are looked for, where n − 1 and the next make a group": forbidden_by(
            ids, n + 1
        ),
        "groups of n − 1 tokens: the last n − 1 and the next make one of n": forbidden_by(ids, n - 1)
        if n > 1
        else {-1},
        "all that was seen forbidden: only what would end a group that was there": set(ids),
        "the first place alone where the last n − 1 tokens stood: all of them count": set(followers[:1]),
        "the last place alone where the last n − 1 tokens stood: all of them count": set(followers[-1:]),
        "the token before the group: what followed it is forbidden": {ids[i - 1] for i in places if i},
        "the tokens of the group itself: what followed it is forbidden": set(end) if places else set(),
        "the second token of what followed": {ids[i + n] for i in places if i + n < len(ids)},
        "groups that do not overlap the end alone: the text's last tokens may be part of a group that was there": {
            ids[i + n - 1] for i in places if i + n - 1 < len(ids) - n + 1
        },
        "the text without its first token: a group may begin there": forbidden_by(ids, n, 1),
        "the text without its last group: it begins at len(ids) − n, one short of len(ids) − n + 1, where a range "
        "ends": {ids[i + n - 1] for i in places if i < len(ids) - n},
    }


def check_forbidden(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=(len(TEXTS), 6))
    what = f"no_repeat_ngrams(logits, seen, {n})"
    found = applied(what, lambda x, rows: no_repeat_ngrams(x, rows, n), scores, TEXTS)
    gone = [set(np.flatnonzero(np.isneginf(row)).tolist()) for row in found]
    expected = [forbidden_by(ids, n) for ids in TEXTS]
    if gone == expected:
        stays = np.isfinite(found)
        require(
            np.abs(found - scores)[stays].max() < 1e-6, f"{what} changes the scores of tokens that it does not forbid"
        )
        return
    wrong = {name: [mistaken(ids, n)[name] for ids in TEXTS] for name in mistaken([0, 0], n)}
    wrong["what is forbidden in one row forbidden in all: each row has its own text"] = [set.union(*expected)] * len(
        TEXTS
    )
    wrong["what the first row forbids, for all rows"] = [expected[0]] * len(TEXTS)
    wrong["all that is not forbidden set to −inf: the mask is the wrong way round"] = [
        set(range(6)) - x for x in expected
    ]
    told = [name for name, sets in wrong.items() if sets == gone]
    looks = f"\nThat is what one gets from: {told[0]}." if told else ""
    row = next(i for i, pair in enumerate(zip(gone, expected, strict=True)) if pair[0] != pair[1])
    pytest.fail(
        f"{what}: after {TEXTS[row]} the tokens {sorted(gone[row])} are forbidden, where {sorted(expected[row])} "
        f"would make a group of {n} that is there already{looks}",
        pytrace=False,
    )


def test_penalties_change_what_was_written_and_no_group_of_n_tokens_comes_twice():
    check_repetition()
    check_presence_and_frequency()
    check_who_counts()
    for n in (3, 2, 1, 4):
        check_forbidden(n)
    for n in (0, -1):
        check_refused(f"no_repeat_ngrams with n={n}", lambda n=n: no_repeat_ngrams(shared.tensor(SCORES), ROWS, n))
