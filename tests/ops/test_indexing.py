"""Indexing as in PyTorch, drawn by Hypothesis: slices, ints, None, Ellipsis, masks, integer arrays, assignment."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared

try:
    import torch
except ImportError:
    torch = None

moderate = settings(deadline=None, max_examples=150)


@st.composite
def indexed(draw, arrays_too=True):
    """(shape, index): an index of 1 to 4 parts that fits the shape; arrays stand for tensors."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    ellipsis = draw(st.integers(-1, len(shape)))
    length = draw(st.integers(1, 3))
    parts, axis = [], 0
    while axis < len(shape):
        if axis == ellipsis:
            parts.append(Ellipsis)
            axis = draw(st.integers(axis, len(shape)))
            ellipsis = -1
            continue
        kinds = ["int", "slice", "slice", "none"] + (["list", "mask", "zero-dim"] if arrays_too else [])
        kind, n = draw(st.sampled_from(kinds)), shape[axis]
        if kind == "none":
            parts.append(None)
            continue
        if kind == "int":
            parts.append(draw(st.integers(-n, n - 1)))
        elif kind == "zero-dim":
            parts.append(np.asarray(draw(st.integers(-n, n - 1))))
        elif kind == "slice":
            start, stop = (draw(st.none() | st.integers(-n - 1, n + 1)) for _ in range(2))
            parts.append(slice(start, stop, draw(st.none() | st.integers(1, 3))))
        elif kind == "list":
            parts.append(np.array(draw(st.lists(st.integers(-n, n - 1), min_size=length, max_size=length))))
        else:  # a mask with `length` True in it, so that it fits the other arrays
            if n < length:
                parts.append(slice(None))
            else:
                mask = np.zeros(n, bool)
                mask[draw(st.permutations(range(n)))[:length]] = True
                parts.append(mask)
        axis += 1
        if not any(p is Ellipsis for p in parts) and ellipsis < axis and draw(st.integers(0, 5)) == 0:
            break  # fewer parts than dimensions
    return shape, tuple(parts)


def index_for(t, index):
    make = torch.from_numpy if t is torch else shared.from_numpy
    return tuple(make(p) if isinstance(p, np.ndarray) else p for p in index)


def numbers(shape):
    return np.arange(float(np.prod(shape))).reshape(shape)


@moderate
@given(indexed(arrays_too=False))
def test_basic_indexing_is_a_view_as_in_numpy(case):
    shape, index = case
    a = numbers(shape)
    x = shared.from_numpy(a)
    y = x[index]
    np.testing.assert_array_equal(y.numpy(), a[index])
    if y.numel():
        y.fill_(-1)
        assert (a[index] == -1).all()


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
@moderate
@given(indexed())
def test_indexing_and_its_gradient_are_pytorchs(case):
    shape, index = case
    results = []
    for t in (shared, torch):
        x = t.from_numpy(numbers(shape)).requires_grad_()
        y = x[index_for(t, index)]
        (y * y).sum().backward()
        results.append((y.detach().numpy(), x.grad.numpy()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
@moderate
@given(indexed(), st.booleans())
def test_assignment_and_its_gradient_are_pytorchs(case, broadcast):
    shape, index = case
    results = []
    repeated = any(isinstance(p, np.ndarray) and p.dtype != bool and len(np.unique(p % 100)) < p.size for p in index)
    for t in (shared, torch):
        x = t.from_numpy(numbers(shape)).requires_grad_()
        target = x * 1
        size = target[index_for(t, index)].shape
        value = t.full(() if broadcast or repeated else tuple(size), -5.0, dtype=t.float64).requires_grad_()
        target[index_for(t, index)] = value
        (target * t.from_numpy(numbers(shape) + 1)).sum().backward()
        grads = [x.grad.numpy()] + ([] if repeated else [value.grad.numpy()])
        results.append([target.detach().numpy(), *grads])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@moderate
@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_gradients_of_repeated_positions_add_up(rows, columns, chosen):
    places = [c % rows for c in chosen]
    x = shared.zeros(rows, columns, requires_grad=True)
    x[places].sum().backward()
    counts = np.bincount(places, minlength=rows)
    np.testing.assert_array_equal(x.grad.numpy(), np.repeat(counts[:, None], columns, axis=1))


# ---------------------------------------------------------------- what is refused, and how it is said


@pytest.mark.parametrize(
    "index, error, message",
    [
        (slice(None, None, -1), ValueError, "step must be greater than zero; use flip"),
        (slice(None, None, 0), ValueError, "step must be greater than zero"),
        (5, IndexError, r"index 5 is out of bounds for dimension 0 with size 2 \(the tensor has shape \(2, 3\)\)"),
        ((0, 3), IndexError, "index 3 is out of bounds for dimension 1 with size 3"),
        ((0, 0, 0), IndexError, r"too many indices.*\(the tensor has shape \(2, 3\)\)"),
        (1.5, IndexError, "must be long, int, byte or bool tensors, but got float64"),
        ("a", IndexError, "must be long, int, byte or bool tensors"),
        (shared.tensor([0.0]), IndexError, "must be long, int, byte or bool tensors, but got float32"),
        (shared.tensor([0], dtype=shared.int16), IndexError, "must be long, int, byte or bool tensors, but got int16"),
        ([0, 7], IndexError, "index 7 is out of bounds for dimension 0 with size 2"),
        (
            shared.ones(3, dtype=shared.bool),
            IndexError,
            r"did not match.*dimension 0.*\(the tensor has shape \(2, 3\)\)",
        ),
        (([0, 1], [0, 1, 2]), IndexError, r"shape mismatch.*\(the tensor has shape \(2, 3\)\)"),
    ],
)
def test_a_wrong_index_is_explained(index, error, message):
    x = shared.ones(2, 3)
    with pytest.raises(error, match=message):
        x[index]
    with pytest.raises(error, match=message):
        x[index] = 0.0


def test_a_value_that_does_not_fit():
    x = shared.ones(2, 3)
    with pytest.raises(RuntimeError, match=r"shape mismatch in assignment to shape \(2, 3\).*\(4,\)"):
        x[0] = shared.ones(4)
    with pytest.raises(TypeError, match="expected a Tensor or a number, but got str"):
        x[0] = "a"


def test_byte_tensors_are_masks():
    x = shared.arange(3)
    assert x[shared.tensor([1, 0, 1], dtype=shared.uint8)].tolist() == [0, 2]


def test_assigning_a_wider_dtype_converts():
    x = shared.zeros(2, dtype=shared.int64)
    x[0] = 2.7
    x[1] = shared.tensor(3.9)
    assert x.tolist() == [2, 3]


@pytest.mark.parametrize(
    "bounds", [(0.5, None), (None, 1.0), (None, None, 1.5), (shared.tensor(1.0), None), ("1", None)]
)
def test_bounds_of_a_slice_are_integers(bounds):
    x = shared.arange(3)
    for index in (slice(*bounds), (Ellipsis, slice(*bounds))):
        with pytest.raises(TypeError, match="slice indices must be integers"):
            x[index]
        with pytest.raises(TypeError, match="slice indices must be integers"):
            x[index] = 0
    assert x[shared.tensor(1) : np.int64(3)].tolist() == [1, 2] and x[:True].tolist() == [0]


def test_assigning_a_slice_of_itself():
    x = shared.arange(5)
    x[1:] = x[:-1].clone()
    assert x.tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: x.gather(1, shared.tensor([[3]])), IndexError, r"gather\(\): index 3 is out of bounds for dimension 1 with size 3"),
        (lambda x: x.gather(1, shared.tensor([[-1]])), IndexError, "index -1 is out of bounds"),
        (lambda x: x.gather(1, shared.tensor([0])), RuntimeError, "same number of dimensions as input: 1 and 2"),
        (lambda x: x.gather(1, shared.zeros(1, 1)), RuntimeError, "Expected dtype int32/int64 for index, but got float32"),
        (lambda x: x.gather(1, shared.zeros(5, 1, dtype=shared.int64)), RuntimeError, r"\[5, 1\] is larger than input of shape \[2, 3\]"),
        (lambda x: x.gather(2, shared.tensor([[0]])), IndexError, r"range of \[-2, 1\], but got 2"),
        (lambda x: x.scatter(0, shared.tensor([[0, 1]]), shared.ones(1, 1)), RuntimeError, r"\[1, 2\] is larger than src of shape \[1, 1\]"),
        (lambda x: x.scatter(0, shared.tensor([[0]]), shared.ones(1, 1, dtype=shared.float64)), RuntimeError, "float32 and float64"),
        (lambda x: x.scatter(0, shared.tensor([[0]]), 1.0, reduce="mean"), RuntimeError, "None or 'add', but got 'mean'"),
        (lambda x: x.index_select(0, shared.tensor([[0]])), IndexError, "vector, but it has 2 dimensions"),
        (lambda x: x.index_add(0, shared.tensor([0]), shared.ones(2, 3)), RuntimeError, r"indices \(1\) should be equal to source.size\(dim\) \(2\)"),
        (lambda x: x.masked_fill(shared.ones(2, 3), 0), RuntimeError, "boolean masks, but got mask with dtype float32"),
        (lambda x: x.masked_fill(x > 0, shared.ones(2)), RuntimeError, r"0-dimensional value tensor, but got tensor with 1 dimension"),
        (lambda x: x.masked_select(x), RuntimeError, "boolean masks"),
        (lambda x: x.topk(4), RuntimeError, "k=4, but dimension 1 has size 3"),
        (lambda x: shared.searchsorted(x[0], x[0], side="middle"), RuntimeError, "'left' or 'right' but got 'middle'"),
        (lambda x: shared.searchsorted(x, shared.ones(3, 1)), RuntimeError, "leading dimensions must match"),
        (lambda x: shared.where(x, x, x), RuntimeError, "condition to be a boolean tensor, but got float32"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_explained(call, error, message):
    with pytest.raises(error, match=message):
        call(shared.ones(2, 3))


# ---------------------------------------------------------------- the k largest of many


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", [shared.float64, shared.float32, shared.float16, shared.bfloat16, shared.int64])
@pytest.mark.parametrize("shape, dim", [((3000,), 0), ((3, 700), -1), ((2, 400, 3), 1), ((0, 400), 1)])
def test_topk_without_a_full_sort_is_the_start_of_one(shape, dim, dtype, largest):
    """Of a few among many only those are sorted: with ties in order, NaN as the largest, infinities at the ends."""
    rng = np.random.default_rng(0)
    for spread in (0, 2, 50, -1):  # all equal; many ties; few; most at one end
        values = np.round(rng.normal(0, abs(spread), shape))
        values = np.where(rng.random(shape) < 0.95, -9 if largest else 9, values) if spread < 0 else values
        if dtype.kind != "i" and values.size:
            values.reshape(-1)[rng.integers(0, values.size, 30)] = rng.choice([np.nan, np.inf, -np.inf, -0.0], 30)
        x = shared.tensor(values, dtype=dtype)
        full = shared.argsort(x, dim, descending=largest, stable=True)
        for k in (0, 1, 7, shape[dim] // 2, shape[dim] // 2 + 1, shape[dim]):
            found = x.topk(k, dim, largest=largest)
            expected = full.narrow(dim, 0, k)
            assert found.indices.dtype == shared.int64 and found.indices.tolist() == expected.tolist()
            np.testing.assert_array_equal(
                found.values.double().numpy(), shared.gather(x, dim, expected).double().numpy()
            )


def test_topk_of_many_has_the_gradient_of_what_it_picks():
    x = shared.randn(2, 500, requires_grad=True)
    values, indices = x.topk(3)
    (values * shared.tensor([1.0, 2.0, 3.0])).sum().backward()
    expected = np.zeros((2, 500), "float32")
    np.put_along_axis(expected, indices.numpy(), np.array([[1.0, 2.0, 3.0]] * 2, "float32"), 1)
    np.testing.assert_array_equal(x.grad.numpy(), expected)
