"""Under autocast every operation and every layer has the dtypes that PyTorch gives it, and the right values."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import shared
from tests.nn.test_modules import WITH_INPUTS, build, golden
from tests.ops.cases import CASES
from tests.ops.running import outputs_of

if importlib.util.find_spec("torch") is None:
    pytest.skip("compares with PyTorch, which is not installed", allow_module_level=True)
import torch

pytestmark = pytest.mark.filterwarnings("ignore")
DIFFERENT = ("pad reflect", "pad replicate", "einsum i,j->ij", "einsum ij,ij->ij")  # see shared/DIFFERENCES.md
PADDED = ("nn.ReflectionPad", "nn.ReplicationPad")


def name_of(x):
    return str(x.dtype).removeprefix("torch.") if hasattr(x, "dtype") else type(x).__name__


def outcome(t, call):
    """What `call(t)` gives under autocast, or the error."""
    try:
        with t.autocast("cpu", dtype=t.bfloat16):
            return call(t)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        return error


@pytest.mark.parametrize("short", ["all", "the first", "none"])
@pytest.mark.parametrize("case", [c for c in CASES if c.name not in DIFFERENT], ids=lambda c: c.name)
def test_dtypes_of_an_operation_are_pytorchs(case, short):
    def call(t):
        xs = [t.tensor(np.ascontiguousarray(a)) for a in case.arrays(0, np.float32)]
        for i, x in enumerate(xs):
            if x.is_floating_point() and (short == "all" or (short == "the first" and i == 0)):
                xs[i] = x.to(t.bfloat16)
        return [name_of(y) for y in outputs_of(case.call(t, *xs))]

    ours, theirs = outcome(shared, call), outcome(torch, call)
    if isinstance(theirs, Exception):
        pytest.skip(f"PyTorch refuses it: {theirs}")  # most of these mix dtypes, which is promoted here
    if case.name == "pad_sequence" and short == "the first":
        assert isinstance(ours, RuntimeError)  # see shared/DIFFERENCES.md
    else:
        assert ours == theirs


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(("expression", "count"), WITH_INPUTS, ids=[e for e, _ in WITH_INPUTS])
def test_dtypes_of_a_layer_and_its_gradients_are_pytorchs_and_values_near_float64s(expression, count, short):
    if short and expression.startswith(PADDED):
        pytest.skip("see shared/DIFFERENCES.md")

    def call(t, dtype="float32"):
        module = build(expression, t.nn)
        module.load_state_dict({k: t.tensor(np.asarray(v)) for k, v in golden(expression, "state.").items()})
        module, given = module.to(getattr(t, dtype)), golden(expression, "input.")
        inputs = [t.tensor(given[str(i)]).to(t.bfloat16 if short else t.float32) for i in range(count)]
        if dtype == "float64":
            inputs = [x.double() for x in inputs]
        out = module(*[x.requires_grad_() for x in inputs])
        weights = t.tensor(np.linspace(0.5, 1.5, out.numel(), dtype=np.float32)).reshape(tuple(out.shape))
        (out * weights).sum().backward()
        return [out, *[p.grad for p in [*inputs, *module.parameters()]]]

    ours, theirs = outcome(shared, call), outcome(torch, call)
    if isinstance(theirs, Exception):
        pytest.skip(f"PyTorch refuses it: {theirs}")
    assert [name_of(x) for x in ours] == [name_of(x) for x in theirs]
    # PyTorch's norms keep the moments of short inputs in short numbers, and are further off: float64 is the measure.
    for a, b in zip(ours, call(shared, "float64"), strict=True):
        a, b = a.detach().double().numpy(), b.detach().numpy()
        assert np.linalg.norm(a - b) <= 0.15 * np.linalg.norm(b) + 0.05, (a, b)
