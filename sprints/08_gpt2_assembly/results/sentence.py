"""What the scripts and notebooks of this sprint share: "the dog bit the man", and a GPT small enough for a pencil.

The table is that of Sprints 05 to 07. Every word looks at the articles up to itself, whose value is (−3, 5, 0, 3);
added to the dog's (2, 0, 1, 0) this makes (−1, 5, 1, 3), as in Sprint 07. Its last norm is (−3, 3, −1, 1)/√5, and of
the four words' vectors that of "bit" is most like it.
"""

from __future__ import annotations

from typing import Any

import shared
from shared import Tensor
from shared.models import GPT, GPTConfig

VOCABULARY = ("the", "dog", "bit", "man")
TABLE = ((0, 1, 0, 1), (2, 0, 1, 0), (0, 2, 0, -1), (2, 0, -1, 0))  # one row for each word, n_embd = 4
SENTENCE = "the dog bit the man"
OTHER = "the man bit the dog"  # the same words, another meaning
DOG = 1  # the dog's place in SENTENCE

CONFIG = GPTConfig(vocab_size=4, block_size=5, n_layer=1, n_head=1, n_embd=4, dropout=0.0)
KEY = (-20, 20, -20, 20)  # times a normalised vector: 80 for "the", which is (−1, 1, −1, 1), at most 20 for the others
VALUE = ((3, 0, 0, 0), (0, 5, 0, 0), (0, 0, 0, 0), (0, 0, 0, 3))  # times the article's: (−3, 5, 0, 3)


def ids(sentence: str = SENTENCE) -> Tensor:
    """The words' places in the vocabulary: (1, T).

    >>> ids().tolist()
    [[0, 1, 2, 0, 3]]
    """
    return shared.tensor([[VOCABULARY.index(word) for word in sentence.split()]])


def embedded(sentence: str = SENTENCE, dtype: Any = None) -> Tensor:
    """The words' vectors, without positions: (1, T, 4).

    >>> embedded()[0, DOG].tolist()
    [2.0, 0.0, 1.0, 0.0]
    """
    return shared.tensor(TABLE, dtype=dtype or shared.get_default_dtype())[ids(sentence)]


def gpt(dtype: Any = None) -> GPT:
    """One block of one head; positions and feed-forward network add nothing, so that a pencil suffices.

    After "the dog" the scores are 4, −7, 5 and −5, each divided by √5: what comes next is most likely "bit".

    >>> [round(score * 5**0.5, 2) for score in gpt()(ids())[0, DOG].tolist()]
    [4.0, -7.0, 5.0, -5.0]
    """
    model = GPT(CONFIG, dtype=dtype)
    block, nothing = model.blocks[0], (0, 0, 0, 0)
    with shared.no_grad():
        model.token_embedding.weight.copy_(shared.tensor(TABLE))
        model.positions.weight.zero_()
        rows = [nothing] * 4 + [KEY, nothing, nothing, nothing] + list(VALUE)  # queries, keys, values
        block.self_attention.in_proj.weight.copy_(shared.tensor(rows))
        block.self_attention.in_proj.bias[0] = 1.0  # every query is (1, 0, 0, 0)
        block.self_attention.out_proj.weight.copy_(shared.eye(4))
        block.feed_forward.linear2.weight.zero_()
    return model
