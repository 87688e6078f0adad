"""What the measurements of notes 2 and 3 share: stacks of any depth that differ in their connections, and a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import shared
from shared import Tensor, nn, optim
from shared.nn import functional as F

WAYS = ("plain", "norm", "residual", "post", "pre")
SYMBOLS, LENGTH = 10, 10  # of the task: sequences of digits, to be written down backwards


class Connected(nn.Module):
    """One part of a network, (B, T, d_model) → (B, T, d_model), and the way in which it is connected.

    plain: part(x); norm: norm(part(x)); residual: x + part(x); post: norm(x + part(x)); pre: x + part(norm(x)).

    >>> zero = nn.Linear(4, 4, bias=False)
    >>> _ = nn.init.zeros_(zero.weight)
    >>> [Connected(zero, 4, way)(shared.ones(4)).tolist()[0] for way in WAYS]
    [0.0, 0.0, 1.0, 0.0, 1.0]
    """

    def __init__(self, part: nn.Module, d_model: int, way: str):
        super().__init__()
        self.part, self.way = part, way
        self.norm = nn.Identity() if way in ("plain", "residual") else nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        if self.way in ("plain", "norm"):
            return self.norm(self.part(x))
        if self.way == "post":
            return self.norm(x + self.part(x))
        return x + self.part(self.norm(x))


def stack(way: str, depth: int, d_model: int = 32, num_heads: int = 4, feed_forward: bool = False) -> nn.Sequential:
    """`depth` attention layers, each connected in the same `way`, with `feed_forward` each followed by one of those."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers.append(Connected(nn.MultiHeadAttention(d_model, num_heads), d_model, way))
        if feed_forward:
            layers.append(Connected(nn.PositionwiseFeedForward(d_model, 4 * d_model, 0.0), d_model, way))
    return nn.Sequential(*layers)


class Reader(nn.Module):
    """Digits (B, LENGTH) → logits (B, LENGTH, SYMBOLS): embedding and learned positions, a stack, a linear layer.

    A pre-norm stack ends with a layer norm, which nothing in it would give otherwise.
    """

    def __init__(self, way: str, depth: int, d_model: int = 32, num_heads: int = 4, feed_forward: bool = False):
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, d_model)
        self.positions = nn.Parameter(shared.randn(LENGTH, d_model))
        self.layers = stack(way, depth, d_model, num_heads, feed_forward)
        self.norm = nn.LayerNorm(d_model) if way == "pre" else nn.Identity()
        self.head = nn.Linear(d_model, SYMBOLS)

    def forward(self, digits: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.embedding(digits) + self.positions)))


def batches(seed: int, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Sequences of digits (B, LENGTH) and the same backwards, without end."""
    rng = np.random.default_rng(seed)
    while True:
        digits = rng.integers(0, SYMBOLS, (size, LENGTH))
        yield shared.from_numpy(digits), shared.from_numpy(digits[:, ::-1].copy())


def loss_of(model: nn.Module, digits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the digits written backwards, in nats."""
    return F.cross_entropy(model(digits).reshape(-1, SYMBOLS), target.reshape(-1))


def train(model: nn.Module, steps: int, lr: float, warmup: int = 0, seed: int = 0) -> list[float]:
    """Adam, its rate raised over the first `warmup` steps; the loss of every step (new digits each)."""
    optimizer = optim.Adam(model.parameters(), lr=lr)
    losses = []
    for step, (digits, target) in zip(range(steps), batches(seed), strict=False):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / (warmup + 1))
        loss = loss_of(model, digits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def gradient_norm(parameters: Any) -> float:
    """The length of the gradients of all parameters together, as one vector."""
    return float(sum(float((p.grad.numpy() ** 2).sum()) for p in parameters) ** 0.5)
