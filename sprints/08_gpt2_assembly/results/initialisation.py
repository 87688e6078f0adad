"""Note 04: a fresh model's loss by its logits' variance; the residual path's variance by depth; what a start costs.

python sprints/08_gpt2_assembly/results/initialisation.py      about a minute of one core, 1 GB of memory
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor
from shared.models import GPT, GPTConfig, next_token_loss
from shared.nn import init

DEPTHS, WIDTH, LENGTH = (2, 4, 8, 16, 24, 48), 128, 32

# ---------------------------------------------------------------- ways to begin


def drawn_from(std: float) -> Callable[[GPT], None]:
    """Every matrix and table normal with one standard deviation."""

    def redraw(model: GPT) -> None:
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                init.normal_(parameter, std=std)

    return redraw


def pytorch(model: GPT) -> None:
    """As PyTorch's modules begin: tables normal with standard deviation 1, layers uniform up to ±1/√inputs.

    (The attention's input layer begins otherwise there, nn.MultiheadAttention; here it is a layer like the others.)
    """
    tables = {id(model.token_embedding.weight), id(model.positions.weight)}
    for parameter in model.parameters():
        if id(parameter) in tables:
            init.normal_(parameter)
        elif parameter.ndim >= 2:
            bound = 1 / math.sqrt(parameter.shape[1])
            init.uniform_(parameter, -bound, bound)


def unscaled(model: GPT) -> None:
    """GPT-2's, but with 0.02 for the layers that end on the residual path, too."""
    with shared.no_grad():
        for block in model.blocks:
            for layer in (block.self_attention.out_proj, block.feed_forward.linear2):
                layer.weight.mul_(math.sqrt(2 * model.config.n_layer))


def fresh(config: GPTConfig, seed: int, change: Callable[[GPT], None] | None = None) -> GPT:
    """A new model, its weights drawn from `seed` and then changed."""
    shared.manual_seed(seed)
    model = GPT(config)
    if change is not None:
        with shared.no_grad():
            change(model)
    return model


# ---------------------------------------------------------------- the first loss


def first_loss(model: GPT, batch: int = 16, length: int = LENGTH) -> tuple[float, float]:
    """(loss, standard deviation of the logits) on random ids."""
    windows = shared.randint(0, model.config.vocab_size, (batch, length + 1))
    with shared.no_grad():
        logits = model(windows[:, :-1])
        return next_token_loss(logits, windows[:, 1:]).item(), float(logits.numpy().std(dtype=np.float64))


def starts(results: Results, seeds: int) -> None:
    """The first loss of the toy for several ways to begin, tied and not, and of a fresh GPT-2."""
    ways = {"gpt2": None, "pytorch": pytorch, "std1": drawn_from(1.0)}
    for tied in (True, False):
        for name, change in ways.items():
            config = GPTConfig.preset("toy", tie_weights=tied)
            found = np.array([first_loss(fresh(config, seed, change)) for seed in range(seeds)])
            key = f"start_{name}_{'tied' if tied else 'untied'}"
            results.metric(f"{key}_loss", round(float(found[:, 0].mean()), 2), unit="nats")
            results.metric(f"{key}_logits", float(f"{found[:, 1].mean():.2g}"))
            print(f"{key}: loss {found[:, 0].mean():.3f} ± {found[:, 0].std():.3f}, logits {found[:, 1].mean():.3f}")
            if name == "gpt2" and tied:
                excess = found[:, 0] - math.log(65)
                results.metric("toy_excess_mean", round(float(excess.mean()), 3), unit="nats")
                results.metric("toy_excess_smallest", round(float(excess.min()), 3), unit="nats")
                results.metric("toy_excess_largest", round(float(excess.max()), 3), unit="nats")
    results.metric("ln_65", round(math.log(65), 3), unit="nats")
    results.metric("ln_50257", round(math.log(50257), 3), unit="nats")
    shared.manual_seed(0)
    loss, spread = first_loss(GPT(GPTConfig.preset("gpt2", dropout=0.0)), 1, 128)
    results.metric("gpt2_first_loss", round(loss, 3), unit="nats")
    results.metric("gpt2_first_logits", round(spread, 3))
    print(f"GPT-2: loss {loss:.3f}, ln V {math.log(50257):.3f}, logits {spread:.3f}", flush=True)


def by_deviation(results: Results, seeds: int) -> plt.Figure:
    """The first loss against the standard deviation of the head's weights, and what half a variance predicts."""
    deviations = np.geomspace(0.003, 1, 14)
    figure, axis = plt.subplots(figsize=(7, 4.4))
    for vocab, colour, marker in ((65, "blue", "o"), (5000, "vermillion", "s")):
        config, losses = GPTConfig.preset("toy", vocab_size=vocab, tie_weights=False), []
        for deviation in deviations:

            def change(model: GPT, deviation: float = deviation) -> None:
                init.normal_(model.lm_head.weight, std=deviation)

            losses.append(np.mean([first_loss(fresh(config, seed, change))[0] for seed in range(seeds)]))
        axis.plot(deviations, losses, marker, color=COLORS[colour], label=f"measured, V = {vocab:,}")
        curve = math.log(vocab) + config.n_embd * deviations**2 / 2
        axis.plot(deviations[curve < 40], curve[curve < 40], "-", color=COLORS[colour], linewidth=1.2)
        axis.axhline(math.log(vocab), color=COLORS[colour], linestyle=":", linewidth=1)
        for wanted in (0.02, 0.1, 1.0):
            at = int(np.abs(np.log(deviations / wanted)).argmin())
            print(f"V = {vocab}, std {deviations[at]:.3f}: {losses[at]:.3f}, ln V + d σ²/2 = {curve[at]:.3f}")
    axis.set_xscale("log")
    axis.set_xticks([0.003, 0.01, 0.02, 0.05, 0.1, 0.3, 1], ["0.003", "0.01", "0.02", "0.05", "0.1", "0.3", "1"])
    axis.set(
        title="A fresh model's loss", xlabel="standard deviation of the head's weights (d = 64)", ylabel="loss (nats)"
    )
    axis.set_ylim(0, 40)
    axis.legend()
    return figure


# ---------------------------------------------------------------- the residual path


def along(model: GPT) -> tuple[list[float], list[float], list[float]]:
    """Root mean squares of the stream (L + 1) and of each part's result (2L); lengths of linear1's gradients (L)."""
    stream, parts = [], []

    def size(x: Tensor) -> float:
        return float(np.sqrt((x.detach().numpy().astype(np.float64) ** 2).mean()))

    handles = []
    for block in model.blocks:
        handles.append(block.register_forward_hook(lambda module, given, made: stream.append(size(given[0]))))
        for part in (block.self_attention, block.feed_forward):
            handles.append(part.register_forward_hook(lambda module, given, made: parts.append(size(made))))
    handles.append(model.norm.register_forward_hook(lambda module, given, made: stream.append(size(given[0]))))
    windows = shared.randint(0, model.config.vocab_size, (4, LENGTH + 1))
    next_token_loss(model(windows[:, :-1]), windows[:, 1:]).backward()
    for handle in handles:
        handle.remove()
    gradients = [block.feed_forward.linear1.weight.grad.numpy() for block in model.blocks]
    return stream, parts, [float(np.sqrt((g.astype(np.float64) ** 2).sum())) for g in gradients]


def residual_path(results: Results) -> plt.Figure:
    """The stream at its end, by depth; gradients by block in the deepest; with 1/√(2L) and without."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.2))
    ends: dict[str, list[float]] = {"scaled": [], "unscaled": []}
    for depth in DEPTHS:
        config = GPTConfig(vocab_size=65, block_size=LENGTH, n_layer=depth, n_head=4, n_embd=WIDTH, dropout=0.0)
        for name, change in (("scaled", None), ("unscaled", unscaled)):
            stream, parts, gradients = along(fresh(config, 0, change))
            ends[name].append(stream[-1])
            expected = math.sqrt(stream[0] ** 2 + sum(part**2 for part in parts))
            results.metric(f"stream_{name}_{depth}", float(f"{stream[-1]:.2g}"))
            results.metric(f"gradient_ratio_{name}_{depth}", float(f"{gradients[0] / gradients[-1]:.2g}"))
            print(
                f"{depth} blocks, {name}: {stream[0]:.4f} -> {stream[-1]:.4f}, by the sum of variances {expected:.4f};"
            )
            print(f"   last parts {parts[-2]:.4f}, {parts[-1]:.4f}; gradients {gradients[0]:.3f} … {gradients[-1]:.3f}")
            if depth == DEPTHS[-1]:
                colour, line = ("blue", "-") if name == "scaled" else ("vermillion", "--")
                right.semilogy(range(1, depth + 1), gradients, line, color=COLORS[colour], label=label(name))
                results.metric(f"stream_{name}_expected", float(f"{expected:.2g}"))
                results.metric(f"gradient_{name}_first", float(f"{gradients[0]:.2g}"))
                results.metric(f"gradient_{name}_last", float(f"{gradients[-1]:.2g}"))
                for which, values in (("attention", parts[0::2]), ("network", parts[1::2])):
                    mean = math.sqrt(float(np.mean(np.square(values))))
                    results.metric(f"part_{which}_{name}", float(f"{mean:.2g}"))
                results.metric("stream_at_the_start", float(f"{stream[0]:.2g}"))
    for name, colour, marker in (("unscaled", "vermillion", "s"), ("scaled", "blue", "o")):
        left.loglog(DEPTHS, ends[name], marker, color=COLORS[colour], label=label(name))
    power = np.sqrt(np.array(DEPTHS) / DEPTHS[-1]) * ends["unscaled"][-1]
    left.loglog(DEPTHS, power, ":", color="0.4", linewidth=1.2, label="∝ √L")
    left.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
    left.minorticks_off()
    left.set_yticks([0.03, 0.05, 0.1, 0.2, 0.5], ["0.03", "0.05", "0.1", "0.2", "0.5"])
    left.set(title="The stream before the last norm", xlabel="blocks L", ylabel="root mean square", ylim=(0.03, 0.6))
    left.legend()
    right.set(title=f"Gradients, L = {DEPTHS[-1]}", xlabel="block", ylabel="length of linear1's gradient")
    right.set_yticks([0.1, 0.2, 0.4, 0.8], ["0.1", "0.2", "0.4", "0.8"])
    right.minorticks_off()
    right.legend()
    return figure


def label(name: str) -> str:
    """For the legend."""
    return "0.02 / √(2L)" if name == "scaled" else "0.02"


# ---------------------------------------------------------------- what a start costs


def train(model: GPT, text: Tensor, steps: int, lr: float, seed: int) -> np.ndarray:
    """The losses of `steps` steps of AdamW on random windows of 16 × 32 characters, at a constant rate."""
    optimizer, generator, losses = model.configure_optimizers(lr=lr), shared.Generator(), []
    generator.manual_seed(seed)
    for _ in range(steps):
        places = shared.randint(0, len(text) - LENGTH, (16, 1), generator=generator) + shared.arange(LENGTH + 1)
        windows = text[places]
        optimizer.zero_grad()
        loss = next_token_loss(model(windows[:, :-1]), windows[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def training(results: Results, text: Tensor, steps: int = 200) -> plt.Figure:
    """The toy from three starts, each at the better of two rates."""
    figure, axis = plt.subplots(figsize=(7, 4.2))
    ways = {
        "gpt2": (None, "blue", "-"),
        "pytorch": (pytorch, "green", "--"),
        "std1": (drawn_from(1.0), "vermillion", ":"),
    }
    names = {"gpt2": "GPT-2's: 0.02", "pytorch": "PyTorch's defaults", "std1": "standard deviation 1"}
    for name, (change, colour, line) in ways.items():
        runs = {lr: train(fresh(GPTConfig.preset("toy"), 0, change), text, steps, lr, 0) for lr in (1e-3, 3e-3)}
        lr, losses = min(runs.items(), key=lambda item: item[1][-20:].mean())
        results.metric(f"train_{name}_lr", lr)
        results.metric(f"train_{name}_first", round(float(losses[0]), 2), unit="nats")
        results.metric(f"train_{name}_end", round(float(losses[-20:].mean()), 2), unit="nats")
        print(f"{name}: {losses[0]:.2f} -> {losses[-20:].mean():.3f} at {lr:g}", flush=True)
        mean = np.convolve(losses, np.ones(5) / 5, mode="valid")
        axis.plot(np.arange(len(mean)) + 3, mean, line, color=COLORS[colour], label=names[name])
        if name == "gpt2":
            reference = mean
        else:
            late = int(np.argmax(reference < losses[-20:].mean())) + 3
            results.metric(f"train_{name}_reached_by_gpt2_after", late, unit="steps")
    axis.axhline(math.log(65), color="0.4", linestyle=":", linewidth=1)
    axis.text(steps, math.log(65) * 1.03, "ln V", ha="right", color="0.3")
    axis.set_yscale("log")
    axis.set_yticks([2, 3, 5, 10, 20, 40], ["2", "3", "5", "10", "20", "40"])
    axis.minorticks_off()
    axis.set(title="What a start costs", xlabel="step", ylabel="training loss (nats)")
    axis.legend()
    return figure


def large_table(model: GPT) -> None:
    """GPT-2's start, but with standard deviation 1 for the table at both ends."""
    init.normal_(model.token_embedding.weight)


def large_blocks(model: GPT) -> None:
    """GPT-2's start, but with standard deviation 1 for the matrices of the blocks."""
    for parameter in model.blocks.parameters():
        if parameter.ndim >= 2:
            init.normal_(parameter)


def halves(results: Results, text: Tensor, steps: int = 200) -> None:
    """Which part of a start with standard deviation 1 costs what: the table alone, or the blocks alone."""
    for name, change in (("table1", large_table), ("blocks1", large_blocks)):
        runs = [train(fresh(GPTConfig.preset("toy"), 0, change), text, steps, lr, 0) for lr in (1e-3, 3e-3)]
        losses = min(runs, key=lambda losses: losses[-20:].mean())
        results.metric(f"train_{name}_first", round(float(losses[0]), 2), unit="nats")
        results.metric(f"train_{name}_end", round(float(losses[-20:].mean()), 2), unit="nats")
        print(f"{name}: {losses[0]:.2f} -> {losses[-20:].mean():.3f}", flush=True)


def deep(results: Results, text: Tensor, seeds: int = 8, steps: int = 100) -> None:
    """24 narrow blocks trained from both starts, at two rates: the mean loss of the last ten steps."""
    found = {}
    config = GPTConfig(vocab_size=65, block_size=LENGTH, n_layer=24, n_head=2, n_embd=32, dropout=0.0)
    for name, change in (("scaled", None), ("unscaled", unscaled)):
        for lr in (1e-3, 3e-3):
            runs = [train(fresh(config, s, change), text, steps, lr, s)[-10:].mean() for s in range(seeds)]
            key = f"deep_{name}_{'low' if lr < 2e-3 else 'high'}"
            found[key] = np.array(runs)
            results.metric(f"{key}_loss", round(float(np.mean(runs)), 2), unit="nats")
            results.metric(f"{key}_spread", round(float(np.ptp(runs)), 2), unit="nats")
            print(f"{config.n_layer} blocks, {name}, {lr:g}: {np.round(runs, 3)}", flush=True)
    results.metric("deep_seeds", seeds)
    for rate in ("low", "high"):
        better = found[f"deep_scaled_{rate}"] < found[f"deep_unscaled_{rate}"]
        results.metric(f"deep_{rate}_scaled_better", int(better.sum()))
    for name in ("scaled", "unscaled"):
        better = found[f"deep_{name}_high"] < found[f"deep_{name}_low"]
        results.metric(f"deep_{name}_high_better", int(better.sum()))


def main() -> None:
    """Measures and draws all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="fresh models for each mean")
    options = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    starts(results, options.seeds)
    results.figure(
        by_deviation(results, min(options.seeds, 3)),
        "first_loss",
        alt="Loss of a fresh model against the standard deviation of its head's weights, for 65 and 5,000 tokens: "
        "flat at the logarithm of the vocabulary up to about 0.05, then rising steeply, first as the formula says.",
    )
    results.figure(
        residual_path(results),
        "residual_path",
        alt="Left, root mean square of the stream before the last norm for 2 to 48 blocks: growing with the root of "
        "the depth with 0.02, constant with 0.02 divided by the root of 2L. Right, gradients in 48 blocks: falling "
        "from the first block to the last, much more steeply without the scaling.",
    )
    text = shared.data.load("tinyshakespeare")[0]
    characters = shared.tensor([text.chars.index(c) for c in text.text[:300_000]])
    results.figure(
        training(results, characters),
        "costly_starts",
        alt="Training loss over 200 steps from three starts, logarithmic: GPT-2's begins at ln V and falls at once; "
        "the two others begin at 18 and above and spend their first steps on coming down to it.",
    )
    halves(results, characters)
    deep(results, characters)
    results.save()


if __name__ == "__main__":
    main()
