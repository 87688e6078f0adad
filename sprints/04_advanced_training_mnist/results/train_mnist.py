"""Notes 05 and 06: LeNet-5 and a network with batch norm read digits; shifts; early stopping; a resumed training.

python sprints/04_advanced_training_mnist/results/train_mnist.py          mnist-5k, three seeds, some minutes
python sprints/04_advanced_training_mnist/results/train_mnist.py --full   all of MNIST instead, five epochs

Each of the two leaves the numbers of the other in metrics.json as they are.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from networks import cnn, digits, fixed, lenet5, loader, parameters, statistics, tensors

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn, optim
from shared.data import ImageDataset
from shared.optim.lr_scheduler import OneCycleLR
from shared.training import Callback, EarlyStopping, History, TensorBoard, accuracy, evaluate, fit

Digits = dict[str, ImageDataset]
MAKERS = {"lenet": lenet5, "cnn": cnn}
MAX_LR = 0.01


def mlp() -> nn.Sequential:
    """The MLP of Sprint 03, on images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def train(
    model: nn.Module,
    data: Digits,
    epochs: int,
    batch_size: int,
    augment: bool = True,
    max_lr: float = MAX_LR,
    callbacks: Sequence[Callback] = (),
    resume: Path | None = None,
    progress: bool = True,
) -> tuple[History, float]:
    """(history, seconds) of Adam under one cycle of the learning rate, one step of the schedule per batch."""
    mean, std = statistics(data["train"])
    batches = loader(data["train"], mean, std, batch_size, augment)
    optimizer = optim.Adam(model.parameters(), lr=max_lr)
    start = time.perf_counter()
    history = fit(
        model,
        batches,
        fixed(data["validation"], mean, std),
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        epochs=epochs,
        metrics={"accuracy": accuracy},
        scheduler=OneCycleLR(optimizer, max_lr, epochs=epochs, steps_per_epoch=len(batches)),
        schedule_by="batch",
        callbacks=callbacks,
        resume=resume,
        progress=progress,
    )
    return history, time.perf_counter() - start


def on_test(model: nn.Module, data: Digits) -> dict[str, float]:
    """Loss and accuracy on the test digits, which no decision has seen."""
    mean, std = statistics(data["train"])
    return evaluate(model, fixed(data["test"], mean, std), nn.CrossEntropyLoss(), {"accuracy": accuracy})


def score(
    name: str, data: Digits, args: argparse.Namespace, results: Results, prefix: str = ""
) -> tuple[list[History], nn.Module]:
    """Train MAKERS[name] once per seed and record accuracies, losses and seconds; the histories and the last model."""
    epochs, seeds = args.epochs, args.seeds
    histories, right, losses, times, cpu = [], [], [], [], []
    for seed in seeds:
        shared.manual_seed(seed)
        model = MAKERS[name]()
        hparams = {"network": name, "seed": seed, "epochs": epochs, "batch_size": args.batch_size, "max_lr": MAX_LR}
        board = [TensorBoard(f"{args.tensorboard}/{prefix}{name}-{seed}", hparams=hparams)] if args.tensorboard else []
        cpu.append(-time.process_time())
        history, seconds = train(model, data, epochs, args.batch_size, callbacks=board, progress=args.progress)
        cpu[-1] += time.process_time()  # of all threads: what the training costs, whatever else the machine does
        measured = on_test(model, data)
        told = f"test accuracy {measured['accuracy']:.2%}, loss {measured['loss']:.4f} nats"
        told += f", {seconds:.1f} s, {cpu[-1]:.1f} s of CPU time"
        by_epoch = " ".join(f"{value:.4f}" for value in history["val_accuracy"])
        print(f"{prefix}{name:6} seed {seed}: {told}; validation {by_epoch}", flush=True)
        histories.append(history)
        right.append(100 * measured["accuracy"])
        losses.append(measured["loss"])
        times.append(seconds)
    record = {"test_accuracy": (right, 2, "%"), "test_loss": (losses, 4, "nats")}
    record |= {"seconds": (times, 1, "s"), "cpu_seconds": (cpu, 1, "s")}
    for what, (values, digits_shown, unit) in record.items():
        for kind, pick in (("mean", np.mean), ("lowest", min), ("highest", max)):
            results.metric(f"{prefix}{name}_{what}_{kind}", round(float(pick(values)), digits_shown), unit=unit)
    results.metric(f"{prefix}{name}_parameters", parameters(model))
    results.metric(f"{prefix}{name}_epochs", epochs, unit="epochs")
    results.metric(f"{prefix}{name}_seeds", len(seeds), unit="seeds")
    return histories, model


# ---------------------------------------------------------------- shifts and augmentation


def shifted(x: Tensor, pixels: int) -> Tensor:
    """Images (N, 1, H, W) moved to the right; what comes in from the left is background."""
    moved = np.full_like(x.numpy(), x.min().item())
    moved[..., pixels:] = x.numpy()[..., : x.shape[-1] - pixels]
    return shared.from_numpy(moved)


def by_shift(model: nn.Module, data: Digits, shifts: Sequence[int]) -> list[float]:
    """Accuracy in per cent on the test digits moved to the right by each of `shifts` pixels."""
    mean, std = statistics(data["train"])
    x, y = tensors(data["test"], mean, std)
    model.eval()
    with shared.no_grad():
        return [100 * accuracy(model(shifted(x, pixels)), y) for pixels in shifts]


def robustness(data: Digits, epochs: int, seeds: Sequence[int], batch_size: int, results: Results) -> plt.Figure:
    """An MLP and the network with batch norm, each with and without augmentation, on shifted test digits."""
    shifts = range(7)
    figure, axis = plt.subplots(figsize=(7.2, 4.2))
    makers = {"mlp": ("MLP", mlp, 3e-3), "cnn": ("CNN with batch norm", cnn, MAX_LR)}
    for colour, (key, (title, make, max_lr)) in enumerate(makers.items()):
        for augment in (False, True):
            rows = []
            for seed in seeds:
                shared.manual_seed(seed)
                model = make()
                train(model, data, epochs, batch_size, augment, max_lr, progress=False)
                rows.append(by_shift(model, data, shifts))
            mean = np.mean(rows, axis=0)
            style = {"color": COLORS[colour], "linestyle": "-" if augment else "--", "marker": "o" if augment else "s"}
            label = f"{title}, {'augmented' if augment else 'as they are'}"
            axis.plot(shifts, mean, label=label, markersize=4, **style)
            axis.fill_between(shifts, np.min(rows, axis=0), np.max(rows, axis=0), color=COLORS[colour], alpha=0.15)
            for pixels in (0, 2, 4):
                kind = "augmented" if augment else "plain"
                results.metric(f"{key}_{kind}_shift_{pixels}", round(float(mean[pixels]), 1), unit="%")
                low, high = (float(f(row[pixels] for row in rows)) for f in (min, max))
                results.metric(f"{key}_{kind}_shift_{pixels}_lowest", round(low, 1), unit="%")
                results.metric(f"{key}_{kind}_shift_{pixels}_highest", round(high, 1), unit="%")
            print(f"{label:32} by shift {[round(float(v), 1) for v in mean]} %", flush=True)
    axis.set(title="Test digits moved to the right", xlabel="shift (pixels)", ylabel="test accuracy (%)", ylim=(0, 101))
    axis.legend(loc="lower left")
    return figure


# ---------------------------------------------------------------- stopping and resuming


def overfitting(data: Digits, seed: int, results: Results) -> plt.Figure:
    """LeNet-5 on 400 digits, without augmentation and at a constant rate: where early stopping stops, and what for."""
    mean, std = statistics(data["train"])
    few = {**data, "train": ImageDataset(data["train"].images[:400], data["train"].labels[:400], [], name="few")}
    batches, validation = loader(few["train"], mean, std, 32), fixed(data["validation"], mean, std)
    settings = {"loss_fn": nn.CrossEntropyLoss(), "metrics": {"accuracy": accuracy}, "progress": False}
    shared.manual_seed(seed)
    model = lenet5()
    stopping = EarlyStopping(patience=8)
    stopped = fit(model, batches, validation, optimizer=optim.Adam(model.parameters(), lr=1e-3), epochs=60,
                  callbacks=[stopping], **settings)  # fmt: skip
    at_best = on_test(model, few)
    shared.manual_seed(seed)
    model = lenet5()
    on = fit(model, batches, validation, optimizer=optim.Adam(model.parameters(), lr=1e-3), epochs=60, **settings)
    at_end = on_test(model, few)
    record = {
        "best_epoch": (stopping.best_epoch, ""), "stopped_epoch": (stopped.epochs, ""),
        "best_loss": (round(stopping.best, 4), "nats"), "last_loss": (round(on["val_loss"][-1], 4), "nats"),
        "best_test_loss": (round(at_best["loss"], 4), "nats"), "last_test_loss": (round(at_end["loss"], 4), "nats"),
        "best_test_accuracy": (round(100 * at_best["accuracy"], 1), "%"),
        "last_test_accuracy": (round(100 * at_end["accuracy"], 1), "%"),
        "same_to_the_bit": (stopped["val_loss"] == on["val_loss"][: stopped.epochs], ""),
    }  # fmt: skip
    for name, (value, unit) in record.items():
        results.metric(f"stopping_{name}", value, unit=unit)
    print("stopping", {name: value for name, (value, _) in record.items()}, flush=True)
    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    numbers = range(1, on.epochs + 1)
    axis.plot(numbers, on["train_loss"], color=COLORS[0], label="training")
    axis.plot(numbers, on["val_loss"], color=COLORS[3], linestyle="--", label="validation")
    axis.axvline(stopping.best_epoch, color="0.4", linestyle=":", label=f"best: epoch {stopping.best_epoch}")
    axis.axvline(stopped.epochs, color="0.4", linestyle="-.", label=f"stopped: epoch {stopped.epochs}")
    axis.set(title="LeNet-5 on 400 digits", xlabel="epoch", ylabel="cross-entropy (nats)", ylim=0)
    axis.legend()
    return figure


def interrupted(data: Digits, seed: int, results: Results) -> None:
    """Four epochs in one go, and two, a new process's worth of new objects, and two more: the same to the bit?"""
    few = {**data, "train": ImageDataset(data["train"].images[:640], data["train"].labels[:640], [], name="few")}

    class Killed(Exception):
        """Stands for the power cut."""

    class PowerCut(Callback):
        """Ends the program in the third epoch, after the second one's checkpoint was written."""

        def after_epoch(self, model: nn.Module, history: History) -> None:
            if self.armed and history.epochs == 3:
                raise Killed

        def __init__(self, armed: bool):
            self.armed = armed

    def run(path: Path | None, armed: bool) -> tuple[History, nn.Module]:
        shared.manual_seed(seed)
        model = cnn()
        history, _ = train(model, few, 4, 64, callbacks=[PowerCut(armed)], resume=path, progress=False)
        return history, model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        try:
            run(path, armed=True)
        except Killed:
            pass
        history, model = run(path, armed=False)
    whole, same_model = run(None, armed=False)
    equal = all(
        (a == b).all().item()
        for a, b in zip(model.state_dict().values(), same_model.state_dict().values(), strict=True)
    )
    results.metric("resumed_losses_equal", dict(history) == dict(whole))
    results.metric("resumed_weights_equal", equal)
    results.metric("resumed_last_loss", history["train_loss"][-1], unit="nats")
    print(f"resumed: losses equal {dict(history) == dict(whole)}, weights and buffers equal {equal}", flush=True)


# ---------------------------------------------------------------- all of it


def draw_training(histories: dict[str, list[History]]) -> plt.Figure:
    """Validation accuracy and training loss by epoch, one line per seed."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8))
    for colour, (title, runs) in enumerate(histories.items()):
        for i, history in enumerate(runs):
            numbers = range(1, history.epochs + 1)
            style = {"color": COLORS[colour], "linewidth": 1.2, "marker": "os"[colour], "markersize": 3}
            left.plot(numbers, history["train_loss"], label=title if i == 0 else None, **style)
            right.plot(numbers, [100 * a for a in history["val_accuracy"]], label=title if i == 0 else None, **style)
    left.set(title="Training loss, augmented digits", xlabel="epoch", ylabel="cross-entropy (nats)", ylim=0)
    right.set(title="Validation accuracy", xlabel="epoch", ylabel="digits read correctly (%)")
    for axis in (left, right):
        axis.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the 60,000 images of MNIST, and no other experiment")
    parser.add_argument("--epochs", type=int, help="(default: 12, with --full 5)")
    parser.add_argument("--batch-size", type=int, help="(default: 64, with --full 128)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--tensorboard", metavar="FOLDER", help="write what happens there, a folder per run")
    parser.add_argument("--progress", action="store_true", help="show a bar per training")
    parser.add_argument("--checkpoint", metavar="FILE", help="keep the last CNN's weights in this file")
    args = parser.parse_args()
    args.epochs = args.epochs or (5 if args.full else 12)
    args.batch_size = args.batch_size or (128 if args.full else 64)
    use_style()
    results = Results(__file__, seed=args.seeds[0])
    data = digits(args.full)
    if args.full:
        _, model = score("cnn", data, args, results, prefix="full_")
    else:
        model = small_experiments(data, args, results)
    if args.checkpoint:
        shared.save(model.state_dict(), args.checkpoint)
    results.save(keep=lambda name: name.startswith("full_") != args.full)


def small_experiments(data: Digits, args: argparse.Namespace, results: Results) -> nn.Module:
    """Everything that mnist-5k is enough for; the last trained network with batch norm."""
    histories = {}
    for name, title in {"lenet": "LeNet-5", "cnn": "CNN with batch norm"}.items():
        histories[title], model = score(name, data, args, results)
    results.figure(
        draw_training(histories),
        "digits_training",
        alt="Training loss and validation accuracy against epoch for LeNet-5 and the CNN with batch norm, one line per "
        "seed: the CNN is far ahead after the first epoch and a little ahead at the end.",
    )
    results.figure(
        robustness(data, args.epochs, args.seeds, args.batch_size, results),
        "shift_and_augmentation",
        alt="Test accuracy against the shift of the digits in pixels for an MLP and a CNN, with and without "
        "augmentation: the MLP without it falls first, the CNN with it last.",
    )
    results.figure(
        overfitting(data, args.seeds[0], results),
        "early_stopping",
        alt="Training and validation loss against epoch on 400 digits: the validation loss has its minimum at the "
        "dotted line, early stopping ends the run eight epochs later, and after that it goes on rising.",
    )
    interrupted(data, args.seeds[0], results)
    return model


if __name__ == "__main__":
    main()
