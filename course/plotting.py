"""One look for every figure of the course."""

from __future__ import annotations


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
