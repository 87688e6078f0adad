"""New tensors: values, dtypes and errors of the factories, and the distributions behind the random ones."""

import copy
import math
import pickle

import numpy as np
import pytest

import shared
from tests.ops.running import same

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")

FACTORIES = {
    "zeros": lambda t: t.zeros(2, 3),
    "zeros of a tuple": lambda t: t.zeros((2, 3), dtype=t.int64),
    "zeros scalar": lambda t: t.zeros(()),
    "ones": lambda t: t.ones(4, dtype=t.bool),
    "full": lambda t: t.full((2, 2), 3.5),
    "full of ints": lambda t: t.full((2,), 7),
    "full of bools": lambda t: t.full((2,), True),
    "full in a dtype": lambda t: t.full((2,), 7, dtype=t.float16),
    "eye": lambda t: t.eye(3),
    "eye wide": lambda t: t.eye(2, 4, dtype=t.int32),
    "arange": lambda t: t.arange(5),
    "arange of floats": lambda t: t.arange(5.0),
    "arange from to": lambda t: t.arange(2, 10, 3),
    "arange by tenths": lambda t: t.arange(0, 1, 0.1),
    "arange down": lambda t: t.arange(5, 0, -2),
    "arange in a dtype": lambda t: t.arange(3, dtype=t.float64),
    "arange by name": lambda t: t.arange(end=4),
    "arange empty": lambda t: t.arange(0),
    "linspace": lambda t: t.linspace(-1, 1, 5),
    "linspace of one": lambda t: t.linspace(2.0, 3.0, 1),
    "linspace of none": lambda t: t.linspace(2.0, 3.0, 0),
    "zeros_like": lambda t: t.zeros_like(t.ones(2, 3, dtype=t.int32)),
    "ones_like": lambda t: t.ones_like(t.zeros(2, 3), dtype=t.float64),
    "full_like": lambda t: t.full_like(t.zeros(2, dtype=t.int64), 3),
    "tensor of ints": lambda t: t.tensor([[1, 2], [3, 4]]),
    "tensor of floats": lambda t: t.tensor([1.0, 2.5]),
    "tensor of both": lambda t: t.tensor([1, 2.5]),
    "tensor of bools": lambda t: t.tensor([True, False]),
    "tensor of a number": lambda t: t.tensor(3),
    "tensor of nothing": lambda t: t.tensor([]),
    "tensor of nothing twice": lambda t: t.tensor([[], []]),
    "tensor in a dtype": lambda t: t.tensor([1.7, -1.7], dtype=t.int64),
    "tensor of an array": lambda t: t.tensor(np.array([1.0, 2.0])),
    "tensor of a scalar": lambda t: t.tensor(np.float32(2.5)),
    "tensor of scalars": lambda t: t.tensor([np.float64(2.5), np.float64(1.0)]),
    "tensor of tensors": lambda t: t.tensor([t.tensor(1.0), t.tensor(2.0)]),
    "tensor of huge ints": lambda t: t.tensor([2**62, -(2**62)]),
    "as_tensor": lambda t: t.as_tensor([1.5, 2.0], dtype=t.float64),
    "Tensor of ints": lambda t: t.Tensor([1, 2]),
    "new_zeros": lambda t: t.ones(2, dtype=t.float64).new_zeros(3),
    "new_ones": lambda t: t.ones(2, dtype=t.float64).new_ones((2, 1), dtype=t.int64),
    "new_full": lambda t: t.ones(2, dtype=t.float16).new_full((2,), 4.0),
    "new_tensor": lambda t: t.ones(2, dtype=t.float16).new_tensor([1.0, 2.0]),
    "one_hot": lambda t: t.nn.functional.one_hot(t.tensor([0, 2, 1]), num_classes=4),
    "where of numbers": lambda t: t.where(t.tensor([True, False]), 1.0, 2.0),
    "bincount": lambda t: t.bincount(t.tensor([0, 1, 1, 3])),
    "from_numpy": lambda t: t.from_numpy(np.arange(6.0).reshape(2, 3)),
}


@needs_torch
@pytest.mark.parametrize("name", FACTORIES)
def test_factories_give_what_pytorchs_give(name):
    same(FACTORIES[name](shared), FACTORIES[name](torch), name)


@pytest.mark.parametrize("make", [shared.empty, lambda *s, **o: shared.empty_like(shared.zeros(*s), **o)])
def test_empty_has_a_shape_and_a_dtype(make):
    x = make(2, 3, dtype=shared.float64)
    assert x.shape == (2, 3) and x.dtype == shared.float64
    assert shared.ones(1).new_empty(4).shape == (4,)


def test_requires_grad_of_factories():
    for x in (
        shared.zeros(2, requires_grad=True),
        shared.tensor(1.0, requires_grad=True),
        shared.randn(1, requires_grad=True),
    ):
        assert x.requires_grad and x.is_leaf


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: shared.zeros(-1), RuntimeError, "negative dimension"),
        (lambda: shared.empty(-1), RuntimeError, "negative dimension"),
        (lambda: shared.tensor([[1, 2], [3]]), ValueError, "not rectangular"),
        (lambda: shared.tensor("abc"), TypeError, "expected numbers, but got str"),
        (lambda: shared.tensor([object()]), TypeError, "expected numbers"),
        (lambda: shared.tensor(None), TypeError, "expected numbers, but got NoneType"),
        (lambda: shared.tensor([1 + 2j]), TypeError, "expected numbers"),
        (
            lambda: shared.tensor([1, 300], dtype=shared.uint8),
            RuntimeError,
            "cannot be converted to type uint8 without",
        ),
        (
            lambda: shared.tensor(-1, dtype=shared.uint8),
            RuntimeError,
            "cannot be converted to type uint8 without overflow",
        ),
        (lambda: shared.from_numpy([1, 2]), TypeError, r"expected np.ndarray \(got list\)"),
        (lambda: shared.from_numpy(np.zeros(2, complex)), TypeError, "complex128"),
        (lambda: shared.arange(0, 1, 0), RuntimeError, "step"),
        (lambda: shared.arange(3, 0), RuntimeError, "inconsistent with step sign"),
        (lambda: shared.randint(3, 3, (2,)), RuntimeError, "from=3 >= to=3"),
        (lambda: shared.randn(2, dtype=shared.int64), RuntimeError, "floating dtype, but got int64"),
        (lambda: shared.normal(0.0, 1.0), TypeError, "need a size"),
        (lambda: shared.normal(0.0, -1.0, (2,)), RuntimeError, "std >= 0"),
        (lambda: shared.bernoulli(shared.tensor([1.5])), RuntimeError, r"probabilities in \[0, 1\]"),
        (lambda: shared.multinomial(shared.tensor([0.0, 1.0]), 2), RuntimeError, r"cannot sample num_samples \(2\)"),
        (lambda: shared.multinomial(shared.tensor([-1.0, 1.0]), 1), RuntimeError, "element < 0"),
        (lambda: shared.multinomial(shared.zeros(3), 1), RuntimeError, "sum of probabilities <= 0"),
        (lambda: shared.multinomial(shared.ones(1, 1, 1), 1), RuntimeError, "1 or 2 dim, but it has 3"),
        (lambda: shared.nn.functional.one_hot(shared.tensor([1.0])), RuntimeError, "type int64, but got float32"),
        (lambda: shared.nn.functional.one_hot(shared.tensor([-1])), RuntimeError, "non-negative"),
        (lambda: shared.nn.functional.one_hot(shared.tensor([3]), 3), RuntimeError, r"smaller than num_classes \(3\)"),
        (lambda: shared.nn.functional.one_hot(shared.zeros(0, dtype=shared.int64)), RuntimeError, "cannot infer"),
        (lambda: shared.meshgrid(shared.ones(2), indexing="yx"), RuntimeError, "indexing must be one of"),
        (lambda: shared.set_rng_state(shared.tensor([1, 2])), RuntimeError, "not a random state"),
    ],
)
def test_errors_say_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_tensor_copies_and_from_numpy_shares():
    a = np.zeros(3, dtype="float32")
    copied, joined, same_memory = shared.tensor(a), shared.from_numpy(a), shared.as_tensor(a)
    a[0] = 7
    assert copied[0] == 0 and joined[0] == 7 and same_memory[0] == 7
    x = shared.ones(2)
    assert shared.as_tensor(x) is x and shared.tensor(x) is not x


# ---------------------------------------------------------------- leaving and returning


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "int8", "uint8", "bool"])
def test_numpy_and_back(dtype):
    a = (np.arange(6).reshape(2, 3) % 2).astype(dtype)
    x = shared.from_numpy(a)
    assert x.numpy() is a and np.asarray(x) is a and x.dtype == a.dtype
    assert np.array(x, dtype="float64").dtype == np.float64
    assert (np.add(x, 1) == a + np.asarray(1)).all()


def test_numpy_arrays_and_scalars_meet_tensors():
    x = shared.ones(3)
    assert isinstance(np.ones(3, dtype="float32") * x, shared.Tensor)
    assert isinstance(np.float32(2) * x, shared.Tensor)
    assert (x * np.arange(3, dtype="float32")).tolist() == [0.0, 1.0, 2.0]
    assert x.__add__("text") is NotImplemented
    with pytest.raises(TypeError):
        x + "text"


@needs_torch
def test_dlpack_both_ways_shares_memory():
    theirs = torch.arange(4.0)
    ours = shared.from_dlpack(theirs)
    ours[0] = 9.0
    assert theirs[0] == 9.0
    back = torch.from_dlpack(shared.tensor([1.0, 2.0]))
    assert back.tolist() == [1.0, 2.0]


def test_dlpack_with_numpy():
    x = shared.arange(4.0)
    a = np.from_dlpack(x)
    x[1] = 5.0
    assert a[1] == 5.0 and shared.from_dlpack(a).tolist() == a.tolist()
    assert x.__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError, match="requires grad"):
        np.from_dlpack(shared.ones(1, requires_grad=True))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_pickle_and_deepcopy(requires_grad):
    x = shared.tensor([1.0, 2.0], requires_grad=requires_grad)
    if requires_grad:
        (x * x).sum().backward()
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert y.tolist() == x.tolist() and y.requires_grad == requires_grad and y is not x
        with shared.no_grad():
            y.zero_()
        assert x.tolist() == [1.0, 2.0]
    if requires_grad:
        copied = copy.deepcopy(x)
        assert copied.grad.tolist() == [2.0, 4.0] and copied.grad is not x.grad
        assert (copied * 2).sum().backward() is None


def test_a_result_is_neither_pickled_nor_deepcopied():
    y = shared.ones(2, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="detach"):
        pickle.dumps(y)
    with pytest.raises(RuntimeError, match="deepcopy protocol"):
        copy.deepcopy(y)


def test_deepcopy_keeps_shared_tensors_shared():
    x = shared.ones(2)
    first, second = copy.deepcopy([x, x])
    assert first is second


# ---------------------------------------------------------------- randomness

DRAWS = {
    "rand": lambda g=None: shared.rand(50, generator=g),
    "randn": lambda g=None: shared.randn(5, 10, generator=g),
    "randint": lambda g=None: shared.randint(0, 1000, (50,), generator=g),
    "randint by name": lambda g=None: shared.randint(high=1000, size=(50,), generator=g),
    "randperm": lambda g=None: shared.randperm(50, generator=g),
    "normal": lambda g=None: shared.normal(1.0, 2.0, (50,), generator=g),
    "bernoulli": lambda g=None: shared.bernoulli(shared.full((50,), 0.5), generator=g),
    "multinomial": lambda g=None: shared.multinomial(shared.ones(50), 20, generator=g),
    "multinomial again": lambda g=None: shared.multinomial(shared.ones(5), 50, replacement=True, generator=g),
    "normal_": lambda g=None: shared.zeros(50).normal_(1, 2, generator=g),
    "uniform_": lambda g=None: shared.zeros(50).uniform_(-1, 1, generator=g),
    "bernoulli_": lambda g=None: shared.zeros(50).bernoulli_(0.5, generator=g),
    "random_": lambda g=None: shared.zeros(50).random_(0, 9, generator=g),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_seed_fixes_what_is_drawn(name):
    draw = DRAWS[name]
    shared.manual_seed(7)
    first, second = draw().tolist(), draw().tolist()
    shared.manual_seed(7)
    assert draw().tolist() == first and draw().tolist() == second
    assert first != second


@pytest.mark.parametrize("name", DRAWS)
def test_a_generator_is_a_stream_of_its_own(name):
    draw = DRAWS[name]
    shared.manual_seed(0)
    expected = shared.rand(3).tolist()
    shared.manual_seed(0)
    a = draw(shared.Generator().manual_seed(5)).tolist()
    assert shared.rand(3).tolist() == expected  # the default stream was not touched
    assert draw(shared.Generator().manual_seed(5)).tolist() == a
    assert draw(shared.Generator().manual_seed(6)).tolist() != a


def test_states_can_be_saved_and_restored():
    shared.manual_seed(3)
    shared.randn(10)
    state = shared.get_rng_state()
    first = shared.randn(5).tolist()
    shared.set_rng_state(state)
    assert shared.randn(5).tolist() == first
    g = shared.Generator().manual_seed(1)
    g.rng.random()
    kept = g.get_state()
    drawn = g.rng.random()
    other = shared.Generator()
    other.set_state(kept)
    assert other.rng.random() == drawn
    assert shared.manual_seed(11).initial_seed() == 11 == shared.initial_seed()
    assert shared.manual_seed(-1).initial_seed() == 2**64 - 1
    assert shared.Generator().seed() != shared.Generator().seed()


def standard_errors(mean, expected, deviation, n):
    return abs(mean - expected) / (deviation / math.sqrt(n))


@pytest.mark.parametrize(
    "draw, mean, deviation, low, high",
    [
        (lambda n: shared.rand(n), 0.5, math.sqrt(1 / 12), 0, 1),
        (lambda n: shared.randn(n), 0.0, 1.0, -9, 9),
        (lambda n: shared.normal(3.0, 2.0, (n,)), 3.0, 2.0, -20, 20),
        (lambda n: shared.normal(shared.full((n,), 3.0), 2.0), 3.0, 2.0, -20, 20),
        (lambda n: shared.randint(2, 8, (n,)), 4.5, math.sqrt(35 / 12), 2, 7),
        (lambda n: shared.bernoulli(shared.full((n,), 0.3)), 0.3, math.sqrt(0.21), 0, 1),
        (lambda n: shared.zeros(n).uniform_(-2, 4), 1.0, math.sqrt(3), -2, 4),
        (lambda n: shared.zeros(n).bernoulli_(0.3), 0.3, math.sqrt(0.21), 0, 1),
        (lambda n: shared.rand_like(shared.zeros(n)), 0.5, math.sqrt(1 / 12), 0, 1),
        (lambda n: shared.randn_like(shared.zeros(n)), 0.0, 1.0, -9, 9),
        (lambda n: shared.randint_like(shared.zeros(n, dtype=shared.int64), 6), 2.5, math.sqrt(35 / 12), 0, 5),
    ],
)
def test_moments(draw, mean, deviation, low, high):
    shared.manual_seed(0)
    n = 40_000
    x = draw(n).double()
    assert standard_errors(x.mean().item(), mean, deviation, n) < 4
    assert abs(x.std().item() / deviation - 1) < 0.02
    assert x.min().item() >= low and x.max().item() <= high
    near = ((x[1:] - mean) * (x[:-1] - mean)).mean().item() / deviation**2
    assert abs(near) < 4 / math.sqrt(n)  # neighbours are uncorrelated


@pytest.mark.parametrize("replacement", [False, True])
def test_multinomial_draws_in_proportion(replacement):
    shared.manual_seed(0)
    weights = shared.tensor([[1.0, 2.0, 0.0, 5.0], [4.0, 4.0, 0.0, 0.0]])
    if replacement:
        drawn = shared.multinomial(weights, 20_000, replacement=True).numpy()
    else:
        drawn = np.stack([shared.multinomial(weights, 1).numpy()[:, 0] for _ in range(5000)], axis=1)
    shares = np.stack([(drawn == k).mean(axis=1) for k in range(4)], axis=1)
    np.testing.assert_allclose(shares, [[0.125, 0.25, 0, 0.625], [0.5, 0.5, 0, 0]], atol=0.03)


def test_multinomial_without_replacement_repeats_nothing():
    drawn = shared.multinomial(shared.rand(6, 30) + 0.1, 30)
    assert drawn.sort().values.tolist() == [list(range(30))] * 6 and drawn.dtype == shared.int64


def test_one_draw_is_the_first_of_several():
    weights = shared.tensor([[1.0, 2.0, 0.0, 5.0], [4.0, 4.0, 1.0, 0.0]])
    for seed in range(30):
        generators = [shared.Generator().manual_seed(seed) for _ in range(2)]
        one, three = (shared.multinomial(weights, n, generator=g) for n, g in zip((1, 3), generators, strict=True))
        assert one.tolist() == three[:, :1].tolist() and one.dtype == shared.int64
    assert shared.multinomial(weights[1], 1).shape == (1,)


def test_randperm_is_a_permutation():
    assert sorted(shared.randperm(100).tolist()) == list(range(100))
    assert shared.randperm(0).shape == (0,) and shared.randperm(3, dtype=shared.int32).dtype == shared.int32


@pytest.mark.parametrize("dtype", [shared.float64, shared.float32, shared.float16, shared.bfloat16])
def test_random_tensors_in_a_dtype(dtype):
    for make in (shared.rand, shared.randn):
        x = make(100, dtype=dtype)
        assert x.dtype == dtype and bool(x.isfinite().all())
    assert shared.rand(()).shape == () and shared.randn((2, 3)).shape == (2, 3)
    assert shared.rand(20_000, dtype=dtype).max().item() < 1.0


def test_normal_of_two_tensors_broadcasts():
    shared.manual_seed(0)
    x = shared.normal(shared.tensor([[0.0], [100.0]]), shared.tensor([1e-6, 2.0, 3.0]))
    assert x.shape == (2, 3) and abs(x[1, 0].item() - 100) < 1e-3
