"""Note 03: what each connection does to the gradient of each block, who needs a warm-up, where dropout may stand.

python sprints/07_transformer_block/results/feed_forward.py     about four minutes on one core
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sentence import block, embedded
from stacks import Reader, batches, gradient_norm, loss_of, train

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import nn

CEILING = 2.6  # a loss beyond it, or not a number, is drawn there
LOOK = {"post": (COLORS[3], "s", "post-norm"), "pre": (COLORS[0], "o", "pre-norm")}


# ---------------------------------------------------------------- gradients by block


def fresh(way: str, depth: int, seed: int) -> Reader:
    """A model whose stream begins with variance 1, embeddings and positions together, and not with 2.

    Post-norm's first norm would take the 2 away, and pre-norm's stream would keep it to the end.
    """
    shared.manual_seed(seed)
    model = Reader(way, depth, feed_forward=True)
    with shared.no_grad():
        for table in (model.embedding.weight, model.positions):
            table.mul_(0.5**0.5)
    return model


def by_block(way: str, depth: int, seed: int) -> list[float]:
    """The length of the first loss's gradient by `linear2.weight` of each block's feed-forward network."""
    model = fresh(way, depth, seed)
    loss_of(model, *next(batches(seed))).backward()
    networks = [m for m in model.modules() if isinstance(m, nn.PositionwiseFeedForward)]
    return [gradient_norm([m.linear2.weight]) for m in networks]


def at_the_top(way: str, depth: int, seed: int) -> tuple[float, float]:
    """The variance of the stream behind the last block, and the length of the first loss's gradient by it."""
    model, (digits, target) = fresh(way, depth, seed), next(batches(seed))
    stream = model.layers(model.embedding(digits) + model.positions)
    stream.retain_grad()
    logits = model.head(model.norm(stream))
    nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1)).backward()
    return float(stream.detach().numpy().var(axis=-1).mean()), float(np.linalg.norm(stream.grad.numpy()))


def gradients(depths: list[int], seeds: list[int], results: Results) -> plt.Figure:
    """Gradients of all blocks of the deepest stack, and of the last block against depth."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 4.0), sharey=True)
    for way, (colour, marker, name) in LOOK.items():
        found = {depth: np.array([by_block(way, depth, seed) for seed in seeds]) for depth in depths}
        deepest = found[depths[-1]]
        variance, length = np.mean([at_the_top(way, depths[-1], seed) for seed in seeds], axis=0)
        results.metric(f"top_variance_{way}", float(f"{variance:.2g}"))
        results.metric(f"top_gradient_{way}", float(f"{length:.2g}"))
        numbers = range(1, depths[-1] + 1)
        left.plot(numbers, deepest.mean(0), marker=marker, markersize=4, color=colour, label=name)
        left.fill_between(numbers, deepest.min(0), deepest.max(0), color=colour, alpha=0.2)
        last = np.array([found[depth][:, -1] for depth in depths])
        right.plot(depths, last.mean(1), marker=marker, markersize=5, color=colour, label=name)
        right.fill_between(depths, last.min(1), last.max(1), color=colour, alpha=0.2)
        for depth in depths:
            results.metric(f"gradient_first_{way}_{depth}", round(float(found[depth][:, 0].mean()), 3))
            results.metric(f"gradient_last_{way}_{depth}", round(float(found[depth][:, -1].mean()), 3))
        print(
            f"{name:10} first block {[round(float(found[d][:, 0].mean()), 3) for d in depths]}, "
            f"last {last.mean(1).round(3)}, at the top variance {variance:.2f}, gradient {length:.3g}",
            flush=True,
        )
    left.set(
        title=f"{depths[-1]} blocks", xlabel="block", ylabel="length of the gradient by linear2.weight", ylim=(0, None)
    )
    right.set(title="The last block", xlabel="blocks in the stack")
    right.set_xscale("log", base=2)
    right.set_xticks(depths, [str(d) for d in depths])
    left.legend()
    results.metric("block_seeds", len(seeds), unit="seeds")
    return figure


# ---------------------------------------------------------------- warm-up


def warmups(depth: int, steps: int, warmup: int, seeds: list[int], results: Results) -> plt.Figure:
    """Loss after training against the learning rate, with and without warm-up, post- and pre-norm; and two curves."""
    rates = [1e-3, 3e-3, 1e-2, 2e-2]
    shown = 1e-2
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.2), sharey=True)
    for way, (colour, marker, name) in LOOK.items():
        for length, line in ((0, "--"), (warmup, "-")):
            label = f"{name}, {f'warm-up of {length} steps' if length else 'no warm-up'}"
            ends = np.empty((len(rates), len(seeds)))
            for i, rate in enumerate(rates):
                for j, seed in enumerate(seeds):
                    shared.manual_seed(seed)
                    losses = train(Reader(way, depth, feed_forward=True), steps, rate, length, seed)
                    end = float(np.mean(losses[-20:]))
                    ends[i, j] = min(end, CEILING) if np.isfinite(end) else CEILING
                    if rate == shown and j == 0:
                        smooth = np.convolve(losses, np.ones(10) / 10, mode="valid")
                        left.plot(range(9, steps), smooth, line, color=colour, label=label)
                key = f"warmup_{way}_{'with' if length else 'without'}_{rate:g}"
                results.metric(key, round(float(ends[i].mean()), 3), unit="nats")
                results.metric(f"{key}_worst", round(float(ends[i].max()), 3), unit="nats")
            right.plot(rates, ends.mean(1), line, marker=marker, markersize=5, color=colour)
            right.fill_between(rates, ends.min(1), ends.max(1), color=colour, alpha=0.12)
            print(f"{label:34} {dict(zip(rates, ends.round(3).tolist(), strict=True))}", flush=True)
    for axis in (left, right):
        axis.axhline(np.log(10), color="0.4", linewidth=1, linestyle=":")
    left.set(title=f"{depth} blocks, rate {shown:g}", xlabel="step", ylabel="loss (nats)", ylim=(-0.08, CEILING))
    right.set(title=f"After {steps} steps", xlabel="highest learning rate (Adam)")
    right.set_xscale("log")
    right.set_xticks(rates, [f"{r:g}" for r in rates])
    right.minorticks_off()
    left.legend(fontsize=8.5, loc="center right")
    results.metric("warmup_depth", depth, unit="blocks")
    results.metric("warmup_steps", steps, unit="steps")
    results.metric("warmup_length", warmup, unit="steps")
    results.metric("warmup_seeds", len(seeds), unit="seeds")
    return figure


def collapse(depth: int, rate: float, warmup: int, results: Results) -> None:
    """What the first steps do: how different tokens still are, what is left of the identity path, the first gradient.

    The identity path of a post-norm stack is multiplied by 1/σ in every norm, σ being the width of the sum there.
    """
    cases = {"post": ("post", 0), "warm": ("post", warmup), "pre": ("pre", 0)}
    digits, target = next(batches(1000))
    for key, (way, length) in cases.items():
        for steps in (0, 1, 20):
            shared.manual_seed(0)
            model = Reader(way, depth, feed_forward=True)
            train(model, steps, rate, length)
            model.zero_grad()
            loss_of(model, digits, target).backward()
            path, x = 1.0, model.embedding(digits) + model.positions
            with shared.no_grad():
                for layer in model.layers:
                    if way == "post":
                        path /= float((x + layer.part(x)).numpy().std(axis=-1).mean())
                    x = layer(x)
                out = model.norm(x).numpy()
            apart = float(((out - out.mean(1, keepdims=True)) ** 2).sum() / (out**2).sum())
            first = gradient_norm([model.layers[1].part.linear2.weight])
            for name, value in (("apart", apart), ("path", path), ("first", first)):
                results.metric(f"collapse_{key}_{name}_{steps}", float(f"{value:.2g}"))
            print(f"{key:5} step {steps:2}: apart {apart:.2g}, identity path {path:.2g}, first gradient {first:.2g}")


# ---------------------------------------------------------------- dropout on the path


def dropped(depth: int, p: float, results: Results) -> None:
    """What is left of an input after `depth` parts that add nothing, with dropout on the sum instead of the part."""
    shared.manual_seed(0)
    x = shared.ones(1000, 100)
    for _ in range(depth):
        x = nn.functional.dropout(x, p)
    left, loud = round(100 * (x > 0).float().mean().item(), 1), round((x * x).mean().item(), 1)
    results.metric("dropout_parts", depth, unit="parts")
    results.metric("dropout_left", left, unit="%")
    results.metric("dropout_mean_square", loud)
    print(f"dropout {p} on the path, {depth} parts: {left}% of the numbers are left, mean square {loud}")


# ---------------------------------------------------------------- the dog


def the_dog() -> plt.Figure:
    """The dog's four numbers on their way through the post-norm block with whole numbers."""
    layer, x = block(), embedded()
    with shared.no_grad():
        attended = layer.self_attention(x)
        normal = layer.norm1(x + attended)
        fed = layer.feed_forward(normal)
        stages = (x, attended, x + attended, normal, fed, normal + fed, layer.norm2(normal + fed))
    names = ("x", "attention", "sum", "layer norm", "feed-forward", "sum", "layer norm")
    figure, axes = plt.subplots(1, len(stages), figsize=(11.4, 2.8), sharey=True)
    for axis, values, name in zip(axes, stages, names, strict=True):
        row = values[0, 1].numpy()
        axis.bar(range(1, 5), row, color=[COLORS[i] for i in (0, 3, 2, 1)], width=0.75)
        axis.axhline(0, color="0.3", linewidth=0.8)
        for place, value in enumerate(row, start=1):
            text = f"{round(float(value), 2) + 0:g}".replace("-", "−")
            axis.text(place, value + (0.15 if value >= 0 else -0.15), text, ha="center", fontsize=8.5,
                      va="bottom" if value >= 0 else "top")  # fmt: skip
        axis.set_title(name, fontsize=10)
        axis.set(xticks=range(1, 5), ylim=(-4, 6))
        axis.grid(False)
    axes[0].set_ylabel("value")
    axes[3].set_xlabel("feature")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="of each training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="(default: 0 1)")
    args = parser.parse_args()
    use_style()
    np.seterr(over="ignore", invalid="ignore")  # divergence is one of the subjects
    results = Results(__file__, seed=args.seeds[0])
    results.figure(
        the_dog(),
        "dog_through_the_block",
        alt="Seven bar charts of the dog's four numbers: 2, 0, 1, 0; what attention adds, −3, 5, 0, 3; the sum "
        "−1, 5, 1, 3; normalised; what the feed-forward network adds to features 1 and 3; the sum; and 1, 1, −1, −1.",
    )
    dropped(24, 0.1, results)
    results.figure(
        gradients([2, 6, 12, 24], list(range(args.seeds[0], args.seeds[0] + 5)), results),
        "pre_and_post_gradients",
        alt="Length of the gradient of each block before training, in a stack of 24 blocks, and of the last block "
        "against the depth of the stack: in a shallow stack both orders are alike, in a deep one post-norm is above.",
    )
    collapse(6, 1e-2, 150, results)
    results.figure(
        warmups(6, args.steps, 150, args.seeds, results),
        "warm_up",
        alt="Loss curves at one learning rate and final losses at four, post- and pre-norm, with and without warm-up: "
        "post-norm without warm-up stays at ln 10 at a rate at which the other three learn.",
    )
    results.save()


if __name__ == "__main__":
    main()
