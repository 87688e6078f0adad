"""CUDA kernels for CuPy: compiled by NVRTC at their first use, kept on disk by CuPy, and started here.

A family's cuda.py has its kernels as one text of CUDA C++, written for any floating dtype:

- `T` is the type of the elements in memory. It converts to and from `A`, the type of the arithmetic: float, also for
  float16 and bfloat16, or double. `I` is the type of an index: int, or long long for more than 2³⁰ elements.
- A parameter is a pointer to `T`, long long for Python's int, double for its float, or a struct.
- A kernel over elements walks through them by `for (I i = first(); i < size; i += step())`, so that any number of
  blocks will do.
- A kernel over rows has `width` threads for a row, a power of two up to THREADS, the threads of a block. It walks
  through them by `for (Rows at(width, rows); at.more(); at.next())`: a thread takes the elements of `at.row` that
  `at.lane`, `at.lane + width` … count. `row_sum` and `row_max` combine a number of each thread of a row in a fixed
  order; all threads have to call them, also those without a row, for which `at.row` is past the end.

No header is included: the text compiles wherever NVRTC is, and with a C++ compiler in tests/cuda.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from shared.arrays.device import xp
from shared.arrays.kernels.windows import Windows

THREADS = 256  # of a block
MOST_BLOCKS = 8192  # beyond, threads take several elements or blocks several rows
_WIDE_FROM = 1 << 30  # from here on the sum of an index and a step might not fit into an int

PRELUDE = r"""
#ifdef __CUDACC__
__device__ inline unsigned short half_of(float v) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}
__device__ inline float float_of(unsigned short bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}
#endif

struct Half {  // float16
    unsigned short bits;
    Half() = default;
    __device__ Half(float v) : bits(half_of(v)) {}
    __device__ operator float() const { return float_of(bits); }
};

struct Brain {  // bfloat16: the upper half of a float
    unsigned short bits;
    Brain() = default;
    __device__ Brain(float v) {
        unsigned u = __float_as_uint(v);
        bits = v == v ? (u + 0x7fff + (u >> 16 & 1)) >> 16 : 0x7fc0;  // to the nearest, of two the even one
    }
    __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
};
"""

HELPERS = r"""
struct Geometry { int kernel[3], count[3], stride[3], padding[3], dilation[3], size[3]; };  // see geometry()

// The window whose element k lies at `at` in dimension d, or −1.
__device__ inline int seen_by(const Geometry& g, int d, int at, int k) {
    const int begin = at + g.padding[d] - k * g.dilation[d];
    const int o = g.stride[d] == 1 ? begin : begin / g.stride[d];  // a division takes as long as all the rest
    return begin >= 0 && o < g.count[d] && o * g.stride[d] == begin ? o : -1;
}

__device__ inline I first() { return (I)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline I step() { return (I)gridDim.x * blockDim.x; }
__device__ inline A infinity() { return (A)__int_as_float(0x7f800000); }
__device__ inline A not_a_number() { return (A)__int_as_float(0x7fc00000); }


struct Add { template <typename N> __device__ static N of(N a, N b) { return a + b; } };
struct Larger { template <typename N> __device__ static N of(N a, N b) { return a > b ? a : b; } };  // may lose a NaN

struct Rows {
    int width, lane;
    long long rows, row, base, step;
    __device__ Rows(long long width, long long rows) : width(width), lane(threadIdx.x % width), rows(rows) {
        const int together = THREADS / width;
        base = (long long)blockIdx.x * together;
        step = (long long)gridDim.x * together;
        row = base + threadIdx.x / width;
    }
    __device__ bool more() const { return base < rows; }  // the same for all threads of a block
    __device__ void next() { base += step, row += step; }
    __device__ I count(long long columns) const { return row < rows ? columns : 0; }
};

// One number of each of the `width` threads of a row, combined as a tree whose shape is always the same; each of them
// gets the result. `parts` is shared memory for THREADS numbers.
template <typename Combine, typename N> __device__ N row_tree(N value, int width, N* parts) {
    const int lane = threadIdx.x % width;
    parts[threadIdx.x] = value;
    __syncthreads();
    for (int half = width / 2; half > 0; half /= 2) {
        if (lane < half) parts[threadIdx.x] = Combine::of(parts[threadIdx.x], parts[threadIdx.x + half]);
        __syncthreads();
    }
    N result = parts[threadIdx.x - lane];
    __syncthreads();  // the next one writes to the same place
    return result;
}
__device__ inline A row_sum(A value, int width) {
    __shared__ A parts[THREADS];
    return row_tree<Add>(value, width, parts);
}
__device__ inline A row_max(A value, int width) {
    __shared__ A parts[THREADS];
    return row_tree<Larger>(value, width, parts);
}
"""

_TYPES = {
    "float64": ("double", "double"),
    "float32": ("float", "float"),
    "float16": ("Half", "float"),
    "bfloat16": ("Brain", "float"),
}
DTYPES = frozenset(_TYPES)  # the names of the dtypes kernels are compiled for


def source(code: str, dtype: str, wide: bool = False) -> str:
    """The whole text that is compiled for one dtype."""
    element, arithmetic = _TYPES[dtype]
    index = "long long" if wide else "int"
    types = f"typedef {element} T;\ntypedef {arithmetic} A;\ntypedef {index} I;\n#define THREADS {THREADS}\n"
    return PRELUDE + types + HELPERS + code


class Kernels:
    """The kernels in one text of CUDA C++, compiled for each dtype when it is first met."""

    def __init__(self, code: str):
        self.code = code
        self._kernels: dict[tuple[str, np.dtype, bool, int], Any] = {}

    def _kernel(self, name: str, like: Any, wide: bool) -> Any:
        key = (name, like.dtype, wide, like.device.id)
        kernel = self._kernels.get(key)
        if kernel is None:
            text = source(self.code, like.dtype.name, wide)
            kernel = xp(like).RawModule(code=text, options=("--std=c++17",)).get_function(name)
            self._kernels[key] = kernel
        return kernel

    def over(self, size: int, name: str, like: Any, *arguments: Any) -> None:
        """Starts a kernel over `size` elements, compiled for the dtype of `like`; its last parameter is the size.

        Indices are wide if `size` or `like`, the largest array that is indexed by them, asks for it.
        """
        blocks = min(-(-size // THREADS), MOST_BLOCKS)
        self._kernel(name, like, max(size, like.size) >= _WIDE_FROM)((blocks,), (THREADS,), (*arguments, size))

    def rows(self, rows: int, columns: int, name: str, like: Any, *arguments: Any) -> None:
        """Starts a kernel over rows; its last parameters are `columns`, the width, and the number of rows.

        The width is such that a thread takes four elements of a row, if the row is not very long.
        """
        width = min(THREADS, 1 << max(0, (columns - 1) // 4).bit_length())
        blocks = min(-(-rows * width // THREADS), MOST_BLOCKS)
        self.blocks(blocks, name, like, *arguments, columns, width, rows)

    def blocks(self, blocks: int, name: str, like: Any, *arguments: Any) -> None:
        """Starts a kernel in so many blocks, compiled for the dtype and the number of elements of `like`."""
        self._kernel(name, like, like.size >= _WIDE_FROM)((blocks,), (THREADS,), arguments)


def struct(*numbers: int) -> np.ndarray:
    """int32 numbers as one argument: what a kernel's parameter of a struct of ints is given by value."""
    return np.array(numbers, np.int32).view(np.dtype([("numbers", np.int32, (len(numbers),))]))


@functools.lru_cache(maxsize=256)
def geometry(windows: Windows, size: tuple[int, ...]) -> np.ndarray:
    """The kernels' struct Geometry: where windows lie, and the size of what they lie over, in three dimensions."""
    return struct(*windows.in_three_dimensions, *(1,) * (3 - len(size)), *size)
