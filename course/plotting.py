"""One look for every figure of the course."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Palette(tuple[str, ...]):
    """Colours by position (`COLORS[0]`) or by name (`COLORS["blue"]`).

    >>> COLORS["blue"] == COLORS[0]
    True
    """

    names = ("blue", "orange", "green", "vermillion", "purple", "sky", "yellow", "black")

    def __getitem__(self, key):
        """The colour at a position, or the one that has this name."""
        return super().__getitem__(self.names.index(key) if isinstance(key, str) else key)


# Okabe and Ito, "Color Universal Design" (2008): eight colours that the colour-blind can tell apart.
# Yellow comes late because it is hard to see on white.
COLORS = Palette(("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000"))


def use_style() -> None:
    """Set the course's matplotlib style: colours, readable sizes, and SVG that is the same on every run."""
    import matplotlib
    from cycler import cycler

    matplotlib.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=list(COLORS)),
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 12,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 11,
            "figure.figsize": (6.4, 4.0),
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "grid.alpha": 0.25,
            "image.cmap": "viridis",
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "savefig.dpi": 130,
            "savefig.facecolor": "white",
            "svg.fonttype": "path",
            "svg.hashsalt": "sprint-to-gpt",
        }
    )


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
    from matplotlib.patches import Rectangle

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
