"""The mistakes learners make with losses and activations: each message says what was given and what was expected."""

import warnings

import numpy as np
import pytest

import shared
import shared.nn.functional as F
from shared import nn

LOGITS = shared.zeros(4, 3)


def long(*values):
    return shared.tensor(values)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: F.cross_entropy(LOGITS, long(0, 1, 3, 2)),
            IndexError,
            ["cross_entropy", "Target 3 is out of bounds", "3 classes", "0 to 2"],
        ),
        (
            lambda: F.cross_entropy(LOGITS, long(0, -1, 1, 2)),
            IndexError,
            ["Target -1 is out of bounds", "ignore_index=-100"],
        ),
        (lambda: F.nll_loss(LOGITS, long(0, 7, 1, 2)), IndexError, ["nll_loss", "Target 7"]),
        (lambda: F.cross_entropy(LOGITS, long(0, 1, 3, 3), ignore_index=0), IndexError, ["Target 3"]),
        (
            lambda: F.cross_entropy(LOGITS, shared.zeros(4)),
            RuntimeError,
            ["expected scalar type Long", "float32", "(4,)", "target.long()", "(4, 3)"],
        ),
        (lambda: F.cross_entropy(LOGITS, long(0, 1, 2, 0).int()), RuntimeError, ["expected scalar type Long", "int32"]),
        (lambda: F.cross_entropy(LOGITS, long(0, 1, 2)), ValueError, ["batch_size (4)", "batch_size (3)", "(4, 3)"]),
        (
            lambda: F.cross_entropy(LOGITS, shared.zeros(4, 3).long()),
            RuntimeError,
            ["target size (4,)", "got (4, 3)", "one-hot", "argmax(1)"],
        ),
        (lambda: F.cross_entropy(LOGITS, shared.zeros(4, 1).long()), RuntimeError, ["target size (4,)", "got (4, 1)"]),
        (
            lambda: F.cross_entropy(shared.zeros(2, 3, 5), shared.zeros(2, 4).long()),
            RuntimeError,
            ["target size (2, 5)", "got (2, 4)"],
        ),
        (lambda: F.cross_entropy(shared.zeros(()), shared.tensor(0)), ValueError, ["(N, C)", "0-dimensional"]),
        (
            lambda: F.cross_entropy(LOGITS.long(), long(0, 1, 2, 0)),
            NotImplementedError,
            ["floating-point input", "int64"],
        ),
        (
            lambda: F.cross_entropy(LOGITS, long(0, 1, 2, 0), weight=shared.ones(2)),
            RuntimeError,
            ["all 3 classes", "(2,)"],
        ),
        (lambda: F.cross_entropy(LOGITS, LOGITS, weight=shared.ones(2)), RuntimeError, ["all 3 classes", "(2,)"]),
        (
            lambda: F.cross_entropy(LOGITS, LOGITS, ignore_index=1),
            RuntimeError,
            ["ignore_index is not supported for floating"],
        ),
        (
            lambda: F.cross_entropy(LOGITS, long(0, 1, 2, 0), label_smoothing=1.5),
            RuntimeError,
            ["between 0.0 and 1.0", "1.5"],
        ),
        (
            lambda: F.cross_entropy(LOGITS, long(0, 1, 2, 0), reduction="avg"),
            ValueError,
            ["avg is not a valid value for reduction"],
        ),
        (lambda: F.mse_loss(LOGITS, LOGITS, reduction="avg"), ValueError, ["avg is not a valid value"]),
        (lambda: F.kl_div(LOGITS, LOGITS, reduction="avg"), ValueError, ["avg", "batchmean"]),
        (lambda: F.mse_loss(LOGITS, np.zeros((4, 3))), TypeError, ["mse_loss", "target", "Tensor", "ndarray"]),
        (lambda: F.mse_loss(shared.zeros(4, 3), shared.zeros(4, 2)), RuntimeError, ["MseLoss", "(4, 3)", "(4, 2)"]),
        (lambda: F.mse_loss(LOGITS, LOGITS, weight=shared.ones(3)), ValueError, ["same size", "(4, 3)", "(3,)"]),
        (lambda: F.huber_loss(LOGITS, LOGITS, weight=shared.ones(3)), ValueError, ["same size", "(4, 3)", "(3,)"]),
        (lambda: F.huber_loss(LOGITS, LOGITS, delta=0), RuntimeError, ["non-positive values for delta"]),
        (lambda: F.smooth_l1_loss(LOGITS, LOGITS, beta=-1), RuntimeError, ["negative values for beta"]),
        (
            lambda: F.binary_cross_entropy(LOGITS, shared.zeros(4)),
            ValueError,
            ["binary_cross_entropy", "(4,)", "(4, 3)"],
        ),
        (lambda: F.binary_cross_entropy(LOGITS + 2, LOGITS), RuntimeError, ["between 0 and 1", "with_logits"]),
        (
            lambda: F.binary_cross_entropy_with_logits(LOGITS, shared.zeros(4)),
            ValueError,
            ["(4,)", "must be the same as input size ((4, 3))"],
        ),
        (lambda: F.softmax(LOGITS.long(), dim=1), NotImplementedError, ["softmax", "int64", ".float()"]),
        (lambda: F.gelu(LOGITS.long()), NotImplementedError, ["gelu", "int64"]),
        (lambda: F.softmax(LOGITS, dim=2), IndexError, ["[-2, 1]", "2"]),
        (lambda: F.log_softmax(shared.zeros(()), dim=1), IndexError, ["[-1, 0]"]),
        (lambda: F.gelu(LOGITS, approximate="erf"), RuntimeError, ["'none' or 'tanh'", "'erf'"]),
        (lambda: F.glu(LOGITS), RuntimeError, ["halving dimension must be even", "(4, 3)"]),
        (lambda: F.prelu(LOGITS, shared.ones(2)), RuntimeError, ["1 or 3 elements", "(4, 3)", "(2,)"]),
        (lambda: F.hardtanh(LOGITS, 1.0, -1.0), ValueError, ["min_val cannot be greater"]),
        (lambda: nn.Hardtanh(1.0, -1.0), ValueError, ["max_val must be larger than min_val"]),
        (lambda: nn.Linear(3, 2)(shared.zeros(4, 5)), RuntimeError, ["linear", "(4, 5)", "(2, 3)"]),
        (lambda: nn.Linear(3, 2)(shared.zeros(4, 3).double()), RuntimeError, ["linear", "float64", "float32"]),
        (
            lambda: nn.Bilinear(3, 2, 1)(shared.zeros(4, 3), shared.zeros(4, 3)),
            RuntimeError,
            ["bilinear", "(4, 3)", "(1, 3, 2)"],
        ),
        (lambda: nn.Bilinear(0, 2, 1), ValueError, ["in1_features must be > 0, but got 0"]),
        (lambda: nn.Unflatten("name", (2,)), TypeError, ["expects dim to be an int, but got str"]),
        (lambda: nn.Unflatten(1, 6), TypeError, ["unflattened_size must be a tuple of ints, but found 6"]),
    ],
)
def test_mistakes_are_named(call, error, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error) as raised:
            call()
    missing = [word for word in words if word not in str(raised.value)]
    assert not missing, f"{missing} not in: {raised.value}"


@pytest.mark.parametrize("name", ["relu", "gelu", "softmax", "log_softmax", "dropout", "softplus"])
def test_a_function_takes_tensors_only(name):
    with pytest.raises(TypeError, match=rf"{name}\(\): argument 'input' must be Tensor, not ndarray"):
        getattr(F, name)(np.zeros(3))


@pytest.mark.parametrize(
    "name",
    ["cross_entropy", "nll_loss", "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "kl_div"]
    + ["binary_cross_entropy", "binary_cross_entropy_with_logits"],
)
def test_a_loss_takes_tensors_only(name):
    with pytest.raises(TypeError, match=rf"{name}\(\): argument 'input' must be Tensor, not ndarray"):
        getattr(F, name)(np.zeros((4, 3)), LOGITS, reduction="sum")
    with pytest.raises(TypeError, match=rf"{name}\(\): argument 'target' must be Tensor, not list"):
        getattr(F, name)(LOGITS, [0, 1, 2, 0], reduction="sum")


def test_different_shapes_broadcast_with_a_warning():
    with pytest.warns(UserWarning, match=r"target size \(\(3,\)\) that is different to the input size \(\(3, 1\)\)"):
        loss = F.mse_loss(shared.zeros(3, 1), shared.ones(3), reduction="none")
    assert loss.shape == (3, 3)


def test_softmax_without_a_dimension_warns_and_takes_pytorchs():
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmax"):
        assert shared.allclose(nn.Softmax()(shared.zeros(2, 4)).sum(1), shared.ones(2))
    with pytest.warns(UserWarning):
        assert shared.allclose(F.log_softmax(shared.zeros(2, 4, 3)).exp().sum(0), shared.ones(4, 3))


def test_kl_div_mean_warns():
    with pytest.warns(UserWarning, match="'batchmean' divides only by the batch size"):
        F.kl_div(LOGITS, LOGITS)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [({"reduce": False}, "none"), ({"size_average": False}, "sum"), ({"size_average": True}, "mean")],
)
def test_old_reduction_arguments_warn_and_work(options, chosen):
    x, y = shared.arange(6.0).reshape(2, 3), shared.zeros(2, 3)
    with pytest.warns(UserWarning, match=f"use reduction='{chosen}' instead"):
        old = nn.MSELoss(**options)(x, y)
    assert shared.equal(old, F.mse_loss(x, y, reduction=chosen))


def test_softmax_casts_first_if_asked():
    assert F.softmax(shared.tensor([1, 2]), dim=0, dtype=shared.float64).dtype == shared.float64


@pytest.mark.parametrize("dtype", [shared.float16, shared.bfloat16])
@pytest.mark.parametrize(
    "call",
    [
        lambda x, t: (F.softmax(x, dim=1) * x.detach()).sum(),
        lambda x, t: F.log_softmax(x, dim=1).mean(),
        lambda x, t: F.binary_cross_entropy_with_logits(x, x.detach() > 0),
        lambda x, t: F.huber_loss(x, x.detach() + 0.5),
        lambda x, t: F.cross_entropy(x, t),
        lambda x, t: F.cross_entropy(x, t, weight=shared.ones(2000, dtype=x.dtype), ignore_index=3),
        lambda x, t: F.nll_loss(x, t),
        lambda x, t: F.relu(x).sum(),
        lambda x, t: F.gelu(x).sum(),
        lambda x, t: F.gelu(x, approximate="tanh").sum(),
        lambda x, t: F.dropout(x, 0.1).sum(),
        lambda x, t: F.mse_loss(x, x * 2),
    ],
)
def test_half_precision_stays_and_stays_close(call, dtype):
    shared.manual_seed(0)
    values = np.random.default_rng(0).normal(size=(4, 2000)) * 2
    target = long(0, 1, 2, 1999)
    half = shared.tensor(values, dtype=dtype, requires_grad=True)
    out = call(half, target)
    out.backward()
    assert out.dtype == dtype and half.grad.dtype == dtype
    shared.manual_seed(0)
    full = half.detach().float().requires_grad_()
    reference = call(full, target)
    reference.backward()
    assert out.item() == pytest.approx(reference.item(), rel=0.02)
    largest = abs(full.grad.numpy()).max()
    assert np.abs(half.grad.float().numpy() - full.grad.numpy()).max() <= 0.03 * largest + 1e-6


def test_byte_targets_are_classes_too():
    target = shared.tensor([0, 1, 2, 2], dtype=shared.uint8)
    assert F.cross_entropy(LOGITS, target).item() == pytest.approx(np.log(3))
    assert F.cross_entropy(shared.zeros(3), target[2]).item() == pytest.approx(np.log(3))


def test_cross_entropy_is_stable_where_softmax_then_log_is_not():
    logits = shared.tensor([[1e4, 0.0]], requires_grad=True)
    loss = F.cross_entropy(logits, long(1))
    loss.backward()
    assert loss.item() == 1e4 and logits.grad.tolist() == [[1.0, -1.0]]
    assert F.softmax(logits, dim=1)[0, 1].item() == 0, "the logarithm of which would be −inf"
