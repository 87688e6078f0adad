"""A safetensors file as arrays that are views of the file, and back, one tensor at a time: no second copy in memory.

The format: eight bytes with the length of the header, the header (JSON: of each tensor its dtype, shape and place), and
the tensors. Source: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from io import FileIO
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from shared import checkpoint
from shared.arrays import dtypes
from shared.checkpoint import CheckpointError

ALIGNMENT = 64  # bytes: a line of the processor's cache, and one vector of AVX-512
_DTYPES = {
    short: dtypes.bfloat16 if name == "bfloat16" else np.dtype(name) for name, short in checkpoint._FORMAT_NAMES.items()
}


class Place(NamedTuple):
    """Where a tensor lies in a file, and as what: its first byte is number `start` of the file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape) * self.dtype.itemsize

    @property
    def aligned(self) -> bool:
        """Whether a processor may read its numbers where they are: at a multiple of their size."""
        return self.start % self.dtype.itemsize == 0


def read_places(path: str | os.PathLike) -> dict[str, Place]:
    """The header of a safetensors file: {name: Place}, in the order of the file. The tensors are not read.

    FileNotFoundError where there is no file, CheckpointError for one that is truncated, damaged or of another kind, or
    has a dtype that the library does not: the places must follow one another without a gap, from the header's end to
    the end of the file.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "cannot load: this is a folder, not a file", os.fspath(path))
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, "cannot load: there is no such file", os.fspath(path))
    with open(path, "rb") as file:
        beginning = file.read(64)
        file.seek(0)
        try:
            return _places(file, os.fspath(path))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as error:
            problem = checkpoint._diagnose(beginning, error)
            raise CheckpointError(f"cannot load {os.fspath(path)}: {problem}") from error


def _places(file: BinaryIO, path: str) -> dict[str, Place]:
    size = os.fstat(file.fileno()).st_size
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(checkpoint._HEADER_LIMIT, size - 8):
        raise ValueError(f"its header should be {length} bytes long, and the file has {size}")
    header = json.loads(file.read(length).decode("utf-8"))
    first = end = 8 + length
    found = {}
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(
                f"cannot load {path}: {name} has the dtype {entry['dtype']}; those that are read are "
                f"{', '.join(_DTYPES)}"
            )
        begin, stop = entry["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in (*entry["shape"], begin, stop)):
            raise ValueError(f"{name} has the shape {entry['shape']} and lies at {entry['data_offsets']}")
        place = Place(_DTYPES[entry["dtype"]], tuple(entry["shape"]), first + begin)
        if place.start != end or place.stop != first + stop:
            raise ValueError(f"{name} does not lie where the header says")
        found[name], end = place, place.stop
    if end != size:
        raise ValueError(f"its tensors end at byte {end}, and the file has {size}")
    return found


def map_tensors(
    path: str | os.PathLike, wanted: Callable[[str], bool] | None = None, mapped: bool = True
) -> dict[str, np.ndarray]:
    """{name: array} of a safetensors file, views of its bytes: they reach memory when they are first looked at.

    The file is mapped "copy on write": where a number is changed, its page (4,096 bytes) becomes the process's own and
    the file stays as it is. Processes that look at one file share its memory. The file must not be cut or written over
    while arrays are in use; replacing it by another is no harm (on Windows it cannot be replaced meanwhile).
    A tensor that lies at an odd address is read into memory of its own instead, once. (That is so for GPT-2 itself: the
    header of openai-community/gpt2 is 14,283 bytes long, so all its numbers lie 3 bytes off a multiple of four.) With
    `mapped=False` all are: that takes the time of reading, and then the processor finds them in larger pages.
    Only names for which `wanted` is true, all without it. Errors are those of `read_places`.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "one.safetensors"
    >>> write_tensors(path, {"w": np.eye(2, dtype=np.float32)})
    >>> w = map_tensors(path)["w"]
    >>> w += 1                                  # in memory; the file still has 1 and 0
    >>> w.tolist(), map_tensors(path)["w"].tolist()
    ([[2.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]])
    """
    places = {name: place for name, place in read_places(path).items() if wanted is None or wanted(name)}
    with open(path, "rb", buffering=0) as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return {
            name: _view(content, place) if mapped and place.aligned else _read(file, place, name, path)
            for name, place in places.items()
        }


def _view(content: mmap.mmap, place: Place) -> np.ndarray:
    """The array at `place`, which keeps the map open for as long as there is a view of it."""
    if place.start == place.stop:
        return np.empty(place.shape, place.dtype)
    return np.frombuffer(content, place.dtype, math.prod(place.shape), place.start).reshape(place.shape)


def _read(file: FileIO, place: Place, name: str, path: str | os.PathLike) -> np.ndarray:
    """The array at `place`, read into memory of its own. One call reads at most 2 GB, so there may be several."""
    array = np.empty(place.shape, place.dtype)
    rest = memoryview(array.reshape(-1).view(np.uint8))
    file.seek(place.start)
    while rest:
        count = file.readinto(rest)
        if not count:
            raise CheckpointError(f"cannot load {os.fspath(path)}: it ends in the middle of {name}")
        rest = rest[count:]
    return array


def write_tensors(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file, which is on the disk when this returns; the same arrays give the same bytes.

    Tensors are written one after the other, in the order of the names, those of wider dtypes first: only one that is
    not in rows (a transposed view) is copied, and only for as long as it is written. The first lies at a multiple of 64
    bytes, so that `map_tensors` finds all numbers well placed. An existing file is written over; it is not touched
    where an array has a dtype that the format does not, a CheckpointError.
    """
    for name, array in arrays.items():
        if array.dtype.name not in checkpoint._FORMAT_NAMES:
            raise CheckpointError(f"cannot save {os.fspath(path)}: {name} has the dtype {array.dtype.name}")
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header = _header({name: arrays[name] for name in order}, metadata or {"format": "pt"})
    with open(path, "wb") as file:
        file.write(header)
        for name in order:
            rows = np.ascontiguousarray(arrays[name], dtype=arrays[name].dtype.newbyteorder("<"))
            file.write(memoryview(rows.reshape(-1).view(np.uint8)))
        file.flush()
        os.fsync(file.fileno())


def _header(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, filled up with spaces to a multiple of ALIGNMENT."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        kind = checkpoint._FORMAT_NAMES[array.dtype.name]
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
