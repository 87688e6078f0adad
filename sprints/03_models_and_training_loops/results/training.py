"""Note 06: a linear classifier and an MLP on digits; overfitting; five broken loops; modes and memory.

python sprints/03_models_and_training_loops/results/training.py          mnist-5k, about a minute on two cores
python sprints/03_models_and_training_loops/results/training.py --full   and all of MNIST

Without --full the numbers of the last run on all of MNIST stay in metrics.json.
"""

from __future__ import annotations

import argparse
import math
import time
import tracemalloc
from collections.abc import Iterator

import matplotlib.pyplot as plt
from common import batches, digits, finite, measure, mlp
from initialisation import tower

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import nn, optim
from shared.training import accuracy, fit

Data = dict[str, tuple[shared.Tensor, shared.Tensor]]


def train(model: nn.Module, data: Data, epochs: int, lr: float = 1e-3, batch_size: int = 64) -> dict[str, list[float]]:
    """`shared.training.fit` with Adam on data["train"], validated on data["validation"]; the history."""
    loaders = [
        shared.data.DataLoader(shared.data.TensorDataset(*data[part]), batch_size=batch_size, shuffle=part == "train")
        for part in ("train", "validation")
    ]
    return fit(
        model,
        *loaders,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=optim.Adam(model.parameters(), lr=lr),
        epochs=epochs,
        metrics={"accuracy": accuracy},
    )


def score(name: str, data: Data, epochs: int, seed: int, results: Results, prefix: str = "") -> dict[str, list[float]]:
    """Train "linear" or "mlp" on `data`, record its test accuracy and time; the history."""
    shared.manual_seed(seed)
    inputs = data["train"][0].shape[1]
    model = nn.Linear(inputs, 10) if name == "linear" else mlp(inputs)
    start = time.perf_counter()
    history = train(model, data, epochs)
    seconds = time.perf_counter() - start
    loss, right = measure(model, *data["test"])
    results.metric(f"{prefix}{name}_test_accuracy", round(100 * right, 2), unit="%")
    results.metric(f"{prefix}{name}_test_loss", round(loss, 4), unit="nats")
    results.metric(f"{prefix}{name}_seconds", round(seconds, 1), unit="s")
    results.metric(f"{prefix}{name}_epochs", epochs, unit="epochs")
    print(f"{prefix}{name:7} test: accuracy {right:.3f}, loss {loss:.3f} nats; {seconds:.1f} s")
    return history


def overfit(data: Data, epochs: int, seed: int, results: Results) -> plt.Figure:
    """The same network on 200 digits and on all of them: training and validation loss by epoch."""
    few = {**data, "train": tuple(t[:200] for t in data["train"])}
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), sharey=True)
    for axis, part, key in zip(axes, (few, data), ("few", "many"), strict=True):
        shared.manual_seed(seed)
        history = train(mlp(part["train"][0].shape[1]), part, epochs, batch_size=32)
        numbers = range(1, epochs + 1)
        val = history["val_loss"]
        best = min(numbers, key=lambda epoch: val[epoch - 1])
        axis.plot(numbers, history["train_loss"], label="training", color=COLORS[0])
        axis.plot(numbers, val, label="validation", color=COLORS[3], linestyle="--")
        axis.axvline(best, color="0.5", linestyle=":", linewidth=1.2, label=f"best epoch: {best}")
        axis.set(title=f"{len(part['train'][0]):,} digits", xlabel="epoch", ylim=(0, 1.5))
        axis.legend()
        for name, value, unit in (
            ("best_epoch", best, ""),
            ("best_loss", round(val[best - 1], 4), "nats"),
            ("best_accuracy", round(100 * history["val_accuracy"][best - 1], 2), "%"),
            ("final_loss", round(val[-1], 4), "nats"),
            ("final_accuracy", round(100 * history["val_accuracy"][-1], 2), "%"),
            ("final_train_loss", float(f"{history['train_loss'][-1]:.2g}"), "nats"),
            ("epochs", epochs, "epochs"),
        ):
            results.metric(f"overfit_{key}_{name}", value, unit=unit)
        end = f"last {val[-1]:.3f}, train {history['train_loss'][-1]:.1e}"
        print(f"{key:5} best epoch {best}: {val[best - 1]:.3f}, {end}")
    axes[0].set_ylabel("cross-entropy (nats)")
    return figure


def broken(bug: str, data: Data, epochs: int, seed: int) -> Iterator[float]:
    """The training loss at each step of a plain loop with SGD in which one thing is wrong, named by `bug`."""
    shared.manual_seed(seed)
    x, y = data["train"]
    if bug == "labels shuffled apart":
        y = y[shared.randperm(len(y))]
    if bug == "sorted, not shuffled":
        order = y.argsort()
        x, y = x[order], y[order]
    model = mlp(x.shape[1])
    optimizer = optim.SGD(model.parameters(), lr=5.0 if bug == "rate 100 times too large" else 0.05)
    for _ in range(epochs):
        in_order = ((x[i : i + 64], y[i : i + 64]) for i in range(0, len(x), 64))
        for inputs, targets in in_order if bug == "sorted, not shuffled" else batches(x, y):
            if bug != "zero_grad forgotten":
                optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            if bug != "step forgotten":
                optimizer.step()
            yield finite(loss.item(), 30.0)


def draw_broken(data: Data, epochs: int, seed: int) -> plt.Figure:
    """One panel per bug, the correct loop in grey behind each."""
    bugs = ("zero_grad forgotten", "step forgotten", "labels shuffled apart")
    bugs += ("sorted, not shuffled", "rate 100 times too large")
    right = list(broken("", data, epochs, seed))
    figure, axes = plt.subplots(2, 3, figsize=(10, 5.4), sharex=True)
    for axis, bug in zip(axes.flat, ("correct", *bugs), strict=True):
        axis.plot(right, color="0.7", linewidth=1)
        if bug != "correct":
            axis.plot(list(broken(bug, data, epochs, seed)), color=COLORS[3], linewidth=1)
        axis.axhline(math.log(10), color="0.4", linestyle="--", linewidth=0.8)
        axis.set_title(bug, fontsize=11)
        axis.set_ylim(0, 31 if bug == bugs[-1] else 7 if bug == bugs[0] else 5)
    for axis in axes[1]:
        axis.set_xlabel("step")
    for axis in axes[:, 0]:
        axis.set_ylabel("training loss (nats)")
    return figure


def modes(data: Data, epochs: int, seed: int, results: Results) -> None:
    """Test accuracy of a network with dropout in evaluation mode, and five times with `eval()` forgotten."""
    shared.manual_seed(seed)
    model = mlp(data["train"][0].shape[1], dropout=0.5)
    train(model, data, epochs)
    x, y = data["test"]
    results.metric("dropout_eval_mode_accuracy", round(100 * measure(model, x, y)[1], 2), unit="%")
    model.train()
    with shared.no_grad():
        forgotten = [accuracy(model(x), y) for _ in range(5)]
    results.metric("dropout_train_mode_lowest", round(100 * min(forgotten), 2), unit="%")
    results.metric("dropout_train_mode_highest", round(100 * max(forgotten), 2), unit="%")
    print(f"dropout: eval {measure(model, x, y)[1]:.3f}, eval() forgotten {[round(a, 3) for a in forgotten]}")


def memory(data: Data, seed: int, results: Results) -> None:
    """Peak memory of a forward pass of the twenty-layer network over the test set, graph or not."""
    shared.manual_seed(seed)
    x = data["test"][0]
    model = tower(x.shape[1], "Kaiming")
    for name, recording in (("with_graph", True), ("no_grad", False)):
        tracemalloc.start()
        with shared.set_grad_enabled(recording):
            logits = model(x)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        del logits
        results.metric(f"forward_memory_{name}", round(peak, 1), unit="MiB")
        print(f"forward pass, {name:10} peak {peak:.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="also train on the 60,000 images of MNIST")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of the main runs (default: %(default)s)")
    parser.add_argument("--overfit-epochs", type=int, default=60, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seed)
    data = digits()

    histories = {name: score(name, data, args.epochs, args.seed, results) for name in ("linear", "mlp")}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6))
    numbers = range(1, args.epochs + 1)
    for (name, history), colour in zip(histories.items(), (COLORS[1], COLORS[0]), strict=True):
        left.plot(numbers, history["train_loss"], color=colour, marker="o", markersize=3, label=f"{name}, training")
        left.plot(numbers, history["val_loss"], color=colour, linestyle="--", label=f"{name}, validation")
        right.plot(numbers, history["val_accuracy"], color=colour, linestyle="--", label=f"{name}, validation")
    left.set(title="Loss", xlabel="epoch", ylabel="cross-entropy (nats)", ylim=0)
    right.set(title="Accuracy", xlabel="epoch", ylabel="share of digits read correctly")
    for axis in (left, right):
        axis.legend()
    results.figure(
        figure,
        "digits_training",
        alt="Loss and validation accuracy against epoch for a linear classifier and an MLP on digits: the "
        "MLP reaches a lower loss and a higher accuracy, and its training loss falls below its "
        "validation loss.",
    )
    results.figure(
        overfit(data, args.overfit_epochs, args.seed, results),
        "overfitting",
        alt="Training and validation loss against epoch. With 200 digits the training loss goes to zero "
        "while the validation loss turns upward early; with the whole training set the validation loss "
        "is much lower.",
    )
    results.figure(
        draw_broken(data, 3, args.seed),
        "broken_loops",
        alt="Six panels of training loss against step. Correct: falls. zero_grad forgotten: swings up and "
        "down. step forgotten: stays at ln 10. labels shuffled apart: stays near ln 10. sorted, not "
        "shuffled: a sawtooth. rate 100 times too large: jumps far above ln 10.",
    )
    modes(data, args.epochs, args.seed, results)
    memory(data, args.seed, results)
    if args.full:
        score("mlp", digits(full=True, validation=10_000), args.epochs, args.seed, results, prefix="full_")
    results.save(keep=lambda name: name.startswith("full_") and not args.full)


if __name__ == "__main__":
    main()
