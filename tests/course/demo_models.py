"""Models for the tests of the demo: small, hostile and slow ones."""

from __future__ import annotations

import time
from typing import Any

import shared
from course.demo.models import Shelf, Source, sources
from shared.models import GPT, GPTConfig
from shared.text import ByteLevelBPE

BYTES, SLOW = "Bytes", "Slow bytes"


class Slow:
    """A model that takes `seconds` for each read, and counts them."""

    def __init__(self, model: GPT, seconds: float):
        self.model, self.seconds, self.reads = model, seconds, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def extend(self, *args: Any, **kwargs: Any) -> Any:
        self.reads += 1
        time.sleep(self.seconds)
        return self.model.extend(*args, **kwargs)


def bytes_model() -> tuple[GPT, ByteLevelBPE]:
    """A model with random weights for any text: its tokens are bytes. It never ends a text."""
    shared.manual_seed(0)
    tokenizer = ByteLevelBPE([])
    config = GPTConfig.preset("toy", vocab_size=tokenizer.vocab_size, block_size=128, tie_weights=False)
    model = GPT(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(6.0)
    model.lm_head.weight.data[tokenizer.special_tokens["<|endoftext|>"]] = 0.0
    return model, tokenizer


def shelf() -> tuple[Shelf, Slow]:
    """The course's models, one of bytes, and a slow one of bytes; and the slow one, to be counted."""
    model, tokenizer = bytes_model()
    slow = Slow(model, 0.03)
    made = [
        *sources(),
        Source(BYTES, "Random weights.", "", lambda: (model, tokenizer)),
        Source(SLOW, "Random weights, slowly.", "", lambda: (slow, tokenizer)),
    ]
    return Shelf(made), slow
