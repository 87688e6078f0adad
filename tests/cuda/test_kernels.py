"""The GPU's code without a GPU: kernels run by the emulator, everything else on the stand-in of CuPy's arrays."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from shared.arrays import dtypes, kernels
from shared.arrays.device import to_device
from shared.arrays.kernels import launch
from tests.cuda import on_device
from tests.cuda.calls import CALLS
from tests.cuda.emulator import COMPILER, KERNEL, Module
from tests.cuda.stand_in import in_place_of_cupy
from tests.nn.test_modules import WITH_INPUTS
from tests.ops.cases import CASES

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux, which stands in for CUDA's compiler")

FAMILIES = sorted({call.family for call in CALLS})


@pytest.fixture
def launches():
    """The stand-in instead of CuPy; the names of the kernels that were started."""
    with np.errstate(all="ignore"), in_place_of_cupy() as names:
        yield names


@pytest.mark.parametrize(("call", "dtype"), [(c, d) for c in CALLS for d in c.dtypes], ids=str)
def test_the_kernel_follows_its_formula(call, dtype, launches):
    on_device.kernel(call, dtype)
    assert call.launches == tuple(dict.fromkeys(launches)), "the formula ran, or another kernel"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_operations_are_those_of_the_cpu(case, launches):
    on_device.operation(case)


@pytest.mark.parametrize(("expression", "inputs"), WITH_INPUTS, ids=[e for e, _ in WITH_INPUTS])
def test_layers_are_pytorchs(expression, inputs, launches):
    on_device.module(expression, inputs)


def test_training_is_that_of_the_cpu(launches):
    on_device.training()
    # Ten steps with each optimizer: one launch for all 12 parameters, but for the first step with momentum.
    assert [launches.count(name) for name in ("adam", "sgd", "squares", "scale")] == [10, 12 + 9, 20, 20]


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.filterwarnings("ignore:(invalid|overflow).*:RuntimeWarning")
def test_short_floats_round_like_numpy_s(name):
    """Every value of 16 bits, and numbers between, at the edges and beyond."""
    dtype = dtypes.as_dtype(name)
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    wide = every.astype(np.float32)
    near = [np.nextafter(wide, np.float32(way)) for way in (-np.inf, np.inf)]
    between = [wide[:-1] / 2 + wide[1:] / 2, *near, np.float32([65519.99, 65520, 1e-8, 3e-8, -1e-30, 1e38])]
    code = """
extern "C" __global__ void shorten(const float* x, T* out, long long size) {
    for (I i = first(); i < size; i += step()) out[i] = T(x[i]);
}
extern "C" __global__ void widen(const T* x, float* out, long long size) {
    for (I i = first(); i < size; i += step()) out[i] = x[i];
}
"""
    module = Module(launch.source(code, name))
    for given, kernel, kind in ((every, "widen", np.float32), (np.concatenate([wide, *between]), "shorten", dtype)):
        out = np.empty(given.shape, kind)
        module.get_function(kernel)((9,), (launch.THREADS,), (given, out, given.size))
        expected = given.astype(kind)
        same = out.view(np.uint8).reshape(out.size, -1) == expected.view(np.uint8).reshape(out.size, -1)
        assert (same.all(axis=1) | (np.isnan(out) & np.isnan(expected))).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_indices_may_be_64_bits_wide(family, launches, monkeypatch):
    """As for more than 2³⁰ elements, here with few."""
    monkeypatch.setattr(launch, "_WIDE_FROM", 0)
    calls = {call.launches: call for call in CALLS if call.family == family}
    for call in calls.values():
        on_device.kernel(call, "float32")
    assert set(launches) == {name for names in calls for name in names}


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


def test_columns_that_do_not_fit_are_made_a_part_at_a_time(monkeypatch, launches):
    from shared.arrays.kernels.conv import cuda

    calls = [c for c in CALLS if c.family == "conv" and "overlapping" in c.name]
    monkeypatch.setattr(cuda, "MOST_BYTES", 1)
    assert calls and cuda._images(5, 9, calls[0].arguments("float32")[-2], np.float32(0)) == 1
    for call in calls:
        on_device.kernel(call, "float32")


def test_only_contiguous_floats_of_one_dtype_go_to_the_kernels(launches):
    x = to_device(np.zeros((4, 3), np.float32), "cuda")
    for serves in (x, x.astype(np.float64), x.astype(np.float16)):
        assert kernels.select("pool", serves).__name__.endswith("pool.cuda")
    for given in ((x.T,), (x.astype(np.int64),), (x, x.astype(np.float64))):
        assert kernels.select("pool", *given).__name__.endswith("pool.reference")
    assert kernels.select("pool", np.zeros(3, np.float32)).__name__.endswith(("pool.cpu", "pool.reference"))


def test_the_formulas_can_be_asked_for(monkeypatch, launches):
    monkeypatch.setenv("SHARED_KERNELS", "reference")
    kernels._cuda.cache_clear()
    try:
        assert kernels.select("pool", to_device(np.zeros(3, np.float32), "cuda")).__name__.endswith("reference")
    finally:
        kernels._cuda.cache_clear()
