"""What the scripts of notes 01 and 02 train: characters of Shakespeare, and a GPT that learns from them in seconds.

text = corpus()                             # text.train, text.val: uint16 ids; text.vocabulary
model = small_gpt(text.vocab_size)     # two blocks, 64 wide, windows of 64: the preset cpu-tiny
losses, norms = trained(model, text.train, optimizer, rate, steps=400)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import shared
from shared.data import RandomWindows, sequential_windows
from shared.models import GPT, GPTConfig
from shared.nn import Module
from shared.optim import Optimizer
from shared.text import CharVocabulary
from shared.training import evaluate_loss, train_step

BATCH, LENGTH = 12, 64


@dataclass(frozen=True)
class Corpus:
    """A text as ids of its characters: uint16 (N,), nine tenths to train on, one to validate."""

    train: np.ndarray
    val: np.ndarray
    train_text: str
    val_text: str
    vocabulary: CharVocabulary

    @property
    def vocab_size(self) -> int:
        """How many different characters there are, V."""
        return self.vocabulary.vocab_size


def corpus() -> Corpus:
    """TinyShakespeare; where it cannot be had, Python's reference text, and one printed sentence says so."""
    train, val = (part.text for part in shared.data.load("tinyshakespeare", fallback=True))
    vocabulary = CharVocabulary.from_text(train + val)
    ids = [np.array(vocabulary.encode(part), np.uint16) for part in (train, val)]
    return Corpus(*ids, train, val, vocabulary)


def small_gpt(vocab_size: int, seed: int = 0, **changes: Any) -> GPT:
    """The model of the preset cpu-tiny with fresh weights: 106,880 parameters for 65 characters."""
    shared.manual_seed(seed)
    sizes = {"block_size": LENGTH, "n_layer": 2, "n_head": 4, "n_embd": 64, "dropout": 0.0, "bias": False}
    return GPT(GPTConfig(vocab_size=vocab_size, **(sizes | changes)))


def trained(
    model: Module,
    tokens: np.ndarray,
    optimizer: Optimizer,
    rate: Callable[[int], float],
    steps: int,
    *,
    clip: float = 1.0,
    accumulation: int = 1,
    seed: int = 0,
    windows: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Trains `model`; returns the loss and the norm of the gradient before each update, (steps,) both.

    `rate(step)` is the learning rate of an update. Windows are drawn from `tokens` by `seed`, unless they are given.
    """
    source = windows or RandomWindows(tokens, BATCH, LENGTH, seed)
    rows = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        rows.append(train_step(model, optimizer, *next(source), clip=clip, accumulation=accumulation))
    losses, norms = np.array(rows).T
    return losses, norms


def validation_loss(model: Module, tokens: np.ndarray, length: int = LENGTH) -> float:
    """Nats per token over the whole text, each token but the first predicted once."""
    return evaluate_loss(model, sequential_windows(tokens, 64, length))
