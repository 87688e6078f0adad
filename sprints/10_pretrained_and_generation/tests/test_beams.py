"""Sprint 10's milestones on beam search: a step, the end, and the texts that an exhaustive search finds.

A known mistake is named in the message.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from witness import Table, Witness, softmax

import shared
from course.oracles import check, doing, require
from shared.generation import GenerationConfig
from shared.generation.beam import Beam, beam_search, best, extend_beams, is_over, length_normalised, sort_out

# the 0, dog 1, bit 2, man 3, . 4: after "the" a dog is likelier than a man; but what follows "man" is certain.
WORDS = ("the", "dog", "bit", "man", ".")
NEXT = [
    [0.0, 0.5, 0.1, 0.4, 0.0],
    [0.1, 0.2, 0.3, 0.0, 0.4],
    [0.6, 0.0, 0.0, 0.2, 0.2],
    [0.0, 0.0, 0.05, 0.0, 0.95],
    [0.6, 0.1, 0.1, 0.1, 0.1],
]
HINTS = {
    "out of range": "There may be fewer sums than num_beams: take as many as there are.",
    "k (": "There may be fewer sums than num_beams: take as many as there are.",
    "greater than": "There may be fewer sums than num_beams: take as many as there are.",
    "selected index": "There may be fewer sums than num_beams: take as many as there are.",
    "positions end at": "Where the caches are full, what `context` gives is read into new ones.",
    "expected keys": "The caches have a row for each text of the last step: select the rows that go on before reading.",
    "no attribute 'shape'": "`read` takes a Tensor of ids: tensor(ids).",
    "'NoneType' and 'int'": "topk returns two: the values and their places.",
    "number of dimensions": "ids are (n, T): one row for each running text.",
    "broadcast": "Each text's sum is added to its own row: scores as a column, (n, 1).",
    "too many values": "extend_beams returns three Tensors: rows, tokens, scores.",
    "zero": "The length is counted from 1: no text without a token is compared.",
}


def logs(p: Any) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(p, dtype=float))


# ------------------------------------------------------------------------ a step


def check_extend() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.dirichlet(np.ones(6), 4)
    some = drawn.copy()
    some[:, [0, 4]] = 0
    some[2] = 0
    for p, q, number in (
        (rng.dirichlet(np.ones(4)), drawn, 5),
        ([0.6, 0.4], [[0.5, 0.4, 0.1], [0.9, 0.05, 0.05]], 3),
        ([1.0], [[0.2, 0.7, 0.1]], 2),
        (rng.dirichlet(np.ones(4)), drawn, 24),
        (rng.dirichlet(np.ones(4)), drawn, 40),
        (rng.dirichlet(np.ones(4)), some, 24),
    ):
        sums, table = logs(p), logs(q)
        n, size = table.shape
        what = f"extend_beams of {n} texts and {size} tokens with num_beams={number}"
        with doing(what, HINTS):
            found = extend_beams(shared.tensor(sums), shared.tensor(table), number)
        require(found is not None, f"{what} is None: is a `return` missing?")
        require(
            isinstance(found, tuple) and len(found) == 3,
            f"{what} returns {type(found).__name__}: (rows, tokens, scores)",
        )
        rows, tokens, scores = (x.numpy() if isinstance(x, shared.Tensor) else np.asarray(x) for x in found)
        total = sums[:, None] + table
        ranked = sorted(np.ndindex(n, size), key=lambda place: -total[place])
        allowed = [place for place in ranked if total[place] > -np.inf][:number]
        pairs, wanted = list(zip(rows.tolist(), tokens.tolist(), strict=False)), [total[place] for place in allowed]
        if pairs == allowed and np.allclose(scores, wanted, atol=1e-5):
            for x, name in zip(found[:2], ("rows", "tokens"), strict=True):
                require(
                    isinstance(x, shared.Tensor) and x.dtype == shared.int64, f"{what}: {name} are not an int64 Tensor"
                )
            continue
        require(
            not len(scores) or scores.min() > -np.inf,
            f"{what} chooses {int((scores == -np.inf).sum())} continuations with a sum of −inf, which are forbidden: "
            "fewer may come out",
        )

        def ranking(values: np.ndarray, count: int = number) -> list[tuple[int, int]]:
            places = sorted(np.ndindex(*values.shape), key=lambda place: -values[place])
            return [place for place in places if values[place] > -np.inf][:count]

        each = -(-number // n)
        per_row = [(i, int(k)) for i in range(n) for k in np.argsort(-table[i], kind="stable")[:each]]
        turned = [(int(k), int(i)) for i, k in allowed]
        mistakes = {
            "tokens and rows exchanged: row by row the sums lie, so // V is the row and % V the token": turned,
            "the places divided by the number of texts: a row has V sums, so // V is the row and % V the token": [
                ((i * size + k) // n, (i * size + k) % n) for i, k in allowed
            ],
            "places among all n · V sums in place of tokens: % V": [(i, i * size + k) for i, k in allowed],
            "ln p of the last token alone: a text is worth the sum of all its ln p, so scores are added": ranking(
                table
            ),
            "the same number from each text: the best of all sums go on, and a text may go on in several ways or "
            "none": per_row,
            "the largest of each text by itself, as topk works along the last dimension: the table is flattened "
            "first": [divmod(int(k), size) for i in range(n) for k in np.argsort(-total[i], kind="stable")[:number]],
            "the best text's continuations alone": ranking(
                np.where(np.arange(n)[:, None] == sums.argmax(), total, -np.inf)
            ),
            "a product of logarithms: probabilities are multiplied, logarithms added": ranking(sums[:, None] * table),
            "the smallest sums: the largest are best": ranking(-np.where(np.isinf(total), np.inf, total)),
            "the worst first: best first": allowed[::-1],
            "one text fewer": allowed[: number - 1],
            "one text more": ranking(total, number + 1),
            "a difference, where ln p are added": ranking(table - sums[:, None]),
            "the right ones in the order of the texts: best first": sorted(allowed),
            "the best continuation of each text: several may come from one": sorted(
                [(i, int(total[i].argmax())) for i in range(n)], key=lambda place: -total[place]
            )[:number],
        }
        names = [name for name, value in mistakes.items() if value == pairs]
        if pairs == allowed:
            values = {
                "ln p of the last token, without what the text had": [table[place] for place in allowed],
                "probabilities: the sums of ln p are asked for": np.exp(wanted),
                "the score of the text before it went on": [sums[i] for i, _ in allowed],
            }
            names = [name for name, value in values.items() if np.allclose(value, scores, atol=1e-5)]
        looks = f"\nThat is what one gets from: {names[0]}." if names else ""
        pytest.fail(
            f"{what}: (row, token) are {pairs[:6]} with sums {np.round(scores[:6], 3).tolist()}, where {allowed[:6]} "
            f"with {np.round(wanted[:6], 3).tolist()} is expected{looks}",
            pytrace=False,
        )


def check_length() -> None:
    for log_prob, length, penalty in (
        (-6.0, 5, 0.5),
        (-6.0, 3, 1.0),
        (-6.0, 3, 0.0),
        (-6.0, 4, 0.5),
        (-2.0, 5, 2.0),
        (-3.0, 2, -1.0),
        (-3.0, 1, 1.0),
    ):
        what = f"length_normalised({log_prob:g}, {length}, {penalty:g})"
        with doing(what, HINTS):
            found = length_normalised(log_prob, length, penalty)
        check(
            what,
            found,
            log_prob / length**penalty,
            {
                "no normalisation: with a sum of ln p alone the shortest text wins": log_prob,
                "a product: the sum is divided by the length": log_prob * length**penalty,
                "the mean, whatever the penalty: it is the exponent": log_prob / length,
                "the penalty as a factor: it is the exponent of the length": log_prob / (length * penalty)
                if penalty
                else math.inf,
                "a difference: the sum is divided": log_prob - length**penalty,
                "penalty ** length: the length is the base": log_prob / penalty**length if penalty else math.inf,
                "a length that is one too large": log_prob / (length + 1) ** penalty,
                "a length that is one too small": log_prob / (length - 1) ** penalty if length > 1 else math.inf,
                "(5 + length) / 6 of Wu et al.: here it is the length itself": log_prob / ((5 + length) / 6) ** penalty,
                "a reward for each token, where the sum is divided": log_prob + penalty * length,
            },
            1e-6,
        )


def check_sorting() -> None:
    cases = [
        [False, True, False, True],
        [False, False, False, False],
        [True, True, True, True],
        [False, False, True, True],
    ]
    cases += [[True, False, True, False, False, True], [False, True], [True]]
    for ended, width in itertools.product(cases, (1, 2, 3)):
        what = f"sort_out({ended}, num_beams={width})"
        with doing(what, HINTS):
            found = sort_out(ended, width)
        require(found is not None, f"{what} is None: is a `return` missing?")
        require(isinstance(found, tuple) and len(found) == 2, f"{what} is {found!r}: a pair (aside, going) is expected")
        aside, going = (list(x) for x in found)
        done = [i for i, x in enumerate(ended) if x]
        open_ = [i for i, x in enumerate(ended) if not x]
        wanted = ([i for i in done if i < width], open_[:width])
        if (aside, going) == wanted:
            continue
        mistakes = {
            "all that ended put aside: one further down than num_beams is worse than as many that go on": (
                done,
                open_[:width],
            ),
            "the first num_beams that ended put aside, wherever they stand: only those among the first num_beams": (
                done[:width],
                open_[:width],
            ),
            "only those among the first num_beams go on: where some of them ended, others take their places": (
                wanted[0],
                [i for i in open_ if i < width],
            ),
            "more than num_beams that go on": (wanted[0], open_),
            "texts that ended go on as well": (wanted[0], list(range(len(ended)))[:width]),
            "the two exchanged: (aside, going) is the order": (wanted[1], wanted[0]),
            "nothing put aside: a text that ended is kept": ([], open_[:width]),
            "flags in place of numbers": (ended[:width], [not x for x in ended]),
        }
        names = [name for name, value in mistakes.items() if value == (aside, going)]
        looks = f"\nThat is what one gets from: {names[0]}." if names else ""
        pytest.fail(f"{what} is {(aside, going)}, where {wanted} is expected{looks}", pytrace=False)


def check_end() -> None:
    texts = [Beam([i], -9.0 + i, score) for i, score in enumerate((-2.0, -1.0, -3.0, -1.0))]
    for number in (2, 4, 9):
        what = f"best of texts with scores −2, −1, −3, −1 and log_prob −9, −8, −7, −6, number={number}"
        with doing(what, HINTS):
            found = best(list(texts), number)
        require(found is not None, f"{what} is None: is a `return` missing?")
        order = [beam.ids[0] for beam in found]
        wanted = [1, 3, 0, 2][:number]
        looks = {
            (2, 0, 1, 3)[:number]: "the lowest scores first: best first",
            (3, 1, 0, 2)[:number]: "of equal scores the last one first: those that came first stay first",
            (3, 2, 1, 0)[:number]: "log_prob compared: texts of several lengths are compared by `score`",
            (0, 1, 2, 3)[:number]: "the order in which they came: best first",
            (1, 3, 0, 2): "more than `number`",
        }.get(tuple(order), "")
        require(
            order == wanted,
            f"{what}: texts {order}, where {wanted} is expected"
            + (f"\nThat is what one gets from: {looks}." if looks else ""),
        )
    done = [Beam([1], -1.0, -1.0), Beam([2], -8.0, -2.0)]
    for finished, score, width, wanted, looks in (
        (done, -0.5, 2, False, "the running text is better than the worst that is finished"),
        (done, -1.5, 2, False, "the best finished text compared: the last of them could still be replaced"),
        (done, -2.5, 2, True, ""),
        (done, -2.0, 2, True, "a running text that is only as good cannot replace one that is finished"),
        (
            done[:1],
            -9.0,
            2,
            False,
            "fewer than num_beams texts are finished: the search goes on until they are complete",
        ),
        ([], -9.0, 2, False, "no text is finished: the search goes on"),
    ):
        running = Beam([3, 4], -5.0, score)
        what = (
            f"is_over with {len(finished)} finished texts, scores {[b.score for b in finished]}, num_beams={width}, "
            f"and a running text of score {score:g} (log_prob −5)"
        )
        with doing(what, {"index": "Fewer than num_beams may be finished, or none."}):
            found = is_over(finished, running, width)
        require(
            bool(found) is wanted,
            f"{what} is {found}, where {wanted} is expected: "
            f"{looks or 'the running text cannot be among the best any more'}",
        )


# ------------------------------------------------------------------------ a search


def searched(what: str, model: Witness, prompt: list[int], *settings: Any, **options: Any) -> list[Beam]:
    with doing(what, HINTS):
        return beam_search(model, prompt, *settings, **options)


def ln_p(model: Witness, text: tuple[int, ...]) -> np.ndarray:
    scores = model.scores(text).astype(float)
    return scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()


def every(model: Witness, prompt: list[int], length: int, ends: set[int]) -> list[tuple[float, list[int]]]:
    """(ln p, ids) of every text that ends with one of `ends`, or has `length` tokens."""
    found, running = [], [(0.0, [])]
    for step in range(1, length + 1):
        going = []
        for log_prob, ids in running:
            for token, x in enumerate(ln_p(model, (*prompt, *ids))):
                if x > -np.inf:
                    whole = token in ends or step == length
                    (found if whole else going).append((log_prob + x, [*ids, token]))
        running = going
    return found


def check_exhaustive() -> None:
    model = Witness(vocab_size=4, block_size=6, seed=7, scale=1.0)
    for penalty, stop in ((1.0, ()), (1.0, (2,)), (0.0, (2,)), (2.0, (2,))):
        what = f"beam_search wide enough for every text, length_penalty={penalty:g}, stop_tokens={stop}"
        found = searched(what, model, [1, 0], 64, 3, penalty, stop_tokens=stop, num_return=6)
        texts = [(x / len(ids) ** penalty, x, ids) for x, ids in every(model, [1, 0], 3, set(stop))]
        texts.sort(key=lambda text: -text[0])
        require(
            [beam.ids for beam in found] == [ids for _, _, ids in texts[:6]],
            f"{what}: the best are {[beam.ids for beam in found]}, where trying all {len(texts)} texts gives "
            f"{[ids for _, _, ids in texts[:6]]}",
        )
        check(f"{what}: their sums of ln p", [b.log_prob for b in found], [x for _, x, _ in texts[:6]], tolerance=1e-4)
        check(f"{what}: their scores", [b.score for b in found], [score for score, _, _ in texts[:6]], tolerance=1e-4)


def narrow(
    model: Witness,
    prompt: list[int],
    width: int,
    length: int,
    penalty: float,
    ends: set[int],
    change: Any = None,
    value: Any = None,
) -> tuple[list[Beam], list[list[tuple[int, ...]]]]:
    """The search as its docstring says, without caches; and which texts are read in each step."""
    running: list[tuple[list[int], float, tuple[int, ...]]] = [([], 0.0, tuple(prompt))]
    finished: list[Beam] = []
    saw, block_size = [], model.config.block_size
    for step in range(1, length + 1):
        if max(len(part) for _, _, part in running) > block_size:
            running = [(ids, x, (*prompt, *ids)[-(block_size // 2) :]) for ids, x, _ in running]
        saw.append([part for _, _, part in running])
        sums = []
        for ids, log_prob, part in running:
            after = ln_p(model, part) if value is None else value(model, part)
            after = after if change is None else change(after, [*prompt, *ids])
            sums += [([*ids, token], log_prob + x, (*part, token)) for token, x in enumerate(after) if x > -np.inf]
        sums.sort(key=lambda text: -text[1])
        sums = sums[: max(2, 1 + len(ends)) * width]
        ended = [ids[-1] in ends or step == length for ids, _, _ in sums]
        aside = [sums[i] for i in range(min(width, len(sums))) if ended[i]]
        running = [text for text, done in zip(sums, ended, strict=True) if not done][:width]
        finished += [Beam(ids, x, x / len(ids) ** penalty) for ids, x, _ in aside]
        finished = sorted(finished, key=lambda beam: -beam.score)[:width]
        if not running:
            break
        score = running[0][1] / len(running[0][0]) ** penalty
        if len(finished) == width and score <= finished[-1].score:
            break
    return finished, saw


def check_read(what: str, model: Witness, saw: list[list[tuple[int, ...]]]) -> None:
    """What the model saw in each step, and what it should have seen."""
    for k, (found, wanted) in enumerate(zip(model.saw, saw, strict=False)):
        if found == wanted:
            continue
        row = next((i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), 0)
        a, b = found[row] if row < len(found) else (), wanted[row]
        if len(found) != len(wanted):
            looks = f"there are {len(found)} rows"
        elif len(a) > len(b) and a[: len(b) - 1] == b[:-1]:
            looks = "what is in the caches was read again: after the first step the last token alone is read"
        elif len(a) == len(b) and a[-1] == b[-1]:
            looks = (
                "the last token is this text's, but the caches hold the tokens of another: `select` the rows that the "
                "texts continue, before reading"
            )
        elif len(a) == len(b) and a[:-1] == b[:-1]:
            looks = "another text's token is read: the last token of each running text, in their order"
        elif a[-len(b) :] == b and len(b) < len(wanted[0]) + k:
            looks = "the context is full, and the caches still hold what was there before: new ones take their places"
        elif len(a) == model.config.block_size // 2 and a == b[-len(a) :]:
            looks = (
                "that is read anew though it is in the caches: new ones take the places of the full ones in the list, "
                "`caches[:] = …`, since `caches = …` gives another list that name, and the search keeps the full ones"
            )
        elif len(a) < len(b):
            looks = "a part of its text is missing: are the caches new in each step?"
        else:
            looks = "the caches and what is read make its text"
        pytest.fail(
            f"{what}: in step {k + 1} the model sees {list(a)} for text {row}, where {list(b)} is expected: {looks}",
            pytrace=False,
        )


VALUES: dict[str, Any] = {
    "scores added up, where ln p are: log_softmax first": lambda model, part: model.scores(part).astype(float),
    "probabilities added up, where their logarithms are": lambda model, part: np.exp(ln_p(model, part)),
    "a softmax of probabilities": lambda model, part: logs(softmax(softmax(model.scores(part)))),
}


def check_narrow() -> None:
    prompt = [1, 5, 2]
    for seed, width, length, stop, block_size in (
        (8, 2, 6, (), 64),
        (9, 3, 12, (), 8),
        (10, 3, 6, (4,), 64),
        (11, 2, 6, (1, 3), 8),
    ):
        model = Witness(6, block_size, seed, 1.5)
        what = f"beam_search with {width} beams, {length} tokens after 3, context {block_size}, stop_tokens={stop}"
        found = searched(what, model, prompt, width, length, stop_tokens=stop, num_return=width)
        wanted, saw = narrow(model, prompt, width, length, 1.0, set(stop))
        texts, sums = [beam.ids for beam in found], [beam.log_prob for beam in found]
        right = texts == [b.ids for b in wanted] and np.allclose(sums, [b.log_prob for b in wanted], atol=1e-3)
        if right and model.saw == saw:
            continue
        marks = [
            name
            for name, value in VALUES.items()
            if narrow(model, prompt, width, length, 1.0, set(stop), value=value)[1] == model.saw
        ]
        if not marks:
            check_read(what, model, saw)
        looks = f"\nThat is what one gets from: {marks[0]}." if marks else ""
        pytest.fail(
            f"{what}: {texts} with sums of ln p {np.round(sums, 3).tolist()}, where {[b.ids for b in wanted]} with "
            f"{np.round([b.log_prob for b in wanted], 3).tolist()} is expected{looks}",
            pytrace=False,
        )
    model = Witness(vocab_size=6, seed=12, scale=1.5)
    one = searched("beam_search with one beam", model, [3, 1], 1, 5)[0]
    text = [3, 1]
    for _ in range(5):
        text.append(int(model.scores(tuple(text)).argmax()))
    require(one.ids == text[2:], f"a search with one beam is greedy, {text[2:]}, and gives {one.ids}")


def check_processed() -> None:
    """The config's processors see ln p, the whole text and the new tokens."""
    model, prompt = Witness(vocab_size=6, seed=13, scale=1.5), [1, 5, 2]

    def repeated(after: np.ndarray, text: list[int], factor: float = 1.5) -> np.ndarray:
        after = after.copy()
        after[list(set(text))] *= factor
        return after

    def presence(after: np.ndarray, text: list[int]) -> np.ndarray:
        after = after.copy()
        after[list(set(text[3:]))] -= 0.75
        return after

    for config, change in (
        (GenerationConfig(repetition_penalty=1.5), repeated),
        (GenerationConfig(presence_penalty=0.75), presence),
    ):
        penalty = "repetition_penalty=1.5" if config.repetition_penalty != 1 else "presence_penalty=0.75"
        what = f"beam_search with {penalty}"
        wanted = narrow(model, prompt, 3, 5, 1.0, set(), change)[0]
        found = searched(what, model, prompt, 3, 5, num_return=3, config=config)
        if [b.ids for b in found] == [b.ids for b in wanted] and np.allclose(
            [b.log_prob for b in found], [b.log_prob for b in wanted], atol=1e-3
        ):
            continue
        wrong = {
            "no processors: process(log_probs, seen, new, config)": None,
            "ln p that are normalised once more after the processors": lambda after, text, f=change: normalised(
                f(after, text)
            ),
            "a prompt that is not in `seen`": lambda after, text, f=change: f(after, text[3:]),
            "a prompt that counts as new": lambda after, text: presence(after, [0, 0, 0, *text]),
        }
        marks = [
            name
            for name, other in wrong.items()
            if (texts := narrow(model, prompt, 3, 5, 1.0, set(), other)[0])[0].ids == found[0].ids
            and np.allclose([b.log_prob for b in found], [b.log_prob for b in texts], atol=1e-3)
        ]
        if not marks and config.repetition_penalty != 1:
            marks = ["processors on the logits: they work on ln p, log_softmax first"]
        looks = f"\nThat is what one gets from: {marks[0]}." if marks else ""
        pytest.fail(
            f"{what}: {[(b.ids, round(float(b.log_prob), 3)) for b in found]}, where "
            f"{[(b.ids, round(float(b.log_prob), 3)) for b in wanted]} is expected{looks}",
            pytrace=False,
        )


class Half(Witness):
    """A Witness whose scores are in half precision."""

    def scores(self, text: tuple[int, ...]) -> np.ndarray:
        return super().scores(text).astype(np.float16)

    def extend(self, *inputs: Any, **options: Any) -> shared.Tensor:
        return super().extend(*inputs, **options).to(shared.float16)


def check_half() -> None:
    model, prompt = Half(vocab_size=6, seed=14, scale=1.5), [1, 5, 2]
    what = "beam_search in a model of half precision"
    found, wanted = searched(what, model, prompt, 2, 6)[0], narrow(model, prompt, 2, 6, 1.0, set())[0][0]
    require(
        abs(found.log_prob - wanted.log_prob) < 1e-4,
        f"{what}: the best sum of ln p is {float(found.log_prob):.4f}, where {float(wanted.log_prob):.4f} is expected: "
        "in float32 log_softmax loses nothing of them",
    )


def normalised(values: np.ndarray) -> np.ndarray:
    return values - np.log(np.exp(values).sum())


def test_a_step_keeps_the_best_sums_and_texts_are_put_aside_and_compared():
    check_extend()
    check_length()
    check_sorting()
    check_end()


def check_sentences() -> None:
    """After "the": greedy goes to the dog (0.5), then on to a stop (0.4); a man and a stop have 0.4 · 0.95 together."""
    texts = {}
    for width, penalty in ((1, 1.0), (2, 1.0), (2, 0.0)):
        what = f"beam_search after 'the', {width} beams, length_penalty={penalty:g}"
        beams = searched(what, Table(NEXT), [0], width, 2, penalty, stop_tokens=(4,))
        texts[width, penalty] = beams[0]
        sentence = "the " + " ".join(WORDS[i] for i in beams[0].ids)
        wanted = {1: "the dog .", 2: "the man ."}[width]
        require(sentence == wanted, f"{what} finds {sentence!r}, where {wanted!r} is expected")
        p = {1: 0.5 * 0.4, 2: 0.4 * 0.95}[width]
        check(f"{what}: ln p of {sentence!r}", beams[0].log_prob, math.log(p), tolerance=1e-4)
    # a sure but long text against a short one: p = 0.3 for one token, 0.7 · 0.6³ = 0.15 for four
    long = Table([[0.0, 0.7, 0.3], [0.0, 0.6, 0.4], [0.0, 0.0, 1.0]])
    for penalty, wanted in ((0.0, [2]), (1.0, [1, 1, 1, 1])):
        found = searched("beam_search", long, [0], 3, 4, penalty, stop_tokens=(2,))[0]
        require(
            found.ids == wanted,
            f"with length_penalty={penalty:g} the best text is {found.ids}, where {wanted} is expected: "
            + ("a sum of ln p favours what is short" if not penalty else "the mean of ln p is compared, not the sum"),
        )


def test_beams_find_what_trying_every_text_finds_which_greedy_misses():
    check_narrow()
    check_exhaustive()
    check_processed()
    check_half()
    check_sentences()
