"""Note 02: the little one's windows as columns, and what three ways to convolve cost in time and memory.

python sprints/04_advanced_training_mnist/results/product.py          about half a minute

Each way is measured in a process of its own, on one core, as the smallest CPU time of several runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from little import K, canvas, frame, little_one, write_grid

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import nn
from shared.arrays.kernels import conv as fast
from shared.arrays.kernels.conv import reference
from shared.arrays.kernels.windows import Windows

F = nn.functional
# The layer that is measured: 32 → 64 channels, 3 × 3 with padding, on 64 images of 28 × 28.
IMAGES, INPUTS, OUTPUTS, SIDE, KERNEL = 64, 32, 64, 28, 3
PRODUCTS = IMAGES * OUTPUTS * SIDE * SIDE * INPUTS * KERNEL * KERNEL
WINDOWS = Windows((KERNEL,) * 2, (SIDE,) * 2, (1, 1), (KERNEL // 2,) * 2, (1, 1))
WAYS = {
    "loops": "seven loops in Python",
    "windows": "a product for each window",
    "im2col": "im2col and a product",
    "kernel": "the kernel of shared",
    "torch": "PyTorch",
}


# ---------------------------------------------------------------- pictures


def draw_im2col() -> plt.Figure:
    """The filter as a row, the windows as columns, their product; and how often col2im adds to each pixel."""
    x, k = little_one()
    columns = F.unfold(x, 3)[0]
    figure, axis = plt.subplots(figsize=(8.8, 4.4))
    canvas(axis, 21.5, 11)
    colours = (COLORS["blue"], COLORS["vermillion"], COLORS["green"], COLORS["purple"])
    axis.text(4.5, 4.0, "the filter as a row, (O, C·kH·kW) = (1, 9)", ha="center", fontsize=10)
    write_grid(axis, [[v for row in K for v in row]], (0, 4.6))
    axis.text(10, 5.1, "@", ha="center", va="center", fontsize=15)
    axis.text(13, 0.25, "the windows as columns, (C·kH·kW, L) = (9, 4)", ha="center", fontsize=10)
    write_grid(axis, columns.tolist(), (11, 0.8), shade=columns.tolist(), strong="black")
    axis.text(16, 5.1, "=", ha="center", va="center", fontsize=17)
    axis.text(19, 4.0, "the result, (O, L) = (1, 4)", ha="center", fontsize=10)
    out = (k.reshape(1, 9) @ columns).tolist()
    write_grid(axis, out, (17, 4.6))
    for n, colour in enumerate(colours):
        frame(axis, (11 + n + 0.06, 0.86), 0.88, 8.88, colour)
        frame(axis, (17 + n + 0.06, 4.66), 0.88, 0.88, colour)
    axis.text(13, 10.5, "windows (0, 0), (0, 1), (1, 0), (1, 1)", ha="center", fontsize=9, color="0.35")
    return figure


def draw_col2im() -> plt.Figure:
    """Four columns of ones, laid back where they were taken: how many windows each pixel is in."""
    counts = F.fold(shared.ones(1, 9, 4), 4, 3)[0, 0]
    figure, axis = plt.subplots(figsize=(8.6, 2.4))
    canvas(axis, 27.5, 5.4)
    colours = (COLORS["blue"], COLORS["vermillion"], COLORS["green"], COLORS["purple"])
    for n, colour in enumerate(colours):
        i, j = divmod(n, 2)
        left = 5.6 * n
        cells = [["1" if i <= r < i + 3 and j <= c < j + 3 else "" for c in range(4)] for r in range(4)]
        write_grid(axis, cells, (left, 0.8))
        frame(axis, (left + j, 0.8 + i), 3, 3, colour)
        axis.text(left + 4.8, 2.8, "+" if n < 3 else "=", ha="center", va="center", fontsize=15)
    write_grid(axis, counts.tolist(), (22.9, 0.8), shade=(counts / 4).tolist())
    axis.text(24.9, 0.3, "in how many windows", ha="center", fontsize=10)
    return figure


# ---------------------------------------------------------------- measurements


def operands(images: int = IMAGES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, weight and a gradient of the result, uniform in [0, 1), float32."""
    rng = np.random.default_rng(0)
    x = rng.random((images, INPUTS, SIDE, SIDE), np.float32)
    weight = rng.random((OUTPUTS, INPUTS, KERNEL, KERNEL), np.float32)
    return x, weight, rng.random((images, OUTPUTS, SIDE, SIDE), np.float32)


def by_loops(x: np.ndarray, weight: np.ndarray) -> list[list[float]]:
    """One filter on one image, the sum as it is written: x (C, H, W) padded already, weight (C, KH, KW)."""
    values, factors = x.tolist(), weight.tolist()
    channels, high, wide = weight.shape
    result = []
    for i in range(x.shape[1] - high + 1):
        row = []
        for j in range(x.shape[2] - wide + 1):
            total = 0.0
            for c in range(channels):
                for a in range(high):
                    for b in range(wide):
                        total += factors[c][a][b] * values[c][i + a][j + b]
            row.append(total)
        result.append(row)
    return result


def by_windows(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """All filters on all images, a matrix product for each window's place: x (N, C, H, W) padded already."""
    high, wide = weight.shape[2:]
    filters = weight.reshape(len(weight), -1).T
    out = np.empty((len(x), len(weight), x.shape[2] - high + 1, x.shape[3] - wide + 1), x.dtype)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :, i, j] = x[:, :, i : i + high, j : j + wide].reshape(len(x), -1) @ filters
    return out


def best(work: Callable[[], object], repeats: int) -> float:
    """The smallest CPU time of `work` in milliseconds, after a first call that warms up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def high_water() -> float:
    """The most memory that this process has ever held, in MiB (Linux only)."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024


def measure(way: str, repeats: int) -> dict[str, float]:
    """{"forward": ms, "backward": ms, "memory": MiB of the first forward pass} of one way, for the whole layer."""
    x, weight, grad = operands()
    if way == "loops":
        padded = np.pad(x[0], ((0, 0), (1, 1), (1, 1)))
        time_of_one = best(lambda: by_loops(padded, weight[0]), 3)
        return {"forward": time_of_one * IMAGES * OUTPUTS}
    if way == "windows":
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        assert np.allclose(by_windows(padded, weight), reference.conv(x, weight, None, WINDOWS, 1), rtol=1e-4)
        return {"forward": best(lambda: by_windows(padded, weight), repeats)}
    if way == "torch":
        return measure_torch(x, weight, grad, repeats)
    ours = fast if way == "kernel" else reference
    ours.conv(x[:1], weight, None, WINDOWS, 1)
    before = high_water()
    ours.conv(x, weight, None, WINDOWS, 1)
    memory = high_water() - before

    def backward() -> None:
        ours.conv_input(grad, weight, (SIDE, SIDE), WINDOWS, 1)
        ours.conv_weight(grad, x, WINDOWS, 1)

    forward = best(lambda: ours.conv(x, weight, None, WINDOWS, 1), repeats)
    return {"forward": forward, "backward": best(backward, repeats), "memory": memory}


def measure_torch(x: np.ndarray, weight: np.ndarray, grad: np.ndarray, repeats: int) -> dict[str, float]:
    """The same in PyTorch; empty where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    images, filters, gradient = (torch.from_numpy(a) for a in (x, weight, grad))
    call = torch.nn.functional.conv2d
    call(images[:1], filters, padding=1)
    before = high_water()
    call(images, filters, padding=1)
    memory = high_water() - before
    forward = best(lambda: call(images, filters, padding=1), repeats)
    backward = best(
        lambda: torch.ops.aten.convolution_backward(
            gradient, images, filters, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
        ),
        repeats,
    )
    return {"forward": forward, "backward": backward, "memory": memory}


def in_its_own_process(way: str, repeats: int) -> dict[str, float]:
    """`measure(way)` where no other library has threads, and with one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = str(Path(__file__).resolve().parents[3])
    command = [sys.executable, __file__, "--measure", way, "--repeats", str(repeats)]
    environment = {**os.environ, **one, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def draw_cost(measured: dict[str, dict[str, float]]) -> plt.Figure:
    """Time of the forward pass of every way, and of both passes with the memory of those that have them."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.8, 3.6), width_ratios=[1.5, 1])
    names = [way for way in WAYS if measured[way]]
    times = [measured[way]["forward"] for way in names]
    left.plot(times, [WAYS[way] for way in names], "o", markersize=9, color=COLORS[0])
    for t, way in zip(times, names, strict=True):
        text = f"{t / 1000:,.0f} s" if t > 9999 else f"{t:,.0f} ms"
        left.annotate(text, (t, WAYS[way]), xytext=(9, 0), textcoords="offset points", va="center")
    left.set(title="Forward pass", xlabel="CPU time (ms), logarithmic", xscale="log", xlim=(8, max(times) * 12))
    left.invert_yaxis()
    left.margins(y=0.12)
    memory = [way for way in names if "memory" in measured[way]]
    bars = right.barh([WAYS[way] for way in memory], [measured[way]["memory"] for way in memory], color=COLORS[1])
    right.bar_label(bars, [f"{measured[way]['memory']:.0f} MiB" for way in memory], padding=4)
    right.set(title="Memory it takes", xlabel="MiB, the result included", xlim=(0, 120))
    right.invert_yaxis()
    right.grid(axis="y", visible=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="runs, of which the fastest counts (%(default)s)")
    parser.add_argument("--measure", choices=list(WAYS), help="measure one way and print it as JSON")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.repeats)))
        return
    use_style()
    results = Results(__file__)
    results.figure(
        draw_im2col(),
        "im2col",
        alt="The filter as a row of nine numbers times a table of nine rows and four columns, each column one window "
        "of the little one, gives the row −1, 5, 1, 3.",
    )
    results.figure(
        draw_col2im(),
        "col2im",
        alt="Four grids of four by four, each with ones in one window, add up to a grid with 1 in the corners, 2 "
        "along the edges and 4 in the middle.",
    )
    measured = {way: in_its_own_process(way, args.repeats) for way in WAYS}
    for way, values in measured.items():
        for what, value in values.items():
            unit = "MiB" if what == "memory" else "s" if way == "loops" else "ms"
            value = value / 1000 if unit == "s" else value
            results.metric(f"conv_{way}_{what}", float(f"{value:.3g}"), unit=unit)
        print(f"{WAYS[way]:26}", ", ".join(f"{what} {value:,.4g}" for what, value in values.items()))
    results.metric("conv_products", PRODUCTS)
    results.metric("conv_gflops", float(f"{2 * PRODUCTS / measured['kernel']['forward'] / 1e6:.3g}"), unit="GFLOP/s")
    columns = IMAGES * INPUTS * KERNEL**2 * SIDE**2 * 4 / 2**20
    results.metric("conv_columns_memory", float(f"{columns:.3g}"), unit="MiB")
    results.metric("conv_image_memory", float(f"{columns / KERNEL**2:.3g}"), unit="MiB")
    results.figure(
        draw_cost(measured),
        "convolution_cost",
        alt="Left: the time of a forward pass on a logarithmic axis, largest for loops in Python, then a product for "
        "each window, then im2col, smallest for the kernel of shared and PyTorch. Right: the memory, largest for "
        "im2col.",
    )
    results.save()


if __name__ == "__main__":
    main()
