"""Sprint 10's milestones on speculative decoding: whatever the draft proposes, the text has the large model's "
"distribution.

A known mistake is named in the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from witness import CONTEXT, Witness, check_counts, distance, seeded, softmax

import shared
from course.oracles import check, doing, require
from shared.generation import GenerationConfig, generate
from shared.generation.speculative import (
    Reader,
    accept,
    acceptance_probability,
    propose,
    residual,
    speculate,
    speculative_stream,
)

# Five words: what the large model expects, and two drafts.
P = np.array([0.35, 0.15, 0.25, 0.1, 0.15])
DRAFTS = {
    "a draft that is near": np.array([0.25, 0.3, 0.05, 0.25, 0.15]),
    "a draft that is far": np.array([0.05, 0.1, 0.05, 0.1, 0.7]),
}
SHOTS = 1500
HINTS = {
    "zero": "A token that was proposed has a q above 0; and where p and q are equal the rest has no sum: p is "
    "returned.",
    "no token is left": "Where p and q are equal nothing is left of p − q: then p is returned.",
    "inf, nan or element": "What is drawn from is a distribution: max(p − q, 0) over its sum.",
    "`inf`, `nan`": "What is drawn from is a distribution: max(p − q, 0) over its sum.",
    "invalid multinomial": "What is drawn from is a distribution: max(p − q, 0) over its sum.",
    "negative": "What is drawn from is a distribution: max(p − q, 0) over its sum.",
    "out of range": "p has one row more than q: the last one is for the token after all proposals.",
    "out of bounds": "p has one row more than q: the last one is for the token after all proposals.",
    "cannot be kept": "A cache cannot keep more tokens than it has: min(len(cache), …); of the text those from "
    "`start` on are in it.",
    "has no attribute 'item'": "accept returns two ints; draw returns one.",
    "cannot be converted to Scalar": "q is a list of rows (V,), p a Tensor (k + 1, V): q[i][token] and p[i, token].",
    "number of dimensions": "q is a list of rows (V,), p a Tensor (k + 1, V).",
    "positions end at": "Reader.make_room reads a text anew where it does not fit; crop has to leave `start` and the "
    "caches as one.",
    "T ≥ 1": "After crop the caches hold less than the text, so that something is there to be read.",
    "(1, 0)": "After crop the caches hold less than the text, so that something is there to be read.",
}


def row(p: Sequence[float]) -> shared.Tensor:
    return shared.tensor(np.array(p, dtype=np.float32))


# ------------------------------------------------------------------------ what is left


def check_residual() -> None:
    for p, q in (
        (P, DRAFTS["a draft that is near"]),
        (P, DRAFTS["a draft that is far"]),
        ([0.5, 0.25, 0.25], [0.0, 0.25, 0.75]),
    ):
        p, q = np.array(p), np.array(q)
        rest = np.maximum(p - q, 0)
        what = f"residual of p = {p.tolist()} and q = {q.tolist()}"
        given = row(p), row(q)
        with doing(what, HINTS):
            found = residual(*given)
        require(found is not None, f"{what} is None: is a `return` missing?")
        require(
            isinstance(found, shared.Tensor), f"{what} is a {type(found).__name__}, where a Tensor (V,) is expected"
        )
        check(
            what,
            found.numpy(),
            rest / rest.sum(),
            {
                "max(p − q, 0) that is not divided by its sum: a distribution is asked for": rest,
                "p − q without max(…, 0): what the draft proposes too often is left out": p - q,
                "(p − q) over its sum, without max(…, 0)": (p - q) / max(1e-9, abs((p - q).sum())),
                "|p − q|: what the draft proposes too often is no part of it": np.abs(p - q) / np.abs(p - q).sum(),
                "max(q − p, 0): what the model wants more often than the draft proposes is asked for": np.maximum(
                    q - p, 0
                )
                / max(1e-9, np.maximum(q - p, 0).sum()),
                "p itself: tokens that were proposed and accepted would be counted twice": p,
                "q itself": q,
                "min(p, q), which is what was accepted": np.minimum(p, q) / np.minimum(p, q).sum(),
                "min(p, q) that is not divided by its sum, which is what was accepted": np.minimum(p, q),
                "p where it is above q: max(p − q, 0), the difference": np.where(p > q, p, 0)
                / max(1e-9, np.where(p > q, p, 0).sum()),
                "a softmax of the differences: they are probabilities": softmax(rest),
                "a softmax of p − q": softmax(p - q),
            },
            1e-5,
        )
        require(
            np.allclose(given[0].numpy(), p) and np.allclose(given[1].numpy(), q), f"{what} changes what it was given"
        )
    with doing("residual of two equal distributions", HINTS):
        found = residual(row(P), row(P)).numpy()
    require(
        not np.isnan(found).any(),
        f"residual of two equal distributions is {found.tolist()}: nothing is left to divide by, so p is returned",
    )
    check("residual of two equal distributions", found, P, {"zeros: p is returned": np.zeros(len(P))}, 1e-6)


def check_acceptance() -> None:
    p, q = np.stack([P, P, P]), np.stack([*DRAFTS.values(), P])
    with doing("acceptance_probability, (3, 5) → (3,)", HINTS):
        found = acceptance_probability(row(p), row(q))
    require(found is not None, "acceptance_probability is None: is a `return` missing?")
    check(
        "acceptance_probability of three drafts",
        found.numpy() if isinstance(found, shared.Tensor) else found,
        np.minimum(p, q).sum(-1),
        {
            "Σ |p − q|, twice the distance: 1 minus half of it": np.abs(p - q).sum(-1),
            "half of Σ |p − q|, the distance: 1 minus that": np.abs(p - q).sum(-1) / 2,
            "Σ p · q, the chance that two draws are the same": (p * q).sum(-1),
            "Σ q · p / q, that is 1: the ratio is at most 1": (p).sum(-1),
            "Σ max(p, q)": np.maximum(p, q).sum(-1),
            "the sum over all rows: one number for each, dim=-1": np.minimum(p, q).sum(),
            "a sum over the rows: over the vocabulary, dim=-1": np.minimum(p, q).sum(0),
            "a mean over the vocabulary": np.minimum(p, q).mean(-1),
            "the mean of the ratios min(1, p / q): each counts with the chance q that it is proposed": np.minimum(
                1, p / q
            ).mean(-1),
        },
        1e-5,
    )


# ------------------------------------------------------------------------ accept


def accepted(what: str, p: Any, q: Any, proposed: list[int], generator: Any = None) -> tuple[int, int]:
    with doing(what, HINTS):
        found = accept(row(p), [row(x) for x in q], proposed, generator)
    require(found is not None, f"{what} is None: is a `return` missing?")
    require(
        isinstance(found, tuple) and len(found) == 2 and all(type(x) is int for x in found),
        f"{what} is {found!r}: two ints are expected, how many are kept and the token that follows",
    )
    return found


def outcomes(q: np.ndarray, chance: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Probabilities (2 V,) of each word kept, then of each in a refused one's place."""
    kept = q * chance
    return np.concatenate([kept, (1 - kept.sum()) * other])


def mistakes_of(p: np.ndarray, q: np.ndarray) -> dict[str, np.ndarray]:
    """`outcomes` by one wrong turn."""
    rest = np.maximum(p - q, 0) / np.maximum(p - q, 0).sum()
    late = np.maximum(q - p, 0) / np.maximum(q - p, 0).sum()
    ratio, every, size = np.minimum(1, p / q), np.ones(len(p)), len(p)
    others = {
        "a refused token drawn from p: what was proposed and accepted counts twice then, so `residual` is drawn "
        "from": p,
        "a refused token drawn from the draft's q again": q,
        "residual(q, p) drawn from: what p has more than q is asked for": late,
        "the likeliest token of the residual: it is drawn": np.eye(size)[rest.argmax()],
        "the likeliest token of p after a refusal": np.eye(size)[p.argmax()],
    }
    chances = {
        "everything accepted: the text is the draft's": every,
        "acceptance where p ≥ q, without chance: below that it is p / q": (p >= q) * 1.0,
        "acceptance where p > q, refusal where p ≤ q, without chance: below that it is p / q": (p > q) * 1.0,
        "acceptance where p < q: the comparison is the wrong way round": (p < q) * 1.0,
        "acceptance where p ≤ q: the comparison is the wrong way round": (p <= q) * 1.0,
        "acceptance with q / p: p / q is the ratio": np.minimum(1, q / p),
        "refusal with p / q, acceptance with the rest: the comparison is the wrong way round": 1 - ratio,
        "acceptance with probability p: p / q": p,
        "acceptance with probability q: p / q": q,
        "acceptance with probability min(p, q): p / q, at most 1": np.minimum(p, q),
        "everything refused": 0 * every,
        "acceptance one time in two": every / 2,
    }
    found = {name: outcomes(q, ratio, other) for name, other in others.items()}
    found |= {name: outcomes(q, chance, rest) for name, chance in chances.items()}
    found["everything refused and drawn from p: the right distribution, and of no use"] = outcomes(q, 0 * every, p)
    return found


def check_distribution() -> None:
    """The first token, kept or in a refused one's place, has the distribution p; each is kept as often as it may be."""
    rng, generator, size = np.random.default_rng(0), seeded(1), len(P)
    sure = np.array([1.0, 0.0])
    found = accepted("accept of two sure tokens", [sure, sure, 1 - sure], [sure, sure], [0, 0], seeded(0))
    require(
        found != (1, 0),
        "accept of two tokens of which model and draft are sure is (1, 0), where (2, 1) is expected: the last "
        "proposal stands in place of one more token; all are kept, and one is drawn from the last row of p",
    )
    for name, q in DRAFTS.items():
        found, after = [], []
        for token in rng.choice(size, SHOTS, p=q).tolist():
            number, other = accepted(f"accept with {name}", [P, P], [q], [token], generator)
            require(number in (0, 1), f"accept keeps {number} of one proposed token")
            found.append(token if number else size + other)
            after += [other] if number else []
        rest = np.maximum(P - q, 0) / np.maximum(P - q, 0).sum()
        if len(after) == SHOTS:
            kept = np.minimum(P, q)
            shares = kept.sum() * P + (1 - kept.sum()) * rest
            counts = np.bincount(after, minlength=size).astype(float)
            require(
                distance(counts, shares) > distance(counts, P),
                f"accept keeps each proposal of {name}, but what follows comes from the residual, as after a refusal: "
                "the refused token is counted among those that are kept",
            )
        check_counts(
            f"accept with {name}, q = {q.tolist()}, p = {P.tolist()}",
            found,
            outcomes(q, np.minimum(1, P / q), rest),
            mistakes_of(P, q),
            "the five words, kept, and then the five in a refused one's place,",
        )


def check_places() -> None:
    """Three proposals: which row belongs to which, what follows a refusal, and what follows when all are kept."""
    one, other = np.array([1.0, 0, 0, 0]), np.array([0, 1.0, 0, 0])
    third, fourth = np.array([0, 0, 1.0, 0]), np.array([0, 0, 0, 1.0])
    rows = [one, other, third, fourth]
    q = [np.full(4, 0.25)] * 3
    for proposed, wanted, looks in (
        ([0, 1, 2], (3, 3), "after three that are kept one more is drawn, from the last row of p"),
        ([0, 1, 0], (2, 2), "the third is refused: the token comes from the residual of its own row"),
        (
            [0, 2, 2],
            (1, 1),
            "the second is refused: the token comes from the residual of its own row, and what follows is lost",
        ),
        ([3, 1, 2], (0, 0), "the first is refused: nothing that follows it is kept"),
    ):
        what = f"accept of {proposed}, where the model is sure of 0, then 1, then 2, then 3"
        found = accepted(what, rows, q, proposed, seeded(2))
        fitting = sum(a == b for a, b in zip(proposed, range(3), strict=True))
        if found == wanted:
            continue
        if found[0] == fitting != wanted[0]:
            looks = "a proposal after a refused one is kept: it was made for another text"
        elif found[0] == wanted[0] + 1 and wanted[0] < 3:
            looks = "the refused token is counted among those that are kept"
        elif found[0] == wanted[0] and wanted[0] == 3:
            looks = "all are kept: the token after them is drawn from the last row of p, not from the row before"
        elif found[0] == wanted[0]:
            looks = "the right number is kept, but what follows is not drawn from the row of its own place"
        pytest.fail(f"{what} is {found}, where {wanted} is expected: {looks}", pytrace=False)
    half, generator = np.array([0.5, 0.5, 0.0]), seeded(9)
    sure_of_one = np.array([1.0, 0.0, 0.0])
    numbers = [accepted("accept of two", [half] * 3, [sure_of_one] * 2, [0, 0], generator)[0] for _ in range(400)]
    check_counts(
        "how many of two proposals are kept, each with a chance of one half",
        numbers,
        np.array([0.5, 0.25, 0.25]),
        {
            "one draw for all proposals: each has its own": np.array([0.5, 0.0, 0.5]),
            "a refusal that does not end the round: what follows a refused token was made for another text": np.array(
                [0.25, 0.5, 0.25]
            ),
        },
        "0, 1 and 2",
    )
    what = "accept of no proposal"
    found = accepted(what, [other], [], [], seeded(3))
    require(found == (0, 1), f"{what} is {found}: the token comes from the only row of p, (0, 1)")
    sure = [0.5, 0.5, 0.0]
    for _ in range(20):
        found = accepted("accept of a token with p = q", [sure, sure], [sure], [0], seeded(_))
        require(found[0] == 1, "a token with p = q is refused: its chance is 1")
        found = accepted("accept of a token that the model excludes", [sure, sure], [[0.2, 0.2, 0.6]], [2], seeded(_))
        require(found[0] == 0 and found[1] != 2, "a token with p = 0 is accepted, or drawn: its chance is 0")
    last = [
        accepted("accept", [sure, [0.2, 0.2, 0.6]], [sure], [0], generator)[1]
        for generator in [seeded(4)]
        for _ in range(600)
    ]
    check_counts(
        "the token after a proposal that is kept",
        last,
        np.array([0.2, 0.2, 0.6]),
        {
            "a token from the first row of p: the last row belongs to the place after all proposals": np.array(sure),
            "the likeliest token of the last row: it is drawn": np.array([0, 0, 1.0]),
        },
        "the three words",
    )
    draws = [
        [
            accepted("accept", [P, P], [DRAFTS["a draft that is near"]], [1], g)
            for g in [seeded(seed)]
            for _ in range(30)
        ]
        for seed in (5, 5, 6)
    ]
    state = np.asarray(shared.get_rng_state()).tolist()
    accepted("accept", [P, P], [DRAFTS["a draft that is near"]], [1], seeded(5))
    require(
        draws[0] == draws[1] != draws[2] and state == np.asarray(shared.get_rng_state()).tolist(),
        "accept does not draw from the generator that it is given: a seed would repeat nothing",
    )


# ------------------------------------------------------------------------ propose


class Notes:
    """A draft that writes down what it is asked, and answers by a table of what follows each token."""

    vocab_size = 4

    def __init__(self, scores: np.ndarray):
        self.scores = scores
        self.asked: list[list[int]] = []

    def next_logits(self, text: Sequence[int]) -> shared.Tensor:
        self.asked.append(list(text))
        return row(self.scores[text[-1]][None])

    def crop(self, length: int) -> None:
        self.asked.append([-length])


def proposed_by(what: str, draft: Any, text: list[int], start: int, number: int, config: Any, generator: Any) -> Any:
    before = list(text)
    none = "Where the draft may choose no token any more, `not q.any()`, proposing ends: fewer come out than asked for."
    with doing(what, {**HINTS, "no token is left": none}):
        found = propose(draft, text, start, number, config, generator)
    require(found is not None, f"{what} is None: is a `return` missing?")
    require(
        isinstance(found, tuple) and len(found) == 2, f"{what} is {found!r}: a pair (tokens, rows of q) is expected"
    )
    require(text == before, f"{what} changes the text: what is proposed may yet be refused, so it is a list of its own")
    return found


def check_propose() -> None:
    scores = 0.4 * np.random.default_rng(3).normal(size=(4, 4))
    config = GenerationConfig(temperature=0.5, top_k=3)
    p = np.zeros((4, 4))
    for i in range(4):
        best = np.argsort(-scores[i])[:3]
        p[i, best] = softmax(2 * scores[i, best])
    generator, text = seeded(7), [1, 3, 0]
    first, second = [], []
    for _ in range(SHOTS // 3):
        draft = Notes(scores)
        what = "propose of three tokens at temperature 0.5 with top_k=3"
        tokens, rows = proposed_by(what, draft, text, 2, 3, config, generator)
        require(
            len(tokens) == 3 and len(rows) == 3 and all(type(token) is int for token in tokens),
            f"{what} gives the tokens {tokens} and {len(rows)} rows: three ids and three rows are asked for",
        )
        asked = [text, [*text, *tokens[:1]], [*text, *tokens[:2]]]
        if draft.asked != asked:
            looks = (
                "each is asked for after the same text: a proposal belongs to the text of the next"
                if draft.asked == [text] * 3
                else "the draft is asked once more after the last proposal"
                if draft.asked[:3] == asked
                else "the draft is asked for the new tokens alone"
                if draft.asked == [text, *[[t] for t in tokens[:2]]]
                else "the whole text so far, with what was proposed, goes to next_logits"
            )
            pytest.fail(
                f"{what}: the draft is asked for what follows {draft.asked}, where {asked} is expected: {looks}",
                pytrace=False,
            )
        expected = p[[0, tokens[0], tokens[1]]]
        found = np.stack([x.numpy().reshape(-1) for x in rows])
        check(
            f"{what}: the probabilities that they were drawn from",
            found,
            expected,
            {
                "a softmax of the draft's logits, without the config: `probabilities` has its processors": np.stack(
                    [softmax(scores[i]) for i in (0, tokens[0], tokens[1])]
                ),
                "logits: probabilities are asked for": np.stack([scores[i] for i in (0, tokens[0], tokens[1])]),
                "the probability of the token alone, in all places": expected,
            },
            1e-5,
        )
        require(
            all(tuple(x.shape) == (4,) for x in rows),
            f"{what}: a row has shape {tuple(rows[0].shape)}, where (4,) is expected: `probabilities` gives (1, V)",
        )
        first.append(tokens[0])
        second.append(tokens[1])
    check_counts(
        "the first token that propose draws",
        first,
        p[0],
        {
            "the likeliest each time: a draw is asked for": np.eye(4)[p[0].argmax()],
            "the draft's own distribution, without the config": softmax(scores[0]),
        },
        "four tokens",
    )
    check_counts(
        "the second token that propose draws",
        second,
        p[0] @ p,
        {"what follows the text, not the first proposal": p[0]},
        "four tokens",
    )
    config = GenerationConfig(temperature=0.0, frequency_penalty=100.0)
    tokens, rows = proposed_by(
        "propose with a frequency penalty", Notes(scores * 0), [2, 2, 1], 2, 3, config, seeded(0)
    )
    require(
        len({1, *tokens}) == 4,
        f"propose after [2, 2, 1], of which two are the prompt, with a frequency penalty gives {tokens}: `start` says "
        "where new tokens begin, and proposals are new too",
    )
    require(
        [int(x.numpy().argmax()) for x in rows] == tokens,
        "at temperature 0 the likeliest token has all the probability",
    )
    config = GenerationConfig(no_repeat_ngram_size=1)
    tokens, rows = proposed_by("propose where tokens run out", Notes(scores), [2, 1], 2, 3, config, seeded(0))
    require(
        sorted(tokens) == [0, 3] and len(rows) == 2,
        f"propose after [2, 1] with no token twice gives {tokens} and {len(rows)} rows: 0 and 3 are left, and where "
        "none is, there are fewer proposals",
    )
    tokens, rows = proposed_by("propose of no token", Notes(scores), [2, 1], 2, 0, GenerationConfig(), seeded(0))
    require((list(tokens), list(rows)) == ([], []), f"propose of no token gives {tokens}")
    draft = Notes(np.zeros((4, 4)))
    drawn = [proposed_by("propose", draft, [0], 1, 5, GenerationConfig(), seeded(s))[0] for s in (1, 1, 2, 3, 4)]
    require(
        drawn[0] == drawn[1] and len(set(map(tuple, drawn))) > 1,
        "propose does not draw from the generator that it is given",
    )


def test_what_is_proposed_is_accepted_or_replaced_so_that_the_model_decides():
    check_residual()
    check_acceptance()
    check_distribution()
    check_places()
    check_propose()


# ------------------------------------------------------------------------ a reader, and whole texts


def check_crop() -> None:
    model = Witness(seed=1)
    text = [1, 2, 3, 4, 5, 6]
    for length in (4, 6, 5, 1):
        reader = Reader(model)
        what = f"crop({length}) of a reader that has read {text}"
        with doing(what, HINTS):
            reader.read(text, 1)
            reader.crop(length)
        require(
            reader.held == length and len(reader.caches[0]) == length,
            f"{what}: it holds {reader.held} tokens, {len(reader.caches[0])} of them in its caches, where {length} are "
            "expected"
            + (": nothing is forgotten" if reader.held == 6 != length else "")
            + (": `length` is how many stay" if reader.held == 6 - length != length else ""),
        )
        other = [*text[:length], 9, 8]
        with doing(f"reading {other} after {what}", HINTS):
            reader.read(other, 1)
        require(
            model.saw[-1] == [tuple(other)],
            f"after {what} the model sees {list(model.saw[-1][0])}, where {other} is its text: tokens that were "
            "refused are still in the caches",
        )
    reader = Reader(model)
    with doing("crop beyond what was read", HINTS):
        reader.read(text[:3], 1)
        reader.crop(5)
    require(
        reader.held == 3, f"crop(5) of a reader that has read three tokens: it holds {reader.held}, and should hold 3"
    )
    long = [int(x) for x in np.random.default_rng(2).integers(0, 9, 11)]
    for length in (9, 10, 8, 7, 6, 2):
        reader = Reader(model)
        what = f"crop({length}) of a reader whose context of {CONTEXT} has been full, so that it holds tokens 7 to 10"
        with doing(what, HINTS):
            reader.read(long[:6], 1)
            reader.read(long, 1)  # 11 tokens: the last four are read anew
            require(reader.start == 7, f"the reader begins at {reader.start}")
            reader.crop(length)
        require(
            reader.held <= length,
            f"{what}: it holds everything up to token {reader.held}: its caches begin at self.start, so of them "
            "length − self.start tokens stay",
        )
        require(
            length <= 7 or reader.held == length,
            f"{what}: it holds tokens {reader.start} to {reader.held - 1}, where those up to {length - 1} stay: its "
            "caches begin at self.start",
        )
        other = [*long[:length], 9]
        with doing(f"reading on after {what}", HINTS):
            reader.read(other, 1)
        seen = list(model.saw[-1][0])
        require(
            seen == other[-len(seen) :],
            f"after {what} the model sees {seen}, where {other} is the text: refused tokens are still there, or a gap",
        )
        require(
            len(seen) >= min(len(other), CONTEXT // 2 + 1 if length <= 7 else 1),
            f"after {what} the model sees {seen} alone: where none of what it holds stays, the text is read from half "
            "a context before on (_restart)",
        )


def mixed(model: Witness, seed: int, near: float) -> Witness:
    """A draft that agrees with the model more or less."""
    draft = Witness(model.config.vocab_size, model.config.block_size, seed=seed)
    noise, own = draft.scores, model.scores
    draft.scores = lambda text: (near * own(text) + (1 - near) * noise(text)).astype(np.float32)
    return draft


def check_greedy() -> None:
    model = Witness(seed=20)
    for near, lookahead, prompt, count in (
        (0.7, 3, [1, 2], 5),
        (0.0, 2, [4], 6),
        (1.0, 4, [1, 2], 5),
        (0.6, 4, [3, 1, 2], 25),
        (1.0, 1, [7], 16),
    ):
        config = GenerationConfig(max_new_tokens=count, temperature=0.0)
        wanted = generate(model, [prompt], config)[0]
        what = f"speculate at temperature 0, {count} tokens after {prompt}, lookahead {lookahead}"
        with doing(what, HINTS):
            found = speculate(model, mixed(model, 21, near), prompt, config, lookahead)
        require(
            found.ids == wanted,
            f"{what}: {found.ids}, where the model alone writes {wanted}: "
            + (
                f"{len(found.ids)} tokens in place of {count}"
                if len(found.ids) != count
                else "at temperature 0 all of p is on one token, so a proposal is accepted if it is that token, else "
                "replaced by it"
            ),
        )
        if near == 1.0 and count < CONTEXT - len(prompt):
            rounds = -(-count // (lookahead + 1))
            require(
                found.rounds == rounds and found.accepted == found.proposed,
                f"{what}, with a draft that is the model itself: {found.accepted} of {found.proposed} proposals are "
                f"accepted in {found.rounds} passes, where all are, and {rounds} passes are enough: each brings one "
                "token more than it accepts",
            )
    stop = wanted[2]
    model = Witness(seed=22)
    free = generate(model, [[1]], GenerationConfig(max_new_tokens=8, temperature=0.0))[0]
    stop = free[4]
    config = GenerationConfig(max_new_tokens=8, temperature=0.0, stop_tokens=(stop,))
    with doing("speculate with a stop token", HINTS):
        found = speculate(model, mixed(model, 21, 0.8), [1], config, 4)
    require(
        found.ids == free[: free.index(stop) + 1],
        f"speculate with stop_tokens=({stop},) writes {found.ids}, where the model alone writes "
        f"{free[: free.index(stop) + 1]}",
    )


def check_pairs() -> None:
    """Two tokens in a row: nine pairs, as often as by the large model alone, whatever the draft."""
    model = Witness(vocab_size=3, block_size=6, seed=30, scale=1.0)
    p = softmax(model.scores((0, 1)))
    then = np.stack([softmax(model.scores((0, 1, token))) for token in range(3)])
    wanted = (p[:, None] * then).ravel()
    for near in (0.0, 0.6):
        draft = mixed(model, 31, near)
        q = softmax(draft.scores((0, 1)))
        q_then = np.stack([softmax(draft.scores((0, 1, token))) for token in range(3)])
        generator, found = seeded(8), []
        config = GenerationConfig(max_new_tokens=3)
        for _ in range(400):
            with doing("speculate, three tokens", HINTS):
                ids = [t for r in speculative_stream(model, draft, [0, 1], config, 2, generator) for t in r.tokens]
            require(len(ids) == 3, f"speculate of three tokens writes {len(ids)}")
            found.append(3 * ids[0] + ids[1])
        check_counts(
            "the first two tokens of speculative decoding",
            found,
            wanted,
            {
                "the draft's text: every proposal is accepted": (q[:, None] * q_then).ravel(),
                "the first token by the model, the second by the draft": (p[:, None] * q_then).ravel(),
                "the first token by the draft, the second by the model": (q[:, None] * then).ravel(),
                "the second token independent of the first": (p[:, None] * (p @ then)[None]).ravel(),
            },
            "the nine pairs",
        )


def test_a_speculated_text_is_the_large_models_own():
    check_crop()
    check_greedy()
    check_pairs()
