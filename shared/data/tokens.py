"""Token ids on disk, and the windows of them that a language model is trained and judged on.

A corpus is one long row of ids. It lies in a `.npy` file, two bytes an id where the vocabulary allows it, and is mapped
into memory: however long it is, only the pages that a window touches are read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np

from shared.arrays.random import Generator, default_generator
from shared.tensor import Tensor

_MAGIC = b"\x93NUMPY"
_CHUNK = 1 << 22  # ids looked at together, so that checking a long file takes little memory


class TokenStream:
    """N token ids in a row: a file that `write_tokens` wrote, mapped into memory, or any one-dimensional integers.

    `len(stream)` is N; `stream[i]` is an int, `stream[a:b]` an array of the dtype on disk, which shares the memory, and
    `stream[array]` int64 ids of the array's shape. With `vocab_size`, an id that is not below it is a ValueError, which
    reads the whole stream once. A file that is missing, foreign, truncated or of another kind is an error that names
    it and says what to do.

    >>> stream = TokenStream([5, 1, 4, 2])
    >>> len(stream), stream[1], stream[np.array([[0, 1], [2, 3]])].tolist()
    (4, 1, [[5, 1], [4, 2]])
    """

    def __init__(self, source: Any, vocab_size: int | None = None):
        self.path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        self.ids = open_tokens(self.path) if self.path is not None else as_ids(source)
        if vocab_size is not None:
            check_ids(self.ids, vocab_size, self.path or "the tokens")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.ids[index]
        if isinstance(index, np.ndarray):
            return self.ids[index].astype(np.int64)
        return int(self.ids[index])

    def __repr__(self) -> str:
        where = f" in {self.path}" if self.path else ""
        return f"TokenStream({len(self):,} ids of {self.ids.dtype.itemsize} bytes{where})"


# ---------------------------------------------------------------- windows


def random_windows(tokens: Any, batch: int, length: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """`batch` windows at places drawn evenly: (inputs, targets), two int64 Tensors (batch, length).

    targets[b, t] is the token after inputs[b, t]. A window may begin at 0 … N − length − 1, each with the same
    probability, so that its last target is still a token of the text. They are drawn from `generator`, from the
    default generator where there is none. ValueError for fewer than length + 1 tokens.

    >>> inputs, targets = random_windows([3, 1, 4, 1, 5], batch=2, length=4)
    >>> inputs.tolist(), targets.tolist()               # five tokens have one window of four
    ([[3, 1, 4, 1], [3, 1, 4, 1]], [[1, 4, 1, 5], [1, 4, 1, 5]])
    """
    stream = as_stream(tokens)
    require_length(stream, length)
    rng = (generator or default_generator("cpu")).rng
    starts = rng.integers(0, len(stream) - length, size=batch)
    return windows_at(stream, starts, length)


def sequential_windows(tokens: Any, batch: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The whole text in windows that do not overlap, in order: each token but the first is a target exactly once.

    Gives (inputs, targets), int64 Tensors (batch, length); the last batch of whole windows may have fewer, and what is
    left behind them comes as one window of its own, shorter than `length`; a text shorter than a window is that one
    alone. ValueError for fewer than two tokens.

    >>> [(x.tolist(), y.tolist()) for x, y in sequential_windows([0, 1, 2, 3, 4, 5], batch=2, length=2)]
    [([[0, 1], [2, 3]], [[1, 2], [3, 4]]), ([[4]], [[5]])]
    """
    stream = as_stream(tokens)
    require_length(stream, 1)
    predicted = len(stream) - 1
    whole = predicted // length * length  # tokens that are predicted in whole windows
    for first in range(0, whole, batch * length):
        yield windows_at(stream, np.arange(first, min(first + batch * length, whole), length), length)
    if whole < predicted:
        yield windows_at(stream, np.array([whole]), predicted - whole)


def windows_at(tokens: Any, starts: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
    """The windows of `length` tokens that begin at `starts` (B,), and those one token further: int64 (B, length) both.

    >>> inputs, targets = windows_at([3, 1, 4, 1, 5, 9], np.array([0, 2]), length=3)
    >>> inputs.tolist(), targets.tolist()
    ([[3, 1, 4], [4, 1, 5]], [[1, 4, 1], [1, 5, 9]])
    """
    places = np.asarray(starts)[:, None] + np.arange(length + 1)  # (B, length + 1)
    rows = as_stream(tokens)[places]
    return Tensor(np.ascontiguousarray(rows[:, :-1])), Tensor(np.ascontiguousarray(rows[:, 1:]))


class RandomWindows:
    """`random_windows` without end, from a generator of its own: a loader whose place can be saved and found again.

    A checkpoint takes it among its `data`: `state_dict` is the generator's state, so a training that is resumed goes on
    with the windows that would have come.

    >>> windows = RandomWindows(range(100), batch=2, length=8, seed=1)
    >>> state = windows.state_dict(); first, _ = next(windows)
    >>> windows.load_state_dict(state); again, _ = next(windows)
    >>> bool((first == again).all())
    True
    """

    def __init__(self, tokens: Any, batch: int, length: int, seed: int = 0):
        self.stream = as_stream(tokens)
        require_length(self.stream, length)
        self.batch, self.length = batch, length
        self.generator = Generator().manual_seed(seed)

    def __iter__(self) -> RandomWindows:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        return random_windows(self.stream, self.batch, self.length, self.generator)

    def state_dict(self) -> dict[str, Any]:
        """Where the generator is: {"generator": uint8 array}."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where the object that returned `state_dict` was."""
        self.generator.set_state(state_dict["generator"])


def as_stream(tokens: Any) -> TokenStream:
    """`tokens` itself where it is a TokenStream, else a TokenStream of it: a path, an array, a Tensor, a list."""
    return tokens if isinstance(tokens, TokenStream) else TokenStream(tokens)


def require_length(stream: TokenStream, length: int) -> None:
    """ValueError unless a window of `length` tokens and the one after it fit."""
    if length < 1:
        raise ValueError(f"a window should have at least one token, but got length {length}")
    if len(stream) < length + 1:
        where = f" in {stream.path}" if stream.path else ""
        raise ValueError(
            f"a window of {length} tokens and the token after it take {length + 1}, but there are {len(stream)}"
            f"{where}: use a longer text or a smaller block_size"
        )


# ---------------------------------------------------------------- the file


def write_tokens(path: str | os.PathLike, ids: Any, vocab_size: int) -> None:
    """Writes ids, integers (N,) in 0 … vocab_size − 1, to `path`, a `.npy` file, whole or not at all.

    Two bytes an id (uint16) up to 65,536 tokens, else four (uint32). ValueError for ids that do not fit, and then
    nothing is written; the file that was there before stays until the new one is complete and on the disk.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "train.npy")
    >>> write_tokens(path, [5, 1, 4, 2], vocab_size=6)
    >>> TokenStream(path)[1:3]
    array([1, 4], dtype=uint16)
    """
    path = os.fspath(path)
    if not path.endswith(".npy"):
        raise ValueError(f"tokens are kept in a .npy file, but the path is {path}")
    array = as_ids(ids)
    if array.size == 0:
        raise ValueError("there are no tokens to write")
    check_ids(array, vocab_size, "the tokens")
    array = np.ascontiguousarray(array, token_dtype(vocab_size))
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise OSError(error.errno or errno.EIO, f"cannot write the tokens: {error.strerror}", path) from error


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds vocab_size − 1.

    >>> token_dtype(50257), token_dtype(65536), token_dtype(65537)
    (dtype('uint16'), dtype('uint16'), dtype('uint32'))
    """
    if not 1 <= vocab_size <= 2**32:
        raise ValueError(f"vocab_size should be between 1 and 2**32, but got {vocab_size}")
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def open_tokens(path: str) -> np.ndarray:
    """The ids of a token file, mapped into memory, read-only. Errors name the file, what it is, and the remedy."""
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "cannot open the tokens: this is a folder, not a .npy file", path)
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, "there is no such file of tokens; write_tokens makes one", path)
    with open(path, "rb") as file:
        start = file.read(len(_MAGIC))
    if start != _MAGIC:
        reason = "is not a .npy file" if start else "is empty"
        raise ValueError(f"{path} cannot be read as tokens: it {reason}. Write it anew")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise ValueError(
            f"{path} cannot be read as tokens: it is truncated or damaged ({error}). Write it anew"
        ) from error
    if array.ndim != 1 or array.dtype not in (np.uint16, np.uint32):
        raise ValueError(
            f"{path} has {array.dtype} of shape {array.shape}, not token ids: one row of uint16 or uint32, as "
            f"write_tokens writes"
        )
    if array.offset + array.nbytes != os.path.getsize(path):
        raise ValueError(f"{path} has bytes behind its {len(array)} ids: it was damaged. Write it anew")
    return np.asarray(array)  # the same memory, without the subclass, whose indexing is slower


def as_ids(ids: Any) -> np.ndarray:
    """Integers (N,) as an array, without a copy where they are one; ValueError for another shape or kind."""
    if isinstance(ids, Tensor):
        ids = ids.numpy(force=True)
    array = np.asarray(ids)
    if array.size == 0:
        array = array.astype(np.uint16)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"tokens should be integers in one row, but got {array.dtype} of shape {array.shape}")
    return array


def check_ids(ids: np.ndarray, vocab_size: int, name: str) -> None:
    """ValueError that names the first id outside 0 … vocab_size − 1, and its place."""
    for first in range(0, len(ids), _CHUNK):
        chunk = np.asarray(ids[first : first + _CHUNK])
        wrong = (chunk < 0) | (chunk >= vocab_size)
        if wrong.any():
            place = int(wrong.argmax())
            raise ValueError(
                f"{name}: id {chunk[place]} at place {first + place} is not among the {vocab_size} of the vocabulary, "
                f"0 … {vocab_size - 1}: was the text encoded by another tokenizer?"
            )
