"""Floor 1: the Tensor, an array that remembers how it was computed.

Each method is one line that calls an operation of `shared.ops`, where the full docstring is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shared import autograd, printing
from shared.arrays import device as devices
from shared.arrays import dtypes
from shared.arrays.device import Device, xp
from shared.autograd import Function

Dim = int | Sequence[int] | None
Number = float
Flag = bool


def numpy_names(function: Callable) -> Callable:
    """Lets `function` be called with NumPy's names too, as PyTorch does: `axis` for `dim`, `keepdims` for `keepdim`."""

    @functools.wraps(function)
    def named(*args: Any, **options: Any) -> Any:
        if "axis" in options:
            options["dim"] = options.pop("axis")
        if "keepdims" in options:
            options["keepdim"] = options.pop("keepdims")
        return function(*args, **options)

    return named


class Size(tuple):
    """A shape: a tuple of ints that prints as PyTorch's does and counts its elements.

    >>> Size((2, 3)), Size((2, 3)).numel()
    (Size([2, 3]), 6)
    """

    def numel(self) -> int:
        return math.prod(self)

    def __repr__(self) -> str:
        return f"Size({list(self)})"


class Tensor:
    """An n-dimensional array with a gradient.

    `Tensor(array)` wraps a raw NumPy or CuPy array without copying; `shared.tensor(data)` copies and converts.

    - `array`: the raw array, any shape, one of the dtypes of `shared.arrays.dtypes`
    - `grad`: None, or a Tensor of the same shape: what `backward` has added up so far
    - `requires_grad`: whether operations on this tensor are recorded
    """

    # The state of a tensor that nothing has happened to; instances set only what differs.
    _requires_grad: bool = False
    _grad: Tensor | None = None
    _fn: Function | None = None  # the node that made it
    _base: Tensor | None = None  # the tensor whose memory it shares, if it is a view
    _base_fn: Function | None = None  # the history the base had when the view was taken
    _hooks: list[Callable] | None = None
    _retains_grad: bool = False

    __array_priority__ = 1000  # NumPy leaves `array * tensor` to Tensor.__rmul__

    def __init__(self, data: Any = (), *, requires_grad: bool = False):
        if isinstance(data, np.ndarray) or devices.is_gpu_array(data):
            self.array = data
        elif isinstance(data, np.generic):
            self.array = np.asarray(data)
        else:
            self.array = ops.tensor(data).array
            if not dtypes.is_floating(self.array.dtype) and not isinstance(data, Tensor):
                self.array = self.array.astype(dtypes.get_default_dtype())  # PyTorch's Tensor([1, 2]) is floating
        self._version = [0]  # a list, so that a tensor and its views share one counter
        if requires_grad:
            self.requires_grad = True

    # ---------------------------------------------------------------- what it is

    @property
    def shape(self) -> Size:
        return Size(self.array.shape)

    def size(self, dim: int | None = None) -> Any:
        return Size(self.array.shape) if dim is None else self.array.shape[dim]

    @property
    def ndim(self) -> int:
        return self.array.ndim

    def dim(self) -> int:
        return self.array.ndim

    def numel(self) -> int:
        return self.array.size

    nelement = numel

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def device(self) -> Device:
        return devices.device_of(self.array)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def itemsize(self) -> int:
        return self.array.itemsize

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def element_size(self) -> int:
        """Bytes per element."""
        return self.array.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Elements (not bytes) to step over in memory per dimension."""
        strides = tuple(n // self.array.itemsize for n in self.array.strides)
        return strides if dim is None else strides[dim]

    def is_contiguous(self) -> bool:
        return self.array.flags.c_contiguous

    def is_floating_point(self) -> bool:
        return dtypes.is_floating(self.array.dtype)

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self.array.ctypes.data if xp(self.array) is np else self.array.data.ptr

    def __len__(self) -> int:
        if not self.array.ndim:
            raise TypeError("len() of a 0-d tensor")
        return len(self.array)

    def __iter__(self) -> Any:
        if not self.array.ndim:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __bool__(self) -> Flag:
        return bool(self._single("Boolean value"))

    def __int__(self) -> int:
        return int(self._single("int()"))

    def __float__(self) -> Number:
        return float(self._single("float()"))

    def __index__(self) -> int:
        if dtypes.is_floating(self.array.dtype):
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self._single("an index"))

    def _single(self, what: str) -> Any:
        if self.array.size != 1:
            raise RuntimeError(
                f"{what} of Tensor with {'no values' if not self.array.size else 'more than one value'} is ambiguous: "
                f"its shape is {tuple(self.array.shape)}"
            )
        return self.array.reshape(-1)[0].item()

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.array.size != 1:
            raise RuntimeError(f"a Tensor with {self.array.size} elements cannot be converted to Scalar")
        return self.array.reshape(-1)[0].item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self.array.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The array itself, sharing memory; `force` detaches and fetches from the GPU first."""
        if force:
            return self.detach().cpu().array
        if self._requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if xp(self.array) is not np:
            raise TypeError("can't convert a cuda tensor to numpy; use tensor.cpu() first")
        return self.array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        if self._requires_grad:
            raise BufferError("can't export a tensor that requires grad; use tensor.detach()")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple:
        return self.array.__dlpack_device__()

    def __repr__(self, **options: Any) -> str:
        return printing.tensor_repr(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.array.ndim == 0 else format(str(self), spec)

    __hash__ = object.__hash__  # by identity: == compares elements

    def __deepcopy__(self, memo: dict) -> Tensor:
        if self._fn is not None:
            raise RuntimeError(
                "Only Tensors created explicitly by the user support the deepcopy protocol; detach() first"
            )
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("_hooks", "_base", "_base_fn")})
        copied.array, copied._version = self.array.copy(), [0]
        copied.grad = None if self.grad is None else self.grad.clone()
        return copied

    def __reduce__(self) -> tuple:
        if self._fn is not None:
            raise RuntimeError("cannot pickle a tensor with a history; detach() it first")
        return _rebuild, (type(self), self.cpu().array, self._requires_grad)

    # ---------------------------------------------------------------- gradients

    @property
    def requires_grad(self) -> Flag:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, flag: Flag) -> None:
        if self._fn is not None:
            if flag:
                return
            raise RuntimeError("you can only change requires_grad flags of leaf variables; use detach()")
        if flag and not dtypes.is_floating(self.array.dtype):
            raise RuntimeError(
                f"only Tensors of floating point dtype can require gradients, but this is {self.dtype.name}"
            )
        self._requires_grad = bool(flag)

    def requires_grad_(self, requires_grad: Flag = True) -> Tensor:
        self.requires_grad = requires_grad
        return self

    @property
    def grad(self) -> Tensor | None:
        """None, or a Tensor of the same shape: what `backward` has added up so far."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"assigned grad expected to be a Tensor or None but got {type(value).__name__}")
            if value.array.shape != self.array.shape:
                raise RuntimeError(
                    f"assigned grad has the shape {tuple(value.array.shape)}, but the tensor's is "
                    f"{tuple(self.array.shape)}"
                )
        self._grad = value

    @property
    def grad_fn(self) -> Function | None:
        """The node of the graph that made this tensor; None for a leaf."""
        return self._fn

    @property
    def is_leaf(self) -> Flag:
        return self._fn is None

    @property
    def data(self) -> Tensor:
        """A tensor on the same memory, outside the graph."""
        return Tensor(self.array)

    @data.setter
    def data(self, value: Tensor) -> None:
        self.array = value.array

    def detach(self) -> Tensor:
        """A tensor on the same memory, outside the graph, that shares the version counter."""
        out = Tensor(self.array)
        out._version = self._version
        return out

    def detach_(self) -> Tensor:
        self._fn, self._requires_grad = None, False
        return self

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: Flag | None = None,
        create_graph: Flag = False,
        inputs: Sequence[Tensor] | None = None,
    ) -> None:
        """Adds to `.grad` of every leaf the gradient of this tensor; see `autograd.backward`."""
        autograd.backward(self, gradient, retain_graph, create_graph, inputs)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> autograd.RemovableHandle:
        return autograd.register_hook(self, hook)

    def retain_grad(self) -> None:
        autograd.retain_grad(self)

    @property
    def retains_grad(self) -> Flag:
        return self._retains_grad

    # ---------------------------------------------------------------- dtype and device

    def to(
        self, *args: Any, device: Any = None, dtype: Any = None, non_blocking: Flag = False, copy: Flag = False
    ) -> Tensor:
        """`to(dtype)`, `to(device)`, `to(device, dtype)` or `to(other)`."""
        for x in args:
            if isinstance(x, Tensor):
                device, dtype = x.device, x.dtype
            elif isinstance(x, Device) or (isinstance(x, str) and x.partition(":")[0] in ("cpu", "cuda")):
                device = x
            elif x is not None:
                dtype = x
        return ops.to(self, device, dtype, copy)

    def type_as(self, other: Tensor) -> Tensor:
        return ops.to(self, other.device, other.dtype)

    def type(self, dtype: Any = None) -> Any:
        """The tensor in `dtype`; without one, the name of its dtype."""
        return self.array.dtype.name if dtype is None else ops.cast(self, dtype)

    def cpu(self) -> Tensor:
        return ops.to(self, "cpu")

    def cuda(self, device: Any = None, non_blocking: Flag = False) -> Tensor:
        return ops.to(self, "cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)

    def pin_memory(self) -> Tensor:
        return self

    # ---------------------------------------------------------------- arithmetic

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __sub__(self, other: Any) -> Tensor:
        return ops.sub(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rsub__(self, other: Any) -> Tensor:
        return ops.sub(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __mul__(self, other: Any) -> Tensor:
        return ops.mul(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rmul__(self, other: Any) -> Tensor:
        return ops.mul(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __pow__(self, other: Any) -> Tensor:
        return ops.pow(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rpow__(self, other: Any) -> Tensor:
        return ops.pow(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __floordiv__(self, other: Any) -> Tensor:
        return ops.floor_divide(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rfloordiv__(self, other: Any) -> Tensor:
        return ops.floor_divide(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __mod__(self, other: Any) -> Tensor:
        return ops.remainder(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rmod__(self, other: Any) -> Tensor:
        return ops.remainder(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __truediv__(self, other: Any) -> Tensor:
        return ops.div(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.div(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __neg__(self) -> Tensor:
        return ops.neg(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __and__(self, other: Any) -> Tensor:
        return ops.bitwise("&", self, other)

    def __rand__(self, other: Any) -> Tensor:
        return ops.bitwise("&", self, other)

    def __or__(self, other: Any) -> Tensor:
        return ops.bitwise("|", self, other)

    def __ror__(self, other: Any) -> Tensor:
        return ops.bitwise("|", self, other)

    def __xor__(self, other: Any) -> Tensor:
        return ops.bitwise("^", self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return ops.bitwise("^", self, other)

    def __invert__(self) -> Tensor:
        return ops.bitwise_not(self)

    def __eq__(self, other: Any) -> Any:
        return ops.eq(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __ne__(self, other: Any) -> Any:
        return ops.ne(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __lt__(self, other: Any) -> Any:
        return ops.lt(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __le__(self, other: Any) -> Any:
        return ops.le(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __gt__(self, other: Any) -> Any:
        return ops.gt(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __ge__(self, other: Any) -> Any:
        return ops.ge(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def add(self, other: Any, *, alpha: Number = 1) -> Tensor:
        return ops.add(self, other, alpha=alpha)

    def sub(self, other: Any, *, alpha: Number = 1) -> Tensor:
        return ops.sub(self, other, alpha=alpha)

    def mul(self, other: Any) -> Tensor:
        return ops.mul(self, other)

    def div(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        return ops.div(self, other, rounding_mode=rounding_mode)

    subtract = sub

    multiply = mul

    divide = div

    true_divide = div

    def floor_divide(self, other: Any) -> Tensor:
        return ops.floor_divide(self, other)

    def remainder(self, other: Any) -> Tensor:
        return ops.remainder(self, other)

    def pow(self, other: Any) -> Tensor:
        return ops.pow(self, other)

    def atan2(self, other: Any) -> Tensor:
        return ops.atan2(self, other)

    def maximum(self, other: Any) -> Tensor:
        return ops.maximum(self, other)

    def minimum(self, other: Any) -> Tensor:
        return ops.minimum(self, other)

    def eq(self, other: Any) -> Tensor:
        return ops.eq(self, other)

    def ne(self, other: Any) -> Tensor:
        return ops.ne(self, other)

    def lt(self, other: Any) -> Tensor:
        return ops.lt(self, other)

    def le(self, other: Any) -> Tensor:
        return ops.le(self, other)

    def gt(self, other: Any) -> Tensor:
        return ops.gt(self, other)

    def ge(self, other: Any) -> Tensor:
        return ops.ge(self, other)

    def logical_and(self, other: Any) -> Tensor:
        return ops.logical_and(self, other)

    def logical_or(self, other: Any) -> Tensor:
        return ops.logical_or(self, other)

    def logical_xor(self, other: Any) -> Tensor:
        return ops.logical_xor(self, other)

    def equal(self, other: Tensor) -> Flag:
        return ops.equal(self, other)

    def allclose(self, other: Tensor, rtol: Number = 1e-5, atol: Number = 1e-8, equal_nan: Flag = False) -> Flag:
        return ops.allclose(self, other, rtol, atol, equal_nan)

    def isclose(self, other: Tensor, rtol: Number = 1e-5, atol: Number = 1e-8, equal_nan: Flag = False) -> Tensor:
        return ops.isclose(self, other, rtol, atol, equal_nan)

    # ---------------------------------------------------------------- element by element

    def neg(self) -> Tensor:
        return ops.neg(self)

    def abs(self) -> Tensor:
        return ops.abs(self)

    def exp(self) -> Tensor:
        return ops.exp(self)

    def log(self) -> Tensor:
        return ops.log(self)

    def log2(self) -> Tensor:
        return ops.log2(self)

    def log10(self) -> Tensor:
        return ops.log10(self)

    def log1p(self) -> Tensor:
        return ops.log1p(self)

    def expm1(self) -> Tensor:
        return ops.expm1(self)

    def sqrt(self) -> Tensor:
        return ops.sqrt(self)

    def rsqrt(self) -> Tensor:
        return ops.rsqrt(self)

    def square(self) -> Tensor:
        return ops.square(self)

    def reciprocal(self) -> Tensor:
        return ops.reciprocal(self)

    def sin(self) -> Tensor:
        return ops.sin(self)

    def cos(self) -> Tensor:
        return ops.cos(self)

    def tan(self) -> Tensor:
        return ops.tan(self)

    def tanh(self) -> Tensor:
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        return ops.sigmoid(self)

    def erf(self) -> Tensor:
        return ops.erf(self)

    def sign(self) -> Tensor:
        return ops.sign(self)

    def floor(self) -> Tensor:
        return ops.floor(self)

    def ceil(self) -> Tensor:
        return ops.ceil(self)

    def trunc(self) -> Tensor:
        return ops.trunc(self)

    def logical_not(self) -> Tensor:
        return ops.logical_not(self)

    def isnan(self) -> Tensor:
        return ops.isnan(self)

    def isinf(self) -> Tensor:
        return ops.isinf(self)

    def isfinite(self) -> Tensor:
        return ops.isfinite(self)

    def relu(self) -> Tensor:
        return ops.relu(self)

    absolute = abs

    def round(self, *, decimals: int = 0) -> Tensor:
        return ops.round(self, decimals=decimals)

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        return ops.clamp(self, min, max)

    clip = clamp

    def where(self, condition: Tensor, other: Any) -> Tensor:
        return ops.where(condition, self, other)

    def masked_fill(self, mask: Tensor, value: Any) -> Tensor:
        return ops.masked_fill(self, mask, value)

    def softmax(self, dim: int, dtype: Any = None) -> Tensor:
        return ops.softmax(self, dim, dtype=dtype)

    def log_softmax(self, dim: int, dtype: Any = None) -> Tensor:
        return ops.log_softmax(self, dim, dtype=dtype)

    # ---------------------------------------------------------------- reductions
    # (axis and keepdims are NumPy's names for dim and keepdim)

    @numpy_names
    def sum(self, dim: Dim = None, keepdim: Flag = False, *, dtype: Any = None) -> Tensor:
        return ops.sum(self, dim, keepdim, dtype=dtype)

    @numpy_names
    def mean(self, dim: Dim = None, keepdim: Flag = False, *, dtype: Any = None) -> Tensor:
        return ops.mean(self, dim, keepdim, dtype=dtype)

    @numpy_names
    def prod(self, dim: int | None = None, keepdim: Flag = False, *, dtype: Any = None) -> Tensor:
        return ops.prod(self, dim, keepdim, dtype=dtype)

    @numpy_names
    def var(
        self, dim: Dim = None, unbiased: Flag = True, keepdim: Flag = False, *, correction: int | None = None
    ) -> Tensor:
        return ops.var(self, dim, unbiased, keepdim, correction=correction)

    @numpy_names
    def std(
        self, dim: Dim = None, unbiased: Flag = True, keepdim: Flag = False, *, correction: int | None = None
    ) -> Tensor:
        return ops.std(self, dim, unbiased, keepdim, correction=correction)

    @numpy_names
    def max(self, dim: Any = None, keepdim: Flag = False) -> Any:
        return ops.max(self, dim, keepdim)

    @numpy_names
    def min(self, dim: Any = None, keepdim: Flag = False) -> Any:
        return ops.min(self, dim, keepdim)

    @numpy_names
    def median(self, dim: Any = None, keepdim: Flag = False) -> Any:
        return ops.median(self, dim, keepdim)

    @numpy_names
    def amax(self, dim: Dim = None, keepdim: Flag = False) -> Tensor:
        return ops.amax(self, dim, keepdim)

    @numpy_names
    def amin(self, dim: Dim = None, keepdim: Flag = False) -> Tensor:
        return ops.amin(self, dim, keepdim)

    @numpy_names
    def argmax(self, dim: int | None = None, keepdim: Flag = False) -> Tensor:
        return ops.argmax(self, dim, keepdim)

    @numpy_names
    def argmin(self, dim: int | None = None, keepdim: Flag = False) -> Tensor:
        return ops.argmin(self, dim, keepdim)

    @numpy_names
    def any(self, dim: Dim = None, keepdim: Flag = False) -> Tensor:
        return ops.any(self, dim, keepdim)

    @numpy_names
    def all(self, dim: Dim = None, keepdim: Flag = False) -> Tensor:
        return ops.all(self, dim, keepdim)

    def count_nonzero(self, dim: Dim = None) -> Tensor:
        return ops.count_nonzero(self, dim)

    @numpy_names
    def logsumexp(self, dim: Dim, keepdim: Flag = False) -> Tensor:
        return ops.logsumexp(self, dim, keepdim)

    @numpy_names
    def norm(self, p: Any = "fro", dim: Dim = None, keepdim: Flag = False) -> Tensor:
        return ops.norm(self, p, dim, keepdim)

    @numpy_names
    def cumsum(self, dim: int, *, dtype: Any = None) -> Tensor:
        return ops.cumsum(self, dim, dtype=dtype)

    # ---------------------------------------------------------------- shape

    def reshape(self, *shape: Any) -> Tensor:
        return ops.reshape(self, *shape)

    def view(self, *shape: Any) -> Tensor:
        return ops.view(self, *shape)

    def reshape_as(self, other: Tensor) -> Tensor:
        return ops.reshape(self, other.array.shape)

    def view_as(self, other: Tensor) -> Tensor:
        return ops.view(self, other.array.shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        return ops.flatten(self, start_dim, end_dim)

    def unflatten(self, dim: int, sizes: Sequence[int]) -> Tensor:
        return ops.unflatten(self, dim, sizes)

    def permute(self, *dims: Any) -> Tensor:
        return ops.permute(self, *dims)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        return ops.transpose(self, dim0, dim1)

    def t(self) -> Tensor:
        return ops.t(self)

    def movedim(self, source: Any, destination: Any) -> Tensor:
        return ops.movedim(self, source, destination)

    def squeeze(self, dim: Dim = None) -> Tensor:
        return ops.squeeze(self, dim)

    def unsqueeze(self, dim: int) -> Tensor:
        return ops.unsqueeze(self, dim)

    def expand(self, *sizes: Any) -> Tensor:
        return ops.expand(self, *sizes)

    def expand_as(self, other: Tensor) -> Tensor:
        return ops.expand(self, other.array.shape)

    def broadcast_to(self, shape: Sequence[int]) -> Tensor:
        return ops.broadcast_to(self, shape)

    def repeat(self, *repeats: Any) -> Tensor:
        return ops.repeat(self, *repeats)

    def tile(self, *dims: Any) -> Tensor:
        return ops.tile(self, *dims)

    def repeat_interleave(self, repeats: int, dim: int | None = None) -> Tensor:
        return ops.repeat_interleave(self, repeats, dim)

    def contiguous(self) -> Tensor:
        return ops.contiguous(self)

    def flip(self, *dims: Any) -> Tensor:
        return ops.flip(self, ops.sizes_of(dims))

    def roll(self, shifts: Any, dims: Any = None) -> Tensor:
        return ops.roll(self, shifts, dims)

    def tril(self, diagonal: int = 0) -> Tensor:
        return ops.tril(self, diagonal)

    def triu(self, diagonal: int = 0) -> Tensor:
        return ops.triu(self, diagonal)

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        return ops.diagonal(self, offset, dim1, dim2)

    def diag(self, diagonal: int = 0) -> Tensor:
        return ops.diag(self, diagonal)

    def trace(self) -> Tensor:
        return ops.trace(self)

    def ravel(self) -> Tensor:
        return ops.ravel(self)

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        return ops.narrow(self, dim, start, length)

    def select(self, dim: int, index: int) -> Tensor:
        return ops.select(self, dim, index)

    swapaxes = transpose

    swapdims = transpose

    moveaxis = movedim

    @property
    def T(self) -> Tensor:
        return ops.permute(self, *range(self.array.ndim)[::-1])

    @property
    def mT(self) -> Tensor:
        return ops.transpose(self, -2, -1)

    def split(self, split_size: Any, dim: int = 0) -> tuple[Tensor, ...]:
        return ops.split(self, split_size, dim)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        return ops.chunk(self, chunks, dim)

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        return ops.unbind(self, dim)

    # ---------------------------------------------------------------- indexing

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        ops.setitem(self, index, value)

    def __contains__(self, value: Any) -> Flag:
        return bool((self.array == (value.array if isinstance(value, Tensor) else value)).any())

    def gather(self, dim: int, index: Tensor) -> Tensor:
        return ops.gather(self, dim, index)

    def take_along_dim(self, indices: Tensor, dim: int | None = None) -> Tensor:
        return ops.take_along_dim(self, indices, dim)

    def scatter(self, dim: int, index: Tensor, src: Any, *, reduce: str | None = None) -> Tensor:
        return ops.scatter(self, dim, index, src, reduce=reduce)

    def scatter_add(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        return ops.scatter_add(self, dim, index, src)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        return ops.index_select(self, dim, index)

    def index_add(self, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
        return ops.index_add(self, dim, index, source, alpha=alpha)

    def masked_select(self, mask: Tensor) -> Tensor:
        return ops.masked_select(self, mask)

    def argsort(self, dim: int = -1, descending: Flag = False, stable: Flag = False) -> Tensor:
        return ops.argsort(self, dim, descending, stable)

    def nonzero(self, *, as_tuple: Flag = False) -> Any:
        return ops.nonzero(self, as_tuple=as_tuple)

    def topk(self, k: int, dim: int = -1, largest: Flag = True, sorted: Flag = True) -> Any:
        return ops.topk(self, k, dim, largest, sorted)

    def sort(self, dim: int = -1, descending: Flag = False, stable: Flag = False) -> Any:
        return ops.sort(self, dim, descending, stable)

    def unique(self, sorted: Flag = True, return_inverse: Flag = False, return_counts: Flag = False) -> Any:
        return ops.unique(self, sorted, return_inverse, return_counts)

    # ---------------------------------------------------------------- products

    def matmul(self, other: Tensor) -> Tensor:
        return ops.matmul(self, other)

    def mm(self, mat2: Tensor) -> Tensor:
        return ops.mm(self, mat2)

    def bmm(self, mat2: Tensor) -> Tensor:
        return ops.bmm(self, mat2)

    def mv(self, vec: Tensor) -> Tensor:
        return ops.mv(self, vec)

    def dot(self, tensor: Tensor) -> Tensor:
        return ops.dot(self, tensor)

    def outer(self, vec2: Tensor) -> Tensor:
        return ops.outer(self, vec2)

    # ---------------------------------------------------------------- new tensors like this one

    def clone(self) -> Tensor:
        return ops.clone(self)

    def new_zeros(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: Flag = False) -> Tensor:
        return ops.zeros(*size, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)

    def new_ones(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: Flag = False) -> Tensor:
        return ops.ones(*size, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)

    def new_empty(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: Flag = False) -> Tensor:
        return ops.empty(*size, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)

    def new_full(self, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
        return ops.full(size, fill_value, dtype=dtype or self.dtype, device=device or self.device)

    def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
        return ops.tensor(data, dtype=dtype or self.dtype, device=device or self.device)

    def bernoulli(self, p: Number | None = None, *, generator: Any = None) -> Tensor:
        return ops.bernoulli(self, p, generator=generator)

    def multinomial(self, num_samples: int, replacement: Flag = False, *, generator: Any = None) -> Tensor:
        return ops.multinomial(self, num_samples, replacement, generator=generator)

    # ---------------------------------------------------------------- in place
    # The new value is computed, then written over the old one: ops/inplace.py

    def __iadd__(self, other: Any) -> Tensor:
        return ops.assign(self, ops.add(self, other))

    def __isub__(self, other: Any) -> Tensor:
        return ops.assign(self, ops.sub(self, other))

    def __imul__(self, other: Any) -> Tensor:
        return ops.assign(self, ops.mul(self, other))

    def __itruediv__(self, other: Any) -> Tensor:
        return ops.assign(self, ops.div(self, other))

    def __ipow__(self, other: Any) -> Tensor:
        return ops.assign(self, ops.pow(self, other))

    def __ifloordiv__(self, other: Any) -> Tensor:
        return ops.assign(self, ops.floor_divide(self, other))

    def __imod__(self, other: Any) -> Tensor:
        return ops.assign(self, ops.remainder(self, other))

    def add_(self, other: Any, *, alpha: Number = 1) -> Tensor:
        return ops.assign(self, ops.add(self, other, alpha=alpha))

    def sub_(self, other: Any, *, alpha: Number = 1) -> Tensor:
        return ops.assign(self, ops.sub(self, other, alpha=alpha))

    def mul_(self, other: Any) -> Tensor:
        return ops.assign(self, ops.mul(self, other))

    def div_(self, other: Any) -> Tensor:
        return ops.assign(self, ops.div(self, other))

    def pow_(self, other: Any) -> Tensor:
        return ops.assign(self, ops.pow(self, other))

    def floor_divide_(self, other: Any) -> Tensor:
        return ops.assign(self, ops.floor_divide(self, other))

    def remainder_(self, other: Any) -> Tensor:
        return ops.assign(self, ops.remainder(self, other))

    def neg_(self) -> Tensor:
        return ops.assign(self, ops.neg(self))

    def abs_(self) -> Tensor:
        return ops.assign(self, ops.abs(self))

    def exp_(self) -> Tensor:
        return ops.assign(self, ops.exp(self))

    def log_(self) -> Tensor:
        return ops.assign(self, ops.log(self))

    def sqrt_(self) -> Tensor:
        return ops.assign(self, ops.sqrt(self))

    def rsqrt_(self) -> Tensor:
        return ops.assign(self, ops.rsqrt(self))

    def reciprocal_(self) -> Tensor:
        return ops.assign(self, ops.reciprocal(self))

    def sin_(self) -> Tensor:
        return ops.assign(self, ops.sin(self))

    def cos_(self) -> Tensor:
        return ops.assign(self, ops.cos(self))

    def tanh_(self) -> Tensor:
        return ops.assign(self, ops.tanh(self))

    def sigmoid_(self) -> Tensor:
        return ops.assign(self, ops.sigmoid(self))

    def erf_(self) -> Tensor:
        return ops.assign(self, ops.erf(self))

    def sign_(self) -> Tensor:
        return ops.assign(self, ops.sign(self))

    def floor_(self) -> Tensor:
        return ops.assign(self, ops.floor(self))

    def ceil_(self) -> Tensor:
        return ops.assign(self, ops.ceil(self))

    def round_(self) -> Tensor:
        return ops.assign(self, ops.round(self))

    def trunc_(self) -> Tensor:
        return ops.assign(self, ops.trunc(self))

    def relu_(self) -> Tensor:
        return ops.assign(self, ops.relu(self))

    def clamp_(self, min: Any = None, max: Any = None) -> Tensor:
        return ops.assign(self, ops.clamp(self, min, max))

    clip_ = clamp_

    def masked_fill_(self, mask: Tensor, value: Any) -> Tensor:
        return ops.assign(self, ops.masked_fill(self, mask, value))

    def scatter_(self, dim: int, index: Tensor, src: Any, *, reduce: str | None = None) -> Tensor:
        return ops.assign(self, ops.scatter(self, dim, index, src, reduce=reduce))

    def scatter_add_(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        return ops.assign(self, ops.scatter_add(self, dim, index, src))

    def index_add_(self, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
        return ops.assign(self, ops.index_add(self, dim, index, source, alpha=alpha))

    def tril_(self, diagonal: int = 0) -> Tensor:
        return ops.assign(self, ops.tril(self, diagonal))

    def triu_(self, diagonal: int = 0) -> Tensor:
        return ops.assign(self, ops.triu(self, diagonal))

    def copy_(self, src: Tensor, non_blocking: Flag = False) -> Tensor:
        return ops.copy_(self, src)

    def fill_(self, value: Any) -> Tensor:
        return ops.copy_(
            self, ops.full((), value, dtype=self.dtype, device=self.device) if not isinstance(value, Tensor) else value
        )

    def zero_(self) -> Tensor:
        return self.fill_(0)

    def normal_(self, mean: Number = 0.0, std: Number = 1.0, *, generator: Any = None) -> Tensor:
        return ops.copy_(
            self, ops.randn(self.shape, generator=generator, dtype=self.dtype, device=self.device) * std + mean
        )

    def uniform_(self, from_: Number = 0.0, to: Number = 1.0, *, generator: Any = None) -> Tensor:
        return ops.copy_(
            self, ops.rand(self.shape, generator=generator, dtype=self.dtype, device=self.device) * (to - from_) + from_
        )

    def bernoulli_(self, p: Any = 0.5, *, generator: Any = None) -> Tensor:
        return ops.copy_(
            self,
            ops.bernoulli(self, p, generator=generator)
            if not isinstance(p, Tensor)
            else ops.bernoulli(p, generator=generator),
        )

    def random_(self, from_: int, to: int | None = None, *, generator: Any = None) -> Tensor:
        return ops.copy_(
            self,
            ops.randint(
                0 if to is None else from_,
                from_ if to is None else to,
                self.shape,
                generator=generator,
                device=self.device,
            ),
        )

    # ---------------------------------------------------------------- dtypes by name
    # Last, since from here on `float`, `int` and `bool` name methods of this class.

    def double(self) -> Tensor:
        return ops.cast(self, dtypes.float64)

    def half(self) -> Tensor:
        return ops.cast(self, dtypes.float16)

    def bfloat16(self) -> Tensor:
        return ops.cast(self, dtypes.bfloat16)

    def long(self) -> Tensor:
        return ops.cast(self, dtypes.int64)

    def short(self) -> Tensor:
        return ops.cast(self, dtypes.int16)

    def float(self) -> Tensor:
        return ops.cast(self, dtypes.float32)

    def int(self) -> Tensor:
        return ops.cast(self, dtypes.int32)

    def bool(self) -> Tensor:
        return ops.cast(self, dtypes.bool_)


def _rebuild(cls: type, array: np.ndarray, requires_grad: bool) -> Tensor:
    """Makes a tensor from what was pickled: data workers send tensors so."""
    out = cls.__new__(cls)
    out.array, out._version, out._requires_grad = array, [0], requires_grad
    return out


_OPERANDS = (Tensor, float, int, np.ndarray, np.generic)  # what operators take; for others Python goes on looking

# The knot: the engine makes Tensors, Tensor's methods call operations, and operations are made of both.
autograd.Tensor = Tensor  # type: ignore[misc]
from shared import ops  # noqa: E402
