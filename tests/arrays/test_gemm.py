"""Stacks of matrix products: the same numbers however they are laid out and however many threads share them."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from shared.arrays import gemm, threads

RNG = np.random.default_rng(0)
SHAPES = [
    ((3, 4, 5), (3, 5, 6)),
    ((2, 3, 4, 5), (5, 6)),  # one matrix for the whole stack
    ((4, 5), (2, 3, 5, 6)),
    ((2, 1, 4, 5), (3, 5, 6)),
    ((16, 65, 40), (16, 40, 33)),
    ((2, 1, 130, 70), (1, 9, 70, 50)),
    ((1, 128, 96), (1, 96, 128)),
    ((0, 4, 5), (0, 5, 6)),
    ((0, 4, 5), (5, 6)),
    ((3, 4, 0), (0, 6)),
    ((64, 40, 0), (64, 0, 50)),
]


def _expected(a, b):
    return np.einsum("...ij,...jk->...ik", a.astype("float64"), b.astype("float64"))


@pytest.mark.parametrize("threads_of_blas", [1, 2])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("transposed", ["", "a", "b", "ab"])
def test_a_stack_of_products(shapes, transposed, threads_of_blas):
    a, b = (RNG.standard_normal(shape).astype("float32") for shape in shapes)
    if "a" in transposed:
        a = np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
    if "b" in transposed:
        b = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    with threadpool_limits(threads_of_blas):
        out = gemm.matmul(a, b)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, _expected(a, b), rtol=1e-4, atol=1e-4)


def test_large_stacks_are_shared_among_threads_and_blas_gets_its_own_back(monkeypatch):
    shared_out = []
    monkeypatch.setattr(threads, "_all", lambda work, pieces: [shared_out.append(p) or work(*p) for p in pieces])
    monkeypatch.setattr(threads, "blas_threads", lambda: 2)
    a, b = (RNG.standard_normal((5, 64, 64)).astype("float32") for _ in "ab")
    before = [library.get_num_threads() for library in threads._loaded()]
    np.testing.assert_allclose(gemm.matmul(a, b), _expected(a, b), rtol=1e-4, atol=1e-4)
    assert shared_out == [(0, 0, 2), (1, 2, 5)]
    assert [library.get_num_threads() for library in threads._loaded()] == before
    shared_out.clear()
    gemm.matmul(a[:, :8, :8], b[:, :8, :8])
    assert not shared_out, "a small stack was given to threads"


def test_an_error_in_a_piece_is_raised_and_blas_keeps_its_threads():
    before = [library.get_num_threads() for library in threads._loaded()]

    def work(task, first, last):
        raise ZeroDivisionError(f"{first} to {last}")

    with pytest.raises(ZeroDivisionError, match="0 to 3"):
        threads.share(work, 6, 2, blas=True)
    assert [library.get_num_threads() for library in threads._loaded()] == before
