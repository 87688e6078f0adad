"""Note 02: pictures of stretching and of summing back, the mean as a minimum, and the silent (4, 4) loss."""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

from course.plotting import COLORS, use_style
from course.results import Results

ROWS = [0, 50, 100, 51]  # a setosa, a versicolor, a virginica, another versicolor
OUTPUTS = np.array([[1.7896], [0.4418], [-0.7081], [0.4689]])  # of the 2-3-1 network of note 06, before training
TARGETS = np.array([-1.0, 1.0, -1.0, 1.0])


def grid(axes: plt.Axes, left: float, numbers: np.ndarray, real: np.ndarray, shade: str, under: str) -> None:
    """A block of cells whose upper edge is at height 4; cells that are only repeated in thought are pale."""
    rows, columns = numbers.shape
    for i in range(rows):
        for j in range(columns):
            fill = dict(facecolor=shade, alpha=0.55 if real[i, j] else 0.12)
            line = "-" if real[i, j] else ":"
            axes.add_patch(plt.Rectangle((left + j, 3 - i), 1, 1, edgecolor="#555555", linestyle=line, **fill))
            colour = "black" if real[i, j] else "#777777"
            text = f"{numbers[i, j]:.2f}".rstrip("0").rstrip(".").replace("-", "−")
            axes.text(left + j + 0.5, 3.5 - i, text, ha="center", va="center", fontsize=10, color=colour)
    axes.text(
        left + columns / 2,
        3 - rows + 0.62,
        under,
        ha="center",
        va="center",
        fontsize=10.5,
        family="monospace",
    )


def draw(petals: np.ndarray, m: np.ndarray) -> plt.Figure:
    """Above: the forward pass of petals − m. Below: the gradient summed back to m."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.4, 7.4))
    for axes in (top, bottom):
        axes.set(xlim=(-0.3, 9.3), ylim=(-1.0, 4.2))
        axes.axis("off")
    everything = np.ones((4, 2), bool)
    first = np.array([[True] * 2] + [[False] * 2] * 3)
    stretched = np.broadcast_to(m, (4, 2))
    top.set_title("Forward: the row m is used by all four flowers")
    grid(top, 0, petals, everything, COLORS["blue"], "petals (4, 2)")
    top.text(2.75, 2, "−", fontsize=18, ha="center", va="center")
    grid(top, 3.5, stretched, first, COLORS["orange"], "m (2,)")
    top.text(6.25, 2, "=", fontsize=18, ha="center", va="center")
    grid(top, 7, petals - m, everything, COLORS["green"], "d (4, 2)")
    grad = 2 * (petals - m)
    bottom.set_title("Backward: the gradient of m is the sum over the four uses")
    grid(bottom, 7, grad, everything, COLORS["green"], "∂S/∂d = 2d  (4, 2)")
    bottom.annotate("", xy=(5.75, 2), xytext=(6.85, 2), arrowprops=dict(arrowstyle="-|>", color="#555555"))
    bottom.text(6.3, 2.25, "× (−1)", ha="center", fontsize=10)
    grid(bottom, 3.5, -grad, everything, COLORS["orange"], "per use  (4, 2)")
    bottom.annotate("", xy=(2.25, 2), xytext=(3.35, 2), arrowprops=dict(arrowstyle="-|>", color="#555555"))
    bottom.text(2.8, 2.25, "sum over\naxis 0", ha="center", fontsize=10)
    grid(bottom, 0, -grad.sum(0, keepdims=True), everything[:1], COLORS["orange"], "∂S/∂m  (2,)")
    return figure


def draw_silent(right: np.ndarray, wrong: np.ndarray) -> plt.Figure:
    """The four differences that were meant, beside the sixteen that a missing axis makes."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.4), width_ratios=(1, 2.6))
    top = max(np.abs(wrong).max(), np.abs(right).max())
    titles = ("p − y, both (4, 1)", "p (4, 1) − y (4,) makes (4, 4)")
    for axes, numbers, title in zip(panels, (right, wrong), titles, strict=True):
        axes.imshow(numbers, cmap="PuOr", vmin=-top, vmax=top)
        axes.grid(False)
        for (i, j), number in np.ndenumerate(numbers):
            ink = "white" if abs(number) > 0.6 * top else "black"
            axes.text(j, i, f"{number:.2f}".replace("-", "−"), ha="center", va="center", color=ink)
        axes.set(title=title, xticks=range(numbers.shape[1]), yticks=range(4), ylabel="prediction of flower")
        axes.set_xlabel("target of flower" if numbers.shape[1] > 1 else "")
    panels[0].set_xticklabels(["own"])
    panels[0].set_xlabel("target")
    return figure


def untrained_outputs(centred: np.ndarray) -> np.ndarray:
    """What the 2-3-1 network of note 06 says about the four flowers before training, (4, 1)."""
    w1, b1 = np.array([[0.2, -0.4, 0.5], [0.3, 0.1, -0.6]]), np.array([-0.2, 0.3, 0.1])
    w2, b2 = np.array([[-1.5], [0.8], [0.4]]), np.array([0.1])
    return np.tanh(centred @ w1 + b1) @ w2 + b2


def main() -> None:
    """Draw, and compute the by-hand numbers of the note."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    use_style()
    results = Results(__file__)
    petals, m = load_iris().data[ROWS, 2:4], np.array([4.0, 1.0])

    def spread(centre: np.ndarray) -> float:
        return float(((petals - centre) ** 2).sum())

    gradient = (-2 * (petals - m)).sum(0)
    nudged = (spread(m + [0.001, 0]) - spread(m)) / 0.001
    print("mean of the petals:", petals.mean(0), " centred:", (petals - petals.mean(0)).round(4).tolist())
    print(f"S(4, 1) = {spread(m):.4f}, gradient {gradient.round(4)}, by nudging the first {nudged:.4f}")
    print(f"S at the mean = {spread(petals.mean(0)):.4f}")
    results.metric("spread_at_4_1", spread(m), unit="cm²")
    results.metric("spread_grad_length", gradient[0], unit="cm")
    results.metric("spread_grad_width", gradient[1], unit="cm")
    results.metric("spread_at_mean", spread(petals.mean(0)), unit="cm²")
    results.figure(
        draw(petals, m),
        "broadcasting",
        alt="Above, the row (4, 1) is repeated for four flowers and subtracted from their petals; below, "
        "the four rows of gradients are summed to one row (-1.2, -3.2).",
    )
    outputs = untrained_outputs(petals - petals.mean(0))
    right, wrong = outputs - TARGETS[:, None], outputs - TARGETS
    print("outputs", outputs.ravel().round(4))
    print(f"mean squared error: {(right**2).mean():.4f}; with a (4, 4) difference: {(wrong**2).mean():.4f}")
    results.metric("loss_right_shape", (right**2).mean())
    results.metric("loss_silent_shape", (wrong**2).mean())
    results.figure(
        draw_silent(right, wrong),
        "broadcasting_silent_bug",
        alt="Left a column of four differences; right a square of sixteen, in which only the diagonal was meant.",
    )
    results.save()


if __name__ == "__main__":
    main()
