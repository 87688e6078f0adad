"""Attention on raw arrays: the compiled kernels, block by block, against their formulas."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from shared.arrays import kernels
from shared.arrays.kernels import attention as public
from shared.arrays.kernels.attention import reference

pytest.importorskip("numba", reason="Numba is not installed: the reference kernels serve")
compiled = kernels._compiled("attention")
if compiled is None:
    pytest.skip("SHARED_KERNELS=reference keeps to the formulas", allow_module_level=True)

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}  # sums of hundreds of products, in another order
# (queries, keys, width, width of values): around the blocks of 32 queries and 256 keys, and tiles of 8 and 16.
SIZES = [
    (1, 1, 1, 1),
    (1, 40, 8, 8),
    (7, 5, 3, 2),
    (16, 16, 16, 16),
    (31, 33, 15, 17),
    (32, 32, 32, 32),
    (33, 64, 24, 8),
    (65, 255, 4, 5),
    (64, 256, 16, 16),
    (70, 257, 16, 40),
    (40, 530, 7, 9),
    (300, 90, 8, 8),
    (230, 300, 128, 16),  # fewer keys fit a product
]


def inputs(queries, keys, width, value_width, dtype, heads=4, key_heads=4, batch=2, seed=0):
    rng = np.random.default_rng([seed, queries, keys])
    shapes = [
        (batch, heads, queries, width),
        (batch, key_heads, keys, width),
        (batch, key_heads, keys, value_width),
        (batch, heads, queries, value_width),
    ]
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def masks(queries, keys, dtype, seed=1):
    rng = np.random.default_rng(seed)
    boolean = rng.random((queries, keys)) > 0.3
    boolean[queries // 2] = False  # a query that sees nothing
    late = np.ones((2, 1, 1, keys), bool)
    late[1, :, :, : keys - 1] = False  # nothing but the last key, in the last block
    return {
        "none": None,
        "boolean": boolean,
        "padding": late,
        "per head": rng.random((2, 4, queries, keys)) > 0.5,
        "added": rng.standard_normal((4, queries, keys)).astype(dtype),
        "added, -inf": np.where(boolean, rng.standard_normal((queries, keys)), -np.inf).astype(dtype),
        "one column": rng.standard_normal((queries, 1)).astype(dtype),
    }


def assert_follows(q, k, v, grad, mask=None, diagonal=None, scale=0.4, p=0.0, seed=2**40 + 7, tolerance=None):
    rest = mask, diagonal, scale, p, seed
    before = [x.copy() for x in (q, k, v, grad)]
    tolerance = tolerance or TOLERANCE[q.dtype.name]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        expected = reference.attention_forward(q, k, v, *rest)
        gradients = reference.attention_backward(q, k, v, *expected, grad, *rest)
    found = compiled.attention_forward(q, k, v, *rest)
    found_gradients = compiled.attention_backward(q, k, v, *found, grad, *rest)
    names = ("out", "logs", "to_q", "to_k", "to_v")
    for name, a, b in zip(names, (*found, *found_gradients), (*expected, *gradients), strict=True):
        assert a.dtype == b.dtype == q.dtype and a.shape == b.shape, name
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)
    for a, b in zip((q, k, v, grad), before, strict=True):
        np.testing.assert_array_equal(a, b, "an argument was changed")


@DTYPES
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("diagonal", [None, 0, 13, 50, -2, -33, -300])
def test_compiled_kernels_follow_their_formulas(size, diagonal, dtype):
    assert_follows(*inputs(*size, dtype), diagonal=diagonal)


@DTYPES
@pytest.mark.parametrize("diagonal", [None, 0, -2, 13, 50])
def test_kernels_and_formula_agree_with_the_formula_in_blocks(diagonal, dtype):
    """The second formula is put together of blocks as the kernels are; with −2 the first queries see no key."""
    for size in SIZES:
        q, k, v, _ = inputs(*size, dtype)
        found = compiled.attention_forward(q, k, v, None, diagonal, 0.4, 0.0, 0)
        for block in (1, 3, 16, 600) if size[0] < 40 else (24, 64):
            expected = reference.attention_in_blocks(q, k, v, 0.4, block, diagonal)
            for name, a, b in zip(("out", "logs"), found, expected, strict=True):
                assert a.dtype == b.dtype and a.shape == b.shape, name
                np.testing.assert_allclose(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], err_msg=name)


@DTYPES
@pytest.mark.parametrize("mask", list(masks(2, 2, "float32")))
@pytest.mark.parametrize("diagonal", [None, 0])
def test_masks_alone_and_with_a_diagonal(mask, diagonal, dtype):
    for size in [(7, 5, 3, 2), (70, 300, 16, 8)]:
        assert_follows(*inputs(*size, dtype), masks(*size[:2], dtype)[mask], diagonal)


@DTYPES
@pytest.mark.parametrize("p", [0.2, 0.75, 1.0])
def test_dropout_is_the_same_forward_and_backward(p, dtype):
    q, k, v, grad = inputs(40, 300, 16, 8, dtype)
    for mask, diagonal in [(None, None), (None, 0), (masks(40, 300, dtype)["boolean"], None)]:
        assert_follows(q, k, v, grad, mask, diagonal, p=p)
    zeros = (compiled.attention_forward(q, k, v, None, None, 0.4, p, 3)[0] == 0).all()
    assert zeros == (p == 1)


@DTYPES
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_heads_of_keys_serve_several_heads_of_queries(key_heads, dtype):
    for p in (0.0, 0.5):
        assert_follows(*inputs(33, 260, 16, 8, dtype, key_heads=key_heads), diagonal=3, p=p)


@DTYPES
def test_scores_far_apart_stay_finite(dtype):
    """The maximum moves from block to block; factors between blocks underflow."""
    q, k, v, grad = inputs(40, 600, 8, 8, dtype)
    k[:, :, 300:] *= 30
    q *= 30
    with np.errstate(under="ignore"):
        assert_follows(q, k, v, grad / 1000, tolerance=1e-3 if dtype == "float32" else 1e-10)  # scores near 1000
    out, logs = compiled.attention_forward(q, k, v, None, None, 1.0, 0.0, 0)
    assert np.isfinite(out).all() and np.isfinite(logs).all()


@DTYPES
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_head(value, dtype):
    q, k, v, grad = inputs(40, 300, 8, 8, dtype)
    k[1, 2, 280, 3] = value
    out, _ = compiled.attention_forward(q, k, v, None, None, 0.4, 0.0, 0)
    assert np.isnan(out[1, 2]).any(axis=-1).any(), "it was seen"
    out[1, 2] = 0
    assert np.isfinite(out).all()


@DTYPES
def test_a_query_that_sees_nothing_gets_zero_and_gives_nothing_back(dtype):
    q, k, v, grad = inputs(5, 300, 8, 8, dtype)
    mask = np.ones((5, 300), bool)
    mask[2] = False
    out, logs = compiled.attention_forward(q, k, v, mask, None, 0.4, 0.0, 0)
    to_q, to_k, to_v = compiled.attention_backward(q, k, v, out, logs, grad, mask, None, 0.4, 0.0, 0)
    assert (out[:, :, 2] == 0).all() and (logs[:, :, 2] == np.inf).all() and (to_q[:, :, 2] == 0).all()
    others = [0, 1, 3, 4]
    again = compiled.attention_forward(q[:, :, others], k, v, None, None, 0.4, 0.0, 0)
    rest = compiled.attention_backward(
        q[:, :, others], k, v, *again, grad[:, :, others].copy(), None, None, 0.4, 0.0, 0
    )
    np.testing.assert_allclose(to_k, rest[1], atol=TOLERANCE[dtype])
    np.testing.assert_allclose(to_v, rest[2], atol=TOLERANCE[dtype])


@DTYPES
def test_columns_of_one_projection_are_read_and_written_where_they_lie(dtype):
    batch, length, heads, width = 2, 70, 3, 16
    rng = np.random.default_rng(0)
    packed = rng.standard_normal((batch, length, 3, heads, width)).astype(dtype)
    q, k, v = (packed[:, :, i].swapaxes(1, 2) for i in range(3))
    assert all(public._in_rows(x) is x for x in (q, k, v))
    grad = rng.standard_normal((batch, length, heads, width)).astype(dtype).swapaxes(1, 2)
    assert_follows(q, k, v, grad, diagonal=0)
    out, logs = public.attention_forward(q, k, v, None, 0, 0.4, 0.0, 0)
    assert out.swapaxes(1, 2).flags.c_contiguous, "the result lies as q does: combining the heads copies nothing"
    target = np.full_like(packed, 7)
    into = tuple(target[:, :, i].swapaxes(1, 2) for i in range(3))
    public.attention_backward(q, k, v, out, logs, grad, None, 0, 0.4, 0.0, 0, into)
    expected = reference.attention_backward(q, k, v, out, logs, grad, None, 0, 0.4, 0.0, 0)
    for found, wanted in zip(into, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=3)[..., ::2],
        lambda x: x[:, :, ::-1],
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: np.broadcast_to(x[:, :, :1], x.shape),
    ],
    ids=["fortran", "every second", "reversed", "one batch", "one row"],
)
def test_any_layout_is_served(change, dtype):
    q, k, v, grad = (change(x) for x in inputs(20, 40, 16, 8, dtype))
    for diagonal in (None, 0):
        found = public.attention_forward(q, k, v, None, diagonal, 0.4, 0.0, 0)
        gradients = public.attention_backward(q, k, v, *found, grad, None, diagonal, 0.4, 0.0, 0)
        expected = reference.attention_forward(q, k, v, None, diagonal, 0.4, 0.0, 0)
        wanted = reference.attention_backward(q, k, v, *expected, grad, None, diagonal, 0.4, 0.0, 0)
        for a, b in zip((*found, *gradients), (*expected, *wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("size", [(0, 3, 2, 2), (3, 0, 2, 2), (3, 4, 0, 2), (3, 4, 2, 0)], ids=str)
def test_nothing_is_attended_to_without_an_error(size):
    q, k, v, grad = inputs(*size, "float32")
    out, logs = public.attention_forward(q, k, v, None, 0, 1.0, 0.0, 0)
    gradients = public.attention_backward(q, k, v, out, logs, grad, None, 0, 1.0, 0.0, 0)
    assert out.shape == grad.shape and [g.shape for g in gradients] == [x.shape for x in (q, k, v)]
    assert np.isfinite(out).all() and all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("change", [{0: 1}, {1: 3}, {3: 5}], ids=str)
def test_shapes_that_do_not_fit_together_are_refused(change):
    q, k, v, _ = inputs(5, 6, 4, 4, "float32")
    wrong = np.zeros([change.get(i, n) for i, n in enumerate(k.shape)], "float32")
    for keys, values in [(wrong, wrong), (k, wrong if 3 not in change else v[:, :, 1:])]:
        with pytest.raises(ValueError, match="do not fit together"):
            public.attention_forward(q, keys, values, None, None, 1.0, 0.0, 0)


def test_threads_share_the_heads_and_give_the_same_bits():
    code = """
import numpy as np
from shared.arrays.kernels import _compiled
attention = _compiled("attention")
assert attention._threads == 2
rng = np.random.default_rng(0)
q, grad = (rng.standard_normal((3, 6, 130, 32)).astype("float32") for _ in range(2))
k, v = (rng.standard_normal((3, 2, 130, 32)).astype("float32") for _ in range(2))
assert q.size * 130 * 2 >= attention.PARALLEL_FROM
rest = (None, 0, 0.2, 0.1, 5)
def results():
    found = attention.attention_forward(q, k, v, *rest)
    return (*found, *attention.attention_backward(q, k, v, *found, grad, *rest))
shared = results()
attention._threads = 1
for a, b in zip(shared, results()):
    assert np.array_equal(a, b)
print("well")
"""
    threads = dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **threads}, check=False
    )
    assert done.stdout.strip() == "well", done.stderr
