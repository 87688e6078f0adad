"""Notes 02 and 03: the softmax's Jacobian, wrong gradients in a training, masks, and what a mask lets through.

python sprints/06_multi_head_attention/results/gradients_and_masks.py          about half a minute
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from dot_products import learn_lookup
from sentence import BIT, DOG_BIT_MAN, SCALE, canvas, label_columns, label_rows, projected, sentence, words
from sentence import write_grid as write

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn, optim
from shared.arrays.kernels.attention import reference
from shared.autograd import Function
from shared.nn import masks

F = nn.functional


# ---------------------------------------------------------------- the gradient


def fixed(values: np.ndarray) -> list[list[str]]:
    """Each number with three places, and a real minus."""
    return [[f"{value:.3f}".replace("-", "−") for value in row] for row in values]


def draw_jacobian() -> plt.Figure:
    """The Jacobian of the weights of "bit", times the gradient that arrives, is the gradient of its scores."""
    q, k, v = (t.double() for t in projected(sentence()))
    weights = shared.softmax(q[BIT] @ k.mT * SCALE, -1).numpy()
    jacobian = np.diag(weights) - np.outer(weights, weights)
    arriving = v.numpy()[:, 2]  # the gradient of "which", the third number of the result, by the weights
    names = words(DOG_BIT_MAN)
    figure, axis = plt.subplots(figsize=(9.2, 3.1))
    canvas(axis, 25, 8)
    top = 2.0
    axis.text(6.7, 0.5, "Jacobian of the weights, diag(a) − a aᵀ", ha="center", fontsize=10)
    write(axis, fixed(jacobian), (1.7, top), shade=np.abs(jacobian) / jacobian.max(), width=2)
    label_rows(axis, names, (1.7, top))
    label_columns(axis, names, (1.7, top), width=2, size=9)
    axis.text(12.3, top + 2.5, "·", ha="center", va="center", fontsize=20)
    axis.text(14.0, 0.5, "da", ha="center", fontsize=10)
    write(axis, arriving[:, None], (13.0, top), width=2)
    axis.text(15.7, top + 2.5, "=", ha="center", va="center", fontsize=17)
    axis.text(17.4, 0.5, "dz", ha="center", fontsize=10)
    answer = jacobian @ arriving
    write(axis, fixed(answer[:, None]), (16.4, top), width=2, shade=np.abs(answer[:, None]) / jacobian.max())
    axis.text(19.1, top + 2.5, "=", ha="center", va="center", fontsize=17)
    axis.text(22.0, 0.5, f"a · (da − {weights @ arriving:.3f})", ha="center", fontsize=10)
    rows = [
        [f"{a:.3f} · ({d - weights @ arriving:.3f})".replace("-", "−")] for a, d in zip(weights, arriving, strict=True)
    ]
    write(axis, rows, (19.7, top), width=4.6, size=9.5)
    axis.text(17.4, top + 5.5, "sum 0", ha="center", va="center", fontsize=9)
    axis.text(6.7, top + 5.5, "each row and each column sums to 0", ha="center", va="center", fontsize=9)
    return figure


def finite_differences(results: Results) -> None:
    """How far the formulas of note 02 are from central differences, relative to the largest entry of each gradient."""
    rng = np.random.default_rng(0)
    q, k, v, grad = (rng.standard_normal(s) for s in ((7, 4), (9, 4), (9, 3), (7, 3)))

    def loss() -> float:
        return float((reference.attention(q, k, v, None, SCALE)[0] * grad).sum())

    weights = reference.attention(q, k, v, None, SCALE)[1]
    found = reference.attention_gradient(q, k, v, weights, grad, SCALE)
    worst, h = 0.0, 1e-6
    for x, formula in zip((q, k, v), found, strict=True):
        measured = np.zeros_like(x)
        for place in np.ndindex(x.shape):
            kept = x[place]
            x[place] = kept + h
            above = loss()
            x[place] = kept - h
            measured[place] = (above - loss()) / (2 * h)
            x[place] = kept
        worst = max(worst, float(np.abs(measured - formula).max() / np.abs(formula).max()))
    results.metric("finite_difference_error", float(f"{worst:.1e}"))
    print(f"largest difference from finite differences, relative: {worst:.1e}")


class AttentionWithBug(Function):
    """Attention without masks, whose gradient has one of four forms."""

    def __init__(self, bug: str):
        self.bug = bug

    def forward(self, q, k, v):
        self.scale = q.dtype.type(q.shape[-1] ** -0.5)
        out, weights = reference.attention(q, k, v, None, self.scale)
        self.saved = (q, k, v, weights)
        return out

    def backward(self, grad):
        q, k, v, weights = self.saved
        to_weights = grad @ v.mT
        mean = (weights * to_weights).sum(axis=-1, keepdims=True)
        if self.bug == "sum":
            mean = 0 * mean
        to_scores = to_weights - mean
        if self.bug != "weights":
            to_scores = weights * to_scores
        if self.bug != "scale":
            to_scores = to_scores * self.scale
        return to_scores @ k, to_scores.mT @ q, weights.mT @ grad


BUGS = {
    "none": ("right", "-", "blue"),
    "sum": ("without the sum", "--", "vermillion"),
    "scale": ("without the scale", ":", "green"),
    "weights": ("without the weights in front", "-.", "purple"),
}


def smooth(losses: list[float], width: int = 10) -> np.ndarray:
    """The running mean over the last `width` steps, or as many as there have been; NaN from the first NaN on."""
    sums = np.cumsum([0.0, *losses])
    ends = np.arange(1, len(losses) + 1)
    return (sums[ends] - sums[np.maximum(ends - width, 0)]) / np.minimum(ends, width)


def train_with_bugs(d: int, rate: float, results: Results) -> dict[float, dict[str, list[float]]]:
    """{offset of the values: {bug: the loss at each step of the lookup of note 01}}."""
    found: dict[float, dict[str, list[float]]] = {}
    for offset in (0.0, 3.0):
        found[offset] = {}
        for bug in BUGS:

            def attend(q: Tensor, k: Tensor, v: Tensor, bug: str = bug) -> Tensor:
                return AttentionWithBug(bug)(q, k, v)

            with np.errstate(all="ignore"):
                losses = learn_lookup(d, rate, attend, offset=offset)
            found[offset][bug] = losses
            end = float(np.mean(losses[-40:]))
            if math.isfinite(end):
                results.metric(f"bug_{bug}_offset_{offset:g}", float(f"{end:.2g}"))
            else:
                broken = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
                results.metric(f"bug_{bug}_offset_{offset:g}_nan_step", broken, unit="steps")
                end = f"NaN from step {broken}"
            print(f"values around {offset:g}, gradient {BUGS[bug][0]}: {end}")
    results.metric("bug_rate", rate)
    for bug in ("none", "scale", "weights"):  # they keep the sum, so an offset cannot matter to them
        left, right = (np.array(curves[bug]) for curves in found.values())
        apart = ~(np.abs(left - right) <= 0.01 * left)
        same = int(apart.argmax()) if apart.any() else len(left)
        results.metric(f"bug_{bug}_same_steps", same, unit="steps")
        print(f"gradient {BUGS[bug][0]}: the same loss for both offsets, to a hundredth, for the first {same} steps")
    return found


def draw_bugs(found: dict[float, dict[str, list[float]]]) -> plt.Figure:
    """Loss curves, a panel for each offset of the values."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.5), sharey=True)
    for axis, (offset, curves) in zip(axes, found.items(), strict=True):
        for bug, losses in curves.items():
            name, style, colour = BUGS[bug]
            curve = smooth(losses)
            steps = np.arange(1, len(curve) + 1)
            axis.plot(steps, curve, style, color=COLORS[colour], label=name)
            if not np.isfinite(curve[-1]):
                last = int(np.flatnonzero(np.isfinite(curve))[-1])
                axis.plot(steps[last], curve[last], "x", color=COLORS[colour], markersize=9, markeredgewidth=2.5)
        axis.set(title=f"Values around {offset:g}", xlabel="step", yscale="log", ylim=(1e-4, 20))
    axes[0].set(ylabel="squared error (running mean of 10)")
    axes[0].legend(fontsize=8, loc="upper right", ncols=2)
    return figure


# ---------------------------------------------------------------- masks


def padded() -> tuple[Tensor, list[str], Tensor]:
    """ "The man bit", filled up to five tokens: embeddings (5, 4), words, and the padding mask (1, 5)."""
    x = shared.cat([sentence([0, 3, 2]), shared.zeros(2, 4)])
    return x, ["the", "man", "bit", "<pad>", "<pad>"], masks.length_mask(shared.tensor([3]), 5)[0, 0]


def draw_masks(results: Results) -> plt.Figure:
    """The weights of a padded sentence without mask, with each of two, and with both."""
    x, names, padding = padded()
    q, k, _ = projected(x)
    ahead = masks.look_ahead_mask(5)
    cases = {"none": None, "padding": padding, "look-ahead": ahead, "both": masks.combined_mask(padding, ahead)}
    figure, axis = plt.subplots(figsize=(10.4, 2.9))
    canvas(axis, 48.2, 12.2)
    for n, (title, mask) in enumerate(cases.items()):
        allowed = None if mask is None else mask.expand(5, 5).numpy()
        weights = reference.attention_weights(reference.attention_scores(q.numpy(), k.numpy(), allowed, SCALE))
        if title == "none":
            results.metric("padding_weight", float(f"{weights[2, 3:].sum():.3g}"))
        at = (3.4 + 11.4 * n, 3.0)
        cells = [
            ["" if allowed is not None and not allowed[r, c] else f"{weights[r, c]:.2f}" for c in range(5)]
            for r in range(5)
        ]
        write_tall(axis, cells, at, weights, allowed)
        axis.text(at[0] + 5, 0.5, title, ha="center", fontsize=11, weight="bold")
        for c, name in enumerate(names):
            axis.text(at[0] + 2 * c + 1, at[1] - 0.5, name, ha="center", fontsize=7.5)
        if n == 0:
            for r, name in enumerate(names):
                axis.text(at[0] - 0.3, at[1] + 1.8 * r + 0.9, name, ha="right", va="center", fontsize=8.5)
    return figure


def write_tall(axis: plt.Axes, cells: list[list[str]], at: tuple[float, float], weights: np.ndarray, allowed) -> None:
    """Cells of 2 × 1.8, shaded by weight; those that a mask hides are grey and hatched."""
    for r, row in enumerate(cells):
        for c, text in enumerate(row):
            corner = (at[0] + 2 * c, at[1] + 1.8 * r)
            hidden = allowed is not None and not allowed[r, c]
            face = "0.85" if hidden else COLORS["blue"]
            axis.add_patch(
                plt.Rectangle(corner, 2, 1.8, facecolor=face, alpha=1 if hidden else 0.6 * weights[r, c], lw=0)
            )
            axis.add_patch(plt.Rectangle(corner, 2, 1.8, fill=False, edgecolor="0.55", lw=0.7))
            axis.text(corner[0] + 1, corner[1] + 0.95, text, ha="center", va="center", fontsize=8)


def influence(length: int = 6) -> dict[str, np.ndarray]:
    """{kind of mask: the norm of ∂out_i/∂x_j, (length, length)} for random embeddings and matrices."""
    rows = shared.arange(length)
    one_too_far = rows <= rows[:, None] + 1
    before = rows < rows[:, None]
    shared.manual_seed(0)
    x = shared.randn(length, 4).double()
    w = [shared.randn(4, 4).double() / 2 for _ in range(3)]

    def norms(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> np.ndarray:
        found = np.zeros((length, length))
        for i in range(length):
            for c in range(4):
                leaf = x.clone().requires_grad_()
                attend(*(leaf @ m for m in w))[i, c].backward()
                found[i] += (leaf.grad.numpy() ** 2).sum(axis=1)
        return np.sqrt(found)

    def masked(mask: Tensor | None) -> np.ndarray:
        return norms(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    ahead = masks.look_ahead_mask(length)
    return {
        "no mask": masked(None),
        "look-ahead": masked(ahead),
        "one too far": masked(one_too_far),
        "not itself": masked(before),
        "zeroed after": norms(lambda q, k, v: (shared.softmax(q @ k.mT / 2, -1) * ahead.double()) @ v),
    }


def draw_influence(found: dict[str, np.ndarray]) -> plt.Figure:
    """How strongly each result depends on each token, under five masks; exact zeros are left white."""
    figure, axes = plt.subplots(1, len(found), figsize=(10.6, 2.7), sharey=True)
    top = max(f.max() for f in found.values())
    for axis, (title, norms) in zip(axes, found.items(), strict=True):
        shown = np.ma.masked_equal(np.sqrt(norms / top), 0)
        axis.imshow(shown, cmap="viridis_r", vmin=0, vmax=1)
        for place in np.argwhere(norms == 0):
            axis.text(place[1], place[0], "0", ha="center", va="center", fontsize=8, color="0.4")
        axis.set(xticks=range(len(norms)), yticks=range(len(norms)), xlabel="token j")
        axis.set_title(title, fontsize=10.5)
        axis.grid(False)
    axes[0].set(ylabel="result i")
    return figure


LEAKS = {
    "right": ("look-ahead", "-", "blue"),
    "after": ("zeroed after the softmax", "--", "orange"),
    "far": ("one too far", "-.", "vermillion"),
    "none": ("no mask", ":", "black"),
}
TOKENS, LENGTH = 8, 12


def learn_to_predict(kind: str, steps: int, seed: int = 0) -> list[float]:
    """The loss at each step of predicting the next of random tokens, which nobody can, with one layer of attention."""
    shared.manual_seed(seed)
    width = 16
    table, attend, out = nn.Embedding(TOKENS, width), nn.MultiHeadAttention(width, 1), nn.Linear(width, TOKENS)
    positions = nn.Parameter(shared.randn(LENGTH, width))
    model = nn.ModuleList([table, attend, out])
    optimizer = optim.Adam([positions, *model.parameters()], lr=1e-2)
    rows = shared.arange(LENGTH)
    mask = {"right": masks.look_ahead_mask(LENGTH), "far": rows <= rows[:, None] + 1}.get(kind)
    losses = []
    for _ in range(steps):
        tokens = shared.randint(0, TOKENS, (64, LENGTH + 1))
        x = table(tokens[:, :-1]) + positions
        if kind == "after":
            q, k, v = attend.project(x)
            weights = shared.softmax(q @ k.mT * width**-0.5, -1) * masks.look_ahead_mask(LENGTH).float()
            seen = attend.out_proj(attend.combine_heads(weights @ v))
        else:
            seen = attend(x, mask=mask)
        loss = F.cross_entropy(out(seen).reshape(-1, TOKENS), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def draw_leaks(steps: int, results: Results) -> plt.Figure:
    """Loss curves of a task with a known lowest loss, under four masks."""
    figure, axis = plt.subplots(figsize=(7, 3.6))
    for kind, (name, style, colour) in LEAKS.items():
        losses = learn_to_predict(kind, steps)
        end = float(np.mean(losses[-50:]))
        results.metric(f"leak_{kind}", float(f"{end:.3f}"), unit="nats")
        print(f"next of {TOKENS} random tokens, mask {name}: {end:.3f} nats")
        axis.plot(np.arange(1, steps + 1), smooth(losses), style, color=COLORS[colour], label=name)
    floor = math.log(TOKENS)
    results.metric("leak_floor", float(f"{floor:.4f}"), unit="nats")
    results.metric("leak_last_only", float(f"{floor / LENGTH:.3f}"), unit="nats")
    axis.axhline(floor, color="0.5", linewidth=1)
    axis.text(steps * 0.62, floor + 0.05, f"ln {TOKENS}: nothing to learn", fontsize=9, color="0.35")
    axis.set(title="Predicting random tokens", xlabel="step", ylabel="loss (nats)", ylim=(0, 2.6))
    axis.legend(loc=(0.6, 0.13), fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--steps", type=int, default=400, help="steps of the next-token training (default: %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="learning rate of the lookups (default: %(default)s)")
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    start = time.perf_counter()
    results.figure(
        draw_jacobian(),
        "jacobian",
        alt="The five by five Jacobian of the weights of the word bit, with 0.172 for dog by dog and −0.082 for dog by "
        "man, times the column 0, 1, 0, 0, −1 gives −0.026, 0.254, −0.026, −0.026, −0.176, each the weight times the "
        "difference between its da and 0.673.",
    )
    finite_differences(results)
    results.figure(
        draw_bugs(train_with_bugs(64, args.rate, results)),
        "wrong_gradients",
        alt="Loss curves of a learnt lookup with the right gradient and three wrong ones. With values around 0 the one "
        "without the sum is as good as the right one; with values around 3 it is far above it.",
    )
    results.figure(
        draw_masks(results),
        "masks",
        alt="Four tables of weights for the sentence the, man, bit and two padding tokens. Without a mask the padding "
        "gets weight; with the padding mask its columns are hidden; with the look-ahead mask the triangle above the "
        "diagonal; with both masks both.",
    )
    results.figure(
        draw_influence(influence()),
        "influence",
        alt="Five squares of six by six: how strongly result i depends on token j. Without a mask everywhere; with the "
        "look-ahead mask only on and below the diagonal; one too far adds a diagonal above; not itself leaves row 0 "
        "empty; zeroed after the softmax fills the square again, in paler colours above the diagonal.",
    )
    results.figure(
        draw_leaks(args.steps, results),
        "leaks",
        alt="Loss against the step for predicting random tokens. With the look-ahead mask it stays at ln 8; with "
        "weights zeroed after the softmax it sinks below; with a mask that lets through one token too many, or none, "
        "it falls to about 0.2.",
    )
    results.metric("leak_steps", args.steps, unit="steps")
    results.save()
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
