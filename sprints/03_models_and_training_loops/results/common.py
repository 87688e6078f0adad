"""What the scripts beside this one share: the six strokes, the digits as vectors, and two networks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import shared
from shared import Tensor, nn

CLASSES = ("horizontal", "vertical", "diagonal")
NAMES = ("top", "bottom", "left", "right", "falling", "rising")


def strokes() -> tuple[Tensor, Tensor]:
    """The six two-pixel strokes as vectors (6, 4) and their classes (6,).

    >>> x, y = strokes()
    >>> x[0].tolist(), y.tolist()
    ([1.0, 1.0, 0.0, 0.0], [0, 0, 1, 1, 2, 2])
    """
    pixels = [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0.0]]
    return shared.tensor(pixels), shared.tensor([0, 0, 1, 1, 2, 2])


def digits(full: bool = False, validation: int = 800) -> dict[str, tuple[Tensor, Tensor]]:
    """Standardised digits as vectors: {"train": (x, y), "validation": …, "test": …}.

    x (N, H·W) float32, y (N,) int64, of mnist-5k (scikit-learn's digits where it cannot be had) or, if `full`, of
    MNIST. Mean and standard deviation are the training part's; validation is the end of the training set.
    """
    train, test = shared.data.load("mnist") if full else shared.data.load("mnist-5k", fallback=True)
    x, y = train.data.reshape(len(train), -1).float() / 255, train.targets
    x_test, y_test = test.data.reshape(len(test), -1).float() / 255, test.targets
    cut = len(train) - validation
    mean, std = x[:cut].mean(), x[:cut].std()
    x, x_test = (x - mean) / std, (x_test - mean) / std
    return {"train": (x[:cut], y[:cut]), "validation": (x[cut:], y[cut:]), "test": (x_test, y_test)}


def mlp(inputs: int, hidden: int = 128, classes: int = 10, dropout: float = 0.0) -> nn.Sequential:
    """One hidden layer: inputs → hidden → classes."""
    layers = [nn.Linear(inputs, hidden), nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
    return nn.Sequential(*layers, nn.Linear(hidden, classes))


def batches(x: Tensor, y: Tensor, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled mini-batches; the last one may be shorter."""
    order = shared.randperm(len(x))
    for start in range(0, len(x), size):
        chosen = order[start : start + size]
        yield x[chosen], y[chosen]


def measure(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """(loss in nats, accuracy) of `model` in evaluation mode."""
    was_training = model.training
    model.eval()
    with shared.no_grad():
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, y).item()
        accuracy = (logits.argmax(dim=1) == y).float().mean().item()
    model.train(was_training)
    return loss, accuracy


def finite(loss: float, ceiling: float = 1e3) -> float:
    """`loss`, or `ceiling` where it is larger or not a number, so that a diverged run can be drawn."""
    return min(loss, ceiling) if math.isfinite(loss) else ceiling
