"""Notes 01 and 02: the six strokes, and what a line and a hidden layer make of them.

python sprints/03_models_and_training_loops/results/strokes.py
"""

from __future__ import annotations

import argparse
import math

import matplotlib.pyplot as plt
from common import CLASSES, NAMES, strokes

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import nn, optim


def draw_strokes() -> plt.Figure:
    """The strokes by class, and the top stroke unrolled into a vector."""
    x, _ = strokes()
    figure, axes = plt.subplots(1, 7, figsize=(9.6, 2.3), width_ratios=[1] * 6 + [2.3])
    for i, axis in enumerate(axes[:6]):
        axis.imshow(1 - x[i].reshape(2, 2).numpy(), cmap="gray", vmin=-0.15, vmax=1)
        axis.set_title(f"{CLASSES[i // 2]}\n", fontsize=10, color=COLORS[i // 2], loc="center")
        axis.set_xlabel(NAMES[i])
    for k, letter in enumerate("abcd"):
        axes[0].text(k % 2, k // 2, letter, ha="center", va="center", color="white" if k < 2 else "black")
    last = axes[6]
    last.imshow(1 - x[:1].numpy(), cmap="gray", vmin=-0.15, vmax=1)
    for k, letter in enumerate("abcd"):
        last.text(
            k,
            0,
            f"{letter} = {int(x[0, k].item())}",
            ha="center",
            va="center",
            color="white" if k < 2 else "black",
        )
    last.set_title("top, as a vector\n", fontsize=10, loc="center")
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        for side in axis.spines.values():
            side.set(visible=True, color="0.6")
    return figure


def descend(model: nn.Module, loss_fn, inputs, targets, steps: int, lr: float) -> list[float]:
    """Full-batch gradient descent; the loss before each step."""
    optimizer = optim.SGD(model.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def regression(steps: int) -> tuple[list[float], list[float]]:
    """Fit the height of a stroke from zero weights: (losses, final weights and bias)."""
    x, _ = strokes()
    height = shared.tensor([[0], [1], [0.5], [0.5], [0.5], [0.5]])
    model = nn.Linear(4, 1)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    losses = descend(model, nn.MSELoss(), x, height, steps, lr=0.25)
    return losses, model.weight[0].tolist() + model.bias.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="gradient steps for each model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seed)
    results.figure(
        draw_strokes(),
        "strokes",
        alt="Six images of two by two pixels with two dark pixels each: top and bottom row, left and right "
        "column, falling and rising diagonal; beside them the top stroke as the vector 1, 1, 0, 0.",
    )

    shared.manual_seed(args.seed)
    x, y = strokes()
    fit, solution = regression(args.steps)
    two_classes = shared.tensor([[1], [1], [0], [0.0]])
    binary = descend(nn.Linear(4, 1), nn.BCEWithLogitsLoss(), x[:4], two_classes, args.steps, lr=0.5)
    softmax = descend(nn.Linear(4, 3), nn.CrossEntropyLoss(), x, y, args.steps, lr=0.5)
    network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    hidden = descend(network, nn.CrossEntropyLoss(), x, y, args.steps, lr=0.5)

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.6))
    left.semilogy(range(31), fit[:31], marker="o", markersize=3)
    left.set(title="Regression: the height", xlabel="step", ylabel="mean squared error (rows²)")
    for losses, name in (
        (binary, "line, 2 classes"),
        (softmax, "line, 3 classes"),
        (hidden, "MLP, 3 classes"),
    ):
        right.plot(losses, label=name)
    for wall, name in ((math.log(2), "ln 2"), (math.log(3), "ln 3")):
        right.axhline(wall, color="0.5", linewidth=1, linestyle="--")
        right.text(args.steps, wall + 0.02, name, ha="right", va="bottom", color="0.3")
    right.set(title="Classification: two walls", xlabel="step", ylabel="cross-entropy (nats)", ylim=0)
    right.legend(loc="center right", bbox_to_anchor=(1, 0.42))
    results.figure(
        figure,
        "lines_to_classes",
        alt="Left: the regression loss falls to zero. Right: the loss of a linear classifier settles at ln "
        "2 with two classes and at ln 3 with three; the loss of the network with a hidden layer passes "
        "ln 3 and goes to zero.",
    )
    for name, value in zip(("w_a", "w_b", "w_c", "w_d", "bias"), solution, strict=True):
        results.metric(f"regression_{name}", round(value, 6))
    steps = next(i for i, loss in enumerate(fit) if loss < 1e-4)
    results.metric("regression_steps", steps, unit="steps")
    for name, losses in (
        ("line_two_classes", binary),
        ("line_three_classes", softmax),
        ("mlp_strokes", hidden),
    ):
        results.metric(f"{name}_loss", round(losses[-1], 6), unit="nats")
        print(f"{name:20} {losses[0]:.4f} -> {losses[-1]:.4f} nats")
    print(f"regression: below 1e-4 after {steps} steps, ends at", [round(v, 4) for v in solution])
    results.save()


if __name__ == "__main__":
    main()
