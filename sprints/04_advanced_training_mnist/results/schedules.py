"""Note 05: a rate that stays wanders, one that falls arrives; the schedules drawn, and raced over seeds on the digits.

python sprints/04_advanced_training_mnist/results/schedules.py     mnist-5k, some minutes on two cores
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter
from networks import digits, lenet5, statistics, tensors

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn, optim
from shared.nn import functional as F
from shared.optim import Optimizer
from shared.optim.lr_scheduler import (
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    warmup_cosine,
)

FOUR = (-1.0, 5.0, 1.0, 3.0)
CEILING = 2.5  # nats; a run that is not finite ends there
DEAD = 2.0  # nats; a run that ends above has learnt next to nothing: ln 10 is 2.3
Data = dict[str, tuple[Tensor, Tensor]]
Maker = Callable[[Optimizer, float, int, int], LRScheduler | None]
Curves = tuple[list[float], list[float], list[float]]

# (optimizer, rate, steps, steps per epoch) → schedule
SCHEDULES: dict[str, Maker] = {
    "constant": lambda opt, lr, steps, epoch: None,
    "step": lambda opt, lr, steps, epoch: MultiStepLR(opt, [steps // 2, 3 * steps // 4], gamma=0.1),
    "cosine": lambda opt, lr, steps, epoch: CosineAnnealingLR(opt, steps),
    "warm-up, cosine": lambda opt, lr, steps, epoch: warmup_cosine(opt, steps // 10, steps),
    "one cycle": lambda opt, lr, steps, epoch: OneCycleLR(opt, lr, total_steps=steps),
    "plateau": lambda opt, lr, steps, epoch: ReduceLROnPlateau(opt, factor=0.3, patience=0),
}
STEADY: Maker = lambda opt, lr, steps, epoch: OneCycleLR(opt, lr, total_steps=steps, cycle_momentum=False)  # noqa: E731
MARKERS = dict(zip(SCHEDULES, "os^Dv*", strict=True))


def load() -> Data:
    """Standardised images (N, 1, H, W) and labels (N,) by part."""
    data = digits()
    mean, std = statistics(data["train"])
    return {part: tensors(data[part], mean, std) for part in data}


# ---------------------------------------------------------------- four numbers


def walk(rate: Callable[[int], float], steps: int, seed: int) -> np.ndarray:
    """The path (steps + 1,) of w from 0 under SGD on the mean of ½(w − x)² over the four, one drawn per step."""
    drawn = np.random.default_rng(seed).choice(FOUR, steps)
    path = [0.0]
    for t, x in enumerate(drawn, start=1):
        path.append(path[-1] - rate(t) * (path[-1] - x))
    return np.array(path)


def wandering(results: Results) -> plt.Figure:
    """One path for each of three rates, and the predicted band around the mean."""
    steps = 300
    rates = {
        "0.5": ("η = 0.5", lambda t: 0.5),
        "0.1": ("η = 0.1", lambda t: 0.1),
        "1_over_t": ("η = 1/t", lambda t: 1 / t),
    }
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.4), sharey=True)
    for axis, (key, (name, rate)), colour in zip(axes, rates.items(), (3, 1, 0), strict=True):
        ends = np.array([walk(rate, steps, seed)[-1] for seed in range(2000)])
        axis.plot(walk(rate, steps, seed=0), color=COLORS[colour], linewidth=1)
        axis.axhline(2, color="0.3", linestyle="--", linewidth=1)
        eta = rate(1) if key != "1_over_t" else None
        predicted = 5 * eta / (2 - eta) if eta else 5 / steps
        if eta:
            axis.axhspan(2 - math.sqrt(predicted), 2 + math.sqrt(predicted), color=COLORS[colour], alpha=0.15)
        else:
            t = np.arange(1, steps + 1)
            axis.fill_between(t, 2 - np.sqrt(5 / t), 2 + np.sqrt(5 / t), color=COLORS[colour], alpha=0.15)
        axis.set(title=name, xlabel="step", ylim=(-1.5, 5.5))
        results.metric(f"wander_{key}_variance", float(f"{ends.var():.3g}"))
        results.metric(f"wander_{key}_predicted", float(f"{predicted:.3g}"))
        print(f"{name}: variance after {steps} steps {ends.var():.4f}, predicted {predicted:.4f}")
    results.metric("wander_steps", steps, unit="steps")
    axes[0].set_ylabel("w")
    return figure


# ---------------------------------------------------------------- shapes


def shapes() -> plt.Figure:
    """The rate of each schedule over 400 steps, relative to its highest; the plateau's as its losses might have it."""
    steps, epoch = 400, 50
    figure, axes = plt.subplots(2, 3, figsize=(10, 4.6), sharex=True, sharey=True)
    losses = iter([1.0, 0.5, 0.4, 0.45, 0.35, 0.36, 0.34, 0.35])
    for axis, (name, make), colour in zip(axes.flat, SCHEDULES.items(), (7, 3, 0, 2, 4, 1), strict=True):
        optimizer = optim.SGD([shared.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
        scheduler, rates = make(optimizer, 1.0, steps, epoch), []
        for step in range(1, steps + 1):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if isinstance(scheduler, ReduceLROnPlateau):
                if step % epoch == 0:
                    scheduler.step(next(losses))
            elif scheduler is not None:
                scheduler.step()
        axis.plot(rates, color=COLORS[colour])
        axis.set_title(name)
    for axis in axes[1]:
        axis.set_xlabel("step")
    for axis in axes[:, 0]:
        axis.set_ylabel("rate / highest rate")
    return figure


# ---------------------------------------------------------------- the race


def evaluated(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """(loss in nats, accuracy) in eval mode; a loss that is not finite is CEILING."""
    model.eval()
    with shared.no_grad():
        logits = model(x)
        loss = F.cross_entropy(logits, y).item()
    model.train()
    return (min(loss, CEILING) if math.isfinite(loss) else CEILING), (logits.argmax(dim=1) == y).float().mean().item()


def run(data: Data, make: Maker, lr: float, epochs: int, seed: int) -> Curves:
    """(training loss per step, validation loss per epoch, accuracy per epoch) of LeNet-5 under one schedule."""
    shared.manual_seed(seed)
    model = lenet5()
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    x, y = data["train"]
    per_epoch = len(x) // 64
    scheduler = make(optimizer, lr, epochs * per_epoch, per_epoch)
    losses: list[float] = []
    by_epoch: list[tuple[float, float]] = []

    def result() -> Curves:
        whole = [*by_epoch, *[(CEILING, 0.1)] * (epochs - len(by_epoch))]  # a diverged run reads by chance
        return losses, [value for value, _ in whole], [right for _, right in whole]

    for _ in range(epochs):
        order = shared.randperm(len(x))
        for i in range(per_epoch):
            chosen = order[64 * i : 64 * i + 64]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[chosen]), y[chosen])
            if not math.isfinite(loss.item()):
                return result()
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
            if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
        by_epoch.append(evaluated(model, *data["validation"]))
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(by_epoch[-1][0])
    return result()


def race(data: Data, epochs: int, rates: Sequence[float], seeds: Sequence[int], results: Results) -> list[plt.Figure]:
    """Every schedule at every rate and seed: validation loss against the rate, and three of them as curves."""
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 4.4))
    found: dict[str, dict[float, list[Curves]]] = {}
    best: dict[str, float] = {}
    for place, (name, make) in enumerate(SCHEDULES.items()):
        runs = found[name] = {lr: [run(data, make, lr, epochs, seed) for seed in seeds] for lr in rates}
        ends = np.array([[losses[-1] for _, losses, _ in runs[lr]] for lr in rates])
        chosen = best[name] = rates[int(ends.mean(1).argmin())]
        shift = 1 + 0.035 * (place - 2.5)  # side by side, so that the bars can be told apart
        low, high = ends.mean(1) - ends.min(1), ends.max(1) - ends.mean(1)
        for axis in axes:
            axis.errorbar(
                np.array(rates) * shift, ends.mean(1), (low, high), label=name, marker=MARKERS[name], markersize=5,
                capsize=2, linewidth=1.2, color=COLORS[(7, 3, 0, 2, 4, 1)[place]],
            )  # fmt: skip
        key = name.replace("-", "").replace(", ", "_").replace(" ", "_")
        finals = np.array([losses[-1] for _, losses, _ in runs[chosen]])
        right = np.array([100 * accuracies[-1] for _, _, accuracies in runs[chosen]])
        results.metric(f"schedule_{key}_rate", chosen)
        for kind, pick in (("mean", np.mean), ("lowest", np.min), ("highest", np.max)):
            results.metric(f"schedule_{key}_loss_{kind}", round(float(pick(finals)), 4), unit="nats")
            results.metric(f"schedule_{key}_accuracy_{kind}", round(float(pick(right)), 2), unit="%")
        for lr, row in zip(rates, ends, strict=True):
            results.metric(f"schedule_{key}_loss_at_{lr:g}", round(float(row.mean()), 4), unit="nats")
        alive = ends[-1][ends[-1] < DEAD]
        results.metric(f"schedule_{key}_dead_at_{rates[-1]:g}", int((ends[-1] >= DEAD).sum()), unit="seeds")
        if len(alive):
            results.metric(f"schedule_{key}_alive_loss_at_{rates[-1]:g}", round(float(alive.mean()), 4), unit="nats")
        told = f"loss {finals.mean():.4f} ({finals.min():.4f}…{finals.max():.4f}), accuracy {right.mean():.2f} %"
        print(f"{name:16} best rate {chosen:<5g} {told}; by rate {ends.mean(1).round(3).tolist()}", flush=True)
        print(f"{'':16} at {rates[-1]:g} by seed {ends[-1].round(3).tolist()}", flush=True)
    for lr in {best["one cycle"], rates[-1]}:
        steady = np.mean([run(data, STEADY, lr, epochs, seed)[1][-1] for seed in seeds])
        results.metric(f"schedule_one_cycle_steady_loss_at_{lr:g}", round(float(steady), 4), unit="nats")
        print(f"one cycle of the rate alone, momentum 0.9 throughout, at {lr:g}: {steady:.4f}", flush=True)
    for axis in axes:
        axis.set(xlabel="highest learning rate (SGD)", xscale="log")
        axis.set_xticks(rates, [f"{lr:g}" for lr in rates])
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set(title="All of it", ylabel="validation loss at the end (nats)", yscale="log")
    axes[0].set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    axes[0].yaxis.set_minor_formatter(NullFormatter())
    axes[1].set(title="The lower part of it", ylim=(0.1, 0.28))
    axes[0].legend(fontsize=9)
    results.metric("schedule_epochs", epochs, unit="epochs")
    results.metric("schedule_seeds", len(seeds), unit="seeds")
    rate = best["cosine"]
    chosen_runs = {
        f"constant, rate {best['constant']:g}": (found["constant"][best["constant"]], 1),
        f"constant, rate {rate:g}": (found["constant"][rate], 7),
        f"step, from {rate:g}": (found["step"][rate], 3),
        f"cosine, from {rate:g}": (found["cosine"][rate], 0),
    }
    return [figure, curves(chosen_runs)]


def curves(chosen: dict[str, tuple[list[Curves], int]]) -> plt.Figure:
    """Training and validation loss of some schedules, each with its colour: one thin line per seed."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8))
    for name, (runs, colour) in chosen.items():
        for i, (losses, validation, _) in enumerate(runs):
            smooth = np.convolve(losses, np.ones(25) / 25, mode="valid")
            label = name if i == 0 else None
            left.semilogy(np.arange(len(smooth)) + 25, smooth, color=COLORS[colour], linewidth=0.9, label=label)
            right.semilogy(range(1, len(validation) + 1), validation, color=COLORS[colour], linewidth=0.9)
    left.set(title="Training loss, mean of 25 steps", xlabel="step", ylabel="cross-entropy (nats)")
    right.set(title="Validation loss", xlabel="epoch")
    for axis, ticks in ((left, (0.03, 0.1, 0.3, 1, 2)), (right, (0.1, 0.2, 0.5, 1, 2))):
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.yaxis.set_minor_formatter(NullFormatter())
    left.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8, help="of each run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="(default: 0 1 2 3 4)")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[0.003, 0.01, 0.03, 0.1], help="(default: 0.003 … 0.1)"
    )
    args = parser.parse_args()
    use_style()
    np.seterr(over="ignore", invalid="ignore")
    results = Results(__file__, seed=args.seeds[0])
    results.figure(
        wandering(results),
        "wandering",
        alt="A number under stochastic gradient descent for three rates: at 0.5 it jumps between −1 and 5, at 0.1 it "
        "wanders in a narrow band around 2, at 1/t it comes to rest at 2.",
    )
    results.figure(
        shapes(),
        "schedule_shapes",
        alt="Six panels of the learning rate against the step: constant; two drops to a tenth; half a cosine; a short "
        "rise and then the cosine; a longer rise from a twenty-fifth and a fall to almost nothing; and steps down "
        "after each epoch without progress.",
    )
    race_figure, curves_figure = race(load(), args.epochs, args.rates, args.seeds, results)
    results.figure(
        race_figure,
        "schedule_race",
        alt="Validation loss at the end against the highest learning rate for six schedules, with bars from the lowest "
        "to the highest seed; a second panel enlarges the losses below 0.28, where the bars of the schedules overlap.",
    )
    results.figure(
        curves_figure,
        "schedule_curves",
        alt="Training and validation loss for two constant rates, two steps and a cosine, a thin line per seed: the "
        "lower constant rate is the slowest on the training digits; on the validation digits the two that fall end "
        "near their best epoch, and the higher constant rate jumps about.",
    )
    results.save()


if __name__ == "__main__":
    main()
