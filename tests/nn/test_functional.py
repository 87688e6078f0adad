"""Every function of nn.functional: values and gradients are PyTorch's, in both precisions and any layout."""

import hashlib
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest

import shared
import shared.nn.functional as F
from shared.testing import gradcheck, gradgradcheck
from tests.nn import golden_file
from tests.nn.cases import BY_NAME, FUNCTIONS, Constant

HERE = Path(__file__).parent
TEXTS, GOLDEN = golden_file.load(HERE / "golden" / "functions.npz")
NAMES = [case.name for case in FUNCTIONS]
HAS_TORCH = importlib.util.find_spec("torch") is not None

pytestmark = [
    pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # NumPy's, about the infinities these cases are made of
]

# Where PyTorch's float32 and float64 kernels differ about NaN and infinity: ours follows the float64 ones.
TWO_MINDS = ("relu6: infinite", "hardtanh: infinite", "gelu: infinite")


def expected(name):
    """What PyTorch gave: the output, then the gradient by each input (None for constants)."""
    inputs = BY_NAME[name].inputs()
    return [GOLDEN.get(f"{name}|{i}") for i in range(len(inputs) + 1)]


def run(case, dtype="float64", layout=np.array):
    tensors = []
    for x in case.inputs():
        array = np.asarray(x.array if isinstance(x, Constant) else x)
        array = layout(array.astype(dtype) if array.dtype.kind == "f" else array)
        tensors.append(shared.Tensor(array).requires_grad_(not isinstance(x, Constant)))
    out = case.call(F, *tensors)
    out.backward(shared.tensor(case.cotangent(tuple(out.shape)), dtype=np.dtype(dtype)))
    return [out] + [t.grad for t in tensors]


def compare(found, wanted, rtol, atol):
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        what = "the output" if i == 0 else f"the gradient by input {i - 1}"
        if b is None:
            assert a is None, f"{what} should not be there"
            continue
        assert a is not None, f"{what} is missing"
        assert tuple(a.shape) == b.shape, f"{what} has shape {tuple(a.shape)}, expected {b.shape}"
        np.testing.assert_allclose(a.numpy(force=True), b, rtol=rtol, atol=atol, err_msg=what)


def tolerance(name):
    """PyTorch keeps a constant of these in float32 (1/6 in hardsigmoid, 1e-12 in bce) for float64 inputs."""
    return 1e-7 if name.startswith(("hardsigmoid", "bce at")) else 1e-9


def test_golden_values_are_those_of_the_cases():
    source = hashlib.sha256((HERE / "cases.py").read_bytes()).hexdigest()
    assert TEXTS["source_sha256"] == source, "cases.py has changed: run python -m tests.nn.make_golden"


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_pytorchs(name):
    compare(run(BY_NAME[name]), expected(name), rtol=tolerance(name), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_float32_stays_float32(name):
    found = run(BY_NAME[name], "float32")
    assert {t.dtype.name for t in found if t is not None} == {"float32"}
    compare(found, expected(name), rtol=2e-4, atol=2e-6)


def fortran(array):
    return np.array(array, order="F")


def every_second(array):
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]) if array.ndim else (2,), array.dtype)
    view = wide[..., ::2] if array.ndim else wide[::2].reshape(-1)[0:1].reshape(())
    view[...] = array
    return view


def reversed_rows(array):
    return np.ascontiguousarray(array[::-1])[::-1] if array.ndim else array


@pytest.mark.parametrize("layout", [fortran, every_second, reversed_rows])
@pytest.mark.parametrize("name", [n for n in NAMES if ": " not in n])
def test_layout_in_memory_does_not_matter(name, layout):
    compare(run(BY_NAME[name], layout=layout), expected(name), rtol=tolerance(name), atol=1e-12)


@pytest.mark.skipif(not HAS_TORCH, reason="compares with PyTorch, which is not installed")
@pytest.mark.parametrize("name", [n for n in NAMES if n not in TWO_MINDS])
def test_float32_is_as_close_as_pytorchs(name):
    from tests.nn.make_golden import run as run_torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = run_torch(BY_NAME[name], "float32")
    # A convolution sums up to a hundred products of about 1, and where they cancel the rounding of each remains.
    compare(run(BY_NAME[name], "float32"), wanted, rtol=1e-5, atol=1e-5 if "conv" in name else 1e-6)


CHECKABLE = [
    n
    for n in NAMES
    if not any(word in n for word in ("infinite", "large", "empty", "all ignored", "no rows", "bce at", "nothing"))
    and not n.startswith(("dropout", "relu6", "hardtanh", "l1_loss", "smooth_l1_loss beta=0.0"))
    # These change the gradient on purpose: no padding, means over uses, a norm held fixed.
    and not n.startswith(("embedding padding_idx", "embedding by frequency", "embedding max_norm"))
]


@pytest.mark.parametrize("name", CHECKABLE)
def test_gradients_are_those_of_finite_differences(name):
    case = BY_NAME[name]
    inputs = [
        shared.tensor(x.array)
        if isinstance(x, Constant)
        else shared.tensor(x, dtype=shared.float64, requires_grad=True)
        for x in case.inputs()
    ]
    weights = shared.tensor(case.cotangent(tuple(case.call(F, *inputs).shape)))
    assert gradcheck(lambda *xs: (case.call(F, *xs) * weights).sum(), inputs)


TWICE = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "hardtanh": F.hardtanh,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "softplus beyond its threshold": lambda x: F.softplus(x, 2.0, 1.0),
    "logsigmoid": F.logsigmoid,
    "silu": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softmax": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, 0),
    "mse_loss": lambda x: F.mse_loss(x * x, shared.ones(4, 3, dtype=shared.float64)),
    "mse_loss none": lambda x: F.mse_loss(shared.ones(4, 3, dtype=shared.float64), x**3, reduction="none"),
    "glu": lambda x: F.glu(x, 0),
}


@pytest.mark.parametrize("name", TWICE)
def test_second_gradients_are_those_of_finite_differences(name):
    values = np.random.default_rng(3).normal(size=(4, 3))
    assert gradgradcheck(TWICE[name], shared.tensor(values, requires_grad=True))


def test_the_mask_of_dropout_is_that_of_its_second_gradient():
    shared.manual_seed(0)
    x = shared.randn(50, requires_grad=True)
    (slope,) = shared.autograd.grad((F.dropout(x, 0.5) ** 2).sum(), x, create_graph=True)
    (second,) = shared.autograd.grad(slope.sum(), x)
    assert set(second.tolist()) == {0.0, 8.0}
    assert ((second == 0) == (slope.detach() == 0)).all()
