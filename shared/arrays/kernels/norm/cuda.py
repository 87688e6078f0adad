"""Normalisation on the GPU. Formulas in reference.py.

Layer, RMS and group norm are rows with their own moments: one launch forward, two or three backward. The moments of
batch norm come from those of each channel of each image, put together: three launches forward, three backward. All sums
have one order.

Source: Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983, for moments put together.
"""

from __future__ import annotations

from typing import Any

from shared.arrays.device import xp
from shared.arrays.kernels.launch import Kernels

__all__ = [
    "batch_norm",
    "batch_norm_input",
    "group_norm",
    "group_norm_input",
    "layer_norm",
    "layer_norm_input",
    "normalize_channels",
    "normalize_channels_input",
    "rms_norm",
    "rms_norm_input",
]

Array = Any  # cupy.ndarray

_AT_ONCE = 1 << 17  # threads that sum over rows, each for one column and a part of the rows

kernels = Kernels(r"""
// ---------------------------------------------------------------- rows

// Element i of row r belongs to channel r % groups · (columns / length) + i / length. Layer norm has length and groups
// of 1. Without `mean` the rows are not centred; `spread` gets 1 / std, or the variance.
extern "C" __global__ void rows_norm(const T* x, const T* weight, const T* bias, T* out, T* mean, T* spread,
                                     double eps, long long inverse, long long groups, long long length,
                                     long long columns, long long width, long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns), begin = at.row * columns, channel = at.row % groups * (columns / length);
        A middle = 0, squares = 0;
        if (mean) {
            for (I i = at.lane; i < n; i += at.width) middle += (A)x[begin + i];
            middle = row_sum(middle, at.width) / (A)columns;
        }
        for (I i = at.lane; i < n; i += at.width) {
            A deviation = (A)x[begin + i] - middle;
            squares += deviation * deviation;
        }
        const A variance = row_sum(squares, at.width) / (A)columns, inv_std = 1 / sqrt(variance + (A)eps);
        for (I i = at.lane; i < n; i += at.width) {
            const I c = channel + i / length;
            A value = ((A)x[begin + i] - middle) * inv_std;
            if (weight) value *= (A)weight[c];
            if (bias) value += (A)bias[c];
            out[begin + i] = T(value);
        }
        if (n && at.lane == 0) {
            if (mean) mean[at.row] = T(middle);
            spread[at.row] = T(inverse ? inv_std : variance);
        }
    }
}

extern "C" __global__ void rows_input(const T* grad, const T* x, const T* mean, const T* inv_std, const T* weight,
                                      T* out, long long groups, long long length, long long columns, long long width,
                                      long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns), begin = at.row * columns, channel = at.row % groups * (columns / length);
        const A middle = n && mean ? (A)mean[at.row] : 0, scale = n ? (A)inv_std[at.row] : 0;
        A along_mean = 0, along_std = 0;
        for (I i = at.lane; i < n; i += at.width) {
            A g = (A)grad[begin + i] * (weight ? (A)weight[channel + i / length] : 1);
            along_mean += g;
            along_std += g * (((A)x[begin + i] - middle) * scale);
        }
        along_std = row_sum(along_std, at.width) / (A)columns;
        along_mean = mean ? row_sum(along_mean, at.width) / (A)columns : 0;
        for (I i = at.lane; i < n; i += at.width) {
            A g = (A)grad[begin + i] * (weight ? (A)weight[channel + i / length] : 1);
            A normalized = ((A)x[begin + i] - middle) * scale;
            out[begin + i] = T(scale * (g - along_mean - normalized * along_std));
        }
    }
}

// Σ grad · x̂ and Σ grad over every `parts`-th row, for each column: sums (2, parts, columns). A thread takes a column.
extern "C" __global__ void rows_weight(const T* grad, const T* x, const T* mean, const T* inv_std, A* sums,
                                       long long rows, long long columns, long long size) {
    const I parts = size / columns;
    for (I i = first(); i < size; i += step()) {
        const I column = i % columns;
        A to_weight = 0, to_bias = 0;
        for (I row = i / columns; row < rows; row += parts) {
            const A g = grad[row * columns + column], middle = mean ? (A)mean[row] : 0;
            to_weight += g * (((A)x[row * columns + column] - middle) * (A)inv_std[row]);
            to_bias += g;
        }
        sums[i] = to_weight;
        sums[size + i] = to_bias;
    }
}

// ---------------------------------------------------------------- channels of x (N, C, L), which are rows (N · C, L)

extern "C" __global__ void row_moments(const T* x, A* means, A* squares, long long columns, long long width,
                                       long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns), begin = at.row * columns;
        A middle = 0, total = 0;
        for (I i = at.lane; i < n; i += at.width) middle += (A)x[begin + i];
        middle = row_sum(middle, at.width) / (A)columns;
        for (I i = at.lane; i < n; i += at.width) {
            A deviation = (A)x[begin + i] - middle;
            total += deviation * deviation;
        }
        total = row_sum(total, at.width);
        if (n && at.lane == 0) means[at.row] = middle, squares[at.row] = total;
    }
}

// A row is a channel here, and its columns are the images.
extern "C" __global__ void channel_moments(const A* means, const A* squares, T* mean, T* variance, long long length,
                                           long long images, long long width, long long channels) {
    for (Rows at(width, channels); at.more(); at.next()) {
        const I n = at.count(images);
        A middle = 0, total = 0;
        for (I i = at.lane; i < n; i += at.width) middle += means[i * channels + at.row];
        middle = row_sum(middle, at.width) / (A)images;
        for (I i = at.lane; i < n; i += at.width) {
            A deviation = means[i * channels + at.row] - middle;
            total += squares[i * channels + at.row] + (A)length * deviation * deviation;
        }
        total = row_sum(total, at.width);
        if (n && at.lane == 0) mean[at.row] = T(middle), variance[at.row] = T(total / ((A)images * (A)length));
    }
}

extern "C" __global__ void channel_norm(const T* x, const T* mean, const T* variance, const T* weight, const T* bias,
                                        T* out, double eps, long long channels, long long length, long long size) {
    for (I i = first(); i < size; i += step()) {
        const I c = i / length % channels;
        A value = ((A)x[i] - (A)mean[c]) / sqrt((A)variance[c] + (A)eps);
        if (weight) value *= (A)weight[c];
        if (bias) value += (A)bias[c];
        out[i] = T(value);
    }
}

// Σ grad and Σ grad · x̂ of each row; the moments are those of channels, or of `together` rows.
extern "C" __global__ void row_sums(const T* grad, const T* x, const T* mean, const T* inv_std, A* to_bias,
                                    A* to_weight, long long channels, long long together, long long columns,
                                    long long width, long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns), begin = at.row * columns, m = together ? at.row / together : at.row % channels;
        const A middle = n ? (A)mean[m] : 0, scale = n ? (A)inv_std[m] : 0;
        A total = 0, product = 0;
        for (I i = at.lane; i < n; i += at.width) {
            total += (A)grad[begin + i];
            product += (A)grad[begin + i] * (((A)x[begin + i] - middle) * scale);
        }
        total = row_sum(total, at.width);
        product = row_sum(product, at.width);
        if (n && at.lane == 0) to_bias[at.row] = total, to_weight[at.row] = product;
    }
}

extern "C" __global__ void channel_sums(const A* row_bias, const A* row_weight, T* to_bias, T* to_weight,
                                        long long images, long long width, long long channels) {
    for (Rows at(width, channels); at.more(); at.next()) {
        const I n = at.count(images);
        A total = 0, product = 0;
        for (I i = at.lane; i < n; i += at.width) {
            total += row_bias[i * channels + at.row];
            product += row_weight[i * channels + at.row];
        }
        total = row_sum(total, at.width);
        product = row_sum(product, at.width);
        if (n && at.lane == 0) to_bias[at.row] = T(total), to_weight[at.row] = T(product);
    }
}

// The sums of a channel over `count` elements, or constant moments: then `count` is 0.
extern "C" __global__ void channel_input(const T* grad, const T* x, const T* mean, const T* inv_std, const T* weight,
                                         const T* to_bias, const T* to_weight, T* out, long long count,
                                         long long channels, long long length, long long size) {
    for (I i = first(); i < size; i += step()) {
        const I c = i / length % channels;
        const A scale = inv_std[c];
        A value = grad[i];
        if (count) {
            A normalized = ((A)x[i] - (A)mean[c]) * scale;
            value = value - (A)to_bias[c] / (A)count - normalized * ((A)to_weight[c] / (A)count);
        }
        out[i] = T(value * (weight ? (A)weight[c] * scale : scale));
    }
}
""")


def _or_null(array: Array | None) -> Any:
    return 0 if array is None else array


def _sums_of(like: Array, *shape: int) -> Array:
    """An array for sums: float32, or float64 for float64."""
    return xp(like).empty(shape, "float64" if like.dtype.name == "float64" else "float32")


# ---------------------------------------------------------------- rows


def layer_norm(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """`reference.layer_norm` in one launch."""
    out, (mean, inv_std) = xp(x).empty(x.shape, x.dtype), xp(x).empty((2, len(x), 1), x.dtype)
    arguments = (x, _or_null(weight), _or_null(bias), out, mean, inv_std, float(eps), 1, 1, 1)
    kernels.rows(*x.shape, "rows_norm", x, *arguments)
    return out, mean, inv_std


def rms_norm(x: Array, weight: Array | None, eps: float) -> tuple[Array, Array]:
    """`reference.rms_norm` in one launch."""
    out, inv_rms = xp(x).empty(x.shape, x.dtype), xp(x).empty((len(x), 1), x.dtype)
    kernels.rows(*x.shape, "rows_norm", x, x, _or_null(weight), 0, out, 0, inv_rms, float(eps), 1, 1, 1)
    return out, inv_rms


def group_norm(
    x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """`reference.group_norm` in one launch."""
    rows = x.shape[0] * groups
    out, (mean, variance) = xp(x).empty(x.shape, x.dtype), xp(x).empty((2, rows, 1), x.dtype)
    arguments = (x, _or_null(weight), _or_null(bias), out, mean, variance, float(eps), 0, groups, x.shape[2])
    kernels.rows(rows, x.size // rows, "rows_norm", x, *arguments)
    return out, mean, variance


def _rows_input(
    grad: Array, x: Array, mean: Array | None, inv_std: Array, weight: Array | None, groups: int, length: int
) -> Array:
    """The gradient by x, whose rows are as many as `inv_std` has elements."""
    out, rows = xp(x).empty(x.shape, x.dtype), inv_std.size
    arguments = (grad, x, _or_null(mean), inv_std, _or_null(weight), out, groups, length)
    kernels.rows(rows, x.size // rows, "rows_input", x, *arguments)
    return out


def _rows_weight(grad: Array, x: Array, mean: Array | None, inv_std: Array) -> Array:
    """The gradients by weight and bias, (2, D): parts of the rows at the same time, then the parts together."""
    rows, columns = x.shape
    parts = max(1, min(-(-rows // 8), _AT_ONCE // columns))
    sums = _sums_of(x, 2, parts, columns)
    kernels.over(parts * columns, "rows_weight", x, grad, x, _or_null(mean), inv_std, sums, rows, columns)
    return sums.sum(axis=1).astype(x.dtype, copy=False)


def layer_norm_input(
    grad: Array, x: Array, mean: Array, inv_std: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """`reference.layer_norm_input`."""
    to_weight, to_bias = _rows_weight(grad, x, mean, inv_std)
    return _rows_input(grad, x, mean, inv_std, weight, 1, 1), to_weight, to_bias


def rms_norm_input(grad: Array, x: Array, inv_rms: Array, weight: Array | None) -> tuple[Array, Array]:
    """`reference.rms_norm_input`."""
    return _rows_input(grad, x, None, inv_rms, weight, 1, 1), _rows_weight(grad, x, None, inv_rms)[0]


def group_norm_input(
    grad: Array, x: Array, groups: int, mean: Array, inv_std: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """`reference.group_norm_input`."""
    to_weight, to_bias = _channel_sums(grad, x, mean, inv_std, x.shape[1] // groups)
    return _rows_input(grad, x, mean, inv_std, weight, groups, x.shape[2]), to_weight, to_bias


# ---------------------------------------------------------------- channels


def batch_norm(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """`reference.batch_norm` in three launches."""
    images, channels, length = x.shape
    means, squares = _sums_of(x, 2, images * channels)
    mean, variance = xp(x).empty((2, channels), x.dtype)
    kernels.rows(images * channels, length, "row_moments", x, x, means, squares)
    kernels.rows(channels, images, "channel_moments", x, means, squares, mean, variance, length)
    return normalize_channels(x, mean, variance, weight, bias, eps), mean, variance


def normalize_channels(
    x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None, eps: float
) -> Array:
    """`reference.normalize_channels` in one launch."""
    out = xp(x).empty(x.shape, x.dtype)
    arguments = (x, mean, variance, _or_null(weight), _or_null(bias), out, float(eps), x.shape[1], x.shape[2])
    kernels.over(x.size, "channel_norm", x, *arguments)
    return out


def _channel_sums(grad: Array, x: Array, mean: Array, inv_std: Array, together: int = 0) -> Array:
    """The gradients by weight and bias, (2, C): sums over each channel of each image, then over the images."""
    images, channels, length = x.shape
    row_bias, row_weight = _sums_of(x, 2, images * channels)
    sums = xp(x).empty((2, channels), x.dtype)
    arguments = (grad, x, mean, inv_std, row_bias, row_weight, channels, together)
    kernels.rows(images * channels, length, "row_sums", x, *arguments)
    kernels.rows(channels, images, "channel_sums", x, row_bias, row_weight, sums[1], sums[0])
    return sums


def _channel_input(
    grad: Array, x: Array, mean: Array, inv_std: Array, weight: Array | None, count: int
) -> tuple[Array, Array, Array]:
    """The gradients by x, weight and bias; `count` elements share a mean, or 0 where the moments are constants."""
    to_weight, to_bias = _channel_sums(grad, x, mean, inv_std)
    out = xp(x).empty(x.shape, x.dtype)
    numbers = (count, x.shape[1], x.shape[2])
    arguments = (grad, x, mean, inv_std, _or_null(weight), to_bias, to_weight, out, *numbers)
    kernels.over(x.size, "channel_input", x, *arguments)
    return out, to_weight, to_bias


def batch_norm_input(
    grad: Array, x: Array, mean: Array, inv_std: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """`reference.batch_norm_input` in three launches."""
    return _channel_input(grad, x, mean, inv_std, weight, x.shape[0] * x.shape[2])


def normalize_channels_input(
    grad: Array, x: Array, mean: Array, inv_std: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """`reference.normalize_channels_input` in three launches."""
    return _channel_input(grad, x, mean, inv_std, weight, 0)
