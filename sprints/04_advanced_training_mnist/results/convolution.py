"""Note 01: the little one by hand, a filter's gradient, and what a shift does to three networks that read digits.

python sprints/04_advanced_training_mnist/results/convolution.py          about a minute on one core
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from little import K, X, canvas, digits, frame, little_one, moved, write_grid
from tqdm import tqdm

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn, optim
from shared.arrays.kernels import conv as kernels
from shared.autograd import Function
from shared.ops.windows import slide

F = nn.functional
SHIFTS = range(-6, 7)
WINDOW_COLOURS = (COLORS["blue"], COLORS["vermillion"], COLORS["green"], COLORS["purple"])


# ---------------------------------------------------------------- pictures


def draw_little_one() -> plt.Figure:
    """The image, the filter and the result, and below them the nine products of each window."""
    x, k = little_one()
    out = F.conv2d(x, k)[0, 0].tolist()
    figure, axis = plt.subplots(figsize=(8.4, 4.9))
    canvas(axis, 21, 12.2)
    write_grid(axis, X, (3, 0.8), shade=X, strong="black")
    write_grid(axis, K, (9.2, 1.3))
    write_grid(axis, out, (14.5, 1.8))
    for (left, top), text in (((5, 0.35), "image X"), ((10.7, 0.85), "filter K"), ((15.5, 1.35), "result Y")):
        axis.text(left, top, text, ha="center", va="center", fontsize=11)
    for left, sign in ((8.1, "⋆"), (13.3, "=")):
        axis.text(left, 2.8, sign, ha="center", va="center", fontsize=18)
    for n, colour in enumerate(WINDOW_COLOURS):
        i, j = divmod(n, 2)
        frame(axis, (14.5 + j + 0.08, 1.8 + i + 0.08), 0.84, 0.84, colour)
        left, top = 0.3 + 5.3 * n, 7.2
        products = [[X[i + a][j + b] * K[a][b] for b in range(3)] for a in range(3)]
        cells = [["" for _ in range(4)] for _ in range(4)]
        for a in range(3):
            for b in range(3):
                cells[i + a][j + b] = f"{products[a][b]}".replace("-", "−")
        write_grid(axis, cells, (left, top), shade=X, strong="black")
        frame(axis, (left + j, top + i), 3, 3, colour)
        axis.text(left + 2, top - 0.55, f"window ({i}, {j})", ha="center", va="center", fontsize=10)
        total = f"sum {sum(map(sum, products))}".replace("-", "−")
        axis.text(left + 2, top + 4.6, total, ha="center", va="center", color=colour, fontsize=12, weight="bold")
    return figure


def draw_input_gradient() -> plt.Figure:
    """Two views of the gradient by the image: windows that lay down the filter, and a pixel that collects."""
    letters = ["abc", "def", "ghi"]
    gradient = [["$G_{00}$", "$G_{01}$"], ["$G_{10}$", "$G_{11}$"]]
    figure, axes = plt.subplots(1, 2, figsize=(9.4, 4.0), width_ratios=[6, 10.6])
    left, right = axes
    canvas(left, 6, 6.6)
    left.text(3, 0, "Each window lays down the filter", ha="center", fontsize=11, weight="bold")
    chosen, pixel = ((0, 1), (1, 0)), (1, 2)
    write_grid(left, [["" for _ in range(4)] for _ in range(4)], (1, 1.4))
    for (i, j), colour in zip(chosen, (WINDOW_COLOURS[1], WINDOW_COLOURS[2]), strict=True):
        frame(left, (1 + j, 1.4 + i), 3, 3, colour)
        up = -0.22 if i == 0 else 0.22
        for a in range(3):
            for b in range(3):
                at = (1 + j + b + 0.5, 1.4 + i + a + 0.5 + up)
                left.text(*at, f"$G_{{{i}{j}}}\\,{letters[a][b]}$", ha="center", va="center", color=colour, fontsize=9)
    frame(left, (1 + pixel[1] + 0.06, 1.4 + pixel[0] + 0.06), 0.88, 0.88, "black")
    left.text(3, 6.1, "two of the four windows drawn; they add up", ha="center", fontsize=9, color="0.35")

    canvas(right, 10.6, 6.6)
    title = "Each pixel collects, through the turned filter"
    right.text(5.2, 0, title, ha="center", fontsize=11, weight="bold")
    padded = [["0"] * 6 for _ in range(6)]
    for i in range(2):
        for j in range(2):
            padded[2 + i][2 + j] = gradient[i][j]
    write_grid(right, padded, (0, 0.5), shade=[[0.8 * (t != "0") for t in row] for row in padded])
    frame(right, (pixel[1], 0.5 + pixel[0]), 3, 3, "black")
    turned = [list(row[::-1]) for row in letters[::-1]]
    write_grid(right, turned, (7.2, 1.4))
    right.text(8.7, 0.95, "filter, turned by 180°", ha="center", va="center", fontsize=10)
    terms = [f"G_{{{i}{j}}}\\,{turned[2 + i - pixel[0]][2 + j - pixel[1]]}" for i in range(2) for j in range(2)]
    right.text(8.7, 5.0, "framed pixel:", ha="center", fontsize=10)
    right.text(8.7, 5.6, "$" + " + ".join(terms[:2]) + "$", ha="center", fontsize=10)
    right.text(8.7, 6.2, "$+\\," + " + ".join(terms[2:]) + "$", ha="center", fontsize=10)
    return figure


# ---------------------------------------------------------------- three networks and a shift


def mlp(side: int) -> nn.Sequential:
    """The network of Sprint 03, with a weight for every pixel."""
    return nn.Sequential(nn.Flatten(), nn.Linear(side * side, 128), nn.ReLU(), nn.Linear(128, 10))


def flattening(side: int) -> nn.Sequential:
    """Two convolutions, each with pooling, and a linear layer with a weight for every place that is left."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * (side // 4) ** 2, 10),
    )  # fmt: skip


def everywhere(side: int, last: nn.Module | None = None) -> nn.Sequential:
    """Three convolutions and the largest (or what `last` takes) over all places: the classifier sees no place."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), last or nn.MaxPool2d(side // 4),
        nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def averaging(side: int) -> nn.Sequential:
    """The same with global average pooling."""
    return everywhere(side, nn.AdaptiveAvgPool2d(1))


NETWORKS: dict[str, tuple[str, Callable[[int], nn.Sequential]]] = {
    "mlp": ("MLP", mlp),
    "flat": ("CNN, flattened at the end", flattening),
    "max": ("CNN, maximum over all places", everywhere),
    "mean": ("CNN, mean over all places", averaging),
}


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    """Adam with its usual rate on shuffled batches of 64."""
    loader = shared.data.DataLoader(shared.data.TensorDataset(x, y), batch_size=64, shuffle=True)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()


def read(model: nn.Module, x: Tensor) -> np.ndarray:
    """The classes that `model` reads, (N,)."""
    with shared.no_grad():
        return model(x).argmax(dim=1).numpy()


def compare(epochs: int, seeds: int, results: Results) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Accuracies {network: (seeds, shifts)} in per cent, and what the first MLP reads at shifts 0 to 4."""
    data = digits()
    (x, y), (x_test, y_test) = data["train"], data["test"]
    mean, std = x.mean(), x.std()
    side = x.shape[-1]
    accuracies = {name: np.zeros((seeds, len(SHIFTS))) for name in NETWORKS}
    answers: list[np.ndarray] = []
    with tqdm(total=len(NETWORKS) * seeds, leave=False) as bar:
        for name, (_, make) in NETWORKS.items():
            spent = []
            for seed in range(seeds):
                shared.manual_seed(seed)
                model = make(side)
                start = time.perf_counter()
                train(model, (x - mean) / std, y, epochs)
                spent.append(time.perf_counter() - start)
                for place, shift in enumerate(SHIFTS):
                    found = read(model, (moved(x_test, shift) - mean) / std)
                    accuracies[name][seed, place] = 100 * (found == y_test.numpy()).mean()
                    if name == "mlp" and seed == 0 and 0 <= shift <= 4:
                        answers.append(found)
                bar.update()
            count = sum(p.numel() for p in model.parameters())
            results.metric(f"shift_{name}_parameters", count)
            results.metric(f"shift_{name}_seconds", round(float(np.median(spent)), 1), unit="s")
            means = accuracies[name].mean(axis=0)
            for shift in (-6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6):
                key = f"shift_{name}_{'left' if shift < 0 else 'right'}_{abs(shift)}"
                results.metric(key, round(float(means[SHIFTS.index(shift)]), 1), unit="%")
            print(f"{name:5} {count:7,} parameters, {np.median(spent):.1f} s:", np.round(means, 1))
    return accuracies, answers


def longer(epochs: int, results: Results) -> None:
    """Whether the network with the mean over all places is slow or poor: its accuracy after more epochs, one seed."""
    data = digits()
    (x, y), (x_test, y_test) = data["train"], data["test"]
    mean, std = x.mean(), x.std()
    shared.manual_seed(0)
    model = averaging(x.shape[-1])
    train(model, (x - mean) / std, y, epochs)
    accuracy = 100 * (read(model, (x_test - mean) / std) == y_test.numpy()).mean()
    results.metric("shift_mean_longer_accuracy", round(float(accuracy), 1), unit="%")
    results.metric("shift_mean_longer_epochs", epochs, unit="epochs")
    print(f"mean over all places, after {epochs} epochs: {accuracy:.1f}%")


class Unturned(Function):
    """A convolution, stride 1 and odd filters with padding, whose gradient by the image forgets to turn the filter."""

    def forward(self, x, weight):
        high, wide = weight.shape[2:]
        self.windows = slide(x.shape[2:], (high, wide), (1, 1), (high // 2, wide // 2), (1, 1))
        self.saved = (x, weight)
        return kernels.conv(x, weight, None, self.windows, 1)

    def backward(self, grad):
        x, weight = self.saved
        turned_twice = np.ascontiguousarray(weight[:, :, ::-1, ::-1])  # and so not turned at all
        to_x = kernels.conv_input(grad, turned_twice, x.shape[2:], self.windows, 1) if self.needs[0] else None
        return to_x, kernels.conv_weight(grad, x, self.windows, 1)


class UnturnedConv2d(nn.Conv2d):
    """`nn.Conv2d` with that gradient."""

    def forward(self, input: Tensor) -> Tensor:
        return Unturned()(input, self.weight) + self.bias.reshape(1, -1, 1, 1)


def forget_the_turn(epochs: int, seeds: int, results: Results) -> None:
    """Train the flattening network with right and with wrong gradients: test loss and accuracy, means over seeds."""
    data = digits()
    (x, y), (x_test, y_test) = data["train"], data["test"]
    mean, std = x.mean(), x.std()
    for name in ("right", "unturned"):
        losses, accuracies = [], []
        for seed in range(seeds):
            shared.manual_seed(seed)
            model = flattening(x.shape[-1])
            for layer in model:
                if name == "unturned" and isinstance(layer, nn.Conv2d):
                    layer.__class__ = UnturnedConv2d
            train(model, (x - mean) / std, y, epochs)
            with shared.no_grad():
                losses.append(F.cross_entropy(model((x_test - mean) / std), y_test).item())
            accuracies.append(100 * (read(model, (x_test - mean) / std) == y_test.numpy()).mean())
        results.metric(f"gradient_{name}_loss", round(float(np.mean(losses)), 3), unit="nats")
        results.metric(f"gradient_{name}_accuracy", round(float(np.mean(accuracies)), 1), unit="%")
        print(f"{name:9} gradient: test loss {np.mean(losses):.3f} nats, accuracy {np.mean(accuracies):.1f}%")


def draw_curves(axis: plt.Axes, accuracies: dict[str, np.ndarray], names: tuple[str, ...]) -> None:
    """Accuracy against the shift: the mean over the seeds, and as a band the worst and the best of them."""
    styles = {"mlp": ("o-", "vermillion"), "flat": ("s--", "orange"), "max": ("D-", "blue"), "mean": ("^:", "green")}
    for name in names:
        marker, colour = styles[name]
        values = accuracies[name]
        axis.plot(SHIFTS, values.mean(axis=0), marker, color=COLORS[colour], markersize=5, label=NETWORKS[name][0])
        axis.fill_between(SHIFTS, values.min(axis=0), values.max(axis=0), color=COLORS[colour], alpha=0.18, linewidth=0)
    axis.set(title="Test digits moved sideways", xlabel="shift to the right (pixels)", ylabel="accuracy (%)")
    axis.set(ylim=(0, 100), xticks=list(SHIFTS))
    axis.legend(loc="lower center")


def draw_shift(accuracies: dict[str, np.ndarray], answers: list[np.ndarray], names: tuple[str, ...]) -> plt.Figure:
    """A digit that moves to the right with the MLP's readings, and the accuracies against the shift."""
    x, y = digits()["test"]
    labels = y.numpy()
    # The first digit that is read rightly in place and by one pixel, and wrongly from three on.
    right = [found == labels for found in answers]
    chosen = int(np.flatnonzero(right[0] & right[1] & ~right[3] & ~right[4])[0])
    figure = plt.figure(figsize=(9.6, 5.8))
    rows = figure.add_gridspec(2, 5, height_ratios=[1, 1.9])
    for shift in range(5):
        axis = figure.add_subplot(rows[0, shift])
        axis.imshow(moved(x[chosen, 0], shift).numpy(), cmap="gray_r", vmin=0, vmax=1)
        found = int(answers[shift][chosen])
        colour = COLORS["black"] if found == labels[chosen] else COLORS["vermillion"]
        axis.set_title(f"{shift} px: reads {found}", fontsize=10.5, loc="center", color=colour)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        for side in axis.spines.values():
            side.set(visible=True, color="0.6")
    axis = figure.add_subplot(rows[1, :])
    draw_curves(axis, accuracies, names)
    return figure


def draw_all(accuracies: dict[str, np.ndarray]) -> plt.Figure:
    """Accuracy against the shift of all four networks."""
    figure, axis = plt.subplots(figsize=(8, 4.2))
    draw_curves(axis, accuracies, tuple(NETWORKS))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each network (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each network (default: %(default)s)")
    parser.add_argument("--longer", type=int, default=20, help="epochs of one more run with the mean")
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    results.figure(
        draw_little_one(),
        "little_one",
        alt="A digit 1 on four by four pixels, a filter of three by three with columns −1, 2, −1, and the result −1, 5 "
        "over 1, 3. Below, the four windows of the image with the nine products in each and their sum.",
    )
    results.figure(
        draw_input_gradient(),
        "input_gradient",
        alt="Left: two windows on the four by four image, each filled with the filter's letters a to i times the "
        "gradient of its output; they overlap and add up. Right: the two by two gradient with a border of two zeros, "
        "and the filter turned by 180 degrees over it, which collects the same four products for the framed pixel.",
    )
    accuracies, answers = compare(args.epochs, args.seeds, results)
    longer(args.longer, results)
    forget_the_turn(args.epochs, args.seeds, results)
    results.metric("shift_epochs", args.epochs, unit="epochs")
    results.metric("shift_seeds", args.seeds)
    results.figure(
        draw_shift(accuracies, answers, ("mlp", "flat")),
        "shift",
        alt="Above, a handwritten digit moved to the right by zero to four pixels with what the MLP reads: right at "
        "first, wrong from three pixels on. Below, accuracy against the shift: the MLP's curve is a narrow peak, that "
        "of a convolutional network with a flattening layer a wider one.",
    )
    results.figure(
        draw_all(accuracies),
        "shift_pooling",
        alt="Accuracy against the shift for four networks: the MLP's and the flattening network's curves are peaks, "
        "those of the networks that take the maximum or the mean over all places are nearly level.",
    )
    results.save()


if __name__ == "__main__":
    main()
