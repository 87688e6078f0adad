"""Note 06: speculative decoding by hand, its distribution, how many tokens a pass brings, and where it saves time.

python sprints/10_pretrained_and_generation/results/speculation.py    two or three minutes of one core, 1 GB

Times on the kept model and on its larger twin (drafts.enlarged): the same probabilities, so the same acceptance, at
the cost of twelve blocks of GPT-2's width. Seconds of the processor.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from drafts import NGrams, enlarged, kept_draft
from kept import kept_model
from writing import prompts

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.generation import GenerationConfig, generate
from shared.generation.speculative import (
    Reader,
    accept,
    acceptance_probability,
    expected_tokens,
    residual,
    speculate,
)
from shared.models import GPT
from shared.nn import functional as F

SEED = 0
P, Q = (0.5, 0.3, 0.2), (0.3, 0.6, 0.1)  # man, dog, bone: the large model's probabilities, and the draft's
LOOKAHEADS = (1, 3, 5, 7)
DRAFTS = {"five": "5-grams", "three": "3-grams", "small": "GPT of two blocks"}


def by_hand(results: Results, draws: int = 60_000) -> None:
    """The three words of the note, and how often each comes out of so many rounds."""
    p, q, generator = shared.tensor(P), shared.tensor(Q), shared.Generator().manual_seed(SEED)
    both, counts, kept = shared.tensor([P, P]), np.zeros(3), 0
    proposals = shared.multinomial(q, draws, replacement=True, generator=generator).tolist()
    for token in proposals:
        number, chosen = accept(both, [q], [token], generator)
        kept += number
        counts[token if number else chosen] += 1
    results.metric("hand_acceptance", round(acceptance_probability(p, q).item(), 4))
    results.metric("hand_accepted", round(kept / draws, 4))
    expected = draws * np.array(P)
    results.metric("hand_chi_squared", round(float(((counts - expected) ** 2 / expected).sum()), 2))
    for name, share in zip(("man", "dog", "bone"), counts / draws, strict=True):
        results.metric(f"hand_{name}", round(float(share), 4))
    rest = [round(x, 4) for x in residual(p, q).tolist()]
    print(f"  by hand: accepted {kept / draws:.4f}, came out {counts / draws}, residual {rest}")


def drafts(tokenizer: Any) -> dict[str, Any]:
    return {
        "five": NGrams.of_shakespeare(tokenizer, 5),
        "three": NGrams.of_shakespeare(tokenizer, 3),
        "small": kept_draft(),
    }


def run(model: GPT, draft: Any, starts: list[list[int]], config: GenerationConfig, lookahead: int) -> dict[str, float]:
    """Acceptance rate, tokens of a round, milliseconds for a token, and how many times as fast as without the draft.

    After every other prompt the model writes alone, so that both times are measured under the same load.
    """
    generator = shared.Generator().manual_seed(SEED)  # one for all: with a seed for each they would draw alike
    found, seconds, alone, written = [], 0.0, 0.0, 0
    for i, prompt in enumerate(starts):
        begin = time.process_time()
        found.append(speculate(model, draft, prompt, config, lookahead, generator))
        seconds += time.process_time() - begin
        if i % 2:
            begin = time.process_time()
            written += len(generate(model, [prompt], config, generator=generator)[0])
            alone += time.process_time() - begin
    tokens = sum(len(r.ids) for r in found)
    return {
        "accepted": sum(r.accepted for r in found) / sum(r.proposed for r in found),
        "tokens": tokens / sum(r.rounds for r in found),
        "ms": 1e3 * seconds / tokens,
        "plain_ms": 1e3 * alone / written,
        "faster": (alone / written) / (seconds / tokens),
    }


def first_acceptance(model: GPT, draft: Any, starts: list[list[int]], real: list[list[int]]) -> np.ndarray:
    """Σ min(p, q) at each place of real text: (B · new,)."""
    draft = draft if hasattr(draft, "next_logits") else Reader(draft)
    found = []
    for start, text in zip(starts, real, strict=True):
        draft.crop(0)
        ids = (start + text)[: model.config.block_size]
        with shared.no_grad():
            p = F.softmax(model(shared.tensor([ids]))[0], dim=-1)
        q = [F.softmax(draft.next_logits(ids[: i + 1]), dim=-1)[0] for i in range(len(ids))]
        found += acceptance_probability(p, shared.stack(q))[len(start) - 1 :].tolist()
    return np.array(found)


def measured(name: str, draft: str, lookahead: int, row: dict[str, float], results: Results) -> dict[str, float]:
    """Records and prints a row, and returns it."""
    for what, value in row.items():
        results.metric(f"{name}_{draft}_{lookahead}_{what}", round(value, 3), unit="ms" if what.endswith("ms") else "")
    numbers = ", ".join(f"{what} {value:.3f}" for what, value in row.items())
    print(f"  {name}, {DRAFTS[draft]}, {lookahead}: {numbers}", flush=True)
    return row


def kept(model: GPT, tokenizer: Any, results: Results) -> dict[str, dict[int, dict[str, float]]]:
    """Acceptance, tokens of a round and time, for each draft and lookahead, on the kept model; at temperature 1."""
    starts, real = prompts(tokenizer, 24)
    config, rows = GenerationConfig(max_new_tokens=100), {}
    for name, draft in drafts(tokenizer).items():
        shares = first_acceptance(model, draft, starts[:8], real[:8])
        results.metric(f"{name}_alpha", round(float(shares.mean()), 3))
        results.metric(f"{name}_alpha_sd", round(float(shares.std()), 3))
        run(model, draft, starts[:2], config, 3)  # what is compiled or allocated at first
        lookaheads = LOOKAHEADS if name != "three" else (3,)
        rows[name] = {k: measured("kept", name, k, run(model, draft, starts, config, k), results) for k in lookaheads}
        for temperature in (0.0, 0.5, 1.5) if name == "five" else ():
            changed = GenerationConfig(max_new_tokens=100, temperature=temperature)
            row = run(model, draft, starts[::2], changed, 3)
            results.metric(f"kept_{name}_3_at_{temperature:g}_accepted", round(row["accepted"], 3))
            print(f"  temperature {temperature:g}: accepted {row['accepted']:.3f}")
    results.metric("five_3_expected", round(expected_tokens(results._metrics["five_alpha"]["value"], 3), 2))
    return rows


def twin(model: GPT, tokenizer: Any, results: Results) -> dict[str, dict[int, dict[str, float]]]:
    """The same with the larger twin, whose passes cost as much as those of GPT-2's blocks; few prompts."""
    large = enlarged(model, wider=4, blocks=12)
    starts, _ = prompts(tokenizer, 6)
    ids = shared.tensor([starts[0]])
    with shared.no_grad():
        results.metric("twin_difference", round((large(ids) - model(ids)).abs().max().item(), 7))
    results.metric("twin_parameters", large.num_parameters())
    config, rows = GenerationConfig(max_new_tokens=80), {}
    for name, draft in drafts(tokenizer).items():
        if name != "three":
            run(large, draft, starts[:2], GenerationConfig(max_new_tokens=8), 3)
            rows[name] = {
                k: measured("twin", name, k, run(large, draft, starts, config, k), results) for k in LOOKAHEADS
            }
    return rows


def drawn(small: Any, large: Any, alphas: dict[str, float]) -> plt.Figure:
    """Tokens of a round over the lookahead, and how many times as fast, for both models."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.8, 4.0))
    looks = {"five": ("o", COLORS["blue"]), "small": ("s", COLORS["vermillion"]), "three": ("^", COLORS["green"])}
    for name, (mark, colour) in looks.items():
        for rows, style, axis, what in (
            (small, "-", left, "tokens"),
            (small, "--", right, "faster"),
            (large, "-", right, "faster"),
        ):
            if name in rows:
                label = DRAFTS[name] if axis is left else None
                axis.plot(
                    list(rows[name]),
                    [row[what] for row in rows[name].values()],
                    mark + style,
                    color=colour,
                    label=label,
                )
        places = range(1, LOOKAHEADS[-1] + 1)
        left.plot(places, [expected_tokens(alphas[name], k) for k in places], ":", color=colour, linewidth=1)
    right.axhline(1, color="0.4", linewidth=1)
    right.plot([], [], "-", color="0.4", label="larger twin")
    right.plot([], [], "--", color="0.4", label="kept model")
    left.set(title="What a pass of the large model brings", xlabel="tokens proposed", ylabel="tokens", ylim=(1, None))
    right.set(title="How many times as fast", xlabel="tokens proposed", ylabel="plain time / its time", ylim=(0, None))
    left.legend()
    right.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.parse_args()
    use_style()
    results = Results(__file__, seed=SEED)
    by_hand(results)
    model, tokenizer = kept_model()
    small = kept(model, tokenizer, results)
    large = twin(model, tokenizer, results)
    alphas = {name: results._metrics[f"{name}_alpha"]["value"] for name in DRAFTS}
    results.figure(
        drawn(small, large, alphas),
        "speculation",
        alt="Left: tokens of a pass over the number proposed, rising and flattening, for three drafts, with dotted "
        "lines of the formula. Right: how many times as fast as without a draft, for the kept model and its twin.",
    )
    results.save()


if __name__ == "__main__":
    main()
