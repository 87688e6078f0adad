"""Note 06: time and memory of attention against the length, in blocks by hand, and which blocks are skipped.

python sprints/06_multi_head_attention/results/cost.py          two minutes on one core

Each way is measured at each length in a process of its own: forward and backward of causal attention, 4 heads of 64.
Time is the smallest CPU time of several runs on one core; memory is by how much the first run raises the most that the
process ever held.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sentence import SCALE, canvas, label_columns, label_rows, projected, sentence, words, write_grid

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.arrays.kernels.attention import reference
from shared.nn import functional as F
from shared.ops import attention as ops

HEADS, WIDTH = 4, 64
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
WAYS = {
    "plain": "plain formula, six operations",
    "fused": "fused, in blocks",
    "whole": "fused, not causal",
    "torch": "PyTorch",
}
DOG = 1


# ---------------------------------------------------------------- measurements


def runner(way: str, length: int) -> Callable[[], Any]:
    """One forward and backward pass."""
    if way == "torch":
        import torch as library

        library.set_num_threads(1)
        attention = library.nn.functional.scaled_dot_product_attention
    else:
        library, attention = shared, F.scaled_dot_product_attention
    library.manual_seed(0)
    q, k, v = (library.randn(1, HEADS, length, WIDTH).requires_grad_() for _ in range(3))
    grad = library.randn(1, HEADS, length, WIDTH)

    def run() -> None:
        q.grad = k.grad = v.grad = None
        if way == "plain":
            out, _ = ops.attention_with_weights(q, k, v, None, 0, WIDTH**-0.5, 0.0)
        else:
            out = attention(q, k, v, is_causal=way != "whole")
        out.backward(grad)

    return run


def high_water() -> float:
    """The most memory that this process has ever held, in MiB (Linux only)."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024


def measure(way: str, length: int, seconds: float) -> dict[str, float]:
    """{"time": ms, "memory": MiB} of one way at one length."""
    runner(way, 32)()  # what is loaded or compiled once
    run = runner(way, length)
    before = high_water()
    run()
    memory, best, spent = high_water() - before, math.inf, 0.0
    while spent < seconds:
        start = time.process_time()
        run()
        took = time.process_time() - start
        best, spent = min(best, took), spent + took
    return {"time": 1000 * best, "memory": memory}


def in_its_own_process(way: str, length: int, seconds: float) -> dict[str, float]:
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    environment = {**os.environ, **one, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    command = [sys.executable, __file__, "--measure", way, str(length), "--seconds", str(seconds)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure_all(results: Results, seconds: float) -> dict[str, dict[int, dict[str, float]]]:
    """Every way at every length; PyTorch where it is installed."""
    ways = [way for way in WAYS if way != "torch" or importlib.util.find_spec("torch")]
    found: dict[str, dict[int, dict[str, float]]] = {way: {} for way in ways}
    print(f"{'length':>6}", *[f"{WAYS[way]:>32}" for way in ways])
    for length in LENGTHS:
        for way in ways:
            found[way][length] = in_its_own_process(way, length, seconds)
            results.metric(f"{way}_{length}_time", float(f"{found[way][length]['time']:.3g}"), unit="ms")
            results.metric(f"{way}_{length}_memory", float(f"{found[way][length]['memory']:.3g}"), unit="MiB")
        cells = [f"{found[way][length]['time']:18.4g} ms {found[way][length]['memory']:6.1f} MiB" for way in ways]
        print(f"{length:6}", *cells, flush=True)
    return found


def draw_cost(found: dict[str, dict[int, dict[str, float]]]) -> plt.Figure:
    """Time and memory against the length."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    looks = {"plain": (3, "s-"), "fused": (0, "o-"), "whole": (5, "^--"), "torch": (1, "D-")}
    for way, by_length in found.items():
        colour, style = looks[way]
        for axis, what in zip(axes, ("time", "memory"), strict=True):
            if what == "memory" and way == "whole":
                continue
            values = [max(v[what], 0.1) for v in by_length.values()]
            axis.plot(list(by_length), values, style, color=COLORS[colour], label=WAYS[way])
    for axis, title, unit in zip(axes, ("Time", "Memory"), ("ms of CPU time", "MiB above the inputs"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="length, tokens", ylabel=unit, title=title)
        axis.set_xticks(LENGTHS, [f"{n:,}" for n in LENGTHS], fontsize=8)
        axis.minorticks_off()
    axes[0].legend(fontsize=9)
    return figure


# ---------------------------------------------------------------- in blocks, by hand


def draw_blocks(results: Results) -> plt.Figure:
    """The dog's row, two keys at a time: scores, maximum, sum, values; each block's as `take_block` returns it."""
    q, k, v = (x.numpy() for x in projected(sentence()))
    scores = reference.attention_scores(q[DOG : DOG + 1], k, None, SCALE)
    state = np.full((1, 1), -np.inf, np.float32), np.zeros((1, 1), np.float32), np.zeros((1, 4), np.float32)
    figure, axis = plt.subplots(figsize=(9.6, 4.3))
    canvas(axis, 19, 8.6)
    label_columns(axis, words(), (3, 0.9))
    write_grid(axis, scores.tolist(), (3, 0.9))
    label_rows(axis, ["scores of dog"], (3, 0.9))
    label_columns(axis, ["maximum", "sum", "values: noun", "verb", "which", "article"], (5.5, 3.6), width=2.2, size=9)
    rows, labels = [], []
    for i, start in enumerate(range(0, 5, 2)):
        block = slice(start, min(start + 2, 5))
        axis.add_patch(plt.Rectangle((3 + start, 0.9), block.stop - start, 1, fill=True, alpha=0.25, color=COLORS[i]))
        state = reference.take_block(*state, scores[:, block], v[block])
        rows.append([float(x) for part in state for x in part.ravel()])
        labels.append("after " + ", ".join(words()[block]))
        for name, value in zip(("largest", "total", "noun", "verb", "which", "article"), rows[-1], strict=True):
            results.metric(f"block_{i}_{name}", round(value, 4))
    write_grid(axis, rows, (5.5, 3.6), width=2.2)
    label_rows(axis, labels, (5.5, 3.6))
    out = [value / rows[-1][1] for value in rows[-1][2:]]
    write_grid(axis, [out], (9.9, 7.2), width=2.2)
    label_rows(axis, ["values / sum"], (9.9, 7.2))
    whole = reference.attention(q, k, v, None, SCALE)[0][DOG]
    assert np.allclose(out, whole, atol=1e-6)
    print("in blocks", np.round(rows, 4).tolist(), "divided", np.round(out, 4).tolist())
    return figure


def draw_skipped(results: Results) -> plt.Figure:
    """Which blocks of scores a causal pass looks at, for 256 queries and keys in blocks of 32."""
    blocks = 8
    figure, axis = plt.subplots(figsize=(4.2, 4.2))
    canvas(axis, blocks + 1, blocks + 1)
    for r in range(blocks):
        for c in range(blocks):
            kind = "full" if c < r else "cut by the diagonal" if c == r else "skipped"
            colour = {"full": COLORS["blue"], "cut by the diagonal": COLORS["orange"], "skipped": "white"}[kind]
            axis.add_patch(plt.Rectangle((1 + c, 1 + r), 1, 1, facecolor=colour, alpha=0.6, edgecolor="0.4"))
    axis.text(1 + blocks / 2, 0.6, "keys, 32 a block", ha="center")
    axis.text(0.6, 1 + blocks / 2, "queries, 32 a block", va="center", rotation=90)
    for n in (8, 128):
        results.metric(f"share_of_{n}_blocks", round((n + 1) / (2 * n), 4))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time for each measurement (%(default)s)")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "LENGTH"), help="measure one and print it as JSON")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], int(args.measure[1]), args.seconds)))
        return
    use_style()
    results = Results(__file__, seed=0)
    results.figure(
        draw_blocks(results),
        "online_softmax",
        alt="The five scores of dog in blocks of two, two and one, and after each block the largest score, the sum of "
        "exponentials and the sum of values; the second block raises the maximum from 0 to 3.",
    )
    results.figure(
        draw_skipped(results),
        "skipped_blocks",
        alt="A square of eight by eight blocks of scores: full below the diagonal, cut on it, skipped above it.",
    )
    found = measure_all(results, args.seconds)
    results.figure(
        draw_cost(found),
        "attention_cost",
        alt="Time and memory of causal attention against length, both axes logarithmic: the plain formula's memory "
        "grows with the square of the length, that of the fused operation and of PyTorch with the length.",
    )
    results.save()


if __name__ == "__main__":
    main()
