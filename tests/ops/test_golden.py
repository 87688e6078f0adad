"""Every example of the table against numbers that PyTorch gave, committed: this runs where PyTorch is not installed."""

import json

import numpy as np
import pytest

from tests.ops.cases import EXAMPLES, example_id
from tests.ops.make_golden import FOLDER, source_hash
from tests.ops.running import numpy_of, run_shared

with np.load(FOLDER / "cases.npz") as file:
    NUMBERS, INDEX = file["numbers"], json.loads(str(file["index"]))


def starts():
    """Where the numbers of each example begin."""
    found, position = {}, 0
    for name, (_, shapes) in INDEX["entries"].items():
        found[name] = position
        position += sum(int(np.prod(s[1:])) for s in shapes if s is not None)
    return found


STARTS = starts()


def test_golden_values_are_those_of_the_table():
    assert INDEX["source"] == source_hash(), "cases.py has changed: run python -m tests.ops.make_golden"
    assert list(INDEX["entries"]) == [example_id(e) for e in EXAMPLES]


@pytest.mark.parametrize("example", EXAMPLES, ids=example_id)
def test_values_and_gradients_are_the_committed_ones(example):
    case, place = example
    name = example_id(example)
    assert name in INDEX["entries"], "a new case: run python -m tests.ops.make_golden"
    count, shapes = INDEX["entries"][name]
    outputs, grads = run_shared(case, case.arrays(place))
    assert len(outputs) == count
    position = STARTS[name]
    for i, (found, shape) in enumerate(zip([*outputs, *grads], shapes, strict=True)):
        what = f"output {i}" if i < count else f"gradient of input {i - count}"
        if shape is None:
            assert found is None, what
            continue
        assert found is not None, f"{what} is missing"
        dtype, *size = shape
        assert found.dtype.name == dtype and list(found.shape) == size, what
        total = int(np.prod(size))
        expected = NUMBERS[position : position + total].reshape(size)
        position += total
        tight = dtype == "float64"
        np.testing.assert_allclose(
            numpy_of(found), expected, 1e-9 if tight else 1e-5, 1e-11 if tight else 1e-6, err_msg=what
        )
