"""dtypes of raw arrays and Python numbers, without tensors."""

import numpy as np
import pytest

from shared.arrays import dtypes
from shared.arrays.gemm import column_sums, matmul


def test_categories():
    assert [dtypes.category(d) for d in (dtypes.bool_, dtypes.uint8, dtypes.int64, dtypes.bfloat16)] == [0, 1, 1, 2]
    assert dtypes.is_floating(dtypes.bfloat16) and not dtypes.is_floating(dtypes.int64)


@pytest.mark.parametrize(
    "operands, expected",
    [
        ((np.ones(2, "int32"), 2), "int32"),
        ((np.ones(2, "int32"), 2.5), "float32"),
        ((np.ones(2, "float16"), np.float64(1).reshape(())), "float16"),
        ((np.ones(2, "int64"), np.ones((), "float64")), "float64"),
        ((np.ones(2, "bool"), True), "bool"),
        ((np.ones(2, "bool"), 3), "int64"),
        ((np.ones(2, "uint8"), np.ones((), "int32")), "uint8"),
        ((2, 2.5), "float32"),
        ((True, 2), "int64"),
    ],
)
def test_result_type(operands, expected):
    assert dtypes.result_type(*operands).name == expected


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
@pytest.mark.parametrize("rows", [1, 7, 8, 100])
def test_column_sums(dtype, rows):
    a = (np.arange(rows * 5) % 7).reshape(rows, 5).astype(dtype)
    for layout in (a, np.asfortranarray(a), np.repeat(a, 2, axis=1)[:, ::2]):
        np.testing.assert_allclose(column_sums(layout), a.sum(axis=0))
        assert column_sums(layout).dtype == a.dtype


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16, dtypes.float32])
def test_products_are_rounded_once(dtype):
    a = np.full((1, 3000), 1, dtype)
    assert abs(float(matmul(a, a.T)[0, 0]) - 3000) <= 8 and matmul(a, a.T).dtype == dtype
