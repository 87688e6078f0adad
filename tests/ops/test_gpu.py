"""The table on the GPU: the same values and gradients as on the CPU, and clear errors where devices mix or miss."""

import importlib.util

import numpy as np
import pytest

import shared
from shared.arrays.device import cuda_is_available
from tests.cuda import on_device
from tests.ops.cases import CASES

ON_GPU = pytest.mark.gpu


@ON_GPU
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_values_and_gradients_are_those_of_the_cpu(case):
    on_device.operation(case)


@ON_GPU
def test_tensors_move_and_gradients_travel_back():
    x = shared.ones(3, requires_grad=True)
    y = x.cuda() * 2
    assert y.device == "cuda" and y.is_cuda and "device='cuda" in repr(y)
    y.cpu().sum().backward()
    assert x.grad.device == "cpu" and x.grad.tolist() == [2.0, 2.0, 2.0]
    assert shared.ones(2, device="cuda").to("cuda") is not None and shared.zeros_like(y).is_cuda


@ON_GPU
def test_mixed_devices_are_refused():
    with pytest.raises(RuntimeError, match="same device.*cpu.*cuda"):
        shared.ones(2) + shared.ones(2, device="cuda")
    with pytest.raises(TypeError, match="cuda"):
        shared.ones(2, device="cuda").numpy()


@ON_GPU
def test_seeds_fix_what_the_gpu_draws():
    shared.manual_seed(3)
    a = shared.randn(5, device="cuda").tolist()
    state = shared.Generator("cuda").manual_seed(1).get_state()
    shared.manual_seed(3)
    assert shared.randn(5, device="cuda").tolist() == a and state.dtype == np.uint8


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
@pytest.mark.parametrize(
    "call",
    [
        lambda: shared.ones(2).to("cuda"),
        lambda: shared.ones(2).cuda(),
        lambda: shared.ones(2).cuda(1),
        lambda: shared.ones(2, device="cuda:0"),
        lambda: shared.randn(2, device="cuda"),
    ],
)
def test_without_cupy_the_gpu_is_refused_with_the_remedy(call):
    assert not cuda_is_available()
    with pytest.raises(RuntimeError, match="CuPy is not installed. Install the extra .*course setup --extra gpu"):
        call()
