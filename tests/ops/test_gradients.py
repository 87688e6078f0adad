"""Gradients against finite differences in float64, for every case of the table that has one, and second gradients."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import shared
from shared import ops
from shared.autograd import Function
from shared.nn import functional as F
from shared.testing import gradcheck, gradgradcheck
from tests.nn.cases import FUNCTIONS
from tests.nn.cases import Constant as Fixed
from tests.ops.cases import CASES, EXAMPLES, example_id
from tests.ops.running import outputs_of

ROUNDED = {"cast"}  # goes through float32, where differences of 1e-6 drown


def leaves(case, place, requires_grad=True):
    return [
        shared.from_numpy(a).requires_grad_(requires_grad and floating)
        for a, floating in zip(case.arrays(place), case.differentiable(), strict=True)
    ]


def differentiable(case):
    """The case as a function whose outputs are those that have a gradient."""

    def call(*tensors):
        if case.name.startswith(("dropout", "checkpoint")):
            shared.manual_seed(0)
        return [y for y in outputs_of(case.call(shared, *tensors)) if y.requires_grad]

    return call


def nodes_of(outputs):
    """All nodes of the graph behind some tensors."""
    found, waiting = set(), [y.grad_fn for y in outputs]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function) and node not in found:
            found.add(node)
            waiting += node.edges
    return found


def is_finite(case, place):
    """Whether differences make sense: there is none of infinities and NaN."""
    inputs = leaves(case, place)
    return all(bool(y.isfinite().all()) for y in [*inputs, *differentiable(case)(*inputs)])


GRAPHS = {(c, i): nodes_of(differentiable(c)(*leaves(c, i))) for c, i in EXAMPLES}
WITH_GRADIENT = [e for e, nodes in GRAPHS.items() if nodes and e[0].name not in ROUNDED and is_finite(*e)]
TWICE = [e for e in WITH_GRADIENT if all(n.twice for n in GRAPHS[e])]


@pytest.mark.parametrize("example", WITH_GRADIENT, ids=example_id)
def test_gradients_are_those_of_finite_differences(example):
    case, place = example
    assert gradcheck(differentiable(case), leaves(case, place))


@pytest.mark.parametrize("example", TWICE, ids=example_id)
def test_second_gradients_are_those_of_finite_differences(example):
    case, place = example
    assert gradgradcheck(differentiable(case), leaves(case, place))


def functions_of_the_library():
    """Every Function in shared.ops that is no base of others."""
    for module in pkgutil.iter_modules(ops.__path__, "shared.ops."):
        importlib.import_module(module.name)
    found, waiting = set(), [Function]
    while waiting:
        waiting += (subclasses := waiting.pop().__subclasses__())
        found.update(c for c in subclasses if c.__module__.startswith("shared.ops.") and not c.__subclasses__())
    return found


# Functions that no case applies: where they are tested instead.
ELSEWHERE = {
    "Move": "tests/ops/test_gpu.py",
    "PutItem": "test_second_gradients_… above: the gradient of an indexing",
    "Rotary": "tests/ops/test_rotary.py; PyTorch does not have it",
    "Attention": "tests/nn/test_attention.py",
    "PackedAttention": "tests/nn/test_attention.py",
    "EmbeddingWeight": "tests/nn/test_embedding.py",
    **dict.fromkeys(
        ("ConvWeight", "MaxPoolInput", "AtPlaces", "AvgPoolInput", "ResampleInput"), "tests/nn/test_conv.py"
    ),
}


def test_every_function_is_in_a_case():
    """A Function that no case of this table or of the one in tests/nn applies is an untested one."""
    graphs = list(GRAPHS.values())
    for case in FUNCTIONS:
        tensors = [
            shared.from_numpy(np.asarray(x.array if isinstance(x, Fixed) else x)).requires_grad_(
                not isinstance(x, Fixed)
            )
            for x in case.inputs()
        ]
        graphs.append(nodes_of([y for y in outputs_of(case.call(F, *tensors)) if y.requires_grad]))
    applied = {type(node) for graph in graphs for node in graph}
    missing = {f.__name__ for f in functions_of_the_library() - applied} - set(ELSEWHERE)
    assert not missing, f"no case applies {sorted(missing)}"


def test_every_operation_is_in_a_case():
    """Each public name of shared.ops occurs in the table or in a test beside it."""
    words = set(re.findall(r"\w+", "".join(p.read_text() for p in Path(__file__).parent.glob("*.py"))))
    internal = {"assign", "bitwise", "bitwise_not", "cast", "getitem", "setitem", "sizes_of"}  # behind operators
    missing = [n for n in ops.__all__ if inspect.isfunction(getattr(ops, n)) and n not in words | internal]
    assert not missing


def test_names_of_cases_are_distinct():
    assert len({c.name for c in CASES}) == len(CASES)
