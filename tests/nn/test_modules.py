"""Every layer and loss as a module: printed form, state, values and gradients are PyTorch's."""

import hashlib
import importlib.util
import inspect
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import shared
from shared import nn
from tests.nn import golden_file
from tests.nn.cases import MODULES

HERE = Path(__file__).parent
TEXTS, GOLDEN = golden_file.load(HERE / "golden" / "modules.npz")
EXPRESSIONS = [expression for expression, _ in MODULES]
WITH_INPUTS = [(expression, len(shapes)) for expression, shapes in MODULES if shapes]
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed"
)


def build(expression, library=nn):
    return eval(expression, {"nn": library, "OrderedDict": OrderedDict})


def golden(expression, prefix):
    start = f"{expression}|{prefix}"
    return {name[len(start) :]: array for name, array in GOLDEN.items() if name.startswith(start)}


def close(found, wanted, what):
    assert found is not None, f"{what} is missing"
    assert tuple(found.shape) == wanted.shape, what
    # 1e-7 and not less: PyTorch's Hardsigmoid has its 1/6 in float32
    np.testing.assert_allclose(found.numpy(force=True), wanted, rtol=1e-7, atol=1e-12, err_msg=what)


def test_golden_values_are_those_of_the_cases():
    source = hashlib.sha256((HERE / "cases.py").read_bytes()).hexdigest()
    assert TEXTS["source_sha256"] == source, "cases.py has changed: run python -m tests.nn.make_golden"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_printed_form_and_keys_are_pytorchs(expression):
    module = build(expression)
    wanted = TEXTS["modules"][expression]["repr"]
    # PyTorch's attention has a Linear of another name, so that a converter leaves it alone
    assert repr(module) == wanted.replace("NonDynamicallyQuantizableLinear", "Linear")
    assert list(module.state_dict()) == TEXTS["modules"][expression]["keys"]


@pytest.mark.parametrize(("expression", "count"), WITH_INPUTS, ids=[e for e, _ in WITH_INPUTS])
def test_values_and_gradients_are_pytorchs(expression, count):
    module = build(expression).double()
    module.load_state_dict(golden(expression, "state."))
    inputs = [shared.tensor(golden(expression, "input.")[str(i)], requires_grad=True) for i in range(count)]
    out = module(*inputs)
    close(out, golden(expression, "output")[""], "the output")
    weights = shared.arange(1.0, out.numel() + 1, dtype=shared.float64).reshape(tuple(out.shape))
    (out * weights).sum().backward()
    for i, x in enumerate(inputs):
        close(x.grad, golden(expression, "input_grad.")[str(i)], f"the gradient by input {i}")
    grads = golden(expression, "grad.")
    assert set(grads) == {name for name, _ in module.named_parameters()}
    for name, parameter in module.named_parameters():
        close(parameter.grad, grads[name], f"the gradient by {name}")


@needs_torch
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_state_goes_to_pytorch_and_back(expression):
    import torch

    ours, theirs = build(expression), build(expression, torch.nn)
    theirs.load_state_dict(OrderedDict((k, torch.from_numpy(v.numpy().copy())) for k, v in ours.state_dict().items()))
    for name, value in theirs.state_dict().items():
        assert np.array_equal(value.numpy(), ours.state_dict()[name].numpy()), name
    fresh = build(expression)
    fresh.load_state_dict(theirs.state_dict())  # PyTorch's tensors, as they are
    for name, value in ours.state_dict().items():
        assert np.array_equal(fresh.state_dict()[name].numpy(), value.numpy()), name


LEFT_OUT = ("_stacklevel", "out", "min_value", "max_value")  # private, write into a tensor, deprecated
THE_COURSES_OWN = {  # layers that PyTorch does not have
    "DecoderBlock",
    "EncoderBlock",
    "LearnedPositionalEncoding",
    "MultiHeadAttention",
    "PositionalEncoding",
    "PositionwiseFeedForward",
}


@needs_torch
def test_constructors_take_pytorchs_arguments_in_pytorchs_order():
    import torch

    for name in dir(nn):
        ours, theirs = getattr(nn, name), getattr(torch.nn, name, None)
        if name in THE_COURSES_OWN:
            assert theirs is None, f"PyTorch has {name} too: compare with it"
        elif isinstance(ours, type) and issubclass(ours, nn.Module) and ours is not nn.Module:
            assert theirs is not None, f"PyTorch has no {name}"
            wanted = inspect.signature(theirs.__init__).parameters
            found = inspect.signature(ours.__init__).parameters
            if any(p.kind is p.VAR_POSITIONAL for p in wanted.values()):
                continue
            wanted = {k: p for k, p in wanted.items() if k not in LEFT_OUT}
            assert list(found) == list(wanted), name
            for key in found:
                defaults = (found[key].default, wanted[key].default)
                if all(map(inspect.isfunction, defaults)):  # F.relu here, F.relu there
                    defaults = tuple(d.__name__ for d in defaults)
                assert defaults[0] == defaults[1], f"{name}: default of {key}"


@needs_torch
@pytest.mark.parametrize("room", ["functional", "init", "utils"])
def test_functions_take_pytorchs_arguments_in_pytorchs_order(room):
    import torch

    checked = 0
    for name, ours in vars(getattr(nn, room)).items():
        theirs = getattr(getattr(torch.nn, room), name, None)
        if not inspect.isfunction(ours) or not inspect.isfunction(theirs) or name.startswith("_"):
            continue
        wanted = {k: p for k, p in inspect.signature(theirs).parameters.items() if k not in LEFT_OUT}
        if any(p.kind is p.VAR_POSITIONAL for p in wanted.values()):  # max_pool: dispatched by return_indices
            continue
        found = inspect.signature(ours).parameters
        assert list(found)[: len(wanted)] == list(wanted), f"{name}: {list(found)} instead of {list(wanted)}"
        for key, parameter in wanted.items():
            assert found[key].default == parameter.default, f"{name}: default of {key}"
        checked += 1
    assert checked > 4


def test_linear_starts_uniform_within_one_over_the_root_of_in_features():
    shared.manual_seed(0)
    layer = nn.Linear(400, 300)
    for values in (layer.weight.numpy(force=True), layer.bias.numpy(force=True)):
        assert abs(values).max() <= 1 / 20
        assert abs(values).max() > 0.98 / 20
        assert abs(values.mean()) < 0.004
        assert values.std() == pytest.approx(1 / 20 / 3**0.5, rel=0.06)


def test_linear_without_bias_has_one_parameter():
    layer = nn.Linear(3, 2, bias=False)
    assert layer.bias is None
    assert [n for n, _ in layer.named_parameters()] == ["weight"]


def test_linear_takes_a_dtype():
    assert {p.dtype for p in nn.Linear(3, 2, dtype=shared.float64).parameters()} == {shared.float64}


def test_dropout_drops_the_share_and_keeps_the_mean():
    shared.manual_seed(0)
    x = shared.ones(200, 500, requires_grad=True)
    layer = nn.Dropout(0.3)
    out = layer(x)
    dropped = (out == 0).float().mean().item()
    assert dropped == pytest.approx(0.3, abs=0.01)
    kept = out.numpy(force=True)
    assert np.allclose(kept[kept != 0], 1 / 0.7)
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)
    out.sum().backward()
    assert np.array_equal(x.grad.numpy(), kept), "the gradient passes through the same mask"
    assert layer.eval()(x) is x
    assert {nn.Dropout(0.5)(shared.tensor(3.0)).item() for _ in range(20)} == {0.0, 6.0}
    assert nn.Dropout(0.0)(x) is x


def test_dropout_draws_anew_and_repeats_after_manual_seed():
    x = shared.ones(100)
    shared.manual_seed(3)
    first, second = nn.Dropout()(x), nn.Dropout()(x)
    assert not shared.equal(first, second)
    shared.manual_seed(3)
    assert shared.equal(first, nn.Dropout()(x))


@pytest.mark.parametrize(("layer", "shape"), [(nn.Dropout1d(), (6, 40, 3)), (nn.Dropout2d(), (6, 40, 3, 2))])
def test_channel_dropout_drops_whole_channels(layer, shape):
    shared.manual_seed(0)
    channels = layer(shared.ones(*shape)).numpy().reshape(240, -1)
    assert (channels == channels[:, :1]).all(), "a channel is dropped as a whole"
    assert set(channels[:, 0]) == {0.0, 2.0}


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_dropout_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="has to be between 0 and 1, but got"):
        nn.Dropout(p)
    with pytest.raises(ValueError, match="has to be between 0 and 1, but got"):
        nn.functional.dropout(shared.ones(2), p)


def test_dropout2d_refuses_a_matrix():
    with pytest.raises(RuntimeError, match=r"dropout2d: Expected 3D or 4D input, but received a 2D input"):
        nn.Dropout2d()(shared.ones(2, 3))


@pytest.mark.parametrize("layer", [nn.ReLU(True), nn.LeakyReLU(0.1, True), nn.ELU(inplace=True), nn.SiLU(True)])
def test_inplace_activations_write_over_their_input(layer):
    x = shared.tensor([-1.0, 2.0], requires_grad=True)
    y = x * 3
    out = layer(y)
    assert out is y
    out.sum().backward()
    layer.inplace = False
    z = x.detach().requires_grad_()
    layer(z * 3).sum().backward()
    assert np.allclose(x.grad.numpy(), z.grad.numpy())


def test_inplace_dropout_writes_over_its_input():
    x = shared.ones(50)
    assert nn.Dropout(0.5, inplace=True)(x) is x
    assert (x == 0).any()


def test_a_custom_loss_trains():
    """A loss is a Module; nothing more is needed to write one's own."""

    class Quantile(nn.Module):
        def __init__(self, q):
            super().__init__()
            self.q = q

        def forward(self, input, target):
            error = target - input
            return shared.maximum(self.q * error, (self.q - 1) * error).mean()

    shared.manual_seed(0)
    target = shared.arange(1.0, 101.0)
    guess = nn.Parameter(shared.tensor([20.0]))
    loss = Quantile(0.9)
    for _ in range(400):
        guess.grad = None
        loss(guess, target).backward()
        guess.data = guess.data - 5 * guess.grad
    assert 88 <= guess.item() <= 93, "the 0.9 quantile of 1 … 100"


def test_losses_of_probabilities_as_modules():
    log_probs = nn.functional.log_softmax(shared.tensor([[1.0, 2.0, 0.5], [0.0, 1.0, 3.0]]), dim=1)
    target, weight = shared.tensor([2, 1]), shared.tensor([1.0, 4.0, 2.0])
    picked = -log_probs.numpy()[[0, 1], [2, 1]]
    assert nn.NLLLoss(weight)(log_probs, target).item() == pytest.approx((picked @ [2, 4]) / 6)
    assert nn.NLLLoss(ignore_index=1)(log_probs, target).item() == pytest.approx(picked[0])
    p, t = shared.tensor([0.25, 0.5]), shared.tensor([1.0, 0.0])
    assert nn.BCELoss()(p, t).item() == pytest.approx((np.log(4) + np.log(2)) / 2)
    assert nn.BCELoss(shared.tensor([2.0, 0.0]), reduction="sum")(p, t).item() == pytest.approx(2 * np.log(4))


def test_weights_of_losses_are_buffers():
    loss = nn.CrossEntropyLoss(weight=shared.ones(3))
    assert list(loss.state_dict()) == ["weight"] and not list(loss.parameters())
    assert loss.double().weight.dtype == shared.float64
    assert list(nn.CrossEntropyLoss().state_dict()) == []
    assert list(nn.BCEWithLogitsLoss(pos_weight=shared.ones(2)).state_dict()) == ["pos_weight"]
