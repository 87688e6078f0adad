"""How tensors print: as PyTorch prints them, but for the package's name."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import shared

try:
    import torch
except ImportError:
    torch = None

GOLDEN = Path(__file__).parent / "golden" / "printing.json"
INF, NAN = float("inf"), float("nan")

TABLE = {
    "a number": lambda t: t.tensor(3.5),
    "an int": lambda t: t.tensor(7),
    "a bool": lambda t: t.tensor(True),
    "whole floats": lambda t: t.tensor([1.0, 2.0, -300.0]),
    "ints": lambda t: t.tensor([[1, -200], [30, 4]]),
    "bools": lambda t: t.tensor([True, False, True]),
    "floats": lambda t: t.tensor([[1.5, -2.25], [0.125, 1000.0]]),
    "small floats": lambda t: t.tensor([1e-5, 1.0]),
    "tiny floats": lambda t: t.tensor([1e-10, 2e-12]),
    "large floats": lambda t: t.tensor([1e9, 1.5]),
    "large whole floats": lambda t: t.tensor([123456789.0, 1.0]),
    "a wide range": lambda t: t.tensor([0.001, 10.0]),
    "not so wide": lambda t: t.tensor([0.01, 9.99]),
    "nan": lambda t: t.tensor([NAN, 1.0]),
    "nan alone": lambda t: t.tensor(NAN),
    "only nan": lambda t: t.tensor([NAN, NAN]),
    "infinities": lambda t: t.tensor([INF, -INF, 1.5]),
    "infinities among whole": lambda t: t.tensor([INF, -INF, 100.0]),
    "infinities in a wide range": lambda t: t.tensor([INF, 1e-8]),
    "zeros": lambda t: t.zeros(2, 3),
    "negative zero": lambda t: t.tensor([-0.0, 1.5]),
    "empty": lambda t: t.tensor([]),
    "empty matrix": lambda t: t.zeros(0, 3),
    "empty ints": lambda t: t.zeros(0, dtype=t.int64),
    "three dimensions": lambda t: t.arange(24).reshape(2, 3, 4),
    "four dimensions": lambda t: t.arange(16.0).reshape(2, 2, 2, 2),
    "a long vector": lambda t: t.arange(100),
    "a long vector of floats": lambda t: t.arange(40.0) / 7,
    "over a thousand": lambda t: t.arange(2000),
    "over a thousand floats": lambda t: t.arange(2000.0) / 3,
    "a large matrix": lambda t: t.arange(10_000).reshape(100, 100),
    "a tall matrix": lambda t: t.arange(4000).reshape(1000, 4),
    "a wide matrix": lambda t: t.arange(4000).reshape(4, 1000),
    "a large block": lambda t: t.arange(8000.0).reshape(20, 20, 20),
    "exactly a thousand": lambda t: t.arange(1000),
    "float64": lambda t: t.tensor([1.5, 2.0], dtype=t.float64),
    "float16": lambda t: t.tensor([1.5, 2.0], dtype=t.float16),
    "bfloat16": lambda t: t.tensor([1.5, 2.0], dtype=t.bfloat16),
    "int32": lambda t: t.tensor([1, 2], dtype=t.int32),
    "uint8": lambda t: t.tensor([1, 2], dtype=t.uint8),
    "requires_grad": lambda t: t.tensor([1.0, 2.0], requires_grad=True),
    "requires_grad of a matrix": lambda t: t.ones(2, 2, requires_grad=True),
    "requires_grad and dtype": lambda t: t.ones(2, dtype=t.float64, requires_grad=True),
    "a result": lambda t: t.ones(2, requires_grad=True).exp(),
    "a result of 25 numbers": lambda t: (t.arange(25.0) / 7).reshape(5, 5).requires_grad_().exp(),
    "a long result": lambda t: t.arange(30.0).requires_grad_().tanh(),
    "a transpose": lambda t: t.arange(6).reshape(2, 3).T,
    "a slice": lambda t: t.arange(10)[::3],
}


def printed(t, name):
    """The text, without the package's name."""
    return repr(TABLE[name](t)).replace("dtype=torch.", "dtype=shared.")


@pytest.mark.parametrize("name", TABLE)
def test_the_printed_form(name):
    assert printed(shared, name) == json.loads(GOLDEN.read_text())[name]


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
def test_the_committed_forms_are_pytorchs():
    assert {name: printed(torch, name) for name in TABLE} == json.loads(GOLDEN.read_text())


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
@settings(deadline=None, max_examples=150)
@given(
    hnp.arrays(
        st.sampled_from(["float32", "float64", "int64", "bool"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
    ),
    st.sampled_from([0, -3, -8, 5, 12]),
)
def test_random_tensors_print_as_in_pytorch(a, exponent):
    if a.dtype.kind == "f":
        a = np.asarray(a % 1000 * 10.0**exponent, dtype=a.dtype)
    assert repr(shared.from_numpy(a)) == repr(torch.from_numpy(a)).replace("dtype=torch.", "dtype=shared.")


def test_print_options():
    x = shared.arange(8) / 7
    try:
        shared.set_printoptions(precision=2)
        assert repr(x[:2]) == "tensor([0.00, 0.14])"
        shared.set_printoptions(sci_mode=True)
        assert repr(x[:2]) == "tensor([0.00e+00, 1.43e-01])"
        shared.set_printoptions(threshold=4, edgeitems=1, precision=1)
        assert repr(x) == "tensor([0.,  ..., 1.])"
        shared.set_printoptions(precision=4, threshold=1000, linewidth=30)
        assert repr(x) == (
            "tensor([0.0000, 0.1429,\n        0.2857, 0.4286,\n        0.5714, 0.7143,\n        0.8571, 1.0000])"
        )
    finally:
        shared.set_printoptions(precision=4, threshold=1000, edgeitems=3, linewidth=80)
    assert repr(x[:2]) == "tensor([0.0000, 0.1429])"


def test_formatting_single_numbers():
    assert f"{shared.tensor(2.5):.2f}" == "2.50" and f"{shared.tensor([1, 2])}" == "tensor([1, 2])"
    assert str(shared.Size((2, 3))) == "Size([2, 3])" and f"{shared.tensor(3):>4}" == "   3"


def make_golden():
    """Writes what PyTorch prints: python -m tests.test_printing"""
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({name: printed(torch, name) for name in TABLE}, indent=1) + "\n")


def test_numbers_of_numpy_print_the_same():
    assert repr(shared.from_numpy(np.float32([1.5]))) == "tensor([1.5000])"


if __name__ == "__main__":
    make_golden()
