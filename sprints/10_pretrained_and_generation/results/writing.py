"""What notes 05 and 06 measure: how the kept model goes on from many speeches, and what it thinks of the result.

starts, real = prompts(tokenizer, 24)
texts = written(model, starts, GenerationConfig(top_p=0.9, seed=0))
bits, doubt = read_back(model, starts, texts)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from kept import validation_text

import shared
from shared.generation import GenerationConfig, generate
from shared.generation.measures import entropy_of_logits, repetition
from shared.nn import functional as F

PROMPT, NEW = 48, 208  # characters: together twice the model's context
GROUP = 8  # characters: a run of so many that comes again is a repetition

Ids = list[list[int]]


def prompts(tokenizer: Any, number: int, length: int = PROMPT, new: int = NEW) -> tuple[Ids, Ids]:
    """(prompts, what really follows): ids of `number` speeches of the held-out text, spread evenly over it.

    Each begins with its speaker's name; `length` ids, and the `new` ids after them.
    """
    text, rows = validation_text(), []
    for i in range(number):
        start = text.index("\n\n", i * (len(text) - 8 * (length + new)) // number) + 2
        rows.append(tokenizer.encode(text[start : start + length + new]))
    return [row[:length] for row in rows], [row[length:] for row in rows]


def written(model: Any, starts: Ids, config: GenerationConfig) -> Ids:
    """What follows each of the prompts, all written at once: lists of new ids."""
    return generate(model, starts, config)


def read_back(model: Any, starts: Ids, texts: Ids) -> tuple[np.ndarray, np.ndarray]:
    """(surprise, entropy) in bits of each new id and at its place, both (B, new), for texts that are equally long.

    The model sees as much before each id as `stream` shows it: the whole text until its context is full, then the last
    half of the context and what came after that.
    """
    ids = shared.tensor([a + b for a, b in zip(starts, texts, strict=True)])
    context, length, known = model.config.block_size, ids.shape[1], len(starts[0])
    surprise, entropy = np.zeros((2, len(ids), length))
    start, done = 0, 1  # ids before `done` have been predicted
    while done < length:
        window = ids[:, start : start + context]
        with shared.no_grad():
            logits = model(window)[:, done - 1 - start :]  # after the id before `done`, and all that follow
        end = min(start + context + 1, length)  # the last logits predict one more than was read
        logits = logits[:, : end - done]
        flat, right = logits.reshape(-1, logits.shape[-1]), ids[:, done:end].reshape(-1)
        surprise[:, done:end] = (
            (F.cross_entropy(flat, right, reduction="none") / math.log(2)).numpy().reshape(len(ids), -1)
        )
        entropy[:, done:end] = entropy_of_logits(logits).numpy()
        start, done = end - max(1, context // 2), end
    return surprise[:, known:], entropy[:, known:]


def repeated(texts: Ids) -> np.ndarray:
    """For each text the share of its groups of eight characters that stood in it before: (B,)."""
    return np.array([repetition(text, GROUP) for text in texts])


def pooled(texts: Ids) -> float:
    """How many different groups of eight there are in all the texts together, as a share of all groups."""
    groups = [tuple(text[i : i + GROUP]) for text in texts for i in range(len(text) - GROUP + 1)]
    return len(set(groups)) / len(groups)


def word_list(text: str) -> list[str]:
    """Runs of letters, with an apostrophe inside, in lower case.

    >>> word_list("'Tis o'er, my Lord")
    ["'tis", "o'er", 'my', 'lord']
    """
    return re.findall(r"[a-z']*[a-z][a-z']*", text.lower())


def different_words(texts: Ids, tokenizer: Any) -> np.ndarray:
    """For each text how many different words it has, as a share of its words: (B,); the last, cut off, not counted."""
    rows = [word_list(tokenizer.decode(text))[:-1] for text in texts]
    return np.array([len(set(row)) / max(1, len(row)) for row in rows])


def known_words(texts: Ids, tokenizer: Any, known: set[str]) -> np.ndarray:
    """For each text the share of its words that are in `known`: (B,)."""
    rows = [word_list(tokenizer.decode(text))[:-1] for text in texts]
    return np.array([sum(word in known for word in row) / max(1, len(row)) for row in rows])


def mean_and_spread(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """(mean, standard deviation) over prompts.

    >>> mean_and_spread([1.0, 2.0, 3.0])
    (2.0, 1.0)
    """
    return float(np.mean(values)), float(np.std(values, ddof=1))
