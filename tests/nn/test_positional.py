"""Positional encodings: the formula against a slow one and PyTorch's tutorial, and what the lessons rely on."""

import importlib.util
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared import nn
from shared.nn.positional import sinusoidal_encoding

BOTH = pytest.mark.parametrize("kind", [nn.PositionalEncoding, nn.LearnedPositionalEncoding])


def slowly(length, d_model, base=10000.0):
    """Number by number, as the paper writes it."""
    table = np.empty((length, d_model))
    for p in range(length):
        for i in range(d_model):
            angle = p / base ** (2 * (i // 2) / d_model)
            table[p, i] = math.cos(angle) if i % 2 else math.sin(angle)
    return table


def draw(*shape, seed=0, **options):
    return shared.tensor(np.random.default_rng(seed).standard_normal(shape), **options)


@pytest.mark.parametrize("d_model", [1, 2, 3, 6, 7, 16])
def test_the_formula_number_by_number(d_model):
    found = sinusoidal_encoding(9, d_model, dtype=shared.float64)
    assert found.shape == (9, d_model)
    assert np.allclose(found.numpy(), slowly(9, d_model), rtol=1e-12, atol=1e-12)
    assert np.allclose(
        sinusoidal_encoding(9, d_model, 50.0, dtype=shared.float64).numpy(), slowly(9, d_model, 50.0), atol=1e-12
    )


def test_the_first_positions_by_hand():
    table = sinusoidal_encoding(2, 4)
    assert table.dtype == shared.float32 and not table.requires_grad
    assert table[0].tolist() == [0, 1, 0, 1]
    assert np.allclose(table[1].tolist(), [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)], atol=1e-7)


def test_far_positions_are_as_exact_as_near_ones():
    assert np.allclose(sinusoidal_encoding(5000, 8).numpy()[-9:], slowly(5000, 8)[-9:], atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(pairs=st.integers(1, 8), position=st.integers(0, 200), shift=st.integers(0, 200))
def test_a_shift_is_a_rotation_that_does_not_depend_on_the_position(pairs, position, shift):
    """PE(p + k) = R(k) PE(p): each (sin, cos) pair turned by k ωᵢ."""
    d_model = 2 * pairs
    table = sinusoidal_encoding(position + shift + 1, d_model, dtype=shared.float64).numpy()
    for i in range(pairs):
        angle = shift * 10000 ** (-2 * i / d_model)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        pair = slice(2 * i, 2 * i + 2)
        assert np.allclose(table[position + shift, pair], turn @ table[position, pair], atol=1e-10)


def test_dot_products_depend_on_the_distance_and_are_largest_at_none():
    table = sinusoidal_encoding(40, 16, dtype=shared.float64).numpy()
    products = table @ table.T
    for distance in range(40):
        assert np.ptp(np.diagonal(products, distance)) < 1e-10
    assert np.allclose(np.diagonal(products), 8) and (products - np.diag([np.inf] * 40) < 8).all()


def test_no_two_positions_are_alike():
    table = sinusoidal_encoding(1000, 32).numpy()
    assert len(np.unique(table.round(4), axis=0)) == 1000


@BOTH
def test_batch_first_and_sequence_first_add_the_same(kind):
    x = draw(2, 5, 6, dtype=shared.float32)
    first, second = kind(6, 0.0, 10, batch_first=True), kind(6, 0.0, 10, batch_first=False)
    second.load_state_dict(first.state_dict())
    found = first(x)
    assert found.shape == (2, 5, 6)
    assert np.array_equal(found.numpy(force=True), second(x.transpose(0, 1)).transpose(0, 1).numpy(force=True))
    added = (found - x).numpy(force=True)
    assert np.allclose(added[0], added[1], atol=1e-6), "every sequence of the batch gets the same positions"
    for layer in (first, second):
        assert np.array_equal(layer(x[1]).numpy(force=True), found[1].numpy(force=True)), "without a batch dimension"


@BOTH
def test_start_continues_a_text(kind):
    x = draw(2, 7, 4, dtype=shared.float32)
    for batch_first in (True, False):
        layer = kind(4, 0.0, 7, batch_first=batch_first)
        whole = layer(x if batch_first else x.transpose(0, 1))
        whole = whole if batch_first else whole.transpose(0, 1)
        rest = layer(x[:, 5:] if batch_first else x[:, 5:].transpose(0, 1), start=5)
        rest = rest if batch_first else rest.transpose(0, 1)
        assert np.array_equal(rest.numpy(force=True), whole[:, 5:].numpy(force=True))


def test_sinusoids_are_added_and_are_no_parameter():
    layer, x = nn.PositionalEncoding(6, 0.0, 8), draw(3, 8, 6, dtype=shared.float32).requires_grad_()
    y = layer(x)
    assert np.allclose((y - x).numpy(force=True), slowly(8, 6)[None].repeat(3, 0), atol=1e-6)
    assert list(layer.parameters()) == [] and list(layer.state_dict()) == ["pe"]
    assert layer.pe.shape == (8, 1, 6)
    y.sum().backward()
    assert (x.grad == 1).all()


def test_dropout_is_applied_to_the_sum_and_only_in_training():
    shared.manual_seed(0)
    x = draw(4, 50, 64, dtype=shared.float32)
    for kind in (nn.PositionalEncoding, nn.LearnedPositionalEncoding):
        layer = kind(64, dropout=0.5)
        y = layer(x)
        kept = (y != 0).numpy(force=True)
        assert 0.45 < kept.mean() < 0.55
        plain = layer.eval()(x).numpy(force=True)
        assert np.allclose(y.numpy(force=True)[kept], 2 * plain[kept], rtol=1e-6)
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got 1.5"):
        nn.PositionalEncoding(4, dropout=1.5)


def test_learned_vectors_get_the_sum_of_the_gradients_of_their_position():
    shared.manual_seed(0)
    layer, x, g = nn.LearnedPositionalEncoding(3, 0.0, 6), draw(2, 4, 3), draw(2, 4, 3, seed=1)
    layer.double()
    assert list(layer.state_dict()) == ["weight"] and layer.weight.shape == (6, 3)
    layer(x, start=1).backward(g)
    wanted = np.zeros((6, 3))
    wanted[1:5] = g.numpy().sum(0)
    assert np.allclose(layer.weight.grad.numpy(), wanted, rtol=1e-12)


def test_learned_vectors_start_small_and_random():
    shared.manual_seed(1)
    weight = nn.LearnedPositionalEncoding(64, max_len=512).weight.numpy(force=True)
    assert abs(weight.std() - 0.02) < 0.001 and abs(weight.mean()) < 0.001


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed")
def test_it_is_the_module_of_pytorchs_tutorial():
    """Its lines, and its state dict loaded here."""
    import torch

    class Tutorial(torch.nn.Module):
        def __init__(self, d_model, dropout=0.1, max_len=5000):
            super().__init__()
            self.dropout = torch.nn.Dropout(p=dropout)
            position = torch.arange(max_len).unsqueeze(1)
            div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
            pe = torch.zeros(max_len, 1, d_model)
            pe[:, 0, 0::2] = torch.sin(position * div_term)
            pe[:, 0, 1::2] = torch.cos(position * div_term)
            self.register_buffer("pe", pe)

        def forward(self, x):
            return self.dropout(x + self.pe[: x.size(0)])

    theirs, ours = Tutorial(8, 0.0, 50), nn.PositionalEncoding(8, 0.0, 50, batch_first=False)
    state = {key: shared.from_numpy(value.numpy()) for key, value in theirs.state_dict().items()}
    x = np.random.default_rng(0).standard_normal((50, 3, 8)).astype("float32")
    wanted = theirs(torch.from_numpy(x)).numpy()
    assert np.allclose(ours(shared.from_numpy(x)).numpy(), wanted, atol=1e-5)
    ours.load_state_dict(state)
    assert np.array_equal(ours(shared.from_numpy(x)).numpy(), wanted)


@BOTH
def test_the_table_moves_with_the_module_and_takes_a_dtype(kind):
    assert kind(4, dtype=shared.float64).table().dtype == shared.float64
    layer = kind(4, 0.0).half()
    assert layer(shared.zeros(1, 2, 4, dtype=shared.float16)).dtype == shared.float16


@BOTH
def test_what_is_wrong_is_named(kind):
    name = kind.__name__
    with pytest.raises(ValueError, match=f"{name}: expected d_model to be an int of at least 1, but got 0"):
        kind(0)
    with pytest.raises(ValueError, match=f"{name}: expected max_len to be an int of at least 1, but got 2.5"):
        kind(4, max_len=2.5)
    layer = kind(4, max_len=10)
    with pytest.raises(
        RuntimeError, match=rf"{name}: expected \(batch, seq, d_model\).* d_model=4, but got shape \(2, 3, 5\)"
    ):
        layer(shared.zeros(2, 3, 5))
    with pytest.raises(RuntimeError, match=r"but got shape \(4,\)"):
        layer(shared.zeros(4))
    with pytest.raises(
        RuntimeError, match=r"positions 0 … 10 are asked for, .* 0 … 9 only. x of shape \(2, 11, 4\) is read as"
    ):
        layer(shared.zeros(2, 11, 4))
    with pytest.raises(RuntimeError, match="positions 8 … 10"):
        layer(shared.zeros(2, 3, 4), start=8)
    with pytest.raises(RuntimeError, match="positions -1 … 1"):
        layer(shared.zeros(2, 3, 4), start=-1)
    with pytest.raises(RuntimeError, match=r"is read as \(seq, batch, d_model\) \(batch_first=False\)"):
        kind(4, max_len=10, batch_first=False)(shared.zeros(11, 2, 4))


def test_printed_form():
    assert repr(nn.PositionalEncoding(4, 0.1, 10)) == (
        "PositionalEncoding(\n  4, max_len=10, batch_first=True\n  (dropout): Dropout(p=0.1, inplace=False)\n)"
    )
