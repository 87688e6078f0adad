"""Floor 1: how a tensor prints, number for number as PyTorch prints it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.arrays import device as devices
from shared.arrays import dtypes

if TYPE_CHECKING:
    from shared.tensor import Tensor


class _Options:
    precision = 4
    threshold = 1000
    edgeitems = 3
    linewidth = 80
    sci_mode: bool | None = None


_options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Digits after the point, elements before a tensor is abridged, how many at each edge, characters per line."""
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None:
            setattr(_options, name, value)
    _options.sci_mode = sci_mode


class _Formatter:
    """One width and style for all numbers of a tensor."""

    def __init__(self, values: np.ndarray):
        self.floating = dtypes.is_floating(values.dtype)
        self.integral, self.scientific, self.width = True, False, 1
        flat = values.reshape(-1)
        if not self.floating:
            self.width = max([len(str(v)) for v in flat.tolist()], default=1)
            return
        flat = flat.astype(np.float64)
        finite = flat[np.isfinite(flat) & (flat != 0)]
        if not finite.size:
            return
        size = np.abs(finite)
        low, high = float(size.min()), float(size.max())
        self.integral = bool((finite == np.ceil(finite)).all())
        self.scientific = high / low > 1000 or high > 1e8 or (not self.integral and low < 1e-4)
        if _options.sci_mode is not None:
            self.scientific = _options.sci_mode
        self.width = max(len(self.plain(v)) for v in finite.tolist())

    def plain(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{_options.precision}e}"
        if self.integral:
            return f"{value:.0f}" + ("." if math.isfinite(value) else "")
        return f"{value:.{_options.precision}f}"

    def format(self, value: Any) -> str:
        return self.plain(value).rjust(self.width)


def _summarized(array: np.ndarray) -> np.ndarray:
    """The corners of an array that is too large to print."""
    edge = _options.edgeitems
    for axis, n in enumerate(array.shape):
        if n > 2 * edge:
            kept = [*range(edge), *range(n - edge, n)]
            array = array.take(kept, axis=axis)
    return array


def _lines(array: np.ndarray, indent: int, abridged: bool, formatter: _Formatter) -> str:
    edge = _options.edgeitems
    if array.ndim == 0:
        return formatter.format(array.item())
    shorten = abridged and len(array) > 2 * edge
    if array.ndim == 1:
        per_line = max(1, (_options.linewidth - indent) // (formatter.width + 2))
        chosen = [*array[:edge].tolist(), None, *array[-edge:].tolist()] if shorten else array.tolist()
        cells = [" ..." if v is None else formatter.format(v) for v in chosen]
        rows = [cells[i : i + per_line] for i in range(0, len(cells), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(", ".join(row) for row in rows) + "]"
    parts = [*array[:edge], None, *array[-edge:]] if shorten else list(array)
    inner = ["..." if p is None else _lines(p, indent + 1, abridged, formatter) for p in parts]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(inner) + "]"


def tensor_repr(x: Tensor) -> str:
    """The printed form, e.g. `tensor([1., 2.], requires_grad=True)`.

    >>> import shared
    >>> shared.tensor([[1.5, -2.0], [0.0, 1e-3]])
    tensor([[ 1.5000e+00, -2.0000e+00],
            [ 0.0000e+00,  1.0000e-03]])
    """
    array = devices.to_device(x.array, "cpu")
    suffixes = []
    if devices.device_of(x.array).type != "cpu":
        suffixes.append(f"device='{devices.device_of(x.array)}'")
    natural = array.dtype in (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool_)
    prefix = "tensor("
    if array.size == 0:
        body = "[]"
        if array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        natural = array.dtype == dtypes.get_default_dtype()
    else:
        abridged = array.size > _options.threshold
        shown = _summarized(array) if abridged else array
        body = _lines(array, len(prefix), abridged, _Formatter(shown))
    if not natural:
        suffixes.append(f"dtype=shared.{array.dtype.name}")
    if x._fn is not None:
        suffixes.append(f"grad_fn={x._fn!r}")
    elif x._requires_grad:
        suffixes.append("requires_grad=True")
    text = prefix + body
    for suffix in suffixes:
        last = len(text) - text.rfind("\n") - 1
        joint = ",\n" + " " * len(prefix) if last + len(suffix) + 2 > _options.linewidth else ", "
        text += joint + suffix
    return text + ")"
