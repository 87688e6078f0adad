"""What the scripts and notebooks of this sprint share: "the dog bit the man", and a model small enough for a pencil.

The model is a table of bigrams: row w has the scores of what may follow word w. Its gradient is that of the scores
themselves, p − y, so each number of an update can be had by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import shared
from shared import Tensor, nn
from shared.data.tokens import windows_at

VOCABULARY = ("the", "dog", "bit", "man")
SENTENCE = "the dog bit the man"
IDS = tuple(VOCABULARY.index(word) for word in SENTENCE.split())  # 0, 1, 2, 0, 3


def window() -> tuple[Tensor, Tensor]:
    """The sentence's one window of four words, and what follows each: (1, 4) both.

    >>> window()[0].tolist(), window()[1].tolist()
    ([[0, 1, 2, 0]], [[1, 2, 0, 3]])
    """
    return windows_at(IDS, np.array([0]), length=4)


def bigrams(dtype: Any = None) -> nn.Embedding:
    """A model that knows nothing: four rows of four scores, all zero, so that each word has probability 1/4.

    >>> bigrams()(window()[0]).tolist()[0][1]
    [0.0, 0.0, 0.0, 0.0]
    """
    table = nn.Embedding(4, 4, dtype=dtype or shared.get_default_dtype())
    nn.init.zeros_(table.weight)
    return table
