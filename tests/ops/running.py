"""Runs a case of the table in `shared` or in PyTorch: outputs and the gradients of its inputs as NumPy arrays."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

import shared
from tests.ops.cases import Case


class Methods:
    """A namespace whose functions call the Tensor's method of that name: `Methods(shared).exp(x)` is `x.exp()`."""

    def __init__(self, module: Any):
        self.module = module

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self.module.Tensor, name) or not callable(getattr(self.module.Tensor, name)):
            return getattr(self.module, name)

        def call(first: Any, *args: Any, **options: Any) -> Any:
            if not isinstance(first, self.module.Tensor) or name == "where":
                return getattr(self.module, name)(first, *args, **options)
            return getattr(first, name)(*args, **options)

        return call


def outputs_of(result: Any) -> list[Any]:
    """One tensor, or several, nested or not, as a list."""
    return [y for part in result for y in outputs_of(part)] if isinstance(result, (tuple, list)) else [result]


def seeds_for(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """A random gradient for each output, the same on every machine."""
    rng = np.random.RandomState(zlib.crc32(str(shapes).encode()))
    return [np.asarray(rng.standard_normal(s)) for s in shapes]


def run(t: Any, call: Callable, tensors: list[Any], from_numpy: Callable) -> tuple[list, list]:
    """(outputs, gradients) of `call(t, *tensors)`, every output that can be differentiated weighted at random."""
    outputs = outputs_of(call(t, *tensors))
    seeds = seeds_for([tuple(y.shape) for y in outputs])
    total = 0
    for y, seed in zip(outputs, seeds, strict=True):
        if y.requires_grad:
            total = total + (y * from_numpy(seed).to(y.device, y.dtype)).sum()
    if not isinstance(total, int):
        total.backward()
    return outputs, [x.grad for x in tensors]


def run_shared(
    case: Case, arrays: list[np.ndarray], t: Any = shared, device: str = "cpu", grad: bool = True
) -> tuple[list, list]:
    tensors = []
    for array, floating in zip(arrays, case.differentiable(), strict=True):
        x = shared.from_numpy(array).to(device).detach()
        tensors.append(x.requires_grad_() if grad and floating and x.is_floating_point() else x)
    return run(t, case.call, tensors, shared.from_numpy)


def run_torch(case: Case, arrays: list[np.ndarray], grad: bool = True) -> tuple[list, list]:
    import torch

    tensors = []
    for array, floating in zip(arrays, case.differentiable(), strict=True):
        x = torch_tensor(array)
        tensors.append(x.requires_grad_() if grad and floating and x.is_floating_point() else x)
    return run(torch, case.call, tensors, torch.from_numpy)


def torch_tensor(array: np.ndarray) -> Any:
    """A PyTorch tensor with the array's numbers, dtype and strides."""
    import torch

    if array.dtype == shared.bfloat16:
        return torch.from_numpy(np.array(array, np.float32)).bfloat16()
    return torch.from_numpy(array)


def numpy_of(x: Any) -> np.ndarray:
    """Numbers of a tensor of either framework, in a dtype NumPy knows."""
    x = x.detach().cpu()
    name = str(x.dtype).removeprefix("torch.")
    return np.asarray((x.float() if name == "bfloat16" else x).numpy())


TOLERANCES = {"float64": (1e-9, 1e-11), "float32": (2e-5, 2e-6), "float16": (5e-3, 5e-3), "bfloat16": (4e-2, 4e-2)}


def same(actual: Any, expected: Any, what: str) -> None:
    """Both None, or equal dtype and shape and close numbers."""
    if expected is None or actual is None:
        assert actual is None and expected is None, f"{what}: {actual} where {expected} was expected"
        return
    names = [str(x.dtype).removeprefix("torch.") for x in (actual, expected)]
    assert names[0] == names[1], f"{what}: dtype {names[0]}, expected {names[1]}"
    assert tuple(actual.shape) == tuple(expected.shape), (
        f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    )
    rtol, atol = TOLERANCES.get(names[0], (0, 0))
    np.testing.assert_allclose(numpy_of(actual), numpy_of(expected), rtol, atol, equal_nan=True, err_msg=what)
