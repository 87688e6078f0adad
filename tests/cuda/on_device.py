"""What has to be the same on the GPU as on the CPU: checked on a GPU, and elsewhere on the stand-in of CuPy."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

import shared
from shared import nn
from shared.arrays.device import is_gpu_array, to_device
from tests.cuda.calls import Call, OnTheHost
from tests.nn.test_modules import build, golden
from tests.ops.cases import Case
from tests.ops.running import numpy_of, run_shared

TOLERANCES = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def operation(case: Case) -> None:
    """A case of tests/ops/cases.py: values and gradients."""
    for place, sizes in enumerate(case.shapes):
        arrays = case.arrays(place, np.float32)
        for found, wanted in zip(run_shared(case, arrays, device="cuda"), run_shared(case, arrays), strict=True):
            for a, b in zip(found, wanted, strict=True):
                assert (a is None) == (b is None), sizes
                if a is not None:
                    assert a.is_cuda or case.name == "allclose", sizes  # which are Python's booleans
                    assert a.dtype == b.dtype and a.shape == b.shape, sizes
                    np.testing.assert_allclose(numpy_of(a), numpy_of(b), 1e-4, 1e-5, equal_nan=True, err_msg=str(sizes))


def module(expression: str, inputs: int) -> None:
    """A layer of tests/nn/cases.py in float64: value and gradients, which are PyTorch's."""
    layer = build(expression).double()
    layer.load_state_dict(golden(expression, "state."))
    layer.to("cuda")
    given = golden(expression, "input.")
    xs = [shared.tensor(given[str(i)]).to("cuda").requires_grad_() for i in range(inputs)]
    out = layer(*xs)
    weights = shared.arange(1.0, out.numel() + 1, dtype=shared.float64).reshape(tuple(out.shape))
    (out * weights.to("cuda")).sum().backward()
    pairs = [("the output", out, golden(expression, "output")[""])]
    pairs += [(f"gradient {i}", x.grad, golden(expression, "input_grad.")[str(i)]) for i, x in enumerate(xs)]
    grads = golden(expression, "grad.")
    pairs += [(name, parameter.grad, grads[name]) for name, parameter in layer.named_parameters()]
    for what, found, wanted in pairs:
        assert found.is_cuda, what
        np.testing.assert_allclose(numpy_of(found), wanted, 1e-7, 1e-10, err_msg=what)


def _copies(value: Any, device: str) -> Any:
    if isinstance(value, list):
        return [_copies(v, "cpu" if isinstance(value, OnTheHost) else device) for v in value]
    return to_device(value.copy(), device) if isinstance(value, np.ndarray) else value


def _flat(value: Any) -> list[Any]:
    return [a for part in value for a in _flat(part)] if isinstance(value, (tuple, list)) else [value]


def _results(call: Call, package: Any, arguments: list[Any]) -> list[np.ndarray]:
    """Everything a function returned or may have changed."""
    found = _flat([getattr(package, call.function)(*arguments, **call.options), arguments])
    arrays = [a for a in found if is_gpu_array(a) or isinstance(a, (np.ndarray, np.generic))]
    return [a.get() if is_gpu_array(a) else np.asarray(a) for a in arrays]


def kernel(call: Call, dtype: str) -> None:
    """A call of a kernel: what its formula gives on the CPU."""
    given = call.arguments(dtype)
    package = importlib.import_module(f"shared.arrays.kernels.{call.family}")
    found = _results(call, package, [_copies(a, "cuda") for a in given])
    # Half of a mantissa would make the formula itself inexact: it is computed in float32.
    exact = [a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype.itemsize == 2 else a for a in given]
    reference = importlib.import_module(f"shared.arrays.kernels.{call.family}.reference")
    formula = reference if hasattr(reference, call.function) else package  # of many parameters there is no formula
    with np.errstate(all="ignore"):
        expected = _results(call, formula, [_copies(a, "cpu") for a in exact])
    assert len(found) == len(expected)
    tolerance = TOLERANCES[dtype] * call.looser
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and (a.dtype == b.dtype or a.dtype.name == dtype)
        if a.dtype.kind in "iub":
            assert np.array_equal(a, b)
        else:
            np.testing.assert_allclose(a.astype(float), b.astype(float), tolerance, tolerance)


def network() -> nn.Module:
    """Most of what the kernels are for, in one little network for images of 8 × 8."""
    shared.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 8),
        nn.LayerNorm(8),
        nn.SiLU(),
        nn.Linear(8, 3),
    )


def training() -> None:
    """Losses of ten steps, clipped, with each of two optimizers: as on the CPU."""
    rng = np.random.default_rng(0)
    images, classes = rng.random((12, 1, 8, 8), dtype=np.float32), np.arange(12) % 3
    for make in (lambda p: shared.optim.AdamW(p, lr=0.02), lambda p: shared.optim.SGD(p, lr=0.1, momentum=0.9)):
        losses: dict[str, list[float]] = {}
        for device in ("cpu", "cuda"):
            model = network().to(device)
            optimizer = make(model.parameters())
            x, y = shared.from_numpy(images).to(device), shared.from_numpy(classes).to(device)
            losses[device] = []
            for _ in range(10):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                losses[device].append(loss.item())
        assert losses["cpu"][-1] < losses["cpu"][0]
        np.testing.assert_allclose(losses["cuda"], losses["cpu"], 2e-3)
