"""Schedules over a whole training are PyTorch's to the last bit, with warnings, errors and states; golden values too."""

import importlib.util
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import shared
from shared.optim import lr_scheduler
from tests.optim.cases import STEPS
from tests.optim.schedules import LONG, PLATEAUS, SCHEDULES, STARTING_RATES, measurements

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="compares with PyTorch, which is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:Detected call")  # both libraries warn where schedules are nested
LENGTH = 300
EVERY = {
    **{name: (lambda m, o, n, make=make: make(m, o)) for name, make in SCHEDULES.items()},
    **LONG,
    "OneCycleLR of Adam": LONG["OneCycleLR per group"],
}


def two_groups(library, name="SGD"):
    params = [library.zeros(1, requires_grad=True) for _ in STARTING_RATES]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(params, STARTING_RATES, strict=True)]
    return getattr(library.optim, name)(groups)


def optimizer_for(library, name):
    return two_groups(library, "Adam" if name.endswith("Adam") else "SGD")


def options(optimizer):
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def pair(make, name, length=LENGTH):
    """The same schedule here and in PyTorch: [(optimizer, scheduler), (optimizer, scheduler)]."""
    import torch

    found = []
    for library in (shared, torch):
        optimizer = optimizer_for(library, name)
        found.append((optimizer, make(library.optim.lr_scheduler, optimizer, length)))
    return found


def advance(sides, steps):
    for optimizer, scheduler in sides:
        for _ in range(steps):
            optimizer.step()
            scheduler.step()


# ---------------------------------------------------------------- without PyTorch


@pytest.mark.parametrize("name", LONG)
def test_rates_of_a_training_are_pytorchs(name):
    optimizer = two_groups(shared)
    scheduler, found = LONG[name](lr_scheduler, optimizer, STEPS), []
    for _ in range(STEPS):
        found.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(found, GOLDEN["rates of a training"][name], rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("name", PLATEAUS)
def test_rates_on_a_plateau_are_pytorchs(name):
    scheduler, found = lr_scheduler.ReduceLROnPlateau(two_groups(shared), **PLATEAUS[name]), []
    for value in measurements(STEPS * 2):
        scheduler.step(value)
        found.append(scheduler.get_last_lr())
    np.testing.assert_allclose(found, GOLDEN["rates on a plateau"][name], rtol=1e-14)


@pytest.mark.parametrize("name", EVERY)
def test_a_training_loaded_midway_goes_on_as_if_never_interrupted(name):
    unbroken, resumed = ((o := optimizer_for(shared, name), EVERY[name](lr_scheduler, o, 40)) for _ in range(2))
    advance([unbroken], 17)
    states = [x.state_dict() for x in unbroken]
    before = json.dumps(states, default=repr)
    resumed[0].load_state_dict(states[0])
    resumed[1].load_state_dict(states[1])
    assert json.dumps(states, default=repr) == before, "loading must not change what is loaded"
    for _ in range(23):
        advance([unbroken], 1)
        advance([resumed], 1)
        assert options(resumed[0]) == options(unbroken[0])
        assert resumed[1].get_last_lr() == unbroken[1].get_last_lr()


@pytest.mark.parametrize("name", [*EVERY, "ReduceLROnPlateau"])
def test_the_state_goes_through_a_checkpoint(name):
    optimizer = optimizer_for(shared, name)
    scheduler = EVERY[name](lr_scheduler, optimizer, 12) if name in EVERY else lr_scheduler.ReduceLROnPlateau(optimizer)
    if name in EVERY:
        advance([(optimizer, scheduler)], 3)
    file = io.BytesIO()
    shared.checkpoint.save([optimizer.state_dict(), scheduler.state_dict()], file)
    assert shared.checkpoint.load(file) == [optimizer.state_dict(), scheduler.state_dict()]


# ---------------------------------------------------------------- beside PyTorch


@needs_torch
@pytest.mark.parametrize("name", EVERY)
def test_every_step_and_state_is_pytorchs(name):
    (ours, scheduler), (theirs, reference) = sides = pair(EVERY[name], name)
    for step in range(LENGTH):
        assert options(ours) == options(theirs), f"parameter groups after {step} steps"
        assert scheduler.get_last_lr() == reference.get_last_lr(), f"rates after {step} steps"
        if step in (0, 1, 7, LENGTH - 1):
            assert scheduler.state_dict() == reference.state_dict(), f"state after {step} steps"
        advance(sides, 1)


@needs_torch
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("direction", ["from torch", "to torch"])
def test_a_schedule_continues_in_the_other_library(name, direction):
    here, there = pair(EVERY[name], name)
    source, target = (there, here) if direction == "from torch" else (here, there)
    advance([source], 111)
    for old, new in zip(source, target, strict=True):
        new.load_state_dict(old.state_dict())
    for _ in range(111, LENGTH):
        advance([here, there], 1)
        assert options(here[0]) == options(there[0])


@needs_torch
@pytest.mark.filterwarnings("ignore:.*epoch parameter")
@pytest.mark.parametrize("name", [n for n in SCHEDULES if "OneCycle" not in n])
def test_jumps_to_an_epoch_are_pytorchs(name):
    here, there = pair(EVERY[name], name)
    advance([here, there], 1)
    for epoch in (3, None, 7, 7, None, None, 2, 0, 250, None):
        for optimizer, scheduler in (here, there):
            optimizer.step()
            scheduler.step(epoch)
        assert here[1].get_last_lr() == there[1].get_last_lr(), f"after step({epoch})"
        assert here[1].state_dict() == there[1].state_dict(), f"after step({epoch})"


@needs_torch
@pytest.mark.parametrize("options", [{"T_0": 3}, {"T_0": 2, "T_mult": 2}, {"T_0": 5, "T_mult": 3, "eta_min": 0.01}])
def test_restarts_within_an_epoch_are_pytorchs(options):
    here, there = pair(lambda m, o, n: m.CosineAnnealingWarmRestarts(o, **options), "")
    for batch in range(200):
        for _, scheduler in (here, there):
            scheduler.step(batch / 7)
        assert here[1].get_last_lr() == there[1].get_last_lr()
        assert here[1].state_dict() == there[1].state_dict()


@needs_torch
@pytest.mark.parametrize("name", PLATEAUS)
def test_every_plateau_and_its_state_is_pytorchs(name):
    here, there = pair(lambda m, o, n: m.ReduceLROnPlateau(o, **PLATEAUS[name]), "")
    values = measurements(LENGTH)
    for step, value in enumerate(values):
        if step == 111:  # a new object takes over from the state
            again = lr_scheduler.ReduceLROnPlateau(here[0], **PLATEAUS[name])
            again.load_state_dict(there[1].state_dict())
            here = here[0], again
        for _, scheduler in (here, there):
            scheduler.step(value)
        assert here[1].get_last_lr() == there[1].get_last_lr(), f"after step({value}), number {step}"
        assert here[1].state_dict() == there[1].state_dict()


def orders_of_calls(library):
    """Sequences of calls whose warnings are compared."""
    m = library.optim.lr_scheduler

    def scheduler_first():
        m.StepLR(two_groups(library), 2).step()

    def in_order():
        optimizer = two_groups(library)
        scheduler = m.CosineAnnealingLR(optimizer, 4)
        advance([(optimizer, scheduler)], 3)

    def a_second_schedule_later():
        optimizer = two_groups(library)
        first = m.StepLR(optimizer, 2)
        optimizer.step()
        m.ExponentialLR(optimizer, 0.9).step()
        first.step()

    def steps_before_the_first_schedule():
        optimizer = two_groups(library)
        optimizer.step()
        m.StepLR(optimizer, 2).step()

    def epoch_given():
        optimizer = two_groups(library)
        scheduler = m.StepLR(optimizer, 2)
        optimizer.step()
        scheduler.step(3)

    def epoch_given_on_a_plateau():
        m.ReduceLROnPlateau(two_groups(library)).step(1.0, epoch=4)

    def fraction_of_an_epoch():
        m.CosineAnnealingWarmRestarts(two_groups(library), 3).step(0.5)

    def rate_outside_step():
        m.OneCycleLR(two_groups(library), 0.1, total_steps=5).get_lr()

    def sequence_too_early():
        optimizer = two_groups(library)
        sequence = m.SequentialLR(optimizer, [m.ConstantLR(optimizer), m.ExponentialLR(optimizer, 0.9)], [1])
        sequence.step()
        sequence.step()

    return [value for value in locals().values() if callable(value)]


@needs_torch
def test_warnings_are_pytorchs():
    import torch

    for ours, theirs in zip(orders_of_calls(shared), orders_of_calls(torch), strict=True):
        found = []
        for call in (ours, theirs):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                call()
            found.append([(w.category, str(w.message)[:60]) for w in caught])
        assert found[0] == found[1], ours.__name__


ERRORS = {
    "StepLR of no optimizer": lambda m, o: m.StepLR("optimizer", 2),
    "CosineAnnealingLR resumed without rates": lambda m, o: m.CosineAnnealingLR(o, 5, last_epoch=3),
    "T_0": lambda m, o: m.CosineAnnealingWarmRestarts(o, 0),
    "T_0 a float": lambda m, o: m.CosineAnnealingWarmRestarts(o, 1.5),
    "T_mult": lambda m, o: m.CosineAnnealingWarmRestarts(o, 1, 0),
    "eta_min": lambda m, o: m.CosineAnnealingWarmRestarts(o, 1, 1, "low"),
    "negative epoch": lambda m, o: m.CosineAnnealingWarmRestarts(o, 1).step(-1),
    "OneCycleLR of no optimizer": lambda m, o: m.OneCycleLR("optimizer", 0.1, 5),
    "no length": lambda m, o: m.OneCycleLR(o, 0.1),
    "half a length": lambda m, o: m.OneCycleLR(o, 0.1, epochs=3),
    "total_steps": lambda m, o: m.OneCycleLR(o, 0.1, total_steps=0),
    "total_steps a float": lambda m, o: m.OneCycleLR(o, 0.1, total_steps=5.0),
    "epochs": lambda m, o: m.OneCycleLR(o, 0.1, epochs=0, steps_per_epoch=2),
    "steps_per_epoch": lambda m, o: m.OneCycleLR(o, 0.1, epochs=2, steps_per_epoch=-1),
    "pct_start": lambda m, o: m.OneCycleLR(o, 0.1, 5, pct_start=1.5),
    "anneal_strategy": lambda m, o: m.OneCycleLR(o, 0.1, 5, anneal_strategy="cosine"),
    "max_lr": lambda m, o: m.OneCycleLR(o, [0.1], 5),
    "max_momentum": lambda m, o: m.OneCycleLR(o, 0.1, 5, max_momentum=[0.9]),
    "CyclicLR of no optimizer": lambda m, o: m.CyclicLR("optimizer", 0.1, 0.2),
    "CyclicLR's base_lr": lambda m, o: m.CyclicLR(o, [0.1], 0.2),
    "CyclicLR's max_lr": lambda m, o: m.CyclicLR(o, 0.1, [0.2, 0.3, 0.4]),
    "CyclicLR's mode": lambda m, o: m.CyclicLR(o, 0.1, 0.2, mode="square"),
    "CyclicLR's momentum": lambda m, o: m.CyclicLR(o, 0.1, 0.2, base_momentum=[0.8]),
    "factor": lambda m, o: m.ReduceLROnPlateau(o, factor=1.0),
    "mode": lambda m, o: m.ReduceLROnPlateau(o, mode="least"),
    "threshold_mode": lambda m, o: m.ReduceLROnPlateau(o, threshold_mode="relative"),
    "min_lr": lambda m, o: m.ReduceLROnPlateau(o, min_lr=[0.1]),
    "ReduceLROnPlateau of no optimizer": lambda m, o: m.ReduceLROnPlateau(None),
    "no number": lambda m, o: m.ReduceLROnPlateau(o).step("low"),
    "SequentialLR of nothing": lambda m, o: m.SequentialLR(o, [], []),
    "SequentialLR of a plateau": lambda m, o: m.SequentialLR(o, [m.ReduceLROnPlateau(o)], []),
    "milestones": lambda m, o: m.SequentialLR(o, [m.StepLR(o, 1)], [2]),
    "SequentialLR of a number": lambda m, o: m.SequentialLR(o, [1.0], []),
    "ChainedScheduler of nothing": lambda m, o: m.ChainedScheduler([]),
    "ChainedScheduler of a plateau": lambda m, o: m.ChainedScheduler([m.StepLR(o, 1), m.ReduceLROnPlateau(o)]),
}


def error_of(make, library):
    with pytest.raises((TypeError, ValueError, KeyError)) as caught:
        make(library.optim.lr_scheduler, two_groups(library))
    return caught.type, str(caught.value)


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_arguments_are_errors(name):
    kind, message = error_of(ERRORS[name], shared)
    assert len(message) > 10
    if HAS_TORCH:
        import torch

        expected, text = error_of(ERRORS[name], torch)
        assert (kind, message[:90]) == (expected, text[:90])


def test_a_schedule_of_another_optimizer_is_an_error():
    for make in (lr_scheduler.ChainedScheduler, lambda s: lr_scheduler.SequentialLR(s[0].optimizer, s, [1])):
        parts = [lr_scheduler.ConstantLR(two_groups(shared)), lr_scheduler.ConstantLR(two_groups(shared))]
        with pytest.raises(ValueError, match="expects all schedulers to belong to the same optimizer.*at index 1"):
            make(parts)


def test_cycles_need_a_momentum_unless_told_otherwise():
    with pytest.raises(ValueError, match="optimizer must support momentum or beta1"):
        lr_scheduler.CyclicLR(two_groups(shared, "Adagrad"), 0.1, 0.2)
    lr_scheduler.CyclicLR(two_groups(shared, "Adagrad"), 0.1, 0.2, cycle_momentum=False)


class Fading:
    """A scale function with state of its own."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, cycle):
        return self.rate**cycle


def test_the_attributes_of_a_scale_function_are_saved():
    first, second = (
        lr_scheduler.CyclicLR(two_groups(shared), 0.1, 0.2, 4, scale_fn=Fading(rate)) for rate in (0.5, 0.9)
    )
    saved = first.state_dict()
    assert saved["_scale_fn_custom"] == {"rate": 0.5}
    second.load_state_dict(saved)
    assert second.scale_fn(1) == 0.5 and saved["_scale_fn_custom"] == {"rate": 0.5}


def test_one_cycle_needs_a_momentum_and_ends_with_its_steps():
    with pytest.raises(ValueError, match="optimizer must support momentum or beta1"):
        lr_scheduler.OneCycleLR(two_groups(shared, "Adagrad"), 0.1, 5)
    optimizer = two_groups(shared, "Adagrad")
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 5, cycle_momentum=False)
    advance([(optimizer, scheduler)], 5)
    with pytest.raises(ValueError, match="Tried to step 6 times. The specified number of total steps is 5"):
        scheduler.step()
    with pytest.warns(UserWarning, match="get_last_lr"):  # the failed step left no trace
        scheduler.last_epoch = 0
        scheduler.get_lr()


def test_a_group_added_later_needs_a_lowest_rate():
    optimizer = two_groups(shared)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.1, 0.1])
    easy = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=0.1)
    optimizer.add_param_group({"params": [shared.zeros(1, requires_grad=True)], "lr": 1.0})
    scheduler.step(1.0)
    with pytest.raises(RuntimeError, match=r"param groups in the `optimizer` \(3\) differs .* \(2\)"):
        scheduler.step(1.0)
    easy.step(1.0)
    easy.step(1.0)
    assert easy.get_last_lr() == [0.1, 0.02, 0.1]


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "OneCycleLR", "SequentialLR"])
def test_a_tensor_rate_stays_the_same_tensor(name):
    rate = shared.tensor(0.5)
    optimizer = shared.optim.SGD([shared.zeros(1, requires_grad=True)], lr=rate)
    scheduler = EVERY[name](lr_scheduler, optimizer, 12)
    advance([(optimizer, scheduler)], 3)
    assert optimizer.param_groups[0]["lr"] is rate
    expected = {**GOLDEN["rates"], **GOLDEN["rates of a training"]}[name][3][0]
    assert scheduler.get_last_lr() == [pytest.approx(expected, rel=1e-6)]


# ---------------------------------------------------------------- warm-up and cosine


def test_warmup_cosine_is_its_formula():
    optimizer, warmup, total = two_groups(shared), 10, 50
    scheduler = lr_scheduler.warmup_cosine(optimizer, warmup, total, eta_min=0.001)
    for t in range(total + 1):
        share = (t - warmup) / (total - warmup)
        for base, lr in zip(STARTING_RATES, scheduler.get_last_lr(), strict=True):
            cosine = 0.001 + (base - 0.001) * (1 + np.cos(np.pi * share)) / 2
            assert lr == pytest.approx(base * (t + 1) / (warmup + 1) if t < warmup else cosine, rel=1e-9)
        advance([(optimizer, scheduler)], 1)


@needs_torch
def test_warmup_cosine_is_the_composition_in_pytorch():
    import torch

    m, ours, theirs = torch.optim.lr_scheduler, two_groups(shared), two_groups(torch)
    scheduler = lr_scheduler.warmup_cosine(ours, 20, 200)
    parts = [m.LinearLR(theirs, 1 / 21, total_iters=20), m.CosineAnnealingLR(theirs, 180)]
    reference = m.SequentialLR(theirs, parts, [20])
    for _ in range(200):
        advance([(ours, scheduler), (theirs, reference)], 1)
        assert scheduler.get_last_lr() == reference.get_last_lr()


def test_warmup_cosine_without_warmup_and_too_long():
    scheduler = lr_scheduler.warmup_cosine(two_groups(shared), 0, 4)
    assert lr_scheduler.rates(scheduler, 3) == [0.5, 0.426777, 0.25]
    with pytest.raises(ValueError, match="warmup_steps=4 and total_steps=4"):
        lr_scheduler.warmup_cosine(two_groups(shared), 4, 4)
