"""Pictures of computation graphs: what led to a tensor, from its leaves to itself, as SVG.

Graphviz lays the graph out where its `dot` program and the `graphviz` package are there; elsewhere an own layout
in layers does, drawn with matplotlib. The same graph gives the same SVG, byte for byte, with either.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.autograd import Function
from shared.tensor import Tensor

_STYLE = {  # kind: (fill, outline), light tints of Okabe and Ito's colours under black text
    "leaf": ("#d6eaf8", "#0072B2"),
    "op": ("#ffffff", "#666666"),
    "result": ("#fbe3d0", "#D55E00"),
}


class Drawing(str):
    """An SVG picture as a string, which notebooks show as a picture."""

    def _repr_svg_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"<Drawing of {len(self)} characters of SVG; .save('graph.svg') writes it>"

    def save(self, path: str | os.PathLike) -> None:
        """Writes the picture to an .svg file."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self)


def draw_graph(
    tensor: Tensor,
    params: Mapping[str, Tensor] | Any | None = None,
    *,
    values: bool = True,
    direction: str | None = None,
    engine: str | None = None,
) -> Drawing:
    """The graph that `tensor` came from: leaves in blue, operations in white, the result in orange.

    `params` names tensors: a dict, or a module with `named_parameters()`; intermediate results may be named as
    well, and then show their values. Each box has the shape and, with `values`, the elements of tensors that have
    up to four, and the gradients there are. Inputs that need no gradient are not in the graph. To see gradients,
    keep the graph with `backward(retain_graph=True)`.
    `direction` is "LR" or "TB" (default: whichever is less wide than long graphs allow), `engine` "dot" or
    "matplotlib" (default: dot where it is installed).

    >>> import shared
    >>> w, x = shared.tensor(2.0, requires_grad=True), shared.tensor(3.0, requires_grad=True)
    >>> picture = draw_graph(w * x + 1, {"w": w, "x": x}, engine="matplotlib")
    >>> picture.startswith("<svg"), "Mul" in picture
    (True, True)
    """
    graph = _collect(tensor, _names(params), values)
    if engine not in (None, "dot", "matplotlib"):
        raise ValueError(f"engine must be 'dot' or 'matplotlib', but got {engine!r}")
    if direction not in (None, "LR", "TB"):
        raise ValueError(f"direction must be 'LR' or 'TB', but got {direction!r}")
    layers = _layers(graph)
    if direction is None:
        direction = "LR" if max(layers.values()) <= 6 else "TB"
    if engine == "dot" or (engine is None and _has_dot()):
        return Drawing(_clean(_render_with_dot(_dot_source(graph, direction)), graph))
    return Drawing(_clean(_render_with_matplotlib(graph, layers, direction), graph))


# ---------------------------------------------------------------- what to draw


@dataclass
class _Box:
    kind: str  # a key of _STYLE
    title: str
    lines: list[str]


@dataclass
class _Graph:
    boxes: list[_Box] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)  # from an input to what uses it


def _names(params: Any) -> dict[Any, tuple[str, Tensor]]:
    """From a leaf's id, or the node that made a tensor, to the tensor's name and the tensor."""
    if params is None:
        return {}
    if hasattr(params, "named_parameters"):
        pairs: Iterable = params.named_parameters()
    else:
        pairs = params.items() if isinstance(params, Mapping) else params
    return {(id(t) if t.grad_fn is None else t.grad_fn): (name, t) for name, t in pairs}


def _collect(tensor: Tensor, names: dict[Any, tuple[str, Tensor]], values: bool) -> _Graph:
    """Walks from the result back to the leaves; boxes are numbered as they are met."""
    root = tensor.grad_fn
    if root is None:
        raise ValueError(
            "this tensor has no graph: it is a leaf, or nothing it came from requires a gradient. Draw the result "
            "of an operation on tensors with requires_grad=True"
        )
    graph = _Graph([_op_box(root, names.get(root, ("", tensor)), "result", values)])
    numbers: dict[Any, int] = {root: 0}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.edges is None:
            raise ValueError(
                "the graph was released by backward. Draw it before that, or keep it with backward(retain_graph=True)"
            )
        for edge in node.edges:
            if edge is None:
                continue
            if edge not in numbers:
                numbers[edge] = len(graph.boxes)
                if isinstance(edge, Function):
                    graph.boxes.append(_op_box(edge, names.get(edge, ("", None)), "op", values))
                    stack.append(edge)
                else:
                    name = names.get(id(edge), ("", edge))[0]
                    graph.boxes.append(_leaf_box(edge, name, values))
            graph.edges.append((numbers[edge], numbers[node]))
    return graph


def _leaf_box(leaf: Tensor, name: str, values: bool) -> _Box:
    return _Box("leaf", name or type(leaf).__name__.lower(), _lines(leaf.shape, leaf if values else None))


def _op_box(node: Function, known: tuple[str, Tensor | None], kind: str, values: bool) -> _Box:
    name, tensor = known
    lines = _lines(node.shape, tensor if values else None)
    return _Box(kind, f"{node.name} → {name}" if name else node.name, lines)


def _lines(shape: Iterable[int], tensor: Tensor | None) -> list[str]:
    """The shape, the value where it is known and short, and the gradient where there is one."""
    shape = tuple(shape)
    lines = [f"shape {shape}" if shape else "scalar"]
    if tensor is None:
        return lines
    if tensor.numel() <= 4:
        value = f"= {_numbers(tensor)}"
        lines = [*lines, value] if shape else [value]
    grad = tensor.grad if tensor.grad_fn is None or tensor.retains_grad else None
    if grad is not None:
        lines.append(f"grad {_numbers(grad)}" if grad.numel() <= 4 else f"|grad| {_norm(grad):.4g}")
    return lines


def _numbers(tensor: Tensor) -> str:
    listed = [f"{v:.4g}" for v in tensor.detach().reshape(-1).tolist()]
    return f"[{', '.join(listed)}]" if tensor.ndim else listed[0]


def _norm(tensor: Tensor) -> float:
    return float((tensor.detach() ** 2).sum().item()) ** 0.5


def _clean(svg: str, graph: _Graph) -> str:
    """The <svg> element alone, without versions and dates, and with a title for those who cannot see it."""
    svg = svg[svg.index("<svg") :]
    ops = [box.title for box in graph.boxes if box.kind != "leaf"]
    leaves = [box.title for box in graph.boxes if box.kind == "leaf"]
    title = f"Computation graph from {', '.join(leaves)} through {', '.join(reversed(ops))}"
    end = svg.index(">") + 1
    return f"{svg[:end]}\n<title>{_escape(title)}</title>{svg[end:]}".rstrip() + "\n"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


# ---------------------------------------------------------------- with Graphviz


def _has_dot() -> bool:
    if shutil.which("dot") is None:
        return False
    try:
        import graphviz  # noqa: F401
    except ImportError:
        return False
    return True


def _dot_source(graph: _Graph, direction: str) -> str:
    """The graph in Graphviz's language."""
    lines = [
        "digraph {",
        f"  rankdir={direction}; bgcolor=transparent; nodesep=0.25; ranksep=0.45;",
        '  node [shape=box, style="filled,rounded", margin="0.14,0.07"];',
        '  node [fontname="Helvetica,Arial,sans-serif", fontsize=11];',
        '  edge [color="#555555", arrowsize=0.7];',
    ]
    for i, box in enumerate(graph.boxes):
        fill, outline = _STYLE[box.kind]
        label = "\\n".join(json.dumps(text, ensure_ascii=False)[1:-1] for text in [box.title, *box.lines])
        lines.append(f'  n{i} [label="{label}", fillcolor="{fill}", color="{outline}"];')
    lines += [f"  n{a} -> n{b};" for a, b in graph.edges]
    return "\n".join([*lines, "}"])


def _render_with_dot(source: str) -> str:
    import graphviz

    return graphviz.Source(source).pipe(format="svg", encoding="utf-8")


# ---------------------------------------------------------------- an own layout, in layers
# After Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures", 1981:
# layers by distance, order within a layer by the mean place of the neighbours, then positions. Edges over several
# layers get an invisible point in each, which keeps them clear of the boxes.


def _layers(graph: _Graph) -> dict[int, int]:
    """The layer of every box: after all of its inputs; a leaf just before its first use."""
    inputs, users = defaultdict(list), defaultdict(list)
    for a, b in graph.edges:
        inputs[b].append(a)
        users[a].append(b)
    layers: dict[int, int] = {}
    stack = [0]
    while stack:
        box = stack[-1]
        missing = [a for a in inputs[box] if a not in layers]
        if missing:
            stack += missing
        else:
            layers[box] = 1 + max((layers[a] for a in inputs[box]), default=-1)
            stack.pop()
    for box in layers:
        if graph.boxes[box].kind == "leaf":
            layers[box] = min(layers[b] for b in users[box]) - 1
    return layers


def _chains(graph: _Graph, layers: dict[int, int]) -> list[list[Any]]:
    """Each edge as a list of places: a box, a point (edge, layer) for each layer between, a box."""
    chains = []
    for a, b in dict.fromkeys(graph.edges):
        points = [((a, b), layer) for layer in range(layers[a] + 1, layers[b])]
        chains.append([a, *points, b])
    return chains


def _order(chains: list[list[Any]], layers: dict[int, int]) -> list[list[Any]]:
    """The places of each layer in an order with few crossings: sorted by the mean place of their neighbours."""
    rows: list[list[Any]] = [[] for _ in range(max(layers.values()) + 1)]
    neighbours: dict[Any, list[Any]] = defaultdict(list)
    for box in sorted(layers):
        rows[layers[box]].append(box)
    for chain in chains:
        for place in chain[1:-1]:
            rows[place[1]].append(place)
        for a, b in zip(chain, chain[1:], strict=False):
            neighbours[a].append(b)
            neighbours[b].append(a)
    for sweep in range(8):
        down = sweep % 2 == 0
        for i in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            rows[i] = _by_mean_place(rows[i], rows[i - 1] if down else rows[i + 1], neighbours)
    return rows


def _by_mean_place(row: list[Any], beside: list[Any], neighbours: Mapping[Any, list[Any]]) -> list[Any]:
    """`row` sorted by the mean place of each one's neighbours in the layer `beside`."""
    there = {place: (k + 0.5) / len(beside) for k, place in enumerate(beside)}
    here = {place: (k + 0.5) / len(row) for k, place in enumerate(row)}

    def mean(place: Any) -> float:
        found = [there[n] for n in neighbours[place] if n in there]
        return sum(found) / len(found) if found else here[place]

    return sorted(row, key=mean)


def _coordinates(
    rows: list[list[Any]], chains: list[list[Any]], room: Mapping[Any, float], gap: float
) -> dict[Any, float]:
    """The middle of every place across the layers: near its neighbours, and clear of the next one in its layer."""
    neighbours: dict[Any, list[Any]] = defaultdict(list)
    for chain in chains:
        for a, b in zip(chain, chain[1:], strict=False):
            neighbours[a].append(b)
            neighbours[b].append(a)
    at = {place: k * 50.0 for row in rows for k, place in enumerate(row)}
    for sweep in range(40):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wished = [sum(at[n] for n in neighbours[p]) / max(1, len(neighbours[p])) for p in row]
            apart = [(room[a] + room[b]) / 2 + gap for a, b in zip(row, row[1:], strict=False)]
            at.update(zip(row, _spread(wished, apart), strict=True))
    return at


def _spread(wished: list[float], apart: list[float]) -> list[float]:
    """Numbers near `wished`, each at least `apart[i]` after the one before it."""
    pushed_down, pushed_up = list(wished), list(wished)
    for i, distance in enumerate(apart):
        pushed_down[i + 1] = max(pushed_down[i + 1], pushed_down[i] + distance)
    for i in range(len(apart) - 1, -1, -1):
        pushed_up[i] = min(pushed_up[i], pushed_up[i + 1] - apart[i])
    return [(a + b) / 2 for a, b in zip(pushed_down, pushed_up, strict=True)]


_FONT, _LINE, _PAD = 10.0, 13.0, 8.0  # text size, line distance and a box's inner margin, in points


def _box_size(box: _Box) -> tuple[float, float]:
    """Width and height of a box around its text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    measure = TextToPath().get_text_width_height_descent
    weights = ["bold"] + ["normal"] * len(box.lines)
    widths = [
        measure(text, FontProperties(size=_FONT, weight=weight), False)[0]
        for text, weight in zip([box.title, *box.lines], weights, strict=True)
    ]
    return max(widths) + 2 * _PAD, _LINE * len(widths) + 1.2 * _PAD


def _render_with_matplotlib(graph: _Graph, layers: dict[int, int], direction: str) -> str:
    """Places the boxes, then draws them and the edges, in the same way whatever style is in use."""
    from matplotlib import rc_context, style

    with style.context("default"), rc_context({"svg.hashsalt": "shared.drawing", "svg.fonttype": "path"}):
        return _draw(graph, *_place(graph, layers, direction), direction)


def _place(graph: _Graph, layers: dict[int, int], direction: str) -> tuple[Any, Any, Any]:
    """The chains of the edges, and the middle and the size of every place, in points."""
    chains = _chains(graph, layers)
    rows = _order(chains, layers)
    sizes: dict[Any, tuple[float, float]] = {i: _box_size(box) for i, box in enumerate(graph.boxes)}
    along, across = (0, 1) if direction == "LR" else (1, 0)
    room = {p: sizes[p][across] if isinstance(p, int) else 4.0 for row in rows for p in row}
    across_at = _coordinates(rows, chains, room, gap=14.0)
    centres: dict[Any, tuple[float, float]] = {}
    edge = 0.0
    for row in rows:
        depth = max(sizes[p][along] for p in row if isinstance(p, int))
        for place in row:
            middle = (edge + depth / 2, across_at[place])
            centres[place] = (middle[0], -middle[1]) if direction == "LR" else (middle[1], -middle[0])
            if not isinstance(place, int):  # an edge runs straight past the boxes of this layer
                sizes[place] = (depth, 0.0) if direction == "LR" else (0.0, depth)
        edge += depth + 30.0
    return chains, centres, sizes


def _draw(
    graph: _Graph,
    chains: list[list[Any]],
    centres: Mapping[Any, tuple[float, float]],
    sizes: Mapping[Any, tuple[float, float]],
    direction: str,
) -> str:
    """An SVG of just the size that the boxes and edges need."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    corners = [(x - w / 2, x + w / 2, y - h / 2, y + h / 2) for (x, y), (w, h) in _placed(centres, sizes)]
    left, right = min(c[0] for c in corners) - 6, max(c[1] for c in corners) + 6
    low, high = min(c[2] for c in corners) - 6, max(c[3] for c in corners) + 6
    figure = Figure(figsize=((right - left) / 72, (high - low) / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(low, high))
    axes.set_axis_off()
    for chain in chains:
        path = _curve(chain, centres, sizes, direction)
        axes.add_patch(
            FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=9, color="#555555", lw=1, fc="#555555")
        )
    for i, box in enumerate(graph.boxes):
        (x, y), (w, h), (fill, outline) = centres[i], sizes[i], _STYLE[box.kind]
        shape = "round,pad=0,rounding_size=5"
        axes.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, boxstyle=shape, fc=fill, ec=outline, lw=1.2))
        for k, text in enumerate([box.title, *box.lines]):
            weight = "bold" if k == 0 else "normal"
            place = y + h / 2 - 0.6 * _PAD - (k + 0.5) * _LINE
            axes.text(x, place, text, size=_FONT, weight=weight, ha="center", va="center_baseline", parse_math=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _placed(centres: Mapping[Any, tuple[float, float]], sizes: Mapping[Any, tuple[float, float]]) -> list[Any]:
    """Middle and size of every place."""
    return [(centre, sizes[place]) for place, centre in centres.items()]


def _curve(
    chain: list[Any],
    centres: Mapping[Any, tuple[float, float]],
    sizes: Mapping[Any, tuple[float, float]],
    direction: str,
) -> Any:
    """A smooth path from the edge of the first box through the points to the edge of the last."""
    from matplotlib.path import Path

    points = []
    for place in chain:
        (x, y), (w, h) = centres[place], sizes[place]
        points += [(x - w / 2, y), (x + w / 2, y)] if direction == "LR" else [(x, y + h / 2), (x, y - h / 2)]
    points = points[1:-1]
    vertices, codes = [points[0]], [Path.MOVETO]
    for (xa, ya), (xb, yb) in zip(points, points[1:], strict=False):
        if direction == "LR":
            bends = [((xa + xb) / 2, ya), ((xa + xb) / 2, yb)]
        else:
            bends = [(xa, (ya + yb) / 2), (xb, (ya + yb) / 2)]
        vertices += [*bends, (xb, yb)]
        codes += [Path.CURVE4] * 3
    return Path(vertices, codes)
