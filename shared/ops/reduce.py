"""Reductions: sums, means, extrema, norms, along one, several or all dimensions."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops import arithmetic, elementwise, index, shape
from shared.ops.autocast import follows_autocast
from shared.ops.comparison import isnan
from shared.ops.operands import as_floating, cast, clone, normalize_dim
from shared.tensor import Tensor, numpy_names

Dim = int | Sequence[int] | None

ValuesIndices = namedtuple("ValuesIndices", ["values", "indices"])


def normalize_dims(dim: Dim, ndim: int) -> tuple[int, ...]:
    """The dimensions that `dim` names, each in [0, ndim); all of them for None (or an empty tuple).

    Errors: IndexError for a dimension that is not there, RuntimeError for one named twice.
    """
    if dim is None:
        return tuple(range(ndim))
    given = (dim,) if isinstance(dim, int) else tuple(dim)
    if not given:
        return tuple(range(ndim))
    found = tuple(normalize_dim(d, ndim) for d in given)
    if len(set(found)) != len(found):
        raise RuntimeError(f"dim {given} names a dimension twice")
    return tuple(d for d in found if ndim)  # a zero-dimensional tensor has dim 0 and −1, but nothing along it


def _expand(grad: Any, dims: tuple[int, ...], keepdim: bool, full: tuple[int, ...]) -> Any:
    """The gradient of a reduction over `dims`, stretched back to the shape `full` that the input had.

    `grad` has the shape of the result: with `keepdim` the dimensions `dims` (each in [0, ndim), in any order: those of
    sum((2, 0)) are (2, 0)) have size 1 in it, else they are gone and have to be put back, each in its old place, before
    the gradient is stretched. Every element that went into a result receives that result's gradient. Stretching need
    not copy: for an array `xp(grad).broadcast_to(grad, full)`, for a Tensor, which `grad` is where this is itself
    differentiated, `shape.expand(grad, full)`; both have `reshape`. In this file `sum`, `max` and `all` are the
    operations defined below, not Python's.
    """
    if not keepdim:
        grad = grad.reshape(tuple(1 if i in dims else n for i, n in enumerate(full)))
    return shape.expand(grad, full) if isinstance(grad, Tensor) else xp(grad).broadcast_to(grad, full)


def _wide(dtype: Any) -> Any:
    """The dtype to add up in: the short floating dtypes would lose what is small beside the sum."""
    return dtypes.float32 if dtype in (dtypes.float16, dtypes.bfloat16) else dtype


def _widely(operation: Callable[..., Tensor], input: Tensor, *args: Any) -> Tensor:
    """`operation` carried out in float32 on float16 and bfloat16, and rounded once at the end."""
    wide = _wide(input.array.dtype)
    if wide == input.array.dtype:
        return operation(input, *args)
    return cast(operation(cast(input, wide), *args), input.array.dtype)


def _total(x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    """x.sum(…) on an array; called so, NumPy's warnings about infinities come from here, where they are silenced."""
    return xp(x).add.reduce(x, axis=dims, dtype=_wide(x.dtype), keepdims=keepdim)


class Sum(Function):
    """The sum over dimensions"""

    twice = True

    def __init__(self, dims: tuple[int, ...], keepdim: bool):
        self.dims, self.keepdim = dims, keepdim

    def forward(self, x):
        self.full = x.shape
        return _total(x, self.dims, self.keepdim).astype(x.dtype, copy=False)

    def backward(self, grad):
        """The gradient for x in its shape, `self.full`, from `grad`, that of the sum."""
        return _expand(grad, self.dims, self.keepdim, self.full)


class Mean(Function):
    """The mean over dimensions: each of the n elements has slope 1/n"""

    twice = True

    def __init__(self, dims: tuple[int, ...], keepdim: bool):
        self.dims, self.keepdim = dims, keepdim

    def forward(self, x):
        self.full = x.shape
        self.n = math.prod(x.shape[d] for d in self.dims)
        total = _total(x, self.dims, self.keepdim)
        return (total / self.n if self.n else total * math.nan).astype(x.dtype, copy=False)

    def backward(self, grad):
        """The gradient for x in its shape, `self.full`, from `grad`, that of the mean.

        `self.n` is how many elements each result is the mean of; where it is 0, x is empty, and so is its gradient.
        """
        return _expand(grad * (1 / self.n) if self.n else grad, self.dims, self.keepdim, self.full)


class Prod(Function):
    """The product over dimensions; the slope of an element is the product of those before and after it"""

    def __init__(self, dims: tuple[int, ...], keepdim: bool):
        self.dims, self.keepdim = dims, keepdim

    def forward(self, x):
        self.saved = (x,)
        return x.prod(axis=self.dims, keepdims=self.keepdim, dtype=_wide(x.dtype)).astype(x.dtype, copy=False)

    def backward(self, grad):
        (x,) = self.saved
        module = xp(x)
        # every dimension of the product as one, at the end
        kept = [d for d in range(x.ndim) if d not in self.dims]
        moved = x.transpose(*kept, *self.dims)
        flat = moved.reshape(*moved.shape[: len(kept)], math.prod(moved.shape[len(kept) :]))
        ones = module.ones_like(flat[..., :1])
        before = module.concatenate([ones, flat[..., :-1]], axis=-1).cumprod(axis=-1)
        after = module.concatenate([ones, flat[..., :0:-1]], axis=-1).cumprod(axis=-1)[..., ::-1]
        order = [*kept, *self.dims]
        slope = (before * after).reshape(moved.shape).transpose(*[order.index(d) for d in range(x.ndim)])
        return slope * _expand(grad, self.dims, self.keepdim, x.shape)


class Extreme(Function):
    """max or min over dimensions; elements that tie share the gradient"""

    def __init__(self, function: str, dims: tuple[int, ...], keepdim: bool):
        self.function, self.dims, self.keepdim = function, dims, keepdim

    def forward(self, x):
        out = getattr(x, self.function)(axis=self.dims, keepdims=self.keepdim)
        self.saved = (x, out)
        return out

    def backward(self, grad):
        x, out = self.saved
        chosen = x == _expand(out, self.dims, self.keepdim, x.shape)
        share = chosen / chosen.sum(axis=self.dims, keepdims=True)
        return _expand(grad, self.dims, self.keepdim, x.shape) * share.astype(x.dtype)

    @property
    def name(self) -> str:
        return self.function.capitalize()


class LogSumExp(Function):
    """log Σ eˣ, with the maximum taken out first so that nothing overflows; the slopes are the softmax"""

    twice = True

    def __init__(self, dims: tuple[int, ...], keepdim: bool):
        self.dims, self.keepdim = dims, keepdim

    def forward(self, x):
        module = xp(x)
        top = x.max(axis=self.dims, keepdims=True) if x.size else module.zeros((), x.dtype)
        top = module.where(module.isfinite(top), top, 0).astype(x.dtype)
        total = module.log(module.exp(x - top).sum(axis=self.dims, keepdims=True)) + top
        out = total if self.keepdim else total.squeeze(self.dims)
        self.saved = (x, out)
        return out

    def backward(self, grad):
        x, out = self.saved
        shifted = x - _expand(out, self.dims, self.keepdim, x.shape)
        share = elementwise.exp(shifted) if isinstance(x, Tensor) else xp(x).exp(shifted)
        return _expand(grad, self.dims, self.keepdim, x.shape) * share


class CumSum(Function):
    """Running sums along a dimension"""

    twice = True

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, x):
        return x.cumsum(axis=self.dim, dtype=_wide(x.dtype)).astype(x.dtype, copy=False) if x.ndim else x.copy()

    def backward(self, grad):
        if not len(grad.shape):
            return grad
        if isinstance(grad, Tensor):
            return shape.flip(cumsum(shape.flip(grad, self.dim), self.dim), self.dim)
        return xp(grad).flip(xp(grad).flip(grad, self.dim).cumsum(axis=self.dim), self.dim)


def _widened(input: Tensor, dtype: Any) -> Tensor:
    """Sums and products of integers and booleans are int64 unless `dtype` says otherwise."""
    if dtype is not None:
        return cast(input, dtype)
    return input if dtypes.is_floating(input.array.dtype) else cast(input, dtypes.int64)


@numpy_names
@follows_autocast
def sum(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over `dim` (all dimensions for None).

    >>> import shared
    >>> shared.sum(shared.tensor([[1., 2.], [3., 4.]]), dim=0)
    tensor([4., 6.])
    """
    input = _widened(input, dtype)
    return Sum(normalize_dims(dim, input.array.ndim), keepdim)(input)


@numpy_names
@follows_autocast
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over `dim` (all dimensions for None)."""
    input = _widened(input, dtype)
    return Prod(normalize_dims(dim, input.array.ndim), keepdim)(input)


def count(input: Tensor, dims: tuple[int, ...]) -> int:
    """How many elements each result of a reduction over `dims` is made of."""
    return math.prod(input.array.shape[d] for d in dims)


@numpy_names
def mean(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over `dim`; NaN over no elements. Integer input needs `dtype`."""
    input = input if dtype is None else cast(input, dtype)
    if not dtypes.is_floating(input.array.dtype):
        raise RuntimeError(
            f"mean(): could not infer output dtype. Input dtype must be a floating point dtype. Got: "
            f"{input.array.dtype.name}; convert with .float() first"
        )
    return Mean(normalize_dims(dim, input.array.ndim), keepdim)(input)


@numpy_names
def var(
    input: Tensor, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None
) -> Tensor:
    """The variance over `dim`: squared deviations summed, divided by n − correction (1 unless unbiased=False).

    >>> import shared
    >>> shared.tensor([1.0, 2.0, 6.0]).var()
    tensor(7.)
    """
    if not dtypes.is_floating(input.array.dtype):
        raise RuntimeError(f"var and std: expected a floating point tensor, but got {input.array.dtype.name}")
    if correction is None:
        correction = 1 if unbiased else 0
    return _widely(Var(normalize_dims(dim, input.array.ndim), keepdim, correction), input)


class Var(Function):
    """Σ (x − mean)² / (n − correction); the mean's own slope cancels"""

    twice = True

    def __init__(self, dims: tuple[int, ...], keepdim: bool, correction: int):
        self.dims, self.keepdim, self.correction = dims, keepdim, correction

    def forward(self, x):
        self.saved = (x,)
        self.full = x.shape
        n = math.prod(x.shape[d] for d in self.dims)
        self.freedom = float(n - self.correction if n > self.correction else 0)
        deviation = x - x.mean(axis=self.dims, keepdims=True)
        return (deviation * deviation).sum(axis=self.dims, keepdims=self.keepdim) / self.freedom

    def backward(self, grad):
        (x,) = self.saved
        deviation = x - x.mean(axis=self.dims, keepdims=True)
        return _expand(grad * 2 / self.freedom, self.dims, self.keepdim, self.full) * deviation


class Deviation(Function):
    """√variance; the slope where nothing varies is taken as 0"""

    twice = True

    def forward(self, variance):
        out = xp(variance).sqrt(variance)
        self.saved = (out,)
        return out

    def backward(self, grad):
        (out,) = self.saved
        choose = elementwise.where if isinstance(grad, Tensor) else xp(grad).where
        return choose(out == 0, 0, grad / (2 * choose(out == 0, 1, out)))


@numpy_names
def std(
    input: Tensor, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None
) -> Tensor:
    """The standard deviation over `dim`, the square root of `var`."""
    return Deviation()(var(input, dim, unbiased, keepdim, correction=correction))


def var_mean(
    input: Tensor, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None
) -> tuple[Tensor, Tensor]:
    """(variance, mean) over `dim`."""
    return var(input, dim, unbiased, keepdim, correction=correction), mean(input, dim, keepdim)


def _require_elements(name: str, input: Tensor, dims: tuple[int, ...]) -> None:
    if not count(input, dims) and dims:
        raise IndexError(
            f"{name}(): Expected reduction dim to have non-zero size, but the input has shape "
            f"{tuple(input.array.shape)}"
        )


def _extreme(name: str, function: str, input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    dims = normalize_dims(dim, input.array.ndim)
    _require_elements(name, input, dims)
    return Extreme(function, dims, keepdim)(input)


@numpy_names
def amax(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The maximum over one or several dimensions; ties share the gradient."""
    return _extreme("amax", "max", input, dim, keepdim)


@numpy_names
def amin(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The minimum over one or several dimensions; ties share the gradient."""
    return _extreme("amin", "min", input, dim, keepdim)


def _select(function: str, input: Tensor, dim: int, keepdim: bool) -> ValuesIndices:
    """Value and place of an extremum along one dimension; the gradient goes to that place."""
    dims = normalize_dims(dim, input.array.ndim)
    _require_elements(function, input, dims)
    if not input.array.ndim:
        return ValuesIndices(clone(input), Tensor(xp(input.array).zeros((), dtypes.int64)))
    places = Tensor(getattr(input.array, "arg" + function)(axis=dims[0], keepdims=True))
    values = index.gather(input, dims[0], places)
    if keepdim:
        return ValuesIndices(values, places)
    return ValuesIndices(shape.squeeze(values, dims[0]), shape.squeeze(places, dims[0]))


@numpy_names
def max(input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Any:
    """The largest element; along `dim`, (values, indices); of two tensors, the larger element by element."""
    if isinstance(dim, Tensor):
        return elementwise.maximum(input, dim)
    return _select("max", input, dim, keepdim) if dim is not None else _extreme("max", "max", input, None, False)


@numpy_names
def min(input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Any:
    """The smallest element; along `dim`, (values, indices); of two tensors, the smaller element by element."""
    if isinstance(dim, Tensor):
        return elementwise.minimum(input, dim)
    return _select("min", input, dim, keepdim) if dim is not None else _extreme("min", "min", input, None, False)


@numpy_names
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The place of the largest element (the first of several), int64; into the flattened input for dim=None."""
    _require_elements("argmax", input, normalize_dims(dim, input.array.ndim))
    return Tensor(input.array.argmax(axis=None if not input.array.ndim else dim, keepdims=keepdim))


@numpy_names
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The place of the smallest element (the first of several), int64; into the flattened input for dim=None."""
    _require_elements("argmin", input, normalize_dims(dim, input.array.ndim))
    return Tensor(input.array.argmin(axis=None if not input.array.ndim else dim, keepdims=keepdim))


@numpy_names
def any(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """True where some element along `dim` is nonzero."""
    return Tensor((input.array != 0).any(axis=normalize_dims(dim, input.array.ndim), keepdims=keepdim))


@numpy_names
def all(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """True where every element along `dim` is nonzero."""
    return Tensor((input.array != 0).all(axis=normalize_dims(dim, input.array.ndim), keepdims=keepdim))


def count_nonzero(input: Tensor, dim: Dim = None) -> Tensor:
    """How many elements along `dim` are nonzero, int64."""
    return Tensor((input.array != 0).sum(axis=normalize_dims(dim, input.array.ndim)))


@numpy_names
@follows_autocast
def logsumexp(input: Tensor, dim: Dim, keepdim: bool = False) -> Tensor:
    """log of the sum of exponentials over `dim`, without overflow."""
    input = as_floating(input)
    return LogSumExp(normalize_dims(dim, input.array.ndim), keepdim)(input)


@numpy_names
@follows_autocast
def norm(
    input: Tensor, p: float | str | None = "fro", dim: Dim = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """(Σ |x|ᵖ)^(1/p) over `dim`; p = 2 for 'fro', the extremes of |x| for ±inf, how many are not 0 for 0."""
    input = input if dtype is None else cast(input, dtype)
    if not dtypes.is_floating(input.array.dtype):
        raise RuntimeError(f"norm: expected a floating point tensor, but got {input.array.dtype.name}")
    if p in ("fro", None, 2):
        return _widely(Norm2(normalize_dims(dim, input.array.ndim), keepdim), input)
    if isinstance(p, str):
        raise RuntimeError(f"norm: expected p to be a number or 'fro', but got {p!r}")
    return _widely(_norm, input, p, dim, keepdim)


def _norm(input: Tensor, p: float, dim: Dim, keepdim: bool) -> Tensor:
    size = elementwise.abs_(input)
    if p == math.inf:
        return amax(size, dim, keepdim)
    if p == -math.inf:
        return amin(size, dim, keepdim)
    if p == 0:
        return sum(cast(Tensor(input.array != 0), input.array.dtype), dim, keepdim)
    if p == 1:
        return sum(size, dim, keepdim)
    return arithmetic.pow(sum(arithmetic.pow(size, p), dim, keepdim), 1 / p)


class Norm2(Function):
    """√Σx²; the slope where the norm is 0 is taken as 0"""

    twice = True

    def __init__(self, dims: tuple[int, ...], keepdim: bool):
        self.dims, self.keepdim = dims, keepdim

    def forward(self, x):
        out = xp(x).sqrt((x * x).sum(axis=self.dims, keepdims=self.keepdim))
        self.saved = (x, out)
        return out

    def backward(self, grad):
        x, out = self.saved
        pick = elementwise.where if isinstance(x, Tensor) else xp(x).where
        scale = pick(out == 0, 0, grad / pick(out == 0, 1, out))
        return x * _expand(scale, self.dims, self.keepdim, x.shape)


@numpy_names
@follows_autocast
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running sums along `dim`; same shape."""
    input = _widened(input, dtype)
    return CumSum(normalize_dim(dim, input.array.ndim))(input)


@numpy_names
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median (the lower of two; NaN where there is one); along `dim`, (values, indices)."""
    if dim is None:
        flat = shape.reshape(input, (-1,))
        return median(flat, 0).values
    dim = normalize_dim(dim, input.array.ndim)
    if not input.array.ndim:
        return ValuesIndices(clone(input), Tensor(xp(input.array).zeros((), dtypes.int64)))
    middle = (input.array.shape[dim] - 1) // 2
    missing = isnan(input).array
    order = index.argsort(input, dim).array.take([middle], axis=dim)
    first = missing.argmax(axis=dim, keepdims=True)  # a NaN makes the median NaN
    places = Tensor(xp(order).where(missing.any(axis=dim, keepdims=True), first, order))
    values = index.gather(input, dim, places)
    if keepdim:
        return ValuesIndices(values, places)
    return ValuesIndices(shape.squeeze(values, dim), shape.squeeze(places, dim))
