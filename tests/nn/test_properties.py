"""Properties that hold for every shape, dimension and tree, drawn by Hypothesis."""

import math

import numpy as np
import pytest

import shared
import shared.nn.functional as F
from shared import nn

pytest.importorskip("hypothesis")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as hnp  # noqa: E402

numbers = st.floats(-50, 50, width=32)


@st.composite
def array_and_dim(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5))
    array = draw(hnp.arrays("float64", shape, elements=numbers))
    axes = draw(st.permutations(range(len(shape))))
    return array.transpose(axes), draw(st.integers(-len(shape), len(shape) - 1))


@given(array_and_dim(), numbers)
def test_softmax_is_a_distribution_that_a_shift_does_not_change(drawn, shift):
    array, dim = drawn
    out = F.softmax(shared.Tensor(array), dim).numpy()
    assert out.shape == array.shape and (out >= 0).all()
    np.testing.assert_allclose(out.sum(axis=dim), 1.0, rtol=1e-12)
    np.testing.assert_allclose(F.softmax(shared.Tensor(array + shift), dim).numpy(), out, rtol=1e-9)
    np.testing.assert_allclose(F.log_softmax(shared.Tensor(array), dim).exp().numpy(), out, rtol=1e-12)


@given(array_and_dim())
def test_gradients_of_softmax_and_log_softmax_sum_as_they_must(drawn):
    """A shift of the input changes nothing, so the gradient along it is 0."""
    array, dim = drawn
    for function in (F.softmax, F.log_softmax):
        x = shared.tensor(array, requires_grad=True)
        weights = shared.tensor(np.cos(np.arange(array.size)).reshape(array.shape))
        (function(x, dim) * weights).sum().backward()
        np.testing.assert_allclose(x.grad.numpy().sum(axis=dim), 0.0, atol=1e-12 * array.size)


@st.composite
def classification(draw):
    spatial = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3)) if draw(st.booleans()) else ()
    n, classes = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    logits = draw(hnp.arrays("float64", (n, classes, *spatial), elements=numbers))
    target = draw(hnp.arrays("int64", (n, *spatial), elements=st.integers(0, classes - 1)))
    ignored = draw(hnp.arrays("bool", target.shape))
    return logits, np.where(ignored, -100, target)


@given(classification(), st.floats(0, 1))
def test_cross_entropy_is_that_of_a_loop(drawn, smoothing):
    logits, target = drawn
    rows = np.moveaxis(logits, 1, -1).reshape(-1, logits.shape[1])
    losses = []
    for row, label in zip(rows, target.reshape(-1), strict=True):
        if label == -100:
            losses.append(0.0)
            continue
        log_probs = [v - math.log(math.fsum(math.exp(u - max(row)) for u in row)) - max(row) for v in row]
        losses.append(-(1 - smoothing) * log_probs[label] - smoothing * math.fsum(log_probs) / len(row))
    kept = int((target != -100).sum())
    for reduction, expected in [
        ("none", np.array(losses).reshape(target.shape)),
        ("sum", math.fsum(losses)),
        ("mean", math.fsum(losses) / kept if kept else math.nan),
    ]:
        found = F.cross_entropy(
            shared.tensor(logits), shared.tensor(target), reduction=reduction, label_smoothing=smoothing
        )
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


@given(classification())
def test_ignored_rows_get_no_gradient_and_the_others_sum_to_zero(drawn):
    logits, target = drawn
    x = shared.tensor(logits, requires_grad=True)
    F.cross_entropy(x, shared.tensor(target), reduction="sum").backward()
    grad = np.moveaxis(x.grad.numpy(), 1, -1)
    assert (grad[target == -100] == 0).all()
    np.testing.assert_allclose(grad.sum(axis=-1), 0.0, atol=1e-12)


@st.composite
def pair_that_broadcasts(draw):
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4)).input_shapes
    return [draw(hnp.arrays("float64", shape, elements=numbers)) for shape in shapes]


@pytest.mark.filterwarnings("ignore:Using a target size")
@given(pair_that_broadcasts())
def test_losses_of_elements_broadcast_and_their_gradients_come_back_in_shape(arrays):
    for function, formula in [
        (F.mse_loss, lambda d: d * d),
        (F.l1_loss, abs),
        (F.huber_loss, lambda d: np.where(abs(d) <= 1, d * d / 2, abs(d) - 0.5)),
    ]:
        a, b = (shared.tensor(x, requires_grad=True) for x in arrays)
        loss = function(a, b, reduction="sum")
        np.testing.assert_allclose(loss.item(), formula(arrays[0] - arrays[1]).sum(), rtol=1e-9, atol=1e-9)
        loss.backward()
        assert a.grad.shape == a.shape and b.grad.shape == b.shape
        np.testing.assert_allclose(a.grad.sum().item(), -b.grad.sum().item(), rtol=1e-9, atol=1e-9)


@st.composite
def tree(draw, depth=3):
    if depth == 0 or draw(st.booleans()):
        return nn.Linear(draw(st.integers(1, 3)), draw(st.integers(1, 3)), bias=draw(st.booleans()))
    children = draw(st.lists(tree(depth=depth - 1), max_size=3))
    if draw(st.booleans()):
        return nn.ModuleList(children)
    return nn.ModuleDict({f"k{i}": child for i, child in enumerate(children)})


@given(tree())
def test_state_and_parameters_agree_on_every_tree(model):
    state = model.state_dict()
    assert list(state) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert model.get_parameter(name) is parameter
        assert state[name].array is parameter.array
    doubled = {name: value * 2 + 1 for name, value in state.items()}
    expected = {name: value.numpy().copy() for name, value in doubled.items()}
    assert str(model.load_state_dict(doubled)) == "<All keys matched successfully>"
    assert all(np.array_equal(value.numpy(), expected[name]) for name, value in model.state_dict().items())
    assert repr(model).count("Linear(") >= (1 if state else 0)
