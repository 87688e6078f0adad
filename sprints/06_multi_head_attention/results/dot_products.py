"""Note 01: the sentence's attention by hand, how sharp a softmax is, and why scores are divided by √d.

python sprints/06_multi_head_attention/results/dot_products.py          about a minute and a half
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from sentence import BIT, DOG_BIT_MAN, SCALE, canvas, frame, label_columns, label_rows, projected, sentence, words
from sentence import write_grid as write
from tqdm import tqdm

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn, optim

F = nn.functional
WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
KEYS = 32  # in the measurement of saturation
SCALES: dict[str, tuple[str, Callable[[int], float]]] = {
    "root": ("q·k / √d", lambda d: d**-0.5),
    "none": ("q·k", lambda d: 1.0),
    "width": ("q·k / d", lambda d: 1.0 / d),
}
STYLES = {"root": ("o-", "blue"), "none": ("s--", "vermillion"), "width": ("^:", "green")}
RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


# ---------------------------------------------------------------- by hand


def draw_by_hand() -> plt.Figure:
    """What "bit" does: its query, five keys, scores, weights, values, and their weighted sum."""
    q, k, v = (t.numpy() for t in projected(sentence()))
    scores = q[BIT] @ k.T * SCALE
    weights = np.exp(scores) / np.exp(scores).sum()
    names = words(DOG_BIT_MAN)
    figure, axis = plt.subplots(figsize=(9.4, 4.0))
    canvas(axis, 24.6, 10.2)
    top = 3.6
    axis.text(3.2, 0.5, "query of “bit”", ha="center", fontsize=10)
    write(axis, [q[BIT]], (1.2, 1))
    axis.text(3.2, top - 0.35, "keys", ha="center", fontsize=10)
    write(axis, k, (1.2, top))
    label_rows(axis, names, (1.2, top))
    frame(axis, (1.2, 1), 4, 1, COLORS["vermillion"])
    columns = [
        ("q·k", scores / SCALE, 1.6, 1),
        ("q·k / 2", scores, 1.6, 1),
        ("exp", np.exp(scores), 2.0, 2),
        ("weight", weights, 2.0, 3),
    ]
    left = 6.4
    for title, column, width, places in columns:
        axis.text(left + width / 2, top - 0.35, title, ha="center", fontsize=10)
        shade = weights[:, None] if title == "weight" else None
        write(axis, column[:, None], (left, top), shade=shade, width=width, places=places)
        if title == "exp":
            axis.text(left + width / 2, top + 5.5, f"sum {np.exp(scores).sum():.2f}", ha="center", va="center")
        if title == "weight":
            axis.text(left + width / 2, top + 5.5, "sum 1", ha="center", va="center")
        left += width + 0.5
    axis.text(left + 0.1, top + 2.5, "·", ha="center", va="center", fontsize=20)
    left += 0.8
    axis.text(left + 4, top - 1.15, "values", ha="center", fontsize=10)
    label_columns(axis, ["noun", "verb", "which", "article"], (left, top), width=2, size=8.5)
    write(axis, v, (left, top), shade=np.repeat(weights[:, None], 4, axis=1), width=2)
    write(axis, [weights @ v], (left, top + 5.6), width=2)
    frame(axis, (left, top + 5.6), 8, 1, COLORS["vermillion"])
    axis.text(left - 0.2, top + 6.1, "weighted sum", ha="right", va="center", fontsize=10)
    return figure


def draw_sharpness(results: Results) -> plt.Figure:
    """The weights of "bit" when its scores are multiplied by a factor from 0 to 3."""
    q, k, _ = (t.numpy().astype(float) for t in projected(sentence()))
    scores = q[BIT] @ k.T * SCALE
    factors = np.linspace(0, 3, 121)
    weights = np.exp(factors[:, None] * scores)
    weights /= weights.sum(axis=1, keepdims=True)
    at_three = weights[-1]
    results.metric("sharpness_3_dog", float(f"{at_three[1]:.5g}"))
    results.metric("sharpness_3_slope", float(f"{at_three[1] * (1 - at_three[1]):.3g}"))
    results.metric("sharpness_1_slope", float(f"{weights[40, 1] * (1 - weights[40, 1]):.3g}"))
    figure, axis = plt.subplots(figsize=(7, 3.4))
    for column, name, style, colour in (
        (1, "dog", "-", "blue"),
        (4, "man", "--", "orange"),
        (0, "each of the others", ":", "black"),
    ):
        axis.plot(factors, weights[:, column], style, color=COLORS[colour], label=name)
    axis.axvline(1, color="0.5", linewidth=1)
    axis.text(1.03, 0.5, "as computed", fontsize=9, color="0.35")
    axis.set(title="From the mean to a lookup", xlabel="factor on the scores of “bit”", ylabel="weight", ylim=(0, 1.02))
    axis.legend(loc="center right")
    return figure


# ---------------------------------------------------------------- variance and saturation


def measure_widths(rows: int, results: Results) -> dict[str, dict[str, list[float]]]:
    """{"root", "none": {"variance", "largest", …: a number per width}} for factors with mean 0 and variance 1.

    "largest" is the mean of the largest of the 32 weights of a query; "slope" and "slope_mean" the median and the mean
    over the queries of the Frobenius norm of their softmax's Jacobian, diag(a) − a aᵀ.
    """
    rng = np.random.default_rng(0)
    found = {name: {"variance": [], "largest": [], "slope": [], "slope_mean": []} for name in ("root", "none")}
    for d in WIDTHS:
        q, k = rng.standard_normal((rows, 1, d)), rng.standard_normal((rows, KEYS, d))
        dots = (q @ k.swapaxes(1, 2))[:, 0]
        for name, numbers in found.items():
            scores = dots * SCALES[name][1](d)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            square = (weights**2).sum(axis=1)
            # ‖diag(a) − a aᵀ‖² = Σ aᵢ² − 2 Σ aᵢ³ + (Σ aᵢ²)²
            slope = np.sqrt(np.maximum(square - 2 * (weights**3).sum(axis=1) + square**2, 0))
            numbers["variance"].append(float(scores.var()))
            numbers["largest"].append(float(weights.max(axis=1).mean()))
            numbers["slope"].append(float(np.median(slope)))
            numbers["slope_mean"].append(float(slope.mean()))
            if d in (4, 64, 512):
                for what, values in numbers.items():
                    results.metric(f"{what}_{name}_{d}", float(f"{values[-1]:.3g}"))
    print("widths   ", WIDTHS)
    for name, numbers in found.items():
        for what, values in numbers.items():
            print(f"{name:5} {what:10}", [float(f"{value:.3g}") for value in values])
    return found


def draw_widths(found: dict[str, dict[str, list[float]]]) -> plt.Figure:
    """Variance of the score, largest weight and slope of the softmax against the width."""
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.4))
    titles = {
        "variance": ("Variance of a score", "variance"),
        "largest": (f"Largest of {KEYS} weights", "mean over the queries"),
        "slope": ("Slope of the softmax", "norm of the Jacobian"),
    }
    for axis, (what, (title, label)) in zip(axes, titles.items(), strict=True):
        for name, numbers in found.items():
            style, colour = STYLES[name]
            axis.plot(WIDTHS, numbers[what], style, color=COLORS[colour], markersize=4, label=SCALES[name][0])
        axis.set(title=title, xlabel="width d", ylabel=label, xscale="log")
    axes[0].set(yscale="log")
    axes[1].set(ylim=(0, 1))
    for name, numbers in found.items():
        axes[2].plot(WIDTHS, numbers["slope_mean"], "-", color=COLORS[STYLES[name][1]], linewidth=1, alpha=0.8)
    for what, text, left in (("slope_mean", "mean", 1050), ("slope", "median", 380)):
        axes[2].text(left, 0.72 * found["none"][what][-2], text, fontsize=8, color="0.35", ha="right", va="top")
    axes[2].set(yscale="log")
    axes[0].legend()
    return figure


# ---------------------------------------------------------------- a lookup to be learnt


def lookups(d: int, keys: int, mix: Tensor, offset: float) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs for 64 queries (64, 1, d) and their keys (64, keys, d), and values (64, keys, 4): the first is sought."""
    x = shared.randn(64, keys, d)
    return x[:, :1] @ mix, x, shared.randn(64, keys, 4) + offset


def untrained(d: int, seed: int) -> tuple[Tensor, list[nn.Parameter]]:
    """The fixed matrix that hides which key is sought, and W_Q and W_K as they are before training, all (d, d)."""
    shared.manual_seed(seed)
    mix = shared.randn(d, d) / math.sqrt(d)
    return mix, [nn.Parameter(shared.randn(d, d) / math.sqrt(d)) for _ in range(2)]


def learn_lookup(
    d: int,
    rate: float,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    steps: int = 240,
    seed: int = 0,
    offset: float = 0.0,
) -> list[float]:
    """The loss at each step of plain gradient descent on W_Q and W_K (d, d).

    The input of a query is the input of one of 8 keys, sent through a fixed random matrix; the loss is the mean squared
    error between the result and the value of that key, where values scatter around `offset` with variance 1. Always the
    mean of the values: 1 − 1/8. Always one value, chosen blindly: 2 · (1 − 1/8).
    """
    mix, (w_q, w_k) = untrained(d, seed)
    optimizer = optim.SGD([w_q, w_k], lr=rate)
    losses = []
    for _ in range(steps):
        sought, x, v = lookups(d, 8, mix, offset)
        loss = F.mse_loss(attend(sought @ w_q, x @ w_k, v), v[:, :1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def measure_first_gradients(widths: tuple[int, ...], seeds: int, results: Results) -> None:
    """Before any step: how large the gradient of W_Q is beside W_Q, and how it is spread over the queries.

    Whether the scores are divided decides about both. A query's share is the norm of the gradient by its vector q.
    """
    for d in widths:
        for name, (_, scale) in SCALES.items():
            sizes, norms = [], []
            for seed in range(seeds):
                mix, (w_q, w_k) = untrained(d, seed)
                sought, x, v = lookups(d, 8, mix, 0.0)
                q = (sought @ w_q).detach().requires_grad_()
                F.mse_loss(F.scaled_dot_product_attention(q, x @ w_k, v, scale=scale(d)), v[:, :1]).backward()
                by_query = q.grad.numpy()[:, 0]  # (64, d)
                norms.append(np.linalg.norm(by_query, axis=1))
                by_matrix = sought.numpy()[:, 0].T @ by_query  # what W_Q gets: a sum over the queries
                sizes.append(np.linalg.norm(by_matrix) / np.linalg.norm(w_q.numpy(force=True)))
            each = np.sort(np.stack(norms), axis=1)[:, ::-1] ** 2  # (seeds, 64), the largest first
            found = {
                "first_gradient": np.mean(sizes),
                "query_gradient_median": np.median(norms),
                "query_gradient_mean": np.mean(norms),
                "query_gradient_quarter": each[:, :16].sum() / each.sum(),
            }
            for what, value in found.items():
                places = 4 if what == "query_gradient_quarter" else 2
                results.metric(f"{what}_{name}_{d}", float(f"{value:.{places}g}"))
            print(f"width {d:4} {name:6}", {what: float(f"{value:.3g}") for what, value in found.items()})


def watch_decisions(d: int, rate: float, step: int, seeds: int, results: Results) -> None:
    """After `step` steps of the lookup: how far scores scatter, how many queries are decided, how many rightly.

    Decided is a query that gives more than 0.99 of its weight to one key.
    """
    for name in ("root", "none"):
        spread, decided, right = [], [], []
        for seed in range(seeds):
            scores = []

            def attend(q: Tensor, k: Tensor, v: Tensor, factor: float = SCALES[name][1](d), kept: list = scores):
                kept.append((q @ k.mT * factor).numpy(force=True)[:, 0])  # (64, 8)
                return F.scaled_dot_product_attention(q, k, v, scale=factor)

            learn_lookup(d, rate, attend, steps=step + 1, seed=seed)
            last = scores[-1]
            weights = np.exp(last - last.max(axis=1, keepdims=True))
            spread.append(last.std())
            decided.append((weights.sum(axis=1) < 1 / 0.99).mean())
            right.append((last.argmax(axis=1) == 0).mean())
        found = {"spread": np.mean(spread), "decided": np.mean(decided), "right": np.mean(right)}
        for what, value in found.items():
            results.metric(f"after_{step}_{what}_{name}", float(f"{value:.2g}"))
        shown = {what: round(float(value), 2) for what, value in found.items()}
        print(f"width {d}, rate {rate:g}, after {step} steps, {name}:", shown)


def compare_scales(widths: tuple[int, ...], seeds: int, results: Results) -> dict[int, dict[str, np.ndarray]]:
    """{width: {scale: the mean loss of the last 40 steps (seeds, rates)}}."""
    found: dict[int, dict[str, np.ndarray]] = {}
    with tqdm(total=len(widths) * len(SCALES) * len(RATES) * seeds, leave=False) as bar:
        for d in widths:
            found[d] = {}
            for name, (_, scale) in SCALES.items():
                ends = np.zeros((seeds, len(RATES)))
                for seed in range(seeds):
                    for place, rate in enumerate(RATES):

                        def attend(q: Tensor, k: Tensor, v: Tensor, factor: float = scale(d)) -> Tensor:
                            return F.scaled_dot_product_attention(q, k, v, scale=factor)

                        ends[seed, place] = np.mean(learn_lookup(d, rate, attend, seed=seed)[-40:])
                        bar.update()
                found[d][name] = ends
                for rate, end in zip(RATES, ends.mean(axis=0), strict=True):
                    results.metric(f"lookup_{d}_{name}_at_{rate:g}", float(f"{end:.3g}"))
                results.metric(f"lookup_{d}_{name}_best", float(f"{ends.mean(axis=0).min():.2g}"))
                results.metric(f"lookup_{d}_{name}_best_rate", RATES[int(ends.mean(axis=0).argmin())])
                print(f"width {d:4} {name:6}", dict(zip(RATES, ends.mean(axis=0).round(4).tolist(), strict=True)))
    return found


def draw_scales(found: dict[int, dict[str, np.ndarray]]) -> plt.Figure:
    """The loss reached against the learning rate, a panel for each width."""
    figure, axes = plt.subplots(1, len(found), figsize=(9.6, 3.6), sharey=True)
    for axis, (d, ends) in zip(axes, found.items(), strict=True):
        for name, losses in ends.items():
            style, colour = STYLES[name]
            axis.plot(RATES, losses.mean(axis=0), style, color=COLORS[colour], markersize=5, label=SCALES[name][0])
            axis.fill_between(
                RATES, losses.min(axis=0), losses.max(axis=0), color=COLORS[colour], alpha=0.18, linewidth=0
            )
        for level, text in ((7 / 8, "the mean of all values"), (14 / 8, "one value, chosen blindly")):
            axis.axhline(level, color="0.5", linewidth=1, linestyle=(0, (1, 2)))
            axis.text(0.032, level * 1.07, text, fontsize=8, color="0.35")
        axis.set(title=f"Width {d}", xlabel="learning rate", xscale="log", yscale="log")
    axes[0].set(ylabel="squared error, last 40 of 240 steps")
    axes[0].legend(loc="lower left", fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000, help="queries for each width (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each training (default: %(default)s)")
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    start = time.perf_counter()
    results.figure(
        draw_by_hand(),
        "by_hand",
        alt="The query 2, 0, 2, 0 of the word bit and the keys of the five words; beside each key the product, half of "
        "it, its exponential and the weight, 0.778 for dog, 0.105 for man and 0.039 for the others; then the values of "
        "the five words, and below their weighted sum 1.768, 0.116, 0.673, 0.233.",
    )
    results.figure(
        draw_sharpness(results),
        "sharpness",
        alt="Weights of the word bit against a factor on its scores: all start at 0.2 for factor 0; dog rises towards "
        "1, man rises a little and falls, the others fall to 0.",
    )
    results.figure(
        draw_widths(measure_widths(args.rows, results)),
        "widths",
        alt="Three panels against the width from 1 to 1,024. Without the root the variance of a score grows like the "
        "width, the largest of 32 weights approaches 1 and the slope of the softmax falls, its median far more than "
        "its mean; divided by the root of the width all three are nearly level.",
    )
    measure_first_gradients((16, 128, 512), 10, results)
    watch_decisions(128, 1.0, 20, args.seeds, results)
    found = compare_scales((16, 128), args.seeds, results)
    results.metric("lookup_seeds", args.seeds)
    results.figure(
        draw_scales(found),
        "scales",
        alt="Loss of a learnt lookup against the learning rate for width 16 and 128. Divided by the root of the width "
        "it is learnt over a broad range of rates; without, at width 128, only at low rates, and at higher ones the "
        "loss stays at that of one value chosen blindly; divided by the width, it needs high rates.",
    )
    results.save()
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
