"""The model that Sprint 09 kept, and real text for it: what the scripts and notebooks of this sprint measure on.

model, tokenizer = kept_model()
text = validation_text()                 # Shakespeare that the model has never read
starts = windows(text, 32, 128)          # 32 pieces of 128 characters, spread evenly over it
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import shared
from shared.models import GPT, load_pretrained
from shared.text import load_tokenizer
from shared.text.vocabulary import Vocabulary

FOLDER = Path(__file__).resolve().parents[2] / "09_train_gpt2" / "model"


def kept_model() -> tuple[GPT, Vocabulary]:
    """The GPT of 1.8 million parameters in eval mode, and its 65 characters."""
    return load_pretrained(FOLDER), load_tokenizer(FOLDER)


def validation_text() -> str:
    """The last tenth of TinyShakespeare. RuntimeError where only another text can be had: no number would compare."""
    text = shared.data.load("tinyshakespeare", fallback=True)[1].text
    if not set(text) <= set(load_tokenizer(FOLDER).itos):
        raise RuntimeError("TinyShakespeare is not there (datasets/tinyshakespeare/README.md says how to get it)")
    return text


def windows(text: str, number: int, length: int) -> list[str]:
    """`number` pieces of `length` characters that begin with a line, at equal distances from one another.

    >>> windows("ab\\ncd\\nef\\ngh\\n", 2, 2)
    ['ab', 'ef']
    """
    starts = [0] + [i + 1 for i, character in enumerate(text) if character == "\n"]
    lines = [i for i in starts if i + length <= len(text) and text[i] != "\n"]
    chosen = [lines[i] for i in np.linspace(0, len(lines), number, endpoint=False).astype(int)]
    return [text[i : i + length] for i in chosen]
