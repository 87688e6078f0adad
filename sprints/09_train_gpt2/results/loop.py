"""Note 02: one batch learnt by heart, the recipe part by part, accumulation, evaluation, a training that is killed.

python sprints/09_train_gpt2/results/loop.py      two or three minutes of one core
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from sentence import bigrams, window
from small import BATCH, LENGTH, Corpus, corpus, small_gpt, trained, validation_loss

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, optim
from shared.data import RandomWindows, random_windows
from shared.models import GPT
from shared.nn.utils import clip_grad_norm_
from shared.optim import Optimizer
from shared.training import (
    LMConfig,
    Trainer,
    accumulate_gradients,
    checkpoint_info,
    evaluate_loss,
    find_checkpoint,
    sample_text,
    train_step,
    warmup_cosine,
)

STEPS, WARMUP, RATE = 400, 40, 1e-2
SEEDS = (0, 1, 2)

# ---------------------------------------------------------------- one batch by heart


class Same:
    """The same batch again and again."""

    def __init__(self, inputs: Tensor, targets: Tensor):
        self.batch = inputs, targets

    def __next__(self) -> tuple[Tensor, Tensor]:
        return self.batch


def floor(inputs: Tensor, targets: Tensor) -> float:
    """The least mean of −ln p that a function of what stands before in its window can have on this batch, in nats.

    Windows that begin alike and go on differently cannot both be known.
    """
    followers: dict[tuple, Counter] = defaultdict(Counter)
    for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
        for t in range(len(x)):
            followers[tuple(x[: t + 1])][y[t]] += 1
    total = -sum(n * math.log(n / c.total()) for c in followers.values() for n in c.values())
    return total / targets.numel()


def one_batch(text: Corpus, results: Results, seed: int) -> plt.Figure:
    """The loss on one batch that is trained on again and again; right, and with targets that are the inputs."""
    inputs, targets = random_windows(text.train, BATCH, LENGTH, shared.Generator().manual_seed(seed))
    least = floor(inputs, targets)
    figure, axis = plt.subplots(figsize=(7.4, 3.9))
    kinds = (("targets shifted by one", targets, "blue"), ("targets not shifted", inputs, "vermillion"))
    for name, wanted, colour in kinds:
        model = small_gpt(text.vocab_size, seed)
        optimizer = model.configure_optimizers(lr=3e-3)
        losses, _ = trained(model, text.train, optimizer, lambda s: 3e-3, 300, windows=Same(inputs, wanted))
        axis.semilogy(np.arange(1, 301), losses, color=COLORS[colour], label=name)
        key = "one_batch" if wanted is targets else "one_batch_not_shifted"
        results.metric(f"{key}_loss", round(float(losses[-1]), 3), unit="nats")
        results.metric(f"{key}_step_0.5", int(np.argmax(losses < 0.5)) + 1)
        print(f"  {name}: {losses[-1]:.4f} after 300 steps")
        if wanted is targets:
            results.metric("one_batch_elsewhere", round(validation_loss(model, text.val[:20_000]), 2), unit="nats")
    results.metric("one_batch_floor", round(least, 3), unit="nats")
    results.metric("one_batch_tokens", targets.numel())
    axis.axhline(least, color="0.4", linestyle=":", label="least possible with these windows")
    axis.set(title="One batch, learnt by heart", xlabel="update", ylabel="loss (nats, logarithmic)")
    axis.legend()
    return figure


# ---------------------------------------------------------------- the recipe, part by part

Make = Callable[[GPT], Optimizer]


def adamw(model: GPT) -> Optimizer:
    """The model's own groups."""
    return model.configure_optimizers(lr=RATE, weight_decay=0.1, betas=(0.9, 0.99))


def shorter_memory(model: GPT) -> Optimizer:
    """The same with β₂ = 0.95: squares of gradients are forgotten after some twenty updates, not a hundred."""
    return model.configure_optimizers(lr=RATE, weight_decay=0.1, betas=(0.9, 0.95))


def no_decay(model: GPT) -> Optimizer:
    """The same without weight decay."""
    return model.configure_optimizers(lr=RATE, weight_decay=0.0, betas=(0.9, 0.99))


def recipe(step: int) -> float:
    """Warm-up and cosine."""
    return warmup_cosine(step, RATE, RATE / 10, WARMUP, STEPS)


RUNS: dict[str, tuple[str, Make, Callable[[int], float], float]] = {
    "sgd": ("SGD, rate 0.1", lambda m: optim.SGD(m.parameters(), lr=0.1), lambda s: 0.1, 0.0),
    "adam": ("Adam, rate 0.001", lambda m: optim.Adam(m.parameters(), lr=1e-3), lambda s: 1e-3, 0.0),
    "adam_high": ("Adam, rate 0.01", lambda m: optim.Adam(m.parameters(), lr=RATE), lambda s: RATE, 0.0),
    "recipe": ("the recipe", adamw, recipe, 1.0),
    "no_warmup": ("without warm-up", adamw, lambda s: warmup_cosine(s, RATE, RATE / 10, 0, STEPS), 1.0),
    "no_cosine": ("without cosine", adamw, lambda s: min(1.0, (s + 1) / (WARMUP + 1)) * RATE, 1.0),
    "no_clip": ("without clipping", adamw, recipe, 0.0),
    "no_clip_shorter": ("β₂ = 0.95, without clipping", shorter_memory, recipe, 0.0),
    "no_decay": ("without decay", no_decay, recipe, 1.0),
}


def compare(text: Corpus, results: Results, keys: Sequence[str]) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Each of these runs with each seed: its losses and norms; its losses on the validation text go to the metrics."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for key in keys:
        name, make, rate, clip = RUNS[key]
        found[key], reached = [], []
        for seed in SEEDS:
            model = small_gpt(text.vocab_size, seed)
            found[key].append(trained(model, text.train, make(model), rate, STEPS, clip=clip, seed=seed))
            reached.append(validation_loss(model, text.val[:40_000]))
        results.metric(f"run_{key}", round(float(np.mean(reached)), 2), unit="nats")
        results.metric(f"run_{key}_least", round(min(reached), 2), unit="nats")
        results.metric(f"run_{key}_most", round(max(reached), 2), unit="nats")
        print(f"  {name:18} {np.mean(reached):.3f}  ({min(reached):.3f} to {max(reached):.3f})", flush=True)
    return found


def norms_of(runs: list[tuple[np.ndarray, np.ndarray]], results: Results) -> None:
    """How long the recipe's gradients were, over all seeds."""
    norms = np.concatenate([run[1] for run in runs])
    results.metric("clipped_share", round(float((norms > 1).mean()), 3))
    results.metric("norm_median", round(float(np.median(norms)), 2))
    results.metric("norm_most", round(float(norms.max()), 1))
    results.metric("norm_most_least", round(min(float(run[1].max()) for run in runs), 1))
    results.metric("norm_most_update", max(int(run[1].argmax()) + 1 for run in runs))
    results.metric("norm_first", round(float(runs[0][1][0]), 2))


def smooth(values: np.ndarray, over: int = 15) -> np.ndarray:
    """The mean of each value and the `over` − 1 before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - over, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def curves(found: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> plt.Figure:
    """The training losses of five of the runs, each with its seeds."""
    figure, axis = plt.subplots(figsize=(7.6, 4.3))
    shown = (
        ("sgd", "black"),
        ("adam", "orange"),
        ("adam_high", "purple"),
        ("no_warmup", "vermillion"),
        ("recipe", "blue"),
    )
    for key, colour in shown:
        for i, (losses, _) in enumerate(found[key]):
            label = RUNS[key][0] if i == 0 else None
            axis.plot(np.arange(1, STEPS + 1), smooth(losses), color=COLORS[colour], linewidth=1.4, label=label)
    axis.set(
        title="Four hundred updates, five ways", xlabel="update", ylabel="loss (nats), mean of 15", ylim=(2.2, 4.3)
    )
    axis.legend()
    return figure


def norms(found: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> plt.Figure:
    """The norm of the gradient at each update, and the rate."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.6, 5.2), sharex=True, height_ratios=(3, 1.3))
    steps = np.arange(1, STEPS + 1)
    for key, colour in (("no_warmup", "vermillion"), ("recipe", "blue")):
        above.semilogy(steps, found[key][0][1], color=COLORS[colour], linewidth=1.0, label=RUNS[key][0])
        below.plot(steps, [RUNS[key][2](s) for s in range(STEPS)], color=COLORS[colour])
    above.axhline(1.0, color="black", linewidth=1, linestyle="--", label="clipped from here on")
    above.set(title="The norm of the gradient over a training", ylabel="norm (logarithmic)")
    above.legend(ncols=3, fontsize=9)
    below.set(xlabel="update", ylabel="rate", ylim=(0, None))
    return figure


def schedule() -> plt.Figure:
    """The nine rates that are worked out by hand, and nanoGPT's two thousand."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.4))
    few = [warmup_cosine(s, 1.0, 0.1, 3, 7) for s in range(9)]
    left.plot(range(9), few, "o-", color=COLORS["blue"])
    for s, value in enumerate(few):
        aside = -18 if s < 3 else 18 if 3 < s < 7 else 0  # away from the line
        left.annotate(f"{value:.3g}", (s, value), (aside, 5), textcoords="offset points", ha="center", fontsize=9)
    left.set(title="By hand", xlabel="update, counted from 0", ylabel="rate", xlim=(-1.3, 8.6), ylim=(0, 1.12))
    left.set_xticks(range(9))
    steps = np.arange(2000)
    right.plot(steps, [warmup_cosine(int(s), 1e-3, 1e-4, 100, 2000) for s in steps], color=COLORS["blue"])
    right.set(title="nanoGPT's, on a CPU", xlabel="update", ylabel="rate", ylim=(0, 1.1e-3))
    return figure


def decay(text: Corpus, results: Results) -> None:
    """What the two groups hold, in this model and in GPT-2; and how much decay alone leaves of a weight."""
    model = small_gpt(text.vocab_size)
    for key, group in zip(("decayed", "spared"), model.decay_groups(0.1), strict=True):
        results.metric(f"{key}_tensors", len(group["params"]))
        results.metric(f"{key}_parameters", sum(p.numel() for p in group["params"]))
    left = math.prod(1 - 0.1 * warmup_cosine(s, 1e-3, 1e-4, 100, 2000) for s in range(2000))
    results.metric("decay_left", round(left, 3))
    print(f"  after nanoGPT's 2,000 updates decay alone leaves {left:.3f} of a weight")


# ---------------------------------------------------------------- equal to the digit


def gradients(model: GPT) -> np.ndarray:
    """All gradients in one row, then forgotten."""
    found = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    model.zero_grad()
    return found


def accumulation(text: Corpus, results: Results, seed: int) -> None:
    """A batch in pieces against the whole: gradients, and the losses of fifty updates."""
    inputs, targets = random_windows(text.train, 10, LENGTH, shared.Generator().manual_seed(seed))
    for name, dtype in (("float32", shared.float32), ("float64", shared.float64)):
        model = small_gpt(text.vocab_size, seed).to(dtype)
        accumulate_gradients(model, inputs, targets)
        whole, worst = gradients(model), 0.0
        for parts in (2, 4, 10):  # four: of 3, 3, 3 and 1
            accumulate_gradients(model, inputs, targets, parts)
            worst = max(worst, float(np.abs(gradients(model) - whole).max()))
        relative = worst / float(np.abs(whole).max())
        results.metric(f"accumulation_{name}", float(f"{relative:.1e}"))
        print(f"  {name}: the gradient in pieces differs by {relative:.1e} of its largest number")
    runs = []
    for parts in (1, 4):
        model = small_gpt(text.vocab_size, seed).to(shared.float64)
        runs.append(trained(model, text.train, adamw(model), recipe, 50, accumulation=parts, seed=seed)[0])
    results.metric("accumulation_losses", float(f"{np.abs(runs[0] - runs[1]).max():.1e}"), unit="nats")
    print(f"  fifty updates in float64: losses differ by {np.abs(runs[0] - runs[1]).max():.1e}")


def evaluation(text: Corpus, results: Results, seed: int) -> None:
    """Forty updates with dropout, once undisturbed, once with a loss measured and a text drawn every fifth: equal."""
    runs: list[list[float]] = []
    for watched in (False, True):
        model, source = small_gpt(text.vocab_size, seed, dropout=0.1), RandomWindows(text.train, BATCH, LENGTH, seed)
        optimizer, losses = adamw(model), []
        for step in range(40):
            losses.append(train_step(model, optimizer, *next(source))[0])
            if watched and step % 5 == 0:
                evaluate_loss(model, [random_windows(text.val, BATCH, LENGTH, shared.Generator().manual_seed(1))])
                sample_text(model, text.vocabulary, "\n", 5)
        runs.append(losses)
    differing = sum(a != b for a, b in zip(*runs, strict=True))
    results.metric("evaluation_differing", differing)
    print(f"  watched and unwatched: {differing} of 40 losses differ")


# ---------------------------------------------------------------- killed


def child(folder: str, resume: bool) -> None:
    """Trains in `folder`, to the end or until it is killed."""
    text = corpus()
    config = LMConfig(steps=300, batch_size=BATCH, max_lr=RATE, min_lr=RATE / 10, warmup_steps=WARMUP)
    config = LMConfig.from_dict(config.to_dict() | {"eval_interval": 100, "eval_batches": 5, "checkpoint_interval": 25})
    Trainer(small_gpt(text.vocab_size), text.train, text.val, config, folder=folder, progress=False).train(resume)


def rows(folder: str) -> list[dict]:
    """The log's lines without the seconds."""
    with open(os.path.join(folder, "history.jsonl"), encoding="utf-8") as file:
        lines = file.read().split("\n")[:-1]
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def killed(results: Results) -> None:
    """A training killed by SIGKILL in its midst and resumed, against one that was left alone."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, os.path.abspath(__file__), "--child"]
        whole, broken = os.path.join(root, "whole"), os.path.join(root, "broken")
        subprocess.run([*command, whole], check=True)
        process = subprocess.Popen([*command, broken])
        found = None
        while process.poll() is None and not (found and checkpoint_info(found)["step"] >= 150):
            time.sleep(0.05)
            found = find_checkpoint(broken) if os.path.isdir(broken) else None
        time.sleep(0.2)  # a few updates further, so that something is lost
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        resumed_from = checkpoint_info(find_checkpoint(broken))["step"]
        subprocess.run([*command, broken, "--resume"], check=True)
        equal = rows(whole) == rows(broken)
    results.metric("killed_resumed_from", resumed_from)
    results.metric("killed_equal", int(equal))
    print(f"  killed, resumed from step {resumed_from}: the log is {'equal' if equal else 'NOT equal'}")


def by_hand(results: Results) -> None:
    """The norm of the sentence's gradient, and AdamW's first step on it."""
    table = bigrams(shared.float64)
    optimizer = optim.AdamW(table.parameters(), lr=0.1, weight_decay=0.0)
    before = copy.deepcopy(table.weight.detach().numpy())
    accumulate_gradients(table, *window())
    norm = clip_grad_norm_(table.parameters(), math.inf).item()
    optimizer.step()
    moved = np.abs(table.weight.detach().numpy() - before)
    results.metric("hand_norm", round(norm, 4))
    print(
        f"  the sentence's gradient has norm {norm:.4f}; Adam's first step moves numbers by {np.unique(moved.round(6))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", nargs="+", choices=RUNS, help="train these only, and keep all other numbers")
    parser.add_argument("--child", metavar="FOLDER", help=argparse.SUPPRESS)  # a training that `killed` kills
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.resume)
        return
    use_style()
    results = Results(__file__, seed=options.seed)
    text = corpus()
    if options.runs:
        compare(text, results, options.runs)
        results.save(keep=lambda name: True)
        return
    by_hand(results)
    results.figure(
        one_batch(text, results, options.seed),
        "one_batch",
        alt="Loss on one batch against the update, logarithmic: with shifted targets it falls slowly at first and then "
        "to the dotted line of the least possible, but for one spike; with targets that are the inputs it falls far "
        "below, and much sooner.",
    )
    results.figure(
        schedule(),
        "schedule",
        alt="Left, nine rates: 0.25, 0.5, 0.75, 1, then 0.868, 0.55, 0.232, 0.1 and 0.1. Right, two thousand: a short "
        "straight rise to 0.001, then half a cosine down to 0.0001.",
    )
    decay(text, results)
    accumulation(text, results, options.seed)
    evaluation(text, results, options.seed)
    killed(results)
    found = compare(text, results, list(RUNS))
    norms_of(found["recipe"], results)
    results.figure(
        curves(found),
        "recipes",
        alt="Smoothed training loss, five ways, over 400 updates: at the end Adam at a rate of 0.01 and the recipe "
        "without warm-up are highest, then comes SGD, then Adam at 0.001, and far below these the whole recipe.",
    )
    results.figure(
        norms(found),
        "norms",
        alt="Above, the norm of the gradient at each update on a logarithmic axis, with and without warm-up, and a "
        "dashed line at 1; below, the two learning rates, one with a rise over the first 40 updates.",
    )
    results.save()


if __name__ == "__main__":
    main()
