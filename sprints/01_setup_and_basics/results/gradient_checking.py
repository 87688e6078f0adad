"""Note 05: the error of finite differences against the step, and which wrong gradients a check sees."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np

from course.plotting import COLORS, use_style
from course.results import Results

PETALS = np.array([[1.4, 0.2], [4.7, 1.4], [6.0, 2.5], [4.5, 1.5]])
X = PETALS - PETALS.mean(0)
Y = np.array([[-1.0], [1.0], [-1.0], [1.0]])
START = np.array([0.2, 0.3, -0.2, -1.5])  # w1, w2, b, v of the running example


def loss(q: np.ndarray) -> np.ndarray:
    """The mean squared error of the neuron with parameters q on the four flowers, in q's dtype."""
    x, y = X.astype(q.dtype), Y.astype(q.dtype)
    e = q[3] * np.tanh(x @ q[:2, None] + q[2]) - y
    return (e * e).mean()


def single(w1: float) -> float:
    """The loss of note 03 (the virginica alone) as a function of w1."""
    return float((-1.5 * np.tanh(w1 * 1.85 + 0.3 * 1.1 - 0.2) + 1) ** 2)


def gradient(q: np.ndarray, mistake: str = "") -> np.ndarray:
    """The gradient of `loss` as note 04 derives it, or with one of the classic mistakes."""
    h = np.tanh(X @ q[:2, None] + q[2])
    e = q[3] * h - Y
    to_e = 2 * e / 4
    if mistake == "the square counted once":
        to_e = e / 4
    if mistake == "the mean forgotten":
        to_e = 2 * e
    slope = 1 - h * h
    if mistake == "tanh passed on as it is":
        slope = np.ones_like(h)
    if mistake == "1 − h for 1 − h²":
        slope = 1 - h
    to_z = to_e * q[3] * slope
    to_b = to_z.mean() if mistake == "the bias averaged, not summed" else to_z.sum()
    w = (X.T @ to_z).ravel()
    if mistake == "two weights exchanged":
        w = w[::-1]
    return np.array([*w, to_b, (to_e * h).sum()])


def central(f: Callable[[np.ndarray], np.ndarray], q: np.ndarray, direction: np.ndarray, eps: float) -> float:
    """(f(q + eps·direction) − f(q − eps·direction)) / (2 eps), computed in q's dtype."""
    step = q.dtype.type(eps) * direction.astype(q.dtype)
    return float((f(q + step) - f(q - step)) / q.dtype.type(2 * eps))


def one_sided(f: Callable[[np.ndarray], np.ndarray], q: np.ndarray, direction: np.ndarray, eps: float) -> float:
    """(f(q + eps·direction) − f(q)) / eps, computed in q's dtype."""
    return float((f(q + q.dtype.type(eps) * direction.astype(q.dtype)) - f(q)) / q.dtype.type(eps))


def error_curves(steps: np.ndarray) -> dict[str, np.ndarray]:
    """Relative error of ∂L/∂w1 by each kind of difference: the geometric mean over 50 nearby parameters."""
    rng, unit = np.random.default_rng(0), np.array([1.0, 0, 0, 0])
    points = START + 0.05 * rng.standard_normal((50, 4))
    kinds = {
        "one-sided, float64": (one_sided, np.float64),
        "central, float64": (central, np.float64),
        "central, float32": (central, np.float32),
    }
    curves = {}
    for name, (rule, dtype) in kinds.items():
        logs = np.empty((len(points), len(steps)))
        for k, q in enumerate(points):
            q = q.astype(dtype)
            exact = gradient(q.astype(np.float64))[0]
            for s, eps in enumerate(steps):
                logs[k, s] = np.log10(abs(rule(loss, q, unit, eps) - exact) / abs(exact) + 1e-17)
        curves[name] = 10 ** logs.mean(0)
    return curves


def main() -> None:
    """Draw the curves, and print the by-hand numbers and the table of mistakes."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    use_style()
    results = Results(__file__, seed=0)

    exact = 2 * (single(0.2) ** 0.5) * -1.5 * (1 - np.tanh(0.5) ** 2) * 1.85
    values = ", ".join(f"{single(w1):.6f}" for w1 in (0.19, 0.2, 0.21))
    print(f"loss at 0.19, 0.20, 0.21: {values}; exact slope {exact:.6f}")
    print("step     one-sided   central")
    for eps in (0.1, 0.01, 0.001):
        right = (single(0.2 + eps) - single(0.2)) / eps
        middle = (single(0.2 + eps) - single(0.2 - eps)) / (2 * eps)
        print(f"{eps:<6} {right:11.6f} {middle:9.6f}  off by {abs(right - exact):.2e} {abs(middle - exact):.2e}")

    steps = 10.0 ** np.arange(-14, 0.01, 0.25)
    curves = error_curves(steps)
    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    styles = {
        "one-sided, float64": ("orange", "--"),
        "central, float64": ("blue", "-"),
        "central, float32": ("green", ":"),
    }
    for name, curve in curves.items():
        colour, line = styles[name]
        axes.loglog(steps, curve, line, color=COLORS[colour], label=name)
        best = int(curve.argmin())
        axes.plot(steps[best], curve[best], "o", color=COLORS[colour])
        key = name.replace("-", "_").replace(", ", "_")
        results.metric(f"best_step_{key}", steps[best])
        results.metric(f"best_error_{key}", curve[best])
        print(f"{name}: least error {curve[best]:.1e} at step {steps[best]:.1e}")
    at_million = float(curves["central, float32"][np.abs(np.log10(steps) + 6).argmin()])
    print(f"central, float32 at step 1e-6: {at_million:.1e}")
    results.metric("float32_error_at_step_1e-6", at_million)
    axes.set(
        xlabel="step ε",
        ylabel="relative error of the slope",
        title="Too large a step: curvature. Too small: rounding",
        ylim=(1e-13, 1e2),
    )
    axes.legend()
    results.figure(
        figure,
        "gradient_check_steps",
        alt="Three V-shaped curves of error against step. The central difference in float64 reaches the "
        "least error, at a step near 1e-5; in float32 no step is good.",
    )

    rng = np.random.default_rng(0)
    direction = rng.standard_normal(4)
    numerical = central(loss, START, direction, 1e-6)
    right = float(gradient(START) @ direction)
    results.metric("gradcheck_error", abs(numerical - right) / abs(numerical))
    print(f"\nalong a random direction: differences {numerical:.8f}, backward {right:.8f}")
    print("mistake                          relative error along that direction")
    worst = np.inf
    for mistake in (
        "the square counted once",
        "the mean forgotten",
        "tanh passed on as it is",
        "1 − h for 1 − h²",
        "the bias averaged, not summed",
        "two weights exchanged",
    ):
        error = abs(float(gradient(START, mistake) @ direction) - numerical) / abs(numerical)
        worst = min(worst, error)
        print(f"{mistake:32} {error:.2e}")
    results.metric("mistake_least_error", worst)

    near = np.array([0.002, 0.003, -0.002, -1.5])
    blind = abs(float(gradient(near, "tanh passed on as it is") @ direction) - central(loss, near, direction, 1e-6))
    blind /= abs(central(loss, near, direction, 1e-6))
    print(f"tanh passed on as it is, with weights a hundredth as large: {blind:.2e}")
    results.metric("mistake_error_small_weights", blind)
    results.save()


if __name__ == "__main__":
    main()
