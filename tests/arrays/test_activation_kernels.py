"""The compiled activation functions against their formulas, and both against exact values."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from shared.arrays import kernels
from shared.arrays.kernels import activation
from shared.arrays.kernels.activation import reference

pytest.importorskip("numba", reason="Numba is not installed: the reference kernels serve")
compiled = kernels._compiled("activation")
if compiled is None:
    pytest.skip("SHARED_KERNELS=reference keeps to the formulas", allow_module_level=True)

NAMES = ("relu", "sigmoid", "silu", "gelu", "gelu_tanh")
BY_RESULT = ("relu", "sigmoid")  # their gradients are computed from the result, the others' from the input
DTYPES = (np.float32, np.float64)
EPSILON = {np.float32: 2.0**-24, np.float64: 2.0**-53}


def numbers(*shape, seed=0, dtype=np.float64, width=3.0):
    return (np.random.default_rng([seed, *shape]).normal(size=shape) * width).astype(dtype)


def sigma(z):
    return 1 / (1 + np.exp(-z))


def exact(name, x):
    """(value, derivative) of a function at float64 numbers x."""
    special = pytest.importorskip("scipy.special")
    if name == "relu":
        return np.maximum(x, 0), (x > 0) * 1.0
    if name == "sigmoid":
        return sigma(x), sigma(x) * sigma(-x)
    if name == "gelu":
        return x * special.ndtr(x), special.ndtr(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    u = x if name == "silu" else math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)
    inner = 1.0 if name == "silu" else math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return x * sigma(u), sigma(u) + x * sigma(u) * sigma(-u) * inner


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_slopes_are_exact_to_a_few_roundings(name, dtype):
    x = np.concatenate([np.linspace(-6, 6, 20011), 10.0 ** np.arange(-30, 0), -(10.0 ** np.arange(-30, 0))])
    x = x.astype(dtype)
    value, slope = exact(name, x.astype(np.float64))
    out = getattr(compiled, name)(x)
    ours = getattr(compiled, f"{name}_input")(np.ones_like(x), out if name in BY_RESULT else x)
    # the tail of a GELU: its exponent, up to 18 and 33 there, is rounded
    rounding = EPSILON[dtype] * np.where(x < 0, 1 + 4 * x.astype(np.float64) ** 2, 1)
    np.testing.assert_array_less(abs(out - value), 4 * rounding * abs(value) + 1e-45)
    np.testing.assert_array_less(abs(ours - slope), 16 * EPSILON[dtype] * np.maximum(1, abs(slope)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails_keep_their_relative_accuracy(dtype):
    """Φ(−10) is 7.6e-24: the formula with 1 + erf gives 0 there. The exponent of 2, some 100, is rounded."""
    x = np.linspace(-12, -6, 101).astype(dtype)
    for name, limit in (("gelu", 400), ("silu", 20), ("sigmoid", 20)):
        np.testing.assert_allclose(getattr(compiled, name)(x), exact(name, x.astype(float))[0], limit * EPSILON[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_size_follows_the_formula(name, dtype):
    """Vectors of all widths, and what is left over."""
    close = {"rtol": 40 * EPSILON[dtype], "atol": 400 * EPSILON[dtype]}  # the formulas' 1 − σ loses digits
    for size in (*range(70), 1000, 4099):
        x, grad = numbers(size, dtype=dtype), numbers(size, seed=1, dtype=dtype)
        before = x.copy(), grad.copy()
        out = getattr(compiled, name)(x)
        expected = getattr(reference, name)(x)
        assert out.dtype == dtype and out.shape == x.shape
        np.testing.assert_allclose(out, expected, **close)
        saved = expected if name in BY_RESULT else x
        ours = getattr(compiled, f"{name}_input")(grad, saved)
        np.testing.assert_allclose(ours, getattr(reference, f"{name}_input")(grad, saved), **close)
        assert ours.dtype == dtype and np.array_equal(x, before[0]) and np.array_equal(grad, before[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_result_does_not_depend_on_its_place(name, dtype):
    x = numbers(83, dtype=dtype)
    alone = np.concatenate([getattr(compiled, name)(x[i : i + 1]) for i in range(len(x))])
    assert np.array_equal(getattr(compiled, name)(x), alone)


def test_special_numbers_as_in_pytorch():
    """At −∞ each x · f(x) is −∞ · 0, and the slopes at ±∞ are 1 + ∞ · 0."""
    for dtype in DTYPES:
        x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30], dtype)
        ones, nan, inf = np.ones_like(x), np.nan, np.inf
        np.testing.assert_array_equal(compiled.relu(x), [nan, inf, 0, 0, 0, x[5], 0])
        np.testing.assert_array_equal(compiled.relu_input(ones, compiled.relu(x)), [1, 1, 0, 0, 0, 1, 0])
        np.testing.assert_array_equal(compiled.sigmoid(x), [nan, 1, 0, 0.5, 0.5, 1, 0])
        for name in ("silu", "gelu", "gelu_tanh"):
            np.testing.assert_array_equal(getattr(compiled, name)(x), [nan, inf, nan, 0, 0, x[5], 0], name)
            slopes = getattr(compiled, f"{name}_input")(ones, x)
            np.testing.assert_array_equal(slopes[:5], [nan, nan, nan, 0.5, 0.5], name)


def test_relu_passes_no_gradient_where_it_is_closed_however_large():
    grad = np.array([np.inf, np.nan, 2.0])
    np.testing.assert_array_equal(compiled.relu_input(grad, np.array([0.0, 0.0, 3.0])), [0, 0, 2])
    np.testing.assert_array_equal(reference.relu_input(grad, np.array([0.0, 0.0, 3.0])), [0, 0, 2])


def test_strided_arrays_and_other_dtypes_are_served():
    x = numbers(6, 10)
    for strided in (x.T, x[:, ::2], np.broadcast_to(x[:1], (4, 10)), x[0, 0]):
        np.testing.assert_allclose(activation.gelu(strided), reference.gelu(strided), rtol=1e-12, atol=1e-14)
        ours = activation.gelu_input(strided, strided)
        np.testing.assert_allclose(ours, reference.gelu_input(strided, strided), rtol=1e-12, atol=1e-14)
    assert activation.sigmoid(np.zeros(3, np.float16)).dtype == np.float16
    assert np.array_equal(activation.relu(np.array([-2, 3])), [0, 3])


THREADS = """
import numpy as np
from shared.arrays.kernels.activation import cpu
assert cpu._threads == {threads}
x = np.random.default_rng(0).normal(size=(cpu.PARALLEL_FROM // 7 + 3, 7)).astype("f4")
total = 0.0
for name in {names}:
    out = getattr(cpu, name)(x)
    total += float(out.sum(dtype="f8") + getattr(cpu, name + "_input")(x, x).sum(dtype="f8"))
print(repr(total))
"""


def test_any_number_of_threads_gives_the_same_numbers():
    def run(threads):
        env = {**os.environ, "NUMBA_NUM_THREADS": str(threads)}
        code = THREADS.format(threads=threads, names=NAMES)
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout

    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core")
    assert run(1) == run(2)


def test_the_committed_polynomials_are_those_of_chebyfit():
    mpmath = pytest.importorskip("mpmath")
    mp, mpf = mpmath.mp, mpmath.mpf

    def power(f):
        return (mpf(2) ** f - 1) / f if abs(f) > mpf(10) ** -15 else mp.log(2)

    def tail(s):
        s = max(s, mpf(10) ** -12)
        a = 4 * s / (1 - s)
        return (mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2 * (1 + a / 4) - mpf(1) / 2) / s

    with mp.workdps(40):
        fits = [
            (compiled._POWER_32, mp.chebyfit(power, [-0.5, 0.5], 6), 1e-7),
            (compiled._POWER_64, mp.chebyfit(power, [-0.5, 0.5], 11), 1e-15),
            (compiled._TAIL_32[1:], mp.chebyfit(tail, [0, 1 - 1 / (1 + mpf("13.3") / 4)], 8), 1e-6),
            (compiled._TAIL_64[1:], mp.chebyfit(tail, [0, 1 - 1 / (1 + mpf(38) / 4)], 22), 1e-12),
        ]
    for committed, fitted, tolerance in fits:
        np.testing.assert_allclose(committed, [float(c) for c in reversed(fitted)], rtol=tolerance)
