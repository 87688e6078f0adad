"""Note 03: where windows lie, what pooling keeps and where its gradient goes, and what a unit sees of the image.

python sprints/04_advanced_training_mnist/results/geometry.py
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from little import canvas, frame, little_one, write_grid
from matplotlib.patches import Rectangle

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import nn
from shared.ops.windows import slide

F = nn.functional
# (kernel size, stride) of the layers of the network that ends in a pool over all places, in convolution.py.
READER = (("conv 5", 5, 1), ("pool 2", 2, 2), ("conv 5", 5, 1), ("pool 2", 2, 2), ("conv 3", 3, 1))


def draw_windows() -> plt.Figure:
    """A row of seven pixels under four settings: which pixels each window reads."""
    cases = (
        ("no padding: 5 windows", 3, 1, 0, 1),
        ("padding 1: 7 windows, as many as pixels", 3, 1, 1, 1),
        ("padding 1, stride 2: 4 windows", 3, 2, 1, 1),
        ("dilation 2, no padding: 3 windows", 3, 1, 0, 2),
    )
    size = 7
    figure, axes = plt.subplots(2, 2, figsize=(9.4, 5.4))
    for axis, (title, kernel, stride, padding, dilation) in zip(axes.flat, cases, strict=True):
        windows = slide((size,), (kernel,), (stride,), (padding,), (dilation,))
        canvas(axis, size + 2, 1.2 + 0.62 * windows.count[0])
        axis.set_aspect("auto")
        axis.set_title(title, fontsize=11)
        for p in range(-padding, size + padding):
            inside = 0 <= p < size
            axis.add_patch(
                Rectangle((p + 1, 0), 1, 0.8, facecolor="0.85" if inside else "white", edgecolor="0.5", linewidth=0.9)
            )
            axis.text(
                p + 1.5, 0.43, str(p) if inside else "pad", ha="center", va="center", fontsize=10 if inside else 8
            )
        for o in range(windows.count[0]):
            colour, top = COLORS[(0, 3, 2, 4)[o % 4]], 1.1 + 0.62 * o
            for k in range(kernel):
                left = o * stride + k * dilation - padding + 1
                axis.add_patch(Rectangle((left + 0.06, top), 0.88, 0.42, facecolor=colour, linewidth=0))
    return figure


def draw_pooling() -> plt.Figure:
    """The filtered little one, its maxima and means over 2 × 2, and where a gradient of 1 on each goes."""
    x, k = little_one()
    image = F.conv2d(x, k, padding="same")
    grids = {}
    for name, pool in (("max", F.max_pool2d), ("mean", F.avg_pool2d)):
        leaf = image.detach().requires_grad_()
        out = pool(leaf, 2)
        out.backward(shared.ones(1, 1, 2, 2))
        grids[name] = (out[0, 0].tolist(), leaf.grad[0, 0].tolist())
    figure, axis = plt.subplots(figsize=(9.2, 4.9))
    canvas(axis, 19.6, 10.6)
    write_grid(axis, image[0, 0].tolist(), (0, 3.4))
    blocks = [(r, c) for r in (0, 2) for c in (0, 2)]
    colours = (COLORS["blue"], COLORS["vermillion"], COLORS["green"], COLORS["purple"])
    for (r, c), colour in zip(blocks, colours, strict=True):
        frame(axis, (c + 0.06, 3.46 + r), 1.88, 1.88, colour)
    axis.text(2, 2.95, "the filtered little one", ha="center", fontsize=10)
    for (name, (out, grad)), top in zip(grids.items(), (0.7, 6.3), strict=True):
        pooled = [[v if isinstance(v, str) else f"{v:.4g}".replace("-", "−") for v in row] for row in out]
        write_grid(axis, pooled, (8.2, top + 1), size=8.5)
        for n, colour in enumerate(colours):
            frame(axis, (8.2 + n % 2 + 0.06, top + 1 + n // 2 + 0.06), 0.88, 0.88, colour)
        axis.text(9.2, top + 0.5, f"{name} over 2 × 2", ha="center", fontsize=10)
        write_grid(axis, grad, (14.6, top), shade=grad, size=10)
        axis.text(16.6, top - 0.4, "gradient of the sum", ha="center", fontsize=10)
        axis.annotate("", (7.8, top + 2), (4.4, 5.4), arrowprops={"arrowstyle": "->", "color": "0.4"})
        axis.annotate("", (14.2, top + 2), (10.6, top + 2), arrowprops={"arrowstyle": "->", "color": "0.4"})
    return figure


def sees(layers: tuple[tuple[str, int, int], ...]) -> list[tuple[int, int]]:
    """(receptive field, step) after each layer: r + (k − 1) · j, then j · s.

    >>> sees((("conv 3", 3, 1), ("pool 2", 2, 2), ("conv 3", 3, 1)))
    [(3, 1), (4, 2), (8, 2)]
    """
    field, step, found = 1, 1, []
    for _, kernel, stride in layers:
        field, step = field + (kernel - 1) * step, step * stride
        found.append((field, step))
    return found


def gradient_map(depth: int, networks: int, side: int = 28) -> np.ndarray:
    """Mean over random networks of |∂ one unit in the middle of layer `depth` / ∂ pixel|, (side, side), largest 1."""
    total = np.zeros((side, side))
    channels = 8
    for seed in range(networks):
        shared.manual_seed(seed)
        layers: list[nn.Module] = []
        inputs = 1
        for name, kernel, _ in READER[:depth]:
            if name.startswith("conv"):
                layers += [nn.Conv2d(inputs, channels, kernel, padding=kernel // 2), nn.ReLU()]
                inputs = channels
            else:
                layers.append(nn.MaxPool2d(2))
        image = shared.rand(1, 1, side, side).requires_grad_()
        out = nn.Sequential(*layers)(image)
        middle = out.shape[-1] // 2
        out[0, :, middle, middle].sum().backward()
        total += image.grad[0, 0].abs().numpy()
    return total / total.max()


def extent(seen: np.ndarray) -> int:
    """The side of the square that holds all pixels with a gradient."""
    rows, columns = np.nonzero(seen)
    return int(max(np.ptp(rows), np.ptp(columns))) + 1


def draw_tree(axis: plt.Axes) -> None:
    """One unit of a conv 3, conv 3, pool 2, conv 3 stack and everything below it that it depends on, in one row."""
    layers = (("conv 3", 3, 1), ("conv 3", 3, 1), ("pool 2", 2, 2), ("conv 3", 3, 1))
    fields = sees(layers)
    needed = [[0]]
    for _, kernel, stride in layers[::-1]:
        below = sorted({o * stride + k for o in needed[-1] for k in range(kernel)})
        needed.append(below)
    needed.reverse()  # from the pixels to the unit

    def place(level: int, index: int) -> float:
        field, step = (1, 1) if level == 0 else fields[level - 1]
        return index * step + (field - 1) / 2

    for level, (lower, upper) in enumerate(pairwise(needed)):
        _, kernel, stride = layers[level]
        for o in upper:
            for i in range(o * stride, o * stride + kernel):
                ends = (place(level, i), place(level + 1, o))
                axis.plot(ends, (level, level + 1), color="0.75", linewidth=0.9, zorder=1)
        assert set(lower) == {o * stride + k for o in upper for k in range(kernel)}
    names = ["pixels", *(name for name, _, _ in layers)]
    for level, units in enumerate(needed):
        axis.plot(
            [place(level, i) for i in units], [level] * len(units), "s", markersize=9, color=COLORS[level], zorder=2
        )
        field = 1 if level == 0 else fields[level - 1][0]
        axis.text(-1.1, level, f"{names[level]}\nsees {field}", ha="right", va="center", fontsize=9.5)
    axis.set(xlim=(-4.2, 10), ylim=(-0.4, 4.4))
    axis.set_title("What one unit depends on, in a row")
    axis.axis("off")


def draw_receptive_field(maps: list[tuple[int, np.ndarray]]) -> plt.Figure:
    """The tree of a small stack, and measured gradients with the frame that the recurrence gives."""
    figure, axes = plt.subplots(1, 3, figsize=(10.6, 3.7), width_ratios=[1.45, 1, 1])
    draw_tree(axes[0])
    for axis, (depth, seen) in zip(axes[1:], maps, strict=True):
        field = sees(READER)[depth - 1][0]
        drawn = axis.imshow(np.where(seen > 0, seen, np.nan), cmap="viridis", vmin=0, vmax=1)
        rows, columns = np.nonzero(seen)
        frame(axis, (columns.min() - 0.5, rows.min() - 0.5), field, field, COLORS["vermillion"])
        axis.set(title=f"after {depth} layers: {field} × {field}", xlabel="column (pixels)", ylabel="row (pixels)")
        axis.set(xlim=(-1, 28), ylim=(28, -1))
        axis.grid(False)
    figure.colorbar(drawn, ax=axes[2], label="mean |gradient|, largest 1", shrink=0.85)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=300, help="random networks to average (default: %(default)s)")
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    results.figure(
        draw_windows(),
        "windows",
        alt="Four times a row of seven pixels, below it a bar for each window: five windows without padding, seven "
        "with padding 1, four with padding 1 and stride 2, three windows with gaps with dilation 2.",
    )
    results.figure(
        draw_pooling(),
        "pooling",
        alt="A four by four table in four blocks; the largest of each block, 0, 5, 1, 3, and the gradient, a single 1 "
        "per block; the means, −0.75, 0.75, −0.5, 1, and their gradient, a quarter everywhere.",
    )
    fields = sees(READER)
    maps = []
    for depth in range(1, len(READER) + 1):
        seen = gradient_map(depth, args.networks)
        field, step = fields[depth - 1]
        results.metric(f"field_layer_{depth}", field, unit="pixels")
        results.metric(f"field_layer_{depth}_measured", extent(seen), unit="pixels")
        print(f"after {READER[depth - 1][0]}: sees {field} by recurrence, {extent(seen)} by gradient, step {step}")
        if depth in (3, 5):
            maps.append((depth, seen))
    last = maps[-1][1]
    rows, columns = np.nonzero(last)
    top, left, half = rows.min() + 6, columns.min() + 6, 12
    share = last[top : top + half, left : left + half].sum() / last.sum()
    results.metric("field_middle_share", round(float(100 * share), 1), unit="%")
    results.metric("field_networks", args.networks)
    print(f"the middle quarter of the area has {100 * share:.1f}% of the gradient")
    results.figure(
        draw_receptive_field(maps),
        "receptive_field",
        alt="Left: a tree from one unit down to ten pixels in a row. Middle and right: maps of the gradient of one "
        "unit by the pixels, a square of 14 after three layers and of 24 after five, bright in the middle and dark "
        "towards the frame.",
    )
    results.save()


if __name__ == "__main__":
    main()
