"""Images made larger or smaller: each output element is one input element, or a mix of its neighbours."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops.activation import require_tensor
from shared.ops.adaptive_pool import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from shared.ops.autocast import follows_autocast
from shared.ops.operands import cast
from shared.tensor import Tensor

MODES = {
    **{"nearest": None, "nearest-exact": None, "area": None},
    **{"linear": 3, "bilinear": 4, "trilinear": 5, "bicubic": 4},
}
# Where no size changes these are copies, whatever the factor was: PyTorch's choice, by the number of dimensions.
COPIES = {3: ("linear",), 4: ("nearest", "bilinear"), 5: ("trilinear",)}


def nearest_sources(size: int, output_size: int, scale: float, exact: bool) -> np.ndarray:
    """For each output element the input element it copies: ⌊i · scale⌋, or ⌊(i + ½) · scale⌋ where `exact`.

    In float32, as PyTorch does it: the same element also where the product is nearly a whole number.

    >>> nearest_sources(2, 5, 2 / 5, exact=False)
    array([0, 0, 0, 1, 1])
    """
    places = (np.arange(output_size, dtype=np.float32) + np.float32(0.5 if exact else 0)) * np.float32(scale)
    return np.minimum(np.floor(places).astype(np.int64), size - 1)


def linear_sources(
    size: int, output_size: int, scale: float, align_corners: bool, dtype: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output element its two neighbours in the input, and the weight of the second one.

    With `align_corners` the first and last elements of both lie on each other; else the elements are squares, and
    the edges of the images do.

    >>> linear_sources(2, 3, 2 / 3, True, "float64")
    (array([0, 0, 1]), array([1, 1, 1]), array([0. , 0.5, 0. ]))
    """
    places = np.arange(output_size, dtype=dtype)
    if align_corners:
        places = places * places.dtype.type((size - 1) / (output_size - 1) if output_size > 1 else 0)
    else:
        scale = places.dtype.type(scale)
        places = np.maximum((places + places.dtype.type(0.5)) * scale - places.dtype.type(0.5), 0)
    low = np.minimum(places.astype(np.int64), size - 1)
    weight = np.clip(places - low, 0, 1).astype(dtype)
    return low, np.minimum(low + 1, size - 1), weight


def cubic_sources(
    size: int, output_size: int, scale: float, align_corners: bool, dtype: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each output element its four neighbours in the input (at the edges the last one again), with their weights.

    The weights are cubic polynomials of the distance, with slope −0.75 where it is 1.
    Source: Keys, "Cubic convolution interpolation for digital image processing", 1981, equation 15, with PyTorch's a.

    >>> [(int(place[0]), float(weight[0])) for place, weight in cubic_sources(4, 2, 2.0, False, "float64")]
    [(0, -0.09375), (0, 0.59375), (1, 0.59375), (2, -0.09375)]
    """
    places = np.arange(output_size, dtype=dtype)
    if align_corners:
        places = places * places.dtype.type((size - 1) / (output_size - 1) if output_size > 1 else 0)
    else:
        places = (places + places.dtype.type(0.5)) * places.dtype.type(scale) - places.dtype.type(0.5)
    low = np.floor(places)
    t, a = places - low, places.dtype.type(-0.75)

    def near(x):  # for distances up to 1
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x):  # for distances from 1 to 2
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    weights = (far(t + 1), near(t), near(1 - t), far(2 - t))
    return [(np.clip(low.astype(np.int64) + k - 1, 0, size - 1), w) for k, w in enumerate(weights)]


class Resample(Function):
    """Along one dimension, each element is one of the input's, or a mix of two

    `parts`: pairs of the places in the input, not falling, and their weights (None for 1).
    """

    twice = True

    def __init__(self, dim: int, parts: list[tuple[np.ndarray, Any]]):
        self.dim, self.parts = dim, parts

    def forward(self, x):
        """(…, size, …) → (…, output size, …)."""
        self.size = x.shape[self.dim]
        return sum(_weighted(xp(x).take(x, xp(x).asarray(i), axis=self.dim), w, self.dim) for i, w in self.parts)

    def backward(self, grad):
        function = ResampleInput(self.dim, self.size, self.parts)
        return function(grad) if isinstance(grad, Tensor) else function.forward(grad)


class ResampleInput(Function):
    """The gradient of `Resample`, as an operation of its own: each element gets what was made of it"""

    twice = True

    def __init__(self, dim: int, size: int, parts: list[tuple[np.ndarray, Any]]):
        self.dim, self.size, self.parts = dim, size, parts

    def forward(self, grad):
        module, before = xp(grad), (slice(None),) * self.dim
        out = module.zeros((*grad.shape[: self.dim], self.size, *grad.shape[self.dim + 1 :]), grad.dtype)
        for places, weight in self.parts:
            weighted = _weighted(grad, weight, self.dim)
            # The first use of each element, then the second of those that have one, …: none twice at a time.
            uses = np.arange(len(places)) - np.searchsorted(places, places)
            for use in range(uses.max() + 1):
                chosen = np.flatnonzero(uses == use)
                part = module.take(weighted, module.asarray(chosen), axis=self.dim)
                if len(chosen) == self.size:
                    out += part
                else:
                    out[(*before, module.asarray(places[chosen]))] += part
        return out

    def backward(self, grad):
        function = Resample(self.dim, self.parts)
        return function(grad) if isinstance(grad, Tensor) else function.forward(grad)


def _weighted(x: Any, weight: Any, dim: int) -> Any:
    """x times a weight per index along `dim`; x itself where that is None."""
    return x if weight is None else x * xp(x).asarray(weight.reshape(-1, *[1] * (x.ndim - dim - 1)))


def _nearest(x: Tensor, dim: int, output_size: int, scale: float, exact: bool) -> Tensor:
    return Resample(dim, [(nearest_sources(x.shape[dim], output_size, scale, exact), None)])(x)


def _linear(x: Tensor, dim: int, output_size: int, scale: float, align_corners: bool) -> Tensor:
    """(1 − weight) · one neighbour + weight · the other, along one dimension."""
    low, high, weight = linear_sources(x.shape[dim], output_size, scale, align_corners, x.array.dtype)
    return Resample(dim, [(low, 1 - weight), (high, weight)])(x)


def _cubic(x: Tensor, dim: int, output_size: int, scale: float, align_corners: bool) -> Tensor:
    return Resample(dim, cubic_sources(x.shape[dim], output_size, scale, align_corners, x.array.dtype))(x)


def _output_sizes(
    size: tuple[int, ...], wanted: Any, scale_factor: Any, recompute_scale_factor: bool | None
) -> list[tuple[int, float]]:
    """For each spatial dimension its new size, and how many input elements go into one output element."""
    if wanted is None and scale_factor is None:
        raise ValueError("interpolate: either size or scale_factor should be defined")
    if wanted is not None and scale_factor is not None:
        raise ValueError("interpolate: only one of size or scale_factor should be defined")
    given, what = (wanted, "output size") if wanted is not None else (scale_factor, "scale_factor")
    numbers = tuple(given) if hasattr(given, "__iter__") else (given,) * len(size)
    if len(numbers) != len(size):
        raise ValueError(
            f"interpolate: Input and {what} must have the same number of spatial dimensions, but got input with "
            f"spatial dimensions of {list(size)} and {what} of {numbers}"
        )
    if wanted is not None:
        if recompute_scale_factor:
            raise ValueError("interpolate: recompute_scale_factor is not meaningful with an explicit size.")
        sizes = [int(n) for n in numbers]
    else:
        sizes = [math.floor(n * f) for n, f in zip(size, numbers, strict=True)]
    if min(*sizes, *size) < 1:
        raise RuntimeError(
            f"interpolate: Input and output sizes should be greater than 0, but got input {list(size)} output {sizes}"
        )
    exact = wanted is not None or recompute_scale_factor
    scales = [n / m if exact else 1 / f for n, m, f in zip(size, sizes, numbers, strict=True)]
    return list(zip(sizes, scales, strict=True))


def _check_mode(input: Tensor, mode: str, align_corners: bool | None) -> None:
    require_tensor("interpolate", "input", input)
    if mode not in MODES or not 3 <= input.ndim <= 5:
        raise NotImplementedError(
            f"interpolate: Only 3D, 4D and 5D input Tensors supported (got {input.ndim}D) for the modes: "
            f"{' | '.join(MODES)} (got {mode})"
        )
    if MODES[mode] not in (None, input.ndim):
        raise NotImplementedError(f"interpolate: Got {input.ndim}D input, but {mode} mode needs {MODES[mode]}D input")
    if align_corners is not None and MODES[mode] is None:
        raise ValueError(
            "interpolate: align_corners option can only be set with the interpolating modes: "
            "linear | bilinear | bicubic | trilinear"
        )
    if not dtypes.is_floating(input.array.dtype):
        raise NotImplementedError(f'"interpolate" not implemented for {input.array.dtype.name}')


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Input (N, C, L), (N, C, H, W) or (N, C, D, H, W) with other spatial sizes: `size`, or ⌊size · scale_factor⌋.

    mode 'nearest' copies elements ('nearest-exact' those whose centres are nearest), 'linear', 'bilinear' and
    'trilinear' (by the number of dimensions) mix two neighbours in each direction, 'bicubic' four, 'area' is
    `adaptive_avg_pool`. With `align_corners` the outermost elements keep their places, else the edges of the image do.
    `antialias` is not there.

    >>> import shared
    >>> from shared.nn import functional as F
    >>> F.interpolate(shared.tensor([[[1., 2.]]]), scale_factor=2)
    tensor([[[1., 1., 2., 2.]]])
    >>> F.interpolate(shared.tensor([[[1., 2.]]]), size=3, mode="linear", align_corners=True)
    tensor([[[1.0000, 1.5000, 2.0000]]])
    """
    _check_mode(input, mode, align_corners)
    if antialias:
        raise NotImplementedError("interpolate: antialias=True is not implemented; avg_pool2d first, or mode='area'")
    plan = _output_sizes(tuple(input.shape[2:]), size, scale_factor, recompute_scale_factor)
    if mode == "area":
        pool = {3: adaptive_avg_pool1d, 4: adaptive_avg_pool2d, 5: adaptive_avg_pool3d}[input.ndim]
        return pool(input, tuple(n for n, _ in plan))
    return resized(input, plan, mode, bool(align_corners))


@follows_autocast
def resized(input: Tensor, plan: list[tuple[int, float]], mode: str, align_corners: bool) -> Tensor:
    """`interpolate` to the sizes of `plan`, one (size, scale) for each spatial dimension, in a mode other than area."""
    if tuple(n for n, _ in plan) == tuple(input.shape[2:]) and mode in COPIES[input.ndim]:
        return input.clone()
    half = input.array.dtype.itemsize < 4 and MODES[mode] is not None
    out = cast(input, dtypes.float32) if half else input
    for dim, (n, scale) in enumerate(plan, 2):
        if MODES[mode] is None:
            out = _nearest(out, dim, n, scale, mode == "nearest-exact")
        else:
            out = (_cubic if mode == "bicubic" else _linear)(out, dim, n, scale, align_corners)
    return cast(out, input.array.dtype) if half else out


def upsample(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`interpolate` under its old name."""
    warnings.warn(
        "`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.", UserWarning, stacklevel=2
    )
    return interpolate(input, size, scale_factor, mode, align_corners)
