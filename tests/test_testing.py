"""gradcheck finds wrong gradients and refuses to judge where it cannot; assert_close says what differs and where."""

import math

import numpy as np
import pytest

import shared
from shared.autograd import Function
from shared.testing import assert_close, gradcheck, gradgradcheck

both = pytest.mark.parametrize("fast", [True, False], ids=["projection", "full"])


def x(*shape, low=-2.0, high=2.0):
    values = np.random.default_rng(0).uniform(low, high, shape)
    return shared.tensor(values, requires_grad=True)


class Square(Function):
    """x², with a backward that is off by `error` (relative) in one entry or everywhere."""

    def __init__(self, error=0.0, where=...):
        self.error, self.where = error, where

    def forward(self, x):
        self.saved = (x,)
        return x * x

    def backward(self, grad):
        (x,) = self.saved
        result = 2 * x * grad
        result[self.where] *= 1 + self.error
        return result


RIGHT = {
    "one input": (lambda a: a.exp() * a, [x(3, 4)]),
    "broadcast": (lambda a, b: a * b + b, [x(3, 4), x(4)]),
    "a matrix product": (lambda a, b: (a @ b).tanh(), [x(2, 3), x(3, 4)]),
    "several outputs": (lambda a: (a.sin(), a.sum(), (a * 2).detach()), [x(3)]),
    "a view of its input": (lambda a: (a.reshape(6), a.T, a[0]), [x(2, 3)]),
    "zero-dimensional": (lambda a: a.log(), [shared.tensor(0.7, dtype=shared.float64, requires_grad=True)]),
    "empty": (lambda a: a * 2, [shared.zeros(0, 3, dtype=shared.float64, requires_grad=True)]),
    "an input without gradient": (lambda a, i: a[i], [x(5), shared.tensor([0, 2, 2])]),
    "a plain argument": (lambda a, k: a**k, [x(3, low=0.5), 3]),
    "an unused input": (lambda a, b: a * 2, [x(3), x(2)]),
    "a strided input": (lambda a: a * a, [x(4, 6)[::2, ::3].detach().requires_grad_()]),
    "steep": (lambda a: (1e3 * a).sin(), [x(3)]),
    "large values": (lambda a: (1e3 * a).sum() + 1e9, [x(3)]),
    "many elements": (lambda a: a.softmax(-1), [x(32, 100)]),
}


@both
@pytest.mark.parametrize("case", RIGHT)
def test_right_gradients_pass(case, fast):
    if case == "many elements" and not fast:
        pytest.skip("10 million entries: what the projection is for")
    fn, inputs = RIGHT[case]
    assert gradcheck(fn, inputs, fast=fast)


@both
@pytest.mark.parametrize("error", [1e-3, -0.5, float("nan")])
def test_a_wrong_gradient_is_found(error, fast):
    with pytest.raises(AssertionError, match="the gradient of output 0 with respect to input 0 is wrong"):
        gradcheck(lambda a: Square(error)(a), x(3, 4), fast=fast)
    assert not gradcheck(lambda a: Square(error)(a), x(3, 4), fast=fast, raise_exception=False)


def test_the_projection_finds_one_wrong_entry_in_ten_thousand():
    with pytest.raises(AssertionError, match="input 0"):
        gradcheck(lambda a: Square(0.5, (7, 8))(a), x(100, 100))


def test_the_message_names_input_and_output_and_gives_both_numbers():
    def fn(a, b):
        return a * b, Square(1.0)(b)

    with pytest.raises(
        AssertionError, match=r"output 1 with respect to input 1 .* differences give (\S+) and backward"
    ) as e:
        gradcheck(fn, (x(3), x(3)))
    words = str(e.value).split()
    numerical, analytical = float(words[words.index("give") + 1]), float(words[words.index("gives") + 1])
    assert analytical == pytest.approx(2 * numerical)


def test_the_full_check_names_the_entry():
    a = x(2, 3)
    with pytest.raises(AssertionError, match=r"wrong in 1 of 36 entries.*d output\[1, 2\] / d input\[1, 2\]") as e:
        gradcheck(lambda a: Square(0.5, (1, 2))(a), a, fast=False)
    assert f"give {2 * a[1, 2].item():.6g}"[:10] in str(e.value)
    assert f"gives {3 * a[1, 2].item():.6g}"[:10] in str(e.value)


def test_inputs_are_left_exactly_as_they_were():
    a = x(50)
    before, grad = a.numpy(force=True).copy(), a.grad
    gradcheck(lambda a: a.exp(), a)
    gradcheck(lambda a: a.exp(), a, fast=False)
    assert (a.numpy(force=True) == before).all() and a.grad is grad


def test_a_module_is_checked_through_its_own_parameters():
    layer = shared.nn.Linear(3, 2).double()
    assert gradcheck(lambda data, w, b: layer(data), (x(4, 3), layer.weight, layer.bias))


def test_the_checks_are_reachable_under_pytorchs_names():
    assert shared.autograd.gradcheck is gradcheck and shared.autograd.gradgradcheck is gradgradcheck


KINKS = {
    "relu at 0": (lambda a: a.relu(), [1.0, 0.0, -1.0]),
    "abs at 0": (lambda a: a.abs(), [1.0, 0.0]),
    "a tie in max": (lambda a: a.max(), [1.0, 2.0, 2.0]),
    "a jump": (lambda a: a.floor() * a, [0.5, 2.0]),
}


@both
@pytest.mark.parametrize("case", KINKS)
def test_a_point_without_derivative_is_refused(case, fast):
    fn, values = KINKS[case]
    a = shared.tensor(values, dtype=shared.float64, requires_grad=True)
    with pytest.raises(ValueError, match="not differentiable here with respect to input 0: the slope from the left"):
        gradcheck(fn, a, fast=fast)


@both
def test_what_cannot_be_checked_is_refused(fast):
    cases = [
        (lambda a: a * 2, shared.ones(2, requires_grad=True), r"input 0 is float32.*Pass x.double\(\)"),
        (lambda a: a * 2, x(2).detach(), "none of them has requires_grad=True"),
        (lambda a: a.detach(), x(2), "no output of fn requires a gradient"),
        (lambda a: a.sum().item(), x(2), "must return a Tensor or several, but output 0 is float"),
        (lambda a: a * shared.rand(2, dtype=shared.float64), x(2), "differs between two calls"),
        (lambda a: a * 2, x(1).expand(3), "elements that share memory"),
    ]
    for fn, a, message in cases:
        with pytest.raises(ValueError, match=message):
            gradcheck(fn, a, fast=fast)


class Cubed(Function):
    """x³ whose first derivative is right and whose second is not: the graph of backward is cut."""

    twice = True

    def forward(self, x):
        self.saved = (x,)
        return x * x * x

    def backward(self, grad):
        (x,) = self.saved
        return 3 * x * (x.detach() if hasattr(x, "detach") else x) * grad


def test_second_derivatives():
    assert gradgradcheck(lambda a, b: (a * b).exp() / b, (x(2, 3), x(3, low=0.5)))
    assert gradgradcheck(lambda a: a * 3, x(3))
    assert gradcheck(lambda a: Cubed()(a), x(3))
    with pytest.raises(AssertionError, match="is wrong"):
        gradgradcheck(lambda a: Cubed()(a), x(3))


def test_an_op_that_is_differentiable_once_says_so():
    with pytest.raises(RuntimeError, match="Square cannot itself be differentiated"):
        gradgradcheck(lambda a: Square()(a), x(3))


# ---------------------------------------------------------------- closeness

CLOSE = {
    "equal": (shared.ones(2, 3), shared.ones(2, 3)),
    "a list": (shared.tensor([1.0, 2.0]), [1.0, 2.0]),
    "an array": (shared.tensor([1, 2]), np.array([1, 2])),
    "numbers": (1.0, 1.0 + 1e-9),
    "within float32's tolerance": (shared.tensor(1.0), shared.tensor(1.000002)),
    "infinities": (shared.tensor([math.inf, -math.inf]), shared.tensor([math.inf, -math.inf])),
    "empty": (shared.zeros(0, 2), shared.zeros(0, 2)),
    "bfloat16": (shared.ones(2, dtype=shared.bfloat16), shared.tensor([1.01, 0.99], dtype=shared.bfloat16)),
    "nested": (
        {"a": [shared.ones(1), {"b": shared.zeros(1)}]},
        {"a": [shared.ones(1), {"b": shared.zeros(1)}]},
    ),
    "booleans": (shared.tensor([True]), shared.tensor([True])),
    "a scalar integer": (shared.tensor(2), 2),
}


@pytest.mark.parametrize("case", CLOSE)
def test_close_values_pass(case):
    assert_close(*CLOSE[case])


DIFFERENT = {
    "value": (
        shared.tensor([[1.0, 2.0], [3.0, 4.0]]),
        shared.tensor([[1.0, 2.5], [3.0, 2.0]]),
        r"2 of 4 elements differ \(50.0%\), shape \(2, 2\), float32. Greatest absolute difference: 2 at \[1, 1\] "
        r"\(4.0 instead of 2.0\), allowed 1e-05. Greatest relative difference: 1 at \[1, 1\]",
    ),
    "absolute and relative at different places": (
        shared.tensor([1.0, 100.0]),
        shared.tensor([0.1, 99.0]),
        r"absolute difference: 1 at \[1\] .* relative difference: 9 at \[0\]",
    ),
    "shape": (shared.ones(2), shared.ones(2, 1), r"shape \(2,\) is not the expected \(2, 1\)"),
    "dtype": (
        shared.ones(2),
        shared.ones(2, dtype=shared.float64),
        "dtype float32 is not the expected float64",
    ),
    "nan": (shared.tensor([math.nan]), shared.tensor([math.nan]), "nan instead of nan"),
    "infinities of other sign": (
        shared.tensor([math.inf]),
        shared.tensor([-math.inf]),
        "inf instead of -inf",
    ),
    "a finite number for an infinity": (
        shared.tensor([1.0]),
        shared.tensor([math.inf]),
        "1.0 instead of inf",
    ),
    "large integers": (
        shared.tensor([2**62]),
        shared.tensor([2**62 + 1]),
        "Greatest absolute difference: 1 ",
    ),
    "booleans": (shared.tensor([True]), shared.tensor([False]), "1 of 1 elements differ"),
    "nested": ({"a": [shared.ones(1)]}, {"a": [shared.zeros(1)]}, r"at \['a'\]\[0\]: 1 of 1"),
    "keys": ({"a": 1}, {"b": 1}, r"keys \['a'\] are not the expected \['b'\]"),
    "lengths": ([shared.ones(1)], [shared.ones(1)] * 2, "1 items, expected 2"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_is_told(case):
    actual, expected, message = DIFFERENT[case]
    with pytest.raises(AssertionError, match=message):
        assert_close(actual, expected)


def test_options_of_assert_close():
    assert_close(shared.tensor([math.nan]), shared.tensor([math.nan]), equal_nan=True)
    assert_close(shared.tensor([1.0]), shared.tensor([1.5]), rtol=0, atol=0.5)
    assert_close(shared.ones(2), shared.ones(2, dtype=shared.float64), check_dtype=False)
    with pytest.raises(AssertionError, match="^weights: 1 of 1"):
        assert_close(shared.ones(1), shared.zeros(1), msg="weights")
    with pytest.raises(ValueError, match="both be given"):
        assert_close(1.0, 1.0, rtol=0.1)


def test_tolerances_are_pytorchs():
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    rng = np.random.default_rng(0)
    verdicts = {True: 0, False: 0}
    for dtype in ("float64", "float32", "float16", "bfloat16", "int64"):
        for _ in range(40):
            value = rng.uniform(0.1, 10)
            pair = (value, value + rng.choice([-1, 1]) * 10 ** rng.uniform(-9, 0))
            ours = [shared.tensor([v], dtype=shared.float64).to(getattr(shared, dtype)) for v in pair]
            theirs = [torch.tensor(x.tolist(), dtype=torch.float64).to(getattr(torch, dtype)) for x in ours]
            close = passes(assert_close, *ours)
            assert close == passes(torch.testing.assert_close, *theirs), (dtype, pair)
            verdicts[close] += 1
    assert min(verdicts.values()) > 50


def passes(check, actual, expected):
    try:
        check(actual, expected)
    except AssertionError:
        return False
    return True


# ---------------------------------------------------------------- tests without a seed


def test_what_a_test_draws_without_a_seed_is_the_same_on_every_run():
    """conftest.py sees to it, whatever ran before: by itself the default generator begins with a seed of the system."""
    assert shared.initial_seed() == 20261121
    drawn = shared.rand(3)
    assert shared.equal(drawn, shared.rand(3, generator=shared.Generator().manual_seed(20261121)))
