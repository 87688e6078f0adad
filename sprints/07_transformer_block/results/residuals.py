"""Note 02: training against depth, gradients and tokens through 2 to 64 layers, and how loud a residual stream gets.

python sprints/07_transformer_block/results/residuals.py     about three minutes on one core
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from stacks import LENGTH, SYMBOLS, WAYS, Connected, Reader, stack, train

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn

NAMES = {
    "plain": "part(x)",
    "norm": "norm(part(x))",
    "residual": "x + part(x)",
    "post": "norm(x + part(x))",
    "pre": "x + part(norm(x))",
}
STYLE = dict(zip(WAYS, zip((3, 4, 1, 2, 0), "sD^vo", ("-", "-", "-", "--", "-"), strict=True), strict=True))
SMALLEST = 1e-20  # what a logarithmic axis shows of a gradient that has become 0


def draw(axis: plt.Axes, way: str, x: list[int], y: np.ndarray, middle: Callable[..., np.ndarray] = np.mean) -> None:
    """One way's line through the `middle` over seeds, with a band from the lowest to the highest; y (x, seeds)."""
    colour, marker, line = STYLE[way]
    axis.plot(x, middle(y, axis=1), line, marker=marker, markersize=5, color=COLORS[colour], label=NAMES[way])
    axis.fill_between(x, y.min(1), y.max(1), color=COLORS[colour], alpha=0.2)


# ---------------------------------------------------------------- training against depth


def known_digits() -> float:
    """The loss of whoever knows which digits occur in a sequence, and how often, but not where: nats."""
    digits = np.random.default_rng(0).integers(0, SYMBOLS, (100_000, LENGTH))
    share = np.stack([(digits == k).mean(1) for k in range(SYMBOLS)], axis=1)
    return float(-(share * np.log(np.where(share > 0, share, 1))).sum(1).mean())


def training(depths: list[int], steps: int, lr: float, seeds: list[int], results: Results) -> plt.Figure:
    """The loss at the end of training, for stacks of attention layers that differ in depth and connection."""
    figure, axis = plt.subplots(figsize=(7.2, 4.2))
    for way in WAYS:
        ends = np.empty((len(depths), len(seeds)))
        for i, depth in enumerate(depths):
            for j, seed in enumerate(seeds):
                shared.manual_seed(seed)
                ends[i, j] = np.mean(train(Reader(way, depth), steps, lr, seed=seed)[-20:])
            results.metric(f"train_{way}_{depth}", round(float(ends[i].mean()), 3), unit="nats")
        draw(axis, way, depths, ends)
        print(
            f"{NAMES[way]:18} loss by depth {dict(zip(depths, ends.mean(1).round(3).tolist(), strict=True))}",
            flush=True,
        )
    guess, known = float(np.log(SYMBOLS)), known_digits()
    for value, text in ((guess, "ln 10: guessing"), (known, "knowing which digits, not where")):
        axis.axhline(value, color="0.4", linewidth=1, linestyle=":")
        axis.text(depths[0], value - 0.04, text, fontsize=8.5, color="0.3", va="top")
    axis.set(title="Writing ten digits backwards", xlabel="attention layers", xticks=range(len(depths)))
    axis.set_xscale("log", base=2)
    axis.set_xticks(depths, [str(d) for d in depths])
    axis.set(ylabel=f"loss after {steps} steps (nats)", ylim=(-0.08, 2.5))
    axis.legend(loc="center right", fontsize=9)
    results.metric("train_known", round(known, 3), unit="nats")
    results.metric("train_steps", steps, unit="steps")
    results.metric("train_seeds", len(seeds), unit="seeds")
    return figure


# ---------------------------------------------------------------- gradients and tokens through depth


def flow(way: str, depth: int, seed: int) -> tuple[float, float]:
    """(length of the gradient at the input of `depth` fresh blocks, that at their output being 1; what is left of
    the differences between tokens: the share of the output's mean square that their common mean does not explain)."""
    shared.manual_seed(seed)
    layers = stack(way, depth, feed_forward=True)
    x = shared.randn(4, 16, 32, requires_grad=True)
    out = layers(x)
    direction = shared.randn(4, 16, 32)
    (out * (direction / direction.norm())).sum().backward()
    values = out.detach().numpy().astype(np.float64)
    apart = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(x.grad.numpy().astype(np.float64))  # in float32 the squares of small numbers would be 0
    return float(length), float((apart**2).sum() / (values**2).sum())


def gradients(depths: list[int], seeds: list[int], results: Results) -> plt.Figure:
    """Gradient length at the input, and differences between tokens at the output, against depth."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.2))
    for way in WAYS:
        both = np.array([[flow(way, depth, seed) for seed in seeds] for depth in depths])  # (depths, seeds, 2)
        draw(left, way, depths, np.maximum(both[..., 0], SMALLEST), np.median)
        draw(right, way, depths, np.maximum(both[..., 1], SMALLEST), np.median)
        middle = np.median(both, axis=1)
        for depth, (gradient, apart) in zip(depths, middle, strict=True):
            results.metric(f"gradient_{way}_{depth}", float(f"{gradient:.2g}"))
            results.metric(f"apart_{way}_{depth}", float(f"{apart:.2g}"))
        for name, value in (("least", both[-1, :, 0].min()), ("most", both[-1, :, 0].max())):
            results.metric(f"gradient_{way}_{depths[-1]}_{name}", float(f"{value:.2g}"))
        print(f"{NAMES[way]:18} gradient {[f'{v:.2g}' for v in middle[:, 0]]}", flush=True)
        print(f"{'':18} apart    {[f'{v:.2g}' for v in middle[:, 1]]}", flush=True)
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(depths, [str(d) for d in depths])
        axis.set_xlabel("blocks (attention and feed-forward network)")
    left.set(title="Gradient at the input", ylabel="length, if 1 at the output", ylim=(SMALLEST / 3, 1e13))
    right.set(title="Differences between tokens", ylabel="share of the output's mean square", ylim=(1e-18, 5))
    left.legend(fontsize=9, loc="upper left")
    results.metric("gradient_seeds", len(seeds), unit="seeds")
    return figure


# ---------------------------------------------------------------- how loud a residual stream gets


def kaiming_network(d_model: int, scale: float) -> nn.PositionwiseFeedForward:
    """A feed-forward network whose output is as loud as its input, times `scale`."""
    network = nn.PositionwiseFeedForward(d_model, 4 * d_model, dropout=0.0, bias=False)
    nn.init.kaiming_normal_(network.linear1.weight, nonlinearity="relu")
    nn.init.normal_(network.linear2.weight, std=scale / (4 * d_model) ** 0.5)
    return network


def loudness(way: str, depth: int, d_model: int, scale: float, seed: int) -> list[float]:
    """The mean square of what comes out of each of `depth` networks, the input's being 1."""
    shared.manual_seed(seed)
    x: Tensor = shared.randn(256, d_model)
    found = []
    with shared.no_grad():
        for _ in range(depth):
            x = Connected(kaiming_network(d_model, scale), d_model, way)(x)
            found.append((x * x).mean().item())
    return found


def stream(depth: int, seeds: list[int], results: Results) -> plt.Figure:
    """Mean square through a residual stream: without a norm, pre-norm, and with the weights divided by √depth."""
    d_model, layers = 128, np.arange(1, depth + 1)
    cases = {
        "residual": ("residual", 1.0, 2.0**layers, "x + part(x):  2ˡ"),
        "scaled": ("residual", depth**-0.5, (1 + 1 / depth) ** layers, "x + part(x)/√N:  (1 + 1/N)ˡ"),
        "pre": ("pre", 1.0, 1.0 + layers, "x + part(norm(x)):  1 + l"),
        "pre_scaled": ("pre", depth**-0.5, 1 + layers / depth, "x + part(norm(x))/√N:  1 + l/N"),
    }
    figure, axis = plt.subplots(figsize=(7.2, 4.2))
    for (key, (way, scale, predicted, label)), colour, marker in zip(cases.items(), (1, 3, 0, 2), "^sov", strict=True):
        measured = np.mean([loudness(way, depth, d_model, scale, seed) for seed in seeds], axis=0)
        axis.plot(layers, predicted, color=COLORS[colour], linewidth=1.2)
        axis.plot(layers, measured, marker, color=COLORS[colour], markersize=4, label=label)
        results.metric(f"loud_{key}", float(f"{measured[-1]:.3g}"))
        results.metric(f"loud_{key}_predicted", float(f"{predicted[-1]:.3g}"))
        print(f"{label:32} measured {measured[-1]:.4g}, predicted {predicted[-1]:.4g}", flush=True)
    axis.set_yscale("log")
    axis.set(title="How loud the sum gets", xlabel="layer l", ylabel="mean square, input 1")
    axis.legend(fontsize=9)
    results.metric("loud_depth", depth, unit="layers")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of each training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seeds[0])
    results.figure(
        stream(32, args.seeds, results),
        "residual_stream",
        alt="Mean square of the residual stream against the layer, dots measured and lines predicted: without a norm "
        "it doubles with every layer, pre-norm it grows by one per layer, with weights divided by the root of the "
        "depth it stays below e and 2.",
    )
    results.figure(
        gradients([2, 4, 8, 16, 32, 64], list(range(args.seeds[0], args.seeds[0] + 5)), results),
        "gradient_through_depth",
        alt="Left, the length of the gradient at the input against depth from 2 to 64 blocks: without residual "
        "connections it falls out of the picture, with them and a norm it stays near 1, with them and no norm it "
        "explodes. Right, the differences between tokens: without residual connections they are gone after 4 blocks; "
        "after 64 they are small without a norm and with post-norm, and pre-norm keeps a fifth.",
    )
    results.figure(
        training([1, 2, 4, 8, 16], args.steps, 3e-3, args.seeds[:2], results),
        "depth_and_training",
        alt="Final loss of writing digits backwards against the number of attention layers. Without residual "
        "connections one and two layers learn it and deeper stacks do not; with them every depth does.",
    )
    results.save()


if __name__ == "__main__":
    main()
