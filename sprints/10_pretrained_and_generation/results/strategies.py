"""Note 06: ways to choose the next character side by side, on the same prompts: surprise, repetition, words.

python sprints/10_pretrained_and_generation/results/strategies.py          a minute of one core
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from drafts import NGrams, texts
from kept import kept_model
from writing import (
    different_words,
    known_words,
    mean_and_spread,
    pooled,
    prompts,
    read_back,
    repeated,
    word_list,
    written,
)

from course.plotting import COLORS, use_style
from course.results import Results
from shared.generation import GenerationConfig
from shared.generation.beam import beam_search
from shared.models import GPT

PROMPTS, BEAMS = 24, 4
STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {  # name of the metrics: name to read, settings
    "greedy": ("greedy", {"temperature": 0.0}),
    "beams": ("4 beams", {"beams": BEAMS}),
    "greedy_penalty": ("greedy, repetition penalty 1.3", {"temperature": 0.0, "repetition_penalty": 1.3}),
    "greedy_ngrams": ("greedy, no 8 characters twice", {"temperature": 0.0, "no_repeat_ngram_size": 8}),
    "cold": ("temperature 0.5", {"temperature": 0.5}),
    "cool": ("temperature 0.8", {"temperature": 0.8}),
    "plain": ("temperature 1", {}),
    "warm": ("temperature 1.3", {"temperature": 1.3}),
    "top_k": ("top-k, 5", {"top_k": 5}),
    "nucleus": ("nucleus, 0.9", {"top_p": 0.9}),
    "min_p": ("min-p, 0.1", {"min_p": 0.1}),
    "real": ("real text", {}),
}
MEASURES = {  # name of the metrics: title, axis, factor
    "surprise": ("Surprise to the model", "bits per character", 1),
    "ngram": ("Surprise to counted 5-grams", "bits per character", 1),
    "entropy": ("The model's uncertainty", "entropy, bits", 1),
    "repeated": ("Repeated groups of 8", "share (%)", 100),
    "different": ("Different words of its words", "share (%)", 100),
    "known": ("Words that are words", "share (%)", 100),
}


def write(model: GPT, starts: list[list[int]], new: int, settings: dict[str, Any], seed: int) -> list[list[int]]:
    """What follows each prompt, `new` ids each."""
    if "beams" in settings:
        return [beam_search(model, start, settings["beams"], new)[0].ids for start in starts]
    return written(model, starts, GenerationConfig(max_new_tokens=new, seed=seed, **settings))


def measured(
    model: GPT, tokenizer: Any, judge: NGrams, known: set[str], starts: Any, ids: Any
) -> dict[str, np.ndarray]:
    """Each measure for each text: (B,)."""
    surprise, entropy = read_back(model, starts, ids)
    return {
        "surprise": surprise.mean(1),
        "ngram": np.array([judge.bits(start, text).mean() for start, text in zip(starts, ids, strict=True)]),
        "entropy": entropy.mean(1),
        "repeated": repeated(ids),
        "different": different_words(ids, tokenizer),
        "known": known_words(ids, tokenizer, known),
    }


def compared(rows: dict[str, dict[str, np.ndarray]]) -> plt.Figure:
    """A panel for each measure, a line for each strategy: a dot for each prompt, bars at means, real text's dashed."""
    figure, axes = plt.subplots(2, 3, figsize=(11.5, 8.2), sharey=True)
    rng = np.random.default_rng(0)
    for axis, (measure, (title, label, factor)) in zip(axes.flat, MEASURES.items(), strict=True):
        for place, name in enumerate(STRATEGIES):
            values = factor * rows[name][measure]
            colour = COLORS["green"] if name == "real" else COLORS["blue"]
            axis.plot(values, place + rng.uniform(-0.22, 0.22, len(values)), ".", color=colour, alpha=0.4, markersize=5)
            axis.plot(values.mean(), place, "|", color="black", markersize=14, markeredgewidth=2)
        axis.axvline(factor * rows["real"][measure].mean(), color=COLORS["green"], linestyle="--", linewidth=1)
        axis.set(title=title, xlabel=label, xlim=(0, None))
    axes[0, 0].set_yticks(range(len(STRATEGIES)), [name for name, _ in STRATEGIES.values()])
    axes[0, 0].invert_yaxis()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seed)
    model, tokenizer = kept_model()
    judge, known = NGrams.of_shakespeare(tokenizer, 5), set(word_list(texts()[0]))
    starts, real = prompts(tokenizer, PROMPTS)
    results.metric("compared_prompts", PROMPTS)
    rows = {}
    for name, (label, settings) in STRATEGIES.items():
        ids = real if name == "real" else write(model, starts, len(real[0]), settings, args.seed)
        rows[name] = measured(model, tokenizer, judge, known, starts, ids)
        for measure, values in rows[name].items():
            mean, spread = mean_and_spread(values)
            unit = "bits" if measure in ("surprise", "ngram", "entropy") else ""
            results.metric(f"{name}_{measure}", round(mean, 3), unit=unit)
            results.metric(f"{name}_{measure}_sd", round(spread, 3), unit=unit)
        results.metric(f"{name}_pooled", round(pooled(ids), 3))
        means = ", ".join(f"{measure} {values.mean():.3f}" for measure, values in rows[name].items())
        print(f"{label:32}{means}, pooled {pooled(ids):.3f}\n    {tokenizer.decode(ids[0])!r}", flush=True)
    results.figure(
        compared(rows),
        "strategies",
        alt="Six panels with a line of dots for each of eleven strategies and real text, a dot for each prompt: "
        "surprise, surprise to 5-grams, entropy, repetition, different words, known words.",
    )
    results.save()


if __name__ == "__main__":
    main()
