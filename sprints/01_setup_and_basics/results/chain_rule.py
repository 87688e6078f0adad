"""Note 03: the one-neuron example as a graph with gradients, and nudging against a backward pass, timed."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from itertools import count

import matplotlib.pyplot as plt
import numpy as np

from course.plotting import COLORS, use_style
from course.results import Results

numbers = count()


class Value:
    """A single number that remembers what it was made from: the class of note 03."""

    def __init__(self, data: float, inputs: tuple = (), locals_: tuple = ()) -> None:
        self.data, self.grad = data, 0.0
        self.inputs, self.locals, self.number = inputs, locals_, next(numbers)

    def __add__(self, other: Value) -> Value:
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __sub__(self, other: Value) -> Value:
        return Value(self.data - other.data, (self, other), (1.0, -1.0))

    def __mul__(self, other: Value) -> Value:
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def tanh(self) -> Value:
        """The hyperbolic tangent; its local derivative needs only the output."""
        h = math.tanh(self.data)
        return Value(h, (self,), (1.0 - h * h,))

    def backward(self) -> None:
        """Add to every `grad` the derivative of this value, walking creation numbers downwards."""
        graph, stack = {self}, [self]
        while stack:
            for box in stack.pop().inputs:
                if box not in graph:
                    graph.add(box)
                    stack.append(box)
        self.grad = 1.0
        for box in sorted(graph, key=lambda box: -box.number):
            for source, local in zip(box.inputs, box.locals, strict=True):
                source.grad += box.grad * local


def example(w1: float = 0.2, w2: float = 0.3, b: float = -0.2, v: float = -1.5) -> dict[str, Value]:
    """Every value of the running example by name, after one backward pass from L."""
    box = {name: Value(value) for name, value in dict(w1=w1, w2=w2, b=b, v=v, x1=1.85, x2=1.1, y=-1.0).items()}
    box["a1"] = box["w1"] * box["x1"]
    box["a2"] = box["w2"] * box["x2"]
    box["s"] = box["a1"] + box["a2"]
    box["z"] = box["s"] + box["b"]
    box["h"] = box["z"].tanh()
    box["p"] = box["v"] * box["h"]
    box["e"] = box["p"] - box["y"]
    box["L"] = box["e"] * box["e"]
    box["L"].backward()
    return box


def draw_graph(box: dict[str, Value]) -> plt.Figure:
    """The example as boxes and arrows: value above, gradient below."""
    place = {
        "w1": (0, 4), "x1": (0, 3), "w2": (0, 1.8), "x2": (0, 0.8), "b": (3.2, 1.0), "v": (6.2, 4.0),
        "y": (7.75, 1.0), "a1": (1.6, 3.5), "a2": (1.6, 1.3), "s": (3.2, 2.5), "z": (4.7, 2.5),
        "h": (6.2, 2.5), "p": (7.75, 2.5), "e": (9.3, 2.5), "L": (10.85, 2.5),
    }  # fmt: skip
    label = {
        "w1": "$w_1$", "x1": "$x_1$", "w2": "$w_2$", "x2": "$x_2$", "b": "$b$", "v": "$v$", "y": "$y$",
        "a1": "$a_1 = w_1x_1$", "a2": "$a_2 = w_2x_2$", "s": "$s = a_1+a_2$", "z": "$z = s+b$",
        "h": "$h = \\tanh z$", "p": "$p = v\\,h$", "e": "$e = p-y$", "L": "$L = e\\cdot e$",
    }  # fmt: skip
    parameters, data = {"w1", "w2", "b", "v"}, {"x1", "x2", "y"}
    arrows = "w1>a1 x1>a1 w2>a2 x2>a2 a1>s a2>s s>z b>z z>h h>p v>p p>e y>e"
    figure, axes = plt.subplots(figsize=(11.5, 4.7))
    axes.set(xlim=(-0.75, 11.6), ylim=(0.2, 4.75))
    axes.axis("off")
    axes.set_title("Forward: values in black. Backward: gradients in orange")
    style = dict(arrowstyle="-|>", color="#555555", lw=1.2, shrinkA=0, shrinkB=0)
    width, height = 1.26, 0.78

    def join(tail: str, head: str, bend: float = 0.0) -> None:
        (x0, y0), (x1, y1) = place[tail], place[head]
        if abs(y1 - y0) > 1.2 and abs(x1 - x0) < 0.1 or (x0 == x1):
            start, end = (
                (x0, y0 + math.copysign(height / 2, y1 - y0)),
                (x1, y1 - math.copysign(height / 2, y1 - y0)),
            )
        else:
            start, end = (x0 + width / 2, y0 + bend), (x1 - width / 2, y1 + bend)
        arrow = dict(style, connectionstyle=f"arc3,rad={-np.sign(bend) * 0.45}")
        axes.annotate("", xy=end, xytext=start, arrowprops=arrow)

    for arrow in arrows.split():
        join(*arrow.split(">"))
    join("e", "L", +0.15)
    join("e", "L", -0.15)
    for name, (x, y) in place.items():
        face = "#DCEBF5" if name in parameters else "#EEEEEE" if name in data else "white"
        corner = (x - width / 2, y - height / 2)
        axes.add_patch(plt.Rectangle(corner, width, height, facecolor=face, edgecolor="#333333", lw=1, zorder=3))
        axes.text(x, y + 0.24, label[name], ha="center", va="center", fontsize=10, zorder=4)
        axes.text(
            x,
            y + 0.01,
            f"{box[name].data:.4f}".replace("-", "−"),
            ha="center",
            va="center",
            fontsize=9.5,
            zorder=4,
        )
        grad = "data" if name in data else f"{box[name].grad:.4f}".replace("-", "−")
        colour = "#777777" if name in data else COLORS["vermillion"]
        axes.text(x, y - 0.24, grad, ha="center", va="center", fontsize=9.5, color=colour, zorder=4)
    return figure


def neuron(n: int, rng: np.random.Generator) -> tuple[list[float], Callable[[list[float]], tuple[Value, list[Value]]]]:
    """Weights for a neuron of n inputs, and a function from weights to (loss, boxes of the weights)."""
    x, start = (rng.normal(size=n) / math.sqrt(n)).tolist(), rng.normal(size=n).tolist()

    def loss(weights: list[float]) -> tuple[Value, list[Value]]:
        boxes = [Value(w) for w in weights]
        total = boxes[0] * Value(x[0])
        for box, feature in zip(boxes[1:], x[1:], strict=True):
            total = total + box * Value(feature)
        error = total.tanh() - Value(1.0)
        return error * error, boxes

    return start, loss


def cost(n: int, repeats: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """Least seconds for all n gradients by nudging and one backward pass, and how far they differ."""
    start, loss = neuron(n, rng)
    nudged, walked, eps = [], [], 1e-6
    for _ in range(repeats):
        began = time.perf_counter()
        base = loss(start)[0].data
        slow = []
        for i in range(n):
            moved = list(start)
            moved[i] += eps
            slow.append((loss(moved)[0].data - base) / eps)
        nudged.append(time.perf_counter() - began)
        began = time.perf_counter()
        end, boxes = loss(start)
        end.backward()
        walked.append(time.perf_counter() - began)
    gap = max(abs(a - box.grad) for a, box in zip(slow, boxes, strict=True))
    return min(nudged), min(walked), gap


def main() -> None:
    """Draw the graph, take one step, and time both ways of getting the gradients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=25, help="timings per size; the least counts (default 25)")
    parser.add_argument("--full", action="store_true", help="go on to 1,024 inputs (a minute or two more)")
    arguments = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)

    box = example()
    print("value     data    gradient")
    for name in ("a1", "a2", "s", "z", "h", "p", "e", "L", "w1", "w2", "b", "v"):
        print(f"{name:5} {box[name].data:9.4f} {box[name].grad:9.4f}")
    results.figure(
        draw_graph(box),
        "chain_rule_graph",
        alt="A graph of fifteen boxes from the weights and measurements on the left to the loss 0.0941 on "
        "the right; each box holds a value and below it a gradient, and two arrows lead from e to L.",
    )
    leaves = ("w1", "w2", "b", "v")
    results.metric("neuron_loss", box["L"].data)
    for name in leaves:
        results.metric(f"neuron_grad_{name}", box[name].grad)
    once = example(**{name: box[name].data - 0.1 * box[name].grad for name in leaves})
    twice = example(**{name: once[name].data - 0.1 * once[name].grad for name in leaves})
    promised = -0.1 * sum(box[name].grad ** 2 for name in leaves)
    results.metric("neuron_loss_after_one_step", once["L"].data)
    results.metric("neuron_loss_after_two_steps", twice["L"].data)
    results.metric("neuron_first_order_change", promised)
    losses = " -> ".join(f"{step['L'].data:.4f}" for step in (box, once, twice))
    print(f"\nloss {losses}; the first order promised a change of {promised:.4f}")
    print("after one step:", {name: round(once[name].data, 4) for name in (*leaves, "p", "e")})
    print(
        "gradient of v there:",
        round(once["v"].grad, 4),
        "and v after the second step:",
        round(twice["v"].data, 4),
    )

    rng = np.random.default_rng(0)
    sizes = [2**k for k in range(1, 11 if arguments.full else 9)]
    rows = [cost(n, arguments.repeats, rng) for n in sizes]
    print("\ninputs   nudging [ms]   backward [ms]   greatest difference")
    for n, (slow, fast, gap) in zip(sizes, rows, strict=True):
        print(f"{n:6d} {slow * 1e3:14.3f} {fast * 1e3:15.3f} {gap:21.1e}")
    figure, axes = plt.subplots()
    axes.loglog(sizes, [1e3 * row[0] for row in rows], "o-", label="nudging each weight")
    axes.loglog(sizes, [1e3 * row[1] for row in rows], "s-", label="one backward pass", color=COLORS["vermillion"])
    axes.set(
        xlabel="inputs of the neuron",
        ylabel="time for all gradients [ms]",
        title="Two ways to every gradient",
    )
    axes.set_xscale("log", base=2)
    axes.legend()
    results.figure(
        figure,
        "chain_rule_cost",
        alt="Time against the number of inputs on logarithmic axes: nudging climbs twice as steeply as one "
        "backward pass.",
    )
    results.metric("nudging_ms_256", 1e3 * rows[7][0], unit="ms")
    results.metric("backward_ms_256", 1e3 * rows[7][1], unit="ms")
    results.metric("nudging_over_backward_256", rows[7][0] / rows[7][1])
    results.save()


if __name__ == "__main__":
    main()
