"""GradScaler: the scale over many iterations, compared with PyTorch's; what is refused; a GPT on a GPU."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import shared
from shared import nn
from shared.amp import GradScaler
from shared.amp import unscale as unscale_all
from shared.models import GPT, GPTConfig, next_token_loss
from tests.cuda.emulator import COMPILER
from tests.cuda.stand_in import in_place_of_cupy

try:
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="needs PyTorch to compare with")
OPTIONS = {"init_scale": 8.0, "growth_factor": 2.0, "backoff_factor": 0.25, "growth_interval": 3}
# What the loss of each iteration is multiplied with: inf and NaN reach the gradients.
FACTORS = [1, 1, 1, 1, "inf", 2, 1, "nan", "-inf", 1, 1, 1, 0.5, 1, 1, 1]


def trajectory(t, scaler, factors=FACTORS, clip=None):
    """(scale, parameters) after each iteration."""
    w, b = (t.tensor(x, requires_grad=True) for x in ([1.0, -2.0], [0.5]))
    optimizer, found = t.optim.SGD([w, b], lr=0.1, momentum=0.9), []
    for factor in factors:
        optimizer.zero_grad()
        loss = (w * w).sum() + b.sum() * float(factor)
        scaler.scale(loss).backward()
        if clip is not None:
            scaler.unscale_(optimizer)
            t.nn.utils.clip_grad_norm_([w, b], clip)
        scaler.step(optimizer)
        scaler.update()
        found.append((scaler.get_scale(), w.tolist() + b.tolist()))
    return found


def test_the_scale_shrinks_at_once_and_grows_slowly():
    scales = [scale for scale, _ in trajectory(shared, GradScaler("cpu", **OPTIONS))]
    assert scales == [8, 8, 16, 16, 4, 4, 4, 1, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 1, 1]


def test_a_step_with_an_infinite_gradient_is_skipped():
    parameters = [p for _, p in trajectory(shared, GradScaler("cpu", **OPTIONS))]
    skipped = [i for i in range(1, len(FACTORS)) if parameters[i] == parameters[i - 1]]
    assert skipped == [4, 7, 8]


def test_the_scale_changes_no_step():
    plain = trajectory(shared, GradScaler("cpu", enabled=False), [1, 2, 0.5, 1])
    scaled = trajectory(shared, GradScaler("cpu", init_scale=2.0**10), [1, 2, 0.5, 1])
    assert [p for _, p in plain] == [p for _, p in scaled] and plain[0][0] == 1.0


@needs_torch
@pytest.mark.parametrize("clip", [None, 0.3])
def test_scale_and_parameters_are_pytorchs(clip):
    ours = trajectory(shared, GradScaler("cpu", **OPTIONS), clip=clip)
    theirs = trajectory(torch, torch.amp.GradScaler("cpu", **OPTIONS), clip=clip)
    assert [scale for scale, _ in ours] == [scale for scale, _ in theirs]
    np.testing.assert_allclose([p for _, p in ours], [p for _, p in theirs], 1e-5, 1e-6)


@needs_torch
@pytest.mark.parametrize("init", [1e-45, 3e38, 1.7e-38, 0.1])
def test_the_ends_of_the_range_are_pytorchs(init):
    options = {**OPTIONS, "growth_interval": 1, "init_scale": init, "backoff_factor": 0.3, "growth_factor": 1.7}
    factors = [0, "inf", 0, 0, 0, "nan", "nan", "nan", 0]
    ours, theirs = (trajectory(t, s("cpu", **options), factors) for t, s in BOTH)
    assert [np.float32(scale) for scale, _ in ours] == [np.float32(scale) for scale, _ in theirs]


BOTH = [(shared, GradScaler)] + ([] if torch is None else [(torch, torch.amp.GradScaler)])
both = pytest.mark.parametrize(("t", "scaler"), BOTH, ids=["shared", "torch"][: len(BOTH)])


@both
def test_the_state_goes_on_elsewhere(t, scaler):
    first, second = scaler("cpu", **OPTIONS), scaler("cpu")
    trajectory(t, first, FACTORS[:2])
    state = json.loads(json.dumps(first.state_dict()))
    assert state == {
        "scale": 8.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.25,
        "growth_interval": 3,
        "_growth_tracker": 2,
    }
    second.load_state_dict(state)
    assert trajectory(t, first, FACTORS[2:]) == trajectory(t, second, FACTORS[2:])
    assert second.state_dict() == first.state_dict()


@both
def test_a_disabled_one_passes_through(t, scaler):
    off = scaler("cpu", enabled=False)
    loss = t.tensor([2.0], requires_grad=True)
    optimizer = t.optim.SGD([loss], lr=1.0)
    assert off.scale(loss) is loss and off.state_dict() == {} and off.get_scale() == 1.0 and not off.is_enabled()
    loss.grad = t.tensor([float("inf")])
    off.unscale_(optimizer), off.step(optimizer), off.update(), off.load_state_dict({})
    assert loss.tolist() == [-float("inf")]


@both
def test_wrong_orders_are_refused(t, scaler):
    w = t.tensor([1.0], requires_grad=True)
    optimizer, s = t.optim.SGD([w], lr=0.1), scaler("cpu")
    for call in (lambda: s.step(optimizer), lambda: s.unscale_(optimizer), s.update):
        with pytest.raises(AssertionError, match="but _scale is None.  This may indicate your script did not use"):
            call()
    s.scale(w.sum()).backward()
    with pytest.raises(AssertionError, match="No inf checks were recorded prior to update"):
        s.update()
    s.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called on this optimizer since the last update"):
        s.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
        s.step(optimizer, closure=lambda: None)
    s.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) has already been called since the last update"):
        s.step(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) is being called after step\(\)"):
        s.unscale_(optimizer)
    s.update()
    w.grad = None
    with pytest.raises(AssertionError, match="No inf checks were recorded for this optimizer"):
        s.step(optimizer)
    with pytest.raises(RuntimeError, match="source state dict is empty"):
        s.load_state_dict({})
    with pytest.raises(AssertionError, match="growth factor must be > 1.0"):
        scaler("cpu", growth_factor=1.0)
    with pytest.raises(AssertionError, match="backoff factor must be < 1.0"):
        scaler("cpu", backoff_factor=1.0)


@both
def test_float16_gradients_are_refused(t, scaler):
    w, s = t.tensor([1.0], dtype=t.float16, requires_grad=True), scaler("cpu", init_scale=2.0)
    s.scale(w.sum()).backward()
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
        s.step(t.optim.SGD([w], lr=0.1))


@both
def test_a_new_scale_and_its_options(t, scaler):
    s = scaler("cpu", init_scale=4.0)
    assert s.get_scale() == 4.0
    assert s.scale([t.ones(1), (t.ones(2),)])[1][0].tolist() == [4.0, 4.0]
    s.update(16.0)
    assert s.get_scale() == 16.0 and s.scale(t.ones(1)).tolist() == [16.0]
    s.set_growth_factor(3.0), s.set_backoff_factor(0.1), s.set_growth_interval(7)
    assert (s.get_growth_factor(), s.get_backoff_factor(), s.get_growth_interval()) == (3.0, 0.1, 7)


@both
def test_a_float16_loss_is_scaled_in_float32(t, scaler):
    loss = scaler("cpu").scale(t.tensor(3.0, dtype=t.float16))
    assert loss.dtype == t.float32 and loss.item() == 3 * 2**16


@both
def test_two_optimizers_share_a_scale(t, scaler):
    v, w = (t.tensor([1.0], requires_grad=True) for _ in range(2))
    first, second, s = t.optim.SGD([v], lr=1.0), t.optim.SGD([w], lr=1.0), scaler("cpu", init_scale=2.0)
    s.scale(v.sum() + (w * float("inf")).sum()).backward()
    s.step(first), s.step(second), s.update()
    assert v.tolist() == [0.0] and w.tolist() == [1.0] and s.get_scale() == 1.0


def test_unknown_devices_are_refused_and_a_missing_gpu_is_said():
    with pytest.raises(RuntimeError, match="unsupported device 'tpu'; expected one of cuda, cpu"):
        GradScaler("tpu")
    if not shared.cuda.is_available():
        with pytest.warns(UserWarning, match="GradScaler is enabled, but CUDA is not available. Disabling."):
            assert not GradScaler().is_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradScaler(enabled=False)


def test_a_key_that_is_missing_is_named():
    with pytest.raises(KeyError, match="_growth_tracker missing"):
        GradScaler("cpu").load_state_dict({"scale": 1, "growth_factor": 2, "backoff_factor": 0.5, "growth_interval": 2})


@pytest.mark.parametrize("value", [3e38, -3e38, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_large_gradients_are_finite_and_only_the_others_are_not(dtype, value):
    value = value * 1e270 if dtype == "float64" else value
    grads = [shared.zeros(70, 3), shared.full((5,), 1.0, dtype=getattr(shared, dtype)), shared.ones(())]
    grads[1][2] = value
    assert bool(unscale_all(grads, 0.5)) == np.isfinite(value)
    assert grads[2].item() == 0.5 and grads[1].dtype == getattr(shared, dtype) and grads[1]._version[0] == 2


@both
@pytest.mark.parametrize(("enabled", "wanted"), [(False, 0.0), (True, 1e-9)])
def test_small_gradients_survive_float16(t, scaler, enabled, wanted):
    """The smallest number above 0 of float16 is 6e-8."""
    w, x = t.ones(2, 2, requires_grad=True), t.ones(1, 2)
    optimizer, s = t.optim.SGD([w], lr=1.0), scaler("cpu", enabled=enabled)
    with t.autocast("cpu", dtype=t.float16):
        loss = (x @ w).float().sum() * 1e-9
    s.scale(loss).backward()
    s.unscale_(optimizer)
    np.testing.assert_allclose(w.grad.numpy(), np.full((2, 2), wanted), 1e-2)


# ---------------------------------------------------------------- a GPT


def losses(device, dtype, scaled, steps=6, **sizes):
    """Of a small GPT that learns to repeat what it sees."""
    shared.manual_seed(0)
    sizes = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.0} | sizes
    model = GPT(GPTConfig(**sizes)).to(device)
    optimizer, found = model.configure_optimizers(lr=1e-2), []
    ids = shared.tensor(np.random.RandomState(0).randint(0, sizes["vocab_size"], (4, sizes["block_size"]))).to(device)
    scaler = GradScaler(device, init_scale=2.0**17, enabled=scaled)
    for _ in range(steps):
        optimizer.zero_grad()
        with shared.autocast(device, dtype=getattr(shared, dtype or "bfloat16"), enabled=dtype is not None):
            logits = model(ids)
            loss = next_token_loss(logits, ids)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        found.append(loss.item())
        assert logits.dtype == getattr(shared, dtype or "float32") and loss.dtype == shared.float32
    assert all(p.dtype == p.grad.dtype == shared.float32 for p in model.parameters())
    return found


def like_float32(device, **options):
    exact = losses(device, None, False, **options)
    assert exact[-1] < exact[0] - 0.2
    np.testing.assert_allclose(losses(device, "bfloat16", False, **options), exact, 2e-2)
    np.testing.assert_allclose(losses(device, "float16", True, **options), exact, 5e-3)


def test_a_gpt_learns_in_short_dtypes_on_the_cpu():
    like_float32("cpu")


@pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux, which stands in for CUDA's compiler")
def test_a_gpt_learns_in_short_dtypes_on_the_stand_in():
    with np.errstate(all="ignore"), in_place_of_cupy() as launches:
        found = losses("cuda", "bfloat16", True, steps=2)
        assert {"forward_64", "queries_64", "keys_64", "squares", "scale", "adam"} <= set(launches), "formulas ran"
    np.testing.assert_allclose(found, losses("cpu", "bfloat16", False, steps=2), 2e-2)


@pytest.mark.gpu
def test_a_gpt_learns_in_short_dtypes_on_a_gpu():
    like_float32("cuda", block_size=64, n_embd=128, steps=30)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_on_a_gpu_are_those_of_the_cpu(dtype):
    shared.manual_seed(0)
    x, w = shared.randn(33, 64), shared.randn(64, 65)
    with shared.autocast("cpu", dtype=getattr(shared, dtype)), shared.autocast("cuda", dtype=getattr(shared, dtype)):
        found, wanted = x.cuda() @ w.cuda(), x @ w
    assert found.dtype == wanted.dtype == getattr(shared, dtype)
    tolerance = {"bfloat16": 2e-2, "float16": 2e-3}[dtype]
    np.testing.assert_allclose(found.cpu().float().numpy(), wanted.float().numpy(), tolerance, 8 * tolerance)
