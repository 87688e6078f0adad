"""Note 03: a learning rate by sweep, what noise a curve has, and training against validation.

python sprints/09_train_gpt2/results/reading.py          one minute of one core
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from small import BATCH, LENGTH, Corpus, corpus, small_gpt, trained

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor
from shared.data import RandomWindows, random_windows
from shared.training import batch_loss, find_learning_rate, warmup_cosine

STEPS, RATES = 300, (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def sweep(text: Corpus, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(rates, losses) of 120 updates whose rate rises from 1e-5 to 1."""
    model, windows = small_gpt(text.vocab_size, seed), RandomWindows(text.train, BATCH, LENGTH, seed)
    optimizer = model.configure_optimizers(lr=1e-3)

    def loss_of_batch() -> Tensor:
        return batch_loss(model, *next(windows))

    rates, losses = find_learning_rate(model, loss_of_batch, optimizer, lowest=1e-5, highest=1.0, steps=120, stop_at=2)
    return np.array(rates), np.array(losses)


def smoothed(values: Any, beta: float = 0.9) -> np.ndarray:
    """The exponential mean with the correction for its start: as TensorBoard's slider does it. (N,) → (N,).

    >>> smoothed([2.0, 2.0, 5.0], beta=0.5).round(3).tolist()
    [2.0, 2.0, 3.714]
    """
    out, mean = [], 0.0
    for i, value in enumerate(values, start=1):
        mean = beta * mean + (1 - beta) * float(value)
        out.append(mean / (1 - beta**i))
    return np.array(out)


def cosine(highest: float, steps: int = STEPS) -> Callable[[int], float]:
    """Warm-up over a tenth, then a cosine to a tenth."""
    return lambda step: warmup_cosine(step, highest, highest / 10, steps // 10, steps)


def final(text: Corpus, rate: float) -> float:
    """The mean loss of the last 30 updates of a short training with this highest rate."""
    model = small_gpt(text.vocab_size)
    optimizer = model.configure_optimizers(lr=rate)
    return float(trained(model, text.train, optimizer, cosine(rate), STEPS)[0][-30:].mean())


def finder(text: Corpus, results: Results) -> plt.Figure:
    """The sweep, and under it what trainings at some of the rates arrive at."""
    rates, losses = sweep(text)
    curve = smoothed(losses, 0.8)
    lowest = int(curve.argmin())
    results.metric("finder_lowest_rate", round(float(rates[lowest]), 5))
    results.metric("finder_tenth", round(float(rates[lowest]) / 10, 5))
    ends = [final(text, rate) for rate in RATES]
    best = int(np.argmin(ends))
    results.metric("finder_best_trained_rate", RATES[best])
    for rate, end in zip(RATES, ends, strict=True):
        results.metric(f"finder_{rate:g}_loss", round(end, 3), unit="nats")
    print(
        f"  sweep lowest at {rates[lowest]:.4f}; trained: {dict(zip(RATES, np.round(ends, 3).tolist(), strict=True))}"
    )
    figure, axis = plt.subplots(figsize=(7.4, 4.2))
    axis.semilogx(rates, losses, color="0.8", linewidth=1, label="sweep: each update's batch")
    axis.semilogx(rates, curve, color=COLORS["blue"], label="sweep, smoothed")
    axis.semilogx(RATES, ends, "D", color=COLORS["vermillion"], label=f"end of {STEPS} updates at that rate")
    axis.set(title="A sweep of the learning rate, and what it is worth", xlabel="learning rate", ylim=(2, 5))
    axis.set_ylabel("loss (nats per character)")
    axis.legend(loc="upper left")
    return figure


def noise(text: Corpus, results: Results) -> plt.Figure:
    """A training's curve, bare and smoothed; and how the loss of a batch scatters with its size, weights held still."""
    model = small_gpt(text.vocab_size)
    optimizer = model.configure_optimizers(lr=1e-2)
    losses = trained(model, text.train, optimizer, cosine(1e-2), STEPS)[0]
    model.eval()
    generator = shared.Generator().manual_seed(5)
    sizes, spreads = (1, 4, 12, 48), []
    with shared.no_grad():
        for size in sizes:
            values = [batch_loss(model, *random_windows(text.train, size, LENGTH, generator)).item() for _ in range(60)]
            spreads.append(float(np.std(values)))
            results.metric(f"noise_batch_{size}", round(spreads[-1], 3), unit="nats")
    results.metric("noise_gain_last_100", round(float(losses[-110:-90].mean() - losses[-20:].mean()), 3), unit="nats")
    print(f"  spread of a batch's loss: {dict(zip(sizes, np.round(spreads, 3).tolist(), strict=True))}")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), width_ratios=(2, 1))
    left.plot(losses, color="0.8", linewidth=0.7, label="each update's batch")
    for beta, colour in ((0.9, "blue"), (0.99, "orange")):
        left.plot(smoothed(losses, beta), color=COLORS[colour], label=f"smoothed, β = {beta}")
    left.set(title="The same losses three times", xlabel="updates", ylabel="loss (nats per character)")
    left.legend()
    right.loglog(sizes, spreads, "o", color=COLORS["blue"], label="measured")
    line = np.array(sizes, float)
    right.loglog(line, spreads[0] * line**-0.5, "--", color="0.5", linewidth=1, label="1/√windows")
    right.set(title="Noise of a batch", xlabel="windows in the batch", ylabel="standard deviation (nats)")
    right.set_xticks(sizes, [str(s) for s in sizes])
    right.set_xticks([], minor=True)
    right.legend()
    return figure


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    use_style()
    text, results = corpus(), Results(__file__, seed=0)
    results.figure(
        finder(text, results),
        "finder",
        alt="Loss against the learning rate, logarithmic: flat at small rates, falling, a valley, then rising steeply; "
        "diamonds show what trainings at six rates end at.",
    )
    results.figure(
        noise(text, results),
        "noise",
        alt="Left: losses of 300 updates, jagged, with two smooth curves, of which the smoother lies above while they "
        "fall. Right: the scatter of a batch's loss falls with the root of its number of windows.",
    )
    results.save()


if __name__ == "__main__":
    main()
