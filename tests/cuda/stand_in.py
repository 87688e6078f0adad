"""A stand-in for CuPy on a machine without a GPU: NumPy's arrays under another type, kernels run by the emulator.

As strict as CuPy where this project might slip: arrays of both kinds do not mix (but an index may be NumPy's), nothing
becomes a NumPy array but by `get()`, an element is an array of no dimensions, and a kernel takes only what a GPU would
take.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.special

from shared.arrays import device
from shared.arrays import random as shared_random
from tests.cuda import cublas
from tests.cuda.emulator import Function, Module


class ndarray(np.ndarray):
    """An array that says it is on a GPU."""

    device = types.SimpleNamespace(id=0)

    def get(self) -> np.ndarray:
        return np.array(self.view(np.ndarray))

    @property
    def data(self) -> Any:  # type: ignore[override]
        return types.SimpleNamespace(ptr=self.ctypes.data)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        _refuse_mixing([*inputs, *out])
        if out:
            options["out"] = tuple(None if a is None else _plain(a) for a in out)
        result = getattr(ufunc, method)(*[_plain(a) for a in inputs], **{k: _plain(v) for k, v in options.items()})
        return out[0] if len(out) == 1 else _ours(result)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        _refuse_mixing([*args, *kwargs.values()])
        return _ours(func(*_plain(args), **_plain(kwargs)))

    def __getitem__(self, key: Any) -> Any:
        return _ours(self.view(np.ndarray)[_plain(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_mixing([value])
        self.view(np.ndarray)[_plain(key)] = _plain(value)


for _name in (
    "sum",
    "mean",
    "max",
    "min",
    "any",
    "all",
    "argmax",
    "argmin",
    "prod",
    "cumsum",
    "var",
    "std",
    "dot",
    "nonzero",
):

    def _method(self: ndarray, *args: Any, _name: str = _name, **options: Any) -> Any:
        return _ours(getattr(self.view(np.ndarray), _name)(*_plain(args), **_plain(options)))

    setattr(ndarray, _name, _method)


def _plain(value: Any) -> Any:
    """Our arrays as NumPy's, inside tuples, lists and dictionaries too."""
    if isinstance(value, ndarray):
        return value.view(np.ndarray)
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(v) for v in value)
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _ours(value: Any) -> Any:
    """NumPy's arrays and numbers as our arrays."""
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value).view(ndarray)
    return type(value)(_ours(v) for v in value) if type(value) in (tuple, list) else value


def _refuse_mixing(values: Any) -> None:
    for value in values:
        if isinstance(value, np.ndarray) and not isinstance(value, ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        if isinstance(value, (tuple, list)):
            _refuse_mixing(value)


class _Namespace(types.ModuleType):
    """NumPy's functions on our arrays."""

    def __init__(self, of: Any):
        super().__init__("cupy")
        self._of = of

    def __getattr__(self, name: str) -> Any:
        if name in ("lib", "stride_tricks", "linalg"):
            return _Namespace(getattr(self._of, name))
        found = getattr(self._of, name)
        if isinstance(found, type) or not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            if name not in ("asarray", "array", "full"):
                _refuse_mixing([*args, *options.values()])
            return _ours(found(*_plain(args), **_plain(options)))

        for method in ("reduce", "reduceat", "at") if isinstance(found, np.ufunc) else ():
            setattr(call, method, functools.partial(_method_of, getattr(found, method)))
        return call


def _method_of(method: Any, first: Any, *args: Any, **options: Any) -> Any:
    _refuse_mixing([first, *args[1:]])  # an index may be NumPy's: CuPy moves it
    return _ours(method(*_plain((first, *args)), **_plain(options)))


class _Generator:
    """`cupy.random.Generator`, which has few distributions."""

    def __init__(self, bits: np.random.BitGenerator):
        self._of = np.random.Generator(bits)

    def __getattr__(self, name: str) -> Any:
        assert name in ("random", "standard_normal", "integers", "uniform"), f"cupy.random.Generator has no {name}"
        return lambda *args, **options: _ours(getattr(self._of, name)(*args, **options))


class _Device:
    def __init__(self, index: int = 0):
        self.id = index

    def __enter__(self) -> None: ...

    def __exit__(self, *error: Any) -> None: ...


def module() -> Any:
    """What `import cupy` would give."""
    made = _Namespace(np)
    made.ndarray = ndarray
    made.RawModule = lambda *, code, options: Module(code, options)
    made.random = types.SimpleNamespace(Generator=_Generator, Philox4x3210=lambda seed: np.random.Philox(seed))
    stream = types.SimpleNamespace(synchronize=lambda: None)
    pool = types.SimpleNamespace(used_bytes=lambda: 0, total_bytes=lambda: 0, free_all_blocks=lambda: None)
    made.get_default_memory_pool = lambda: pool
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda i: {"name": b"a stand-in"},
        CUDA_R_16F=2,
        CUDA_R_16BF=14,
        CUDA_R_32F=0,
        CUDA_R_64F=1,
    )
    made.cuda = types.SimpleNamespace(
        Device=_Device,
        get_current_stream=lambda: stream,
        runtime=runtime,
        cublas=cublas,
        get_cublas_handle=lambda: cublas.HANDLE,
    )
    return made


@contextmanager
def in_place_of_cupy() -> Iterator[list[str]]:
    """Within, device="cuda" is this stand-in. Gives the list to which the names of started kernels are added."""
    before = device._cupy, device.cuda_is_available
    special = {"cupyx": types.ModuleType("cupyx"), "cupyx.scipy": types.ModuleType("cupyx.scipy")}
    special["cupyx.scipy.special"] = _Namespace(scipy.special)
    generators = dict(shared_random._defaults)
    device._cupy, device.cuda_is_available = module(), lambda: True
    Function.launches.clear()
    sys.modules.update(special)
    try:
        yield Function.launches
    finally:
        for name in special:
            del sys.modules[name]
        device._cupy, device.cuda_is_available = before
        shared_random._defaults.clear()
        shared_random._defaults.update(generators)
