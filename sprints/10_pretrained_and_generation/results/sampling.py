"""Note 02: one distribution under each way of choosing, what filters keep on real text, loops, and temperature.

python sprints/10_pretrained_and_generation/results/sampling.py      about a minute of one core
"""

from __future__ import annotations

import argparse
import re

import matplotlib.pyplot as plt
import numpy as np
from kept import kept_model, validation_text, windows
from sentence import SURE, WORDS, ids, kept, logits

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor
from shared.generation import GenerationConfig, generate, process, processors
from shared.generation.measures import entropy_of_logits, repetition, surprise
from shared.models import GPT
from shared.nn import functional as F
from shared.text.vocabulary import Vocabulary

PROMPTS, PROMPT, NEW = 32, 32, 384  # prompts, their characters, and how many each is continued by
GROUP = 12  # characters: a group that comes again is no accident, but two words or three
TEMPERATURES = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5)

# ---------------------------------------------------------------- six words


def changed() -> list[tuple[str, str, Tensor]]:
    """(short name, title, new logits (1, 6)) of each way to change the six words' scores."""
    scores, seen = logits(), [ids("the dog bit the")]
    return [
        ("as_it_is", "as the model says", scores),
        ("cold", "temperature 0.5", processors.temperature(scores, 0.5)),
        ("hot", "temperature 2", processors.temperature(scores, 2.0)),
        ("top_k", "top-k, k = 2", processors.top_k(scores, 2)),
        ("top_p", "top-p, p = 0.8", processors.top_p(scores, 0.8)),
        ("min_p", "min-p, p = 0.1", processors.min_p(scores, 0.1)),
        ("repetition", "repetition penalty 2", processors.repetition_penalty(scores, seen, 2.0)),
        ("frequency", "frequency penalty 1", processors.frequency_penalty(scores, seen, 1.0)),
        ("ngrams", "no 2-gram twice", processors.no_repeat_ngrams(scores, seen, 2)),
    ]


def by_hand(results: Results) -> plt.Figure:
    """The six words' probabilities under each, to metrics and as bars."""
    rows = changed()
    figure, axes = plt.subplots(3, 3, figsize=(8.6, 6.0), sharey=True)
    before = F.softmax(rows[0][2], dim=-1)[0].tolist()
    for axis, (short, title, scores) in zip(axes.flat, rows, strict=True):
        p = F.softmax(scores, dim=-1)[0].tolist()
        axis.bar(range(6), p, width=0.8, color=COLORS["blue"] if short == "as_it_is" else COLORS["orange"])
        axis.bar(range(6), before, width=0.8, facecolor="none", edgecolor="0.4", linewidth=0.8, zorder=3)
        for i, value in enumerate(p):
            if value == 0:
                axis.text(i, 0.02, "×", ha="center", va="bottom", color=COLORS["vermillion"], fontsize=13)
        axis.set(title=title, ylim=(0, 0.9))
        axis.set_xticks(range(6), WORDS, rotation=45, fontsize=9)
        axis.grid(visible=False, axis="x")
        bits = entropy_of_logits(scores).item()
        axis.text(5.4, 0.82, f"{bits:.2f} bits", ha="right", fontsize=9, color="0.3")
        for word, value in zip(WORDS, p, strict=True):
            results.metric(f"six_{short}_{word}", round(value, 4))
        results.metric(f"six_{short}_entropy", round(bits, 4), unit="bits")
        print(f"  {title:22} {[round(v, 3) for v in p]}, {bits:.3f} bits, keeps {kept(scores)}")
    for axis in axes[:, 0]:
        axis.set_ylabel("probability")
    return figure


def by_hand_rest(results: Results) -> None:
    """Sums of the nucleus, the sure place, orders exchanged, and five added to all scores."""
    total = 0.0
    for word, value in zip(WORDS, F.softmax(logits(), dim=-1)[0].tolist(), strict=True):
        total += value
        results.metric(f"six_sum_{word}", round(total, 4))
    sure = F.softmax(logits(SURE), dim=-1)[0].tolist()
    results.metric("sure_the", round(sure[5], 4))
    results.metric("sure_man", round(sure[0], 4))
    results.metric("sure_entropy", round(entropy_of_logits(logits(SURE)).item(), 3), unit="bits")
    hot_first = process(logits(), [[]], [[]], GenerationConfig(temperature=2.0, top_p=0.8))
    hot_last = processors.temperature(processors.top_p(logits(), 0.8), 2.0)
    print(f"  hot, then the nucleus: {kept(hot_first)}; the nucleus, then hot: {kept(hot_last)}")
    results.metric("hot_then_top_p", len(kept(hot_first)))
    results.metric("top_p_then_hot", len(kept(hot_last)))
    for added in (0, 5):
        raised = processors.repetition_penalty(logits() + added, [ids("the dog bit the")], 2.0)
        p = F.softmax(raised, dim=-1)[0].tolist()
        results.metric(f"raised_{added}_dog", round(p[1], 4))
        results.metric(f"raised_{added}_the", round(p[5], 5))
        print(f"  {added} added to all scores, then the repetition penalty: dog {p[1]:.4f}, the {p[5]:.5f}")


# ---------------------------------------------------------------- what filters keep


def filters(model: GPT, tokenizer: Vocabulary, pieces: list[str], results: Results) -> plt.Figure:
    """How many of the 65 characters stay, over how unsure the model is; and how often the real one is cut off."""
    batch = shared.tensor([tokenizer.encode(piece) for piece in pieces])
    with shared.no_grad():
        scores = model(batch)[:, :-1].flatten(0, 1)  # (places, V)
    real = batch[:, 1:].flatten().numpy()
    bits = entropy_of_logits(scores).numpy()
    ways = {
        "top-k, k = 10": processors.top_k(scores, 10),
        "top-p, p = 0.9": processors.top_p(scores, 0.9),
        "min-p, p = 0.1": processors.min_p(scores, 0.1),
    }
    order = np.argsort(bits, kind="stable")
    bins = np.array_split(order, 16)
    figure, axis = plt.subplots(figsize=(7.4, 4.0))
    colours = (COLORS["blue"], COLORS["orange"], COLORS["green"])
    for (name, left), colour, mark in zip(ways.items(), colours, "os^", strict=True):
        stays = (left > -float("inf")).numpy()
        count = stays.sum(axis=1)
        axis.plot([bits[b].mean() for b in bins], [count[b].mean() for b in bins], mark + "-", color=colour, label=name)
        short = name[:5].replace("-", "_")
        lost = 1 - stays[np.arange(len(real)), real].mean()
        results.metric(f"filter_{short}_kept", round(float(count.mean()), 2))
        results.metric(f"filter_{short}_kept_sure", round(float(count[bins[0]].mean()), 2))
        results.metric(f"filter_{short}_kept_unsure", round(float(count[bins[-1]].mean()), 2))
        results.metric(f"filter_{short}_cut", round(float(lost), 4))
        print(f"  {name}: keeps {count.mean():.2f} characters, cuts the real one off in {lost:.1%}")
    results.metric("filter_places", len(real))
    tail = F.softmax(scores, dim=-1).masked_fill(ways["top-k, k = 10"] > -float("inf"), 0.0).sum(-1)
    results.metric("tail_after_10", round(tail.mean().item(), 4))
    axis.set(title="How many characters may be drawn", xlabel="entropy of the model's distribution (bits)")
    axis.set_ylabel("characters kept, of 65 (mean)")
    axis.set_ylim(0)
    axis.legend()
    return figure


# ---------------------------------------------------------------- loops


def words_in(text: str) -> list[str]:
    """Runs of letters, with the apostrophe in "'tis" and "o'er", in lower case, without the first and last: both may
    be cut.
    """
    return re.findall(r"[a-z']*[a-z][a-z']*", text.lower())[1:-1]


def known_share(texts: list[str], known: set[str]) -> float:
    """The share of all words in the texts that are in `known`."""
    words = [word for text in texts for word in words_in(text)]
    return sum(word in known for word in words) / len(words)


def continued(model: GPT, tokenizer: Vocabulary, prompts: list[str], **settings: object) -> list[str]:
    """Each prompt's continuation by `NEW` characters."""
    config = GenerationConfig(**({"max_new_tokens": NEW} | settings))
    return [tokenizer.decode(row) for row in generate(model, [tokenizer.encode(p) for p in prompts], config)]


def mean_repetition(texts: list[str], length: int = NEW) -> float:
    """The share of groups of `GROUP` characters that stood in the same text before, mean over the texts."""
    return float(np.mean([repetition(text[:length], GROUP) for text in texts]))


def read_again(model: GPT, tokenizer: Vocabulary, lines: list[str]) -> np.ndarray:
    """Mean surprise in bits per character of lines, each read three times in a row: (3,)."""
    rows = [surprise(model, tokenizer.encode("\n" + 3 * line)).numpy().reshape(3, -1).mean(axis=1) for line in lines]
    return np.mean(rows, axis=0)


def shared_groups(texts: list[str], step: int) -> list[float]:
    """Of the groups of `GROUP` characters that begin in each stretch of `step`, the share that another text has too."""
    sets = [{text[i : i + GROUP] for i in range(len(text) - GROUP + 1)} for text in texts]
    found = []
    for start in range(0, NEW - GROUP - step + 1, step):
        hits = [
            any(text[i : i + GROUP] in other for other in sets if other is not sets[row])
            for row, text in enumerate(texts)
            for i in range(start, start + step)
        ]
        found.append(float(np.mean(hits)))
    return found


def loops(greedy: list[str], drawn: dict[str, list[str]], real: list[str], results: Results) -> plt.Figure:
    """Left: repetition over the length of the text. Right: what texts that began differently have in common."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.9))
    lengths, step = np.arange(24, NEW + 1, 24), 31
    lines = {"greedy": greedy, **drawn, "Shakespeare": real}
    looks = ("o-", "s-", "^-", "--")
    colours = (COLORS["vermillion"], COLORS["orange"], COLORS["blue"], COLORS["black"])
    for (name, texts), look, colour in zip(lines.items(), looks, colours, strict=True):
        shares = [100 * mean_repetition(texts, n) for n in lengths]
        left.plot(lengths, shares, look, color=colour, markersize=3.5, label=name)
        common = shared_groups(texts, step)
        places = np.arange(len(common)) * step + step / 2
        right.plot(places, [100 * c for c in common], look, color=colour, markersize=3.5)
        short = name.lower().replace(" ", "_").replace(".", "_")
        results.metric(f"common_{short}_first", round(common[0], 4))
        results.metric(f"common_{short}", round(float(np.mean(common[1:])), 4))
        print(f"  in common with another text, {name}: {[round(c, 3) for c in common]}")
    left.set(title="Greedy text repeats itself", xlabel="characters written", ylabel=f"{GROUP}-grams seen before (%)")
    right.set(title="and other greedy texts", xlabel="place in the text (characters)")
    right.set_ylabel(f"{GROUP}-grams that another text has (%)")
    left.set_ylim(-2, 100)
    right.set_ylim(-2, 100)
    left.legend()
    return figure


def temperatures(rows: list[tuple[float, float, float]], real: tuple[float, float]) -> plt.Figure:
    """Repetition and known words over the temperature, with the levels of real text."""
    figure, axis = plt.subplots(figsize=(7.4, 4.0))
    t, repeated, known = np.array(rows).T
    axis.plot(t, 100 * known, "s-", color=COLORS["blue"], label="words that are words")
    axis.plot(t, 100 * repeated, "o-", color=COLORS["vermillion"], label=f"{GROUP}-grams seen before")
    axis.axhline(100 * real[1], color=COLORS["blue"], linestyle="--", linewidth=1)
    axis.axhline(100 * real[0], color=COLORS["vermillion"], linestyle="--", linewidth=1)
    axis.set(title="Loops on one side, noise on the other", xlabel="temperature", ylabel="share (%)", ylim=(-3, 103))
    axis.legend(loc="center")
    return figure


def write(results: Results, seed: int) -> None:
    """Everything that lets the kept model write."""
    model, tokenizer = kept_model()
    text = validation_text()
    train_text = shared.data.load("tinyshakespeare", fallback=True)[0].text
    known = set(re.findall(r"[a-z']*[a-z][a-z']*", train_text.lower()))
    for name, settings in (("greedy", {"temperature": 0.0}), ("drawn", {"seed": seed})):
        sample = continued(model, tokenizer, ["ROMEO:\n"], max_new_tokens=190, **settings)[0]
        results.metric(f"sample_{name}", sample)
        print(f"  ROMEO, {name}: {sample!r}")
    results.figure(
        filters(model, tokenizer, windows(text, 32, 128), results),
        "filters",
        alt="Characters kept over the entropy in bits: top-k is a level line at ten, top-p and min-p rise from one to "
        "nineteen, min-p below top-p until the end.",
    )
    pieces = windows(text, PROMPTS, PROMPT + NEW)
    prompts, real = [piece[:PROMPT] for piece in pieces], [piece[PROMPT:] for piece in pieces]
    rows, written = [], {}
    for t in TEMPERATURES:
        written[t] = continued(model, tokenizer, prompts, temperature=t, seed=seed)
        rows.append((t, mean_repetition(written[t]), known_share(written[t], known)))
        short = str(t).replace(".", "_")
        results.metric(f"written_{short}_repeated", round(rows[-1][1], 4))
        results.metric(f"written_{short}_known", round(rows[-1][2], 4))
        print(f"  temperature {t}: {rows[-1][1]:.1%} repeated, {rows[-1][2]:.1%} known; {written[t][0][:60]!r}")
    real_rows = (mean_repetition(real), known_share(real, known))
    results.metric("written_real_repeated", round(real_rows[0], 4))
    results.metric("written_real_known", round(real_rows[1], 4))
    print(f"  Shakespeare: {real_rows[0]:.1%} repeated, {real_rows[1]:.1%} known")
    for n in (48, 96, 192, NEW):
        results.metric(f"greedy_repeated_{n}", round(mean_repetition(written[0.0], n), 4))
    again = [c in piece[: PROMPT + i] for piece in pieces for i, c in enumerate(piece[PROMPT:]) if i >= NEW // 2]
    results.metric("letters_seen_before", round(float(np.mean(again)), 4))
    cures = {
        "penalty": {"temperature": 0.0, "repetition_penalty": 1.2},
        "blocked": {"temperature": 0.0, "no_repeat_ngram_size": GROUP},
        "top_p": {"top_p": 0.9, "seed": seed},
        "min_p": {"min_p": 0.1, "seed": seed},
    }
    for name, settings in cures.items():
        texts = continued(model, tokenizer, prompts, **settings)
        found = mean_repetition(texts), known_share(texts, known)
        results.metric(f"cure_{name}_repeated", round(found[0], 4))
        results.metric(f"cure_{name}_known", round(found[1], 4))
        print(f"  {name} {settings}: {found[0]:.1%} repeated, {found[1]:.1%} known; {texts[0][:90]!r}")
    lines = [line + "\n" for line in text.split("\n") if 24 <= len(line) <= 31][::4]
    thrice = read_again(model, tokenizer, lines[:64])
    for i, bits in enumerate(thrice, start=1):
        results.metric(f"again_{i}", round(float(bits), 2), unit="bits")
    print(f"  {len(lines[:64])} lines read three times: {np.round(thrice, 3).tolist()} bits a character")
    drawn = {"temperature 0.5": written[0.5], "temperature 1": written[1.0]}
    results.figure(
        loops(written[0.0], drawn, real, results),
        "loops",
        alt="Left: the share of groups of 12 characters that stood in the text before, over the length: greedy text "
        "rises to 45%, temperatures 0.5 and 1 and Shakespeare stay near zero. Right: the share of groups that a text "
        "with another beginning has too: greedy above 90%, temperature 0.5 below 10%, the others below 5%.",
    )
    results.figure(
        temperatures(rows, real_rows),
        "temperature",
        alt="Over temperatures from 0 to 1.5: repeated groups fall from 45% to nearly none at 0.3, and words that are "
        "words fall from all to little more than half; dashed lines are the levels of Shakespeare.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    use_style()
    results = Results(__file__, seed=options.seed)
    results.figure(
        by_hand(results),
        "one_distribution",
        alt="Nine bar charts of the probabilities of man, dog, bone, cat, moon and the: as the model says, colder, "
        "hotter, the first two, three or four words only, and with dog and the made less likely or forbidden.",
    )
    by_hand_rest(results)
    write(results, options.seed)
    results.save()


if __name__ == "__main__":
    main()
