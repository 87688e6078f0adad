"""Softmax, log-softmax and cross-entropy on raw arrays: the compiled kernels against their formulas."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import shared
from shared.arrays import kernels
from shared.arrays.kernels import softmax as public
from shared.arrays.kernels.softmax import reference
from shared.nn import functional as F

pytest.importorskip("numba", reason="Numba is not installed: the reference kernels serve")
compiled = kernels._compiled("softmax")
if compiled is None:
    pytest.skip("SHARED_KERNELS=reference keeps to the formulas", allow_module_level=True)

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -2.0, 3e38, -3e38]
# Around the widths of vectors, of unrolled loops, and the border between rows taken in blocks and by themselves.
COLUMNS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 255, 256, 257, 1000, 2049, 50257]
# Sums in another order and a polynomial instead of exp: some roundings, of sums of numbers around 1.
TOLERANCE = {"float32": 4e-6, "float64": 1e-14}


def normal(*shape, dtype, scale=3.0, seed=0):
    return (scale * np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(dtype)


def calls(x, seed=0):
    """(name, arguments) of every kernel on x (N, C)."""
    dtype, rng = x.dtype, np.random.default_rng(seed)
    grad = rng.standard_normal(x.shape).astype(dtype)
    target = rng.integers(0, x.shape[1], len(x))
    rows = rng.standard_normal((len(x), 1)).astype(dtype)
    return [
        ("softmax", (x, 1)),
        ("softmax_gradient", (reference.softmax(x, 1), grad, 1)),
        ("log_softmax", (x, 1)),
        ("log_softmax_gradient", (reference.log_softmax(x, 1), grad, 1)),
        ("cross_entropy", (x, target)),
        ("cross_entropy_gradient", (x, target, rows)),
        ("cross_entropy_gradient", (x, target, dtype.type(0.5))),
    ]


def assert_follows(x, module=compiled):
    for name, arguments in calls(x):
        before = [np.array(a) for a in arguments]
        found, expected = getattr(module, name)(*arguments), getattr(reference, name)(*arguments)
        assert found.dtype == expected.dtype == x.dtype and found.shape == expected.shape
        tolerance = TOLERANCE[x.dtype.name] * max(1, np.sqrt(x.shape[1]) / 8)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=name)
        for a, b in zip(arguments, before, strict=True):
            np.testing.assert_array_equal(a, b, f"{name} changed an argument")


@DTYPES
@pytest.mark.parametrize("columns", COLUMNS)
def test_compiled_kernels_follow_their_formulas(columns, dtype):
    """So many rows that there are several blocks and the last one is not full."""
    assert_follows(normal(max(3, 5000 // columns), columns, dtype=dtype))


@DTYPES
@pytest.mark.parametrize("columns", [5, 300])
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero", "ignore:overflow")
def test_special_values_go_where_the_formulas_take_them(columns, dtype):
    rng = np.random.default_rng(0)
    x = normal(60, columns, dtype=dtype)
    places = rng.random(x.shape) < 1.5 / columns
    x[places] = rng.choice(SPECIAL, places.sum())
    x[0] = -np.inf
    x[1, 0] = -np.nan
    assert np.isnan(x).any() and np.isposinf(x).any()
    assert_follows(x)
    assert np.isnan(compiled.softmax(x[:1], 1)).all(), "a row of nothing but −inf"


@DTYPES
@pytest.mark.parametrize("columns", [4, 400])
def test_masked_entries_are_exact_zeros_and_far_ones_underflow(columns, dtype):
    x = np.zeros((2, columns), dtype)
    x[:, 1], x[:, 2] = -np.inf, -1e4
    for function in (compiled.softmax, compiled.log_softmax):
        out = np.exp(function(x, 1)) if function is compiled.log_softmax else function(x, 1)
        assert (out[:, 1:3] == 0).all()
        np.testing.assert_allclose(out.sum(1), 1, rtol=1e-6)
    gradient = compiled.cross_entropy_gradient(x, np.array([0, 3]), np.ones((2, 1), dtype))
    assert (gradient[:, 1:3] == 0).all()
    assert np.isposinf(compiled.cross_entropy(x, np.array([1, 1]))).all()


@DTYPES
def test_the_exponential_is_accurate_down_to_the_smallest_normal_number(dtype):
    info = np.finfo(dtype)
    largest, smallest = np.zeros(1, dtype), np.log(info.tiny)
    x = np.linspace(1.01 * smallest, 0, 100_001, dtype=dtype)[None]
    found = np.empty_like(x)
    compiled._exponentials(x, found, largest)
    exact = np.exp(x.astype(np.longdouble))
    normal_ones = x > smallest * (1 - 1e-4)
    error = np.abs(found / exact - 1)[normal_ones].max()
    assert error < 1.5 * info.eps, f"relative error {error:.2g}"
    assert (found[x < smallest * (1 + 1e-4)] == 0).all() and found[0, -1] == 1


@DTYPES
def test_large_logits_lose_nothing(dtype):
    """Only differences count: as in float64 of the differences."""
    x = np.array([[10000.25, 10000.0, 9999.5]], dtype)
    exact = reference.log_softmax(np.array([[0.25, 0.0, -0.5]]), 1)
    np.testing.assert_allclose(compiled.log_softmax(x, 1), exact, rtol=1e-6)
    np.testing.assert_allclose(compiled.cross_entropy(x, np.array([1])), -exact[:, 1], rtol=1e-6)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@DTYPES
def test_any_layout_and_dimension(dim, dtype):
    for x in (
        normal(4, 6, 10, dtype=dtype),
        normal(10, 6, 4, dtype=dtype).T,
        normal(8, 12, 20, dtype=dtype)[::2, ::2, ::2],
    ):
        grad = np.broadcast_to(normal(1, 6, 10, dtype=dtype, seed=1), x.shape)
        for name, arguments in (
            ("softmax", (x, dim)),
            ("log_softmax", (x, dim)),
            ("softmax_gradient", (reference.softmax(x, dim), grad, dim)),
            ("log_softmax_gradient", (reference.log_softmax(x, dim), grad, dim)),
        ):
            found, expected = getattr(public, name)(*arguments), getattr(reference, name)(*arguments)
            assert found.dtype == dtype and found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@DTYPES
def test_targets_and_logits_need_not_lie_in_rows(dtype):
    logits, target = normal(7, 5, dtype=dtype).T, np.array([0, 9, 6, 9, 1, 9, 3, 9, 3, 9])[::2]
    found = public.cross_entropy(logits, target)
    np.testing.assert_allclose(found, reference.cross_entropy(logits, target), rtol=1e-6)
    rows = normal(5, 1, dtype=dtype)
    np.testing.assert_allclose(
        public.cross_entropy_gradient(logits, target, rows),
        reference.cross_entropy_gradient(logits, target, rows),
        atol=1e-6,
    )


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_no_rows_at_all(shape):
    x = np.zeros(shape, np.float32)
    assert public.softmax(x, -1).shape == public.log_softmax_gradient(x, x, -1).shape == shape
    if len(shape) == 2:
        none = np.zeros(0, np.int64)
        assert public.cross_entropy(x, none).shape == (0,)
        assert public.cross_entropy_gradient(x, none, 1.0).shape == shape


def test_who_computes():
    single, x = np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float16)
    assert public._prepared(1, single)[0] is public._prepared(-1, single)[0] is compiled
    assert public._prepared(0, single)[0] is public._prepared(1, x)[0] is reference


def test_the_loss_keeps_nothing_of_the_size_of_the_logits():
    """Backward has the logits, which are there anyway, and computes the probabilities where the gradient is wanted."""
    logits = shared.randn(64, 1000, requires_grad=True)
    loss = F.cross_entropy(logits, shared.zeros(64, dtype=shared.long))
    assert [a is logits.array for a in loss.grad_fn.saved] == [True]
    with shared.no_grad():
        logits.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation: CrossEntropy"):
        loss.backward()


def test_the_gradient_of_softmax_can_be_differentiated():
    x = shared.tensor(normal(3, 5, dtype="float64"), requires_grad=True)
    weight = shared.tensor(normal(3, 5, dtype="float64", seed=1))
    for function in (F.softmax, F.log_softmax):

        def slope(z, function=function):
            return shared.autograd.grad((function(z, -1) * weight).sum(), [z], create_graph=True)[0]

        assert shared.testing.gradcheck(slope, [x])


def test_threads_share_the_rows():
    """In a process of its own, with two threads whatever the tests run with: the same numbers to the bit."""
    code = """
import numpy as np
from shared.arrays.kernels import _compiled
softmax = _compiled("softmax")
assert softmax._threads == 2 and softmax.PARALLEL_FROM <= 5001 * 65
rng = np.random.default_rng(0)
x, grad = (rng.standard_normal((5001, 65)).astype("float32") for _ in range(2))
target, rows = rng.integers(0, 65, 5001), rng.standard_normal((5001, 1)).astype("float32")
calls = [("softmax", (x, 1)), ("softmax_gradient", (x, grad, 1)), ("log_softmax", (x, 1)),
         ("log_softmax_gradient", (-x * x, grad, 1)), ("cross_entropy", (x, target)),
         ("cross_entropy_gradient", (x, target, rows))]
shared = [getattr(softmax, name)(*arguments) for name, arguments in calls]
softmax._threads = 1
for (name, arguments), found in zip(calls, shared):
    assert np.array_equal(found, getattr(softmax, name)(*arguments)), name
print("well")
"""
    threads = dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **threads}, check=False
    )
    assert done.stdout.strip() == "well", done.stderr
