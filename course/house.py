"""A picture of the framework: its floors and rooms as the files of shared/ are, and in them what the learner wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from . import sources
from .certify import CONSULTED, FAILING, PASSING, UNCHECKED
from .progress import STANDINGS, Row, count
from .sprints import ROOT
from .workspace import BROKEN, MISSING, NOT_STARTED, STUB, Part, Workspace

FLOORS = {
    "overlay": 0,
    "arrays": 0,
    "grad_mode": 1,
    "autocast_mode": 1,
    "autograd": 1,
    "tensor": 1,
    "printing": 1,
    "backends": 1,
    "cuda": 1,
    "ops": 2,
    "nn": 3,
    "optim": 3,
    "data": 3,
    "checkpoint": 3,
    "amp": 3,
    "testing": 3,
    "training": 3,
    "drawing": 3,
    "text": 4,
    "models": 4,
    "generation": 4,
    "peft": 4,
    "quantization": 4,
    "distributed": 4,
    "compat": 5,
    "": 5,  # shared/__init__.py, the public face
}
NAMES = (
    "Arrays without gradients",
    "Tensors and their gradients",
    "Operations",
    "Layers, optimizers, data, training",
    "Text, models, generation",
    "The public face",
)
MARKS = {PASSING: "✓", CONSULTED: "◐", FAILING: "✗", UNCHECKED: "↻", STUB: "○", NOT_STARTED: "·"}
CLASSES = {
    PASSING: "passing",
    CONSULTED: "consulted",
    FAILING: "failing",
    UNCHECKED: "changed",
    STUB: "stub",
    NOT_STARTED: "reference",
}


@dataclass
class Module:
    """One file: its place below shared/, how many functions it has, and the learner's in it by standing."""

    name: str
    path: Path
    functions: int
    rows: list[Row] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    own: int = 0

    @property
    def room(self) -> str:
        """The folder it lies in, `ops/`; empty for a file of shared/ itself."""
        return f"{self.path.parts[0]}/" if len(self.path.parts) > 1 else ""

    @property
    def label(self) -> str:
        """Its name inside the room: `kernels/optim/reference`."""
        return self.path.relative_to(self.room).with_suffix("").as_posix()

    @property
    def floor(self) -> int:
        """Where FLOORS puts it; the top floor for what the learner added."""
        return FLOORS.get(self.path.parts[0].removesuffix(".py").removeprefix("__init__"), len(NAMES) - 1)

    @property
    def standing(self) -> str:
        """What there is most reason to look at among the learner's functions."""
        order = (FAILING, UNCHECKED, STUB, CONSULTED, PASSING)
        return next((standing for standing in order if self.counts[standing]), NOT_STARTED)

    @property
    def begun(self) -> int:
        """How many of its functions are the learner's to write, or written."""
        return self.counts.total()


def modules(rows: Iterable[Row], workspace: Workspace, root: Path = ROOT) -> list[Module]:
    """Every file of shared/ that has functions, with the exercises; modules that only the learner has come last."""
    found: dict[str, Module] = {}
    for path in sorted((root / "shared").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        functions = sources.functions(path.read_text(encoding="utf-8"))
        if functions or name == "shared":
            found[name] = Module(name, path.relative_to(root / "shared"), len(functions))
    for name in workspace.modules():
        file = workspace.file(name)
        theirs = _functions_of(file)
        if name not in found:
            found[name] = Module(name, file.relative_to(workspace.folder / "shared"), len(theirs), own=len(theirs))
        else:
            reference = sources.functions(workspace.reference(name))
            found[name].own = len(set(theirs) - set(reference))
    for row in rows:
        for part in row.parts:
            module = found[part.module]
            if row not in module.rows:
                module.rows.append(row)
            if (standing := _standing(part, row)) != NOT_STARTED:
                module.counts[standing] += 1
    return list(found.values())


def _functions_of(path: Path) -> set[str]:
    try:
        return set(sources.functions(sources.read(path)))
    except (SyntaxError, OSError):
        return set()


def _standing(part: Part, row: Row) -> str:
    """One function's standing: its exercise's, but where that waits for another function, its own."""
    if part.state in (STUB, NOT_STARTED):
        return part.state
    if part.state in (BROKEN, MISSING):
        return FAILING
    return UNCHECKED if row.standing in (STUB, NOT_STARTED) else row.standing


def summary(found: Iterable[Module]) -> str:
    """`Of the framework's 812 functions you began 14: 9 passing, 2 failing, …`"""
    found = list(found)
    total, counts = sum(m.functions for m in found), sum((m.counts for m in found), Counter())
    own = sum(m.own for m in found)
    if not counts.total():
        text = f"The framework has {count(total, 'function')}; none of them is yours yet"
    else:
        states = ", ".join(f"{counts[s]} {WORDS[s]}" for s in STANDINGS if counts[s])
        text = f"Of the framework's {count(total, 'function')} you began {counts.total()}: {states}"
    return text + (f"; besides, {count(own, 'helper')} of your own" if own else "") + "."


WORDS = {
    PASSING: "passing",
    CONSULTED: "passing with the reference consulted",
    FAILING: "failing",
    UNCHECKED: "written or changed, to be checked",
    STUB: "still to write",
}


# ---------------------------------------------------------------- drawing

SIZE, GAP, PAD = 12.0, 8.0, 10.0
LETTER = 0.61 * SIZE  # the width of a monospaced letter
LINE = 17.0


@dataclass
class Box:
    """Something to draw: its size, and its SVG as a function of where it stands and how wide it may be."""

    width: float
    height: float
    module: Module | None = None
    title: str = ""
    inside: list[tuple[float, float, Box]] = field(default_factory=list)


def flow(boxes: Iterable[Box], width: float, gap: float) -> tuple[list[tuple[float, float, Box]], float, float]:
    """Boxes set like words into lines of at most `width`: ([(x, y, box)], the width used, the height)."""
    placed, x, y, tall, used = [], 0.0, 0.0, 0.0, 0.0
    for box in boxes:
        if x and x + box.width > width:
            x, y, tall = 0.0, y + tall + gap, 0.0
        placed.append((x, y, box))
        x, tall = x + box.width + gap, max(tall, box.height)
        used = max(used, x - gap)
    return placed, used, y + tall


def draw(found: list[Module], width: float, name: str) -> str:
    """The house as SVG, `width` units wide; `name` makes its ids unique on the page. Colours are the page's."""
    lines, y = [], 0.0
    inner = width - 2 * PAD
    for floor in range(len(NAMES) - 1, -1, -1):
        rooms = _rooms([m for m in found if m.floor == floor], inner)
        if not rooms:
            continue
        placed, _, height = flow(rooms, inner, GAP)
        lines.append(f'<rect class="floor" x="0.5" y="{y + 0.5:g}" width="{width - 1:g}" height="{height + 40:g}"/>')
        lines.append(f'<text class="floor-name" x="{PAD:g}" y="{y + 20:g}">Floor {floor}: {NAMES[floor]}</text>')
        for x, row, wide, tall, room in _justified(placed, inner):
            lines += _room(room, PAD + x, y + 30 + row, wide, tall)
        y += height + 48
    text = summary(found)
    return (
        f'<svg class="house {name}" viewBox="0 0 {width:g} {y - 7:g}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc">\n'
        f'<title id="{name}-title">The framework, floor by floor</title>\n'
        f'<desc id="{name}-desc">{escape(text)} The lists below say the same in words.</desc>\n'
        + "\n".join(lines)
        + "\n</svg>"
    )


def _rooms(found: list[Module], width: float) -> list[Box]:
    """A box per folder; the floor's single files share one."""
    groups: dict[str, list[Module]] = {}
    for module in found:
        groups.setdefault(module.room, []).append(module)
    rooms = []
    for folder, members in groups.items():
        members.sort(key=lambda m: (not m.rows, m.begun == 0, m.name))
        functions = sum(m.functions for m in members)
        title = f"shared/{folder}  {count(functions, 'function')}"
        tiles = [_tile(m, width - 2 * PAD) for m in members]
        placed, used, height = flow(tiles, width - 2 * PAD, 6)
        wide = max(used, len(title) * LETTER) + 2 * PAD
        rooms.append(Box(wide, height + 26 + PAD, title=title, inside=placed))
    return rooms


def _labels(module: Module) -> list[str]:
    return [f"{MARKS[row.standing]} {row.name.replace(' ', '.')} {row.exercise.id}" for row in module.rows]


def _tile(module: Module, limit: float) -> Box:
    """The box of a module: a card with its exercises, or only its name."""
    if not module.rows:
        return Box(min(limit, len(f"{module.label} {module.functions}") * LETTER + 12), 22, module)
    letters = max(map(len, [module.label + f"  {_share(module)}", *_labels(module)]))
    return Box(min(limit, letters * LETTER + 20), 34 + LINE * len(module.rows), module)


def _share(module: Module) -> str:
    return f"{module.begun}/{module.functions}" if module.begun else f"{module.functions}"


def _justified(
    placed: list[tuple[float, float, Box]], width: float
) -> Iterable[tuple[float, float, float, float, Box]]:
    """(x, y, width, height, box): each line's boxes stretched to fill it, and as tall as its tallest."""
    for row in dict.fromkeys(y for _, y, _ in placed):
        line = [box for _, y, box in placed if y == row]
        extra = (width - sum(box.width for box in line) - GAP * (len(line) - 1)) / len(line)
        x, tall = 0.0, max(box.height for box in line)
        for box in line:
            yield x, row, box.width + extra, tall, box
            x += box.width + extra + GAP


def _room(room: Box, x: float, y: float, width: float, height: float) -> list[str]:
    inside, _, _ = flow([box for _, _, box in room.inside], width - 2 * PAD, 6)
    lines = [
        f'<rect class="room" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"/>',
        f'<text class="room-name" x="{x + PAD:.1f}" y="{y + 17:.1f}">{escape(room.title)}</text>',
    ]
    for left, top, tile in inside:
        lines += _module(tile, x + PAD + left, y + 26 + top)
    return lines


def _module(tile: Box, x: float, y: float) -> list[str]:
    module = tile.module
    assert module is not None
    kind, name = CLASSES[module.standing], escape(module.label)
    lines = [
        f'<g class="module {kind}"><title>{escape(_hover(module))}</title>',
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{tile.width:.1f}" height="{tile.height:.1f}" rx="3"/>',
        f'<text x="{x + 6:.1f}" y="{y + 15:.1f}"><tspan class="name">{name}</tspan> {_share(module)}</text>',
    ]
    if module.rows:
        lines += _bar(module, x + 6, y + 21, tile.width - 12)
        for number, (row, label) in enumerate(zip(module.rows, _labels(module), strict=True)):
            hover = escape(f"{row.exercise.label}: {row.exercise.title} ({row.standing})")
            place = f'x="{x + 6:.1f}" y="{y + 40 + LINE * number:.1f}"'
            lines.append(f'<text class="{CLASSES[row.standing]}" {place}>{escape(label)}<title>{hover}</title></text>')
    return [*lines, "</g>"]


def _bar(module: Module, x: float, y: float, width: float) -> list[str]:
    """The module's functions as a bar: the learner's by standing, then the reference's."""
    lines = [f'<rect class="rest" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="4"/>']
    for standing in STANDINGS:
        if share := module.counts[standing]:
            wide = width * share / max(module.functions, module.begun)
            kind = CLASSES[standing]
            lines.append(f'<rect class="bar {kind}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="4"/>')
            x += wide
    return lines


def _hover(module: Module) -> str:
    """What a pointer on the module shows."""
    lines = [f"{module.name}: {count(module.functions, 'function')}"]
    lines += [f"{module.counts[s]} {WORDS[s]}" for s in STANDINGS if module.counts[s]]
    if module.own:
        lines.append(f"{count(module.own, 'helper')} of your own")
    lines += [f"{row.exercise.label}: {row.exercise.title} ({row.standing})" for row in module.rows]
    if not module.rows:
        lines.append("the reference's" if not module.own else "yours")
    return "\n".join(lines)
