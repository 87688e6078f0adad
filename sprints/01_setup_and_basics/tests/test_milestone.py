"""Sprint 01 as a specification. Oracles: numbers computed by hand, finite differences, slow NumPy loops."""

from __future__ import annotations

import gc
import re
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

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


def demand(holds: bool, message: str) -> None:
    """Fail with the message and nothing else, where an assert would add the arrays that were compared."""
    if not holds:
        pytest.fail(message)


def both(found: np.ndarray, right: np.ndarray, most: int) -> str:
    """The two arrays, or where they have more than `most` elements the one that is furthest off."""
    if found.size <= most:
        return f"Expected {right.round(4).tolist()}, got {found.round(4).tolist()}"
    place = np.unravel_index(np.nanargmax(np.abs(np.where(np.isfinite(found), found, np.inf) - right)), found.shape)
    where = ", ".join(str(int(i)) for i in place)
    return f"Furthest off at [{where}]: expected {right[place]:.4f}, got {found[place]:.4f}"


def compare(what: str, found: object, right: object, mistakes: dict[str, object] | None = None) -> None:
    """Fail unless `found` is `right`; name the mistake when it equals what a known mistake would give."""
    if found is None:
        pytest.fail(f"{what}: there is no gradient. Did backward reach this tensor, and keep what arrived?")
    found = found.detach().numpy() if isinstance(found, shared.Tensor) else np.asarray(found)
    right = np.asarray(right, dtype=np.float64)
    close = {"rtol": 1e-6, "atol": 1e-9}
    if found.shape == right.shape and np.allclose(found, right, **close):
        return
    for mistake, value in (mistakes or {}).items():
        value = np.asarray(value)
        if value.shape == found.shape and np.allclose(found, value, **close):
            pytest.fail(f"{what}: {mistake}. {both(found, np.broadcast_to(right, found.shape), most=6)}")
    demand(
        found.shape == right.shape,
        f"{what}: shape {found.shape} where {right.shape} is right. A gradient has the shape of the tensor "
        f"it belongs to; what broadcasting stretched has to be summed back",
    )
    unused = right == 0
    factor = found[~unused] / right[~unused]
    hint = ""
    if unused.any() and not unused.all() and np.allclose(found[~unused], right[~unused], **close):
        hint = "right where it is not 0, but what the result does not depend on has a gradient of 0. "
    elif factor.size > 1 and np.allclose(found[unused], 0) and np.ptp(factor) < 1e-6 * abs(factor.mean()):
        meaning = "the sign of a term is wrong" if abs(factor.mean() + 1) < 1e-6 else "a constant is missing"
        hint = f"every entry is off by the factor {factor.mean():.4g}: {meaning}. "
    pytest.fail(f"{what}: {hint}{both(found, right, most=30)}")


TENSORS = (
    "under create_graph=True the gradient and what was saved are Tensors, whose operations are recorded. Operators and "
    "methods that both have serve arrays and Tensors; functions of NumPy do not"
)
NO_AXES = "a Tensor sums everything over no axes at all, axis=(), where NumPy sums nothing"
EXPLAINED = {  # what an error on the way back is a sign of: its text, and after @ the functions it went through
    "None.*@.*/_accumulate(/|$)": "the first gradient of a leaf found .grad to be None: there is nothing to add it to "
    "yet, and it becomes .grad itself",
    "NoneType.*dtype.*@.*/_fit$": "unbroadcast gave back None: does every way through it end in a return?",
    "Tensor. object has no attribute .(number|edges|hooks|origins)": "a leaf was put among the waiting ones. Only a "
    "node, a Function, waits for its turn; a leaf has no number and no backward, it just collects",
    "NoneType.*(iterable|len)|zip": "a node was released before its edges were read",
    "NoneType.*(shape|dtype|array|number)": "an input that needs no gradient was not skipped: its edge is "
    "None, or what backward returns for it",
    "NoneType": "something that backward needs was not kept. The gradient of one operand needs the other operand, also "
    "where that one is a constant and needs no gradient itself",
    "not supported between|KeyError": "a node was put among the waiting ones twice. It joins them once, with its first "
    "gradient; what comes later is added to the sum",
    "second time": "a node was visited twice, before all its uses had reported, or it was released although "
    "retain_graph=True",
    r"positional argument|unexpected keyword": "a function does not take the arguments that it is called with. Is the "
    "signature as it was given?",
    "'(int|float|list|tuple)' object has no attribute 'array'": "an operation of shared was given a number or a list. "
    "In shared/ops/reduce.py sum, max, min, all and any are operations of that module, not Python's",
    "ZeroDivision": "it divided by a number of elements that is 0",
    r"call numpy\(\)|does not require grad|not have been used": "an array was computed where a Tensor is needed: "
    f"{TENSORS}",
    "matmul|matrix|core dimension|must equal the last": "the shapes of a product on the way back do not fit. For "
    "(n, k) @ (k, m) = (n, m) there is one way: (n, m) @ (m, k) for the left, (k, n) @ (n, m) for the right operand",
}


def explained(what: str, error: Exception, otherwise: str = "look where it was raised") -> str:
    """The error as the learner is told of it."""
    text = f"{type(error).__name__}: {error}"
    way = "/".join(frame.name for frame in traceback.extract_tb(error.__traceback__))
    signs = [meaning for sign, meaning in EXPLAINED.items() if re.search(sign, f"{text} @ /{way}", re.DOTALL)]
    meaning = f"a sign that {signs[0]}" if signs else otherwise
    shapes = [[int(n) for n in re.findall(r"\d+", shape)] for shape in re.findall(r"\(([\d, ]*)\)", text)]
    if re.search("assigned grad has the shape|does not fit an input", text) and len(shapes) == 2:
        too_large = np.sign(np.prod(shapes[0]) - np.prod(shapes[1]))
        meaning = (
            "a sign that a gradient has not the shape of its input: "
            + {
                1: "what broadcasting stretched has to be summed back to the shape it had (by unbroadcast, which _fit "
                "calls; _walk hands on what _fit returns)",
                -1: "what a sum took together has to be stretched back to the shape it had",
                0: "what rearranged the input, or added an axis to it, has to put the gradient back as it was",
            }[int(too_large)]
        )
    return f"{what}: backward ended in {type(error).__name__}, {meaning}. It says: {error}"


def backward(what: str, result: shared.Tensor, *gradient: shared.Tensor, **options: bool) -> None:
    """`result.backward(…)`; an error on the way fails the test and says what it is a sign of."""
    try:
        result.backward(*gradient, **options)
    except NotImplementedError:
        raise
    except Exception as error:
        pytest.fail(explained(what, error))


def refused(what: str, call: Callable[[], object], words: list[str], otherwise: str, meaning: str) -> None:
    """Fail unless `call()` raises a RuntimeError that has all the `words`; another error means `meaning`."""
    try:
        call()
    except NotImplementedError:
        raise
    except Exception as error:
        if not isinstance(error, RuntimeError) or not all(word in str(error) for word in words):
            pytest.fail(f"{what} ended in {type(error).__name__}: {error}. {meaning}")
    else:
        pytest.fail(f"{what} went through: {otherwise}")


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
    backward("the petals of a table, transposed", x[:, 2:4].T, shared.tensor(weights))
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

    cube, weights = leaf(np.zeros((3, 3, 3))), np.arange(27.0).reshape(3, 3, 3)
    backward("axes in another order", cube.permute(1, 2, 0), shared.tensor(weights))
    compare(
        "a gradient through permute(1, 2, 0), which makes axis 1 the first",
        cube.grad,
        weights.transpose(2, 0, 1),
        {
            "the axes were moved on once more, where their order must be undone": weights.transpose(1, 2, 0),
            "the axes of the gradient were left in the order of the result": weights,
        },
    )
    x = leaf(np.zeros((4, 2)))
    backward("a table in another shape", x.reshape(2, 4), shared.tensor(weights[0, :2, :2].repeat(2, axis=1)))
    compare("a gradient through reshape(2, 4)", x.grad, weights[0, :2, :2].repeat(2, axis=1).reshape(4, 2))


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
        backward(f"{shape_a} * {shape_b}", product, shared.ones_like(product))
        for operand, t, other in (("left", ta, full_b), ("right", tb, full_a)):
            uses = np.broadcast_to(other, shape)
            axes = tuple(i for i in range(size) if i < size - t.ndim or t.shape[i - size + t.ndim] == 1)
            gradient = uses.sum(axis=axes, keepdims=True).reshape(t.shape)
            compare(f"{shape_a} * {shape_b}, the gradient of the {operand} operand", t.grad, gradient)
    for shape_a, shape_b in [((4, 2), (4,)), ((2, 3), (3, 2)), ((4, 3), (3, 1))]:
        with pytest.raises(RuntimeError) as error:
            shared.zeros(shape_a) * shared.zeros(shape_b)
        message = str(error.value)
        assert str(shape_a) in message and str(shape_b) in message, (
            f"{shape_a} * {shape_b} must be refused by a message naming both shapes, but it says: {message}"
        )


def test_broadcast_gradients_are_summed_back():
    rng = np.random.default_rng(1)
    for shape, full in [
        ((3,), (3, 3)),
        ((3, 1), (3, 3)),
        ((3,), (4, 3)),
        ((4, 1), (4, 3)),
        ((1, 3), (4, 3)),
        ((), (4, 3)),
        ((1, 3, 1), (2, 3, 4)),
    ]:
        g = rng.standard_normal(full)
        x = leaf(rng.standard_normal(shape))
        what = f"an operand of shape {shape} stretched to {full}"
        backward(what, shared.zeros(full, dtype=shared.float64) + x, shared.tensor(g))
        right = np.zeros((1,) * (len(full) - len(shape)) + shape)
        first = np.zeros_like(right)
        for index in reversed(
            list(np.ndindex(full))
        ):  # each element of the result adds to the element it was made from
            at = tuple(i if n > 1 else 0 for i, n in zip(index, right.shape, strict=True))
            right[at] += g[index]
            first[at] = g[index]
        right = right.reshape(shape)
        count = np.prod(full) / max(1, np.prod(shape))
        mistakes = {
            "averaged over the uses, not summed": right / count,
            "one use alone arrived; all of them must be summed": first.reshape(shape),
            "the uses were not summed at all": g,
        }
        if full == (3, 3):
            other_way = g.sum(1) if shape == (3,) else g.sum(0).reshape(shape)
            mistakes["summed along the wrong axis; shapes are aligned from the right"] = other_way
        compare(what, x.grad, right, mistakes)

    m = leaf([4.0, 1.0])
    d = shared.tensor(FOUR) - m
    backward("the spread around (4, 1)", (d * d).sum())
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

    for what, m, right in (("a row", leaf([4.0, 1.0]), [8.0, 8.0]), ("a column", leaf(FOUR[:, :1]), [[4.0]] * 4)):
        what = f"the second derivative of the spread around {what}"
        try:
            d = shared.tensor(FOUR) - m
            (slope,) = shared.autograd.grad((d * d).sum(), m, create_graph=True)
            demand(
                slope.shape == m.shape,
                f"{what}: under create_graph=True, where it is a Tensor, the gradient of a tensor of shape "
                f"{tuple(m.shape)} came out with shape {tuple(slope.shape)}. Is it this: {NO_AXES}?",
            )
            (bend,) = shared.autograd.grad(slope.sum(), m)
        except NotImplementedError:
            raise
        except Exception as error:
            if "unbroadcast" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]:
                pytest.fail(
                    f"{what}: unbroadcast, given a Tensor, ended in an error. Is it this: {NO_AXES}? It says: {error}"
                )
            pytest.fail(explained(what, error, TENSORS))
        compare(what, bend, right)
    for full, shape in (((4, 2), (4, 3)), ((4, 1), (4, 2)), ((4, 2), (3, 4, 2)), ((4, 2), (3, 1))):
        refused(
            f"unbroadcast of a gradient of shape {full} to the shape {shape}",
            lambda full=full, shape=shape: shared.autograd.unbroadcast(np.ones(full), shape),
            [str(full)[1:-1], str(shape)[1:-1]],
            "no operand of that shape can have been stretched to the gradient's, so a RuntimeError has to name both",
            "What is asked for is a RuntimeError that names both shapes",
        )


def test_gradients_follow_the_chain_rule():
    w, b, v = leaf([[0.2], [0.3]]), leaf(-0.2), leaf(-1.5)
    loss = neuron(w, b, v, np.array([[1.85, 1.1]]), np.array([[-1.0]]))
    assert abs(loss.item() - 0.0941411) < 1e-6, f"the loss by hand is 0.0941, got {loss.item():.4f}: look at a forward"
    backward("the neuron of note 03", loss)
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


class IgnoresOne(Function):
    """2 a, whatever b is: there is no gradient for b."""

    def forward(self, a, b):
        return a * 2.0

    def backward(self, grad):
        return grad * 2.0, None


def test_a_value_used_twice_collects_both_gradients():
    q = leaf(1.0)
    t = q + 1.0
    backward("(q + 1)³, the sum used three times", t * t * t)
    compare(
        "the slope of (q + 1)³ at q = 1, by hand 12",
        q.grad,
        12.0,
        {
            "uses of t were lost: overwritten where they must be added, or t passed its gradient on too early": 4.0,
            "one of the three uses of t was lost": 8.0,
            "each node handed on the gradient as it came, where its backward says what its inputs receive": 3.0,
        },
    )

    x = leaf([0.5, -1.0, 2.0])
    late, early = x * 3.0, x * x  # used in the other order than made, and at different depths
    inner = early * 0.5 + 1.0
    backward("a graph whose values are used at different depths", ((inner + late) * early * inner).sum())
    values = np.array([0.5, -1.0, 2.0])

    def plain(x: np.ndarray) -> np.ndarray:
        return ((x * x / 2 + 1) + 3 * x) * x * x * (x * x / 2 + 1)

    right = (plain(values + 1e-6) - plain(values - 1e-6)) / 2e-6
    what = "a graph whose values are used at different depths (each passes its gradient on when all uses have reported)"
    compare(what, x.grad, right)

    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    output = IgnoresOne()(a, b)
    try:
        output.backward(shared.tensor([10.0, 20.0], dtype=shared.float64))
    except NotImplementedError:
        raise
    except Exception as error:
        if b.grad is not None or "NoneType" not in str(error):
            pytest.fail(explained("an operation that ignores one of its inputs", error))
        pytest.fail(
            f"an operation that ignores one of its inputs: its backward returned None for it, although that input has "
            f"an edge, and the None was handed on. Skip it. It says: {error}"
        )
    compare("the gradient of the input that is not ignored", a.grad, [20.0, 40.0])

    levels, y = 16, leaf(1.0)
    CountedAdd.calls, z = 0, y
    for _ in range(levels):
        z = CountedAdd()(z, z)
    backward(f"{levels} levels of z = z + z", z)
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
    except NotImplementedError:
        raise
    except Exception as error:
        pytest.fail(explained("a chain of 3,000 operations", error))
    compare("a chain of 3,000 additions", y.grad, 1.0)

    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    other_use = b * 3.0
    backward("a + b, where b is used once more", a + b + other_use, shared.tensor([10.0, 20.0], dtype=shared.float64))
    compare(
        "the gradient of a in a + b + 3 b",
        a.grad,
        [10.0, 20.0],
        {
            "it received what b's other use reported: an addition hands one array to both operands, and adding in "
            "place changed it for both": [40.0, 80.0]
        },
    )
    compare("the gradient of b in a + b + 3 b", b.grad, [40.0, 80.0], {"a use of b was lost": [10.0, 20.0]})

    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    backward("a + b", a + b, shared.tensor([10.0, 20.0], dtype=shared.float64))
    a.grad.zero_()
    compare(
        "the gradient of b in a + b, after a.grad.zero_()",
        b.grad,
        [10.0, 20.0],
        {
            "a.grad and b.grad are one array. The first gradient of a leaf is its own only where self.is_fresh(grad)": (
                [0.0, 0.0]
            )
        },
    )

    rows = leaf(np.zeros((3, 2)))
    g = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    backward("rows 0, 2 and 0 of a table", rows[[0, 2, 0]], shared.tensor(g))
    compare(
        "the gradient of a table of which row 0 was picked twice",
        rows.grad,
        [[101.0, 202.0], [0.0, 0.0], [10.0, 20.0]],
        {
            "the second pick of row 0 replaced the first; both must be summed": [[100.0, 200.0], [0, 0], [10.0, 20.0]],
            "the second pick of row 0 is lost; both must be summed": [[1.0, 2.0], [0, 0], [10.0, 20.0]],
        },
    )


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


class Looks(Function):
    """x · 1; its backward looks whether what Keeps saved is gone."""

    gone = False

    def forward(self, x):
        return x * 1.0

    def backward(self, grad):
        Looks.gone = Keeps.watched() is None
        return grad * 1.0


def is_gone(reference: weakref.ref) -> bool:
    if reference() is not None:
        gc.collect()
    return reference() is None


def test_a_second_backward_adds_and_a_graph_is_walked_once():
    v = leaf([2.0, -1.0])
    backward("v·v", (v * v).sum())
    compare("the first gradient of v·v", v.grad, [4.0, -2.0], {"one use of v was lost": [2.0, -1.0]})
    held = v.grad
    backward("a second formula with the same v", (v * 3.0).sum())
    compare(
        "after a second formula with the same v",
        v.grad,
        [7.0, 1.0],
        {"the second backward overwrote the first; .grad accumulates until it is cleared": [3.0, 3.0]},
    )
    compare(
        "a name given to v.grad before the second backward",
        held,
        [7.0, 1.0],
        {"it shows the first gradient alone: the sum was made anew where it is to be added in place": [4.0, -2.0]},
    )
    w = leaf([1.0, 1.0])
    product = (w * v.grad).sum()
    backward("a third formula with the same v", (v * 3.0).sum())
    refused(
        "backward through w · v.grad, after another backward has changed v.grad in place,",
        product.backward,
        ["inplace"],
        "its slope is made of numbers that it did not compute with. A change in place is counted in _version[0], so "
        "that a node that saved the array notices",
        "What is asked for is the error about an array that was changed in place",
    )

    v.grad = None
    backward("v·v·v with create_graph", (v * v * v).sum(), create_graph=True)
    first = v.grad
    depends = (first * first).sum()
    backward("another formula with the same v", (v * 3.0).sum())
    compare("v.grad, 3 v², after a backward that adds 3", v.grad, [15.0, 6.0], {"the 3 alone is left": [3.0, 3.0]})
    compare(
        "a gradient that requires a gradient, after another was added to v.grad",
        first.detach(),
        [12.0, 3.0],
        {"it was changed in place, although other results depend on it; there the sum is a new Tensor": [15.0, 6.0]},
    )
    try:
        (slope,) = shared.autograd.grad(depends, v)
    except Exception as error:
        pytest.fail(explained("a result that depends on the gradient v had before", error))
    compare("the slope of the sum of (3 v²)², 36 v³", slope, [288.0, -36.0])

    v.grad = first = slope = depends = None
    loss = (v * v).sum()
    backward("v·v under retain_graph", loss, retain_graph=True)
    backward("the second walk of a graph that was to be retained", loss, retain_graph=True)
    compare("the same graph walked twice under retain_graph", v.grad, [8.0, -4.0])
    v.grad = None

    loss = (Keeps()(Looks()(v) * 1.0) * 2.0).sum()
    backward("5 operations in a row", loss)
    compare("the gradient through Keeps", v.grad, [2.0, 2.0])
    demand(
        is_gone(Keeps.watched),
        "the loss is still there, and so is an array that a node saved for its backward: release what a node "
        "saved as the walk passes it, or every loss that is kept keeps its whole graph",
    )
    demand(
        Looks.gone,
        "what a node saved was still there when the walk was two nodes further: the nodes were released when all was "
        "over. Release each as it has been visited, and memory falls while the gradients grow",
    )
    refused(
        "a second walk of a graph that was released",
        loss.backward,
        ["second time"],
        "a visited node has to say that it has been visited, by edges = None",
        "_backward_of looks for edges that are None, and nothing else, to refuse a second walk and say why",
    )
    t = leaf(2.0) * 3.0
    node, loss = weakref.ref(t.grad_fn), t * t
    backward("the square of 3 · 2", loss)
    del t
    demand(
        is_gone(node),
        "the loss is still there, and so is a node that the walk has passed: a visited node lets go of its edges, and "
        "of its origins, which lead to the same nodes",
    )
    with shared.no_grad():
        assert not (v * 2.0).requires_grad, "under no_grad nothing is recorded"


Arrays = tuple[np.ndarray, ...]


@dataclass
class Operation:
    """An operation on arrays of `shapes`, and {mistake: the gradients it gives, from the inputs and the output's u}."""

    apply: Callable[..., shared.Tensor]
    shapes: list[tuple[int, ...]]
    mistakes: dict[str, Callable[..., Arrays]] = field(default_factory=dict)


CONSTANT = np.linspace(0.5, 2.0, 12).reshape(4, 3)
UNCHANGED = {"the gradient was passed on without the slope": lambda a, u: (u,)}
OPERATIONS = {
    "a + b": Operation(lambda a, b: a + b, [(4, 3), (3,)]),
    "a - b": Operation(lambda a, b: a - b, [(4, 1), (4, 3)]),
    "a * b": Operation(
        lambda a, b: a * b,
        [(4, 3), (4, 3)],
        {
            "each factor received the gradient times itself, where its slope is the other": lambda a, b, u: (
                u * a,
                u * b,
            )
        },
    ),
    "a * b, b stretched": Operation(lambda a, b: a * b, [(4, 3), (4, 1)]),
    "a times a constant": Operation(lambda a: a * shared.tensor(CONSTANT), [(4, 3)]),
    "a constant times a": Operation(lambda a: shared.tensor(CONSTANT) * a, [(4, 3)]),
    "a / b": Operation(lambda a, b: a / b, [(4, 3), (3,)]),
    "-a": Operation(lambda a: -a, [(4, 3)]),
    "a ** 3": Operation(lambda a: a**3, [(4, 3)]),
    "exp": Operation(
        lambda a: a.exp(),
        [(4, 3)],
        {"multiplied by the input, where the slope of exp is its output": lambda a, u: (u * a,), **UNCHANGED},
    ),
    "log": Operation(
        lambda a: a.log(),
        [(4, 3)],
        {
            "multiplied by the input, where the slope of log is 1 over it": lambda a, u: (u * a,),
            "divided by the output, where the slope of log is 1 over the input": lambda a, u: (u / np.log(a),),
            **UNCHANGED,
        },
    ),
    "tanh": Operation(
        lambda a: a.tanh(),
        [(4, 3)],
        {
            "the slope is 1 - h where 1 - h*h is right": lambda a, u: (u * (1 - np.tanh(a)),),
            "the slope was computed from the input, where the output h belongs": lambda a, u: (u * (1 - a * a),),
            **UNCHANGED,
        },
    ),
    "sum of everything": Operation(lambda a: a.sum(), [(4, 3)]),
    "sum(0)": Operation(lambda a: a.sum(0), [(4, 3)]),
    "sum(1) of a square": Operation(
        lambda a: a.sum(1),
        [(3, 3)],
        {
            "stretched along the wrong axis: the one that was summed has to come back, with size 1, in its old place, "
            "and then be stretched": lambda a, u: (u + 0 * a,)
        },
    ),
    "sum over axes 2 and 0": Operation(lambda a: a.sum((2, 0)), [(2, 3, 4)]),
    "sum over axes 1 and 0": Operation(lambda a: a.sum((1, 0)), [(2, 3, 4)]),
    "sum(1, keepdim=True)": Operation(lambda a: a.sum(1, keepdim=True), [(4, 3)]),
    "mean(1)": Operation(
        lambda a: a.mean(1),
        [(4, 3)],
        {
            "each element has slope 1/n in a mean of n, and that factor is missing": lambda a, u: (u[:, None] + 0 * a,),
            "divided by the number of all elements, where n counts those that one mean is made of": lambda a, u: (
                (u[:, None] + 0 * a) / a.size,
            ),
        },
    ),
    "a @ b of squares": Operation(
        lambda a, b: a @ b,
        [(3, 3), (3, 3)],
        {
            "the operands were not transposed": lambda a, b, u: (u @ b, a @ u),
            "the other operand is on the wrong side": lambda a, b, u: (b.T @ u, u @ a.T),
            "the gradients of the two operands were exchanged": lambda a, b, u: (a.T @ u, u @ b.T),
        },
    ),
    "a @ b": Operation(lambda a, b: a @ b, [(4, 3), (3, 2)]),
    "a constant @ b": Operation(lambda b: shared.tensor(CONSTANT) @ b, [(3, 2)]),
    "a @ b of stacks": Operation(
        lambda a, b: a @ b,
        [(3, 3, 3), (3, 3, 3)],
        {
            "all axes were reversed, the stack's too, where a matrix exchanges its last two": lambda a, b, u: (
                u @ b.T,
                a.T @ u,
            )
        },
    ),
    "a stack @ one matrix": Operation(lambda a, b: a @ b, [(2, 4, 3), (3, 2)]),
    "transpose": Operation(lambda a: a.T, [(4, 3)]),
    "reshape": Operation(lambda a: a.reshape(2, 6), [(4, 3)]),
    "expand": Operation(lambda a: a.expand(4, 3), [(3,)]),
    "a mask": Operation(lambda a: a[shared.tensor(CONSTANT > 1)], [(4, 3)]),
    "slice": Operation(lambda a: a[1:, ::2], [(4, 3)]),
}


def nudged(apply: Callable[..., shared.Tensor], arrays: list[np.ndarray], i: int, u: np.ndarray) -> np.ndarray:
    """The gradient of Σ u·apply(arrays) for input i, by central differences, an element at a time."""
    numerical = np.empty_like(arrays[i])
    for index in np.ndindex(arrays[i].shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = [a.copy() for a in arrays]
            moved[i][index] += step
            ends.append((apply(*[shared.tensor(a) for a in moved]).numpy() * u).sum())
        numerical[index] = (ends[0] - ends[1]) / 2e-5
    return numerical


SECOND = ["a * b, b stretched", "exp", "log", "tanh", "sum(0)", "sum(1, keepdim=True)", "mean(1)", "a @ b", "transpose"]


def slopes(apply: Callable, tensors: list, u: np.ndarray, create_graph: bool = False) -> tuple[shared.Tensor, ...]:
    """The gradients of Σ u·apply(tensors)³; the cube lets the gradient that arrives depend on the tensors."""
    return shared.autograd.grad(apply(*tensors) ** 3, tensors, shared.tensor(u), create_graph=create_graph)


def test_operations_agree_with_finite_differences():
    rng = np.random.default_rng(2)
    wrong: dict[str, list[str]] = {}  # {what is wrong: the operations of which it is said}
    for name, operation in OPERATIONS.items():
        arrays = [rng.uniform(0.5, 1.5, shape) for shape in operation.shapes]  # away from zero, for log and division
        tensors = [leaf(a) for a in arrays]
        output = operation.apply(*tensors)
        u = rng.standard_normal(output.shape)
        try:
            output.backward(shared.tensor(u))
        except NotImplementedError:
            raise
        except Exception as error:
            wrong.setdefault(explained("", error), []).append(f"{name} on shapes {operation.shapes}")
            continue
        for i, (array, t) in enumerate(zip(arrays, tensors, strict=True)):
            numerical = nudged(operation.apply, arrays, i, u)
            assert np.abs(numerical).max() > 1e-3, (
                f"{name}: the output does not depend on input {i}; its forward is wrong"
            )
            mistakes = {text: gradients(*arrays, u)[i] for text, gradients in operation.mistakes.items()}
            try:
                compare(f"{name}, input {i} of shape {array.shape}, against differences", t.grad, numerical, mistakes)
            except (AssertionError, pytest.fail.Exception) as failure:
                wrong[str(failure)] = []
    told = [f"{', '.join(names)}{text}" for text, names in wrong.items()]
    demand(not wrong, f"wrong gradient{'s' * (len(told) > 1)}:\n  " + "\n  ".join(told))

    empty = leaf(np.zeros((0, 3)))
    backward("the mean of no rows", empty.mean(0), shared.ones(3, dtype=shared.float64))
    compare("the gradient of a mean of no rows, which has no rows either", empty.grad, np.zeros((0, 3)))

    for name in SECOND:
        apply, shapes = OPERATIONS[name].apply, OPERATIONS[name].shapes
        arrays = [rng.uniform(0.5, 1.5, shape) for shape in shapes]
        tensors = [leaf(a) for a in arrays]
        weights = [rng.standard_normal(shape) for shape in shapes]
        u = rng.standard_normal(apply(*tensors).shape)
        what = f"the second derivative of ({name})³"
        try:
            first = slopes(apply, tensors, u, create_graph=True)
            found = shared.autograd.grad(first, tensors, [shared.tensor(w) for w in weights])
        except NotImplementedError:
            raise
        except Exception as error:
            pytest.fail(explained(what, error, TENSORS))

        def weighted(*moved: shared.Tensor, apply=apply, u=u, weights=weights) -> shared.Tensor:
            first = slopes(apply, [leaf(x.numpy()) for x in moved], u)
            return shared.tensor(sum((w * g.numpy()).sum() for w, g in zip(weights, first, strict=True)))

        for i, second in enumerate(found):
            numerical = nudged(weighted, arrays, i, np.float64(1.0))
            compare(f"{what} for input {i}, against differences of the first", second, numerical)


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


class Square(Function):
    """x², with a gradient of 0, so that gradcheck has to say what it measured."""

    def forward(self, x):
        return x * x

    def backward(self, grad):
        return grad * 0.0


def test_gradcheck_rejects_wrong_gradients():
    one, seen = leaf([1.5]), []

    def square(x: shared.Tensor) -> shared.Tensor:
        seen.append(float(x.detach().numpy()[0]))
        return Square()(x)

    told = "it accepts a gradient of 0"
    try:
        gradcheck(square, one, eps=0.1, fast=False)
    except (AssertionError, ValueError) as error:
        told = str(error)
    assert one.detach().numpy()[0] == 1.5, (
        f"gradcheck moved its input from 1.5 to {one.item()} and left it there: put the old values back"
    )
    assert max(seen) > min(seen), (
        "gradcheck called the function at 1.5 alone, where no difference can show: the input's own memory has to change"
    )
    assert max(seen) > 1.5 > min(seen), (
        f"gradcheck called the function at {sorted(set(seen))}: the first step was not taken back before the second. "
        f"Keep a copy of the old values (not the array itself)"
    )
    measured = re.search(r"differences give (\S+)", told)
    assert measured, f"gradcheck was given x² with a backward that returns 0, and should measure 3 at 1.5, but {told}"
    compare(
        "the slope that gradcheck measures of x² at 1.5 with eps=0.1: exactly 3 from both sides, (1.6² - 1.4²) / 0.2",
        float(measured[1]),
        3.0,
        {
            "one-sided, (f(x + eps) - f(x)) / eps: its error falls with eps alone, not with its square": 3.1,
            "one-sided, (f(x) - f(x - eps)) / eps: its error falls with eps alone, not with its square": 2.9,
            "the two ends are 2 eps apart, and it was divided by eps": 6.0,
            "half of the slope: from the middle to one end, divided by 2 eps": 1.55,
            "the sign is wrong: which end is subtracted from which?": -3.0,
        },
    )

    x = np.random.default_rng(3).standard_normal((4, 3))
    x[0, 0] = 1e-9  # beside which a step is large
    x = leaf(x)
    values = x.detach().numpy().copy()
    right = wrong_tanh(lambda g, h: g * (1 - h * h))
    for fast in (True, False):
        accepted = gradcheck(right, x, fast=fast, raise_exception=False)
        gap = np.abs(x.detach().numpy() - values).max()
        assert gap == 0, (
            f"after gradcheck(fast={fast}) the input differs from what it was by up to {gap:.1e}: (x + d) - d rounds; "
            f"put back a copy of the old values"
        )
        assert accepted, (
            f"gradcheck(fast={fast}) rejects the right gradient of tanh: is the difference central, is eps near "
            f"1e-6, and is the comparison relative?"
        )
        assert gradcheck(lambda x: (x * x * x).sum(), x, fast=fast, raise_exception=False), (
            f"gradcheck(fast={fast}) rejects x·x·x: it, or the product, or the walk is wrong; see the other tests first"
        )
        assert gradcheck(lambda x: x * 1e9, x, fast=fast, raise_exception=False), (
            f"gradcheck(fast={fast}) rejects the right gradient of x · 1e9: the difference that is allowed has to grow "
            f"with the gradient, atol + rtol · |numerical|"
        )
    mistakes = {
        "a missing factor": lambda g, h: g,
        "the wrong sign": lambda g, h: -g * (1 - h * h),
        "a gradient of zero": lambda g, h: g * 0.0,
        "twice the gradient": lambda g, h: 2 * g * (1 - h * h),
        "one percent too much": lambda g, h: 1.01 * g * (1 - h * h),
        "one percent too little": lambda g, h: 0.99 * g * (1 - h * h),
        "a constant added": lambda g, h: g * (1 - h * h) + 0.01,
        "one wrong element": lambda g, h: g * (1 - h * h) * (np.arange(12).reshape(4, 3) != 7),
        "rows in reverse order": lambda g, h: (g * (1 - h * h))[::-1].copy(),
        "NaN": lambda g, h: g * np.nan,
    }
    for fast in (True, False):
        accepted = [
            mistake
            for mistake, rule in mistakes.items()
            if gradcheck(wrong_tanh(rule), x, fast=fast, raise_exception=False)
        ]
        hint = ""
        if len({"one percent too much", "one percent too little"} & set(accepted)) == 1:
            hint = ": a gap counts in one direction only; compare its size, |numerical - analytical|"
        elif accepted == ["NaN"]:
            hint = (
                ": no comparison with NaN is true, so ask whether the gap is small enough, not whether it is too large"
            )
        assert not accepted, f"gradcheck(fast={fast}) accepts a backward of tanh with {', '.join(accepted)}{hint}"
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
    backward("the 2-3-1 network of note 06", engine_loss)
    z = x @ FIRST["w1"] + FIRST["b1"]
    h = np.tanh(z)
    to_p = 2 * (h @ FIRST["w2"] + FIRST["b2"] - TARGETS) / 4
    for name in ("b2", "w2", "b1", "w1"):  # from the last layer backwards: the first that fails is the culprit
        mistakes = {
            "half of it: the 2 of the square is missing": gradients[name] / 2,
            "four times as much: the mean over the flowers is missing": gradients[name] * 4,
            "a fourth of it: averaged over the flowers where the uses must be summed": gradients[name] / 4,
        }
        if name == "b2":
            mistakes["the first flower alone: the uses of a stretched bias must be summed"] = to_p[0]
        if name in ("b1", "w1"):
            slopes = {
                "the factor 1 - h*h of tanh is missing": 1.0,
                "the factor of tanh is 1 - h where 1 - h*h is right": 1 - h,
                "the factor of tanh was computed from its input, where its output is right": 1 - z * z,
            }
            for mistake, slope in slopes.items():
                to_z = to_p @ FIRST["w2"].T * slope
                mistakes[mistake] = to_z.sum(0) if name == "b1" else x.T @ to_z
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
        backward("a network of three hidden units", loss)
        without = [name for name, parameter in q.items() if parameter.grad is None]
        assert not without, f"after backward there is no gradient for {', '.join(without)}. Did the walk reach them?"
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
