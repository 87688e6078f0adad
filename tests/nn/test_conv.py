"""Convolution: second gradients, errors, what is computed and what is not, layers as they start, any shape."""

import importlib.util
import math

import numpy as np
import pytest

import shared
import shared.nn.functional as F
from shared import nn
from shared.arrays.kernels import conv as kernels
from shared.testing import gradcheck, gradgradcheck

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed"
)


def normal(*shape, seed=0):
    values = np.random.default_rng([seed, *shape]).normal(size=shape)
    return shared.tensor(values, requires_grad=True)


# ---------------------------------------------------------------- second gradients

TWICE = {
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, padding="same"), [(2, 2, 4), (3, 2, 2), (3,)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), [(1, 2, 3, 4), (2, 2, 2, 3), (2,)]),
    "conv2d in groups": (lambda x, w: F.conv2d(x, w, groups=2, dilation=2), [(1, 4, 3, 3), (2, 2, 2, 2)]),
    "conv3d": (lambda x, w: F.conv3d(x, w, padding=(0, 1, 0)), [(1, 1, 2, 2, 3), (2, 1, 2, 1, 2)]),
    "conv_transpose2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, (2, 1), 1, (1, 0)),
        [(1, 2, 2, 3), (2, 2, 2, 3), (2,)],
    ),
    "unfold": (lambda x: F.unfold(x, 2, padding=1, stride=2), [(1, 2, 3, 3)]),
    "fold": (lambda x: F.fold(x, (3, 3), 2), [(1, 4, 4)]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2, 1, 1), [(1, 2, 3, 4)]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), [(1, 2, 4, 3)]),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), [(1, 1, 3, 4)]),
    "interpolate": (lambda x: F.interpolate(x, (3, 5), mode="bilinear"), [(1, 1, 2, 3)]),
}


@pytest.mark.parametrize("name", TWICE)
def test_second_gradients_are_those_of_finite_differences(name):
    function, shapes = TWICE[name]
    # Squared, so that the first gradient depends on the input also where the operation itself is linear.
    assert gradgradcheck(lambda *xs: function(*xs) ** 2, [normal(*s) for s in shapes])


@pytest.mark.parametrize("name", ["conv2d", "conv2d in groups", "max_pool2d", "avg_pool2d"])
def test_third_gradients_are_those_of_finite_differences(name):
    """The gradients of the gradients' own functions: of ConvWeight, ConvInput, MaxPoolInput, AvgPoolInput."""
    function, shapes = TWICE[name]

    def slopes(*xs):
        return shared.autograd.grad((function(*xs) ** 3).sum(), xs, create_graph=True)

    assert gradgradcheck(slopes, [normal(*s) for s in shapes])


# ---------------------------------------------------------------- only what is wanted


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_a_gradient_that_is_not_wanted_is_not_computed(wanted, monkeypatch):
    called = []
    for name in ("conv_input", "conv_weight"):
        original = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *a, f=original, name=name: called.append(name) or f(*a))
    x, weight = shared.ones(1, 1, 3, 3, requires_grad=wanted[0]), shared.ones(1, 1, 2, 2, requires_grad=wanted[1])
    out = F.conv2d(x, weight)
    saved = out.grad_fn.saved
    assert (saved[0] is None) is not wanted[1] and (saved[1] is None) is not wanted[0]
    out.sum().backward()
    assert called == ["conv_input"] * wanted[0] + ["conv_weight"] * wanted[1]


def test_gradients_may_come_in_any_layout():
    x, weight = normal(2, 3, 4, 5), normal(2, 3, 3, 3)
    grad = normal(5, 4, 2, 2).detach().permute(2, 3, 1, 0)
    assert not grad.is_contiguous()
    for gradient in (grad, grad.contiguous()):
        x.grad = weight.grad = None
        F.conv2d(x, weight, padding=1).backward(gradient)
        result = (x.grad.numpy(), weight.grad.numpy())
        if gradient is grad:
            first = result
    assert all(np.allclose(a, b) for a, b in zip(first, result, strict=True))
    x.grad = None
    F.conv2d(x, weight, padding=1).sum().backward()  # one number, broadcast
    assert x.grad is not None and x.grad.shape == x.shape


@pytest.mark.parametrize("dtype", [shared.float16, shared.bfloat16])
def test_half_precision_stays_half_and_is_rounded_once(dtype):
    x, weight, bias = (normal(*s).detach().to(dtype) for s in ((2, 3, 6, 6), (4, 3, 3, 3), (4,)))
    for function, arguments in [
        (F.conv2d, (x, weight, bias)),
        (F.max_pool2d, (x, 2)),
        (F.avg_pool2d, (x, 2)),
        (F.adaptive_avg_pool2d, (x, 4)),
        (F.unfold, (x, 2)),
    ]:
        out = function(*arguments)
        exact = function(*[a.double() if isinstance(a, shared.Tensor) else a for a in arguments])
        assert out.dtype == dtype
        assert np.allclose(out.double().numpy(), exact.numpy(), rtol=1e-2, atol=1e-2)
    nearest = F.interpolate(x, scale_factor=2, mode="bilinear")
    assert nearest.dtype == dtype and tuple(nearest.shape) == (2, 3, 12, 12)


def test_integers_are_convolved():
    out = F.conv1d(shared.tensor([[[1, 2, 4]]]), shared.tensor([[[-1, 1]]]))
    assert out.tolist() == [[[1, 2]]] and out.dtype == shared.int64


# ---------------------------------------------------------------- errors

z = shared.zeros
ERRORS = {
    "channels": (
        lambda t, F, z: F.conv2d(z(1, 2, 5, 5), z(4, 3, 3, 3)),
        r"conv2d: Given groups=1, weight of size \[4, 3, 3, 3\], expected input\[1, 2, 5, 5\] to have 3 channels, but "
        "got 2 channels",
    ),
    "dimensions": (
        lambda t, F, z: F.conv2d(z(5, 5), z(4, 2, 3, 3)),
        r"conv2d: Expected 3D \(unbatched\) or 4D \(batched\) input to conv2d, but got input of size: \[5, 5\]",
    ),
    "dimensions of the weight": (
        lambda t, F, z: F.conv2d(z(1, 2, 5, 5), z(4, 2, 3)),
        r"conv2d: expected a weight of 4 dimensions, but got weight of size \[4, 2, 3\]",
    ),
    "kernel": (
        lambda t, F, z: F.conv2d(z(1, 2, 3, 5), z(4, 2, 7, 3), padding=1),
        r"Calculated padded input size per channel: \(5 x 7\). Kernel size: \(7 x 3\). Kernel size can't be greater",
    ),
    "bias": (
        lambda t, F, z: F.conv1d(z(1, 2, 5), z(4, 2, 3), z(5)),
        r"Given weight of size \[4, 2, 3\], expected bias to be 1-dimensional with 4 elements, but got bias of size "
        r"\[5\]",
    ),
    "stride": (lambda t, F, z: F.conv2d(z(1, 2, 5, 5), z(4, 2, 3, 3), stride=0), "non-positive stride"),
    "strides": (
        lambda t, F, z: F.conv2d(z(1, 2, 5, 5), z(4, 2, 3, 3), stride=(1, 1, 1)),
        r"expected stride to be a single integer value or a list of 2 values .* but got stride=\[1, 1, 1\]",
    ),
    "padding": (lambda t, F, z: F.conv2d(z(1, 2, 5, 5), z(4, 2, 3, 3), padding=-1), "negative padding"),
    "padding string": (
        lambda t, F, z: F.conv2d(z(1, 2, 5, 5), z(4, 2, 3, 3), padding="full"),
        "Invalid padding string: 'full'",
    ),
    "same with stride": (
        lambda t, F, z: F.conv2d(z(1, 2, 5, 5), z(4, 2, 3, 3), stride=2, padding="same"),
        "padding='same' is not supported for strided convolutions",
    ),
    "dilation": (
        lambda t, F, z: F.conv2d(z(1, 2, 5, 5), z(4, 2, 3, 3), dilation=0),
        "dilation should be greater than zero",
    ),
    "groups": (lambda t, F, z: F.conv2d(z(1, 2, 5, 5), z(4, 2, 3, 3), groups=0), "non-positive groups"),
    "groups that do not divide": (
        lambda t, F, z: F.conv2d(z(1, 6, 5, 5), z(4, 2, 3, 3), groups=3),
        r"Given groups=3, expected weight to be divisible by 3 at dimension 0, but got weight of size",
    ),
    "dtypes": (lambda t, F, z: F.conv2d(z(1, 2, 5, 5), z(4, 2, 3, 3).double()), "same dtype.*float32, float64"),
    "empty": (
        lambda t, F, z: F.conv2d(z(1, 2, 0, 5), z(4, 2, 3, 3), padding=2),
        r"Only zero batch or zero channel inputs are supported, but got input shape: \[1, 2, 0, 5\]",
    ),
    "channels, transposed": (
        lambda t, F, z: F.conv_transpose2d(z(1, 2, 5, 5), z(3, 4, 3, 3)),
        r"conv_transpose2d: Given transposed=1, weight of size \[3, 4, 3, 3\], expected input\[1, 2, 5, 5\] to have 3 "
        "channels, but got 2",
    ),
    "bias, transposed": (
        lambda t, F, z: F.conv_transpose2d(z(1, 2, 5, 5), z(2, 4, 3, 3), z(5)),
        r"expected bias to be 1-dimensional with 4 elements, but got bias of size \[5\]",
    ),
    "output padding": (
        lambda t, F, z: F.conv_transpose2d(z(1, 2, 5, 5), z(2, 4, 3, 3), stride=2, output_padding=2),
        "output padding must be smaller than either stride or dilation",
    ),
    "small output": (
        lambda t, F, z: F.conv_transpose2d(z(1, 2, 2, 2), z(2, 4, 1, 1), padding=1),
        r"Given input size per channel: \(2 x 2\). Calculated output size per channel: \(0 x 0\). Output size is too",
    ),
    "unfold": (
        lambda t, F, z: F.unfold(z(1, 1, 2, 2), 3),
        r"unfold: Given input with spatial size \(2, 2\), kernel_size=\(3, 3\).* shape of the array of sliding blocks "
        r"as \(0, 0\)",
    ),
    "fold": (
        lambda t, F, z: F.fold(z(1, 12, 5), (4, 4), 2),
        r"fold: .* expected size of input's dimension 2 to match the calculated number of sliding blocks 3 \* 3 = 9, "
        r"but got input.size\(2\)=5",
    ),
    "fold channels": (
        lambda t, F, z: F.fold(z(1, 11, 9), (4, 4), 2),
        r"Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
        r"input.size\(1\)=11",
    ),
    "layer groups": (lambda t, F, z: t.nn.Conv2d(3, 4, 3, groups=2), "in_channels must be divisible by groups"),
    "layer groups out": (lambda t, F, z: t.nn.Conv2d(4, 3, 3, groups=2), "out_channels must be divisible by groups"),
    "layer no groups": (lambda t, F, z: t.nn.Conv2d(4, 4, 3, groups=0), "groups must be a positive integer"),
    "layer padding": (lambda t, F, z: t.nn.Conv2d(4, 3, 3, padding="full"), "Invalid padding string 'full'"),
    "layer same": (lambda t, F, z: t.nn.Conv2d(4, 3, 3, 2, "same"), "padding='same' is not supported for strided"),
    "layer mode": (lambda t, F, z: t.nn.Conv2d(1, 1, 3, padding_mode="mirror"), "padding_mode must be one of"),
    "layer mode, transposed": (
        lambda t, F, z: t.nn.ConvTranspose2d(1, 1, 3, padding_mode="reflect"),
        'Only "zeros" padding mode is supported for ConvTranspose2d',
    ),
    "layer output size": (
        lambda t, F, z: t.nn.ConvTranspose2d(1, 1, 3, stride=2)(z(1, 1, 4, 4), output_size=(20, 20)),
        r"requested an output size of \(20, 20\), but valid sizes range from \[9, 9\] to \[10, 10\]",
    ),
    "layer output sizes": (
        lambda t, F, z: t.nn.ConvTranspose2d(1, 1, 3, stride=2)(z(1, 1, 4, 4), output_size=(20,)),
        "for 4D input, output_size must have 2 or 4 elements",
    ),
    "reflection": (lambda t, F, z: t.nn.ReflectionPad2d(5)(z(1, 2, 5, 5)), "pad: width 5 is too large for mode"),
    "reflection dimensions": (
        lambda t, F, z: t.nn.ReflectionPad2d(1)(z(5, 5)),
        r"ReflectionPad2d: expected an input of 3 or 4 dimensions, but got input of size \[5, 5\]",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_does_not_fit_is_named(name):
    call, message = ERRORS[name]
    with pytest.raises((RuntimeError, ValueError), match=message):
        call(shared, F, shared.zeros)


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ERRORS)
def test_the_kind_of_error_is_pytorchs(name):
    import torch

    call = ERRORS[name][0]
    with pytest.raises(Exception) as theirs:  # noqa: B017  (whatever PyTorch raises)
        call(torch, torch.nn.functional, torch.zeros)
    with pytest.raises(Exception) as ours:  # noqa: B017
        call(shared, F, shared.zeros)
    assert type(ours.value) is type(theirs.value)


def test_arguments_that_are_no_tensors_or_integers_are_refused():
    with pytest.raises(TypeError, match="argument 'input' must be Tensor, not list"):
        F.conv1d([1.0], z(1, 1, 1))
    with pytest.raises(TypeError, match="argument 'stride' must be int or tuple of ints, but got 1.5"):
        F.conv1d(z(1, 1, 3), z(1, 1, 1), stride=1.5)


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv1d(8, 64, 5), 40),
        (nn.Conv2d(16, 32, 3), 144),
        (nn.Conv2d(16, 64, 3, groups=4), 36),
        (nn.Conv3d(4, 32, 3), 108),
        (nn.ConvTranspose2d(16, 32, 3), 288),  # PyTorch's: it reads the fan off the weight (in, out, …)
    ],
)
def test_layers_start_uniform_within_one_over_the_root_of_fan_in(layer, fan_in):
    bound = 1 / math.sqrt(fan_in)
    shared.manual_seed(0)
    layer.reset_parameters()
    weight, bias = layer.weight.numpy(force=True), layer.bias.numpy(force=True)
    assert abs(weight).max() <= bound and abs(weight).max() > 0.98 * bound
    assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.08)
    assert abs(bias).max() <= bound and abs(bias).max() > 0.8 * bound


@needs_torch
@pytest.mark.parametrize("sizes", [(9, 9), (10, 9), (1, 1, 9, 10)])
def test_output_size_chooses_the_output_padding(sizes):
    import torch

    ours, theirs = nn.ConvTranspose2d(1, 2, 3, stride=2), torch.nn.ConvTranspose2d(1, 2, 3, stride=2)
    ours.load_state_dict(theirs.state_dict())
    x = normal(1, 1, 4, 4).detach().float()
    expected = theirs(torch.from_numpy(x.numpy()), output_size=sizes).detach().numpy()
    found = ours(x, output_size=sizes).numpy(force=True)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_layers_take_device_and_dtype():
    layer = nn.Conv2d(1, 2, 3, device="cpu", dtype=shared.float64)
    assert layer.weight.dtype == layer.bias.dtype == shared.float64
    assert layer(z(1, 1, 4, 4, dtype=shared.float64)).dtype == shared.float64


def test_a_convolution_learns_a_filter():
    """A layer that sees images and their vertical differences finds the filter that makes them."""
    shared.manual_seed(0)
    images = shared.randn(20, 1, 8, 8)
    wanted = images[:, :, 1:] - images[:, :, :-1]
    layer = nn.Conv2d(1, 1, (2, 1), bias=False)
    optimizer = shared.optim.SGD(layer.parameters(), lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        F.mse_loss(layer(images), wanted).backward()
        optimizer.step()
    np.testing.assert_allclose(layer.weight.numpy(force=True).ravel(), [-1, 1], atol=1e-3)


# ---------------------------------------------------------------- any shape

pytest.importorskip("hypothesis")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


@st.composite
def convolutions(draw, transposed=False):
    """The number of dimensions, the inputs' shapes, and options that fit them."""
    dims, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    several = st.tuples(*[st.integers(1, 3)] * dims)
    kernel, stride, dilation = draw(several), draw(several), draw(st.tuples(*[st.integers(1, 2)] * dims))
    padding = draw(st.tuples(*[st.integers(0, 2)] * dims))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    batch = draw(st.sampled_from([(), (1,), (3,)]))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if transposed:
        size = [draw(st.integers(1, 4)) + 2 * p for p in padding]
        options["output_padding"] = tuple(draw(st.integers(0, s - 1)) for s in stride)
        weight = (2 * groups, 3, *kernel)
    else:
        size = [max(1, r - 2 * p) + draw(st.integers(0, 4)) for r, p in zip(reach, padding, strict=True)]
        weight = (3 * groups, 2, *kernel)
    return dims, [(*batch, 2 * groups, *size), weight, (3 * groups,)], options


def both(name, shapes, options):
    """Outputs and gradients of shared and of PyTorch, float64."""
    import torch

    results = []
    for t, functional in ((shared, F), (torch, torch.nn.functional)):
        tensors = [t.from_numpy(np.random.default_rng(i).normal(size=s)).requires_grad_() for i, s in enumerate(shapes)]
        out = getattr(functional, name)(*tensors, **options)
        (out * t.arange(out.numel()).reshape(tuple(out.shape)).double().cos()).sum().backward()
        results.append([out.detach().numpy(), *[x.grad.numpy() for x in tensors]])
    return results


def assert_alike(results):
    for what, a, b in zip(("output", "input", "weight", "bias"), *results, strict=False):
        assert a.shape == b.shape, what
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=what)


@needs_torch
@given(convolutions())
def test_convolutions_of_any_shape_are_pytorchs(drawn):
    dims, shapes, options = drawn
    assert_alike(both(f"conv{dims}d", shapes, options))


@needs_torch
@given(convolutions(transposed=True))
def test_transposed_convolutions_of_any_shape_are_pytorchs(drawn):
    dims, shapes, options = drawn
    assert_alike(both(f"conv_transpose{dims}d", shapes, options))


@given(convolutions())
def test_gradients_of_any_shape_are_those_of_finite_differences(drawn):
    dims, shapes, options = drawn
    assert gradcheck(lambda *xs: getattr(F, f"conv{dims}d")(*xs, **options), [normal(*s) for s in shapes])


@given(convolutions())
def test_a_transposed_convolution_is_the_transpose_of_a_convolution(drawn):
    """Σ conv(x) · y = Σ x · conv_transpose(y), the sizes that the stride rounds off given back."""
    dims, (size, kernel, _), options = drawn
    x, weight = normal(*size).detach(), normal(*kernel).detach()
    forward = getattr(F, f"conv{dims}d")(x, weight, **options)
    y = normal(*forward.shape, seed=1).detach()
    numbers = (size[-dims:], kernel[2:], options["stride"], options["padding"], options["dilation"])
    rest = tuple((n + 2 * p - d * (k - 1) - 1) % s for n, k, s, p, d in zip(*numbers, strict=True))
    back = getattr(F, f"conv_transpose{dims}d")(y, weight, output_padding=rest, **options)
    assert back.shape == x.shape
    np.testing.assert_allclose((forward * y).sum().item(), (x * back).sum().item(), rtol=1e-9, atol=1e-9)
