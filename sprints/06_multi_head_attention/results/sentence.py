"""What the scripts beside this one share: the sentence, its three small matrices, and tables of numbers as pictures.

The dog bit the man. Vocabulary and embedding table are those of Sprint 05, d_model = 4, without positions:

          a noun  not one  which noun  article or verb
    the      0       1         0             1
    dog      2       0         1             0
    bit      0       2         0            −1
    man      2       0        −1             0

What a word looks for, x W_Q; what it is found by, x W_K; what it hands over, x W_V (each W is (4, 4), used from the
right; `nn.Linear` keeps the transpose):

          query           key              value: noun, verb, which noun, article
    the   (1, 0, 1, 0)    (0, 1,  0, −1)   (0, 0,  0, 3)
    dog   (0, 2, 0, 2)    (2, 0,  1,  0)   (2, 0,  1, 0)
    bit   (2, 0, 2, 0)    (0, 2,  0,  1)   (0, 3,  0, 0)
    man   (0, 2, 0, 2)    (2, 0, −1,  0)   (2, 0, −1, 0)

As one head of width E = 4, the scale is 1/√4 = 1/2, and the scores of "the dog bit the man" are

           the  dog  bit  the  man
    the     0   1.5   0    0   0.5
    dog     0    0    3    0    0
    bit     0    3    0    0    1      dogs bite: weights 1, e³, 1, 1, e over their sum 25.80
    the     0   1.5   0    0   0.5
    man     0    0    3    0    0

As two heads of width 2, scale 1/√2: in the first (numbers 0 and 1) "bit" finds both nouns alike, q·k = 4 and 4, and
they hand over that they are nouns; in the second (2 and 3) it finds the dog, q·k = 2, and shuns the man, −2, and they
hand over which noun they are. The two heads' q·k add up to those of the one head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import shared
from shared import Tensor

VOCABULARY = ["the", "dog", "bit", "man"]
E = [[0, 1, 0, 1], [2, 0, 1, 0], [0, 2, 0, -1], [2, 0, -1, 0]]
W_Q = [[0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
W_K = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, -1]]
W_V = [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, -1, 0, 2]]
DOG_BIT_MAN = [0, 1, 2, 0, 3]
MAN_BIT_DOG = [0, 3, 2, 0, 1]
SCALE = 0.5  # 1/√E for one head of width 4
BIT = 2  # where "bit" stands in both sentences


def words(tokens: Sequence[int] = DOG_BIT_MAN) -> list[str]:
    """The words of a sentence.

    >>> words(MAN_BIT_DOG)
    ['the', 'man', 'bit', 'the', 'dog']
    """
    return [VOCABULARY[t] for t in tokens]


def sentence(tokens: Sequence[int] = DOG_BIT_MAN) -> Tensor:
    """The embeddings of a sentence, (L, 4).

    >>> sentence()[1].tolist()
    [2.0, 0.0, 1.0, 0.0]
    """
    return shared.tensor(E).float()[shared.tensor(list(tokens))]


def projected(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of embeddings (…, L, 4), each (…, L, 4).

    >>> q, k, v = projected(sentence())
    >>> (q @ k.mT * SCALE)[BIT].tolist()
    [0.0, 3.0, 0.0, 0.0, 1.0]
    """
    return tuple(x @ shared.tensor(w).to(x.dtype) for w in (W_Q, W_K, W_V))


def in_proj_weight() -> Tensor:
    """The matrices as `MultiHeadAttention(4, …).in_proj.weight` has them: transposed, one below the other, (12, 4).

    >>> attend = shared.nn.MultiHeadAttention(4, 1, bias=False)
    >>> attend.in_proj.weight.data.copy_(in_proj_weight())[0].tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    return shared.cat([shared.tensor(w).float().T for w in (W_Q, W_K, W_V)])


# ---------------------------------------------------------------- pictures


def write_grid(
    axis: Axes,
    values: Sequence[Sequence[Any]],
    at: tuple[float, float] = (0, 0),
    shade: Any = None,
    width: float = 1,
    size: float = 10,
    strong: str = "#0072B2",
    places: int = 3,
) -> None:
    """Cells `width` wide and 1 high with a text each, the first one's upper left corner at (x, y); shade in [0, 1]."""
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            depth = 0.0 if shade is None else float(shade[r][c])
            corner = (at[0] + c * width, at[1] + r)
            axis.add_patch(Rectangle(corner, width, 1, facecolor=strong, alpha=0.55 * depth, linewidth=0))
            axis.add_patch(Rectangle(corner, width, 1, fill=False, edgecolor="0.6", linewidth=0.8))
            text = value if isinstance(value, str) else f"{round(value, places):g}".replace("-", "−")
            axis.text(corner[0] + width / 2, corner[1] + 0.52, text, ha="center", va="center", fontsize=size)


def label_rows(axis: Axes, labels: Sequence[str], at: tuple[float, float], size: float = 10) -> None:
    """A word to the left of each row of a grid whose upper left corner is at (x, y)."""
    for r, label in enumerate(labels):
        axis.text(at[0] - 0.2, at[1] + r + 0.52, label, ha="right", va="center", fontsize=size)


def label_columns(
    axis: Axes, labels: Sequence[str], at: tuple[float, float], width: float = 1, size: float = 10
) -> None:
    """A word above each column of a grid whose upper left corner is at (x, y)."""
    for c, label in enumerate(labels):
        axis.text(at[0] + (c + 0.5) * width, at[1] - 0.35, label, ha="center", va="center", fontsize=size)


def frame(axis: Axes, at: tuple[float, float], width: float, height: float, colour: str, style: str = "-") -> None:
    """A thick frame around cells."""
    axis.add_patch(Rectangle(at, width, height, fill=False, edgecolor=colour, linewidth=2.4, linestyle=style, zorder=5))


def canvas(axis: Axes, width: float, height: float) -> None:
    """An empty drawing board: y points down, cells are square, nothing around it."""
    axis.set(xlim=(-0.15, width + 0.15), ylim=(height + 0.15, -0.15), aspect="equal")
    axis.axis("off")
