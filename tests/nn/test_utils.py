"""Clipping and vectors of parameters, by hand-made numbers and against PyTorch."""

import importlib.util

import numpy as np
import pytest

import shared
from shared import nn
from shared.nn import utils

INF = float("inf")


def with_grads(*grads, dtype="float32"):
    params = []
    for grad in grads:
        array = None if grad is None else np.array(grad, dtype=dtype)
        params.append(nn.Parameter(shared.zeros(*(array.shape if grad is not None else (2,)), dtype=np.dtype(dtype))))
        params[-1].grad = None if grad is None else shared.tensor(array)
    return params


def test_the_norm_is_that_of_all_gradients_together():
    params = with_grads([3.0, 0.0], None, [[4.0], [12.0]])
    assert utils.clip_grad_norm_(params, 6.5).item() == 13.0
    assert np.allclose(params[0].grad.numpy(), [1.5, 0.0], rtol=1e-5)
    assert np.allclose(params[2].grad.numpy(), [[2.0], [6.0]], rtol=1e-5)
    assert params[1].grad is None


def test_small_gradients_are_left_alone():
    params = with_grads([3.0, 4.0])
    array = params[0].grad.array
    assert utils.clip_grad_norm_(params[0], 5.1).item() == 5.0
    assert params[0].grad.tolist() == [3.0, 4.0] and params[0].grad.array is array


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed")
@pytest.mark.parametrize("norm_type", [0.0, 0.5, 1, 2.0, 3.0, INF, "inf"])
@pytest.mark.parametrize("special", [None, np.nan, np.inf])
def test_clipping_is_pytorchs(norm_type, special):
    import torch

    rng = np.random.default_rng(0)
    grads = [rng.normal(size=s).astype("float32") for s in [(3, 4), (5,), ()]]
    if special is not None:
        grads[0][1, 2] = special
    ours = with_grads(*grads)
    theirs = [torch.nn.Parameter(torch.zeros(g.shape)) for g in grads]
    for p, g in zip(theirs, grads, strict=True):
        p.grad = torch.tensor(g)
    found = utils.clip_grad_norm_(iter(ours), 0.7, norm_type=norm_type)
    wanted = torch.nn.utils.clip_grad_norm_(iter(theirs), 0.7, norm_type=norm_type)
    assert np.allclose(found.numpy(), wanted.numpy(), rtol=1e-5, equal_nan=True)
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("bad", [INF, -INF, float("nan")])
def test_a_norm_that_is_not_finite_is_an_error_if_asked(bad):
    params = with_grads([1.0, bad])
    with pytest.raises(RuntimeError, match="total norm of order 2.0 for gradients from `parameters` is non-finite"):
        utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert params[0].grad.array[0] == 1.0, "nothing was scaled"


def test_half_precision_does_not_overflow():
    params = with_grads(np.full(100, 300.0), dtype="float16")
    assert utils.clip_grad_norm_(params, 1.0).item() == pytest.approx(3000.0)
    assert params[0].grad.dtype == shared.float16
    assert np.allclose(params[0].grad.numpy(), 0.1, rtol=1e-3)


def test_gradients_beyond_the_root_of_the_largest_number_are_scaled_and_not_lost():
    params = with_grads([1e30, 0.0], [1e30])
    assert utils.clip_grad_norm_(params, 1.0).item() == pytest.approx(2**0.5 * 1e30)
    assert np.allclose(params[0].grad.numpy(), [0.5**0.5, 0.0])


def test_an_expanded_gradient_is_not_scaled_twice():
    (p,) = with_grads([3.0, 3.0])
    p.grad = shared.tensor([3.0]).expand(2)
    with pytest.raises(RuntimeError, match=r"clone\(\) it before changing it"):
        utils.clip_grad_norm_(p, 1.0)


def test_scaling_gradients_is_noticed_by_a_graph_that_needs_them():
    (p,) = with_grads([3.0, 4.0])
    x = shared.ones(2, requires_grad=True)
    product = (p.grad * x).sum()
    utils.clip_grad_norm_(p, 1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_no_gradients_no_norm():
    assert utils.clip_grad_norm_(with_grads(None, None), 1.0).item() == 0.0
    with pytest.warns(UserWarning, match="empty generator"):
        assert utils.clip_grad_norm_((p for p in []), 1.0).item() == 0.0
    assert utils.get_total_norm([]).item() == 0.0
    assert utils.get_total_norm([shared.ones(0), shared.ones(2)], INF).item() == 1.0


def test_clipping_values():
    params = with_grads([-3.0, 0.2, 9.0], None)
    utils.clip_grad_value_(params, 0.5)
    assert params[0].grad.tolist() == [-0.5, pytest.approx(0.2), 0.5]
    utils.clip_grad_value_(params[0], 0.1)
    assert params[0].grad.numpy().max() == pytest.approx(0.1)


def test_parameters_become_a_vector_and_come_back():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    vector = utils.parameters_to_vector(model.parameters())
    assert vector.shape == (11,) and vector.requires_grad
    assert np.array_equal(vector.numpy(force=True)[:6], model[0].weight.numpy(force=True).reshape(-1))
    new = shared.arange(11.0)
    utils.vector_to_parameters(new, model.parameters())
    assert model[0].weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and model[1].bias.tolist() == [10.0]
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in model.parameters())
    (vector * 2).sum().backward()
    assert (model[0].weight.grad == 2).all()


def test_a_vector_that_is_too_short_or_none_is_an_error():
    model = nn.Linear(3, 2)
    before = model.weight.tolist()
    with pytest.raises(RuntimeError, match="the parameters have 8 elements, the vector 5"):
        utils.vector_to_parameters(shared.ones(5), model.parameters())
    assert model.weight.tolist() == before
    with pytest.raises(TypeError, match="expected a Tensor, but got: list"):
        utils.vector_to_parameters([1.0], model.parameters())
