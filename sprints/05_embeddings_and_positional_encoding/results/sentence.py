"""What the scripts beside this one share: the two sentences, their vocabulary, the little table, grids of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import shared
from shared import Tensor
from shared.text import WordVocabulary

DOG_BITES, MAN_BITES = "the dog bit the man", "the man bit the dog"
WORDS = ("the", "dog", "bit", "man")
TABLE = ((0.0, 1.0, 0.0, 1.0), (2.0, 0.0, 1.0, 0.0), (0.0, 2.0, 0.0, -1.0), (2.0, 0.0, -1.0, 0.0))


def vocabulary() -> WordVocabulary:
    """The four words without special tokens, in the order of the notes.

    >>> vocabulary().encode(DOG_BITES), vocabulary().encode(MAN_BITES)
    ([0, 1, 2, 0, 3], [0, 3, 2, 0, 1])
    """
    return WordVocabulary(WORDS, specials=())


def ids(sentence: str = DOG_BITES) -> Tensor:
    """The numbers of the words, (5,), int64.

    >>> ids(MAN_BITES)
    tensor([0, 3, 2, 0, 1])
    """
    return shared.tensor(vocabulary().encode(sentence))


def table(requires_grad: bool = False) -> Tensor:
    """The embedding table, (4, 4): a row for each word, a new Tensor each time.

    >>> table()[ids()].tolist()[1]
    [2.0, 0.0, 1.0, 0.0]
    """
    return shared.tensor(TABLE, requires_grad=requires_grad)


def write_grid(
    axis: Axes,
    values: Sequence[Sequence[Any]],
    at: tuple[float, float] = (0, 0),
    shade: Any = None,
    colour: str = "black",
    size: float = 11,
    strong: str = "#0072B2",
) -> None:
    """Cells of width 1 with a text each, the first cell's upper left corner at (x, y); `shade` in [0, 1] per cell."""
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            depth = 0.0 if shade is None else float(shade[r][c])
            axis.add_patch(Rectangle((at[0] + c, at[1] + r), 1, 1, facecolor=strong, alpha=0.35 * depth, linewidth=0))
            axis.add_patch(Rectangle((at[0] + c, at[1] + r), 1, 1, fill=False, edgecolor="0.6", linewidth=0.8))
            text = value if isinstance(value, str) else f"{value:g}".replace("-", "−")
            axis.text(at[0] + c + 0.5, at[1] + r + 0.52, text, ha="center", va="center", color=colour, fontsize=size)


def canvas(axis: Axes, width: float, height: float) -> None:
    """An empty drawing board: y points down, cells are square, nothing around it."""
    axis.set(xlim=(-0.15, width + 0.15), ylim=(height + 0.15, -0.15), aspect="equal")
    axis.axis("off")
