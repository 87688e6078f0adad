"""Makes the README's picture, course/figures/overview.svg, with the course's own framework: `python -m course.picture`.

Above: the graph that backward() walks for one neuron. Below: a network with one hidden layer learns the 8×8 digits
that scikit-learn carries. Takes a few seconds; the same picture on every run of the same machine.
"""

from __future__ import annotations

import io
import re
from typing import Any

from course.files import write_atomically
from course.plotting import COLORS, use_style
from course.sprints import ROOT

WIDTH = 880
EPOCHS = 30


def graph() -> str:
    """One neuron, its loss, and the gradient at every leaf, as SVG."""
    import shared
    from shared.drawing import draw_graph

    x = shared.tensor([1.0, -2.0])
    w = shared.tensor([0.5, 0.25], requires_grad=True)
    b = shared.tensor(0.1, requires_grad=True)
    loss = ((w * x).sum() + b).tanh() ** 2
    loss.backward(retain_graph=True)
    return draw_graph(loss, {"w": w, "b": b, "loss": loss}, direction="LR", engine="matplotlib")


def training() -> str:
    """Test digits with what the trained network says, and the curves of its training, as SVG."""
    import matplotlib.pyplot as plt

    import shared
    from shared import nn
    from shared.training import accuracy, fit

    shared.manual_seed(0)
    train, test = shared.data.load("digits")
    batches = shared.data.DataLoader(train, batch_size=64, shuffle=True)
    held_out = shared.data.DataLoader(test, batch_size=len(test))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = shared.optim.Adam(model.parameters(), lr=3e-3)
    history = fit(
        model,
        batches,
        held_out,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        epochs=EPOCHS,
        metrics={"accuracy": accuracy},
        progress=False,
    )
    images, labels = next(iter(held_out))
    with shared.no_grad():
        said = model(images).argmax(dim=1)

    use_style()
    figure = plt.figure(figsize=(8.8, 3.0))
    parts: Any = figure.subfigures(1, 3, width_ratios=(1, 1.1, 1.1))
    left, middle, right = parts
    for position, axes in enumerate(left.subplots(3, 4).flat):
        axes.imshow(images[position, 0].numpy(), cmap="gray_r")
        right_answer = said[position].item() == labels[position].item()
        axes.set_title(str(said[position].item()), fontsize=10, loc="center", pad=2,
                       color=COLORS["green" if right_answer else "vermillion"])  # fmt: skip
        axes.set_axis_off()
    left.suptitle("Test digits, what the network says", fontsize=10)
    epochs = range(1, EPOCHS + 1)
    for part, quantity, label, factor in (
        (middle, "loss", "cross-entropy (nats)", 1),
        (right, "accuracy", "accuracy (%)", 100),
    ):
        axes = part.subplots()
        for split, name, colour in (("train", "training", "blue"), ("val", "test", "vermillion")):
            values = [factor * value for value in history[f"{split}_{quantity}"]]
            axes.plot(epochs, values, label=name, color=COLORS[colour])
        axes.set(xlabel="epoch", ylabel=label)
        axes.legend()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return buffer.getvalue()


def size(svg: str) -> tuple[float, float]:
    """Width and height from the viewBox.

    >>> size('<svg viewBox="0 0 20 10.5">')
    (20.0, 10.5)
    """
    match = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if match is None:
        raise ValueError("the SVG has no viewBox that starts at 0 0")
    return float(match[1]), float(match[2])


def stack(*pictures: str) -> str:
    """SVGs one below the other, each as wide as the whole unless it is small, on white."""
    parts, top = [], 12.0
    for number, picture in enumerate(pictures):
        width, height = size(picture)
        scale = min(1.25, (WIDTH - 24) / width)
        body = picture[picture.index("<svg") :]
        inner = re.sub(r"^<svg[^>]*>", "", body).removesuffix("\n").removesuffix("</svg>")
        # Matplotlib numbers its glyphs and clips alike in both pictures.
        inner = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>p{number}-", inner)
        place = f'x="{(WIDTH - width * scale) / 2:.1f}" y="{top:.1f}"'
        box = f'width="{width * scale:.1f}" height="{height * scale:.1f}" viewBox="0 0 {width:g} {height:g}"'
        parts.append(f"<svg {place} {box}>{inner}</svg>")
        top += height * scale + 12
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {names} width="{WIDTH}" height="{top:.0f}" viewBox="0 0 {WIDTH} {top:.0f}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


def main() -> None:
    """Write the picture."""
    path = ROOT / "course" / "figures" / "overview.svg"
    write_atomically(path, stack(graph(), training()))
    print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
