"""Dropout on the GPU: mask and product in one launch; from equal seeds the CPU's mask. Formulas in reference.py."""

from __future__ import annotations

from typing import Any

from shared.arrays.device import xp
from shared.arrays.kernels.dropout.reference import FIRST, SECOND, THIRD
from shared.arrays.kernels.launch import Kernels

__all__ = ["dropout", "dropout_input"]

Array = Any  # cupy.ndarray

# The number of an element: `reference.uniform`.
UNIFORM = (
    f"""
#define FIRST {FIRST}u
#define SECOND {SECOND}u
#define THIRD {THIRD}u
"""
    r"""
__device__ inline float uniform(unsigned place, long long seed) {
    unsigned h = place + (unsigned)seed;
    h = (h ^ h >> 17) * FIRST;
    h = (h ^ h >> 11) + (unsigned)(seed >> 32);
    h = (h ^ h >> 15) * SECOND;
    h = (h ^ h >> 14) * THIRD;
    h = h ^ h >> 15;
    return (h >> 8) * 5.9604644775390625e-8f;  // 2⁻²⁴
}
"""
)

kernels = Kernels(
    UNIFORM
    + r"""
extern "C" __global__ void drop(const T* x, bool* mask, T* out, double p, double scale, long long seed,
                                long long size) {
    const A factor = T(scale);
    for (I i = first(); i < size; i += step()) {
        const bool keep = uniform(i, seed) >= (float)p;
        mask[i] = keep;
        out[i] = T((A)x[i] * (keep ? factor : 0));  // a product: NaN stays NaN
    }
}

extern "C" __global__ void drop_gradient(const T* grad, const bool* mask, T* out, double scale, long long size) {
    const A factor = T(scale);
    for (I i = first(); i < size; i += step()) out[i] = T((A)grad[i] * (mask[i] ? factor : 0));
}
"""
)


def drop_scale(p: float) -> float:
    """What an element that is kept is multiplied by."""
    return 1 / (1 - p) if p < 1 else 0.0


def signed(seed: int) -> int:
    """The 64 bits of a seed as a number that fits into long long."""
    return (seed & (1 << 64) - 1 ^ 1 << 63) - (1 << 63)


def dropout(x: Array, p: float, mask_shape: tuple[int, ...], seed: int) -> tuple[Array, Array]:
    """`reference.dropout` for a mask of the shape of x."""
    mask, out = xp(x).empty(mask_shape, bool), xp(x).empty(x.shape, x.dtype)
    if x.size:
        kernels.over(x.size, "drop", x, x, mask, out, float(p), drop_scale(p), signed(seed))
    return out, mask


def dropout_input(grad: Array, p: float, mask: Array) -> Array:
    """`reference.dropout_input` for a mask of the shape of grad."""
    out = xp(grad).empty(grad.shape, grad.dtype)
    if grad.size:
        kernels.over(grad.size, "drop_gradient", grad, grad, mask, out, drop_scale(p))
    return out
