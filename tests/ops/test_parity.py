"""Every case of the table against PyTorch: values, gradients, dtypes, on every memory layout."""

import numpy as np
import pytest

import shared
from tests.ops.cases import CASES, LAID_OUT, example_id
from tests.ops.running import Methods, run_shared, run_torch, same

torch = pytest.importorskip("torch", reason="PyTorch is not installed; test_golden.py compares with committed numbers")


def compare(actual, expected):
    (outputs, grads), (wanted, wanted_grads) = actual, expected
    assert len(outputs) == len(wanted)
    for i, (y, z) in enumerate(zip(outputs, wanted, strict=True)):
        same(y, z, f"output {i}")
        assert y.requires_grad == z.requires_grad, f"output {i}: requires_grad is {y.requires_grad}"
    for i, (g, h) in enumerate(zip(grads, wanted_grads, strict=True)):
        same(g, h, f"gradient of input {i}")


@pytest.mark.parametrize("example", LAID_OUT, ids=example_id)
def test_float32_as_pytorch(example):
    case, place, layout = example
    arrays = case.arrays(place, np.float32, layout)
    compare(run_shared(case, arrays), run_torch(case, arrays))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_float64_as_pytorch(case):
    arrays = case.arrays(0, np.float64)
    compare(run_shared(case, arrays), run_torch(case, arrays))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_methods_as_functions(case):
    arrays = case.arrays(0)
    compare(run_shared(case, arrays, Methods(shared)), run_torch(case, arrays))


INTEGERS = ("int64", "int32", "int16", "int8")
DELIBERATE = {  # explained in shared/DIFFERENCES.md
    "any of numbers": ("uint8",),
    "all of numbers": ("uint8",),
    "second names": ("uint8",),
    "pow": INTEGERS,
    "pow_ in place": INTEGERS,
    "scalars on the left": INTEGERS,
}
DTYPES = [
    shared.float16,
    shared.bfloat16,
    shared.int64,
    shared.int32,
    shared.int16,
    shared.int8,
    shared.uint8,
    shared.bool,
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_other_dtypes_as_pytorch(case):
    """Wherever PyTorch has a result, so has shared, of the same dtype."""
    compared, wrong = 0, []
    for dtype in DTYPES:
        if dtype.name in DELIBERATE.get(case.name, ()):
            continue
        if "special" in " ".join(case.domains) and dtype not in (shared.float16, shared.bfloat16):
            continue  # no integer is NaN or infinite
        arrays = [in_dtype(a, dtype) for a in case.arrays(0)]
        try:
            expected = run_torch(case, arrays, grad=False)
        except (RuntimeError, TypeError, IndexError):
            continue
        compared += 1
        try:
            compare(run_shared(case, arrays, grad=False), expected)
        except Exception as error:
            wrong.append(f"{dtype.name}: {type(error).__name__}: {error}")
    assert compared and not wrong, "\n".join(wrong)


def in_dtype(a, dtype):
    """Floating inputs in another dtype; for integers, rounded numbers between −9 and 9."""
    if a.dtype.kind != "f":
        return a
    if shared.arrays.dtypes.is_floating(dtype):
        return a.astype(dtype)
    whole = np.trunc(a * 3)
    return (abs(whole) if dtype == shared.uint8 else whole).astype(dtype)
