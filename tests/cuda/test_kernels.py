"""The CUDA kernels against their formulas, without a GPU: run by the emulator on the stand-in of CuPy's arrays."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from shared.arrays import kernels
from shared.arrays.device import is_gpu_array, to_device
from tests.cuda.calls import CALLS, Call
from tests.cuda.emulator import COMPILER, KERNEL
from tests.cuda.stand_in import in_place_of_cupy

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++, which stands in for CUDA's compiler")

FAMILIES = sorted({call.family for call in CALLS})
TOLERANCES = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def moved(value: Any, place: str) -> Any:
    """Arrays on the GPU, or copies of them on the CPU, also inside lists."""
    if isinstance(value, list):
        return [moved(v, place) for v in value]
    if not isinstance(value, np.ndarray):
        return value
    return to_device(value.copy(), "cuda") if place == "cuda" else value.copy()


def flat(value: Any) -> list[Any]:
    return [a for part in value for a in flat(part)] if isinstance(value, (tuple, list)) else [value]


def run(call: Call, module: Any, arguments: list[Any]) -> list[np.ndarray]:
    """Everything a function returned or may have changed."""
    result = getattr(module, call.function)(*arguments, **call.options)
    found = [a for a in flat([result, arguments]) if isinstance(a, (np.ndarray, np.generic))]
    return [a.get() if is_gpu_array(a) else np.asarray(a) for a in found]


@pytest.mark.parametrize(("call", "dtype"), [(c, d) for c in CALLS for d in c.dtypes], ids=str)
def test_the_kernel_follows_its_formula(call, dtype):
    given = call.arguments(dtype)
    reference = importlib.import_module(f"shared.arrays.kernels.{call.family}.reference")
    public = importlib.import_module(f"shared.arrays.kernels.{call.family}")
    with np.errstate(all="ignore"), in_place_of_cupy() as launches:
        found = run(call, public, [moved(a, "cuda") for a in given])
        assert call.launches == tuple(dict.fromkeys(launches)), "the formula ran, or another kernel"
        # Half of a mantissa would make the formula itself inexact: it is computed in float32 and rounded at the end.
        exact = [a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype.itemsize == 2 else a for a in given]
        expected = run(call, reference, [moved(a, "cpu") for a in exact])
    assert len(found) == len(expected)
    tolerance = TOLERANCES[dtype] * call.looser
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        if a.dtype.kind in "iub":
            assert a.dtype == b.dtype and np.array_equal(a, b)
        else:
            assert a.dtype == b.dtype or a.dtype.name == dtype
            np.testing.assert_allclose(a.astype(float), b.astype(float), tolerance, tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kernel_is_among_the_calls(family):
    source = importlib.import_module(f"shared.arrays.kernels.{family}.cuda").kernels.code
    called = {name for call in CALLS if call.family == family for name in call.launches}
    assert called == {name for name, _ in KERNEL.findall(source)}


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_numba_serves_cuda_serves_too(family):
    """`select` chooses a whole module: a function that is missing from it would be an AttributeError."""
    package, cpu, cuda = (
        importlib.import_module(f"shared.arrays.kernels.{family}{name}") for name in ("", ".cpu", ".cuda")
    )
    served = {name for name in package.__all__ if hasattr(cpu, name)}
    assert served and served == set(cuda.__all__) & set(package.__all__)
    assert all(callable(getattr(cuda, name)) for name in cuda.__all__)


def test_columns_that_do_not_fit_are_made_a_part_at_a_time(monkeypatch):
    from shared.arrays.kernels.conv import cuda

    calls = [c for c in CALLS if c.family == "conv" and "overlapping" in c.name]
    monkeypatch.setattr(cuda, "MOST_BYTES", 1)
    assert calls and cuda._images(5, 9, calls[0].arguments("float32")[-2], np.float32(0)) == 1
    for call in calls:
        test_the_kernel_follows_its_formula(call, "float32")


def test_only_contiguous_floats_of_one_dtype_go_to_the_kernels():
    with in_place_of_cupy():
        x = to_device(np.zeros((4, 3), np.float32), "cuda")
        for serves in (x, x.astype(np.float64), x.astype(np.float16)):
            assert kernels.select("pool", serves).__name__.endswith("pool.cuda")
        for given in ((x.T,), (x.astype(np.int64),), (x, x.astype(np.float64))):
            assert kernels.select("pool", *given).__name__.endswith("pool.reference")
        assert kernels.select("pool", np.zeros(3, np.float32)).__name__.endswith(("pool.cpu", "pool.reference"))


def test_the_formulas_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("SHARED_KERNELS", "reference")
    kernels._cuda.cache_clear()
    try:
        with in_place_of_cupy():
            x = to_device(np.zeros(3, np.float32), "cuda")
            assert kernels.select("pool", x).__name__.endswith("reference")
    finally:
        kernels._cuda.cache_clear()
