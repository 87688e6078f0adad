"""What a model thinks of a text, token by token, and how varied a text is, whoever wrote it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from shared.arrays.dtypes import bfloat16, float16
from shared.autograd import no_grad
from shared.nn import functional as F
from shared.ops import tensor, where
from shared.tensor import Tensor
from shared.training.loop import to_device_of

Ids = Tensor | Sequence[int]


def logits_of(model: Any, ids: Ids) -> tuple[Tensor, Tensor]:
    """ids (T,), a Tensor or a list, → what the model expects after each, logits (T, V), and the ids as int64 Tensor.

    One forward pass without gradients, in eval mode; the model is afterwards in the mode in which it came. `model`
    makes logits (B, T, V) of ids (B, T). ValueError where there is no id, or where there are more than
    `model.config.block_size`, if the model has that; TypeError for ids that are no integers. Logits
    of 16 bits become float32.
    """
    ids = ids if isinstance(ids, Tensor) else tensor(list(ids))
    longest = getattr(getattr(model, "config", None), "block_size", math.inf)
    if ids.ndim != 1 or not 1 <= len(ids) <= longest:
        raise ValueError(f"expected ids (T,), 1 ≤ T ≤ {longest}, but got shape {tuple(ids.shape)}")
    if ids.array.dtype.kind not in "iu":
        raise TypeError(f"expected ids that are integers, but got {ids.dtype.name}")
    (ids,) = to_device_of(model, ids.long())
    was_training = model.training
    if was_training:  # another thread may be reading: leave a model that is in eval mode alone
        model.eval()
    try:
        with no_grad():
            logits = model(ids.unsqueeze(0))[0]
            return logits.float() if logits.dtype in (float16, bfloat16) else logits, ids
    finally:
        if was_training:
            model.train()


def surprise(model: Any, ids: Ids) -> Tensor:
    """−log₂ p of each token after the first, given those before it: (T − 1,) bits, for ids (T,), 1 ≤ T ≤ block_size.

    1 bit is as surprising as a coin's side, 10 bits as one of 1024 equally likely tokens. Its mean is the loss per
    token in bits. Source: Shannon, "Prediction and entropy of printed English", 1951.

    >>> import shared
    >>> model = shared.nn.Embedding(4, 4)            # a table of bigrams is a language model
    >>> _ = shared.nn.init.zeros_(model.weight)      # to which each of four tokens is as likely
    >>> surprise(model, [0, 3, 1]).tolist()
    [2.0, 2.0]
    """
    logits, ids = logits_of(model, ids)
    return F.cross_entropy(logits[:-1], ids[1:], reduction="none") / math.log(2)


def entropy(model: Any, ids: Ids) -> Tensor:
    """How unsure the model is after each token of ids (T,): the entropy of what it expects next, (T,) bits.

    It is the surprise to be expected: 0 where one token is certain, log₂ V where all are as likely; 1 ≤ T ≤ block_size.

    >>> import shared
    >>> model = shared.nn.Embedding(4, 4)
    >>> _ = shared.nn.init.zeros_(model.weight)
    >>> entropy(model, [0, 3, 1]).tolist()
    [2.0, 2.0, 2.0]
    """
    return entropy_of_logits(logits_of(model, ids)[0])


def entropy_of_logits(logits: Tensor) -> Tensor:
    """−Σ p · log₂ p of p = softmax(logits): (…, V) → (…) bits. A forbidden token, −inf, adds nothing.

    >>> entropy_of_logits(tensor([[0.0, 0.0, -math.inf], [0.0, -math.inf, -math.inf]])).tolist()
    [1.0, 0.0]
    """
    logs = F.log_softmax(logits, dim=-1)
    p = logs.exp()
    return where(p > 0, p * logs, 0.0).sum(-1).abs() / math.log(2)  # abs: of 0 and −0 the former


def log_probability(model: Any, ids: Ids, start: int = 1) -> float:
    """ln p of ids[start:], given ids[:start]: the sum over its tokens, in nats. ValueError unless 1 ≤ start ≤ T.

    >>> import shared
    >>> model = shared.nn.Embedding(4, 4)
    >>> _ = shared.nn.init.zeros_(model.weight)
    >>> round(log_probability(model, [0, 3, 1], start=2), 4)  # ln 1/4
    -1.3863
    """
    if not 1 <= start <= len(ids):
        raise ValueError(f"log_probability: expected 1 ≤ start ≤ {len(ids)}, but got {start}")
    return -math.log(2) * sum(surprise(model, ids)[start - 1 :].tolist())


# ---------------------------------------------------------------- of any text


def ngrams(ids: Iterable[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """All groups of n neighbours, from left to right, of ids, words, or whatever can be in a set.

    ValueError for n < 1, and where there is no such group.

    >>> ngrams("to be or not".split(), 2)
    [('to', 'be'), ('be', 'or'), ('or', 'not')]
    """
    items = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    if not 1 <= n <= len(items):
        raise ValueError(f"n-grams: expected 1 ≤ n ≤ {len(items)}, the length of the text, but got n={n}")
    return [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]


def distinct_n(ids: Iterable[Hashable], n: int) -> float:
    """How many different n-grams there are, as a share of all: 1 where none occurs twice, near 0 for one long loop.

    ids, words, or whatever can be in a set; ValueError for a text of fewer than n. Longer texts have a lower share:
    compare texts of one length. Source: Li et al., "A diversity-promoting objective function for neural conversation
    models", 2016 (who divide by the number of words).

    >>> distinct_n("the cat and the cat and the".split(), 2)  # 3 of 6
    0.5
    """
    groups = ngrams(ids, n)
    return len(set(groups)) / len(groups)


def repetition(ids: Iterable[Hashable], n: int) -> float:
    """The share of n-grams that stood in the text before: 0 where none is new, near 1 for a loop; 1 − `distinct_n`.

    Source: Welleck et al., "Neural text generation with unlikelihood training", 2020 (seq-rep-n). That models write
    loops: Holtzman et al., "The curious case of neural text degeneration", 2020.

    >>> repetition("the cat and the cat and the".split(), 2)  # "the cat", "cat and", "and the" once more each
    0.5
    """
    before: set[tuple[Hashable, ...]] = set()
    repeated = 0
    groups = ngrams(ids, n)
    for group in groups:
        repeated += group in before
        before.add(group)
    return repeated / len(groups)
