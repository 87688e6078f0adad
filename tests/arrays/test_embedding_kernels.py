"""Embedding on raw arrays: the formulas against the definition, the compiled kernel against the formulas."""

from __future__ import annotations

import numpy as np
import pytest

from shared.arrays import kernels
from shared.arrays.kernels import embedding
from shared.arrays.kernels.embedding import reference

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture
def compiled():
    pytest.importorskip("numba", reason="Numba is not installed: the reference kernels serve")
    found = kernels._compiled("embedding")
    return found or pytest.skip("SHARED_KERNELS=reference keeps to the formulas")


def drawn(shape, rows, width, dtype, seed=0):
    """Gradients (*shape, width) and indices of a shape."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((*shape, width)).astype(dtype), rng.integers(0, rows, shape)


def as_a_product(grad, indices, rows, padding_idx=None):
    """The gradient from the definition: one-hot rows, transposed, times the gradient."""
    one_hot = np.eye(rows)[indices.reshape(-1)]
    if padding_idx is not None:
        one_hot[:, padding_idx] = 0
    return one_hot.T @ grad.reshape(indices.size, grad.shape[-1]).astype(np.float64)


SHAPES = [((), 3, 4), ((1,), 1, 1), ((7,), 5, 3), ((4, 9), 11, 16), ((3, 2, 5), 4, 17), ((40,), 2, 33), ((0,), 3, 2)]


@DTYPES
@pytest.mark.parametrize(("shape", "rows", "width"), SHAPES)
@pytest.mark.parametrize("padding_idx", [None, 0])
def test_the_formula_is_the_product_with_one_hot_rows(shape, rows, width, padding_idx, dtype):
    grad, indices = drawn(shape, rows, width, dtype)
    found = reference.embedding_weight(grad, indices, rows, padding_idx)
    assert found.dtype == dtype and found.shape == (rows, width)
    np.testing.assert_allclose(found, as_a_product(grad, indices, rows, padding_idx), rtol=1e-5, atol=1e-5)


@DTYPES
@pytest.mark.parametrize(("shape", "rows", "width"), [*SHAPES, ((70, 30), 50, 65), ((2000,), 3, 40)])
@pytest.mark.parametrize("padding_idx", [None, 0])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_kernel_follows_its_formula(compiled, shape, rows, width, padding_idx, threads, dtype, monkeypatch):
    monkeypatch.setattr(compiled, "_threads", threads)
    grad, indices = drawn(shape, rows, width, dtype)
    found = compiled.embedding_weight(grad, indices, rows, padding_idx)
    expected = reference.embedding_weight(grad, indices, rows, padding_idx)
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@DTYPES
def test_the_number_of_threads_changes_no_bit(compiled, dtype, monkeypatch):
    grad, indices = drawn((3000,), 7, 97, dtype)
    found = []
    for threads in (1, 2, 3, 200):
        monkeypatch.setattr(compiled, "_threads", threads)
        found.append(compiled.embedding_weight(grad, indices, 7).tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_their_row_and_no_other(compiled, value):
    grad, indices = drawn((20,), 4, 9, np.float32)
    grad[3, 2] = value
    for module in (compiled, reference):
        found = module.embedding_weight(grad, indices, 4)
        assert not np.isfinite(found[indices[3], 2])
        assert np.isfinite(found).sum() == found.size - 1
    grad[:, 0], padded = value, int(indices[3])
    for module in (compiled, reference):
        assert (module.embedding_weight(grad, indices, 4, padded)[padded] == 0).all()


@DTYPES
@pytest.mark.parametrize("index_dtype", [np.int64, np.int32])
def test_rows_are_looked_up(dtype, index_dtype):
    weight = np.arange(12, dtype=dtype).reshape(4, 3)
    for table in (weight, np.asfortranarray(weight), np.repeat(weight, 2, axis=0)[::2]):
        found = embedding.embedding(table, np.array([[3, 0], [0, 2]], index_dtype))
        assert found.dtype == dtype and found.flags.c_contiguous
        assert found.tolist() == [[[9, 10, 11], [0, 1, 2]], [[0, 1, 2], [6, 7, 8]]]
        assert embedding.embedding(table, np.array(1, index_dtype)).tolist() == [3, 4, 5]
        assert embedding.embedding(table, np.zeros((2, 0), index_dtype)).shape == (2, 0, 3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("index_dtype", [np.int64, np.int32])
def test_any_layout_and_precision_gives_the_gradient(dtype, index_dtype):
    grad, indices = drawn((6, 8), 5, 4, dtype)
    expected = as_a_product(grad, indices, 5)
    swapped = np.ascontiguousarray(grad.swapaxes(0, 1)).swapaxes(0, 1)
    for given in (grad, np.asfortranarray(grad), swapped):
        for rows in (indices.astype(index_dtype), np.asfortranarray(indices.astype(index_dtype))):
            found = embedding.embedding_weight(given, rows, 5)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, expected, rtol=1e-2, atol=3e-2 if dtype == "float16" else 1e-5)
