"""Vocabularies: which tokens there are, and the id of each."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

PAD, UNK, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"

_FORMAT = "shared.text vocabulary"
_VERSION = 1
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def split_words(text: str) -> list[str]:
    """The words and marks of a text, in order; the white space between them is lost.

    A word is a run of letters, digits and underscores, apostrophes between two of them included. Any other character
    that is no white space is a token by itself. (So are the combining marks of some scripts, for which this rule is
    too simple.)

    >>> split_words("Don't panic -- it's 3.5 o'clock.")
    ["Don't", 'panic', '-', '-', "it's", '3', '.', '5', "o'clock", '.']
    """
    return _WORD.findall(text)


def keep_frequent(counts: Mapping[str, int], min_freq: int = 1, max_size: int | None = None) -> list[str]:
    """The tokens that occur at least `min_freq` times, the most frequent first, at most `max_size` of them.

    `counts` says how often each token occurs; `max_size=None` sets no limit. Tokens that occur equally often are in the
    order of their code points (as `sorted` has it), so that the result does not depend on the order of the text.
    ValueError where min_freq < 1 or max_size < 0.

    >>> keep_frequent({"b": 2, "c": 1, "a": 2, "d": 5}, min_freq=2, max_size=2)
    ['d', 'a']
    """
    if min_freq < 1 or (max_size is not None and max_size < 0):
        raise ValueError(
            f"keep_frequent: expected min_freq of at least 1 and max_size of at least 0, but got {min_freq=}, "
            f"{max_size=}"
        )
    kept = [token for token, count in counts.items() if count >= min_freq]
    kept.sort(key=lambda token: (-counts[token], token))
    return kept[:max_size]


class Vocabulary:
    """What character and word vocabularies share: the special tokens first, then the others; an id is a place.

    - `itos`: list of all tokens, `itos[id]` is a token; `stoi`: {token: id}, the special ones included
    - `specials`: the special tokens, a tuple; `pad_id`, `unk_id`, `bos_id`, `eos_id`: the ids of "<pad>", "<unk>",
      "<bos>" and "<eos>", None for one that is not among the specials
    - `text_ids`: {token: id} without the special ones: what text can become

    Special tokens never come out of text: a text in which "<pad>" is written is encoded like any other text in which an
    unknown token stands. An unknown token becomes "<unk>" where that is among the specials, else it is an error.
    `len(vocabulary)` is the number of tokens, `vocabulary[token]` the id, `token in vocabulary` works.
    """

    def __init__(self, tokens: Sequence[str], specials: Sequence[str] = ()):
        self.specials = tuple(specials)
        self.itos = [*self.specials, *tokens]
        for i, token in enumerate(self.itos):
            if not isinstance(token, str) or not token:
                raise ValueError(
                    f"{self.kind}: expected tokens that are strings, not empty, but number {i} is {token!r}"
                )
        self.stoi = {token: i for i, token in enumerate(self.itos)}
        if len(self.stoi) < len(self.itos):
            twice = [token for token, count in Counter(self.itos).items() if count > 1]
            raise ValueError(f"{self.kind}: every token must be there once, but these come more often: {twice[:5]}")
        self.text_ids = {token: i for token, i in self.stoi.items() if i >= len(self.specials)}
        self.pad_id, self.unk_id, self.bos_id, self.eos_id = [
            self.stoi[name] if name in self.specials else None for name in (PAD, UNK, BOS, EOS)
        ]

    @property
    def kind(self) -> str:
        """The name of the class, for messages and files."""
        return type(self).__name__

    def options(self) -> dict[str, Any]:
        """What a file has to say besides the tokens: the further arguments of `__init__`."""
        return {}

    def split(self, text: str) -> list[str]:
        """The tokens of a text."""
        raise NotImplementedError(f"{self.kind} must write split(self, text)")

    def join(self, tokens: Iterable[str]) -> str:
        """The text of some tokens."""
        raise NotImplementedError(f"{self.kind} must write join(self, tokens)")

    # ---------------------------------------------------------------- text to ids and back

    def encode(self, text: str | Sequence[str]) -> list[int]:
        """The ids of the tokens of `text`, one for each: of `self.split(text)`, or of a list of tokens as it is.

        The id of a token is the one in `self.text_ids`; a token that is not there becomes `self.unk_id`. Where that is
        None, ValueError names the first such token: `self._refuse(tokens, place)` raises it.
        """
        tokens = self.split(text) if isinstance(text, str) else text
        ids = [self.text_ids.get(token, self.unk_id) for token in tokens]
        if None in ids:
            self._refuse(tokens, ids.index(None))
        return ids

    def _refuse(self, tokens: Sequence[str], place: int) -> None:
        raise ValueError(
            f"{self.kind}: token {tokens[place]!r}, number {place} of this text, is not among the {len(self.text_ids)} "
            f"that text can have here. A vocabulary with {UNK!r} among its specials takes unknown tokens"
        )

    def decode(self, ids: Any, skip_specials: bool = False) -> str:
        """The text of `ids`, a sequence, array or Tensor (T,) of integers; without special tokens if `skip_specials`.

        `self._integers(ids)` makes a list of them (TypeError for what is not a row of integers), `self.itos` has the
        token of each, the special ones first, and `self.join` makes a text of tokens. IndexError for an id that is not
        in 0 … len(self) − 1: negative ones do not count from the end.
        """
        tokens = []
        for i in self._integers(ids):
            if not 0 <= i < len(self.itos):
                raise IndexError(f"{self.kind}: id {i} is not in 0 … {len(self) - 1}")
            if not (skip_specials and i < len(self.specials)):
                tokens.append(self.itos[i])
        return self.join(tokens)

    def _integers(self, ids: Any) -> list[int]:
        values = ids.tolist() if hasattr(ids, "tolist") else ids
        try:
            return [operator.index(i) for i in values]
        except TypeError:
            shape = f" of shape {tuple(ids.shape)}" if hasattr(ids, "shape") else ""
            raise TypeError(
                f"{self.kind}: expected a row of integers to decode, but got {type(ids).__name__}{shape}"
            ) from None

    # ---------------------------------------------------------------- a container of tokens

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, the special ones included: what a language model needs to know."""
        return len(self.itos)

    def __len__(self) -> int:
        return len(self.itos)

    def __contains__(self, token: object) -> bool:
        return token in self.stoi

    def __getitem__(self, token: str) -> int:
        if token not in self.stoi:
            raise KeyError(f"{token!r} is not among the {len(self)} tokens of this {self.kind}")
        return self.stoi[token]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._contents() == other._contents()

    def __repr__(self) -> str:
        special = f", {len(self.specials)} of them special" if self.specials else ""
        return f"{self.kind}({len(self)} tokens{special})"

    # ---------------------------------------------------------------- files

    def _contents(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "kind": self.kind,
            "options": self.options(),
            "specials": list(self.specials),
            "tokens": self.itos[len(self.specials) :],
        }

    def save(self, path: str | os.PathLike) -> None:
        """Writes the vocabulary as JSON; a file that was there is replaced at the end, or stays as it was."""
        path = Path(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"cannot save {path}: there is no folder {path.parent}; make it first")
        text = json.dumps(self._contents(), ensure_ascii=False, indent=1)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            # Half of a surrogate pair is a character to Python, though not to UTF-8.
            temporary.write_bytes(text.encode("utf-8", "surrogatepass"))
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """The vocabulary that `save` wrote to `path`; `Vocabulary.load` takes every kind, a subclass its own.

        ValueError names the file and what is wrong with it: no JSON (truncated, say), not a vocabulary, of another kind
        or a later version, or with contents that no vocabulary can have.
        """
        try:
            contents = json.loads(Path(path).read_bytes().decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a vocabulary: not valid JSON ({error})") from None
        if not isinstance(contents, dict) or contents.get("format") != _FORMAT:
            raise ValueError(f"{path} is JSON, but no vocabulary: it has no entry 'format': {_FORMAT!r}")
        if contents.get("version") != _VERSION:
            raise ValueError(
                f"{path} has version {contents.get('version')!r} of the format; this program reads version {_VERSION}"
            )
        kind = (_KINDS | {cls.__name__: cls}).get(str(contents.get("kind")))
        if kind is None or not issubclass(kind, cls):
            raise ValueError(f"{path} holds a {contents.get('kind')!r}, but a {cls.__name__} was expected")
        try:
            for name in ("tokens", "specials"):
                if not isinstance(contents[name], list):
                    raise TypeError(f"expected a list of {name}, but got {type(contents[name]).__name__}")
            return kind(contents["tokens"], contents["specials"], **contents["options"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is a damaged vocabulary: {type(error).__name__}: {error}") from None


class CharVocabulary(Vocabulary):
    """One id per character (Unicode code point); `decode(encode(text)) == text` for every text of known characters.

    >>> vocabulary = CharVocabulary.from_text("hello")
    >>> vocabulary.itos, vocabulary.encode("hell"), vocabulary.decode([1, 0, 2, 3])
    (['e', 'h', 'l', 'o'], [1, 0, 2, 2], 'helo')
    """

    def __init__(self, tokens: Sequence[str], specials: Sequence[str] = ()):
        super().__init__(tokens, specials)
        for token in self.text_ids:
            if len(token) != 1:
                raise ValueError(f"CharVocabulary: expected single characters, but got {token!r}")

    @classmethod
    def from_text(
        cls,
        text: str | Iterable[str],
        min_freq: int = 1,
        max_size: int | None = None,
        specials: Sequence[str] = (),
    ) -> Self:
        """The characters of one text or of several, in the order of their code points, after the `specials`.

        Left out are those that occur less than `min_freq` times, and the rarest where there would be more than
        `max_size` tokens, specials included.
        """
        counts = _count(list, text, specials)
        return cls(sorted(keep_frequent(counts, min_freq, _room(max_size, specials))), specials)

    def split(self, text: str) -> list[str]:
        """The characters."""
        return list(text)

    def join(self, tokens: Iterable[str]) -> str:
        """One after the other."""
        return "".join(tokens)


class WordVocabulary(Vocabulary):
    """One id per word; what is unknown becomes "<unk>", unless that is left out of the specials.

    How text is split: `splitter="words"` by `split_words`; "spaces" at white space only, for text whose tokens are
    set apart already (WikiText). `lower` makes everything lower case first. `decode` joins with single spaces.

    >>> vocabulary = WordVocabulary.from_text("the cat saw the dog")
    >>> vocabulary.itos, vocabulary.encode("the bird"), vocabulary.decode([1, 3])
    (['<unk>', 'the', 'cat', 'dog', 'saw'], [1, 0], 'the dog')
    """

    def __init__(
        self,
        tokens: Sequence[str],
        specials: Sequence[str] = (UNK,),
        splitter: str = "words",
        lower: bool = False,
    ):
        if splitter not in ("words", "spaces"):
            raise ValueError(f"WordVocabulary: expected splitter to be 'words' or 'spaces', but got {splitter!r}")
        super().__init__(tokens, specials)
        self.splitter, self.lower = splitter, lower

    @classmethod
    def from_text(
        cls,
        text: str | Iterable[str],
        min_freq: int = 1,
        max_size: int | None = None,
        specials: Sequence[str] = (UNK,),
        splitter: str = "words",
        lower: bool = False,
    ) -> Self:
        """The words of one text or of several, the most frequent first, after the `specials`.

        Left out are those that occur less than `min_freq` times, and the rarest where there would be more than
        `max_size` tokens, specials included.
        """
        empty = cls((), specials, splitter, lower)
        counts = _count(empty.split, text, specials)
        return cls(keep_frequent(counts, min_freq, _room(max_size, specials)), specials, splitter, lower)

    def options(self) -> dict[str, Any]:
        return {"splitter": self.splitter, "lower": self.lower}

    def split(self, text: str) -> list[str]:
        """The words, as `splitter` and `lower` say."""
        text = text.lower() if self.lower else text
        return split_words(text) if self.splitter == "words" else text.split()

    def join(self, tokens: Iterable[str]) -> str:
        """With a space between each two."""
        return " ".join(tokens)


_KINDS: dict[str, type[Vocabulary]] = {kind.__name__: kind for kind in (CharVocabulary, WordVocabulary)}


def _count(split: Any, text: str | Iterable[str], specials: Sequence[str]) -> Counter[str]:
    """How often each token occurs; what looks like a special token is not counted, since text cannot have it."""
    counts: Counter[str] = Counter()
    for part in [text] if isinstance(text, str) else text:
        if not isinstance(part, str):
            raise TypeError(
                f"expected a string, or several of them, to build a vocabulary, but got {type(part).__name__}"
            )
        counts.update(split(part))
    for token in specials:
        counts.pop(token, None)
    return counts


def _room(max_size: int | None, specials: Sequence[str]) -> int | None:
    """How many tokens fit beside the specials."""
    if max_size is not None and max_size < len(specials):
        raise ValueError(f"max_size={max_size} leaves no room for the {len(specials)} special tokens {list(specials)}")
    return None if max_size is None else max_size - len(specials)
