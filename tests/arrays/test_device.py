"""Devices: their names, and where arrays are."""

import sys
import types

import numpy as np
import pytest

import shared
from shared.arrays import device as devices
from shared.arrays.device import CPU, Device


@pytest.mark.parametrize(
    "text, kind, index, printed",
    [
        ("cpu", "cpu", None, "device(type='cpu')"),
        ("cuda", "cuda", None, "device(type='cuda')"),
        ("cuda:1", "cuda", 1, "device(type='cuda', index=1)"),
        ("cpu:0", "cpu", 0, "device(type='cpu', index=0)"),
    ],
)
def test_names(text, kind, index, printed):
    device = Device(text)
    assert (device.type, device.index, repr(device), str(device)) == (kind, index, printed, text)
    assert Device(device) == device and hash(Device(device)) == hash(device)


def test_equality():
    assert Device("cuda") == Device("cuda:0") == "cuda" and Device("cuda:1") != Device("cuda") != CPU
    assert len({Device("cuda"), Device("cuda:0"), Device("cpu")}) == 2
    assert Device("cuda", 1).index == 1 and (Device("cpu") == 3) is False


@pytest.mark.parametrize("wrong", ["gpu", "cuda:x", "cuda:-1", "", "cpu1"])
def test_a_wrong_name_is_explained(wrong):
    with pytest.raises(RuntimeError, match="Expected a device like 'cpu', 'cuda' or 'cuda:0', but got"):
        Device(wrong)


def test_arrays_on_the_cpu():
    a = np.ones(2)
    assert devices.xp(a) is np and devices.device_of(a) == CPU and devices.to_device(a, "cpu") is a
    assert devices.module_for(None) is np and devices.module_for("cpu") is np and not devices.is_gpu_array(a)
    devices.synchronize()
    devices.check_same_device("add", [a, a, 3])


class FakeArray:
    """As much of a cupy.ndarray as devices.py looks at."""

    dtype, shape, ndim, strides = np.dtype("float32"), (2,), 1, (4,)
    __module__ = "cupy"

    def __init__(self):
        self.device = types.SimpleNamespace(id=0)

    def get(self):
        return np.ones(2, "float32")


@pytest.fixture
def fake_cupy(monkeypatch):
    """A module in CuPy's place: what devices.py does with one can be tested without a GPU."""
    cupy = types.ModuleType("cupy")
    cupy.ndarray = FakeArray
    cupy.asarray = lambda x: FakeArray()
    waited = []
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)

    class Chosen:
        def __init__(self, index):
            waited.append(("device", index))

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            pass

    stream = types.SimpleNamespace(synchronize=lambda: waited.append("synchronized"))
    cupy.cuda = types.SimpleNamespace(runtime=runtime, Device=Chosen, get_current_stream=lambda: stream)
    cupy.waited = waited
    cupy.__spec__ = types.SimpleNamespace(name="cupy")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(devices, "_cupy", None)
    return cupy


def test_arrays_on_a_gpu_are_recognised(fake_cupy):
    a = FakeArray()
    assert devices.is_gpu_array(a) and devices.xp(a) is fake_cupy and devices.device_of(a) == "cuda:0"
    assert devices.module_for("cuda") is fake_cupy and devices.cuda_is_available()
    assert (devices.to_device(a, "cpu") == 1).all()
    assert isinstance(devices.to_device(np.ones(2), "cuda:1"), FakeArray) and ("device", 1) in fake_cupy.waited
    devices.synchronize()
    assert fake_cupy.waited[-1] == "synchronized"


def test_mixed_devices_are_an_error_that_says_so(fake_cupy):
    x = shared.ones(2)
    y = shared.Tensor(FakeArray())
    with pytest.raises(RuntimeError, match="Mul: expected all tensors on the same device, but found cpu and cuda:0"):
        x * y


def test_a_driver_that_fails_is_no_gpu(fake_cupy):
    def fail():
        raise OSError("no driver")

    fake_cupy.cuda.runtime.getDeviceCount = fail
    assert not devices.cuda_is_available()
