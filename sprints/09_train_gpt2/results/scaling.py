"""Note 05: three sizes, four lengths of training: loss against compute, a power law, and what an update costs.

python sprints/09_train_gpt2/results/scaling.py          twelve trainings of seconds, a minute or two of one core

Seconds are those of the processor (time.process_time), one thread, the shortest of several updates: what else the
machine does counts less so.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from small import Corpus, corpus

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.data import RandomWindows, sequential_windows
from shared.models import GPT, GPTConfig, config_from_hugging_face
from shared.training import evaluate_loss, train_step, warmup_cosine

BATCH, LENGTH, HELD = 12, 64, 40_000
METRICS = Path(__file__).with_name("metrics.json")
KEPT = Path(__file__).resolve().parents[1] / "model" / "config.json"


@dataclass(frozen=True)
class Size:
    """A model of the study and the highest rate of its training: smaller models bear larger ones."""

    name: str
    n_layer: int
    n_head: int
    n_embd: int
    rate: float

    def config(self, vocab_size: int) -> GPTConfig:
        """As the preset `cpu`, in another size."""
        sizes = {"n_layer": self.n_layer, "n_head": self.n_head, "n_embd": self.n_embd}
        return GPTConfig.preset("cpu", vocab_size=vocab_size, **sizes)


SIZES = (Size("small", 1, 2, 32, 1e-2), Size("middle", 2, 4, 48, 8e-3), Size("large", 3, 4, 72, 6e-3))
LENGTHS = (100, 200, 400, 800)  # updates, each with a schedule that ends there

# ---------------------------------------------------------------- loss against compute


def kept_config() -> GPTConfig:
    """That of the model which the sprint keeps."""
    return config_from_hugging_face(json.loads(KEPT.read_text(encoding="utf-8")))


def run(text: Corpus, size: Size, steps: int, seed: int) -> tuple[float, float, float]:
    """One training: (floating-point operations, validation loss at the end, seconds of an update)."""
    shared.manual_seed(seed)
    model = GPT(size.config(text.vocab_size))
    optimizer, windows = (
        model.configure_optimizers(lr=size.rate, betas=(0.9, 0.99)),
        RandomWindows(text.train, BATCH, LENGTH, seed),
    )
    times = []
    for step in range(steps):
        start = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, size.rate, size.rate / 10, steps // 10, steps)
        train_step(model, optimizer, *next(windows))
        times.append(time.process_time() - start)
    loss = evaluate_loss(model, sequential_windows(text.val[:HELD], 64, LENGTH))
    return float(model.flops_per_token() * BATCH * LENGTH * steps), loss, float(np.median(times))


def frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (compute, loss) that nothing with at most the same compute beats, by compute.

    >>> frontier([(2.0, 2.5), (1.0, 3.0), (3.0, 2.7)])
    [(1.0, 3.0), (2.0, 2.5)]
    """
    best: list[tuple[float, float]] = []
    for compute, loss in sorted(points):
        if not best or loss < best[-1][1]:
            best.append((compute, loss))
    return best


def power_law(compute: np.ndarray, loss: np.ndarray) -> tuple[float, float]:
    """(a, b) of loss = a · compute^(−b): least squares on the logarithms of both, (N,) each.

    >>> a, b = power_law(np.array([1.0, 10.0, 100.0]), np.array([4.0, 2.0, 1.0]))
    >>> round(a, 6), round(b, 6)
    (4.0, 0.30103)
    """
    slope, intercept = np.polyfit(np.log(compute), np.log(loss), 1)
    return float(np.exp(intercept)), float(-slope)


def study(text: Corpus, seed: int, results: Results) -> plt.Figure:
    """All sizes and lengths; the law through the best of them, and what it says about larger trainings."""
    figure, axis = plt.subplots(figsize=(7.6, 4.8))
    points, looks = [], zip(SIZES, COLORS, ("o", "s", "^"), strict=False)
    for size, colour, marker in looks:
        parameters = size.config(text.vocab_size).num_parameters()
        rows = [run(text, size, steps, seed) for steps in LENGTHS]
        for steps, (compute, loss, _) in zip(LENGTHS, rows, strict=True):
            results.metric(f"scaling_{size.name}_{steps}_loss", round(loss, 4), unit="nats")
            print(f"  {parameters:7,} parameters, {steps} updates, {compute:.2e} FLOP: {loss:.3f} nats", flush=True)
        results.metric(f"scaling_{size.name}_parameters", parameters)
        results.metric(f"scaling_{size.name}_flops_per_token", GPT(size.config(text.vocab_size)).flops_per_token())
        points += [(compute, loss) for compute, loss, _ in rows]
        label = f"{parameters:,} parameters"
        axis.plot([r[0] for r in rows], [r[1] for r in rows], marker=marker, color=colour, label=label)
    best = frontier(points)
    a, b = power_law(*np.array(best).T)
    results.metric("scaling_exponent", round(b, 4))
    results.metric("scaling_frontier_points", len(best))
    results.metric("scaling_half_factor", round(2 ** (1 / b), 0))
    spread = max(abs(a * compute**-b - loss) for compute, loss in best)
    results.metric("scaling_largest_miss", round(spread, 3), unit="nats")
    results.metric("scaling_compute_lowest", min(points)[0], unit="FLOP")
    results.metric("scaling_compute_highest", max(points)[0], unit="FLOP")
    line = np.geomspace(best[0][0], 8e13, 50)
    known = json.loads(METRICS.read_text(encoding="utf-8"))
    measured = {name: known[f"{name}_val_loss_whole"]["value"] for name in ("cpu", "kept")}
    axis.plot(line, a * line**-b, "--", color="0.4", linewidth=1.2, label=f"{a:.1f} · C^(−{b:.3f})")
    cpu = GPTConfig.preset("cpu", vocab_size=text.vocab_size)
    for name, config, steps, mark in (("cpu", cpu, 2000, "*"), ("kept", kept_config(), 2500, "P")):
        compute = float(GPT(config).flops_per_token() * BATCH * config.block_size * steps)
        results.metric(f"scaling_{name}_compute", compute, unit="FLOP")
        results.metric(f"scaling_{name}_predicted", round(a * compute**-b, 3), unit="nats")
        results.metric(f"scaling_{name}_measured", measured[name], unit="nats")
        label = f"preset {name}, not fitted"
        axis.plot(compute, measured[name], mark, markersize=11, color=COLORS["vermillion"], label=label)
    axis.set(xscale="log", yscale="log", xlabel="compute C of the training (FLOP)")
    axis.set(ylabel="validation loss (nats per character)", title="Loss against compute")
    axis.set_yticks([1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6, 2.8], ["1.4", "1.6", "1.8", "2.0", "2.2", "2.4", "2.6", "2.8"])
    axis.set_yticks([], minor=True)
    axis.legend()
    return figure


# ---------------------------------------------------------------- what an update costs


def peak() -> float:
    """FLOP/s of one product of two float32 matrices, 1,536 × 1,536, the best of eight."""
    n = 1536
    x, y = shared.randn(n, n), shared.randn(n, n)
    times = []
    for _ in range(8):
        start = time.process_time()
        x @ y
        times.append(time.process_time() - start)
    return 2 * n**3 / min(times)


def update_seconds(config: GPTConfig, batch: int, text: Corpus, recompute: bool = False) -> tuple[float, float]:
    """(seconds of an update, largest memory in bytes that arrays took meanwhile), both after a warm-up."""
    shared.manual_seed(0)
    model = GPT(config)
    model.gradient_checkpointing = recompute
    optimizer, windows = model.configure_optimizers(lr=1e-4), RandomWindows(text.train, batch, config.block_size, 0)
    times = []
    for _ in range(12):
        start = time.process_time()
        train_step(model, optimizer, *next(windows))
        times.append(time.process_time() - start)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    train_step(model, optimizer, *next(windows))
    memory = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return min(times), float(memory)


def costs(text: Corpus, results: Results) -> plt.Figure:
    """FLOP/s of updates of growing models, as a share of the peak; and what recomputation saves and costs."""
    top = peak()
    results.metric("peak_gflops", round(top / 1e9, 1), unit="GFLOP/s")
    models = {size.name: size.config(text.vocab_size) for size in SIZES}
    models["cpu"] = GPTConfig.preset("cpu", vocab_size=text.vocab_size)
    models["wide"] = GPTConfig.preset("gpu", vocab_size=text.vocab_size, n_layer=2, block_size=128, dropout=0.0)
    shares, counts = [], []
    for name, config in models.items():
        seconds, _ = update_seconds(config, BATCH, text)
        flops = GPT(config).flops_per_token() * BATCH * config.block_size
        shares.append(flops / seconds / top)
        counts.append(config.num_parameters())
        results.metric(f"cost_{name}_ms", round(1e3 * seconds, 1), unit="ms")
        results.metric(f"cost_{name}_gflop", round(flops / 1e9, 3), unit="GFLOP")
        results.metric(f"cost_{name}_gflops", round(flops / seconds / 1e9, 1), unit="GFLOP/s")
        results.metric(f"cost_{name}_share", round(shares[-1], 4))
        results.metric(f"cost_{name}_parameters", config.num_parameters())
        print(f"  {name}: {1e3 * seconds:.1f} ms, {flops / seconds / 1e9:.1f} GFLOP/s, {shares[-1]:.0%} of the peak")
    for name, recompute in (("kept", False), ("recomputed", True)):
        seconds, memory = update_seconds(models["wide"], BATCH, text, recompute)
        results.metric(f"activations_{name}_ms", round(1e3 * seconds, 1), unit="ms")
        results.metric(f"activations_{name}_mb", round(memory / 1e6, 1), unit="MB")
        print(f"  activations {name}: {1e3 * seconds:.0f} ms, {memory / 1e6:.0f} MB")
    figure, axis = plt.subplots(figsize=(7.0, 3.8))
    axis.bar([f"{n:,}" for n in counts], [100 * share for share in shares], color=COLORS["blue"], width=0.6)
    axis.set(xlabel="parameters of the model", ylabel="of the peak (%)", ylim=(0, 100))
    axis.set_title(f"What updates reach of {top / 1e9:.0f} GFLOP/s")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_style()
    text, results = corpus(), Results(__file__, seed=args.seed)
    results.figure(
        study(text, args.seed, results),
        "scaling",
        alt="Validation loss against floating-point operations, both logarithmic: three falling curves of four "
        "points, one for each model, a dashed straight line along their lower edge, and two marks further right.",
    )
    results.figure(
        costs(text, results),
        "utilisation",
        alt="Bars of the share of the machine's peak that an update reaches: the larger the model, the higher.",
    )
    results.save()


if __name__ == "__main__":
    main()
