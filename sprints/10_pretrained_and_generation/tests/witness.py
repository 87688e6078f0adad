"""What the tests of this sprint share: a language model that says what it was given to read, and counts of draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import shared
from shared import nn
from shared.autograd import is_grad_enabled

SIZE, CONTEXT = 11, 8


class Witness(nn.Module):
    """A model without weights, that keeps its text in its cache: the keys it puts there are the ids themselves.

    What it expects after a text is `scores`: numbers drawn once for each text, from all of its tokens. So it scores the
    text that the cache holds and ids continue, without the fillers that `padding` counts; a token that is missing
    there, or too many, changes what comes next. `saw` has, for each pass, what stood before the last place of each row.
    """

    def __init__(self, vocab_size: int = SIZE, block_size: int = CONTEXT, seed: int = 0, scale: float = 2.0):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocab_size, block_size=block_size)
        self.blocks = [None]
        self.nothing = nn.Parameter(shared.zeros(1))
        self.seed, self.scale = seed, scale
        self.known: dict[tuple[int, ...], np.ndarray] = {}
        self.saw: list[list[tuple[int, ...]]] = []
        self.lengths: list[int] = []  # ids that each pass was given for each row
        self.modes: list[tuple[bool, bool]] = []

    def scores(self, text: tuple[int, ...]) -> np.ndarray:
        """What follows a text, (V,)."""
        if text not in self.known:
            drawn = np.random.default_rng([self.seed, len(text), *text]).normal(size=self.config.vocab_size)
            self.known[text] = (self.scale * drawn).astype(np.float32)
        return self.known[text]

    def extend(self, ids: Any, caches: Any, padding: Any = None, logits_to_keep: int = 1) -> shared.Tensor:
        (cache,) = caches
        total = len(cache) + ids.shape[1]
        if total > self.config.block_size:
            raise RuntimeError(
                f"the caches hold {len(cache)} tokens and {ids.shape[1]} more come, but positions end at "
                f"{self.config.block_size}"
            )
        new = ids.float()[:, None, :, None]
        held = cache.update(new, new)[0].numpy()[:, 0, :, 0].astype(int)
        skip = [0] * len(held) if padding is None else padding.tolist()
        rows = [
            [tuple(row[n : place + 1].tolist()) for place in range(total - logits_to_keep, total)]
            for row, n in zip(held, skip, strict=True)
        ]
        self.saw.append([row[-1] for row in rows])
        self.lengths.append(int(ids.shape[1]))
        self.modes.append((self.training, is_grad_enabled()))
        return shared.tensor(np.array([[self.scores(text) for text in row] for row in rows]))


class Table(Witness):
    """A Witness to which only the last word matters: `rows[word]` are the probabilities of the next."""

    def __init__(self, rows: Sequence[Sequence[float]], block_size: int = CONTEXT):
        super().__init__(len(rows), block_size)
        with np.errstate(divide="ignore"):
            self.rows = np.log(np.array(rows))

    def scores(self, text: tuple[int, ...]) -> np.ndarray:
        return self.rows[text[-1]].astype(np.float32)


def seeded(seed: int = 0) -> shared.Generator:
    return shared.Generator().manual_seed(seed)


def softmax(scores: Any) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    with np.errstate(all="ignore"):
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)


# ------------------------------------------------------------------------ counts

# Chi-squared that a right answer exceeds less than once in a million runs, by degrees of freedom.
FAR = {0: 1e-9, 1: 24, 2: 28, 3: 31, 4: 34, 5: 36, 6: 39, 7: 41, 8: 43, 9: 46, 10: 48}


def distance(counts: np.ndarray, p: np.ndarray) -> float:
    """Chi-squared: the sum of (found − expected)² / expected, infinite where something impossible was drawn.

    What is rare is put together until at least 8 are expected: of a single rare draw more would be made than it is.
    """
    expected = np.asarray(p, dtype=float) * counts.sum()
    possible = expected > 1e-9 * counts.sum()
    if counts[~possible].any():
        return float("inf")
    total, found, wanted = 0.0, 0.0, 0.0
    for place in np.argsort(expected):
        found, wanted = found + counts[place], wanted + expected[place]
        if wanted >= 8:
            total += (found - wanted) ** 2 / wanted
            found, wanted = 0.0, 0.0
    return float(total)


def far(p: np.ndarray) -> float:
    return FAR[min(10, int((np.asarray(p) > 1e-9).sum()) - 1)]


def check_counts(what: str, ids: Sequence[int], p: np.ndarray, mistakes: dict[str, np.ndarray], each: str) -> None:
    """Fail unless `ids` were drawn from p, with the mistake among `mistakes` that they could have been drawn from."""
    found = np.asarray(list(ids))
    if found.size and not 0 <= found.min() <= found.max() < len(p):
        pytest.fail(
            f"{what}: there are ids from {found.min()} to {found.max()}, where {len(p)} are there", pytrace=False
        )
    counts = np.bincount(found, minlength=len(p)).astype(float)
    if distance(counts, p) < far(p):
        return
    chi = {name: distance(counts, other) for name, other in mistakes.items() if abs(np.sum(other) - 1) < 1e-6}
    nearest = min(chi, key=lambda name: chi[name], default="")
    looks = f"\nThat is what one gets from: {nearest}." if nearest and chi[nearest] < far(mistakes[nearest]) else ""
    pytest.fail(
        f"{what}: of {len(found)} draws {each} have shares of {', '.join(f'{x:.3f}' for x in counts / counts.sum())}, "
        f"where {', '.join(f'{x:.3f}' for x in p)} is expected{looks}",
        pytrace=False,
    )


# ------------------------------------------------------------------------ errors


def check_refused(what: str, call: Callable[[], Any], kind: type[Exception] = ValueError) -> None:
    """Fail unless `call` raises `kind`, which the docstring promises."""
    try:
        call()
    except NotImplementedError:
        raise
    except kind:
        return
    except Exception as error:
        pytest.fail(f"{what} ends in {type(error).__name__}: {error}; a {kind.__name__} is expected", pytrace=False)
    pytest.fail(f"{what} goes on, where a {kind.__name__} is expected", pytrace=False)


@contextmanager
def unchanged(what: str, tensor: Any) -> Iterator[None]:
    """Fail if `tensor` has other numbers afterwards."""
    before = tensor.numpy().copy()
    yield
    if not np.array_equal(before, tensor.numpy(), equal_nan=True):
        pytest.fail(
            f"{what} changes the logits that it was given: the input stays as it is, masked_fill makes a new Tensor "
            "and masked_fill_ does not",
            pytrace=False,
        )
