"""Where a head looks: the attention weights of one layer and head, and their picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from .coloring import escape, visible

SHOWN = 48  # tokens whose names can be read beside the map


def weights(model: Any, ids: Sequence[int], layer: int, head: int) -> np.ndarray:
    """The weights (T, T) of a head, layers and heads numbered from 0: row q says where token q looks.

    The layers before compute as always; of the chosen one only the attention is computed, by
    `MultiHeadAttention(…, need_weights=True)`. The model looks at the last block_size of ids. Rows add up to 1, and
    no token looks at a later one. ValueError for a layer or head that is not there.
    """
    from shared.autograd import no_grad
    from shared.ops import tensor

    config = model.config
    if not (0 <= layer < config.n_layer and 0 <= head < config.n_head):
        raise ValueError(f"There is no layer {layer + 1} with a head {head + 1} in this model.")
    with no_grad():
        x = model.positions(model.token_embedding(tensor([list(ids)[-config.block_size :]])))
        for block in model.blocks[:layer]:
            x = block(x)
        block = model.blocks[layer]
        _, found = block.self_attention(block.norm1(x), is_causal=True, need_weights=True)
    return found.numpy(force=True)[0, head]


def draw(weight: np.ndarray, labels: Sequence[str], layer: int, head: int, shown: int = SHOWN) -> str:
    """The map as HTML: a picture of the last `shown` tokens with title, labelled axes, and its content in words."""
    total = len(weight)
    weight, labels = weight[-shown:, -shown:], [visible(text, spaces=True)[:12] for text in labels[-shown:]]
    text = describe(weight, labels, layer, head)
    cut = f" Shown are the last {len(weight)} of {total} tokens; a row adds up to 1 with those left out."
    cut = cut if len(weight) < total else " A row adds up to 1."
    return (
        f'<figure class="attention"><img alt="{escape(text)}" '
        f'src="data:image/png;base64,{base64.b64encode(_png(weight, labels, layer, head)).decode()}">'
        f"<figcaption>{escape(text)} A row is a token that looks, a column one that it looks at; grey are the tokens "
        f"that come later, which it cannot see.{cut}</figcaption></figure>"
    )


def describe(weight: np.ndarray, labels: Sequence[str], layer: int, head: int) -> str:
    """What is to be seen in the map, in words: the strongest look at another token, and at what most is looked."""
    size = len(weight)
    text = f"Attention of layer {layer + 1}, head {head + 1}, {size} tokens."
    others = np.tril(weight, -1)
    if others.any():
        q, k = divmod(int(others.argmax()), size)
        text += (
            f" The strongest look back: {labels[q]}, token {q + 1}, at {labels[k]}, token {k + 1}: {others[q, k]:.2f}."
        )
        first, own = weight[1:, 0].mean(), np.diag(weight)[1:].mean()
        text += f" On average a token gives {first:.2f} of its attention to the first one here and {own:.2f} to itself."
    return text


def _png(weight: np.ndarray, labels: Sequence[str], layer: int, head: int) -> bytes:
    """The picture. Made without pyplot, whose state all threads would share; labels are never read as mathematics."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = len(weight)
    figure = Figure(figsize=(6.4, 5.8), dpi=170, facecolor="white", layout="constrained")
    axis = figure.add_subplot()
    causal = np.ma.masked_where(np.triu(np.ones((size, size), bool), 1), weight)
    axis.set_facecolor("0.92")
    image = axis.imshow(causal, cmap="Blues", vmin=0, vmax=max(float(weight.max()), 1e-6), interpolation="nearest")
    axis.set_title(f"Attention weights, layer {layer + 1}, head {head + 1}", loc="left", fontweight="bold", fontsize=12)
    axis.set_xlabel("token that is looked at")
    axis.set_ylabel("token that looks")
    places = list(range(0, size, max(1, -(-size // SHOWN))))
    letters = min(10.0, 300 / len(places))
    for ticks in (axis.set_xticks, axis.set_yticks):
        ticks(places, [labels[i] for i in places], fontsize=letters, family="monospace", parse_math=False)
    if max(map(len, labels)) > 2:
        axis.tick_params(axis="x", rotation=90)
    figure.colorbar(image, ax=axis, shrink=0.8, label="weight")
    made = io.BytesIO()
    FigureCanvasAgg(figure).print_png(made)
    return made.getvalue()
