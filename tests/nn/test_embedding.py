"""nn.Embedding and F.embedding: what tables of cases do not say."""

import importlib.util

import numpy as np
import pytest

import shared
from shared import nn
from shared.nn import functional as F
from shared.testing import gradgradcheck


def indices(*values, dtype=shared.long):
    return shared.tensor(list(values), dtype=dtype)


def table(rows=4, width=3, **options):
    values = np.random.default_rng(0).standard_normal((rows, width))
    return shared.tensor(values, requires_grad=True, **options)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 1}, {"scale_grad_by_freq": True}])
def test_second_gradients(options):
    """With padding or by frequency the first gradient is no derivative of the output: it is differentiated itself."""
    w, i, g = table(), indices(1, 3, 1, 0), table(4, 3)
    if not options:
        assert gradgradcheck(lambda w: (F.embedding(i, w) ** 3).sum(), w)

    def first_gradient(g):
        w = table()
        (found,) = shared.autograd.grad(F.embedding(i, w, **options), w, g, create_graph=True)
        return found

    assert shared.testing.gradcheck(first_gradient, g)


@pytest.mark.parametrize(
    ("wrong", "named"), [(4, "4 is not in 0 … 3"), (-1, "-1 is not in 0 … 3"), (2**40, f"{2**40} is not in 0 … 3")]
)
def test_an_index_that_names_no_row_is_an_error(wrong, named):
    with pytest.raises(IndexError, match=rf"{named}, the rows of a weight of shape \(4, 3\)"):
        F.embedding(indices(0, wrong, 1), table())


def test_other_wrong_arguments_are_named():
    with pytest.raises(RuntimeError, match="scalar types: Long, Int; but got float32 instead"):
        F.embedding(shared.ones(2), table())
    with pytest.raises(RuntimeError, match=r"'weight' must be 2-D, but got shape \(3,\)"):
        F.embedding(indices(0), shared.ones(3))
    with pytest.raises(TypeError, match="indices"):
        F.embedding([0], table())
    with pytest.raises(AssertionError, match="Padding_idx must be within num_embeddings, but 4 is not in -4 … 3"):
        F.embedding(indices(0), table(), padding_idx=4)
    with pytest.raises(AssertionError, match="Padding_idx must be within num_embeddings"):
        nn.Embedding(3, 2, padding_idx=-4)
    with pytest.raises(AssertionError, match="Shape of weight does not match"):
        nn.Embedding(3, 2, _weight=shared.ones(2, 3))
    with pytest.raises(AssertionError, match="expected to be 2-dimensional"):
        nn.Embedding.from_pretrained(shared.ones(3))
    for make in (lambda: nn.Embedding(3, 2, sparse=True), lambda: F.embedding(indices(0), table(), sparse=True)):
        with pytest.raises(NotImplementedError, match="gradients are dense"):
            make()


def test_an_empty_table_has_no_rows():
    assert F.embedding(shared.zeros(0, dtype=shared.long), shared.zeros(0, 3)).shape == (0, 3)
    with pytest.raises(IndexError, match="0 is not in"):
        F.embedding(indices(0), shared.zeros(0, 3))


def test_indices_changed_after_the_forward_do_not_move_the_gradient():
    w, i = table(), indices(1, 2)
    out = F.embedding(i, w)
    i.fill_(0)
    out.sum().backward()
    assert w.grad.sum(1).tolist() == [0.0, 3.0, 3.0, 0.0]


def test_a_table_that_is_too_long_is_shortened_in_place():
    weight = shared.tensor([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]], requires_grad=True)
    array = weight.array
    product = (weight * weight).sum()
    out = F.embedding(indices(0, 1, 0), weight, max_norm=1.0)
    assert np.allclose(out.numpy(force=True), [[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]], atol=1e-6)
    assert weight.array is array and np.allclose(array, [[0.6, 0.8], [0.3, 0.4], [30.0, 40.0]], atol=1e-6)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_a_new_layer_is_standard_normal_with_zeros_for_padding():
    shared.manual_seed(0)
    layer = nn.Embedding(300, 200, padding_idx=-2)
    values = layer.weight.numpy(force=True)
    assert (values[298] == 0).all() and (values[[0, 297, 299]] != 0).all()
    assert abs(values.mean()) < 0.02 and values.std() == pytest.approx(1, abs=0.02)
    assert layer.padding_idx == 298
    layer(indices(298, 1)).sum().backward()
    assert layer.weight.grad.sum(1).tolist() == [0.0, 200.0] + [0.0] * 298


def test_a_layer_from_given_vectors():
    vectors = shared.tensor([[1.0, 2.0], [3.0, 4.0]])
    frozen = nn.Embedding.from_pretrained(vectors, padding_idx=0)
    assert not frozen.weight.requires_grad and frozen.padding_idx == 0
    assert frozen(indices(1, 0)).tolist() == [[3.0, 4.0], [1.0, 2.0]], "padding keeps the vector it was given"
    assert nn.Embedding.from_pretrained(vectors, freeze=False).weight.requires_grad
    assert frozen.weight.array is vectors.array, "not copied, as in PyTorch"


@pytest.mark.parametrize("dtype", [shared.float64, shared.float16, shared.bfloat16], ids=str)
def test_dtypes_are_kept(dtype):
    layer = nn.Embedding(5, 3, dtype=dtype)
    out = layer(indices(1, 1, 4, dtype=shared.int32))
    out.sum().backward()
    assert out.dtype == layer.weight.grad.dtype == dtype
    assert layer.weight.grad.float().sum(1).tolist() == [0.0, 6.0, 0.0, 0.0, 3.0]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed")
@pytest.mark.parametrize(
    "options",
    [{}, {"padding_idx": 0}, {"max_norm": 1.5}, {"scale_grad_by_freq": True}, {"max_norm": 2.0, "norm_type": 1.0}],
    ids=str,
)
def test_training_with_a_layer_is_pytorchs(options):
    import torch

    ours, theirs = nn.Embedding(7, 4, **options).double(), torch.nn.Embedding(7, 4, **options).double()
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(ours.weight.numpy(force=True)))
    optimizer, reference = shared.optim.SGD(ours.parameters(), 0.3), torch.optim.SGD(theirs.parameters(), 0.3)
    rng = np.random.default_rng(0)
    for _ in range(5):
        tokens = rng.integers(0, 7, (3, 6))
        for layer, step, library in ((ours, optimizer, shared), (theirs, reference, torch)):
            step.zero_grad()
            (layer(library.tensor(tokens)) ** 2).mean().backward()
            step.step()
        np.testing.assert_allclose(ours.weight.numpy(force=True), theirs.weight.detach().numpy(), rtol=1e-7)


def test_tied_with_the_output_layer_both_gradients_add_up():
    layer, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = layer.weight
    tokens = indices(0, 2, 2)
    hidden = layer(tokens)
    head(hidden).sum().backward()
    alone = shared.tensor(layer.weight.numpy(force=True), requires_grad=True)
    (F.embedding(tokens, alone).detach() @ alone.T).sum().backward()
    second = shared.tensor(layer.weight.numpy(force=True), requires_grad=True)
    (F.embedding(tokens, second) @ second.detach().T).sum().backward()
    assert np.allclose(layer.weight.grad.numpy(), (alone.grad + second.grad).numpy(), rtol=1e-5, atol=1e-5)
