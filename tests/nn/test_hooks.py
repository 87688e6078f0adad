"""Hooks: called in order, with what PyTorch gives them, able to replace it, and gone after remove()."""

import numpy as np
import pytest

import shared
from shared import nn


class Double(nn.Module):
    def forward(self, x, factor=2.0):
        return x * factor


def test_forward_hooks_run_around_forward_in_order():
    calls = []
    module = Double()
    module.register_forward_pre_hook(lambda m, args: calls.append(("pre", len(args))))
    module.register_forward_hook(lambda m, args, out: calls.append(("post", out.item())))
    first = module.register_forward_hook(lambda m, args, out: calls.append("first"), prepend=True)
    module(shared.tensor(3.0))
    assert calls == [("pre", 1), "first", ("post", 6.0)]
    first.remove()
    first.remove()
    module(shared.tensor(1.0))
    assert calls[3:] == [("pre", 1), ("post", 2.0)]


def test_forward_hooks_replace_arguments_and_output():
    module = Double()
    module.register_forward_pre_hook(lambda m, args: args[0] + 1)
    module.register_forward_hook(lambda m, args, out: -out)
    assert module(shared.tensor(3.0)).item() == -8.0


def test_hooks_see_keyword_arguments_if_they_ask():
    module = Double()
    module.register_forward_pre_hook(lambda m, args, kwargs: (args, {"factor": 5.0}), with_kwargs=True)
    seen = []
    module.register_forward_hook(lambda m, args, kwargs, out: seen.append(kwargs), with_kwargs=True)
    assert module(shared.tensor(3.0), factor=4.0).item() == 15.0
    assert seen == [{"factor": 5.0}]
    module.register_forward_pre_hook(lambda m, args, kwargs: None, with_kwargs=True)
    assert module(shared.tensor(1.0)).item() == 5.0
    module.register_forward_pre_hook(lambda m, args, kwargs: args, with_kwargs=True)
    with pytest.raises(RuntimeError, match="forward pre-hook must return None or a tuple"):
        module(shared.tensor(3.0))


def test_a_hook_that_is_always_called_sees_failures():
    module = nn.Linear(2, 2)
    seen = []
    module.register_forward_hook(lambda m, args, out: seen.append("always"), always_call=True)
    module.register_forward_hook(lambda m, args, out: seen.append("only after success"))
    with pytest.raises(RuntimeError, match="linear"):
        module(shared.ones(3))
    assert seen == ["always"]


def test_a_full_backward_hook_gets_gradients_of_input_and_output():
    layer = nn.Linear(3, 2)
    seen = []
    handle = layer.register_full_backward_hook(lambda m, grad_in, grad_out: seen.append((grad_in, grad_out)))
    x = shared.randn(4, 3, requires_grad=True)
    (layer(x) * 3).sum().backward()
    ((grad_in,), (grad_out,)) = seen[0]
    assert np.allclose(grad_out.numpy(), 3.0) and grad_out.shape == (4, 2)
    assert np.allclose(grad_in.numpy(), 3 * layer.weight.detach().numpy().sum(0))
    assert np.allclose(grad_in.numpy(), x.grad.numpy())
    handle.remove()
    layer(x).sum().backward()
    assert len(seen) == 1


def test_backward_hooks_replace_gradients():
    layer = nn.Linear(2, 2, bias=False)
    x = shared.ones(1, 2, requires_grad=True)
    layer.register_full_backward_pre_hook(lambda m, grad_out: (grad_out[0] * 10,))
    layer.register_full_backward_hook(lambda m, grad_in, grad_out: (grad_in[0] * 0 + 7,))
    layer(x).sum().backward()
    assert x.grad.tolist() == [[7.0, 7.0]]
    assert layer.weight.grad.tolist() == [[10.0, 10.0]] * 2


class Mix(nn.Module):
    def forward(self, a, b, c, power):
        return a * b, a + c * 2, power


def test_several_inputs_and_outputs_come_together_with_none_for_the_others():
    module = Mix()
    seen = []
    module.register_full_backward_hook(lambda m, grad_in, grad_out: seen.append((grad_in, grad_out)))
    a = shared.tensor(2.0, requires_grad=True)
    b, c = shared.tensor(3.0), shared.tensor(5.0, requires_grad=True)
    product, total, power = module(a, b, c, 4)
    assert power == 4
    (product + total * 10).backward()
    ((grad_in, grad_out),) = seen
    assert [None if g is None else g.item() for g in grad_in] == [13.0, None, 20.0, None]
    assert [None if g is None else g.item() for g in grad_out] == [1.0, 10.0, None]
    assert (a.grad.item(), c.grad.item()) == (13.0, 20.0)


def test_an_output_that_is_not_used_has_no_gradient():
    module = Mix()
    seen = []
    module.register_full_backward_hook(lambda m, grad_in, grad_out: seen.append(grad_out))
    a, c = shared.tensor(2.0, requires_grad=True), shared.tensor(1.0, requires_grad=True)
    product, _, _ = module(a, shared.tensor(3.0), c, 0)
    product.backward()
    assert seen[0][0].item() == 1.0 and seen[0][1] is None
    assert a.grad.item() == 3.0


def test_a_hook_runs_though_no_input_asks_for_a_gradient():
    layer = nn.Linear(2, 1)
    seen = []
    layer.register_full_backward_hook(lambda m, grad_in, grad_out: seen.append((grad_in, grad_out[0].item())))
    layer(shared.ones(1, 2)).sum().backward()
    assert seen == [((None,), 1.0)]
    assert layer.weight.grad is not None


def test_no_backward_hook_without_recording():
    layer = nn.Linear(2, 1)
    layer.register_full_backward_hook(lambda *args: pytest.fail("nothing was differentiated"))
    with shared.no_grad():
        assert not layer(shared.ones(1, 2)).requires_grad


def test_a_wrong_number_of_gradients_is_an_error():
    layer = nn.Linear(2, 1)
    layer.register_full_backward_hook(lambda m, grad_in, grad_out: (grad_in[0], grad_in[0]))
    out = layer(shared.ones(1, 2, requires_grad=True))
    with pytest.raises(RuntimeError, match="invalid number of grad_input, got 2, but expected 1"):
        out.sum().backward()


def test_hooks_see_the_gradient_of_a_gradient():
    layer = nn.Sequential(nn.Softplus(), nn.Tanh())
    seen = []
    layer.register_full_backward_hook(lambda m, grad_in, grad_out: seen.append(grad_in[0].item()))
    x = shared.tensor([[0.5]], requires_grad=True)
    (slope,) = shared.autograd.grad(layer(x).sum(), x, create_graph=True)
    assert seen == [pytest.approx(slope.item())]


@pytest.mark.parametrize("depth", [1, 3])
def test_hooks_on_nested_modules_each_run_once_from_the_outside_in(depth):
    model, seen = nn.Linear(2, 2), []
    for level in range(depth):
        model = nn.Sequential(model)
        model.register_full_backward_hook(lambda m, grad_in, grad_out, level=level: seen.append(level))
    model(shared.ones(1, 2, requires_grad=True)).sum().backward()
    assert sorted(seen) == list(range(depth))
