"""Every CUDA source compiles with NVIDIA's run-time compiler, for each dtype: needs `nvidia-cuda-nvrtc`, and no GPU."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from pathlib import Path

import pytest

from shared.arrays import kernels
from shared.arrays.kernels import launch
from tests.cuda.emulator import KERNEL

FAMILIES = [f for f in kernels.FAMILIES if importlib.util.find_spec(f"shared.arrays.kernels.{f}.cuda")]
PLACES = ("cuda_nvrtc/lib/libnvrtc.so.*", "cu13/lib/libnvrtc.so.*")  # of CUDA 12's and 13's packages


def find_nvrtc() -> Path | None:
    """The library in the package of NVIDIA's that pip installed."""
    package = importlib.util.find_spec("nvidia")
    folders = list(package.submodule_search_locations or ()) if package else []
    found = [p for f in folders for place in PLACES for p in Path(f).glob(place) if "alt" not in p.name]
    return found[0] if found else None


NVRTC = find_nvrtc()
pytestmark = pytest.mark.skipif(NVRTC is None, reason="needs the package nvidia-cuda-nvrtc (or -cu12)")


def compiled(code: str, architecture: str) -> str:
    """PTX of a source; raises with the compiler's messages."""
    library = ctypes.CDLL(str(NVRTC))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None) == 0
    options = [b"--std=c++17", f"--gpu-architecture={architecture}".encode()]
    failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    what = "ProgramLog" if failed else "PTX"
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, text)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    assert not failed, text.value.decode()
    return text.value.decode()


@pytest.mark.parametrize("dtype", sorted(launch.DTYPES))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_compiles(family, dtype):
    code = importlib.import_module(f"shared.arrays.kernels.{family}.cuda").kernels.code
    for architecture, wide in (("sm_80", False), ("sm_90", True)):
        ptx = compiled(launch.source(code, dtype, wide), architecture)
        for name, _ in KERNEL.findall(code):
            assert f".entry {name}(" in ptx
        assert ".local" not in ptx, "an array that was meant for registers went to memory"


def test_an_error_is_shown():
    with pytest.raises(AssertionError, match="identifier .*nowhere.* is undefined"):
        compiled('extern "C" __global__ void f(float* x) { *x = nowhere; }', "sm_80")
