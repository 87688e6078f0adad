"""Reading and writing by position: slices, masks, gather and scatter, sorting."""

from __future__ import annotations

import operator
from collections import namedtuple
from typing import Any

import numpy as np

from shared import autograd
from shared.arrays import dtypes
from shared.arrays.device import is_gpu_array, xp
from shared.autograd import Function
from shared.ops import inplace
from shared.ops.autocast import follows_autocast
from shared.ops.operands import as_operand, cast, normalize_dim, promote, raw
from shared.tensor import Tensor

TopK = namedtuple("TopK", ["values", "indices"])
Sorted = namedtuple("Sorted", ["values", "indices"])


# ---------------------------------------------------------------- x[…] and x[…] = …


def _part(item: Any) -> Any:
    """One part of an index, as NumPy takes it."""
    if isinstance(item, slice):
        if item.step is not None and int(item.step) <= 0:
            raise ValueError("step must be greater than zero; use flip() for a reversed order")
        try:
            return slice(*[None if v is None else operator.index(v) for v in (item.start, item.stop, item.step)])
        except TypeError:
            raise TypeError(f"slice indices must be integers or None or have an __index__ method: {item}") from None
    if item is None or item is Ellipsis or isinstance(item, (bool, int)):
        return item
    array = item.array if isinstance(item, Tensor) else item if is_gpu_array(item) else np.asarray(item)
    if array.size == 0 and not isinstance(item, (Tensor, np.ndarray)):
        array = array.astype(dtypes.int64)
    if array.dtype == dtypes.uint8:
        return array.astype(dtypes.bool_)  # PyTorch's masks from before it had booleans
    if array.dtype not in (dtypes.int64, dtypes.int32, dtypes.bool_):
        raise IndexError(f"tensors used as indices must be long, int, byte or bool tensors, but got {array.dtype.name}")
    return array if array.ndim or array.dtype == dtypes.bool_ else int(array)


def as_index(index: Any) -> tuple:
    """The index as ints, slices, None, Ellipsis and arrays; IndexError for floats, ValueError for steps < 1."""
    parts = index if isinstance(index, tuple) else (index,)
    found = tuple([_part(item) for item in parts])
    # The ellipsis makes NumPy give a view also where ints leave no dimension, and not a bare number.
    return (*found, Ellipsis) if is_basic(found) and Ellipsis not in found else found


def is_basic(index: tuple) -> bool:
    """True where the index has no arrays, so that the result is a view."""
    return all(
        isinstance(p, slice) or p is None or p is Ellipsis or (isinstance(p, int) and not isinstance(p, bool))
        for p in index
    )


def steps_of(index: tuple) -> list[tuple]:
    """The index as NumPy indices to apply one after the other: two where ints stand beside arrays.

    PyTorch takes ints (and slices and None) first; NumPy would make them arrays and put their dimensions elsewhere.
    """
    if is_basic(index) or not any(type(part) is int for part in index):
        return [index]
    first: list[Any] = []
    then: list[Any] = []
    for part in index:
        if part is None or isinstance(part, slice) or part is Ellipsis:
            first.append(part)
            then.append(Ellipsis if part is Ellipsis else slice(None))
        elif type(part) is int:
            first.append(part)
        else:
            consumed = 0 if isinstance(part, bool) else part.ndim if part.dtype == dtypes.bool_ else 1
            first += [slice(None)] * consumed
            then.append(part)
    return [tuple(first), tuple(then)]


def _own(index: tuple) -> tuple:
    """The index with arrays of its own, which nobody can change before backward reads them."""
    return tuple([part.copy() if hasattr(part, "copy") else part for part in index])


def _explain(error: IndexError, size: tuple[int, ...]) -> IndexError:
    return IndexError(f"{str(error).replace('axis', 'dimension')} (the tensor has shape {tuple(size)})")


class GetItem(Function):
    """x[index]"""

    twice = True

    def __init__(self, index: tuple):
        self.index = index
        self.view = self.basic = is_basic(index)

    def forward(self, x):
        self.size = x.shape
        if self.needs[0] and not self.basic:
            self.index = _own(self.index)
        return x[self.index]

    def backward(self, grad):
        if isinstance(grad, Tensor):
            return PutItem(self.size, self.index, self.basic)(grad)
        return put_item(grad, self.size, self.index, self.basic)


def put_item(grad: Any, size: tuple[int, ...], index: tuple, basic: bool) -> Any:
    """The gradient of x[index] for x: zeros of shape `size` with the array `grad` added at `index`.

    `index` is what NumPy takes: ints, slices, None, Ellipsis (then `basic` is True: each position occurs at most
    once), or with arrays of integers or booleans among them. An integer may occur several times, and its position
    receives the sum. The result has the dtype of `grad` and is on its device: `xp(grad)` is the module, NumPy or
    CuPy, whose `add.at` adds at every occurrence, where `out[index] += grad` adds once.

    >>> put_item(np.array([1.0, 2.0, 4.0]), (3,), (np.array([0, 2, 0]),), basic=False)
    array([5., 0., 2.])
    """
    module = xp(grad)
    out = module.zeros(size, grad.dtype)
    if basic or all(getattr(p, "dtype", None) == dtypes.bool_ or isinstance(p, slice) for p in index):
        out[index] = grad  # every position at most once
    else:
        module.add.at(out, index, grad)
    return out


class PutItem(Function):
    """The gradient of x[index], as an operation of its own"""

    twice = True

    def __init__(self, size: tuple[int, ...], index: tuple, basic: bool):
        self.size, self.index, self.basic = size, index, basic

    def forward(self, grad):
        return put_item(grad, self.size, self.index, self.basic)

    def backward(self, grad):
        return grad[self.index]


class SetItem(Function):
    """A copy of x with x[index] = value"""

    twice = True

    def __init__(self, steps: list[tuple]):
        self.steps = [_own(step) for step in steps]

    def forward(self, x, value):
        out = x.copy()
        write(out, self.steps, value)
        return out

    def backward(self, grad):
        to_x = to_value = None
        if self.needs[1]:
            to_value = grad
            for step in self.steps:
                to_value = to_value[step]
        if self.needs[0]:
            to_x = grad.clone() if isinstance(grad, Tensor) else grad.copy()
            if isinstance(grad, Tensor):
                to_x = SetItem(self.steps)(to_x, 0)
            else:
                write(to_x, self.steps, 0)
        return to_x, to_value


def write(array: Any, steps: list[tuple], value: Any) -> None:
    """array[step][step] = value on a raw array."""
    for step in steps[:-1]:
        array = array[step]
    array[steps[-1]] = value


def getitem(input: Tensor, index: Any) -> Tensor:
    """input[index]: ints, slices, None, Ellipsis give a view; masks and integer arrays a copy."""
    try:
        for step in steps_of(as_index(index)):
            input = GetItem(step)(input)
    except IndexError as error:
        raise _explain(error, input.array.shape) from error
    return input


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """input[index] = value, in place; `value` is broadcast."""
    steps = steps_of(as_index(index))
    value = as_operand(value)
    if isinstance(value, Tensor) and value.array.dtype != input.array.dtype:
        value = cast(value, input.array.dtype)
    recorded = autograd.is_grad_enabled() and (
        input._requires_grad or (isinstance(value, Tensor) and value._requires_grad)
    )
    try:
        if recorded:
            inplace.assign(input, SetItem(steps)(input, value))
        else:
            inplace.require_writable(input)
            write(input.array, steps, raw(value))
            input._version[0] += 1
    except IndexError as error:
        raise _explain(error, input.array.shape) from error
    except ValueError as error:
        raise RuntimeError(f"shape mismatch in assignment to shape {tuple(input.array.shape)}: {error}") from error


# ---------------------------------------------------------------- gather and scatter


def _along(dim: int, places: Any) -> tuple:
    """The index that reads `places` along `dim` and each other dimension at its own position."""
    module = xp(places)
    grid = module.ogrid[tuple(slice(n) for n in places.shape)] if places.ndim else ()
    return tuple(places if d == dim else g for d, g in enumerate(grid))


def _checked_places(name: str, input: Tensor, dim: int, index: Tensor, source: Any = None) -> tuple[int, tuple]:
    """The dimension and NumPy index of gather/scatter, after checking dtype, shape and range."""
    if index.array.dtype not in (dtypes.int64, dtypes.int32):
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index, but got {index.array.dtype.name}")
    size, places = input.array.shape, index.array
    dim = normalize_dim(dim, len(size))
    if not size:
        size, places = (1,), places.reshape(-1)
    if places.ndim != len(size):
        raise RuntimeError(
            f"{name}(): index must have the same number of dimensions as input: {places.ndim} and {len(size)}"
        )
    if any(n > m for d, (n, m) in enumerate(zip(places.shape, size, strict=True)) if d != dim):
        raise RuntimeError(
            f"{name}(): index of shape {list(places.shape)} is larger than input of shape {list(size)} apart "
            f"from dimension {dim}"
        )
    if source is not None and any(n > m for n, m in zip(places.shape, source.shape, strict=False)):
        raise RuntimeError(
            f"{name}(): index of shape {list(places.shape)} is larger than src of shape {list(source.shape)}"
        )
    if places.size and (int(places.min()) < 0 or int(places.max()) >= size[dim]):
        wrong = int(places.min()) if int(places.min()) < 0 else int(places.max())
        raise IndexError(f"{name}(): index {wrong} is out of bounds for dimension {dim} with size {size[dim]}")
    return dim, _along(dim, places)


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """out[i][j] = input[index[i][j]][j] for dim=0: values picked along `dim`; the shape of `index` (int64).

    >>> import shared
    >>> shared.gather(shared.tensor([[1., 2.], [3., 4.]]), 1, shared.tensor([[0], [1]]))
    tensor([[1.],
            [4.]])
    """
    _, where = _checked_places("gather", input, dim, index)
    if not input.array.ndim:
        return GetItem((where[0].reshape(index.array.shape),))(input.reshape(1))
    return GetItem(where)(input)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with the other dimensions broadcast; of the flattened input for dim=None."""
    if dim is None:
        return gather(input.reshape(-1), 0, indices.reshape(-1))
    dim = normalize_dim(dim, input.array.ndim)
    full = np.broadcast_shapes(
        *[tuple(1 if d == dim else n for d, n in enumerate(x.array.shape)) for x in (input, indices)]
    )
    wide = [x.expand(tuple(x.array.shape[d] if d == dim else n for d, n in enumerate(full))) for x in (input, indices)]
    return gather(wide[0], dim, wide[1])


class Scatter(Function):
    """A copy of x with values written (or added) at an index"""

    def __init__(self, where: tuple, add: bool):
        self.where, self.add = where, add

    def forward(self, x, source):
        if True in self.needs:
            self.where = _own(self.where)
        out = x.copy()
        if self.add:
            xp(x).add.at(out, self.where, source)
        else:
            out[self.where] = source
        return out

    def backward(self, grad):
        to_source = grad[self.where] if self.needs[1] else None
        if self.needs[0] and not self.add:
            grad = grad.copy()
            grad[self.where] = 0
        return grad, to_source


def _scatter(name: str, input: Tensor, dim: int, index: Tensor, src: Any, add: bool) -> Tensor:
    src = as_operand(src)
    dim, where = _checked_places(name, input, dim, index, src.array if isinstance(src, Tensor) else None)
    if isinstance(src, Tensor):
        if src.array.dtype != input.array.dtype:
            raise RuntimeError(
                f"{name}(): Expected self.dtype to be equal to src.dtype: {input.array.dtype.name} and "
                f"{src.array.dtype.name}"
            )
        src = getitem(src, tuple(slice(n) for n in index.array.shape))
    return Scatter(where, add)(input, src)


def scatter(input: Tensor, dim: int, index: Tensor, src: Any, *, reduce: str | None = None) -> Tensor:
    """A copy of input with out[index[i][j]][j] = src[i][j] for dim=0; src a tensor or a number."""
    if reduce not in (None, "add"):
        raise RuntimeError(f"scatter(): reduce argument must be None or 'add', but got {reduce!r}")
    return _scatter("scatter", input, dim, index, src, add=reduce == "add")


@follows_autocast
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy of input with src[i][j] added to out[index[i][j]][j] for dim=0; positions may repeat."""
    return _scatter("scatter_add", input, dim, index, src, add=True)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of input at the positions `index` (one-dimensional, integer) along `dim`."""
    if index.array.ndim > 1:
        raise IndexError(f"index_select(): Index is supposed to be a vector, but it has {index.array.ndim} dimensions")
    dim = normalize_dim(dim, input.array.ndim)
    return getitem(input, (slice(None),) * dim + (index.reshape(-1),))


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """A copy of input with slice i of `source` (times alpha) added at position index[i] along `dim`."""
    dim = normalize_dim(dim, input.array.ndim)
    if index.array.ndim > 1 or index.array.size != (source.array.shape[dim] if source.array.ndim else 1):
        raise RuntimeError(
            f"index_add_(): Number of indices ({index.array.size}) should be equal to source.size(dim) "
            f"({source.array.shape[dim] if source.array.ndim else 1})"
        )
    where = (slice(None),) * dim + (index.array.reshape(-1),)
    return Scatter(where, add=True)(input, source if alpha == 1 else source * alpha)


# ---------------------------------------------------------------- masks


class MaskedFill(Function):
    """A copy of x with a number where the mask is True"""

    def forward(self, x, mask, value):
        self.saved = (mask,)
        return xp(x).where(mask, value, x).astype(x.dtype, copy=False)

    def backward(self, grad):
        (mask,) = self.saved
        pick = xp(grad).where
        to_value = pick(mask, grad, 0).sum() if self.needs[2] else None
        return pick(mask, 0, grad) if self.needs[0] else None, None, to_value


def _require_mask(name: str, mask: Tensor) -> None:
    if mask.array.dtype != dtypes.bool_:
        raise RuntimeError(f"{name} only supports boolean masks, but got mask with dtype {mask.array.dtype.name}")


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A copy of input with `value` (a number or a zero-dimensional tensor) where the mask, broadcast, is True."""
    _require_mask("masked_fill", mask)
    if isinstance(value, Tensor) and value.array.ndim:
        raise RuntimeError(
            f"masked_fill only supports a 0-dimensional value tensor, but got tensor with "
            f"{value.array.ndim} dimension(s)"
        )
    return MaskedFill()(input, mask, as_operand(value))


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the boolean mask, broadcast, is True; one-dimensional."""
    _require_mask("masked_select", mask)
    size = np.broadcast_shapes(input.array.shape, mask.array.shape)
    return getitem(input.expand(size), (xp(mask.array).broadcast_to(mask.array, size),))


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices of nonzero elements, int64: a row each (n, ndim), or with as_tuple one vector per dimension."""
    if not input.array.ndim:
        found = (input.array.reshape(1).nonzero()[0],)
        return (Tensor(found[0]),) if as_tuple else Tensor(xp(input.array).empty((len(found[0]), 0), dtypes.int64))
    found = input.array.nonzero()
    return tuple(Tensor(a) for a in found) if as_tuple else Tensor(xp(input.array).stack(found, axis=1))


# ---------------------------------------------------------------- order (indices carry no gradient, values do)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort along `dim`, int64; equal elements stay in order. NaN counts as largest."""
    if not input.array.ndim:
        return Tensor(xp(input.array).zeros((), dtypes.int64))
    dim = normalize_dim(dim, input.array.ndim)
    array, module = input.array, xp(input.array)
    if array.dtype == dtypes.bfloat16:
        array = array.astype(dtypes.float32)  # which knows that NaN comes last
    if not descending:
        return Tensor(module.argsort(array, axis=dim, kind="stable"))
    # sorting the reversed array and reversing the result keeps equal elements in order
    order = module.flip(module.argsort(module.flip(array, dim), axis=dim, kind="stable"), dim)
    return Tensor(array.shape[dim] - 1 - order)


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Sorted:
    """(values, indices), sorted along `dim`."""
    order = argsort(input, dim, descending, stable)
    return Sorted(gather(input, dim, order), order)


FEW = 256  # elements that are sorted sooner than searched


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> TopK:
    """The k largest (or smallest) elements along `dim`: (values, indices), the most extreme first."""
    dim = normalize_dim(dim, input.array.ndim)
    n = input.array.shape[dim] if input.array.ndim else 1
    if not 0 <= k <= n:
        raise RuntimeError(f"selected index k out of range: k={k}, but dimension {dim} has size {n}")
    if not input.array.ndim:
        return TopK(input.clone(), Tensor(xp(input.array).zeros((), dtypes.int64)))
    if xp(input.array) is np and 0 < k < n and n >= FEW:
        best = Tensor(_few_of_many(input.array, k, dim, largest))
    else:
        order = argsort(input, dim, descending=largest)
        best = Tensor(order.array[(slice(None),) * dim + (slice(k),)].copy())
    return TopK(gather(input, dim, best), best)


def _few_of_many(array: Any, k: int, dim: int, largest: bool) -> np.ndarray:
    """The first k indices of `argsort`, of which only what is as extreme as the k-th is sorted; NaN is the largest."""
    lines = np.moveaxis(array.astype(dtypes.float32) if array.dtype == dtypes.bfloat16 else array, dim, -1)
    best = np.empty((*lines.shape[:-1], k), dtypes.int64)
    for at in np.ndindex(lines.shape[:-1]):
        line = lines[at]
        last = line.min() if largest else line.max()
        inside = line[line > last if largest else line < last]  # partition is slow on many equals, as −inf often are
        if k <= len(inside):
            place = len(inside) - k if largest else k - 1
            last = np.partition(inside, place)[place]
        (found,) = (~(line < last if largest else line > last)).nonzero()
        best[at] = found[argsort(Tensor(line[found]), 0, descending=largest).array[:k]]
    return np.ascontiguousarray(np.moveaxis(best, -1, dim))


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Any:
    """The distinct elements in rising order; on request the index of each element's value, and the counts."""
    wide = input.array.astype(dtypes.float32) if input.array.dtype == dtypes.bfloat16 else input.array
    found = xp(wide).unique(wide, return_inverse=return_inverse, return_counts=return_counts, equal_nan=False)
    if not (return_inverse or return_counts):
        return Tensor(found.astype(input.array.dtype, copy=False))
    parts = [Tensor(found[0].astype(input.array.dtype, copy=False)), *[Tensor(a) for a in found[1:]]]
    if return_inverse:
        parts[1] = parts[1].reshape(input.array.shape)
    return tuple(parts)


def searchsorted(sorted_sequence: Tensor, values: Any, *, right: bool = False, side: str | None = None) -> Tensor:
    """Where `values` would go in the sorted sequence (last dimension), int64; before equal elements unless `right`."""
    side = side or ("right" if right else "left")
    if side not in ("left", "right"):
        raise RuntimeError(f"searchsorted(): side can only be 'left' or 'right' but got {side!r}")
    rows, wanted = sorted_sequence.array, raw(as_operand(values))
    module = xp(rows)
    if rows.ndim == 1:
        return Tensor(module.asarray(module.searchsorted(rows, wanted, side=side), dtype=dtypes.int64))
    if getattr(wanted, "shape", ())[:-1] != rows.shape[:-1]:
        raise RuntimeError(
            f"searchsorted(): the leading dimensions must match: sequence {list(rows.shape)}, values "
            f"{list(getattr(wanted, 'shape', ()))}"
        )
    flat = zip(rows.reshape(-1, rows.shape[-1]), wanted.reshape(-1, wanted.shape[-1]), strict=True)
    found = [module.searchsorted(row, value, side=side) for row, value in flat]
    return Tensor(module.stack(found).reshape(wanted.shape).astype(dtypes.int64))


def bucketize(input: Tensor, boundaries: Tensor, *, right: bool = False) -> Tensor:
    """The bucket each element falls into: `searchsorted` with the arguments exchanged."""
    return searchsorted(boundaries, input, right=right)


def isin(elements: Tensor, test_elements: Tensor) -> Tensor:
    """True where the element is one of `test_elements`."""
    a, b = promote(elements, test_elements)
    return Tensor(xp(a.array).isin(a.array, b.array))
