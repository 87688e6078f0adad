"""What shuffling does: the error of a batch's gradient, and training in sorted, fixed and reshuffled order.

python sprints/02_datasets_and_dataloaders/results/shuffling.py
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np
from network import evaluate, flat, gradient, start, step

import shared
from course.plotting import COLORS, use_style
from course.results import Results

ORDERS = {"sorted by label": "vermillion", "one random order, kept": "green", "reshuffled each epoch": "blue"}


def gradient_errors(x: np.ndarray, y: np.ndarray, sizes: list[int], draws: int, seed: int):
    """Root mean square of ‖ĝ − g‖/‖g‖ over batches, (shuffled, sorted, formula) for each size, at one point.

    The model is softmax regression at zero weights, where example i's gradient is x_iᵀ(p_i − onehot_i).
    """
    parameters = start((x.shape[1], 10), seed=0)
    for parameter in parameters:
        parameter.array[...] = 0
    _, (full, _) = gradient(parameters, x, y)
    norm = np.linalg.norm(full)
    residual = np.full((len(y), 10), 0.1) - np.eye(10)[y]  # p − onehot, (N, 10)
    squares = (x**2).sum(axis=1) * (residual**2).sum(axis=1)  # ‖g_i‖²
    variance = squares.mean() - norm**2  # σ²
    rng, by_label = np.random.default_rng(seed), np.argsort(y, kind="stable")
    errors = {"shuffled": [], "sorted": [], "formula": []}
    for size in sizes:
        starts = np.arange(0, len(y) - size + 1, size)
        chosen = {
            "shuffled": [rng.permutation(len(y))[:size] for _ in range(draws)],
            "sorted": [by_label[s : s + size] for s in rng.permutation(starts)[:draws]],
        }
        for name, batches in chosen.items():
            distances = [np.linalg.norm(gradient(parameters, x[b], y[b])[1][0] - full) for b in batches]
            errors[name].append(np.sqrt(np.mean(np.square(distances))) / norm)
        errors["formula"].append(np.sqrt(variance / size * (len(y) - size) / (len(y) - 1)) / norm)
    return {name: np.array(values) for name, values in errors.items()}


def train(x, y, x_test, y_test, order: str, epochs: int, batch: int, lr: float, seed: int, every: int = 5):
    """Loss on all of x after every few steps, and test accuracy after each epoch."""
    parameters, rng = start((x.shape[1], 64, 10), seed), np.random.default_rng(seed)
    kept, by_label = rng.permutation(len(y)), np.argsort(y, kind="stable")
    curve, accuracies, steps = [], [], 0
    for _ in range(epochs):
        indices = {"sorted by label": by_label, "one random order, kept": kept}.get(order)
        indices = rng.permutation(len(y)) if indices is None else indices
        for first in range(0, len(y), batch):
            if steps % every == 0:
                curve.append((steps, evaluate(parameters, x, y)[0]))
            step(parameters, x[indices[first : first + batch]], y[indices[first : first + batch]], lr)
            steps += 1
        loss, _ = evaluate(parameters, x, y)
        curve.append((steps, loss))
        accuracies.append((loss, evaluate(parameters, x_test, y_test)[1]))
    return np.array(curve), accuracies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--draws", type=int, default=100, help="batches per size for the gradient's error")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    train_set, test_set = shared.data.load("mnist-5k")
    (x, y), (x_test, y_test) = flat(train_set), flat(test_set)
    x, x_test = x / 255, x_test / 255
    mean, std = x.mean(), x.std()
    x, x_test = (x - mean) / std, (x_test - mean) / std

    sizes = [1, 2, 4, 8, 16, 32, 64, 100, 200, 400, 800, 1600]
    errors = gradient_errors(x, y, sizes, arguments.draws, arguments.seed)
    runs = {
        order: train(x, y, x_test, y_test, order, arguments.epochs, arguments.batch, arguments.lr, arguments.seed)
        for order in ORDERS
    }

    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.0))
    for order, (curve, _) in runs.items():
        left.plot(*curve.T, label=order, color=COLORS[ORDERS[order]], lw=1.5)
    left.set(xlabel="step", ylabel="loss on the training set (nats)", title="The same examples in three orders")
    left.set(yscale="log")
    left.legend(loc="lower left")
    right.loglog(sizes, errors["formula"], color=COLORS["black"], lw=1, label="formula, shuffled")
    right.loglog(sizes, errors["shuffled"], "o", color=COLORS["blue"], label="measured, shuffled")
    right.loglog(sizes, errors["sorted"], "s", color=COLORS["vermillion"], label="measured, sorted")
    right.set(
        xlabel="batch size",
        ylabel="error of the gradient, relative",
        title="How far a batch is from the whole",
    )
    ticks = [0.2, 0.5, 1, 2, 5]
    right.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    right.yaxis.set_minor_locator(plt.NullLocator())
    right.legend(loc="lower left")

    results = Results(__file__, seed=arguments.seed)
    alt = (
        "Left: training loss against steps; the sorted order oscillates and stays high, both random orders "
        "fall. Right: gradient error against batch size; shuffled follows a falling line, sorted stays flat."
    )
    results.figure(figure, "shuffling", alt=alt)
    short = {
        "sorted by label": "sorted",
        "one random order, kept": "kept",
        "reshuffled each epoch": "reshuffled",
    }
    for order, (_, scores) in runs.items():
        for epoch in (1, arguments.epochs):
            results.metric(f"loss_{short[order]}_epoch_{epoch}", scores[epoch - 1][0], unit="nats")
            results.metric(f"accuracy_{short[order]}_epoch_{epoch}", 100 * scores[epoch - 1][1], unit="%")
    for size in (32, 400):
        for name in errors:
            results.metric(f"gradient_error_{name}_{size}", float(errors[name][sizes.index(size)]))
    results.save()
    for name, entry in results._metrics.items():
        print(f"{name:34} {entry['value']:.4g} {entry['unit']}")


if __name__ == "__main__":
    main()
