"""Note 05: beam search by hand on a table of five words, on a model with right answers, and on open text.

python sprints/10_pretrained_and_generation/results/beams.py          a minute or two of one core
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from kept import kept_model
from table import STOP, THE, WordTable, all_sentences, probability, words
from writing import mean_and_spread, prompts, read_back, repeated, written

from course.plotting import COLORS, use_style
from course.results import Results
from shared.generation import GenerationConfig, generate
from shared.generation.beam import Beam, beam_search
from shared.models import GPT, load_sorter
from shared.models.sorter import LENGTH, LETTERS

BEAMS = (1, 2, 4, 8)
PROMPTS = 24
SENTENCES = ([3, 4], [1, 2, 0, 3, 4], [1, 2, 0, 1, 2, 0, 3, 4])  # what the search on the table chooses between

# ---------------------------------------------------------------- by hand


def by_hand(results: Results) -> None:
    """What greedy, beams and trying everything find in the table."""
    model = WordTable()
    greedy = generate(model, [[THE]], GenerationConfig(max_new_tokens=8, temperature=0, stop_tokens=(STOP,)))[0]
    print(f"  greedy: {words(greedy)} (p {probability(greedy):.4f})")
    for longest in (5, 8):
        for penalty in (0.0, 1.0):
            for beam in beam_search(model, [THE], 2, longest, penalty, (STOP,), num_return=2):
                p = math.exp(beam.log_prob)
                print(
                    f"  at most {longest}, penalty {penalty:g}: {words(beam.ids)} (p {p:.4f}, score {beam.score:.3f})"
                )
    sentences = all_sentences(8)
    results.metric("table_sentences", len(sentences))
    results.metric("table_sentences_mass", round(sum(p for _, p in sentences), 4))
    print(f"  {len(sentences)} sentences of at most 8 words; the likeliest: {words(sentences[0][0])}")


def tree() -> plt.Figure:
    """The search with two beams over five words, as drawn in the note."""
    figure, axis = plt.subplots(figsize=(9.6, 4.4))
    axis.axis("off")
    places = {(): (0.0, 2.0)}
    rows = [
        {(1,): 3.0, (3,): 1.0},
        {(1, 2): 3.0, (3, 4): 0.4, (1, 4): 2.1, (3, 2): 1.3},
        {(1, 2, 0): 3.0, (3, 2, 0): 1.3, (1, 2, 4): 2.1},
        {(1, 2, 0, 1): 3.4, (1, 2, 0, 3): 2.4, (3, 2, 0, 1): 1.3},
        {(1, 2, 0, 1, 2): 3.6, (1, 2, 0, 3, 4): 2.4, (1, 2, 0, 1, 4): 3.0},
    ]
    kept = {(), (1,), (3,), (1, 2), (3, 2), (1, 2, 0), (3, 2, 0), (1, 2, 0, 1), (1, 2, 0, 3)}
    aside = {(3, 4), (1, 2, 0, 3, 4), (1, 2, 0, 1, 2)}
    for step, row in enumerate(rows, start=1):
        for ids, y in row.items():
            places[ids] = (1.9 * step, y)
    for ids, (x, y) in places.items():
        colour = COLORS["blue"] if ids in kept else COLORS["green"] if ids in aside else "0.55"
        if ids:
            x0, y0 = places[ids[:-1]]
            axis.plot([x0 + 0.42, x - 0.42], [y0, y], color=colour, linewidth=1.6 if colour != "0.55" else 0.9)
        label = words([ids[-1] if ids else THE])
        axis.text(
            x,
            y,
            label,
            ha="center",
            va="center",
            fontsize=12,
            color=colour,
            fontweight="bold" if ids in kept | aside else None,
        )
        if ids:
            axis.text(x, y - 0.24, f"{probability(list(ids)):.3g}", ha="center", va="center", fontsize=9, color=colour)
    for i, (colour, text) in enumerate(
        ((COLORS["blue"], "goes on"), (COLORS["green"], "put aside: a result"), ("0.55", "dropped"))
    ):
        axis.text(0.2 + 2.6 * i, -0.25, text, color=colour, fontsize=10, fontweight="bold")
    axis.set(xlim=(-0.5, 10.1), ylim=(-0.45, 3.95))
    return figure


def penalties() -> plt.Figure:
    """Scores of three sentences over the length penalty, each divided by the shortest one's: below 1 is better."""
    alphas = np.linspace(0.6, 1.2, 100)
    figure, axis = plt.subplots(figsize=(7.0, 3.6))
    looks = zip(SENTENCES, (COLORS["blue"], COLORS["vermillion"], COLORS["green"]), ("-", "--", ":"), strict=True)
    shortest = math.log(probability(SENTENCES[0])) / len(SENTENCES[0]) ** alphas
    for ids, colour, style in looks:
        score = math.log(probability(ids)) / len(ids) ** alphas
        axis.plot(alphas, score / shortest, style, color=colour, label=f"the {words(ids)}")
    axis.set(title="Which sentence is best? The lowest curve", xlabel="length penalty α", xlim=(0.6, 1.2))
    axis.set_ylabel('score / score of "the man ."')
    axis.legend()
    return figure


# ---------------------------------------------------------------- a model with right answers


def sorter(results: Results, seed: int) -> None:
    """Fifty words of six letters, sorted by a trained model: by greedy choice and by four beams."""
    model, rng = load_sorter(), np.random.default_rng(seed)
    config = GenerationConfig(max_new_tokens=LENGTH, temperature=0)
    right, mass, same = {"greedy": 0, "beams": 0}, [], 0
    rows = rng.integers(0, len(LETTERS), (50, LENGTH)).tolist()
    for row in rows:
        greedy = generate(model, [row], config)[0]
        beams = beam_search(model, row, 4, LENGTH)
        right["greedy"] += greedy == sorted(row)
        right["beams"] += beams[0].ids == sorted(row)
        same += greedy == beams[0].ids
        mass.append(math.exp(beams[0].log_prob))
    for name, number in right.items():
        results.metric(f"sorter_{name}_right", number / len(rows))
    results.metric("sorter_best_mass", round(float(np.median(mass)), 4))
    results.metric("sorter_best_mass_least", round(min(mass), 4))
    results.metric("sorter_same", same / len(rows))
    print(f"  sorter: right {right}, the best has p {np.median(mass):.4f} (median)")


# ---------------------------------------------------------------- open text


def searched(
    model: GPT, starts: list[list[int]], new: int, beams: int, number: int = 1, **changes: Any
) -> list[list[Beam]]:
    """For each prompt the `number` best texts of so many new ids."""
    return [beam_search(model, start, beams, new, num_return=number, **changes) for start in starts]


def open_text(model: GPT, tokenizer: Any, results: Results, seed: int) -> plt.Figure:
    """What more beams find after speeches of Shakespeare: likelier text, and what kind of text."""
    starts, real = prompts(tokenizer, PROMPTS)
    new = len(real[0])
    texts = {"real": real, "drawn": written(model, starts, GenerationConfig(max_new_tokens=new, seed=seed))}
    for beams in BEAMS:
        found = searched(model, starts, new, beams, number=beams)
        texts[f"beams_{beams}"] = [rows[0].ids for rows in found]
        if beams == 4:
            texts["four"] = [beam.ids for rows in found for beam in rows]
            heads = [common([beam.ids for beam in rows]) for rows in found]
            masses = [sum(math.exp(beam.log_prob) for beam in rows) for rows in found]
            results.metric("four_common", round(float(np.median(heads)), 0), unit="characters")
            results.metric("four_mass_log10", round(float(np.median(np.log10(masses))), 1))
    four = texts.pop("four")
    results.metric("four_pairs_alike", round(alike(four, 4), 3))
    rows = {}
    for name, ids in texts.items():
        bits = read_back(model, starts, ids)[0].mean(1)
        rows[name] = (bits, repeated(ids))
        for what, values in zip(("bits", "repeated"), rows[name], strict=True):
            mean, spread = mean_and_spread(values)
            results.metric(f"open_{name}_{what}", round(mean, 3), unit="bits" if what == "bits" else "")
            results.metric(f"open_{name}_{what}_sd", round(spread, 3), unit="bits" if what == "bits" else "")
        print(
            f"  {name:8} {bits.mean():.3f} bits, {rows[name][1].mean():.1%} repeated: {tokenizer.decode(ids[0])!r}",
            flush=True,
        )
    results.metric("beams_4_beat_greedy", float(np.mean(rows["beams_4"][0] < rows["beams_1"][0])))
    results.metric("beams_8_beat_4", float(np.mean(rows["beams_8"][0] < rows["beams_4"][0])))
    sample = tokenizer.decode(texts["beams_4"][0])
    results.metric("beams_4_sample", sample)
    return compared(rows)


def common(texts: list[list[int]]) -> int:
    """So many ids all texts have in common at their beginning.

    >>> common([[1, 2, 3], [1, 2, 4]])
    2
    """
    for i, column in enumerate(zip(*texts, strict=False)):
        if len(set(column)) > 1:
            return i
    return min(len(text) for text in texts)


def alike(texts: list[list[int]], group: int) -> float:
    """The share of places at which two texts of the same prompt have the same id, over all pairs."""
    shares = []
    for start in range(0, len(texts), group):
        rows = np.array(texts[start : start + group])
        shares += [float((rows[i] == rows[j]).mean()) for i in range(group) for j in range(i)]
    return float(np.mean(shares))


def compared(rows: dict[str, tuple[np.ndarray, np.ndarray]]) -> plt.Figure:
    """Each prompt a dot: surprise and repetition of real text, of a draw, and of 1 to 8 beams."""
    names = {"real": "real text", "drawn": "drawn"} | {
        f"beams_{b}": "greedy" if b == 1 else f"{b} beams" for b in BEAMS
    }
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), sharey=True)
    titles = (("Surprise, to the model itself", "bits per character"), ("Repeated groups of 8 characters", "share (%)"))
    rng = np.random.default_rng(0)
    for column, (axis, (title, label)) in enumerate(zip(axes, titles, strict=True)):
        for place, name in enumerate(names):
            values = rows[name][column] * (100 if column else 1)
            colour = COLORS["green"] if name == "real" else COLORS["sky"] if name == "drawn" else COLORS["blue"]
            axis.plot(values, place + rng.uniform(-0.2, 0.2, len(values)), ".", color=colour, alpha=0.45, markersize=6)
            axis.plot(values.mean(), place, "|", color="black", markersize=18, markeredgewidth=2)
        axis.set(title=title, xlabel=label, xlim=(0, None))
    axes[0].set_yticks(range(len(names)), list(names.values()))
    axes[0].invert_yaxis()
    return figure


def lines(model: GPT, tokenizer: Any, results: Results) -> None:
    """How long a line of verse becomes with each length penalty, if the search may end it."""
    starts, _ = prompts(tokenizer, PROMPTS)
    newline = tokenizer.encode("\n")[0]
    for penalty in (0.0, 1.0, 2.0):
        found = searched(model, starts, 70, 4, length_penalty=penalty, stop_tokens=(newline,))
        lengths = [len(rows[0].ids) for rows in found]
        mean, spread = mean_and_spread(lengths)
        results.metric(f"line_{penalty:g}", round(mean, 1), unit="characters")
        results.metric(f"line_{penalty:g}_sd", round(spread, 1), unit="characters")
        results.metric(
            f"line_{penalty:g}_unended", round(float(np.mean([rows[0].ids[-1] != newline for rows in found])), 3)
        )
        print(f"  length penalty {penalty:g}: {mean:.1f} ± {spread:.1f} characters to the end of the line")
    drawn = generate(model, starts, GenerationConfig(max_new_tokens=70, stop_tokens=(newline,), seed=0))
    results.metric("line_drawn", round(float(np.mean([len(ids) for ids in drawn])), 1), unit="characters")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seed)
    by_hand(results)
    results.figure(
        tree(),
        "beam_tree",
        alt="A tree of words after the: two branches go on at each step. Results are 'man .', 'dog bit the man .' and "
        "'dog bit the dog bit'; grey branches are dropped.",
    )
    results.figure(
        penalties(),
        "length_penalty",
        alt="Scores of three sentences against the length penalty, relative to that of the short one. The short one is "
        "best below 0.84, the sentence of five words up to 0.91, the one with a loop above that.",
    )
    sorter(results, args.seed)
    model, tokenizer = kept_model()
    results.figure(
        open_text(model, tokenizer, results, args.seed),
        "beams_open",
        alt="Two panels of dots, one for each prompt. Real and drawn text surprise the model most and hardly repeat; "
        "greedy text and that of 2, 4 and 8 beams surprise it less and repeat themselves.",
    )
    lines(model, tokenizer, results)
    results.save()


if __name__ == "__main__":
    main()
