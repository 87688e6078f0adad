"""Sprint 01 as a specification. Oracles: numbers computed by hand, finite differences, slow NumPy loops."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.datasets import load_iris

import shared
from shared.autograd import Function
from shared.testing import gradcheck

FOUR = np.array([[1.4, 0.2], [4.7, 1.4], [6.0, 2.5], [4.5, 1.5]])  # petals of irises 0, 50, 100, 51, in cm
TARGETS = np.array([[-1.0], [1.0], [-1.0], [1.0]])
FIRST = {
    "w1": np.array([[0.2, -0.4, 0.5], [0.3, 0.1, -0.6]]),
    "b1": np.array([-0.2, 0.3, 0.1]),
    "w2": np.array([[-1.5], [0.8], [0.4]]),
    "b2": np.array([0.1]),
}


def leaf(values: object) -> shared.Tensor:
    """A float64 tensor that collects a gradient."""
    return shared.tensor(np.array(values, dtype=np.float64)).requires_grad_()


def compare(what: str, found: object, right: object, mistakes: dict[str, object] | None = None) -> None:
    """Fail unless `found` is `right`; name the mistake when it equals what a known mistake would give."""
    assert found is not None, f"{what}: there is no gradient. Did backward reach this tensor, and keep what arrived?"
    found = found.numpy() if isinstance(found, shared.Tensor) else np.asarray(found)
    right = np.asarray(right, dtype=np.float64)
    close = {"rtol": 1e-6, "atol": 1e-9}
    if found.shape == right.shape and np.allclose(found, right, **close):
        return
    for mistake, value in (mistakes or {}).items():
        value = np.asarray(value)
        if value.shape == found.shape and np.allclose(found, value, **close):
            pytest.fail(f"{what}: expected {right.round(4).tolist()}, got {found.round(4).tolist()}: {mistake}")
    assert found.shape == right.shape, (
        f"{what}: shape {found.shape} where {right.shape} is right. A gradient has the shape of the tensor "
        f"it belongs to; what broadcasting stretched has to be summed back"
    )
    factor = (found / np.where(right == 0, np.nan, right)).ravel()
    factor = factor[np.isfinite(factor)]
    hint = ""
    if factor.size > 1 and np.ptp(factor) < 1e-6 * abs(factor.mean()):
        hint = f". Every entry is off by the factor {factor.mean():.4g}"
        hint += ": the sign of a term is wrong" if abs(factor.mean() + 1) < 1e-6 else ": a constant is missing"
    pytest.fail(f"{what}: expected {right.round(4).tolist()}, got {found.round(4).tolist()}{hint}")


def neuron(w: shared.Tensor, b: shared.Tensor, v: shared.Tensor, x: np.ndarray, y: np.ndarray) -> shared.Tensor:
    """The mean squared error of v·tanh(x w + b), the squares written as a product of a tensor with itself."""
    e = v * (shared.tensor(x) @ w + b).tanh() - shared.tensor(y)
    return (e * e).mean()


def network(x: shared.Tensor, q: dict[str, shared.Tensor]) -> shared.Tensor:
    """The 2-3-1 network of note 06: (n, 2) to (n, 1)."""
    return (x @ q["w1"] + q["b1"]).tanh() @ q["w2"] + q["b2"]


def hand_derived(x: np.ndarray, y: np.ndarray, q: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients as note 06 derives them, in NumPy."""
    h = np.tanh(x @ q["w1"] + q["b1"])
    e = h @ q["w2"] + q["b2"] - y
    to_p = 2 * e / len(x)
    to_z = (to_p @ q["w2"].T) * (1 - h * h)
    return float((e * e).mean()), {"w1": x.T @ to_z, "b1": to_z.sum(0), "w2": h.T @ to_p, "b2": to_p.sum(0)}


def test_a_view_shares_memory_and_passes_its_gradient_back():
    table = shared.tensor(np.arange(16.0).reshape(4, 4))
    petals = table[:, 2:4]
    assert tuple(petals.shape) == (4, 2) and petals.stride() == (4, 1), (
        f"table[:, 2:4] has shape {tuple(petals.shape)} and strides {petals.stride()}; "
        f"the next flower is still four places on"
    )
    assert petals.T.stride() == (1, 4), "a transpose exchanges the strides and copies nothing"
    petals[2, 1] = 99.0
    assert table[2, 3].item() == 99.0, "writing into the view did not change the table: the slice is a copy"
    assert not petals.T.is_contiguous()
    with pytest.raises(RuntimeError, match="view"):
        petals.T.view(8)
    assert petals.T.reshape(8).tolist() == [2, 6, 10, 14, 3, 7, 99, 15], "reshape keeps the order of the indices"

    x = leaf(np.arange(16.0).reshape(4, 4))
    weights = np.arange(1.0, 9.0).reshape(2, 4)
    (x[:, 2:4].T * shared.tensor(weights)).sum().backward()
    right = np.zeros((4, 4))
    right[:, 2:4] = weights.T
    elsewhere, unturned = np.zeros((4, 4)), np.zeros((4, 4))
    elsewhere[:, 0:2] = weights.T
    unturned[:, 2:4] = weights.reshape(4, 2)
    compare(
        "the gradient of the table through its transposed petals",
        x.grad,
        right,
        {
            "it landed in the first columns: the offset of the slice was lost": elsewhere,
            "the backward of the transpose reshapes where it must transpose": unturned,
        },
    )


def test_broadcasting_aligns_shapes_from_the_right():
    rng = np.random.default_rng(0)
    allowed = [
        ((4, 2), (2,)),
        ((4, 1), (4,)),
        ((5, 1, 3), (4, 1)),
        ((), (3,)),
        ((2, 1), (1, 3)),
        ((4, 2), (4, 1)),
    ]
    for shape_a, shape_b in allowed:
        a, b = rng.standard_normal(shape_a), rng.standard_normal(shape_b)
        size = max(a.ndim, b.ndim)
        full_a, full_b = (
            a.reshape((1,) * (size - a.ndim) + shape_a),
            b.reshape((1,) * (size - b.ndim) + shape_b),
        )
        shape = tuple(max(m, n) for m, n in zip(full_a.shape, full_b.shape, strict=True))
        right = np.empty(shape)
        for index in np.ndindex(shape):  # the slow obvious way: an axis of size 1 is read again and again
            at_a, at_b = (
                tuple(i if n > 1 else 0 for i, n in zip(index, t.shape, strict=True)) for t in (full_a, full_b)
            )
            right[index] = full_a[at_a] * full_b[at_b]
        ta, tb = leaf(a), leaf(b)
        product = ta * tb
        compare(f"{shape_a} * {shape_b}", product.detach(), right)
        product.sum().backward()
        for operand, t in (("left", ta), ("right", tb)):
            assert t.grad.shape == t.shape, (
                f"{shape_a} * {shape_b}: the {operand} operand has shape {tuple(t.shape)} and its gradient "
                f"{tuple(t.grad.shape)}"
            )
    for shape_a, shape_b in [((4, 2), (4,)), ((2, 3), (3, 2)), ((4, 3), (3, 1))]:
        with pytest.raises(RuntimeError) as error:
            shared.zeros(shape_a) * shared.zeros(shape_b)
        message = str(error.value)
        assert str(shape_a) in message and str(shape_b) in message, (
            f"{shape_a} * {shape_b} must be refused by a message naming both shapes, but it says: {message}"
        )


def test_broadcast_gradients_are_summed_back():
    m = leaf([4.0, 1.0])
    d = shared.tensor(FOUR) - m
    (d * d).sum().backward()
    uses = -2 * (FOUR - [4.0, 1.0])  # what each of the four flowers reports
    compare(
        "the spread around (4, 1), by hand (-1.2, -3.2)",
        m.grad,
        [-1.2, -3.2],
        {
            "the four uses were averaged; they must be summed": uses.mean(0),
            "one use alone arrived; all four must be summed": uses[0],
            "one use alone arrived (the last); all four must be summed": uses[-1],
            "one gradient for each use; they must be summed over the flowers": uses,
            "the product d * d delivered once where d is used twice": uses.sum(0) / 2,
        },
    )
    rng = np.random.default_rng(1)
    for shape, full in [
        ((3,), (4, 3)),
        ((4, 1), (4, 3)),
        ((1, 3), (4, 3)),
        ((), (4, 3)),
        ((1, 3, 1), (2, 3, 4)),
    ]:
        g = rng.standard_normal(full)
        x = leaf(rng.standard_normal(shape))
        ((shared.zeros(full, dtype=shared.float64) + x) * shared.tensor(g)).sum().backward()
        right = np.zeros((1,) * (len(full) - len(shape)) + shape)
        for index in np.ndindex(
            full
        ):  # add the gradient of every element of the result to the element it was made from
            right[tuple(i if n > 1 else 0 for i, n in zip(index, right.shape, strict=True))] += g[index]
        right = right.reshape(shape)
        count = np.prod(full) / max(1, np.prod(shape))
        compare(
            f"an operand of shape {shape} stretched to {full}",
            x.grad,
            right,
            {"averaged over the uses, not summed": right / count},
        )


def test_gradients_follow_the_chain_rule():
    w, b, v = leaf([[0.2], [0.3]]), leaf(-0.2), leaf(-1.5)
    loss = neuron(w, b, v, np.array([[1.85, 1.1]]), np.array([[-1.0]]))
    assert abs(loss.item() - 0.0941411) < 1e-6, f"the loss by hand is 0.0941, got {loss.item():.4f}: look at a forward"
    loss.backward()
    by_hand = {"w": [[-1.33922192], [-0.79629411]], "b": -0.72390374, "v": 0.28357751}
    slope = 1 - np.tanh(0.5) ** 2
    for name, parameter in (("v", v), ("b", b), ("w", w)):
        right = np.array(by_hand[name])
        before_tanh = {
            "tanh passed the gradient on without the factor 1 - h*h": right / slope,
            "the factor of tanh is 1 - h where 1 - h*h is right": right / slope * (1 - np.tanh(0.5)),
            "the factor of tanh was computed from its input, where its output is right": right / slope * 0.75,
        }
        at_product = {
            "v received the gradient of h: a product gives each factor the gradient times the other": -0.92047279
        }
        compare(
            f"the gradient of {name}, computed by hand in note 03",
            parameter.grad,
            right,
            {
                "exactly half: e is used twice in e * e, and one use overwrote the other": right / 2,
                "the sign is wrong: look at the difference p - y": -right,
                **(at_product if name == "v" else before_tanh),
            },
        )


class CountedAdd(Function):
    """a + b, counting how often its backward runs."""

    calls = 0

    def forward(self, a, b):
        return a + b

    def backward(self, grad):
        CountedAdd.calls += 1
        return grad, grad


def test_a_value_used_twice_collects_both_gradients():
    q = leaf(1.0)
    t = q + 1.0
    try:
        (t * t * t).backward()
    except NotImplementedError:
        raise
    except RuntimeError as error:
        pytest.fail(f"(q + 1)³ in one walk: a node was visited twice, or before all its uses had reported: {error}")
    compare(
        "the slope of (q + 1)³ at q = 1, by hand 12",
        q.grad,
        12.0,
        {
            "uses of t were lost: overwritten where they must be added, or t passed its gradient on too early": 4.0,
            "one of the three uses of t was lost": 8.0,
        },
    )

    x = leaf([0.5, -1.0, 2.0])
    late, early = x * 3.0, x * x  # used in the other order than made, and at different depths
    inner = early * 0.5 + 1.0
    ((inner + late) * early * inner).sum().backward()
    values = np.array([0.5, -1.0, 2.0])

    def plain(x: np.ndarray) -> np.ndarray:
        return ((x * x / 2 + 1) + 3 * x) * x * x * (x * x / 2 + 1)

    right = (plain(values + 1e-6) - plain(values - 1e-6)) / 2e-6
    assert np.allclose(x.grad.numpy(), right, rtol=1e-6), (
        f"a graph whose values are used at different depths: expected {right.round(4)}, got "
        f"{x.grad.numpy().round(4)}. Every use has to report before a value passes its gradient on"
    )

    levels, y = 16, leaf(1.0)
    CountedAdd.calls, z = 0, y
    for _ in range(levels):
        z = CountedAdd()(z, z)
    z.backward()
    compare(f"{levels} levels of z = z + z", y.grad, 2.0**levels)
    assert CountedAdd.calls == levels, (
        f"{levels} nodes, but backward ran {CountedAdd.calls} times: each node must be visited once, after "
        f"its gradient is complete, and not once for each path"
    )

    y = leaf(1.0)
    z = y
    for _ in range(3000):
        z = z + 1.0
    try:
        z.backward()
    except RecursionError:
        pytest.fail("a chain of 3,000 operations ended in RecursionError: walk the graph with a loop")
    compare("a chain of 3,000 additions", y.grad, 1.0)


class Keeps(Function):
    """x · 1, saving an array of its own that the test watches."""

    watched: weakref.ref

    def forward(self, x):
        mine = x + 0.0
        Keeps.watched = weakref.ref(mine)
        self.saved = (mine,)
        return x * 1.0

    def backward(self, grad):
        return grad * 1.0


def test_a_second_backward_adds_and_a_graph_is_walked_once():
    v = leaf([2.0, -1.0])
    (v * v).sum().backward()
    compare("the first gradient of v·v", v.grad, [4.0, -2.0], {"one use of v was lost": [2.0, -1.0]})
    (v * 3.0).sum().backward()
    compare(
        "after a second formula with the same v",
        v.grad,
        [7.0, 1.0],
        {"the second backward overwrote the first; .grad accumulates until it is cleared": [3.0, 3.0]},
    )
    v.grad = None
    loss = (v * v).sum()
    loss.backward(retain_graph=True)
    loss.backward(retain_graph=True)
    compare("the same graph walked twice under retain_graph", v.grad, [8.0, -4.0])
    v.grad = None

    loss = (Keeps()(v) * 2.0).sum()
    loss.backward()
    compare("the gradient through Keeps", v.grad, [2.0, 2.0])
    assert Keeps.watched() is None, (
        "the loss is still there, and so is an array that a node saved for its backward: release what a node "
        "saved as the walk passes it, or every loss that is kept keeps its whole graph"
    )
    with pytest.raises(RuntimeError, match="second time|freed|retain_graph"):
        loss.backward()
    with shared.no_grad():
        assert not (v * 2.0).requires_grad, "under no_grad nothing is recorded"


OPERATIONS: dict[str, tuple[Callable[..., shared.Tensor], list[tuple[int, ...]]]] = {
    "a + b": (lambda a, b: a + b, [(4, 3), (3,)]),
    "a - b": (lambda a, b: a - b, [(4, 1), (4, 3)]),
    "a * b": (lambda a, b: a * b, [(4, 3), (4, 1)]),
    "a / b": (lambda a, b: a / b, [(4, 3), (3,)]),
    "-a": (lambda a: -a, [(4, 3)]),
    "a ** 3": (lambda a: a**3, [(4, 3)]),
    "exp": (lambda a: a.exp(), [(4, 3)]),
    "log": (lambda a: a.log(), [(4, 3)]),
    "tanh": (lambda a: a.tanh(), [(4, 3)]),
    "sum of everything": (lambda a: a.sum(), [(4, 3)]),
    "sum(0)": (lambda a: a.sum(0), [(4, 3)]),
    "sum(1, keepdim=True)": (lambda a: a.sum(1, keepdim=True), [(4, 3)]),
    "mean(1)": (lambda a: a.mean(1), [(4, 3)]),
    "a @ b": (lambda a, b: a @ b, [(4, 3), (3, 2)]),
    "transpose": (lambda a: a.T, [(4, 3)]),
    "reshape": (lambda a: a.reshape(2, 6), [(4, 3)]),
    "expand": (lambda a: a.expand(4, 3), [(3,)]),
    "slice": (lambda a: a[1:, ::2], [(4, 3)]),
}


def test_operations_agree_with_finite_differences():
    rng = np.random.default_rng(2)
    wrong = []
    for name, (operation, shapes) in OPERATIONS.items():
        arrays = [rng.uniform(0.5, 1.5, shape) for shape in shapes]  # away from zero, for log and division
        tensors = [leaf(a) for a in arrays]
        output = operation(*tensors)
        u = rng.standard_normal(output.shape)
        try:
            (output * shared.tensor(u)).sum().backward()
        except ValueError as error:
            wrong.append(f"{name} on shapes {shapes}: backward raised {error}")
            continue
        for i, (array, t) in enumerate(zip(arrays, tensors, strict=True)):
            numerical = np.empty_like(array)
            for index in np.ndindex(array.shape):
                ends = []
                for step in (1e-5, -1e-5):
                    moved = [a.copy() for a in arrays]
                    moved[i][index] += step
                    ends.append((operation(*[shared.tensor(a) for a in moved]).numpy() * u).sum())
                numerical[index] = (ends[0] - ends[1]) / 2e-5
            assert t.grad is not None, f"{name}: input {i} received no gradient"
            if t.grad.shape != array.shape or not np.allclose(t.grad.numpy(), numerical, rtol=1e-6, atol=1e-8):
                found = t.grad.numpy()
                ratio = f", a ratio of {found.flat[0] / numerical.flat[0]:.4g}" if found.shape == array.shape else ""
                wrong.append(
                    f"{name}, input {i} of shape {array.shape}: differences give {numerical.flat[0]:.6f} for its "
                    f"first element, backward gives {found.flat[0]:.6f} in an array of shape {found.shape}{ratio}"
                )
            assert np.abs(numerical).max() > 1e-3, (
                f"{name}: the output does not depend on input {i}; its forward is wrong"
            )
    assert not wrong, "wrong gradients: " + "\n  ".join(wrong)


def wrong_tanh(
    rule: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[shared.Tensor], shared.Tensor]:
    """tanh with another backward: rule(gradient, output)."""

    class WrongTanh(Function):
        def forward(self, x):
            self.saved = (np.tanh(x),)
            return self.saved[0]

        def backward(self, grad):
            return rule(grad, self.saved[0])

    return lambda x: WrongTanh()(x)


def test_gradcheck_rejects_wrong_gradients():
    x = leaf(np.random.default_rng(3).standard_normal((4, 3)))
    right = wrong_tanh(lambda g, h: g * (1 - h * h))
    for fast in (True, False):
        assert gradcheck(right, x, fast=fast, raise_exception=False), (
            f"gradcheck(fast={fast}) rejects the right gradient of tanh: is the difference central, is eps near "
            f"1e-6, and is the comparison relative?"
        )
        assert gradcheck(lambda x: (x * x * x).sum(), x, fast=fast, raise_exception=False), (
            f"gradcheck(fast={fast}) rejects x·x·x: it, or the product, or the walk is wrong; see the other tests first"
        )
    mistakes = {
        "a missing factor": lambda g, h: g,
        "the wrong sign": lambda g, h: -g * (1 - h * h),
        "a gradient of zero": lambda g, h: g * 0.0,
        "twice the gradient": lambda g, h: 2 * g * (1 - h * h),
        "one percent too much": lambda g, h: 1.01 * g * (1 - h * h),
        "a constant added": lambda g, h: g * (1 - h * h) + 0.01,
        "one wrong element": lambda g, h: g * (1 - h * h) * (np.arange(12).reshape(4, 3) != 7),
        "rows in reverse order": lambda g, h: (g * (1 - h * h))[::-1].copy(),
    }
    for mistake, rule in mistakes.items():
        for fast in (True, False):
            assert not gradcheck(wrong_tanh(rule), x, fast=fast, raise_exception=False), (
                f"gradcheck(fast={fast}) accepts a backward of tanh with {mistake}"
            )
    with pytest.raises(AssertionError, match="[Ff]inite differences"):
        gradcheck(wrong_tanh(mistakes["a missing factor"]), x)


def test_hand_derived_network_gradients_match_the_engine():
    x = FOUR - FOUR.mean(0)
    loss, gradients = hand_derived(x, TARGETS, FIRST)
    assert abs(loss - 2.11513) < 1e-5 and abs(gradients["w1"][0, 0] - 2.0817) < 1e-4, "the oracle is note 06's table"
    q = {name: leaf(value) for name, value in FIRST.items()}
    e = network(shared.tensor(x), q) - shared.tensor(TARGETS)
    engine_loss = (e**2).mean()
    assert abs(engine_loss.item() - loss) < 1e-9, f"loss by hand {loss:.4f}, by the engine {engine_loss.item():.4f}"
    engine_loss.backward()
    h = np.tanh(x @ FIRST["w1"] + FIRST["b1"])
    to_p = 2 * (h @ FIRST["w2"] + FIRST["b2"] - TARGETS) / 4
    for name in (
        "b2",
        "w2",
        "b1",
        "w1",
    ):  # from the last layer backwards: the first that fails is the culprit
        mistakes = {
            "half of it: the 2 of the square is missing": gradients[name] / 2,
            "four times as much: the mean over the flowers is missing": gradients[name] * 4,
            "a fourth of it: averaged over the flowers where the uses must be summed": gradients[name] / 4,
        }
        if name == "w1":
            mistakes["the factor 1 - h*h of tanh is missing"] = x.T @ (to_p @ FIRST["w2"].T)
        if name == "b2":
            mistakes["the first flower alone: the uses of a stretched bias must be summed"] = to_p[0]
        if name == "b1":
            mistakes["the factor 1 - h*h of tanh is missing"] = (to_p @ FIRST["w2"].T).sum(0)
        compare(f"the gradient of {name} of the 2-3-1 network (note 06)", q[name].grad, gradients[name], mistakes)


def test_one_hidden_layer_learns_what_a_line_cannot(record_property):
    iris = load_iris()
    petals, y = iris.data[:, 2:4], np.where(iris.target == 1, 1.0, -1.0)[:, None]
    order = np.random.default_rng(0).permutation(150)
    learn, held = order[:120], order[120:]
    x = (petals - petals[learn].mean(0)) / petals[learn].std(0)
    line = np.linalg.lstsq(np.c_[x[learn], np.ones(120)], y[learn], rcond=None)[0]
    line_loss = float(((np.c_[x[learn], np.ones(120)] @ line - y[learn]) ** 2).mean())

    rng = np.random.default_rng(0)
    q = {
        "w1": shared.tensor(rng.normal(size=(2, 3)), dtype=shared.float32),
        "b1": shared.zeros(3),
        "w2": shared.tensor(rng.normal(size=(3, 1)) / np.sqrt(3), dtype=shared.float32),
        "b2": shared.zeros(1),
    }
    for parameter in q.values():
        parameter.requires_grad_()
    inputs, targets = (shared.tensor(a[learn], dtype=shared.float32) for a in (x, y))
    history = []
    for _ in range(1000):
        loss = ((network(inputs, q) - targets) ** 2).mean()
        for parameter in q.values():
            parameter.grad = None
        loss.backward()
        with shared.no_grad():
            for parameter in q.values():
                parameter -= 0.3 * parameter.grad
        history.append(loss.item())

    final, variance = history[-1], float(y[learn].var())
    assert np.isfinite(final), f"the loss became {final}: a gradient is wrong in sign or far too large"
    assert abs(final - variance) > 0.02, (
        f"the loss rests at {final:.3f}, the variance of the targets: every output is the mean target. The "
        f"hidden layer receives no gradient, or p - y has a shape that broadcasts"
    )
    # Measured with these seeds: 0.093 after 1,000 steps; the best straight line 0.792, one hidden unit 0.65.
    assert final < 0.15, (
        f"the loss went from {history[0]:.3f} to {final:.3f}; 0.093 is what right gradients reach, and a "
        f"straight line has {line_loss:.3f}. A gradient points roughly downhill without being right"
    )
    assert final < line_loss / 4
    with shared.no_grad():
        outputs = network(shared.tensor(x[held], dtype=shared.float32), q)
    assert not outputs.requires_grad
    right = int(((outputs.numpy() > 0) == (y[held] > 0)).sum())
    record_property("mean_squared_error", final)
    record_property("of_the_best_line", line_loss)
    record_property("held-out_flowers_right", f"{right} of 30")
    assert right >= 27, f"{right} of 30 flowers that were held out are right; 29 were measured"
