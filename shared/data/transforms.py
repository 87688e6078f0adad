"""Transforms: from what a dataset stores to what a model wants, and random changes for training.

An image is a uint8 array (H, W) or (H, W, C) until `ToTensor`, a float Tensor (C, H, W) after it; the
geometric transforms take both. Random ones draw from the framework's generator, so that `manual_seed` fixes
them.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np

from shared.arrays.random import default_generator
from shared.data import warp
from shared.tensor import Tensor


class InterpolationMode(Enum):
    """How a pixel between pixels is read: the nearest one, or the weighted mean of its four neighbours."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


def _on_planes(change: Callable[[np.ndarray], np.ndarray], image: Any) -> Any:
    """Applies `change`, which works on (..., H, W), to an image in any of the layouts; keeps the layout."""
    if isinstance(image, Tensor):
        return Tensor(np.ascontiguousarray(change(image.array)))
    image = np.asarray(image)
    if image.ndim == 3:
        return np.ascontiguousarray(np.moveaxis(change(np.moveaxis(image, -1, 0)), 0, -1))
    return np.ascontiguousarray(change(image))


def _height_width(image: Any) -> tuple[int, int]:
    shape = tuple(image.shape)
    if len(shape) < 2:
        raise ValueError(f"expected an image (H, W), (H, W, C) or a Tensor (C, H, W), but got shape {shape}")
    return shape[-2:] if isinstance(image, Tensor) or len(shape) == 2 else shape[:2]


def _uniform(low: float, high: float) -> float:
    return float(default_generator().rng.uniform(low, high))


class Compose:
    """One transform after the other.

    >>> Compose([Lambda(abs), Lambda(str)])(-3)
    '3'
    """

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        """Applies `self.transforms` in their order, each to what the one before returned."""
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self) -> str:
        lines = "".join(f"\n    {transform!r}" for transform in self.transforms)
        return f"Compose({lines}\n)"


class Lambda:
    """Any function as a transform. A `lambda` cannot be sent to worker processes; a named function can.

    >>> Lambda(lambda image: 255 - image)(np.zeros((1, 2), np.uint8)).tolist()
    [[255, 255]]
    """

    def __init__(self, lambd: Callable):
        if not callable(lambd):
            raise TypeError(f"Argument lambd should be callable, got {type(lambd).__name__!r}")
        self.lambd = lambd

    def __call__(self, image: Any) -> Any:
        return self.lambd(image)

    def __repr__(self) -> str:
        return "Lambda()"


class ToTensor:
    """An array (H, W) or (H, W, C) to a Tensor (C, H, W); uint8 becomes float32 in [0, 1], other dtypes stay.

    >>> ToTensor()(np.full((2, 3), 255, dtype=np.uint8)).shape
    Size([1, 2, 3])
    """

    def __call__(self, image: Any) -> Any:
        """The image as a new, contiguous Tensor (C, H, W); a grey one (H, W) has C = 1.

        `_array(image)` gives the array (H, W) or (H, W, C). uint8 is divided by 255 in float32; other dtypes
        and their values stay. The Tensor shares no memory with `image`.
        """
        image = _array(image)
        planes = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
        if planes.dtype == np.uint8:
            return Tensor(np.divide(planes, 255, dtype=np.float32, order="C"))
        return Tensor(planes.copy())

    def __repr__(self) -> str:
        return "ToTensor()"


def _array(image: Any) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim not in (2, 3):
        raise ValueError(f"an image has 2 or 3 dimensions, (H, W) or (H, W, C), but got shape {image.shape}")
    return image


class Normalize:
    """`(image − mean) / std` per channel, on a float Tensor (..., C, H, W).

    >>> Normalize((0.5,), (0.25,))
    Normalize(mean=(0.5,), std=(0.25,))
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False):
        self.mean = mean
        self.std = std
        self.inplace = inplace

    def __call__(self, image: Any) -> Any:
        """`(image − mean) / std` of a Tensor (..., C, H, W), in its own dtype.

        `self.mean` and `self.std` hold one number for each channel, or one for all. A new Tensor; with
        `self.inplace` the values in `image` are changed and `image` is returned. `_float_array(image)` gives
        its array and refuses what is no float Tensor; `self._check(array, mean, std)`, with means and stds as
        arrays (C, 1, 1), refuses what does not fit.
        """
        values = _float_array(image)
        mean, std = (np.asarray(v, dtype=values.dtype).reshape(-1, 1, 1) for v in (self.mean, self.std))
        self._check(values, mean, std)
        result = np.subtract(values, mean, out=values if self.inplace else None)
        result /= std
        return image if self.inplace else Tensor(result)

    def _check(self, values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> None:
        """ValueError for a std with a zero, or another number of means or stds than `values` has channels."""
        if (std == 0).any():
            raise ValueError(f"std has a zero, which would mean a division by zero: {self.std}")
        if values.ndim < 3 or any(len(v) not in (1, values.shape[-3]) for v in (mean, std)):
            raise ValueError(
                f"expected (..., C, H, W) and one mean and std for each channel, but got shape {values.shape}, "
                f"mean {self.mean} and std {self.std}"
            )

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


def _float_array(image: Any) -> np.ndarray:
    """The array of a float Tensor; TypeError for anything else."""
    if not isinstance(image, Tensor):
        raise TypeError(f"Normalize takes a Tensor, but got {type(image).__name__}: put ToTensor() before it")
    if image.array.dtype.kind != "f":
        raise TypeError(f"Normalize takes a float Tensor, but got {image.array.dtype}: put ToTensor() before it")
    return image.array


class RandomHorizontalFlip:
    """Mirrors left and right with probability `p`.

    >>> RandomHorizontalFlip(p=1.0)(np.arange(3).reshape(1, 3)).tolist()
    [[2, 1, 0]]
    """

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, image: Any) -> Any:
        """With probability `self.p` the mirrored image, else the image; one draw at each call.

        `_uniform(0, 1)` draws from the framework's generator. `_on_planes(change, image)` applies a function
        of arrays (..., H, W) to an image of any layout and returns a new one of the same layout.
        """
        if _uniform(0, 1) < self.p:
            return _on_planes(lambda planes: planes[..., ::-1], image)
        return image

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p})"


class RandomCrop:
    """Cuts out a random window of `size` (an int or (height, width)), after `padding` on every side.

    `padding`: an int, (left/right, top/bottom) or (left, top, right, bottom). `padding_mode`: "constant"
    (with `fill`), "edge", "reflect" or "symmetric". `pad_if_needed` pads an image smaller than the window.

    >>> RandomCrop(28, padding=2)(np.zeros((28, 28), np.uint8)).shape
    (28, 28)
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: float = 0,
        padding_mode: str = "constant",
    ):
        if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise ValueError(f"padding_mode must be constant, edge, reflect or symmetric, but got {padding_mode!r}")
        self.size = (int(size), int(size)) if isinstance(size, numbers.Number) else tuple(size)
        self.padding = padding
        self.pad_if_needed = pad_if_needed
        self.fill = fill
        self.padding_mode = padding_mode

    def __call__(self, image: Any) -> Any:
        """A window of `self.size` (height, width) of the padded image, each place in it equally likely.

        `self._padded(image)` pads as asked, `_height_width` gives an image's size in pixels, `_on_planes`
        applies a function of arrays (..., H, W) in any layout. The place is drawn at each call, from
        `default_generator().rng`, a NumPy generator.
        """
        image = self._padded(image)
        height, width = _height_width(image)
        rng = default_generator().rng
        top = int(rng.integers(0, height - self.size[0] + 1))
        left = int(rng.integers(0, width - self.size[1] + 1))
        return _on_planes(lambda p: p[..., top : top + self.size[0], left : left + self.size[1]], image)

    def _padded(self, image: Any) -> Any:
        """The image with `padding` on every side; ValueError where it is smaller than the window even so."""
        if self.padding is not None:
            image = self._pad(image, *_four_sides(self.padding))
        height, width = _height_width(image)
        if self.pad_if_needed:
            missing_h, missing_w = max(self.size[0] - height, 0), max(self.size[1] - width, 0)
            image = self._pad(image, missing_w, missing_h, missing_w, missing_h)
            height, width = _height_width(image)
        if height < self.size[0] or width < self.size[1]:
            raise ValueError(f"Required crop size {self.size} is larger than input image size {(height, width)}")
        return image

    def _pad(self, image: Any, left: int, top: int, right: int, bottom: int) -> Any:
        options = {"constant_values": self.fill} if self.padding_mode == "constant" else {}

        def pad(planes: np.ndarray) -> np.ndarray:
            widths = [(0, 0)] * (planes.ndim - 2) + [(top, bottom), (left, right)]
            return np.pad(planes, widths, mode=self.padding_mode, **options)

        return _on_planes(pad, image)

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, padding={self.padding})"


def _four_sides(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """left, top, right, bottom."""
    sides = (padding,) if isinstance(padding, numbers.Number) else tuple(padding)
    if len(sides) not in (1, 2, 4):
        raise ValueError(f"Padding must be an int or a 1, 2, or 4 element tuple, not a {len(sides)} element tuple")
    return tuple(sides * (4 // len(sides)))


class RandomAffine:
    """Rotates, shifts, scales and shears at random about the centre.

    degrees: rotation is drawn from (−degrees, degrees), or from the given pair; positive is clockwise
    (as in torchvision, and the opposite of RandomRotation). translate: largest shift as a fraction of (width,
    height). scale: a pair the factor is drawn from. shear: an angle in degrees, or a pair (x only), or four
    numbers (x and y). `fill` is the value of what comes in from outside.

    >>> RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1))(np.zeros((28, 28), np.uint8)).shape
    (28, 28)
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        shear: float | Sequence[float] | None = None,
        interpolation: InterpolationMode | str = InterpolationMode.NEAREST,
        fill: float = 0,
        center: Sequence[float] | None = None,
    ):
        self.degrees = _symmetric(degrees, "degrees")
        if translate is not None and not all(0 <= t <= 1 for t in translate):
            raise ValueError(f"translation values should be between 0 and 1, but got {translate}")
        if scale is not None and not all(s > 0 for s in scale):
            raise ValueError(f"scale values should be positive, but got {scale}")
        self.translate = translate
        self.scale = scale
        self.shear = None if shear is None else _symmetric(shear, "shear")
        self.interpolation = InterpolationMode(interpolation)
        self.fill = fill
        self.center = center

    def get_params(self, height: int, width: int) -> tuple[float, tuple[int, int], float, tuple[float, float]]:
        """Draws (angle in degrees, shift in pixels (x, y), factor, shear in degrees (x, y))."""
        angle = _uniform(*self.degrees)
        shift = (0, 0)
        if self.translate is not None:
            largest_x, largest_y = self.translate[0] * width, self.translate[1] * height
            shift = (round(_uniform(-largest_x, largest_x)), round(_uniform(-largest_y, largest_y)))
        factor = 1.0 if self.scale is None else _uniform(*self.scale)
        shear = (0.0, 0.0)
        if self.shear is not None:
            shear = (_uniform(*self.shear[:2]), _uniform(*self.shear[2:4]) if len(self.shear) == 4 else 0.0)
        return angle, shift, factor, shear

    def __call__(self, image: Any) -> Any:
        height, width = _height_width(image)
        angle, shift, factor, shear = self.get_params(height, width)
        matrix = warp.inverse_affine_matrix(angle, shift, factor, shear, warp.offset(self.center, height, width))
        return _on_planes(lambda p: warp.warp(p, matrix, (height, width), self.interpolation.value, self.fill), image)

    def __repr__(self) -> str:
        parts = [f"degrees={self.degrees}"]
        parts += [f"{n}={getattr(self, n)}" for n in ("translate", "scale", "shear") if getattr(self, n) is not None]
        if self.interpolation is not InterpolationMode.NEAREST:
            parts.append(f"interpolation={self.interpolation.value}")
        if self.fill != 0:
            parts.append(f"fill={self.fill}")
        return f"RandomAffine({', '.join(parts)})"


class RandomRotation:
    """Rotates by an angle in degrees drawn from (−degrees, degrees), or from the given pair; positive is
    counter-clockwise. `expand` makes the result large enough to hold the whole rotated image.

    >>> RandomRotation((90, 90))(np.arange(4).reshape(2, 2)).tolist()
    [[1, 3], [0, 2]]
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: InterpolationMode | str = InterpolationMode.NEAREST,
        expand: bool = False,
        center: Sequence[float] | None = None,
        fill: float = 0,
    ):
        self.degrees = _symmetric(degrees, "degrees")
        self.interpolation = InterpolationMode(interpolation)
        self.expand = expand
        self.center = center
        self.fill = fill

    def __call__(self, image: Any) -> Any:
        height, width = _height_width(image)
        angle = _uniform(*self.degrees)
        center = (0.0, 0.0) if self.expand else warp.offset(self.center, height, width)
        matrix = warp.inverse_rotation_matrix(angle, center)
        size = warp.expanded_size(matrix, height, width) if self.expand else (height, width)
        return _on_planes(lambda p: warp.warp(p, matrix, size, self.interpolation.value, self.fill), image)

    def __repr__(self) -> str:
        return (
            f"RandomRotation(degrees={self.degrees}, interpolation={self.interpolation.value}, "
            f"expand={self.expand}, fill={self.fill})"
        )


def _symmetric(value: float | Sequence[float], name: str) -> tuple[float, ...]:
    """A number d as (−d, d); a sequence as floats."""
    if isinstance(value, numbers.Number):
        if value < 0:
            raise ValueError(f"If {name} is a single number, it must be positive, but got {value}")
        return (-float(value), float(value))
    if len(value) not in ((2, 4) if name == "shear" else (2,)):
        raise ValueError(f"{name} should be a number or a pair, but got {value}")
    return tuple(float(v) for v in value)
