"""What the scripts and notebooks of this sprint share: "the dog bit the man", and a block small enough for a pencil.

The embeddings are those of Sprints 05 and 06. Every token of the sentence attends to the verb, whose value is
(−3, 5, 0, 3); added to the dog's (2, 0, 1, 0) this makes (−1, 5, 1, 3), with mean 2, variance 5 and mean square 9.
"""

from __future__ import annotations

from typing import Any

import shared
from shared import Tensor, nn

VOCABULARY = ("the", "dog", "bit", "man")
TABLE = ((0, 1, 0, 1), (2, 0, 1, 0), (0, 2, 0, -1), (2, 0, -1, 0))  # one row for each word, d_model = 4
SENTENCE = "the dog bit the man"
OTHER = "the man bit the dog"  # the same words, another meaning
DOG = 1  # the dog's place in SENTENCE

KEY = (0, 20, 0, -20)  # times an embedding: 60 for the verb, 0 for every other word
VALUE = ((0, -2, 0, -1), (0, 2, 0, -1), (0, 0, 0, 0), (0, 1, 0, -1))  # times the verb's embedding: (−3, 5, 0, 3)
FIRST = ((-1, 1, 0, 0), (1, 0, 1, 0), (0, 1, 0, 1))  # the feed-forward network's layer to d_ff = 3
SECOND = ((1, 0, 0), (0, 1, 0), (0, 0, 0.5), (0, -1, 0))  # and the one back to d_model = 4


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


def attention(dtype: Any = None) -> nn.MultiHeadAttention:
    """One head in which every token attends to "bit": all queries are (1, 0, 0, 0), and only the verb has a key.

    >>> [round(v, 4) for v in attention()(embedded())[0, DOG].tolist()]
    [-3.0, 5.0, 0.0, 3.0]
    """
    made = nn.MultiHeadAttention(4, 1, dtype=dtype)
    nothing = (0, 0, 0, 0)
    with shared.no_grad():
        rows = [nothing] * 4 + [KEY, nothing, nothing, nothing] + list(VALUE)  # queries, keys, values
        made.in_proj.weight.copy_(shared.tensor(rows).float())
        made.in_proj.bias[0] = 1.0
        made.out_proj.weight.copy_(shared.eye(4))
    return made


def summed(sentence: str = SENTENCE, dtype: Any = None) -> Tensor:
    """The words' vectors plus what the attention gave them: (1, T, 4), without gradients.

    >>> [round(v, 4) for v in summed()[0, DOG].tolist()]
    [-1.0, 5.0, 1.0, 3.0]
    """
    x = embedded(sentence, dtype)
    with shared.no_grad():
        return x + attention(dtype)(x)


def feed_forward(dtype: Any = None) -> nn.PositionwiseFeedForward:
    """Three hidden units without biases; of (−3, 3, −1, 1) they make (6, 0, 4), and of these (6, 0, 2, 0).

    >>> feed_forward()(shared.tensor([-3.0, 3.0, -1.0, 1.0])).tolist()
    [6.0, 0.0, 2.0, 0.0]
    """
    made = nn.PositionwiseFeedForward(4, 3, dropout=0.0, bias=False, dtype=dtype)
    with shared.no_grad():
        made.linear1.weight.copy_(shared.tensor(FIRST).float())
        made.linear2.weight.copy_(shared.tensor(SECOND).float())
    return made


def block(norm_first: bool = False, dtype: Any = None) -> nn.EncoderBlock:
    """The encoder block of the two parts above. Post-norm, it makes (1, 1, −1, −1) of the dog.

    >>> [round(v, 3) for v in block()(embedded())[0, DOG].tolist()]
    [1.0, 1.0, -1.0, -1.0]
    """
    made = nn.EncoderBlock(4, 1, d_ff=3, dropout=0.0, norm_first=norm_first, dtype=dtype)
    made.self_attention, made.feed_forward = attention(dtype), feed_forward(dtype)
    return made
