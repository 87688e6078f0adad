"""What the scripts beside this one share: the two sentences, their vocabulary, the little table, grids of numbers."""

from __future__ import annotations

import shared
from course.plotting import canvas as canvas  # the scripts take both from here
from course.plotting import write_grid as write_grid
from shared import Tensor
from shared.text import WordVocabulary

DOG_BITES, MAN_BITES = "the dog bit the man", "the man bit the dog"
WORDS = ("the", "dog", "bit", "man")
TABLE = ((0.0, 1.0, 0.0, 1.0), (2.0, 0.0, 1.0, 0.0), (0.0, 2.0, 0.0, -1.0), (2.0, 0.0, -1.0, 0.0))


def vocabulary() -> WordVocabulary:
    """The four words without special tokens, in the order of the notes.

    >>> vocabulary().encode(DOG_BITES), vocabulary().encode(MAN_BITES)
    ([0, 1, 2, 0, 3], [0, 3, 2, 0, 1])
    """
    return WordVocabulary(WORDS, specials=())


def ids(sentence: str = DOG_BITES) -> Tensor:
    """The numbers of the words, (5,), int64.

    >>> ids(MAN_BITES)
    tensor([0, 3, 2, 0, 1])
    """
    return shared.tensor(vocabulary().encode(sentence))


def table(requires_grad: bool = False) -> Tensor:
    """The embedding table, (4, 4): a row for each word, a new Tensor each time.

    >>> table()[ids()].tolist()[1]
    [2.0, 0.0, 1.0, 0.0]
    """
    return shared.tensor(TABLE, requires_grad=requires_grad)
