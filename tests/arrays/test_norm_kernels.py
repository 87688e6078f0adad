"""Normalisation on raw arrays: the formulas against loops over the definition, the compiled kernels against them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from shared.arrays import kernels
from shared.arrays.kernels import norm
from shared.arrays.kernels.norm import reference as formulas

EPS = 1e-5


def normal(*shape, seed=0, dtype="float64", spread=1.0, centre=0.0):
    values = np.random.default_rng([seed, *shape]).normal(size=shape) * spread + centre
    return values.astype(dtype)


def parameters(count, dtype="float64"):
    return normal(count, seed=1, dtype=dtype), normal(count, seed=2, dtype=dtype)


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 1, 2), (6, 4, 1), (1, 2, 7)])
def test_batch_norm_is_its_definition(shape):
    x, (weight, bias) = normal(*shape, spread=2, centre=3), parameters(shape[1])
    out, mean, variance = formulas.batch_norm(x, weight, bias, EPS)
    for c in range(shape[1]):
        values = [x[n, c, i] for n in range(shape[0]) for i in range(shape[2])]
        middle = sum(values) / len(values)
        spread = sum((v - middle) ** 2 for v in values) / len(values)
        np.testing.assert_allclose([mean[c], variance[c]], [middle, spread])
        wanted = [weight[c] * (v - middle) / (spread + EPS) ** 0.5 + bias[c] for v in values]
        np.testing.assert_allclose(out[:, c].ravel(), wanted)
    given = formulas.normalize_channels(x, mean, variance, weight, bias, EPS)
    np.testing.assert_allclose(given, out)


def test_layer_and_rms_norm_are_their_definitions():
    x, (weight, bias) = normal(4, 6, spread=2, centre=3), parameters(6)
    out, mean, inv_std = formulas.layer_norm(x, weight, bias, EPS)
    rms, inv_rms = formulas.rms_norm(x, weight, EPS)
    for r, row in enumerate(x):
        middle = sum(row) / 6
        spread, square = sum((v - middle) ** 2 for v in row) / 6, sum(v * v for v in row) / 6
        np.testing.assert_allclose([mean[r, 0], inv_std[r, 0]], [middle, (spread + EPS) ** -0.5])
        np.testing.assert_allclose(out[r], weight * (row - middle) / (spread + EPS) ** 0.5 + bias)
        np.testing.assert_allclose(inv_rms[r, 0], (square + EPS) ** -0.5)
        np.testing.assert_allclose(rms[r], weight * row / (square + EPS) ** 0.5)


def test_group_norm_lies_between_layer_norm_and_instance_norm():
    x, (weight, bias) = normal(3, 6, 4, spread=2, centre=3), parameters(6)
    for groups in (1, 2, 3, 6):
        out, mean, variance = formulas.group_norm(x, groups, weight, bias, EPS)
        assert mean.shape == variance.shape == (3 * groups, 1)
        for n in range(3):
            for g in range(groups):
                part = slice(g * 6 // groups, (g + 1) * 6 // groups)
                values = x[n, part]
                normalized = (values - values.mean()) / (values.var() + EPS) ** 0.5
                np.testing.assert_allclose(out[n, part], normalized * weight[part, None] + bias[part, None])


def test_running_statistics_move_by_the_momentum():
    running = np.array([1.0, 2.0])
    formulas.update_running(running, np.array([3.0, 2.0]), 0.25)
    assert running.tolist() == [1.5, 2.0]
    assert formulas.unbiased(np.array([6.0]), 4).tolist() == [8.0]


def differences(function, x, grad, step=1e-6):
    """The gradient of Σ grad · function(x) by central differences, element by element."""
    found = np.empty_like(x)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        found[place] = ((function(up) - function(down)) * grad).sum() / (2 * step)
    return found


KINDS = {  # forward and backward with the same arguments (x, weight, bias), the shape of x, the size of weight
    "batch": (
        lambda m, x, w, b: m.batch_norm(x, w, b, EPS),
        lambda m, g, x, w, s: m.batch_norm_input(g, x, s[0], (s[1] + EPS) ** -0.5, w),
        (3, 4, 5),
        4,
    ),
    "group": (
        lambda m, x, w, b: m.group_norm(x, 2, w, b, EPS),
        lambda m, g, x, w, s: m.group_norm_input(g, x, 2, s[0], (s[1] + EPS) ** -0.5, w),
        (3, 4, 5),
        4,
    ),
    "layer": (
        lambda m, x, w, b: m.layer_norm(x, w, b, EPS),
        lambda m, g, x, w, s: m.layer_norm_input(g, x, *s, w),
        (4, 6),
        6,
    ),
    "rms": (
        lambda m, x, w, b: m.rms_norm(x, w, EPS),
        lambda m, g, x, w, s: (*m.rms_norm_input(g, x, *s, w), None),
        (4, 6),
        6,
    ),
}


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind, weighted):
    forward, backward, shape, size = KINDS[kind]
    x, grad = normal(*shape, spread=2, centre=1), normal(*shape, seed=3)
    weight, bias = parameters(size)
    if not weighted:
        weight = np.ones(size)
    _, *statistics = forward(formulas, x, weight, bias)
    to_x, to_weight, to_bias = backward(formulas, grad, x, weight if weighted else None, statistics)
    np.testing.assert_allclose(
        to_x, differences(lambda x: forward(formulas, x, weight, bias)[0], x, grad), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        to_weight, differences(lambda w: forward(formulas, x, w, bias)[0], weight, grad), rtol=1e-5, atol=1e-7
    )
    if to_bias is not None:
        found = differences(lambda b: forward(formulas, x, weight, b)[0], bias, grad)
        np.testing.assert_allclose(to_bias, found, rtol=1e-5, atol=1e-7)


def test_gradients_with_given_moments_are_those_of_finite_differences():
    x, grad, (weight, bias) = normal(3, 4, 5, spread=2, centre=1), normal(3, 4, 5, seed=3), parameters(4)
    mean, variance = normal(4, seed=4), normal(4, seed=5) ** 2
    for w in (weight, None):
        gradients = formulas.normalize_channels_input(grad, x, mean, (variance + EPS) ** -0.5, w)
        found = differences(lambda x, w=w: formulas.normalize_channels(x, mean, variance, w, bias, EPS), x, grad)
        np.testing.assert_allclose(gradients[0], found, rtol=1e-5, atol=1e-7)
    found = differences(lambda w: formulas.normalize_channels(x, mean, variance, w, bias, EPS), weight, grad)
    np.testing.assert_allclose(gradients[1], found, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradients[2], grad.sum(axis=(0, 2)))


# ---------------------------------------------------------------- compiled


def compiled():
    pytest.importorskip("numba", reason="Numba is not installed: the reference kernels serve")
    return kernels._compiled("norm") or pytest.skip("SHARED_KERNELS=reference keeps to the formulas")


def assert_same(found, expected, dtype, what=""):
    """Alike within some roundings of the largest element: sums are made in another order."""
    tolerance = 2e-5 if dtype == "float32" else 1e-11
    for place, (a, b) in enumerate(zip(found, expected, strict=True)):
        if b is None:
            continue
        assert a.dtype == b.dtype == dtype and a.shape == b.shape, f"{what} {place}"
        size = abs(b[np.isfinite(b)]).max(initial=1.0)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * size, err_msg=f"{what} {place}")


def both_ways(kind, module, x, grad, weight, bias):
    """Everything the forward and the backward of a kind return."""
    forward, backward, *_ = KINDS[kind]
    out, *statistics = forward(module, x, weight, bias)
    return (out, *statistics, *backward(module, grad, x, weight, statistics))


WIDTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 1000]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_compiled_rows_of_any_width_follow_their_formula(kind, dtype):
    cpu = compiled()
    for width in WIDTHS:
        for rows in (1, 3, 65) if width < 100 else (2,):
            x = normal(rows, width, dtype=dtype, spread=2, centre=1)
            grad, (weight, bias) = normal(rows, width, seed=3, dtype=dtype), parameters(width, dtype)
            for w, b in ((weight, bias), (None, None)):
                found, expected = (both_ways(kind, m, x, grad, w, b) for m in (cpu, formulas))
                if width == 1 and kind == "layer":  # x̂ is 0, and its gradient the rounding of 0
                    found, expected = found[:2], expected[:2]
                assert_same(found, expected, dtype, f"{rows} rows of {width}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["batch", "group"])
def test_compiled_channels_of_any_size_follow_their_formula(kind, dtype):
    cpu = compiled()
    shapes = [(3, 4, length) for length in WIDTHS] + [(1, 2, 9), (70, 2, 3), (129, 6, 1), (2, 34, 1)]
    for shape in shapes:
        x = normal(*shape, dtype=dtype, spread=2, centre=1)
        grad, (weight, bias) = normal(*shape, seed=3, dtype=dtype), parameters(shape[1], dtype)
        for w, b in ((weight, bias), (None, None), (weight, None)):
            found, expected = (both_ways(kind, m, x, grad, w, b) for m in (cpu, formulas))
            assert_same(found, expected, dtype, str(shape))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [1, 5, 64])
def test_compiled_channels_with_given_moments_follow_their_formula(length, dtype):
    cpu = compiled()
    x, grad = normal(3, 4, length, dtype=dtype), normal(3, 4, length, seed=3, dtype=dtype)
    (weight, bias), mean = parameters(4, dtype), normal(4, seed=4, dtype=dtype)
    variance = normal(4, seed=5, dtype=dtype) ** 2
    inv_std = formulas.inverse_std(variance, EPS)
    for w, b in ((weight, bias), (None, bias), (weight, None)):
        found, expected = (m.normalize_channels(x, mean, variance, w, b, EPS) for m in (cpu, formulas))
        assert_same([found], [expected], dtype)
        found, expected = (m.normalize_channels_input(grad, x, mean, inv_std, w) for m in (cpu, formulas))
        assert_same(found, expected, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_compiled_kernels_have_nan_and_infinity_where_the_formulas_have_them(kind, value, dtype):
    cpu, shape = compiled(), KINDS[kind][2]
    for target in ("x", "grad"):
        x, grad = normal(*shape, dtype=dtype), normal(*shape, seed=3, dtype=dtype)
        {"x": x, "grad": grad}[target][(1,) * x.ndim] = value
        for place, (a, b) in enumerate(
            zip(*(both_ways(kind, m, x, grad, None, None) for m in (cpu, formulas)), strict=True)
        ):
            if b is None:
                continue
            finite, expected = np.isfinite(a), np.isfinite(b)
            assert np.array_equal(finite, expected), f"{target}: result {place}: {a} instead of {b}"
            if value != 1e30:
                np.testing.assert_allclose(a[finite], b[finite], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_mean_costs_no_digits_of_the_variance(kind):
    """Mean 1000, deviation 1: the sum of squares alone would have lost all but two digits in float32."""
    cpu, (forward, _, shape, _) = compiled(), KINDS[kind]
    if kind == "rms":
        pytest.skip("there is no mean to subtract")
    x = normal(*shape, centre=1000.0)
    exact = forward(formulas, x.astype("float32").astype("float64"), None, None)[0]
    for module in (cpu, formulas):
        assert abs(forward(module, x.astype("float32"), None, None)[0] - exact).max() < 3e-4


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_float32_is_as_exact_as_the_formula(kind):
    cpu, size = compiled(), 512
    shape = (4096, size) if kind in ("layer", "rms") else (32, size, 49)
    x, grad = normal(*shape, dtype="float32", centre=0.5), normal(*shape, seed=3, dtype="float32")
    weight, bias = parameters(size, "float32")
    exact = both_ways(kind, formulas, *(a.astype("float64") for a in (x, grad, weight, bias)))
    found, plain = (both_ways(kind, m, x, grad, weight, bias) for m in (cpu, formulas))
    for a, b, c in zip(found, plain, exact, strict=True):
        if c is not None:
            error, allowed = abs(a - c).max(), abs(b - c).max()
            assert error <= 1.5 * allowed + 1e-7 * abs(c).max(), (error, allowed)


@pytest.mark.parametrize("layout", ["strided", "fortran", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_layout_and_dtype_is_served(kind, layout):
    *_, shape, size = KINDS[kind]
    x, grad, (weight, bias) = normal(*shape), normal(*shape, seed=3), parameters(size)
    expected = both_ways(kind, formulas, x, grad, weight, bias)
    if layout == "strided":
        wide = np.zeros((*shape, 2))
        wide[..., 0] = x
        x = wide[..., 0]
    elif layout == "fortran":
        x, grad = np.asfortranarray(x), np.asfortranarray(grad)
    else:
        x, grad, weight, bias = (a.astype("float16") for a in (x, grad, weight, bias))
    found = both_ways(kind, norm, x, grad, weight, bias)
    tolerance = 0.1 if layout == "float16" else 1e-9
    for a, b in zip(found, expected, strict=True):
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_rows_give_no_result_and_gradients_of_zero():
    out, mean, inv_std = norm.layer_norm(np.zeros((0, 3)), np.ones(3), np.ones(3), EPS)
    assert out.shape == (0, 3) and mean.shape == inv_std.shape == (0, 1)
    to_x, to_weight, to_bias = norm.layer_norm_input(out, out, mean, inv_std, np.ones(3))
    assert to_x.shape == (0, 3) and to_weight.tolist() == to_bias.tolist() == [0, 0, 0]


def test_threads_share_the_rows():
    """In a process of its own, with two threads whatever the tests run with."""
    compiled()
    code = """
import numpy as np
from shared.arrays.kernels import _compiled
from shared.arrays.kernels.norm import reference
from tests.arrays.test_norm_kernels import KINDS, both_ways, normal, parameters
cpu = _compiled("norm")
assert cpu._threads == 2
for kind in KINDS:
    shape = (4099, 130) if kind in ("layer", "rms") else (121, 70, 65)
    size = shape[1]
    x, grad, (weight, bias) = normal(*shape), normal(*shape, seed=3), parameters(size)
    assert x.size >= cpu.PARALLEL_FROM
    for a, b in zip(*(both_ways(kind, m, x, grad, weight, bias) for m in (cpu, reference)), strict=True):
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
print("well")
"""
    threads = dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **threads}, check=False
    )
    assert done.stdout.strip() == "well", done.stderr
