"""Byte-level byte-pair encoding, GPT-2's tokenizer: every text is bytes, and bytes that often come together are tokens.

tokenizer = shared.text.ByteLevelBPE.train(text, vocab_size=1000)      # or .gpt2(), or .load(folder)
ids = tokenizer.encode("To be, or not to be")
tokenizer.decode(ids)                                                   # the same text, whatever was in it
tokenizer.fast().encode(long_text).ids                                  # the same ids from the `tokenizers` library

The steps are functions of their own: pretokenize.py cuts a text into pieces, byte_pairs.py learns and makes merges.

Source: Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.2.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from shared.text.byte_pairs import Pair, apply_merges, apply_merges_to_long, train_merges
from shared.text.pretokenize import byte_ids, bytes_to_unicode, split_pieces

END_OF_TEXT = "<|endoftext|>"
VOCAB_FILE, MERGES_FILE = "vocab.json", "merges.txt"

_FIRST_LINE = "#version: 0.2"
_LONG = 256  # bytes in a piece from which the queue is worth its overhead
_CACHE = 100_000  # pieces


class ByteLevelBPE:
    """A byte-level BPE tokenizer: `decode(encode(text)) == text` for every text, in any language and script.

    - ids 0 … 255 are the single bytes, in the order of `bytes_to_unicode`; then comes one token for each merge, in
      the order in which they were learned; then the special tokens, at the end
    - `merges`: {(first, second): id}; `tokens`: list of the bytes of each token; `special_tokens`: {name: id}

    Special tokens never come out of text: "<|endoftext|>" written in it is encoded as the thirteen characters it is,
    unless `encode` is told otherwise. So that no merges can ever make one, a special token must be a string of several
    pieces (`split_pieces`), like <|name|>, <name> or [NAME], and not look like a token in a file ("Ġ10"): ValueError
    for another.

    >>> tokenizer = ByteLevelBPE.train("low lower lowest, slow slower slowest", vocab_size=262)
    >>> tokenizer.tokens[256:]
    [b'lo', b'low', b'lowe', b' s', b'st', b'<|endoftext|>']
    >>> ids = tokenizer.encode("slowest ☕")
    >>> [tokenizer.tokens[i] for i in ids]
    [b's', b'lowe', b'st', b' ', b'\\xe2', b'\\x98', b'\\x95']
    >>> tokenizer.decode(ids)
    'slowest ☕'
    """

    def __init__(self, merges: Iterable[Pair], special_tokens: Sequence[str] = (END_OF_TEXT,)):
        self.tokens = [bytes([byte]) for byte in bytes_to_unicode()]
        self.merges: dict[Pair, int] = {}
        for first, second in merges:
            new_id = len(self.tokens)
            if not (0 <= first < new_id and 0 <= second < new_id) or (first, second) in self.merges:
                raise ValueError(
                    f"{self.kind}: merge number {len(self.merges)} is ({first}, {second}): expected two ids in "
                    f"0 … {new_id - 1}, and no pair twice"
                )
            self.merges[first, second] = new_id
            self.tokens.append(self.tokens[first] + self.tokens[second])
        self.special_tokens: dict[str, int] = {}
        for name in special_tokens:
            self._add_special(name)
        self._cache: dict[str, list[int]] = {}
        if len(set(self.tokens)) < len(self.tokens):
            twice = [token for token, count in Counter(self.tokens).items() if count > 1]
            raise ValueError(f"{self.kind}: every token must be there once, but these come more often: {twice[:5]}")

    def _add_special(self, name: str) -> None:
        if _could_be_merged(name):
            raise ValueError(
                f"{self.kind}: {name!r} cannot be a special token, since merges could make a token that is spelled so; "
                f"they never make one like '<|name|>'"
            )
        self.special_tokens[name] = len(self.tokens)
        self.tokens.append(name.encode("utf-8"))

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        fast: bool = False,
    ) -> Self:
        """The tokenizer that one text, or several, give rise to: 256 bytes, `special_tokens`, the rest merges.

        `vocab_size` counts them all; a short text, in which no pair is left to merge, gives fewer tokens. With `fast`
        the `tokenizers` library learns the merges, the same ones (where it cuts the text into the same pieces).
        ValueError where vocab_size leaves no room for the bytes and the special tokens.
        """
        num_merges = vocab_size - 256 - len(special_tokens)
        if num_merges < 0:
            raise ValueError(
                f"{cls.__name__}: vocab_size={vocab_size} leaves no room for 256 bytes and {len(special_tokens)} "
                f"special tokens"
            )
        cls((), special_tokens)  # complains about these before the work, not after
        texts = [text] if isinstance(text, str) else text
        if fast:
            return cls(_train_fast(texts, num_merges), special_tokens)
        pieces: Counter[str] = Counter()
        for part in texts:
            pieces.update(split_pieces(part))
        return cls(train_merges(pieces, num_merges), special_tokens)

    @classmethod
    def gpt2(cls, progress: bool = True) -> Self:
        """GPT-2's own vocabulary of 50,257 tokens, "<|endoftext|>" the last: the data set "gpt2-bpe" of the catalog.

        Fetched where it is not here yet (1.5 MB); DatasetUnavailable where it cannot be had.
        """
        from shared.data import catalog

        paths = catalog.fetch("gpt2-bpe", progress)
        return cls._read(paths["encoder.json"], paths["vocab.bpe"])

    @property
    def kind(self) -> str:
        """The name of the class, for messages."""
        return type(self).__name__

    @property
    def vocab_size(self) -> int:
        """How many tokens there are: bytes, merges and special tokens."""
        return len(self.tokens)

    # ------------------------------------------------------------ text to ids and back

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """The ids of `text`, none of them special.

        With `allowed_special`, a set of special tokens or "all", these become their own ids where the text has them.
        ValueError for a name that is no special token here; TypeError and ValueError for texts as in `split_pieces`.

        `_allowed(names)` is {name: id} of those names, and `_encode_ordinary(text)` the ids of a text, piece by piece,
        whatever it has in it. Special tokens are found from left to right, each behind the one before; where
        two begin at one place the longer is meant.

        >>> tokenizer = ByteLevelBPE([])
        >>> len(tokenizer.encode("<|endoftext|>")), tokenizer.encode("!<|endoftext|>", {"<|endoftext|>"})
        (13, [0, 256])
        """
        special = self._allowed(allowed_special)
        if not special:
            return self._encode_ordinary(text)
        names = sorted(special, key=len, reverse=True)  # of two that begin alike the longer
        ids: list[int] = []
        for i, part in enumerate(re.split(f"({'|'.join(map(re.escape, names))})", text)):
            ids += [special[part]] if i % 2 else self._encode_ordinary(part)
        return ids

    def _allowed(self, names: Collection[str]) -> dict[str, int]:
        if isinstance(names, str):
            if names == "all":
                return self.special_tokens
            raise TypeError(f"{self.kind}: allowed_special should be 'all' or a set of names, but got {names!r}")
        for name in names:
            if name not in self.special_tokens:
                raise ValueError(f"{self.kind}: {name!r} is no special token; there are {list(self.special_tokens)}")
        return {name: self.special_tokens[name] for name in names}

    def _encode_ordinary(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in split_pieces(text):
            known = self._cache.get(piece)
            if known is None:
                if len(self._cache) >= _CACHE:
                    self._cache.clear()
                known = self._cache[piece] = self.encode_piece(piece)
            ids += known
        return ids

    def encode_piece(self, piece: str) -> list[int]:
        """The ids of one piece of text: of its bytes in UTF-8 (`byte_ids`), then merged, by `self.merges`.

        `apply_merges_to_long` merges as `apply_merges` does; it is there for pieces of many bytes.

        >>> ByteLevelBPE([(66, 68)]).encode_piece("cede")   # "c" is 66, "e" is 68
        [256, 67, 68]
        """
        ids = byte_ids(piece)
        return (apply_merges if len(ids) < _LONG else apply_merges_to_long)(ids, self.merges)

    def decode(self, ids: Any, skip_specials: bool = False) -> str:
        """The text of `ids`, a sequence, array or Tensor (T,) of integers; without special tokens if `skip_specials`.

        Bytes that are no UTF-8, such as those of half a character, become "\\ufffd" as in GPT-2. IndexError names an id
        that is not in 0 … vocab_size − 1; TypeError for what is not a row of integers.
        """
        return self.decode_bytes(ids, skip_specials).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Any, skip_specials: bool = False) -> bytes:
        """The bytes of `ids`, one token's after the other's: for a text that arrives token by token.

        `_integers(ids)` makes a list of integers of what `decode` takes, or raises its TypeError. `skip_specials` and
        errors as there; an id that is none is an IndexError also where special tokens are left out.

        >>> import codecs
        >>> tokenizer, text = ByteLevelBPE([]), codecs.getincrementaldecoder("utf-8")("replace")
        >>> [text.decode(tokenizer.decode_bytes([i])) for i in tokenizer.encode("né")]
        ['n', '', 'é']
        """
        parts = []
        for i in self._integers(ids):
            if not 0 <= i < len(self.tokens):
                raise IndexError(f"{self.kind}: id {i} is not in 0 … {len(self.tokens) - 1}")
            if not (skip_specials and i >= len(self.tokens) - len(self.special_tokens)):
                parts.append(self.tokens[i])
        return b"".join(parts)

    def _integers(self, ids: Any) -> list[int]:
        values = ids.tolist() if hasattr(ids, "tolist") else ids
        try:
            return [operator.index(i) for i in values]
        except TypeError:
            shape = f" of shape {tuple(ids.shape)}" if hasattr(ids, "shape") else ""
            raise TypeError(
                f"{self.kind}: expected a row of integers to decode, but got {type(ids).__name__}{shape}"
            ) from None

    # ------------------------------------------------------------ the vocabulary, for files and for `tokenizers`

    def vocabulary(self) -> dict[str, int]:
        """{spelling: id} of all tokens in the order of their ids, bytes spelled by `bytes_to_unicode`.

        >>> list(ByteLevelBPE([(220, 83)]).vocabulary().items())[-2:]
        [('Ġt', 256), ('<|endoftext|>', 257)]
        """
        table = bytes_to_unicode()
        ordinary = self.tokens[: len(self.tokens) - len(self.special_tokens)]
        return {"".join(table[byte] for byte in token): i for i, token in enumerate(ordinary)} | self.special_tokens

    def spelled_merges(self) -> list[tuple[str, str]]:
        """The merges in order, each as the spellings of its two tokens."""
        spellings = list(self.vocabulary())
        return [(spellings[first], spellings[second]) for first, second in self.merges]

    def fast(self) -> Any:
        """A `tokenizers.Tokenizer` with the same ids, compiled: `.encode(text).ids`, `.encode_batch(texts)`.

        There too special tokens never come out of text; set its `encode_special_tokens` to False to let them.
        Its `decode` leaves special tokens out unless it is called with `skip_special_tokens=False`.
        """
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        fast = Tokenizer(models.BPE(vocab=self.vocabulary(), merges=self.spelled_merges()))
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        fast.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in self.special_tokens])
        fast.encode_special_tokens = True
        return fast

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByteLevelBPE) and self._contents() == other._contents()

    def _contents(self) -> tuple[list[Pair], list[str]]:
        return list(self.merges), list(self.special_tokens)

    def __repr__(self) -> str:
        return (
            f"{self.kind}({len(self)} tokens: 256 bytes, {len(self.merges)} merges, {len(self.special_tokens)} special)"
        )

    # ------------------------------------------------------------ files

    def save(self, folder: str | os.PathLike) -> None:
        """Writes vocab.json and merges.txt into `folder`, made if need be: GPT-2's format, which `transformers` reads.

        FileExistsError where another tokenizer's files are there: models trained with that would become unreadable.
        Nothing is changed then, nor where the disk is full; to save the same tokenizer again does nothing.
        """
        merges = "".join(f"{first} {second}\n" for first, second in self.spelled_merges())
        _write_new(
            Path(folder),
            {
                MERGES_FILE: f"{_FIRST_LINE}\n{merges}".encode(),
                VOCAB_FILE: json.dumps(self.vocabulary(), ensure_ascii=False).encode(),
            },
        )

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Self:
        """The tokenizer in `folder`, from its vocab.json and merges.txt.

        Ids must be as in GPT-2: bytes, then merges in order, then special tokens; what no merge makes is a special
        token. FileNotFoundError where a file is missing; ValueError names a file that is damaged, does not belong to
        the other, or is of another kind.
        """
        paths = [Path(folder) / name for name in (VOCAB_FILE, MERGES_FILE)]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} has no {' and no '.join(missing)}: {cls.__name__}.save writes both")
        return cls._read(*paths)

    @classmethod
    def _read(cls, vocab_path: Path, merges_path: Path) -> Self:
        merges, ids = _read_merges(merges_path)
        vocab = _read_vocab(vocab_path)
        for (token, i), expected in zip(vocab.items(), ids, strict=False):
            if token != expected:
                raise ValueError(
                    f"{vocab_path} does not belong to {merges_path}, or one of them is damaged: id {i} is {token!r} in "
                    f"the first, but {expected!r} by the second, in the order of GPT-2 (bytes, merges, special tokens)"
                )
        if len(vocab) < len(ids):
            raise ValueError(f"{vocab_path} has {len(vocab)} tokens, but {merges_path} makes {len(ids)}")
        special = list(vocab)[len(ids) :]
        try:
            return cls(merges, special)
        except ValueError as error:
            raise ValueError(
                f"{vocab_path} has {len(special)} tokens that no merge in {merges_path} makes, which may be truncated "
                f"(were they special tokens: {error})"
            ) from None


def _could_be_merged(name: str) -> bool:
    """Whether a token that is spelled so in a file could come of merges: as part of a piece, or of a character."""
    if len(split_pieces(name)) < 2:
        return True
    table = {character: byte for byte, character in bytes_to_unicode().items()}
    if not all(character in table for character in name):
        return False
    try:
        return len(split_pieces(bytes(table[character] for character in name).decode("utf-8"))) < 2
    except UnicodeDecodeError:
        return True


def _train_fast(texts: Iterable[str], num_merges: int) -> list[Pair]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=256 + num_merges, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(texts, trainer)
    model = json.loads(fast.to_str())["model"]
    return [(model["vocab"][first], model["vocab"][second]) for first, second in model["merges"]]


def _read_merges(path: Path) -> tuple[list[Pair], dict[str, int]]:
    """The merges in a file, and {spelling: id} of the bytes and of what the merges make."""
    ids = {character: i for i, character in enumerate(bytes_to_unicode().values())}
    lines = _read_text(path).removesuffix("\n").split("\n")
    merges = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#version") and number == 1:
            continue
        first, _, second = line.removesuffix("\r").partition(" ")
        if first not in ids or second not in ids or first + second in ids:
            raise ValueError(
                f"{path} is damaged, or no list of merges: line {number}, {line[:60]!r}, should have two tokens, each "
                f"a byte or made before, that make a new one"
            )
        merges.append((ids[first], ids[second]))
        ids[first + second] = len(ids)
    return merges, ids


def _read_vocab(path: Path) -> dict[str, int]:
    """{spelling: id} in the order of the ids, which are 0, 1, 2, …"""
    try:
        vocab = json.loads(_read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no vocabulary: not valid JSON ({error})") from None
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise ValueError(f"{path} is JSON, but no vocabulary: expected an object of tokens and their ids")
    vocab = dict(sorted(vocab.items(), key=operator.itemgetter(1)))
    if list(vocab.values()) != list(range(len(vocab))):
        raise ValueError(f"{path} is no vocabulary: the ids of its {len(vocab)} tokens are not 0 … {len(vocab) - 1}")
    return vocab


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged, or no text: {error}") from None


def _write_new(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files that are not there yet; each gets its name when all are complete and on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {}
    for name, content in files.items():
        path = folder / name
        if not path.exists():
            wanted[path.with_name(f".{name}.{secrets.token_hex(4)}.tmp")] = path, content
        elif path.read_bytes() != content:
            raise FileExistsError(
                f"{folder} holds another tokenizer: its {name} differs. A model saved beside it needs that one; choose "
                f"another folder, or remove its {' and '.join(files)} first"
            )
    try:
        for temporary, (_, content) in wanted.items():
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for temporary, (path, _) in wanted.items():
            os.replace(temporary, path)
    except BaseException:
        for temporary in wanted:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise
