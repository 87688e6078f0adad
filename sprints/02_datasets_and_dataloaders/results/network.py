"""A network as Sprint 01 left it: Tensors, autograd, descent written by hand. The scripts train it."""

from __future__ import annotations

import numpy as np

import shared


def start(sizes: tuple[int, ...], seed: int) -> list[shared.Tensor]:
    """Weights (n_in, n_out) with standard deviation √(2/n_in), and zero biases (n_out,), for each layer."""
    rng = np.random.default_rng(seed)
    parameters = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        weight = rng.normal(0, np.sqrt(2 / n_in), (n_in, n_out)).astype(np.float32)
        parameters += [shared.from_numpy(weight), shared.zeros(n_out)]
    return [parameter.requires_grad_() for parameter in parameters]


def logits(parameters: list[shared.Tensor], x: shared.Tensor) -> shared.Tensor:
    """x (B, D) through linear layers with relu between them: (B, K)."""
    for i in range(0, len(parameters), 2):
        x = x @ parameters[i] + parameters[i + 1]
        if i + 2 < len(parameters):
            x = x.relu()
    return x


def cross_entropy(z: shared.Tensor, y: shared.Tensor) -> shared.Tensor:
    """Mean over the batch of log Σ exp z − z[y]: z (B, K), y (B,) int64, result ()."""
    return (z.logsumexp(1) - z.gather(1, y.unsqueeze(1)).squeeze(1)).mean()


def gradient(parameters: list[shared.Tensor], x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """The loss on x (B, D), y (B,), and its gradient for each parameter."""
    for parameter in parameters:
        parameter.grad = None
    loss = cross_entropy(logits(parameters, shared.from_numpy(x)), shared.from_numpy(y))
    loss.backward()
    return loss.item(), [parameter.grad.array for parameter in parameters]


def step(parameters: list[shared.Tensor], x: np.ndarray, y: np.ndarray, lr: float) -> float:
    """One step of descent on the batch; returns the loss before it."""
    loss, gradients = gradient(parameters, x, y)
    with shared.no_grad():
        for parameter, slope in zip(parameters, gradients, strict=True):
            parameter.array[...] -= lr * slope
    return loss


def evaluate(parameters: list[shared.Tensor], x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean loss and share of right answers on x (N, D), y (N,)."""
    with shared.no_grad():
        z = logits(parameters, shared.from_numpy(x))
        loss = cross_entropy(z, shared.from_numpy(y)).item()
    return loss, float((z.array.argmax(axis=1) == y).mean())


def flat(dataset, dtype=np.float32) -> tuple[np.ndarray, np.ndarray]:
    """All images of an image dataset as rows (N, H·W), bytes as floats from 0 to 255, and labels (N,)."""
    return dataset.images.reshape(len(dataset), -1).astype(dtype), dataset.labels
