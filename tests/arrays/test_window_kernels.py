"""Convolution and pooling on raw arrays: the formulas against loops, the compiled kernels against the formulas."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from shared.arrays import kernels
from shared.arrays.kernels.conv import reference as conv_formulas
from shared.arrays.kernels.pool import reference as pool_formulas
from shared.arrays.kernels.windows import Windows

pytest.importorskip("hypothesis")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


@st.composite
def layouts(draw, half_padding=False):
    """(size, windows): one to three dimensions, every window at least partly over the input."""
    size, numbers = [], []
    for _ in range(draw(st.integers(1, 3))):
        k, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        reach = (k - 1) * dilation + 1
        padding = draw(st.integers(0, k // 2 if half_padding else 2))
        n = max(1, reach - 2 * padding) + draw(st.integers(0, 4))
        count = (n + 2 * padding - reach) // stride + 1
        size.append(n)
        numbers.append((k, count - draw(st.integers(0, 1)) if count > 1 else count, stride, padding, dilation))
    return tuple(size), Windows(*zip(*numbers, strict=True))


def normal(*shape, seed=0, dtype="float64"):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def positions(windows, size):
    """For each window the places of its elements, None on padding: read off the definition, one by one."""
    for o in itertools.product(*map(range, windows.count)):
        elements = {}
        for k in itertools.product(*map(range, windows.kernel_size)):
            at = tuple(
                a * s + b * d - p
                for a, b, s, d, p in zip(o, k, windows.stride, windows.dilation, windows.padding, strict=True)
            )
            elements[k] = at if all(0 <= i < n for i, n in zip(at, size, strict=True)) else None
        yield o, elements


@given(layouts())
def test_columns_hold_the_windows(drawn):
    size, windows = drawn
    x = normal(2, 2, *size)
    columns = conv_formulas.im2col(x, windows).reshape(2, 2, *windows.kernel_size, *windows.count)
    for o, elements in positions(windows, size):
        for k, at in elements.items():
            expected = 0 if at is None else x[(slice(None), slice(None), *at)]
            assert np.array_equal(columns[(slice(None), slice(None), *k, *o)], np.broadcast_to(expected, (2, 2)))


def test_windows_over_an_array_without_its_padding_are_refused():
    windows, x = Windows((3, 3), (4, 4), (1, 1), (1, 1), (1, 1)), np.ones((2, 2, 4, 4))
    assert windows.over(windows.padded(x)).shape == (2, 2, 3, 3, 4, 4)
    with pytest.raises(ValueError, match=r"reach over \(6, 6\) elements .* \(4, 4\): windows.padded\(x\) first"):
        windows.over(x)


@given(layouts())
def test_col2im_is_the_transpose_of_im2col(drawn):
    size, windows = drawn
    x = normal(2, 2, *size)
    columns = conv_formulas.im2col(x, windows)
    other = normal(*columns.shape, seed=1)
    back = conv_formulas.col2im(other, size, windows)
    np.testing.assert_allclose((columns * other).sum(), (x * back).sum(), rtol=1e-9, atol=1e-9)


@given(layouts(), st.integers(1, 2))
def test_convolution_is_its_definition(drawn, groups):
    size, windows = drawn
    x, weight, bias = normal(2, 2 * groups, *size), normal(3 * groups, 2, *windows.kernel_size), normal(3 * groups)
    out = conv_formulas.conv(x, weight, bias, windows, groups)
    assert out.shape == (2, 3 * groups, *windows.count)
    for n, c in itertools.product(range(2), range(3 * groups)):
        seen = x[n, c // 3 * 2 : c // 3 * 2 + 2]
        for o, elements in positions(windows, size):
            terms = [
                weight[(c, i, *k)] * seen[(i, *at)] for k, at in elements.items() if at is not None for i in range(2)
            ]
            np.testing.assert_allclose(out[(n, c, *o)], bias[c] + sum(terms), rtol=1e-9, atol=1e-9)


@given(layouts(), st.integers(1, 2))
def test_gradients_of_convolution_are_its_transposes(drawn, groups):
    """Σ G · conv(x, W) is linear in each of the three, so each derivative gives the number back."""
    size, windows = drawn
    x, weight = normal(2, 2 * groups, *size), normal(3 * groups, 2, *windows.kernel_size)
    grad = normal(2, 3 * groups, *windows.count, seed=1)
    number = (grad * conv_formulas.conv(x, weight, None, windows, groups)).sum()
    to_x = conv_formulas.conv_input(grad, weight, size, windows, groups)
    to_weight = conv_formulas.conv_weight(grad, x, windows, groups)
    assert to_x.shape == x.shape and to_weight.shape == weight.shape
    np.testing.assert_allclose([(to_x * x).sum(), (to_weight * weight).sum()], number, rtol=1e-9, atol=1e-9)


@given(layouts(half_padding=True))
def test_pooling_is_its_definition(drawn):
    size, windows = drawn
    x = np.round(normal(2, 2, *size))  # with ties
    best, places = pool_formulas.max_pool(x, windows)
    means = pool_formulas.avg_pool(x, windows, np.full(windows.count, 3.0))
    for o, elements in positions(windows, size):
        inside = [at for at in elements.values() if at is not None]
        for n, c in itertools.product(range(2), range(2)):
            values = [x[(n, c, *at)] for at in inside]
            np.testing.assert_allclose(means[(n, c, *o)], sum(values) / 3)
            if values:
                first = inside[values.index(max(values))]
                assert best[(n, c, *o)] == max(values)
                assert places[(n, c, *o)] == np.ravel_multi_index(first, size)


# ---------------------------------------------------------------- compiled


def compiled(family):
    pytest.importorskip("numba", reason="Numba is not installed: the reference kernels serve")
    found = kernels._compiled(family)
    return found or pytest.skip("SHARED_KERNELS=reference keeps to the formulas")


def assert_same(found, expected, dtype):
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    assert found.dtype == expected.dtype == dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


DTYPES = st.sampled_from(["float32", "float64"])


@given(layouts(), st.integers(1, 2), st.integers(1, 5), st.booleans(), DTYPES)
def test_compiled_convolution_follows_its_formula(drawn, groups, images, with_bias, dtype):
    cpu, (size, windows) = compiled("conv"), drawn
    x = normal(images, 2 * groups, *size, dtype=dtype)
    weight = normal(3 * groups, 2, *windows.kernel_size, dtype=dtype)
    bias = normal(3 * groups, dtype=dtype) if with_bias else None
    grad = normal(images, 3 * groups, *windows.count, dtype=dtype)
    for name, arguments in [
        ("conv", (x, weight, bias, windows, groups)),
        ("conv_input", (grad, weight, size, windows, groups)),
        ("conv_weight", (grad, x, windows, groups)),
    ]:
        assert_same(getattr(cpu, name)(*arguments), getattr(conv_formulas, name)(*arguments), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("channels", "outputs", "size"), [(20, 21, (14, 14)), (40, 3, (53, 51)), (30, 5, (4, 3, 3))])
def test_compiled_convolution_is_right_where_its_products_are_cut(channels, outputs, size, dtype):
    """Products of some rows, of all rows, of several images; the gradient turned for enough columns."""
    cpu, ones = compiled("conv"), (1,) * len(size)
    windows = Windows((3,) * len(size), size, ones, ones, ones)
    x, grad = normal(3, channels, *size, dtype=dtype), normal(3, outputs, *size, dtype=dtype)
    weight = normal(outputs, channels, *windows.kernel_size, dtype=dtype) / 30
    for name, arguments in [
        ("conv", (x, weight, normal(outputs, dtype=dtype), windows, 1)),
        ("conv_input", (grad, weight, size, windows, 1)),
        ("conv_weight", (grad, x, windows, 1)),
    ]:
        found, expected = getattr(cpu, name)(*arguments), getattr(conv_formulas, name)(*arguments)
        assert_same(found / abs(expected).max(), expected / abs(expected).max(), dtype)


@given(layouts(half_padding=True), DTYPES, st.integers(0, 2**32 - 1))
@pytest.mark.filterwarnings("ignore:invalid value")
def test_compiled_pooling_follows_its_formula(drawn, dtype, seed):
    cpu, (size, windows) = compiled("pool"), drawn
    choice = np.random.default_rng(seed).choice
    x = choice([1.0, 2.0, -1.0, np.nan, np.inf, -np.inf], (2, 2, *size), p=[0.3, 0.2, 0.2, 0.05, 0.05, 0.2])
    x = x.astype(dtype)
    (best, places), (best_, places_) = cpu.max_pool(x, windows), pool_formulas.max_pool(x, windows)
    assert np.array_equal(best, best_, equal_nan=True) and np.array_equal(places, places_)
    assert places.dtype == places_.dtype == np.int32
    grad = normal(2, 2, *windows.count, dtype=dtype)
    arguments = (grad, places, size, windows)
    assert_same(cpu.max_pool_input(*arguments), pool_formulas.max_pool_input(*arguments), dtype)
    divisor = choice([1, 2, 3], windows.count).astype(dtype)
    assert_same(cpu.avg_pool(x, windows, divisor), pool_formulas.avg_pool(x, windows, divisor), dtype)
    arguments = (grad, size, windows, divisor)
    assert_same(cpu.avg_pool_input(*arguments), pool_formulas.avg_pool_input(*arguments), dtype)


def test_a_window_with_nothing_but_padding_is_minus_infinity_and_gets_no_gradient():
    windows = Windows((2,), (2,), (1,), (2,), (3,))  # the first window is at −2 and 1 of one element
    for module in (pool_formulas, compiled("pool")):
        best, places = module.max_pool(np.ones((1, 1, 1)), windows)
        assert best[0, 0, 0] == -np.inf and places[0, 0, 0] == -1
        assert module.max_pool_input(np.ones((1, 1, 2)), places, (1,), windows).sum() == (places >= 0).sum()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_reach_the_windows_that_see_them_and_no_others(value):
    cpu, windows = compiled("conv"), Windows((3, 3), (6, 6), (1, 1), (1, 1), (1, 1))
    x = np.zeros((1, 1, 6, 6), "float32")
    x[0, 0, 1, 4] = value
    out = cpu.conv(x, np.ones((1, 1, 3, 3), "float32"), None, windows, 1)
    seen = np.zeros((6, 6), bool)
    seen[0:3, 3:6] = True
    assert np.array_equal(~np.isfinite(out[0, 0]), seen)
    back = cpu.conv_input(x, np.ones((1, 1, 3, 3), "float32"), (6, 6), windows, 1)
    assert np.array_equal(~np.isfinite(back[0, 0]), seen)


def test_threads_share_the_images_and_leave_blas_as_it_was():
    """In a process of its own, with two threads whatever the tests run with; a forked child works as well."""
    compiled("conv")
    code = """
import os, sys, numpy as np
from threadpoolctl import threadpool_info
from shared.arrays.kernels import _compiled
from shared.arrays.kernels.conv import reference
from shared.arrays.kernels.windows import Windows
conv, pool = _compiled("conv"), _compiled("pool")
assert conv._threads == 2
w = Windows((3, 3), (28, 28), (1, 1), (1, 1), (1, 1))
rng = np.random.default_rng(0)
x, weight, grad = (rng.normal(size=s).astype("float32") for s in [(9, 8, 28, 28), (16, 8, 3, 3), (9, 16, 28, 28)])
def check():
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    close(conv.conv(x, weight, None, w, 1), reference.conv(x, weight, None, w, 1))
    close(conv.conv_input(grad, weight, (28, 28), w, 1), reference.conv_input(grad, weight, (28, 28), w, 1))
    close(conv.conv_weight(grad, x, w, 1), reference.conv_weight(grad, x, w, 1))
    many = np.concatenate([x, x, x])
    assert np.array_equal(pool.max_pool(many, w)[0][9:18], pool.max_pool(x, w)[0])
before = {i["filepath"]: i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"}
check()
after = {i["filepath"]: i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"}
assert set(after.values()) == {2} and before.items() <= after.items(), (before, after)
if hasattr(os, "fork"):
    child = os.fork()
    if not child:
        check()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print("well")
"""
    threads = dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **threads}, check=False
    )
    assert done.stdout.strip() == "well", done.stderr
