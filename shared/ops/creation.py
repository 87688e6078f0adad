"""New tensors: from data, filled, counted, random."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shared.arrays import device as devices
from shared.arrays import dtypes, random
from shared.arrays.device import Device, module_for, xp
from shared.autograd import Function
from shared.ops.operands import as_operand, cast, raw, sizes_of
from shared.tensor import Tensor


def _finish(array: Any, requires_grad: bool) -> Tensor:
    out = Tensor(array)
    return out.requires_grad_() if requires_grad else out


# ---------------------------------------------------------------- from data


def _data_array(data: Any, dtype: Any) -> Any:
    """Nested Python numbers, arrays or Tensors as one raw array; Python floats become the default dtype."""
    if isinstance(data, Tensor):
        return data.array
    if isinstance(data, (np.ndarray, np.generic)) or devices.is_gpu_array(data):
        return data if devices.is_gpu_array(data) else np.asarray(data)
    if isinstance(data, (list, tuple)) and any(isinstance(x, (Tensor, list, tuple)) for x in data):
        data = [_data_array(x, dtype) for x in data]
    try:
        array = np.array(data)
    except ValueError as error:
        raise ValueError(f"tensor(): the nested sequence is not rectangular: {error}") from error
    if array.dtype == object or array.dtype.kind not in "biuf" and array.dtype not in dtypes.ALL:
        raise TypeError(f"tensor(): expected numbers, but got {type(data).__name__} with elements of {array.dtype}")
    if dtype is None and array.dtype == dtypes.float64 and not _has_float64(data):
        array = array.astype(dtypes.get_default_dtype())
    return array if array.size or dtype is not None else array.astype(dtypes.get_default_dtype())


def _has_float64(data: Any) -> bool:
    """True where nested data has a float64 array in it: those stay float64, Python floats do not."""
    if isinstance(data, (list, tuple)):
        return any(_has_float64(x) for x in data[:1])
    return isinstance(data, (np.ndarray, np.generic)) and data.dtype == dtypes.float64


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of `data`: a number, nested lists, an array, a tensor.

    Python floats become the default dtype (float32), ints int64, bools bool; arrays keep their dtype.

    >>> import shared
    >>> shared.tensor([[1, 2], [3, 4]]).dtype == shared.int64
    True
    >>> shared.tensor([0.1], dtype=shared.float64).item() == 0.1  # not rounded to float32 on the way
    True
    """
    array = _data_array(data, dtype)
    target = array.dtype if dtype is None else dtypes.as_dtype(dtype)
    where = device if device is not None else devices.device_of(array)
    if isinstance(data, (int, list, tuple)):
        _check_range(array, dtypes.as_dtype(target))
    return _finish(devices.to_device(array.astype(dtypes.as_dtype(target), order="C"), where), requires_grad)


def _check_range(array: Any, target: np.dtype) -> None:
    """Refuses Python numbers that an integer dtype would wrap around."""
    if target == array.dtype or target == dtypes.bool_ or dtypes.is_floating(target) or not array.size:
        return
    limits = np.iinfo(target)
    if not (limits.min <= array.min() and array.max() <= limits.max):
        raise RuntimeError(
            f"value cannot be converted to type {target.name} without overflow: {array.min()} … {array.max()}"
        )


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of `data`, on the same memory where dtype and device allow it."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    array = _data_array(data, dtype)
    target = dtypes.as_dtype(array.dtype if dtype is None else dtype)
    array = array if array.dtype == target else array.astype(target)
    return Tensor(array if device is None else devices.to_device(array, device))


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor on the memory of a NumPy array: changing one changes the other."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    if ndarray.dtype not in dtypes.ALL:
        raise TypeError(f"can't convert np.ndarray of type {ndarray.dtype}; expected one of the tensor dtypes")
    return Tensor(ndarray)


def from_dlpack(external: Any) -> Tensor:
    """A tensor on the memory of any array that speaks DLPack (PyTorch, CuPy, JAX, …)."""
    kind = external.__dlpack_device__()[0] if hasattr(external, "__dlpack_device__") else 1
    module = module_for("cuda" if int(kind) == 2 else "cpu")
    return Tensor(module.from_dlpack(external))


# ---------------------------------------------------------------- filled


def _check_size(size: tuple) -> None:
    if any(n < 0 for n in size):
        raise RuntimeError(f"Trying to create tensor with negative dimension: {list(size)}")


def _fill(size: tuple, value: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    dtype = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    _check_size(size)
    module = module_for(device)
    array = module.zeros(size, dtype) if value == 0 else module.full(size, value, dtype)
    return _finish(array, requires_grad)


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros; `zeros(2, 3)` or `zeros((2, 3))`."""
    return _fill(sizes_of(size), 0, dtype, device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return _fill(sizes_of(size), 1, dtype, device, requires_grad)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of one value, whose type decides the dtype unless given."""
    value = raw(as_operand(fill_value))
    dtype = (value.dtype if hasattr(value, "dtype") else dtypes.of_scalar(value)) if dtype is None else dtype
    return _fill(sizes_of((size,)), value, dtype, device, requires_grad)


def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor whose memory holds whatever was there before."""
    dtype = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    shape = sizes_of(size)
    _check_size(shape)
    return _finish(module_for(device).empty(shape, dtype), requires_grad)


def _like(input: Tensor, dtype: Any, device: Any) -> dict[str, Any]:
    return {
        "dtype": input.array.dtype if dtype is None else dtype,
        "device": devices.device_of(input.array) if device is None else device,
    }


def zeros_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros with the shape, dtype and device of `input`."""
    return zeros(input.array.shape, **_like(input, dtype, device), requires_grad=requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones with the shape, dtype and device of `input`."""
    return ones(input.array.shape, **_like(input, dtype, device), requires_grad=requires_grad)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """One value with the shape, dtype and device of `input`."""
    return full(input.array.shape, fill_value, **_like(input, dtype, device), requires_grad=requires_grad)


def empty_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Unset memory with the shape, dtype and device of `input`."""
    return empty(input.array.shape, **_like(input, dtype, device), requires_grad=requires_grad)


# ---------------------------------------------------------------- counted


def arange(
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, … up to but without `end`; `arange(n)` counts 0 … n − 1. int64 unless a float is given."""
    if end is None:
        start, end = 0, start
    if step == 0 or (end - start) * step < 0:
        raise RuntimeError(
            f"arange: upper bound and lower bound inconsistent with step sign: start={start}, end={end}, step={step}"
        )
    if dtype is None:
        is_float = any(isinstance(v, float) for v in (start, end, step))
        dtype = dtypes.get_default_dtype() if is_float else dtypes.int64
    dtype = dtypes.as_dtype(dtype)
    n = math.ceil((end - start) / step)
    array = module_for(device).arange(n) * step + start  # as in PyTorch, no rounding adds up along the way
    return _finish(array.astype(dtype), requires_grad)


def linspace(
    start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`steps` numbers at equal distances from `start` to `end`, both included."""
    dtype = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    return _finish(module_for(device).linspace(start, end, steps).astype(dtype), requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix, zeros elsewhere."""
    dtype = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    return _finish(module_for(device).eye(n, m, dtype=dtype), requires_grad)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 rows with a 1 at the class's place: shape (…,) → (…, num_classes); −1 takes the largest class + 1."""
    classes = tensor.array
    if classes.dtype != dtypes.int64:
        raise RuntimeError(f"one_hot is only applicable to index tensor of type int64, but got {classes.dtype.name}")
    if classes.size and int(classes.min()) < 0:
        raise RuntimeError(f"one_hot: Class values must be non-negative, but the smallest is {int(classes.min())}.")
    largest = int(classes.max()) if classes.size else -1
    if num_classes == -1:
        if not classes.size:
            raise RuntimeError("one_hot: cannot infer the number of classes from an empty tensor")
        num_classes = largest + 1
    if largest >= num_classes:
        raise RuntimeError(
            f"one_hot: Class values must be smaller than num_classes ({num_classes}), but got {largest}."
        )
    return Tensor((classes[..., None] == xp(classes).arange(num_classes)).astype(dtypes.int64))


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often (or with what total weight) each of 0, 1, 2, … occurs in a vector of integers."""
    if input.array.ndim != 1 or (input.array.size and int(input.array.min()) < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    counts = xp(input.array).bincount(input.array, None if weights is None else weights.array, minlength)
    return Tensor(counts if weights is None else counts.astype(weights.array.dtype))


def meshgrid(*tensors: Tensor, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinates of a grid: one tensor per vector, each of the grid's full shape."""
    given = list(tensors[0]) if len(tensors) == 1 and not isinstance(tensors[0], Tensor) else list(tensors)
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f"meshgrid: indexing must be one of 'xy' or 'ij', but received: {indexing!r}")
    order = [1, 0, *range(2, len(given))] if indexing == "xy" and len(given) > 1 else list(range(len(given)))
    size = [given[i].array.size for i in order]
    return tuple(
        x.reshape([n if i == place else 1 for i, n in enumerate(size)]).expand(size)
        for x, place in zip(given, [order.index(i) for i in range(len(given))], strict=True)
    )


# ---------------------------------------------------------------- random


def _stream(generator: random.Generator | None, device: Any) -> random.Generator:
    return random.default_generator("cpu" if device is None else Device(device)) if generator is None else generator


def _draw(rng: Any, kind: str, size: tuple, dtype: np.dtype) -> Any:
    """Numbers of a standard distribution ("random": uniform, "standard_normal") in a floating dtype."""
    native = dtype if dtype in (dtypes.float32, dtypes.float64) else dtypes.float32
    drawn = getattr(rng, kind)(size, dtype=native)
    if kind == "random" and native != dtype:  # cut, not rounded: 1 itself must not occur
        steps = 2**11 if dtype == dtypes.float16 else 2**8
        drawn = xp(drawn).floor(drawn * steps) / steps
    return drawn.astype(dtype, copy=False)


def _random(kind: str, size: tuple, generator: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    dtype = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not dtypes.is_floating(dtype):
        raise RuntimeError(f"random numbers of a distribution need a floating dtype, but got {dtype.name}")
    return _finish(np_array(_draw(_stream(generator, device).rng, kind, size, dtype)), requires_grad)


def np_array(x: Any) -> Any:
    """An array also where a generator returned a bare number."""
    return x if hasattr(x, "shape") and not isinstance(x, np.generic) else np.asarray(x)


def rand(
    *size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Uniform in [0, 1)."""
    return _random("random", sizes_of(size), generator, dtype, device, requires_grad)


def randn(
    *size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Normal with mean 0 and variance 1."""
    return _random("standard_normal", sizes_of(size), generator, dtype, device, requires_grad)


def rand_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform in [0, 1) with the shape, dtype and device of `input`."""
    return rand(input.array.shape, **_like(input, dtype, device), requires_grad=requires_grad)


def randn_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Standard normal with the shape, dtype and device of `input`."""
    return randn(input.array.shape, **_like(input, dtype, device), requires_grad=requires_grad)


def randint(
    low: int = 0, high: Any = None, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None
) -> Tensor:
    """Integers in [low, high), int64; `randint(high, size)` starts at 0."""
    if size is None:
        low, high, size = 0, low, high
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    rng = _stream(generator, device).rng
    drawn = np_array(rng.integers(low, high, sizes_of((size,))))
    return Tensor(drawn.astype(dtypes.int64 if dtype is None else dtypes.as_dtype(dtype), copy=False))


def randint_like(input: Tensor, low: int, high: int | None = None) -> Tensor:
    """Integers in [low, high) with the shape, dtype and device of `input`."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, input.array.shape, **_like(input, None, None))


def randperm(n: int, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """The integers 0 … n − 1 in random order, int64."""
    rng = _stream(generator, device).rng
    return Tensor(rng.permutation(n).astype(dtypes.int64 if dtype is None else dtypes.as_dtype(dtype), copy=False))


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None) -> Tensor:
    """Normal with the given means and standard deviations: tensors, broadcast, or numbers with a size."""
    if isinstance(std, (int, float)) and std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    tensors = [x for x in (mean, std) if isinstance(x, Tensor)]
    if size is None:
        if not tensors:
            raise TypeError("normal: two numbers need a size, e.g. normal(0.0, 1.0, (2, 3))")
        size = np.broadcast_shapes(*[x.array.shape for x in tensors])
    device = devices.device_of(tensors[0].array) if tensors else None
    dtype = dtypes.result_type(*[x.array for x in tensors]) if tensors else dtypes.get_default_dtype()
    drawn = _draw(_stream(generator, device).rng, "standard_normal", sizes_of((size,)), dtype)
    return Tensor(np_array(drawn * raw(std) + raw(mean)).astype(dtype, copy=False))


def bernoulli(input: Tensor, p: float | None = None, *, generator: Any = None) -> Tensor:
    """1 with the probability the element tells (or `p` everywhere), else 0; the input's floating dtype."""
    probability = input.array if p is None else p
    if p is None and input.array.size and not bool(((input.array >= 0) & (input.array <= 1)).all()):
        raise RuntimeError("bernoulli: expected all probabilities in [0, 1]")
    rng = _stream(generator, devices.device_of(input.array)).rng
    dtype = input.array.dtype
    return Tensor(np_array(_draw(rng, "random", input.array.shape, dtypes.float32) < probability).astype(dtype))


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
    """Indices drawn with the given weights: (n,) → (num_samples,), (rows, n) → (rows, num_samples); int64.

    Weights need not sum to 1. Without replacement by the largest log w − log(−log u), the Gumbel trick:
    Vieira, "Gumbel-max trick and weighted reservoir sampling" (2014).
    """
    weights = input.array
    if weights.ndim not in (1, 2):
        raise RuntimeError(f"multinomial: prob_dist must be 1 or 2 dim, but it has {weights.ndim}")
    module = xp(weights)
    if not bool((module.isfinite(weights) & (weights >= 0)).all()):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    rows = weights.reshape(-1, weights.shape[-1]).astype(dtypes.float64)
    if not bool((rows.sum(axis=1) > 0).all()):
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement and num_samples > int((rows > 0).sum(axis=1).min()):
        raise RuntimeError(
            f"cannot sample num_samples ({num_samples}) > number of nonzero weights "
            f"({int((rows > 0).sum(axis=1).min())}) samples without replacement"
        )
    rng = _stream(generator, devices.device_of(weights)).rng
    if replacement:
        bounds = rows.cumsum(axis=1)
        wanted = rng.random((len(rows), num_samples)) * bounds[:, -1:]
        drawn = (wanted[:, :, None] >= bounds[:, None, :]).sum(axis=2)
    else:
        keys = module.log(rows) - module.log(-module.log(rng.random(rows.shape)))
        if num_samples == 1:  # the largest needs no sorting
            drawn = keys.argmax(axis=1)
        else:
            drawn = module.argsort(-keys, axis=1)[:, :num_samples]
    return Tensor(drawn.astype(dtypes.int64).reshape(*weights.shape[:-1], num_samples))


# ---------------------------------------------------------------- moving


def to(input: Tensor, device: Any = None, dtype: Any = None, copy: bool = False) -> Tensor:
    """`input` on a device and in a dtype; itself where nothing changes (unless `copy`)."""
    out = input if dtype is None else cast(input, dtype)
    if device is not None and Device(device) != devices.device_of(out.array):
        out = Move(Device(device))(out)
    return out.clone() if copy and out is input else out


class Move(Function):
    """The same numbers on another device; the gradient travels back"""

    def __init__(self, device: Device):
        self.device = device

    def forward(self, x):
        self.home = devices.device_of(x)
        return devices.to_device(x, self.device)

    def backward(self, grad):
        return devices.to_device(grad, self.home)
