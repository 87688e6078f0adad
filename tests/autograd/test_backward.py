"""What backward and grad promise: where gradients go, how they add up, and when they refuse."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import shared
from shared.autograd import Function, grad


def leaf(*values, dtype=None):
    return shared.tensor(list(values) if len(values) != 1 else values[0], dtype=dtype, requires_grad=True)


# ---------------------------------------------------------------- accumulation


def test_gradients_of_two_backwards_add_up():
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    (x * 4).sum().backward()
    assert x.grad.tolist() == [7.0, 7.0]


def test_accumulation_keeps_the_buffer():
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    buffer = x.grad
    (x * 4).sum().backward()
    assert x.grad is buffer


def test_a_tensor_used_many_times_gets_the_sum():
    x = leaf(2.0)
    y = x * x + x * 3 + x
    (y * y).backward()
    assert x.grad.item() == 2 * (4 + 6 + 2) * (4 + 4)


@pytest.mark.parametrize(
    "build",
    [
        lambda x, y: x + y,
        lambda x, y: (x + y).reshape(-1),
        lambda x, y: x.reshape(-1) + y.reshape(-1),
        lambda x, y: shared.cat([x, y]),
        lambda x, y: x - (-y),
        lambda x, y: (x.clone() + y.clone()) + y,
        lambda x, y: x.sum() + y.sum(),
        lambda x, y: x.T + y.T,
        lambda x, y: shared.where(shared.ones(2, 2) > 0, x, x) + y,
    ],
)
def test_gradients_of_leaves_share_no_memory(build):
    x, y = shared.ones(2, 2, requires_grad=True), shared.ones(2, 2, requires_grad=True)
    seed = shared.ones(build(x, y).shape)
    build(x, y).backward(seed)
    before = y.grad.tolist()
    x.grad.mul_(100)
    x.grad.add_(1)
    assert y.grad.tolist() == before
    assert bool((seed == 1).all())


def test_a_leaf_keeps_a_view_uncopied_only_if_nobody_else_holds_the_array():
    """What a reshape at the end of a backward returns is a view; held, cut from or returned twice, it is copied."""
    held = []

    class Double(Function):
        def __init__(self, how):
            self.how = how

        def forward(self, a, b):
            return a + b

        def backward(self, grad):
            new = np.concatenate([2 * grad] * 2)[:2] if self.how == "a part" else (2 * grad).reshape(6).reshape(2, 3)
            held.extend([new.base] if self.how == "held" else [])
            address.append(new.ctypes.data)
            return new, (new.T.T if self.how == "twice" else None)

    for how in ("new", "held", "twice", "a part"):
        address = []
        a, b = shared.ones(2, 3, requires_grad=True), shared.ones(2, 3, requires_grad=True)
        Double(how)(a, b).backward(shared.ones(2, 3))
        assert (a.grad.array.ctypes.data == address[0]) == (how == "new"), how
        assert (a.grad == 2).all()


def test_the_gradient_argument_is_left_alone():
    x = leaf(1.0, 2.0)
    seed = shared.tensor([1.0, 1.0])
    x.clone().backward(seed)
    x.clone().backward(seed)
    assert seed.tolist() == [1.0, 1.0] and x.grad.tolist() == [2.0, 2.0]


def test_gradient_of_a_leaf_itself():
    x = leaf(1.0)
    x.backward()
    assert x.grad.item() == 1.0


def test_backward_of_several_roots():
    x = leaf(2.0)
    y = x * x
    shared.autograd.backward([y, y * 3], [shared.tensor(1.0), shared.tensor(2.0)])
    assert x.grad.item() == 4 * (1 + 6)


def test_grad_is_contiguous_and_in_the_dtype_of_its_leaf():
    for dtype in (shared.float32, shared.float64, shared.float16, shared.bfloat16):
        x = shared.ones(3, 4, dtype=dtype, requires_grad=True)
        y = shared.ones(4, dtype=dtype, requires_grad=True)
        (x.T * y.reshape(4, 1) + x.T).float().sum().backward()
        for t in (x, y):
            assert t.grad.dtype == dtype and t.grad.shape == t.shape and t.grad.is_contiguous()
            t.grad.mul_(2)  # its memory is its own: no view of something broadcast


def test_gradients_returned_by_grad_can_be_changed():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    to_x, to_y = grad((x + y).sum(), [x, y])
    to_x.mul_(5)
    assert to_x.tolist() == [5.0, 5.0] and to_y.tolist() == [1.0, 1.0]


def test_float32_and_float64_mix():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0, dtype=shared.float64)
    z = x * y
    assert z.dtype == shared.float64
    z.sum().backward()
    assert x.grad.dtype == shared.float32 and y.grad.dtype == shared.float64


# ---------------------------------------------------------------- refusals


def test_backward_of_many_elements_needs_a_gradient():
    with pytest.raises(RuntimeError, match=r"implicitly created only for scalar outputs.*shape \(2,\)"):
        (leaf(1.0, 2.0) * 2).backward()


def test_backward_without_history():
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        shared.ones(1).backward()


def test_a_gradient_of_another_shape():
    with pytest.raises(RuntimeError, match=r"Mismatch in shape.*\(3,\).*\(2,\)"):
        (leaf(1.0, 2.0) * 2).backward(shared.ones(3))


@pytest.mark.parametrize("wrong", [2.0, np.ones(2), [[1.0, 1.0]]])
def test_a_gradient_that_is_no_tensor(wrong):
    with pytest.raises(TypeError, match="gradients can be either Tensors or None, but got (float|ndarray|list)"):
        (leaf(1.0, 2.0) * 2).backward(wrong)


def test_as_many_gradients_as_tensors():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="2 tensors and 1 gradients"):
        shared.autograd.backward([x * 1, x * 2], [shared.tensor(1.0)])


def test_backward_twice_names_the_op_and_the_remedy():
    x = leaf(3.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match=r"backward through the graph a second time \(at Mul\).*retain_graph=True"):
        y.backward()


def test_backward_through_a_shared_part_twice():
    x = leaf(3.0)
    y = x.exp()
    (y * 2).backward()
    with pytest.raises(RuntimeError, match=r"a second time \(at Exp\)"):
        (y * 3).backward()


def test_retain_graph_allows_another_backward():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 12.0


def test_a_backward_with_too_few_gradients_is_named():
    class Wrong(Function):
        def forward(self, a, b):
            return a + b

        def backward(self, grad):
            return grad

    with pytest.raises(RuntimeError, match="the backward of Wrong returned 1 gradients, expected 2"):
        Wrong()(leaf(1.0), leaf(2.0)).backward()


def test_a_backward_with_a_gradient_that_does_not_fit():
    class Wrong(Function):
        def forward(self, a):
            return a * 2

        def backward(self, grad):
            return np.ones((7, 3), dtype="float32")

    with pytest.raises(RuntimeError, match=r"a gradient of shape \(7, 3\) does not fit an input of shape \(2,\)"):
        Wrong()(leaf(1.0, 2.0)).sum().backward()


def test_a_function_without_forward_or_backward():
    class Nothing(Function):
        pass

    class Half(Function):
        def forward(self, x):
            return x / 2

    with pytest.raises(NotImplementedError, match="Nothing has no forward"):
        Nothing()(leaf(1.0))
    with pytest.raises(NotImplementedError, match="Half has no backward"):
        Half()(leaf(1.0)).backward()


def test_only_floating_tensors_require_gradients():
    with pytest.raises(RuntimeError, match="floating point dtype can require gradients, but this is int64"):
        shared.tensor([1, 2], requires_grad=True)


def test_requires_grad_of_a_result_cannot_be_switched_off():
    y = leaf(1.0) * 2
    y.requires_grad_()
    with pytest.raises(RuntimeError, match="leaf variables; use detach"):
        y.requires_grad = False


# ---------------------------------------------------------------- grad()


def test_grad_touches_no_grad():
    x = leaf(3.0)
    (slope,) = grad(x * x, x)
    assert slope.item() == 6.0 and x.grad is None


def test_grad_of_an_intermediate_result():
    x = leaf(3.0)
    y = x * x
    z = y * y
    assert [g.item() for g in grad(z, [y, x])] == [18.0, 108.0]


def test_grad_with_weights():
    x = leaf(1.0, 2.0)
    (g,) = grad(x * x, x, grad_outputs=shared.tensor([1.0, 10.0]))
    assert g.tolist() == [2.0, 40.0]


def test_grad_of_an_unused_tensor():
    x, y = leaf(1.0), leaf(2.0)
    with pytest.raises(RuntimeError, match="input 1, shape .* not have been used in the graph.*allow_unused=True"):
        grad(x * 2, [x, y])
    assert grad(x * 2, [x, y], allow_unused=True)[1] is None


def test_grad_of_a_constant():
    with pytest.raises(RuntimeError, match="input 0 of grad"):
        grad(leaf(1.0) * 2, shared.ones(1))


def test_inputs_limits_where_gradients_go():
    x, y = leaf(2.0), leaf(3.0)
    (x * y).backward(inputs=[x])
    assert x.grad.item() == 3.0 and y.grad is None


def test_inputs_may_be_an_intermediate_result():
    x = leaf(2.0)
    y = x * x
    (y * 3).backward(inputs=[y])
    assert y.grad.item() == 3.0 and x.grad is None
    with pytest.raises(RuntimeError, match="cannot be empty"):
        (x * 3).backward(inputs=[])


# ---------------------------------------------------------------- second gradients


def test_create_graph_gives_gradients_that_have_gradients():
    x = leaf(2.0)
    (first,) = grad(x**3, x, create_graph=True)
    (second,) = grad(first, x, create_graph=True)
    (third,) = grad(second, x)
    assert [first.item(), second.item(), third.item()] == [12.0, 12.0, 6.0]


def test_backward_with_create_graph():
    x = leaf(2.0)
    (x**3).backward(create_graph=True)
    slope = x.grad
    x.grad = None
    slope.backward()
    assert x.grad.item() == 12.0


def test_gradients_that_have_gradients_share_no_memory():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x + y).sum().backward(create_graph=True)
    with shared.no_grad():
        x.grad.mul_(100)
    assert y.grad.tolist() == [1.0, 1.0]
    assert x.grad is not y.grad


def test_an_op_that_is_differentiable_once_says_so():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="create_graph=True: the gradient of Prod cannot itself be differentiated"):
        grad(x.prod(), x, create_graph=True)


def test_gradient_penalty():
    x, w = shared.tensor([[1.0, 2.0]]), leaf([[0.5], [0.25]])
    x.requires_grad_()
    (g,) = grad((x @ w).tanh().sum(), x, create_graph=True)
    (g * g).sum().backward()
    eps, values = 1e-3, []
    for step in (eps, -eps):
        v = w.detach().clone()
        v[0, 0] += step
        y = x.detach().requires_grad_()
        (h,) = grad((y @ v).tanh().sum(), y)
        values.append((h * h).sum().item())
    np.testing.assert_allclose(w.grad[0, 0].item(), (values[0] - values[1]) / (2 * eps), rtol=1e-2)


# ---------------------------------------------------------------- modes


def test_no_grad_records_nothing():
    x = leaf(1.0)
    with shared.no_grad():
        y = x * 2
        with shared.enable_grad():
            z = x * 2
        assert not shared.is_grad_enabled()
    assert shared.is_grad_enabled()
    assert not y.requires_grad and y.grad_fn is None and z.requires_grad


@pytest.mark.parametrize(
    "decorator", ["no_grad", "no_grad()", "inference_mode", "inference_mode()", "set_grad_enabled(False)"]
)
def test_modes_as_decorators(decorator):
    @eval(f"shared.{decorator}")
    def double(x, factor=2):
        """Twice as much."""
        return x * factor

    assert shared.is_grad_enabled()
    assert not double(leaf(1.0)).requires_grad
    assert double(leaf(1.0), factor=3).item() == 3.0
    assert shared.is_grad_enabled() and double.__name__ == "double"


def test_enable_grad_as_decorator():
    @shared.enable_grad()
    def double(x):
        return x * 2

    with shared.no_grad():
        assert double(leaf(1.0)).requires_grad


def test_inference_mode_can_be_off():
    with shared.inference_mode():
        assert not shared.is_grad_enabled()
        with shared.inference_mode(False):
            assert (leaf(1.0) * 2).requires_grad


def test_set_grad_enabled_as_function_and_as_block():
    with shared.set_grad_enabled(False):
        assert not shared.is_grad_enabled()
        shared.set_grad_enabled(True)
        assert shared.is_grad_enabled()
        shared.set_grad_enabled(False)
    assert shared.is_grad_enabled()


def test_an_exception_restores_the_mode():
    with pytest.raises(ZeroDivisionError), shared.no_grad():
        1 / 0  # noqa: B018
    assert shared.is_grad_enabled()


def test_one_mode_object_can_be_entered_twice():
    mode = shared.no_grad()
    with mode:
        with mode:
            pass
        assert not shared.is_grad_enabled()
    assert shared.is_grad_enabled()


def test_modes_belong_to_a_thread():
    seen = []
    with shared.no_grad():
        thread = threading.Thread(target=lambda: seen.append((leaf(1.0) * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_have_gradients_of_their_own():
    results = {}

    def work(k):
        x = leaf(float(k))
        for _ in range(200):
            x.grad = None
            (x * x * k).backward()
        results[k] = x.grad.item()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {k: 2.0 * k * k for k in range(4)}


# ---------------------------------------------------------------- hooks


def test_a_hook_sees_and_changes_the_gradient():
    x = leaf(1.0, 2.0)
    seen = []
    handle = x.register_hook(lambda g: seen.append(g.tolist()))
    doubled = x.register_hook(lambda g: g * 2)
    (x * 3).sum().backward()
    assert seen == [[3.0, 3.0]] and x.grad.tolist() == [6.0, 6.0]
    handle.remove()
    handle.remove()  # a second time is no error
    doubled.remove()
    (x * 3).sum().backward()
    assert seen == [[3.0, 3.0]] and x.grad.tolist() == [9.0, 9.0]


def test_a_hook_on_an_intermediate_result_changes_what_flows_on():
    x = leaf(2.0)
    y = x * x
    y.register_hook(lambda g: g * 10)
    (y * 1).backward()
    assert x.grad.item() == 40.0


def test_a_hook_runs_once_on_the_sum():
    x = leaf(2.0)
    y = x * 1
    seen = []
    y.register_hook(lambda g: seen.append(g.item()))
    (y * 2 + y * 3 + y).backward()
    assert seen == [6.0]


def test_a_hook_needs_a_gradient():
    with pytest.raises(RuntimeError, match="doesn't require gradient"):
        shared.ones(1).register_hook(lambda g: g)


def test_retain_grad_keeps_the_gradient_of_a_result():
    x = leaf(2.0)
    y = x * x
    y.retain_grad()
    y.retain_grad()
    assert y.retains_grad and not x.retains_grad
    (y * 3).backward()
    assert y.grad.item() == 3.0 and x.grad.item() == 12.0
    x.retain_grad()  # a leaf keeps its own anyway
    with pytest.raises(RuntimeError, match="requires_grad=False"):
        shared.ones(1).retain_grad()


def test_the_gradient_of_a_result_is_not_kept():
    y = leaf(2.0) * 2
    (y * 3).backward()
    assert y.grad is None


def test_hooks_work_with_create_graph():
    x = leaf(2.0)
    x.register_hook(lambda g: g * g)
    (g,) = grad(x * x, x, create_graph=True)  # (2x)²
    (second,) = grad(g, x)
    assert g.item() == 16.0 and second.item() != 0


# ---------------------------------------------------------------- anomaly detection


def test_anomaly_detection_names_the_op_and_the_line():
    x = leaf(0.0)
    with shared.autograd.detect_anomaly():
        y = (x.sqrt() * 0).sum()  # the culprit
        with pytest.raises(RuntimeError, match="Function 'SqrtBackward0' returned nan values(.|\n)*the culprit"):
            y.backward()


def test_anomaly_detection_after_a_forward_outside():
    y = (leaf(0.0).sqrt() * 0).sum()
    with pytest.raises(RuntimeError, match="its forward ran outside detect_anomaly"), shared.autograd.detect_anomaly():
        y.backward()


def test_without_anomaly_detection_nan_flows():
    x = leaf(0.0)
    with shared.autograd.detect_anomaly(check_nan=False):
        (x.sqrt() * 0).sum().backward()
    assert x.grad.isnan().item()


# ---------------------------------------------------------------- memory


def garbage_of(work):
    """How many unreachable objects only the cycle collector finds after `work()`."""
    gc.collect()
    gc.disable()
    try:
        work()
        return gc.collect()
    finally:
        gc.enable()


def network():
    x = shared.ones(3, 4, requires_grad=True)
    w = shared.ones(4, 4, requires_grad=True)
    y = (x @ w).tanh().exp()
    y.retain_grad()
    y[0].sum().sqrt().backward()
    z = (x.softmax(-1) * w[:3].T.reshape(3, 4)).std()
    z.backward(retain_graph=True)
    z.backward()


def test_a_graph_holds_no_reference_cycle():
    network()
    assert garbage_of(network) == 0


def test_a_graph_that_never_ran_backward_holds_no_cycle():
    def forward():
        x = shared.ones(3, requires_grad=True)
        y = x.exp().tanh().sigmoid().sqrt()
        y.register_hook(lambda g: g)
        y += 1
        y[0] = 2.0

    forward()
    assert garbage_of(forward) == 0


def test_second_gradients_hold_no_cycle():
    def second():
        x = shared.ones(3, requires_grad=True)
        (g,) = grad((x.exp() * x.tanh()).sum(), x, create_graph=True)
        grad(g.sum(), x)

    second()
    assert garbage_of(second) == 0


def test_backward_releases_what_was_saved():
    x = shared.ones(1000, requires_grad=True)
    middle = x.exp()
    held = weakref.ref(middle.array)
    y = middle.tanh().sum()
    del middle
    assert held() is not None
    y.backward()
    assert held() is None  # although y and its node are still there
    assert y.grad_fn is not None


def test_nothing_is_saved_that_nobody_needs():
    x, c = shared.ones(1000, requires_grad=True), shared.ones(1000)
    product = x.detach() * c
    held = weakref.ref(product.array)
    y = (x * 2 + product).sum()
    del product
    assert held() is None and y.requires_grad


def test_memory_does_not_grow_with_the_steps():
    w = shared.ones(10, requires_grad=True)

    def objects_after(steps):
        for _ in range(steps):
            w.grad = None
            ((w * 2).exp().sum()).backward()
            with shared.no_grad():
                w.sub_(w.grad * 1e-9)
        gc.collect()
        return len(gc.get_objects())

    objects_after(5)
    assert objects_after(50) - objects_after(5) < 20


def test_a_chain_of_100_000_ops_neither_recurses_nor_overflows():
    depth = 100_000
    assert sys.getrecursionlimit() < depth
    x = leaf(1.0)
    y = x
    for _ in range(depth):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1.0
    del y


def test_deleting_a_chain_that_never_ran_backward():
    y = leaf(1.0)
    for _ in range(100_000):
        y = y * 1.0
    del y  # would overflow the C stack if nodes were released recursively without end


def test_a_wide_graph():
    x = leaf(1.0)
    total = x
    for _ in range(2000):
        total = total + x * 1
    total.backward()
    assert x.grad.item() == 2001.0


def test_a_gradient_made_of_one_number_can_be_written_to():
    """A sum's gradient is one number, stretched by `broadcast_to`, whose result is read-only."""
    x = shared.ones(1, requires_grad=True)
    x.sum().backward()
    x.sum().backward()
    assert x.grad.mul_(3).tolist() == [6.0]
    x.grad = None
    (x.sum() + x.sum()).backward()
    assert x.grad.tolist() == [2.0]
