"""`save` and `load`: nested state in one safetensors file, written whole or not at all, and read without pickle.

The Tensors and arrays of the structure are the file's tensors, under names made from their place
("model.layer.weight"), so that any safetensors reader can open them; everything else is JSON in the header.
Source: the safetensors format, https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import os
import secrets
import struct
import time
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from shared.arrays import dtypes
from shared.arrays.device import Device, cuda_is_available, to_device
from shared.nn.parameter import Buffer, Parameter
from shared.tensor import Tensor

_KEY, _CHECKSUM = "shared.structure", "shared.crc32"  # in the header's metadata
_HEADER_LIMIT = 100_000_000  # bytes; readers refuse more
_DEPTH_LIMIT = 200
ABANDONED_AFTER = 60  # seconds without a write before another save may remove a temporary file
_FORMAT_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "complex64": "C64",
    "bool": "BOOL",
} | {f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}


class CheckpointError(RuntimeError):
    """A value that cannot be saved, or a file that cannot be loaded."""


def save(obj: Any, path: str | os.PathLike | BinaryIO) -> None:
    """Writes `obj` to `path`: dicts, lists and tuples of Tensors, Parameters, arrays, numbers, strings and None.

    The file appears under its name only when it is complete and on the disk; a save that fails or is killed leaves
    the old one as it was. Tensors that share all of their memory (tied weights) are written once and come
    back tied. `path` may be an open binary file as well, which is written to directly.

    >>> import io, shared
    >>> file = io.BytesIO()
    >>> save({"step": 3, "weights": [shared.ones(2), shared.zeros(1, dtype=shared.long)]}, file)
    >>> load(file)
    {'step': 3, 'weights': [tensor([1., 1.]), tensor([0])]}
    """
    encoder = _Encoder()
    structure = json.dumps(encoder.encode(obj, "state", ""), separators=(",", ":"))
    arrays = dict(sorted(encoder.arrays.items(), key=lambda item: -item[1].dtype.itemsize))  # keeps all aligned
    metadata = {_KEY: structure, _CHECKSUM: f"{_checksum(structure, arrays):08x}"}
    header = _header(arrays, metadata)
    if hasattr(path, "write"):
        _write(path, header, arrays)
        return
    path = os.path.realpath(os.fspath(path))  # through a symbolic link, the file it points to is replaced
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "cannot save: this is a folder; add a file name", path)
    try:
        with _replacing(path) as file:
            _write(file, header, arrays)
    except OSError as error:
        raise _explain_os_error(error, path) from error


def load(
    path: str | os.PathLike | BinaryIO,
    map_location: str | Device | None = None,
    *,
    weights_only: bool = True,
) -> Any:
    """What `save` wrote, bit for bit; a safetensors file from elsewhere gives a dict of Tensors.

    Tensors return to the device they were saved on, or go to `map_location`. `weights_only` is there for PyTorch's
    signature: nothing in a file is ever executed. Raises FileNotFoundError, or CheckpointError for a file that is
    truncated, changed or of another kind.
    """
    if map_location is not None and not isinstance(map_location, (str, Device)):
        raise TypeError(f"map_location must be a device such as 'cpu', but got {type(map_location).__name__}")
    name = getattr(path, "name", "the open file") if hasattr(path, "read") else os.fspath(path)
    metadata, arrays = _read(path, str(name))
    structure, checksum = metadata.get(_KEY), metadata.get(_CHECKSUM)
    if structure is None and checksum is None:
        return {key: Tensor(to_device(array, map_location or "cpu")) for key, array in sorted(arrays.items())}
    if structure is None or checksum != f"{_checksum(structure, arrays):08x}":
        raise CheckpointError(f"{name} is corrupted: its checksum does not fit its content. {_REMEDY}")
    return _Decoder(arrays, map_location, str(name)).decode(json.loads(structure))


_REMEDY = "Load an earlier checkpoint, or copy or download the file again"


# ---------------------------------------------------------------- structure to JSON and arrays


class _Encoder:
    """Turns nested values into JSON, and puts their arrays aside in `arrays`, by name."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.objects: dict[int, int] = {}  # id of a Tensor → its number, for a second occurrence
        self.memory: dict[tuple, str] = {}  # where an array lies → its name in the file
        self.kept: list[Any] = []  # keeps every id and address in use from being given out again
        self.open: list[int] = []  # ids of the containers around the current value

    def encode(self, value: Any, path: str, name: str) -> Any:
        if value is None or isinstance(value, (bool, str)) and type(value) in (bool, str):
            return value
        if type(value) is int:
            return value if value.bit_length() <= 64 else {"int": hex(value)}
        if type(value) is float:
            return value if np.isfinite(value) else {"float": repr(value)}
        if type(value) is bytes:
            return {"bytes": base64.b64encode(value).decode()}
        if isinstance(value, Tensor):
            return self._tensor(value, path, name)
        if isinstance(value, (np.ndarray, np.generic)):
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            return {kind: self._store(np.asarray(value), path, name)}
        if isinstance(value, np.dtype):
            return {"dtype": dtypes.as_dtype(value).name}
        if isinstance(value, Device):
            return {"device": str(value)}
        return self._container(value, path, name)

    def _container(self, value: Any, path: str, name: str) -> Any:
        if id(value) in self.open:
            raise CheckpointError(f"{path} contains itself and cannot be saved")
        if len(self.open) >= _DEPTH_LIMIT:
            raise CheckpointError(f"{path[:200]}… is nested more than {_DEPTH_LIMIT} levels deep")
        self.open.append(id(value))
        try:
            if type(value) is list or isinstance(value, tuple) and not hasattr(value, "_fields"):
                items = [self.encode(v, f"{path}[{i}]", _join(name, i)) for i, v in enumerate(value)]
                return items if type(value) is list else {"tuple": items}
            for kind, cls in _MAPPINGS.items():
                if type(value) is cls:
                    return {kind: [self._item(k, v, path, name) for k, v in value.items()]}
        finally:
            self.open.pop()
        raise CheckpointError(f"{path} is {_describe(value)}, which cannot be saved. {_ADVICE.get(_kind(value), _ANY)}")

    def _item(self, key: Any, value: Any, path: str, name: str) -> list:
        if not isinstance(key, (str, int, float, tuple, bool, type(None))):
            raise CheckpointError(
                f"{path} has the key {key!r}, {_describe(key)}: keys must be strings, numbers or tuples"
            )
        place = f"{path}[{key!r}]"
        return [
            self.encode(key, f"the key {key!r} of {path}", ""),
            self.encode(value, place, _join(name, key)),
        ]

    def _tensor(self, value: Tensor, path: str, name: str) -> dict:
        number = self.objects.get(id(value))
        if number is not None:
            return {"same": number}
        if type(value) not in (Tensor, Parameter, Buffer):
            raise CheckpointError(f"{path} is {_describe(value)}, which cannot be saved. Save its .detach()")
        self.objects[id(value)] = len(self.objects)
        self.kept.append(value)
        kind = "parameter" if isinstance(value, Parameter) else "tensor"
        found = {kind: self._store(value.array, path, name), "requires_grad": value.requires_grad}
        if value.device.type != "cpu":
            found["device"] = str(value.device)
        return found

    def _store(self, array: Any, path: str, name: str) -> str:
        """Puts an array among the file's tensors; one that lies at the same place gets the same name."""
        self.kept.append(array)
        pointer = array.data.ptr if not isinstance(array, np.ndarray) else array.ctypes.data
        place = (pointer, array.shape, array.strides, array.dtype.str) if array.size else (id(array),)
        if place not in self.memory:
            if array.dtype.name not in _FORMAT_NAMES:
                raise CheckpointError(f"{path} is an array of dtype {array.dtype}, which cannot be saved")
            name, count = name or "state", 0
            while (unique := name if not count else f"{name}~{count}") in self.arrays:
                count += 1
            self.memory[place] = unique
            host = to_device(array, "cpu")
            self.arrays[unique] = np.ascontiguousarray(host, dtype=host.dtype.newbyteorder("<")).reshape(host.shape)
        return self.memory[place]


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _kind(value: Any) -> str:
    if callable(value) and hasattr(value, "__qualname__"):
        return "function"
    return "module" if hasattr(value, "state_dict") else "set" if isinstance(value, (set, frozenset)) else "other"


def _describe(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return (
        f"the {type(value).__name__} {name}" if name else f"of type {type(value).__module__}.{type(value).__qualname__}"
    )


_ANY = "Take it out, or turn it into dicts, lists, numbers, strings and Tensors"
_ADVICE = {
    "function": "Take it out, and set it again after loading",
    "module": "Save its state_dict() instead, and load that into a new object",
    "set": "Save sorted(…), a list, instead",
}


# ---------------------------------------------------------------- JSON and arrays to structure


class _Decoder:
    """The way back from `_Encoder`."""

    def __init__(self, arrays: dict[str, np.ndarray], map_location: str | Device | None, file: str):
        self.arrays, self.map_location, self.file = arrays, map_location, file
        self.tensors: list[Tensor] = []
        self.moved: dict[tuple[str, str], Any] = {}

    def decode(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        if not isinstance(node, dict):
            return node
        kind, value = next(iter(node.items()))
        if kind in _MAPPINGS:
            return _MAPPINGS[kind]({self.decode(k): self.decode(v) for k, v in value})
        if kind in ("tensor", "parameter"):
            return self._tensor(kind, value, node)
        simple = {
            "same": lambda: self.tensors[value],
            "tuple": lambda: tuple(self.decode(item) for item in value),
            "array": lambda: self.arrays[value],
            "scalar": lambda: self.arrays[value][()],
            "float": lambda: float(value),
            "int": lambda: int(value, 16),
            "bytes": lambda: base64.b64decode(value),
            "dtype": lambda: dtypes.as_dtype(value),
            "device": lambda: Device(value),
        }
        if kind not in simple:
            raise CheckpointError(f"{self.file} has a value of unknown kind {kind!r}: a newer version wrote it. Update")
        return simple[kind]()

    def _tensor(self, kind: str, name: str, node: dict) -> Tensor:
        device = str(self.map_location or node.get("device", "cpu"))
        if device != "cpu" and not cuda_is_available():
            raise CheckpointError(
                f"{self.file} asks for device {device!r}, but no GPU is there. Use load(…, map_location='cpu')"
            )
        if (name, device) not in self.moved:
            self.moved[name, device] = to_device(self.arrays[name], device)
        tensor = Tensor(self.moved[name, device])
        if kind == "parameter":
            tensor = Parameter(tensor, requires_grad=node["requires_grad"])
        elif node["requires_grad"]:
            tensor.requires_grad_()
        self.tensors.append(tensor)
        return tensor


# ---------------------------------------------------------------- the file


def _header(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """Eight bytes of length, then JSON that says where in the rest of the file each tensor is."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        dtype = _FORMAT_NAMES[array.dtype.name]
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT:
        raise CheckpointError(
            f"numbers and strings of this state take {len(text) / 1e6:.0f} MB, and {_HEADER_LIMIT / 1e6:.0f} MB are "
            f"allowed. Turn long lists of numbers into Tensors"
        )
    return struct.pack("<Q", len(text)) + text


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))


def _checksum(structure: str, arrays: dict[str, np.ndarray]) -> int:
    crc = zlib.crc32(structure.encode())
    for name in sorted(arrays):
        array = arrays[name]
        crc = zlib.crc32(f"{name} {array.dtype.name} {array.shape}".encode(), crc)
        crc = zlib.crc32(_bytes_of(np.ascontiguousarray(array)), crc)
    return crc


def _write(file: BinaryIO, header: bytes, arrays: dict[str, np.ndarray]) -> None:
    file.write(header)
    for array in arrays.values():
        file.write(_bytes_of(array))


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well, and vanishes when it does not."""
    folder, name = os.path.split(path)
    _remove_abandoned(folder, name)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lock(handle: int) -> bool:
    """Marks a file as being written, until it is closed; False if another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows, where an open file cannot be removed anyway
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _remove_abandoned(folder: str, name: str) -> None:
    """Removes what saves of this file left behind when they were killed."""
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):
            if entry.startswith(f".{name}.") and entry.endswith(".tmp") and len(entry) == len(name) + 14:
                with contextlib.suppress(OSError), open(os.path.join(folder, entry), "rb") as file:
                    old = time.time() - os.fstat(file.fileno()).st_mtime > ABANDONED_AFTER
                    if old and lock(file.fileno()):
                        os.unlink(file.name)


def _explain_os_error(error: OSError, path: str) -> OSError:
    folder = os.path.dirname(path)
    old = "; the file that was there before is unchanged" if os.path.exists(path) else ""
    if not os.path.isdir(folder):
        return FileNotFoundError(errno.ENOENT, f"cannot save: there is no folder {folder}; make it first", path)
    return OSError(error.errno or errno.EIO, f"cannot save: {advice(error, folder)}{old}", path)


def advice(error: OSError, folder: str) -> str:
    """What is wrong when writing in `folder` fails, and what to do."""
    known = {
        errno.ENOSPC: "the disk is full; free some space and save again",
        errno.EDQUOT: "the disk quota is used up; free some space and save again",
        errno.EFBIG: "the file is larger than this file system or its limits allow",
        errno.EACCES: f"no permission to write in the folder {folder}; save elsewhere",
        errno.EPERM: f"no permission to write in the folder {folder}; save elsewhere",
        errno.EROFS: "the file system is read-only; save elsewhere",
    }
    return known.get(error.errno, os.strerror(error.errno or errno.EIO))


def _read(path: str | os.PathLike | BinaryIO, name: str) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The header's metadata and the arrays of a safetensors file, or an error that says what it is instead."""
    from safetensors import SafetensorError, safe_open

    if not hasattr(path, "read"):
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, "cannot load: this is a folder, not a checkpoint file", name)
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, "cannot load: there is no such file", name)
    try:
        if hasattr(path, "read"):
            content = path.getvalue() if isinstance(path, io.BytesIO) else path.read()
            return _parse(content)
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, ValueError, TypeError, AttributeError, KeyError) as error:
        if not hasattr(path, "read"):
            with open(path, "rb") as file:
                content = file.read(64)
        raise CheckpointError(f"cannot load {name}: {_diagnose(content[:64], error)}") from error


def _parse(content: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and arrays of a safetensors file that is in memory."""
    from safetensors import deserialize

    of_name = {short: name for name, short in _FORMAT_NAMES.items()}
    arrays = {
        key: np.frombuffer(bytearray(entry["data"]), _dtype(of_name[entry["dtype"]])).reshape(entry["shape"])
        for key, entry in deserialize(content)
    }
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]).get("__metadata__", {}), arrays


def _dtype(name: str) -> np.dtype:
    return dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)


_MAGIC = (
    (b"PK", "it is a zip archive, perhaps a PyTorch or NumPy file"),
    (b"\x80", "it is a pickle, perhaps an old PyTorch file"),
    (b"GGUF", "it is a GGUF file"),
    (b"\x89HDF", "it is an HDF5 file"),
    (b"\x1f\x8b", "it is compressed with gzip"),
    (b"{", "it is JSON or text"),
    (b"<", "it is HTML or XML, perhaps an error page instead of the download"),
)


def _diagnose(start: bytes, error: Exception) -> str:
    """Why a file is not a checkpoint, from its first bytes and the reader's complaint, and what to do."""
    if not start:
        return f"it is empty. {_REMEDY}"
    for magic, meaning in _MAGIC:
        if start.startswith(magic) and start[8:9] != b"{":
            return (
                f"{meaning}, not a checkpoint of this library. Open it with the program that wrote it and save it as "
                f"safetensors"
            )
    if start[8:9] == b"{":
        return f"it is truncated or corrupted ({error}). {_REMEDY}"
    return f"it is not a safetensors file ({error}), or its beginning is corrupted. {_REMEDY}"
