"""default_collate and default_convert: PyTorch's structures, dtypes and errors."""

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared.data import default_collate, default_convert

quick = settings(max_examples=50)

Pair = namedtuple("Pair", "a b")


class Column(list):
    pass


BATCHES = {
    "ints": [1, 2, 3],
    "floats": [1.0, 2.5],
    "bools": [True, False],
    "strings": ["a", "b"],
    "bytes": [b"a", b"b"],
    "arrays": [np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)],
    "uint8 arrays": [np.ones(2, np.uint8), np.zeros(2, np.uint8)],
    "0-d arrays": [np.array(1.5), np.array(2.5)],
    "numpy numbers": [np.float32(1), np.float32(2)],
    "numpy int64": [np.int64(1), np.int64(2)],
    "tuples": [(np.ones(2), 1), (np.zeros(2), 2)],
    "lists": [[1, 2.0], [3, 4.0]],
    "dicts": [{"x": np.ones(2), "n": "a"}, {"x": np.zeros(2), "n": "b"}],
    "ordered": [OrderedDict(x=1), OrderedDict(x=2)],
    "namedtuples": [Pair(1, "x"), Pair(2, "y")],
    "strings in tuples": [(1, "a"), (2, "b")],
    "list subclass": [Column([1, 2]), Column([3, 4])],
    "nested": [{"t": (1, [2.0, {"s": "q"}])}, {"t": (3, [4.0, {"s": "r"}])}],
    "empty lists": [[], []],
    "strided": [np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T],
}


EXPECTED = {  # PyTorch 2.13's answers; a tensor is (dtype, shape, values)
    "ints": ("int64", (3,), [1, 2, 3]),
    "floats": ("float64", (2,), [1.0, 2.5]),
    "bools": ("bool", (2,), [True, False]),
    "strings": ("list", ["a", "b"]),
    "bytes": ("list", [b"a", b"b"]),
    "arrays": ("float32", (2, 2, 3), [[[1.0] * 3] * 2, [[0.0] * 3] * 2]),
    "uint8 arrays": ("uint8", (2, 2), [[1, 1], [0, 0]]),
    "0-d arrays": ("float64", (2,), [1.5, 2.5]),
    "numpy numbers": ("float32", (2,), [1.0, 2.0]),
    "numpy int64": ("int64", (2,), [1, 2]),
    "tuples": ("list", [("float64", (2, 2), [[1.0, 1.0], [0.0, 0.0]]), ("int64", (2,), [1, 2])]),
    "lists": ("list", [("int64", (2,), [1, 3]), ("float64", (2,), [2.0, 4.0])]),
    "dicts": ("dict", {"x": ("float64", (2, 2), [[1.0, 1.0], [0.0, 0.0]]), "n": ("list", ["a", "b"])}),
    "ordered": ("OrderedDict", {"x": ("int64", (2,), [1, 2])}),
    "namedtuples": ("Pair", [("int64", (2,), [1, 2]), ("tuple", ["x", "y"])]),
    "strings in tuples": ("list", [("int64", (2,), [1, 2]), ("tuple", ["a", "b"])]),
    "list subclass": ("Column", [("int64", (2,), [1, 3]), ("int64", (2,), [2, 4])]),
    "nested": (
        "dict",
        {
            "t": (
                "list",
                [
                    ("int64", (2,), [1, 3]),
                    ("list", [("float64", (2,), [2.0, 4.0]), ("dict", {"s": ("list", ["q", "r"])})]),
                ],
            )
        },
    ),
    "empty lists": ("list", []),
    "strided": ("int64", (2, 3, 2), [[[0, 3], [1, 4], [2, 5]]] * 2),
}


def plain(value):
    """A structure with every tensor as (dtype, shape, values), comparable between the two libraries."""
    if hasattr(value, "tolist") and not isinstance(value, np.ndarray):
        return str(value.dtype).replace("torch.", ""), tuple(value.shape), value.tolist()
    if hasattr(value, "_fields"):
        return type(value).__name__, [plain(v) for v in value]
    if isinstance(value, dict):
        return type(value).__name__, {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [plain(v) for v in value]
    return value


@pytest.mark.parametrize("name", BATCHES)
def test_the_batch_has_the_expected_structure_dtype_and_values(name):
    assert plain(default_collate(BATCHES[name])) == EXPECTED[name]


@pytest.mark.parametrize("name", BATCHES)
def test_what_is_expected_is_what_pytorch_answers(name):
    theirs = pytest.importorskip("torch.utils.data")
    assert plain(theirs.default_collate(BATCHES[name])) == EXPECTED[name]


@pytest.mark.parametrize("name", BATCHES)
def test_convert_has_pytorchs_structure(name):
    theirs = pytest.importorskip("torch.utils.data")
    assert plain(default_convert(BATCHES[name][0])) == plain(theirs.default_convert(BATCHES[name][0]))


def test_what_comes_out_by_hand():
    images, labels, names = default_collate([(np.zeros((1, 2)), 3, "x"), (np.ones((1, 2)), 4, "y")])
    assert images.tolist() == [[[0, 0]], [[1, 1]]] and labels.dtype == shared.int64 and names == ("x", "y")


@pytest.mark.parametrize(
    "batch, dtype",
    [([1, 2.5], "float64"), ([2.5, 1], "float64"), ([True, 2], "int64"), ([np.float32(1), np.float32(2)], "float32")],
)
def test_numbers_of_several_kinds_keep_their_values(batch, dtype):
    assert default_collate(batch).tolist() == batch and default_collate(batch).dtype == np.dtype(dtype)


def test_strings_of_numpy_stay_a_list_as_in_pytorch_and_huge_ints_are_refused():
    words = [np.str_("a"), np.str_("b")]
    assert default_collate(words) == words
    with pytest.raises(TypeError, match="no dtype holds these numbers"):
        default_collate([10**30, 1])
    theirs = pytest.importorskip("torch.utils.data")
    assert theirs.default_collate(words) == words


def test_a_container_that_cannot_be_rebuilt_becomes_a_plain_one():
    class Table(dict):
        def __init__(self):
            super().__init__(x=1)

        def __copy__(self):
            raise TypeError("one of a kind")

    assert type(default_collate([Table(), Table()])) is dict
    assert default_collate([np.array([], dtype=np.float32)] * 2).shape == (2, 0)


def test_tensors_are_stacked_and_a_batch_owns_its_memory():
    x = shared.zeros(3)
    batch = default_collate([x, x])
    batch.array[0, 0] = 7
    assert batch.shape == (2, 3) and x.tolist() == [0, 0, 0] and batch.tolist()[1] == [0, 0, 0]


def test_stacking_keeps_the_graph():
    x = shared.ones(2, requires_grad=True)
    default_collate([x, x * 2]).sum().backward()
    assert x.grad.tolist() == [3, 3]


@quick
@given(st.integers(1, 5), st.lists(st.integers(0, 3), max_size=3))
def test_the_batch_is_a_new_first_dimension(size, shape):
    samples = [np.full(shape, i, dtype=np.float32) for i in range(size)]
    batch = default_collate(samples)
    assert batch.shape == (size, *shape) and batch.dtype == shared.float32


@pytest.mark.parametrize(
    "batch, kind, message",
    [
        ([object(), object()], TypeError, "must contain tensors, numpy arrays, numbers, dicts or lists"),
        ([None, None], TypeError, "must contain tensors"),
        ([[1], [1, 2]], RuntimeError, "each element in list of batch should be of equal size"),
        ([np.array(["a"]), np.array(["b"])], TypeError, "default_collate: "),
        ([np.zeros(3), np.zeros(4)], RuntimeError, r"got \[3\] at entry 0 and \[4\] at entry 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_batched_says_so(batch, kind, message):
    with pytest.raises(kind, match=message):
        default_collate(batch)
    theirs = pytest.importorskip("torch.utils.data")
    with pytest.raises(kind):
        theirs.default_collate(batch)
