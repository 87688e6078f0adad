"""Where arrays live: NumPy on the CPU, CuPy on an NVIDIA GPU. The only file that imports CuPy."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

import numpy as np

_cupy: ModuleType | None = None  # loaded when the first GPU array is asked for or met


def _load_cupy() -> ModuleType:
    global _cupy
    if _cupy is None:
        if importlib.util.find_spec("cupy") is None:
            raise RuntimeError(
                "CUDA was asked for, but CuPy is not installed. Install the extra that fits your driver, "
                "`python -m course setup --extra gpu` (or gpu-cuda12), or stay on device='cpu'."
            )
        _cupy = importlib.import_module("cupy")
    return _cupy


def cuda_is_available() -> bool:
    """True where CuPy is installed and sees at least one GPU."""
    if importlib.util.find_spec("cupy") is None:
        return False
    try:
        return _load_cupy().cuda.runtime.getDeviceCount() > 0
    except Exception:  # a driver that is missing or too old: CuPy raises several kinds of error
        return False


class Device:
    """A place for arrays: `Device("cpu")`, `Device("cuda")`, `Device("cuda:1")`.

    >>> Device("cuda:1").index
    1
    """

    __slots__ = ("type", "index")
    type: str
    index: int | None

    def __init__(self, device: str | Device, index: int | None = None):
        if isinstance(device, Device):
            self.type, self.index = device.type, device.index
            return
        kind, _, number = str(device).partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
            raise RuntimeError(f"Expected a device like 'cpu', 'cuda' or 'cuda:0', but got {device!r}")
        self.type = kind
        self.index = int(number) if number else index

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            other = Device(other)
        if not isinstance(other, Device):
            return NotImplemented
        return self.type == other.type and (self.index or 0) == (other.index or 0)

    def __hash__(self) -> int:
        return hash((self.type, self.index or 0))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"


CPU = Device("cpu")


def is_gpu_array(x: Any) -> bool:
    """True for a `cupy.ndarray`; loads CuPy if such an array comes from outside."""
    if _cupy is None and type(x).__module__.partition(".")[0] == "cupy":
        _load_cupy()
    return _cupy is not None and isinstance(x, _cupy.ndarray)


def xp(x: Any) -> ModuleType:
    """The module whose functions work on `x`: `numpy` or `cupy`."""
    return _cupy if _cupy is not None and isinstance(x, _cupy.ndarray) else np


def module_for(device: str | Device | None) -> ModuleType:
    """The array module of a device; None means the CPU."""
    return np if device is None or Device(device).type == "cpu" else _load_cupy()


def special(x: Any) -> ModuleType:
    """The special functions (erf, …) for `x`: `scipy.special` or `cupyx.scipy.special`."""
    return importlib.import_module("scipy.special" if xp(x) is np else "cupyx.scipy.special")


def device_of(x: Any) -> Device:
    """The device that holds the raw array `x`."""
    return CPU if xp(x) is np else Device("cuda", index=x.device.id)


def to_device(x: Any, device: str | Device) -> Any:
    """`x` on `device`; the same array where it already is there."""
    target = Device(device)
    if target.type == "cpu":
        return x if xp(x) is np else x.get()
    cupy = _load_cupy()
    with cupy.cuda.Device(target.index or 0):
        return cupy.asarray(x)


def synchronize() -> None:
    """Waits until the current GPU has finished what it was given; nothing to do on the CPU."""
    if _cupy is not None:
        _cupy.cuda.get_current_stream().synchronize()


def check_same_device(operation: str, arrays: list[Any]) -> None:
    """Raises where some of `arrays` are on the CPU and some on a GPU."""
    if _cupy is None:
        return
    found = {str(device_of(a)) for a in arrays if hasattr(a, "dtype") and getattr(a, "ndim", 0) >= 0}
    if len(found) > 1:
        raise RuntimeError(
            f"{operation}: expected all tensors on the same device, but found {' and '.join(sorted(found))}. "
            f"Move one of them with .to(device)."
        )


def cuda_device_count() -> int:
    """The number of GPUs CuPy sees; 0 without CuPy or a driver."""
    return _load_cupy().cuda.runtime.getDeviceCount() if cuda_is_available() else 0


def cuda_device_name(index: int = 0) -> str:
    """The name of a GPU, e.g. 'NVIDIA H200'."""
    return _load_cupy().cuda.runtime.getDeviceProperties(index)["name"].decode()


def cuda_memory_allocated() -> int:
    """Bytes of GPU memory in use by arrays; 0 where no GPU was used."""
    return 0 if _cupy is None else int(_cupy.get_default_memory_pool().used_bytes())


def cuda_memory_reserved() -> int:
    """Bytes of GPU memory that the pool holds, in use or free; 0 where no GPU was used."""
    return 0 if _cupy is None else int(_cupy.get_default_memory_pool().total_bytes())


def cuda_empty_cache() -> None:
    """Gives the memory pool's free blocks back to the driver."""
    if _cupy is not None:
        _cupy.get_default_memory_pool().free_all_blocks()
