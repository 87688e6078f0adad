"""Note 03: how hard cross-entropy and squared error push a logit that is wrong.

python sprints/03_models_and_training_loops/results/losses.py
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.nn import functional as F


def push(loss_name: str, gaps: shared.Tensor) -> list[float]:
    """∂L/∂z of the correct logit, by autograd, for two classes whose logits are (gap, 0)."""
    logits = shared.stack([gaps, shared.zeros(len(gaps))], dim=1).requires_grad_()
    if loss_name == "cross-entropy":
        loss = F.cross_entropy(logits, shared.zeros(len(gaps), dtype=shared.long), reduction="sum")
    else:
        target = shared.tensor([[1, 0.0]]).expand(len(gaps), 2)
        loss = F.mse_loss(F.softmax(logits, dim=1), target, reduction="sum")
    loss.backward()
    return logits.grad[:, 0].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=12.0, help="largest logit gap drawn (default: %(default)s)")
    args = parser.parse_args()
    use_style()
    results = Results(__file__)
    gaps = shared.linspace(-args.limit, args.limit, 241)
    figure, axis = plt.subplots(figsize=(7.2, 3.6))
    axis.axvspan(-args.limit, 0, color="0.95")
    for name, colour, style in (("cross-entropy", COLORS[0], "-"), ("squared error", COLORS[3], "--")):
        pushes = push(name, gaps)
        axis.plot(gaps.tolist(), pushes, style, color=colour, label=name)
        at_edge = push(name, shared.tensor([-10.0]))[0]
        results.metric(f"push_at_minus_10_{name.replace('-', '_').replace(' ', '_')}", at_edge)
        print(f"{name:14} gradient at gap -10: {at_edge:.3e}")
    squared = push("squared error", gaps)
    strongest = min(range(len(squared)), key=squared.__getitem__)
    results.metric("squared_error_strongest_gap", round(gaps[strongest].item(), 2))
    axis.text(-args.limit + 0.4, -0.1, "model is wrong", color="0.4", va="top")
    axis.text(args.limit - 0.4, -0.1, "model is right", color="0.4", va="top", ha="right")
    axis.set(
        title="The push on the correct logit",
        xlabel="logit of the correct class minus the other",
        ylabel="∂L/∂z of the correct class",
        xlim=(-args.limit, args.limit),
    )
    axis.legend(loc="lower right")
    results.figure(
        figure,
        "loss_gradients",
        alt="Gradient at the correct logit against the logit gap. Cross-entropy tends to minus one where "
        "the model is confidently wrong; squared error has a dip just left of zero and tends to zero on "
        "both sides.",
    )
    results.save()


if __name__ == "__main__":
    main()
