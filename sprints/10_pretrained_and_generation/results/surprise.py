"""Note 03: surprise and entropy, real text character by character, human text beside likely text, sure and wrong.

python sprints/10_pretrained_and_generation/results/surprise.py      about a minute of one core
"""

from __future__ import annotations

import argparse
import math

import matplotlib.pyplot as plt
import numpy as np
from kept import kept_model, validation_text, windows
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patches import Rectangle
from sentence import WORDS, logits

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.generation import GenerationConfig, beam_search, generate
from shared.generation.measures import entropy_of_logits, surprise
from shared.models import GPT
from shared.nn import functional as F
from shared.text.vocabulary import Vocabulary

PROMPTS, PROMPT, NEW = 32, 32, 96  # prompts, their characters, and how many follow: 128, all that the model can see
PLACES = 400  # windows of 128 characters of real text, for the second half
WARM = LinearSegmentedColormap.from_list("surprise", ["#ffffff", "#fbe3d0", COLORS["orange"], COLORS["vermillion"]])
MOST = 8.0  # bits: the colour of everything from there on

# ---------------------------------------------------------------- six words


def by_hand(results: Results, seed: int) -> None:
    """Surprise of each of the six words, their entropy, and a hundred draws beside a hundred times the likeliest."""
    p = F.softmax(logits(dtype=shared.float64), dim=-1)[0].numpy()
    bits = -np.log2(p)
    entropy = float((p * bits).sum())
    spread = math.sqrt(float((p * bits**2).sum()) - entropy**2)
    for word, value in zip(WORDS, bits, strict=True):
        results.metric(f"surprise_{word}", round(float(value), 3), unit="bits")
    results.metric("six_entropy", round(entropy, 3), unit="bits")
    results.metric("six_choices", round(2**entropy, 2))
    results.metric("six_spread", round(spread, 3), unit="bits")
    results.metric("six_spread_of_mean", round(spread / 10, 3), unit="bits")
    results.metric("six_distance", round((entropy - float(bits[0])) / (spread / 10), 1))
    results.metric("draws_likeliest", round(100 * float(bits[0]), 1), unit="bits")
    results.metric("draws_typical", round(100 * entropy, 1), unit="bits")
    drawn = shared.multinomial(
        shared.tensor(p.tolist()), 100 * 1000, replacement=True, generator=shared.Generator().manual_seed(seed)
    )
    means = bits[drawn.numpy().reshape(1000, 100)].mean(axis=1)
    results.metric("draws_mean", round(float(means.mean()), 3), unit="bits")
    results.metric("draws_least", round(float(means.min()), 3), unit="bits")
    print(f"  surprise {np.round(bits, 3).tolist()}, entropy {entropy:.4f} ± {spread:.4f} bits")
    print(f"  a thousand times a hundred draws: {means.mean():.3f} on average, the least {means.min():.3f}")


# ---------------------------------------------------------------- texts in colour


def colour_text(axis: Axes, text: str, bits: np.ndarray, top: float, columns: int) -> float:
    """Writes `text` from line `top` on downwards, each character on a ground as dark as it was surprising.

    The last len(bits) characters have a surprise; those before are grey. A line break is a ↵. Returns the next line.
    """
    row, column, first = top, 0, len(text) - len(bits)
    for i, character in enumerate(text):
        if i >= first:
            ground = WARM(min(1.0, bits[i - first] / MOST))
            axis.add_patch(Rectangle((column, row), 1, 1, facecolor=ground, linewidth=0))
        shown = "↵" if character == "\n" else character
        if shown != " ":
            colour = "0.6" if i < first or character == "\n" else "black"
            look = {"ha": "center", "va": "center", "size": 9, "family": "monospace", "color": colour}
            axis.text(column + 0.5, row + 0.56, shown, **look)
        column += 1
        if character == "\n" or column == columns:
            row, column = row + 1, 0
    return row + (column > 0)


def texts_in_colour(passages: list[tuple[str, str, np.ndarray]], columns: int = 64) -> plt.Figure:
    """(title, text, bits) one below the other, with a scale."""
    figure, axis = plt.subplots(figsize=(8.8, 6.2))
    top = 0.0
    for title, text, bits in passages:
        axis.text(0, top + 0.6, f"{title}: {bits.mean():.2f} bits per character", va="center", size=10, weight="bold")
        top = colour_text(axis, text, bits, top + 1.2, columns) + 0.8
    axis.set(xlim=(0, columns), ylim=(top, 0))
    axis.axis("off")
    scale = ScalarMappable(Normalize(0, MOST), WARM)
    figure.colorbar(scale, ax=axis, orientation="horizontal", shrink=0.5, aspect=40, label="surprise (bits)")
    return figure


# ---------------------------------------------------------------- human and likely text


def continuations(model: GPT, tokenizer: Vocabulary, prompts: list[str], seed: int) -> dict[str, list[list[int]]]:
    """What follows each prompt, by each way to choose: {way: B lists of ids}."""
    ids = [tokenizer.encode(prompt) for prompt in prompts]

    def drawn(**settings: float) -> list[list[int]]:
        return generate(model, ids, GenerationConfig(max_new_tokens=NEW, seed=seed, **settings))

    return {
        "beams": [beam_search(model, prompt, num_beams=4, max_new_tokens=NEW)[0].ids for prompt in ids],
        "greedy": drawn(temperature=0.0),
        "cool": drawn(temperature=0.7),
        "drawn": drawn(),
    }


def bits_of(model: GPT, prompt: list[int], new: list[int]) -> np.ndarray:
    """The surprise of each new token, (new,) bits."""
    return surprise(model, prompt + new).numpy()[len(prompt) - 1 :]


TITLES = {
    "real": "Shakespeare",
    "drawn": "drawn, temperature 1",
    "cool": "drawn, temperature 0.7",
    "greedy": "greedy",
    "beams": "4 beams",
}
LOOKS = {"real": "black", "drawn": "blue", "cool": "sky", "greedy": "orange", "beams": "vermillion"}


def smooth(values: np.ndarray, width: int = 8) -> np.ndarray:
    return np.convolve(values, np.ones(width) / width, "valid")


def human_and_likely(model: GPT, tokenizer: Vocabulary, text: str, results: Results, seed: int) -> None:
    """Surprise over the place in the text, of real and of written text; and some of these texts in colour."""
    pieces = windows(text, PROMPTS, PROMPT + NEW)
    ids = [tokenizer.encode(piece) for piece in pieces]
    prompts, written = [row[:PROMPT] for row in ids], {"real": [row[PROMPT:] for row in ids]}
    written |= continuations(model, tokenizer, [piece[:PROMPT] for piece in pieces], seed)
    table = {
        way: np.array([bits_of(model, prompt, new) for prompt, new in zip(prompts, rows, strict=True)])
        for way, rows in written.items()
    }
    for way, bits in table.items():
        results.metric(f"{way}_bits", round(float(bits.mean()), 2), unit="bits")
        results.metric(f"{way}_error", round(float(bits.mean(axis=1).std(ddof=1)) / math.sqrt(PROMPTS), 2), unit="bits")
        results.metric(f"{way}_above_5", round(float((bits > 5).mean()), 4))
        results.metric(f"{way}_last_third", round(float(bits[:, -NEW // 3 :].mean()), 2), unit="bits")
        print(f"  {TITLES[way]:24} {bits.mean():.2f} bits, {(bits > 5).mean():.1%} above 5 bits")
    means = table["real"].mean(axis=1)
    one = int(np.abs(means - means.mean()).argmin())  # the text that is most like the average one
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.9), sharex=True)
    for way in ("real", "beams"):
        left.plot(np.arange(NEW), table[way][one], color=COLORS[LOOKS[way]], linewidth=1.2, label=TITLES[way])
    for way in TITLES:
        right.plot(np.arange(NEW - 7) + 4, smooth(table[way].mean(axis=0)), color=COLORS[LOOKS[way]], label=TITLES[way])
    left.set(title="One text", xlabel="place after the prompt (characters)", ylabel="surprise (bits)")
    right.set(title=f"Mean of {PROMPTS}", xlabel="place after the prompt (characters)")
    left.set_ylim(0, 13)
    left.legend(loc="upper right", fontsize=8, ncols=2)
    right.set_ylim(0, 4)
    right.legend(loc="upper right", fontsize=8, ncols=2)
    results.figure(
        figure,
        "human_and_likely",
        alt="Left: surprise over the place in one text; Shakespeare's has high peaks, the beams' stays low. Right: "
        "means of 32 texts, level lines: Shakespeare highest, then draws at temperature 1 and 0.7, greedy, and beams "
        "lowest.",
    )
    shown = [(TITLES[w], pieces[one][:PROMPT] + tokenizer.decode(written[w][one]), table[w][one]) for w in TITLES]
    results.figure(
        texts_in_colour([row for row in shown if row[0] != TITLES["cool"]]),
        "texts",
        alt="Four texts with the same beginning, each character on a ground from white to red by its surprise: "
        "Shakespeare's and the drawn one have red letters, mostly where words begin, the greedy one and the beams' "
        "none.",
    )


# ---------------------------------------------------------------- sure, and wrong


def honest(model: GPT, tokenizer: Vocabulary, text: str, results: Results) -> plt.Figure:
    """Left: how often the likeliest character is right, over its probability. Right: surprise over entropy."""
    pieces = windows(text, PLACES, 128)
    likeliest, right, found, shifted, expected, contexts = [], [], [], [], [], []
    for first in range(0, len(pieces), 40):
        batch = shared.tensor([tokenizer.encode(piece) for piece in pieces[first : first + 40]])
        with shared.no_grad():
            scores = model(batch)[:, :-1].flatten(0, 1)
        real = batch[:, 1:].flatten()
        p, place = F.softmax(scores, dim=-1).max(dim=-1)
        likeliest += p.tolist()
        right += (place == real).tolist()
        found += (F.cross_entropy(scores, real, reduction="none") / math.log(2)).tolist()
        shifted += (F.cross_entropy(scores, batch[:, :-1].flatten(), reduction="none") / math.log(2)).tolist()
        expected += entropy_of_logits(scores).tolist()
        contexts += [
            (pieces[first + i // 127][: i % 127 + 1], tokenizer.itos[guess], tokenizer.itos[truth])
            for i, (guess, truth) in enumerate(zip(place.tolist(), real.tolist(), strict=True))
        ]
    p, hit, bits, entropy = (np.array(x) for x in (likeliest, right, found, expected))
    results.metric("places", len(p))
    results.metric("mean_surprise", round(float(bits.mean()), 3), unit="bits")
    results.metric("mean_entropy", round(float(entropy.mean()), 3), unit="bits")
    results.metric("shifted_bits", round(float(np.mean(shifted)), 2), unit="bits")
    results.metric("perplexity", round(float(2 ** bits.mean()), 2))
    results.metric("likeliest_right", round(float(hit.mean()), 3))
    results.metric("likeliest_expected", round(float(p.mean()), 3))
    sure = p > 0.95
    results.metric("sure_places", round(float(sure.mean()), 3))
    results.metric("sure_wrong", round(float(1 - hit[sure].mean()), 3))
    results.metric("sure_expected_wrong", round(float(1 - p[sure].mean()), 3))
    results.metric("half_of_bits", round(float((np.cumsum(np.sort(bits)[::-1]) < bits.sum() / 2).mean()), 3))
    print(f"  surprise {bits.mean():.3f}, entropy {entropy.mean():.3f}; right {hit.mean():.3f} of {p.mean():.3f}")
    print(f"  p > 0.95 at {sure.mean():.1%} of places, wrong at {1 - hit[sure].mean():.1%} of these")
    starts = np.array([not before[-1].isalpha() and truth.isalpha() for before, _, truth in contexts])
    inside = np.array([before[-1].isalpha() and truth.isalpha() for before, _, truth in contexts])
    for name, where in (("starts", starts), ("inside", inside)):
        results.metric(f"bits_{name}", round(float(bits[where].mean()), 2), unit="bits")
        print(f"  {name}: {bits[where].mean():.2f} bits at {where.mean():.1%} of places")
    train = shared.data.load("tinyshakespeare", fallback=True)[0].text
    names = {"cur": "\nCUR", "mir": "MIR", "ir": "IR", "irg": "IRG", "katharina": "\nKATHARINA", "king": "\nKING"}
    for name, start in names.items():
        results.metric(f"training_{name}", train.count(start))
        print(f"  {start!r} is {train.count(start)} times in the training text")
    worst = sorted(np.flatnonzero(~hit), key=lambda i: -p[i])[:12]
    for rank, i in enumerate(worst):
        before, guess, truth = contexts[i]
        print(f"    {before[-36:]!r}: expected {guess!r} ({p[i]:.4f}), it was {truth!r}, {bits[i]:.1f} bits")
        results.metric(f"wrong_{rank}_p", round(float(p[i]), 4))
        results.metric(f"wrong_{rank}_bits", round(float(bits[i]), 1), unit="bits")

    figure, (left, other) = plt.subplots(1, 2, figsize=(8.8, 4.0))
    bins = np.array_split(np.argsort(p, kind="stable"), 15)
    left.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    left.plot([p[b].mean() for b in bins], [hit[b].mean() for b in bins], "o-", color=COLORS["blue"])
    left.set(title="Is it right as often as it says?", xlabel="probability of the likeliest character")
    left.set_ylabel("share of places where it came")
    bins = np.array_split(np.argsort(entropy, kind="stable"), 15)
    other.plot([0, 5], [0, 5], color="0.6", linestyle="--", linewidth=1)
    other.plot([entropy[b].mean() for b in bins], [bits[b].mean() for b in bins], "o-", color=COLORS["orange"])
    other.set(title="Is it as surprised as it expects?", xlabel="entropy: expected surprise (bits)")
    other.set_ylabel("surprise by real text (bits)")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    use_style()
    results = Results(__file__, seed=options.seed)
    by_hand(results, options.seed)
    model, tokenizer = kept_model()
    text = validation_text()
    human_and_likely(model, tokenizer, text, results, options.seed)
    results.figure(
        honest(model, tokenizer, text, results),
        "honest",
        alt="Two curves near their diagonals: how often the likeliest character is right over its probability, and the "
        "surprise by real text over the entropy; both lie a little on the side of too much certainty.",
    )
    results.save()


if __name__ == "__main__":
    main()
