"""Note 06: the 2-3-1 network by hand, trained on the irises, and what the classic mistakes do to its loss."""

from __future__ import annotations

import argparse
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

from course.plotting import COLORS, use_style
from course.results import Results

Parameters = dict[str, np.ndarray]


def forward(x: np.ndarray, q: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Hidden activations (n, hidden) and outputs (n, 1) for x (n, 2)."""
    h = np.tanh(x @ q["w1"] + q["b1"])
    return h, h @ q["w2"] + q["b2"]


def loss_and_gradients(x: np.ndarray, y: np.ndarray, q: Parameters) -> tuple[float, Parameters]:
    """The mean squared error, and its gradients as note 06 derives them; y is (n, 1)."""
    h, p = forward(x, q)
    e = p - y
    to_p = 2 * e / len(x)
    to_z = (to_p @ q["w2"].T) * (1 - h * h)
    return float((e * e).mean()), {"w1": x.T @ to_z, "b1": to_z.sum(0), "w2": h.T @ to_p, "b2": to_p.sum(0)}


def silent_gradients(x: np.ndarray, y: np.ndarray, q: Parameters) -> tuple[float, Parameters]:
    """The same for the (n, n) difference of note 02, p (n, 1) minus y (n,)."""
    h, p = forward(x, q)
    e = p - y.ravel()
    to_p = (2 * e / e.size).sum(1, keepdims=True)
    to_z = (to_p @ q["w2"].T) * (1 - h * h)
    return float((e * e).mean()), {"w1": x.T @ to_z, "b1": to_z.sum(0), "w2": h.T @ to_p, "b2": to_p.sum(0)}


def slipped_gradients(x: np.ndarray, y: np.ndarray, q: Parameters) -> tuple[float, Parameters]:
    """The same with the slip that opens note 05: tanh passes its gradient on without the factor 1 − h²."""
    h, p = forward(x, q)
    e = p - y
    to_p = 2 * e / len(x)
    to_z = to_p @ q["w2"].T
    return float((e * e).mean()), {"w1": x.T @ to_z, "b1": to_z.sum(0), "w2": h.T @ to_p, "b2": to_p.sum(0)}


def start(hidden: int, seed: int) -> Parameters:
    """Random weights: normal, in the second layer divided by the root of `hidden`; zero biases."""
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(size=(2, hidden)),
        "b1": np.zeros(hidden),
        "w2": rng.normal(size=(hidden, 1)) / np.sqrt(hidden),
        "b2": np.zeros(1),
    }


def train(
    x: np.ndarray,
    y: np.ndarray,
    q: Parameters,
    rate: float,
    steps: int,
    rule=loss_and_gradients,
    keep: bool = False,
) -> list[float]:
    """Full-batch gradient descent in place; the loss before each step. `keep` never clears the gradients."""
    history, total = [], {name: np.zeros_like(value) for name, value in q.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            loss, gradients = rule(x, y, q)
            history.append(loss)
            for name, gradient in gradients.items():
                total[name] = total[name] + gradient if keep else gradient
                q[name] -= rate * total[name]
    return history


def accuracy(x: np.ndarray, y: np.ndarray, q: Parameters) -> float:
    """The share of flowers whose output has the sign of its target."""
    return float(((forward(x, q)[1] > 0) == (y > 0)).mean())


def split(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Raw petals and targets of 120 flowers to learn from and 30 held out; all petals last."""
    data = load_iris()
    petals, y = data.data[:, 2:4], np.where(data.target == 1, 1.0, -1.0)[:, None]
    order = np.random.default_rng(seed).permutation(len(petals))
    learn, held = order[:120], order[120:]
    return petals[learn], y[learn], petals[held], y[held], data.target


def by_hand() -> None:
    """Every number of the four-flower table of note 06."""
    petals = np.array([[1.4, 0.2], [4.7, 1.4], [6.0, 2.5], [4.5, 1.5]])
    y = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    q = {
        "w1": np.array([[0.2, -0.4, 0.5], [0.3, 0.1, -0.6]]),
        "b1": np.array([-0.2, 0.3, 0.1]),
        "w2": np.array([[-1.5], [0.8], [0.4]]),
        "b2": np.array([0.1]),
    }
    x = petals - petals.mean(0)
    h, p = forward(x, q)
    loss, gradients = loss_and_gradients(x, y, q)
    to_p = 2 * (p - y) / 4
    np.set_printoptions(precision=4, suppress=True)
    print("h, p, e, dL/dp, dL/dz:")
    print(np.hstack([h, p, p - y, to_p, (to_p @ q["w2"].T) * (1 - h * h)]))
    print(f"loss {loss:.4f}")
    for name, gradient in gradients.items():
        print(name, gradient.tolist() if gradient.ndim < 2 else gradient.round(4).tolist())
    after = {name: q[name] - 0.1 * gradients[name] for name in q}
    print(f"after one step of 0.1: {loss_and_gradients(x, y, after)[0]:.4f}")


def draw_plane(panels: dict, x: np.ndarray, y: np.ndarray, scale: tuple) -> plt.Figure:
    """For each entry of `panels` (title -> parameters): the sign of the output over the plane of petals."""
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 3.9), sharey=True)
    length, width = np.meshgrid(np.linspace(0.5, 7.2, 200), np.linspace(-0.1, 2.8, 200))
    plane = (np.c_[length.ravel(), width.ravel()] - scale[0]) / scale[1]
    for panel, (title, q) in zip(axes, panels.items(), strict=True):
        out = forward(plane, q)[1].reshape(length.shape)
        panel.contourf(length, width, out, levels=[-99, 0, 99], colors=["#FBE3C2", "#CBE0F0"])
        panel.contour(length, width, out, levels=[0], colors="black", linewidths=1)
        raw = x * scale[1] + scale[0]
        yes = y.ravel() > 0
        panel.plot(*raw[yes].T, "o", color=COLORS["blue"], ms=4, label="versicolor")
        panel.plot(*raw[~yes].T, "^", color=COLORS["vermillion"], ms=4, label="other")
        panel.set(title=title, xlabel="petal length [cm]")
    axes[0].set_ylabel("petal width [cm]")
    axes[0].legend(loc="upper left", fontsize=9)
    return figure


def draw_mistakes(runs: dict[str, list[float]]) -> plt.Figure:
    """One panel for each mistake, with the run as it should be, the first of `runs`, in grey."""
    (_, right), *wrong = runs.items()
    figure, axes = plt.subplots(1, 5, figsize=(13, 3.2), sharey=True)
    for number, (panel, (name, curve)) in enumerate(zip(axes, wrong, strict=True)):
        panel.semilogy(right[:300], color="#999999", lw=1.4)
        shown = np.where(np.isfinite(curve), np.minimum(curve, 1e9), np.nan)
        panel.semilogy(shown, color=COLORS[("vermillion", "blue", "green", "purple", "orange")[number]])
        panel.set(title=name, xlabel="step", ylim=(0.06, 5), xlim=(-5, 300))
        panel.title.set_size(10.5)
    axes[0].set_ylabel("mean squared error")
    return figure


def main() -> None:
    """Print the by-hand numbers, train, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the split and the first weights (default 0)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of descent (default 1000)")
    parser.add_argument("--rate", type=float, default=0.3, help="learning rate (default 0.3)")
    parser.add_argument("--full", action="store_true", help="twenty seeds in place of five")
    arguments = parser.parse_args()
    use_style()
    results = Results(__file__, seed=arguments.seed)
    by_hand()

    raw, y, raw_held, y_held, _ = split(arguments.seed)
    scale = raw.mean(0), raw.std(0)
    x, held = (raw - scale[0]) / scale[1], (raw_held - scale[0]) / scale[1]
    always_no = float((y < 0).mean())
    line = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    fitted = np.c_[x, np.ones(len(x))] @ line
    results.metric("always_no_accuracy", always_no)
    results.metric("line_loss", ((fitted - y) ** 2).mean())
    results.metric("line_accuracy", ((fitted > 0) == (y > 0)).mean())

    print(f"\nalways 'no' is right for {always_no:.3f}; a straight line for", end=" ")
    print(f"{((fitted > 0) == (y > 0)).mean():.3f} with loss {((fitted - y) ** 2).mean():.3f}")
    print("\nhidden  loss (median, worst)  accuracy learned  held out")
    seeds = range(20 if arguments.full else 5)
    for hidden in (1, 2, 3, 8):
        runs = []
        for seed in seeds:
            q = start(hidden, seed)
            runs.append((train(x, y, q, 0.1, 3 * arguments.steps)[-1], accuracy(x, y, q), accuracy(held, y_held, q)))
        losses, learned, other = np.array(runs).T
        print(f"{hidden:6d}  {np.median(losses):.3f}, {losses.max():.3f}          {np.median(learned):.3f}"
              f"             {np.median(other):.3f}")  # fmt: skip
        results.metric(f"loss_hidden_{hidden}", np.median(losses))
        results.metric(f"worst_loss_hidden_{hidden}", losses.max())
        results.metric(f"accuracy_hidden_{hidden}", np.median(learned))

    q, one = start(3, arguments.seed), start(1, arguments.seed)
    first = {name: value.copy() for name, value in q.items()}
    began = time.perf_counter()
    history = train(x, y, q, arguments.rate, arguments.steps)
    seconds = time.perf_counter() - began
    train(x, y, one, arguments.rate, arguments.steps)
    right = round(accuracy(held, y_held, q) * len(held))
    print(f"\n2-3-1 at rate {arguments.rate}: loss {history[0]:.3f} -> {history[-1]:.3f} in {seconds:.2f} s")
    print(f"accuracy {accuracy(x, y, q):.3f}, held out {right} of {len(held)}")
    results.metric("first_loss", history[0])
    results.metric("final_loss", history[-1])
    results.metric("accuracy", accuracy(x, y, q))
    results.metric("held_out_right", right, unit=f"of {len(held)}")
    results.metric("train_seconds", seconds, unit="s")
    results.figure(
        draw_plane({"Before training": first, "One hidden unit": one, "Three hidden units": q}, x, y, scale),
        "network_plane",
        alt="Petal width against petal length three times: before training the border is arbitrary, with one "
        "hidden unit it is one straight line, with three it closes in the versicolor between two borders.",
    )

    slipped = train(x, y, start(3, arguments.seed), arguments.rate, arguments.steps, slipped_gradients)
    print(f"with a tanh that passes its gradient on as it is: {slipped[0]:.3f} -> {slipped[-1]:.3f}")
    results.metric("loss_slipped_tanh", slipped[-1])
    runs = {"as it should be": history}
    runs["gradients not cleared"] = train(x, y, start(3, arguments.seed), arguments.rate, 300, keep=True)
    zero = {name: np.zeros_like(value) for name, value in start(3, 0).items()}
    runs["all weights zero at first"] = train(x, y, zero, arguments.rate, 300)
    runs["p − y of shape (n, n)"] = train(x, y, start(3, arguments.seed), arguments.rate, 300, silent_gradients)
    runs["raw centimetres"] = train(raw, y, start(3, arguments.seed), arguments.rate, 300)
    runs["learning rate 1.5"] = train(x, y, start(3, arguments.seed), 1.5, 300)
    for name, curve in runs.items():
        print(f"{name:28} loss after 100 and 300 steps: {curve[99]:.4g}, {curve[299]:.4g}")
    figure = draw_mistakes(runs)
    results.figure(
        figure,
        "network_mistakes",
        alt="Five panels of loss against step, each with the right run in grey. Not clearing the gradients "
        "swings, zero weights and the (n, n) difference stay on the same plateau, raw centimetres are slow "
        "and jagged, and a learning rate of 1.5 leaves the panel at once.",
    )
    results.metric("loss_zero_start", runs["all weights zero at first"][-1])
    results.metric("loss_silent_shape_trained", runs["p − y of shape (n, n)"][-1])
    results.metric("loss_raw_centimetres", runs["raw centimetres"][-1])
    results.save()


if __name__ == "__main__":
    main()
