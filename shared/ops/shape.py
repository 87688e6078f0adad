"""Operations that rearrange: views where memory allows, copies where it does not; joining and splitting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops import index
from shared.ops.operands import clone, normalize_dim, sizes_of
from shared.tensor import Tensor


class Reshape(Function):
    """The same elements in another shape"""

    twice = True
    view = True

    def __init__(self, size: tuple[int, ...]):
        self.size = size

    def forward(self, x):
        self.before = x.shape
        return x.reshape(self.size)

    def backward(self, grad):
        """The gradient for x, in the shape it had; both arrays and Tensors have `reshape`."""
        return grad.reshape(self.before)


class Permute(Function):
    """Dimensions in another order"""

    twice = True
    view = True

    def __init__(self, dims: tuple[int, ...]):
        self.dims = dims

    def forward(self, x):
        return x.transpose(self.dims)

    def backward(self, grad):
        """The gradient for x: `grad` with its dimensions back in the order that x had.

        Dimension i of the result was dimension `self.dims[i]` of x; the dims are in [0, ndim). `permute(grad, dims)`
        puts a Tensor's dimensions in the order `dims` (`grad` is one where this is itself differentiated), and
        `grad.transpose(dims)` an array's.
        """
        inverse = tuple(sorted(range(len(self.dims)), key=self.dims.__getitem__))
        return permute(grad, inverse) if isinstance(grad, Tensor) else grad.transpose(inverse)


class Expand(Function):
    """Dimensions of size 1 repeated without copying; the engine sums the gradient back"""

    twice = True
    view = True

    def __init__(self, size: tuple[int, ...]):
        self.size = size

    def forward(self, x):
        return xp(x).broadcast_to(x, self.size)

    def backward(self, grad):
        return grad


class Contiguous(Function):
    """The same elements in row-major memory"""

    twice = True

    def forward(self, x):
        return x.copy("C")

    def backward(self, grad):
        return grad


class Flip(Function):
    """The order along dimensions reversed, copied"""

    twice = True

    def __init__(self, dims: tuple[int, ...]):
        self.dims = dims

    def forward(self, x):
        return xp(x).flip(x, self.dims).copy()

    def backward(self, grad):
        return Flip(self.dims)(grad) if isinstance(grad, Tensor) else xp(grad).flip(grad, self.dims)


class Roll(Function):
    """Elements shifted along dimensions, those that fall off entering at the other end"""

    twice = True

    def __init__(self, shifts: tuple[int, ...], dims: tuple[int, ...] | None):
        self.shifts, self.dims = shifts, dims

    def forward(self, x):
        return xp(x).roll(x, self.shifts if self.dims is not None else self.shifts[0], self.dims)

    def backward(self, grad):
        back = tuple(-s for s in self.shifts)
        if isinstance(grad, Tensor):
            return Roll(back, self.dims)(grad)
        return xp(grad).roll(grad, back if self.dims is not None else back[0], self.dims)


class Pad(Function):
    """Constant values added at the edges"""

    twice = True

    def __init__(self, widths: tuple[tuple[int, int], ...], value: float):
        self.widths, self.value = widths, value

    def forward(self, x):
        return xp(x).pad(x, self.widths, constant_values=self.value)

    def backward(self, grad):
        return grad[tuple(slice(low, n - high) for (low, high), n in zip(self.widths, grad.shape, strict=True))]


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in `shape`, one size of which may be −1; a view where memory allows.

    >>> import shared
    >>> shared.reshape(shared.arange(6), (2, -1))
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    size = infer_size(sizes_of(shape), input.array.size)
    return Reshape(size)(input)


def infer_size(size: tuple[int, ...], total: int) -> tuple[int, ...]:
    """`size` with its −1 filled in; RuntimeError where `total` elements do not fit."""
    known = math.prod(n for n in size if n != -1)
    if size.count(-1) > 1:
        raise RuntimeError(f"only one dimension can be inferred, but the shape is {list(size)}")
    if any(n < -1 for n in size):
        raise RuntimeError(f"invalid shape dimension in {list(size)}")
    if -1 in size:
        if known == 0:
            raise RuntimeError(
                f"cannot reshape tensor of {total} elements into shape {list(size)}: the size -1 is ambiguous"
            )
        filled = tuple(total // known if n == -1 else n for n in size)
    else:
        filled = size
    if math.prod(filled) != total:
        raise RuntimeError(f"shape '{list(size)}' is invalid for input of size {total}")
    return filled


def view(input: Tensor, *shape: Any) -> Tensor:
    """`reshape` that never copies; RuntimeError where the memory's order does not allow it."""
    size = infer_size(sizes_of(shape), input.array.size)
    out = Reshape(size)(input)
    if out._base is None and input.array.size:
        raise RuntimeError(
            f"view: shape {list(size)} is not compatible with the input's size {list(input.array.shape)} and stride "
            f"{list(input.stride())} (at least one dimension spans two subspaces). Use .reshape(...) instead"
        )
    return out


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions start_dim … end_dim joined into one."""
    ndim = input.array.ndim
    start, end = normalize_dim(start_dim, ndim), normalize_dim(end_dim, ndim)
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    size = input.array.shape
    return reshape(input, (*size[:start], math.prod(size[start : end + 1]), *size[end + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension; a view where memory allows."""
    return reshape(input, -1)


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Dimension `dim` split into `sizes`, one of which may be −1."""
    dim = normalize_dim(dim, input.array.ndim)
    size = input.array.shape
    try:
        inner = infer_size(tuple(sizes), size[dim])
    except RuntimeError as error:
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {dim} ({size[dim]})"
        ) from error
    return reshape(input, (*size[:dim], *inner, *size[dim + 1 :]))


def permute(input: Tensor, *dims: Any) -> Tensor:
    """The dimensions in the order `dims`; a view."""
    order = sizes_of(dims)
    ndim = input.array.ndim
    if len(order) != ndim:
        raise RuntimeError(f"permute: the tensor has {ndim} dimensions, but {len(order)} were given: {list(order)}")
    order = tuple(normalize_dim(d, ndim) for d in order)
    if len(set(order)) != ndim:
        raise RuntimeError(f"permute: duplicate dims are not allowed: {list(order)}")
    return Permute(order)(input)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged; a view."""
    ndim = input.array.ndim
    dim0, dim1 = normalize_dim(dim0, ndim), normalize_dim(dim1, ndim)
    order = list(range(ndim))
    if ndim:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return Permute(tuple(order))(input)


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; a vector as it is."""
    if input.array.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.array.ndim}D")
    return Permute(tuple(range(input.array.ndim))[::-1])(input)


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dimensions moved from `source` to `destination`, the others in their order; a view."""
    ndim = input.array.ndim
    sources = [normalize_dim(d, ndim) for d in ([source] if isinstance(source, int) else source)]
    targets = [normalize_dim(d, ndim) for d in ([destination] if isinstance(destination, int) else destination)]
    if len(sources) != len(targets):
        raise RuntimeError(f"movedim: got {len(sources)} source and {len(targets)} destination dims")
    order = [d for d in range(ndim) if d not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return permute(input, order)


def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without dimensions of size 1 (all of them, or those in `dim` that have size 1); a view."""
    ndim = input.array.ndim
    if dim is None:
        chosen = set(range(ndim))
    else:
        chosen = {normalize_dim(d, ndim) for d in ([dim] if isinstance(dim, int) else dim)}
    return Reshape(tuple(n for i, n in enumerate(input.array.shape) if i not in chosen or n != 1))(input)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A dimension of size 1 put in at `dim`; a view."""
    dim = normalize_dim(dim, input.array.ndim + 1)
    size = input.array.shape
    return Reshape((*size[:dim], 1, *size[dim:]))(input)


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Dimensions of size 1 repeated up to `sizes` without copying (−1: as it is); new ones in front."""
    wanted = sizes_of(sizes)
    size = input.array.shape
    extra = len(wanted) - len(size)
    if extra < 0:
        raise RuntimeError(
            f"expand: the number of sizes ({len(wanted)}) is below the tensor's dimensions ({len(size)})"
        )
    if -1 in wanted[:extra]:
        raise RuntimeError(f"expand: -1 is not allowed for a new, leading dimension: {list(wanted)}")
    full = wanted[:extra] + tuple(m if n == -1 else n for n, m in zip(wanted[extra:], size, strict=True))
    for i, (n, m) in enumerate(zip(full[extra:], size, strict=True)):
        if m not in (1, n):
            raise RuntimeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({m}) at non-singleton dimension "
                f"{i + extra}.  Target sizes: {list(wanted)}.  Tensor sizes: {list(size)}"
            )
    return Expand(full)(input)


def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """`expand` under NumPy's name."""
    return expand(input, shape)


def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """The tensor laid side by side, `repeats[i]` times along dimension i; copied."""
    times = sizes_of(repeats)
    size = input.array.shape
    if len(times) < len(size):
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor: "
            f"{len(times)} and {len(size)}"
        )
    size = (1,) * (len(times) - len(size)) + size
    paired = Reshape(tuple(n for m in size for n in (1, m)))(input)
    stretched = Expand(tuple(n for r, m in zip(times, size, strict=True) for n in (r, m)))(paired)
    return reshape(clone_if_view(stretched), tuple(r * m for r, m in zip(times, size, strict=True)))


def clone_if_view(x: Tensor) -> Tensor:
    """`x` in memory of its own."""
    return clone(x) if x._base is not None else x


def tile(input: Tensor, *dims: Any) -> Tensor:
    """`repeat`, with missing leading counts taken as 1."""
    times = sizes_of(dims)
    return repeat(input, (1,) * (input.array.ndim - len(times)) + times)


def repeat_interleave(input: Tensor, repeats: int, dim: int | None = None) -> Tensor:
    """Each element repeated `repeats` times in a row along `dim` (of the flattened input for None)."""
    if dim is None:
        input, dim = reshape(input, -1), 0
    dim = normalize_dim(dim, input.array.ndim)
    size = input.array.shape
    wide = expand(unsqueeze(input, dim + 1), (*size[: dim + 1], repeats, *size[dim + 1 :]))
    return reshape(wide, (*size[:dim], size[dim] * repeats, *size[dim + 1 :]))


def contiguous(input: Tensor) -> Tensor:
    """The tensor in row-major memory; itself where it already is."""
    return input if input.array.flags.c_contiguous else Contiguous()(input)


def flip(input: Tensor, dims: int | Sequence[int]) -> Tensor:
    """The order along `dims` reversed; copied."""
    ndim = input.array.ndim
    return Flip(tuple(normalize_dim(d, ndim) for d in ([dims] if isinstance(dims, int) else dims)))(input)


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Elements shifted, those that fall off entering at the other end; over the flattened input for dims=None."""
    given = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if dims is None:
        return Roll(given, None)(input)
    along = tuple(normalize_dim(d, input.array.ndim) for d in ((dims,) if isinstance(dims, int) else dims))
    if len(along) != len(given):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(given)}, dims: {len(along)}")
    return Roll(given, along)(input)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Values added at the edges: `pad` = (left, right) of the last dimension, then of the one before, …

    Negative widths cut. mode: 'constant' (`value`, 0 by default), 'reflect', 'replicate', 'circular'.
    """
    widths = list(pad)
    ndim = input.array.ndim
    if len(widths) % 2 or len(widths) > 2 * ndim:
        raise RuntimeError(
            f"pad: expected an even number of at most {2 * ndim} widths for a tensor of {ndim} dimensions, "
            f"but got {widths}"
        )
    pairs = [(0, 0)] * (ndim - len(widths) // 2) + [(widths[i], widths[i + 1]) for i in range(len(widths) - 2, -1, -2)]
    cut = tuple(slice(max(-low, 0), n - max(-high, 0)) for (low, high), n in zip(pairs, input.array.shape, strict=True))
    if any(low < 0 or high < 0 for low, high in pairs):
        input = index.getitem(input, cut)
    pairs = [(max(low, 0), max(high, 0)) for low, high in pairs]
    if mode == "constant":
        return Pad(tuple(pairs), 0 if value is None else value)(input)
    modes = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in modes:
        raise NotImplementedError(f"pad: unknown mode {mode!r}; expected constant, reflect, replicate or circular")
    for dim, (low, high) in enumerate(pairs):
        if low or high:
            n = input.array.shape[dim]
            if mode != "replicate" and max(low, high) > n - (mode == "reflect"):
                raise RuntimeError(
                    f"pad: width {max(low, high)} is too large for mode {mode!r} and size {n} of dim {dim}"
                )
            positions = xp(input.array).pad(xp(input.array).arange(n), (low, high), mode=modes[mode])
            input = index.index_select(input, dim, Tensor(positions))
    return input
