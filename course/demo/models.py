"""The models that people can write with: which there are, and each loaded once, when it is first asked for."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..sprints import ROOT

KEPT = ROOT / "sprints" / "09_train_gpt2" / "model"
MOST = 512  # new tokens at once


class ModelError(RuntimeError):
    """A model that cannot be opened, with the reason, for people to read."""


@dataclass(frozen=True)
class Source:
    """A model that could be loaded: what it is called, what it is, what to begin with, and how to get it."""

    name: str
    about: str
    prompt: str
    load: Callable[[], tuple[Any, Any]] = field(repr=False)
    most: int = MOST  # new tokens that make sense
    usual: int = 150


@dataclass(frozen=True)
class Reader:
    """A loaded model with its tokenizer. Several requests read from it at once, and nothing changes it."""

    source: Source
    model: Any
    tokenizer: Any

    @property
    def block_size(self) -> int:
        """The most tokens that the model looks at."""
        return self.model.config.block_size

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """The ids of the tokens that end a text; most tokenizers of the course have none."""
        special = getattr(self.tokenizer, "special_tokens", {})
        eos = getattr(self.tokenizer, "eos_id", None)
        return (*special.values(), *([] if eos is None else [eos]))

    @property
    def summary(self) -> str:
        """Its sizes, in a sentence."""
        c = self.model.config
        return (
            f"{self.model.num_parameters():,} parameters: {c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide; "
            f"{c.vocab_size:,} tokens to choose from, and it looks at the last {c.block_size:,} of a text."
        )


class Shelf:
    """The models by name. `get` loads one the first time, however many ask at once, and then always gives the same.

    >>> Shelf([Source("a", "", "", lambda: ("model", "tokenizer"))]).get("a").model
    'model'
    """

    def __init__(self, sources: Iterable[Source]):
        self.sources = {source.name: source for source in sources}
        self._readers: dict[str, Reader] = {}
        self._locks = {name: threading.Lock() for name in self.sources}

    def get(self, name: str) -> Reader:
        """The model of this name; ModelError where there is none, or where it cannot be opened."""
        if name not in self.sources:
            raise ModelError(f"There is no model {str(name)[:60]!r} here; there are {', '.join(self.sources)}.")
        with self._locks[name]:
            if name not in self._readers:
                try:
                    self._readers[name] = Reader(self.sources[name], *self.sources[name].load())
                except (OSError, ValueError, RuntimeError, ImportError) as error:
                    raise ModelError(f"The model {name!r} cannot be opened: {error}") from error
            return self._readers[name]


def sources(names: Iterable[str] = ()) -> list[Source]:
    """What is offered: `names`, folders and names of GPT-2, first; the course's own model, the sorter, cached GPT-2s.

    A folder is called by its last name, or by its whole path where that is another model's name. ModelError for a name
    that is neither a folder nor a GPT-2.
    """
    others = [_kept(), _sorter(), *(_hub(name) for name in _known() if in_cache(name))]
    taken = {*_known(), *(source.name for source in others)}
    found: list[Source] = []
    for name in dict.fromkeys(names):
        found.append(_named(name, taken))
        taken.add(found[-1].name)
    return list({source.name: source for source in [*found, *others]}.values())


def _named(name: str, taken: set[str]) -> Source:
    folder = Path(name).expanduser().resolve()
    if name not in _known() and folder.is_dir():
        about = f"The model in the folder {folder.name}, with its tokenizer."
        return Source(str(folder) if folder.name in taken else folder.name, about, "", lambda: _open(folder))
    if name in _known() or re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _hub(name)
    raise ModelError(
        f"{name} is neither a folder with a model nor one of {', '.join(_known())}, nor of the form owner/name."
    )


def _kept() -> Source:
    about = (
        "Trained in Sprint 09 on the plays of Shakespeare, character by character. It spells and sets speeches, and "
        "means nothing."
    )
    return Source("Shakespeare by characters", about, "ROMEO:\n", lambda: _open(KEPT), usual=250)


def _sorter() -> Source:
    about = (
        "A GPT that somebody else trained to sort: give it six letters A, B and C, and it writes the same six in order."
    )
    return Source("Sorter", about, "CBABBC", _load_sorter, most=6, usual=6)


def _hub(name: str) -> Source:
    about = "A model of GPT-2's architecture on Hugging Face's hub; it is downloaded if it is not in your cache yet."
    if name in _known():
        about = f"OpenAI's {name}, trained in 2019 on pages of the web."
    if name == "distilgpt2":
        about = "Half as deep as the smallest GPT-2, and trained by Hugging Face to do the same."
    return Source(name, about, "The best thing about mathematics is", lambda: _open(name), usual=60)


def _open(place: str | Path) -> tuple[Any, Any]:
    """Model and tokenizer of a folder, or of a name on the hub."""
    from shared.models import GPT
    from shared.models.hub import pretrained_folder
    from shared.text import load_tokenizer

    folder = pretrained_folder(place)
    return GPT.from_pretrained(folder), load_tokenizer(folder)


def _load_sorter() -> tuple[Any, Any]:
    from shared.models import load_sorter
    from shared.models.sorter import LETTERS
    from shared.text import CharVocabulary

    return load_sorter(), CharVocabulary(list(LETTERS))


def _known() -> dict[str, Any]:
    from shared.models.hub import KNOWN

    return KNOWN


def in_cache(name: str) -> bool:
    """Whether the weights of this GPT-2 lie in the user's Hugging Face cache; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    known = _known()[name]
    return isinstance(try_to_load_from_cache(known.repo, "model.safetensors", revision=known.revision), str)
