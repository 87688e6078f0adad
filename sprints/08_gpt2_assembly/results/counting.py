"""Note 05: GPT-2's parameters by formula and tensor by tensor, their places, operations, and the memory of a training.

python sprints/08_gpt2_assembly/results/counting.py      half a minute of one core, 1 GB of memory
"""

from __future__ import annotations

import argparse
import gc
import math
import time
import tracemalloc
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn
from shared.models import GPT, GPTConfig, next_token_loss
from shared.models.hugging_face import weights_of

SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")

# ---------------------------------------------------------------- parameters


def by_tensors(config: GPTConfig) -> int:
    """The sum over every tensor of such a model's file, the head's not where it is the table; none of them is made."""
    weights = weights_of(config)
    return sum(math.prod(w.shape) for w in weights if not (config.tie_weights and w.ours == "lm_head.weight"))


def places(config: GPTConfig) -> dict[str, int]:
    """Where a GPT's parameters are."""
    d, L = config.n_embd, config.n_layer
    return {
        "token table": config.vocab_size * d,
        "positions": config.block_size * d,
        "attention": 4 * L * d * d,
        "feed-forward": 8 * L * d * d,
        "biases and norms": config.num_parameters() - (config.vocab_size + config.block_size) * d - 12 * L * d * d,
    }


def parameters(results: Results) -> plt.Figure:
    """The four sizes counted in two ways, the smallest built as well; shares from the toy to the largest."""
    for name in SIZES:
        config, key = GPTConfig.preset(name), name.replace("-", "_")
        count, parts = config.num_parameters(), places(config)
        assert count == by_tensors(config)
        results.metric(f"parameters_{key}", count)
        results.metric(f"tensors_{key}", len(weights_of(config)) - 1)
        for part in ("token table", "attention", "feed-forward"):
            results.metric(
                f"share_{part.replace(' ', '_').replace('-', '_')}_{key}", round(100 * parts[part] / count, 1), unit="%"
            )
        small = 100 * parts["biases and norms"] / count
        results.metric(f"share_small_{key}", round(small, 2), unit="%")
        print(f"{name:12} {count:>13,} in {len(weights_of(config)) - 1} tensors; {parts}")
    model = GPT(GPTConfig.preset("gpt2", dropout=0.0))
    assert sum(p.numel() for p in model.parameters()) == model.num_parameters() == 124_439_808
    results.metric("gpt2_built", model.num_parameters())
    results.metric("gpt2_built_tensors", len(list(model.parameters())))
    results.metric("gpt2_without_tables", model.num_parameters(embeddings=False))
    del model
    names = ("toy", "cpu", "gpu", *SIZES)
    figure, axis = plt.subplots(figsize=(8.6, 4.2))
    left = np.zeros(len(names))
    looks = zip(places(GPTConfig()), ("orange", "yellow", "blue", "sky", "black"), strict=True)
    for part, colour in looks:
        shares = np.array(
            [100 * places(GPTConfig.preset(n))[part] / GPTConfig.preset(n).num_parameters() for n in names]
        )
        axis.barh(range(len(names)), shares, left=left, color=COLORS[colour], label=part, edgecolor="white")
        for k, share in enumerate(shares):
            if share > 6:
                white = "white" if colour in ("blue", "black") else "black"
                axis.text(left[k] + share / 2, k, f"{share:.0f}", ha="center", va="center", color=white, fontsize=9)
        left = left + shares
    ticks = [f"{n}\n{GPTConfig.preset(n).num_parameters() / 1e6:,.1f} M" for n in names]
    axis.set_yticks(range(len(names)), ticks, fontsize=9)
    axis.invert_yaxis()
    axis.grid(False)
    axis.set(title="Where the parameters are", xlabel="share of all parameters (%)", xlim=(0, 100))
    axis.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.45, -0.14), fontsize=9, columnspacing=1, handlelength=1)
    return figure


# ---------------------------------------------------------------- operations


def counted(model: GPT, ids: Tensor) -> int:
    """FLOPs of one forward pass as hooks see it: two for each multiplication in linear layers and in attention."""
    found: list[int] = []

    def note(module: nn.Module, given: tuple, made: Any) -> None:
        if isinstance(module, nn.Linear):
            found.append(2 * made.numel() * module.in_features)
        else:
            B, T, d = given[0].shape
            found.append(2 * 2 * B * T * T * d)  # scores, and weighted sums of values

    parts = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.MultiHeadAttention))]
    handles = [part.register_forward_hook(note) for part in parts]
    with shared.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return sum(found)


def flops(config: GPTConfig, length: int) -> dict[str, float]:
    """Training FLOPs per token: of the blocks' matrices, of the head, and of scores and sums."""
    d, L = config.n_embd, config.n_layer
    return {"blocks": 72 * L * d * d, "head": 6 * config.vocab_size * d, "scores": 12 * L * length * d}


class Shape(GPT):
    """A GPT without weights, of which only the counting is used."""

    def __init__(self, config: GPTConfig):
        nn.Module.__init__(self)
        self.config = config


def operations(results: Results) -> plt.Figure:
    """The formula against hooks, GPT-2's operations per token, and the scores' share by length."""
    for name, length in (("toy", 20), ("cpu", 64)):
        model = GPT(GPTConfig.preset(name)).eval()
        seen = counted(model, shared.randint(0, 65, (2, length)))
        assert seen == 2 * length * model.flops_per_token(length, training=False)
        print(f"{name}: {seen / (2 * length):,.0f} FLOPs per token of {length}, by hooks and by formula")
    for name in SIZES:
        config, key = GPTConfig.preset(name), name.replace("-", "_")
        parts = flops(config, 1024)
        total = sum(parts.values())
        assert total == Shape(config).flops_per_token(1024)
        results.metric(f"gflop_per_token_{key}", float(f"{total / 1e9:.3g}"), unit="GFLOP")
        results.metric(f"flops_per_parameter_{key}", round(total / config.num_parameters(), 2))
        for part, value in parts.items():
            results.metric(f"flops_{part}_share_{key}", round(100 * value / total, 1), unit="%")
        print(
            f"{name}: {total / 1e9:.3f} GFLOP per token, {total / config.num_parameters():.2f} per parameter; {parts}"
        )
    lengths = np.geomspace(64, 131_072, 60)
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for name, colour, line in zip(
        SIZES, ("blue", "green", "orange", "vermillion"), ("-", "--", "-.", ":"), strict=True
    ):
        config = GPTConfig.preset(name)
        shares = [100 * flops(config, n)["scores"] / sum(flops(config, n).values()) for n in lengths]
        axis.plot(lengths, shares, line, color=COLORS[colour], label=name)
        fixed = flops(config, 0)
        half = (fixed["blocks"] + fixed["head"]) / (12 * config.n_layer * config.n_embd)
        results.metric(f"scores_half_at_{name.replace('-', '_')}", round(half))
    axis.axvline(1024, color="0.4", linewidth=1, linestyle=":")
    axis.text(1100, 92, "1,024", color="0.3")
    axis.set_xscale("log", base=2)
    axis.set_xticks([2**k for k in range(6, 18, 2)], [f"{2**k:,}" for k in range(6, 18, 2)])
    axis.set(
        title="What attention adds",
        xlabel="length of the text (tokens)",
        ylabel="scores, of all operations (%)",
        ylim=(0, 100),
    )
    axis.legend(loc="upper left")
    return figure


# ---------------------------------------------------------------- memory


def memory(config: GPTConfig, batch: int, length: int, again: bool) -> tuple[float, float, float]:
    """Bytes kept after the forward pass, the most until backward ends, and seconds of both, of a training step.

    Weights and gradients are there before and not counted.
    """
    shared.manual_seed(0)
    model = GPT(config)
    model.gradient_checkpointing = again
    windows = shared.randint(0, config.vocab_size, (batch, length + 1))
    inputs, targets = windows[:, :-1], windows[:, 1:]
    next_token_loss(model(inputs), targets).backward()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    loss = next_token_loss(model(inputs), targets)
    kept = tracemalloc.get_traced_memory()[0] - before
    loss.backward()
    most = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    seconds = []
    for _ in range(5):
        started = time.process_time()
        next_token_loss(model(inputs), targets).backward()
        seconds.append(time.process_time() - started)
    return kept, most, min(seconds)


def activations(results: Results) -> plt.Figure:
    """What a step keeps for each token, by depth, with recomputation and without."""
    batch, length, width, depths = 4, 128, 128, (2, 4, 8, 16)
    unit = batch * length * width * 4  # one vector for each token
    found: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    for again, rows in found.items():
        for depth in depths:
            config = GPTConfig(65, length, depth, 4, width, dropout=0.0)
            rows.append(memory(config, batch, length, again))
            print(
                f"again {again}, {depth}: kept {rows[-1][0] / unit:.1f} d, most {rows[-1][1] / unit:.1f} d, "
                f"{rows[-1][2]:.3f} s",
                flush=True,
            )
        slope = (rows[-1][0] - rows[0][0]) / (depths[-1] - depths[0]) / unit
        name = "recomputed" if again else "kept"
        results.metric(f"activations_{name}_per_block", round(slope, 1))
        results.metric(f"activations_{name}_mb", round(rows[-1][1] / 1e6, 1), unit="MB")
        results.metric(f"activations_{name}_seconds", round(rows[-1][2], 3), unit="s")
    results.metric(
        "recomputing_time",
        round(float(np.median([a[2] / b[2] for a, b in zip(found[True], found[False], strict=True)])), 2),
    )
    long = memory(GPTConfig(65, 512, 4, 4, width, dropout=0.0), 1, 512, False)[0]
    results.metric("activations_at_512", round(long / (512 * width * 4), 1))
    short = found[False][1][0]
    results.metric("activations_at_128", round(short / unit, 1))
    wide = memory(GPTConfig(5000, length, 4, 4, width, dropout=0.0), batch, length, False)
    results.metric("logits_kept", round((wide[0] - short) / (batch * length * (5000 - 65) * 4), 2))
    results.metric("logits_most", round((wide[1] - found[False][1][1]) / (batch * length * (5000 - 65) * 4), 2))
    for name in ("gpt2", "gpt2-xl"):
        config, key = GPTConfig.preset(name), name.replace("-", "_")
        results.metric(f"fixed_gb_{key}", round(16 * config.num_parameters() / 1e9, 1), unit="GB")
        per_text = 16 * config.n_layer * config.block_size * config.n_embd * 4
        results.metric(f"activations_gb_{key}", round(per_text / 1e9, 2), unit="GB")
        again = (config.n_layer + 16) * config.block_size * config.n_embd * 4
        results.metric(f"recomputed_gb_{key}", round(again / 1e9, 2), unit="GB")
        results.metric(f"logits_gb_{key}", round(config.vocab_size * config.block_size * 4 / 1e9, 2), unit="GB")
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for again, colour, marker, text in (
        (False, "vermillion", "s-", "all kept"),
        (True, "blue", "o-", "blocks recomputed"),
    ):
        axis.plot(depths, [row[1] / 1e6 for row in found[again]], marker, color=COLORS[colour], label=text)
    axis.set_xticks(depths)
    axis.set(title="Memory of one training step", xlabel="blocks", ylabel="most at one time (MB)", ylim=(0, None))
    axis.legend()
    return figure


def main() -> None:
    """Counts, measures and draws all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    results.figure(
        parameters(results),
        "shares",
        alt="Stacked bars, shares of the parameters for seven presets: the token table is 4 per cent in the toy, 31 in "
        "the smallest GPT-2 and 5 in the largest; feed-forward networks are always twice the attention.",
    )
    results.figure(
        operations(results),
        "scores_share",
        alt="Share of attention's scores in all operations against the length of the text, for four sizes of GPT-2: a "
        "few per cent at hundreds of tokens, more than half beyond ten thousand, later for wider models.",
    )
    results.figure(
        activations(results),
        "memory",
        alt="Peak memory of a training step against the number of blocks: a steep line with everything kept, a nearly "
        "flat one when blocks are recomputed.",
    )
    results.save()


if __name__ == "__main__":
    main()
