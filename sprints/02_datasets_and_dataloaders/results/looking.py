"""Look at the data before a model does: a grid of digits, class balance, mean digits, nearest mean.

python sprints/02_datasets_and_dataloaders/results/looking.py
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np
from strokes import NAMES, strokes

import shared.data
from course.plotting import COLORS, use_style
from course.results import Results


def draw_strokes():
    images, labels = strokes()
    figure, axes = plt.subplots(1, 6, figsize=(10, 2.3))
    for i, (ax, image, label) in enumerate(zip(axes, images, labels, strict=True)):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=255)
        for (row, column), byte in np.ndenumerate(image):
            colour = "white" if byte > 120 else "0.35"
            ax.text(column, row, byte, ha="center", va="center", color=colour, fontsize=8)
        ax.set(xticks=[], yticks=[], title=f"{i}: {NAMES[label]}")
        ax.grid(False)
        ax.spines[:].set_visible(True)
    return figure


def draw_grid(images: np.ndarray, labels: np.ndarray, columns: int = 12):
    figure, axes = plt.subplots(10, 1, figsize=(7.2, 6.6))
    for digit, ax in enumerate(axes):
        row = images[np.flatnonzero(labels == digit)[:columns]]  # (columns, 28, 28)
        ax.imshow(np.concatenate(list(row), axis=1), cmap="gray_r", interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(f"{digit}", rotation=0, va="center", labelpad=12)
        ax.grid(False)
        ax.spines[:].set_visible(False)
    figure.suptitle("The first twelve training images of each digit", x=0.06, ha="left", fontweight="bold")
    return figure


def draw_means(means: np.ndarray, counts: dict[str, np.ndarray]):
    figure, axes = plt.subplot_mosaic(
        [[f"mean{k}" for k in range(10)], ["bars"] * 10], figsize=(10, 4.0), height_ratios=(1, 1.8)
    )
    for k in range(10):
        axes[f"mean{k}"].imshow(means[k], cmap="gray_r")
        axes[f"mean{k}"].set(xticks=[], yticks=[], title=f"{k}")
        axes[f"mean{k}"].grid(False)
    bars, width = axes["bars"], 0.4
    for shift, (name, count), colour in zip((-0.5, 0.5), counts.items(), COLORS, strict=False):
        bars.bar(np.arange(10) + shift * width, count, width, label=name, color=colour)
    bars.set(xlabel="digit", ylabel="examples", xticks=range(10), title="Examples of each class")
    bars.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", default="mnist-5k", help="an image dataset of the catalog")
    arguments = parser.parse_args()

    train, test = shared.data.load(arguments.dataset)
    x, y = train.images.astype(np.float64) / 255, train.labels  # (N, 28, 28), (N,)
    x_test, y_test = test.images.astype(np.float64) / 255, test.labels
    counts = {"training split": np.bincount(y, minlength=10), "test split": np.bincount(y_test, minlength=10)}
    means = np.stack([x[y == k].mean(axis=0) for k in range(10)])  # (10, 28, 28)
    distance = ((x_test[:, None] - means) ** 2).sum(axis=(2, 3))  # (N_test, 10)
    guess = distance.argmin(axis=1)
    wrong = np.array([(guess[y_test == k] != k).mean() for k in range(10)])

    use_style()
    results = Results(__file__)
    results.figure(draw_strokes(), "strokes", alt="Six 4×4 images with their bytes: three ones, three sevens.")
    results.figure(
        draw_grid(train.images, y),
        "digits_grid",
        alt="Ten rows of twelve handwritten digits, one row per class.",
        ext="png",
    )
    results.figure(
        draw_means(means, counts),
        "mean_digits",
        alt="Ten blurred mean digits above bars that count the examples of each class in both splits.",
    )
    results.metric("class_count_min", counts["training split"].min(), unit="examples")
    results.metric("class_count_max", counts["training split"].max(), unit="examples")
    results.metric("zero_pixels", 100 * (x == 0).mean(), unit="%")
    results.metric("constant_pixels", int((x.reshape(len(x), -1).std(axis=0) == 0).sum()), unit="pixels")
    results.metric("pixel_mean", x.mean())
    results.metric("pixel_std", x.std())
    results.metric("nearest_mean_accuracy", 100 * (guess == y_test).mean(), unit="%")
    results.metric("nearest_mean_worst_digit", int(wrong.argmax()))
    results.metric("nearest_mean_worst_error", 100 * wrong.max(), unit="%")
    results.save()
    for name, entry in results._metrics.items():
        print(f"{name:28} {entry['value']:.6g} {entry['unit']}")


if __name__ == "__main__":
    main()
