"""Sprint 09's milestone on drawing text from a model. A known mistake is named in the message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import shared
from course.oracles import doing, require
from shared.autograd import is_grad_enabled
from shared.models.gpt import GPT, GPTConfig, next_token

SCORES = np.array([2.0, -1.0, 1.0, 0.0, 3.0, 0.5])  # likeliest first: 4, 0, 2, 5, 3, 1
SHOTS = 1500
WEIGHTS = "What is drawn from are probabilities, as a softmax makes them: not scores, which may be negative."
HINTS = {
    "inf, nan or element": WEIGHTS,
    "`inf`, `nan`": WEIGHTS,
    "prob_dist must be": "logits are (B, V), one row of scores for each text.",
    "selected index k": "There may be fewer tokens than top_k: then all of them can be drawn.",
    "top": "There may be fewer tokens than top_k: then all of them can be drawn.",
    "zero": "temperature=0 is no division: it takes the likeliest token.",
    "positions": "The model sees block_size tokens at most: of a longer text give it the last ones.",
    "block_size": "The model sees block_size tokens at most: of a longer text give it the last ones.",
    "0 …": "The model sees block_size tokens at most: of a longer text give it the last ones.",
    "cat": "ids are (B, T), the new token (B, 1): cat along dimension 1.",
    "argmax": "next_token returns (B, 1): argmax with keepdim=True.",
    "dimension": "ids are (B, T), the new token (B, 1).",
}


def seeded(seed: int = 0) -> shared.Generator:
    return shared.Generator().manual_seed(seed)


# ------------------------------------------------------------------------ one token


def softmax(scores: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        powers = np.exp(scores - scores.max())
        return powers / powers.sum()


def best(k: int, scores: np.ndarray = SCORES) -> np.ndarray:
    """Scores with all but the k highest at −∞."""
    kept = np.full(len(scores), -np.inf)
    kept[np.argsort(-scores)[:k]] = np.sort(scores)[::-1][:k]
    return kept


def distributions(temperature: float, k: int | None, before: bool = True) -> dict[str, np.ndarray]:
    """What the probabilities would be by one wrong turn."""
    scores, size = best(k) if k is not None and k < 6 else SCORES, len(SCORES)
    p, of_place = softmax(scores / temperature), np.zeros(size)
    found = {
        "the likeliest token each time: at a temperature above 0 one draws": np.eye(size)[SCORES.argmax()],
        "the least likely token each time": np.eye(size)[SCORES.argmin()],
        "tokens that are all alike likely": np.full(size, 1 / size),
        "the temperature left out, or applied after the softmax, where a common factor changes nothing": softmax(
            scores
        ),
        "a product with the temperature: scores are divided by it": softmax(scores * temperature),
        "the temperature squared": softmax(scores / temperature**2),
        "a softmax of the softmax: p is no score": softmax(softmax(scores / temperature)),
        "the largest score drawn least: a minus too many": softmax(
            np.where(np.isfinite(scores), -SCORES, -np.inf) / temperature
        ),
    }
    if k is not None and k < 6:
        of_place[:k] = np.sort(p)[::-1][:k]
        found |= {
            "all tokens, as if there were no top_k": softmax(SCORES / temperature),
            "k − 1 tokens: the k-th likeliest is allowed too, logits < smallest and not <=": softmax(
                best(k - 1) / temperature
            )
            if k > 1
            else p,
            "k + 1 tokens": softmax(best(k + 1) / temperature),
            "the k least likely tokens": softmax(
                np.where(np.isfinite(best(k, -SCORES)), SCORES, -np.inf) / temperature
            ),
            "places among the k likeliest, not the tokens that stand there": of_place,
            "the k likeliest, all alike likely": np.isfinite(scores) / k,
            "what is not among the k likeliest set to a score of 0, which has a probability": softmax(
                np.where(np.isfinite(scores), SCORES, 0.0) / temperature
            ),
            "the first k tokens of the vocabulary": softmax(
                np.where(np.arange(size) < k, SCORES, -np.inf) / temperature
            ),
        }
    return found


def distance(counts: np.ndarray, p: np.ndarray) -> float:
    """Chi-squared: the sum of (found − expected)² / expected, infinite where something impossible was drawn."""
    expected = p * counts.sum()
    if counts[expected == 0].any():
        return float("inf")
    possible = expected > 0
    return float(((counts - expected)[possible] ** 2 / expected[possible]).sum())


# 5 degrees of freedom: a right answer is beyond 40 once in seven million draws of SHOTS.
FAR = 40.0


def check_counts(what: str, ids: np.ndarray, temperature: float, top_k: int | None) -> None:
    """`ids` drawn from SCORES: fail with the mistake whose distribution they follow."""
    counts = np.bincount(ids.reshape(-1), minlength=len(SCORES)).astype(float)
    require(len(counts) == len(SCORES), f"{what}: ids up to {ids.max()} are drawn, where there are 6 tokens")
    p = softmax((best(top_k) if top_k is not None and top_k < 6 else SCORES) / temperature)
    if distance(counts, p) < FAR:
        return
    far = {name: distance(counts, other) for name, other in distributions(temperature, top_k).items()}
    nearest = min(far, key=lambda name: far[name])
    looks = f"\nThat is what one gets from: {nearest}." if far[nearest] < FAR else ""
    shares = ", ".join(f"{share:.3f}" for share in counts / counts.sum())
    pytest.fail(
        f"{what}: of {int(counts.sum())} draws the six tokens have shares of {shares}, where "
        f"{', '.join(f'{x:.3f}' for x in p)} is expected{looks}",
        pytrace=False,
    )


def drawn(logits: np.ndarray, temperature: float, top_k: int | None, what: str, **options: Any) -> np.ndarray:
    given = shared.tensor(logits)
    with doing(what, HINTS):
        ids = next_token(given, temperature, top_k, **options)
    require(ids is not None, f"{what} is None: is a `return` missing?")
    require(isinstance(ids, shared.Tensor), f"{what} is a {type(ids).__name__}, where a Tensor of ids is expected")
    shape = tuple(ids.shape)
    require(
        shape == (len(logits), 1),
        f"{what} of {len(logits)} rows has shape {shape}: one id for each row, ({len(logits)}, 1), which can be put "
        "beside the ids before it",
    )
    require(ids.dtype == shared.int64, f"{what} is {ids.dtype}: ids are int64")
    require(
        np.array_equal(given.numpy(), logits, equal_nan=True),
        f"{what} changed its logits, which it only reads: masked_fill makes a new Tensor, masked_fill_ does not",
    )
    return ids.numpy()[:, 0]


def check_next_token() -> None:
    rows = np.stack([SCORES, -SCORES, np.roll(SCORES, 1)])
    found = drawn(rows, 0, None, "next_token at temperature 0")
    require(
        found.tolist() == [4, 1, 5],
        f"next_token at temperature 0 takes {found.tolist()}, where the likeliest of three rows are 4, 1 and 5"
        + (": those are the least likely" if found.tolist() == [1, 4, 2] else ""),
    )
    many = np.tile(SCORES, (SHOTS, 1))
    for temperature, top_k in (
        (1.0, None),
        (0.5, None),
        (2.0, None),
        (1.0, 3),
        (2.0, 4),
        (1.0, 1),
        (1.0, 6),
        (1.0, 50),
    ):
        what = f"next_token at temperature {temperature:g}" + (f" with top_k={top_k}" if top_k else "")
        ids = drawn(many, temperature, top_k, what, generator=seeded(1))
        require(
            top_k == 1 or len(np.unique(ids)) > 1 or temperature < 1,
            f"{what}: all {SHOTS} rows, which have the same scores, get token {ids[0]}: "
            + (
                "the likeliest token each time: at a temperature above 0 one draws"
                if ids[0] == 4
                else "one draw for all"
            ),
        )
        check_counts(what, ids, temperature, top_k)
    two = np.tile(np.stack([np.roll(SCORES, 3), SCORES + 10]), (500, 1))
    ids = drawn(two, 1.0, 2, "next_token with top_k=2 of rows whose scores differ")
    wanted = ({1, 3}, {4, 0})
    for row, allowed in enumerate(wanted):
        found = set(ids[row::2].tolist())
        require(
            found <= allowed,
            f"with top_k=2 row {row} of the logits gets tokens {sorted(found)}, where {sorted(allowed)} are its "
            "likeliest: each row has a limit of its own",
        )
    state = np.asarray(shared.get_rng_state()).tolist()
    first, again, other = (drawn(many[:50], 1.0, None, "next_token", generator=seeded(s)).tolist() for s in (5, 5, 6))
    require(
        first == again and first != other and state == np.asarray(shared.get_rng_state()).tolist(),
        "next_token does not draw from the generator that it is given: the default one is the training's",
    )
    free = [drawn(many[:50], 1.0, None, "next_token without a generator").tolist() for _ in range(2)]
    require(free[0] != free[1], "next_token without a generator draws the same each time: is a seed set in it?")


# ------------------------------------------------------------------------ a text


class Watched(GPT):
    """A GPT with large random weights, so that what follows depends on all that is seen; notes how it is called."""

    def forward(self, ids: Any, caches: Any = None) -> Any:
        if "called" in self.__dict__:
            self.called.append((tuple(ids.shape), self.training, is_grad_enabled()))
        return GPT.forward(self, ids, caches) if caches else GPT.forward(self, ids)


def model_of(dropout: float = 0.0) -> Watched:
    shared.manual_seed(4)
    sizes = {"vocab_size": 11, "block_size": 6, "n_layer": 1, "n_head": 2, "n_embd": 8, "tie_weights": False}
    model = Watched(GPTConfig(**sizes, dropout=dropout))
    with shared.no_grad():
        for p in model.parameters():
            p.copy_(shared.randn(*p.shape))
    model.__dict__["called"] = []
    return model


def continued(start: np.ndarray, new: int, choose: Callable[[np.ndarray], np.ndarray], **wrong: Any) -> np.ndarray:
    """`start` and `new` more tokens by the definition, or with one wrong turn."""
    model, ids = model_of().eval(), start
    seen = wrong.get("seen", lambda ids: ids[:, -6:])
    with shared.no_grad():
        for _ in range(new):
            logits = GPT.forward(model, shared.tensor(seen(ids))).numpy()
            ids = np.concatenate([ids, choose(logits)[:, None]], 1)
    return ids


def check_likeliest() -> None:
    """Temperature 0 from starts that are shorter and longer than what the model sees."""
    rng = np.random.default_rng(2)
    for length in (3, 1, 6, 9):
        start = rng.integers(0, 11, (3, length))
        model = model_of(dropout=0.5).train()
        what = f"generate of 7 tokens after {length} at temperature 0, by a model that sees 6"
        given = shared.tensor(start)
        with doing(what, HINTS):
            ids = model.generate(given, 7, temperature=0)
        require(ids is not None, f"{what} is None: is a `return` missing?")
        require(
            not any(training for _, training, _ in model.called),
            f"{what}: the model is in train mode while it writes, and half of it drops out: eval() comes first",
        )
        require(
            not any(recording for _, _, recording in model.called),
            f"{what}: a graph is recorded, which grows with every token: with no_grad()",
        )
        require(model.training, f"{what} leaves the model in eval mode, where it came in train mode")
        require(given.tolist() == start.tolist(), f"{what} changes the ids that it was given")
        found = ids.numpy()
        if found.shape != (3, length + 7):
            looks = {
                7: "the new tokens alone: what was there stands in front of them",
                length + 6: "one token too few",
                length + 8: "one token too many",
                length: "nothing new: is the drawn token put at the end of ids?",
            }
            told = looks.get(found.shape[-1], "")
            pytest.fail(f"{what} has shape {found.shape}, where (3, {length + 7}) is expected: {told}", pytrace=False)

        def likeliest(logits: np.ndarray) -> np.ndarray:
            return logits[:, -1].argmax(-1)

        wanted = continued(start, 7, likeliest)
        if np.array_equal(found, wanted):
            continue
        others = {
            "the first block_size tokens seen, where the last ones are what comes before the next": continued(
                start, 7, likeliest, seen=lambda ids: ids[:, :6]
            ),
            "block_size − 1 tokens seen": continued(start, 7, likeliest, seen=lambda ids: ids[:, -5:]),
            "the last token alone seen, so that the model is one of bigrams": continued(
                start, 7, likeliest, seen=lambda ids: ids[:, -1:]
            ),
            "the prediction after the first token seen: the one after the last is the next": continued(
                start, 7, lambda logits: logits[:, 0].argmax(-1)
            ),
            "the prediction after the last token but one": continued(
                start, 7, lambda logits: logits[:, -2 if logits.shape[1] > 1 else -1].argmax(-1)
            ),
            "the same text seen each time: what was drawn belongs to it": np.concatenate(
                [start, np.repeat(continued(start, 1, likeliest)[:, -1:], 7, 1)], 1
            ),
            "the least likely token": continued(start, 7, lambda logits: logits[:, -1].argmin(-1)),
            "new tokens in front": np.concatenate([found[:, :7], start], 1),
            "the first text's tokens for all": continued(
                start, 7, lambda logits: np.repeat(logits[:1, -1].argmax(-1), 3)
            ),
        }
        told = next((name for name, ids in others.items() if np.array_equal(found, ids)), "")
        pytest.fail(
            f"{what}: the first text goes on with {found[0, length:].tolist()}, where "
            f"{wanted[0, length:].tolist()} is expected" + (f"\nThat is what one gets from: {told}." if told else ""),
            pytrace=False,
        )


class Fixed(GPT):
    """A GPT to which the scores of what follows are always SCORES."""

    def forward(self, ids: Any, caches: Any = None) -> Any:
        return shared.tensor(np.broadcast_to(SCORES, (*ids.shape, 6)).copy())


def check_drawn() -> None:
    model = Fixed(GPTConfig(vocab_size=6, block_size=4, n_layer=1, n_head=1, n_embd=2, dropout=0.0)).eval()
    start = shared.zeros(SHOTS // 2, 1, dtype=shared.int64)
    for temperature, top_k in ((1.0, None), (2.0, None), (1.0, 2)):
        what = f"generate at temperature {temperature:g}" + (f" with top_k={top_k}" if top_k else "")
        with doing(what, HINTS):
            ids = model.generate(start, 2, temperature, top_k, seeded(3)).numpy()[:, 1:]
        require(
            not np.array_equal(ids[:, 0], ids[:, 1]),
            f"{what}: two tokens in a row are the same in all {SHOTS // 2} texts: each is drawn anew",
        )
        check_counts(what, ids, temperature, top_k)
    require(not model.training, "generate leaves a model in train mode that came in eval mode")
    state = np.asarray(shared.get_rng_state()).tolist()
    with doing("generate", HINTS):
        first, again, other = (model.generate(start[:20], 5, generator=seeded(s)).tolist() for s in (1, 1, 2))
    require(
        first == again and first != other and state == np.asarray(shared.get_rng_state()).tolist(),
        "generate does not hand its generator on: samples would change the random numbers of the training",
    )
    for options in ({"temperature": -1.0}, {"top_k": 0}):
        try:
            model.generate(start[:1], 1, **options)
        except ValueError:
            continue
        except NotImplementedError:
            raise
        except Exception as error:
            pytest.fail(f"generate with {options} ends in {type(error).__name__}: {error}", pytrace=False)
        pytest.fail(f"generate with {options} goes on, where a ValueError is expected", pytrace=False)


def test_tokens_are_drawn_from_what_the_model_expects():
    check_next_token()


def test_a_text_is_written_token_by_token_from_what_came_before():
    check_likeliest()
    check_drawn()
