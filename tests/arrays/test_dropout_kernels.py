"""Dropout: the quality of its numbers, and the compiled kernels against the formulas, bit by bit."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import shared
from shared.arrays import kernels
from shared.arrays.kernels import dropout as family
from shared.arrays.kernels.dropout import reference
from shared.nn import functional as F

HERE = np.zeros(1)  # an array on the CPU
N = 1 << 18


def uniform(seed, count=N):
    return reference.uniform(seed, (count,), HERE)


SEEDS = [0, 1, 2**32, 2**63 + 5, *map(int, np.random.default_rng(0).integers(2**63, size=6))]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_numbers_are_uniform_and_neighbours_independent(seed):
    """Sums of N terms, each compared with its standard deviation: chance alone passes 4.5 once in 100,000."""
    u = uniform(seed)
    assert u.dtype == np.float32 and 0 <= u.min() and u.max() < 1
    counts = np.bincount((u * 256).astype(int), minlength=256)
    chi_square = ((counts - N / 256) ** 2 / (N / 256)).sum()
    assert abs(chi_square - 255) < 4.5 * np.sqrt(2 * 255)
    low = np.bincount((u * 2**24).astype(int) % 256, minlength=256)  # the lowest bits of the 24
    assert abs(((low - N / 256) ** 2 / (N / 256)).sum() - 255) < 4.5 * np.sqrt(2 * 255)
    for p in (0.01, 0.1, 0.5):
        dropped = (u < p) - p
        scale = p * (1 - p)
        assert abs(dropped.sum()) < 4.5 * np.sqrt(scale * N)
        for lag in (1, 2, 3, 4, 8, 28, 64, 128, 784, 1024, 4096):
            assert abs((dropped[lag:] * dropped[:-lag]).sum()) < 4.5 * scale * np.sqrt(N), (p, lag)


def test_masks_of_different_calls_have_nothing_in_common():
    """Also where the lower halves of two seeds are equal or near, and the places overlap."""
    for p in (0.1, 0.5):
        for upper in range(1, 9):
            for shift in (0, 1, 2, 1024):
                a = (uniform(77) < p) - p
                b = (uniform((upper << 32) + 77 + shift) < p) - p
                for other in (b, np.roll(b, shift)):
                    assert abs((a * other).sum()) < 4.5 * p * (1 - p) * np.sqrt(N), (p, upper, shift)


def test_the_formula_draws_scales_and_keeps_the_dtype():
    for dtype in (np.float16, np.float32, np.float64):
        x = np.full((40, 50), 3, dtype)
        out, mask = reference.dropout(x, 0.25, x.shape, seed=5)
        assert out.dtype == dtype and mask.dtype == np.bool_ and (x == 3).all()
        np.testing.assert_array_equal(out, np.where(mask, dtype(3) * dtype(4 / 3), 0))
        np.testing.assert_array_equal(mask, uniform(5, 2000).reshape(40, 50) >= 0.25)
    assert not reference.dropout(x, 1.0, x.shape, seed=5)[0].any()


def test_every_call_draws_a_mask_of_its_own_and_the_seed_repeats_it():
    x = shared.ones(1000)
    shared.manual_seed(3)
    first, second = F.dropout(x, 0.5), F.dropout(x, 0.5)
    shared.manual_seed(3)
    assert (F.dropout(x, 0.5) == first).all() and (F.dropout(x, 0.5) == second).all() and (first != second).any()


def test_a_numpy_probability_counts_as_a_number():
    shared.manual_seed(0)
    a = F.dropout(shared.ones(1000), np.float64(0.1))
    shared.manual_seed(0)
    assert a.dtype == shared.float32 and (F.dropout(shared.ones(1000), 0.1) == a).all()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_channels_are_dropped_whole(ndim):
    x = shared.ones(20, 30, *range(2, 2 + ndim))
    out = getattr(F, f"dropout{ndim}d")(x, 0.5).numpy().reshape(20, 30, -1)
    assert (out == out[..., :1]).all() and set(np.unique(out)) == {0, 2}
    layer = getattr(shared.nn, f"Dropout{ndim}d")(0.5)
    assert (layer.eval()(x) == x).all() and (layer.train()(x[0]) == 0).any()
    with pytest.raises(RuntimeError, match=rf"dropout{ndim}d: Expected {ndim + 1}D or {ndim + 2}D input"):
        getattr(F, f"dropout{ndim}d")(shared.ones(3), 0.5)


numba = pytest.importorskip("numba", reason="Numba is not installed: the reference kernels serve")
compiled = kernels._compiled("dropout")
if compiled is None:
    pytest.skip("SHARED_KERNELS=reference keeps to the formulas", allow_module_level=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [1e-7, 0.1, 0.5, 1 / 3, 0.999, 1.0])
def test_the_kernels_give_the_formulas_bits(p, dtype):
    for size in (*range(40), 1000, 4099):
        x = np.random.default_rng(size).normal(size=size).astype(dtype)
        seed = 2**64 - 1 - 12345 * size
        ours, expected = compiled.dropout(x, p, x.shape, seed), reference.dropout(x, p, x.shape, seed)
        for a, b in zip(ours, expected, strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)
        grad = compiled.dropout_input(x, p, ours[1])
        assert grad.dtype == dtype and np.array_equal(grad, reference.dropout_input(x, p, ours[1]))


def test_the_places_of_a_seed_go_on_where_32_bits_end():
    x = np.ones(1000, np.float32)
    for seed in (2**32 - 10, 2**64 - 10):
        assert np.array_equal(compiled.dropout(x, 0.5, x.shape, seed)[1], uniform(seed, 1000) >= 0.5)


def test_nan_and_infinity_stay_visible():
    x = np.array([np.nan, np.inf, -np.inf] * 20)
    for out in (compiled.dropout(x, 0.5, x.shape, 1)[0], reference.dropout(x, 0.5, x.shape, 1)[0]):
        assert not np.isfinite(out).any()


@pytest.mark.parametrize("shape", [(), (6, 10), (0, 3)])
def test_all_layouts_are_served(shape):
    x = np.random.default_rng(0).normal(size=(*shape, 2))[..., 0]
    out, mask = family.dropout(x, 0.5, x.shape, 9)
    np.testing.assert_array_equal(out, reference.dropout(x, 0.5, x.shape, 9)[0])
    assert out.shape == mask.shape == shape
    spread = np.broadcast_to(np.array(2.0), shape)
    np.testing.assert_array_equal(family.dropout_input(spread, 0.5, mask), reference.dropout_input(spread, 0.5, mask))


THREADS = """
import zlib
import numpy as np
from shared.arrays.kernels.dropout import cpu
assert cpu._threads == {threads}
x = np.random.default_rng(0).normal(size=cpu.PARALLEL_FROM + 7).astype("f4")
out, mask = cpu.dropout(x, 0.3, x.shape, 2**64 - 100)
print([zlib.crc32(a) for a in (out, mask, cpu.dropout_input(x, 0.3, mask))])
"""


def test_any_number_of_threads_gives_the_same_bits():
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core")

    def run(threads):
        env = {**os.environ, "NUMBA_NUM_THREADS": str(threads)}
        command = [sys.executable, "-c", THREADS.format(threads=threads)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    assert run(1) == run(2)
