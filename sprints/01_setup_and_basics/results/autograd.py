"""Note 04: the recorded graph, the shapes of a matrix product backward, and what a graph keeps in memory."""

from __future__ import annotations

import argparse
import tracemalloc

import matplotlib.pyplot as plt

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.drawing import draw_graph

MIB = 2**20


def neuron() -> tuple[shared.Tensor, dict[str, shared.Tensor]]:
    """The loss of the neuron on the four flowers, float64, and its parameters by name."""
    options = {"dtype": shared.float64, "requires_grad": True}
    petals = shared.tensor([[1.4, 0.2], [4.7, 1.4], [6.0, 2.5], [4.5, 1.5]], dtype=shared.float64)
    y = shared.tensor([[-1.0], [1.0], [-1.0], [1.0]], dtype=shared.float64)
    x = petals - petals.mean(0)
    parameters = {
        "w": shared.tensor([[0.2], [0.3]], **options),
        "b": shared.tensor(-0.2, **options),
        "v": shared.tensor(-1.5, **options),
    }
    w, b, v = parameters.values()
    return ((v * (x @ w + b).tanh() - y) ** 2).mean(), parameters


def draw_products() -> plt.Figure:
    """Forward C = A B and the two backward products, drawn to scale for shapes (4, 2) and (2, 3)."""
    figure, axes = plt.subplots(figsize=(10.5, 5.0))
    axes.set(xlim=(-3.2, 19), ylim=(-10.6, 0.6))
    axes.axis("off")
    axes.set_aspect("equal")
    axes.set_title("Forward, and the two products of the backward pass")
    shade = {"A": COLORS["blue"], "B": COLORS["orange"], "C": COLORS["green"], "G": COLORS["purple"]}

    def block(left: float, top: float, rows: int, columns: int, kind: str, text: str) -> None:
        for i in range(rows):
            for j in range(columns):
                cell = (left + j * 0.8, top - (i + 1) * 0.8)
                axes.add_patch(plt.Rectangle(cell, 0.8, 0.8, fc=shade[kind], alpha=0.5, ec="#555555", lw=0.8))
        label = f"{text}\n({rows}, {columns})"
        axes.text(left + columns * 0.4, top - rows * 0.8 - 0.15, label, ha="center", va="top", fontsize=10)

    def sign(x: float, y: float, text: str) -> None:
        axes.text(x, y, text, ha="center", va="center", fontsize=15)

    axes.text(-3.1, -1.6, "forward", fontsize=11, weight="bold", va="center")
    block(0, 0, 4, 2, "A", "X")
    sign(2.1, -1.6, "·")
    block(2.6, -0.8, 2, 3, "B", "W")
    sign(5.5, -1.6, "=")
    block(6, 0, 4, 3, "C", "Z")
    axes.text(-3.1, -7.4, "to X", fontsize=11, weight="bold", va="center")
    block(-0.9, -5.8, 4, 3, "G", "G")
    sign(1.95, -7.4, "·")
    block(2.4, -6.2, 3, 2, "B", "Wᵀ")
    sign(4.5, -7.4, "=")
    block(5, -5.8, 4, 2, "A", "gradient of X")
    axes.text(7.7, -7.4, "to W", fontsize=11, weight="bold", va="center")
    block(9.2, -6.6, 2, 4, "A", "Xᵀ")
    sign(12.7, -7.4, "·")
    block(13.0, -5.8, 4, 3, "G", "G")
    sign(15.8, -7.4, "=")
    block(16.2, -6.6, 2, 3, "B", "gradient of W")
    return figure


def memory_profile(layers: int, rows: int, width: int, mode: str) -> list[float]:
    """MiB in use after each layer's forward, and as the gradient of each layer's output arrives."""
    shared.manual_seed(0)
    weights = [(shared.randn(width, width) / width**0.5).requires_grad_() for _ in range(layers)]
    h = shared.randn(rows, width)
    curve: list[float] = []
    tracemalloc.start()
    base = tracemalloc.get_traced_memory()[0]

    def note(_: shared.Tensor | None = None) -> None:
        curve.append((tracemalloc.get_traced_memory()[0] - base) / MIB)

    with shared.set_grad_enabled(mode != "no_grad"):
        for w in weights:
            h = (h @ w).tanh()
            if mode != "no_grad":
                h.register_hook(note)
            note()
        loss = (h * h).mean()
    if mode != "no_grad":
        del h
        loss.backward(retain_graph=mode == "retain_graph")
    tracemalloc.stop()
    return curve


def history_memory(steps: int, keep: str) -> float:
    """MiB still in use after `steps` evaluations of which a history is kept: 'tensor' or 'number'."""
    shared.manual_seed(0)
    w = (shared.randn(128, 256) / 128**0.5).requires_grad_()
    x = shared.randn(1024, 128)
    tracemalloc.start()
    base, history = tracemalloc.get_traced_memory()[0], []
    for _ in range(steps):
        loss = (x @ w).tanh().mean()
        history.append(loss if keep == "tensor" else loss.item())
        del loss
    used = (tracemalloc.get_traced_memory()[0] - base) / MIB
    tracemalloc.stop()
    return used


def main() -> None:
    """Draw, measure, and compare with the by-hand numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=20, help="layers of the memory profile (default 20)")
    arguments = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)

    loss, parameters = neuron()
    picture = draw_graph(loss, parameters, direction="LR", engine="matplotlib")
    (results.folder / "figures").mkdir(exist_ok=True)
    picture.save(results.folder / "figures" / "autograd_graph.svg")
    loss.backward()
    print(f"loss {loss.item():.4f}")
    results.metric("four_flowers_loss", loss.item())
    for name, parameter in parameters.items():
        values = parameter.grad.flatten().tolist()
        print(f"gradient of {name}:", [round(value, 4) for value in values])
        for place, value in enumerate(values):
            results.metric(f"four_flowers_grad_{name}{place if len(values) > 1 else ''}", value)
    results.figure(
        draw_products(),
        "matmul_backward",
        alt="Blocks of cells: X (4, 2) times W (2, 3) is Z (4, 3); G (4, 3) times W transposed (3, 2) has "
        "the shape of X; X transposed (2, 4) times G (4, 3) has the shape of W.",
    )

    layers = arguments.layers
    curves = {mode: memory_profile(layers, 1024, 256, mode) for mode in ("backward", "retain_graph", "no_grad")}
    figure, axes = plt.subplots(figsize=(7.4, 4.2))
    names = {
        "retain_graph": ("backward(retain_graph=True)", "vermillion", "--"),
        "backward": ("backward()", "blue", "-"),
        "no_grad": ("under no_grad, no backward", "green", ":"),
    }
    for mode, (name, colour, line) in names.items():
        axes.plot(range(1, len(curves[mode]) + 1), curves[mode], line, color=COLORS[colour], label=name)
        print(f"{name:30} peak {max(curves[mode]):.1f} MiB, at the end {curves[mode][-1]:.1f} MiB")
        results.metric(f"peak_mib_{mode}", max(curves[mode]), unit="MiB")
        results.metric(f"end_mib_{mode}", curves[mode][-1], unit="MiB")
    axes.axvline(layers + 0.5, color="#777777", lw=0.8)
    axes.text(layers - 0.2, 13, "forward", ha="right", color="#555555")
    axes.text(layers + 1.2, 13, "backward", ha="left", color="#555555")
    axes.set(
        xlabel="layers passed",
        ylabel="memory in use [MiB]",
        title=f"What {layers} layers remember",
        ylim=(0, None),
    )
    axes.legend(loc="upper left")
    results.figure(
        figure,
        "autograd_memory",
        alt="Memory rises with each layer of the forward pass. In the backward pass it falls where the "
        "graph is released, rises further where it is retained; under no_grad it stays flat.",
    )
    for keep in ("tensor", "number"):
        used = history_memory(50, keep)
        print(f"a history of 50 losses, each kept as a {keep}: {used:.1f} MiB")
        results.metric(f"history_mib_{keep}", used, unit="MiB")
    results.save()


if __name__ == "__main__":
    main()
