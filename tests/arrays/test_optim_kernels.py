"""The optimizers' kernels that take all parameters at once, against the formulas one by one."""

from __future__ import annotations

import numpy as np
import pytest

from shared.arrays import kernels
from shared.arrays.kernels import optim
from shared.arrays.kernels.optim import reference

pytest.importorskip("numba", reason="Numba is not installed: the reference kernels serve")
compiled = kernels._compiled("optim")
if compiled is None:
    pytest.skip("SHARED_KERNELS=reference keeps to the formulas", allow_module_level=True)

SHAPES = [(), (0,), (1,), (7, 3), (16,), (17,), (33, 1), (70_001,), (2, 0, 3), (5,)]
ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
THREADS = pytest.mark.parametrize("threads", [1, 2, 3])


def columns(dtype, count, shapes=SHAPES):
    """For each of `count` columns one array per parameter; the fourth, a mean of squares, is positive."""
    rng = np.random.default_rng(0)
    found = [[np.asarray(rng.standard_normal(s), dtype) for s in shapes] for _ in range(count)]
    return [[np.asarray(a * a) for a in column] if i == 3 else column for i, column in enumerate(found)]


def counters(n=10):
    """Step counters of the first n parameters, as they stand: 0, 1, 2, …"""
    return [np.array(i, np.float32) for i in range(n)]


def assert_same(ours, expected, dtype):
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for ours_column, expected_column in zip(ours, expected, strict=True):
        for a, b in zip(ours_column, expected_column, strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@DTYPES
@THREADS
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_adam_of_all_parameters_is_the_formula_of_each(dtype, threads, decoupled, maximize, monkeypatch):
    monkeypatch.setattr(compiled, "_threads", threads)
    ours, expected, steps = columns(dtype, 4), columns(dtype, 4), counters()
    for turn in (1, 2):
        compiled.adam_all(*ours, steps, **ADAM, decoupled=decoupled, maximize=maximize)
        for i, (p, g, m, v) in enumerate(zip(*expected, strict=True)):
            reference.adam(p, -g if maximize else g, m, v, **ADAM, decoupled=decoupled, step=i + turn)
    assert_same(ours, expected, dtype)
    assert [int(s) for s in steps] == [i + 2 for i in range(len(SHAPES))]


@DTYPES
@THREADS
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_sgd_of_all_parameters_is_the_formula_of_each(dtype, threads, momentum, nesterov, maximize, monkeypatch):
    monkeypatch.setattr(compiled, "_threads", threads)
    options = SGD | {"momentum": momentum, "nesterov": nesterov}
    ours, expected = columns(dtype, 3), columns(dtype, 3)
    for _ in range(2):
        compiled.sgd_all(*ours[:2], ours[2] if momentum else None, **options, maximize=maximize)
        for p, g, b in zip(*expected, strict=True):
            reference.sgd(p, -g if maximize else g, b if momentum else None, **options)
    assert_same(ours, expected, dtype)


@DTYPES
def test_the_number_of_threads_changes_no_bit(dtype, monkeypatch):
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(compiled, "_threads", threads)
        ours = columns(dtype, 4)
        compiled.adam_all(*ours, counters(), **ADAM, decoupled=True)
        compiled.scale_all(ours[1], 0.7)
        found.append([*(a.tobytes() for column in ours for a in column), compiled.squares(ours[0]).tobytes()])
    assert found[0] == found[1] == found[2]


def odd_cases():
    """Parameters that no single call can take: name, and the columns param, grad, exp_avg, exp_avg_sq."""

    def fresh(*shapes):
        return columns(np.float32, 4, shapes)

    mixed = fresh((3,), (4,))
    for column in mixed:
        column[1] = column[1].astype(np.float64)
    half = fresh((3,), (4,))
    for column in half:
        column[0] = column[0].astype(np.float16)
    strided = fresh((3, 4), (2,))
    strided[0][0] = np.zeros((6, 8), np.float32)[::2, ::2]
    transposed = fresh((3, 4), (2,))
    transposed[1][0] = np.ones((4, 3), np.float32).T
    twice = [[column[0], column[0]] for column in fresh((5,))]
    return {"mixed": mixed, "half": half, "strided": strided, "transposed gradient": transposed, "twice": twice}


@pytest.mark.parametrize("name", odd_cases())
def test_parameters_that_do_not_fit_one_call_get_their_step_all_the_same(name):
    ours, expected, steps = odd_cases()[name], odd_cases()[name], counters(2)
    optim.adam_all(*ours, steps, **ADAM, decoupled=True)
    for i, row in enumerate(zip(*expected, strict=True)):
        reference.adam(*row, **ADAM, decoupled=True, step=i + 1)
    for a, b in zip([a for c in ours for a in c], [b for c in expected for b in c], strict=True):
        np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=1e-3 if name == "half" else 1e-5, atol=1e-6)
    assert [int(s) for s in steps] == [1, 2]


def test_a_parameter_that_must_not_be_written_to_is_left_alone():
    """The kernels know addresses only: what NumPy would refuse has to be noticed before."""
    params, grads = columns(np.float32, 2, [(3,), (4,)])
    before = params[0].copy()
    params[0].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        optim.sgd_all(params, grads, None, **SGD | {"momentum": 0.0}, nesterov=False)
    with pytest.raises(ValueError, match="read-only"):
        optim.scale_all(params, 2.0)
    assert np.array_equal(params[0], before)


def test_a_gradient_of_another_size_is_an_error():
    params, grads = columns(np.float32, 2, [(3,), (4,)])
    grads[1] = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="broadcast"):
        optim.sgd_all(params, grads, None, **SGD | {"momentum": 0.0}, nesterov=False)


# ---------------------------------------------------------------- norm and scaling


@DTYPES
@THREADS
def test_squares_are_summed_as_in_the_formula(dtype, threads, monkeypatch):
    monkeypatch.setattr(compiled, "_threads", threads)
    (arrays,) = columns(dtype, 1)
    found = compiled.squares(arrays)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, reference.squares(arrays), rtol=1e-13)


@DTYPES
def test_squares_of_large_and_small_numbers_and_of_none(dtype):
    arrays = [np.full(100, 1e30, dtype), np.full(100, 1e-30, dtype), np.array([1, np.nan], dtype)]
    arrays += [np.array([1, -np.inf], dtype), np.array([np.inf, np.nan], dtype)]
    found = compiled.squares(arrays)
    np.testing.assert_allclose(found[:2], [1e62, 1e-58], rtol=1e-5)
    assert np.isnan(found[2]) and found[3] == np.inf and np.isnan(found[4])


def test_squares_of_strided_and_half_precision_arrays():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert optim.squares([x.T, x[:, ::2]]).tolist() == [506.0, 4 + 16 + 36 + 64 + 100.0]
    assert optim.squares([np.full(4, 300, np.float16)]).tolist() == [360_000.0]


@DTYPES
@THREADS
def test_scaling_multiplies_every_array(dtype, threads, monkeypatch):
    monkeypatch.setattr(compiled, "_threads", threads)
    (ours,), (expected,) = columns(dtype, 1), columns(dtype, 1)
    compiled.scale_all(ours, 0.3)
    reference.scale_all(expected, 0.3)
    assert_same([ours], [expected], dtype)


def test_addresses_are_those_numpy_says():
    from shared.arrays.kernels import addresses

    arrays = [np.zeros(shape) for shape in SHAPES] + [np.arange(10)[3:], np.zeros((4, 4), np.float32).T]
    expected = [a.ctypes.data for a in arrays]
    assert addresses._LOOK_UP, "on this Python the addresses have to be asked for one by one"
    assert addresses.addresses(arrays).tolist() == expected


def test_addresses_without_the_short_cut(monkeypatch):
    from shared.arrays.kernels import addresses

    monkeypatch.setattr(addresses, "_LOOK_UP", False)
    arrays = [np.zeros(3), np.ones((2, 2))]
    assert addresses.addresses(arrays).tolist() == [a.ctypes.data for a in arrays]
