"""Attention on the GPU: the scores and weights of a tile exist only on the chip. Formulas in reference.py.

A block of threads has the tile of TILE queries that belongs to it and walks along the keys, KEYS at a time, with a
running maximum and sum for each query; what lies above the diagonal is not computed. Backward computes the weights once
more from the logarithms of the sums: a kernel for the queries' gradient, which walks along the keys, and one for the
keys' and values', which walks along the queries of all heads that they serve. No atomic additions: equal runs have
equal sums. Arrays are known by their strides, so that heads may be columns of one projection.

Sums are of float32 (of float64 for float64) also for float16 and bfloat16, by the ordinary cores, not by tensor cores.

Source: Dao, Fu, Ermon, Rudra and Ré, "FlashAttention", 2022, algorithms 1 and 4; Dao, "FlashAttention-2", 2023, section
3, for the order of the loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shared.arrays.device import xp
from shared.arrays.kernels.attention import reference
from shared.arrays.kernels.dropout.cuda import UNIFORM, drop_scale, signed
from shared.arrays.kernels.launch import Kernels

__all__ = ["attention_backward", "attention_forward"]

Array = Any  # cupy.ndarray

TILE = 64  # queries of a block; a part of a row that sums are kept for has as many numbers
WIDTHS = (64, 128, 256)  # of heads, rounded up: the kernels keep the sums of whole rows

TILES = (
    f"#define TILE {TILE}\n"
    + r"""
typedef T View;     // elements of an array with strides of its own
typedef bool Flag;  // the same, of a mask that lets through
typedef A Number;   // and of one that is added

constexpr int KEYS = sizeof(A) == 4 ? 64 : 32, COLUMNS = KEYS / 16, DEPTH = 16;

struct Layout { long long batch, head, row; };  // strides
struct Sizes {
    long long heads, group, queries, keys, width, value_width, diagonal, seed;
    Layout q, k, v, out, grad, to_q, to_k, to_v, mask;
    long long mask_key;
};

template <typename P> __device__ P* head_of(P* x, const Layout& at, long long batch, long long head) {
    return x + batch * at.batch + head * at.head;
}
__device__ inline long long smaller(long long a, long long b) { return a < b ? a : b; }

// ---------------------------------------------------------------- products of tiles

// The 256 threads of a block are 16 by 16: thread (y, x) has the rows 4 y + r and the columns x + 16 j of a tile.

// `rows` × `columns` numbers of memory, and 0 beyond them, into shared memory.
template <int ROWS, int WIDTH> __device__ void fetch(const View* from, long long stride, long long rows,
                                                     long long columns, A* into) {
    for (int i = threadIdx.x; i < ROWS * WIDTH; i += THREADS) {
        const int r = i / WIDTH, c = i % WIDTH;
        into[r * (WIDTH + 1) + c] = r < rows && c < columns ? (A)from[r * stride + c] : 0;
    }
}

// products = a bᵀ for TILE rows of a and KEYS rows of b.
__device__ inline void compare(const View* a, long long a_stride, long long a_rows, const View* b, long long b_stride,
                               long long b_rows, long long width, A* left, A* right, A (&products)[4][COLUMNS]) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) products[r][j] = 0;
    for (long long d = 0; d < width; d += DEPTH) {
        __syncthreads();
        fetch<TILE, DEPTH>(a + d, a_stride, a_rows, width - d, left);
        fetch<KEYS, DEPTH>(b + d, b_stride, b_rows, width - d, right);
        __syncthreads();
#pragma unroll 4
        for (int c = 0; c < DEPTH; c++)
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                for (int j = 0; j < COLUMNS; j++)
                    products[r][j] += left[(4 * y + r) * (DEPTH + 1) + c] * right[(x + 16 * j) * (DEPTH + 1) + c];
    }
}

// sums += weights · b, or weightsᵀ · b where TURNED, for weights of TILE × KEYS in shared memory: R rows for each y,
// C times 64 columns.
template <int C, int R, bool TURNED> __device__ void mix(const A* weights, const View* b, long long stride,
                                                         long long rows, long long width, A* part,
                                                         A (&sums)[C][R][4]) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    for (int k = 0; k < (TURNED ? TILE : KEYS); k += DEPTH) {
#pragma unroll
        for (int c = 0; c < C; c++) {
            __syncthreads();
            fetch<DEPTH, 64>(b + k * stride + c * 64, stride, rows - k, width - c * 64, part);
            __syncthreads();
#pragma unroll 4
            for (int i = 0; i < DEPTH; i++)
#pragma unroll
                for (int r = 0; r < R; r++) {
                    const A weight =
                        TURNED ? weights[(k + i) * (KEYS + 1) + R * y + r] : weights[(R * y + r) * (KEYS + 1) + k + i];
#pragma unroll
                    for (int j = 0; j < 4; j++) sums[c][r][j] += weight * part[i * 65 + x + 16 * j];
                }
        }
    }
}

template <int C, int R> __device__ void clear(A (&sums)[C][R][4]) {
#pragma unroll
    for (int c = 0; c < C; c++)
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int j = 0; j < 4; j++) sums[c][r][j] = 0;
}

template <int C, int R> __device__ void store(A (&sums)[C][R][4], A factor, View* to, long long stride, long long rows,
                                              long long width) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
    for (int c = 0; c < C; c++)
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int row = R * y + r, column = c * 64 + x + 16 * j;
                if (row < rows && column < width) to[row * stride + column] = T(sums[c][r][j] * factor);
            }
}

// ---------------------------------------------------------------- masks and dropout

struct Head {  // which keys the queries of one head see, and what their weights are multiplied with
    const Flag* may;
    const Number* added;
    long long row, key, diagonal, place, keys, seed;
    float p;
    A factor;

    __device__ Head(const Sizes& s, const Flag* may, const Number* added, long long unit, double p, double factor)
        : may(may), added(added), row(s.mask.row), key(s.mask_key), diagonal(s.diagonal),
          place(unit * s.queries * s.keys), keys(s.keys), seed(s.seed), p(p), factor(factor) {
        const long long at = unit / s.heads * s.mask.batch + unit % s.heads * s.mask.head;
        if (may) this->may += at;
        if (added) this->added += at;
    }
    __device__ A masked(A score, long long query, long long k) const {
        if (k > query + diagonal || (may && !may[query * row + k * key])) return -infinity();
        return added ? score + added[query * row + k * key] : score;
    }
    __device__ A kept(long long query, long long k) const {
        return p == 0 || uniform((unsigned)(place + query * keys + k), seed) >= p ? factor : 0;
    }
};

// ---------------------------------------------------------------- forward

template <int C> __device__ void block_forward(const View* q, const View* k, const View* v, const Flag* may,
                                               const Number* added, View* out, A* logs, const Sizes& s, double scale,
                                               double p, double factor) {
    __shared__ A weights[TILE * (KEYS + 1)], left[TILE * (DEPTH + 1)], right[KEYS * (DEPTH + 1)];
    __shared__ A parts[THREADS], largest[TILE], totals[TILE], fades[TILE];
    const int x = threadIdx.x % 16, y = threadIdx.x / 16, row = threadIdx.x / 4, lane = threadIdx.x % 4;
    const long long tiles = (s.queries + TILE - 1) / TILE, unit = blockIdx.x / tiles;
    const long long first = (tiles - 1 - blockIdx.x % tiles) * TILE;  // the last have most to do, and begin
    const long long rows = smaller(TILE, s.queries - first), batch = unit / s.heads, head = unit % s.heads;
    const long long seen = smaller(s.keys, first + rows + s.diagonal);
    const Head rules(s, may, added, unit, p, factor);
    q = head_of(q, s.q, batch, head) + first * s.q.row;
    k = head_of(k, s.k, batch, head / s.group);
    v = head_of(v, s.v, batch, head / s.group);
    if (threadIdx.x < TILE) largest[threadIdx.x] = -infinity(), totals[threadIdx.x] = 0;
    A sums[C][4][4];
    clear(sums);
    for (long long key = 0; key < seen; key += KEYS) {
        const long long count = smaller(KEYS, seen - key);
        A products[4][COLUMNS];
        compare(q, s.q.row, rows, k + key * s.k.row, s.k.row, count, s.width, left, right, products);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const int i = 4 * y + r, c = x + 16 * j;
                weights[i * (KEYS + 1) + c] =
                    i < rows && c < count ? rules.masked(products[r][j] * (A)scale, first + i, key + c) : -infinity();
            }
        __syncthreads();
        // From here on four threads have a row.
        A *mine = weights + row * (KEYS + 1), highest = -infinity();
        for (int c = lane; c < KEYS; c += 4) highest = Larger::of(mine[c], highest);
        parts[threadIdx.x] = highest;
        __syncthreads();
        highest = largest[row];
        for (int i = 0; i < 4; i++) highest = Larger::of(parts[4 * row + i], highest);
        const A shift = highest == -infinity() ? 0 : highest, fade = exp(largest[row] - shift);
        A total = 0;
        for (int c = lane; c < KEYS; c += 4) {
            const A weight = exp(mine[c] - shift);
            total += weight;
            mine[c] = c < count && row < rows ? weight * rules.kept(first + row, key + c) : 0;
        }
        __syncthreads();
        parts[threadIdx.x] = total;
        __syncthreads();
        if (lane == 0) {
            totals[row] = totals[row] * fade;
            for (int i = 0; i < 4; i++) totals[row] += parts[4 * row + i];
            largest[row] = highest;
            fades[row] = fade;
        }
        __syncthreads();
#pragma unroll
        for (int c = 0; c < C; c++)
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[c][r][j] *= fades[4 * y + r];
        mix<C, 4, false>(weights, v + key * s.v.row, s.v.row, count, s.value_width, left, sums);
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const A total = totals[4 * y + r], share = total == 0 ? 1 : 1 / total;
#pragma unroll
        for (int c = 0; c < C; c++)
#pragma unroll
            for (int j = 0; j < 4; j++) sums[c][r][j] *= share;
    }
    store(sums, 1, head_of(out, s.out, batch, head) + first * s.out.row, s.out.row, rows, s.value_width);
    if (threadIdx.x < rows) {
        const A total = totals[threadIdx.x];
        logs[unit * s.queries + first + threadIdx.x] = total == 0 ? infinity() : largest[threadIdx.x] + log(total);
    }
}

// ---------------------------------------------------------------- backward

// Σ grad · out for every query.
extern "C" __global__ void means(const View* out, const View* grad, A* mean, const Sizes s, long long columns,
                                 long long width, long long rows) {
    for (Rows at(width, rows); at.more(); at.next()) {
        const I n = at.count(columns);
        const long long unit = at.row / s.queries, query = at.row % s.queries;
        const long long batch = unit / s.heads, head = unit % s.heads;
        A sum = 0;
        for (I i = at.lane; i < n; i += at.width)
            sum += (A)head_of(out, s.out, batch, head)[query * s.out.row + i] *
                   (A)head_of(grad, s.grad, batch, head)[query * s.grad.row + i];
        sum = row_sum(sum, at.width);
        if (n && at.lane == 0) mean[at.row] = sum;
    }
}

// The weights of a tile, after dropout, and the gradient by its scores: weight · (to_weight − mean).
__device__ inline void slopes_of(const View* q, const View* k, const View* v, const View* grad, const A* log_sums,
                                 const A* mean, const Head& rules, const Sizes& s, A scale, long long first,
                                 long long rows, long long key, long long count, A* left, A* right, A* weights,
                                 A* slopes) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    A scores[4][COLUMNS], to_weights[4][COLUMNS];
    compare(q, s.q.row, rows, k, s.k.row, count, s.width, left, right, scores);
    compare(grad, s.grad.row, rows, v, s.v.row, count, s.value_width, left, right, to_weights);
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            const int i = 4 * y + r, c = x + 16 * j, at = i * (KEYS + 1) + c;
            const bool there = i < rows && c < count;
            const A kept = there ? rules.kept(first + i, key + c) : 0;
            const A score = there ? rules.masked(scores[r][j] * scale, first + i, key + c) : 0;
            const A weight = there ? exp(score - log_sums[i]) : 0;
            if (weights) weights[at] = weight * kept;
            slopes[at] = there ? weight * (to_weights[r][j] * kept - mean[i]) : 0;
        }
}

template <int C> __device__ void block_queries(const View* q, const View* k, const View* v, const Flag* may,
                                               const Number* added, const A* logs, const View* grad, const A* mean,
                                               View* to_q, const Sizes& s, double scale, double p, double factor) {
    __shared__ A slopes[TILE * (KEYS + 1)], left[TILE * (DEPTH + 1)], right[KEYS * (DEPTH + 1)];
    const long long tiles = (s.queries + TILE - 1) / TILE, unit = blockIdx.x / tiles;
    const long long first = (tiles - 1 - blockIdx.x % tiles) * TILE;
    const long long rows = smaller(TILE, s.queries - first), batch = unit / s.heads, head = unit % s.heads;
    const long long seen = smaller(s.keys, first + rows + s.diagonal), place = unit * s.queries + first;
    const Head rules(s, may, added, unit, p, factor);
    q = head_of(q, s.q, batch, head) + first * s.q.row;
    grad = head_of(grad, s.grad, batch, head) + first * s.grad.row;
    k = head_of(k, s.k, batch, head / s.group);
    v = head_of(v, s.v, batch, head / s.group);
    A sums[C][4][4];
    clear(sums);
    for (long long key = 0; key < seen; key += KEYS) {
        const long long count = smaller(KEYS, seen - key);
        slopes_of(q, k + key * s.k.row, v + key * s.v.row, grad, logs + place, mean + place, rules, s, scale, first,
                  rows, key, count, left, right, nullptr, slopes);
        mix<C, 4, false>(slopes, k + key * s.k.row, s.k.row, count, s.width, left, sums);
    }
    store(sums, scale, head_of(to_q, s.to_q, batch, head) + first * s.to_q.row, s.to_q.row, rows, s.width);
}

template <int C> __device__ void block_keys(const View* q, const View* k, const View* v, const Flag* may,
                                            const Number* added, const A* logs, const View* grad, const A* mean,
                                            View* to_k, View* to_v, const Sizes& s, double scale, double p,
                                            double factor) {
    __shared__ A weights[TILE * (KEYS + 1)], slopes[TILE * (KEYS + 1)];
    __shared__ A left[TILE * (DEPTH + 1)], right[KEYS * (DEPTH + 1)];
    const long long tiles = (s.keys + KEYS - 1) / KEYS, key = blockIdx.x % tiles * KEYS;
    const long long key_heads = s.heads / s.group, batch = blockIdx.x / tiles / key_heads;
    const long long key_head = blockIdx.x / tiles % key_heads, count = smaller(KEYS, s.keys - key);
    k = head_of(k, s.k, batch, key_head) + key * s.k.row;
    v = head_of(v, s.v, batch, key_head) + key * s.v.row;
    A to_keys[C][COLUMNS][4], to_values[C][COLUMNS][4];
    clear(to_keys);
    clear(to_values);
    for (long long head = key_head * s.group; head < (key_head + 1) * s.group; head++) {
        const long long unit = batch * s.heads + head, begin = key - s.diagonal;  // the first that sees these keys
        const Head rules(s, may, added, unit, p, factor);
        const View *queries = head_of(q, s.q, batch, head), *gradients = head_of(grad, s.grad, batch, head);
        for (long long first = begin > 0 ? begin / TILE * TILE : 0; first < s.queries; first += TILE) {
            const long long rows = smaller(TILE, s.queries - first), place = unit * s.queries + first;
            const View *some = queries + first * s.q.row, *theirs = gradients + first * s.grad.row;
            slopes_of(some, k, v, theirs, logs + place, mean + place, rules, s, scale, first, rows, key, count, left,
                      right, weights, slopes);
            mix<C, COLUMNS, true>(weights, theirs, s.grad.row, rows, s.value_width, left, to_values);
            mix<C, COLUMNS, true>(slopes, some, s.q.row, rows, s.width, left, to_keys);
        }
    }
    store(to_keys, scale, head_of(to_k, s.to_k, batch, key_head) + key * s.to_k.row, s.to_k.row, count, s.width);
    store(to_values, 1, head_of(to_v, s.to_v, batch, key_head) + key * s.to_v.row, s.to_v.row, count, s.value_width);
}
"""
)

_OF_A_WIDTH = """
extern "C" __global__ void forward_{width}(const View* q, const View* k, const View* v, const Flag* may,
                                           const Number* added, View* out, A* logs, const Sizes s, double scale,
                                           double p, double factor) {{
    block_forward<{parts}>(q, k, v, may, added, out, logs, s, scale, p, factor);
}}

extern "C" __global__ void queries_{width}(const View* q, const View* k, const View* v, const Flag* may,
                                           const Number* added, const A* logs, const View* grad, const A* mean,
                                           View* to_q, const Sizes s, double scale, double p, double factor) {{
    block_queries<{parts}>(q, k, v, may, added, logs, grad, mean, to_q, s, scale, p, factor);
}}

extern "C" __global__ void keys_{width}(const View* q, const View* k, const View* v, const Flag* may,
                                        const Number* added, const A* logs, const View* grad, const A* mean,
                                        View* to_k, View* to_v, const Sizes s, double scale, double p,
                                        double factor) {{
    block_keys<{parts}>(q, k, v, may, added, logs, grad, mean, to_k, to_v, s, scale, p, factor);
}}
"""

kernels = Kernels(UNIFORM + TILES + "".join(_OF_A_WIDTH.format(width=w, parts=w // 64) for w in WIDTHS))


def _strides(x: Array | None, count: int = 3) -> list[int]:
    """The strides in elements of an array (B, H, n, width), but for the last; zeros for None."""
    return [0] * count if x is None else [s // x.itemsize for s in x.strides[:count]]


def _sizes(q: Array, k: Array, v: Array, diagonal: int | None, seed: int, mask: Array | None, *others: Any) -> Any:
    """The kernels' struct Sizes; `others` are out, and perhaps grad and the gradients."""
    far = k.shape[2] if diagonal is None else diagonal  # without one, every query sees every key
    sizes = [q.shape[1], q.shape[1] // k.shape[1], q.shape[2], k.shape[2], q.shape[3], v.shape[3], far, signed(seed)]
    for x in (q, k, v, *others, *[None] * (5 - len(others))):
        sizes += _strides(x)
    sizes += _strides(mask, 4)
    return np.array(sizes, np.int64).view(np.dtype([("numbers", np.int64, (len(sizes),))]))


def _mask(mask: Array | None, q: Array, k: Array) -> tuple[Any, Any, Array | None]:
    """The mask as a kernel is given it (booleans or 0, numbers to be added or 0), and as (B, H, L, S)."""
    if mask is None:
        return 0, 0, None
    if mask.dtype != bool:
        mask = mask.astype(_arithmetic(q), copy=False)
    mask = xp(q).broadcast_to(mask, (*q.shape[:3], k.shape[2]))
    return (mask, 0, mask) if mask.dtype == bool else (0, mask, mask)


def _arithmetic(q: Array) -> np.dtype:
    """The dtype of sums: float32 for float16 and bfloat16."""
    return np.dtype(np.float32) if q.dtype.itemsize < 4 else q.dtype


def _like(x: Array, shape: tuple[int, ...]) -> Array:
    """An empty array of `shape` (B, H, n, width) whose rows lie in the order of those of x."""
    if x.strides[1] < x.strides[2]:
        return xp(x).empty((shape[0], shape[2], shape[1], shape[3]), x.dtype).swapaxes(1, 2)
    return xp(x).empty(shape, x.dtype)


def _tiles(size: int, of: int) -> int:
    return -(-size // of)


def attention_forward(
    q: Array, k: Array, v: Array, mask: Any, diagonal: int | None, scale: float, p: float, seed: int
) -> tuple[Array, Array]:
    """`reference.attention_forward` in one launch; the logarithms in float32 for float16 and bfloat16."""
    widest = max(q.shape[3], v.shape[3])
    if widest > WIDTHS[-1]:
        return reference.attention_forward(q, k, v, mask, diagonal, scale, p, seed)
    out, logs = _like(q, (*q.shape[:3], v.shape[3])), xp(q).empty(q.shape[:3], _arithmetic(q))
    may, added, mask = _mask(mask, q, k)
    sizes = _sizes(q, k, v, diagonal, seed, mask, out)
    blocks = q.shape[0] * q.shape[1] * _tiles(q.shape[2], TILE)
    arguments = (q, k, v, may, added, out, logs, sizes, float(scale), float(p), drop_scale(p))
    kernels.blocks(blocks, f"forward_{_rounded(widest)}", q, *arguments)
    return out, logs


def attention_backward(
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    logs: Array,
    grad: Array,
    mask: Any,
    diagonal: int | None,
    scale: float,
    p: float,
    seed: int,
    into: tuple[Array, Array, Array] | None = None,
) -> tuple[Array, Array, Array]:
    """`reference.attention_backward` in three launches."""
    widest = max(q.shape[3], v.shape[3])
    to_q, to_k, to_v = into or tuple([_like(x, x.shape) for x in (q, k, v)])
    if widest > WIDTHS[-1]:
        found = reference.attention_backward(q, k, v, out, logs, grad, mask, diagonal, scale, p, seed)
        to_q[...], to_k[...], to_v[...] = found
        return to_q, to_k, to_v
    may, added, mask = _mask(mask, q, k)
    sizes = _sizes(q, k, v, diagonal, seed, mask, out, grad, to_q, to_k, to_v)
    mean = xp(q).empty(q.shape[:3], _arithmetic(q))
    kernels.rows(mean.size, v.shape[3], "means", q, out, grad, mean, sizes)
    given = (q, k, v, may, added, logs, grad, mean)
    rest = (sizes, float(scale), float(p), drop_scale(p))
    units, keys = q.shape[0] * q.shape[1], 32 if q.dtype.itemsize == 8 else 64
    kernels.blocks(units * _tiles(q.shape[2], TILE), f"queries_{_rounded(widest)}", q, *given, to_q, *rest)
    blocks = q.shape[0] * k.shape[1] * _tiles(k.shape[2], keys)
    kernels.blocks(blocks, f"keys_{_rounded(widest)}", q, *given, to_k, to_v, *rest)
    return to_q, to_k, to_v


def _rounded(width: int) -> int:
    """The width of the kernel that serves."""
    return next(w for w in WIDTHS if w >= width)
