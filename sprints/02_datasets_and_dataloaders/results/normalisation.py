"""What normalising does to the learning rate, and which one-pass formula for the variance survives float32.

python sprints/02_datasets_and_dataloaders/results/normalisation.py
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np
from network import evaluate, flat, start, step

import shared
from course.plotting import COLORS, use_style
from course.results import Results

WORST = 10.0  # nats; where a run that did not stay finite is drawn


def one_epoch(x: np.ndarray, y: np.ndarray, lr: float, batch: int, seed: int):
    """The network's parameters after one shuffled epoch; None if the loss did not stay finite."""
    parameters, rng = start((x.shape[1], 64, 10), seed), np.random.default_rng(seed)
    order = rng.permutation(len(y))
    with np.errstate(all="ignore"):  # runs that diverge are what we want to see
        for first in range(0, len(y), batch):
            chosen = order[first : first + batch]
            if not np.isfinite(step(parameters, x[chosen], y[chosen], lr)):
                return None
    return parameters


def loss_after(x: np.ndarray, y: np.ndarray, lr: float, batch: int, seed: int) -> float:
    parameters = one_epoch(x, y, lr, batch, seed)
    with np.errstate(all="ignore"):
        loss = WORST if parameters is None else evaluate(parameters, x, y)[0]
    return min(loss, WORST) if np.isfinite(loss) else WORST


def two_sums(values: np.ndarray, batch: int) -> np.float32:
    """Σx²/n − (Σx/n)², all in float32."""
    total = squares = np.float32(0)
    for first in range(0, len(values), batch):
        part = values[first : first + batch]
        total += part.sum(dtype=np.float32)
        squares += (part * part).sum(dtype=np.float32)
    n = np.float32(len(values))
    return squares / n - (total / n) ** 2


def merged(values: np.ndarray, batch: int) -> np.float32:
    """Chan's merge of the batches, all in float32; batch 1 is Welford's update."""
    n, mean, m2 = 0, np.float32(0), np.float32(0)
    for first in range(0, len(values), batch):
        part = values[first : first + batch]
        part_mean = part.mean(dtype=np.float32)
        delta, both = part_mean - mean, n + len(part)
        m2 += ((part - part_mean) ** 2).sum(dtype=np.float32) + delta * delta * np.float32(n * len(part) / both)
        mean += delta * np.float32(len(part) / both)
        n = both
    return m2 / np.float32(n)


def variance_errors(offsets: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Relative error of the variance of 10,000 normal numbers that were moved by each offset."""
    noise = np.random.default_rng(seed).standard_normal(10_000)
    formulas = {
        "two sums": lambda v: two_sums(v, 100),
        "Welford, one by one": lambda v: merged(v, 1),
        "Chan, batches of 100": lambda v: merged(v, 100),
    }
    errors = {name: [] for name in formulas}
    for offset in offsets:
        moved = (noise + offset).astype(np.float32)
        truth = moved.astype(np.float64).var()
        for name, formula in formulas.items():
            errors[name].append(abs(float(formula(moved)) - truth) / truth)
    return {name: np.array(values) for name, values in errors.items()}


def eigenvalue_ratio(x: np.ndarray) -> float:
    """First over second eigenvalue of xᵀx/N, x (N, D)."""
    values = np.linalg.eigvalsh(x.T.astype(np.float64) @ x / len(x))
    return values[-1] / values[-2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lr", type=float, default=0.1, help="the one learning rate tried on all three scales")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--points", type=int, default=2, help="learning rates per factor of ten")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    train_set, test_set = shared.data.load("mnist-5k")
    (x, y), (x_test, y_test) = flat(train_set), flat(test_set)
    mean, std = x.mean() / 255, x.std() / 255
    scales = {
        "bytes, 0 to 255": (x, "vermillion"),
        "divided by 255": (x / 255, "green"),
        "normalised": ((x / 255 - mean) / std, "blue"),
    }
    rates = 10 ** np.arange(-7, 0.51, 1 / arguments.points)
    losses = {
        name: np.array([loss_after(inputs, y, lr, arguments.batch, arguments.seed) for lr in rates])
        for name, (inputs, _) in scales.items()
    }
    offsets = 10 ** np.arange(0, 5.01, 0.25)
    errors = variance_errors(offsets, arguments.seed)

    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.0))
    for name, values in losses.items():
        left.plot(rates, values, "o-", ms=4, color=COLORS[scales[name][1]], label=name)
    left.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="loss after one epoch (nats)")
    left.set(title="One network, three scales of input")
    left.legend(loc="lower left")
    for (name, values), colour in zip(errors.items(), ("vermillion", "green", "blue"), strict=True):
        right.loglog(offsets, np.maximum(values, 1e-9), "o-", ms=3, color=COLORS[colour], label=name)
    right.set(xlabel="offset of the data, in standard deviations", ylabel="relative error of the variance")
    right.set(title="One-pass variance in float32")
    right.legend(loc="upper left")

    results = Results(__file__, seed=arguments.seed)
    alt = (
        "Left: loss after one epoch against learning rate, three valleys apart. Right: the error "
        "of the two-sums formula grows to above one with the offset, Welford's and Chan's stay small."
    )
    results.figure(figure, "normalisation", alt=alt)
    for short, (inputs, _) in zip(("bytes", "unit", "normalised"), scales.values(), strict=True):
        name = next(n for n, (v, _) in scales.items() if v is inputs)
        results.metric(f"best_loss_{short}", losses[name].min(), unit="nats")
        results.metric(f"best_rate_{short}", rates[losses[name].argmin()])
        initial = evaluate(start((inputs.shape[1], 64, 10), arguments.seed), inputs, y)[0]
        results.metric(f"initial_loss_{short}", initial, unit="nats")
        loss = loss_after(inputs, y, arguments.lr, arguments.batch, arguments.seed)
        results.metric(f"loss_at_one_rate_{short}", loss, unit="nats")
        results.metric(f"eigenvalue_ratio_{short}", eigenvalue_ratio(inputs))
    for name, short in (("two sums", "two_sums"), ("Chan, batches of 100", "chan")):
        results.metric(f"variance_error_{short}_1000", errors[name][np.searchsorted(offsets, 999)])
    # How much a leak of the two statistics changes.
    all_pixels = np.concatenate([x, x_test]) / 255
    statistics = {"train": (mean, std), "all": (all_pixels.mean(), all_pixels.std())}
    for split, (m, s) in statistics.items():
        parameters = one_epoch((x / 255 - m) / s, y, 0.1, arguments.batch, arguments.seed)
        accuracy = evaluate(parameters, (x_test / 255 - m) / s, y_test)[1]
        results.metric(f"pixel_mean_{split}", float(m))
        results.metric(f"pixel_std_{split}", float(s))
        results.metric(f"accuracy_statistics_{split}", 100 * accuracy, unit="%")
    results.save()
    for name, entry in results._metrics.items():
        print(f"{name:34} {entry['value']:.6g} {entry['unit']}")


if __name__ == "__main__":
    main()
