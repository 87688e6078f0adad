"""Sprint 03's milestones on optimizers. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

import shared
from course.oracles import check, check_formula_runs, doing
from shared import optim

FALLING = (1.0, 1.0, 0.1, 0.1)  # the factors of a schedule that changes the learning rate on the way


def valley_path(make, steps: int, schedule: Sequence[float] | None = None) -> list[list[float]]:
    """The weights after each step from (0, 0) in the valley of note 04; a schedule has a factor of lr for each."""
    rows = shared.tensor([[2, 0], [0, 0.4], [1, 0.2], [1, 0.2], [1, 0.2], [1, 0.2]])
    y = shared.tensor([0, 1, 0.5, 0.5, 0.5, 0.5])
    w = shared.zeros(2, requires_grad=True)
    optimizer, path = make([w]), []
    rate = optimizer.param_groups[0]["lr"]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (schedule[step] if schedule else 1.0)
        optimizer.zero_grad()
        ((rows @ w - y) ** 2).mean().backward()
        optimizer.step()
        path.append(w.tolist())
    return path


def reference_path(update, steps: int) -> np.ndarray:
    """The same walk in NumPy: `update(t, g, memory)` turns the gradient g of step t into a change of w."""
    rows = np.array([[2, 0], [0, 0.4], [1, 0.2], [1, 0.2], [1, 0.2], [1, 0.2]])
    y = np.array([0, 1, 0.5, 0.5, 0.5, 0.5])
    w, memory, path = np.zeros(2), {}, []
    for t in range(1, steps + 1):
        w = w + update(t, 2 / 6 * rows.T @ (rows @ w - y), memory)
        path.append(w)
    return np.array(path)


def check_single_number(make, expected: list[float]) -> None:
    """Two steps from 1 with the gradient ½, where the parameter has the shape ()."""
    w = shared.tensor(1.0, requires_grad=True)
    optimizer, path = make([w]), []
    for _ in range(2):
        w.grad = shared.tensor(0.5)
        with doing(
            f"a step of {type(optimizer).__name__} on a parameter that is a single number, of shape ()",
            {"": "a[:] = … needs a dimension; a[...] = … and a += … do not."},
        ):
            optimizer.step()
        path.append(w.item())
    check(f"{type(optimizer).__name__} on a parameter of shape ()", path, expected)


def test_sgd_with_momentum_follows_the_path_computed_by_hand():
    def momentum(rule, look_ahead=0.0, decay=0.0, whole_start=False):
        def update(t, g, memory):
            g = g + decay * memory.get("w", np.zeros(2))
            memory["m"] = g if whole_start and t == 1 else rule(memory.get("m", np.zeros(2)), g)
            change = -0.25 * (g + look_ahead * memory["m"] if look_ahead else memory["m"])
            memory["w"] = memory.get("w", np.zeros(2)) + change
            return change

        return reference_path(update, 3)

    with doing("a step of SGD", {"NoneType": "buf is None where momentum is 0: the step is along the gradient."}):
        plain = valley_path(lambda w: optim.SGD(w, lr=0.5), 1)
    check(
        "one step of plain SGD with lr 0.5",
        plain,
        [[0.3333, 0.1333]],
        {
            "a step uphill (w + lr · g)": [[-0.3333, -0.1333]],
            "a step of length lr": [[0.5, 0.5]],
            "no change at all, as if `param = param - …` made a new array: change the given one, `param -= …`": [
                [0, 0]
            ],
        },
    )
    with doing("a step of SGD with momentum"):
        path = valley_path(lambda w: optim.SGD(w, lr=0.25, momentum=0.9), 3)
    expected = momentum(lambda m, g: 0.9 * m + g)
    check(
        "the path of SGD with lr 0.25 and momentum 0.9",
        path,
        expected,
        {
            "no momentum at all, or a buf that is not changed in place": momentum(lambda m, g: g),
            "a running mean, m ← 0.9 m + 0.1 g, whose steps are ten times shorter": momentum(
                lambda m, g: 0.9 * m + 0.1 * g
            ),
            "a momentum that never fades (m ← m + g)": momentum(lambda m, g: m + g),
            "Nesterov's look-ahead, which was not asked for": momentum(lambda m, g: 0.9 * m + g, look_ahead=0.9),
            "a velocity with the wrong sign": -expected,
            "a learning rate inside the velocity as well as outside": momentum(lambda m, g: 0.9 * m + 0.25 * g),
        },
    )
    check("the first two steps by hand", expected[:2], [[0.1667, 0.0667], [0.3678, 0.1804]])
    check(
        "the path with nesterov=True",
        valley_path(lambda w: optim.SGD(w, lr=0.25, momentum=0.9, nesterov=True), 3),
        momentum(lambda m, g: 0.9 * m + g, look_ahead=0.9),
        {
            "plain momentum: nesterov=True changes nothing": expected,
            "a look-ahead without the factor μ, p ← p − η (g + b)": momentum(lambda m, g: 0.9 * m + g, look_ahead=1.0),
        },
    )
    check(
        "the path with momentum 0.9 and dampening 0.5, which starts with the second step",
        valley_path(lambda w: optim.SGD(w, lr=0.25, momentum=0.9, dampening=0.5), 3),
        momentum(lambda m, g: 0.9 * m + 0.5 * g, whole_start=True),
        {"a dampening that is not looked at": expected},
    )
    check(
        "the path with momentum 0.9 and weight decay 0.5",
        valley_path(lambda w: optim.SGD(w, lr=0.25, momentum=0.9, weight_decay=0.5), 3),
        momentum(lambda m, g: 0.9 * m + g, decay=0.5),
        {
            "no decay": expected,
            "a decay with the wrong sign, which makes weights grow": momentum(lambda m, g: 0.9 * m + g, decay=-0.5),
        },
    )
    w = shared.ones(2, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.25, momentum=0.9, weight_decay=0.5)
    for _ in range(2):
        w.grad = shared.tensor([1.0, -2.0])
        check_formula_runs("optim", "sgd", optimizer.step)
        check(
            "the gradient after a step",
            w.grad.tolist(),
            [1, -2],
            {"a decay added to .grad itself, `grad += …`; make a new array, `grad = grad + …`": [1.5, -1.5]},
        )
    check_single_number(lambda w: optim.SGD(w, lr=0.25, momentum=0.9), [0.875, 0.6375])

    def falling(inside: bool) -> np.ndarray:
        """A learning rate that falls: outside the velocity, as in the docstring, or inside."""

        def update(t, g, memory):
            rate = 0.25 * FALLING[t - 1]
            memory["m"] = 0.9 * memory.get("m", 0) + (rate * g if inside else g)
            return -memory["m"] if inside else -rate * memory["m"]

        return reference_path(update, 4)

    check(
        "the path with momentum 0.9 and a learning rate that falls to a tenth after two steps",
        valley_path(lambda w: optim.SGD(w, lr=0.25, momentum=0.9), 4, FALLING),
        falling(inside=False),
        {
            "the learning rate inside the velocity, b ← μ b + η g and p ← p − b, which keeps the old rate of old "
            "gradients": falling(inside=True)
        },
    )


def moments(gradients, beta1=0.9, beta2=0.999, steps=None, mean=None, square=None) -> tuple[np.ndarray, np.ndarray]:
    """Adam's m and v after the gradients; `mean` and `square` may replace the rules (old, g, m) → new."""
    m = v = np.zeros_like(gradients[0])
    for g in gradients[:steps]:
        m = mean(m, g) if mean else beta1 * m + (1 - beta1) * g
        v = square(v, g, m) if square else beta2 * v + (1 - beta2) * g**2
    return m, v


def test_adam_and_rmsprop_scale_each_coordinate_by_its_own_history():
    gradients = np.array([[0.5, -2.0, 4.0], [1.0, 1.0, -3.0]])
    w = shared.zeros(3, requires_grad=True)
    optimizer = optim.Adam([w], lr=0.1)
    for g in gradients:
        w.grad = shared.tensor(g.tolist())
        with doing("a step of Adam"):
            check_formula_runs("optim", "update_moments", optimizer.step)
        check("the gradient after a step", w.grad.tolist(), g)
    state = optimizer.state[w]
    (first, _), (m, v) = moments(gradients, steps=1), moments(gradients)
    check(
        f"exp_avg, m ← 0.9 m + 0.1 g, after the gradients {gradients.tolist()}",
        state["exp_avg"].tolist(),
        m,
        {
            "no change in place: `exp_avg = …` makes a new array": 0 * m,
            "g added whole, m ← 0.9 m + g": moments(gradients, mean=lambda m, g: 0.9 * m + g)[0],
            "a mean that never fades": moments(gradients, mean=lambda m, g: m + 0.1 * g)[0],
            "beta2 where beta1 is meant": moments(gradients, beta1=0.999)[0],
            "the last gradient alone": 0.1 * gradients[1],
            "a corrected mean that was stored: m̂ is for the step only": (0.9 * first / 0.1 + 0.1 * gradients[1]) / 0.19,
        },
        tolerance=1e-6,
    )
    check(
        f"exp_avg_sq, v ← 0.999 v + 0.001 g², after the gradients {gradients.tolist()}",
        state["exp_avg_sq"].tolist(),
        v,
        {
            "no change in place: `exp_avg_sq = …` makes a new array": 0 * v,
            "v decayed by beta1 where beta2 is meant, v ← 0.9 v + 0.001 g²": moments(
                gradients, square=lambda v, g, m: 0.9 * v + 0.001 * g**2
            )[1],
            "beta1 where beta2 is meant, v ← 0.9 v + 0.1 g²": moments(gradients, beta2=0.9)[1],
            "the square of the mean instead of the mean of squares": moments(
                gradients, square=lambda v, g, m: 0.999 * v + 0.001 * m**2
            )[1],
            "the gradient not squared": moments(gradients, square=lambda v, g, m: 0.999 * v + 0.001 * g)[1],
            "g² added whole, v ← 0.999 v + g²": moments(gradients, square=lambda v, g, m: 0.999 * v + g**2)[1],
            "a corrected mean that was stored: v̂ is for the step only": (
                0.999 * gradients[0] ** 2 + 0.001 * gradients[1] ** 2
            )
            / 0.001999,
        },
        tolerance=1e-6,
    )
    for gradient in ([3e-2, -2.0, 5e3], [1.0, 1.0, -1.0]):
        w = shared.zeros(3, requires_grad=True)
        optimizer = optim.Adam([w], lr=0.1)
        w.grad = shared.tensor(gradient)
        check_formula_runs("optim", "adam_step", optimizer.step)
        g = np.array(gradient)
        check(
            f"Adam's first step for the gradient {gradient} with lr 0.1, −lr · sign(g)",
            w.tolist(),
            -0.1 * np.sign(g),
            {
                "no bias correction at all": -0.1 * 0.1 * g / (math.sqrt(0.001) * abs(g)),
                "bias correction of m only": -0.1 * g / (math.sqrt(0.001) * abs(g)),
                "bias correction of v only": -0.01 * np.sign(g),
                "a step uphill": 0.1 * np.sign(g),
                "no change at all, as if `param = param - …` made a new array": 0 * g,
                "a division by v̂ instead of its root": -0.1 / g,
                "the square of the mean instead of the mean of squares": -np.sign(g),
                "1 − β instead of 1 − βᵗ, upside down": -0.1 * 0.01 * g / (0.001 * abs(g)),
                "ε inside the root, √(v + ε), before the correction": -0.1 * g / np.sqrt(g**2 + 1e-5),
                "a step count that is one ahead: t = 1 in the first step": -0.1
                * (0.1 / 0.19)
                / math.sqrt(0.001 / 0.001999)
                * np.sign(g),
            },
        )
    # A large ε shows where it stands.
    w, g = shared.zeros(3, requires_grad=True), np.array([0.5, -2.0, 8.0])
    optimizer = optim.Adam([w], lr=0.1, eps=1.0)
    w.grad = shared.tensor(g.tolist())
    optimizer.step()
    check(
        "Adam's first step with eps = 1, −lr · g / (|g| + 1)",
        w.tolist(),
        -0.1 * g / (abs(g) + 1),
        {
            "no ε": -0.1 * np.sign(g),
            "ε inside the root, √(v̂ + ε)": -0.1 * g / np.sqrt(g**2 + 1),
            "ε inside the root, √(v + ε), before the correction": -0.1 * g / (np.sqrt((0.001 * g**2 + 1) / 0.001)),
            "ε inside the root and outside": -0.1 * g / (np.sqrt(g**2 + 1) + 1),
            "ε inside the root, before the correction, and outside": -0.1
            * g
            / (np.sqrt((0.001 * g**2 + 1) / 0.001) + 1),
            "ε added before the correction, (√v + ε) / √(1 − β₂ᵗ)": -0.1 * g / (abs(g) + 1 / math.sqrt(0.001)),
        },
    )

    def adam(beta2=0.999, corrected=True, second=None, m_power=None, v_power=None):
        def update(t, g, memory):
            m = memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
            v = memory["v"] = beta2 * memory.get("v", 0) + (1 - beta2) * (g if second is None else second(m, g)) ** 2
            if corrected:
                m, v = m / (1 - 0.9 ** (m_power or t)), v / (1 - beta2 ** (v_power or t))
            return -0.1 * m / (np.sqrt(v) + 1e-8)

        return reference_path(update, 5)

    with doing("a step of Adam"):
        path = valley_path(lambda w: optim.Adam(w, lr=0.1), 5)
    check(
        "Adam's path through the valley",
        path,
        adam(),
        {
            "no bias correction": adam(corrected=False),
            "a correction by 1 − β in every step instead of 1 − βᵗ": adam(m_power=1, v_power=1),
            "a correction of m by 1 − β in every step instead of 1 − βᵗ": adam(m_power=1),
            "a correction of v by 1 − β in every step instead of 1 − βᵗ": adam(v_power=1),
            "beta2 = 0.9: the two betas are the same": adam(beta2=0.9),
            "the square of the mean instead of the mean of squares": adam(second=lambda m, g: m),
        },
    )
    check("its first two steps by hand", path[:2], [[0.1, 0.1], [0.1948, 0.1993]])

    def rmsprop(
        momentum=0.0, centered=False, decay=0.0, root=True, keep=0.99, eps=1e-8, under=0.0, schedule=None, inside=False
    ):
        def update(t, g, memory):
            rate = 0.1 * (schedule[t - 1] if schedule else 1)
            g = g + decay * memory.get("w", np.zeros(2))
            memory["s"] = keep * memory.get("s", 0) + 0.01 * g**2
            memory["a"] = 0.99 * memory.get("a", 0) + 0.01 * g
            scale = memory["s"] - memory["a"] ** 2 if centered else memory["s"]
            step = g / ((np.sqrt(scale + under) if root else scale) + eps)
            memory["b"] = momentum * memory.get("b", 0) + (rate * step if inside else step)
            change = -memory["b"] if inside else -rate * memory["b"]
            memory["w"] = memory.get("w", np.zeros(2)) + change
            return change

        return reference_path(update, 4)

    with doing("a step of RMSprop"):
        path = valley_path(lambda w: optim.RMSprop(w, lr=0.1), 4)
    g = np.array([[-2 / 3, -0.8 / 3]])
    check(
        "RMSprop's first step with lr 0.1, which is ten times lr",
        path[:1],
        [[1, 1]],
        {
            "Adam's bias correction, which RMSprop has not, or g² added whole, s ← α s + g²": [[0.1, 0.1]],
            "a division by s instead of its root": -0.1 / (0.01 * g),
            "plain gradient descent": -0.1 * g,
            "no change at all, as if `param = param - …` made a new array": [[0, 0]],
            "a step uphill": [[-1, -1]],
        },
    )
    check(
        "RMSprop's path through the valley",
        path,
        rmsprop(),
        {
            "a mean of squares that never fades": rmsprop(keep=1.0),
            "the last gradient's square alone: square_avg is not kept in place": rmsprop(keep=0.0),
        },
    )
    variants = (
        ("with momentum 0.9", {"momentum": 0.9}, {"no momentum": rmsprop()}),
        (
            "with centered=True",
            {"centered": True},
            {"the mean of squares alone: a², the square of the mean, is not subtracted": rmsprop()},
        ),
        ("with weight decay 0.5", {"weight_decay": 0.5}, {"no decay": rmsprop()}),
    )
    for what, options, mistakes in variants:
        with doing(f"a step of RMSprop {what}"):
            path = valley_path(lambda w, options=options: optim.RMSprop(w, lr=0.1, **options), 4)
        wanted = {{"weight_decay": "decay"}.get(name, name): value for name, value in options.items()}
        check(f"RMSprop's path {what}", path, rmsprop(**wanted), mistakes)
    # A large ε shows where it stands.
    for centered, mean in ((False, "v"), (True, "v − a²")):
        check(
            f"RMSprop's path with eps = 1{' and centered=True' if centered else ''}, where d = √({mean}) + ε",
            valley_path(lambda w, c=centered: optim.RMSprop(w, lr=0.1, eps=1.0, centered=c), 4),
            rmsprop(centered=centered, eps=1.0),
            {
                f"ε inside the root, √({mean} + ε)": rmsprop(centered=centered, eps=0.0, under=1.0),
                "no ε": rmsprop(centered=centered),
                "ε inside the root and outside": rmsprop(centered=centered, eps=1.0, under=1.0),
            },
        )
    check(
        "RMSprop's path with momentum 0.9 and a learning rate that falls to a tenth after two steps",
        valley_path(lambda w: optim.RMSprop(w, lr=0.1, momentum=0.9), 4, FALLING),
        rmsprop(momentum=0.9, schedule=FALLING),
        {
            "the learning rate inside the velocity, b ← μ b + η g / d and p ← p − b, which keeps the old rate of old "
            "gradients": rmsprop(momentum=0.9, schedule=FALLING, inside=True)
        },
    )
    w = shared.ones(2, requires_grad=True)
    optimizer = optim.RMSprop([w], weight_decay=0.5)
    w.grad = shared.tensor([1.0, -2.0])
    check_formula_runs("optim", "rmsprop", optimizer.step)
    check("the gradient after a step of RMSprop, which only reads it", w.grad.tolist(), [1, -2])
    check_single_number(lambda w: optim.Adam(w, lr=0.1), [0.9, 0.8])
    check_single_number(lambda w: optim.RMSprop(w, lr=0.01, momentum=0.5, centered=True), [0.8995, 0.7776])
