"""Note 01: what a window asks, tokens on disk, perplexity and bits per character, what each place of a window knows.

python sprints/09_train_gpt2/results/windows.py      about a minute of one core, most of it for one training
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch
from sentence import SENTENCE, bigrams, window
from small import BATCH, LENGTH, Corpus, corpus, small_gpt, trained, validation_loss

import shared
from course.plotting import COLORS, canvas, use_style, write_grid
from course.results import Results
from shared.data import TokenStream, random_windows, sequential_windows, write_tokens
from shared.data.tokens import windows_at
from shared.models import GPT
from shared.nn import functional as F
from shared.text import ByteLevelBPE
from shared.training import (
    batch_loss,
    bits_per_character,
    characters_per_token,
    evaluate_loss,
    perplexity,
    warmup_cosine,
)

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
STEPS = 1500

# ---------------------------------------------------------------- the sentence


def questions() -> plt.Figure:
    """The window's four questions: what each may see, and the word that it is to guess."""
    figure, axis = plt.subplots(figsize=(8.6, 3.3))
    words = SENTENCE.split()
    for c, name in enumerate(("1", "2", "3", "4")):
        axis.text(c + 0.5, 0.55, name, ha="center", fontsize=10, color="0.35")
    axis.text(2, -0.05, "inputs", ha="center", fontsize=11, fontweight="bold")
    axis.text(6.5, -0.05, "targets", ha="center", fontsize=11, fontweight="bold")
    for t in range(4):
        seen = [words[c] if c <= t else "" for c in range(4)]
        write_grid(axis, [seen], at=(0, t + 0.8), shade=[[float(c <= t) for c in range(4)]])
        write_grid(axis, [[words[t + 1]]], at=(6, t + 0.8), shade=[[1.0]], strong=COLORS["orange"])
        arrow = FancyArrowPatch((4.25, t + 1.3), (5.75, t + 1.3), arrowstyle="->", mutation_scale=14, color="0.4")
        axis.add_patch(arrow)
    canvas(axis, 7.2, 5)
    axis.set(xlim=(-0.3, 7.4), ylim=(5.1, -0.6))
    return figure


def by_hand(results: Results) -> None:
    """Loss and gradient of a table of bigrams that knows nothing, and its loss after one step and after many."""
    table = bigrams(shared.float64)
    loss = batch_loss(table, *window())
    loss.backward()
    results.metric("hand_loss", round(loss.item(), 4), unit="nats")
    for word, row in zip(("the", "dog", "bit", "man"), (table.weight.grad * 16).tolist(), strict=True):
        print(f"  {word}: sixteen times its gradient is {[round(v, 6) for v in row]}")
    for step in range(1, 401):
        with shared.no_grad():
            table.weight.sub_(4.0 * table.weight.grad)
        table.weight.grad = None
        loss = batch_loss(table, *window())
        loss.backward()
        if step in (1, 400):
            results.metric(f"hand_loss_after_{step}", round(loss.item(), 4), unit="nats")
            print(f"  after {step} steps: {loss.item():.4f} nats")


# ---------------------------------------------------------------- tokens on disk


def on_disk(text: Corpus, results: Results, seed: int) -> None:
    """The file's size, how long it takes to open, and how long a batch of windows takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "train.npy")
        write_tokens(path, text.train, text.vocab_size)
        results.metric("train_tokens", len(text.train))
        results.metric("file_megabytes", round(os.path.getsize(path) / 1e6, 2), unit="MB")
        start = time.perf_counter()
        stream = TokenStream(path)
        results.metric("open_milliseconds", round(1000 * (time.perf_counter() - start), 1), unit="ms")
        generator = shared.Generator().manual_seed(seed)
        random_windows(stream, BATCH, LENGTH, generator)
        times = []
        for _ in range(200):
            start = time.process_time()
            random_windows(stream, BATCH, LENGTH, generator)
            times.append(time.process_time() - start)
    micros = float(np.median(times)) * 1e6
    results.metric("batch_microseconds", round(micros), unit="µs")
    results.metric("windows", len(text.train) - LENGTH)
    print(f"  a batch of windows from the file: {micros:.0f} µs")


# ---------------------------------------------------------------- tokenizers compared


def bigram_nats(train: np.ndarray, val: np.ndarray, vocab_size: int, strength: float) -> float:
    """Mean −ln p of `val` by bigrams counted in `train`, mixed with the shares of single tokens (one added to each)."""
    singles = np.bincount(train, minlength=vocab_size) + 1.0
    singles /= singles.sum()
    pairs = np.bincount(train[:-1].astype(np.int64) * vocab_size + train[1:], minlength=vocab_size**2)
    heads = np.bincount(train[:-1], minlength=vocab_size)
    a, b = val[:-1].astype(np.int64), val[1:].astype(np.int64)
    p = (pairs[a * vocab_size + b] + strength * singles[b]) / (heads[a] + strength)
    return float(-np.log(p).mean())


def tuned_bigrams(train: np.ndarray, val: np.ndarray, vocab_size: int) -> float:
    """The same, with the strength that does best on the last tenth of the training text."""
    cut = len(train) * 9 // 10
    best = min(STRENGTHS, key=lambda s: bigram_nats(train[:cut], train[cut:], vocab_size, s))
    return bigram_nats(train, val, vocab_size, best)


def tokenizers(text: Corpus, results: Results) -> float:
    """Bigrams of characters and of byte pairs, per token and per character; returns nats per character of the first."""
    kinds = [("char", text.vocabulary)]
    large = ByteLevelBPE.train(text.train_text, 4000, fast=True)
    merges = list(large.merges)
    kinds += [(str(size), ByteLevelBPE(merges[: size - 257])) for size in (500, 1000, 4000)]
    first = 0.0
    for name, tokenizer in kinds:
        train, val = (np.array(tokenizer.encode(part), np.uint16) for part in (text.train_text, text.val_text))
        nats = tuned_bigrams(train, val, tokenizer.vocab_size)
        per_token = characters_per_token(tokenizer, val)
        bits = bits_per_character(nats, per_token)
        first = first or nats
        results.metric(f"bigram_{name}_nats", round(nats, 3), unit="nats")
        results.metric(f"bigram_{name}_perplexity", round(perplexity(nats), 1))
        results.metric(f"bigram_{name}_characters", round(per_token, 2))
        results.metric(f"bigram_{name}_bits", round(bits, 2), unit="bits")
        print(f"  {name:5} {nats:.3f} nats per token, perplexity {perplexity(nats):6.1f}, {bits:.2f} bits a character")
    return first


# ---------------------------------------------------------------- a model, and what each place knows


def learn(text: Corpus, seed: int) -> GPT:
    """The note's model: `STEPS` updates."""
    model = small_gpt(text.vocab_size, seed)
    optimizer = model.configure_optimizers(lr=1e-2, betas=(0.9, 0.99))
    trained(model, text.train, optimizer, lambda s: warmup_cosine(s, 1e-2, 1e-3, 100, STEPS), STEPS, seed=seed)
    return model


def nats_by_place(model: GPT, tokens: np.ndarray, length: int, stride: int) -> np.ndarray:
    """−ln p of the target at each place of windows that begin every `stride` tokens: (windows, length)."""
    starts, rows = np.arange(0, len(tokens) - length, stride), []
    with shared.no_grad():
        for first in range(0, len(starts), 64):
            inputs, targets = windows_at(tokens, starts[first : first + 64], length)
            nats = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="none")
            rows.append(nats.numpy().reshape(-1, length))
    return np.concatenate(rows)


def places(model: GPT, text: Corpus, counted: float, results: Results) -> plt.Figure:
    """The loss by place in the window; and the loss of the whole text by how it is cut into windows."""
    model.eval()
    nats = nats_by_place(model, text.val, LENGTH, stride=7).mean(axis=0)
    results.metric("place_1_nats", round(float(nats[0]), 2), unit="nats")
    results.metric("place_4_nats", round(float(nats[3]), 2), unit="nats")
    results.metric("place_late_nats", round(float(nats[32:].mean()), 2), unit="nats")
    for length in (8, 16, 32, 64):
        loss = validation_loss(model, text.val, length)
        results.metric(f"val_windows_of_{length}", round(loss, 3), unit="nats")
        print(f"  in windows of {length}: {loss:.3f} nats")
    overlapping = float(nats_by_place(model, text.val, LENGTH, stride=LENGTH // 2)[:, LENGTH // 2 :].mean())
    results.metric("val_overlapping", round(overlapping, 3), unit="nats")
    print(f"  overlapping by half, second halves only: {overlapping:.3f} nats")

    figure, axis = plt.subplots(figsize=(7.4, 4.0))
    axis.plot(np.arange(1, LENGTH + 1), nats, "o-", markersize=3, color=COLORS["blue"], label="a small GPT")
    axis.axhline(counted, color=COLORS["vermillion"], linestyle="--", linewidth=1.2, label="counted bigrams")
    axis.axhline(nats.mean(), color="0.4", linestyle=":", linewidth=1.2, label="mean over all places")
    axis.set_xscale("log", base=2)
    axis.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axis.set(title="The first places of a window know less", xlabel="place in the window (characters it sees)")
    axis.set_ylabel("−ln p of the next one (nats)")
    axis.legend()
    return figure


def spread(model: GPT, text: Corpus, results: Results, seed: int) -> None:
    """The validation loss on all of the text, and how much twenty random batches vary around it."""
    exact = evaluate_loss(model, sequential_windows(text.val, 64, LENGTH))
    generator, found = shared.Generator().manual_seed(seed), []
    for _ in range(40):
        batches = [random_windows(text.val, BATCH, LENGTH, generator) for _ in range(20)]
        found.append(evaluate_loss(model, batches))
    results.metric("val_exact", round(exact, 3), unit="nats")
    results.metric("val_random_spread", round(float(np.std(found)), 3), unit="nats")
    results.metric("val_random_least", round(min(found), 3), unit="nats")
    results.metric("val_random_most", round(max(found), 3), unit="nats")
    print(f"  all of it {exact:.3f}; twenty batches {np.mean(found):.3f} ± {np.std(found):.3f}")


def not_shifted(text: Corpus, results: Results, seed: int) -> None:
    """The same loop when each token's target is itself."""

    class Copies:
        """Random windows whose targets are the inputs."""

        generator = shared.Generator().manual_seed(seed)

        def __next__(self):
            inputs, _ = random_windows(text.train, BATCH, LENGTH, self.generator)
            return inputs, inputs

    model = small_gpt(text.vocab_size, seed)
    optimizer = model.configure_optimizers(lr=1e-2, betas=(0.9, 0.99))
    losses, _ = trained(model, text.train, optimizer, lambda s: 3e-3, 100, windows=Copies())
    results.metric("not_shifted_loss", round(float(losses[-10:].mean()), 3), unit="nats")
    print(f"  targets not shifted: {losses[-10:].mean():.4f} after 100 steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    use_style()
    results = Results(__file__, seed=options.seed)
    results.figure(
        questions(),
        "questions",
        alt="Four rows: from the word 'the' an arrow to 'dog', from 'the dog' to 'bit', from 'the dog bit' to 'the', "
        "from 'the dog bit the' to 'man'; what comes later is blank.",
    )
    by_hand(results)
    text = corpus()
    on_disk(text, results, options.seed)
    counted = tokenizers(text, results)
    not_shifted(text, results, options.seed)
    model = learn(text, options.seed)
    spread(model, text, results, options.seed)
    results.figure(
        places(model, text, counted, results),
        "places",
        alt="Nats for the next character against the place in the window: at the first place above the dashed "
        "line of counted bigrams, falling steeply until the fourth, hardly any more after the eighth.",
    )
    results.save()


if __name__ == "__main__":
    main()
