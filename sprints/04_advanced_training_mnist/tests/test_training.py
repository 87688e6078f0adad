"""Sprint 04's milestones on early stopping and resuming. A known mistake is named in the message."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np

import shared
from course.oracles import check, check_names, doing, require
from shared import nn, optim
from shared.data import DataLoader, TensorDataset
from shared.optim import lr_scheduler
from shared.training import Callback, EarlyStopping, fit

# ------------------------------------------------------------------------ early stopping


def stops(losses: Iterable[float | shared.Tensor], **options) -> tuple[list[bool], EarlyStopping]:
    """What `step` says after each loss, going on after it has said stop."""
    model, stopping = nn.Linear(1, 1), EarlyStopping(**options)
    with doing(f"EarlyStopping with {options}"):
        return [bool(stopping.step(loss, model)) for loss in losses], stopping


def by_rule(losses: Iterable[float], patience: int, better: Callable[[float, list[float]], bool], late: int = 0):
    """When a rule stops: `better(loss, the losses before)`."""
    seen, waited, answers = [], 0, []
    for loss in losses:
        waited = 0 if better(loss, seen) else waited + 1
        seen.append(loss)
        answers.append(waited >= patience + late)
    return answers


def lower(loss: float, seen: list[float]) -> bool:
    return not seen or loss < min(seen)


def check_patience() -> None:
    """When it stops."""
    losses = [1.0, 0.9, 0.95, 0.8, 0.85, 0.82, 0.81, 0.83, 0.7, 0.71, 0.72, 0.73]
    found, stopping = stops(losses, patience=3)
    right = [False] * 6 + [True, True] + [False] * 3 + [True]
    check_names(
        f"whether to stop after each of the losses {losses} with patience 3",
        found,
        right,
        {
            "a patience of one epoch more: it is used up after 3 epochs without improvement, not in the 4th": by_rule(
                losses, 3, lower, late=1
            ),
            "a patience of one epoch less": by_rule(losses, 3, lower, late=-1),
            "bad epochs that are counted in all: an improvement starts the count anew": [
                n >= 3 for n in itertools.accumulate(not lower(v, losses[:i]) for i, v in enumerate(losses))
            ],
            "a comparison with the epoch before: it is with the best": by_rule(
                losses, 3, lambda v, seen: not seen or v < seen[-1]
            ),
            "the direction turned: a lower loss is an improvement": by_rule(
                losses, 3, lambda v, seen: not seen or v > max(seen)
            ),
            "no stop at all: step counts its calls, and returns what `stop` says": [False] * 12,
        },
    )
    state = stopping.best, stopping.best_epoch, stopping.epoch
    require(
        state == (0.7, 9, 12),
        f"best, best_epoch and epoch are {state} after twelve epochs, the ninth of them the best: epochs count from 1",
    )
    for what, losses, options, right, mistakes in (
        (
            "equal losses, which are no improvement",
            [1.0, 1.0, 1.0],
            {"patience": 2},
            [False, False, True],
            {"`<=`: standing still counts as an improvement": [False] * 3},
        ),
        (
            "a loss that rises by less than min_delta=0.1",
            [1.0, 1.05, 1.08],
            {"patience": 2, "min_delta": 0.1},
            [False, False, True],
            {"min_delta with the wrong sign: an improvement is below best − min_delta": [False] * 3},
        ),
        (
            "a loss that falls by 0.04 an epoch with min_delta=0.1: it improves in every third epoch",
            [1.0, 0.96, 0.92, 0.88, 0.84],
            {"patience": 3, "min_delta": 0.1},
            [False] * 5,
            {"a best that is lowered by too little: only an improvement moves it": [False, False, False, True, True]},
        ),
        (
            "a loss that falls by 0.04 an epoch with min_delta=0.1 and patience=2",
            [1.0, 0.96, 0.92, 0.88, 0.84],
            {"patience": 2, "min_delta": 0.1},
            [False, False, True, False, False],
            {
                "a min_delta that is not looked at": [False] * 5,
                "a best that is lowered by too little: only an improvement moves it": [False, False, True, True, True],
            },
        ),
        (
            "an accuracy, mode='max'",
            [0.5, 0.6, 0.55, 0.58],
            {"patience": 2, "mode": "max"},
            [False, False, False, True],
            {"a mode that is not looked at: with 'max' a higher value is better": [False, True, True, True]},
        ),
        (
            "an accuracy with mode='max' and min_delta=0.1",
            [0.5, 0.55, 0.58, 0.61],
            {"patience": 2, "mode": "max", "min_delta": 0.1},
            [False, False, True, False],
            {"min_delta with the wrong sign: an improvement is above best + min_delta": [False] * 4},
        ),
        (
            "a loss that becomes NaN",
            [1.0, math.nan, math.nan],
            {"patience": 2},
            [False, False, True],
            {
                "NaN taken for an improvement: no comparison with it holds, so ask for better, not for worse": [False]
                * 3
            },
        ),
    ):
        found, _ = stops(losses, **options)
        check_names(
            f"whether to stop: {what}",
            found,
            right,
            mistakes,
        )
    _, stopping = stops([shared.tensor(0.5)], patience=2)
    require(
        isinstance(stopping.best, float),
        f"best is a {type(stopping.best).__name__} after the loss tensor(0.5): note float(value), for a tensor would "
        "keep its graph alive, and does not go into a checkpoint as a number",
    )


def network() -> nn.Sequential:
    """A small network with a buffer that training changes."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2)
    )


def numbers(model: nn.Module) -> dict[str, list]:
    return {name: value.tolist() for name, value in model.state_dict().items()}


def disturb(model: nn.Module, by: int = 1) -> None:
    """Changes parameters and buffers in place, as training does."""
    with shared.no_grad():
        for value in model.state_dict().values():
            value.add_(by)


def check_weights() -> None:
    """Which weights come back."""
    shared.manual_seed(0)
    model, stopping = network(), EarlyStopping(patience=2)
    own = [id(parameter) for parameter in model.parameters()]
    with doing("restore before any epoch, which changes nothing"):
        stopping.restore(model)
    states = []
    for loss in (1.0, 0.5, 0.9):
        stopping.step(loss, model)
        states.append(numbers(model))
        disturb(model)
    states.append(numbers(model))
    for again in ("", " a second time, after more training"):
        with doing(
            "restore",
            {"issing key": "A model's state is more than its parameters: the buffers of batch norm belong to it."},
        ):
            stopping.restore(model)
        found = numbers(model)
        which = [place for place, state in enumerate(states) if state == found]
        looks = {
            3: ": the last ones. best_weights has to be a copy: a state dict holds the tensors that training changes",
            2: ": those of the last epoch that was noted",
            0: ": those of the first epoch",
        }
        parts = [name for name in found if found[name] != states[1][name]]
        if not which and all("running" in name or "num" in name for name in parts):
            looks[-1] = f": the buffers, {', '.join(parts)}, are not the best epoch's. state_dict() has them too"
        elif again:
            looks[-1] = ": restoring handed out the copy itself, and training went on with it"
        require(
            which == [1],
            f"after restore{again} the model must have the weights of the best epoch, the second of three"
            + looks.get(which[0] if which else -1, ""),
        )
        disturb(model, by=10)
    require(
        [id(parameter) for parameter in model.parameters()] == own,
        "restore put new parameters into the model, of which the optimizer knows nothing: copy into the old ones",
    )
    last, stopping = numbers(model), EarlyStopping(patience=2, restore_best=False)
    stopping.step(1.0, model)
    require(stopping.best_weights is None, "with restore_best=False no weights are kept: best_weights stays None")
    stopping.restore(model)
    require(numbers(model) == last, "with restore_best=False restore changes nothing")


class Path(Callback):
    """Notes the model's weight after every epoch."""

    def __init__(self):
        self.weights = []

    def after_epoch(self, model, history):
        self.weights.append(model.weight.item())


def test_training_stops_when_patience_ends_and_restores_the_best_weights():
    check_patience()
    check_weights()
    # Trained towards 3, validated at 2: the validation loss falls, and then rises for good.
    x = shared.ones(4, 1)
    model, path, stopping = nn.Linear(1, 1, bias=False), Path(), EarlyStopping(patience=3)
    nn.init.zeros_(model.weight)
    with doing("fit with EarlyStopping"):
        history = fit(
            model, [(x, 3 * x)], [(x, 2 * x)], loss_fn=nn.MSELoss(), epochs=30, progress=False,
            optimizer=optim.SGD(model.parameters(), lr=0.1), callbacks=[path, stopping],
        )  # fmt: skip
    best = int(np.argmin(history["val_loss"]))
    check("epochs before fit stopped, with patience 3", len(history["val_loss"]), best + 4, {"no stop": 30})
    check(
        "the weight after fit, that of the best epoch",
        model.weight.item(),
        path.weights[best],
        {"the last epoch's weight: after_training restores the best": path.weights[-1]},
        tolerance=0,
    )


# ------------------------------------------------------------------------ resuming


def training() -> dict:
    """All that a training consists of, made as a script makes it when it is started."""
    shared.manual_seed(0)
    images = shared.randn(48, 1, 5, 5)
    labels = (images[:, 0, 1:4, 2].sum(dim=1) > 0).long()
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train, val = (TensorDataset(images[a:b], labels[a:b]) for a, b in ((0, 32), (32, 48)))
    return {
        "model": model,
        "train_loader": DataLoader(train, batch_size=8, shuffle=True),
        "val_loader": DataLoader(val, batch_size=16),
        "optimizer": optimizer,
        "scheduler": lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, total_steps=6 * 4),
        "callbacks": [EarlyStopping(patience=6)],
    }


def test_an_interrupted_training_goes_on_with_the_same_losses_to_the_bit(tmp_path):
    options = {"loss_fn": nn.CrossEntropyLoss(), "schedule_by": "batch", "progress": False}
    unbroken = training()
    with doing("a training of six epochs"):
        whole = fit(**unbroken, **options, epochs=6)
    folder = tmp_path / "run"
    for epochs in (2, 6):  # a new start each time: only the folder connects them
        resumed = training()
        if folder.exists():
            shared.manual_seed(1)  # wherever the generator is, the checkpoint knows where it was
        with doing(f"a training up to epoch {epochs} that is resumed from its checkpoint"):
            found = fit(**resumed, **options, epochs=epochs, resume=folder)
    require(len(found["train_loss"]) == 6, f"resumed after 2 of 6 epochs, it has {len(found['train_loss'])}: 6 in all")
    for name in ("lr", "train_loss", "val_loss"):
        pairs = zip(whole[name], found[name], strict=True)
        first = next((epoch for epoch, (a, b) in enumerate(pairs, 1) if a != b), None)
        require(
            first is None,
            f"{name} of epoch {first} is {found[name][(first or 1) - 1]!r} after resuming, and without an interruption "
            f"{whole[name][(first or 1) - 1]!r}: something that training depends on is not in the checkpoint",
        )
    mine, right = resumed["callbacks"][0], unbroken["callbacks"][0]
    for name in ("best", "best_epoch", "epoch"):
        require(
            getattr(mine, name) == getattr(right, name),
            f"EarlyStopping.{name} is {getattr(mine, name)} after resuming, and without an interruption "
            f"{getattr(right, name)}: state_dict() has to carry all that it has seen",
        )
    for name, value in right.best_weights.items():
        require(
            (mine.best_weights or {}).get(name) is not None,
            f"after resuming EarlyStopping has forgotten {name} of the best weights: they belong in state_dict()",
        )
        require((mine.best_weights[name] == value).all(), f"after resuming, {name} of the best weights is another")
    require(numbers(resumed["model"]) == numbers(unbroken["model"]), "the models differ, though all losses are equal")
    # The memory of early stopping, by itself: the best epoch lies before the interruption.
    model, before, after = nn.Linear(1, 1), EarlyStopping(patience=3), EarlyStopping(patience=3)
    for loss in (1.0, 0.5, 0.9):
        before.step(loss, model)
        if loss == 0.5:
            best = numbers(model)
        disturb(model)
    with doing("EarlyStopping.state_dict and load_state_dict"):
        saved = before.state_dict()
        shared.checkpoint.save(saved, tmp_path / "stopping.safetensors")
        after.load_state_dict(shared.checkpoint.load(tmp_path / "stopping.safetensors"))
    missing = sorted({"best", "best_epoch", "epoch", "best_weights"} - set(saved))
    require(not missing, f"state_dict() of EarlyStopping lacks {', '.join(missing)}: a resumed training forgets it")
    settings = sorted({"patience", "min_delta", "mode", "monitor", "restore_best"} & set(saved))
    require(
        not settings,
        f"state_dict() has the settings {', '.join(settings)} too: they would overwrite those of the object that "
        "resumes, which may have been given more patience",
    )
    seen = {name: saved[name] for name in ("best", "best_epoch", "epoch")}
    with doing("a step of EarlyStopping after state_dict"):
        before.step(0.1, model)
    require(
        seen == {name: saved[name] for name in seen},
        "a later step changed what state_dict() had returned: it has to be a dictionary of its own, not __dict__",
    )
    answers = [after.step(loss, model) for loss in (0.8, 0.7)]
    check_names(
        "whether to stop at the losses 0.8 and 0.7, resumed after 1.0, 0.5 and 0.9 with patience 3",
        [bool(answer) for answer in answers],
        [False, True],
        {"a count that begins anew when a training is resumed": [False, False]},
    )
    after.restore(model)
    require(numbers(model) == best, "the best weights, of an epoch before the interruption, did not come back")
