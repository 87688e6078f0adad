"""checkpoint: the same gradients and random numbers, less memory."""

import gc
import weakref

import numpy as np
import pytest

import shared
from shared.autograd import checkpoint
from shared.nn import functional as F


def inputs():
    shared.manual_seed(1)
    return shared.randn(4, 5, requires_grad=True), shared.randn(5, 5, requires_grad=True)


def test_gradients_are_the_same():
    def block(x, w):
        return (x @ w).tanh() @ w

    x, w = inputs()
    block(x, w).sum().backward()
    expected = [x.grad.numpy().copy(), w.grad.numpy().copy()]
    x.grad = w.grad = None
    checkpoint(block, x, w).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected[0])
    np.testing.assert_array_equal(w.grad.numpy(), expected[1])


def test_parameters_inside_get_their_gradients():
    x, w = inputs()
    checkpoint(lambda x: (x @ w).exp(), x.detach()).sum().backward()
    found = w.grad.numpy().copy()
    w.grad = None
    (x.detach() @ w).exp().sum().backward()
    np.testing.assert_array_equal(found, w.grad.numpy())


def test_dropout_drops_the_same_elements_again():
    x = shared.ones(1000, requires_grad=True)
    y = checkpoint(lambda x: F.dropout(x, 0.5) * 1, x)
    following = shared.rand(3).tolist()
    y.sum().backward()
    assert ((x.grad == 0) == (y == 0)).all().item()
    shared.manual_seed(0)
    F.dropout(x, 0.5)
    first = shared.rand(3).tolist()
    shared.manual_seed(0)
    y = checkpoint(lambda x: F.dropout(x, 0.5) * 1, x)
    y.sum().backward()
    assert shared.rand(3).tolist() == first and following != first  # backward leaves the stream where it was


def test_numbers_and_flags_are_passed_on():
    x, _ = inputs()
    checkpoint(lambda x, power, flag: x**power if flag else x, x, 3, True).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * x.detach().numpy() ** 2, rtol=1e-6)


def test_without_recording_it_is_a_plain_call():
    x, _ = inputs()
    with shared.no_grad():
        y = checkpoint(lambda x: x * 2, x)
    assert not y.requires_grad


def test_what_is_computed_inside_is_not_kept():
    held = []

    def block(x):
        middle = x.exp()
        held.append(weakref.ref(middle.array))
        return middle.tanh()

    x, _ = inputs()
    y = checkpoint(block, x)
    assert held[0]() is None and y.requires_grad


def test_after_backward_the_inputs_are_released():
    x, _ = inputs()
    hidden = x * 2
    held = weakref.ref(hidden.array)
    y = checkpoint(lambda h: h.exp().sum(), hidden)
    del hidden
    assert held() is not None
    y.backward()
    gc.collect()
    assert held() is None and y.requires_grad


def test_an_input_changed_before_backward_is_noticed():
    x, _ = inputs()
    hidden = x * 2
    y = checkpoint(lambda h: h.exp(), hidden)
    hidden.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation: Checkpoint"):
        y.sum().backward()


def test_checkpoints_may_be_nested():
    x, w = inputs()
    inner = lambda h: checkpoint(lambda k: (k @ w).tanh(), h).exp()  # noqa: E731
    checkpoint(inner, x).sum().backward()
    found = x.grad.numpy().copy(), w.grad.numpy().copy()
    x.grad = w.grad = None
    (x @ w).tanh().exp().sum().backward()
    np.testing.assert_allclose(found[0], x.grad.numpy(), rtol=1e-6)
    np.testing.assert_allclose(found[1], w.grad.numpy(), rtol=1e-6)


def test_the_function_returns_one_tensor():
    x, _ = inputs()
    with pytest.raises(TypeError, match="returns one Tensor, but got tuple"):
        checkpoint(lambda x: (x, x), x)
