"""Who bit whom: sentences in which only the order tells, and a small network that reads them with or without positions.

`results/positions.py` and the notebook train it; so may a test: 300 steps take less than a second.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

import shared
from shared import Tensor, nn, optim
from shared.nn import functional as F

ANIMALS = ("dog", "man", "cat", "bear", "wolf", "horse", "mouse", "child", "queen", "snake", "goat", "duck")
VERBS = ("bit", "saw", "chased")
WORDS = ("the", *ANIMALS, *VERBS)


def sentences(seed: int = 0, held_pairs: int = 16) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """((x, y), (x, y)), to train with and held out: x (N, 5) word numbers of "the A verb the B", y (N,) who did it.

    y counts in `ANIMALS`. A pair of animals is held out in both orders, so that no half of it was ever trained on.

    >>> (x, y), (held_x, held_y) = sentences()
    >>> tuple(x.shape), tuple(held_x.shape), " ".join(WORDS[i] for i in x[0].tolist()), ANIMALS[y[0].item()]
    ((300, 5), (96, 5), 'the dog bit the man', 'dog')
    """
    pairs = list(combinations(range(len(ANIMALS)), 2))
    held = set(np.random.default_rng(seed).choice(np.arange(1, len(pairs)), held_pairs, replace=False).tolist())
    rows: tuple[list, list] = ([], [])
    for i, pair in enumerate(pairs):
        for verb in range(len(VERBS)):
            for doer, other in (pair, pair[::-1]):
                rows[i in held].append([0, 1 + doer, 1 + len(ANIMALS) + verb, 0, 1 + other])
    parts = [shared.tensor(part) for part in rows]
    return tuple((x, x[:, 1] - 1) for x in parts)


class Reader(nn.Module):
    """Word numbers (N, 5) → scores (N, 12) of who did it; what it knows of each word is summed, in no order.

    `positions`: a module that adds positions to (N, 5, d_model), such as `nn.PositionalEncoding`, or None.
    `each_word`: whether linear and relu are applied to each word before the sum, or once to the sum.
    """

    def __init__(self, positions: nn.Module | None = None, each_word: bool = True, d_model: int = 16):
        super().__init__()
        self.words = nn.Embedding(len(WORDS), d_model)
        self.positions = positions
        self.hidden, self.output = nn.Linear(d_model, 64), nn.Linear(64, len(ANIMALS))
        self.each_word = each_word

    def forward(self, x: Tensor) -> Tensor:
        vectors = self.words(x)
        if self.positions is not None:
            vectors = self.positions(vectors)
        if self.each_word:
            return self.output(self.hidden(vectors).relu().sum(dim=1))
        return self.output(self.hidden(vectors.sum(dim=1)).relu())


def train_reader(model: Reader, x: Tensor, y: Tensor, steps: int = 300, lr: float = 0.01) -> list[float]:
    """Adam on all sentences at once; the loss of each step in nats."""
    optimizer, losses = optim.Adam(model.parameters(), lr=lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def share_right(model: Reader, x: Tensor, y: Tensor) -> float:
    """The share of sentences whose doer gets the highest score."""
    with shared.no_grad():
        return (model(x).argmax(dim=1) == y).float().mean().item()
