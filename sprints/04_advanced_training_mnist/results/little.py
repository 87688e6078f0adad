"""What the scripts beside this one share: the little one, its filter, shifted digits, and grids of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import shared
from shared import Tensor

X = [[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 1, 1, 1]]
K = [[-1, 2, -1], [-1, 2, -1], [-1, 2, -1]]


def little_one() -> tuple[Tensor, Tensor]:
    """A 1 on 4 × 4 pixels, (1, 1, 4, 4), and the filter that looks for an upright bar, (1, 1, 3, 3).

    >>> x, k = little_one()
    >>> shared.nn.functional.conv2d(x, k)[0, 0].tolist()
    [[-1.0, 5.0], [1.0, 3.0]]
    """
    return shared.tensor([[X]]).float(), shared.tensor([[K]]).float()


def moved(images: Tensor, right: int, down: int = 0) -> Tensor:
    """Images (…, H, W) moved by whole pixels; what leaves is lost, what enters is 0.

    >>> moved(shared.tensor([[1.0, 2.0, 3.0]]), right=1).tolist()
    [[0.0, 1.0, 2.0]]
    """
    source = images.numpy()
    target = np.zeros_like(source)
    height, width = source.shape[-2:]
    target[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = source[
        ..., max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
    ]
    return shared.from_numpy(target)


def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """{"train": (x, y), "test": …}: mnist-5k (else scikit-learn's digits), x (N, 1, H, W) in [0, 1], y (N,)."""
    parts = shared.data.load("mnist-5k", fallback=True)
    return {
        name: (part.data.unsqueeze(1).float() / 255, part.targets)
        for name, part in zip(("train", "test"), parts, strict=True)
    }


def write_grid(
    axis: Axes,
    values: Sequence[Sequence[Any]],
    at: tuple[float, float] = (0, 0),
    shade: Any = None,
    colour: str = "black",
    size: float = 11,
    strong: str = "#0072B2",
) -> None:
    """Cells of width 1 with a text each, the first cell's upper left corner at (x, y); `shade` in [0, 1] per cell."""
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            depth = 0.0 if shade is None else float(shade[r][c])
            axis.add_patch(Rectangle((at[0] + c, at[1] + r), 1, 1, facecolor=strong, alpha=0.35 * depth, linewidth=0))
            axis.add_patch(Rectangle((at[0] + c, at[1] + r), 1, 1, fill=False, edgecolor="0.6", linewidth=0.8))
            text = value if isinstance(value, str) else f"{value:g}".replace("-", "−")
            axis.text(at[0] + c + 0.5, at[1] + r + 0.52, text, ha="center", va="center", color=colour, fontsize=size)


def frame(axis: Axes, at: tuple[float, float], width: float, height: float, colour: str, style: str = "-") -> None:
    """A thick frame around cells."""
    axis.add_patch(Rectangle(at, width, height, fill=False, edgecolor=colour, linewidth=2.6, linestyle=style, zorder=5))


def canvas(axis: Axes, width: float, height: float) -> None:
    """An empty drawing board: y points down, cells are square, nothing around it."""
    axis.set(xlim=(-0.15, width + 0.15), ylim=(height + 0.15, -0.15), aspect="equal")
    axis.axis("off")
