"""Note 04: the preset `cpu` trained and watched: its curve, what it writes on the way, and what counting reaches.

python sprints/09_train_gpt2/results/shakespeare.py          draws and counts, from what is kept: seconds
python sprints/09_train_gpt2/results/shakespeare.py --train  trains first, some minutes of one core

The training goes to shakespeare.json beside this file: measured losses, samples, and how many of the words are words.
Where benchmarks/results/cpu_training.json is there, its curves, ours and PyTorch's over seeds, are drawn as well.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from small import Corpus, corpus
from train_gpt2 import NANOGPT, PRESETS

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.data import sequential_windows
from shared.models import GPT, GPTConfig
from shared.training import LMConfig, Trainer, evaluate_loss, sample_text

KEPT = Path(__file__).with_suffix(".json")
BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "cpu_training.json"
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)

# ---------------------------------------------------------------- the training


def words_in(text: str) -> list[str]:
    """Runs of letters, with the apostrophe in "'tis" and "o'er", in lower case."""
    return re.findall(r"[a-z']*[a-z][a-z']*", text.lower())


class Watched(Trainer):
    """A Trainer that lets the model write whenever it is measured, and counts which of the words are words."""

    def watch(self, known: set[str]) -> Watched:
        """`known` are the words of the training text."""
        self.known, self.written = known, []
        return self

    def evaluate(self) -> bool:
        """As in Trainer, and one row more in `written`."""
        improved, seconds = super().evaluate(), self.seconds
        ids, generator = shared.zeros(16, 1, dtype=shared.int64), shared.Generator().manual_seed(self.config.seed)
        many = self.model.generate(ids, 120, temperature=0.8, generator=generator)  # 16 texts at once
        words = [w for row in many.tolist() for w in words_in(self.tokenizer.decode(row))[:-1]]
        share = sum(w in self.known for w in words) / max(1, len(words))
        sample = sample_text(self.model, self.tokenizer, "\n", 160, temperature=0.8, seed=self.config.seed)
        self.written.append({"step": self.step, "words": len(words), "known": round(share, 4), "sample": sample})
        self.seconds = seconds
        return improved


def train(text: Corpus) -> None:
    """The preset as it is, without a folder; writes KEPT."""
    preset = tomllib.loads((PRESETS / "cpu.toml").read_text(encoding="utf-8"))
    config = LMConfig.from_dict(preset["training"])
    shared.manual_seed(config.seed)
    model = GPT(GPTConfig(vocab_size=text.vocab_size, **preset["model"]))
    trainer = Watched(model, text.train, text.val, config, tokenizer=text.vocabulary)
    trainer.watch(set(words_in(text.train_text)))
    started = time.process_time()
    log = trainer.train()
    seconds = time.process_time() - started
    batches = sequential_windows(text.val, config.batch_size, model.config.block_size)
    kept = {
        "seed": config.seed,
        "cpu_seconds": round(seconds, 1),
        "val_loss_whole": round(evaluate_loss(model, batches), 4),
        "measured": {k: [round(v, 4) for v in log.measured()[k]] for k in ("step", "train_loss", "val_loss")},
        "batch_loss": [round(v, 3) for v in log.column("loss")[1]],
        "written": trainer.written,
    }
    KEPT.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- counting


def codes(ids: np.ndarray, n: int, base: int) -> np.ndarray:
    """One integer for each run of n ids, the last id in its last digit: (N − n + 1,)."""
    out = np.zeros(len(ids) - n + 1, np.int64)
    for k in range(n):
        out = out * base + ids[k : len(ids) - n + 1 + k]
    return out


def counts_of(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How often each code in `wanted` stands in `known`."""
    values, counts = np.unique(known, return_counts=True)
    places = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[places] == wanted, counts[places], 0)


def counted_nats(train: np.ndarray, val: np.ndarray, base: int, orders: int) -> list[float]:
    """Mean −ln p of `val` by n-grams of `train`, n = 1 … orders, each smoothed by the one below (Sprint 07, note 6).

    How strongly is chosen on the last tenth of the training text, which is then counted with the rest.
    """
    cut, strengths, found = int(0.9 * len(train)), [], []
    for fit, on in ((train[:cut], train[cut:]), (train, val)):
        p = np.full(len(on), 1 / base)
        for n in range(1, orders + 1):
            wanted = codes(on, n, base)
            count = counts_of(codes(fit, n, base), wanted)
            heads = codes(fit[:-1], n - 1, base)
            total = counts_of(heads, wanted // base) if n > 1 else np.full(len(on), len(fit))
            without = len(p) - len(count)
            tried = {}
            for s in STRENGTHS if on is not val else (strengths[n - 1],):
                tried[s] = np.concatenate([p[:without], (count + s * p[without:]) / (total + s)])
            best = min(tried, key=lambda s: -np.log(tried[s]).mean())
            p = tried[best]
            if on is not val:
                strengths.append(best)
            else:
                found.append(float(-np.log(p[1:]).mean()))
    return found


# ---------------------------------------------------------------- pictures


def benchmark() -> dict[str, Any] | None:
    """Curves of both libraries over seeds, {"shared": [{step: loss}, …], "torch": …}, where they were measured."""
    if not BENCHMARK.exists():
        return None
    return json.loads(BENCHMARK.read_text(encoding="utf-8"))["val_loss"]


def curve(kept: dict[str, Any], counted: list[float]) -> plt.Figure:
    """Losses over updates: each batch's, both texts', and lines to compare with."""
    figure, axis = plt.subplots(figsize=(7.6, 4.6))
    losses, steps = kept["batch_loss"], kept["measured"]["step"]
    axis.plot(range(1, len(losses) + 1), losses, color="0.8", linewidth=0.5, label="each update's batch")
    axis.plot(steps, kept["measured"]["train_loss"], "o-", markersize=4, color=COLORS["sky"], label="training text")
    axis.plot(steps, kept["measured"]["val_loss"], "o-", markersize=4, color=COLORS["blue"], label="validation text")
    lines = [(counted[n - 1], f"{n}-grams") for n in (1, 2, 3, 4, 5)] + [(NANOGPT["cpu"], "nanoGPT states 1.88")]
    for value, name in lines:
        stated = name.startswith("nano")
        colour = COLORS["black"] if stated else COLORS["orange"]
        axis.axhline(value, color=colour, linestyle=":" if stated else "--", linewidth=1)
        axis.text(20, value, name, ha="left", va="bottom", fontsize=9)
    axis.set(title="Preset cpu on TinyShakespeare", xlabel="updates", ylabel="loss (nats per character)")
    axis.set_ylim(1.5, 4.4)
    axis.legend(loc="upper right", bbox_to_anchor=(1, 0.95))
    return figure


def both(curves: dict[str, Any]) -> plt.Figure:
    """Validation loss of this framework and of PyTorch over updates, one line for each seed."""
    figure, axis = plt.subplots(figsize=(7.6, 4.4))
    looks = {"torch": ("PyTorch, nanoGPT's model and loop", COLORS["vermillion"], "s--"), "shared": None}
    looks["shared"] = ("this course's", COLORS["blue"], "o-")
    for library, (name, colour, mark) in looks.items():
        for i, run in enumerate(curves[library]):
            steps = [int(step) for step in run if int(step) >= 250]
            values = [run[str(step)] for step in steps]
            axis.plot(steps, values, mark, markersize=4, linewidth=1.2, color=colour, label=None if i else name)
    axis.axhline(NANOGPT["cpu"], color="black", linestyle=":", linewidth=1, label="nanoGPT states 1.88")
    axis.set(title="The same training in two libraries, a line for each seed", xlabel="updates")
    axis.set_ylabel("validation loss (nats per character)")
    axis.legend()
    return figure


def words(kept: dict[str, Any]) -> plt.Figure:
    """The share of written words that occur in the training text, over updates."""
    figure, axis = plt.subplots(figsize=(7.0, 3.4))
    rows = kept["written"]
    axis.plot([r["step"] for r in rows], [100 * r["known"] for r in rows], "o-", color=COLORS["green"])
    axis.set(title="Which of the written words are words", xlabel="updates", ylabel="in the training text (%)")
    axis.set_ylim(0, 100)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train the preset cpu anew, some minutes of one core")
    args = parser.parse_args()
    text = corpus()
    if args.train or not KEPT.exists():
        train(text)
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    use_style()
    results = Results(__file__, seed=kept["seed"])
    counted = counted_nats(text.train, text.val, text.vocab_size, orders=6)
    for n, value in enumerate(counted, start=1):
        results.metric(f"counted_{n}_gram", round(value, 4), unit="nats")
    measured, written = kept["measured"], kept["written"]
    for i, step in enumerate(measured["step"]):
        results.metric(f"watched_val_{step}", measured["val_loss"][i], unit="nats")
        results.metric(f"watched_words_{step}", written[i]["known"])
        print(f"{step:5} val {measured['val_loss'][i]:.3f}, words {written[i]['known']:.0%}: {written[i]['sample']!r}")
    results.metric("watched_train_last", measured["train_loss"][-1], unit="nats")
    results.metric("watched_val_whole", kept["val_loss_whole"], unit="nats")
    results.metric("watched_perplexity", round(math.exp(kept["val_loss_whole"]), 3))
    results.metric("watched_bits", round(kept["val_loss_whole"] / math.log(2), 3), unit="bits")
    results.metric("watched_cpu_seconds", kept["cpu_seconds"], unit="s")
    results.metric("watched_seen", 12 * 64 * measured["step"][-1], unit="characters")
    results.figure(
        curve(kept, counted),
        "shakespeare_curve",
        alt="Loss in nats per character over 2,000 updates: it starts at 4.2, passes the lines of 1-, 2- and 3-grams, "
        "and ends near the dotted line at 1.88 that nanoGPT states; the batches' losses scatter around it.",
    )
    results.figure(
        words(kept),
        "shakespeare_words",
        alt="The share of written words that occur in the training text rises steeply in the first few hundred "
        "updates and slowly afterwards.",
    )
    if (curves := benchmark()) is not None:
        last = {library: [list(run.values())[-1] for run in runs] for library, runs in curves.items()}
        for library, values in last.items():
            results.metric(f"seeds_{library}_val_mean", round(float(np.mean(values)), 4), unit="nats")
            results.metric(f"seeds_{library}_val_lowest", round(min(values), 4), unit="nats")
            results.metric(f"seeds_{library}_val_highest", round(max(values), 4), unit="nats")
        results.figure(
            both(curves),
            "shakespeare_both",
            alt="Validation loss over updates of both libraries, three seeds each: the lines lie in one narrow bundle "
            "and end around the dotted line at 1.88.",
        )
    print(f"n-grams: {', '.join(f'{v:.3f}' for v in counted)}; ours whole {kept['val_loss_whole']:.4f}")
    results.save()


if __name__ == "__main__":
    main()
