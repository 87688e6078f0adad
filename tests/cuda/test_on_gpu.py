"""On an NVIDIA GPU: kernels, products, layers and training as on the CPU; what only a GPU can show besides."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from shared.arrays import cublas, dtypes, gemm
from shared.arrays.device import module_for, to_device
from shared.arrays.kernels import activation as kernels
from shared.arrays.kernels import launch
from tests.cuda import on_device
from tests.cuda.calls import CALLS
from tests.cuda.test_cublas import LAYOUTS, SHAPES, drawn
from tests.nn.test_modules import WITH_INPUTS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", sorted(launch.DTYPES))
@pytest.mark.parametrize("family", sorted({call.family for call in CALLS}))
def test_the_kernels_follow_their_formulas(family, dtype):
    for call in CALLS:
        if call.family == family and dtype in call.dtypes:
            try:
                on_device.kernel(call, dtype)
            except AssertionError as error:
                raise AssertionError(str(call)) from error


@pytest.mark.parametrize(("expression", "inputs"), WITH_INPUTS, ids=[e for e, _ in WITH_INPUTS])
def test_layers_are_pytorchs(expression, inputs):
    on_device.module(expression, inputs)


def test_training_is_that_of_the_cpu():
    on_device.training()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("left", LAYOUTS)
def test_products_are_numpys(left, name):
    dtype, xp = dtypes.as_dtype(name), module_for("cuda")
    tolerance = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-5, "float64": 1e-12}[name]
    for shapes in SHAPES:
        a, b = (drawn(s, np.float32, i).astype(dtype) for i, s in enumerate(shapes))
        for right in LAYOUTS:
            on_gpu = LAYOUTS[left](xp, to_device(a, "cuda")), LAYOUTS[right](xp, to_device(b, "cuda"))
            found = gemm.matmul(*on_gpu)
            assert found.dtype == dtype
            expected = a.astype(float) @ b.astype(float)
            np.testing.assert_allclose(found.get().astype(float), expected, tolerance, tolerance, err_msg=str(shapes))


def test_tf32_is_off_unless_asked_for(monkeypatch):
    a, b = (drawn((512, 512), np.float32, i) for i in (0, 1))
    expected, errors = a.astype(float) @ b.astype(float), []
    for allowed in (False, True):
        monkeypatch.setattr(cublas, "allow_tf32", allowed)
        found = gemm.matmul(to_device(a, "cuda"), to_device(b, "cuda")).get()
        errors.append(abs(found - expected).max())
    assert errors[0] < 1e-3 and errors[1] < 1, "the sums of float32 are exact to seven digits, those of TF32 to three"


def test_equal_runs_have_equal_results():
    """No kernel adds in a changing order."""
    calls = [c for c in CALLS if c.family in ("attention", "conv", "embedding", "norm", "pool", "softmax")]
    for call in calls:
        given = call.arguments("float32")
        package = importlib.import_module(f"shared.arrays.kernels.{call.family}")
        first, second = (
            on_device._results(call, package, [on_device._copies(a, "cuda") for a in given]) for _ in range(2)
        )
        assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True)), call


def test_large_arrays_have_long_indices():
    """More than 2³¹ elements: the indices of such kernels are 64 bits wide."""
    cupy, size = module_for("cuda"), (1 << 31) + 5
    if cupy.cuda.runtime.memGetInfo()[0] < 6 * size:
        pytest.skip("needs 13 GB of free memory on the GPU")
    x = cupy.zeros(size, "float16")
    x[-1], x[0] = 3, -2
    out = kernels.relu(x)
    assert [float(out[i]) for i in (0, 1, -2, -1)] == [0, 0, 0, 3]
