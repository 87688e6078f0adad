"""Checks for tests: gradients against finite differences, and closeness of arrays with a message that locates it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from shared.arrays import dtypes
from shared.arrays.device import to_device
from shared.autograd import grad as gradients_of
from shared.ops.creation import from_numpy
from shared.tensor import Tensor

# ---------------------------------------------------------------- gradient checks


def gradcheck(
    fn: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Tensor | Sequence[Any],
    eps: float = 1e-6,
    atol: float = 1e-6,
    rtol: float = 1e-4,
    fast: bool = True,
    raise_exception: bool = True,
) -> bool:
    """Compares the gradients of `fn(*inputs)` with central differences (f(x + eps) − f(x − eps)) / (2 eps).

    Every Tensor in `inputs` that requires a gradient is checked and must be float64. `fast` compares one random
    projection uᵀ J v of the Jacobian J per output and input (a few calls of `fn`, whatever the sizes); otherwise
    every entry of J is compared. Raises AssertionError where they differ (or returns False if `raise_exception` is
    False), ValueError where the check makes no sense: float32, overlapping memory, a function that is random, or a
    point where it has no derivative. The tolerances are tighter than PyTorch's.
    Source: Griewank and Walther, "Evaluating derivatives", 2008, section 3.

    >>> import shared
    >>> x = shared.tensor([0.3, -1.2], dtype=shared.float64, requires_grad=True)
    >>> gradcheck(lambda x: (x * x.exp()).sum(), x)
    True
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    try:
        checked = _checked_inputs(inputs, eps)
        outputs = _call(fn, inputs)
        _check_deterministic(fn, inputs, outputs)
        compare = _compare_projection if fast else _compare_jacobians
        for place in checked:
            compare(fn, inputs, place, eps, atol, rtol)
    except AssertionError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    fn: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Tensor | Sequence[Any],
    eps: float = 1e-6,
    atol: float = 1e-6,
    rtol: float = 1e-4,
    fast: bool = True,
    raise_exception: bool = True,
) -> bool:
    """`gradcheck` of the gradients of `fn` themselves; every op in it must declare `twice = True`.

    The gradient that comes from above is random and checked along with the inputs.

    >>> import shared
    >>> x = shared.tensor([0.3, -1.2], dtype=shared.float64, requires_grad=True)
    >>> gradgradcheck(lambda x: x * x * x, x)
    True
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    places = _checked_inputs(inputs, eps)
    rng = np.random.default_rng(0)
    above = [from_numpy(rng.standard_normal(y.shape)).to(y.device).requires_grad_() for y in _call(fn, inputs)]

    def first_gradients(*args: Any) -> list[Tensor]:
        values, above = args[: len(inputs)], args[len(inputs) :]
        outputs = _call(fn, values)
        found = gradients_of(outputs, [values[i] for i in places], list(above), create_graph=True, allow_unused=True)
        return [g for g in found if g is not None and g.requires_grad]

    return gradcheck(first_gradients, (*inputs, *above), eps, atol, rtol, fast, raise_exception)


def _checked_inputs(inputs: Sequence[Any], eps: float) -> list[int]:
    """The places of the inputs whose gradient is checked."""
    places = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not places:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of them has requires_grad=True"
        )
    for i in places:
        array = inputs[i].array
        if array.dtype != np.float64:
            raise ValueError(
                f"gradcheck: input {i} is {array.dtype.name}, but differences with eps={eps:g} drown in rounding below "
                f"float64. Pass x.double()"
            )
        if array.size and any(
            stride == 0 and size > 1 for stride, size in zip(array.strides, array.shape, strict=True)
        ):
            raise ValueError(
                f"gradcheck: input {i} of shape {array.shape} has elements that share memory (an expanded tensor?), so "
                f"that one cannot be changed alone. Pass x.contiguous()"
            )
    return places


def _call(fn: Callable, inputs: Sequence[Any]) -> list[Tensor]:
    """The outputs of `fn` that can have gradients."""
    result = fn(*inputs)
    outputs = list(result) if isinstance(result, (tuple, list)) else [result]
    for i, y in enumerate(outputs):
        if not isinstance(y, Tensor):
            raise ValueError(f"gradcheck: fn must return a Tensor or several, but output {i} is {type(y).__name__}")
    found = [y for y in outputs if y.requires_grad]
    if not found:
        raise ValueError(
            "gradcheck: no output of fn requires a gradient. Does fn leave the graph (item(), numpy(), detach(), "
            "no_grad)?"
        )
    return found


def _values(fn: Callable, inputs: Sequence[Any]) -> list[Any]:
    """The raw arrays of the outputs that `_call` gives."""
    return [y.array for y in _call(fn, inputs)]


def _check_deterministic(fn: Callable, inputs: Sequence[Any], outputs: list[Tensor]) -> None:
    again = _call(fn, inputs)
    for i, (a, b) in enumerate(zip(outputs, again, strict=True)):
        if a.shape != b.shape or not _same(a.array, b.array):
            raise ValueError(
                f"gradcheck: output {i} of fn differs between two calls with the same inputs. Random numbers "
                f"(dropout?) must be seeded inside fn, and fn must not change its inputs"
            )


def _same(a: Any, b: Any) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())


class _Moved:
    """Adds `delta` to an input's memory inside a `with` block, and then restores the old values exactly."""

    def __init__(self, x: Tensor, delta: Any):
        self.array, self.delta = x.array, delta

    def __enter__(self) -> None:
        """Adds `self.delta` to `self.array` in place: the function under test must see the change."""
        self.before = self.array.copy()
        self.array[...] = self.before + self.delta

    def __exit__(self, *exc: object) -> None:
        """Puts back the values that `self.array` had, in place and to the last bit: x + d − d may differ from x."""
        self.array[...] = self.before


def _central_difference(at: Callable[[float], Sequence[Any]], eps: float) -> list[Any]:
    """The slopes at step 0 of the quantities that `at(step)` lists, numbers or arrays: one slope for each.

    Measured from both sides, at `eps` and at `-eps`, so that the error falls with the square of `eps`, and not with
    `eps` itself (note 05 of Sprint 01).

    >>> _central_difference(lambda step: [(3 + step) ** 2, 7 * step], 0.5)
    [6.0, 7.0]
    """
    after, before = at(eps), at(-eps)
    return [(a - b) / (2 * eps) for a, b in zip(after, before, strict=True)]


def _agree(numerical: Any, analytical: Any, atol: float, rtol: float) -> Any:
    """Whether two numbers are within atol + rtol · |numerical| of one another, False for NaN; arrays elementwise.

    >>> _agree(1000.0, 1000.09, atol=1e-6, rtol=1e-4), _agree(0.0, 0.09, atol=1e-6, rtol=1e-4)
    (True, False)
    """
    return abs(numerical - analytical) <= atol + rtol * abs(numerical)


def _compare_projection(fn: Callable, inputs: Sequence[Any], place: int, eps: float, atol: float, rtol: float) -> None:
    """Compares uᵀ J v with (uᵀ f(x + eps v) − uᵀ f(x − eps v)) / (2 eps), u and v random."""
    rng = np.random.default_rng(place)
    x = inputs[place]
    outputs = _call(fn, inputs)
    v = _like(rng.standard_normal(x.shape), x)
    us = [_like(rng.standard_normal(y.shape), y) for y in outputs]
    middle = [float((u * y.array).sum()) for u, y in zip(us, outputs, strict=True)]
    sizes = [float(abs(u * y.array).sum()) for u, y in zip(us, outputs, strict=True)]

    @functools.cache
    def projected(step: float) -> list[float]:
        with _Moved(x, step * v):
            return [float((u * y).sum()) for u, y in zip(us, _values(fn, inputs), strict=True)]

    slopes = _central_difference(projected, eps)
    after, before = projected(eps), projected(-eps)
    for k, u in enumerate(us):
        numerical = slopes[k]
        analytical = float((_gradient(fn, inputs, k, place, u) * v).sum())
        where = f"output {k} with respect to input {place}"
        if not abs(after[k] + before[k] - 2 * middle[k]) <= eps * (atol + rtol * abs(numerical)):
            _check_differentiable(projected, (k,), middle[k], sizes[k], eps, place)
        if not _agree(numerical, analytical, atol, rtol):
            raise AssertionError(
                f"gradcheck: the gradient of {where} is wrong. Along a random direction, finite differences give "
                f"{numerical:.8g} and backward gives {analytical:.8g} (difference {abs(numerical - analytical):.3g}, "
                f"allowed {atol + rtol * abs(numerical):.3g}). fast=False shows which entry"
            )


def _compare_jacobians(fn: Callable, inputs: Sequence[Any], place: int, eps: float, atol: float, rtol: float) -> None:
    """Compares every entry of the Jacobians, and names the one that is furthest off."""
    numerical = _numerical_jacobians(fn, inputs, place, eps, atol, rtol)
    for k, columns in enumerate(numerical):
        rows = _analytical_jacobian(fn, inputs, k, place)
        wrong = np.logical_not(_agree(columns, rows, atol, rtol))
        if wrong.any():
            excess = np.where(wrong, np.nan_to_num(np.abs(columns - rows), nan=np.inf), -1)
            i, j = np.unravel_index(int(excess.argmax()), excess.shape)
            of = np.unravel_index(i, _call(fn, inputs)[k].shape)
            by = np.unravel_index(j, inputs[place].shape)
            raise AssertionError(
                f"gradcheck: the gradient of output {k} with respect to input {place} is wrong in {int(wrong.sum())} "
                f"of {wrong.size} entries. Furthest off: d output{_index(of)} / d input{_index(by)}, where finite "
                f"differences give {columns[i, j]:.8g} and backward gives {rows[i, j]:.8g}"
            )


def _numerical_jacobians(
    fn: Callable, inputs: Sequence[Any], place: int, eps: float, atol: float, rtol: float
) -> list[np.ndarray]:
    """One matrix (elements of the output, elements of the input) per output, column by column."""
    x = inputs[place]
    middle = [_flat(y) for y in _values(fn, inputs)]
    jacobians = [np.empty((y.size, x.array.size)) for y in middle]
    for j in range(x.array.size):
        unit = np.zeros(x.array.size)
        unit[j] = 1
        unit = _like(unit.reshape(x.shape), x)

        @functools.cache
        def moved(step: float, unit: Any = unit) -> list[np.ndarray]:
            with _Moved(x, step * unit):
                return [_flat(y) for y in _values(fn, inputs)]

        slopes = _central_difference(moved, eps)
        after, before = moved(eps), moved(-eps)
        for k, jacobian in enumerate(jacobians):
            jacobian[:, j] = slopes[k]
            bend = np.abs(after[k] + before[k] - 2 * middle[k]) - eps * (atol + rtol * np.abs(jacobian[:, j]))
            if bend.size and bend.max() > 0:
                i = int(bend.argmax())
                _check_differentiable(moved, (k, i), middle[k][i], abs(middle[k][i]), eps, place)
    return jacobians


def _analytical_jacobian(fn: Callable, inputs: Sequence[Any], k: int, place: int) -> np.ndarray:
    """(elements of the output, elements of the input), row by row through backward."""
    output = _call(fn, inputs)[k]
    rows = np.zeros((output.array.size, inputs[place].array.size))
    for i in range(len(rows)):
        unit = np.zeros(output.array.size)
        unit[i] = 1
        rows[i] = _flat(_gradient(fn, inputs, k, place, _like(unit.reshape(output.shape), output)))
    return rows


def _gradient(fn: Callable, inputs: Sequence[Any], k: int, place: int, u: Any) -> Any:
    """uᵀ J of output `k` with respect to input `place`, a raw array."""
    output, x = _call(fn, inputs)[k], inputs[place]
    (found,) = gradients_of([output], [x], [Tensor(u)], allow_unused=True)
    if found is None:
        return 0 * x.array
    if found.dtype != x.dtype or found.shape != x.shape:
        raise AssertionError(
            f"gradcheck: the gradient for input {place} is {found.dtype} {tuple(found.shape)}, expected "
            f"{x.dtype} {tuple(x.shape)}"
        )
    return found.array


def _check_differentiable(
    at: Callable[[float], Any], pick: tuple[int, ...], middle: float, size: float, eps: float, place: int
) -> None:
    """Raises where the slopes from left and right do not meet as the step shrinks: a kink or a jump.

    `at(step)`, indexed with `pick`, is the number looked at; `size` that of the terms it is a sum of, whose rounding
    must not be taken for a kink.
    """
    gaps = []
    for step in (eps, eps / 16):
        after, before = (functools.reduce(operator.getitem, pick, at(s)) for s in (step, -step))
        right, left = (after - middle) / step, (middle - before) / step
        gaps.append(abs(right - left))
    rounding = 1024 * np.finfo(np.float64).eps * max(size, 1.0) / eps
    if gaps[1] > rounding and gaps[1] > gaps[0] / 4:
        raise ValueError(
            f"gradcheck: fn is not differentiable here with respect to input {place}: the slope from the left is "
            f"{left:.6g}, from the right {right:.6g}. Move the input away from the kink (0 for relu and abs, ties for "
            f"max)"
        )


def _like(values: np.ndarray, x: Tensor) -> Any:
    """`values` as a raw array of x's dtype on its device."""
    return to_device(np.asarray(values, dtype=x.array.dtype), x.device)


def _flat(array: Any) -> np.ndarray:
    """A flat copy on the CPU: `array` may be a view of an input that is about to change back."""
    return np.array(to_device(array, "cpu"), dtype=np.float64).reshape(-1)


def _index(index: Sequence[Any]) -> str:
    return "[" + ", ".join(str(int(i)) for i in index) + "]" if len(index) else ""


# ---------------------------------------------------------------- closeness

_TOLERANCES = {  # (rtol, atol), as in torch.testing.assert_close
    dtypes.float64: (1e-7, 1e-7),
    dtypes.float32: (1.3e-6, 1e-5),
    dtypes.float16: (1e-3, 1e-5),
    dtypes.bfloat16: (1.6e-2, 1e-5),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_dtype: bool = True,
    msg: str | None = None,
) -> None:
    """Raises AssertionError unless |actual − expected| ≤ atol + rtol · |expected| everywhere, shapes and dtypes equal.

    Takes Tensors, arrays and numbers, and sequences or dicts of them. The tolerances default to those of
    `torch.testing.assert_close` for the dtype (the wider of two); integers and booleans must be equal. The dtype
    is compared where both sides have one. `msg` is put before the message.

    >>> import shared
    >>> assert_close(shared.tensor([1.0, 2.0]), [1.0, 2.1])
    Traceback (most recent call last):
    AssertionError: 1 of 2 elements differ (50.0%), shape (2,), float32. Greatest absolute difference: 0.1 at [1] ...
    """
    if (rtol is None) != (atol is None):
        raise ValueError("rtol and atol must both be given, or neither")
    message = _difference(actual, expected, rtol, atol, equal_nan, check_dtype, "")
    if message:
        raise AssertionError(message if msg is None else f"{msg}: {message}")


def _difference(
    actual: Any, expected: Any, rtol: float | None, atol: float | None, nan: bool, dtype: bool, path: str
) -> str:
    """What is wrong with `actual`, or an empty string; walks dicts, and sequences that hold Tensors or arrays."""
    at = f"at {path}: " if path else ""
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if set(actual) != set(expected):
            return f"{at}keys {list(actual)} are not the expected {list(expected)}"
        pairs = [(f"{path}[{key!r}]", actual[key], expected[key]) for key in expected]
    elif _is_nested(actual) and _is_nested(expected):
        if len(actual) != len(expected):
            return f"{at}{len(actual)} items, expected {len(expected)}"
        pairs = [(f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(actual, expected, strict=True))]
    else:
        problem = _array_difference(actual, expected, rtol, atol, nan, dtype)
        return at + problem if problem else ""
    for name, a, b in pairs:
        problem = _difference(a, b, rtol, atol, nan, dtype, name)
        if problem:
            return problem
    return ""


def _is_nested(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and any(hasattr(v, "dtype") or isinstance(v, Mapping) for v in x)


def _array_difference(
    actual: Any, expected: Any, rtol: float | None, atol: float | None, nan: bool, dtype: bool
) -> str:
    a, b = _as_numpy(actual), _as_numpy(expected)
    if a.shape != b.shape:
        return f"shape {a.shape} is not the expected {b.shape}"
    typed = hasattr(actual, "dtype") and hasattr(expected, "dtype")
    if dtype and typed and a.dtype != b.dtype:
        return f"dtype {a.dtype.name} is not the expected {b.dtype.name} (check_dtype=False compares the values alone)"
    if rtol is None or atol is None:
        found = [_TOLERANCES.get(x.dtype, (0.0, 0.0)) for x, y in ((a, actual), (b, expected)) if hasattr(y, "dtype")]
        rtol, atol = max(found, default=_TOLERANCES[dtypes.float64] if a.dtype.kind == "f" else (0.0, 0.0))
    x, y = _wide(a), _wide(b)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.asarray(abs(x - y)).astype(float)
        close = (gap <= atol + rtol * np.abs(y.astype(gap.dtype))) & np.isfinite(gap)
    close |= np.asarray(x == y, dtype=bool)  # infinities of the same sign
    if nan:
        close |= np.asarray((x != x) & (y != y), dtype=bool)
    return "" if close.all() else _describe(a, x, y, gap, ~close, rtol, atol)


def _describe(
    a: np.ndarray, x: np.ndarray, y: np.ndarray, gap: np.ndarray, wrong: np.ndarray, rtol: float, atol: float
) -> str:
    """The message: how many, and where the absolute and the relative difference are greatest."""
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = gap / np.abs(y.astype(gap.dtype))
    lines = []
    for name, values, allowed in (("absolute", gap, atol), ("relative", relative, rtol)):
        ranked = np.where(wrong, np.nan_to_num(values.astype(float), nan=np.inf, posinf=np.inf), -1.0)
        index = np.unravel_index(int(ranked.argmax()), ranked.shape)
        at = f" at {_index(index)}" if index else ""
        lines.append(
            f"Greatest {name} difference: {float(values[index]):.3g}{at} ({x[index]} instead of {y[index]}), "
            f"allowed {allowed:g}."
        )
    count, total = int(wrong.sum()), wrong.size
    return (
        f"{count} of {total} elements differ ({100 * count / total:.1f}%), shape {a.shape}, {a.dtype.name}. "
        + " ".join(lines)
    )


def _as_numpy(x: Any) -> np.ndarray:
    if isinstance(x, Tensor):
        x = x.array
    elif hasattr(x, "detach"):  # a Tensor of PyTorch's
        x = x.detach().cpu().numpy()
    return np.asarray(to_device(x, "cpu") if hasattr(x, "dtype") and hasattr(x, "shape") else x)


def _wide(x: np.ndarray) -> np.ndarray:
    """Values in a dtype whose differences are exact enough: float64, and Python integers for int64."""
    if x.dtype.kind in "iub":
        return x.astype(object) if x.dtype.itemsize == 8 else x.astype(np.int64)
    return x.astype(np.float64)
