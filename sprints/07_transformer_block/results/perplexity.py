"""Note 06: perplexity against counted n-grams, by training step and by context; WikiText-2 where its files are.

python sprints/07_transformer_block/results/perplexity.py          two minutes of one core
python sprints/07_transformer_block/results/perplexity.py --full   a model four times as large instead, much longer
"""

from __future__ import annotations

import argparse
import math
import time

import matplotlib.pyplot as plt
import numpy as np
from language_model import (
    Corpus,
    LanguageModel,
    bigram_nats,
    bigrams,
    corpus,
    model_nats,
    nats_by_position,
    sample,
    train,
)

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.data import catalog

STRENGTHS = (0.5, 1.0, 3.0, 10.0, 30.0, 100.0)


# ---------------------------------------------------------------- counted n-grams


def codes(ids: np.ndarray, n: int, vocab_size: int) -> np.ndarray:
    """One integer for each run of n ids, the last id in its last digit: (N − n + 1,)."""
    out = np.zeros(len(ids) - n + 1, np.int64)
    for k in range(n):
        out = out * vocab_size + ids[k : len(ids) - n + 1 + k]
    return out


def counts_of(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How often each code in `wanted` stands in `known`."""
    values, counts = np.unique(known, return_counts=True)
    places = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[places] == wanted, counts[places], 0)


def smoothed(lower: np.ndarray, count: np.ndarray, total: np.ndarray, strength: float) -> np.ndarray:
    """The probabilities of one order, mixed with those of the order below; the first few have no such context."""
    without = len(lower) - len(count)
    return np.concatenate([lower[:without], (count + strength * lower[without:]) / (total + strength)])


def counted_nats(text: Corpus, orders: int) -> list[float]:
    """Mean −ln p of the test part by n-grams, n = 1 … orders, each smoothed by the one below.

    p(c | h) = (count(hc) + s · p(c | h without its first)) / (count(h) + s), where s is chosen on the validation part.
    """
    size, found = text.vocab_size, []
    parts = {"valid": text.valid, "test": text.test}
    p = {name: np.full(len(ids), 1 / size) for name, ids in parts.items()}
    for n in range(1, orders + 1):
        grams = codes(text.train, n, size)
        heads = codes(text.train[:-1], n - 1, size) if n > 1 else np.zeros(len(text.train), np.int64)
        numbers = {}
        for name, ids in parts.items():
            wanted = codes(ids, n, size)
            numbers[name] = counts_of(grams, wanted), counts_of(heads, wanted // size if n > 1 else wanted * 0)

        tried = {s: smoothed(p["valid"], *numbers["valid"], s) for s in STRENGTHS}
        strength = min(tried, key=lambda s: -np.log(tried[s]).mean())
        p = {"valid": tried[strength], "test": smoothed(p["test"], *numbers["test"], strength)}
        found.append(float(-np.log(p["test"][1:]).mean()))
        print(f"  {n}-grams: perplexity {math.exp(found[-1]):.2f}, smoothed by {strength:g}", flush=True)
    return found


# ---------------------------------------------------------------- one model


def learn(text: Corpus, args: argparse.Namespace, results: Results, key: str) -> tuple[LanguageModel, list]:
    """Trains the note's model on `text`; returns it and [(step, test nats)] along the way."""
    shared.manual_seed(args.seed)
    model = LanguageModel(text.vocab_size, args.width, num_layers=4, max_len=args.length, dropout=args.dropout)
    size = sum(p.numel() for p in model.parameters())
    looks: list[tuple[int, float]] = []
    excerpt = text.test[:50_000]

    def look(step: int, loss: float) -> None:
        if step in (10, 25, 50) or step % (args.steps // 10) == 0:
            looks.append((step, model_nats(model, excerpt)))
            print(f"  step {step}: loss {loss:.3f}, test {looks[-1][1]:.3f} nats", flush=True)
            model.train()

    started = time.process_time()
    train(model, text.train, args.steps, args.length, args.batch_size, args.lr, args.seed, look)
    seconds = time.process_time() - started
    table = bigrams(text.train, text.vocab_size)
    baseline, nats = bigram_nats(table, text.test), model_nats(model, text.test)
    for name, value, unit, digits in (
        ("characters", len(text.train), "characters", 0),
        ("vocabulary", text.vocab_size, "characters", 0),
        ("parameters", size, "", 0),
        ("steps", args.steps, "steps", 0),
        ("seen", args.steps * args.batch_size * args.length, "characters", 0),
        ("cpu_seconds", seconds, "s", 0),
        ("bigram_nats", baseline, "nats", 3),
        ("bigram_perplexity", math.exp(baseline), "", 2),
        ("nats", nats, "nats", 3),
        ("perplexity", math.exp(nats), "", 2),
        ("bits", nats / math.log(2), "bits", 2),
        ("ratio", math.exp(nats - baseline), "", 2),
    ):
        results.metric(f"{key}_{name}", round(value, digits) if digits else int(round(value)), unit=unit)
    print(f"  {size:,} parameters, {seconds:.0f} s: perplexity {math.exp(nats):.2f}, bigrams {math.exp(baseline):.2f}")
    return model, looks


def curve(looks: list[tuple[int, float]], counted: list[float]) -> plt.Figure:
    """Perplexity by training step, and what n-grams reach."""
    figure, axis = plt.subplots(figsize=(7.4, 4.2))
    steps, nats = np.array(looks).T
    axis.loglog(steps, np.exp(nats), "o-", color=COLORS[0], label="transformer, 4 blocks")
    for n, value in enumerate(counted, start=1):
        if n in (1, 2, 3, 5):
            axis.axhline(math.exp(value), color=COLORS[1], linestyle="--", linewidth=1)
            axis.text(steps[0], math.exp(value) * 1.02, f"{n}-grams", va="bottom", fontsize=9)
    ticks = (3, 4, 5, 7, 10, 15, 25, 40, 60)
    axis.set_yticks(ticks, [str(t) for t in ticks])
    axis.set_yticks([], minor=True)
    axis.set(title="Perplexity on the test part while the model learns", xlabel="training step", ylabel="perplexity")
    axis.legend()
    return figure


def context(model: LanguageModel, text: Corpus, counted: list[float], results: Results) -> plt.Figure:
    """Nats by place in the window: what a longer context is worth."""
    nats = nats_by_position(model, text.test, model.max_len)
    figure, axis = plt.subplots(figsize=(7.4, 4.0))
    axis.plot(np.arange(1, len(nats) + 1), nats, "o-", markersize=3, color=COLORS[0], label="transformer")
    for n in (2, 3, 5):
        axis.plot(n - 1, counted[n - 1], "D", color=COLORS[1], label="n-grams, n = 2, 3, 5" if n == 2 else None)
    axis.set(title="The more it has read, the better it guesses", xlabel="characters seen in the window")
    axis.set_ylabel("−ln p of the next one (nats)")
    axis.set_xscale("log", base=2)
    axis.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axis.legend()
    results.metric("context_1_nats", round(float(nats[0]), 2), unit="nats")
    results.metric("context_4_nats", round(float(nats[3]), 2), unit="nats")
    results.metric("context_late_nats", round(float(nats[len(nats) // 2 :].mean()), 2), unit="nats")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="128 wide, windows of 128, 4,000 steps, and nothing else")
    parser.add_argument("--steps", type=int, help="of the note's model (default: 1000, with --full 4000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.steps = args.steps or (4000 if args.full else 1000)
    args.width, args.length, args.batch_size = (128, 128, 16) if args.full else (64, 64, 16)
    args.dropout, args.lr = (0.1, 2e-3) if args.full else (0.0, 5e-3)
    use_style()
    results = Results(__file__, seed=args.seed)
    names = ["python-reference"]
    if catalog.status("wikitext-2") in ("course-data", "cached"):
        names.append("wikitext-2")
    for name in names:
        text, key = corpus(name), "wikitext" if name == "wikitext-2" else "reference"
        print(f"{text.name}: {len(text.train):,} characters, {text.vocab_size} distinct")
        if args.full:
            model, _ = learn(text, args, results, f"full_{key}")
            print(text.decode(np.array(sample(model, text.test[:64].tolist(), 400, 0.8, args.seed))))
            continue
        counted = counted_nats(text, orders=6)
        for n, value in enumerate(counted, start=1):
            results.metric(f"{key}_{n}_gram_perplexity", round(math.exp(value), 2))
        model, looks = learn(text, args, results, key)
        print(text.decode(np.array(sample(model, text.test[:64].tolist(), 300, 0.8, args.seed))))
        if key == "wikitext":
            words = shared.data.WikiText2("test").tokens()
            per_word = model_nats(model, text.test) * len(text.test) / len(words)
            results.metric("wikitext_characters_per_word", round(len(text.test) / len(words), 2), unit="characters")
            results.metric("wikitext_word_perplexity", round(math.exp(per_word), -1))
            continue
        results.figure(
            curve(looks, counted),
            "lm_curve",
            alt="Perplexity on the test part against the training step, both logarithmic: the transformer's falls "
            "through the lines of 1-grams, 2-grams, 3-grams and, late, that of 5-grams or close to it.",
        )
        results.figure(
            context(model, text, counted, results),
            "lm_context",
            alt="Nats for the next character against the number of characters seen in the window: high at one, "
            "falling steeply to about eight, slowly after that; diamonds mark 2-, 3- and 5-grams.",
        )
    results.save(keep=lambda name: name.startswith("full_") != args.full)


if __name__ == "__main__":
    main()
