"""Properties drawn by Hypothesis: broadcasting, memory layouts, chains of views, reductions, products."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import shared
from shared.autograd import unbroadcast

moderate = settings(deadline=None, max_examples=60)
sizes = st.integers(0, 4)
shapes = st.lists(sizes, max_size=4).map(tuple)


def values(shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape)


@st.composite
def arrays(draw, ndim=(0, 4)):
    """An array with an odd layout: transposed, cut with a step, or broadcast."""
    shape = draw(st.lists(sizes, min_size=ndim[0], max_size=ndim[1]).map(tuple))
    steps = [draw(st.integers(1, 2)) for _ in shape]
    offsets = [draw(st.integers(0, 1)) for _ in shape]
    base = values([n * s + o for n, s, o in zip(shape, steps, offsets, strict=True)], len(shape))
    a = base[tuple(slice(o, o + n * s, s) for n, s, o in zip(shape, steps, offsets, strict=True))]
    return np.asarray(a).transpose(draw(st.permutations(range(len(shape)))))


@moderate
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4, min_side=0))
def test_broadcasting_is_numpys(broadcast):
    (s, t), full = broadcast.input_shapes, broadcast.result_shape
    a, b = values(s, 1), values(t, 2)
    x, y = (shared.from_numpy(np.array(v)).requires_grad_() for v in (a, b))
    z = x * y
    assert tuple(z.shape) == full
    np.testing.assert_allclose(z.detach().numpy(), a * b)
    seed = values(full, 3)
    z.backward(shared.from_numpy(np.array(seed)))
    np.testing.assert_allclose(x.grad.numpy(), unbroadcast(seed * b, s))
    np.testing.assert_allclose(y.grad.numpy(), unbroadcast(seed * a, t))


@moderate
@given(shapes, shapes)
def test_shapes_that_do_not_broadcast_are_both_named(s, t):
    try:
        np.broadcast_shapes(s, t)
        assume(False)
    except ValueError:
        pass
    for operation in (lambda a, b: a + b, lambda a, b: a < b, shared.maximum, lambda a, b: shared.where(a > 0, a, b)):
        with pytest.raises(RuntimeError) as caught:
            operation(shared.ones(s), shared.ones(t))
        assert str(s) in str(caught.value) and str(t) in str(caught.value)


@moderate
@given(hnp.mutually_broadcastable_shapes(num_shapes=1, max_dims=4, max_side=4, min_side=0), st.data())
def test_unbroadcast_is_the_adjoint_of_broadcasting(broadcast, data):
    """⟨B a, g⟩ = ⟨a, Bᵀ g⟩ for every a and g: the definition of the transpose of a linear map."""
    shape = broadcast.input_shapes[0]
    extra = data.draw(st.lists(sizes, max_size=2).map(tuple))
    full = extra + tuple(data.draw(st.integers(1, 4)) if n == 1 else n for n in shape)
    a, g = values(shape, 1), values(full, 2)
    back = unbroadcast(g, shape)
    assert back.shape == shape
    np.testing.assert_allclose((np.broadcast_to(a, full) * g).sum(), (a * back).sum(), atol=1e-9)


@moderate
@given(arrays(), st.data())
def test_chains_of_views_are_numpys(a, data):
    """Each step of a random chain on a tensor and on an array; the gradient runs the chain backwards."""
    x = shared.from_numpy(a).detach().requires_grad_()
    y, b = x, a
    places = np.arange(a.size).reshape(a.shape)
    for _ in range(data.draw(st.integers(1, 5))):
        step = data.draw(st.sampled_from(["transpose", "reshape", "unsqueeze", "squeeze", "flip", "slice", "roll"]))
        axis = data.draw(st.integers(-y.ndim, y.ndim - 1)) if y.ndim else 0
        if step == "transpose":
            order = data.draw(st.permutations(range(y.ndim)))
            y, b, places = y.permute(order), b.transpose(order), places.transpose(order)
        elif step == "reshape":
            target = data.draw(st.permutations(y.shape)).copy() if y.ndim else [1]
            y, b, places = y.reshape(target), b.reshape(target), places.reshape(target)
        elif step == "unsqueeze" and y.ndim < 5:
            y, b, places = y.unsqueeze(0), b[None], places[None]
        elif step == "squeeze":
            y, b, places = y.squeeze(), b.squeeze(), places.squeeze()
        elif step == "flip" and y.ndim:
            y, b, places = y.flip(axis), np.flip(b, axis), np.flip(places, axis)
        elif step == "slice" and y.ndim:
            y, b, places = y[..., ::2], b[..., ::2], places[..., ::2]
        elif step == "roll" and y.ndim:
            y, b, places = y.roll(1, axis), np.roll(b, 1, axis), np.roll(places, 1, axis)
    np.testing.assert_array_equal(y.detach().numpy(), b)
    seed = values(b.shape, 5)
    y.backward(shared.from_numpy(np.array(seed)))
    expected = np.zeros(a.size)
    np.add.at(expected, places.reshape(-1), seed.reshape(-1))
    np.testing.assert_array_equal(x.grad.numpy(), expected.reshape(a.shape))


@moderate
@given(arrays(ndim=(1, 4)), st.data())
def test_reductions_are_numpys(a, data):
    axes = tuple(data.draw(st.sets(st.integers(0, a.ndim - 1), min_size=1)))
    dims = tuple(d - a.ndim if data.draw(st.booleans()) else d for d in axes)
    keep = data.draw(st.booleans())
    x = shared.from_numpy(a)
    np.testing.assert_allclose(x.sum(dims, keepdim=keep).numpy(), a.sum(axes, keepdims=keep), atol=1e-12)
    if a.size:
        np.testing.assert_allclose(x.mean(dims, keepdim=keep).numpy(), a.mean(axes, keepdims=keep), atol=1e-12)
        np.testing.assert_array_equal(x.amax(dims, keepdim=keep).numpy(), a.max(axes, keepdims=keep))
        np.testing.assert_allclose(
            x.var(dims, unbiased=False, keepdim=keep).numpy(), a.var(axes, keepdims=keep), atol=1e-12
        )
        np.testing.assert_array_equal(x.max(dims[0]).indices.numpy(), a.argmax(axes[0]))
        np.testing.assert_array_equal(x.argmin(dims[0], keepdim=True).numpy(), a.argmin(axes[0], keepdims=True))


@moderate
@given(arrays(ndim=(2, 4)), st.data())
def test_operations_on_odd_layouts_equal_those_on_copies(a, data):
    x, y = shared.from_numpy(a), shared.from_numpy(a.copy())
    operation = data.draw(
        st.sampled_from(
            [
                lambda t: t.exp(),
                lambda t: t.cumsum(-1),
                lambda t: t.sort(0).values,
                lambda t: t @ t.mT,
                lambda t: t.softmax(-1),
                lambda t: t.tril(),
                lambda t: t.flatten(),
                lambda t: t.norm(dim=0),
                lambda t: shared.cat([t, t], -1),
                lambda t: t.repeat(*[2] * t.ndim),
                lambda t: shared.nn.functional.pad(t, (1, 1)),
                lambda t: t[..., [0, 0]] if t.shape[-1] else t,
                lambda t: t.contiguous().view(-1),
            ]
        )
    )
    np.testing.assert_allclose(operation(x).numpy(), operation(y).numpy(), rtol=1e-12)


@moderate
@given(shapes, st.data())
def test_view_shares_memory_or_refuses(shape, data):
    """view never copies: it either shares memory or says to use reshape."""
    x = shared.from_numpy(values(shape)).permute(data.draw(st.permutations(range(len(shape)))))
    target = tuple(data.draw(st.permutations(shape)))
    try:
        y = x.view(target)
    except RuntimeError as error:
        assert "reshape" in str(error)
        assert not np.shares_memory(x.reshape(target).numpy(), x.numpy())
        return
    assert tuple(y.shape) == target
    if y.numel():
        assert np.shares_memory(y.numpy(), x.numpy())
        y.zero_()
    np.testing.assert_array_equal(y.numpy(), x.numpy().reshape(target))


@st.composite
def products(draw):
    """Two shapes that matmul multiplies."""
    n, k, m = draw(sizes), draw(sizes), draw(sizes)
    batch = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    left = draw(st.sampled_from([(k,), (*batch[0], n, k)]))
    right = draw(st.sampled_from([(k,), (*batch[1], k, m)]))
    return left, right


@moderate
@given(products())
def test_matmul_is_numpys(given_shapes):
    left, right = given_shapes
    a, b = values(left, 1), values(right, 2)
    x, y = (shared.from_numpy(v).requires_grad_() for v in (a, b))
    out = x @ y
    np.testing.assert_allclose(out.detach().numpy(), a @ b, atol=1e-12)
    out.sum().backward()
    # Σ (a @ b) changes by Σ (da @ b): the gradient is right if ⟨gradient, da⟩ is that, for a random da
    da = values(left, 3)
    np.testing.assert_allclose((x.grad.numpy() * da).sum(), (da @ b).sum(), atol=1e-9)


@st.composite
def equations(draw):
    """An einsum equation over 'abcd' with its operands' shapes."""
    size = {c: draw(st.integers(1, 3)) for c in "abcd"}
    terms = draw(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=3))
    letters = sorted(set("".join(terms)))
    output = draw(st.permutations(letters))[: draw(st.integers(0, len(letters)))]
    explicit = "->" + "".join(output) if draw(st.booleans()) else ""
    return ",".join(terms) + explicit, [tuple(size[c] for c in term) for term in terms]


@settings(deadline=None, max_examples=120)
@given(equations())
def test_einsum_is_numpys(case):
    equation, given_shapes = case
    operands = [values(s, i) for i, s in enumerate(given_shapes)]
    expected = np.einsum(equation, *operands)
    tensors = [shared.from_numpy(np.asarray(v)).requires_grad_() for v in operands]
    out = shared.einsum(equation, *tensors)
    np.testing.assert_allclose(out.detach().numpy(), expected, atol=1e-12)
    out.sum().backward()
    for i, x in enumerate(tensors):
        moved = [values(given_shapes[i], 9) if j == i else v for j, v in enumerate(operands)]
        np.testing.assert_allclose((x.grad.numpy() * moved[i]).sum(), np.einsum(equation, *moved).sum(), atol=1e-9)
