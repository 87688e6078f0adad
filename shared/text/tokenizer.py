"""What every tokenizer can do, and the folder in which one is kept beside a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from shared.text.bpe import MERGES_FILE, VOCAB_FILE, ByteLevelBPE
from shared.text.vocabulary import Vocabulary

VOCABULARY_FILE = "vocabulary.json"


class Tokenizer(Protocol):
    """What a language model asks of a tokenizer; `ByteLevelBPE`, `CharVocabulary` and `WordVocabulary` have it."""

    @property
    def vocab_size(self) -> int:
        """How many ids there are: 0 … vocab_size − 1."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text; special tokens never come out of it."""

    def decode(self, ids: Any, skip_specials: bool = False) -> str:
        """The text of ids; IndexError for one that is not in 0 … vocab_size − 1."""


def save_tokenizer(tokenizer: ByteLevelBPE | Vocabulary, folder: str | os.PathLike) -> None:
    """Writes a tokenizer into `folder`, made if need be, for `load_tokenizer`.

    A `ByteLevelBPE` is written as vocab.json and merges.txt, a vocabulary as vocabulary.json. FileExistsError, and
    nothing is changed, where the folder holds another tokenizer: a model saved beside that needs it.
    """
    if not isinstance(tokenizer, (ByteLevelBPE, Vocabulary)):
        raise TypeError(f"expected a ByteLevelBPE or a vocabulary to save, but got {type(tokenizer).__name__}")
    folder = Path(folder)
    path = folder / VOCABULARY_FILE
    others = [path] if isinstance(tokenizer, ByteLevelBPE) else [folder / VOCAB_FILE, folder / MERGES_FILE]
    wrong = [other.name for other in others if other.exists()]
    if isinstance(tokenizer, Vocabulary) and path.exists() and Vocabulary.load(path) != tokenizer:
        wrong.append(path.name)
    if wrong:
        raise FileExistsError(
            f"{folder} holds another tokenizer, {' and '.join(wrong)}, which a model saved beside it needs; choose "
            f"another folder, or remove it first"
        )
    if isinstance(tokenizer, ByteLevelBPE):
        tokenizer.save(folder)
    elif not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(path)


def load_tokenizer(folder: str | os.PathLike) -> ByteLevelBPE | Vocabulary:
    """The tokenizer in `folder`, whichever kind it is; the errors are those of its class's `load`.

    FileNotFoundError where there is none; ValueError where there are two.

    >>> import tempfile
    >>> from shared.text import CharVocabulary
    >>> folder = tempfile.mkdtemp()
    >>> save_tokenizer(CharVocabulary.from_text("to be"), folder)
    >>> load_tokenizer(folder)
    CharVocabulary(5 tokens)
    """
    folder = Path(folder)
    kept: list[ByteLevelBPE | Vocabulary] = []
    if any((folder / name).is_file() for name in (VOCAB_FILE, MERGES_FILE)):
        kept.append(ByteLevelBPE.load(folder))
    if (folder / VOCABULARY_FILE).is_file():
        kept.append(Vocabulary.load(folder / VOCABULARY_FILE))
    if not kept:
        raise FileNotFoundError(
            f"there is no tokenizer in {folder}: neither {VOCAB_FILE} and {MERGES_FILE} nor {VOCABULARY_FILE}"
        )
    if len(kept) > 1:
        raise ValueError(f"{folder} holds two tokenizers, {kept[0]!r} and {kept[1]!r}; remove the wrong one")
    return kept[0]
