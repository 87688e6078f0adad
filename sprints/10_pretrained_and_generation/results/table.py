"""A language model that fits on a card: what may follow each of five words. Note 05 searches it by hand.

After "the" comes "dog" more often than "man", but "man" soon ends the sentence. Who takes the likeliest word each time
goes round in a circle: the dog bit the dog bit the …
"""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import shared
from shared import Tensor, nn

VOCABULARY = ("the", "dog", "bit", "man", ".")
THE, STOP = 0, 4
ROWS = (  # p(next word | word): a row for each word, a column for each that may follow
    (0.0, 0.5, 0.1, 0.4, 0.0),
    (0.0, 0.0, 0.6, 0.0, 0.4),
    (0.9, 0.0, 0.0, 0.0, 0.1),
    (0.0, 0.0, 0.2, 0.0, 0.8),
    (1.0, 0.0, 0.0, 0.0, 0.0),
)


class WordTable(nn.Module):
    """The table as a model that `stream` and `beam_search` can read: after ids (B, T), ln p of each of five words.

    It looks at one word, so its cache holds nothing but the number of words read.

    >>> from shared.generation import new_caches
    >>> model = WordTable()
    >>> [round(p, 2) for p in model.extend(shared.tensor([[THE]]), new_caches(model))[0, 0].exp().tolist()]
    [0.0, 0.5, 0.1, 0.4, 0.0]
    """

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(block_size=64, vocab_size=len(VOCABULARY))
        self.blocks = ("the only one",)
        self.scores = nn.Embedding(len(VOCABULARY), len(VOCABULARY))
        with shared.no_grad():
            self.scores.weight.copy_(shared.tensor(ROWS).log())

    def forward(self, ids: Tensor) -> Tensor:
        return self.scores(ids)

    def extend(self, ids: Tensor, caches: list[Any], padding: Tensor | None = None, logits_to_keep: int = 1) -> Tensor:
        """As GPT.extend: the scores (B, logits_to_keep, 5) after the last words."""
        nothing = shared.zeros(ids.shape[0], 1, ids.shape[1], 1)  # keys and values of a token, one number each
        for cache in caches:
            cache.update(nothing, nothing)
        return self.scores(ids[:, -logits_to_keep:])


def words(ids: list[int]) -> str:
    """
    >>> words([1, 2, 0, 3, 4])
    'dog bit the man .'
    """
    return " ".join(VOCABULARY[i] for i in ids)


def probability(ids: list[int]) -> float:
    """Of these words after "the".

    >>> round(probability([3, 4]), 4), round(probability([1, 2, 0, 3, 4]), 4)
    (0.32, 0.0864)
    """
    p = 1.0
    for word, following in zip([THE, *ids], ids, strict=False):
        p *= ROWS[word][following]
    return p


def all_sentences(longest: int) -> list[tuple[list[int], float]]:
    """Every sentence after "the" that ends with its first full stop within so many words, likeliest first.

    >>> [(words(ids), round(p, 3)) for ids, p in all_sentences(3)]
    [('man .', 0.32), ('dog .', 0.2), ('dog bit .', 0.03), ('bit .', 0.01), ('man bit .', 0.008)]
    """
    found = []
    for length in range(longest):
        for begin in product(range(STOP), repeat=length):
            ids = [*begin, STOP]
            if (p := probability(ids)) > 0:
                found.append((ids, p))
    return sorted(found, key=lambda pair: -pair[1])
