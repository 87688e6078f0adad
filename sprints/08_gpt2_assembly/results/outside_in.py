"""Note 01: the sentence through a GPT that a pencil can follow; who depends on whom; GELU's forms; what a field costs.

python sprints/08_gpt2_assembly/results/outside_in.py      a few seconds
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle
from sentence import DOG, SENTENCE, VOCABULARY, gpt, ids

import shared
from course.plotting import canvas, use_style, write_grid
from course.results import Results
from shared import Tensor, nn
from shared.models import GPT, GPTConfig
from shared.nn import functional as F

# ---------------------------------------------------------------- the sentence, step by step


def stages(model: GPT) -> list[tuple[str, np.ndarray]]:
    """What stands between ids and scores, (T, 4) each: after tables, block, last norm, and the scores."""
    with shared.no_grad():
        x = model.positions(model.token_embedding(ids()))
        after = model.blocks[0](x)
        normal = model.norm(after)
        steps = [("tables", x), ("block", after), ("last norm", normal), ("scores", model.lm_head(normal))]
    return [(name, value.numpy()[0].astype(np.float64)) for name, value in steps]


def through(model: GPT) -> plt.Figure:
    """The sentence's five rows after each stage, the dog's framed."""
    figure, axis = plt.subplots(figsize=(10.6, 3.3))
    words, gap = SENTENCE.split(), 1.3
    for r, word in enumerate(words):
        axis.text(-0.2, r + 1.52, word, ha="right", va="center", fontsize=11)
    for k, (name, values) in enumerate(stages(model)):
        left = k * (4 + gap)
        shade = np.abs(values) / np.abs(values).max()
        cells = [[f"{round(float(v), 2) + 0.0:g}".replace("-", "−") for v in row] for row in values]
        write_grid(axis, cells, at=(left, 1), shade=shade, size=8.5)
        axis.add_patch(Rectangle((left, 1 + DOG), 4, 1, fill=False, edgecolor="black", linewidth=2.2))
        axis.text(left, 0.2, name, fontsize=11, fontweight="bold", va="center")
        if name == "scores":
            for c, word in enumerate(VOCABULARY):
                axis.text(left + c + 0.5, 0.75, word, ha="center", va="center", fontsize=9)
        if k:
            start, end = (left - gap + 0.15, 3.5), (left - 0.15, 3.5)
            axis.add_patch(FancyArrowPatch(start, end, arrowstyle="->", mutation_scale=14, color="0.4"))
    canvas(axis, 4 * 4 + 3 * gap, 6)
    axis.set_xlim(-1.4, 4 * 4 + 3 * gap + 0.15)
    return figure


# ---------------------------------------------------------------- who depends on whom


def scores(model: GPT, tokens: Tensor, is_causal: bool = True) -> np.ndarray:
    """The logits (T, V) of one text, with the mask or without."""
    with shared.no_grad():
        x = model.positions(model.token_embedding(tokens))
        for block in model.blocks:
            x = block(x, is_causal=is_causal)
        return model.lm_head(model.norm(x)).numpy()[0]


def changes(model: GPT, tokens: Tensor, is_causal: bool) -> np.ndarray:
    """Row i, column j: the largest change of a score after token i when token j is replaced by another."""
    before, table = scores(model, tokens, is_causal), []
    for j in range(tokens.shape[1]):
        other = tokens.clone()
        other[0, j] = (int(tokens[0, j]) + 1) % model.config.vocab_size
        table.append(np.abs(scores(model, other, is_causal) - before).max(axis=1))
    return np.array(table).T


def causality(results: Results, seed: int) -> plt.Figure:
    """Which scores move when a token changes, in a fresh GPT, with its mask and without."""
    shared.manual_seed(seed)
    model = GPT(GPTConfig.preset("toy")).eval()
    tokens = shared.randint(0, 65, (1, 8))
    assert (scores(model, tokens) == model(tokens).detach().numpy()[0]).all()
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 4.2), sharey=True)
    for axis, is_causal, title in ((axes[0], True, "a GPT"), (axes[1], False, "the same without its mask")):
        table = changes(model, tokens, is_causal)
        later = table[np.triu_indices(8, 1)]
        results.metric("largest_change_by_a_later_token" + ("" if is_causal else "_without_mask"), float(later.max()))
        shown = np.where(table > 0, np.log10(np.maximum(table, 1e-9)), np.nan)
        image = axis.imshow(shown, cmap="cividis", vmin=-2, vmax=0)
        for i, j in np.argwhere(table == 0):
            axis.text(j, i, "0", ha="center", va="center", color="0.35")
        axis.set(title=title, xlabel="token that is changed", xticks=range(8), yticks=range(8))
        axis.grid(False)
    axes[0].set_ylabel("scores after token")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="largest change of a score")
    bar.set_ticks(range(-2, 1), labels=["0.01", "0.1", "1"])
    return figure


# ---------------------------------------------------------------- GELU, fields, Sprint 07's blocks


def two_forms(results: Results) -> None:
    """How far GELU's tanh form is from x Φ(x), and where."""
    x = shared.linspace(-6, 6, 120_001, dtype=shared.float64)
    difference = np.abs((F.gelu(x, approximate="tanh") - F.gelu(x)).numpy())
    at = int(difference.argmax())
    results.metric("gelu_difference", float(f"{difference[at]:.2e}"))
    results.metric("gelu_difference_at", round(abs(float(x[at])), 2))
    print(f"GELU's two forms differ by {difference[at]:.2e} at {float(x[at]):.2f}")


FIELDS: dict[str, dict[str, Any]] = {
    "vocab_size": {"vocab_size": 130},
    "block_size": {"block_size": 128},
    "n_layer": {"n_layer": 8},
    "n_head": {"n_head": 8},
    "n_embd": {"n_embd": 256},
    "bias": {"bias": True},
    "positions": {"positions": "sinusoidal"},
    "tie_weights": {"tie_weights": False},
}


def fields(results: Results) -> None:
    """What each field adds to parameters and operations of the preset "cpu": doubled, or the other of two."""
    base = GPTConfig.preset("cpu")
    before = (base.num_parameters(), GPT(base).flops_per_token())
    for name, change in FIELDS.items():
        config = replace(base, **change)
        model = GPT(config)
        assert model.num_parameters() == config.num_parameters()
        after = (config.num_parameters(), model.flops_per_token())
        for kind, new, old in zip(("parameters", "flops"), after, before, strict=True):
            results.metric(f"field_{name}_{kind}", round(100 * (new / old - 1), 1), unit="%")
        print(f"{name:12} parameters {after[0]:>9,}, {after[1] / 1e6:.2f} MFLOP per token")
    results.metric("cpu_parameters", before[0])


def without_last_norm(results: Results, seed: int) -> None:
    """The root mean square of what leaves the last block and of the scores, in a fresh GPT twelve blocks deep."""
    shared.manual_seed(seed)
    config = GPTConfig(vocab_size=1000, block_size=64, n_layer=12, n_head=4, n_embd=128, dropout=0.0)
    model = GPT(config).eval()
    last: list[np.ndarray] = []
    handle = model.blocks[11].register_forward_hook(lambda module, inputs, output: last.append(output.numpy()))
    with shared.no_grad():
        logits = model(shared.randint(0, 1000, (4, 64))).numpy()
        model.norm = nn.Identity()
        bare = model(shared.randint(0, 1000, (4, 64))).numpy()
    handle.remove()
    for name, value in (("stream", last[0]), ("scores", logits), ("scores_without_norm", bare)):
        results.metric(f"fresh_rms_{name}", float(f"{np.sqrt((value.astype(np.float64) ** 2).mean()):.3g}"))


def main() -> None:
    """Measures and draws all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    use_style()
    results = Results(__file__, seed=options.seed)
    model = gpt()
    results.figure(
        through(model),
        "through",
        alt="Four tables of five words by four numbers, left to right: after the tables, after the block, after the "
        "last norm, and the scores; the dog's row goes from 2, 0, 1, 0 to scores of which that of bit is largest.",
    )
    results.figure(
        causality(results, options.seed),
        "causality",
        alt="Two tables of 8 by 8: with the mask the scores after a token change only when it or an earlier one is "
        "changed, and are exactly 0 above the diagonal; without the mask all of them change.",
    )
    two_forms(results)
    fields(results)
    without_last_norm(results, options.seed)
    results.save()


if __name__ == "__main__":
    main()
