"""Rotating the 4×4 seven, and augmentation measured: where it helps, where it hurts, where it leaks.

python sprints/02_datasets_and_dataloaders/results/augmentation.py
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np
from network import evaluate, start, step
from strokes import strokes
from tqdm import tqdm

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.data.transforms import RandomAffine, RandomHorizontalFlip, RandomRotation

PLANS = {
    "nothing": None,
    "shift, rotate ≤ 15°": RandomAffine(15, translate=(0.08, 0.08)),
    "rotate ≤ 15°": RandomRotation(15),
    "flip left–right": RandomHorizontalFlip(),
    "rotate ≤ 180°": RandomRotation(180),
}


def augmented(images: np.ndarray, transform) -> np.ndarray:
    """Each image (H, W) through the transform; (N, H, W) uint8."""
    return images if transform is None else np.stack([transform(image) for image in images])


def train(images, labels, test_images, test_labels, transform, epochs: int, seed: int, normal, lr=0.05, batch=32):
    """Train a 784-128-10 network; returns it with (train accuracy, test accuracy) after each epoch."""
    shared.manual_seed(seed)
    parameters, rng = start((images[0].size, 128, 10), seed), np.random.default_rng(seed)
    clean, test, history = normal(images), normal(test_images), []
    for _ in range(epochs):
        x = normal(augmented(images, transform))
        order = rng.permutation(len(labels))
        for first in range(0, len(labels), batch):
            step(parameters, x[order[first : first + batch]], labels[order[first : first + batch]], lr)
        history.append((evaluate(parameters, clean, labels)[1], evaluate(parameters, test, test_labels)[1]))
    return parameters, np.array(history)


def nearest(train_x: np.ndarray, train_y: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Accuracy of the label of the nearest training image; images as rows of floats."""
    distance = (x**2).sum(1)[:, None] - 2 * x @ train_x.T + (train_x**2).sum(1)
    return float((train_y[distance.argmin(axis=1)] == y).mean())


def leak(images, labels, test_images, test_labels, copies: int, seed: int) -> tuple[float, float]:
    """Nearest neighbour on rotated copies: right on a random fifth of the copies, and on new images."""
    shared.manual_seed(seed)
    transform, rng = PLANS["rotate ≤ 15°"], np.random.default_rng(seed)
    x = np.concatenate([augmented(images, transform) for _ in range(copies)])
    x = x.reshape(len(x), -1).astype(np.float32) / 255
    y, order = np.tile(labels, copies), rng.permutation(copies * len(labels))
    part, rest = order[: len(y) // 5], order[len(y) // 5 :]
    new = test_images.reshape(len(test_images), -1).astype(np.float32) / 255
    return nearest(x[rest], y[rest], x[part], y[part]), nearest(x[rest], y[rest], new, test_labels)


def draw_rotation(angle: float):
    """The seven, the points where a rotated image reads it, and the result by both ways of reading."""
    seven = strokes()[0][3]
    a = np.deg2rad(angle)
    v, u = np.indices((4, 4)) - 1.5
    x, y = u * np.cos(a) - v * np.sin(a) + 1.5, u * np.sin(a) + v * np.cos(a) + 1.5
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.5))
    results = [RandomRotation((angle, angle), mode)(seven) for mode in ("nearest", "bilinear")]
    titles = ("Where the result reads", f"Rotated by {angle:g}°, nearest", f"Rotated by {angle:g}°, bilinear")
    for ax, image, title, black in zip(axes, [seven, *results], titles, (700, 255, 255), strict=True):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=black)
        ax.set(xticks=range(4), yticks=range(4), xlabel="column", ylabel="row", title=title)
        ax.grid(False)
        ax.spines[:].set_visible(True)
    axes[0].plot(x, y, "o", color=COLORS["blue"], ms=6, mec="white")
    for row, column in ((0, 0), (0, 2), (3, 2)):
        place = (x[row, column], y[row, column])
        axes[0].annotate(f"({row}, {column})", place, (6, 5), textcoords="offset points", weight="bold")
    axes[0].set(xlim=(-0.95, 3.95), ylim=(3.95, -0.95))
    for ax, image in zip(axes[1:], results, strict=True):
        for (row, column), byte in np.ndenumerate(image):
            ax.text(column, row, byte, ha="center", va="center", color="white" if byte > 140 else "black")
    return figure


def draw_accuracy(histories: dict[str, np.ndarray], images: np.ndarray):
    """histories[name]: (seeds, epochs, 2). Curves, and what each plan makes of one image."""
    figure, axes = plt.subplot_mosaic(
        [["curves", *(f"{i}{j}" for j in range(5))] for i in range(len(PLANS))],
        figsize=(10.5, 4.6),
        width_ratios=(5.4, 1, 1, 1, 1, 1),
    )
    shared.manual_seed(1)
    for i, (name, colour) in enumerate(zip(histories, COLORS, strict=False)):
        test = 100 * histories[name][:, :, 1]
        axes["curves"].plot(np.arange(1, test.shape[1] + 1), test.mean(axis=0), color=colour, label=name)
        for j in range(5):
            ax = axes[f"{i}{j}"]
            ax.imshow(augmented(images[j : j + 1], PLANS[name])[0], cmap="gray_r")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(visible=True, color=colour, linewidth=2)
            ax.grid(False)
            if j == 0:
                ax.set_title(name, fontsize=9, color=colour, fontweight="bold")
    axes["curves"].set(xlabel="epoch", ylabel="right on test images (%)", title="500 training images", ylim=(50, 95))
    axes["curves"].legend(loc="lower right", fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="training images used")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()

    train_set, test_set = shared.data.load("mnist-5k")
    images, labels = train_set.images[: arguments.images], train_set.labels[: arguments.images]
    mean, std = images.mean() / 255, images.std() / 255

    def normal(x: np.ndarray) -> np.ndarray:
        return ((x.reshape(len(x), -1) / 255 - mean) / std).astype(np.float32)

    use_style()
    results = Results(__file__, seed=0)
    results.metric("augmentation_images", len(labels), unit="images")
    histories, networks = {}, {}
    bar = tqdm(total=len(PLANS) * arguments.seeds, unit="run")
    for name, transform in PLANS.items():
        runs = []
        for seed in range(arguments.seeds):
            networks[name], history = train(
                images, labels, test_set.images, test_set.labels, transform, arguments.epochs, seed, normal
            )
            runs.append(history)
            bar.update()
        histories[name] = np.array(runs)
    bar.close()
    short = dict(zip(PLANS, ("none", "affine", "rotate15", "flip", "rotate180"), strict=True))
    for name, history in histories.items():
        results.metric(f"train_accuracy_{short[name]}", 100 * history[:, -5:, 0].mean(), unit="%")
        results.metric(f"test_accuracy_{short[name]}", 100 * history[:, -5:, 1].mean(), unit="%")
        results.metric(f"test_accuracy_{short[name]}_spread", 100 * np.ptp(history[:, -5:, 1].mean(axis=1)), unit="%")

    plan = "shift, rotate ≤ 15°"
    shared.manual_seed(0)
    tries = [
        evaluate(networks[plan], normal(augmented(test_set.images, PLANS[plan])), test_set.labels)[1] for _ in range(10)
    ]
    results.metric(
        "evaluated_clean",
        100 * evaluate(networks[plan], normal(test_set.images), test_set.labels)[1],
        unit="%",
    )
    results.metric("evaluated_augmented_mean", 100 * np.mean(tries), unit="%")
    results.metric("evaluated_augmented_min", 100 * np.min(tries), unit="%")
    results.metric("evaluated_augmented_max", 100 * np.max(tries), unit="%")

    leaked, honest = leak(images[:200], labels[:200], test_set.images, test_set.labels, copies=5, seed=0)
    results.metric("copies_accuracy_leaked", 100 * leaked, unit="%")
    results.metric("copies_accuracy_honest", 100 * honest, unit="%")

    alt = "The seven with the sixteen points where a rotated image reads it, and both results."
    results.figure(draw_rotation(30), "rotation", alt=alt)
    alt = (
        "Test accuracy over epochs for five augmentations of 500 images: shift and rotation above none, "
        "flips below, rotation by any angle far below; beside them, five images as each shows them."
    )
    results.figure(draw_accuracy(histories, images), "augmentation", alt=alt)
    results.save()
    for name, entry in results._metrics.items():
        print(f"{name:34} {entry['value']:.4g} {entry['unit']}")


if __name__ == "__main__":
    main()
