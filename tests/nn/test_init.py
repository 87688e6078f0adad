"""Initial values: the distribution each formula promises, and exact values where they are fixed."""

import importlib.util
import math

import numpy as np
import pytest

import shared
from shared import nn
from shared.nn import init

SHAPE = (300, 200)  # 60,000 numbers: a variance is known to about 0.6 %, the tolerance is 4 %


def drawn(function, *args, shape=SHAPE, **kwargs):
    shared.manual_seed(0)
    tensor = shared.full(shape, 9.0)
    assert function(tensor, *args, **kwargs) is tensor
    return tensor.numpy()


def check_uniform(values, bound):
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert np.abs(values).max() > bound * 0.999
    check_moments(values, 0.0, bound / math.sqrt(3))
    assert np.mean(values**4) / np.var(values) ** 2 == pytest.approx(9 / 5, rel=0.03), "flat, not bell-shaped"


def check_normal(values, std):
    check_moments(values, 0.0, std)
    assert np.mean(values**4) / np.var(values) ** 2 == pytest.approx(3.0, rel=0.05), "bell-shaped"


def check_moments(values, mean, std):
    assert values.mean() == pytest.approx(mean, abs=0.02 * std)
    assert values.std() == pytest.approx(std, rel=0.02)


def test_uniform_and_normal():
    check_uniform(drawn(init.uniform_, -0.3, 0.3), 0.3)
    assert drawn(init.uniform_).min() >= 0 and drawn(init.uniform_).max() < 1
    check_normal(drawn(init.normal_, 0.0, 2.0), 2.0)
    check_moments(drawn(init.normal_, mean=5.0, std=0.1), 5.0, 0.1)


@pytest.mark.parametrize("gain", [1.0, 5 / 3])
def test_xavier_has_variance_two_over_the_sum_of_the_fans(gain):
    std = gain * math.sqrt(2 / 500)
    check_uniform(drawn(init.xavier_uniform_, gain), std * math.sqrt(3))
    check_normal(drawn(init.xavier_normal_, gain), std)


@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 200), ("fan_out", 300)])
@pytest.mark.parametrize(
    ("a", "nonlinearity", "gain2"), [(0, "relu", 2), (0.5, "leaky_relu", 1.6), (0, "tanh", 25 / 9)]
)
def test_kaiming_has_variance_gain_squared_over_the_fan(mode, fan, a, nonlinearity, gain2):
    std = math.sqrt(gain2 / fan)
    check_uniform(drawn(init.kaiming_uniform_, a, mode, nonlinearity), std * math.sqrt(3))
    check_normal(drawn(init.kaiming_normal_, a, mode, nonlinearity), std)


def test_kernels_count_as_inputs_and_outputs():
    shape = (40, 30, 5, 3)
    check_normal(drawn(init.kaiming_normal_, nonlinearity="relu", shape=shape), math.sqrt(2 / (30 * 15)))
    check_normal(drawn(init.xavier_normal_, shape=shape), math.sqrt(2 / (70 * 15)))


def test_kaiming_keeps_the_variance_of_a_deep_relu_network_and_xavier_does_not():
    shared.manual_seed(1)
    x = shared.randn(200, 256)
    kept = lost = x
    for _ in range(12):
        weight = shared.empty(256, 256)
        kept = nn.functional.relu(kept @ init.kaiming_normal_(weight, nonlinearity="relu").T)
        lost = nn.functional.relu(lost @ init.xavier_normal_(weight).T)
    assert 0.3 < (kept**2).mean().item() < 3
    assert (lost**2).mean().item() < 0.01


@pytest.mark.parametrize(("a", "b"), [(-2.0, 2.0), (-0.5, 1.5), (2.5, 4.0)])
def test_trunc_normal_is_the_normal_between_its_limits(a, b):
    with pytest.warns(UserWarning, match="more than 2 std") if a > 2 else _nothing():
        values = drawn(init.trunc_normal_, 0.0, 1.0, a, b)
    assert values.min() >= a and values.max() <= b
    grid = np.linspace(a, b, 10001)
    density = np.exp(-grid * grid / 2)
    mean = (grid * density).sum() / density.sum()
    std = math.sqrt((grid**2 * density).sum() / density.sum() - mean**2)
    check_moments(values, mean, std)


class _nothing:
    def __enter__(self):
        pass

    def __exit__(self, *exc):
        pass


def test_constants_and_identities():
    assert (drawn(init.constant_, 0.25) == 0.25).all()
    assert (drawn(init.ones_) == 1).all() and (drawn(init.zeros_) == 0).all()
    assert np.array_equal(drawn(init.eye_, shape=(3, 5)), np.eye(3, 5))
    kernel = drawn(init.dirac_, shape=(4, 3, 5, 3))
    assert kernel.sum() == 3 and all(kernel[i, i, 2, 1] == 1 for i in range(3))
    grouped = drawn(init.dirac_, 2, shape=(4, 2, 3))
    assert [tuple(i) for i in np.argwhere(grouped == 1)] == [(0, 0, 1), (1, 1, 1), (2, 0, 1), (3, 1, 1)]


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (30, 5, 4), (20, 20)])
def test_orthogonal_rows_or_columns(shape):
    matrix = drawn(init.orthogonal_, 3.0, shape=shape).reshape(shape[0], -1)
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    assert np.allclose(small, 9 * np.eye(len(small)), atol=1e-4)
    assert (matrix < 0).any() and (matrix > 0).any()


def test_sparse_sets_a_share_of_each_column_to_zero():
    values = drawn(init.sparse_, 0.25, std=0.1, shape=(40, 7))
    assert ((values == 0).sum(axis=0) == 10).all()
    assert values[values != 0].std() == pytest.approx(0.1, rel=0.15)
    assert len({tuple(column) for column in (values == 0).T}) > 1, "other rows in other columns"


GAINS = [("linear", None), ("conv2d", None), ("sigmoid", None), ("tanh", None), ("relu", None), ("selu", None)]


@pytest.mark.parametrize(
    ("nonlinearity", "param", "gain"),
    [(n, p, g) for (n, p), g in zip(GAINS, [1, 1, 1, 5 / 3, math.sqrt(2), 0.75], strict=True)]
    + [("leaky_relu", None, math.sqrt(2 / 1.0001)), ("leaky_relu", 0.2, math.sqrt(2 / 1.04)), ("leaky_relu", 1, 1)],
)
def test_gains(nonlinearity, param, gain):
    assert init.calculate_gain(nonlinearity, param) == pytest.approx(gain, rel=1e-12)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed")
def test_gains_are_pytorchs():
    import torch

    for name in ["linear", "conv1d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]:
        assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)


def test_a_generator_of_ones_own_decides():
    values = [drawn(f, generator=shared.Generator().manual_seed(5)) for f in (init.normal_, init.normal_)]
    assert np.array_equal(*values)
    assert not np.array_equal(values[0], drawn(init.normal_))
    for function in (init.xavier_uniform_, init.kaiming_normal_, init.orthogonal_, init.trunc_normal_):
        once, twice = (drawn(function, generator=shared.Generator().manual_seed(5)) for _ in range(2))
        assert np.array_equal(once, twice), function.__name__


def test_parameters_are_filled_in_place_without_a_graph():
    layer = nn.Linear(4, 4)
    array = layer.weight.array
    for function in (init.xavier_normal_, init.eye_, init.orthogonal_, init.zeros_):
        function(layer.weight)
        assert layer.weight.array is array and layer.weight.is_leaf and layer.weight.requires_grad


def test_dtype_is_kept():
    for dtype in (shared.float64, shared.float16):
        assert init.kaiming_uniform_(shared.empty(3, 3, dtype=dtype)).dtype == dtype
        assert init.orthogonal_(shared.empty(3, 3, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init.xavier_uniform_(shared.empty(3)), "fewer than 2 dimensions, but its shape is .3,."),
        (lambda: init.kaiming_uniform_(shared.empty(3, 3), mode="fan"), "Mode fan not supported"),
        (lambda: init.calculate_gain("gelu"), "Unsupported nonlinearity gelu"),
        (lambda: init.calculate_gain("leaky_relu", True), "negative_slope True not a valid number"),
        (lambda: init.eye_(shared.empty(3)), "Only tensors with 2 dimensions are supported"),
        (lambda: init.sparse_(shared.empty(3), 0.5), "Only tensors with 2 dimensions are supported"),
        (lambda: init.orthogonal_(shared.empty(3)), "Only tensors with 2 or more dimensions are supported"),
        (lambda: init.dirac_(shared.empty(3, 3)), "Only tensors with 3, 4, or 5 dimensions are supported"),
        (lambda: init.dirac_(shared.empty(3, 3, 3), 2), "dim 0 must be divisible by groups"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("function", [init.kaiming_uniform_, init.kaiming_normal_])
def test_nothing_to_initialise_is_a_warning(function):
    with pytest.warns(UserWarning, match="zero-element tensors is a no-op"):
        function(shared.empty(0, 3))
    assert init.orthogonal_(shared.empty(0, 3)).shape == (0, 3)
