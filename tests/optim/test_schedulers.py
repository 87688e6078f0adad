"""Schedules: order of calls, resuming, errors. Their numbers are compared with PyTorch in test_parity.py."""

import io
import warnings

import pytest

import shared
from shared.optim import SGD
from shared.optim.lr_scheduler import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    StepLR,
)


def optimizer_with(lr=1.0):
    return SGD([shared.zeros(1, requires_grad=True)], lr=lr)


def test_scheduler_before_optimizer_warns_once():
    optimizer = optimizer_with()
    scheduler = StepLR(optimizer, 2)
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        scheduler.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()


def test_the_right_order_does_not_warn():
    optimizer = optimizer_with()
    scheduler = StepLR(optimizer, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            optimizer.step()
            scheduler.step()


def test_get_lr_outside_step_points_to_get_last_lr():
    scheduler = ExponentialLR(optimizer_with(), 0.5)
    with pytest.warns(UserWarning, match="get_last_lr"):
        scheduler.get_lr()


def test_two_schedules_of_one_optimizer_multiply():
    optimizer = optimizer_with()
    warmup, decay = LinearLR(optimizer, start_factor=0.5, total_iters=2), ExponentialLR(optimizer, 0.1)
    found = []
    for _ in range(3):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warmup.step()
        decay.step()
    assert found == pytest.approx([0.5, 0.075, 0.01])


def test_a_tensor_rate_is_changed_in_place():
    rate = shared.tensor(1.0)
    optimizer = optimizer_with(rate)
    scheduler = ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.5
    assert scheduler.get_last_lr() == [0.5]


class Decay:
    """A schedule function with state of its own."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, epoch):
        return self.rate**epoch


def test_the_state_of_a_callable_object_is_saved_and_that_of_a_function_is_not():
    optimizer = SGD([{"params": [shared.zeros(1)]}, {"params": [shared.zeros(1)]}], lr=1.0)
    saved = LambdaLR(optimizer, [Decay(0.5), lambda epoch: 1.0]).state_dict()
    assert saved["lr_lambdas"] == [{"rate": 0.5}, None]
    other = LambdaLR(optimizer, [Decay(0.9), lambda epoch: 1.0])
    other.load_state_dict(saved)
    assert other.lr_lambdas[0].rate == 0.5
    assert saved["lr_lambdas"] == [{"rate": 0.5}, None], "loading must not change what is loaded"


@pytest.mark.parametrize(
    "make",
    [
        lambda o: StepLR(o, 2),
        lambda o: MultiStepLR(o, [1, 1, 3]),
        lambda o: LinearLR(o),
        lambda o: ConstantLR(o),
        lambda o: LambdaLR(o, lambda e: 1.0),
    ],
)
def test_state_goes_through_a_checkpoint(make):
    optimizer = optimizer_with()
    scheduler = make(optimizer)
    optimizer.step()
    scheduler.step()
    file = io.BytesIO()
    shared.checkpoint.save(scheduler.state_dict(), file)
    assert shared.checkpoint.load(file) == scheduler.state_dict()


ERRORS = [
    (lambda o: StepLR("optimizer", 2), TypeError, "str is not an Optimizer"),
    (lambda o: StepLR(o, 2, last_epoch=3), KeyError, r"'initial_lr' is not specified in param_groups\[0\]"),
    (lambda o: LambdaLR(o, [abs, abs]), ValueError, "Expected 1 lr_lambdas, but got 2"),
    (lambda o: ConstantLR(o, factor=2.0), ValueError, "Constant multiplicative factor"),
    (lambda o: LinearLR(o, start_factor=0.0), ValueError, "Starting multiplicative factor"),
    (lambda o: LinearLR(o, end_factor=1.5), ValueError, "Ending multiplicative factor"),
    (lambda o: LRScheduler(o), NotImplementedError, "LRScheduler does not define get_lr"),
]


@pytest.mark.parametrize(("make", "error", "message"), ERRORS, ids=[e[2][:30] for e in ERRORS])
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make(optimizer_with())
