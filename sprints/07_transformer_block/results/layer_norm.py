"""Note 01: rows and columns of the sentence; layer norm in three dimensions; batch norm on sequences of many lengths.

python sprints/07_transformer_block/results/layer_norm.py     about two minutes on one core
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from copy import deepcopy

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle, Rectangle
from sentence import DOG, SENTENCE, summed

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn, optim
from shared.nn import functional as F

LONGEST, PAD = 8, 10  # sequences of the digits 0 to 9, filled up with a token of their own
IGNORED = -100


# ---------------------------------------------------------------- rows and columns


def rows_and_columns() -> plt.Figure:
    """The sentence after attention: what batch norm and layer norm take a mean of, and what layer norm makes of it."""
    before = summed().numpy()[0]
    after = F.layer_norm(summed(), (4,)).numpy()[0]
    figure, axis = plt.subplots(figsize=(9.6, 3.7))
    strongest = abs(before).max()
    for left, values, title in ((0, before, "x"), (9.2, after, "layer norm of x")):
        for r, row in enumerate(values):
            for c, value in enumerate(row):
                colour = COLORS["blue"] if value > 0 else COLORS["vermillion"]
                depth = 0.5 * abs(value) / (strongest if left == 0 else 2)
                axis.add_patch(Rectangle((left + c, r), 1, 1, facecolor=colour, alpha=depth, linewidth=0))
                axis.add_patch(Rectangle((left + c, r), 1, 1, fill=False, edgecolor="0.6", linewidth=0.8))
                text = f"{round(float(value), 2):g}".replace("-", "−")
                axis.text(left + c + 0.5, r + 0.52, text, ha="center", va="center", fontsize=10)
        axis.text(left, -0.35, title, fontsize=11, fontweight="bold")
        means, variances = values.mean(1), values.var(1)
        for r, (mean, variance) in enumerate(zip(means, variances, strict=True)):
            text = f"{round(float(mean), 2) + 0:g}".replace("-", "−")
            axis.text(left + 4.7, r + 0.52, text, ha="center", va="center", fontsize=10)
            axis.text(left + 5.8, r + 0.52, f"{round(float(variance), 2):g}", ha="center", va="center", fontsize=10)
        axis.text(left + 4.7, -0.35, "mean", ha="center", fontsize=10)
        axis.text(left + 5.8, -0.35, "variance", ha="center", fontsize=10)
    for r, word in enumerate(SENTENCE.split()):
        axis.text(-0.2, r + 0.52, word, ha="right", va="center", fontsize=11)
    frames = (((3, 0), 1, 5, COLORS["green"], "--"), ((0, DOG), 4, 1, "black", "-"))
    for corner, width, height, colour, style in frames:
        axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=2.6, linestyle=style))
    axis.text(3.5, 5.35, "a feature of all tokens", ha="center", va="center", fontsize=9, color=COLORS["green"])
    axis.set(xlim=(-1.2, 15.8), ylim=(5.7, -0.9), aspect="equal")
    axis.axis("off")
    return figure


# ---------------------------------------------------------------- three dimensions


PLANE = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])  # two directions on which the mean is 0


def on_the_plane(points: np.ndarray) -> np.ndarray:
    """Points (…, 3) seen along (1, 1, 1): their coordinates (…, 2) on the plane on which the mean is 0."""
    return points @ PLANE.T


def geometry(seed: int) -> plt.Figure:
    """Layer norm of rows of three numbers: onto the plane of mean 0, then out or in to a circle."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1.6, (24, 3)) + rng.normal(0, 2, (24, 1))
    flat = on_the_plane(x)
    normal = on_the_plane((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.4))
    for axis in (left, right):
        axis.add_patch(Circle((0, 0), 3**0.5, fill=False, edgecolor="0.5", linewidth=1.2))
        axis.plot(0, 0, "+", color="0.3")
        axis.set(aspect="equal", xlabel="(x₁ − x₂) / √2", ylabel="(x₁ + x₂ − 2x₃) / √6")
    for start, end in zip(flat, normal, strict=True):
        left.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.6", "linewidth": 0.8})
    left.plot(*flat.T, "o", color=COLORS["orange"], markersize=5, label="x − μ")
    left.plot(*normal.T, "o", color=COLORS["blue"], markersize=5, label="x̂")
    left.set_title("Forwards: to the circle of radius √3")
    left.legend(loc="upper right", fontsize=9)
    d, g = np.array([2.5, 1.7]) @ PLANE, np.array([0.7, 1.7]) @ PLANE
    hat = d / d.std()
    tangent = g - hat * (g * hat).mean()
    arrows = (
        (hat, g, COLORS["orange"], "g, without its mean"),
        (hat, tangent, COLORS["blue"], "without its part along x̂"),
        (d, tangent / d.std(), COLORS["green"], "the same, divided by σ: at x"),
    )
    for at, arrow, colour, label in arrows:
        (u, v), (du, dv) = on_the_plane(at), on_the_plane(arrow)
        right.quiver(u, v, du, dv, color=colour, angles="xy", scale_units="xy", scale=1, width=0.009, label=label)
    right.plot(*np.stack([on_the_plane(hat) * 0, on_the_plane(d)]).T, color="0.6", linewidth=0.8, linestyle="--")
    for at, name in ((hat, "x̂"), (d, "x − μ")):
        right.plot(*on_the_plane(at), "o", color="0.2", markersize=5)
        right.annotate(name, on_the_plane(at), (5, -13), textcoords="offset points", fontsize=10)
    right.set(title="Backwards: only what turns", xlim=(-2.2, 3.6), ylim=(-2.2, 3.6))
    right.legend(loc="upper left", fontsize=9)
    return figure


# ---------------------------------------------------------------- batch norm on sequences


class TokenBatchNorm(nn.Module):
    """Batch norm for sequences (B, T, d_model): a mean and a variance for each feature, over all B · T tokens."""

    def __init__(self, d_model: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class Reverser(nn.Module):
    """Digits (B, T), filled up with PAD → logits (B, T, 10): two pre-norm encoder blocks with norms of one kind."""

    def __init__(self, norm: Callable[[int], nn.Module], d_model: int = 32):
        super().__init__()
        self.embedding = nn.Embedding(PAD + 1, d_model)
        self.positions = nn.Parameter(shared.randn(LONGEST, d_model))
        self.blocks = nn.ModuleList([nn.EncoderBlock(d_model, 4, 4 * d_model, 0.0, norm_first=True) for _ in range(2)])
        for block in self.blocks:
            block.norm1, block.norm2 = norm(d_model), norm(d_model)
        self.norm, self.head = norm(d_model), nn.Linear(d_model, 10)

    def forward(self, digits: Tensor) -> Tensor:
        x = self.embedding(digits) + self.positions[: digits.shape[1]]
        may_attend = (digits != PAD)[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask=may_attend)
        return self.head(self.norm(x))


def sequences(rng: np.random.Generator, lengths: np.ndarray) -> tuple[Tensor, Tensor]:
    """Digits (B, longest), filled up with PAD, and the same backwards, filled up with IGNORED."""
    digits = np.full((len(lengths), lengths.max()), PAD)
    target = np.full(digits.shape, IGNORED)
    for row, answer, length in zip(digits, target, lengths, strict=True):
        row[:length] = rng.integers(0, 10, length)
        answer[:length] = row[:length][::-1]
    return shared.from_numpy(digits), shared.from_numpy(target)


def trained(norm: Callable[[int], nn.Module], same_length: bool, steps: int, seed: int) -> nn.Module:
    """After `steps` batches of 32, each of sequences of one length, or each of mixed lengths, from 2 to LONGEST."""
    shared.manual_seed(seed)
    rng, model = np.random.default_rng(seed), Reverser(norm)
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        lengths = np.full(32, rng.integers(2, LONGEST + 1)) if same_length else rng.integers(2, LONGEST + 1, 32)
        digits, target = sequences(rng, lengths)
        loss = F.cross_entropy(model(digits).reshape(-1, 10), target.reshape(-1), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def accuracy(model: nn.Module, length: int, batch_size: int) -> float:
    """Per cent of digits written right, 200 sequences of one length, in the mode in which the model comes."""
    digits, target = sequences(np.random.default_rng(1000), np.full(200, length))
    right = 0
    with shared.no_grad():
        for start in range(0, len(digits), batch_size):
            answer = model(digits[start : start + batch_size]).argmax(dim=-1)
            right += (answer == target[start : start + batch_size]).float().sum().item()
    return 100 * right / target.numel()


def by_length(steps: int, seeds: list[int], results: Results) -> plt.Figure:
    """Accuracy at each length, of layer norm and of batch norm in three ways of evaluating it."""
    lengths = list(range(2, LONGEST + 1))
    ways = {
        "layer": ("layer norm", nn.LayerNorm, lambda m: m.eval(), 50),
        "batch_eval": ("batch norm, eval()", TokenBatchNorm, lambda m: m.eval(), 50),
        "batch_train": ("batch norm, train mode, 50 at a time", TokenBatchNorm, lambda m: deepcopy(m).train(), 50),
        "batch_single": ("batch norm, train mode, one at a time", TokenBatchNorm, lambda m: deepcopy(m).train(), 1),
    }
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 4.1), sharey=True)
    for axis, same_length in zip(axes, (True, False), strict=True):
        models = {
            norm: [trained(norm, same_length, steps, s) for s in seeds] for norm in (nn.LayerNorm, TokenBatchNorm)
        }
        kind = "same" if same_length else "mixed"
        for (key, (label, norm, mode, size)), colour, marker in zip(ways.items(), (0, 3, 1, 2), "osv^", strict=True):
            found = np.array([[accuracy(mode(model), n, size) for n in lengths] for model in models[norm]])
            width = 5 if key == "layer" else 1.8  # a broad line beneath, which those that cover it leave visible
            axis.plot(
                lengths, found.mean(0), marker=marker, markersize=5, linewidth=width, color=COLORS[colour], label=label
            )
            axis.fill_between(lengths, found.min(0), found.max(0), color=COLORS[colour], alpha=0.15)
            results.metric(f"length_{kind}_{key}", round(float(found.mean()), 1), unit="%")
            results.metric(f"length_{kind}_{key}_worst", round(float(found.mean(0).min()), 1), unit="%")
            print(f"{kind:5} {label:38} {found.mean(0).round(1)}", flush=True)
        axis.set(title=f"Trained on batches of {'one length' if same_length else 'mixed lengths'}")
        axis.set(xlabel="length of the sequence (digits)", xticks=lengths, ylim=(0, 104))
    axes[0].set_ylabel("digits written right (%)")
    axes[1].legend(loc="lower right", fontsize=9)
    results.metric("length_steps", steps, unit="steps")
    results.metric("length_seeds", len(seeds), unit="seeds")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=900, help="of each training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="(default: 0 1)")
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seeds[0])
    results.figure(
        rows_and_columns(),
        "rows_and_columns",
        alt="The sentence as a table of five tokens and four features. A solid frame around the dog's row, whose mean "
        "is 2 and variance 5; a dashed one around a column. Beside it the table after layer norm: every row has mean 0 "
        "and variance 1.",
    )
    results.figure(
        geometry(args.seeds[0]),
        "layer_norm_geometry",
        alt="Left, 24 rows of three numbers on the plane on which the mean is 0, and arrows from each to a circle "
        "around the origin. Right, a gradient at a point of the circle, its part along the circle, and at the row.",
    )
    results.figure(
        by_length(args.steps, args.seeds, results),
        "batch_norm_by_length",
        alt="Digits written right against the length of the sequence, for layer norm and for batch norm evaluated in "
        "three ways. Trained on batches of one length each, batch norm in eval mode fails and layer norm does not.",
    )
    results.save()


if __name__ == "__main__":
    main()
