"""Note 04: four numbers by hand; what drifts without batch norm; rates and initial widths; the forgotten `eval()`.

python sprints/04_advanced_training_mnist/results/batch_norm.py     mnist-5k, a few minutes on two cores
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from copy import deepcopy

import matplotlib.pyplot as plt
import numpy as np
from networks import cnn, digits, statistics, tensors

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn, optim
from shared.nn import functional as F

FOUR = (-1.0, 5.0, 1.0, 3.0)  # the bar filter's outputs on the little one
CEILING = 10.0  # a loss beyond it, or not a number, is drawn there
Data = dict[str, tuple[Tensor, Tensor]]


def small(normalise: bool) -> nn.Sequential:
    """The network of `networks.cnn` with a third of the channels: quick enough for many runs."""
    return cnn(channels=(8, 16, 32), dropout=0.0, normalise=normalise)


def load() -> Data:
    """Standardised images (N, 1, H, W) and labels (N,) by part."""
    data = digits()
    mean, std = statistics(data["train"])
    return {part: tensors(data[part], mean, std) for part in data}


def steps(model: nn.Module, data: Data, epochs: int, lr: float, batch_size: int = 64) -> Iterator[float]:
    """SGD with momentum 0.9; yields each step's loss, and ends where it is no longer finite."""
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    x, y = data["train"]
    for _ in range(epochs):
        order = shared.randperm(len(x))
        for start in range(0, len(x) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[chosen]), y[chosen])
            if not math.isfinite(loss.item()):
                return
            loss.backward()
            optimizer.step()
            yield loss.item()


def evaluated(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 400) -> tuple[float, float]:
    """(loss in nats, accuracy), in the mode in which the model comes; a loss that is not finite is CEILING."""
    loss = right = 0.0
    with shared.no_grad():
        for start in range(0, len(x), batch_size):
            logits, target = model(x[start : start + batch_size]), y[start : start + batch_size]
            loss += F.cross_entropy(logits, target).item() * len(target)
            right += (logits.argmax(dim=1) == target).float().sum().item()
    return (min(loss / len(x), CEILING) if math.isfinite(loss) else CEILING), right / len(x)


# ---------------------------------------------------------------- four numbers


def four_numbers() -> plt.Figure:
    """The four numbers on their way: as they come, centred, divided by √5, scaled and shifted."""
    x = np.array(FOUR)
    normalised = (x - x.mean()) / x.std()
    stages = (x, x - x.mean(), normalised, 2 * normalised + 1)
    names = ("x", "x − μ,  μ = 2", "x̂ = (x − μ) / √5", "y = γ x̂ + β,  γ = 2, β = 1")
    figure, axes = plt.subplots(1, 4, figsize=(10.4, 2.9), sharey=True)
    for axis, values, name in zip(axes, stages, names, strict=True):
        axis.bar(range(1, 5), values, color=[COLORS[i] for i in (0, 3, 2, 1)], width=0.7)
        axis.axhline(0, color="0.3", linewidth=0.8)
        axis.axhline(values.mean(), color="0.3", linestyle="--", linewidth=1)
        for place, value in enumerate(values, start=1):
            above = value >= 0
            text = f"{value:.3g}".replace("-", "−")
            axis.text(place, value + (0.2 if above else -0.2), text, ha="center", va="bottom" if above else "top")
        axis.set_title(name, fontsize=10.5)
        axis.set(xticks=range(1, 5), xlabel="number", ylim=(-4.6, 6.4))
        axis.grid(False)
    axes[0].set_ylabel("value")
    return figure


# ---------------------------------------------------------------- what drifts


def before_relu(model: nn.Sequential, x: Tensor) -> list[np.ndarray]:
    """What enters each relu, (N, C, H, W) per layer, in the mode in which the model comes."""
    seen: list[np.ndarray] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].numpy())

    handles = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, nn.ReLU)]
    with shared.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return seen


def drift(data: Data, epochs: int, lr: float, seed: int, results: Results) -> plt.Figure:
    """The width of what enters each relu while the network learns, without and with batch norm."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), sharey=True)
    fixed = data["validation"][0][:256]
    for axis, normalise in zip(axes, (False, True), strict=True):
        shared.manual_seed(seed)
        model = small(normalise)
        rows = []
        for _ in steps(model, data, epochs, lr):
            before = deepcopy(model.state_dict())  # looking in train mode moves the running statistics: put them back
            rows.append([a.std() for a in before_relu(model, fixed)])
            model.load_state_dict(before)
        widths = np.array(rows)
        for layer in range(widths.shape[1]):
            axis.semilogy(widths[:, layer], color=COLORS[layer], label=f"layer {layer + 1}")
        key = "with" if normalise else "without"
        axis.set(title=f"{'With' if normalise else 'Without'} batch norm", xlabel="step")
        axis.legend()
        for layer in (0, widths.shape[1] - 1):
            first, last = float(widths[0, layer]), float(widths[-1, layer])
            results.metric(f"drift_{key}_layer_{layer + 1}_first", round(first, 3))
            results.metric(f"drift_{key}_layer_{layer + 1}_last", round(last, 3))
            results.metric(f"drift_{key}_layer_{layer + 1}_factor", round(last / first, 1))
        print(f"{key:8} widths by layer: first {widths[0].round(3)}, last {widths[-1].round(3)}", flush=True)
    results.metric("drift_steps", len(widths), unit="steps")
    axes[0].set_ylabel("standard deviation before relu")
    return figure


# ---------------------------------------------------------------- rates and initial widths


def final_loss(data: Data, normalise: bool, epochs: int, lr: float, factor: float, seed: int) -> float:
    """Validation loss after `epochs`, the initial weights of all convolutions multiplied by `factor`."""
    shared.manual_seed(seed)
    model = small(normalise)
    with shared.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(factor)
    asked = epochs * (len(data["train"][0]) // 64)
    done = sum(1 for _ in steps(model, data, epochs, lr))
    return evaluated(model.eval(), *data["validation"])[0] if done == asked else CEILING


def tolerance(data: Data, epochs: int, seeds: list[int], results: Results) -> plt.Figure:
    """Validation loss against the learning rate, and against a factor on the initial weights."""
    rates = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    factors = [0.01, 0.1, 1.0, 10.0, 100.0]
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), sharey=True)
    for axis, sweep, title in zip(axes, (rates, factors), ("Learning rate", "Initial weights"), strict=True):
        for normalise in (False, True):
            at = [
                [final_loss(data, normalise, epochs, *((v, 1.0) if sweep is rates else (0.03, v)), s) for s in seeds]
                for v in sweep
            ]
            losses = np.array(at)
            label, colour = ("with batch norm", COLORS[0]) if normalise else ("without", COLORS[3])
            axis.loglog(
                sweep, losses.mean(1), marker="o" if normalise else "s", markersize=4, color=colour, label=label
            )
            axis.fill_between(sweep, losses.min(1), losses.max(1), color=colour, alpha=0.2)
            key = ("rate_" if sweep is rates else "width_") + ("with" if normalise else "without")
            best = int(losses.mean(1).argmin())
            results.metric(f"{key}_best", sweep[best])
            results.metric(f"{key}_best_loss", round(float(losses.mean(1)[best]), 4), unit="nats")
            for value, row in zip(sweep, losses, strict=True):
                results.metric(f"{key}_loss_at_{value:g}", round(float(row.mean()), 4), unit="nats")
            print(f"{title}, {label}: {dict(zip(sweep, losses.mean(1).round(3).tolist(), strict=True))}", flush=True)
        axis.set_title(title)
        axis.legend(loc="upper center")
    axes[0].set(xlabel="learning rate of SGD, momentum 0.9", ylabel=f"validation loss after {epochs} epochs (nats)")
    axes[1].set(xlabel="factor on the initial convolution weights")
    results.metric("tolerance_epochs", epochs, unit="epochs")
    results.metric("tolerance_seeds", len(seeds), unit="seeds")
    return figure


# ---------------------------------------------------------------- train and eval


def forgotten(data: Data, epochs: int, seed: int, results: Results) -> plt.Figure:
    """Validation accuracy by epoch: evaluated as it should be, and in train mode on batches of several kinds."""
    x, y = data["validation"]
    by_class = y.argsort()
    sorted_x, sorted_y = x[by_class], y[by_class]
    ways = {
        "eval()": lambda m: evaluated(m.eval(), x, y),
        "train mode, batches of 200": lambda m: evaluated(m.train(), x, y, 200),
        "train mode, one by one": lambda m: evaluated(m.train(), x, y, 1),
        "train mode, sorted by class": lambda m: evaluated(m.train(), sorted_x, sorted_y, 80),
        "eval(), momentum 0.001": lambda m: evaluated(m.eval(), x, y),
    }
    keys = ("eval", "train_200", "train_1", "train_sorted", "slow")
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    per_epoch = len(data["train"][0]) // 64
    for slow in (False, True):
        shared.manual_seed(seed)
        model = small(normalise=True)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.001 if slow else 0.1
        for step, _ in enumerate(steps(model, data, epochs, 0.03), start=1):
            if step % per_epoch == 0:
                for name, way in ways.items():
                    if ("0.001" in name) == slow:
                        curves[name].append(way(deepcopy(model)))  # a copy: evaluating in train mode changes it
                model.train()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for (name, curve), key, marker in zip(curves.items(), keys, "os^Dv", strict=True):
        numbers = range(1, len(curve) + 1)
        width = 4 if key == "eval" else 1.5  # a broad line beneath, which the one that covers it leaves visible
        left.semilogy(numbers, [loss for loss, _ in curve], marker=marker, markersize=4, linewidth=width, label=name)
        right.plot(numbers, [100 * a for _, a in curve], marker=marker, markersize=4, linewidth=width, label=name)
        results.metric(f"mode_{key}_loss", round(curve[-1][0], 4), unit="nats")
        results.metric(f"mode_{key}_accuracy", round(100 * curve[-1][1], 1), unit="%")
        results.metric(f"mode_{key}_first_accuracy", round(100 * curve[0][1], 1), unit="%")
        print(
            f"{name:28} loss {curve[-1][0]:.3f} nats, accuracy {curve[-1][1]:.3f}; first {curve[0][1]:.3f}", flush=True
        )
    results.metric("mode_epochs", epochs, unit="epochs")
    left.set(title="Validation loss", xlabel="epoch", ylabel="cross-entropy (nats)")
    right.set(title="Validation accuracy", xlabel="epoch", ylabel="digits read correctly (%)", ylim=(70, 100))
    right.legend(loc="lower right", fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the sweeps (default: 0 1 2)")
    args = parser.parse_args()
    use_style()
    np.seterr(over="ignore", invalid="ignore")  # divergence is one of the subjects
    results = Results(__file__, seed=args.seeds[0])
    results.figure(
        four_numbers(),
        "batch_norm_by_hand",
        alt="Four bar charts of the numbers −1, 5, 1, 3: as they are; less their mean 2; divided by the root of 5; "
        "times 2 plus 1. The pattern of the bars stays the same from panel to panel.",
    )
    data = load()
    results.figure(
        drift(data, args.epochs, 0.03, args.seeds[0], results),
        "activation_drift",
        alt="Standard deviation of what enters three relu layers against the training step, on a logarithmic axis. "
        "Without batch norm the three start far apart and grow, with it all start at 1 and stay near it.",
    )
    results.figure(
        tolerance(data, args.epochs, args.seeds, results),
        "batch_norm_tolerance",
        alt="Validation loss against the learning rate and against a factor on the initial weights: with batch norm "
        "the curve is low over a wider range of both.",
    )
    results.figure(
        forgotten(data, 2 * args.epochs, args.seeds[0], results),
        "forgotten_eval",
        alt="Validation loss and accuracy by epoch for one network evaluated in five ways: in eval mode and in train "
        "mode on batches of 200 it reads well, on single digits and on batches of one class worse, and with "
        "momentum 0.001 it goes up and down from epoch to epoch.",
    )
    results.save()


if __name__ == "__main__":
    main()
