"""Geometry of images: the affine map, and reading an image through it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def offset(center: Sequence[float] | None, height: int, width: int) -> tuple[float, float]:
    """`center` (x, y in pixels from the upper left; None: the middle) relative to the image's middle."""
    return (0.0, 0.0) if center is None else (center[0] - width * 0.5, center[1] - height * 0.5)


def inverse_rotation_matrix(degrees: float, center: Sequence[float] = (0.0, 0.0)) -> np.ndarray:
    """The (2, 3) float64 matrix that takes a pixel (x, y, 1) of the rotated image to where it came from, (x, y).

    The image was rotated by `degrees` about `center` (x, y), counter-clockwise as one sees it on the screen.
    All coordinates, those of `center` too, count pixels from the image's middle, x to the right, y downward: so
    the matrix knows neither width nor height. What lies at `center` stays there.

    >>> inverse_rotation_matrix(90).round().astype(int).tolist()
    [[0, -1, 0], [1, 0, 0]]
    """
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    linear = np.array([[c, -s], [s, c]])
    about = np.asarray(center, dtype=float)
    return np.column_stack([linear, about - linear @ about])


def inverse_affine_matrix(
    angle: float,
    shift: Sequence[float],
    factor: float,
    shear: Sequence[float],
    center: Sequence[float] = (0.0, 0.0),
) -> np.ndarray:
    """The (2, 3) matrix that takes a pixel (x, y, 1) of the result to where it came from.

    Pixels count from the middle. The forward map is: move `center` to 0, shear, scale, rotate by `angle`
    degrees (clockwise on the screen, since y points down), move back, shift. As
    torchvision.transforms.functional.affine.
    """
    rot, shear_x, shear_y = (math.radians(v) for v in (angle, shear[0], shear[1]))
    a = math.cos(rot - shear_y) / math.cos(shear_y)
    b = -math.cos(rot - shear_y) * math.tan(shear_x) / math.cos(shear_y) - math.sin(rot)
    c = math.sin(rot - shear_y) / math.cos(shear_y)
    d = -math.sin(rot - shear_y) * math.tan(shear_x) / math.cos(shear_y) + math.cos(rot)
    linear = np.array([[d, -b], [-c, a]]) / factor  # the inverse of factor · [[a, b], [c, d]], whose determinant is 1
    about = np.asarray(center, dtype=float)
    return np.column_stack([linear, about - linear @ (about + np.asarray(shift, dtype=float))])


def expanded_size(matrix: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """(height, width) of the smallest image that holds all of the rotated one."""
    corners = np.array([[x * width / 2, y * height / 2] for x in (-1, 1) for y in (-1, 1)])
    spread = np.ptp(corners @ np.linalg.inv(matrix[:, :2]).T, axis=0)
    extent = np.ceil(np.round(spread, 3)).astype(int)  # rounded first: 28.0000001 pixels are 28
    return int(extent[1]), int(extent[0])


def warp(
    planes: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    interpolation: str = "nearest",
    fill: float = 0,
) -> np.ndarray:
    """A result (..., *size) of the dtype of `planes` (..., H, W): its pixel (x, y) is read at `matrix` · (x, y, 1).

    `size` is (height, width) of the result, which may be larger or smaller than (H, W).
    x (column, to the right) and y (row, downward) count pixels from the middle, of the result for the pixel
    and of `planes` for the place to read; the middle of n pixels is at index (n − 1) / 2. A place lies between
    pixels as a rule. "nearest" reads the pixel closest to it (round it to nine decimals first, so that a
    rounding error does not choose between two equally close ones). "bilinear" is the mean of the four
    around it, each weighted by the product of its closeness in x and in y, 1 − distance; for integer
    dtypes, and for these alone, the mean is rounded. `_read(planes, rows, columns, fill)` reads, also outside
    of the image.

    >>> image = np.arange(9).reshape(3, 3)
    >>> warp(image, inverse_affine_matrix(90, (0, 0), 1, (0, 0)), (3, 3)).tolist()
    [[6, 3, 0], [7, 4, 1], [8, 5, 2]]
    """
    height, width = planes.shape[-2:]
    y, x = np.indices(size, dtype=float)
    here = np.stack([x - (size[1] - 1) / 2, y - (size[0] - 1) / 2, np.ones(size)])
    x, y = np.tensordot(matrix, here, axes=1)
    x, y = x + (width - 1) / 2, y + (height - 1) / 2
    if interpolation == "nearest":
        return _read(planes, np.rint(y.round(9)).astype(int), np.rint(x.round(9)).astype(int), fill)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = y - top, x - left
    mixed = np.zeros(planes.shape[:-2] + tuple(size))
    for dy, weight_y in ((0, 1 - down), (1, down)):
        for dx, weight_x in ((0, 1 - right), (1, right)):
            mixed += weight_y * weight_x * _read(planes, top + dy, left + dx, fill)
    if planes.dtype.kind in "iu":
        mixed = np.rint(mixed)
    return mixed.astype(planes.dtype)


def _read(planes: np.ndarray, rows: np.ndarray, columns: np.ndarray, fill: float) -> np.ndarray:
    """planes[..., rows, columns] in the dtype of `planes`, and `fill` where a row or column is outside.

    `rows` and `columns` are integer arrays of one shape, here (h, w), of any values; planes (..., H, W) gives
    (..., h, w).
    """
    height, width = planes.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    values = planes[..., rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return np.where(inside, values, np.asarray(fill, dtype=planes.dtype))
