"""What the scripts and notebooks of this sprint share: what may come after "the dog bit the", by a model that fits on
paper.

It gives six words a score each. What is done to scores, in notes 02 and 03, can be done to these with a pencil.
"""

from __future__ import annotations

from typing import Any

import shared
from shared import Tensor

WORDS = ("man", "dog", "bone", "cat", "moon", "the")
PROMPT = "the dog bit the"
UNSURE = (3.0, 2.0, 1.5, 1.0, 0.0, -1.0)  # after "the dog bit the": several words would do
SURE = (1.0, 0.5, 0.0, -0.5, -1.0, 6.0)  # after "the dog bit": nearly nothing but "the"


def logits(scores: tuple[float, ...] = UNSURE, dtype: Any = None) -> Tensor:
    """The scores of the six words, (B, V) = (1, 6).

    >>> logits().argmax(-1).tolist()
    [0]
    """
    return shared.tensor([list(scores)], dtype=dtype or shared.get_default_dtype())


def ids(text: str) -> list[int]:
    """The numbers of those words of a text that are among the six; others, as "bit", are left out.

    >>> ids("the dog bit the")
    [5, 1, 5]
    """
    return [WORDS.index(word) for word in text.split() if word in WORDS]


def kept(scores: Tensor) -> list[str]:
    """The words that can still be drawn: those whose score is not −inf.

    >>> from shared.generation import processors
    >>> kept(processors.top_k(logits(), 2))
    ['man', 'dog']
    """
    return [word for word, score in zip(WORDS, scores[0].tolist(), strict=True) if score > -float("inf")]
