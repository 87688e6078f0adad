"""pad_sequence and unpad_sequence: what the table of cases does not say."""

import importlib.util
import inspect

import numpy as np
import pytest

import shared
from shared.nn.utils.rnn import pad_sequence, unpad_sequence

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed"
)


def sequences(*lengths, width=(), **options):
    rng = np.random.default_rng(0)
    return [shared.tensor(rng.standard_normal((n, *width)), **options) for n in lengths]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_each_sequence_gets_its_own_part_of_the_gradient(batch_first, side):
    xs = sequences(2, 4, 0, width=(3,), requires_grad=True)
    padded = pad_sequence(xs, batch_first, 9.0, side)
    grad = np.random.default_rng(1).standard_normal(padded.shape)
    padded.backward(shared.tensor(grad))
    values, grad = (a if batch_first else a.swapaxes(0, 1) for a in (padded.numpy(force=True), grad))
    for i, x in enumerate(xs):
        own = slice(0, len(x)) if side == "right" else slice(4 - len(x), 4)
        assert np.array_equal(values[i, own], x.numpy(force=True)) and np.array_equal(x.grad.numpy(), grad[i, own])
        assert (np.delete(values[i], np.r_[own], axis=0) == 9).all()


def test_a_sequence_without_gradient_gets_none():
    first, second = sequences(2), sequences(3, requires_grad=True)
    padded = pad_sequence([*first, *second])
    assert padded.grad_fn.backward(np.ones((3, 2)))[0] is None
    padded.sum().backward()
    assert first[0].grad is None and second[0].grad.tolist() == [1, 1, 1]


def test_dtypes_stay():
    for dtype in (shared.int64, shared.int32, shared.float32, shared.bfloat16, shared.bool):
        padded = pad_sequence([shared.ones(2, dtype=dtype), shared.ones(1, dtype=dtype)], True)
        assert padded.dtype == dtype and padded.tolist() == [[1, 1], [1, 0]]


def test_any_iterable_will_do():
    rows = shared.tensor([[1, 2], [3, 4]])
    assert pad_sequence(rows, True).tolist() == pad_sequence(iter(rows), True).tolist() == rows.tolist()


@pytest.mark.parametrize("batch_first", [False, True])
def test_unpadding_gives_the_sequences_back(batch_first):
    xs = sequences(2, 4, 0, 1, width=(3,))
    padded = pad_sequence(xs, batch_first)
    before = padded.shape
    for lengths in ([2, 4, 0, 1], shared.tensor([2, 4, 0, 1])):
        found = unpad_sequence(padded, lengths, batch_first)
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(xs, found, strict=True))
    assert padded.shape == before


def test_gradients_flow_through_unpadding():
    padded = shared.ones(2, 3, requires_grad=True)
    first, second = unpad_sequence(padded, [1, 3], batch_first=True)
    (2 * first.sum() + second.sum()).backward()
    assert padded.grad.tolist() == [[2, 0, 0], [1, 1, 1]]


@needs_torch
@pytest.mark.parametrize("ours", [pad_sequence, unpad_sequence])
def test_arguments_are_pytorchs(ours):
    from torch.nn.utils import rnn

    wanted = inspect.signature(getattr(rnn, ours.__name__)).parameters
    found = inspect.signature(ours).parameters
    assert {k: p.default for k, p in found.items()} == {k: p.default for k, p in wanted.items()}
    assert list(found) == list(wanted)


def test_what_is_wrong_is_named():
    a = shared.zeros(2, 3)
    with pytest.raises(RuntimeError, match="received an empty list of sequences"):
        pad_sequence([])
    with pytest.raises(RuntimeError, match="Expected iterable for input sequences, but got arg of type: <class 'int'>"):
        pad_sequence(3)
    with pytest.raises(TypeError, match="expected Tensor as element 1, but got list"):
        pad_sequence([a, [1.0]])
    with pytest.raises(RuntimeError, match="element 0 is a single number"):
        pad_sequence([shared.tensor(1.0)])
    with pytest.raises(RuntimeError, match=r"element 0 has shape \[2, 3\] and element 1 \[1, 4\]"):
        pad_sequence([a, shared.zeros(1, 4)])
    with pytest.raises(RuntimeError, match=r"element 0 has shape \[2, 3\] and element 1 \[1, 1\]"):
        pad_sequence([a, shared.zeros(1, 1)])
    with pytest.raises(RuntimeError, match="one dtype, but element 0 is float32 and element 1 float64"):
        pad_sequence([a, a.double()])
    with pytest.raises(RuntimeError, match="padding_side to be one of left or right, but got up"):
        pad_sequence([a], padding_side="up")
    with pytest.raises(ValueError, match=r"expected 2 lengths from 0 to 3, .* \[2, 3\] .*=True says, but got \[3\]"):
        unpad_sequence(a, [3], batch_first=True)
    with pytest.raises(ValueError, match=r"expected 3 lengths from 0 to 2, .* but got \[1, 3, 0\]"):
        unpad_sequence(a, [1, 3, 0])
    with pytest.raises(ValueError, match=r"2-D or more, but got \[2\]"):
        unpad_sequence(shared.zeros(2), [1])
