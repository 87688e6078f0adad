"""Normalisation: running statistics, second gradients, errors, what is saved, low precision, any shape."""

import importlib.util
import warnings

import numpy as np
import pytest

import shared
import shared.nn.functional as F
from shared import nn
from shared.testing import gradcheck, gradgradcheck

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed"
)


def normal(*shape, seed=0, requires_grad=True):
    values = np.random.default_rng([seed, *shape]).normal(size=shape) * 2 + 1
    return shared.tensor(values, requires_grad=requires_grad)


# ---------------------------------------------------------------- running statistics

LAYERS = {
    "BatchNorm1d (N, C)": ("nn.BatchNorm1d(3)", (6, 3)),
    "BatchNorm1d": ("nn.BatchNorm1d(3, momentum=0.3)", (4, 3, 5)),
    "BatchNorm2d": ("nn.BatchNorm2d(3)", (4, 3, 5, 2)),
    "momentum None": ("nn.BatchNorm2d(3, momentum=None, affine=False)", (4, 3, 5, 2)),
    "momentum 0": ("nn.BatchNorm2d(3, momentum=0.0)", (4, 3, 5, 2)),
    "momentum 1": ("nn.BatchNorm3d(3, momentum=1.0, bias=False)", (2, 3, 2, 3, 2)),
    "not tracked": ("nn.BatchNorm2d(3, track_running_stats=False)", (4, 3, 5, 2)),
    "InstanceNorm1d": ("nn.InstanceNorm1d(3, affine=True, track_running_stats=True)", (4, 3, 5)),
    "InstanceNorm2d": ("nn.InstanceNorm2d(3, momentum=0.4, track_running_stats=True)", (4, 3, 5, 2)),
    "one image": ("nn.InstanceNorm2d(3, track_running_stats=True)", (3, 5, 2)),
}


@needs_torch
@pytest.mark.parametrize("name", LAYERS)
def test_running_statistics_follow_pytorchs_over_several_batches(name):
    """Four batches in training, one in evaluation, one more in training: outputs, gradients and buffers."""
    import torch

    expression, shape = LAYERS[name]
    ours, theirs = eval(expression).double(), eval(expression, {"nn": torch.nn}).double()
    assert repr(ours) == repr(theirs)
    for step in range(6):
        ours.train(step != 4)
        theirs.train(step != 4)
        values = np.random.default_rng(step).normal(size=shape) * (step + 1) + step
        x, z = shared.tensor(values, requires_grad=True), torch.from_numpy(values).requires_grad_()
        out, wanted = ours(x), theirs(z)
        np.testing.assert_allclose(out.numpy(force=True), wanted.detach().numpy(), rtol=1e-9, atol=1e-9)
        weights = np.random.default_rng(99).normal(size=shape)
        out.backward(shared.from_numpy(weights))
        wanted.backward(torch.from_numpy(weights))
        np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-8, atol=1e-9)
        state = theirs.state_dict()
        assert list(ours.state_dict()) == list(state)
        for key, value in ours.state_dict().items():
            assert value.numpy().dtype == state[key].numpy().dtype, key
            np.testing.assert_allclose(value.numpy(), state[key].numpy(), rtol=1e-10, err_msg=f"{key}, step {step}")


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    layer = nn.BatchNorm1d(2)
    layer.load_state_dict(
        layer.state_dict() | {"running_mean": np.array([1.0, 2.0]), "running_var": np.array([4.0, 9])}
    )
    layer.eval()
    out = layer(shared.tensor([[3.0, 5.0]]))  # one value per channel is enough now
    np.testing.assert_allclose(out.tolist(), [[1.0, 1.0]], atol=1e-5)
    assert layer.running_mean.tolist() == [1, 2] and layer.num_batches_tracked.item() == 0


def test_running_statistics_have_the_unbiased_variance_and_the_output_the_biased_one():
    layer = nn.BatchNorm1d(1, momentum=1.0)
    out = layer(shared.tensor([[-1.0], [5.0], [1.0], [3.0]]))
    assert layer.running_mean.item() == 2 and layer.running_var.item() == pytest.approx(20 / 3)
    assert (out**2).mean().item() == pytest.approx(1, abs=1e-4)


def test_statistics_are_no_part_of_the_graph():
    layer, x = nn.BatchNorm2d(2), normal(3, 2, 2, 2).detach().float().requires_grad_()
    layer(x).sum().backward()
    assert not layer.running_mean.requires_grad and layer.running_mean.grad is None
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias"}
    assert {name for name, _ in layer.named_buffers()} == {"running_mean", "running_var", "num_batches_tracked"}


def test_reset_running_stats_forgets_all_batches():
    layer = nn.BatchNorm1d(3)
    layer(normal(4, 3).float())
    assert layer.num_batches_tracked.item() == 1 and layer.running_mean.abs().sum() > 0
    layer.reset_running_stats()
    assert layer.num_batches_tracked.item() == 0
    assert layer.running_mean.tolist() == [0] * 3 and layer.running_var.tolist() == [1] * 3


def test_a_state_without_num_batches_tracked_is_loaded():
    layer = nn.BatchNorm1d(3)
    layer(normal(4, 3).float())
    state = {k: v for k, v in nn.BatchNorm1d(3).state_dict().items() if k != "num_batches_tracked"}
    layer.load_state_dict(state)
    assert layer.num_batches_tracked.item() == 1 and layer.running_mean.tolist() == [0] * 3
    del state["running_mean"]
    with pytest.raises(RuntimeError, match='Missing key.*"running_mean"'):
        layer.load_state_dict(state)


def test_running_statistics_may_be_given_to_the_function():
    mean, var = shared.zeros(3, dtype=shared.float64), shared.ones(3, dtype=shared.float64)
    x = normal(5, 3, requires_grad=False)
    version = mean._version[0]
    F.batch_norm(x, mean, var, training=True, momentum=0.5)
    np.testing.assert_allclose(mean.numpy(), x.numpy().mean(0) / 2)
    np.testing.assert_allclose(var.numpy(), 0.5 + x.numpy().var(0, ddof=1) / 2)
    assert mean._version[0] > version, "a change in place is counted"


def test_statistics_that_move_after_an_evaluation_do_not_disturb_its_gradient():
    layer = nn.BatchNorm1d(3).double().eval()
    x = normal(4, 3)
    out = layer(x)
    layer.train()(x)
    out.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.full((4, 3), 1 / np.sqrt(1 + 1e-5)))


# ---------------------------------------------------------------- second gradients

TWICE = {
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [(3, 2, 2), (2,), (2,)]),
    "batch_norm of (N, C)": (lambda x: F.batch_norm(x, None, None, training=True), [(4, 2)]),
    "batch_norm in evaluation": (
        lambda x, w, b: F.batch_norm(x, normal(2).detach(), normal(2, seed=1).detach() ** 2, w, b),
        [(3, 2, 2), (2,), (2,)],
    ),
    "instance_norm": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), [(2, 2, 3), (2,), (2,)]),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [(2, 4, 2), (4,), (4,)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), [(3, 4), (4,), (4,)]),
    "layer_norm of two dimensions": (lambda x, w: F.layer_norm(x, (2, 2), w), [(2, 2, 2), (2, 2)]),
    "rms_norm": (lambda x, w: F.rms_norm(x, (4,), w), [(3, 4), (4,)]),
    "rms_norm no weight": (lambda x: F.rms_norm(x, (4,), eps=0.1), [(3, 4)]),
}


@pytest.mark.parametrize("name", TWICE)
def test_second_gradients_are_those_of_finite_differences(name):
    function, shapes = TWICE[name]
    assert gradgradcheck(lambda *xs: function(*xs) ** 3, [normal(*s, seed=i) for i, s in enumerate(shapes)])


# ---------------------------------------------------------------- what is saved, what is wanted


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, True), (True, True, False)])
@pytest.mark.parametrize("name", ["batch_norm", "batch_norm in evaluation", "group_norm", "layer_norm"])
def test_only_what_requires_a_gradient_gets_one(name, wanted):
    function, shapes = TWICE[name]
    inputs = [normal(*s, seed=i, requires_grad=w) for i, (s, w) in enumerate(zip(shapes, wanted, strict=True))]
    function(*inputs).sum().backward()
    assert [x.grad is not None for x in inputs] == list(wanted)


def test_nothing_is_saved_where_nothing_is_wanted():
    with shared.no_grad():
        out = F.layer_norm(normal(3, 4), (4,))
    assert out.grad_fn is None


@pytest.mark.parametrize("name", ["batch_norm", "batch_norm in evaluation", "group_norm", "layer_norm", "rms_norm"])
def test_a_change_of_what_was_saved_is_noticed(name):
    function, shapes = TWICE[name]
    for changed in (0, 1):
        inputs = [normal(*s, seed=i) for i, s in enumerate(shapes)]
        copies = [x * 1 for x in inputs]
        out = function(*copies)
        with shared.no_grad():
            copies[changed].mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


def test_the_result_may_be_changed_in_place():
    x = normal(3, 4)
    y = F.layer_norm(x, (4,))
    y.mul_(2)
    y.sum().backward()
    assert abs(x.grad.numpy()).max() < 1e-12


@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "layer_norm", "rms_norm"])
def test_gradients_may_come_in_any_layout(name):
    function, shapes = TWICE[name]
    results = []
    for layout in ("C", "F"):
        inputs = [normal(*s, seed=i) for i, s in enumerate(shapes)]
        out = function(*inputs)
        grad = np.array(normal(*out.shape, seed=9).numpy(force=True), order=layout)
        out.backward(shared.from_numpy(grad))
        results.append([x.grad.numpy() for x in inputs])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- low precision


@needs_torch
@pytest.mark.filterwarnings("ignore:Mismatch dtype:UserWarning")  # PyTorch's, on a slower way it takes
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["batch_norm", "batch_norm in evaluation", "group_norm", "layer_norm", "rms_norm"])
def test_half_precision_is_computed_in_float32(name, dtype, mixed):
    """Also with float32 parameters; the result is rounded once: within one step of what float64 gives."""
    import torch

    shape, vector = ((8, 6), (6,)) if name in ("layer_norm", "rms_norm") else ((8, 6, 5), (6,))
    step = 2.0**-10 if dtype == "float16" else 2.0**-7
    values = [np.random.default_rng(i).normal(size=s) for i, s in enumerate((shape, vector, vector, vector))]

    def call(t, functional, dtypes):
        x, w, b, m = (t.from_numpy(v).to(d) for v, d in zip(values, dtypes, strict=True))
        v = m * m + 1
        if name == "batch_norm":
            return functional.batch_norm(x, None, None, w, b, True)
        if name == "batch_norm in evaluation":
            return functional.batch_norm(x, m, v, w, b)
        if name == "group_norm":
            return functional.group_norm(x, 2, w, b)
        if name == "rms_norm":
            return functional.rms_norm(x, (6,), w)
        return functional.layer_norm(x, (6,), w, b)

    low = [getattr(shared, dtype)] + [shared.float32 if mixed else getattr(shared, dtype)] * 3
    found = call(shared, F, low)
    assert found.dtype == low[0]
    wanted = call(torch, torch.nn.functional, [getattr(torch, d.name) for d in low])
    assert wanted.dtype == getattr(torch, dtype)
    np.testing.assert_allclose(found.float().numpy(), wanted.float().numpy(), rtol=3 * step, atol=3 * step)


def test_a_layer_in_half_precision_keeps_its_statistics_in_half():
    layer = nn.BatchNorm1d(3).half()
    out = layer(normal(5, 3).detach().half())
    assert out.dtype == layer.running_mean.dtype == shared.float16
    assert layer.num_batches_tracked.dtype == shared.int64 and layer.num_batches_tracked.item() == 1
    assert layer.running_mean.abs().sum() > 0


# ---------------------------------------------------------------- errors and edges

ERRORS = {
    "one value": (lambda t, F, z: t.nn.BatchNorm1d(3)(z(1, 3)), "Expected more than 1 value per channel when training"),
    "one value, 2d": (lambda t, F, z: t.nn.BatchNorm2d(3)(z(1, 3, 1, 1)), "Expected more than 1 value per channel"),
    "dimensions 1d": (lambda t, F, z: t.nn.BatchNorm1d(3)(z(2, 3, 2, 2)), r"expected 2D or 3D input \(got 4D input\)"),
    "dimensions 2d": (lambda t, F, z: t.nn.BatchNorm2d(3)(z(2, 3)), r"expected 4D input \(got 2D input\)"),
    "dimensions 3d": (lambda t, F, z: t.nn.BatchNorm3d(3)(z(2, 3)), r"expected 5D input \(got 2D input\)"),
    "channels": (lambda t, F, z: t.nn.BatchNorm2d(3)(z(2, 4, 2, 2)), "running_mean should contain 4 elements not 3"),
    "channels, evaluated": (
        lambda t, F, z: t.nn.BatchNorm2d(3).eval()(z(2, 4, 2, 2)),
        "running_mean should contain 4 elements not 3",
    ),
    "variances": (
        lambda t, F, z: F.batch_norm(z(2, 4), z(4), z(3), training=True),
        "running_var should contain 4 elements not 3",
    ),
    "weight": (
        lambda t, F, z: F.batch_norm(z(2, 4), None, None, z(3), z(4), True),
        "weight should contain 4 elements not 3",
    ),
    "bias": (
        lambda t, F, z: F.batch_norm(z(2, 4), None, None, z(4), z(3), True),
        "bias should contain 4 elements not 3",
    ),
    "no statistics": (lambda t, F, z: F.batch_norm(z(2, 4), None, None), "running_mean must be defined in evaluation"),
    "no variance": (lambda t, F, z: F.batch_norm(z(2, 4), z(4), None), "running_var must be defined in evaluation"),
    "half of the statistics": (
        lambda t, F, z: F.batch_norm(z(2, 4), z(4), None, training=True),
        "must either both be None or neither be None",
    ),
    "one dimension": (lambda t, F, z: F.batch_norm(z(4), z(4), z(4)), "at least 2 dimensions|should contain"),
    "eps": (
        lambda t, F, z: F.batch_norm(z(2, 4), None, None, training=True, eps=0.0),
        "batch_norm eps must be positive during training, but got 0.0",
    ),
    "integers": (lambda t, F, z: F.batch_norm(z(2, 4).long(), None, None, training=True), "not implemented for"),
    "dtypes": (lambda t, F, z: F.batch_norm(z(2, 4).double(), None, None, z(4), z(4), True), "mixed dtype"),
    "dtypes of statistics": (lambda t, F, z: F.batch_norm(z(2, 4).double(), z(4), z(4)), "mixed dtype"),
    "row": (
        lambda t, F, z: F.layer_norm(z(2, 4), (3,)),
        r"Given normalized_shape=\[3\], expected input with shape \[\*, 3\], but got input of size\[2, 4\]",
    ),
    "rows": (lambda t, F, z: t.nn.LayerNorm((3, 4))(z(4)), r"expected input with shape \[\*, 3, 4\], but got"),
    "no row": (lambda t, F, z: F.layer_norm(z(2, 4), ()), "normalized_shape to be at least 1-dimensional"),
    "number for a shape": (
        lambda t, F, z: F.layer_norm(z(2, 4), 4),
        "argument 'normalized_shape' .*must be tuple of ints, not int",
    ),
    "row weight": (
        lambda t, F, z: F.layer_norm(z(2, 4), (4,), z(3)),
        r"Expected weight to be of same shape as normalized_shape, but got weight of shape \[3\] and normalized_shape "
        r"= \[4\]",
    ),
    "row bias": (lambda t, F, z: F.layer_norm(z(2, 4), (4,), z(4), z(3)), "Expected bias to be of same shape"),
    "row integers": (lambda t, F, z: F.layer_norm(z(2, 4).long(), (4,)), "not implemented for"),
    "row dtypes": (lambda t, F, z: F.layer_norm(z(2, 4).double(), (4,), z(4)), "mixed dtype"),
    "float16 parameters": (lambda t, F, z: F.layer_norm(z(2, 4), (4,), z(4).half()), "mixed dtype"),
    "rms row": (lambda t, F, z: F.rms_norm(z(2, 4), (3,)), r"Given normalized_shape=\[3\], expected input"),
    "rms weight": (lambda t, F, z: F.rms_norm(z(2, 4), (4,), z(3)), "Expected weight to be of same shape"),
    "groups": (
        lambda t, F, z: F.group_norm(z(2, 4), 3),
        r"channels in input to be divisible by num_groups, but got input of shape \[2, 4\] and num_groups=3",
    ),
    "group dimensions": (lambda t, F, z: F.group_norm(z(4), 2), "at least 2 dimensions for input tensor but received"),
    "group weight": (
        lambda t, F, z: F.group_norm(z(2, 4, 3), 2, z(3)),
        r"Expected weight to be a vector of size equal to the number of channels in input, but got weight of shape "
        r"\[3\] and input of shape \[2, 4, 3\]",
    ),
    "group bias": (lambda t, F, z: F.group_norm(z(2, 4, 3), 2, z(4), z(3)), "Expected bias to be a vector of size"),
    "group of one": (lambda t, F, z: F.group_norm(z(1, 2), 2), "Expected more than 1 value per channel"),
    "groups of a layer": (lambda t, F, z: t.nn.GroupNorm(3, 4), r"num_channels \(4\) must be divisible by num_groups"),
    "group channels": (lambda t, F, z: t.nn.GroupNorm(2, 4)(z(2, 6, 3)), r"got weight of shape \[4\] and input of"),
    "instance of one": (
        lambda t, F, z: t.nn.InstanceNorm1d(3)(z(2, 3, 1)),
        "Expected more than 1 spatial element when training",
    ),
    "instance dimensions": (lambda t, F, z: t.nn.InstanceNorm2d(3)(z(2, 3)), r"expected 3D or 4D input \(got 2D"),
    "instance channels": (
        lambda t, F, z: t.nn.InstanceNorm1d(3, affine=True)(z(2, 4, 5)),
        r"expected input's size at dim=1 to match num_features \(3\), but got: 4",
    ),
    "instance statistics": (
        lambda t, F, z: F.instance_norm(z(2, 3, 5), use_input_stats=False),
        "Expected running_mean and running_var to be defined when use_input_stats is false",
    ),
    "half of the instance's": (lambda t, F, z: F.instance_norm(z(2, 3, 5), z(3)), "must either both be None"),
    "instance weight": (lambda t, F, z: F.instance_norm(z(2, 3, 5), weight=z(4)), r"weight should contain \d elements"),
    "neighbours": (lambda t, F, z: F.local_response_norm(z(2, 3), 2), "Expected 3D or higher dimensionality"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_does_not_fit_is_named(name):
    call, message = ERRORS[name]
    with pytest.raises((RuntimeError, ValueError, TypeError), match=message):
        call(shared, F, shared.zeros)


@needs_torch
@pytest.mark.parametrize("name", ERRORS)
def test_the_error_is_pytorchs(name):
    import torch

    call, message = ERRORS[name]
    with pytest.raises(Exception, match=message) as theirs:
        call(torch, torch.nn.functional, torch.zeros)
    with pytest.raises(Exception) as ours:  # noqa: B017
        call(shared, F, shared.zeros)
    assert type(ours.value) is type(theirs.value)


def test_instance_norm_without_parameters_takes_other_channels_with_a_warning():
    with pytest.warns(UserWarning, match="does not match num_features"):
        nn.InstanceNorm1d(3)(shared.zeros(2, 4, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.InstanceNorm1d(4)(shared.zeros(2, 4, 5))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(3), (0, 3)),
        (nn.BatchNorm2d(3), (2, 3, 0, 4)),
        (nn.BatchNorm2d(3).eval(), (0, 3, 2, 2)),
        (nn.InstanceNorm1d(3, affine=True), (0, 3, 5)),
        (nn.GroupNorm(1, 3), (0, 3, 2)),
        (nn.LayerNorm(3), (0, 3)),
        (nn.LayerNorm((0, 3)), (2, 0, 3)),
        (nn.RMSNorm(3), (2, 0, 3)),
    ],
)
def test_an_empty_input_gives_an_empty_output_and_gradients_of_zero(layer, shape):
    x = shared.zeros(*shape, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = layer(x)
        out.sum().backward()
    assert tuple(out.shape) == shape and tuple(x.grad.shape) == shape
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().sum() == 0, name
    if isinstance(layer, nn.BatchNorm1d):
        assert layer.running_var.tolist() == [1, 1, 1], "no batch moves nothing"


def test_layers_start_as_the_identity_of_normalized_values():
    for layer in (nn.BatchNorm2d(3), nn.LayerNorm((2, 3)), nn.GroupNorm(2, 4), nn.InstanceNorm1d(3, affine=True)):
        assert (layer.weight == 1).all() and (layer.bias == 0).all()
        with shared.no_grad():
            layer.weight.fill_(5.0)
            layer.bias.fill_(5.0)
        layer.reset_parameters()
        assert (layer.weight == 1).all() and (layer.bias == 0).all()
    assert nn.RMSNorm(4).weight.tolist() == [1] * 4


def test_layers_take_device_and_dtype():
    for layer in (
        nn.BatchNorm1d(2, device="cpu", dtype=shared.float64),
        nn.LayerNorm(2, device="cpu", dtype=shared.float64),
        nn.GroupNorm(1, 2, device="cpu", dtype=shared.float64),
        nn.RMSNorm(2, device="cpu", dtype=shared.float64),
        nn.InstanceNorm1d(2, affine=True, track_running_stats=True, device="cpu", dtype=shared.float64),
    ):
        tensors = [*layer.parameters(), *[b for n, b in layer.named_buffers() if n != "num_batches_tracked"]]
        assert tensors and {t.dtype for t in tensors} == {shared.float64}


def test_batch_norm_makes_a_bias_before_it_useless():
    """The mean takes it away again: no output and no gradient depends on it."""
    shared.manual_seed(0)
    layer, norm = nn.Conv2d(1, 2, 3).double(), nn.BatchNorm2d(2).double()
    x = normal(4, 1, 5, 5, requires_grad=False)
    before = norm(layer(x))
    (before**3).sum().backward()
    assert layer.bias.grad.abs().max().item() < 1e-9 * layer.weight.grad.abs().max().item()
    with shared.no_grad():
        layer.bias.add_(7)
    np.testing.assert_allclose(norm(layer(x)).numpy(force=True), before.numpy(force=True), atol=1e-9)


# ---------------------------------------------------------------- any shape

pytest.importorskip("hypothesis")
from hypothesis import assume, given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


def both(call, shapes):
    """Outputs and gradients of shared and of PyTorch, float64."""
    import torch

    results = []
    for t, functional in ((shared, F), (torch, torch.nn.functional)):
        tensors = [
            t.from_numpy(np.random.default_rng(i).normal(size=s) + 0.5).requires_grad_() for i, s in enumerate(shapes)
        ]
        out = call(functional, *tensors)
        (out * t.arange(out.numel()).reshape(tuple(out.shape)).double().cos()).sum().backward()
        results.append([out.detach().numpy(), *[x.grad.numpy() for x in tensors]])
    for what, a, b in zip(("output", "input", "weight", "bias"), *results, strict=False):
        assert a.shape == b.shape, what
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8, err_msg=what)


sizes = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


@needs_torch
@given(st.integers(1, 70), st.integers(1, 5), sizes, st.booleans())
def test_batch_norm_of_any_shape_is_pytorchs(n, channels, size, flat):
    shape = (n, channels) if flat else (n, channels, *size)
    assume(np.prod(shape) > channels)
    both(lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True, eps=0.01), [shape, (channels,), (channels,)])


@needs_torch
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), sizes)
def test_group_norm_of_any_shape_is_pytorchs(n, groups, together, size):
    channels = groups * together
    assume(n * together * np.prod(size) > 1)
    both(lambda F, x, w, b: F.group_norm(x, groups, w, b, eps=0.01), [(n, channels, *size), (channels,), (channels,)])


@needs_torch
@given(sizes, sizes)
def test_layer_and_rms_norm_of_any_shape_are_pytorchs(outer, inner):
    both(lambda F, x, w, b: F.layer_norm(x, inner, w, b, eps=0.01), [(*outer, *inner), inner, inner])
    both(lambda F, x, w: F.rms_norm(x, inner, w, eps=0.01), [(*outer, *inner), inner])


@given(st.integers(1, 4), st.integers(1, 3), sizes)
def test_gradients_of_any_shape_are_those_of_finite_differences(n, channels, size):
    assume(np.prod((n, *size)) > 1)
    shapes = [(n, channels, *size), (channels,), (channels,)]
    inputs = [normal(*s, seed=i) for i, s in enumerate(shapes)]
    assert gradcheck(lambda x, w, b: F.batch_norm(x, None, None, w, b, True, eps=0.5), inputs)
    assert gradcheck(lambda x: F.layer_norm(x, size, eps=0.5), inputs[:1])
