"""Trajectories, state dicts and learning rates are PyTorch's: from golden.json, and live where torch is installed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import shared
from shared.arrays import kernels as array_kernels
from shared.testing import assert_close
from tests.optim.cases import CASES, IDS, STEPS, gradient, start
from tests.optim.schedules import SCHEDULES, STARTING_RATES

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="compares with PyTorch, which is not installed")


def step_with(params, optimizer, step, tensor):
    for i, p in enumerate(params):
        p.grad = tensor(gradient(p.detach().numpy(), i, step))
    optimizer.step()


@pytest.mark.parametrize("kernels", ["as dispatched", "formulas"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_parameters_after_twelve_steps_are_pytorchs(name, options, kernels, monkeypatch):
    if kernels == "formulas":
        monkeypatch.setattr(array_kernels, "_compiled", lambda family: None)
    params = [shared.tensor(a, requires_grad=True) for a in start(np.float64)]
    optimizer = getattr(shared.optim, name)(params, **options)
    for step in range(STEPS):
        step_with(params, optimizer, step, shared.tensor)
    found = np.concatenate([p.numpy(force=True).reshape(-1) for p in params])
    expected = np.array(GOLDEN["parameters"][IDS[CASES.index((name, options))]])
    moved = np.abs(found - np.concatenate([a.reshape(-1) for a in start(np.float64)]))
    assert moved.max() > 1e-3, "the optimizer changed nothing"
    assert_close(found, expected, rtol=1e-9, atol=1e-11)


@needs_torch
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_every_step_and_the_state_are_pytorchs(name, options, dtype):
    import torch

    ours = [shared.tensor(a, requires_grad=True) for a in start(dtype)]
    theirs = [torch.tensor(a, requires_grad=True) for a in start(dtype)]
    optimizer = getattr(shared.optim, name)(ours, **options)
    reference = getattr(torch.optim, name)(theirs, **options)
    tolerance = {"rtol": 2e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-12}
    for step in range(STEPS):
        step_with(ours, optimizer, step, shared.tensor)
        step_with(theirs, reference, step, torch.tensor)
        assert_close(ours, theirs, **tolerance, msg=f"parameters after step {step + 1}")
    found, expected = optimizer.state_dict(), reference.state_dict()
    assert found["param_groups"] == expected["param_groups"]
    state = {n: {k: v for k, v in s.items() if v is not None} for n, s in expected["state"].items()}
    assert_close(found["state"], {n: s for n, s in state.items() if s}, **tolerance, msg="state")


def to_shared(value):
    """A state dict of PyTorch's with our Tensors."""
    if isinstance(value, dict):
        return {k: to_shared(v) for k, v in value.items()}
    return shared.tensor(value.numpy()) if hasattr(value, "numpy") else value


def to_torch(value):
    import torch

    if isinstance(value, dict):
        return {k: to_torch(v) for k, v in value.items()}
    return torch.tensor(value.numpy()) if isinstance(value, shared.Tensor) else value


@needs_torch
@pytest.mark.parametrize("direction", ["from torch", "to torch"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_run_continues_in_the_other_library(name, options, direction):
    import torch

    ours = [shared.tensor(a, requires_grad=True) for a in start(np.float64)]
    theirs = [torch.tensor(a, requires_grad=True) for a in start(np.float64)]
    optimizer = getattr(shared.optim, name)(ours, **options)
    reference = getattr(torch.optim, name)(theirs, **options)
    for step in range(3):
        step_with(ours, optimizer, step, shared.tensor)
        step_with(theirs, reference, step, torch.tensor)
    if direction == "from torch":
        params = [shared.tensor(p.detach().numpy(), requires_grad=True) for p in theirs]
        other = getattr(shared.optim, name)(params)
        other.load_state_dict(to_shared(reference.state_dict()))
        tensor = shared.tensor
    else:
        params = [torch.tensor(p.numpy(force=True), requires_grad=True) for p in ours]
        other = getattr(torch.optim, name)(params)
        other.load_state_dict(to_torch(optimizer.state_dict()))
        tensor = torch.tensor
    for step in range(3, STEPS):
        step_with(params, other, step, tensor)
        step_with(ours, optimizer, step, shared.tensor)
    assert_close(params, ours, rtol=1e-10, atol=1e-12, check_dtype=False)


def make_groups():
    params = [shared.zeros(1, requires_grad=True) for _ in STARTING_RATES]
    return shared.optim.SGD([{"params": [p], "lr": lr} for p, lr in zip(params, STARTING_RATES, strict=True)])


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rates_are_pytorchs(name):
    optimizer = make_groups()
    scheduler, found = SCHEDULES[name](shared.optim.lr_scheduler, optimizer), []
    for _ in range(STEPS):
        assert [group["lr"] for group in optimizer.param_groups] == scheduler.get_last_lr()
        found.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(found, GOLDEN["rates"][name], rtol=1e-14)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_loaded_schedule_goes_on_as_if_never_interrupted(name):
    optimizer = make_groups()
    scheduler = SCHEDULES[name](shared.optim.lr_scheduler, optimizer)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    resumed = make_groups()
    again = SCHEDULES[name](shared.optim.lr_scheduler, resumed)
    again.load_state_dict(scheduler.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    for epoch in range(4, STEPS):
        rates = [group["lr"] for group in resumed.param_groups]
        np.testing.assert_allclose(rates, GOLDEN["rates"][name][epoch], rtol=1e-14)
        resumed.step()
        again.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_started_at_last_epoch_is_pytorchs(name):
    params = [shared.zeros(1, requires_grad=True) for _ in STARTING_RATES]
    optimizer = shared.optim.SGD(
        [{"params": [p], "lr": lr / 2, "initial_lr": lr} for p, lr in zip(params, STARTING_RATES, strict=True)]
    )
    scheduler, found = SCHEDULES[name](shared.optim.lr_scheduler, optimizer, last_epoch=4), []
    for _ in range(STEPS):
        found.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(found, GOLDEN["rates from epoch 4"][name], rtol=1e-14)
