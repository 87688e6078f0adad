"""Note 06: parameters and multiplications layer by layer; filters, feature maps, confusions and the worst mistakes.

python sprints/04_advanced_training_mnist/results/looking.py     mnist-5k, about a minute on two cores
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
from networks import cnn, digits, lenet5, parameters, statistics, tensors
from train_mnist import Digits, on_test, train

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn
from shared.nn import functional as F

# ---------------------------------------------------------------- cost


def multiplications(model: nn.Module, x: Tensor) -> dict[str, tuple[int, int]]:
    """For each layer with weights (parameters, multiplications for one image), counted by hooks on a pass of `x`.

    Every weight of a convolution is used once per output position; a linear layer has one position. Batch norm
    multiplies each of its elements once.
    """
    found: dict[str, tuple[int, int]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        name = f"{len(found) + 1} {type(module).__name__}"
        each = math.prod(output.shape[1:])  # outputs of one image
        if isinstance(module, nn.BatchNorm2d):
            times = each
        else:
            times = each * math.prod(module.weight.shape[1:])
        found[name] = parameters(module), times

    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kinds)]
    with shared.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def cost(results: Results) -> plt.Figure:
    """Where the parameters are and where the multiplications are, for both networks."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 5.4), sharex="col")
    x = shared.zeros(1, 1, 28, 28)
    for row, (key, title, model) in enumerate((("lenet", "LeNet-5", lenet5()), ("cnn", "CNN with batch norm", cnn()))):
        layers = multiplications(model.eval(), x)
        names = list(layers)
        totals = [sum(values[i] for values in layers.values()) for i in (0, 1)]
        results.metric(f"{key}_total_parameters", totals[0])
        results.metric(f"{key}_total_multiplications", totals[1])
        for i, (axis, what) in enumerate(zip(axes[row], ("parameters", "multiplications"), strict=True)):
            axis.barh(names, [layers[name][i] / 1000 for name in names], color=COLORS[i])
            axis.invert_yaxis()
            axis.set_title(f"{title}: {totals[i]:,}", fontsize=11)
            axis.set_xlabel(f"{what} (thousands)")
        print(title, layers, "total", totals)
    return figure


def pace() -> dict[str, float]:
    """Milliseconds of CPU time of a training step with 64 digits, by network."""
    shared.manual_seed(0)
    x, y = shared.randn(64, 1, 28, 28), shared.randint(0, 10, (64,))
    found = {}
    for name, make in (("lenet", lenet5), ("cnn", cnn), ("cnn_plain", lambda: cnn(normalise=False))):
        model, times = make(), []
        optimizer = shared.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(60):
            start = time.process_time()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            times.append(time.process_time() - start)
        found[name] = round(1000 * float(np.median(times[10:])), 1)
    return found


def pace_alone(results: Results) -> None:
    """`pace` in a process of its own on one thread, where CPU time is hardly changed by what else the machine does."""
    one = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    output = subprocess.run(
        [sys.executable, __file__, "--pace"], env=os.environ | one, check=True, capture_output=True, text=True
    ).stdout
    for name, milliseconds in json.loads(output).items():
        results.metric(f"{name}_step", milliseconds, unit="ms")
        print(f"{name:10} step {milliseconds} ms of CPU time")


# ---------------------------------------------------------------- filters and maps


def bare(axis: plt.Axes, image: np.ndarray, title: str = "", **style: object) -> None:
    """An image without ticks."""
    axis.imshow(image, **({"cmap": "gray_r"} | style))
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    if title:
        axis.set_title(title, fontsize=8, loc="center")


def filters(model: nn.Sequential, image: Tensor) -> plt.Figure:
    """The six 5 × 5 filters of LeNet-5's first layer, what each makes of one digit, and that after relu and pooling."""
    weights = model[0].weight.detach().numpy()[:, 0]
    with shared.no_grad():
        after = model[0](image)[0].numpy()
        pooled = model[:3](image)[0].numpy()
    limit = np.abs(weights).max()
    figure, axes = plt.subplots(3, 7, figsize=(10, 4.6))
    bare(axes[1, 0], image[0, 0].numpy(), "the digit")
    for axis in (axes[0, 0], axes[2, 0]):
        axis.axis("off")
    for i in range(6):
        bare(axes[0, i + 1], weights[i], f"filter {i + 1}", cmap="RdBu", vmin=-limit, vmax=limit)
        reach = np.abs(after).max()
        bare(axes[1, i + 1], after[i], "its map", cmap="RdBu", vmin=-reach, vmax=reach)
        bare(axes[2, i + 1], pooled[i], "relu, pooled")
    return figure


def maps(model: nn.Sequential, image: Tensor) -> plt.Figure:
    """Twelve maps of one digit behind each of the three blocks of the network with batch norm."""
    figure, axes = plt.subplots(3, 13, figsize=(11, 3.2))
    bare(axes[1, 0], image[0, 0].numpy(), "the digit")
    for axis in (axes[0, 0], axes[2, 0]):
        axis.axis("off")
    with shared.no_grad():
        for block in range(3):
            out = model[: 4 * block + 4](image)[0].numpy()
            loudest = out.reshape(len(out), -1).mean(1).argsort()[::-1][:12]
            for axis, channel in zip(axes[block, 1:], sorted(loudest), strict=True):
                bare(axis, out[channel], f"{channel}", vmin=0)
            size = "×".join(str(n) for n in out.shape[1:])
            axes[block, 1].set_ylabel(f"block {block + 1}\n{len(out)} maps\n{size}", fontsize=8)
    return figure


# ---------------------------------------------------------------- mistakes


def readings(model: nn.Module, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(guess (N,), probabilities (N, 10)) in eval mode."""
    model.eval()
    with shared.no_grad():
        p = F.softmax(model(x), dim=1).numpy()
    return p.argmax(1), p


def confusion(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """(10, 10): row the true digit, column the one that was read."""
    table = np.zeros((10, 10), dtype=int)
    np.add.at(table, (truth, guess), 1)
    return table


def draw_confusion(tables: dict[str, np.ndarray]) -> plt.Figure:
    """One panel per network; the diagonal is left white so that mistakes can be seen."""
    figure, axes = plt.subplots(1, len(tables), figsize=(10, 4.8))
    highest = max((t - np.diag(np.diag(t))).max() for t in tables.values())
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        wrong = table - np.diag(np.diag(table))
        axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=highest)
        for i in range(10):
            for j in range(10):
                if table[i, j]:
                    axis.text(j, i, table[i, j], ha="center", va="center", fontsize=8, color="0.45" if i == j else "k")
        axis.set(title=f"{title}: {wrong.sum()} mistakes", xlabel="read as", ylabel="true digit")
        axis.set_xticks(range(10))
        axis.set_yticks(range(10))
        axis.grid(False)
    return figure


def draw_mistakes(images: np.ndarray, truth: np.ndarray, guess: np.ndarray, p: np.ndarray) -> plt.Figure:
    """The misread digits, most confident first, with what they are called and what they were read as."""
    wrong = np.flatnonzero(guess != truth)
    worst = wrong[np.argsort(-p[wrong, guess[wrong]])][:16]
    figure, axes = plt.subplots(2, 8, figsize=(10.4, 3.4))
    for axis in axes.flat:
        axis.axis("off")
    for axis, i in zip(axes.flat, worst, strict=False):
        axis.axis("on")
        bare(axis, images[i], f"{truth[i]}, read as {guess[i]}\n{p[i, guess[i]]:.0%} ({p[i, truth[i]]:.0%})")
    return figure


def trained(name: str, data: Digits, epochs: int, seed: int) -> nn.Sequential:
    """The network as train_mnist.py trains it with this seed."""
    shared.manual_seed(seed)
    model = {"lenet": lenet5, "cnn": cnn}[name]()
    train(model, data, epochs, 64, progress=False)
    print(f"{name}: {on_test(model, data)}", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="(default: %(default)s, as in train_mnist.py)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pace", action="store_true", help="only time a training step of each network")
    args = parser.parse_args()
    if args.pace:
        print(json.dumps(pace()))
        return
    use_style()
    results = Results(__file__, seed=args.seed)
    results.figure(
        cost(results),
        "parameters_and_multiplications",
        alt="Bars of parameters and of multiplications per layer for two networks: LeNet-5 has most parameters in its "
        "first linear layer and most multiplications in its second convolution; in the other network the second and "
        "third convolution have equal multiplications.",
    )
    pace_alone(results)
    data = digits()
    x, y = tensors(data["test"], *statistics(data["train"]))
    truth = y.numpy()
    models = {
        "LeNet-5": trained("lenet", data, args.epochs, args.seed),
        "CNN": trained("cnn", data, args.epochs, args.seed),
    }
    chosen = x[int(np.flatnonzero(truth == 4)[0]) :][:1]
    results.figure(
        filters(models["LeNet-5"], chosen),
        "filters",
        alt="Six filters of 5 × 5 weights in red and blue, the map each makes of a handwritten 4, and the map after "
        "relu and pooling.",
        ext="png",
    )
    results.figure(
        maps(models["CNN"], chosen),
        "feature_maps",
        alt="A handwritten 4 and twelve maps behind each of three blocks: outlines first, then strokes and corners, "
        "then 3 × 3 squares in which no digit can be seen.",
        ext="png",
    )
    tables, misread = {}, []
    for name, model in models.items():
        guess, p = readings(model, x)
        tables[name] = confusion(truth, guess)
        wrong = tables[name] - np.diag(np.diag(tables[name]))
        results.metric(f"mistakes_{name.lower().replace('-', '')}", int(wrong.sum()), unit="mistakes")
        misread.append(set(np.flatnonzero(guess != truth).tolist()))
        told = [f"{truth[i]} as {guess[i]} ({p[i, guess[i]]:.2f})" for i in sorted(misread[-1])]
        print(f"{name}: {len(told)} mistakes: {', '.join(told)}", flush=True)
    results.metric("mistakes_both", len(misread[0] & misread[1]), unit="mistakes")
    results.metric("test_digits", len(truth), unit="digits")
    results.figure(
        draw_confusion(tables),
        "confusion",
        alt="Two tables of ten true digits by ten readings; LeNet-5 has more off the diagonal than the network with "
        "batch norm.",
    )
    results.figure(
        draw_mistakes(data["test"].data.numpy(), truth, guess, p),
        "worst_mistakes",
        alt="The test digits that the network misreads, the most confident mistake first, each with its label, the "
        "reading and both probabilities.",
        ext="png",
    )
    results.save()


if __name__ == "__main__":
    main()
