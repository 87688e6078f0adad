"""Note 05: loudness of activations and gradients through twenty layers, and what it does to training.

python sprints/03_models_and_training_loops/results/initialisation.py
"""

from __future__ import annotations

import argparse
import math

import matplotlib.pyplot as plt
from common import batches, digits, strokes
from tqdm import tqdm

import shared
from course.plotting import use_style
from course.results import Results
from shared import nn, optim

DEPTH, WIDTH = 20, 256
# The standard deviation of a weight, for a layer with n inputs and n outputs.
SCHEMES = {
    "σ = 0.01": lambda n: 0.01,
    "Xavier": lambda n: math.sqrt(1 / n),
    "Kaiming": lambda n: math.sqrt(2 / n),
    "σ = 0.15": lambda n: 0.15,
}
KEYS = {"σ = 0.01": "small", "Xavier": "xavier", "Kaiming": "kaiming", "σ = 0.15": "large"}


def tower(inputs: int, scheme: str, classes: int = 10) -> nn.Sequential:
    """DEPTH hidden relu layers of WIDTH units and an output layer, biases zero, weights normal."""
    layers: list[nn.Module] = []
    for i in range(DEPTH):
        layers += [nn.Linear(inputs if i == 0 else WIDTH, WIDTH), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, classes))
    for layer in model:
        if isinstance(layer, nn.Linear):
            # The first layer is always Kaiming, so that all four start equally loud.
            std = SCHEMES["Kaiming" if layer is model[0] else scheme](layer.weight.shape[1])
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
    return model


def loudness(model: nn.Sequential, x: shared.Tensor) -> tuple[list[float], list[float]]:
    """Root mean square after each hidden layer, and of the gradient there (random at layer DEPTH)."""
    hidden = []
    for layer in model[:-1]:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            x.retain_grad()
            hidden.append(x)
    x.backward(shared.randn(*x.shape))
    rms = [math.sqrt((h**2).mean().item()) for h in hidden]
    return rms, [math.sqrt((h.grad**2).mean().item()) for h in hidden]


def train(model: nn.Sequential, data: tuple, steps: int, lr: float) -> list[float]:
    """The training loss at each of `steps` steps of Adam."""
    optimizer = optim.Adam(model.parameters(), lr=lr)
    losses: list[float] = []
    with tqdm(total=steps, leave=False) as bar:
        while len(losses) < steps:
            for x, y in batches(*data):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                bar.update()
    return losses[:steps]


def deep_strokes(std: float, steps: int, seed: int) -> tuple[float, float]:
    """The first and the last loss of a twenty-layer stroke reader, 16 units wide, whose weights have width `std`."""
    shared.manual_seed(seed)
    layers = [part for i in range(DEPTH) for part in (nn.Linear(4 if i == 0 else 16, 16), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(16, 3))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
    x, y = strokes()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200, help="training steps per scheme (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=3e-4, help="Adam's learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seed)
    data = digits()
    x = data["train"][0][:256]

    for key, std in (("small", 0.01), ("one", 1.0)):
        first, last = deep_strokes(std, 500, args.seed)
        results.metric(f"deep_strokes_first_{key}", float(f"{first:.5g}"), unit="nats")
        results.metric(f"deep_strokes_last_{key}", float(f"{last:.5g}"), unit="nats")
        print(f"twenty-layer stroke reader, width {std}: first loss {first:.5g}, after 500 steps {last:.5g} nats")

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    layers = list(range(1, DEPTH + 1))
    for i, (scheme, marker) in enumerate(zip(SCHEMES, "osD^", strict=True)):
        shared.manual_seed(args.seed)
        forward, backward = loudness(tower(x.shape[1], scheme), x)
        factor = math.sqrt(0.5 * WIDTH * SCHEMES[scheme](WIDTH) ** 2)  # predicted, per layer
        for axis, measured, start in ((axes[0], forward, 0), (axes[1], backward, DEPTH - 1)):
            axis.semilogy(layers, measured, marker, color=f"C{i}", markersize=4, label=scheme)
            axis.semilogy(
                layers,
                [measured[start] * factor ** abs(k - start) for k in range(DEPTH)],
                color=f"C{i}",
                linewidth=1,
            )
        ratio = forward[-1] / forward[0]
        results.metric(f"loudness_ratio_{KEYS[scheme]}", float(f"{ratio:.3g}"))
        results.metric(f"gradient_ratio_{KEYS[scheme]}", float(f"{backward[0] / backward[-1]:.3g}"))
        predicted = factor ** (DEPTH - 1)
        print(f"{scheme:9} layer {DEPTH} / layer 1: measured {ratio:.3g}, predicted {predicted:.3g}")
    for axis, what in zip(axes, ("Activations, forwards", "Gradients, backwards"), strict=True):
        axis.set(title=what, xlabel="layer", ylabel="root mean square", xticks=[1, 5, 10, 15, 20])
    axes[0].legend(loc="lower left")
    results.figure(
        figure,
        "variance_through_layers",
        alt="Root mean square against layer on a logarithmic scale, activations left and gradients right. "
        "Kaiming stays level, Xavier falls a thousandfold over twenty layers, sigma 0.01 falls by many "
        "powers of ten more, sigma 0.15 grows. The measured dots follow the predicted lines.",
    )

    figure, axis = plt.subplots(figsize=(7.2, 4))
    for scheme in SCHEMES:
        shared.manual_seed(args.seed)
        losses = train(tower(x.shape[1], scheme), data["train"], args.steps, args.lr)
        axis.semilogy(losses, label=scheme, linewidth=1.2)
        results.metric(f"init_first_loss_{KEYS[scheme]}", float(f"{losses[0]:.4g}"), unit="nats")
        end = sum(losses[-20:]) / 20
        results.metric(f"init_end_loss_{KEYS[scheme]}", float(f"{end:.4g}"), unit="nats")
        print(f"{scheme:9} loss: first {losses[0]:.4g}, mean of the last 20 steps {end:.4g} nats")
    axis.axhline(math.log(10), color="0.5", linestyle="--", linewidth=1)
    axis.text(args.steps, math.log(10) * 1.25, "ln 10", ha="right", color="0.3")
    axis.set(title=f"Training {DEPTH} layers", xlabel="step", ylabel="training loss (nats)")
    axis.legend()
    results.figure(
        figure,
        "init_training",
        alt="Training loss against step for four initialisations of a twenty-layer network: Kaiming falls "
        "at once, sigma 0.15 starts far above ln 10, sigma 0.01 stays at ln 10.",
    )
    results.metric("init_steps", args.steps, unit="steps")
    results.save()


if __name__ == "__main__":
    main()
