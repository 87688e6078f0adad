"""Sprint 10's milestones on choosing a token: what each sampler keeps, in which order, and what is drawn then.

A known mistake is named in the message.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from witness import check_counts, check_refused, seeded, softmax, unchanged

import shared
from course.oracles import check, doing, require
from shared.generation.config import GenerationConfig, choose, process, warp
from shared.generation.processors import min_p, temperature, top_k, top_p

# After "the dog bit the", in no order, and after "the dog bit", where nearly nothing but "the" can come.
WORDS = ("cat", "man", "the", "dog", "moon", "bone")
UNSURE, SURE = np.array([1.0, 3.0, -1.0, 2.0, 0.0, 1.5]), np.array([-0.5, 1.0, 6.0, 0.5, -1.0, 0.0])
BOTH = np.stack([UNSURE, SURE])
ROWS = np.stack([UNSURE, SURE, [0.3, -0.2, 0.1, 0.9, 0.7, -0.6]])
SHOTS = 1500
HINTS = {
    "greater than the number": "There may be fewer tokens than k: then all stay.",
    "out of range": "There may be fewer tokens than k: then all stay.",
    "k (": "There may be fewer tokens than k: then all stay.",
    "broadcast": "Each row has its own limit: a column (B, 1) beside logits (B, V); amax and sum take keepdim=True.",
    "ambiguous": "A mask is a bool Tensor: ~ turns it round, `not` asks for a single answer.",
    "tuple indices": "topk returns a pair: .values and .indices.",
    "bool": "A mask is a bool Tensor: ~ turns it round.",
    "has no attribute 'to'": "topk returns a pair: .values and .indices.",
    "'TopK'": "topk returns a pair: .values and .indices.",
    "'Sorted'": "sort returns a pair: .values and .indices.",
    "inf, nan or element": "What is drawn from are probabilities, as a softmax makes them: not scores, which may be "
    "negative.",
    "`inf`, `nan`": "What is drawn from are probabilities, as a softmax makes them: not scores, which may be negative.",
    "invalid multinomial": "What is drawn from are probabilities, as a softmax makes them: not scores, which may be "
    "negative.",
    "negative": "What is drawn from are probabilities, as a softmax makes them: not scores, which may be negative.",
    "zero": "Temperature 0 is no division: choose takes the likeliest token.",
}


def applied(what: str, call: Callable[[Any], Any], logits: np.ndarray) -> np.ndarray:
    """What `call` makes of logits, an array of their shape and dtype."""
    given = shared.tensor(logits)
    with unchanged(what, given), doing(what, HINTS):
        found = call(given)
    require(found is not None, f"{what} is None: is a `return` missing?")
    require(isinstance(found, shared.Tensor), f"{what} is a {type(found).__name__}, where a Tensor is expected")
    require(
        tuple(found.shape) == logits.shape,
        f"{what} has shape {tuple(found.shape)}, where that of the logits, {logits.shape}, is expected: what may not "
        "be drawn stays in its place, with a score of −inf",
    )
    require(found.dtype == given.dtype, f"{what} is {found.dtype.name} for logits of {given.dtype.name}")
    if found is given:
        pytest.fail(f"{what} returns its input itself: new logits are asked for, so clone()", pytrace=False)
    return found.numpy()


def words(mask: np.ndarray) -> str:
    """Which words a row's mask keeps."""
    return ", ".join(word for word, stays in zip(WORDS, mask, strict=False) if stays) or "nothing"


def check_kept(
    what: str, call: Callable[[Any], Any], logits: np.ndarray, kept: Any, mistakes: dict[str, Any] | None = None
) -> None:
    """`call` keeps the scores that the mask `kept` says, and sets the others to −inf."""
    check_all([(what, call, logits, kept, mistakes or {})])


def check_all(cases: list[tuple[str, Callable[[Any], Any], np.ndarray, Any, dict[str, Any]]]) -> None:
    """As `check_kept`, for several; a mistake is named where it makes what is found in each of them."""
    masks = []
    for what, call, logits, kept, _ in cases:
        found = applied(what, call, logits)
        require(not np.isnan(found).any(), f"{what} has NaN: 0 · inf and inf − inf are none; masked_fill sets −inf")
        check_scores(what, found, logits, np.asarray(kept, dtype=bool))
        masks.append(np.isfinite(found))
    wrong = [i for i, case in enumerate(cases) if not np.array_equal(masks[i], np.asarray(case[3], dtype=bool))]
    if not wrong:
        return

    def fits(name: str, i: int) -> bool:
        return name in cases[i][4] and np.array_equal(masks[i], np.asarray(cases[i][4][name], dtype=bool))

    first = wrong[0]
    what, _, logits, kept, mistakes = cases[first]
    names = [name for name in mistakes if all(fits(name, i) for i in range(len(cases)))]
    names += [name for name in mistakes if fits(name, first)]
    looks = f"\nThat is what one gets from: {names[0]}." if names else ""
    row = int(np.argwhere((masks[first] != np.asarray(kept, dtype=bool)).any(-1))[0, 0])
    pytest.fail(
        f"{what} keeps {words(masks[first][row])} in row {row}, where {words(np.asarray(kept)[row])} should stay "
        "(probabilities "
        f"{', '.join(f'{word} {x:.3f}' for word, x in zip(WORDS, softmax(logits[row]), strict=False))}){looks}",
        pytrace=False,
    )


def check_scores(what: str, found: np.ndarray, logits: np.ndarray, kept: np.ndarray) -> None:
    """What stays has its score, and what goes has −inf."""
    stays = np.isfinite(found)
    if stays.all() and not kept.all() and np.allclose(found[kept], logits[kept], atol=1e-5):
        require(
            np.allclose(found, logits, atol=1e-5),
            f"{what}: what may not be drawn has a score of {found[~kept][0]:g}, which softmax makes a probability of: "
            "−inf makes 0",
        )
    changed = stays & ~np.isclose(found, logits, atol=1e-5)
    if changed.any():
        place = tuple(np.argwhere(changed)[0])
        pytest.fail(
            f"{what} changes the scores of tokens that stay: {found[place]:.4f} where {logits[place]:.4f} was"
            + (
                "\nThat is what one gets from: probabilities returned: the scores are asked for."
                if np.allclose(found[stays], softmax(logits)[stays], atol=1e-4)
                else ""
            ),
            pytrace=False,
        )


# ------------------------------------------------------------------------ by hand, in NumPy


def falling(rows: np.ndarray) -> np.ndarray:
    """The rank of each score in its row, 0 for the largest; of equal ones the first has the lower rank."""
    return np.argsort(np.argsort(-rows, axis=-1, kind="stable"), axis=-1)


def k_largest(rows: np.ndarray, k: int) -> np.ndarray:
    return falling(rows) < k


def nucleus(rows: np.ndarray, p: float, more: int = 0) -> np.ndarray:
    """Fewest tokens, likeliest first, that sum to p; `more` of them, or less."""
    probabilities = softmax(rows)
    ordered = -np.sort(-probabilities, axis=-1)
    count = (np.cumsum(ordered, -1) - ordered < p - 1e-9).sum(-1, keepdims=True)
    return falling(rows) < count + more


def at_least(rows: np.ndarray, p: float) -> np.ndarray:
    probabilities = softmax(rows)
    return probabilities >= p * probabilities.max(-1, keepdims=True)


def cut(rows: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return np.where(kept, rows, -np.inf)


STEPS: dict[str, Callable[[np.ndarray, GenerationConfig], np.ndarray]] = {
    "temperature": lambda rows, config: rows / config.temperature,
    "top-k": lambda rows, config: rows if config.top_k is None else cut(rows, k_largest(rows, config.top_k)),
    "top-p": lambda rows, config: rows if config.top_p is None else cut(rows, nucleus(rows, config.top_p)),
    "min-p": lambda rows, config: rows if config.min_p is None else cut(rows, at_least(rows, config.min_p)),
}


def in_order(rows: np.ndarray, config: GenerationConfig, order: tuple[str, ...] = tuple(STEPS)) -> np.ndarray:
    for name in order:
        rows = STEPS[name](rows, config)
    return rows


# ------------------------------------------------------------------------ temperature, top-k, choose


def check_temperature() -> None:
    for t in (0.5, 2.0, 1.0):
        found = applied(f"temperature(logits, {t:g})", lambda given, t=t: temperature(given, t), BOTH)
        p = softmax(BOTH)
        check(
            f"temperature(logits, {t:g})",
            found,
            BOTH / t,
            {
                "a product: scores are divided by the temperature, so that a low one makes differences larger": BOTH
                * t,
                "no temperature": BOTH,
                "the temperature squared": BOTH / t**2,
                "the temperature's root": BOTH / math.sqrt(t),
                "probabilities divided, of which a softmax makes something else: the scores are divided": p / t,
                "the softmax of the scores at that temperature: scores are asked for, the softmax comes later": softmax(
                    BOTH / t
                ),
                "probabilities to the power of 1/t, without a sum of 1: scores are asked for": p ** (1 / t),
                "ln p at that temperature, the right distribution: but logits / t are asked for, not "
                "normalised": np.log(softmax(BOTH / t)),
                "ln p, divided: logits / t are asked for": np.log(p) / t,
                "a difference: scores are divided": BOTH - t,
                "scores minus the row's largest, divided: the right distribution, but logits / t are asked for": (
                    BOTH - BOTH.max(-1, keepdims=True)
                )
                / t,
                "a power of the scores": np.sign(BOTH) * np.abs(BOTH) ** (1 / t),
            },
            1e-5,
        )
    forbidden = applied("temperature of a token at −inf", lambda x: temperature(x, 0.5), np.array([[1.0, -np.inf]]))
    require(
        forbidden.tolist() == [[2.0, -np.inf]], f"at temperature 0.5 scores 1 and −inf become {forbidden.tolist()[0]}"
    )
    for t in (0.0, -1.0, math.inf, math.nan):
        check_refused(f"temperature(logits, {t:g})", lambda t=t: temperature(shared.tensor(BOTH), t))


def check_top_k() -> None:
    size = ROWS.shape[1]
    columns = np.argsort(np.argsort(-ROWS, axis=0, kind="stable"), axis=0)
    cases = []
    for k in (2, 1, 3, 4):
        overall = ROWS >= np.sort(ROWS.ravel())[-k]
        cases.append(
            (
                f"top_k(logits, {k})",
                lambda given, k=k: top_k(given, k),
                ROWS,
                k_largest(ROWS, k),
                {
                    "k − 1 tokens: the k-th largest stays too, so `<` the k-th, not `<=`": k_largest(ROWS, k - 1),
                    "k + 1 tokens: the k-th largest has the index k − 1": k_largest(ROWS, k + 1),
                    "the k smallest scores": k_largest(-ROWS, k),
                    "all but the k largest: the mask is the wrong way round": ~k_largest(ROWS, k),
                    "the first k tokens of the vocabulary": np.broadcast_to(np.arange(size) < k, ROWS.shape),
                    "the k largest of all rows together: each row has its own": overall,
                    "the first row's limit for all rows: each has its own, a column (B, 1)": ROWS
                    >= np.sort(UNSURE)[-k],
                    "the last row's limit for all rows: each has its own, a column (B, 1)": ROWS
                    >= np.sort(ROWS[-1])[-k],
                    "the largest of each column: a row is one text, dim=-1": columns < k,
                    "the tokens of the first row for all rows": np.broadcast_to(k_largest(UNSURE, k), ROWS.shape),
                    "no top-k": np.ones_like(ROWS, bool),
                },
            )
        )
    check_all(cases)
    tie = np.array([[1.0, 4.0, 3.0, 3.0]])
    check_kept(
        "top_k(logits, 2) of scores 1, 4, 3, 3",
        lambda given: top_k(given, 2),
        tie,
        [[False, True, True, True]],
        {"one of two equal scores: what ties with the k-th stays too": [[False, True, True, False]]}
        | {"one of two equal scores, what ties with the k-th stays too": [[False, True, False, True]]}
        | {"nothing that ties: the k-th largest stays, and what is equal to it": [[False, True, False, False]]},
    )
    for k in (6, 50):
        check_kept(f"top_k(logits, {k}) of six tokens", lambda x, k=k: top_k(x, k), ROWS, np.ones_like(ROWS, bool))
    low = np.array([[-3.0, -1.0, -2.0]])
    check_kept("top_k(logits, 1) of negative scores", lambda given: top_k(given, 1), low, [[False, True, False]])
    for k in (0, -1):
        check_refused(f"top_k(logits, {k})", lambda k=k: top_k(shared.tensor(ROWS), k))


def chosen(what: str, logits: np.ndarray, config: GenerationConfig, generator: Any = None) -> list[int]:
    given = shared.tensor(logits)
    with unchanged(what, given), doing(what, HINTS):
        found = choose(given, config, generator)
    require(found is not None, f"{what} is None: is a `return` missing?")
    require(isinstance(found, list), f"{what} is a {type(found).__name__}, where a list of ids is expected: .tolist()")
    require(
        all(type(token) is int for token in found),
        f"{what} is a list of {type(found[0]).__name__ if found else 'nothing'}s: ids are ints, one for each row, so "
        "of (B, 1) the column [:, 0]",
    )
    require(len(found) == len(logits), f"{what} has {len(found)} ids for {len(logits)} rows")
    return found


def check_choose() -> None:
    greedy, draws = GenerationConfig(temperature=0), GenerationConfig(temperature=0.5)
    rows = np.stack([UNSURE, SURE, -UNSURE])
    found, largest = chosen("choose at temperature 0", np.tile(rows, (10, 1)), greedy), [1, 2, 2] * 10
    row = next((i for i, pair in enumerate(zip(found, largest, strict=True)) if pair[0] != pair[1]), 0)
    require(
        found == largest,
        f"choose at temperature 0 takes {found[row]} in row {row} of 30, whose largest score is at {largest[row]}: "
        + ("that is the smallest" if found == [2, 4, 1] * 10 else "at temperature 0 nothing is drawn"),
    )
    what = "choose, from logits that process has divided by the temperature 0.5"
    many = np.tile(UNSURE, (SHOTS, 1))
    found = chosen(what, many, draws, seeded(1))
    require(
        len(set(found)) > 1,
        f"{what}: all {SHOTS} rows, which have the same scores, get token {found[0]}: "
        + (
            "the likeliest each time, where at a temperature above 0 one draws" if found[0] == 1 else "one draw for all"
        ),
    )
    check_counts(
        what,
        found,
        softmax(UNSURE),
        {
            "a division by the temperature, which process has done before": softmax(UNSURE / 0.5),
            "a product with the temperature, which process has applied before": softmax(UNSURE * 0.5),
            "tokens that are all alike likely": np.full(6, 1 / 6),
            "a softmax of the softmax: p is no score": softmax(softmax(UNSURE)),
            "scores drawn from as if they were probabilities": np.maximum(UNSURE, 0) / np.maximum(UNSURE, 0).sum(),
            "the least likely drawn most: a minus too many": softmax(-UNSURE),
        },
        "the six words",
    )
    large = np.array([[900.0, 1000.0, 0.0], [0.0, -900.0, -1000.0]])
    found = chosen("choose of scores up to 1000, whose exponentials are infinite", large, draws, seeded(1))
    require(
        found == [1, 0],
        f"choose of scores {large.tolist()} takes {found}: tokens 1 and 0 have all the probability; whose "
        "exponentials are infinite or 0, F.softmax still makes probabilities of",
    )
    two = np.tile(BOTH, (300, 1))
    found = np.array(chosen("choose of rows with different scores", two, GenerationConfig(), seeded(2)))
    require(
        (found[1::2] == 2).mean() > 0.8 > (found[::2] == 2).mean() + 0.5,
        "choose draws all rows from the same scores: a softmax over the vocabulary, dim=-1, is one for each row",
    )
    first, again, other = (chosen("choose", many[:40], draws, seeded(s)) for s in (5, 5, 6))
    state = np.asarray(shared.get_rng_state()).tolist()
    chosen("choose", many[:40], draws, seeded(5))
    require(
        first == again and first != other and state == np.asarray(shared.get_rng_state()).tolist(),
        "choose does not draw from the generator that it is given: a seed would repeat nothing",
    )
    free = [chosen("choose without a generator", many[:40], draws) for _ in range(2)]
    require(free[0] != free[1], "choose without a generator draws the same each time: is a seed set in it?")
    for config in (greedy, GenerationConfig()):
        for bad, name in ((-np.inf, "all −inf"), (np.nan, "NaN"), (np.inf, "inf")):
            broken = BOTH.copy()
            broken[1] = bad if name == "all −inf" else broken[1]
            broken[1, 3] = bad
            where = f"choose at temperature {config.temperature:g} of scores whose row 1 is {name}"
            try:
                choose(shared.tensor(broken), config, seeded(0))
            except ValueError as error:
                require("1" in str(error), f"{where} raises {error!s}: the row, 1, should be named")
                continue
            except NotImplementedError:
                raise
            except Exception as error:
                pytest.fail(f"{where} ends in {type(error).__name__}: {error}; a ValueError is expected", pytrace=False)
            pytest.fail(f"{where} goes on, where a ValueError that names the row is expected", pytrace=False)


def test_temperature_top_k_and_the_choice_by_hand():
    check_temperature()
    check_top_k()
    check_choose()


# ------------------------------------------------------------------------ nucleus, min-p, their order


def check_top_p() -> None:
    p_all = softmax(ROWS)
    ordered = -np.sort(-p_all, axis=-1)
    rising = np.argsort(np.argsort(ROWS, axis=-1), axis=-1)
    size = ROWS.shape[1]
    order = np.argsort(-p_all, axis=-1, kind="stable")
    cases = []
    for p in (0.8, 0.5, 0.9, 0.97):
        count = (np.cumsum(ordered, -1) - ordered < p).sum(-1, keepdims=True)
        climbing = np.cumsum(np.sort(p_all, -1), -1)
        cases.append(
            (
                f"top_p(logits, {p})",
                lambda given, p=p: top_p(given, p),
                ROWS,
                nucleus(ROWS, p),
                {
                    "a nucleus without the token with which the sum reaches p: it belongs to it": nucleus(ROWS, p, -1),
                    "one token too many: where the sum has reached p, nothing more is needed": nucleus(ROWS, p, 1),
                    "the least likely tokens first: the order is falling": rising
                    < (climbing - np.sort(p_all, -1) < p).sum(-1, keepdims=True),
                    "a nucleus of 1 − p: p is what stays": nucleus(ROWS, 1 - p),
                    "the mask of the sorted tokens, without putting it back into their places "
                    "(scatter)": np.broadcast_to(np.arange(size) < count, ROWS.shape),
                    "a sum in the order of the vocabulary: likeliest first": np.cumsum(p_all, -1) - p_all < p,
                    "a sum of scores: what is added up are probabilities, softmax first": falling(ROWS)
                    < (np.cumsum(-np.sort(-ROWS, -1), -1) + np.sort(-ROWS, -1) < p).sum(-1, keepdims=True),
                    "all but the nucleus: the mask is the wrong way round": ~nucleus(ROWS, p),
                    "min-p: tokens at least p times as probable as the likeliest": at_least(ROWS, p),
                    "a limit for each probability: it is their sum that reaches p": p_all >= p,
                    "tokens that are at least 1 − p probable: it is the sum that counts": p_all >= 1 - p,
                    "as many tokens in each row as in the first: each row has its own nucleus": falling(ROWS)
                    < count[0],
                    "no top-p": np.ones_like(ROWS, bool),
                    "the likeliest token alone": k_largest(ROWS, 1),
                    "two tokens at least, as some libraries ask for: one is enough where it reaches p": nucleus(ROWS, p)
                    | k_largest(ROWS, 2),
                    "a likeliest token that reaches p alone left out: it stays, so that there is always one": nucleus(
                        ROWS, p
                    )
                    & ~(p_all >= p),
                    "a mask gathered with the order, which sorts it once more: order says where each sorted token "
                    "belongs, so scatter, or gather with order.argsort(-1)": np.take_along_axis(
                        np.arange(size) < count, order, -1
                    ),
                    "a mask gathered with the order, which sorts it once more, where scatter puts it back; and without "
                    "the token with which the sum reaches p": np.take_along_axis(
                        np.arange(size) < count - 1, order, -1
                    ),
                    "the mask of the sorted tokens, without putting it back into their places; and without the token "
                    "with which the sum reaches p": np.broadcast_to(np.arange(size) < count - 1, ROWS.shape),
                },
            )
        )
    check_all(cases)
    alike = np.zeros((1, 4))
    for p, count in ((0.5, 2), (0.25, 1), (0.3, 2)):
        check_kept(
            f"top_p(logits, {p}) of four equally likely tokens",
            lambda given, p=p: top_p(given, p),
            alike,
            [np.arange(4) < count],
            {
                "the highest ids: of equally likely tokens at the edge those with the lower ids stay (a stable "
                "order)": [np.arange(4) >= 4 - count],
                "one token too many: where the sum has reached p, nothing more is needed": [np.arange(4) < count + 1],
                "all that tie: of equally likely tokens at the edge those with the lower ids stay, no more than "
                "needed": np.ones((1, 4), bool),
            },
        )
    many = np.random.default_rng(0).normal(size=(3, 500)) * 0.5
    check_kept("top_p(logits, 1) of 500 tokens", lambda given: top_p(given, 1.0), many, np.ones_like(many, bool))
    check_kept("top_p(logits, 0.9) of 500 tokens", lambda given: top_p(given, 0.9), many, nucleus(many, 0.9))
    after = cut(ROWS, k_largest(ROWS, 3))
    check_kept(
        "top_p(logits, 0.95) of logits that top_k has left three of",
        lambda given: top_p(given, 0.95),
        after,
        nucleus(after, 0.95),
    )
    for p in (0.0, -0.1, 1.1):
        check_refused(f"top_p(logits, {p})", lambda p=p: top_p(shared.tensor(ROWS), p))


def check_min_p() -> None:
    p_all = softmax(ROWS)
    cases = []
    for p in (0.2, 0.3, 0.1):
        cases.append(
            (
                f"min_p(logits, {p})",
                lambda given, p=p: min_p(given, p),
                ROWS,
                at_least(ROWS, p),
                {
                    "a limit of p itself: it is p times the largest probability of the row": p_all >= p,
                    "a nucleus: min-p looks at each probability, not at their sum": nucleus(ROWS, p),
                    "scores compared: probabilities are, so that a common number added to all changes nothing": ROWS
                    >= p * ROWS.max(-1, keepdims=True),
                    "a limit of the first row for all rows: amax(-1, keepdim=True)": p_all >= p * p_all[:1].max(),
                    "the largest probability of all rows: each row has its own, amax(-1, keepdim=True)": p_all
                    >= p * p_all.max(),
                    "the largest probability of each column": p_all >= p * p_all.max(0),
                    "1 − p times the largest": p_all >= (1 - p) * p_all.max(-1, keepdims=True),
                    "all that is less probable: the mask is the wrong way round": ~at_least(ROWS, p),
                    "a limit of p times the mean": p_all >= p * p_all.mean(-1, keepdims=True),
                    "a limit of p below the largest: a factor is meant": p_all >= p_all.max(-1, keepdims=True) - p,
                    "the square of the largest": p_all >= p * p_all.max(-1, keepdims=True) ** 2,
                    "no min-p": np.ones_like(ROWS, bool),
                },
            )
        )
    check_all(cases)
    tie = np.array([[2.0, 0.0, 2.0]])
    nothing = {
        "nothing at all: p times the largest is the limit, and what reaches it stays, so `<` and not `<=`": [[0] * 3]
    }
    check_kept(
        "min_p(logits, 1) of scores 2, 0, 2", lambda given: min_p(given, 1.0), tie, [[True, False, True]], nothing
    )
    check_kept("min_p(logits, 0)", lambda given: min_p(given, 0.0), ROWS, np.ones_like(ROWS, bool))
    for p in (-0.1, 1.1):
        check_refused(f"min_p(logits, {p})", lambda p=p: min_p(shared.tensor(ROWS), p))


def check_order() -> None:
    """Settings with which each order of two neighbours gives something else."""
    rows = np.array([[1.0, 3.0, -1.0, 2.0, 0.0, 1.5], [2.2, 2.0, 1.9, 1.0, 0.5, 0.4]])
    cases: list[tuple[str, np.ndarray, np.ndarray, dict[str, np.ndarray]]] = []
    for config in (
        GenerationConfig(temperature=2.0, top_p=0.8),
        GenerationConfig(temperature=2.0, min_p=0.3),
        GenerationConfig(top_k=4, top_p=0.79),
        GenerationConfig(top_p=0.7, min_p=0.5),
        GenerationConfig(top_k=2),
        GenerationConfig(temperature=0.7),
        GenerationConfig(),
        GenerationConfig(min_p=0.4),
        GenerationConfig(temperature=1.5, top_k=5, top_p=0.85, min_p=0.3),
    ):
        on = {"temperature": config.temperature != 1, "top-k": config.top_k is not None}
        on |= {"top-p": config.top_p is not None, "min-p": config.min_p is not None}
        settings = ", ".join(f"{name.replace('-', '_')}" for name, used in on.items() if used) or "nothing"
        what = f"warp with {settings} switched on"
        given = shared.tensor(rows)
        with unchanged(what, given), doing(what, HINTS):
            found = warp(given, config)
        require(found is not None, f"{what} is None: is a `return` missing?")
        expected, found = in_order(rows, config), found.numpy()
        mistakes: dict[str, Any] = {}
        for name, used in on.items():
            if used:
                mistakes[f"{name} left out"] = in_order(rows, config, tuple(n for n in STEPS if n != name))
        for order in itertools.permutations(STEPS):
            swapped = [
                f"{b} in front of {a}" for a, b in itertools.combinations(STEPS, 2) if order.index(b) < order.index(a)
            ]
            used = [text for text in swapped if all(on[name] for name in text.split(" in front of "))]
            if used:
                mistakes.setdefault(
                    f"{' and '.join(used)}: each sees what those before it left", in_order(rows, config, order)
                )
        cases.append((what, found, expected, mistakes))
    wrong = [case for case in cases if not same_scores(case[1], case[2])]
    if not wrong:
        return
    what, found, expected, mistakes = wrong[0]
    names = [
        name
        for name in dict.fromkeys(name for case in cases for name in case[3])
        if all(same_scores(found, others.get(name, expected)) for _, found, expected, others in cases)
    ]
    names += [name for name, value in mistakes.items() if same_scores(found, value)]
    looks = f"\nThat is what one gets from: {names[0]}." if names else ""
    pytest.fail(
        f"{what} gives\n{np.array2string(found, precision=3)}\nwhere\n{np.array2string(expected, precision=3)}\nis "
        f"expected: temperature, then top-k, top-p, min-p, those that are switched on{looks}",
        pytrace=False,
    )


def same_scores(found: np.ndarray, expected: np.ndarray) -> bool:
    stays = np.isfinite(expected)
    return np.array_equal(np.isfinite(found), stays) and np.allclose(found[stays], expected[stays], atol=1e-5)


def test_the_nucleus_and_min_p_keep_what_they_say_and_come_in_order():
    check_top_p()
    check_min_p()
    check_order()


# ------------------------------------------------------------------------ draws

SETTINGS = {
    "temperature 0.5": GenerationConfig(temperature=0.5),
    "temperature 2": GenerationConfig(temperature=2.0),
    "top-k 3": GenerationConfig(top_k=3),
    "top-p 0.8": GenerationConfig(top_p=0.8),
    "min-p 0.1": GenerationConfig(min_p=0.1),
    "all four": GenerationConfig(temperature=1.5, top_k=5, top_p=0.9, min_p=0.2),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_are_drawn_as_often_as_each_sampler_says(name):
    config = SETTINGS[name]
    what = f"process and choose with {name}"
    with doing(what, HINTS):
        logits = process(shared.tensor(np.tile(UNSURE, (SHOTS, 1))), [[]] * SHOTS, [[]] * SHOTS, config)
        ids = choose(logits, config, seeded(3))
    expected = softmax(in_order(UNSURE[None], config))[0]
    mistakes = {
        "no sampler at all": softmax(UNSURE),
        "the likeliest token each time": np.eye(6)[1],
        "the temperature as a factor": softmax(in_order(UNSURE[None] * config.temperature**2, config))[0],
        "probabilities divided by the temperature in place of scores": softmax(softmax(UNSURE) / config.temperature),
        "tokens that stay, all alike likely": (expected > 0) / (expected > 0).sum(),
    }
    check_counts(what, ids, expected, mistakes, "the six words")
