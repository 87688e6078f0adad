"""The Tensor itself: what it tells about itself, conversions to Python, and the errors a learner meets."""

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest

import shared
from shared import Tensor

# ---------------------------------------------------------------- what it tells


def test_attributes():
    x = shared.zeros(2, 3, dtype=shared.float64)
    assert x.shape == (2, 3) == x.size() and x.size(1) == 3 and x.size(-1) == 3 and isinstance(x.shape, shared.Size)
    assert x.ndim == x.dim() == 2 and x.numel() == x.nelement() == 6 == shared.numel(x) and len(x) == 2
    assert x.dtype == shared.float64 and x.itemsize == x.element_size() == 8 and x.nbytes == 48
    assert x.device == "cpu" and x.device == shared.device("cpu") and not x.is_cuda
    assert x.is_floating_point() and shared.is_floating_point(x) and not shared.arange(2).is_floating_point()
    assert shared.is_tensor(x) and not shared.is_tensor(x.numpy())
    assert x.is_leaf and x.grad_fn is None and x.grad is None
    assert x.shape.numel() == 6 and repr(x.shape) == "Size([2, 3])"


def test_strides_count_elements():
    x = shared.zeros(2, 3, 4)
    assert x.stride() == (12, 4, 1) and x.stride(1) == 4
    assert x.permute(2, 0, 1).stride() == (1, 12, 4) and x[:, ::2].stride() == (12, 8, 1)
    assert x.is_contiguous() and not x.mT.is_contiguous() and x.mT.contiguous().is_contiguous()
    assert shared.ones(3, 1).expand(3, 4).stride() == (1, 0)


def test_views_share_memory_and_copies_do_not():
    x = shared.arange(6.0).reshape(2, 3)
    for view in (
        x.T,
        x[0],
        x.view(-1),
        x.reshape(3, 2),
        x.unsqueeze(0),
        x.expand(2, 2, 3),
        x.detach(),
        x.data,
        x.narrow(1, 0, 2),
    ):
        assert np.shares_memory(view.numpy(), x.numpy())
    for copied in (
        x.clone(),
        x + 0,
        x[[0, 1]],
        x.flip(0),
        x.repeat(1, 1),
        x.T.reshape(-1),
        x.to(shared.float32, copy=True),
    ):
        assert not np.shares_memory(copied.numpy(), x.numpy())
    assert x.contiguous() is x and x.float() is x and x.to("cpu") is x and x.cpu() is x
    assert x.data_ptr() == x.view(-1).data_ptr() and x[1].data_ptr() == x.data_ptr() + 12


def test_equality_is_by_element_and_hash_by_identity():
    x, y = shared.ones(2), shared.ones(2)
    assert (x == y).tolist() == [True, True] and x.equal(y) and not x.equal(shared.ones(3))
    assert len({x, y, x}) == 2
    assert (x == None) is False and (x != "a") is True  # noqa: E711


def test_membership_and_iteration():
    x = shared.tensor([[1, 2], [3, 4]])
    assert 3 in x and 7 not in x and [row.tolist() for row in x] == [[1, 2], [3, 4]]
    a, b = x
    assert b.tolist() == [3, 4]


# ---------------------------------------------------------------- Python numbers


def test_items():
    assert shared.tensor([[2.5]]).item() == 2.5 and type(shared.tensor(2).item()) is int
    assert type(shared.tensor(True).item()) is bool and shared.tensor(1.5, dtype=shared.bfloat16).item() == 1.5
    assert float(shared.tensor([1.5])) == 1.5 and int(shared.tensor(2.9)) == 2 and bool(shared.tensor([0.0])) is False
    assert [10, 20, 30][shared.tensor(1)] == 20 and list(range(shared.tensor(3))) == [0, 1, 2]
    assert shared.tensor([[1, 2]]).tolist() == [[1, 2]] and shared.tensor(1.5).tolist() == 1.5
    assert math.sqrt(shared.tensor(4.0)) == 2.0


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: shared.ones(3).item(), RuntimeError, "a Tensor with 3 elements cannot be converted to Scalar"),
        (lambda: shared.ones(0).item(), RuntimeError, "a Tensor with 0 elements"),
        (lambda: bool(shared.ones(2)), RuntimeError, r"Boolean value of Tensor with more than one value is ambiguous.*\(2,\)"),
        (lambda: bool(shared.ones(0)), RuntimeError, "Boolean value of Tensor with no values is ambiguous"),
        (lambda: float(shared.ones(2)), RuntimeError, "more than one value"),
        (lambda: [1, 2][shared.tensor(1.0)], TypeError, "only integer tensors of a single element"),
        (lambda: len(shared.tensor(1)), TypeError, r"len\(\) of a 0-d tensor"),
        (lambda: iter(shared.tensor(1)), TypeError, "iteration over a 0-d tensor"),
        (lambda: shared.ones(1, requires_grad=True).numpy(), RuntimeError, r"requires grad. Use tensor.detach\(\).numpy\(\)"),
        (lambda: np.asarray(shared.ones(1, requires_grad=True)), RuntimeError, "requires grad"),
        (lambda: shared.ones(2, 3) @ shared.ones(2, 3), RuntimeError, r"matmul: shapes \(2, 3\) and \(2, 3\) cannot be multiplied: .*\(3\) must equal .*\(2\)"),
        (lambda: shared.ones(()) @ shared.ones(2), RuntimeError, "at least 1D, but they are 0D and 1D"),
        (lambda: shared.ones(2) @ shared.ones(2).double(), RuntimeError, "same dtype, but got float32 and float64"),
        (lambda: shared.matmul(shared.ones(2), [1, 2]), TypeError, "matmul: expected Tensors, but got list"),
        (lambda: shared.mm(shared.ones(2), shared.ones(2)), RuntimeError, r"mm: shapes \(2,\) and \(2,\).*matrices"),
        (lambda: shared.bmm(shared.ones(2, 2, 2), shared.ones(3, 2, 2)), RuntimeError, r"bmm: shapes \(2, 2, 2\) and \(3, 2, 2\)"),
        (lambda: shared.mv(shared.ones(2, 2), shared.ones(2, 2)), RuntimeError, "mv: .*a vector"),
        (lambda: shared.dot(shared.ones(2), shared.ones(3)), RuntimeError, r"dot: shapes \(2,\) and \(3,\).*same length"),
        (lambda: shared.outer(shared.ones(2, 2), shared.ones(3)), RuntimeError, "outer: .*both must be vectors"),
        (lambda: shared.nn.functional.linear(shared.ones(2, 3), shared.ones(4, 2)), RuntimeError, r"linear: shapes \(2, 3\) and \(4, 2\)"),
        (lambda: shared.nn.functional.linear(shared.ones(2, 3), shared.ones(4, 3), shared.ones(3)), RuntimeError, r"bias of shape \(4,\).*\(3,\)"),
        (lambda: shared.nn.functional.linear(shared.ones(2, 3), shared.ones(4, 3).double()), RuntimeError, "float32, float64"),
        (lambda: shared.ones(2, 3) + shared.ones(2), RuntimeError, r"Add: shapes \(2, 3\) and \(2,\) cannot be broadcast together"),
        (lambda: shared.ones(2, 3) < shared.ones(2), RuntimeError, r"<: shapes \(2, 3\) and \(2,\) cannot be broadcast together"),
        (lambda: shared.einsum("ij,jk", shared.ones(2, 3)), RuntimeError, "2 operands in 'ij,jk', but 1 were given"),
        (lambda: shared.einsum("ij,jk", shared.ones(2, 3), shared.ones(2, 3)), RuntimeError, r"subscript 'j' .* has size 2 .*size 3"),
        (lambda: shared.einsum("ij", shared.ones(2)), RuntimeError, "do not name the 1 dimensions of operand 0"),
        (lambda: shared.einsum("ij->k", shared.ones(2, 2)), RuntimeError, "unknown"),
        (lambda: shared.ones(2, 3).reshape(4), RuntimeError, r"shape '\[4\]' is invalid for input of size 6"),
        (lambda: shared.ones(2, 3).reshape(-1, -1), RuntimeError, "only one dimension can be inferred"),
        (lambda: shared.ones(2, 3).reshape(-2, 3), RuntimeError, "invalid shape dimension"),
        (lambda: shared.ones(0, 3).reshape(0, -1), RuntimeError, "-1 is ambiguous"),
        (lambda: shared.ones(2, 3).T.view(-1), RuntimeError, "not compatible with the input's size .* Use .reshape"),
        (lambda: shared.ones(2, 3).permute(0), RuntimeError, "has 2 dimensions, but 1 were given"),
        (lambda: shared.ones(2, 3).permute(0, 0), RuntimeError, "duplicate dims"),
        (lambda: shared.ones(2, 3).transpose(0, 2), IndexError, r"range of \[-2, 1\], but got 2"),
        (lambda: shared.ones(2, 3, 4).t(), RuntimeError, "<= 2 dimensions, but self is 3D"),
        (lambda: shared.ones(2, 3).flatten(1, 0), RuntimeError, "start_dim cannot come after end_dim"),
        (lambda: shared.ones(2, 6).unflatten(1, (4, 2)), RuntimeError, "don't multiply up to the size of dim 1"),
        (lambda: shared.ones(2, 3).expand(2, 4), RuntimeError, r"expanded size of the tensor \(4\) must match the existing size \(3\)"),
        (lambda: shared.ones(2, 3).expand(3), RuntimeError, "below the tensor's dimensions"),
        (lambda: shared.ones(3).expand(-1, 3), RuntimeError, "-1 is not allowed"),
        (lambda: shared.ones(2, 3).repeat(2), RuntimeError, "can not be smaller"),
        (lambda: shared.cat([]), RuntimeError, "non-empty list"),
        (lambda: shared.cat([shared.ones(2), 3]), TypeError, "element 1 is int"),
        (lambda: shared.cat([shared.tensor(1), shared.tensor(2)]), RuntimeError, "zero-dimensional .* use stack"),
        (lambda: shared.cat([shared.ones(2, 3), shared.ones(2, 4)]), RuntimeError, r"Expected \[2, 3\], but got \[2, 4\] for tensor number 1"),
        (lambda: shared.stack([]), RuntimeError, "non-empty"),
        (lambda: shared.stack([shared.ones(2), shared.ones(3)]), RuntimeError, r"\[2\] at entry 0 and \[3\] at entry 1"),
        (lambda: shared.ones(5).split(0), RuntimeError, "split_size be positive"),
        (lambda: shared.ones(5).split([2, 2]), RuntimeError, "sum exactly to 5"),
        (lambda: shared.ones(5).chunk(0), RuntimeError, "greater than 0"),
        (lambda: shared.ones(5).narrow(0, 3, 3), RuntimeError, r"start \(3\) \+ length \(3\) exceeds dimension size \(5\)"),
        (lambda: shared.ones(2, 3).roll((1, 2), 0), RuntimeError, "shifts and dimensions must align"),
        (lambda: shared.ones(3).tril(), RuntimeError, "at least 2 dimensions, but it has 1"),
        (lambda: shared.ones(2, 3).movedim((0, 1), 0), RuntimeError, "2 source and 1 destination"),
        (lambda: shared.nn.functional.pad(shared.ones(3), (1,)), RuntimeError, "even number of at most 2 widths"),
        (lambda: shared.nn.functional.pad(shared.ones(1, 3), (3, 0), mode="reflect"), RuntimeError, "too large for mode 'reflect'"),
        (lambda: shared.nn.functional.pad(shared.ones(3), (1, 1), mode="mirror"), NotImplementedError, "unknown mode 'mirror'"),
        (lambda: shared.arange(3).mean(), RuntimeError, "floating point dtype. Got: int64"),
        (lambda: shared.arange(3).var(), RuntimeError, "floating point tensor, but got int64"),
        (lambda: shared.arange(3).norm(), RuntimeError, "floating point tensor, but got int64"),
        (lambda: shared.ones(3).norm(p="nuc"), RuntimeError, "number or 'fro', but got 'nuc'"),
        (lambda: shared.ones(0).max(), IndexError, r"max\(\): Expected reduction dim to have non-zero size.*\(0,\)"),
        (lambda: shared.ones(2, 0).amin(1), IndexError, r"amin\(\): Expected reduction dim to have non-zero size.*\(2, 0\)"),
        (lambda: shared.ones(0, 3).argmax(), IndexError, "argmax"),
        (lambda: shared.ones(2, 3).sum((0, 0)), RuntimeError, "names a dimension twice"),
        (lambda: shared.ones(2, 3).sum(2), IndexError, "out of range"),
        (lambda: shared.ones(2) & shared.ones(2), RuntimeError, "&: expected integer or bool tensors"),
        (lambda: ~shared.ones(2), RuntimeError, "~: expected an integer or bool tensor, but got float32"),
        (lambda: -shared.tensor([True]), RuntimeError, "negation of a bool tensor"),
        (lambda: shared.tensor([True]) - shared.tensor([True]), RuntimeError, "subtraction of bool tensors"),
        (lambda: shared.tensor([2]) ** -1, RuntimeError, "Integers to negative integer powers"),
        (lambda: shared.tensor([2]) // 0, RuntimeError, "ZeroDivisionError"),
        (lambda: shared.ones(2).div(2, rounding_mode="up"), RuntimeError, "rounding_mode .* found 'up'"),
        (lambda: shared.add(shared.tensor([1]), 1, alpha=0.5), RuntimeError, "alpha must not be a floating point number"),
        (lambda: shared.ones(2).clamp(), RuntimeError, "At least one of 'min' or 'max'"),
        (lambda: shared.ones(2).to("gpu"), (RuntimeError, TypeError), "gpu"),
        (lambda: shared.device("tpu"), RuntimeError, "Expected a device like 'cpu', 'cuda' or 'cuda:0', but got 'tpu'"),
        (lambda: shared.nonsense, AttributeError, "module 'shared' has no attribute 'nonsense'"),
    ],
)  # fmt: skip
def test_mistakes_are_explained(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------- conversions


@pytest.mark.parametrize("name", ["double", "float", "half", "bfloat16", "long", "int", "short", "bool"])
def test_conversions_by_name(name):
    x = shared.tensor([0.0, 1.5, -2.5])
    y = getattr(x, name)()
    assert y.dtype == getattr(shared, name) and y.requires_grad is False
    assert y.shape == x.shape and getattr(y, name)() is y


def test_to_in_all_its_forms():
    x = shared.ones(2)
    assert x.to(shared.float64).dtype == shared.float64 and x.to(dtype=shared.int32).dtype == shared.int32
    assert x.to("cpu", shared.float16).dtype == shared.float16 and x.to(device="cpu") is x
    assert x.to(shared.ones(1, dtype=shared.int64)).dtype == shared.int64 and x.to(x) is x
    assert x.type_as(shared.ones(1).double()).dtype == shared.float64 and x.to(shared.device("cpu")) is x
    assert x.numpy(force=True) is x.numpy() and x.pin_memory() is x


def test_gradients_pass_through_conversions():
    x = shared.ones(2, requires_grad=True)
    (x.double() * 2).half().sum().backward()
    assert x.grad.dtype == shared.float32 and x.grad.tolist() == [2.0, 2.0]
    assert x.numpy(force=True).tolist() == [1.0, 1.0]
    assert not x.long().requires_grad


# ---------------------------------------------------------------- every method


def test_every_method_is_tested_somewhere():
    """A public method that no test of the core mentions is an untested one."""
    folder = Path(__file__).parent
    files = [*(folder / "ops").glob("*.py"), *(folder / "autograd").glob("*.py"), *folder.glob("test_*.py")]
    words = set(re.findall(r"\w+", "".join(p.read_text() for p in files)))
    public = {n for n, _ in inspect.getmembers(Tensor) if not n.startswith("_")}
    missing = sorted(public - words)
    assert not missing


def test_operations_and_methods_take_the_same_arguments():
    """`x.f(…)` is `shared.f(x, …)`: same names in the same order."""
    odd = {"to", "flip", "where", "max", "min", "median", "einsum", "bernoulli", "view", "sum", "mean", "norm", "copy_"}
    odd |= {"relu", "softmax", "log_softmax"}  # functions of nn.functional, with its arguments
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, method in inspect.getmembers(Tensor, inspect.isfunction):
        function = getattr(shared.ops, name, None)
        if name.startswith("_") or name in odd or not inspect.isfunction(function):
            continue
        own, theirs = (list(inspect.signature(f).parameters.values())[1:] for f in (method, function))
        if any(p.kind in variadic for p in own + theirs):
            continue
        defaults = [[(p.default, p.kind) for p in side] for side in (own, theirs)]
        assert defaults[0] == defaults[1][: len(defaults[0])], name


def test_only_a_tensor_of_the_same_shape_can_be_assigned_as_gradient():
    w = shared.ones(2, requires_grad=True)
    with pytest.raises(TypeError, match="assigned grad expected to be a Tensor or None but got int"):
        w.grad = 0
    with pytest.raises(RuntimeError, match=r"assigned grad has the shape \(3,\), but the tensor's is \(2,\)"):
        w.grad = shared.zeros(3)
    w.grad = shared.full((2,), 5.0)
    assert w.grad.tolist() == [5.0, 5.0]
    w.grad = None
    assert w.grad is None


def test_an_error_of_numpy_s_own_kind_inside_a_function_is_told_with_its_shapes():
    class Adds(shared.autograd.Function):
        def forward(self, x):
            out = np.zeros(3, dtype=np.int64)
            out += x  # NumPy refuses with an error class whose constructor takes five arguments
            return out

    with pytest.raises(TypeError, match=r"Adds on shapes \(3,\): Cannot cast ufunc 'add' output"):
        Adds()(shared.ones(3))


def test_what_a_hook_returns_is_not_the_memory_that_grad_returns():
    w, mine = shared.ones(2, requires_grad=True), shared.full((2,), 7.0)
    w.register_hook(lambda g: mine)
    (g,) = shared.autograd.grad((w * w).sum(), w)
    g.zero_()
    assert mine.tolist() == [7.0, 7.0]


def test_the_norm_of_a_tensor_is_no_layer_norm() -> None:
    import shared.nn  # a module shared.ops.norm would take the place of the function of that name

    assert shared.nn.LayerNorm is not None
    assert shared.tensor([3.0, 4.0]).norm().item() == 5.0
