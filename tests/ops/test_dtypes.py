"""The dtype of a result: PyTorch's promotion for every pair of dtypes, and what half precision must not lose."""

import json
from pathlib import Path

import numpy as np
import pytest

import shared
from shared.arrays import dtypes

NAMES = [d.name for d in dtypes.ALL]
GOLDEN = json.loads((Path(__file__).parent / "golden" / "promotion.json").read_text())
OPERATIONS = {
    "add": lambda t, a, b: a + b,
    "div": lambda t, a, b: a / b,
    "floor_divide": lambda t, a, b: a // b,
    "mul": lambda t, a, b: t.mul(a, b),
    "maximum": lambda t, a, b: t.maximum(a, b),
    "less": lambda t, a, b: a < b,
    "atan2": lambda t, a, b: t.atan2(a, b),
    "where": lambda t, a, b: t.where(t.ones_like(a) > 0, a, b),
    "cat": lambda t, a, b: t.cat([a.reshape(-1), b.reshape(-1)]),
    "stack": lambda t, a, b: t.stack([a.reshape(-1), b.reshape(-1)]),
    "sum": lambda t, a, b: (a + b).sum(),
    "cumsum": lambda t, a, b: (a + b).cumsum(-1),
    "exp": lambda t, a, b: (a + b).exp(),
}
NUMBERS = {"True": True, "2": 2, "2.5": 2.5}


def dtype_of(t, operation, a, b):
    """The name of the result's dtype, or None where the operation is refused."""

    def operand(text):
        if text in NUMBERS:
            return NUMBERS[text]
        name, _, ndim = text.partition(" ")
        return t.ones((1,) if not ndim else (), dtype=getattr(t, name))

    try:
        result = OPERATIONS[operation](t, operand(a), operand(b))
    except (RuntimeError, TypeError):
        return None
    return str(result.dtype).removeprefix("torch.")


def questions():
    """Every operation on every pair of dtypes; with zero-dimensional tensors and numbers for the operators."""
    for operation in OPERATIONS:
        for a in NAMES:
            for b in NAMES:
                yield operation, a, b
    for operation in ("add", "div", "mul", "less", "where"):
        for a in NAMES:
            for b in [*[f"{name} 0-dim" for name in NAMES], *NUMBERS]:
                yield operation, a, b
                yield operation, f"{a} 0-dim", b


# PyTorch's answer where it is not the table's own rule, with the reason in shared/DIFFERENCES.md
DELIBERATE = {("where", "bool", "True"): "bool"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_promotion_is_pytorchs(operation):
    wrong = []
    for key in questions():
        if key[0] == operation and GOLDEN[" | ".join(key)] is not None:
            found = dtype_of(shared, *key)
            if found != GOLDEN[" | ".join(key)]:
                wrong.append(f"{key}: {found}, PyTorch {GOLDEN[' | '.join(key)]}")
    assert not wrong, "\n".join(wrong)


def test_promotion_golden_values_are_pytorchs():
    torch = pytest.importorskip("torch")
    torch_dtype = {" | ".join(key): dtype_of(torch, *key) for key in questions() if key[0] in ("add", "div", "where")}
    assert torch_dtype == {k: GOLDEN[k] for k in torch_dtype}


def test_promotion_is_a_lattice():
    for a in dtypes.ALL:
        for b in dtypes.ALL:
            join = shared.promote_types(a, b)
            assert join == shared.promote_types(b, a)
            assert shared.promote_types(join, a) == join
            assert shared.promote_types(a, a) == a


# ---------------------------------------------------------------- the default dtype


def test_default_dtype():
    assert shared.get_default_dtype() == shared.float32
    try:
        shared.set_default_dtype(shared.float64)
        assert shared.tensor([1.0]).dtype == shared.float64 and shared.ones(1).dtype == shared.float64
        assert (shared.tensor([1]) / 2).dtype == shared.float64 and shared.randn(1).dtype == shared.float64
    finally:
        shared.set_default_dtype(shared.float32)
    with pytest.raises(TypeError, match="floating dtype, but got int64"):
        shared.set_default_dtype(shared.int64)


@pytest.mark.parametrize("wrong", ["complex64", "float8", np.uint32, object, "nonsense", 3])
def test_an_unknown_dtype_is_named(wrong):
    with pytest.raises(TypeError, match="unknown dtype .*expected one of float64, float32"):
        shared.zeros(2, dtype=wrong)


@pytest.mark.parametrize(
    "spelling, name",
    [
        (float, "float64"),
        (int, "int64"),
        (bool, "bool"),
        ("half", "float16"),
        (np.int8, "int8"),
        ("bfloat16", "bfloat16"),
    ],
)
def test_spellings_of_dtypes(spelling, name):
    assert shared.zeros(2, dtype=spelling).dtype.name == name


# ---------------------------------------------------------------- half precision


@pytest.mark.parametrize("dtype", [shared.float16, shared.bfloat16])
class TestHalfPrecision:
    """Sums are made in float32 and rounded once: adding up in half precision stops growing at 2048 (or 256)."""

    def test_sum(self, dtype):
        x = shared.ones(10_000, dtype=dtype)
        assert abs(x.sum().item() - 10_000) <= 32 and x.sum().dtype == dtype
        assert abs(x.reshape(100, 100).sum(0).sum().item() - 10_000) <= 32

    def test_mean_and_variance(self, dtype):
        x = shared.full((70_000,), 3.0, dtype=dtype)  # the sum would overflow float16
        assert x.mean().item() == 3.0 and x.var().item() == 0.0 and x.std().dtype == dtype

    def test_cumsum(self, dtype):
        assert abs(shared.ones(4096, dtype=dtype).cumsum(0)[-1].item() - 4096) <= 16

    def test_norm(self, dtype):
        x = shared.full((4,), 300.0, dtype=dtype)  # whose squares overflow float16
        assert x.norm().item() == 600.0 and x.norm().dtype == dtype

    def test_matmul(self, dtype):
        x = shared.ones(1, 4000, dtype=dtype)
        assert abs((x @ x.T).item() - 4000) <= 16

    def test_gradients(self, dtype):
        x = shared.ones(5, dtype=dtype, requires_grad=True)
        (x * 2.5).exp().mean().backward()
        assert x.grad.dtype == dtype

    def test_a_python_number_does_not_widen(self, dtype):
        x = shared.ones(3, dtype=dtype)
        for y in (x + 1, x * 0.5, 2.5 - x, x / 3, x**2, x**0.5, 2.0**x, x.clamp(0.1, 0.2), x.sigmoid(), 1 / x):
            assert y.dtype == dtype


def test_float32_stays_float32_through_every_case():
    """No operation of the table widens float32 to float64 by accident, neither forward nor backward."""
    from tests.ops.cases import CASES
    from tests.ops.running import run_shared

    for case in CASES:
        if case.name.startswith("cast"):
            continue
        for outputs in run_shared(case, case.arrays(0, np.float32)):
            widened = [y for y in outputs if y is not None and y.dtype == shared.float64]
            assert not widened, case.name
