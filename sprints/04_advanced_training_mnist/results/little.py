"""What the scripts beside this one share: the little one, its filter, shifted digits, and grids of numbers."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import shared
from course.plotting import canvas as canvas  # the scripts take both from here
from course.plotting import write_grid as write_grid
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


def frame(axis: Axes, at: tuple[float, float], width: float, height: float, colour: str, style: str = "-") -> None:
    """A thick frame around cells."""
    axis.add_patch(Rectangle(at, width, height, fill=False, edgecolor=colour, linewidth=2.6, linestyle=style, zorder=5))
