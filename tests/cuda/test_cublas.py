"""What cuBLAS is told about a product: worked out without a GPU, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import shared
from shared.arrays import cublas, dtypes, gemm
from shared.arrays.device import module_for, to_device
from tests.cuda import cublas as library
from tests.cuda.stand_in import in_place_of_cupy

LAYOUTS = {  # of x in memory, by the functions of its module
    "rows": lambda xp, x: xp.ascontiguousarray(x),
    "columns": lambda xp, x: xp.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2),
    "padded rows": lambda xp, x: xp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 3)])[..., :-3],
    "gaps everywhere": lambda xp, x: xp.repeat(xp.repeat(x, 2, -1), 2, -2)[..., ::2, ::2],
    "backwards": lambda xp, x: xp.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :],
    "heads inside": lambda xp, x: xp.moveaxis(xp.ascontiguousarray(xp.moveaxis(x, 0, -2)), -2, 0),
}
SHAPES = [
    ((5, 7), (7, 3)),
    ((1, 7), (7, 1)),
    ((4, 1), (1, 6)),
    ((2, 5, 7), (2, 7, 3)),
    ((2, 5, 7), (7, 3)),
    ((5, 7), (4, 7, 3)),
    ((3, 2, 5, 7), (3, 2, 7, 4)),
    ((3, 1, 5, 7), (2, 7, 4)),
    ((2, 3, 5, 1), (2, 1, 1, 4)),
    ((1, 5, 7), (1, 7, 3)),
    ((20, 1, 2, 3), (1, 18, 3, 2)),
]


def drawn(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("left", LAYOUTS)
def test_every_layout_is_multiplied(left, right):
    with in_place_of_cupy():
        xp = module_for("cuda")
        for shapes in SHAPES:
            a, b = (drawn(s, np.float64, i) for i, s in enumerate(shapes))
            found = gemm.matmul(
                LAYOUTS[left](xp, to_device(a, "cuda")),
                LAYOUTS[right](xp, to_device(b, "cuda")),
            )
            assert found.flags.c_contiguous
            np.testing.assert_allclose(found.get(), a @ b, 1e-12, 1e-12, err_msg=str(shapes))


@pytest.mark.parametrize("layout", ["rows", "columns", "padded rows"])
def test_what_blas_can_read_is_not_copied(layout, monkeypatch):
    monkeypatch.setattr(cublas, "xp", lambda x: pytest.fail("something was copied"))
    for _, shape in SHAPES:
        x = LAYOUTS[layout](np, drawn(shape, np.float32, 0))
        assert cublas._readable(x) is x


@pytest.mark.parametrize(
    ("shapes", "batch", "calls"),
    [
        (((5, 7), (7, 3)), 1, 1),
        (((8, 5, 7), (7, 3)), 1, 1),  # one tall matrix
        (((8, 5, 7), (8, 7, 3)), 8, 1),
        (((2, 4, 5, 7), (2, 4, 7, 3)), 8, 1),
        (((2, 4, 5, 7), (4, 7, 3)), 4, 2),
        (((20, 1, 2, 3), (1, 18, 3, 2)), 360, 1),  # 18 calls would be too many: copied
    ],
)
def test_few_calls_do_a_batch(shapes, batch, calls):
    with in_place_of_cupy():
        library.calls.clear()
        gemm.matmul(*[to_device(drawn(s, np.float32, 0), "cuda") for s in shapes])
    assert [call[3] for call in library.calls] == [batch] * calls


def test_heads_of_attention_are_multiplied_where_they_lie():
    """q, k (B, T, heads, d) → scores (B, heads, T, T): the batch has two steps, so there is one call an image."""
    q, k = (drawn((2, 5, 3, 4), np.float32, i).transpose(0, 2, 1, 3) for i in (0, 1))
    todo = cublas.plan(q.shape, cublas._in_elements(q), k.swapaxes(2, 3).shape, cublas._in_elements(k.swapaxes(2, 3)))
    assert (todo.a_leading, todo.b_transposed, todo.b_leading) == (12, True, 12)
    assert (todo.batch, todo.steps, len(todo.offsets)) == (3, (4, 4, 25), 2)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_each_dtype_is_summed_in_its_arithmetic(name):
    dtype = dtypes.as_dtype(name)
    a, b = drawn((3, 65, 40), np.float32, 0).astype(dtype), drawn((3, 40, 9), np.float32, 1).astype(dtype)
    with in_place_of_cupy():
        library.calls.clear()
        found = gemm.matmul(to_device(a, "cuda"), to_device(b, "cuda"))
    assert found.dtype == dtype
    expected = (a.astype(np.float64) @ b.astype(np.float64)).astype(dtype)
    tolerance = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 1e-5, "float64": 1e-12}[name]
    np.testing.assert_allclose(found.get().astype(float), expected.astype(float), tolerance, tolerance)
    kind = library.CUBLAS_COMPUTE_64F if name == "float64" else library.CUBLAS_COMPUTE_32F
    assert [call[4] for call in library.calls] == [kind]


@pytest.mark.parametrize(
    "shapes",
    [
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4,)),
        ((4,), (2, 4, 5)),
        ((0, 4), (4, 5)),
        ((3, 0), (0, 2)),
    ],
)
def test_vectors_and_empty_matrices_keep_their_dtype(shapes):
    for dtype in (np.dtype("float32"), dtypes.bfloat16):
        a, b = (drawn(s, dtype, i) for i, s in enumerate(shapes))
        with in_place_of_cupy():
            found = gemm.matmul(to_device(a, "cuda"), to_device(b, "cuda"))
        expected = np.asarray(a.astype(float) @ b.astype(float))
        assert found.dtype == dtype and found.shape == expected.shape
        np.testing.assert_allclose(found.get().astype(float), expected, 2e-2, 2e-2)


def test_what_cublas_does_not_do_is_left_to_cupy():
    with in_place_of_cupy():
        library.calls.clear()
        matrix, whole = (to_device(x, "cuda") for x in (drawn((4, 4), np.float32, 0), np.arange(16).reshape(4, 4)))
        assert gemm.matmul(whole, whole).dtype == np.int64
        with pytest.raises(ValueError, match="mismatch"):
            gemm.matmul(matrix, matrix[:3])
        assert not library.calls


def test_tf32_is_used_where_it_was_allowed(monkeypatch):
    """By either of PyTorch's two switches."""
    monkeypatch.setattr(cublas, "allow_tf32", False)
    used = []
    with in_place_of_cupy():
        x, wide = (to_device(drawn((4, 4), t, 0), "cuda") for t in (np.float32, np.float64))
        for switch in (
            lambda: None,
            lambda: shared.set_float32_matmul_precision("high"),
            lambda: shared.set_float32_matmul_precision("highest"),
            lambda: setattr(shared.backends.cuda.matmul, "allow_tf32", True),
        ):
            switch()
            library.calls.clear()
            gemm.matmul(x, x), gemm.matmul(wide, wide)
            used.append([call[4] for call in library.calls])
    plain, fast = [library.CUBLAS_COMPUTE_32F, 70], [library.CUBLAS_COMPUTE_32F_FAST_TF32, 70]
    assert used == [plain, fast, plain, fast]
    assert shared.get_float32_matmul_precision() == "high"
    with pytest.raises(RuntimeError, match="'low' is not one of"):
        shared.set_float32_matmul_precision("low")
