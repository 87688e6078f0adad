"""Note 03: a small training that is right, eleven ways to break it, and five broken runs under neutral names.

    python sprints/09_train_gpt2/results/broken_runs.py                   trains all, stores five curves, draws
    python sprints/09_train_gpt2/results/broken_runs.py --check A embedding_frozen

What notebook 02 and the milestone test take from here (importing it reads, trains and draws nothing):

    run = train()                       # the healthy run: run.train, run.norm (STEPS,), run.val (STEPS // EVERY + 1,)
    run = train("embedding_frozen")     # the same with one of SUSPECTS: about a second of one core
    runs = stored()                     # {"A": Run, … "E": Run}, each made with one suspect
    verdict = check("A", "embedding_frozen")        # trains with the suspect and lays the curves over each other
    verdict.same, verdict.distance                  # True where they coincide; the distance in nats
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor
from shared.data import RandomWindows, random_windows
from shared.models import GPT, GPTConfig, next_token_loss
from shared.nn import functional as F
from shared.nn.utils import clip_grad_norm_
from shared.text import CharVocabulary
from shared.training import warmup_cosine

STEPS, EVERY, BATCH, MICRO, LENGTH = 200, 10, 32, 16, 16
RATE, WARMUP, CLIP = 8e-3, 20, 1.0
TRAINED, HELD = 12_000, 4_000  # characters: few, so that a model can begin to know them by heart
STORED = Path(__file__).with_suffix(".json")
LETTERS, DRAW = "ABCDE", 21  # the seed decides which five suspects are behind the letters, and in which order
TOLERANCE = 0.035  # nats: the largest distance of two runs that count as the same

SUSPECTS = {
    "targets_not_shifted": "the target of a token is the token itself",
    "targets_shifted_twice": "the target of a token is the next but one",
    "mask_missing": "each token sees those after it",
    "gradients_not_cleared": "zero_grad() is missing: gradients of all updates add up",
    "rate_too_large": "the learning rate is 30 times as large",
    "no_warm_up": "the first update has the largest rate",
    "same_windows": "every update sees the same windows",
    "validation_in_training": "the validation windows lie in the training text",
    "embedding_frozen": "the table of embeddings does not learn, and so the head does not either",
    "schedule_per_micro_batch": "the schedule moves on at each micro-batch instead of each update",
    "softmax_twice": "the loss is given probabilities, where it expects scores",
}


@dataclass(frozen=True)
class Run:
    """What one training looked like: loss and norm of the gradient of each update, and the measured losses."""

    train: np.ndarray  # (STEPS,)
    norm: np.ndarray  # (STEPS,), before clipping
    val: np.ndarray  # (STEPS // EVERY + 1,), as the run itself measured it, its mistake included

    def to_dict(self) -> dict[str, list[float]]:
        """For JSON, to four digits behind the point."""
        return {name: [round(float(v), 4) for v in getattr(self, name)] for name in ("train", "norm", "val")}


@dataclass(frozen=True)
class Text:
    """A short text, ids (N,) to train on and to measure on, and what it was made from."""

    train: np.ndarray
    val: np.ndarray
    vocab_size: int
    sha256: str


@cache
def excerpt() -> Text:
    """The first characters of both parts of TinyShakespeare, or of its stand-in."""
    parts = [part.text for part in shared.data.load("tinyshakespeare", fallback=True)]
    vocabulary = CharVocabulary.from_text("".join(parts))
    train, val = parts[0][:TRAINED], parts[1][:HELD]
    ids = [np.array(vocabulary.encode(part), np.uint16) for part in (train, val)]
    return Text(*ids, vocabulary.vocab_size, hashlib.sha256((train + val).encode()).hexdigest())


# ---------------------------------------------------------------- the training


def build(suspect: str | None, vocab_size: int) -> GPT:
    """One block, 64 wide, with dropout."""
    sizes = {"block_size": LENGTH, "n_layer": 1, "n_head": 4, "n_embd": 64, "dropout": 0.1}
    model = GPT(GPTConfig(vocab_size=vocab_size, **sizes))
    if suspect == "embedding_frozen":
        model.token_embedding.weight.requires_grad_(False)
    if suspect == "mask_missing":
        for block in model.blocks:
            block.forward = partial(block.forward, is_causal=False)
    return model


def loss_of(model: GPT, inputs: Tensor, targets: Tensor, suspect: str | None) -> Tensor:
    """The mean of −ln p(target): inputs and targets are ids (B, T)."""
    logits = model(inputs)
    if suspect == "targets_not_shifted":
        targets = inputs
    if suspect == "targets_shifted_twice":
        logits, targets = logits[:, :-1], targets[:, 1:]
    if suspect == "softmax_twice":
        logits = F.softmax(logits, dim=-1)
    return next_token_loss(logits, targets)


def measure(model: GPT, text: Text, suspect: str | None) -> float:
    """The validation loss: always on the same windows, in eval mode, without gradients."""
    tokens = text.train if suspect == "validation_in_training" else text.val
    model.eval()
    with shared.no_grad():
        inputs, targets = random_windows(tokens, 64, LENGTH, shared.Generator().manual_seed(1))
        loss = loss_of(model, inputs, targets, suspect).item()
    model.train()
    return loss


def rate(step: int, suspect: str | None) -> float:
    """The learning rate of an update: warm-up, then a cosine to a hundredth."""
    highest = 30 * RATE if suspect == "rate_too_large" else RATE
    warmup = 0 if suspect == "no_warm_up" else WARMUP
    if suspect == "schedule_per_micro_batch":
        step *= BATCH // MICRO
    return warmup_cosine(step, highest, highest / 100, warmup, STEPS)


def train(suspect: str | None = None, seed: int = 0) -> Run:
    """The healthy training, or the same with one mistake in it. ValueError for a suspect that is not in SUSPECTS."""
    if suspect is not None and suspect not in SUSPECTS:
        raise ValueError(f"there is no suspect {suspect!r}; there are {', '.join(SUSPECTS)}")
    text = excerpt()
    shared.manual_seed(seed)
    model = build(suspect, text.vocab_size)
    optimizer = model.configure_optimizers(lr=RATE)
    windows = RandomWindows(text.train, BATCH, LENGTH, seed)
    start, losses, norms, measured = windows.state_dict(), [], [], [measure(model, text, suspect)]
    for step in range(STEPS):
        if suspect == "same_windows":
            windows.load_state_dict(start)
        inputs, targets = next(windows)
        if suspect != "gradients_not_cleared":
            optimizer.zero_grad()
        total = 0.0
        for x, y in zip(inputs.chunk(BATCH // MICRO), targets.chunk(BATCH // MICRO), strict=True):
            loss = loss_of(model, x, y, suspect) * (MICRO / BATCH)
            loss.backward()
            total += loss.item()
        losses.append(total)
        norms.append(clip_grad_norm_([p for p in model.parameters() if p.requires_grad], CLIP).item())
        for group in optimizer.param_groups:
            group["lr"] = rate(step, suspect)
        optimizer.step()
        if (step + 1) % EVERY == 0:
            measured.append(measure(model, text, suspect))
    return Run(np.array(losses), np.array(norms), np.array(measured))


# ---------------------------------------------------------------- five of them, and the check


def culprits() -> dict[str, str]:
    """Which suspect is behind which letter: the answers."""
    return dict(zip(LETTERS, random.Random(DRAW).sample(list(SUSPECTS), len(LETTERS)), strict=True))


@cache
def stored() -> dict[str, Run]:
    """The five runs as they were stored; trained anew where another text stands in for Shakespeare."""
    kept: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    if kept["text_sha256"] != excerpt().sha256:
        return {letter: train(suspect) for letter, suspect in culprits().items()}
    return {letter: Run(**{k: np.array(v) for k, v in run.items()}) for letter, run in kept["runs"].items()}


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Means of `width` neighbours: (N − width + 1,)."""
    return np.convolve(values, np.ones(width) / width, "valid")


def distance(a: Run, b: Run) -> float:
    """How far two runs are apart, in nats: the mean gap of the smoothed curves, training or validation."""
    gaps = [
        np.abs(smooth(getattr(a, name), width) - smooth(getattr(b, name), width)).mean()
        for name, width in (("train", 20), ("val", 3))
    ]
    return float(max(gaps))


@dataclass(frozen=True)
class Verdict:
    """What came out of a check: `same` where the curves coincide, `distance` in nats, and both runs."""

    letter: str
    suspect: str
    distance: float
    stored: Run
    trained: Run

    @property
    def same(self) -> bool:
        """Whether the two runs count as one."""
        return self.distance < TOLERANCE

    def __str__(self) -> str:
        found = "the curves coincide: that is it" if self.same else "the curves differ: something else"
        return f"run {self.letter}, {self.suspect}: {self.distance:.3f} nats apart; {found}"


def check(letter: str, suspect: str) -> Verdict:
    """Trains the healthy loop with the suspect's mistake in it and lays its curves over the stored ones.

    KeyError for a run there is none of, ValueError for a suspect that is not in SUSPECTS.
    """
    if letter not in stored():
        raise KeyError(f"there is no run {letter!r}; there are {', '.join(stored())}")
    run, trained = stored()[letter], train(suspect)
    return Verdict(letter, suspect, distance(run, trained), run, trained)


def single_characters(text: Text) -> float:
    """What counting the characters of the training text gives on the validation text, in nats; one is added to each."""
    counts = np.bincount(text.train, minlength=text.vocab_size) + 1.0
    return float(-np.log(counts / counts.sum())[text.val].mean())


# ---------------------------------------------------------------- pictures


def draw(runs: dict[str, Run], healthy: Run | None = None) -> Any:
    """Losses above, the norm of the gradient below; a column for each run, the healthy one in grey behind it.

    Each update's loss and norm are thin; strong are the means of ten neighbours, drawn at the middle of the ten.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(runs), figsize=(2.5 * len(runs) + 0.6, 4.8), sharex=True, sharey="row")
    axes = np.reshape(axes, (2, len(runs)))
    places, middles = np.arange(0, STEPS + 1, EVERY), np.arange(STEPS - 9) + 4.5
    for column, (name, run) in zip(axes.T, runs.items(), strict=True):
        if healthy is not None:
            column[0].plot(middles, smooth(healthy.train, 10), color="0.7", linewidth=1)
            column[0].plot(places, healthy.val, color="0.7", linewidth=1, linestyle="--")
            column[1].semilogy(middles, smooth(healthy.norm, 10), color="0.7", linewidth=1)
        column[0].plot(run.train, color=COLORS["blue"], linewidth=0.5, alpha=0.5)
        column[0].plot(middles, smooth(run.train, 10), color=COLORS["blue"], label="training")
        column[0].plot(places, run.val, "--", color=COLORS["vermillion"], label="validation")
        column[1].semilogy(run.norm, color=COLORS["green"], linewidth=0.5, alpha=0.5)
        column[1].semilogy(middles, smooth(run.norm, 10), color=COLORS["green"])
        column[0].set(title=name, ylim=(0, 5))
        column[1].set(xlabel="updates", ylim=(3e-2, 10))
    axes[0, 0].set_ylabel("loss (nats)")
    axes[1, 0].set_ylabel("norm of the gradient")
    axes[0, 0].legend(fontsize=8, loc="lower left")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", nargs=2, metavar=("RUN", "SUSPECT"), help="does this suspect make that run?")
    args = parser.parse_args()
    if args.check:
        try:
            print(check(*args.check))
        except (KeyError, ValueError) as error:
            raise SystemExit(f"broken_runs.py: {error.args[0]}") from None
        return
    use_style()
    results = Results(__file__, seed=0)
    healthy, runs = train(), {suspect: train(suspect) for suspect in SUSPECTS}
    five = {letter: runs[suspect] for letter, suspect in culprits().items()}
    kept = {"text_sha256": excerpt().sha256, "runs": {letter: run.to_dict() for letter, run in five.items()}}
    STORED.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    results.metric("broken_healthy_val", round(float(healthy.val[-1]), 3), unit="nats")
    for suspect, run in runs.items():
        results.metric(f"broken_{suspect}_train", round(float(run.train[-20:].mean()), 3), unit="nats")
        results.metric(f"broken_{suspect}_val", round(float(run.val[-1]), 3), unit="nats")
        results.metric(f"broken_{suspect}_norm", round(float(run.norm[-100:].mean()), 3))
        results.metric(f"broken_{suspect}_apart", round(distance(run, healthy), 3), unit="nats")
        print(f"  {suspect:26} validation {run.val[-1]:.3f}, {distance(run, healthy):.3f} from the healthy run")
    results.metric("broken_healthy_train", round(float(healthy.train[-20:].mean()), 3), unit="nats")
    results.metric("broken_healthy_norm", round(float(healthy.norm[-100:].mean()), 3))
    pairs = [distance(a, b) for i, a in enumerate(runs.values()) for b in list(runs.values())[:i]]
    results.metric("broken_nearest_pair", round(min(pairs), 3), unit="nats")
    results.metric("broken_tolerance", TOLERANCE, unit="nats")
    results.metric("broken_1_gram", round(single_characters(excerpt()), 3), unit="nats")
    for suspect in ("gradients_not_cleared", "targets_shifted_twice", "embedding_frozen", "rate_too_large"):
        results.metric(f"broken_{suspect}_norm_least", round(float(runs[suspect].norm.min()), 3))
        results.metric(f"broken_{suspect}_norm_most", round(float(runs[suspect].norm.max()), 3))
    results.figure(
        draw({f"Run {letter}": run for letter, run in five.items()}, healthy),
        "broken_runs",
        alt="Five columns A to E: above the training and validation loss over 200 updates, below the norm of the "
        "gradient, each over the healthy run in grey.",
    )
    results.save()


if __name__ == "__main__":
    main()
