"""A training that is interrupted and resumed from its checkpoint has the losses of the unbroken one, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shared
from shared import nn
from shared.data import BatchSampler, DataLoader, Dataset, TensorDataset, WeightedRandomSampler
from shared.optim import lr_scheduler
from shared.training import EarlyStopping, evaluate, fit, load_checkpoint, save_checkpoint

EPOCHS, BATCHES = 5, 4
ROOT = Path(shared.__file__).resolve().parents[1]


class Noisy(Dataset):
    """Examples that are different every time: by the framework's generator, Python's `random` and `np.random`."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        noise = shared.randn(5) * 0.1 + random.gauss(0, 0.1) + np.random.normal(0, 0.1)
        return self.x[i] + noise, self.y[i]


def points(n=32):
    g = shared.Generator().manual_seed(11)
    x = shared.randn(n, 5, generator=g)
    return x, (x.sum(dim=1) > 0).long()


def seeded(seed):
    return shared.Generator().manual_seed(seed)


LOADERS = {
    "shuffled": lambda: DataLoader(TensorDataset(*points()), batch_size=8, shuffle=True),
    "own generator": lambda: DataLoader(TensorDataset(*points()), batch_size=8, shuffle=True, generator=seeded(5)),
    "own sampler": lambda: DataLoader(
        TensorDataset(*points()), batch_size=8, sampler=WeightedRandomSampler([1.0, 2.0] * 16, 32, generator=seeded(6))
    ),
    "batches of a sampler": lambda: DataLoader(
        TensorDataset(*points()),
        batch_sampler=BatchSampler(WeightedRandomSampler([1.0] * 32, 32, generator=seeded(7)), 8, False),
    ),
    "noise": lambda: DataLoader(Noisy(*points()), batch_size=8, shuffle=True),
    "workers": lambda: DataLoader(Noisy(*points()), batch_size=8, shuffle=True, num_workers=2),
}

OPTIMIZERS = {
    "SGD": lambda p: shared.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: shared.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: shared.optim.AdamW(p, lr=0.01),
    "RMSprop": lambda p: shared.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": lambda p: shared.optim.Adagrad(p, lr=0.1),
    "Adadelta": lambda p: shared.optim.Adadelta(p),
}

SCHEDULES = {
    "none": lambda o: (None, "epoch"),
    "StepLR": lambda o: (lr_scheduler.StepLR(o, 2), "epoch"),
    "OneCycleLR by batch": lambda o: (lr_scheduler.OneCycleLR(o, 0.1, EPOCHS * BATCHES), "batch"),
    "warm-up by batch": lambda o: (lr_scheduler.warmup_cosine(o, 6, EPOCHS * BATCHES), "batch"),
    "restarts": lambda o: (lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2), "epoch"),
    "plateau": lambda o: (lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=0.5), "epoch"),
}


class Centred(nn.Module):
    """Subtracts a running mean of its inputs: a buffer that changes in training."""

    def __init__(self, features):
        super().__init__()
        self.register_buffer("mean", shared.zeros(features))

    def forward(self, x):
        if self.training:
            self.mean.copy_(0.9 * self.mean + 0.1 * x.detach().mean(dim=0))
        return x - self.mean.clone()


class Killed(Exception):
    """Stands for whatever ends a process."""


class Training:
    """A whole training, made as a script makes it when it is started; `losses` has the loss of every batch."""

    def __init__(self, seed, loader="shuffled", optimizer="SGD", schedule="none", callbacks=()):
        shared.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.model = nn.Sequential(nn.Linear(5, 16), Centred(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
        self.loader = LOADERS[loader]()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.scheduler, self.schedule_by = SCHEDULES[schedule](self.optimizer)
        self.callbacks = list(callbacks)
        self.losses = []

    def run(self, epochs, resume=None, killed_in_batch=None):
        def loss_fn(outputs, targets):
            loss = nn.functional.cross_entropy(outputs, targets)
            if self.model.training:
                self.losses.append(loss.item())
                if len(self.losses) == killed_in_batch:
                    raise Killed
            return loss

        return fit(
            self.model,
            self.loader,
            DataLoader(TensorDataset(*points(16)), batch_size=8),
            loss_fn=loss_fn,
            optimizer=self.optimizer,
            epochs=epochs,
            scheduler=self.scheduler,
            schedule_by=self.schedule_by,
            callbacks=self.callbacks,
            resume=resume,
            progress=False,
        )

    def weights(self):
        return {key: value.tolist() for key, value in self.model.state_dict().items()}


def check_resumed(tmp_path, stops=(2,), **options):
    """Runs without interruption, and again with one after each number of epochs in `stops`."""
    unbroken, path = Training(seed=1, **options), tmp_path / "run"
    history = unbroken.run(EPOCHS)
    losses, done = [], 0
    for stop in (*stops, EPOCHS):
        part = Training(seed=1 if not losses else 100 + stop, **options)  # another seed: nothing is right by chance
        found = part.run(stop, resume=path)
        assert len(part.losses) == (stop - done) * BATCHES, "epochs that were done are not run again"
        losses, done = losses + part.losses, stop
    assert losses == unbroken.losses, "the loss of every batch"
    assert found == history, "the history"
    assert part.weights() == unbroken.weights(), "the model at the end"
    return unbroken, part


@pytest.mark.parametrize("stops", [(1,), (2,), (3,), (4,), (1, 2, 3, 4)], ids=str)
def test_after_any_epoch(tmp_path, stops):
    check_resumed(tmp_path, stops)


@pytest.mark.parametrize("loader", LOADERS)
def test_whatever_the_loader_draws_from(tmp_path, loader):
    check_resumed(tmp_path, loader=loader)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_every_optimizer(tmp_path, optimizer):
    check_resumed(tmp_path, optimizer=optimizer)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_every_kind_of_schedule(tmp_path, schedule):
    unbroken, _ = check_resumed(tmp_path, (1, 3), schedule=schedule)
    if schedule != "none":
        assert unbroken.optimizer.param_groups[0]["lr"] != 0.1, "the schedule changed nothing"


def test_weights_alone_do_not_resume_a_training():
    """The test above would notice what is missing: without order and dropout restored the losses differ."""
    unbroken = Training(seed=1)
    unbroken.run(EPOCHS)
    first, second = Training(seed=1), Training(seed=100)
    first.run(2)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.run(EPOCHS - 2)
    assert first.losses + second.losses != unbroken.losses


@pytest.mark.parametrize("batch", [1, BATCHES + 2, 3 * BATCHES])
def test_in_the_middle_of_an_epoch(tmp_path, batch):
    """The epoch that was interrupted is run again, from the state at its beginning."""
    unbroken, path = Training(seed=1), tmp_path / "run"
    history = unbroken.run(EPOCHS)
    killed = Training(seed=1)
    with pytest.raises(Killed):
        killed.run(EPOCHS, resume=path, killed_in_batch=batch)
    again = Training(seed=1 if batch < BATCHES else 2)  # killed in the first epoch there is nothing to resume
    assert again.run(EPOCHS, resume=path) == history
    whole = (batch - 1) // BATCHES * BATCHES
    assert killed.losses[:whole] + again.losses == unbroken.losses


SCRIPT = """
import json, os, signal, sys
from tests.training.test_resume import Training
path, kill_in = sys.argv[1], int(sys.argv[2])
training = Training(seed=int(sys.argv[3]), schedule="OneCycleLR by batch")
if kill_in:
    class Deadly(list):
        def append(self, loss):
            super().append(loss)
            if len(self) == kill_in:
                os.kill(os.getpid(), signal.SIGKILL)
    training.losses = Deadly()
print(json.dumps(training.run(5, resume=path)))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process as POSIX does")
def test_a_killed_process(tmp_path):
    def run(path, kill_in, seed):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", SCRIPT, str(path), str(kill_in), str(seed)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    assert run(tmp_path / "a", 3 * BATCHES + 2, 1).returncode == -signal.SIGKILL
    resumed, unbroken = run(tmp_path / "a", 0, 2), run(tmp_path / "b", 0, 1)
    assert resumed.returncode == unbroken.returncode == 0, resumed.stderr + unbroken.stderr
    assert json.loads(resumed.stdout) == json.loads(unbroken.stdout)


def test_a_finished_training_is_not_run_again(tmp_path):
    path = tmp_path / "new" / "folder" / "run"
    first = Training(seed=1)
    history = first.run(3, resume=path)
    second = Training(seed=2)
    assert second.run(3, resume=path) == history and second.losses == []
    assert second.weights() == first.weights()


def test_early_stopping_resumes_with_its_best_weights(tmp_path):
    def stopping():
        return EarlyStopping(patience=1, min_delta=0.15)

    def training(seed):
        return Training(seed, schedule="OneCycleLR by batch", callbacks=[stopping()])

    unbroken = training(1)
    history = unbroken.run(EPOCHS)
    assert history.epochs < EPOCHS, "it does not stop early"
    for stop in range(1, history.epochs + 1):
        path = tmp_path / f"run{stop}"
        training(1).run(stop, resume=path)
        resumed = training(2)
        assert resumed.run(EPOCHS, resume=path) == history
        assert resumed.weights() == unbroken.weights()
        assert resumed.callbacks[0].best_epoch == unbroken.callbacks[0].best_epoch


def test_the_bar_begins_where_the_training_does(tmp_path, capsys):
    for epochs, last in ((1, "4/4"), (3, "12/12")):
        model = nn.Linear(5, 2)
        options = {"loss_fn": nn.CrossEntropyLoss(), "optimizer": shared.optim.SGD(model.parameters(), lr=0.1)}
        fit(model, LOADERS["shuffled"](), epochs=epochs, resume=tmp_path / "run", **options)
        assert last in capsys.readouterr().err.split("\r")[-1]


# ---------------------------------------------------------------- in a loop of one's own


def test_a_loop_of_ones_own(tmp_path):
    def train(epochs, path, seed):
        training = Training(seed, schedule="StepLR")
        model, optimizer, scheduler = training.model, training.optimizer, training.scheduler
        parts = {"scheduler": scheduler, "data": [training.loader]}
        start = load_checkpoint(path, model, optimizer, **parts) if path.exists() else 0
        for epoch in range(start, epochs):
            for x, y in training.loader:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                training.losses.append(loss.item())
            scheduler.step()
            save_checkpoint(path, model, optimizer, epoch + 1, **parts)
        return training

    whole, first = train(4, tmp_path / "whole", 1), train(3, tmp_path / "parts", 1)
    second = train(4, tmp_path / "parts", 2)
    assert first.losses + second.losses == whole.losses
    assert second.scheduler.state_dict() == whole.scheduler.state_dict()


def test_loading_gives_back_every_generator(tmp_path):
    training, g = Training(seed=3), seeded(9)
    loader = DataLoader(range(8), shuffle=True, generator=g)
    save_checkpoint(tmp_path / "c", training.model, training.optimizer, 1, data=[loader])
    draws = [(float(shared.rand(1)), random.random(), float(np.random.rand()), float(g.rng.random()), list(loader))]
    draws.append((float(shared.rand(1)), random.random(), float(np.random.rand()), float(g.rng.random()), list(loader)))
    assert draws[0] != draws[1]
    load_checkpoint(tmp_path / "c", training.model, training.optimizer, data=[loader])
    again = (float(shared.rand(1)), random.random(), float(np.random.rand()), float(g.rng.random()), list(loader))
    assert again == draws[0]


# ---------------------------------------------------------------- what does not fit


def saved(tmp_path, **options):
    training = Training(seed=1, **options)
    training.run(1, resume=tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"optimizer": "Adam"}, "was written with optimizer SGD, but this training has optimizer Adam"),
        ({"schedule": "none"}, "was written with scheduler StepLR, but this training has scheduler None"),
        ({"schedule": "restarts"}, "but this training has scheduler CosineAnnealingWarmRestarts"),
        ({"callbacks": [EarlyStopping()]}, r"with callbacks \[\], but this training has callbacks \['EarlyStopping'\]"),
        ({"loader": "own generator"}, "has 0 generators of the data, but the data given has 1"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_another_training_is_refused_and_left_alone(tmp_path, other, message):
    path = saved(tmp_path, schedule="StepLR")
    training = Training(seed=2, **{"schedule": "StepLR", **other})
    before, state = training.weights(), shared.get_rng_state().tolist()
    with pytest.raises(ValueError, match=message):
        training.run(3, resume=path)
    assert training.weights() == before and shared.get_rng_state().tolist() == state and training.losses == []


def test_another_model_or_other_groups_change_nothing(tmp_path):
    path, training = saved(tmp_path), Training(seed=2)
    training.model = nn.Linear(5, 2)
    with pytest.raises(RuntimeError, match="Missing key"):
        training.run(3, resume=path)
    training = Training(seed=2)
    before = training.weights()
    first, *rest = training.model.parameters()
    training.optimizer = shared.optim.SGD([{"params": [first]}, {"params": rest}], lr=0.1)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        training.run(3, resume=path)
    assert training.weights() == before


def test_evaluation_between_epochs_is_part_of_the_order(tmp_path):
    """A validation loader that shuffles draws from the same generator: still the same losses."""
    g = seeded(4)
    loader = DataLoader(TensorDataset(*points(16)), batch_size=8, shuffle=True, generator=g)
    training = Training(seed=1)
    save_checkpoint(tmp_path / "c", training.model, training.optimizer, 1, data=[training.loader, loader])
    first = evaluate(training.model, loader, nn.CrossEntropyLoss()), list(loader)[0][1].tolist()
    load_checkpoint(tmp_path / "c", training.model, training.optimizer, data=[training.loader, loader])
    assert (evaluate(training.model, loader, nn.CrossEntropyLoss()), list(loader)[0][1].tolist()) == first
