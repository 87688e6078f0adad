"""Pooling and interpolation: places of maxima, ties and infinities, errors, any shape."""

import importlib.util

import numpy as np
import pytest

import shared
import shared.nn.functional as F
from shared import nn

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed"
)
NAN, INF = float("nan"), float("inf")
z = shared.zeros


def test_indices_are_the_places_of_the_maxima():
    x = shared.tensor([[[[1.0, 2.0, 0.0, 9.0], [3.0, 0.0, 9.0, 9.0]]]], requires_grad=True)
    out, indices = F.max_pool2d(x, 2, return_indices=True)
    assert out.tolist() == [[[[3.0, 9.0]]]] and indices.tolist() == [[[[4, 3]]]]
    assert indices.dtype == shared.int64 and not indices.requires_grad
    out.sum().backward()
    assert x.grad.tolist() == [[[[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]]]]
    assert shared.equal(x.flatten()[indices.flatten()], out.flatten())


def test_of_equal_maxima_the_first_gets_the_gradient():
    for size in ((1, 1, 4), (1, 1, 2, 2), (1, 1, 1, 2, 2)):
        x = shared.ones(*size, requires_grad=True)
        pool = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}[len(size)]
        pool(x, size[2:]).sum().backward()
        assert x.grad.flatten().tolist() == [1.0, 0.0, 0.0, 0.0]


def test_a_maximum_that_two_windows_see_gets_both_gradients():
    x = shared.tensor([[[1.0, 5.0, 2.0]]], requires_grad=True)
    F.max_pool1d(x, 2, 1).backward(shared.tensor([[[2.0, 3.0]]]))
    assert x.grad.tolist() == [[[0.0, 5.0, 0.0]]]


def test_minus_infinity_is_a_maximum_where_there_is_nothing_else():
    x = shared.full((1, 1, 4), -INF)
    out, indices = F.max_pool1d(x, 3, 2, 1, return_indices=True)
    assert out.tolist() == [[[-INF, -INF]]] and indices.tolist() == [[[0, 1]]], "never a place on the padding"


def test_integers_are_pooled_by_their_maxima():
    x = shared.tensor([[[-7, -3, -9, -8]]])
    assert F.max_pool1d(x, 2).tolist() == [[[-3, -8]]]
    assert F.max_pool1d(x, 2, padding=1).tolist() == [[[-7, -3, -8]]]


def test_adaptive_maxima_of_no_windows_are_empty():
    out, indices = F.adaptive_max_pool2d(z(2, 3, 4, 4), (0, 2), return_indices=True)
    assert tuple(out.shape) == tuple(indices.shape) == (2, 3, 0, 2) and indices.dtype == shared.int64


def test_maxima_go_back_to_their_places_in_an_odd_image():
    x = shared.arange(1.0, 10.0).reshape(1, 1, 3, 3).requires_grad_()
    pool, unpool = nn.MaxPool2d(2, stride=1, return_indices=True), nn.MaxUnpool2d(2, stride=1)
    back = unpool(*pool(x))
    assert back.tolist() == [[[[0, 0, 0], [0, 5, 6], [0, 8, 9]]]]
    pool, unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    with pytest.raises(RuntimeError, match="invalid max index: 4 .*2 x 2"):  # 5 stands at 4 in the larger image
        unpool(*pool(x))
    back = unpool(*pool(x), output_size=x.shape)
    assert back.tolist() == [[[[0, 0, 0], [0, 5, 0], [0, 0, 0]]]]
    back.sum().backward()
    assert x.grad.tolist() == [[[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]]


def test_a_layer_can_return_indices():
    out, indices = nn.MaxPool2d(2, return_indices=True)(shared.arange(16.0).reshape(1, 4, 4))
    assert out.tolist() == [[[5.0, 7.0], [13.0, 15.0]]] and indices.tolist() == [[[5, 7], [13, 15]]]


def test_a_mean_over_all_is_the_mean():
    x = shared.rand(2, 3, 5, 7)
    pooled = F.adaptive_avg_pool2d(x, 1)
    np.testing.assert_allclose(pooled.numpy()[:, :, 0, 0], x.numpy().mean((2, 3)), rtol=1e-6)
    assert tuple(F.adaptive_avg_pool2d(x, (0, 2)).shape) == (2, 3, 0, 2)


def test_a_node_without_a_gradient_keeps_no_places():
    with shared.no_grad():
        assert F.max_pool2d(shared.ones(1, 1, 4, 4), 2).grad_fn is None


# ---------------------------------------------------------------- errors

ERRORS = {
    "dimensions": (
        lambda t, F, z: F.max_pool2d(z(5, 5), 2),
        r"max_pool2d: Expected 3D \(unbatched\) or 4D \(batched\) input to max_pool2d, but got input of size: \[5, 5\]",
    ),
    "padding": (
        lambda t, F, z: F.max_pool2d(z(1, 2, 5, 5), 2, padding=2),
        "pad should be at most half of effective kernel size, but got pad=2, kernel_size=2 and dilation=1",
    ),
    "negative padding": (lambda t, F, z: F.max_pool2d(z(1, 2, 5, 5), 2, padding=-1), "pad must be non-negative"),
    "stride": (
        lambda t, F, z: F.max_pool2d(z(1, 2, 5, 5), 2, stride=0),
        r"max_pool2d: stride should be greater than zero, but got \(0, 0\)",
    ),
    "dilation": (lambda t, F, z: F.max_pool2d(z(1, 2, 5, 5), 2, dilation=0), "dilation should be greater than zero"),
    "kernel": (
        lambda t, F, z: F.max_pool2d(z(1, 2, 5, 5), (2, 2, 2)),
        r"expected kernel_size to be a single integer value or a list of 2 values",
    ),
    "small": (
        lambda t, F, z: F.max_pool2d(z(1, 3, 1, 1), 2),
        r"Given input size: \(3 x 1 x 1\). Calculated output size: \(3 x 0 x 0\). Output size is too small",
    ),
    "empty": (lambda t, F, z: F.max_pool2d(z(1, 1, 0, 4), 2, padding=1), r"0 dim batch size .* got: \[1, 1, 0, 4\]"),
    "bool": (lambda t, F, z: F.max_pool2d(z(1, 2, 5, 5).bool(), 2), '"max_pool2d" not implemented for bool'),
    "one dimension": (lambda t, F, z: F.max_pool1d(z(5), 2), "max_pool1d: Expected 2D"),
    "divisor": (lambda t, F, z: F.avg_pool2d(z(1, 2, 5, 5), 2, divisor_override=0), "divisor must be not zero"),
    "mean padding": (lambda t, F, z: F.avg_pool1d(z(1, 1, 5), 2, padding=2), "at most half of effective kernel size"),
    "adaptive dimensions": (lambda t, F, z: F.adaptive_avg_pool2d(z(5, 5), 2), "adaptive_avg_pool2d: Expected 3D"),
    "adaptive negative": (lambda t, F, z: F.adaptive_avg_pool2d(z(1, 2, 5, 5), -1), "greater than or equal to 0"),
    "adaptive sizes": (lambda t, F, z: F.adaptive_avg_pool2d(z(1, 2, 5, 5), (1, 2, 2)), "output_size must be 2"),
    "adaptive empty": (lambda t, F, z: F.adaptive_avg_pool2d(z(1, 2, 0, 5), 2), "non-zero size for non-batch"),
    "adaptive integers": (
        lambda t, F, z: F.adaptive_avg_pool2d(z(1, 2, 5, 5).long(), 2),
        '"adaptive_avg_pool2d" not implemented for int64',
    ),
    "adaptive maxima dimensions": (lambda t, F, z: F.adaptive_max_pool2d(z(5, 5), 2), "adaptive_max_pool2d: Expected"),
    "adaptive maxima empty": (lambda t, F, z: F.adaptive_max_pool1d(z(1, 2, 0), 2), "non-zero size for non-batch"),
    "small in three dimensions": (
        lambda t, F, z: F.avg_pool3d(z(1, 1, 2, 4, 4), 3, padding=1),
        "avg_pool3d: input image 2 x 4 x 4 smaller than kernel size 3 x 3 x 3",
    ),
    "unpool size": (
        lambda t, F, z: F.max_unpool2d(z(1, 2, 2, 2), z(1, 2, 2, 2).long(), 2, output_size=(9, 9)),
        r"invalid output_size \"\(9, 9\)\" \(dim 0 must be between 2 and 6\)",
    ),
    "unpool sizes": (
        lambda t, F, z: F.max_unpool2d(z(1, 2, 2, 2), z(1, 2, 2, 2).long(), 2, output_size=(4,)),
        "containing 2 or 4 elements, but it has a length of '1'",
    ),
    "unpool index": (
        lambda t, F, z: F.max_unpool2d(z(1, 2, 2, 2), z(1, 2, 2, 2).long() + 16, 2),
        r"max_unpool2d: Found an invalid max index: 16 \(output volumes are of size 4 x 4\)",
    ),
    "unpool dtype": (
        lambda t, F, z: F.max_unpool1d(z(1, 2, 2), z(1, 2, 2).int(), 2),
        "elements in indices should be type int64 but got: int32",
    ),
    "unpool shapes": (
        lambda t, F, z: F.max_unpool1d(z(1, 2, 2), z(1, 2, 1).long(), 2),
        r"shape of indices to be same as that of the input tensor \(\[1, 2, 2\]\)",
    ),
    "no size": (lambda t, F, z: F.interpolate(z(1, 2, 5, 5)), "either size or scale_factor should be defined"),
    "two sizes": (lambda t, F, z: F.interpolate(z(1, 2, 5, 5), 3, 2), "only one of size or scale_factor"),
    "mode": (lambda t, F, z: F.interpolate(z(1, 2, 5, 5), 3, mode="cubist"), r"Only 3D, 4D and 5D .* \(got cubist\)"),
    "mode's dimensions": (
        lambda t, F, z: F.interpolate(z(1, 5, 5), 3, mode="bilinear"),
        "Got 3D input, but bilinear mode needs 4D input",
    ),
    "corners": (
        lambda t, F, z: F.interpolate(z(1, 2, 5, 5), 3, align_corners=True),
        "align_corners option can only be set with the interpolating modes",
    ),
    "sizes": (
        lambda t, F, z: F.interpolate(z(1, 2, 5, 5), (3, 3, 3)),
        r"same number of spatial dimensions, but got input with spatial dimensions of \[5, 5\] and output size of",
    ),
    "factors": (
        lambda t, F, z: F.interpolate(z(1, 2, 5, 5), scale_factor=(3.0, 3.0, 3.0)),
        "same number of spatial dimensions",
    ),
    "zero": (lambda t, F, z: F.interpolate(z(1, 2, 5, 5), 0), "Input and output sizes should be greater than 0"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_does_not_fit_is_named(name):
    call, message = ERRORS[name]
    with pytest.raises((RuntimeError, ValueError), match=message):
        call(shared, F, z)


@needs_torch
@pytest.mark.parametrize("name", ERRORS)
def test_the_kind_of_error_is_pytorchs(name):
    import torch

    call = ERRORS[name][0]
    with pytest.raises(Exception) as theirs:  # noqa: B017  (whatever PyTorch raises)
        call(torch, torch.nn.functional, torch.zeros)
    with pytest.raises(Exception) as ours:  # noqa: B017
        call(shared, F, z)
    assert type(ours.value) is type(theirs.value)


@needs_torch
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "bicubic"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_factor_that_changes_no_size_is_treated_as_in_pytorch(mode, dims):
    """Some modes take that for a copy, others go by the factor."""
    import torch

    mode = ("linear", "bilinear", "trilinear")[dims - 1] if mode == "linear" else mode
    if mode == "bicubic" and dims != 2:
        return
    x = np.random.default_rng(0).standard_normal((1, 2, *(9,) * dims))
    ours = F.interpolate(shared.tensor(x), scale_factor=1.1, mode=mode)
    theirs = torch.nn.functional.interpolate(torch.tensor(x), scale_factor=1.1, mode=mode)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-9)


def test_what_is_not_there_says_so():
    with pytest.raises(NotImplementedError, match="antialias=True is not implemented"):
        F.interpolate(z(1, 1, 4, 4), 2, mode="bilinear", antialias=True)
    with pytest.raises(NotImplementedError, match="nearest-exact.*got lanczos"):
        F.interpolate(z(1, 1, 4, 4), 2, mode="lanczos")
    with pytest.warns(UserWarning, match="upsample. is deprecated"):
        assert tuple(F.upsample(z(1, 1, 4, 4), scale_factor=2).shape) == (1, 1, 8, 8)


# ---------------------------------------------------------------- any shape

pytest.importorskip("hypothesis")
from hypothesis import assume, given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


def assert_alike(call, shape, seed, special=False):
    """Value, perhaps places, and gradient of `call(F, x)` are PyTorch's, float64."""
    import torch

    rng = np.random.default_rng(seed)
    values = rng.choice([1.0, 2.0, 3.0, NAN, INF, -INF], shape, p=[0.3, 0.2, 0.1, 0.1, 0.1, 0.2])
    values = values if special else np.round(rng.normal(size=shape), 1)
    results = []
    for t, functional in ((shared, F), (torch, torch.nn.functional)):
        x = t.from_numpy(values.copy()).requires_grad_()
        out = call(functional, x)
        out, *places = out if isinstance(out, tuple) else (out,)
        out.backward(t.arange(1.0, out.numel() + 1).reshape(tuple(out.shape)).double())
        results.append([out.detach().numpy(), x.grad.numpy(), *[i.numpy() for i in places]])
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@st.composite
def pools(draw):
    dims = draw(st.integers(1, 3))
    several = st.tuples(*[st.integers(1, 3)] * dims)
    kernel, stride = draw(several), draw(st.none() | several)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    padded = dims < 3  # avg_pool3d wants the input itself as large as the kernel
    least = [max(1, k - 2 * p * padded) for k, p in zip(kernel, padding, strict=True)]
    size = tuple(n + draw(st.integers(0, 4)) for n in least)
    options = {"stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}
    return dims, kernel, (*draw(st.sampled_from([(), (2,)])), 2, *size), options


@needs_torch
@given(pools(), st.integers(0, 99), st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_max_pools_of_any_shape_are_pytorchs(drawn, seed, special):
    dims, kernel, shape, options = drawn
    function = f"max_pool{dims}d"
    assert_alike(lambda F, x: getattr(F, function)(x, kernel, **options, return_indices=True), shape, seed, special)


@needs_torch
@given(pools(), st.integers(0, 99), st.booleans(), st.none() | st.integers(1, 5))
def test_avg_pools_of_any_shape_are_pytorchs(drawn, seed, include, divisor):
    dims, kernel, shape, options = drawn
    options |= {"count_include_pad": include} | ({} if dims == 1 else {"divisor_override": divisor})
    assert_alike(lambda F, x: getattr(F, f"avg_pool{dims}d")(x, kernel, **options), shape, seed)


@needs_torch
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=3), st.integers(0, 99))
def test_adaptive_pools_of_any_shape_are_pytorchs(sizes, seed):
    before, after = zip(*sizes, strict=True)
    function = f"adaptive_avg_pool{len(sizes)}d"
    assert_alike(lambda F, x: getattr(F, function)(x, after), (2, 2, *before), seed)


@needs_torch
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=3),
    st.integers(0, 99),
    st.booleans(),
)
def test_adaptive_maxima_of_any_shape_are_pytorchs(sizes, seed, special):
    before, after = zip(*sizes, strict=True)
    function = f"adaptive_max_pool{len(sizes)}d"
    assert_alike(lambda F, x: getattr(F, function)(x, after, return_indices=True), (2, 2, *before), seed, special)


@needs_torch
@given(pools(), st.integers(0, 99))
@pytest.mark.filterwarnings("ignore")
def test_maxima_put_back_are_pytorchs(drawn, seed):
    """Windows side by side: where they overlap, PyTorch's result depends on the order of its threads."""
    dims, kernel, shape, options = drawn
    size = tuple(n + -n % k for n, k in zip(shape[-dims:], kernel, strict=True))

    def there_and_back(F, x):
        out, places = getattr(F, f"max_pool{dims}d")(x, kernel, return_indices=True)
        return getattr(F, f"max_unpool{dims}d")(out * out, places, kernel, output_size=size)

    assert_alike(there_and_back, (*shape[:-dims], *size), seed)


@needs_torch
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 13)), min_size=1, max_size=3),
    st.sampled_from(["nearest", "nearest-exact", "linear", "area", "bicubic"]),
    st.sampled_from([None, False, True]),
    st.booleans(),
)
@pytest.mark.filterwarnings("ignore")
def test_interpolations_of_any_size_are_pytorchs(sizes, mode, corners, by_factor):
    before, after = zip(*sizes, strict=True)
    if mode == "bicubic":
        before, after = (before * 2)[:2], (after * 2)[:2]
        sizes = list(zip(before, after, strict=True))
    options = {"mode": ("linear", "bilinear", "trilinear")[len(sizes) - 1] if mode == "linear" else mode}
    if mode in ("linear", "bicubic"):
        options["align_corners"] = corners
    # PyTorch's gradient of these two takes equal sizes for a copy, whatever the factor; its forward does not.
    assume(not (by_factor and mode in ("nearest", "bicubic") and any(a == b for a, b in sizes)))
    if by_factor:
        options["scale_factor"] = tuple((b + 0.3) / a for a, b in sizes)
    else:
        options["size"] = after
    assert_alike(lambda F, x: F.interpolate(x, **options), (1, 2, *before), 0)
