"""The product with a large weight for a few rows: the compiled kernel against its formula, and when it is taken."""

import numpy as np
import pytest

from shared.arrays import gemm, kernels
from shared.arrays.kernels import linear
from shared.arrays.kernels.linear import reference

BY_COLUMNS = pytest.mark.parametrize("by_columns", [False, True])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def drawn(rows, outputs, width, dtype, by_columns=False):
    rng = np.random.default_rng(rows + outputs + width)
    x, weight = (rng.normal(size=(n, width)).astype(dtype) for n in (rows, outputs))
    return x, np.asfortranarray(weight) if by_columns else weight


@pytest.fixture
def compiled():
    found = kernels._compiled("linear")
    if found is None:
        pytest.skip("Numba is not installed, or SHARED_KERNELS=reference keeps to the formulas")
    return found


def test_by_hand():
    x, weight = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[3.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    for module in (linear, reference):
        for same in (weight, np.asfortranarray(weight)):
            assert module.few_rows(x, same).tolist() == [[3.0, 10.0, 3.0], [0.0, 5.0, 1.0]]


@DTYPES
@BY_COLUMNS
@pytest.mark.parametrize("rows", range(1, 10))
@pytest.mark.parametrize(("outputs", "width"), [(1, 1), (7, 3), (65, 130), (33, 768), (130, 67)])
def test_the_kernel_follows_its_formula(compiled, rows, outputs, width, by_columns, dtype, monkeypatch):
    x, weight = drawn(rows, outputs, width, dtype, by_columns)
    monkeypatch.setattr(compiled, "PIECE", 1 << 11)
    monkeypatch.setattr(compiled, "SHARED_FROM", 0)
    before = x.copy(), weight.copy()
    found = compiled.few_rows(x, weight)
    tolerance = 2e-5 if dtype == np.float32 else 1e-13
    assert found.dtype == dtype and found.shape == (rows, outputs) and found.flags.c_contiguous
    np.testing.assert_allclose(found, x.astype("f8") @ weight.astype("f8").T, rtol=tolerance, atol=tolerance * width)
    assert np.array_equal(x, before[0]) and np.array_equal(weight, before[1])


@DTYPES
@BY_COLUMNS
def test_the_number_of_threads_changes_no_bit(compiled, by_columns, dtype, monkeypatch):
    x, weight = drawn(5, 129, 64, dtype, by_columns)
    monkeypatch.setattr(compiled, "PIECE", 1 << 10)
    monkeypatch.setattr(compiled, "SHARED_FROM", 0)
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(compiled, "_threads", threads)
        found.append(compiled.few_rows(x, weight).tobytes())
    assert len(set(found)) == 1


@BY_COLUMNS
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_what_they_are_multiplied_with(compiled, by_columns, value):
    x, weight = drawn(5, 6, 33, np.float32, by_columns)
    weight[2, 7] = value
    found = compiled.few_rows(x, weight)
    assert not np.isfinite(found[:, 2]).any() and np.isfinite(np.delete(found, 2, axis=1)).all()


@pytest.mark.parametrize(
    ("rows", "outputs", "width", "dtype", "by_columns", "taken"),
    [
        (1, 512, 512, "f4", False, True),
        (8, 512, 512, "f8", False, True),
        (9, 512, 512, "f4", False, False),
        (1, 511, 512, "f4", False, False),
        (1, 512, 512, "f4", True, True),
        (9, 512, 512, "f4", True, False),
    ],
)
def test_few_rows_and_a_large_weight_in_order_take_the_kernel(
    rows, outputs, width, dtype, by_columns, taken, monkeypatch
):
    calls = []
    monkeypatch.setattr(linear, "few_rows", lambda x, w: calls.append(x.shape) or reference.few_rows(x, w))
    x, weight = drawn(rows, outputs, width, dtype, by_columns)
    np.testing.assert_allclose(gemm.matmul_transposed(x, weight), x @ weight.T, rtol=1e-3, atol=1e-3)
    assert bool(calls) is taken


def test_a_weight_that_lies_in_no_order_goes_to_numpy(monkeypatch):
    monkeypatch.setattr(linear, "few_rows", None)
    x, weight = drawn(2, 512, 1024, np.float32)
    np.testing.assert_allclose(
        gemm.matmul_transposed(x[:, :512].copy(), weight[:, ::2]), x[:, :512] @ weight[:, ::2].T, rtol=1e-3, atol=1e-3
    )


def test_no_rows_and_mixed_dtypes_go_to_numpy():
    weight = np.ones((512, 512), np.float32)
    assert gemm.matmul_transposed(np.ones((0, 512), np.float32), weight).shape == (0, 512)
    assert gemm.matmul_transposed(np.ones((1, 512)), weight).dtype == np.float64
