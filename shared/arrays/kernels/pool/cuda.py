"""Pooling on the GPU: a thread per result, forward and backward, so that nothing is added in a changing order.

Formulas in reference.py. Everything has three spatial dimensions here; missing ones have size 1. A plane is one
channel of one image.
"""

from __future__ import annotations

from typing import Any

from shared.arrays.device import xp
from shared.arrays.kernels.launch import Kernels, geometry
from shared.arrays.kernels.windows import Windows

__all__ = ["avg_pool", "avg_pool_input", "max_pool", "max_pool_input"]

Array = Any  # cupy.ndarray

kernels = Kernels(r"""
// The element `at` of an array (planes, *size), as its plane and its three coordinates.
struct Place {
    I plane;
    int at[3];
    __device__ Place(I index, const int* size) {
        for (int d = 2; d >= 0; d--) {
            at[d] = index % size[d];
            index /= size[d];
        }
        plane = index;
    }
};

__device__ inline I flat(I plane, const int* at, const int* size) {
    return ((plane * size[0] + at[0]) * size[1] + at[1]) * size[2] + at[2];
}

// Walks through the elements of the window `o`: `at` is where the next one lies, on padding where inside() is false.
struct Window {
    const Geometry& g;
    const int* o;
    int k[3] = {0, 0, -1}, at[3];
    __device__ Window(const Geometry& g, const int* o) : g(g), o(o) {}
    __device__ bool next() {
        int d = 2;
        while (d >= 0 && ++k[d] == g.kernel[d]) k[d--] = 0;
        for (int i = 0; i < 3; i++) at[i] = o[i] * g.stride[i] + k[i] * g.dilation[i] - g.padding[i];
        return d >= 0;
    }
    __device__ bool inside() const {
        bool in = true;
        for (int d = 0; d < 3; d++) in &= at[d] >= 0 && at[d] < g.size[d];
        return in;
    }
};

// Walks through the windows that see the element `at`, one for each of their elements: `o` where seen() is true.
struct Seen {
    const Geometry& g;
    const int* at;
    int k[3] = {0, 0, -1}, o[3];
    __device__ Seen(const Geometry& g, const int* at) : g(g), at(at) {}
    __device__ bool next() {
        int d = 2;
        while (d >= 0 && ++k[d] == g.kernel[d]) k[d--] = 0;
        return d >= 0;
    }
    __device__ bool seen() {
        bool yes = true;
        for (int d = 0; d < 3; d++) {
            o[d] = seen_by(g, d, at[d], k[d]);
            yes &= o[d] >= 0;
        }
        return yes;
    }
};

extern "C" __global__ void max_pool(const T* x, T* out, int* places, const __grid_constant__ Geometry g,
                                    long long size) {
    for (I i = first(); i < size; i += step()) {
        const Place to(i, g.count);
        A best = -infinity();
        int place = -1;
        for (Window window(g, to.at); window.next();)
            if (window.inside()) {
                A value = x[flat(to.plane, window.at, g.size)];
                if (place < 0 || value > best || value != value) {
                    best = value;
                    place = flat(0, window.at, g.size);
                }
            }
        out[i] = T(best);
        places[i] = place;
    }
}

extern "C" __global__ void max_pool_input(const T* grad, const int* places, T* out, const __grid_constant__ Geometry g,
                                          long long size) {
    for (I i = first(); i < size; i += step()) {
        const Place to(i, g.size);
        const int own = flat(0, to.at, g.size);
        A total = 0;
        for (Seen window(g, to.at); window.next();)
            if (window.seen()) {
                I from = flat(to.plane, window.o, g.count);
                if (places[from] == own) total += (A)grad[from];
            }
        out[i] = T(total);
    }
}

extern "C" __global__ void avg_pool(const T* x, const T* divisor, T* out, const __grid_constant__ Geometry g,
                                    long long size) {
    for (I i = first(); i < size; i += step()) {
        const Place to(i, g.count);
        A total = 0;
        for (Window window(g, to.at); window.next();)
            if (window.inside()) total += (A)x[flat(to.plane, window.at, g.size)];
        out[i] = T(total / (A)divisor[flat(0, to.at, g.count)]);
    }
}

extern "C" __global__ void avg_pool_input(const T* grad, const T* divisor, T* out, const __grid_constant__ Geometry g,
                                          long long size) {
    for (I i = first(); i < size; i += step()) {
        const Place to(i, g.size);
        A total = 0;
        for (Seen window(g, to.at); window.next();)
            if (window.seen())
                total += (A)grad[flat(to.plane, window.o, g.count)] / (A)divisor[flat(0, window.o, g.count)];
        out[i] = T(total);
    }
}
""")


def max_pool(x: Array, windows: Windows) -> tuple[Array, Array]:
    """`reference.max_pool`."""
    out = xp(x).empty((*x.shape[:2], *windows.count), x.dtype)
    places = xp(x).empty(out.shape, "int32")
    kernels.over(out.size, "max_pool", x, x, out, places, geometry(windows, x.shape[2:]))
    return out, places


def max_pool_input(grad: Array, places: Array, size: tuple[int, ...], windows: Windows) -> Array:
    """`reference.max_pool_input`."""
    out = xp(grad).empty((*grad.shape[:2], *size), grad.dtype)
    kernels.over(
        out.size, "max_pool_input", out if out.size > grad.size else grad, grad, places, out, geometry(windows, size)
    )
    return out


def avg_pool(x: Array, windows: Windows, divisor: Array) -> Array:
    """`reference.avg_pool`."""
    out = xp(x).empty((*x.shape[:2], *windows.count), x.dtype)
    kernels.over(out.size, "avg_pool", x, x, divisor, out, geometry(windows, x.shape[2:]))
    return out


def avg_pool_input(grad: Array, size: tuple[int, ...], windows: Windows, divisor: Array) -> Array:
    """`reference.avg_pool_input`."""
    out = xp(grad).empty((*grad.shape[:2], *size), grad.dtype)
    kernels.over(
        out.size, "avg_pool_input", out if out.size > grad.size else grad, grad, divisor, out, geometry(windows, size)
    )
    return out
