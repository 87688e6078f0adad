"""What goes with `fit`: schedules by epoch, by batch and by loss; callbacks; stopping early with the best weights."""

import math

import pytest

import shared
from shared import nn
from shared.optim import lr_scheduler
from shared.training import Callback, EarlyStopping, History, fit


def line():
    x = shared.linspace(-1, 1, 8).reshape(8, 1)
    return [(x[:4], 2 * x[:4]), (x[4:], 2 * x[4:])]


def fitted(model, epochs, optimizer=None, val=None, **options):
    optimizer = optimizer or shared.optim.SGD(model.parameters(), lr=0.1)
    options = {"loss_fn": nn.MSELoss(), "optimizer": optimizer, "progress": False, **options}
    return fit(model, line(), val, epochs=epochs, **options)


# ---------------------------------------------------------------- schedules in fit


def test_a_schedule_by_batch_steps_after_every_batch_and_by_epoch_after_every_epoch():
    for schedule_by, steps in (("batch", 6), ("epoch", 3)):
        model = nn.Linear(1, 1)
        optimizer = shared.optim.SGD(model.parameters(), lr=0.1)
        scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
        history = fitted(model, 3, optimizer, scheduler=scheduler, schedule_by=schedule_by)
        assert scheduler.last_epoch == steps
        assert history["lr"] == [0.1 * 0.5 ** (i * steps // 3) for i in range(3)], "the rate an epoch began with"


@pytest.mark.parametrize("split", ["val", "train"])
def test_a_plateau_schedule_gets_the_loss(split):
    model = nn.Linear(1, 1)
    optimizer = shared.optim.SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.0)
    seen, step = [], scheduler.step
    scheduler.step = lambda value: seen.append(value) or step(value)
    history = fitted(model, 3, optimizer, line() if split == "val" else None, scheduler=scheduler)
    assert seen == history[f"{split}_loss"] and len(seen) == 3


def test_schedules_that_fit_cannot_step_are_refused():
    model = nn.Linear(1, 1)
    optimizer = shared.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="schedule_by should be 'epoch' or 'batch', but got 'step'"):
        fitted(model, 1, optimizer, schedule_by="step")
    for options, schedule_by in (({"mode": "max"}, "epoch"), ({}, "batch")):
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        with pytest.raises(ValueError, match="fit gives ReduceLROnPlateau the loss of each epoch"):
            fitted(model, 1, optimizer, scheduler=scheduler, schedule_by=schedule_by)


# ---------------------------------------------------------------- callbacks


class Notes(Callback):
    def __init__(self, stop_after=None):
        self.calls, self.stop_after = [], stop_after

    def after_epoch(self, model, history):
        self.calls.append(("epoch", history.epochs, len(history["val_loss"])))
        self.stop = history.epochs == self.stop_after

    def after_training(self, model, history):
        self.calls.append(("training", history.epochs))


def test_callbacks_are_called_after_every_epoch_and_at_the_end():
    notes = Notes()
    fitted(nn.Linear(1, 1), 2, val=line(), callbacks=[notes])
    assert notes.calls == [("epoch", 1, 1), ("epoch", 2, 2), ("training", 2)]


def test_a_callback_ends_the_training_after_the_others_were_called():
    first, second = Notes(stop_after=2), Notes()
    history = fitted(nn.Linear(1, 1), 9, val=line(), callbacks=[first, second])
    assert history.epochs == 2
    assert first.calls == second.calls == [("epoch", 1, 1), ("epoch", 2, 2), ("training", 2)]


# ---------------------------------------------------------------- early stopping


def seen(stopping, values):
    """The epoch after which it stops (None: it does not), by the weights 1, 2, 3, … of the epochs."""
    model = nn.Linear(1, 1, bias=False)
    for epoch, value in enumerate(values, start=1):
        nn.init.constant_(model.weight, float(epoch))
        if stopping.step(value, model):
            break
    else:
        epoch = None
    stopping.restore(model)
    return epoch, model.weight.item()


NAN = math.nan
CASES = [  # settings, values, stops after, epoch whose weights are the best
    ({"patience": 2}, [3, 2, 1, 2, 2, 0], 5, 3),
    ({"patience": 2}, [3, 2, 1, 2, 0.5, 1, 1], 7, 5),
    ({"patience": 1}, [1, 1], 2, 1),
    ({"patience": 3}, [5, 4, 3, 2, 1], None, 5),
    ({"patience": 3}, [1, 2, 3], None, 1),
    ({"patience": 2, "min_delta": 0.1}, [1, 0.95, 0.91, 0.5], 3, 1),
    ({"patience": 2, "min_delta": 0.1}, [1, 0.95, 0.89, 0.5], None, 4),
    ({"patience": 1, "min_delta": 0.5}, [1, 0.5], 2, 1),
    ({"patience": 2, "mode": "max"}, [0.1, 0.5, 0.4, 0.5], 4, 2),
    ({"patience": 2, "mode": "max", "min_delta": 0.2}, [0.1, 0.2, 0.35, 0.5, 0.4], 5, 3),
    ({"patience": 2}, [1, NAN, NAN], 3, 1),
    ({"patience": 2}, [NAN, 1, 2, NAN], 4, 2),
    ({"patience": 2, "restore_best": False}, [3, 1, 2, 2], 4, 4),
]


@pytest.mark.parametrize(("settings", "values", "stop", "best"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_when_it_stops_and_with_which_weights(settings, values, stop, best):
    assert seen(EarlyStopping(**settings), values) == (stop, best)


def test_the_best_epoch_is_told():
    stopping = EarlyStopping(2)
    seen(stopping, [3, 1, 2, 2])
    assert (stopping.best, stopping.best_epoch, stopping.epoch, stopping.stop) == (1.0, 2, 4, True)


def test_buffers_come_back_too_and_later_training_does_not_reach_the_kept_weights():
    model = nn.Linear(2, 2)
    model.register_buffer("count", shared.tensor(1))
    stopping = EarlyStopping(3)
    stopping.step(1.0, model)
    kept = {k: v.tolist() for k, v in model.state_dict().items()}
    with shared.no_grad():
        model.weight.mul_(2)
        model.count.add_(1)
    stopping.step(2.0, model)
    stopping.restore(model)
    assert {k: v.tolist() for k, v in model.state_dict().items()} == kept


class Losses(Callback):
    """Puts given numbers where the validation losses are, and the epoch into the weight."""

    def __init__(self, values):
        self.values = values

    def after_epoch(self, model, history):
        history["val_loss"][-1] = self.values[history.epochs - 1]
        nn.init.constant_(model.weight, float(history.epochs))


@pytest.mark.parametrize(("values", "epochs", "best"), [([3, 1, 2, 2, 0], 4, 2), ([3, 2, 1, 2], 4, 3)])
def test_fit_stops_and_ends_with_the_best_weights(values, epochs, best):
    model = nn.Linear(1, 1, bias=False)
    history = fitted(model, len(values), val=line(), callbacks=[Losses(values), EarlyStopping(patience=2)])
    assert history.epochs == epochs and model.weight.item() == best


def test_another_quantity_is_monitored():
    model, stopping = nn.Linear(1, 1), EarlyStopping(1, mode="max", monitor="train_top")
    fitted(model, 3, callbacks=[stopping], metrics={"top": lambda outputs, targets: 1.0})
    assert stopping.best == 1.0 and stopping.epoch == 2


def test_a_quantity_that_is_not_measured_is_named():
    with pytest.raises(KeyError, match="EarlyStopping looks at 'val_loss', but the history has train_loss, lr"):
        fitted(nn.Linear(1, 1), 1, callbacks=[EarlyStopping()])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 0}, "patience should be a number of epochs, at least 1, but got 0"),
        ({"patience": 1.5}, "patience should be a number of epochs"),
        ({"min_delta": -0.1}, "min_delta should not be negative, but got -0.1"),
        ({"min_delta": NAN}, "min_delta should not be negative, but got nan"),
        ({"mode": "auto"}, "mode should be 'min' or 'max', but got 'auto'"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**settings)


def test_a_history_knows_its_epochs():
    history = History()
    assert history.epochs == 0
    history.add({"loss": 1.0}, {}, lr=0.1)
    assert history.epochs == 1
