"""Note 01: what strides select from one strip of memory, and what a Python loop and a long stride cost."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

from course.plotting import COLORS, use_style
from course.results import Results

ROWS = [0, 50, 100, 51]  # a setosa, a versicolor, a virginica, another versicolor


def least_seconds(run: Callable[[], object], repeats: int) -> float:
    """Least time of `run()` (other work on the machine can only add), after one call that does not count."""
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def elements(view: np.ndarray, base: np.ndarray) -> list[tuple[int, tuple[int, ...]]]:
    """(place in the strip, index) of every element of `view`, computed from offset and strides alone."""
    start = (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // base.itemsize
    steps = [stride // base.itemsize for stride in view.strides]
    return [(start + sum(i * s for i, s in zip(at, steps, strict=True)), at) for at in np.ndindex(view.shape)]


def draw_memory(table: np.ndarray) -> plt.Figure:
    """The same strip of sixteen numbers four times, coloured where each view looks."""
    views = [
        ("table", table, "(4, 4)  strides (4, 1)  offset 0"),
        ("petals = table[:, 2:4]", table[:, 2:4], "(4, 2)  strides (4, 1)  offset 2"),
        ("petals.T", table[:, 2:4].T, "(2, 4)  strides (1, 4)  offset 2"),
        ("table[::2]", table[::2], "(2, 4)  strides (8, 1)  offset 0"),
    ]
    figure, axes = plt.subplots(figsize=(10.5, 5.2))
    axes.set(xlim=(-0.2, 16.2), ylim=(-0.35, 6.9))
    axes.axis("off")
    axes.set_title("One strip of memory, four tensors. Below each number: the index by which the view calls it")
    strip = table.ravel()
    shades = [COLORS["blue"], COLORS["orange"], COLORS["green"], COLORS["purple"]]
    for row, (name, view, says) in enumerate(views):
        y = 5.1 - 1.75 * row
        shown = dict(elements(view, table))
        axes.text(0, y + 1.08, name, fontsize=11, family="monospace", weight="bold")
        axes.text(16, y + 1.08, says, fontsize=10.5, ha="right", family="monospace")
        for place, number in enumerate(strip):
            index = shown.get(place)
            shade = shades[index[0] % 4] if index else "white"
            axes.add_patch(plt.Rectangle((place, y), 1, 0.95, fc=shade, ec="#555555", alpha=0.55 if index else 1))
            axes.text(place + 0.5, y + 0.63, f"{number:.1f}", ha="center", va="center", fontsize=10.5)
            if index:
                axes.text(place + 0.5, y + 0.23, "{},{}".format(*index), ha="center", va="center", fontsize=8.5)
    return figure


def main() -> None:
    """Draw the strip and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40, help="timings; the least counts (default 40)")
    parser.add_argument("--full", action="store_true", help="a matrix of 16,384 × 16,384 (1 GiB) for the strides")
    arguments = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)

    table = load_iris().data[ROWS].astype(np.float32)
    results.figure(
        draw_memory(table),
        "tensor_memory",
        alt="Four rows of the same sixteen numbers. The petals are places 2, 3, 6, 7, 10, 11, 14 and 15; the "
        "transposed petals are the same places under swapped indices; every second row is places 0 to 3 "
        "and 8 to 11.",
    )

    rng = np.random.default_rng(0)
    numbers = rng.random(1_000_000).astype(np.float32)
    listed = numbers.tolist()
    loop = least_seconds(lambda: [x * 0.5 + 1 for x in listed], arguments.repeats)
    array = least_seconds(lambda: numbers * np.float32(0.5) + np.float32(1), arguments.repeats)

    side = 16384 if arguments.full else 4096
    matrix = rng.random((side, side), dtype=np.float32)
    along = least_seconds(lambda: [matrix[i].sum() for i in range(side)], arguments.repeats)
    across = least_seconds(lambda: [matrix[:, i].sum() for i in range(side)], arguments.repeats)
    print(f"a million numbers times 0.5 plus 1: list {loop * 1e3:.2f} ms, array {array * 1e3:.2f} ms")
    print(f"sums of {side} rows: {along * 1e3:.1f} ms; of {side} columns: {across * 1e3:.1f} ms")
    results.metric("list_loop_ms", 1e3 * loop, unit="ms")
    results.metric("array_op_ms", 1e3 * array, unit="ms")
    results.metric("list_over_array", loop / array)
    results.metric("row_sums_ms", 1e3 * along, unit="ms")
    results.metric("column_sums_ms", 1e3 * across, unit="ms")
    results.metric("columns_over_rows", across / along)
    results.save()


if __name__ == "__main__":
    main()
