"""Note 03: the gradient that one table gets from both ends, by hand and in training; tied and untied models compared.

python sprints/08_gpt2_assembly/results/tying.py      30 trainings of seconds, about three minutes of one core
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from sentence import VOCABULARY, gpt, ids

import shared
from course.plotting import COLORS, canvas, use_style, write_grid
from course.results import Results
from shared import Tensor
from shared.models import GPT, GPTConfig, next_token_loss
from shared.nn import functional as F
from shared.text import ByteLevelBPE

STEPS, LONG, BATCH, LENGTH, TOKENS = 300, 1500, 16, 32, 1000
BASE = GPTConfig.preset("toy", vocab_size=TOKENS)
MODELS = {
    "tied": BASE,
    "untied": replace(BASE, tie_weights=False),
    "tied_wide": replace(BASE, n_embd=80),  # about as many parameters as the untied one
}

# ---------------------------------------------------------------- by hand


def twin(tied: GPT) -> GPT:
    """The same numbers in a model whose head has a table of its own: the two gradients come apart."""
    model = GPT(replace(tied.config, tie_weights=False), dtype=tied.lm_head.weight.dtype)
    model.load_state_dict(tied.state_dict())
    return model


def ends(tied: GPT, inputs: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradient of the table (V, d): what the lookup gives, what the head gives, and what the tied model gets."""
    apart = twin(tied)
    for model in (tied, apart):
        model.zero_grad()
        next_token_loss(model(inputs), targets).backward()
    parts = (apart.token_embedding.weight.grad, apart.lm_head.weight.grad, tied.token_embedding.weight.grad)
    return tuple(part.numpy().copy() for part in parts)


def both_ends(results: Results) -> plt.Figure:
    """ "the dog", then "bit": the gradient of our table from below, from above, and the sum."""
    model = gpt(shared.float64)
    lookup, head, both = ends(model, ids()[:, :2], shared.tensor([[-100, 2]]))
    assert np.abs(lookup + head - both).max() < 1e-12
    for word, below, above, total in zip(VOCABULARY, lookup, head, both, strict=True):
        print(f"  {word}: lookup {np.round(below, 3)} + head {np.round(above, 3)} = {np.round(total, 3)}")
    figure, axis = plt.subplots(figsize=(9.6, 3.2))
    top = np.abs(np.stack([lookup, head, both])).max()
    for k, (name, values) in enumerate((("from the lookup", lookup), ("from the head", head), ("the table's", both))):
        cells = [[f"{v:.2f}".replace("-", "−") if abs(v) > 0.005 else "0" for v in row] for row in values]
        write_grid(axis, cells, at=(k * 5.5, 1), shade=np.abs(values) / top, size=9.5)
        axis.text(k * 5.5, 0.55, name, fontsize=11, fontweight="bold", va="center")
        if k:
            axis.text(k * 5.5 - 0.75, 3, "+="[k - 1], fontsize=18, ha="center", va="center")
    for r, word in enumerate(VOCABULARY):
        axis.text(-0.2, r + 1.52, word, ha="right", va="center", fontsize=11)
    canvas(axis, 15, 5.1)
    axis.set_xlim(-1.2, 15.15)
    return figure


# ---------------------------------------------------------------- on a text


class Windows:
    """Tokens of a text, and random windows of them; a generator of its own, so that models see the same ones."""

    def __init__(self, tokens: list[int], seed: int):
        self.tokens, self.generator = shared.tensor(tokens), shared.Generator()
        self.generator.manual_seed(seed)

    def batch(self, size: int = BATCH) -> tuple[Tensor, Tensor]:
        """(inputs, targets), (size, LENGTH) each."""
        starts = shared.randint(0, len(self.tokens) - LENGTH, (size, 1), generator=self.generator)
        windows = self.tokens[starts + shared.arange(LENGTH + 1)]
        return windows[:, :-1], windows[:, 1:]


def measure(model: GPT, held: list[int]) -> float:
    """The mean loss on 128 windows of the held-out text."""
    windows = shared.tensor(held[: 128 * (LENGTH + 1)]).reshape(128, LENGTH + 1)
    with shared.no_grad():
        return next_token_loss(model(windows[:, :-1]), windows[:, 1:]).item()


def length(array: np.ndarray) -> float:
    """Of all numbers as one vector."""
    return float(np.sqrt((array.astype(np.float64) ** 2).sum()))


def train(
    config: GPTConfig, tokens: list[int], held: list[int], seed: int, lr: float, steps: int = STEPS
) -> tuple[GPT, list, dict]:
    """A trained model; its held-out losses, every 20 steps; lengths of both gradients, every 100, where it is tied."""
    shared.manual_seed(seed)
    model, windows = GPT(config), Windows(tokens, seed)
    optimizer, losses, lengths = model.configure_optimizers(lr=lr), [], {}
    for step in range(steps + 1):
        if step % 20 == 0:
            losses.append(measure(model, held))
        inputs, targets = windows.batch()
        if config.tie_weights and step % 100 == 0:
            below, above, _ = ends(model, inputs, targets)
            lengths[step] = (length(below), length(above))
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 40)
        optimizer.zero_grad()
        next_token_loss(model(inputs), targets).backward()
        optimizer.step()
    return model, losses, lengths


def similarities(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cosines of all pairs of the chosen rows, as one row of numbers."""
    chosen = table[rows] - table[rows].mean(axis=0)
    chosen = chosen / np.linalg.norm(chosen, axis=1, keepdims=True)
    return (chosen @ chosen.T)[np.triu_indices(len(rows), 1)]


def compare(results: Results, seeds: int, lrs: tuple[float, ...]) -> plt.Figure:
    """Tied and untied from the same seeds: held-out loss, gradients from both ends, what the tables look like."""
    text, unseen = (part.text for part in shared.data.load("tinyshakespeare"))
    bpe = ByteLevelBPE.train(text, vocab_size=TOKENS, fast=True)
    tokens, held = bpe.fast().encode(text).ids, bpe.fast().encode(unseen).ids
    rows_reached(results, tokens)
    for name, config in MODELS.items():
        results.metric(f"tying_parameters_{name}", config.num_parameters())
    frequent = np.argsort(-np.bincount(tokens, minlength=TOKENS), kind="stable")[:200]
    curves: dict[tuple[str, float], np.ndarray] = {}  # (seeds, steps / 20 + 1)
    for name, config in MODELS.items():
        for lr in lrs:
            runs, lengths, tables = [], [], []
            for seed in range(seeds):
                model, losses, found = train(config, tokens, held, seed, lr)
                runs.append(losses)
                lengths.append(found)
                tables.append([part.weight.detach().numpy() for part in (model.token_embedding, model.lm_head)])
            curves[name, lr] = np.array(runs)
            print(f"{name}, {lr:g}: {np.round(curves[name, lr][:, -1], 3)}", flush=True)
            results.metric(f"{name}_loss_{lr:g}", round(float(curves[name, lr][:, -1].mean()), 3), unit="nats")
            if lr == lrs[1]:
                report_tables(results, name, lengths, tables, frequent)
    figure, axis = plt.subplots(figsize=(7, 4.2))
    looks = (("tied", "blue", "-"), ("untied", "vermillion", "--"), ("tied_wide", "green", ":"))
    for name, colour, line in looks:
        best = min(lrs, key=lambda lr: curves[name, lr][:, -1].mean())
        values, label = curves[name, best], name.replace("_wide", f", {MODELS[name].n_embd} wide")
        steps = np.arange(values.shape[1]) * 20
        axis.plot(steps, values.mean(axis=0), line, color=COLORS[colour], label=label)
        axis.fill_between(steps, values.min(axis=0), values.max(axis=0), color=COLORS[colour], alpha=0.2)
        results.metric(f"{name}_best_lr", best)
        results.metric(f"{name}_best_loss", round(float(values[:, -1].mean()), 3), unit="nats")
        results.metric(f"{name}_spread", round(float(np.ptp(values[:, -1])), 3), unit="nats")
        results.metric(f"{name}_loss_100", round(float(values[:, 5].mean()), 3), unit="nats")
    axis.axhline(math.log(TOKENS), color="0.4", linestyle=":", linewidth=1)
    axis.text(STEPS, math.log(TOKENS) + 0.04, "ln V", ha="right", color="0.3")
    axis.set(title="One table or two", xlabel="step", ylabel="held-out loss (nats per token)")
    axis.legend()
    for name in ("tied", "untied"):
        last = train(MODELS[name], tokens, held, 0, lrs[1], LONG)[1][-1]
        results.metric(f"{name}_loss_long", round(last, 3), unit="nats")
        print(f"{name}, {LONG} steps: {last:.3f}", flush=True)
    results.metric("tying_steps_long", LONG)
    results.metric("tying_seeds", seeds)
    results.metric("tying_steps", STEPS)
    return figure


def report_tables(results: Results, name: str, lengths: list, tables: list, frequent: np.ndarray) -> None:
    """Gradient lengths of a tied model; of an untied one, how alike the two tables have become."""
    if name == "tied":
        for step in (0, 100, STEPS):
            below, above = np.mean([found[step] for found in lengths], axis=0)
            results.metric(f"tied_gradient_lookup_{step}", float(f"{below:.2g}"))
            results.metric(f"tied_gradient_head_{step}", float(f"{above:.2g}"))
            print(f"  step {step}: gradient from the lookup {below:.3f}, from the head {above:.3f}")
    if name != "untied":
        return
    cosines = [F.cosine_similarity(*(shared.tensor(t[frequent]) for t in pair)).numpy().mean() for pair in tables]
    both = [np.corrcoef(*(similarities(t, frequent) for t in pair))[0, 1] for pair in tables]
    results.metric("untied_rows_cosine", round(float(np.mean(cosines)), 2))
    results.metric("untied_neighbours_correlation", round(float(np.mean(both)), 2))
    print(
        f"  same token, two tables: cosine {np.mean(cosines):.3f}; their similarities correlate by {np.mean(both):.3f}"
    )


def rows_reached(results: Results, tokens: list[int]) -> None:
    """How many of the table's rows get a gradient in one step, from each end."""
    windows = Windows(tokens, 0)
    shared.manual_seed(0)
    model, reached = GPT(GPTConfig.preset("toy", vocab_size=TOKENS)), []
    for _ in range(20):
        below, above, _ = ends(model, *windows.batch())
        reached.append([(np.abs(part).max(axis=1) > 0).sum() for part in (below, above)])
    below, above = np.mean(reached, axis=0)
    results.metric("rows_reached_lookup", round(float(below)))
    results.metric("rows_reached_head", round(float(above)))
    print(f"rows with a gradient: {below:.0f} from the lookup, {above:.0f} from the head, of {TOKENS}")


# ---------------------------------------------------------------- a fresh model, tied


def repeats(results: Results) -> None:
    """A fresh tied model prefers the token it has just read: its score, and the loss where the input is the target."""
    for tied in (True, False):
        own, losses, shifted = [], [], []
        for seed in range(20):
            shared.manual_seed(seed)
            model = GPT(GPTConfig.preset("toy", tie_weights=tied))
            windows = shared.randint(0, 65, (16, LENGTH + 1))
            with shared.no_grad():
                logits = model(windows[:, :-1])
                own.append(float(logits.gather(2, windows[:, :-1].unsqueeze(2)).mean()))
                losses.append(next_token_loss(logits, windows[:, 1:]).item())
                shifted.append(next_token_loss(logits, windows[:, :-1]).item())
        name = "tied" if tied else "untied"
        results.metric(f"fresh_{name}_own_score", round(float(np.mean(own)), 2))
        results.metric(f"fresh_{name}_loss", round(float(np.mean(losses)), 3), unit="nats")
        results.metric(f"fresh_{name}_loss_unshifted", round(float(np.mean(shifted)), 2), unit="nats")
        print(
            f"fresh, {name}: own score {np.mean(own):.2f}, loss {np.mean(losses):.3f}, unshifted {np.mean(shifted):.3f}"
        )


def savings(results: Results) -> None:
    """What tying saves, of the untied model's parameters."""
    for name in ("toy", "gpt2", "gpt2-xl"):
        config = GPTConfig.preset(name)
        table, untied = config.vocab_size * config.n_embd, replace(config, tie_weights=False).num_parameters()
        assert untied == config.num_parameters() + table
        key = name.replace("-", "_")
        results.metric(f"table_{key}", table)
        results.metric(f"untied_parameters_{key}", untied)
        results.metric(f"tying_saves_{key}", round(100 * table / untied, 1), unit="%")


def main() -> None:
    """Measures and draws all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    options = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    results.figure(
        both_ends(results),
        "both_ends",
        alt="Three tables of four words by four numbers: the gradient from the lookup has rows for the and dog only, "
        "that from the head a row for each word, large for the and bit; the third is their sum.",
    )
    repeats(results)
    savings(results)
    results.figure(
        compare(results, options.seeds, (1e-3, 2e-3, 4e-3)),
        "tied_or_not",
        alt="Held-out loss against steps, mean and range of three seeds, for a tied, an untied and a wider tied model: "
        "all start at the logarithm of the vocabulary and fall.",
    )
    results.save()


if __name__ == "__main__":
    main()
