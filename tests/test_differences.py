"""Every statement of shared/DIFFERENCES.md that can be run, on this side and, where it is installed, on PyTorch's."""

import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import shared
from shared import ops
from shared.autograd import Function

PAGE = (Path(shared.__file__).parent / "DIFFERENCES.md").read_text()


def backward_twice_through_a_sum(t):
    x = t.ones(2, requires_grad=True)
    y = x.sum()
    y.backward()
    y.backward()
    return x.grad.tolist()


def change_a_view(t):
    y = t.ones(2, requires_grad=True) * 2
    y[0].mul_(3)
    return y.tolist()


def chain_of_changes(t):
    x = t.zeros(2, requires_grad=True)
    y = x * 1
    y.exp_().add_(1)
    y.sum().backward()
    return x.grad.tolist()


def change_an_index(t):
    x, i = t.ones(3, requires_grad=True), t.tensor([0, 1])
    y = x[i].sum()
    i[0] = 2
    y.backward()
    return x.grad.tolist()


def change_logits_after_the_loss(t):
    logits = t.zeros(1, 2, requires_grad=True)
    loss = t.nn.functional.cross_entropy(logits, t.tensor([0]))
    with t.no_grad():
        logits.add_(7)
    loss.backward()
    return logits.grad.tolist()


def weights_without_a_key(t):
    x = t.zeros(1, 1, 2)
    _, weights = t.nn.MultiheadAttention(2, 1)(x, x, x, attn_mask=t.ones(1, 1, dtype=t.bool))
    return [["nan" if w != w else w for w in row] for row in weights[0].tolist()]


def encoder_in_evaluation(t, **masks):
    """The last of two tokens of an encoder whose parameters are all 1, so that norms give their biases, 1."""
    layer = t.nn.TransformerEncoderLayer(2, 2, 2, batch_first=True)
    model = t.nn.TransformerEncoder(layer, 1).eval()
    with t.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
        return model(t.ones(1, 2, 2), **masks)[0, 1].tolist()


def second_gradient_of_prod(t):
    x = t.tensor([2.0, 3.0], requires_grad=True)
    return [g.tolist() for g in t.autograd.grad(x.prod(), x, create_graph=True)]


def stride_of_a_gradient(t):
    x = t.ones(3, requires_grad=True)
    return t.autograd.grad(x.sum(), x)[0].stride()


def use_of_an_inference_tensor(t):
    with t.inference_mode():
        y = t.ones(2)
    x = t.ones(2, requires_grad=True)
    (x * y).sum().backward()
    return x.grad.tolist()


def median_of_ties(t):
    x = t.tensor([1.0, 1.0, 2.0], requires_grad=True)
    x.median().backward()
    return x.grad.tolist()


def weight_of_no_elements(t):
    weight = t.ones(2, requires_grad=True)
    t.nn.functional.group_norm(t.zeros(1, 2, 0), 1, weight).sum().backward()
    return str(weight.grad.tolist())


def clipped_large_gradient(t):
    weight = t.nn.Parameter(t.zeros(2))
    weight.grad = t.tensor([1e30, 1e30])
    t.nn.utils.clip_grad_norm_([weight], 1.0)
    return weight.grad.tolist()


def gradient_of_nearest(t):
    x = t.ones(1, 1, 2, requires_grad=True)
    out = t.nn.functional.interpolate(x, scale_factor=1.15)
    (out * t.tensor([1.0, 2.0])).sum().backward()
    return x.grad.reshape(-1).tolist()


def shape_after_unpadding(t):
    padded = t.zeros(3, 2)
    t.nn.utils.rnn.unpad_sequence(padded, t.tensor([3, 1]))
    return tuple(padded.shape)


def product_after_a_change(t):
    weight, x = t.ones(1, 1, requires_grad=True), t.ones(1, 1)
    with t.autocast("cpu"):
        _ = x @ weight
        with t.no_grad():
            weight.add_(1)
        return (x @ weight).item()


def dtype_of_reflection(t):
    with t.autocast("cpu"):
        return str(t.nn.functional.pad(t.ones(1, 4, dtype=t.bfloat16), (1, 1), mode="reflect").dtype)[-8:]


def dtype_of_an_outer_product(t):
    with t.autocast("cpu"):
        return str(t.einsum("i,j->ij", t.ones(2), t.ones(2)).dtype)[-8:]


# what is run; what shared gives; what PyTorch gives (an exception's type where it refuses)
STATEMENTS = {
    "backward twice": (backward_twice_through_a_sum, RuntimeError, [2.0, 2.0]),
    "change of a view": (change_a_view, RuntimeError, [6.0, 2.0]),
    "chain of in-place changes": (chain_of_changes, [1.0, 1.0], RuntimeError),
    "change of an index": (change_an_index, [1.0, 1.0, 0.0], RuntimeError),
    "create_graph of prod": (second_gradient_of_prod, RuntimeError, [[3.0, 2.0]]),
    "logits are kept": (change_logits_after_the_loss, RuntimeError, [[-0.5, 0.5]]),
    "gradients own their memory": (stride_of_a_gradient, (1,), (0,)),
    "inference_mode": (use_of_an_inference_tensor, [1.0, 1.0], RuntimeError),
    "median of ties": (median_of_ties, [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]),
    "dtypes print": (lambda t: str(t.float32), "float32", "torch.float32"),
    "devices": (lambda t: t.device("cuda") == t.device("cuda:0"), True, False),
    "device and name": (lambda t: t.device("cpu") == "cpu", True, False),
    "any of uint8": (lambda t: str(t.tensor([1], dtype=t.uint8).any().dtype)[-5:], "bool", "uint8"),
    "negative powers": (lambda t: (t.tensor([2]) ** t.tensor([-1])).tolist(), RuntimeError, [0]),
    "numbers out of range": (lambda t: (t.tensor([1], dtype=t.uint8) + 300).tolist(), OverflowError, [45]),
    "nested index": (lambda t: tuple(t.zeros(2, 3)[[[0, 1], [1, 0]]].shape), (2, 2, 3), (2,)),
    "Tensor of sizes": (lambda t: tuple(t.Tensor(2, 3).shape), TypeError, (2, 3)),
    "zeros_like of a transpose": (lambda t: t.zeros_like(t.zeros(2, 3).T).stride(), (2, 1), (1, 3)),
    "negative strides": (lambda t: t.from_numpy(np.array([1, 2])[::-1]).tolist(), [2, 1], ValueError),
    "view of a dtype": (lambda t: t.ones(1).view(t.int32).tolist(), TypeError, [1065353216]),
    "antialias": (
        lambda t: tuple(t.nn.functional.interpolate(t.zeros(1, 1, 2, 2), 3, mode="bilinear", antialias=True).shape),
        NotImplementedError,
        (1, 1, 3, 3),
    ),
    "mean of integers in a pool": (
        lambda t: t.nn.functional.avg_pool2d(t.tensor([[[[1, 2]]]]), (1, 2)).tolist(),
        NotImplementedError,
        [[[[1]]]],
    ),
    "dimensions of unfold": (lambda t: t.nn.functional.unfold(t.zeros(5, 5), 2), RuntimeError, IndexError),
    "dtypes of rms_norm": (
        lambda t: t.nn.functional.rms_norm(t.ones(1).double(), (1,), t.ones(1)).tolist(),
        RuntimeError,
        [pytest.approx(1.0)],
    ),
    "group_norm of no elements": (weight_of_no_elements, "[0.0, 0.0]", "[nan, nan]"),
    "no groups": (
        lambda t: t.nn.functional.group_norm(t.ones(2, 2), 0).tolist(),
        RuntimeError,
        ZeroDivisionError,
    ),
    "sparse gradients": (
        lambda t: t.nn.Embedding(3, 2, sparse=True).weight.shape[0],
        NotImplementedError,
        3,
    ),
    "norms of large gradients": (
        clipped_large_gradient,
        [pytest.approx(0.5**0.5), pytest.approx(0.5**0.5)],
        [0.0, 0.0],
    ),
    "gradient of a factor that changes no size": (gradient_of_nearest, [3.0, 0.0], [1.0, 2.0]),
    "dtypes of pad_sequence": (
        lambda t: t.nn.utils.rnn.pad_sequence([t.tensor([1]), t.tensor([1.5])]).tolist(),
        RuntimeError,
        [[1, 1]],
    ),
    "sizes of pad_sequence": (
        lambda t: t.nn.utils.rnn.pad_sequence([t.zeros(1, 2), t.ones(1, 1)]).tolist(),
        RuntimeError,
        [[[0, 0], [1, 1]]],
    ),
    "unpad_sequence": (shape_after_unpadding, (3, 2), (2, 3)),
    "weights of a query that sees nothing": (weights_without_a_key, [[0.0]], [["nan"]]),
    "True in the course's masks": (lambda t: t.nn.masks.look_ahead_mask(2)[0].tolist(), [True, False], AttributeError),
    "a course's own block": (lambda t: t.nn.EncoderBlock(2, 1, 2).feed_forward.d_ff, 2, AttributeError),
    "padded positions": (
        lambda t: encoder_in_evaluation(t, src_key_padding_mask=t.tensor([[False, True]])),
        [1.0, 1.0],
        [0.0, 0.0],
    ),
    "a hint without a mask": (lambda t: encoder_in_evaluation(t, is_causal=True), RuntimeError, [1.0, 1.0]),
    "name of out_proj": (
        lambda t: type(t.nn.MultiheadAttention(2, 1).out_proj).__name__,
        "Linear",
        "NonDynamicallyQuantizableLinear",
    ),
    "layers for positions": (lambda t: t.nn.PositionalEncoding(2).batch_first, True, AttributeError),
    "weights changed under autocast": (product_after_a_change, 2.0, 1.0),
    "reflection under autocast": (dtype_of_reflection, "bfloat16", ".float32"),
    "sums of nothing under autocast": (dtype_of_an_outer_product, "bfloat16", ".float32"),
    "casts of a Function": (lambda t: callable(t.amp.custom_fwd), AttributeError, True),
    "a scaler for what is not there": (lambda t: t.amp.GradScaler("tpu").is_enabled(), RuntimeError, True),
    "state of a generator": (
        lambda t: bytes(t.Generator().manual_seed(0).get_state().tolist())[:1] == b"{",
        True,
        False,
    ),
}


def outcome(t, call, expected):
    if isinstance(expected, type):
        with pytest.raises(expected):
            call(t)
        return expected
    return call(t)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STATEMENTS)
def test_the_statement_holds_here(name):
    call, here, _ = STATEMENTS[name]
    assert outcome(shared, call, here) == here


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STATEMENTS)
def test_the_statement_holds_in_pytorch(name):
    torch = pytest.importorskip("torch")
    call, _, there = STATEMENTS[name]
    assert outcome(torch, call, there) == there


def test_operations_without_second_gradients_are_listed():
    """The page names each Function that does not declare `twice`, by the operations that use it."""
    for module in pkgutil.iter_modules(ops.__path__, "shared.ops."):
        importlib.import_module(module.name)
    importlib.import_module("shared.text")
    found, waiting = set(), [Function]
    while waiting:
        waiting += (subclasses := waiting.pop().__subclasses__())
        found.update(c for c in subclasses if c.__module__.startswith("shared.") and not c.__subclasses__())
    named = {
        "Extreme": "amax",
        "Extremum": "maximum",
        "Prod": "prod",
        "Remainder": "remainder",
        "MaskedFill": "masked_fill",
        "Scatter": "scatter_add",
        "Checkpoint": "checkpoint",
    }
    losses = {"BceLoss", "BceWithLogitsLoss", "CrossEntropy", "HuberLoss", "KlDiv", "KlDivLogTarget", "L1Loss", "Nll"}
    losses |= {"NegativeSamplingLoss"}  # the course's own, of shared.text
    once = {c.__name__ for c in found if not c.twice}
    assert once == named.keys() | losses | {"Move"}
    assert all(f"`{name}`" in PAGE for name in named.values())
    assert "the losses but `mse_loss`" in PAGE
