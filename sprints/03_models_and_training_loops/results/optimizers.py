"""Note 04: four optimizers in the valley of the dim scanner, and over a range of learning rates on digits.

python sprints/03_models_and_training_loops/results/optimizers.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import matplotlib.pyplot as plt
import numpy as np
from common import batches, digits, finite, measure, mlp, strokes
from tqdm import tqdm

import shared
from course.plotting import use_style
from course.results import Results
from shared import nn, optim

GOAL = 1e-4
MAKERS: dict[str, Callable[[Iterable, float], optim.Optimizer]] = {
    "SGD": lambda parameters, lr: optim.SGD(parameters, lr=lr),
    "momentum": lambda parameters, lr: optim.SGD(parameters, lr=lr, momentum=0.9),
    "RMSprop": lambda parameters, lr: optim.RMSprop(parameters, lr=lr),
    "Adam": lambda parameters, lr: optim.Adam(parameters, lr=lr),
}
RACERS = {
    "SGD": MAKERS["SGD"],
    "momentum 0.5": lambda parameters, lr: optim.SGD(parameters, lr=lr, momentum=0.5),
    "momentum 0.9": MAKERS["momentum"],
    "RMSprop": MAKERS["RMSprop"],
    "Adam": MAKERS["Adam"],
}
VALLEY_RATES = [round(m * 10**e, 4) for e in (-3, -2, -1) for m in (1, 1.5, 2, 3, 4, 5, 6, 7, 7.2, 8)] + [
    1.0,
    1.5,
]
DIGIT_RATES = [10**e for e in (-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5)]


def valley() -> tuple[shared.Tensor, shared.Tensor]:
    """D (6, 2): the sum of the top row and a fifth of the bottom row; y (6,): the height of the stroke."""
    x, _ = strokes()
    rows = shared.stack([x[:, 0] + x[:, 1], 0.2 * (x[:, 2] + x[:, 3])], dim=1)
    return rows, shared.tensor([0, 1, 0.5, 0.5, 0.5, 0.5])


def walk(make: Callable, lr: float, limit: int) -> tuple[list[list[float]], list[float]]:
    """(weights, losses) of `limit` steps from (0, 0), fewer where it diverges."""
    rows, y = valley()
    w = shared.zeros(2, requires_grad=True)
    optimizer, path, losses = make([w], lr), [w.tolist()], []
    for _ in range(limit):
        optimizer.zero_grad()
        loss = ((rows @ w - y) ** 2).mean()
        losses.append(loss.item())
        if not losses[-1] < 1e3:
            break
        loss.backward()
        optimizer.step()
        path.append(w.tolist())
    return path, losses


def settled(losses: list[float]) -> int:
    """The number of steps after which the loss stays below GOAL; len(losses) where it never does."""
    return next((i + 1 for i in reversed(range(len(losses))) if not losses[i] < GOAL), 0)


def race(limit: int) -> dict[str, tuple[float, list[list[float]], list[float]]]:
    """For each optimizer the rate with which it settles first: (rate, path, losses) of `limit` steps."""
    best = {}
    for name, make in RACERS.items():
        runs = [(lr, *walk(make, lr, limit)) for lr in VALLEY_RATES]
        lr, path, losses = min(runs, key=lambda run: settled(run[2]) if len(run[2]) == limit else limit)
        best[name] = (lr, path, losses)
    return best


def draw_race(best: dict) -> plt.Figure:
    """Contours with the five paths, and the loss against the step."""
    rows, y = (t.numpy() for t in valley())
    w1, w2 = np.meshgrid(np.linspace(-1.1, 1.7, 161), np.linspace(-0.6, 4.2, 161))
    surface = ((w1[..., None] * rows[:, 0] + w2[..., None] * rows[:, 1] - y) ** 2).mean(-1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), width_ratios=[1.15, 1])
    left.contour(w1, w2, surface, levels=np.geomspace(1e-3, 4, 12), colors="0.75", linewidths=0.8)
    for (name, (lr, path, losses)), marker in zip(best.items(), "osvD^", strict=True):
        steps = settled(losses)
        left.plot(*zip(*path[: steps + 1], strict=True), marker=marker, markersize=3.5, linewidth=1.2)
        label = f"{name}, η = {lr:g}: {steps} steps"
        right.semilogy(losses, marker=marker, markersize=3, linewidth=1.2, markevery=2, label=label)
    left.plot(0, 2.5, "x", color="black", markersize=10, markeredgewidth=2)
    left.set(title="Paths in the valley", xlabel="w₁ (top row)", ylabel="w₂ (dim bottom row)")
    right.set(title="Loss", xlabel="step", ylabel="mean squared error (rows²)", xlim=(-2, 90), ylim=(1e-7, 10))
    right.axhline(GOAL, color="0.5", linestyle="--", linewidth=1)
    right.legend(loc="upper right", fontsize=9)
    return figure


def sweep(epochs: int, seed: int) -> dict[str, list[float]]:
    """Validation loss on digits after `epochs`, for each optimizer and each of DIGIT_RATES."""
    data = digits()
    final: dict[str, list[float]] = {name: [] for name in MAKERS}
    for name, lr in tqdm([(name, lr) for name in MAKERS for lr in DIGIT_RATES], desc="learning rates"):
        shared.manual_seed(seed)
        model = mlp(data["train"][0].shape[1])
        optimizer = MAKERS[name](model.parameters(), lr)
        for _ in range(epochs):
            for x, y in batches(*data["train"]):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        final[name].append(finite(measure(model, *data["validation"])[0]))
    return final


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5, help="epochs per point of the sweep (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=120, help="steps in the valley (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_style()
    np.seterr(over="ignore", invalid="ignore")
    results = Results(__file__, seed=args.seed)

    rows, _ = valley()
    low, high = np.linalg.eigvalsh((rows.T @ rows * (2 / 6)).numpy())
    results.metric("valley_condition", round(float(high / low), 2))
    results.metric("valley_largest_rate", round(float(2 / high), 4))
    best = race(args.limit)
    for name, (lr, _, losses) in best.items():
        key = name.lower().replace(" ", "_").replace("0.", "")
        results.metric(f"valley_steps_{key}", settled(losses), unit="steps")
        results.metric(f"valley_rate_{key}", lr)
        print(f"{name:12} best rate {lr:<6g} stays below {GOAL:g} after {settled(losses)} steps")
    _, losses = walk(MAKERS["RMSprop"], 0.1, 400)
    lowest = int(np.argmin(losses))
    relapse = next(i for i in range(lowest, len(losses)) if losses[i] > GOAL)
    results.metric("valley_rmsprop_lowest_loss", float(f"{losses[lowest]:.1g}"), unit="rows²")
    results.metric("valley_rmsprop_relapse_step", relapse, unit="steps")
    print(f"RMSprop at 0.1: {losses[lowest]:.1g} at step {lowest}, above {GOAL:g} again at step {relapse}")
    results.figure(
        draw_race(best),
        "optimizer_race",
        alt="Left: contours of a long narrow valley with five paths from the origin to the minimum at (0, "
        "2.5); SGD zigzags between the walls, momentum 0.9 overshoots and swings back, RMSprop leaps "
        "far to the right with its first step and returns, Adam turns along the valley. Right: loss "
        "against step on a logarithmic scale; SGD needs the most steps.",
    )

    final = sweep(args.epochs, args.seed)
    figure, axis = plt.subplots(figsize=(7.2, 4))
    for (name, losses), marker in zip(final.items(), "osD^", strict=True):
        axis.loglog(DIGIT_RATES, [min(loss, 5) for loss in losses], marker=marker, markersize=5, label=name)
        i = int(np.argmin(losses))
        results.metric(f"digits_best_rate_{name.lower()}", float(f"{DIGIT_RATES[i]:.2g}"))
        results.metric(f"digits_best_loss_{name.lower()}", round(losses[i], 4), unit="nats")
        print(f"{name:9} best rate on digits {DIGIT_RATES[i]:.2g}: validation loss {losses[i]:.4f} nats")
    axis.set(
        title=f"Digits: validation loss after {args.epochs} epochs",
        xlabel="learning rate",
        ylabel="cross-entropy (nats), cut at 5",
    )
    axis.legend(loc="upper center", bbox_to_anchor=(0.45, 1))
    results.figure(
        figure,
        "learning_rate_sweep",
        alt="Validation loss against learning rate on logarithmic axes: four U-shaped curves with similar "
        "minima; those of RMSprop and Adam lie at smaller rates than those of momentum and SGD.",
    )
    results.save()


if __name__ == "__main__":
    main()
