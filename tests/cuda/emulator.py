"""Runs CUDA kernels on the CPU: the same source compiled by g++ with shim.h, on NumPy arrays.

`Module` and `Function` have the methods of CuPy's RawModule and RawKernel that launch.py uses.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

COMPILER = shutil.which("g++") if sys.platform == "linux" else None  # elsewhere fibers are made otherwise
SHIM = Path(__file__).with_name("shim.h")
KERNEL = re.compile(r'extern "C" __global__ void\s+(\w+)\s*\(([^)]*)\)')


@functools.cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="emulated-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def parameters(text: str) -> list[str]:
    """The types of a kernel's parameters.

    >>> parameters("const T* x, T * out, long long size")
    ['const T*', 'T*', 'long long']
    """
    pieces = [" ".join(piece.replace("__grid_constant__", "").split()) for piece in text.split(",")]
    return [re.sub(r"\s*\*\s*", "*", piece[: re.search(r"\w+$", piece).start()]).strip() for piece in pieces]  # type: ignore[union-attr]


def entry(name: str, types: list[str], waits: bool) -> str:
    """What Python calls: the kernel with its arguments taken from where CUDA would take them."""
    values = ", ".join(f"*({t}*)a[{i}]" for i, t in enumerate(types))
    return (
        f'extern "C" int launch_{name}(void** a, unsigned blocks, unsigned threads) {{\n'
        f"    return launch([](void** a) {{ {name}({values}); }}, a, {str(waits).lower()}, blocks, threads);\n}}\n"
    )


class Module:
    """CUDA source as a library of the CPU."""

    def __init__(self, code: str, options: tuple[str, ...] = ()):
        self.kernels = {name: parameters(text) for name, text in KERNEL.findall(code)}
        entries = "".join(entry(name, types, self._waits(code, name)) for name, types in self.kernels.items())
        text = f'#include "{SHIM}"\n{code}\n{entries}'
        path = _folder() / hashlib.sha256(text.encode()).hexdigest()
        if not path.with_suffix(".so").exists():
            path.with_suffix(".cpp").write_text(text)
            command = [str(COMPILER), "-std=c++17", "-O1", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-w"]
            command += ["-o", str(path.with_suffix(".so")), str(path.with_suffix(".cpp"))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"g++ does not compile the kernels:\n{done.stderr}")
        self.library = ctypes.CDLL(str(path.with_suffix(".so")))

    @staticmethod
    def _waits(code: str, name: str) -> bool:
        """True where a kernel may wait for other threads of its block: as it works by rows, or says so itself."""
        body = code.split(f"void {name}(", 1)[1].split('extern "C"', 1)[0]
        return any(word in body for word in ("Rows at(", "row_tree", "__syncthreads", "block_"))

    def get_function(self, name: str) -> Function:
        return Function(self, name)


class Function:
    """A kernel that takes what CuPy's takes: arrays, Python's numbers, and structs as arrays of a structured dtype."""

    launches: list[str] = []  # the names of all kernels that were started, for the tests to look at

    def __init__(self, module: Module, name: str):
        self.name, self.types = name, module.kernels[name]
        self.call = module.library[f"launch_{name}"]

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple) -> None:
        assert len(arguments) == len(self.types), f"{self.name} takes {self.types}"
        assert min(*grid, *block) > 0 and block[0] <= 1024, f"{self.name}: grid {grid}, block {block}"
        kept = [self._argument(a, t) for a, t in zip(arguments, self.types, strict=True)]
        table = (ctypes.c_void_p * len(kept))(*[a.ctypes.data for a in kept])
        Function.launches.append(self.name)
        if self.call(table, ctypes.c_uint(grid[0]), ctypes.c_uint(block[0])):
            raise RuntimeError(
                f"{self.name}: some threads of a block wait for others that have ended or went elsewhere"
            )

    def _argument(self, value: Any, kind: str) -> np.ndarray:
        """The bytes CUDA would be given for `value`, checked against the type of the parameter."""
        if isinstance(value, np.ndarray) and value.dtype.kind == "V" and value.dtype.names:
            assert not kind.endswith("*"), f"{self.name}: a struct for {kind}"
            return value
        if isinstance(value, np.ndarray):
            assert kind.endswith("*"), f"{self.name}: an array for {kind}"
            expected = {"const int*": "int32", "int*": "int32", "const long long*": "int64", "const bool*": "bool"}
            expected["const Flag*"] = "bool"
            assert value.dtype.name == expected.get(kind, value.dtype.name), f"{self.name}: {value.dtype} for {kind}"
            with_strides = kind.removeprefix("const ") in ("View*", "Flag*", "Number*")  # the kernel is told of gaps
            assert value.flags.c_contiguous or with_strides, f"{self.name}: an array with gaps"
            return np.array([value.ctypes.data], np.uint64)
        if type(value) is float:
            assert kind == "double", f"{self.name}: a float for {kind}"
            return np.array([value], np.float64)
        assert type(value) is int, f"{self.name}: {type(value)} for {kind}"
        assert kind == "long long" or (kind.endswith("*") and value == 0), f"{self.name}: an int for {kind}"
        return np.array([value], np.int64)
