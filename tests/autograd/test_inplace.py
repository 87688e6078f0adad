"""In-place changes: recorded where that is right, refused where the gradient would be wrong."""

import numpy as np
import pytest

import shared
from shared.nn import functional as F
from tests.nn.cases import FUNCTIONS
from tests.nn.cases import Constant as Fixed
from tests.ops.cases import EXAMPLES, example_id
from tests.ops.running import outputs_of

CHANGED = "modified by an inplace operation"
LEAF = "a leaf Variable that requires grad is being used in an in-place operation"
VIEW = "an in-place operation on a view cannot be recorded"
STALE = "is a view of a tensor that a recorded in-place operation has changed since"


def leaf(*values):
    return shared.tensor(list(values), requires_grad=True)


# ---------------------------------------------------------------- what was saved is guarded


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.add_(1),
        lambda y: y.detach().add_(1),
        lambda y: y.detach()[0].add_(1),
        lambda y: y.detach().reshape(-1).zero_(),
        lambda y: y.detach().T.mul_(2),
        lambda y: y.detach().view(-1).__setitem__(0, 5.0),
        lambda y: y.__setitem__(0, 5.0),
        lambda y: y.__imul__(2),
        lambda y: y.detach().copy_(shared.zeros(2)),
        lambda y: y.detach().fill_(3),
        lambda y: y.detach().uniform_(),
    ],
)
@pytest.mark.parametrize("no_grad", [False, True])
def test_changing_a_saved_result_is_an_error(change, no_grad):
    x = leaf(1.0, 2.0)
    y = x * 1
    z = (y * y).sum()
    with shared.set_grad_enabled(not no_grad):
        change(y)
    with pytest.raises(RuntimeError, match=f"{CHANGED}: Mul saved an array of shape \\(2,\\) at version 0"):
        z.backward()


def test_changing_an_output_that_was_saved():
    x = leaf(1.0, 2.0)
    y = x.exp()
    y.add_(1)
    with pytest.raises(RuntimeError, match=f"{CHANGED}: Exp"):
        y.sum().backward()


def test_changing_what_was_not_saved_is_fine():
    x = leaf(1.0, 2.0)
    y = x * 3
    z = (y + 1).sum()
    y.detach().zero_()
    z.backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_data_goes_around_the_guard_as_in_pytorch():
    x = leaf(1.0, 2.0)
    z = (x * x).sum()
    x.data.mul_(10)
    z.backward()
    assert x.grad.tolist() == [20.0, 40.0]


def test_changing_a_weight_before_backward():
    """The mistake of a training loop that steps too early."""
    w, x = leaf(1.0, 2.0), leaf(3.0, 4.0)
    loss = (w * x).sum()
    with shared.no_grad():
        w.sub_(0.1)
    with pytest.raises(RuntimeError, match=CHANGED):
        loss.backward()


def noticed_or_harmless(call, arrays, floating):
    """Changes each input after the forward: backward must raise, or give the gradient of the unchanged input."""

    def run(changed=None):
        shared.manual_seed(0)
        leaves = [shared.from_numpy(np.array(a)).requires_grad_(f) for a, f in zip(arrays, floating, strict=True)]
        tensors = [x * 1 if x.requires_grad else x for x in leaves]
        outputs = [y for y in outputs_of(call(*tensors)) if y.requires_grad]
        if changed is not None:
            x = tensors[changed].detach()
            x.copy_(~x if x.dtype == shared.bool else x * 0)
        for y in outputs:
            y.backward(shared.ones_like(y), retain_graph=True)
        return [x.grad for x in leaves]

    expected = run()
    for i in range(len(arrays)):
        try:
            found = run(changed=i)
        except RuntimeError as error:
            assert CHANGED in str(error)
            continue
        for g, h in zip(found, expected, strict=True):
            if h is not None:
                np.testing.assert_array_equal(g.numpy(), h.numpy(), f"input {i} was changed, and nobody noticed")


@pytest.mark.parametrize("example", EXAMPLES, ids=example_id)
def test_a_change_between_forward_and_backward_is_noticed_or_harmless(example):
    case, place = example
    noticed_or_harmless(lambda *xs: case.call(shared, *xs), case.arrays(place), case.differentiable())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", FUNCTIONS, ids=lambda c: c.name)
def test_a_change_between_a_function_of_nn_and_backward_is_noticed_or_harmless(case):
    inputs = case.inputs()
    arrays = [np.asarray(x.array if isinstance(x, Fixed) else x) for x in inputs]
    noticed_or_harmless(lambda *xs: case.call(F, *xs), arrays, [not isinstance(x, Fixed) for x in inputs])


# ---------------------------------------------------------------- leaves and views


@pytest.mark.parametrize(
    "change", [lambda x: x.add_(1), lambda x: x.__iadd__(1), lambda x: x.__setitem__(0, 1.0), lambda x: x.zero_()]
)
def test_a_leaf_cannot_be_changed_while_recording(change):
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=LEAF):
        change(x)
    assert x.tolist() == [1.0, 2.0]
    with shared.no_grad():
        change(x)
    assert x.is_leaf and x.requires_grad


def test_a_view_of_a_leaf_cannot_be_changed_while_recording():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=VIEW):
        x[0].add_(1)
    with shared.no_grad():
        x[0].add_(1)
    assert x.tolist() == [2.0, 2.0]


def test_a_recorded_change_of_a_view_is_refused():
    y = leaf(1.0, 2.0) * 2
    with pytest.raises(RuntimeError, match=VIEW):
        y[0].mul_(3)
    base = shared.zeros(2)
    with pytest.raises(RuntimeError, match=VIEW):
        base[0].copy_(leaf(1.0)[0])


def test_a_view_of_plain_data_may_change():
    x = shared.zeros(2, 3)
    row = x[1]
    row += 1
    row[0] = 7.0
    assert x.tolist() == [[0.0] * 3, [7.0, 1.0, 1.0]]


def test_a_view_taken_before_a_recorded_change_is_stale():
    y = leaf(1.0, 2.0) * 2
    view = y[0]
    y.mul_(3)
    with pytest.raises(RuntimeError, match=STALE):
        view * 2
    with pytest.raises(RuntimeError, match=STALE):
        view.backward()
    assert (y[0] * 2).item() == 12.0


# ---------------------------------------------------------------- recorded changes are right


def test_a_chain_of_changes():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.add_(1).mul_(y.detach()).sub_(x)
    y.sum().backward()
    assert x.grad.tolist() == [2 * 3 - 1, 2 * 5 - 1]


def test_multiplying_by_itself_in_place():
    x = leaf(3.0)
    y = x * 1
    y *= y
    y.sum().backward()
    assert x.grad.tolist() == [6.0]


def test_assignment_into_a_new_tensor_is_recorded():
    x = leaf(1.0, 2.0)
    y = shared.zeros(3)
    y[1:] = x * 3
    y[0] = x[0]
    (y * shared.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [31.0, 300.0] and y.requires_grad and not y.is_leaf


def test_assignment_cuts_the_old_value_off():
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2
    y[1] = 0.0
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 2.0]


def test_changes_without_recording_keep_the_history():
    x = leaf(1.0, 2.0)
    y = x * 2
    with shared.no_grad():
        y.mul_(5)
    assert y.tolist() == [10.0, 20.0]
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_shape_or_dtype_that_does_not_fit():
    x = shared.zeros(3)
    with pytest.raises(RuntimeError, match=r"shape \[3\] doesn't match the broadcast shape \[2, 3\]"):
        x.add_(shared.ones(2, 3))
    with pytest.raises(RuntimeError, match="float32 can't be cast to the desired output type int64"):
        shared.tensor([1, 2]).mul_(0.5)
    with pytest.raises(RuntimeError, match="bool"):
        shared.tensor([True]).add_(1)
    with pytest.raises(TypeError, match="copy_: expected a Tensor"):
        x.copy_([1, 2, 3])


def test_integers_divided_in_place():
    x = shared.tensor([7, 8])
    x //= 2
    assert x.tolist() == [3, 4] and x.dtype == shared.int64
    with pytest.raises(RuntimeError, match="can't be cast"):
        x /= 2


def test_an_expanded_tensor_cannot_be_written():
    x = shared.zeros(1).expand(3)
    with pytest.raises(RuntimeError, match=r"several elements .* share one place in memory.*clone"):
        x.add_(1)
    with pytest.raises(RuntimeError, match=r"several elements .* share one place in memory.*clone"):
        x[0] = 1.0


def test_overlapping_memory_is_read_before_it_is_written():
    x = shared.arange(6.0)
    x[1:].copy_(x[:-1])
    assert x.tolist() == [0.0, 0.0, 1.0, 2.0, 3.0, 4.0]
    y = shared.arange(4.0).reshape(2, 2)
    y += y.T
    assert y.tolist() == [[0.0, 3.0], [3.0, 6.0]]


# ---------------------------------------------------------------- detach and data


def test_detach_shares_memory_and_ends_the_history():
    x = leaf(1.0, 2.0)
    y = (x * 2).detach()
    assert not y.requires_grad and y.is_leaf and y.grad_fn is None
    z = x.detach()
    z[0] = 9.0
    assert x.tolist() == [9.0, 2.0]


def test_detach_in_place():
    y = leaf(1.0) * 2
    y.detach_()
    assert y.is_leaf and not y.requires_grad


def test_data_can_be_replaced():
    x = leaf(1.0, 2.0)
    x.data = shared.tensor([5.0, 6.0])
    (x * x).sum().backward()
    assert x.tolist() == [5.0, 6.0] and x.grad.tolist() == [10.0, 12.0]
