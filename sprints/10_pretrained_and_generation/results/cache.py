"""Note 04: what the cache saves, what it costs, and what limits a model that writes token by token.

python sprints/10_pretrained_and_generation/results/cache.py          a minute or two of one core, 1.5 GB

The model of GPT-2's sizes has random weights: times do not depend on them. Seconds are those of the processor
(time.process_time), the shortest of several; set OMP_NUM_THREADS=1 for one thread, as it was done for the note.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from kept import kept_model, validation_text, windows
from matplotlib.patches import Rectangle
from writing import prompts, read_back

import shared
from course.plotting import COLORS, canvas, use_style
from course.results import Results
from shared import Tensor
from shared.generation import GenerationCache, GenerationConfig, new_caches, stream
from shared.models import GPT, GPTConfig
from shared.nn import functional as F

LENGTHS = (16, 64, 128, 256, 512, 1023)
TOGETHER = (1, 2, 4, 8, 16, 32)  # tokens in one pass


def seconds_of(call: Callable[[], Any], times: int) -> float:
    """The shortest of several calls, in seconds of the processor."""
    found = []
    for _ in range(times):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


# ---------------------------------------------------------------- the same numbers


def largest_difference(model: GPT, ids: Tensor, pieces: list[int]) -> float:
    """Between the logits of one pass over ids (B, T), and those of passes over pieces of them with caches."""
    caches, rows, start = new_caches(model), [], 0
    with shared.no_grad():
        for n in pieces:
            rows.append(model.extend(ids[:, start : start + n], caches, logits_to_keep=n))
            start += n
        return (shared.cat(rows, 1) - model(ids)).abs().max().item()


def bits_with_positions(model: GPT, ids: Tensor, known: int, place: Callable[[int], int]) -> float:
    """Bits per token of ids (B, T), `known` of them read at once, the others one by one with caches.

    Of those the token after n others gets position place(n).
    """
    caches, losses = new_caches(model), []
    with shared.no_grad():
        model.extend(ids[:, :known], caches)
        for n in range(known, ids.shape[1] - 1):
            x = model.positions(model.token_embedding(ids[:, n : n + 1]), start=place(n))
            for block, cache in zip(model.blocks, caches, strict=True):
                x = block(x, cache=cache)
            losses.append(F.cross_entropy(model.lm_head(model.norm(x))[:, 0], ids[:, n + 1]).item())
    return float(np.mean(losses)) / float(np.log(2))


# ---------------------------------------------------------------- GPT-2's sizes


def filled_caches(model: GPT, tokens: int) -> list[GenerationCache]:
    """Caches with so many tokens of random keys and values."""
    caches, c = new_caches(model), model.config
    for cache in caches:
        cache.update(*(shared.randn(1, c.n_head, tokens, c.n_embd // c.n_head) for _ in range(2)))
    return caches


def pass_seconds(model: GPT, past: int, tokens: int, times: int = 12) -> float:
    """Of reading `tokens` more after `past` cached ones, each of them scored."""
    caches, ids = filled_caches(model, past), shared.zeros(1, tokens, dtype=shared.int64)

    def one() -> None:
        model.extend(ids, caches, logits_to_keep=tokens)
        for cache in caches:
            cache.crop(past)

    one()  # a larger room is made, if there has to be one
    return seconds_of(one, times)


def read_bandwidth() -> float:
    """Bytes per second at which one thread reads a large array: a dot product of 256 MB with itself."""
    x = np.ones(2**26, np.float32)
    return x.nbytes / seconds_of(lambda: x @ x, 8)


def bytes_per_pass(model: GPT, past: int) -> int:
    """What has to be read for a pass: all matrices, the head's too, and keys and values of the tokens before."""
    c = model.config
    matrices = sum(p.numel() for p in model.parameters()) - c.block_size * c.n_embd  # of the positions one row
    return 4 * (matrices + 2 * c.n_layer * past * c.n_embd)


def costs(model: GPT, results: Results) -> plt.Figure:
    """Time per token over length, with and without caches; and of one pass over several tokens."""
    without, cached = [], []
    for length in LENGTHS:
        ids = shared.zeros(1, length, dtype=shared.int64)
        without.append(seconds_of(lambda ids=ids: model(ids), 3 if length < 512 else 2))
        cached.append(pass_seconds(model, length - 1, 1))
        results.metric(f"anew_{length}_ms", round(1e3 * without[-1], 1), unit="ms")
        results.metric(f"cached_{length}_ms", round(1e3 * cached[-1], 1), unit="ms")
        print(
            f"  token {length + 1}: {1e3 * without[-1]:.0f} ms anew, {1e3 * cached[-1]:.1f} ms with caches", flush=True
        )
    results.metric("anew_1024_tokens_s", round(float(np.trapezoid(without, LENGTHS)), 0), unit="s")
    results.metric("cached_1024_tokens_s", round(float(np.trapezoid(cached, LENGTHS)), 1), unit="s")
    prompt = shared.zeros(1, 512, dtype=shared.int64)
    results.metric(
        "prefill_512_ms", round(1e3 * seconds_of(lambda: model.extend(prompt, new_caches(model)), 2), 0), unit="ms"
    )

    bandwidth, moved = read_bandwidth(), bytes_per_pass(model, 128)
    several = [pass_seconds(model, 128, n) for n in TOGETHER]
    for n, seconds in zip(TOGETHER, several, strict=True):
        results.metric(f"pass_{n}_ms", round(1e3 * seconds, 1), unit="ms")
        print(f"  a pass over {n} tokens: {1e3 * seconds:.1f} ms", flush=True)
    results.metric("bandwidth_gb", round(bandwidth / 1e9, 1), unit="GB/s")
    results.metric("pass_bytes_mb", round(moved / 1e6, 0), unit="MB")
    results.metric("pass_1_gb", round(moved / several[0] / 1e9, 1), unit="GB/s")
    results.metric(
        "pass_1_gflops", round(model.flops_per_token(129, training=False) / several[0] / 1e9, 1), unit="GFLOP/s"
    )

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.9))
    left.loglog(LENGTHS, without, "s--", color=COLORS["vermillion"], label="all tokens anew")
    left.loglog(LENGTHS, cached, "o-", color=COLORS["blue"], label="with caches")
    left.set(title="One more token", xlabel="tokens before it, and itself", ylabel="time (s)")
    left.legend()
    right.plot(TOGETHER, [1e3 * s for s in several], "o-", color=COLORS["blue"], label="measured")
    right.plot(TOGETHER, [1e3 * several[0] * n for n in TOGETHER], ":", color="0.4", label="one after the other")
    right.axhline(1e3 * moved / bandwidth, linestyle="--", color=COLORS["green"], label="reading the weights once")
    right.set(title="Several tokens in one pass", xlabel="tokens", ylabel="time (ms)", ylim=(0, 1.25e3 * max(several)))
    right.legend()
    return figure


def memory(model: GPT, results: Results) -> None:
    """What caches take, by formula and as it is."""
    c = model.config
    results.metric("cache_token_bytes", 2 * c.n_layer * c.n_embd * 4, unit="bytes")
    for tokens in (100, 1024):
        found = sum(cache.nbytes for cache in filled_caches(model, tokens))
        results.metric(f"cache_{tokens}_mb", round(found / 1e6, 1), unit="MB")
        print(f"  caches of {tokens} tokens: {found / 1e6:.1f} MB")


# ---------------------------------------------------------------- the end of the context


def context_limit(model: GPT, tokenizer: Any, results: Results) -> plt.Figure:
    """Time of each of 300 tokens of the kept model; and what forgetting half of the context costs in bits."""
    config = GenerationConfig(max_new_tokens=300, seed=0)
    runs = []
    for _ in range(5):
        steps, times = stream(model, [tokenizer.encode("ROMEO:\n")], config), []
        for _ in range(300):
            start = time.process_time()
            next(steps)
            times.append(1e3 * (time.process_time() - start))
        runs.append(times)
    shortest = np.min(runs, axis=0)
    results.metric("kept_token_ms", round(float(np.median(shortest)), 2), unit="ms")
    results.metric("kept_reread_ms", round(float(shortest[130:].max()), 2), unit="ms")
    half, slide = policies(model, tokenizer)
    results.metric("policy_half_bits", round(float(half.mean()), 3), unit="bits")
    results.metric("policy_slide_bits", round(float(slide.mean()), 3), unit="bits")
    error = float((half - slide).std(ddof=1)) / len(half) ** 0.5  # of the mean difference, piece by piece
    results.metric("policy_difference_error", round(error, 3), unit="bits")
    print(f"  last half kept: {half.mean():.3f} bits; all of the last 128: {slide.mean():.3f} (± {error:.3f})")
    for place, bits in zip(range(0, 128, 16), by_place(model, tokenizer), strict=True):
        results.metric(f"place_{place}_bits", round(float(bits.mean()), 3), unit="bits")
        results.metric(f"place_{place}_error", round(float(bits.std(ddof=1)) / len(bits) ** 0.5, 3), unit="bits")
        print(f"  places {place} to {place + 15}: {bits.mean():.3f} bits")
    figure, axis = plt.subplots(figsize=(7.4, 3.2))
    axis.plot(range(1, 301), shortest, color=COLORS["blue"], linewidth=1)
    axis.set(title="300 characters of the kept model, whose context is 128", xlabel="new character", ylabel="time (ms)")
    axis.set_ylim(0, None)
    return figure


def policies(model: GPT, tokenizer: Any, pieces: int = 16, length: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """Bits per character of each of some pieces of held-out text, (pieces,) each: where half the context is forgotten
    when it is full, and where the last 128 are read anew for every character."""
    starts, real = prompts(tokenizer, pieces, 128, length - 128)
    half = read_back(model, starts, real)[0].mean(1)
    ids = np.array([a + b for a, b in zip(starts, real, strict=True)])
    losses = []
    for end in range(128, length):
        with shared.no_grad():
            logits = model.extend(shared.tensor(ids[:, end - 128 : end]), new_caches(model))[:, 0]
            losses.append(F.cross_entropy(logits, shared.tensor(ids[:, end]), reduction="none").numpy())
    return half, np.mean(losses, axis=0) / np.log(2)


def by_place(model: GPT, tokenizer: Any, pieces: int = 512) -> np.ndarray:
    """Bits per character at places 0 to 15, 16 to 31, … of pieces of 128 held-out characters: (8, pieces)."""
    ids = shared.tensor([tokenizer.encode(text) for text in windows(validation_text(), pieces, 129)])
    losses = []
    with shared.no_grad():
        for some in ids.split(64):
            logits, right = model(some[:, :-1]), some[:, 1:]
            found = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), right.reshape(-1), reduction="none")
            losses.append(found.numpy().reshape(len(some), 8, 16).mean(-1))
    return np.concatenate(losses).T / np.log(2)


# ---------------------------------------------------------------- the picture of what is computed again


def drawn() -> plt.Figure:
    """Rows that the fifth word needs, of each matrix, without and with a cache."""
    words = ("the", "dog", "bit", "the", "man")
    figure, axis = plt.subplots(figsize=(9.2, 3.9))
    canvas(axis, 25, 9)
    columns = ("x", "Q", "K", "V", "QKᵀ", "out")
    for half, (left, title) in enumerate(
        ((2.2, "all words anew: 5 rows of everything"), (14.6, "with a cache: one row"))
    ):
        axis.text(left, 0.5, title, fontsize=11, fontweight="bold")
        x = left
        for name in columns:
            width = 2.4 if name == "QKᵀ" else 1.0
            axis.text(x + width / 2, 1.7, name, ha="center", fontsize=10)
            for row in range(5):
                for c in range(5 if name == "QKᵀ" else 1):
                    needed = row == 4
                    stored = half and name in "KV" and not needed
                    hidden = name == "QKᵀ" and c > row
                    colour = (
                        COLORS["blue"]
                        if needed
                        else COLORS["green"]
                        if stored
                        else COLORS["orange"]
                        if not half
                        else "white"
                    )
                    step = width / (5 if name == "QKᵀ" else 1)
                    face = "white" if hidden else colour
                    box = Rectangle(
                        (x + c * step, 2.2 + row), step, 1, facecolor=face, alpha=0.75, edgecolor="0.6", linewidth=0.7
                    )
                    axis.add_patch(box)
            x += width + 0.55
    for row, word in enumerate(words):
        axis.text(1.9, 2.75 + row, word, ha="right", va="center", fontsize=11)
    for i, (colour, text) in enumerate(
        (("blue", "computed, needed"), ("orange", "computed again"), ("green", "kept from before"))
    ):
        axis.add_patch(Rectangle((2.2 + 7 * i, 7.9), 0.6, 0.6, facecolor=COLORS[colour], alpha=0.75))
        axis.text(3.1 + 7 * i, 8.25, text, va="center", fontsize=10)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seed)
    shared.manual_seed(args.seed)
    model, tokenizer = kept_model()
    starts, real = prompts(tokenizer, 24, 48, 80)
    ids = shared.tensor([a + b for a, b in zip(starts, real, strict=True)])
    results.metric("cached_difference", largest_difference(model, ids, [1] * 128))
    results.metric("pieces_difference", largest_difference(model, ids, [5, 1, 40, 2, 80]))
    ideas = {"right": lambda n: n, "early": lambda n: n - 1, "anew": lambda n: n - 48, "zero": lambda n: 0}
    for name, place in ideas.items():
        results.metric(f"positions_{name}_bits", round(bits_with_positions(model, ids, 48, place), 3), unit="bits")
    results.figure(
        drawn(),
        "cache_rows",
        alt="Two tables of five rows, one for each word. Left: all rows of x, Q, K, V, scores and output are computed, "
        "though only the last is needed. Right: the last row is computed; the earlier keys and values are kept.",
    )
    results.figure(
        context_limit(model, tokenizer, results),
        "cache_context",
        alt="The time of each of 300 characters: level, with a spike each time that the context is "
        "full and its last half is read anew.",
    )
    with shared.no_grad():
        large = GPT(GPTConfig.preset("gpt2", dropout=0.0)).eval()
        memory(large, results)
        results.figure(
            costs(large, results),
            "cache_costs",
            alt="Left, both axes logarithmic: the time of one more token rises with the length when all is computed "
            "anew and stays nearly level with caches. Right: a pass over more tokens takes longer, but less for each "
            "token.",
        )
    for name in ("cached_difference", "positions_right_bits", "positions_zero_bits", "bandwidth_gb", "pass_1_gb"):
        print(f"{name:24}{results._metrics[name]['value']:.4g}")
    results.save()


if __name__ == "__main__":
    main()
